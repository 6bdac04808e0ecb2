//! What is accepted reaches its upstream once, and its caller learns of it.

use super::{QUICK, accepted, bearer, code, config, metric, post, start, told, until, upstream};
use crate::support::{AUTH, Client, Gateway, Redis, Upstream, eventually, response};

#[test]
fn a_request_is_accepted_delivered_and_told_of() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream, QUICK);
    let token = bearer("u1");
    let reply = Client::request(gateway.public, "POST", "/mail?to=a%20b")
        .bearer(&token)
        .header("Content-Type", "text/plain")
        .header("Cookie", "sid=1")
        .header("X-Delivery-Id", "mine")
        .header("X-Request-Id", "req-1")
        .header("X-User-Id", "forged")
        .body("hello")
        .send();
    let id = accepted(&reply);
    let json = reply.json();
    let path = format!("/deliveries/{id}");
    assert_eq!((reply.header("location"), reply.header("retry-after")), (Some(&*path), Some("1")));
    assert_eq!(json["status"], path.as_str());
    assert_eq!(json["accepted_at"], json["deliver_at"]);
    assert_eq!(reply.header("idempotent-replayed"), None);

    let done = until(&gateway, &token, &id, "done");
    assert_eq!((&done["status"], &done["attempts"]), (&201.into(), &1.into()), "{done}");
    assert!(done["settled_at"].is_string() && done.get("error").is_none(), "{done}");
    let sent = upstream.only();
    assert_eq!(sent.request_line(), "POST /mail?to=a%20b HTTP/1.1");
    assert_eq!((sent.text().as_str(), sent.header("content-type")), ("hello", Some("text/plain")));
    for (name, value) in [
        ("x-delivery-id", &*id),
        ("x-delivery-attempt", "1"),
        ("idempotency-key", &*id),
        ("x-user-id", "u1"),
        ("x-request-id", "req-1"),
        ("host", "shop.test"),
    ] {
        assert_eq!(sent.headers_named(name), [value], "{name}");
    }
    assert!(sent.header("traceparent").is_some());
    for name in ["authorization", "cookie"] {
        assert_eq!(sent.header(name), None, "{name}");
    }

    let answer = Client::get(gateway.public, &format!("{path}/response")).bearer(&token).send();
    assert_eq!((answer.status, answer.text().as_str()), (201, "sent"));
    let lines = || gateway.access_lines();
    eventually("the attempt has its line", || lines().iter().any(|it| it["kind"] == "delivery"));
    let all = lines();
    let line = all.iter().find(|line| line["kind"] == "delivery").expect("a line");
    assert_eq!((&line["delivery"], &line["queue"]), (&id.as_str().into(), &"mail".into()));
    assert_eq!((&line["outcome"], &line["attempt"]), (&"done".into(), &1.into()));
    assert_eq!((&line["status"], &line["request_id"]), (&201.into(), &"req-1".into()));
    let accepting = all.iter().find(|line| line["path"] == "/mail" && line["kind"].is_null());
    let accepting = accepting.expect("the line of the request itself");
    assert_eq!(accepting["delivery"], id.as_str());
    assert_eq!(accepting["trace_id"], line["trace_id"]);
    assert_eq!(metric(&gateway, "portcullis_queue_accepted_total", Some(("outcome", "new"))), 1.0);
    assert_eq!(metric(&gateway, "portcullis_queue_attempts_total", Some(("outcome", "done"))), 1.0);
    assert_eq!(metric(&gateway, "portcullis_queue_delivery_seconds_count", None), 1.0);
}

