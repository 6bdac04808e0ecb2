//! A stage for the dashboard: its files come from a real gateway, and what the admin API says is
//! written by the test, so that any state can be looked at.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{Chunks, Client, Gateway, Upstream, response};

/// Every page, by its path in the fragment and its letter.
pub(super) const PAGES: [(&str, &str); 11] = [
    ("overview", "o"),
    ("traffic", "t"),
    ("refusals", "r"),
    ("limits", "l"),
    ("cache", "c"),
    ("identity", "i"),
    ("upstreams", "u"),
    ("store", "s"),
    ("queues", "d"),
    ("config", "f"),
    ("audit", "a"),
];

/// A gateway that nobody sends requests.
pub(super) const GATEWAY: &str = "[upstreams.shop]\nservers = [\"http://127.0.0.1:9\"]\n\
                                  [routes.open]\npath = \"/open\"\nupstream = \"shop\"\n";

/// The session that a log-in gives.
const SESSION: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

#[derive(Default)]
struct Script {
    /// Answers by method and path, `GET /v1/me`.
    answers: BTreeMap<String, (u16, Value)>,
    /// Whether requests want the session.
    is_closed: bool,
    /// Whether there is a stream.
    is_silent: bool,
    streams: Vec<TcpStream>,
    /// What was asked of the API.
    asked: Vec<Asked>,
}

/// One request of the page.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    head: String,
    body: Vec<u8>,
}

impl Asked {
    /// Reads one; nothing at the end of the connection, or of the browser.
    fn read(chunks: &mut Chunks) -> Option<Self> {
        let head = chunks.until(b"\r\n\r\n").ok()??;
        let mut asked = Self { head: String::from_utf8(head).ok()?, body: Vec::new() };
        let length = asked.header("content-length").and_then(|length| length.parse().ok());
        asked.body = chunks.exactly(length.unwrap_or(0)).ok()?;
        Some(asked)
    }

    /// A field, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn word(&self, index: usize) -> &str {
        self.head.split(' ').nth(index).unwrap_or_default()
    }

    /// Its path and query.
    pub(super) fn target(&self) -> &str {
        self.word(1)
    }

    /// Its body.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `GET /v1/me`, without the query.
    fn key(&self) -> String {
        let path = self.target().split('?').next().unwrap_or_default();
        format!("{} {path}", self.word(0))
    }
}

/// See the module.
pub(super) struct Stage {
    server: Upstream,
    script: Arc<Mutex<Script>>,
    _gateway: Gateway,
}

impl Stage {
    /// A gateway with some traffic, a finding of each level, and an operator.
    pub(super) fn new() -> Self {
        let gateway = Gateway::start(GATEWAY);
        let script = Arc::new(Mutex::new(Script::default()));
        let (admin, shared) = (gateway.admin, Arc::clone(&script));
        let server = Upstream::raw(move |stream| {
            let mut chunks = Chunks::of(stream);
            while let Some(asked) = Asked::read(&mut chunks) {
                if asked.target().starts_with("/ui/") {
                    pass(admin, &asked, chunks.stream());
                } else {
                    play(&shared, asked, chunks.stream());
                }
            }
        });
        let stage = Self { server, script, _gateway: gateway };
        for (line, answer) in
            answers().into_iter().chain(answers_of_cache()).chain(answers_of_state())
        {
            stage.answer(line, answer);
        }
        stage.answer("POST /v1/login", session());
        stage
    }

    /// The address of a page, or of another fragment.
    pub(super) fn url(&self, fragment: &str) -> String {
        format!("{}/ui/#{fragment}", self.server.url())
    }

    /// What a request is answered from now on.
    pub(super) fn answer(&self, line: &str, answer: Value) {
        self.answer_with(line, 200, answer);
    }

    /// The same with another status.
    pub(super) fn answer_with(&self, line: &str, status: u16, answer: Value) {
        self.script.lock().unwrap().answers.insert(line.to_owned(), (status, answer));
    }

    /// Wants the session of a log-in from now on, or no more.
    pub(super) fn close(&self, is_closed: bool) {
        self.script.lock().unwrap().is_closed = is_closed;
    }

