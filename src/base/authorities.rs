//! The certificate authorities that this machine trusts.

use rustls::pki_types::CertificateDer;

/// All of them, at least one; from files, so it takes a while.
///
/// # Errors
/// Why there is none, as text.
pub fn of_this_machine() -> Result<Vec<CertificateDer<'static>>, String> {
    let system = rustls_native_certs::load_native_certs();
    if system.certs.is_empty() {
        let errors: Vec<String> = system.errors.iter().map(ToString::to_string).collect();
        return Err(errors.join("; "));
    }
    Ok(system.certs)
}
