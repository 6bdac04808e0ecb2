//! Where keys lie and how they are reached: whatever talks to Redis goes through here. Commands, of
//! questions and of everything else, by [`Topology::run`] and [`Topology::transact`]; who listens
//! for long has a connection of its own, by [`Topology::dial`].
//!
//! There is one server, be it the one that sentinels name (`sentinels`), or a Cluster of them
//! (`cluster`), in which the slot of a command's key says whose it is. Nobody
//! beside these files and those below them knows a server or a connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, PushInfo, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::common::Common;
use super::connect_error::ConnectError;
use super::connection::Connection;
use super::dial::{Call, Purpose};
use super::errand::Came;
use super::history::{self, Told};
use super::looking;
use super::node::{Lineages, Node};
use super::reply::server_error;
use super::says::Condition;
use super::scripts::Scripts;
use super::sentinels::Sentinels;
use super::server::Server;
use super::slots::key_of;
use super::state::{StoreState, WhyAway};
use super::stream::executed;
use super::torn;
use crate::config::{self, StoreUrl};
use crate::store::budget::{self, Waiting};
use crate::store::keys::slot;
use crate::store::lineage::Lineage;
use crate::store::{Reply, StoreError};

/// See the module.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) settings: config::Store,
    pub(super) scripts: Arc<Scripts>,
    pub(super) common: Arc<Common>,
    servers: Servers,
}

#[derive(Debug)]
enum Servers {
    One(Arc<Server>),
    Sentinel(Arc<Sentinels>),
    Cluster(Arc<Cluster>),
}

impl Topology {
    /// Begins to connect; returns before there is a connection. Must be called within a tokio
    /// runtime.
    pub(super) fn open(settings: &config::Store) -> Arc<Self> {
        let (scripts, common) = (Arc::new(Scripts::new()), Common::of(settings));
        let servers = match &settings.url {
            StoreUrl::Cluster { seeds } => {
                let cluster = Cluster::open(settings, &scripts, &common, seeds.clone());
                looking::start(&cluster);
                Servers::Cluster(cluster)
            }
            StoreUrl::Sentinel { sentinels, primary } => {
                Servers::Sentinel(Sentinels::open(settings, &scripts, &common, sentinels, primary))
            }
            url => {
                let node = Node::new(url, &common);
                Servers::One(Arc::new(Server::start(settings, node, &scripts)))
            }
        };
        Arc::new(Self { settings: settings.clone(), scripts, common, servers })
    }

    /// Gives the current thread connections of its own, driven by its own runtime.
    pub(super) async fn join(&self) {
        match &self.servers {
            Servers::One(server) => server.join(&self.settings, &self.scripts),
            Servers::Sentinel(sentinels) => sentinels.join(),
            Servers::Cluster(cluster) => cluster.join(),
        }
        self.first_connection(self.settings.connect_timeout).await;
    }

    /// Has the files of secrets looked at now, those for sentinels among them.
    pub(super) fn look_at_files(&self) {
        self.common.credentials.look.notify_one();
        if let Servers::Sentinel(sentinels) = &self.servers {
            sentinels.look_at_files.notify_one();
        }
    }

    /// The Redis Cluster, where it is one.
    pub(super) fn cluster(&self) -> Option<&Arc<Cluster>> {
        match &self.servers {
            Servers::One(_) | Servers::Sentinel(_) => None,
            Servers::Cluster(cluster) => Some(cluster),
        }
    }

    /// A server to try credentials on; nothing while none is known.
    pub(super) fn any_node(&self) -> Option<Arc<Node>> {
        let server = match &self.servers {
            Servers::One(server) => Arc::clone(server),
            Servers::Sentinel(sentinels) => sentinels.current()?,
            Servers::Cluster(cluster) => cluster.any()?,
        };
        Some(Arc::clone(&server.node))
    }

    /// Waits until the current thread can ask, for `timeout` at most. False when it cannot yet.
    pub(super) async fn first_connection(&self, timeout: Duration) -> bool {
        let connected = async {
            match &self.servers {
                Servers::One(server) => server.connected().await,
                Servers::Sentinel(sentinels) => sentinels.connected().await,
                Servers::Cluster(cluster) => cluster.connected().await,
            }
        };
        tokio::time::timeout(timeout, connected).await.is_ok()
    }

    /// Whether what is asked now would reach Redis; of a Cluster, any server of it.
    pub(super) fn is_connected(&self) -> bool {
        match &self.servers {
            Servers::One(server) => server.home().is_up(),
            Servers::Sentinel(sentinels) => sentinels.is_connected(),
            Servers::Cluster(cluster) => cluster.is_connected(),
        }
    }

