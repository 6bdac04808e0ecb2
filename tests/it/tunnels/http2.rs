//! WebSockets over HTTP/2 (RFC 8441): one stream of a connection that serves others too.

use std::io::Write;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};

use super::config;
use crate::support::websocket::{CLOSE, TEXT, echo, frame, reason, upstream};
use crate::support::{Chunks, Gateway, PATIENCE, Upstream, eventually, response};

/// A connection on which extended CONNECTs are allowed.
async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let client = connect_plainly(address).await;
    eventually("the settings are here", || client.is_extended_connect_protocol_enabled());
    client
}

async fn connect_plainly(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let (client, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    client.ready().await.expect("a place for a stream")
}

fn ask(
    client: &mut SendRequest<Bytes>,
    path: &str,
    protocol: &'static str,
) -> (ResponseFuture, SendStream<Bytes>) {
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://shop.test{path}"))
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-protocol", "chat")
        .body(())
        .unwrap();
    client.send_request(request, false).expect("a stream")
}

async fn answer(future: ResponseFuture) -> Response<RecvStream> {
    tokio::time::timeout(PATIENCE, future).await.expect("in time").expect("an answer")
}

/// One end of a WebSocket over a stream.
struct Stream {
    send: SendStream<Bytes>,
    receive: RecvStream,
    early: Vec<u8>,
}

impl Stream {
    async fn open(client: &mut SendRequest<Bytes>, path: &str) -> Self {
        let (future, send) = ask(client, path, "websocket");
        let response = answer(future).await;
        assert_eq!(response.status(), 200, "{response:?}");
        for name in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
            assert!(!response.headers().contains_key(name), "{response:?}");
        }
        assert_eq!(response.headers()["x-served-by"], "upstream");
        Self { send, receive: response.into_body(), early: Vec::new() }
    }

    fn write(&mut self, bytes: Vec<u8>) {
        self.send.send_data(bytes.into(), false).expect("bytes for the gateway");
    }

    async fn expect(&mut self, bytes: &[u8]) {
        while self.early.len() < bytes.len() {
            let more = self.more().await.expect("not the end");
            self.early.extend(more);
        }
        assert_eq!(self.early.drain(..bytes.len()).collect::<Vec<u8>>(), bytes);
    }

    /// The next bytes; the end may come as a piece without any.
    async fn more(&mut self) -> Option<Bytes> {
        loop {
            let data = self.piece().await?;
            if !data.is_empty() {
                return Some(data);
            }
        }
    }

    async fn piece(&mut self) -> Option<Bytes> {
        let data = tokio::time::timeout(PATIENCE, self.receive.data()).await.expect("in time")?;
        let data = data.ok()?;
        self.receive.flow_control().release_capacity(data.len()).expect("a window");
        Some(data)
    }

    async fn assert_open(&mut self) {
        self.write(frame(TEXT, true, "still there?"));
        self.expect(&frame(TEXT, false, "still there?")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_websockets_side_by_side() {
    let (upstream, handshakes) = upstream(echo);
    let gateway = Gateway::start(&config(&upstream, "", ""));
    let mut client = connect(gateway.public).await;
    let mut one = Stream::open(&mut client, "/live/1").await;
    let mut two = Stream::open(&mut client, "/live/2").await;
    one.assert_open().await;
    two.assert_open().await;
    let large = "x".repeat(1 << 20);
    let bytes = frame(TEXT, true, &large);
    one.send.reserve_capacity(bytes.len());
    one.write(bytes);
    one.expect(&frame(TEXT, false, &large)).await;
    let head = handshakes.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.starts_with("get /live/1 http/1.1\r\nhost: shop.test\r\n"), "{head}");
    for line in ["upgrade: websocket", "connection: upgrade", "sec-websocket-protocol: chat"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    one.write(frame(CLOSE, true, reason(1000, "bye")));
    one.expect(&frame(CLOSE, false, reason(1000, "bye"))).await;
    assert_eq!(one.more().await, None);
    two.assert_open().await;
    eventually("there is a line", || gateway.access_lines().len() == 1);
    let line = gateway.access_lines().remove(0);
    assert_eq!((&line["status"], &line["tunnel_end"]), (&200.into(), &"client".into()), "{line}");
    // A client that gives a stream up.
    two.send.send_reset(h2::Reason::CANCEL);
    eventually("its tunnel ends", || gateway.access_lines().len() == 2);
    eventually("the upstream is left alone", || upstream.open() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_is_refused() {
    let (upstream, _) = upstream(echo);
    let gateway = Gateway::start(&config(&upstream, "", ""));
    let mut client = connect(gateway.public).await;
    for (path, protocol, expected) in [
        ("/live/1", "connect-udp", 405),
        ("/live/1", "", 405),
        // Its route has no upgrade.
        ("/plain", "websocket", 405),
        ("/mine/1", "websocket", 401),
    ] {
        let (future, _send) = ask(&mut client, path, protocol);
        assert_eq!(answer(future).await.status(), expected, "{path} {protocol}");
    }
    assert_eq!(upstream.connections(), 0);
    assert!(gateway.access_lines().iter().all(|line| line["tunnel_end"].is_null()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_tunnel_is_not_taken_for_one() {
    let upstream = Upstream::raw(|mut stream| {
        let mut chunks = Chunks::of(stream.try_clone().unwrap());
        while let Ok(Some(head)) = chunks.until(b"\r\n\r\n") {
            let said = if head.starts_with(b"GET /live/403") { "403 Forbidden" } else { "200 OK" };
            let _ = stream.write_all(response(said, "no tunnel").as_bytes());
        }
    });
    let gateway = Gateway::start(&config(&upstream, "", ""));
    let mut client = connect(gateway.public).await;
    for (path, expected) in [("/live/200", 502), ("/live/403", 403)] {
        let (future, _send) = ask(&mut client, path, "websocket");
        assert_eq!(answer(future).await.status(), expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_offered_only_where_some_route_wants_it() {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let gateway = Gateway::start(&format!(
        "{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let mut client = connect_plainly(gateway.public).await;
    let (future, _send) = {
        let request = Request::get("http://shop.test/").body(()).unwrap();
        client.send_request(request, true).unwrap()
    };
    // With the answer the settings are here too.
    assert_eq!(answer(future).await.status(), 200);
    assert!(!client.is_extended_connect_protocol_enabled());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_a_tunnel_is_not_idle() {
    let (upstream, _) = upstream(echo);
    // The one before a first request, the other behind the last.
    let limits = "header_timeout = \"1s\"\nidle_timeout = \"1s\"";
    let gateway = Gateway::start(&config(&upstream, limits, ""));
    let mut client = connect(gateway.public).await;
    let mut stream = Stream::open(&mut client, "/live/1").await;
    // One that is idle is closed meanwhile.
    let idle = tokio::net::TcpStream::connect(gateway.public).await.expect("a connection");
    let begun = h2::client::handshake(idle).await.expect("a handshake");
    let (_client, idle): (SendRequest<Bytes>, _) = begun;
    let closed = tokio::time::timeout(PATIENCE, idle).await;
    assert!(closed.is_ok(), "an idle connection is closed");
    stream.assert_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_says_good_bye() {
    let (upstream, _) = upstream(echo);
    let mut gateway = Gateway::start(&config(&upstream, "", ""));
    let mut client = connect(gateway.public).await;
    let mut stream = Stream::open(&mut client, "/live/1").await;
    stream.assert_open().await;
    gateway.signal("TERM");
    stream.expect(&frame(CLOSE, false, reason(1001, "going away"))).await;
    stream.write(frame(CLOSE, true, reason(1001, "")));
    drop(client);
    assert!(gateway.wait().success());
    assert_eq!(gateway.access_lines()[0]["tunnel_end"], "drain");
}
