//! The services behind the gateway: choosing a server, a pooled connection to it, and the exchange
//! on it.
//!
//! A request is admitted (`admission_control`, which has the permits of `capacity`), and then makes
//! attempts (`attempt`): each picks a server (`endpoints`: `balance` among those that `health` does
//! not avoid), gets a connection (`conn`), and ends with a response or a reason, which is
//! classified in one place.
//!
//! A connection is driven by the task of the request that uses it (`conn::h1`), so an answer costs
//! no hand-over between tasks, and a client that goes away takes its upstream exchange with it.

mod admission_control;
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
mod retry_policy;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use rustls::ClientConfig;

use crate::base::body::Upload;
use crate::config;
use crate::observe::Occupancy;

use admission_control::AdmissionControl;
pub use connection_error::ConnectionError;
pub use download::{Download, Held, Switched};
use endpoints::Endpoints;
pub use failure::{DownloadFault, Failure, TlsFault};
use outgoing::Outgoing;
pub use outgoing::{OnInterim, Sender};

/// One upstream: its servers and their connections.
#[derive(Debug)]
pub struct Upstream {
    endpoints: Endpoints,
    admission: AdmissionControl,
}

impl Upstream {
    /// An upstream without connections yet.
    /// `tls` speaks with its servers behind `https://`.
    pub fn new(settings: &config::Upstream, tls: Option<&Arc<ClientConfig>>) -> Self {
        let endpoints = Endpoints::new(settings, tls);
        Self { endpoints, admission: AdmissionControl::new(settings) }
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
        let (busy, waiting) = self.admission.count();
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
        sender: &'a Sender,
        head: impl Fn() -> Request<()> + Send + 'a,
        body: Upload,
        on_interim: Option<impl OnInterim>,
    ) -> impl Future<Output = Result<Response<Box<Download>>, Failure>> + Send + 'a {
        // Made before there is a future, which would hold both the request and what is made of it.
        let mut outgoing = Outgoing::new(sender, head, body, on_interim);
        async move { self.exchange(&mut outgoing).await }
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
        let mut outgoing = Outgoing::new(sender, head, Upload::none(), nobody).upgrading();
        self.exchange(&mut outgoing).await
    }

    /// Closes pooled connections that the server closed or that nobody used for `idle_timeout`.
    pub fn sweep(&self) {
        self.endpoints.sweep();
    }

    /// The way of every request: it is admitted, and sent until it has ended.
    async fn exchange(
        &self,
        outgoing: &mut Outgoing<'_, impl Fn() -> Request<()>, impl OnInterim>,
    ) -> Result<Response<Box<Download>>, Failure> {
        let permit = self.admission.admit(outgoing.sender()).await?;
        attempt::send(&self.endpoints, permit, outgoing).await
    }
}
