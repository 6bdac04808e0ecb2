//! Reads what a request and a response say about caching: Cache-Control, Pragma, CDN-Cache-Control,
//! Age, Expires.
//!
//! Pure parsing of untrusted bytes. It must not know what is done with the answer, and where a
//! field can be read in two ways it takes the reading that permits less: a list that cannot be
//! read to its end counts as `no-store`, because the part that was lost may have been just that.

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL, EXPIRES, HeaderName, PRAGMA};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::date;
use super::text::{self, DELTA_MAX, Malformed, delta_seconds, is};

const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The directives of a request that this cache obeys, RFC 9111 §5.2.1 and RFC 5861 §4.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestControl {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<u32>,
    pub(super) min_fresh: Option<u32>,
    pub(super) max_stale: Option<u32>,
    pub(super) stale_if_error: Option<u32>,
}

/// The directives of a response that this cache obeys: RFC 9111 §5.2.2, RFC 5861, RFC 8246.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct ResponseControl {
    pub(super) no_store: bool,
    /// Unqualified; the qualified form adds to `omit`.
    pub(super) no_cache: bool,
    /// Unqualified; the qualified form adds to `omit`.
    pub(super) private: bool,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) proxy_revalidate: bool,
    pub(super) must_understand: bool,
    pub(super) immutable: bool,
    pub(super) max_age: Option<u32>,
    pub(super) s_maxage: Option<u32>,
    pub(super) stale_while_revalidate: Option<u32>,
    pub(super) stale_if_error: Option<u32>,
    /// Fields that are for one client only, or only for use after validation.
    pub(super) omit: Vec<HeaderName>,
    /// All this comes from CDN-Cache-Control: Cache-Control and Expires mean nothing then
    /// (RFC 9213 §2.1).
    pub(super) targeted: bool,
}

impl RequestControl {
    /// Reads a request. `Pragma: no-cache` counts where there is no Cache-Control (RFC 9111 §5.4).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut control = Self::default();
        let is_asked = |name: &HeaderName| matches!(*name, CACHE_CONTROL | PRAGMA);
        // Most requests have neither.
        if !headers.keys().any(is_asked) {
            return control;
        }
        for line in headers.get_all(CACHE_CONTROL) {
            if text::directives(line.as_bytes(), |name, value| control.apply(name, value)).is_err()
            {
                control.no_store = true;
                control.no_cache = true;
            }
        }
        if !headers.contains_key(CACHE_CONTROL) {
            control.no_cache = headers.get_all(PRAGMA).iter().any(|line| {
                line.as_bytes().split(|b| *b == b',').any(|m| is(m.trim_ascii(), "no-cache"))
            });
        }
        control
    }

    fn apply(&mut self, name: &[u8], value: Option<&[u8]>) -> Result<(), Malformed> {
        if is(name, "no-store") {
            self.no_store = true;
        } else if is(name, "no-cache") {
            self.no_cache = true;
        } else if is(name, "only-if-cached") {
            self.only_if_cached = true;
        } else if is(name, "max-age") {
            merge(&mut self.max_age, value, 0);
        } else if is(name, "min-fresh") {
            merge(&mut self.min_fresh, value, DELTA_MAX);
        } else if is(name, "max-stale") {
            // Without a number, any age will do.
            match value {
                None => merge_number(&mut self.max_stale, DELTA_MAX, 0),
                value => merge(&mut self.max_stale, value, 0),
            }
        } else if is(name, "stale-if-error") {
            merge(&mut self.stale_if_error, value, 0);
        }
        Ok(())
    }
}

