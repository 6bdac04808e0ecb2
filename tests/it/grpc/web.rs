//! gRPC-Web, which browsers speak: over HTTP/1.1 and HTTP/2, binary and text.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use crate::grpc::{before, line, message_of};
use crate::support::grpc_upstream::{GRPC, GrpcClient, OK, Step, message};
use crate::support::{Client, Gateway, Reply};

const KEYS: &str = "grpc = { web = true, message_bytes = \"1KiB\" }";
const END: &[u8] = b"\x80\0\0\0\x1bgrpc-status: 0\r\nx-cost: 7\r\n";

fn steps() -> Vec<Step> {
    let one = || Step::Data(message(b"one"));
    let end = Step::Trailers(&[("grpc-status", "0"), ("x-cost", "7")]);
    vec![Step::Read, GRPC, one(), one(), end]
}

fn post(gateway: &Gateway, content_type: &str, body: impl AsRef<[u8]>) -> Reply {
    Client::request(gateway.public, "POST", "/shop.Products/Get")
        .header("content-type", content_type)
        .header("x-grpc-web", "1")
        .body(body)
        .send()
}

/// Base64 of which each part is padded.
fn decoded(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|group| BASE64_STANDARD.decode(group).unwrap()).collect()
}

#[test]
fn a_call_is_translated_both_ways() {
    let (upstream, gateway) = before(steps(), KEYS);
    let expected = [&message(b"one")[..], &message(b"one"), END].concat();

    let reply = post(&gateway, "application/grpc-web+proto", message(b"which"));
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/grpc-web+proto"));
    let exposed = reply.header("access-control-expose-headers");
    assert_eq!(exposed, Some("grpc-status, grpc-message"));
    assert_eq!(reply.body, expected);

    // Two parts, each of them padded.
    let text = [
        BASE64_STANDARD.encode(&message(b"which")[..4]),
        BASE64_STANDARD.encode(&message(b"which")[4..]),
    ];
    let reply = post(&gateway, "application/grpc-web-text", text.concat());
    assert_eq!(reply.header("content-type"), Some("application/grpc-web-text"));
    assert_eq!(decoded(&reply.body), expected);

    let asked = upstream.asked();
    let types = ["application/grpc+proto", "application/grpc"];
    for (asked, content_type) in asked.iter().zip(types) {
        assert_eq!(asked.body, message(b"which"));
        assert_eq!(asked.headers["content-type"], content_type);
        assert_eq!(asked.headers["te"], "trailers");
        assert!(!asked.headers.contains_key("x-grpc-web"));
        assert!(asked.headers.contains_key("grpc-timeout"));
    }
    assert_eq!((asked.len(), &line(&gateway, 1)["grpc_status"]), (2, &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_over_http2_too() {
    let (_upstream, gateway) = before(steps(), KEYS);
    let mut client = GrpcClient::connect(gateway.public).await;
    let web = [("content-type", "application/grpc-web")];
    let ended = client.call("/shop.Products/Get", &web, message(b"which")).await;
    assert!(ended.trailers.is_empty());
    assert_eq!(ended.body, [&message(b"one")[..], &message(b"one"), END].concat());
}

#[test]
fn bounds_and_refusals_are_told_in_its_words() {
    let (upstream, gateway) = before(steps(), KEYS);
    for (content_type, body, status) in [
        ("application/grpc-web", message_of(1025), "8"),
        ("application/grpc-web-text", BASE64_STANDARD.encode(message_of(1025)).into(), "8"),
        ("application/grpc-web-text", Bytes::from_static(b"%%%%"), "3"),
        ("application/grpc-web-text", Bytes::from_static(b"AAAAAA"), "3"),
    ] {
        let reply = post(&gateway, content_type, body);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("grpc-status"), Some(status), "{content_type}");
        assert_eq!(reply.header("content-type"), Some(content_type));
    }
    assert!(upstream.asked().iter().all(|asked| asked.body.len() < 1025));
}

#[test]
fn an_answer_of_http_becomes_a_status_of_it() {
    let only = Step::Only(503, &[("content-type", "text/html")]);
    let (_upstream, gateway) = before(vec![Step::Read, only], KEYS);
    let reply = post(&gateway, "application/grpc-web", message(b"which"));
    assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("14")));
    assert_eq!(reply.header("content-type"), Some("application/grpc-web"));
}

/// A server may speak it itself.
#[test]
fn without_the_key_it_passes_as_it_comes() {
    let (upstream, gateway) = before(vec![Step::Read, GRPC, OK], "grpc = {}");
    let reply = post(&gateway, "application/grpc-web", message(b"which"));
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(upstream.asked()[0].headers["content-type"], "application/grpc-web");
}
