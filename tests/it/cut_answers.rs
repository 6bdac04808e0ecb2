//! Upstreams that break an answer off. What was received is sent before the client sees the cut; a
//! 502 is as good as long as nothing was sent. Never an empty 200, and never a clean end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::support::{Client, Gateway, PATIENCE, Upstream, eventually, raw_until_close, status};

/// How often each case is played: a race that is lost once in twenty is found.
const TIMES: usize = 200;

/// How an upstream ends what it has not finished.
#[derive(Debug, Clone, Copy)]
enum End {
    Fin,
    Reset,
}

/// Reads the head of a request, and nothing behind it.
fn head_of(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return None;
        }
        head.extend_from_slice(&byte);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn finish(stream: &TcpStream, end: End) {
    if matches!(end, End::Reset) {
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}

/// Answers every request with `head`, an empty line and `body`, in one piece, and breaks off.
fn breaking(head: &'static str, body: impl Into<Vec<u8>>, end: End) -> Upstream {
    let body: Vec<u8> = body.into();
    Upstream::raw(move |mut stream| {
        if head_of(&mut stream).is_some() {
            let answer = [format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes(), &body].concat();
            let _ = stream.write_all(&answer);
            finish(&stream, end);
        }
    })
}

fn gateway(upstream: &Upstream, more: &str) -> Gateway {
    let table = upstream.table("shop");
    Gateway::start(&format!("{table}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n{more}"))
}

/// Asserts what a client of HTTP/1.1 may have got where the upstream sent `hello`.
fn is_cut(answer: &str, what: &str) {
    if status(answer) == 502 {
        return;
    }
    assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer:?}");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let chunked = answer.contains("transfer-encoding: chunked");
    assert_eq!(body, if chunked { "5\r\nhello\r\n" } else { "hello" }, "{what}: {answer:?}");
}

fn ask(address: SocketAddr, line: &str) -> String {
    raw_until_close(
        address,
        format!("{line} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"),
    )
}

const LENGTH: &str = "Content-Length: 50";
const CHUNKED: &str = "Transfer-Encoding: chunked";

#[test]
fn over_http_1_1_what_was_received_comes_before_the_cut() {
    for (head, body) in
        [(LENGTH, "hello"), (CHUNKED, "5\r\nhello\r\n"), (CHUNKED, "5\r\nhello\r\n7\r\nwor")]
    {
        for end in [End::Fin, End::Reset] {
            let upstream = breaking(head, body, end);
            let gateway = gateway(&upstream, "");
            for round in 0..TIMES {
                let answer = ask(gateway.public, "GET /a");
                let what = format!("{round} {head} {body:?} {end:?}");
                if body.ends_with("wor") && answer.ends_with("3\r\nwor\r\n") {
                    is_cut(answer.trim_end_matches("3\r\nwor\r\n"), &what);
                } else {
                    is_cut(&answer, &what);
                }
            }
            eventually("every line is written", || gateway.access_lines().len() == TIMES);
            let lines = gateway.access_lines();
            assert!(lines.iter().all(|line| line["reason"] == "upstream_cut_off"), "{lines:?}");
        }
    }
}

/// A body that an upstream's answer leaves unread must not cost the client what was received.
#[test]
fn an_upload_that_nobody_reads_costs_nothing() {
    let upstream = breaking(LENGTH, "hello", End::Fin);
    let gateway = gateway(&upstream, "");
    let upload = vec![b'x'; 300_000];
    for round in 0..20 {
        let head = b"POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 300000\r\n\r\n";
        let answer = raw_until_close(gateway.public, [&head[..], &upload].concat());
        let code = status(&answer);
        assert!(code == 502 || answer.ends_with("\r\n\r\nhello"), "{round}: {answer:?}");
    }
}

#[test]
fn an_answer_that_breaks_off_before_its_body_is_a_502() {
    let upstream = breaking(LENGTH, "", End::Fin);
    let gateway = gateway(&upstream, "");
    for round in 0..TIMES {
        let answer = ask(gateway.public, "GET /a");
        // The end may come after the head: then the client has the head, and sees a cut.
        let cut = answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n");
        assert!(status(&answer) == 502 || cut, "{round}: {answer:?}");
    }
    let reply = Client::request(gateway.public, "HEAD", "/a").send();
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("50")));
}

