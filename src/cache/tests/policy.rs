//! What may be asked and what may be kept.

use super::super::WhyNot::{
    Authenticated, Expired, NoCache, NoFreshness, NoStore, Partial, Private, Request, SetCookie,
    Status, Tags, TooLarge, Vary,
};
use super::super::{
    Asked, Flags, Forward, Freshness, Intent, Policy, SetCookie as Cookies, WhyNot, for_fill,
    lookup, storable, stored_headers,
};
use super::{DATE, MINUTE_BEFORE, MINUTE_LATER, NOW, fields};
use crate::base::facts::Identity;
use http::Method;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// One exchange; `Default` is a plain GET on a route without a ttl.
#[derive(Clone, Copy)]
struct Case<'a> {
    ttl: Option<u64>,
    shared: bool,
    partition: bool,
    per_user: bool,
    heuristic: bool,
    cookies: Cookies,
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
    per_user: false,
    heuristic: false,
    cookies: Cookies::Explicit,
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
            heuristic: self.heuristic,
            set_cookie: self.cookies,
            ..Policy::default()
        };
        self.outcome_of(&policy, method, sent, now)
    }

    fn outcome_of(
        &self,
        policy: &Policy,
        method: &Method,
        sent: u64,
        now: u64,
    ) -> Result<Freshness, WhyNot> {
        let headers = fields(self.request);
        let intent = lookup(policy, method, &headers, false);
        let asked = Asked {
            intent: &intent,
            headers: &headers,
            authenticated: self.authenticated,
            per_user: self.per_user,
            cookie: self.cookie,
            sent_ms: sent,
        };
        storable(policy, &asked, self.status.try_into().unwrap(), &fields(self.response), now)
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
        no_store: false,
        reload: false,
        only_if_cached: false,
        max_age: None,
        min_fresh: None,
        max_stale: None,
        stale_if_error: None,
        forward: Forward::UriMiss,
    };
    let aside = |forward| Intent { read: false, store: false, forward, ..get };
    let bypass = aside(Forward::Bypass);
    let reload = Intent { reload: true, ..get };
    let no_store = Intent { store: false, no_store: true, ..get };
    let cases = [
        ("GET", "", false, get),
        ("HEAD", "", false, Intent { store: false, ..get }),
        ("POST", "", false, aside(Forward::Method)),
        ("OPTIONS", "", false, aside(Forward::Method)),
        ("get", "", false, aside(Forward::Method)),
        ("GET", "", true, bypass),
        ("GET", "range: bytes=0-1", false, get),
        ("GET", "if-match: \"a\"", false, bypass),
        ("GET", "if-unmodified-since: x", false, bypass),
        ("GET", "x-http-method-override: DELETE", false, bypass),
        ("GET", "x-method-override: DELETE", false, bypass),
        ("GET", "x-http-method: DELETE", false, bypass),
        ("GET", "if-none-match: \"a\"", false, get),
        ("GET", "cache-control: No-Cache", false, reload),
        ("GET", "pragma: no-cache", false, reload),
        ("GET", "cache-control: no-store", false, no_store),
        ("GET", "cache-control: x=\"", false, Intent { reload: true, ..no_store }),
        ("GET", "cache-control: max-age=3", false, Intent { max_age: Some(3), ..get }),
        ("GET", "cache-control: min-fresh=3", false, Intent { min_fresh: Some(3), ..get }),
        ("GET", "cache-control: max-stale=3", false, Intent { max_stale: Some(3), ..get }),
        ("GET", "cache-control: only-if-cached", false, Intent { only_if_cached: true, ..get }),
        ("GET", "cache-control: only-if-cached", true, Intent { only_if_cached: true, ..bypass }),
    ];
    for (method, headers, has_body, expected) in cases {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let intent = lookup(&Policy::default(), &method, &fields(headers), has_body);
        assert_eq!(intent, expected, "{method} {headers:?} {has_body}");
    }
    let deaf = Policy { ignore_request_directives: true, ..Policy::default() };
    let all = "max-age=0, min-fresh=9, max-stale, stale-if-error=9, no-cache, only-if-cached";
    let intent = lookup(&deaf, &Method::GET, &fields(&format!("cache-control: {all}")), false);
    assert_eq!(intent, Intent { only_if_cached: true, ..get });
    let intent = lookup(&deaf, &Method::GET, &fields("cache-control: no-store"), false);
    assert_eq!(intent, no_store, "what is not to be kept is not kept");
}

