//! Tokens that the gateway issues (RFC 7515, RFC 7519): what upstreams are told of callers, and the
//! access and refresh tokens of an application that makes none of its own. It must not know who
//! verifies them, nor where refresh tokens are kept.

mod assertion;
mod request;
mod signer;
mod tokens;

pub use self::assertion::{Assertion, Session};
pub use self::request::{Refused, refresh_token};
pub use self::signer::{Flaw, Signer, new_key};
pub use self::tokens::{Access, OWN_CLAIMS, RefreshToken, Secret, claims_text, random};
