//! One line among the diagnostics for each operation that changes something, or tried to: who,
//! what, and what came of it. Every request below `/v1/` that does not only look has one, so a new
//! operation cannot go without; and every one with a token that is wrong.
//!
//! Lines stand whatever `log.level` says. What an operator names is shortened and escaped; what
//! opens something (a token, a session's id) stands as the first half of its SHA-256.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode, Uri};
use serde_json::{Map, Value, json};

use super::reply::{Code, Effect, Fault, Reply, json as reply_json};
use super::routes::{self, Access, Route};
use super::{masked, query, revocations};
use crate::base::http::credentials;
use crate::observe::{AUDIT, Metrics, Operated};
use crate::proxy::without_credentials;
use crate::runtime::{Gateway, Looking, OPERATIONS_MAX};

/// Most bytes of one value.
const VALUE_BYTES_MAX: usize = 128;
/// Most members of one operation that are told.
const MEMBERS_MAX: usize = 12;
/// Longest id of an API key, in bytes: what is longer may be a key that was sent by mistake.
const KEY_ID_BYTES_MAX: usize = 40;
/// A path that leads to no operation.
const UNKNOWN: &str = "/v1/…";
/// Members of queries and bodies that stand as they are.
const PLAIN: [&str; 21] = [
    "all",
    "auth",
    "error",
    "expires_in",
    "for",
    "group",
    "host",
    "jti",
    "key_id",
    "level",
    "origin",
    "owner",
    "policy",
    "route",
    "scopes",
    "soft",
    "sub",
    "tag",
    "tier",
    "upstream",
    "why",
];

/// A line that is being written; it stands also when the client leaves before its answer.
#[derive(Debug)]
pub(super) struct Audit {
    from: IpAddr,
    /// What let the operator in.
    by: String,
    operation: String,
    object: Vec<(String, String)>,
    is_written: bool,
    /// Who is told besides.
    looking: Option<Arc<Looking>>,
    /// What it is counted as; nothing where it leads to no operation.
    route: Option<&'static Route>,
    metrics: Arc<Metrics>,
}

impl Audit {
    /// The line of a request below `/v1/`; nothing when it only looks.
    pub(super) fn begin(peer: SocketAddr, head: &Parts, gateway: &Gateway) -> Option<Self> {
        (!only_looks(head)).then(|| Self::of_stranger(peer, head, gateway))
    }

    /// The line of a request below `/v1/` that nobody was let in for, whatever it is for.
    pub(super) fn of_stranger(peer: SocketAddr, head: &Parts, gateway: &Gateway) -> Self {
        Self::open(peer, head, &gateway.observer.metrics, Some(&gateway.looking))
    }

    fn open(
        peer: SocketAddr,
        head: &Parts,
        metrics: &Arc<Metrics>,
        looking: Option<&Arc<Looking>>,
    ) -> Self {
        let method = &head.method;
        let found = routes::find(head.uri.path());
        let route = found.and_then(|found| found.on(method));
        let template = found.map_or(UNKNOWN, |found| found.template);
        let mut audit = Self {
            from: peer.ip().to_canonical(),
            by: "nobody".to_owned(),
            operation: format!("{} {template}", shortened(method.as_str())),
            object: Vec::new(),
            is_written: false,
            looking: looking.cloned(),
            route,
            metrics: Arc::clone(metrics),
        };
        let name = decoded(found.map_or("", |found| found.name));
        match template {
            routes::SESSION => audit.digest("id", &name),
            routes::FAMILY => audit.digest("sid", &name),
            routes::KEY if name.len() > KEY_ID_BYTES_MAX => audit.digest("id", &name),
            routes::KEY => audit.member("id", &name),
            routes::SESSIONS => audit.member("user", &name),
            _ if template.starts_with(routes::QUEUES) => audit.member("queue", &name),
            _ if template.starts_with(routes::DELIVERY) => audit.member("id", &name),
            _ => {}
        }
        for (name, value) in query::pairs(head.uri.query()).unwrap_or_default() {
            match &*name {
                "user" | "ttl" => audit.member(&name, &value),
                "key" => audit.member(&name, &without_credentials(&value)),
                _ => audit.named(&name, &value),
            }
        }
        audit
    }

    /// The guard let the request in, by this.
    pub(super) fn admit(&mut self, by: String) {
        self.by = by;
    }