#[test]
fn a_fill_asks_for_everything() {
    let mut headers = fields(
        "range: bytes=0-1\nif-range: \"a\"\nif-none-match: \"a\"\nif-modified-since: x\naccept: a",
    );
    for_fill(&mut headers);
    assert_eq!(headers, fields("accept: a"));
}

#[test]
fn some_requests_are_never_kept() {
    assert!(PLAIN.outcome().is_ok());
    for method in [Method::HEAD, Method::POST, Method::OPTIONS] {
        assert_eq!(PLAIN.outcome_at(&method, NOW, NOW), Err(Request), "{method}");
    }
    for request in ["if-match: \"a\"", "cache-control: no-store"] {
        assert_eq!(Case { request, ..PLAIN }.outcome(), Err(Request), "{request}");
    }
}

#[test]
fn every_final_status_is_kept_if_it_says_so_and_errors_shortly() {
    for status in 200..=599 {
        let expected = match status {
            206 | 416 => Err(Partial),
            304 => Err(Status),
            400.. => Ok(10),
            _ => Ok(60),
        };
        assert_eq!(Case { status, ..PLAIN }.lifetime(), expected, "{status}");
        let implicit = Case { status, response: "", ttl: Some(60), ..PLAIN };
        let expected = match status {
            200 | 203 | 204 | 300 | 301 | 308 => Ok(60),
            _ => expected.and(Err(NoFreshness)),
        };
        assert_eq!(implicit.lifetime(), expected, "{status} with a ttl");
    }
    for status in [101, 199, 600, 999] {
        assert_eq!(Case { status, ..PLAIN }.lifetime(), Err(Status), "{status}");
    }
    let short = Case { status: 404, response: "cache-control: max-age=4", ..PLAIN };
    assert_eq!(short.lifetime(), Ok(4));
    let late = Case { status: 404, ..PLAIN }.outcome_at(&Method::GET, NOW - 1_500, NOW).unwrap();
    assert_eq!(late.lifetime_s, 11, "at most ten seconds here, after 1.5 on the way");
}

#[test]
fn the_operator_says_how_long_errors_are_kept() {
    let seconds = Duration::from_secs;
    let policy = Policy {
        error_ttl: seconds(7),
        negative: [(404, seconds(5)), (503, seconds(90))].into(),
        ttl: Some(seconds(30)),
        ..Policy::default()
    };
    let cases = [
        (404, "", Ok(5)),
        (404, "cache-control: max-age=3", Ok(3)),
        (404, "cache-control: max-age=60", Ok(7)),
        (404, "set-cookie: a=1", Err(SetCookie)),
        (404, "cache-control: no-store", Err(NoStore)),
        (503, "", Ok(7)),
        (410, "", Err(NoFreshness)),
    ];
    for (status, response, expected) in cases {
        let case = Case { status, response, ..PLAIN };
        let outcome = case.outcome_of(&policy, &Method::GET, NOW, NOW).map(|f| f.lifetime_s);
        assert_eq!(outcome, expected, "{status} {response:?}");
    }
    let none = Policy { error_ttl: Duration::ZERO, ..policy };
    let kept = Case { status: 404, ..PLAIN }.outcome_of(&none, &Method::GET, NOW, NOW).unwrap();
    assert!(!kept.is_fresh());
}

#[test]
fn what_must_be_understood_is() {
    let response = "cache-control: max-age=60, must-understand, no-store";
    for (status, expected) in
        [(200, Ok(60)), (404, Ok(10)), (299, Err(Status)), (418, Err(Status)), (599, Err(Status))]
    {
        assert_eq!(Case { status, response, ..PLAIN }.lifetime(), expected, "{status}");
    }
}

