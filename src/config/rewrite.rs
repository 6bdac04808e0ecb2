//! `rewrite = { … }` and `respond = { … }` of a route: what its upstream is asked for in place of
//! what the client asked for, and what is answered without one.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use toml::de::DeValue;

use super::header_rules::header_value;
use super::reader::Section;
use super::value::{Mistake, Read, count, duration, string, text};

/// `rewrite = { … }`, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// What the path loses.
    pub strip_prefix: Option<String>,
    /// What the path becomes.
    pub replace: Option<String>,
    /// The host that the upstream is asked for.
    pub host: Option<String>,
}

/// `respond = { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// The status.
    pub status: StatusCode,
    /// Where the client is sent.
    pub location: Option<String>,
    /// The content.
    pub body: String,
    /// Its type.
    pub content_type: HeaderValue,
    /// When it is to come again.
    pub retry_after: Option<Duration>,
}

/// `fallback = { … }` of a breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// The status.
    pub status: StatusCode,
    /// The content.
    pub body: String,
    /// Its type.
    pub content_type: HeaderValue,
}

/// Reads `rewrite = { … }`.
pub(super) fn read_rewrite(rewrite: &mut Section<'_>) -> Rewrite {
    let read = Rewrite {
        strip_prefix: rewrite.get("strip_prefix", text),
        replace: rewrite.get("replace", text),
        host: rewrite.get("host", text),
    };
    if rewrite.is_survey() {
        return read;
    }
    if read.strip_prefix.is_some() && read.replace.is_some() {
        let remedy = "keep one of them: replace says the whole path";
        rewrite.problem("strip_prefix", "is beside replace", remedy);
    }
    if read.strip_prefix.is_none() && read.replace.is_none() && read.host.is_none() {
        let remedy = "write strip_prefix = \"/api\", replace = \"/v2/{rest}\" or host = \"name\"";
        rewrite.problem("", "changes nothing", remedy);
    }
    read
}

/// Reads `respond = { … }`.
pub(super) fn read_respond(respond: &mut Section<'_>) -> Respond {
    let status = respond.need("status", "503", status).unwrap_or(StatusCode::OK);
    let read = Respond {
        status,
        location: respond.get("location", text),
        body: body(respond),
        content_type: content_type(respond),
        retry_after: respond.get("retry_after", duration),
    };
    if respond.is_survey() {
        return read;
    }
    let sends_away = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    if sends_away != read.location.is_some() {
        let what = if sends_away { "says not where" } else { "is for 301, 302, 303, 307 and 308" };
        let key = if sends_away { "status" } else { "location" };
        respond.problem(key, what, "write status = 308 with location = \"https://…/{path}\"");
    }
    check_content(respond, status, &read.body);
    read
}

/// Reads `fallback = { … }`.
pub(super) fn read_fallback(fallback: &mut Section<'_>) -> Fallback {
    let status = fallback.or("status", StatusCode::OK, status);
    let read = Fallback { status, body: body(fallback), content_type: content_type(fallback) };
    if status.is_redirection() {
        fallback.problem("status", "sends clients elsewhere", "write 200 or 503, for example");
    }
    check_content(fallback, status, &read.body);
    read
}

fn body(section: &mut Section<'_>) -> String {
    let read = |value: &DeValue<'_>| string(value, "the content in quotes").map(str::to_owned);
    section.get("body", read).unwrap_or_default()
}

fn content_type(section: &mut Section<'_>) -> HeaderValue {
    section.or("content_type", HeaderValue::from_static("text/plain; charset=utf-8"), header_value)
}

fn check_content(section: &mut Section<'_>, status: StatusCode, body: &str) {
    if !body.is_empty() && matches!(status.as_u16(), 204 | 205 | 304) {
        section.problem("body", "is none of an answer without content", "remove it");
    }
}

fn status(value: &DeValue<'_>) -> Read<StatusCode> {
    let code: u16 = count(200..=599)(value)?;
    StatusCode::from_u16(code).map_err(|_| Mistake::new("is no status", "write 503, for example"))
}
