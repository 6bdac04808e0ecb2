//! What is counted of who calls: the verdicts on credentials, and what became of sessions.

use super::{Checks, Mode};
use crate::auth::{Judged, Verifier};
use crate::base::facts::{Credential, Identity};
use crate::observe::{ApiKeyResult, IdentityMeter, SessionOutcome, TokenResult};
use crate::session::NoSession;

impl<'a> Checks<'a, '_> {
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
            Credential::Certificate => {}
        }
    }

    /// Whether the store, which was asked for a session or not, has answered (`said`), and why the
    /// request may not pass.
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

    fn meter(&self) -> Option<&'a IdentityMeter> {
        let request = self.request;
        (self.mode == Mode::Charge).then(|| request.gateway().observer.metrics.identity())
    }
}
