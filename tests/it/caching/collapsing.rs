//! Many who want the same missing answer: one asks, and whatever happens to the one, nobody else
//! waits in vain.

use std::collections::HashSet;
use std::io::Write as _;
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Gate, House, ROUTES, asking, counting_writes, is_hit, speaking, store};
use crate::support::{
    Client, Exposition, Gateway, Redis, Session, TcpProxy, Upstream, eventually, response,
};

/// Answers everything alike once the gate is open.
fn gated(gate: &Gate, head: &'static str) -> Upstream {
    let gate = gate.clone();
    Upstream::with(move |_, connection| {
        gate.pass();
        let _ = connection.write_all(response(head, "hello").as_bytes());
    })
}

/// Sends this many requests for `/p` in turn to these gateways, and answers them when the upstream
/// has one; all answers are whole.
fn crowd(gateways: &[Gateway], upstream: &Upstream, gate: &Gate, count: usize) {
    let mut sessions: Vec<Session> =
        gateways.iter().cycle().take(count).map(|gateway| asking(gateway, "/p", "")).collect();
    eventually("the upstream is asked", || upstream.seen() == 1);
    gate.open();
    let mut collapsed = 0;
    for session in &mut sessions {
        let reply = session.read();
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
        let status = reply.header("cache-status").unwrap_or_default();
        collapsed += usize::from(status.contains("collapsed") && !status.contains("collapsed=?0"));
    }
    assert!(collapsed > 0, "nobody followed");
    assert_eq!(upstream.seen(), 1);
}

#[test]
fn two_hundred_misses_on_one_gateway_are_one_request() {
    let gate = Gate::shut();
    let upstream = gated(&gate, "200 OK");
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    crowd(&[gateway], &upstream, &gate, 200);
}

#[test]
fn two_hundred_misses_on_three_gateways_are_one_request() {
    let (gate, redis) = (Gate::shut(), Redis::start());
    let upstream = gated(&gate, "200 OK");
    let config = store(&redis) + &upstream.table("shop") + ROUTES;
    let gateways = [(); 3].map(|()| Gateway::start(&config));
    crowd(&gateways, &upstream, &gate, 200);
    let waited = || {
        let lines = gateways.iter().flat_map(Gateway::access_lines);
        lines.filter(|line| line["cache"] == "collapsed").map(|line| line["stages"].clone())
    };
    eventually("they have their lines", || waited().next().is_some());
    for stages in waited() {
        assert!(stages["collapsed"].is_u64() && stages["send"].is_null(), "{stages}");
    }
}

#[test]
fn who_follows_gets_the_bytes_as_they_come() {
    let gate = Gate::shut();
    let shut = gate.clone();
    let upstream = Upstream::with(move |_, connection| {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
        shut.pass();
        let _ = connection.write_all(b"-half");
    });
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    let mut leader = asking(&gateway, "/p", "");
    leader.read_until("\r\n\r\nfirst");
    let mut followers = [(); 5].map(|()| asking(&gateway, "/p", ""));
    for follower in &mut followers {
        follower.read_until("\r\n\r\nfirst");
    }
    let mut part = asking(&gateway, "/p", "Range: bytes=2-7\r\n");
    part.read_until("\r\n\r\nrst");
    gate.open();
    for session in followers.iter_mut().chain([&mut leader]) {
        assert_eq!(session.read_exactly(5), "-half");
    }
    assert_eq!(part.read_exactly(3), "-ha");
    assert_eq!(upstream.seen(), 1);
}

/// Nobody knows whether it will end: those who wait for it do not wait for ever.
#[test]
fn a_stream_without_an_end_holds_nobody_up() {
    let upstream = Upstream::with(move |request, connection| {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let event = format!("5\r\n{:.5}\r\n", request.target());
        let _ = connection.write_all(event.as_bytes());
        let _ = std::io::Read::read(connection, &mut [0; 1]);
    });
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    let mut first = asking(&gateway, "/events", "");
    first.read_until("/even\r\n");
    let mut second = asking(&gateway, "/events", "");
    second.read_until("/even\r\n");
    assert_eq!(upstream.seen(), 2);
}

