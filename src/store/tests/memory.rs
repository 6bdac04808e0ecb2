//! The embedded store. Time is paused: what expires does so when a test says.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::advance;

use crate::store::{
    Cached, CachedEntry, CachedReply, ChargeReply, Charges, Entry, MemoryStore, Purge, Questions,
    Remembered, Renewal, RevocationKeys, RevocationStatus, SessionKey, SessionKeys, SessionReply,
    SessionValue, StoreError, Window, WindowSet,
};

const SECOND: Duration = Duration::from_secs(1);

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn windows(limits: &[u32]) -> WindowSet {
    WindowSet::new(limits.iter().map(|limit| Window::new(*limit, 10 * SECOND)).collect())
}

fn take(store: &MemoryStore, set: &WindowSet, keys: &[&str]) -> ChargeReply {
    store.take(Charges { set, keys: &words(keys) }).expect("room for the keys")
}

fn session(store: &MemoryStore, key: &str) -> Option<SessionReply> {
    let answers = store.ask(&Questions {
        session: Some(SessionKey { key, ttl: true, bytes_max: 1024, end: None }),
        ..Questions::default()
    });
    answers.session.expect("an answer").expect("no failure")
}

fn revocation(
    store: &MemoryStore,
    blacklist: &[&str],
    not_before: Option<&str>,
) -> RevocationStatus {
    let revocation =
        RevocationKeys { blacklist: &words(blacklist), not_before, ..RevocationKeys::default() };
    let answers = store.ask(&Questions { revocation: Some(revocation), ..Questions::default() });
    answers.revocation.expect("an answer").expect("no failure")
}

fn cached(store: &MemoryStore, pending: &[&str]) -> (CachedReply, bool) {
    let (epochs, pending) = (words(&["base", "path"]), words(pending));
    let variants = words(&["-"]);
    let entry = CachedEntry { key: "entry", variants: &variants, lock: None };
    let cached = Some(Cached { epochs: &epochs, entry: Some(entry) });
    let answers =
        store.ask(&Questions { cached, pending_purges: &pending, ..Questions::default() });
    (answers.cached.expect("an answer").expect("no failure"), answers.settled)
}

