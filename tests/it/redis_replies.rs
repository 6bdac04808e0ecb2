//! Replies that Redis never sends, through a proxy that is broken, and values that nobody should
//! have written: what they cost is bounded, nobody gets what is another one's, and service is
//! normal again by itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::support::{
    AUTH, Client, Gateway, Redis, Reply, Session, Upstream, claims, eventually, response, token,
};

/// Most memory that a gateway may have taken at any time, in KiB: several times what it needs, and
/// a fraction of what it was sent.
const MEMORY_KIB_MAX: u64 = 400 * 1024;

const CONFIG: &str = r#"
[session]
id_from = ["cookie:sid"]
header = "x-session"
idle_timeout = "30m"
[limits.api]
key = ["header:x-user"]
allow = ["1000000/1h"]
[routes.session]
path = "/session"
upstream = "shop"
session = "required"
[routes.auth]
path = "/auth"
upstream = "shop"
auth = "users"
[routes.limited]
path = "/limited"
upstream = "shop"
limits = ["api"]
[routes.cached]
path = "/cached/*"
upstream = "shop"
cache = { ttl = "1h" }
"#;

/// What becomes of one reply.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Lost,
    Doubled,
    /// The one behind it comes first.
    Overtaken,
}

/// A proxy in front of Redis that says something of its own in between.
struct Meddler {
    address: SocketAddr,
    /// What is said before the next reply, once.
    extra: Arc<Mutex<Option<Vec<u8>>>>,
    /// What becomes of the next whole reply, once.
    fate: Arc<Mutex<Option<Fate>>>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Meddler {
    fn start(redis: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let meddler =
            Self { address, extra: Arc::default(), fate: Arc::default(), streams: Arc::default() };
        let (extra, streams) = (Arc::clone(&meddler.extra), Arc::clone(&meddler.streams));
        let fate = Arc::clone(&meddler.fate);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(redis) else { continue };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                streams.lock().unwrap().push(client.try_clone().unwrap());
                std::thread::spawn(move || pump(from, to, || None, std::mem::take));
                let (extra, fate) = (Arc::clone(&extra), Arc::clone(&fate));
                std::thread::spawn(move || {
                    let extra = move || extra.lock().unwrap().take();
                    pump(server, client, extra, move |bytes| meddle(bytes, &fate));
                });
            }
        });
        meddler
    }

    fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Says this before the next reply.
    fn before_next(&self, bytes: &[u8]) {
        *self.extra.lock().unwrap() = Some(bytes.to_vec());
    }

    /// Says this now, on every connection.
    fn now(&self, bytes: &[u8]) {
        for stream in self.streams.lock().unwrap().iter_mut() {
            let _ = stream.write_all(bytes);
        }
    }

    fn was_said(&self) -> bool {
        self.extra.lock().unwrap().is_none()
    }
}

/// How long the first reply is, if all of it is there.
fn reply_bytes(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|end| end == b"\r\n")? + 2;
    let count = std::str::from_utf8(&bytes[1..line - 2]).unwrap_or_default();
    let count = count.parse::<i64>().unwrap_or(0).max(-1);
    let elements = match bytes[0] {
        b'$' | b'=' | b'!' if count < 0 => 0,
        b'$' | b'=' | b'!' => {
            let whole = line + usize::try_from(count).unwrap() + 2;
            return (bytes.len() >= whole).then_some(whole);
        }
        b'*' | b'~' | b'>' => count,
        b'%' => 2 * count,
        _ => 0,
    };
    (0..elements).try_fold(line, |at, _| Some(at + reply_bytes(&bytes[at..])?))
}

/// Takes what is to be said now out of what was heard: one reply has its fate, the others pass.
fn meddle(bytes: &mut Vec<u8>, fate: &Mutex<Option<Fate>>) -> Vec<u8> {
    let mut fate = fate.lock().unwrap();
    let Some(known) = *fate else { return std::mem::take(bytes) };
    let Some(first) = reply_bytes(bytes) else { return Vec::new() };
    let (said, used) = match known {
        Fate::Lost => (Vec::new(), first),
        Fate::Doubled => (bytes[..first].repeat(2), first),
        Fate::Overtaken => match reply_bytes(&bytes[first..]) {
            Some(second) => {
                ([&bytes[first..first + second], &bytes[..first]].concat(), first + second)
            }
            None => return Vec::new(),
        },
    };
    *fate = None;
    bytes.drain(..used);
    [said, std::mem::take(bytes)].concat()
}

fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    extra: impl Fn() -> Option<Vec<u8>>,
    meddle: impl Fn(&mut Vec<u8>) -> Vec<u8>,
) {
    let mut buffer = [0; 64 * 1024];
    let mut heard = Vec::new();
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let said = extra().is_none_or(|extra| to.write_all(&extra).is_ok());
        heard.extend_from_slice(&buffer[..count]);
        if !said || to.write_all(&meddle(&mut heard)).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

struct House {
    redis: Redis,
    meddler: Meddler,
    upstream: Upstream,
    gateway: Gateway,
    bearer: String,
}

impl House {
    fn start() -> Self {
        let redis = Redis::start();
        let upstream = Upstream::replying(response("200 OK", "hello"));
        let meddler = Meddler::start(redis.address());
        // Nothing here is about deadlines, and the machine may be busy.
        let store = format!("[store]\nurl = \"{}\"\ntimeout = \"2s\"\n", meddler.url());
        let gateway = Gateway::start(&(store + AUTH + &upstream.table("shop") + CONFIG));
        for sid in ["ada", "bob"] {
            redis.cli(&["SET", &format!("app:session:{sid}"), &format!("{{\"of\":\"{sid}\"}}")]);
        }
        let bearer = token(claims("42"));
        let house = Self { redis, meddler, upstream, gateway, bearer };
        house.works();
        house
    }

    fn session(&self, sid: &str) -> Reply {
        let request = Client::get(self.gateway.public, "/session").header("X-Of", sid);
        request.header("Cookie", format!("sid={sid}")).send()
    }

    fn auth(&self) -> u16 {
        Client::get(self.gateway.public, "/auth").bearer(&self.bearer).send().status
    }

    fn works(&self) {
        eventually("service is normal", || {
            let limited = Client::get(self.gateway.public, "/limited").send();
            let is_shared = limited.header("x-ratelimit-limit").is_some();
            self.session("ada").status == 200 && self.auth() == 200 && is_shared
        });
    }

    /// Every session that ever reached the upstream was that of who asked.
    fn assert_own_sessions(&self) {
        for request in self.upstream.recorded() {
            let (Some(of), Some(session)) = (request.header("x-of"), request.header("x-session"))
            else {
                continue;
            };
            let session = URL_SAFE_NO_PAD.decode(session).expect("base64url");
            assert_eq!(String::from_utf8_lossy(&session), format!("{{\"of\":\"{of}\"}}"));
        }
    }

    fn memory_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.gateway.pid());
        let status = std::fs::read_to_string(path).expect("the status of a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches("kB").trim().parse().expect("a number")
    }
}

/// Strays of every type that the gateway reads, and of those that it never does.
const STRAYS: [&str; 14] = [
    "+OK\r\n",
    "+PONG\r\n",
    ":0\r\n",
    ":1\r\n",
    "$3\r\nfoo\r\n",
    "$14\r\n{\"of\":\"eve\"}  \r\n",
    "$-1\r\n",
    "*-1\r\n",
    "*0\r\n",
    "*2\r\n$1\r\na\r\n:5\r\n",
    "_\r\n",
    "%1\r\n+a\r\n:1\r\n",
    "-ERR stray\r\n",
    "#f\r\n",
];

#[test]
fn a_stray_reply_gives_nobody_what_is_anothers() {
    let house = House::start();
    for stray in STRAYS {
        house.meddler.before_next(stray.as_bytes());
        let ask = |sid: &'static str| {
            let house = &house;
            move || {
                let mut session = Session::open(house.gateway.public);
                for _ in 0..8 {
                    let request = session.get("/session").header("X-Of", sid);
                    let reply = request.header("Cookie", format!("sid={sid}")).send();
                    assert!(matches!(reply.status, 200 | 503), "{stray:?}: {reply:?}");
                }
            }
        };
        std::thread::scope(|scope| {
            for sid in ["ada", "bob", "ada", "bob"] {
                scope.spawn(ask(sid));
            }
        });
        assert!(house.meddler.was_said(), "{stray:?}");
        house.works();
    }
    house.assert_own_sessions();
    assert!(house.gateway.stderr().contains("what is no reply to what was asked"));
}

/// In the middle of what many ask at the same time, on one connection.
#[test]
fn a_reply_that_is_lost_doubled_or_overtaken_gives_nobody_what_is_anothers() {
    let house = House::start();
    for fate in [Fate::Lost, Fate::Doubled, Fate::Overtaken].repeat(3) {
        let ask = |sid: &'static str| {
            let house = &house;
            move || {
                let mut session = Session::open(house.gateway.public);
                for turn in 0..12 {
                    if turn == 6 && sid == "ada" {
                        *house.meddler.fate.lock().unwrap() = Some(fate);
                    }
                    let request = session.get("/session").header("X-Of", sid);
                    let reply = request.header("Cookie", format!("sid={sid}")).send();
                    assert!(matches!(reply.status, 200 | 503), "{fate:?}: {reply:?}");
                }
            }
        };
        std::thread::scope(|scope| {
            for sid in ["ada", "bob", "bob", "bob", "bob"] {
                scope.spawn(ask(sid));
            }
        });
        eventually("the reply has had its fate", || {
            house.session("bob");
            house.meddler.fate.lock().unwrap().is_none()
        });
        house.works();
    }
    house.assert_own_sessions();
}

