//! Traces: whose trace a request is part of, what is told of it, and a collector that is away.

/// Parents, ratios and flags, as upstreams see them.
mod context;
/// A collector that is dead, silent or busy.
mod dead;
/// What is told of requests and of attempts.
mod spans;
