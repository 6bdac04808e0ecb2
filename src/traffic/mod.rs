//! Which of several upstreams takes a request, and how that changes with time: shares, ramps, and
//! the roll-back of what is bad. It must not know what a request is: it gets a number, or the bytes
//! that decide.
//!
//! `bucket`, `ramp`, `window` and `verdict` are pure; `canary` is what a route has of them while it
//! runs, `record` what the gateways of a fleet know of it together, and `fleet` what each of them
//! tells the others of its answers.

mod bucket;
mod canary;
mod fleet;
mod mirrors;
mod ramp;
mod record;
mod verdict;
mod window;

pub use bucket::{bucket, is_drawn};
pub use canary::{Canary, Place};
pub use mirrors::{Mirrors, Seat};

#[cfg(test)]
mod tests;