#[test]
fn cookies_are_kept_by_choice() {
    let cases = [
        ("cache-control: max-age=60", [Err(SetCookie), Ok(60), Err(SetCookie)]),
        ("cache-control: max-age=60, public", [Ok(60), Ok(60), Err(SetCookie)]),
        ("cache-control: s-maxage=60", [Ok(60), Ok(60), Err(SetCookie)]),
        ("cdn-cache-control: max-age=60", [Ok(60), Ok(60), Err(SetCookie)]),
        ("cache-control: max-age=60, no-cache=\"set-cookie\"", [Ok(60), Ok(60), Ok(60)]),
        ("cache-control: public", [Err(NoFreshness), Err(NoFreshness), Err(SetCookie)]),
    ];
    for (control, expected) in cases {
        let choices = [Cookies::Explicit, Cookies::Store, Cookies::Never];
        for (cookies, expected) in choices.into_iter().zip(expected) {
            let response = format!("{control}\nset-cookie: a=1");
            let case = Case { response: &response, cookies, ttl: Some(9), ..PLAIN };
            assert_eq!(case.lifetime(), expected, "{control} {cookies:?}");
        }
    }
}

#[test]
fn a_lifetime_is_guessed_by_choice() {
    let day = 86_400;
    let cases = [
        ("last-modified: Wed, 31 Dec 2025 23:50:00 GMT", 200, Ok(60)),
        ("last-modified: Wed, 31 Dec 2025 23:50:00 GMT", 404, Ok(10)),
        ("last-modified: Wed, 31 Dec 2025 23:50:00 GMT", 302, Err(NoFreshness)),
        ("cache-control: public\nlast-modified: Wed, 31 Dec 2025 23:50:00 GMT", 302, Ok(60)),
        ("last-modified: Thu, 01 Jan 1970 00:00:00 GMT", 200, Ok(day)),
        ("last-modified: Thu, 01 Jan 2026 00:10:00 GMT", 200, Ok(0)),
        ("last-modified: x", 200, Err(NoFreshness)),
        ("", 200, Err(NoFreshness)),
    ];
    for (response, status, expected) in cases {
        let case = Case { response, status, heuristic: true, ..PLAIN };
        assert_eq!(case.lifetime(), expected, "{status} {response:?}");
        let off = Case { heuristic: false, ..case };
        assert_eq!(off.lifetime(), Err(NoFreshness), "{status} {response:?}");
        let cookie = Case { cookie: true, ..case };
        assert_eq!(cookie.lifetime(), Err(NoFreshness), "{status} {response:?}");
    }
}

#[test]
fn what_is_stale_from_the_start_is_kept_to_be_validated() {
    let cases = [
        ("max-age=0\netag: \"a\"", Ok(0)),
        ("max-age=0\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT", Ok(0)),
        ("no-cache\netag: \"a\"", Ok(0)),
        ("no-cache, max-age=60\netag: W/\"a\"", Ok(60)),
        ("max-age=0, stale-while-revalidate=9", Ok(0)),
        ("max-age=0, stale-if-error=9", Ok(0)),
        ("max-age=0, must-revalidate, stale-if-error=9", Err(Expired)),
        ("max-age=0\netag: a", Err(Expired)),
        ("max-age=0\nlast-modified: today", Err(Expired)),
        ("x=1\netag: \"a\"", Err(NoFreshness)),
    ];
    for (control, expected) in cases {
        let response = format!("cache-control: {control}");
        let outcome = Case { response: &response, ..PLAIN }.outcome();
        assert_eq!(outcome.as_ref().map(|f| f.lifetime_s).map_err(|why| *why), expected);
        let is_fresh = outcome.is_ok_and(|freshness| freshness.is_fresh());
        assert!(!is_fresh, "{control:?} is of no use as it is");
    }
    assert!(PLAIN.outcome().unwrap().is_fresh());
}

