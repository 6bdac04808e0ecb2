//! What is counted: which requests share a counter, and which have one each.

use serde_json::json;

use super::upstream;
use crate::support::{AUTH, Client, Gateway, Redis, claims, operate, token};

/// One kind of request.
#[derive(Debug, Default, Clone, Copy)]
struct Ask {
    /// The path.
    to: &'static str,
    /// The client's address, as a trusted proxy says.
    from: &'static str,
    /// Claim `sub` of the token.
    sub: &'static str,
    /// A header.
    tenant: Option<&'static str>,
    /// A cookie.
    sid: &'static str,
}

const ANY: Ask =
    Ask { to: "/one", from: "198.51.100.1", sub: "alice", tenant: Some("acme"), sid: "s1" };
const OTHER_ADDRESS: Ask = Ask { from: "198.51.100.2", ..ANY };
const OTHER_SUB: Ask = Ask { sub: "bob", ..ANY };
const OTHER_TENANT: Ask = Ask { tenant: Some("evil"), ..ANY };
const OTHER_SESSION: Ask = Ask { sid: "s2", ..ANY };
const OTHER_ROUTE: Ask = Ask { to: "/two", ..ANY };
const NO_TENANT: Ask = Ask { tenant: None, ..ANY };
const V6: Ask = Ask { from: "2001:db8:1:2::1", ..ANY };

/// A gateway whose two routes share one limit of 1 with this key.
fn start(upstream: &crate::support::Upstream, key: &str) -> Gateway {
    let routes: String = ["one", "two"]
        .map(|name| {
            format!(
                "[routes.{name}]\npath = \"/{name}\"\nupstream = \"shop\"\nauth = \"users\"\n\
                 limits = [\"once\"]\nsession = true\n"
            )
        })
        .concat();
    let rest = format!(
        "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[session]\nid_from = [\"cookie:sid\"]\n\
         [limits.once]\nkey = [{key}]\nallow = [\"1/1h\"]\n{routes}"
    );
    let gateway = Gateway::start(&(AUTH.to_owned() + &upstream.table("shop") + &rest));
    for id in ["s1", "s2"] {
        let path = format!("/v1/sessions/{id}?ttl=1h");
        assert_eq!(operate(&gateway, "PUT", &path, "{}").status, 201);
    }
    gateway
}

fn send(gateway: &Gateway, ask: Ask) -> u16 {
    let mut request = Client::get(gateway.public, ask.to)
        .header("X-Forwarded-For", ask.from)
        .header("Cookie", format!("sid={}", ask.sid))
        .bearer(token(claims(ask.sub)));
    if let Some(tenant) = ask.tenant {
        request = request.header("X-Tenant", tenant);
    }
    request.send().status
}

/// The first request takes the only unit: those that `share` its counter are refused, each of those
/// that stand `apart` passes.
fn check(key: &str, first: Ask, share: &[Ask], apart: &[Ask]) {
    let upstream = upstream();
    let gateway = start(&upstream, key);
    assert_eq!(send(&gateway, first), 200, "{key}: {first:?}");
    for ask in share {
        assert_eq!(send(&gateway, *ask), 429, "{key}: {ask:?} should share with {first:?}");
    }
    for ask in apart {
        assert_eq!(send(&gateway, *ask), 200, "{key}: {ask:?} should be apart from {first:?}");
    }
}

#[test]
fn by_address() {
    let same = [OTHER_SUB, OTHER_TENANT, OTHER_SESSION, OTHER_ROUTE];
    check("\"address\"", ANY, &same, &[OTHER_ADDRESS, V6]);
}

#[test]
fn an_ipv6_client_is_its_64() {
    let same =
        [Ask { from: "2001:db8:1:2:ffff::9", ..ANY }, Ask { from: "[2001:db8:1:2::1]:7", ..ANY }];
    check("\"address\"", V6, &same, &[Ask { from: "2001:db8:1:3::1", ..ANY }]);
}

#[test]
fn a_stranger_cannot_choose_its_address() {
    let upstream = upstream();
    let gateway = Gateway::start(&super::by_address(&upstream, "\"1/1h\""));
    let from = |address: &str| {
        let request = Client::get(gateway.public, "/").header("X-Forwarded-For", address);
        let request = request.header("Forwarded", format!("for={address}"));
        request.header("X-Real-IP", address).send().status
    };
    assert_eq!(from("198.51.100.1"), 200);
    assert_eq!(from("198.51.100.2"), 429);
}

#[test]
fn an_ipv4_address_in_ipv6_spelling_is_the_same_client() {
    check("\"address\"", ANY, &[Ask { from: "::ffff:198.51.100.1", ..ANY }], &[]);
}

