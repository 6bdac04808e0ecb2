//! Clients with certificates as callers: who they are to limits, caches, sessions and upstreams,
//! how they are revoked, and tokens that are good with one certificate alone.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::DnType;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::{certificates, write};
use crate::auth::with;
use crate::support::tls::{TlsStream, answer, get, try_answer};
use crate::support::{
    AUTH, CertificateAuthority, Client, Folder, Gateway, Pair, Redis, TcpProxy, TlsClient,
    Upstream, claims, eventually, operate, response, run, token, websocket,
};

const TABLES: &str = r#"
[auth.devices]
certificate = true
claims_to_headers = { x-device = "sub", x-device-names = "san", x-device-digest = "sha256" }
[limits.device]
key = ["claim:sub"]
allow = ["2/1h"]
[session]
id_from = ["claim:sha256"]
header = "x-session"
[routes.public]
path = "/public"
upstream = "shop"
[routes.devices]
path = "/devices"
upstream = "shop"
auth = "devices"
[routes.users]
path = "/users"
upstream = "shop"
auth = "users"
[routes.limited]
path = "/limited"
upstream = "shop"
auth = "devices"
limits = ["device"]
[routes.demanding]
path = "/demanding"
upstream = "shop"
auth = "devices"
require = { san = ["ann.test"] }
[routes.optional]
path = "/optional"
upstream = "shop"
auth = { by = "devices", optional = true }
[routes.both]
path = "/both"
upstream = "shop"
auth = { by = ["users", "devices"] }
limits = ["device"]
[routes.live]
path = "/live"
upstream = "shop"
auth = { by = ["users", "devices"] }
upgrade = ["websocket"]
tunnel = { end_on = ["jti"] }
[routes.cached]
path = "/cached"
upstream = "shop"
auth = "devices"
cache = { ttl = "1h", partition = ["claim:sha256"] }
[routes.session]
path = "/session"
upstream = "shop"
auth = "devices"
session = "required"
"#;

/// What gateways share.
struct Fleet {
    authority: CertificateAuthority,
    clients: CertificateAuthority,
    redis: Redis,
    upstream: Upstream,
}

/// One gateway, and where it speaks TLS.
struct Node {
    gateway: Gateway,
    tls: SocketAddr,
}

impl Fleet {
    fn open() -> Self {
        let (authority, clients) = (CertificateAuthority::new(), CertificateAuthority::new());
        let upstream = Upstream::replying(response("200 OK", "hello"));
        Self { authority, clients, redis: Redis::start(), upstream }
    }

    /// `on_outage` is of `[store.on_outage]`.
    fn config(&self, url: &str, on_outage: &str) -> String {
        // Nothing here is about deadlines, and the machine may be busy.
        let store = format!("[store]\nurl = '{url}'\ntimeout = '5s'\nconnect_timeout = '5s'\n");
        let tls = certificates(&["site"], "client_ca = 'clients.pem'\nclient_auth = 'optional'");
        let upstream = self.upstream.table("shop");
        format!("{store}[store.on_outage]\n{on_outage}\n{tls}{AUTH}{upstream}{TABLES}")
    }

    fn node(&self, on_outage: &str) -> Node {
        self.node_on(&self.redis.url(), on_outage)
    }

    fn node_on(&self, url: &str, on_outage: &str) -> Node {
        let folder = Folder::new();
        write(&folder, "site", &self.authority.issue(&["shop.test"]));
        folder.write("clients.pem", &self.clients.pem);
        let gateway = Gateway::start_in(folder, &self.config(url, on_outage));
        let tls = gateway.listening("tls");
        Node { gateway, tls }
    }

    /// A standing connection of a client with this certificate.
    fn connect(&self, node: &Node, own: Option<&Pair>) -> TlsStream {
        let client = TlsClient::with(&self.authority, own, &[]);
        client.connect(node.tls, "shop.test").expect("a connection")
    }

