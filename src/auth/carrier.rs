//! Where a token stands in a request: reads it there (RFC 6750 §2), and takes it out of what is
//! forwarded. It must not know what is inside a token.

use std::borrow::Cow;
use std::fmt;

use config::TokenSource;
use http::header::{AUTHORIZATION, COOKIE, Entry};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::certificate::ShownCertificate;
use super::challenge::Denied;
use crate::base::http::{cookie, percent};
use crate::config;

/// What of a request, or of its connection, may say who calls.
#[derive(Debug, Clone, Copy)]
pub struct Places<'r> {
    /// The header fields.
    pub headers: &'r HeaderMap,
    /// The query, without its question mark.
    pub query: Option<&'r str>,
    /// What the client has shown on its connection.
    pub certificate: Option<&'r ShownCertificate>,
}

/// The field with the proof of a bound token (RFC 9449 §4).
pub(super) const DPOP: HeaderName = HeaderName::from_static("dpop");

/// A token as it stands in the request, not looked at yet: most are found in memory by their bytes
/// alone, and what is found there was looked at before.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Raw<'h> {
    pub(super) bytes: Cow<'h, [u8]>,
    /// Whether it came with the scheme of tokens that are bound to a key (RFC 9449 §7.1).
    pub(super) is_dpop: bool,
}

/// Whoever prints it shows nothing that could be used.
impl fmt::Debug for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, is_dpop } = self;
        write!(f, "Raw({} bytes, is_dpop: {is_dpop})", bytes.len())
    }
}

impl<'h> Raw<'h> {
    pub(super) fn new(bytes: &'h [u8]) -> Self {
        Self { bytes: Cow::Borrowed(bytes), is_dpop: false }
    }

    /// Its text: exactly one word of `token68` characters (RFC 9110 §11.2), which excludes lists
    /// and a second word.
    pub(super) fn text(&self) -> Result<&str, Denied> {
        if self.bytes.is_empty() || !self.bytes.iter().all(|byte| TOKEN68[usize::from(*byte)]) {
            return Err(Denied::Malformed);
        }
        std::str::from_utf8(&self.bytes).map_err(|_| Denied::Malformed)
    }
}

/// How a credential is written in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A token: after `Bearer`, and in `Authorization` after `DPoP`; elsewhere also bare.
    Token,
    /// An API key: in `Authorization` after `Bearer` or `ApiKey`, elsewhere bare.
    ApiKey,
}

impl Form {
    /// The credential in the value of a header; nothing where another scheme is named, such as
    /// Basic, which is somebody else's.
    pub(super) fn credential<'v>(self, name: &HeaderName, value: &'v [u8]) -> Option<&'v [u8]> {
        let is_authorization = *name == AUTHORIZATION;
        let after = match self {
            Self::Token if is_authorization => {
                after_scheme(value, b"bearer").or_else(|| after_scheme(value, b"dpop"))
            }
            Self::Token => after_scheme(value, b"bearer"),
            Self::ApiKey if is_authorization => {
                after_scheme(value, b"bearer").or_else(|| after_scheme(value, b"apikey"))
            }
            Self::ApiKey => None,
        };
        match after {
            Some(rest) => {
                let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
                rest.get(spaces..)
            }
            None if is_authorization || value.is_empty() => None,
            None => Some(value),
        }
    }
}

/// The one token, or API key, of the request. Two different ones are refused, whatever their
/// places: which of them another program would believe is unknown.
pub(super) fn find<'h>(
    sources: &[TokenSource],
    form: Form,
    places: Places<'h>,
) -> Result<Option<Raw<'h>>, Denied> {
    let mut found = None;
    for source in sources {
        let here = match source {
            TokenSource::Header(name) => in_header(name, form, places.headers)?,
            TokenSource::Cookie(name) => in_cookies(name, places.headers)?,
            TokenSource::Query(name) => in_query(name, places.query.unwrap_or_default())?,
        };
        found = agree(found, here)?;
    }
    Ok(found)
}

/// Removes the tokens from all header fields where one may stand, the proof that stands beside one,
/// and nothing else. A token that is bound to nothing may have a proof, too: it is one of the same
/// key, and would do for the next token.
pub(super) fn remove(sources: &[TokenSource], form: Form, headers: &mut HeaderMap) {
    if form == Form::Token && !sources.is_empty() {
        headers.remove(&DPOP);
    }
    for source in sources {
        match source {
            TokenSource::Header(name) if *name == AUTHORIZATION => {
                retain(headers, &AUTHORIZATION, |line| {
                    let found = form.credential(&AUTHORIZATION, line.as_bytes());
                    found.is_none().then(|| line.clone())
                });
            }
            TokenSource::Header(name) => {
                headers.remove(name);
            }
            TokenSource::Cookie(name) => {
                retain(headers, &COOKIE, |line| cookie::without(line, name))
            }
            TokenSource::Query(_) => {}
        }
    }
}

