//! What a client is told of its limits: `RateLimit` and `RateLimit-Policy`
//! (draft-ietf-httpapi-ratelimit-headers-10, §3 and §4, structured fields), and `X-RateLimit-*`
//! of the tightest window.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::RatelimitFields;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What a window takes beside its name, in bytes: two numbers of seven digits, and their letters.
const QUOTA_BYTES: usize = 24;

/// One window as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaItem {
    /// `<limit>`, or `<limit>-<window>` where a policy has several.
    pub name: String,
    /// Its limit.
    pub limit: u32,
    window: Duration,
}

impl QuotaItem {
    /// `name` consists of letters, digits, `_` and `-`, which the configuration checks.
    pub fn new(name: String, limit: u32, window: Duration) -> Self {
        Self { name, limit, window }
    }
}

/// What is left of one window.
#[derive(Debug, Clone, Copy)]
pub(super) struct WindowLeft {
    /// Units of the whole window, which depend on the caller's tier.
    pub(super) limit: u32,
    /// Units left; negative where more were charged than there are.
    pub(super) remaining: i64,
    /// When there are more.
    pub(super) next: Duration,
    /// When all of them are back.
    pub(super) full: Duration,
}

/// What is left, collected while a request is judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quota {
    /// The `RateLimit-Policy` field, the same for every request of a route.
    pub policy: Option<HeaderValue>,
    items: String,
    /// Limit, remaining and time to a full quota of the tightest window.
    tightest: Option<(u32, i64, Duration)>,
    fields: RatelimitFields,
}

impl Quota {
    /// Nothing yet, to be told in these fields.
    pub fn new(fields: RatelimitFields) -> Self {
        Self { fields, ..Self::default() }
    }

    /// Nothing again, to be told in the same fields.
    pub(super) fn renewed(&self) -> Self {
        Self::new(self.fields)
    }

    /// Adds one window.
    pub(super) fn push(&mut self, item: &QuotaItem, left: &WindowLeft) {
        let WindowLeft { limit, next, full, .. } = *left;
        let remaining = left.remaining.max(0);
        if !self.items.is_empty() {
            self.items.push_str(", ");
        }
        // Once for all that follows. Piece by piece: every answer of a route with limits has this,
        // and to format it as a whole costs twice as much.
        self.items.reserve(item.name.len() + QUOTA_BYTES);
        let (mut left, mut until) = (itoa::Buffer::new(), itoa::Buffer::new());
        let pieces =
            ["\"", &item.name, "\";r=", left.format(remaining), ";t=", until.format(seconds(next))];
        pieces.iter().for_each(|piece| self.items.push_str(piece));
        let tighter = |(other, left, _): (u32, i64, Duration)| {
            i128::from(remaining) * i128::from(other) < i128::from(left) * i128::from(limit)
        };
        if self.tightest.is_none_or(tighter) {
            self.tightest = Some((limit, remaining, full));
        }
    }

    /// Writes the fields, replacing whatever the upstream or a stored response said.
    pub fn stamp(&self, headers: &mut HeaderMap, now: impl FnOnce() -> SystemTime) {
        let Some((limit, remaining, reset)) = self.tightest else { return };
        if self.fields.ratelimit {
            if let Some(policy) = &self.policy {
                headers.insert(RATELIMIT_POLICY, policy.clone());
            }
            if let Ok(items) = HeaderValue::try_from(self.items.as_str()) {
                headers.insert(RATELIMIT, items);
            }
        }
        if !self.fields.x_ratelimit {
            return;
        }
        let now = now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut insert = |name: HeaderName, digits: &str| {
            if let Ok(value) = HeaderValue::from_str(digits) {
                headers.insert(name, value);
            }
        };
        // The conversions of numbers take two buffers for each.
        let mut digits = itoa::Buffer::new();
        insert(LIMIT, digits.format(limit));
        insert(REMAINING, digits.format(remaining));
        insert(RESET, digits.format(seconds(now + reset)));
    }
}

/// `"api";q=100;w=900, …`
pub(super) fn policy_header<'a>(items: impl Iterator<Item = &'a QuotaItem>) -> Option<HeaderValue> {
    let text: Vec<String> = items
        .map(|item| format!("\"{}\";q={};w={}", item.name, item.limit, seconds(item.window).max(1)))
        .collect();
    if text.is_empty() { None } else { HeaderValue::try_from(text.join(", ")).ok() }
}

/// Whole seconds, rounded up: a client told to wait must not be early.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
