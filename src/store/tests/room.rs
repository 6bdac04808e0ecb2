//! What the embedded store does when there is more than it has room for.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::advance;

use crate::store::keys::Keys;
use crate::store::{
    Cached, CachedEntry, CachedReply, ChargeReply, Charges, ConcurrencyLimit, Entry, Epoch,
    HeldLock, Leases, MemoryBounds, MemoryStore, Mode, Purge, Questions, Remembered,
    RevocationKeys, Window, WindowSet,
};

const SECOND: Duration = Duration::from_secs(1);
const MIB: usize = 1024 * 1024;

/// Room for 100 keys of each kind and 4 MiB of responses.
fn store() -> MemoryStore {
    MemoryStore::bounded(MemoryBounds { cache_bytes: 4 * MIB, ..MemoryBounds::keys(100) })
}

fn limits(all: &[u32]) -> WindowSet {
    WindowSet::new(all.iter().map(|limit| Window::new(*limit, 60 * SECOND)).collect())
}

fn take(store: &MemoryStore, set: &WindowSet, keys: &[String]) -> ChargeReply {
    store.take(Charges { set, keys }).expect("limits have room")
}

/// Keeps a response of so many bytes below a path.
fn remember(store: &MemoryStore, path: &str, bytes: usize) -> Remembered {
    let keys = Keys::new("app");
    let entry = Entry {
        key: keys.cache_entry("h", path, "r"),
        variant: "-".to_owned(),
        vary: String::new(),
        value: vec![0; bytes].into(),
        ttl: 3600 * SECOND,
        path_epoch_key: keys.cache_path("h", path),
        path_epoch: cached(store, path).path_epoch,
        lock: None,
    };
    store.remember(&entry).expect("the cache has room")
}

fn cached(store: &MemoryStore, path: &str) -> CachedReply {
    let keys = Keys::new("app");
    let epochs = [keys.cache_base(), keys.cache_path("h", path)];
    let (key, variants) = (keys.cache_entry("h", path, "r"), ["-".to_owned()]);
    let entry = Some(CachedEntry { key: &key, variants: &variants, lock: None });
    store.cached(Cached { epochs: &epochs, entry })
}

