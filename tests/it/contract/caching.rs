//! Cached responses: variants of one entry, epochs that make them stale, and the lock under which
//! they are fetched.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use portcullis::store::{
    Cached, CachedEntry, CachedReply, Entry, Epoch, HeldLock, Purge, Questions, Remembered,
    VARIANTS_MAX, VARY, WantedLock, hard_halves, soft_halves,
};

use super::{BASE, ENTRY, MINUTE, PATH, Subject, over_all_stores, words};
use crate::support::PATIENCE;

over_all_stores![
    an_exchange_tells_what_each_epoch_was,
    a_variant_is_kept_and_found,
    each_variant_is_its_own,
    the_newest_sets_of_names_are_remembered,
    the_number_of_variants_is_bounded,
    the_names_of_variants_are_told,
    a_response_fetched_before_a_purge_is_not_kept,
    pending_purges_are_carried_out_before_the_cache_is_read,
    a_base_epoch_is_made_once,
    a_purge_is_hard_or_soft,
    a_soft_purge_of_nothing_makes_nothing_invalid,
    several_epochs_are_changed_by_one_purge,
    the_epochs_of_tags_are_told_unless_one_was_purged,
    a_base_that_is_taken_away_is_gone,
    a_variant_ends_with_its_own_life_and_not_with_anothers,
    a_lock_has_one_holder,
    a_lock_comes_with_a_look,
    a_response_whose_lock_was_lost_is_not_kept,
    chunks_are_kept_and_found_in_order,
    large_values_come_back_whole,
    what_an_application_wrote_under_our_keys_is_nothing,
    a_strange_epoch_equals_none,
    a_lost_base_makes_everything_invalid,
];

const OTHER: &str = "app:cache-epoch:{*}host=shop";

/// A response of a minute, fetched while its path had no epoch.
pub(super) fn entry(variant: &str, vary: &str, value: &str) -> Entry {
    Entry {
        key: ENTRY.to_owned(),
        variant: variant.to_owned(),
        vary: vary.to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ttl: MINUTE,
        path_epoch_key: PATH.to_owned(),
        path_epoch: Bytes::new(),
        lock: None,
    }
}

fn lock(token: &str) -> HeldLock {
    HeldLock { key: "app:cache:{shop/p}:lock:r:".to_owned(), token: token.to_owned() }
}

fn hard(key: &str) -> Purge {
    Purge::hard(key.to_owned())
}

fn soft(key: &str) -> Purge {
    Purge { key: key.to_owned(), soft: true }
}

impl Subject {
    /// The epochs of a base and a path, the variant `-`, and whether what was pending was settled.
    async fn cached(&self, pending: &[&str]) -> (CachedReply, bool) {
        let (epochs, pending) = (words(&[BASE, OTHER, PATH]), words(pending));
        let entry = Some(CachedEntry { key: ENTRY, variants: &words(&["-"]), lock: None });
        let cached = Some(Cached { epochs: &epochs, entry });
        let questions = Questions { cached, pending_purges: &pending, ..Questions::default() };
        let answers = self.store.ask(&questions).await;
        (answers.cached.expect("an answer").expect("no failure"), answers.settled)
    }

    async fn remember(&self, entry: &Entry) -> Remembered {
        self.store.remember(entry).await.expect("no failure")
    }

    /// Keeps the variant `-`, fetched while its path had this epoch.
    async fn remember_since(&self, path_epoch: &Bytes, value: &str) -> Remembered {
        self.remember(&Entry { path_epoch: path_epoch.clone(), ..entry("-", "", value) }).await
    }

    async fn variants(&self, names: &[&str]) -> Vec<Option<String>> {
        let found = self.store.variants(ENTRY, &words(names)).await.expect("no failure");
        let text = |value: Bytes| String::from_utf8(value.to_vec()).expect("text");
        found.into_iter().map(|value| value.map(text)).collect()
    }

    async fn epoch(&self, key: &str) -> Epoch {
        let epochs = self.store.epochs(&words(&[key])).await.expect("no failure");
        assert_eq!(epochs.len(), 1);
        epochs[0]
    }

