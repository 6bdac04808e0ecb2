//! What follows an attempt, and whose an answer is.

mod hedges;
mod repeats;

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

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
use crate::upstream::outgoing::{Sender, TimeLimit};

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
        let class = |report, next| Class { report, next };
        assert_eq!(classify(&end, true), class(Report::Nothing, Next::Repeat));
        assert_eq!(classify(&end, false), class(Report::Silent, Next::Done));
    }
}

/// Servers that are asked in turn, the first one first, up to so many times for one request.
fn endpoints(servers: &[SocketAddr], attempts: u32) -> Endpoints {
    let retry = format!("retry = {{ attempts = {attempts}, backoff = \"1ms\" }}");
    let retry = if attempts > 1 { &*retry } else { "" };
    chosen_by("round-robin", servers, retry)
}

fn chosen_by(balance: &str, servers: &[SocketAddr], more: &str) -> Endpoints {
    let urls: Vec<String> = servers.iter().map(|server| format!("\"http://{server}\"")).collect();
    of(&format!("servers = [{}]\nbalance = \"{balance}\"\n{more}", urls.join(", ")))
}

fn of(settings: &str) -> Endpoints {
    let text = format!("[upstreams.a]\n{settings}\n");
    let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
    assert_eq!(loaded.source.render(&loaded.problems), "0 problems in t.toml\n", "{text}");
    Endpoints::new("a", &loaded.config.upstreams["a"], None)
}

fn sender() -> Sender {
    Sender::new(ClientAddr::new("192.0.2.1".parse().unwrap()), Trace::begin())
}

/// One that gives its request up after this time.
fn sender_within(time: Duration) -> Sender {
    let deadline = Some(TimeLimit::until(tokio::time::Instant::now() + time, time));
    Sender { deadline, ..sender() }
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
    get_by(endpoints, None).await
}

async fn get_by(
    endpoints: &Endpoints,
    key: Option<u64>,
) -> Result<Response<Box<Download>>, Failure> {
    get_as(endpoints, &Sender { key, ..sender() }).await
}

async fn get_as(
    endpoints: &Endpoints,
    sender: &Sender,
) -> Result<Response<Box<Download>>, Failure> {
    get_with(endpoints, sender, Capacity::new(9, 0).try_take(sender.client).unwrap()).await
}

async fn get_with(
    endpoints: &Endpoints,
    sender: &Sender,
    permit: Permit,
) -> Result<Response<Box<Download>>, Failure> {
    let head = || Request::get("/").header("Host", "a").body(()).unwrap();
    let nobody = None::<fn(StatusCode, &HeaderMap)>;
    let mut outgoing = Outgoing::new(sender, head, Upload::none(), nobody);
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

#[tokio::test]
async fn a_repeat_goes_to_the_next_server_for_the_same_key() {
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(server("503 Service Unavailable").await);
    }
    let (addresses, counts): (Vec<_>, Vec<_>) = servers.into_iter().unzip();
    let endpoints = chosen_by("hash:path", &addresses, "retry = { backoff = \"1ms\" }");
    for key in (0..8).map(Some) {
        let home = endpoints.first(key).unwrap().at;
        let next = endpoints.next(&[home], key).unwrap().at;
        counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        assert_eq!(get_by(&endpoints, key).await.unwrap().status(), 503);
        let asked = |at: usize| counts[at].load(Ordering::Relaxed);
        let expected = |at: usize| usize::from(at == home || at == next);
        assert_eq!([0, 1, 2, 3].map(asked), [0, 1, 2, 3].map(expected), "{key:?}");
    }
}

/// Of which twenty answers came at once, so that a second server is asked after 5 ms.
fn hedging_at_once(endpoints: &Endpoints) {
    let retry = endpoints.retry().unwrap();
    (0..20).for_each(|_| retry.percentile().unwrap().note(Duration::ZERO));
    retry.tick();
}

#[tokio::test]
async fn a_server_that_has_lost_a_race_took_as_long_as_the_race() {
    // Connections to it stand, and nobody reads from them.
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (quick, asked) = server("200 OK").await;
    let servers = [hangs.local_addr().unwrap(), quick];
    let endpoints = chosen_by("ewma", &servers, "retry = {}\nhedge = \"p50\"");
    hedging_at_once(&endpoints);
    let [hangs, quick] = endpoints.all() else { panic!("two servers") };
    // So that it is the first one that is asked.
    hangs.latency().observe(Duration::from_micros(100), false);
    quick.latency().observe(Duration::from_secs(9), false);
    assert_eq!(get(&endpoints).await.unwrap().status(), 200);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(endpoints.retry().unwrap().hedges(), Some([0, 1]));
    assert!(hangs.latency().estimate().unwrap() > 0.004);
}

#[tokio::test]
async fn a_slow_server_is_no_reason_to_ask_a_backup() {
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (backup, asked) = server("200 OK").await;
    let endpoints = of(&format!(
        "servers = [\"http://{}\", {{ url = \"http://{backup}\", backup = true }}]\n\
         response_timeout = \"100ms\"\nretry = {{}}\nhedge = \"p50\"",
        hangs.local_addr().unwrap()
    ));
    hedging_at_once(&endpoints);
    assert!(matches!(get(&endpoints).await, Err(Failure::Timeout)));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

/// A server, and how many milliseconds it is said to take.
fn timed() -> (Endpoints, impl Fn(&Endpoints) -> f64) {
    let endpoints = of("servers = [\"http://a\"]\nbalance = \"ewma\"");
    (endpoints, |endpoints| (endpoints.all()[0].latency().estimate().unwrap() * 1_000.0).round())
}

#[tokio::test(start_paused = true)]
async fn what_a_repeat_waits_is_not_a_servers_time() {
    let (endpoints, took_ms) = timed();
    let mut visit = endpoints.enter(Choice::again(0), &sender()).unwrap();
    tokio::time::advance(Duration::from_millis(20)).await;
    visit.is_over();
    tokio::time::advance(Duration::from_millis(500)).await;
    drop(visit);
    assert!((19.0..=20.0).contains(&took_ms(&endpoints)), "{}", took_ms(&endpoints));
}

#[tokio::test(start_paused = true)]
async fn a_call_for_which_its_client_has_left_no_time_is_no_failure() {
    for (is_clients_time, expected) in [(true, 20.0), (false, 40.0)] {
        let (endpoints, took_ms) = timed();
        endpoints.all()[0].latency().observe(Duration::from_millis(20), false);
        let sender = Sender { is_clients_time, ..sender() };
        let mut visit = endpoints.enter(Choice::again(0), &sender).unwrap();
        let mut fields = HeaderMap::new();
        fields.insert("grpc-status", "4".parse().unwrap());
        visit.answered(StatusCode::OK, &fields, None);
        assert!((took_ms(&endpoints) - expected).abs() < 0.5, "{is_clients_time}");
    }
}
