//! The gateway seen from outside: health, metrics, status, who may operate it, and the access log.

mod audit_ring;
mod cache;
mod commands;
mod config;
mod doctor;
mod fleet;
mod guard;
mod health;
mod limits;
mod live;
mod log;
mod log_level;
mod logins;
mod openapi;
mod overview;
mod revocations_list;
mod routes;
mod status;
mod upstreams_view;

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};

use serde_json::Value;

use crate::support::{
    AUTH, Client, Gateway, Redis, Reply, TcpProxy, Upstream, claims, eventually, response, token,
};

const ROUTES: &str = r#"
[limits.api]
key = ["address"]
allow = ["3/1h"]
[routes.open]
path = "/open/*"
upstream = "shop"
[routes.limited]
path = "/limited"
upstream = "shop"
limits = ["api"]
[routes.private]
path = "/private"
upstream = "shop"
auth = "users"
[routes.cached]
path = "/cached"
upstream = "shop"
cache = { ttl = "1h" }
"#;

fn config_of(upstream: &Upstream) -> String {
    AUTH.to_owned() + &upstream.table("shop") + ROUTES
}

fn start(before: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let gateway = Gateway::start(&(before.to_owned() + &config_of(&upstream)));
    (upstream, gateway)
}

/// A GET on the admin listener by its own address.
fn get(gateway: &Gateway, path: &str) -> Reply {
    Client::get(gateway.admin, path).header("Host", gateway.admin.to_string()).send()
}

fn problem(reply: &Reply) -> (u16, String) {
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?}");
    let kind = reply.json()["type"].as_str().expect("a type").to_owned();
    (reply.status, kind.replace("urn:portcullis:problem:", ""))
}

#[test]
fn health_is_told_to_everybody_and_only_on_the_admin_listener() {
    let (_upstream, gateway) = start("[admin]\ntoken = \"operator-0123456789\"\n");
    for path in ["/healthz", "/readyz", "/metrics"] {
        // Load balancers use whatever name they know.
        let reply = Client::get(gateway.admin, path).header("Host", "lb.internal").send();
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        assert_eq!(Client::request(gateway.admin, "HEAD", path).send().status, 200, "{path}");
        let posted = Client::request(gateway.admin, "POST", path).send();
        assert_eq!(problem(&posted), (405, "method_not_allowed".to_owned()));
        assert_eq!(Client::get(gateway.public, path).send().status, 404, "{path} in public");
    }
    assert_eq!(Client::get(gateway.public, "/v1/status").send().status, 404);
    assert_eq!(problem(&get(&gateway, "/")), (404, "not_found".to_owned()));
}

#[test]
fn ready_means_that_requests_can_pass() {
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let store = format!("[store]\nurl = \"{}\"\n", proxy.url());
    let passes = "[store.on_outage]\nrevocation = \"allow\"\nsession = \"without\"\n";
    let upstream = Upstream::replying(response("200 OK", "hello"));
    // The one route that asks the store refuses without it.
    let routes = "[routes.open]\npath = \"/open\"\nupstream = \"shop\"\n[routes.private]\n\
                  path = \"/private\"\nupstream = \"shop\"\nauth = \"users\"\n";
    let table = upstream.table("shop");
    let refusing = Gateway::start(&format!("{store}{AUTH}{table}{routes}"));
    // Here there are others, which serve.
    let (_one, mixed) = start(&store);
    let (_two, passing) = start(&(store + passes));
    let address = &proxy.url()["redis://".len()..];
    for gateway in [&refusing, &mixed, &passing] {
        let ready = get(gateway, "/readyz");
        let expected = format!("ready\nstore {address}: healthy\n");
        assert_eq!((ready.status, ready.text()), (200, expected));
    }
    proxy.refuse();
    eventually("the outage is noticed", || get(&refusing, "/readyz").status == 503);
    assert_eq!(problem(&get(&refusing, "/readyz")), (503, "store_unreachable".to_owned()));
    eventually("the metrics say so", || metric(&refusing, "portcullis_store_up") == Some(0.0));
    assert_eq!(get(&refusing, "/healthz").status, 200, "a restart would not help");
    eventually("the other notices too", || metric(&passing, "portcullis_store_up") == Some(0.0));
    eventually("the third too", || metric(&mixed, "portcullis_store_up") == Some(0.0));
    for (gateway, why) in [(&passing, "its policy lets requests pass"), (&mixed, "some pass")] {
        let ready = get(gateway, "/readyz");
        let expected =
            format!("ready\nstore {address}: open, not asked: store.on_outage decides\n");
        assert_eq!((ready.status, ready.text()), (200, expected), "{why}");
    }
    let labels = format!("node=\"{address}\"");
    let state = |state: &str| {
        let state = format!("state=\"{state}\"");
        labelled(&refusing, "portcullis_store_state", &["store=\"main\"", &labels, &state])
    };
    assert_eq!(["healthy", "slow", "open", "recovering"].map(state), [0.0, 0.0, 1.0, 0.0]);
    proxy.pass();
    eventually("it is ready again", || get(&refusing, "/readyz").status == 200);
    assert_eq!(metric(&refusing, "portcullis_store_up"), Some(1.0));
    assert_eq!(state("open"), 0.0);
}

