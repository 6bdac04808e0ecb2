//! What never became a request and has an access line all the same.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use crate::base::facts::Peer;
use crate::observe::AnsweredBy;
use crate::observe::access::Line;
use crate::runtime::Gateway;

/// Why there was no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unparsed {
    /// hyper could not read the head, and answered 400.
    Malformed,
    /// It was TLS, and the connection ended with an alert.
    Tls,
    /// The head had more bytes than the bound, and hyper answered 431.
    TooLarge,
    /// The head had more fields than the bound, and hyper answered 431.
    TooManyHeaders,
    /// The target alone was longer than hyper reads, and it answered 414.
    TargetTooLong,
    /// The head was not finished in time, and the connection ended with a 408.
    SlowHead,
    /// No connection more was taken, and the client was told 503.
    ConnectionsFull,
    /// No connection more of this address was taken, and the client was told 503.
    AddressFull,
}

impl Unparsed {
    /// The name in logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "head_malformed",
            Self::Tls => "tls_on_clear_port",
            Self::TooLarge | Self::TooManyHeaders | Self::TargetTooLong => "head_too_large",
            Self::SlowHead => "head_timeout",
            Self::ConnectionsFull => "connections",
            Self::AddressFull => "connections_per_address",
        }
    }

    /// The status that the client got.
    fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::Tls => 400,
            Self::TooLarge | Self::TooManyHeaders => 431,
            Self::TargetTooLong => 414,
            Self::SlowHead => 408,
            Self::ConnectionsFull | Self::AddressFull => 503,
        }
    }

    /// The key of `gateway.toml` that bounds it. A target has no bound of its own: it is 64 KiB at
    /// most, where `header_bytes` lets so much through.
    fn bound(self) -> Option<&'static str> {
        match self {
            Self::Malformed | Self::Tls => None,
            Self::TooLarge | Self::TargetTooLong => Some("server.limits.header_bytes"),
            Self::TooManyHeaders => Some("server.limits.headers"),
            Self::SlowHead => Some("server.limits.header_timeout"),
            Self::ConnectionsFull => Some("server.limits.connections"),
            Self::AddressFull => Some("server.limits.connections_per_address"),
        }
    }

    /// Whether a head was begun: who is turned away before has asked for nothing yet.
    fn is_answer_to_a_head(self) -> bool {
        !matches!(self, Self::ConnectionsFull | Self::AddressFull)
    }
}

/// Writes the one access line of a head that never became a request.
pub fn log_unparsed(connection: &Connection, unparsed: Unparsed) {
    write(&connection.gateway, &connection.peer, unparsed);
}

/// Writes the access line of a connection that was turned away with a 503.
pub fn log_turned_away(gateway: &Arc<Gateway>, peer: &Peer, unparsed: Unparsed) {
    write(gateway, peer, unparsed);
}

/// The line of a head that never became a request.
fn write(gateway: &Gateway, peer: &Peer, unparsed: Unparsed) {
    if unparsed.is_answer_to_a_head() {
        let malformed = &gateway.observer.metrics.malformed;
        malformed.request(unparsed.status(), AnsweredBy::Gateway, Duration::ZERO);
    }
    if !gateway.observer.access.is_on() {
        return;
    }
    gateway.observer.access.write(&Line {
        time: jiff::Timestamp::now(),
        request_id: "-",
        trace_id: "-",
        client: gateway.observer.access.shown.client(peer.address),
        method: "-",
        host: "-",
        path: "-",
        route: "-",
        status: unparsed.status(),
        reason: Some(unparsed.code()),
        bound: unparsed.bound(),
        limits: "off",
        ..Line::default()
    });
}
