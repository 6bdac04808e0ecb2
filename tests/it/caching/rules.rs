//! What is kept and what is not, through the whole gateway. The table of all rules is beside the
//! code; here is shown that each kind of them is asked.

use std::io::Write as _;

use super::{House, ROUTES, is_hit, plain};
use crate::support::{Client, Gateway, Reply, Upstream, response};

/// One gateway on its embedded store.
struct Alone {
    upstream: Upstream,
    gateway: Gateway,
}

impl Alone {
    fn start(upstream: Upstream) -> Self {
        let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
        Self { upstream, gateway }
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.request("GET", path, headers)
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = Client::request(self.gateway.public, method, path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.send()
    }

    /// Whether the answer to the first request answers the second.
    fn reuses(&self, path: &str, first: &[(&str, &str)], second: &[(&str, &str)]) -> bool {
        assert!(!is_hit(&self.get(path, first)), "{path} was asked for before");
        let reply = self.get(path, second);
        let asked = self.upstream.recorded();
        let asked = asked.iter().filter(|request| request.target() == path).count();
        assert_eq!(is_hit(&reply), asked == 1, "{path}: {reply:?}");
        is_hit(&reply)
    }
}

/// Answers `/N` with the N-th head.
fn by_number(heads: Vec<&'static str>) -> Upstream {
    Upstream::with(move |request, connection| {
        let number: usize = request.target()[1..].parse().expect("a number");
        let _ = connection.write_all(response(heads[number], "hello").as_bytes());
    })
}

#[test]
fn a_response_says_whether_it_is_kept() {
    let cases = [
        ("200 OK", true),
        ("200 OK\r\nCache-Control: max-age=60", true),
        ("200 OK\r\nCache-Control: public", true),
        ("200 OK\r\nCache-Control: s-maxage=60, max-age=0", true),
        ("200 OK\r\nExpires: Fri, 31 Dec 2100 23:59:59 GMT", true),
        ("404 Not Found\r\nCache-Control: max-age=60", true),
        ("301 Moved Permanently\r\nLocation: /x", true),
        ("200 OK\r\nCache-Control: no-store", false),
        ("200 OK\r\nCache-Control: private", false),
        ("200 OK\r\nCache-Control: no-cache", false),
        ("200 OK\r\nCache-Control: max-age=0", false),
        ("200 OK\r\nCache-Control: max-age=60\r\nCache-Control: No-Store", false),
        ("200 OK\r\nCache-Control: max-age=60, private=\"x-a\"", true),
        ("200 OK\r\nCache-Control: max-age=0\r\nETag: \"a\"", false),
        ("200 OK\r\nCache-Control: no-store\r\nCDN-Cache-Control: max-age=60", true),
        ("200 OK\r\nCache-Control: max-age=60\r\nCDN-Cache-Control: no-store", false),
        ("200 OK\r\nExpires: Thu, 01 Jan 1970 00:00:00 GMT", false),
        ("200 OK\r\nExpires: 0", false),
        ("200 OK\r\nCache-Control: max-age=60\r\nAge: 61", false),
        ("200 OK\r\nSet-Cookie: sid=1", false),
        ("200 OK\r\nCache-Control: max-age=60\r\nSet-Cookie: sid=1", false),
        ("200 OK\r\nCache-Control: public, max-age=60\r\nSet-Cookie: sid=1", true),
        ("200 OK\r\nVary: *", false),
        ("200 OK\r\nVary: Cookie", false),
        ("200 OK\r\nCache-Control: max-age=60\r\nVary: X-Request-Id", false),
        ("404 Not Found", false),
        ("500 Internal Server Error\r\nCache-Control: max-age=60", true),
        ("500 Internal Server Error", false),
        ("302 Found\r\nLocation: /x\r\nCache-Control: max-age=60", true),
        ("302 Found\r\nLocation: /x", false),
        ("206 Partial Content\r\nContent-Range: bytes 0-4/9\r\nCache-Control: max-age=60", false),
    ];
    let alone = Alone::start(by_number(cases.iter().map(|case| case.0).collect()));
    for (number, (head, kept)) in cases.into_iter().enumerate() {
        assert_eq!(alone.reuses(&format!("/{number}"), &[], &[]), kept, "{head}");
    }
}

#[test]
fn a_request_says_whether_it_takes_part() {
    let alone = Alone::start(plain());
    let control = |value| [("Cache-Control", value)];
    let (none, get) =
        (&[][..], |path: &str, headers: &[(&str, &str)]| is_hit(&alone.get(path, headers)));
    assert!(!alone.reuses("/no-store", &control("no-store"), none), "no-store keeps nothing");
    assert!(!alone.reuses("/no-cache", none, &control("no-cache")), "no-cache wants a new one");
    assert!(get("/no-cache", none), "which replaced the old one");
    assert!(!get("/no-cache", &[("Pragma", "no-cache")]));
    assert!(!get("/no-cache", &control("max-age=0")));
    assert!(!get("/no-cache", &control("min-fresh=7200")));
    assert!(get("/no-cache", &control("min-fresh=60")));
    assert!(alone.reuses("/range", none, &[("Range", "bytes=0-1")]));
    assert!(!alone.reuses("/if-match", none, &[("If-Match", "\"a\"")]));
    assert!(!alone.reuses("/override", none, &[("X-HTTP-Method-Override", "DELETE")]));
    let missing = alone.get("/never", &control("only-if-cached"));
    assert_eq!((missing.status, &*crate::auth::code(&missing)), (504, "not_cached"));
    assert!(get("/range", &control("only-if-cached")));
    let seen = alone.upstream.recorded();
    assert!(seen.iter().all(|request| request.target() != "/never"));
}

#[test]
fn a_credential_that_the_gateway_does_not_know_keeps_a_response_private() {
    let alone = Alone::start(by_number(vec![
        "200 OK",
        "200 OK\r\nCache-Control: max-age=60",
        "200 OK\r\nCache-Control: public, max-age=60",
        "200 OK",
    ]));
    let somebody = [("Authorization", "Basic dTpw")];
    assert!(!alone.reuses("/0", &somebody, &somebody), "not even for the same one");
    assert!(!alone.reuses("/1", &somebody, &[]), "a lifetime alone is no permission");
    assert!(alone.reuses("/2", &somebody, &[]), "public is one");
    let cookie = [("Cookie", "sid=1")];
    assert!(!alone.reuses("/3", &cookie, &[]), "the route's own ttl is for anonymous answers");
}

#[test]
fn a_variant_answers_only_requests_like_the_one_it_was_made_for() {
    let vary = "200 OK\r\nVary: Accept-Language, Accept-Encoding\r\nCache-Control: max-age=60";
    let alone = Alone::start(by_number(vec![vary, vary, vary]));
    let german = [("Accept-Language", "de")];
    assert!(alone.reuses("/0", &german, &german));
    assert!(!alone.reuses("/1", &german, &[("Accept-Language", "fr")]));
    assert!(!alone.reuses("/2", &german, &[("Accept-Language", "de"), ("Accept-Encoding", "br")]));
    let reply = alone.get("/2", &[("Accept-Language", "fr")]);
    let status = reply.header("cache-status").unwrap_or_default();
    assert!(status.contains("fwd=vary-miss"), "{status}");
    assert!(is_hit(&alone.get("/2", &german)), "the others are kept beside it");
}

#[test]
fn an_entity_tag_or_a_date_makes_a_304() {
    let head = "200 OK\r\nETag: \"v1\"\r\nCache-Control: max-age=60\r\nX-Other: 1\r\n\
                Last-Modified: Fri, 01 Jan 2021 00:00:00 GMT";
    let alone = Alone::start(Upstream::replying(response(head, "hello")));
    alone.get("/p", &[]);
    for condition in [
        ("If-None-Match", "\"v1\""),
        ("If-None-Match", "\"v0\", W/\"v1\""),
        ("If-None-Match", "*"),
        ("If-Modified-Since", "Fri, 01 Jan 2021 00:00:00 GMT"),
    ] {
        let reply = alone.get("/p", &[condition]);
        assert_eq!((reply.status, is_hit(&reply)), (304, true), "{condition:?}");
        assert!(reply.body.is_empty());
        assert_eq!(reply.header("etag"), Some("\"v1\""));
        assert_eq!(reply.header("x-other"), None, "only what a 304 may carry");
    }
    for condition in
        [("If-None-Match", "\"v2\""), ("If-Modified-Since", "Thu, 31 Dec 2020 00:00:00 GMT")]
    {
        let reply = alone.get("/p", &[condition]);
        assert_eq!((reply.status, is_hit(&reply)), (200, true), "{condition:?}");
        assert_eq!(reply.text(), "hello");
    }
    assert_eq!(alone.upstream.seen(), 1);
}

#[test]
fn parts_are_cut_from_a_whole_answer() {
    let head = "200 OK\r\nETag: \"v1\"\r\nCache-Control: max-age=60\r\nContent-Type: text/plain\r\n\
                Surrogate-Key: secret";
    let alone = Alone::start(Upstream::replying(response(head, "hello")));
    assert_eq!(alone.get("/p", &[]).header("surrogate-key"), None, "tags are for the cache");
    let get = |headers: &[(&str, &str)]| {
        let reply = alone.get("/p", headers);
        assert!(is_hit(&reply));
        assert_eq!(reply.header("surrogate-key"), None);
        reply
    };
    let part = get(&[("Range", "bytes=1-3"), ("If-Range", "\"v1\"")]);
    assert_eq!((part.status, part.text().as_str()), (206, "ell"));
    assert_eq!(part.header("content-range"), Some("bytes 1-3/5"));
    let whole = get(&[("Range", "bytes=1-3"), ("If-Range", "\"v0\"")]);
    assert_eq!((whole.status, whole.text().as_str()), (200, "hello"));
    let none = get(&[("Range", "bytes=5-")]);
    assert_eq!((none.status, none.header("content-range")), (416, Some("bytes */5")));
    assert!(none.body.is_empty());
    let two = get(&[("Range", "bytes=0-0,-1")]);
    assert_eq!(two.status, 206);
    assert!(two.header("content-type").expect("a type").starts_with("multipart/byteranges"));
    assert!(two.text().contains("\r\nContent-Range: bytes 4-4/5\r\n\r\no\r\n--"), "{two:?}");
    assert_eq!(alone.upstream.seen(), 1);
}

#[test]
fn a_head_is_answered_from_a_get_and_makes_no_entry() {
    let alone = Alone::start(plain());
    assert!(!is_hit(&alone.request("HEAD", "/p", &[])));
    assert!(!is_hit(&alone.get("/p", &[])), "a HEAD has no body to keep");
    let reply = alone.request("HEAD", "/p", &[]);
    assert_eq!((reply.status, is_hit(&reply)), (200, true));
    assert_eq!(reply.header("content-length"), Some("5"));
    assert!(reply.body.is_empty());
    assert_eq!(alone.upstream.seen(), 2);
}

#[test]
fn the_age_that_a_response_had_counts() {
    let head = "200 OK\r\nCache-Control: max-age=600\r\nAge: 100";
    let alone = Alone::start(Upstream::replying(response(head, "hello")));
    alone.get("/p", &[]);
    let age: u64 = alone.get("/p", &[]).header("age").expect("Age").parse().expect("seconds");
    assert!((100..160).contains(&age), "{age}");
    assert!(!is_hit(&alone.get("/p", &[("Cache-Control", "max-age=99")])));
}

#[test]
fn a_body_larger_than_the_route_keeps_passes_by() {
    let upstream = Upstream::with(|request, connection| {
        let (framing, size) = request.target()[1..].split_once('/').expect("two words");
        let body = "x".repeat(size.parse().expect("a size"));
        let text = match framing {
            "length" => response("200 OK", &body),
            _ => format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            ),
        };
        let _ = connection.write_all(text.as_bytes());
    });
    let alone = Alone::start(upstream);
    for framing in ["length", "chunked"] {
        assert!(alone.reuses(&format!("/{framing}/1024"), &[], &[]), "{framing}");
        assert!(!alone.reuses(&format!("/{framing}/1025"), &[], &[]), "{framing}");
    }
}

