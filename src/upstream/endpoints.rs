//! The servers of an upstream: which of them a request goes to, and a connection to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

use super::balance;
use super::conn::{Carrier, Connection, ConnectionCount, Counted, Seat, Trunk, Trunks};
use super::endpoint::{BusyGuard, Endpoint};
use super::failure::Failure;
use super::retry_policy::RetryPolicy;
use crate::base::socket::Socket;
use crate::config::{self, Balance, Protocol};

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A request.
    Any,
    /// A request that a connection as old as others has not answered.
    New,
    /// A tunnel: `Upgrade` is HTTP/1.1's (RFC 9110 §7.8), and HTTP/2 has no such field (RFC 9113
    /// §8.2.2).
    Tunnel,
}

/// All servers of one upstream.
#[derive(Debug)]
pub(super) struct Endpoints {
    settings: config::Upstream,
    retry_policy: RetryPolicy,
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
            retry_policy: RetryPolicy::of(settings),
            settings: settings.clone(),
        }
    }

    /// The same with this policy.
    #[cfg(test)]
    pub(super) fn retrying(self, retry_policy: RetryPolicy) -> Self {
        Self { retry_policy, ..self }
    }

    /// What was configured.
    pub(super) fn settings(&self) -> &config::Upstream {
        &self.settings
    }

    /// When a request is sent once more.
    pub(super) fn retry_policy(&self) -> &RetryPolicy {
        &self.retry_policy
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

    /// A place on a connection of this thread's that stands, or on any thread's when no more may be
    /// made; for a tunnel, on one of HTTP/1.1.
    pub(super) fn unused(&self, endpoint: &Endpoint, wanted: Wanted) -> Option<Carrier> {
        if let Some(trunks) = endpoint.trunks()
            && wanted != Wanted::Tunnel
            && let Some(seat) = trunks.mine()
        {
            return Some(Carrier::Branch(seat));
        }
        let any = || if self.connections.is_full() { endpoint.pool().take_any() } else { None };
        endpoint.pool().take_mine().or_else(any).map(Carrier::Link)
    }

    /// A new connection; over HTTP/2 also a place on one that another request has just made, unless
    /// it must be new. For a tunnel it speaks HTTP/1.1, whatever else the server may choose.
    ///
    /// # Errors
    /// [`Failure::Connect`], [`Failure::Tls`], [`Failure::Busy`] where there may be no more, and,
    /// after the deadline, [`Failure::ConnectTimeout`].
    pub(super) async fn dial(
        &self,
        endpoint: &Endpoint,
        deadline: Instant,
        wanted: Wanted,
    ) -> Result<Carrier, Failure> {
        let Some(trunks) = endpoint.trunks() else {
            self.make_room();
            let counted = self.connections.add();
            let socket = endpoint.transport().connect(deadline).await?;
            return self.link(socket, counted).await;
        };
        if wanted == Wanted::Tunnel {
            return self.dial_for_tunnel(endpoint, deadline).await;
        }
        let turn = timeout_at(deadline, trunks.turn()).await;
        let _turn = turn.map_err(|_| Failure::ConnectTimeout)?;
        if wanted == Wanted::Any
            && let Some(seat) = Self::shared(trunks)
        {
            return Ok(Carrier::Branch(seat));
        }
        self.make_room();
        if self.connections.is_full() {
            return trunks.any().map(Carrier::Branch).ok_or(Failure::Busy);
        }
        let counted = self.connections.add();
        let socket = endpoint.transport().connect(deadline).await?;
        let has_prior_knowledge = self.settings.protocol == Protocol::Http2 && !socket.is_secure();
        let is_http2 = has_prior_knowledge || socket.protocol() == Some(b"h2");
        trunks.note_choice(!is_http2);
        if is_http2 {
            let trunk = timeout_at(deadline, Trunk::over(socket, &self.settings, counted)).await;
            let trunk = trunk.map_err(|_| Failure::ConnectTimeout)?;
            let trunk = trunk.map_err(Failure::without_http2)?;
            let seat = trunk.seat().ok_or(Failure::Busy)?;
            trunks.add(trunk);
            return Ok(Carrier::Branch(seat));
        }
        match self.settings.protocol {
            Protocol::Http2 => Err(Failure::not_http2()),
            Protocol::Http1 | Protocol::Auto => self.link(socket, counted).await,
        }
    }

    /// A new connection of HTTP/1.1 to a server that may speak HTTP/2. The server is not asked for
    /// its choice, so nothing is learned of it.
    async fn dial_for_tunnel(
        &self,
        endpoint: &Endpoint,
        deadline: Instant,
    ) -> Result<Carrier, Failure> {
        self.make_room();
        if self.connections.is_full() {
            return Err(Failure::Busy);
        }
        let counted = self.connections.add();
        let socket = endpoint.transport().connect_for_http1(deadline).await;
        self.link(socket.map_err(Failure::of_tunnel)?, counted).await
    }

    /// A place on a connection that stands by now.
    fn shared(trunks: &Trunks) -> Option<Seat> {
        trunks.mine().or_else(|| if trunks.has_enough() { trunks.any() } else { None })
    }

    /// Makes room for one more connection by closing an unused one, to whichever server. Over
    /// HTTP/1.1 alone there is one: the requests in progress are fewer than the connections.
    fn make_room(&self) {
        if self.connections.is_full() {
            drop(self.all.iter().find_map(|endpoint| endpoint.pool().take_any()));
        }
    }

    async fn link(&self, socket: Socket, counted: Counted) -> Result<Carrier, Failure> {
        let connection = Connection::over(socket, &self.settings, counted).await;
        connection.map(Carrier::Link).map_err(Failure::Connect)
    }

    /// How many HTTP/2 connections there are, and how many of them are in use.
    pub(super) fn trunks(&self) -> (usize, usize) {
        let counts = self.all.iter().filter_map(|endpoint| endpoint.trunks()).map(Trunks::count);
        counts.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
    }

    /// Streams in progress over HTTP/2.
    pub(super) fn streams(&self) -> usize {
        self.all.iter().filter_map(|endpoint| endpoint.trunks()).map(Trunks::streams).sum()
    }

    /// Closes unused connections that the server closed or that nobody used for `idle_timeout`.
    pub(super) fn sweep(&self) {
        for endpoint in &self.all {
            endpoint.pool().sweep(self.settings.idle_timeout);
            if let Some(trunks) = endpoint.trunks() {
                trunks.sweep(self.settings.idle_timeout);
            }
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
