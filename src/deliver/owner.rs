//! Whose a delivery is, and which line it stands in, as digests: the store learns neither.

use aws_lc_rs::digest::{Context, SHA256};

use crate::base::http::hex;

/// The digest of who has a delivery: who is verified by this verifier under this name, or else who
/// calls from this address.
pub fn owner_of(subject: Option<(&str, &str)>, address: &str) -> String {
    match subject {
        Some((verifier, subject)) => digest(&[b"subject", verifier.as_bytes(), subject.as_bytes()]),
        None => digest(&[b"address", address.as_bytes()]),
    }
}

/// The digest of a key of `order_by`, which `kind` tells from others.
pub fn line_of(kind: &str, key: &[u8]) -> String {
    digest(&[b"line", kind.as_bytes(), key])
}

/// Of parts, of which none can be taken for another.
fn digest(parts: &[&[u8]]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    hex::encode(context.finish().as_ref())
}
