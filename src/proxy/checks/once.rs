//! What a request asks of its idempotency key, and what the answer means.

use super::{Checks, Mode};
use crate::config::Outage;
use crate::idempotency::{Ended, Lock, NotOnce, Standing, may_repeat, standing};
use crate::proxy::once::{self, Before, First, Turn};
use crate::proxy::record::Record;
use crate::proxy::rejection::Rejection;

impl Checks<'_, '_> {
    /// Wants the key that the request names; why there is none that can be used is judged later.
    pub(super) fn want_key(&mut self) {
        match once::key_of(&self.request, &self.head.headers) {
            Ok(key) => {
                let key = key.filter(|_| self.mode == Mode::Charge);
                self.claim = key.and_then(|key| once::claim(&self.request, &key));
            }
            Err(not_once) => self.not_once = Some(not_once),
        }
    }

    /// The store has said whose the key is, or has done nothing.
    pub(super) fn on_claim(&mut self) {
        let (Some(claim), Some(reply)) = (&mut self.claim, &mut self.answers.claim) else { return };
        match reply {
            Ok(found) => {
                let now_ms = claim.claims().now_ms();
                let judged = standing(found.take(), claim.value(), now_ms);
                if judged == Standing::Own {
                    claim.hold()
                } else {
                    claim.leave()
                }
                self.standing = Some(judged);
            }
            Err(error) if error.is_undone() => claim.leave(),
            // It may have the key yet.
            Err(_) => {}
        }
    }

    /// Whose turn it is, of a request that is admitted.
    ///
    /// # Errors
    /// The request must wait, or names a key that it cannot use.
    pub(in crate::proxy) async fn turn(&mut self, record: &mut Record) -> Result<Turn, Rejection> {
        if let Some(not_once) = self.not_once.take() {
            return Err(not_once.into());
        }
        let Some(mut claim) = self.claim.take() else { return Ok(Turn::Any) };
        let Some(policy) = &self.request.route.written.idempotency else { return Ok(Turn::Any) };
        let first =
            |claim| Turn::First(First::new(&self.request, &self.head.headers, policy, claim));
        let standing = match (self.standing.take(), self.answers.claim.take()) {
            (Some(standing), _) => standing,
            (None, Some(Err(error))) => {
                return match self.request.plan().on_outage.idempotency {
                    Outage::Refuse => Err(NotOnce::Unknown(error).into()),
                    Outage::Allow => Ok(first(claim)),
                };
            }
            (None, _) => return Ok(Turn::Any),
        };
        match standing {
            Standing::Own => {
                record.note_idempotency("first");
                Ok(first(claim))
            }
            Standing::Running => Err(NotOnce::InProgress.into()),
            Standing::Unknown(_) if !may_repeat(policy, &self.request.received.method) => {
                Err(NotOnce::OutcomeUnknown.into())
            }
            Standing::Unknown(found) => match claim.take_over(&found).await {
                Ok(true) => {
                    record.note_idempotency("repeated");
                    Ok(first(claim))
                }
                Ok(false) => Err(NotOnce::InProgress.into()),
                Err(error) => Err(NotOnce::Unknown(error).into()),
            },
            Standing::Ended(ended) => Ok(self.again(*ended)),
            Standing::Sealed(sealed) => {
                let lock = Lock::of(policy, &self.request.route.name, claim.key());
                let ended = lock.open(&sealed).ok_or(NotOnce::Unsealable)?;
                Ok(self.again(ended))
            }
        }
    }

    /// The turn of a request that was answered before.
    fn again(&self, ended: Ended) -> Turn {
        let charges = self.charges.as_ref().zip(self.taken());
        let refund = charges.and_then(|(charges, taken)| charges.undo_again(&taken));
        Turn::Again(Box::new(Before { ended, refund }))
    }
}
