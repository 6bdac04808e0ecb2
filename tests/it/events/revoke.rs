//! Events that revoke: one token, the tokens of a session, those of a subject; and until when.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Database, STREAM, count, reads, start};
use crate::support::{Client, Gateway, Redis, claims, eventually, token};

pub(super) const EVENTS: &str = r#"
[events.tokens]
from = "stream:shop:events"
when = { what = "token" }
revoke = "jti:{id}"
until = "exp"
[events.sessions]
from = "stream:shop:events"
when = { what = "session" }
revoke = "sid:{id}"
[events.users]
from = "stream:shop:events"
when = { what = "user" }
revoke = "sub:{id}"
"#;
/// What is added to a revocation that an event bounds, in seconds, for clocks that differ.
const MARGIN_S: u64 = 60 * 60;
const DAY_S: u64 = 24 * 60 * 60;

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

pub(super) fn with(sub: &str, more: &Value) -> String {
    let mut said = claims(sub);
    for (name, value) in more.as_object().expect("claims") {
        said[name] = value.clone();
    }
    token(said)
}

/// Which of these tokens the gateway takes.
pub(super) fn taken(gateway: &Gateway, tokens: &[String]) -> Vec<bool> {
    let of = |token: &String| Client::get(gateway.public, "/account").bearer(token).send().status;
    tokens.iter().map(|token| of(token) == 200).collect()
}

fn tell(redis: &Redis, what: &str, more: &[&str]) {
    let event = [&["XADD", STREAM, "*", "what", what], more].concat();
    assert!(redis.cli(&event).contains('-'));
}

#[test]
fn an_event_revokes_a_token_a_session_or_a_subject_and_nobody_else() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let gateways = [0, 1].map(|_| start(&redis, &upstream, EVENTS));
    for source in ["tokens", "sessions", "users"] {
        reads(&gateways, source);
    }
    let tokens = [
        with("u1", &json!({"jti": "t1", "sid": "s1"})),
        with("u1", &json!({"jti": "t2", "sid": "s1"})),
        with("u1", &json!({"jti": "t3", "sid": "s2"})),
        with("u2", &json!({"jti": "t4", "sid": "s3"})),
    ];
    let total = |source, outcome| gateways.iter().map(|it| count(it, source, outcome)).sum::<f64>();
    assert_eq!(taken(&gateways[0], &tokens), [true; 4]);

    // Nothing of these is anybody's: no value means more than itself.
    for id in ["*", "t*", "t1 t2", "s1", "u1", "sid:s1"] {
        tell(&redis, "token", &["id", id, "exp", "9999999999"]);
    }
    for event in [&["id", "t8"][..], &["id", "t9", "exp", "soon"], &["exp", "9999999999"]] {
        tell(&redis, "token", event);
    }
    eventually("all are counted", || {
        total("tokens", "taken") == 6.0 && total("tokens", "poison") == 3.0
    });
    assert_eq!(taken(&gateways[0], &tokens), [true; 4]);
    // Nobody knows until when: they are revoked all the same.
    let left_of = |id: &str| redis.cli(&["PTTL", &format!("app:auth:blacklist:{id}")]);
    let seconds = |id: &str| left_of(id).parse::<u64>().expect("a life") / 1000;
    assert!(seconds("t8") > MARGIN_S && seconds("t9") > MARGIN_S);

    let until = now_s() + DAY_S;
    tell(&redis, "token", &["id", "t1", "exp", &until.to_string()]);
    for gateway in &gateways {
        eventually("one token is revoked", || taken(gateway, &tokens) == [false, true, true, true]);
    }
    let left = seconds("t1");
    assert!((MARGIN_S..=MARGIN_S + DAY_S).contains(&left), "as long as the event says: {left}");
    // An event that means less does not shorten it.
    tell(&redis, "token", &["id", "t1", "exp", "1"]);
    tell(&redis, "token", &["id", "t0", "exp", "1"]);
    eventually("both are carried out", || left_of("t0") != "-2");
    assert!(seconds("t0") <= MARGIN_S && seconds("t1") > MARGIN_S * 2);
    tell(&redis, "session", &["id", "s1"]);
    for gateway in &gateways {
        eventually("its session, too", || taken(gateway, &tokens) == [false, false, true, true]);
    }
    tell(&redis, "user", &["id", "u1"]);
    for gateway in &gateways {
        eventually("all of the user", || taken(gateway, &tokens) == [false, false, false, true]);
    }
}
