//! The keys of one verifier, each pinned to the algorithms it may serve (RFC 8725 §3.1). A set is
//! parsed at load and reports every flaw at once. It must not know tokens, nor where the key
//! material came from.

use jsonwebtoken::Algorithm;

use super::flaw::Flaw;
use super::jwk;
use super::key::{CANDIDATES_MAX, Key};
use super::material::Material;

/// The keys of one verifier.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    /// Keys from a JWK set are chosen by `kid`; a lone secret or PEM key serves tokens whatever
    /// their `kid`.
    named: bool,
    /// The issuer publishes the set and may have added to it since.
    published: bool,
}

impl KeySet {
    /// One shared secret for HMAC algorithms (RFC 7518 §3.2).
    pub fn from_secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Self, Vec<Flaw>> {
        // A PEM text is public, or should be a private key: as a shared secret it lets anyone sign.
        if secret.trim_ascii_start().starts_with(b"-----BEGIN ") {
            return Err(vec![Flaw::new(
                "the secret is a PEM text",
                "name the file of a public key as `public_key_file`",
            )]);
        }
        Self::single(&Material::hmac(secret), algorithms)
    }

    /// One public key, as a PEM text.
    pub fn from_pem(text: &str, algorithms: &[Algorithm]) -> Result<Self, Vec<Flaw>> {
        let material = Material::pem(text).map_err(|flaw| vec![flaw])?;
        Self::single(&material, algorithms)
    }

    /// A JWK set (RFC 7517 §5), as a JSON text.
    pub fn from_jwks(text: &str, algorithms: &[Algorithm]) -> Result<Self, Vec<Flaw>> {
        some_algorithm(algorithms)?;
        Ok(Self { keys: jwk::read_set(text, algorithms)?, named: true, published: false })
    }

    /// A JWK set that an issuer publishes, and what was left out of it. An error when no key of it
    /// is of use.
    pub fn from_published(
        text: &str,
        algorithms: &[Algorithm],
    ) -> Result<(Self, Vec<Flaw>), Vec<Flaw>> {
        let (keys, ignored) = jwk::read_published(text, algorithms)?;
        Ok((Self { keys, named: true, published: true }, ignored))
    }

    /// What there is of a published set before it was fetched.
    pub(super) fn unfetched() -> Self {
        Self { keys: Vec::new(), named: true, published: true }
    }

    /// Whether there is no key at all.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the issuer may have published a key of this name since: none of the set has it, or
    /// there is no set yet.
    pub(super) fn may_be_outdated_for(&self, kid: Option<&str>) -> bool {
        self.published && (self.is_empty() || kid.is_some_and(|kid| !self.has(kid)))
    }

    fn single(material: &Material, algorithms: &[Algorithm]) -> Result<Self, Vec<Flaw>> {
        some_algorithm(algorithms)?;
        let flaws: Vec<Flaw> =
            algorithms.iter().filter_map(|algorithm| material.objection(*algorithm)).collect();
        if !flaws.is_empty() {
            return Err(flaws);
        }
        let keys = vec![Key::new(None, algorithms.to_vec(), material)];
        Ok(Self { keys, named: false, published: false })
    }

    /// The keys that a token's header allows, in the order of the set: of those that are pinned to
    /// `algorithm` the ones that the `kid` names, which need not be one (RFC 7517 §4.5); where it
    /// names none of the set, those that have no name; without a `kid`, all. The first
    /// [`CANDIDATES_MAX`] of them.
    pub fn candidates(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &Key> {
        let kid = kid.filter(|_| self.named);
        let name = kid.filter(|kid| self.has(kid));
        self.keys
            .iter()
            .filter(move |key| key.serves(algorithm) && (kid.is_none() || key.kid() == name))
            .take(CANDIDATES_MAX)
    }

    /// Whether a key of the set has this name.
    fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid() == Some(kid))
    }
}

fn some_algorithm(algorithms: &[Algorithm]) -> Result<(), Vec<Flaw>> {
    if algorithms.is_empty() {
        return Err(vec![Flaw::new(
            "no algorithm is accepted",
            "list what the issuer signs with, such as `algorithms = [\"ES256\"]`",
        )]);
    }
    Ok(())
}
