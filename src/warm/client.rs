//! A client of this gateway's own, without a socket: its requests go the way of all requests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt as _, Limited};

use crate::base::body::Inbound;
use crate::base::facts::{ClientAddr, Encryption, Peer};
use crate::base::http::authority::Authority;
use crate::proxy::{self, Connection};
use crate::runtime::{Gateway, Running};

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
#[derive(Clone)]
pub(super) struct Client {
    gateway: Arc<Gateway>,
    peer: Peer,
    host: HeaderValue,
}

impl Client {
    /// One that asks for this host, over TLS where the gateway speaks it: what is stored is stored
    /// for a scheme.
    pub(super) fn new(gateway: &Arc<Gateway>, running: &Running, authority: &Authority) -> Self {
        let encryption = running.tls.as_ref().map(|live| {
            let entry = live.table().find(Some(authority.host())).map(Arc::clone);
            let name_policy = entry.map_or(0, |entry| entry.name_policy());
            Arc::new(Encryption { version: "-", name_policy, client: None })
        });
        let address = ClientAddr::new(Ipv4Addr::LOCALHOST.into());
        let listener = running.plan.config.server.listeners();
        let listener = listener.filter(|(_, tls)| *tls == encryption.is_some()).map(|it| it.0);
        let local = { listener }.next().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
        let peer = Peer::new(address, local, encryption);
        Self { gateway: Arc::clone(gateway), peer, host: authority.to_header() }
    }

    /// Fetches a path, to the end of its body.
    pub(super) async fn fetch(&self, path: &str, fields: &[(HeaderName, HeaderValue)]) -> Outcome {
        let exchange = async {
            let (head, mut body) = self.send(path, fields).await?.into_parts();
            while let Some(frame) = body.frame().await {
                frame.map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(head)
        };
        let Ok(Ok(head)) = tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await else {
            return Outcome::Failed;
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
    pub(super) async fn text(&self, path: &str) -> Result<String, String> {
        let exchange = async {
            let (head, body) = self.send(path, &[]).await?.into_parts();
            if !head.status.is_success() {
                return Err(format!("{path} answers {}", head.status));
            }
            let body = Limited::new(body, SITEMAP_BYTES_MAX).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok(String::from_utf8_lossy(&body).into_owned())
        };
        let answered = tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await;
        answered.map_err(|_| format!("{path} took longer than {EXCHANGE_TIMEOUT:?}"))?
    }

    async fn send(
        &self,
        path: &str,
        fields: &[(HeaderName, HeaderValue)],
    ) -> Result<Response<proxy::Body>, String> {
        let mut request = Request::new(Inbound::Bytes(Bytes::new()));
        // Over HTTP/2 nobody waits for interim responses.
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = path.parse().map_err(|_| format!("{path:?} is no path"))?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static("portcullis-warm"));
        headers.extend(fields.iter().cloned());
        let connection = Connection::new(&self.gateway, self.peer.clone());
        Ok(proxy::handle(&connection, request).await)
    }
}
