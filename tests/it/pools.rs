//! Upstreams with readers: reads go to them, and nobody reads there what is older than what he
//! wrote.

mod cached;
mod failing;
mod marks;

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{
    AUTH, Client, Gateway, Recorded, Redis, RedisCluster, Reply, Session, Upstream, claims,
    eventually, operate, response, token, websocket,
};

/// What is stored, and how long the log of it is.
#[derive(Debug, Clone, Default)]
struct Data {
    values: HashMap<String, u64>,
    log: u64,
}

/// A service: its server knows what was written, and its reader only what it is given. Each says
/// who it is, and what it knows of the path.
struct Service {
    servers: Upstream,
    readers: Upstream,
    written: Arc<Mutex<Data>>,
    copied: Arc<Mutex<Data>>,
}

impl Service {
    fn start() -> Self {
        let (written, copied) = <(Arc<Mutex<Data>>, Arc<Mutex<Data>>)>::default();
        let data = Arc::clone(&written);
        let servers = Upstream::with(move |request, stream| {
            let _ = stream.write_all(serve(request, &mut data.lock().unwrap()).as_bytes());
        });
        let data = Arc::clone(&copied);
        let readers = Upstream::with(move |request, stream| {
            let known = data.lock().unwrap().clone();
            let wanted = request.header("x-min-position").map(|it| it.parse::<u64>().unwrap());
            let answer = if wanted.is_some_and(|wanted| wanted > known.log) {
                response("425 Too Early", "")
            } else {
                say("readers", request, &known, "")
            };
            let _ = stream.write_all(answer.as_bytes());
        });
        Self { servers, readers, written, copied }
    }

    /// The reader has all that was written.
    fn copy(&self) {
        self.copied.lock().unwrap().clone_from(&self.written.lock().unwrap());
    }

    fn table(&self, name: &str, more: &str) -> String {
        let readers = self.readers.url();
        format!("{}readers = [\"{readers}\"]\n{more}\n", self.servers.table(name))
    }
}

/// What the server does: `x-answer` is the status of its answer, and below 500 it has failed.
fn serve(request: &Recorded, data: &mut Data) -> String {
    let line = request.request_line();
    let is_read = ["GET", "HEAD", "OPTIONS"].iter().any(|method| line.starts_with(method));
    let status = request.header("x-answer").unwrap_or("200");
    if status.starts_with('4') {
        return response(&format!("{status} No"), "");
    }
    if !is_read {
        data.log += 1;
        data.values.insert(request.target().to_owned(), data.log);
    }
    if status.starts_with('5') {
        return response(&format!("{status} No"), "");
    }
    say("servers", request, data, &format!("X-Position: {}\r\n", data.log))
}

fn say(who: &str, request: &Recorded, data: &Data, fields: &str) -> String {
    let value = data.values.get(request.target()).copied().unwrap_or_default();
    let body = format!("{who} {value}");
    let length = body.len();
    let body = if request.request_line().starts_with("HEAD ") { "" } else { &body };
    let fields = format!("{fields}X-Who: {who}\r\nCache-Control: max-age=3600\r\n");
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
}

const ALL: &str = "
[routes.all]
path = \"/*\"
upstream = \"shop\"
";

/// Two gateways on one store.
fn fleet(store: &str, config: &str) -> [Gateway; 2] {
    // Deadlines are not the matter here, and the machine may be busy.
    let store = format!("[store]\nurl = \"{store}\"\ntimeout = \"5s\"\n");
    [0, 1].map(|_| Gateway::start(&(store.clone() + config)))
}

fn get(gateway: &Gateway, path: &str) -> Reply {
    Client::get(gateway.public, path).send()
}

fn put(gateway: &Gateway, path: &str) -> Reply {
    Client::request(gateway.public, "PUT", path).send()
}

/// What operators are told of a GET.
fn explained(gateway: &Gateway, path: &str) -> Value {
    let described = json!({ "path": path, "address": "127.0.0.1" });
    operate(gateway, "POST", "/v1/explain", &described.to_string()).json()
}

/// The words for the pool in the log of a gateway, once there are so many lines.
fn told(gateway: &Gateway, lines: usize) -> Vec<String> {
    eventually("all lines are written", || gateway.access_lines().len() >= lines);
    let word = |line: &Value| line["pool"].as_str().unwrap_or("-").to_owned();
    gateway.access_lines().iter().map(word).collect()
}

