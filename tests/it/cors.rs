//! Pages of other origins: their preflights are answered before anybody says who he is, and what
//! they may read says so, whoever made it.

use crate::support::{
    AUTH, Client, Gateway, Reply, Upstream, claims, eventually, raw, response, status, token,
};

const SHOP: &str = "https://shop.test";

/// An upstream that has opinions of its own, and a route with these `cors`.
fn stage(cors: &str) -> (Gateway, Upstream) {
    let own = "Access-Control-Allow-Origin: https://elsewhere.test\r\n\
               Access-Control-Allow-Credentials: true\r\nCache-Control: max-age=60\r\n";
    let upstream = Upstream::with(move |request, connection| {
        let answer =
            response("200 OK", request.target()).replacen("\r\n", &format!("\r\n{own}"), 1);
        std::io::Write::write_all(connection, answer.as_bytes()).unwrap();
    });
    let gateway = Gateway::start(&format!(
        "{AUTH}{}[limits.one]\nkey = [\"address\"]\nallow = [\"1/1h\"]\n\
         [routes.api]\npath = \"/api/*\"\nmethods = [\"GET\", \"DELETE\"]\nupstream = \"shop\"\n\
         auth = \"users\"\ncors = {cors}\n\
         [routes.open]\npath = \"/open/*\"\nupstream = \"shop\"\ncors = {cors}\n\
         cache = {{ ttl = \"1m\" }}\n\
         [routes.scarce]\npath = \"/scarce\"\nupstream = \"shop\"\nlimits = [\"one\"]\n\
         cors = {cors}\n\
         [limits.none]\nkey = [\"address\"]\nallow = [\"1/1h\"]\nblock = [\"127.0.0.0/8\"]\n\
         [routes.blocked]\npath = \"/blocked\"\nupstream = \"shop\"\nlimits = [\"none\"]\n\
         cors = {cors}\n\
         [routes.both]\npath = \"/both\"\nmethods = [\"GET\", \"OPTIONS\"]\n\
         upstream = \"shop\"\ncors = {cors}\n\
         [routes.other]\npath = \"/other\"\nupstream = \"shop\"\n",
        upstream.table("shop"),
    ));
    (gateway, upstream)
}

fn preflight(gateway: &Gateway, path: &str, origin: &str, method: &str) -> Reply {
    Client::request(gateway.public, "OPTIONS", path)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method)
        .header("Access-Control-Request-Headers", "authorization,x-own")
        .send()
}

/// The one value of a field; nothing where there is none.
fn only<'r>(reply: &'r Reply, name: &str) -> Option<&'r str> {
    let values = reply.headers_named(name);
    assert!(values.len() < 2, "{name}: {values:?}");
    values.first().copied()
}

fn allowed(reply: &Reply) -> Option<&str> {
    only(reply, "access-control-allow-origin")
}

#[test]
fn a_preflight_is_answered_without_a_token_and_without_the_upstream() {
    let (gateway, upstream) = stage("{ origins = [\"https://shop.test\"], max_age = \"90s\" }");
    let answer = preflight(&gateway, "/api/1", SHOP, "DELETE");
    assert_eq!((answer.status, answer.text().as_str()), (204, ""));
    assert_eq!(allowed(&answer), Some(SHOP));
    assert_eq!(only(&answer, "access-control-allow-methods"), Some("DELETE"));
    assert_eq!(only(&answer, "access-control-allow-headers"), Some("authorization,x-own"));
    assert_eq!(only(&answer, "access-control-max-age"), Some("90"));
    assert_eq!(only(&answer, "access-control-allow-credentials"), None);
    assert_eq!(only(&answer, "vary"), Some("origin"));
    assert_eq!(upstream.seen(), 0);
    eventually("a line that names the route", || {
        let lines = gateway.access_lines();
        lines.first().is_some_and(|line| line["route"] == "api" && line["status"] == 204)
    });
    // What no route takes is no preflight's business, and neither is what has no cors.
    assert_eq!(preflight(&gateway, "/api/1", SHOP, "POST").status, 405);
    assert_eq!(preflight(&gateway, "/nothing", SHOP, "GET").status, 404);
    assert_eq!(preflight(&gateway, "/both", SHOP, "PUT").status, 405);
    assert_eq!(preflight(&gateway, "/both", SHOP, "GET").status, 204);
    assert_eq!(preflight(&gateway, "/blocked", SHOP, "GET").status, 403);
    assert_eq!(upstream.seen(), 0);
    assert_eq!(preflight(&gateway, "/other", SHOP, "GET").text(), "/other");
    // Nor is an OPTIONS that asks about nothing.
    let plain = Client::request(gateway.public, "OPTIONS", "/open/1").header("Origin", SHOP).send();
    assert_eq!((plain.text().as_str(), allowed(&plain)), ("/open/1", Some(SHOP)));
}