    /// What the body names. That of a session is the application's own business, and so may that
    /// be of a path that is none: it may have been meant for one.
    pub(super) fn body(&mut self, body: &[u8]) {
        // A digest of a token that is no random one would tell it.
        if self.operation.ends_with(routes::LOGIN) {
            return;
        }
        if self.operation.ends_with(routes::SESSION) || self.operation.ends_with(UNKNOWN) {
            self.member("bytes", &body.len().to_string());
            return;
        }
        let Ok(Value::Object(members)) = serde_json::from_slice(body) else { return };
        for (name, value) in &members {
            match value {
                Value::String(text) => self.named(name, text),
                Value::Bool(flag) => self.named(name, if *flag { "true" } else { "false" }),
                Value::Array(items) if name == "scopes" => {
                    let scopes: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                    self.named(name, &scopes.join(" "));
                }
                _ => {}
            }
        }
    }

    /// Writes the line.
    pub(super) fn end(mut self, reply: &Reply) {
        let status = reply.status();
        let result = match status.as_u16() {
            ..400 => "done",
            400..500 => "refused",
            _ => "failed",
        };
        if let Some(Effect(name, what)) = reply.extensions().get() {
            self.member(name, what);
        }
        if let Some(Code(code)) = reply.extensions().get() {
            self.member("code", code);
        }
        self.write(result, status.as_str());
    }

    fn named(&mut self, name: &str, value: &str) {
        match name {
            "sid" | "token" => self.digest(name, value),
            "url" | "path" | "prefix" => self.member(name, &without_secrets(value)),
            // As tools write it, or as it is stored: one certificate has one name.
            "cert" => {
                let sha256 = revocations::fingerprint(value);
                self.member(name, sha256.as_deref().unwrap_or(value));
            }
            _ if PLAIN.contains(&name) => self.member(name, value),
            _ => {}
        }
    }

    fn digest(&mut self, name: &str, value: &str) {
        self.member(name, &masked::digest(value));
    }

    fn member(&mut self, name: &str, value: &str) {
        if self.object.len() < MEMBERS_MAX {
            self.object.push((name.to_owned(), shortened(value)));
        }
    }

    fn write(&mut self, result: &'static str, status: &str) {
        self.is_written = true;
        let (method, path) = self.route.map_or(("", "unknown"), |it| (it.method_word(), it.path));
        self.metrics.operations().operated(Operated { path, method, result });
        let object = self.object();
        let Self { from, by, operation, .. } = self;
        tracing::info!(
            target: AUDIT,
            "audit from={from} by={by} operation={operation:?}{object} status={status} \
             result={result}"
        );
        if let Some(looking) = &self.looking {
            looking.operated(self.event(result, status));
        }
    }

    /// What it was done to, as the line has it.
    fn object(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.object {
            // Writing to a String cannot fail.
            let _ = write!(text, " {name}={value:?}");
        }
        text
    }

    /// The same for those who look.
    fn event(&self, result: &str, status: &str) -> Map<String, Value> {
        let object = self.object.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
        let mut event = event(&self.by, &self.operation, result);
        event.insert("from".to_owned(), self.from.to_string().into());
        event.insert("object".to_owned(), Value::Object(object.collect()));
        event.insert("status".to_owned(), status.parse::<u16>().ok().into());
        event
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if !self.is_written {
            // It may have been carried out, or not.
            self.write("unknown", "-");
        }
    }
}

/// Whether a request changes nothing, whatever comes of it.
fn only_looks(head: &Parts) -> bool {
    let route = || routes::find(head.uri.path())?.on(&head.method);
    matches!(head.method, Method::GET | Method::HEAD)
        || route().is_some_and(|route| route.access == Access::Read)
}

/// What was not asked for by a request: a reload or a hand-over, by a signal or by a changed file.
pub fn told(gateway: &Gateway, by: &'static str, operation: &'static str, result: &'static str) {
    tracing::info!(target: AUDIT, "audit by={by} operation={operation:?} result={result}");
    gateway.looking.operated(event(by, operation, result));
}

/// What is known of every operation.
fn event(by: &str, operation: &str, result: &str) -> Map<String, Value> {
    let now = format!("{:.3}", jiff::Timestamp::now());
    let members = [("t", &*now), ("by", by), ("operation", operation), ("result", result)];
    members.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// `GET /v1/operations`: those with a smaller id than `before`, or all that are kept, the newest
/// first.
pub(super) fn list(gateway: &Gateway, uri: &Uri) -> Result<Reply, Fault> {
    let mut before = None;
    for (name, value) in query::pairs(uri.query())? {
        let wrong = || Fault::Invalid(format!("{name}={value} is not known. Example: ?before=17"));
        match &*name {
            "before" => before = Some(value.parse().map_err(|_| wrong())?),
            _ => return Err(wrong()),
        }
    }
    let kept = gateway.looking.operations.before(before);
    let shown: Vec<&Map<String, Value>> = kept.iter().map(|it| &it.told).collect();
    let answer = json!({ "operations": shown, "bound": OPERATIONS_MAX });
    Ok(reply_json(StatusCode::OK, &answer))
}

fn decoded(text: &str) -> String {
    query::percent_decoded(text).unwrap_or_else(|_| text.to_owned())
}

/// A URL or path without its query, and without what opens something: a user's name and password,
/// or a segment that looks like credentials.
fn without_secrets(url: &str) -> Cow<'_, str> {
    let before_query = url.split(['?', '#']).next().unwrap_or_default();
    if before_query.contains('@') {
        return credentials::REDACTED.into();
    }
    credentials::without_credentials(before_query)
}

