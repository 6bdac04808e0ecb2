//! A gateway on Redis under Sentinel: it follows the primary, whoever tells of it, and believes
//! nobody who says what was or what is not.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::time::Instant;

use crate::support::{
    AUTH, Authority, Client, Folder, Gateway, Redis, RedisSentinels, TLS_NAMES, Upstream, WATCHED,
    claims, eventually, operate, response, run, sentinel, token, watch,
};

/// A route whose every request is counted, and refused where that cannot be.
const COUNTED: &str = r#"
[store.on_outage]
limits = "refuse"
[limits.user]
key = ["header:x-user"]
allow = ["1000000/1h"]
[routes.all]
path = "/*"
upstream = "shop"
limits = ["user"]
"#;

fn upstream() -> Upstream {
    Upstream::replying(response("200 OK", "hello"))
}

fn start(url: &str, upstream: &Upstream, more: &str) -> Gateway {
    // Deadlines are not the matter here, and the machine may be busy.
    let store = format!("[store]\nurl = \"{url}\"\ntimeout = \"2s\"\nconnect_timeout = \"2s\"\n");
    Gateway::start(&(store + more + &upstream.table("shop")))
}

fn ask(gateway: &Gateway) -> u16 {
    Client::get(gateway.public, "/").header("X-User", "u").send().status
}

fn serves(gateway: &Gateway) {
    eventually("requests are counted", || ask(gateway) == 200);
}

fn says(gateway: &Gateway, what: &str) {
    eventually(&format!("it says {what:?}"), || gateway.stderr().contains(what));
}

/// What this server has of the gateway's connections, by their purposes.
fn connections(server: &Redis) -> Vec<String> {
    let list = server.look(&["CLIENT", "LIST"]);
    let names = list.lines().filter_map(|line| line.split(" name=portcullis:").nth(1));
    let purpose = |name: &str| name.split(' ').next()?.rsplit(':').next().map(str::to_owned);
    let mut purposes: Vec<String> = names.filter_map(purpose).collect();
    purposes.sort();
    purposes.dedup();
    purposes
}

/// Requests without end, until `story` is over: how many of them got another answer than 200.
fn under_requests(gateway: &Gateway, story: impl FnOnce(&dyn Fn())) -> usize {
    let (is_over, asked, failed) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // A story that fails ends the requests too.
        let _end = Ends(&is_over);
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let status = ask(gateway);
                    assert!(matches!(status, 200 | 503), "{status}");
                    failed.fetch_add(usize::from(status != 200), Ordering::SeqCst);
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let more = || {
            let before = asked.load(Ordering::SeqCst);
            eventually("requests go on", || asked.load(Ordering::SeqCst) > before + 30);
        };
        more();
        story(&more);
        more();
    });
    failed.load(Ordering::SeqCst)
}

/// Sets it when dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn everything_moves_to_who_follows_the_dead() {
    let (mut redis, upstream) = (RedisSentinels::start(), upstream());
    let routes = r#"
        cache_epochs = "follow"
        [store.on_outage]
        revocation_max_stale = "1m"
        [limits.user]
        key = ["claim:sub"]
        allow = ["3/1h"]
        [routes.api]
        path = "/api"
        upstream = "shop"
        auth = "users"
        limits = ["user"]
        [routes.list]
        path = "/list"
        upstream = "shop"
        auth = "users"
        cache = { ttl = "1h", shared = true }
    "#;
    let gateway = start(&redis.url(), &upstream, &(routes.to_owned() + AUTH));
    // Made once: a later one is not revoked.
    let tokens = ["ada", "eve", "bob", "dan"].map(|user| (user, token(claims(user))));
    let bearer = |user: &str| &tokens.iter().find(|(known, _)| *known == user).expect("a token").1;
    let api = |user: &str| Client::get(gateway.public, "/api").bearer(bearer(user)).send().status;
    let revoke = |user: &str| {
        let body = format!("{{\"sub\":\"{user}\"}}");
        operate(&gateway, "POST", "/v1/revocations", &body).status
    };
    assert_eq!((api("ada"), api("ada")), (200, 200));
    assert_eq!((revoke("eve"), api("eve")), (201, 401));
    let all = ["epochs", "requests", "revocations"];
    eventually("all are connected", || connections(&redis.servers[0]) == all);
    eventually("the replicas know all", || {
        let replicas = redis.servers[1..].iter();
        replicas.map(|it| it.cli(&["DBSIZE"])).all(|size| size == redis.servers[0].cli(&["DBSIZE"]))
    });
    redis.servers[0].kill();
    let successor = &redis.servers[redis.successor(0)];
    eventually("all are connected", || connections(successor) == all);
    assert_eq!((api("ada"), api("ada")), (200, 429), "what was counted before counts");
    assert_eq!(api("eve"), 401, "what was revoked stays revoked");
    assert_eq!((revoke("dan"), api("dan")), (201, 401));
    let list = || Client::get(gateway.public, "/list").bearer(bearer("bob")).send();
    let cached = |expected: &str| {
        let status = list().header("cache-status").expect("Cache-Status").to_owned();
        status.contains(expected)
    };
    eventually("responses are stored", || cached("hit"));
}