#[test]
fn a_page_that_may_not_call_is_told_so_and_reads_nothing() {
    let origins = "{ origins = [\"https://shop.test\", \"https://*.shop.test\"] }";
    let (gateway, upstream) = stage(origins);
    for origin in [
        "https://evil.test",
        "http://shop.test",
        "https://shop.test:444",
        "https://shop.test.evil.test",
        "https://evil.test/.shop.test",
        "null",
        "",
    ] {
        let answer = preflight(&gateway, "/api/1", origin, "GET");
        assert_eq!((answer.status, allowed(&answer)), (403, None), "{origin}");
        assert!(answer.text().contains("origin_refused"), "{origin}: {}", answer.text());
        // What is no preflight passes: it may come from no page at all. No page reads it.
        let answer = Client::get(gateway.public, "/open/1").header("Origin", origin).send();
        assert_eq!((answer.status, allowed(&answer)), (200, None), "{origin}");
        assert_eq!(only(&answer, "access-control-allow-credentials"), None, "{origin}");
        assert_eq!(only(&answer, "vary"), Some("origin"), "{origin}");
    }
    let twice = "OPTIONS /api/1 HTTP/1.1\r\nHost: a\r\nOrigin: https://shop.test\r\n\
                 Origin: https://evil.test\r\nAccess-Control-Request-Method: GET\r\n\r\n";
    let answer = raw(gateway.public, twice);
    assert_eq!(status(&answer), 405, "with two origins it is no preflight: {answer}");
    assert!(!answer.to_ascii_lowercase().contains("access-control-allow-origin"), "{answer}");
    let answer = preflight(&gateway, "/api/1", "https://a.SHOP.test", "GET");
    assert_eq!((answer.status, allowed(&answer)), (204, Some("https://a.SHOP.test")));
    assert_eq!(upstream.recorded().iter().filter(|it| it.target() == "/api/1").count(), 0);
}

#[test]
fn refusals_can_be_read_by_the_page_too() {
    let (gateway, upstream) = stage("{ origins = [\"https://shop.test\"] }");
    let get = |path| Client::get(gateway.public, path).header("Origin", SHOP);
    let answer = get("/api/1").send();
    assert_eq!((answer.status, allowed(&answer)), (401, Some(SHOP)));
    assert_eq!(get("/scarce").send().status, 200);
    let answer = get("/scarce").send();
    assert_eq!((answer.status, allowed(&answer)), (429, Some(SHOP)));
    let exposed = only(&answer, "access-control-expose-headers").unwrap();
    for name in ["retry-after", "ratelimit", "x-request-id"] {
        assert!(exposed.split(", ").any(|one| one == name) && answer.header(name).is_some());
    }
    let answer = get("/open/%zz").send();
    assert_eq!((answer.status, allowed(&answer)), (400, None), "it has no route");
    drop(upstream);
    let answer = get("/api/1").bearer(token(claims("ada"))).send();
    assert_eq!((answer.status, allowed(&answer)), (502, Some(SHOP)));
}