/// Who writes at one gateway and reads at the other one, many at a time: no answer is older.
fn nothing_is_stale(store: &str, pairs: u64) {
    const CALLERS: u64 = 4;
    let service = Service::start();
    let route = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\n";
    let [a, b] =
        fleet(store, &(AUTH.to_owned() + &service.table("shop", "stick = \"1h\"") + route));
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (a, b) = (&a, &b);
            scope.spawn(move || {
                let (mut at_a, mut at_b) = (Session::open(a.public), Session::open(b.public));
                for pair in 0..pairs / CALLERS {
                    let token = token(claims(&format!("user-{caller}-{pair}")));
                    let path = format!("/{caller}/{pair}");
                    let before = at_b.get(&path).bearer(&token).send().text();
                    assert_eq!(before, "readers 0", "{path}");
                    let wrote = at_a.request("PUT", &path).bearer(&token).send().text();
                    let read = at_b.get(&path).bearer(&token).send().text();
                    assert_eq!(read, wrote, "{path} is stale");
                    assert!(wrote.starts_with("servers "), "{wrote}");
                }
            });
        }
    });
    // Somebody else reads what readers have.
    let other = token(claims("other"));
    assert_eq!(Client::get(b.public, "/0/0").bearer(&other).send().text(), "readers 0");
}

#[test]
fn a_caller_reads_what_it_wrote_at_another_gateway() {
    nothing_is_stale(&Redis::start().url(), 400);
}

#[test]
fn a_redis_cluster_tells_the_other_gateway_as_well() {
    nothing_is_stale(&RedisCluster::start(3).url(), 80);
}

#[test]
fn readers_take_reads_and_nothing_else() {
    let service = Service::start();
    let gateway = Gateway::start(&(service.table("shop", "") + ALL));
    let who = |request: Reply| request.header("x-who").map(str::to_owned);
    let ask = |method: &str| Client::request(gateway.public, method, "/a");
    for (method, expected) in [("GET", "readers"), ("HEAD", "readers"), ("OPTIONS", "servers")] {
        assert_eq!(who(ask(method).send()).as_deref(), Some(expected), "{method}");
    }
    // A body can be sent once.
    assert_eq!(who(ask("GET").body("x").send()).as_deref(), Some("servers"));
    assert_eq!(who(ask("GET").send()).as_deref(), Some("readers"), "nobody has written");
    let told = told(&gateway, 5);
    assert_eq!(told, ["readers", "readers", "write", "write", "readers"]);
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let gateway = Gateway::start(&(service.table("shop", "") + ALL));
        assert_eq!(get(&gateway, "/a").header("x-who"), Some("readers"));
        let wrote = Client::request(gateway.public, method, "/a").send();
        assert_eq!(wrote.header("x-who"), Some("servers"), "{method}");
        assert_eq!(get(&gateway, "/a").header("x-who"), Some("servers"), "behind a {method}");
    }
}

#[test]
fn a_mark_ends_with_its_time() {
    let (redis, service) = (Redis::start(), Service::start());
    let [gateway, _] = fleet(&redis.url(), &(service.table("shop", "stick = \"1m\"") + ALL));
    put(&gateway, "/a");
    let marks = redis.cli(&["KEYS", "app:wrote:*"]);
    assert_eq!(marks.lines().count(), 2, "of an address, and of who has no other name: {marks}");
    for mark in marks.lines() {
        let left: u64 = redis.cli(&["PTTL", mark]).parse().unwrap();
        assert!((50_000..=60_000).contains(&left), "{left}");
    }
    assert_eq!(get(&gateway, "/a").text(), "servers 1");
    // As it ends by itself.
    marks.lines().for_each(|mark| assert_eq!(redis.cli(&["DEL", mark]), "1"));
    assert_eq!(get(&gateway, "/a").text(), "readers 0");
}

#[test]
fn without_stick_nobody_is_asked_and_all_reads_go_to_readers() {
    let (redis, service) = (Redis::start(), Service::start());
    let [gateway, _] = fleet(&redis.url(), &(service.table("shop", "stick = \"0s\"") + ALL));
    put(&gateway, "/a");
    assert_eq!(get(&gateway, "/a").text(), "readers 0");
    assert_eq!(redis.cli(&["KEYS", "app:wrote:*"]), "");
    eventually("lines", || gateway.access_lines().len() == 2);
    assert!(gateway.access_lines().iter().all(|line| line["store_ms"].is_null()));
}

