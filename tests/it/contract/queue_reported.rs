//! What users of other queues have reported of them: each of it, asked of ours.

use std::time::Duration;

use portcullis::store::queue::{Accepted, Claim, Outcome, Take};

use super::queue_hands::{HOUR, Of, Queue, WRITTEN, ids};
use super::{Subject, over_all_stores};
use crate::support::PATIENCE;

over_all_stores![
    a_delay_of_many_leases_is_sent_once,
    what_waited_for_many_leases_unread_is_sent_once,
    what_waits_in_a_long_queue_is_under_no_lease,
];

/// As short as one may be for whoever holds it to be sure of it.
const LEASE: Duration = Duration::from_millis(10);

const SWEEP: Take<'static> = Take { node: "n1", most: 1, in_flight: 99, lease: LEASE, sweep: true };

/// Sweeps until there is something, which is done then; and what the clock of the store said.
async fn sent(queue: &Queue<'_>) -> (Claim, u64) {
    let (mut claims, now_ms) = queue.take_some(SWEEP).await;
    let claim = claims.remove(0);
    assert_eq!(queue.settle(&claim.hold, Outcome::Done).await, WRITTEN);
    (claim, now_ms)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("a short time")
}

/// A delay beyond the visibility timeout ran again and again: celery#2599, celery#5935, kombu#337.
async fn a_delay_of_many_leases_is_sent_once(it: Subject) {
    let queue = Queue::of(&it);
    let (id, accepted) = queue.accept(Of { delay: 10 * LEASE, ..Of::default() }).await;
    let Accepted::New { due_ms, .. } = accepted else { panic!("{accepted:?}") };
    let (claim, now_ms) = sent(&queue).await;
    assert!(now_ms >= due_ms, "{now_ms} {due_ms}");
    assert_eq!((claim.hold.id, claim.hold.token, claim.stalls), (id, 1, 0));
    assert_eq!(queue.counts().await, [0; 6]);
}

/// The deadline ran from when it was created: svix/omniqueue-rs#102.
async fn what_waited_for_many_leases_unread_is_sent_once(it: Subject) {
    let queue = Queue::of(&it);
    let (id, accepted) = queue.accept(Of::default()).await;
    let Accepted::New { accepted_ms, .. } = accepted else { panic!("{accepted:?}") };
    // Without a place for it, it is only looked at.
    let full = Take { in_flight: 0, ..SWEEP };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (claims, now_ms) = queue.look_and_take(full).await;
        assert_eq!(claims, []);
        if now_ms > accepted_ms + millis(3 * LEASE) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the clock of the store stands still");
        tokio::task::yield_now().await;
    }
    let (claim, _) = sent(&queue).await;
    assert_eq!((claim.hold.id, claim.hold.token, claim.stalls), (id, 1, 0));
    assert_eq!(queue.counts().await, [0; 6]);
}

/// A batch was taken that no worker could begin within the lease: openfaas/faas#408.
async fn what_waits_in_a_long_queue_is_under_no_lease(it: Subject) {
    let queue = Queue::of(&it);
    let mut put = Vec::new();
    for _ in 0..16 {
        put.push(queue.put(Of::default()).await);
    }
    let patient = Take { lease: HOUR, ..SWEEP };
    for id in put {
        let claims = queue.take_by(patient).await;
        assert_eq!((ids(&claims), claims[0].hold.token, claims[0].stalls), (vec![id], 1, 0));
        // One place: the others are claimed by nobody while this one takes its time.
        assert_eq!(queue.counts().await[3], 1);
        let full = Take { in_flight: 1, ..patient };
        assert_eq!(queue.take_by(full).await, []);
        assert_eq!(queue.settle(&claims[0].hold, Outcome::Done).await, WRITTEN);
    }
    assert_eq!(queue.counts().await, [0; 6]);
}
