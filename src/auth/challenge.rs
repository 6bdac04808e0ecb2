//! Why a caller is turned away, and how that is said: status, stable code, public text and the
//! challenge of RFC 6750 §3. It must not know how the reason was found; its public texts say what
//! to do and tell an attacker nothing.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use super::proof_fault::ProofFault;
use crate::store::StoreError;

/// The realm of every challenge. It is the same for all routes, so that it tells nothing about
/// them.
pub const REALM: &str = "portcullis";

/// Why a request is refused by this room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The request carries no token.
    #[error("no token")]
    NoToken,
    /// The request carries a token in a bad form.
    #[error("a token in a form that is not a bearer token")]
    Malformed,
    /// The request carries different tokens, or a token and an API key: which of them another
    /// program would believe is unknown. Clients are told the same as of a malformed one.
    #[error("several tokens or keys that differ")]
    Several,
    /// The token is not acceptable.
    #[error("token refused: {0}")]
    Invalid(#[from] Reason),
    /// The issuer's keys could not be fetched, so nobody can say whether the token is good.
    #[error("the keys of `auth.{0}` could not be fetched")]
    KeysUnavailable(Arc<str>),
    /// The token is valid but was revoked.
    #[error("token revoked by its {0}")]
    Revoked(&'static str),
    /// The request carries no API key, and nothing else would do.
    #[error("no API key")]
    NoApiKey,
    /// The API key is not acceptable.
    #[error("API key refused: {0}")]
    ApiKey(KeyFault),
    /// The client has shown no certificate, and nothing else would do.
    #[error("no client certificate")]
    NoCertificate,
    /// The client's certificate is not acceptable.
    #[error("client certificate refused: {0}")]
    Certificate(#[from] CertificateFault),
    /// The request shows no session of the gateway's own, and nothing else would do.
    #[error("no session")]
    NoSession,
    /// The session was revoked, or all that its user had.
    #[error("session revoked")]
    SessionRevoked,
    /// The token is good, and only together with a certificate that the client has not shown (RFC
    /// 8705 §3).
    #[error("the token is bound to a certificate that the client has not shown")]
    Unbound,
    /// The token is good, and its sender does not show that it is his (RFC 9449).
    #[error("the token's proof of possession is refused: {fault}")]
    Unproven {
        /// What is wrong.
        fault: ProofFault,
        /// The algorithms of proofs, separated by spaces.
        algorithms: Arc<str>,
    },
    /// The authorization server did not say what an opaque token is worth.
    #[error("the server of `auth.{0}` did not say what a token is worth")]
    Unasked(Arc<str>),
    /// The API key's record could not be read, so nobody can say whether the key is good.
    #[error("the record of an API key could not be read: {0}")]
    KeyUnread(StoreError),
    /// The token is valid but does not say what the route requires.
    #[error("the token's claims do not permit this: {unmet}")]
    Insufficient {
        /// The scopes of which one is needed, separated by spaces, when the requirement is one of
        /// scope.
        scope: Option<String>,
        /// What the log tells of it.
        unmet: Box<Unmet>,
    },
}

/// A requirement of a route that a caller did not meet. For the log alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unmet {
    /// Whose token or API key it was.
    pub subject: Option<String>,
    /// The claim that was missing, or had none of the values.
    pub claim: String,
    /// The values of which one is needed.
    pub wanted: Vec<String>,
    /// The clause of a list that does not hold, as `require[0].any`.
    pub clause: Option<String>,
    /// Whether that cannot be told: a value is of another type than is asked for.
    pub is_untold: bool,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { claim, clause, is_untold, .. } = self;
        let Some(clause) = clause else { return write!(f, "require.{claim}") };
        f.write_str(clause)?;
        if !claim.is_empty() {
            write!(f, ", about the claim {claim:?},")?;
        }
        let told =
            if *is_untold { "cannot be told: it is of another type" } else { "does not hold" };
        write!(f, " {told}")
    }
}

/// What is wrong with an API key. For the log; the client learns only whether it expired or was
/// revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Longer than the verifier's bound.
    #[error("larger than the limit")]
    TooLarge,
    /// It looks like a key of the gateway's making, and its checksum is wrong.
    #[error("mistyped")]
    Mistyped,
    /// There is no record of it, or it is for another verifier.
    #[error("unknown")]
    Unknown,
    /// `expires` has passed.
    #[error("expired")]
    Expired,
    /// It was revoked, or its record was deleted since it was read.
    #[error("revoked")]
    Revoked,
}

