//! Signatures: bent, forged, and spelled twice.

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::*;

const P256_ORDER: &str = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
const ED25519_ORDER: &str = "1000000000000000000000000000000014DEF9DEA2F79CD65812631A5CF5D3ED";

fn number(hex: &str) -> [u8; 32] {
    std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
}

/// The signature of a token, and the token with another one.
fn signature_of(token: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.rsplit_once('.').unwrap().1).unwrap()
}

fn resigned(token: &str, signature: &[u8]) -> String {
    format!("{}.{}", token.rsplit_once('.').unwrap().0, b64(signature))
}

#[test]
fn a_bent_signature_is_refused() {
    for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA] {
        let (verifier, good) = (with_pem(algorithm), good_token(algorithm));
        let signature = signature_of(&good);
        let mut flipped = signature.clone();
        flipped[7] ^= 1;
        for (what, bent) in [
            ("empty", Vec::new()),
            ("one byte", vec![0]),
            ("truncated", signature[..signature.len() - 1].to_vec()),
            ("extended", [&signature[..], &[0]].concat()),
            ("led by zero", [&[0], &signature[..]].concat()),
            ("zero", vec![0; signature.len()]),
            ("ones", vec![0xFF; signature.len()]),
            ("flipped", flipped),
            ("twice", [&signature[..], &signature[..]].concat()),
        ] {
            let token = resigned(&good, &bent);
            assert_eq!(refusal(&verifier, &token), Reason::Signature, "{algorithm:?} {what}");
        }
    }
}

#[test]
fn a_psychic_or_der_signature_is_refused() {
    let (verifier, good) = (with_pem(Algorithm::ES256), good_token(Algorithm::ES256));
    let signature = signature_of(&good);
    let (r, s) = signature.split_at(32);
    let (zero, one, order) = ([0; 32], number(&format!("{:064x}", 1)), number(P256_ORDER));
    for (r, s) in [
        (&zero[..], &zero[..]),
        (&zero, s),
        (r, &zero),
        (&order, &order),
        (&order, s),
        (r, &order),
        (&one, &one),
        (&one, &zero),
    ] {
        let token = resigned(&good, &[r, s].concat());
        assert_eq!(refusal(&verifier, &token), Reason::Signature, "{r:?} {s:?}");
    }
    let der = [&[0x30, 68, 2, 32][..], r, &[2, 32], s].concat();
    assert_eq!(refusal(&verifier, &resigned(&good, &der)), Reason::Signature);
}

#[test]
fn the_second_spelling_of_an_ecdsa_signature_is_revoked_with_the_first() {
    let verifier = with_pem(Algorithm::ES256);
    let header = plain_header(Algorithm::ES256);
    for changes in [json!({}), json!({"jti": null})] {
        let first = compact(Algorithm::ES256, &header, &claims(changes).to_string());
        let mut signature = signature_of(&first);
        // (r, n - s) verifies as well.
        let (order, mut borrow) = (number(P256_ORDER), 0);
        for i in (0..32).rev() {
            let difference = i16::from(order[i]) - i16::from(signature[32 + i]) - borrow;
            borrow = i16::from(difference < 0);
            signature[32 + i] = difference.rem_euclid(256) as u8;
        }
        let second = resigned(&first, &signature);
        assert_ne!(first, second);
        let keys = |token| verify(&verifier, token).unwrap().blacklist_keys;
        assert_eq!(keys(&first), keys(&second));
        assert_eq!(keys(&first).len(), 1);
    }
}

#[test]
fn an_ed25519_signature_has_one_spelling() {
    let (verifier, good) = (with_pem(Algorithm::EdDSA), good_token(Algorithm::EdDSA));
    let mut signature = signature_of(&good);
    // S + L is the same number modulo the order of the group.
    let (order, mut carry) = (number(ED25519_ORDER), 0);
    for i in 0..32 {
        let sum = u16::from(signature[32 + i]) + u16::from(order[31 - i]) + carry;
        signature[32 + i] = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(refusal(&verifier, &resigned(&good, &signature)), Reason::Signature);
    let identity_point = [&number(&format!("01{:062x}", 0))[..], &[0; 32]].concat();
    assert_eq!(refusal(&verifier, &resigned(&good, &identity_point)), Reason::Signature);
}

#[test]
fn a_key_verifies_only_with_the_algorithm_it_is_pinned_to() {
    // The key is the same RSA key, and the signature is good for the algorithm that the header
    // names.
    let pinned = with_pem(Algorithm::PS256);
    assert_eq!(refusal(&pinned, &good_token(Algorithm::RS256)), Reason::Algorithm);

    let rsa = rsa_components();
    let key = json!({"kty": "RSA", "kid": "a", "alg": "PS256", "n": b64(&rsa.n), "e": b64(&rsa.e)});
    let other = json!({
        "kty": "EC", "kid": "b", "alg": "ES256", "crv": "P-256",
        "x": b64(&P256.public_key().as_ref()[1..33]), "y": b64(&P256.public_key().as_ref()[33..]),
    });
    let set = KeySource::Jwks(Secret::new(json!({"keys": [key, other]}).to_string()));
    let mixed = compile(&settings(&[Algorithm::PS256, Algorithm::ES256], set));
    let token = |algorithm: Algorithm, kid: &str| {
        let header = json!({"alg": format!("{algorithm:?}"), "kid": kid}).to_string();
        compact(algorithm, &header, &claims(json!({})).to_string())
    };
    assert!(verify(&mixed, &token(Algorithm::PS256, "a")).is_ok());
    assert!(verify(&mixed, &token(Algorithm::ES256, "b")).is_ok());
    assert_eq!(refusal(&mixed, &token(Algorithm::ES256, "a")), Reason::Key);
    assert_eq!(refusal(&mixed, &token(Algorithm::PS256, "b")), Reason::Key);
}
