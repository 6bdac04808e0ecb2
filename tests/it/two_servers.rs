//! Upstreams of two servers: how requests are spread over them, and what happens when one is dead.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Client, Gateway, Session, Upstream, eventually, raw, response, status};

/// A port that refuses connections for as long as this is held: it is bound, and nobody listens.
struct Dead(tokio::net::TcpSocket);

impl Dead {
    fn new() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    /// At a port where nobody listens any more.
    fn at(address: SocketAddr) -> std::io::Result<Self> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self(socket))
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}

fn before(servers: &str, settings: &str) -> Gateway {
    Gateway::start(&format!(
        "[upstreams.shop]\nservers = [{servers}]\n{settings}\n
        [routes.all]\npath = \"/*\"\nupstream = \"shop\""
    ))
}

const BALANCES: [&str; 2] = ["p2c", "round-robin"];

fn fine() -> Upstream {
    Upstream::replying(response("200 OK", "fine"))
}

#[test]
fn round_robin_follows_the_weights() {
    let servers = [fine(), fine(), fine()];
    let gateway = before(
        &format!(
            "{{ url = \"{}\", weight = 3 }}, {{ url = \"{}\", weight = 2 }}, \"{}\"",
            servers[0].url(),
            servers[1].url(),
            servers[2].url()
        ),
        "balance = \"round-robin\"",
    );
    for turns in 1..=5 {
        for _ in 0..6 {
            assert_eq!(Client::get(gateway.public, "/").send().status, 200);
        }
        assert_eq!(servers.each_ref().map(Upstream::seen), [3 * turns, 2 * turns, turns]);
    }
}

/// A body that its client breaks ends the connection to the server, who did nothing wrong.
#[test]
fn clients_who_break_their_uploads_have_no_server_avoided() {
    let servers = [fine(), fine()];
    let gateway = before(
        &format!("\"{}\", \"{}\"", servers[0].url(), servers[1].url()),
        "balance = \"round-robin\"\nfail_timeout = \"1h\"",
    );
    for _ in 0..6 {
        let broken =
            "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz";
        assert_eq!(status(&raw(gateway.public, broken.to_owned() + "\r\n")), 400);
    }
    servers.iter().for_each(Upstream::forget);
    for _ in 0..6 {
        assert_eq!(Client::get(gateway.public, "/").send().status, 200);
    }
    assert_eq!(servers.each_ref().map(Upstream::seen), [3, 3]);
}

