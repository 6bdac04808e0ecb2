//! The health checking service of gRPC.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use bytes::Bytes;

use super::start;
use crate::support::grpc_upstream::{GrpcClient, message};
use crate::support::{PATIENCE, eventually_within};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
/// Requests for a service.
const WHOLE: &[u8] = b"";
const SHOP: &[u8] = b"\x0a\x04shop";

/// A `HealthCheckResponse` with this status.
fn status(serving: u8) -> Bytes {
    message(&[0x08, serving])
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_on_the_admin_listener_alone() {
    let (_upstream, gateway) = start("[admin]\ntoken = \"operator-0123456789\"\n");
    let mut client = GrpcClient::connect(gateway.admin).await;
    let serving = client.call(CHECK, &[], message(WHOLE)).await;
    assert_eq!((serving.field("grpc-status"), &serving.body), ("0", &status(1)));
    for (path, request, refused) in [
        (CHECK, message(SHOP), "5"),
        (CHECK, message(&[b"\x0a\x82\x01", &[b'a'; 130][..]].concat()), "5"),
        (CHECK, message(b"\x0a\x09shop"), "3"),
        (CHECK, Bytes::from(vec![0; 2000]), "3"),
        ("/grpc.health.v1.Health/List", message(WHOLE), "12"),
        ("/v1/status", message(WHOLE), "12"),
    ] {
        let ended = client.call(path, &[], request).await;
        assert_eq!((ended.field("grpc-status"), ended.body.len()), (refused, 0), "{path}");
    }
    let mut client = GrpcClient::connect(gateway.public).await;
    assert_eq!(client.call(CHECK, &[], message(WHOLE)).await.field("grpc-status"), "12");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_told_of_changes() {
    let (_upstream, gateway) = start("[server]\ndrain_delay = \"1m\"\n");
    let mut client = GrpcClient::connect(gateway.admin).await;
    let mut watch = async |service| {
        let mut call = client.begin(WATCH, &[]);
        call.upload.send_data(message(service), true).unwrap();
        call.head().await.1
    };
    let (mut whole, mut unknown) = (watch(WHOLE).await, watch(SHOP).await);
    assert_eq!(unknown.body_mut().data().await.unwrap().unwrap(), status(3));
    assert_eq!(whole.body_mut().data().await.unwrap().unwrap(), status(1));
    gateway.signal("TERM");
    assert_eq!(whole.body_mut().data().await.unwrap().unwrap(), status(2));
    let checked = client.call(CHECK, &[], message(WHOLE)).await;
    assert_eq!((checked.field("grpc-status"), &checked.body), ("0", &status(2)));
}

/// They fill their connections with answers, and read none.
#[test]
fn who_reads_nothing_does_not_keep_health_checks_out() {
    let (_upstream, gateway) = start("");
    let mut stuck: Vec<(TcpStream, usize)> = (0..64)
        .map(|_| {
            let stream = TcpStream::connect(gateway.admin).expect("the admin listener");
            stream.set_nonblocking(true).expect("a socket");
            (stream, 0)
        })
        .collect();
    let asks = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let is_alive = || {
        let asked = TcpStream::connect(gateway.admin).and_then(|mut stream| {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.read(&mut [0; 64])
        });
        asked.is_ok_and(|bytes| bytes > 0)
    };
    eventually_within(PATIENCE, "all places are taken", || !is_alive());
    eventually_within(4 * PATIENCE, "somebody gets a place again", || {
        for (stream, sent) in &mut stuck {
            let rest = asks.as_bytes().iter().skip(*sent % asks.len()).copied();
            *sent += stream.write(&rest.collect::<Vec<u8>>()).unwrap_or(0);
        }
        is_alive()
    });
}