fn entry(path_epoch: &Bytes) -> Entry {
    Entry {
        key: "entry".to_owned(),
        variant: "-".to_owned(),
        vary: String::new(),
        value: Bytes::from_static(b"response"),
        ttl: 10 * SECOND,
        path_epoch_key: "path".to_owned(),
        path_epoch: path_epoch.clone(),
        lock: None,
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_asked_is_not_answered() {
    let answers = MemoryStore::new(10).ask(&Questions::default());
    assert!(answers.revocation.is_none() && answers.charges.is_none());
    assert!(answers.session.is_none() && answers.cached.is_none() && !answers.settled);
}

#[tokio::test(start_paused = true)]
async fn a_value_ends_with_its_ttl() {
    let store = MemoryStore::new(10);
    store.put("mark", Bytes::from_static(b"1"), Some(10 * SECOND)).unwrap();
    advance(9 * SECOND).await;
    assert!(revocation(&store, &["other", "mark"], None).listed);
    assert_eq!(session(&store, "mark").unwrap().ttl, Some(SECOND));
    advance(SECOND).await;
    assert!(!revocation(&store, &["other", "mark"], None).listed);
    assert_eq!(session(&store, "mark"), None);
    assert!(!store.delete("mark"));
}

#[tokio::test(start_paused = true)]
async fn a_revocation_status_holds_the_blacklist_and_the_time() {
    let store = MemoryStore::new(10);
    store.put("since", Bytes::from_static(b"1700000000"), None).unwrap();
    let expected =
        RevocationStatus { not_before: Some(1_700_000_000), ..RevocationStatus::default() };
    assert_eq!(revocation(&store, &["mark"], Some("since")), expected);
    assert_eq!(revocation(&store, &[], Some("other")).not_before, None);
}

#[tokio::test(start_paused = true)]
async fn charges_are_made_to_all_windows_or_to_none() {
    let store = MemoryStore::new(10);
    let set = windows(&[5, 1]);
    let first = take(&store, &set, &["wide", "narrow"]);
    assert!(first.allowed);
    assert_eq!(first.windows.iter().map(|w| w.free).collect::<Vec<_>>(), [5, 1]);
    for _ in 0..20 {
        let refused = take(&store, &set, &["wide", "narrow"]);
        assert!(!refused.allowed);
        assert_eq!(refused.windows.iter().map(|w| w.free).collect::<Vec<_>>(), [4, 0]);
        assert_eq!(refused.windows[0].retry_ms, 0);
        assert_eq!(refused.windows[1].retry_ms, 10_000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_slides() {
    let store = MemoryStore::new(10);
    let set = windows(&[2]);
    assert!(take(&store, &set, &["k"]).allowed);
    advance(4 * SECOND).await;
    assert!(take(&store, &set, &["k"]).allowed);
    advance(6 * SECOND - Duration::from_micros(1)).await;
    let refused = take(&store, &set, &["k"]);
    assert_eq!((refused.allowed, refused.windows[0].retry_ms), (false, 1));
    advance(Duration::from_micros(1)).await;
    assert!(take(&store, &set, &["k"]).allowed, "the first has left");
    assert!(!take(&store, &set, &["k"]).allowed, "the second has not");
}

#[tokio::test(start_paused = true)]
async fn a_refund_frees_what_was_charged_in_every_window() {
    let store = MemoryStore::new(10);
    let set = windows(&[1, 1]);
    let taken = take(&store, &set, &["a", "b"]);
    assert!(!take(&store, &set, &["a", "b"]).allowed);
    store.refund(Charges { set: &set, keys: &words(&["a", "b"]) }, &taken.at);
    assert!(take(&store, &set, &["a", "b"]).allowed);
}

#[test]
fn threads_never_get_more_than_the_limit() {
    let store = MemoryStore::new(10);
    let set = windows(&[50]);
    let admitted = |_| (0..100).filter(|_| take(&store, &set, &["k"]).allowed).count();
    let sum: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || admitted(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(sum, 50);
}

#[tokio::test(start_paused = true)]
async fn renewing_never_shortens_and_gives_a_first_ttl() {
    let store = MemoryStore::new(10);
    let ttl = |key: &str| session(&store, key).and_then(|found| found.ttl);
    store.put("short", Bytes::from_static(b"{}"), Some(SECOND)).unwrap();
    store.put("long", Bytes::from_static(b"{}"), Some(100 * SECOND)).unwrap();
    store
        .put_fields("endless", vec![(Bytes::from_static(b"a"), Bytes::from_static(b"b"))])
        .unwrap();
    assert_eq!(ttl("endless"), None);
    for key in ["short", "long", "endless", "absent"] {
        let keys = SessionKeys { session: key.to_owned(), end: format!("{key}-end") };
        let renewal = Renewal { ttl: 10 * SECOND, until_ms: None, kept: SECOND };
        store.renew(&keys, renewal).unwrap();
    }
    assert_eq!(ttl("short"), Some(10 * SECOND));
    assert_eq!(ttl("long"), Some(100 * SECOND));
    assert_eq!(ttl("endless"), Some(10 * SECOND));
    assert_eq!(session(&store, "absent"), None, "renewing makes nothing");
    let fields = vec![(Bytes::from_static(b"a"), Bytes::from_static(b"b"))];
    assert_eq!(session(&store, "endless").unwrap().value, SessionValue::Fields(fields));
}

#[tokio::test(start_paused = true)]
async fn a_response_is_kept_only_under_the_epoch_it_was_fetched_under() {
    let store = MemoryStore::new(10);
    store.found("base").unwrap();
    let before = cached(&store, &[]).0;
    assert!(before.based && before.variants == [None]);
    store.purge(&[Purge::hard("path".to_owned())]).unwrap();
    assert_eq!(
        store.remember(&entry(&before.path_epoch)),
        Ok(Remembered::Outdated),
        "an older epoch"
    );
    let after = cached(&store, &[]).0;
    assert_ne!(after.epochs, before.epochs);
    assert_eq!(after.variants, [None]);
    assert_eq!(store.remember(&entry(&after.path_epoch)), Ok(Remembered::Stored));
    assert_eq!(cached(&store, &[]).0.variants[0].as_deref(), Some(&b"response"[..]));
    advance(10 * SECOND).await;
    assert_eq!(cached(&store, &[]).0.variants, [None], "its life is over");
}

#[tokio::test(start_paused = true)]
async fn pending_purges_are_carried_out_before_anything_is_read() {
    let store = MemoryStore::new(10);
    store.found("base").unwrap();
    let (before, settled) = cached(&store, &[]);
    assert!(!settled, "there was nothing to settle");
    let (during, settled) = cached(&store, &["path"]);
    assert!(settled);
    assert_ne!(during.epochs, before.epochs);
    assert_eq!(cached(&store, &[]).0, during);
}

#[tokio::test(start_paused = true)]
async fn a_base_is_made_once_and_outlives_every_response() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let store = MemoryStore::new(10);
    assert!(!cached(&store, &[]).0.based);
    store.found("base").unwrap();
    let first = cached(&store, &[]).0;
    store.found("base").unwrap();
    assert_eq!(cached(&store, &[]).0, first);
    advance(7 * DAY + SECOND).await;
    assert_eq!(cached(&store, &[]).0, first, "a response may live for 7 days");
    advance(DAY).await;
    assert!(!cached(&store, &[]).0.based);
}

#[tokio::test(start_paused = true)]
async fn more_revocations_than_are_copied_at_once_are_listed_once_each() {
    let store = MemoryStore::new(5000);
    let key = |number: u32| format!("app:auth:blacklist:{number}");
    for number in 0..2500 {
        let ttl = if number % 5 == 0 { SECOND } else { 10 * SECOND };
        store.put(&key(number), Bytes::from_static(b"1700000000123"), Some(ttl)).unwrap();
    }
    store.put("app:auth:not-before:42", Bytes::from_static(b"7"), None).unwrap();
    store.put("app:session:s", Bytes::from_static(b"{}"), None).unwrap();
    assert!(store.delete(&key(1)));
    advance(SECOND).await;
    let list = store.revocations();
    assert!(list.is_complete && list.is_current);
    let mut found: Vec<String> = list.revocations.iter().map(|it| it.key.clone()).collect();
    let live = (2..2500).filter(|number| number % 5 != 0).map(key);
    let mut expected: Vec<String> = live.chain(["app:auth:not-before:42".to_owned()]).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let of = |key: &str| list.revocations.iter().find(|it| it.key == key).unwrap();
    assert_eq!(of(&key(2)).told_ms, 1_700_000_000_123);
    let subject = of("app:auth:not-before:42");
    assert_eq!((subject.not_before, subject.until), (Some(7), u64::MAX));
    store.assert_counted();
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_lost_is_refused_and_what_is_over_makes_room() {
    let store = MemoryStore::new(2);
    let value = || Bytes::from_static(b"1");
    let kinds = ["app:session:", "app:auth:blacklist:", "app:auth:key:"];
    for kind in kinds {
        let put = |id: &str, ttl| store.put(&format!("{kind}{id}"), value(), ttl);
        put("a", Some(10 * SECOND)).unwrap();
        put("b", None).unwrap();
        assert!(matches!(put("c", None), Err(StoreError::Full(_))), "{kind}");
        assert_eq!(put("b", None), Ok(()), "a key that is there needs no room");
    }
    advance(10 * SECOND).await;
    for kind in kinds {
        assert_eq!(store.put(&format!("{kind}c"), value(), None), Ok(()), "{kind}");
        assert!(store.delete(&format!("{kind}b")), "{kind}");
        assert_eq!(store.put(&format!("{kind}d"), value(), None), Ok(()), "{kind}");
    }
}
