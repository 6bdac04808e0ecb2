//! Who calls, and what of a message crosses the gateway, in either direction.

pub mod client;
pub mod fields;
pub mod rules;
pub mod trace;
pub mod via;