/// A caller of whom one route knows more than another.
#[test]
fn who_writes_is_known_by_all_of_its_names() {
    let service = Service::start();
    let config = format!(
        "{AUTH}{}
        [server]
        trusted_proxies = [\"127.0.0.1/32\"]
        [session]
        id_from = [\"cookie:sid\"]
        [routes.known]
        path = \"/known/*\"
        upstream = \"shop\"
        auth = \"users\"
        [routes.seen]
        path = \"/seen/*\"
        upstream = \"shop\"
        session = true
        [routes.open]
        path = \"/*\"
        upstream = \"shop\"",
        service.table("shop", "stick = \"1h\"")
    );
    let gateway = Gateway::start(&config);
    let ada = token(claims("ada"));
    let bob = token(claims("bob"));
    // Whoever asks comes from an address of his own, so that no write is another one's.
    let request = |method: &str, path: &str, from: &str, token: &str, sid: &str| {
        let mut asked = Client::request(gateway.public, method, path);
        asked = asked.header("X-Forwarded-For", from);
        if !token.is_empty() {
            asked = asked.bearer(token);
        }
        if !sid.is_empty() {
            asked = asked.header("Cookie", format!("sid={sid}"));
        }
        asked.send().header("x-who").map(str::to_owned).unwrap()
    };
    // On each device, and not whoever else is behind the same address.
    assert_eq!(request("PUT", "/known/a", "10.0.0.1", &ada, ""), "servers");
    for (path, from, token, sid, expected) in [
        ("/known/a", "10.0.0.1", &*ada, "", "servers"),
        ("/known/a", "10.9.9.9", &*ada, "", "servers"),
        ("/known/a", "10.0.0.1", &*bob, "", "readers"),
        // On a route that verifies nobody, the address is all there is.
        ("/open", "10.0.0.1", &*ada, "", "servers"),
        ("/seen/a", "10.0.0.1", "", "s1", "servers"),
        ("/open", "10.0.0.2", &*ada, "", "readers"),
    ] {
        assert_eq!(request("GET", path, from, token, sid), expected, "{path} {from} {sid}");
    }
    // A log-in has no token yet, and what comes behind it has.
    assert_eq!(request("POST", "/log-in", "10.1.0.1", "", ""), "servers");
    assert_eq!(request("GET", "/known/a", "10.1.0.1", &bob, ""), "servers");
    assert_eq!(request("GET", "/known/a", "10.1.0.2", &bob, ""), "readers");
    // A session is followed from address to address, and into a new session of the same address.
    assert_eq!(request("POST", "/seen/a", "10.2.0.1", "", "s2"), "servers");
    for (from, sid, expected) in [
        ("10.2.0.2", "s2", "servers"),
        ("10.2.0.1", "s3", "servers"),
        ("10.2.0.1", "", "servers"),
        ("10.2.0.2", "s3", "readers"),
    ] {
        assert_eq!(request("GET", "/seen/a", from, "", sid), expected, "{from} {sid}");
    }
    // All of a subscriber's IPv6 addresses are one.
    assert_eq!(request("POST", "/open", "2001:db8::1", "", ""), "servers");
    assert_eq!(request("GET", "/open", "2001:db8::2", "", ""), "servers");
    assert_eq!(request("GET", "/open", "2001:db8:0:1::1", "", ""), "readers");
}

#[test]
fn a_reader_is_told_how_far_it_must_be() {
    let (redis, service) = (Redis::start(), Service::start());
    let position = "stick = \"1h\"\n\
                    position = { from = \"x-position\", to = \"x-min-position\" }";
    let [a, b] = fleet(&redis.url(), &(service.table("shop", position) + ALL));
    // A client's own means nothing, however it is written.
    for name in ["X-Min-Position", "x_min_position"] {
        let asked = Client::get(a.public, "/a").header(name, "99");
        assert_eq!(asked.send().text(), "readers 0", "{name}");
    }
    let seen = service.readers.recorded();
    assert!(seen.iter().all(|it| !it.names().iter().any(|name| name.contains("min"))));
    service.readers.forget();
    assert_eq!(put(&a, "/a").header("x-position"), Some("1"));
    assert_eq!(put(&a, "/b").header("x-position"), Some("2"));
    // It is behind, and its server says it.
    assert_eq!(get(&b, "/a").text(), "servers 1");
    assert_eq!(service.readers.only().header("x-min-position"), Some("2"));
    let asked = service.servers.recorded().pop().unwrap();
    assert_eq!((asked.target(), asked.header("x-min-position")), ("/a", None));
    service.copy();
    assert_eq!(get(&b, "/a").text(), "readers 1");
    assert_eq!(told(&b, 2), ["behind", "readers"]);
    let told = explained(&b, "/a");
    assert_eq!(told["pool"]["pool"], "readers", "{told}");
    assert!(told["pool"]["why"].as_str().unwrap().contains("x-min-position: 2"), "{told}");
    // A write that says nothing of where it stands: no reader can be asked.
    assert_eq!(Client::request(a.public, "PUT", "/a").header("X-Answer", "500").send().status, 500);
    assert_eq!(get(&b, "/a").text(), "servers 3");
    assert_eq!(explained(&b, "/a")["pool"]["pool"], "servers");
}

#[test]
fn explain_says_which_pool_and_why() {
    let service = Service::start();
    let gateway = Gateway::start(&(service.table("shop", "stick = \"1h\"") + ALL));
    let before = explained(&gateway, "/a");
    assert_eq!(before["pool"]["pool"], "readers", "{before}");
    assert_eq!(before["outcome"]["server"], service.readers.url(), "{before}");
    assert_eq!(before["outcome"]["upstream"], "shop", "{before}");
    put(&gateway, "/a");
    let behind = explained(&gateway, "/a");
    assert_eq!(behind["pool"]["pool"], "servers", "{behind}");
    assert_eq!(behind["outcome"]["server"], service.servers.url(), "{behind}");
    assert!(behind["pool"]["why"].as_str().unwrap().contains("written within 1h"), "{behind}");
    let described = json!({ "path": "/a", "method": "POST" });
    let write = operate(&gateway, "POST", "/v1/explain", &described.to_string()).json();
    assert!(write["pool"]["why"].as_str().unwrap().contains("only GET and HEAD"), "{write}");
    // Readers are an upstream of their own to operators.
    let listed = operate(&gateway, "GET", "/v1/upstreams", "").json();
    let readers = &listed["upstreams"]["shop:readers"]["servers"];
    assert_eq!(readers[0]["server"], service.readers.url(), "{listed}");
}

#[test]
fn a_websocket_goes_to_the_servers() {
    let (servers, _) = websocket::upstream(websocket::echo);
    let readers = Upstream::replying(response("200 OK", "readers"));
    let gateway = Gateway::start(&format!(
        "{}readers = [\"{}\"]
        [routes.all]
        path = \"/*\"
        upstream = \"shop\"
        upgrade = [\"websocket\"]",
        servers.table("shop"),
        readers.url()
    ));
    let mut socket = websocket::WebSocket::open(gateway.public, "/live", "");
    socket.send(0x81, "hello");
    socket.expect(0x81, "hello");
    assert_eq!(get(&gateway, "/live").text(), "readers");
    assert_eq!(readers.seen(), 1, "the read alone");
}

/// A write to one arm of a split route is read by whoever is sent to the other one.
#[test]
fn a_write_counts_for_all_upstreams_of_a_split_route() {
    let (base, next) = (Service::start(), Service::start());
    let gateway = Gateway::start(&format!(
        "[server]
        trusted_proxies = [\"127.0.0.1/32\"]
        {}{}
        [routes.all]
        path = \"/*\"
        split = [{{ upstream = \"base\", weight = 1 }}, {{ upstream = \"next\", weight = 1 }}]",
        base.table("base", "stick = \"1h\""),
        next.table("next", "stick = \"1h\"\nposition = { from = \"x-position\", to = \"x-to\" }"),
    ));
    let ask = |method: &str, arm: &str| {
        let asked = Client::request(gateway.public, method, "/a").header("X-Canary", arm);
        asked.send().header("x-who").map(str::to_owned).unwrap()
    };
    for arm in ["base", "next"] {
        assert_eq!(ask("GET", arm), "readers", "{arm}");
    }
    assert_eq!(ask("PUT", "base"), "servers");
    for arm in ["base", "next"] {
        assert_eq!(ask("GET", arm), "servers", "{arm}");
    }
}
