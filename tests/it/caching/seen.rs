//! What the cache tells of itself: to clients that debug it, and to operators.

use std::io::Write as _;

use crate::support::{Client, Exposition, Gateway, Redis, Upstream, eventually, operate, response};

const CONFIG: &str = r#"
[server]
trusted_proxies = ["127.0.0.1"]
cache_debuggers = ["10.0.0.0/8"]
[routes.all]
path = "/*"
upstream = "shop"
cache = { ttl = "1h" }
"#;

/// Keeps nothing below `/private`.
fn upstream() -> Upstream {
    Upstream::with(|request, connection| {
        let is_private = request.target().starts_with("/private");
        let control = if is_private { "no-store" } else { "max-age=600" };
        let head = format!("200 OK\r\nETag: \"e\"\r\nCache-Control: {control}");
        let _ = connection.write_all(response(&head, "hello").as_bytes());
    })
}

/// Our member of Cache-Status, as the client at `address` gets it.
fn status(gateway: &Gateway, address: &str, path: &str) -> String {
    let request = Client::get(gateway.public, path).header("X-Forwarded-For", address);
    let reply = request.header("Host", "a.test").send();
    assert_eq!(reply.status, 200);
    reply.header("cache-status").expect("Cache-Status").to_owned()
}

#[test]
fn only_debuggers_are_told_the_key_and_the_detail() {
    let (redis, upstream) = (Redis::start(), upstream());
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
    let config = store + CONFIG + &upstream.table("shop");
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    let key = "key=\"app:cache:{a.test/p}:entry:all;shop:?q\"";
    let ask = |gateway: usize, path: &str| status(&gateways[gateway], "10.1.2.3", path);
    assert_eq!(ask(0, "/p?q"), format!("portcullis; fwd=uri-miss; stored; {key}"));
    eventually("it is in Redis", || ask(1, "/p?q").contains("; hit; "));
    eventually("it is here", || ask(0, "/p?q").ends_with(&format!("; {key}; detail=\"near\"")));
    let private = key.replace("/p}", "/private}").replace("?q", "");
    let expected = format!("portcullis; fwd=uri-miss; {private}; detail=\"no_store\"");
    assert_eq!(ask(0, "/private"), expected);
    for (body, told) in [
        (r#"{"path": "/p", "soft": true}"#, "fwd=stale; "),
        (r#"{"path": "/p"}"#, "fwd=uri-miss; stored; "),
    ] {
        assert_eq!(operate(&gateways[1], "POST", "/v1/cache/purge", body).status, 200);
        let purged = ask(0, "/p?q");
        assert!(purged.contains(told) && purged.ends_with("detail=\"purged\""), "{purged}");
    }
    for stranger in ["192.0.2.1", "127.0.0.1", "2001:db8::1"] {
        for path in ["/p?q", "/private", "/other"] {
            let status = status(&gateways[0], stranger, path);
            assert!(!status.contains("key") && !status.contains("detail"), "{stranger}: {status}");
        }
    }
}

#[test]
fn a_response_that_another_gateway_stored_is_said_to_come_from_the_store() {
    let (redis, upstream) = (Redis::start(), upstream());
    let store = format!(
        "[store]\nurl = \"{}\"\ntimeout = \"5s\"\nnear_cache_bytes = \"0B\"\n",
        redis.url()
    );
    let gateway = Gateway::start(&(store + CONFIG + &upstream.table("shop")));
    eventually("it is in Redis", || {
        status(&gateway, "10.0.0.1", "/p").ends_with("; detail=\"store\"")
    });
}

#[test]
fn operators_see_what_each_route_gets_from_the_cache() {
    let upstream = upstream();
    let config = CONFIG.to_owned() + &upstream.table("shop");
    let gateway = Gateway::start(&config);
    let known = |name: &str| {
        let text = Client::get(gateway.admin, "/metrics").send().text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("portcullis_{name} ")));
        line.map(|value| value.parse::<f64>().expect("a number"))
    };
    let metric = |name: &str| known(name).unwrap_or_default();
    status(&gateway, "192.0.2.1", "/p");
    eventually("it is stored", || metric("cache_stored_total{route=\"all\"}") == 1.0);
    let ttl = metric("cache_stored_ttl_seconds_total{route=\"all\"}");
    assert!((590.0..=600.0).contains(&ttl), "{ttl}");
    for _ in 0..3 {
        assert!(status(&gateway, "192.0.2.1", "/p").contains("; hit"));
    }
    eventually("the last one is counted", || {
        metric("cache_answers_total{route=\"all\",source=\"near\"}") == 3.0
            && metric("cache_sent_bytes_total{route=\"all\"}") == 15.0
    });
    assert_eq!(known("cache_answers_total{route=\"all\",source=\"store\"}"), None);
    assert!(metric("cache_near_bytes") > 0.0);
    for idle in ["cache_flights", "cache_backlog_bytes", "cache_epochs_followed"] {
        assert_eq!(known(idle), Some(0.0), "{idle}");
    }
    let status: serde_json::Value =
        serde_json::from_str(&operate(&gateway, "GET", "/v1/status", "").text()).expect("JSON");
    let route = &status["cache"]["routes"]["all"];
    assert_eq!((&route["requests"], &route["hit_ratio"]), (&4.into(), &0.75.into()), "{status}");
    assert_eq!((&route["stored"], &route["sent_bytes"]), (&1.into(), &15.into()), "{status}");
    assert!(status["cache"]["hints"].as_array().is_some_and(Vec::is_empty), "{status}");
}