fn shortened(text: &str) -> String {
    if text.len() <= VALUE_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=VALUE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit(method: &str, uri: &str, body: &str) -> Option<String> {
        let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let metrics = Arc::new(Metrics::default());
        let (head, ()) = request.into_parts();
        if only_looks(&head) {
            return None;
        }
        let mut audit = Audit::open(peer, &head, &metrics, None);
        audit.body(body.as_bytes());
        audit.is_written = true;
        Some(format!("{}{}", audit.operation, audit.object()))
    }

    #[test]
    fn what_only_looks_has_no_line() {
        for (method, path) in [
            ("GET", "/v1/status"),
            ("HEAD", "/v1/status"),
            ("GET", "/v1/sessions/a"),
            ("POST", "/v1/explain"),
        ] {
            assert_eq!(audit(method, path, ""), None, "{method} {path}");
        }
        assert_eq!(audit("POST", "/v1/new", "").as_deref(), Some("POST /v1/… bytes=\"0\""));
    }

    #[test]
    fn a_line_has_no_secrets_and_no_second_line() {
        let long = "x".repeat(300);
        for (method, uri, body, has) in [
            ("PUT", "/v1/sessions/s3cret?user=4%0A2", r#"{"a":"s3cret"}"#, "user=\"4\\n2\" bytes"),
            ("DELETE", "/v1/sessions/s3cret", "", "id=\"sha256:"),
            ("POST", "/v1/revocations", r#"{"token":"s3cret"}"#, "token=\"sha256:"),
            ("DELETE", "/v1/revocations?sid=s3cret", "", "sid=\"sha256:"),
            ("DELETE", "/v1/keys/pk_s3cret_0123456789012345678901234567890", "", "id=\"sha256:"),
            ("DELETE", "/v1/limits?policy=a&key=session=s3cret", "", "key=\"session=#"),
            ("POST", "/v1/cache/purge", r#"{"url":"http://u:s3cret@h/"}"#, "url=\"[redacted]\""),
            ("POST", "/v1/cache/purge", r#"{"url":"http://h/a?t=s3cret"}"#, "url=\"http://h/a\""),
            ("POST", "/v1/cache/purge", r#"{"path":"/a/pck_s3cret012345678/*"}"#, "path=\"/a/[re"),
            ("POST", "/v1/revocations", r#"{"cert":"0F"}"#, "cert=\"0F\""),
            ("POST", "/v1/revocations", r#"{"sub":"a\"\u202e b"}"#, "sub=\"a\\\"\\u{202e} b\""),
            ("POST", "/v1/revocations", r#"{"other":"s3cret"}"#, "/v1/revocations"),
            // An id with a slash that is not escaped.
            ("PUT", "/v1/sessions/a/b", r#"{"sub":"s3cret"}"#, "/v1/… bytes=\"16\""),
        ] {
            let line = audit(method, uri, body).unwrap();
            assert!(line.contains(has), "{line}");
            assert!(!line.contains("s3cret") && !line.contains('\n'), "{line}");
        }
        // Whoever revokes a certificate and whoever takes that back name it alike.
        let (plain, with_colons) = ("0f".repeat(32), ["0F"; 32].join(":"));
        let revoked = format!("{{\"cert\":\"{with_colons}\"}}");
        for (method, uri, body) in [
            ("POST", "/v1/revocations".to_owned(), &*revoked),
            ("DELETE", "/v1/revocations".to_owned(), &*revoked),
            ("DELETE", format!("/v1/revocations?cert={plain}"), ""),
        ] {
            let line = audit(method, &uri, body).unwrap();
            assert_eq!(line, format!("{method} /v1/revocations cert=\"{plain}\""));
        }
        let line = audit("POST", "/v1/revocations", &format!("{{\"sub\":\"{long}\"}}")).unwrap();
        assert!(line.len() < 200, "{line}");
    }
}