#[test]
fn the_less_busy_server_is_chosen() {
    // It does not answer a request for `/held`.
    let server = || {
        Upstream::with(|request, connection| {
            let _ = if request.target() == "/held" {
                connection.read(&mut [0; 16]).map(drop)
            } else {
                connection.write_all(response("200 OK", "fine").as_bytes())
            };
        })
    };
    let hold = |gateway: &Gateway| {
        let mut held = TcpStream::connect(gateway.public).unwrap();
        held.write_all(b"GET /held HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
        held
    };
    let [one, other] = [server(), server()];
    let gateway = before(&format!("\"{}\", \"{}\"", one.url(), other.url()), "");
    let _held = hold(&gateway);
    eventually("one of them has it", || one.seen() + other.seen() == 1);
    let (busy, free) = if one.seen() == 1 { (one, other) } else { (other, one) };
    for _ in 0..20 {
        assert_eq!(Client::get(gateway.public, "/").send().status, 200);
    }
    assert_eq!((busy.seen(), free.seen()), (1, 20));

    let [strong, weak] = [server(), server()];
    let gateway = before(
        &format!("{{ url = \"{}\", weight = 1000 }}, \"{}\"", strong.url(), weak.url()),
        "balance = \"p2c\"",
    );
    // By its weight it stays less busy than a server without any request.
    let held: Vec<TcpStream> = (1..=10)
        .map(|number| {
            let held = hold(&gateway);
            eventually("it has the request", || strong.seen() == number);
            held
        })
        .collect();
    assert_eq!((held.len(), weak.seen()), (10, 0));
}

#[test]
fn what_a_server_has_read_goes_to_no_other_server() {
    for balance in BALANCES {
        let hung = Upstream::with(|_, connection| {
            let _ = connection.shutdown(Shutdown::Both);
        });
        let alive = fine();
        let gateway = before(
            &format!("\"{}\", \"{}\"", hung.url(), alive.url()),
            &format!("balance = \"{balance}\"\nfail_timeout = \"1ms\""),
        );
        for (at, (method, body)) in
            [("POST", "order"), ("PUT", "order"), ("GET", ""), ("DELETE", "")]
                .into_iter()
                .cycle()
                .take(40)
                .enumerate()
        {
            let mut request = Client::request(gateway.public, method, "/");
            if !body.is_empty() {
                request = request.body(body);
            }
            let before = hung.seen();
            let expected = |seen| if seen > before { 502 } else { 200 };
            let status = request.send().status;
            assert_eq!(status, expected(hung.seen()), "{balance} {method}");
            assert_eq!(hung.seen() + alive.seen(), at + 1, "{balance} {method}");
        }
        assert!(hung.seen() > 0, "{balance}");
    }
}

/// A server that leaves with the first DELETE: it has acted on it, refuses connections from then
/// on, and closes the one that it came on.
struct Leaving {
    address: SocketAddr,
    /// The request lines, behind the number of their connection.
    seen: Arc<Mutex<Vec<(usize, String)>>>,
}

impl Leaving {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<(usize, String)>>>::default();
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            let listener = Arc::new(listener);
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let (listener, log) = (Arc::clone(&listener), Arc::clone(&log));
                std::thread::spawn(move || serve_until_delete(number, stream, &listener, &log));
            }
        });
        Self { address, seen }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The connections on which it has seen requests of this method.
    fn connections(&self, method: &str) -> Vec<usize> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(_, line)| line.starts_with(method)).map(|(at, _)| *at).collect()
    }
}

fn serve_until_delete(
    number: usize,
    mut stream: TcpStream,
    listener: &TcpListener,
    log: &Mutex<Vec<(usize, String)>>,
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
        head.clear();
        let is_delete = line.starts_with("DELETE ");
        log.lock().unwrap().push((number, line));
        if is_delete {
            socket2::SockRef::from(listener).shutdown(Shutdown::Both).unwrap();
            return;
        }
        stream.write_all(response("200 OK", "leaving").as_bytes()).unwrap();
    }
}

#[test]
fn what_a_server_that_leaves_has_read_makes_stale() {
    let leaving = Leaving::new();
    let gateway = Gateway::start(&format!(
        "[upstreams.shop]\nservers = [\"{}\"]\n
        [routes.all]\npath = \"/*\"\nupstream = \"shop\"\ncache = {{ ttl = \"60s\" }}",
        leaving.url()
    ));
    // One connection, because the thread that serves it keeps the upstream's at rest.
    let mut session = Session::open(gateway.public);
    for _ in 0..2 {
        assert_eq!(session.get("/x").send().status, 200);
    }
    assert_eq!(leaving.connections("GET"), [0], "the second one was stored");
    let deleted = session.request("DELETE", "/x").send();
    assert_eq!(leaving.connections("DELETE"), [0], "on the connection that was at rest");
    assert_eq!(deleted.status, 502);
    eventually("both have lines", || gateway.access_lines().len() == 3);
    // Not that there was no connection: the server may have acted.
    assert_eq!(gateway.access_lines()[2]["reason"], "upstream_broken");
    let after = session.get("/x").send();
    assert_eq!(after.status, 502, "what was stored may be gone: {after:?}");
}

