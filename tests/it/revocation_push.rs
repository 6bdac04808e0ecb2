//! Revocations on their way to every node, and what a node does with them while Redis is away: it
//! refuses whom it knew to be revoked and lets the others pass, for as long as it may.

mod bounds;
mod commands;
mod taking_back;

use std::io::Write as _;
use std::net::TcpStream;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::auth::{check_challenge, code, routes, upstream, with};
use crate::support::{
    AUTH, Client, Folder, Gateway, Redis, Reply, Upstream, eventually, operate, token,
};

/// Where every revocation is told.
const STREAM: &str = "app:auth:revocations";
/// After every deadline of the tests.
const LATER: &str = "9999999999";

/// Gateways on one Redis.
struct House {
    redis: Redis,
    upstream: Upstream,
}

impl House {
    fn open() -> Self {
        Self { redis: Redis::start(), upstream: upstream() }
    }

    /// What a gateway is told; `store` is more of `[store]`.
    fn config(&self, max_stale: &str, store: &str) -> String {
        // Nothing here is about deadlines, and the machine may be busy.
        format!(
            "[store]\nurl = \"{}\"\ntimeout = \"5s\"\nconnect_timeout = \"5s\"\n{store}\n\
             [store.on_outage]\nrevocation_max_stale = \"{max_stale}\"\n{}",
            self.redis.url(),
            routes(&self.upstream)
        )
    }

    /// A gateway that knows revocations, and has read all there are.
    fn gateway(&self) -> Gateway {
        self.gateway_with("")
    }

    fn gateway_with(&self, store: &str) -> Gateway {
        let gateway = Gateway::start(&self.config("1h", store));
        follows(&gateway);
        gateway
    }

    fn passes(&self, gateway: &Gateway, token: &str, what: &str) {
        let reply = get(gateway, token);
        assert_eq!(reply.status, 200, "{what}: {}", reply.text());
    }

    fn refuses(&self, gateway: &Gateway, token: &str, what: &str) {
        self.upstream.forget();
        let reply = get(gateway, token);
        assert_eq!((reply.status, &*code(&reply)), (401, "token_revoked"), "{what}");
        check_challenge(&reply, Some("invalid_token"), what);
        assert_eq!(self.upstream.seen(), 0, "{what}");
    }
}

fn get(gateway: &Gateway, token: &str) -> Reply {
    Client::get(gateway.public, "/private").bearer(token).send()
}

fn revoke(gateway: &Gateway, what: &Value) {
    let reply = operate(gateway, "POST", "/v1/revocations", &what.to_string());
    assert_eq!(reply.status, 201, "{}", reply.text());
}

/// What `/v1/status` says about revocations.
fn state(gateway: &Gateway) -> Value {
    let request = Client::get(gateway.admin, "/v1/status");
    request.header("Host", gateway.admin.to_string()).send().json()["revocations"].clone()
}

fn follows(gateway: &Gateway) {
    eventually("revocations are followed", || state(gateway)["connected"] == true);
}

fn knows(gateway: &Gateway, count: usize) {
    let what = format!("{count} revocations are known");
    eventually(&what, || state(gateway)["known"] == count);
}

/// A metric without labels.
fn metric(gateway: &Gateway, name: &str) -> Option<f64> {
    let text = Client::get(gateway.admin, "/metrics").send().text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("portcullis_{name} ")))?;
    line.parse().ok()
}

fn issued_at(claims: &Value) -> u64 {
    claims["iat"].as_u64().expect("iat")
}

#[test]
fn what_one_gateway_revoked_another_refuses_at_once_and_after_redis_died() {
    let mut house = House::open();
    let (a, b) = (house.gateway(), house.gateway());
    let off = Gateway::start(&house.config("0s", ""));
    let revoked = token(with(json!({"jti": "t-1"})));
    let good = token(with(json!({"jti": "t-2"})));
    house.passes(&b, &revoked, "before");
    revoke(&a, &json!({"jti": "t-1"}));
    house.refuses(&b, &revoked, "at the next request");
    knows(&b, 1);
    assert_eq!(state(&b), json!({"connected": true, "known": 1, "complete": true}));
    assert_eq!(state(&off), Value::Null, "0s is off");
    house.redis.kill();
    for _ in 0..3 {
        house.refuses(&b, &revoked, "from memory");
        house.passes(&b, &good, "from memory");
        for token in [&revoked, &good] {
            let reply = get(&off, token);
            assert_eq!((reply.status, &*code(&reply)), (503, "revocation_unknown"));
        }
    }
    // The log says that it was judged without the store.
    for (status, reason) in [(200, Value::Null), (401, json!("token_revoked"))] {
        eventually("the log says so", || {
            b.access_lines().iter().any(|line| {
                let degraded = line["degraded"] == json!(["revocation"]);
                line["status"] == status && line["reason"] == reason && degraded
            })
        });
    }
}