    /// Those that are asked.
    pub(super) fn servers(&self) -> Vec<Arc<Server>> {
        match &self.servers {
            Servers::One(server) => vec![Arc::clone(server)],
            Servers::Sentinel(sentinels) => sentinels.current().into_iter().collect(),
            Servers::Cluster(cluster) => cluster.primaries(),
        }
    }

    /// Replicas that are read from.
    pub(super) fn readers(&self) -> Vec<Arc<Server>> {
        self.cluster().map(|cluster| cluster.readers()).unwrap_or_default()
    }

    /// Whether a server of a Redis Cluster has the slot.
    pub(super) fn has(&self, server: &Server, slot: u16) -> bool {
        let owner = self.cluster().and_then(|cluster| cluster.owner(slot));
        owner.is_some_and(|owner| std::ptr::eq(&*owner, server))
    }

    /// What the last attempt to reach a server of it found, unless one was reached since.
    pub(super) fn why_away(&self) -> Option<WhyAway> {
        self.common.why_away()
    }

    /// How its servers are, and what became of what was asked.
    pub(super) fn state(&self) -> StoreState {
        let common = &self.common;
        let (nodes, epoch) = match &self.servers {
            Servers::One(server) => (vec![server.node.state(true)], None),
            Servers::Sentinel(sentinels) => {
                (sentinels.current().iter().map(|server| server.node.state(true)).collect(), None)
            }
            Servers::Cluster(cluster) => (cluster.states(), Some(cluster.epoch())),
        };
        let redirects = common.redirects();
        let mut asked = common.tallies.sum();
        asked.open = asked.open.saturating_add(common.unowned());
        let found = common.found();
        let (checks, findings) = (found.checks(), found.findings());
        let most = common.credentials.max_in_flight();
        let in_flight = common.tallies.in_flight(u64::try_from(most).unwrap_or(u64::MAX));
        let reconnects = common.reconnects();
        StoreState { nodes, asked, in_flight, reconnects, redirects, epoch, checks, findings }
    }

    /// See [`crate::store::Store::clock_offset_ms`].
    pub(super) fn clock_offset_ms(&self) -> i64 {
        match &self.servers {
            Servers::One(server) => server.home().clock_offset_ms(),
            Servers::Sentinel(sentinels) => sentinels.clock_offset_ms(),
            Servers::Cluster(cluster) => cluster.clock_offset_ms(),
        }
    }

