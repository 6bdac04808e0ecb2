//! Every operation that changes something leaves one line among the diagnostics: who, what, and
//! what came of it; also where it was refused.

use std::io::Write as _;

use crate::support::{
    AUTH, Client, Gateway, Redis, Reply, Upstream, claims, eventually, operate, response, token,
};

const CONFIG: &str = r#"
[session]
id_from = ["cookie:sid"]
idle_timeout = "30m"
[auth.partners]
from = ["header:x-api-key"]
api_keys = true
[limits.api]
key = ["claim:sub"]
allow = ["9/1h"]
[routes.all]
path = "/*"
upstream = "shop"
auth = "users"
session = true
limits = ["api"]
[routes.warm]
path = "/warm"
upstream = "shop"
cache = { ttl = "1h", shared = true, warm = { urls = ["/warm"], host = "shop.test" } }
[routes.keys]
path = "/keys"
upstream = "shop"
auth = "partners"
"#;

fn start(store: &str, more: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let config = format!("{store}{AUTH}{}{CONFIG}{more}", upstream.table("shop"));
    let gateway = Gateway::start(&config);
    // An operation that warms is refused as long as the first warming goes on.
    eventually("the first warming ends", || gateway.stderr().contains("warmed route"));
    (upstream, gateway)
}

fn lines(gateway: &Gateway) -> Vec<String> {
    let all = gateway.stderr();
    let audits = all.lines().filter(|line| line.contains(" audit "));
    audits.map(str::to_owned).collect()
}

/// The last line, once there are `count`.
fn line(gateway: &Gateway, count: usize) -> String {
    eventually("every operation has its line", || lines(gateway).len() >= count);
    let mut lines = lines(gateway);
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines.pop().expect("a line")
}