#[test]
fn a_stalled_answer_is_cut_behind_what_was_received() {
    for (head, body) in [(LENGTH, "hello"), (CHUNKED, "5\r\nhello\r\n")] {
        let upstream = Upstream::raw(move |mut stream| {
            if head_of(&mut stream).is_some() {
                let _ =
                    stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").as_bytes());
                let _ = stream.read(&mut [0]);
            }
        });
        let gateway = Gateway::start(&format!(
            "{}read_timeout = \"50ms\"\n[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
            upstream.table("shop")
        ));
        for round in 0..5 {
            is_cut(&ask(gateway.public, "GET /a"), &format!("{round} {head}"));
        }
    }
}

/// Whoever joins a fetch gets what the one who leads it gets.
#[test]
fn a_shared_answer_is_cut_behind_what_was_received() {
    for (head, body) in [
        ("Cache-Control: max-age=60\r\nContent-Length: 50", "hello"),
        ("Cache-Control: max-age=60\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n"),
    ] {
        let upstream = breaking(head, body, End::Fin);
        let gateway = gateway(&upstream, "cache = { ttl = \"1m\" }\n");
        for round in 0..TIMES / 4 {
            let line = format!("GET /{round}");
            let both = [0; 2].map(|_| {
                let (address, line) = (gateway.public, line.clone());
                std::thread::spawn(move || ask(address, &line))
            });
            for answer in both {
                is_cut(&answer.join().unwrap(), &format!("{round} {head}"));
            }
        }
    }
}

/// Large, so that neither sockets nor windows hold all of it, and read only once the upstream has
/// broken off.
const LARGE: usize = 3_000_000;

#[test]
fn a_slow_reader_gets_all_that_was_received() {
    {
        let upstream = Upstream::raw(move |mut stream| {
            if head_of(&mut stream).is_some() {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", LARGE * 2);
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&vec![b'x'; LARGE]);
            }
        });
        let gateway = gateway(&upstream, "");
        let mut stream = TcpStream::connect(gateway.public).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
        head_of(&mut stream).unwrap();
        let (mut got, mut some) = (0, [0; 700]);
        while let Ok(count @ 1..) = stream.read(&mut some) {
            got += count;
        }
        assert_eq!(got, LARGE);
    }
}

/// What a client of HTTP/2 got of a body, and how its stream ended.
async fn over_http2(address: SocketAddr, window: u32) -> Result<(u16, usize), String> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window);
    let (client, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = Request::builder().uri("http://shop.test/a").body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    let all = async {
        let (head, mut body) = answer.await.map_err(|error| error.to_string())?.into_parts();
        let mut got = 0;
        loop {
            match body.data().await {
                Some(Ok(data)) => {
                    got += data.len();
                    body.flow_control().release_capacity(data.len()).unwrap();
                }
                Some(Err(error)) => {
                    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR), "{error}");
                    return Ok((head.status.as_u16(), got));
                }
                None if head.status == 502 => return Ok((502, 0)),
                None => return Err(format!("a clean end after {got} bytes")),
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("an end in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http2_what_was_received_comes_before_the_reset() {
    let grpc = "Content-Type: application/grpc\r\nTransfer-Encoding: chunked";
    for (head, body) in [(LENGTH, "hello"), (CHUNKED, "5\r\nhello\r\n"), (grpc, "5\r\nhello\r\n")] {
        for end in [End::Fin, End::Reset] {
            let upstream = breaking(head, body, end);
            let gateway = gateway(&upstream, "");
            for round in 0..TIMES / 2 {
                let got = over_http2(gateway.public, 65_535).await;
                let fine = matches!(got, Ok((200, 5) | (502, 0)));
                assert!(fine, "{round} {head} {end:?}: {got:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_window_loses_nothing_that_was_received() {
    let upstream = breaking("Content-Length: 100000", vec![b'x'; 50_000], End::Fin);
    let gateway = gateway(&upstream, "");
    for window in [100, 1000, 65_535] {
        assert_eq!(over_http2(gateway.public, window).await, Ok((200, 50_000)), "{window}");
    }
}