#[test]
fn what_a_server_that_leaves_has_read_goes_to_no_other_server() {
    for balance in BALANCES {
        let (leaving, alive) = (Leaving::new(), fine());
        let gateway = before(
            &format!("\"{}\", \"{}\"", leaving.url(), alive.url()),
            &format!("balance = \"{balance}\""),
        );
        let mut session = Session::open(gateway.public);
        eventually("both are in use", || {
            assert_eq!(session.get("/").send().status, 200);
            !leaving.connections("GET").is_empty() && alive.seen() > 0
        });
        alive.forget();
        let mut statuses = Vec::new();
        eventually("it is asked to", || {
            statuses.push(session.request("DELETE", "/").send().status);
            !leaving.connections("DELETE").is_empty()
        });
        assert_eq!(leaving.connections("DELETE"), [0], "on the connection that was at rest");
        assert_eq!(statuses.pop(), Some(502), "{balance}");
        assert!(statuses.iter().all(|status| *status == 200), "{balance}: {statuses:?}");
        assert_eq!(alive.seen(), statuses.len(), "{balance}: each one was sent to one server");
    }
}

#[test]
fn a_body_outlives_the_server_whose_connection_rests() {
    for balance in BALANCES {
        let (dying, alive) = (fine(), fine());
        let gateway = before(
            &format!("\"{}\", \"{}\"", dying.url(), alive.url()),
            &format!("balance = \"{balance}\"\nfail_timeout = \"1ms\""),
        );
        // One connection, because the thread that serves it keeps the upstreams' at rest.
        let mut session = Session::open(gateway.public);
        eventually("both are in use", || {
            assert_eq!(session.get("/").send().status, 200);
            dying.seen() > 0 && alive.seen() > 0
        });
        let address = dying.url().trim_start_matches("http://").parse().unwrap();
        drop(dying);
        let mut dead = None;
        eventually("nobody listens", || {
            dead = Dead::at(address).ok();
            dead.is_some()
        });
        alive.forget();
        for _ in 0..10 {
            assert_eq!(session.request("POST", "/").body("order").send().status, 200);
        }
        assert_eq!(alive.seen(), 10, "{balance}");
        assert!(alive.recorded().iter().all(|request| request.text() == "order"));
    }
}

#[test]
fn nobody_notices_a_server_that_refuses() {
    for balance in BALANCES {
        let (dead, alive) = (Dead::new(), fine());
        let gateway = before(
            &format!("{{ url = \"{}\", weight = 9 }}, \"{}\"", dead.url(), alive.url()),
            &format!("balance = \"{balance}\""),
        );
        for _ in 0..50 {
            let reply = Client::get(gateway.public, "/").send();
            assert_eq!((reply.status, reply.text().as_str()), (200, "fine"), "{balance}");
        }
        assert_eq!(alive.seen(), 50, "{balance}");
    }
}

#[test]
fn a_body_arrives_once_at_the_other_server() {
    for balance in BALANCES {
        let (dead, alive) = (Dead::new(), fine());
        // Long enough to be avoided is no time: each request finds out anew.
        let gateway = before(
            &format!("\"{}\", \"{}\"", dead.url(), alive.url()),
            &format!("balance = \"{balance}\"\nfail_timeout = \"1ms\""),
        );
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            for number in 0..5 {
                let body = format!("{method} {number} {}", "x".repeat(100_000));
                let reply = Client::request(gateway.public, method, "/").body(&body).send();
                assert_eq!(reply.status, 200, "{balance} {method}");
                assert_eq!(alive.only().text(), body, "{balance} {method}");
                alive.forget();
            }
        }
        let chunks = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        for _ in 0..5 {
            let post = format!("POST / HTTP/1.1\r\nHost: shop.test\r\n{chunks}");
            assert_eq!(status(&raw(gateway.public, post)), 200, "{balance}");
            assert_eq!(alive.only().text(), "hello");
            alive.forget();
        }
    }
}

#[test]
fn where_all_are_dead_the_answer_says_so() {
    for balance in BALANCES {
        let dead = [Dead::new(), Dead::new(), Dead::new()];
        let servers = dead.each_ref().map(|dead| format!("\"{}\"", dead.url()));
        let gateway = before(&servers.join(", "), &format!("balance = \"{balance}\""));
        for at in 0..6 {
            let reply = Client::request(gateway.public, "POST", "/").body("x").send();
            assert_eq!(reply.status, 502, "{balance}");
            eventually("the log has it", || gateway.access_lines().len() > at);
            assert_eq!(gateway.access_lines()[at]["reason"], "upstream_unreachable");
        }
    }
}

