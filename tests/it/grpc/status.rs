//! Every call ends with a status.

use std::io::Write as _;
use std::net::Shutdown;

use bytes::Bytes;
use h2::Reason;

use crate::grpc::{before, in_front_of, line};
use crate::support::grpc_upstream::{GRPC, GrpcClient, OK, Step, message};
use crate::support::{Act, Gateway, Http2Upstream, Upstream};

const HTML: &[(&str, &str)] = &[("content-type", "text/html"), ("content-length", "3")];

#[tokio::test(flavor = "multi_thread")]
async fn what_http_says_becomes_a_status() {
    let upstream = Http2Upstream::new(|head| {
        let status = head.uri().path().trim_start_matches('/').parse().unwrap();
        let body = Step::Data(Bytes::from_static(b"no!"));
        Act::Play(vec![Step::Read, Step::Head(status, HTML), body, Step::End])
    });
    let gateway = in_front_of(&upstream, "grpc = {}");
    let mut client = GrpcClient::connect(gateway.public).await;
    let mapped = [
        (200, 2),
        (401, 16),
        (403, 7),
        (404, 12),
        (429, 14),
        (500, 2),
        (502, 14),
        (503, 14),
        (504, 14),
    ];
    for (number, (http, expected)) in mapped.into_iter().enumerate() {
        let ended = client.call(&format!("/{http}"), &[], message(b"x")).await;
        assert_eq!((ended.head.status().as_u16(), ended.body.len()), (200, 0), "{http}");
        assert_eq!(ended.head.headers()["content-type"], "application/grpc");
        assert!(!ended.head.headers().contains_key("content-length"));
        assert_eq!(ended.field("grpc-status"), expected.to_string(), "{http}");
        assert!(ended.field("grpc-message").contains(&http.to_string()), "{ended:?}");
        assert_eq!(line(&gateway, number)["grpc_status"], expected);
    }
    // Where the route does not speak of gRPC, answers pass as they come.
    let plain = in_front_of(&upstream, "");
    let mut client = GrpcClient::connect(plain.public).await;
    let ended = client.call("/403", &[], message(b"x")).await;
    assert_eq!((ended.head.status().as_u16(), &ended.body[..]), (403, &b"no!"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_status_gets_one() {
    let one = || Step::Data(message(b"one"));
    let ends = [
        (vec![Step::Read, GRPC, one(), Step::End], None),
        (vec![Step::Read, GRPC, one(), Step::Trailers(&[("x-cost", "7")])], Some("7")),
    ];
    for (steps, cost) in ends {
        let (_upstream, gateway) = before(steps, "grpc = {}");
        let mut client = GrpcClient::connect(gateway.public).await;
        let ended = client.call("/shop.Products/Get", &[], message(b"x")).await;
        assert_eq!((ended.field("grpc-status"), &ended.body), ("2", &message(b"one")));
        let passed = ended.trailers.get("x-cost").map(|it| it.to_str().unwrap());
        assert_eq!(passed, cost);
        assert_eq!(line(&gateway, 0)["grpc_status"], 2);
    }
}

/// A connection that ends in the middle; a reset says more.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_gets_one() {
    let upstream = Upstream::with(|_, connection| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n\
                     transfer-encoding: chunked\r\n\r\n8\r\n";
        let _ = connection.write_all(&[&head[..], &message(b"one"), b"\r\n"].concat());
        let _ = connection.shutdown(Shutdown::Both);
    });
    let gateway = Gateway::start(&format!(
        "{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\ngrpc = {{}}\n",
        upstream.table("shop")
    ));
    let mut client = GrpcClient::connect(gateway.public).await;
    let ended = client.call("/shop.Products/Get", &[], message(b"x")).await;
    assert_eq!((&ended.body, ended.trailers.is_empty()), (&message(b"one"), false));
    assert_eq!(ended.field("grpc-status"), "2");
    let line = line(&gateway, 0);
    assert_eq!((&line["reason"], &line["grpc_status"]), (&"upstream_cut_off".into(), &2.into()));
}

/// PROTOCOL-HTTP2.md of the gRPC project has the table.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_the_upstream_becomes_a_status() {
    let one = || Step::Data(message(b"one"));
    let upstream = Http2Upstream::new(move |head| {
        let (way, code) = head.uri().path().trim_start_matches('/').split_once('/').unwrap();
        let reset = Step::Reset(Reason::from(code.parse::<u32>().unwrap()));
        Act::Play(match way {
            "amid" => vec![GRPC, one(), Step::Read, reset],
            _ => vec![Step::Read, reset],
        })
    });
    let gateway = in_front_of(&upstream, "grpc = {}");
    let mut client = GrpcClient::connect(gateway.public).await;
    for (number, (reason, expected)) in [
        (Reason::NO_ERROR, 13),
        (Reason::PROTOCOL_ERROR, 13),
        (Reason::INTERNAL_ERROR, 13),
        (Reason::FLOW_CONTROL_ERROR, 13),
        (Reason::REFUSED_STREAM, 14),
        (Reason::CANCEL, 1),
        (Reason::ENHANCE_YOUR_CALM, 8),
        (Reason::INADEQUATE_SECURITY, 7),
    ]
    .into_iter()
    .enumerate()
    {
        let code = u32::from(reason);
        let ended = client.call(&format!("/first/{code}"), &[], message(b"x")).await;
        assert_eq!(ended.field("grpc-status"), expected.to_string(), "{reason}: {ended:?}");
        assert_eq!(line(&gateway, 2 * number)["grpc_status"], expected);

        let (mut upload, mut answer) = client.begin(&format!("/amid/{code}"), &[]).head().await;
        assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), message(b"one"));
        upload.send_data(Bytes::new(), true).unwrap();
        let trailers = answer.body_mut().trailers().await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], expected.to_string(), "{reason}");
        assert_eq!(line(&gateway, 2 * number + 1)["reason"], "upstream_cut_off");
    }
}

