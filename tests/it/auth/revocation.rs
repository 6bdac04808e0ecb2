//! Revocation: written by the application into Redis or through the admin API of one gateway, and
//! in force at the next request to any.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::{check_challenge, code, routes, upstream, with};
use crate::support::{Client, Gateway, Redis, Reply, Upstream, eventually, token};

/// Two gateways on one Redis.
struct House {
    redis: Redis,
    upstream: Upstream,
    gateways: [Gateway; 2],
}

impl House {
    fn start(more: &str) -> Self {
        let (redis, upstream) = (Redis::start(), upstream());
        // Nothing here is about deadlines, and the machine may be busy.
        let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
        let config = store + &routes(&upstream) + more;
        let gateways = [Gateway::start(&config), Gateway::start(&config)];
        Self { redis, upstream, gateways }
    }

    fn assert_passes(&self, token: &str, what: &str) {
        for gateway in &self.gateways {
            let reply = Client::get(gateway.public, "/private").bearer(token).send();
            assert_eq!(reply.status, 200, "{what}: {}", reply.text());
        }
    }

    fn assert_revoked(&self, token: &str, what: &str) {
        self.upstream.forget();
        for gateway in &self.gateways {
            let reply = Client::get(gateway.public, "/private").bearer(token).send();
            assert_eq!((reply.status, &*code(&reply)), (401, "token_revoked"), "{what}");
            check_challenge(&reply, Some("invalid_token"), what);
        }
        assert_eq!(self.upstream.seen(), 0, "{what}");
    }

    /// Revokes through the first gateway's admin API.
    fn revoke(&self, what: &Value) {
        let reply = self.ask_to_revoke(&what.to_string());
        assert_eq!(reply.status, 201, "{}", reply.text());
    }

