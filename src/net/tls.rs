//! TLS towards servers: 1.2 and 1.3, with the authorities that are named. It must not know whom it
//! is used for.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fault::Fault;
use crate::base::authorities;
use crate::base::client_tls::client_config;

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
