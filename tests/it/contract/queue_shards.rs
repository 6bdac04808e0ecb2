//! Queues that lie in several shards, in either store.

use portcullis::store::keys::Keys;
use portcullis::store::queue::{
    Accepted, DeliveryId, Durability, ItemState, NoteKey, Noted, Outcome, Pause, QUEUE_PAGE, Take,
    Taken,
};

use super::queue_hands::{HOUR, Of, Queue, ROOMY, WRITTEN, ids};
use super::{Subject, over_all_stores};

over_all_stores![
    a_key_is_one_request_whatever_shard_that_is_in,
    what_is_done_to_a_queue_is_done_to_all_of_its_shards,
    a_page_goes_from_shard_to_shard,
];

fn id_in(shard: u8) -> DeliveryId {
    let now = std::time::UNIX_EPOCH.elapsed().expect("a time after 1970");
    DeliveryId::new(shard, now.as_millis() as u64).expect("random bytes")
}

fn shard(it: &Subject, shard: u8) -> Queue<'_> {
    Queue { keys: Keys::new("app").queue("mail", shard), ..Queue::of(it) }
}

async fn a_key_is_one_request_whatever_shard_that_is_in(it: Subject) {
    let store = &it.store;
    let (first, third) = (shard(&it, 0), shard(&it, 3));
    let (id, other) = (id_in(3), id_in(5));
    let note = NoteKey { key: "0f", id, fingerprint: "f", ttl: HOUR };
    let noted = async |note| store.queue_note_key(&first.keys, note).await;
    let again =
        async || store.queue_again(&third.keys, (&id, Some("0f")), Durability::Memory).await;
    assert_eq!(noted(note).await, Ok(Noted::Own));
    assert_eq!(noted(note).await, Ok(Noted::Own), "its own answer was missed");
    assert_eq!(noted(NoteKey { id: other, ..note }).await, Ok(Noted::Same(id)));
    let reused = NoteKey { id: other, fingerprint: "g", ..note };
    assert_eq!(noted(reused).await, Ok(Noted::Reused(id)));
    // Only what it stands for takes it back.
    assert_eq!(store.queue_forget_key(&first.keys, ("0f", &other)).await, Ok(()));
    assert_eq!(noted(reused).await, Ok(Noted::Reused(id)));
    assert_eq!(store.queue_forget_key(&first.keys, ("0f", &id)).await, Ok(()));
    assert_eq!(noted(reused).await, Ok(Noted::Own));
    assert_eq!(store.queue_forget_key(&first.keys, ("0f", &other)).await, Ok(()));
    assert_eq!(noted(note).await, Ok(Noted::Own));
    // Who divides the queue in another way finds the same, before it is there and after.
    let of = Of { key: Some("0f"), fingerprint: "f", body: "one", ..Of::default() };
    let known = Accepted::Again { id, now: None };
    assert_eq!(first.accept(of).await.1, known);
    assert_eq!(again().await, Ok(None), "it is not there yet");
    third.put(Of { id: Some(id), ..of }).await;
    assert_eq!(first.accept(of).await.1, known);
    let told = again().await;
    let Ok(Some(Accepted::Again { id: of_again, now: Some(now) })) = told else {
        panic!("{told:?}")
    };
    assert_eq!((of_again, now.state), (id, ItemState::Waiting));
    assert_eq!((first.counts().await[5], third.counts().await[5]), (0, 1));
    // Its record is over, and the key still says that it was there.
    let claim = third.take(1).await.remove(0);
    let stranger = id_in(3);
    let unknown = store.queue_again(&third.keys, (&stranger, Some("0f")), Durability::Memory);
    assert_eq!(unknown.await, Ok(None), "the key is not of this one");
    assert_eq!(third.settle(&claim.hold, Outcome::Done).await, WRITTEN);
    let Ok(Some(Accepted::Again { now: Some(now), .. })) = again().await else { panic!() };
    assert_eq!(now.state, ItemState::Done);
}

