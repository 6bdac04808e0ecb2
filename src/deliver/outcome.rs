//! What the end of an attempt means for a delivery: the one table of it.

use std::time::Duration;

use http::StatusCode;

use crate::config::Statuses;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The upstream has answered with this status.
    Status(u16),
    /// It was surely not executed: no connection, or no server.
    NotSent,
    /// The same, because this gateway has no place at the upstream: that says nothing of it.
    NoPlace,
    /// Nobody knows whether it was executed.
    InDoubt,
}

/// What is known of a delivery when an attempt has ended.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// Attempts that have counted, this one left out.
    pub failures: u32,
    /// Most of them.
    pub attempts: u32,
    /// What is left of its time.
    pub left: Duration,
    /// After which answers it is tried again, beside those after which it always is.
    pub retry_on: &'a [Statuses],
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done,
    /// It is tried again; whether that attempt counts.
    Retry {
        /// Whether the upstream has had its chance.
        is_counted: bool,
    },
    /// It is given up.
    Dead(Why),
}

/// Why a delivery was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The upstream has refused it for good.
    Refused,
    /// Its time is over.
    Expired,
    /// All its attempts have failed.
    Exhausted,
    /// Its leases ran out too often: it may be what ends its workers.
    Stalled,
    /// What was kept of it cannot be read any more.
    Unreadable,
    /// No key of its queue opens what was kept of it.
    Unsealable,
    /// Its caller's token or API key was revoked.
    Revoked,
    /// Neither its route nor its upstream is configured any more.
    NoRoute,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::Expired,
        Self::Exhausted,
        Self::Stalled,
        Self::Unreadable,
        Self::Unsealable,
        Self::Revoked,
        Self::NoRoute,
    ];

    /// Its word for operators and programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Exhausted => "exhausted",
            Self::Stalled => "stalled",
            Self::Unreadable => "unreadable",
            Self::Unsealable => "unsealable",
            Self::Revoked => "revoked",
            Self::NoRoute => "no_route",
        }
    }
}

/// Judges an attempt.
pub fn judge(answered: Answered, bounds: Bounds<'_>) -> Verdict {
    let is_counted = match answered {
        Answered::Status(200..=299) => return Verdict::Done,
        // Not by what it was asked: too early, too much, at work on it already, or broken.
        Answered::Status(408 | 409 | 425 | 429 | 500 | 502..=504 | 506..=599) => true,
        Answered::Status(status) if is_among(bounds.retry_on, status) => true,
        Answered::Status(_) => return Verdict::Dead(Why::Refused),
        Answered::InDoubt => true,
        Answered::NotSent | Answered::NoPlace => false,
    };
    if bounds.left.is_zero() {
        Verdict::Dead(Why::Expired)
    } else if is_counted && bounds.failures.saturating_add(1) >= bounds.attempts {
        Verdict::Dead(Why::Exhausted)
    } else {
        Verdict::Retry { is_counted }
    }
}

fn is_among(all: &[Statuses], status: u16) -> bool {
    StatusCode::from_u16(status).is_ok_and(|status| all.iter().any(|it| it.contain(status)))
}
