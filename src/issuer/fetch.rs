//! One fetch of one JWK set: one connection, one GET, no redirects, every part of it bounded. It
//! must not know what the set is for.

use std::io;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HOST, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpStream;

use crate::base::units::size_text;
use crate::config::{KeysUrl, RemoteKeys};
use crate::net::{self, Connection};

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

impl From<net::Fault> for Fault {
    fn from(fault: net::Fault) -> Self {
        match fault {
            net::Fault::Connect(error) => Self::Connect(error),
            net::Fault::NoAuthorities(errors) => Self::NoAuthorities(errors),
            net::Fault::Tls(error) => Self::Tls(error),
            net::Fault::Broken(error) => Self::Broken(error),
            net::Fault::TooLarge(bytes) => Self::TooLarge(bytes),
        }
    }
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
    let mut connection = if url.tls {
        let stream = net::encrypt(stream, &url.host, source.authorities.clone()).await?;
        Connection::over(stream, HEAD_BYTES_MAX).await?
    } else {
        Connection::over(stream, HEAD_BYTES_MAX).await?
    };
    let response = connection.send(request(url)?).await?;
    read(response, source.max_bytes).await
}

fn request(url: &KeysUrl) -> Result<Request<Full<Bytes>>, Fault> {
    Request::get(url.target.as_str())
        .header(HOST, url.authority())
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(ACCEPT_ENCODING, "identity")
        .header(CONNECTION, "close")
        .header("user-agent", concat!("portcullis/", env!("CARGO_PKG_VERSION")))
        .body(Full::default())
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
    Ok(net::collect(body, bytes_max).await?)
}
