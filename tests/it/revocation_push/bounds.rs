//! What the stream and the memory may hold, and that a memory which may lack something is not used.

use serde_json::json;

use super::{House, LATER, STREAM, follows, get, issued_at, knows, metric, operate, revoke, state};
use crate::auth::{code, with};
use crate::support::{Gateway, eventually, token};

fn tell(house: &House, jti: &str, until: &str) {
    let key = format!("app:auth:blacklist:{jti}");
    house.redis.cli(&["XADD", STREAM, "*", "key", &key, "until", until]);
}

/// Neither who is known nor who is not can be judged.
fn judges_nobody(gateway: &Gateway, jti: &str) {
    for jti in [jti, "somebody-else"] {
        let reply = get(gateway, &token(with(json!({ "jti": jti }))));
        assert_eq!((reply.status, &*code(&reply)), (503, "revocation_unknown"), "{jti}");
    }
}

#[test]
fn a_memory_that_is_too_small_is_not_trusted() {
    let mut house = House::open();
    let (small, large) = (house.gateway_with("revocations = 2"), house.gateway());
    tell(&house, "t-1", LATER);
    tell(&house, "t-2", LATER);
    knows(&small, 2);
    assert_eq!(state(&small)["complete"], true, "they fit");
    for jti in ["t-3", "t-4"] {
        tell(&house, jti, LATER);
    }
    eventually("it is incomplete", || state(&small)["complete"] == false);
    assert_eq!(state(&small)["known"], 2);
    assert_eq!(metric(&small, "revocations_complete"), Some(0.0));
    let complaints = || small.stderr().matches("raise it for all gateways").count();
    eventually("it says so", || complaints() == 1);
    tell(&house, "t-5", LATER);
    knows(&large, 5);
    for (jti, left) in [("t-1", 1), ("t-2", 0)] {
        tell(&house, jti, "0");
        knows(&small, left);
    }
    tell(&house, "t-6", LATER);
    knows(&small, 1);
    assert_eq!(complaints(), 1, "and says it once");
    house.redis.kill();
    judges_nobody(&small, "t-6");
    house.refuses(&large, &token(with(json!({"jti": "t-5"}))), "from memory");
}

#[test]
fn what_was_cut_from_the_stream_is_missing_only_where_it_was_not_read() {
    let mut house = House::open();
    let early = house.gateway();
    for jti in ["t-1", "t-2", "t-3"] {
        revoke(&early, &json!({ "jti": jti }));
    }
    knows(&early, 3);
    assert_eq!(house.redis.cli(&["XTRIM", STREAM, "MAXLEN", "=", "1"]), "2");
    let late = house.gateway();
    assert_eq!(state(&late)["complete"], false);
    revoke(&early, &json!({"jti": "t-4"}));
    knows(&early, 4);
    knows(&late, 2);
    assert_eq!(state(&early)["complete"], true);
    house.redis.kill();
    judges_nobody(&late, "t-4");
    for jti in ["t-1", "t-2", "t-3", "t-4"] {
        house.refuses(&early, &token(with(json!({ "jti": jti }))), "from memory");
    }
}

#[test]
fn the_stream_has_a_bound_and_an_end() {
    let house = House::open();
    let gateway = house.gateway_with("revocations = 10");
    for number in 0..250 {
        revoke(&gateway, &json!({"jti": format!("t-{number}"), "expires_in": "1h"}));
    }
    let length: usize = house.redis.cli(&["XLEN", STREAM]).parse().unwrap();
    // Redis cuts whole nodes of 100 entries, which is what `~` is for.
    assert!((10..=120).contains(&length), "{length} entries");
    let ttl = || house.redis.cli(&["TTL", STREAM]).parse::<i64>().unwrap();
    let month = 720 * 3600;
    assert!((month - 600..=month).contains(&ttl()), "as long as any revocation: {}", ttl());
    revoke(&gateway, &json!({"jti": "t", "expires_in": "900h"}));
    assert!(ttl() > month, "longer for one that lasts longer: {}", ttl());
    revoke(&gateway, &json!({"jti": "t", "expires_in": "1h"}));
    assert!(ttl() > month, "and never shorter: {}", ttl());
}

#[test]
fn what_the_stream_says_wrongly_revokes_too_much_rather_than_too_little() {
    let mut house = House::open();
    let gateway = house.gateway();
    for entry in [
        ["key", "app:session:s", "until", LATER].as_slice(),
        &["until", LATER],
        &["a", "b"],
        &["key", "app:auth:blacklist:t-1", "until", "soon"],
        &["key", "app:auth:blacklist:t-2"],
        &["key", "app:auth:not-before:u-1", "not_before", "now", "until", LATER],
        &["key", "app:auth:blacklist:t-3", "until", "1"],
    ] {
        let id = house.redis.cli(&[["XADD", STREAM, "*"].as_slice(), entry].concat());
        assert!(id.contains('-'), "{entry:?}: {id}");
    }
    tell(&house, "t-4", LATER);
    knows(&gateway, 4);
    house.redis.kill();
    for claims in [json!({"jti": "t-1"}), json!({"jti": "t-2"}), json!({"sub": "u-1"})] {
        house.refuses(&gateway, &token(with(claims.clone())), &claims.to_string());
    }
    house.passes(&gateway, &token(with(json!({"jti": "t-3"}))), "it has ended");
    house.passes(&gateway, &token(with(json!({"sub": "u-2"}))), "nobody's");
}

/// Somebody's own key where the stream should be: nothing works that needs it, and that is said.
#[test]
fn a_key_of_another_kind_in_the_streams_place_is_an_error_that_is_told() {
    let mut house = House::open();
    house.redis.cli(&["SET", STREAM, "mine"]);
    let gateway = Gateway::start(&house.config("1h", ""));
    eventually("it says so", || gateway.stderr().contains("WRONGTYPE"));
    let reply = operate(&gateway, "POST", "/v1/revocations", r#"{"jti": "t-1"}"#);
    assert_eq!((reply.status, reply.text().contains("WRONGTYPE")), (503, true));
    let now = issued_at(&with(json!({})));
    house.passes(&gateway, &token(with(json!({ "iat": now }))), "Redis is asked");
    assert_eq!(house.redis.cli(&["DEL", STREAM]), "1");
    follows(&gateway);
    house.redis.kill();
    house.passes(&gateway, &token(with(json!({}))), "from memory");
}
