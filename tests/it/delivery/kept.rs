//! How what is accepted lies in the store until it is delivered: which fields, compressed, sealed.

use serde_json::json;

use super::{QUICK, accepted, bearer, code, config, metric, post, start, told, until, upstream};
use crate::support::{Client, Folder, Gateway, Redis, Upstream, eventually, operate, response};

const KEYS: [&str; 3] = [
    "1111111111111111111111111111111111111111111111111111111111111111",
    "2222222222222222222222222222222222222222222222222222222222222222",
    "MzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzM=",
];

pub(super) fn pause(gateway: &Gateway, word: &str) {
    let path = format!("/v1/queues/mail/{word}");
    assert_eq!(operate(gateway, "POST", &path, "").status, 200);
}

fn reload(gateway: &Gateway, config: &str) {
    gateway.rewrite(config);
    let reply = operate(gateway, "POST", "/v1/config/reload", "{}");
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// All that the store has of the queue's requests and answers.
fn stored(redis: &Redis) -> String {
    let keys = redis.cli(&["KEYS", "app:queue:*"]);
    let mut all = String::new();
    for key in keys.lines() {
        match redis.cli(&["TYPE", key]).as_str() {
            "string" => all += &redis.cli(&["GET", key]),
            "hash" => all += &redis.cli(&["HGETALL", key]),
            _ => {}
        }
    }
    all
}

/// Bytes of the one body that waits.
fn body_bytes(redis: &Redis) -> usize {
    let keys = redis.cli(&["KEYS", "app:queue:*:body:*"]);
    let [key] = keys.lines().collect::<Vec<_>>()[..] else { panic!("one body: {keys:?}") };
    redis.cli(&["STRLEN", key]).parse().expect("a number")
}

/// What nobody has named is not kept, whatever it means to whom.
#[test]
fn a_field_waits_in_the_store_if_it_is_named() {
    let (redis, upstream) = (Redis::start(), upstream());
    let queue = format!("{QUICK}keep_headers = [\"x-tenant\"]\norder_by = \"header:x-order-id\"\n");
    let whole = config(&redis, &upstream.url(), &queue);
    let open = "path = \"/mail\"\n";
    let rules = "request_headers = { set = { x-env = \"test\" } }\n";
    let gateway = Gateway::start(&whole.replacen(open, &format!("{open}{rules}"), 1));
    let token = bearer("u1");
    pause(&gateway, "pause");
    let mut request = Client::request(gateway.public, "POST", "/mail").bearer(&token);
    for (name, value) in [
        ("X-Tenant", "t-1"),
        ("X-Order-Id", "o-1"),
        ("X-Magic-Link", "opens-much"),
        ("X-CSRF", "opens-more"),
        ("Accept-Language", "de"),
        ("If-Match", "\"1\""),
        ("Content-Language", "en"),
    ] {
        request = request.header(name, value);
    }
    let id = accepted(&request.body("hello").send());
    let signature = token.rsplit('.').next().expect("a signature");
    let all = stored(&redis);
    assert!(all.contains("t-1"), "{all:?}");
    for secret in [signature, "opens-much", "opens-more"] {
        assert!(!all.contains(secret), "{secret}: {all:?}");
    }
    pause(&gateway, "resume");
    until(&gateway, &token, &id, "done");
    let sent = upstream.only();
    for (name, value) in [
        ("x-tenant", Some("t-1")),
        ("x-order-id", Some("o-1")),
        ("accept-language", Some("de")),
        ("if-match", Some("\"1\"")),
        ("content-language", Some("en")),
        ("x-user-id", Some("u1")),
        ("x-env", Some("test")),
        ("x-magic-link", None),
        ("x-csrf", None),
    ] {
        assert_eq!(sent.header(name), value, "{name}");
    }
    assert!(sent.header("forwarded").is_some() && sent.header("x-forwarded-for").is_some());
}

/// Text waits compressed, as cached text does, and is what it was at both ends.
#[test]
fn text_is_kept_compressed() {
    let redis = Redis::start();
    let text = format!("[\"{}\"]", "words that come again, ".repeat(2000));
    let answer = response("200 OK\r\nContent-Type: application/json", &text);
    let upstream = Upstream::replying(answer);
    let gateway = start(&redis, &upstream, &format!("{QUICK}max_body = \"50KiB\"\n"));
    let token = bearer("u1");
    let send = |kind: &str, body: &str| {
        let request = Client::request(gateway.public, "POST", "/mail").bearer(&token);
        request.header("Content-Type", kind).body(body).send()
    };
    pause(&gateway, "pause");
    // What comes is measured, not what is kept.
    let long = send("application/json", &text.repeat(2));
    assert_eq!(code(&long), (413, "body_too_large".to_owned()));
    let id = accepted(&send("application/json", &text));
    assert!(body_bytes(&redis) < text.len() / 10);
    let counted = operate(&gateway, "GET", "/v1/queues/mail", "").json()["bytes"].clone();
    assert!(counted.as_u64().expect("a number") < 4000, "{counted}");
    let shown = operate(&gateway, "POST", &format!("/v1/deliveries/{id}/body"), "").json();
    assert_eq!(shown["text"], text.as_str());
    pause(&gateway, "resume");
    until(&gateway, &token, &id, "done");
    assert_eq!(upstream.only().text(), text);
    let path = format!("/deliveries/{id}/response");
    let kept = Client::get(gateway.public, &path).bearer(&token).send();
    assert_eq!(kept.text(), text);
    let keys = redis.cli(&["KEYS", "app:queue:*:answer:*"]);
    let bytes: usize = redis.cli(&["STRLEN", keys.trim()]).parse().expect("a number");
    assert!(bytes < text.len() / 10, "{bytes}");
    // What is in no coding of text stays as it is.
    pause(&gateway, "pause");
    accepted(&send("application/octet-stream", &text));
    assert_eq!(body_bytes(&redis), text.len());
}

/// Who reads the store reads nothing of what waits in it; who has the key reads all.
#[test]
fn what_a_queue_seals_is_read_with_its_keys_alone() {
    let redis = Redis::start();
    let upstream = Upstream::replying(response("201 Created", "an answer to nobody else"));
    let with = |keys: &[&str]| {
        let keys: Vec<String> = keys.iter().map(|key| format!("\"file:{key}\"")).collect();
        let queue = format!("{QUICK}seal = [{}]\n", keys.join(", "));
        config(&redis, &upstream.url(), &queue)
    };
    let (folder, files) = (Folder::new(), ["1.key", "2.key", "3.key"]);
    for (file, key) in files.iter().zip(KEYS) {
        folder.write(file, key);
    }
    let gateway = Gateway::start_in(folder, &with(&files[..1]));
    let token = bearer("u1");
    let send = |body: &str| {
        pause(&gateway, "pause");
        let request = Client::request(gateway.public, "POST", "/mail?to=somebody").bearer(&token);
        accepted(&request.body(body).send())
    };
    let first = send("a letter to nobody else");
    let all = stored(&redis);
    assert!(all.contains(&first[..1]));
    for open in ["letter", "somebody", "mailer"] {
        assert!(!all.contains(open), "{open}: {all:?}");
    }
    let shown = operate(&gateway, "GET", &format!("/v1/deliveries/{first}"), "").json();
    assert_eq!((&shown["path"], &shown["route"]), (&json!("/mail"), &json!("mail")));
    let body = |id: &str| operate(&gateway, "POST", &format!("/v1/deliveries/{id}/body"), "");
    assert_eq!(body(&first).json()["text"], "a letter to nobody else");
    // A new key seals from now on, and the old one opens what it has sealed.
    reload(&gateway, &with(&[files[1], files[0]]));
    let second = send("another one");
    pause(&gateway, "resume");
    for id in [&first, &second] {
        until(&gateway, &token, id, "done");
        let path = format!("/deliveries/{id}/response");
        let answer = Client::get(gateway.public, &path).bearer(&token).send();
        assert_eq!((answer.status, &*answer.text()), (201, "an answer to nobody else"));
    }
    assert!(!stored(&redis).contains("an answer"));
    let texts: Vec<String> = upstream.recorded().iter().map(|it| it.text()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");

    // Without its key it is given up and kept, and nothing of it is sent.
    let third = send("a third one");
    reload(&gateway, &with(&files[2..]));
    pause(&gateway, "resume");
    assert_eq!(until(&gateway, &token, &third, "dead")["error"], "unsealable");
    assert_eq!(code(&body(&third)), (409, "body_unreadable".to_owned()));
    assert_eq!(upstream.seen(), 2);
    reload(&gateway, &with(&[files[2], files[1]]));
    let again = operate(&gateway, "POST", &format!("/v1/deliveries/{third}/requeue"), "");
    assert_eq!(again.status, 200, "{}", again.text());
    until(&gateway, &token, &third, "done");
    let shown = operate(&gateway, "GET", "/v1/config", "").text();
    assert!(shown.contains("seal") && KEYS.iter().all(|key| !shown.contains(key)), "{shown}");
}

/// A caller who is revoked while his request waits is not heard any more.
#[test]
fn what_a_revoked_caller_has_asked_for_is_not_sent() {
    let (redis, upstream) = (Redis::start(), upstream());
    let queue = format!("{QUICK}recheck = true\n");
    let open = "[routes.open]\npath = \"/open\"\nmethods = [\"POST\"]\nupstream = \"mailer\"\n";
    let whole = config(&redis, &upstream.url(), &queue);
    assert!(whole.contains(open));
    let gateway = Gateway::start(&whole.replacen(open, &format!("{open}auth = \"users\"\n"), 1));
    let callers = ["u1", "u2", "u3"].map(crate::support::claims);
    let tokens = callers.clone().map(crate::support::token);
    pause(&gateway, "pause");
    let ids = tokens.clone().map(|token| accepted(&post(&gateway, "/mail", &token, "a")));
    let all = stored(&redis);
    for token in &tokens {
        let signature = token.rsplit('.').next().expect("a signature");
        assert!(!all.contains(signature), "{all:?}");
    }
    for body in [json!({ "jti": callers[0]["jti"] }), json!({ "sub": "u2" })] {
        let reply = operate(&gateway, "POST", "/v1/revocations", &body.to_string());
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    pause(&gateway, "resume");
    until(&gateway, &tokens[2], &ids[2], "done");
    for id in &ids[..2] {
        let shown = || operate(&gateway, "GET", &format!("/v1/deliveries/{id}"), "").json();
        eventually("it is dead", || shown()["state"] == "dead");
        assert_eq!(shown()["error"], "revoked");
    }
    assert_eq!(upstream.only().header("x-user-id"), Some("u3"));
}

/// Nobody waits for a delivery: it waits until it is known.
#[test]
fn a_delivery_waits_for_the_store_that_knows_of_revocations() {
    let (mut main, queues, upstream) = (Redis::start(), Redis::start(), upstream());
    let url = format!("url = \"{}\"\n", main.url());
    let queue = format!("{QUICK}recheck = true\n");
    let whole = config(&main, &upstream.url(), &queue)
        .replacen(&url, &format!("{url}queue_url = \"{}\"\n", queues.url()), 1)
        .replacen("path = \"/open\"\n", "path = \"/open\"\nauth = \"users\"\n", 1);
    let gateway = Gateway::start(&whole);
    let token = bearer("u1");
    pause(&gateway, "pause");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    main.kill();
    pause(&gateway, "resume");
    let back = || metric(&gateway, "portcullis_queue_attempts_total", Some(("outcome", "back")));
    eventually("it is given back", || back() >= 2.0);
    assert_eq!(upstream.seen(), 0);
    main.restart();
    eventually("it is sent", || upstream.seen() == 1);
    eventually("the store answers again", || {
        let path = format!("/deliveries/{id}");
        Client::get(gateway.public, &path).bearer(&token).send().status == 200
    });
    until(&gateway, &token, &id, "done");
    assert_eq!(upstream.only().header("x-delivery-attempt"), Some("1"));
    assert_eq!(told(&gateway, &token, &id)["attempts"], 1);
}