#[test]
fn what_cannot_be_shared_is_asked_for_at_once_by_all() {
    for head in
        ["200 OK\r\nCache-Control: no-store", "200 OK\r\nCache-Control: no-cache\r\nETag: \"a\""]
    {
        let gate = Gate::shut();
        gate.open();
        let house = House::start(gated(&gate, head));
        for gateway in [0, 1] {
            Client::get(house.gateways[gateway].public, "/p").send();
        }
        house.upstream.forget();
        gate.set(false);
        let mut sessions: Vec<Session> =
            (0..6).map(|number| asking(&house.gateways[number % 2], "/p", "")).collect();
        eventually("all are asking", || house.upstream.seen() == 6);
        gate.open();
        for session in &mut sessions {
            assert_eq!(session.read().status, 200);
        }
    }
}

#[test]
fn who_leads_and_leaves_is_replaced() {
    for shared in [false, true] {
        let gate = Gate::shut();
        let upstream = gated(&gate, "200 OK");
        let redis = shared.then(Redis::start);
        let table = redis.as_ref().map(store).unwrap_or_default();
        let gateway = Gateway::start(&(table + &upstream.table("shop") + ROUTES));
        let leader = asking(&gateway, "/p", "");
        eventually("the upstream is asked", || upstream.seen() == 1);
        let mut followers = [(); 5].map(|()| asking(&gateway, "/p", ""));
        drop(leader);
        eventually("a follower asks", || upstream.seen() == 2);
        gate.open();
        for follower in &mut followers {
            assert_eq!(follower.read().text(), "hello");
        }
        assert_eq!(upstream.seen(), 2);
    }
}

#[test]
fn a_body_that_is_cut_off_is_whole_for_nobody_and_kept_nowhere() {
    let (gate, asked) = (Gate::shut(), Mutex::new(HashSet::new()));
    let shut = gate.clone();
    let upstream = Upstream::with(move |request, connection| {
        let is_first = asked.lock().unwrap().insert(request.target().to_owned());
        if is_first {
            let framing = match request.target() {
                "/length" => "Content-Length: 10",
                _ => "Transfer-Encoding: chunked",
            };
            let begun = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n4\r\nhalf\r\n");
            let _ = connection.write_all(begun.as_bytes());
            shut.pass();
            let _ = connection.shutdown(Shutdown::Both);
        } else {
            let _ = connection.write_all(response("200 OK", "all of it").as_bytes());
        }
    });
    let house = House::start(upstream);
    for path in ["/length", "/chunks"] {
        gate.set(false);
        let mut leader = asking(&house.gateways[0], path, "");
        leader.read_until("half");
        let mut followers = [(); 2].map(|()| asking(&house.gateways[0], path, ""));
        gate.open();
        let cut = leader.rest();
        assert!(!cut.ends_with("0\r\n\r\n"), "{path}: a clean end: {cut:?}");
        for session in &mut followers {
            let got = session.read_until("\r\n\r\n").to_ascii_lowercase();
            if got.contains("content-length: 10") {
                let rest = session.rest();
                assert!(rest.len() < 10, "{path}: {rest:?}");
            } else {
                assert!(got.contains("content-length: 9"), "{path}: {got}");
            }
        }
        for gateway in [0, 1] {
            let reply = Client::get(house.gateways[gateway].public, path).send();
            assert_eq!((reply.status, reply.text().as_str()), (200, "all of it"), "{path}");
        }
    }
}

#[test]
fn a_gateway_that_is_killed_while_it_fetches_holds_the_others_up_for_its_lease_at_most() {
    let (gate, asked) = (Gate::shut(), AtomicUsize::new(0));
    let shut = gate.clone();
    let upstream = Upstream::with(move |_, connection| {
        if asked.fetch_add(1, Ordering::SeqCst) == 0 {
            shut.pass();
        }
        let _ = connection.write_all(response("200 OK", "hello").as_bytes());
    });
    let house = House::start(upstream);
    let _killed = asking(&house.gateways[0], "/p", "");
    eventually("the upstream is asked", || house.upstream.seen() == 1);
    let mut waiting = [(); 3].map(|()| asking(&house.gateways[1], "/p", ""));
    house.gateways[0].signal("KILL");
    for session in &mut waiting {
        assert_eq!(session.read().text(), "hello");
    }
    assert_eq!(house.upstream.seen(), 2);
    gate.open();
}

