//! Fields that requests and responses are given or lose by rules of the configuration.

use crate::support::{AUTH, Client, Gateway, Reply, Upstream};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nServer: old/1.0\r\nX-Powered-By: old\r\n\
                      X-Both: upstream\r\nCache-Control: max-age=60\r\n\
                      Content-Length: 2\r\n\r\nok";

fn stage() -> (Gateway, Upstream) {
    let upstream = Upstream::replying(ANSWER);
    let gateway = Gateway::start(&format!(
        "[server]
        request_headers = {{ set = {{ X-Env = \"prod\" }}, remove = [\"x-debug\"] }}
        [server.response_headers]
        set = {{ X-Frame-Options = \"DENY\", X-Both = \"all\" }}
        remove = [\"server\", \"x-powered-by\"]
        {AUTH}{}
        [routes.plain]
        path = \"/plain\"
        upstream = \"shop\"
        [routes.own]
        path = \"/own/*\"
        upstream = \"shop\"
        cache = {{}}
        cors = {{ origins = [\"https://a.test\"] }}
        [routes.own.request_headers]
        set = {{ Authorization = \"env:PATH\", X-Env = \"test\" }}
        add = {{ X-Tag = \"ours\" }}
        [routes.own.response_headers]
        set = {{ X-Both = \"route\" }}
        add = {{ Link = \"</style.css>; rel=preload\" }}
        [routes.mine]
        path = \"/mine\"
        upstream = \"shop\"
        auth = \"users\"",
        upstream.table("shop"),
    ));
    (gateway, upstream)
}

/// What all responses have, and what is `both`.
fn is_dressed(reply: &Reply, status: u16, both: &str) {
    assert_eq!(reply.status, status);
    assert_eq!(reply.headers_named("x-frame-options"), ["DENY"], "{status}");
    assert_eq!(reply.headers_named("x-both"), [both], "{status}");
    assert!(reply.header("server").is_none() && reply.header("x-powered-by").is_none(), "{status}");
    assert_eq!(reply.headers_named("x-request-id").len(), 1, "{status}");
}

#[test]
fn requests_are_given_and_lose_fields() {
    let (gateway, upstream) = stage();
    let get = |path: &str| {
        let get = Client::get(gateway.public, path).header("X-Env", "mine").header("X-Env", "too");
        get.header("X-Debug", "1").header("X-Tag", "theirs").send()
    };
    get("/plain");
    get("/own/1");
    let recorded = upstream.recorded();
    let [plain, own] = &recorded[..] else { panic!("{recorded:?}") };
    assert_eq!(plain.headers_named("x-env"), ["prod"], "whatever the client says");
    assert_eq!(plain.headers_named("x-tag"), ["theirs"]);
    assert_eq!(own.headers_named("x-env"), ["test"], "the route has the last word");
    assert_eq!(own.headers_named("x-tag"), ["theirs", "ours"]);
    assert_eq!(own.header("authorization"), std::env::var("PATH").ok().as_deref());
    for request in [plain, own] {
        assert_eq!(request.header("x-debug"), None);
    }
}

#[test]
fn every_response_is_dressed_whoever_made_it() {
    let (gateway, upstream) = stage();
    let get = |path: &str| Client::get(gateway.public, path);
    is_dressed(&get("/plain").send(), 200, "all");
    let fetched = get("/own/1").send();
    is_dressed(&fetched, 200, "route");
    let stored = get("/own/1").send();
    is_dressed(&stored, 200, "route");
    assert_eq!(upstream.seen(), 2, "one is from the cache");
    for answer in [fetched, stored] {
        assert_eq!(answer.headers_named("link"), ["</style.css>; rel=preload"]);
    }
    // Refusals and what the gateway says itself, with and without a route.
    is_dressed(&get("/mine").send(), 401, "all");
    is_dressed(&get("/nothing").send(), 404, "all");
    is_dressed(&get("/%00").send(), 400, "all");
    let ask = |origin: &str| {
        let ask = Client::request(gateway.public, "OPTIONS", "/own/1").header("Origin", origin);
        ask.header("Access-Control-Request-Method", "GET").send()
    };
    is_dressed(&ask("https://a.test"), 204, "route");
    is_dressed(&ask("https://b.test"), 403, "route");
    is_dressed(&Client::request(gateway.public, "OPTIONS", "*").send(), 204, "all");
}
