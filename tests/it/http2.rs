//! HTTP/2 with prior knowledge: what a real client sees, and what a hostile one cannot get through
//! on the way down to HTTP/1.1. The one file whose client is somebody else's library.

mod bounds;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Barrier};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Response};

use crate::support::{AUTH, Edge, Gateway, PATIENCE, Upstream, eventually, response};

pub(crate) async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let (client, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    client.ready().await.expect("a place for a stream")
}

/// A response, its body and its trailers.
pub(crate) type Answer = (Response<()>, String, HeaderMap);

pub(crate) async fn exchange(
    client: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: Option<&'static str>,
) -> Result<Answer, h2::Error> {
    let (answer, mut upload) = client.send_request(request, body.is_none())?;
    if let Some(body) = body {
        upload.send_data(Bytes::from_static(body.as_bytes()), true)?;
    }
    let all = async {
        let (head, mut download) = answer.await?.into_parts();
        let mut body = Vec::new();
        while let Some(data) = download.data().await {
            let data = data?;
            body.extend_from_slice(&data);
            download.flow_control().release_capacity(data.len())?;
        }
        let trailers = download.trailers().await?.unwrap_or_default();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok((Response::from_parts(head, ()), body, trailers))
    };
    tokio::time::timeout(PATIENCE, all).await.expect("an answer in time")
}

