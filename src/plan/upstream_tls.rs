//! The gateway's side of TLS towards each upstream, and the dates of what it shows there.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::{ClientConfig, Error};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::base::client_tls::client_config;
use crate::config::{self, Config, Identity, Problems, Protocol, UpstreamTls};

/// One for each upstream, in their order; nothing for those that are asked in clear alone.
pub(super) fn compile(config: &Config, problems: &mut Problems) -> Vec<Option<Arc<ClientConfig>>> {
    let all = config.upstreams.iter();
    all.map(|(name, upstream)| of(&format!("upstreams.{name}"), upstream, problems)).collect()
}

/// That of one upstream, which is described `at` this table.
pub(super) fn of(
    at: &str,
    upstream: &config::Upstream,
    problems: &mut Problems,
) -> Option<Arc<ClientConfig>> {
    let offered = offered(upstream);
    let made = upstream.tls.as_deref().map(|tls| client(tls, offered)).transpose();
    made.unwrap_or_else(|error| {
        let path = format!("{at}.tls.client_key");
        match error {
            Error::InconsistentKeys(_) => {
                let what = "is the key of another certificate than client_cert";
                let remedy = "name the key that client_cert was made with; the certificate itself \
                              comes first in its file, before its authorities";
                problems.push(path, what, remedy);
            }
            error => {
                let what = format!("cannot be used with client_cert: {error}");
                problems.push(path, what, "name a certificate and its key, RSA, ECDSA or Ed25519");
            }
        }
        None
    })
}

/// What the servers may speak (ALPN), what is preferred first.
fn offered(upstream: &config::Upstream) -> &'static [&'static [u8]] {
    match upstream.protocol {
        _ if upstream.nats.is_some() => &[],
        Protocol::Http1 => &[b"http/1.1"],
        Protocol::Http2 => &[b"h2"],
        Protocol::Auto => &[b"h2", b"http/1.1"],
    }
}

fn client(tls: &UpstreamTls, offered: &[&[u8]]) -> Result<Arc<ClientConfig>, Error> {
    let identity = tls.identity.as_ref().map(|identity| (&*identity.chain, &identity.key));
    let mut client = client_config(&tls.authorities, identity)?;
    client.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(client))
}

/// Says which client certificates no server believes now. Not a problem: what does not need them
/// is still to be served.
pub(super) fn warn(config: &Config, warnings: &mut Problems) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for (name, upstream) in &config.upstreams {
        let identity = upstream.tls.as_ref().and_then(|tls| tls.identity.as_ref());
        if let Some(what) = identity.and_then(|identity| out_of_date(identity, now)) {
            let remedy = "renew the certificate and reload; until then, servers that ask for one \
                          refuse the gateway";
            warnings.push(format!("upstreams.{name}.tls.client_cert"), what, remedy);
        }
    }
}

/// What the dates of a certificate say against it at `now`, in seconds since the epoch.
fn out_of_date(identity: &Identity, now: u64) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(identity.chain.first()?).ok()?;
    let validity = certificate.validity();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if now > validity.not_after.timestamp() {
        Some(format!("has expired: it was good until {}", validity.not_after))
    } else if now < validity.not_before.timestamp() {
        Some(format!("is not valid yet: it is good from {}", validity.not_before))
    } else {
        None
    }
}
