//! Why tunnels end, as the peers and the log are told.

use super::flow::Refusal;

/// Why a tunnel has ended, or is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client ended it, or broke the protocol.
    Client,
    /// The upstream ended it.
    Upstream,
    /// No byte came in either direction for `idle_timeout`.
    Idle,
    /// It was open for `max_age`.
    Age,
    /// The token has expired.
    Expired,
    /// The token was revoked, or the API key.
    Revoked,
    /// The session has ended.
    Session,
    /// A message of the client was beyond a limit.
    Limit,
    /// A reload has taken its route away.
    RouteGone,
    /// The gateway is about to stop.
    Drain,
    /// An operator wanted it.
    Operator,
    /// A peer took nothing for `progress_timeout`, or the drain was over.
    Cut,
}

impl End {
    /// The words for the log and the metrics.
    pub const WORDS: [&str; 11] = [
        "client",
        "upstream",
        "idle",
        "age",
        "expired",
        "revoked",
        "session",
        "limit",
        "route_gone",
        "drain",
        "cut",
    ];

    /// The word for the log and the metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Session => "session",
            Self::Limit => "limit",
            Self::RouteGone => "route_gone",
            Self::Drain => "drain",
            Self::Operator | Self::Cut => "cut",
        }
    }

    /// The code and the reason of the Close that the client gets (RFC 6455 §7.4.1).
    pub(super) fn close(self) -> (u16, &'static str) {
        match self {
            Self::Client | Self::Upstream | Self::Cut => (1001, ""),
            Self::Idle => (1001, "idle for too long"),
            Self::Age => (1001, "open for too long"),
            Self::Expired => (1008, "token expired"),
            Self::Revoked => (1008, "token revoked"),
            Self::Session => (1008, "session ended"),
            Self::Limit => (1008, "too many messages"),
            Self::RouteGone => (1001, "route removed"),
            Self::Drain => (1001, "going away"),
            Self::Operator => (1008, "closed by an operator"),
        }
    }
}

impl Refusal {
    /// What it says about the tunnel's end.
    pub(super) fn end(self) -> End {
        match self {
            Self::TooLarge | Self::TooMany => End::Limit,
            Self::Malformed(_) => End::Client,
        }
    }

    /// The code and the reason of the Close that the client gets.
    pub(super) fn close(self) -> (u16, &'static str) {
        match self {
            Self::TooLarge => (1009, "message too large"),
            Self::TooMany => (1008, "too many messages"),
            Self::Malformed(what) => (1002, what),
        }
    }

    /// The code for the log.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "message_too_large",
            Self::TooMany => "messages_too_many",
            Self::Malformed(_) => "frame_malformed",
        }
    }
}