    /// When what is asked now must be answered, by what its request has left.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + budget::left(self.settings.timeout)
    }

    /// Begins to take of a request's budget for what must be answered by `deadline`.
    ///
    /// # Errors
    /// It is not asked any more.
    pub(super) fn wait(&self, deadline: Instant) -> Reply<Waiting> {
        Waiting::begin(deadline, self.settings.timeout)
    }

    /// Whether keys lie on several servers, so that what names several of them is cut by
    /// [`Self::place`].
    pub(super) fn is_spread(&self) -> bool {
        matches!(self.servers, Servers::Cluster(_))
    }

    /// Keys of the same place may stand in one command; the same number for all keys where
    /// everything lies on one server.
    pub(super) fn place(&self, key: &str) -> u16 {
        if self.is_spread() { slot(key.as_bytes()) } else { 0 }
    }

    /// A number that is the same for places of one server.
    pub(super) fn server(&self, place: u16) -> usize {
        match &self.servers {
            Servers::One(_) | Servers::Sentinel(_) => 0,
            Servers::Cluster(cluster) => cluster.server(place),
        }
    }

    /// Runs commands: one reply for each, in their order, errors of single commands among them. One
    /// exchange with each server that they name keys of, and another one for what surely did not
    /// run and can be repeated: scripts that a server has forgotten, and what it sent on.
    ///
    /// All keys of a command lie in one place, and so do those of a transaction.
    ///
    /// # Errors
    /// There is no connection, or no answer in time, or none that can be one to these commands; to
    /// any of them. Or its request has no time left to ask.
    pub(super) async fn run(
        &self,
        pipeline: &mut Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        let _waiting = self.wait(deadline)?;
        match &self.servers {
            Servers::One(server) => server.exchange(pipeline, &self.scripts, deadline).await,
            Servers::Sentinel(sentinels) => sentinels.run(pipeline, deadline).await,
            Servers::Cluster(cluster) => {
                Box::pin(cluster.run_apart(pipeline, deadline)).await.into_iter().collect()
            }
        }
    }

    /// The same, where what is not answered leaves the other commands as they are: the reply to
    /// each, or why there is none.
    pub(super) async fn run_apart(
        &self,
        pipeline: &mut Pipeline,
        deadline: Instant,
    ) -> Vec<Reply<Value>> {
        match &self.servers {
            Servers::One(_) | Servers::Sentinel(_) => match self.run(pipeline, deadline).await {
                Ok(replies) => replies.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error); pipeline.len()],
            },
            Servers::Cluster(cluster) => match self.wait(deadline) {
                Ok(_waiting) => Box::pin(cluster.run_apart(pipeline, deadline)).await,
                Err(error) => vec![Err(error); pipeline.len()],
            },
        }
    }

    /// Runs commands whose keys all lie on the server of `place`: one exchange with it, and others
    /// only for what it sent on.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(super) async fn run_at(
        &self,
        place: u16,
        pipeline: &mut Pipeline,
        deadline: Instant,
    ) -> Reply<Came> {
        match &self.servers {
            Servers::One(_) | Servers::Sentinel(_) => {
                self.run(pipeline, deadline).await.map(Came::Whole)
            }
            Servers::Cluster(cluster) => {
                let _waiting = self.wait(deadline)?;
                cluster.run_at(place, pipeline, deadline).await
            }
        }
    }

    /// Carries out changes of which each must succeed, in their order: one reply for each. Those of
    /// one place that stand together happen all at once.
    ///
    /// # Errors
    /// As [`Self::run`], or the first error among the replies. What stood before it has happened.
    pub(super) async fn transact(&self, changes: Vec<Cmd>) -> Result<Vec<Value>, StoreError> {
        let mut replies = Vec::with_capacity(changes.len());
        let mut changes = changes.into_iter().peekable();
        let place = |change: &Cmd| {
            if self.is_spread() { key_of(change).map(slot) } else { None }
        };
        while let Some(first) = changes.next() {
            let here = place(&first);
            let mut together = vec![first];
            while let Some(next) = changes.next_if(|next| place(next) == here) {
                together.push(next);
            }
            replies.extend(self.transact_at_once(together, self.deadline()).await?);
        }
        Ok(replies)
    }

    /// The same of changes whose order is of no account: those of one place happen all at once, and
    /// all places are asked at the same time, before `deadline`.
    ///
    /// # Errors
    /// Some were not carried out; all others were.
    pub(super) async fn transact_apart(
        &self,
        changes: Vec<Cmd>,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let mut places: BTreeMap<Option<u16>, Vec<Cmd>> = BTreeMap::new();
        for change in changes {
            let place = if self.is_spread() { key_of(&change).map(slot) } else { None };
            places.entry(place).or_default().push(change);
        }
        let all = places.into_values().map(|together| self.transact_at_once(together, deadline));
        join_all(all).await.into_iter().try_for_each(|done| done.map(drop))
    }

    async fn transact_at_once(
        &self,
        changes: Vec<Cmd>,
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        // All at once is more than can be had in a slot of a Cluster while it moves.
        let apart = (self.is_spread() && changes.len() > 1).then(|| changes.clone());
        let mut pipeline = Pipeline::with_capacity(changes.len() + 3);
        put_transaction(&mut pipeline, changes);
        let replies = executed(self.run(&mut pipeline, deadline).await?);
        let replies = match (replies, apart) {
            (Err(reply), Some(apart)) if torn::is_torn(&reply) => {
                let mut pipeline = Pipeline::with_capacity(apart.len() + 1);
                apart.into_iter().for_each(|change| {
                    pipeline.add_command(change);
                });
                Ok(self.run(&mut pipeline, deadline).await?)
            }
            (replies, _) => replies,
        };
        let replies = replies.map_err(|reply| {
            let unexpected = || StoreError::Refused("a transaction was not carried out".to_owned());
            server_error(&reply).unwrap_or_else(unexpected)
        })?;
        match replies.iter().find_map(server_error) {
            Some(error) => Err(error),
            None => Ok(replies),
        }
    }

    /// A connection for whoever listens for news of `key`, and of other keys where that one lies.
    /// `on_push` is as in [`Connection::start`]. Within `store.connect_timeout`.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn dial(
        &self,
        key: &str,
        purpose: Purpose,
        on_push: impl FnMut(PushInfo) + Send + 'static,
    ) -> Result<Connection, ConnectError> {
        let server = self.owner(key).ok_or(ConnectError::Timeout)?;
        self.dial_to(&server, purpose, on_push).await
    }

    /// The same to a server.
    pub(super) async fn dial_to(
        &self,
        server: &Server,
        purpose: Purpose,
        on_push: impl FnMut(PushInfo) + Send + 'static,
    ) -> Result<Connection, ConnectError> {
        let (settings, node) = (&self.settings, &*server.node);
        let material = &self.common.credentials.now();
        let attempt = Call { settings, node, material, purpose }.dial(on_push);
        let dialled = tokio::time::timeout(settings.connect_timeout, attempt).await;
        dialled.map_err(|_| ConnectError::Timeout)?
    }

    /// Whether replies say that `key` is on another server now. Whoever asks next asks there.
    pub(super) fn has_moved(&self, key: &str, replies: &[Value]) -> bool {
        match &self.servers {
            Servers::One(_) | Servers::Sentinel(_) => false,
            Servers::Cluster(cluster) => cluster.has_moved(slot(key.as_bytes()), replies),
        }
    }

    /// Tells when who listens must do so elsewhere. It is begun before [`Self::dial`], so that
    /// nothing is missed.
    pub(super) fn moves(&self) -> Moves {
        Moves(match &self.servers {
            Servers::Sentinel(sentinels) => Some(sentinels.moves()),
            Servers::One(_) | Servers::Cluster(_) => None,
        })
    }

    /// Whether `key` lies on that server of several.
    pub(super) fn lies_on(&self, key: &str, server: &str) -> bool {
        !self.is_spread() || self.owner(key).is_some_and(|it| it.node.share_name() == server)
    }

    /// What the server says of its history that was dialled for `key`.
    ///
    /// # Errors
    /// The connection failed, or another server has the key by now.
    pub(super) async fn history(
        &self,
        key: &str,
        connection: &Connection,
    ) -> Result<Told, ConnectError> {
        let server = self.owner(key).ok_or(ConnectError::Timeout)?;
        Ok(history::ask(connection, &self.settings, server.node.otherwise()).await?)
    }

    /// Of which history an answer about `key` would be now, as far as that is known.
    pub(super) fn lineage(&self, key: &str) -> Option<Lineage> {
        self.owner(key)?.link().lineage()
    }

    /// A reply about `key` had an impossible form: what comes next on that connection may be
    /// somebody else's, so it is given up.
    pub(super) fn distrust(&self, key: &str) -> StoreError {
        if let Some(server) = self.owner(key) {
            server.link().lose();
            server.node.says.note(Condition::ForeignReply);
        }
        StoreError::Unavailable
    }

    /// Who has these keys, each server once.
    pub(super) fn owners(&self, keys: &[String]) -> Vec<Arc<Server>> {
        let mut owners: Vec<Arc<Server>> = Vec::with_capacity(1);
        for owner in keys.iter().filter_map(|key| self.owner(key)) {
            if !owners.iter().any(|known| Arc::ptr_eq(known, &owner)) {
                owners.push(owner);
            }
        }
        owners
    }

    /// Which histories the server of `key` shows from now on; nothing while none is known.
    pub(super) fn lineages(&self, key: &str) -> Option<Lineages> {
        Some(self.owner(key)?.node.lineages())
    }

    /// Every server that has keys.
    pub(super) fn all(&self) -> Vec<Arc<Server>> {
        match &self.servers {
            Servers::One(server) => vec![Arc::clone(server)],
            Servers::Sentinel(sentinels) => sentinels.current().into_iter().collect(),
            Servers::Cluster(cluster) => cluster.primaries(),
        }
    }

    fn owner(&self, key: &str) -> Option<Arc<Server>> {
        match &self.servers {
            Servers::One(server) => Some(Arc::clone(server)),
            Servers::Sentinel(sentinels) => sentinels.current(),
            Servers::Cluster(cluster) => cluster.owner(slot(key.as_bytes())),
        }
    }
}

/// See [`Topology::moves`].
#[derive(Debug)]
pub(super) struct Moves(Option<watch::Receiver<u64>>);

impl Moves {
    /// Returns when another server is the primary.
    pub(super) async fn next(&mut self) {
        let is_moved = match &mut self.0 {
            Some(moves) => moves.changed().await.is_ok(),
            None => false,
        };
        if !is_moved {
            // It never does, or the store has ended, and whoever listens does too.
            std::future::pending::<()>().await;
        }
    }
}

/// Adds changes that happen all at once or not at all.
pub(super) fn put_transaction(pipeline: &mut Pipeline, changes: Vec<Cmd>) {
    pipeline.cmd("MULTI");
    for change in changes {
        pipeline.add_command(change);
    }
    pipeline.cmd("EXEC");
}
