//! What upstreams are asked for in place of what clients asked for, and what is answered without
//! one.

use crate::support::{
    AUTH, Client, Gateway, Upstream, claims, eventually, raw, response, status, token,
};

fn stage(routes: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::replying(response("200 OK", "from the upstream"));
    let gateway = Gateway::start(&format!("{AUTH}{}{routes}", upstream.table("shop")));
    (gateway, upstream)
}

#[test]
fn the_upstream_is_asked_for_the_second_target() {
    let (gateway, upstream) = stage(
        "[routes.stripped]
        path = \"/api/*\"
        upstream = \"shop\"
        rewrite = { strip_prefix = \"/api\" }
        [routes.replaced]
        path = \"/users/{id}/*\"
        upstream = \"shop\"
        rewrite = { replace = \"/v2/u/{id}/{rest}\", host = \"users.internal:8080\" }
        [routes.hosted]
        path = \"/hosted\"
        upstream = \"shop\"
        rewrite = { host = \"hosted.internal\" }
        [routes.plain]
        path = \"/plain\"
        upstream = \"shop\"",
    );
    for (path, target, host, prefix) in [
        ("/api/a/b?c=%2F&d", "/a/b?c=%2F&d", "shop.test", Some("/api")),
        ("/api", "/", "shop.test", Some("/api")),
        ("/users/7/a%20b/?q", "/v2/u/7/a%20b/?q", "users.internal:8080", None),
        ("/users/7", "/v2/u/7/", "users.internal:8080", None),
        ("/hosted", "/hosted", "hosted.internal", None),
        ("/plain", "/plain", "shop.test", None),
    ] {
        upstream.forget();
        let get = Client::get(gateway.public, path).header("X-Forwarded-Prefix", "/evil");
        assert_eq!(get.send().status, 200, "{path}");
        let request = upstream.only();
        assert_eq!((request.target(), request.header("host")), (target, Some(host)), "{path}");
        assert_eq!(request.header("x-forwarded-prefix"), prefix, "{path}");
        // What the client asked for is told apart.
        assert_eq!(request.header("x-forwarded-host"), Some("shop.test"), "{path}");
    }
    eventually("lines about what clients asked for", || {
        let lines = gateway.access_lines();
        lines.len() == 6 && lines[0]["path"] == "/api/a/b" && lines[4]["host"] == "shop.test"
    });
}

/// One canonical text is matched, cut and sent: nothing is decoded for one and raw for the other.
#[test]
fn no_spelling_leads_around_a_route_by_a_rewrite() {
    let (gateway, upstream) = stage(
        "[routes.public]
        path = \"/api/*\"
        upstream = \"shop\"
        rewrite = { strip_prefix = \"/api\" }
        [routes.admin]
        path = \"/api/admin/*\"
        upstream = \"shop\"
        auth = \"users\"
        rewrite = { strip_prefix = \"/api\" }",
    );
    for (path, expected, target) in [
        ("/api/x", 200, Some("/x")),
        ("/%61pi/x", 200, Some("/x")),
        ("/api/x/%2e%2e/y", 200, Some("/y")),
        ("/api/%252e%252e/admin", 200, Some("/%252e%252e/admin")),
        ("/api/a%3Fb", 200, Some("/a%3Fb")),
        ("/x/../api//y", 200, Some("/y")),
        ("/api/admin", 401, None),
        ("/api/%61dmin", 401, None),
        ("/api/x/..//admin/y", 401, None),
        ("/api/./%2e/admin", 401, None),
        ("/api/..%2fadmin", 400, None),
        ("/api%2fadmin", 400, None),
        ("/api/..;/admin", 400, None),
        ("/api/..%5cadmin", 400, None),
        ("/api/../admin", 404, None),
        ("/apix", 404, None),
    ] {
        upstream.forget();
        let answer = raw(gateway.public, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(status(&answer), expected, "{path}: {answer}");
        let asked: Vec<String> =
            upstream.recorded().iter().map(|it| it.target().to_owned()).collect();
        assert_eq!(asked.first().map(String::as_str), target, "{path}");
    }
    let token = token(claims("alice"));
    upstream.forget();
    Client::get(gateway.public, "/api/admin/x").bearer(token).send();
    assert_eq!(upstream.only().target(), "/admin/x");
}

#[test]
fn the_cache_and_its_writes_keep_to_what_clients_ask_for() {
    let (gateway, upstream) = stage(
        "[routes.kept]
        path = \"/shop/*\"
        upstream = \"shop\"
        cache = { ttl = \"1m\" }
        rewrite = { strip_prefix = \"/shop\" }",
    );
    let verdict = |answer: crate::support::Reply| answer.header("cache-status").unwrap().to_owned();
    let get = || verdict(Client::get(gateway.public, "/shop/1").send());
    assert!(get().contains("fwd=uri-miss"));
    assert!(get().contains("hit"));
    Client::request(gateway.public, "PUT", "/shop/1").body("x").send();
    assert!(get().contains("fwd="), "the write has made it stale");
    let targets: Vec<String> =
        upstream.recorded().iter().map(|it| it.target().to_owned()).collect();
    assert_eq!(targets, ["/1", "/1", "/1"]);
}

#[test]
fn a_route_may_answer_by_itself() {
    let (gateway, upstream) = stage(
        "[routes.moved]
        path = \"/old/*\"
        respond = { status = 308, location = \"https://new.test/shop/{rest}\" }
        [routes.here]
        path = \"/here/*\"
        respond = { status = 302, location = \"/{rest}\" }
        [routes.www]
        path = \"/www\"
        respond = { status = 301, location = \"https://www.{host}/{path}\" }
        [routes.down]
        path = \"/down/*\"
        upstream = \"shop\"
        auth = \"users\"
        response_headers = { set = { cache-control = \"no-store\" } }
        respond = { status = 503, body = \"Back at noon.\", retry_after = \"10m\" }
        [routes.gone]
        path = \"/gone\"
        methods = [\"GET\"]
        respond = { status = 410 }",
    );
    for (path, status, location) in [
        ("/old/a/b?c=d", 308, "https://new.test/shop/a/b?c=d"),
        ("/old", 308, "https://new.test/shop/"),
        ("/old/%2e%2e/old/x", 308, "https://new.test/shop/x"),
        ("/here//evil.test/x", 302, "/evil.test/x"),
        ("/here/", 302, "/"),
        ("/www", 301, "https://www.shop.test/www"),
    ] {
        let answer = Client::get(gateway.public, path).send();
        assert_eq!((answer.status, answer.header("location")), (status, Some(location)), "{path}");
        assert_eq!(answer.text(), "", "{path}");
    }
    for method in ["GET", "POST"] {
        let answer = Client::request(gateway.public, method, "/down/x").send();
        assert_eq!((answer.status, answer.text().as_str()), (503, "Back at noon."));
        assert_eq!(answer.header("retry-after"), Some("600"));
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.header("x-request-id").is_some());
    }
    let head = raw(gateway.public, "HEAD /down/x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 503 ") && head.ends_with("\r\n\r\n"), "{head}");
    let call = Client::request(gateway.public, "POST", "/down/x");
    let answer = call.header("Content-Type", "application/grpc").send();
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("14")));
    assert_eq!(answer.header("retry-after"), Some("600"));
    assert_eq!(Client::get(gateway.public, "/gone").send().status, 410);
    assert_eq!(Client::request(gateway.public, "POST", "/gone").send().status, 405);
    assert_eq!(upstream.seen(), 0);
    eventually("lines with the routes' names", || {
        let lines = gateway.access_lines();
        lines.iter().any(|line| line["route"] == "down" && line["status"] == 503)
    });
}
