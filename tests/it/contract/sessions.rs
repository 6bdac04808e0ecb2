//! Sessions prolonged, written, listed and ended: the same in both stores.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use portcullis::store::keys::Keys;
use portcullis::store::{
    Ending, Questions, Renewal, SessionEnd, SessionKey, SessionList, SessionWrite, SessionWritten,
};

use super::{Cluster, MINUTE, Subject, over_all_stores, over_redis};

over_all_stores![
    renewing_never_shortens_and_gives_a_first_ttl,
    renewing_notes_when_and_why_the_session_will_end,
    renewing_never_passes_the_latest_end,
    a_written_session_is_found_listed_and_ended,
    an_update_brings_nothing_back,
    without_a_user_a_session_stays_whose_it_was,
    with_another_user_a_session_moves,
    the_oldest_end_beyond_the_cap,
    of_log_ins_at_once_as_many_last_as_are_allowed,
    what_is_gone_leaves_the_index_and_does_not_count,
    ending_all_ends_what_is_the_users_alone,
    an_index_outlives_its_sessions,
];

fn keys() -> Keys {
    Keys::new("app")
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(now.as_millis()).expect("milliseconds")
}

fn renewal(ttl: Duration) -> Renewal {
    Renewal { ttl, until_ms: None, kept: MINUTE }
}

/// A session for ten minutes, remembered for one more.
fn write(id: &str, user: Option<&str>, most: Option<u32>) -> SessionWrite {
    SessionWrite {
        part: Keys::session_part(id),
        keys: keys().session_keys(id),
        families: keys().session_families(),
        index: user.map(|user| keys().sessions_of(user)),
        value: Bytes::from_static(b"{}"),
        ttl: 10 * MINUTE,
        why: Ending::Idle,
        kept: MINUTE,
        most,
        only_over: false,
    }
}

impl Subject {
    /// As it is told once the session is gone, and not before.
    async fn end_of(&self, id: &str) -> Option<SessionEnd> {
        let (keys, gone) = (keys().session_keys(id), keys().session("gone"));
        let ask = async |key: &str| {
            let end = Some(keys.end.as_str());
            let session = Some(SessionKey { key, ttl: true, bytes_max: 1024, end });
            self.store.ask(&Questions { session, ..Questions::default() }).await
        };
        let asked = ask(&keys.session).await;
        let is_there = asked.session.expect("an answer").expect("no failure").is_some();
        assert!(!is_there || asked.session_end.is_none(), "of a session that is there");
        ask(&gone).await.session_end
    }

    async fn is_there(&self, id: &str) -> bool {
        self.session(&keys().session(id)).await.expect("no failure").is_some()
    }

    async fn put(&self, id: &str, user: Option<&str>, most: Option<u32>) -> SessionWritten {
        let written = self.store.write_session(&write(id, user, most)).await;
        written.expect("no failure").expect("a session")
    }

    async fn list(&self, user: &str) -> SessionList {
        let (index, families) = (keys().sessions_of(user), keys().session_families());
        self.store.list_sessions(&index, &families).await.expect("a list")
    }

    /// The ids of a user's sessions, newest first.
    async fn ids(&self, user: &str) -> Vec<String> {
        self.list(user).await.sessions.into_iter().map(|session| session.part).collect()
    }

    async fn end_all(&self, user: &str) -> usize {
        let (index, families) = (keys().sessions_of(user), keys().session_families());
        self.store.end_sessions(&index, &families).await.expect("no failure")
    }
}

async fn renewing_never_shortens_and_gives_a_first_ttl(it: Subject) {
    let key = |id: &str| keys().session(id);
    it.store.put(&key("short"), b"{}", Duration::from_secs(30)).await.unwrap();
    it.store.put(&key("long"), b"{}", 60 * MINUTE).await.unwrap();
    it.write(&key("endless"), "{}");
    it.write_fields(&key("endless-hash"), &[("n", "1")]);
    for id in ["short", "long", "endless", "endless-hash", "absent"] {
        it.store.renew(&keys().session_keys(id), renewal(10 * MINUTE)).await.unwrap();
    }
    for id in ["short", "endless", "endless-hash"] {
        let ttl = it.ttl(&key(id)).await.expect("an expiry");
        assert!(ttl <= 10 * MINUTE && ttl > 9 * MINUTE, "{id}: {ttl:?}");
    }
    assert!(it.ttl(&key("long")).await.expect("an expiry") > 50 * MINUTE);
    assert!(!it.is_there("absent").await);
    assert_eq!(it.end_of("absent").await, None, "renewing makes nothing");
}

