//! The collector that spans are sent to, as an HTTP client for the exporter. A connection is kept,
//! and what the collector cannot take at the moment is sent again.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::{KeysUrl, Traces};
use crate::net::{self, Connection};

/// How long one batch may take, all attempts together.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before a second attempt, where the collector names none; it doubles.
const BACKOFF: Duration = Duration::from_secs(1);
/// Largest head and body of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const BODY_BYTES_MAX: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Collector {
    url: KeysUrl,
    /// The fields of every request.
    fields: HeaderMap,
    /// What the last exchange has left.
    connection: Mutex<Option<Connection>>,
}

impl Collector {
    /// Where the configuration says, with the fields that it names.
    pub(super) fn new(traces: &Traces) -> Self {
        let mut fields = HeaderMap::new();
        for (name, value) in &traces.headers {
            if let Ok(mut value) = HeaderValue::from_bytes(value.expose()) {
                value.set_sensitive(true);
                fields.insert(name, value);
            }
        }
        let agent = HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION")));
        fields.insert(USER_AGENT, agent);
        if let Ok(host) = HeaderValue::try_from(traces.endpoint.authority()) {
            fields.insert(HOST, host);
        }
        // Whatever the environment would have the exporter say stays out.
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        Self { url: traces.endpoint.clone(), fields, connection: Mutex::default() }
    }

    /// Sends spans until the collector has said that it takes them, or that it never will.
    async fn send(&self, body: Bytes) -> Result<Response<Bytes>, HttpError> {
        let deadline = Instant::now() + TIMEOUT;
        let mut pause = BACKOFF;
        loop {
            let response = self.exchange(body.clone()).await?;
            if !is_for_now(response.status()) {
                return Ok(response);
            }
            // A clock that is behind, or a collector that says 0, must not make a flood.
            let rest = named_pause(response.headers()).unwrap_or(pause).max(BACKOFF);
            let again = Instant::now() + rest;
            if again >= deadline {
                return Ok(response);
            }
            sleep_until(again).await;
            pause *= 2;
        }
    }

    /// One request. A connection that was kept may have been closed since.
    async fn exchange(&self, body: Bytes) -> Result<Response<Bytes>, HttpError> {
        let mut kept = self.connection.lock().await;
        let mut response = None;
        if let Some(mut connection) = kept.take()
            && connection.is_ready().await
            && let Ok(answered) = connection.send(self.request(&body)?).await
        {
            response = Some((connection, answered));
        }
        let (connection, response) = match response {
            Some(answered) => answered,
            None => {
                let mut connection = self.connect().await?;
                let response = connection.send(self.request(&body)?).await?;
                (connection, response)
            }
        };
        let response = whole(response).await?;
        *kept = Some(connection);
        Ok(response)
    }

    async fn connect(&self) -> Result<Connection, HttpError> {
        let KeysUrl { host, port, tls, .. } = &self.url;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        Ok(if *tls {
            let stream = net::encrypt(stream, host, Vec::new()).await?;
            Connection::over(stream, HEAD_BYTES_MAX).await?
        } else {
            Connection::over(stream, HEAD_BYTES_MAX).await?
        })
    }

    fn request(&self, body: &Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::post(self.url.target.as_str()).body(Full::new(body.clone()))?;
        request.headers_mut().clone_from(&self.fields);
        Ok(request)
    }
}

/// Whether the collector may take later what it does not take now (OTLP/HTTP, "Failures").
fn is_for_now(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// How long the collector wants us to wait: seconds, or until a date (RFC 9110 §10.2.3).
fn named_pause(fields: &HeaderMap) -> Option<Duration> {
    let text = fields.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(u64::min(seconds, TIMEOUT.as_secs())));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default().min(TIMEOUT))
}

async fn whole(response: Response<Incoming>) -> Result<Response<Bytes>, net::Fault> {
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, net::collect(body, BODY_BYTES_MAX).await?))
}

impl HttpClient for Collector {
    // As the exporter's `async_trait` has it.
    fn send_bytes<'c, 'f>(
        &'c self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'c: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            timeout(TIMEOUT, self.send(request.into_body()))
                .await
                .unwrap_or_else(|passed| Err(passed.into()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_for_now_is_sent_again_when_the_collector_says() {
        for (status, expected) in [
            (429, true),
            (502, true),
            (503, true),
            (504, true),
            (200, false),
            (400, false),
            (401, false),
            (500, false),
            (501, false),
        ] {
            assert_eq!(is_for_now(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
        let named = |text: &str| {
            let value = HeaderValue::try_from(text).unwrap();
            named_pause(&HeaderMap::from_iter([(RETRY_AFTER, value)]))
        };
        assert_eq!(named_pause(&HeaderMap::new()), None);
        assert_eq!(named("3"), Some(Duration::from_secs(3)));
        assert_eq!(named("99999999999"), Some(TIMEOUT));
        assert_eq!(named("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        assert_eq!(named("soon"), None);
    }
}
