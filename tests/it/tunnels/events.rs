//! Server-sent events: each passes at once, pauses are long, and others end a stream.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::support::{
    AUTH, Gateway, Session, Upstream, claims, eventually, operate, raw_until_close, token,
};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
                    Transfer-Encoding: chunked\r\n";

/// Writes one event.
fn event(stream: &mut TcpStream, number: usize) -> std::io::Result<()> {
    let text = format!("data: {number}\n\n");
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
}

/// An upstream whose streams at `/events/…` send one event at once and another for each count of
/// `released`; `/slow` stops within a body.
fn upstream(released: &Arc<AtomicUsize>) -> Upstream {
    let released = Arc::clone(released);
    Upstream::with(move |request, connection| {
        if request.target() == "/slow" {
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
            eventually("it is cut off", || closed(connection));
            return;
        }
        let _ = connection.write_all(format!("{HEAD}\r\n").as_bytes());
        let mut sent = 0;
        while event(connection, sent).is_ok() {
            sent += 1;
            let is_next = || released.load(Ordering::SeqCst) >= sent || closed(connection);
            eventually("the next event may be sent", is_next);
            if closed(connection) {
                return;
            }
        }
    })
}

/// Whether the other end is gone.
fn closed(connection: &TcpStream) -> bool {
    connection.set_nonblocking(true).unwrap();
    let peeked = connection.peek(&mut [0]);
    connection.set_nonblocking(false).unwrap();
    !peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

fn config(upstream: &Upstream, events: &str) -> String {
    format!(
        "{AUTH}{}read_timeout = \"300ms\"
        [routes.events]\npath = \"/events/*\"\nupstream = \"shop\"\n{events}
        [routes.mine]\npath = \"/mine/*\"\nupstream = \"shop\"\nauth = \"users\"
        [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    )
}

/// Asks for a stream and reads its first event.
fn open(gateway: &Gateway, path: &str, fields: &str) -> Session {
    let mut session = Session::open(gateway.public);
    session.write(format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n"));
    let head = session.read_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(!head.contains("content-encoding"), "{head}");
    session.read_until("data: 0\n\n\r\n");
    session
}

/// The reason of the only line, once there is one.
fn reason(gateway: &Gateway) -> serde_json::Value {
    eventually("there is a line", || !gateway.access_lines().is_empty());
    gateway.access_lines().remove(0)["reason"].clone()
}

#[test]
fn an_event_passes_at_once_and_pauses_are_longer_than_elsewhere() {
    let released = Arc::default();
    let upstream = upstream(&released);
    let gateway = Gateway::start(&config(&upstream, ""));
    let mut stream = open(&gateway, "/events/1", "Accept-Encoding: gzip\r\n");
    for number in 1..4 {
        // A pause that is too long for any other body.
        let other =
            raw_until_close(gateway.public, "GET /slow HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        assert!(other.ends_with("half"), "{other}");
        released.store(number, Ordering::SeqCst);
        stream.read_until(&format!("data: {number}\n\n\r\n"));
    }
}

#[test]
fn a_silent_upstream_is_given_up_after_stream_timeout() {
    let upstream = upstream(&Arc::default());
    let gateway = Gateway::start(&config(&upstream, "stream_timeout = \"500ms\""));
    let mut stream = open(&gateway, "/events/1", "");
    assert_eq!(stream.rest(), "", "no end of the body");
    assert_eq!(reason(&gateway), "upstream_stalled");
    assert_eq!(gateway.access_lines()[0]["bound"], "routes.events.stream_timeout");
}

#[test]
fn the_drain_ends_it_cleanly() {
    let upstream = upstream(&Arc::default());
    let mut gateway = Gateway::start(&config(&upstream, ""));
    let mut stream = open(&gateway, "/events/1", "");
    gateway.signal("TERM");
    assert_eq!(stream.rest(), "0\r\n\r\n");
    assert!(gateway.wait().success());
    assert_eq!(reason(&gateway), "stream_drained");
}

#[test]
fn a_route_that_is_gone_ends_it_cleanly() {
    let upstream = upstream(&Arc::default());
    let gateway = Gateway::start(&config(&upstream, ""));
    let mut stream = open(&gateway, "/events/1", "");
    gateway.rewrite(&config(&upstream, "").replace("routes.events", "routes.renamed"));
    gateway.signal("HUP");
    assert_eq!(stream.read_until("0\r\n\r\n"), "0\r\n\r\n");
    assert_eq!(reason(&gateway), "stream_route_gone");
}

#[test]
fn the_end_of_a_token_cuts_it_off() {
    let upstream = upstream(&Arc::default());
    let config = config(&upstream, "").replace("[auth.users]", "[auth.users]\nleeway = \"0s\"");
    let bearer =
        |claims: &serde_json::Value| format!("Authorization: Bearer {}\r\n", token(claims.clone()));
    let mut brief = claims("ada");
    brief["exp"] = (brief["iat"].as_u64().unwrap() + 3).into();
    let gateway = Gateway::start(&config);
    let mut stream = open(&gateway, "/mine/1", &bearer(&brief));
    assert_eq!(stream.rest(), "", "no end of the body");
    assert_eq!(reason(&gateway), "stream_expired");

    let gateway = Gateway::start(&config);
    let ada = claims("ada");
    let mut stream = open(&gateway, "/mine/1", &bearer(&ada));
    let list = operate(&gateway, "GET", "/v1/tunnels?sub=ada", "").json();
    assert_eq!(list["tunnels"][0]["kind"], "events", "{list}");
    let body = json!({ "jti": ada["jti"] }).to_string();
    assert_eq!(operate(&gateway, "POST", "/v1/revocations", &body).status, 201);
    assert_eq!(stream.rest(), "", "no end of the body");
    assert_eq!(reason(&gateway), "stream_revoked");
}

#[test]
fn a_stream_that_states_no_freshness_is_nobody_elses() {
    let released = Arc::default();
    let upstream = upstream(&released);
    let gateway = Gateway::start(&config(&upstream, "cache = { ttl = \"1m\" }"));
    let mut one = open(&gateway, "/events/1", "");
    let mut two = open(&gateway, "/events/1", "");
    released.store(1, Ordering::SeqCst);
    one.read_until("data: 1\n\n\r\n");
    two.read_until("data: 1\n\n\r\n");
    assert_eq!(upstream.seen(), 2);
}