#[test]
fn by_claim() {
    let same = [OTHER_ADDRESS, OTHER_TENANT, OTHER_SESSION, OTHER_ROUTE];
    check("\"claim:sub\"", ANY, &same, &[OTHER_SUB]);
}

#[test]
fn by_header() {
    let same = [OTHER_ADDRESS, OTHER_SUB, OTHER_SESSION, OTHER_ROUTE];
    let odd = Ask { tenant: Some("acme|claim:sub=alice"), ..ANY };
    check("\"header:x-tenant\"", ANY, &same, &[OTHER_TENANT, odd]);
}

#[test]
fn by_session() {
    let same = [OTHER_ADDRESS, OTHER_SUB, OTHER_TENANT, OTHER_ROUTE];
    check("\"session\"", ANY, &same, &[OTHER_SESSION]);
}

#[test]
fn by_route() {
    let same = [OTHER_ADDRESS, OTHER_SUB, OTHER_TENANT, OTHER_SESSION];
    check("\"route\"", ANY, &same, &[OTHER_ROUTE]);
}

#[test]
fn by_several_parts_together() {
    let key = "\"claim:sub\", \"header:x-tenant\", \"route\"";
    let same = [OTHER_ADDRESS, OTHER_SESSION];
    check(key, ANY, &same, &[OTHER_SUB, OTHER_TENANT, OTHER_ROUTE]);
}

#[test]
fn a_part_that_a_request_lacks_is_replaced_by_its_address() {
    let key = "\"header:x-tenant\"";
    let elsewhere = Ask { from: "198.51.100.2", ..NO_TENANT };
    check(key, NO_TENANT, &[Ask { sub: "bob", ..NO_TENANT }], &[elsewhere, ANY]);
    // A value cannot pass for an address.
    let forged = Ask { tenant: Some("198.51.100.1"), ..ANY };
    check(key, NO_TENANT, &[], &[forged]);
    let no_claim = "\"claim:plan\"";
    check(no_claim, ANY, &[OTHER_SUB, OTHER_TENANT], &[OTHER_ADDRESS]);
}

#[test]
fn a_claim_is_read_from_the_verified_token_alone() {
    let upstream = upstream();
    let gateway = start(&upstream, "\"claim:plan\"");
    let get = |plan: serde_json::Value| {
        let mut claims = claims("42");
        claims["plan"] = plan;
        Client::get(gateway.public, "/one").bearer(token(claims)).send().status
    };
    assert_eq!(get(json!("gold")), 200);
    assert_eq!(get(json!("gold")), 429);
    assert_eq!(get(json!("silver")), 200);
    assert_eq!(get(json!(7)), 200);
    assert_eq!(get(json!("7")), 200, "another value of the same text");
}

#[test]
fn keys_in_redis_have_the_documented_prefix_a_hash_tag_and_a_ttl() {
    let (redis, upstream) = (Redis::start(), upstream());
    let store =
        format!("[store]\nurl = \"{}\"\nprefix = \"shop-1\"\ntimeout = \"5s\"\n", redis.url());
    let config = store + &super::by_address(&upstream, "\"5/1h\", \"3/1m\"");
    let gateway = Gateway::start(&config);
    assert_eq!(Client::get(gateway.public, "/").send().status, 200);
    let all = redis.cli(&["KEYS", "*"]);
    assert!(all.lines().all(|key| key.starts_with("shop-1:")), "{all}");
    let keys = redis.cli(&["KEYS", "shop-1:ratelimit:*"]);
    assert_eq!(keys.lines().count(), 2, "{all}");
    for key in keys.lines() {
        assert!(key.starts_with("shop-1:ratelimit:{"), "{key}");
        let ttl: i64 = redis.cli(&["TTL", key]).parse().unwrap();
        assert!(ttl > 60, "{key}: {ttl}");
    }
    let tag = |key: &str| key.split(['{', '}']).nth(1).map(str::to_owned);
    let tags: Vec<_> = keys.lines().map(tag).collect();
    assert_eq!(tags[0], tags[1], "all windows of one principal lie in one slot");
}

#[test]
fn a_database_number_is_obeyed() {
    let (redis, upstream) = (Redis::start(), upstream());
    let config = super::store(&(redis.url() + "/3")) + &super::by_address(&upstream, "\"5/1h\"");
    let gateway = Gateway::start(&config);
    assert_eq!(Client::get(gateway.public, "/").send().status, 200);
    let databases = redis.cli(&["INFO", "keyspace"]);
    assert!(databases.contains("db3:keys=") && !databases.contains("db0"), "{databases}");
}
