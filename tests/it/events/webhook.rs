//! Events that come as requests: who may send them, and what becomes of a repeat.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Database, count, metric, read, start, store, told};
use crate::support::{Client, Gateway, Redis, Reply, eventually};

/// The two secrets of `HOOKS`, as bytes.
const SECRETS: [&[u8]; 2] = [b"012345678901234567890123", b"another-secret-of-the-sender"];

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

fn sign(secret: &[u8], id: &str, time: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mac = hmac::sign(&key, format!("{id}.{time}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.as_ref()))
}

fn send(gateway: &Gateway, id: &str, time: u64, signature: &str, body: &str) -> Reply {
    Client::request(gateway.public, "POST", "/hooks/products")
        .header("webhook-id", id)
        .header("webhook-timestamp", time.to_string())
        .header("webhook-signature", signature)
        .body(body)
        .send()
}

/// Sends it to whoever listens there, signed by one who may.
pub(super) fn send_to(
    address: SocketAddr,
    id: &str,
    time: u64,
    body: &str,
) -> Result<Reply, String> {
    Client::request(address, "POST", "/hooks/products")
        .header("webhook-id", id)
        .header("webhook-timestamp", time.to_string())
        .header("webhook-signature", sign(SECRETS[0], id, time, body))
        .body(body)
        .try_send()
}

fn code(reply: &Reply) -> (u16, String) {
    let json = reply.json();
    let kind = json["type"].as_str().unwrap_or_default();
    (reply.status, kind.trim_start_matches("urn:portcullis:problem:").to_owned())
}

#[test]
fn a_webhook_counts_when_one_of_the_secrets_has_signed_it_lately() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let gateway = start(&redis, &upstream, "");
    database.write("/products/1", 1);
    store(&gateway, "/products/1");
    database.write("/products/1", 2);
    let body = r#"{"id": 1}"#;
    let wrong = sign(b"somebody-else's-secret", "m0", now(), body);
    let other_body = sign(SECRETS[0], "m0", now(), r#"{"id": 2}"#);
    for signature in [&*wrong, &other_body, "v1,", "v1a,AAAA", ""] {
        let reply = send(&gateway, "m0", now(), signature, body);
        assert_eq!(code(&reply), (401, "event_signature_invalid".to_owned()), "{signature}");
    }
    for time in [now() - 400, now() + 400] {
        let reply = send(&gateway, "m0", time, &sign(SECRETS[0], "m0", time, body), body);
        assert_eq!(code(&reply), (401, "event_timestamp_invalid".to_owned()));
    }
    let bare = Client::request(gateway.public, "POST", "/hooks/products").body(body).send();
    assert_eq!(code(&bare), (401, "event_unsigned".to_owned()));
    assert_eq!(count(&gateway, "hooks", "refused"), 8.0);
    assert_eq!(read(&gateway, "/products/1"), 1, "none of them has purged anything");

    for (number, secret) in SECRETS.into_iter().enumerate() {
        let id = format!("m{}", number + 1);
        let time = now();
        let signature = format!("{wrong} {}", sign(secret, &id, time, body));
        let version = u32::try_from(number).unwrap() + 2;
        database.write("/products/1", version);
        assert_eq!(send(&gateway, &id, time, &signature, body).status, 204);
        assert_eq!(read(&gateway, "/products/1"), version, "it is gone with the answer");
        store(&gateway, "/products/1");
    }
    let time = now();
    database.write("/products/1", 9);
    let again = send(&gateway, "m2", time, &sign(SECRETS[1], "m2", time, body), body);
    assert_eq!((again.status, read(&gateway, "/products/1")), (204, 3), "a repeat does nothing");
    assert_eq!(count(&gateway, "hooks", "again"), 1.0);

    let no_json = "[1]";
    assert_eq!(
        send(&gateway, "m3", time, &sign(SECRETS[0], "m3", time, no_json), no_json).status,
        204
    );
    assert_eq!(told(&gateway, "hooks")["last_poison"]["why"], "it is no JSON object");
    let long = "x".repeat(64 * 1024 + 1);
    assert_eq!(send(&gateway, "m4", time, &sign(SECRETS[0], "m4", time, &long), &long).status, 413);
}

#[test]
fn a_webhook_is_refused_while_redis_is_away_and_its_repeat_is_taken() {
    let (mut redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let gateway = start(&redis, &upstream, "");
    let body = r#"{"id": 1}"#;
    let time = now();
    let signature = sign(SECRETS[0], "m1", time, body);
    redis.kill();
    let refused = send(&gateway, "m1", time, &signature, body);
    assert_eq!(code(&refused), (503, "events_away".to_owned()));
    redis.restart();
    eventually("the repeat is taken", || {
        send(&gateway, "m1", time, &signature, body).status == 204
    });
    assert_eq!(count(&gateway, "hooks", "taken"), 1.0);
}

/// How late an event was when it was done, by what its sender says of when he has told it.
#[test]
fn an_event_is_as_late_as_its_time_says() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let gateway = start(&redis, &upstream, "");
    let lag = || metric(&gateway, "portcullis_event_lag_seconds", &[("source", "hooks")]);
    assert_eq!(lag(), 0.0);
    let body = r#"{"id": 1}"#;
    for (id, late) in [("m1", 200), ("m2", 100)] {
        let told = now() - late;
        let reply = send(&gateway, id, told, &sign(SECRETS[0], id, told, body), body);
        assert_eq!(reply.status, 204, "{}", reply.text());
        let (lag, most) = (lag(), (now() - told) as f64);
        assert!(lag >= late as f64 && lag <= most, "{lag}, {late} to {most}");
    }
}
