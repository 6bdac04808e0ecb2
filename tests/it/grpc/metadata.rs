//! What passes with a status.

use crate::grpc::before;
use crate::support::grpc_upstream::{GRPC, GrpcClient, Step, message};

#[tokio::test(flavor = "multi_thread")]
async fn trailing_metadata_passes() {
    let trailers = Step::Trailers(&[
        ("grpc-status", "5"),
        ("grpc-message", "no such%20thing"),
        ("grpc-status-details-bin", "CAUSB25vIQ=="),
        ("x-cost", "7"),
        ("trace-bin", "AAEC"),
        ("trace-bin", "AwQF"),
        ("set-cookie", "a=b"),
        ("content-length", "5"),
    ]);
    let (_upstream, gateway) =
        before(vec![Step::Read, GRPC, Step::Data(message(b"one")), trailers], "");
    let mut client = GrpcClient::connect(gateway.public).await;
    let ended = client.call("/shop.Products/Get", &[], message(b"which")).await;
    assert_eq!(ended.body, message(b"one"));
    let passed: Vec<_> = ended
        .trailers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    let expected = [
        ("grpc-status", "5"),
        ("grpc-message", "no such%20thing"),
        ("grpc-status-details-bin", "CAUSB25vIQ=="),
        ("x-cost", "7"),
        ("trace-bin", "AAEC"),
        ("trace-bin", "AwQF"),
    ];
    assert_eq!(passed, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_refusals_are_percent_encoded() {
    let (_upstream, gateway) = before(vec![], "");
    let mut client = GrpcClient::connect(gateway.public).await;
    let refused = client.call("/shop%2FProducts/Get", &[], message(b"which")).await;
    assert_eq!(refused.field("grpc-status"), "3");
    assert!(refused.field("grpc-message").contains("%252F"), "{refused:?}");
}
