//! The servers of an upstream: which of them a request goes to, and a connection to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

use super::balance::{self, Load, Turns};
use super::care::Care;
use super::conn::{Carrier, Connection, ConnectionCount, Counted, Seat, Trunk, Trunks};
use super::endpoint::Endpoint;
use super::ends::Report;
use super::failure::Failure;
use super::hashing;
use super::latency;
use super::outgoing::Sender;
use super::retry::Retry;
use super::verdict::{Due, Token};
use super::visit::{Place, Visit};
use crate::base::socket::Socket;
use crate::config::{self, Balance, Protocol};
use crate::observe::UpstreamMeter;

/// What a client is told to wait where nobody knows when a server is back.
const BACK_SOON: Duration = Duration::from_secs(1);

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A request.
    Any,
    /// A request that a connection has lost which was as old as those that nobody uses. Over HTTP/2
    /// any that stands will do: when it ends is known at once.
    Repeat,
    /// A request for which no unused one was open any more.
    New,
    /// A tunnel: `Upgrade` is HTTP/1.1's (RFC 9110 §7.8), and HTTP/2 has no such field (RFC 9113
    /// §8.2.2).
    Tunnel,
}

/// All servers of one upstream.
#[derive(Debug)]
pub(super) struct Endpoints {
    settings: Arc<config::Upstream>,
    /// None where each request is sent once.
    retry: Option<Box<Retry>>,
    all: Vec<Arc<Endpoint>>,
    /// The same, with who judges them.
    places: Vec<Arc<Place>>,
    /// How many of them, the first ones, are no backups; all where each is one.
    first: usize,
    /// What is learned of them; none where nothing is.
    care: Option<Arc<Care>>,
    /// For round-robin.
    turns: Turns,
    connections: Arc<ConnectionCount>,
    /// What its requests count.
    meter: Arc<UpstreamMeter>,
    /// Set where a server takes no connection, if its name may lead elsewhere by now.
    is_doubted: Option<Arc<AtomicBool>>,
}

/// A server that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    /// Its index.
    pub(super) at: usize,
    /// Where it is ejected, and this request tries it.
    pub(super) token: Option<Token>,
}

impl Choice {
    /// The same server, for a request that goes there once more.
    pub(super) fn again(at: usize) -> Self {
        Self { at, token: None }
    }
}

/// By what a server is chosen.
#[derive(Debug, Clone, Copy)]
struct Pick {
    /// What the request is told by, where servers are chosen by that.
    key: Option<u64>,
    /// Whether nothing is sent.
    looks_only: bool,
}

/// Whom a request may go to now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidates {
    /// By their indices.
    pub(super) servers: Vec<usize>,
    /// Whether too few servers are in, so that all are used.
    pub(super) is_panic: bool,
}

