//! A running gateway, reached through its admin API: one request over HTTP/1.1, with a deadline,
//! and errors that say what to do. It must not know what is asked.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use serde_json::Value;

use super::given;
use crate::base::units::Secret;
use crate::config::{self, Loaded, Problems};
use crate::net::{self, Connection};

/// Longest wait for the whole exchange, connecting included. The gateway itself waits for the store
/// for `store.timeout` at most.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for what fetches many responses before it answers.
const LONG_EXCHANGE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Largest answer that is read, in bytes: a thousand requests of two kibibytes each, and more.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Exit status when the gateway refused or could not do what was asked.
const REFUSED: u8 = 1;
/// Exit status of a command line or a configuration that cannot be used.
const UNUSABLE: u8 = 2;
/// Exit status when no gateway answered.
const UNREACHABLE: u8 = 3;

/// Why a command did not do what it was told: its exit status, and what to print.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: u8,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn unusable(text: impl Into<String>) -> Self {
        Self { status: UNUSABLE, text: text.into() }
    }

    /// Whether no gateway answered.
    pub(super) fn is_unreachable(&self) -> bool {
        self.status == UNREACHABLE
    }

    fn unreachable(text: String) -> Self {
        Self { status: UNREACHABLE, text }
    }

    fn refused(text: String) -> Self {
        Self { status: REFUSED, text }
    }
}

/// Where an admin listener is, and the token that it wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remote {
    /// `host:port`
    authority: String,
    token: Option<Secret>,
}

impl Remote {
    /// The gateway that the command line names, or else the one that the file at `path` configures.
    ///
    /// # Errors
    /// When either cannot be understood.
    pub(super) fn find(
        url: Option<&str>,
        token: Option<&str>,
        path: &Path,
    ) -> Result<Self, Failure> {
        let token = token.map(read_token).transpose()?;
        if let Some(url) = url {
            return Ok(Self { authority: authority(url)?, token });
        }
        let Loaded { config, problems, source, .. } = config::load(path).map_err(|text| {
            Failure::unusable(format!(
                "{text}    or: name the running gateway with --admin http://HOST:PORT"
            ))
        })?;
        // What else is wrong with the file is no matter here; the gateway may run on another one.
        let mut own = Problems::default();
        for problem in &problems {
            let given = token.is_some() && problem.path == "admin.token";
            // Whoever reads alone sends another one.
            let is_other = problem.path == "admin.read_token";
            if problem.path.starts_with("admin") && !given && !is_other {
                own.push(&problem.path, &problem.what, &problem.remedy);
            }
        }
        if !own.is_empty() {
            return Err(Failure::unusable(source.render(&own)));
        }
        let authority = reachable(config.admin.listen).to_string();
        Ok(Self { authority, token: token.or(config.admin.token) })
    }

    /// Where it is, `host:port`.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends one operation, and returns the answer of a gateway that carried it out. `members` are
    /// what its answer cannot be without: other servers answer in JSON, too.
    ///
    /// # Errors
    /// When no gateway answers, or it refuses.
    pub(super) fn send(
        &self,
        (method, path): (Method, &str),
        body: &Value,
        members: &[&str],
    ) -> Result<Value, Failure> {
        self.send_within(EXCHANGE_TIMEOUT, self.request(method, path, body)?, members)
    }

    /// The same for an operation that takes its time.
    ///
    /// # Errors
    /// See [`Self::send`].
    pub(super) fn send_long(
        &self,
        (method, path): (Method, &str),
        body: &Value,
        members: &[&str],
    ) -> Result<Value, Failure> {
        self.send_within(LONG_EXCHANGE_TIMEOUT, self.request(method, path, body)?, members)
    }

