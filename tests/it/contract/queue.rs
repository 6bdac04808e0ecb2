//! Queues of deferred deliveries: what becomes of an item, whoever takes it, in either store.

use std::time::Duration;

use portcullis::store::queue::{
    Accepted, After, Again, Cancelled, Hold, Item, ItemState, KeptAnswer, Outcome, Pause,
    QUEUE_PAGE, QueueBounds, Requeued, Settle, Settled, Take, Taken,
};

use super::queue_hands::{BACK, BLINK, HEAD, HOUR, Of, Queue, ROOMY, WRITTEN, ids, new_id};
use super::{Subject, over_all_stores};
use crate::support::PATIENCE;

over_all_stores![
    an_item_is_accepted_taken_and_done,
    a_key_stands_for_one_request,
    an_item_that_is_asked_again_is_the_same,
    a_full_queue_takes_nothing_more,
    only_the_newest_claim_counts,
    a_fleet_claims_no_more_than_it_may,
    what_failed_waits_and_what_is_given_back_does_not_count,
    a_delay_is_counted_on_the_clock_of_the_store,
    of_one_order_key_one_is_on_its_way,
    what_waits_may_be_cancelled,
    what_is_dead_may_be_tried_again,
    the_oldest_dead_give_way,
    nothing_is_taken_during_a_pause,
    a_list_shows_each_item_once,
];

async fn an_item_is_accepted_taken_and_done(it: Subject) {
    let queue = Queue::of(&it);
    assert_eq!(queue.take(9).await, []);
    let (id, accepted) = queue.accept(Of { body: "hello", ..Of::default() }).await;
    let Accepted::New { accepted_ms, due_ms } = accepted else { panic!("{accepted:?}") };
    assert_eq!(accepted_ms, due_ms);
    let empty = queue.put(Of::default()).await;
    assert_eq!((queue.counts().await, queue.bytes().await), ([2, 0, 0, 0, 0, 2], 2 * HEAD + 5));
    let item = queue.find(&id).await.expect("a record");
    assert_eq!((item.state, &*item.owner, item.bytes), (ItemState::Waiting, "ada", 5));
    assert_eq!((item.accepted_ms, item.due_ms, item.claims), (accepted_ms, due_ms, 0));
    assert_eq!(item.give_up_ms, due_ms + 3_600_000);

    let claims = queue.take(9).await;
    assert_eq!(ids(&claims), [id, empty]);
    let [claim, other] = &claims[..] else { panic!("{claims:?}") };
    assert_eq!((claim.hold.token, claim.stalls, claim.failures), (1, 0, 0));
    assert_eq!((&*claim.head, &*claim.owner), (&b"POST /mail"[..], "ada"));
    assert_eq!(
        (claim.body.as_deref(), other.body.as_deref()),
        (Some(&b"hello"[..]), Some(&[][..]))
    );
    assert_eq!((claim.accepted_ms, claim.give_up_ms), (accepted_ms, item.give_up_ms));
    assert_eq!(queue.take(9).await, []);
    let item = queue.find(&id).await.expect("a record");
    assert_eq!((item.state, item.claims, &*item.node), (ItemState::Delivering, 1, "n1"));
    assert_eq!(queue.counts().await, [0, 0, 0, 2, 0, 2]);

    let answer = KeptAnswer { head: "201".into(), body: "made".into() };
    let done = Settle {
        hold: &claim.hold,
        outcome: Outcome::Done,
        status: 201,
        error: "",
        answer: Some(&answer),
        keep: HOUR,
        dead_most: 9,
        after: After::default(),
    };
    // The second time its answer was missed.
    for _ in 0..2 {
        assert_eq!(queue.settle_with(done).await, WRITTEN);
        let item = queue.find(&id).await.expect("a record");
        assert_eq!((item.state, item.status), (ItemState::Done, 201));
        assert_eq!((&*item.head, item.bytes), (&b""[..], 5), "nobody sends it again");
        assert!(item.settled_ms >= Some(accepted_ms), "{item:?}");
        assert_eq!(it.store.queue_answer(&queue.keys, &item).await, Ok(Some(answer.clone())));
        assert_eq!(queue.body(&id).await, None);
        assert_eq!((queue.counts().await, queue.bytes().await), ([0, 0, 0, 1, 0, 1], HEAD));
    }
    assert_eq!(queue.settle(&other.hold, Outcome::Done).await, WRITTEN);
    let item = queue.find(&empty).await.expect("a record");
    assert_eq!(it.store.queue_answer(&queue.keys, &item).await, Ok(None));
    assert_eq!(queue.counts().await, [0; 6]);
    assert_eq!(queue.find(&new_id()).await, None);
}

