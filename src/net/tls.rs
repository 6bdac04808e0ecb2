//! TLS towards servers: 1.2 and 1.3, with the authorities that are named. It must not know whom it
//! is used for.

use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fault::Fault;
use crate::base::authorities;

/// A certificate with those between it and its authority, and its key.
pub type Identity<'a> = (&'a [CertificateDer<'static>], &'a PrivateKeyDer<'static>);

/// Begins TLS on a connection to `host`, which must prove its name by one of `authorities`, or by
/// those that this machine trusts where there are none. These are read anew each time, so that a
/// change takes effect.
///
/// # Errors
/// [`Fault::NoAuthorities`] and [`Fault::Tls`].
pub async fn encrypt(
    stream: TcpStream,
    host: &str,
    authorities: Vec<CertificateDer<'static>>,
) -> Result<TlsStream<TcpStream>, Fault> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| Fault::Tls(io::Error::other(error)))?;
    let made = tokio::task::spawn_blocking(move || errand(authorities));
    let config = made.await.map_err(|error| Fault::Tls(io::Error::other(error)))??;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(Fault::Tls)
}

/// For one errand over HTTP/1.1.
fn errand(authorities: Vec<CertificateDer<'static>>) -> Result<ClientConfig, Fault> {
    let authorities = if authorities.is_empty() {
        authorities::of_this_machine().map_err(Fault::NoAuthorities)?
    } else {
        authorities
    };
    let mut config =
        client_config(&authorities, None).map_err(|error| Fault::Tls(io::Error::other(error)))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

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
