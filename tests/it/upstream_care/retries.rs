//! Requests that are sent more than once, and those that must not be.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::{HANGS, HANGS_UP, LIES, Server, answer, before, config, get};
use crate::support::{
    Client, Exposition, Gateway, GoingAway, Session, Upstream, eventually, response,
};

/// Everything is a reason, and nobody waits.
const ALL: &str = "retry = { on = [\"connect\", \"refused\", \"reset\", \"timeout\", \"500\", \
                   \"503\"], backoff = \"1ms\" }";

fn metric(gateway: &Gateway, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let text = Client::get(gateway.admin, "/metrics").send().text();
    let labels = [&[("upstream", "shop")], labels].concat();
    Exposition::text(&text).value(&format!("portcullis_upstream_{name}"), &labels)
}

fn retried(gateway: &Gateway, outcome: &str) -> Option<f64> {
    metric(gateway, "retries_total", &[("outcome", outcome)])
}

#[test]
fn another_server_answers_where_one_does_not() {
    for (does, reason) in [(503, "status"), (HANGS, "timeout"), (HANGS_UP, "reset")] {
        let (bad, good) = (Server::new(does), Server::new(200));
        // The time for a connection is that of each, and not of the first one alone.
        let timeouts = "connect_timeout = \"100ms\"\nresponse_timeout = \"200ms\"";
        let gateway = before(&[&bad, &good], &format!("{timeouts}\n{ALL}"));
        let mut session = Session::open(gateway.public);
        for _ in 0..6 {
            assert_eq!(session.get("/").send().status, 200, "{reason}");
        }
        let tried = bad.seen();
        assert!(tried > 0 && good.seen() == 6, "{reason}: {tried}");
        let lines = || gateway.access_lines();
        eventually("all are logged", || lines().len() == 6);
        let again: Vec<_> = lines().into_iter().filter(|line| line["attempts"] == 2).collect();
        assert_eq!(again.len(), tried);
        for line in lines() {
            assert_eq!(line["server"], good.url(), "{line}");
        }
        assert!(again.iter().all(|line| line["retry"] == reason), "{again:?}");
        assert_eq!(retried(&gateway, "good"), Some(tried as f64));
        assert_eq!(retried(&gateway, "failed"), Some(0.0));
        assert!(metric(&gateway, "retry_budget_left", &[]).is_some());
    }
}

#[test]
fn what_is_no_reason_is_the_answer() {
    let (bad, good) = (Server::new(500), Server::new(200));
    let gateway = before(&[&bad, &good], "retry = {}");
    let statuses = [0; 6].map(|_| get(&gateway));
    assert_eq!(statuses.iter().filter(|status| **status == 500).count(), 3);
    assert_eq!((bad.seen(), good.seen()), (3, 3));
}

/// A server that may have acted on a request that is not idempotent was its last one.
#[test]
fn nothing_is_done_twice_that_must_not_be() {
    for hedge in ["", "\nhedge = \"p50\""] {
        do_what_must_not_be_done_twice(hedge);
    }
}

/// Three servers that take turns at what a server can do wrong, whoever is asked.
fn servers_that_fail_in_all_ways() -> Vec<Upstream> {
    const CUTS: u16 = 3;
    const CLOSES_AFTER: u16 = 4;
    let number = Arc::<AtomicUsize>::default();
    (0..3)
        .map(|_| {
            let number = Arc::clone(&number);
            Upstream::with(move |_, connection| {
                let all = [200, 500, 503, HANGS, HANGS_UP, LIES, CUTS, CLOSES_AFTER];
                // In steps, so that a request begins with each of them, whatever follows.
                match all[number.fetch_add(3, Ordering::SeqCst) % all.len()] {
                    CUTS => {
                        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Le");
                        let _ = connection.shutdown(Shutdown::Both);
                    }
                    // The next request meets a connection that is being closed.
                    CLOSES_AFTER => {
                        let _ = connection.write_all(response("200 OK", "told").as_bytes());
                        let _ = connection.shutdown(Shutdown::Both);
                    }
                    does => answer(does, connection),
                }
            })
        })
        .collect()
}

