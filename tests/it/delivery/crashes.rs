//! What becomes of requests when a gateway, or what the store has of them, dies in between.

use std::io::Write as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{QUICK, accepted, bearer, metric, post, start, told, until, upstream};
use crate::support::{Redis, Upstream, eventually, eventually_within, kill, response};

/// Longest wait for a lease of 5 s to run out, and for somebody to look for such.
const LEASE: Duration = Duration::from_secs(30);
/// A lease that runs out within a test.
const SHORT: &str = "lease = \"5s\"\nbackoff = \"20ms\"\n";

/// An upstream that answers each request once it is told to.
fn holding() -> (Upstream, Sender<()>) {
    let (tell, told) = channel();
    let told: Arc<Mutex<Receiver<()>>> = Arc::new(Mutex::new(told));
    let upstream = Upstream::with(move |_, connection| {
        if told.lock().unwrap().recv().is_ok() {
            let _ = connection.write_all(response("200 OK", "late").as_bytes());
        }
    });
    (upstream, tell)
}

/// A node that only accepts.
const ACCEPTS: &str = "concurrency = 0\n";

#[test]
fn what_was_accepted_outlives_the_gateway_that_did() {
    let (redis, upstream) = (Redis::start(), upstream());
    let mut first = start(&redis, &upstream, ACCEPTS);
    let token = bearer("u1");
    let ids: Vec<String> =
        (0..20).map(|at| accepted(&post(&first, "/mail", &token, &format!("{at}")))).collect();
    kill("KILL", first.pid());
    first.wait();
    assert_eq!(upstream.seen(), 0);
    let second = start(&redis, &upstream, QUICK);
    for id in &ids {
        until(&second, &token, id, "done");
    }
    let mut bodies: Vec<u32> =
        upstream.recorded().iter().map(|it| it.text().parse().expect("a number")).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, (0..20).collect::<Vec<_>>());
}

/// Nobody knows whether the upstream has acted: it is asked once more, under the same key.
#[test]
fn a_gateway_that_dies_while_it_delivers_costs_one_repeat() {
    let redis = Redis::start();
    let (upstream, answer) = holding();
    let mut first = start(&redis, &upstream, SHORT);
    let token = bearer("u1");
    let id = accepted(&post(&first, "/mail", &token, "a"));
    eventually("it is sent", || upstream.seen() == 1);
    kill("KILL", first.pid());
    first.wait();
    let second = start(&redis, &upstream, SHORT);
    eventually_within(LEASE, "somebody else has sent it", || upstream.seen() == 2);
    for _ in 0..2 {
        let _ = answer.send(());
    }
    let done = until(&second, &token, &id, "done");
    assert_eq!(done["status"], 200, "{done}");
    let sent = upstream.recorded();
    let keys: Vec<_> = sent.iter().flat_map(|it| it.header("idempotency-key")).collect();
    assert_eq!(keys, [&*id; 2]);
    let attempts: Vec<_> = sent.iter().flat_map(|it| it.header("x-delivery-attempt")).collect();
    assert_eq!(attempts, ["1", "2"]);
    assert_eq!(metric(&second, "portcullis_queue_stalled_total", None), 1.0);
    nothing_is_left(&redis);
}

/// Whatever ends one gateway after the other is given up before it ends them all.
#[test]
fn what_was_with_too_many_gateways_that_died_is_given_up() {
    let redis = Redis::start();
    let (upstream, answer) = holding();
    let lines = format!("{SHORT}max_stalls = 1\n");
    let token = bearer("u1");
    let mut first = start(&redis, &upstream, &lines);
    let id = accepted(&post(&first, "/mail", &token, "a"));
    eventually("it is sent", || upstream.seen() == 1);
    kill("KILL", first.pid());
    first.wait();
    let mut second = start(&redis, &upstream, &lines);
    eventually_within(LEASE, "it may end one gateway", || upstream.seen() == 2);
    kill("KILL", second.pid());
    second.wait();
    let third = start(&redis, &upstream, &lines);
    let state = || told(&third, &token, &id);
    eventually_within(LEASE, "it is given up", || state()["state"] == "dead");
    assert_eq!((&state()["error"], upstream.seen()), (&"stalled".into(), 2));
    drop(answer);
}

