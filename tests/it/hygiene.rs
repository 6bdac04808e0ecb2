//! Which fields cross the gateway: hop-by-hop fields stop at it, identity and forwarding fields are
//! its own, in requests and responses (T6, T7 and what Traefik, Caddy and APISIX learnt in 2026).

use crate::support::{
    Client, Edge, Gateway, Recorded, Upstream, claims, raw, response, status, token,
};

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n")
}

/// All fields that some server would take for `name`.
fn taken_for<'a>(request: &'a Recorded, name: &str) -> Vec<&'a str> {
    let fields = request.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    fields
        .filter(|(n, _)| n.to_ascii_lowercase().replace(['_', '.'], "-") == name)
        .map(|(_, value)| value.trim())
        .collect()
}

#[test]
fn t6_connection_cannot_nominate_what_matters() {
    let edge = Edge::open();
    let token = token(claims("42"));
    for nominated in [
        "close, Host",
        "close, X-User-Id",
        "X-User-Role, close",
        "close, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, Forwarded",
        "close, X-Request-Id, traceparent",
        "close, Content-Length",
        "close, Transfer-Encoding",
        "close, Authorization",
        "close, \"x\", x y, ,, @",
    ] {
        let fields = format!(
            "Connection: {nominated}\r\nAuthorization: Bearer {token}\r\nContent-Length: 5\r\n"
        );
        let case = format!("POST /admin HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\nhello");
        let passed = edge.passes(case);
        assert_eq!(passed.text(), "hello", "{nominated}");
        assert_eq!(passed.headers_named("host"), ["shop.test"], "{nominated}");
        assert_eq!(passed.headers_named("x-user-id"), ["42"], "{nominated}");
        assert_eq!(passed.headers_named("x-forwarded-for"), ["127.0.0.1"], "{nominated}");
        assert_eq!(passed.headers_named("x-request-id").len(), 1, "{nominated}");
        assert_eq!(passed.headers_named("traceparent").len(), 1, "{nominated}");
    }
}

#[test]
fn t6_nominated_fields_of_every_connection_line_stay_behind() {
    let edge = Edge::open();
    let passed = edge.passes(get(
        "/h",
        "Connection: X-One\r\nX-One: 1\r\nConnection: x-two , X-Three\r\nX-Two: 2\r\n\
         x-three: 3\r\nX-Stays: 4\r\nconnection: keep-alive\r\n",
    ));
    for name in ["x-one", "x-two", "x-three"] {
        assert_eq!(passed.header(name), None, "{name}");
    }
    assert_eq!(passed.header("x-stays"), Some("4"));
}

#[test]
fn t7_hop_by_hop_fields_stay_behind() {
    let edge = Edge::open();
    for field in [
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eDp5",
        "Proxy-Authenticate: Basic",
        "TE: gzip",
        "TE: trailers",
        "Trailer: X",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAARAAAAA",
        "Expect: 100-continue",
        "keep_alive: 5",
        "Transfer_Encoding: chunked",
        "Content_Length: 5",
        "Connection: close",
    ] {
        let passed = edge.passes(get("/h", &format!("{field}\r\n")));
        let name = field.split(':').next().unwrap().to_ascii_lowercase();
        assert_eq!(taken_for(&passed, &name.replace('_', "-")), [""; 0], "{field}");
    }
    let grpc = "TE: trailers\r\nContent-Type: application/grpc\r\n";
    assert_eq!(edge.passes(get("/h", grpc)).headers_named("te"), ["trailers"]);
    let grpc = "TE: gzip, trailers\r\nContent-Type: application/grpc+proto\r\n";
    assert_eq!(edge.passes(get("/h", grpc)).headers_named("te"), ["trailers"]);
}

/// Every spelling under which some server would read `X-User-Id`.
const SPELLINGS: [&str; 9] = [
    "X-User-Id",
    "x-user-id",
    "X-USER-ID",
    "X_User_Id",
    "X_User-Id",
    "x-user_id",
    "X.User.Id",
    "x.user-id",
    "X_USER.ID",
];

