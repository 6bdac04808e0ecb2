//! Hands of whoever accepts, takes and settles items of a queue under test.

use std::time::Duration;

use bytes::Bytes;
use portcullis::store::Store;
use portcullis::store::keys::{Keys, QueueKeys};
use portcullis::store::queue::{
    Accept, Accepted, After, Cancelled, Claim, DeliveryId, Hold, Item, ItemState, Outcome,
    QueueBounds, Requeued, Settle, Settled, Take, Taken,
};

use super::Subject;
use crate::support::PATIENCE;

pub(super) const HOUR: Duration = Duration::from_secs(3600);
/// A lease that has ended when anybody looks.
pub(super) const BLINK: Duration = Duration::from_millis(1);
pub(super) const ROOMY: QueueBounds =
    QueueBounds { items: 10_000, bytes: 1 << 20, ttl: Duration::from_secs(86_400) };

/// Bytes of the head of each item.
pub(super) const HEAD: u64 = 10;

pub(super) const WRITTEN: Settled = Settled::Written { dropped: 0, followed: 0 };
pub(super) const BACK: Outcome = Outcome::Back { delay: Duration::ZERO };

pub(super) fn ids(claims: &[Claim]) -> Vec<DeliveryId> {
    claims.iter().map(|claim| claim.hold.id).collect()
}

/// A queue of one law.
pub(super) struct Queue<'a> {
    pub(super) it: &'a Subject,
    pub(super) keys: QueueKeys,
    pub(super) bounds: QueueBounds,
}

/// What is different of an item.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Of<'a> {
    pub(super) key: Option<&'a str>,
    pub(super) fingerprint: &'a str,
    pub(super) body: &'static str,
    pub(super) order: Option<&'a str>,
    pub(super) delay: Duration,
    pub(super) id: Option<DeliveryId>,
}

pub(super) fn new_id() -> DeliveryId {
    let now = std::time::UNIX_EPOCH.elapsed().expect("a time after 1970");
    DeliveryId::new(0, now.as_millis() as u64).expect("random bytes")
}

/// An item with this body.
pub(super) fn one(body: &Bytes) -> Accept<'_> {
    Accept {
        id: new_id(),
        key: None,
        fingerprint: "f",
        key_ttl: HOUR,
        head: b"POST /mail",
        body,
        owner: "ada",
        order: None,
        delay: Duration::ZERO,
        max_age: HOUR,
        bounds: ROOMY,
    }
}

impl<'a> Queue<'a> {
    pub(super) fn of(it: &'a Subject) -> Self {
        Self { it, keys: Keys::new("app").queue("mail", 0), bounds: ROOMY }
    }

    pub(super) async fn accept(&self, of: Of<'_>) -> (DeliveryId, Accepted) {
        let id = of.id.unwrap_or_else(new_id);
        let Of { key, fingerprint, order, delay, .. } = of;
        let body = Bytes::from_static(of.body.as_bytes());
        let bounds = self.bounds;
        let accept = Accept { id, key, fingerprint, order, delay, bounds, ..one(&body) };
        (id, self.it.store.queue_accept(&self.keys, &accept).await.expect("an answer"))
    }

    /// Accepts what is new.
    pub(super) async fn put(&self, of: Of<'_>) -> DeliveryId {
        let (id, accepted) = self.accept(of).await;
        assert!(matches!(accepted, Accepted::New { .. }), "{accepted:?}");
        id
    }

    pub(super) async fn try_take(&self, take: Take<'_>) -> Taken {
        self.it.store.queue_take(&self.keys, take).await.expect("an answer")
    }

    pub(super) async fn take(&self, most: usize) -> Vec<Claim> {
        self.take_by(Take { node: "n1", most, in_flight: 100, lease: HOUR, sweep: false }).await
    }

    pub(super) async fn take_by(&self, take: Take<'_>) -> Vec<Claim> {
        self.look_and_take(take).await.0
    }

    /// What is taken, and what the clock of the store says.
    pub(super) async fn look_and_take(&self, take: Take<'_>) -> (Vec<Claim>, u64) {
        match self.try_take(take).await {
            Taken::Items { claims, now_ms, .. } => (claims, now_ms),
            other => panic!("{other:?}"),
        }
    }

