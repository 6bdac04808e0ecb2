//! Purges of tags and groups while tagged responses are being fetched: their own are not kept, and
//! all others are.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::{Gate, House, ROUTES, asking, is_hit};
use crate::support::{Client, Gateway, Redis, Reply, Session, Upstream, eventually, response};

/// Answers a GET of `/NAME`, once the gate is open, with the tag and the group NAME; a POST
/// withdraws the group of its name at once.
fn tagged(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::with(move |request, connection| {
        let name = request.target().trim_start_matches('/').to_owned();
        let answer = if request.request_line().starts_with("POST") {
            response(&format!("200 OK\r\nCache-Group-Invalidation: \"{name}\""), "")
        } else {
            gate.pass();
            let head = format!("200 OK\r\nSurrogate-Key: a {name}\r\nCache-Groups: \"{name}\"");
            response(&head, &name)
        };
        let _ = connection.write_all(answer.as_bytes());
    })
}

/// A gateway, or two on one Redis, and the gate of their upstream.
struct Fleet {
    upstream: Upstream,
    gate: Gate,
    gateways: Vec<Gateway>,
    redis: Option<Redis>,
}

impl Fleet {
    fn start(store: &str) -> Self {
        let gate = Gate::shut();
        let upstream = tagged(&gate);
        let redis = (store != "memory").then(Redis::start);
        let url = redis.as_ref().map_or("memory:".to_owned(), Redis::url);
        let epochs = if store == "follow" { "follow" } else { "ask" };
        let table = upstream.table("shop");
        let config = format!(
            "[store]\nurl = \"{url}\"\ntimeout = \"5s\"\ncache_wait = \"60s\"\n\
             cache_epochs = \"{epochs}\"\n{table}{ROUTES}"
        );
        let nodes = if redis.is_some() { 2 } else { 1 };
        let gateways = (0..nodes).map(|_| Gateway::start(&config)).collect();
        Self { upstream, gate, gateways, redis }
    }

    fn purge(&self, body: &str) {
        let admin = self.gateways.last().expect("a gateway").admin;
        let request = Client::request(admin, "POST", "/v1/cache/purge");
        let request = request.header("Host", admin.to_string());
        let reply = request.header("Content-Type", "application/json").body(body).send();
        assert_eq!(reply.status, 200, "{body}: {}", reply.text());
    }

    fn write(&self, path: &str) {
        let public = self.gateways.last().expect("a gateway").public;
        let request = Client::request(public, "POST", path).header("Host", "shop.test");
        assert_eq!(request.body("").send().status, 200);
    }

    fn get(&self, gateway: usize, path: &str) -> Reply {
        Client::get(self.gateways[gateway].public, path).header("Host", "shop.test").send()
    }

    /// Fetches `/page`, while `meanwhile` happens; the answer.
    fn fetch(&self, meanwhile: impl FnOnce()) -> Reply {
        self.gate.set(false);
        self.upstream.forget();
        let mut reader = asking(&self.gateways[0], "/page", "");
        eventually("the read arrives", || self.upstream.seen() == 1);
        meanwhile();
        self.gate.open();
        reader.read()
    }

    /// Why responses were not kept.
    fn not_kept(&self, reason: &str) -> bool {
        let metrics = Client::get(self.gateways[0].admin, "/metrics").send().text();
        let name = "portcullis_cache_not_kept_total{";
        metrics.lines().any(|line| {
            line.starts_with(name)
                && line.contains(&format!("reason=\"{reason}\""))
                && !line.ends_with(" 0")
        })
    }
}

const STORES: [&str; 3] = ["memory", "ask", "follow"];