#[test]
fn a_server_that_is_back_is_used_again() {
    for balance in BALANCES {
        let (dead, alive) = (Dead::new(), fine());
        let gateway = before(
            &format!("\"{}\", \"{}\"", dead.url(), alive.url()),
            &format!("balance = \"{balance}\"\nfail_timeout = \"200ms\""),
        );
        for _ in 0..10 {
            assert_eq!(Client::get(gateway.public, "/").send().status, 200);
        }
        let address = dead.address();
        drop(dead);
        let back = TcpListener::bind(address).expect("the port that was dead");
        std::thread::spawn(move || {
            for mut stream in back.incoming().map_while(Result::ok) {
                let _ = stream.read(&mut [0; 4096]);
                let _ =
                    stream.write_all(response("200 OK\r\nConnection: close", "back").as_bytes());
            }
        });
        eventually("the server that is back answers", || {
            let reply = Client::get(gateway.public, "/").send();
            assert_eq!(reply.status, 200);
            reply.text() == "back"
        });
        // And not for one request alone.
        eventually("it answers again", || Client::get(gateway.public, "/").send().text() == "back");
    }
}

#[test]
fn a_server_that_hangs_up_before_it_answers_is_avoided() {
    for balance in BALANCES {
        // Such as the proxy of a container whose process is gone.
        let hung = Upstream::raw(drop);
        let alive = fine();
        let gateway = before(
            &format!("\"{}\", \"{}\"", hung.url(), alive.url()),
            &format!("balance = \"{balance}\"\nfail_timeout = \"60s\""),
        );
        let replies: Vec<u16> =
            (0..50).map(|_| Client::get(gateway.public, "/").send().status).collect();
        let failed = replies.iter().filter(|status| **status != 200).count();
        assert!(failed <= 2, "{balance}: {replies:?}");
        assert!(hung.connections() <= 3, "{balance}: {} connections", hung.connections());
    }
}

#[test]
fn a_server_that_does_not_accept_costs_one_more_connect_timeout() {
    // A listener whose queue is full drops what comes: its connections neither succeed nor fail.
    let full = socket_that_drops();
    let alive = fine();
    let gateway = before(
        &format!("{{ url = \"http://{}\", weight = 1000 }}, \"{}\"", full.address, alive.url()),
        "connect_timeout = \"300ms\"\nfail_timeout = \"60s\"",
    );
    for _ in 0..20 {
        let reply = Client::request(gateway.public, "POST", "/").body("x").send();
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!(alive.seen(), 20);
}

#[test]
fn one_request_waits_for_one_dead_server_alone() {
    let (full, too) = (socket_that_drops(), socket_that_drops());
    let alive = fine();
    let dead = |full: &Full| format!("{{ url = \"http://{}\", weight = 100 }}", full.address);
    // Both are due again before each request, and to be tried by one request is enough.
    let gateway = before(
        &format!("{}, {}, \"{}\"", dead(&full), dead(&too), alive.url()),
        "connect_timeout = \"300ms\"\nfail_timeout = \"1ms\"",
    );
    let statuses: Vec<u16> = (0..8)
        .map(|_| Client::request(gateway.public, "POST", "/").body("x").send().status)
        .collect();
    // Until each of them is known, one request may meet both.
    let failed = statuses.iter().filter(|status| **status != 200).count();
    assert!(failed <= 1, "{statuses:?}");
}

/// A listener whose queue is full: what comes is dropped, and neither accepted nor refused.
pub(crate) struct Full {
    pub(crate) address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

/// Fills the queue of a listener that accepts nobody.
pub(crate) fn socket_that_drops() -> Full {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
        queued.push(stream);
        assert!(queued.len() < 10_000, "the queue has no end");
    }
    Full { address, _listener: listener, _queued: queued }
}
