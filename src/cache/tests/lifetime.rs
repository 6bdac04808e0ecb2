//! How long an answer holds, how old it is, and how far beyond that it is of use.

use super::super::Flags;
use super::super::WhyNot::{Expired, NoFreshness};
use super::policy::{Case, PLAIN};
use super::{DATE, MINUTE_BEFORE, MINUTE_LATER, NOW};
use crate::config;
use http::Method;
use proptest::prelude::*;
use std::time::Duration;

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
        assert_eq!(outcome.map(|f| f.lifetime_s), expected);
    }
}

#[test]
fn a_stream_of_events_is_given_no_lifetime() {
    let ttl = Some(Duration::from_secs(60));
    let route = config::Cache { ttl, heuristic: true, ..config::Cache::default() };
    let old = "last-modified: Thu, 01 Jan 2015 00:00:00 GMT";
    for (kind, expected) in [
        ("text/event-stream", Err(NoFreshness)),
        ("Text/Event-Stream ; charset=utf-8", Err(NoFreshness)),
        ("text/event-stream\ncache-control: max-age=5", Ok(5)),
        ("text/event-streams", Ok(60)),
        ("text/plain", Ok(60)),
    ] {
        let response = format!("{old}\ncontent-type: {kind}");
        let case = Case { response: &response, ..PLAIN };
        let outcome = case.outcome_of(&route, &Method::GET, NOW, NOW);
        assert_eq!(outcome.map(|f| f.lifetime_s), expected, "{kind}");
    }
}

#[test]
fn staleness_is_what_the_response_says_and_else_the_route() {
    let route = config::Cache {
        stale_while_revalidate: Some(Duration::from_secs(30)),
        stale_if_error: Some(Duration::from_secs(u64::MAX)),
        ..config::Cache::default()
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
        for (policy, expected) in [(&config::Cache::default(), own), (&route, with_route)] {
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
        let cookie = Case { request: "cookie: a=1", ..case };
        assert_eq!(cookie.lifetime(), Err(NoFreshness), "{status} {response:?}");
    }
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
            let at = [MINUTE_BEFORE, DATE, MINUTE_LATER];
            response += &format!("\ndate: {}", at[usize::try_from(offset / 60 + 1).unwrap()]);
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
