//! Asks the origin whether a stored answer still holds, and makes of its reply what is kept from
//! then on (RFC 9111 §4.3).

use http::HeaderMap;
use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderName, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};

use super::control::ResponseControl;
use super::entry::Stored;
use super::freshness::Freshness;
use super::storing::{self, RequestContext, WhyNot};
use super::validator::Tag;
use super::{date, kept, tags, text};
use crate::config;

/// Fields that describe the stored body as it is, so that a later head cannot change them
/// (RFC 9111 §3.2).
const FIXED: [HeaderName; 3] = [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE];

/// The conditions under which the origin may say that a stored answer still holds; empty if it has
/// no validator, so that there is nothing to ask (RFC 9111 §4.3.1).
#[must_use]
pub fn conditions(stored: &Stored) -> Vec<(HeaderName, HeaderValue)> {
    let mut conditions = Vec::new();
    let headers = &stored.headers;
    if let (Some(_), Some(tag)) = (Tag::of(headers), headers.get(ETAG)) {
        conditions.push((IF_NONE_MATCH, tag.clone()));
    }
    let is_date = date::of(headers, LAST_MODIFIED, stored.answered_ms / 1000).is_some();
    if let (true, Some(modified)) = (is_date, headers.get(LAST_MODIFIED)) {
        conditions.push((IF_MODIFIED_SINCE, modified.clone()));
    }
    conditions
}

/// Whether a 304 to [`conditions`] is about this entry (RFC 9111 §4.3.4). One that repeats no
/// validator is: the conditions named no other entry. Where this is false, the request is to be
/// repeated without conditions; such a 304 is never for the client.
#[must_use]
pub fn confirms(stored: &Stored, headers: &HeaderMap) -> bool {
    if !stored.can_validate() {
        return false;
    }
    if headers.contains_key(ETAG) {
        let (Some(new), Some(old)) = (Tag::of(headers), Tag::of(&stored.headers)) else {
            return false;
        };
        return if new.is_weak() { new.is_weakly(old) } else { new.is_strongly(old) };
    }
    !headers.contains_key(LAST_MODIFIED) || is_as_old(stored, headers)
}

fn is_as_old(stored: &Stored, headers: &HeaderMap) -> bool {
    let now_s = stored.answered_ms / 1000;
    let modified = |headers: &HeaderMap| date::of(headers, LAST_MODIFIED, now_s);
    modified(headers).is_some() && modified(headers) == modified(&stored.headers)
}

/// What has become of an entry that its origin confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshened {
    /// The entry with its new head and times: the answer to the request that asked, whatever is
    /// kept. Key, epochs and body are those of the old one.
    pub stored: Stored,
    /// Whether it may be kept from now on; why not, if the new head forbids it. Then the old entry
    /// goes too.
    pub keep: Result<(), WhyNot>,
}

/// Updates an entry by the head of a 304 that [`confirms`] it (RFC 9111 §3.2, §4.3.4): every field
/// is replaced, except those that describe the body, and those that are never stored. Its times
/// begin anew.
#[must_use]
pub fn freshened(
    stored: &Stored,
    headers: &HeaderMap,
    policy: &config::Cache,
    request: &RequestContext<'_>,
    answered_ms: u64,
) -> Freshened {
    let mut whole = merged(&stored.headers, headers);
    if !headers.contains_key(DATE) {
        // It was made now, not when the old head was (RFC 9110 §6.6.1).
        whole.remove(DATE);
    }
    let control = ResponseControl::of(&whole);
    let outcome = if request.intent.no_store {
        Err(WhyNot::Request)
    } else {
        storing::assess(policy, request, stored.status, (&whole, &control), answered_ms)
    };
    let keep = outcome.as_ref().map(|_| ()).map_err(|why| *why);
    // An answer to this one request, even if it is not kept.
    let freshness = outcome.unwrap_or_else(|_| Freshness {
        born_ms: answered_ms,
        answered_ms,
        lifetime_s: 0,
        swr_s: 0,
        sie_s: 0,
        flags: stored.flags,
        vary: stored.vary.clone(),
        tags: Vec::new(),
        groups: Vec::new(),
    });
    let mut new = Stored::new(
        stored.key.clone(),
        stored.epochs.clone(),
        stored.status,
        kept::kept(&whole, &control),
        freshness,
        stored.body.clone(),
    );
    // Tags are no part of the stored head: one without them leaves them as they were.
    if !tags::has_tags(headers) {
        new.tags.clone_from(&stored.tags);
    }
    Freshened { stored: new, keep }
}

/// The old head with every field of the new one in place of its namesake.
fn merged(old: &HeaderMap, new: &HeaderMap) -> HeaderMap {
    let mut merged = old.clone();
    // What an entry never keeps does not update it, but Age and what forbids storing must be seen.
    merged.remove(AGE);
    for name in new.keys().filter(|name| !FIXED.contains(name)) {
        merged.remove(name);
    }
    for (name, value) in new.iter().filter(|(name, _)| !FIXED.contains(name)) {
        merged.append(name.clone(), value.clone());
    }
    merged
}

/// What an answer to a forwarded HEAD means for the stored answer to a GET (RFC 9111 §4.3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadUpdate {
    /// The same content, under this new head.
    Confirmed(Box<Freshened>),
    /// Other content: what is stored is out of date.
    Outdated,
    /// Nothing: an error, say.
    None,
}

/// Compares the head that a 200 to a HEAD has with that of the entry it could have been answered
/// from: a validator or a length that differs means that the content does.
#[must_use]
pub fn head_update(
    stored: &Stored,
    status: http::StatusCode,
    headers: &HeaderMap,
    policy: &config::Cache,
    (request, answered_ms): (&RequestContext<'_>, u64),
) -> HeadUpdate {
    if status != http::StatusCode::OK {
        return HeadUpdate::None;
    }
    let same_tag = !headers.contains_key(ETAG)
        || Tag::of(headers)
            .zip(Tag::of(&stored.headers))
            .is_some_and(|(new, old)| new.is_strongly(old) || new.is_weak() && new.is_weakly(old));
    let same_date = !headers.contains_key(LAST_MODIFIED) || is_as_old(stored, headers);
    let length = stored.body.len().to_string();
    let same_length = !headers.contains_key(CONTENT_LENGTH)
        || text::only(headers, CONTENT_LENGTH) == Some(length.as_bytes());
    if same_tag && same_date && same_length && stored.status == status {
        let fresh = freshened(stored, headers, policy, request, answered_ms);
        HeadUpdate::Confirmed(Box::new(fresh))
    } else {
        HeadUpdate::Outdated
    }
}
