//! Names what a request makes untrue: RFC 9111 §4.4 and RFC 9875 §3.

use http::header::{
    CONTENT_LOCATION, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE,
};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};

use super::request::is_method_override;
use super::{tags, text};
use crate::base::facts::Target;
use crate::base::http::authority::Authority;
use crate::base::http::path::canonical;
use crate::config::WriteThrough;

/// What is to be withdrawn.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Targets {
    /// Canonical paths on the request's own site, its own first, each with any query.
    pub paths: Vec<String>,
    /// Groups of the request's own origin.
    pub groups: Vec<String>,
}

/// The request whose answer withdraws something.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// `http` or `https`, as the client sees it.
    pub scheme: &'a str,
    /// Where it went.
    pub target: &'a Target,
    /// Whether paths keep `%2F`, as the guard's configuration says.
    pub encoded_slash: bool,
}

/// Whether a request makes what is stored for its URI untrue.
///
/// True for an unsafe or unknown method that succeeded, and for one that got no answer (`None`):
/// the change may have been made all the same.
#[must_use]
pub fn invalidates(method: &Method, status: Option<u16>) -> bool {
    !method.is_safe() && status.is_none_or(|status| (200..400).contains(&status))
}

/// What an answer withdraws: the request's own URI, the URIs in Location and Content-Location where
/// they are of the same origin, and the groups it names. Nothing for a safe method or an error.
/// Without an answer, its own URI alone.
#[must_use]
pub fn targets(
    method: &Method,
    answer: Option<(StatusCode, &HeaderMap)>,
    own: &Own<'_>,
) -> Targets {
    if !invalidates(method, answer.map(|(status, _)| status.as_u16())) {
        return Targets::default();
    }
    let mut paths = vec![own.target.path().to_owned()];
    let Some((_, headers)) = answer else {
        return Targets { paths, groups: Vec::new() };
    };
    for name in [LOCATION, CONTENT_LOCATION] {
        let path = text::only(headers, name).and_then(|reference| own.path_of(reference));
        if let Some(path) = path.filter(|path| !paths.contains(path)) {
            paths.push(path);
        }
    }
    Targets { paths, groups: tags::withdrawn_groups(headers) }
}

/// Whether the answer to a write is what a GET of its target would be answered with: as it says
/// itself (RFC 9110 §8.7), or as the operator does. That of what was created must be at the target.
#[must_use]
pub fn represents(
    mode: WriteThrough,
    method: &Method,
    (status, headers): (StatusCode, &HeaderMap),
    own: &Own<'_>,
) -> bool {
    let names_target = |name| {
        let reference = text::only(headers, name).filter(|it| !it.contains(&b'?'));
        reference.and_then(|it| own.path_of(it)).is_some_and(|path| path == own.target.path())
    };
    let is_written = matches!(*method, Method::PUT | Method::POST | Method::PATCH);
    let is_whole = match status {
        StatusCode::OK => true,
        StatusCode::CREATED => names_target(LOCATION),
        _ => false,
    };
    let is_said = match mode {
        WriteThrough::Off => false,
        WriteThrough::ContentLocation => names_target(CONTENT_LOCATION),
        WriteThrough::Always => true,
    };
    is_written && is_whole && is_said && own.target.query().is_none()
}

/// Whether the answer to a write must state its lifetime itself to be stored: that to a POST, by
/// RFC 9110 §9.3.3, unless the operator vouches for it.
#[must_use]
pub fn needs_lifetime(mode: WriteThrough, method: &Method) -> bool {
    *method == Method::POST && mode != WriteThrough::Always
}

/// Whether a write may be answered with what a read would be: not with a part, nor by a method that
/// is another one than it says, nor as its client alone prefers it (RFC 7240 §2).
#[must_use]
pub fn may_write_through(
    mode: WriteThrough,
    (method, headers): (&Method, &HeaderMap),
    target: &Target,
) -> bool {
    let is_other = |name: &HeaderName| {
        *name == RANGE
            || *name == CONTENT_RANGE
            || name.as_str() == "prefer"
            || is_method_override(name.as_str())
    };
    mode != WriteThrough::Off
        && matches!(*method, Method::PUT | Method::POST | Method::PATCH)
        && target.query().is_none()
        && !headers.keys().any(is_other)
}

impl Own<'_> {
    /// The canonical path that a reference names on this origin; none if it leads elsewhere
    /// (RFC 3986 §5.2).
    fn path_of(&self, reference: &[u8]) -> Option<String> {
        let reference = std::str::from_utf8(reference).ok()?;
        let reference = reference.split('#').next().unwrap_or_default();
        let (scheme, rest) = split_scheme(reference);
        if scheme.is_some_and(|scheme| !scheme.eq_ignore_ascii_case(self.scheme)) {
            return None;
        }
        let (path, is_absolute) = match rest.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, path) = rest.split_at(end);
                self.is_own(authority).then_some((path, true))?
            }
            None => (rest, rest.starts_with('/')),
        };
        // A scheme without an authority names nothing on this origin.
        if scheme.is_some() && !rest.starts_with("//") {
            return None;
        }
        let path = path.split('?').next().unwrap_or_default();
        let base = self.target.path();
        let joined = match (path, is_absolute) {
            ("", true) => "/".to_owned(),
            ("", false) => base.to_owned(),
            (path, true) => path.to_owned(),
            (path, false) => {
                let folder = base.rfind('/').map_or(0, |at| at + 1);
                format!("/{}{path}", base.get(..folder).unwrap_or_default().trim_start_matches('/'))
            }
        };
        let joined = PathAndQuery::try_from(joined).ok()?;
        Some(canonical(&joined, self.encoded_slash).ok()?.path().to_owned())
    }

    /// Whether an authority is the request's own: the same host, and the same port once those that
    /// are not written are filled in.
    fn is_own(&self, authority: &str) -> bool {
        let Some(other) =
            HeaderValue::from_str(authority).ok().and_then(|text| Authority::of_header(&text))
        else {
            return false;
        };
        let own = &self.target.authority;
        own.host() == other.host() && self.port(own) == self.port(&other)
    }

    fn port(&self, authority: &Authority) -> u16 {
        let default = if self.scheme == "https" { 443 } else { 80 };
        let port = authority.as_str().strip_prefix(authority.host());
        let port = port.and_then(|rest| rest.strip_prefix(':'));
        port.and_then(|digits| digits.parse().ok()).unwrap_or(default)
    }
}

/// The scheme of a reference, if it has one, and the rest (RFC 3986 §3.1).
fn split_scheme(reference: &str) -> (Option<&str>, &str) {
    let is_scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    match reference.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
        _ => (None, reference),
    }
}
