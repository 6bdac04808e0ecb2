//! Marks that come late: what a write makes stale waits for them, what a reader said is not stored
//! past them, and who has no mark yet is known to have written where he wrote.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Mutex, mpsc};

use portcullis::store::keys::Keys;
use serde_json::json;

use super::{ALL, Service, explained, fleet, get, put, say, told};
use crate::support::{
    Client, Gateway, Recorded, Redis, RedisCluster, Reply, TcpProxy, Upstream, eventually, operate,
};

/// All callers are told from each other by the address that they say they have.
const CACHED: &str = "
[server]
trusted_proxies = [\"127.0.0.1/32\"]
[routes.all]
path = \"/*\"
upstream = \"shop\"
cache = { ttl = \"1h\", shared = true }
";
const ADA: &str = "10.0.0.1";
const BOB: &str = "10.0.0.2";

fn ask(gateway: &Gateway, from: &str, method: &str, path: &str) -> Reply {
    Client::request(gateway.public, method, path).header("X-Forwarded-For", from).send()
}

fn is_hit(reply: &Reply) -> bool {
    reply.header("cache-status").is_some_and(|it| it.contains("; hit"))
}

/// Keys that the gateways may not write or read from then on.
fn allow(redis: &Redis, keys: &[&str]) {
    let rules = [&["ACL", "SETUSER", "default", "resetkeys"], keys].concat();
    assert_eq!(redis.cli(&rules), "OK");
}

/// So often is a write looked at whose order nothing but luck could hide.
const ROUNDS: usize = 30;
/// All, but the marks are only read.
const NO_MARKS: [&str; 2] = ["%R~*", "~app:[^w]*"];

/// Has somebody change a path and leave before he has the answer.
fn write_and_leave(gateway: &Gateway, service: &Service, path: &str) {
    let held = service.written.lock().unwrap();
    let mut client = TcpStream::connect(gateway.public).unwrap();
    let head = format!("PUT {path} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\n\r\n");
    client.write_all(head.as_bytes()).unwrap();
    let is_put = |request: &Recorded| request.request_line().starts_with("PUT ");
    eventually("the write is there", || service.servers.recorded().iter().any(is_put));
    drop(client);
    eventually("its end is known", || {
        gateway.access_lines().iter().any(|line| line["method"] == "PUT")
    });
    drop(held);
    eventually("it is written", || service.written.lock().unwrap().log == 1);
}

/// Two gateways on a cluster, whose readers lag; at the first one somebody has changed a path and
/// left, and the server is away that is to have the mark of all callers.
struct Left {
    gateways: [Gateway; 2],
    cluster: RedisCluster,
    away: usize,
    path: String,
    service: Service,
}

impl Left {
    fn after_a_write() -> Self {
        let (mut cluster, service) = (RedisCluster::start(3), Service::start());
        let away = (cluster.owner("{*}") + 1) % 3;
        let is_away = |key: &str| cluster.owner(key) == away;
        let path = (0..).map(|number| format!("/{number}")).find(|path| {
            !is_away(&format!("{{{path}}}")) && !is_away(&format!("{{shop.test{path}}}"))
        });
        let mut names = (0..).map(|number| format!("shop{number}"));
        let name = names.find(|name| is_away(&Keys::new("app").anybody_wrote(name)));
        let (path, name) = (path.unwrap(), name.unwrap());
        let routes = CACHED.replace("shop", &name);
        let gateways = fleet(&cluster.url(), &(service.table(&name, "stick = \"1h\"") + &routes));
        assert_eq!(ask(&gateways[1], BOB, "GET", &path).text(), "readers 0");
        eventually("it is stored", || is_hit(&ask(&gateways[0], BOB, "GET", &path)));
        cluster.servers[away].kill();
        write_and_leave(&gateways[0], &service, &path);
        Self { gateways, cluster, away, path, service }
    }
}

#[test]
fn what_a_write_makes_stale_waits_for_its_mark() {
    let Left { gateways: [a, b], mut cluster, away, path, service: _service } =
        Left::after_a_write();
    // Whatever waits and may go, goes with this.
    eventually("it does not read its cache", || ask(&a, BOB, "GET", &path).text() == "servers 1");
    let stored = ask(&b, BOB, "GET", &path);
    assert!(is_hit(&stored), "a reader would be asked, and say for an hour: {stored:?}");
    assert_eq!(stored.text(), "readers 0");
    cluster.servers[away].restart();
    eventually("it goes behind the mark", || ask(&b, BOB, "GET", &path).text() == "servers 1");
    eventually("the first one reads its cache again", || is_hit(&ask(&a, BOB, "GET", &path)));
}

#[test]
fn what_a_write_makes_stale_goes_at_the_end_of_the_process_at_last() {
    let Left { gateways: [mut a, b], cluster: _cluster, path, service: _service, .. } =
        Left::after_a_write();
    assert!(is_hit(&ask(&b, BOB, "GET", &path)));
    a.signal("TERM");
    assert!(a.wait().success());
    assert!(!is_hit(&ask(&b, BOB, "GET", &path)));
}

#[test]
fn what_a_write_makes_stale_waits_for_no_mark_that_is_refused() {
    for leaves in [true, false] {
        let (redis, service) = (Redis::start(), Service::start());
        let [a, b] = fleet(&redis.url(), &(service.table("shop", "stick = \"1h\"") + CACHED));
        assert_eq!(ask(&b, BOB, "GET", "/a").text(), "readers 0");
        eventually("it is stored", || is_hit(&ask(&a, BOB, "GET", "/a")));
        allow(&redis, &NO_MARKS);
        if leaves {
            write_and_leave(&a, &service, "/a");
            eventually("it goes", || !is_hit(&ask(&b, BOB, "GET", "/a")));
        }
        let rounds = if leaves { 0..0 } else { 0..ROUNDS };
        for _ in rounds {
            eventually("it is stored", || is_hit(&ask(&b, BOB, "GET", "/a")));
            assert_eq!(ask(&a, ADA, "PUT", "/a").status, 200);
            assert!(!is_hit(&ask(&b, BOB, "GET", "/a")), "before there was an answer");
        }
        eventually("what a reader says is stored", || is_hit(&ask(&b, BOB, "GET", "/a")));
        assert_eq!(ask(&b, BOB, "GET", "/a").text(), "readers 0", "nobody has told it why");
        allow(&redis, &["~*"]);
        let written = service.written.lock().unwrap().log;
        let newest = format!("servers {written}");
        eventually("that goes, too", || ask(&b, BOB, "GET", "/a").text() == newest);
    }
}

/// Waits until the gateway has found out that its main store is away.
fn lost(gateway: &Gateway) {
    let mut asked = 0..;
    eventually("it is away", || {
        // Nothing stored answers.
        ask(gateway, BOB, "GET", &format!("/away/{}", asked.next().unwrap()));
        told(gateway, 1).iter().any(|pool| pool == "unknown")
    });
}

/// A gateway with a store of its own for the cache.
fn apart(main: &str, cache: &str, service: &Service) -> Gateway {
    Gateway::start(&format!(
        "[store]\nurl = \"{main}\"\ntimeout = \"2s\"\n[store.cache]\nurl = \"{cache}\"\n\
         timeout = \"2s\"\n{}{CACHED}",
        service.table("shop", "stick = \"1h\"")
    ))
}

#[test]
fn what_is_made_stale_before_its_mark_is_made_stale_once_more() {
    for leaves in [false, true] {
        let (main, cache, service) = (Redis::start(), Redis::start(), Service::start());
        let proxy = TcpProxy::start(main.address());
        let [a, b] = [proxy.url(), main.url()].map(|url| apart(&url, &cache.url(), &service));
        assert_eq!(ask(&b, BOB, "GET", "/a").text(), "readers 0");
        eventually("it is stored", || is_hit(&ask(&b, BOB, "GET", "/a")));
        proxy.refuse();
        lost(&a);
        if leaves {
            write_and_leave(&a, &service, "/a");
            eventually("it goes", || !is_hit(&ask(&b, BOB, "GET", "/a")));
        } else {
            assert_eq!(ask(&a, ADA, "PUT", "/a").text(), "servers 1");
            assert!(!is_hit(&ask(&b, BOB, "GET", "/a")), "before there was an answer");
        }
        // Nobody has told the other gateway why.
        eventually("what a reader says is stored", || is_hit(&ask(&b, BOB, "GET", "/a")));
        assert_eq!(ask(&b, BOB, "GET", "/a").text(), "readers 0");
        proxy.pass();
        eventually("that goes, too", || ask(&b, BOB, "GET", "/a").text() == "servers 1");
    }
}

#[test]
fn a_purge_is_carried_out_once_more_where_it_was_hard_and_done() {
    let (redis, service) = (Redis::start(), Service::start());
    let [gateway, _] = fleet(&redis.url(), &(service.table("shop", "stick = \"1h\"") + CACHED));
    let purge = |path: &str, soft: bool| {
        let asked = json!({ "url": format!("http://shop.test{path}"), "soft": soft });
        operate(&gateway, "POST", "/v1/cache/purge", &asked.to_string()).status
    };
    let epoch = |path: &str| redis.cli(&["GET", &Keys::new("app").cache_path("shop.test", path)]);
    assert_eq!(purge("/hard", false), 200);
    allow(&redis, &["%R~*"]);
    assert!(purge("/failed", false) >= 500);
    allow(&redis, &NO_MARKS);
    assert_eq!([purge("/soft", true), purge("/hard", false)], [200, 200]);
    let before = ["/soft", "/hard", "/failed"].map(epoch);
    assert_eq!(before[2], "");
    allow(&redis, &["~*"]);
    eventually("the hard one is carried out once more", || epoch("/hard") != before[1]);
    assert_eq!(epoch("/soft"), before[0]);
    assert_eq!(epoch("/failed"), "");
}

#[test]
fn nothing_stored_answers_who_wrote_before_or_while_the_main_store_is_away() {
    for is_before in [true, false] {
        let (main, cache, service) = (Redis::start(), Redis::start(), Service::start());
        let proxy = TcpProxy::start(main.address());
        let gateway = apart(&proxy.url(), &cache.url(), &service);
        assert_eq!(ask(&gateway, BOB, "GET", "/a").text(), "readers 0");
        eventually("it is stored", || is_hit(&ask(&gateway, BOB, "GET", "/a")));
        // It changes `/a` as well, and nobody has told the gateway so.
        let write = |writes: bool| {
            if writes {
                assert_eq!(ask(&gateway, ADA, "PUT", "/b").status, 200);
            }
        };
        write(is_before);
        proxy.refuse();
        lost(&gateway);
        write(!is_before);
        let reply = ask(&gateway, ADA, "GET", "/a");
        assert!(!is_hit(&reply), "{reply:?}");
        assert_eq!(reply.text(), "servers 0");
        assert!(is_hit(&ask(&gateway, BOB, "GET", "/a")), "others are answered as ever");
    }
}

/// A reader that has read, and does not answer before it is let go.
struct Slow {
    readers: Upstream,
    has_read: mpsc::Receiver<()>,
    goes: mpsc::Sender<()>,
}

impl Slow {
    fn start() -> Self {
        let ((reads, has_read), (goes, let_go)) = (mpsc::channel(), mpsc::channel::<()>());
        let (reads, let_go) = (Mutex::new(reads), Mutex::new(let_go));
        let readers = Upstream::with(move |request: &Recorded, stream| {
            reads.lock().unwrap().send(()).unwrap();
            let_go.lock().unwrap().recv().unwrap();
            let _ = stream.write_all(say("readers", request, &<_>::default(), "").as_bytes());
        });
        Self { readers, has_read, goes }
    }
}

#[test]
fn what_a_reader_said_before_somebody_wrote_is_not_stored() {
    // Without a write it is stored, and where nobody knows of one it is not.
    for (written, expected) in [("nothing", true), ("somebody", false), ("unknown", false)] {
        let (redis, service, slow) = (Redis::start(), Service::start(), Slow::start());
        let readers = slow.readers.url();
        let table = service.servers.table("shop");
        let config = format!("{table}readers = [\"{readers}\"]\nstick = \"1h\"\n{CACHED}");
        let [a, b] = fleet(&redis.url(), &config);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&b, BOB, "GET", "/a").text());
            slow.has_read.recv().unwrap();
            match written {
                "somebody" => assert_eq!(ask(&a, ADA, "PUT", "/b").status, 200),
                "unknown" => allow(&redis, &["%W~*", "~app:[^w]*"]),
                _ => {}
            }
            slow.goes.send(()).unwrap();
            assert_eq!(asked.join().unwrap(), "readers 0", "{written}");
        });
        allow(&redis, &["~*"]);
        drop(slow.goes);
        let only_stored = Client::get(b.public, "/a").header("Cache-Control", "only-if-cached");
        let status = only_stored.header("X-Forwarded-For", BOB).send().status;
        assert_eq!(status == 200, expected, "{written}: {status}");
        let counted = Client::get(b.admin, "/metrics").send().text();
        let is_told = counted.contains("reason=\"written\"");
        assert_ne!(is_told, expected, "{written}");
    }
}