    /// An epoch without the lineage of who answered; and, of one without, with it.
    fn mixed(&self, key: &str, epoch: Epoch) -> Epoch {
        let mut epochs = [epoch];
        self.store.mix_for_now(&words(&[key]), &mut epochs);
        epochs[0]
    }

    /// An epoch as it is stored.
    async fn stored(&self, key: &str) -> Epoch {
        self.mixed(key, self.epoch(key).await)
    }
}

async fn a_variant_is_kept_and_found(it: Subject) {
    let (before, _) = it.cached(&[]).await;
    assert_eq!((before.based, &before.vary, &before.variants), (false, &None, &vec![None]));
    let absent = [BASE, OTHER, PATH].map(|key| it.mixed(key, Epoch::default()));
    assert_eq!(before.epochs, absent);
    it.store.found(BASE).await.unwrap();
    let (before, _) = it.cached(&[]).await;
    assert!(before.based && before.path_epoch.is_empty());
    assert_eq!(it.remember_since(&before.path_epoch, "first").await, Remembered::Stored);
    let (found, _) = it.cached(&[]).await;
    assert_eq!(found.vary.as_deref(), Some(&b""[..]), "the empty set of names");
    assert_eq!(found.variants[0].as_deref(), Some(&b"first"[..]));
    assert_eq!(found.epochs, before.epochs);
    assert_eq!(it.remember_since(&before.path_epoch, "second").await, Remembered::Stored);
    assert_eq!(it.variants(&["-"]).await, [Some("second".to_owned())]);
    // A node that holds a copy asks for the epochs alone.
    let cached = Some(Cached { epochs: &words(&[BASE, OTHER, PATH]), entry: None });
    let answers = it.store.ask(&Questions { cached, ..Questions::default() }).await;
    let reply = answers.cached.expect("an answer").expect("no failure");
    assert_eq!((reply.vary, reply.variants, reply.epochs), (None, vec![], before.epochs));
}

async fn each_variant_is_its_own(it: Subject) {
    it.store.found(BASE).await.unwrap();
    it.remember(&entry("one", "accept", "1")).await;
    it.remember(&entry("two", "accept", "2")).await;
    let found = it.variants(&["two", "none", "one", "two"]).await;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(found, [text("2"), None, text("1"), text("2")]);
    assert_eq!(it.variants(&[]).await, []);
    let other = it.store.variants("app:cache:{shop/q}:entry:r:", &words(&["one"])).await;
    assert_eq!(other, Ok(vec![None]));
    // The names by which to choose are known before any variant is.
    let entry = Some(CachedEntry { key: ENTRY, variants: &[], lock: None });
    let cached = Some(Cached { epochs: &words(&[BASE, PATH]), entry });
    let answers = it.store.ask(&Questions { cached, ..Questions::default() }).await;
    let reply = answers.cached.expect("an answer").expect("no failure");
    assert_eq!((reply.vary.as_deref(), reply.variants), (Some(&b"accept"[..]), vec![]));
}

async fn the_newest_sets_of_names_are_remembered(it: Subject) {
    for (vary, expected) in [
        ("", ""),
        ("accept", "accept\n"),
        ("accept,origin", "accept,origin\naccept\n"),
        ("accept", "accept\naccept,origin\n"),
        ("", "\naccept\naccept,origin"),
        ("", "\naccept\naccept,origin"),
        ("x", "x\n\naccept\naccept,origin"),
        ("y", "y\nx\n\naccept"),
    ] {
        it.remember(&entry("v", vary, "response")).await;
        let (found, _) = it.cached(&[]).await;
        assert_eq!(found.vary.as_deref(), Some(expected.as_bytes()), "after {vary:?}");
    }
}