fn is_kept(store: &MemoryStore, path: &str) -> bool {
    cached(store, path).variants.iter().any(Option::is_some)
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_keys_refuses_nobody_and_frees_nobody_who_is_over() {
    let (store, set) = (store(), limits(&[10]));
    let guilty = ["guilty".to_owned()];
    for _ in 0..10 {
        assert!(take(&store, &set, &guilty).allowed);
    }
    for number in 0..10_000 {
        assert!(take(&store, &set, &[format!("made-up-{number}")]).allowed, "{number}");
        assert!(!take(&store, &set, &guilty).allowed, "it begins anew after {number}");
    }
    assert_eq!(store.evicted().limits, 10_001 - 100);
    advance(60 * SECOND).await;
    assert!(take(&store, &set, &guilty).allowed);
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_one_charge_do_not_push_each_other_out() {
    let store = MemoryStore::new(2);
    let set = limits(&[5, 5, 5]);
    for round in 0..3 {
        let keys: Vec<String> = (0..3).map(|number| format!("{round}-{number}")).collect();
        for used in 0..5 {
            let states = take(&store, &set, &keys).windows;
            assert!(states.iter().all(|state| state.free == 5 - used), "{states:?}");
        }
        assert!(!take(&store, &set, &keys).allowed, "more than the bound are kept for a moment");
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_or_a_refusal_takes_no_room() {
    let store = store();
    let keys: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    for key in &keys {
        take(&store, &limits(&[1]), std::slice::from_ref(key));
    }
    let peek = Window { mode: Mode::Peek, ..Window::new(1, 60 * SECOND) };
    take(&store, &WindowSet::new(vec![peek]), &["new".to_owned()]);
    assert!(!take(&store, &limits(&[1, 1]), &["1".to_owned(), "new".to_owned()]).allowed);
    assert_eq!(store.evicted().limits, 0);
    for key in &keys {
        assert!(!take(&store, &limits(&[1]), std::slice::from_ref(key)).allowed, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_idle_goes_before_what_counts() {
    let (store, set) = (store(), limits(&[2]));
    for number in 0..50 {
        take(&store, &set, &[format!("idle-{number}")]);
    }
    advance(60 * SECOND).await;
    for number in 0..90 {
        take(&store, &set, &[format!("live-{number}")]);
    }
    assert_eq!(store.evicted().limits, 0, "no counter in use was lost");
}

#[tokio::test(start_paused = true)]
async fn responses_beyond_the_budget_push_out_the_unused() {
    let store = store();
    store.found(&Keys::new("app").cache_base()).unwrap();
    for number in 0..40 {
        let path = format!("/{number}");
        assert_eq!(remember(&store, &path, MIB / 4), Remembered::Stored);
        assert!(is_kept(&store, &path), "{path} was said to be stored");
        assert!(is_kept(&store, "/0"), "what is in use was pushed out by {path}");
    }
    assert!(store.evicted().cache >= 24, "{:?}", store.evicted());
    let kept = (0..40).filter(|number| is_kept(&store, &format!("/{number}"))).count();
    assert!((10..=16).contains(&kept), "{kept}");
    // One that could never fit is refused, and nothing makes way for it.
    let pieces = [("app:cache:{h/x}:body:0:0".to_owned(), Bytes::from(vec![0; 5 * MIB]))];
    assert!(store.write_chunks(&pieces, SECOND).is_err());
    assert!(is_kept(&store, "/0"));
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_everything_frees_the_room_at_once() {
    let (store, base) = (store(), Keys::new("app").cache_base());
    store.found(&base).unwrap();
    for round in 0..3 {
        for number in 0..14 {
            remember(&store, &format!("/{round}/{number}"), MIB / 4);
        }
        store.purge(&[Purge::hard(base.clone())]).unwrap();
    }
    assert_eq!(store.evicted().cache, 0, "the room was free each time");
    remember(&store, "/a", 8);
    store.purge(&[Purge { key: base, soft: true }]).unwrap();
    assert!(is_kept(&store, "/a"), "a soft purge leaves what may be confirmed");
}

#[tokio::test(start_paused = true)]
async fn epochs_without_room_empty_the_cache_and_revive_nothing() {
    let keys = Keys::new("app");
    let (store, base) = (store(), keys.cache_base());
    store.found(&base).unwrap();
    store.purge(&[Purge::hard(keys.cache_path("h", "/old"))]).unwrap();
    let before = cached(&store, "/old").epochs;
    for number in 0..500 {
        let path = keys.cache_path("h", &format!("/{number}"));
        store.purge(&[Purge::hard(path), Purge::hard(keys.cache_tags_clock())]).unwrap();
        let now = cached(&store, &format!("/{number}"));
        assert!(now.based && now.epochs[1] != Epoch::default(), "{number}");
    }
    assert!(store.evicted().epochs >= 400, "{:?}", store.evicted());
    let after = cached(&store, "/old").epochs;
    assert_ne!(after[0], before[0], "what was stored under the old base is not valid any more");
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_is_known_in_part_is_not_taken_for_a_whole_one() {
    /// As many notes as are kept where there are too many, and one more.
    const KEPT: usize = 2048;
    let keys = Keys::new("app");
    let (store, clock) = (MemoryStore::new(10_000), keys.cache_tags_clock());
    let purge = |tags: &[&str]| {
        let tags = tags.iter().map(|tag| Purge::hard(keys.cache_tag("h", tag.as_bytes())));
        store.purge(&tags.chain([Purge::hard(clock.clone())]).collect::<Vec<_>>()).unwrap();
    };
    (0..KEPT).for_each(|_| purge(&["before"]));
    let since = store.epochs(std::slice::from_ref(&clock)).epochs[0];
    let is_kept = |tag: &str| {
        let key = [keys.cache_tag("h", tag.as_bytes())];
        store.tags(&key, &clock, since).is_some()
    };
    purge(&["lost", "last"]);
    assert!(is_kept("other") && !is_kept("lost") && !is_kept("last"));
    // One more, and the older notes go: the first of the two with them.
    (0..KEPT - 1).for_each(|_| purge(&["behind"]));
    assert!(!is_kept("lost") && !is_kept("last"));
}

#[tokio::test(start_paused = true)]
async fn no_flood_of_one_kind_reaches_another() {
    let (store, keys) = (store(), Keys::new("app"));
    let value = || Bytes::from_static(b"1");
    store.found(&keys.cache_base()).unwrap();
    store.put(&keys.session("s"), value(), None).unwrap();
    store.put(&keys.blacklist("j"), value(), None).unwrap();
    store.put(&keys.not_before("u"), value(), None).unwrap();
    store.put(&keys.api_key("d"), value(), None).unwrap();
    for number in 0..1000 {
        let text = number.to_string();
        take(&store, &limits(&[9]), std::slice::from_ref(&text));
        remember(&store, &format!("/{number}"), MIB / 8);
        let lock = HeldLock { key: Keys::cache_lock("app:cache:{h}:entry:", number), token: text };
        assert_eq!(store.lock(&lock, 60 * SECOND), Ok(true));
        store.purge(&[Purge::hard(keys.cache_path("h", &lock.token))]).unwrap();
        // These are refused when there is no room, and push nothing out.
        let _ = store.put(&keys.session(&lock.token), value(), None);
        let _ = store.put(&keys.blacklist(&lock.token), value(), None);
        let _ = store.put(&keys.api_key(&lock.token), value(), None);
    }
    let blacklist = [keys.blacklist("j")];
    let (not_before, record) = (keys.not_before("u"), keys.api_key("d"));
    let revocation = Some(RevocationKeys {
        blacklist: &blacklist,
        not_before: Some(&not_before),
        record: Some(&record),
        proof: None,
    });
    let answers = store.ask(&Questions { revocation, ..Questions::default() });
    let revocation = answers.revocation.unwrap().unwrap();
    assert!(revocation.listed && !revocation.gone && revocation.not_before == Some(1));
    assert!(store.get(&keys.session("s")).unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_dead_hold_no_room_for_ever() {
    let store = store();
    let limits = [ConcurrencyLimit { most: 1, lease: SECOND, mode: Mode::Enforce }];
    for round in 0..20 {
        for number in 0..1000 {
            let keys = [format!("{round}-{number}")];
            assert!(store.lease(Leases { limits: &limits, keys: &keys, holder: "h" }).allowed);
        }
        advance(SECOND).await;
    }
    assert!(store.slot_keys() <= 3000, "{} keys are kept of the dead", store.slot_keys());
}