/// Nothing is left in the stream of a queue that is done, neither waiting nor claimed.
fn nothing_is_left(redis: &Redis) {
    let ready = "app:queue:{mail.0}:ready";
    eventually("nothing is claimed", || redis.cli(&["XPENDING", ready, "g"]).starts_with('0'));
    assert_eq!(redis.cli(&["XLEN", ready]), "0");
    assert_eq!(redis.cli(&["ZCARD", "app:queue:{mail.0}:open"]), "0");
}

/// The lease of what is under way was renewed so many times. It is done three times within one.
fn renewed(redis: &Redis, times: u32) {
    // Entries of the stream that are pending, with how long nothing was heard of them.
    let idle = || -> u64 {
        let pending = redis.cli(&["XPENDING", "app:queue:{mail.0}:ready", "g", "-", "+", "9"]);
        pending.lines().nth(2).and_then(|idle| idle.parse().ok()).unwrap_or(u64::MAX)
    };
    let (mut renewals, mut last) = (0, idle());
    eventually_within(LEASE * 3, "the lease is renewed again and again", || {
        let now = idle();
        renewals += u32::from(now < last);
        last = now;
        renewals >= times
    });
}

/// A delivery that takes longer than five leases is the holder's as long as he lives.
#[test]
fn a_slow_delivery_is_not_taken_for_a_dead_one() {
    let redis = Redis::start();
    let (upstream, answer) = holding();
    let (first, second) = (start(&redis, &upstream, SHORT), start(&redis, &upstream, SHORT));
    let token = bearer("u1");
    let id = accepted(&post(&first, "/mail", &token, "a"));
    eventually("it is sent", || upstream.seen() == 1);
    renewed(&redis, 15);
    let _ = answer.send(());
    let done = until(&second, &token, &id, "done");
    assert_eq!((&done["attempts"], upstream.seen()), (&1.into(), 1), "{done}");
    for gateway in [&first, &second] {
        assert_eq!(metric(gateway, "portcullis_queue_stalled_total", None), 0.0);
    }
    nothing_is_left(&redis);
}

/// What waits for the one place of a gateway is nobody's yet: it grows old in no hand.
#[test]
fn what_waits_behind_a_slow_delivery_is_sent_once() {
    let redis = Redis::start();
    let (upstream, answer) = holding();
    let one_place = format!("{SHORT}concurrency = 1\n");
    let first = start(&redis, &upstream, &one_place);
    let token = bearer("u1");
    let ids: Vec<String> =
        (0..16).map(|at| accepted(&post(&first, "/mail", &token, &format!("{at}")))).collect();
    eventually("one is sent", || upstream.seen() == 1);
    // More than a lease, with all others ready.
    renewed(&redis, 5);
    let pending = || redis.cli(&["XPENDING", "app:queue:{mail.0}:ready", "g"]);
    assert!(pending().starts_with("1\n"), "one place, one claim: {}", pending());
    assert_eq!(upstream.seen(), 1);
    // Another one has a place of its own, and takes none of what the first one has.
    let second = start(&redis, &upstream, &one_place);
    eventually("it takes one", || upstream.seen() == 2);
    assert!(pending().starts_with("2\n"), "{}", pending());
    for _ in &ids {
        let _ = answer.send(());
    }
    for id in &ids {
        assert_eq!(until(&second, &token, id, "done")["attempts"], 1);
    }
    let mut bodies: Vec<u32> =
        upstream.recorded().iter().map(|it| it.text().parse().expect("a number")).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, (0..16).collect::<Vec<_>>());
    for gateway in [&first, &second] {
        assert_eq!(metric(gateway, "portcullis_queue_stalled_total", None), 0.0);
    }
    nothing_is_left(&redis);
}

/// Whoever ends in order leaves nothing to wait for.
#[test]
fn a_gateway_that_drains_gives_back_what_it_has_not_delivered() {
    let redis = Redis::start();
    let (upstream, answer) = holding();
    let long = "lease = \"10m\"\n";
    let text = super::config(&redis, &upstream.url(), long);
    let mut first = crate::support::Gateway::start(&format!("[server]\ndrain = \"100ms\"\n{text}"));
    let token = bearer("u1");
    let id = accepted(&post(&first, "/mail", &token, "a"));
    eventually("it is sent", || upstream.seen() == 1);
    first.signal("TERM");
    assert!(first.wait().success());
    let second = start(&redis, &upstream, long);
    eventually("another one has sent it", || upstream.seen() == 2);
    for _ in 0..2 {
        let _ = answer.send(());
    }
    let done = until(&second, &token, &id, "done");
    assert_eq!(done["attempts"], 1, "{done}");
    nothing_is_left(&redis);
}