#[test]
fn an_identity_comes_from_the_token_alone() {
    let edge = Edge::open();
    let mut mine = claims("42");
    mine["role"] = "customer".into();
    let token = token(mine);
    for name in SPELLINGS {
        for fields in [
            format!("{name}: admin\r\n"),
            format!("{name}: admin\r\n{name}: root\r\n"),
            format!("Connection: {name}\r\n{name}: admin\r\n"),
            format!("X-Other: y\n{name}: admin\r\n"),
        ] {
            let fields = format!("{fields}X-User-Role: admin\r\nX_User_Role: admin\r\n");
            let bearer = format!("{fields}Authorization: Bearer {token}\r\n");
            let answer = raw(edge.gateway.public, get("/admin", &bearer));
            if fields.contains("y\n") && status(&answer) == 400 {
                // A bare LF may be refused.
                continue;
            }
            assert_eq!(status(&answer), 200, "{fields}: {answer}");
            let passed = edge.upstream.only();
            assert_eq!(taken_for(&passed, "x-user-id"), ["42"], "{fields}");
            assert_eq!(taken_for(&passed, "x-user-role"), ["customer"], "{fields}");
            assert_eq!(passed.header("authorization"), None, "{fields}");
            edge.upstream.forget();
            // On a public route there is no identity, so there are no such fields at all.
            edge.refuses_or_closes(get("/h", &format!("{fields}Connection: close\r\n"))).inspect(
                |passed| {
                    assert_eq!(taken_for(passed, "x-user-id"), [""; 0], "{fields}");
                    assert_eq!(taken_for(passed, "x-user-role"), [""; 0], "{fields}");
                },
            );
        }
        // With white space before the colon, it is no field.
        edge.refuses(get("/h", &format!("{name} : admin\r\n")));
    }
    edge.still_serves();
}

#[test]
fn a_claim_that_the_token_lacks_leaves_no_field() {
    let edge = Edge::open();
    let fields = format!("Authorization: Bearer {}\r\nX-User-Role: admin\r\n", token(claims("42")));
    let passed = edge.passes(get("/admin", &fields));
    assert_eq!(taken_for(&passed, "x-user-role"), [""; 0]);
}

#[test]
fn forwarding_fields_of_strangers_are_replaced() {
    let edge = Edge::open();
    for name in [
        "X-Forwarded-For",
        "x_forwarded_for",
        "X.Forwarded.For",
        "X-Forwarded-Host",
        "X_Forwarded_Host",
        "X-Forwarded-Proto",
        "X_Forwarded_Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Uri",
        "X-Forwarded-Method",
        "X-Forwarded-Server",
        "X-Forwarded-Client-Cert",
        "X-Real-IP",
        "X_Real_IP",
        "Forwarded",
        "X-SSL-Client-Verify",
        "X_SSL_Client_DN",
        "Proxy",
        "X-Host",
        "X-Original-Host",
        "X-Original-URL",
    ] {
        let fields = format!("{name}: evil.test\r\n{name}: 6.6.6.6\r\n");
        let passed = edge.passes(get("/h", &fields));
        assert!(!passed.head.contains("evil.test"), "{name}: {}", passed.head);
        assert!(!passed.head.contains("6.6.6.6"), "{name}: {}", passed.head);
        assert_eq!(taken_for(&passed, "x-forwarded-for"), ["127.0.0.1"], "{name}");
        assert_eq!(taken_for(&passed, "x-forwarded-host"), ["shop.test"], "{name}");
        assert_eq!(taken_for(&passed, "x-forwarded-proto"), ["http"], "{name}");
        let forwarded = ["for=127.0.0.1;host=shop.test;proto=http"];
        assert_eq!(taken_for(&passed, "forwarded"), forwarded, "{name}");
    }
}

