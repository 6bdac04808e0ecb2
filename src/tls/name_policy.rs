//! What TLS asks of the clients of a name: who verifies their certificates, and whether sessions
//! are resumed.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ProducesTickets, WebPkiClientVerifier};

use super::flaw::Flaw;
use super::tickets::{TicketKeys, Ticketer};
use crate::base::pem;
use crate::config::{self, ClientAuth, Tickets};

/// What TLS asks of the clients of some names. Names with the same policy share tickets, others
/// never do: a ticket restores a client's certificate without verifying it again.
#[derive(Debug, Clone)]
pub(super) struct NamePolicy {
    /// Equal for equal demands on a connection: whether a certificate is asked for, by whose word
    /// it is good, and what was revoked.
    pub(super) id: u64,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    tickets: Option<Arc<dyn ProducesTickets>>,
}

impl NamePolicy {
    /// Compiles what is written of some names; `fleet` has the keys of tickets that a fleet shares.
    /// `at` is where it is written, for what is wrong with it.
    ///
    /// # Errors
    /// The authorities or what they revoked cannot be used.
    pub(super) fn compile(
        written: &config::NamePolicy,
        fleet: Option<&Arc<TicketKeys>>,
        at: &str,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Flaw> {
        let client = written.client.as_ref();
        let verifier = client.map(|client| verifier(client, at, provider)).transpose()?;
        let digest = client.map_or([0; 32], digest_of);
        let tickets: Option<Arc<dyn ProducesTickets>> = match (written.tickets(), fleet) {
            (Tickets::Fleet, Some(keys)) => Some(Arc::new(Ticketer::new(keys, digest))),
            (Tickets::Node, _) => rustls::crypto::aws_lc_rs::Ticketer::new().ok(),
            (Tickets::Off | Tickets::Fleet, _) => None,
        };
        let (first, _) = digest.as_chunks::<8>();
        let id = first.first().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let id = if client.is_some() { id.max(1) } else { 0 };
        Ok(Self { id, verifier, tickets })
    }

    /// The same with another's tickets, where both ask for the same.
    pub(super) fn sharing_tickets(mut self, other: &Self) -> Self {
        if self.id == other.id && self.tickets.is_some() && other.tickets.is_some() {
            self.tickets.clone_from(&other.tickets);
        }
        self
    }

    /// Who verifies certificates of clients.
    pub(super) fn verifier(&self) -> Option<&Arc<dyn ClientCertVerifier>> {
        self.verifier.as_ref()
    }

    /// Who makes tickets.
    pub(super) fn tickets(&self) -> Option<&Arc<dyn ProducesTickets>> {
        self.tickets.as_ref()
    }

    /// Whether the certificates that a ticket restored are good now: what was verified once may
    /// have expired or been revoked since.
    pub(super) fn still_trusts(&self, certificates: &[CertificateDer<'_>]) -> bool {
        let Some(verifier) = &self.verifier else { return true };
        let Some((own, rest)) = certificates.split_first() else {
            return !verifier.client_auth_mandatory();
        };
        verifier.verify_client_cert(own, rest, UnixTime::now()).is_ok()
    }
}

fn verifier(
    written: &ClientAuth,
    at: &str,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Flaw> {
    let of_ca = |what: String| {
        let remedy = "name a file with the authorities of your clients in PEM";
        Flaw::new(format!("{at}client_ca"), what, remedy)
    };
    let mut roots = RootCertStore::empty();
    for authority in pem::authorities(written.ca.content.expose()).map_err(of_ca)? {
        roots.add(authority).map_err(|error| of_ca(error.to_string()))?;
    }
    let mut revoked = Vec::new();
    if let Some(crl) = &written.crl {
        let read = CertificateRevocationListDer::pem_slice_iter(crl.content.expose());
        revoked = read
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| of_crl(at, format!("it is not PEM: {error}")))?;
        if revoked.is_empty() {
            return Err(of_crl(at, "there is no list of revoked certificates in it".to_owned()));
        }
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if revoked.is_empty() {
        builder
    } else {
        // A list is about the authority that signed it; nothing is known of the others.
        builder
            .with_crls(revoked)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
    };
    let builder = if written.is_required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| match written.crl {
        Some(_) => of_crl(at, format!("it cannot be used: {error}")),
        None => of_ca(format!("it cannot be used: {error}")),
    })
}

fn of_crl(at: &str, what: String) -> Flaw {
    let remedy = "name a file with certificate revocation lists in PEM (BEGIN X509 CRL)";
    Flaw::new(format!("{at}client_crl"), what, remedy)
}

/// A digest of everything that decides whom a policy lets in.
fn digest_of(written: &ClientAuth) -> [u8; 32] {
    let mut digest = Context::new(&SHA256);
    digest.update(&[u8::from(written.is_required)]);
    for part in [Some(&written.ca), written.crl.as_ref()] {
        let content = part.map_or(&[][..], |file| file.content.expose());
        digest.update(&(content.len() as u64).to_be_bytes());
        digest.update(content);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.finish().as_ref());
    bytes
}
