//! Requests that take effect once, however often their client sends them (`Idempotency-Key`,
//! draft-ietf-httpapi-idempotency-key-header-07): the key that a client chooses, whose it is, and
//! the fingerprint by which a request is known again.

mod fingerprint;
mod key;
mod scope;

pub use self::fingerprint::{Fingerprint, Fingerprinter};
pub use self::key::{IDEMPOTENCY_KEY, Key, KeyError};
pub use self::scope::{Owner, scoped};

#[cfg(test)]
mod tests;
