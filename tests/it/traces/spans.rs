//! What is told of requests and of their attempts, under which names.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    Client, Collector, Gateway, Recorded, Redis, Session, Upstream, eventually, raw, response,
    status,
};

const EVERYTHING: &str =
    "sample = \"100%\"\nresource = { \"deployment.environment.name\" = \"test\" }";

/// A gateway with a route at `/products/*`.
fn before(upstream: &str, collector: &Collector, traces: &str) -> Gateway {
    let route = "[routes.shop-products]\npath = \"/products/*\"\nupstream = \"shop\"\n";
    Gateway::start(&[upstream, &collector.table(traces), route].concat())
}

#[test]
fn a_request_and_each_of_its_attempts_have_a_span_of_their_own() {
    let collector = Collector::start();
    // It takes the request, and hangs up.
    let deaf = Upstream::with(|_, connection: &mut TcpStream| {
        let _ = connection.shutdown(std::net::Shutdown::Both);
    });
    let fine = Upstream::replying(response("200 OK", "fine"));
    let servers = format!(
        "[upstreams.shop]\nservers = [\"{}\", {{ url = \"{}\", backup = true }}]\n\
         [upstreams.shop.retry]\nattempts = 2\non = [\"connect\", \"reset\"]\nbackoff = \"1ms\"\n",
        deaf.url(),
        fine.url()
    );
    let gateway = before(&servers, &collector, EVERYTHING);
    let request = Client::get(gateway.public, "/products/1?token=secret");
    let reply = request.header("user-agent", "test/1").header("host", "shop.test:8443").send();
    assert_eq!(reply.text(), "fine");
    let spans = collector.wait_for(3);
    let server = spans.iter().find(|span| span.kind == "server").unwrap();
    assert_eq!((&*server.name, &*server.parent), ("GET /products/*", ""));
    for (name, expected) in [
        ("http.request.method", "GET"),
        ("http.route", "/products/*"),
        ("portcullis.route", "shop-products"),
        ("url.path", "/products/1"),
        ("url.scheme", "http"),
        ("server.address", "shop.test"),
        ("server.port", "8443"),
        ("client.address", "127.0.0.1"),
        ("network.peer.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("user_agent.original", "test/1"),
        ("http.response.status_code", "200"),
        ("error.type", ""),
        ("portcullis.sampled_late", ""),
    ] {
        assert_eq!(server.note(name), expected, "{name}");
    }
    assert!(!server.has_failed && server.began <= server.ended);
    eventually("it has a line", || !gateway.access_lines().is_empty());
    let line = &gateway.access_lines()[0];
    assert_eq!((&line["trace_id"], &line["span_id"]), (&json!(server.trace), &json!(server.id)));
    assert_eq!(line["trace_sampled"], true);
    let mut attempts: Vec<_> = spans.iter().filter(|span| span.kind == "client").collect();
    attempts.sort_by_key(|span| span.note("http.request.resend_count").to_owned());
    for (attempt, expected) in attempts.iter().zip([&deaf, &fine]) {
        assert_eq!((&*attempt.name, &attempt.parent), ("GET", &server.id));
        assert_eq!(attempt.trace, server.trace);
        assert_eq!(attempt.note("server.address"), "127.0.0.1");
        assert_eq!(attempt.note("server.port"), expected.address().port().to_string());
        assert_eq!(attempt.note("url.full"), format!("{}/products/1", expected.url()));
    }
    let noted = |name: &str| attempts.iter().map(|span| span.note(name)).collect::<Vec<_>>();
    assert_eq!(noted("http.request.resend_count"), ["", "1"]);
    assert_eq!(noted("http.response.status_code"), ["", "200"]);
    assert_eq!(noted("error.type"), ["cut_off", ""]);
    assert_eq!([attempts[0].has_failed, attempts[1].has_failed], [true, false]);
    let sent = fine.only();
    let parent = format!("00-{}-{}-01", server.trace, attempts[1].id);
    assert_eq!(sent.header("traceparent"), Some(&*parent), "the attempt is the parent");
    assert_ne!(attempts[0].id, attempts[1].id);
    for span in &spans {
        assert_eq!(span.resource["service.name"], "portcullis");
        assert_eq!(span.resource["deployment.environment.name"], "test");
        assert!(!format!("{span:?}").contains("secret"), "queries hold tokens: {span:?}");
    }
}

#[test]
fn a_refusal_of_the_client_is_no_failure_and_a_failure_has_its_reason() {
    let collector = Collector::start();
    let upstream = Upstream::with(|request: &Recorded, connection: &mut TcpStream| {
        let answer = match request.target() {
            "/products/cut" => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_owned(),
            target => response(target.trim_start_matches("/products/"), "said"),
        };
        let _ = connection.write_all(answer.as_bytes());
        if request.target() == "/products/cut" {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    });
    let gateway = before(&upstream.table("shop"), &collector, EVERYTHING);
    let mut seen = 0;
    // What is asked; of the server's span its name, failure and error; the same of the attempt's.
    for (line, name, (failed, error), attempt) in [
        ("GET /products/404", "GET /products/*", (false, ""), Some((true, "404"))),
        ("GET /products/503", "GET /products/*", (true, "503"), Some((true, "503"))),
        (
            "GET /products/cut",
            "GET /products/*",
            (true, "upstream_cut_off"),
            Some((true, "cut_off")),
        ),
        ("GET /nowhere", "GET", (false, "route_not_found"), None),
        ("BREW /products/1", "HTTP", (false, "method_not_allowed"), None),
    ] {
        raw(gateway.public, format!("{line} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"));
        let count = 1 + usize::from(attempt.is_some());
        let spans = collector.wait_for(seen + count).split_off(seen);
        seen += count;
        let server = spans.iter().find(|span| span.kind == "server").unwrap();
        assert_eq!(server.name, name, "{line}");
        assert_eq!((server.has_failed, server.note("error.type")), (failed, error), "{line}");
        let client = spans.iter().find(|span| span.kind == "client");
        let told = client.map(|span| (span.has_failed, span.note("error.type")));
        assert_eq!(told, attempt, "{line}");
    }
    let brewed = collector.spans().pop().unwrap();
    assert_eq!(brewed.note("http.request.method"), "_OTHER");
    assert_eq!(brewed.note("http.request.method_original"), "BREW");
}

#[test]
fn a_limit_is_named() {
    let collector = Collector::start();
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let config = [
        &*upstream.table("shop"),
        &collector.table(EVERYTHING),
        "[limits.once]\nkey = [\"address\"]\nallow = [\"1/1h\"]\n\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\nlimits = [\"once\"]\n\
         [log]\naccess = \"off\"\n",
    ];
    let gateway = Gateway::start(&config.concat());
    for expected in [200, 429] {
        assert_eq!(Client::get(gateway.public, "/").send().status, expected);
    }
    let spans = collector.wait_for(3);
    let refused = spans.iter().find(|span| span.note("http.response.status_code") == "429");
    let refused = refused.expect("a span of the refusal");
    assert_eq!(refused.note("portcullis.limit"), "once");
    assert_eq!((refused.has_failed, refused.note("error.type")), (false, "limit_exceeded"));
}

#[test]
fn what_fails_is_told_of_though_nobody_has_sampled_it() {
    let collector = Collector::start();
    let upstream = Upstream::with(|request: &Recorded, connection: &mut TcpStream| {
        let answer = response(request.target().trim_start_matches("/products/"), "said");
        let _ = connection.write_all(answer.as_bytes());
    });
    // A budget that nothing of this test uses up.
    let late = "sample = \"0%\"\nerrors = \"1000/s\"\nslow = \"1h\"";
    let gateway = before(&upstream.table("shop"), &collector, late);
    for path in ["200", "404", "503", "500"] {
        let reply = raw(
            gateway.public,
            format!("GET /products/{path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"),
        );
        assert_eq!(status(&reply).to_string(), path);
    }
    let spans = collector.wait_for(2);
    for (span, code) in spans.iter().zip(["503", "500"]) {
        assert_eq!((span.kind, span.note("http.response.status_code")), ("server", code));
        assert_eq!(span.note("portcullis.sampled_late"), "true");
        let told = upstream.recorded();
        let mut told = told.iter().map(|request| request.header("traceparent").unwrap());
        assert!(told.any(|line| line == format!("00-{}-{}-00", span.trace, span.id)));
    }
}

/// The trace tells whether it was the store, the upstream or the client.
#[test]
fn what_a_request_waits_for_has_a_span_of_its_own() {
    let (collector, redis) = (Collector::start(), Redis::start());
    let (go, goes) = channel::<()>();
    let goes = Mutex::new(goes);
    let upstream = Upstream::with(move |_, connection| {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst");
        let _ = goes.lock().unwrap().recv();
        let _ = connection.write_all(b"last");
    });
    let gateway = Gateway::start(&format!(
        "[store]\nurl = \"{}\"\n{}{}[limits.many]\nkey = [\"address\"]\nallow = [\"9/1h\"]\n\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\nlimits = [\"many\"]\n",
        redis.url(),
        upstream.table("shop"),
        collector.table(EVERYTHING)
    ));
    let mut session = Session::open(gateway.public);
    session.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    session.read_until("first");
    let since = Instant::now();
    eventually("it lasts", || since.elapsed() > Duration::from_millis(5));
    go.send(()).unwrap();
    session.read_until("last");
    eventually("all are exported", || collector.spans().len() >= 4);
    let spans = collector.spans();
    let server = spans.iter().find(|span| span.kind == "server").expect("the request");
    let tree: BTreeSet<(&str, &str)> = spans
        .iter()
        .filter(|span| span.parent == server.id && span.trace == server.trace)
        .map(|span| (span.kind, &*span.name))
        .collect();
    let expected = [("client", "GET"), ("client", "PIPELINE"), ("internal", "portcullis.send")];
    assert_eq!(tree, BTreeSet::from(expected));
    let store = spans.iter().find(|span| span.name == "PIPELINE").unwrap();
    for (name, expected) in [
        ("db.system.name", "redis"),
        ("db.operation.name", "PIPELINE"),
        ("portcullis.stage", "store"),
        ("error.type", ""),
    ] {
        assert_eq!(store.note(name), expected, "{name}");
    }
    let send = spans.iter().find(|span| span.name == "portcullis.send").unwrap();
    assert!(send.ended - send.began >= 5_000_000, "{send:?}");
    assert!(server.began <= store.began && store.ended <= send.began, "{spans:#?}");
    assert!(send.ended <= server.ended, "{spans:#?}");
    drop(redis);
    session.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    go.send(()).unwrap();
    session.read_until("last");
    let failed = || {
        let spans = collector.spans();
        spans.into_iter().filter(|span| span.name == "PIPELINE" && span.has_failed).count()
    };
    eventually("the store is away", || failed() == 1);
}

#[test]
fn no_span_has_a_credential_of_a_path() {
    let collector = Collector::start();
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let gateway = before(&upstream.table("shop"), &collector, EVERYTHING);
    let key = format!("pck_{}", "s3cret".repeat(8));
    let request = Client::get(gateway.public, &format!("/products/{key}"));
    assert_eq!(request.header("User-Agent", &key).send().status, 200);
    let spans = collector.wait_for(2);
    let note = |kind: &str, name: &str| {
        let span = spans.iter().find(|span| span.kind == kind).expect("a span");
        span.note(name).to_owned()
    };
    assert_eq!(note("server", "url.path"), "/products/[redacted]");
    assert_eq!(note("server", "user_agent.original"), "[redacted]");
    assert_eq!(note("client", "url.full"), format!("{}/products/[redacted]", upstream.url()));
}
