//! The bounds and deadlines of `[server.limits]`, as an HTTP/2 client meets them.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use http::{Method, Request};

use super::{block, connect, exchange, frame, get};
use crate::support::{Gateway, Upstream, eventually, response};

fn bounded(limits: &str, upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "[server.limits]\n{limits}\n{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ))
}

fn fine() -> Upstream {
    Upstream::replying(response("200 OK", "fine"))
}

fn post() -> http::request::Builder {
    get("http://shop.test/").method(Method::POST)
}

#[tokio::test(flavor = "multi_thread")]
async fn heads() {
    let upstream = fine();
    let gateway = bounded("header_bytes = \"8KiB\"\nheaders = 10", &upstream);
    let many = |count: usize| {
        let fields = (0..count).map(|number| (format!("x-{number}"), "y"));
        fields.fold(get("http://shop.test/"), |get, (name, value)| get.header(name, value))
    };
    let long = |bytes: usize| get("http://shop.test/").header("x", "y".repeat(bytes));
    for (request, fits) in
        [(many(10), true), (long(7000), true), (many(11), false), (long(9000), false)]
    {
        let mut client = connect(gateway.public).await;
        let answer = exchange(&mut client, request.body(()).unwrap(), None).await;
        match answer {
            Ok((head, ..)) => assert_eq!(head.status(), if fits { 200 } else { 431 }),
            Err(error) => assert!(!fits, "{error}"),
        }
        assert_eq!(upstream.seen(), usize::from(fits));
        upstream.forget();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies() {
    let upstream = fine();
    let gateway = bounded("body_bytes = \"8B\"", &upstream);
    let mut client = connect(gateway.public).await;
    for (request, body, fits) in [
        (post(), "12345678", true),
        (post().header("content-length", "8"), "12345678", true),
        (post(), "123456789", false),
        (post().header("content-length", "9"), "123456789", false),
    ] {
        let answer = exchange(&mut client, request.body(()).unwrap(), Some(body)).await;
        let status = answer.unwrap().0.status();
        assert_eq!(status, if fits { 200 } else { 413 }, "{body}");
        assert_eq!(upstream.seen(), usize::from(fits), "{body}");
        upstream.forget();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_body_ends_its_stream_alone() {
    let upstream = fine();
    let gateway = bounded("progress_timeout = \"1s\"", &upstream);
    let mut client = connect(gateway.public).await;
    let (answer, mut upload) = client.send_request(post().body(()).unwrap(), false).unwrap();
    upload.send_data(Bytes::from_static(b"some"), false).unwrap();
    if let Ok(answer) = tokio::time::timeout(crate::support::PATIENCE, answer).await.unwrap() {
        assert_eq!(answer.status(), 408);
    }
    eventually("the upstream is free again", || upstream.open() == 0);
    assert_eq!(upstream.seen(), 0);
    let next = exchange(&mut client, get("http://shop.test/").body(()).unwrap(), None).await;
    assert_eq!(next.unwrap().0.status(), 200);
}

/// HTTP/2 has a second way of not reading: a window that stays shut while the socket takes all.
#[test]
fn a_window_that_stays_shut_is_a_slow_reader() {
    const LENGTH: usize = 8 << 20;
    let upstream = Upstream::with(|_, connection| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        let _ = connection.write_all(head.as_bytes());
        let _ = connection.write_all(&vec![b'x'; LENGTH]);
        let _ = connection.read(&mut [0; 16]);
    });
    let gateway = bounded("progress_timeout = \"1s\"", &upstream);
    for window in [0u8, 100] {
        let mut stream = TcpStream::connect(gateway.public).unwrap();
        // SETTINGS_INITIAL_WINDOW_SIZE
        let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, window]);
        let request = frame(1, 0x5, 1, &block(&super::FIRST));
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        stream.write_all(&[&preface[..], &settings, &request].concat()).unwrap();
        eventually("the upstream sends", || upstream.seen() == 1);
        eventually("the upstream is free again", || upstream.open() == 0);
        upstream.forget();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams() {
    let upstream = fine();
    let gateway = bounded("streams = 3", &upstream);
    let mut client = connect(gateway.public).await;
    exchange(&mut client, get("http://shop.test/").body(()).unwrap(), None).await.unwrap();
    assert_eq!(client.current_max_send_streams(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_streams_that_have_begun() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let upstream = Upstream::with(move |_, connection| {
        let _ = told.lock().unwrap().recv();
        let _ = connection.write_all(response("200 OK", "fine").as_bytes());
    });
    let mut gateway = bounded("", &upstream);
    let mut client = connect(gateway.public).await;
    let request: Request<()> = get("http://shop.test/busy").body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    eventually("the request is at the upstream", || upstream.seen() == 1);
    gateway.signal("TERM");
    eventually("nobody new is let in", || TcpStream::connect(gateway.public).is_err());
    tell.send(()).unwrap();
    let (head, mut body) = answer.await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(body.data().await.unwrap().unwrap(), "fine");
    drop(client);
    assert_eq!(gateway.wait().code(), Some(0));
}