impl ResponseControl {
    /// Reads a response. Pragma has no meaning in one, RFC 9111 §5.4.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        if let Some(control) = Self::targeted(headers) {
            return control;
        }
        let mut control = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            if text::directives(line.as_bytes(), |name, value| control.apply(name, value)).is_err()
            {
                control.no_store = true;
                control.no_cache = true;
            }
        }
        control
    }

    fn apply(&mut self, name: &[u8], value: Option<&[u8]>) -> Result<(), Malformed> {
        // These open a door, so only their exact form does: an argument was not meant.
        let doors = [
            ("public", &mut self.public),
            ("must-revalidate", &mut self.must_revalidate),
            ("must-understand", &mut self.must_understand),
            ("immutable", &mut self.immutable),
        ];
        for (door, slot) in doors {
            if is(name, door) {
                *slot = value.is_none();
                return value.map_or(Ok(()), |_| Err(Malformed));
            }
        }
        if is(name, "no-store") {
            self.no_store = true;
        } else if is(name, "no-cache") {
            self.no_cache |= !self.qualify(value);
        } else if is(name, "private") {
            self.private |= !self.qualify(value);
        } else if is(name, "proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is(name, "max-age") {
            merge(&mut self.max_age, value, 0);
        } else if is(name, "s-maxage") {
            merge(&mut self.s_maxage, value, 0);
        } else if is(name, "stale-while-revalidate") {
            merge(&mut self.stale_while_revalidate, value, 0);
        } else if is(name, "stale-if-error") {
            merge(&mut self.stale_if_error, value, 0);
        }
        Ok(())
    }

    /// Notes the fields that a qualified directive names. False if it names none that can be read,
    /// and so means the whole response (RFC 9111 §5.2.2.4, §5.2.2.7).
    fn qualify(&mut self, value: Option<&[u8]>) -> bool {
        let Some(names) = value.and_then(text::field_names) else {
            return false;
        };
        self.omit.extend(names);
        true
    }

    /// CDN-Cache-Control, unless it is absent, empty or damaged, which are the same
    /// (RFC 9213 §2.1).
    fn targeted(headers: &HeaderMap) -> Option<Self> {
        let text = text::combined(headers, CDN_CACHE_CONTROL)?;
        let fields: Dictionary = Parser::new(&text).parse().ok()?;
        if fields.is_empty() {
            return None;
        }
        let mut control = Self { targeted: true, ..Self::default() };
        for (name, entry) in &fields {
            if let ListEntry::Item(item) = entry {
                control.apply_typed(name.as_str(), &item.bare_item);
            }
        }
        Some(control)
    }

    /// A directive of the wrong type is ignored, RFC 9213 §2.1.
    fn apply_typed(&mut self, name: &str, value: &BareItem) {
        let seconds = || {
            let number = i64::from(value.as_integer()?);
            Some(u32::try_from(number.max(0)).unwrap_or(DELTA_MAX).min(DELTA_MAX))
        };
        let is_set = value.as_boolean() == Some(true);
        let names =
            || value.as_string().and_then(|names| text::field_names(names.as_str().as_bytes()));
        let is_qualifier = value.as_string().is_some();
        match name {
            "no-store" => self.no_store = is_set,
            "must-revalidate" => self.must_revalidate = is_set,
            "proxy-revalidate" => self.proxy_revalidate = is_set,
            "must-understand" => self.must_understand = is_set,
            "public" => self.public = is_set,
            "immutable" => self.immutable = is_set,
            "max-age" => self.max_age = seconds(),
            "s-maxage" => self.s_maxage = seconds(),
            "stale-while-revalidate" => self.stale_while_revalidate = seconds(),
            "stale-if-error" => self.stale_if_error = seconds(),
            "no-cache" | "private" if is_set || is_qualifier => match (names(), name) {
                (Some(names), _) => self.omit.extend(names),
                (None, "private") => self.private = true,
                (None, _) => self.no_cache = true,
            },
            _ => {}
        }
    }

    /// Whether the response may never be used stale, RFC 9111 §4.2.4 and §5.2.2.10.
    pub(super) fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.no_cache || self.s_maxage.is_some()
    }

    /// Whether an answer to an identified caller is for others too, RFC 9111 §3.5.
    pub(super) fn opens_to_others(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }
}

/// Keeps one number per directive. An unreadable value, and two values that contradict each
/// other, become `strictest` (RFC 9111 §4.2.1 lets such a response count as stale).
fn merge(slot: &mut Option<u32>, value: Option<&[u8]>, strictest: u32) {
    merge_number(slot, value.and_then(delta_seconds).unwrap_or(strictest), strictest);
}

fn merge_number(slot: &mut Option<u32>, new: u32, strictest: u32) {
    *slot = match *slot {
        Some(old) if old != new => Some(strictest),
        _ => Some(new),
    };
}

/// The Age of a response: the first member of the first line; zero if unreadable (RFC 9111 §5.1).
pub(super) fn age(headers: &HeaderMap) -> u32 {
    headers
        .get(AGE)
        .and_then(|line| line.as_bytes().split(|b| *b == b',').next())
        .and_then(|member| delta_seconds(member.trim_ascii()))
        .unwrap_or(0)
}

/// When a response expires, in Unix seconds; none if it does not say (RFC 9111 §5.3).
///
/// An unreadable date and a second line mean that it already has, which is the instant zero.
pub(super) fn expires(headers: &HeaderMap, now_s: u64) -> Option<u64> {
    headers.contains_key(EXPIRES).then(|| date::of(headers, EXPIRES, now_s).unwrap_or(0))
}