#[test]
fn staleness_is_what_the_response_says_and_else_the_route() {
    let route = Policy {
        stale_while_revalidate: Some(Duration::from_secs(30)),
        stale_if_error: Some(Duration::from_secs(u64::MAX)),
        ..Policy::default()
    };
    let week = 7 * 24 * 3600;
    let cases = [
        ("max-age=60", (0, 0), (30, week)),
        ("max-age=60, stale-while-revalidate=5, stale-if-error=6", (5, 6), (5, 6)),
        ("max-age=60, stale-while-revalidate=0", (0, 0), (0, week)),
        ("max-age=60, must-revalidate, stale-if-error=6", (0, 0), (0, 0)),
        ("max-age=60, proxy-revalidate, stale-if-error=6", (0, 0), (0, 0)),
        ("s-maxage=60, stale-while-revalidate=5", (0, 0), (0, 0)),
    ];
    for (control, own, with_route) in cases {
        let response = format!("cache-control: {control}");
        let case = Case { response: &response, ..PLAIN };
        for (policy, expected) in [(&Policy::default(), own), (&route, with_route)] {
            let freshness = case.outcome_of(policy, &Method::GET, NOW, NOW).unwrap();
            assert_eq!((freshness.swr_s, freshness.sie_s), expected, "{control}");
            assert_eq!(
                freshness.flags.never_stale,
                control.contains("s-maxage") || own == (0, 0) && with_route == (0, 0)
            );
        }
    }
    let response = "cache-control: no-cache, immutable\netag: \"a\"";
    let flags = Case { response, ..PLAIN }.outcome().unwrap().flags;
    assert_eq!(flags, Flags { no_cache: true, never_stale: true, immutable: true });
}

#[test]
fn what_is_private_is_kept_for_its_user_alone() {
    let response = "cache-control: private, max-age=60";
    let own = Case { response, authenticated: true, partition: true, per_user: true, ..PLAIN };
    assert_eq!(own.lifetime(), Ok(60));
    assert_eq!(Case { per_user: false, ..own }.lifetime(), Err(Private));
    let policy = |names: &[&str]| Policy {
        partition: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Policy::default()
    };
    let caller = |claim: &str, value: &str| {
        Some(Arc::new(Identity {
            claims: serde_json::Map::from_iter([(claim.to_owned(), value.into())]),
            subject: None,
            issued_at: None,
            expires_at: 0,
            blacklist_keys: Vec::new(),
            not_before_key: None,
            qualifier: None,
            headers: Vec::new(),
        }))
    };
    assert!(policy(&["plan", "sub"]).is_per_user(&caller("sub", "42")));
    assert!(!policy(&["plan"]).is_per_user(&caller("sub", "42")));
    assert!(!policy(&["sub"]).is_per_user(&caller("plan", "42")), "nobody in particular");
    assert!(!policy(&["sub"]).is_per_user(&caller("sub", "")));
    assert!(!policy(&["sub"]).is_per_user(&None));
}

