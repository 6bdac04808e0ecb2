//! TLS towards servers: 1.2 and 1.3, with the authorities that are named, or else the system's. It
//! must not know whom it is used for.

use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fault::Fault;

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
    let connector = connector(authorities).await?;
    connector.connect(name, stream).await.map_err(Fault::Tls)
}

async fn connector(authorities: Vec<CertificateDer<'static>>) -> Result<TlsConnector, Fault> {
    let made = tokio::task::spawn_blocking(move || {
        let roots = roots(authorities)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Fault::Tls(io::Error::other(error)))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    });
    made.await.unwrap_or_else(|error| Err(Fault::Tls(io::Error::other(error))))
}

/// The authorities that were named, or else the system's.
fn roots(authorities: Vec<CertificateDer<'static>>) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    if !authorities.is_empty() {
        roots.add_parsable_certificates(authorities);
        return Ok(roots);
    }
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        let errors: Vec<String> = system.errors.iter().map(ToString::to_string).collect();
        return Err(Fault::NoAuthorities(errors.join("; ")));
    }
    Ok(roots)
}
