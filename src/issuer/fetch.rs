//! One fetch of a JWK set, or of the document that names its place: one connection, one GET, no
//! redirects, every part of it bounded. It must not know what that is for.

use std::fmt;
use std::io;
use std::time::Duration;

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

/// What is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sought {
    /// The set, from where the configuration says.
    Keys,
    /// What an issuer says of itself.
    Document,
    /// The set, from where that says.
    NamedKeys,
}

impl Sought {
    /// What names the place.
    fn key(self) -> &'static str {
        match self {
            Self::Keys => "jwks_url",
            Self::Document => "issuer",
            Self::NamedKeys => "jwks_uri of its discovery document",
        }
    }

    fn accepted(self) -> &'static str {
        match self {
            Self::Keys | Self::NamedKeys => "application/jwk-set+json, application/json",
            Self::Document => "application/json",
        }
    }
}

/// Why something was not fetched, or is of no use.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) sought: Sought,
    pub(super) why: Why,
}

/// Why, whatever it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum Why {
    /// No connection.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// No authority is known at all.
    #[error("this machine trusts no certificate authority ({0})")]
    NoAuthorities(String),
    /// The issuer did not prove who it is.
    #[error("no TLS: {0}")]
    Tls(io::Error),
    /// What came was no HTTP, or it broke off.
    #[error("the answer broke off: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// Another place is named. None is followed: what was configured is what is trusted.
    #[error("the issuer answered {0} and points to {1:?}; redirects are not followed")]
    Redirect(StatusCode, String),
    /// An error.
    #[error("the issuer answered {0}")]
    Status(StatusCode),
    /// Compressed, though that was not asked for.
    #[error("the issuer answered in an encoding that was not asked for")]
    Encoded,
    /// Larger than the bound.
    #[error("the answer is larger than {}", size_text(*.0 as u64))]
    TooLarge(usize),
    /// It took too long.
    #[error("no whole answer in time")]
    Timeout,
    /// The document is another issuer's; both names.
    #[error("it is of the issuer {found}, and issuer is {written}")]
    OtherIssuer { found: String, written: String },
    /// Fetched, and of no use; what is wrong, and what to do where that is not said with it.
    #[error("{0}")]
    Unusable(String, String),
}

impl From<net::Fault> for Why {
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
    pub(super) fn new(sought: Sought, why: Why) -> Self {
        Self { sought, why }
    }

    /// What happened.
    pub(super) fn what(&self) -> String {
        match self.sought {
            Sought::Document => format!("the discovery document: {}", self.why),
            Sought::Keys | Sought::NamedKeys => self.why.to_string(),
        }
    }

    /// What a person can do about it; empty where that is said already.
    pub(super) fn remedy(&self) -> String {
        let key = self.sought.key();
        match (&self.why, self.sought) {
            (Why::Connect(_), _) => {
                format!("is the host of {key} right, and reachable from here?")
            }
            (Why::NoAuthorities(_), _) => {
                "install its CA certificates, or name a ca_file".to_owned()
            }
            (Why::Tls(_), _) => "a private certificate authority must be named as ca_file".into(),
            (Why::Redirect(..), Sought::Keys) => "name the place itself as jwks_url".into(),
            (Why::Redirect(..), _) => "name the place of the keys as jwks_url".into(),
            (Why::Status(_), Sought::Document) => "is issuer right? Where the issuer publishes no \
                                                   document, name its keys as jwks_url"
                .into(),
            (Why::Status(_), _) => format!("does {key} name a JWK set?"),
            (Why::TooLarge(_), _) => "raise jwks.max_bytes if that is right".into(),
            (Why::Timeout, _) => "raise jwks.timeout if the issuer is that slow".into(),
            (Why::OtherIssuer { .. }, _) => "write issuer as the document and the tokens have it, \
                                             to the last slash"
                .into(),
            (Why::Unusable(_, remedy), _) => remedy.clone(),
            (Why::Broken(_) | Why::Encoded, _) => format!("is {key} right?"),
        }
    }

    /// A stable name, for a metric's label.
    pub(super) fn code(&self) -> &'static str {
        match self.why {
            Why::Connect(_) => "unreachable",
            Why::NoAuthorities(_) | Why::Tls(_) => "tls",
            Why::Broken(_) | Why::Encoded => "broken",
            Why::Redirect(..) => "redirect",
            Why::Status(_) => "status",
            Why::TooLarge(_) => "too_large",
            Why::Timeout => "timeout",
            Why::OtherIssuer { .. } => "other_issuer",
            Why::Unusable(..) => "unusable",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = self.remedy();
        let between = if remedy.is_empty() { "" } else { "; " };
        write!(f, "{}{between}{remedy}", self.what())
    }
}

/// Fetches what is sought from `url`, within the bounds of `source` and within this time.
pub(super) async fn fetch(
    source: &RemoteKeys,
    sought: Sought,
    url: &KeysUrl,
    within: Duration,
) -> Result<Bytes, Fault> {
    tokio::time::timeout(within, connect_and_get(source, sought, url))
        .await
        .unwrap_or(Err(Why::Timeout))
        .map_err(|why| Fault::new(sought, why))
}

async fn connect_and_get(source: &RemoteKeys, sought: Sought, url: &KeysUrl) -> Result<Bytes, Why> {
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(Why::Connect)?;
    let mut connection = if url.tls {
        let stream = net::encrypt(stream, &url.host, source.authorities.clone()).await?;
        Connection::over(stream, HEAD_BYTES_MAX).await?
    } else {
        Connection::over(stream, HEAD_BYTES_MAX).await?
    };
    let response = connection.send(request(sought, url)?).await?;
    read(response, source.max_bytes).await
}

fn request(sought: Sought, url: &KeysUrl) -> Result<Request<Full<Bytes>>, Why> {
    Request::get(url.target.as_str())
        .header(HOST, url.authority())
        .header(ACCEPT, sought.accepted())
        .header(ACCEPT_ENCODING, "identity")
        .header(CONNECTION, "close")
        .header("user-agent", concat!("portcullis/", env!("CARGO_PKG_VERSION")))
        .body(Full::default())
        .map_err(|error| Why::Broken(error.into()))
}

async fn read(response: Response<Incoming>, bytes_max: usize) -> Result<Bytes, Why> {
    let (head, body) = response.into_parts();
    if head.status.is_redirection() {
        let location = head.headers.get(LOCATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let location = &location[..location.len().min(LOCATION_BYTES_MAX)];
        let location = String::from_utf8_lossy(location).into_owned();
        return Err(Why::Redirect(head.status, location));
    }
    if head.status != StatusCode::OK {
        return Err(Why::Status(head.status));
    }
    if head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(Why::Encoded);
    }
    Ok(net::collect(body, bytes_max).await?)
}
