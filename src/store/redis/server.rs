//! One Redis server, and each thread's connection to it.

use std::sync::{Arc, OnceLock};

use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::eviction;
use super::history_watch;
use super::link::{self, Link};
use super::node::Node;
use super::scripts::{Forgotten, Scripts};
use crate::base::shard::{self, SHARDS};
use crate::config;
use crate::store::StoreError;

/// See the module. Its connections end with it.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) node: Arc<Node>,
    /// For whoever asks from a thread that did not join, or whose own connection does not stand.
    home: Arc<Link>,
    joined: Box<[OnceLock<Arc<Link>>]>,
}

impl Server {
    /// Begins to connect; returns before there is a connection. Must be called within a tokio
    /// runtime that outlives all threads that join.
    pub(super) fn start(settings: &config::Store, node: Node, scripts: &Arc<Scripts>) -> Self {
        let node = Arc::new(node);
        let home = Link::start(settings, &node, scripts);
        tokio::spawn(link::keep_time(Arc::downgrade(&home)));
        tokio::spawn(eviction::watch(Arc::downgrade(&home), Arc::clone(&node.says)));
        let doubt = Arc::clone(&node.doubt);
        tokio::spawn(history_watch::watch(Arc::downgrade(&home), settings.clone(), doubt));
        let joined = (0..SHARDS).map(|_| OnceLock::new()).collect();
        Self { node, home, joined }
    }

    /// Gives the current thread a connection of its own, driven by its own runtime.
    pub(super) fn join(&self, settings: &config::Store, scripts: &Arc<Scripts>) {
        self.joined[shard::mine()].get_or_init(|| Link::start(settings, &self.node, scripts));
    }

    /// What the current thread asks on: its own connection, else what no thread owns, else any that
    /// stands. What was begun on one that is back must not fail because another one is not yet.
    pub(super) fn link(&self) -> &Arc<Link> {
        match self.joined[shard::mine()].get() {
            Some(own) if own.is_up() => own,
            _ if self.home.is_up() => &self.home,
            own => {
                let up = self.joined.iter().filter_map(OnceLock::get).find(|link| link.is_up());
                up.or(own).unwrap_or(&self.home)
            }
        }
    }

    /// One exchange on the current thread's connection, and another one for scripts that the server
    /// has forgotten.
    ///
    /// # Errors
    /// As [`Link::exchange`].
    pub(super) async fn exchange(
        &self,
        pipeline: &mut Pipeline,
        scripts: &Scripts,
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        let link = self.link();
        let mut replies = link.exchange(pipeline, deadline).await?;
        if let Some(forgotten) = Forgotten::among(&replies) {
            let mut again = forgotten.again(pipeline, scripts);
            let second = Box::pin(link.exchange(&mut again, deadline)).await?;
            forgotten.merge(&mut replies, second);
        }
        Ok(replies)
    }

    /// What no request waits for.
    pub(super) fn home(&self) -> &Arc<Link> {
        &self.home
    }

    /// Returns once the current thread's own connection stands, where it has one.
    pub(super) async fn connected(&self) {
        self.joined[shard::mine()].get().unwrap_or(&self.home).connected().await;
    }
}
