//! `[server.tls.acme]`: certificates that an authority issues by itself (RFC 8555).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use rustls::pki_types::CertificateDer;
use serde_json::json;
use toml::de::DeValue;

use super::reader::Section;
use super::value::{Mistake, Read, choice, duration, echo, rate, string, text};
use crate::base::pem;
use crate::base::units::Rate;

/// Most names of one certificate: public authorities take no more.
const NAMES_MAX: usize = 100;
/// Longest name, and longest part of one between dots, in bytes (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// `[server.tls.acme]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The authority's directory (RFC 8555 §7.1.1), an `https` URL.
    pub directory: String,
    /// Who vouches for the directory's own certificate; empty: whom this machine trusts.
    pub authorities: Vec<CertificateDer<'static>>,
    /// The names of each certificate, in lower case; the first stands for all of them.
    pub names: Vec<Vec<String>>,
    /// Whom the authority tells of trouble, a `mailto:` URL.
    pub contact: Option<String>,
    /// How names are proved, most wanted first.
    pub challenges: Vec<Challenge>,
    /// The authority's name for a kind of certificate.
    pub profile: Option<String>,
    /// Where a gateway with the embedded store keeps what must outlive it.
    pub folder: Option<PathBuf>,
    /// How long one request to the authority may take.
    pub timeout: Duration,
    /// How long a whole order may take, and how long its answers are kept.
    pub order_timeout: Duration,
    /// For how long a name is this gateway's to order, unless it says so again.
    pub lease: Duration,
    /// Longest time between two looks at whether a certificate is due.
    pub check: Duration,
    /// How often the store is asked whether another gateway has a new certificate.
    pub follow: Duration,
    /// The pause after a first failure; later ones are up to 360 times as long.
    pub retry: Duration,
    /// Most orders of the whole fleet.
    pub orders: Rate,
    /// Most orders for the same names.
    pub same_orders: Rate,
}

/// How a name is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// By a file over clear HTTP (RFC 8555 §8.3).
    Http,
    /// By a certificate in a handshake (RFC 8737).
    TlsAlpn,
}

/// What `challenges` may name.
const CHALLENGES: [(&str, Challenge); 2] =
    [("tls-alpn-01", Challenge::TlsAlpn), ("http-01", Challenge::Http)];

/// Reads `[server.tls.acme]`; nothing where a key is missing that has no default.
pub(super) fn read(acme: &mut Section<'_>) -> Option<Acme> {
    let seconds = Duration::from_secs;
    let week = Duration::from_secs(7 * 24 * 3600);
    let directory = acme.need("directory", "\"https://acme.example/directory\"", directory);
    let names = acme.need_list("names", "[[\"shop.example.com\"]]", names);
    repeated(acme, &names);
    let authorities = acme.file("ca_file").map(|text| pem::authorities(text.as_bytes()));
    let authorities = match authorities {
        None => Vec::new(),
        Some(Ok(authorities)) => authorities,
        Some(Err(what)) => {
            acme.problem("ca_file", what, "name a file of CERTIFICATE blocks in PEM");
            Vec::new()
        }
    };
    let both = vec![Challenge::TlsAlpn, Challenge::Http];
    acme.holds("challenges", || Some(json!(["tls-alpn-01", "http-01"])));
    let read = Acme {
        directory: directory.unwrap_or_default(),
        authorities,
        names,
        contact: acme.get("contact", contact),
        challenges: acme.list("challenges", choice(&CHALLENGES)).unwrap_or(both),
        profile: acme.get("profile", text),
        folder: acme.path("folder"),
        timeout: acme.or("timeout", seconds(30), duration),
        order_timeout: acme.or("order_timeout", seconds(600), duration),
        lease: acme.or("lease", seconds(60), duration),
        check: acme.or("check", seconds(600), duration),
        follow: acme.or("follow", seconds(1), duration),
        retry: acme.or("retry", seconds(60), duration),
        orders: acme.or("orders", Rate { limit: 300, window: seconds(3 * 3600) }, rate),
        same_orders: acme.or("same_orders", Rate { limit: 5, window: week }, rate),
    };
    (!read.directory.is_empty() && !read.names.is_empty()).then_some(read)
}

/// Reports a name that stands in two places.
fn repeated(acme: &Section<'_>, sets: &[Vec<String>]) {
    let mut seen = BTreeSet::new();
    if let Some(name) = sets.iter().flatten().find(|name| !seen.insert(*name)) {
        let what = format!("{} stands in it twice", echo(name));
        acme.problem("names", what, "name each host once: it gets one certificate");
    }
}

fn directory(value: &DeValue<'_>) -> Read<String> {
    const EXAMPLE: &str = "\"https://acme-v02.api.letsencrypt.org/directory\"";
    let text = string(value, EXAMPLE)?;
    let uri: Option<Uri> = text.parse().ok();
    let is_directory = |uri: &Uri| {
        let user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        uri.scheme_str() == Some("https") && uri.host().is_some_and(|it| !it.is_empty()) && !user
    };
    if !uri.as_ref().is_some_and(is_directory) {
        let what = "is not the https URL of an ACME directory";
        return Err(Mistake::new(what, format!("write one like {EXAMPLE}")));
    }
    Ok(text.to_owned())
}

fn contact(value: &DeValue<'_>) -> Read<String> {
    let text = text(value)?;
    let address = text.strip_prefix("mailto:").unwrap_or(&text);
    let is_address = address.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && host.contains('.') && !address.contains([' ', ',', '?', '/', ':'])
    });
    if !is_address {
        let what = format!("{} is not an e-mail address", echo(&text));
        return Err(Mistake::new(what, "write one like \"ops@example.com\", or remove the key"));
    }
    Ok(format!("mailto:{address}"))
}

/// One name, or a list of names that share a certificate.
fn names(value: &DeValue<'_>) -> Read<Vec<String>> {
    const EXAMPLE: &str = "[\"shop.example.com\", \"www.shop.example.com\"]";
    if value.as_str().is_some() {
        return Ok(vec![name(value)?]);
    }
    let items = value
        .as_array()
        .ok_or_else(|| Mistake::wrong_type(value, "a name or a list of names", EXAMPLE))?;
    if items.is_empty() || items.len() > NAMES_MAX {
        let what = format!("has {} names", items.len());
        return Err(Mistake::new(what, format!("write 1 to {NAMES_MAX}, such as {EXAMPLE}")));
    }
    items.iter().map(|item| name(item.get_ref())).collect()
}

fn name(value: &DeValue<'_>) -> Read<String> {
    const EXAMPLE: &str = "\"shop.example.com\"";
    let text = string(value, EXAMPLE)?;
    if text.contains('*') {
        let what =
            format!("{} is a wildcard, which takes DNS-01, and that is not done", echo(text));
        let remedy = "name each host, or get the wildcard elsewhere and name its files in \
                      server.tls.certificates: they are read anew when they change";
        return Err(Mistake::new(what, remedy));
    }
    if text.parse::<IpAddr>().is_ok() {
        let what = format!("{} is an address, and names are ordered alone", echo(text));
        return Err(Mistake::new(what, format!("write a name, such as {EXAMPLE}")));
    }
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let lower = text.to_ascii_lowercase();
    if lower.len() > NAME_BYTES_MAX || !lower.split('.').all(is_label) {
        let what = format!("{} is not the name of a host", echo(text));
        let remedy = format!("write one like {EXAMPLE}; of other scripts, the form with xn--");
        return Err(Mistake::new(what, remedy));
    }
    Ok(lower)
}
