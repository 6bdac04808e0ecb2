//! What others say of an upstream, and how far that is believed.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config;
use crate::upstream::tally::{Kind, Outcome};

const URLS: [&str; 3] = ["http://127.0.0.1:3000", "http://127.0.0.1:3001", "http://127.0.0.1:3002"];

fn settings(more: &str) -> config::Upstream {
    let text = format!("[upstreams.a]\nservers = {URLS:?}\n{more}\n");
    let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
    assert_eq!(loaded.source.render(&loaded.problems), "0 problems in t.toml\n", "{text}");
    loaded.config.upstreams["a"].clone()
}

fn endpoints(more: &str) -> Endpoints {
    Endpoints::new("a", &settings(more), None)
}

fn said(requests: u64, ejected: &[&str]) -> Said {
    let ejected = ejected.iter().map(|url| (*url).to_owned()).collect();
    Said { v: VERSION, requests, ejected, ..Said::default() }
}

/// As it lies in the store.
fn told(all: &[Said]) -> Vec<(Bytes, Bytes)> {
    let one = |said: &Said| (Bytes::new(), Bytes::from(serde_json::to_vec(said).unwrap()));
    all.iter().map(one).collect()
}

/// Which servers are in.
fn usable(endpoints: &Endpoints) -> Vec<usize> {
    let all = endpoints.all().iter().enumerate();
    all.filter(|(_, server)| server.verdict().word().is_usable()).map(|(at, _)| at).collect()
}

/// So many requests at one server that came to this.
fn meets(endpoints: &Endpoints, at: usize, outcome: Outcome, times: usize) {
    let care = endpoints.care().unwrap();
    (0..times).for_each(|_| care.count(&endpoints.all()[at], outcome));
}

#[test]
fn two_gateways_and_half_of_those_with_requests_eject() {
    let (out, in_) = (|requests| said(requests, &[URLS[0]]), |requests| said(requests, &[]));
    for (all, expected) in [
        (vec![], false),
        (vec![out(9), in_(0)], false),
        (vec![out(9), out(1)], true),
        (vec![out(9), out(1), in_(0), in_(0), in_(0)], true),
        (vec![out(9), out(1), in_(3), in_(1)], true),
        (vec![out(9), out(1), in_(3), in_(1), in_(1)], false),
        // Whoever ejected it is one of them, also where no more requests came.
        (vec![out(0), out(1), out(0), in_(3), in_(1), in_(1), in_(1)], false),
        (vec![out(0), out(1), out(0), in_(3), in_(1), in_(1)], true),
    ] {
        assert_eq!(is_ejected(URLS[0], &all), expected, "{all:?}");
        assert!(!is_ejected(URLS[1], &all));
    }
}

