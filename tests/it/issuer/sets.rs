//! Sets as issuers publish them: keys that share a name, keys that are written oddly, and keys
//! without a name.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::{config, get, start, upstream};
use crate::support::{Issuer, Signer, claims, jwk_set};

/// An RSA key of this name, and a token that it signed.
fn rsa(kid: &str) -> (Value, String) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwk = json!({"kty": "RSA", "n": b64(&public.n), "e": b64(&public.e), "kid": kid});
    let private: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().expect("its private half");
    let base64 = base64::engine::general_purpose::STANDARD.encode(private.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n");
    let key = EncodingKey::from_rsa_pem(pem.as_bytes()).expect("a private key");
    let claims = claims("42");
    let token =
        portcullis::auth::sign(Algorithm::RS256, &key, Some(kid), claims.as_object().unwrap());
    (jwk, token.expect("a signed token"))
}

fn set(member: &str, value: Value, key: &Signer) -> Value {
    let mut jwk = key.jwk.clone();
    jwk[member] = value;
    jwk
}

#[test]
fn keys_of_one_name_all_serve() {
    let (upstream, issuer) = (upstream(), Issuer::plain(&[]));
    let (first, second) = (Signer::new("a"), Signer::new("a"));
    let (rsa, by_rsa) = rsa("a");
    issuer.answer(jwk_set(&[&rsa, &first.jwk, &second.jwk, &first.jwk]));
    let config = config(&issuer, &upstream, "").replace("\"ES256\"", "\"RS256\", \"ES256\"");
    let gateway = start(&issuer, &config);
    let claims = claims("42");
    for (token, expected) in [
        (first.token(&claims), 200),
        (second.token(&claims), 200),
        (by_rsa, 200),
        (Signer::new("a").token(&claims), 401),
    ] {
        for _ in 0..2 {
            assert_eq!(get(&gateway, &token).status, expected);
        }
    }
    assert_eq!(issuer.fetches(), 1);
    assert!(!gateway.stderr().contains("leaves keys of the set out"), "{}", gateway.stderr());
}

#[test]
fn odd_members_and_odd_neighbours_cost_no_key() {
    let (upstream, issuer) = (upstream(), Issuer::plain(&[]));
    let key = Signer::new("a");
    let odd = [
        set("x5c", Value::Null, &key),
        set("use", Value::Null, &key),
        set("alg", Value::Null, &key),
        set("kid", Value::Null, &key),
        set("d", Value::Null, &key),
        set("unheard-of", json!({"a": 1}), &key),
    ];
    for jwk in &odd {
        let broken = json!({"kty": "XYZ", "kid": "a"});
        issuer.answer(jwk_set(&[&broken, &json!(null), jwk, &json!([])]));
        let gateway = start(&issuer, &config(&issuer, &upstream, ""));
        assert_eq!(get(&gateway, &key.token(&claims("42"))).status, 200, "{jwk}");
    }
}