/// The query without the parameters that may carry a token, its other bytes as they are; `None`
/// when nothing needs to be removed, an empty text when nothing is left.
pub(super) fn without_parameters<'s>(
    sources: &(impl Iterator<Item = &'s TokenSource> + Clone),
    query: &str,
) -> Option<String> {
    let carries = |parameter: &&str| {
        sources.clone().any(|source| match source {
            TokenSource::Query(name) => is_named(parameter, name),
            TokenSource::Header(_) | TokenSource::Cookie(_) => false,
        })
    };
    if !query.split('&').any(|parameter| carries(&parameter)) {
        return None;
    }
    let kept: Vec<&str> = query.split('&').filter(|parameter| !carries(parameter)).collect();
    Some(kept.join("&"))
}

fn agree<'h>(known: Option<Raw<'h>>, next: Option<Raw<'h>>) -> Result<Option<Raw<'h>>, Denied> {
    match (known, next) {
        (Some(known), Some(next)) if known != next => Err(Denied::Several),
        (known, next) => Ok(known.or(next)),
    }
}

fn in_header<'h>(
    name: &HeaderName,
    form: Form,
    headers: &'h HeaderMap,
) -> Result<Option<Raw<'h>>, Denied> {
    let mut lines = headers.get_all(name).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(Denied::Several);
    }
    let line = line.as_bytes().trim_ascii();
    let is_dpop = form == Form::Token && *name == AUTHORIZATION && is_of_dpop(line);
    let found = form.credential(name, line);
    Ok(found.map(|token| Raw { bytes: Cow::Borrowed(token), is_dpop }))
}

/// Whether a line with a token has the scheme of bound ones: no other one begins so.
fn is_of_dpop(line: &[u8]) -> bool {
    line.first().is_some_and(|first| first.eq_ignore_ascii_case(&b'd'))
}

fn in_cookies<'h>(name: &str, headers: &'h HeaderMap) -> Result<Option<Raw<'h>>, Denied> {
    let mut found = None;
    for value in cookie::values(headers, name) {
        // An empty cookie is what a log-out leaves behind.
        let token = (!value.is_empty()).then(|| Raw::new(value));
        found = agree(found, token)?;
    }
    Ok(found)
}

/// The parameter called `name` (RFC 6750 §2.3). Names are compared after decoding: the upstream
/// would decode them too.
fn in_query<'h>(name: &str, query: &'h str) -> Result<Option<Raw<'h>>, Denied> {
    let mut found = None;
    for parameter in query.split('&').filter(|parameter| is_named(parameter, name)) {
        let value = parameter.split_once('=').map_or("", |(_, value)| value);
        // An empty one is what a form without a token sends.
        let token = (!value.is_empty())
            .then(|| Raw { bytes: percent::decode(value.as_bytes()), is_dpop: false });
        found = agree(found, token)?;
    }
    Ok(found)
}

fn is_named(parameter: &str, name: &str) -> bool {
    let written = parameter.split('=').next().unwrap_or_default();
    *percent::decode(written.as_bytes()) == *name.as_bytes()
}

/// What follows a scheme, named in lower case; nothing for another scheme. A scheme ends where its
/// characters end (RFC 9110 §5.6.2), so that `Bearer<TAB>x`, which a lax parser takes for a token,
/// is not passed over.
fn after_scheme<'v>(value: &'v [u8], name: &[u8]) -> Option<&'v [u8]> {
    let (scheme, rest) = value.split_at_checked(name.len())?;
    let goes_on = matches!(
        rest.first(),
        Some(b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-')
            | Some(b'.' | b'^'..=b'`' | b'|' | b'~')
    );
    (scheme.eq_ignore_ascii_case(name) && !goes_on).then_some(rest)
}

/// The `token68` characters. A table, because every byte of every new token is looked up.
static TOKEN68: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(
            byte as u8,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'='
        );
        byte += 1;
    }
    table
};

/// Replaces the lines of one header by what `keep` makes of each.
fn retain(
    headers: &mut HeaderMap,
    name: &HeaderName,
    keep: impl FnMut(&HeaderValue) -> Option<HeaderValue>,
) {
    let Entry::Occupied(lines) = headers.entry(name) else { return };
    let kept: Vec<HeaderValue> = lines.iter().filter_map(keep).collect();
    lines.remove();
    for line in kept {
        headers.append(name, line);
    }
}
