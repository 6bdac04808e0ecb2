//! The set of known revocations: what it keeps, when it is trusted, and what it never forgets.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::keys::Keys;
use crate::store::revoked::{Notice, Revoked};
use crate::store::{RevocationKeys, RevocationStatus};

const NOW: u64 = 1_800_000_000;
const HOUR: u64 = 3600;
const STALE: Duration = Duration::from_secs(60);

fn fields(fields: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect()
}

/// An entry of the stream as it is read at `NOW`.
fn notice(entry: &[(&str, &str)]) -> Option<Notice> {
    Notice::read(&fields(entry), &Keys::new("app"), NOW, Duration::from_secs(HOUR))
}

fn listed(key: &str, until: u64) -> Notice {
    notice(&[("key", key), ("until", &until.to_string())]).expect("a revocation")
}

/// A set that has just been told that there is no more.
fn set(max: usize, notices: impl IntoIterator<Item = Notice>) -> (Revoked, Instant) {
    let mut set = Revoked::new(max);
    for notice in notices {
        set.apply(notice, NOW);
    }
    let heard = Instant::now();
    set.heard(heard);
    (set, heard)
}

fn asks(set: &Revoked, key: &str, now: (u64, Instant)) -> Option<bool> {
    let blacklist = [key.to_owned()];
    let revocation = RevocationKeys { blacklist: &blacklist, ..RevocationKeys::default() };
    set.recall(revocation, now.0, now.1, STALE).map(|reply| reply.listed)
}

#[test]
fn an_entry_holds_until_its_end_and_no_longer() {
    let (set, heard) = set(9, [listed("app:auth:blacklist:a", NOW + 10)]);
    assert_eq!(asks(&set, "app:auth:blacklist:a", (NOW, heard)), Some(true));
    assert_eq!(asks(&set, "app:auth:blacklist:b", (NOW, heard)), Some(false));
    assert_eq!(asks(&set, "app:auth:blacklist:a", (NOW + 10, heard)), Some(true));
    assert_eq!(asks(&set, "app:auth:blacklist:a", (NOW + 11, heard)), Some(false));
}

#[test]
fn the_newest_entry_of_a_key_counts_and_zero_takes_it_back() {
    let key = "app:auth:blacklist:sid:s";
    let (mut set, heard) = set(1, [listed(key, NOW + 10), listed(key, NOW + 20)]);
    assert_eq!(set.len(), 1);
    assert_eq!(asks(&set, key, (NOW + 15, heard)), Some(true));
    set.apply(listed(key, 0), NOW);
    assert_eq!(asks(&set, key, (NOW, heard)), Some(false));
    assert!(set.is_empty());
}

/// The journal of another gateway tells it late.
#[test]
fn an_older_entry_that_is_told_behind_a_newer_one_shortens_nothing() {
    let key = "app:auth:not-before:u";
    let told = |time: u64, until: u64| {
        let (time, until) = (time.to_string(), until.to_string());
        let late = ("late", "1");
        let entry = [("key", key), ("not_before", &*time), ("until", &*until), late];
        notice(&entry).expect("a revocation")
    };
    let newer = || told(NOW - 10, NOW + HOUR);
    for older in [told(NOW - 60, NOW + 20), told(NOW - 60, NOW - 1)] {
        let (set, _) = set(9, [newer(), older]);
        let known = set.all(NOW);
        assert_eq!(known.len(), 1, "what has ended takes nothing back");
        let (not_before, until) = (known[0].not_before, known[0].until);
        assert_eq!((not_before, until), (i64::try_from(NOW - 10).ok(), NOW + HOUR));
    }
    // What was taken back, or has ended, has no part in what is made anew.
    let (mut set, _) = set(9, [newer(), told(NOW, 0), told(NOW - 60, NOW + 20)]);
    assert_eq!(set.all(NOW)[0].until, NOW + 20);
    set.apply(told(NOW - 90, NOW + 60), NOW + 21);
    assert_eq!(set.all(NOW + 21)[0].not_before, i64::try_from(NOW - 90).ok());
}

#[test]
fn a_set_is_trusted_for_less_than_max_stale_since_the_store_was_heard() {
    let (mut set, heard) = set(9, []);
    let after = |seconds| heard + Duration::from_secs(seconds);
    assert!(set.is_trusted(NOW, heard, STALE));
    assert!(set.is_trusted(NOW, after(59), STALE));
    assert!(!set.is_trusted(NOW, after(60), STALE));
    assert_eq!(asks(&set, "app:auth:blacklist:a", (NOW, after(60))), None);
    // The wall clock has no say in it.
    assert!(set.is_trusted(NOW + HOUR, after(59), STALE));
    set.heard(after(60));
    assert!(set.is_trusted(NOW, after(60), STALE));
    assert!(!set.is_trusted(NOW, after(60), Duration::ZERO), "0s is off");
}

