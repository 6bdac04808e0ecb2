//! API keys while Redis is away: what is known is judged as revocation is, the rest waits.

use serde_json::json;

use super::{config, create, get, is_refused, start};
use crate::auth::{code, upstream};
use crate::support::{Client, Gateway, Redis, TcpProxy, claims, eventually, operate, token};

fn knows_revocations(gateway: &Gateway, count: usize) {
    eventually("revocations are known", || {
        operate(gateway, "GET", "/v1/status", "").json()["revocations"]["known"] == count
    });
}

#[test]
fn without_redis_a_known_key_is_judged_as_tokens_are_and_another_waits() {
    let (mut redis, upstream) = (Redis::start(), upstream());
    let strict = start(&redis.url(), "", &upstream);
    let lenient = start(&redis.url(), "revocation = \"allow\"", &upstream);
    let knowing = start(&redis.url(), "revocation_max_stale = \"1h\"", &upstream);
    let (known, _) = create(&strict, &json!({"owner": "acme"}));
    let (ended, id) = create(&strict, &json!({"owner": "acme"}));
    let (unknown, _) = create(&strict, &json!({"owner": "acme"}));
    for gateway in [&strict, &lenient, &knowing] {
        assert_eq!(get(gateway, "/keys", &known).status, 200);
        assert_eq!(get(gateway, "/keys", &ended).status, 200);
    }
    assert_eq!(operate(&strict, "DELETE", &format!("/v1/keys/{id}"), "").status, 200);
    knows_revocations(&knowing, 1);
    redis.kill();
    let refused = |gateway: &Gateway, key: &str, expected: &str| {
        let reply = get(gateway, "/keys", key);
        assert_eq!((reply.status, &*code(&reply)), (503, expected), "{}", reply.text());
        assert!(reply.header("retry-after").is_some() && !reply.text().contains(key));
        assert_eq!(reply.header("www-authenticate"), None, "no other key would help");
    };
    for _ in 0..2 {
        refused(&strict, &known, "revocation_unknown");
        assert_eq!(get(&lenient, "/keys", &known).status, 200);
        assert_eq!(get(&knowing, "/keys", &known).status, 200);
        is_refused(&get(&knowing, "/keys", &ended), "api_key_revoked");
        for gateway in [&strict, &lenient, &knowing] {
            refused(gateway, &unknown, "keys_unavailable");
            is_refused(&get(gateway, "/keys", "pck_bad"), "api_key_invalid");
        }
    }
    // Tokens on a shared route do not notice.
    let reply = Client::get(lenient.public, "/both").bearer(token(claims("42"))).send();
    assert_eq!(reply.status, 200);
}

#[test]
fn a_deleted_key_does_not_come_back_when_redis_goes() {
    let (mut redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis.url(), "revocation = \"allow\"", &upstream);
    let (key, _) = create(&gateway, &json!({"owner": "acme"}));
    assert_eq!(get(&gateway, "/keys", &key).status, 200);
    let records = redis.cli(&["KEYS", "app:auth:key:*"]);
    assert_eq!(redis.cli(&["DEL", records.trim()]), "1");
    is_refused(&get(&gateway, "/keys", &key), "api_key_revoked");
    redis.kill();
    for _ in 0..2 {
        let reply = get(&gateway, "/keys", &key);
        assert_eq!((reply.status, &*code(&reply)), (503, "keys_unavailable"));
    }
}

#[test]
fn tokens_beside_api_keys_are_revoked_by_the_keys_they_always_had() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis.url(), "", &upstream);
    let mut claims = claims("42");
    claims["jti"] = json!("t1");
    let bearer = token(claims);
    let ask = || Client::get(gateway.public, "/both").bearer(&bearer).send();
    assert_eq!(ask().status, 200);
    redis.cli(&["SET", "app:auth:blacklist:t1", "1"]);
    assert_eq!((ask().status, &*code(&ask())), (401, "token_revoked"));
}

#[test]
fn the_first_use_asks_twice_and_every_other_once() {
    let (redis, upstream) = (Redis::start(), upstream());
    let proxy = TcpProxy::start(redis.address());
    let gateway = start(&proxy.url(), "", &upstream);
    let (key, _) = create(&gateway, &json!({"owner": "acme"}));
    for expected in [2, 1, 1] {
        proxy.reset_count();
        assert_eq!(get(&gateway, "/keys", &key).status, 200);
        assert_eq!(proxy.batches(), expected);
    }
    // A key that cannot be one is not looked up.
    proxy.reset_count();
    is_refused(&get(&gateway, "/keys", "pck_bad"), "api_key_invalid");
    assert_eq!(proxy.batches(), 0);
}

#[test]
fn a_request_waits_once_for_a_store_that_does_not_answer() {
    let (redis, upstream) = (Redis::start(), upstream());
    let proxy = TcpProxy::start(redis.address());
    let config = config(&proxy.url(), "limits = \"allow\"", &upstream);
    let gateway = Gateway::start(&config.replace("\ntimeout = \"5s\"", "\ntimeout = \"200ms\""));
    proxy.swallow();
    // The route has a limit, which would be asked for too.
    let reply = get(&gateway, "/guarded", "legacy-1");
    assert_eq!((reply.status, &*code(&reply)), (503, "keys_unavailable"));
    let metrics = Client::get(gateway.admin, "/metrics").send().text();
    let asked =
        metrics.lines().find(|line| line.starts_with("portcullis_store_duration_seconds_count"));
    assert_eq!(asked, Some("portcullis_store_duration_seconds_count 1"), "{metrics}");
}
