//! The store is slow, silent, unreachable or dead: every function says what it does without it, no
//! request waits, and service is normal again when the store is.

mod ladder;
mod share;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    AUTH, Client, Gateway, PATIENCE, Redis, Reply, Session, TcpProxy, Upstream, claims, eventually,
    response, token,
};

/// Far above `store.timeout` and everything that is awaited behind it, far below "hangs".
const SAFETY: Duration = Duration::from_secs(5);

/// One route for each function of the store, and one that needs none.
const ROUTES: &str = r#"
[session]
id_from = ["cookie:sid"]
header = "x-session"
[limits.api]
key = ["address"]
allow = ["1000/1h"]
[routes.plain]
path = "/plain"
upstream = "shop"
[routes.auth]
path = "/auth"
upstream = "shop"
auth = "users"
[routes.limited]
path = "/limited"
upstream = "shop"
limits = ["api"]
[routes.session]
path = "/session"
upstream = "shop"
session = true
[routes.cached]
path = "/cached"
upstream = "shop"
cache = { ttl = "1h" }
"#;

fn upstream() -> Upstream {
    Upstream::replying(response("200 OK", "hello"))
}

/// Sends a request, which must be answered soon whatever the store does.
fn ask(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Reply {
    let begin = Instant::now();
    let mut request = Client::get(gateway.public, path);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let reply = request.send();
    assert!(begin.elapsed() < SAFETY, "{path} took {:?}", begin.elapsed());
    reply
}

fn cache_status(reply: &Reply) -> &str {
    reply.header("cache-status").expect("Cache-Status")
}

#[test]
fn a_gateway_starts_without_its_store_and_finds_it_later() {
    let (redis, upstream) = (Redis::start(), upstream());
    let proxy = TcpProxy::start(redis.address());
    proxy.refuse();
    let store = format!("[store]\nurl = \"{}\"\n", proxy.url());
    let gateway = Gateway::start(&(store + AUTH + &upstream.table("shop") + ROUTES));
    let bearer = format!("Bearer {}", token(claims("42")));
    let auth = [("Authorization", &*bearer)];
    assert_eq!(ask(&gateway, "/auth", &auth).status, 503);
    assert_eq!(ask(&gateway, "/plain", &[]).status, 200);
    proxy.pass();
    eventually("the store is found", || ask(&gateway, "/auth", &auth).status == 200);
    eventually("the cache works", || cache_status(&ask(&gateway, "/cached", &[])).contains("hit"));
}

#[test]
fn a_flush_under_load_costs_nobody_an_error() {
    const REQUESTS: usize = 3000;
    let (redis, upstream) = (Redis::start(), upstream());
    let everything = r#"
        [session]
        id_from = ["cookie:sid"]
        header = "x-session"
        idle_timeout = "30m"
        [limits.api]
        key = ["claim:sub"]
        allow = ["1000000/1h", "100/1ms"]
        [routes.all]
        path = "/*"
        upstream = "shop"
        auth = "users"
        limits = ["api"]
        session = true
        cache = { ttl = "1h", shared = true }
    "#;
    // The deadline is not the matter here, and the machine is busy.
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
    let config = store + AUTH + &upstream.table("shop") + everything;
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    let served = AtomicUsize::new(0);
    let client = |number: usize| {
        let token = token(claims(&format!("user-{number}")));
        let mut session = Session::open(gateways[number % 2].public);
        while served.fetch_add(1, Ordering::SeqCst) < REQUESTS {
            let method =
                if served.load(Ordering::SeqCst).is_multiple_of(10) { "POST" } else { "GET" };
            let path = format!("/{}", served.load(Ordering::SeqCst) % 7);
            let request = session.request(method, &path).bearer(&token).header("Cookie", "sid=s1");
            let reply = request.send();
            assert!(matches!(reply.status, 200 | 429), "{}: {}", reply.status, reply.text());
        }
    };
    let client = &client;
    std::thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || client(number));
        }
        let mut flushes = 0;
        while served.load(Ordering::SeqCst) < REQUESTS {
            redis.cli(&["SET", "app:session:s1", "{}"]);
            for flush in [["SCRIPT", "FLUSH"].as_slice(), &["FLUSHALL"]] {
                assert_eq!(redis.cli(flush), "OK");
            }
            flushes += 1;
        }
        assert!(flushes > 10, "{flushes} flushes are no test");
    });
    for line in gateways.iter().flat_map(Gateway::access_lines) {
        assert!(line.get("degraded").is_none(), "{line}");
    }
}

