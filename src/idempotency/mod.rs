//! Requests that take effect once, however often their client sends them (`Idempotency-Key`,
//! draft-ietf-httpapi-idempotency-key-header-07): the key that a client chooses, whose it is, and
//! the fingerprint by which a request is known again; what lies under a key, sealed or not, and
//! what follows from it. Pure: the store is asked, and answers are kept, by others.

mod fingerprint;
mod key;
mod lock;
mod policy;
mod record;
mod scope;

pub use self::fingerprint::{Fingerprint, Fingerprinter};
pub use self::key::{IDEMPOTENCY_KEY, Key, KeyError};
pub use self::lock::Lock;
pub use self::policy::{Fate, NotOnce, after_answer, after_failure, covers, may_repeat};
pub use self::record::{Ended, Pending, Seen, Standing, kept_fields, standing};
pub use self::scope::{Owner, scoped};

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
