//! Cache and limits in a Redis of their own: one round trip to each that is needed, and one that is
//! away takes nothing with it but what it is used for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::auth::code;
use crate::support::{
    AUTH, Client, Folder, Gateway, Redis, Reply, TcpProxy, Upstream, claims, eventually, operate,
    response, run, token,
};

const ROUTES: &str = r#"
[session]
id_from = ["cookie:sid"]
header = "x-session"
[limits.api]
key = ["address"]
allow = ["1000000/1h"]
[auth.machines]
api_keys = true
[routes.plain]
path = "/plain"
upstream = "shop"
[routes.limited]
path = "/limited"
upstream = "shop"
limits = ["api"]
[routes.auth]
path = "/auth"
upstream = "shop"
auth = "users"
[routes.session]
path = "/session"
upstream = "shop"
session = true
[routes.cached]
path = "/cached"
upstream = "shop"
cache = { ttl = "1h" }
[routes.all]
path = "/all/*"
upstream = "shop"
auth = "users"
limits = ["api"]
session = true
cache = { ttl = "1h", shared = true }
[routes.keys]
path = "/keys"
upstream = "shop"
auth = "machines"
limits = ["api"]
"#;

/// How long the stores may take where nothing is about that.
const PATIENT: &str = "timeout = \"5s\"\n";

/// Three servers, one for each use, behind proxies that count.
struct House {
    main: Redis,
    cache: Redis,
    limits: Redis,
    proxies: [TcpProxy; 3],
    upstream: Upstream,
    token: String,
}

impl House {
    fn start() -> Self {
        let version = AtomicU64::new(1);
        let upstream = Upstream::with(move |request, connection| {
            if request.request_line().starts_with("POST") {
                version.fetch_add(1, Ordering::SeqCst);
            }
            let text = version.load(Ordering::SeqCst).to_string();
            let _ = std::io::Write::write_all(connection, response("200 OK", &text).as_bytes());
        });
        let [main, cache, limits] = [(); 3].map(|()| Redis::start());
        main.cli(&["SET", "app:session:s1", "{}"]);
        let proxies = [&main, &cache, &limits].map(|redis| TcpProxy::start(redis.address()));
        Self { main, cache, limits, proxies, upstream, token: token(claims("42")) }
    }

    /// A gateway on all three, with more keys of `[store]`, and of `[store.on_outage]`.
    fn gateway(&self, keys: &str, on_outage: &str) -> Gateway {
        let [main, cache, limits] = [0, 1, 2].map(|at| self.proxies[at].url());
        let stores = format!(
            "[store]\nurl = \"{main}\"\n{keys}[store.cache]\nurl = \"{cache}\"\n\
             [store.limits]\nurl = \"{limits}\"\n[store.on_outage]\n{on_outage}\n"
        );
        Gateway::start(&(stores + AUTH + &self.upstream.table("shop") + ROUTES))
    }

    fn get(&self, gateway: &Gateway, path: &str) -> Reply {
        let request = Client::get(gateway.public, path);
        match path {
            "/cached" => request.send(),
            "/keys" => request.header("X-API-Key", "an-imported-random-key").send(),
            _ => request.bearer(&self.token).header("Cookie", "sid=s1").send(),
        }
    }

    fn is_normal(&self, gateway: &Gateway) -> bool {
        self.upstream.forget();
        let works = |path| self.get(gateway, path).status == 200;
        works("/auth")
            && works("/session")
            && self.upstream.recorded().iter().any(|it| it.header("x-session").is_some())
            && self.is_counted(gateway)
            && self.is_hit(gateway)
    }

    fn is_hit(&self, gateway: &Gateway) -> bool {
        let reply = self.get(gateway, "/cached");
        assert_eq!(reply.status, 200);
        reply.header("cache-status").is_some_and(|verdict| verdict.contains("hit"))
    }