/// A server that answers everybody with the same error is as good as away.
#[test]
fn a_redis_that_is_held_up_is_done_without() {
    let house = House::open();
    let gateway = house.gateway();
    let revoked = token(with(json!({"jti": "t-1"})));
    let good = token(with(json!({"jti": "t-2"})));
    revoke(&gateway, &json!({"jti": "t-1"}));
    knows(&gateway, 1);
    house.redis.cli(&["CONFIG", "SET", "busy-reply-threshold", "1"]);
    let mut held_up = TcpStream::connect(house.redis.address()).expect("Redis");
    held_up.write_all(b"EVAL 'while true do end' 0\r\n").expect("a script");
    eventually("it is held up", || house.redis.look(&["PING"]).contains("BUSY"));
    for _ in 0..10 {
        house.refuses(&gateway, &revoked, "from memory");
        house.passes(&gateway, &good, "from memory");
    }
}

#[test]
fn a_gateway_that_can_judge_without_redis_stays_ready() {
    let mut house = House::open();
    let start = |max_stale: &str| {
        // The only route needs to know of revocations.
        let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", house.redis.url());
        let outage = format!("[store.on_outage]\nrevocation_max_stale = \"{max_stale}\"\n");
        let route = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\n";
        Gateway::start(&format!("{store}{outage}{AUTH}{}{route}", house.upstream.table("shop")))
    };
    let (knowing, off) = (start("1h"), start("0s"));
    follows(&knowing);
    let ready = |gateway: &Gateway| Client::get(gateway.admin, "/readyz").send().status;
    assert_eq!((ready(&knowing), ready(&off)), (200, 200));
    house.redis.kill();
    for gateway in [&knowing, &off] {
        eventually("the outage is noticed", || metric(gateway, "store_up") == Some(0.0));
    }
    assert_eq!((ready(&knowing), ready(&off)), (200, 503));
}

#[test]
fn a_silent_redis_is_away_too() {
    let house = House::open();
    let short = house.config("1h", "").replacen("\"5s\"", "\"50ms\"", 1);
    let gateway = Gateway::start(&short);
    follows(&gateway);
    let (revoked, good) = (token(with(json!({"sid": "s-1"}))), token(with(json!({"sid": "s-2"}))));
    house.redis.cli(&["XADD", STREAM, "*", "key", "app:auth:blacklist:sid:s-1", "until", LATER]);
    knows(&gateway, 1);
    house.redis.stop_signal();
    house.refuses(&gateway, &revoked, "from memory");
    house.passes(&gateway, &good, "from memory");
    house.redis.cont_signal();
}

#[test]
fn log_out_everywhere_holds_without_redis_and_spares_new_log_ins() {
    let mut house = House::open();
    let (a, b) = (house.gateway(), house.gateway());
    let now = issued_at(&with(json!({})));
    let of = |iat: Value| token(with(json!({"sub": "u-1", "iat": iat})));
    let (old, ageless, new) = (of(json!(now - 60)), of(Value::Null), of(json!(now + 20)));
    let other = token(with(json!({"sub": "u-2", "iat": now - 60})));
    revoke(&a, &json!({"sub": "u-1"}));
    knows(&b, 1);
    for what in ["with Redis", "from memory"] {
        house.refuses(&b, &old, what);
        house.refuses(&b, &ageless, what);
        house.passes(&b, &new, what);
        house.passes(&b, &other, what);
        house.redis.kill();
    }
}

/// The commands of docs/redis.md, word by word, as an application sends them.
#[test]
fn an_application_tells_the_gateways_itself() {
    let mut house = House::open();
    let gateway = house.gateway();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redis.md"));
    let page = page.expect("docs/redis.md").replace("\\\n", "");
    let lines: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("redis-cli XADD ")).collect();
    let [of_token, of_user, undone] = lines[..] else { panic!("not three XADD: {lines:?}") };
    let send = |line: &str, values: &[(&str, &str)]| {
        let mut filled = format!("XADD {}", line.replace('\'', ""));
        for (shown, value) in values {
            assert!(filled.contains(shown), "{line} has no {shown}");
            filled = filled.replace(shown, value);
        }
        assert!(!filled.contains('$'), "{line} needs more values");
        let words: Vec<&str> = filled.split_whitespace().collect();
        let id = house.redis.cli(&words);
        assert!(id.contains('-') && !id.contains("error"), "{line}: {id}");
    };
    let now = issued_at(&with(json!({})));
    let (jti, until) = ("blacklist:2f6a9b", "\"$until\"");
    send(of_token, &[(jti, "blacklist:t-1"), (until, LATER)]);
    send(of_token, &[(jti, "blacklist:t-2"), (until, LATER)]);
    let time = (now - 10).to_string();
    let user = [("not-before:42", "not-before:u-1"), ("\"$((now + 1))\"", &*time), (until, LATER)];
    send(of_user, &user);
    knows(&gateway, 3);
    send(undone, &[(jti, "blacklist:t-2")]);
    knows(&gateway, 2);
    house.redis.kill();
    house.refuses(&gateway, &token(with(json!({"jti": "t-1"}))), "the token");
    house.passes(&gateway, &token(with(json!({"jti": "t-2"}))), "taken back");
    let old = token(with(json!({"sub": "u-1", "iat": now - 11})));
    house.refuses(&gateway, &old, "the user");
    house.passes(&gateway, &token(with(json!({"sub": "u-1"}))), "a new log-in");
}

