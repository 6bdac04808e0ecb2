//! Events, as far as that is pure: what an event says ([`Fields`]), which of them count, and what
//! they purge and revoke ([`Rule`]); and whether a webhook is signed by one who may
//! ([`verify`]).
//!
//! Nothing that an event holds may make more go than its pattern says: a value fills one segment of
//! a path and no more, and one that is missing, empty or too long fills none.

mod fields;
mod refused;
mod rule;
mod template;
mod webhook;

#[cfg(test)]
mod tests;

pub use self::fields::{FIELDS_MAX, Fields, of_body, of_entry};
pub use self::refused::Refused;
pub use self::rule::{Effects, PathPurge, Revoke, RevokeKind, Rule};
pub use self::template::{Skipped, Template, VALUE_BYTES_MAX};
pub use self::webhook::{Signed, Signer, verify};
