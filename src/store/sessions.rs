//! Sessions beyond being read: prolonged by use, written, ended and listed by operators.
//!
//! Three keys belong together: the session, a hash beside it (when and why it ends, when it was
//! last seen, whose it is), and the index of its user's sessions. The first two change in one step
//! of the store. The index is a hint: it names every session of its user, and perhaps some that are
//! gone or about to be written; who meets what is gone takes it out.

use std::time::Duration;

use bytes::Bytes;

use super::keys::SessionKeys;

/// Field of what is kept beside a session: why and when it ends.
pub(super) const ENDS: &str = "ends";
/// Most sessions of one user that are listed, or ended in one step.
pub const SESSIONS_MAX: usize = 1000;
/// Most steps in which all sessions of one user are ended.
pub(super) const ROUNDS_MAX: usize = 1000;

/// How a session's life is prolonged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// The life it gets, unless it has a longer one.
    pub ttl: Duration,
    /// When it ends at the latest, Unix milliseconds.
    pub until_ms: Option<u64>,
    /// How long it is remembered that it ended.
    pub kept: Duration,
}

/// When a session ends unless somebody uses it, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionEnd {
    /// Unix milliseconds by the store's clock.
    pub at_ms: u64,
    /// Why.
    pub why: Ending,
}

/// Why a session ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nobody used it.
    Idle,
    /// Its time was up, used or not.
    Expired,
}

impl Ending {
    /// The word in the store.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Expired => "expired",
        }
    }
}

impl SessionEnd {
    /// As the store keeps it: the word and the time. Nothing when it is something else.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (word, at) = std::str::from_utf8(text).ok()?.split_once(' ')?;
        let why = [Ending::Idle, Ending::Expired].into_iter().find(|why| why.word() == word)?;
        Some(Self { at_ms: at.parse().ok()?, why })
    }

    /// See [`Self::parse`].
    pub(super) fn text(self) -> String {
        format!("{} {}", self.why.word(), self.at_ms)
    }
}

/// A session to write.
#[derive(Debug, Clone)]
pub struct SessionWrite {
    /// Its id as it stands in keys.
    pub part: String,
    /// Its keys.
    pub keys: SessionKeys,
    /// What stands before ids in both, see [`super::keys::Keys::session_families`].
    pub families: [String; 2],
    /// The index of its user; without one it stays whose it was.
    pub index: Option<String>,
    /// The value: JSON.
    pub value: Bytes,
    /// Its life.
    pub ttl: Duration,
    /// Why it ends then.
    pub why: Ending,
    /// How long it is remembered that it ended.
    pub kept: Duration,
    /// Most sessions that its user may have afterwards; the oldest others end.
    pub most: Option<u32>,
    /// Whether it is only written over one that is there: an update must not bring back what a
    /// log-out has ended.
    pub only_over: bool,
}

/// What a write did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionWritten {
    /// Whether there was a session of this id.
    pub replaced: bool,
    /// The sessions that ended so that the user has no more than allowed, the oldest first. The
    /// written one is among them where it was ended before it was written, as by a log-in that
    /// began later.
    pub ended: Vec<String>,
}

/// One session of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionListed {
    /// Its id as it stands in keys.
    pub part: String,
    /// When it was created, Unix seconds, as the index says.
    pub created_s: u64,
    /// When it was last prolonged or written, Unix milliseconds, if that was noted.
    pub seen_ms: Option<u64>,
    /// What is left of its life; `None` without an expiry.
    pub ttl: Option<Duration>,
}

/// The sessions of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionList {
    /// The newest [`SESSIONS_MAX`], newest first.
    pub sessions: Vec<SessionListed>,
    /// How many ids the index holds now, those that were not looked at included.
    pub count: usize,
}