#[test]
fn what_is_stored_names_the_page_that_asks_and_no_other() {
    let quiet = Upstream::replying(response("200 OK", "one for all"));
    let gateway = Gateway::start(&format!(
        "{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\ncache = {{ ttl = \"1m\" }}\n\
         cors = {{ origins = [\"https://shop.test\", \"https://b.test\"] }}\n",
        quiet.table("shop")
    ));
    for origin in [SHOP, "https://b.test", SHOP] {
        let answer = Client::get(gateway.public, "/1").header("Origin", origin).send();
        assert_eq!((answer.text().as_str(), allowed(&answer)), ("one for all", Some(origin)));
    }
    assert_eq!(quiet.seen(), 1, "one copy serves all pages");

    let (gateway, upstream) = stage("{ origins = [\"https://shop.test\", \"https://b.test\"] }");
    for origin in [SHOP, "https://b.test", SHOP] {
        let answer = Client::get(gateway.public, "/open/1").header("Origin", origin).send();
        assert_eq!((answer.text().as_str(), allowed(&answer)), ("/open/1", Some(origin)));
    }
    let answer = Client::get(gateway.public, "/open/1").send();
    assert_eq!(allowed(&answer), None);
    assert_eq!(only(&answer, "vary"), Some("origin"), "a cache on the way must not mix them up");
    assert_eq!(upstream.seen(), 3, "what the upstream says of origins makes variants");
}

#[test]
fn fields_and_credentials_are_as_configured() {
    let (gateway, _upstream) = stage(
        "{ origins = [\"https://shop.test\"], credentials = true, headers = [\"X-Own\", \"x-b\"], \
         expose = [\"X-Total\"] }",
    );
    let answer = preflight(&gateway, "/api/1", SHOP, "GET");
    assert_eq!(only(&answer, "access-control-allow-headers"), Some("x-own, x-b"));
    assert_eq!(only(&answer, "access-control-allow-credentials"), Some("true"));
    let answer = Client::get(gateway.public, "/open/1").header("Origin", SHOP).send();
    assert_eq!(allowed(&answer), Some(SHOP));
    assert_eq!(only(&answer, "access-control-allow-credentials"), Some("true"));
    assert_eq!(only(&answer, "access-control-expose-headers"), Some("x-total"));

    let (gateway, _upstream) = stage("{ origins = [\"*\"], expose = [], headers = [] }");
    let answer = preflight(&gateway, "/api/1", "https://any.test", "GET");
    assert_eq!((answer.status, allowed(&answer)), (204, Some("*")));
    assert_eq!(only(&answer, "access-control-allow-headers"), None);
    let answer = Client::get(gateway.public, "/open/1").header("Origin", "null").send();
    assert_eq!((answer.status, allowed(&answer)), (200, Some("*")));
    assert_eq!(only(&answer, "access-control-expose-headers"), None);
    assert_eq!(only(&answer, "access-control-allow-credentials"), None);
}

#[test]
fn what_a_route_answers_by_itself_can_be_read_by_its_pages_too() {
    let cors = "cors = { origins = [\"https://shop.test\"] }";
    let gateway = Gateway::start(&format!(
        "[server]\nvia = \"edge\"\n[routes.down]\npath = \"/down\"\n{cors}\n\
         respond = {{ status = 503, body = \"Back at noon.\" }}\n\
         [upstreams.none]\nservers = [\"http://127.0.0.1:1\"]\n\
         [routes.up]\npath = \"/up\"\nupstream = \"none\"\nbody_bytes = \"1B\"\n{cors}\n",
    ));
    let reads = |answer: Reply, status: u16| {
        assert_eq!((answer.status, allowed(&answer)), (status, Some(SHOP)));
        assert_eq!(only(&answer, "vary"), Some("origin"));
    };
    let post = |path: &str| Client::request(gateway.public, "POST", path).header("Origin", SHOP);
    reads(post("/down").send(), 503);
    reads(post("/up").body("xx").send(), 413);
    reads(post("/up").header("Via", "1.1 edge").send(), 508);
    reads(preflight(&gateway, "/down", SHOP, "POST"), 204);
}