#[test]
fn a_lease_is_renewed_while_its_fetch_goes_on_and_ends_with_it() {
    let gate = Gate::shut();
    let house = House::start(gated(&gate, "200 OK"));
    let mut session = asking(&house.gateways[0], "/p", "");
    let key = || house.redis.cli(&["KEYS", "app:cache:*:lock:*"]);
    eventually("it is taken", || !key().is_empty());
    let left = || house.redis.cli(&["PTTL", &key()]).parse::<i64>().unwrap_or_default();
    eventually("time passes", || left() < 2500);
    eventually("it is renewed", || left() > 2600);
    gate.open();
    assert_eq!(session.read().text(), "hello");
    eventually("it is given back", || key().is_empty());
}

/// Whoever leaves while his question is on its way does not know whose lease it is.
#[test]
fn who_leaves_before_the_store_has_answered_ends_no_lease_of_another_gateway() {
    let (gate, redis) = (Gate::shut(), Redis::start());
    let (upstream, proxy) = (gated(&gate, "200 OK"), TcpProxy::start(redis.address()));
    // Nobody gives up here: neither on the store, nor on the one who fetches.
    let patience = "timeout = \"60s\"\ncache_wait = \"60s\"\n";
    let [first, second] = [redis.url(), proxy.url()].map(|url| {
        let store = format!("[store]\nurl = \"{url}\"\n{patience}");
        Gateway::start(&(store + &upstream.table("shop") + ROUTES))
    });
    let mut leader = asking(&first, "/p", "");
    eventually("the upstream is asked", || upstream.seen() == 1);
    proxy.swallow();
    proxy.reset_count();
    let leaver = asking(&second, "/p", "");
    eventually("the store is asked", || proxy.batches() == 1);
    drop(leaver);
    eventually("he has left", || second.access_lines().iter().any(|line| line["status"] == 499));
    proxy.pass();
    let mut follower = asking(&second, "/p", "");
    // It looks again and again while it waits for the other gateway.
    eventually("it waits", || proxy.batches() > 6 || upstream.seen() > 1);
    gate.open();
    for session in [&mut leader, &mut follower] {
        assert_eq!(session.read().text(), "hello");
    }
    assert_eq!(upstream.seen(), 1);
}

#[test]
fn redis_that_dies_while_many_wait_costs_nobody_the_answer() {
    let gate = Gate::shut();
    let mut house = House::start(gated(&gate, "200 OK"));
    let mut sessions: Vec<Session> =
        (0..300).map(|number| asking(&house.gateways[number % 2], "/p", "")).collect();
    eventually("the upstream is asked", || house.upstream.seen() >= 1);
    house.redis.kill();
    gate.open();
    for session in &mut sessions {
        let reply = session.read();
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    }
    assert_eq!(house.get(0, "/p").text(), "hello");
}

#[test]
fn different_variants_are_never_shared_and_never_wait_for_each_other() {
    let gate = Gate::shut();
    let house = House::start(speaking(&gate));
    let languages = ["de", "fr", "it"];
    // First nobody knows what the response varies on, then everybody.
    for (path, known) in [("/cold", false), ("/warm", true)] {
        gate.set(known);
        if known {
            Client::get(house.gateways[0].public, path).send();
            Client::get(house.gateways[1].public, path).send();
            house.upstream.forget();
            gate.set(false);
        }
        let mut sessions: Vec<(&str, Session)> = (0..18)
            .map(|number| {
                let language = languages[number % 3];
                let field = format!("Accept-Language: {language}\r\n");
                (language, asking(&house.gateways[number % 2], path, &field))
            })
            .collect();
        if known {
            eventually("each is asked for", || house.upstream.seen() >= 3);
        }
        gate.open();
        for (language, session) in &mut sessions {
            assert_eq!(session.read().text(), *language, "{path}");
        }
        if known {
            assert_eq!(house.upstream.seen(), 3, "each variant once");
        }
    }
}

