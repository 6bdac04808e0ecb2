//! `upgrade` and `tunnel` of `[routes.NAME]`: connections that change to another protocol.

use std::time::Duration;

use toml::de::DeValue;

use super::reader::Section;
use super::value::{GIB, Mistake, Read, choice, duration, echo, rate, size, string};
use crate::base::http::authority::Authority;
use crate::base::units::Rate;

/// What a route's tunnels are bounded by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Longest time without a byte in either direction.
    pub idle_timeout: Duration,
    /// Longest life.
    pub max_age: Duration,
    /// Longest message of a client, in bytes; `None`: any.
    pub message_bytes: Option<u64>,
    /// How many messages a client may send; `None`: any number.
    pub messages: Option<Rate>,
    /// What ends one before that.
    pub end_on: EndOn,
    /// The pages that may open one; empty: all.
    pub origins: Vec<Origin>,
}

/// What about the caller ends a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOn {
    /// The token expires.
    pub expiry: bool,
    /// The token, or the API key, is revoked by itself.
    pub jti: bool,
    /// All tokens with its `sid` are.
    pub sid: bool,
    /// All tokens of its subject are.
    pub sub: bool,
}

impl Default for EndOn {
    fn default() -> Self {
        Self { expiry: true, jti: true, sid: true, sub: true }
    }
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(5 * 60),
            max_age: Duration::from_secs(24 * 60 * 60),
            message_bytes: None,
            messages: None,
            end_on: EndOn::default(),
            origins: Vec::new(),
        }
    }
}

/// An origin (RFC 6454), `https://shop.example.com`, or all those of one domain,
/// `https://*.example.com`. In lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What comes before the `*`, or everything.
    begin: String,
    /// What comes behind the `*`.
    end: Option<String>,
}

impl Origin {
    /// Whether it covers the value of an `Origin` field.
    pub fn covers(&self, origin: &[u8]) -> bool {
        let origin = origin.to_ascii_lowercase();
        let Some(rest) = origin.strip_prefix(self.begin.as_bytes()) else { return false };
        match &self.end {
            None => rest.is_empty(),
            // Labels of a host alone: what stands there is no port and no path.
            Some(end) => rest
                .strip_suffix(end.as_bytes())
                .is_some_and(|labels| !labels.is_empty() && labels.iter().all(is_of_labels)),
        }
    }
}

fn is_of_labels(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// Reads `upgrade` and `tunnel`; nothing where no upgrade is allowed.
pub(super) fn read(route: &mut Section<'_>) -> Option<Tunnel> {
    let protocols = route.list("upgrade", choice(&[("websocket", ())]));
    let tunnel = route.optional("tunnel", read_tunnel);
    if protocols.is_none() && route.has("tunnel") && !route.has("upgrade") {
        let what = "has no effect on a route without upgrade";
        route.problem("tunnel", what, "add upgrade = [\"websocket\"], or remove it");
    }
    protocols.map(|_| tunnel.unwrap_or_default())
}

fn read_tunnel(tunnel: &mut Section<'_>) -> Tunnel {
    let default = Tunnel::default();
    Tunnel {
        idle_timeout: tunnel.or("idle_timeout", default.idle_timeout, duration),
        max_age: tunnel.or("max_age", default.max_age, duration),
        message_bytes: tunnel.get("message_bytes", size(1..=GIB)),
        messages: tunnel.get("messages", rate),
        end_on: read_end_on(tunnel),
        origins: tunnel.list_or_empty("origins", origin),
    }
}

/// `end_on = ["expiry", "jti", "sid", "sub"]`; an empty list is written as such.
fn read_end_on(tunnel: &mut Section<'_>) -> EndOn {
    let is_written = tunnel.has("end_on");
    let words = [("expiry", 0), ("jti", 1), ("sid", 2), ("sub", 3)];
    let named = tunnel.list_or_empty("end_on", choice(&words));
    if !is_written {
        return EndOn::default();
    }
    let has = |word| named.contains(&word);
    EndOn { expiry: has(0), jti: has(1), sid: has(2), sub: has(3) }
}

/// `scheme://host` or `scheme://host:port`, as browsers send it: without a path.
fn origin(value: &DeValue<'_>) -> Read<Origin> {
    const EXAMPLE: &str =
        "an origin such as \"https://shop.example.com\" or \"https://*.example.com\"";
    let text = string(value, EXAMPLE)?.to_ascii_lowercase();
    let wrong =
        || Mistake::new(format!("{} is no origin", echo(&text)), format!("write {EXAMPLE}"));
    let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
    let is_scheme = matches!(scheme, "http" | "https");
    let host = host.strip_prefix("*.").unwrap_or(host);
    if !is_scheme || host.contains('*') || Authority::parse(host.as_bytes()).is_none() {
        return Err(wrong());
    }
    Ok(match text.split_once('*') {
        None => Origin { begin: text, end: None },
        Some((begin, end)) => Origin { begin: begin.to_owned(), end: Some(end.to_owned()) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_covers_itself_or_a_domain() {
        let of = |text: &str| origin(&DeValue::String(text.to_owned().into()));
        let one = of("https://Shop.example.com").unwrap();
        let port = of("http://localhost:3000").unwrap();
        let all = of("https://*.example.com").unwrap();
        for (origin, given, covered) in [
            (&one, "https://shop.example.com", true),
            (&one, "https://SHOP.example.com", true),
            (&one, "http://shop.example.com", false),
            (&one, "https://shop.example.com:444", false),
            (&one, "https://shop.example.com.evil.test", false),
            (&port, "http://localhost:3000", true),
            (&port, "http://localhost", false),
            (&all, "https://a.example.com", true),
            (&all, "https://a.b.example.com", true),
            (&all, "https://example.com", false),
            (&all, "https://.example.com", false),
            (&all, "https://evil.test/.example.com", false),
            (&all, "https://evil.test:80.example.com", false),
            (&all, "null", false),
        ] {
            assert_eq!(origin.covers(given.as_bytes()), covered, "{origin:?} {given}");
        }
        for wrong in ["shop.example.com", "https://", "ftp://a", "https://*", "https://a/b", "*"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
