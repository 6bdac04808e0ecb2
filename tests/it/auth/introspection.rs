//! Opaque tokens (RFC 7662): what the server that is asked says, how often it is asked, and what
//! holds while it does not answer.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{code, line_with_cause, upstream};
use crate::support::{
    AUTH, Client, Folder, Gateway, Issuer, Redis, Reply, Upstream, eventually, operate, response,
};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What a server says of tokens, and whether it is let say it.
#[derive(Default)]
struct Knows {
    answers: Mutex<BTreeMap<String, String>>,
    held: Mutex<bool>,
    released: Condvar,
}

/// An authorization server; it says of tokens that nobody told it of that they are not active.
struct Server {
    knows: Arc<Knows>,
    upstream: Upstream,
}

impl Server {
    fn start() -> Self {
        let knows = Arc::new(Knows::default());
        let shared = Arc::clone(&knows);
        let upstream = Upstream::with(move |request, connection| {
            let held = shared.held.lock().unwrap();
            drop(shared.released.wait_while(held, |held| *held).unwrap());
            let form = request.text();
            let token = form.strip_prefix("token=").and_then(|rest| rest.split('&').next());
            let known = shared.answers.lock().unwrap().get(token.unwrap_or_default()).cloned();
            let inactive = || response("200 OK", "{\"active\":false}");
            let _ = connection.write_all(known.unwrap_or_else(inactive).as_bytes());
        });
        Self { knows, upstream }
    }

    /// Says this of a token from now on.
    fn say(&self, token: &str, body: &Value) {
        self.answer(token, response("200 OK\r\nContent-Type: application/json", &body.to_string()));
    }

    fn answer(&self, token: &str, whole: String) {
        self.knows.answers.lock().unwrap().insert(token.to_owned(), whole);
    }

    fn hold(&self) {
        *self.knows.held.lock().unwrap() = true;
    }

    fn release(&self) {
        *self.knows.held.lock().unwrap() = false;
        self.knows.released.notify_all();
    }

    fn asked(&self) -> usize {
        self.upstream.seen()
    }
}

fn active(changes: Value) -> Value {
    let mut all = json!({
        "active": true, "sub": "42", "aud": "shop", "iss": "https://login.test",
        "jti": "o-1", "sid": "s-1", "iat": now(), "exp": now() + 3600, "role": "admin",
    });
    let Value::Object(changes) = changes else { panic!("members are an object") };
    for (name, value) in changes {
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().remove(&name)),
            value => all[name] = value,
        }
    }
    all
}

/// `bounds` are lines of `[auth.opaque.introspect]`.
fn config(url: &str, upstream: &Upstream, bounds: &str) -> String {
    let upstream = upstream.table("shop");
    format!(
        r#"
        [auth.opaque]
        issuer = "https://login.test"
        audience = ["shop"]
        leeway = "0s"
        claims_to_headers = {{ x-user-id = "sub" }}
        [auth.opaque.introspect]
        url = "{url}"
        client_id = "gate:way"
        client_secret = "s3cret/+"
        {bounds}
        {upstream}
        [routes.private]
        path = "/private"
        upstream = "shop"
        auth = "opaque"
        [routes.staff]
        path = "/staff"
        upstream = "shop"
        auth = "opaque"
        require = {{ role = ["admin"] }}
        "#
    )
}

fn start(server: &Server, upstream: &Upstream, bounds: &str) -> Gateway {
    Gateway::start(&config(&format!("{}/introspect", server.upstream.url()), upstream, bounds))
}

fn ask(gateway: &Gateway, token: &str) -> Reply {
    Client::get(gateway.public, "/private").bearer(token).send()
}

