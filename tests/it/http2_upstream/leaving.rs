//! Servers that leave (GOAWAY, RFC 9113 §6.8) at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::Reason;

use super::{
    Came, DATA, HEADERS, SETTINGS, answer, before, config, error, fine, frame, serve, serve_parts,
};
use crate::support::{Client, Gateway, Http2Upstream, Session, Upstream, eventually, raw, status};

const GOAWAY: u8 = 7;

fn goaway(last: u32, code: Reason) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), u32::from(code).to_be_bytes()].concat())
}

/// A server that says good-bye lives: no request is lost by it, and it has its share afterwards.
#[test]
fn a_server_that_says_good_bye_is_not_avoided() {
    let settings = || frame(SETTINGS, 0, 0, &[]);
    let calm = Reason::ENHANCE_YOUR_CALM;
    for (what, first, says) in [
        ("at once", [settings(), goaway(0, Reason::NO_ERROR)].concat(), None),
        ("unread", settings(), Some(goaway(0, Reason::NO_ERROR))),
        ("unread, too many", settings(), Some(goaway(0, calm))),
        ("at rest", settings(), Some([answer(1), goaway(1, Reason::NO_ERROR)].concat())),
    ] {
        let connections = AtomicUsize::new(0);
        let answered = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&answered);
        let leaves = Upstream::raw(move |io| {
            if connections.fetch_add(1, Ordering::SeqCst) == 0 {
                return serve(io, &first, |_| says.clone());
            }
            serve(io, &frame(SETTINGS, 0, 0, &[]), |stream| {
                count.fetch_add(1, Ordering::SeqCst);
                Some(answer(stream))
            });
        });
        let stays = Http2Upstream::new(|_| fine());
        let more = "protocol = \"h2\"\nbalance = \"round-robin\"\nfail_timeout = \"1h\"";
        let gateway = Gateway::start(&config(&[leaves.url(), stays.url()], more));
        for number in 0..8 {
            let reply = Client::request(gateway.public, "POST", "/").body("an order").send();
            assert_eq!(reply.status, 200, "{what}, {number}: {}", reply.text());
        }
        assert!(answered.load(Ordering::SeqCst) > 1, "{what}: it is avoided");
        assert!(!stays.asked().is_empty(), "{what}");
    }
}

/// What has begun comes to its end, and the next request goes over another connection.
#[test]
fn a_good_bye_in_the_middle_of_a_body_ends_no_exchange() {
    let heads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heads);
    let upstream = Upstream::raw(move |io| {
        serve_parts(io, &frame(SETTINGS, 0, 0, &[]), |stream, came| {
            let leaves = goaway(stream, Reason::NO_ERROR);
            if came == Came::Head {
                // In the middle of the client's body.
                count.fetch_add(1, Ordering::SeqCst);
                return Some(leaves);
            }
            // In the middle of its own.
            let begun = [frame(HEADERS, 4, stream, &[0x88]), frame(DATA, 0, stream, b"fi")];
            Some([begun.concat(), leaves, frame(DATA, 1, stream, b"ne")].concat())
        });
    });
    let gateway = before(upstream.url(), "fail_timeout = \"1h\"");
    let mut session = Session::open(gateway.public);
    for number in 1..=3 {
        session.write(
            "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nan \r\n",
        );
        eventually("its head has come", || heads.load(Ordering::SeqCst) == number);
        session.write("5\r\norder\r\n0\r\n\r\n");
        let reply = session.read();
        assert_eq!((reply.status, reply.text().as_str()), (200, "fine"), "{number}");
        assert_eq!(upstream.connections(), number);
    }
}

/// A good-bye to a request whose body has left in part: it was not acted on, but cannot be sent
/// again.
#[test]
fn a_good_bye_to_half_a_body_is_a_502_and_the_server_is_not_avoided() {
    let heads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heads);
    let upstream = Upstream::raw(move |io| {
        serve_parts(io, &frame(SETTINGS, 0, 0, &[]), |stream, came| match came {
            Came::Head if count.fetch_add(1, Ordering::SeqCst) == 0 => {
                Some(goaway(0, Reason::NO_ERROR))
            }
            Came::Head => Some(Vec::new()),
            Came::Whole => Some(answer(stream)),
        });
    });
    let gateway = before(upstream.url(), "fail_timeout = \"1h\"");
    // More than is kept for another attempt, and the rest of it never comes.
    let half = "x".repeat(200 << 10);
    let head = "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 409600\r\n\r\n";
    let answer = raw(gateway.public, format!("{head}{half}"));
    assert_eq!((status(&answer), heads.load(Ordering::SeqCst)), (502, 1), "{answer}");
    assert_eq!(Client::get(gateway.public, "/").send().text(), "fine");
}

/// Who begins with another word than SETTINGS speaks no HTTP/2 (RFC 9113 §3.4): it gets no request.
#[test]
fn a_good_bye_before_all_settings_is_no_http2() {
    let leaves = Upstream::raw(|io| {
        serve(io, &goaway(0, Reason::NO_ERROR), |_| panic!("a request came"));
    });
    let gateway = before(leaves.url(), "");
    let reply = Client::request(gateway.public, "POST", "/").body("an order").send();
    assert_eq!(reply.status, 502, "{}", reply.text());
    let why = error(&gateway, "upstream_unreachable");
    assert!(why.contains("did not begin HTTP/2"), "{why}");

    let stays = Http2Upstream::new(|_| fine());
    let more = "protocol = \"h2\"\nbalance = \"round-robin\"";
    let gateway = Gateway::start(&config(&[leaves.url(), stays.url()], more));
    for number in 1..=8 {
        let reply = Client::request(gateway.public, "POST", "/").body("an order").send();
        assert_eq!((reply.status, stays.asked().len()), (200, number));
    }
}