/// What the store did not take when a write passed is made up for before the cache is read again.
fn an_invalidation_survives(break_it: fn(&TcpProxy)) {
    let redis = Redis::start();
    let version = AtomicU64::new(1);
    let upstream = Upstream::with(move |request, connection| {
        if request.request_line().starts_with("POST") {
            version.store(2, Ordering::SeqCst);
        }
        let text = version.load(Ordering::SeqCst).to_string();
        let _ = std::io::Write::write_all(connection, response("200 OK", &text).as_bytes());
    });
    let proxy = TcpProxy::start(redis.address());
    let config =
        |url: &str| format!("[store]\nurl = \"{url}\"\n") + AUTH + &upstream.table("shop") + ROUTES;
    let cut_off = Gateway::start(&config(&proxy.url()));
    let bystander = Gateway::start(&config(&redis.url()));
    eventually("both have the old answer", || {
        [&cut_off, &bystander].iter().all(|gateway| {
            let reply = ask(gateway, "/cached", &[]);
            assert_eq!(reply.text(), "1");
            cache_status(&reply).contains("hit")
        })
    });
    break_it(&proxy);
    let begin = Instant::now();
    let reply = Client::request(cut_off.public, "POST", "/cached").send();
    assert_eq!((reply.status, reply.text().as_str()), (200, "2"), "the write itself went well");
    assert!(begin.elapsed() < SAFETY);
    assert_eq!(ask(&cut_off, "/cached", &[]).text(), "2");
    assert_eq!(Client::request(cut_off.public, "POST", "/cached").send().status, 200);
    let said = |what: &str| cut_off.stderr().matches(what).count();
    assert_eq!(said("an invalidation waits for the store"), 1, "once, however many wait");
    // What was on its way is lost.
    proxy.hang_up();
    proxy.pass();
    eventually("the cache is read again", || {
        let reply = ask(&cut_off, "/cached", &[]);
        assert_eq!(reply.text(), "2", "what the write made stale was read: {reply:?}");
        cache_status(&reply).contains("hit")
    });
    eventually("its end is told", || said("no invalidation waits any more") == 1);
    assert_eq!(said("an invalidation waits for the store"), 1);
    // The node that knew of the write has told the store, so the other knows by now.
    assert_eq!(ask(&bystander, "/cached", &[]).text(), "2");
}

#[test]
fn an_invalidation_survives_a_refused_connection() {
    an_invalidation_survives(TcpProxy::refuse);
}

#[test]
fn an_invalidation_survives_a_silent_connection() {
    an_invalidation_survives(TcpProxy::swallow);
}

/// More writes than the gateway remembers: then everything is made stale, and nothing forgotten.
#[test]
fn no_number_of_writes_without_a_store_leaves_anything_stale() {
    let redis = Redis::start();
    let versions = Mutex::new(std::collections::HashSet::new());
    let upstream = Upstream::with(move |request, connection| {
        let mut written = versions.lock().unwrap();
        if request.request_line().starts_with("POST") {
            written.insert(request.target().to_owned());
        }
        let text = if written.contains(request.target()) { "new" } else { "old" };
        let _ = std::io::Write::write_all(connection, response("200 OK", text).as_bytes());
    });
    let proxy = TcpProxy::start(redis.address());
    let routes = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\ncache = { ttl = \"1h\" }\n";
    let store = format!("[store]\nurl = \"{}\"\n", proxy.url());
    let gateway = Gateway::start(&(store + &upstream.table("shop") + routes));
    let mut client = Session::open(gateway.public);
    let first_and_last = ["/0", "/2999"];
    eventually("both are cached", || {
        first_and_last.iter().all(|path| cache_status(&client.get(path).send()).contains("hit"))
    });
    proxy.refuse();
    for number in 0..3000 {
        assert_eq!(client.request("POST", &format!("/{number}")).send().status, 200);
    }
    proxy.pass();
    eventually("the cache is read again", || {
        first_and_last.iter().all(|path| {
            let reply = client.get(path).send();
            assert_eq!(reply.text(), "new", "{path}: {reply:?}");
            cache_status(&reply).contains("hit")
        })
    });
}

/// A hundred requests at once while the store is silent: each is answered, none waits its turn.
#[test]
fn a_silent_store_holds_up_nobody_at_any_concurrency() {
    let (redis, upstream) = (Redis::start(), upstream());
    let proxy = TcpProxy::start(redis.address());
    let store = format!("[store]\nurl = \"{}\"\n", proxy.url());
    let gateway = Arc::new(Gateway::start(&(store + AUTH + &upstream.table("shop") + ROUTES)));
    let bearer = format!("Bearer {}", token(claims("42")));
    eventually("it works", || ask(&gateway, "/auth", &[("Authorization", &bearer)]).status == 200);
    proxy.swallow();
    let statuses = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let reply = ask(&gateway, "/auth", &[("Authorization", &bearer)]);
                statuses.lock().unwrap().push(reply.status);
            });
        }
    });
    assert_eq!(statuses.into_inner().unwrap(), [503; 100]);
    proxy.pass();
    eventually("it works again", || {
        ask(&gateway, "/auth", &[("Authorization", &bearer)]).status == 200
    });
}

/// While the store comes and goes, whatever is answered is right: a revoked token never passes.
#[test]
fn a_revoked_token_never_passes_while_the_store_comes_and_goes() {
    let (redis, upstream) = (Redis::start(), upstream());
    let proxy = TcpProxy::start(redis.address());
    let store = format!("[store]\nurl = \"{}\"\n", proxy.url());
    let gateway = Gateway::start(&(store + AUTH + &upstream.table("shop") + ROUTES));
    let mut revoked = claims("42");
    revoked["jti"] = json!("t1");
    let revoked = token(revoked);
    redis.cli(&["SET", "app:auth:blacklist:t1", "1"]);
    let stop = AtomicBool::new(false);
    let seen = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let reply = Client::get(gateway.public, "/auth").bearer(&revoked).send();
                    seen.lock().unwrap().push(reply.status);
                }
            });
        }
        let count = |status: u16| seen.lock().unwrap().iter().filter(|s| **s == status).count();
        let begin = Instant::now();
        for round in 1..=10 {
            eventually("the store is asked", || count(401) >= round * 3);
            if round % 2 == 0 {
                proxy.refuse()
            } else {
                proxy.hang_up()
            }
            proxy.pass();
            assert!(begin.elapsed() < 10 * PATIENCE);
        }
        stop.store(true, Ordering::SeqCst);
    });
    let odd = seen.into_inner().unwrap().into_iter().find(|status| !matches!(status, 401 | 503));
    assert_eq!(odd, None);
    assert_eq!(upstream.seen(), 0);
}