/// A client that repeats what it has sent gets the same answer, and its upstream nothing more.
#[test]
fn a_key_stands_for_one_request() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream, QUICK);
    let (one, other) = (bearer("u1"), bearer("u2"));
    let send = |bearer: &str, path: &str, key: &str, body: &str| {
        let request = Client::request(gateway.public, "POST", path).bearer(bearer);
        request.header("Idempotency-Key", key).body(body).send()
    };
    let id = accepted(&send(&one, "/keyed", "\"k-1\"", "a"));
    until(&gateway, &one, &id, "done");
    let again = send(&one, "/keyed", "k-1", "a");
    assert_eq!(accepted(&again), id);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.json()["state"], "done");
    let sent = upstream.only();
    assert_eq!(sent.headers_named("idempotency-key"), ["k-1"]);
    let reused = (422, "idempotency_key_reused".to_owned());
    assert_eq!(code(&send(&one, "/keyed", "k-1", "b")), reused);
    assert_eq!(code(&send(&one, "/mail", "k-1", "a")), reused);
    assert_ne!(accepted(&send(&other, "/keyed", "k-1", "a")), id);
    let missing = post(&gateway, "/keyed", &one, "a");
    assert_eq!(code(&missing), (400, "idempotency_key_missing".to_owned()));
    let invalid = send(&one, "/mail", "a b", "a");
    assert_eq!(code(&invalid), (400, "idempotency_key_invalid".to_owned()));
    assert_eq!(
        metric(&gateway, "portcullis_queue_accepted_total", Some(("outcome", "again"))),
        1.0
    );
}

#[test]
fn nobody_else_learns_of_a_delivery() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream, QUICK);
    let (one, other) = (bearer("u1"), bearer("u2"));
    let id = accepted(&post(&gateway, "/mail", &one, "a"));
    until(&gateway, &one, &id, "done");
    let nobodys = "0".repeat(26);
    for (bearer, path) in [
        (&other, format!("/deliveries/{id}")),
        (&other, format!("/deliveries/{id}/response")),
        (&one, format!("/deliveries/{nobodys}")),
        (&one, format!("/deliveries/{id}/body")),
        (&one, "/deliveries/x".to_owned()),
        (&one, "/deliveries".to_owned()),
    ] {
        for method in ["GET", "DELETE"] {
            let reply = Client::request(gateway.public, method, &path).bearer(bearer).send();
            assert_eq!(code(&reply), (404, "delivery_not_found".to_owned()), "{method} {path}");
        }
    }
    let stranger = Client::get(gateway.public, &format!("/deliveries/{id}")).send();
    assert_eq!(stranger.status, 401);
    let put = Client::request(gateway.public, "PUT", "/deliveries/x").bearer(&one).send();
    assert_eq!((put.status, put.header("allow")), (405, Some("DELETE, GET, HEAD")));
}

#[test]
fn a_request_waits_until_it_is_due_and_can_be_cancelled_until_then() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream, QUICK);
    let token = bearer("u1");
    let send = |after: &str| {
        let request = Client::request(gateway.public, "POST", "/mail").bearer(&token);
        request.header("X-Deliver-After", after).body("later").send()
    };
    let late = send("3600");
    let id = accepted(&late);
    let (at, due) = (late.json()["accepted_at"].clone(), late.json()["deliver_at"].clone());
    let ms = |at: &serde_json::Value| {
        let at: jiff::Timestamp = at.as_str().expect("a time").parse().expect("RFC 3339");
        at.as_millisecond()
    };
    assert_eq!(ms(&due) - ms(&at), 3_600_000);
    assert_eq!(told(&gateway, &token, &id)["state"], "waiting");
    let path = format!("/deliveries/{id}");
    let unsettled = Client::get(gateway.public, &format!("{path}/response")).bearer(&token).send();
    assert_eq!(code(&unsettled), (409, "delivery_in_progress".to_owned()));
    for _ in 0..2 {
        let cancelled = Client::request(gateway.public, "DELETE", &path).bearer(&token).send();
        assert_eq!(cancelled.status, 204, "{}", cancelled.text());
    }
    assert_eq!(told(&gateway, &token, &id)["state"], "cancelled");
    let soon = accepted(&send("1"));
    until(&gateway, &token, &soon, "done");
    assert_eq!(upstream.only().header("x-delivery-id"), Some(&*soon));
    assert_eq!(upstream.only().header("x-deliver-after"), None);
    let ended = Client::request(gateway.public, "DELETE", &format!("/deliveries/{soon}"));
    assert_eq!(code(&ended.bearer(&token).send()), (409, "delivery_ended".to_owned()));
    for wrong in ["soon", "3601"] {
        assert_eq!(code(&send(wrong)), (400, "delivery_time_invalid".to_owned()), "{wrong}");
    }
}