#[test]
fn requests_fail_no_longer_than_nobody_is_the_primary() {
    let (mut redis, upstream) = (RedisSentinels::start(), upstream());
    let gateway = start(&redis.url(), &upstream, COUNTED);
    serves(&gateway);
    redis.servers[0].kill();
    redis.wait_for_promotion();
    serves(&gateway);
    let successor = redis.successor(0);
    assert_eq!(ask(&gateway), 200, "and so when all sentinels know");
    assert_eq!(connections(&redis.servers[successor]), ["requests"]);
}

#[test]
fn a_planned_fail_over_costs_no_request() {
    let (redis, upstream) = (RedisSentinels::start(), upstream());
    let gateway = start(&redis.url(), &upstream, COUNTED);
    serves(&gateway);
    let failed = under_requests(&gateway, |more| {
        let ordered = redis.sentinels[0].cli(&["SENTINEL", "FAILOVER", WATCHED]);
        assert_eq!(ordered, "OK");
        let successor = redis.successor(0);
        eventually("it is asked", || connections(&redis.servers[successor]) == ["requests"]);
        more();
        eventually("the former one is left", || connections(&redis.servers[0]).is_empty());
    });
    assert_eq!(failed, 0);
    let said = gateway.stderr();
    assert!(!said.contains("-> open ("), "{said}");
}

#[test]
fn who_was_the_primary_and_comes_back_is_not_asked() {
    let (redis, upstream) = (RedisSentinels::start(), upstream());
    let gateway = start(&redis.url(), &upstream, COUNTED);
    serves(&gateway);
    redis.servers[0].stop_signal();
    let successor = redis.successor(0);
    serves(&gateway);
    redis.servers[0].cont_signal();
    let later = start(&redis.url(), &upstream, COUNTED);
    for gateway in [&gateway, &later] {
        assert_eq!(ask(gateway), 200);
    }
    eventually("nobody is connected to it", || connections(&redis.servers[0]).is_empty());
    for _ in 0..30 {
        assert_eq!((ask(&gateway), ask(&later)), (200, 200));
    }
    assert_eq!(connections(&redis.servers[0]), [""; 0]);
    assert_eq!(connections(&redis.servers[successor]), ["requests"]);
}

