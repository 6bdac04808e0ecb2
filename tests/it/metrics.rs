//! `/metrics` as a scraper reads it: two formats, histograms of which quantiles can be computed,
//! series of what is configured and of nothing else.

mod routes;
mod upstreams;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Arc, Barrier};

use crate::support::{
    AUTH, Client, Exposition, Gateway, Redis, Session, Upstream, claims, eventually, raw, response,
    token,
};

const ROUTES: &str = r#"
[limits.tight]
key = ["address"]
allow = ["2/1h"]
[routes.open]
path = "/open/*"
upstream = "shop"
[routes.cached]
path = "/cached"
upstream = "shop"
cache = { ttl = "1h", shared = true }
[routes.limited]
path = "/limited"
upstream = "shop"
limits = ["tight"]
[routes.private]
path = "/private"
upstream = "shop"
auth = "users"
"#;

fn start(more: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let gateway = Gateway::start(&format!("{AUTH}{}{ROUTES}{more}", upstream.table("shop")));
    (upstream, gateway)
}

fn scrape(gateway: &Gateway) -> Exposition {
    Exposition::text(&Client::get(gateway.admin, "/metrics").send().text())
}

/// One request of every kind, and their number.
fn traffic(gateway: &Gateway) -> usize {
    let good = token(claims("42"));
    let paths = ["/open/1", "/cached", "/cached", "/private", "/nowhere"];
    let paths: Vec<&str> = paths.into_iter().chain(["/limited"; 4]).collect();
    for path in &paths {
        Client::get(gateway.public, path).bearer(&good).send();
    }
    Client::request(gateway.public, "TRACE", "/open/1").send();
    paths.len() + 1
}

fn requests(gateway: &Gateway) -> f64 {
    let all = scrape(gateway).series;
    all.iter().filter(|((name, _), _)| name == "portcullis_requests_total").map(|it| it.1).sum()
}

#[test]
fn both_formats_are_what_scrapers_read() {
    let redis = Redis::start();
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let gateway = Gateway::start(&format!(
        "[store]\nurl = \"{}\"\ntimeout = \"5s\"\n{AUTH}{}{ROUTES}",
        redis.url(),
        upstream.table("shop")
    ));
    let sent = traffic(&gateway) as f64;
    eventually("all are counted", || requests(&gateway) >= sent);
    let get = |accept: &str| {
        let request = Client::get(gateway.admin, "/metrics");
        let reply = if accept.is_empty() { request } else { request.header("Accept", accept) };
        let reply = reply.send();
        assert_eq!(reply.header("vary"), Some("accept"));
        (reply.header("content-type").unwrap_or_default().to_owned(), reply.text())
    };
    let plain = "text/plain; version=0.0.4; charset=utf-8";
    for accept in ["", "*/*", "text/plain", "text/plain;q=1, application/openmetrics-text;q=0.9"] {
        let (kind, text) = get(accept);
        assert_eq!(kind, plain, "{accept:?}");
        Exposition::text(&text);
    }
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                      version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for accept in ["application/openmetrics-text", prometheus] {
        let (kind, text) = get(accept);
        assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        let open = Exposition::open_metrics(&text);
        assert_eq!(open.families, scrape(&gateway).families);
    }
    let read = scrape(&gateway);
    let waited = [("route", "open"), ("answered_by", "upstream")];
    assert_eq!(read.value("portcullis_request_duration_seconds_count", &waited), Some(1.0));
    let shop = [("upstream", "shop")];
    let sent_on = read.value("portcullis_upstream_duration_seconds_count", &shop);
    assert!(sent_on >= Some(5.0), "{sent_on:?}");
    let passed = [("limit", "tight"), ("outcome", "pass")];
    assert_eq!(read.value("portcullis_limit_checks_total", &passed), Some(2.0));
    for (route, status) in [("unmatched", "404"), ("malformed", "405")] {
        let labels = [("route", route), ("status", status)];
        assert_eq!(read.value("portcullis_requests_total", &labels), Some(1.0), "{route}");
    }
    assert!(!read.mentions("route", "-"));
}

