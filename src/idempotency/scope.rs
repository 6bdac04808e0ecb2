//! Whose key it is, and of what: the same text from another caller, or on another route, is another
//! key.

use std::net::IpAddr;

use aws_lc_rs::digest::{Context, SHA256};

use super::key::Key;
use crate::base::facts::{Caller, ClientAddr};
use crate::base::http::hex;

/// Who chose a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a> {
    /// The caller that a verifier vouches for.
    Subject {
        /// The verifier's name.
        verifier: &'a str,
        /// The caller's `sub`.
        subject: &'a str,
    },
    /// Whoever calls from there: nobody is verified, or none has a name.
    Address(IpAddr),
}

impl<'a> Owner<'a> {
    /// The owner of what `caller` sends from `address`.
    pub fn of(caller: &'a Caller, address: ClientAddr) -> Self {
        let named = |subject| Some((caller.as_ref()?.verifier.as_ref(), subject));
        let subject = caller.as_ref().and_then(|identity| identity.subject.as_deref());
        match subject.and_then(named) {
            Some((verifier, subject)) => Self::Subject { verifier, subject },
            None => Self::Address(address.principal()),
        }
    }
}

/// A key as it is kept: SHA-256 in hex, of its owner, the route (or queue) that it is for, and its
/// text. Each part has its length before it, so that none can be taken for another.
pub fn scoped(owner: Owner<'_>, route: &str, key: &Key) -> String {
    let mut context = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    };
    match owner {
        Owner::Subject { verifier, subject } => {
            add(verifier.as_bytes());
            add(subject.as_bytes());
        }
        Owner::Address(address) => {
            add(b"");
            add(address.to_string().as_bytes());
        }
    }
    add(route.as_bytes());
    add(key.as_str().as_bytes());
    hex::encode(context.finish().as_ref())
}
