//! How long messages may be.

use bytes::Bytes;
use h2::Reason;

use crate::grpc::{before, line, message_of};
use crate::support::eventually;
use crate::support::grpc_upstream::{GRPC, GrpcClient, OK, Step, message};

const KEYS: &str = "grpc = { message_bytes = \"1KiB\" }\n[server.limits]\nbody_bytes = \"2KiB\"";
const BOUND: &str = "routes.all.grpc.message_bytes";

fn stream(messages: usize) -> Bytes {
    Bytes::from(message_of(1024).repeat(messages))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_is_bounded_and_not_all_together() {
    let (upstream, gateway) = before(vec![Step::Read, GRPC, Step::Data(stream(50)), OK], KEYS);
    let mut client = GrpcClient::connect(gateway.public).await;
    let ended = client.call("/shop.Products/Get", &[], stream(50)).await;
    assert_eq!((ended.field("grpc-status"), &ended.body), ("0", &stream(50)));
    assert_eq!(upstream.asked()[0].body, stream(50));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_long_does_not_pass() {
    let (upstream, gateway) = before(vec![Step::Read, Step::Rest], KEYS);
    let mut client = GrpcClient::connect(gateway.public).await;
    let refused = client.call("/shop.Products/Get", &[], message_of(1025)).await;
    assert_eq!(refused.field("grpc-status"), "8", "{refused:?}");
    let line = line(&gateway, 0);
    assert_eq!((&line["reason"], &line["bound"]), (&"message_too_large".into(), &BOUND.into()));
    assert_eq!((&line["status"], &line["grpc_status"]), (&200.into(), &8.into()));
    eventually("it is cancelled", || upstream.open() == 0);
    assert!(upstream.asked().iter().all(|asked| asked.body.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_one_while_the_answer_is_on_its_way() {
    let (upstream, gateway) = before(vec![GRPC, Step::Data(message(b"one")), Step::Rest], KEYS);
    let mut client = GrpcClient::connect(gateway.public).await;
    let mut call = client.begin("/shop.Products/Get", &[]);
    call.upload.send_data(message_of(1024), false).unwrap();
    let (mut call, mut answer) = call.head().await;
    let data = answer.body_mut().data().await.unwrap().unwrap();
    assert_eq!(data, message(b"one"));
    call.send_data(message_of(1025), false).unwrap();
    let trailers = answer.body_mut().trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "8");
    let line = line(&gateway, 0);
    assert_eq!((&line["reason"], &line["bound"]), (&"message_too_large".into(), &BOUND.into()));
    eventually("it is cancelled", || upstream.resets() == [Reason::CANCEL]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_a_server_s() {
    let long = [message(b"one"), message_of(1025)].concat();
    let steps =
        vec![Step::Read, GRPC, Step::Data(message(b"one")), Step::Data(long.into()), Step::Rest];
    let (upstream, gateway) = before(steps, KEYS);
    let mut client = GrpcClient::connect(gateway.public).await;
    let ended = client.call("/shop.Products/Get", &[], message(b"all")).await;
    assert_eq!(ended.field("grpc-status"), "8");
    assert_eq!(ended.head.status(), 200);
    assert!(ended.body.len() < 1000, "{}", ended.body.len());
    let line = line(&gateway, 0);
    assert_eq!((&line["reason"], &line["bound"]), (&"message_too_large".into(), &BOUND.into()));
    eventually("it is cancelled", || upstream.resets() == [Reason::CANCEL]);
}

/// The content type alone, which any client may write, opens nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_does_not_say_so_has_no_streams() {
    let keys = KEYS.split_once('\n').unwrap().1;
    let (_upstream, gateway) = before(vec![Step::Read, GRPC, OK], keys);
    let mut client = GrpcClient::connect(gateway.public).await;
    let refused = client.call("/shop.Products/Get", &[], stream(3)).await;
    assert_eq!(refused.field("grpc-status"), "8", "{refused:?}");
    assert_eq!(line(&gateway, 0)["reason"], "body_too_large");
}