/// What is wrong with a client's certificate, which TLS has verified. For the log; the client
/// learns only whether it expired or was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Its end has passed since the handshake.
    #[error("expired")]
    Expired,
    /// It was revoked, or all that its subject had.
    #[error("revoked")]
    Revoked,
    /// The subject holds control characters.
    #[error("its subject is not what it must be")]
    Subject,
    /// A claim that travels as a header is larger than a header may be.
    #[error("a claim is too large for its header")]
    ClaimTooLarge,
}

/// What is wrong with a token. For the log; the client learns only whether the token expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Longer than the verifier's bound.
    #[error("larger than the limit")]
    TooLarge,
    /// Not three parts (RFC 7515 §7.1).
    #[error("not three parts")]
    Parts,
    /// A part is not canonical unpadded base64url (RFC 7515 §2).
    #[error("a part is not canonical base64url")]
    Encoding,
    /// The header is no JSON object, or one of its members is not what RFC 7515 §4.1 says.
    #[error("bad header")]
    Header,
    /// The header asks for a feature that the gateway does not have: `crit`, `b64`, `zip`, a nested
    /// token.
    #[error("the header asks for an extension")]
    Extension,
    /// `typ` names something that is no access token (RFC 8725 §3.11).
    #[error("not the type of an access token")]
    Type,
    /// `alg` is missing, unknown or not accepted.
    #[error("algorithm not accepted")]
    Algorithm,
    /// The server that was asked says that the token is not active (RFC 7662 §2.2).
    #[error("not active")]
    Inactive,
    /// No key has this `kid` and algorithm.
    #[error("no key for its kid and algorithm")]
    Key,
    /// No key has this `kid`, as far as the issuer's keys were fetched.
    #[error("no key has its kid")]
    KeyUnknown,
    /// The signature is not the key's.
    #[error("bad signature")]
    Signature,
    /// The claims are no JSON object.
    #[error("bad claims")]
    Claims,
    /// This claim has a value that it must not have.
    #[error("the claim {0} is not what it must be")]
    Claim(&'static str),
    /// This claim has a wrong type: what it must be, and what it is.
    #[error("the claim {0} must be {1}, and is {2}")]
    ClaimType(&'static str, &'static str, &'static str),
    /// `exp` is missing.
    #[error("no expiry")]
    NoExpiry,
    /// `exp` has passed.
    #[error("expired")]
    Expired,
    /// `nbf` lies in the future.
    #[error("not valid yet")]
    NotYet,
    /// `iat` lies in the future.
    #[error("issued in the future")]
    IssuedInFuture,
    /// The token lives longer than `max_age`, or does not say since when.
    #[error("lives longer than accepted")]
    MaxAge,
    /// `iss` is not the configured one.
    #[error("another issuer")]
    Issuer,
    /// The token stands where its issuer's tokens are not accepted.
    #[error("not in a place for tokens of its issuer")]
    Place,
    /// The token is bound to nothing, or not to what is demanded.
    #[error("not bound to what its sender must show")]
    NotBound,
    /// `aud` does not name the configured ones.
    #[error("another audience")]
    Audience,
    /// A claim that travels as a header is larger than a header may be.
    #[error("a claim is too large for its header")]
    HeaderTooLarge,
}

impl KeyFault {
    fn cause(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Mistyped => "mistyped",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl CertificateFault {
    fn cause(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Subject => "claim",
            Self::ClaimTooLarge => "claim_too_large",
        }
    }
}

impl Reason {
    fn cause(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Parts | Self::Encoding | Self::Header | Self::Claims => "malformed",
            Self::Extension => "extension",
            Self::Type => "type",
            Self::Algorithm => "algorithm",
            Self::Inactive => "inactive",
            Self::Key | Self::KeyUnknown => "key_unknown",
            Self::Signature => "signature",
            Self::Claim(_) | Self::ClaimType(..) | Self::NoExpiry => "claim",
            Self::Expired => "expired",
            Self::NotYet => "not_yet_valid",
            Self::IssuedInFuture => "issued_in_future",
            Self::MaxAge => "max_age",
            Self::Issuer => "issuer",
            Self::Place => "place",
            Self::Audience => "audience",
            Self::NotBound => "not_bound",
            Self::HeaderTooLarge => "claim_too_large",
        }
    }

    /// The claim that the reason is about, where it is about one (RFC 7519 §4.1).
    fn claim(self) -> Option<&'static str> {
        match self {
            Self::Claim(name) | Self::ClaimType(name, ..) => Some(name),
            Self::NoExpiry | Self::Expired => Some("exp"),
            Self::NotYet => Some("nbf"),
            Self::IssuedInFuture | Self::MaxAge => Some("iat"),
            Self::Issuer => Some("iss"),
            Self::Audience => Some("aud"),
            Self::NotBound => Some("cnf"),
            _ => None,
        }
    }
}

