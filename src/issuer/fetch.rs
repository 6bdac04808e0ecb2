//! One fetch of one JWK set: one connection, one GET, no redirects, every part of it bounded. It
//! must not know what the set is for.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HOST, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::base::units::size_text;
use crate::config::{KeysUrl, RemoteKeys};

/// Largest response head, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Longest part of a `Location` that is told, in bytes.
const LOCATION_BYTES_MAX: usize = 200;

/// Why a set was not fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// No connection.
    #[error("no connection: {0}; is the host of jwks_url right, and reachable from here?")]
    Connect(io::Error),
    /// No authority is known at all.
    #[error(
        "this machine trusts no certificate authority; install its CA certificates, or name a \
         ca_file ({0})"
    )]
    NoAuthorities(String),
    /// The issuer did not prove who it is.
    #[error("no TLS: {0}; a private certificate authority must be named as ca_file")]
    Tls(io::Error),
    /// What came was no HTTP, or it broke off.
    #[error("the answer broke off: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// Another place is named. None is followed: what was configured is what is trusted.
    #[error(
        "the issuer answered {0} and points to {1:?}; redirects are not followed, so name the \
         place itself as jwks_url"
    )]
    Redirect(StatusCode, String),
    /// No set.
    #[error("the issuer answered {0}; does jwks_url name a JWK set?")]
    Status(StatusCode),
    /// Compressed, though that was not asked for.
    #[error("the issuer answered in an encoding that was not asked for")]
    Encoded,
    /// Larger than the bound.
    #[error("the set is larger than {}; raise jwks.max_bytes if that is right", size(*.0))]
    TooLarge(usize),
    /// It took too long.
    #[error("no whole answer within jwks.timeout")]
    Timeout,
    /// Fetched, and of no use.
    #[error("{0}")]
    Unusable(String),
}

fn size(bytes: usize) -> String {
    size_text(bytes as u64)
}

impl Fault {
    /// A stable name, for a metric's label.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Connect(_) => "unreachable",
            Self::NoAuthorities(_) | Self::Tls(_) => "tls",
            Self::Broken(_) | Self::Encoded => "broken",
            Self::Redirect(..) => "redirect",
            Self::Status(_) => "status",
            Self::TooLarge(_) => "too_large",
            Self::Timeout => "timeout",
            Self::Unusable(_) => "unusable",
        }
    }
}

/// Fetches the set, within its bounds.
pub(super) async fn fetch(source: &RemoteKeys) -> Result<Bytes, Fault> {
    tokio::time::timeout(source.timeout, connect_and_get(source))
        .await
        .unwrap_or(Err(Fault::Timeout))
}

async fn connect_and_get(source: &RemoteKeys) -> Result<Bytes, Fault> {
    let url = &source.url;
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(Fault::Connect)?;
    if !url.tls {
        return get(stream, url, source.max_bytes).await;
    }
    let name = ServerName::try_from(url.host.clone())
        .map_err(|error| Fault::Tls(io::Error::other(error)))?;
    let connector = connector(source.authorities.clone()).await?;
    let stream = connector.connect(name, stream).await.map_err(Fault::Tls)?;
    get(stream, url, source.max_bytes).await
}

/// TLS 1.2 and 1.3. Made anew for each fetch, so that a change of the system's authorities takes
/// effect.
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

async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    url: &KeysUrl,
    bytes_max: usize,
) -> Result<Bytes, Fault> {
    let broken = |error: hyper::Error| Fault::Broken(error.into());
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let request = request(url)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        read(response, bytes_max).await
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        body = &mut exchange => body,
        // What the connection still had to say, the exchange has heard.
        _ = connection => exchange.await,
    }
}

fn request(url: &KeysUrl) -> Result<Request<Empty<Bytes>>, Fault> {
    Request::get(url.target.as_str())
        .header(HOST, url.authority())
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(ACCEPT_ENCODING, "identity")
        .header(CONNECTION, "close")
        .header("user-agent", concat!("portcullis/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|error| Fault::Broken(error.into()))
}

async fn read(response: Response<Incoming>, bytes_max: usize) -> Result<Bytes, Fault> {
    let (head, body) = response.into_parts();
    if head.status.is_redirection() {
        let location = head.headers.get(LOCATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let location = &location[..location.len().min(LOCATION_BYTES_MAX)];
        let location = String::from_utf8_lossy(location).into_owned();
        return Err(Fault::Redirect(head.status, location));
    }
    if head.status != StatusCode::OK {
        return Err(Fault::Status(head.status));
    }
    if head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(Fault::Encoded);
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Fault::TooLarge(bytes_max)),
        Err(error) => Err(Fault::Broken(error)),
    }
}
