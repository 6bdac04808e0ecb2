//! `explain` and `limits`: what a running gateway knows of limits, as commands.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use http::{Method, Uri};
use serde_json::{Map, Value, json};

use super::given;
use super::json::json_text;
use super::operate::{EXIT, Target};
use super::remote::Failure;
use crate::base::http::fields::bears_credentials;
use crate::base::http::percent;

/// Options of `explain`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Explain {
    /// The request's method.
    method: String,
    /// What it asks for, as the client writes it: https://shop.example.com/products?page=2, or only
    /// the path. Without a scheme, it comes as the gateway lets it come to a route: over TLS where
    /// server.tls.redirect is on. Which gateway is asked, --config or --admin say.
    url: String,
    /// A field of the request, `Name: value`. May be repeated, once for each name. A value that
    /// opens something is given by its place: env:NAME (an environment variable), file:PATH, or -
    /// for standard input; in Authorization also behind the scheme, `Bearer env:NAME`.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The client's address. Without it, 127.0.0.1.
    #[arg(long)]
    address: Option<IpAddr>,
    /// Print the gateway's answer as it came.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Options of `limits`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Limits {
    /// The limit, by its name in [limits].
    #[arg(
        long,
        value_name = "NAME",
        requires = "key",
        required_unless_present_any = ["refused", "pressed"]
    )]
    policy: Option<String>,
    /// Who is counted, as `portcullis explain` prints it, such as claim:sub=42.
    #[arg(long, requires = "policy")]
    key: Option<String>,
    /// Forget what was counted for this key.
    #[arg(long, requires = "policy")]
    reset: bool,
    /// List the keys that the gateway refused most, of late; after a minute a refusal counts half.
    #[arg(long, conflicts_with_all = ["policy", "key", "reset"])]
    refused: bool,
    /// List the keys that are near a limit or over it, as far as the gateway knows: it looks at one
    /// in 16 requests that pass, and at each that it refuses.
    #[arg(long, conflicts_with_all = ["policy", "key", "reset", "refused"])]
    pressed: bool,
    /// The share of a limit that is in use, from 0 to 1, from which on a key is listed. Without it,
    /// 0.8.
    #[arg(long, value_name = "SHARE", requires = "pressed")]
    min: Option<f64>,
    /// Print the gateway's answer as it came.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Carries out `explain`; what to print.
pub(super) fn explain(options: &Explain, path: &Path) -> Result<String, Failure> {
    let question = question(options).map_err(Failure::unusable)?;
    let remote = options.target.find(path)?;
    let answer = remote.send((Method::POST, "/v1/explain"), &question, &["outcome"])?;
    Ok(if options.json { pretty(&answer) } else { explanation(&question, &answer) })
}

/// Carries out `limits`; what to print.
pub(super) fn limits(options: &Limits, path: &Path) -> Result<String, Failure> {
    let remote = options.target.find(path)?;
    if options.pressed {
        let min = options.min.map_or_else(String::new, |min| format!("?min={min}"));
        let of = format!("/v1/limits/pressed{min}");
        let answer = remote.send((Method::GET, &of), &json!({}), &["keys"])?;
        return Ok(if options.json { pretty(&answer) } else { most_pressed(&answer) });
    }
    let (Some(policy), Some(key)) = (&options.policy, &options.key) else {
        let answer = remote.send((Method::GET, "/v1/limits/refused"), &json!({}), &["refused"])?;
        return Ok(if options.json { pretty(&answer) } else { most_refused(&answer) });
    };
    let of = format!(
        "/v1/limits?policy={}&key={}",
        percent::encode(policy.as_bytes()),
        percent::encode(key.as_bytes())
    );
    let method = if options.reset { Method::DELETE } else { Method::GET };
    let members: &[&str] =
        if options.reset { &["policy", "key", "counters_reset"] } else { &["policy", "key"] };
    let answer = remote.send((method, &of), &json!({}), members)?;
    Ok(match () {
        () if options.json => pretty(&answer),
        () if options.reset => reset(&answer),
        () => left(&answer),
    })
}

/// What was forgotten, which may be nothing.
fn reset(answer: &Value) -> String {
    let counters = match number(answer, "counters_reset").as_str() {
        "0" => "nothing was counted for this key".to_owned(),
        "1" => "1 counter".to_owned(),
        several => format!("{several} counters"),
    };
    format!("reset: {} for {}, {counters}", text(answer, "policy"), text(answer, "key"))
}

