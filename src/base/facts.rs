//! Facts about one request that several rooms share, as types: once one of these exists, it has
//! been checked.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};

use super::claim::{Exact, Found};
use super::http::authority::Authority;

/// The address that limits, logs and forwarding headers use: the peer's, or what a trusted proxy
/// said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddr(IpAddr);

impl ClientAddr {
    /// An IPv4-mapped IPv6 address is the same client as the IPv4 address, so it becomes that.
    pub fn new(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    /// The address itself.
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// What is counted as one client: an IPv4 address, or the /64 that one IPv6 subscriber has.
    pub fn principal(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(_) => self.0,
            IpAddr::V6(v6) => {
                let s = v6.segments();
                IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0))
            }
        }
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One client connection, as far as it matters to requests.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The other end of the socket.
    pub address: ClientAddr,
    /// Our end; its port is the one that needs no mention in a `Host`.
    pub local: SocketAddr,
    /// What its encryption says; nothing in clear.
    pub encryption: Option<Arc<Encryption>>,
    /// The address as `X-Forwarded-For` tells it.
    pub forwarded_for: HeaderValue,
    /// What the last `Host` was read as.
    pub host: Remembered<Authority>,
    /// The element of `Forwarded` that the last request got.
    pub forwarded: Remembered<HeaderValue>,
}

/// What the TLS of one client connection says.
#[derive(Debug, Clone)]
pub struct Encryption {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// What TLS asked of clients under the name that this one asked for (SNI); equal numbers are
    /// equal demands.
    pub name_policy: u64,
    /// The client's certificate, which was verified; nothing where it showed none.
    pub client: Option<Arc<ClientCertificate>>,
}

/// What a client's certificate says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The common name, or else the first alternative name.
    pub subject: Option<String>,
    /// The distinguished name (RFC 4514).
    pub dn: String,
    /// DNS names, mail addresses, URIs and IP addresses.
    pub san: Vec<String>,
    /// The serial number in upper-case hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate in lower-case hexadecimal.
    pub sha256: String,
    /// The same in base64url, as `cnf.x5t#S256` has it (RFC 8705 §3.1).
    pub thumbprint: String,
    /// The fields that tell an upstream of it: `Client-Cert` (RFC 9440 §2) and ours.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its dates, in Unix seconds; it is good at both of them (RFC 5280 §4.1.2.5).
    pub not_before: i64,
    /// See `not_before`.
    pub not_after: i64,
}

/// What was made of one host, and is made again only of another: the requests of one connection
/// mostly name the same one.
#[derive(Debug, Clone)]
pub struct Remembered<T>(Arc<Mutex<Option<(HeaderValue, T)>>>);

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> Remembered<T> {
    /// What `make` makes of `host`; nothing where it makes nothing of it.
    pub fn of(&self, host: &HeaderValue, make: impl FnOnce() -> Option<T>) -> Option<T> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, made)) if known == host => Some(made.clone()),
            _ => Some(last.insert((host.clone(), make()?)).1.clone()),
        }
    }
}

impl Peer {
    /// Everything that stays the same for all requests of a connection.
    pub fn new(
        address: ClientAddr,
        local: SocketAddr,
        encryption: Option<Arc<Encryption>>,
    ) -> Self {
        let text = address.to_string();
        let unknown = || HeaderValue::from_static("unknown");
        let forwarded_for = HeaderValue::try_from(text).unwrap_or_else(|_| unknown());
        let (host, forwarded) = (Remembered::default(), Remembered::default());
        Self { address, local, encryption, forwarded_for, host, forwarded }
    }

    /// `http` or `https`, as its requests are sent.
    pub fn scheme(&self) -> &'static str {
        if self.encryption.is_some() { "https" } else { "http" }
    }
}

/// The fields in which trusted proxies name the client. One family is believed and the other one
/// ignored: what a proxy does not write itself it may pass on from anybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardingFields {
    /// `X-Forwarded-For`, `-Proto` and `-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The caller of one request.
#[derive(Debug, Clone)]
pub struct Client {
    /// The address that limits and logs use.
    pub address: ClientAddr,
    /// `http` or `https`, as the client used it.
    pub scheme: &'static str,
    /// What the peer says as a trusted proxy; nothing for everybody else, whose forwarding fields
    /// are replaced.
    pub via: Option<Box<Via>>,
}

impl Client {
    /// The authority that the client itself named, as far as that is known: what trusted proxies
    /// say, or the request's own.
    pub fn authority<'a>(&'a self, target: &'a Target) -> &'a Authority {
        let told = self.via.as_ref().and_then(|via| via.host.as_ref());
        told.unwrap_or(&target.authority)
    }
}

