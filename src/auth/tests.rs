//! What this room promises, as tables of tokens and keys: here the issuer's side that the tables
//! share.

mod api_keys;
mod carrier;
mod certificates;
mod challenge;
mod claims;
mod header;
mod keys;
mod laws;
mod policy;
mod published;
mod signature;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use crate::auth::SharedWith;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RsaKeyPair, RsaPublicKeyComponents,
};
use aws_lc_rs::{hmac, rand::SystemRandom, signature as lc};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::Verifier;
use super::challenge::Reason;
use crate::base::facts::Identity;
use crate::base::units::Secret;
use crate::config::{self, KeySource, TokenSource};
use crate::store;

/// The moment at which all tokens of these tests are judged.
const NOW: i64 = 1_800_000_000;
const SECRET: &[u8] = b"sixty-four-bytes-of-test-secret-sixty-four-bytes-of-test-secret!";

static RSA: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static P256: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
static P384: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap());
static ED25519: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::generate().unwrap());

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.unsigned_abs())
}

fn settings(algorithms: &[Algorithm], keys: KeySource) -> config::Verifier {
    config::Verifier {
        issuer: None,
        audience: Vec::new(),
        audience_match: config::AudienceMatch::Any,
        algorithms: algorithms.to_vec(),
        keys: Some(keys),
        from: vec![TokenSource::Header(http::header::AUTHORIZATION)],
        leeway: Duration::from_secs(30),
        max_age: None,
        token_bytes: 8192,
        revocation: true,
        forward_token: false,
        claims_to_headers: BTreeMap::new(),
        sender: config::Sender::default(),
    }
}

fn hs256_settings() -> config::Verifier {
    settings(&[Algorithm::HS256], KeySource::Secret(Secret::new(SECRET)))
}

fn compile(config: &config::Verifier) -> Verifier {
    Verifier::compile("users", config, &store::keys::Keys::new("app"), SharedWith::Nobody).unwrap()
}

fn hs256() -> Verifier {
    compile(&hs256_settings())
}

/// A verifier with a PEM key of each kind.
fn with_pem(algorithm: Algorithm) -> Verifier {
    compile(&settings(&[algorithm], KeySource::PublicKey(pem(&public_der(algorithm)))))
}

fn public_der(algorithm: Algorithm) -> Vec<u8> {
    let der: PublicKeyX509Der<'_> = match algorithm {
        Algorithm::ES256 => P256.public_key().as_der().unwrap(),
        Algorithm::ES384 => P384.public_key().as_der().unwrap(),
        Algorithm::EdDSA => ED25519.public_key().as_der().unwrap(),
        _ => RSA.public_key().as_der().unwrap(),
    };
    der.as_ref().to_vec()
}

fn pem(der: &[u8]) -> String {
    block("PUBLIC KEY", der)
}

fn block(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn rsa_components() -> RsaPublicKeyComponents<Vec<u8>> {
    RsaPublicKeyComponents::from(RSA.public_key())
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The signature of `message` by the test key for `algorithm`.
fn raw_signature(algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
    let rng = SystemRandom::new();
    let rsa = |encoding: &'static dyn lc::RsaEncoding| {
        let mut signature = vec![0; RSA.public_modulus_len()];
        RSA.sign(encoding, &rng, message, &mut signature).unwrap();
        signature
    };
    let mac = |algorithm| hmac::sign(&hmac::Key::new(algorithm, SECRET), message).as_ref().to_vec();
    match algorithm {
        Algorithm::HS256 => mac(hmac::HMAC_SHA256),
        Algorithm::HS384 => mac(hmac::HMAC_SHA384),
        Algorithm::HS512 => mac(hmac::HMAC_SHA512),
        Algorithm::ES256 => P256.sign(&rng, message).unwrap().as_ref().to_vec(),
        Algorithm::ES384 => P384.sign(&rng, message).unwrap().as_ref().to_vec(),
        Algorithm::EdDSA => ED25519.sign(message).as_ref().to_vec(),
        Algorithm::RS256 => rsa(&lc::RSA_PKCS1_SHA256),
        Algorithm::PS256 => rsa(&lc::RSA_PSS_SHA256),
        other => panic!("no test key for {other:?}"),
    }
}

/// A token with these texts as header and payload, signed whatever they say.
fn compact(algorithm: Algorithm, header: &str, payload: &str) -> String {
    let input = format!("{}.{}", b64(header), b64(payload));
    let signature = b64(raw_signature(algorithm, input.as_bytes()));
    format!("{input}.{signature}")
}

fn plain_header(algorithm: Algorithm) -> String {
    format!("{{\"alg\":\"{algorithm:?}\",\"typ\":\"JWT\"}}")
}

/// Claims that are good, with `changes` put over them; null removes a claim.
fn claims(changes: Value) -> Value {
    let mut claims = json!({"sub": "42", "iat": NOW - 60, "exp": NOW + 600, "jti": "t1"});
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// A good HS256 token with these claims.
fn token_with(changes: Value) -> String {
    compact(Algorithm::HS256, &plain_header(Algorithm::HS256), &claims(changes).to_string())
}

fn good_token(algorithm: Algorithm) -> String {
    compact(algorithm, &plain_header(algorithm), &claims(json!({})).to_string())
}

fn verify(verifier: &Verifier, token: &str) -> Result<Identity, Reason> {
    verifier.verify(token, NOW)
}

/// The reason why the token is refused.
fn refusal(verifier: &Verifier, token: &str) -> Reason {
    match verify(verifier, token) {
        Ok(_) => panic!("accepted: {}", &token[..token.len().min(300)]),
        Err(reason) => reason,
    }
}
