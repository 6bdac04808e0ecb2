//! How well a server of Redis serves: healthy, slow, open, recovering. What is asked of it on each
//! rung, and that a change of it is told once.

use std::time::Duration;

use portcullis::config::{self, StoreUrl, StoreUse};
use portcullis::store::{Questions, RedisStore, RevocationKeys, Store, StoreError};

use crate::support::{
    Client, Gateway, PATIENCE, Redis, RedisCluster, TcpProxy, Upstream, eventually, response,
};

const LIMITED: &str = r#"
[limits.api]
key = ["address"]
allow = ["1000000/1h"]
[routes.limited]
path = "/limited"
upstream = "shop"
limits = ["api"]
"#;

fn start(store: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let gateway = Gateway::start(&format!("[store]\n{store}\n{}{LIMITED}", upstream.table("shop")));
    (gateway, upstream)
}

fn ask(gateway: &Gateway) -> u16 {
    Client::get(gateway.public, "/limited").send().status
}

/// The changes that the log tells, in their order, without their times.
fn changes(gateway: &Gateway) -> Vec<String> {
    let log = gateway.stderr();
    let changes = log.lines().filter_map(|line| Some(line.split_once("the store: ")?.1.to_owned()));
    changes.map(|line| line.split(')').next().unwrap_or_default().to_owned() + ")").collect()
}

/// The ids of the connections that requests use.
fn connections(redis: &Redis) -> Vec<String> {
    let list = redis.cli(&["CLIENT", "LIST"]);
    let ours = list.lines().filter(|line| line.contains(":requests"));
    let mut ids: Vec<String> =
        ours.map(|line| line.split(' ').next().expect("an id").to_owned()).collect();
    ids.sort();
    ids
}

#[test]
fn a_server_that_answers_probes_too_late_is_not_asked() {
    let redis = Redis::start();
    let (gateway, _upstream) = start(&format!("url = \"{}\"\ntimeout = \"100ms\"", redis.url()));
    eventually("it is asked", || {
        ask(&gateway);
        !redis.cli(&["KEYS", "app:ratelimit:*"]).is_empty()
    });
    // It connects and loads scripts as before, and runs none.
    assert_eq!(redis.cli(&["CLIENT", "PAUSE", "100000000", "WRITE"]), "OK");
    eventually("it is open", || {
        assert_eq!(ask(&gateway), 200);
        changes(&gateway).last().is_some_and(|it| it == "healthy -> open (5 silent answers)")
    });
    let made = || -> usize {
        let stats = redis.cli(&["INFO", "stats"]);
        let made = stats.lines().find_map(|it| it.strip_prefix("total_connections_received:"));
        made.unwrap().trim().parse().unwrap()
    };
    let (before, mut asked) = (made(), 0);
    eventually("its probes go unanswered", || {
        asked += 1;
        assert_eq!(ask(&gateway), 200);
        // One of them is redis-cli's, each time.
        made() >= before + asked + 9
    });
    let told = changes(&gateway);
    let is_back = told.iter().any(|it| it.contains("recovering"));
    assert!(!is_back, "it seems well and is not: {told:?}");
    let opened = told.iter().filter(|it| it.contains("-> open")).count();
    assert_eq!(redis.cli(&["CLIENT", "UNPAUSE"]), "OK");
    eventually("it is asked again", || changes(&gateway).len() > told.len());
    let now = changes(&gateway);
    let is_back = now[told.len()].starts_with("open -> recovering (");
    assert!(is_back && now[told.len()].ends_with(" good probes)"), "{now:?}");
    eventually("it is healthy", || {
        changes(&gateway).iter().any(|it| it.ends_with("-> healthy (2 s without a fault)"))
    });
    let log = gateway.stderr();
    let in_its_place = "; limits: local, revocation: refuse, session: refuse, cache: bypass";
    assert!(log.matches(in_its_place).count() >= opened, "{log}");
}

/// Every server of a cluster is probed with what it does itself: not with a key that another one
/// has, of which it says so at once whatever its state.
#[test]
fn a_server_of_a_cluster_that_answers_no_probe_is_not_asked() {
    let cluster = RedisCluster::start(3);
    let limit = "app:ratelimit:{address=127.0.0.1}";
    let at = cluster.owner(limit);
    let paused = &cluster.servers[at];
    let timeout = "timeout = \"100ms\"";
    let (gateway, _upstream) = start(&format!("url = \"{}\"\n{timeout}", cluster.url()));
    eventually("it is asked", || {
        ask(&gateway);
        !paused.cli(&["KEYS", "app:ratelimit:*"]).is_empty()
    });
    assert_eq!(paused.cli(&["CLIENT", "PAUSE", "100000000", "WRITE"]), "OK");
    let address = format!("server=\"{}\"", paused.address());
    let told = |word: &str| {
        let log = gateway.stderr();
        log.lines().filter(|line| line.contains(word) && line.contains(&address)).count()
    };
    eventually("it is open", || {
        assert_eq!(ask(&gateway), 200);
        told("-> open") == 1
    });
    let greetings = || -> usize {
        let stats = paused.cli(&["INFO", "commandstats"]);
        let calls = stats.lines().find_map(|it| it.strip_prefix("cmdstat_hello:calls="));
        calls.and_then(|it| it.split(',').next()).map_or(0, |it| it.parse().expect("a number"))
    };
    let before = greetings();
    eventually("it is probed", || {
        assert_eq!(ask(&gateway), 200);
        greetings() >= before + 10
    });
    assert_eq!((told("-> recovering"), told("-> open")), (0, 1), "{}", gateway.stderr());
    assert_eq!(paused.cli(&["CLIENT", "UNPAUSE"]), "OK");
    eventually("it is healthy", || told("-> healthy (2 s") == 1);
}

