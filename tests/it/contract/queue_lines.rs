//! Lines that a dead item holds: those behind it wait for somebody to look at it.

use std::time::Duration;

use portcullis::store::queue::{After, DeliveryId, Hold, ItemState, Outcome, Settle, Settled};

use super::queue_hands::{BLINK, HOUR, Of, Queue, WRITTEN, ids};
use super::{Subject, over_all_stores, over_redis};
use crate::support::PATIENCE;

over_all_stores![
    a_dead_item_holds_its_line_until_it_is_done_after_all,
    a_line_goes_on_when_its_dead_one_is_deleted,
    a_line_goes_on_when_its_dead_one_gives_way,
    a_line_goes_on_when_its_dead_one_has_ended,
];

const HELD: After<'static> = After { follow_ups: &[], holds_line: true };

fn dying(hold: &Hold) -> Settle<'_> {
    Settle {
        hold,
        outcome: Outcome::Dead,
        status: 422,
        error: "refused",
        answer: None,
        keep: HOUR,
        dead_most: 9,
        after: HELD,
    }
}

/// Has the first of a new line die and hold it; this one, and those behind it.
async fn held(queue: &Queue<'_>, order: &str, settle: Settle<'_>) -> [DeliveryId; 3] {
    let of = Of { order: Some(order), body: "one", ..Of::default() };
    let line = [queue.put(of).await, queue.put(of).await, queue.put(of).await];
    let claim = queue.take(9).await.remove(0);
    assert_eq!(claim.hold.id, line[0]);
    let settled = queue.settle_with(Settle { hold: &claim.hold, ..settle }).await;
    assert!(matches!(settled, Settled::Written { .. }), "{settled:?}");
    line
}

async fn a_dead_item_holds_its_line_until_it_is_done_after_all(it: Subject) {
    let queue = Queue::of(&it);
    let other = Hold { entry: String::new(), id: super::queue_hands::new_id(), token: 0 };
    let [dead, next, last] = held(&queue, "0f", dying(&other)).await;
    assert_eq!(queue.counts().await, [0, 0, 2, 0, 1, 2]);
    assert_eq!(queue.take(9).await, []);
    // Others go on, and whoever comes stands behind.
    let free = queue.put(Of { order: Some("1f"), ..Of::default() }).await;
    let late = queue.put(Of { order: Some("0f"), ..Of::default() }).await;
    assert_eq!(queue.state(&late).await, ItemState::Behind);
    let claims = queue.take(9).await;
    assert_eq!(ids(&claims), [free]);
    assert_eq!(queue.settle(&claims[0].hold, Outcome::Done).await, WRITTEN);
    // Nobody leaves it by being cancelled from behind.
    queue.cancel(&last).await;
    assert_eq!(queue.take(9).await, []);
    // A repair finds nothing to do.
    assert_eq!(it.store.queue_repair(&queue.keys, Duration::ZERO).await, Ok(0));
    assert_eq!(queue.take(9).await, []);
    // Tried again, it is the first as before; dead once more, it holds them once more.
    for outcome in [Outcome::Dead, Outcome::Done] {
        queue.requeue(&dead).await;
        assert_eq!(queue.state(&dead).await, ItemState::Waiting);
        let claims = queue.take(9).await;
        assert_eq!(ids(&claims), [dead]);
        let settle = Settle { outcome, ..dying(&claims[0].hold) };
        assert_eq!(queue.settle_with(settle).await, WRITTEN);
    }
    for expected in [next, late] {
        let claims = queue.take(9).await;
        assert_eq!(ids(&claims), [expected]);
        assert_eq!(queue.settle(&claims[0].hold, Outcome::Done).await, WRITTEN);
    }
    assert_eq!(queue.counts().await, [0; 6]);
}

