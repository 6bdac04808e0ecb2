//! How long calls may take.

use h2::Reason;
use serde_json::Value;

use crate::grpc::{before, before_with, line};
use crate::support::grpc_upstream::{GRPC, GrpcClient, OK, Step, message};
use crate::support::{Act, Gateway, Http2Upstream, eventually, operate};

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

/// Times to wait, each of which is longer than the one before: what must come within one is late
/// where the machine is busy.
const TIMES_MS: [u32; 3] = [500, 4_000, 30_000];

/// No other clock of the upstream counts: the line says which one has ended the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_call_before_and_after_its_head() {
    let late = [vec![Step::Rest], vec![GRPC, Step::Data(message(b"one")), Step::Rest]];
    for (steps, has_head) in late.into_iter().zip([false, true]) {
        for is_clients in [false, true] {
            let mut is_met = false;
            for ms in TIMES_MS {
                if deadline_is_met(steps.clone(), ms, is_clients, has_head).await {
                    is_met = true;
                    break;
                }
            }
            assert!(is_met, "has_head: {has_head}, is_clients: {is_clients}");
        }
    }
}

/// Whether the call was at the upstream, and its head here or not as it should be, when it ended.
async fn deadline_is_met(steps: Vec<Step>, ms: u32, is_clients: bool, has_head: bool) -> bool {
    let more = "response_timeout = \"1ms\"\nread_timeout = \"1ms\"";
    let keys = format!("grpc = {{ deadline = \"{}ms\" }}", if is_clients { 60_000 } else { ms });
    let (upstream, gateway) = before_with(steps, &keys, more);
    let mut client = GrpcClient::connect(gateway.public).await;
    let timeout = format!("{ms}m");
    let timeout = [("grpc-timeout", &*timeout)];
    let timeout = if is_clients { &timeout[..] } else { &[] };
    let ended = client.call("/shop.Products/Get", timeout, message(b"x")).await;
    assert_eq!(ended.field("grpc-status"), "4", "{ended:?}");
    let line = line(&gateway, 0);
    assert_eq!((&line["reason"], &line["grpc_status"]), (&"deadline_exceeded".into(), &4.into()));
    let bound = if is_clients { Value::Null } else { "routes.all.grpc.deadline".into() };
    assert_eq!(line["bound"], bound, "{line}");
    if ended.trailers.is_empty() == has_head || upstream.begun() == 0 {
        return false;
    }
    eventually("it is cancelled", || upstream.resets() == [Reason::CANCEL]);
    true
}

/// It takes streams, and answers none: neither its upstream nor the arm of a route trusts it.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_until_the_deadline_of_its_route_is_held_against_the_upstream() {
    let hangs = Http2Upstream::new(|_| Act::Play(vec![Step::Rest]));
    let breaker = "breaker = { requests = 1, open = \"1h\" }";
    let gateway = Gateway::start(&format!(
        "[upstreams.base]\nservers = [\"{0}\"]\n\
         [upstreams.next]\nservers = [\"{0}\"]\nprotocol = \"h2\"\n{breaker}\n\
         [routes.all]\npath = \"/*\"\ngrpc = {{ deadline = \"1s\" }}\n\
         split = [{{ upstream = \"base\", weight = 0 }}, {{ upstream = \"next\", weight = 1 }}]",
        hangs.url()
    ));
    let judged = || {
        let upstreams = operate(&gateway, "GET", "/v1/upstreams", "").json();
        let canaries = operate(&gateway, "GET", "/v1/canary", "").json();
        let arm = &canaries["routes"]["all"]["arms"][1];
        let breaker = upstreams["upstreams"]["next"]["breaker"].clone();
        (breaker, arm["answers"].as_u64().unwrap(), arm["failures"].as_u64().unwrap())
    };
    let mut client = GrpcClient::connect(gateway.public).await;
    // Its client could send more until then.
    let mut open = client.begin("/shop.Products/Watch", &[]);
    open.upload.send_data(message(b"x"), false).unwrap();
    assert_eq!(open.end().await.unwrap().field("grpc-status"), "4");
    assert_eq!((judged().1, judged().2), (0, 0));
    let mut is_blamed = false;
    // A machine that is busy may take the time before it is asked.
    for _ in 0..5 {
        let ended = client.call("/shop.Products/Get", &[], message(b"x")).await;
        assert_eq!(ended.field("grpc-status"), "4", "{ended:?}");
        if judged().1 > 0 {
            is_blamed = true;
            break;
        }
    }
    assert!(is_blamed, "{:?}", judged());
    assert_eq!((judged().1, judged().2), (1, 1));
    eventually("its breaker opens", || judged().0 == "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_which_nothing_moves_ends() {
    let idle = [
        (vec![Step::Rest], "upstream_timeout"),
        (vec![GRPC, Step::Data(message(b"one")), Step::Rest], "upstream_stalled"),
    ];
    for (steps, reason) in idle {
        let mut seen = Value::Null;
        for ms in TIMES_MS {
            let keys = format!("grpc = {{ deadline = \"0s\", idle_timeout = \"{ms}ms\" }}");
            let (upstream, gateway) = before(steps.clone(), &keys);
            let mut client = GrpcClient::connect(gateway.public).await;
            let ended = client.call("/shop.Products/Get", &[], message(b"x")).await;
            assert_eq!(ended.field("grpc-status"), "4", "{ended:?}");
            let line = line(&gateway, 0);
            assert_eq!(line["bound"], "routes.all.grpc.idle_timeout");
            seen = line["reason"].clone();
            if seen == reason && upstream.begun() > 0 {
                eventually("it is cancelled", || upstream.resets() == [Reason::CANCEL]);
                break;
            }
        }
        assert_eq!(seen, reason);
    }
}

/// A route that says nothing of gRPC has the bounds of all others, and calls hear of them in their
/// own words.
#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_is_a_deadline_on_a_plain_route_too() {
    let (_upstream, gateway) = before_with(vec![Step::Rest], "", "response_timeout = \"1ms\"");
    let mut client = GrpcClient::connect(gateway.public).await;
    let ended = client.call("/shop.Products/Get", &[], message(b"x")).await;
    assert_eq!((ended.head.status().as_u16(), ended.field("grpc-status")), (200, "4"), "{ended:?}");
    assert_eq!(line(&gateway, 0)["reason"], "upstream_timeout");
}
