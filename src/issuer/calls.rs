//! Calls to a provider beside fetching its keys: codes and tokens are exchanged, and claims asked
//! for. Each has a connection of its own and one deadline; so many at a time, and no more. It must
//! not know what the answers mean.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST,
};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::config::{KeysUrl, Provider};
use crate::net::{self, Connection};

/// Largest response head, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// What one provider is asked with.
#[derive(Debug)]
pub struct Calls {
    permits: Semaphore,
    timeout: Duration,
    max_bytes: usize,
    authorities: Vec<CertificateDer<'static>>,
}

impl Calls {
    /// Within the bounds of `[providers.NAME]`.
    pub fn new(provider: &Provider) -> Self {
        Self {
            permits: Semaphore::new(provider.in_flight),
            timeout: provider.timeout,
            max_bytes: provider.max_bytes,
            authorities: provider
                .keys
                .as_ref()
                .map(|it| it.authorities.clone())
                .unwrap_or_default(),
        }
    }

    /// Posts a form. `credentials` is `Authorization`, where there is one.
    ///
    /// # Errors
    /// There is no whole answer.
    pub async fn post(
        &self,
        url: &KeysUrl,
        form: String,
        credentials: Option<HeaderValue>,
    ) -> Result<(StatusCode, Bytes), String> {
        let mut request = Request::post(url.target.as_str())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(credentials) = credentials {
            request = request.header(AUTHORIZATION, credentials);
        }
        self.call(url, request, form).await
    }

    /// Gets what an access token opens (RFC 6750 §2.1).
    ///
    /// # Errors
    /// There is no whole answer.
    pub async fn get(
        &self,
        url: &KeysUrl,
        access_token: &str,
    ) -> Result<(StatusCode, Bytes), String> {
        let credentials = HeaderValue::try_from(format!("Bearer {access_token}"));
        let mut credentials = credentials.map_err(|error| error.to_string())?;
        credentials.set_sensitive(true);
        let request = Request::get(url.target.as_str()).header(AUTHORIZATION, credentials);
        self.call(url, request, String::new()).await
    }

    async fn call(
        &self,
        url: &KeysUrl,
        request: http::request::Builder,
        body: String,
    ) -> Result<(StatusCode, Bytes), String> {
        let request = request
            .header(HOST, url.authority())
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .header(CONNECTION, "close")
            .header("user-agent", concat!("portcullis/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(self.timeout, self.exchange(url, request)).await;
        answer.unwrap_or_else(|_| Err("no whole answer in time".to_owned()))
    }

    async fn exchange(
        &self,
        url: &KeysUrl,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), String> {
        let told = |fault: net::Fault| fault.to_string();
        let Ok(_permit) = self.permits.acquire().await else { return Err("closed".to_owned()) };
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
        let stream = stream.map_err(|error| format!("no connection: {error}"))?;
        let mut connection = if url.tls {
            let stream = net::encrypt(stream, &url.host, self.authorities.clone()).await;
            Connection::over(stream.map_err(told)?, HEAD_BYTES_MAX).await
        } else {
            Connection::over(stream, HEAD_BYTES_MAX).await
        }
        .map_err(told)?;
        let (head, body) = connection.send(request).await.map_err(told)?.into_parts();
        // No redirect is followed: what was configured is what is trusted (RFC 9700 §4.12).
        if head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err("it answered in an encoding that was not asked for".to_owned());
        }
        let body = net::collect(body, self.max_bytes).await.map_err(told)?;
        Ok((head.status, body))
    }
}
