//! What may be asked and what may be kept.

use super::super::WhyNot::{
    Authenticated, Expired, NoCache, NoFreshness, NoStore, Partial, Private, Request, SetCookie,
    Status, TooLarge, Vary,
};
use super::super::{
    Asked, Forward, Freshness, Intent, Policy, WhyNot, lookup, storable, stored_headers,
};
use super::{DATE, MINUTE_BEFORE, MINUTE_LATER, NOW, fields};
use http::Method;
use std::time::Duration;

/// One exchange; `Default` is a plain GET on a route without a ttl.
#[derive(Clone, Copy)]
struct Case<'a> {
    ttl: Option<u64>,
    shared: bool,
    partition: bool,
    request: &'a str,
    authenticated: bool,
    cookie: bool,
    status: u16,
    response: &'a str,
}

const PLAIN: Case<'static> = Case {
    ttl: None,
    shared: false,
    partition: false,
    request: "",
    authenticated: false,
    cookie: false,
    status: 200,
    response: "cache-control: max-age=60",
};

impl Case<'_> {
    fn outcome(&self) -> Result<Freshness, WhyNot> {
        self.outcome_at(&Method::GET, NOW, NOW)
    }

    fn outcome_at(&self, method: &Method, sent: u64, now: u64) -> Result<Freshness, WhyNot> {
        let policy = Policy {
            ttl: self.ttl.map(Duration::from_secs),
            shared: self.shared,
            partition: self.partition.then(|| "plan".to_owned()).into_iter().collect(),
            max_bytes: 1_000,
        };
        let headers = fields(self.request);
        let intent = lookup(method, &headers, false);
        let asked = Asked {
            intent: &intent,
            headers: &headers,
            authenticated: self.authenticated,
            cookie: self.cookie,
            sent_ms: sent,
        };
        storable(&policy, &asked, self.status.try_into().unwrap(), &fields(self.response), now)
    }

    fn lifetime(&self) -> Result<u32, WhyNot> {
        self.outcome().map(|freshness| freshness.lifetime_s)
    }
}

#[test]
fn what_a_request_allows() {
    let get = Intent {
        read: true,
        store: true,
        only_if_cached: false,
        max_age: None,
        min_fresh: None,
        forward: Forward::UriMiss,
    };
    let aside = |forward| Intent { read: false, store: false, forward, ..get };
    let bypass = aside(Forward::Bypass);
    let reload = Intent { read: false, forward: Forward::Request, ..get };
    let cases = [
        ("GET", "", false, get),
        ("HEAD", "", false, Intent { store: false, ..get }),
        ("POST", "", false, aside(Forward::Method)),
        ("OPTIONS", "", false, aside(Forward::Method)),
        ("get", "", false, aside(Forward::Method)),
        ("GET", "", true, bypass),
        ("GET", "range: bytes=0-1", false, bypass),
        ("GET", "if-match: \"a\"", false, bypass),
        ("GET", "if-unmodified-since: x", false, bypass),
        ("GET", "x-http-method-override: DELETE", false, bypass),
        ("GET", "x-method-override: DELETE", false, bypass),
        ("GET", "x-http-method: DELETE", false, bypass),
        ("GET", "if-none-match: \"a\"", false, get),
        ("GET", "cache-control: No-Cache", false, reload),
        ("GET", "pragma: no-cache", false, reload),
        ("GET", "cache-control: no-store", false, Intent { store: false, ..get }),
        ("GET", "cache-control: x=\"", false, Intent { store: false, ..reload }),
        ("GET", "cache-control: max-age=3", false, Intent { max_age: Some(3), ..get }),
        ("GET", "cache-control: min-fresh=3", false, Intent { min_fresh: Some(3), ..get }),
        ("GET", "cache-control: only-if-cached", false, Intent { only_if_cached: true, ..get }),
        ("GET", "cache-control: only-if-cached", true, Intent { only_if_cached: true, ..bypass }),
    ];
    for (method, headers, has_body, expected) in cases {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let intent = lookup(&method, &fields(headers), has_body);
        assert_eq!(intent, expected, "{method} {headers:?} {has_body}");
    }
}

#[test]
fn some_requests_are_never_kept() {
    assert!(PLAIN.outcome().is_ok());
    for method in [Method::HEAD, Method::POST, Method::OPTIONS] {
        assert_eq!(PLAIN.outcome_at(&method, NOW, NOW), Err(Request), "{method}");
    }
    for request in ["range: bytes=0-1", "cache-control: no-store"] {
        assert_eq!(Case { request, ..PLAIN }.outcome(), Err(Request), "{request}");
    }
}