/// The request as `POST /v1/explain` takes it.
fn question(options: &Explain) -> Result<Value, String> {
    let (method, url) = (&options.method, &options.url);
    let wrong = || format!("{url:?} is no URL; write http://HOST/PATH?QUERY, or /PATH?QUERY");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let mut host = match (uri.scheme_str(), uri.authority()) {
        (None, None) => None,
        (Some("http" | "https"), Some(authority)) => Some(authority.to_string()),
        _ => return Err(wrong()),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = Map::new();
    for header in &options.headers {
        let (name, value) = header
            .split_once(':')
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()))
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| format!("{header:?} is no field; write -H 'Name: value'"))?;
        let value = field_value(&name, value)?;
        if name == "host" {
            host = Some(value);
        } else if headers.insert(name.clone(), value.into()).is_some() {
            return Err(format!("{name:?} is given twice; name each field once"));
        }
    }
    let mut question = json!({ "method": method, "path": path, "headers": headers });
    if let Some(scheme) = uri.scheme_str() {
        question["scheme"] = scheme.into();
    }
    if let Some(host) = host {
        question["host"] = host.into();
    }
    if let Some(address) = options.address {
        question["address"] = address.to_string().into();
    }
    Ok(question)
}

/// The value of a field, which may lie elsewhere; in `Authorization` also without its scheme.
fn field_value(name: &str, written: &str) -> Result<String, String> {
    let option = format!("-H {name}");
    match written.split_once(' ') {
        Some((scheme, rest)) if name == "authorization" => {
            Ok(format!("{scheme} {}", given::read(&option, rest.trim_start())?))
        }
        _ if bears_credentials(name) => given::read(&option, written),
        _ => Ok(written.to_owned()),
    }
}

/// One line for each thing that decides.
fn explanation(question: &Value, answer: &Value) -> String {
    let host = question.get("host").map_or("localhost", |host| host.as_str().unwrap_or_default());
    let (method, path) = (text(question, "method"), text(question, "path"));
    let mut lines = vec![format!("request  {method} {host}{path}")];
    let mut line = |name: &str, value: &str| lines.push(format!("{name:<8} {value}"));
    if let Some(route) = answer.get("route").and_then(Value::as_str) {
        line("route", route);
    }
    match answer.get("caller") {
        Some(Value::String(said)) => line("caller", said),
        Some(caller @ Value::Object(_)) => match text(caller, "subject") {
            "" => line(
                "caller",
                "no sub: a limit by claim:sub counts the address, and revoke --sub cannot end it",
            ),
            subject => line("caller", &format!("sub {subject}")),
        },
        Some(_) => line("caller", "nobody is identified"),
        None => {}
    }
    if let Some(said) = claims_line(answer.get("claim_headers")) {
        line("claims", &said);
    }
    for limit in answer.get("limits").and_then(Value::as_array).into_iter().flatten() {
        line("limit", &limit_line(limit));
    }
    match answer.get("session") {
        Some(session) if session.get("named") == Some(&Value::Bool(false)) => {
            line("session", "the request names none where session.id_from looks");
        }
        Some(session) if session.get("found") == Some(&Value::Bool(false)) => {
            line("session", "the store has none by the id that the request names");
        }
        Some(session) if session.get("unusable").is_some() => {
            line("session", text(session, "unusable"));
        }
        Some(Value::Object(session)) => {
            let names = session.get("headers").and_then(Value::as_array);
            let names: Vec<_> = names.into_iter().flatten().filter_map(Value::as_str).collect();
            line("session", &format!("sent as {}", or_none(&names.join(", "))));
        }
        _ => {}
    }
    let outcome = answer.get("outcome").unwrap_or(&Value::Null);
    if let Some(by) = outcome.get("by").and_then(Value::as_str) {
        line("outcome", &own_answer(outcome, by));
    } else if outcome.get("passes") == Some(&Value::Bool(true)) {
        if outcome.get("server").is_some() {
            let (server, why) = (text(outcome, "server"), text(outcome, "why"));
            line("server", &format!("{server}: {why}"));
        }
        line("outcome", &format!("passes, to the upstream {}", text(outcome, "upstream")));
    } else {
        let (status, code) = (number(outcome, "status"), text(outcome, "code"));
        line("outcome", &format!("{status} {code}: {}", text(outcome, "reason")));
    }
    lines.join("\n")
}

/// What the gateway itself answers.
fn own_answer(outcome: &Value, by: &str) -> String {
    let to = outcome.get("location").and_then(Value::as_str);
    match (outcome.get("status").and_then(Value::as_u64), to) {
        (Some(status), Some(_)) if by == "server.tls.redirect" => {
            format!("{status} to https ({by})")
        }
        (Some(status), Some(to)) => format!("{status} to {to}, by {by}"),
        (Some(status), None) => format!("{status}, by {by}"),
        (None, _) => format!("answered by {by}"),
    }
}