#[test]
fn purges_of_other_tags_leave_what_is_being_fetched() {
    for store in STORES {
        let fleet = Fleet::start(store);
        let reply = fleet.fetch(|| {
            for number in 0..30 {
                fleet.purge(&format!(r#"{{"tag": "other-{number}"}}"#));
                fleet.purge(&format!(r#"{{"tag": "pag", "soft": {}}}"#, number % 2 == 0));
            }
            fleet.purge(r#"{"tag": "PAGE"}"#);
            fleet.purge(r#"{"group": "other", "origin": "http://shop.test"}"#);
            fleet.purge(r#"{"group": "page", "origin": "https://shop.test"}"#);
            fleet.write("/other");
        });
        assert_eq!(reply.text(), "page");
        let status = reply.header("cache-status").unwrap();
        assert!(status.ends_with("; stored"), "{store}: {status}");
        for gateway in 0..fleet.gateways.len() {
            eventually("it is kept", || is_hit(&fleet.get(gateway, "/page")));
        }
        let reads = fleet.upstream.recorded().into_iter();
        let reads = reads.filter(|request| request.request_line().starts_with("GET")).count();
        assert!(reads <= 2, "{store}: {reads} reads");
        assert!(!fleet.not_kept("tags"), "{store}");
    }
}

#[test]
fn a_purge_of_its_own_tag_or_group_ends_what_is_being_fetched() {
    for store in STORES {
        let fleet = Fleet::start(store);
        for own in [
            r#"{"tag": "page"}"#,
            r#"{"tag": "a", "soft": true}"#,
            r#"{"group": "page", "origin": "http://shop.test"}"#,
            "a write",
        ] {
            let reply = fleet.fetch(|| {
                let others = |count| (0..count).for_each(|_| fleet.purge(r#"{"tag": "other"}"#));
                others(3);
                if own == "a write" {
                    fleet.write("/page")
                } else {
                    fleet.purge(own)
                }
                others(30);
            });
            assert_eq!(reply.text(), "page", "it began before the purge");
            let status = reply.header("cache-status").unwrap();
            assert!(!status.contains("stored"), "{store} {own}: {status}");
            fleet.upstream.forget();
            assert!(!is_hit(&fleet.get(0, "/page")), "{store} {own}");
            // What was read after it is kept, until the next round purges it.
            eventually("it is kept again", || is_hit(&fleet.get(0, "/page")));
            fleet.purge(r#"{"url": "http://shop.test/page"}"#);
        }
        assert!(fleet.not_kept("tags"), "{store}");
    }
}

/// Where nobody can tell which tags were purged, nothing is kept: what is lost is found nowhere.
#[test]
fn a_fetch_whose_purges_are_not_known_is_not_kept() {
    let fleet = Fleet::start("ask");
    let redis = fleet.redis.as_ref().expect("a Redis");
    let clock = "app:cache-epoch:{*}tags-clock";
    for (lost, then) in [
        (vec!["DEL", "app:cache-purges:{*}"], r#"{"tag": "other"}"#),
        (vec!["DEL", clock], r#"{"tag": "other"}"#),
        (vec!["SET", "app:cache-purges:{*}", "garbage"], r#"{"host": "other"}"#),
        (vec!["SET", clock, "garbage"], r#"{"tag": "other"}"#),
    ] {
        let reply = fleet.fetch(|| {
            fleet.purge(r#"{"tag": "page"}"#);
            redis.cli(&lost);
            fleet.purge(then);
        });
        assert_eq!(reply.text(), "page");
        fleet.upstream.forget();
        assert!(!is_hit(&fleet.get(0, "/page")), "{lost:?}");
        eventually("it is kept again", || is_hit(&fleet.get(0, "/page")));
        fleet.purge(r#"{"url": "http://shop.test/page"}"#);
    }
}

#[test]
fn a_purge_of_another_tag_does_not_part_those_who_wait() {
    let fleet = Fleet::start("ask");
    let mut others: Vec<Session> = Vec::new();
    let reply = fleet.fetch(|| {
        for number in 0..20 {
            fleet.purge(r#"{"tag": "other"}"#);
            others.push(asking(&fleet.gateways[number % 2], "/page", ""));
        }
    });
    assert_eq!(reply.text(), "page");
    for other in &mut others {
        assert_eq!(other.read().text(), "page");
    }
    assert_eq!(fleet.upstream.seen(), 1, "all of them ask the upstream once");
}

/// Things that are changed behind the gateways' backs and purged by their tag then, with purges of
/// other tags all the while. No read that begins after a purge was answered sees what was there
/// before, and tagged responses are hits all the same.
#[test]
fn thousands_of_reads_and_purges_by_tag_see_nothing_stale() {
    const THINGS: usize = 3;
    static VERSIONS: [AtomicU64; THINGS] = [const { AtomicU64::new(0) }; THINGS];
    let upstream = Upstream::with(move |request, connection| {
        let name = request.target().trim_start_matches('/').to_owned();
        let thing: usize = name.parse().expect("a number");
        let text = VERSIONS[thing].load(Ordering::SeqCst).to_string();
        std::thread::yield_now();
        let head = format!("200 OK\r\nCache-Tag: thing {name}");
        let _ = connection.write_all(response(&head, &text).as_bytes());
    });
    let house = House::start(upstream);
    let purge = |gateway: usize, tag: &str| {
        let admin = house.gateways[gateway].admin;
        let request = Client::request(admin, "POST", "/v1/cache/purge");
        let request = request.header("Host", admin.to_string());
        let body = format!(r#"{{"tag": "{tag}"}}"#);
        let reply = request.header("Content-Type", "application/json").body(body).send();
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    let (hits, reads, is_over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let purged: [AtomicU64; THINGS] = Default::default();
    let changing = Mutex::new(());
    let reader = |seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut sessions = [0, 1].map(|n| Session::open(house.gateways[n].public));
        for _ in 0..700 {
            let thing = random.usize(0..THINGS);
            if random.usize(0..40) == 0 {
                let _one = changing.lock().unwrap();
                let version = VERSIONS[thing].fetch_add(1, Ordering::SeqCst) + 1;
                purge(random.usize(0..2), &format!("thing {thing}"));
                purged[thing].fetch_max(version, Ordering::SeqCst);
                continue;
            }
            let oldest = purged[thing].load(Ordering::SeqCst);
            let request = sessions[random.usize(0..2)].get(&format!("/{thing}"));
            let reply = request.header("Host", "shop.test").send();
            let version: u64 = reply.text().parse().expect("a version");
            assert!(version >= oldest, "{version} after the purge of {oldest}: {reply:?}");
            reads.fetch_add(1, Ordering::SeqCst);
            hits.fetch_add(usize::from(is_hit(&reply)), Ordering::SeqCst);
        }
    };
    let (reader, is_over) = (&reader, &is_over);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                purge(0, "another");
            }
        });
        let readers: Vec<_> = (0..6).map(|seed| scope.spawn(move || reader(seed))).collect();
        let ended: Vec<_> = readers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::SeqCst);
        others.join().expect("the purges of another tag");
        ended.into_iter().for_each(|ended| ended.expect("no read is stale"));
    });
    let (reads, hits) = (reads.into_inner(), hits.into_inner());
    assert!(hits > reads / 10, "{hits} hits of {reads}: the cache was hardly used");
}