fn do_what_must_not_be_done_twice(hedge: &str) {
    // Bound and not listening: it refuses, and nobody else gets its port.
    let dead = tokio::net::TcpSocket::new_v4().unwrap();
    dead.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refuses = format!("http://{}", dead.local_addr().unwrap());
    let servers = servers_that_fail_in_all_ways();
    let urls: Vec<String> = servers.iter().map(Upstream::url).chain([refuses]).collect();
    let more = ALL.replacen('{', "{ attempts = 5, budget = \"100%\", ", 1) + hedge;
    let gateway = Gateway::start(&config(&[], &more).replacen(
        "servers = []",
        &format!("servers = {urls:?}\nresponse_timeout = \"100ms\"\nfail_timeout = \"1ms\""),
        1,
    ));
    if !hedge.is_empty() {
        eventually("some are sent to two servers", || {
            for _ in 0..40 {
                Client::request(gateway.public, "PUT", "/").send();
            }
            ["false", "true"].iter().any(|won| {
                metric(&gateway, "hedges_total", &[("won", won)]).is_some_and(|count| count > 0.0)
            })
        });
        servers.iter().for_each(Upstream::forget);
    }
    let mut most = HashMap::new();
    for method in ["POST", "PATCH", "PUT"] {
        for id in 0..60 {
            let path = format!("/{method}/{id}");
            let request = Client::request(gateway.public, method, &path);
            let request = if id % 3 == 0 { request.body("told once") } else { request };
            request.send();
        }
        let mut arrived = HashMap::<String, usize>::new();
        for server in &servers {
            for request in server.recorded() {
                *arrived.entry(request.target().to_owned()).or_default() += 1;
            }
            assert!(server.broken().is_empty(), "{:?}", server.broken());
            server.forget();
        }
        // Some are lost on a connection that is being closed, and repeats of what may be done twice
        // use the budget up.
        assert!(method == "PUT" || arrived.len() > 40, "{method}: {}", arrived.len());
        most.insert(method, arrived.into_values().max().unwrap());
    }
    assert_eq!((most["POST"], most["PATCH"]), (1, 1));
    // What may be done twice is.
    assert!(most["PUT"] > 1);
}

/// Over HTTP/2 a server says which requests it has not looked at, in the midst of their bodies.
#[test]
fn a_server_that_keeps_going_away_gets_every_post_once() {
    let upstream = GoingAway::after(5);
    let gateway = Gateway::start(&format!(
        "[upstreams.shop]\nservers = [\"{}\"]\nprotocol = \"h2\"\n{ALL}\n\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.url()
    ));
    for id in 0..40 {
        let reply = Client::request(gateway.public, "POST", "/").body(id.to_string()).send();
        assert_eq!(reply.status, 200, "{id}");
    }
    let mut bodies = upstream.bodies();
    bodies.sort_by_key(|body| body.parse::<usize>().unwrap());
    let expected: Vec<String> = (0..40).map(|id: usize| id.to_string()).collect();
    assert_eq!(bodies, expected);
}

#[test]
fn a_body_is_sent_again_whole_or_not_at_all() {
    let (bad, good) = (Server::new(503), Server::new(200));
    let more = "retry = { body = \"64KiB\", backoff = \"1ms\" }";
    let gateway = before(&[&bad, &good], more);
    let put = |bytes: usize| {
        let body: Vec<u8> = (0..bytes).map(|at| b'a' + (at % 23) as u8).collect();
        let reply = Client::request(gateway.public, "PUT", "/").body(&body).send();
        (reply.status, body)
    };
    for bytes in [1, 64 << 10] {
        for _ in 0..2 {
            let (status, body) = put(bytes);
            assert_eq!(status, 200, "{bytes}");
            let recorded = good.upstream.recorded();
            let last = recorded.last().unwrap();
            assert_eq!(last.header("content-length"), Some(&*bytes.to_string()));
            assert!(last.body == body, "{bytes}: another body");
        }
    }
    let chunked = "PUT / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
    for _ in 0..2 {
        let reply = crate::support::raw(gateway.public, chunked);
        assert_eq!(crate::support::status(&reply), 200, "{reply}");
        assert_eq!(good.upstream.recorded().last().unwrap().text(), "abcdef");
    }
    let mut statuses = [0; 2].map(|_| put((64 << 10) + 1).0);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
}

/// The server that has lost a DELETE may have done it: that there is nothing more to delete is then
/// what the other one says.
#[test]
fn what_any_attempt_may_have_changed_is_stale() {
    for (first, last, is_stale) in [
        (HANGS_UP, 404, true),
        (HANGS, 503, true),
        (500, 404, true),
        (503, 404, false),
        (404, 404, false),
    ] {
        let (bad, other) = (Server::new(200), Server::new(200));
        let config = config(&[&bad, &other], &format!("response_timeout = \"300ms\"\n{ALL}"));
        let cached = "path = \"/*\"\ncache = { ttl = \"1h\" }\n";
        let gateway = Gateway::start(&config.replacen("path = \"/*\"\n", cached, 1));
        let mut session = Session::open(gateway.public);
        // Two, so that the first server has its turn again.
        for path in ["/x", "/y", "/x", "/y"] {
            assert_eq!(session.get(path).send().status, 200);
        }
        let seen = || bad.seen() + other.seen();
        assert_eq!(seen(), 2, "both are stored");
        bad.now(first);
        other.now(last);
        assert_eq!(session.request("DELETE", "/x").send().status, last, "{first}");
        bad.now(200);
        other.now(200);
        let before = seen();
        for path in ["/x", "/y"] {
            assert_eq!(session.get(path).send().status, 200);
        }
        assert_eq!(seen() - before, usize::from(is_stale), "{first}, then {last}");
    }
}