fn store(redis: &TcpProxy, max_in_flight: usize) -> RedisStore {
    let address: std::net::SocketAddr = redis.url()["redis://".len()..].parse().unwrap();
    RedisStore::open(&config::Store {
        url: StoreUrl::Redis { host: address.ip().to_string(), port: address.port(), db: 0 },
        timeout: Duration::from_millis(500),
        connect_timeout: PATIENCE,
        max_in_flight,
        ..config::Store::default()
    })
}

#[test]
fn what_is_too_much_at_a_time_is_not_asked_and_does_not_wait() {
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let redis = store(&proxy, 3);
        assert!(redis.first_connection(PATIENCE).await);
        let store = Store::Redis(Box::new(redis));
        let blacklist = ["app:auth:blacklist:x".to_owned()];
        let ask = async || {
            let revocation =
                Some(RevocationKeys { blacklist: &blacklist, ..RevocationKeys::default() });
            let questions = Questions { revocation, ..Questions::default() };
            store.ask(&questions).await.revocation.expect("an answer").map(|_| ())
        };
        assert_eq!(ask().await, Ok(()));
        proxy.swallow();
        let (a, b, c, d, e) = tokio::join!(ask(), ask(), ask(), ask(), ask());
        let waited = Err(StoreError::Timeout);
        assert_eq!([a, b, c], [waited.clone(), waited.clone(), waited]);
        let shed = Err(StoreError::Unavailable);
        assert_eq!([d, e], [shed.clone(), shed]);
        assert!(store.is_connected(StoreUse::Main), "three misses open nothing");
        let asked = store.state(StoreUse::Main).expect("one of Redis").asked;
        assert_eq!((asked.missed, asked.shed, asked.open, asked.cancelled), (3, 2, 0, 0));
        assert!(asked.answered >= 1);
    });
}

#[test]
fn a_cluster_that_is_down_as_a_whole_keeps_its_connections() {
    let cluster = RedisCluster::start(1);
    let server = &cluster.servers[0];
    assert_eq!(server.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "yes"]), "OK");
    let refuse = "[store.on_outage]\nlimits = \"refuse\"";
    let url = format!("url = \"{}\"\ntimeout = \"5s\"\n{refuse}", cluster.url());
    let (gateway, _upstream) = start(&url);
    eventually("it is asked", || ask(&gateway) == 200);
    let before = connections(server);
    assert_eq!(server.cli(&["CLUSTER", "DELSLOTS", "0"]), "OK");
    eventually("it is open", || {
        ask(&gateway);
        changes(&gateway).last().is_some_and(|it| it == "healthy -> open (CLUSTERDOWN)")
    });
    let asked = || server.cli(&["INFO", "commandstats"]);
    let rejected = |info: &str| {
        let line = info.lines().find(|it| it.starts_with("cmdstat_get:")).map(str::to_owned);
        line.unwrap_or_default()
    };
    let asked_before = rejected(&asked());
    for _ in 0..20 {
        assert_eq!(ask(&gateway), 503);
    }
    assert_eq!(rejected(&asked()), asked_before, "probes are no questions of users");
    assert_eq!(server.cli(&["CLUSTER", "ADDSLOTS", "0"]), "OK");
    eventually("it is asked again", || ask(&gateway) == 200);
    let back = "open -> recovering (3 good probes)".to_owned();
    eventually("that is said", || changes(&gateway).contains(&back));
    let told = changes(&gateway);
    assert_eq!(told.iter().filter(|it| it.contains("-> open")).count(), 1, "{told:?}");
    let after = connections(server);
    assert!(before.iter().all(|id| after.contains(id)), "{before:?} {after:?}");
}

#[test]
fn a_response_names_what_was_judged_without_redis_where_that_is_wanted() {
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let spoof = "HTTP/1.1 200 OK\r\nX-Portcullis-Degraded: all\r\nContent-Length: 0\r\n\r\n";
    let upstream = Upstream::replying(spoof);
    let routes = "[routes.all]\npath = \"/all\"\nupstream = \"shop\"\nlimits = [\"api\"]\n\
                  session = true\n[session]\nid_from = [\"cookie:sid\"]\n";
    let start = |server: &str, on_outage: &str| {
        let store = format!("[store]\nurl = \"{}\"\n[store.on_outage]\n{on_outage}\n", proxy.url());
        Gateway::start(&format!("{server}{store}{}{LIMITED}{routes}", upstream.table("shop")))
    };
    let without = "session = \"without\"";
    let wanted = "[server]\ndegraded_header = true\n";
    let (told, refusing, quiet) = (start(wanted, without), start(wanted, ""), start("", without));
    let get = |gateway: &Gateway| {
        let reply = Client::get(gateway.public, "/all").header("Cookie", "sid=s1").send();
        (reply.status, reply.header("x-portcullis-degraded").map(str::to_owned))
    };
    eventually("all is asked", || get(&told) == (200, None));
    assert_eq!(get(&quiet), (200, Some("all".to_owned())), "the upstream's own field passes");
    proxy.refuse();
    let both = Some("limits, session".to_owned());
    assert_eq!(get(&told), (200, both.clone()));
    assert_eq!(get(&refusing), (503, both));
    assert_eq!(get(&quiet), (200, Some("all".to_owned())));
    proxy.pass();
    eventually("all is asked again", || get(&told) == (200, None));
}
