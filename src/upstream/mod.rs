//! The services behind the gateway: choosing a server, a pooled connection to it, and the exchange
//! on it.
//!
//! A request is admitted (`care`, which has the breaker, and `admission_control`, which has the
//! permits of `capacity`), and then makes attempts (`attempt`): each picks a server (`endpoints`:
//! `balance` among those that are in by their `verdict`), gets a connection (`conn`), and ends with
//! a response or a reason, which is classified in one place. What it came to is told by its `visit`
//! to `care`, which takes out what fails.
//!
//! A connection is driven by the task of the request that uses it (`conn::h1`), so an answer costs
//! no hand-over between tasks, and a client that goes away takes its upstream exchange with it.

mod admission_control;
mod asking;
mod attempt;
mod balance;
mod breaker;
mod capacity;
mod care;
mod check;
mod checked;
mod conn;
mod connection_error;
mod directory;
mod download;
mod endpoint;
mod endpoints;
mod ends;
mod failure;
mod fleet;
mod hashing;
mod hedge;
mod latency;
mod names;
mod nats;
mod operate;
mod outgoing;
mod percentile;
mod resolver;
mod retry;
mod servers;
mod span;
mod tally;
mod tries;
mod verdict;
mod visit;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use rustls::ClientConfig;
use tokio::task::JoinSet;

use crate::base::body::Upload;
use crate::config;
use crate::observe::{CareNow, Occupancy, UpstreamMeter};

use admission_control::AdmissionControl;
use breaker::Entry;
pub use connection_error::ConnectionError;
pub use download::{Download, Held, Switched};
use endpoints::Endpoints;
pub use ends::has_failed;
pub use failure::{DownloadFault, Failure, TlsFault};
use names::Names;
use nats::Link;
pub use nats::{Ack, Bus, Consumer, Heard, Listener, Position, Pull, Pulled, Unheard};
pub use operate::{Change, Foreseen};
pub use outgoing::{Attempts, OnInterim, Outgoing, Sender, TimeLimit};
use servers::Servers;
use visit::Charge;

/// How often [`Upstream::tick`] is to be called.
pub const TICK: Duration = Duration::from_millis(200);

/// One upstream: its servers and their connections.
#[derive(Debug)]
pub struct Upstream {
    servers: Servers,
    admission: AdmissionControl,
    /// What its requests count.
    meter: Arc<UpstreamMeter>,
    /// The connection with NATS, where it is reached over that.
    link: Option<Arc<Link>>,
}

/// What names among servers lead to, looked up before anything is sent to these, and a connection
/// that is made before.
#[derive(Debug, Default)]
pub struct Ahead {
    names: Names,
    link: Option<SpareLink>,
}

/// A connection that is made before its upstream. It ends with this, unless an upstream has it.
#[derive(Debug)]
struct SpareLink {
    link: Arc<Link>,
    is_taken: AtomicBool,
}

impl SpareLink {
    fn take(&self) -> Arc<Link> {
        self.is_taken.store(true, Ordering::Relaxed);
        Arc::clone(&self.link)
    }
}

impl Drop for SpareLink {
    fn drop(&mut self) {
        if !*self.is_taken.get_mut() {
            self.link.leave();
        }
    }
}

impl Upstream {
    /// An upstream without connections yet.
    /// `tls` speaks with its servers behind `https://`.
    pub fn new(
        name: &str,
        settings: &config::Upstream,
        tls: Option<&Arc<ClientConfig>>,
        ahead: &Ahead,
    ) -> Self {
        let servers = Servers::new(name, settings, tls, &ahead.names);
        let meter = Arc::clone(servers.now().meter());
        let link = ahead.link.as_ref().map(SpareLink::take);
        let link = link.or_else(|| Link::new(name, settings, tls));
        if let Some(link) = &link {
            servers.now().all().iter().for_each(|server| server.set_link(link));
        }
        Self { servers, admission: AdmissionControl::new(settings), meter, link }
    }

    /// What names among the servers of these settings lead to, and the connection with NATS that
    /// they will have, waited for no longer than for a connection. `former` is the upstream of this
    /// name that is in force, and `tls` as for [`Self::new`].
    pub async fn look_ahead(
        name: &str,
        settings: &config::Upstream,
        tls: Option<&Arc<ClientConfig>>,
        former: Option<&Self>,
    ) -> Ahead {
        if former.is_some_and(|former| former.servers.written() == settings) {
            // It stays as it is.
            return Ahead::default();
        }
        let is_kept = former.is_some_and(|former| former.is_described_by(settings));
        let link = Link::new(name, settings, tls).filter(|_| !is_kept);
        // Whoever waits for all this may give up.
        let link = link.map(|link| SpareLink { link, is_taken: AtomicBool::new(false) });
        if let Some(SpareLink { link, .. }) = &link {
            link.start();
            link.connected(settings.connect_timeout).await;
        }
        let former = former.map(|former| &former.servers);
        Ahead { names: Servers::look_ahead(name, settings, former).await, link }
    }

