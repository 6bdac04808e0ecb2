//! Logging in to the dashboard: sessions of tokens and codes, what they may do, their end, and what
//! is left of them in the audit.

use serde_json::{Value, json};

use super::{problem, start};
use crate::support::{Client, Folder, Gateway, Refused, Reply, eventually, run};

const TOKENS: &str =
    "[admin]\ntoken = \"operator-0123456789\"\nread_token = \"reader-0123456789\"\n";
const OPERATOR: &str = "operator-0123456789";
const READER: &str = "reader-0123456789";

fn send(gateway: &Gateway, (method, path): (&str, &str), bearer: &str, body: &Value) -> Reply {
    let request = Client::request(gateway.admin, method, path)
        .header("Host", gateway.admin.to_string())
        .header("Content-Type", "application/json")
        .body(body.to_string());
    if bearer.is_empty() { request.send() } else { request.bearer(bearer).send() }
}

fn log_in(gateway: &Gateway, credential: &Value) -> Reply {
    send(gateway, ("POST", "/v1/login"), "", credential)
}

fn session(gateway: &Gateway, credential: &Value) -> String {
    let reply = log_in(gateway, credential);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["session"].as_str().expect("a session").to_owned()
}

fn code(gateway: &Gateway, bearer: &str) -> Reply {
    send(gateway, ("POST", "/v1/login/code"), bearer, &json!({}))
}

fn me(gateway: &Gateway, bearer: &str) -> Reply {
    send(gateway, ("GET", "/v1/me"), bearer, &json!({}))
}

const PURGE: (&str, &str) = ("POST", "/v1/cache/purge");

#[test]
fn a_session_has_the_role_of_its_token_until_it_is_ended() {
    let (_upstream, gateway) = start(TOKENS);
    for (token, role) in [(OPERATOR, "operate"), (READER, "read")] {
        let reply = log_in(&gateway, &json!({ "token": token }));
        let answer = reply.json();
        assert_eq!((&answer["role"], &answer["idle_s"]), (&json!(role), &json!(1800)));
        assert_eq!(reply.header("set-cookie"), None);
        let session = answer["session"].as_str().expect("a session");
        let is_base64url = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        assert!(session.len() == 43 && session.bytes().all(is_base64url), "{session}");
        let who = me(&gateway, session).json();
        let ends_at = &answer["ends_at"];
        assert_eq!(who["session"], json!({ "ends_at": ends_at, "idle_s": 1800 }));
        assert!(ends_at.as_str().is_some_and(|at| at.starts_with("20") && at.ends_with('Z')));
        assert_eq!((&who["role"], &who["login"]), (&json!(role), &json!("token")));
        assert_eq!(who["dashboard"], "operate");
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!((&who["version"], who["node"].is_string()), (&json!(version), true));
        let purged = send(&gateway, PURGE, session, &json!({ "all": true }));
        assert_eq!(purged.status, if role == "read" { 403 } else { 200 }, "{}", purged.text());
        let ended = send(&gateway, ("DELETE", "/v1/login"), session, &json!({}));
        assert_eq!((ended.status, ended.text()), (204, String::new()));
        let gone = me(&gateway, session);
        assert_eq!(problem(&gone), (401, "admin_token_invalid".to_owned()));
    }
    assert_eq!(me(&gateway, OPERATOR).json()["session"], Value::Null);
}

#[test]
fn a_code_logs_in_once_with_the_role_of_its_maker() {
    let (_upstream, gateway) = start(TOKENS);
    for (token, role) in [(OPERATOR, "operate"), (READER, "read")] {
        let made = code(&gateway, token).json();
        assert_eq!(made["expires_in_s"], 60);
        let credential = json!({ "code": made["code"] });
        let session = session(&gateway, &credential);
        assert_eq!(me(&gateway, &session).json()["role"], role);
        let again = log_in(&gateway, &credential);
        assert_eq!(problem(&again), (401, "login_invalid".to_owned()));
        // A session that made codes would have no end.
        let by_session = code(&gateway, &session);
        assert_eq!(problem(&by_session), (403, "login_invalid".to_owned()));
    }
    assert_eq!(code(&gateway, "").status, 401);
    for both in [json!({ "code": "a", "token": OPERATOR }), json!({}), json!({ "user": "a" })] {
        assert_eq!(problem(&log_in(&gateway, &both)), (400, "request_invalid".to_owned()));
    }
}

#[test]
fn a_session_of_a_dashboard_that_only_reads_only_reads() {
    let (_upstream, gateway) = start(&format!("{TOKENS}dashboard = \"read\"\n"));
    let answer = log_in(&gateway, &json!({ "token": OPERATOR })).json();
    assert_eq!(answer["role"], "read");
    let session = answer["session"].as_str().expect("a session");
    assert_eq!(me(&gateway, session).json()["role"], "read");
    let refused = send(&gateway, PURGE, session, &json!({ "all": true }));
    assert_eq!(problem(&refused), (403, "admin_read_only".to_owned()));
    assert_eq!(send(&gateway, PURGE, OPERATOR, &json!({ "all": true })).status, 200);
}