#[test]
fn who_comes_after_a_write_does_not_follow_who_came_before() {
    let gate = Gate::shut();
    let house = House::start(counting_writes(&gate));
    let mut before = asking(&house.gateways[0], "/p", "");
    eventually("the read arrives", || house.upstream.seen() == 1);
    let write = Client::request(house.gateways[1].public, "POST", "/p").body("").send();
    assert_eq!(write.status, 200);
    let mut after = [0, 0, 1].map(|gateway| asking(&house.gateways[gateway], "/p", ""));
    eventually("a second read arrives", || house.upstream.seen() >= 3);
    gate.open();
    assert_eq!(before.read().text(), "1");
    for session in &mut after {
        assert_eq!(session.read().text(), "2");
    }
    eventually("the new one is kept", || {
        is_hit(&Client::get(house.gateways[0].public, "/p").send())
    });
}

/// The reader says that it is behind, and the breaker of the servers is open. That is no failure of
/// what was asked for: whoever waited asks, and is told how long that holds.
#[test]
fn who_waited_for_what_an_open_breaker_refused_is_told_of_the_breaker() {
    let gate = Gate::shut();
    let readers = gated(&gate, "425 Too Early");
    let servers = Upstream::replying(response("500 Broken", ""));
    let gateway = Gateway::start(&format!(
        "{}readers = [\"{}\"]\nstick = \"0s\"\n\
         breaker = {{ requests = 1, open = \"1h\" }}\n{ROUTES}",
        servers.table("shop"),
        readers.url()
    ));
    eventually("the breaker is open", || {
        Client::request(gateway.public, "POST", "/").send().status == 503
    });
    let mut sessions = vec![asking(&gateway, "/p", "")];
    eventually("a reader is asked", || readers.seen() == 1);
    sessions.extend((0..10).map(|_| asking(&gateway, "/p", "")));
    eventually("all are there", || {
        let metrics = Client::get(gateway.admin, "/metrics").send().text();
        Exposition::text(&metrics).value("portcullis_requests_in_flight", &[]) == Some(11.0)
    });
    assert_eq!(readers.seen(), 1, "one asks for all");
    gate.open();
    for session in &mut sessions {
        let reply = session.read();
        assert_eq!(reply.json()["type"], "urn:portcullis:problem:upstream_open");
        assert!(reply.header("retry-after").is_some());
    }
}

#[test]
fn who_waited_for_an_answer_that_never_came_is_told_so() {
    let gate = Gate::shut();
    let shut = gate.clone();
    let upstream = Upstream::with(move |_, connection| {
        shut.pass();
        let _ = connection.shutdown(Shutdown::Both);
    });
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    let mut number = 0;
    // Who came when the first one had failed already did not wait, and asked by himself.
    eventually("somebody waited in vain", || {
        number += 1;
        gate.set(false);
        upstream.forget();
        let path = format!("/{number}");
        let mut sessions = vec![asking(&gateway, &path, "")];
        eventually("the upstream is asked", || upstream.seen() >= 1);
        sessions.extend((0..10).map(|_| asking(&gateway, &path, "")));
        gate.open();
        let codes: Vec<String> = sessions
            .iter_mut()
            .map(|session| {
                let reply = session.read();
                assert_eq!(reply.status, 502);
                reply.json()["type"].as_str().unwrap_or_default().to_owned()
            })
            .collect();
        let [broken, failed] = ["upstream_broken", "upstream_failed_before"]
            .map(|code| format!("urn:portcullis:problem:{code}"));
        assert!(codes.iter().all(|code| *code == broken || *code == failed), "{codes:?}");
        codes.contains(&failed)
    });
}