    fn send_within(
        &self,
        limit: Duration,
        request: Request<Full<Bytes>>,
        members: &[&str],
    ) -> Result<Value, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::refused(format!("cannot start the runtime: {error}")))?;
        let exchanged = runtime.block_on(async {
            tokio::time::timeout(limit, exchange(&self.authority, request)).await
        });
        let (status, body) = match exchanged {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.nobody(&error)),
            Err(_) => {
                let seconds = limit.as_secs();
                return Err(self.nobody(&format!("no answer within {seconds} s")));
            }
        };
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !status.is_success() {
            return Err(self.refusal(status, &answer));
        }
        if members.iter().all(|name| answer.get(name).is_some()) {
            return Ok(answer);
        }
        Err(self.stranger(status))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::new(Full::new(Bytes::from(body.to_string())));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        let host = HeaderValue::try_from(&self.authority)
            .map_err(|_| Failure::unusable("--admin names no host; write http://HOST:PORT"))?;
        headers.insert(HOST, host);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = &self.token {
            let bearer = [b"Bearer ", token.expose()].concat();
            let mut value = HeaderValue::try_from(bearer).map_err(|_| {
                Failure::unusable("the admin token has characters that no header can carry")
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    fn nobody(&self, error: &str) -> Failure {
        Failure::unreachable(format!(
            "no gateway answers on {}: {error}\n    \
             help: is it running? its address is admin.listen in its gateway.toml: name that file \
             with --config, or the address with --admin http://HOST:PORT",
            self.authority
        ))
    }

    /// Something else answers there.
    fn stranger(&self, status: StatusCode) -> Failure {
        Failure::refused(format!(
            "what answers on {} is no admin listener of this version (status {})\n    \
             help: name the address of admin.listen with --admin http://HOST:PORT; the public \
             listener does not do",
            self.authority,
            status.as_u16()
        ))
    }

    fn refusal(&self, status: StatusCode, answer: &Value) -> Failure {
        let kind = answer.get("type").and_then(Value::as_str).unwrap_or_default();
        let code = kind.strip_prefix("urn:portcullis:problem:").unwrap_or_default();
        let detail = answer.get("detail").and_then(Value::as_str).unwrap_or_default();
        let authority = &self.authority;
        if matches!(code, "" | "not_found" | "route_not_found" | "method_not_allowed") {
            return self.stranger(status);
        }
        Failure::refused(match code {
            "admin_token_invalid" if self.token.is_some() => format!(
                "the gateway on {authority} does not accept this admin token\n    \
                 help: give the value of its admin.token, with --admin-token env:NAME or file:PATH"
            ),
            "admin_token_invalid" => format!(
                "the gateway on {authority} wants its admin token\n    \
                 help: give the value of its admin.token, with --admin-token env:NAME or file:PATH"
            ),
            _ => format!("the gateway on {authority} did not do it: {detail}"),
        })
    }
}

/// A secret on the command line would stand in every process list.
fn read_token(text: &str) -> Result<Secret, Failure> {
    let found = given::elsewhere("--admin-token", text).ok_or_else(|| {
        Failure::unusable(
            "--admin-token takes env:NAME or file:PATH, because a process list would show the \
             token itself",
        )
    })?;
    let value = found.map_err(Failure::unusable)?;
    let value = value.trim_ascii_end();
    if value.is_empty() {
        return Err(Failure::unusable(format!("--admin-token: {text} is empty; give it a value")));
    }
    Ok(Secret::new(value))
}

/// `host:port` of an `http://host:port`, whose port is 80 when it is left out.
fn authority(url: &str) -> Result<String, Failure> {
    let wrong = |what: &str| {
        let text = format!(
            "--admin {url}: {what}; write http://HOST:PORT, the address of the \
                            gateway's admin.listen"
        );
        Failure::unusable(text)
    };
    let uri: Uri = url.parse().map_err(|_| wrong("this is no URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong("the admin listener speaks plain HTTP"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("it names a user, which the admin API does not know"));
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(wrong("it goes on after the port"));
    }
    Ok(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)))
}

/// The address at which this machine reaches a listener of its own.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        address.set_ip(if address.is_ipv4() { v4 } else { v6 });
    }
    address
}

async fn exchange(
    authority: &str,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), String> {
    let told = |fault: net::Fault| match fault {
        net::Fault::Broken(error) => format!("it is no HTTP server, or broke off ({error})"),
        other => other.to_string(),
    };
    let mut connection = Connection::open(authority).await.map_err(told)?;
    let (head, body) = connection.send(request).await.map_err(told)?.into_parts();
    let body = net::collect(body, ANSWER_BYTES_MAX).await;
    let body = body.map_err(|fault| format!("its answer cannot be read ({fault})"))?;
    Ok((head.status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_url_is_a_host_and_a_port() {
        for (url, expected) in [
            ("http://127.0.0.1:9901", "127.0.0.1:9901"),
            ("http://edge-1.internal:9901/", "edge-1.internal:9901"),
            ("http://[::1]:9901", "[::1]:9901"),
            ("http://edge", "edge:80"),
        ] {
            assert_eq!(authority(url).as_deref(), Ok(expected), "{url}");
        }
        for url in
            ["", "127.0.0.1:9901", "https://h:1", "http://u:p@h:1", "http://h:1/v1", "http:/"]
        {
            let failure = authority(url).unwrap_err();
            assert_eq!(failure.status, UNUSABLE, "{url}");
            assert!(failure.text.contains("http://HOST:PORT"), "{}", failure.text);
        }
    }

    #[test]
    fn a_listener_on_every_address_is_reached_on_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:9901", "127.0.0.1:9901"),
            ("[::]:9901", "[::1]:9901"),
            ("10.0.0.1:9901", "10.0.0.1:9901"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        }
    }

    #[test]
    fn a_token_is_never_taken_from_the_command_line() {
        let failure = read_token("operator-0123456789").unwrap_err();
        assert_eq!(failure.status, UNUSABLE);
        assert!(!failure.text.contains("operator"), "{}", failure.text);
        assert!(read_token("env:PORTCULLIS_TEST_NOT_SET").is_err());
        assert!(read_token("file:/nonexistent").is_err());
    }
}