fn told(reply: &Reply) -> (u16, String) {
    (reply.status, if reply.status == 200 { String::new() } else { code(reply) })
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn a_server_says_what_an_opaque_token_is_worth_and_is_asked_once() {
    let (server, upstream) = (Server::start(), upstream());
    server.say("op4que-._~%2B%2F%3D", &active(json!({})));
    let gateway = start(&server, &upstream, "");
    for _ in 0..3 {
        assert_eq!(told(&ask(&gateway, "op4que-._~+/=")), (200, String::new()));
    }
    assert_eq!(upstream.recorded()[0].header("x-user-id"), Some("42"));
    assert_eq!(upstream.recorded()[0].header("authorization"), None);
    let question = server.upstream.only();
    assert_eq!(question.request_line(), "POST /introspect HTTP/1.1");
    assert_eq!(question.header("content-type"), Some("application/x-www-form-urlencoded"));
    let form = "token=op4que-._~%2B%2F%3D&token_type_hint=access_token";
    assert_eq!(question.text(), form);
    let basic = format!("Basic {}", STANDARD.encode("gate%3Away:s3cret%2F%2B"));
    assert_eq!(question.header("authorization"), Some(&*basic));
    for _ in 0..3 {
        assert_eq!(told(&ask(&gateway, "unknown")), refused(401, "token_invalid"));
    }
    assert_eq!(server.asked(), 2, "a bad answer is remembered, too");
    line_with_cause(&gateway, "inactive");
    assert_eq!(Client::get(gateway.public, "/staff").bearer("op4que-._~+/=").send().status, 200);
    assert_eq!(
        told(&Client::get(gateway.public, "/private").send()),
        refused(401, "token_missing")
    );
    let malformed = Client::get(gateway.public, "/private").bearer("a b").send();
    assert_eq!(told(&malformed), refused(400, "token_malformed"));
    assert_eq!(server.asked(), 2, "what is no token is not asked about");
    assert_eq!(server.upstream.connections(), 1, "a connection is used again");
    let logged = format!("{:?}{}", gateway.access_lines(), gateway.stderr());
    for secret in ["op4que", "unknown", "s3cret"] {
        assert!(!logged.contains(secret), "{secret} is logged");
    }
}

#[test]
fn an_answer_is_judged_as_a_token_is() {
    let (server, upstream) = (Server::start(), upstream());
    let gateway = start(&server, &upstream, "");
    let key = URL_SAFE_NO_PAD.encode(digest(&SHA256, b"key"));
    for (token, changes, expected) in [
        ("a", json!({}), (200, "")),
        ("b", json!({"exp": null}), (200, "")),
        ("c", json!({"aud": ["mail", "shop"]}), (200, "")),
        ("d", json!({"aud": "mail"}), (401, "token_invalid")),
        ("e", json!({"aud": null}), (401, "token_invalid")),
        ("f", json!({"iss": "https://other.test"}), (401, "token_invalid")),
        ("g", json!({"iss": null}), (401, "token_invalid")),
        ("h", json!({"exp": now() - 1}), (401, "token_expired")),
        ("i", json!({"exp": "never"}), (401, "token_invalid")),
        ("j", json!({"nbf": now() + 60}), (401, "token_invalid")),
        ("k", json!({"sub": ""}), (401, "token_invalid")),
        ("l", json!({"sub": 42}), (401, "token_invalid")),
        ("m", json!({"active": false}), (401, "token_invalid")),
        ("n", json!({"cnf": {"jkt": key}}), (401, "dpop_missing")),
        ("o", json!({"cnf": {"x5t#S256": key}}), (401, "token_binding")),
        ("p", json!({"cnf": "x"}), (401, "token_invalid")),
        ("q", json!({"token_type": "Bearer", "typ": "at+jwt"}), (200, "")),
        ("r", json!({"token_type": "refresh_token"}), (401, "token_invalid")),
        ("s", json!({"token_use": "refresh_token"}), (401, "token_invalid")),
        ("t", json!({"token_type": "Bearer", "typ": "Offline"}), (401, "token_invalid")),
        ("u", json!({"typ": "ID"}), (401, "token_invalid")),
    ] {
        server.say(token, &active(changes.clone()));
        for _ in 0..2 {
            let (status, code) = expected;
            assert_eq!(told(&ask(&gateway, token)), refused(status, code), "{changes}");
        }
    }
    assert_eq!(server.asked(), 21, "each is remembered");
}

#[test]
fn what_is_no_answer_refuses_nobody_for_good() {
    let (server, upstream) = (Server::start(), upstream());
    let gateway = start(&server, &upstream, "cache_refused = '10m'\nmax_bytes = '1KiB'");
    let away = refused(503, "introspection_unavailable");
    let json = |body: &str| response("200 OK", body);
    for answer in [
        response("500 Internal Server Error", "{\"active\":true}"),
        response("401 Unauthorized", "{\"active\":false}"),
        response("302 Found\r\nLocation: http://127.0.0.1:1/", ""),
        json(""),
        json("[]"),
        json("<html>"),
        json("{}"),
        json("{\"active\":\"true\"}"),
        json("{\"active\":1}"),
        json("{\"active\":false,\"active\":true}"),
        response("200 OK\r\nContent-Encoding: gzip", "{\"active\":true}"),
        json(&format!("{{\"active\":true,\"x\":\"{}\"}}", "x".repeat(1024))),
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".to_owned(),
    ] {
        server.answer("t", answer.clone());
        let reply = ask(&gateway, "t");
        assert_eq!(told(&reply), away, "{answer}");
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
        assert_eq!(reply.header("www-authenticate"), None, "no token would help");
    }
    let line = line_with_cause(&gateway, "issuer");
    assert_eq!(line["bound"], "auth.opaque.introspect.url", "{line}");
    server.say("t", &active(json!({})));
    assert_eq!(ask(&gateway, "t").status, 200, "as soon as there is an answer");
    let warned = gateway.stderr().matches("cannot ask about tokens").count();
    assert_eq!(warned, 1, "one warning for all of it");
}

#[test]
fn while_the_server_is_away_what_is_remembered_counts() {
    let (server, upstream) = (Server::start(), upstream());
    let gateway = start(&server, &upstream, "timeout = '200ms'\ncache = '10m'");
    server.say("known", &active(json!({})));
    server.say("new", &active(json!({})));
    eventually("it is asked in time", || ask(&gateway, "known").status == 200);
    let away = refused(503, "introspection_unavailable");
    server.hold();
    assert_eq!(told(&ask(&gateway, "new")), away, "it is silent");
    assert_eq!(ask(&gateway, "known").status, 200);
    server.release();
    eventually("it is back", || ask(&gateway, "new").status == 200);
    server.upstream.hang_up();
    drop(server);
    assert_eq!(told(&ask(&gateway, "newer")), away, "it is gone");
    assert_eq!(ask(&gateway, "known").status, 200);
}

#[test]
fn many_requests_are_one_question_and_many_tokens_so_many_at_a_time() {
    let (server, upstream) = (Server::start(), upstream());
    let gateway = start(&server, &upstream, "in_flight = 2\ntimeout = '10s'");
    for token in ["a", "b", "c", "d"] {
        server.say(token, &active(json!({})));
    }
    server.hold();
    std::thread::scope(|scope| {
        let same: Vec<_> = (0..8).map(|_| scope.spawn(|| ask(&gateway, "a").status)).collect();
        let others = ["b", "c", "d"].map(|token| {
            let gateway = &gateway;
            scope.spawn(move || ask(gateway, token).status)
        });
        eventually("two questions are at the server", || server.upstream.connections() == 2);
        // Whoever waits holds no connection to the server.
        server.release();
        for asking in same.into_iter().chain(others) {
            assert_eq!(asking.join().unwrap(), 200);
        }
    });
    assert_eq!(server.asked(), 4, "one for each token");
    assert_eq!(server.upstream.connections(), 2, "and no more than two at a time");
}

#[test]
fn revocations_count_though_an_answer_is_remembered() {
    let (redis, server, upstream) = (Redis::start(), Server::start(), upstream());
    let store = format!("[store]\nurl = '{}'\ntimeout = '5s'\n", redis.url());
    let url = format!("{}/introspect", server.upstream.url());
    let gateway = Gateway::start(&(store + &config(&url, &upstream, "cache = '10m'")));
    let digest = digest(&SHA256, b"nameless");
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    for (token, changes, key) in [
        ("a", json!({"jti": "o-a", "sid": "s-a", "sub": "a"}), "blacklist:o-a".to_owned()),
        ("b", json!({"jti": "o-b", "sid": "s-b", "sub": "b"}), "blacklist:sid:s-b".to_owned()),
        ("c", json!({"jti": "o-c", "sid": "s-c", "sub": "c"}), "not-before:c".to_owned()),
        ("nameless", json!({"jti": null, "sid": null}), format!("blacklist:sha256:{hex}")),
    ] {
        server.say(token, &active(changes));
        assert_eq!(ask(&gateway, token).status, 200, "{token}");
        redis.cli(&["SET", &format!("app:auth:{key}"), &(now() + 10).to_string()]);
        assert_eq!(told(&ask(&gateway, token)), refused(401, "token_revoked"), "{token}");
    }
    assert_eq!(server.asked(), 4, "nobody was asked again");
    let reply = operate(&gateway, "POST", "/v1/revocations", "{\"sub\":\"e\"}");
    assert!(reply.status < 300, "{reply:?}");
    server.say("e", &active(json!({"sub": "e", "jti": "o-e", "iat": now() - 60})));
    assert_eq!(told(&ask(&gateway, "e")), refused(401, "token_revoked"), "as old as it says");
}

#[test]
fn an_answer_counts_no_longer_than_its_token() {
    let (server, upstream) = (Server::start(), upstream());
    let gateway = start(&server, &upstream, "cache = '10m'");
    server.say("short", &active(json!({"exp": now() + 5})));
    assert_eq!(ask(&gateway, "short").status, 200);
    eventually("it is over", || told(&ask(&gateway, "short")) == refused(401, "token_expired"));
    assert_eq!(server.asked(), 2, "it was asked about once more");
    let gateway = start(&server, &upstream, "cache = '0s'\ncache_refused = '0s'");
    server.upstream.forget();
    server.say("long", &active(json!({})));
    assert_eq!([ask(&gateway, "long").status, ask(&gateway, "long").status], [200, 200]);
    assert_eq!([ask(&gateway, "bad").status, ask(&gateway, "bad").status], [401, 401]);
    assert_eq!(server.asked(), 4, "nothing is remembered");
}

#[test]
fn the_server_must_prove_who_it_is() {
    let (issuer, upstream) = (Issuer::tls(&[]), upstream());
    issuer.answer(response("200 OK", &active(json!({})).to_string()));
    let url = issuer.origin();
    let folder = Folder::new();
    folder.write("ca.pem", &issuer.authority);
    let trusting = config(&url, &upstream, "ca_file = 'ca.pem'");
    let gateway = Gateway::start_in(folder, &trusting);
    assert_eq!(ask(&gateway, "t").status, 200);
    let folder = Folder::new();
    folder.write("ca.pem", &Issuer::tls(&[]).authority);
    let gateway = Gateway::start_in(folder, &trusting);
    assert_eq!(told(&ask(&gateway, "t")), refused(503, "introspection_unavailable"));
}

#[test]
fn mistakes_are_told() {
    let refusal = |text: &str| Gateway::try_start(text).stderr;
    let upstream = upstream();
    let good = config("https://login.test/introspect", &upstream, "");
    for (from, to, what) in [
        ("url = \"https", "url = \"http", "would send tokens and the client's secret in clear"),
        ("url = \"https://", "url = \"https://u:p@", "has a user or a password"),
        ("client_id = \"gate:way\"", "", "client_id"),
        ("client_secret = \"s3cret/+\"", "", "whoever could ask without it"),
        ("leeway = \"0s\"", "algorithms = [\"ES256\"]", "is about signatures"),
        ("leeway = \"0s\"", "secret = \"32-random-bytes-32-random-bytes-!\"", "several sources"),
        ("s3cret/+\"", "s3cret/+\"\ncache = '11m'", "lets a token live on"),
        ("s3cret/+\"", "s3cret/+\"\ntimeout = '31s'", "would hold up requests"),
        ("s3cret/+\"", "s3cret/+\"\nin_flight = 0", "out of range"),
    ] {
        let told = refusal(&good.replacen(from, to, 1));
        assert!(told.contains(what), "{to}: {told}");
        assert!(!told.contains("s3cret") && !told.contains("u:p"), "{told}");
    }
    let both =
        format!("{AUTH}{good}").replace("auth = \"opaque\"", "auth = [\"users\", \"opaque\"]");
    let told = refusal(&both.replace("issuer = \"https://login.test\"\n        aud", "aud"));
    assert!(told.contains("takes opaque tokens, which name no issuer"), "{told}");
}
