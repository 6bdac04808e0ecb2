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
    /// A message of the client was beyond a limit.
    Limit,
    /// A peer took nothing for `progress_timeout`, or the drain was over.
    Cut,
}

impl End {
    /// The word for the log and the metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Limit => "limit",
            Self::Cut => "cut",
        }
    }

    /// The code and the reason of the Close that the client gets (RFC 6455 §7.4.1).
    pub(super) fn close(self) -> (u16, &'static str) {
        match self {
            Self::Client | Self::Upstream | Self::Cut => (1001, ""),
            Self::Idle => (1001, "idle for too long"),
            Self::Age => (1001, "open for too long"),
            Self::Limit => (1008, "too many messages"),
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
