//! What speaks TLS with servers, 1.2 and 1.3: whom it believes and who it says it is.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// A certificate with those between it and its authority, and its key.
pub type Identity<'a> = (&'a [CertificateDer<'static>], &'a PrivateKeyDer<'static>);

/// A client that believes these authorities and nobody else, and shows `identity` to servers that
/// ask for one. It offers no protocol yet (ALPN, RFC 7301). Sessions are resumed with whoever uses
/// the same one, so each is for servers of one kind.
///
/// # Errors
/// When the identity cannot be used; above all, when its key belongs to another certificate.
pub fn client_config(
    authorities: &[CertificateDer<'static>],
    identity: Option<Identity<'_>>,
) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.iter().cloned());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder.with_client_auth_cert(chain.to_vec(), key.clone_key()),
    }
}
