//! The embedded store's accounts of what it holds: whatever is done to it, what is counted is there
//! and within the bounds, and nothing is left of what is taken out.

use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::time::advance;

use crate::store::keys::Keys;
use crate::store::{
    ApiKeyWrite, Cached, Charges, Ending, Entry, HeldLock, MemoryBounds, MemoryStore, Purge,
    Renewal, Revocation, SessionWrite, StoreError, Window, WindowSet,
};

const SECOND: Duration = Duration::from_secs(1);
const MIB: usize = 1024 * 1024;
/// Names of each thing: few, so that they meet again.
const NAMES: u16 = 40;
const SESSIONS_OF_ONE: u32 = 3;

/// Little room, so that all of it is often taken.
fn bounds() -> MemoryBounds {
    MemoryBounds { cache_bytes: MIB, ..MemoryBounds::keys(20) }
}

fn session(keys: &Keys, id: &str, user: &str) -> SessionWrite {
    SessionWrite {
        part: id.to_owned(),
        keys: keys.session_keys(id),
        families: keys.session_families(),
        index: Some(keys.sessions_of(user)),
        value: Bytes::from_static(b"{}"),
        ttl: 60 * SECOND,
        why: Ending::Expired,
        kept: 30 * SECOND,
        most: Some(SESSIONS_OF_ONE),
        only_over: false,
    }
}

fn api_key(keys: &Keys, id: &str, owner: &str) -> ApiKeyWrite {
    let (digest, [record, ids]) = (format!("d{id}"), [keys.api_key(""), keys.api_key_id("")]);
    ApiKeyWrite {
        keys: keys.api_key_keys(&digest, id, owner),
        families: [ids, record],
        digest,
        record: Bytes::from_static(b"{}"),
        created_s: 1,
        ttl: Some(60 * SECOND),
    }
}

fn window() -> WindowSet {
    WindowSet::new(vec![Window::new(3, 10 * SECOND)])
}

/// One change of the store: which, of what, and how large.
async fn change(store: &MemoryStore, (what, number, size): (u8, u16, usize)) {
    match what {
        0..12 => change_cache(store, (what, number, size)),
        12..20 => change_access(store, (what, number)),
        20 => advance(SECOND * u32::from(number)).await,
        _ => {
            let keys = [Keys::new("app").session(&number.to_string())];
            store.take(Charges { set: &window(), keys: &keys }).expect("limits have room");
        }
    }
}

fn change_cache(store: &MemoryStore, (what, number, size): (u8, u16, usize)) {
    let (keys, name, few) = (Keys::new("app"), number.to_string(), (number % 4).to_string());
    let path = format!("/{name}");
    let (base, path_epoch_key) = (keys.cache_base(), keys.cache_path("h", &path));
    let key = keys.cache_entry("h", &path, "r");
    let lock = HeldLock { key: Keys::cache_lock(&key, 0), token: few.clone() };
    match what {
        0..4 => {
            let epochs = [base, path_epoch_key.clone()];
            let path_epoch = store.cached(Cached { epochs: &epochs, entry: None }).path_epoch;
            let (value, variant) = (vec![0; size].into(), format!("v{few}"));
            let (vary, ttl, lock) = (few, SECOND * u32::from(number + 1), Some(lock));
            let entry = Entry { key, variant, vary, value, ttl, path_epoch_key, path_epoch, lock };
            let _ = store.remember(&entry);
        }
        4..6 => {
            let piece = |index: u32| {
                (Keys::cache_body(&key, &[number as u8; 16], index), vec![0; size].into())
            };
            let _ = store.write_chunks(&[piece(0), piece(1)], SECOND * u32::from(number + 1));
            store.extend_chunks(&[piece(1).0, piece(2).0], 90 * SECOND);
        }
        6 => {
            let _ = store.lock(&lock, 20 * SECOND);
            let _ = store.extend_lock(&lock, 40 * SECOND);
        }
        7 => drop(store.unlock(&lock)),
        8 => drop(store.delete(&key)),
        9 => {
            let tag = keys.cache_tag("h", name.as_bytes());
            let purges = [tag, keys.cache_tags_clock(), path_epoch_key].map(Purge::hard);
            store.purge(&purges).expect("there is always room for a purge");
        }
        10 => store.purge(&[Purge { key: path_epoch_key, soft: true }]).expect("as above"),
        _ if number < 4 => store.purge(&[Purge::hard(base)]).expect("as above"),
        _ => drop(store.found(&base)),
    }
}

