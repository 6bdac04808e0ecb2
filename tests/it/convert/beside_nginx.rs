//! A real nginx and a gateway with the converted configuration, before the same upstreams: the same
//! requests get the same answers, and the upstreams see the same.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;

use super::nginx::{Nginx, free_port};
use super::{convert, example};
use crate::support::websocket::{WebSocket, echo, upstream};
use crate::support::{CertificateAuthority, Client, Folder, Gateway, Reply, TlsClient, Upstream};

/// What upstreams must see alike, be it there or not.
const SEEN: [&str; 4] = ["host", "x-api-version", "cookie", "x-stage"];
/// What they must see alike where nginx was told to send it.
const TOLD: [&str; 2] = ["x-forwarded-for", "x-forwarded-proto"];
/// What clients must see alike.
const ANSWERED: [&str; 3] = ["x-frame-options", "x-powered-by", "content-type"];

/// Both, and what is behind them.
struct Stage {
    nginx: Nginx,
    gateway: Gateway,
    upstreams: Vec<Upstream>,
    authority: CertificateAuthority,
}

/// An answer and what of its request an upstream saw.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    status: u16,
    location: Option<String>,
    /// Nothing where nginx wrote a page of its own.
    body: Option<String>,
    answered: BTreeMap<&'static str, String>,
    seen: Vec<(String, BTreeMap<&'static str, String>)>,
}

impl Stage {
    fn of(file: &str) -> Self {
        let upstreams: Vec<Upstream> = (0..3).map(|_| telling()).collect();
        let mut text = std::fs::read_to_string(example("nginx", file)).unwrap();
        for (number, upstream) in upstreams.iter().enumerate() {
            let address = upstream.address().to_string();
            text = text.replace(&format!("127.0.0.1:{}", 3000 + number), &address);
        }
        let authority = CertificateAuthority::new();
        let [of_nginx, of_gateway] = [stocked(&authority), stocked(&authority)];
        of_gateway.write(file, &text);
        let converted = convert(&of_gateway, "nginx", file).stdout;
        let converted = converted
            .replace("\"[::]:80\"", "\"127.0.0.1:0\"")
            .replace("0.0.0.0:80", "127.0.0.1:0")
            .replace("0.0.0.0:443", &format!("127.0.0.1:{}", free_port()))
            .replace("127.0.0.1:9901", "127.0.0.1:0");
        let gateway = Gateway::start_in(of_gateway, &converted);
        let nginx = Nginx::start(of_nginx, &text);
        Self { nginx, gateway, upstreams, authority }
    }

    /// Sends each of these lines to both: a method, a host, a path, and fields as `name=value`.
    fn compare(&self, lines: &[&str]) {
        let mut differ = Vec::new();
        for line in lines {
            let [a, b] = [self.nginx.clear, self.gateway.public].map(|it| self.ask(it, line));
            if !is_alike(&a, &b) {
                differ.push(format!("{line}\n  nginx:   {a:?}\n  gateway: {b:?}"));
            }
        }
        assert!(differ.is_empty(), "{} of {}:\n{}", differ.len(), lines.len(), differ.join("\n"));
    }

    fn ask(&self, address: SocketAddr, line: &str) -> Outcome {
        let mut words = line.split_whitespace();
        let [method, host, path] = [0; 3].map(|_| words.next().expect("a word"));
        let mut request = Client::request(address, method, path).header("Host", host);
        for word in words {
            let (name, value) = word.split_once('=').expect("a field");
            request = match name {
                "body" => request.body("x".repeat(value.parse().expect("a length"))),
                _ => request.header(name, value),
            };
        }
        self.upstreams.iter().for_each(Upstream::forget);
        let reply = request.send();
        self.outcome(host, &reply)
    }

    fn outcome(&self, host: &str, reply: &Reply) -> Outcome {
        let text = reply.text();
        let location = reply.header("location").map(|location| {
            let whole = if location.starts_with('/') {
                format!("http://{host}{location}")
            } else {
                location.to_owned()
            };
            without_port(&whole)
        });
        let field = |name: &'static str| Some((name, reply.header(name)?.to_owned()));
        let from_upstream = text.starts_with("saw ");
        let answered = ANSWERED.into_iter().filter_map(field).filter(|_| from_upstream).collect();
        let seen = self.upstreams.iter().flat_map(Upstream::recorded).map(|request| {
            let names = SEEN.into_iter().chain(TOLD);
            let field = |name: &'static str| Some((name, request.header(name)?.to_owned()));
            (request.target().to_owned(), names.filter_map(field).collect())
        });
        let is_page = text.contains("<center>nginx");
        let body = (!is_page && reply.status < 400 || from_upstream).then_some(text);
        Outcome { status: reply.status, location, body, answered, seen: seen.collect() }
    }
}

