//! `jwks_url` and `[auth.NAME.jwks]`: keys that an issuer publishes, and what fetching them may
//! take.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use http::uri::PathAndQuery;
use rustls::pki_types::CertificateDer;
use toml::de::DeValue;

use super::reader::Section;
use super::value::{KIB, MIB, Mistake, Read, at_most, duration, flag, host_and_port, size, string};
use crate::base::pem;

/// Shortest `refresh` and `cooldown`: below it, one gateway would be a burden for the issuer.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest `timeout`: the start of the gateway may wait that long.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// A JWK set behind a URL, and the bounds of fetching it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteKeys {
    /// Where it is; with `discovery`, where the document is that says so.
    pub url: KeysUrl,
    /// The issuer whose document names the place; nothing where the file does.
    pub discovery: Option<Discovery>,
    /// Longest time between two fetches.
    pub refresh: Duration,
    /// Least time between two fetches that unknown key ids cause; also the longest pause after a
    /// fetch that failed.
    pub cooldown: Duration,
    /// Longest time that one whole fetch takes.
    pub timeout: Duration,
    /// Largest set, in bytes.
    pub max_bytes: usize,
    /// The certificate authorities that are believed; empty: the system's.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// An issuer that says itself where its keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// The issuer, exactly as it is written; its document must say the same.
    pub issuer: String,
    /// Whether its keys may lie on a private network though the issuer does not, and in clear.
    pub allow_http: bool,
}

impl RemoteKeys {
    /// Whether the same keys would come from `other`, be it in another way.
    pub fn are_those_of(&self, other: &Self) -> bool {
        let issuer = |keys: &Self| keys.discovery.as_ref().map(|it| it.issuer.clone());
        self.url == other.url
            && self.authorities == other.authorities
            && issuer(self) == issuer(other)
    }
}

/// `https://host:port/path?query`; `http` for this machine alone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeysUrl {
    /// Whether it is `https`.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query, well formed.
    pub target: String,
}

impl KeysUrl {
    /// `host`, or `host:port` where the port is not the scheme's own; an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        let own_port = if self.tls { 443 } else { 80 };
        let host = &self.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        if self.port == own_port { host } else { format!("{host}:{}", self.port) }
    }
}

/// Without the query, which may hold a secret: for logs, metrics and the admin API.
impl fmt::Display for KeysUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

impl fmt::Debug for KeysUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `[auth.NAME.jwks]`, before it is known whether there is a URL.
pub(super) struct Bounds {
    refresh: Duration,
    cooldown: Duration,
    timeout: Duration,
    max_bytes: u64,
    authorities: Vec<CertificateDer<'static>>,
    /// Whether `jwks_url` may be `http://` on a private network.
    pub(super) allow_http: bool,
}

impl Bounds {
    /// The bounds of fetching from `url`, or from where the document there says.
    pub(super) fn of(self, url: KeysUrl, discovery: Option<Discovery>) -> RemoteKeys {
        RemoteKeys {
            url,
            discovery,
            refresh: self.refresh,
            cooldown: self.cooldown,
            timeout: self.timeout,
            max_bytes: usize::try_from(self.max_bytes).unwrap_or(usize::MAX),
            authorities: self.authorities,
        }
    }
}

/// Reads `[auth.NAME.jwks]`.
pub(super) fn read(jwks: &mut Section<'_>) -> Bounds {
    let authorities = jwks.file("ca_file").map(|text| pem::authorities(text.as_bytes()));
    Bounds {
        refresh: jwks.or("refresh", Duration::from_secs(10 * 60), pause),
        cooldown: jwks.or("cooldown", Duration::from_secs(30), pause),
        timeout: jwks.or("timeout", Duration::from_secs(5), timeout),
        max_bytes: jwks.or("max_bytes", 256 * KIB, size(KIB..=4 * MIB)),
        allow_http: jwks.or("allow_http", false, flag),
        authorities: match authorities {
            None => Vec::new(),
            Some(Ok(authorities)) => authorities,
            Some(Err(what)) => {
                jwks.problem("ca_file", what, "name a file of CERTIFICATE blocks in PEM");
                Vec::new()
            }
        },
    }
}

fn pause(value: &DeValue<'_>) -> Read<Duration> {
    let pause = duration(value)?;
    if pause < PAUSE_MIN {
        return Err(Mistake::new("would burden the issuer", "write at least 1s"));
    }
    Ok(pause)
}

