//! The authority of a request: a valid host and port in one spelling (RFC 3986 §3.2, RFC 9112
//! §3.2).

use http::HeaderValue;

/// Longest host name (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 255;

/// A lower-case host without a trailing dot, and a port where one was given.
#[derive(Debug, Clone)]
pub struct Authority {
    host: Box<str>,
    port: Option<u16>,
    /// Whether the port says nothing new: it is the scheme's or the listener's own.
    port_is_default: bool,
    /// The canonical spelling, ready to forward.
    header: HeaderValue,
}

impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        self.header == other.header
    }
}

impl Authority {
    /// Parses `host`, `host:port`, `[v6]` or `[v6]:port`; nothing for user information, lists,
    /// spaces, odd ports.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (host, port): (Box<str>, _) = if text.starts_with('[') {
            let end = text.find(']')?;
            let (host, rest) = text.split_at(end + 1);
            let address: std::net::Ipv6Addr = host.get(1..end)?.parse().ok()?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
            (format!("[{address}]").into(), port)
        } else {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            let host = host.strip_suffix('.').unwrap_or(host);
            let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            if host.is_empty() || host.starts_with('.') || !host.bytes().all(known) {
                return None;
            }
            let mut host: Box<str> = host.into();
            host.make_ascii_lowercase();
            (host, port)
        };
        if host.len() > HOST_BYTES_MAX {
            return None;
        }
        let port: Option<u16> = match port {
            None => None,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok().filter(|port| *port != 0)?)
            }
            Some(_) => return None,
        };
        let mut canonical = String::with_capacity(host.len() + 6);
        canonical.push_str(&host);
        if let Some(port) = port {
            use std::fmt::Write as _;
            // Writing to a String cannot fail.
            let _ = write!(canonical, ":{port}");
        }
        let header = HeaderValue::try_from(canonical).ok()?;
        Some(Self { host, port, port_is_default: matches!(port, None | Some(80)), header })
    }

    /// What an HTTP/1.0 request without `Host` has.
    pub fn none() -> Self {
        Self {
            host: "".into(),
            port: None,
            port_is_default: true,
            header: HeaderValue::from_static(""),
        }
    }

    /// Notes that the port the client connected to needs no mention.
    pub fn with_local_port(mut self, local: u16) -> Self {
        self.port_is_default |= self.port == Some(local);
        self
    }

    /// The host alone; what routes match.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What tells sites apart in the cache: the host, and the port where it is not the one
    /// everybody uses.
    pub fn site(&self) -> std::borrow::Cow<'_, str> {
        match self.port {
            Some(port) if !self.port_is_default => format!("{}:{port}", self.host).into(),
            _ => (&*self.host).into(),
        }
    }

    /// The value to forward as `Host`; empty when the request had none.
    pub fn to_header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// The same as text.
    pub fn as_str(&self) -> &str {
        self.header.to_str().unwrap_or_default()
    }
}
