//! What operators see and do.

use serde_json::json;

use super::{QUICK, accepted, bearer, code, metric, post, start, told, until};
use crate::support::{Redis, Upstream, eventually, operate, response, run};

/// Refuses what says so, until it is told otherwise.
fn picky() -> (Upstream, std::sync::Arc<std::sync::atomic::AtomicBool>) {
    let refuses = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let state = std::sync::Arc::clone(&refuses);
    let upstream = Upstream::with(move |request, connection| {
        let is_refused = request.text() == "bad" && state.load(std::sync::atomic::Ordering::SeqCst);
        let status = if is_refused { "400 Bad Request" } else { "200 OK" };
        let _ = std::io::Write::write_all(connection, response(status, "").as_bytes());
    });
    (upstream, refuses)
}

#[test]
fn operators_see_what_waits_and_what_is_dead_and_have_it_tried_again() {
    let redis = Redis::start();
    let (upstream, refuses) = picky();
    let gateway = start(&redis, &upstream, QUICK);
    let token = bearer("u1");
    let dead = accepted(&post(&gateway, "/mail", &token, "bad"));
    until(&gateway, &token, &dead, "dead");
    let pause = operate(&gateway, "POST", "/v1/queues/mail/pause", "{\"why\": \"moving\"}");
    assert_eq!((pause.status, &pause.json()["paused"]), (200, &json!(true)));
    let waits = accepted(&post(&gateway, "/mail", &token, "good"));

    let all = operate(&gateway, "GET", "/v1/queues", "").json();
    let mail = &all["queues"]["mail"];
    assert_eq!((&mail["open"], &mail["items"]["dead"]), (&json!(1), &json!(1)), "{all}");
    assert_eq!(
        (&mail["paused"]["why"], &all["store"]),
        (&json!("moving"), &json!("not_appending"))
    );
    let one = operate(&gateway, "GET", "/v1/queues/mail", "").json();
    assert_eq!(one["queue"], "mail");
    let list = |query: &str| {
        let page = operate(&gateway, "GET", &format!("/v1/queues/mail/items{query}"), "").json();
        let items = page["items"].as_array().expect("items").clone();
        items.iter().map(|it| it["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((list(""), list("?state=dead")), (vec![waits.clone()], vec![dead.clone()]));
    let shown = operate(&gateway, "GET", &format!("/v1/deliveries/{dead}"), "").json();
    for (name, value) in [
        ("queue", json!("mail")),
        ("state", json!("dead")),
        ("path", json!("/mail")),
        ("route", json!("mail")),
        ("error", json!("refused")),
        ("status", json!(400)),
        ("bytes", json!(3)),
    ] {
        assert_eq!(shown[name], value, "{name} of {shown}");
    }
    eventually("the metrics know", || {
        metric(&gateway, "portcullis_queue_items", Some(("state", "dead"))) == 1.0
            && metric(&gateway, "portcullis_queue_paused", None) == 1.0
    });
    let body = operate(&gateway, "POST", &format!("/v1/deliveries/{dead}/body"), "");
    assert_eq!(body.json()["text"], "bad");
    eventually("it is told who has read it", || {
        gateway.stderr().contains(&format!("id=\"{dead}\""))
    });

    refuses.store(false, std::sync::atomic::Ordering::SeqCst);
    let again = operate(&gateway, "POST", &format!("/v1/deliveries/{dead}/requeue"), "");
    assert_eq!((again.status, &again.json()["state"]), (200, &json!("waiting")));
    let cancelled = operate(&gateway, "POST", &format!("/v1/deliveries/{waits}/cancel"), "");
    assert_eq!(cancelled.json()["state"], "cancelled");
    assert_eq!(operate(&gateway, "POST", "/v1/queues/mail/resume", "").status, 200);
    until(&gateway, &token, &dead, "done");
    assert_eq!(told(&gateway, &token, &waits)["state"], "cancelled");
    assert_eq!(upstream.seen(), 2);
}

#[test]
fn dead_ones_are_tried_again_or_deleted_together() {
    let redis = Redis::start();
    let (upstream, refuses) = picky();
    let gateway = start(&redis, &upstream, QUICK);
    let token = bearer("u1");
    let ids: Vec<String> =
        (0..3).map(|_| accepted(&post(&gateway, "/mail", &token, "bad"))).collect();
    for id in &ids {
        until(&gateway, &token, id, "dead");
    }
    let requeue = |body: &str| {
        let reply = operate(&gateway, "POST", "/v1/queues/mail/requeue", body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["requeued"].clone()
    };
    assert_eq!(requeue("{\"error\": \"exhausted\"}"), 0);
    refuses.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(requeue("{\"error\": \"refused\", \"limit\": 2}"), 2);
    for id in &ids[..2] {
        until(&gateway, &token, id, "done");
    }
    let deleted = operate(&gateway, "DELETE", "/v1/queues/mail/dead", "");
    assert_eq!(deleted.json()["deleted"], 1);
    let gone = operate(&gateway, "GET", &format!("/v1/deliveries/{}", ids[2]), "");
    assert_eq!(code(&gone), (404, "delivery_not_found".to_owned()));
}

#[test]
fn an_operator_is_told_what_cannot_be_done() {
    let redis = Redis::start();
    let (upstream, _) = picky();
    let gateway = start(&redis, &upstream, QUICK);
    let token = bearer("u1");
    let done = accepted(&post(&gateway, "/mail", &token, "good"));
    until(&gateway, &token, &done, "done");
    let nobodys = "0".repeat(26);
    for (method, path, body, problem) in [
        ("GET", "/v1/queues/male".to_owned(), "", (404, "queue_not_found")),
        ("POST", "/v1/queues/male/pause".to_owned(), "", (404, "queue_not_found")),
        ("GET", format!("/v1/deliveries/{nobodys}"), "", (404, "delivery_not_found")),
        ("GET", "/v1/deliveries/x".to_owned(), "", (400, "request_invalid")),
        ("GET", "/v1/queues/mail/items?state=odd".to_owned(), "", (400, "request_invalid")),
        ("POST", "/v1/queues/mail/requeue".to_owned(), "{\"limit\": 0}", (400, "request_invalid")),
        ("POST", format!("/v1/deliveries/{done}/requeue"), "", (409, "delivery_not_dead")),
        ("POST", format!("/v1/deliveries/{done}/cancel"), "", (409, "delivery_not_waiting")),
        ("POST", format!("/v1/deliveries/{done}/body"), "", (404, "body_not_kept")),
    ] {
        let reply = operate(&gateway, method, &path, body);
        assert_eq!(code(&reply), (problem.0, problem.1.to_owned()), "{method} {path}");
    }
}

#[test]
fn the_same_is_done_at_the_command_line() {
    let redis = Redis::start();
    let (upstream, refuses) = picky();
    let gateway = start(&redis, &upstream, QUICK);
    let token = bearer("u1");
    let folder = crate::support::Folder::new();
    let admin = format!("http://{}", gateway.admin);
    let command = |words: &[&str]| {
        let words = [words, &["--admin", &admin]].concat();
        let said = run(&folder, &words);
        assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
        said.stdout
    };
    assert_eq!(command(&["queues", "pause", "mail", "--why", "moving"]), "paused: mail\n");
    let (bad, good) = (
        accepted(&post(&gateway, "/mail", &token, "bad")),
        accepted(&post(&gateway, "/mail", &token, "good")),
    );
    let shown = command(&["queues"]);
    assert!(shown.starts_with("mail  2 of 100000 open (2 due, "), "{shown}");
    assert!(shown.contains("; paused: moving"), "{shown}");
    assert_eq!(command(&["deliveries", "cancel", &good]), format!("cancelled: {good}\n"));
    let listed = command(&["deliveries", "list", "mail"]);
    assert!(listed.contains(&bad) && !listed.contains(&good), "{listed}");
    assert_eq!(command(&["queues", "resume", "mail"]), "resumed: mail\n");
    until(&gateway, &token, &bad, "dead");
    assert!(command(&["deliveries", "show", &bad]).contains("\"refused\""));
    refuses.store(false, std::sync::atomic::Ordering::SeqCst);
    let again = command(&["deliveries", "requeue", "--queue", "mail", "--error", "refused"]);
    assert_eq!(again, "wait again: 1 of mail\n");
    until(&gateway, &token, &bad, "done");
}
