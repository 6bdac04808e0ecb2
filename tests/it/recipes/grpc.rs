//! docs/recipes/grpc.md: calls with a name, a bound and a status.

use serde_json::json;

use crate::recipes::{configuration, issuer, token};
use crate::support::grpc_upstream::{GRPC, GrpcClient, OK, Step, message};
use crate::support::{Act, Gateway, Http2Upstream, Signer};

#[tokio::test(flavor = "multi_thread")]
async fn calls_have_a_name_a_bound_and_a_status() {
    let (key, steps) = (Signer::new("a"), vec![Step::Read, GRPC, Step::Data(message(b"tea")), OK]);
    let service = Http2Upstream::new(move |_| Act::Play(steps.clone()));
    let issuer = issuer(&key);
    let own = [
        ("https://login.shop.example", &*issuer.origin()),
        ("http://127.0.0.1:50051", &service.url()),
        ("20/1s", "3/1h"),
    ];
    let gateway = Gateway::start(&configuration("grpc.md", &own));
    let mut client = GrpcClient::connect(gateway.public).await;
    let nobody = client.call("/shop.Products/Get", &[], message(b"1")).await;
    assert_eq!((nobody.field("grpc-status"), service.asked().len()), ("16", 0));

    let bearer = format!("Bearer {}", token(&key, &issuer.origin(), "shop", "42", json!({})));
    let fields = [("authorization", &*bearer)];
    let called = client.call("/shop.Products/Get", &fields, message(b"1")).await;
    assert_eq!((called.field("grpc-status"), &called.body), ("0", &message(b"tea")));
    let asked = service.asked();
    assert_eq!(asked[0].headers["x-user-id"], "42");
    assert!(asked[0].headers.contains_key("grpc-timeout"), "the service knows its deadline");

    let large = client.call("/shop.Products/Get", &fields, message(&vec![7; (1 << 20) + 1])).await;
    assert_eq!(large.field("grpc-status"), "8", "{large:?}");
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let unknown = client.call(reflection, &fields, message(b"1")).await;
    assert_eq!(unknown.field("grpc-status"), "12");

    // Two are charged already, the one that was too large among them.
    let third = client.call("/shop.Products/Get", &fields, message(b"1")).await;
    assert_eq!(third.field("grpc-status"), "0");
    let refused = client.call("/shop.Products/Get", &fields, message(b"1")).await;
    assert_eq!(refused.field("grpc-status"), "8");
    assert!(refused.field("grpc-retry-pushback-ms").parse::<u64>().is_ok(), "{refused:?}");
}
