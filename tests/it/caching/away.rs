//! Without the store nothing is read and nothing kept, but those who ask a gateway for the same at
//! the same time ask the upstream once.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::{Gate, ROUTES, asking, counting_writes, is_hit};
use crate::support::{
    Client, Gateway, Redis, Reply, Session, TcpProxy, Upstream, eventually, response,
};

/// A gateway that was cut off from its Redis.
struct CutOff {
    redis: Redis,
    proxy: TcpProxy,
    upstream: Upstream,
    gateway: Gateway,
}

impl CutOff {
    fn start(upstream: Upstream) -> Self {
        let house = Self::not_yet(upstream, "");
        house.proxy.refuse();
        house
    }

    /// One that is still connected; `store` is what else `[store]` says.
    fn not_yet(upstream: Upstream, store: &str) -> Self {
        let redis = Redis::start();
        let proxy = TcpProxy::start(redis.address());
        let store = format!("[store]\nurl = \"{}\"\n{store}", proxy.url());
        let gateway = Gateway::start(&(store + &upstream.table("shop") + ROUTES));
        Self { redis, proxy, upstream, gateway }
    }

    /// Whether the gateway says of the store what is expected, once it does.
    fn wait_until_store_is(&self, up: bool) {
        let line = format!("portcullis_store_up {}\n", u8::from(up));
        eventually("the store is as it should be", || {
            Client::get(self.gateway.admin, "/metrics").send().text().contains(&line)
        });
    }
}

/// Our member of Cache-Status.
fn status(reply: &Reply) -> &str {
    assert!(!is_hit(reply));
    reply.header("cache-status").expect("Cache-Status")
}

/// Whether another request's answer was used.
fn is_collapsed(reply: &Reply) -> bool {
    status(reply).ends_with("; collapsed")
}

#[test]
fn those_who_ask_at_the_same_time_ask_the_upstream_once() {
    let gate = Gate::shut();
    let shut = gate.clone();
    let upstream = Upstream::with(move |_, connection| {
        shut.pass();
        let _ = connection.write_all(response("200 OK", "hello").as_bytes());
    });
    let house = CutOff::start(upstream);
    let mut sessions: Vec<Session> = (0..200).map(|_| asking(&house.gateway, "/p", "")).collect();
    eventually("the upstream is asked", || house.upstream.seen() >= 1);
    gate.open();
    let replies: Vec<Reply> = sessions.iter_mut().map(Session::read).collect();
    for reply in &replies {
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
        assert!(status(reply).starts_with("portcullis; fwd=bypass"), "{reply:?}");
        assert!(!status(reply).contains("stored"), "{reply:?}");
    }
    let collapsed = replies.iter().filter(|reply| is_collapsed(reply)).count();
    assert!(collapsed > 0, "nobody followed");
    assert_eq!(house.upstream.seen(), 200 - collapsed);
    // Who comes later asks anew, and nothing was kept.
    house.upstream.forget();
    for _ in 0..2 {
        assert!(!is_collapsed(&Client::get(house.gateway.public, "/p").send()));
    }
    assert_eq!(house.upstream.seen(), 2);
    assert_eq!(house.redis.cli(&["KEYS", "app:cache:*:entry:*"]), "");
}

#[test]
fn a_redis_that_takes_no_writes_leaves_this_nodes_memory() {
    let (redis, upstream) = (Redis::start(), Upstream::replying(response("200 OK", "hello")));
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
    let gateway = Gateway::start(&(store + &upstream.table("shop") + ROUTES));
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let get = || Client::get(gateway.public, "/p").send();
    assert_eq!(status(&get()), "portcullis; fwd=uri-miss; stored");
    assert!(is_hit(&get()));
    assert_eq!(redis.cli(&["KEYS", "app:cache:*"]), "", "it takes no writes");
}

/// It is the write that parts them, whether the store heard of it or not.
#[test]
fn who_comes_after_a_write_gets_no_answer_from_before_it() {
    for write_is_stored in [false, true] {
        let gate = Gate::shut();
        let house = CutOff::start(counting_writes(&gate));
        house.wait_until_store_is(false);
        let mut before = asking(&house.gateway, "/p", "");
        eventually("the read arrives", || house.upstream.seen() == 1);
        if write_is_stored {
            house.proxy.pass();
            house.wait_until_store_is(true);
        }
        let write = Client::request(house.gateway.public, "POST", "/p").body("").send();
        assert_eq!(write.status, 200);
        if write_is_stored {
            house.proxy.refuse();
            house.wait_until_store_is(false);
        }
        let mut after = [(); 5].map(|()| asking(&house.gateway, "/p", ""));
        eventually("another read arrives", || house.upstream.seen() >= 3);
        gate.open();
        assert_eq!(before.read().text(), "1");
        for session in &mut after {
            assert_eq!(session.read().text(), "2", "the store heard of it: {write_is_stored}");
        }
    }
}