#[test]
fn a_primary_that_says_it_is_a_replica_is_left() {
    let (redis, upstream) = (RedisSentinels::start_small(), upstream());
    let gateway = start(&redis.url(), &upstream, COUNTED);
    serves(&gateway);
    let other = Redis::start();
    let port = other.address().port().to_string();
    // Without a fail-over, while nobody asks, and though it takes what is written.
    let writable = ["CONFIG", "SET", "replica-read-only", "no"];
    assert_eq!(redis.servers[0].cli(&writable), "OK");
    assert_eq!(redis.servers[0].cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    says(&gateway, "-> open (");
    assert_eq!(ask(&gateway), 503);
    assert_eq!(redis.servers[0].cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    serves(&gateway);
}

#[test]
fn without_sentinels_the_primary_stays() {
    let (mut redis, upstream) = (RedisSentinels::start(), upstream());
    let gateway = start(&redis.url(), &upstream, COUNTED);
    serves(&gateway);
    let said = |what: &str| gateway.stderr().matches(what).count();
    let failed = under_requests(&gateway, |more| {
        redis.sentinels[0].kill();
        says(&gateway, "a sentinel does not say");
        assert_eq!(said("most sentinels do not say"), 0, "the two others do");
        redis.sentinels[1..].iter_mut().for_each(Redis::kill);
        says(&gateway, "most sentinels do not say");
        more();
        assert_eq!(said("a sentinel does not say"), 1, "and of the others only that most do not");
        redis.sentinels.iter_mut().for_each(Redis::restart);
        says(&gateway, "most sentinels say where");
    });
    assert_eq!(failed, 0);
    assert_eq!((said("most sentinels do not say"), said("most sentinels say where")), (1, 1));
    redis.servers[0].kill();
    redis.successor(0);
    serves(&gateway);
}

#[test]
fn without_any_primary_it_is_as_without_redis() {
    let upstream = upstream();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("redis-sentinel://{closed}/{WATCHED}");
    let gateway = start(&url, &upstream, COUNTED);
    assert_eq!(ask(&gateway), 503);
    says(&gateway, "most sentinels do not say where the primary is");
    drop(gateway);

    let redis = Redis::start();
    let mut late = sentinel(&redis, 1, &[]);
    late.kill();
    let gateway =
        start(&format!("redis-sentinel://{}/{WATCHED}", late.address()), &upstream, COUNTED);
    assert_eq!(ask(&gateway), 503);
    late.restart();
    serves(&gateway);
    // One that does not watch this name.
    let other = format!("redis-sentinel://{}/other", late.address());
    says(&start(&other, &upstream, COUNTED), "No such master");
}

/// Something that answers as `answer` says to each command, and counts who connects.
pub(crate) fn impostor(answer: impl Fn(&[String]) -> Vec<u8> + Send + Sync + 'static) -> Impostor {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let connected = Arc::new(AtomicUsize::new(0));
    let (count, answer) = (Arc::clone(&connected), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve(&stream, &*answer));
        }
    });
    Impostor { address, connected }
}

pub(crate) struct Impostor {
    pub(crate) address: SocketAddr,
    connected: Arc<AtomicUsize>,
}

fn serve(stream: &TcpStream, answer: &dyn Fn(&[String]) -> Vec<u8>) -> Option<()> {
    let mut from = BufReader::new(stream);
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        let words: usize = line.trim().strip_prefix('*')?.parse().ok()?;
        let mut command = Vec::new();
        for _ in 0..words {
            line.clear();
            from.read_line(&mut line).ok()?;
            let mut bytes = vec![0; line.trim().strip_prefix('$')?.parse::<usize>().ok()? + 2];
            from.read_exact(&mut bytes).ok()?;
            bytes.truncate(bytes.len() - 2);
            command.push(String::from_utf8_lossy(&bytes).to_uppercase());
        }
        let mut to: &TcpStream = stream;
        to.write_all(&answer(&command)).ok()?;
    }
}