#[test]
fn a_gateway_that_starts_later_reads_all_that_was_told() {
    let mut house = House::open();
    let first = house.gateway();
    // More than one look holds.
    for number in 0..1500 {
        let key = format!("app:auth:blacklist:n-{number}");
        house.redis.cli(&["XADD", STREAM, "*", "key", &key, "until", LATER]);
    }
    revoke(&first, &json!({"jti": "t-1"}));
    let second = house.gateway();
    knows(&second, 1501);
    assert_eq!(state(&second)["complete"], true);
    house.redis.kill();
    for jti in ["n-0", "n-999", "n-1000", "n-1499", "t-1"] {
        house.refuses(&second, &token(with(json!({"jti": jti}))), jti);
    }
    house.passes(&second, &token(with(json!({"jti": "n-1500"}))), "nobody's");
}

#[test]
fn what_is_known_outlives_a_flush_a_restart_and_a_lost_connection() {
    let mut house = House::open();
    let (a, b) = (house.gateway(), house.gateway());
    let revoked = |number: u32| token(with(json!({"jti": format!("t-{number}")})));
    revoke(&a, &json!({"jti": "t-1"}));
    knows(&b, 1);
    assert_eq!(house.redis.cli(&["FLUSHALL"]), "OK");
    revoke(&a, &json!({"jti": "t-2"}));
    knows(&b, 2);
    house.redis.restart();
    follows(&b);
    follows(&a);
    eventually("the store takes it", || {
        operate(&a, "POST", "/v1/revocations", r#"{"jti": "t-3"}"#).status == 201
    });
    knows(&b, 3);
    house.refuses(&b, &revoked(1), "though Redis has forgotten it");
    assert!(house.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).parse::<u32>().is_ok());
    follows(&b);
    house.redis.kill();
    for number in 1..=3 {
        house.refuses(&b, &revoked(number), "from memory");
    }
    house.passes(&b, &revoked(4), "from memory");
    eventually("it says that nobody is followed", || state(&b)["connected"] == false);
    assert_eq!(metric(&b, "revocations_followed"), Some(0.0));
    assert_eq!(metric(&b, "revocations_known"), Some(3.0));
    assert_eq!(metric(&b, "revocations_complete"), Some(1.0));
}

#[test]
fn a_reload_begins_to_follow() {
    let mut house = House::open();
    let gateway = Gateway::start(&house.config("0s", ""));
    revoke(&gateway, &json!({"jti": "t-1"}));
    assert_eq!(state(&gateway), Value::Null);
    gateway.rewrite(&house.config("1h", ""));
    gateway.signal("HUP");
    follows(&gateway);
    knows(&gateway, 1);
    house.redis.kill();
    house.refuses(&gateway, &token(with(json!({"jti": "t-1"}))), "from memory");
    house.passes(&gateway, &token(with(json!({}))), "from memory");
}

/// The order of the curve's group (SEC 2, secp256r1).
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
    0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The same token with the other signature that verifies: (r, n - s).
fn twin(token: &str) -> String {
    let (input, signature) = token.rsplit_once('.').expect("three parts");
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let mut borrow = 0;
    for i in (0..32).rev() {
        let difference = i16::from(P256_ORDER[i]) - i16::from(bytes[32 + i]) - borrow;
        borrow = i16::from(difference < 0);
        bytes[32 + i] = difference.rem_euclid(256) as u8;
    }
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[test]
fn the_twin_of_an_ecdsa_token_is_revoked_with_it_with_redis_and_without() {
    let mut house = House::open();
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let point = URL_SAFE_NO_PAD.encode(&pair.public_key().as_ref()[1..33]);
    let other = URL_SAFE_NO_PAD.encode(&pair.public_key().as_ref()[33..]);
    let folder = Folder::new();
    let key = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "x": point, "y": other});
    folder.write("keys.json", json!({ "keys": [key] }).to_string());
    let config = house.config("1h", "").replace("\"HS256\"", "\"ES256\"");
    let config = config
        .replace("secret = \"integration-tests-0123456789abcdef\"", "jwks_file = \"keys.json\"");
    let gateway = Gateway::start_in(folder, &config);
    follows(&gateway);
    let sign = |claims: &Value| {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","typ":"JWT"}"#);
        let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).expect("a signature");
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    };
    let first = sign(&with(json!({"jti": null})));
    let second = twin(&first);
    assert_ne!(first, second);
    for token in [&first, &second] {
        house.passes(&gateway, token, "both verify");
    }
    revoke(&gateway, &json!({ "token": first }));
    knows(&gateway, 1);
    let bystander = sign(&with(json!({"jti": null, "sub": "43"})));
    for what in ["with Redis", "from memory"] {
        for token in [&first, &second] {
            house.refuses(&gateway, token, what);
        }
        house.passes(&gateway, &bystander, what);
        house.redis.kill();
    }
}
