//! `[auth.NAME.introspect]`: an authorization server that is asked what opaque tokens are worth
//! (RFC 7662), and what asking it may take.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use toml::de::DeValue;

use super::jwks::{KeysUrl, in_clear, url};
use super::reader::Section;
use super::value::{
    KIB, MIB, Mistake, Read, at_most, count, duration, duration_or_zero, flag, size, string, text,
};
use crate::base::pem;
use crate::base::units::Secret;

/// Longest time that a request waits for an answer.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// Longest time that an answer is believed.
const CACHE_MAX: Duration = Duration::from_secs(10 * 60);

/// Who is asked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspect {
    /// Where it is asked.
    pub url: KeysUrl,
    /// What the gateway is to it.
    pub client_id: String,
    /// What the gateway shows it.
    pub client_secret: Secret,
    /// How long a good answer counts; never longer than the token.
    pub cache: Duration,
    /// How long a bad one does.
    pub cache_refused: Duration,
    /// Longest time that one question takes.
    pub timeout: Duration,
    /// Most questions at a time.
    pub in_flight: usize,
    /// Largest answer, in bytes.
    pub max_bytes: usize,
    /// The certificate authorities that are believed; empty: the system's.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// Reads `[auth.NAME.introspect]`; nothing where it lacks what it needs.
pub(super) fn read(introspect: &mut Section<'_>) -> Option<Introspect> {
    let allow_http = introspect.or("allow_http", false, flag);
    let example = "\"https://login.example.com/introspect\"";
    let url = introspect.need("url", example, |value| place(value, allow_http));
    let client_id = introspect.need("client_id", "\"gateway\"", text);
    if !introspect.has("client_secret") {
        let what = "is missing: whoever could ask without it could ask for anybody's tokens";
        introspect.problem("client_secret", what, "write client_secret = \"env:NAME\"");
    }
    let client_secret = introspect.secret("client_secret");
    let authorities = introspect.file("ca_file").map(|text| pem::authorities(text.as_bytes()));
    let authorities = match authorities {
        None => Vec::new(),
        Some(Ok(authorities)) => authorities,
        Some(Err(what)) => {
            introspect.problem("ca_file", what, "name a file of CERTIFICATE blocks in PEM");
            Vec::new()
        }
    };
    let cache = introspect.or("cache", Duration::from_secs(30), cached);
    let cache_refused = introspect.or("cache_refused", Duration::from_secs(5), cached);
    let timeout = introspect.or("timeout", Duration::from_secs(2), timeout);
    let in_flight = introspect.or("in_flight", 32, count(1..=1024));
    let max_bytes = introspect.or("max_bytes", 64 * KIB, size(KIB..=MIB));
    Some(Introspect {
        url: url?,
        client_id: client_id?,
        client_secret: client_secret?,
        cache,
        cache_refused,
        timeout,
        in_flight,
        max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
        authorities,
    })
}

/// The URL is not echoed: it may have a secret in any part.
fn place(value: &DeValue<'_>, allow_http: bool) -> Read<KeysUrl> {
    const EXAMPLE: &str = "write one like \"https://login.example.com/introspect\"";
    let text = string(value, "it in quotes, such as \"https://login.example.com/introspect\"")?;
    let authority = text.split_once("://").map_or("", |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(Mistake::new("has a user or a password inside the URL", EXAMPLE));
    }
    let url = url(text).ok_or_else(|| Mistake::new("is not a URL of HTTP", EXAMPLE))?;
    match in_clear(&url, allow_http) {
        Some(_) => {
            let what = "would send tokens and the client's secret in clear";
            let remedy = "write https://; http:// is for this machine, and with allow_http = true \
                          for private addresses and names";
            Err(Mistake::new(what, remedy))
        }
        None => Ok(url),
    }
}

fn cached(value: &DeValue<'_>) -> Read<Duration> {
    const SAID: (&str, &str) = (
        "lets a token live on for more than 10 minutes after it was taken back",
        "write at most 10m; 0s asks for each request",
    );
    at_most(duration_or_zero, CACHE_MAX, SAID)(value)
}

fn timeout(value: &DeValue<'_>) -> Read<Duration> {
    const SAID: (&str, &str) = ("would hold up requests", "write at most 30s");
    at_most(duration, TIMEOUT_MAX, SAID)(value)
}
