//! What metrics say of a queue: what it holds, since when, and how long attempts take.

use std::io::Write as _;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::kept::pause;
use super::{QUICK, accepted, bearer, metric, post, start, until, upstream};
use crate::support::{Redis, Upstream, eventually, response};

/// Bytes of the bodies that Redis has, and of what lies beside each.
fn stored_bytes(redis: &Redis) -> f64 {
    let all = |kind: &str| redis.cli(&["KEYS", &format!("app:queue:*:{kind}:*")]);
    let number = |text: String| text.trim().parse::<f64>().expect("a number");
    let bodies = all("body");
    let bodies = bodies.lines().map(|key| number(redis.cli(&["STRLEN", key])));
    let items = all("item");
    let heads = items.lines().map(|key| number(redis.cli(&["HSTRLEN", key, "h"])));
    bodies.sum::<f64>() + heads.sum::<f64>()
}

/// How much waits, for how long, and that nobody takes it; and that all of this ends.
#[test]
fn what_a_queue_holds_is_told_until_it_is_delivered() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream, QUICK);
    let now = |name: &str| metric(&gateway, &format!("portcullis_queue_{name}"), None);
    let token = bearer("u1");
    pause(&gateway, "pause");
    eventually("it is paused", || now("paused") == 1.0);
    assert_eq!((now("bytes"), now("oldest_seconds")), (0.0, 0.0));
    let began = Instant::now();
    let ids: Vec<String> = [5000, 300]
        .iter()
        .map(|bytes| accepted(&post(&gateway, "/mail", &token, &"x".repeat(*bytes))))
        .collect();
    let there = stored_bytes(&redis);
    assert!(there > 5300.0, "{there}");
    eventually("all bytes are told", || now("bytes") == there);
    eventually("it grows old", || now("oldest_seconds") >= 1.5);
    let (oldest, whole) = (now("oldest_seconds"), began.elapsed().as_secs_f64());
    // As old as it is; Redis has a clock of its own.
    assert!(oldest <= whole + 1.0, "{oldest} of {whole}");
    pause(&gateway, "resume");
    for id in &ids {
        until(&gateway, &token, id, "done");
    }
    eventually("nothing is left of it", || {
        (now("bytes"), now("oldest_seconds"), now("paused")) == (0.0, 0.0, 0.0)
    });
}

/// An attempt takes from when it begins until it has ended, a delivery from when it was accepted.
#[test]
fn attempts_and_deliveries_take_as_long_as_they_do() {
    let (tell, told) = channel::<&'static str>();
    let told = Arc::new(Mutex::new(told));
    let upstream = Upstream::with(move |_, connection| {
        if let Ok(status) = told.lock().unwrap().recv() {
            let _ = connection.write_all(response(status, "").as_bytes());
        }
    });
    let redis = Redis::start();
    let gateway = start(&redis, &upstream, QUICK);
    let now = |name: &str| metric(&gateway, &format!("portcullis_queue_{name}"), None);
    let token = bearer("u1");
    let began = Instant::now();
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    eventually("the first attempt waits", || upstream.seen() == 1);
    let first = Instant::now();
    eventually("it has taken a while", || now("oldest_seconds") >= 1.0);
    let first = first.elapsed().as_secs_f64();
    assert_eq!(now("attempt_seconds_count"), 0.0, "it has not ended");
    tell.send("500 Internal Server Error").expect("somebody waits");
    eventually("the second one waits", || upstream.seen() == 2);
    eventually("the first one is told of", || now("attempt_seconds_count") == 1.0);
    let one = now("attempt_seconds_sum");
    assert!(one >= first && one <= began.elapsed().as_secs_f64(), "{one} of {first}");
    assert_eq!(now("delivery_seconds_count"), 0.0, "it is not delivered");
    tell.send("200 OK").expect("somebody waits");
    until(&gateway, &token, &id, "done");
    eventually("both are told of", || now("attempt_seconds_count") == 2.0);
    let (both, whole) = (now("attempt_seconds_sum"), began.elapsed().as_secs_f64());
    assert!(both > one && both <= whole, "{one}, {both} of {whole}");
    eventually("the delivery is told of", || now("delivery_seconds_count") == 1.0);
    let delivered = now("delivery_seconds_sum");
    assert!(delivered >= first && delivered <= began.elapsed().as_secs_f64() + 1.0, "{delivered}");
}
