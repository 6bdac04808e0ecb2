//! Signs tokens, for the command line's test tokens and for tests. It must not know verification.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

/// A compact JWS (RFC 7515 §7.1) over `claims`. It fails when the key does not fit the algorithm.
pub fn sign(
    algorithm: Algorithm,
    key: &EncodingKey,
    kid: Option<&str>,
    claims: &Map<String, Value>,
) -> Result<String, jsonwebtoken::errors::Error> {
    super::init();
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, key)
}