async fn the_number_of_variants_is_bounded(it: Subject) {
    let names: Vec<String> = (0..3 * VARIANTS_MAX).map(|number| format!("v{number}")).collect();
    let mut survivors = BTreeSet::new();
    for (count, name) in names.iter().enumerate() {
        it.remember(&entry(name, "accept", name)).await;
        let found = it.store.variants(ENTRY, &names).await.unwrap();
        let kept: BTreeSet<usize> = (0..names.len()).filter(|at| found[*at].is_some()).collect();
        assert!(kept.contains(&count), "the newest stays");
        assert_eq!(kept.len(), (count + 1).min(VARIANTS_MAX));
        survivors = kept;
    }
    let (found, _) = it.cached(&[]).await;
    assert_eq!(found.vary.as_deref(), Some(&b"accept"[..]));
    // Chosen at random: neither all of the oldest nor all of the newest.
    assert!(survivors.iter().any(|at| *at < 2 * VARIANTS_MAX), "{survivors:?}");
    it.remember(&entry(&names[*survivors.first().unwrap()], "accept", "again")).await;
    let found = it.store.variants(ENTRY, &names).await.unwrap();
    assert_eq!(found.iter().flatten().count(), VARIANTS_MAX, "one that is there needs no place");
}

async fn the_names_of_variants_are_told(it: Subject) {
    assert_eq!(it.store.variant_names(ENTRY, 3).await, Ok(vec![]));
    for name in ["one", "two"] {
        let kept = it.store.remember(&entry(name, "accept", name)).await;
        assert_eq!(kept, Ok(Remembered::Stored));
    }
    let names = async |most| {
        let mut names = it.store.variant_names(ENTRY, most).await.expect("an answer");
        names.sort();
        names
    };
    assert_eq!(names(3).await, ["one", "two"]);
    assert_eq!(names(2).await, ["one", "two"], "the sets of names are no variant");
    assert_eq!(names(1).await.len(), 1);
}

async fn a_response_fetched_before_a_purge_is_not_kept(it: Subject) {
    it.store.found(BASE).await.unwrap();
    let (before, _) = it.cached(&[]).await;
    it.store.purge(&[hard(PATH)]).await.unwrap();
    assert_eq!(it.remember_since(&before.path_epoch, "old").await, Remembered::Outdated);
    let (between, _) = it.cached(&[]).await;
    assert_eq!(between.variants, [None]);
    assert_ne!(between.epochs, before.epochs);
    assert_eq!(it.remember_since(&between.path_epoch, "new").await, Remembered::Stored);
    it.store.purge(&[hard(PATH)]).await.unwrap();
    let (after, _) = it.cached(&[]).await;
    assert_ne!(after.epochs, between.epochs, "an epoch never comes back");
    assert_eq!(it.remember_since(&between.path_epoch, "old").await, Remembered::Outdated);
    it.store.purge(&[soft(PATH)]).await.unwrap();
    assert_eq!(it.remember_since(&after.path_epoch, "old").await, Remembered::Outdated);
}

async fn pending_purges_are_carried_out_before_the_cache_is_read(it: Subject) {
    it.store.found(BASE).await.unwrap();
    let (before, settled) = it.cached(&[]).await;
    assert!(!settled);
    let (during, settled) = it.cached(&[PATH, BASE]).await;
    assert!(settled && during.based);
    assert_ne!(during.epochs[0].hard, before.epochs[0].hard);
    assert_eq!(during.epochs[1], before.epochs[1]);
    assert_ne!(during.epochs[2].hard, before.epochs[2].hard);
    assert_ne!(during.path_epoch, before.path_epoch);
    assert_eq!(it.cached(&[]).await.0.epochs, during.epochs);
}

async fn a_base_epoch_is_made_once(it: Subject) {
    it.store.found(BASE).await.unwrap();
    let (first, _) = it.cached(&[]).await;
    assert!(first.based);
    it.store.found(BASE).await.unwrap();
    assert_eq!(it.cached(&[]).await.0.epochs, first.epochs);
    it.store.purge(&[hard(BASE)]).await.unwrap();
    let (purged, _) = it.cached(&[]).await;
    assert!(purged.based);
    assert_ne!(purged.epochs, first.epochs);
}