fn stocked(authority: &CertificateAuthority) -> Folder {
    let folder = Folder::new();
    let pair = authority.issue(&["shop.example.com", "www.shop.example.com"]);
    folder.write("site.pem", &pair.cert);
    folder.write("site.key", &pair.key);
    folder.write("mime.types", "types { text/html html; }");
    folder
}

/// An upstream that answers what it was asked for.
fn telling() -> Upstream {
    Upstream::lenient(|request, stream| {
        // nginx speaks HTTP/1.0 where it is not told otherwise.
        let line = request.request_line().rsplit_once(' ').map_or("", |it| it.0);
        let body = format!("saw {line}");
        let shown = if body.starts_with("saw HEAD") { "" } else { &body };
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Powered-By: tests\r\n\
             Content-Length: {}\r\n\r\n{shown}",
            body.len()
        );
    })
}

/// A URL without the port of its host.
fn without_port(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    format!("{scheme}://{}{path}", host.split(':').next().unwrap_or_default())
}

/// Whether a gateway answered as nginx did.
fn is_alike(nginx: &Outcome, gateway: &Outcome) -> bool {
    let same_body = nginx.body.is_none() || nginx.body == gateway.body;
    let same_seen = nginx.seen.len() == gateway.seen.len()
        && nginx.seen.iter().zip(&gateway.seen).all(|((path, fields), (other, others))| {
            let same = |name: &&'static str| fields.get(*name) == others.get(*name);
            let told = TOLD.iter().filter(|name| fields.contains_key(**name));
            path == other && SEEN.iter().chain(told).all(same)
        });
    nginx.status == gateway.status
        && nginx.location == gateway.location
        && nginx.answered == gateway.answered
        && same_body
        && same_seen
}

#[test]
fn an_application_with_its_api_is_served_alike() {
    let stage = Stage::of("spa.conf");
    stage.compare(&[
        "GET shop.example.com /healthz",
        "POST shop.example.com /healthz body=3",
        "GET shop.example.com /healthz?x=1",
        "GET shop.example.com /api/",
        "GET shop.example.com /api/x",
        "GET shop.example.com /api/x/",
        "GET shop.example.com /api/x?y=1&z=%2F",
        "GET shop.example.com /api/x/../y",
        "GET shop.example.com /api/%61b",
        "GET shop.example.com /api",
        "GET shop.example.com /api?x=1",
        "HEAD shop.example.com /api/x",
        "DELETE shop.example.com /api/x",
        "POST shop.example.com /api/x body=2048",
        "POST shop.example.com /api/x body=2049",
        "PUT shop.example.com /api/x body=0",
        "GET other.example.com /api/x",
        "GET shop.example.com /api/x x-api-version=1",
        "GET shop.example.com /api/x cookie=a",
        "GET shop.example.com /api/uploads/a/b",
        "GET shop.example.com /api/uploads/",
        "GET shop.example.com /api/uploads",
        "POST shop.example.com /api/uploads/a body=16384",
        "POST shop.example.com /api/uploads/a body=16385",
        "GET shop.example.com /api/session",
        "GET shop.example.com /api/session?x=1",
        "GET shop.example.com /api/session/x",
        "GET shop.example.com /v1",
        "GET shop.example.com /v1?x=1",
        "GET shop.example.com /v1/",
        "GET shop.example.com /v1/x/y",
        "GET shop.example.com /events/x cookie=a",
        "GET shop.example.com /events/",
        "GET shop.example.com /events",
    ]);
    // Files are nginx's own, and what a gateway does not have.
    let missing = stage.ask(stage.gateway.public, "GET shop.example.com /");
    assert_eq!((missing.status, missing.seen.len()), (404, 0));
}

