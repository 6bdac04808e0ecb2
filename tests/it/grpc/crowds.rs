//! Many calls at once, and calls of very many small messages.

use bytes::Bytes;

use crate::grpc::{before_with, start};
use crate::support::grpc_upstream::{GRPC, GrpcClient, OK, Step, message};
use crate::support::{Act, Http2Upstream, eventually};

/// KurrentDB#5682: the call beyond the server's limit of streams waits for ever.
#[tokio::test(flavor = "multi_thread")]
async fn more_calls_both_ways_than_one_connection_takes() {
    const CLIENTS: usize = 5;
    const CALLS: usize = 50;
    let steps = vec![GRPC, Step::Data(message(b"hello")), Step::Read, OK];
    let (upstream, gateway) = before_with(steps, "grpc = {}", "client_share = \"100%\"");
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(GrpcClient::connect(gateway.public).await);
    }
    let mut calls = Vec::new();
    for client in &mut clients {
        for _ in 0..CALLS {
            calls.push(client.begin("/shop.Chat/Talk", &[]));
        }
    }
    let mut open = Vec::new();
    for call in calls {
        let (upload, mut answer) = call.head().await;
        assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), message(b"hello"));
        open.push((upload, answer));
    }
    assert_eq!(upstream.open(), CLIENTS * CALLS);
    assert!(upstream.connections() >= CLIENTS * CALLS / 100);
    for (mut upload, mut answer) in open {
        upload.send_data(message(b"goodbye"), true).unwrap();
        assert_eq!(answer.body_mut().trailers().await.unwrap().unwrap()["grpc-status"], "0");
    }
}

/// h2#939: small DATA frames that nobody reads yet are taken for an attack, and end the connection
/// with all that is on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_no_small_messages_ends_nobodys_call() {
    const MESSAGES: usize = 100_000;
    const RUNNING: usize = 50;
    let small = message(b"0");
    let every = Step::Data(small.clone());
    let upstream = Http2Upstream::new(move |head| {
        let is_many = head.uri().path().starts_with("/many.");
        let count = if is_many { MESSAGES } else { 1 };
        let read = if is_many { vec![] } else { vec![Step::Read] };
        Act::Play([vec![GRPC], vec![every.clone(); count], read, vec![OK]].concat())
    });
    // The server has one thread, which is busy with all those messages.
    let gateway = start(&upstream, "grpc = {}", "connect_timeout = \"10s\"");
    let mut client = GrpcClient::connect(gateway.public).await;
    let (_upload, mut stalled) = client.begin("/many.Feed/Read", &[]).head().await;
    assert_eq!(stalled.body_mut().data().await.unwrap().unwrap(), small);

    // What the client does not read comes no further than the gateway.
    let mut others = GrpcClient::connect(gateway.public).await;
    for _ in 0..RUNNING {
        let ended = others.call("/shop.Chat/Talk", &[], message(b"x")).await;
        assert_eq!((ended.field("grpc-status"), &ended.body), ("0", &small), "{ended:?}");
    }
    eventually("it is the last one", || upstream.open() == 1);
    let mut bytes = small.len();
    while let Some(data) = stalled.body_mut().data().await {
        let data: Bytes = data.unwrap();
        bytes += data.len();
        stalled.body_mut().flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(bytes, MESSAGES * small.len());
    assert_eq!(stalled.body_mut().trailers().await.unwrap().unwrap()["grpc-status"], "0");
}