/// The lines of `/metrics` that are samples: name, labels, value.
fn samples(gateway: &Gateway) -> Vec<(String, String, f64)> {
    let text = get(gateway, "/metrics").text();
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        (name.to_owned(), labels.trim_end_matches('}').to_owned(), value)
    };
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

/// The sum over all labels.
fn metric(gateway: &Gateway, name: &str) -> Option<f64> {
    let all = samples(gateway);
    let mut values = all.iter().filter(|sample| sample.0 == name).map(|s| s.2).peekable();
    values.peek()?;
    Some(values.sum())
}

fn labelled(gateway: &Gateway, name: &str, labels: &[&str]) -> f64 {
    let all = samples(gateway);
    let has = |sample: &&(String, String, f64)| {
        sample.0 == name && labels.iter().all(|label| sample.1.contains(label))
    };
    all.iter().filter(has).map(|sample| sample.2).sum()
}

#[test]
fn metrics_count_requests_by_route_status_reason_and_verdict() {
    let (_upstream, gateway) = start("");
    let send = |path: &str| Client::get(gateway.public, path).send().status;
    for (path, status) in [
        ("/open/1", 200),
        ("/open/2", 200),
        ("/limited", 200),
        ("/limited", 200),
        ("/limited", 200),
        ("/limited", 429),
        ("/private", 401),
        ("/cached", 200),
        ("/cached", 200),
        ("/nowhere", 404),
    ] {
        assert_eq!(send(path), status, "{path}");
    }
    // A record is closed when the last byte has left, which is about when the client has it.
    eventually("all are counted", || metric(&gateway, "portcullis_requests_total") == Some(10.0));
    let requests = "portcullis_requests_total";
    for (labels, count) in [
        (["route=\"open\"", "status=\"200\""], 2.0),
        (["route=\"limited\"", "status=\"200\""], 3.0),
        (["route=\"limited\"", "status=\"429\""], 1.0),
        (["route=\"private\"", "status=\"401\""], 1.0),
        (["route=\"cached\"", "status=\"200\""], 2.0),
        (["route=\"unmatched\"", "status=\"404\""], 1.0),
    ] {
        assert_eq!(labelled(&gateway, requests, &labels), count, "{labels:?}");
    }
    let rejections = "portcullis_rejections_total";
    let limited = ["route=\"limited\"", "reason=\"limit_exceeded\""];
    assert_eq!(labelled(&gateway, rejections, &limited), 1.0);
    let private = ["route=\"private\"", "reason=\"token_missing\""];
    assert_eq!(labelled(&gateway, rejections, &private), 1.0);
    for verdict in ["miss", "hit"] {
        let labels = ["route=\"cached\"", &*format!("verdict=\"{verdict}\"")];
        assert_eq!(
            labelled(&gateway, "portcullis_cache_requests_total", &labels),
            1.0,
            "{verdict}"
        );
    }
    let open = ["route=\"open\""];
    assert_eq!(labelled(&gateway, "portcullis_request_duration_seconds_count", &open), 2.0);
    let shop = ["upstream=\"shop\""];
    assert_eq!(labelled(&gateway, "portcullis_upstream_duration_seconds_count", &shop), 6.0);
    let ours = |name: &str| name.starts_with("portcullis_") || name.starts_with("process_");
    assert!(samples(&gateway).iter().all(|sample| ours(&sample.0)));
}

