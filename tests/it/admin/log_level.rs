//! Diagnostics of another level for a time: `PUT /v1/log`.

use serde_json::{Value, json};

use super::{problem, start};
use crate::support::{Gateway, eventually, operate};

fn log(gateway: &Gateway) -> Value {
    operate(gateway, "GET", "/v1/status", "").json()["log"].clone()
}

/// Reloads the file, which says so from the level `info` on, and returns how often that was told.
fn told(gateway: &Gateway, reloads: usize) -> usize {
    assert_eq!(operate(gateway, "POST", "/v1/config/reload", "{}").status, 200);
    // The line of the audit comes behind it, whatever the level is.
    let audits = || gateway.stderr().matches("operation=\"POST /v1/config/reload\"").count();
    eventually("the reload is in the audit", || audits() == reloads);
    gateway.stderr().matches("the configuration was reloaded").count()
}

#[test]
fn another_level_counts_for_a_time_and_goes_back_by_itself() {
    let (_upstream, gateway) = start("");
    let info = json!({ "level": "info", "configured": "info", "until": null });
    assert_eq!(log(&gateway), info);
    assert_eq!(told(&gateway, 1), 1);
    let set = operate(&gateway, "PUT", "/v1/log", r#"{"level": "error", "for": "1h"}"#);
    assert_eq!(set.status, 200, "{}", set.text());
    let (level, configured) = (&set.json()["level"], &set.json()["configured"]);
    assert_eq!((level, configured), (&json!("error"), &json!("info")));
    assert!(set.json()["until"].as_str().is_some_and(|at| at.ends_with('Z')), "{}", set.text());
    assert_eq!(told(&gateway, 2), 1, "no more is told");
    let audit = "operation=\"PUT /v1/log\" for=\"1h\" level=\"error\" status=200 result=done";
    assert!(gateway.stderr().contains(audit), "{}", gateway.stderr());
    // The last one counts, and ends alone.
    let set = operate(&gateway, "PUT", "/v1/log", r#"{"level": "warn", "for": "1s"}"#);
    assert_eq!(set.status, 200, "{}", set.text());
    eventually("it goes back", || log(&gateway) == info);
    assert_eq!(told(&gateway, 3), 2, "it is told again");
    let back = "audit by=PUT /v1/log operation=\"log level as configured\" result=done";
    eventually("that has a line", || gateway.stderr().contains(back));
}

#[test]
fn a_level_and_a_time_are_bounded() {
    let (_upstream, gateway) = start("");
    for body in [
        r#"{"level": "trace", "for": "10m"}"#,
        r#"{"level": "debug", "for": "2h"}"#,
        r#"{"level": "debug", "for": "999ms"}"#,
        r#"{"level": "debug", "for": "soon"}"#,
        r#"{"level": "debug"}"#,
    ] {
        let reply = operate(&gateway, "PUT", "/v1/log", body);
        assert_eq!(problem(&reply), (400, "request_invalid".to_owned()), "{body}");
    }
    assert_eq!(log(&gateway)["level"], "info");
}
