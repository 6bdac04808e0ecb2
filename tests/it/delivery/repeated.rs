//! What is sent again, and what is not.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{QUICK, accepted, bearer, config, metric, post, start, told, until, upstream};
use crate::support::{Client, Gateway, Redis, Upstream, eventually, response};

/// Answers each of the first requests with one of these, and all others with the last one.
fn answering(statuses: &'static [&'static str]) -> Upstream {
    let next = AtomicUsize::new(0);
    Upstream::with(move |_, connection| {
        let at = next.fetch_add(1, Ordering::SeqCst).min(statuses.len() - 1);
        let _ = connection.write_all(response(statuses[at], "said").as_bytes());
    })
}

#[test]
fn a_failure_is_repeated_with_the_same_key_until_it_is_none() {
    let redis = Redis::start();
    let upstream = answering(&[
        "503 Service Unavailable",
        "500 Internal Server Error",
        "409 Conflict",
        "200 OK",
    ]);
    let gateway = start(&redis, &upstream, QUICK);
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    let done = until(&gateway, &token, &id, "done");
    assert_eq!((&done["attempts"], &done["status"]), (&4.into(), &200.into()), "{done}");
    let sent = upstream.recorded();
    let of = |name: &str| -> Vec<_> { sent.iter().flat_map(|it| it.header(name)).collect() };
    assert_eq!(of("x-delivery-attempt"), ["1", "2", "3", "4"]);
    assert_eq!(of("idempotency-key"), [&*id; 4]);
    assert!(sent.iter().all(|it| it.text() == "a"));
    let retried = metric(&gateway, "portcullis_queue_attempts_total", Some(("outcome", "retry")));
    assert_eq!(retried, 3.0);
}

#[test]
fn a_refusal_is_not_repeated() {
    let redis = Redis::start();
    let upstream = answering(&["400 Bad Request"]);
    let gateway = start(&redis, &upstream, QUICK);
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    let dead = until(&gateway, &token, &id, "dead");
    assert_eq!((&dead["error"], &dead["status"]), (&"refused".into(), &400.into()), "{dead}");
    let path = format!("/deliveries/{id}/response");
    let answer = Client::get(gateway.public, &path).bearer(&token).send();
    assert_eq!((answer.status, answer.text().as_str()), (400, "said"));
    assert_eq!(upstream.seen(), 1);
}

/// What is a refusal to others may be none here: a service that is deployed anew, or one behind it.
#[test]
fn a_queue_says_after_which_other_answers_it_tries_again() {
    let redis = Redis::start();
    let upstream = answering(&["404 Not Found", "307 Temporary Redirect", "501 No", "200 OK"]);
    let lines = format!("{QUICK}retry_on = [\"404\", \"3xx\", \"501\"]\nattempts = 4\n");
    let gateway = start(&redis, &upstream, &lines);
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    let done = until(&gateway, &token, &id, "done");
    assert_eq!((&done["attempts"], &done["status"]), (&4.into(), &200.into()), "{done}");
    // What nobody has named stays a refusal, and an end is an end.
    for (status, lines, error, sent) in [
        ("400 Bad Request", "retry_on = [\"404\"]\n", "refused", 1),
        ("404 Not Found", "retry_on = [\"4xx\"]\nattempts = 3\n", "exhausted", 3),
    ] {
        let (redis, upstream) = (Redis::start(), Upstream::replying(response(status, "")));
        let gateway = start(&redis, &upstream, &format!("{QUICK}{lines}"));
        let id = accepted(&post(&gateway, "/mail", &token, "a"));
        assert_eq!(until(&gateway, &token, &id, "dead")["error"], error);
        assert_eq!(upstream.seen(), sent);
    }
}

/// A redirect is followed by nobody: its place may be anybody's.
#[test]
fn a_redirect_is_not_followed() {
    let (redis, elsewhere) = (Redis::start(), upstream());
    let location = format!("Location: {}/x\r\n", elsewhere.url());
    let upstream = Upstream::replying(format!(
        "HTTP/1.1 307 Temporary Redirect\r\n{location}Content-Length: 0\r\n\r\n"
    ));
    let gateway = start(&redis, &upstream, QUICK);
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    assert_eq!(until(&gateway, &token, &id, "dead")["status"], 307);
    assert_eq!((upstream.seen(), elsewhere.seen()), (1, 0));
}

