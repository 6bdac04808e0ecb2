//! Response compression: which coding a client wants (RFC 9110 §12.5.3), which responses get one,
//! what that does to their heads (§8.8.3.3), and the codings themselves.
//!
//! It must not know where a body comes from: what compresses asks whoever has the next piece.

mod accept;
mod codec;
mod judge;
mod places;
mod stream;

pub use accept::Coding;
pub use judge::{Asked, Encodable, describe, encodable, weaken_as_held};
pub use places::{Place, Places};
pub use stream::Encoding;

#[cfg(test)]
mod tests;
