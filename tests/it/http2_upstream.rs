//! HTTP/2 to upstreams: exchanges, how many there are at a time, and how they end.

mod leaving;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::Reason;
use rustls::version::{TLS12, TLS13};

use crate::support::grpc_upstream::Step;
use crate::support::{
    Act, Authority, Client, Folder, Gateway, GoingAway, Http2Upstream, PATIENCE, Session, TlsFront,
    Upstream, eventually, raw, response, status,
};

const ROUTE: &str = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n";

fn config(servers: &[String], more: &str) -> String {
    format!("[upstreams.shop]\nservers = {servers:?}\n{more}\n{ROUTE}")
}

fn before(url: String, more: &str) -> Gateway {
    Gateway::start(&config(&[url], &format!("protocol = \"h2\"\n{more}")))
}

fn fine() -> Act {
    Act::Answer(Bytes::from_static(b"fine"))
}

/// Waits for a refusal with this code, and returns its error as the log has it.
fn error(gateway: &Gateway, code: &str) -> String {
    let mut error = String::new();
    eventually("it is logged", || {
        let lines = gateway.access_lines();
        let line = lines.iter().find(|line| line["reason"] == code);
        line.map(|line| error = line["error"].as_str().unwrap_or_default().to_owned()).is_some()
    });
    error
}

#[test]
fn a_request_is_whole_in_both_directions() {
    let upstream = Http2Upstream::new(|head| match head.uri().path() {
        "/echo" => Act::Echo,
        "/empty" => Act::Answer(Bytes::new()),
        _ => fine(),
    });
    let gateway = before(upstream.url(), "");
    let mut session = Session::open(gateway.public);
    let reply = session.request("PUT", "/a?b=c").header("x-a", "b").body("an order").send();
    assert_eq!((reply.status, reply.text().as_str()), (200, "fine"));
    assert_eq!(reply.header("connection"), None);
    let asked = upstream.asked().remove(0);
    assert_eq!((asked.method.as_str(), asked.uri.as_str()), ("PUT", "http://shop.test/a?b=c"));
    assert_eq!(asked.body, b"an order");
    assert_eq!(asked.headers["x-a"], "b");
    assert_eq!(asked.headers["content-length"], "8");
    for name in ["host", "connection", "transfer-encoding"] {
        assert!(!asked.headers.contains_key(name), "{name}: {:?}", asked.headers);
    }
    assert_eq!(session.get("/empty").send().text(), "");
    assert_eq!(session.request("HEAD", "/empty").send().status, 200);
    // Larger than all windows, both ways at once.
    let body = "0123456789abcdef".repeat(64 << 10);
    let chunked = format!(
        "POST /echo HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        body.len()
    );
    let mut stream = session.stream().try_clone().unwrap();
    let upload = body.clone();
    let writes = std::thread::spawn(move || {
        stream.write_all(chunked.as_bytes()).unwrap();
        stream.write_all(upload.as_bytes()).unwrap();
        stream.write_all(b"\r\n0\r\n\r\n").unwrap();
    });
    let reply = session.read();
    writes.join().unwrap();
    assert_eq!((reply.status, reply.text() == body), (200, true));
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn interim_responses_and_trailers_pass() {
    let upstream = Http2Upstream::new(|head| match head.uri().path() {
        "/grpc" => Act::Grpc(Bytes::from_static(b"fine")),
        _ => Act::AfterHints(Bytes::from_static(b"fine")),
    });
    let gateway = before(upstream.url(), "");
    let answer = raw(gateway.public, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{answer}");
    assert!(answer.contains("rel=preload") && status(&answer) == 200, "{answer}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let trailers = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gateway.public).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let call = http::Request::get("http://shop.test/grpc").header("te", "trailers");
        let mut client = client.ready().await.unwrap();
        let (answer, _) = client.send_request(call.body(()).unwrap(), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "fine");
        body.trailers().await.unwrap().unwrap()
    });
    assert_eq!(trailers["grpc-status"], "0");
}

#[test]
fn a_server_under_tls_chooses_and_what_it_must_speak_it_must() {
    let authority = Authority::new();
    let certificate = authority.certificate(&["localhost"]);
    let folder = || {
        let folder = Folder::new();
        folder.write("ca.pem", authority.pem());
        folder
    };
    let tls = "[upstreams.shop.tls]\nca_file = \"ca.pem\"\n";
    let start = |url: String, protocol: &str| {
        let more = format!("protocol = \"{protocol}\"\n{tls}");
        Gateway::start_in(folder(), &config(&[url], &more))
    };
    let new = || certificate.server(&[&TLS13, &TLS12], None);
    let http2 = Http2Upstream::with(Some(new()), 100, |_| fine());
    for protocol in ["h2", "auto"] {
        let gateway = start(http2.url(), protocol);
        let mut session = Session::open(gateway.public);
        for _ in 0..3 {
            assert_eq!(session.get("/").send().text(), "fine");
        }
    }
    assert_eq!(http2.connections(), 2);
    assert!(http2.asked().iter().all(|asked| asked.uri == "https://shop.test/"));

    let upstream = Upstream::replying(response("200 OK", "fine"));
    for offers in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut server = new();
        server.alpn_protocols = offers;
        let front = TlsFront::new(server, upstream.address());
        let gateway = start(front.url("localhost"), "auto");
        let mut session = Session::open(gateway.public);
        for _ in 0..3 {
            assert_eq!(session.get("/").send().text(), "fine");
        }
        assert_eq!(front.handshakes().len(), 1, "its connection is kept");
        let gateway = start(front.url("localhost"), "h2");
        assert_eq!(Client::get(gateway.public, "/").send().status, 502);
        let why = error(&gateway, "upstream_tls");
        assert!(why.contains("(ALPN); see protocol"), "{why}");
    }
    // In clear, there is no choice.
    let gateway = Gateway::start(&config(&[upstream.url()], "protocol = \"auto\""));
    assert_eq!(Client::get(gateway.public, "/").send().text(), "fine");
}