async fn renewing_notes_when_and_why_the_session_will_end(it: Subject) {
    it.write("app:session:a", "{}");
    assert_eq!(it.end_of("a").await, None);
    let before = unix_ms();
    it.store.renew(&keys().session_keys("a"), renewal(10 * MINUTE)).await.unwrap();
    let end = it.end_of("a").await.expect("its end");
    assert_eq!(end.why, Ending::Idle);
    let expected = before + 600_000..=unix_ms() + 600_000;
    assert!(expected.contains(&end.at_ms), "{end:?} not in {expected:?}");
    // It is remembered after the session is gone, for as long as was said.
    assert!(it.store.delete("app:session:a").await.unwrap());
    assert_eq!(it.end_of("a").await, Some(end));
    // Also once sessions are read in the way that knows hashes.
    it.write_fields("app:session:hash", &[("n", "1")]);
    assert!(it.is_there("hash").await);
    assert_eq!(it.end_of("a").await, Some(end));
    let kept = it.ttl("app:session-end:{app:session:a}").await.expect("an expiry");
    assert!(kept > 10 * MINUTE && kept <= 11 * MINUTE, "{kept:?}");
    // What is no end is none.
    it.write_fields("app:session-end:{app:session:b}", &[("ends", "sometime")]);
    assert_eq!(it.end_of("b").await, None);
    it.write("app:session-end:{app:session:c}", "text");
    assert_eq!(it.end_of("c").await, None);
}

async fn renewing_never_passes_the_latest_end(it: Subject) {
    let until = |left: Duration| {
        let left = u64::try_from(left.as_millis()).unwrap();
        Renewal { ttl: 10 * MINUTE, until_ms: Some(unix_ms() + left), kept: MINUTE }
    };
    for (id, left) in [("near", 2 * MINUTE), ("far", 60 * MINUTE)] {
        it.store.put(&keys().session(id), b"{}", MINUTE).await.unwrap();
        it.store.renew(&keys().session_keys(id), until(left)).await.unwrap();
    }
    let near = it.ttl("app:session:near").await.expect("an expiry");
    assert!(near <= 2 * MINUTE && near > MINUTE, "{near:?}");
    assert_eq!(it.end_of("near").await.map(|end| end.why), Some(Ending::Expired));
    assert!(it.ttl("app:session:far").await.expect("an expiry") > 9 * MINUTE);
    assert_eq!(it.end_of("far").await.map(|end| end.why), Some(Ending::Idle));
    // One whose time is up is not touched.
    it.write("app:session:over", "{}");
    let past = Renewal { until_ms: Some(unix_ms() - 1000), ..renewal(MINUTE) };
    it.store.renew(&keys().session_keys("over"), past).await.unwrap();
    assert_eq!(it.ttl("app:session:over").await, None);
}

