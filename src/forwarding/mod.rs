//! Who calls, and what of a message crosses the gateway, in either direction.

pub mod client;
pub mod fields;
pub mod rules;
mod trace;
pub mod via;