/// A chain of trusted proxies between a client and the gateway.
#[derive(Debug, Clone, Default)]
pub struct Via {
    /// In which fields they speak.
    pub fields: ForwardingFields,
    /// The host that the client named, where they say so.
    pub host: Option<Authority>,
    /// Their addresses, the peer first; empty where they name nobody, so that the peer itself is
    /// the client.
    pub proxies: Vec<ClientAddr>,
}

/// Where a request goes, in the one spelling that everything uses.
#[derive(Debug, Clone)]
pub struct Target {
    /// Host and port.
    pub authority: Authority,
    /// Canonical path, and the query byte for byte.
    pub path_and_query: PathAndQuery,
}

impl Target {
    /// The canonical path.
    pub fn path(&self) -> &str {
        self.path_and_query.path()
    }

    /// The query, without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.path_and_query.query()
    }
}

/// Who calls, as far as that was verified.
pub type Caller = Option<Arc<Identity>>;

/// By what a caller is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A token.
    Token {
        /// SHA-256 of the certificate that its sender must show, in base64url (RFC 8705 §3.1);
        /// nothing where it is good for whoever has it.
        bound_to: Option<Box<str>>,
        /// Thumbprint of the key with which its sender must sign each request (RFC 9449 §6);
        /// nothing where it has none.
        proven_by: Option<Box<str>>,
    },
    /// An API key.
    ApiKey {
        /// Store key of its record, which must exist; nothing when revocation is off.
        record: Option<String>,
    },
    /// The certificate of its connection.
    Certificate,
    /// A session that the gateway has made.
    Session {
        /// SHA-256 of its cookie.
        digest: [u8; 32],
    },
}

/// What a verified token, the record of an API key, or a client's certificate says. Built once and
/// shared by all requests that carry it.
#[derive(Debug)]
pub struct Identity {
    /// The whole claims object.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// What of it cannot be told from `claims`: the exact text of unusual numbers.
    pub exact: Exact,
    /// `sub`
    pub subject: Option<String>,
    /// `iat`, or the begin of a certificate, Unix seconds.
    pub issued_at: Option<i64>,
    /// `exp`, or the end of a certificate, Unix seconds; `i64::MAX` for an API key that does not
    /// expire.
    pub expires_at: i64,
    /// By what it is known.
    pub credential: Credential,
    /// Store keys whose existence revokes it; empty when revocation is off.
    pub blacklist_keys: Vec<String>,
    /// Store key of the subject's not-before time, when revocation is on.
    pub not_before_key: Option<String>,
    /// The name of the verifier that vouches for all this.
    pub verifier: Arc<str>,
    /// The verifier's name, where its callers could be confused with another verifier's: what is
    /// counted or kept by a claim is then told apart by it.
    pub qualifier: Option<Arc<str>>,
    /// The headers that carry claims to the upstream, ready to send.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Identity {
    /// Whether the store can know of a revocation of this credential.
    pub fn is_revocable(&self) -> bool {
        !self.blacklist_keys.is_empty()
            || self.not_before_key.is_some()
            || self.record_key().is_some()
    }

    /// Store key of an API key's record, where it must exist.
    pub fn record_key(&self) -> Option<&str> {
        match &self.credential {
            Credential::ApiKey { record } => record.as_deref(),
            Credential::Token { .. } | Credential::Certificate | Credential::Session { .. } => None,
        }
    }

    /// How many of `blacklist_keys` are of the credential itself, and not of its session.
    pub fn own_keys(&self) -> usize {
        let own = match &self.credential {
            Credential::Token { bound_to, .. } => 1 + usize::from(bound_to.is_some()),
            Credential::ApiKey { .. } | Credential::Certificate | Credential::Session { .. } => 1,
        };
        own.min(self.blacklist_keys.len())
    }

    /// A claim, also a nested one (`realm.roles`): a dotted name that is no claim itself walks into
    /// nested objects.
    pub fn find(&self, name: &str) -> Option<Found<'_>> {
        let claim = |name: &str| {
            let value = self.claims.get(name)?;
            Some(Found::new(value, self.exact.within.get(name)))
        };
        if let Some(found) = claim(name) {
            return Some(found);
        }
        let mut parts = name.split('.');
        let first = claim(parts.next()?)?;
        parts.try_fold(first, Found::member)
    }
}

/// A JSON scalar as text; nothing for null, arrays and objects.
pub fn scalar(value: &serde_json::Value) -> Option<std::borrow::Cow<'_, str>> {
    use serde_json::Value;
    match value {
        Value::String(text) => Some(text.as_str().into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Bool(flag) => Some(if *flag { "true" } else { "false" }.into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether a message is a stream of events (HTML Living Standard, server-sent events): it may pause
/// for long, and has no end of its own.
pub fn is_event_stream(headers: &http::HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        let kind = value.split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    })
}