async fn a_purge_is_hard_or_soft(it: Subject) {
    it.store.purge(&[hard(OTHER)]).await.unwrap();
    let first = it.epoch(OTHER).await;
    assert!(first.hard != [0; 8] && first.soft != [0; 8] && first.hard != first.soft);
    it.store.purge(&[soft(OTHER)]).await.unwrap();
    let second = it.epoch(OTHER).await;
    assert_eq!(second.hard, first.hard);
    assert_ne!(second.soft, first.soft);
    it.store.purge(&[hard(OTHER)]).await.unwrap();
    let third = it.epoch(OTHER).await;
    assert!(third.hard != second.hard && third.soft != second.soft);
    assert_eq!(it.stored(PATH).await, Epoch::default(), "another scope");
}

async fn a_soft_purge_of_nothing_makes_nothing_invalid(it: Subject) {
    it.store.purge(&[soft(OTHER)]).await.unwrap();
    let epoch = it.stored(OTHER).await;
    assert_eq!(epoch.hard, Epoch::default().hard);
    assert_ne!(epoch.soft, Epoch::default().soft);
}

async fn several_epochs_are_changed_by_one_purge(it: Subject) {
    let keys = words(&[BASE, OTHER, PATH]);
    let before = it.store.epochs(&keys).await.unwrap();
    it.store.purge(&[hard(BASE), soft(OTHER), hard(PATH)]).await.unwrap();
    let after = it.store.epochs(&keys).await.unwrap();
    for (before, after) in before.iter().zip(&after) {
        assert_ne!(before.soft, after.soft);
    }
    assert_eq!(before[1].hard, after[1].hard);
    assert_ne!(hard_halves(&before), hard_halves(&after));
    assert_ne!(soft_halves(&before), soft_halves(&after));
    it.store.purge(&[]).await.expect("nothing to do");
    assert_eq!(it.store.epochs(&keys).await.unwrap(), after);
    assert_eq!(it.store.epochs(&[]).await.unwrap(), []);
}

/// By a purge, hard or soft, or by one that was pending.
async fn the_epochs_of_tags_are_told_unless_one_was_purged(it: Subject) {
    const CLOCK: &str = "app:cache-epoch:{*}tags-clock";
    let [a, b, c] = ["a", "b", "c"].map(|tag| format!("app:cache-epoch:{{tag=u={tag}}}"));
    let tags = [a.clone(), b.clone()];
    let since = async |since: Epoch| it.store.tags(&tags, CLOCK, since).await.expect("no failure");
    let no_clock = it.mixed(CLOCK, Epoch::default());
    let unchanged = Some(vec![it.epoch(&a).await, it.epoch(&b).await]);
    assert_eq!(since(no_clock).await, unchanged, "none was purged");
    it.store.found(CLOCK).await.unwrap();
    let first = it.epoch(CLOCK).await;
    assert_ne!(first, no_clock);
    assert_eq!(since(first).await, unchanged);
    assert_eq!(since(no_clock).await, None, "nobody knows what was lost with it");
    // More than are read at first, and other keys beside them.
    for number in 0..60 {
        let another = if number % 2 == 0 { soft(&c) } else { hard(&c) };
        it.store.purge(&[hard(CLOCK), another, hard(PATH)]).await.unwrap();
        it.cached(&[CLOCK, &c]).await;
    }
    let second = it.epoch(CLOCK).await;
    assert!(first.hard != second.hard && first.soft != second.soft);
    assert_eq!(since(first).await, unchanged, "another tag");
    it.store.purge(&[soft(CLOCK), soft(&c), soft(&b)]).await.unwrap();
    assert_eq!((since(first).await, since(second).await), (None, None));
    let third = it.epoch(CLOCK).await;
    assert_eq!(since(third).await, Some(vec![it.epoch(&a).await, it.epoch(&b).await]));
    let (_, is_settled) = it.cached(&[CLOCK, &a]).await;
    assert!(is_settled);
    assert_eq!(since(third).await, None, "it was pending");
    // More than are looked at.
    let fourth = it.epoch(CLOCK).await;
    let several: Vec<Purge> = std::iter::once(hard(CLOCK))
        .chain((0..100).map(|number| hard(&format!("app:cache-epoch:{{tag=u=x{number}}}"))))
        .collect();
    for _ in 0..20 {
        it.store.purge(&several).await.unwrap();
    }
    assert!(since(fourth).await.is_some());
    for _ in 0..40 {
        it.store.purge(&several).await.unwrap();
    }
    assert_eq!(since(fourth).await, None);
}

