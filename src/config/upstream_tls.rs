//! `[upstreams.NAME.tls]`: whom the gateway believes behind `https://`, and who it says it is.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use toml::de::DeValue;

use super::reader::Section;
use super::value::{Mistake, Read, echo, string, text};
use crate::base::authorities;
use crate::base::pem;

/// TLS towards the servers of an upstream.
#[derive(Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The certificate authorities that are believed.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What the gateway shows to servers that ask who it is.
    pub identity: Option<Identity>,
}

/// A certificate and its key.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those between it and its authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first of them.
    pub key: PrivateKeyDer<'static>,
}

/// The table as it is written.
pub(super) struct Written {
    authorities: Option<Vec<CertificateDer<'static>>>,
    identity: Option<Identity>,
    server_name: Option<ServerName<'static>>,
}

impl Written {
    /// Whether it says which name servers must prove.
    pub(super) fn names_server(&self) -> bool {
        self.server_name.is_some()
    }
}

/// Reads the table.
pub(super) fn read(tls: &mut Section<'_>) -> Written {
    const CERTIFICATES: &str = "name a file of CERTIFICATE blocks in PEM";
    const KEY: &str = "name a file with a PRIVATE KEY block in PEM";
    // What is wrong is not to mean the system's authorities.
    let authorities = tls.has("ca_file").then(Vec::new);
    let read = read_pem(tls, "ca_file", CERTIFICATES, pem::authorities);
    let authorities = read.or(authorities);
    let mut identity = None;
    if tls.goes_without_pair(["client_cert", "client_key"]) {
        for key in ["client_cert", "client_key"] {
            tls.get(key, text);
        }
    } else {
        let chain = read_pem(tls, "client_cert", CERTIFICATES, pem::chain);
        let key = read_pem(tls, "client_key", KEY, pem::private_key);
        tls.warn_of_key("client_key");
        identity = chain.zip(key).map(|(chain, key)| Identity { chain, key });
    }
    for (one, other) in [("client_cert", "client_key"), ("client_key", "client_cert")] {
        if tls.has(one) && !tls.has(other) {
            tls.problem(one, format!("is of no use without {other}"), format!("add {other}"));
        }
    }
    Written { authorities, identity, server_name: tls.get("server_name", server_name) }
}

/// The content of the file that `key` names.
fn read_pem<T>(
    tls: &mut Section<'_>,
    key: &'static str,
    remedy: &str,
    read: impl Fn(&[u8]) -> Result<T, String>,
) -> Option<T> {
    match read(tls.file(key)?.as_bytes()) {
        Ok(content) => Some(content),
        Err(what) => {
            tls.problem(key, what, remedy);
            None
        }
    }
}

/// What holds for the servers behind `https://`, which must prove these names.
pub(super) fn settle(
    upstream: &Section<'_>,
    written: Written,
    names: Vec<&mut ServerName<'static>>,
) -> Arc<UpstreamTls> {
    if let Some(server_name) = written.server_name {
        for name in names {
            name.clone_from(&server_name);
        }
    }
    let authorities = written.authorities.or_else(|| {
        authorities::of_this_machine()
            .map_err(|why| {
                let what = format!("this machine trusts no certificate authority ({why})");
                let remedy = "name those of the servers as tls.ca_file, or install the system's";
                upstream.problem("servers", what, remedy);
            })
            .ok()
    });
    let authorities = authorities.unwrap_or_default();
    Arc::new(UpstreamTls { authorities, identity: written.identity })
}

/// A name that servers must prove.
pub(super) fn server_name(value: &DeValue<'_>) -> Read<ServerName<'static>> {
    const EXAMPLE: &str = "a host name or an address, such as \"shop.internal\"";
    let text = string(value, EXAMPLE)?;
    name(text).ok_or_else(|| {
        let what = format!("{} cannot be the name of a server", echo(text));
        Mistake::new(what, format!("write {EXAMPLE}"))
    })
}

/// A name that a certificate can have.
pub(super) fn name(text: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(text.to_owned()).ok()
}
