//! `grpc = { … }` of a route: what bounds its gRPC calls.

use std::time::Duration;

use super::reader::Section;
use super::value::{GIB, MIB, duration, duration_or_zero, flag, size};

/// `grpc = { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grpc {
    /// Whether calls of gRPC-Web are translated.
    pub web: bool,
    /// The longest that a call may take; zero for no bound but the client's own.
    pub deadline: Duration,
    /// The longest message in either direction, in bytes.
    pub message_bytes: u64,
    /// How long a call may rest.
    pub idle_timeout: Duration,
}

/// Reads `grpc = { … }`.
pub(super) fn read(grpc: &mut Section<'_>) -> Grpc {
    Grpc {
        web: grpc.or("web", false, flag),
        deadline: grpc.or("deadline", Duration::from_secs(60), duration_or_zero),
        message_bytes: grpc.or("message_bytes", 4 * MIB, size(1..=4 * GIB)),
        idle_timeout: grpc.or("idle_timeout", Duration::from_secs(60 * 60), duration),
    }
}