#[test]
fn a_reply_to_nothing_ends_the_connection() {
    let house = House::start();
    let connections = || {
        let info = house.redis.cli(&["INFO", "stats"]);
        let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        line.and_then(|count| count.trim().parse::<u64>().ok()).expect("a number")
    };
    for stray in ["+OK\r\n", ":1\r\n", "$3\r\nfoo\r\n", "*-1\r\n", "HTTP/1.1 400 Bad\r\n\r\n"] {
        let before = connections();
        house.meddler.now(stray.as_bytes());
        // Each look makes one connection of its own.
        let mut looks = 0;
        eventually("the connections are replaced", || {
            looks += 1;
            connections() > before + looks
        });
        house.works();
    }
    house.assert_own_sessions();
}

#[test]
fn what_is_too_long_or_no_reply_at_all_costs_no_memory() {
    let house = House::start();
    let nested = "*1\r\n".repeat(1_000_000);
    let lengths = ["$900000000\r\n", "*900000000\r\n", "%900000000\r\n", "=900000000\r\n"];
    let endless = "+".to_owned() + &"x".repeat(64 << 20);
    let body = "$500000000\r\n".to_owned() + &"x".repeat(64 << 20);
    let garbage = "\0".repeat(1 << 20);
    let all = lengths.into_iter().chain([&*nested, &endless, &body, &garbage]);
    for reply in all {
        house.meddler.before_next(reply.as_bytes());
        let status = house.session("ada").status;
        let shown = &reply[..reply.len().min(20)];
        assert!(matches!(status, 200 | 503), "{shown:?}: {status}");
        eventually("it was said", || {
            house.session("bob");
            house.meddler.was_said()
        });
        house.works();
    }
    house.assert_own_sessions();
    let memory = house.memory_kib();
    assert!(memory < MEMORY_KIB_MAX, "{memory} KiB");
    assert!(house.gateway.stderr().contains("store.reply_bytes"), "{}", house.gateway.stderr());
}

#[test]
fn a_giant_value_costs_neither_memory_nor_others() {
    let house = House::start();
    let giant = |key: &str| {
        assert_eq!(house.redis.cli(&["SETRANGE", key, "100000000", "x"]), "100000001", "{key}");
    };
    giant("app:auth:not-before:giant");
    giant("app:auth:blacklist:giant");
    giant("app:session:giant");
    // Beside a session, whether it is there or not.
    let beside = "redis.call('HSET', KEYS[1], 'ends', string.rep('x', 30000000)) return 'written'";
    for id in ["giant", "gone", "ada"] {
        let key = format!("app:session-end:{{app:session:{id}}}");
        assert_eq!(house.redis.cli(&["EVAL", beside, "1", &key]), "written");
    }
    let before = house.memory_kib();
    let mut giant = claims("giant");
    for _ in 0..5 {
        let reply = Client::get(house.gateway.public, "/auth").bearer(token(giant.clone())).send();
        assert_eq!(reply.status, 503, "the time is not readable");
        assert_eq!(house.auth(), 200, "that is nothing to others");
        assert_ne!(house.session("giant").status, 200);
        assert_eq!(house.session("gone").status, 401, "it is not there");
        assert_eq!(house.session("ada").status, 200);
    }
    giant["sub"] = "42".into();
    giant["jti"] = "giant".into();
    let revoked = Client::get(house.gateway.public, "/auth").bearer(token(giant.clone())).send();
    assert_eq!(revoked.status, 401, "whatever the key holds");
    let more = house.memory_kib().saturating_sub(before);
    assert!(more < 64 * 1024, "{more} KiB more than before");
}

#[test]
fn a_not_before_time_is_read_whole_or_not_at_all() {
    let house = House::start();
    let far = "99999999999";
    for (value, status) in [
        (far.to_owned(), 401),
        (format!("  {far}\n"), 401),
        ("1".to_owned(), 200),
        (String::new(), 200),
        (format!("1{}", " ".repeat(40)), 503),
        (format!("1{}{far}", " ".repeat(31)), 503),
        ("soon".to_owned(), 503),
    ] {
        house.redis.cli(&["SET", "app:auth:not-before:42", &value]);
        assert_eq!(house.auth(), status, "{value:?}");
    }
}
