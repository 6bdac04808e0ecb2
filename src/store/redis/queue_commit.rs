//! Waits until what was accepted is on replicas, or on the disk, for all who wait at the same time
//! together: one command for whoever came while the last one ran.
//!
//! WAIT and WAITAOF are about what was written, by whomever, before the last write on their own
//! connection (see `confirm`). So items are accepted on the connections of requests, and one of its
//! own does the waiting, behind one small write for all of them: Redis answers nothing else there
//! meanwhile. Who answers there may be another server by now, which was promoted or has started
//! anew without the item: so it is asked for the items first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::call::written;
use super::connection::Connection;
use super::dial::Purpose;
use super::reply::server_error;
use super::server::Server;
use super::topology::Topology;
use crate::store::StoreError;
use crate::store::queue::Durability;

/// Most who wait for one shard of a queue; one more is in doubt at once.
const WAITING_MAX: usize = 4096;
/// How much later than `store.replica_timeout` the answer of Redis may come.
const MARGIN: Duration = Duration::from_millis(150);
/// Pause between two lines of the log about the same refusal.
const SAID_PAUSE: Duration = Duration::from_secs(60);

/// An item, and who waits: he is told whether it is as durable as it is to be.
type Waiting = (String, oneshot::Sender<bool>);

/// The tasks that wait, by the shard and what they wait for.
#[derive(Debug, Default)]
pub(super) struct Commits(Mutex<HashMap<(String, Durability), mpsc::Sender<Waiting>>>);

impl Commits {
    /// Whether the item of this key, which was acknowledged before this call, is as durable as it
    /// is to be; `key` lies in its shard, and is written there. Must be called within a tokio
    /// runtime.
    pub(super) async fn wait(
        &self,
        topology: &Arc<Topology>,
        (key, item): (&str, String),
        durability: Durability,
    ) -> bool {
        let (tell, told) = oneshot::channel();
        match self.task(topology, key, durability).try_send((item, tell)) {
            Ok(()) => told.await.unwrap_or_default(),
            Err(_) => false,
        }
    }

    fn task(
        &self,
        topology: &Arc<Topology>,
        key: &str,
        durability: Durability,
    ) -> mpsc::Sender<Waiting> {
        let mut commits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = commits.entry((key.to_owned(), durability)).or_insert_with(|| {
            let (send, waiting) = mpsc::channel(WAITING_MAX);
            let commit = Commit { key: key.to_owned(), durability, at: None, said: None };
            tokio::spawn(commit.serve(Arc::downgrade(topology), waiting));
            send
        });
        known.clone()
    }
}

/// One task.
struct Commit {
    key: String,
    durability: Durability,
    at: Option<(Arc<Server>, Connection)>,
    said: Option<Instant>,
}

impl Commit {
    /// Ends with the store.
    async fn serve(mut self, topology: Weak<Topology>, mut waiting: mpsc::Receiver<Waiting>) {
        let mut together = Vec::new();
        while waiting.recv_many(&mut together, WAITING_MAX).await > 0 {
            let Some(topology) = topology.upgrade() else { return };
            let longest = topology.settings.replica_timeout.max(Duration::from_millis(1));
            let patience = longest + MARGIN + topology.settings.connect_timeout;
            let items: Vec<String> = together.iter().map(|(item, _)| item.clone()).collect();
            let commit = self.commit(&topology, &items, longest);
            let commit = tokio::time::timeout(patience, commit).await;
            let durable = commit.ok().flatten();
            if durable.is_none() {
                self.at = None;
            }
            let mut durable = durable.unwrap_or_default().into_iter();
            for (_, tell) in together.drain(..) {
                // Who does not wait any more needs no answer.
                let _ = tell.send(durable.next().unwrap_or_default());
            }
        }
    }

    /// Of each of these items, whether it is where it is to be; nothing where that is not known of
    /// any.
    async fn commit(
        &mut self,
        topology: &Topology,
        items: &[String],
        longest: Duration,
    ) -> Option<Vec<bool>> {
        let owner = topology.owners(std::slice::from_ref(&self.key)).into_iter().next()?;
        if self.at.as_ref().is_none_or(|(server, _)| !Arc::ptr_eq(server, &owner)) {
            let connection = topology.dial_to(&owner, Purpose::Wait, |_| {}).await.ok()?;
            self.at = Some((owner, connection));
        }
        let (_, connection) = self.at.as_ref()?;
        let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let mut pipeline = Pipeline::with_capacity(items.len() + 2);
        for item in items {
            pipeline.cmd("EXISTS").arg(item);
        }
        pipeline.add_command(written(&self.key));
        let wanted = match self.durability {
            Durability::Memory => return Some(vec![true; items.len()]),
            Durability::Replicas(replicas) => {
                pipeline.cmd("WAIT").arg(replicas).arg(longest);
                i64::from(replicas)
            }
            Durability::Fsync => {
                pipeline.cmd("WAITAOF").arg(1).arg(0).arg(longest);
                1
            }
        };
        let replies = connection.send(&pipeline).await.ok()?;
        let [exist @ .., write, have] = replies.as_slice() else { return None };
        let is_durable = match (write, have) {
            (Value::Okay, Value::Int(have)) => *have >= wanted,
            (Value::Okay, Value::Array(have)) => matches!(have.first(), Some(Value::Int(1))),
            // Without that write nobody has waited for anything.
            (write, have) => {
                self.say(server_error(write).or_else(|| server_error(have)));
                false
            }
        };
        let exist = exist.iter().map(|it| matches!(it, Value::Int(1)));
        is_durable.then(|| exist.collect())
    }

    /// Says why nothing can be waited for.
    fn say(&mut self, error: Option<StoreError>) {
        let Some(error) = error else { return };
        if self.said.is_none_or(|said| said.elapsed() >= SAID_PAUSE) {
            self.said = Some(Instant::now());
            tracing::warn!(%error, queue = self.key, "Redis cannot say what is durable");
        }
    }
}