async fn a_key_stands_for_one_request(it: Subject) {
    let queue = Queue::of(&it);
    let first = Of { key: Some("0f"), fingerprint: "f1", body: "one", ..Of::default() };
    let (id, accepted) = queue.accept(first).await;
    let Accepted::New { accepted_ms, due_ms } = accepted else { panic!("{accepted:?}") };
    let known = |state| Accepted::Again { id, now: Some(Again { state, accepted_ms, due_ms }) };
    for state in [ItemState::Waiting, ItemState::Delivering, ItemState::Done] {
        let (other, again) = queue.accept(first).await;
        assert_eq!(again, known(state));
        assert_eq!(queue.body(&other).await, None, "the body of nothing is kept");
        let reused = queue.accept(Of { fingerprint: "f2", ..first }).await;
        assert_eq!(reused.1, Accepted::Reused { id });
        match state {
            ItemState::Waiting => assert_eq!(ids(&queue.take(1).await), [id]),
            _ => {
                let claims = queue.take_over(1).await;
                if let [claim] = &claims[..] {
                    assert_eq!(queue.settle(&claim.hold, Outcome::Done).await, WRITTEN);
                }
                break;
            }
        }
    }
    assert_eq!(queue.accept(first).await.1, known(ItemState::Done));
    // Another key is another item, and so is the same request without one.
    queue.put(Of { key: Some("1f"), ..first }).await;
    queue.put(Of { key: None, ..first }).await;
    assert_eq!(queue.counts().await, [2, 0, 0, 0, 0, 2]);
}

async fn an_item_that_is_asked_again_is_the_same(it: Subject) {
    let queue = Queue::of(&it);
    for key in [None, Some("0f")] {
        let of = Of { key, fingerprint: "f", body: "one", id: Some(new_id()), ..Of::default() };
        let (id, first) = queue.accept(of).await;
        assert!(matches!(first, Accepted::New { .. }), "{first:?}");
        assert_eq!(queue.accept(of).await.1, first);
        assert_eq!(queue.body(&id).await.as_deref(), Some(&b"one"[..]));
        let claims = queue.take(9).await;
        assert_eq!(ids(&claims), [id], "it is queued once");
        assert_eq!(queue.accept(of).await.1, first);
        assert_eq!(queue.settle(&claims[0].hold, Outcome::Done).await, WRITTEN);
        assert_eq!(queue.accept(of).await.1, first);
        assert_eq!(queue.body(&id).await, None, "the body of what is done is gone");
        assert_eq!((queue.counts().await, queue.bytes().await), ([0; 6], 0));
    }
}

async fn a_full_queue_takes_nothing_more(it: Subject) {
    let queue =
        Queue { bounds: QueueBounds { items: 2, bytes: 2 * HEAD + 8, ..ROOMY }, ..Queue::of(&it) };
    queue.put(Of { body: "12345", ..Of::default() }).await;
    let (id, full) = queue.accept(Of { body: "1234", ..Of::default() }).await;
    assert_eq!(full, Accepted::Full { items: 1, bytes: HEAD + 5 });
    assert_eq!((queue.find(&id).await, queue.body(&id).await), (None, None));
    queue.put(Of { body: "123", ..Of::default() }).await;
    let (_, full) = queue.accept(Of::default()).await;
    assert_eq!(full, Accepted::Full { items: 2, bytes: 2 * HEAD + 8 });
    // What is taken is still open, and what is done is not.
    let claims = queue.take(9).await;
    assert_eq!(queue.accept(Of::default()).await.1, full);
    assert_eq!(queue.settle(&claims[0].hold, Outcome::Done).await, WRITTEN);
    queue.put(Of { body: "12345", ..Of::default() }).await;
    // A key that is known takes no room.
    let claims = queue.take(9).await;
    assert_eq!(queue.settle(&claims[0].hold, Outcome::Done).await, WRITTEN);
    let keyed = Of { key: Some("0f"), ..Of::default() };
    let id = queue.put(keyed).await;
    let (_, again) = queue.accept(keyed).await;
    assert!(matches!(again, Accepted::Again { id: of, .. } if of == id), "{again:?}");
}

