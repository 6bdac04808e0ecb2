//! A stored answer: what it holds, how old it is, how much longer it is of use.
//!
//! It must not know where the bytes are kept.

use bytes::Bytes;
use http::header::{DATE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::date;
use super::freshness::{Flags, Freshness, RESIDENCE_MAX_S, seconds};
use super::validator::can_validate;
use crate::config;

/// How long, in seconds, a stale answer is kept for the sake of its validator alone.
const VALIDATOR_KEEP_S: u32 = 60 * 60;

/// One complete answer to a GET, with what is needed to judge it later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub status: StatusCode,
    /// As [`Storable`](super::Storable) has them.
    pub headers: HeaderMap,
    pub body: StoredBody,
    /// The instant at which its age was zero, in Unix milliseconds.
    pub born_ms: u64,
    /// The instant at which its head arrived, or it was last validated, in Unix milliseconds.
    pub answered_ms: u64,
    /// Seconds of freshness, counted from `born_ms`.
    pub lifetime_s: u32,
    /// Seconds after it in which it is sent while a new one is fetched.
    pub swr_s: u32,
    /// Seconds after it in which it is sent in place of an error.
    pub sie_s: u32,
    /// What else it said about its reuse.
    pub flags: Flags,
    /// The request fields it depends on, with the values they had in their normal form.
    pub vary: Vec<(HeaderName, Option<Bytes>)>,
    /// The full key. Stores look entries up by a digest of it, so a reader compares it.
    pub key: String,
    /// Which withdrawals it is subject to, and what was true of them before it was fetched.
    pub epochs: Epochs,
    /// The tags under which it can be withdrawn.
    pub tags: Vec<String>,
    /// The groups of its origin under which it can be withdrawn.
    pub groups: Vec<String>,
}

/// The epochs in force before a fetch, opaque here. A reader compares them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Epochs {
    /// Another value means that the entry is withdrawn.
    pub hard: Bytes,
    /// Another value means that the entry is stale.
    pub soft: Bytes,
}

/// The body of an entry, or where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredBody {
    /// Here.
    Inline(Bytes),
    /// In pieces under a name of their own.
    Chunked(Chunked),
}

/// A body in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunked {
    /// The random name that no other body has.
    pub object: [u8; 16],
    /// Length of the whole, in bytes.
    pub len: u64,
    /// Length of each piece but the last, in bytes; never zero.
    pub chunk_bytes: u32,
}

impl Chunked {
    /// How many pieces there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.len.div_ceil(u64::from(self.chunk_bytes.max(1)))
    }
}

impl StoredBody {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Chunked(chunked) => chunked.len,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, where they are here.
    #[must_use]
    pub fn inline(&self) -> Option<&Bytes> {
        match self {
            Self::Inline(bytes) => Some(bytes),
            Self::Chunked(_) => None,
        }
    }
}

impl Stored {
    /// Puts an entry together. `headers` come from [`Storable`](super::Storable).
    ///
    /// A response without Date gets the time of its arrival, once, so that every later reader
    /// counts from the same moment (RFC 9110 §6.6.1).
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is another part of an entry")]
    pub fn new(
        key: String,
        epochs: Epochs,
        status: StatusCode,
        mut headers: HeaderMap,
        freshness: Freshness,
        body: StoredBody,
    ) -> Self {
        if !headers.contains_key(DATE)
            && let Some(date) = date::header(freshness.answered_ms)
        {
            headers.insert(DATE, date);
        }
        let Freshness { born_ms, answered_ms, lifetime_s, swr_s, sie_s, flags, .. } = freshness;
        let Freshness { vary, tags, groups, .. } = freshness;
        Self {
            status,
            headers,
            body,
            born_ms,
            answered_ms,
            lifetime_s,
            swr_s,
            sie_s,
            flags,
            vary,
            key,
            epochs,
            tags,
            groups,
        }
    }