#[test]
fn attempts_have_an_end() {
    let redis = Redis::start();
    let upstream = answering(&["500 Internal Server Error"]);
    let gateway = start(&redis, &upstream, &format!("{QUICK}attempts = 3\n"));
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    let dead = until(&gateway, &token, &id, "dead");
    assert_eq!((&dead["error"], &dead["status"]), (&"exhausted".into(), &500.into()), "{dead}");
    assert_eq!(upstream.seen(), 3);
}

/// An outage of the destination costs time and nothing else: the queue pauses, and all is delivered
/// when it is back.
#[test]
fn a_destination_that_is_away_burns_no_attempt() {
    let redis = Redis::start();
    // Bound and not listening: it refuses, and nobody else gets its port.
    let away = tokio::net::TcpSocket::new_v4().expect("a socket");
    away.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = away.local_addr().expect("its address");
    let text = config(&redis, &format!("http://{address}"), &format!("{QUICK}attempts = 1\n"));
    let gateway = Gateway::start(&text);
    let token = bearer("u1");
    let ids: Vec<String> =
        (0..8).map(|_| accepted(&post(&gateway, "/mail", &token, "a"))).collect();
    let paused = "app:queue:{mail.0}:pause";
    eventually("the queue pauses", || redis.cli(&["EXISTS", paused]) == "1");
    for id in &ids {
        let now = told(&gateway, &token, id);
        assert_eq!((&now["attempts"], now["state"] != "dead"), (&0.into(), true), "{now}");
    }
    drop(away);
    let back = Upstream::replying_at(address, response("200 OK", "sent")).expect("its port");
    for id in &ids {
        until(&gateway, &token, id, "done");
    }
    assert_eq!(back.seen(), ids.len());
}

/// Whatever was not answered may have been executed, and counts.
#[test]
fn a_connection_that_breaks_off_counts_as_an_attempt() {
    let redis = Redis::start();
    let upstream = Upstream::with(|_, connection| {
        let _ = connection.shutdown(std::net::Shutdown::Both);
    });
    let gateway = start(&redis, &upstream, &format!("{QUICK}attempts = 2\n"));
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    let dead = until(&gateway, &token, &id, "dead");
    assert_eq!(dead["error"], "exhausted", "{dead}");
    assert_eq!(upstream.seen(), 2);
}

/// The places are for requests that are under way, and no more is taken than there are.
#[test]
fn no_more_is_under_way_than_there_are_places() {
    let redis = Redis::start();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (busy, seen) = (Arc::clone(&now), Arc::clone(&most));
    // Nobody is answered until all that are sent have come.
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let upstream = Upstream::with(move |_, connection| {
        seen.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let _ = held.lock().expect("nobody panics with it").recv();
        busy.fetch_sub(1, Ordering::SeqCst);
        let _ = connection.write_all(response("200 OK", "").as_bytes());
    });
    let gateway = start(&redis, &upstream, &format!("{QUICK}concurrency = 2\n"));
    let token = bearer("u1");
    let ids: Vec<String> =
        (0..20).map(|_| accepted(&post(&gateway, "/mail", &token, "a"))).collect();
    let items = |state| metric(&gateway, "portcullis_queue_items", Some(("state", state)));
    eventually("two are under way, and the others wait", || {
        (items("delivering"), items("waiting")) == (2.0, 18.0)
    });
    eventually("both have come", || now.load(Ordering::SeqCst) == 2);
    drop(hold);
    for id in &ids {
        until(&gateway, &token, id, "done");
    }
    assert_eq!(upstream.seen(), ids.len());
    assert_eq!(most.load(Ordering::SeqCst), 2);
    assert_eq!(now.load(Ordering::SeqCst), 0);
}

/// The next pause would end long after its time: it is given up when that is over, not then.
#[test]
fn a_pause_ends_with_the_time_of_the_delivery() {
    let redis = Redis::start();
    let upstream = Upstream::replying(response("500 Internal Server Error", ""));
    let gateway = start(&redis, &upstream, "backoff = \"1h\"\nmax_age = \"1s\"\n");
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    assert_eq!(until(&gateway, &token, &id, "dead")["error"], "expired");
    assert_eq!(upstream.seen(), 1);
}
