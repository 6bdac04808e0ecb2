//! The authority of a request: a valid host and port in one spelling (RFC 3986 §3.2, RFC 9112
//! §3.2).

use std::borrow::Cow;

use http::HeaderValue;

/// Longest host name (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 255;

/// A lower-case host without a trailing dot, and a port where one was given.
#[derive(Debug, Clone)]
pub struct Authority {
    /// The canonical spelling, ready to forward: the host, and `:port` where one was given.
    header: HeaderValue,
    /// Length of the host in it.
    host_bytes: usize,
    port: Option<u16>,
    /// Whether the port says nothing new: it is the scheme's or the listener's own.
    port_is_default: bool,
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
        Self::of_header(&HeaderValue::from_bytes(text).ok()?)
    }

    /// The same of a field's value, whose bytes are kept where they are canonical already.
    pub fn of_header(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let (host, port) = split(text)?;
        let port: Option<u16> = match port {
            None => None,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok().filter(|port| *port != 0)?)
            }
            Some(_) => return None,
        };
        let canonical = canonical_host(host)?;
        if canonical.len() > HOST_BYTES_MAX {
            return None;
        }
        let host_bytes = canonical.len();
        let port_is_plain = port.is_none_or(|_| !text[host.len() + 1..].starts_with('0'));
        let header = if *canonical == *host && port_is_plain {
            value.clone()
        } else {
            let mut spelled = canonical.into_owned();
            if let Some(port) = port {
                spelled.push(':');
                spelled.push_str(&port.to_string());
            }
            HeaderValue::try_from(spelled).ok()?
        };
        Some(Self { header, host_bytes, port, port_is_default: matches!(port, None | Some(80)) })
    }

    /// What an HTTP/1.0 request without `Host` has.
    pub fn none() -> Self {
        Self {
            header: HeaderValue::from_static(""),
            host_bytes: 0,
            port: None,
            port_is_default: true,
        }
    }

    /// Notes that the port the client connected to needs no mention.
    pub fn with_local_port(mut self, local: u16) -> Self {
        self.port_is_default |= self.port == Some(local);
        self
    }

    /// The host alone; what routes match.
    pub fn host(&self) -> &str {
        self.as_str().get(..self.host_bytes).unwrap_or_default()
    }

    /// What tells sites apart in the cache: the host, and the port where it is not the one
    /// everybody uses.
    pub fn site(&self) -> Cow<'_, str> {
        match self.port {
            Some(_) if !self.port_is_default => self.as_str().into(),
            _ => self.host().into(),
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

/// The host, and what follows its colon.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if text.starts_with('[') {
        let (host, rest) = text.split_at(text.find(']')? + 1);
        let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
        return Some((host, port));
    }
    match text.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

/// Lower case, without the root's dot; IPv6 in its shortest form (RFC 5952).
fn canonical_host(host: &str) -> Option<Cow<'_, str>> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: std::net::Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]").into());
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.is_empty() || host.starts_with('.') || !host.bytes().all(known) {
        return None;
    }
    let upper = host.bytes().any(|b| b.is_ascii_uppercase());
    Some(if upper { host.to_ascii_lowercase().into() } else { host.into() })
}