#[test]
fn a_promotion_is_followed_before_most_sentinels_know() {
    let (former, promoted, upstream) = (Redis::start(), Redis::start(), upstream());
    let [from, to] = [&former, &promoted].map(|it| it.address().port());
    let event = format!("slave 127.0.0.1:{to} 127.0.0.1 {to} @ {WATCHED} 127.0.0.1 {from}");
    let words = ["message", "+promoted-slave", &event];
    let push: String = words.iter().map(|it| format!("${}\r\n{it}\r\n", it.len())).collect();
    let (is_promoted, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (tell, count) = (Arc::clone(&is_promoted), Arc::clone(&asked));
    let says_former = sentinel_saying(from, 5);
    // It goes on saying where the primary was.
    let sentinel = impostor(move |command| {
        let is_asked = command.get(1).is_some_and(|word| word == "MASTER");
        count.fetch_add(usize::from(is_asked), Ordering::SeqCst);
        let mut answer = says_former(command);
        // Whoever asks: the gateway looks at its sentinels on other connections too.
        if is_asked && tell.load(Ordering::SeqCst) {
            answer.splice(0..0, format!(">3\r\n{push}").into_bytes());
        }
        answer
    });
    let url = format!("redis-sentinel://{}/{WATCHED}", sentinel.address);
    let gateway = start(&url, &upstream, COUNTED);
    serves(&gateway);
    // It is lost, and comes back as if nothing had happened.
    assert_eq!(former.cli(&["REPLICAOF", "127.0.0.1", &to.to_string()]), "OK");
    says(&gateway, "-> open (");
    is_promoted.store(true, Ordering::SeqCst);
    serves(&gateway);
    is_promoted.store(false, Ordering::SeqCst);
    assert_eq!(former.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    let before = asked.load(Ordering::SeqCst);
    eventually("it asks on", || asked.load(Ordering::SeqCst) >= before + 4);
    assert_eq!((ask(&gateway), connections(&promoted)), (200, vec!["requests".to_owned()]));
    assert_eq!(gateway.stderr().matches("sentinels know the primary").count(), 2);
}

#[test]
fn every_connection_moves_from_a_former_primary_that_lives() {
    let (former, next, upstream) = (Redis::start(), Redis::start(), upstream());
    let is_over = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&is_over);
    let says_former = sentinel_saying(former.address().port(), 5);
    let says_next = sentinel_saying(next.address().port(), 6);
    let sentinel = impostor(move |command| match tell.load(Ordering::SeqCst) {
        false => says_former(command),
        true => says_next(command),
    });
    let url = format!("redis-sentinel://{}/{WATCHED}", sentinel.address);
    let followers = r#"
        revocation_max_stale = "1m"
        [routes.list]
        path = "/list"
        upstream = "shop"
        auth = "users"
        cache = { ttl = "1h", shared = true }
        [limits.user]"#;
    let more = COUNTED.replace("[limits.user]", followers);
    let gateway = start(&url, &upstream, &format!("cache_epochs = \"follow\"{more}{AUTH}"));
    let all = ["epochs", "requests", "revocations"];
    eventually("all are connected", || connections(&former) == all);
    let failed = under_requests(&gateway, |more| {
        is_over.store(true, Ordering::SeqCst);
        eventually("all move", || connections(&next) == all);
        more();
        eventually("the former one is left", || connections(&former).is_empty());
    });
    assert_eq!(failed, 0);
}

/// What a sentinel answers that says this of the primary.
pub(crate) fn sentinel_saying(port: u16, epoch: u64) -> impl Fn(&[String]) -> Vec<u8> {
    let fields = format!("ip 127.0.0.1 port {port} config-epoch {epoch}");
    let words: Vec<String> =
        fields.split(' ').map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    let primary = format!("*{}\r\n{}", words.len(), words.concat());
    move |command| {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let answer = match *words {
            ["HELLO", ..] => "*0\r\n",
            ["SUBSCRIBE", ..] => "",
            ["PING", ..] => "+PONG\r\n",
            ["SENTINEL", "MASTER", ..] => &primary,
            _ => "*0\r\n",
        };
        answer.as_bytes().to_vec()
    }
}

#[test]
fn who_lies_or_makes_no_sense_is_not_believed() {
    let began = Instant::now();
    let (mut redis, upstream) = (RedisSentinels::start(), upstream());
    let replica = redis.servers[1].address().port();
    let liar = impostor(sentinel_saying(replica, 1_000_000));
    let babbler = impostor(|_| b"what is it?\r\n".to_vec());
    let mute = impostor(|_| Vec::new());
    let giant = impostor(|_| b"$99999999999\r\n".to_vec());
    let odd = [&liar, &babbler, &mute, &giant];
    let all: String = odd.iter().map(|it| format!("{},", it.address)).collect();
    let url = redis.url().replace("redis-sentinel://", &format!("redis-sentinel://{all}"));
    let gateway = start(&url, &upstream, COUNTED);
    serves(&gateway);
    let failed = under_requests(&gateway, |more| more());
    assert_eq!(failed, 0);
    assert_eq!(connections(&redis.servers[0]), ["requests"]);
    redis.servers[0].kill();
    redis.successor(0);
    serves(&gateway);
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    for it in odd {
        let connected = it.connected.load(Ordering::SeqCst);
        assert!(connected <= 10 + 2 * seconds, "{connected} connections in {seconds} s");
    }
}

#[test]
fn one_that_was_away_is_outvoted() {
    let upstream = upstream();
    let (current, former) = (Redis::start(), Redis::start());
    let saying = |server: &Redis, epoch| impostor(sentinel_saying(server.address().port(), epoch));
    let (stale, one, another) = (saying(&former, 4), saying(&current, 5), saying(&current, 5));
    let all = [&stale, &one, &another].map(|it| it.address.to_string()).join(",");
    let gateway = start(&format!("redis-sentinel://{all}/{WATCHED}"), &upstream, COUNTED);
    serves(&gateway);
    assert_eq!(connections(&current), ["requests"]);
    assert_eq!(connections(&former), [""; 0]);
    // Nor is one believed that claims to know of a later fail-over.
    let liar = saying(&former, 1_000_000);
    let all = [&liar, &one, &another].map(|it| it.address.to_string()).join(",");
    let gateway = start(&format!("redis-sentinel://{all}/{WATCHED}"), &upstream, COUNTED);
    serves(&gateway);
    assert_eq!(connections(&former), [""; 0]);
}

#[test]
fn of_two_sentinels_alone_the_newer_one_is_right() {
    let upstream = upstream();
    let (current, former) = (Redis::start(), Redis::start());
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, looked_at) = (Arc::clone(&asked), Arc::clone(&asked));
    let says_former = sentinel_saying(former.address().port(), 4);
    let says_current = sentinel_saying(current.address().port(), 5);
    let stale = impostor(move |command| {
        count.fetch_add(1, Ordering::SeqCst);
        says_former(command)
    });
    // It answers after the other one was heard: that is when it is asked for the second time.
    let newer = impostor(move |command| {
        if command[0] == "SENTINEL" {
            eventually("the other one is heard", || looked_at.load(Ordering::SeqCst) > 9);
        }
        says_current(command)
    });
    let config = format!(
        "[store]\nurl = \"redis-sentinel://{},{}/{WATCHED}\"\nconnect_timeout = \"10s\"\n\
         timeout = \"2s\"\n{COUNTED}{}",
        stale.address,
        newer.address,
        upstream.table("shop")
    );
    let gateway = Gateway::start(&config);
    serves(&gateway);
    assert_eq!(connections(&former), [""; 0]);
    let former = format!("server={}", former.address());
    assert!(!gateway.stderr().contains(&former), "{}", gateway.stderr());
}