async fn a_written_session_is_found_listed_and_ended(it: Subject) {
    let before = unix_ms() / 1000;
    assert_eq!(it.put("two words", Some("42"), None).await, SessionWritten::default());
    assert!(it.is_there("two words").await);
    let ttl = it.ttl(&keys().session("two words")).await.expect("an expiry");
    assert!(ttl > 9 * MINUTE && ttl <= 10 * MINUTE, "{ttl:?}");
    assert_eq!(it.end_of("two words").await.map(|end| end.why), Some(Ending::Idle));
    let list = it.list("42").await;
    let [listed] = &list.sessions[..] else { panic!("not one session: {list:?}") };
    assert_eq!((list.count, &listed.part), (1, &Keys::session_part("two words")));
    assert!((before..=unix_ms() / 1000).contains(&listed.created_s), "{listed:?}");
    assert!(listed.seen_ms.is_some_and(|seen| seen / 1000 >= before), "{listed:?}");
    assert!(listed.ttl.is_some_and(|ttl| ttl > 9 * MINUTE), "{listed:?}");
    // Again: the same session, replaced.
    assert!(it.put("two words", Some("42"), None).await.replaced);
    assert_eq!(it.list("42").await.count, 1);
    let index = keys().sessions_of("42");
    assert!(it.life(&index).await.is_some());
    let (keys, part) = (keys().session_keys("two words"), Keys::session_part("two words"));
    assert_eq!(it.store.end_session(&keys, &part).await, Ok(true));
    assert!(!it.is_there("two words").await);
    assert_eq!(it.life(&index).await, None, "an empty index is none");
    assert_eq!((it.end_of("two words").await, it.list("42").await.count), (None, 0));
    assert_eq!(it.store.end_session(&keys, &part).await, Ok(false));
}

async fn an_update_brings_nothing_back(it: Subject) {
    let update = SessionWrite { only_over: true, ..write("a", Some("42"), None) };
    assert_eq!(it.store.write_session(&update).await, Ok(None));
    assert!(!it.is_there("a").await && it.end_of("a").await.is_none());
    it.put("a", Some("42"), None).await;
    let written = SessionWritten { replaced: true, ended: Vec::new() };
    assert_eq!(it.store.write_session(&update).await, Ok(Some(written)));
    assert_eq!(it.end_all("42").await, 1);
    assert_eq!(it.store.write_session(&update).await, Ok(None));
    assert_eq!(it.list("42").await, SessionList::default());
}

async fn without_a_user_a_session_stays_whose_it_was(it: Subject) {
    it.put("a", None, Some(1)).await;
    assert!(it.is_there("a").await);
    it.put("b", Some("42"), None).await;
    let longer = SessionWrite { ttl: 60 * MINUTE, ..write("b", None, None) };
    assert!(it.store.write_session(&longer).await.is_ok_and(|it| it.is_some_and(|w| w.replaced)));
    assert_eq!(it.ids("42").await, ["b"]);
    let kept = it.life(&keys().sessions_of("42")).await.expect("an expiry");
    assert!(kept > 60 * MINUTE, "the index ends first: {kept:?}");
}

async fn with_another_user_a_session_moves(it: Subject) {
    it.put("a", Some("41"), None).await;
    it.put("a", Some("42"), None).await;
    assert_eq!((it.ids("41").await, it.ids("42").await), (vec![], vec!["a".to_owned()]));
    // Whoever names it for the other user too, by hand.
    let index = keys().sessions_of("41");
    match &it.redis {
        Some(redis) => assert_eq!(redis.cli(&["ZADD", &index, "1700000000", "a"]), "1"),
        None => it.write_fields(&index, &[("a", "1700000000")]),
    }
    assert_eq!(it.end_all("41").await, 0);
    assert!(it.is_there("a").await, "logging one user out must not log out another");
}

async fn the_oldest_end_beyond_the_cap(it: Subject) {
    for id in ["a", "b", "c"] {
        assert!(it.put(id, Some("42"), Some(3)).await.ended.is_empty());
    }
    // Writing one that is there ends nothing, and makes it no younger.
    assert!(it.put("a", Some("42"), Some(3)).await.ended.is_empty());
    assert_eq!(it.put("d", Some("42"), Some(3)).await.ended, ["a"]);
    assert_eq!(it.ids("42").await, ["d", "c", "b"]);
    assert!(!it.is_there("a").await && it.end_of("a").await.is_none());
    // A cap that became smaller, and the session that is written is the oldest.
    assert_eq!(it.put("b", Some("42"), Some(1)).await.ended, ["c", "d"]);
    assert_eq!(it.ids("42").await, ["b"]);
    it.put("other", Some("43"), Some(1)).await;
    assert!(it.is_there("b").await, "another user's cap");
}