fn timeout(value: &DeValue<'_>) -> Read<Duration> {
    const SAID: (&str, &str) = ("would hold up the start of the gateway", "write at most 1m");
    at_most(duration, TIMEOUT_MAX, SAID)(value)
}

/// Reads `jwks_url`. The URL is not echoed: it may have a secret in any part. `allow_http`: keys
/// may be fetched in clear from a host on a private network.
pub(super) fn keys_url(value: &DeValue<'_>, allow_http: bool) -> Read<KeysUrl> {
    const EXAMPLE: &str = "write one like \"https://login.example.com/jwks.json\"";
    let text = string(value, "it in quotes, such as \"https://login.example.com/jwks.json\"")?;
    let wrong = || Mistake::new("is not the URL of a JWK set", EXAMPLE);
    if text.split_once("://").is_some_and(|(_, rest)| authority_of(rest).contains('@')) {
        return Err(Mistake::new("has a user or a password inside the URL", EXAMPLE));
    }
    let url = url(text).ok_or_else(wrong)?;
    match in_clear(&url, allow_http) {
        Some(mistake) => Err(mistake),
        None => Ok(url),
    }
}

/// What is wrong with fetching keys, or what names their place, from there in clear; nothing when
/// it is encrypted or may be in clear.
pub(super) fn in_clear(url: &KeysUrl, allow_http: bool) -> Option<Mistake> {
    let KeysUrl { tls, host, .. } = url;
    if *tls || is_this_machine(host) || (allow_http && is_private(host)) {
        return None;
    }
    let what = "would fetch keys in clear, and whoever is on the way could put in their own";
    let remedy = if is_private(host) {
        "write https://, or say jwks.allow_http = true where you trust every machine on the way"
    } else {
        "write https://; http:// is for this machine, and with jwks.allow_http = true for private \
         addresses and names (10.0.0.7, keycloak, login.internal, login.svc)"
    };
    Some(Mistake::new(what, remedy))
}

/// A URL of HTTP, with its path.
pub(super) fn url(text: &str) -> Option<KeysUrl> {
    let (tls, rest) = match text.split_once("://")? {
        ("https", rest) => (true, rest),
        ("http", rest) => (false, rest),
        _ => return None,
    };
    let authority = authority_of(rest);
    let target = &rest[authority.len()..];
    let (host, port) = host_and_port(authority, if tls { 443 } else { 80 })?;
    let slash = if target.starts_with('/') { "" } else { "/" };
    let target = format!("{slash}{target}");
    if target.contains('#') || PathAndQuery::try_from(target.as_str()).is_err() {
        return None;
    }
    Some(KeysUrl { tls, host, port, target })
}

fn authority_of(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Whether a host is on a private network for certain: an address that is not routed on the
/// Internet (RFC 1122 §3.2.1.3, RFC 1918, RFC 6598, RFC 4193, RFC 3927, RFC 4291 §2.5.6, RFC 3879),
/// also behind a translator's prefix (RFC 6052), that of a group (multicast), a name without a dot,
/// or one below a suffix that public DNS does not have (RFC 6761, RFC 6762, RFC 8375, ICANN's
/// `.internal`, and Kubernetes's own).
pub fn is_private(host: &str) -> bool {
    const SUFFIXES: [&str; 8] =
        [".internal", ".local", ".localhost", ".test", ".home.arpa", ".lan", ".svc", ".intranet"];
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return match address.to_canonical() {
            IpAddr::V4(v4) => is_private_v4(v4),
            IpAddr::V6(v6) => {
                let is_here = v6.is_loopback() || v6.is_unspecified() || v6.is_multicast();
                let is_site_local = v6.segments()[0] & 0xffc0 == 0xfec0;
                let is_link_local = v6.is_unicast_link_local() || is_site_local;
                let behind = translated(v6).is_some_and(is_private_v4);
                is_here || v6.is_unique_local() || is_link_local || behind
            }
        };
    }
    // A dot at the end says that a name is whole.
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    !host.contains('.') || SUFFIXES.iter().any(|suffix| host.ends_with(suffix))
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let is_here = first == 0 || address.is_loopback() || address.is_multicast();
    // Of whoever provides the access, who shares them among its customers.
    let is_shared = first == 100 && second & 0xc0 == 64;
    is_here || is_shared || address.is_private() || address.is_link_local()
}

/// The IPv4 address that a translator reaches by this one: `64:ff9b::/96` has one at its end.
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let number = (u32::from(high) << 16) | u32::from(low);
            Some(Ipv4Addr::from(number))
        }
        _ => None,
    }
}

pub(super) fn is_this_machine(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}
