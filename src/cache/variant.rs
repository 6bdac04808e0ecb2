//! Tells the variants of one resource apart: which request fields select, and by which values
//! (RFC 9111 §4.1, RFC 9110 §12.5.5).
//!
//! Values are compared in a normal form that keeps their meaning, so that clients which say the
//! same in other words share a variant.

use aws_lc_rs::digest;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{
    ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, ACCESS_CONTROL_ALLOW_ORIGIN,
    AUTHORIZATION, COOKIE, HeaderName, ORIGIN, VARY,
};

use super::{text, weighted};
use crate::base::http::hex;

/// More fields than this in `Vary` are treated like `*`: such an answer would never be reused.
const VARY_MAX: usize = 16;

/// What the name of a variant is made of: half of a SHA-256.
const NAME_BYTES: usize = 16;

/// The request fields that a response depends on; none if no other request can match it, which
/// is what `*` anywhere in the list means.
pub(super) fn vary(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for line in headers.get_all(VARY) {
        for member in line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            if member.is_empty() {
                continue;
            }
            // `*` is a token, hence a well-formed field name, and must be looked for first.
            if member == b"*" || names.len() == VARY_MAX {
                return None;
            }
            let name = HeaderName::from_bytes(member).ok()?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Some(names)
}

/// The fields that select among the answers to a request, sorted; none if no entry can be made of
/// the answer.
///
/// An answer that reflects the caller's Origin depends on it, whether or not Vary says so. One that
/// depends on Cookie or Authorization is for one caller and not kept; every other field is sent by
/// clients as it is, and compared.
#[must_use]
pub fn vary_set(request: &HeaderMap, response: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = vary(response)?;
    let mut allowed = response.get_all(ACCESS_CONTROL_ALLOW_ORIGIN).iter();
    let reflects = request.contains_key(ORIGIN) && allowed.any(|origin| origin != "*");
    if reflects && !names.contains(&ORIGIN) {
        names.push(ORIGIN);
    }
    if names.contains(&COOKIE) || names.contains(&AUTHORIZATION) {
        return None;
    }
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    Some(names)
}

/// A set of fields as one line, for a store to keep: sorted names with commas between.
#[must_use]
pub fn vary_line(set: &[HeaderName]) -> String {
    set.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(",")
}

/// Reads back lines of [`vary_line`], one set on each; none of a line that is not one.
pub fn vary_lines(text: &[u8]) -> impl Iterator<Item = Vec<HeaderName>> {
    text.split(|b| *b == b'\n').filter_map(|line| match line {
        [] => Some(Vec::new()),
        line => text::field_names(line).filter(|set| set.len() <= VARY_MAX + 1),
    })
}

/// The name of the variant that a request selects: `-` where nothing selects, else a digest of the
/// values, in hexadecimal.
#[must_use]
pub fn variant_name(set: &[HeaderName], request: &HeaderMap) -> String {
    if set.is_empty() {
        return "-".to_owned();
    }
    let mut context = digest::Context::new(&digest::SHA256);
    let mut part = |bytes: &[u8]| {
        // With its length before it, no part can pass for the end of another.
        context.update(&(bytes.len() as u64).to_le_bytes());
        context.update(bytes);
    };
    for name in set {
        part(name.as_str().as_bytes());
        match value(request, name) {
            Some(value) => {
                part(b"+");
                part(&value);
            }
            None => part(b"-"),
        }
    }
    let sum = context.finish();
    hex::encode(sum.as_ref().get(..NAME_BYTES).unwrap_or_default())
}

/// The selecting fields with a request's values, as an entry keeps them.
pub(super) fn values(
    set: Vec<HeaderName>,
    request: &HeaderMap,
) -> Vec<(HeaderName, Option<Bytes>)> {
    let with_value = |name: HeaderName| {
        let value = value(request, &name);
        (name, value)
    };
    set.into_iter().map(with_value).collect()
}

/// A field in its normal form: lines combined, no space around the members of the list, weights in
/// one spelling. Codings have neither case nor order; of languages and media types, too, only the
/// weights order them for certain, so those of one weight keep theirs.
pub(super) fn value(request: &HeaderMap, name: &HeaderName) -> Option<Bytes> {
    let lines = text::combined(request, name)?;
    let value = match *name {
        ACCEPT_ENCODING => weighted::normal(&lines, false),
        ACCEPT | ACCEPT_CHARSET | ACCEPT_LANGUAGE => weighted::normal(&lines, true),
        _ => text::members(&lines).collect::<Vec<_>>().join(&b","[..]),
    };
    Some(value.into())
}