/// A hundred on each connection, as the server says, and none waits for ever.
#[test]
fn there_are_more_streams_than_one_connection_takes() {
    const CALLS: usize = 250;
    for limit in [100, 30] {
        let upstream = Http2Upstream::with(None, limit, |_| Act::Hold);
        let gateway = before(upstream.url(), "client_share = \"100%\"");
        let calls: Vec<_> = (0..CALLS)
            .map(|_| {
                let mut call = Session::open(gateway.public);
                call.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
                call
            })
            .collect();
        eventually("all are in progress", || upstream.open() == CALLS);
        let least = CALLS.div_ceil(limit as usize);
        assert!(upstream.connections() >= least, "{}", upstream.connections());
        let metrics = Client::get(gateway.admin, "/metrics").send().text();
        assert!(metrics.contains("portcullis_upstream_streams_open{upstream=\"shop\"} 250"));
        upstream.release();
        for mut call in calls {
            assert_eq!(call.read().text(), "fine");
        }
        eventually("all are over", || upstream.open() == 0);
    }
}

#[test]
fn requests_beyond_max_requests_wait_and_are_refused() {
    let upstream = Http2Upstream::new(|_| Act::Hold);
    let gateway = before(
        upstream.url(),
        "max_requests = 2\nclient_share = \"100%\"\nconnect_timeout = \"2s\"",
    );
    let mut calls: Vec<Session> = (0..2).map(|_| Session::open(gateway.public)).collect();
    for call in &mut calls {
        call.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    }
    eventually("both are in progress", || upstream.open() == 2);
    let reply = Client::get(gateway.public, "/").send();
    assert_eq!(
        (reply.status, reply.json()["type"].as_str().unwrap()),
        (503, "urn:portcullis:problem:upstream_busy")
    );
}

