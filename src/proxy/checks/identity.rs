//! What is counted of who calls: the verdicts on credentials, and what became of sessions.

use std::time::SystemTime;

use super::{Checks, Mode};
use crate::auth::{self, Denied, Judged, Sent, Verifier};
use crate::base::facts::{Caller, Credential, Identity};
use crate::observe::{ApiKeyResult, IdentityMeter, SessionOutcome, TokenResult};
use crate::session::NoSession;

impl<'a> Checks<'a, '_> {
    /// Whether whoever sends a token has the key that it is bound to. That this is shown once is
    /// asked of the store.
    ///
    /// # Errors
    /// It is not shown.
    pub(in crate::proxy) fn prove(&mut self, caller: Caller) -> Result<Caller, Denied> {
        match caller.as_deref().map(|it| &it.credential) {
            Some(Credential::Token { proven_by: Some(_), .. }) => self.prove_key(caller),
            _ => Ok(caller),
        }
    }

    #[cold]
    fn prove_key(&mut self, caller: Caller) -> Result<Caller, Denied> {
        let request = self.request;
        let Some(identity) = caller.as_deref() else { return Ok(caller) };
        let verifier = request.plan().verifiers.get(&*identity.verifier);
        let Some(verifier) = verifier else { return Err(Denied::Unbound) };
        let client = request.client();
        let sent = Sent {
            headers: &self.head.headers,
            method: &request.received.method,
            scheme: client.scheme,
            authority: client.authority(request.asked),
            path: request.asked.path(),
        };
        let proof = auth::prove(verifier, identity, &sent, SystemTime::now())?;
        self.proof = proof.filter(|_| self.mode == Mode::Charge);
        Ok(caller)
    }

    /// The refusal of a proof that has come before.
    pub(super) fn replayed(&self, identity: &Identity) -> Denied {
        let verifier = self.request.plan().verifiers.get(&*identity.verifier);
        verifier.map_or(Denied::Unbound, |verifier| verifier.replayed())
    }

    /// The credential was judged. Who only looks counts nothing.
    pub(in crate::proxy) fn count(&self, judged: Judged<'_>) {
        if let Some(meter) = self.meter() {
            judged.count(meter);
        }
    }

    /// The credential is good, and was revoked.
    pub(super) fn count_revoked(&self, identity: &Identity) {
        let Some(meter) = self.meter() else { return };
        match identity.credential {
            Credential::Token { .. } => {
                let verifier = self.request.plan().verifiers.get(&*identity.verifier);
                meter.token(verifier.and_then(|it| Verifier::meter(it)), TokenResult::Revoked);
            }
            Credential::ApiKey { .. } => meter.api_key(ApiKeyResult::Revoked),
            Credential::Certificate | Credential::Session { .. } => {}
        }
    }

    /// Whether the store, which was asked for a session or not, has answered (`said`), and why the
    /// request may not pass.
    #[inline]
    pub(super) fn count_session(&self, said: Option<bool>, refusal: Option<&NoSession>) {
        if self.request.route.session.is_none() {
            return;
        }
        let Some(meter) = self.meter() else { return };
        meter.session(match refusal {
            None | Some(NoSession::Required) => match said {
                None => SessionOutcome::Missing,
                Some(false) => SessionOutcome::Unknown,
                Some(true) if self.has_session => SessionOutcome::Attached,
                Some(true) => SessionOutcome::Ended,
            },
            Some(NoSession::Idle) => SessionOutcome::Idle,
            Some(NoSession::Expired) => SessionOutcome::Expired,
            Some(NoSession::NotRenewed) => SessionOutcome::NotRenewed,
            Some(NoSession::Suspended) => SessionOutcome::Suspended,
            Some(NoSession::Undated { .. } | NoSession::TooLarge | NoSession::Unreadable) => {
                SessionOutcome::Unreadable
            }
            Some(NoSession::Unknown(_)) => SessionOutcome::Unknown,
        });
    }

    pub(super) fn meter(&self) -> Option<&'a IdentityMeter> {
        let request = self.request;
        (self.mode == Mode::Charge).then(|| request.gateway().observer.metrics.identity())
    }
}
