//! Lines that what is dead holds up, and queues that take nothing more.

use serde_json::json;

use super::{QUICK, accepted, bearer, config, post, told, until, upstream};
use crate::support::{Gateway, Redis, Upstream, eventually, operate, response};

/// Refuses what says so, until it is told otherwise.
fn picky() -> (Upstream, std::sync::Arc<std::sync::atomic::AtomicBool>) {
    let refuses = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let state = std::sync::Arc::clone(&refuses);
    let upstream = Upstream::with(move |request, connection| {
        let is_refused =
            request.text().starts_with("bad") && state.load(std::sync::atomic::Ordering::SeqCst);
        let status = if is_refused { "400 Bad Request" } else { "200 OK" };
        let _ = std::io::Write::write_all(connection, response(status, "").as_bytes());
    });
    (upstream, refuses)
}

#[test]
fn what_is_dead_holds_up_its_line_until_somebody_has_dealt_with_it() {
    let redis = Redis::start();
    let (upstream, refuses) = picky();
    let lines = format!("{QUICK}order_by = \"claim:sub\"\non_dead_line = \"stop\"\n");
    let gateway = Gateway::start(&config(&redis, &upstream.url(), &lines));
    let (one, other) = (bearer("u1"), bearer("u2"));
    let bad = accepted(&post(&gateway, "/mail", &one, "bad"));
    let behind = accepted(&post(&gateway, "/mail", &one, "behind"));
    until(&gateway, &one, &bad, "dead");
    let free = accepted(&post(&gateway, "/mail", &other, "free"));
    until(&gateway, &other, &free, "done");
    assert_eq!(told(&gateway, &one, &behind)["state"], "behind");
    refuses.store(false, std::sync::atomic::Ordering::SeqCst);
    let again = format!("/v1/deliveries/{bad}/requeue");
    assert_eq!(operate(&gateway, "POST", &again, "{}").status, 200);
    until(&gateway, &one, &behind, "done");
    assert_eq!(told(&gateway, &one, &bad)["state"], "done");
    let sent: Vec<_> = upstream.recorded().iter().map(|it| it.text()).collect();
    assert_eq!(sent, ["bad", "free", "bad", "behind"]);
    // Deleted, it holds up nobody either.
    refuses.store(true, std::sync::atomic::Ordering::SeqCst);
    let bad = accepted(&post(&gateway, "/mail", &one, "bad again"));
    let behind = accepted(&post(&gateway, "/mail", &one, "behind"));
    until(&gateway, &one, &bad, "dead");
    assert_eq!(told(&gateway, &one, &behind)["state"], "behind");
    let deleted = operate(&gateway, "DELETE", "/v1/queues/mail/dead", "");
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    until(&gateway, &one, &behind, "done");
}

/// Else each of those behind a dead one would hold the rest in its turn, and nobody would get on.
#[test]
fn what_grew_too_old_in_a_line_holds_up_nobody() {
    let redis = Redis::start();
    let (upstream, refuses) = picky();
    let lines =
        format!("{QUICK}max_age = \"1s\"\norder_by = \"claim:sub\"\non_dead_line = \"stop\"\n");
    let gateway = Gateway::start(&config(&redis, &upstream.url(), &lines));
    let token = bearer("u1");
    let bad = accepted(&post(&gateway, "/mail", &token, "bad"));
    until(&gateway, &token, &bad, "dead");
    let old = accepted(&post(&gateway, "/mail", &token, "old"));
    let next = accepted(&post(&gateway, "/mail", &token, "next"));
    let shown = |id: &str| operate(&gateway, "GET", &format!("/v1/deliveries/{id}"), "").json();
    let over = shown(&old)["give_up_at"].as_str().expect("a time").to_owned();
    eventually("it is too old", || format!("{:.3}", jiff::Timestamp::now()) > over);
    refuses.store(false, std::sync::atomic::Ordering::SeqCst);
    let again = format!("/v1/deliveries/{bad}/requeue");
    assert_eq!(operate(&gateway, "POST", &again, "{}").status, 200);
    assert_eq!(until(&gateway, &token, &old, "dead")["error"], "expired");
    // It may be too old by now as well.
    eventually("the line goes on", || {
        ["done", "dead"].contains(&shown(&next)["state"].as_str().unwrap_or_default())
    });
    assert!(upstream.recorded().iter().all(|it| it.text() != "old"));
}

/// What is in it is delivered, or left; and nothing comes.
#[test]
fn a_queue_that_only_drains_may_be_taken_away_as_it_is() {
    let (redis, upstream) = (Redis::start(), upstream());
    let text = config(&redis, &upstream.url(), QUICK);
    let gateway = Gateway::start(&text);
    let shown = |id: &str| operate(&gateway, "GET", &format!("/v1/deliveries/{id}"), "").json();
    let reload = || operate(&gateway, "POST", "/v1/config/reload", "{}");
    operate(&gateway, "POST", "/v1/queues/mail/pause", "");
    let token = bearer("u1");
    let ids: Vec<_> = (0..2).map(|_| accepted(&post(&gateway, "/mail", &token, "a"))).collect();
    let draining = text.replace(QUICK, &format!("{QUICK}drain_only = true\n"));
    gateway.rewrite(&draining);
    let refusal = reload();
    assert_eq!(refusal.status, 422, "{}", refusal.text());
    assert!(refusal.text().contains("drain_only"), "{}", refusal.text());
    let routes = draining.find("\n[routes.mail]").expect("routes");
    let rest = "[routes.rest]\npath = \"/rest\"\nupstream = \"mailer\"\n";
    let drained = format!("{}\n{rest}", &draining[..routes]);
    gateway.rewrite(&drained);
    assert_eq!(reload().status, 200);
    assert_eq!(post(&gateway, "/mail", &token, "a").status, 404);
    assert_eq!(shown(&ids[0])["state"], "waiting");
    // Away, with both of them.
    let queue = drained.find("[queues.mail]").expect("a queue");
    gateway.rewrite(&format!("{}{rest}", &drained[..queue]));
    let reply = reload();
    assert_eq!(reply.status, 200, "{}", reply.text());
    eventually("it is told what stays", || {
        let log = gateway.stderr();
        log.contains("is taken away with requests in it") && log.contains("requests=2")
    });
    assert_eq!(upstream.seen(), 0);
    // Back again, they are delivered: their upstream is the one of then.
    gateway.rewrite(&drained);
    assert_eq!(reload().status, 200);
    assert_eq!(operate(&gateway, "POST", "/v1/queues/mail/resume", "").status, 200);
    for id in &ids {
        eventually("it is delivered", || shown(id)["state"] == json!("done"));
    }
    assert_eq!(upstream.seen(), 2);
}
