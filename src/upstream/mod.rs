//! The services behind the gateway: choosing a server, a pooled connection to it, and the exchange
//! on it.
//!
//! A request takes a permit (`capacity`), and then makes attempts (`attempt`): each picks a server
//! (`endpoints`: `balance` among those that `health` does not avoid), gets a connection (`conn`),
//! and ends with a response or a reason, which is classified in one place.
//!
//! A connection is driven by the task of the request that uses it (`conn::h1`), so an answer costs
//! no hand-over between tasks, and a client that goes away takes its upstream exchange with it.

mod attempt;
mod balance;
mod capacity;
mod conn;
mod connection_error;
mod download;
mod endpoint;
mod endpoints;
mod failure;
mod health;
mod outgoing;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use rustls::ClientConfig;

use crate::base::body::Upload;
use crate::base::facts::ClientAddr;
use crate::config;
use crate::observe::Occupancy;

use capacity::{Capacity, Permit};
pub use connection_error::ConnectionError;
pub use download::{Download, Held, Switched};
use endpoints::Endpoints;
pub use failure::{DownloadFault, Failure, TlsFault};
pub use outgoing::OnInterim;
use outgoing::Outgoing;

/// Who sends a request, and how patiently.
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    /// Whose share of the upstream is taken.
    pub client: ClientAddr,
    /// How long the server may rest, in place of `response_timeout` and `read_timeout`.
    pub idle_timeout: Option<Duration>,
}

/// One upstream: its servers and their connections.
#[derive(Debug)]
pub struct Upstream {
    endpoints: Endpoints,
    capacity: Arc<Capacity>,
}

impl Upstream {
    /// An upstream without connections yet.
    /// `tls` speaks with its servers behind `https://`.
    pub fn new(settings: &config::Upstream, tls: Option<&Arc<ClientConfig>>) -> Self {
        let max = settings.max_requests;
        let capacity = Capacity::new(max, settings.client_share.of(max));
        Self { endpoints: Endpoints::new(settings, tls), capacity }
    }

    /// Whether `settings` describe this upstream, so that a reload can keep its connections.
    pub fn is_described_by(&self, settings: &config::Upstream) -> bool {
        self.endpoints.settings() == settings
    }

    /// How long a body whose client expects a 100 may wait for the upstream's: less than the answer
    /// may take. Zero where nobody is to wait.
    pub fn continue_timeout(&self) -> Duration {
        let settings = self.endpoints.settings();
        settings.continue_timeout.min(settings.response_timeout / 2)
    }

    /// How busy its connections are.
    pub fn occupancy(&self) -> Occupancy {
        let (busy, waiting) = self.capacity.count();
        let connections = self.endpoints.connections();
        Occupancy {
            busy,
            open: connections.open(),
            waiting,
            max: self.endpoints.settings().max_connections,
            requests_max: self.endpoints.settings().max_requests,
            trunks: self.endpoints.trunks(),
            streams: self.endpoints.streams(),
            goaways: connections.goaways(),
        }
    }

    /// Sends a request of this sender and returns once the response head is there. `head` makes the
    /// request's, and makes it anew should it be repeated.
    ///
    /// What was never sent is sent again on another connection, to another server where this one
    /// takes none. A request that a pooled connection took and did not answer is repeated once, on
    /// a new connection, when that is safe (RFC 9110 §9.2.2) and it has no body. `on_interim` gets
    /// every interim response that comes before, but for 101, which is an error.
    ///
    /// # Errors
    /// [`Failure`] when there is no response that may be passed on.
    pub fn send<'a>(
        &'a self,
        sender: Sender,
        head: impl Fn() -> Request<()> + Send + 'a,
        body: Upload,
        on_interim: Option<impl OnInterim>,
    ) -> impl Future<Output = Result<Response<Box<Download>>, Failure>> + Send + 'a {
        // Made before there is a future, which would hold both the request and what is made of it.
        let mut outgoing = Outgoing::new(head, body, on_interim);
        outgoing.rest(sender.idle_timeout);
        async move {
            let permit = self.permit(sender.client).await?;
            attempt::send(&self.endpoints, permit, &mut outgoing).await
        }
    }

    /// Asks a server to change to the protocol that the request names in `Upgrade`. As
    /// [`Self::send`], but a 101 is a response then: see [`Download::into_switched`].
    ///
    /// # Errors
    /// [`Failure`] when there is no response that may be passed on.
    pub async fn upgrade(
        &self,
        client: ClientAddr,
        head: impl Fn() -> Request<()> + Send,
    ) -> Result<Response<Box<Download>>, Failure> {
        let nobody = None::<fn(StatusCode, &HeaderMap)>;
        let mut outgoing = Outgoing::new(head, Upload::none(), nobody).upgrading();
        let permit = self.permit(client).await?;
        attempt::send(&self.endpoints, permit, &mut outgoing).await
    }

    /// Closes pooled connections that the server closed or that nobody used for `idle_timeout`.
    pub fn sweep(&self) {
        self.endpoints.sweep();
    }

    /// A permit for one request, which waits up to `connect_timeout` for it.
    async fn permit(&self, client: ClientAddr) -> Result<Permit, Failure> {
        if let Some(permit) = self.capacity.try_take(client) {
            return Ok(permit);
        }
        let permit = self.capacity.take(client);
        let waited = tokio::time::timeout(self.endpoints.settings().connect_timeout, permit);
        Box::pin(waited).await.ok().flatten().ok_or(Failure::Busy)
    }
}
