//! By what a request is known again: the digest of all that decides what it does.

use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};

use crate::base::digested::Sha256;
use crate::base::facts::Target;
use crate::base::http::hex;

/// SHA-256 of a request's method, authority, path and query, content type and body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; Self::BYTES]);

impl Fingerprint {
    /// How many bytes it has.
    pub const BYTES: usize = 32;

    /// As it was kept.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// As it is kept.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

/// Makes a fingerprint while the body passes: nothing of it is kept.
#[derive(Debug, Clone)]
pub struct Fingerprinter(Sha256);

impl Fingerprinter {
    /// Of the request with this method, target and these fields. None of the parts before the body
    /// can hold a zero byte, so none can be taken for another.
    pub fn new(method: &Method, target: &Target, headers: &HeaderMap) -> Self {
        let mut digest = Sha256::default();
        let path_and_query = target.path_and_query.as_str().as_bytes();
        let kind = headers.get(CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes());
        let authority = target.authority.as_str().as_bytes();
        for part in [method.as_str().as_bytes(), authority, path_and_query, kind] {
            digest.add(part);
            digest.add(&[0]);
        }
        Self(digest)
    }

    /// Goes on from a digest that was taken elsewhere.
    pub fn from_digest(digest: Sha256) -> Self {
        Self(digest)
    }

    /// The digest of what has passed, for whoever goes on with it.
    pub fn into_digest(self) -> Sha256 {
        self.0
    }

    /// A piece of the body has passed.
    pub fn add(&mut self, data: &[u8]) {
        self.0.add(data);
    }

    /// The body has ended.
    #[must_use]
    pub fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finish())
    }
}
