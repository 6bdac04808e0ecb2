//! Keys, judgement and what clients are told, without a store.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::headers::WindowLeft;
use super::local::{self, LocalLimits};
use super::*;
use crate::base::facts::{Caller, ClientAddr, Credential, Identity};
use crate::config::{self, LimitKey, LimitOutage, Over, Scope};
use crate::store::keys::Keys;
use crate::store::{ChargeReply, ChargedAt, MemoryStore, StoreError, Window, WindowState};

mod features;

fn limit(key: Vec<LimitKey>, allow: &[&str], scope: Scope) -> config::Limit {
    config::Limit {
        key,
        allow: allow.iter().map(|rate| rate.parse().unwrap()).collect(),
        concurrent: None,
        lease: Duration::from_secs(30),
        tiers: None,
        cost: config::Cost::Fixed(1),
        response_cost: None,
        count: Vec::new(),
        refund: Vec::new(),
        over: Over::Refuse,
        exempt: config::Exempt::default(),
        block: Vec::new(),
        retry_jitter: Duration::ZERO,
        scope,
    }
}

/// A request of `caller` from `client`, with the usual rest.
fn facts<'a>(client: &str, caller: &'a Caller, headers: &'a HeaderMap) -> Facts<'a> {
    let address = address(client);
    Facts { address, caller, method: &Method::GET, headers, session: None, route: "r" }
}

fn caller(sub: &str) -> Caller {
    let mut claims = serde_json::Map::new();
    claims.insert("sub".into(), sub.into());
    Some(Arc::new(Identity {
        claims,
        exact: Default::default(),
        subject: Some(sub.into()),
        issued_at: None,
        expires_at: 0,
        blacklist_keys: Vec::new(),
        not_before_key: None,
        credential: Credential::Token { bound_to: None, proven_by: None },
        verifier: "users".into(),
        qualifier: None,
        headers: Vec::new(),
    }))
}

fn address(text: &str) -> ClientAddr {
    ClientAddr::new(text.parse().unwrap())
}

fn keys_of(
    key: Vec<LimitKey>,
    client: &str,
    caller: &Caller,
    session: Option<&str>,
) -> Vec<String> {
    let limit = limit(key, &["5/1m"], Scope::Shared);
    let policy = Policy::compile([("p", &limit)].into_iter(), 1, true);
    let mut headers = HeaderMap::new();
    headers.insert("x-key", HeaderValue::from_static("k 1"));
    let facts = Facts { session, ..facts(client, caller, &headers) };
    RateCheck::of(&policy, &Keys::new("app"), &facts, true).unwrap().keys
}

#[test]
fn a_key_counts_what_it_names_and_the_address_where_that_is_missing() {
    let sub = || LimitKey::Claim("sub".into());
    let check = |key, client: &str, caller: &Caller, session, expected: &str| {
        let expected = format!("app:ratelimit:{{{expected}}}:p:1m");
        assert_eq!(keys_of(key, client, caller, session), [expected]);
    };
    let ada = caller("ada");
    check(vec![LimitKey::Address], "192.0.2.1", &None, None, "address=192.0.2.1");
    check(vec![LimitKey::Address], "2001:db8:1:2:3:4:5:6", &None, None, "address=2001:db8:1:2::");
    check(vec![LimitKey::Address], "::ffff:192.0.2.1", &None, None, "address=192.0.2.1");
    check(vec![sub()], "192.0.2.1", &ada, None, "claim:sub=ada");
    check(vec![sub()], "192.0.2.1", &None, None, "address=192.0.2.1");
    check(vec![LimitKey::Session], "192.0.2.1", &ada, Some("s1"), "session=s1");
    check(vec![LimitKey::Session], "192.0.2.1", &ada, None, "address=192.0.2.1");
    check(vec![sub(), LimitKey::Route], "192.0.2.1", &ada, None, "claim:sub=ada|route=r");
    let header =
        keys_of(vec![LimitKey::Header("x-key".parse().unwrap())], "192.0.2.1", &None, None);
    assert!(header[0].starts_with("app:ratelimit:{header:x-key=#"), "{header:?}");
}

#[test]
fn a_request_without_a_good_token_charges_its_address_only() {
    let by_address = limit(vec![LimitKey::Address], &["5/1m"], Scope::Shared);
    let by_claim = limit(vec![LimitKey::Claim("sub".into())], &["5/1m", "1/1s"], Scope::Shared);
    let named = [("claims", &by_claim), ("addresses", &by_address)];
    let policy = Policy::compile(named.into_iter(), 1, true);
    let headers = HeaderMap::new();
    let caller = caller("ada");
    let facts = facts("192.0.2.1", &caller, &headers);
    let check = |identified| {
        let check = RateCheck::of(&policy, &Keys::new("app"), &facts, identified).unwrap();
        let charges = check.charges();
        assert_eq!(charges.keys.len(), charges.set.windows.len());
        charges.keys.to_vec()
    };
    assert_eq!(check(false), ["app:ratelimit:{address=192.0.2.1}:addresses:1m"]);
    assert_eq!(check(true).len(), 3);
}

