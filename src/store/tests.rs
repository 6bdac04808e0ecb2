//! The limiter's log against a log that keeps every event, and what the embedded store promises.

mod log;
mod memory;
