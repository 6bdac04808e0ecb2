//! What is counted of credentials, sessions and operators: an attack leaves a graph.

use serde_json::json;

use crate::support::{
    AUTH, Client, Exposition, Gateway, Redis, Session, Upstream, claims, operate, response, token,
};

const CONFIG: &str = r#"
[session]
id_from = ["cookie:sid"]
header = "x-session"
idle_timeout = "30m"
absolute_timeout = "1h"
suspended_field = "suspended"
[auth.partners]
from = ["header:x-api-key"]
api_keys = true
[auth.far]
from = ["header:x-far"]
algorithms = ["ES256"]
jwks_url = "http://127.0.0.1:9/keys"
[routes.tokens]
path = "/tokens"
upstream = "shop"
auth = "users"
[routes.strict]
path = "/strict"
upstream = "shop"
auth = "users"
require = { role = ["admin"] }
[routes.keys]
path = "/keys"
upstream = "shop"
auth = "partners"
[routes.far]
path = "/far"
upstream = "shop"
auth = "far"
[routes.sessions]
path = "/sessions"
upstream = "shop"
session = "required"
"#;

fn start() -> (Redis, Upstream, Gateway) {
    let (redis, upstream) = (Redis::start(), Upstream::replying(response("200 OK", "hello")));
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
    let gateway = Gateway::start(&format!("{store}{AUTH}{}{CONFIG}", upstream.table("shop")));
    (redis, upstream, gateway)
}

fn scrape(gateway: &Gateway) -> Exposition {
    Exposition::text(&Client::get(gateway.admin, "/metrics").send().text())
}

fn assert_counts(gateway: &Gateway, family: &str, label: &str, expected: &[(&str, f64)]) {
    let name = format!("portcullis_{family}_total");
    let series = scrape(gateway).series;
    let of_family = series.iter().filter(|((found, _), value)| *found == name && **value > 0.0);
    let mut counted: Vec<(&str, f64)> = of_family
        .filter_map(|((_, labels), value)| {
            Some((labels.iter().find(|(name, _)| name == label)?.1.as_str(), *value))
        })
        .collect();
    counted.sort_by_key(|(word, _)| *word);
    assert_eq!(counted, expected, "{family}");
}