    /// Whether its servers are spoken to as `settings` say: the identity of an upstream, apart from
    /// how it behaves. What its connections are bound by is part of it.
    pub fn is_described_by(&self, settings: &config::Upstream) -> bool {
        let own = self.servers.written();
        (own.protocol, &own.tls, own.header_bytes, own.headers, &own.nats)
            == (
                settings.protocol,
                &settings.tls,
                settings.header_bytes,
                settings.headers,
                &settings.nats,
            )
    }

    /// The upstream as a reload with these settings, which describe it, leaves it. Servers that it
    /// had keep their connections, and what is known against them.
    pub fn reloaded(
        self: &Arc<Self>,
        name: &str,
        settings: &config::Upstream,
        tls: Option<&Arc<ClientConfig>>,
        ahead: &Ahead,
    ) -> Arc<Self> {
        if self.servers.written() == settings {
            return Arc::clone(self);
        }
        let servers = self.servers.with(name, settings, tls, &ahead.names);
        let (admission, meter) = (self.admission.with(settings), Arc::clone(&self.meter));
        Arc::new(Self { servers, admission, meter, link: self.link.clone() })
    }

    /// A connection of its own with its servers, for who listens there. The log calls it `label`.
    /// Nothing over HTTP. To be called outside the serving threads.
    pub fn bus(&self, label: &str) -> Option<Bus> {
        self.link.as_ref().map(|link| Bus::new(link, label))
    }

    /// How long a body whose client expects a 100 may wait for the upstream's: less than the answer
    /// may take. Zero where nobody is to wait.
    pub fn continue_timeout(&self) -> Duration {
        let settings = self.servers.written();
        settings.continue_timeout.min(settings.response_timeout / 2)
    }

    /// Whether requests are sent more than once, so that it is worth telling how often.
    pub fn retries(&self) -> bool {
        self.servers.written().retry.is_some()
    }

    /// What clients get while its breaker is open, in place of a refusal.
    pub fn fallback(&self) -> Option<&config::Fallback> {
        self.servers.written().care.breaker.as_ref()?.fallback.as_ref()
    }

    /// What its requests count.
    pub fn meter(&self) -> &Arc<UpstreamMeter> {
        &self.meter
    }

    /// A request took so long until the head of its response, or until this failure.
    pub fn note_time(&self, took: Duration, failure: Option<&Failure>) {
        if failure.is_none_or(Failure::has_waited) {
            self.meter.took(took);
        }
    }

    /// How busy its connections are.
    pub fn occupancy(&self) -> Occupancy {
        let (busy, waiting) = self.admission.count();
        let endpoints = self.servers.now();
        let connections = endpoints.connections();
        Occupancy {
            busy,
            open: connections.open() + self.link.iter().filter(|it| it.is_connected()).count(),
            waiting,
            max: endpoints.settings().max_connections,
            requests_max: endpoints.settings().max_requests,
            trunks: endpoints.trunks(),
            streams: endpoints.streams(),
            goaways: connections.goaways(),
        }
    }

    /// What is known of its servers.
    pub fn care_now(&self) -> CareNow {
        operate::now(&self.servers.now(), self.servers.names())
    }

    /// Whether an operator can take a server out: not a single one, of which nothing is learned
    /// and which is used whatever is known of it.
    pub fn can_change(&self) -> bool {
        let endpoints = self.servers.now();
        !endpoints.has_one_for_all() || endpoints.care().is_some()
    }

    /// Changes the server with this url, or all of them. Returns how many that are.
    pub fn change(&self, url: Option<&str>, change: Change) -> usize {
        operate::change(&self.servers.now(), url, change)
    }

    /// Where a request with this key (see [`Sender::key`]) would go now, by one that only looks.
    ///
    /// # Errors
    /// Why it would go nowhere.
    pub fn foresee(&self, key: Option<u64>) -> Result<Foreseen, Failure> {
        operate::foresee(&self.servers.now(), key)
    }

