//! Where keys lie and how they are reached: whatever talks to Redis goes through here. Commands, of
//! questions and of everything else, by [`Topology::run`] and [`Topology::transact`]; who listens
//! for long has a connection of its own, by [`Topology::dial`].
//!
//! Today there is one server, and each thread has a connection to it. What knows several (a
//! Cluster, by the slots of keys; Sentinel, by who is the primary now) goes behind the same face:
//! nobody beside this file and below it knows a server or a connection.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::{Cmd, Pipeline, PushInfo, Value};
use tokio::time::Instant;

use super::connect_error::ConnectError;
use super::connection::Connection;
use super::credentials::Credentials;
use super::dial::{Call, Purpose};
use super::eviction;
use super::link::{self, Link};
use super::node::Node;
use super::renewal;
use super::reply::server_error;
use super::says::Condition;
use super::scripts::{Forgotten, Scripts};
use super::stream::executed;
use crate::base::shard::{self, SHARDS};
use crate::config;
use crate::store::StoreError;

/// See the module.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) settings: config::Store,
    pub(super) scripts: Arc<Scripts>,
    credentials: Arc<Credentials>,
    node: Arc<Node>,
    /// For whoever asks from a thread that did not join.
    home: Arc<Link>,
    joined: Box<[OnceLock<Arc<Link>>]>,
}

impl Topology {
    /// Begins to connect; returns before there is a connection. Must be called within a tokio
    /// runtime.
    pub(super) fn open(settings: &config::Store) -> Arc<Self> {
        let credentials = Credentials::of(settings);
        let node = Arc::new(Node::new(&settings.url, &credentials));
        let scripts = Arc::new(Scripts::new());
        let home = Link::start(settings, &node, &scripts);
        tokio::spawn(link::keep_time(Arc::downgrade(&home)));
        tokio::spawn(eviction::watch(Arc::downgrade(&home), Arc::clone(&node.says)));
        if credentials.have_files() {
            let (files, node) = (Arc::downgrade(&credentials), Arc::downgrade(&node));
            tokio::spawn(renewal::follow(files, node, settings.clone()));
        }
        Arc::new(Self {
            settings: settings.clone(),
            credentials,
            scripts,
            node,
            home,
            joined: (0..SHARDS).map(|_| OnceLock::new()).collect(),
        })
    }

    /// Gives the current thread connections of its own, driven by its own runtime.
    pub(super) async fn join(&self) {
        let start = || Link::start(&self.settings, &self.node, &self.scripts);
        self.joined[shard::mine()].get_or_init(start);
        self.first_connection(self.settings.connect_timeout).await;
    }

    /// Has the files of secrets looked at now.
    pub(super) fn look_at_files(&self) {
        self.credentials.look.notify_one();
    }

    /// Waits until the current thread can ask, for `timeout` at most. False when it cannot yet.
    pub(super) async fn first_connection(&self, timeout: Duration) -> bool {
        tokio::time::timeout(timeout, self.link().connected()).await.is_ok()
    }

    /// Whether what is asked now would reach Redis.
    pub(super) fn is_connected(&self) -> bool {
        self.home.get().is_some()
    }

    /// See [`crate::store::Store::clock_offset_ms`].
    pub(super) fn clock_offset_ms(&self) -> i64 {
        self.home.clock_offset_ms()
    }

    /// When what is asked now must be answered.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.settings.timeout
    }

    /// Runs commands: one reply for each, in their order, errors of single commands among them. One
    /// exchange, and another one for what surely did not run and can be repeated: scripts that the
    /// server has forgotten.
    ///
    /// # Errors
    /// There is no connection, or no answer in time, or none that can be one to these commands.
    pub(super) async fn run(
        &self,
        pipeline: &mut Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        let mut replies = self.link().exchange(pipeline, deadline).await?;
        if let Some(forgotten) = Forgotten::among(&replies) {
            let mut again = forgotten.again(pipeline, &self.scripts);
            let second = Box::pin(self.link().exchange(&mut again, deadline)).await?;
            forgotten.merge(&mut replies, second);
        }
        Ok(replies)
    }

    /// Carries out changes of which each must succeed, all at once: one reply for each.
    ///
    /// # Errors
    /// As [`Self::run`], or the first error among the replies.
    pub(super) async fn transact(&self, changes: Vec<Cmd>) -> Result<Vec<Value>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(changes.len() + 3);
        put_transaction(&mut pipeline, changes);
        let replies = executed(self.run(&mut pipeline, self.deadline()).await?);
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
        _key: &str,
        purpose: Purpose,
        on_push: impl FnMut(PushInfo) + Send + 'static,
    ) -> Result<Connection, ConnectError> {
        let (settings, node) = (&self.settings, &*self.node);
        let material = &self.credentials.now();
        let attempt = Call { settings, node, material, purpose }.dial(on_push);
        let dialled = tokio::time::timeout(settings.connect_timeout, attempt).await;
        dialled.map_err(|_| ConnectError::Timeout)?
    }

    /// A reply about `key` had an impossible form: what comes next on that connection may be
    /// somebody else's, so it is given up.
    pub(super) fn distrust(&self, _key: &str) -> StoreError {
        self.link().lose();
        self.node.says.note(Condition::ForeignReply);
        StoreError::Unavailable
    }

    fn link(&self) -> &Arc<Link> {
        self.joined[shard::mine()].get().unwrap_or(&self.home)
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
