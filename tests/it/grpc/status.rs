//! Every call ends with a status.

use bytes::Bytes;
use h2::Reason;

use crate::grpc::{before, in_front_of, line};
use crate::support::grpc_upstream::{GRPC, GrpcClient, OK, Step, message};
use crate::support::{Act, Http2Upstream};

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

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_gets_one() {
    let one = Step::Data(message(b"one"));
    let steps = vec![GRPC, one, Step::Read, Step::Reset(Reason::INTERNAL_ERROR)];
    let (_upstream, gateway) = before(steps, "grpc = {}");
    let mut client = GrpcClient::connect(gateway.public).await;
    let (mut upload, mut answer) = client.begin("/shop.Products/Get", &[]).head().await;
    assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), message(b"one"));
    upload.send_data(Bytes::new(), true).unwrap();
    let trailers = answer.body_mut().trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "2");
    let line = line(&gateway, 0);
    assert_eq!((&line["reason"], &line["grpc_status"]), (&"upstream_cut_off".into(), &2.into()));
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
