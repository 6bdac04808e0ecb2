//! Upstreams that are broken or hostile (F19): the client gets a clean message, a 502 or a visibly
//! cut off one, and whoever asks next gets his own answer.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};

use crate::support::{Client, Gateway, Upstream, eventually, raw_until_close, response, status};

/// What would be another client's answer, if anybody took it for one.
const SMUGGLED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nSMUGGLED";

/// How a case ends for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// 502.
    Refused,
    /// A whole message with this body.
    Clean(&'static str),
    /// One of both.
    Either(&'static str),
    /// A message whose end, at least, is missing.
    CutOff,
}

/// A gateway whose upstream says at `/evil` what it is told to say, and `fine` elsewhere.
struct Stage {
    gateway: Gateway,
    upstream: Upstream,
    script: Arc<Mutex<(Vec<u8>, bool)>>,
    last: Arc<Mutex<Option<TcpStream>>>,
}

impl Stage {
    fn new() -> Self {
        let script = Arc::new(Mutex::new((Vec::new(), false)));
        let last = Arc::new(Mutex::new(None));
        let (told, kept) = (Arc::clone(&script), Arc::clone(&last));
        let upstream = Upstream::with(move |request, connection| {
            *kept.lock().unwrap() = connection.try_clone().ok();
            if request.target() == "/evil" {
                let (bytes, close) = told.lock().unwrap().clone();
                let _ = connection.write_all(&bytes);
                if close {
                    let _ = connection.shutdown(Shutdown::Both);
                }
            } else {
                let fine = response("200 OK", "fine");
                let to_head = request.request_line().starts_with("HEAD ");
                let text = if to_head { fine.trim_end_matches("fine") } else { &fine };
                let _ = connection.write_all(text.as_bytes());
            }
        });
        let gateway = Gateway::start(&format!(
            "{}response_timeout = \"5s\"\n[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
            upstream.table("shop")
        ));
        Self { gateway, upstream, script, last }
    }

    /// Plays one case; `close` says that the upstream closes after it.
    fn play(&self, method: &str, bytes: &[u8], close: bool, end: End) {
        *self.script.lock().unwrap() = (bytes.to_owned(), close);
        let what = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        let reply = Client::request(self.gateway.public, method, "/evil").try_send();
        let seen = match &reply {
            Ok(reply) => format!("{} {:?}", reply.status, reply.text()),
            Err(error) => error.clone(),
        };
        let refused = reply.as_ref().is_ok_and(|reply| reply.status == 502);
        let clean = |body: &str| {
            reply.as_ref().is_ok_and(|reply| reply.status < 500 && reply.text() == body)
        };
        let as_expected = match end {
            End::Refused => refused,
            End::Clean(body) => clean(body),
            End::Either(body) => refused || clean(body),
            // Where the end is known to be missing before the head has left, a 502 is better still.
            End::CutOff => {
                let without_end = |e: &String| e.contains("cut off") || e.contains("without");
                refused || reply.as_ref().is_err_and(without_end)
            }
        };
        assert!(as_expected, "{method} {what:?}: {end:?} expected, got {seen}");
        assert!(!seen.contains("SMUGGLED"), "{method} {what:?}: {seen}");
        self.next_is_fine(&what);
    }

    /// Several clients come next, on whatever upstream connections are left.
    fn next_is_fine(&self, what: &str) {
        for _ in 0..3 {
            let next = Client::get(self.gateway.public, "/next").send();
            assert_eq!((next.status, next.text().as_str()), (200, "fine"), "after {what:?}");
        }
    }
}

#[test]
fn messages_of_doubtful_length() {
    let stage = Stage::new();
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for (fields, end) in [
        (both.to_owned() + SMUGGLED, End::Either("")),
        (
            format!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{SMUGGLED}"),
            End::Either(""),
        ),
        (format!("Content-Length: 5\r\nContent-Length: 9\r\n\r\nhello{SMUGGLED}"), End::Refused),
        (
            format!("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello{SMUGGLED}"),
            End::Either("hello"),
        ),
        (format!("Content-Length: 5, 9\r\n\r\nhello{SMUGGLED}"), End::Refused),
        (format!("Content-Length: -1\r\n\r\nhello{SMUGGLED}"), End::Refused),
        (format!("Content-Length: +5\r\n\r\nhello{SMUGGLED}"), End::Refused),
        (format!("Content-Length: 0x5\r\n\r\nhello{SMUGGLED}"), End::Refused),
        (
            format!("Content-Length: 99999999999999999999999999\r\n\r\nhello{SMUGGLED}"),
            End::Refused,
        ),
        (format!("Transfer-Encoding: foo\r\n\r\nhello{SMUGGLED}"), End::Refused),
        (format!("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"), End::Refused),
        (format!("Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n{SMUGGLED}"), End::Refused),
        (
            format!(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n\
                 0\r\n\r\n{SMUGGLED}"
            ),
            End::Refused,
        ),
        (
            format!(
                "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
            ),
            End::Refused,
        ),
    ] {
        stage.play("GET", format!("HTTP/1.1 200 OK\r\n{fields}").as_bytes(), true, end);
        stage.play("GET", format!("HTTP/1.1 200 OK\r\n{fields}").as_bytes(), false, end);
    }
}

#[test]
fn bodies_where_none_belongs() {
    let stage = Stage::new();
    for (method, head) in [
        ("HEAD", "200 OK\r\nContent-Length: 5"),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked"),
        ("GET", "204 No Content"),
        ("GET", "204 No Content\r\nContent-Length: 5"),
        ("GET", "304 Not Modified\r\nETag: \"1\""),
        ("GET", "304 Not Modified\r\nContent-Length: 5"),
        ("GET", "200 OK\r\nContent-Length: 0"),
    ] {
        for body in ["hello".to_owned() + SMUGGLED, SMUGGLED.to_owned()] {
            let bytes = format!("HTTP/1.1 {head}\r\n\r\n{body}");
            stage.play(method, bytes.as_bytes(), false, End::Either(""));
        }
    }
}

#[test]
fn bytes_after_the_end_of_a_message() {
    let stage = Stage::new();
    for message in [
        response("200 OK", "hello"),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
    ] {
        let at_once = format!("{message}{SMUGGLED}");
        stage.play("GET", at_once.as_bytes(), false, End::Clean("hello"));
        // Late: when the connection is already at rest.
        stage.play("GET", message.as_bytes(), false, End::Clean("hello"));
        let mut rests = stage.last.lock().unwrap().take().expect("a connection");
        rests.write_all(SMUGGLED.as_bytes()).unwrap();
        stage.next_is_fine(&message);
    }
}

#[test]
fn interim_responses() {
    let stage = Stage::new();
    let hello = response("200 OK", "hello");
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n";
    stage.play("GET", format!("{switch}{SMUGGLED}").as_bytes(), false, End::Refused);
    stage.play("POST", format!("{switch}{SMUGGLED}").as_bytes(), true, End::Refused);
    let continues = "HTTP/1.1 100 Continue\r\n\r\n";
    stage.play("GET", format!("{continues}{hello}").as_bytes(), false, End::Clean("hello"));
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    stage.play("GET", format!("{hints}{hello}").as_bytes(), false, End::Clean("hello"));
    let flood = format!("{}{hello}", continues.repeat(20_000));
    stage.play("GET", flood.as_bytes(), false, End::Either("hello"));
}

#[test]
fn heads_that_are_no_heads() {
    let stage = Stage::new();
    let bomb =
        format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(300 << 10));
    let many: String = (0..1000).map(|i| format!("X-{i}: y\r\n")).collect();
    let many = format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n");
    for bytes in [
        &b"hello"[..],
        b"",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 99 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 1000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX y\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX\x01: y\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\rSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 0\r\n\r\n",
        bomb.as_bytes(),
        many.as_bytes(),
    ] {
        stage.play("GET", bytes, true, End::Refused);
    }
    // White space before the colon must go, or the message with it.
    let spaced = format!("HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello{SMUGGLED}");
    stage.play("GET", spaced.as_bytes(), true, End::Either("hello"));
}

