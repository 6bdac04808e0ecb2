//! What `Cache-Status` says is true: `stored` of what is kept, `collapsed` of what was shared.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Gate, House, ROUTES, asking, is_hit, speaking};
use crate::support::{Client, Gateway, Reply, Session, Upstream, eventually, response};

fn status(reply: &Reply) -> &str {
    reply.header("cache-status").expect("Cache-Status")
}

/// Begins an answer with these fields and ends it when the gate opens.
fn halves(gate: &Gate, begin: &'static str, end: &'static str) -> Upstream {
    let gate = gate.clone();
    Upstream::with(move |_, connection| {
        let _ = connection.write_all(format!("HTTP/1.1 200 OK\r\n{begin}").as_bytes());
        gate.pass();
        let _ = connection.write_all(end.as_bytes());
    })
}

#[test]
fn stored_is_said_of_what_is_on_its_way_only_where_its_end_is_known() {
    let short = "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    for (begin, end, said) in [
        ("Content-Length: 10\r\n\r\nfirst", "-half", true),
        (short, "5\r\n-half\r\n0\r\n\r\n", false),
    ] {
        let gate = Gate::shut();
        let upstream = halves(&gate, begin, end);
        let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
        let mut session = asking(&gateway, "/p", "");
        let head = session.read_until("\r\n\r\n");
        assert_eq!(head.contains("fwd=uri-miss; stored"), said, "{begin}: {head}");
        gate.open();
        session.read_until("-half");
        eventually("it is kept", || is_hit(&Client::get(gateway.public, "/p").send()));
    }
}

#[test]
fn stored_is_not_said_of_what_is_not() {
    let (asked, gate) = (AtomicUsize::new(0), Gate::shut());
    let shut = gate.clone();
    let upstream = Upstream::with(move |request, connection| {
        let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        let text = match (request.target(), request.header("if-none-match")) {
            // An error does not take the place of what is good.
            ("/good", _) if first => response("200 OK\r\nCache-Control: max-age=600", "good"),
            ("/good", _) => {
                let head = "HTTP/1.1 404 Not Found\r\nCache-Control: max-age=600\r\n";
                let _ = connection.write_all(format!("{head}Content-Length: 3\r\n\r\n").as_bytes());
                shut.pass();
                "bad".to_owned()
            }
            // What is confirmed may not be kept any longer.
            (_, None) => response("200 OK\r\nETag: \"a\"\r\nCache-Control: no-cache", "hello"),
            (_, Some(_)) => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\
                             Cache-Control: no-store\r\n\r\n"
                .to_owned(),
        };
        let _ = connection.write_all(text.as_bytes());
    });
    let house = House::start(upstream);
    let get = |path: &str, control: &str| {
        let request = Client::get(house.gateways[0].public, path);
        request.header("Cache-Control", control).send()
    };
    assert!(status(&get("/good", "max-age=600")).ends_with("; stored"));
    let mut refused = asking(&house.gateways[0], "/good", "Cache-Control: no-cache\r\n");
    let head = refused.read_until("\r\n\r\n");
    assert!(head.contains("404") && head.contains("portcullis; fwd=request\r\n"), "{head}");
    gate.open();
    assert_eq!(refused.read_exactly(3), "bad");
    assert_eq!(get("/good", "max-age=600").text(), "good");
    assert!(status(&get("/word", "max-age=600")).ends_with("; stored"));
    let confirmed = get("/word", "max-age=600");
    let told = status(&confirmed);
    assert_eq!((confirmed.status, confirmed.text().as_str()), (200, "hello"));
    assert!(told.contains("fwd-status=304") && !told.contains("stored"), "{told}");
}

#[test]
fn who_waits_for_what_cannot_be_shared_says_that_it_was_in_vain() {
    let gate = Gate::shut();
    let shut = gate.clone();
    let upstream = Upstream::with(move |_, connection| {
        shut.pass();
        let head = "200 OK\r\nCache-Control: no-store";
        let _ = connection.write_all(response(head, "hello").as_bytes());
    });
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    let mut number = 0;
    // Who came when the leader had its answer already did not wait.
    eventually("somebody waits", || {
        number += 1;
        gate.set(false);
        upstream.forget();
        let path = format!("/{number}");
        let mut sessions: Vec<Session> = (0..10).map(|_| asking(&gateway, &path, "")).collect();
        eventually("the upstream is asked", || upstream.seen() >= 1);
        gate.open();
        let replies: Vec<Reply> = sessions.iter_mut().map(Session::read).collect();
        let is_known = |reply: &Reply| {
            ["portcullis; fwd=uri-miss", "portcullis; fwd=uri-miss; collapsed=?0"]
                .contains(&status(reply))
        };
        assert!(replies.iter().all(is_known), "{replies:?}");
        replies.iter().any(|reply| status(reply).ends_with("collapsed=?0"))
    });
}

#[test]
fn who_waits_for_another_variant_says_that_it_was_in_vain() {
    let gate = Gate::shut();
    let upstream = speaking(&gate);
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    let mut number = 0;
    // Who came when it was known what the answer varies on did not wait.
    eventually("one waits for another variant", || {
        number += 1;
        gate.set(false);
        upstream.forget();
        let path = format!("/{number}");
        let mut german = asking(&gateway, &path, "Accept-Language: de\r\n");
        eventually("the upstream is asked", || upstream.seen() == 1);
        let mut french = asking(&gateway, &path, "Accept-Language: fr\r\n");
        gate.open();
        assert_eq!(german.read().text(), "de");
        let reply = french.read();
        assert_eq!(reply.text(), "fr");
        status(&reply).ends_with("; collapsed=?0")
    });
}

#[test]
fn who_takes_over_from_one_who_left_says_that_it_waited_in_vain() {
    let gate = Gate::shut();
    let shut = gate.clone();
    let upstream = Upstream::with(move |_, connection| {
        shut.pass();
        let _ = connection.write_all(response("200 OK", "hello").as_bytes());
    });
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    let mut number = 0;
    // Who came when nobody was leading any more did not wait.
    eventually("one who waited takes over", || {
        number += 1;
        gate.set(false);
        upstream.forget();
        let path = format!("/{number}");
        let leader = asking(&gateway, &path, "");
        eventually("the upstream is asked", || upstream.seen() == 1);
        let mut sessions: Vec<Session> = (0..10).map(|_| asking(&gateway, &path, "")).collect();
        drop(leader);
        eventually("another one asks", || upstream.seen() == 2);
        gate.open();
        let replies: Vec<Reply> = sessions.iter_mut().map(Session::read).collect();
        replies.iter().any(|reply| status(reply).ends_with("; stored; collapsed=?0"))
    });
}

#[test]
fn who_waits_for_another_gateway_too_long_says_that_it_was_in_vain() {
    let gate = Gate::shut();
    let shut = gate.clone();
    let upstream = Upstream::with(move |_, connection| {
        shut.pass();
        let _ = connection.write_all(response("200 OK", "hello").as_bytes());
    });
    let house = House::start(upstream);
    let mut first = asking(&house.gateways[0], "/p", "");
    eventually("the upstream is asked", || house.upstream.seen() == 1);
    let mut second = asking(&house.gateways[1], "/p", "");
    eventually("the other one asks itself", || house.upstream.seen() == 2);
    gate.open();
    assert!(!status(&first.read()).contains("collapsed"));
    assert!(status(&second.read()).ends_with("; collapsed=?0"));
}