async fn only_the_newest_claim_counts(it: Subject) {
    let queue = Queue::of(&it);
    let id = queue.put(Of { body: "one", ..Of::default() }).await;
    let first = queue.take(1).await.remove(0);
    assert!(queue.renew(&first.hold).await);
    let second = queue.take_over(1).await.remove(0);
    assert_eq!((second.hold.id, second.hold.token, second.stalls), (id, 2, 1));
    assert_eq!(second.body.as_deref(), Some(&b"one"[..]));
    assert!(!queue.renew(&first.hold).await && queue.renew(&second.hold).await);
    let answer = KeptAnswer { head: "200".into(), body: "late".into() };
    for outcome in [Outcome::Done, Outcome::Dead, Outcome::Retry { delay: HOUR }, BACK] {
        let late = Settle {
            hold: &first.hold,
            outcome,
            status: 200,
            error: "late",
            answer: Some(&answer),
            keep: HOUR,
            dead_most: 9,
            after: After::default(),
        };
        assert_eq!(queue.settle_with(late).await, Settled::Lost);
        let item = queue.find(&id).await.expect("a record");
        assert_eq!((item.state, item.status, &*item.error), (ItemState::Delivering, 0, ""));
        let of_first = Item { claims: 1, ..item };
        assert_eq!(it.store.queue_answer(&queue.keys, &of_first).await, Ok(None));
    }
    // With a lease that has not ended nobody takes it.
    let sweep = Take { node: "n3", most: 9, in_flight: 100, lease: HOUR, sweep: true };
    assert_eq!(queue.take_by(sweep).await, []);
    assert_eq!(queue.settle(&second.hold, Outcome::Done).await, WRITTEN);
    assert!(!queue.renew(&second.hold).await);
    assert_eq!(queue.find(&id).await.expect("a record").stalls, 1);
    let unknown = Hold { id: new_id(), ..second.hold };
    assert_eq!(queue.settle(&unknown, Outcome::Done).await, Settled::Lost);
    assert!(!queue.renew(&unknown).await);
}

async fn a_fleet_claims_no_more_than_it_may(it: Subject) {
    let queue = Queue::of(&it);
    let mut put = Vec::new();
    for _ in 0..5 {
        put.push(queue.put(Of::default()).await);
    }
    let take = |node, most, sweep, lease| Take { node, most, in_flight: 3, lease, sweep };
    assert_eq!(ids(&queue.take_by(take("n1", 2, false, HOUR)).await), put[..2]);
    assert_eq!(ids(&queue.take_by(take("n2", 2, true, HOUR)).await), put[2..3]);
    assert_eq!(queue.take_by(take("n1", 2, true, HOUR)).await, []);
    // What nobody holds any more is taken, though no more may be.
    let stalled = queue.take_some(take("n2", 2, true, BLINK)).await.0;
    assert_eq!(ids(&stalled), put[..2]);
    assert_eq!(queue.settle(&stalled[0].hold, Outcome::Done).await, WRITTEN);
    assert_eq!(ids(&queue.take_by(take("n1", 2, false, HOUR)).await), put[3..4]);
}

