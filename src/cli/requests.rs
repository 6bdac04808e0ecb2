//! `requests`: which requests went wrong of late, and why, one line for each.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::json::json_text;
use super::operate::{EXIT, Target};
use super::plain::plain;
use super::remote::Failure;
use crate::base::http::percent;

/// Options of `requests`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Requests {
    /// Those of this caller, as tokens name it in `sub`.
    #[arg(long)]
    subject: Option<String>,
    /// Those of this route, by its name in [routes].
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Those that ended with this status, such as 429, or 4xx.
    #[arg(long)]
    status: Option<String>,
    /// Those that were refused for this reason, such as limit_exceeded.
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Those that the gateway refused.
    #[arg(long)]
    refused: bool,
    /// Print the gateway's answer as it came.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Carries out `requests`; what to print.
pub(super) fn requests(options: &Requests, path: &Path) -> Result<String, Failure> {
    let remote = options.target.find(path)?;
    let wanted = [
        ("subject", options.subject.as_deref()),
        ("route", options.route.as_deref()),
        ("status", options.status.as_deref()),
        ("reason", options.reason.as_deref()),
        ("refused", options.refused.then_some("true")),
    ];
    let given = wanted.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let query: Vec<String> = given
        .map(|(name, value)| format!("{name}={}", percent::encode(value.as_bytes())))
        .collect();
    let target = format!("/v1/requests?{}", query.join("&"));
    let answer = remote.send((Method::GET, &target), &json!({}), &["requests"])?;
    if options.json {
        return Ok(json_text(&answer));
    }
    let kept = answer.get("requests").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if kept.is_empty() {
        let bound = answer.get("bound").and_then(Value::as_u64).unwrap_or_default();
        return Ok(format!(
            "no such request is kept: the gateway keeps the last {bound} that were refused, \
             failed or slow"
        ));
    }
    // As in a log, the last one stands last.
    Ok(kept.iter().rev().map(line).collect::<Vec<_>>().join("\n"))
}

/// One request: when, what came of it, what was asked by whom, and why.
fn line(request: &Value) -> String {
    let text = |name: &str| request.get(name).and_then(Value::as_str);
    let status = request.get("status").and_then(Value::as_u64).unwrap_or_default();
    let reason = text("reason").unwrap_or("-");
    let (method, host) = (text("method").unwrap_or("-"), text("host").unwrap_or_default());
    let path = text("path").unwrap_or_default();
    let time = text("time").unwrap_or_default();
    let mut line = format!("{time}  {status} {reason}  {method} {host}{path}");
    if let Some(took) = request.get("duration_ms").and_then(Value::as_f64) {
        let _ = write!(line, "  in {took:.1} ms{}", stages(&request["stages_us"]));
    }
    if let Some(subject) = text("subject") {
        let _ = write!(line, "  by {subject}");
    }
    if let Some(client) = text("client") {
        let _ = write!(line, "  from {client}");
    }
    if let Some(limit) = text("limit") {
        let window = text("limit_window").map_or_else(String::new, |it| format!(" in {it}"));
        let key = text("limit_key").unwrap_or("-");
        let _ = write!(line, "  limit {limit}{window} for {key} is exhausted");
    }
    if let Some(seconds) = request.get("retry_after_s").and_then(Value::as_u64) {
        let _ = write!(line, "; retry in {seconds} s");
    }
    if let Some(error) = text("error") {
        let _ = write!(line, "  {error}");
    }
    plain(&line)
}

/// What it waited for, where it waited: `(store 1.2, upstream 30.0)`.
fn stages(stages: &Value) -> String {
    let all = stages.as_object().into_iter().flatten();
    let told = all.filter_map(|(name, us)| Some(format!("{name} {:.1}", us.as_f64()? / 1e3)));
    let told: Vec<String> = told.collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_what_whose_and_why() {
        let refused = json!({
            "time": "2026-11-30T09:12:40.000Z", "status": 429, "reason": "limit_exceeded",
            "method": "POST", "host": "shop.test", "path": "/login\u{1b}[2J\u{202e}",
            "client": "::1", "subject": "42", "limit": "login", "limit_window": "15m",
            "limit_key": "claim:sub=42", "retry_after_s": 9,
        });
        let expected = "2026-11-30T09:12:40.000Z  429 limit_exceeded  POST \
            shop.test/login\\u{1b}[2J\\u{202e}  by 42  from ::1  \
            limit login in 15m for claim:sub=42 is exhausted; retry in 9 s";
        assert_eq!(line(&refused), expected);
        let slow = json!({
            "status": 200, "duration_ms": 31.26, "stages_us": { "store": 1200, "upstream": 30_000 },
        });
        assert_eq!(line(&slow), "  200 -  -   in 31.3 ms (store 1.2, upstream 30.0)");
        let failed = json!({ "status": 502, "error": "connection refused" });
        assert_eq!(line(&failed), "  502 -  -   connection refused");
    }
}