    /// The status of an answer, and its code where the gateway refuses.
    fn ask(&self, node: &Node, own: Option<&Pair>, path: &str, lines: &str) -> (u16, String) {
        told(&answer(&mut self.connect(node, own), &get("shop.test", path, lines)))
    }

    fn status(&self, node: &Node, own: &Pair, path: &str) -> u16 {
        self.ask(node, Some(own), path, "").0
    }

    /// The header that the upstream got with the one request since it was asked last.
    fn forwarded(&self, name: &str) -> Option<String> {
        let value = self.upstream.only().header(name).map(str::to_owned);
        self.upstream.forget();
        value
    }
}

/// Status and code of an answer.
fn told(answer: &str) -> (u16, String) {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (_, rest) = answer.split_once("urn:portcullis:problem:").unwrap_or_default();
    let code = rest.split('"').next().unwrap_or_default();
    (status.unwrap_or_else(|| panic!("no status: {answer}")), code.to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn ok() -> (u16, String) {
    (200, String::new())
}

/// The SHA-256 of a certificate.
fn sha256(own: &Pair) -> Vec<u8> {
    let der = CertificateDer::from_pem_slice(own.cert.as_bytes()).expect("a certificate");
    digest(&SHA256, &der).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A certificate with this common name and these alternative names.
fn named(authority: &CertificateAuthority, common_name: &str, names: &[&str]) -> Pair {
    authority.issue_with(names, |params| {
        if !common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
    })
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// A token that is good with this certificate alone.
fn bound(own: &Pair) -> String {
    let thumbprint = URL_SAFE_NO_PAD.encode(sha256(own));
    token(with(json!({ "sid": "s1", "cnf": { "x5t#S256": thumbprint } })))
}

fn revoke(node: &Node, what: &Value) -> Value {
    let reply = operate(&node.gateway, "POST", "/v1/revocations", &what.to_string());
    assert_eq!(reply.status, 201, "{}", reply.text());
    reply.json()
}

#[test]
fn a_certificate_is_a_caller_and_who_has_none_is_refused() {
    let (fleet, forged) = (Fleet::open(), "X-Device: root\r\nX_Device_Digest: root\r\n");
    let node = fleet.node("");
    let own = named(&fleet.clients, "ann", &["ann.test", "10.0.0.7"]);
    assert_eq!(fleet.ask(&node, Some(&own), "/devices", forged), ok());
    let seen = fleet.upstream.only();
    let digest = hex(&sha256(&own));
    for (name, value) in
        [("x-device", "ann"), ("x-device-names", "ann.test,10.0.0.7"), ("x-device-digest", &digest)]
    {
        assert_eq!(seen.headers_named(name), [value], "{name}");
    }
    fleet.upstream.forget();
    // Nobody: over TLS, and where there is none.
    assert_eq!(fleet.ask(&node, None, "/devices", forged), refused(401, "certificate_missing"));
    let reply = Client::get(node.gateway.public, "/devices").header("Host", "shop.test").send();
    assert_eq!((reply.status, &*crate::auth::code(&reply)), (401, "certificate_missing"));
    assert_eq!(reply.header("www-authenticate"), Some("Certificate realm=\"portcullis\""));
    assert_eq!(fleet.upstream.seen(), 0);
    assert_eq!(fleet.ask(&node, None, "/public", forged), ok());
    assert_eq!(fleet.forwarded("x-device"), None, "it is the gateway's to set");
    // A subject that could not stand in a log or a key.
    let odd = named(&fleet.clients, "ann\n", &[]);
    assert_eq!(fleet.ask(&node, Some(&odd), "/devices", ""), refused(401, "certificate_invalid"));
    eventually("the log says who called, and why not", || {
        let lines = node.gateway.access_lines();
        let has = |name: &str, value: &str| lines.iter().any(|line| line[name] == value);
        has("subject", "ann") && has("reason", "certificate_missing") && has("claim", "sub")
    });
}

#[test]
fn callers_that_differ_in_one_odd_byte_are_two() {
    let fleet = Fleet::open();
    let node = fleet.node("");
    let client = |common_name: &str, names: &[&str]| named(&fleet.clients, common_name, names);
    for (one, other, are_one) in [
        (client("ann", &[]), client("Ann", &[]), false),
        (client("bob", &[]), client("bob ", &[]), false),
        // One letter, written in two ways.
        (client("jos\u{e9}", &[]), client("jose\u{301}", &[]), false),
        (client("\u{212a}im", &[]), client("Kim", &[]), false),
        (client("", &["a.test", "b.test"]), client("", &["b.test", "a.test"]), false),
        (client("eve", &["a.test"]), client("eve", &["b.test"]), true),
        // The same name by either way is the same caller: who issues them answers for that.
        (client("dan.test", &[]), client("", &["dan.test", "x"]), true),
    ] {
        let states = [&one, &one, &one, &other].map(|own| fleet.status(&node, own, "/limited"));
        let last = if are_one { 429 } else { 200 };
        assert_eq!(states, [200, 200, 429, last], "{:?}", fleet.upstream.recorded().last());
    }
}

#[test]
fn a_requirement_a_session_and_a_part_of_the_cache_go_by_the_certificate() {
    let fleet = Fleet::open();
    let node = fleet.node("");
    let ann = named(&fleet.clients, "ann", &["x.test", "ann.test"]);
    let near = named(&fleet.clients, "ann", &["ann.test."]);
    assert_eq!(fleet.status(&node, &ann, "/demanding"), 200);
    assert_eq!(
        fleet.ask(&node, Some(&near), "/demanding", ""),
        refused(403, "claims_insufficient")
    );
    let missing = fleet.ask(&node, None, "/demanding", "");
    assert_eq!(missing, refused(401, "certificate_missing"));
    fleet.upstream.forget();
    let key = format!("app:session:{}", hex(&sha256(&ann)));
    fleet.redis.cli(&["SET", &key, r#"{"of":"ann"}"#]);
    assert_eq!(fleet.status(&node, &ann, "/session"), 200);
    assert!(fleet.forwarded("x-session").is_some());
    assert_eq!(fleet.ask(&node, Some(&near), "/session", ""), refused(401, "session_missing"));
    for (own, seen) in [(&ann, 1), (&ann, 1), (&near, 2), (&ann, 2)] {
        assert_eq!(fleet.status(&node, own, "/cached"), 200);
        assert_eq!(fleet.upstream.seen(), seen, "each has responses of its own");
    }
}

#[test]
fn where_it_is_optional_a_caller_is_nobody_or_known() {
    let fleet = Fleet::open();
    let (node, ann) = (fleet.node(""), fleet.clients.client("ann"));
    assert_eq!(fleet.ask(&node, None, "/optional", ""), ok());
    assert_eq!(fleet.forwarded("x-device"), None);
    assert_eq!(fleet.ask(&node, Some(&ann), "/optional", ""), ok());
    assert_eq!(fleet.forwarded("x-device").as_deref(), Some("ann"));
    let reply = Client::get(node.gateway.public, "/optional").header("Host", "shop.test").send();
    assert_eq!(reply.status, 200);
}

#[test]
fn beside_tokens_a_certificate_speaks_for_requests_without_one() {
    let fleet = Fleet::open();
    let (node, ann) = (fleet.node(""), fleet.clients.client("ann"));
    let good = bearer(&token(claims("ann")));
    let mut stream = fleet.connect(&node, Some(&ann));
    let mut ask = |lines: &str| told(&answer(&mut stream, &get("shop.test", "/both", lines)));
    // Both are called ann, and counted apart.
    for (lines, device, user) in [
        ("", Some("ann"), None),
        (&*good, None, Some("ann")),
        ("Authorization: Basic eA==\r\n", Some("ann"), None),
        (&*good, None, Some("ann")),
    ] {
        assert_eq!(ask(lines), ok(), "{lines}");
        let seen = fleet.upstream.only();
        assert_eq!((seen.header("x-device"), seen.header("x-user-id")), (device, user));
        fleet.upstream.forget();
    }
    for lines in ["", &*good] {
        assert_eq!(ask(lines), refused(429, "limit_exceeded"), "{lines}");
    }
    assert_eq!(ask(&bearer("a.b.c")), refused(401, "token_invalid"), "no other way in");
    assert_eq!(fleet.ask(&node, None, "/both", ""), refused(401, "token_missing"));
    assert_eq!(fleet.ask(&node, None, "/both", &bearer(&token(claims("bob")))), ok());
}

#[test]
fn what_is_revoked_at_one_gateway_is_refused_at_the_other_until_it_is_taken_back() {
    let fleet = Fleet::open();
    let (a, b) = (fleet.node(""), fleet.node(""));
    let (ann, bob) = (fleet.clients.client("ann"), fleet.clients.client("bob"));
    let digest = hex(&sha256(&ann));
    let mut standing = fleet.connect(&b, Some(&ann));
    let mut ask = || told(&answer(&mut standing, &get("shop.test", "/devices", "")));
    let is_out = refused(401, "certificate_revoked");
    assert_eq!(ask(), ok());
    // As openssl tells it.
    let shown = sha256(&ann).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
    let done = revoke(&a, &json!({ "cert": shown }));
    assert_eq!(done["key"], format!("app:auth:blacklist:cert:{digest}"));
    assert_eq!(done["expires_in_seconds"], 3650 * 86_400, "no certificate outlives it");
    assert_eq!(ask(), is_out, "on a connection that stands");
    assert_eq!(fleet.ask(&b, Some(&ann), "/optional", ""), is_out);
    assert_eq!(fleet.status(&b, &bob, "/devices"), 200);
    let url = format!("http://{}", a.gateway.admin);
    let arguments = ["revoke", "--cert", &digest, "--admin", &url, "--undo"];
    assert_eq!(run(&Folder::new(), &arguments).code, Some(0));
    eventually("the other gateway is told", || ask() == ok());
    assert_eq!(run(&Folder::new(), &arguments[..5]).code, Some(0));
    assert_eq!(ask(), is_out);
    let query = format!("/v1/revocations?cert={digest}");
    assert_eq!(operate(&a.gateway, "DELETE", &query, "").status, 200);
    eventually("the other gateway is told", || ask() == ok());
    for wrong in [
        json!({"cert": "ann"}),
        json!({"cert": digest, "sub": "ann"}),
        json!({"cert": digest, "key_id": "k"}),
        json!({"cert": digest, "auth": "devices"}),
    ] {
        let reply = operate(&a.gateway, "POST", "/v1/revocations", &wrong.to_string());
        assert_eq!(reply.status, 400, "{wrong}: {}", reply.text());
    }
    // By its subject: of tokens or of certificates, which has to be said here.
    let unsaid = operate(&a.gateway, "POST", "/v1/revocations", r#"{"sub": "ann"}"#);
    assert!(unsaid.status == 400 && unsaid.text().contains("devices, users"), "{}", unsaid.text());
    let of_users = revoke(&a, &json!({"sub": "ann", "auth": "users"}));
    assert_eq!((ask(), &of_users["key"]), (ok(), &json!("app:auth:not-before:ann")));
    let of_devices = revoke(&a, &json!({"sub": "ann", "auth": "devices"}));
    let key = "app:auth:not-before:devices:ann";
    assert_eq!((ask(), &of_devices["key"]), (is_out.clone(), &json!(key)));
    // It is as old as its begin, which is in 1975.
    fleet.redis.cli(&["SET", key, "1000"]);
    let until = ["until", "9999999999"];
    let told = ["XADD", "app:auth:revocations", "*", "key", key, "not_before", "1000"];
    fleet.redis.cli(&[&told[..], &until].concat());
    eventually("the other gateway is told", || ask() == ok());
    assert_eq!(fleet.status(&b, &bob, "/devices"), 200);
}

#[test]
fn while_redis_is_away_a_gateway_judges_by_what_it_knew_or_as_it_is_told() {
    let mut fleet = Fleet::open();
    let knows = fleet.node("revocation_max_stale = '1h'");
    let (refuses, allows) = (fleet.node(""), fleet.node("revocation = 'allow'"));
    let (ann, bob) = (fleet.clients.client("ann"), fleet.clients.client("bob"));
    let known = || {
        let request = Client::get(knows.gateway.admin, "/v1/status");
        let reply = request.header("Host", knows.gateway.admin.to_string()).send();
        reply.json()["revocations"]["known"].clone()
    };
    revoke(&refuses, &json!({ "cert": hex(&sha256(&ann)) }));
    eventually("it is told", || known() == 1);
    fleet.redis.kill();
    for _ in 0..2 {
        let out = fleet.ask(&knows, Some(&ann), "/devices", "");
        assert_eq!(out, refused(401, "certificate_revoked"));
        assert_eq!(fleet.status(&knows, &bob, "/devices"), 200);
        let unknown = fleet.ask(&refuses, Some(&bob), "/devices", "");
        assert_eq!(unknown, refused(503, "revocation_unknown"));
        assert_eq!(fleet.status(&allows, &ann, "/devices"), 200);
    }
}

#[test]
fn a_certificate_costs_one_question() {
    let fleet = Fleet::open();
    let proxy = TcpProxy::start(fleet.redis.address());
    let node = fleet.node_on(&proxy.url(), "");
    let ann = fleet.clients.client("ann");
    let mut stream = fleet.connect(&node, Some(&ann));
    assert_eq!(told(&answer(&mut stream, &get("shop.test", "/limited", ""))), ok());
    proxy.reset_count();
    assert_eq!(told(&answer(&mut stream, &get("shop.test", "/limited", ""))), ok());
    assert_eq!(proxy.batches(), 1, "its revocation and its limit");
    let lines = bearer(&bound(&ann));
    for _ in 0..3 {
        assert_eq!(told(&answer(&mut stream, &get("shop.test", "/users", &lines))), ok());
    }
    assert_eq!(proxy.batches(), 4);
    assert_eq!(fleet.ask(&node, None, "/devices", "").0, 401);
    assert_eq!(proxy.batches(), 4, "nobody, nothing to ask");
}

#[test]
fn a_bound_token_is_good_with_its_own_certificate_alone() {
    let fleet = Fleet::open();
    let (node, ann, bob) = (fleet.node(""), fleet.clients.client("ann"), fleet.clients.client("b"));
    let lines = bearer(&bound(&ann));
    let unbound = refused(401, "token_binding");
    for _ in 0..2 {
        assert_eq!(fleet.ask(&node, Some(&ann), "/both", &lines), ok());
        // The token is remembered; whose connection it is good on is asked each time.
        assert_eq!(fleet.ask(&node, Some(&bob), "/both", &lines), unbound);
        assert_eq!(fleet.ask(&node, None, "/both", &lines), unbound);
        let clear = Client::get(node.gateway.public, "/both").header("Host", "shop.test");
        let reply = clear.bearer(bound(&ann)).send();
        assert_eq!((reply.status, &*crate::auth::code(&reply)), (401, "token_binding"));
        let challenge = reply.header("www-authenticate").unwrap_or_default();
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    }
    // What is only good with a certificate ends with it.
    revoke(&node, &json!({ "cert": hex(&sha256(&ann)) }));
    assert_eq!(fleet.ask(&node, Some(&ann), "/both", &lines), refused(401, "token_revoked"));
    for cnf in [json!("x"), json!({"x5t#S256": 7}), json!({"x5t#S256": "AAAA"})] {
        let malformed = bearer(&token(with(json!({ "cnf": cnf }))));
        let answer = fleet.ask(&node, Some(&bob), "/both", &malformed);
        assert_eq!(answer, refused(401, "token_invalid"), "{cnf}");
    }
}

#[test]
fn a_verifier_may_demand_that_tokens_are_bound() {
    let fleet = Fleet::open();
    let (ann, bob) = (fleet.clients.client("ann"), fleet.clients.client("bob"));
    let free = bearer(&token(claims("42")));
    let open = fleet.node("");
    assert_eq!(fleet.ask(&open, Some(&ann), "/users", &free), ok());
    let folder = Folder::new();
    write(&folder, "site", &fleet.authority.issue(&["shop.test"]));
    folder.write("clients.pem", &fleet.clients.pem);
    let demanding = AUTH.to_owned() + "bound = 'certificate'\n";
    let config = fleet.config(&fleet.redis.url(), "").replace(AUTH, &demanding);
    let gateway = Gateway::start_in(folder, &config);
    let node = Node { tls: gateway.listening("tls"), gateway };
    let lines = bearer(&bound(&ann));
    assert_eq!(fleet.ask(&node, Some(&ann), "/users", &lines), ok());
    let unbound = refused(401, "token_binding");
    assert_eq!(fleet.ask(&node, Some(&bob), "/users", &lines), unbound);
    let invalid = refused(401, "token_invalid");
    assert_eq!(fleet.ask(&node, Some(&ann), "/users", &free), invalid);
}

#[test]
fn a_web_socket_ends_with_the_certificate_that_opened_it() {
    let fleet = Fleet { upstream: websocket::upstream(websocket::echo).0, ..Fleet::open() };
    let node = fleet.node("");
    eventually("revocations are followed", || {
        node.gateway.stderr().contains("revocations are followed")
    });
    for (name, as_bound) in [("ann", false), ("bob", true)] {
        let own = fleet.clients.client(name);
        // `end_on` leaves the session out here, and not what the token is good with.
        let lines = if as_bound { bearer(&bound(&own)) } else { String::new() };
        let mut stream = fleet.connect(&node, Some(&own));
        stream.write_all(websocket::handshake("/live", &lines).as_bytes()).unwrap();
        let mut seen = Vec::new();
        let mut until = |end: &[u8]| {
            let mut byte = [0];
            while !seen.ends_with(end) {
                stream.read_exact(&mut byte).unwrap();
                seen.push(byte[0]);
            }
        };
        until(b"\r\n\r\n");
        revoke(&node, &json!({ "cert": hex(&sha256(&own)) }));
        until(&websocket::frame(websocket::CLOSE, false, websocket::reason(1008, "token revoked")));
    }
}

#[test]
fn a_certificate_that_ends_while_its_connection_stands_is_refused() {
    let fleet = Fleet::open();
    let node = fleet.node("");
    // A busy machine may take longer than the shortest of these lives to shake hands.
    let standing = [2, 4, 8].into_iter().find_map(|life| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let end = rcgen::date_time_ymd(1970, 1, 1) + now + Duration::from_secs(life);
        let own = fleet.clients.issue_with(&["ann.test"], |params| params.not_after = end);
        let client = TlsClient::with(&fleet.authority, Some(&own), &[]);
        let mut stream = client.connect(node.tls, "shop.test").ok()?;
        let first = try_answer(&mut stream, &get("shop.test", "/devices", "")).ok()?;
        (told(&first) == ok()).then_some(stream)
    });
    let mut standing = standing.expect("a connection within the certificate's life");
    eventually("its time is over", || {
        told(&answer(&mut standing, &get("shop.test", "/devices", "")))
            == refused(401, "certificate_expired")
    });
}

#[test]
fn a_reload_counts_on_a_connection_that_stands() {
    let fleet = Fleet::open();
    let (node, ann) = (fleet.node(""), fleet.clients.client("ann"));
    let mut standing = fleet.connect(&node, Some(&ann));
    let mut ask = || told(&answer(&mut standing, &get("shop.test", "/devices", "")));
    assert_eq!(ask(), ok());
    assert_eq!(fleet.forwarded("x-device").as_deref(), Some("ann"));
    let config = fleet.config(&fleet.redis.url(), "").replace("= \"sub\", x-d", "= \"dn\", x-d");
    node.gateway.rewrite(&config);
    node.gateway.signal("HUP");
    eventually("the device is told by its distinguished name", || {
        assert_eq!(ask(), ok());
        fleet.forwarded("x-device").as_deref() == Some("CN=ann")
    });
}