async fn what_failed_waits_and_what_is_given_back_does_not_count(it: Subject) {
    let queue = Queue::of(&it);
    let id = queue.put(Of { body: "one", ..Of::default() }).await;
    let other = queue.put(Of::default()).await;
    let claim = queue.take(1).await.remove(0);
    assert_eq!(queue.settle(&claim.hold, BACK).await, WRITTEN);
    let item = queue.find(&id).await.expect("a record");
    assert_eq!((item.state, item.failures, item.claims), (ItemState::Waiting, 0, 1));
    let claims = queue.take(9).await;
    assert_eq!(ids(&claims), [other, id]);
    let failed = Settle {
        hold: &claims[1].hold,
        outcome: Outcome::Retry { delay: HOUR },
        status: 503,
        error: "answered",
        answer: None,
        keep: HOUR,
        dead_most: 9,
        after: After::default(),
    };
    assert_eq!(queue.settle_with(failed).await, WRITTEN);
    let item = queue.find(&id).await.expect("a record");
    assert_eq!((item.state, item.failures, item.status), (ItemState::Retrying, 1, 503));
    assert_eq!((&*item.error, queue.counts().await), ("answered", [0, 1, 0, 1, 0, 2]));
    let Taken::Items { claims: none, next_ms, .. } =
        queue.try_take(Take { node: "n", most: 9, in_flight: 9, lease: HOUR, sweep: true }).await
    else {
        panic!("no pause")
    };
    assert_eq!((none, next_ms), (vec![], Some(item.due_ms)));
    // Later, and yet no failure.
    let late = Outcome::Back { delay: HOUR };
    assert_eq!(queue.settle(&claims[0].hold, late).await, WRITTEN);
    let item = queue.find(&other).await.expect("a record");
    assert_eq!((item.state, item.failures), (ItemState::Waiting, 0));
    assert_eq!(queue.counts().await, [0, 2, 0, 0, 0, 2]);
}

async fn a_delay_is_counted_on_the_clock_of_the_store(it: Subject) {
    let queue = Queue::of(&it);
    let delay = Duration::from_millis(30);
    let (id, accepted) = queue.accept(Of { delay, body: "one", ..Of::default() }).await;
    let Accepted::New { accepted_ms, due_ms } = accepted else { panic!("{accepted:?}") };
    assert_eq!(due_ms, accepted_ms + 30);
    let item = queue.find(&id).await.expect("a record");
    assert_eq!((item.due_ms, item.give_up_ms), (due_ms, due_ms + 3_600_000));
    let take = Take { node: "n1", most: 9, in_flight: 9, lease: HOUR, sweep: false };
    let (claims, now_ms) = queue.take_some(take).await;
    assert!(ids(&claims) == [id] && now_ms >= due_ms, "{now_ms} {due_ms}");
    assert_eq!(queue.settle(&claims[0].hold, Outcome::Retry { delay }).await, WRITTEN);
    let due_ms = queue.find(&id).await.expect("a record").due_ms;
    let (claims, now_ms) = queue.take_some(take).await;
    assert!(ids(&claims) == [id] && now_ms >= due_ms, "{now_ms} {due_ms}");
    assert_eq!((claims[0].failures, claims[0].hold.token), (1, 2));
    // Waiting is under no lease, however long it lasts.
    assert_eq!(claims[0].stalls, 0);
}

async fn of_one_order_key_one_is_on_its_way(it: Subject) {
    let queue = Queue::of(&it);
    let ordered = Of { order: Some("0f"), body: "x", ..Of::default() };
    let mut line = Vec::new();
    for _ in 0..6 {
        line.push(queue.put(ordered).await);
    }
    let other = queue.put(Of { order: Some("1f"), ..ordered }).await;
    assert_eq!(queue.counts().await, [2, 0, 5, 0, 0, 7]);
    let claims = queue.take(9).await;
    assert_eq!(ids(&claims), [line[0], other]);
    assert_eq!(queue.state(&line[1]).await, ItemState::Behind);
    // Neither a failure nor a return lets the next one pass.
    assert_eq!(queue.settle(&claims[0].hold, BACK).await, WRITTEN);
    let first = queue.take(9).await.remove(0);
    assert_eq!(first.hold.id, line[0]);
    let retry = Outcome::Retry { delay: Duration::ZERO };
    assert_eq!(queue.settle(&first.hold, retry).await, WRITTEN);
    let first = queue.take(9).await;
    assert_eq!(ids(&first), line[..1]);
    assert_eq!(queue.settle(&first[0].hold, Outcome::Done).await, WRITTEN);
    // One that waits behind leaves without a trace.
    assert_eq!(queue.cancel(&line[2]).await, Cancelled::Cancelled);
    let second = queue.take(9).await;
    assert_eq!(ids(&second), line[1..2]);
    // On a death the line goes on, and whoever is tried again stands at its end.
    assert_eq!(queue.settle(&second[0].hold, Outcome::Dead).await, WRITTEN);
    assert_eq!(queue.requeue(&line[1]).await, Requeued::Requeued);
    assert_eq!(queue.state(&line[1]).await, ItemState::Behind);
    // The first one leaves before anybody takes it.
    assert_eq!(queue.cancel(&line[3]).await, Cancelled::Cancelled);
    for expected in [line[4], line[5], line[1]] {
        let claims = queue.take(9).await;
        assert_eq!(ids(&claims), [expected]);
        assert_eq!(queue.settle(&claims[0].hold, Outcome::Done).await, WRITTEN);
    }
    // A line that has ended begins anew, also with a delay of its first one.
    let late = queue.put(Of { delay: HOUR, ..ordered }).await;
    let behind = queue.put(ordered).await;
    assert_eq!(queue.take(9).await, []);
    assert_eq!(queue.cancel(&late).await, Cancelled::Cancelled);
    assert_eq!(ids(&queue.take(9).await), [behind]);
}