fn change_access(store: &MemoryStore, (what, number): (u8, u16)) {
    let (keys, name, few) = (Keys::new("app"), number.to_string(), (number % 4).to_string());
    match what {
        12 | 13 => {
            let write = session(&keys, &name, &few);
            let is_written = store.write_session(&write).is_ok();
            let found = store.get(&write.keys.session).expect("a string").is_some();
            let list = store.list_sessions(&keys.sessions_of(&few), &keys.session_families());
            let list = list.expect("an index").sessions;
            assert!(list.iter().any(|one| one.part == name) || !found, "nobody could end it");
            assert!(found || !is_written);
            assert!(list.len() <= SESSIONS_OF_ONE as usize);
            let renewal = Renewal { ttl: 90 * SECOND, until_ms: None, kept: SECOND };
            let _ = store.renew(&keys.session_keys(&few), renewal);
        }
        14 => drop(store.end_session(&keys.session_keys(&name), &name)),
        15 => drop(store.end_sessions(&keys.sessions_of(&few), &keys.session_families())),
        16 | 17 => {
            let write = api_key(&keys, &name, &few);
            let _ = store.write_api_key(&write);
            let is_there = |key: &str| store.get(key).expect("a string").is_some();
            assert_eq!(is_there(&write.keys.record), is_there(&write.keys.id), "half a key");
            store.list_api_keys(&write.keys.index, &write.families).expect("an index");
        }
        18 => {
            let (write, revoked) = (api_key(&keys, &name, &few), keys.blacklist_key(&name));
            let (ttl, stream_ttl) = (50 * SECOND, SECOND);
            let revocation = Revocation { key: &revoked, not_before: None, ttl, stream_ttl };
            let _ = store.end_api_key(&write.keys, revocation);
        }
        _ => drop(store.put(&keys.blacklist(&name), Bytes::from_static(b"1"), Some(SECOND))),
    }
}

/// Takes everything out.
async fn empty(store: &MemoryStore) {
    let keys = Keys::new("app");
    for name in (0..NAMES).map(|number| number.to_string()) {
        let _ = store.end_sessions(&keys.sessions_of(&name), &keys.session_families());
        store.end_session(&keys.session_keys(&name), &name);
        let write = api_key(&keys, &name, &name);
        for key in [write.keys.record, write.keys.id, write.keys.index] {
            store.delete(&key);
        }
        for key in [keys.blacklist(&name), keys.blacklist_key(&name), keys.session(&name)] {
            store.delete(&key);
        }
    }
    let (base, clock) = (keys.cache_base(), keys.cache_tags_clock());
    store.found(&base).expect("room for a base");
    store.purge(&[Purge::hard(base.clone())]).expect("it has one already");
    for key in [Keys::tags_purged(&clock).unwrap_or_default(), base, clock] {
        store.delete(&key);
    }
}

proptest! {
    #[test]
    fn what_is_counted_is_there(changes in vec((0..22_u8, 0..NAMES, 0..MIB / 3), 1..300)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let store = MemoryStore::bounded(bounds());
            for one in changes {
                change(&store, one).await;
                store.assert_counted();
            }
            empty(&store).await;
            assert_eq!(store.assert_counted(), 0, "something was left");
        });
    }
}

/// The same from many threads: what one does in the middle of what another does is accounted for.
#[test]
fn what_is_counted_is_there_whoever_else_is_at_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let store = runtime.block_on(async { MemoryStore::bounded(bounds()) });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    let (number, size) = (fastrand::u16(..NAMES), fastrand::usize(..MIB / 3));
                    let what = [0, 4, 6, 7, 8, 9, 10, 11, 14, 15, 18, 19, 21];
                    let what = what[fastrand::usize(..what.len())];
                    let turn = change(&store, (what, number, size));
                    runtime.block_on(turn);
                }
            });
        }
    });
    store.assert_counted();
    runtime.block_on(empty(&store));
    assert_eq!(store.assert_counted(), 0, "something was left");
}

#[tokio::test(start_paused = true)]
async fn what_has_no_room_is_not_written_in_part() {
    let keys = Keys::new("app");
    for room in 1..3 {
        let store = MemoryStore::new(room);
        let (session, api_key) = (session(&keys, "s", "u"), api_key(&keys, "k", "o"));
        assert!(matches!(store.write_session(&session), Err(StoreError::Full(_))), "{room}");
        assert_eq!(store.get(&session.keys.session), Ok(None), "{room}");
        assert!(matches!(store.write_api_key(&api_key), Err(StoreError::Full(_))), "{room}");
        assert_eq!(store.get(&api_key.keys.record), Ok(None), "{room}");
    }
}
