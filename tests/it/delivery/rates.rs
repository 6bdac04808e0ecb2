//! How fast a queue is delivered, by all gateways together.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{QUICK, accepted, bearer, config, metric, post, start, until, upstream};
use crate::support::{Gateway, Redis, Upstream, eventually, operate, response};

/// An upstream that notes when requests came.
fn timed() -> (Upstream, Arc<Mutex<Vec<Instant>>>) {
    let came: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let noted = Arc::clone(&came);
    let upstream = Upstream::with(move |_, connection| {
        noted.lock().unwrap().push(Instant::now());
        let _ = std::io::Write::write_all(connection, response("200 OK", "").as_bytes());
    });
    (upstream, came)
}

/// Each is counted before it is sent, so no request comes before the window that it is in.
#[test]
fn a_queue_is_delivered_no_faster_than_its_rate() {
    const MOST: usize = 10;
    const WINDOW: Duration = Duration::from_millis(600);
    let redis = Redis::start();
    let (upstream, came) = timed();
    let queue = format!("{QUICK}rate = \"{MOST}/600ms\"\n");
    let gateways = [start(&redis, &upstream, &queue), start(&redis, &upstream, &queue)];
    let token = bearer("u1");
    let began = Instant::now();
    let ids: Vec<String> = (0..50)
        .map(|at| accepted(&post(&gateways[at % 2], "/mail", &token, &format!("{at}"))))
        .collect();
    for id in &ids {
        until(&gateways[0], &token, id, "done");
    }
    let mut came: Vec<Duration> =
        came.lock().unwrap().iter().map(|at| at.duration_since(began)).collect();
    came.sort_unstable();
    assert_eq!(came.len(), ids.len());
    // The clocks of the store and of this test may drift apart by a hundredth.
    let earliest = |number: usize| WINDOW.mul_f64(0.99 * (number / MOST) as f64);
    for (number, at) in came.iter().enumerate() {
        assert!(*at >= earliest(number), "{number} came at {at:?}: {came:?}");
    }
}

/// A gateway that finds nothing to take leaves the room to others, and to later.
#[test]
fn what_a_rate_has_granted_in_vain_is_given_back() {
    let (redis, upstream) = (Redis::start(), upstream());
    let queue = format!("{QUICK}rate = \"4/1h\"\n");
    let gateways = [start(&redis, &upstream, &queue), start(&redis, &upstream, &queue)];
    let token = bearer("u1");
    for number in 0..4 {
        let id = accepted(&post(&gateways[number % 2], "/mail", &token, "a"));
        until(&gateways[0], &token, &id, "done");
    }
    assert_eq!(upstream.seen(), 4);
}

/// The rate is there again for what follows.
#[test]
fn what_is_taken_and_not_sent_costs_nothing() {
    let (redis, upstream) = (Redis::start(), upstream());
    let queue = format!("{QUICK}rate = \"2/1h\"\nrecheck = true\n");
    let open = "[routes.open]\npath = \"/open\"\nmethods = [\"POST\"]\nupstream = \"mailer\"\n";
    let whole = config(&redis, &upstream.url(), &queue);
    let gateway = Gateway::start(&whole.replacen(open, &format!("{open}auth = \"users\"\n"), 1));
    let (gone, here) = (bearer("u1"), bearer("u2"));
    let pause = |word: &str| {
        assert_eq!(operate(&gateway, "POST", &format!("/v1/queues/mail/{word}"), "").status, 200);
    };
    pause("pause");
    let revoked: Vec<_> = (0..3).map(|_| accepted(&post(&gateway, "/mail", &gone, "a"))).collect();
    let reply = operate(&gateway, "POST", "/v1/revocations", "{\"sub\":\"u1\"}");
    assert_eq!(reply.status, 201, "{}", reply.text());
    let sent: Vec<_> = (0..2).map(|_| accepted(&post(&gateway, "/mail", &here, "a"))).collect();
    pause("resume");
    for id in &sent {
        until(&gateway, &here, id, "done");
    }
    for id in &revoked {
        let shown = operate(&gateway, "GET", &format!("/v1/deliveries/{id}"), "").json();
        assert_eq!((&shown["state"], &shown["error"]), (&json!("dead"), &json!("revoked")));
    }
    assert_eq!(upstream.seen(), 2);
}

/// Nobody knows how much others have sent: nothing is.
#[test]
fn without_the_store_of_limits_nothing_is_sent() {
    let (mut limits, queues) = (Redis::start(), Redis::start());
    let upstream = upstream();
    let url = format!("url = \"{}\"\n", queues.url());
    let own = format!("{url}[store.limits]\nurl = \"{}\"\n", limits.url());
    let whole = config(&queues, &upstream.url(), &format!("{QUICK}rate = \"100/1s\"\n"));
    let gateway = Gateway::start(&whole.replacen(&url, &own, 1));
    let token = bearer("u1");
    let first = accepted(&post(&gateway, "/mail", &token, "a"));
    until(&gateway, &token, &first, "done");
    limits.kill();
    let second = accepted(&post(&gateway, "/mail", &token, "b"));
    eventually("it has waited", || {
        metric(&gateway, "portcullis_queue_oldest_seconds", None) >= 2.0
    });
    assert_eq!(upstream.seen(), 1);
    limits.restart();
    until(&gateway, &token, &second, "done");
}
