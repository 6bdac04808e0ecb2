//! Certificates that come while the gateway runs, and those that prove a name to an authority.

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::certificate::{ServerCertificate, told};
use super::provider;
use crate::base::pem;

/// The protocol by which authorities ask (RFC 8737 §4).
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// A certificate with its key that no file holds.
#[derive(Debug, Clone)]
pub struct Issued(pub(super) ServerCertificate);

impl Issued {
    /// Reads a chain in PEM, its own certificate first, and checks that the key, in PKCS#8, is its
    /// key.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain = pem::chain(chain).map_err(|what| format!("the chain {what}"))?;
        let own = chain.first().ok_or("the chain is empty")?;
        let (names, not_before, not_after) = told(own)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
        let key = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|error| format!("the key is not the certificate's: {error}"))?;
        Ok(Self(ServerCertificate { key: Arc::new(key), names, not_before, not_after }))
    }

    /// The names that it is for, in lower case.
    pub fn names(&self) -> &[String] {
        &self.0.names
    }

    /// Its dates, in Unix seconds.
    pub fn dates(&self) -> (i64, i64) {
        (self.0.not_before, self.0.not_after)
    }

    /// The certificate itself.
    pub fn own(&self) -> Option<&CertificateDer<'static>> {
        self.0.key.cert.first()
    }
}

/// What shows an authority that a name is ours (RFC 8737 §3): a certificate of this digest of the
/// key authorization, for this protocol alone.
///
/// # Errors
/// It cannot be made, such as for a name that no certificate can have.
pub fn proof(name: &str, digest: &[u8]) -> Result<ServerConfig, String> {
    let failed = |error: &dyn std::fmt::Display| format!("no proof of {name}: {error}");
    let mut params =
        CertificateParams::new(vec![name.to_owned()]).map_err(|error| failed(&error))?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let certificate = params.self_signed(&key).map_err(|error| failed(&error))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?;
    let key = provider().key_provider.load_private_key(key).map_err(|error| failed(&error))?;
    // Nobody else may understand its critical extension (RFC 8737 §3), so it is not looked at.
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    let resolver = Arc::new(SingleCertAndKey::from(certified));
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
