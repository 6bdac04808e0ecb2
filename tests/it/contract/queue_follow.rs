//! What follows in other queues when an item ends: in the same step, and once.

use bytes::Bytes;
use portcullis::store::keys::{Keys, QueueKeys};
use portcullis::store::queue::{
    After, DeliveryId, FOLLOW_UP_BYTES_MAX, FollowUp, Hold, ItemState, Outcome, QueueBounds,
    Settle, Settled,
};

use super::queue_hands::{BACK, HEAD, HOUR, Of, Queue, ROOMY, WRITTEN, ids, new_id};
use super::{Subject, over_all_stores, over_redis};

over_all_stores![
    an_end_brings_items_of_other_queues_about,
    what_follows_is_queued_once_whoever_tells_the_end,
    what_follows_is_never_refused,
    what_follows_stands_in_the_line_of_its_order_key,
];

/// Another queue, whose keys lie in the same slot, also of a cluster.
fn other<'a>(it: &'a Subject, name: &str) -> Queue<'a> {
    let keys = Keys::new("app").queue(&format!("mail.0}}:{name}"), 0);
    Queue { keys, ..Queue::of(it) }
}

/// An item of that queue.
fn item<'a>(keys: &'a QueueKeys, key: &'a str, body: &'a Bytes) -> FollowUp<'a> {
    FollowUp {
        keys,
        id: new_id(),
        key,
        key_ttl: HOUR,
        head: b"POST /undo",
        body,
        owner: "ada",
        keeps_order: true,
        max_age: HOUR,
        ttl: ROOMY.ttl,
    }
}

/// Ends what is held, with what follows.
fn ending<'a>(hold: &'a Hold, outcome: Outcome, follow_ups: &'a [FollowUp<'a>]) -> Settle<'a> {
    let after = After { follow_ups, holds_line: false };
    Settle {
        hold,
        outcome,
        status: 422,
        error: "refused",
        answer: None,
        keep: HOUR,
        dead_most: 9,
        after,
    }
}

fn followed(followed: u64) -> Settled {
    Settled::Written { dropped: 0, followed }
}

async fn an_end_brings_items_of_other_queues_about(it: Subject) {
    let (queue, undo, told) = (Queue::of(&it), other(&it, "undo"), other(&it, "told"));
    let (body, none) = (Bytes::from_static(b"because"), Bytes::new());
    for outcome in [Outcome::Dead, Outcome::DeadInDoubt, Outcome::Done] {
        let id = queue.put(Of { body: "one", ..Of::default() }).await;
        let claim = queue.take(1).await.remove(0);
        let (one, two) = (format!("{id}:undo"), format!("{id}:end"));
        let nobodys = FollowUp { owner: "", ..item(&told.keys, &two, &none) };
        let follow_ups = [item(&undo.keys, &one, &body), nobodys];
        let settled = queue.settle_with(ending(&claim.hold, outcome, &follow_ups)).await;
        assert_eq!(settled, followed(2), "{outcome:?}");
        assert!(queue.state(&id).await.is_settled());

        let found = undo.find(&follow_ups[0].id).await.expect("a record");
        assert_eq!((found.state, &*found.owner), (ItemState::Waiting, "ada"));
        assert_eq!((&*found.head, found.bytes, found.claims), (&b"POST /undo"[..], 7, 0));
        assert_eq!(found.give_up_ms, found.accepted_ms + 3_600_000);
        assert_eq!(found.due_ms, found.accepted_ms);
        assert_eq!((undo.counts().await, undo.bytes().await), ([1, 0, 0, 0, 0, 1], HEAD + 7));
        let claim = undo.take(9).await.remove(0);
        assert_eq!((claim.hold.id, claim.hold.token), (follow_ups[0].id, 1));
        assert_eq!((claim.failures, claim.stalls), (0, 0));
        assert_eq!(claim.body.as_deref(), Some(&b"because"[..]));
        assert_eq!(undo.settle(&claim.hold, Outcome::Done).await, WRITTEN);
        assert_eq!((undo.counts().await, undo.bytes().await), ([0; 6], 0));

        assert_eq!(told.find(&follow_ups[1].id).await.expect("a record").owner, "");
        let claim = told.take(9).await.remove(0);
        assert_eq!(claim.body.as_deref(), Some(&[][..]));
        assert_eq!(told.settle(&claim.hold, Outcome::Done).await, WRITTEN);
        assert_eq!((told.counts().await, told.bytes().await), ([0; 6], 0));
    }
}