    /// The age now, RFC 9111 §4.2.3; zero where the clock stepped back behind the birth.
    #[must_use]
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.born_ms)
    }

    /// How much longer it is fresh, RFC 9111 §4.2; zero once it is not.
    #[must_use]
    pub fn remaining_ms(&self, now_ms: u64) -> u64 {
        self.lifetime_ms().saturating_sub(self.age_ms(now_ms))
    }

    /// How long it has been stale; zero while it is fresh, and at the moment it ceases to be.
    #[must_use]
    pub fn stale_ms(&self, now_ms: u64) -> u64 {
        self.age_ms(now_ms).saturating_sub(self.lifetime_ms())
    }

    /// Whether less than this percentage is left of the time for which it is fresh here: from its
    /// arrival, or its last validation, to its end. Counted from its birth instead, what arrives
    /// old would be near its end at once, and again after every fetch.
    #[must_use]
    pub fn ends_soon(&self, percent: u8, now_ms: u64) -> bool {
        let (life, left) = (self.remaining_ms(self.answered_ms), self.remaining_ms(now_ms));
        left > 0 && left.saturating_mul(100) < life.saturating_mul(u64::from(percent))
    }

    /// Seconds of freshness left for Cache-Status, below zero once it is stale (RFC 9211 §2.4).
    #[must_use]
    pub fn ttl_s(&self, now_ms: u64) -> i64 {
        let whole = |ms: u64| i64::try_from(ms / 1000).unwrap_or(i64::MAX);
        match self.remaining_ms(now_ms) {
            0 => -whole(self.stale_ms(now_ms)),
            left => whole(left),
        }
    }

    /// How much longer it is of any use: fresh, or stale within one of the windows that it or the
    /// route allows, or for its validator. A store's TTL; never beyond the bound on residence.
    #[must_use]
    pub fn keep_ms(&self, policy: &config::Cache, now_ms: u64) -> u64 {
        let validator = if self.can_validate() { VALIDATOR_KEEP_S } else { 0 };
        let disconnected =
            if self.flags.never_stale { 0 } else { seconds(policy.stale_when_disconnected) };
        let longest = self.swr_s.max(self.sie_s).max(disconnected).max(validator);
        let of_use = self.lifetime_ms().saturating_add(u64::from(longest) * 1000);
        let resident = now_ms.saturating_sub(self.answered_ms);
        let left = (u64::from(RESIDENCE_MAX_S) * 1000).saturating_sub(resident);
        of_use.saturating_sub(self.age_ms(now_ms)).min(left)
    }

    /// Gives field values, what they select and epochs memory of their own. As they arrive they are
    /// views into a larger buffer, of a connection or of a compressed entry, which would stay as
    /// long as this one.
    pub fn compact(&mut self) {
        let vary = self.vary.iter().filter_map(|(_, value)| value.as_deref());
        let values = self.headers.values().map(HeaderValue::as_bytes);
        let parts = values.chain(vary).chain([&*self.epochs.hard, &*self.epochs.soft]);
        let parts: Vec<&[u8]> = parts.collect();
        let mut copied = Bytes::from(parts.concat());
        for value in self.headers.values_mut() {
            let bytes = copied.split_to(value.len());
            // What was a value is one.
            if let Ok(copy) = HeaderValue::from_maybe_shared(bytes) {
                *value = copy;
            }
        }
        for value in self.vary.iter_mut().filter_map(|(_, value)| value.as_mut()) {
            *value = copied.split_to(value.len());
        }
        self.epochs.hard = copied.split_to(self.epochs.hard.len());
        self.epochs.soft = copied;
    }

    /// Whether it answers requests that came while it was fetched, too: what must be confirmed for
    /// each request answers the one that asked (RFC 9111 §4).
    #[must_use]
    pub fn is_shareable(&self, now_ms: u64) -> bool {
        let windows = u64::from(self.swr_s) * 1000;
        let is_usable = self.remaining_ms(now_ms) > 0 || self.stale_ms(now_ms) < windows;
        is_usable && !self.flags.no_cache
    }

    /// Whether the origin can be asked if it still holds.
    #[must_use]
    pub fn can_validate(&self) -> bool {
        can_validate(&self.headers, self.answered_ms / 1000)
    }

    /// Roughly the memory it takes, for a cache that is bounded by weight.
    #[must_use]
    pub fn weight(&self) -> usize {
        let fields =
            self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64);
        let vary = self.vary.iter().map(|(_, value)| 96 + value.as_ref().map_or(0, Bytes::len));
        let names = self.tags.iter().chain(&self.groups).map(|name| name.len() + 32);
        let body = self.body.inline().map_or(0, Bytes::len);
        let epochs = self.epochs.hard.len() + self.epochs.soft.len();
        let lists = fields.sum::<usize>() + vary.sum::<usize>() + names.sum::<usize>();
        size_of::<Self>() + body + self.key.len() + epochs + lists
    }

    fn lifetime_ms(&self) -> u64 {
        u64::from(self.lifetime_s) * 1000
    }
}

/// Whether a new answer may take the place of a stored one. An error never displaces an answer
/// that is still good: it may have been provoked, and would be everybody's.
#[must_use]
pub fn may_replace(new: StatusCode, stored: Option<&Stored>, now_ms: u64) -> bool {
    let is_error = |status: StatusCode| status.as_u16() >= 400;
    let is_good = |old: &Stored| !is_error(old.status) && old.remaining_ms(now_ms) > 0;
    !is_error(new) || !stored.is_some_and(is_good)
}