    /// Whether the whole limit is in force, and not this gateway's share.
    fn is_counted(&self, gateway: &Gateway) -> bool {
        let reply = self.get(gateway, "/limited");
        reply.status == 200 && reply.header("x-ratelimit-limit") == Some("1000000")
    }

    fn batches(&self) -> [usize; 3] {
        [0, 1, 2].map(|at| self.proxies[at].batches())
    }
}

fn refuses(reply: &Reply, expected: &str) {
    assert_eq!((reply.status, &*code(reply)), (503, expected), "{}", reply.text());
}

/// Which stores are said to answer: main, cache, limits.
fn up(gateway: &Gateway) -> [bool; 3] {
    let mut agreed = None;
    eventually("metrics and status agree", || {
        agreed = Some(up_by_metrics(gateway)).filter(|up| up_by_status(gateway) == *up);
        agreed.is_some()
    });
    agreed.unwrap()
}

fn up_by_metrics(gateway: &Gateway) -> [bool; 3] {
    let metrics = Client::get(gateway.admin, "/metrics").send().text();
    ["main", "cache", "limits"].map(|usage| {
        let name = format!("portcullis_store_use_up{{store=\"{usage}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).expect("a metric") == "1"
    })
}

fn up_by_status(gateway: &Gateway) -> [bool; 3] {
    let status = operate(gateway, "GET", "/v1/status", "").json();
    let store = &status["store"];
    [store, &store["cache"], &store["limits"]].map(|it| it["connected"] == true)
}

/// The functions of these paths that did without a store.
fn degraded(gateway: &Gateway, route: &str) -> serde_json::Value {
    let lines = gateway.access_lines();
    let last = lines.iter().rfind(|line| line["route"] == route);
    last.map(|line| line["degraded"].clone()).unwrap_or_default()
}

#[test]
fn each_store_has_its_own_keys_and_is_asked_once() {
    let house = House::start();
    let gateway = house.gateway(PATIENT, "");
    eventually("everything works", || house.is_normal(&gateway));
    let all = "/all/1";
    eventually("it is stored", || {
        house.get(&gateway, all).header("cache-status").unwrap().contains("hit")
    });
    for (path, expected) in [
        ("/plain", [0, 0, 0]),
        ("/auth", [1, 0, 0]),
        ("/session", [1, 0, 0]),
        ("/limited", [0, 0, 1]),
        ("/cached", [0, 1, 0]),
        (all, [1, 1, 1]),
    ] {
        house.proxies.iter().for_each(TcpProxy::reset_count);
        for _ in 0..10 {
            assert_eq!(house.get(&gateway, path).status, 200);
        }
        assert_eq!(house.batches(), expected.map(|batches| 10 * batches), "{path}");
    }
    let kinds = |redis: &Redis| {
        let keys = redis.cli(&["KEYS", "*"]);
        let kind = |key: &str| key.split(':').nth(1).unwrap().to_owned();
        let mut kinds: Vec<String> = keys.lines().map(kind).collect();
        kinds.sort();
        kinds.dedup();
        kinds.join(" ")
    };
    eventually("the gateway is counted", || kinds(&house.main) == "gateways nodes session");
    assert_eq!(kinds(&house.limits), "ratelimit");
    assert_eq!(kinds(&house.cache), "cache cache-epoch");
    eventually("all are told of", || up(&gateway) == [true; 3]);
    // What operators do reaches the store that it is about.
    let purged = operate(&gateway, "POST", "/v1/cache/purge", r#"{"all": true}"#);
    assert_eq!(purged.status, 200, "{}", purged.text());
    assert!(!house.is_hit(&gateway));
    let of = "/v1/limits?policy=api&key=address%3D127.0.0.1";
    let reset = operate(&gateway, "DELETE", of, "");
    assert_eq!(reset.status, 200, "{}", reset.text());
    assert_eq!(kinds(&house.limits), "");
}

#[test]
fn limits_without_their_store_take_nothing_with_them() {
    let mut house = House::start();
    let strict = house.gateway("", "limits = \"refuse\"");
    let local = house.gateway("", "nodes = 4");
    let other = house.gateway("", "limits = \"allow\"");
    for gateway in [&strict, &local, &other] {
        eventually("everything works", || house.is_normal(gateway));
    }
    house.limits.kill();
    eventually("it is known", || up(&strict) == [true, true, false]);
    refuses(&house.get(&strict, "/limited"), "limit_unknown");
    // The log names the server and its table, and of what serves only what it is used for.
    let server = house.proxies[2].url()["redis://".len()..].trim_end_matches('/').to_owned();
    eventually("it is said", || strict.stderr().contains("-> open ("));
    let log = strict.stderr();
    let said = log.lines().find(|line| line.contains("-> open (")).expect("a line");
    for part in ["; limits: refuse", &*server, "store.limits"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("session:") && !said.contains("cache:"), "{said}");
    // The other routes go on.
    for gateway in [&strict, &local] {
        assert_eq!(Client::get(gateway.admin, "/readyz").send().status, 200);
    }
    let counted = house.get(&local, "/limited");
    assert_eq!((counted.status, counted.header("x-ratelimit-limit")), (200, Some("250000")));
    eventually("it is told", || degraded(&local, "limited") == serde_json::json!(["limits"]));
    for gateway in [&strict, &local] {
        assert!(house.is_hit(gateway));
        assert_eq!(house.get(gateway, "/auth").status, 200);
        assert_eq!(house.get(gateway, "/session").status, 200);
    }
    // What a write makes stale is stale everywhere when it is answered.
    let path = "/all/w";
    for round in 2..40 {
        eventually("the other has the old one", || {
            house.get(&other, path).header("cache-status").unwrap().contains("hit")
        });
        let write = Client::request(local.public, "POST", path).bearer(&house.token);
        let written = write.header("Cookie", "sid=s1").send();
        assert_eq!((written.status, written.text()), (200, round.to_string()));
        let reply = house.get(&other, path);
        assert_eq!((reply.status, reply.text()), (200, round.to_string()), "{reply:?}");
    }
    house.limits.restart();
    eventually("limits are back", || house.is_counted(&strict) && house.is_counted(&local));
    eventually("it is told", || up(&strict) == [true; 3]);
}

#[test]
fn a_cache_without_its_store_takes_nothing_with_it() {
    let mut house = House::start();
    let gateway = house.gateway("", "limits = \"refuse\"");
    eventually("everything works", || house.is_normal(&gateway));
    house.cache.kill();
    eventually("it is known", || up(&gateway) == [true, false, true]);
    let cached = house.get(&gateway, "/cached");
    assert!(cached.header("cache-status").unwrap().contains("fwd=bypass"), "{cached:?}");
    assert_eq!(Client::request(gateway.public, "POST", "/cached").send().text(), "2");
    assert_eq!(house.get(&gateway, "/cached").text(), "2");
    assert!(house.is_counted(&gateway));
    assert_eq!(house.get(&gateway, "/auth").status, 200);
    assert_eq!(house.get(&gateway, "/session").status, 200);
    assert_eq!(house.get(&gateway, "/all/1").status, 200);
    eventually("it is told", || degraded(&gateway, "all") == serde_json::json!(["cache"]));
    assert_eq!(Client::get(gateway.admin, "/readyz").send().status, 200);
    house.cache.restart();
    eventually("the cache is back", || house.is_hit(&gateway));
    assert_eq!(house.get(&gateway, "/cached").text(), "2");
}

#[test]
fn without_the_main_store_limits_count_and_the_cache_serves() {
    let mut house = House::start();
    let gateway = house.gateway("", "limits = \"refuse\"");
    eventually("everything works", || house.is_normal(&gateway));
    house.main.kill();
    eventually("it is known", || up(&gateway) == [false, true, true]);
    refuses(&house.get(&gateway, "/auth"), "revocation_unknown");
    refuses(&house.get(&gateway, "/session"), "session_unknown");
    assert!(house.is_hit(&gateway) && house.is_counted(&gateway));
    // A request whose caller cannot be told is charged all the same, and what was charged for one
    // that is refused for the outage is given back.
    let left = || {
        let reply = house.get(&gateway, "/limited");
        reply.header("x-ratelimit-remaining").unwrap().parse::<u64>().unwrap()
    };
    let before = left();
    for _ in 0..5 {
        refuses(&house.get(&gateway, "/keys"), "keys_unavailable");
    }
    assert_eq!(left(), before - 6);
    refuses(&house.get(&gateway, "/all/1"), "revocation_unknown");
    let (before, mut looks) = (left(), 0);
    for _ in 0..20 {
        refuses(&house.get(&gateway, "/all/1"), "revocation_unknown");
    }
    eventually("units are given back", || {
        looks += 1;
        left() == before - looks
    });
    house.main.restart();
    house.main.cli(&["SET", "app:session:s1", "{}"]);
    eventually("everything works again", || house.is_normal(&gateway));
}

#[test]
fn a_stopped_store_is_waited_for_as_long_as_its_own_timeout() {
    let house = House::start();
    let [main, cache, limits] = [0, 1, 2].map(|at| house.proxies[at].url());
    let stores = format!(
        "[store]\nurl = \"{main}\"\n{PATIENT}[store.cache]\nurl = \"{cache}\"\n\
         [store.limits]\nurl = \"{limits}\"\ntimeout = \"20ms\"\n"
    );
    let gateway = Gateway::start(&(stores + AUTH + &house.upstream.table("shop") + ROUTES));
    eventually("everything works", || house.is_normal(&gateway));
    house.limits.stop_signal();
    // Far less than the others may take: five in a row, and then nobody waits.
    let begin = tokio::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(house.get(&gateway, "/all/1").status, 200);
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    house.limits.cont_signal();
    eventually("limits are back", || house.is_counted(&gateway));
}

#[test]
fn a_cache_in_memory_beside_limits_in_redis() {
    let house = House::start();
    let [main, limits] = [0, 2].map(|at| house.proxies[at].url());
    let stores = format!(
        "[store]\nurl = \"{main}\"\n{PATIENT}[store.cache]\nurl = \"memory:\"\n\
         [store.limits]\nurl = \"{limits}\"\n"
    );
    let config = stores + AUTH + &house.upstream.table("shop") + ROUTES;
    let gateway = Gateway::start(&config);
    eventually("everything works", || house.is_normal(&gateway));
    assert!(house.main.cli(&["KEYS", "app:cache*"]).is_empty());
    assert!(!house.limits.cli(&["KEYS", "app:ratelimit:*"]).is_empty());
    house.proxies.iter().for_each(TcpProxy::reset_count);
    assert!(house.is_hit(&gateway));
    assert_eq!(house.batches(), [0, 0, 0]);
    let purged = operate(&gateway, "POST", "/v1/cache/purge", r#"{"all": true}"#);
    assert_eq!(purged.status, 200, "{}", purged.text());
    assert!(!house.is_hit(&gateway) && house.is_hit(&gateway));
    let folder = Folder::new();
    folder.write("gateway.toml", config);
    let checked = run(&folder, &["check", "--store"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stderr.contains("store.cache.url: each gateway has a cache of its own"));
    let expected = "store: ok\nstore.cache: memory, nothing to look at\nstore.limits: ok\n";
    assert!(checked.stdout.ends_with(expected), "{}", checked.stdout);
}

/// Gateways without a shared store for the rest find each other where their limits are.
#[test]
fn limits_alone_in_redis_are_shared() {
    let house = House::start();
    let url = house.proxies[2].url();
    let stores = format!("[store.limits]\nurl = \"{url}\"\n{PATIENT}");
    let config = stores + AUTH + &house.upstream.table("shop") + ROUTES;
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    let left = |gateway: &Gateway| {
        let reply = house.get(gateway, "/limited");
        assert_eq!(reply.status, 200);
        reply.header("x-ratelimit-remaining").unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(left(&gateways[0]), left(&gateways[1]) + 1);
    eventually("both are seen", || {
        let metrics = Client::get(gateways[0].admin, "/metrics").send().text();
        metrics.lines().any(|line| line == "portcullis_gateways_seen 2")
    });
    for gateway in &gateways {
        assert!(house.is_hit(gateway) || house.is_hit(gateway));
    }
    assert!(house.limits.cli(&["KEYS", "app:cache*"]).is_empty());
}

#[test]
fn each_store_is_looked_at_and_has_a_user_of_its_own() {
    let mut house = House::start();
    let folder = Folder::new();
    let write = |cache: &str| {
        let (main, cache_url) = (house.main.url(), house.cache.url());
        let limits = house.limits.url();
        let stores = format!(
            "[store]\nurl = \"{main}\"\nusername = \"one\"\npassword = \"p\"\n{PATIENT}\
             [store.cache]\nurl = \"{cache_url}\"\n{cache}[store.limits]\nurl = \"{limits}\"\n"
        );
        folder.write("gateway.toml", stores + AUTH + &house.upstream.table("shop") + ROUTES);
    };
    write("username = \"two\"\npassword = \"q\"\n");
    let user = |more: &[&str], redis: &Redis, password: &str| {
        let printed = run(&folder, &[&["acl"], more].concat());
        assert_eq!(printed.code, Some(0), "{printed:?}");
        let line = printed.stdout.replace("PASSWORD", password);
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(redis.cli(&words), "OK", "{line}");
        line
    };
    let main = user(&[], &house.main, "p");
    let cache = user(&["--for", "cache"], &house.cache, "q");
    assert!(
        main.contains("SETUSER one ") && main.contains("+xadd") && !main.contains("+hrandfield")
    );
    assert!(
        cache.contains("SETUSER two ") && cache.contains("+hrandfield") && !cache.contains("+xadd")
    );
    let checked = run(&folder, &["check", "--store"]);
    assert_eq!(checked.stdout, "ok: 7 routes\nstore: ok\nstore.cache: ok\nstore.limits: ok\n");
    // The user of [store] is not taken to another server.
    write("");
    assert_eq!(run(&folder, &["check", "--store"]).code, Some(0), "the default user");
    house.limits.kill();
    let checked = run(&folder, &["check", "--store"]);
    assert_eq!(checked.code, Some(3));
    assert!(checked.stdout.contains("store.cache: ok\nstore.limits: error: "), "{checked:?}");
    assert!(checked.stdout.contains("can be reached at store.limits.url"), "{checked:?}");
    folder.write("gateway.toml", AUTH.to_owned() + &house.upstream.table("shop") + ROUTES);
    let printed = run(&folder, &["acl", "--for", "cache"]);
    assert_eq!(printed.code, Some(1));
    assert!(printed.stderr.contains("no such table"), "{printed:?}");
}

#[test]
fn where_the_stores_are_cannot_change_while_the_gateway_runs() {
    let house = House::start();
    let gateway = house.gateway("", "limits = \"refuse\"");
    let written = std::fs::read_to_string(gateway.folder().join("gateway.toml")).unwrap();
    let reload = |config: &str| {
        gateway.rewrite(config);
        gateway.signal("HUP");
    };
    let said = |what: &str| gateway.stderr().matches(what).count();
    reload(&written.replace(&house.proxies[1].url(), &house.cache.url()));
    eventually("it is refused", || said("configuration was not reloaded") == 1);
    reload(&written.replace("limits = \"refuse\"", "limits = \"allow\""));
    eventually("it is taken", || said("configuration was reloaded") == 1);
}
