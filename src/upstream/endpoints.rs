//! The servers of an upstream: which of them a request goes to, and a connection to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ClientConfig;
use tokio::time::Instant;

use super::balance;
use super::conn::{Connection, ConnectionCount};
use super::endpoint::{BusyGuard, Endpoint};
use super::failure::Failure;
use crate::config::{self, Balance};

/// All servers of one upstream.
#[derive(Debug)]
pub(super) struct Endpoints {
    settings: config::Upstream,
    all: Vec<Arc<Endpoint>>,
    /// Turns, for round-robin.
    turn: AtomicUsize,
    connections: Arc<ConnectionCount>,
}

impl Endpoints {
    /// Servers without connections yet.
    pub(super) fn new(settings: &config::Upstream, tls: Option<&Arc<ClientConfig>>) -> Self {
        let all = settings.servers.iter();
        let all = all.map(|server| Arc::new(Endpoint::new(server, settings, tls)));
        Self {
            all: all.collect(),
            turn: AtomicUsize::new(0),
            connections: ConnectionCount::new(settings.max_connections),
            settings: settings.clone(),
        }
    }

    /// What was configured.
    pub(super) fn settings(&self) -> &config::Upstream {
        &self.settings
    }

    /// All connections, in use and unused.
    pub(super) fn connections(&self) -> &ConnectionCount {
        &self.connections
    }

    /// Counts a request in at one of the servers, by its index.
    pub(super) fn enter(&self, at: usize) -> Option<BusyGuard> {
        self.all.get(at).map(Endpoint::enter)
    }

    /// The index of a server that was not tried yet, one that is not avoided before one that is.
    /// None where all were tried.
    pub(super) fn pick(&self, tried: &[usize]) -> Option<usize> {
        if self.all.len() == 1 {
            return tried.is_empty().then_some(0);
        }
        if tried.is_empty() && !self.all.iter().any(|endpoint| endpoint.health().is_avoided()) {
            return Some(self.balanced(self.all.len(), |at| &self.all[at]));
        }
        // Rare: a server is dead.
        let mut untried: Vec<usize> =
            (0..self.all.len()).filter(|at| !tried.contains(at)).collect();
        // A request that has met one dead server already is not to try another one.
        if tried.is_empty()
            && let Some(due) = untried.iter().find(|at| self.all[**at].health().is_due())
        {
            return Some(*due);
        }
        let is_healthy = |at: &usize| !self.all[*at].health().is_avoided();
        if untried.iter().any(is_healthy) {
            untried.retain(is_healthy);
        }
        let chosen = self.balanced(untried.len(), |at| &self.all[untried[at]]);
        untried.get(chosen).copied()
    }

    /// An unused connection of this thread's, or of any when no more may be made.
    pub(super) fn unused(&self, endpoint: &Endpoint) -> Option<Box<Connection>> {
        let any = || if self.connections.is_full() { endpoint.pool().take_any() } else { None };
        endpoint.pool().take_mine().or_else(any)
    }

    /// A new connection.
    ///
    /// # Errors
    /// [`Failure::Connect`], [`Failure::Tls`] and, after the deadline, [`Failure::ConnectTimeout`].
    pub(super) async fn dial(
        &self,
        endpoint: &Endpoint,
        deadline: Instant,
    ) -> Result<Box<Connection>, Failure> {
        if self.connections.is_full() {
            // Room is made by closing an unused connection, to whichever server. There is one: the
            // requests in progress are fewer than the connections.
            drop(self.all.iter().find_map(|endpoint| endpoint.pool().take_any()));
        }
        let counted = self.connections.add();
        let socket = endpoint.transport().connect(deadline).await?;
        Connection::over(socket, &self.settings, counted).await.map_err(Failure::Connect)
    }

    /// Closes unused connections that the server closed or that nobody used for `idle_timeout`.
    pub(super) fn sweep(&self) {
        for endpoint in &self.all {
            endpoint.pool().sweep(self.settings.idle_timeout);
        }
    }

    /// One of several servers, as `balance` says.
    fn balanced<'e>(&self, count: usize, server: impl Fn(usize) -> &'e Arc<Endpoint>) -> usize {
        match self.settings.balance {
            Balance::P2c => balance::less_busy_of_two(count, |at| server(at).load()),
            Balance::RoundRobin => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                balance::by_turn(count, turn, |at| server(at).weight())
            }
        }
    }
}