#[test]
fn a_body_that_was_cut_off_is_never_kept() {
    let upstream = Upstream::with(|request, connection| {
        let text = match request.target() {
            "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
            "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf",
        };
        let _ = connection.write_all(text.as_bytes());
        let _ = connection.shutdown(std::net::Shutdown::Both);
    });
    let house = House::start(upstream);
    for path in ["/length", "/chunked", "/chunk"] {
        for _ in 0..2 {
            house.upstream.forget();
            let address = house.gateways[0].public;
            let reply = Client::get(address, path).try_send();
            assert!(reply.is_err(), "{path} was cut off, and the client must see it: {reply:?}");
            assert_eq!(house.upstream.seen(), 1, "{path} did not come from the upstream");
        }
    }
    assert_eq!(house.entries(), Vec::<String>::new());
}

#[test]
fn a_body_that_ends_with_its_connection_is_whole_only_there() {
    // RFC 9112 §8: without a length, nobody can tell the end from a cut. Such a body is passed on;
    // whether it is kept or not, what is answered later must be all of it.
    let upstream = Upstream::with(|_, connection| {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it");
        let _ = connection.shutdown(std::net::Shutdown::Both);
    });
    let alone = Alone::start(upstream);
    for _ in 0..2 {
        assert_eq!(alone.get("/p", &[]).text(), "all of it");
    }
}

#[test]
fn cookies_and_connection_fields_of_the_upstream_are_nobody_elses() {
    let head = "200 OK\r\nCache-Control: max-age=60\r\nConnection: X-Secret\r\nX-Secret: 1\r\n\
                Keep-Alive: timeout=5\r\nX-Request-Id: theirs\r\nX-Kept: yes";
    let alone = Alone::start(Upstream::replying(response(head, "hello")));
    let (first, second) = (alone.get("/p", &[]), alone.get("/p", &[]));
    assert!(is_hit(&second));
    for reply in [&first, &second] {
        assert_eq!(reply.header("x-secret"), None, "{reply:?}");
        assert_eq!(reply.header("keep-alive"), None, "{reply:?}");
        assert_eq!(reply.header("x-kept"), Some("yes"));
        assert_ne!(reply.header("x-request-id"), Some("theirs"));
    }
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}