/// The headers that carry claims, and those that the caller has none for.
fn claims_line(headers: Option<&Value>) -> Option<String> {
    let headers = headers?.as_array()?;
    let is_sent = |it: &&Value| it.get("sent") == Some(&Value::Bool(true));
    let (sent, missing): (Vec<&Value>, Vec<&Value>) = headers.iter().partition(is_sent);
    let sent: Vec<&str> = sent.into_iter().map(|it| text(it, "header")).collect();
    let missing = missing.into_iter().map(|it| {
        let (header, claim) = (text(it, "header"), text(it, "claim"));
        format!("{header} is missing: the caller has no claim {claim:?}")
    });
    let sent = (!sent.is_empty()).then(|| format!("sent as {}", sent.join(", ")));
    let said: Vec<String> = sent.into_iter().chain(missing).collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// One window, one crowd or one note of an explanation.
fn limit_line(limit: &Value) -> String {
    if let Some(error) = limit.get("unknown").and_then(Value::as_str) {
        let policy = text(limit, "on_outage");
        return format!("unknown: {error}; store.on_outage.limits = \"{policy}\" decides");
    }
    let (name, verdict) = (text(limit, "limit"), text(limit, "verdict"));
    let mut said = name.to_owned();
    if let Some(key) = limit.get("key").and_then(Value::as_str) {
        let _ = write!(said, " by {key}");
    }
    let _ = write!(said, ": {}", window_line(limit));
    if limit.get("scope").is_some_and(|scope| scope == "local") {
        said += " at this gateway";
    }
    if limit.get("cost").is_some() {
        let _ = write!(said, ", costs {}", number(limit, "cost"));
    }
    let _ = write!(said, ": {verdict}");
    said
}

/// What a window has left, or who is in flight.
fn window_line(window: &Value) -> String {
    if window.get("concurrent").is_some() {
        let (held, most) = (number(window, "in_flight"), number(window, "concurrent"));
        return format!("{held} of {most} in flight");
    }
    let (left, most) = (number(window, "remaining"), number(window, "allowed"));
    let mut said = format!("{left} of {most} left in {}", text(window, "window"));
    if let Some(tier) = window.get("tier").and_then(Value::as_str) {
        let _ = write!(said, " for the tier {tier}");
    }
    if let Some(seconds) = window.get("retry_after_seconds").filter(|it| !it.is_null()) {
        let _ = write!(said, ", fits again in {seconds} s");
    }
    said
}

fn left(answer: &Value) -> String {
    let mut said = format!("{} for {}", text(answer, "policy"), text(answer, "key"));
    if answer.get("concurrent").is_some() {
        let _ = write!(said, "\n  {}", window_line(answer));
    }
    for window in answer.get("windows").and_then(Value::as_array).into_iter().flatten() {
        let _ = write!(said, "\n  {}", window_line(window));
    }
    said
}

fn most_refused(answer: &Value) -> String {
    let refused = answer.get("refused").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if refused.is_empty() {
        return "this gateway refused nobody of late".to_owned();
    }
    let lines = refused.iter().map(|it| {
        let (policy, window, key) = (text(it, "policy"), text(it, "window"), text(it, "key"));
        format!("{:>8}  {policy} {window}  {key}", number(it, "refusals"))
    });
    let lines: Vec<String> = lines.collect();
    format!("refusals  limit and key\n{}", lines.join("\n"))
}

fn most_pressed(answer: &Value) -> String {
    let keys = answer.get("keys").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if keys.is_empty() {
        return "no key was near a limit within the last minute".to_owned();
    }
    let lines = keys.iter().map(|it| {
        let (policy, window, key) = (text(it, "policy"), text(it, "window"), text(it, "key"));
        let used = format!("{} of {}", number(it, "used"), number(it, "allowed"));
        format!("{used:>14}  {:>12}  {policy} {window}  {key}", number(it, "refused_per_minute"))
    });
    let lines: Vec<String> = lines.collect();
    format!("{:>14}  {:>12}  limit and key\n{}", "used", "refused/min", lines.join("\n"))
}

fn pretty(answer: &Value) -> String {
    json_text(answer)
}

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(of: &Value, name: &str) -> String {
    of.get(name).map(Value::to_string).unwrap_or_default()
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_query_is_percent_encoded() {
        assert_eq!(
            percent::encode("claim:sub=4 2|é&~".as_bytes()),
            "claim%3Asub%3D4%202%7C%C3%A9%26~"
        );
    }
}