#[test]
fn what_is_cut_off_stays_cut_off() {
    let stage = Stage::new();
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZ\r\nmore\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10000000000000000\r\n",
    ] {
        stage.play("GET", bytes.as_bytes(), true, End::CutOff);
    }
    eventually("the log says so", || {
        let lines = stage.gateway.access_lines();
        lines.iter().filter(|line| line["reason"] == "upstream_cut_off").count() == 10
    });
}

#[test]
fn a_body_that_ends_with_the_connection_is_passed_on() {
    let stage = Stage::new();
    for head in ["HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/1.1 200 OK\r\nConnection: close"] {
        let bytes = format!("{head}\r\n\r\nhello");
        stage.play("GET", bytes.as_bytes(), true, End::Clean("hello"));
    }
    // A client that knows no chunks sees the end of the connection.
    let old = "GET /evil HTTP/1.0\r\nHost: shop.test\r\n\r\n";
    let answer = raw_until_close(stage.gateway.public, old);
    assert_eq!(status(&answer), 200);
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
}

#[test]
fn a_client_that_knows_no_chunks_sees_that_a_message_is_cut_off() {
    let stage = Stage::new();
    let bytes = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    *stage.script.lock().unwrap() = (bytes.as_bytes().to_owned(), true);
    // HTTP/1.0 has no mark of a message's end but the connection's, so only an abrupt one is
    // honest.
    let reset = abrupt_end(&stage, "GET /evil HTTP/1.0\r\nHost: shop.test\r\n\r\n");
    assert!(reset, "the end of the connection looked like the end of the message");
    assert!(stage.upstream.connections() > 0);
}

/// Whether the connection ends with a reset rather than with an end.
fn abrupt_end(stage: &Stage, request: &str) -> bool {
    use std::io::{ErrorKind, Read};
    let mut stream = TcpStream::connect(stage.gateway.public).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}