#[test]
fn who_comes_when_the_answer_has_begun_asks_anew() {
    let gate = Gate::shut();
    let shut = gate.clone();
    let upstream = Upstream::with(move |_, connection| {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
        shut.pass();
        let _ = connection.write_all(b"-half");
    });
    let house = CutOff::start(upstream);
    let mut leader = asking(&house.gateway, "/p", "");
    leader.read_until("\r\n\r\nfirst");
    let mut other = asking(&house.gateway, "/p", "");
    other.read_until("\r\n\r\nfirst");
    assert_eq!(house.upstream.seen(), 2);
    gate.open();
    for session in [&mut leader, &mut other] {
        assert_eq!(session.read_exactly(5), "-half");
    }
}

#[test]
fn what_is_not_for_all_is_for_nobody_else() {
    let gate = Gate::shut();
    let shut = gate.clone();
    let upstream = Upstream::with(move |request, connection| {
        shut.pass();
        let language = request.header("accept-language").unwrap_or("none");
        let head = match request.target() {
            "/varies" => "200 OK\r\nVary: Accept-Language",
            _ => "200 OK\r\nCache-Control: private",
        };
        let _ = connection.write_all(response(head, language).as_bytes());
    });
    let house = CutOff::start(upstream);
    for path in ["/varies", "/private"] {
        gate.set(false);
        house.upstream.forget();
        let mut sessions: Vec<(&str, Session)> = ["de", "fr", "it"]
            .repeat(6)
            .into_iter()
            .map(|language| {
                let field = format!("Accept-Language: {language}\r\n");
                (language, asking(&house.gateway, path, &field))
            })
            .collect();
        eventually("the upstream is asked", || house.upstream.seen() >= 1);
        gate.open();
        for (language, session) in &mut sessions {
            let reply = session.read();
            assert_eq!(reply.text(), *language, "{path}");
            assert!(path == "/varies" || !is_collapsed(&reply), "{reply:?}");
        }
    }
    // A part, and a 304, are the upstream's to give, one by one.
    house.upstream.forget();
    for field in ["Range: bytes=0-1\r\n", "If-None-Match: \"a\"\r\n"] {
        asking(&house.gateway, "/varies", field).read();
        let (name, value) = field.trim_end().split_once(": ").expect("a field");
        let asked = house.upstream.recorded().pop().expect("a request");
        assert_eq!(asked.header(name), Some(value));
    }
}

/// The upstream says that a stored answer is not to be kept any more. Its purge is lost on the way
/// to the store, after the client has left.
#[test]
fn a_purge_of_the_caches_own_is_carried_out_though_its_client_left() {
    let (gate, asked) = (Gate::shut(), AtomicUsize::new(0));
    let shut = gate.clone();
    let upstream = Upstream::with(move |_, connection| {
        let text = if asked.fetch_add(1, Ordering::SeqCst) == 0 {
            response("200 OK\r\nCache-Control: max-age=600", "old")
        } else {
            shut.pass();
            response("200 OK\r\nCache-Control: no-store", "new")
        };
        let _ = connection.write_all(text.as_bytes());
    });
    let house = CutOff::not_yet(upstream, "timeout = \"60s\"\n");
    let get = || Client::get(house.gateway.public, "/p").send();
    assert_eq!(get().text(), "old");
    eventually("it is kept", || is_hit(&get()));
    let client = asking(&house.gateway, "/p", "Cache-Control: no-cache\r\n");
    eventually("the upstream is asked again", || house.upstream.seen() == 2);
    house.proxy.swallow();
    house.proxy.reset_count();
    gate.open();
    eventually("the store is told", || house.proxy.batches() == 1);
    drop(client);
    eventually("the client has left", || {
        house.gateway.access_lines().iter().any(|line| line["status"] == 499)
    });
    house.proxy.refuse();
    house.wait_until_store_is(false);
    house.proxy.pass();
    house.wait_until_store_is(true);
    assert_eq!(get().text(), "new");
}

/// A gateway whose way to the Redis of others can be cut.
fn beside(redis: &Redis, upstream: &Upstream, store: &str) -> (TcpProxy, Gateway) {
    let proxy = TcpProxy::start(redis.address());
    // Patient: the machine is busy, and nothing here is about deadlines.
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n{store}", proxy.url());
    let gateway = Gateway::start(&(store + &upstream.table("shop") + ROUTES));
    (proxy, gateway)
}

