//! What a queue holds, looked at once a second for metrics and operators, who are warned when it is
//! too much.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Queue;
use crate::observe::QueueNow;
use crate::runtime::{Gateway, Running};
use crate::store::keys::QueueKeys;
use crate::store::queue::{ItemState, QueueLook, ShardUse};

/// How often shards beyond those that a queue has are asked whether they hold something, where they
/// held nothing: a gateway of another configuration may fill them.
const BEYOND_PAUSE: Duration = Duration::from_secs(10);

/// The shards beyond those that a queue has, as they were found last.
#[derive(Default)]
pub(super) struct Beyond {
    /// How many it had then.
    shards: u8,
    /// Those that held something.
    used: Vec<QueueKeys>,
    /// They held nothing, as each of them said, and need not be asked before that.
    empty_until: Option<Instant>,
}

impl Beyond {
    /// Asks them, where something may have changed.
    async fn ask(&mut self, gateway: &Gateway, running: &Running, (name, queue): (&str, &Queue)) {
        let is_due = self.empty_until.is_none_or(|until| Instant::now() >= until);
        if self.shards == queue.shards && !is_due {
            return;
        }
        let all = gateway.store.queue_beyond(&running.plan.keys, name, queue.shards).await;
        let known = all.iter().filter_map(|(keys, it)| Some((keys.shard, it.as_ref().ok()?)));
        let known = known.map(|(shard, it)| (shard, it.is_open));
        let state = gateway.deliveries.queue(name);
        state.note_beyond((0..queue.shards).map(|shard| (shard, false)).chain(known));
        let is_empty = all.iter().all(|(_, it)| it.as_ref().is_ok_and(|it| !it.is_used()));
        self.empty_until = is_empty.then(|| Instant::now() + BEYOND_PAUSE);
        let used = all.into_iter().filter(|(_, it)| it.as_ref().is_ok_and(ShardUse::is_used));
        self.used = used.map(|(keys, _)| keys).collect();
        self.shards = queue.shards;
    }
}

/// Looks at a queue. Where no shard of it answers, what was seen last stays; where some do, these
/// are what is seen.
pub(super) async fn look(
    gateway: &Gateway,
    running: &Running,
    (name, queue): (&str, &Queue),
    beyond: &mut Beyond,
) {
    let state = gateway.deliveries.queue(name);
    beyond.ask(gateway, running, (name, queue)).await;
    let own = (0..queue.shards).map(|shard| running.plan.keys.queue(name, shard));
    let all: Vec<_> = own.chain(beyond.used.iter().cloned()).collect();
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
