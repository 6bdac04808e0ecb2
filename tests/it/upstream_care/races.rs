//! Two servers asked for one answer, and what is never asked for twice.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;

use super::{HANGS, Server, before, config, get};
use crate::support::{
    Client, Exposition, Gateway, Session, Upstream, eventually, operate, raw, response, status,
};

const HEDGED: &str = "response_timeout = \"60s\"\nhedge = \"p50\"\nmax_connections = 200\n\
                      client_share = \"100%\"\nretry = { budget = \"20%\" }";

fn counted(gateway: &Gateway, name: &str, label: (&str, &str)) -> f64 {
    let text = Client::get(gateway.admin, "/metrics").send().text();
    let labels = [("upstream", "shop"), label];
    Exposition::text(&text).value(&format!("portcullis_upstream_{name}"), &labels).unwrap()
}

fn ask(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.public).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
    stream
}

/// Asks until it is known how long answers take: one of the servers is slow, and another one is
/// asked. Those who have asked before that leave.
fn until_one_is_left(gateway: &Gateway, slow: &Server) {
    let mut session = Session::open(gateway.public);
    for _ in 0..40 {
        assert_eq!(session.get("/").send().status, 200);
    }
    let unused = slow.upstream.open();
    slow.now(HANGS);
    let mut waiting = Vec::new();
    eventually("a second server is asked", || {
        waiting.push(ask(gateway));
        counted(gateway, "hedges_total", ("won", "true")) > 0.0
    });
    drop(waiting);
    until_nothing_is_in_progress(gateway);
    eventually("no connection is left that hangs", || slow.upstream.open() <= unused);
}

fn until_nothing_is_in_progress(gateway: &Gateway) {
    eventually("nothing is in progress", || {
        let all = operate(gateway, "GET", "/v1/upstreams", "").json();
        let servers = all["upstreams"]["shop"]["servers"].as_array().unwrap().clone();
        servers.iter().all(|server| server["busy"] == 0)
    });
}

fn until_there_is_a_budget(gateway: &Gateway) {
    eventually("there is a budget again", || {
        let text = Client::get(gateway.admin, "/metrics").send().text();
        let left = Exposition::text(&text)
            .value("portcullis_upstream_retry_budget_left", &[("upstream", "shop")]);
        left >= Some(10.0)
    });
}

/// Nobody waits for the one that has lost: its connection ends long before its time is over.
#[test]
fn of_two_servers_the_slower_one_is_left() {
    let (slow, fast) = (Server::new(200), Server::new(200));
    let gateway = before(&[&slow, &fast], HEDGED);
    until_one_is_left(&gateway, &slow);
    until_there_is_a_budget(&gateway);
    let mut session = Session::open(gateway.public);
    let (seen, open) = (slow.seen(), slow.upstream.open());
    // More than could have an unused connection.
    while slow.seen() <= seen + open {
        assert_eq!(session.get("/").send().status, 200);
    }
    until_nothing_is_in_progress(&gateway);
    eventually("its connections are closed", || slow.upstream.open() <= open);
    // Not because its client has gone.
    assert_eq!(session.get("/").send().status, 200);
}

/// Slow servers are no better for being asked twice as often.
#[test]
fn where_all_are_slow_few_are_asked_for_a_second_time() {
    const REQUESTS: usize = 40;
    let (one, other) = (Server::new(200), Server::new(200));
    let gateway = before(&[&one, &other], HEDGED);
    until_one_is_left(&gateway, &one);
    other.now(HANGS);
    until_there_is_a_budget(&gateway);
    let refused = || counted(&gateway, "retries_total", ("outcome", "over_budget"));
    let (before, asked) = (refused(), || one.seen() + other.seen());
    let seen = asked();
    let waiting: Vec<TcpStream> = (0..REQUESTS).map(|_| ask(&gateway)).collect();
    eventually("each is asked twice, or is refused that", || {
        let twice = (asked() - seen).saturating_sub(REQUESTS);
        (refused() - before) as usize + twice == REQUESTS
    });
    let twice = asked() - seen - REQUESTS;
    // A fifth of those in progress, these among them.
    assert!((1..=REQUESTS / 4).contains(&twice), "{twice} of {}", waiting.len());
}

