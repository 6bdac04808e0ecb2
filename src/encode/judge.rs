//! Which responses get a coding, and what that does to their heads. Pure.

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, IF_NONE_MATCH, RANGE,
};
use http::request::Parts;
use http::response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::accept::{Coding, wanted};
use crate::base::facts::is_event_stream;
use crate::base::http::fields::is_credential;
use crate::config::Compress;

/// Fields that name a digest of the very bytes that are sent (RFC 9530, RFC 3230, RFC 1864): in a
/// coding it would be wrong.
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// What one request says of codings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The coding that its response may have.
    coding: Option<Coding>,
    /// Whether its fields carry a credential.
    pub has_credentials: bool,
}

impl Asked {
    /// What this one says. Not in a coding: what has no content (HEAD), what is a part (`Range`),
    /// what nobody may transform, and what a client of HTTP/1.0 would have to read to the end of
    /// its connection.
    pub fn of(head: &Parts) -> Self {
        let fields = &head.headers;
        let is_left = head.method == Method::HEAD
            || head.version < Version::HTTP_11
            || fields.contains_key(RANGE)
            || forbids(fields);
        Self {
            coding: if is_left { None } else { wanted(fields) },
            has_credentials: fields.keys().any(|name| is_credential(name.as_str())),
        }
    }
}

/// What becomes of one response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encodable {
    /// It is the same for every request.
    Never,
    /// It stays as it is, and another request would get it in a coding.
    Elsewhere,
    /// It is sent so.
    As(Coding),
}

/// What becomes of a response with this head, whose content has `length` bytes where that is known.
/// `is_private`: the request says who calls, so that the content may hold a secret (BREACH).
pub fn encodable(
    policy: &Compress,
    (asked, is_private): (Asked, bool),
    head: &response::Parts,
    length: Option<u64>,
) -> Encodable {
    let fields = &head.headers;
    // Its type is that of what it stands for, if it says one.
    let is_confirmed = head.status == StatusCode::NOT_MODIFIED;
    let is_of_type = match fields.get(CONTENT_TYPE) {
        None => is_confirmed,
        Some(kind) => is_listed(policy, kind) && !is_event_stream(fields),
    };
    let is_long_enough = is_confirmed || length.is_none_or(|length| length >= policy.min_bytes);
    if !is_of_type || !is_long_enough || is_settled(head.status, fields) {
        return Encodable::Never;
    }
    let coding = asked.coding.filter(|_| !is_confirmed && (policy.private || !is_private));
    coding.map_or(Encodable::Elsewhere, Encodable::As)
}

/// Whether nobody may give a response another form than it has.
fn is_settled(status: StatusCode, fields: &HeaderMap) -> bool {
    let is_coded = |coding: &HeaderValue| !coding.as_bytes().eq_ignore_ascii_case(b"identity");
    status.is_informational()
        || matches!(status.as_u16(), 204..=206)
        || fields.get_all(CONTENT_ENCODING).iter().any(is_coded)
        || fields.contains_key(CONTENT_RANGE)
        || fields.keys().any(|name| DIGESTS.contains(&name.as_str()))
        || forbids(fields)
}

/// `no-transform` (RFC 9111 §5.2.1.6, §5.2.2.6).
fn forbids(fields: &HeaderMap) -> bool {
    let lines = fields.get_all(CACHE_CONTROL).iter();
    let mut members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    members.any(|member| member.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// Whether the route compresses content of this type: `text/html`, `text/*` or `*+json`.
fn is_listed(policy: &Compress, kind: &HeaderValue) -> bool {
    let Ok(kind) = kind.to_str() else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim().as_bytes();
    let is = |part: Option<&[u8]>, of: &str| {
        part.is_some_and(|it| it.eq_ignore_ascii_case(of.as_bytes()))
    };
    let begins = |begin: &str| is(kind.get(..begin.len()), begin);
    let ends = |end: &str| is(kind.len().checked_sub(end.len()).map(|at| &kind[at..]), end);
    // gRPC and gRPC-Web have codings of their own, message by message.
    !begins("application/grpc")
        && policy.types.iter().any(|listed| match listed.strip_suffix('*') {
            Some(begin) => begins(begin),
            None => listed.strip_prefix('*').map_or_else(|| is(Some(kind), listed), ends),
        })
}

/// Makes the head of a response one of content in this coding. What was a strong tag is a weak one
/// from here on: the bytes are others, the meaning is the same (RFC 9110 §8.8.3.3).
pub fn describe(coding: Coding, fields: &mut HeaderMap) {
    fields.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    fields.remove(CONTENT_LENGTH);
    // A range would be one of the bytes that the upstream sent.
    fields.remove(ACCEPT_RANGES);
    weaken(fields);
}

/// Has a 304 name the tag as the client has it: weakly, where it has the content in a coding.
pub fn weaken_as_held(conditions: &HeaderMap, fields: &mut HeaderMap) {
    let Some(tag) = fields.get(ETAG).map(HeaderValue::as_bytes) else { return };
    let holds = |tag: &[u8]| {
        let mut lines = conditions.get_all(IF_NONE_MATCH).iter();
        lines.any(|line| line.as_bytes().split(|b| *b == b',').any(|it| it.trim_ascii() == tag))
    };
    if tag.starts_with(b"\"") && !holds(tag) && holds(&[b"W/", tag].concat()) {
        weaken(fields);
    }
}

/// What is no tag at all goes: nobody could say what it promises.
fn weaken(fields: &mut HeaderMap) {
    let mut tags = fields.get_all(ETAG).iter();
    let weak = match (tags.next().map(HeaderValue::as_bytes), tags.next()) {
        (Some(tag), None) if tag.starts_with(b"W/\"") => return,
        (Some(tag), None) if tag.starts_with(b"\"") => {
            HeaderValue::from_bytes(&[b"W/", tag].concat()).ok()
        }
        _ => None,
    };
    match weak {
        Some(weak) => drop(fields.insert(ETAG, weak)),
        None => drop(fields.remove(ETAG)),
    }
}
