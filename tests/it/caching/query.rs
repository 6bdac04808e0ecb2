//! Queries with parameters that make no difference: one copy for all of them, and an upstream that
//! never sees what the key does not have.

use std::io::Write as _;

use super::{House, is_hit};
use crate::support::{Client, Reply, Upstream, operate, response};

/// Answers with the target that it was asked for.
fn echo() -> Upstream {
    Upstream::with(|request, connection| {
        let head = "200 OK\r\nCache-Control: max-age=600";
        let _ = connection.write_all(response(head, request.target()).as_bytes());
    })
}

fn house(query: &str) -> House {
    let routes = format!(
        "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\ncache = {{ query = {query} }}\n\
         [routes.plain]\npath = \"/plain\"\nupstream = \"shop\"\n"
    );
    House::with_routes(echo(), &routes)
}

fn get(house: &House, gateway: usize, target: &str) -> Reply {
    let address = house.gateways[gateway].public;
    Client::get(address, target).header("Host", "shop.test").send()
}

/// What the upstream was asked for, in order.
fn asked(house: &House) -> Vec<String> {
    house.upstream.recorded().iter().map(|request| request.target().to_owned()).collect()
}

#[test]
fn what_is_ignored_is_neither_in_the_key_nor_in_what_the_upstream_gets() {
    let house = house(r#"{ ignore = ["utm_*", "fbclid"], sort = true }"#);
    let first = get(&house, 0, "/p?utm_source=%3Cscript%3E&b=2&a=1&fbclid=poison&b=1");
    assert_eq!((is_hit(&first), first.text().as_str()), (false, "/p?a=1&b=2&b=1"));
    house.wait_for_entries(1);
    for (number, same) in
        ["/p?a=1&b=2&b=1", "/p?b=2&b=1&a=1&utm_x", "/p?b=2&fbclid&a=1&b=1"].into_iter().enumerate()
    {
        let reply = get(&house, number % 2, same);
        assert_eq!((is_hit(&reply), reply.text().as_str()), (true, "/p?a=1&b=2&b=1"), "{same}");
    }
    let head = Client::request(house.gateways[1].public, "HEAD", "/p?fbclid=1&b=2&b=1&a=1");
    assert!(is_hit(&head.header("Host", "shop.test").send()));
    assert_eq!(asked(&house), ["/p?a=1&b=2&b=1"]);
    // Everything else tells responses apart: repeats in another order, spellings, an empty query.
    house.upstream.forget();
    let others = ["/p?a=1&b=1&b=2", "/p?%61=1&b=2&b=1", "/p?a=1&b=2;b=1", "/p?", "/p"];
    for other in others {
        assert_eq!(get(&house, 0, other).text(), other);
    }
    assert_eq!(asked(&house), others);
    house.upstream.forget();
    assert!(is_hit(&get(&house, 0, "/p?utm_source=x")), "none at all is left, as in /p");
    assert_eq!(house.upstream.seen(), 0);
}

#[test]
fn what_is_kept_is_all_that_the_upstream_gets() {
    let house = house(r#"{ keep = ["page"] }"#);
    assert_eq!(get(&house, 0, "/p?x=poison&page=2&page=1&Page=3").text(), "/p?page=2&page=1");
    house.wait_for_entries(1);
    assert!(is_hit(&get(&house, 1, "/p?page=2&y&page=1")));
    assert!(!is_hit(&get(&house, 1, "/p?page=1&page=2")), "the order still counts");
    assert_eq!(asked(&house), ["/p?page=2&page=1", "/p?page=1&page=2"]);
}

#[test]
fn other_methods_and_other_routes_keep_their_queries_and_writes_empty_the_cache() {
    let house = house(r#"{ ignore = ["fbclid"], sort = true }"#);
    let written = "/p?fbclid=1&b&a";
    assert!(!is_hit(&get(&house, 0, written)));
    house.wait_for_entries(1);
    assert!(is_hit(&get(&house, 1, "/p?a&b")));
    house.upstream.forget();
    assert_eq!(house.request(0, "POST", written).text(), written);
    assert_eq!(house.request(0, "OPTIONS", written).text(), written);
    assert_eq!(get(&house, 0, "/plain?fbclid=1&b&a").text(), "/plain?fbclid=1&b&a");
    house.upstream.forget();
    let host = |request: &str| {
        Client::request(house.gateways[0].public, request, written).header("Host", "shop.test")
    };
    assert!(is_hit(&get(&house, 1, "/p?b&a")), "another host was written to");
    host("DELETE").send();
    assert!(!is_hit(&get(&house, 1, "/p?b&a&fbclid=2")), "a write by any query");
    assert_eq!(asked(&house), [written, "/p?a&b"]);
    let purged = operate(
        &house.gateways[1],
        "POST",
        "/v1/cache/purge",
        r#"{"url": "http://shop.test/p?b&fbclid=3&a"}"#,
    );
    assert_eq!(purged.status, 200, "{}", purged.text());
    assert!(!is_hit(&get(&house, 0, "/p?a&b")), "a purge by any query");
}