#[test]
fn what_clients_send_makes_no_new_metrics() {
    let (_upstream, gateway) = start("");
    let series = || {
        let all = samples(&gateway).into_iter();
        all.map(|(name, labels, _)| (name, labels)).collect::<BTreeSet<_>>()
    };
    let probe = |name: &str| {
        let send = |method: &str, path: &str| {
            let token = token(claims(name));
            let request =
                Client::request(gateway.public, method, path).header("X-Request-Id", name);
            request.header("Host", format!("{name}.test")).bearer(token).send()
        };
        send("GET", &format!("/open/{name}?q={name}"));
        send("GET", &format!("/{name}"));
        send("GET", "/private");
        send(name, "/open/1");
    };
    let requests = || metric(&gateway, "portcullis_requests_total");
    probe("first");
    eventually("they are counted", || requests() == Some(4.0));
    let before = series();
    for number in 0..20 {
        probe(&format!("other{number}"));
    }
    eventually("they are counted", || requests() == Some(84.0));
    assert_eq!(series(), before);
}

#[test]
fn the_status_tells_operators_what_runs() {
    let redis = Redis::start();
    let (_upstream, gateway) = start(&format!("[store]\nurl = \"{}\"\n", redis.url()));
    let reply = get(&gateway, "/v1/status");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let status = reply.json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["store"]["connected"], true);
    let nodes = status["store"]["nodes"].as_array().expect("a list");
    let [node] = nodes.as_slice() else { panic!("{status}") };
    assert_eq!(node["node"], redis.address().to_string());
    for (member, value) in [("role", "primary"), ("rung", "healthy"), ("cause", "connected")] {
        assert_eq!(node[member], value, "{member}");
    }
    let since = node["since"].as_str().expect("a time");
    assert!(since.starts_with("20") && since.ends_with('Z'), "{since}");
    assert_eq!(status["draining"], false);
    assert_eq!(status["routes"], serde_json::json!(["cached", "limited", "open", "private"]));
    assert_eq!(status["upstreams"], serde_json::json!(["shop"]));
    assert!(status["uptime_seconds"].is_u64(), "{status}");
    let unknown = get(&gateway, "/v1/nothing");
    assert_eq!(problem(&unknown), (404, "not_found".to_owned()));
}

/// An operation with these fields; its status and code.
fn operate(address: SocketAddr, fields: &[(&str, &str)]) -> (u16, Option<String>) {
    let mut request = Client::request(address, "POST", "/v1/cache/purge").body(r#"{"all": true}"#);
    for (name, value) in fields {
        request = request.header(name, value);
    }
    let reply = request.send();
    if reply.status == 200 { (200, None) } else { (reply.status, Some(problem(&reply).1)) }
}

fn refused(status: u16, code: &str) -> (u16, Option<String>) {
    (status, Some(code.to_owned()))
}

#[test]
fn a_token_is_required_where_one_is_configured() {
    let (_upstream, gateway) = start("[admin]\ntoken = \"operator-0123456789\"\n");
    let json = ("Content-Type", "application/json");
    let operate = |value: &str| operate(gateway.admin, &[json, ("Authorization", value)]);
    assert_eq!(operate("Bearer operator-0123456789"), (200, None));
    let denied = refused(401, "admin_token_invalid");
    for value in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer operator-012345678",
        "Bearer operator-01234567890",
        "operator-0123456789",
        "Basic operator-0123456789",
        "Bearer operator-0123456788",
    ] {
        assert_eq!(operate(value), denied, "{value:?}");
    }
    let user = format!("Bearer {}", token(claims("42")));
    assert_eq!(operate(&user), denied, "a caller's token is no operator's");
    let reply = Client::get(gateway.admin, "/v1/status").send();
    assert!(reply.header("www-authenticate").is_some_and(|it| it.starts_with("Bearer")));
    assert!(!reply.text().contains("operator-"));
}