/// A server that says GOAWAY all the time acts on each request once, and no client notices.
#[test]
fn goaway_costs_no_request_and_repeats_none() {
    const CLIENTS: usize = 8;
    const ORDERS: usize = 50;
    let upstream = GoingAway::after(7);
    let gateway = before(upstream.url(), "fail_timeout = \"1h\"");
    let public = gateway.public;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            std::thread::spawn(move || {
                let mut session = Session::open(public);
                for order in 0..ORDERS {
                    let body = format!("{client}/{order}");
                    let reply = session.request("POST", "/").body(&body).send();
                    assert_eq!(reply.status, 200, "{body}: {}", reply.text());
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    let mut bodies = upstream.bodies();
    bodies.sort();
    let mut expected: Vec<String> = (0..CLIENTS)
        .flat_map(|client| (0..ORDERS).map(move |order| format!("{client}/{order}")))
        .collect();
    expected.sort();
    assert_eq!(bodies, expected);
    assert!(upstream.connections() > CLIENTS * ORDERS / 7, "{}", upstream.connections());
}

#[test]
fn what_a_server_turns_away_is_asked_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let upstream = Http2Upstream::new(move |_| {
        let is_refused = count.fetch_add(1, Ordering::SeqCst) % 3 != 2;
        if is_refused { Act::Reset(Reason::REFUSED_STREAM) } else { fine() }
    });
    let gateway = before(upstream.url(), "");
    for number in 1..=4 {
        let reply = Client::request(gateway.public, "POST", "/").body("an order").send();
        assert_eq!((reply.status, reply.text().as_str()), (200, "fine"));
        assert_eq!(asked.load(Ordering::SeqCst), 3 * number);
    }
    assert!(upstream.asked().iter().all(|asked| asked.body == b"an order"));

    // Not for ever.
    let upstream = Http2Upstream::new(|_| Act::Reset(Reason::REFUSED_STREAM));
    let gateway = before(upstream.url(), "");
    assert_eq!(Client::get(gateway.public, "/").send().status, 502);
    let why = error(&gateway, "upstream_broken");
    assert!(why.contains("turned the request away"), "{why}");
}

/// Whoever resets a stream may have acted, and the connection goes on.
#[test]
fn what_a_server_resets_is_not_asked_again() {
    let resets = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&resets);
    let upstream = Http2Upstream::new(move |head| match head.uri().path() {
        "/half" => Act::CutOff,
        "/reset" => {
            count.fetch_add(1, Ordering::SeqCst);
            Act::Reset(Reason::INTERNAL_ERROR)
        }
        _ => fine(),
    });
    let gateway = before(upstream.url(), "fail_timeout = \"1h\"");
    let mut session = Session::open(gateway.public);
    assert_eq!(session.get("/").send().status, 200);
    for method in ["GET", "POST"] {
        let reply = session.request(method, "/reset").send();
        assert_eq!(reply.status, 502, "{}", reply.text());
        // Cut off, or refused where not even the first byte came.
        let half = Client::request(gateway.public, method, "/half").try_send();
        assert!(half.as_ref().map_or(true, |reply| reply.status == 502), "{half:?}");
    }
    assert_eq!(session.get("/").send().status, 200);
    assert_eq!(resets.load(Ordering::SeqCst), 2);
    // At most one for each thread.
    let threads = std::thread::available_parallelism().unwrap().get();
    assert!(upstream.connections() <= threads, "{}", upstream.connections());
    let asked = upstream.asked();
    let half = asked.iter().filter(|asked| asked.uri.ends_with("/half")).count();
    assert_eq!((asked.len(), half), (4, 2));
}

/// Where retries are wanted, what was reset goes on a connection that stands.
#[test]
fn what_is_sent_again_goes_on_a_connection_that_stands() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let upstream = Http2Upstream::new(move |_| {
        let is_reset = count.fetch_add(1, Ordering::SeqCst) % 2 == 1;
        if is_reset { Act::Reset(Reason::INTERNAL_ERROR) } else { fine() }
    });
    let gateway = before(upstream.url(), "retry = { backoff = \"1ms\", budget = \"100%\" }");
    // One connection, so that one thread serves all.
    let mut session = Session::open(gateway.public);
    for _ in 0..5 {
        assert_eq!(session.get("/").send().status, 200);
    }
    assert_eq!((asked.load(Ordering::SeqCst), upstream.connections()), (9, 1));
}

