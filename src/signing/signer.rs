//! The keys of one signer: private ones in PEM, which sign, and the set of public ones that others
//! verify by (RFC 7517). A key's id is its thumbprint (RFC 7638), so that nobody has to name keys.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

use crate::base::pem;
use crate::config;

/// Bytes of one coordinate of a point of P-256.
const COORDINATE_BYTES: usize = 32;
/// Bytes of base64 in one line of PEM (RFC 7468 §2).
const PEM_LINE_BYTES: usize = 64;

/// What is wrong with a key, and what to do.
pub type Flaw = (String, &'static str);

/// What a flaw of a key has in common.
const REMEDY: &str = "name a private key of P-256 in PEM; `portcullis signing-key PATH` makes one";

/// One of `[signers]`, compiled.
#[derive(Debug)]
pub struct Signer {
    /// Its name in the configuration.
    pub name: String,
    /// What its tokens have as `iss`.
    pub issuer: String,
    /// How its access and refresh tokens are; nothing where it issues none.
    pub tokens: Option<config::Tokens>,
    key: EcdsaKeyPair,
    kid: String,
    /// The public keys, the one that signs first.
    keys: Vec<Value>,
}

impl Signer {
    /// Compiles what was written.
    ///
    /// # Errors
    /// What is wrong with which of its keys, by their numbers; empty where none was named, which
    /// the reader of the file has reported.
    pub fn compile(name: &str, written: &config::Signer) -> Result<Self, Vec<(usize, Flaw)>> {
        let (mut pairs, mut flaws) = (Vec::new(), Vec::new());
        let mut keys: Vec<Value> = Vec::new();
        for (at, pem) in written.keys.iter().enumerate() {
            match key_pair(pem.expose()) {
                Ok(pair) => {
                    let key = public(&pair);
                    if keys.contains(&key) {
                        flaws.push((at, ("is the same as one before it".to_owned(), "remove it")));
                    }
                    keys.push(key);
                    pairs.push(pair);
                }
                Err(flaw) => flaws.push((at, flaw)),
            }
        }
        let first = pairs.into_iter().next().filter(|_| flaws.is_empty());
        let Some(key) = first else { return Err(flaws) };
        Ok(Self {
            name: name.to_owned(),
            issuer: written.issuer.clone(),
            tokens: written.tokens.clone(),
            kid: thumbprint(&key),
            key,
            keys,
        })
    }

    /// The id of the key that signs.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The JWK set (RFC 7517 §5) of these signers.
    pub fn key_set<'s>(signers: impl Iterator<Item = &'s Self>) -> String {
        let mut keys: Vec<&Value> = Vec::new();
        for key in signers.flat_map(|signer| &signer.keys) {
            // Several signers may have a key in common.
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        json!({ "keys": keys }).to_string()
    }

    /// A compact JWS (RFC 7515 §7.1) over the text of a claims object; `typ` is what the head says
    /// that it is. Nothing where the system's random source fails.
    pub fn sign(&self, typ: &str, claims: &str) -> Option<String> {
        let head = format!(r#"{{"alg":"ES256","typ":"{typ}","kid":"{}"}}"#, self.kid);
        let mut token = String::with_capacity(2 * (head.len() + claims.len()) + 96);
        URL_SAFE_NO_PAD.encode_string(head, &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.key.sign(&SystemRandom::new(), token.as_bytes()).ok()?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Some(token)
    }
}

/// A new private key in PEM (PKCS#8), and its id. Nothing where the random source fails.
pub fn new_key() -> Option<(String, String)> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
    let text = STANDARD.encode(pair.to_pkcs8v1().ok()?);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(PEM_LINE_BYTES) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    Some((pem, thumbprint(&pair)))
}

/// The key of a PEM text.
fn key_pair(text: &[u8]) -> Result<EcdsaKeyPair, Flaw> {
    let has = |what: &str| text.windows(what.len()).any(|it| it == what.as_bytes());
    if has("ENCRYPTED") {
        return Err(("is encrypted, and nobody is there to type its password".to_owned(), REMEDY));
    }
    let der = pem::private_key(text).map_err(|what| {
        let found = ["CERTIFICATE", "PUBLIC KEY"].into_iter().find(|kind| has(kind));
        match found {
            Some("CERTIFICATE") => ("is a certificate, and no private key".to_owned(), REMEDY),
            Some(_) => ("is a public key, which signs nothing".to_owned(), REMEDY),
            None => (what, REMEDY),
        }
    })?;
    let pair = match &der {
        PrivateKeyDer::Pkcs1(_) => None,
        _ => EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der())
            .ok(),
    };
    pair.ok_or_else(|| (format!("is {}, and only ES256 is signed with", kind(&der)), REMEDY))
}

/// What a key is that is none of P-256.
fn kind(der: &PrivateKeyDer<'_>) -> &'static str {
    let bytes = der.secret_der();
    let is_of = |algorithm| EcdsaKeyPair::from_private_key_der(algorithm, bytes).is_ok();
    if matches!(der, PrivateKeyDer::Pkcs1(_)) || RsaKeyPair::from_pkcs8(bytes).is_ok() {
        "a key of RSA"
    } else if is_of(&ECDSA_P384_SHA384_FIXED_SIGNING) {
        "a key of P-384"
    } else if is_of(&ECDSA_P521_SHA512_FIXED_SIGNING) {
        "a key of P-521"
    } else if Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).is_ok() {
        "a key of Ed25519"
    } else {
        "a key of another kind"
    }
}

/// The coordinates of the public key in base64url. It is `04`, x and y (SEC 1 §2.3.3).
fn coordinates(pair: &EcdsaKeyPair) -> (String, String) {
    let point = pair.public_key().as_ref();
    let both = point.get(1..).unwrap_or_default();
    let (x, y) = both.split_at_checked(COORDINATE_BYTES).unwrap_or_default();
    (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
}

/// RFC 7638 §3: SHA-256 of the required members in their order, in base64url.
fn thumbprint(pair: &EcdsaKeyPair) -> String {
    let (x, y) = coordinates(pair);
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()))
}

fn public(pair: &EcdsaKeyPair) -> Value {
    let (x, y) = coordinates(pair);
    json!({
        "kty": "EC",
        "crv": "P-256",
        "x": x,
        "y": y,
        "use": "sig",
        "alg": "ES256",
        "kid": thumbprint(pair),
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_key_that_is_made_signs_and_is_published() {
        let (pem, kid) = new_key().unwrap();
        let written = config::Signer {
            issuer: "https://gateway.test".to_owned(),
            keys: vec![crate::base::units::Secret::new(pem.into_bytes())],
            tokens: None,
        };
        let signer = Signer::compile("main", &written).unwrap();
        assert_eq!(signer.kid(), kid);
        let set = Signer::key_set([&signer, &signer].into_iter());
        let set: Value = serde_json::from_str(&set).unwrap();
        assert_eq!(set["keys"].as_array().unwrap().len(), 1);
        assert_eq!(
            (&set["keys"][0]["kid"], &set["keys"][0]["alg"]),
            (&json!(kid), &json!("ES256"))
        );
        assert_eq!(set["keys"][0].get("d"), None);
        let token = signer.sign("JWT", r#"{"sub":"42"}"#).unwrap();
        let coordinate =
            |name: &str| URL_SAFE_NO_PAD.decode(set["keys"][0][name].as_str().unwrap()).unwrap();
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        let (input, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        key.verify(input.as_bytes(), &signature).unwrap();
    }
}