#[test]
fn only_named_statuses_are_kept_and_errors_shortly() {
    for status in 200..=599 {
        let expected = match status {
            200 | 203 | 204 | 300 | 301 | 308 => Ok(60),
            404 | 410 => Ok(10),
            206 => Err(Partial),
            _ => Err(Status),
        };
        assert_eq!(Case { status, ..PLAIN }.lifetime(), expected, "{status}");
        let implicit = Case { status, response: "", ttl: Some(60), ..PLAIN };
        let expected = if status >= 400 { expected.and(Err(NoFreshness)) } else { expected };
        assert_eq!(implicit.lifetime(), expected, "{status} with a ttl");
    }
    let short = Case { status: 404, response: "cache-control: max-age=4", ..PLAIN };
    assert_eq!(short.lifetime(), Ok(4));
    let late = Case { status: 404, ..PLAIN }.outcome_at(&Method::GET, NOW - 1_500, NOW).unwrap();
    assert_eq!(late.lifetime_s, 11, "at most ten seconds here, after 1.5 on the way");
}

#[test]
fn a_response_can_refuse() {
    let cases = [
        ("cache-control: max-age=60, No-Store", NoStore),
        ("cache-control: max-age=60\ncache-control: no-store", NoStore),
        ("cache-control: max-age=60, x=\"no end", NoStore),
        ("cache-control: max-age=60, Private", Private),
        ("cache-control: max-age=60, private=\"a, b\"", Private),
        ("cache-control: max-age=60, no-cache", NoCache),
        ("cache-control: max-age=60, no-cache=\"a\"", NoCache),
        ("cache-control: max-age=60, public\nset-cookie: a=1", SetCookie),
        ("cache-control: max-age=60\nset-cookie2: a=1", SetCookie),
        ("cache-control: max-age=60\ncontent-range: bytes 0-1/9", Partial),
        ("cache-control: max-age=60\ncontent-length: 1001", TooLarge),
        ("cache-control: max-age=60\ncontent-length: x", TooLarge),
        ("cache-control: max-age=60\ncontent-length: 1\ncontent-length: 2", TooLarge),
        ("cache-control: max-age=60\ncontent-length: 99999999999999999999", TooLarge),
        ("cache-control: max-age=60\nvary: accept, *", Vary),
        ("cache-control: max-age=60\nvary: Cookie", Vary),
        ("cache-control: max-age=60\nvary: accept\nvary: AUTHORIZATION", Vary),
        ("", NoFreshness),
        ("cache-control: public", NoFreshness),
        ("cache-control: max-age=0", Expired),
        ("cache-control: max-age=x", Expired),
        ("cache-control: max-age=60, s-maxage=0", Expired),
        ("expires: 0", Expired),
        ("cache-control: max-age=60\nage: 60", Expired),
        ("cache-control: max-age=60\nage: 18446744073709551615", Expired),
    ];
    for (response, why) in cases {
        let case = Case { response, ttl: Some(9).filter(|_| why != NoFreshness), ..PLAIN };
        assert_eq!(case.outcome(), Err(why), "{response:?}");
        // No promise of the operator opens what the origin has closed.
        let shared = Case { shared: true, partition: true, ..case };
        assert_eq!(shared.outcome(), Err(why), "{response:?}, shared");
    }
    let fits = Case { response: "cache-control: max-age=60\ncontent-length: 1000", ..PLAIN };
    assert!(fits.outcome().is_ok());
    let pragma = Case { response: "cache-control: max-age=60\npragma: no-cache", ..PLAIN };
    assert!(pragma.outcome().is_ok());
}

#[test]
fn the_lifetime_is_the_most_specific_one() {
    let expires = format!("expires: {MINUTE_LATER}\ndate: {DATE}");
    let undated = format!("expires: {MINUTE_LATER}");
    let garbled = format!("expires: {MINUTE_LATER}\ndate: today");
    let skewed = format!("expires: {DATE}\ndate: {MINUTE_BEFORE}\nage: 5");
    let twice = format!("expires: {MINUTE_LATER}\nexpires: {MINUTE_LATER}");
    let both = format!("cache-control: max-age=7\n{expires}");
    let cases = [
        ("cache-control: max-age=7, s-maxage=8", Ok(8)),
        ("cache-control: s-maxage=8", Ok(8)),
        (&both, Ok(7)),
        (&expires, Ok(60)),
        (&undated, Ok(60)),
        (&garbled, Ok(60)),
        (&skewed, Err(Expired)),
        (&twice, Err(Expired)),
        ("", Ok(9)),
        ("cache-control: max-age=604801", Ok(604_800)),
        ("cache-control: max-age=18446744073709551616", Ok(604_800)),
        ("cache-control: max-age=864000\nage: 100", Ok(604_900)),
    ];
    for (response, expected) in cases {
        let case = Case { response, ttl: Some(9), ..PLAIN };
        assert_eq!(case.lifetime(), expected, "{response:?}");
    }
    assert_eq!(Case { response: "", ttl: Some(0), ..PLAIN }.lifetime(), Err(Expired));
    let forever = Case { response: "", ttl: Some(u64::MAX), ..PLAIN };
    assert_eq!(forever.lifetime(), Ok(604_800));
}

