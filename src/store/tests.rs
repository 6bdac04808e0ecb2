//! The limiter's log against a log that keeps every event, what the embedded store promises, and
//! the set of known revocations.

mod accounts;
mod log;
mod memory;
mod queue;
mod revoked;
mod room;