/// A client that reads nothing of a large answer holds up no other stream of its connection.
#[test]
fn a_stalled_client_stalls_nobody_else() {
    let large = Bytes::from(vec![b'x'; 64 << 20]);
    let upstream = Http2Upstream::new(move |head| match head.uri().path() {
        "/large" => Act::Answer(large.clone()),
        _ => fine(),
    });
    let gateway = before(upstream.url(), "");
    let mut stalled = TcpStream::connect(gateway.public).unwrap();
    stalled.set_read_timeout(Some(PATIENCE)).unwrap();
    stalled.write_all(b"GET /large HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
    eventually("it is in progress", || upstream.asked().len() == 1);
    for _ in 0..50 {
        assert_eq!(Client::get(gateway.public, "/").send().text(), "fine");
    }
    assert_eq!(upstream.open(), 1, "the large answer still waits");
    // Once it reads, it gets all of it.
    let mut read = 0;
    let mut some = vec![0; 1 << 20];
    while read < 64 << 20 {
        let count = stalled.read(&mut some).unwrap();
        assert!(count > 0, "cut off at {read}");
        read += count;
    }
}

/// The same on one connection on each side, with fifty calls that go to and fro meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_stream_stalls_none_beside_it() {
    const CALLS: usize = 50;
    let large = Bytes::from(vec![b'x'; 64 << 20]);
    let upstream = Http2Upstream::new(move |head| match head.uri().path() {
        "/large" => Act::Answer(large.clone()),
        _ => Act::Echo,
    });
    let gateway = before(upstream.url(), "");
    let tcp = tokio::net::TcpStream::connect(gateway.public).await.unwrap();
    let mut builder = h2::client::Builder::new();
    // What the stalled stream holds must not be all that the client's connection takes.
    builder.initial_connection_window_size(1 << 24);
    let (client, connection) = builder.handshake::<_, Bytes>(tcp).await.unwrap();
    tokio::spawn(connection);
    let ask = |path: &str| http::Request::post(format!("http://shop.test{path}")).body(()).unwrap();
    let mut client = client.ready().await.unwrap();
    let (stalled, _) = client.send_request(ask("/large"), true).unwrap();
    let stalled = stalled.await.unwrap().into_body();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..CALLS {
        client = client.ready().await.unwrap();
        let (answer, mut upload) = client.send_request(ask("/echo"), false).unwrap();
        calls.spawn(async move {
            let mut body = answer.await.unwrap().into_body();
            for turn in 0..20 {
                let said = Bytes::from(format!("turn {turn}"));
                upload.send_data(said.clone(), false).unwrap();
                assert_eq!(body.data().await.unwrap().unwrap(), said);
                body.flow_control().release_capacity(said.len()).unwrap();
            }
            upload.send_data(Bytes::new(), true).unwrap();
        });
    }
    let all = tokio::time::timeout(PATIENCE, calls.join_all()).await;
    assert_eq!(all.expect("none is held up").len(), CALLS);
    eventually("the others are over, and the large answer still waits", || upstream.open() == 1);
    assert_eq!(upstream.connections(), 1);
    drop(stalled);
    eventually("it is given up", || upstream.open() == 0);
}

/// A client that leaves takes its stream with it, and no other.
#[test]
fn a_client_that_leaves_cancels_its_stream() {
    let upstream = Http2Upstream::new(|_| Act::Hold);
    let gateway = before(upstream.url(), "");
    let call = || {
        let mut call = Session::open(gateway.public);
        call.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        call
    };
    let (left, mut stays) = (call(), call());
    eventually("both are in progress", || upstream.open() == 2);
    drop(left);
    eventually("one is cancelled", || upstream.open() == 1);
    upstream.release();
    assert_eq!(stays.read().text(), "fine");
}

/// It is found out before a request is sent.
#[test]
fn a_server_without_http2_is_not_asked() {
    let upstream = Upstream::raw(|mut stream| {
        let _ = stream.write_all(response("400 Bad Request", "what?").as_bytes());
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        assert!(!heard.windows(5).any(|five| five == b"order"));
    });
    let gateway = before(upstream.url(), "");
    let reply = Client::request(gateway.public, "POST", "/").body("an order").send();
    assert_eq!(reply.status, 502, "{}", reply.text());
    let why = error(&gateway, "upstream_unreachable");
    assert!(why.contains("did not begin HTTP/2"), "{why}");
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A head with `:status: 200` (RFC 7541 Appendix A) and a body.
fn answer(stream: u32) -> Vec<u8> {
    [frame(HEADERS, 4, stream, &[0x88]), frame(DATA, 1, stream, b"fine")].concat()
}

/// What came of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    Head,
    /// All of it.
    Whole,
}

/// Serves a connection of HTTP/2 frame by frame: says `first`, and to each request that is whole
/// what `says` has for its stream, or closes.
fn serve(io: TcpStream, first: &[u8], says: impl Fn(u32) -> Option<Vec<u8>>) {
    serve_parts(io, first, |stream, came| match came {
        Came::Head => Some(Vec::new()),
        Came::Whole => says(stream),
    });
}

/// The same; it may speak when the head has come, too.
fn serve_parts(mut io: TcpStream, first: &[u8], says: impl Fn(u32, Came) -> Option<Vec<u8>>) {
    let mut serve = || -> std::io::Result<()> {
        io.read_exact(&mut [0; 24])?;
        io.write_all(first)?;
        loop {
            let mut head = [0; 9];
            io.read_exact(&mut head)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            io.read_exact(&mut vec![0; length])?;
            let (kind, is_last) = (head[3], head[4] & 1 != 0);
            if kind == SETTINGS && !is_last {
                io.write_all(&frame(SETTINGS, 1, 0, &[]))?;
            }
            let begins = (kind == HEADERS).then_some(Came::Head);
            let ends = (matches!(kind, HEADERS | DATA) && is_last).then_some(Came::Whole);
            for came in begins.into_iter().chain(ends) {
                match says(stream, came) {
                    Some(bytes) => io.write_all(&bytes)?,
                    None => return Ok(()),
                }
            }
        }
    };
    let _ = serve();
}