/// A6 of the gRPC project: clients that make calls again wait so long.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_says_when_a_call_may_be_made_again() {
    let keys = "limits = [\"calls\"]\n[limits.calls]\nkey = [\"address\"]\nallow = [\"1/1h\"]";
    let (upstream, gateway) = before(vec![Step::Read, GRPC, OK], keys);
    let mut client = GrpcClient::connect(gateway.public).await;
    assert_eq!(client.call("/a.B/C", &[], message(b"x")).await.field("grpc-status"), "0");
    let refused = client.call("/a.B/C", &[], message(b"x")).await;
    assert_eq!(refused.field("grpc-status"), "8", "{refused:?}");
    let pushback: u64 = refused.field("grpc-retry-pushback-ms").parse().unwrap();
    let after: u64 = refused.field("retry-after").parse().unwrap();
    assert!(pushback > 0 && pushback.div_ceil(1000) == after, "{refused:?}");
    assert_eq!(upstream.begun(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_of_the_upstream_pass_and_are_logged() {
    let only = Step::Only(
        200,
        &[("content-type", "application/grpc"), ("grpc-status", "7"), ("x-cost", "1")],
    );
    for keys in ["grpc = {}", ""] {
        let (_upstream, gateway) = before(vec![Step::Read, only.clone()], keys);
        let mut client = GrpcClient::connect(gateway.public).await;
        let ended = client.call("/shop.Products/Get", &[], message(b"x")).await;
        assert!(ended.trailers.is_empty(), "{ended:?}");
        assert_eq!((ended.field("grpc-status"), ended.field("x-cost")), ("7", "1"));
        assert_eq!(line(&gateway, 0)["grpc_status"], 7);

        let (_upstream, gateway) = before(vec![Step::Read, GRPC, OK], keys);
        let mut client = GrpcClient::connect(gateway.public).await;
        client.call("/shop.Products/Get", &[], message(b"x")).await;
        let line = line(&gateway, 0);
        assert_eq!((&line["grpc_status"], line.get("reason")), (&0.into(), None));
    }
}