#[test]
fn whoever_asks_in_clear_is_sent_to_tls_alike() {
    let stage = Stage::of("tls.conf");
    for line in ["GET shop.example.com /", "GET www.shop.example.com /a/b?c=d"] {
        let [a, b] =
            [stage.nginx.clear, stage.gateway.listening("public")].map(|it| stage.ask(it, line));
        assert_eq!((a.status, b.status), (301, 308), "{line}");
        assert_eq!(a.location, b.location, "{line}");
        assert!(a.location.is_some_and(|location| location.starts_with("https://")), "{line}");
    }
    let client = TlsClient::made(&stage.authority.pem, None, &["http/1.1"]);
    let addresses = [stage.nginx.tls, stage.gateway.listening("tls")];
    for (host, path) in [
        ("shop.example.com", "/"),
        ("shop.example.com", "/a?b=c"),
        ("shop.example.com", "/robots.txt"),
        ("www.shop.example.com", "/a?b=c"),
        ("www.shop.example.com", "/account"),
    ] {
        let [a, b] = addresses.map(|address| {
            stage.upstreams.iter().for_each(Upstream::forget);
            let answer = client.get(address, host, path, "").unwrap();
            let line = |begin: &str| {
                let lines = answer.lines().filter(|it| it.to_ascii_lowercase().starts_with(begin));
                lines.map(|it| it.to_ascii_lowercase()).next()
            };
            let status = answer.split(' ').nth(1).map(str::to_owned);
            let fields = [line("location: "), line("strict-transport-security: ")];
            let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
            let seen: Vec<_> = stage.upstreams.iter().flat_map(Upstream::recorded).collect();
            let seen: Vec<_> = seen
                .iter()
                .map(|it| {
                    let proto = it.header("x-forwarded-proto").map(str::to_owned);
                    (it.target().to_owned(), it.header("host").map(str::to_owned), proto)
                })
                .collect();
            let body =
                if body.contains("<center>nginx") || path == "/a?b=c" { None } else { Some(body) };
            (status, fields, seen, body.filter(|_| host == "shop.example.com"))
        });
        assert_eq!(a, b, "{host}{path}");
    }
    // What a password guarded is closed.
    let answer = client.get(addresses[1], "shop.example.com", "/account", "").unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[test]
fn redirects_to_https_lead_to_the_same_place_however_they_are_written() {
    let stage = Stage::of("certbot.conf");
    for line in [
        "GET www.shop.example.com /a?b=c",
        "GET shop.example.com /",
        "GET shop.example.com /a/b?c=d",
        "GET api.example.com /a?b=c",
    ] {
        let [a, b] =
            [stage.nginx.clear, stage.gateway.listening("public")].map(|it| stage.ask(it, line));
        assert_eq!((a.status, b.status), (301, 308), "{line}");
        assert_eq!(a.location, b.location, "{line}");
    }
    let client = TlsClient::made(&stage.authority.pem, None, &["http/1.1"]);
    for host in ["shop.example.com", "www.shop.example.com"] {
        for address in [stage.nginx.tls, stage.gateway.listening("tls")] {
            let answer = client.get(address, host, "/a", "").unwrap();
            assert!(answer.ends_with("saw GET /a"), "{host}: {answer}");
        }
    }
}

#[test]
fn hosts_and_servers_are_chosen_alike() {
    let stage = Stage::of("balanced.conf");
    stage.compare(&[
        "GET nobody.example.com /",
        "GET nobody.example.com /v2/x",
        "GET app.example.com /",
        "GET app.example.com /x?y",
        "GET a.app.example.com /x",
        "GET a.b.app.example.com /x",
        "GET API.example.com /v2/x",
        "POST app.example.com /x body=10",
        "GET app.example.com /ws",
        "GET app.example.com /ws/x",
        "GET app.example.com /v2/x",
        "GET api.example.com /",
        "GET api.example.com /x",
        "GET api.example.com /v2",
        "GET api.example.com /v2/",
        "GET api.example.com /v2/a/b?c",
        "GET api.example.com /v2/internal",
        "GET api.example.com /v2/internal/",
        "GET api.example.com /v2/internal/x",
        "GET api.example.com /v2/internals",
        "DELETE api.example.com /v2/a",
    ]);
    // Three of four requests, in turn.
    for address in [stage.nginx.clear, stage.gateway.public] {
        stage.upstreams.iter().for_each(Upstream::forget);
        for _ in 0..8 {
            assert_eq!(
                Client::get(address, "/x").header("Host", "app.example.com").send().status,
                200
            );
        }
        let counts: Vec<usize> = stage.upstreams.iter().map(Upstream::seen).collect();
        assert_eq!(counts, [6, 2, 0]);
    }
}

#[test]
fn limits_and_networks_hold_alike() {
    let stage = Stage::of("limits.conf");
    let sequence = |path: &str, count: usize, fields: &str| {
        [stage.nginx.clear, stage.gateway.public].map(|address| {
            let line = format!("GET a.test {path} {fields}");
            (0..count).map(|_| stage.ask(address, &line).status).collect::<Vec<u16>>()
        })
    };
    for (path, count, fields, passed) in [
        ("/login", 8, "", 5),
        ("/partners/x", 5, "x-api-key=a", 3),
        ("/partners/y", 5, "x-api-key=b", 3),
    ] {
        let [a, b] = sequence(path, count, fields);
        assert_eq!(a, b, "{path} {fields}");
        assert_eq!(a.iter().filter(|status| **status == 200).count(), passed, "{path}: {a:?}");
        assert_eq!(a.last(), Some(&429), "{path}");
    }
    stage.compare(&[
        "GET a.test /",
        "GET a.test /x?y=z",
        "GET a.test /office/",
        "GET a.test /office/x",
        "GET a.test /office",
        "GET a.test /abroad/x",
        "POST a.test /abroad/x body=3",
        "GET a.test /closed/",
        "GET a.test /closed/x",
        "GET a.test /pages",
        // The first fills both caches, the others are answered by them.
        "GET a.test /pages/1",
        "GET a.test /pages/1",
        "HEAD a.test /pages/1",
        "GET a.test /pages/1?a=1",
        "GET a.test /pages/1?a=1",
        "GET b.test /pages/2",
        "GET b.test /pages/2",
        "POST a.test /pages/3 body=3",
        "POST a.test /pages/3 body=3",
    ]);
    for path in ["/pages/1", "/pages/1?a=1"] {
        let again = stage.ask(stage.gateway.public, &format!("GET a.test {path}"));
        assert_eq!((again.status, again.seen.len()), (200, 0), "{path}");
    }
}

#[test]
fn old_paths_lead_to_the_same_new_ones() {
    let stage = Stage::of("legacy.conf");
    stage.compare(&[
        "GET old.example.com /",
        "GET old.example.com /shop/a",
        "GET old.example.com /shop/a/b?c=d",
        "GET old.example.com /shop/",
        "GET old.example.com /shop",
        "POST old.example.com /shop/a body=3",
        "GET old.example.com /about.html",
        "GET old.example.com /about.html?x=1",
        "GET old.example.com /about",
        "GET old.example.com /store/a",
        "GET old.example.com /store/a/b?c=d",
        "GET old.example.com /store/",
        "GET old.example.com /store",
        "GET old.example.com /old-api/users",
        "GET old.example.com /old-api/users?x=1",
        "GET old.example.com /api/v1/users",
        "GET old.example.com /api/v1/",
        "GET old.example.com /api/v1",
        "GET old.example.com /users/7/profile",
        "GET old.example.com /users/7/profiles",
        "GET old.example.com /news",
        "GET old.example.com /news/",
        "GET old.example.com /docs/a?b=c",
        "GET old.example.com /docs/",
        "GET old.example.com /docs",
        "GET old.example.com /maintenance/",
        "GET old.example.com /maintenance/x",
        "GET elsewhere.example.com /store/a",
    ]);
}

#[test]
fn a_websocket_passes_the_converted_gateway_as_nginx() {
    let [(a, _), (b, _)] = [0; 2].map(|_| upstream(echo));
    let folder = Folder::new();
    let text = std::fs::read_to_string(example("nginx", "balanced.conf")).unwrap();
    let text = text.replace("127.0.0.1:3000", &a.address().to_string());
    let text = text.replace("127.0.0.1:3001", &b.address().to_string());
    folder.write("nginx.conf", &text);
    let converted = convert(&folder, "nginx", "nginx.conf").stdout;
    let converted = converted
        .replace("0.0.0.0:80", "127.0.0.1:0")
        .replace("127.0.0.1:9901", "127.0.0.1:0")
        .replace("host = \"app.example.com\"", "host = \"shop.test\"");
    let gateway = Gateway::start_in(folder, &converted);
    let mut socket = WebSocket::open(gateway.public, "/ws/1", "");
    socket.send(0x81, "hello");
    socket.expect(0x81, "hello");
    let nginx = Nginx::start(Folder::new(), &text);
    for (address, host) in [(nginx.clear, "app.example.com"), (gateway.public, "shop.test")] {
        let get = Client::get(address, "/ws/1").header("Host", host);
        let get = get.header("Upgrade", "websocket").header("Connection", "Upgrade");
        let get = get.header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let reply = get.header("Sec-WebSocket-Version", "13").send();
        assert_eq!(reply.status, 101, "{host}");
    }
}
