//! WebSockets over HTTP/2 (RFC 8441): one stream of a connection that serves others too.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::config;
use crate::support::tls::TlsStream;
use crate::support::websocket::{
    CLOSE, KEY, TEXT, WebSocket, accept, echo, frame, handshake, reason, upstream,
};
use crate::support::{
    Act, Authority, CertificateAuthority, Chunks, Client, Exposition, Folder, Gateway,
    Http2Upstream, PATIENCE, Session, TlsClient, TlsFront, Upstream, eventually, raw_until_close,
    response, status,
};

/// A connection on which extended CONNECTs are allowed.
async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let client = connect_plainly(address).await;
    eventually("the settings are here", || client.is_extended_connect_protocol_enabled());
    client
}

async fn connect_plainly(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    begin(stream).await
}

async fn begin<T>(stream: T) -> SendRequest<Bytes>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    client.ready().await.expect("a place for a stream")
}

fn ask(
    client: &mut SendRequest<Bytes>,
    path: &str,
    protocol: &'static str,
) -> (ResponseFuture, SendStream<Bytes>) {
    ask_at(client, &format!("http://shop.test{path}"), protocol)
}

fn ask_at(
    client: &mut SendRequest<Bytes>,
    uri: &str,
    protocol: &'static str,
) -> (ResponseFuture, SendStream<Bytes>) {
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(uri)
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
        Self::open_at(client, &format!("http://shop.test{path}")).await
    }

    async fn open_at(client: &mut SendRequest<Bytes>, uri: &str) -> Self {
        let (future, send) = ask_at(client, uri, "websocket");
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

/// An upstream's direction may end while the client's goes on, on a stream too.
#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_may_end_its_own_direction_first() {
    let received = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let all = Arc::clone(&received);
    let (upstream, _) = upstream(move |mut socket| {
        socket.send(TEXT, "before my end");
        socket.shut_down();
        all.lock().unwrap().push(socket.next().payload);
    });
    let gateway = Gateway::start(&config(&upstream, "", ""));
    let mut client = connect(gateway.public).await;
    let mut stream = Stream::open(&mut client, "/live/1").await;
    stream.expect(&frame(TEXT, false, "before my end")).await;
    assert_eq!(stream.more().await, None);
    stream.write(frame(TEXT, true, "after your end"));
    eventually("it has come", || *received.lock().unwrap() == [b"after your end".to_vec()]);
}

/// A browser says no version in its CONNECT (RFC 8441 §5.1), also behind a balancer.
#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_may_stand_before_them() {
    let (upstream, handshakes) = upstream(echo);
    let config = config(&upstream, "", "");
    let from = "[server]\nproxy_protocol_from = [\"127.0.0.1\"]\n[server.limits]";
    let gateway = Gateway::start(&config.replace("[server.limits]", from));
    let mut tcp = tokio::net::TcpStream::connect(gateway.public).await.expect("a connection");
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.8 40000 443\r\n";
    tcp.write_all(header).await.expect("a header");
    let mut client = begin(tcp).await;
    eventually("the settings are here", || client.is_extended_connect_protocol_enabled());
    Stream::open(&mut client, "/live/1").await.assert_open().await;
    let stream = std::net::TcpStream::connect(gateway.public).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    (&stream).write_all(header).unwrap();
    let mut socket = WebSocket::opened(stream, "/live/2", "", b"");
    socket.send(TEXT, "hello");
    socket.expect(TEXT, "hello");
    for head in handshakes.lock().unwrap().iter() {
        let head = head.to_ascii_lowercase();
        for line in ["sec-websocket-version: 13", "x-forwarded-for: 192.0.2.7"] {
            assert_eq!(head.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line}: {head}");
        }
    }
    assert_eq!(handshakes.lock().unwrap().len(), 2);
}

/// The same WebSocket over HTTP/1.1 and TLS, frame by frame.
fn echoes(stream: &mut TlsStream) {
    let bytes = frame(TEXT, false, "still there?");
    stream.write_all(&frame(TEXT, true, "still there?")).unwrap();
    let mut heard = vec![0; bytes.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, bytes);
}