async fn a_base_that_is_taken_away_is_gone(it: Subject) {
    it.store.found(BASE).await.unwrap();
    let first = it.epoch(BASE).await;
    assert!(it.store.withdraw_all(BASE).await.unwrap());
    assert!(!it.cached(&[]).await.0.based);
    assert!(!it.store.withdraw_all(BASE).await.unwrap());
    it.store.found(BASE).await.unwrap();
    assert_ne!(it.epoch(BASE).await, first);
}

async fn a_variant_ends_with_its_own_life_and_not_with_anothers(it: Subject) {
    it.remember(&Entry { ttl: MINUTE, ..entry("long", "", "long") }).await;
    it.remember(&Entry { ttl: Duration::from_millis(1), ..entry("short", "", "short") }).await;
    let is_gone = async {
        while it.variants(&["short"]).await != [None] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, is_gone).await.expect("it ends");
    assert_eq!(it.variants(&["long"]).await, [Some("long".to_owned())]);
    if let Some(redis) = &it.redis {
        let left = |key: &str| redis.cli(&["PTTL", key]).parse::<u128>().unwrap();
        assert!((MINUTE - PATIENCE).as_millis() < left(ENTRY) && left(ENTRY) <= 60_000);
        it.remember(&Entry { ttl: 2 * MINUTE, ..entry("longer", "", "x") }).await;
        assert!(left(ENTRY) > 60_000, "the longest life asked for");
        let endless = Duration::from_secs(365 * 24 * 3600);
        it.remember(&Entry { ttl: endless, ..entry("endless", "", "x") }).await;
        it.store.purge(&[hard(PATH)]).await.unwrap();
        assert!(left(ENTRY) < left(PATH), "an epoch outlives what it makes invalid");
    }
}

async fn a_lock_has_one_holder(it: Subject) {
    let (mine, other) = (lock("me"), lock("other"));
    assert_eq!(it.store.lock(&mine, MINUTE).await, Ok(true));
    assert_eq!(it.store.lock(&other, MINUTE).await, Ok(false));
    assert_eq!(it.store.lock(&mine, MINUTE).await, Ok(false), "not even twice by one");
    assert_eq!(it.store.extend_lock(&other, MINUTE).await, Ok(false));
    assert_eq!(it.store.unlock(&other).await, Ok(false));
    assert_eq!(it.store.extend_lock(&mine, MINUTE).await, Ok(true));
    assert_eq!(it.store.unlock(&mine).await, Ok(true));
    assert_eq!(it.store.unlock(&mine).await, Ok(false));
    assert_eq!(it.store.extend_lock(&mine, MINUTE).await, Ok(false));
    assert_eq!(it.store.lock(&other, Duration::from_millis(1)).await, Ok(true));
    let is_free = async { while it.store.lock(&mine, MINUTE).await != Ok(true) {} };
    tokio::time::timeout(PATIENCE, is_free).await.expect("a lease ends");
}

