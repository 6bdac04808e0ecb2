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
    let location = respond.get("location", text);
    let body =
        respond.get("body", |value| string(value, "the content in quotes").map(str::to_owned));
    let read = Respond {
        status,
        body: body.unwrap_or_default(),
        content_type: respond.or(
            "content_type",
            HeaderValue::from_static("text/plain; charset=utf-8"),
            header_value,
        ),
        retry_after: respond.get("retry_after", duration),
        location,
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
    if !read.body.is_empty() && matches!(status.as_u16(), 204 | 205 | 304) {
        respond.problem("body", "is none of an answer without content", "remove it");
    }
    read
}

fn status(value: &DeValue<'_>) -> Read<StatusCode> {
    let code: u16 = count(200..=599)(value)?;
    StatusCode::from_u16(code).map_err(|_| Mistake::new("is no status", "write 503, for example"))
}
