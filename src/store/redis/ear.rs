//! Hears of changed epochs of one primary of a Redis Cluster, so that this node may know epochs
//! that lie there without asking. No request ever waits for it.
//!
//! A server tells of changes of the keys that it has, and of none that it has not. So whatever is
//! asked again and again on that connection is not only whether it still tells: it says which slots
//! it has, and which of them stay. Only in those is anything known. A key of a slot that is moving
//! may come to be on the other side, of which this one says nothing; and an epoch that is absent
//! moves without a word.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{Pipeline, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connect_error::ConnectError;
use super::connection::Connection;
use super::dial::{Call, Purpose};
use super::hear::{Heard, hear};
use super::history;
use super::link::BACKOFF_MIN;
use super::node::Node;
use super::slots::text;
use crate::config;
use crate::store::keys::{Keys, SLOTS, slot};
use crate::store::known::{KnownEpochs, Mark};
use crate::store::lineage::{Known, Lineage};

/// Pause between two questions; one of them may be late before the silence is too long.
const LOOK_PAUSE: Duration = Duration::from_millis(400);

/// See the module. Its task ends with it.
#[derive(Debug)]
pub(super) struct Ear {
    known: Arc<KnownEpochs>,
    /// What the server has, as it said last.
    kept: ArcSwapOption<Kept>,
}

impl Ear {
    /// Begins to listen; returns before there is a connection. `most` epochs are known at a time.
    /// Must be called within a tokio runtime.
    pub(super) fn start(settings: &config::Store, node: &Arc<Node>, most: usize) -> Arc<Self> {
        let known = Arc::new(KnownEpochs::new(most.max(1)));
        let ear = Arc::new(Self { known, kept: ArcSwapOption::empty() });
        let listener = Listener {
            ear: Arc::downgrade(&ear),
            settings: settings.clone(),
            node: Arc::clone(node),
        };
        tokio::spawn(listener.supervise());
        ear
    }

    /// All of these, if all are known now.
    pub(super) fn get(&self, keys: &[String], now: Instant) -> Option<Vec<Known>> {
        let kept = self.kept.load();
        let kept = kept.as_ref()?;
        let all_stay = keys.iter().all(|key| kept.has(slot(key.as_bytes())));
        all_stay.then(|| self.known.get(keys, now)).flatten()
    }

    /// How many are known, and whether the server tells of changes.
    pub(super) fn state(&self, now: Instant) -> (usize, bool) {
        self.known.state_at(now)
    }

    /// See [`KnownEpochs::mark`].
    pub(super) fn mark(&self) -> Option<Mark> {
        self.known.mark()
    }

    /// See [`KnownEpochs::learn`].
    pub(super) fn learn(&self, mark: Mark, keys: &[String], read: impl Iterator<Item = Known>) {
        self.known.learn(mark, keys, read);
    }

    /// See [`KnownEpochs::forget`].
    pub(super) fn forget<'a>(&self, keys: impl Iterator<Item = &'a str>) {
        self.known.forget(keys);
    }

    /// All that lies on this server may have changed, or lies elsewhere now.
    pub(super) fn forget_all(&self) {
        self.known.forget_all();
    }

    /// Another server answers for keys of this one: what is being read now is not kept.
    pub(super) fn doubt(&self) {
        self.known.forget(std::iter::empty());
    }

    /// Takes what the server says of itself at `asked`. False when it serves no more.
    fn confirm(&self, kept: Option<Kept>, asked: Instant) -> bool {
        let Some(kept) = kept else {
            self.kept.store(None);
            self.forget_all();
            return false;
        };
        if self.kept.load().as_deref() != Some(&kept) {
            // What left may come back, and what came may have been here before.
            self.kept.store(Some(Arc::new(kept)));
            self.forget_all();
        }
        self.known.heard(asked);
        true
    }
}

/// The slots that a server has and that stay there.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    id: String,
    slots: Box<[u64]>,
}