async fn a_lock_comes_with_a_look(it: Subject) {
    let (mine, other) = (lock("me"), lock("other"));
    let look = async |lock: &HeldLock| {
        let (epochs, variants) = (words(&[BASE, PATH]), words(&["-"]));
        let lock = Some(WantedLock { lock, ttl: MINUTE });
        let entry = Some(CachedEntry { key: ENTRY, variants: &variants, lock });
        let cached = Some(Cached { epochs: &epochs, entry });
        let answers = it.store.ask(&Questions { cached, ..Questions::default() }).await;
        let reply = answers.cached.expect("an answer").expect("no failure");
        let holder = reply.holder.map(|holder| String::from_utf8(holder.to_vec()).unwrap());
        (holder, reply.variants.into_iter().flatten().flatten().collect::<Vec<u8>>())
    };
    let nothing = |holder: &str| (Some(holder.to_owned()), Vec::new());
    assert_eq!(look(&mine).await, nothing("me"));
    assert_eq!(look(&other).await, nothing("me"), "it is taken");
    assert_eq!(look(&mine).await, nothing("me"), "its holder still has it");
    let stored = Entry { lock: Some(mine.clone()), ..entry("-", "", "body") };
    assert_eq!(it.remember(&stored).await, Remembered::Stored);
    assert_eq!(look(&other).await, (Some("other".to_owned()), b"body".to_vec()));
    assert_eq!(it.store.unlock(&other).await, Ok(true));
    // What an application wrote under the entry's key is nothing.
    it.store.delete(ENTRY).await.unwrap();
    it.write(ENTRY, "text");
    assert_eq!(look(&mine).await, nothing("me"));
}

async fn a_response_whose_lock_was_lost_is_not_kept(it: Subject) {
    let under = |token: &str| Entry { lock: Some(lock(token)), ..entry("-", "", token) };
    assert_eq!(it.store.lock(&lock("me"), MINUTE).await, Ok(true));
    assert_eq!(it.remember(&under("other")).await, Remembered::Overtaken);
    assert_eq!(it.variants(&["-"]).await, [None]);
    assert_eq!(it.remember(&under("me")).await, Remembered::Stored);
    assert_eq!(it.store.unlock(&lock("me")).await, Ok(false), "it was released in the same step");
    assert_eq!(it.remember(&under("other")).await, Remembered::Stored, "nobody holds it");
    assert_eq!(it.store.lock(&lock("me"), MINUTE).await, Ok(true));
    assert_eq!(it.remember(&entry("-", "", "none")).await, Remembered::Stored, "without a lock");
    it.store.purge(&[hard(PATH)]).await.unwrap();
    assert_eq!(it.remember(&under("me")).await, Remembered::Outdated);
    assert_eq!(it.store.unlock(&lock("me")).await, Ok(true), "a refusal releases nothing");
}

async fn chunks_are_kept_and_found_in_order(it: Subject) {
    let keys = words(&["app:cache:{c}:0", "app:cache:{c}:1", "app:cache:{c}:2"]);
    assert_eq!(it.store.chunks(&[]).await, Ok(vec![]));
    assert_eq!(it.store.chunks(&keys).await, Ok(vec![None; 3]));
    it.store.write_chunks(&[], MINUTE).await.expect("nothing to do");
    let chunk = |at: usize, value: &'static [u8]| (keys[at].clone(), Bytes::from_static(value));
    it.store.write_chunks(&[chunk(2, b"last"), chunk(0, b"\0\xFF")], MINUTE).await.unwrap();
    let found = it.store.chunks(&keys).await.unwrap();
    assert_eq!(found, [Some(chunk(0, b"\0\xFF").1), None, Some(chunk(2, b"last").1)]);
    assert!(it.store.delete("app:cache:{c}:2").await.unwrap());
    assert_eq!(it.store.chunks(&keys).await.unwrap()[2], None, "a part may be gone");
}

async fn large_values_come_back_whole(it: Subject) {
    let large: Bytes = (0..4 * 1024 * 1024_u32).map(|number| (number % 251) as u8).collect();
    let kept = Entry { value: large.clone(), ..entry("-", "", "") };
    assert_eq!(it.remember(&kept).await, Remembered::Stored);
    let found = it.store.variants(ENTRY, &words(&["-"])).await.unwrap();
    assert!(found[0].as_ref() == Some(&large));
    it.store.write_chunks(&[("app:cache:{c}:9".to_owned(), large.clone())], MINUTE).await.unwrap();
    assert!(
        it.store.chunks(&words(&["app:cache:{c}:9"])).await.unwrap()[0].as_ref() == Some(&large)
    );
}