/// A reload and a new certificate are for connections to come: tunnels stand, in every form.
#[tokio::test(flavor = "multi_thread")]
async fn reloads_and_new_certificates_leave_tunnels_alone() {
    let (upstream, _) = upstream(echo);
    let (authority, folder) = (CertificateAuthority::new(), Folder::new());
    let renew = |path: &std::path::Path| {
        let pair = authority.issue(&["shop.test"]);
        std::fs::write(path.join("site.pem"), pair.cert).unwrap();
        std::fs::write(path.join("site.key"), pair.key).unwrap();
    };
    renew(folder.path());
    let tls = "[server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
               certificates = [{ cert = \"site.pem\", key = \"site.key\" }]\n[server.limits]";
    let written = config(&upstream, "", "").replace("[server.limits]", tls);
    let gateway = Gateway::start_in(folder, &written);
    let listener = gateway.listening("tls");

    let mut clear = connect(gateway.public).await;
    let mut over_clear = Stream::open(&mut clear, "/live/1").await;
    let connector = TlsClient::with(&authority, None, &["h2"]).connector();
    let tcp = tokio::net::TcpStream::connect(listener).await.expect("a connection");
    let name = "shop.test".try_into().expect("a name");
    let mut secure = begin(connector.connect(name, tcp).await.expect("a handshake")).await;
    eventually("the settings are here", || secure.is_extended_connect_protocol_enabled());
    let mut over_tls = Stream::open_at(&mut secure, "https://shop.test/live/2").await;
    let mut wss = TlsClient::new(&authority).connect(listener, "shop.test").unwrap();
    wss.write_all(handshake("/live/3", "").as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        wss.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));

    for number in 1..=20 {
        renew(gateway.folder());
        let other = if number % 2 == 0 { "/mine/*" } else { "/yours/*" };
        gateway.rewrite(&written.replace("/mine/*", other));
        gateway.signal("HUP");
        let name = "portcullis_reloads_total";
        eventually("it is reloaded", || {
            let text = Client::get(gateway.admin, "/metrics").send().text();
            let count = Exposition::text(&text).value(name, &[("result", "applied")]);
            count == Some(f64::from(number))
        });
        over_clear.assert_open().await;
        over_tls.assert_open().await;
        echoes(&mut wss);
    }
    assert_eq!(upstream.connections(), 3);
    assert!(gateway.access_lines().is_empty(), "{:?}", gateway.access_lines());
}

/// Servers under TLS that speak what `offers` says, for a gateway that leaves them the choice. What
/// is HTTP/2 gets `http2`, the rest `http1`.
struct Choosing {
    authority: Authority,
    fronts: Vec<TlsFront>,
}

impl Choosing {
    fn new(offers: &[&[&str]], http1: &Upstream, http2: &Http2Upstream) -> Self {
        let authority = Authority::new();
        let certificate = authority.certificate(&["localhost"]);
        let front = |offers: &&[&str]| {
            let mut server = certificate.server(&[&TLS13], None);
            server.alpn_protocols = offers.iter().map(|it| it.as_bytes().to_vec()).collect();
            TlsFront::by_protocol(server, http1.address(), http2.address())
        };
        Self { fronts: offers.iter().map(front).collect(), authority }
    }

    fn gateway(&self) -> Gateway {
        let folder = Folder::new();
        folder.write("ca.pem", self.authority.pem());
        let servers: Vec<String> = self.fronts.iter().map(|it| it.url("localhost")).collect();
        let config = format!(
            "[upstreams.shop]\nservers = {servers:?}\nprotocol = \"auto\"\n\
             balance = \"round-robin\"\nfail_timeout = \"1h\"\n\
             [upstreams.shop.tls]\nca_file = \"ca.pem\"\n\
             [routes.live]\npath = \"/live/*\"\nupstream = \"shop\"\n\
             upgrade = [\"websocket\"]\n\
             [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n"
        );
        Gateway::start_in(folder, &config)
    }
}

/// `Upgrade` cannot be said in HTTP/2, so a tunnel has a connection of its own, and those of HTTP/2
/// and the server's good name are untouched by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_chooses_http2_is_asked_for_tunnels_in_http1() {
    let (http1, handshakes) = upstream(echo);
    let http2 = Http2Upstream::new(|head| match head.uri().path() {
        "/held" => Act::Hold,
        _ => Act::Answer(Bytes::from_static(b"fine")),
    });
    let choosing = Choosing::new(&[&["h2", "http/1.1"]], &http1, &http2);
    let gateway = choosing.gateway();
    let mut held = Session::open(gateway.public);
    held.write("GET /held HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("it is in progress", || http2.open() == 1);
    let mut client = connect(gateway.public).await;
    for number in 1..=3 {
        let mut socket = WebSocket::open(gateway.public, "/live/1", "");
        socket.send(TEXT, "hello");
        socket.expect(TEXT, "hello");
        Stream::open(&mut client, "/live/2").await.assert_open().await;
        assert_eq!(handshakes.lock().unwrap().len(), 2 * number);
        assert_eq!(Client::get(gateway.public, "/").send().text(), "fine");
    }
    assert_eq!(http2.open(), 1, "the other stream goes on");
    assert!(http2.asked().iter().all(|asked| !asked.uri.contains("/live")));
    http2.release();
    assert_eq!(held.read().text(), "fine");
}

/// One that speaks HTTP/2 alone has no tunnel, and is as good as ever for the rest.
#[test]
fn a_server_without_http1_has_no_tunnels_and_is_not_avoided_for_it() {
    let (http1, _) = upstream(echo);
    let http2 = Http2Upstream::new(|_| Act::Answer(Bytes::from_static(b"fine")));
    let choosing = Choosing::new(&[&["h2"]], &http1, &http2);
    let gateway = choosing.gateway();
    let answer = raw_until_close(gateway.public, handshake("/live/1", ""));
    assert_eq!(status(&answer), 502, "{answer}");
    assert!(answer.contains("urn:portcullis:problem:upstream_tls"), "{answer}");
    eventually("it is said why", || {
        let lines = gateway.access_lines();
        let why = lines.first().and_then(|line| line["error"].as_str()).unwrap_or_default();
        why.contains("does not choose HTTP/1.1")
    });
    assert_eq!(Client::get(gateway.public, "/").send().text(), "fine");

    let choosing = Choosing::new(&[&["h2"], &["h2", "http/1.1"]], &http1, &http2);
    let gateway = choosing.gateway();
    for _ in 0..4 {
        WebSocket::open(gateway.public, "/live/1", "");
    }
    for _ in 0..4 {
        assert_eq!(Client::get(gateway.public, "/").send().text(), "fine");
    }
    let chosen = |front: &TlsFront| {
        let handshakes = front.handshakes();
        handshakes.iter().any(|it| it.protocol.as_deref() == Some("h2"))
    };
    assert!(choosing.fronts.iter().all(chosen), "both still have their share");
}

/// Frames that come before the answer are nobody's until there is a tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_too_early_waits_for_the_answer_and_a_wrong_one_is_a_502() {
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let seen = Arc::clone(&heard);
    let (is_sent, sent) = std::sync::mpsc::channel();
    let sent = Mutex::new(sent);
    let upstream = Upstream::raw(move |mut stream| {
        let mut chunks = Chunks::of(stream.try_clone().unwrap());
        let Ok(Some(head)) = chunks.until(b"\r\n\r\n") else { return };
        // An answer ends the stream, and then nothing can be sent on it.
        let _ = sent.lock().unwrap().recv();
        let said = if head.starts_with(b"GET /live/403") {
            response("403 Forbidden\r\nConnection: close", "no tunnel")
        } else {
            let accept = accept(KEY);
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            )
        };
        let lower = String::from_utf8_lossy(&head).to_ascii_lowercase();
        assert!(lower.contains("\r\nsec-websocket-version: 13\r\n"), "{lower}");
        let _ = stream.write_all(said.as_bytes());
        seen.lock().unwrap().extend(chunks.rest().unwrap_or_default());
    });
    let gateway = Gateway::start(&config(&upstream, "", ""));
    let mut client = connect(gateway.public).await;
    for (path, expected) in [("/live/403", 403), ("/live/1", 502)] {
        let (future, mut send) = ask(&mut client, path, "websocket");
        send.send_data(frame(TEXT, true, "too early").into(), false).expect("bytes");
        is_sent.send(()).expect("an upstream");
        assert_eq!(answer(future).await.status(), expected, "{path}");
        eventually("its connection is closed", || upstream.open() == 0);
    }
    assert_eq!(heard.lock().unwrap().len(), 0, "{heard:?}");
}
