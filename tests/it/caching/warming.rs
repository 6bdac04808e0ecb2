//! Warming: what nobody has asked for yet is a hit, fetched once for all gateways.

use std::io::Write as _;

use crate::support::{
    AUTH, Client, Folder, Gateway, Redis, Refused, Upstream, eventually, operate, response, run,
};

/// Answers by language, and has a sitemap.
fn upstream() -> Upstream {
    Upstream::with(|request, connection| {
        let body = match request.target() {
            "/sitemap.xml" => "<loc>http://shop.test/a?x=1&amp;y=2</loc>\
                               <loc>http://shop.test/b</loc><loc>http://other.test/c</loc>\
                               <loc>http://shop.test/elsewhere/d</loc>"
                .to_owned(),
            _ => request.header("accept-language").unwrap_or("none").to_owned(),
        };
        let head = match request.target() {
            "/never" => "200 OK\r\nCache-Control: no-store",
            "/gone" => "410 Gone\r\nCache-Control: no-store",
            _ => "200 OK\r\nCache-Control: max-age=600\r\nVary: Accept-Language",
        };
        let _ = connection.write_all(response(head, &body).as_bytes());
    })
}

fn routes(warm: &str) -> String {
    format!(
        "[routes.all]\nhost = \"shop.test\"\npath = \"/*\"\nupstream = \"shop\"\n\
         cache = {{ ttl = \"1h\", warm = {{ {warm} }} }}\n\
         [routes.other]\npath = \"/elsewhere/*\"\nhost = \"shop.test\"\nupstream = \"shop\"\n"
    )
}

fn is_hit(gateway: &Gateway, path: &str, language: &str) -> bool {
    let request = Client::get(gateway.public, path).header("Host", "shop.test");
    let reply =
        request.header("Accept-Language", language).header("Cache-Control", "only-if-cached");
    let reply = reply.send();
    assert!(reply.status == 504 || reply.text() == language, "{path}: {reply:?}");
    reply.status == 200
}

#[test]
fn at_the_start_one_gateway_fetches_for_all() {
    let (redis, upstream) = (Redis::start(), upstream());
    let warm = r#"urls = ["/"], sitemap = "/sitemap.xml", vary = [{ accept-language = "de" },
        { accept-language = "en" }], per_second = 1000"#
        .replace("\n       ", "");
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
    let config = store + &upstream.table("shop") + &routes(&warm);
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    for gateway in &gateways {
        for path in ["/", "/a?x=1&y=2", "/b"] {
            for language in ["de", "en"] {
                eventually("it is warm", || is_hit(gateway, path, language));
            }
            assert!(!is_hit(gateway, path, "fr"));
        }
        assert!(!is_hit(gateway, "/c", "de"));
    }
    let mut targets: Vec<String> =
        upstream.recorded().iter().map(|request| request.target().to_owned()).collect();
    targets.sort_unstable();
    targets.dedup();
    assert_eq!(targets, ["/", "/a?x=1&y=2", "/b", "/sitemap.xml"]);
    eventually("it is told", || gateways.iter().any(|it| it.stderr().contains("elsewhere: 1")));
    // Whoever comes later finds it all, and asks nobody.
    let fetched = upstream.seen();
    let late = Gateway::start(&config);
    eventually("it has looked", || late.stderr().contains("fresh: 6"));
    assert_eq!(upstream.seen(), fetched);
}

fn warm(gateway: &Gateway, route: &str) -> Refused {
    run(&Folder::new(), &["warm", route, "--admin", &format!("http://{}", gateway.admin)])
}

#[test]
fn on_demand_it_says_what_it_did() {
    let upstream = upstream();
    let urls = r#"urls = ["/", "/b", "/never", "/gone", "/elsewhere/d"]"#;
    let gateway = Gateway::start(&(upstream.table("shop") + &routes(urls)));
    eventually("the start's run is over", || gateway.stderr().contains("stored: 2"));
    upstream.forget();
    let all = r#"{"all": true}"#;
    assert_eq!(operate(&gateway, "POST", "/v1/cache/purge", all).status, 200);
    for (stored, fresh) in [(2, 0), (0, 2)] {
        let expected = format!(
            "warmed: {stored} stored, {fresh} fresh already, 1 not to be stored, 1 failed, 1 of \
             other routes\n"
        );
        let ran = warm(&gateway, "all");
        assert_eq!((ran.code, ran.stdout), (Some(0), expected), "{}", ran.stderr);
    }
    assert!(upstream.recorded().iter().all(|request| !request.target().starts_with("/elsewhere")));
    for route in ["other", "none"] {
        let ran = warm(&gateway, route);
        assert_eq!(ran.code, Some(1), "{route}");
        assert!(ran.stderr.contains("cache.warm"), "{}", ran.stderr);
    }
}

#[test]
fn somebody_elses_run_is_not_doubled() {
    let (redis, upstream) = (Redis::start(), upstream());
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
    redis.cli(&["SET", "app:cache-warming:all", "another"]);
    let config = store + &upstream.table("shop") + &routes("urls = [\"/\"]");
    let gateway = Gateway::start(&config);
    let busy = operate(&gateway, "POST", "/v1/cache/warm", r#"{"route": "all"}"#);
    assert_eq!(busy.status, 409, "{}", busy.text());
    assert_eq!(upstream.seen(), 0);
    redis.cli(&["DEL", "app:cache-warming:all"]);
    let done = operate(&gateway, "POST", "/v1/cache/warm", r#"{"route": "all"}"#);
    assert_eq!(done.status, 200, "{}", done.text());
    assert!(redis.cli(&["EXISTS", "app:cache-warming:all"]) == "0", "the lock is given back");
}

#[test]
fn what_cannot_be_warmed_is_refused_by_check() {
    let upstream = upstream();
    for (route, part) in [
        (
            "host = \"a.test\"\nauth = \"users\"\n\
             cache = { shared = true, warm = { urls = [\"/\"] } }",
            "needs a caller",
        ),
        ("cache = { ttl = \"1h\", warm = { urls = [\"/\"] } }", "for which host"),
        ("host = \"a.test\"\ncache = { warm = { } }", "names nothing to fetch"),
        ("host = \"a.test\"\ncache = { warm = { urls = [\"b\"] } }", "is not a path"),
        (
            "host = \"a.test\"\nmethods = [\"POST\"]\ncache = { warm = { urls = [\"/\"] } }",
            "no GET",
        ),
        (
            "host = \"*.test\"\ncache = { warm = { host = \"b.org\", urls = [\"/\"] } }",
            "no host of",
        ),
        (
            "host = \"a.test\"\ncache = { warm = { urls = [\"/\"], vary = [{ cookie = \"a\" }] } }",
            "does not choose",
        ),
    ] {
        let config = AUTH.to_owned()
            + &upstream.table("shop")
            + &format!("[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n{route}\n");
        let refused = Gateway::try_start(&config);
        assert_eq!(refused.code, Some(2), "{route}");
        assert!(refused.stderr.contains(part), "{part:?} is not in {}", refused.stderr);
    }
}