    /// Takes until there is something.
    pub(super) async fn take_some(&self, take: Take<'_>) -> (Vec<Claim>, u64) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            match self.try_take(take).await {
                Taken::Items { claims, now_ms, .. } if !claims.is_empty() => {
                    return (claims, now_ms);
                }
                Taken::Items { .. } => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            }
        }
        panic!("in vain waited for an item");
    }

    /// Takes what somebody has claimed who is gone.
    pub(super) async fn take_over(&self, most: usize) -> Vec<Claim> {
        let take = Take { node: "n2", most, in_flight: 100, lease: BLINK, sweep: true };
        self.take_some(take).await.0
    }

    pub(super) async fn settle(&self, hold: &Hold, outcome: Outcome) -> Settled {
        let settle = Settle {
            hold,
            outcome,
            status: 0,
            error: "",
            answer: None,
            keep: HOUR,
            dead_most: 100,
            after: After::default(),
        };
        self.settle_with(settle).await
    }

    pub(super) async fn settle_with(&self, settle: Settle<'_>) -> Settled {
        self.it.store.queue_settle(&self.keys, settle).await.expect("an answer")
    }

    pub(super) async fn find(&self, id: &DeliveryId) -> Option<Item> {
        self.it.store.queue_find(&self.keys, id).await.expect("an answer")
    }

    pub(super) async fn state(&self, id: &DeliveryId) -> ItemState {
        self.find(id).await.expect("a record").state
    }

    pub(super) async fn body(&self, id: &DeliveryId) -> Option<Bytes> {
        self.it.store.queue_body(&self.keys, id).await.expect("an answer")
    }

    pub(super) async fn renew(&self, hold: &Hold) -> bool {
        self.it.store.queue_renew(&self.keys, &[hold]).await.expect("an answer") == [true]
    }

    pub(super) async fn cancel(&self, id: &DeliveryId) -> Cancelled {
        self.it.store.queue_cancel(&self.keys, id, HOUR).await.expect("an answer")
    }

    pub(super) async fn requeue(&self, id: &DeliveryId) -> Requeued {
        let requeue = self.it.store.queue_requeue(&self.keys, id, HOUR, self.bounds);
        requeue.await.expect("an answer")
    }

    /// Waiting, later, behind, delivering, dead, open.
    pub(super) async fn counts(&self) -> [u64; 6] {
        let look = self.it.store.queue_look(&self.keys).await.expect("an answer");
        [look.waiting, look.later, look.behind, look.delivering, look.dead, look.open]
    }

    pub(super) async fn bytes(&self) -> u64 {
        self.it.store.queue_look(&self.keys).await.expect("an answer").bytes
    }
}

/// Everything that is done with queues, for who looks at the rights that it takes.
pub(super) async fn everything(store: &Store) {
    let keys = Keys::new("app").queue("mail", 0);
    let take = Take { node: "n1", most: 9, in_flight: 9, lease: BLINK, sweep: true };
    assert!(store.queue_take(&keys, take).await.is_ok());
    for _ in 0..2 {
        let body = Bytes::from_static(b"one");
        let accept = Accept { order: Some("0f"), ..one(&body) };
        store.queue_accept(&keys, &accept).await.expect("an item");
    }
    store.queue_repair(&keys, Duration::ZERO).await.expect("a repair");
    for outcome in [BACK, Outcome::Dead, Outcome::Done] {
        let taken = store.queue_take(&keys, take).await;
        let Ok(Taken::Items { claims, .. }) = taken else { panic!("{taken:?}") };
        let hold = &claims.first().expect("a claim").hold;
        assert_eq!(store.queue_renew(&keys, &[hold]).await, Ok(vec![true]));
        let settle = Settle {
            hold,
            outcome,
            status: 0,
            error: "",
            answer: None,
            keep: HOUR,
            dead_most: 9,
            after: After::default(),
        };
        assert_eq!(store.queue_settle(&keys, settle).await, Ok(WRITTEN));
    }
    for id in store.queue_dead(&keys, Some(""), 9).await.expect("the dead") {
        let requeued = store.queue_requeue(&keys, &id, HOUR, ROOMY).await;
        assert_eq!(requeued, Ok(Requeued::Requeued));
        let page = store.queue_list(&keys, Some(ItemState::Waiting), Some(&id)).await;
        assert_eq!(page.expect("a page").items, []);
        assert_eq!(store.queue_cancel(&keys, &id, HOUR).await, Ok(Cancelled::Cancelled));
    }
    assert_eq!(store.queue_drop_dead(&keys).await, Ok(0));
    store.queue_look(&keys).await.expect("a look");
}
