//! Clients that leave, and gateways that die.

use super::{Redis, begin, expect, gateway, holding, post, told, with_code};
use crate::support::{eventually, eventually_within};
use std::time::Duration;

/// The exchange goes on, and whoever comes back gets its answer.
#[test]
fn a_client_that_leaves_finds_its_answer_when_it_comes_back() {
    let (upstream, held) = holding();
    let redis = Redis::start();
    let gateways = [0, 1].map(|_| gateway(&upstream, &redis.url(), "", ""));
    let first = begin(&gateways[0], "k", "a");
    held.wait();
    drop(first);
    let again = post(&gateways[1], "k", "a");
    assert_eq!(with_code(&again), expect(409, "idempotency_in_progress"));
    held.let_go();
    eventually("it is answered", || post(&gateways[1], "k", "a").status == 200);
    assert_eq!(upstream.seen(), 1);
    assert_eq!(told(&gateways[0], 1), ["first"]);
}

/// The same of a gateway that ends: it waits for what goes on without its client.
#[test]
fn the_end_of_a_gateway_waits_for_what_goes_on() {
    let (upstream, held) = holding();
    let redis = Redis::start();
    let mut ending = gateway(&upstream, &redis.url(), "", "");
    let staying = gateway(&upstream, &redis.url(), "", "");
    let first = begin(&ending, "k", "a");
    held.wait();
    drop(first);
    ending.signal("TERM");
    eventually("it drains", || ending.stderr().contains("draining"));
    held.let_go();
    assert!(ending.wait().success());
    assert_eq!(post(&staying, "k", "a").text(), "done");
    assert_eq!(upstream.seen(), 1);
}

/// A key is not held for ever by a gateway that has died, nor is its request sent once more.
#[test]
fn a_gateway_that_dies_leaves_an_unknown_outcome() {
    let (upstream, held) = holding();
    let redis = Redis::start();
    let [dying, other] = [0, 1].map(|_| gateway(&upstream, &redis.url(), "", ""));
    let _first = begin(&dying, "k", "a");
    held.wait();
    dying.signal("KILL");
    let again = post(&other, "k", "a");
    assert_eq!(with_code(&again), expect(409, "idempotency_in_progress"));
    // The upstream's second, and five more.
    eventually_within(Duration::from_secs(30), "nobody waits for it any more", || {
        with_code(&post(&other, "k", "a")) == expect(409, "idempotency_outcome_unknown")
    });
    assert_eq!(upstream.seen(), 1);
}