impl Denied {
    /// The status of the answer (RFC 6750 §3.1).
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed | Self::Several => StatusCode::BAD_REQUEST,
            Self::NoToken
            | Self::Invalid(_)
            | Self::Revoked(_)
            | Self::NoApiKey
            | Self::ApiKey(_)
            | Self::NoCertificate
            | Self::Certificate(_)
            | Self::NoSession
            | Self::SessionRevoked
            | Self::Unbound
            | Self::Unproven { .. } => StatusCode::UNAUTHORIZED,
            Self::KeysUnavailable(_) | Self::KeyUnread(_) | Self::Unasked(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Insufficient { .. } => StatusCode::FORBIDDEN,
        }
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoToken => "token_missing",
            Self::Malformed | Self::Several => "token_malformed",
            Self::Invalid(Reason::Expired) => "token_expired",
            Self::Invalid(_) => "token_invalid",
            Self::KeysUnavailable(_) | Self::KeyUnread(_) => "keys_unavailable",
            Self::Unasked(_) => "introspection_unavailable",
            Self::NoApiKey => "api_key_missing",
            Self::ApiKey(KeyFault::Expired) => "api_key_expired",
            Self::ApiKey(KeyFault::Revoked) => "api_key_revoked",
            Self::ApiKey(_) => "api_key_invalid",
            Self::NoCertificate => "certificate_missing",
            Self::Certificate(CertificateFault::Expired) => "certificate_expired",
            Self::Certificate(CertificateFault::Revoked) => "certificate_revoked",
            Self::Certificate(_) => "certificate_invalid",
            Self::NoSession => "session_missing",
            Self::SessionRevoked => "session_revoked",
            Self::Unbound => "token_binding",
            Self::Unproven { fault: ProofFault::NoToken, .. } => "token_missing",
            Self::Unproven { fault: ProofFault::NotBound, .. } => "token_invalid",
            Self::Unproven { fault: ProofFault::Bearer, .. } => "dpop_missing",
            Self::Unproven { fault: ProofFault::Missing, .. } => "dpop_missing",
            Self::Unproven { .. } => "dpop_invalid",
            Self::Revoked(_) => "token_revoked",
            Self::Insufficient { scope: Some(_), .. } => "scope_insufficient",
            Self::Insufficient { scope: None, .. } => "claims_insufficient",
        }
    }

    /// What exactly was wrong, in one stable word. For the log alone: it would tell an attacker
    /// which of his guesses was the better one.
    pub fn cause(&self) -> Option<&'static str> {
        match self {
            Self::Invalid(reason) => Some(reason.cause()),
            Self::ApiKey(fault) => Some(fault.cause()),
            Self::Certificate(fault) => Some(fault.cause()),
            Self::Unbound => Some("certificate"),
            Self::Unproven { fault: ProofFault::NoToken, .. } => None,
            Self::Unproven { fault, .. } => Some(fault.cause()),
            Self::Revoked(by) => Some(by),
            Self::Malformed => Some("form"),
            Self::Several => Some("several"),
            Self::Insufficient { .. } => Some("claim"),
            Self::KeysUnavailable(_) | Self::Unasked(_) => Some("issuer"),
            Self::KeyUnread(_) => Some("store"),
            Self::SessionRevoked => Some("revoked"),
            Self::NoToken | Self::NoApiKey | Self::NoCertificate | Self::NoSession => None,
        }
    }

    /// The claim that was missing or wrong, for the log alone.
    pub fn claim(&self) -> Option<&str> {
        match self {
            Self::Invalid(reason) => reason.claim(),
            Self::Certificate(CertificateFault::Subject) => Some("sub"),
            Self::Unbound => Some("cnf"),
            Self::Unproven { fault, .. } => fault.claim(),
            Self::Insufficient { unmet, .. } => Some(&*unmet.claim).filter(|it| !it.is_empty()),
            _ => None,
        }
    }

    /// A sentence for the caller. Free of quotes and backslashes, as RFC 6750 §3 requires of
    /// `error_description`.
    pub fn public(&self) -> &'static str {
        match self {
            Self::NoToken => "An access token is needed: send it as a bearer token.",
            Self::Malformed | Self::Several => {
                "Send exactly one access token, in the form Authorization: Bearer TOKEN."
            }
            Self::Invalid(Reason::Expired) => "The access token has expired: get a new one.",
            Self::Invalid(_) => "The access token is not valid: get a new one.",
            Self::KeysUnavailable(_) | Self::Unasked(_) => {
                "Whether the access token is valid cannot be told now. Retry shortly."
            }
            Self::Revoked(_) => "The access token was revoked: log in again.",
            Self::NoApiKey => "An API key is needed.",
            Self::ApiKey(KeyFault::Expired) => "The API key has expired: get a new one.",
            Self::ApiKey(KeyFault::Revoked) => "The API key was revoked: get a new one.",
            Self::ApiKey(_) => "The API key is not valid.",
            Self::NoCertificate => "A client certificate is needed.",
            Self::Certificate(CertificateFault::Expired) => {
                "The client certificate has expired: get a new one."
            }
            Self::Certificate(CertificateFault::Revoked) => {
                "The client certificate was revoked: get a new one."
            }
            Self::Certificate(_) => "The client certificate cannot be used here.",
            Self::NoSession => "A session is needed: log in.",
            Self::SessionRevoked => "The session was revoked: log in again.",
            Self::Unbound => {
                "The access token is bound to a client certificate: show it on the connection."
            }
            Self::Unproven { fault: ProofFault::NoToken, .. } => {
                "An access token is needed: send it with the scheme DPoP and a proof."
            }
            Self::Unproven { fault: ProofFault::NotBound, .. } => {
                "The access token is not valid: get a new one."
            }
            Self::Unproven { fault: ProofFault::Bearer | ProofFault::Missing, .. } => {
                "The access token is bound to a key: send it with the scheme DPoP and a proof."
            }
            Self::Unproven { .. } => {
                "The DPoP proof is not valid for this request: make a new one."
            }
            Self::KeyUnread(_) => "Whether the API key is valid cannot be told now. Retry shortly.",
            Self::Insufficient { .. } => "The access token does not permit this request.",
        }
    }

    /// The value of `WWW-Authenticate` (RFC 6750 §3). A request without a token learns no error,
    /// only the scheme.
    pub fn challenge(&self, realm: &str) -> HeaderValue {
        let realm = quotable(realm).unwrap_or(REALM);
        if matches!(self, Self::NoApiKey | Self::ApiKey(_)) {
            // No scheme is registered for API keys, and RFC 9110 §11.6.1 wants a challenge.
            let text = format!("ApiKey realm=\"{realm}\"");
            return HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("ApiKey"));
        }
        if matches!(self, Self::NoCertificate | Self::Certificate(_)) {
            // The same: certificates belong to the connection, and HTTP has no scheme for them.
            let text = format!("Certificate realm=\"{realm}\"");
            return HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Certificate"));
        }
        if matches!(self, Self::NoSession | Self::SessionRevoked) {
            // The same: no scheme is registered for what a log-in page gives.
            let text = format!("Session realm=\"{realm}\"");
            return HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Session"));
        }
        let mut text = match self {
            Self::Unproven { algorithms, .. } => {
                format!("DPoP realm=\"{realm}\", algs=\"{algorithms}\"")
            }
            _ => format!("Bearer realm=\"{realm}\""),
        };
        if let Some(error) = self.error() {
            // Writing to a String cannot fail.
            let _ = write!(text, ", error=\"{error}\", error_description=\"{}\"", self.public());
        }
        if let Self::Insufficient { scope: Some(scope), .. } = self
            && let Some(scope) = quotable(scope)
        {
            let _ = write!(text, ", scope=\"{scope}\"");
        }
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer"))
    }

    /// The error codes of RFC 6750 §3.1.
    fn error(&self) -> Option<&'static str> {
        match self {
            Self::NoToken
            | Self::KeysUnavailable(_)
            | Self::Unasked(_)
            | Self::NoApiKey
            | Self::ApiKey(_)
            | Self::NoCertificate
            | Self::Certificate(_)
            | Self::NoSession
            | Self::SessionRevoked
            | Self::KeyUnread(_)
            | Self::Unproven { fault: ProofFault::NoToken, .. } => None,
            // RFC 9449 §7.1 and §7.2: what is wrong with the token itself is told as such.
            Self::Unproven { fault: ProofFault::Bearer | ProofFault::NotBound, .. } => {
                Some("invalid_token")
            }
            Self::Unproven { .. } => Some("invalid_dpop_proof"),
            Self::Malformed | Self::Several => Some("invalid_request"),
            Self::Invalid(_) | Self::Revoked(_) | Self::Unbound => Some("invalid_token"),
            Self::Insufficient { .. } => Some("insufficient_scope"),
        }
    }
}

/// The text, when it can stand between quotes as it is.
fn quotable(text: &str) -> Option<&str> {
    let plain = |byte: u8| matches!(byte, 0x20..=0x7E) && byte != b'"' && byte != b'\\';
    text.bytes().all(plain).then_some(text)
}