async fn what_waits_may_be_cancelled(it: Subject) {
    let queue = Queue::of(&it);
    let waiting = queue.put(Of { body: "one", ..Of::default() }).await;
    let later = queue.put(Of { delay: HOUR, body: "two", ..Of::default() }).await;
    for id in [waiting, later] {
        assert_eq!(queue.cancel(&id).await, Cancelled::Cancelled);
        assert_eq!(queue.cancel(&id).await, Cancelled::Settled(ItemState::Cancelled));
        let item = queue.find(&id).await.expect("a record");
        assert_eq!((item.state, queue.body(&id).await), (ItemState::Cancelled, None));
        assert_eq!((&*item.head, item.bytes), (&b""[..], 3));
    }
    assert_eq!((queue.take(9).await, queue.counts().await), (vec![], [0; 6]));
    assert_eq!(queue.bytes().await, 0);
    let id = queue.put(Of::default()).await;
    let claim = queue.take(1).await.remove(0);
    assert_eq!(queue.cancel(&id).await, Cancelled::InProgress);
    assert_eq!(queue.settle(&claim.hold, Outcome::Retry { delay: HOUR }).await, WRITTEN);
    assert_eq!(queue.cancel(&id).await, Cancelled::Cancelled);
    assert_eq!(queue.requeue(&id).await, Requeued::NotDead(ItemState::Cancelled));
    assert_eq!(queue.cancel(&new_id()).await, Cancelled::Unknown);
    assert_eq!(queue.counts().await, [0; 6]);
}

