//! Hears of changed epochs on a connection of its own (`CLIENT TRACKING ... BCAST`), so that this
//! node may know epochs without asking. No request ever waits for it.
//!
//! What the server pushes comes in order and before the answer to a later ROLE: a primary's says
//! that everything before it was heard. When the connection is lost, all is forgotten at once.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{PushInfo, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::connect_error::ConnectError;
use super::connection::Connection;
use super::dial::Purpose;
use super::ears::Marks;
use super::hear::{Heard, hear};
use super::link::BACKOFF_MIN;
use super::topology::Topology;
use crate::store::CachedReply;
use crate::store::keys::Keys;
use crate::store::known::{self, KnownEpochs};
use crate::store::lineage::{Known, Lineage};

/// Pause between two questions; some of them may be late before the silence is too long.
const PING_PAUSE: Duration = Duration::from_millis(250);

/// What is known of epochs without asking.
#[derive(Debug)]
pub(super) enum Tracker {
    /// Of one server: the table, and the task that keeps it, which ends with the tracker.
    One(Arc<KnownEpochs>),
    /// Of the servers of a Redis Cluster, each for itself.
    Cluster(Arc<Cluster>),
}

/// A moment; see [`KnownEpochs::mark`].
#[derive(Debug)]
pub(super) enum Mark {
    /// Of one server.
    One(known::Mark),
    /// Of the servers whose epochs are asked for.
    Each(Marks),
}

impl Tracker {
    /// Starts the task. Must be called within a tokio runtime.
    pub(super) fn start(topology: &Arc<Topology>) -> Self {
        if let Some(cluster) = topology.cluster() {
            cluster.follow_epochs();
            return Self::Cluster(Arc::clone(cluster));
        }
        let known = Arc::new(KnownEpochs::new(topology.settings.known_epochs));
        tokio::spawn(supervise(Arc::downgrade(&known), Arc::clone(topology)));
        Self::One(known)
    }

    pub(super) fn get(&self, keys: &[String]) -> Option<Vec<Known>> {
        match self {
            Self::One(known) => known.get(keys, Instant::now()),
            Self::Cluster(cluster) => cluster.known_epochs(keys, Instant::now()),
        }
    }

    pub(super) fn state(&self) -> (usize, bool) {
        match self {
            Self::One(known) => known.state_at(Instant::now()),
            Self::Cluster(cluster) => cluster.followed_epochs(Instant::now()),
        }
    }

    /// Before these are asked for.
    pub(super) fn mark(&self, keys: &[String]) -> Option<Mark> {
        match self {
            Self::One(known) => known.mark().map(Mark::One),
            Self::Cluster(cluster) => Some(Mark::Each(cluster.mark_epochs(keys))),
        }
    }

    pub(super) fn learn(&self, mark: Mark, keys: &[String], read: &CachedReply) {
        match (self, mark) {
            (Self::One(known), Mark::One(mark)) => known.learn(mark, keys, read.each()),
            (Self::Cluster(cluster), Mark::Each(marks)) => {
                cluster.learn_epochs(&marks, keys, read);
            }
            _ => {}
        }
    }

    pub(super) fn forget<'a>(&self, keys: impl Iterator<Item = &'a str>) {
        match self {
            Self::One(known) => known.forget(keys),
            Self::Cluster(cluster) => cluster.forget_epochs(keys),
        }
    }
}

/// Connects, listens until the connection is lost, and again. Ends when the table is dropped.
async fn supervise(known: Weak<KnownEpochs>, topology: Arc<Topology>) {
    let mut backoff = BACKOFF_MIN;
    let mut reported = false;
    for number in 0.. {
        let ear = Arc::new(Heard { number, closed: AtomicBool::new(false), lost: Notify::new() });
        let mut moves = topology.moves();
        let ended = tokio::select! {
            ended = listen(&known, &ear, &topology) => ended,
            () = moves.next() => Ok(()),
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
    ear: &Arc<Heard>,
    topology: &Topology,
) -> Result<(), ConnectError> {
    let patience = topology.settings.connect_timeout;
    let at = Instant::now();
    let base = Keys::new(&topology.settings.prefix).cache_base();
    let mut lineages = topology.lineages(&base).ok_or(ConnectError::Timeout)?;
    let attempt = connect(known, ear, topology);
    let (connection, lineage) =
        tokio::time::timeout(patience, attempt).await.map_err(|_| ConnectError::Timeout)??;
    let Some(table) = known.upgrade() else { return Ok(()) };
    table.begin((ear.number, lineage), &ear.closed, at);
    drop(table);
    tracing::info!("changes of epochs are followed");
    tokio::select! {
        () = stay(known, ear, &connection, patience) => {}
        // What it told, and what it goes on to tell, is of another history.
        () = lineages.left(lineage) => {}
    }
    Ok(())
}

/// Listens until the connection is lost, or is one to a replica.
async fn stay(known: &Weak<KnownEpochs>, ear: &Heard, connection: &Connection, patience: Duration) {
    loop {
        let sent = Instant::now();
        // One that is a replica by now would go on to answer, and tell of changes late.
        let role = redis::cmd("ROLE");
        let answered = tokio::time::timeout(patience, connection.run(&role)).await;
        let Some(table) = known.upgrade() else { return };
        match answered {
            Ok(Ok(role)) if is_primary(&role) => table.heard(sent),
            _ => return,
        }
        drop(table);
        tokio::select! {
            () = tokio::time::sleep(PING_PAUSE) => {}
            () = ear.lost.notified() => return,
        }
    }
}

async fn connect(
    known: &Weak<KnownEpochs>,
    ear: &Arc<Heard>,
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
