//! What trusted proxies say of the client, what upstreams are told of it, and what nobody may say.

use crate::support::{Client, Edge, Gateway, Recorded, Upstream, raw, response, status};

/// A gateway behind a trusted proxy (this machine) that speaks in `fields`.
fn behind(fields: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::replying(response("200 OK\r\nCache-Control: max-age=60", "fine"));
    let gateway = Gateway::start(&format!(
        "[server]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n{fields}\n{}
        [limits.two]
        key = [\"address\"]
        allow = [\"2/1h\"]
        [routes.all]
        path = \"/*\"
        upstream = \"shop\"
        [routes.counted]
        path = \"/counted\"
        upstream = \"shop\"
        limits = [\"two\"]
        [routes.kept]
        path = \"/kept\"
        upstream = \"shop\"
        cache = {{ ttl = \"1m\" }}",
        upstream.table("shop")
    ));
    (gateway, upstream)
}

const FORWARDED: &str = "forwarded = \"forwarded\"";

fn passed(gateway: &Gateway, upstream: &Upstream, fields: &str) -> Recorded {
    let case = format!("GET /t HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n");
    let answer = raw(gateway.public, case);
    assert_eq!(status(&answer), 200, "{fields}: {answer}");
    let passed = upstream.only();
    upstream.forget();
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "host"] {
        assert_eq!(passed.headers_named(name).len(), 1, "{fields}: {}", passed.head);
    }
    passed
}

/// What the upstream learns: address, scheme, host.
fn told(request: &Recorded) -> [String; 4] {
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"]
        .map(|name| request.header(name).unwrap_or_default().to_owned())
}

#[test]
fn forwarded_says_address_scheme_and_host() {
    let (gateway, upstream) = behind(FORWARDED);
    for (fields, expected) in [
        (
            "Forwarded: for=1.2.3.4;proto=https\r\n",
            [
                "1.2.3.4, 127.0.0.1",
                "https",
                "shop.test",
                "for=1.2.3.4;host=shop.test;proto=https, for=127.0.0.1;host=shop.test;proto=https",
            ],
        ),
        (
            "FORWARDED: For=\"[2001:DB8::7]:4711\" ; Proto=HTTPS;HOST=\"Public.test:8443\"\r\n",
            [
                "2001:db8::7, 127.0.0.1",
                "https",
                "public.test:8443",
                "for=\"[2001:db8::7]\";host=\"public.test:8443\";proto=https, \
                 for=127.0.0.1;host=\"public.test:8443\";proto=https",
            ],
        ),
        (
            "Forwarded: for=6.6.6.6;proto=http, for=1.2.3.4;proto=https, for=10.0.0.9\r\n\
             Forwarded: ,\r\n",
            [
                "1.2.3.4, 10.0.0.9, 127.0.0.1",
                "https",
                "shop.test",
                "for=1.2.3.4;host=shop.test;proto=https, for=10.0.0.9, \
                 for=127.0.0.1;host=shop.test;proto=https",
            ],
        ),
        (
            "Forwarded: for=6.6.6.6, for=\"_a,b;c\";proto=https\r\n",
            ["127.0.0.1", "https", "shop.test", "for=127.0.0.1;host=shop.test;proto=https"],
        ),
        (
            "Forwarded: for=\", for=1.2.3.4;proto=javascript\r\n",
            [
                "1.2.3.4, 127.0.0.1",
                "http",
                "shop.test",
                "for=1.2.3.4;host=shop.test;proto=http, for=127.0.0.1;host=shop.test;proto=http",
            ],
        ),
        (
            "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n",
            ["127.0.0.1", "http", "shop.test", "for=127.0.0.1;host=shop.test;proto=http"],
        ),
    ] {
        let request = passed(&gateway, &upstream, fields);
        assert_eq!(told(&request), expected, "{fields}");
        assert_eq!(request.header("host"), Some("shop.test"), "{fields}");
    }
}

#[test]
fn x_forwarded_says_address_scheme_and_host() {
    let (gateway, upstream) = behind("");
    for (fields, expected) in [
        (
            "X-Forwarded-For: , 1.2.3.4 ,\r\nX-Forwarded-Proto: HTTPS\r\n",
            [
                "1.2.3.4, 127.0.0.1",
                "https",
                "shop.test",
                "for=1.2.3.4;host=shop.test;proto=https, for=127.0.0.1;host=shop.test;proto=https",
            ],
        ),
        (
            "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 10.0.0.9\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Host: Public.test\r\n",
            [
                "1.2.3.4, 10.0.0.9, 127.0.0.1",
                "https",
                "public.test",
                "for=1.2.3.4;host=public.test;proto=https, for=10.0.0.9, \
                 for=127.0.0.1;host=public.test;proto=https",
            ],
        ),
        (
            "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: wss\r\nX-Forwarded-Host: a/b\r\n",
            [
                "1.2.3.4, 127.0.0.1",
                "http",
                "shop.test",
                "for=1.2.3.4;host=shop.test;proto=http, for=127.0.0.1;host=shop.test;proto=http",
            ],
        ),
        (
            "Forwarded: for=6.6.6.6;proto=https;host=evil\r\n",
            ["127.0.0.1", "http", "shop.test", "for=127.0.0.1;host=shop.test;proto=http"],
        ),
    ] {
        let request = passed(&gateway, &upstream, fields);
        assert_eq!(told(&request), expected, "{fields}");
        assert!(!request.head.contains("6.6.6.6"), "{}", request.head);
    }
}

#[test]
fn a_limit_counts_whom_the_chosen_fields_name() {
    for (choice, believed, other) in [
        ("", "X-Forwarded-For: ", "Forwarded: for="),
        (FORWARDED, "Forwarded: for=", "X-Forwarded-For: "),
    ] {
        let (gateway, _upstream) = behind(choice);
        let asks = |fields: &str| {
            let head = format!("GET /counted HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n");
            status(&raw(gateway.public, head))
        };
        for (number, expected) in [200, 200, 429].into_iter().enumerate() {
            let spoof = format!("{believed}1.2.3.4\r\n{other}9.9.9.{number}\r\n");
            assert_eq!(asks(&spoof), expected, "{spoof}");
        }
        assert_eq!(asks(&format!("{believed}1.2.3.5\r\n{other}1.2.3.4\r\n")), 200);
    }
}

#[test]
fn a_stranger_says_nothing_in_either_family() {
    for choice in ["", FORWARDED] {
        let upstream = Upstream::replying(response("200 OK", "fine"));
        let gateway = Gateway::start(&format!(
            "[server]\n{choice}\n{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
            upstream.table("shop")
        ));
        let fields = "Forwarded: for=6.6.6.6;proto=https;host=evil\r\nX-Forwarded-For: 6.6.6.6\r\n\
                      X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n";
        let request = passed(&gateway, &upstream, fields);
        let own = ["127.0.0.1", "http", "shop.test", "for=127.0.0.1;host=shop.test;proto=http"];
        assert_eq!(told(&request), own);
    }
}

#[test]
fn a_copy_belongs_to_the_scheme_and_the_host_that_were_told() {
    let (gateway, upstream) = behind("");
    let asks = |host: &str, scheme: &str| {
        let asked = Client::get(gateway.public, "/kept").header("X-Forwarded-Host", host);
        assert_eq!(asked.header("X-Forwarded-Proto", scheme).send().status, 200);
        upstream.seen()
    };
    assert_eq!(asks("shop.test", "http"), 1);
    assert_eq!(asks("shop.test", "http"), 1);
    assert_eq!(asks("evil.test", "http"), 2);
    assert_eq!(asks("shop.test", "HTTPS"), 3);
    assert_eq!(asks("Evil.Test.", "http"), 3);
    assert_eq!(asks("shop.test", "https"), 3);
}

/// What proxies and content networks tell those behind them, and no client may.
const OTHERS: [&str; 24] = [
    "True-Client-IP",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "CF-Pseudo-IPv4",
    "Fastly-Client-IP",
    "Fly-Client-IP",
    "X-Client-IP",
    "Client-IP",
    "X-Cluster-Client-IP",
    "X-Forwarded",
    "Forwarded-For",
    "X-Original-Forwarded-For",
    "X-Envoy-External-Address",
    "X-Appengine-User-IP",
    "X-Azure-ClientIP",
    "X-Azure-SocketIP",
    "X-Original-Host",
    "X-Forwarded-Scheme",
    "X-Forwarded-Ssl",
    "X-Forwarded-User",
    "X-Forwarded-By",
    "X-Real-IP",
    "X-Remote-Addr",
    "Front-End-Https",
];

#[test]
fn what_other_edges_say_of_a_client_is_removed() {
    let edge = Edge::open();
    let (trusting, behind) = behind("");
    for name in OTHERS {
        let spelled = [
            name.to_owned(),
            name.to_lowercase(),
            name.replace('-', "_"),
            name.replacen('-', ".", 1),
        ];
        for name in spelled {
            let field = format!("{name}: 6.6.6.6\r\n");
            let case = format!("GET /t HTTP/1.1\r\nHost: shop.test\r\n{field}\r\n");
            let head = edge.passes(case).head;
            assert!(!head.contains("6.6.6.6"), "{head}");
            let head = passed(&trusting, &behind, &field).head;
            assert!(!head.contains("6.6.6.6"), "{head}");
        }
    }
}