/// A gateway that admits two requests per address.
fn limited(trusted: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let gateway = Gateway::start(&format!(
        "[server]\ntrusted_proxies = [{trusted}]\n{}
        [limits.two]
        key = [\"address\"]
        allow = [\"2/1h\"]
        [routes.all]
        path = \"/*\"
        upstream = \"shop\"
        limits = [\"two\"]",
        upstream.table("shop")
    ));
    (gateway, upstream)
}

#[test]
fn a_stranger_cannot_choose_his_limit() {
    let (gateway, upstream) = limited("");
    let asks = |name: &str, value: &str| {
        Client::get(gateway.public, "/").header(name, value).send().status
    };
    assert_eq!(asks("X-Forwarded-For", "1.1.1.1"), 200);
    assert_eq!(asks("Forwarded", "for=2.2.2.2"), 200);
    assert_eq!(asks("X-Forwarded-For", "3.3.3.3"), 429);
    assert_eq!(asks("Forwarded", "for=4.4.4.4"), 429);
    assert_eq!(asks("X-Real-IP", "5.5.5.5"), 429);
    assert_eq!(upstream.seen(), 2);
}

#[test]
fn a_trusted_proxy_names_its_clients() {
    let (gateway, upstream) = limited("\"127.0.0.0/8\"");
    let asks = |chain: &str| {
        Client::get(gateway.public, "/").header("X-Forwarded-For", chain).send().status
    };
    assert_eq!([asks("1.1.1.1"), asks("1.1.1.1"), asks("1.1.1.1")], [200, 200, 429]);
    // What a client of the proxy wrote itself stands further left, and is not believed.
    assert_eq!(asks("9.9.9.9, 1.1.1.1"), 429);
    assert_eq!(asks("1.1.1.1, 2.2.2.2"), 200);
    let last = upstream.recorded().pop().unwrap();
    assert_eq!(last.headers_named("x-forwarded-for"), ["1.1.1.1, 2.2.2.2, 127.0.0.1"]);
}

#[test]
fn cookies_arrive_as_one_field() {
    let edge = Edge::open();
    let passed = edge.passes(get("/h", "Cookie: a=1\r\nX: y\r\nCookie: b=2; c=3\r\n"));
    assert_eq!(passed.headers_named("cookie"), ["a=1; b=2; c=3"]);
}

#[test]
fn request_ids_are_kept_or_made() {
    let edge = Edge::open();
    let reply = Client::get(edge.gateway.public, "/h").header("X-Request-Id", "mine-1").send();
    assert_eq!(reply.headers_named("x-request-id"), ["mine-1"]);
    assert_eq!(edge.upstream.only().headers_named("x-request-id"), ["mine-1"]);
    edge.upstream.forget();
    for odd in ["a b", "<script>", "\"", &"x".repeat(200)] {
        let reply = Client::get(edge.gateway.public, "/h").header("X-Request-Id", odd).send();
        let made = reply.headers_named("x-request-id");
        assert!(made.len() == 1 && made[0] != odd, "{made:?}");
        assert_eq!(edge.upstream.only().headers_named("x-request-id"), made);
        edge.upstream.forget();
    }
}

#[test]
fn responses_lose_what_belongs_to_their_connection() {
    let upstream = Upstream::replying(response(
        "200 OK\r\nConnection: X-Secret, keep-alive\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Authenticate: Basic\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nTE: x\r\n\
         X-Request-Id: theirs\r\nETag: \"1\"\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2",
        "fine",
    ));
    let gateway = Gateway::start(&format!(
        "{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let reply = Client::get(gateway.public, "/").header("X-Request-Id", "mine").send();
    for name in [
        "connection",
        "x-secret",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "upgrade",
    ] {
        assert_eq!(reply.header(name), None, "{name}");
    }
    assert_eq!(reply.header("te"), None);
    assert_eq!(reply.headers_named("x-request-id"), ["mine"]);
    assert_eq!(reply.header("etag"), Some("\"1\""));
    assert_eq!(reply.headers_named("set-cookie"), ["a=1", "b=2"]);
    assert_eq!((reply.status, reply.text().as_str()), (200, "fine"));
}

#[test]
fn a_trace_begins_unsampled_and_a_state_needs_a_parent() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let edge = Edge::open();
    let more = "tracestate: a=1\r\nTraceState: b=2\r\nbaggage: user=42\r\n";
    let parent = |version: &str, rest: &str| {
        format!("traceparent: {version}-{TRACE}-00f067aa0ba902b7-{rest}\r\n")
    };
    for (fields, flags, continued) in [
        (String::new(), "00", false),
        (parent("00", "00"), "00", true),
        (parent("00", "01"), "01", true),
        (parent("cc", "01-more"), "01", true),
        (parent("00", "01-more"), "00", false),
        (parent("ff", "01"), "00", false),
        (parent("00", "01") + &parent("00", "01"), "00", false),
        (parent("00", "01").replace('b', "B"), "00", false),
    ] {
        let passed = edge.passes(get("/h", &(fields.clone() + more)));
        let sent = passed.headers_named("traceparent");
        assert_eq!((sent.len(), sent[0].len()), (1, 55), "{fields}");
        assert!(sent[0].starts_with("00-") && sent[0].ends_with(&format!("-{flags}")), "{fields}");
        assert_eq!(sent[0].contains(TRACE), continued, "{fields}");
        let state = continued.then_some("a=1,b=2");
        assert_eq!(passed.header("tracestate"), state, "{fields}");
        assert_eq!(passed.header("baggage"), None, "nobody vouches for it");
    }
}

#[test]
fn baggage_passes_from_a_trusted_proxy() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let config = format!(
        "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n{}\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    );
    let gateway = Gateway::start(&config);
    let reply = Client::get(gateway.public, "/").header("baggage", "user=42;p=1, b=2").send();
    assert_eq!(reply.status, 200);
    assert_eq!(upstream.only().header("baggage"), Some("user=42;p=1, b=2"));
}