async fn what_is_done_to_a_queue_is_done_to_all_of_its_shards(it: Subject) {
    let (store, keys) = (&it.store, Keys::new("app"));
    let (first, second, beyond) = (shard(&it, 0), shard(&it, 1), shard(&it, 9));
    let shards = async || {
        let all = store.queue_shards(&keys, "mail", 2).await.expect("an answer");
        all.iter().map(|keys| keys.shard).collect::<Vec<_>>()
    };
    assert_eq!(shards().await, [0, 1]);
    let mut put = Vec::new();
    for (queue, at) in [(&first, 0), (&second, 1), (&beyond, 9)] {
        let of = Of { body: "one", order: Some("0f"), id: Some(id_in(at)), ..Of::default() };
        put.push(queue.put(of).await);
    }
    assert_eq!(shards().await, [0, 1, 9]);
    let all = store.queue_shards(&keys, "mail", 2).await.expect("an answer");
    let look = store.queue_look_all(&all).await.expect("an answer");
    assert_eq!((look.waiting, look.open, look.dead), (3, 3, 0));
    assert!(look.bytes > 3 * 3 && look.oldest.is_some() && look.pause.is_none(), "{look:?}");
    let page = store.queue_list_all(&all, None, None).await.expect("a page");
    assert_eq!(page.items.iter().map(|item| item.id).collect::<Vec<_>>(), put);

    let pause = Pause { why: "moving".to_owned(), left: None };
    assert_eq!(store.queue_pause_all(&all, &pause).await, Ok(()));
    let take = Take { node: "n1", most: 9, in_flight: 9, lease: HOUR, sweep: false };
    for queue in [&first, &second, &beyond] {
        assert_eq!(queue.try_take(take).await, Taken::Paused(pause.clone()));
    }
    assert_eq!(store.queue_look_all(&all).await.expect("a look").pause, Some(pause));
    assert_eq!(store.queue_resume_all(&all).await, Ok(()));
    for (queue, id) in [&first, &second, &beyond].into_iter().zip(&put) {
        let claims = queue.take(9).await;
        assert_eq!(ids(&claims), [*id]);
        assert_eq!(claims[0].order.as_deref(), Some("0f"));
        assert_eq!(queue.settle(&claims[0].hold, Outcome::Dead).await, WRITTEN);
    }
    assert_eq!(shards().await, [0, 1, 9], "what is dead can be seen and tried again");
    let requeue = async |most| {
        store.queue_requeue_dead(&all, (None, most), HOUR, |_| ROOMY).await.expect("an answer")
    };
    assert_eq!(requeue(2).await, 2);
    assert_eq!(store.queue_look_all(&all).await.expect("a look").dead, 1);
    assert_eq!((requeue(9).await, requeue(9).await), (1, 0));
    for queue in [&first, &second, &beyond] {
        let claim = queue.take(9).await.remove(0);
        assert_eq!(queue.settle(&claim.hold, Outcome::Dead).await, WRITTEN);
    }
    assert_eq!(store.queue_drop_dead_all(&all).await, Ok(3));
    assert_eq!(shards().await, [0, 1], "nothing is left beyond");
}

async fn a_page_goes_from_shard_to_shard(it: Subject) {
    let store = &it.store;
    let all: Vec<_> = [0, 1, 2, 3].map(|at| shard(&it, at).keys).into();
    let mut put = Vec::new();
    // None, as many as a page has, a few more, and one.
    for (at, count) in [(1, QUEUE_PAGE), (2, QUEUE_PAGE + 5), (3, 1)] {
        for _ in 0..count {
            put.push(shard(&it, at).put(Of { id: Some(id_in(at)), ..Of::default() }).await);
        }
    }
    put.sort();
    for state in [None, Some(ItemState::Waiting)] {
        let (mut listed, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = store.queue_list_all(&all, state, after.as_ref()).await.expect("a page");
            assert!(page.items.len() <= QUEUE_PAGE, "{}", page.items.len());
            listed.extend(page.items.iter().map(|item| item.id));
            after = page.next;
            pages += 1;
            assert!(pages < 9, "there is an end");
            if after.is_none() {
                break;
            }
        }
        let shards: Vec<u8> = listed.iter().map(DeliveryId::shard).collect();
        assert!(shards.is_sorted(), "one shard after the other");
        listed.sort();
        assert_eq!(listed, put, "{state:?}: each once");
    }
}
