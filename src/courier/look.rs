//! What a queue holds, looked at once a second for metrics and operators, who are warned when it is
//! too much.

use crate::config::{QUEUE_SHARDS_MAX, Queue};
use crate::observe::QueueNow;
use crate::runtime::{Gateway, Running};
use crate::store::queue::{ItemState, QueueLook, ShardUse};

/// Looks at a queue. Where no shard of it answers, what was seen last stays; where some do, these
/// are what is seen.
pub(super) async fn look(gateway: &Gateway, running: &Running, name: &str, queue: &Queue) {
    let state = gateway.deliveries.queue(name);
    let beyond: Vec<_> = (queue.shards..QUEUE_SHARDS_MAX)
        .map(|shard| running.plan.keys.queue(name, shard))
        .collect();
    let uses = gateway.store.queue_uses(&beyond).await;
    let known = beyond.iter().zip(&uses);
    let known = known.filter_map(|(keys, it)| Some((keys.shard, it.as_ref().ok()?.is_open)));
    state.note_beyond((0..queue.shards).map(|shard| (shard, false)).chain(known));
    let mut all: Vec<_> =
        (0..queue.shards).map(|shard| running.plan.keys.queue(name, shard)).collect();
    let is_used = |it: &ShardUse| it.is_open || it.has_dead;
    let used = beyond.into_iter().zip(uses).filter(|(_, it)| it.as_ref().is_ok_and(is_used));
    all.extend(used.map(|(keys, _)| keys));
    let Ok(looked) = gateway.store.queue_look_all(&all).await else { return };
    let now = now(name, queue, &looked);
    if state.looked(now) {
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