async fn what_is_dead_may_be_tried_again(it: Subject) {
    let queue = Queue::of(&it);
    let store = &it.store;
    let id = queue.put(Of { key: Some("0f"), body: "one", ..Of::default() }).await;
    let claim = queue.take(1).await.remove(0);
    let retry = Outcome::Retry { delay: Duration::ZERO };
    assert_eq!(queue.settle(&claim.hold, retry).await, WRITTEN);
    assert_eq!(queue.requeue(&id).await, Requeued::NotDead(ItemState::Waiting));
    let claim = queue.take_over(1).await.remove(0);
    let dead = Settle {
        hold: &claim.hold,
        outcome: Outcome::Dead,
        status: 422,
        error: "refused",
        answer: Some(&KeptAnswer { head: "422".into(), body: "no".into() }),
        keep: HOUR,
        dead_most: 9,
        after: After::default(),
    };
    assert_eq!(queue.settle_with(dead).await, WRITTEN);
    let item = queue.find(&id).await.expect("a record");
    assert_eq!((item.state, item.failures, &*item.error), (ItemState::Dead, 2, "refused"));
    assert!(matches!(store.queue_answer(&queue.keys, &item).await, Ok(Some(_))));
    assert_eq!((queue.counts().await, queue.bytes().await), ([0, 0, 0, 0, 1, 0], 0));
    assert_eq!(queue.take(9).await, []);
    // Its key stands for it as long as it lasts.
    let (_, again) = queue.accept(Of { key: Some("0f"), body: "one", ..Of::default() }).await;
    let Accepted::Again { id: of, now: Some(now) } = again else { panic!("{again:?}") };
    assert_eq!((of, now.state), (id, ItemState::Dead));
    for (error, most, expected) in
        [(None, 9, 1), (Some("refused"), 9, 1), (Some("other"), 9, 0), (None, 0, 0)]
    {
        let found = store.queue_dead(&queue.keys, error, most).await.expect("an answer");
        assert_eq!(found.len(), expected, "{error:?} {most}");
    }
    let full = Queue { bounds: QueueBounds { bytes: 2, ..ROOMY }, ..Queue::of(&it) };
    assert_eq!(full.requeue(&id).await, Requeued::Full);
    assert_eq!(queue.requeue(&id).await, Requeued::Requeued);
    assert_eq!(queue.requeue(&id).await, Requeued::NotDead(ItemState::Waiting));
    assert_eq!((queue.counts().await, queue.bytes().await), ([1, 0, 0, 0, 0, 1], HEAD + 3));
    let item = queue.find(&id).await.expect("a record");
    assert_eq!(store.queue_answer(&queue.keys, &item).await, Ok(None), "it is as if new");
    let claim = queue.take(1).await.remove(0);
    assert_eq!((claim.failures, claim.stalls, claim.hold.token), (0, 0, 3));
    assert_eq!(claim.body.as_deref(), Some(&b"one"[..]));
    assert_eq!(queue.settle(&claim.hold, Outcome::Dead).await, WRITTEN);
    // Without an answer it counts where it may have arrived.
    assert_eq!(queue.find(&id).await.expect("a record").failures, 0);
    assert_eq!(queue.requeue(&id).await, Requeued::Requeued);
    let claim = queue.take(1).await.remove(0);
    assert_eq!(queue.settle(&claim.hold, Outcome::DeadInDoubt).await, WRITTEN);
    let item = queue.find(&id).await.expect("a record");
    assert_eq!((item.state, item.failures), (ItemState::Dead, 1));
    let which = (None, 10);
    let all = std::slice::from_ref(&queue.keys);
    let requeued = store.queue_requeue_dead(all, which, HOUR, |_| ROOMY).await;
    assert_eq!((requeued, queue.counts().await), (Ok(1), [1, 0, 0, 0, 0, 1]));
    assert_eq!(queue.requeue(&new_id()).await, Requeued::Unknown);
}

async fn the_oldest_dead_give_way(it: Subject) {
    let queue = Queue::of(&it);
    let mut dead = Vec::new();
    for number in 0..5 {
        let id = queue.put(Of { body: "one", ..Of::default() }).await;
        let claim = queue.take(1).await.remove(0);
        let settle = Settle {
            hold: &claim.hold,
            outcome: Outcome::Dead,
            status: 0,
            error: "exhausted",
            answer: None,
            keep: HOUR,
            dead_most: 3,
            after: After::default(),
        };
        let dropped = u64::from(number >= 3);
        assert_eq!(queue.settle_with(settle).await, Settled::Written { dropped, followed: 0 });
        dead.push(id);
    }
    for (id, is_there) in dead.iter().zip([false, false, true, true, true]) {
        // Of those that died in one millisecond, either may be the older one.
        let found = (queue.find(id).await.is_some(), queue.body(id).await.is_some());
        assert!(found.0 == found.1, "{is_there} {found:?}");
    }
    assert_eq!(queue.counts().await, [0, 0, 0, 0, 3, 0]);
    let page = it.store.queue_list(&queue.keys, Some(ItemState::Dead), None).await.expect("a page");
    assert_eq!((page.items.len(), page.next), (3, None));
    assert_eq!(it.store.queue_drop_dead(&queue.keys).await, Ok(3));
    assert_eq!(it.store.queue_drop_dead(&queue.keys).await, Ok(0));
    for id in &dead {
        assert_eq!((queue.find(id).await, queue.body(id).await), (None, None));
    }
    assert_eq!(queue.counts().await, [0; 6]);
}