#[test]
fn all_gateways_list_their_series_in_the_same_order() {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let config = format!("{AUTH}{}{ROUTES}", upstream.table("shop"));
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    let listed = |gateway: &Gateway| -> Vec<String> {
        let text = Client::get(gateway.admin, "/metrics").send().text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    };
    let [first, again, other] = [0, 0, 1].map(|index: usize| listed(&gateways[index]));
    assert_eq!(first, again, "of one gateway");
    // What stands in the order of a hash stands in another one there.
    assert_eq!(first, other, "of another gateway");
    for (family, count) in [
        ("acme_orders_total", 8),
        ("connection_errors_total", 12),
        ("connections_refused_total", 3),
        ("handovers_total", 2),
        ("reloads_total", 2),
        ("store_evicted_total", 3),
        ("store_failures_total", 7),
        ("store_lineage_changes_total", 2),
        ("store_use_up", 4),
        ("tls_handshakes_total", 12),
        ("tls_reloads_total", 2),
        ("tls_versions_total", 4),
    ] {
        let begin = format!("portcullis_{family}{{");
        let series: Vec<&String> = first.iter().filter(|it| it.starts_with(&begin)).collect();
        assert_eq!(series.len(), count, "{series:#?}");
        assert!(series.is_sorted(), "{series:#?}");
    }
}

#[test]
fn routes_without_a_cache_have_no_series_of_one() {
    let (_upstream, gateway) = start("");
    traffic(&gateway);
    for (name, labels) in scrape(&gateway).series.keys() {
        let is_cached = labels.contains(&("route".to_owned(), "cached".to_owned()));
        let is_of_a_cache = name.starts_with("portcullis_cache_");
        let has_route = labels.iter().any(|(label, _)| label == "route");
        assert!(!is_of_a_cache || !has_route || is_cached, "{name} {labels:?}");
    }
}

#[test]
fn a_reload_takes_series_away_adds_some_and_keeps_the_counts_of_the_rest() {
    let (upstream, gateway) = start("");
    let sent = traffic(&gateway) as f64;
    eventually("all are counted", || requests(&gateway) >= sent);
    // A connection that rests keeps the plan that its last request had.
    let mut resting = Session::open(gateway.public);
    assert_eq!(resting.get("/open/2").send().status, 200);
    let open = [("route", "open"), ("status", "200")];
    let name = "portcullis_requests_total";
    eventually("it is counted", || scrape(&gateway).value(name, &open) == Some(2.0));
    assert!(scrape(&gateway).mentions("route", "limited"));
    let routes = ROUTES.replace("routes.limited", "routes.added").replace("tight", "loose");
    gateway.rewrite(&format!("{AUTH}{}{routes}", upstream.table("shop")));
    gateway.signal("HUP");
    let applied = [("result", "applied")];
    let reloads = "portcullis_reloads_total";
    eventually("it is reloaded", || scrape(&gateway).value(reloads, &applied) == Some(1.0));
    let read = scrape(&gateway);
    for (label, gone) in [("route", "limited"), ("limit", "tight")] {
        assert!(!read.mentions(label, gone), "{gone} stays");
    }
    assert_eq!(read.value(name, &open), Some(2.0));
    assert_eq!(resting.get("/limited").send().status, 200, "the route is called otherwise now");
    assert_eq!(Client::get(gateway.public, "/open/3").send().status, 200);
    eventually("it goes on counting", || scrape(&gateway).value(name, &open) == Some(3.0));
    let read = scrape(&gateway);
    assert!(!read.mentions("route", "limited"));
    for (label, new) in [("route", "added"), ("limit", "loose")] {
        assert!(read.mentions(label, new), "{new} is missing");
    }
    gateway.rewrite("nonsense");
    gateway.signal("HUP");
    let refused = [("result", "refused")];
    eventually("it is refused", || scrape(&gateway).value(reloads, &refused) == Some(1.0));
}