#[test]
fn a_response_can_refuse() {
    let cases = [
        ("cache-control: max-age=60, No-Store", NoStore),
        ("cache-control: max-age=60\ncache-control: no-store", NoStore),
        ("cache-control: max-age=60, x=\"no end", NoStore),
        ("cache-control: max-age=60, Private", Private),
        ("cache-control: max-age=60, no-cache", NoCache),
        ("cache-control: max-age=60, no-cache=\"\"", NoCache),
        ("cache-control: max-age=60\nset-cookie: a=1", SetCookie),
        ("cdn-cache-control: no-store\ncache-control: max-age=60", NoStore),
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
        ("cdn-cache-control: public\ncache-control: max-age=9\nexpires: 0", NoFreshness),
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
    let tags =
        "t ".repeat(65).split(' ').enumerate().map(|(n, _)| format!("t{n} ")).collect::<String>();
    let tagged = format!("cache-control: max-age=60\nxkey: {tags}");
    assert_eq!(Case { response: &tagged, ..PLAIN }.outcome(), Err(Tags));
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
        ("cdn-cache-control: max-age=6\ncache-control: max-age=7, s-maxage=8", Ok(6)),
        ("cdn-cache-control: max-age=6, s-maxage=5", Ok(5)),
        ("cdn-cache-control: ?\ncache-control: max-age=7", Ok(7)),
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
        ("vary: Accept, X-None", vec![("accept", Some("a,b")), ("x-none", None)]),
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
    let kept = "content-type: text/plain\nlink: <a>\nlink: <b>\netag: \"a\"\nx-ratel: 1\n\
        set-cookie: a=1\nset-cookie: b=2\ncache-groups: \"a\"\ncdn-cache-control: max-age=5";
    let dropped = "connection: close, X-Mine\nconnection: x-other\nx-mine: 1\nx-other: 1\n\
        keep-alive: 1\nte: trailers\ntrailer: a\ntransfer-encoding: chunked\nupgrade: h2c\n\
        surrogate-key: a\nxkey: a\ncache-tag: a\nproxy-authenticate: a\nproxy-authentication-info: a\n\
        proxy-connection: a\nage: 5\nratelimit: a\nratelimit-policy: a\nx-ratelimit-limit: 1\n\
        cache-status: a; hit\ncontent-length: 4";
    let headers = fields(&format!("{kept}\n{dropped}"));
    assert_eq!(stored_headers(&headers), fields(kept));
}

#[test]
fn what_a_response_reserves_is_not_kept() {
    let control = "cache-control: private=\"x-a, X-B\", no-cache=\"set-cookie\", max-age=60";
    let headers = fields(&format!("{control}\nx-a: 1\nx-b: 2\nset-cookie: a=1\nx-c: 3"));
    assert_eq!(stored_headers(&headers), fields(&format!("{control}\nx-c: 3")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// The arithmetic of RFC 9111 §4.2 again, with numbers that cannot overflow and nothing clever.
    #[test]
    fn freshness_is_what_the_slow_model_says(
        max_age in prop_oneof![0_u64..200, Just(u64::from(u32::MAX)), Just(u64::MAX)],
        s_maxage in proptest::option::of(0_u64..200),
        age in proptest::option::of(prop_oneof![0_u64..200, Just(u64::MAX)]),
        date in proptest::option::of(-100_i64..100),
        delay_ms in 0_u64..5_000,
    ) {
        let mut response = format!("cache-control: max-age={max_age}");
        if let Some(seconds) = s_maxage {
            response += &format!(", s-maxage={seconds}");
        }
        if let Some(seconds) = age {
            response += &format!("\nage: {seconds}");
        }
        if let Some(offset) = date {
            let minute = 60 * (offset / 60);
            let at = ["23:59:00", "00:00:00", "00:01:00"][usize::try_from(minute / 60 + 1).unwrap()];
            let day = if minute < 0 { "Wed, 31 Dec 2025" } else { "Thu, 01 Jan 2026" };
            response += &format!("\ndate: {day} {at} GMT");
        }
        let case = Case { response: &response, ..PLAIN };
        let outcome = case.outcome_at(&Method::GET, NOW - delay_ms, NOW);

        let cap = |seconds: u64| i128::from(seconds.min(1 << 31));
        let date_ms = date.map_or(0, |offset| i128::from(60 * (offset / 60)) * 1000);
        let apparent = (-date_ms).max(0);
        let corrected = cap(age.unwrap_or(0)) * 1000 + i128::from(delay_ms);
        let initial = apparent.max(corrected);
        let lifetime = cap(s_maxage.unwrap_or(max_age));
        if lifetime * 1000 <= initial {
            prop_assert_eq!(outcome, Err(Expired));
        } else {
            let freshness = outcome.unwrap();
            prop_assert_eq!(i128::from(NOW - freshness.born_ms), initial);
            let bound = initial / 1000 + 7 * 24 * 3600;
            prop_assert_eq!(i128::from(freshness.lifetime_s), lifetime.min(bound));
        }
    }
}