async fn what_follows_is_queued_once_whoever_tells_the_end(it: Subject) {
    let (queue, undo) = (Queue::of(&it), other(&it, "undo"));
    let body = Bytes::from_static(b"because");
    let id = queue.put(Of::default()).await;
    let key = format!("{id}:undo");
    let late = queue.take(1).await.remove(0);
    let claim = queue.take_over(1).await.remove(0);
    // Whoever has lost it brings nothing about, and neither does a failure or a return.
    let follow_ups = [item(&undo.keys, &key, &body)];
    let lost = queue.settle_with(ending(&late.hold, Outcome::Dead, &follow_ups)).await;
    assert_eq!(lost, Settled::Lost);
    assert_eq!(queue.settle_with(ending(&claim.hold, BACK, &follow_ups)).await, WRITTEN);
    let claim = queue.take(1).await.remove(0);
    assert_eq!(undo.counts().await, [0; 6]);
    // The answer was missed, and it is told again: with the same item, or with a new one.
    let settled = queue.settle_with(ending(&claim.hold, Outcome::Dead, &follow_ups)).await;
    assert_eq!(settled, followed(1));
    for again in [follow_ups, [item(&undo.keys, &key, &body)]] {
        assert_eq!(queue.settle_with(ending(&claim.hold, Outcome::Dead, &again)).await, WRITTEN);
    }
    // Requeued, it dies once more: what undoes it is there already.
    queue.requeue(&id).await;
    let claim = queue.take(1).await.remove(0);
    let again = [item(&undo.keys, &key, &body)];
    assert_eq!(queue.settle_with(ending(&claim.hold, Outcome::Dead, &again)).await, WRITTEN);
    assert_eq!((undo.counts().await, undo.bytes().await), ([1, 0, 0, 0, 0, 1], HEAD + 7));
    // And known, also where the next one would be put into another queue.
    let elsewhere = other(&it, "undone");
    queue.requeue(&id).await;
    let claim = queue.take(1).await.remove(0);
    let moved = [item(&elsewhere.keys, &key, &body)];
    assert_eq!(queue.settle_with(ending(&claim.hold, Outcome::Dead, &moved)).await, WRITTEN);
    assert_eq!(elsewhere.counts().await, [0; 6]);
    assert_eq!((undo.find(&again[0].id).await, undo.body(&again[0].id).await), (None, None));
    let one: Vec<DeliveryId> = ids(&undo.take(9).await);
    assert_eq!(one.len(), 1);
}

async fn what_follows_is_never_refused(it: Subject) {
    let (queue, undo) = (Queue::of(&it), other(&it, "undo"));
    let full = Queue { bounds: QueueBounds { items: 1, bytes: HEAD, ..ROOMY }, ..undo };
    full.put(Of::default()).await;
    let id = queue.put(Of::default()).await;
    let claim = queue.take(1).await.remove(0);
    let (key, body) = (format!("{id}:undo"), Bytes::from(vec![b'x'; FOLLOW_UP_BYTES_MAX]));
    let follow_ups = [item(&full.keys, &key, &body)];
    let settled = queue.settle_with(ending(&claim.hold, Outcome::Dead, &follow_ups)).await;
    assert_eq!(settled, followed(1));
    let bytes = 2 * HEAD + FOLLOW_UP_BYTES_MAX as u64;
    assert_eq!((full.counts().await, full.bytes().await), ([2, 0, 0, 0, 0, 2], bytes));
    assert_eq!(full.body(&follow_ups[0].id).await, Some(body.clone()));
}

async fn what_follows_stands_in_the_line_of_its_order_key(it: Subject) {
    let (queue, undo) = (Queue::of(&it), other(&it, "undo"));
    let body = Bytes::from_static(b"because");
    // Somebody of the same order key was there before, and another one has none.
    let first = undo.put(Of { order: Some("0f"), ..Of::default() }).await;
    let mut expected = Vec::new();
    for (order, keeps_order) in [(Some("0f"), true), (Some("0f"), false), (None, true)] {
        let id = queue.put(Of { order, ..Of::default() }).await;
        let claim = queue.take(1).await.remove(0);
        let key = format!("{id}:undo");
        let follow_ups = [FollowUp { keeps_order, ..item(&undo.keys, &key, &body) }];
        let settled = queue.settle_with(ending(&claim.hold, Outcome::Dead, &follow_ups)).await;
        assert_eq!(settled, followed(1));
        expected.push(follow_ups[0].id);
    }
    assert_eq!(undo.state(&expected[0]).await, ItemState::Behind);
    let claims = undo.take(9).await;
    assert_eq!(ids(&claims), [first, expected[1], expected[2]]);
    assert_eq!(undo.settle(&claims[0].hold, Outcome::Done).await, WRITTEN);
    assert_eq!(ids(&undo.take(9).await), expected[..1]);
}

#[test]
fn what_follows_waits_for_nobody_whose_record_is_gone() {
    over_redis(async |it: Subject| {
        let (queue, undo) = (Queue::of(&it), other(&it, "undo"));
        let redis = it.redis.as_deref().expect("a Redis");
        let of = Of { order: Some("0f"), ..Of::default() };
        let gone = undo.put(of).await;
        assert_eq!(undo.take(1).await.len(), 1);
        assert_eq!(redis.cli(&["DEL", &undo.keys.item(&gone)]), "1");
        let id = queue.put(of).await;
        let claim = queue.take(1).await.remove(0);
        let (key, body) = (format!("{id}:undo"), Bytes::new());
        let follow_ups = [item(&undo.keys, &key, &body)];
        let settled = queue.settle_with(ending(&claim.hold, Outcome::Dead, &follow_ups)).await;
        assert_eq!(settled, followed(1));
        assert_eq!(undo.state(&follow_ups[0].id).await, ItemState::Waiting);
        assert_eq!(ids(&undo.take(9).await), [follow_ups[0].id]);
    });
}