#[test]
fn a_page_of_another_site_cannot_operate_the_gateway() {
    let (_upstream, gateway) = start("");
    let own = gateway.admin.to_string();
    let (host, json) = (("Host", &*own), ("Content-Type", "application/json"));
    let operate = |fields: &[(&str, &str)]| operate(gateway.admin, fields);
    assert_eq!(operate(&[host, json]), (200, None));
    assert_eq!(operate(&[host, ("Content-Type", "application/json; charset=utf-8")]), (200, None));
    assert_eq!(operate(&[("Host", "localhost"), json]), (200, None));
    let cross_site = refused(403, "cross_site_refused");
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    {
        assert_eq!(operate(&[host, ("Content-Type", kind)]), cross_site, "{kind}");
    }
    assert_eq!(operate(&[host]), cross_site, "no type at all");
    assert_eq!(operate(&[host, json, ("Origin", &format!("http://{own}"))]), (200, None));
    for origin in ["https://evil.test", "null", &*format!("https://{own}")] {
        assert_eq!(operate(&[host, json, ("Origin", origin)]), cross_site, "{origin}");
    }
    // A name that was rebound to this address (DNS rebinding).
    for name in ["evil.test", "127.0.0.1.evil.test", "localhost.evil.test"] {
        let refusal = refused(403, "admin_loopback_only");
        assert_eq!(operate(&[("Host", name), json]), refusal, "{name}");
    }
}

/// An address of this machine that is not its loopback. Nothing is sent to find it.
fn own_address() -> std::net::IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect("192.0.2.1:9").expect("a network interface beside loopback");
    socket.local_addr().expect("its address").ip()
}

#[test]
fn without_a_token_operations_are_for_this_machine_alone() {
    let json = ("Content-Type", "application/json");
    let (_upstream, gateway) = start("[admin]\nlisten = \"0.0.0.0:0\"\n");
    let port = gateway.admin.port();
    let (outside, inside) =
        (SocketAddr::new(own_address(), port), SocketAddr::from(([127, 0, 0, 1], port)));
    let named = |address: SocketAddr, host: &str| operate(address, &[("Host", host), json]);
    assert_eq!(named(inside, "localhost"), (200, None));
    let refusal = refused(403, "admin_loopback_only");
    for host in ["localhost", "127.0.0.1", &*outside.to_string()] {
        assert_eq!(named(outside, host), refusal, "{host}");
    }
    assert_eq!(Client::get(outside, "/healthz").send().status, 200);
}

#[test]
fn an_operation_that_the_store_did_not_take_is_not_reported_as_done() {
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let (_upstream, gateway) = start(&format!("[store]\nurl = \"{}\"\n", proxy.url()));
    proxy.refuse();
    eventually("the outage is noticed", || metric(&gateway, "portcullis_store_up") == Some(0.0));
    for (path, body) in
        [("/v1/cache/purge", r#"{"all": true}"#), ("/v1/revocations", r#"{"jti": "a"}"#)]
    {
        let request = Client::request(gateway.admin, "POST", path).body(body);
        let request = request.header("Host", gateway.admin.to_string());
        let reply = request.header("Content-Type", "application/json").send();
        assert_eq!(problem(&reply), (503, "store_unreachable".to_owned()), "{path}");
    }
}

#[test]
fn an_operation_of_any_size_is_bounded() {
    let (_upstream, gateway) = start("");
    let body = format!("{{\"jti\": \"{}\"}}", "x".repeat(70_000));
    let request = Client::request(gateway.admin, "POST", "/v1/revocations").body(body);
    let request = request.header("Host", gateway.admin.to_string());
    let reply = request.header("Content-Type", "application/json").send();
    assert_eq!(problem(&reply), (413, "body_too_large".to_owned()));
    let fields: Value = get(&gateway, "/v1/status").json();
    assert_eq!(fields["draining"], false, "and it goes on");
}