#[test]
fn the_sixth_failure_in_a_minute_is_refused_whatever_it_is() {
    let (_upstream, gateway) = start(TOKENS);
    let made = code(&gateway, OPERATOR).json()["code"].as_str().expect("a code").to_owned();
    let wrong = [
        json!({ "token": "operator-0123456788" }),
        json!({ "token": "" }),
        json!({ "code": "operator-0123456789" }),
        json!({ "code": "" }),
        json!({ "token": "operator-01234567890" }),
    ];
    for credential in &wrong {
        let reply = log_in(&gateway, credential);
        assert_eq!(problem(&reply), (401, "login_invalid".to_owned()), "{credential}");
    }
    for credential in [&wrong[0], &json!({ "token": OPERATOR })] {
        let reply = log_in(&gateway, credential);
        assert_eq!(problem(&reply), (429, "login_throttled".to_owned()), "{credential}");
        let wait = reply.header("retry-after").and_then(|wait| wait.parse::<u32>().ok());
        assert!(wait.is_some_and(|wait| (1..=60).contains(&wait)), "{reply:?}");
    }
    let reply = log_in(&gateway, &json!({ "code": made }));
    assert_eq!(reply.status, 200, "nobody guesses a code: {reply:?}");
    let again = log_in(&gateway, &json!({ "code": made }));
    assert_eq!(problem(&again), (429, "login_throttled".to_owned()), "it was good once");
    // Nobody guesses these, and a wrong script must not lock out the right one beside it.
    assert_eq!(me(&gateway, OPERATOR).status, 200);
}

#[test]
fn a_log_in_leaves_a_line_that_opens_nothing() {
    let (_upstream, gateway) = start(TOKENS);
    let one = session(&gateway, &json!({ "token": OPERATOR }));
    send(&gateway, PURGE, &one, &json!({ "all": true }));
    log_in(&gateway, &json!({ "token": "wrong-0123456789" }));
    let made = code(&gateway, OPERATOR).json()["code"].as_str().expect("a code").to_owned();
    send(&gateway, ("DELETE", "/v1/login"), &one, &json!({}));
    let lines = || {
        let said = gateway.stderr();
        let lines = said.lines().filter(|line| line.contains(" audit "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    eventually("all are told", || lines().len() == 5);
    let said = lines();
    let name = said[0].split("session=\"").nth(1).and_then(|rest| rest.split('"').next());
    let name = format!("by=session:{}", name.expect("a session"));
    for (line, parts) in said.iter().zip([
        ["by=login", "POST /v1/login", "status=200"],
        [&name, "POST /v1/cache/purge", "status=200"],
        ["by=login", "code=\"login_invalid\"", "status=401"],
        ["by=admin.token", "POST /v1/login/code", "status=200"],
        [&name, "DELETE /v1/login", "status=204"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{parts:?}: {line}");
    }
    let said = gateway.stderr();
    for secret in [OPERATOR, &one, &made, "wrong-0123456789", "sha256:"] {
        assert!(!said.contains(secret), "{secret}: {said}");
    }
}

fn link(gateway: &Gateway, folder: &Folder, token: Option<&str>) -> Refused {
    let url = format!("http://{}", gateway.admin);
    let mut arguments = vec!["dashboard", "--admin", &url];
    if let Some(file) = token {
        arguments.extend(["--admin-token", file]);
    }
    run(folder, &arguments)
}

#[test]
fn a_command_prints_where_the_dashboard_is() {
    let folder = Folder::new();
    folder.write("operator", OPERATOR);
    let (_one, closed) = start(TOKENS);
    let printed = link(&closed, &folder, Some("file:operator"));
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let code =
        printed.stdout.trim_end().strip_prefix(&format!("http://{}/ui/#code=", closed.admin));
    let code = code.unwrap_or_else(|| panic!("{}", printed.stdout));
    let session = session(&closed, &json!({ "code": code }));
    assert_eq!(me(&closed, &session).json()["role"], "operate");
    let unknown = link(&closed, &folder, None);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("admin token"), "{unknown:?}");
    let (_two, open) = start("");
    let printed = link(&open, &folder, None);
    assert_eq!(printed.stdout, format!("http://{}/ui/\n", open.admin));
    let (_three, off) = start("[admin]\ndashboard = \"off\"\n");
    let refused = link(&off, &folder, None);
    assert!(refused.code == Some(1) && refused.stderr.contains("admin.dashboard"), "{refused:?}");
}

#[test]
fn what_is_configured_of_readers_must_make_sense() {
    for (lines, what) in [
        ("read_token = \"reader-0123456789\"", "with no token at all"),
        ("token = \"a-0123456789012345\"\nread_token = \"a-0123456789012345\"", "could operate"),
        ("dashboard = \"on\"", "\"operate\" or \"read\" or \"off\""),
        ("origins = [\"https://*.test\"]", "every page of a domain"),
        ("origins = [\"ops.test\"]", "is no origin"),
    ] {
        let refused = Gateway::try_start(&format!("[admin]\n{lines}\n"));
        assert!(refused.stderr.contains(what), "{lines}: {}", refused.stderr);
        assert_eq!(refused.code, Some(2), "{lines}");
    }
}
