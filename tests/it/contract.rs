//! What every store promises, shown once over the embedded store and once over a real Redis.

mod access;
mod api_keys;
mod charges;
mod leases;
mod model;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis::config::{self, StoreUrl};
use portcullis::store::{
    Cached, CachedReply, Entry, MemoryStore, Questions, RedisStore, Reply, SessionKey,
    SessionReply, SessionValue, Standing, StandingReply, Store,
};

use crate::support::{PATIENCE, Redis};

/// A store under test, and the hands of an application that writes into it.
pub(crate) struct Subject {
    pub(crate) store: Arc<Store>,
    pub(crate) redis: Option<Redis>,
}

/// Makes of each law one test over the embedded store and one over Redis.
macro_rules! over_both_stores {
    ($($law:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $law() { $crate::contract::over_memory(super::$law); })*
        }
        mod redis {
            $(#[test] fn $law() { $crate::contract::over_redis(super::$law); })*
        }
    };
}
pub(crate) use over_both_stores;

pub(crate) fn over_memory(law: impl AsyncFnOnce(Subject)) {
    runtime().block_on(async {
        let store = Arc::new(Store::Memory(Box::new(MemoryStore::new(100_000))));
        law(Subject { store, redis: None }).await;
    });
}

pub(crate) fn over_redis(law: impl AsyncFnOnce(Subject)) {
    let redis = Redis::start();
    runtime().block_on(async {
        let (host, port) = (redis.address().ip().to_string(), redis.address().port());
        // Nothing here is about deadlines, and the machine may be busy.
        let store = RedisStore::open(&config::Store {
            url: StoreUrl::Redis { host, port, db: 0 },
            timeout: PATIENCE,
            connect_timeout: PATIENCE,
            ..config::Store::default()
        });
        assert!(store.first_connection(PATIENCE).await, "no connection to redis-server");
        law(Subject { store: Arc::new(Store::Redis(Box::new(store))), redis: Some(redis) }).await;
    });
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

impl Subject {
    fn memory(&self) -> &MemoryStore {
        let Store::Memory(store) = &*self.store else { panic!("not the embedded store") };
        store
    }

    /// Writes a string without an expiry.
    fn write(&self, key: &str, value: &str) {
        match &self.redis {
            Some(redis) => assert_eq!(redis.cli(&["SET", key, value]), "OK"),
            None => self.memory().put(key, Bytes::copy_from_slice(value.as_bytes()), None).unwrap(),
        }
    }

    /// Writes a hash without an expiry.
    fn write_fields(&self, key: &str, fields: &[(&'static str, &'static str)]) {
        for (name, value) in fields {
            if let Some(redis) = &self.redis {
                assert_eq!(redis.cli(&["HSET", key, name, value]), "1");
            }
        }
        if self.redis.is_none() {
            let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
            let fields = fields.iter().map(|(name, value)| (bytes(name), bytes(value)));
            self.memory().put_fields(key, fields.collect()).unwrap();
        }
    }

    async fn standing(&self, blacklist: &[&str], not_before: Option<&str>) -> Reply<StandingReply> {
        let standing = Standing { blacklist: &words(blacklist), not_before, record: None };
        let questions = Questions { standing: Some(standing), ..Questions::default() };
        self.store.ask(&questions).await.standing.expect("an answer")
    }

    async fn session(&self, key: &str) -> Reply<Option<SessionReply>> {
        let questions = Questions {
            session: Some(SessionKey { key, ttl: true, bytes_max: 1024, end: None }),
            ..Questions::default()
        };
        self.store.ask(&questions).await.session.expect("an answer")
    }

    /// What is left of a session's life; nothing when it has no expiry.
    async fn ttl(&self, key: &str) -> Option<Duration> {
        self.session(key).await.expect("no failure").expect("a session").ttl
    }

    /// The epochs of a base and a path, the entry, and whether `overdue` was settled.
    async fn cached(&self, overdue: &[&str]) -> (CachedReply, bool) {
        let (epochs, overdue) = (words(&[BASE, PATH]), words(overdue));
        let cached = Some(Cached { epochs: &epochs, entry: Some(ENTRY) });
        let questions = Questions { cached, overdue: &overdue, ..Questions::default() };
        let answers = self.store.ask(&questions).await;
        (answers.cached.expect("an answer").expect("no failure"), answers.settled)
    }

    async fn remember(&self, path_epoch: &Bytes, value: &'static str) -> bool {
        let entry = Entry {
            key: ENTRY.to_owned(),
            path_epoch_key: PATH.to_owned(),
            path_epoch: path_epoch.clone(),
            value: Bytes::from_static(value.as_bytes()),
            ttl: Duration::from_secs(60),
        };
        self.store.remember(&entry).await.expect("no failure")
    }
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

const BASE: &str = "app:cache:{*}:epoch";
const PATH: &str = "app:cache:{shop/p}:epoch";
const ENTRY: &str = "app:cache:{shop/p}:entry:r:";
const MINUTE: Duration = Duration::from_secs(60);

over_both_stores![
    a_token_is_listed_when_any_of_its_keys_exists,
    a_not_before_time_is_read_and_garbage_is_not_taken_for_none,
    a_revocation_lives_as_long_as_it_was_given,
    a_session_may_be_a_string_or_a_hash,
    of_a_session_that_is_too_long_no_more_than_shows_it_is_sent,
    a_response_is_kept_and_found,
    a_response_fetched_before_an_invalidation_is_not_kept,
    overdue_epochs_are_changed_before_the_cache_is_read,
    a_base_epoch_is_made_once,
    all_questions_are_answered_at_once,
];

async fn a_token_is_listed_when_any_of_its_keys_exists(it: Subject) {
    it.write("app:auth:blacklist:sid:s1", "1");
    let listed = async |keys: &[&str]| it.standing(keys, None).await.unwrap().listed;
    assert!(!listed(&["app:auth:blacklist:t1"]).await);
    assert!(listed(&["app:auth:blacklist:t1", "app:auth:blacklist:sid:s1"]).await);
    assert!(listed(&["app:auth:blacklist:sid:s1"]).await);
    assert!(it.store.delete("app:auth:blacklist:sid:s1").await.unwrap());
    assert!(!it.store.delete("app:auth:blacklist:sid:s1").await.unwrap());
    assert!(!listed(&["app:auth:blacklist:sid:s1"]).await);
}

async fn a_not_before_time_is_read_and_garbage_is_not_taken_for_none(it: Subject) {
    let key = "app:auth:not-before:42";
    assert_eq!(it.standing(&["t"], Some(key)).await.unwrap().not_before, None);
    it.write(key, "1700000000");
    let expected = StandingReply { not_before: Some(1_700_000_000), ..StandingReply::default() };
    assert_eq!(it.standing(&["t"], Some(key)).await, Ok(expected));
    assert_eq!(it.standing(&[], Some(key)).await, Ok(expected));
    it.write(key, "yesterday");
    let reply = it.standing(&["t"], Some(key)).await;
    assert!(reply.is_err(), "whoever wrote that meant to revoke: {reply:?}");
}

async fn a_revocation_lives_as_long_as_it_was_given(it: Subject) {
    it.store.put("mark", b"1", MINUTE).await.unwrap();
    assert!(it.standing(&["mark"], None).await.unwrap().listed);
    let ttl = it.ttl("mark").await.expect("an expiry");
    assert!(ttl <= MINUTE && ttl > MINUTE - PATIENCE, "{ttl:?}");
}

async fn a_session_may_be_a_string_or_a_hash(it: Subject) {
    assert_eq!(it.session("app:session:a").await, Ok(None));
    it.write("app:session:a", r#"{"n":1}"#);
    let text = SessionValue::Text(Bytes::from_static(br#"{"n":1}"#));
    let expected = SessionReply { value: text, ttl: None };
    assert_eq!(it.session("app:session:a").await, Ok(Some(expected)));
    it.write_fields("app:session:b", &[("n", "1"), ("é", "")]);
    let Ok(Some(SessionReply { value: SessionValue::Fields(mut fields), ttl: None })) =
        it.session("app:session:b").await
    else {
        panic!("not a hash without an expiry");
    };
    fields.sort();
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    assert_eq!(fields, [(bytes("n"), bytes("1")), (bytes("é"), bytes(""))]);
}

async fn of_a_session_that_is_too_long_no_more_than_shows_it_is_sent(it: Subject) {
    let long: &'static str = "x".repeat(5000).leak();
    it.write("app:session:text", long);
    it.write("app:session:just", &long[..1024]);
    it.write_fields("app:session:hash", &[("name", long)]);
    let length = async |key: &str| match it.session(key).await.unwrap().unwrap().value {
        SessionValue::Text(text) => text.len(),
        SessionValue::Fields(fields) => fields.iter().map(|(n, v)| n.len() + v.len()).sum(),
    };
    // The embedded store sends nothing anywhere.
    let (text, hash) = if it.redis.is_some() { (1025, 1025) } else { (5000, 5004) };
    for _ in 0..2 {
        assert_eq!(length("app:session:text").await, text);
        assert_eq!(length("app:session:just").await, 1024);
        // From here on sessions are read by the script.
        assert_eq!(length("app:session:hash").await, hash);
    }
    it.write("app:session:empty", "");
    for key in ["app:session:none", "app:session:empty"] {
        assert!(it.session(key).await.unwrap().is_none(), "{key}");
    }
}

async fn a_response_is_kept_and_found(it: Subject) {
    let (before, _) = it.cached(&[]).await;
    assert_eq!((before.based, &before.entry), (false, &None));
    it.store.found(BASE).await.unwrap();
    let (before, _) = it.cached(&[]).await;
    assert!(before.based && before.path_epoch.is_empty());
    assert!(it.remember(&before.path_epoch, "first").await);
    let (found, _) = it.cached(&[]).await;
    assert_eq!(found.entry.as_deref(), Some(&b"first"[..]));
    assert_eq!(found.epochs, before.epochs);
    // A node that holds a copy asks for the epochs alone.
    let cached = Some(Cached { epochs: &words(&[BASE, PATH]), entry: None });
    let answers = it.store.ask(&Questions { cached, ..Questions::default() }).await;
    let reply = answers.cached.expect("an answer").expect("no failure");
    assert_eq!((reply.entry, reply.epochs), (None, before.epochs));
}

async fn a_response_fetched_before_an_invalidation_is_not_kept(it: Subject) {
    it.store.found(BASE).await.unwrap();
    let (before, _) = it.cached(&[]).await;
    it.store.invalidate(&words(&[PATH])).await.unwrap();
    assert!(!it.remember(&before.path_epoch, "old").await);
    let (between, _) = it.cached(&[]).await;
    assert_eq!(between.entry, None);
    assert_ne!(between.epochs, before.epochs);
    assert!(it.remember(&between.path_epoch, "new").await);
    it.store.invalidate(&words(&[PATH])).await.unwrap();
    let (after, _) = it.cached(&[]).await;
    assert_ne!(after.epochs, between.epochs, "an epoch never comes back");
    assert!(!it.remember(&between.path_epoch, "old").await);
}

async fn overdue_epochs_are_changed_before_the_cache_is_read(it: Subject) {
    it.store.found(BASE).await.unwrap();
    let (before, settled) = it.cached(&[]).await;
    assert!(!settled);
    let (during, settled) = it.cached(&[PATH, BASE]).await;
    assert!(settled && during.based);
    assert_ne!(during.epochs, before.epochs);
    assert_ne!(during.path_epoch, before.path_epoch);
    assert_eq!(it.cached(&[]).await.0.epochs, during.epochs);
}

async fn a_base_epoch_is_made_once(it: Subject) {
    it.store.found(BASE).await.unwrap();
    let (first, _) = it.cached(&[]).await;
    assert!(first.based);
    it.store.found(BASE).await.unwrap();
    assert_eq!(it.cached(&[]).await.0.epochs, first.epochs);
    it.store.invalidate(&words(&[BASE])).await.unwrap();
    let (purged, _) = it.cached(&[]).await;
    assert!(purged.based);
    assert_ne!(purged.epochs, first.epochs);
}

async fn all_questions_are_answered_at_once(it: Subject) {
    it.store.found(BASE).await.unwrap();
    it.write("listed", "1");
    it.write("app:session:a", "{}");
    let set = charges::set(&[3, 7]);
    let keys = words(&["app:ratelimit:{a}:x:1m", "app:ratelimit:{a}:y:1m"]);
    let (blacklist, epochs) = (words(&["free", "listed"]), words(&[BASE, PATH]));
    let questions = Questions {
        standing: Some(Standing { blacklist: &blacklist, not_before: Some("since"), record: None }),
        charges: Some(portcullis::store::Charges { set: &set, keys: &keys }),
        leases: None,
        session: Some(SessionKey { key: "app:session:a", ttl: true, bytes_max: 1024, end: None }),
        cached: Some(Cached { epochs: &epochs, entry: Some(ENTRY) }),
        overdue: &words(&[PATH]),
    };
    assert!(!questions.is_empty());
    let answers = it.store.ask(&questions).await;
    assert!(answers.standing.unwrap().unwrap().listed);
    let charged = answers.charges.unwrap().unwrap();
    assert!(charged.allowed);
    assert_eq!(charged.windows.iter().map(|w| w.free).collect::<Vec<_>>(), [3, 7]);
    assert!(answers.session.unwrap().unwrap().is_some());
    assert!(answers.cached.unwrap().unwrap().based);
    assert!(answers.settled);
}
