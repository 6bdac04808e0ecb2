//! Queues of the embedded store. Time is paused: what expires does so when a test says.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::advance;

use crate::store::MemoryStore;
use crate::store::keys::{Keys, QueueKeys};
use crate::store::queue::{
    Accept, After, Claim, DeliveryId, KeptAnswer, Outcome, QueueBounds, Requeued, Settle, Take,
    Taken,
};

const HOUR: Duration = Duration::from_secs(3600);
const BOUNDS: QueueBounds = QueueBounds { items: 9, bytes: 1 << 20, ttl: HOUR };

fn put(store: &MemoryStore, keys: &QueueKeys) -> DeliveryId {
    let id = DeliveryId::new(0, 1).expect("random bytes");
    let accept = Accept {
        id,
        key: None,
        fingerprint: "f",
        key_ttl: HOUR,
        head: b"POST /mail",
        body: &Bytes::from_static(b"one"),
        owner: "ada",
        order: None,
        delay: Duration::ZERO,
        max_age: HOUR,
        bounds: BOUNDS,
    };
    store.queue_accept(keys, &accept).expect("room");
    id
}

fn take(store: &MemoryStore, keys: &QueueKeys) -> Claim {
    let take = Take { node: "n1", most: 1, in_flight: 9, lease: HOUR, sweep: false };
    match store.queue_take(keys, take) {
        Taken::Items { mut claims, .. } => claims.pop().expect("an item"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_open_lives_on_by_a_repair() {
    let (store, keys) = (MemoryStore::new(9), Keys::new("app").queue("mail", 0));
    let id = put(&store, &keys);
    assert_eq!(store.queue_repair(&keys), 0);
    advance(2 * HOUR).await;
    assert!(store.queue_find(&keys, &id).is_some());
    advance(30 * 24 * HOUR).await;
    assert!(store.queue_find(&keys, &id).is_none());
    assert_eq!((store.queue_look(&keys).open, store.queue_look(&keys).bytes), (0, 0));
}

/// 64 MiB of answers are kept: one that is as good as gone must not stand in the way.
#[tokio::test(start_paused = true)]
async fn the_answer_of_what_is_tried_again_gives_its_room_back() {
    let (store, keys) = (MemoryStore::new(9), Keys::new("app").queue("mail", 0));
    let id = put(&store, &keys);
    let answer = KeptAnswer { head: Bytes::new(), body: Bytes::from(vec![0; 40 << 20]) };
    for _ in 0..3 {
        let claim = take(&store, &keys);
        let settle = Settle {
            hold: &claim.hold,
            outcome: Outcome::Dead,
            status: 400,
            error: "refused",
            answer: Some(&answer),
            keep: HOUR,
            dead_most: 9,
            after: After::default(),
        };
        store.queue_settle(&keys, settle);
        let item = store.queue_find(&keys, &id).expect("a record");
        assert!(store.queue_answer(&keys, &item).is_some());
        assert_eq!(store.queue_requeue(&keys, &id, HOUR, BOUNDS), Requeued::Requeued);
        assert!(store.queue_answer(&keys, &item).is_none());
    }
}