#[test]
fn sentinels_have_a_user_and_certificates_of_their_own() {
    let authority = Authority::new();
    let (redis, upstream) = (Redis::start(), upstream());
    let folder = Folder::new();
    watch(&folder, &redis, 1);
    let certificate = authority.certificate(&TLS_NAMES);
    let sentinel = Redis::start_sentinel_with_tls(folder, &certificate, &authority);
    let folder = Folder::new();
    folder.write("ca.pem", authority.pem());
    folder.write("gateway.toml", format!("{COUNTED}{}", upstream.table("shop")));
    let printed = run(&folder, &["acl", "--sentinel", "--user", "watcher"]);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    let command = printed.stdout.replace("PASSWORD", "correct-horse");
    let words: Vec<&str> = command.split_whitespace().collect();
    assert_eq!(sentinel.cli(&words), "OK", "{command}");
    assert_eq!(sentinel.cli(&["ACL", "SETUSER", "default", "-subscribe", "-sentinel"]), "OK");

    let config = |password: &str| {
        format!(
            "[store]\nurl = \"redis-sentinel://localhost:{}/{WATCHED}\"\ntimeout = \"5s\"\n\
             connect_timeout = \"5s\"\n\
             [store.sentinel]\nusername = \"watcher\"\npassword = \"{password}\"\n\
             [store.sentinel.tls]\nca_file = \"ca.pem\"\n{COUNTED}{}",
            sentinel.tls_port(),
            upstream.table("shop")
        )
    };
    folder.write("gateway.toml", config("correct-horse"));
    let checked = run(&folder, &["check", "--store"]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    let gateway = Gateway::start_in(folder, &config("correct-horse"));
    serves(&gateway);
    let log = sentinel.cli(&["ACL", "LOG"]);
    assert!(!log.contains("watcher"), "rights are missing: {log}");

    let folder = Folder::new();
    folder.write("ca.pem", authority.pem());
    folder.write("gateway.toml", config("wrong"));
    let checked = run(&folder, &["check", "--store"]);
    assert_eq!(checked.code, Some(3), "{}{}", checked.stdout, checked.stderr);
    assert!(checked.stdout.contains("WRONGPASS"), "{}", checked.stdout);
}

#[test]
fn the_example_of_the_page_works() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redis.md"));
    let page = page.expect("docs/redis.md");
    let example = page.split("```").find(|block| block.contains("url = \"redis-sentinel://"));
    let example = example.and_then(|block| block.strip_prefix("toml\n")).expect("an example");
    let url = example.lines().find(|line| line.starts_with("url")).expect("a url");
    let (redis, upstream) = (RedisSentinels::start_small(), upstream());
    let own = format!("url = \"{}\"", redis.url());
    assert!(url.ends_with(&format!("/{WATCHED}\"")), "{url}");
    let config = example.replace(url, &own) + COUNTED + &upstream.table("shop");
    serves(&Gateway::start(&config));
}

