//! What log-ins at providers need: what is taken once, and which sessions a provider may end.

use bytes::Bytes;
use portcullis::store::Noted;
use portcullis::store::keys::Keys;

use super::{MINUTE, Subject, over_all_stores};

over_all_stores![
    what_is_taken_is_nobodys_again,
    of_many_who_take_one_gets_it,
    sessions_are_noted_with_the_newest_first,
    what_is_noted_lives_as_long_as_its_last_session,
    a_session_that_was_noted_anew_is_not_forgotten,
    sessions_that_are_gone_make_room,
];

fn index() -> String {
    Keys::new("app").provider_sub("id", "42")
}

/// A session that is there, noted.
async fn note(it: &Subject, id: &str, created_s: u64) {
    let [family, _] = Keys::new("app").session_families();
    it.write_fields(&[&family, id].concat(), &[("sub", "42")]);
    note_alone(it, id, created_s).await;
}

/// A session that is gone, or was noted before, noted.
async fn note_alone(it: &Subject, id: &str, created_s: u64) {
    let [family, _] = Keys::new("app").session_families();
    let (index, ttl) = (&*index(), MINUTE);
    let noted = Noted { index, part: id, created_s, ttl, family: &family };
    it.store.note_session(noted).await.unwrap();
}

/// Who is noted.
async fn noted(it: &Subject) -> Vec<(String, u64)> {
    let places = it.store.noted(&index()).await.unwrap();
    places.into_iter().map(|it| (it.part, it.created_s)).collect()
}

fn places(all: &[(&str, u64)]) -> Vec<(String, u64)> {
    all.iter().map(|(id, created_s)| ((*id).to_owned(), *created_s)).collect()
}

async fn what_is_taken_is_nobodys_again(it: Subject) {
    let key = Keys::new("app").login("ab");
    assert_eq!(it.store.read_and_delete(&key).await, Ok(None));
    it.store.put(&key, b"\0one", MINUTE).await.unwrap();
    let taken = it.store.read_and_delete(&key).await;
    assert_eq!(taken, Ok(Some(Bytes::from_static(b"\0one"))));
    assert_eq!(it.store.read_and_delete(&key).await, Ok(None));
    assert_eq!(it.store.put_new(&key, b"two", MINUTE).await, Ok(true));
}

async fn of_many_who_take_one_gets_it(it: Subject) {
    let key = Keys::new("app").login("ab");
    it.store.put(&key, b"one", MINUTE).await.unwrap();
    let takers = (0..20).map(|_| {
        let (store, key) = (it.store.clone(), key.clone());
        tokio::spawn(async move { store.read_and_delete(&key).await.unwrap() })
    });
    let takers: Vec<_> = takers.collect();
    let mut got = 0;
    for taker in takers {
        got += usize::from(taker.await.unwrap().is_some());
    }
    assert_eq!(got, 1);
}

async fn sessions_are_noted_with_the_newest_first(it: Subject) {
    assert_eq!(noted(&it).await, places(&[]));
    for (id, created_s) in [("a", 10), ("b", 30), ("c", 20)] {
        note(&it, id, created_s).await;
    }
    assert_eq!(noted(&it).await, places(&[("b", 30), ("c", 20), ("a", 10)]));
    note_alone(&it, "a", 40).await;
    assert_eq!(noted(&it).await, places(&[("a", 40), ("b", 30), ("c", 20)]));
}

async fn what_is_noted_lives_as_long_as_its_last_session(it: Subject) {
    let [family, _] = Keys::new("app").session_families();
    for (id, ttl) in [("a", 10 * MINUTE), ("b", MINUTE)] {
        it.write_fields(&[&family, id].concat(), &[("sub", "42")]);
        let noted = Noted { index: &index(), part: id, created_s: 1, ttl, family: &family };
        it.store.note_session(noted).await.unwrap();
    }
    let ttl = it.life(&index()).await.expect("a life");
    assert!(ttl <= 10 * MINUTE && ttl > 5 * MINUTE, "{ttl:?}");
}

async fn a_session_that_was_noted_anew_is_not_forgotten(it: Subject) {
    note(&it, "a", 10).await;
    note(&it, "b", 20).await;
    let seen = it.store.noted(&index()).await.unwrap();
    note_alone(&it, "a", 30).await;
    it.store.forget_noted(&index(), &seen).await.unwrap();
    assert_eq!(noted(&it).await, places(&[("a", 30)]));
    it.store.forget_noted(&index(), &[]).await.unwrap();
    let seen = it.store.noted(&index()).await.unwrap();
    it.store.forget_noted(&index(), &seen).await.unwrap();
    assert_eq!(noted(&it).await, places(&[]));
}

async fn sessions_that_are_gone_make_room(it: Subject) {
    note_alone(&it, "gone", 10).await;
    note(&it, "a", 20).await;
    note(&it, "b", 30).await;
    assert_eq!(noted(&it).await, places(&[("b", 30), ("a", 20)]));
}