#[test]
fn age_counts_the_way_here() {
    let apparent = format!("cache-control: max-age=600\ndate: {MINUTE_BEFORE}");
    let ahead = format!("cache-control: max-age=600\ndate: {MINUTE_LATER}");
    let cases = [
        ("cache-control: max-age=600", 0, 0),
        ("cache-control: max-age=600", 1_500, 1_500),
        ("cache-control: max-age=600\nage: 5", 1_500, 6_500),
        (&apparent, 1_500, 60_000),
        (&ahead, 0, 0),
    ];
    for (response, delay, age_ms) in cases {
        let case = Case { response, ..PLAIN };
        let freshness = case.outcome_at(&Method::GET, NOW - delay, NOW).unwrap();
        assert_eq!(NOW - freshness.born_ms, age_ms, "{response:?}");
    }
    for (sent, now) in [(0, u64::MAX), (u64::MAX, 0), (0, 0), (u64::MAX, u64::MAX)] {
        let response = "cache-control: max-age=4294967295\nage: 4294967295";
        let _ = Case { response, ..PLAIN }.outcome_at(&Method::GET, sent, now);
    }
}

#[test]
fn an_identified_caller_needs_a_permission() {
    let permissions = ["max-age=60, public", "s-maxage=60", "max-age=60, must-revalidate"];
    let refusals = ["max-age=60", "max-age=60, proxy-revalidate", "max-age=60, immutable"];
    let cases = permissions.map(|p| (p, true)).into_iter().chain(refusals.map(|r| (r, false)));
    for (directives, may) in cases {
        let response = format!("cache-control: {directives}");
        let response = response.as_str();
        let by_gateway = Case { response, authenticated: true, ..PLAIN };
        let by_request = Case { response, request: "authorization: Basic eA==", ..PLAIN };
        for case in [by_gateway, by_request] {
            let expected = if may { Ok(60) } else { Err(Authenticated) };
            assert_eq!(case.lifetime(), expected, "{directives}");
            assert_eq!(Case { shared: true, ..case }.lifetime(), Ok(60), "{directives}, shared");
            assert_eq!(Case { partition: true, ..case }.lifetime(), Ok(60), "{directives}, split");
        }
    }
}

#[test]
fn the_ttl_of_a_route_is_for_anonymous_callers() {
    let bare = Case { response: "", ttl: Some(9), ..PLAIN };
    assert_eq!(bare.lifetime(), Ok(9));
    let opened = Case { response: "cache-control: public", authenticated: true, ..bare };
    let identified = [
        (Case { cookie: true, ..bare }, NoFreshness),
        (Case { request: "cookie: a=1", ..bare }, NoFreshness),
        (Case { authenticated: true, ..bare }, Authenticated),
        (opened, NoFreshness),
    ];
    for (case, why) in identified {
        assert_eq!(case.lifetime(), Err(why));
        assert_eq!(Case { shared: true, ..case }.lifetime(), Ok(9));
        assert_eq!(Case { partition: true, ..case }.lifetime(), Ok(9));
    }
    let explicit = Case { response: "cache-control: max-age=60", cookie: true, ..bare };
    assert_eq!(explicit.lifetime(), Ok(60), "what the origin says itself is not the route's ttl");
}

#[test]
fn selecting_values_are_kept_and_a_reflected_origin_selects() {
    let request = "accept: a\naccept:  b\norigin: https://x.example\nx-secret: s";
    let cases = [
        ("vary: Accept, X-None", vec![("accept", Some("a, b")), ("x-none", None)]),
        (
            "access-control-allow-origin: https://x.example",
            vec![("origin", Some("https://x.example"))],
        ),
        (
            "vary: origin\naccess-control-allow-origin: null",
            vec![("origin", Some("https://x.example"))],
        ),
        ("access-control-allow-origin: *", vec![]),
        ("", vec![]),
    ];
    for (extra, expected) in cases {
        let response = format!("cache-control: max-age=60\n{extra}");
        let vary = Case { request, response: &response, ..PLAIN }.outcome().unwrap().vary;
        let vary: Vec<_> = vary
            .iter()
            .map(|(name, value)| {
                (name.as_str(), value.as_deref().map(|v| str::from_utf8(v).unwrap()))
            })
            .collect();
        assert_eq!(vary, expected, "{extra:?}");
    }
    let fixed = "cache-control: max-age=60\naccess-control-allow-origin: https://x.example";
    assert!(Case { response: fixed, ..PLAIN }.outcome().unwrap().vary.is_empty());
}

#[test]
fn what_belongs_to_one_exchange_is_not_kept() {
    let kept = "content-type: text/plain\nlink: <a>\nlink: <b>\netag: \"a\"\nx-ratel: 1";
    let dropped = "connection: close, X-Mine\nconnection: x-other\nx-mine: 1\nx-other: 1\n\
        keep-alive: 1\nte: trailers\ntrailer: a\ntransfer-encoding: chunked\nupgrade: h2c\n\
        set-cookie: a=1\nset-cookie2: a=1\nproxy-authenticate: a\nproxy-authentication-info: a\n\
        proxy-connection: a\nage: 5\nratelimit: a\nratelimit-policy: a\nx-ratelimit-limit: 1\n\
        cache-status: a; hit\ncontent-length: 4";
    let headers = fields(&format!("{kept}\n{dropped}"));
    assert_eq!(stored_headers(&headers), fields(kept));
}