#[test]
fn every_verdict_on_a_token_is_counted_once() {
    let (_redis, _upstream, gateway) = start();
    assert!(!scrape(&gateway).mentions("auth", "users"), "nobody has come yet");
    let mut client = Session::open(gateway.public);
    let mut send = |path: &str, token: &str| client.get(path).bearer(token).send().status;
    let good = token(claims("42"));
    assert_eq!([send("/tokens", &good), send("/tokens", &good)], [200, 200]);
    assert_eq!(send("/strict", &good), 403, "it is good, and does not suffice");
    let mut expired = claims("42");
    expired["exp"] = json!(1_700_000_000);
    let mut other = claims("42");
    other["aud"] = json!("elsewhere");
    let (head, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", "A".repeat(43));
    for bad in [&token(expired), &token(other), &forged, "nonsense"] {
        assert_eq!(send("/tokens", bad), 401, "{bad}");
    }
    let body = format!("{{\"token\": \"{good}\"}}");
    assert_eq!(operate(&gateway, "POST", "/v1/revocations", &body).status, 201);
    assert_eq!(send("/tokens", &good), 401);
    let payload = good.split('.').nth(1).unwrap();
    let far = format!("eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.{payload}.{}", "A".repeat(86));
    let reply = Client::get(gateway.public, "/far").header("x-far", &far).send();
    assert_eq!(reply.status, 503);
    // Who only asks what would happen counts nothing.
    let ask =
        json!({ "path": "/tokens", "headers": { "authorization": format!("Bearer {forged}") }});
    assert_eq!(operate(&gateway, "POST", "/v1/explain", &ask.to_string()).status, 200);
    let read = scrape(&gateway);
    for (auth, result, count) in [
        ("users", "verified", 1.0),
        ("users", "remembered", 3.0),
        ("users", "expired", 1.0),
        ("users", "claims", 2.0),
        ("users", "signature", 1.0),
        ("users", "revoked", 1.0),
        ("users", "unknown_key", 0.0),
        ("far", "unknown_key", 1.0),
    ] {
        let labels = [("auth", auth), ("result", result)];
        assert_eq!(read.value("portcullis_tokens_total", &labels), Some(count), "{auth} {result}");
    }
}

#[test]
fn every_verdict_on_an_api_key_is_counted() {
    let (_redis, _upstream, gateway) = start();
    let made = operate(&gateway, "POST", "/v1/keys", r#"{"owner": "acme"}"#).json();
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let send =
        |key: &str| Client::get(gateway.public, "/keys").header("x-api-key", key).send().status;
    assert_eq!(
        [send(key), send(key), send("imported-unknown"), send("pck_x")],
        [200, 200, 401, 401]
    );
    assert_eq!(operate(&gateway, "DELETE", &format!("/v1/keys/{id}"), "").status, 200);
    assert_eq!([send(key), send(key)], [401, 401]);
    assert_eq!(Client::get(gateway.public, "/keys").send().status, 401, "none is none");
    let expected = [
        ("mistyped", 1.0),
        // Remembered when it is found to be revoked, too.
        ("remembered", 2.0),
        ("revoked", 1.0),
        ("unknown", 2.0),
        ("verified", 1.0),
    ];
    assert_counts(&gateway, "api_keys", "result", &expected);
}

#[test]
fn what_becomes_of_a_session_is_counted() {
    let (redis, _upstream, gateway) = start();
    let send = |id: &str| {
        let request = Client::get(gateway.public, "/sessions");
        let request =
            if id.is_empty() { request } else { request.header("cookie", format!("sid={id}")) };
        request.send().status
    };
    let now = jiff::Timestamp::now().as_second();
    for (id, session) in [
        ("good", json!({ "created_at": now })),
        ("old", json!({ "created_at": now - 7200 })),
        ("held", json!({ "created_at": now, "suspended": true })),
        ("odd", json!({ "user": 1 })),
    ] {
        redis.cli(&["SET", &format!("app:session:{id}"), &session.to_string()]);
    }
    let statuses = ["good", "good", "old", "held", "odd", "guess", ""].map(send);
    assert_eq!(statuses[..2], [200, 200]);
    assert!(statuses[2..].iter().all(|status| *status >= 400), "{statuses:?}");
    let expected = [
        ("attached", 2.0),
        ("ended", 1.0),
        ("expired", 1.0),
        ("missing", 1.0),
        ("suspended", 1.0),
        ("unreadable", 1.0),
    ];
    assert_counts(&gateway, "sessions", "outcome", &expected);
}

#[test]
fn what_operators_do_is_counted_by_what_came_of_it() {
    let (_redis, _upstream, gateway) = start();
    for (method, path, body) in [
        ("POST", "/v1/revocations", r#"{"jti": "a"}"#),
        ("POST", "/v1/revocations", r#"{"sid": "a"}"#),
        ("POST", "/v1/revocations", r#"{"sub": "a"}"#),
        ("POST", "/v1/revocations", r#"{"key_id": "a"}"#),
        ("POST", "/v1/revocations", r#"{"what": "a"}"#),
        ("DELETE", "/v1/users/42/sessions", ""),
        ("POST", "/v1/cache/purge", r#"{"url": "http://shop.test/a"}"#),
        ("POST", "/v1/cache/purge", r#"{"path": "/a/*"}"#),
        ("POST", "/v1/cache/purge", r#"{"prefix": "/a"}"#),
        ("POST", "/v1/cache/purge", r#"{"tag": "a"}"#),
        ("POST", "/v1/cache/purge", r#"{"host": "shop.test"}"#),
        ("POST", "/v1/cache/purge", r#"{"route": "keys"}"#),
        ("POST", "/v1/cache/purge", r#"{"group": "a", "origin": "http://shop.test"}"#),
        ("POST", "/v1/cache/purge", r#"{"all": true}"#),
        ("POST", "/v1/cache/purge", r#"{"all": false}"#),
        ("POST", "/v1/made/up", "{}"),
        ("GET", "/v1/status", ""),
    ] {
        operate(&gateway, method, path, body);
    }
    let kinds = [("jti", 1.0), ("key_id", 1.0), ("sid", 1.0), ("sub", 2.0)];
    assert_counts(&gateway, "revocations", "kind", &kinds);
    let scopes = ["all", "group", "host", "path", "route", "tag", "url"];
    let scopes = scopes.map(|scope| (scope, if scope == "path" { 2.0 } else { 1.0 }));
    assert_counts(&gateway, "cache_purges", "scope", &scopes);
    let read = scrape(&gateway);
    for (operation, result, count) in [
        ("POST /v1/revocations", "done", 4.0),
        ("POST /v1/revocations", "refused", 1.0),
        ("DELETE /v1/users/{sub}/sessions", "done", 1.0),
        ("POST /v1/cache/purge", "done", 8.0),
        ("POST /v1/cache/purge", "refused", 1.0),
        ("unknown", "refused", 1.0),
    ] {
        let labels = [("operation", operation), ("result", result)];
        let counted = read.value("portcullis_admin_operations_total", &labels);
        assert_eq!(counted, Some(count), "{operation} {result}");
    }
    assert!(!read.mentions("operation", "GET /v1/status"), "who only looks is not counted");
}