#[test]
fn what_cannot_be_understood_or_believed_is_not_heard() {
    let one = said(5, &[URLS[0]]);
    let text = String::from_utf8(serde_json::to_vec(&one).unwrap()).unwrap();
    let read = |text: &str| Said::read(text.as_bytes());
    assert_eq!(read(&text), Some(one));
    let more = text.replacen('{', "{\"region\":\"eu\",", 1);
    assert!(read(&more).is_some(), "another one may know more");
    for (from, to) in [
        ("\"v\":1", "\"v\":2"),
        ("\"v\":1,", ""),
        ("\"requests\":5", "\"requests\":1000000001"),
        ("\"requests\":5", "\"requests\":18446744073709551616"),
        ("\"requests\":5", "\"requests\":-5"),
        ("\"requests\":5", "\"requests\":5.5"),
        ("\"requests\":5", "\"requests\":1e300"),
        ("\"requests\":5", "\"requests\":NaN"),
        ("\"requests\":5", "\"requests\":null"),
        ("\"retries\":0", "\"retries\":18446744073709551615"),
        ("\"failures\":0", "\"failures\":\"many\""),
        ("[\"http", "{\"http"),
    ] {
        let lie = text.replacen(from, to, 1);
        assert!(lie != text && read(&lie).is_none(), "{lie}");
    }
    assert!(read("").is_none() && read("null").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_gateway_follows_for_as_long_as_others_say() {
    let endpoints = endpoints("eject = {}");
    let both = told(&[said(9, &[URLS[0], "http://unknown"]), said(9, &[URLS[0]]), said(0, &[])]);
    hear(&endpoints, &both);
    assert_eq!(usable(&endpoints), [1, 2]);
    assert_eq!(endpoints.care().unwrap().ejections(), [0, 0, 0, 1]);
    // No request tries it here, however long that takes, and nobody is told that it is out here.
    tokio::time::advance(Duration::from_secs(600)).await;
    endpoints.care().unwrap().tick();
    for _ in 0..50 {
        assert_ne!(endpoints.first(None).unwrap().at, 0);
    }
    let own = say(&endpoints).unwrap();
    assert_eq!(Said::read(&own).unwrap(), said(0, &[]));
    hear(&endpoints, &both);
    assert_eq!(endpoints.care().unwrap().ejections(), [0, 0, 0, 1], "it is the same ejection");
    hear(&endpoints, &told(&[said(9, &[URLS[0]]), said(9, &[])]));
    assert_eq!(usable(&endpoints), [0, 1, 2]);
    hear(&endpoints, &both);
    assert_eq!(usable(&endpoints), [1, 2]);
    hear(&endpoints, &[]);
    assert_eq!(usable(&endpoints), [0, 1, 2], "nobody is heard any more");
}

#[tokio::test(start_paused = true)]
async fn who_has_requests_of_its_own_goes_by_these() {
    let endpoints = endpoints("eject = {}");
    let both = told(&[said(9, &[URLS[0]]), said(9, &[URLS[0]])]);
    meets(&endpoints, 0, Outcome::Good, 5);
    hear(&endpoints, &both);
    assert_eq!(usable(&endpoints), [0, 1, 2]);
    // Those were a while ago.
    tokio::time::advance(Duration::from_secs(11)).await;
    hear(&endpoints, &both);
    assert_eq!(usable(&endpoints), [1, 2]);
    // Requests that were on their way make a verdict of its own, which a request tries.
    meets(&endpoints, 0, Outcome::Failed(Kind::Lost), 5);
    let words = || endpoints.all()[0].verdict().word();
    assert!(words().is_ejected() && !words().is_out_elsewhere());
    let own = say(&endpoints).unwrap();
    let own = Said::read(&own).unwrap();
    assert_eq!((own.requests, own.ejected), (0, vec![URLS[0].to_owned()]));
    tokio::time::advance(Duration::from_secs(60)).await;
    let choice = endpoints.first(None).unwrap();
    assert_eq!(choice.at, 0);
    let care = endpoints.care().unwrap();
    care.settle_probe(&endpoints.all()[0], choice.token.unwrap(), Outcome::Good);
    hear(&endpoints, &both);
    assert_eq!(usable(&endpoints), [0, 1, 2], "its own request went well");
}

#[tokio::test(start_paused = true)]
async fn too_many_are_not_taken_out_nor_the_last_one() {
    let all = [said(9, &URLS), said(9, &URLS)];
    let half = endpoints("eject = {}");
    hear(&half, &told(&all));
    assert_eq!(usable(&half), [1, 2], "half of three is one");
    let most = endpoints("eject = { most = \"100%\" }");
    hear(&most, &told(&all));
    assert_eq!(usable(&most), [2]);
    // What others say counts among the own, and the own among theirs.
    meets(&half, 1, Outcome::Failed(Kind::Lost), 5);
    assert_eq!(usable(&half), [1, 2]);
    let own = endpoints("eject = {}");
    meets(&own, 1, Outcome::Failed(Kind::Lost), 5);
    hear(&own, &told(&all));
    assert_eq!(usable(&own), [0, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_restores_stays_until_others_eject_it_anew() {
    let endpoints = endpoints("eject = {}");
    let both = told(&[said(9, &[URLS[0]]), said(9, &[URLS[0]])]);
    hear(&endpoints, &both);
    endpoints.all()[0].verdict().restore(false);
    hear(&endpoints, &both);
    assert_eq!(usable(&endpoints), [0, 1, 2]);
    hear(&endpoints, &told(&[said(9, &[])]));
    hear(&endpoints, &both);
    assert_eq!(usable(&endpoints), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_turns_it_off_brings_back_who_was_out_for_it() {
    let former = endpoints("eject = {}");
    hear(&former, &told(&[said(9, &[URLS[0]]), said(9, &[URLS[0]])]));
    assert_eq!(usable(&former.with("a", &settings("eject = { time = '1m' }"), None)), [1, 2]);
    let alone = former.with("a", &settings("eject = {}\nfleet = false"), None);
    assert_eq!((usable(&alone), say(&alone)), (vec![0, 1, 2], None));
}

/// Nobody asks any more, so that nobody finds out how it is by now.
#[tokio::test(start_paused = true)]
async fn a_verdict_that_is_over_and_that_nobody_tries_is_not_told() {
    let endpoints = endpoints("eject = {}");
    let care = endpoints.care().unwrap();
    endpoints.first(None).unwrap();
    care.tick();
    meets(&endpoints, 0, Outcome::Failed(Kind::Lost), 5);
    meets(&endpoints, 1, Outcome::Good, 7);
    let own = || Said::read(&say(&endpoints).unwrap()).unwrap();
    let ejected = vec![URLS[0].to_owned()];
    assert_eq!(own(), Said { v: 1, requests: 7, ejected, ..Said::default() });
    tokio::time::advance(Duration::from_secs(40)).await;
    assert_eq!(own().ejected.len(), 1, "somebody has asked in the last minute");
    tokio::time::advance(Duration::from_secs(40)).await;
    assert_eq!(own(), said(0, &[]));
}

fn counted(requests: u64, retries: u64) -> Said {
    Said { retries, ..said(requests, &[]) }
}

#[test]
fn a_share_is_of_what_all_have_left() {
    for (percent, all, expected) in [
        (20, vec![], 0),
        (20, vec![counted(1_000, 0)], 2_000),
        (20, vec![counted(1_000, 0), counted(0, 0)], 1_000),
        (20, vec![counted(900, 100), counted(100, 0), counted(0, 0), counted(0, 0)], 250),
        (20, vec![counted(900, 150), counted(100, 50)], 0),
        (20, vec![counted(900, 1_500), counted(100, 50)], 0),
        (0, vec![counted(1_000, 0)], 0),
    ] {
        assert_eq!(share(percent, 10_000, &all), expected, "{all:?}");
    }
    let most = vec![counted(COUNT_MAX, 0); 256];
    assert_eq!(share(100, COUNT_MAX, &most), 100 * COUNT_MAX / 10);
}

/// Whatever others say, it comes to one repeat for each of its own requests.
#[test]
fn a_share_is_bounded_by_the_own_requests() {
    for (own, expected) in [(0, 0), (5, 50), (1_000, 10_000), (1_000_000, 10_000_000)] {
        assert_eq!(share(20, own, &[counted(own, 0), counted(COUNT_MAX, 0)]), expected, "{own}");
    }
    assert_eq!(share(20, u64::MAX, &[counted(1_000, 0)]), 2_000);
}

/// Requests that all fail, and the repeats of them, of a gateway that hears the others each second.
async fn fail_all(per_second: u64, seconds: u64, other: &Said) -> u64 {
    let endpoints = endpoints("retry = {}");
    let retry = endpoints.retry().unwrap();
    let mut repeats = 0;
    for _ in 0..seconds {
        for _ in 0..5 {
            for _ in 0..per_second / 5 {
                retry.note_request();
                repeats += u64::from(retry.spend(1_000).is_some());
            }
            tokio::time::advance(Duration::from_millis(200)).await;
            retry.tick();
        }
        let own = Said::read(&say(&endpoints).unwrap()).unwrap();
        hear(&endpoints, &told(&[own, other.clone()]));
    }
    repeats
}

/// Its own 20 % and 10 per second, and half of what is left to two gateways. What it uses of that
/// is not left any more: a third, in the end.
#[tokio::test(start_paused = true)]
async fn a_quiet_gateway_may_repeat_what_the_fleet_has_left() {
    let alone = fail_all(1_000, 60, &said(0, &[])).await;
    assert!((12_500..=12_700).contains(&alone), "{alone} of 60,000");
    let together = fail_all(1_000, 60, &counted(100_000, 0)).await;
    // 20 % of 11,000 in a second, without its own 210.
    let lent = (together - alone) / 60;
    assert!((620..=720).contains(&lent), "{lent} of 1,990");
    let spent = fail_all(1_000, 60, &counted(100_000, 25_000)).await;
    assert!(spent <= 210 * 60 + 10, "{spent}: the fleet has nothing left");
}

#[tokio::test(start_paused = true)]
async fn what_is_lent_holds_for_a_second() {
    let endpoints = endpoints("retry = {}");
    let retry = endpoints.retry().unwrap();
    (0..100).for_each(|_| retry.note_request());
    retry.tick();
    let left = retry.left();
    for _ in 0..9 {
        hear(&endpoints, &told(&[counted(500, 0), counted(500, 0)]));
    }
    assert_eq!(retry.left(), left + 10);
    for _ in 0..9 {
        hear(&endpoints, &told(&[counted(COUNT_MAX, 0), counted(500, 0)]));
    }
    assert_eq!(retry.left(), left + 10, "as many as it has had requests in a second");
    hear(&endpoints, &[]);
    assert_eq!(retry.left(), left, "nobody is heard any more");
    // Less than one in a second comes to one.
    for _ in 0..9 {
        hear(&endpoints, &told(&[counted(5, 0), counted(5, 0)]));
    }
    assert_eq!(retry.left(), left);
    for _ in 0..9 {
        hear(&endpoints, &told(&[counted(5, 0), counted(5, 0)]));
    }
    assert_eq!(retry.left(), left + 1);
}
