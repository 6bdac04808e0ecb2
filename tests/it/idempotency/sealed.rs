//! Answers that lie sealed in the store: who reads it reads nothing of them, and who has the key
//! gives them again.

use super::{Client, Redis, Reply, Upstream, config, expect, keys, post, send, shop, with_code};
use crate::support::{Folder, Gateway, operate};

const KEYS: [&str; 2] = [
    "1111111111111111111111111111111111111111111111111111111111111111",
    "MzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzM=",
];
/// What may be sent once more if nobody knows what it did.
const MORE: &str = "methods = [\"POST\", \"PUT\"], unknown = \"forward\"";

/// A configuration that seals with these keys, and one route that does not.
fn sealing(redis: &Redis, upstream: &Upstream, keys: &[usize]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("\"file:{key}.key\"")).collect();
    let seal = format!("{MORE}, seal = [{}]", keys.join(", "));
    let policy = if keys.is_empty() { MORE } else { &*seal };
    config(upstream, &redis.url(), policy, "")
}

fn start(config: &str) -> Gateway {
    let folder = Folder::new();
    for (at, key) in KEYS.iter().enumerate() {
        folder.write(&format!("{at}.key"), key);
    }
    Gateway::start_in(folder, config)
}

fn reload(gateway: &Gateway, config: &str) {
    gateway.rewrite(config);
    let reply = operate(gateway, "POST", "/v1/config/reload", "{}");
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// All that lies under keys.
fn stored(redis: &Redis) -> String {
    let keys = redis.cli(&["KEYS", "app:idempotency:*"]);
    keys.lines().map(|key| redis.cli(&["GET", key])).collect()
}

fn refund(gateway: &Gateway, body: &str) -> Reply {
    let request = Client::request(gateway.public, "POST", "/refunds").body(body);
    request.header("Idempotency-Key", "k").send()
}

/// The answer that was given before.
fn is_replayed(reply: &Reply, text: &str) {
    assert_eq!((reply.status, &*reply.text()), (201, text), "{reply:?}");
    assert_eq!(reply.header("idempotent-replayed"), Some("true"));
    assert!(reply.header("location").is_some_and(|it| it.starts_with("/orders/")), "{reply:?}");
}

#[test]
fn who_reads_the_store_reads_no_answer_and_any_gateway_gives_it_again() {
    let (redis, upstream) = (Redis::start(), shop());
    let whole = sealing(&redis, &upstream, &[0]);
    let gateways = [start(&whole), start(&whole)];
    assert_eq!(post(&gateways[0], "k", "a letter").status, 201);
    let sealed = stored(&redis);
    assert!(sealed.len() > 50, "it is there: {sealed:?}");
    for open in ["letter", "order", "location", "text/plain"] {
        assert!(!sealed.contains(open), "{open}: {sealed:?}");
    }
    // What a route without keys keeps lies in clear.
    assert_eq!(refund(&gateways[0], "a refund").status, 201);
    assert!(stored(&redis).contains("order 2 of a refund"));
    for gateway in &gateways {
        is_replayed(&post(gateway, "k", "a letter"), "order 1 of a letter");
        let other = post(gateway, "k", "another letter");
        assert_eq!(with_code(&other), expect(422, "idempotency_key_reused"));
    }
    assert_eq!((upstream.seen(), keys(&redis)), (2, 2));
    let shown = operate(&gateways[0], "GET", "/v1/config", "").text();
    assert!(shown.contains("seal") && !shown.contains(KEYS[0]), "{shown}");
}

/// A new key seals from now on, and the old one opens as long as it is there. Without it nobody is
/// given anything, and nothing is sent once more.
#[test]
fn keys_take_the_place_of_others() {
    let (redis, upstream) = (Redis::start(), shop());
    let with = |keys: &[usize]| sealing(&redis, &upstream, keys);
    let gateway = start(&with(&[]));
    assert_eq!(post(&gateway, "open", "a").status, 201);
    reload(&gateway, &with(&[0]));
    is_replayed(&post(&gateway, "open", "a"), "order 1 of a");
    assert_eq!(post(&gateway, "old", "b").status, 201);
    reload(&gateway, &with(&[1, 0]));
    is_replayed(&post(&gateway, "old", "b"), "order 2 of b");
    assert_eq!(send(&gateway, "PUT", "new", "c").status, 201);
    reload(&gateway, &with(&[1]));
    is_replayed(&send(&gateway, "PUT", "new", "c"), "order 3 of c");
    let not_kept = expect(409, "idempotency_response_not_kept");
    assert_eq!(with_code(&post(&gateway, "old", "b")), not_kept);
    for none in [&[0][..], &[]] {
        reload(&gateway, &with(none));
        assert_eq!(with_code(&send(&gateway, "PUT", "new", "c")), not_kept, "{none:?}");
    }
    assert_eq!(upstream.seen(), 3, "what was answered is not sent once more");
    reload(&gateway, &with(&[0, 1]));
    is_replayed(&post(&gateway, "old", "b"), "order 2 of b");
    is_replayed(&send(&gateway, "PUT", "new", "c"), "order 3 of c");
}

/// Whoever writes to the store cannot give one request the answer to another.
#[test]
fn an_answer_is_of_the_key_that_it_was_sealed_for() {
    let (redis, upstream) = (Redis::start(), shop());
    let gateway = start(&sealing(&redis, &upstream, &[0]));
    assert_eq!(post(&gateway, "one", "a").status, 201);
    let one = redis.cli(&["KEYS", "app:idempotency:*"]).trim().to_owned();
    assert_eq!(post(&gateway, "two", "a").status, 201);
    let both = redis.cli(&["KEYS", "app:idempotency:*"]);
    let two = both.lines().find(|key| *key != one).expect("another key");
    assert_eq!(redis.cli(&["COPY", &one, two, "REPLACE"]), "1");
    is_replayed(&post(&gateway, "one", "a"), "order 1 of a");
    let not_kept = expect(409, "idempotency_response_not_kept");
    assert_eq!(with_code(&post(&gateway, "two", "a")), not_kept);
    // Nor does a part of it count as no answer, so that the request were sent once more.
    assert!(redis.cli(&["SETRANGE", &one, "30", "torn"]).parse::<u32>().is_ok());
    assert_eq!(with_code(&post(&gateway, "one", "a")), not_kept);
    assert_eq!(upstream.seen(), 2);
}