/// The stream is gone, and with it the order of what waits; nothing else is.
#[test]
fn a_lost_stream_loses_nothing() {
    let (redis, upstream) = (Redis::start(), upstream());
    let accepting = start(&redis, &upstream, ACCEPTS);
    let token = bearer("u1");
    let ids: Vec<String> =
        (0..20).map(|_| accepted(&post(&accepting, "/mail", &token, "a"))).collect();
    assert_eq!(redis.cli(&["DEL", "app:queue:{mail.0}:ready"]), "1");
    let delivering = start(&redis, &upstream, QUICK);
    for id in &ids {
        until(&delivering, &token, id, "done");
    }
    assert_eq!(upstream.seen(), ids.len());
    // Once more, while somebody reads it.
    assert_eq!(redis.cli(&["DEL", "app:queue:{mail.0}:ready"]), "1");
    let id = accepted(&post(&accepting, "/mail", &token, "b"));
    until(&delivering, &token, &id, "done");
    eventually("the loss is counted", || {
        metric(&delivering, "portcullis_queue_resets_total", None) >= 1.0
    });
    nothing_is_left(&redis);
}

/// An entry that somebody deleted by hand while it was claimed stays in the list of the claimed
/// ones, and is never handed out again. Whoever looks next for what the stream has lost, which is
/// done once an hour, puts its item back, and the list is empty at the end.
#[test]
fn an_entry_that_was_deleted_while_it_was_claimed_is_put_back() {
    let redis = Redis::start();
    let (upstream, answer) = holding();
    let mut first = start(&redis, &upstream, SHORT);
    let token = bearer("u1");
    let id = accepted(&post(&first, "/mail", &token, "a"));
    eventually("it is sent", || upstream.seen() == 1);
    let ready = "app:queue:{mail.0}:ready";
    let pending = redis.cli(&["XPENDING", ready, "g", "-", "+", "9"]);
    let entry = pending.lines().next().expect("an entry");
    assert_eq!(redis.cli(&["XDEL", ready, entry]), "1");
    kill("KILL", first.pid());
    first.wait();
    // An hour later.
    assert_eq!(redis.cli(&["DEL", "app:queue:{mail.0}:repaired"]), "1");
    let second = start(&redis, &upstream, SHORT);
    eventually_within(LEASE, "somebody else has sent it", || upstream.seen() == 2);
    for _ in 0..2 {
        let _ = answer.send(());
    }
    until(&second, &token, &id, "done");
    nothing_is_left(&redis);
}

/// Whoever holds an entry deletes it by its number alone: it must not be another's by then. Within
/// one script no time passes.
#[test]
fn a_stream_that_is_made_anew_gives_no_number_again() {
    let redis = Redis::start();
    let code = concat!(
        include_str!("../../../src/store/scripts/q_entry.lua"),
        "redis.call('XADD', KEYS[1], '0-1', 'i', 'first')
        local t = redis.call('TIME')
        local now = t[1] * 1000 + math.floor(t[2] / 1000)
        local numbers = {put(1, 'a', now), put(1, 'b', now)}
        redis.call('DEL', KEYS[1])
        numbers[3], numbers[4] = put(1, 'c', now), put(1, 'd', now)
        return numbers",
    );
    let said = redis.cli(&["EVAL", code, "1", "queue"]);
    let numbers: Vec<&str> = said.split_whitespace().collect();
    let distinct: std::collections::BTreeSet<_> = numbers.iter().collect();
    assert_eq!((numbers.len(), distinct.len()), (4, 4), "{said}");
}

/// Two gateways take from one queue, and nothing twice.
#[test]
fn a_fleet_delivers_each_request_once() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateways = [start(&redis, &upstream, QUICK), start(&redis, &upstream, QUICK)];
    let token = bearer("u1");
    let ids: Vec<String> = (0..60)
        .map(|at| accepted(&post(&gateways[at % 2], "/mail", &token, &format!("{at}"))))
        .collect();
    for id in &ids {
        until(&gateways[0], &token, id, "done");
    }
    let sent = upstream.recorded();
    let distinct: std::collections::BTreeSet<String> = sent.iter().map(|it| it.text()).collect();
    assert_eq!((sent.len(), distinct.len()), (60, 60));
}