#[test]
fn what_gives_way_in_memory_is_counted_and_nothing_else() {
    let head = "200 OK\r\nCache-Control: max-age=0, stale-while-revalidate=600";
    let upstream = Upstream::replying(response(head, &"x".repeat(2_000)));
    let start = |size: &str| {
        let store = format!("[store]\nnear_cache_bytes = \"{size}\"\n");
        Gateway::start(&(store + CONFIG + &upstream.table("shop")))
    };
    let metric = |gateway: &Gateway, name: &str| {
        let text = Client::get(gateway.admin, "/metrics").send().text();
        Exposition::text(&text).value(name, &[]).unwrap_or_default()
    };
    let stored = |gateway: &Gateway, count: f64| {
        eventually("they are stored", || {
            let text = Client::get(gateway.admin, "/metrics").send().text();
            let labels = [("route", "all")];
            Exposition::text(&text).value("portcullis_cache_stored_total", &labels) >= Some(count)
        });
    };
    let evictions = "portcullis_cache_near_evictions_total";
    // One takes the place of another one for the same, and of none for anything else.
    let (large, none) = (start("8MiB"), start("0B"));
    for gateway in [&large, &none] {
        for _ in 0..20 {
            status(gateway, "192.0.2.1", "/p");
        }
        stored(gateway, 1.0);
        assert_eq!(metric(gateway, evictions), 0.0);
    }
    let small = start("64KiB");
    for number in 0..100 {
        status(&small, "192.0.2.1", &format!("/{number}"));
    }
    stored(&small, 100.0);
    let (held, gone) = (metric(&small, "portcullis_cache_near_bytes"), metric(&small, evictions));
    // Each is a little more than two thousand bytes.
    assert!((100.0 - held / 2_000.0..100.0).contains(&gone), "{held} bytes, {gone} are gone");
}

#[test]
fn who_waits_for_a_new_answer_in_place_of_a_stale_one_is_counted_as_a_miss() {
    let head = "200 OK\r\nETag: \"e\"\r\nCache-Control: max-age=0";
    let upstream = Upstream::replying(response(head, "hello"));
    let gateway = Gateway::start(&(CONFIG.to_owned() + &upstream.table("shop")));
    assert_eq!(status(&gateway, "192.0.2.1", "/p"), "portcullis; fwd=uri-miss; stored");
    assert_eq!(status(&gateway, "192.0.2.1", "/p"), "portcullis; fwd=stale; stored");
    eventually("both are counted", || {
        let text = Client::get(gateway.admin, "/metrics").send().text();
        text.contains("cache_requests_total{route=\"all\",verdict=\"miss\"} 2\n")
            && !text.contains("verdict=\"stale\"")
    });
}

#[test]
fn known_epochs_are_counted_where_they_are_followed() {
    let (redis, upstream) = (Redis::start(), upstream());
    let store = format!("[store]\nurl = \"{}\"\ncache_epochs = \"follow\"\n", redis.url());
    let gateway = Gateway::start(&(store + CONFIG + &upstream.table("shop")));
    eventually("they are followed and known", || {
        status(&gateway, "192.0.2.1", "/p");
        let text = Client::get(gateway.admin, "/metrics").send().text();
        text.contains("portcullis_cache_epochs_followed 1")
            && !text.contains("portcullis_cache_epochs_known 0\n")
    });
}