#[test]
fn a_client_that_would_rather_wait_gets_the_real_answer() {
    let redis = Redis::start();
    let upstream = Upstream::with(|request, connection| {
        let status = if request.text() == "bad" { "400 Bad Request" } else { "201 Created" };
        let _ = std::io::Write::write_all(connection, response(status, "the answer").as_bytes());
    });
    let gateway = start(&redis, &upstream, QUICK);
    let token = bearer("u1");
    for (body, status) in [("good", 201), ("bad", 400)] {
        let request = Client::request(gateway.public, "POST", "/mail").bearer(&token);
        let reply = request.header("Prefer", "respond-async, wait=9").body(body).send();
        assert_eq!((reply.status, reply.text().as_str()), (status, "the answer"));
        assert_eq!(reply.header("preference-applied"), Some("wait=9"));
    }
    // On a route that does not allow it, it is not heeded.
    let request = Client::request(gateway.public, "POST", "/open").header("Prefer", "wait=9");
    let reply = request.body("good").send();
    assert_eq!((reply.status, reply.header("preference-applied")), (202, None));
}

/// What one key of the order has is delivered as it came, also where the first fails.
#[test]
fn requests_of_one_caller_keep_their_order() {
    let redis = Redis::start();
    let upstream = Upstream::with(|request, connection| {
        let is_first = request.header("x-delivery-attempt") == Some("1");
        let fails = request.text().ends_with('0') && is_first;
        let status = if fails { "500 Internal Server Error" } else { "204 No Content" };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        let answer = if fails { answer } else { answer.replace("Content-Length: 0\r\n", "") };
        let _ = std::io::Write::write_all(connection, answer.as_bytes());
    });
    let gateway = start(&redis, &upstream, &format!("{QUICK}order_by = \"claim:sub\"\n"));
    let callers = [bearer("u1"), bearer("u2")];
    let mut last = Vec::new();
    for number in 0..10 {
        for (caller, token) in callers.iter().enumerate() {
            let id = accepted(&post(&gateway, "/mail", token, &format!("{caller}-{number}")));
            if number == 9 {
                last.push(id);
            }
        }
    }
    for (token, id) in callers.iter().zip(&last) {
        until(&gateway, token, id, "done");
    }
    for caller in ["0", "1"] {
        let sent = upstream.recorded();
        let bodies = sent.iter().map(|it| it.text()).filter(|it| it.starts_with(caller));
        let mut bodies: Vec<String> = bodies.collect();
        assert_eq!(bodies.len(), 11, "{bodies:?}");
        bodies.dedup();
        let expected: Vec<String> = (0..10).map(|number| format!("{caller}-{number}")).collect();
        assert_eq!(bodies, expected);
    }
}

/// One node alone, whose operator has said that this is enough.
#[test]
fn the_embedded_store_delivers_too() {
    let upstream = upstream();
    let redis = Redis::start();
    let text = config(&redis, &upstream.url(), "durable = false\n");
    let gateway = Gateway::start(&text.replace(&redis.url(), "memory:"));
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    until(&gateway, &token, &id, "done");
    assert_eq!(upstream.only().text(), "a");
}

