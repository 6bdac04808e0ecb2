//! What follows an attempt, and whose an answer is.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::*;
use crate::base::body::Upload;
use crate::base::facts::ClientAddr;
use crate::base::trace::Trace;
use crate::config;
use crate::upstream::asking::unconnected;
use crate::upstream::capacity::Capacity;
use crate::upstream::connection_error::ConnectionError;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::outgoing::Sender;

type End = Result<Response<()>, NoAnswer>;

fn no(no_answer: NoAnswer) -> End {
    Err(no_answer)
}

fn on_new(why: Unanswered) -> End {
    no(NoAnswer::Exchanged { reused: false, why })
}

fn on_used(why: Unanswered) -> End {
    no(NoAnswer::Exchanged { reused: true, why })
}

fn refused(kind: ErrorKind) -> End {
    no(NoAnswer::Unconnected(Failure::Connect(Error::from(kind))))
}

fn answer(status: u16) -> End {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(response)
}

#[test]
fn a_server_is_not_to_blame_for_the_time_that_others_took() {
    use NoAnswer::{OutOfTime, Unconnected};
    let ends = [true, false].map(|all| unconnected(Failure::ConnectTimeout, all));
    let [Unconnected(Failure::ConnectTimeout), OutOfTime] = ends else { panic!("{ends:?}") };
    // Who refuses does so in any time.
    let refused = unconnected(Failure::Connect(ErrorKind::ConnectionRefused.into()), false);
    assert!(matches!(refused, Unconnected(Failure::Connect(_))));
}

#[test]
fn what_follows_an_end() {
    use NoAnswer::{OutOfTime, Unconnected};
    use Unanswered::{Lost, Malformed, Reset, Starved, TimedOut, TurnedAway, Unsent, Withdrawn};
    let lost = || ConnectionError::PingLost;
    for (end, next) in [
        (answer(200), Next::Done),
        (answer(503), Next::Done),
        (refused(ErrorKind::ConnectionRefused), Next::OtherServer),
        (refused(ErrorKind::AddrNotAvailable), Next::OtherServer),
        (no(Unconnected(Failure::ConnectTimeout)), Next::OtherServer),
        (no(Unconnected(Failure::Busy)), Next::OtherServer),
        (no(OutOfTime), Next::OtherServer),
        (on_new(Unsent), Next::OtherServer),
        (on_used(Unsent), Next::SameServer),
        (on_new(Lost(None)), Next::Done),
        // A server of HTTP/2 that says GOAWAY before it has read anything.
        (no(Unconnected(Failure::TurnedAway(lost()))), Next::Anywhere),
        // Over HTTP/2: nobody has looked at it, or somebody may have acted.
        (on_new(TurnedAway(lost())), Next::Anywhere),
        (on_used(TurnedAway(lost())), Next::Anywhere),
        (on_new(Reset(lost())), Next::Done),
        (on_used(Reset(lost())), Next::Done),
        (on_new(Withdrawn), Next::Done),
        (on_new(TimedOut), Next::Done),
        (on_new(Starved), Next::Done),
        (on_used(TimedOut), Next::Done),
        (on_new(Malformed("")), Next::Done),
        (on_used(Malformed("")), Next::Done),
    ] {
        for may_repeat in [false, true] {
            assert_eq!(classify(&end, may_repeat).next, next, "{end:?} {may_repeat}");
        }
    }
}

/// It may have been about to be closed; only where that is a request's end, it is a failure.
#[test]
fn what_an_old_connection_loses_says_something_where_it_is_not_repeated() {
    use Unanswered::Lost;
    for error in [None, Some(ConnectionError::PingLost)] {
        let end = on_used(Lost(error));
        let class = |report, next| Class { report, next, is_upstreams: true };
        assert_eq!(classify(&end, true), class(Report::Nothing, Next::Repeat));
        assert_eq!(classify(&end, false), class(Report::Silent, Next::Done));
    }
}

/// Servers that are asked in turn, the first one first, up to so many times for one request.
fn endpoints(servers: &[SocketAddr], attempts: u32) -> Endpoints {
    let urls: Vec<String> = servers.iter().map(|server| format!("\"http://{server}\"")).collect();
    let servers = urls.join(", ");
    let retry = format!("retry = {{ attempts = {attempts}, backoff = \"1ms\" }}");
    let text = format!(
        "[upstreams.a]\nservers = [{servers}]\nbalance = \"round-robin\"\n{}\n",
        if attempts > 1 { &retry } else { "" }
    );
    let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
    Endpoints::new("a", &loaded.config.upstreams["a"], None)
}

/// A server that answers each request on one connection with this status, and counts them.
async fn server(status: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, asked) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while socket.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                if head.ends_with(b"\r\n\r\n") {
                    head.clear();
                    count.fetch_add(1, Ordering::Relaxed);
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                    socket.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        }
    });
    (at, asked)
}

/// What a GET brings.
async fn get(endpoints: &Endpoints) -> Result<Response<Box<Download>>, Failure> {
    let sender = Sender::new(ClientAddr::new("192.0.2.1".parse().unwrap()), Trace::begin());
    let head = || Request::get("/").header("Host", "a").body(()).unwrap();
    let permit = Capacity::new(1, 0).try_take(sender.client).unwrap();
    let nobody = None::<fn(StatusCode, &HeaderMap)>;
    let mut outgoing = Outgoing::new(&sender, head, Upload::none(), nobody);
    send(endpoints, (permit, None), &mut outgoing).await
}

#[tokio::test]
async fn an_answer_that_is_kept_keeps_the_server_that_gave_it() {
    let (busy, asked) = server("503 Service Unavailable").await;
    // Bound and not listening: it refuses, and nobody else gets its port.
    let refuses = TcpSocket::new_v4().unwrap();
    refuses.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoints = endpoints(&[busy, refuses.local_addr().unwrap()], 2);
    let response = get(&endpoints).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let [busy, refuses] = endpoints.all() else { panic!("two servers") };
    let is_avoided = |server: &Endpoint| server.verdict().word().is_avoided();
    assert!(is_avoided(refuses) && !is_avoided(busy));
    // Its body has ended, and its connection is in the pool of its own server.
    assert!(refuses.pool().take_any().is_none(), "a connection of the other server");
    assert!(busy.pool().take_any().is_some());
}

#[tokio::test]
async fn a_request_is_sent_again_as_often_as_the_settings_say() {
    for (attempts, most, least) in [(1, 1, 0), (2, 1, 0), (3, 1, 1)] {
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(server("503 Service Unavailable").await);
        }
        let (addresses, counts): (Vec<_>, Vec<_>) = servers.into_iter().unzip();
        let response = get(&endpoints(&addresses, attempts)).await.unwrap();
        assert_eq!(response.status(), 503);
        let counts: Vec<usize> = counts.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        assert_eq!(counts.iter().sum::<usize>(), attempts as usize, "{counts:?}");
        // Those that were not asked come first.
        let [first, second] = [counts.iter().max(), counts.iter().min()];
        assert!(*first.unwrap() <= most, "{counts:?}");
        assert!(*second.unwrap() >= least, "{counts:?}");
    }
}

#[tokio::test]
async fn no_answer_is_a_reason_where_the_settings_say_nothing() {
    let (busy, asked) = server("503 Service Unavailable").await;
    let (other, unasked) = server("200 OK").await;
    let response = get(&endpoints(&[busy, other], 1)).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!((asked.load(Ordering::Relaxed), unasked.load(Ordering::Relaxed)), (1, 0));
}
