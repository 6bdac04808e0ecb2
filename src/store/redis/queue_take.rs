//! Taking items of queues on Redis: first they are claimed, then they are read, in exchanges that
//! are bounded in bytes. What cannot be read is given back.

use std::time::Duration;

use redis::Pipeline;

use super::RedisStore;
use super::queue::named;
use super::queue_replies::{self as replies, CLAIM_FIELDS, Held};
use super::reply::value;
use super::stream::millis;
use crate::store::keys::QueueKeys;
use crate::store::queue::{After, Claim, Outcome, Settle, Take, Taken};
use crate::store::{Reply, StoreError};

/// Bytes of heads and bodies that are read in one exchange; a longer item is read alone.
const READ_BYTES: u64 = 1 << 20;
/// How long what could not be read waits, so that it does not keep others from being read.
const UNREAD_PAUSE: Duration = Duration::from_secs(1);

impl RedisStore {
    /// See [`crate::store::Store::queue_take`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_take(&self, keys: &QueueKeys, take: Take<'_>) -> Result<Taken, StoreError> {
        if let Some(taken) = self.take_once(keys, take).await? {
            return Ok(taken);
        }
        let was_known = self.queue_groups.has(&keys.ready);
        let put_back = self.queue_repair(keys).await?;
        if was_known || put_back > 0 {
            return Ok(Taken::Reset { put_back });
        }
        self.take_once(keys, take).await?.ok_or(StoreError::Unavailable)
    }

    /// Nothing where the group is gone.
    async fn take_once(&self, keys: &QueueKeys, take: Take<'_>) -> Reply<Option<Taken>> {
        let QueueKeys { ready, later, pause, items, open, bytes, .. } = keys;
        let touched = [&**ready, later, pause, items, open, bytes];
        let mut call = named(&self.topology.scripts.queues.take, &touched);
        call.arg(take.most).arg(millis(take.lease)).arg(take.node).arg(u8::from(take.sweep));
        call.arg(take.in_flight);
        let taken = replies::taken(&self.ask_patiently(call).await?)?;
        let (held, now_ms, next_ms) = match taken {
            replies::Took::NoGroup => return Ok(None),
            replies::Took::Paused(pause) => return Ok(Some(Taken::Paused(pause))),
            replies::Took::Items { held, now_ms, next_ms } => (held, now_ms, next_ms),
        };
        self.queue_groups.note(ready);
        let claims = self.read_claims(keys, &held).await?;
        Ok(Some(Taken::Items { claims, now_ms, next_ms }))
    }

    /// Reads what was claimed, as far as that is possible.
    ///
    /// # Errors
    /// Nothing could be read.
    async fn read_claims(&self, keys: &QueueKeys, held: &[Held]) -> Reply<Vec<Claim>> {
        let (mut claims, mut rest) = (Vec::with_capacity(held.len()), held);
        while !rest.is_empty() {
            let (some, behind) = rest.split_at(fitting(rest));
            match self.read_twice(keys, some).await {
                Ok(read) => claims.extend(read),
                Err(error) => {
                    self.leave_unread(keys, some, behind).await;
                    return if claims.is_empty() { Err(error) } else { Ok(claims) };
                }
            }
            rest = behind;
        }
        Ok(claims)
    }

    async fn read_twice(&self, keys: &QueueKeys, held: &[Held]) -> Reply<Vec<Claim>> {
        if let Ok(claims) = self.read_once(keys, held).await {
            return Ok(claims);
        }
        self.topology.first_connection(self.patience()).await;
        self.read_once(keys, held).await
    }

    async fn read_once(&self, keys: &QueueKeys, held: &[Held]) -> Reply<Vec<Claim>> {
        let mut pipeline = Pipeline::with_capacity(2 * held.len() + 1);
        for Held { hold, .. } in held {
            pipeline.cmd("GET").arg(keys.body(&hold.id));
            pipeline.cmd("HMGET").arg(keys.item(&hold.id)).arg(&CLAIM_FIELDS);
        }
        let mut answers = self.run_patiently(&mut pipeline).await?.into_iter();
        let mut claims = Vec::with_capacity(held.len());
        for held in held {
            let (body, record) = (answers.next().and_then(value), answers.next());
            claims.extend(replies::claimed(record.unwrap_or_default(), body, held)?);
        }
        Ok(claims)
    }

    /// Gives back what could not be read, which then waits, and what was not read behind it. Where
    /// this fails too, it is somebody else's when the lease ends.
    async fn leave_unread(&self, keys: &QueueKeys, failed: &[Held], behind: &[Held]) {
        self.topology.first_connection(self.patience()).await;
        let mut pipeline = Pipeline::with_capacity(failed.len() + behind.len() + 1);
        let failed = failed.iter().map(|held| (held, UNREAD_PAUSE));
        for (held, delay) in failed.chain(behind.iter().map(|held| (held, Duration::ZERO))) {
            let settle = Settle {
                hold: &held.hold,
                outcome: Outcome::Back { delay },
                status: 0,
                error: "",
                answer: None,
                // Nothing of it ends by this.
                keep: Duration::ZERO,
                dead_most: 0,
                after: After::default(),
            };
            let answer = keys.answer(&held.hold.id, held.hold.token);
            pipeline.add_command(self.settling(keys, &settle, &answer));
        }
        let given = self.run_patiently(&mut pipeline).await;
        let count = pipeline.len();
        tracing::debug!(count, is_told = given.is_ok(), "claims could not be read: given back");
    }
}

/// How many of them one exchange reads.
fn fitting(held: &[Held]) -> usize {
    let mut bytes = 0u64;
    let fits = held.iter().take_while(|held| {
        bytes = bytes.saturating_add(held.bytes);
        bytes <= READ_BYTES
    });
    fits.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::queue::{DeliveryId, Hold};

    #[test]
    fn one_exchange_reads_no_more_than_its_bytes_and_one_item_at_least() {
        let id = DeliveryId::parse(&"0".repeat(26)).expect("an id");
        let held = |bytes: u64| {
            let hold = Hold { entry: String::new(), id, token: 1 };
            Held { hold, stalls: 0, bytes }
        };
        for (bytes, expected) in [
            (&[1, 1, 1][..], 3),
            (&[READ_BYTES, 1], 1),
            (&[READ_BYTES - 1, 1, 1], 2),
            (&[u64::MAX, 1], 1),
            (&[1, u64::MAX, u64::MAX], 1),
        ] {
            let all: Vec<Held> = bytes.iter().map(|bytes| held(*bytes)).collect();
            assert_eq!(fitting(&all), expected, "{bytes:?}");
        }
    }
}