    /// Ends all streams and begins none, or lets them begin again.
    pub(super) fn silence(&self, is_silent: bool) {
        let mut script = self.script.lock().unwrap();
        script.is_silent = is_silent;
        for stream in script.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Sends an event to all streams.
    pub(super) fn send(&self, name: &str, data: &Value) {
        let event = format!("event: {name}\ndata: {data}\n\n");
        for stream in &mut self.script.lock().unwrap().streams {
            let _ = stream.write_all(event.as_bytes());
        }
    }

    /// The requests of this method to this path that came, with their bodies.
    pub(super) fn asked(&self, line: &str) -> Vec<Asked> {
        let script = self.script.lock().unwrap();
        script.asked.iter().filter(|asked| asked.key() == line).cloned().collect()
    }
}

/// A file, as the gateway has it.
fn pass(admin: SocketAddr, asked: &Asked, stream: &mut TcpStream) {
    let file = Client::get(admin, asked.target()).header("Host", admin.to_string()).send();
    let mut head = format!("HTTP/1.1 {} Passed\r\n", file.status);
    for (name, value) in &file.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let _ = stream.write_all((head + "\r\n").as_bytes());
    let _ = stream.write_all(&file.body);
}

fn play(script: &Mutex<Script>, asked: Asked, stream: &mut TcpStream) {
    let mut script = script.lock().unwrap();
    let key = asked.key();
    let known = asked.header("authorization") == Some(&format!("Bearer {SESSION}"));
    script.asked.push(asked);
    if script.is_closed && !known && !key.starts_with("POST /v1/login") {
        return reply(stream, 401, &problem("admin_token_invalid", "Log in."));
    }
    if key == "GET /v1/live" && !script.is_silent {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Cache-Control: no-store\r\nConnection: close\r\n\r\n";
        let hello = format!("event: hello\ndata: {{}}\n\nevent: tick\ndata: {}\n\n", tick(1284.0));
        let _ = stream.write_all((head.to_owned() + &hello).as_bytes());
        script.streams.extend(stream.try_clone());
        return;
    }
    match script.answers.get(&key) {
        Some((status, answer)) => reply(stream, *status, answer),
        None => reply(stream, 404, &problem("not_found", &format!("No {key} is played."))),
    }
}

fn reply(stream: &mut TcpStream, status: u16, answer: &Value) {
    let head = format!("{status} Played\r\nContent-Type: application/json");
    let _ = stream.write_all(response(&head, &answer.to_string()).as_bytes());
}

/// What a log-in is answered.
pub(super) fn session() -> Value {
    json!({ "session": SESSION, "role": "operate", "idle_s": 1800 })
}

/// A refusal of the admin API.
pub(super) fn problem(code: &str, detail: &str) -> Value {
    json!({ "type": format!("urn:portcullis:problem:{code}"), "detail": detail })
}

/// One second in which `products` had so many requests.
pub(super) fn tick(rps: f64) -> Value {
    let numbers = |rps: f64, failing: f64| {
        json!({
            "rps": rps, "error_ratio": failing, "p50_s": 0.0011, "p99_s": 0.038, "hit_ratio": 0.91,
            "refused_ps": 12.0, "s2xx_ps": rps * (0.99 - failing), "s4xx_ps": rps * 0.01,
            "s5xx_ps": rps * failing,
        })
    };
    json!({
        "t": "2026-11-30T03:00:00.000Z",
        "all": numbers(rps + 40.0, 0.002),
        "routes": { "products": numbers(rps, 0.0), "checkout": numbers(40.0, 0.06) },
        "in_flight": 86, "connections": [4120, 10000], "backlog_bytes": [0, 67_108_864],
        "store_p99_s": 0.0378, "store_timeout_s": 0.05,
    })
}

/// A request that was refused by a limit.
pub(super) fn refused(id: u64, path: &str) -> Value {
    json!({
        "id": id, "time": format!("2026-11-30T03:00:{:02}.000Z", id % 60),
        "request_id": format!("{id:032x}"), "client": "203.0.113.9", "method": "POST",
        "host": "shop.example.com", "path": path, "route": "login", "status": 429,
        "reason": "rate_limited", "subject": "42", "limit": "login", "limit_window": "15m",
        "limit_key": "claim:sub=42", "bytes": 312, "duration_ms": 4.2,
        "stages_us": { "auth": 120, "store": 1900, "upstream": 0 },
    })
}

/// A request that an upstream failed.
pub(super) fn failed(id: u64) -> Value {
    json!({
        "id": id, "time": format!("2026-11-30T02:59:{:02}.000Z", id % 60), "method": "GET",
        "request_id": format!("{id:032x}"), "client": "203.0.113.10", "host": "shop.example.com",
        "path": "/checkout/7", "route": "checkout", "status": 502,
        "reason": "upstream_unreachable", "error": "connection refused", "duration_ms": 12.5,
        "stages_us": { "store": 900, "upstream": 11_000 },
    })
}

fn series(step: u64, count: usize) -> Value {
    let wave = |top: f64| -> Vec<f64> {
        (0..count).map(|index| top * (1.0 + 0.1 * (index as f64 / 9.0).sin())).collect()
    };
    json!({
        "step_s": step, "from": "2026-11-30T02:45:00.000Z", "rps": wave(1200.0),
        "p50_s": wave(0.001), "p99_s": wave(0.035), "error_ratio": wave(0.002),
        "hit_ratio": wave(0.9), "refused_ps": wave(12.0),
    })
}

/// What is answered unless a test says otherwise.
fn answers() -> Vec<(&'static str, Value)> {
    let session = json!({ "ends_at": "2026-11-30T15:00:00Z", "idle_s": 1800 });
    let windows = json!([{ "window": "15m", "limit": 5, "used": 5, "remaining": 0 }]);
    vec![
        (
            "GET /v1/me",
            json!({
                "role": "operate", "session": session, "login": "token", "dashboard": "operate",
                "node": "edge-1", "version": "0.2.0",
            }),
        ),
        ("DELETE /v1/login", json!({})),
        ("GET /v1/overview", overview()),
        ("GET /v1/series", series(10, 90)),
        (
            "GET /v1/requests",
            json!({
                "requests": [refused(9, "/login"), failed(8)], "bound": 1000, "sampled": true,
            }),
        ),
        (
            "GET /v1/limits/refused",
            json!({ "refused": [
                { "policy": "login", "window": "15m", "key": "claim:sub=42", "refusals": 118 },
            ] }),
        ),
        (
            "GET /v1/limits/pressed",
            json!({ "bound": 256, "keys": [
                {
                    "policy": "login", "window": "15m", "key": "claim:sub=42", "used": 5,
                    "allowed": 5, "refused_per_minute": 118, "seen": "2026-11-30T03:00:00Z",
                },
                {
                    "policy": "api", "window": "1h", "key": "address=203.0.113.9", "used": 1702,
                    "allowed": 2000, "refused_per_minute": 0, "seen": "2026-11-30T02:59:00Z",
                },
                {
                    "policy": "api", "window": "1h", "key": "session=#0123456789abcdef",
                    "used": 1601, "allowed": 2000, "refused_per_minute": 0,
                    "seen": "2026-11-30T02:59:00Z",
                },
            ] }),
        ),
        ("GET /v1/limits", json!({ "policy": "login", "key": "claim:sub=42", "windows": windows })),
        (
            "DELETE /v1/limits",
            json!({ "policy": "login", "key": "claim:sub=42", "counters_reset": 2 }),
        ),
        (
            "POST /v1/explain",
            json!({
                "route": "login", "caller": "the route is public",
                "limits": [{ "limit": "login", "window": "15m", "remaining": 0 }],
                "outcome": { "passes": false, "status": 429, "code": "rate_limited" },
            }),
        ),
    ]
}

/// The same of the cache.
fn answers_of_cache() -> [(&'static str, Value); 3] {
    [
        ("GET /v1/cache", cache()),
        ("GET /v1/cache/entry", entry("shop.example.com/products/1")),
        (
            "GET /v1/cache/top",
            json!({
                "by": "hits", "since": "2026-11-30T02:59:00.000Z", "bound": 256, "skipped": 0,
                "urls": [{
                    "url": "http://shop.example.com/search?q=…", "route": "search", "hits": 988,
                    "misses": 12, "bytes": 5_120_000, "since": "2026-11-30T02:59:30.000Z",
                }],
            }),
        ),
    ]
}

/// The same of what is not about requests.
fn answers_of_state() -> [(&'static str, Value); 9] {
    [
        ("GET /v1/config", config()),
        ("GET /v1/config/diff", compared()),
        ("GET /v1/operations", operations()),
        ("GET /v1/queues", queues()),
        ("GET /v1/upstreams", upstreams()),
        ("GET /v1/revocations", revocations()),
        ("GET /v1/status", status()),
        ("GET /v1/store", store()),
        ("GET /v1/canary", canaries()),
    ]
}

fn queues() -> Value {
    let queue = |dead: u64, paused: Value| {
        json!({
            "items": {
                "waiting": 1204, "later": 310, "behind": 0, "delivering": 16, "dead": dead,
            },
            "open": 1530, "max_items": 100_000, "bytes": 201_326_592, "max_bytes": 268_435_456,
            "oldest_seconds": 431, "warned": dead > 0, "paused": paused, "concurrency": 16,
            "attempts_here": { "done": 48_112, "retry": 31, "dead": 2, "back": 0, "lost": 0 },
        })
    };
    json!({
        "store": "not_appending",
        "queues": {
            "mail": queue(2, json!({ "why": "upstream_unreachable", "seconds_left": 7 })),
            "events": queue(0, Value::Null),
        },
    })
}

fn cache() -> Value {
    let window = |requests: u64, ratio: f64, level: &str| {
        let hits = (requests as f64 * ratio) as u64;
        json!({ "requests": requests, "hits": hits, "ratio": ratio, "level": level })
    };
    json!({
        "routes": {
            "products": {
                "windows": { "start": window(4120, 0.94, "good") }, "verdicts": { "hit": 3873 },
                "not_kept": { "no_freshness": 14 }, "stored": 233, "mean_ttl_s": 58,
                "sent_bytes": 9_000_000, "hints": [],
            },
            "search": {
                "windows": { "start": window(4120, 0.31, "poor") }, "verdicts": { "miss": 2843 },
                "not_kept": { "no_store": 2790, "private": 3 }, "stored": 50, "mean_ttl_s": 59,
                "sent_bytes": 90_000,
                "hints": [{
                    "reason": "no_store", "setting": null,
                    "what": "2790 were not stored (no_store)",
                    "do": "the upstream forbids it: have it send Cache-Control: s-maxage",
                }],
            },
        },
        "near": { "bytes": 32_505_856, "max": 33_554_432, "evictions": 12, "level": "watch" },
        "hints": [],
        "thresholds": { "requests": 100, "good": 0.9, "watch": 0.5, "near": 0.95 },
    })
}

/// What is stored for a URL.
pub(super) fn entry(url: &str) -> Value {
    json!({
        "url": url, "route": "products", "more": false,
        "variants": [{
            "where": ["near", "store"], "scheme": "http", "url": format!("http://{url}"),
            "upstream": "shop", "status": 200,
            "age_s": 12, "ttl_s": 48, "lifetime_s": 60, "bytes": 5120, "tags": ["product-1"],
            "groups": [], "vary": { "accept-language": "de" }, "valid": true, "why": null,
        }],
    })
}

fn overview() -> Value {
    json!({
        "node": "edge-1", "version": "0.2.0", "up_s": 273_600,
        "config": { "sha256": "9f31", "file_differs": false },
        "findings": [
            {
                "id": "cache_poor_search", "level": "watch", "what": "routes.search: 31 % hits.",
                "why": "2,790 answers were not stored: no_store.", "do": "Set cache.ttl.",
                "page": "traffic",
            },
            {
                "id": "redis_evicts", "level": "poor", "what": "Redis may evict limiter keys.",
                "why": "maxmemory-policy is allkeys-lru.", "do": "Set it to noeviction.",
                "page": "store",
            },
        ],
        "fleet": [
            { "node": "edge-1", "version": "0.2.0", "config": "same" },
            { "node": "edge-2", "version": "0.2.0", "config": "older" },
        ],
    })
}

fn revocations() -> Value {
    let one = |id: &str, kind: &str, what: &str| {
        json!({
            "id": id, "kind": kind, kind: what, "auth": null,
            "revoked_at": "2026-11-30T02:00:00.000Z", "expires_at": "2026-12-30T02:00:00.000Z",
        })
    };
    json!({
        "revocations": [one("#01", "sub", "42"), one("#02", "jti", "2f6a9b")],
        "total": 2, "next": null, "from": "memory", "current": true, "complete": true,
        "bound": 100_000,
    })
}

fn status() -> Value {
    let issuer = |url: &str, age: Option<u32>, failure: Option<&str>| {
        let age = json!(age);
        json!({ "url": url, "keys_age_seconds": age, "failure": failure })
    };
    let node = json!({
        "node": "10.0.0.5:6379", "role": "primary", "rung": "slow",
        "since": "2026-11-30T02:00:00.000Z", "cause": "answers are late",
    });
    let finding = json!({
        "node": "10.0.0.5:6379", "check": "eviction", "fatal": false,
        "seen": "maxmemory-policy is allkeys-lru", "suffers": "limits and epochs may vanish",
        "help": "CONFIG SET maxmemory-policy noeviction",
    });
    json!({
        "issuers": [
            issuer("https://login.example.com/keys", Some(312), None),
            issuer("https://old.example.com/keys", None, Some("connection refused")),
        ],
        "store": { "connected": true, "nodes": [node], "selftest": [finding] },
    })
}

fn store() -> Value {
    json!({
        "kind": "redis", "node": "10.0.0.5:6379", "ping_s": 0.0002, "keys": 4120,
        "topology": { "role": "primary", "replicas": 1 }, "evicted": 3, "clients": 12,
        "memory": { "used": 9_000_000, "max": 10_000_000, "policy": "allkeys-lru" },
        "version": "7.0.15", "not_permitted": ["slowlog|get"],
        "help": "ACL SETUSER operator +slowlog|get",
        "slowlog": [{
            "at": "2026-11-30T02:59:00Z", "took_s": 0.012, "command": "EVALSHA",
            "keys": "limits", "client": "portcullis:edge-1:requests",
        }],
    })
}

fn canaries() -> Value {
    let arm = |upstream: &str, percent: f64, failures: u32| {
        json!({
            "upstream": upstream, "percent": percent, "answers": 1000, "failures": failures,
        })
    };
    json!({ "routes": { "products": {
        "arms": [arm("shop", 90.0, 1), arm("next", 10.0, 0)], "step": 1, "steps": 3,
        "seconds_left": 300, "stopped": null,
    } } })
}

fn upstreams() -> Value {
    let server = |url: &str, state: &str, reasons: &[&str]| {
        json!({
            "server": url, "url": url, "state": state, "reasons": reasons, "seconds_left": 30,
            "busy": 3, "idle": 9, "requests": 1000, "errors": { "connect": 2, "timeout": 0 },
            "ewma_ms": 1.5, "weight": 1, "backup": false, "check": null,
        })
    };
    let upstream = |breaker: &str, servers: &[Value]| {
        json!({
            "breaker": breaker, "panic": false, "connections": [256, 256], "waiting": 4,
            "connections_used": 96, "in_flight": [480, 512], "p99_s": 0.038,
            "can_change": true, "names": [], "servers": servers,
        })
    };
    let taking = server("http://10.0.0.1:3000", "in", &[]);
    let out = server("http://10.0.0.2:3000", "out", &["ejected"]);
    json!({ "upstreams": {
        "shop": upstream("closed", &[taking.clone(), out]),
        "search": upstream("open", &[taking]),
    } })
}

fn config() -> Value {
    json!({
        "path": "/etc/portcullis/gateway.toml", "sha256": "9f31".repeat(16),
        "loaded_at": "2026-11-30T02:00:00.000Z",
        "last_reload": {
            "result": "refused", "at": "2026-11-30T02:30:00.000Z", "needs_restart": [],
            "problems": ["gateway.toml:9:1: routes.a.uspteam: unknown key; help: upstream"],
        },
        "log": { "level": "debug", "configured": "info", "until": "2026-11-30T03:10:00.000Z" },
        "config": {
            "admin": { "token": { "secret": "env:TOKEN" }, "listen": "127.0.0.1:9901" },
            "upstreams": { "shop": { "servers": ["http://10.0.0.1:3000"], "stick": null } },
        },
    })
}

fn compared() -> Value {
    json!({
        "path": "gateway.toml", "running": "9f31", "file": "77aa", "differs": true, "problems": [],
        "needs_restart": ["log"],
        "changes": [{
            "key": "log.level", "change": "changed", "old": "info", "new": "debug",
            "cost": "takes effect with a restart alone; a reload is refused",
        }],
    })
}

fn operations() -> Value {
    json!({ "bound": 512, "operations": [
        {
            "id": 2, "t": "2026-11-30T03:00:00.000Z", "by": "session:#1", "from": "127.0.0.1",
            "operation": "POST /v1/revocations", "object": { "sub": "42" }, "status": 201,
            "result": "done",
        },
        {
            "id": 1, "t": "2026-11-30T02:30:00.000Z", "by": "SIGHUP", "operation": "reload",
            "result": "refused",
        },
    ] })
}