#[test]
fn nothing_is_trusted_before_the_stream_was_read_to_its_end() {
    let mut set = Revoked::new(9);
    set.apply(listed("app:auth:blacklist:a", NOW + 10), NOW);
    let now = (NOW, Instant::now());
    assert!(!set.is_complete(NOW) && !set.is_trusted(now.0, now.1, STALE));
    assert_eq!(asks(&set, "app:auth:blacklist:a", now), None);
}

#[test]
fn what_does_not_fit_makes_the_set_incomplete_for_as_long_as_it_would_hold() {
    let key = |name: &str| format!("app:auth:blacklist:{name}");
    let (set, heard) =
        set(2, ["a", "b", "c"].map(|name| listed(&key(name), NOW + 10)).into_iter().take(3));
    assert_eq!(set.len(), 2, "the bound holds");
    for second in [NOW, NOW + 10] {
        assert!(!set.is_complete(second));
        assert_eq!(asks(&set, &key("a"), (second, heard)), None, "not even for what is known");
    }
    assert!(set.is_complete(NOW + 11), "what was missed has ended");
}

#[test]
fn what_has_ended_makes_room() {
    let (mut set, _) =
        set(2, ["a", "b"].map(|it| listed(&format!("app:auth:blacklist:{it}"), NOW)));
    set.apply(listed("app:auth:blacklist:c", NOW + HOUR), NOW + 1);
    assert_eq!(set.len(), 1);
    assert!(set.is_complete(NOW + 1));
}

#[test]
fn a_gap_is_forgiven_when_nothing_of_it_can_hold_any_more() {
    let (mut set, heard) = set(9, [listed("app:auth:blacklist:a", NOW + 10)]);
    set.lacks_until(NOW + 5);
    assert_eq!(asks(&set, "app:auth:blacklist:a", (NOW + 5, heard)), None);
    assert_eq!(asks(&set, "app:auth:blacklist:a", (NOW + 6, heard)), Some(true));
}

#[test]
fn a_not_before_time_is_recalled_as_the_store_would_tell_it() {
    let key = "app:auth:not-before:u";
    let entry = |time: &str| notice(&[("key", key), ("not_before", time), ("until", "9999999999")]);
    let ask = |entry| {
        let (set, heard) = set(9, [entry]);
        let revocation = RevocationKeys { not_before: Some(key), ..RevocationKeys::default() };
        set.recall(revocation, NOW, heard, STALE)
    };
    let told = |not_before| {
        Some(RevocationStatus { not_before: Some(not_before), ..RevocationStatus::default() })
    };
    assert_eq!(ask(entry("1799999000").unwrap()), told(1_799_999_000));
    // Nobody can say which tokens are meant, so all are.
    assert_eq!(ask(entry("yesterday").unwrap()), told(i64::MAX));
    assert_eq!(ask(notice(&[("key", key)]).unwrap()), told(i64::MAX));
    // A token's own key is no time, whatever stands beside it.
    let odd = notice(&[("key", "app:auth:blacklist:t"), ("not_before", "5")]).unwrap();
    let (set, heard) = set(9, [odd]);
    assert_eq!(asks(&set, "app:auth:blacklist:t", (NOW, heard)), Some(true));
}

#[test]
fn an_entry_without_a_readable_end_lasts_as_long_as_any_revocation() {
    let key = "app:auth:blacklist:a";
    for entry in [
        vec![("key", key)],
        vec![("key", key), ("until", "")],
        vec![("key", key), ("until", "tomorrow")],
        vec![("key", key), ("until", "-1")],
        vec![("until", "99999999999999999999999"), ("key", key), ("note", "x")],
    ] {
        let (set, heard) = set(9, notice(&entry));
        assert_eq!(asks(&set, key, (NOW + HOUR, heard)), Some(true), "{entry:?}");
        assert_eq!(asks(&set, key, (NOW + HOUR + 1, heard)), Some(false), "{entry:?}");
    }
}

#[test]
fn what_names_no_revocation_is_no_notice() {
    let long = format!("app:auth:blacklist:{}", "x".repeat(600));
    for key in ["", "app:session:s", "other:auth:blacklist:a", "app:auth:blacklist", &long] {
        assert_eq!(notice(&[("key", key), ("until", "9999999999")]), None, "{key}");
    }
    assert_eq!(notice(&[]), None);
    assert_eq!(Notice::read(&[(vec![0xFF], vec![0xFF])], &Keys::new("app"), NOW, STALE), None);
}

#[test]
fn what_was_taken_back_or_made_anew_does_not_hold_as_it_was_known() {
    let key = |name: &str| format!("app:auth:blacklist:{name}");
    let names = ["stays", "back", "anew"].map(key);
    let (mut set, _) = set(9, names.iter().map(|name| listed(name, NOW + 10)));
    let mut known = set.all(NOW);
    known.sort_by_key(|it| names.iter().position(|name| *name == it.key));
    for (name, until) in [(&names[1], "0".to_owned()), (&names[2], (NOW + 20).to_string())] {
        set.apply(notice(&[("key", name), ("until", &until)]).expect("an entry"), NOW);
    }
    let holds: Vec<bool> = known.iter().map(|it| set.holds(it)).collect();
    assert_eq!(holds, [true, false, false]);
}
