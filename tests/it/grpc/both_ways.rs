//! Both directions are open at once.

use bytes::Bytes;
use h2::Reason;

use crate::grpc::before;
use crate::support::eventually;
use crate::support::grpc_upstream::{GRPC, GrpcClient, OK, Step, message};

/// A server may have said all that it has to say before its client has.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_first_is_not_told_of_an_error() {
    let steps = vec![GRPC, Step::Data(message(b"enough")), OK, Step::Rest];
    for keys in ["grpc = {}", ""] {
        let (upstream, gateway) = before(steps.clone(), keys);
        let mut client = GrpcClient::connect(gateway.public).await;
        let mut call = client.begin("/shop.Products/Put", &[]);
        call.upload.send_data(message(b"one of many"), false).unwrap();
        let ended = call.end().await.unwrap();
        assert_eq!((ended.field("grpc-status"), &ended.body), ("0", &message(b"enough")));
        eventually("the rest is not wanted", || upstream.resets() == [Reason::NO_ERROR]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_answers_before_its_client_speaks() {
    let steps = vec![GRPC, Step::Data(message(b"hello")), Step::Read, OK];
    let (upstream, gateway) = before(steps, "grpc = {}");
    let mut client = GrpcClient::connect(gateway.public).await;
    let (mut upload, mut answer) = client.begin("/shop.Chat/Talk", &[]).head().await;
    assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), message(b"hello"));
    upload.send_data(message(b"goodbye"), false).unwrap();
    upload.send_data(Bytes::new(), true).unwrap();
    let trailers = answer.body_mut().trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(upstream.asked()[0].body, message(b"goodbye"));
}

/// Cancelling a call cancels it upstream.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_cancels_is_heard_upstream() {
    let (upstream, gateway) =
        before(vec![GRPC, Step::Data(message(b"one")), Step::Rest], "grpc = {}");
    let mut client = GrpcClient::connect(gateway.public).await;
    let (mut upload, answer) = client.begin("/shop.Chat/Talk", &[]).head().await;
    upload.send_reset(Reason::CANCEL);
    drop(answer);
    eventually("it is cancelled", || upstream.resets() == [Reason::CANCEL]);
}
