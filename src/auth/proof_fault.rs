//! What may be wrong with the proof that comes with a token that is bound to a key (RFC 9449). It
//! must not know how that is said to clients.

/// Why a sender does not show that the token is his. For the log; the client learns whether there
/// was a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofFault {
    /// There is no token at all, where only bound ones count.
    #[error("no token")]
    NoToken,
    /// The token is bound, and came as a bearer token (RFC 9449 §7.2).
    #[error("a bound token as a bearer token")]
    Bearer,
    /// The token came with the scheme of bound ones, and is bound to no key.
    #[error("a token that is bound to no key")]
    NotBound,
    /// No field `DPoP`.
    #[error("no proof")]
    Missing,
    /// Several of them.
    #[error("several proofs")]
    Several,
    /// Longer than any proof needs to be.
    #[error("larger than the limit")]
    TooLarge,
    /// Not three parts of base64url with JSON objects in them, or with an extension.
    #[error("not a proof by its form")]
    Form,
    /// `typ` is not `dpop+jwt`.
    #[error("not the type of a proof")]
    Type,
    /// `alg` is not accepted.
    #[error("algorithm not accepted")]
    Algorithm,
    /// `jwk` is missing, is no public key, or one of another algorithm.
    #[error("no public key that can be used")]
    Key,
    /// The token is bound to another key.
    #[error("another key than the token's")]
    OtherKey,
    /// The signature is not the key's.
    #[error("bad signature")]
    Signature,
    /// `htm` is another method.
    #[error("made for another method")]
    Method,
    /// `htu` is another target.
    #[error("made for another target")]
    Target,
    /// `iat` is missing, or lies outside of the window.
    #[error("not made now")]
    Time,
    /// `ath` is not of the token that came along.
    #[error("made for another token")]
    Token,
    /// `jti` is missing, or is no short text.
    #[error("nothing that names it")]
    Id,
    /// It was used before.
    #[error("used before")]
    Replayed,
    /// This machine had no randomness for it.
    #[error("no randomness")]
    NoRandomness,
}

impl ProofFault {
    /// In one stable word, for the log.
    pub(super) fn cause(self) -> &'static str {
        match self {
            Self::NoToken | Self::Missing => "missing",
            Self::Bearer => "bearer",
            Self::NotBound => "not_bound",
            Self::Several => "several",
            Self::TooLarge => "too_large",
            Self::Form => "malformed",
            Self::Type => "type",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::OtherKey => "other_key",
            Self::Signature => "signature",
            Self::Method => "method",
            Self::Target => "target",
            Self::Time => "time",
            Self::Token => "token",
            Self::Id => "id",
            Self::Replayed => "replayed",
            Self::NoRandomness => "randomness",
        }
    }

    /// The claim that it is about, where it is about one.
    pub(super) fn claim(self) -> Option<&'static str> {
        match self {
            Self::Bearer | Self::NotBound | Self::OtherKey => Some("cnf"),
            Self::Method => Some("htm"),
            Self::Target => Some("htu"),
            Self::Time => Some("iat"),
            Self::Token => Some("ath"),
            Self::Id | Self::Replayed => Some("jti"),
            _ => None,
        }
    }
}