fn store_is(gateway: &Gateway, up: bool) {
    let line = format!("portcullis_store_up {}\n", u8::from(up));
    eventually("the store is as it should be", || {
        Client::get(gateway.admin, "/metrics").send().text().contains(&line)
    });
}

/// A request that is to ask again and again is held up for one `store.timeout` in all: the question
/// that it has no time left for is not asked.
#[test]
fn a_store_that_falls_silent_between_two_questions_is_waited_for_once() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let upstream = Upstream::with(|request, connection| {
        let language = request.header("accept-language").unwrap_or("none");
        let head = "200 OK\r\nCache-Control: max-age=600\r\nVary: Accept-Language\r\n\
                    Surrogate-Key: a";
        let _ = connection.write_all(response(head, language).as_bytes());
    });
    let house = CutOff::not_yet(upstream, "timeout = \"2s\"\n");
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"60s\"\n", house.redis.url());
    let other = Gateway::start(&(store + &house.upstream.table("shop") + ROUTES));
    let get = |gateway: &Gateway, path: &str, language: &str| {
        Client::get(gateway.public, path).header("Accept-Language", language).send()
    };
    // By way of this one it is known what the answer depends on; and the base is there.
    eventually("it is stored", || is_hit(&get(&other, "/p", "de")));
    eventually("another one is", || is_hit(&get(&house.gateway, "/q", "de")));
    let begun = Instant::now();
    // The first answer tells that there are tags and variants, which are asked for, then the lease;
    // and tags again when the response is here.
    house.proxy.swallow_after(1);
    assert_eq!(get(&house.gateway, "/p", "fr").text(), "fr");
    let took = begun.elapsed();
    assert!(took > TIMEOUT / 2 && took < 2 * TIMEOUT, "{took:?}");
}

/// The lease of another gateway may be nobody's then.
#[test]
fn nobody_is_waited_for_soon_after_an_outage() {
    // How long leases are not trusted, without the time that a busy machine takes.
    const SURE: Duration = Duration::from_millis(2500);
    let gate = Gate::shut();
    let shut = gate.clone();
    let upstream = Upstream::with(move |request, connection| {
        if request.target() != "/noted" {
            shut.pass();
        }
        let _ = connection.write_all(response("200 OK", "hello").as_bytes());
    });
    let redis = Redis::start();
    // What is stored is used at once again, so that it is the lease that decides.
    let store = "reconnect_backoff = \"1ms\"\ncache_wait = \"1h\"\n";
    let [(_way, first), (proxy, second)] = [(); 2].map(|()| beside(&redis, &upstream, store));
    for path in (0..20).map(|number| format!("/{number}")) {
        let seen = || upstream.recorded().iter().filter(|it| it.target() == path).count();
        let _leader = asking(&first, &path, "");
        eventually("the first gateway asks", || seen() == 1);
        proxy.refuse();
        store_is(&second, false);
        let noted = Instant::now();
        assert!(!is_hit(&Client::get(second.public, "/noted").send()));
        proxy.pass();
        store_is(&second, true);
        let _other = asking(&second, &path, "");
        eventually("the second one asks, or has come too late to know", || {
            seen() == 2 || noted.elapsed() > SURE
        });
        if seen() == 2 {
            return gate.open();
        }
    }
    panic!("the second gateway waits for the first one");
}

/// Gateways come back one after the other, and one of them has yet to tell of a write.
#[test]
fn what_is_stored_is_not_used_soon_after_an_outage() {
    let gate = Gate::shut();
    gate.open();
    let (redis, upstream) = (Redis::start(), counting_writes(&gate));
    let [(way, first), (other_way, second)] =
        [(); 2].map(|()| beside(&redis, &upstream, "reconnect_backoff = \"1m\"\n"));
    let get = |gateway: &Gateway| Client::get(gateway.public, "/p").send();
    assert_eq!(get(&first).text(), "1");
    for gateway in [&first, &second] {
        eventually("it is stored", || is_hit(&get(gateway)));
    }
    for (proxy, gateway) in [(&way, &first), (&other_way, &second)] {
        proxy.refuse();
        store_is(gateway, false);
        assert!(!is_hit(&get(gateway)));
    }
    assert_eq!(Client::request(first.public, "POST", "/p").body("").send().status, 200);
    other_way.pass();
    store_is(&second, true);
    assert_eq!(get(&second).text(), "2", "the first one could not tell");
}
