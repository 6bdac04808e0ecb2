//! What may be asked and what may be kept.

use super::super::WhyNot::{
    Expired, NoCache, NoFreshness, NoStore, Partial, Private, Request, SetCookie, Status, Tags,
    TooLarge, Vary,
};
use super::super::control::ResponseControl;
use super::super::kept::kept;
use super::super::{
    Forward, Freshness, Intent, RequestContext, WhyNot, for_fill, lookup, storable,
};
use super::{NOW, fields};
use crate::config;
use crate::config::SetCookie as Cookies;
use http::{HeaderMap, Method};
use std::time::Duration;

/// One exchange; `Default` is a plain GET on a route without a ttl.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) ttl: Option<u64>,
    pub(super) shared: bool,
    pub(super) partition: bool,
    pub(super) per_user: bool,
    pub(super) heuristic: bool,
    pub(super) cookies: Cookies,
    pub(super) request: &'a str,
    pub(super) authenticated: bool,
    pub(super) ends_identity: bool,
    pub(super) status: u16,
    pub(super) response: &'a str,
}

pub(super) const PLAIN: Case<'static> = Case {
    ttl: None,
    shared: false,
    partition: false,
    per_user: false,
    heuristic: false,
    cookies: Cookies::Explicit,
    request: "",
    authenticated: false,
    ends_identity: false,
    status: 200,
    response: "cache-control: max-age=60",
};

impl Case<'_> {
    pub(super) fn outcome(&self) -> Result<Freshness, WhyNot> {
        self.outcome_at(&Method::GET, NOW, NOW)
    }

    pub(super) fn outcome_at(
        &self,
        method: &Method,
        sent: u64,
        now: u64,
    ) -> Result<Freshness, WhyNot> {
        let policy = config::Cache {
            ttl: self.ttl.map(Duration::from_secs),
            shared: self.shared,
            partition: self.partition.then(|| "plan".to_owned()).into_iter().collect(),
            max_bytes: 1_000,
            heuristic: self.heuristic,
            set_cookie: self.cookies,
            ..config::Cache::default()
        };
        self.outcome_of(&policy, method, sent, now)
    }

    pub(super) fn outcome_of(
        &self,
        policy: &config::Cache,
        method: &Method,
        sent: u64,
        now: u64,
    ) -> Result<Freshness, WhyNot> {
        let headers = fields(self.request);
        let intent = lookup(policy, method, &headers, false);
        let context = RequestContext {
            intent: &intent,
            headers: &headers,
            authenticated: self.authenticated,
            per_user: self.per_user,
            ends_identity: self.ends_identity,
            sent_ms: sent,
        };
        let (status, response) = (self.status.try_into().unwrap(), fields(self.response));
        storable(policy, &context, status, &response, now).map(|storable| storable.freshness)
    }

    pub(super) fn lifetime(&self) -> Result<u32, WhyNot> {
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
        let intent = lookup(&config::Cache::default(), &method, &fields(headers), has_body);
        assert_eq!(intent, expected, "{method} {headers:?} {has_body}");
    }
    let deaf = config::Cache { ignore_request_directives: true, ..config::Cache::default() };
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
    let policy = config::Cache {
        error_ttl: seconds(7),
        negative: [(404, seconds(5)), (503, seconds(90))].into(),
        ttl: Some(seconds(30)),
        ..config::Cache::default()
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
    let none = config::Cache { error_ttl: Duration::ZERO, ..policy };
    let kept = Case { status: 404, ..PLAIN }.outcome_of(&none, &Method::GET, NOW, NOW).unwrap();
    assert_eq!(kept.lifetime_s, 0);
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
    for meaningless in ["pragma: no-cache", "content-range: bytes 0-1/9"] {
        let response = format!("cache-control: max-age=60\n{meaningless}");
        assert!(Case { response: &response, ..PLAIN }.outcome().is_ok(), "{meaningless}");
    }
}

fn stored_headers(headers: &HeaderMap) -> HeaderMap {
    kept(headers, &ResponseControl::of(headers))
}

#[test]
fn what_belongs_to_one_exchange_is_not_kept() {
    let kept = "content-type: text/plain\nlink: <a>\nlink: <b>\netag: \"a\"\nx-ratel: 1\n\
        set-cookie: a=1\nset-cookie: b=2\ncache-groups: \"a\"\ncdn-cache-control: max-age=5\n\
        cache-status: a; hit\nproxy-status: a";
    let dropped = "connection: close, X-Mine\nconnection: x-other\nx-mine: 1\nx-other: 1\n\
        keep-alive: 1\nte: trailers\ntrailer: a\ntransfer-encoding: chunked\nupgrade: h2c\n\
        surrogate-key: a\nxkey: a\ncache-tag: a\nproxy-authenticate: a\n\
        proxy-authentication-info: a\nproxy-authorization: a\nproxy-connection: a\nage: 5\n\
        ratelimit: a\nratelimit-policy: a\nx-ratelimit-limit: 1\ncontent-length: 4";
    let headers = fields(&format!("{kept}\n{dropped}"));
    assert_eq!(stored_headers(&headers), fields(kept));
}

#[test]
fn what_a_response_reserves_is_not_kept() {
    let control = "cache-control: private=\"x-a, X-B\", no-cache=\"set-cookie\", max-age=60";
    let headers = fields(&format!("{control}\nx-a: 1\nx-b: 2\nset-cookie: a=1\nx-c: 3"));
    assert_eq!(stored_headers(&headers), fields(&format!("{control}\nx-c: 3")));
}