async fn what_an_application_wrote_under_our_keys_is_nothing(it: Subject) {
    it.store.found(BASE).await.unwrap();
    it.write(ENTRY, "a string");
    it.write_fields(PATH, &[("a", "hash")]);
    it.write_fields("app:cache:{c}:0", &[("a", "hash")]);
    let (found, _) = it.cached(&[]).await;
    assert_eq!((found.vary, found.variants), (None, vec![None]));
    assert_eq!((found.path_epoch.len(), it.variants(&["-"]).await), (0, vec![None]));
    assert_eq!(it.store.chunks(&words(&["app:cache:{c}:0"])).await, Ok(vec![None]));
    assert_eq!(it.remember(&entry("-", "", "ours")).await, Remembered::Stored);
    assert_eq!(it.variants(&["-"]).await, [Some("ours".to_owned())]);
    let strange = "app:cache:{shop/p}:entry:s:";
    it.write_fields(strange, &[(VARY, "\n\n\n\n\n\n\n\n"), ("-", "x"), ("two", "")]);
    let found = it.store.variants(strange, &words(&["-", "two"])).await;
    assert_eq!(found, Ok(vec![None, None]));
    let over = Entry { key: strange.to_owned(), ..entry("-", "a", "ours") };
    assert_eq!(it.remember(&over).await, Remembered::Stored);
    it.store.purge(&[soft(PATH)]).await.unwrap();
    assert_ne!(it.stored(PATH).await.hard, [0; 8], "what was there is unknown");
}

async fn a_strange_epoch_equals_none(it: Subject) {
    it.store.found(BASE).await.unwrap();
    for value in ["", "short", "as long as an epo", &"x".repeat(1000)] {
        it.write(PATH, value);
        let (first, _) = it.cached(&[]).await;
        let (second, _) = it.cached(&[]).await;
        assert_ne!(it.mixed(PATH, first.epochs[2]), Epoch::default(), "{value:?}");
        assert_ne!(first.epochs[2].hard, second.epochs[2].hard, "{value:?}");
        assert_eq!(first.path_epoch, value.as_bytes());
        it.store.purge(&[soft(PATH)]).await.unwrap();
        let mended = it.epoch(PATH).await;
        assert_eq!(mended, it.epoch(PATH).await);
        assert_ne!(it.mixed(PATH, mended).hard, [0; 8], "what was purged under it is unknown");
    }
    it.write(BASE, "short");
    assert!(!it.cached(&[]).await.0.based);
}

async fn a_lost_base_makes_everything_invalid(it: Subject) {
    it.store.found(BASE).await.unwrap();
    let (before, _) = it.cached(&[]).await;
    it.remember_since(&before.path_epoch, "kept").await;
    assert!(it.store.delete(BASE).await.unwrap());
    let (without, _) = it.cached(&[]).await;
    assert!(!without.based);
    it.store.found(BASE).await.unwrap();
    let (after, _) = it.cached(&[]).await;
    assert!(after.based && after.variants[0].is_some());
    assert_ne!(hard_halves(&after.epochs), hard_halves(&before.epochs));
}

async fn an_exchange_tells_what_each_epoch_was(it: Subject) {
    let keys = words(&[
        "app:cache-epoch:{shop/written}",
        "app:cache-epoch:{/*}",
        "app:cache-epoch:{shop/other}",
    ]);
    let first = it.store.exchange_epochs(&keys).await.unwrap();
    let names: Vec<_> = first.iter().map(|it| it.key.clone()).collect();
    assert_eq!(names, keys);
    assert!(first.iter().all(|it| it.before == Epoch::default() && it.now != it.before));
    assert_eq!(
        it.store.stored_epochs(&keys).await.unwrap(),
        first.iter().map(|it| it.now).collect::<Vec<_>>()
    );
    it.store.purge(&[Purge::hard(keys[1].clone())]).await.unwrap();
    let second = it.store.exchange_epochs(&keys).await.unwrap();
    for (at, (before, now)) in first.iter().zip(&second).enumerate() {
        assert_eq!(now.before == before.now, at != 1, "{}", before.key);
        assert_ne!(now.now, before.now);
    }
}