async fn of_log_ins_at_once_as_many_last_as_are_allowed(it: Subject) {
    for most in [1, 3] {
        let user = format!("user-{most}");
        let ids: Vec<String> = (0..30).map(|number| format!("s{number}-{most}")).collect();
        let mut log_ins = tokio::task::JoinSet::new();
        for id in ids.clone() {
            let (store, user) = (Arc::clone(&it.store), user.clone());
            log_ins.spawn(async move {
                store.write_session(&write(&id, Some(&user), Some(most))).await
            });
        }
        let mut ended = Vec::new();
        for written in log_ins.join_all().await {
            ended.extend(written.expect("no failure").expect("it is written").ended);
        }
        let left = it.ids(&user).await;
        assert_eq!(left.len(), most as usize, "{left:?}");
        for id in &ids {
            assert_eq!(it.is_there(id).await, left.contains(id), "{id}");
            assert_ne!(left.contains(id), ended.contains(id), "{id} ends, and that is told");
        }
    }
}

/// A log-in takes its place in the index first, and others may come to their end before it does.
/// They agree on who is the oldest, so that no two end each other.
#[test]
fn in_a_cluster_a_log_in_that_was_overtaken_ends_itself() {
    Cluster::start().keeps(async |it: Subject| {
        let cli = |words: &[&str]| it.redis.as_ref().expect("a Redis").cli(words);
        let (index, slow) = (keys().sessions_of("42"), keys().session_keys("slow"));
        let later = (unix_ms() + 60_000).to_string();
        cli(&["HSET", &slow.end, "writing", &later]);
        cli(&["ZADD", &index, "1", "slow", "2", "gone"]);
        // Who reads the index leaves it there, for it is about to be a session.
        assert_eq!(it.list("42").await, SessionList::default());
        assert_eq!(cli(&["ZRANGE", &index, "0", "-1"]), "slow");
        assert_eq!(it.put("first", Some("42"), Some(2)).await.ended, [""; 0]);
        assert_eq!(it.put("quick", Some("42"), Some(2)).await.ended, ["slow"]);
        // Its last step, now that it is too late.
        let script = include_str!("../../../src/store/scripts/session_write.lua");
        let last = ["EVAL", script, "2", &slow.session, &slow.end, "{}", "60000", "1", "idle"];
        assert_eq!(cli(&[&last[..], &[&index, "0"]].concat()), "-1");
        assert_eq!(it.ids("42").await, ["quick", "first"]);
        assert!(!it.is_there("slow").await);
        // Nobody waits for one whose writer has died.
        cli(&["HSET", &slow.end, "writing", "1"]);
        cli(&["ZADD", &index, "3", "slow"]);
        assert_eq!(it.put("last", Some("42"), Some(3)).await.ended, [""; 0]);
        assert_eq!(it.ids("42").await, ["last", "quick", "first"]);
    });
}

/// Both to end all and to make room: it is not yet noted whose it will be.
#[test]
fn a_session_that_is_moving_to_another_user_ends_with_either() {
    over_redis(async |it: Subject| {
        let cli = |words: &[&str]| it.redis.as_ref().expect("a Redis").cli(words);
        for (id, user) in [("a", "41"), ("b", "42"), ("c", "42")] {
            it.put(id, Some("40"), None).await;
            // Up to the last step of its move.
            let (index, later) = (keys().sessions_of(user), (unix_ms() + 60_000).to_string());
            cli(&["HSET", &keys().session_end(id), "writing", &later]);
            cli(&["ZADD", &index, "1", id]);
        }
        assert_eq!(it.end_all("41").await, 1);
        assert_eq!(it.put("new", Some("42"), Some(1)).await.ended, ["b", "c"]);
        for id in ["a", "b", "c"] {
            assert!(!it.is_there(id).await, "{id} is left, outside of the index of its user");
        }
    });
}

