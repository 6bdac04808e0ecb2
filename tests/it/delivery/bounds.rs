//! Bounds of a queue: how long and how many of what has ended are kept, and from when on operators
//! are warned of what waits.

use std::io::Write as _;

use serde_json::Value;

use super::kept::pause;
use super::{QUICK, accepted, bearer, metric, post, start, told, until, upstream};
use crate::support::{Client, Gateway, Redis, Upstream, eventually, operate, response};

/// Refuses what says so.
fn picky() -> Upstream {
    Upstream::with(|request, connection| {
        let status = if request.text() == "bad" { "400 Bad Request" } else { "200 OK" };
        let _ = connection.write_all(response(status, "said").as_bytes());
    })
}

/// Waits until nobody is told of a delivery any more, as of one that never was.
fn gone(gateway: &Gateway, bearer: &str, id: &str) {
    eventually("it is gone", || {
        let path = format!("/deliveries/{id}");
        Client::get(gateway.public, &path).bearer(bearer).send().status == 404
    });
}

fn items(gateway: &Gateway, state: &str) -> f64 {
    metric(gateway, "portcullis_queue_items", Some(("state", state)))
}

/// What is done goes with its answer after `keep`, what is dead with its body after `keep_dead`;
/// each has a time of its own.
#[test]
fn what_has_ended_is_kept_for_as_long_as_its_end_says() {
    for (lines, goes, stays) in [
        ("keep = \"1s\"\n", ("good", "done"), ("bad", "dead")),
        ("keep_dead = \"1s\"\n", ("bad", "dead"), ("good", "done")),
    ] {
        let (redis, upstream) = (Redis::start(), picky());
        let gateway = start(&redis, &upstream, &format!("{QUICK}{lines}"));
        let token = bearer("u1");
        let kept = accepted(&post(&gateway, "/mail", &token, stays.0));
        until(&gateway, &token, &kept, stays.1);
        let short = accepted(&post(&gateway, "/mail", &token, goes.0));
        eventually("both have ended", || {
            let of = |outcome| {
                metric(&gateway, "portcullis_queue_attempts_total", Some(("outcome", outcome)))
            };
            (of("done"), of("dead")) == (1.0, 1.0)
        });
        gone(&gateway, &token, &short);
        let left = || redis.cli(&["KEYS", &format!("app:queue:*{short}*")]);
        eventually("no part of it is left", || left().trim().is_empty());
        assert_eq!(told(&gateway, &token, &kept)["state"], stays.1, "{lines}");
        let path = format!("/deliveries/{kept}/response");
        let answer = Client::get(gateway.public, &path).bearer(&token).send();
        assert_eq!(answer.text(), "said", "{lines}");
    }
}

/// One that is dead drives out the oldest of those before it.
#[test]
fn no_more_dead_ones_are_kept_than_the_queue_says() {
    let (redis, upstream) = (Redis::start(), picky());
    let gateway = start(&redis, &upstream, &format!("{QUICK}max_dead = 2\n"));
    let token = bearer("u1");
    let dead = |_| {
        let id = accepted(&post(&gateway, "/mail", &token, "bad"));
        until(&gateway, &token, &id, "dead");
        id
    };
    let ids: Vec<String> = (0..2).map(dead).collect();
    eventually("both are counted", || items(&gateway, "dead") == 2.0);
    assert!(!gateway.stderr().contains("max_dead"), "{}", gateway.stderr());
    let more: Vec<String> = (0..2).map(dead).collect();
    for id in &ids {
        gone(&gateway, &token, id);
    }
    for id in &more {
        assert_eq!(told(&gateway, &token, id)["state"], "dead");
    }
    eventually("two are counted", || items(&gateway, "dead") == 2.0);
    eventually("it is said", || {
        gateway.stderr().contains("max_dead: the oldest dead ones are gone")
    });
}

/// Whether operators are told that too much waits: by the metric, by the findings.
fn warned(gateway: &Gateway) -> (bool, bool) {
    let overview = operate(gateway, "GET", "/v1/overview", "").json();
    let findings = overview["findings"].as_array().expect("a list").clone();
    let is_late = |it: &Value| it["id"] == "queue_late_mail";
    let is_warning = metric(gateway, "portcullis_queue_warning", None) == 1.0;
    (is_warning, findings.iter().any(is_late))
}

/// From one more than `warn.items` on, and from when the oldest is older than `warn.age`.
#[test]
fn operators_are_warned_while_more_waits_than_the_queue_says() {
    const SAID: &str = "more waits to be delivered than queues.mail.warn allows";
    for (bound, good, more) in [("items = 2", 2, 1), ("age = \"1s\"", 0, 1)] {
        let (redis, upstream) = (Redis::start(), upstream());
        let gateway = start(&redis, &upstream, &format!("{QUICK}warn = {{ {bound} }}\n"));
        let token = bearer("u1");
        pause(&gateway, "pause");
        let send = |_| accepted(&post(&gateway, "/mail", &token, "a"));
        let mut ids: Vec<String> = (0..good).map(send).collect();
        eventually("they are counted", || items(&gateway, "waiting") == f64::from(good));
        assert_eq!(warned(&gateway), (false, false), "{bound}: {}", gateway.stderr());
        assert!(!gateway.stderr().contains(SAID), "{bound}: {}", gateway.stderr());
        ids.extend((0..more).map(send));
        eventually("it is warned of", || warned(&gateway) == (true, true));
        eventually("it is said", || gateway.stderr().contains(SAID));
        pause(&gateway, "resume");
        for id in &ids {
            until(&gateway, &token, id, "done");
        }
        eventually("all is well", || warned(&gateway) == (false, false));
    }
}