fn get(uri: &str) -> http::request::Builder {
    Request::builder().uri(uri)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_becomes_http_1_1() {
    let edge = Edge::open();
    let mut client = connect(edge.gateway.public).await;
    let request = get("http://Shop.test:81/x/../y?q=1").header("x-a", "b").body(()).unwrap();
    let (head, body, _) = exchange(&mut client, request, None).await.unwrap();
    assert_eq!((head.status().as_u16(), body.as_str()), (200, "from the upstream"));
    assert!(head.headers().contains_key("x-request-id"));
    let passed = edge.upstream.only();
    assert_eq!(passed.request_line(), "GET /y?q=1 HTTP/1.1");
    assert_eq!(passed.headers_named("host"), ["shop.test:81"]);
    assert_eq!(passed.header("x-a"), Some("b"));
    edge.upstream.forget();

    let request = get("http://shop.test/up").method(Method::POST).body(()).unwrap();
    let (head, ..) = exchange(&mut client, request, Some("hello")).await.unwrap();
    assert_eq!(head.status(), 200);
    let passed = edge.upstream.only();
    assert_eq!((passed.request_line(), passed.text().as_str()), ("POST /up HTTP/1.1", "hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_connection_run_side_by_side() {
    const STREAMS: usize = 20;
    // Nobody is answered before all have arrived.
    let all = Arc::new(Barrier::new(STREAMS));
    let upstream = Upstream::with(move |request, connection| {
        all.wait();
        let _ = connection.write_all(response("200 OK", request.target()).as_bytes());
    });
    let gateway = Gateway::start(&format!(
        "{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let client = connect(gateway.public).await;
    let ask = |number: usize| {
        let mut client = client.clone();
        tokio::spawn(async move {
            let uri = format!("http://shop.test/{number}");
            let (head, body, _) = exchange(&mut client, get(&uri).body(()).unwrap(), None).await?;
            assert_eq!((head.status().as_u16(), body), (200, format!("/{number}")));
            Ok::<_, h2::Error>(())
        })
    };
    let asked: Vec<_> = (0..STREAMS).map(ask).collect();
    for answered in asked {
        answered.await.unwrap().unwrap();
    }
    assert_eq!(upstream.seen(), STREAMS);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_authority() {
    let edge = Edge::open();
    let mut client = connect(edge.gateway.public).await;
    for host in
        ["evil.test", "shop.test:81", "", "shop.test, evil.test", "user@shop.test", "shop.test.."]
    {
        let request = get("http://shop.test/").header("host", host).body(()).unwrap();
        let (head, ..) = exchange(&mut client, request, None).await.unwrap();
        assert_eq!(head.status(), 400, "{host:?}");
    }
    let request = get("http://shop.test/").header("host", "shop.test").header("host", "shop.test");
    let (head, ..) = exchange(&mut client, request.body(()).unwrap(), None).await.unwrap();
    assert_eq!(head.status(), 400);
    assert_eq!(edge.upstream.seen(), 0);
    for host in ["SHOP.test", "shop.test.", "shop.test:"] {
        let request = get("http://shop.test/").header("host", host).body(()).unwrap();
        assert_eq!(exchange(&mut client, request, None).await.unwrap().0.status(), 200);
        assert_eq!(edge.upstream.only().headers_named("host"), ["shop.test"]);
        edge.upstream.forget();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hyper_lets_through_in_http_2_alone_is_refused_by_name() {
    let edge = Edge::with("[server.limits]\nheaders = 8");
    let mut client = connect(edge.gateway.public).await;
    let other_host = get("http://shop.test/").header("host", "evil.test");
    let two_lengths =
        get("http://shop.test/").header("content-length", "0").header("content-length", "00");
    let many = (0..9).fold(get("http://shop.test/"), |request, number| {
        request.header(format!("x-{number}"), "1")
    });
    for (request, expected, code) in [
        (other_host, 400, "authority_mismatch"),
        (two_lengths, 400, "content_length_invalid"),
        (many, 431, "headers_too_many"),
    ] {
        let (head, body, _) = exchange(&mut client, request.body(()).unwrap(), None).await.unwrap();
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(head.status().as_u16(), expected, "{code}");
        assert_eq!(problem["type"], format!("urn:portcullis:problem:{code}"));
    }
    assert_eq!(edge.upstream.seen(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn crumbs_of_cookies_are_joined() {
    let edge = Edge::open();
    let mut client = connect(edge.gateway.public).await;
    let crumbs = get("http://shop.test/").header("cookie", "a=1").header("cookie", "b=2; c=3");
    exchange(&mut client, crumbs.body(()).unwrap(), None).await.unwrap();
    assert_eq!(edge.upstream.only().headers_named("cookie"), ["a=1; b=2; c=3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_keeps_its_metadata_and_loses_what_frames() {
    let upstream = Upstream::replying(
        "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\n\
         grpc-status: 0\r\ngrpc-message: fine\r\nx-cost: 1\r\nhost: x\r\nset-cookie: a=b\r\n\r\n",
    );
    let gateway = Gateway::start(&format!(
        "{AUTH}{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n\
         [routes.private]\npath = \"/private\"\nupstream = \"shop\"\nauth = \"users\"\n",
        upstream.table("shop")
    ));
    let mut client = connect(gateway.public).await;
    let call = |uri: &str| {
        let call = get(uri).method(Method::POST).header("te", "trailers");
        call.header("content-type", "application/grpc").body(()).unwrap()
    };
    let request = call("http://shop.test/shop.Products/Get");
    let (head, body, trailers) = exchange(&mut client, request, Some("hello")).await.unwrap();
    assert_eq!((head.status().as_u16(), body.as_str()), (200, "hello"));
    let names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(
        (names, &trailers["grpc-status"]),
        (vec!["grpc-status", "grpc-message", "x-cost"], &"0".parse().unwrap())
    );
    assert_eq!(upstream.only().headers_named("te"), ["trailers"]);

    // What the gateway refuses itself is told in gRPC's words.
    let request = call("http://shop.test/private");
    let (head, ..) = exchange(&mut client, request, Some("hello")).await.unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["grpc-status"]),
        (200, &"16".parse().unwrap())
    );
    assert_eq!(upstream.seen(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_over_a_limit_is_told_that_a_resource_is_exhausted() {
    let upstream = Upstream::replying(
        "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\ngrpc-status: 0\r\n\r\n",
    );
    let limit =
        |name: &str, what: &str| format!("[limits.{name}]\nkey = [\"header:x-user\"]\n{what}\n");
    let gateway = Gateway::start(&format!(
        "{}{}{}{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n\
         limits = [\"calls\", \"local\", \"open\"]\n",
        upstream.table("shop"),
        limit("calls", "allow = [\"2/1h\"]"),
        limit("local", "allow = [\"3/1h\"]\nscope = \"local\""),
        limit("open", "concurrent = 3"),
    ));
    let mut client = connect(gateway.public).await;
    let call = |user: &str| {
        let call = get("http://shop.test/shop.Products/Get").method(Method::POST);
        let call = call.header("te", "trailers").header("x-user", user);
        call.header("content-type", "application/grpc+proto").body(()).unwrap()
    };
    for _ in 0..2 {
        let (head, _, trailers) = exchange(&mut client, call("ada"), Some("hello")).await.unwrap();
        assert_eq!(
            (head.status().as_u16(), &trailers["grpc-status"]),
            (200, &"0".parse().unwrap())
        );
        assert!(head.headers().contains_key("ratelimit"), "{head:?}");
    }
    for _ in 0..2 {
        let (head, body, trailers) =
            exchange(&mut client, call("ada"), Some("hello")).await.unwrap();
        // All in the head: the client's library reads it as the end of the call.
        assert_eq!((head.status().as_u16(), body.as_str(), trailers.len()), (200, "", 0));
        let field = |name: &str| head.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(field("grpc-status"), "8");
        assert_eq!(field("content-type"), "application/grpc");
        assert!(field("grpc-message").contains("limit"), "{head:?}");
        assert!(field("retry-after").parse::<u64>().unwrap() > 3000, "{head:?}");
        assert!(field("ratelimit").contains("r=0"), "{head:?}");
    }
    assert_eq!(upstream.seen(), 2, "what is refused is not forwarded");
    // Another caller's calls go on, on the same connection.
    let (_, _, trailers) = exchange(&mut client, call("eve"), Some("hello")).await.unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_reset_takes_its_upstream_request_along() {
    let upstream = Upstream::with(|_, connection| {
        let _ = connection.read(&mut [0; 16]);
    });
    let gateway = Gateway::start(&format!(
        "{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let mut client = connect(gateway.public).await;
    let request = get("http://shop.test/wait").body(()).unwrap();
    let (answer, mut upload) = client.send_request(request, true).unwrap();
    eventually("the upstream has it", || upstream.seen() == 1);
    upload.send_reset(h2::Reason::CANCEL);
    drop(answer);
    eventually("the upstream is free again", || upstream.open() == 0);
    // The connection goes on.
    let other = get("http://shop.test/wait").body(()).unwrap();
    let _kept = client.send_request(other, true).unwrap();
    eventually("the upstream has the next", || upstream.seen() == 2);
}

/// One frame.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0, length[0], length[1], kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A block of literal fields, as no library would write them.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// Sends these frames on a new connection. Whether stream 1 was answered with a 200.
fn is_served(address: SocketAddr, frames: &[u8]) -> bool {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(4, 0, 0, b"").as_slice()].concat();
    stream.write_all(&[&preface, frames].concat()).unwrap();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return false;
        }
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).unwrap();
        match head[3] {
            // HEADERS: 0x88 is `:status: 200`, behind any updates of the table's size.
            1 => return payload.iter().find(|byte| *byte & 0xe0 != 0x20) == Some(&0x88),
            // RST_STREAM and GOAWAY.
            3 | 7 => return false,
            _ => {}
        }
    }
}

const FIRST: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/h2")];

/// Fields that are malformed beside good pseudo fields.
const FIELDS: [(&str, &str); 22] = [
    ("x", "a\r\nhost: evil"),
    ("x", "a\nb"),
    ("x", "a\rb"),
    ("x", "a\0b"),
    ("x: y\r\nz", "a"),
    ("X-Upper", "a"),
    ("", "a"),
    ("a b", "a"),
    ("a:b", "a"),
    ("connection", "keep-alive"),
    ("keep-alive", "5"),
    ("proxy-connection", "close"),
    ("upgrade", "h2c"),
    ("transfer-encoding", "chunked"),
    ("te", "gzip"),
    (":path", "/smuggled"),
    (":status", "200"),
    (":unknown", "x"),
    ("host", "evil.test"),
    ("content-length", "5"),
    ("content-length", "+0"),
    ("expect", "x"),
];

/// Pseudo fields that replace the good ones.
const PSEUDO: [(&str, &str); 22] = [
    (":method", "GET /smuggled HTTP/1.1\r\nx: y"),
    (":method", "GET /smuggled"),
    (":method", ""),
    (":method", "TRACE"),
    (":method", "CONNECT"),
    (":scheme", "http\r\nx: y"),
    (":scheme", "ftp"),
    (":authority", "shop.test\r\nx: y"),
    (":authority", "shop test"),
    (":authority", "user@shop.test"),
    (":authority", "shop.test/admin"),
    (":authority", "shop.test.."),
    (":authority", ".shop.test"),
    (":path", "/a/..;/b"),
    (":path", "/a b"),
    (":path", "/a HTTP/1.1\r\nhost: evil\r\n\r\nGET /smuggled"),
    (":path", "/a\0"),
    (":path", "/a%0d%0ab"),
    (":path", ""),
    (":path", "*"),
    (":path", "admin"),
    (":path", "http://evil.test/"),
];

#[test]
fn nothing_is_smuggled_on_the_way_down() {
    let edge = Edge::open();
    let serves =
        |fields: &[(&str, &str)]| is_served(edge.gateway.public, &frame(1, 0x5, 1, &block(fields)));
    assert!(serves(&FIRST), "a plain request is served");
    assert_eq!(edge.upstream.only().request_line(), "GET /h2 HTTP/1.1");
    edge.upstream.forget();
    for field in FIELDS {
        assert!(!serves(&[&FIRST[..], &[field]].concat()), "{field:?}");
        assert_eq!(edge.upstream.seen(), 0, "{field:?}");
    }
    for pseudo in PSEUDO {
        let fields = FIRST.map(|first| if first.0 == pseudo.0 { pseudo } else { first });
        assert!(!serves(&fields), "{pseudo:?}");
        assert_eq!(edge.upstream.seen(), 0, "{pseudo:?}");
    }
    for left_out in [":method", ":scheme", ":authority", ":path"] {
        let fields: Vec<_> = FIRST.into_iter().filter(|(name, _)| *name != left_out).collect();
        assert!(!serves(&fields), "without {left_out}");
    }
    let late = [("x", "y"), FIRST[0], FIRST[1], FIRST[2], FIRST[3]];
    assert!(!serves(&late), "pseudo fields after others");
    assert_eq!(edge.upstream.seen(), 0);
    edge.still_serves();
}

/// Sends a POST of these frames: the head with these lengths, the body, the trailers if any.
fn posts(edge: &Edge, lengths: &[&str], body: &[u8], trailers: &[(&str, &str)]) -> bool {
    let mut fields = FIRST.to_vec();
    fields[0].1 = "POST";
    fields.extend(lengths.iter().map(|length| ("content-length", *length)));
    let mut frames = frame(1, 0x4, 1, &block(&fields));
    frames.extend(frame(0, u8::from(trailers.is_empty()), 1, body));
    if !trailers.is_empty() {
        frames.extend(frame(1, 0x5, 1, &block(trailers)));
    }
    is_served(edge.gateway.public, &frames)
}

#[test]
fn a_body_has_the_length_that_it_says() {
    let edge = Edge::open();
    for lengths in [&["4"][..], &["6"], &["5", "6"], &["+5"], &["0x5"], &[""], &["5, 6"]] {
        assert!(!posts(&edge, lengths, b"hello", &[]), "{lengths:?}");
        assert_eq!(edge.upstream.seen(), 0, "{lengths:?}");
    }
    for lengths in [&["5"][..], &[]] {
        assert!(posts(&edge, lengths, b"hello", &[]), "{lengths:?}");
        assert_eq!(edge.upstream.only().text(), "hello", "{lengths:?}");
        edge.upstream.forget();
    }
}

#[test]
fn trailers_stay_behind() {
    let edge = Edge::open();
    for trailers in [&[("x-user-id", "admin")][..], &[("host", "evil")], &[("grpc-status", "0")]] {
        assert!(posts(&edge, &["5"], b"hello", trailers), "{trailers:?}");
        let passed = edge.upstream.only();
        assert_eq!((passed.text().as_str(), passed.trailers.len()), ("hello", 0), "{trailers:?}");
        edge.upstream.forget();
    }
    // Malformed ones (RFC 9113 §8.1, §8.2) may also end the stream, before or after the upstream
    // has all of the body.
    for trailers in [&[(":path", "/x")][..], &[("transfer-encoding", "chunked")], &[("X", "y")]] {
        posts(&edge, &["5"], b"hello", trailers);
    }
    for passed in edge.upstream.recorded() {
        assert_eq!((passed.target(), passed.trailers.len()), ("/h2", 0), "{passed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_end_at_the_gateway() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let upstream = Upstream::replying(hints.repeat(3) + &response("200 OK", "hello"));
    let gateway = Gateway::start(&format!(
        "{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let mut client = connect(gateway.public).await;
    for _ in 0..3 {
        let request = get("http://shop.test/x").body(()).unwrap();
        let (head, body, _) = exchange(&mut client, request, None).await.unwrap();
        assert_eq!((head.status().as_u16(), body.as_str()), (200, "hello"));
        assert!(!head.headers().contains_key("link"), "{head:?}");
    }
}

/// The word that a body has ended may come behind its last byte, and behind the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_end_comes_late_is_known_again_by_its_body() {
    let upstream = Upstream::replying(response("200 OK", "done"));
    let gateway = Gateway::start(&format!(
        "[store]\nurl = \"memory:\"\n{}[routes.orders]\npath = \"/orders\"\n\
         upstream = \"shop\"\nidempotency = {{}}\n",
        upstream.table("shop")
    ));
    let mut client = connect(gateway.public).await;
    let request = || {
        let request = get("http://shop.test/orders").method(Method::POST);
        request.header("idempotency-key", "k").header("content-length", "3").body(()).unwrap()
    };
    let (answer, mut upload) = client.send_request(request(), false).unwrap();
    upload.send_data(Bytes::from_static(b"abc"), false).unwrap();
    let answer = async {
        let (mut download, mut text) = (answer.await?.into_body(), Vec::new());
        while let Some(data) = download.data().await {
            text.extend_from_slice(&data?);
        }
        Ok::<_, h2::Error>(text)
    };
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time");
    assert_eq!(answer.unwrap(), b"done");
    // Whether or not anybody still listens.
    let _ = upload.send_data(Bytes::new(), true);
    for (body, status) in [("abc", 200), ("abd", 422)] {
        let (head, ..) = exchange(&mut client, request(), Some(body)).await.unwrap();
        assert_eq!(head.status(), status, "{body}");
    }
    assert_eq!(upstream.only().text(), "abc");
}
