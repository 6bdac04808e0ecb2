//! What certificates say (RFC 5280): of a server, its names and its dates; of a client, who it is.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::flaw::Flaw;
use crate::base::facts::ClientCertificate;
use crate::base::http::hex;
use crate::base::pem;
use crate::config;

/// `Client-Cert` (RFC 9440 §2.1)
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const X_CLIENT_CERT_SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
const X_CLIENT_CERT_SAN: HeaderName = HeaderName::from_static("x-client-cert-san");
const X_CLIENT_CERT_SERIAL: HeaderName = HeaderName::from_static("x-client-cert-serial");
const X_CLIENT_CERT_SHA256: HeaderName = HeaderName::from_static("x-client-cert-sha256");

/// The fields in which upstreams are told of a client's certificate. Where TLS ends here, a
/// client's own are dropped; `Client-Cert-Chain` is never told.
pub const FIELDS: [&str; 6] = [
    "client-cert",
    "client-cert-chain",
    "x-client-cert-subject",
    "x-client-cert-san",
    "x-client-cert-serial",
    "x-client-cert-sha256",
];

/// A server's certificate with its key.
#[derive(Debug, Clone)]
pub(super) struct ServerCertificate {
    pub(super) key: Arc<CertifiedKey>,
    /// Lower-case names, among them `*.name`.
    pub(super) names: Vec<String>,
    /// Its dates, in Unix seconds.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

/// Reads a chain and its key, and checks that they belong together. `at` is the element's place in
/// the file.
///
/// # Errors
/// What is wrong with them.
pub(super) fn server(
    written: &config::Certificate,
    at: &str,
    provider: &CryptoProvider,
) -> Result<ServerCertificate, Flaw> {
    let of_cert = |what: String| {
        let remedy = "name a file with the chain in PEM (BEGIN CERTIFICATE), the server's own \
                      certificate first";
        Flaw::new(format!("{at}.cert"), what, remedy)
    };
    let of_key = |what: String| {
        let remedy = "name a file with the certificate's private key in PEM, such as \
                      `BEGIN PRIVATE KEY`";
        Flaw::new(format!("{at}.key"), what, remedy)
    };
    let chain = pem::chain(written.cert.content.expose()).map_err(of_cert)?;
    let key = pem::private_key(written.key.content.expose()).map_err(of_key)?;
    let (names, not_before, not_after) = chain
        .first()
        .ok_or_else(|| "it is empty".to_owned())
        .and_then(|own| told(own))
        .map_err(of_cert)?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            of_key("the key is not that of the certificate".to_owned())
        }
        error => of_key(format!("it cannot be used: {error}")),
    })?;
    Ok(ServerCertificate { key: Arc::new(key), names, not_before, not_after })
}

/// The names and the dates of a server's certificate.
pub(super) fn told(certificate: &[u8]) -> Result<(Vec<String>, i64, i64), String> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| format!("a certificate in it cannot be read: {error}"))?;
    let names = alternative_names(&parsed)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    let validity = parsed.validity();
    Ok((names, validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// Who a client is, as its certificate says. The handshake has verified it.
pub fn facts(certificate: &CertificateDer<'_>) -> Option<ClientCertificate> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let san: Vec<String> = alternative_names(&parsed).filter_map(spelled).collect();
    let common_name =
        parsed.subject().iter_common_name().last().and_then(|name| name.as_str().ok());
    let subject = common_name.filter(|name| !name.is_empty()).map(str::to_owned);
    let thumbprint = digest(&SHA256, certificate);
    let (dn, serial) = (distinguished_name(parsed.subject()), serial(parsed.raw_serial()));
    let sha256 = hex::encode(thumbprint.as_ref());
    Some(ClientCertificate {
        headers: headers(certificate, &dn, &san, &serial, &sha256),
        subject: subject.or_else(|| san.first().cloned()),
        dn,
        san,
        serial,
        sha256,
        thumbprint: URL_SAFE_NO_PAD.encode(thumbprint.as_ref()),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
    })
}

/// The fields that tell an upstream of a client's certificate.
fn headers(
    certificate: &[u8],
    dn: &str,
    san: &[String],
    serial: &str,
    sha256: &str,
) -> Vec<(HeaderName, HeaderValue)> {
    let names: Vec<String> = san.iter().map(|name| list_member(name)).collect();
    let der = format!(":{}:", STANDARD.encode(certificate));
    [
        (CLIENT_CERT, der.as_str()),
        (X_CLIENT_CERT_SUBJECT, dn),
        (X_CLIENT_CERT_SAN, &names.join(",")),
        (X_CLIENT_CERT_SERIAL, serial),
        (X_CLIENT_CERT_SHA256, sha256),
    ]
    .into_iter()
    .filter(|(_, text)| !text.is_empty())
    .filter_map(|(name, text)| Some((name, HeaderValue::from_bytes(text.as_bytes()).ok()?)))
    .collect()
}

/// A name in a list whose members a comma separates; what could be taken for another member or ends
/// a field is written as in a URL.
fn list_member(name: &str) -> String {
    let mut spelled = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte == b',' || byte.is_ascii_control() || byte == b' ' {
            let _ = write!(spelled, "%{byte:02X}");
        } else {
            spelled.push(char::from(byte));
        }
    }
    spelled
}

fn alternative_names<'c>(
    certificate: &'c X509Certificate<'_>,
) -> impl Iterator<Item = &'c GeneralName<'c>> {
    let names = certificate.subject_alternative_name().ok().flatten();
    names.into_iter().flat_map(|names| &names.value.general_names)
}

/// A serial number as OpenSSL and nginx spell it.
fn serial(bytes: &[u8]) -> String {
    let zeros =
        bytes.iter().take_while(|byte| **byte == 0).count().min(bytes.len().saturating_sub(1));
    hex::encode(&bytes[zeros..]).to_ascii_uppercase()
}

/// An alternative name as text; nothing of the kinds that nobody uses for clients.
fn spelled(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
            Some((*text).to_owned())
        }
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
            let v6 = <[u8; 16]>::try_from(*bytes).map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)));
            v4.or(v6).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

/// A distinguished name as RFC 4514 spells it: the last part first.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let pairs = rdn.iter().map(|pair| {
                let kind = oid2abbrev(pair.attr_type(), oid_registry());
                let kind = kind.map_or_else(|_| pair.attr_type().to_id_string(), str::to_owned);
                format!("{kind}={}", attribute(pair))
            });
            pairs.collect::<Vec<_>>().join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// A value of a distinguished name (RFC 4514 §2.4). Control characters are spelled in hexadecimal:
/// the text goes into header fields and logs.
fn attribute(pair: &AttributeTypeAndValue<'_>) -> String {
    let Ok(text) = pair.as_str() else { return format!("#{}", hex::encode(pair.as_slice())) };
    let mut spelled = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (index, character) in text.chars().enumerate() {
        let at_an_end =
            index == 0 && matches!(character, ' ' | '#') || index == last && character == ' ';
        if at_an_end || matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            spelled.push('\\');
            spelled.push(character);
        } else if character.is_control() {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                let _ = write!(spelled, "\\{byte:02x}");
            }
        } else {
            spelled.push(character);
        }
    }
    spelled
}
