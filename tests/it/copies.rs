//! Copies of requests that are not made: of long bodies, of broken ones, and for nobody.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};

use crate::support::{Client, Exposition, Gateway, Upstream, eventually, raw, response, status};

/// The bound that a mirror has where its route says nothing.
const BODY_BYTES: usize = 64 * 1024;

fn before(mirror: &str, primary: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "{}[upstreams.copies]\nservers = [\"{mirror}\"]\nconnect_timeout = \"1s\"\n
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n
         mirror = {{ upstream = \"copies\", unsafe_methods = true }}\n",
        primary.table("shop")
    ))
}

fn until(gateway: &Gateway, result: &str, count: f64) {
    eventually(&format!("{count} copies are {result}"), || {
        let metrics = Client::get(gateway.admin, "/metrics").send().text();
        let labels = [("route", "all"), ("result", result)];
        Exposition::text(&metrics).value("portcullis_mirrors_total", &labels) == Some(count)
    });
}

/// Each one is counted; the request itself is whole in any case.
#[test]
fn long_bodies_pass_and_are_counted_where_they_are_not_copied() {
    let primary = Upstream::replying(response("200 OK", "primary"));
    let mirror = Upstream::replying(response("200 OK", "copied"));
    let gateway = before(&mirror.url(), &primary);
    let (mut sent, mut too_large) = (0.0, 0.0);
    for (bytes, is_chunked) in [
        (BODY_BYTES, false),
        (BODY_BYTES, true),
        (BODY_BYTES + 1, false),
        (BODY_BYTES + 1, true),
        (1 << 20, false),
        (2 << 20, true),
    ] {
        let body: Vec<u8> = (0..bytes).map(|at| b'a' + (at % 23) as u8).collect();
        let answer = if is_chunked {
            let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            let size = format!("{bytes:x}\r\n");
            let whole = [head.as_bytes(), size.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
            status(&raw(gateway.public, whole))
        } else {
            Client::request(gateway.public, "POST", "/").body(&body).send().status
        };
        assert_eq!(answer, 200, "{bytes} {is_chunked}");
        assert!(primary.only().body == body, "{bytes} {is_chunked}: another body");
        primary.forget();
        *(if bytes > BODY_BYTES { &mut too_large } else { &mut sent }) += 1.0;
        until(&gateway, "sent", sent);
        until(&gateway, "too_large", too_large);
    }
    let copied: Vec<usize> = mirror.recorded().iter().map(|copy| copy.body.len()).collect();
    assert_eq!(copied, [BODY_BYTES; 2]);
}

#[test]
fn an_upload_that_breaks_off_is_no_copy() {
    let primary = Upstream::replying(response("200 OK", "primary"));
    let mirror = Upstream::replying(response("200 OK", "copied"));
    let gateway = before(&mirror.url(), &primary);
    let mut leaves = TcpStream::connect(gateway.public).unwrap();
    leaves.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    leaves.shutdown(Shutdown::Both).unwrap();
    until(&gateway, "cut_off", 1.0);
    let broken =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n";
    assert_eq!(status(&raw(gateway.public, broken)), 400);
    until(&gateway, "cut_off", 2.0);
    assert_eq!((mirror.seen(), mirror.broken().len()), (0, 0));
}

#[test]
fn a_mirror_that_is_not_there_takes_nothing_from_anybody() {
    let primary = Upstream::replying(response("200 OK", "primary"));
    // Bound and not listening: it refuses, and nobody else gets its port.
    let dead = tokio::net::TcpSocket::new_v4().unwrap();
    dead.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gateway = before(&format!("http://{}", dead.local_addr().unwrap()), &primary);
    for _ in 0..10 {
        let answer = Client::request(gateway.public, "POST", "/").body("x").send();
        assert_eq!(answer.text(), "primary");
    }
    until(&gateway, "failed", 10.0);
    assert_eq!(primary.seen(), 10);
}

/// Whoever says that he comes from a network of testers does not come from there.
#[test]
fn nobody_claims_to_be_one_of_those_whose_requests_fail() {
    let upstream = Upstream::replying(response("200 OK", "ok"));
    let config = |trusted: &str| {
        format!(
            "[server]\ntrusted_proxies = [{trusted}]\n{}[routes.all]\npath = \"/*\"\n\
             upstream = \"shop\"\n\
             faults = {{ allow_from = [\"10.9.0.0/16\"], abort = \"100%\" }}\n",
            upstream.table("shop")
        )
    };
    for (trusted, client, expected) in [
        ("", "10.9.0.1", 200),
        ("\"127.0.0.1/32\"", "10.9.0.1", 503),
        ("\"127.0.0.1/32\"", "10.8.0.1", 200),
        ("\"127.0.0.1/32\"", "10.9.0.1, 192.0.2.1", 200),
    ] {
        let gateway = Gateway::start(&config(trusted));
        let get = Client::get(gateway.public, "/").header("X-Forwarded-For", client);
        assert_eq!(get.send().status, expected, "{trusted} {client}");
    }
}
