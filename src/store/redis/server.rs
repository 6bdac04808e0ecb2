//! One Redis server, and each thread's connection to it.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::ear::Ear;
use super::eviction;
use super::history_watch;
use super::lanes::Lanes;
use super::link::{self, Link};
use super::node::Node;
use super::pulse;
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
    /// Whose connections are whose, where there are fewer than threads.
    lanes: Option<Lanes>,
    /// Who hears of changed epochs here, in a Redis Cluster.
    ear: ArcSwapOption<Ear>,
}

impl Server {
    /// Begins to connect; returns before there is a connection. Must be called within a tokio
    /// runtime that outlives all threads that join.
    pub(super) fn start(settings: &config::Store, node: Node, scripts: &Arc<Scripts>) -> Self {
        Self::start_with(settings, node, scripts, None)
    }

    /// The same, where not each thread that joins has a connection of its own.
    pub(super) fn start_with(
        settings: &config::Store,
        node: Node,
        scripts: &Arc<Scripts>,
        lanes: Option<Lanes>,
    ) -> Self {
        let node = Arc::new(node);
        let home = Link::start(settings, &node, scripts);
        tokio::spawn(link::keep_time(Arc::downgrade(&home)));
        tokio::spawn(pulse::watch(Arc::downgrade(&home), settings.clone()));
        tokio::spawn(eviction::watch(Arc::downgrade(&home), Arc::clone(&node.says)));
        let doubt = Arc::clone(&node.doubt);
        tokio::spawn(history_watch::watch(Arc::downgrade(&home), settings.clone(), doubt));
        let joined = (0..SHARDS).map(|_| OnceLock::new()).collect();
        Self { node, home, joined, lanes, ear: ArcSwapOption::empty() }
    }

    /// The same without the connections of threads: it is asked nothing any more, and what it is
    /// asked when it takes over again begins on the one that nobody owns.
    pub(super) fn unjoined(&self) -> Self {
        Self {
            node: Arc::clone(&self.node),
            home: Arc::clone(&self.home),
            joined: (0..SHARDS).map(|_| OnceLock::new()).collect(),
            lanes: self.lanes.clone(),
            ear: ArcSwapOption::empty(),
        }
    }

    /// Begins to hear of changed epochs here, or ends it: nothing is known of them then. Must be
    /// called within a tokio runtime.
    pub(super) fn listen(&self, start: Option<impl FnOnce(&Arc<Node>) -> Arc<Ear>>) {
        match start {
            Some(start) if self.ear.load().is_none() => self.ear.store(Some(start(&self.node))),
            Some(_) => {}
            None => self.ear.store(None),
        }
    }

    /// Who hears of changed epochs here.
    pub(super) fn ear(&self) -> Option<Arc<Ear>> {
        self.ear.load_full()
    }

    /// Gives the current thread a connection of its own, driven by its own runtime.
    pub(super) fn join(&self, settings: &config::Store, scripts: &Arc<Scripts>) {
        let (lane, is_own) = match &self.lanes {
            None => (shard::mine(), true),
            Some(lanes) => lanes.of(shard::mine()).unwrap_or_default(),
        };
        if is_own {
            self.joined[lane].get_or_init(|| Link::start(settings, &self.node, scripts));
        }
    }

    /// The connection of the threads that the current one is among, where they have one.
    fn own(&self) -> Option<&Arc<Link>> {
        let lane = match &self.lanes {
            None => shard::mine(),
            Some(lanes) => lanes.of(shard::mine())?.0,
        };
        self.joined[lane].get()
    }

    /// What the current thread asks on: its own connection, else what no thread owns, else any that
    /// stands. What was begun on one that is back must not fail because another one is not yet.
    pub(super) fn link(&self) -> &Arc<Link> {
        match self.own() {
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
        self.own().unwrap_or(&self.home).connected().await;
    }
}
