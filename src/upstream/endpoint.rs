//! One server: where it is, how busy and how healthy it is, and its unused connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ClientConfig;

use super::balance::Load;
use super::conn::{Pool, Transport, Trunks};
use super::health::Health;
use crate::config::{self, Protocol};

/// A server.
#[derive(Debug)]
pub(super) struct Endpoint {
    transport: Transport,
    weight: usize,
    busy: AtomicUsize,
    health: Health,
    pool: Pool,
    /// None where it speaks HTTP/1.1 alone.
    trunks: Option<Box<Trunks>>,
}

/// One request in progress at a server, which counts as busy with it for as long as this lives.
#[derive(Debug)]
pub(super) struct BusyGuard(Arc<Endpoint>);

impl Endpoint {
    /// A server without connections yet.
    pub(super) fn new(
        server: &config::Endpoint,
        settings: &config::Upstream,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Self {
        let may_be_http2 = match settings.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => server.tls.is_some(),
        };
        Self {
            transport: Transport::new(server, tls),
            weight: server.weight.max(1) as usize,
            busy: AtomicUsize::new(0),
            health: Health::new(settings.fail_timeout),
            pool: Pool::new(),
            trunks: may_be_http2.then(|| Box::new(Trunks::new())),
        }
    }

    /// How much it has to do.
    pub(super) fn load(&self) -> Load {
        Load { busy: self.busy.load(Ordering::Relaxed), weight: self.weight }
    }

    /// Its share relative to the others, at least 1.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Whether it is to be used.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Its unused connections.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Its HTTP/2 connections; none where it speaks HTTP/1.1 alone.
    pub(super) fn trunks(&self) -> Option<&Trunks> {
        self.trunks.as_deref()
    }

    /// The way to it.
    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Counts a request in.
    pub(super) fn enter(self: &Arc<Self>) -> BusyGuard {
        self.busy.fetch_add(1, Ordering::Relaxed);
        BusyGuard(Arc::clone(self))
    }
}

impl std::ops::Deref for BusyGuard {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.0
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}