impl Kept {
    fn has(&self, slot: u16) -> bool {
        let word = self.slots.get(usize::from(slot / 64));
        word.is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    /// Of the answers to CLUSTER INFO and CLUSTER NODES; nothing where the cluster does not serve,
    /// or the server is no primary.
    fn read(info: &Value, nodes: &Value) -> Option<Self> {
        let is_ok = text(info)?.lines().any(|line| line.trim() == "cluster_state:ok");
        let mut own = text(nodes)?.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let flags = |words: &[&str]| words.get(2).map_or("", |it| *it).to_owned();
        let own = own.find(|words| flags(words).split(',').any(|flag| flag == "myself"))?;
        let is_primary = flags(&own).split(',').any(|flag| flag == "master");
        if !is_ok || !is_primary {
            return None;
        }
        let mut kept = Self {
            id: (*own.first()?).to_owned(),
            slots: vec![0; usize::from(SLOTS / 64)].into_boxed_slice(),
        };
        let mut moving = BTreeSet::new();
        for words in own.iter().skip(8) {
            if let Some(open) = words.strip_prefix('[') {
                moving.insert(open.split_once('-')?.0.parse::<u16>().ok()?);
                continue;
            }
            let (first, last) = words.split_once('-').unwrap_or((words, words));
            let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
            (first..=last.min(SLOTS - 1)).for_each(|slot| kept.set(slot, true));
        }
        moving.into_iter().for_each(|slot| kept.set(slot, false));
        Some(kept)
    }

    fn set(&mut self, slot: u16, is_there: bool) {
        if let Some(word) = self.slots.get_mut(usize::from(slot / 64)) {
            let bit = 1 << (slot % 64);
            *word = if is_there { *word | bit } else { *word & !bit };
        }
    }
}

/// Who listens.
struct Listener {
    ear: Weak<Ear>,
    settings: config::Store,
    node: Arc<Node>,
}

impl Listener {
    /// Connects, listens until the connection is lost, and again. Ends when the ear is dropped.
    async fn supervise(self) {
        let mut backoff = BACKOFF_MIN;
        let mut is_told = false;
        for number in 0.. {
            let heard =
                Arc::new(Heard { number, closed: AtomicBool::new(false), lost: Notify::new() });
            let ended = self.listen(&heard).await;
            let Some(ear) = self.ear.upgrade() else { return };
            ear.known.end(number);
            ear.kept.store(None);
            drop(ear);
            match ended {
                Ok(()) => {
                    tracing::warn!(
                        server = self.node.name(),
                        "changes of epochs are not heard; the cache asks for what lies there"
                    );
                    (backoff, is_told) = (BACKOFF_MIN, false);
                }
                Err(error) if !is_told => {
                    tracing::warn!(
                        %error,
                        server = self.node.name(),
                        "changes of epochs cannot be followed; trying on \
                         (docs/redis.md names the rights that the Redis user needs)"
                    );
                    is_told = true;
                }
                Err(_) => {}
            }
            // Jitter keeps a fleet from knocking in step.
            tokio::time::sleep(backoff.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            backoff = (backoff * 2).min(self.settings.reconnect_backoff);
        }
    }

    /// Connects, and listens until there is another history; else as [`Self::stay`].
    async fn listen(&self, heard: &Arc<Heard>) -> Result<(), ConnectError> {
        let patience = self.settings.connect_timeout;
        let mut lineages = self.node.lineages();
        let attempt = tokio::time::timeout(patience, self.connect(heard)).await;
        let (connection, lineage) = attempt.map_err(|_| ConnectError::Timeout)??;
        tokio::select! {
            ended = self.stay(heard, &connection, lineage) => ended,
            // What it told, and what it goes on to tell, is of another history.
            () = lineages.left(lineage) => Ok(()),
        }
    }

    /// Listens until the connection is lost; an error when it never told of anything.
    async fn stay(
        &self,
        heard: &Heard,
        connection: &Connection,
        lineage: Lineage,
    ) -> Result<(), ConnectError> {
        let patience = self.settings.connect_timeout;
        let mut has_begun = false;
        loop {
            let asked = Instant::now();
            let said = tokio::time::timeout(patience, said(connection)).await;
            let Some(ear) = self.ear.upgrade() else { return Ok(()) };
            let kept = match said {
                Ok(Ok(kept)) => kept,
                Ok(Err(error)) if !has_begun => return Err(error),
                Err(_) if !has_begun => return Err(ConnectError::Timeout),
                _ => return Ok(()),
            };
            if kept.as_ref().is_some_and(|kept| self.node.id().is_some_and(|id| id != kept.id)) {
                return if has_begun { Ok(()) } else { Err(ConnectError::Stranger) };
            }
            let serves = ear.confirm(kept, asked);
            if serves && !has_begun {
                has_begun = true;
                ear.known.begin((heard.number, lineage), &heard.closed, asked);
                tracing::info!(server = self.node.name(), "changes of epochs are followed");
            }
            drop(ear);
            tokio::select! {
                () = tokio::time::sleep(LOOK_PAUSE) => {}
                () = heard.lost.notified() => {
                    return if has_begun { Ok(()) } else { Err(ConnectError::Timeout) };
                }
            }
        }
    }

    async fn connect(&self, heard: &Arc<Heard>) -> Result<(Connection, Lineage), ConnectError> {
        let known = self.ear.upgrade().map(|ear| Arc::downgrade(&ear.known)).unwrap_or_default();
        let heard = Arc::clone(heard);
        let (settings, node) = (&self.settings, &*self.node);
        let material = &node.common.credentials.now();
        let call = Call { settings, node, material, purpose: Purpose::Epochs };
        let connection = call.dial(move |push| hear(&known, &heard, &push)).await?;
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX");
        tracking.arg(Keys::new(&settings.prefix).cache_epochs());
        connection.run(&tracking).await?;
        let told = history::ask(&connection, settings, node.otherwise()).await?;
        // Nothing is known of what a replica has, until it takes over.
        Ok((connection, told.lineage().ok_or(ConnectError::Replica)?))
    }
}

/// What the server says of itself. Whatever it pushed before was heard then.
async fn said(connection: &Connection) -> Result<Option<Kept>, ConnectError> {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd("CLUSTER").arg("INFO");
    pipeline.cmd("CLUSTER").arg("NODES");
    let mut replies = connection.send(&pipeline).await?.into_iter();
    let mut next = || replies.next().unwrap_or_default().extract_error();
    let (info, nodes) = (next()?, next()?);
    Ok(Kept::read(&info, &nodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "cluster_state:ok\r\ncluster_slots_assigned:16384\r\n";
    const OTHER: &str = "b2 127.0.0.1:2@12 master - 0 1 2 connected 100-199\n";

    fn read(info: &str, own: &str) -> Option<Kept> {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        Kept::read(&bulk(info), &bulk(&format!("{OTHER}a1 127.0.0.1:1@11,h {own}\n")))
    }

    #[test]
    fn a_server_keeps_what_it_has_and_does_not_give_away() {
        let open = "[7->-b2] [150-<-b2]";
        let own = format!("myself,master - 0 0 1 connected 0-9 77 16383 {open}");
        let kept = read(OK, &own).expect("a primary");
        assert_eq!(kept.id, "a1");
        for (slot, expected) in
            [(0, true), (7, false), (9, true), (10, false), (77, true), (150, false), (16383, true)]
        {
            assert_eq!(kept.has(slot), expected, "{slot}");
        }
        assert!(read(OK, "myself,master - 0 0 1 connected").is_some(), "it may have none");
    }

    #[test]
    fn who_does_not_serve_keeps_nothing() {
        let own = "myself,master - 0 0 1 connected 0-9";
        assert!(read(OK, own).is_some());
        assert!(read(&OK.replace("ok", "fail"), own).is_none());
        assert!(read(OK, &own.replace("master", "slave")).is_none());
        assert!(read(OK, &own.replace("myself,", "")).is_none());
        assert!(read(OK, "myself,master - 0 0 1 connected x-y").is_none());
        assert!(Kept::read(&Value::Nil, &Value::Nil).is_none());
    }
}
