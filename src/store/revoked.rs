//! The revocations that this node knows of, for requests whose question the store does not answer.
//!
//! Pure: both clocks are handed in, and `redis/follow` feeds it. The set is trusted only while it
//! is complete and fresh; a set that may lack something says so, and never guesses.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::keys::{Keys, REVOKED_KEY, REVOKED_LATE, REVOKED_NOT_BEFORE, REVOKED_UNTIL};
use super::{RevocationKeys, RevocationStatus};

/// Longest key that is kept, in bytes: `store.prefix` and a part are shorter.
const KEY_BYTES_MAX: usize = 512;

/// A revocation to write, and to tell the other gateways of.
#[derive(Debug, Clone, Copy)]
pub struct Revocation<'a> {
    /// Its key, from `Keys`.
    pub key: &'a str,
    /// For a not-before key: Unix seconds before which the subject's tokens are revoked.
    pub not_before: Option<i64>,
    /// How long it lasts.
    pub ttl: Duration,
    /// How long the stream is kept at least: `admin.revocation_ttl`.
    pub stream_ttl: Duration,
}

impl Revocation<'_> {
    /// What the key holds.
    pub fn value(&self) -> String {
        self.not_before.map_or_else(|| "1".to_owned(), |at| at.to_string())
    }
}

/// One entry of the stream, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    key: String,
    not_before: Option<i64>,
    /// Unix seconds; 0 takes the revocation back.
    until: u64,
    /// When it was told, in Unix milliseconds; nothing where that is now.
    told_ms: Option<u64>,
    /// Whether a newer one of its key may have been told before it.
    is_late: bool,
}

impl Notice {
    /// Reads an entry's fields. Nothing when it names no revocation key. What else is missing or
    /// unreadable is taken for the worst: it lasts `lifetime` from `now` (Unix seconds), and a
    /// not-before time revokes every token.
    pub fn read(
        fields: &[(Vec<u8>, Vec<u8>)],
        keys: &Keys,
        now: u64,
        lifetime: Duration,
    ) -> Option<Self> {
        let text = |name: &str| {
            let (_, value) = fields.iter().find(|(field, _)| field == name.as_bytes())?;
            std::str::from_utf8(value).ok().map(str::trim)
        };
        let key = text(REVOKED_KEY).filter(|key| key.len() <= KEY_BYTES_MAX)?;
        let is_time = keys.is_not_before(key);
        if !is_time && !keys.is_blacklist(key) {
            return None;
        }
        let not_before = || text(REVOKED_NOT_BEFORE).and_then(|text| text.parse().ok());
        let until = text(REVOKED_UNTIL).and_then(|text| text.parse().ok());
        Some(Self {
            key: key.to_owned(),
            not_before: is_time.then(|| not_before().unwrap_or(i64::MAX)),
            until: until.unwrap_or(now.saturating_add(lifetime.as_secs())),
            told_ms: None,
            is_late: fields.iter().any(|(field, _)| field == REVOKED_LATE.as_bytes()),
        })
    }
}

impl Notice {
    /// Of what this node has told itself.
    pub(crate) fn of(key: &str, not_before: Option<i64>, until: u64) -> Self {
        Self { key: key.to_owned(), not_before, until, told_ms: None, is_late: false }
    }

    /// The same, which was told then, in Unix milliseconds.
    pub(crate) fn told_at(self, ms: u64) -> Self {
        Self { told_ms: Some(ms), ..self }
    }

    /// The same, which a newer one of its key may have been told before.
    pub(crate) fn told_late(self, is_late: bool) -> Self {
        Self { is_late, ..self }
    }
}

/// The set, its bound, and what is known about its completeness and age.
#[derive(Debug)]
pub struct Revoked {
    entries: HashMap<String, Entry>,
    /// Most entries: `store.revocations`.
    max: usize,
    /// Unix seconds up to which something that is not in the set may be revoked.
    incomplete_until: u64,
    /// When the store last said that there is nothing more than this.
    heard: Option<Instant>,
    /// Unix second of the last sweep.
    swept: u64,
}

/// A revocation in the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its key.
    pub key: String,
    /// For a not-before key: Unix seconds.
    pub not_before: Option<i64>,
    /// Last Unix second in which it holds.
    pub until: u64,
    /// Unix second in which it was heard of.
    pub since: u64,
    /// When it was told, in Unix milliseconds; zero where nobody knows.
    pub told_ms: u64,
}

/// Those in force, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevocationList {
    /// In no order.
    pub revocations: Vec<Known>,
    /// Whether the stream was read for it, which is in the store.
    pub is_from_stream: bool,
    /// Whether it is of now: whoever knows them hears of new ones.
    pub is_current: bool,
    /// Whether none is missing that was told.
    pub is_complete: bool,
    /// Most of them that are known.
    pub bound: usize,
}

#[derive(Debug)]
struct Entry {
    not_before: Option<i64>,
    /// Last Unix second in which it holds.
    until: u64,
    /// Unix second in which it was heard of.
    since: u64,
    /// When it was told, in Unix milliseconds.
    told_ms: u64,
}