async fn nothing_is_taken_during_a_pause(it: Subject) {
    let queue = Queue::of(&it);
    let id = queue.put(Of::default()).await;
    let pause = async |why: &str, left| {
        let pause = Pause { why: why.to_owned(), left };
        it.store.queue_pause(&queue.keys, &pause).await.expect("an answer")
    };
    let take = Take { node: "n1", most: 9, in_flight: 9, lease: HOUR, sweep: true };
    let paused = async || match queue.try_take(take).await {
        Taken::Paused(pause) => (pause.why, pause.left),
        other => panic!("{other:?}"),
    };
    assert!(pause("upstream", Some(HOUR)).await && !pause("again", Some(HOUR)).await);
    let (why, left) = paused().await;
    assert_eq!(why, "upstream");
    assert!(left.is_some_and(|left| left <= HOUR && left > HOUR - PATIENCE), "{left:?}");
    // That of a person stands above it, and is not ended by time.
    assert!(pause("operator", None).await && !pause("upstream", Some(BLINK)).await);
    assert_eq!(paused().await, ("operator".to_owned(), None));
    let look = it.store.queue_look(&queue.keys).await.expect("an answer");
    assert_eq!(look.pause.map(|pause| pause.why).as_deref(), Some("operator"));
    assert!(look.oldest.is_some_and(|oldest| oldest < PATIENCE), "{:?}", look.oldest);
    assert_eq!(it.store.queue_resume(&queue.keys).await, Ok(true));
    assert_eq!(it.store.queue_resume(&queue.keys).await, Ok(false));
    // One with an end ends.
    assert!(pause("upstream", Some(BLINK)).await);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match queue.try_take(take).await {
            Taken::Paused(_) => assert!(tokio::time::Instant::now() < deadline, "it does not end"),
            Taken::Items { claims, .. } => {
                assert_eq!(ids(&claims), [id]);
                break;
            }
            other @ Taken::Reset { .. } => panic!("{other:?}"),
        }
    }
}

async fn a_list_shows_each_item_once(it: Subject) {
    let queue = Queue::of(&it);
    let mut put = Vec::new();
    for number in 0..2 * QUEUE_PAGE + 30 {
        let order = if number % 2 == 0 { None } else { Some("0f") };
        put.push(queue.put(Of { order, ..Of::default() }).await);
    }
    let all = async |state: Option<ItemState>| {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = it.store.queue_list(&queue.keys, state, after.as_ref()).await;
            let page = page.expect("a page");
            assert!(page.items.len() <= QUEUE_PAGE);
            found.extend(page.items);
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    };
    let sorted = |items: &[Item]| {
        let mut ids: Vec<_> = items.iter().map(|item| item.id).collect();
        ids.sort_unstable();
        ids
    };
    let mut expected = put.clone();
    expected.sort_unstable();
    assert_eq!(sorted(&all(None).await), expected);
    let behind = all(Some(ItemState::Behind)).await;
    assert_eq!(behind.len(), QUEUE_PAGE + 14);
    assert!(behind.iter().all(|item| item.state == ItemState::Behind));
    assert_eq!(all(Some(ItemState::Waiting)).await.len(), QUEUE_PAGE + 16);
    assert_eq!(all(Some(ItemState::Done)).await, []);
    // Where the one behind which it goes on has gone, nothing that is there is passed over.
    let first = it.store.queue_list(&queue.keys, None, None).await.expect("a page");
    let last = first.next.expect("more");
    assert_eq!(queue.cancel(&last).await, Cancelled::Cancelled);
    for claim in queue.take(QUEUE_PAGE / 2).await {
        assert_eq!(queue.settle(&claim.hold, Outcome::Done).await, WRITTEN);
    }
    let (mut rest, mut after) = (Vec::new(), Some(last));
    while after.is_some() {
        let page = it.store.queue_list(&queue.keys, None, after.as_ref()).await.expect("a page");
        rest.extend(page.items.into_iter().map(|item| item.id));
        after = page.next;
    }
    let shown: Vec<_> = first.items.into_iter().map(|item| item.id).collect();
    for item in all(None).await {
        assert!(shown.contains(&item.id) || rest.contains(&item.id), "{item:?} is passed over");
    }
}