    /// A request of this sender, to be sent here. `head` makes the request's, and makes it anew
    /// should it be repeated. `on_interim` gets every interim response that comes before its
    /// response, but for 101, which is an error.
    pub fn outgoing<'s, H: Fn() -> Request<()>, I: OnInterim>(
        &self,
        sender: &'s Sender,
        head: H,
        body: Upload,
        on_interim: Option<I>,
    ) -> Outgoing<'s, H, I> {
        let mut outgoing = Outgoing::new(sender, head, body, on_interim);
        if let Some(retry) = self.servers.now().retry() {
            outgoing.keep(retry.body_bytes());
        }
        outgoing
    }

    /// Sends a request once it is admitted, and returns when the head of its response is there.
    ///
    /// What was never sent is sent again on another connection, to another server where this one
    /// takes none. A request that a pooled connection took and did not answer is repeated once, on
    /// a new connection, when that is safe (RFC 9110 §9.2.2) and it has no body. What else is sent
    /// again is the matter of `retry`.
    ///
    /// # Errors
    /// [`Failure`] when there is no response that may be passed on.
    pub async fn send(
        &self,
        outgoing: &mut Outgoing<'_, impl Fn() -> Request<()>, impl OnInterim>,
    ) -> Result<Response<Box<Download>>, Failure> {
        let endpoints = self.servers.keep();
        let mut charge = Self::charge(&endpoints)?;
        let sender = outgoing.sender();
        sender.reaches();
        let permit = self.admission.admit(sender, &self.meter).await?;
        // Behind the queue: clients who read slowly make one, too.
        let blame = sender.begins();
        if let Some(charge) = &mut charge {
            charge.is_asked_until(blame);
        }
        if let Some(retry) = endpoints.retry() {
            retry.note_request();
        }
        attempt::send(&endpoints, (permit, charge), outgoing).await
    }

    /// Asks a server to change to the protocol that the request names in `Upgrade`. As
    /// [`Self::send`], but a 101 is a response then: see [`Download::into_switched`].
    ///
    /// # Errors
    /// [`Failure`] when there is no response that may be passed on.
    pub async fn upgrade(
        &self,
        sender: &Sender,
        head: impl Fn() -> Request<()> + Send,
    ) -> Result<Response<Box<Download>>, Failure> {
        let nobody = None::<fn(StatusCode, &HeaderMap)>;
        let mut outgoing = Outgoing::new(sender, head, Upload::none(), nobody);
        outgoing.upgrade();
        self.send(&mut outgoing).await
    }

    /// What this gateway says of it to others of its fleet; nothing where it says nothing.
    pub fn say(&self) -> Option<Vec<u8>> {
        fleet::say(&self.servers.now())
    }

    /// Goes by what all of them say by now, this one too; by none, where none is heard any more.
    pub fn hear(&self, all: &[(Bytes, Bytes)]) {
        fleet::hear(&self.servers.now(), all);
    }

    /// Looks up names whose answers are old, judges what requests met, and asks servers how they
    /// are whose turn it is. To be called every [`TICK`], outside the serving threads.
    pub fn tick(&self) {
        self.servers.tick();
        if let Some(link) = &self.link {
            link.start();
        }
        let endpoints = self.servers.now();
        if let Some(retry) = endpoints.retry() {
            retry.tick();
        }
        let Some(care) = endpoints.care() else { return };
        care.tick();
        for check in check::due(care) {
            tokio::spawn(check);
        }
    }

    /// Looks up the names of servers, for as long as a connection may take. Then asks each server
    /// how it is, where that is wanted, and waits until all have said so.
    pub async fn first_checks(&self) {
        let patience = self.servers.written().connect_timeout;
        if let Some(link) = &self.link {
            link.start();
            link.connected(patience).await;
        }
        let _ = tokio::time::timeout(patience, self.servers.look_up()).await;
        let due = self.servers.now().care().map(check::due).unwrap_or_default();
        let mut checks: JoinSet<()> = due.into_iter().collect();
        while checks.join_next().await.is_some() {}
    }

    /// Closes pooled connections that the server closed or that nobody used for `idle_timeout`.
    pub fn sweep(&self) {
        self.servers.now().sweep();
    }

    /// It is out of force, and none is in force that was made of it: nobody sweeps its connections
    /// while requests go on that have begun here.
    pub fn leave(&self) {
        self.servers.now().leave();
        if let Some(link) = &self.link {
            link.leave();
        }
    }

    /// Lets a request begin where the breaker is not open; nothing where there is no breaker.
    fn charge(endpoints: &Endpoints) -> Result<Option<Box<Charge<'_>>>, Failure> {
        let Some(care) = endpoints.care() else { return Ok(None) };
        Ok(match care.admit()? {
            None | Some(Entry::Refused(_)) => None,
            Some(Entry::Closed(round) | Entry::Closes(round)) => {
                Some(Charge::new(care, round, false))
            }
            Some(Entry::Probe(round)) => Some(Charge::new(care, round, true)),
        })
    }
}