impl Entry {
    /// Both of them, as this one was heard of.
    fn and(self, other: &Self) -> Self {
        let until = self.until.max(other.until);
        let told_ms = self.told_ms.min(other.told_ms);
        let not_before = self.not_before.max(other.not_before);
        Self { not_before, until, since: self.since, told_ms }
    }
}

impl Revoked {
    /// Knows nothing yet, and is not trusted.
    pub fn new(max: usize) -> Self {
        Self { entries: HashMap::new(), max, incomplete_until: 0, heard: None, swept: 0 }
    }

    /// One with the same bound that knows nothing.
    pub fn emptied(&self) -> Self {
        Self::new(self.max)
    }

    /// Takes an entry of the stream, at `now` (Unix seconds). As with the keys themselves, the
    /// newest entry about a key replaces the older one; but one that is told late shortens nothing,
    /// as it may be the older one. What does not fit makes the set incomplete for as long as it
    /// would have held.
    pub fn apply(&mut self, notice: Notice, now: u64) {
        let Notice { key, not_before, until, told_ms, is_late } = notice;
        if until < now {
            // To take a key back is no end that came by itself.
            if until == 0 || !is_late {
                self.entries.remove(&key);
            }
            return;
        }
        let told_ms = told_ms.unwrap_or(now.saturating_mul(1000));
        let entry = Entry { not_before, until, since: now, told_ms };
        if let Some(known) = self.entries.get_mut(&key) {
            *known = if is_late && known.until >= now { entry.and(known) } else { entry };
            return;
        }
        if self.entries.len() >= self.max {
            self.sweep(now);
        }
        if self.entries.len() < self.max {
            self.entries.insert(key, entry);
        } else {
            self.lacks_until(until);
        }
    }

    /// Something was missed that may hold up to `until` (Unix seconds).
    pub fn lacks_until(&mut self, until: u64) {
        self.incomplete_until = self.incomplete_until.max(until.saturating_add(1));
    }

    /// At `at`, the store had nothing that is not in the set.
    pub fn heard(&mut self, at: Instant) {
        self.heard = Some(at);
    }

    /// How many entries there are, ended ones included until they are swept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether nothing is missing that still holds at `now` (Unix seconds). False before the stream
    /// was read to its end once.
    pub fn is_complete(&self, now: u64) -> bool {
        self.heard.is_some() && now >= self.incomplete_until
    }

    /// Whether a request may be judged by the set: it is complete, and less than `max_stale` old.
    pub fn is_trusted(&self, now: u64, at: Instant, max_stale: Duration) -> bool {
        let age = self.heard.map(|heard| at.saturating_duration_since(heard));
        self.is_complete(now) && age.is_some_and(|age| age < max_stale)
    }

    /// What the store would have said at `now` (Unix seconds, and the monotonic clock); nothing
    /// when the set is not trusted.
    pub fn recall(
        &self,
        revocation: RevocationKeys<'_>,
        now: u64,
        at: Instant,
        max_stale: Duration,
    ) -> Option<RevocationStatus> {
        if !self.is_trusted(now, at, max_stale) {
            return None;
        }
        Some(self.known(revocation, now))
    }

    /// What the set has of these keys at `now` (Unix seconds), whatever it may lack.
    pub fn known(&self, revocation: RevocationKeys<'_>, now: u64) -> RevocationStatus {
        let live = |key: &str| self.entries.get(key).filter(|entry| now <= entry.until);
        RevocationStatus {
            listed: revocation.blacklist.iter().any(|key| live(key).is_some()),
            not_before: revocation.not_before.and_then(live).and_then(|entry| entry.not_before),
            // A key that is ended through the admin API is in the set too.
            gone: false,
            replayed: false,
        }
    }

    /// All that holds at `now` (Unix seconds).
    pub fn all(&self, now: u64) -> Vec<Known> {
        let live = self.entries.iter().filter(|(_, entry)| now < entry.until);
        let known = live.map(|(key, entry)| Known {
            key: key.clone(),
            not_before: entry.not_before,
            until: entry.until,
            since: entry.since,
            told_ms: entry.told_ms,
        });
        known.collect()
    }

    /// The same as a list.
    pub fn list(&self, now: u64, is_current: bool) -> RevocationList {
        RevocationList {
            revocations: self.all(now),
            is_from_stream: false,
            is_current,
            is_complete: self.is_complete(now),
            bound: self.max,
        }
    }

    /// Whether anything is known of this key: it was not taken back.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether the store was asked after `at` for what there is, and has said.
    pub fn was_heard_after(&self, at: Instant) -> bool {
        self.heard.is_some_and(|heard| heard > at)
    }

    /// Whether this holds as it was known: it was neither taken back nor made anew since.
    pub fn holds(&self, known: &Known) -> bool {
        let is_same = |it: &Entry| it.until == known.until && it.not_before == known.not_before;
        self.entries.get(&known.key).is_some_and(is_same)
    }

    /// Forgets what has ended, at most once a second: a flood must not sweep at every entry.
    pub fn sweep(&mut self, now: u64) {
        if self.swept != now {
            self.swept = now;
            self.entries.retain(|_, entry| now <= entry.until);
        }
    }
}
