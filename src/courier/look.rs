//! What a queue holds, looked at once a second for metrics and operators, who are warned when it is
//! too much.

use crate::config::Queue;
use crate::observe::QueueNow;
use crate::runtime::{Gateway, Running};
use crate::store::queue::{ItemState, QueueLook};

/// The shard of a queue that has one.
const SHARD: u8 = 0;

/// Looks at a queue. Where the store does not answer, what was seen last stays.
pub(super) async fn look(gateway: &Gateway, running: &Running, name: &str, queue: &Queue) {
    let keys = running.plan.keys.queue(name, SHARD);
    let Ok(looked) = gateway.store.queue_look(&keys).await else { return };
    let now = now(name, queue, &looked);
    if gateway.deliveries.queue(name).looked(now) {
        tracing::warn!(
            queue = name,
            items = looked.open,
            oldest = ?looked.oldest.unwrap_or_default(),
            "more waits to be delivered than queues.{name}.warn allows\n    help: look at \
             `portcullis queues`: is its upstream away, or slower than what is accepted?"
        );
    }
}

fn now(name: &str, queue: &Queue, looked: &QueueLook) -> QueueNow {
    let items = vec![
        (ItemState::Waiting.word(), looked.waiting),
        ("later", looked.later),
        (ItemState::Behind.word(), looked.behind),
        (ItemState::Delivering.word(), looked.delivering),
        (ItemState::Dead.word(), looked.dead),
    ];
    let is_old = looked.oldest.is_some_and(|age| age > queue.warn.age);
    QueueNow {
        name: name.to_owned(),
        items,
        oldest: looked.oldest,
        bytes: looked.bytes,
        is_paused: looked.pause.is_some(),
        is_warned: is_old || looked.open > queue.warn.items,
    }
}
