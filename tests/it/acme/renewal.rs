//! When a certificate is renewed, and how often.

use super::{LONG, Node, ask_all};
use crate::support::{Pebble, Redis, eventually};

const QUICK: &str = "challenges = ['http-01']\nlease = '1s'\nfollow = '100ms'\nretry = '1s'\n\
                     same_orders = '1000/1h'\norders = '1000/1h'";

#[test]
fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
    let (pebble, redis) = (Pebble::start(5), Redis::start());
    pebble.hold("dir");
    let nodes = [(); 2].map(|()| Node::of_fleet(&pebble, &redis.url(), "['a.test']", QUICK));
    ask_all(&pebble, &nodes.each_ref());
    pebble.release();
    let client = pebble.client();
    let first = nodes[0].shows(&client, "a.test");
    eventually("both have another", || {
        nodes.iter().all(|node| node.shows(&client, "a.test") != first)
    });
    for node in &nodes {
        assert!(!node.gateway.stderr().contains("was not issued"), "{}", node.gateway.stderr());
    }
}

#[test]
fn the_authority_chooses_the_time_and_learns_what_is_replaced() {
    let pebble = Pebble::start(LONG);
    // The past: at once (RFC 9773 §4.2).
    pebble.want_renewal((1_000_000_000, 1_000_000_001));
    let acme = format!("{QUICK}\ncheck = '1s'");
    let node = Node::alone(&pebble, "['a.test']", &acme);
    let client = pebble.client();
    let first = node.shows(&client, "a.test");
    eventually("there is another", || node.shows(&client, "a.test") != first);
    eventually("it is said what is replaced", || !pebble.replaced().is_empty());
    assert!(pebble.replaced()[0].contains('.'), "{:?}", pebble.replaced());
}

#[test]
fn an_authority_that_says_to_wait_for_ever_stops_nobody() {
    let pebble = Pebble::start(LONG);
    pebble.want_renewal((1_000_000_000, 1_000_000_001));
    pebble.want_retry_after("18446744073709551615");
    let node = Node::alone(&pebble, "['a.test']", &format!("{QUICK}\ncheck = '1s'"));
    let client = pebble.client();
    let first = node.shows(&client, "a.test");
    eventually("there is another", || node.shows(&client, "a.test") != first);
    assert!(!node.gateway.stderr().contains("panicked"), "{}", node.gateway.stderr());
}

#[test]
fn the_authority_may_wait_longer_than_we_would() {
    let pebble = Pebble::start(30);
    // Far beyond its end: a twentieth of its life bounds that.
    pebble.want_renewal((4_000_000_000, 4_000_000_001));
    let node = Node::alone(&pebble, "['a.test']", &format!("{QUICK}\ncheck = '100ms'"));
    node.connects(&pebble.client(), "a.test");
    node.says("state=\"fresh\"");
    eventually("the authority is asked when", || pebble.count("renewal") == 1);
}

#[test]
fn another_name_or_another_authority_is_another_certificate() {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    let node = Node::of_fleet(&pebble, &redis.url(), "['a.test']", QUICK);
    ask_all(&pebble, &[&node]);
    node.connects(&pebble.client(), "a.test");
    drop(node);
    let more = Node::of_fleet(&pebble, &redis.url(), "[['a.test', 'b.test']]", QUICK);
    ask_all(&pebble, &[&more]);
    more.connects(&pebble.client(), "b.test");
    assert_eq!((pebble.orders(), pebble.accounts()), (2, 1));
    drop(more);
    let other = Pebble::start(LONG);
    let moved = Node::of_fleet(&other, &redis.url(), "[['a.test', 'b.test']]", QUICK);
    ask_all(&other, &[&moved]);
    moved.connects(&other.client(), "a.test");
    assert_eq!((other.orders(), other.accounts()), (1, 1));
}