/// Judges a made-up answer of the store to one window of 10 in a minute.
fn judged(
    allowed: bool,
    state: WindowState,
    outage: LimitOutage,
) -> (Result<bool, Exceeded>, Quota, State) {
    let limit = limit(vec![LimitKey::Address], &["10/1m"], Scope::Shared);
    let policy = Policy::compile([("p", &limit)].into_iter(), 2, true);
    let headers = HeaderMap::new();
    let facts = facts("192.0.2.1", &None, &headers);
    let check = RateCheck::of(&policy, &Keys::new("app"), &facts, true).unwrap();
    let here = State::new(100, true);
    let mut notes = LimitNotes::default();
    let reply = Ok(ChargeReply { allowed, at: ChargedAt::default(), windows: vec![state] });
    let verdict = check.admit(&reply, outage, &here, &mut notes);
    let receipt = verdict.map(|taken| taken.and_then(|taken| check.receipt(&taken)));
    (receipt.map(|receipt| receipt.is_some()), notes.quota, here)
}

#[test]
fn clients_are_told_what_is_left() {
    let state = WindowState { free: 10, retry_ms: 0, next_ms: 1_500, full_ms: 60_000 };
    let (verdict, quota, _) = judged(true, state, LimitOutage::Refuse);
    assert_eq!(verdict, Ok(false), "nothing to correct");
    let mut headers = HeaderMap::new();
    quota.stamp(&mut headers, || UNIX_EPOCH + Duration::from_secs(1_000));
    assert_eq!(headers["ratelimit-policy"], "\"p\";q=10;w=60");
    assert_eq!(headers["ratelimit"], "\"p\";r=9;t=2");
    assert_eq!(headers["x-ratelimit-limit"], "10");
    assert_eq!(headers["x-ratelimit-remaining"], "9");
    assert_eq!(headers["x-ratelimit-reset"], "1060");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_until_the_store_would_say_otherwise_but_a_second_at_most() {
    for (retry_ms, remembered_ms) in [(400, 398), (5_000, 999)] {
        let state = WindowState { free: 0, retry_ms, next_ms: retry_ms, full_ms: 60_000 };
        let (verdict, _, here) = judged(false, state, LimitOutage::Refuse);
        let Err(Exceeded::Limit { limit, retry_after, .. }) = verdict else { panic!("admitted") };
        assert_eq!((limit.as_str(), retry_after.as_millis()), ("p", retry_ms as u128));
        let key = "app:ratelimit:{address=192.0.2.1}:p:1m";
        tokio::time::advance(Duration::from_millis(remembered_ms)).await;
        let window = Window::new(10, Duration::from_secs(60));
        assert!(here.denied.until(key, &window).is_some(), "{retry_ms}");
        let dearer = Window { cost: 2, ..window };
        assert_eq!(here.denied.until(key, &dearer), None, "a dearer request waits longer");
        let cheaper = Window { cost: 0, ..window };
        assert_eq!(here.denied.until(key, &cheaper), None, "a cheaper request may fit");
        let wider = Window { limit: 11, ..window };
        assert_eq!(here.denied.until(key, &wider), None, "a higher tier may have room");
        tokio::time::advance(Duration::from_millis(2)).await;
        assert_eq!(here.denied.until(key, &window), None, "{retry_ms}");
    }
}

#[test]
fn an_outage_does_what_the_configuration_says() {
    let limit = limit(vec![LimitKey::Address], &["10/1m"], Scope::Shared);
    let policy = Policy::compile([("p", &limit)].into_iter(), 2, true);
    let headers = HeaderMap::new();
    let facts = facts("192.0.2.1", &None, &headers);
    let here = State::new(100, true);
    let admit = |outage| {
        let check = RateCheck::of(&policy, &Keys::new("app"), &facts, true).unwrap();
        check
            .admit(&Err(StoreError::Timeout), outage, &here, &mut LimitNotes::default())
            .map(|_| ())
    };
    assert_eq!(admit(LimitOutage::Allow), Ok(()));
    assert_eq!(admit(LimitOutage::Refuse), Err(Exceeded::Unknown(StoreError::Timeout)));
    // Two nodes share 10 a minute, so this one admits 5.
    let admitted = (0..10).filter(|_| admit(LimitOutage::Local).is_ok()).count();
    assert_eq!(admitted, 5);
    // The store may be back long before the window has room.
    let check = RateCheck::of(&policy, &Keys::new("app"), &facts, true).unwrap();
    let mut notes = LimitNotes::default();
    let refused = check.admit(&Err(StoreError::Timeout), LimitOutage::Local, &here, &mut notes);
    let Err(Exceeded::Limit { retry_after, quota, .. }) = refused.map(|_| ()) else {
        panic!("admitted")
    };
    assert_eq!(retry_after, Duration::from_secs(5));
    let mut headers = HeaderMap::new();
    quota.stamp(&mut headers, || UNIX_EPOCH + Duration::from_secs(1_000));
    assert_eq!(
        (&headers["ratelimit"], &headers["x-ratelimit-reset"]),
        (&HeaderValue::from_static("\"p\";r=0;t=5"), &HeaderValue::from_static("1005"),)
    );
}

#[test]
fn limits_of_this_node_alone_are_charged_by_address_before_and_by_caller_after() {
    let by_address = limit(vec![LimitKey::Address], &["2/1h"], Scope::Local);
    let by_claim = limit(vec![LimitKey::Claim("sub".into())], &["1/1h"], Scope::Local);
    let policy = Policy::compile([("a", &by_address), ("c", &by_claim)].into_iter(), 1, true);
    let here = State::new(100, true);
    let keys = Keys::new("app");
    let headers = HeaderMap::new();
    let flooded = |client: &str| {
        let facts = facts(client, &None, &headers);
        flood(&policy, &here, &keys, &facts, &mut LimitNotes::default()).is_err()
    };
    assert_eq!(
        [flooded("192.0.2.1"), flooded("192.0.2.1"), flooded("192.0.2.1")],
        [false, false, true]
    );
    assert!(!flooded("192.0.2.2"));
    let charged = |sub: &str| {
        let caller = caller(sub);
        let facts = facts("192.0.2.1", &caller, &headers);
        charge(&policy, &here, &keys, &facts, &mut LimitNotes::default()).is_ok()
    };
    assert_eq!([charged("ada"), charged("ada"), charged("bob")], [true, false, true]);
}

#[test]
fn several_windows_are_named_by_their_length() {
    let limit = limit(vec![LimitKey::Address], &["100/15m", "20/1s"], Scope::Shared);
    let policy = Policy::compile([("api", &limit)].into_iter(), 1, true);
    let header = policy.policy_header.unwrap();
    assert_eq!(header, "\"api-15m\";q=100;w=900, \"api-1s\";q=20;w=1");
}

#[test]
fn who_may_be_exempt_is_not_refused_before_anybody_knows_who_calls() {
    let exempt = config::Exempt {
        claims: [("sub".to_owned(), vec!["ada".to_owned()])].into(),
        ..config::Exempt::default()
    };
    let limit = limit(vec![LimitKey::Address], &["1/1h"], Scope::Shared);
    let limit = config::Limit { exempt, ..limit };
    let policy = Policy::compile([("p", &limit)].into_iter(), 1, true);
    let (here, keys, headers) = (State::new(100, true), Keys::new("app"), HeaderMap::new());
    let stranger = facts("192.0.2.1", &None, &headers);
    let check = RateCheck::of(&policy, &keys, &stranger, true).unwrap();
    let state = WindowState { free: 0, retry_ms: 900, next_ms: 900, full_ms: 900 };
    let reply = Ok(ChargeReply { allowed: false, at: ChargedAt::default(), windows: vec![state] });
    assert!(check.admit(&reply, LimitOutage::Refuse, &here, &mut LimitNotes::default()).is_err());
    assert!(
        check.check_denied(&here, &LimitNotes::default(), false).is_err(),
        "the refusal is remembered"
    );
    assert_eq!(flood(&policy, &here, &keys, &stranger, &mut LimitNotes::default()), Ok(()));
    assert!(
        RateCheck::of(&policy, &keys, &facts("192.0.2.1", &caller("ada"), &headers), true)
            .is_none()
    );
}

#[test]
fn a_local_limit_counts_tiers_apart_and_never_waits_longer_than_its_window() {
    let here = LocalLimits::default();
    let quota = |rate: &str| local::quota(&rate.parse().unwrap());
    assert_eq!(here.charge("k", quota("1/1h"), 1).1, None);
    assert!(here.charge("k", quota("1/1h"), 1).1.is_some());
    assert_eq!(here.charge("k", quota("9/1h"), 1).1, None, "a higher tier has units of its own");
    let (_, wait) = here.charge("k", quota("9/1h"), 10);
    assert_eq!(wait, Some(Duration::from_secs(3600)));
    let mut quota = Quota::default();
    let item = QuotaItem::new("p".to_owned(), 9, Duration::from_secs(3600));
    let (next, full) = (wait.unwrap(), wait.unwrap());
    quota.push(&item, &WindowLeft { limit: 9, remaining: 0, next, full });
    quota.stamp(&mut HeaderMap::new(), std::time::SystemTime::now);
}
