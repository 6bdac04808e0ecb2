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
    /// spaces, odd ports. A colon without a port says no more than none (RFC 3986 §3.2.3, RFC 9110
    /// §4.2.3). The canonical spelling of an authority is its own canonical spelling.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::of_header(&HeaderValue::from_bytes(text).ok()?)
    }

    /// The same of a field's value, whose bytes are kept where they are canonical already.
    pub fn of_header(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let (host, written) = split(text)?;
        let port: Option<u16> = match written {
            None | Some("") => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok().filter(|port| *port != 0)?)
            }
            Some(_) => return None,
        };
        let canonical = canonical_host(host)?;
        if canonical.len() > HOST_BYTES_MAX {
            return None;
        }
        let host_bytes = canonical.len();
        let port_is_plain = match written {
            None => true,
            Some(digits) => port.is_some() && !digits.starts_with('0'),
        };
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

    /// Whether there is none; see [`Self::none`].
    pub fn is_none(&self) -> bool {
        self.host_bytes == 0
    }

    /// Notes that the scheme's port needs no mention, nor the one that the client connected to.
    pub fn with_default_ports(mut self, scheme: &str, local: u16) -> Self {
        let of_scheme = if scheme == "https" { 443 } else { 80 };
        self.port_is_default = self.port.is_none_or(|port| port == of_scheme || port == local);
        self
    }

    /// Whether a port was given.
    pub fn names_port(&self) -> bool {
        self.port.is_some()
    }

    /// The port that was given.
    pub fn port(&self) -> Option<u16> {
        self.port
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

/// The one spelling of a host: lower case, without the root's dot; IPv6 in its shortest form (RFC
/// 5952). Nothing for what is no host: a label that is empty would be another one where somebody
/// takes a second dot away, and a zone means nothing beyond its own machine (RFC 6874).
pub fn canonical_host(host: &str) -> Option<Cow<'_, str>> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: std::net::Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]").into());
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let (mut previous, mut upper) = (b'.', false);
    for byte in host.bytes() {
        let known = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if !known || (byte == b'.' && previous == b'.') {
            return None;
        }
        upper |= byte.is_ascii_uppercase();
        previous = byte;
    }
    if previous == b'.' {
        return None;
    }
    Some(if upper { host.to_ascii_lowercase().into() } else { host.into() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> Option<String> {
        Authority::parse(text.as_bytes()).map(|authority| authority.as_str().to_owned())
    }

    #[test]
    fn one_spelling() {
        for (given, expected) in [
            ("api.test", Some("api.test")),
            ("API.Test.", Some("api.test")),
            ("api.test:", Some("api.test")),
            ("api.test.:", Some("api.test")),
            ("api.test:080", Some("api.test:80")),
            ("api.test:00000000443", Some("api.test:443")),
            ("a_b.test", Some("a_b.test")),
            ("127.0.0.1.", Some("127.0.0.1")),
            // No address, and no reader of `Host` makes it one: a name like any other.
            ("0x7f.1", Some("0x7f.1")),
            ("[::1]:", Some("[::1]")),
            ("[0:0:0:0:0:0:0:1]:81", Some("[::1]:81")),
            ("[2001:DB8::00ff]", Some("[2001:db8::ff]")),
            ("[::FFFF:192.0.2.1]", Some("[::ffff:192.0.2.1]")),
            ("api.test..", None),
            ("api.test..:80", None),
            ("api..test", None),
            (".api.test", None),
            (".", None),
            ("..", None),
            (":", None),
            (":80", None),
            ("api.test::", None),
            ("api.test:0", None),
            ("api.test:00", None),
            ("api.test:65536", None),
            ("api.test:-1", None),
            ("api.test:+80", None),
            ("api.test: 80", None),
            ("u@api.test", None),
            ("api%2Etest", None),
            ("%61pi.test", None),
            ("\u{e4}pi.test", None),
            ("[::1].", None),
            ("[::1", None),
            ("::1", None),
            ("[fe80::1%25eth0]", None),
            ("[fe80::1%eth0]", None),
            ("[v1.x]", None),
            ("[127.0.0.1]", None),
            ("", None),
        ] {
            assert_eq!(canonical(given).as_deref(), expected, "{given}");
        }
    }

    proptest! {
        /// Whatever is accepted is accepted again, as what it is.
        #[test]
        fn canonical_is_canonical(
            host in concat!(
                "[a-cA-C0-9._%\u{e9}-]{0,8}\\.{0,2}",
                "|\\[[0-9a-fA-F:.%]{0,12}\\]",
                "|\\[::[0-9A-F]{0,4}\\]",
            ),
            port in "(:0{0,3}[0-9]{0,5})?",
        ) {
            if let Some(once) = canonical(&format!("{host}{port}")) {
                prop_assert_eq!(canonical(&once), Some(once.clone()));
                let authority = Authority::parse(once.as_bytes()).unwrap();
                let host = authority.host();
                prop_assert!(!host.is_empty() && !host.ends_with('.') && !host.contains(".."));
                prop_assert!(canonical_host(host).is_some_and(|same| same == host));
                prop_assert_eq!(host.to_ascii_lowercase(), host);
                prop_assert!(!once.contains(":0") || once.starts_with('['));
            }
        }
    }
}