/// Nobody will know whether it was done.
#[test]
fn what_a_client_does_not_wait_for_is_stale() {
    let (bad, other) = (Server::new(200), Server::new(200));
    let retry = "retry = { backoff = \"24h\", on = [\"500\"] }";
    let cached = "path = \"/*\"\ncache = { ttl = \"1h\" }\n";
    let gateway =
        Gateway::start(&config(&[&bad, &other], retry).replacen("path = \"/*\"\n", cached, 1));
    let mut session = Session::open(gateway.public);
    for _ in 0..2 {
        assert_eq!(session.get("/x").send().status, 200);
    }
    assert_eq!(bad.seen() + other.seen(), 1, "it is stored");
    bad.now(500);
    other.now(500);
    let mut leaves = Session::open(gateway.public);
    leaves.write("DELETE /x HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("a server may have acted", || bad.seen() + other.seen() == 2);
    bad.now(200);
    other.now(200);
    drop(leaves);
    eventually("it is asked for again", || {
        session.get("/x").send();
        bad.seen() + other.seen() == 3
    });
}

#[test]
fn a_server_says_how_long_it_is_to_be_left_alone() {
    for (after, expected) in [("0", 200), ("6", 503)] {
        let busy = format!("503 Busy\r\nRetry-After: {after}");
        let bad = Upstream::replying(response(&busy, "later"));
        let good = Upstream::replying(response("200 OK", "told"));
        let servers = [bad.url(), good.url()];
        let gateway = Gateway::start(&config(&[], "retry = { backoff = \"1ms\" }").replacen(
            "servers = []",
            &format!("servers = {servers:?}"),
            1,
        ));
        let mut statuses = [0; 4].map(|_| get(&gateway));
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, expected, expected], "{after}");
        let refused = if expected == 503 { 2.0 } else { 0.0 };
        assert_eq!(retried(&gateway, "no_time"), Some(refused));
    }
}

/// An hour at most, at random: that is beyond the deadline, and the answer is what there is.
#[test]
fn nobody_waits_beyond_the_deadline() {
    let (bad, other) = (Server::new(503), Server::new(503));
    let config = config(&[&bad, &other], "retry = { backoff = \"24h\" }");
    let gateway = Gateway::start(&config.replacen(
        "path = \"/*\"\n",
        "path = \"/*\"\ndeadline = \"5s\"\n",
        1,
    ));
    assert_eq!(get(&gateway), 503);
    assert_eq!((bad.seen() + other.seen(), retried(&gateway, "no_time")), (1, Some(1.0)));
}

/// Retries must not be what keeps an upstream down.
#[test]
fn where_all_servers_fail_few_requests_are_sent_again() {
    const REQUESTS: usize = 400;
    let (one, other) = (Server::new(503), Server::new(503));
    let gateway = before(&[&one, &other], "retry = { attempts = 5, backoff = \"1ms\" }");
    let mut session = Session::open(gateway.public);
    let began = Instant::now();
    for _ in 0..REQUESTS {
        assert_eq!(session.get("/").send().status, 503);
    }
    // A fifth of them, and ten for each second that has begun, and the first one's ten.
    let most = REQUESTS * 6 / 5 + 10 * (2 + began.elapsed().as_secs() as usize);
    let attempts = one.seen() + other.seen();
    assert!((REQUESTS + 10..=most).contains(&attempts), "{attempts} of {most}");
    assert!(retried(&gateway, "over_budget").unwrap() > 100.0);
}

/// The slow one is asked, and after a while the other one, too.
#[test]
fn a_second_server_is_asked_where_the_first_one_is_slow() {
    let (slow, fast) = (Server::new(200), Server::new(200));
    let more = "response_timeout = \"2s\"\nhedge = \"p50\"\nretry = { budget = \"100%\" }";
    let gateway = before(&[&slow, &fast], more);
    let mut session = Session::open(gateway.public);
    for _ in 0..40 {
        assert_eq!(session.get("/").send().status, 200);
    }
    slow.now(HANGS);
    let won = || metric(&gateway, "hedges_total", &[("won", "true")]).unwrap();
    eventually("a second server is asked", || {
        session.get("/").send();
        won() > 0.0
    });
    let before = (won(), gateway.access_lines().len());
    for _ in 0..6 {
        assert_eq!(session.get("/").send().status, 200);
    }
    assert!(won() >= before.0 + 3.0, "each second one");
    eventually("all are logged", || gateway.access_lines().len() >= before.1 + 6);
    let lines = gateway.access_lines();
    let doubled = lines.iter().rev().find(|line| line["retry"] == "hedge").unwrap();
    assert_eq!((&doubled["attempts"], &doubled["server"]), (&2.into(), &fast.url().into()));
    // What might be done twice is not.
    let mut statuses = [0; 2].map(|_| Client::request(gateway.public, "POST", "/").send().status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 504]);
}
