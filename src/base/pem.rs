//! Certificates and keys in PEM (RFC 7468). The texts of errors go behind the name of a key of the
//! configuration, and hold nothing of the file.

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The certificates of a PEM text, each of which can be an authority. A file without one must not
/// mean the system's authorities instead.
///
/// # Errors
/// What is wrong with the text.
pub fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = chain(pem)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots
            .add(certificate.clone())
            .map_err(|error| format!("holds a certificate that is no authority: {error}"))?;
    }
    Ok(certificates)
}

/// The certificates of a PEM text, at least one.
///
/// # Errors
/// What is wrong with the text.
pub fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("is not PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("holds no certificate".to_owned());
    }
    Ok(certificates)
}

/// The first private key of a PEM text: PKCS#8, PKCS#1 or SEC1, without a password.
///
/// # Errors
/// What is wrong with the text.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        Error::NoItemsFound => "holds no private key without a password".to_owned(),
        error => format!("is not PEM: {error}"),
    })
}