#[test]
fn every_operation_leaves_one_line_on_both_stores() {
    let redis = Redis::start();
    let stores = [String::new(), format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url())];
    for store in stores {
        let (_upstream, gateway) = start(&store, "");
        let key = operate(&gateway, "POST", "/v1/keys", r#"{"owner": "acme", "tier": "gold"}"#);
        let (key, id) = (key.json()["key"].clone(), key.json()["id"].clone());
        let (key, id) = (key.as_str().unwrap().to_owned(), id.as_str().unwrap().to_owned());
        let made = line(&gateway, 1);
        for part in ["operation=\"POST /v1/keys\"", "owner=\"acme\"", "status=201", &id] {
            assert!(made.contains(part), "{part} in {made}");
        }
        let secret = token(claims("s3cret-sub"));
        let with_token = format!("{{\"token\": \"{secret}\"}}");
        let ended = format!("/v1/keys/{id}");
        let mistaken = format!("/v1/keys/{key}");
        let mut count = 1;
        for (method, path, body, parts) in [
            ("POST", "/v1/revocations", r#"{"jti": "t1"}"#, ["jti=\"t1\"", "result=done"]),
            ("DELETE", "/v1/revocations?jti=t1", "", ["jti=\"t1\"", "status=200"]),
            ("DELETE", "/v1/revocations?jti=t1", "", ["code=\"rev", "result=refused"]),
            ("POST", "/v1/revocations", &with_token, ["token=\"sha256:", "status=201"]),
            ("POST", "/v1/revocations", r#"{"sid": "s3cret"}"#, ["sid=\"sha256:", "status=201"]),
            ("POST", "/v1/revocations", "s3cret", ["code=\"request_invalid\"", "status=400"]),
            ("PUT", "/v1/sessions/s3cret?user=42", "{}", ["user=\"42\"", "status=201"]),
            ("DELETE", "/v1/sessions/s3cret", "", ["id=\"sha256:", "result=done"]),
            ("DELETE", "/v1/sessions/s3cret", "", ["id=\"sha256:", "status=404"]),
            ("DELETE", "/v1/users/42/sessions", "", ["user=\"42\"", "result=done"]),
            ("DELETE", &ended, "", [&*id, "result=done"]),
            ("DELETE", &mistaken, "", ["id=\"sha256:", "result=refused"]),
            ("POST", "/v1/cache/purge", r#"{"path": "/a/*"}"#, ["path=\"/a/*\"", "purged=\""]),
            (
                "POST",
                "/v1/cache/purge",
                r#"{"all": true, "soft": true}"#,
                ["soft=\"true\"", "all=\""],
            ),
            ("POST", "/v1/cache/warm", r#"{"route": "warm"}"#, ["route=\"warm\"", "responses=\""]),
            ("DELETE", "/v1/limits?policy=api&key=claim:sub=42", "", ["policy=\"api\"", "sub=42"]),
            ("PATCH", "/v1/revocations", "", ["operation=\"PATCH /v1/rev", "status=405"]),
            ("POST", "/v1/nothing", "{}", ["operation=\"POST /v1/…\"", "status=404"]),
            ("POST", "/v1/status", "{}", ["operation=\"POST /v1/status\"", "status=405"]),
        ] {
            operate(&gateway, method, path, body);
            count += 1;
            let line = line(&gateway, count);
            assert!(line.contains("from=127.0.0.1 by=loopback"), "{line}");
            assert!(parts.iter().all(|part| line.contains(part)), "{method} {path}: {line}");
        }
        for path in ["/v1/status", "/v1/sessions/a", "/v1/users/42/sessions", "/v1/limits/refused"]
        {
            operate(&gateway, "GET", path, "");
        }
        operate(&gateway, "POST", "/v1/explain", r#"{"path": "/a"}"#);
        assert_eq!(lines(&gateway).len(), count, "what only looks has no line");
        let all = gateway.stderr();
        for secret in ["s3cret", &secret, &key] {
            assert!(!all.contains(secret), "{secret} in {all}");
        }
    }
}

#[test]
fn a_certificate_is_named_alike_when_it_is_revoked_and_when_that_is_taken_back() {
    let (_upstream, gateway) = start("", "");
    let cert = "0f".repeat(32);
    let by_query = format!("/v1/revocations?cert={cert}");
    let body = format!("{{\"cert\": \"{}\"}}", ["0F"; 32].join(":"));
    for (count, (method, path, body)) in [
        ("POST", "/v1/revocations", &*body),
        ("DELETE", &by_query, ""),
        ("POST", "/v1/revocations", &body),
        ("DELETE", "/v1/revocations", &body),
    ]
    .into_iter()
    .enumerate()
    {
        operate(&gateway, method, path, body);
        let line = line(&gateway, count + 1);
        let named = format!("operation=\"{method} /v1/revocations\" cert=\"{cert}\" status=");
        assert!(line.contains(&named) && line.contains("result=done"), "{line}");
    }
}

#[test]
fn whoever_is_turned_away_has_a_line_too() {
    let (_upstream, gateway) = start("", "[admin]\ntoken = \"operators-0123456789\"\n");
    let send = |authorization: &str| -> Reply {
        Client::request(gateway.admin, "POST", "/v1/revocations")
            .header("Content-Type", "application/json")
            .header("Authorization", authorization)
            .body(r#"{"sub": "4\u000a2\u001b[31m"}"#)
            .send()
    };
    assert_eq!(send("Bearer s3cret-guess").status, 401);
    let refused = line(&gateway, 1);
    for part in ["by=nobody", "code=\"admin_token_invalid\"", "status=401 result=refused"] {
        assert!(refused.contains(part), "{refused}");
    }
    assert!(!refused.contains("guess") && !refused.contains("sub="), "it was not read: {refused}");
    assert_eq!(send("Bearer operators-0123456789").status, 201);
    let done = line(&gateway, 2);
    for part in ["by=admin.token", "sub=\"4\\n2\\u{1b}[31m\"", "status=201 result=done"] {
        assert!(done.contains(part), "{part} in {done}");
    }
    assert!(!gateway.stderr().contains("operators-0123456789"));
}

/// A token by which nothing is asked for but to look is a guess all the same.
#[test]
fn a_wrong_token_has_a_line_whatever_it_asks_for() {
    let admin = "[admin]\ntoken = \"operators-0123456789\"\nread_token = \"readers-0123456789\"\n";
    let (_upstream, gateway) = start("", admin);
    let send = |method: &str, path: &str, bearer: Option<&str>| -> Reply {
        let mut request = Client::request(gateway.admin, method, path);
        if method != "GET" {
            request = request.header("Content-Type", "application/json").body("{}");
        }
        if let Some(bearer) = bearer {
            request = request.header("Authorization", format!("Bearer {bearer}"));
        }
        request.send()
    };
    // Who sends none guesses nothing: so a dashboard finds out that it is to log in.
    assert_eq!(send("GET", "/v1/status", None).status, 401);
    let ended = "0123456789abcdefghijklmnopqrstuvwxyz_-ABCDE";
    for (count, (method, path, bearer, parts)) in [
        ("GET", "/v1/status", "s3cret-1", ["by=nobody", "operation=\"GET /v1/status\""]),
        ("GET", "/v1/sessions/phone", "s3cret-2", ["by=nobody", "id=\"sha256:"]),
        ("POST", "/v1/explain", "s3cret-3", ["by=nobody", "operation=\"POST /v1/explain\""]),
        ("GET", "/v1/nothing", "s3cret-4", ["by=nobody", "operation=\"GET /v1/…\""]),
        ("GET", "/v1/me", ended, ["by=nobody", "operation=\"GET /v1/me\""]),
        ("POST", "/v1/cache/purge", "s3cret-5", ["by=nobody", "code=\"admin_token_invalid\""]),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(send(method, path, Some(bearer)).status, 401, "{path}");
        let line = line(&gateway, count + 1);
        assert!(parts.iter().all(|part| line.contains(part)), "{parts:?}: {line}");
        assert!(line.contains("status=401 result=refused"), "{line}");
    }
    // Five of an address may be wrong, by whichever way they come; a session is no guess.
    let slowed = send("GET", "/v1/status", Some("s3cret-6"));
    assert_eq!((slowed.status, slowed.header("retry-after").is_some()), (429, true));
    assert!(line(&gateway, 7).contains("code=\"login_throttled\" status=429 result=refused"));
    let login = Client::request(gateway.admin, "POST", "/v1/login")
        .header("Content-Type", "application/json")
        .body(r#"{"token": "operators-0123456789"}"#)
        .send();
    assert_eq!(login.status, 429, "{}", login.text());
    // Whoever has the token is let in beside them.
    assert_eq!(send("GET", "/v1/status", Some("operators-0123456789")).status, 200);
    assert_eq!(send("GET", "/v1/me", Some(ended)).status, 401);
    assert!(!gateway.stderr().contains("s3cret"), "{}", gateway.stderr());
    // Who is known, and may not, is named.
    assert_eq!(send("POST", "/v1/cache/purge", Some("readers-0123456789")).status, 403);
    let refused = line(&gateway, 10);
    for part in ["by=admin.read_token", "code=\"admin_read_only\"", "status=403 result=refused"] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
}

/// A page of another site may have a token that somebody has pasted into it: the line says whose.
#[test]
fn who_is_refused_for_where_it_comes_from_is_named_all_the_same() {
    let admin = "[admin]\ntoken = \"operators-0123456789\"\nread_token = \"readers-0123456789\"\n";
    let (_upstream, gateway) = start("", admin);
    for (count, (bearer, field, by)) in [
        ("operators-0123456789", ("Origin", "http://evil.test"), "by=admin.token"),
        ("operators-0123456789", ("Content-Type", "text/plain"), "by=admin.token"),
        ("readers-0123456789", ("Sec-Fetch-Site", "cross-site"), "by=admin.read_token"),
        ("s3cret-guess", ("Origin", "http://evil.test"), "by=nobody"),
        ("", ("Origin", "http://evil.test"), "by=nobody"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut request = Client::request(gateway.admin, "POST", "/v1/cache/purge");
        if field.0 != "Content-Type" {
            request = request.header("Content-Type", "application/json");
        }
        let request = request.header(field.0, field.1).bearer(bearer);
        assert_eq!(request.body(r#"{"all": true}"#).send().status, 403, "{bearer} {field:?}");
        let line = line(&gateway, count + 1);
        for part in [by, "code=\"cross_site_refused\"", "status=403 result=refused"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}

#[test]
fn a_store_that_is_away_and_a_client_that_leaves_are_told_of() {
    let mut redis = Redis::start();
    let (_upstream, gateway) = start(&format!("[store]\nurl = \"{}\"\n", redis.url()), "");
    redis.kill();
    let body = r#"{"jti": "t1"}"#;
    assert_eq!(operate(&gateway, "POST", "/v1/revocations", body).status, 503);
    let failed = line(&gateway, 1);
    for part in ["jti=\"t1\"", "code=\"store_unreachable\"", "status=503 result=failed"] {
        assert!(failed.contains(part), "{failed}");
    }
    let mut stream = std::net::TcpStream::connect(gateway.admin).unwrap();
    let head = "POST /v1/revocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\
                Content-Type: application/json\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    drop(stream);
    let left = line(&gateway, 2);
    assert!(left.contains("operation=\"POST /v1/revocations\""), "{left}");
    assert!(!left.contains("result=done"), "{left}");
}

#[test]
fn a_reload_is_an_operation() {
    let (_upstream, gateway) = start("", "");
    gateway.rewrite("nonsense");
    gateway.signal("HUP");
    assert!(line(&gateway, 1).contains("by=SIGHUP operation=\"reload\" result=refused"));
}
