//! Why tunnels end, as the peers and the log are told.

use super::flow::Refusal;

/// What the peers and the log are told of an end.
struct Row {
    /// For the log and the metrics.
    word: &'static str,
    /// The code and the reason of the Close that the client gets (RFC 6455 §7.4.1).
    close: (u16, &'static str),
}

const fn row(word: &'static str, code: u16, reason: &'static str) -> Row {
    Row { word, close: (code, reason) }
}

/// Makes the enum and all that is said of its variants from one table, so that none is forgotten.
macro_rules! ends {
    ($($(#[$doc:meta])* $end:ident => $row:expr,)*) => {
        /// Why a tunnel has ended, or is to end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum End {
            $($(#[$doc])* $end,)*
        }

        impl End {
            /// The words of all, for the log and the metrics.
            pub const WORDS: &[&'static str] = &[$(Self::$end.row().word,)*];

            const fn row(self) -> Row {
                match self {
                    $(Self::$end => $row,)*
                }
            }
        }
    };
}

ends! {
    /// The client ended it, or broke the protocol.
    Client => row("client", 1001, ""),
    /// The upstream ended it.
    Upstream => row("upstream", 1001, ""),
    /// No byte came in either direction for `idle_timeout`.
    Idle => row("idle", 1001, "idle for too long"),
    /// It was open for `max_age`.
    Age => row("age", 1001, "open for too long"),
    /// The token has expired.
    Expired => row("expired", 1008, "token expired"),
    /// The token was revoked, or the API key.
    Revoked => row("revoked", 1008, "token revoked"),
    /// The session has ended.
    Session => row("session", 1008, "session ended"),
    /// A message of the client was beyond a limit.
    Limit => row("limit", 1008, "too many messages"),
    /// A reload has taken its route away.
    RouteGone => row("route_gone", 1001, "route removed"),
    /// The gateway is about to stop.
    Drain => row("drain", 1001, "going away"),
    /// An operator wanted it.
    Operator => row("cut", 1008, "closed by an operator"),
    /// A peer took nothing for `progress_timeout`, or the drain was over.
    Cut => row("cut", 1001, ""),
}

impl End {
    /// The word for the log and the metrics.
    pub const fn word(self) -> &'static str {
        self.row().word
    }

    /// The code and the reason of the Close that the client gets.
    pub(super) const fn close(self) -> (u16, &'static str) {
        self.row().close
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
