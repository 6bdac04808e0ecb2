//! One verification key, pinned to the algorithms that it may serve (RFC 8725 §3.1). It must not
//! know tokens, nor where the key material came from.

use jsonwebtoken::{Algorithm, DecodingKey};

use super::material::Material;

/// Most keys that are tried for one token: each costs a verification. Real sets have one key of a
/// name and a handful for an algorithm.
pub(super) const CANDIDATES_MAX: usize = 16;

/// One verification key and the only algorithms that it serves.
#[derive(Debug)]
pub struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

impl Key {
    pub(super) fn new(
        kid: Option<String>,
        algorithms: Vec<Algorithm>,
        material: &Material,
    ) -> Self {
        Self { kid, algorithms, decoding: material.decoding_key() }
    }

    /// The name of the key, in a set whose keys have names.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether the key is pinned to `algorithm`.
    pub(super) fn serves(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether the two are pinned to one algorithm.
    pub(super) fn shares_an_algorithm_with(&self, other: &Self) -> bool {
        other.algorithms.iter().any(|algorithm| self.serves(*algorithm))
    }

    /// Whether `signature` (base64url) is this key's over `signing_input` (RFC 7515 §5.2).
    /// An algorithm that the key is not pinned to verifies nothing.
    pub fn verify(&self, algorithm: Algorithm, signing_input: &str, signature: &str) -> bool {
        let verify = jsonwebtoken::crypto::verify;
        self.serves(algorithm)
            && verify(signature, signing_input.as_bytes(), &self.decoding, algorithm)
                .unwrap_or(false)
    }
}