#[test]
fn an_update_ends_none_that_is_updated_at_the_same_time() {
    over_redis(async |it: Subject| {
        for id in ["a", "b", "c"] {
            it.put(id, Some("42"), None).await;
        }
        let (end, later) = (keys().session_end("b"), (unix_ms() + 60_000).to_string());
        it.redis.as_ref().expect("a Redis").cli(&["HSET", &end, "writing", &later]);
        assert_eq!(it.put("a", Some("42"), Some(1)).await.ended, ["c"]);
        assert_eq!(it.ids("42").await, ["b", "a"]);
    });
}

#[test]
fn whose_a_session_is_survives_that_what_is_beside_it_moved() {
    over_redis(async |it: Subject| {
        let cli = |words: &[&str]| it.redis.as_ref().expect("a Redis").cli(words);
        let index = keys().sessions_of("42");
        for id in ["renewed", "written"] {
            cli(&["SET", &keys().session(id), "{}", "EX", "60"]);
            cli(&["ZADD", &index, "1700000000", id]);
            cli(&["HSET", &format!("app:session-end:{id}"), "index", &index]);
        }
        cli(&["EXPIRE", &index, "60"]);
        let renewed = keys().session_keys("renewed");
        it.store.renew(&renewed, renewal(10 * MINUTE)).await.unwrap();
        assert!(it.life(&index).await.is_some_and(|life| life > 10 * MINUTE));
        assert_eq!(cli(&["HGET", &renewed.end, "index"]), index);
        let longer = SessionWrite { ttl: 60 * MINUTE, ..write("written", None, None) };
        it.store.write_session(&longer).await.unwrap();
        assert!(it.life(&index).await.is_some_and(|life| life > 60 * MINUTE));
    });
}

async fn what_is_gone_leaves_the_index_and_does_not_count(it: Subject) {
    for id in ["a", "b", "c"] {
        it.put(id, Some("42"), Some(3)).await;
    }
    // As the application's own log-out does it, or an expiry.
    it.store.delete(&keys().session("b")).await.unwrap();
    assert!(it.put("d", Some("42"), Some(3)).await.ended.is_empty());
    assert_eq!(it.ids("42").await, ["d", "c", "a"]);
    it.store.delete(&keys().session("a")).await.unwrap();
    let list = it.list("42").await;
    assert_eq!((list.sessions.len(), list.count), (2, 2));
}

async fn ending_all_ends_what_is_the_users_alone(it: Subject) {
    for id in ["a", "b", "c"] {
        it.put(id, Some("42"), None).await;
    }
    it.put("other", Some("43"), None).await;
    assert_eq!(it.end_all("42").await, 3);
    for id in ["a", "b", "c"] {
        assert!(!it.is_there(id).await && it.end_of(id).await.is_none(), "{id}");
    }
    assert!(it.is_there("other").await);
    assert_eq!((it.end_all("42").await, it.list("42").await), (0, SessionList::default()));
    it.put("new", Some("42"), None).await;
    assert_eq!(it.ids("42").await, ["new"]);
}

async fn an_index_outlives_its_sessions(it: Subject) {
    let index = keys().sessions_of("42");
    it.put("a", Some("42"), None).await;
    let kept = it.life(&index).await.expect("every key has a TTL");
    assert!(kept > 10 * MINUTE && kept <= 11 * MINUTE, "{kept:?}");
    it.store.renew(&keys().session_keys("a"), renewal(60 * MINUTE)).await.unwrap();
    let kept = it.life(&index).await.expect("an expiry");
    assert!(kept > 60 * MINUTE, "{kept:?}");
    it.put("b", Some("42"), None).await;
    assert!(it.life(&index).await.expect("an expiry") > 60 * MINUTE, "a younger one shortened it");
}

impl Subject {
    /// What is left of any key's life; nothing when it has no expiry, or is not there.
    pub(crate) async fn life(&self, key: &str) -> Option<Duration> {
        match &self.redis {
            Some(redis) => {
                let left: i64 = redis.cli(&["PTTL", key]).parse().expect("a number");
                u64::try_from(left).ok().map(Duration::from_millis)
            }
            None => self.session(key).await.expect("no failure").and_then(|found| found.ttl),
        }
    }
}
