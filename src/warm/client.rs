//! One connection to this node's own public listener, made anew when it is lost.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use crate::base::http::authority::Authority;
use crate::net::{self, Connection};

/// Longest wait for one whole response.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest sitemap, in bytes.
const SITEMAP_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What became of one response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Fresh,
    Stored,
    NotStored,
    Failed,
}

/// See the module.
pub(super) struct Client {
    address: SocketAddr,
    host: HeaderValue,
    connection: Option<Connection>,
}

impl Client {
    pub(super) fn new(address: SocketAddr, authority: &Authority) -> Self {
        Self { address, host: authority.to_header(), connection: None }
    }

    /// Fetches a path, to the end of its body.
    pub(super) async fn fetch(
        &mut self,
        path: &str,
        fields: &[(HeaderName, HeaderValue)],
    ) -> Outcome {
        let exchange = async {
            let response = self.send(path, fields).await?;
            let (head, mut body) = response.into_parts();
            while let Some(frame) = body.frame().await {
                frame.map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(head)
        };
        let head = match tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await {
            Ok(Ok(head)) => head,
            // What is left of the exchange must not be taken for the next answer.
            Ok(Err(_)) | Err(_) => {
                self.connection = None;
                return Outcome::Failed;
            }
        };
        // The gateway's own word is the last one.
        let told = head.headers.get_all("cache-status").iter().next_back();
        let told = told.and_then(|told| told.to_str().ok()).unwrap_or_default();
        if told.contains("portcullis; hit") || told.contains("; collapsed") {
            Outcome::Fresh
        } else if told.contains("; stored") {
            Outcome::Stored
        } else if head.status.is_server_error() || head.status.is_client_error() {
            Outcome::Failed
        } else {
            Outcome::NotStored
        }
    }

    /// Fetches a text.
    pub(super) async fn text(&mut self, path: &str) -> Result<String, String> {
        let exchange = async {
            let (head, body) = self.send(path, &[]).await?.into_parts();
            if !head.status.is_success() {
                return Err(format!("{path} answers {}", head.status));
            }
            let body = net::collect(body, SITEMAP_BYTES_MAX).await;
            let body = body.map_err(|fault| fault.to_string())?;
            Ok(String::from_utf8_lossy(&body).into_owned())
        };
        let answered = tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await;
        answered.map_err(|_| format!("{path} took longer than {EXCHANGE_TIMEOUT:?}"))?
    }

    async fn send(
        &mut self,
        path: &str,
        fields: &[(HeaderName, HeaderValue)],
    ) -> Result<Response<Incoming>, String> {
        let kept = match self.connection.take() {
            Some(mut connection) => connection.is_ready().await.then_some(connection),
            None => None,
        };
        let connection = match kept {
            Some(connection) => connection,
            None => Connection::open(self.address).await.map_err(|fault| fault.to_string())?,
        };
        let connection = self.connection.insert(connection);
        let mut request = Request::new(Full::<Bytes>::default());
        *request.uri_mut() = path.parse().map_err(|_| format!("{path:?} is no path"))?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static("portcullis-warm"));
        headers.extend(fields.iter().cloned());
        connection.send(request).await.map_err(|fault| fault.to_string())
    }
}
