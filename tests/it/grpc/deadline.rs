//! How long calls may take.

use h2::Reason;
use serde_json::Value;

use crate::grpc::{before, before_with, line};
use crate::support::eventually;
use crate::support::grpc_upstream::{GRPC, GrpcClient, OK, Step, message};

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_told_what_is_left() {
    let (upstream, gateway) = before(vec![Step::Read, GRPC, OK], "grpc = { deadline = \"60s\" }");
    let mut client = GrpcClient::connect(gateway.public).await;
    for (clients, most) in [
        (&[("grpc-timeout", "50S")][..], 50_000),
        (&[("grpc-timeout", "2M")], 60_000),
        (&[("grpc-timeout", "soon")], 60_000),
        (&[], 60_000),
    ] {
        let ended = client.call("/shop.Products/Get", clients, message(b"x")).await;
        assert_eq!(ended.field("grpc-status"), "0");
        let asked = upstream.asked().pop().unwrap();
        let told = asked.headers["grpc-timeout"].to_str().unwrap();
        let told: u32 = told.strip_suffix('m').unwrap().parse().unwrap();
        // Something of it is over, and a test never takes as long as the rest.
        assert!(told < most && told > most - 20_000, "{clients:?}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_without_bounds_adds_none() {
    let (upstream, gateway) = before(vec![Step::Read, GRPC, OK], "grpc = { deadline = \"0s\" }");
    let mut client = GrpcClient::connect(gateway.public).await;
    for timeout in [&[("grpc-timeout", "soon")][..], &[]] {
        client.call("/shop.Products/Get", timeout, message(b"x")).await;
        assert!(!upstream.asked().pop().unwrap().headers.contains_key("grpc-timeout"));
    }
}

/// No other clock of the upstream counts: the line says which one has ended the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_call_before_and_after_its_head() {
    let more = "response_timeout = \"1ms\"\nread_timeout = \"1ms\"";
    let keys = "grpc = { deadline = \"1s\" }";
    let late = [vec![Step::Rest], vec![GRPC, Step::Data(message(b"one")), Step::Rest]];
    for (at, steps) in late.into_iter().enumerate() {
        let (upstream, gateway) = before_with(steps, keys, more);
        let mut client = GrpcClient::connect(gateway.public).await;
        for (number, (timeout, bound)) in [
            (&[][..], Value::from("routes.all.grpc.deadline")),
            (&[("grpc-timeout", "900m")], Value::Null),
        ]
        .into_iter()
        .enumerate()
        {
            let ended = client.call("/shop.Products/Get", timeout, message(b"x")).await;
            assert_eq!(ended.field("grpc-status"), "4", "{ended:?}");
            assert_eq!(ended.trailers.is_empty(), at == 0, "{ended:?}");
            let line = line(&gateway, number);
            assert_eq!(line["reason"], "deadline_exceeded", "{line}");
            assert_eq!((&line["bound"], &line["grpc_status"]), (&bound, &4.into()), "{line}");
        }
        eventually("they are cancelled", || upstream.resets() == [Reason::CANCEL; 2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_which_nothing_moves_ends() {
    let idle = [
        (vec![Step::Rest], "upstream_timeout"),
        (vec![GRPC, Step::Data(message(b"one")), Step::Rest], "upstream_stalled"),
    ];
    for (steps, reason) in idle {
        let keys = "grpc = { deadline = \"0s\", idle_timeout = \"1s\" }";
        let (upstream, gateway) = before(steps, keys);
        let mut client = GrpcClient::connect(gateway.public).await;
        let ended = client.call("/shop.Products/Get", &[], message(b"x")).await;
        assert_eq!(ended.field("grpc-status"), "4", "{ended:?}");
        let line = line(&gateway, 0);
        assert_eq!(
            (&line["reason"], &line["bound"]),
            (&reason.into(), &"routes.all.grpc.idle_timeout".into())
        );
        eventually("it is cancelled", || upstream.resets() == [Reason::CANCEL]);
    }
}
