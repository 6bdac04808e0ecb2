//! Hears of changed epochs on a connection of its own (`CLIENT TRACKING ... BCAST`), so that this
//! node may know epochs without asking. No request ever waits for it.
//!
//! What the server pushes comes in order and before the answer to a later ROLE: a primary's says
//! that everything before it was heard. When the connection is lost, all is forgotten at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connect_error::ConnectError;
use super::connection::Connection;
use super::dial::Purpose;
use super::link::BACKOFF_MIN;
use super::topology::Topology;
use crate::store::CachedReply;
use crate::store::keys::Keys;
use crate::store::known::KnownEpochs;
use crate::store::lineage::{Known, Lineage};

pub(super) use crate::store::known::Mark;

/// Pause between two questions; some of them may be late before the silence is too long.
const PING_PAUSE: Duration = Duration::from_millis(250);

/// The table, and the task that keeps it; the task ends when the tracker is dropped.
#[derive(Debug)]
pub(super) struct Tracker {
    known: Arc<KnownEpochs>,
}

impl Tracker {
    /// Starts the task. Must be called within a tokio runtime.
    pub(super) fn start(topology: &Arc<Topology>) -> Self {
        let known = Arc::new(KnownEpochs::new(topology.settings.known_epochs));
        tokio::spawn(supervise(Arc::downgrade(&known), Arc::clone(topology)));
        Self { known }
    }

    pub(super) fn get(&self, keys: &[String]) -> Option<Vec<Known>> {
        self.known.get(keys, Instant::now())
    }

    pub(super) fn state(&self) -> (usize, bool) {
        self.known.state_at(Instant::now())
    }

    pub(super) fn mark(&self) -> Option<Mark> {
        self.known.mark()
    }

    pub(super) fn learn(&self, mark: Mark, keys: &[String], read: &CachedReply) {
        self.known.learn(mark, keys, read);
    }

    pub(super) fn forget<'a>(&self, keys: impl Iterator<Item = &'a str>) {
        self.known.forget(keys);
    }
}

/// One connection.
struct Ear {
    number: u64,
    /// Set before the table is told.
    closed: AtomicBool,
    /// Wakes the task.
    lost: Notify,
}

/// Connects, listens until the connection is lost, and again. Ends when the table is dropped.
async fn supervise(known: Weak<KnownEpochs>, topology: Arc<Topology>) {
    let mut backoff = BACKOFF_MIN;
    let mut reported = false;
    for number in 0.. {
        let ear = Arc::new(Ear { number, closed: AtomicBool::new(false), lost: Notify::new() });
        let mut moves = topology.moves();
        let mut changes = topology.credentials.histories.changes();
        let ended = tokio::select! {
            ended = listen(&known, &ear, &topology) => ended,
            () = moves.next() => Ok(()),
            // What it told, and what it goes on to tell, is of another history.
            Some(_) = changes.next() => Ok(()),
        };
        let Some(strong) = known.upgrade() else { return };
        strong.end(number);
        drop(strong);
        match ended {
            Ok(()) => {
                tracing::warn!("changes of epochs are not heard; the cache asks for each request");
                backoff = BACKOFF_MIN;
                reported = false;
            }
            Err(error) if !reported => {
                tracing::warn!(
                    %error,
                    "changes of epochs cannot be followed; trying on \
                     (docs/redis.md names the rights that the Redis user needs)"
                );
                reported = true;
            }
            Err(_) => {}
        }
        // Jitter keeps a fleet from knocking in step.
        tokio::time::sleep(backoff.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        backoff = (backoff * 2).min(topology.settings.reconnect_backoff);
    }
}

/// Listens until the connection is lost; an error when it never told of anything.
async fn listen(
    known: &Weak<KnownEpochs>,
    ear: &Arc<Ear>,
    topology: &Topology,
) -> Result<(), ConnectError> {
    let patience = topology.settings.connect_timeout;
    let at = Instant::now();
    let attempt = connect(known, ear, topology);
    let (connection, lineage) =
        tokio::time::timeout(patience, attempt).await.map_err(|_| ConnectError::Timeout)??;
    let Some(table) = known.upgrade() else { return Ok(()) };
    table.begin((ear.number, lineage), &ear.closed, at);
    drop(table);
    tracing::info!("changes of epochs are followed");
    loop {
        let sent = Instant::now();
        // One that is a replica by now would go on to answer, and tell of changes late.
        let role = redis::cmd("ROLE");
        let answered = tokio::time::timeout(patience, connection.run(&role)).await;
        let Some(table) = known.upgrade() else { return Ok(()) };
        match answered {
            Ok(Ok(role)) if is_primary(&role) => table.heard(sent),
            _ => return Ok(()),
        }
        drop(table);
        tokio::select! {
            () = tokio::time::sleep(PING_PAUSE) => {}
            () = ear.lost.notified() => return Ok(()),
        }
    }
}

async fn connect(
    known: &Weak<KnownEpochs>,
    ear: &Arc<Ear>,
    topology: &Topology,
) -> Result<(Connection, Lineage), ConnectError> {
    let (known, heard_by) = (Weak::clone(known), Arc::clone(ear));
    let on_push = move |push: PushInfo| hear(&known, &heard_by, &push);
    let keys = Keys::new(&topology.settings.prefix);
    let (epochs, base) = (keys.cache_epochs(), keys.cache_base());
    let connection = topology.dial(&base, Purpose::Epochs, on_push).await?;
    let mut tracking = redis::cmd("CLIENT");
    tracking.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(epochs);
    connection.run(&tracking).await?;
    let told = topology.history(&base, &connection).await?;
    Ok((connection, told.lineage().ok_or(ConnectError::Replica)?))
}

/// Whether the answer to ROLE is a primary's.
fn is_primary(role: &Value) -> bool {
    let Value::Array(parts) = role else { return false };
    matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master")
}

/// Takes what the server pushed out of the table, before anything that it sent later is read.
fn hear(known: &Weak<KnownEpochs>, ear: &Ear, push: &PushInfo) {
    let Some(known) = known.upgrade() else { return };
    match push.kind {
        PushKind::Disconnection => {
            ear.closed.store(true, Ordering::Release);
            known.end(ear.number);
            ear.lost.notify_one();
        }
        PushKind::Invalidate => match changed(push) {
            Some(keys) => known.forget(keys.into_iter()),
            // All was flushed, or it is said in a way that is not known here.
            None => known.forget_all(),
        },
        _ => {}
    }
}

/// The keys that changed; nothing when they are not named.
fn changed(push: &PushInfo) -> Option<Vec<&str>> {
    let [Value::Array(keys)] = push.data.as_slice() else { return None };
    keys.iter()
        .map(|key| match key {
            Value::BulkString(key) => std::str::from_utf8(key).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_everything() {
        let text = |key: &str| Value::BulkString(key.as_bytes().to_vec());
        let push = |data| PushInfo { kind: PushKind::Invalidate, data };
        let named = push(vec![Value::Array(vec![text("a"), text("b")])]);
        assert_eq!(changed(&named), Some(vec!["a", "b"]));
        for odd in [
            vec![],
            vec![Value::Nil],
            vec![Value::Array(vec![text("a"), Value::Int(1)])],
            vec![Value::Array(vec![Value::BulkString(vec![0xFF])])],
        ] {
            assert_eq!(changed(&push(odd.clone())), None, "{odd:?}");
        }
    }
}
