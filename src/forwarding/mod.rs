//! Who calls, and what of a message crosses the gateway, in either direction.

pub mod client;
pub mod fields;
mod trace;
