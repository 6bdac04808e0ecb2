//! What upstreams answer to a log-in, good and hostile; and tokens in place of a session.

use std::io::Write;

use serde_json::{Value, json};

use super::{Browser, House, config, cookie, log_in, shop};
use crate::auth::code;
use crate::support::{Client, Folder, Gateway, Redis, Upstream, run};

/// An upstream that answers `/login` with these bytes, and a gateway before it.
fn answering(answer: Vec<u8>) -> (Redis, Upstream, Gateway) {
    let redis = Redis::start();
    let upstream = Upstream::with(move |_, connection| {
        let _ = connection.write_all(&answer);
    });
    let gateway = Gateway::start(&config(&redis.url(), &upstream, "", ""));
    (redis, upstream, gateway)
}

fn message(head: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

const JSON: &str = "200 OK\r\nContent-Type: application/json";

#[test]
fn an_answer_that_cannot_be_used_logs_nobody_in() {
    let huge = format!("{{\"user\":{{\"id\":\"42\"}},\"x\":\"{}\"}}", "x".repeat(64 << 10));
    let deep =
        format!("{{\"user\":{{\"id\":\"42\"}},\"x\":{}1{}}}", "[".repeat(500), "]".repeat(500));
    let long = format!("{{\"user\":{{\"id\":\"{}\"}}}}", "x".repeat(513));
    let wide = format!("{{\"user\":{{\"id\":\"1\",\"role\":\"{}\"}}}}", "x".repeat(9000));
    let texts: [&[u8]; 20] = [
        b"",
        b"ok",
        b"null",
        b"[]",
        b"{}",
        b"{\"user\":{}}",
        b"{\"user\":{\"id\":{\"$ne\":null}}}",
        b"{\"user\":{\"id\":[\"42\"]}}",
        b"{\"user\":{\"id\":\"\"}}",
        b"{\"user\":{\"id\":null}}",
        b"{\"user\":{\"id\":true}}",
        b"{\"user\":{\"id\":4.2}}",
        b"{\"user\":{\"id\":\"4\\u00002\"}}",
        b"{\"user\":{\"id\":\"1\",\"id\":\"2\"}}",
        b"{\"user\":{\"id\":\"1\"},\"user\":{\"id\":\"2\"}}",
        b"{\"user\":{\"id\":\"\xff\"}}",
        huge.as_bytes(),
        deep.as_bytes(),
        long.as_bytes(),
        wide.as_bytes(),
    ];
    let mut answers: Vec<Vec<u8>> = texts.iter().map(|text| message(JSON, text)).collect();
    let good = br#"{"user":{"id":"42"}}"#;
    answers.push(message("200 OK\r\nContent-Type: text/html", good));
    answers.push(message("200 OK", good));
    answers.push(message(&format!("{JSON}\r\nContent-Encoding: gzip"), good));
    // Its length is said of no one, and it is cut off.
    answers
        .push(format!("HTTP/1.1 {JSON}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{{\"use").into());
    for answer in answers {
        let shown = String::from_utf8_lossy(&answer).chars().take(200).collect::<String>();
        let ends = answer.ends_with(b"{\"use");
        let redis = Redis::start();
        let upstream = Upstream::with(move |_, connection| {
            let _ = connection.write_all(&answer);
            if ends {
                let _ = connection.shutdown(std::net::Shutdown::Both);
            }
        });
        let gateway = Gateway::start(&config(&redis.url(), &upstream, "", ""));
        let reply = log_in(&gateway, &json!({})).send();
        assert_eq!((reply.status, &*code(&reply)), (502, "login_answer_invalid"), "{shown}");
        assert_eq!(cookie(&reply), None, "{shown}");
        assert_eq!(redis.cli(&["KEYS", "app:session*"]), "", "{shown}");
    }
}

#[test]
fn a_body_without_an_end_is_not_waited_for() {
    // Chunk after chunk, for as long as somebody reads.
    let upstream = Upstream::with(|_, connection| {
        let head = format!("HTTP/1.1 {JSON}\r\nTransfer-Encoding: chunked\r\n\r\n");
        let _ = connection.write_all(head.as_bytes());
        let chunk = format!("400\r\n{}\r\n", " ".repeat(1024));
        while connection.write_all(chunk.as_bytes()).is_ok() {}
    });
    let redis = Redis::start();
    let gateway = Gateway::start(&config(&redis.url(), &upstream, "", ""));
    let reply = log_in(&gateway, &json!({})).send();
    assert_eq!((reply.status, &*code(&reply)), (502, "login_answer_invalid"));
}

#[test]
fn another_status_passes_as_it_is() {
    for status in ["401 Unauthorized", "400 Bad Request", "202 Accepted", "302 Found", "500 No"] {
        let head = format!("{status}\r\nContent-Type: application/json\r\nX-A: b");
        let (redis, _upstream, gateway) = answering(message(&head, br#"{"user":{"id":"42"}}"#));
        let reply = log_in(&gateway, &json!({})).send();
        assert!(status.starts_with(&reply.status.to_string()), "{status}: {}", reply.status);
        assert_eq!((reply.header("x-a"), cookie(&reply)), (Some("b"), None));
        assert_eq!(reply.text(), r#"{"user":{"id":"42"}}"#);
        assert_eq!(redis.cli(&["KEYS", "app:session*"]), "");
    }
    let head = "201 Created\r\nContent-Type: application/json";
    let (_redis, _upstream, gateway) = answering(message(head, br#"{"user":{"id":42}}"#));
    let reply = log_in(&gateway, &json!({})).send();
    assert_eq!(reply.status, 201);
    assert!(cookie(&reply).is_some());
}

#[test]
fn an_upstream_is_asked_for_an_answer_that_can_be_read() {
    let house = House::start();
    let answer = json!({ "user": { "id": "42" } });
    let reply = log_in(&house.gateway, &answer)
        .header("Accept-Encoding", "gzip, br")
        .header("Range", "bytes=0-1")
        .header("If-None-Match", "\"a\"")
        .send();
    assert_eq!(reply.status, 200);
    let seen = house.upstream.only();
    for name in ["accept-encoding", "range", "if-none-match"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[test]
fn members_that_the_gateway_says_itself_are_nobodys() {
    for (name, gives) in [("sub", "session = true"), ("created_at", "session = true")] {
        let more = format!(
            "[routes.x]\npath = \"/x\"\nupstream = \"shop\"\n\
             issues = {{ {gives}, sub = \"/id\", claims = {{ {name} = \"/x\" }} }}\n"
        );
        let upstream = shop();
        let refused = Gateway::try_start(&super::in_memory(&upstream, "", &more));
        assert!(refused.stderr.contains("routes.x.issues.claims"), "{}", refused.stderr);
    }
}

/// A gateway that issues tokens at its log-in.
fn signing(redis: &Redis, upstream: &Upstream) -> Gateway {
    let folder = Folder::new();
    assert_eq!(run(&folder, &["signing-key", "a.pem"]).code, Some(0));
    let more = "[signers.main]\nissuer = \"https://gw.test\"\nkeys = [\"file:a.pem\"]\n\
                tokens = { audience = [\"shop\"] }\n\
                [auth.own]\nsigner = \"main\"\naudience = [\"shop\"]\n\
                claims_to_headers = { x-own = \"role\" }\n\
                [routes.private]\npath = \"/private\"\nupstream = \"shop\"\nauth = \"own\"\n\
                [routes.token]\npath = \"/token\"\nanswers = \"refresh\"\n";
    // The log-in of the other tests, with tokens.
    let config = config(&redis.url(), upstream, "", more).replace(
        "issues = { session = true, sub = \"/user/id\", claims = { role = \"/user/role\", \
         sid = \"/sid\" } }",
        "issues = { signer = \"main\", sub = \"/user/id\", claims = { role = \"/user/role\" } }",
    );
    Gateway::start_in(folder, &config)
}

#[test]
fn a_log_in_may_give_tokens() {
    let (redis, upstream) = (Redis::start(), shop());
    let gateway = signing(&redis, &upstream);
    let answer = json!({ "user": { "id": 42, "role": "user", "secret": "of the upstream" } });
    // An app has no origin of the site, and a token is no cookie.
    let reply = log_in(&gateway, &answer).header("Origin", "app://shop").send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.headers_named("set-cookie").len(), 0);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let told: Value = reply.json();
    assert!(!told.to_string().contains("secret"), "{told}");
    let access = told["access_token"].as_str().expect("a token");
    assert_eq!(told["token_type"], "Bearer");
    assert_eq!(told["expires_in"], 900);
    upstream.forget();
    let reply = Client::get(gateway.public, "/private").bearer(access).send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(upstream.only().header("x-own"), Some("user"));
    let refresh = told["refresh_token"].as_str().expect("a token");
    let reply = Client::request(gateway.public, "POST", "/token")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(format!("grant_type=refresh_token&refresh_token={refresh}"))
        .send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    for body in ["{}", "[]", "{\"user\":{\"id\":{}}}"] {
        let reply = Client::request(gateway.public, "POST", "/login").body(body).send();
        assert_eq!((reply.status, &*code(&reply)), (502, "login_answer_invalid"), "{body}");
    }
}

#[test]
fn a_second_log_in_with_the_same_cookie_begins_at_now() {
    let house = House::start();
    let first = house.login("42", "user");
    let before = house.stored(&first)["created_at"].as_u64().expect("a time");
    let answer = json!({ "user": { "id": "42", "role": "admin" } });
    let reply = log_in(&house.gateway, &answer).header("Cookie", first.cookie()).send();
    let second = Browser::of(&reply);
    let stored = house.stored(&second);
    assert!(stored["created_at"].as_u64().expect("a time") >= before);
    assert_eq!(stored["role"], "admin");
    assert_eq!(house.get("/admin", &second).status, 200);
}