#[test]
fn what_is_used_stands_beside_its_bound() {
    let gate = Arc::new(Barrier::new(2));
    let inside = Arc::clone(&gate);
    let upstream = Upstream::with(move |_, connection| {
        inside.wait();
        let _ = connection.write_all(response("200 OK", "ok").as_bytes());
    });
    let gateway = Gateway::start(&format!(
        "[server.limits]\nconnections = 321\n[store]\nnear_cache_bytes = \"3MiB\"\n\
         backlog_bytes = \"5MiB\"\nrevocations = 4321\n{}max_connections = 7\n[routes.all]\n\
         path = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let none = scrape(&gateway);
    assert_eq!(none.value("portcullis_requests_in_flight", &[]), Some(0.0));
    let mut held = Session::open(gateway.public);
    held.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("it is forwarded", || upstream.seen() == 1);
    let read = scrape(&gateway);
    let mib = 1024.0 * 1024.0;
    for (name, labels, value) in [
        ("portcullis_requests_in_flight", &[][..], 1.0),
        ("portcullis_connections", &[], 1.0),
        ("portcullis_connections_max", &[], 321.0),
        ("portcullis_cache_near_max_bytes", &[], 3.0 * mib),
        ("portcullis_cache_backlog_max_bytes", &[], 5.0 * mib),
        ("portcullis_revocations_max", &[], 4321.0),
        (
            "portcullis_upstream_connections",
            &[("upstream", "shop"), ("state", "busy"), ("protocol", "http1")],
            1.0,
        ),
        ("portcullis_upstream_connections_max", &[("upstream", "shop")], 7.0),
        ("portcullis_upstream_requests_max", &[("upstream", "shop")], 7.0),
        ("portcullis_upstream_requests_waiting", &[("upstream", "shop")], 0.0),
    ] {
        assert_eq!(read.value(name, labels), Some(value), "{name}");
    }
    gate.wait();
    assert_eq!(held.read().status, 200);
    eventually("it has ended", || {
        scrape(&gateway).value("portcullis_requests_in_flight", &[]) == Some(0.0)
    });
}

#[test]
fn the_process_is_told_of_as_every_exporter_does() {
    let (_upstream, gateway) = start("");
    let read = scrape(&gateway);
    let value = |name: &str| read.value(name, &[]).unwrap_or_else(|| panic!("{name}"));
    let mib = 1024.0 * 1024.0;
    assert!((mib..1024.0 * mib).contains(&value("process_resident_memory_bytes")));
    assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
    assert!(value("process_cpu_seconds_total") >= 0.0);
    assert!((5.0..value("process_max_fds")).contains(&value("process_open_fds")));
    let age = jiff::Timestamp::now().as_second() as f64 - value("process_start_time_seconds");
    assert!((-5.0..600.0).contains(&age), "{age}");
}

#[test]
fn nothing_that_a_client_sends_makes_a_series() {
    let (_upstream, gateway) = start("");
    let series = || scrape(&gateway).series.into_keys().collect::<BTreeSet<_>>();
    let probe = |word: &str| {
        for request in [
            format!(
                "GET /{word}?{word} HTTP/1.1\r\nHost: {word}.test\r\nConnection: close\r\n\r\n"
            ),
            format!("GET /open/{word} HTTP/1.1\r\nHost: a\r\nX-{word}: {word}\r\n\r\n"),
            format!("{word} /open/1 HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET /private HTTP/1.1\r\nHost: a\r\nAuthorization: {word} {word}\r\n\r\n"),
            format!("GET /private HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {word}\r\n\r\n"),
            format!("GET /{word}%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("{word}\r\n\r\n"),
        ] {
            raw(gateway.public, request);
        }
    };
    probe("first");
    eventually("they are counted", || requests(&gateway) == 7.0);
    let before = series();
    for number in 0..20 {
        probe(&format!("other{number}"));
    }
    eventually("they are counted", || requests(&gateway) == 147.0);
    assert_eq!(series(), before);
}

/// The names in the first column of the reference's table of metrics.
fn documented() -> BTreeSet<String> {
    let (_, section) = include_str!("../../docs/reference.md").split_once("## Metrics").unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `"));
    cells.map(|line| line.split(['`', '{']).next().unwrap().to_owned()).collect()
}

#[test]
fn the_reference_lists_every_family_and_no_other() {
    let (_upstream, gateway) = start("[telemetry.traces]\nsample = \"0%\"\nerrors = \"0/s\"\n");
    let families: BTreeSet<String> = scrape(&gateway).families.into_keys().collect();
    assert_eq!(documented(), families);
}