#[test]
fn a_queue_of_the_routes_own_name_needs_no_table() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = Gateway::start(&format!(
        "[store]\nurl = \"{}\"\n{AUTH}{}[routes.jobs]\npath = \"/jobs\"\nmethods = [\"POST\"]\n\
         upstream = \"shop\"\ndeliver = \"later\"\n",
        redis.url(),
        upstream.table("shop")
    ));
    let reply = Client::request(gateway.public, "POST", "/jobs").body("a").send();
    accepted(&reply);
    // Nobody tells of it.
    assert_eq!(
        (reply.header("location"), &reply.json()["status"]),
        (None, &serde_json::Value::Null)
    );
    eventually("it is delivered", || upstream.seen() == 1);
}

/// What a route takes itself, its upstream gets, also where all other routes take less.
#[test]
fn a_body_that_only_its_route_takes_is_delivered() {
    let (redis, upstream) = (Redis::start(), upstream());
    let whole = config(&redis, &upstream.url(), QUICK);
    let open = "path = \"/open\"\n";
    assert!(whole.contains(open));
    let whole = whole.replacen(open, &format!("{open}body_bytes = \"64KiB\"\n"), 1);
    let gateway = Gateway::start(&format!("[server.limits]\nbody_bytes = \"1KiB\"\n{whole}"));
    let body = "x".repeat(5000);
    let reply = Client::request(gateway.public, "POST", "/open").body(&*body).send();
    let id = accepted(&reply);
    eventually("it is delivered", || upstream.seen() == 1);
    assert_eq!(upstream.only().text(), body);
    assert_eq!(upstream.only().header("x-delivery-id"), Some(&*id));
}

/// Its time begins when it is due, and is not longer for what it has waited until then.
#[test]
fn what_is_due_later_is_tried_as_long_as_what_is_due_now() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream, "max_age = \"2h\"\n");
    let request = Client::request(gateway.public, "POST", "/mail").bearer(bearer("u1"));
    let id = accepted(&request.header("X-Deliver-After", "3600").body("a").send());
    let key = redis.cli(&["KEYS", &format!("app:queue:*:item:{id}")]);
    let number = |field: &str| -> i64 {
        redis.cli(&["HGET", key.trim(), field]).trim().parse().expect("a number")
    };
    assert_eq!(number("d") - number("t"), 3_600_000);
    assert_eq!(number("u") - number("d"), 7_200_000);
}

/// Whoever reads after the delivery reads what it has made; one that was refused changes nothing.
#[test]
fn a_delivery_makes_stale_what_it_changes() {
    let redis = Redis::start();
    let upstream = Upstream::with(|request, connection| {
        let status = if request.text() == "bad" { "400 Bad Request" } else { "200 OK" };
        let _ = std::io::Write::write_all(connection, response(status, "").as_bytes());
    });
    let reads = ["mail", "list", "other"].map(|name| {
        format!(
            "[routes.read_{name}]\npath = \"/{name}\"\nmethods = [\"GET\"]\n\
             upstream = \"mailer\"\ncache = {{ ttl = \"1h\" }}\n"
        )
    });
    let whole = config(&redis, &upstream.url(), QUICK);
    let mail = "[routes.mail.deliver]\n";
    assert!(whole.contains(mail));
    let whole = whole.replacen(mail, &format!("invalidates = [\"/list\"]\n{mail}"), 1);
    let gateway = Gateway::start(&(whole + &reads.concat()));
    let token = bearer("u1");
    let asked = |path: &str| {
        let before = upstream.seen();
        assert_eq!(Client::get(gateway.public, path).send().status, 200);
        upstream.seen() > before
    };
    let fill = || {
        for path in ["/mail", "/list", "/other"] {
            eventually("it is stored", || !asked(path));
        }
    };
    for (body, state, is_stale) in [("bad", "dead", false), ("good", "done", true)] {
        fill();
        let id = accepted(&post(&gateway, "/mail", &token, body));
        until(&gateway, &token, &id, state);
        assert_eq!(["/mail", "/list"].map(&asked), [is_stale; 2], "{body}");
        assert!(!asked("/other"), "{body}");
    }
}
