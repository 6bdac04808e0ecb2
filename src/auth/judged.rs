//! What is told of a credential that was judged, for metrics alone.

use super::challenge::{Denied, KeyFault, Reason};
use super::proof_fault::ProofFault;
use crate::base::facts::{Caller, Credential};
use crate::observe::{ApiKeyResult, IdentityMeter, TokenMeter, TokenResult};

/// What became of the credential of one request.
#[derive(Debug, Clone, Copy, Default)]
pub enum Judged<'p> {
    /// There was none that is counted.
    #[default]
    Nothing,
    /// A token, and who counts it where its verifier is known.
    Token(Option<&'p TokenMeter>, TokenResult),
    /// An API key.
    ApiKey(ApiKeyResult),
}

/// What was found on the way to a caller.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuthNotes<'p> {
    /// What counts the tokens of the verifier whose token it is.
    pub(super) meter: Option<&'p TokenMeter>,
    /// Whether the caller was known from a request before.
    pub(super) is_remembered: bool,
    /// What calls, where the claims do not suffice.
    pub(super) kind: Kind,
}

/// Kinds of credentials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Other,
    Token,
    ApiKey,
}

impl Judged<'_> {
    /// Counts it.
    pub fn count(self, meter: &IdentityMeter) {
        match self {
            Self::Nothing => {}
            Self::Token(verifier, result) => meter.token(verifier, result),
            Self::ApiKey(result) => meter.api_key(result),
        }
    }
}

impl<'p> AuthNotes<'p> {
    /// What is told of the verdict.
    pub(super) fn judged(self, verdict: &Result<Caller, Denied>) -> Judged<'p> {
        let Self { meter, is_remembered, .. } = self;
        let token = |result| Judged::Token(meter, result);
        let kind = match verdict {
            Ok(caller) => match caller.as_deref().map(|it| &it.credential) {
                Some(Credential::Token { .. }) => Kind::Token,
                Some(Credential::ApiKey { .. }) => Kind::ApiKey,
                Some(Credential::Certificate | Credential::Session { .. }) | None => Kind::Other,
            },
            // It is good, and does not suffice here.
            Err(Denied::Insufficient { .. }) => self.kind,
            Err(denied) => {
                return match denied {
                    Denied::ApiKey(fault) => Judged::ApiKey(fault.result()),
                    Denied::KeyUnread(_) => Judged::ApiKey(ApiKeyResult::Unread),
                    _ => denied.token_result().map_or(Judged::Nothing, token),
                };
            }
        };
        match (kind, is_remembered) {
            (Kind::Other, _) => Judged::Nothing,
            (Kind::Token, true) => token(TokenResult::Remembered),
            (Kind::Token, false) => token(TokenResult::Verified),
            (Kind::ApiKey, true) => Judged::ApiKey(ApiKeyResult::Remembered),
            (Kind::ApiKey, false) => Judged::ApiKey(ApiKeyResult::Verified),
        }
    }
}

impl Denied {
    /// What a token is that is refused so, where it is one.
    fn token_result(&self) -> Option<TokenResult> {
        match self {
            Self::Invalid(reason) => Some(reason.result()),
            Self::KeysUnavailable(_) | Self::Unasked(_) => Some(TokenResult::UnknownKey),
            Self::Revoked(_) => Some(TokenResult::Revoked),
            Self::Unproven { fault: ProofFault::NoToken, .. } => None,
            Self::Malformed
            | Self::Several
            | Self::Unbound
            | Self::Unproven { .. }
            | Self::Insufficient { .. } => Some(TokenResult::Claims),
            Self::NoToken
            | Self::NoApiKey
            | Self::NoCertificate
            | Self::ApiKey(_)
            | Self::KeyUnread(_)
            | Self::Certificate(_)
            | Self::NoSession
            | Self::SessionRevoked => None,
        }
    }
}

impl Reason {
    fn result(self) -> TokenResult {
        match self {
            Self::Signature | Self::Algorithm => TokenResult::Signature,
            Self::Key | Self::KeyUnknown => TokenResult::UnknownKey,
            Self::Expired => TokenResult::Expired,
            Self::TooLarge
            | Self::Parts
            | Self::Encoding
            | Self::Header
            | Self::Extension
            | Self::Type
            | Self::Claims
            | Self::Claim(_)
            | Self::ClaimType(..)
            | Self::NoExpiry
            | Self::NotYet
            | Self::IssuedInFuture
            | Self::MaxAge
            | Self::Issuer
            | Self::Place
            | Self::Audience
            | Self::NotBound
            | Self::Inactive
            | Self::HeaderTooLarge => TokenResult::Claims,
        }
    }
}

impl KeyFault {
    fn result(self) -> ApiKeyResult {
        match self {
            Self::TooLarge | Self::Mistyped => ApiKeyResult::Mistyped,
            Self::Unknown => ApiKeyResult::Unknown,
            Self::Expired => ApiKeyResult::Expired,
            Self::Revoked => ApiKeyResult::Revoked,
        }
    }
}
