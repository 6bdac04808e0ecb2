//! Requests to the authority, by the gateway's own small client: one connection each, every part of
//! an answer bounded.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Collected, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;

use crate::config;
use crate::net::{self, Connection};

/// Longest time that an authority may tell us to wait, in seconds: a day.
const RETRY_AFTER_MAX: u64 = 24 * 3600;
/// Largest head and body of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Client {
    authorities: Vec<CertificateDer<'static>>,
    timeout: Duration,
}

/// What went wrong before the authority was asked to change anything.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct NotSent(Error);

/// Whether it is sure that the authority has not done what it was asked for: it has refused, or
/// never got so far as to hear of it.
pub(super) fn is_undone(error: &Error) -> bool {
    match error {
        Error::Api(_) => true,
        Error::Other(other) => other.is::<NotSent>(),
        _ => false,
    }
}

impl Client {
    /// One that believes whom the configuration names.
    pub(super) fn new(settings: &config::Acme) -> Self {
        Self { authorities: settings.authorities.clone(), timeout: settings.timeout }
    }

    /// `is_sent` says whether the authority may have begun to do what is asked: whether it got
    /// the request, and that changes something.
    async fn exchange(
        &self,
        request: Request<BodyWrapper<Bytes>>,
        is_sent: &mut bool,
    ) -> Result<BytesResponse, Error> {
        let (head, body) = request.into_parts();
        let (changes, is_head) = (!head.method.is_safe(), head.method == Method::HEAD);
        let Some((host, port)) = place(&head.uri) else {
            return Err(other(format!("{:?} is no https URL", head.uri.to_string())));
        };
        let target = head.uri.path_and_query().map_or("/", |it| it.as_str());
        let Ok(body) = body.collect().await.map(Collected::to_bytes);
        let mut request =
            Request::builder().method(head.method).uri(target).body(Full::new(body))?;
        *request.headers_mut() = head.headers;
        let authority = head.uri.authority().map_or("", |authority| authority.as_str());
        let authority = HeaderValue::from_str(authority).map_err(http::Error::from)?;
        let user_agent =
            HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION")));
        for (name, value) in [
            (HOST, authority),
            (CONNECTION, HeaderValue::from_static("close")),
            (USER_AGENT, user_agent),
        ] {
            request.headers_mut().insert(name, value);
        }
        let stream = TcpStream::connect((host, port)).await;
        let stream = stream.map_err(|error| other(format!("no connection to {host}: {error}")))?;
        let _ = stream.set_nodelay(true);
        let faulty = |fault: net::Fault| other(format!("{host}: {fault}"));
        let stream = net::encrypt(stream, host, self.authorities.clone()).await;
        let stream = stream.map_err(|fault| match fault {
            net::Fault::Tls(error) => other(format!(
                "{host}: no TLS: {error}; a private authority must be named as \
                 server.tls.acme.ca_file"
            )),
            fault => faulty(fault),
        })?;
        let mut connection = Connection::over(stream, HEAD_BYTES_MAX).await.map_err(faulty)?;
        *is_sent = changes;
        let (mut parts, body) = connection.send(request).await.map_err(faulty)?.into_parts();
        bound_retry(&mut parts.headers);
        if is_head && parts.status != StatusCode::OK {
            // Only nonces are asked for so. It goes before what is to be changed, and who asked
            // for that could not tell the one refusal from the other.
            return Err(other(format!("{host}: no nonce: {}", parts.status)));
        }
        let body = net::collect(body, BODY_BYTES_MAX).await.map_err(faulty)?;
        Ok(BytesResponse { parts, body: Box::new(body) })
    }
}

/// Bounds for how long an authority may tell us to wait, in seconds (RFC 9110 §10.2.3): a number
/// that no clock can be moved by ends the task that adds it.
fn bound_retry(headers: &mut HeaderMap) {
    let seconds = headers.get(RETRY_AFTER).and_then(|it| it.to_str().ok()?.trim().parse().ok());
    if seconds.is_some_and(|seconds: u64| seconds > RETRY_AFTER_MAX) {
        headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_MAX));
    }
}

/// Host, without brackets, and port of an `https` URL.
fn place(uri: &Uri) -> Option<(&str, u16)> {
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https"))?;
    Some((host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(443)))
}

fn other(text: String) -> Error {
    Error::Other(text.into())
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let mut is_sent = false;
            let exchange = client.exchange(request, &mut is_sent);
            let late = || other("no whole answer within server.tls.acme.timeout".to_owned());
            let answer = tokio::time::timeout(client.timeout, exchange).await;
            answer.unwrap_or_else(|_| Err(late())).map_err(|error| match is_sent {
                true => error,
                false => Error::Other(Box::new(NotSent(error))),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_never_left_is_undone() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client { authorities: Vec::new(), timeout: Duration::from_millis(100) };
        for address in [silent.local_addr().unwrap(), closed] {
            let request = Request::post(format!("https://{address}/order"));
            let request = request.body(BodyWrapper::default()).unwrap();
            let Err(error) = client.request(request).await else { panic!("an answer") };
            assert!(is_undone(&error), "{error}");
        }
        assert!(!is_undone(&other("no whole answer".to_owned())));
        assert!(!is_undone(&Error::Str("no order URL found")));
    }

    #[test]
    fn nobody_is_told_to_wait_for_longer_than_a_day() {
        for (said, kept) in [
            ("3600", "3600"),
            ("86400", "86400"),
            ("86401", "86400"),
            (" 18446744073709551615", "86400"),
            // What is no number of 64 bits is not understood, and does no harm.
            ("18446744073709551616", "18446744073709551616"),
            ("Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(said));
            bound_retry(&mut headers);
            assert_eq!(headers[RETRY_AFTER], kept, "{said}");
        }
    }
}
