//! `revoke` and `purge`: operations of a running gateway, as commands.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use clap::{ArgGroup, Args};
use http::Method;
use serde_json::{Map, Value, json};

use super::given;
use super::remote::{Failure, Remote};
use crate::base::http::percent;
use crate::base::units::duration_text;

/// Printed below the options of all that a running gateway does.
pub(super) const EXIT: &str = "\
Exit status: 0 done; 1 the gateway refused or could not; 2 the command line or the configuration \
cannot be used; 3 no gateway answered.";

/// Which gateway.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The admin listener of the running gateway. Without it, admin.listen and admin.token of
    /// --config say where it is and what it wants.
    #[arg(long, value_name = "http://HOST:PORT")]
    admin: Option<String>,
    /// The gateway's admin.token: env:NAME (an environment variable) or file:PATH.
    #[arg(long, value_name = "env:NAME|file:PATH")]
    admin_token: Option<String>,
}

impl Target {
    pub(super) fn find(&self, path: &Path) -> Result<Remote, Failure> {
        Remote::find(self.admin.as_deref(), self.admin_token.as_deref(), path)
    }

    /// Whether the command line itself says which one it is.
    pub(super) fn names_admin(&self) -> bool {
        self.admin.is_some()
    }
}

/// Options of `revoke`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
#[command(group(ArgGroup::new("wanted").args(WANTED).required(true).multiple(true)))]
pub(super) struct Revoke {
    #[command(flatten)]
    what: Revoked,
    /// List what is revoked now, the newest first: with --sub, of this user alone.
    #[arg(long, conflicts_with_all = ["undo", "expires_in", "auth"])]
    list: bool,
    /// Take the revocation back instead.
    #[arg(long, conflicts_with = "expires_in")]
    undo: bool,
    /// How long it lasts, such as 24h: no shorter than the tokens live. Without it,
    /// admin.revocation_ttl; a token given whole says itself how long it lives.
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<String>,
    /// The verifier whose callers are meant, by its name in [auth]; needed where a route has
    /// several verifiers of tokens.
    #[arg(long, value_name = "NAME")]
    auth: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// What `revoke` cannot be without.
const WANTED: [&str; 7] = ["jti", "token", "sid", "sub", "key_id", "cert", "list"];

#[derive(Debug, Args)]
#[group(multiple = false)]
struct Revoked {
    /// The token with this `jti` claim.
    #[arg(long, conflicts_with = "list")]
    jti: Option<String>,
    /// This token, given whole: env:NAME (an environment variable), file:PATH, - for standard
    /// input, or the token itself, which a process list shows. It need not have a `jti`.
    #[arg(long, value_name = "env:NAME|file:PATH|-", conflicts_with = "list")]
    token: Option<String>,
    /// Every token of the session with this `sid` claim.
    #[arg(long, conflicts_with = "list")]
    sid: Option<String>,
    /// Log the user with this `sub` claim out everywhere: every token that was issued up to this
    /// second, and every session. New log-ins work from the next second on. --undo takes back the
    /// tokens' revocation; what has ended stays ended.
    #[arg(long)]
    sub: Option<String>,
    /// The API key with this id, until it is taken back; `keys revoke` ends it for good.
    #[arg(long, conflicts_with_all = ["auth", "list"])]
    key_id: Option<String>,
    /// The client certificate with this SHA-256, and every token that is bound to it, until it is
    /// taken back: 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` tells them.
    #[arg(long, value_name = "SHA256", conflicts_with_all = ["auth", "list"])]
    cert: Option<String>,
}

/// Options of `purge`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Purge {
    #[command(flatten)]
    what: Purged,
    /// Have copies confirmed by their upstream before they are used again, instead of forgetting
    /// them: a 304 keeps them, and where a stale answer may be sent, they still serve.
    #[arg(long)]
    soft: bool,
    /// The upstream whose --tag it is. Without it, those of all.
    #[arg(long, value_name = "NAME", requires = "tag")]
    upstream: Option<String>,
    /// The origin whose --group it is, as clients name it.
    #[arg(long, value_name = "http://HOST", requires = "group")]
    origin: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Purged {
    /// Responses at this path and below it, on every host, such as /products or /products/*. A
    /// literal * is written %2A.
    #[arg(long)]
    path: Option<String>,
    /// The same, by the name that other caches give it.
    #[arg(long)]
    prefix: Option<String>,
    /// Responses of one URL, whatever the query, such as http://shop.example.com/products/42.
    #[arg(long)]
    url: Option<String>,
    /// Responses that their upstream tagged so, in Surrogate-Key, xkey or Cache-Tag.
    #[arg(long)]
    tag: Option<String>,
    /// Responses on one host, with its port where clients name one that is not the listener's.
    #[arg(long)]
    host: Option<String>,
    /// Responses of one route, by its name in [routes].
    #[arg(long)]
    route: Option<String>,
    /// Responses of this group of an origin, as Cache-Groups names them.
    #[arg(long, requires = "origin")]
    group: Option<String>,
    /// All responses.
    #[arg(long)]
    all: bool,
}

/// Options of `warm`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Warm {
    /// The route, by its name in [routes]; its cache.warm says what is fetched.
    route: String,
    #[command(flatten)]
    target: Target,
}

/// Carries out `warm`; what to print.
pub(super) fn warm(options: &Warm, path: &Path) -> Result<String, Failure> {
    let remote = options.target.find(path)?;
    let body = object([("route", Some(&options.route))]);
    let answer = remote.send_long((Method::POST, "/v1/cache/warm"), &body, &["responses"])?;
    let count = |name: &str| answer["responses"][name].as_u64().unwrap_or_default();
    Ok(format!(
        "warmed: {} stored, {} fresh already, {} not to be stored, {} failed, {} of other routes",
        count("stored"),
        count("fresh"),
        count("not_stored"),
        count("failed"),
        count("elsewhere")
    ))
}