#[test]
fn who_wrote_before_a_reload_brought_readers_reads_what_he_wrote() {
    let service = Service::start();
    let shop = |more: &str| service.table("shop", more) + ALL;
    let reload = |gateway: &Gateway, config: &str| {
        gateway.rewrite(config);
        let reloaded = operate(gateway, "POST", "/v1/config/reload", "{}");
        assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    };
    for before in [service.servers.table("shop") + ALL, shop("stick = \"0s\"")] {
        let gateway = Gateway::start(&before);
        let wrote = put(&gateway, "/a").text();
        reload(&gateway, &shop("stick = \"1h\""));
        assert_eq!(get(&gateway, "/a").text(), wrote);
        let why = explained(&gateway, "/a")["pool"]["why"].to_string();
        assert!(why.contains("readers were added, within 1h"), "{why}");
    }
    // Nobody lacks a mark where it is as long as before.
    let gateway = Gateway::start(&shop("stick = \"1h\""));
    reload(
        &gateway,
        &(shop("stick = \"30m\"") + "[routes.other]\npath = \"/b\"\nupstream = \"shop\"\n"),
    );
    assert_eq!(get(&gateway, "/a").text(), "readers 0");
    let cached =
        shop("stick = \"30m\"").replace("[routes.all]", "[routes.all]\ncache = { ttl = \"1h\" }");
    reload(&gateway, &cached);
    assert_eq!(get(&gateway, "/a").header("x-who"), Some("servers"), "no write was anybody's");
}