impl Endpoints {
    /// Servers without connections yet.
    pub(super) fn new(
        name: &str,
        settings: &config::Upstream,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Self {
        let all = settings.servers.iter();
        let all = all.map(|server| Arc::new(Endpoint::new(server, settings, tls, false)));
        let counted = (ConnectionCount::new(settings.max_connections), Arc::default());
        Self::of((settings, None), all.collect(), counted, |settings, all| {
            Care::new(name, settings, all, None)
        })
    }

    /// The servers that other settings of the same upstream name. Those that it has already stay
    /// as they are, with their connections and what is known against them.
    pub(super) fn with(
        &self,
        name: &str,
        settings: &config::Upstream,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Self {
        let begins_slowly = !settings.care.slow_start.is_zero();
        let one = |server: &config::Endpoint| {
            let kept = self.all.iter().find(|kept| kept.transport().leads_to(server));
            kept.map(Arc::clone)
                .unwrap_or_else(|| Arc::new(Endpoint::new(server, settings, tls, begins_slowly)))
        };
        let all = settings.servers.iter().map(one).collect();
        let connections = Arc::clone(&self.connections);
        connections.set_max(settings.max_connections);
        let former = self.care.as_deref();
        let kept = (settings, self.retry());
        let counted = (connections, Arc::clone(&self.meter));
        let endpoints =
            Self::of(kept, all, counted, |settings, all| Care::new(name, settings, all, former));
        if let Some(former) = former {
            former.retire();
        }
        endpoints.forget_what_nobody_judges();
        let stays = |server: &Arc<Endpoint>| endpoints.all.iter().any(|it| Arc::ptr_eq(it, server));
        self.all.iter().filter(|server| !stays(server)).for_each(|server| server.leave());
        endpoints
    }

    /// Others have taken over, or nobody has.
    pub(super) fn leave(&self) {
        self.all.iter().for_each(|server| server.leave());
    }

    /// `former` has counted already what was sent more than once.
    fn of(
        (settings, former): (&config::Upstream, Option<&Retry>),
        all: Vec<Arc<Endpoint>>,
        (connections, meter): (Arc<ConnectionCount>, Arc<UpstreamMeter>),
        care: impl FnOnce(&Arc<config::Upstream>, Vec<Arc<Endpoint>>) -> Option<Arc<Care>>,
    ) -> Self {
        let settings = Arc::new(settings.clone());
        let care = care(&settings, all.clone());
        Self {
            places: all.iter().map(|it| Place::new(it, care.as_ref(), &meter)).collect(),
            care,
            turns: Turns::new(all.len()),
            first: first(&settings.servers),
            all,
            connections,
            meter,
            is_doubted: None,
            retry: Retry::of(&settings, former),
            settings,
        }
    }

    /// What is known against a server ends with what would have ended it.
    fn forget_what_nobody_judges(&self) {
        let policy = &self.settings.care;
        for server in &self.all {
            let verdict = server.verdict();
            if policy.health.is_none() {
                verdict.set_down(false, false);
                server.checked().forget();
            }
            // The last one is never ejected.
            if policy.eject.is_none() || self.has_one_for_all() {
                verdict.end_ejection(false);
            }
            if policy.eject.is_none() || self.has_one_for_all() || !self.settings.fleet {
                verdict.unfollow(false);
            }
            // Nor avoided.
            if self.has_one_for_all() {
                verdict.note_life(false);
            }
            if self.care.is_none() {
                verdict.tick(policy.slow_start);
            }
        }
    }

    /// The same, which say by this when a server takes no connection.
    pub(super) fn doubting(self, is_doubted: &Arc<AtomicBool>) -> Self {
        Self { is_doubted: Some(Arc::clone(is_doubted)), ..self }
    }

    /// What was configured; of names, the addresses that they have now.
    pub(super) fn settings(&self) -> &config::Upstream {
        &self.settings
    }

    /// When a request is sent once more; nothing where each is sent once.
    pub(super) fn retry(&self) -> Option<&Retry> {
        self.retry.as_deref()
    }

    /// Whether anything may be sent more than once now: while the breaker is not closed, the
    /// upstream gets as many requests as are to try it, and no more.
    pub(super) fn takes_repeats(&self) -> bool {
        self.care.as_ref().is_none_or(|care| care.takes_all())
    }

    /// Requests in progress at all servers.
    pub(super) fn busy(&self) -> usize {
        self.all.iter().map(|server| server.busy()).sum()
    }

    /// All connections, in use and unused.
    pub(super) fn connections(&self) -> &ConnectionCount {
        &self.connections
    }

    /// What its requests count.
    pub(super) fn meter(&self) -> &Arc<UpstreamMeter> {
        &self.meter
    }

    /// All servers, by their indices.
    pub(super) fn all(&self) -> &[Arc<Endpoint>] {
        &self.all
    }

    /// Whether there is one server, and nobody else to take what it does not: it is used whatever
    /// is known of it.
    pub(super) fn has_one_for_all(&self) -> bool {
        self.all.len() == 1 && !self.settings.gives_way
    }

    /// The share of a server relative to the others, at least 1.
    pub(super) fn weight(&self, at: usize) -> usize {
        self.settings.servers.get(at).map_or(1, |server| server.weight.max(1) as usize)
    }

    /// What is learned of the servers; nothing where nothing is.
    pub(super) fn care(&self) -> Option<&Arc<Care>> {
        self.care.as_ref()
    }

    /// Counts a request of this sender in at a server.
    pub(super) fn enter(&self, choice: Choice, sender: &Sender) -> Option<Visit> {
        let mut visit = Visit::begin(self.places.get(choice.at)?, choice.token, sender);
        if self.settings.balance == Balance::Ewma {
            visit.is_timed();
        }
        Some(visit)
    }

    /// What an attempt says of its server.
    pub(super) fn note(&self, visit: &mut Visit, report: Report) {
        if let (Report::Refused, Some(is_doubted)) = (report, &self.is_doubted) {
            is_doubted.store(true, Ordering::Relaxed);
        }
        // Nothing else can be used in its place, so nobody needs to know.
        if !self.has_one_for_all() {
            let verdict = visit.verdict();
            match report {
                Report::Answered | Report::Unusable => {
                    let begins_slowly = self.care.as_ref().is_some_and(|it| it.begins_slowly());
                    verdict.note_life(begins_slowly);
                }
                Report::Refused => verdict.avoid(self.settings.fail_timeout),
                Report::Lost => verdict.note_loss(self.settings.fail_timeout),
                Report::Silent | Report::Nothing => {}
            }
        }
        visit.failed(report);
    }

    /// The server that a request with this key goes to. It may be one that is tried by this request
    /// alone.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] where all are out, [`Failure::Unresolved`] where there is none.
    pub(super) fn first(&self, key: Option<u64>) -> Result<Choice, Failure> {
        let Some(care) = &self.care else {
            if self.has_one_for_all() {
                return Ok(Choice { at: 0, token: None });
            }
            return self.choose(key);
        };
        care.note_asked();
        self.choose(key)
    }

    fn choose(&self, key: Option<u64>) -> Result<Choice, Failure> {
        if self.all.is_empty() {
            return Err(Failure::Unresolved);
        }
        let pick = Pick { key, looks_only: false };
        if self.all.iter().all(|server| server.verdict().word().is_clean()) {
            let at = self.balanced(pick, self.first, |at| at);
            return Ok(Choice { at, token: None });
        }
        // Rare: a server is dead.
        let patience = self.care.as_ref().map_or(Duration::ZERO, |care| care.patience());
        for (at, server) in self.all.iter().enumerate() {
            match server.verdict().claim(self.settings.fail_timeout, patience) {
                Due::Not => {}
                Due::Retry => return Ok(Choice { at, token: None }),
                Due::Probe(token) => return Ok(Choice { at, token: Some(token) }),
            }
        }
        self.among(&[], pick).ok_or_else(|| Failure::Unavailable(self.until_one_is_back()))
    }

    /// A server that was not tried yet, one that is not avoided before one that is. None where all
    /// were tried or are out. A request that has met a bad server already is not to try another
    /// one.
    pub(super) fn next(&self, tried: &[usize], key: Option<u64>) -> Option<Choice> {
        if self.all.len() == 1 && !tried.is_empty() {
            return None;
        }
        self.among(tried, Pick { key, looks_only: false })
    }

    /// A server that a request with this key may go to, by one that only looks.
    pub(super) fn peek(&self, key: Option<u64>) -> Option<Choice> {
        self.among(&[], Pick { key, looks_only: true })
    }

    fn among(&self, tried: &[usize], pick: Pick) -> Option<Choice> {
        let mut servers = self.candidates().servers;
        servers.retain(|at| !tried.contains(at));
        let word = |at: usize| self.all[at].verdict().word();
        if servers.iter().all(|at| word(*at).is_avoided()) {
            let more = self.backups().filter(|at| !tried.contains(at));
            let more: Vec<usize> = more.filter(|at| !servers.contains(at)).collect();
            servers.extend(more);
        }
        if self.settings.gives_way {
            servers.retain(|at| !word(*at).is_avoided());
        }
        prefer(&mut servers, |at| !word(at).is_avoided());
        let takes_part = |at: usize| {
            let percent = word(at).percent(self.all[at].verdict().now(), self.slow_start());
            percent == 100 || fastrand::u64(..100) < percent
        };
        prefer(&mut servers, takes_part);
        let chosen = self.balanced(pick, servers.len(), |at| servers[at]);
        servers.get(chosen).map(|at| Choice { at: *at, token: None })
    }

    /// The servers that are in, without backups; where these are too few, also the backups that
    /// are in; and where there is none, all but those that an operator took out.
    pub(super) fn candidates(&self) -> Candidates {
        let word = |at: &usize| self.all[*at].verdict().word();
        let wanted: Vec<usize> = (0..self.first).filter(|at| !word(at).is_by_hand()).collect();
        let mut usable: Vec<usize> =
            wanted.iter().copied().filter(|at| word(at).is_usable()).collect();
        let are_few = usable.len() * 100 < wanted.len() * usize::from(self.settings.care.panic);
        if are_few || usable.is_empty() {
            let count = usable.len();
            usable.extend(self.backups());
            if usable.len() > count {
                return Candidates { servers: usable, is_panic: false };
            }
        }
        Candidates { servers: if are_few { wanted } else { usable }, is_panic: are_few }
    }

    /// The backups that are in.
    fn backups(&self) -> impl Iterator<Item = usize> {
        (self.first..self.all.len()).filter(|at| self.all[*at].verdict().word().is_usable())
    }

    /// Whether it is used only where too few of the others are in.
    pub(super) fn is_backup(&self, at: usize) -> bool {
        at >= self.first
    }

    /// When one of those that are out may be back.
    pub(super) fn until_one_is_back(&self) -> Duration {
        let left = self.all.iter().filter_map(|server| {
            let verdict = server.verdict();
            verdict.word().left(verdict.now()).map(Duration::from_millis)
        });
        let checked = self.settings.care.health.as_ref().map(|health| health.interval);
        left.chain(checked).min().unwrap_or(BACK_SOON)
    }

    fn slow_start(&self) -> Duration {
        self.settings.care.slow_start
    }

    /// A place on a connection of this thread's that stands, or on any thread's when no more may be
    /// made; for a tunnel, on one of HTTP/1.1.
    pub(super) fn unused(&self, endpoint: &Endpoint, wanted: Wanted) -> Option<Carrier> {
        if let Some(trunks) = endpoint.trunks()
            && matches!(wanted, Wanted::Any | Wanted::Repeat)
            && let Some(seat) = trunks.mine()
        {
            return Some(Carrier::Branch(seat));
        }
        if matches!(wanted, Wanted::Repeat | Wanted::New) {
            return None;
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
        if wanted != Wanted::New
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

    /// One of `count` servers, as `balance` says; `index` tells which they are.
    fn balanced(&self, pick: Pick, count: usize, index: impl Fn(usize) -> usize) -> usize {
        let load = |at: usize| Load { busy: self.all[at].busy(), weight: self.weight(at) };
        match (&self.settings.balance, pick.key) {
            (Balance::RoundRobin, _) => self.turns.next(count, pick.looks_only, |at| {
                let at = index(at);
                (at, self.weight(at))
            }),
            (Balance::Ewma, _) => balance::sooner_of_two(count, |at| self.cost(index(at))),
            (Balance::Hash(_), Some(key)) => hashing::nearest(count, key, |at| {
                let at = index(at);
                (self.all[at].point(), load(at))
            }),
            (Balance::P2c | Balance::Hash(_), _) => {
                balance::less_busy_of_two(count, |at| load(index(at)))
            }
        }
    }

    /// What one more request costs at a server, in seconds of a server of weight 1. One of which
    /// nothing is known is taken for one like the others.
    pub(super) fn cost(&self, at: usize) -> f64 {
        let server = &self.all[at];
        let latency = server.latency();
        let estimate = latency.estimate().or_else(|| {
            let others = self.all.iter().filter_map(|server| server.latency().estimate());
            let middle = latency::median(others.collect())?;
            latency.expect(middle);
            Some(middle)
        });
        estimate.unwrap_or(1.0) * (server.busy() + 1) as f64 / self.weight(at) as f64
    }
}

/// How many servers come before the backups; all where nothing else is left of the names.
fn first(servers: &[config::Endpoint]) -> usize {
    match servers.iter().filter(|server| !server.backup).count() {
        0 => servers.len(),
        count => count,
    }
}

/// Keeps those of whom something holds, if there are any.
fn prefer(servers: &mut Vec<usize>, holds: impl Fn(usize) -> bool) {
    let held: Vec<bool> = servers.iter().map(|at| holds(*at)).collect();
    if held.contains(&true) {
        let mut held = held.into_iter();
        servers.retain(|_| held.next().unwrap_or(true));
    }
}