/// Carries out `revoke`; what to print.
pub(super) fn revoke(options: &Revoke, path: &Path) -> Result<String, Failure> {
    let remote = options.target.find(path)?;
    if options.list {
        return list(&remote, options.what.sub.as_deref());
    }
    let Revoked { jti, token, sid, sub, key_id, cert } = &options.what;
    let token = token.as_deref().map(|token| given::read("--token", token)).transpose();
    let token = token.map_err(Failure::unusable)?;
    let body = object([
        ("jti", jti.as_deref()),
        ("token", token.as_deref()),
        ("sid", sid.as_deref()),
        ("sub", sub.as_deref()),
        ("key_id", key_id.as_deref()),
        ("cert", cert.as_deref()),
        ("expires_in", options.expires_in.as_deref()),
        ("auth", options.auth.as_deref()),
    ]);
    let method = if options.undo { Method::DELETE } else { Method::POST };
    let members: &[&str] = if options.undo { &["key"] } else { &["key", "expires_in_seconds"] };
    let answer = remote.send((method, "/v1/revocations"), &body, members)?;
    let several = answer.get("keys").and_then(Value::as_array);
    let several = several.map(|keys| keys.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    let key = several.map_or_else(
        || answer.get("key").and_then(Value::as_str).unwrap_or_default().to_owned(),
        |keys| keys.join(", "),
    );
    if options.undo {
        let still = if sub.is_some() { "; sessions that were ended stay ended" } else { "" };
        return Ok(format!("taken back: {key}{still}"));
    }
    let seconds = answer.get("expires_in_seconds").and_then(Value::as_u64).unwrap_or_default();
    let sessions = match answer.get("sessions_ended").and_then(Value::as_u64) {
        None => String::new(),
        Some(1) => "; 1 session ended".to_owned(),
        Some(count) => format!("; {count} sessions ended"),
    };
    let life = duration_text(Duration::from_secs(seconds));
    Ok(format!("revoked: {key}, for {life}{sessions}{}", unconfirmed(&answer)))
}

/// A line for each revocation in force, the newest first.
fn list(remote: &Remote, sub: Option<&str>) -> Result<String, Failure> {
    let sub = sub.map(|sub| format!("&sub={}", percent::encode(sub.as_bytes())));
    let of = format!("/v1/revocations?limit=1000{}", sub.unwrap_or_default());
    let answer = remote.send((Method::GET, &of), &json!({}), &["revocations"])?;
    let mut said = String::new();
    let listed = answer.get("revocations").and_then(Value::as_array);
    for one in listed.into_iter().flatten() {
        let text = |name: &str| one.get(name).and_then(Value::as_str);
        let kind = text("kind").unwrap_or_default();
        let what = text(if kind == "key" { "key_id" } else { kind }).unwrap_or_default();
        let auth = text("auth").map_or_else(String::new, |auth| format!(" auth={auth}"));
        let at = |name| text(name).unwrap_or("-");
        // Writing to a String cannot fail.
        let _ = writeln!(
            said,
            "{kind} {what:?}{auth} revoked={} until={}",
            at("revoked_at"),
            at("expires_at")
        );
    }
    let shown = listed.map_or(0, Vec::len) as u64;
    let total = answer.get("total").and_then(Value::as_u64).unwrap_or(shown);
    let flag = |name: &str| answer.get(name).and_then(Value::as_bool).unwrap_or(true);
    let _ = write!(said, "{} more", total.saturating_sub(shown));
    if !flag("complete") {
        said += "; some are not known to this gateway";
    }
    if !flag("current") {
        said += "; as it was before Redis went away";
    }
    Ok(said)
}

/// Carries out `purge`; what to print.
pub(super) fn purge(options: &Purge, path: &Path) -> Result<String, Failure> {
    let remote = options.target.find(path)?;
    let Purged { path, prefix, url, tag, host, route, group, all } = &options.what;
    let mut body = object([
        ("path", path.as_deref()),
        ("prefix", prefix.as_deref()),
        ("url", url.as_deref()),
        ("tag", tag.as_deref()),
        ("upstream", options.upstream.as_deref()),
        ("host", host.as_deref()),
        ("route", route.as_deref()),
        ("group", group.as_deref()),
        ("origin", options.origin.as_deref()),
    ]);
    if let Value::Object(members) = &mut body {
        members.extend(all.then(|| ("all".to_owned(), true.into())));
        members.extend(options.soft.then(|| ("soft".to_owned(), true.into())));
    }
    let answer = remote.send((Method::POST, "/v1/cache/purge"), &body, &["purged"])?;
    let what = answer.get("purged").and_then(Value::as_str).unwrap_or_default();
    // Where the store could not be asked for less, more is gone than was asked for.
    let is_soft = answer.get("soft").and_then(Value::as_bool).unwrap_or(options.soft);
    let how = if is_soft { ", to be confirmed" } else { "" };
    Ok(format!("purged: {what}{how}{}", unconfirmed(&answer)))
}

/// What is said where a fail-over of Redis may undo it.
fn unconfirmed(answer: &Value) -> &'static str {
    match answer.get("confirmed").and_then(Value::as_bool) {
        Some(false) => "; not all replicas of Redis have it yet",
        Some(true) | None => "",
    }
}

/// A JSON object of the members that have a value.
fn object<const N: usize>(members: [(&str, Option<&str>); N]) -> Value {
    let given = members.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let members: Map<String, Value> =
        given.map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
    Value::Object(members)
}
