//! What the requests of one client connection share.

use std::sync::{Arc, Mutex, PoisonError};

use http::Version;

use crate::auth::ShownCertificate;
use crate::base::facts::{ClientAddr, Encryption, Peer};
use crate::base::interim::Interim;
use crate::runtime::{Gateway, Running};

/// One client connection. Each of its requests takes a count of this, not of what all connections
/// share: a count that two cores change costs both of them a cache miss.
#[derive(Debug)]
pub struct Connection {
    pub(super) gateway: Arc<Gateway>,
    pub(super) peer: Peer,
    /// The plan in force when the last request came, and its generation.
    snapshot: Mutex<(u64, Snapshot)>,
    interim: Arc<Interim>,
    /// The client's certificate, where it has shown one.
    certificate: Option<Box<ShownCertificate>>,
}

/// A plan in force, with a count that belongs to one connection alone.
pub(super) type Snapshot = Arc<Arc<Running>>;

impl Connection {
    /// A connection without requests yet.
    pub fn new(gateway: &Arc<Gateway>, peer: Peer) -> Arc<Self> {
        let snapshot = Mutex::new((gateway.generation(), Arc::new(gateway.running())));
        let shown = peer.encryption.as_ref().and_then(|encryption| encryption.client.as_ref());
        let certificate = shown.map(|facts| Box::new(ShownCertificate::new(facts)));
        let (gateway, interim) = (Arc::clone(gateway), Arc::default());
        Arc::new(Self { gateway, peer, snapshot, interim, certificate })
    }

    /// Where interim responses to the client are left, which hyper cannot send.
    pub fn interim(&self) -> &Arc<Interim> {
        &self.interim
    }

    /// The gateway that serves it.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// What its encryption says; nothing in clear.
    pub fn encryption(&self) -> Option<&Arc<Encryption>> {
        self.peer.encryption.as_ref()
    }

    /// The certificate that the client has shown.
    pub(super) fn certificate(&self) -> Option<&ShownCertificate> {
        self.certificate.as_deref()
    }

    /// The client's end of the socket.
    pub fn address(&self) -> ClientAddr {
        self.peer.address
    }

    /// Opens the way of at most `most` interim responses for one request. There is none unless the
    /// client speaks HTTP/1.1: HTTP/1.0 has no such responses (RFC 9110 §15.2), and hyper cannot
    /// send them over HTTP/2.
    pub(super) fn open_interim(&self, version: Version, most: usize) -> Option<Arc<Interim>> {
        if most == 0 || version != Version::HTTP_11 {
            return None;
        }
        self.interim.open(most);
        Some(Arc::clone(&self.interim))
    }

    /// The rules of now. A reload never changes them under a request.
    pub(super) fn running(&self) -> Snapshot {
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.gateway.generation();
        if snapshot.0 != generation {
            *snapshot = (generation, Arc::new(self.gateway.running()));
        }
        Arc::clone(&snapshot.1)
    }
}
