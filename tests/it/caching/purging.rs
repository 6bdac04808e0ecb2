//! Purging through the admin API of one gateway, in force at all.

use super::{House, is_hit, plain};
use crate::support::{Client, Reply};

fn purge(house: &House, body: &str) -> Reply {
    let admin = house.gateways[0].admin;
    Client::request(admin, "POST", "/v1/cache/purge")
        .header("Host", admin.to_string())
        .header("Content-Type", "application/json")
        .body(body)
        .send()
}

/// Host and path of everything that is cached before each purge.
const CACHED: [(&str, &str); 6] = [
    ("a.test", "/"),
    ("a.test", "/p"),
    ("a.test", "/p?q=1"),
    ("a.test", "/p/1"),
    ("b.test", "/p"),
    ("b.test", "/other"),
];

/// After this purge exactly these are gone, at both gateways.
fn check(body: &str, gone: &[(&str, &str)]) {
    let house = House::start(plain());
    let get = |gateway: usize, host: &str, path: &str| {
        let address = house.gateways[gateway].public;
        is_hit(&Client::get(address, path).header("Host", host).send())
    };
    for (host, path) in CACHED {
        assert!(!get(0, host, path), "{host}{path}");
    }
    house.wait_for_entries(CACHED.len());
    for (host, path) in CACHED {
        assert!(get(1, host, path), "{host}{path}");
    }
    let reply = purge(&house, body);
    assert_eq!(reply.status, 200, "{body}: {}", reply.text());
    // What is gone is fetched and stored again by the first that asks, so each asks for half.
    for (number, (host, path)) in CACHED.into_iter().enumerate() {
        let hit = get(number % 2, host, path);
        assert_eq!(!hit, gone.contains(&(host, path)), "{host}{path} after {body}");
    }
}

#[test]
fn by_url() {
    check(r#"{"url": "http://a.test/p"}"#, &[("a.test", "/p"), ("a.test", "/p?q=1")]);
    check(r#"{"url": "http://A.test:80/x/../p?q=1"}"#, &[("a.test", "/p"), ("a.test", "/p?q=1")]);
    check(r#"{"url": "http://c.test/p"}"#, &[]);
}

#[test]
fn by_path() {
    let below_p = [("a.test", "/p"), ("a.test", "/p?q=1"), ("a.test", "/p/1"), ("b.test", "/p")];
    check(r#"{"path": "/p/*"}"#, &below_p);
    check(r#"{"path": "/other"}"#, &[("b.test", "/other")]);
    check(r#"{"path": "/*"}"#, &CACHED);
}

#[test]
fn everything() {
    check(r#"{"all": true}"#, &CACHED);
}

#[test]
fn what_names_nothing_or_too_much_is_refused_and_purges_nothing() {
    let house = House::start(plain());
    house.get(0, "/p");
    for body in [
        "",
        "{}",
        "[]",
        r#"{"all": false}"#,
        r#"{"all": "yes"}"#,
        r#"{"pth": "/p"}"#,
        r#"{"path": "p"}"#,
        r#"{"path": "/a%2fb"}"#,
        r#"{"url": "/p"}"#,
        r#"{"url": "http://a.test/p", "all": true}"#,
    ] {
        let reply = purge(&house, body);
        assert_eq!(reply.status, 400, "{body}: {}", reply.text());
    }
    assert!(is_hit(&house.get(0, "/p")));
}