#[test]
fn check_looks_at_sentinels_too() {
    let small = RedisSentinels::start_small();
    let upstream = upstream();
    let check = |url: &str| {
        let folder = Folder::new();
        let config = format!("[store]\nurl = \"{url}\"\n{COUNTED}{}", upstream.table("shop"));
        folder.write("gateway.toml", config);
        run(&folder, &["check", "--store"])
    };
    let ran = check(&small.url());
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    for words in ["there are 1 sentinels", "names one sentinel", "store: ok"] {
        assert!(ran.stdout.contains(words), "{words}: {}", ran.stdout);
    }
    let ran = check(&small.url().replace(WATCHED, "other"));
    assert_eq!(ran.code, Some(3), "{}{}", ran.stdout, ran.stderr);
    for words in ["No such master", "no sentinel of store.url says"] {
        assert!(ran.stdout.contains(words), "{words}: {}", ran.stdout);
    }
    let ran = check(&format!("redis://{}", small.sentinels[0].address()));
    assert!(ran.stdout.contains("redis-sentinel://"), "{}", ran.stdout);
}

#[test]
fn a_replica_without_the_user_is_named_before_it_is_promoted() {
    let (redis, upstream) = (RedisSentinels::start(), upstream());
    let user = ["ACL", "SETUSER", "gateway", "on", ">correct-horse", "~*", "&*", "+@all"];
    assert_eq!(redis.servers[0].cli(&user), "OK");
    let folder = Folder::new();
    let own = "username = \"gateway\"\npassword = \"correct-horse\"\nconnect_timeout = \"5s\"\n";
    let store = format!("[store]\nurl = \"{}\"\n{own}", redis.url());
    folder.write("gateway.toml", store + COUNTED + &upstream.table("shop"));
    let check = || run(&folder, &["check", "--store"]);
    let at = |server: &Redis| format!("    at: {}\n", server.address());
    let ran = check();
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("a replica that may be promoted: "), "{}", ran.stdout);
    assert!(ran.stdout.contains("Redis copies no users to replicas"), "{}", ran.stdout);
    for replica in &redis.servers[1..] {
        assert!(ran.stdout.contains(&at(replica)), "{}", ran.stdout);
    }
    let doctor = run(&folder, &["doctor"]).stdout;
    let refused = |server: &Redis| format!("({})", server.address());
    let lines: Vec<&str> = doctor.lines().filter(|line| line.contains("WRONGPASS")).collect();
    assert_eq!(lines.len(), 2, "{doctor}");
    assert!(lines.iter().all(|line| line.starts_with("✖ poor")), "{doctor}");
    for replica in &redis.servers[1..] {
        assert!(lines.iter().any(|line| line.contains(&refused(replica))), "{doctor}");
        assert_eq!(replica.cli(&user), "OK");
    }
    let ran = check();
    assert!(!ran.stdout.contains("WRONGPASS"), "{}", ran.stdout);
    // The primary is named as well.
    assert_eq!(redis.servers[0].cli(&["ACL", "SETUSER", "gateway", "resetpass", ">other"]), "OK");
    let ran = check();
    assert_eq!(ran.code, Some(3), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains(&at(&redis.servers[0])), "{}", ran.stdout);
}

#[test]
fn a_changed_password_for_sentinels_is_tried_before_it_is_needed() {
    let (redis, upstream) = (RedisSentinels::start_small(), upstream());
    let user = |words: &[&str]| {
        let command = [&["ACL", "SETUSER", "gateway", "on"], words].concat();
        assert_eq!(redis.sentinels[0].cli(&command), "OK");
    };
    user(&["+@all", "~*", "&*", ">former-horse"]);
    let folder = Folder::new();
    folder.write("password", "former-horse");
    let own = "[store.sentinel]\nusername = \"gateway\"\npassword = \"file:password\"\n";
    let store = format!("[store]\nurl = \"{}\"\n{own}", redis.url());
    let gateway = Gateway::start_in(folder, &(store + COUNTED + &upstream.table("shop")));
    serves(&gateway);
    std::fs::write(gateway.folder().join("password"), "next-horse").unwrap();
    gateway.signal("HUP");
    says(&gateway, "the changed files of [store.sentinel] are not used");
    user(&[">next-horse"]);
    gateway.signal("HUP");
    says(&gateway, "the changed files of [store.sentinel] are used");
    assert!(!gateway.stderr().contains("horse"), "no password is told");
}