#[test]
fn no_body_is_sent_to_two_servers_at_once() {
    let (slow, fast) = (Server::new(200), Server::new(200));
    let more = HEDGED.replacen("60s", "500ms", 1);
    let gateway = before(&[&slow, &fast], &more);
    until_one_is_left(&gateway, &slow);
    let chunked = "PUT / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\n\r\n";
    let won = || counted(&gateway, "hedges_total", ("won", "true"));
    let before = won();
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let put = Client::request(gateway.public, "PUT", "/").body("whole");
        statuses.push(put.send().status);
        statuses.push(status(&raw(gateway.public, chunked)));
    }
    statuses.sort_unstable();
    assert_eq!((statuses, won()), (vec![200, 200, 504, 504], before));
}

/// What a client has read of an answer cannot be taken back.
#[test]
fn what_has_begun_to_arrive_is_not_asked_for_again() {
    for head in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let (go_on, told) = std::sync::mpsc::channel::<()>();
        let told = Mutex::new(told);
        let cuts = Upstream::with(move |_, connection| {
            let part = if head.starts_with('C') { "begun" } else { "5\r\nbegun\r\n" };
            let _ = connection.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n{part}").as_bytes());
            let _ = told.lock().unwrap().recv();
            let _ = connection.shutdown(Shutdown::Both);
        });
        let good = Upstream::replying(response("200 OK", "whole"));
        let retry = "retry = { on = [\"connect\", \"refused\", \"reset\", \"timeout\", \"500\"], \
                     attempts = 3, backoff = \"1ms\", budget = \"100%\" }";
        let servers = format!("servers = {:?}", [cuts.url(), good.url()]);
        let gateway = Gateway::start(&config(&[], retry).replacen("servers = []", &servers, 1));
        let mut cut = 0;
        for _ in 0..6 {
            let mut session = Session::open(gateway.public);
            session.write("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n");
            session.read_until("\r\n\r\n");
            if cuts.seen() > cut {
                session.read_until("begun");
                cut += 1;
                go_on.send(()).unwrap();
                let rest = session.rest();
                assert!(!rest.contains("whole") && !rest.ends_with("0\r\n\r\n"), "{rest}");
            } else {
                assert!(session.rest().ends_with("whole"));
            }
        }
        assert_eq!((cut, cuts.seen(), good.seen()), (3, 3, 3));
        eventually("all are logged", || gateway.access_lines().len() == 6);
        assert!(gateway.access_lines().iter().all(|line| line["attempts"] == 1));
    }
}

/// Whoever is asked second has less time left than whoever was first, and is told so.
#[test]
fn each_server_is_told_the_time_that_is_left() {
    for route in ["", "cache = { ttl = \"1h\" }\n"] {
        let later = response("503 Busy\r\nRetry-After: 1", "later");
        let busy = Upstream::replying(later.clone());
        let other = Upstream::replying(later);
        let servers = format!("servers = {:?}", [busy.url(), other.url()]);
        let text = config(&[], "retry = { backoff = \"1ms\" }");
        let text = text.replacen("servers = []", &servers, 1).replacen(
            "path = \"/*\"\n",
            &format!("path = \"/*\"\ndeadline = \"60s\"\ndeadline_header = \"x-left\"\n{route}"),
            1,
        );
        let gateway = Gateway::start(&text);
        assert_eq!(get(&gateway), 503);
        let left = |server: &Upstream| server.only().header("x-left").unwrap().parse::<u64>();
        let mut left = [left(&busy).unwrap(), left(&other).unwrap()];
        left.sort_unstable();
        // It has waited for as long as the first server wanted.
        assert!(left[1] <= 60_000 && left[0] + 1_000 <= left[1], "{route}: {left:?}");
    }
}

/// What is charged for an answer is charged for the client's own, and once.
#[test]
fn limits_look_at_the_last_answer() {
    let (busy, other) = (Server::new(503), Server::new(200));
    let more = "retry = { backoff = \"1ms\", budget = \"100%\" }\n\
                [limits.failures]\nkey = [\"address\"]\nallow = [\"2/1h\"]\n\
                count = { status = [\"503\"] }";
    let text = config(&[&busy, &other], more);
    let limited = "path = \"/*\"\nlimits = [\"failures\"]\n";
    let gateway = Gateway::start(&text.replacen("path = \"/*\"\n", limited, 1));
    for _ in 0..6 {
        assert_eq!(get(&gateway), 200);
    }
    assert_eq!((busy.seen(), other.seen()), (3, 6));
    other.now(503);
    assert_eq!([(); 3].map(|()| get(&gateway)), [503, 503, 429]);
}