/// Whoever has read a request may have acted on it, however the connection ends then.
#[test]
fn what_a_server_has_read_is_not_asked_again() {
    for end in [None, Some(frame(SETTINGS, 0, 0, b"odd")), Some(frame(DATA, 0, 0, b"odd"))] {
        let read = Arc::new(AtomicUsize::new(0));
        let (count, says) = (Arc::clone(&read), end.clone());
        let upstream = Upstream::raw(move |io| {
            serve(io, &frame(SETTINGS, 0, 0, &[]), |_| {
                count.fetch_add(1, Ordering::SeqCst);
                says.clone()
            });
        });
        let gateway = before(upstream.url(), "");
        let reply = Client::request(gateway.public, "POST", "/").body("an order").send();
        assert_eq!((reply.status, read.load(Ordering::SeqCst)), (502, 1), "{end:?}");
    }
}

#[test]
fn what_one_server_turns_away_another_answers() {
    let refuses = Http2Upstream::new(|_| Act::Reset(Reason::REFUSED_STREAM));
    let answers = Http2Upstream::new(|_| fine());
    let more = "protocol = \"h2\"\nbalance = \"round-robin\"\nfail_timeout = \"1h\"";
    let gateway = Gateway::start(&config(&[refuses.url(), answers.url()], more));
    for number in 1..=6 {
        let reply = Client::request(gateway.public, "POST", "/").body("an order").send();
        assert_eq!((reply.status, answers.asked().len()), (200, number));
    }
    assert!(refuses.begun() > 1, "whoever says so lives, and is asked again");

    // A long body that has begun is here no more.
    let steps = vec![Step::Read, Step::Reset(Reason::REFUSED_STREAM)];
    let upstream = Http2Upstream::new(move |_| Act::Play(steps.clone()));
    let gateway = before(upstream.url(), "");
    let reply = Client::request(gateway.public, "POST", "/").body("x".repeat(256 << 10)).send();
    assert_eq!((reply.status, upstream.begun()), (502, 1));
}

/// The bound of a server holds from its first word on, which may come late or never.
#[test]
fn a_server_that_says_late_how_many_it_takes_gets_no_more() {
    const CALLS: usize = 20;
    let (is_settled, is_released) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let begun = Arc::<Mutex<Vec<usize>>>::default();
    let (settled, released, all) =
        (Arc::clone(&is_settled), Arc::clone(&is_released), Arc::clone(&begun));
    let upstream = Upstream::raw(move |io| {
        eventually("it may speak", || settled.load(Ordering::SeqCst));
        let at = {
            let mut all = all.lock().unwrap();
            all.push(0);
            all.len() - 1
        };
        // Each connection answers what it has, which may be one request alone.
        let held = Arc::<Mutex<Vec<u32>>>::default();
        let (mut answers, ready, streams) =
            (io.try_clone().unwrap(), Arc::clone(&released), Arc::clone(&held));
        std::thread::spawn(move || {
            eventually("all are in progress", || ready.load(Ordering::SeqCst));
            let all: Vec<u8> = streams.lock().unwrap().drain(..).flat_map(answer).collect();
            let _ = answers.write_all(&all);
        });
        let bound = [0, 3, 0, 0, 0, 2];
        serve(io, &frame(SETTINGS, 0, 0, &bound), |stream| {
            held.lock().unwrap().push(stream);
            all.lock().unwrap()[at] += 1;
            Some(Vec::new())
        });
    });
    let gateway = before(upstream.url(), "client_share = \"100%\"\nconnect_timeout = \"10s\"");
    let mut calls: Vec<Session> = (0..CALLS).map(|_| Session::open(gateway.public)).collect();
    for call in &mut calls {
        call.write("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\nhi");
    }
    eventually("it is dialed", || upstream.connections() > 0);
    is_settled.store(true, Ordering::SeqCst);
    eventually("all are in progress", || begun.lock().unwrap().iter().sum::<usize>() == CALLS);
    assert!(begun.lock().unwrap().iter().all(|count| *count <= 2), "{begun:?}");
    is_released.store(true, Ordering::SeqCst);
    for call in &mut calls {
        assert_eq!(call.read().text(), "fine");
    }

    let silent = Upstream::raw(|mut io| drop(io.read_to_end(&mut Vec::new())));
    let gateway = before(silent.url(), "connect_timeout = \"200ms\"");
    let reply = Client::request(gateway.public, "POST", "/").body("an order").send();
    assert_eq!(reply.status, 504, "{}", reply.text());
}