    fn ask_to_revoke(&self, body: &str) -> Reply {
        let admin = self.gateways[0].admin;
        Client::request(admin, "POST", "/v1/revocations")
            .header("Host", admin.to_string())
            .header("Content-Type", "application/json")
            .body(body)
            .send()
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn issued_at(claims: &Value) -> u64 {
    claims["iat"].as_u64().expect("iat")
}

#[test]
fn a_key_that_the_application_writes_is_obeyed_at_the_next_request_by_every_gateway() {
    let house = House::start("");
    let now = issued_at(&with(json!({})));
    let anonymous_token = token(with(json!({"jti": null, "sub": null})));
    let signing_input = anonymous_token.rsplit_once('.').unwrap().0.to_owned();
    let cases = [
        (
            "jti",
            token(with(json!({"jti": "t-1"}))),
            "app:auth:blacklist:t-1".to_owned(),
            "1".to_owned(),
        ),
        (
            "signing input",
            anonymous_token,
            format!("app:auth:blacklist:sha256:{}", sha256_hex(signing_input.as_bytes())),
            "1".to_owned(),
        ),
        (
            "sid",
            token(with(json!({"sid": "s-1"}))),
            "app:auth:blacklist:sid:s-1".to_owned(),
            "anything".to_owned(),
        ),
        (
            "sub",
            token(with(json!({"sub": "u-1"}))),
            "app:auth:not-before:u-1".to_owned(),
            (now + 60).to_string(),
        ),
        (
            "a jti that no key can hold",
            token(with(json!({"jti": "two words é"}))),
            format!("app:auth:blacklist:sha256:{}", sha256_hex("two words é".as_bytes())),
            "1".to_owned(),
        ),
    ];
    for (what, token, key, value) in cases {
        house.assert_passes(&token, what);
        assert_eq!(house.redis.cli(&["SET", &key, &value, "EX", "3600"]), "OK");
        house.assert_revoked(&token, what);
        assert_eq!(house.redis.cli(&["DEL", &key]), "1");
        house.assert_passes(&token, what);
    }
}

#[test]
fn a_log_in_after_log_out_everywhere_works() {
    let house = House::start("");
    let now = issued_at(&with(json!({})));
    let old = token(with(json!({"sub": "u-1", "iat": now - 60})));
    let ageless = token(with(json!({"sub": "u-1", "iat": null})));
    let someone = token(with(json!({"sub": "u-2", "iat": now - 60})));
    house.redis.cli(&["SET", "app:auth:not-before:u-1", &(now - 10).to_string()]);
    house.assert_revoked(&old, "issued before");
    house.assert_revoked(&ageless, "nobody knows when");
    house.assert_passes(&token(with(json!({"sub": "u-1", "iat": now - 10}))), "not before");
    house.assert_passes(&token(with(json!({"sub": "u-1"}))), "a new log-in");
    house.assert_passes(&someone, "somebody else");
}

#[test]
fn a_not_before_that_nobody_can_read_is_a_503_and_no_pass() {
    let house = House::start("");
    let token = token(with(json!({"sub": "u-1"})));
    house.redis.cli(&["SET", "app:auth:not-before:u-1", "yesterday"]);
    for gateway in &house.gateways {
        let reply = Client::get(gateway.public, "/private").bearer(&token).send();
        assert_eq!((reply.status, &*code(&reply)), (503, "revocation_unknown"));
        assert!(reply.header("retry-after").is_some());
    }
}

#[test]
fn the_admin_api_revokes_by_token_by_session_and_by_user() {
    let house = House::start("");
    let now = issued_at(&with(json!({})));
    let old = json!({"iat": now - 60});
    let with_id = token(with(json!({"jti": "t-1"})));
    let without_id = token(with(json!({"jti": null})));
    let of_session = token(with(json!({"sid": "s-1"})));
    let of_user = {
        let mut claims = with(old);
        claims["sub"] = json!("u-1");
        token(claims)
    };
    let bystander = token(with(json!({"sub": "u-2", "sid": "s-2"})));
    for (what, token) in [
        (json!({"jti": "t-1"}), &with_id),
        (json!({"token": without_id}), &without_id),
        (json!({"sid": "s-1", "expires_in": "1h"}), &of_session),
        (json!({"sub": "u-1"}), &of_user),
    ] {
        house.assert_passes(token, "before");
        house.revoke(&what);
        house.assert_revoked(token, &what.to_string());
    }
    house.assert_passes(&bystander, "somebody else");
    house.assert_passes(&token(with(json!({"sub": "u-1", "iat": now + 20}))), "a new log-in");
    let keys = house.redis.cli(&["KEYS", "app:auth:*"]);
    assert_eq!(keys.lines().count(), 5, "four revocations and the stream: {keys}");
    for key in keys.lines() {
        let ttl: i64 = house.redis.cli(&["TTL", key]).parse().unwrap();
        assert!(ttl > 3000, "{key} lives {ttl} s");
    }
}

#[test]
fn a_token_that_never_expires_is_revoked_for_a_bounded_time() {
    let house = House::start("");
    let token = token(with(json!({"jti": "t-1", "exp": 1e300})));
    let reply = house.ask_to_revoke(&json!({ "token": token }).to_string());
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!(reply.json()["expires_in_seconds"], 10 * 365 * 24 * 3600);
}

#[test]
fn a_revocation_that_says_nothing_or_too_much_is_refused() {
    let house = House::start("");
    for body in [
        "{}",
        "[]",
        "",
        r#"{"jti":"a","sub":"b"}"#,
        r#"{"jit":"a"}"#,
        r#"{"jti":5}"#,
        r#"{"token":"abc"}"#,
        r#"{"sid":"a","expires_in":"tomorrow"}"#,
    ] {
        let reply = house.ask_to_revoke(body);
        assert_eq!(reply.status, 400, "{body}: {}", reply.text());
    }
    assert_eq!(house.redis.cli(&["KEYS", "app:auth:*"]), "");
}

#[test]
fn what_a_revoked_caller_took_from_a_limit_is_given_back() {
    let limited = r#"
        [limits.api]
        key = ["claim:sub"]
        allow = ["3/1h"]
        [routes.limited]
        path = "/limited"
        upstream = "shop"
        auth = "users"
        limits = ["api"]
    "#;
    let house = House::start(limited);
    let get = |token: &str| Client::get(house.gateways[0].public, "/limited").bearer(token).send();
    house.redis.cli(&["SET", "app:auth:blacklist:t-1", "1"]);
    let revoked = token(with(json!({"sub": "u-1", "jti": "t-1"})));
    for _ in 0..7 {
        let reply = get(&revoked);
        assert_eq!((reply.status, &*code(&reply)), (401, "token_revoked"));
    }
    eventually("every charge is given back", || {
        house.redis.cli(&["KEYS", "app:ratelimit:*"]).is_empty()
    });
    let good = token(with(json!({"sub": "u-1"})));
    for status in [200, 200, 200, 429] {
        assert_eq!(get(&good).status, status);
    }
}