async fn a_line_goes_on_when_its_dead_one_is_deleted(it: Subject) {
    let queue = Queue::of(&it);
    let other = Hold { entry: String::new(), id: super::queue_hands::new_id(), token: 0 };
    let [dead, next, _] = held(&queue, "0f", dying(&other)).await;
    assert_eq!(it.store.queue_drop_dead(&queue.keys).await, Ok(1));
    assert_eq!(queue.find(&dead).await, None);
    let claims = queue.take(9).await;
    assert_eq!(ids(&claims), [next]);
    // One that holds nothing takes nobody's place along.
    let free = Settle { after: After::default(), ..dying(&claims[0].hold) };
    assert_eq!(queue.settle_with(free).await, WRITTEN);
    let last = queue.take(9).await.remove(0);
    assert_eq!(it.store.queue_drop_dead(&queue.keys).await, Ok(1));
    assert_eq!(queue.state(&last.hold.id).await, ItemState::Delivering);
    assert_eq!(queue.settle(&last.hold, Outcome::Done).await, WRITTEN);
    assert_eq!(queue.counts().await, [0; 6]);
}

async fn a_line_goes_on_when_its_dead_one_gives_way(it: Subject) {
    let queue = Queue::of(&it);
    let other = Hold { entry: String::new(), id: super::queue_hands::new_id(), token: 0 };
    let one = Settle { dead_most: 1, ..dying(&other) };
    let first = held(&queue, "0f", one).await;
    let second = held(&queue, "1f", one).await;
    // Of those that died in one millisecond, either may be the older one.
    let is_first = queue.find(&first[0]).await.is_none();
    let gone = if is_first { first } else { second };
    assert_eq!(queue.find(&gone[0]).await, None);
    assert_eq!(ids(&queue.take(9).await), gone[1..2]);
    assert_eq!(queue.counts().await, [0, 0, 3, 1, 1, 4]);
}

async fn a_line_goes_on_when_its_dead_one_has_ended(it: Subject) {
    let queue = Queue::of(&it);
    let other = Hold { entry: String::new(), id: super::queue_hands::new_id(), token: 0 };
    let [_, next, _] = held(&queue, "0f", Settle { keep: BLINK, ..dying(&other) }).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        assert!(it.store.queue_repair(&queue.keys, Duration::ZERO).await.is_ok());
        let claims = queue.take(9).await;
        if !claims.is_empty() {
            assert_eq!(ids(&claims), [next]);
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "in vain waited for the line to go on");
        tokio::task::yield_now().await;
    }
}

#[test]
fn whoever_comes_has_a_line_go_on_whose_first_one_is_gone() {
    over_redis(async |it: Subject| {
        let queue = Queue::of(&it);
        let redis = it.redis.as_deref().expect("a Redis");
        let other = Hold { entry: String::new(), id: super::queue_hands::new_id(), token: 0 };
        for order in ["0f", "1f"] {
            let [dead, next, last] = held(&queue, order, dying(&other)).await;
            // Alone, and with others behind.
            if order == "0f" {
                queue.cancel(&next).await;
                queue.cancel(&last).await;
            }
            assert_eq!(redis.cli(&["DEL", &queue.keys.item(&dead)]), "1");
            let late = queue.put(Of { order: Some(order), ..Of::default() }).await;
            let expected = if order == "0f" { late } else { next };
            let claims = queue.take(9).await;
            assert_eq!(ids(&claims), [expected]);
            assert_eq!(queue.settle(&claims[0].hold, Outcome::Done).await, WRITTEN);
        }
        assert_eq!(ids(&queue.take(9).await).len(), 1);
    });
}

/// Those that were to be kept for longer hold nothing that nobody sees.
#[test]
fn a_line_goes_on_where_what_is_dead_is_kept_for_less_time_now() {
    over_redis(async |it: Subject| {
        let queue = Queue::of(&it);
        let other = Hold { entry: String::new(), id: super::queue_hands::new_id(), token: 0 };
        let [dead, next, _] = held(&queue, "0f", dying(&other)).await;
        let short = Settle { keep: BLINK, after: After::default(), ..dying(&other) };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            queue.put(Of::default()).await;
            let claims = queue.take(9).await;
            if ids(&claims).contains(&next) {
                break;
            }
            let settled = queue.settle_with(Settle { hold: &claims[0].hold, ..short }).await;
            assert!(matches!(settled, Settled::Written { .. }), "{settled:?}");
            assert!(tokio::time::Instant::now() < deadline, "in vain waited for the line");
        }
        assert_eq!(queue.find(&dead).await, None);
    });
}
