//! Key policy: what is refused when keys are loaded.

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::*;
use crate::auth::{Flaw, KeySet};

fn rsa_jwk(n: &[u8], e: &[u8]) -> Value {
    json!({"kty": "RSA", "n": b64(n), "e": b64(e)})
}

fn ec_jwk(crv: &str, pair: &EcdsaKeyPair) -> Value {
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    json!({"kty": "EC", "crv": crv, "x": b64(x), "y": b64(y)})
}

fn with(mut jwk: Value, members: Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        jwk[name] = value.clone();
    }
    jwk
}

fn oct(members: Value) -> Value {
    with(json!({"kty": "oct", "alg": "HS256"}), members)
}

fn flaws(keys: Value, algorithms: &[Algorithm]) -> Vec<String> {
    let text = json!({"keys": keys}).to_string();
    let told = |Flaw { what, remedy }: Flaw| {
        assert!(!remedy.is_empty(), "{what} has no remedy");
        what
    };
    match KeySet::from_jwks(&text, algorithms) {
        Ok(_) => Vec::new(),
        Err(flaws) => flaws.into_iter().map(told).collect(),
    }
}

/// Asserts that the key alone is refused, for a reason that says `expected`.
fn refuses(key: Value, algorithm: Algorithm, expected: &str) {
    let found = flaws(json!([key]), &[algorithm]).join("; ");
    assert!(found.contains(expected), "{key}: {found:?} does not say {expected:?}");
}

#[test]
fn a_key_that_anybody_can_sign_for_is_refused() {
    let (mut zero, mut minus_one) = ([0; 32], [0xFF; 32]);
    (minus_one[0], minus_one[31]) = (0xEC, 0x7F);
    let mut one = zero;
    one[0] = 1;
    let mut more_than_the_prime = minus_one;
    more_than_the_prime[0] = 0xEE;
    for point in [zero, one, minus_one, more_than_the_prime] {
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(point)});
        refuses(key, Algorithm::EdDSA, "small order");
    }
    zero[31] = 0x80;
    let spki = [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".as_slice(), &zero].concat();
    let found = KeySet::from_pem(&pem(&spki), &[Algorithm::EdDSA]).err().unwrap();
    assert!(format!("{found:?}").contains("small order"), "{found:?}");
    // 65537 to the 128th: modulo every number it is a power of 65537.
    let mut roca = vec![0; 257];
    roca[256] = 1;
    for _ in 0..128 {
        let mut carry = 0;
        let shifted: Vec<u8> = roca[2..].iter().copied().chain([0, 0]).collect();
        for (digit, more) in roca.iter_mut().zip(shifted).rev() {
            let sum = u16::from(*digit) + u16::from(more) + carry;
            (*digit, carry) = (sum as u8, sum >> 8);
        }
    }
    refuses(rsa_jwk(&roca, &[1, 0, 1]), Algorithm::RS256, "ROCA");
}

#[test]
fn a_weak_or_malformed_rsa_key_is_refused() {
    let rsa = rsa_components();
    let mut even = rsa.n.clone();
    even[255] &= 0xFE;
    let refused = |n: &[u8], e: &[u8], why| refuses(rsa_jwk(n, e), Algorithm::RS256, why);
    refused(&rsa.n[..128], &rsa.e, "1024 bits");
    refused(&rsa.n[1..], &rsa.e, "bits");
    refused(&[&[0; 64], &rsa.n[..192]].concat(), &rsa.e, "1536 bits");
    refused(&[], &rsa.e, "0 bits");
    refused(&[0xFF; 1025], &rsa.e, "8200 bits");
    refused(&even, &rsa.e, "even");
    for exponent in [&[1][..], &[0, 1], &[], &[0], &[2], &[1, 0, 0], &[0xFF; 6]] {
        refused(&rsa.n, exponent, "exponent");
    }
    let accepted = |n: &[u8], e: &[u8]| flaws(json!([rsa_jwk(n, e)]), &[Algorithm::RS256]);
    assert_eq!(accepted(&rsa.n, &[3]), [""; 0]);
    assert_eq!(accepted(&[&[0], &rsa.n[..]].concat(), &rsa.e), [""; 0]);
}

#[test]
fn a_point_lies_on_the_curve_of_the_algorithm() {
    let good = ec_jwk("P-256", &P256);
    assert_eq!(flaws(json!([good]), &[Algorithm::ES256]), [""; 0]);
    assert_eq!(flaws(json!([ec_jwk("P-384", &P384)]), &[Algorithm::ES384]), [""; 0]);
    let refused = |jwk, why| refuses(jwk, Algorithm::ES256, why);
    refused(ec_jwk("P-384", &P384), "no entry of `algorithms` is for a P-384 key");
    refused(with(ec_jwk("P-384", &P384), json!({"alg": "ES256"})), "ES256 needs a P-256 key");
    refused(ec_jwk("P-384", &P256), "not 48");
    refused(ec_jwk("P-521", &P256), "\"P-521\" is not supported");
    refused(ec_jwk("secp256k1", &P256), "not supported");
    refused(with(good.clone(), json!({"x": b64([0; 32]), "y": b64([0; 32])})), "does not lie on");
    refused(with(good.clone(), json!({"y": good["x"]})), "does not lie on");
    refused(with(good.clone(), json!({"x": b64([1; 31])})), "31 and 32 bytes");
    refused(with(good.clone(), json!({"x": "AA=="})), "base64url");
    refused(with(good.clone(), json!({"x": 1})), "not a string");
    refused(json!({"kty": "OKP", "crv": "Ed448", "x": b64([0; 57])}), "not supported");
    refuses(
        json!({"kty": "OKP", "crv": "Ed25519", "x": b64([0; 31])}),
        Algorithm::EdDSA,
        "32 bytes",
    );
}

#[test]
fn an_hmac_secret_is_as_long_as_its_hash() {
    for (algorithm, least) in
        [(Algorithm::HS256, 32), (Algorithm::HS384, 48), (Algorithm::HS512, 64)]
    {
        assert!(KeySet::from_secret(&SECRET[..least], &[algorithm]).is_ok());
        assert!(KeySet::from_secret(&SECRET[..least - 1], &[algorithm]).is_err());
        assert!(KeySet::from_secret(b"", &[algorithm]).is_err());
        let key = |size: usize| json!([{"kty": "oct", "k": b64(&SECRET[..size])}]);
        assert_eq!(flaws(key(least), &[algorithm]), [""; 0]);
        assert_eq!(flaws(key(least - 1), &[algorithm]).len(), 1);
    }
    let both = [Algorithm::HS256, Algorithm::HS512];
    assert_eq!(KeySet::from_secret(&SECRET[..8], &both).unwrap_err().len(), 2);
    assert_eq!(flaws(json!([{"kty": "oct", "k": b64(SECRET)}]), &both).len(), 1);
    let pem = pem(&public_der(Algorithm::RS256));
    assert!(KeySet::from_secret(pem.as_bytes(), &[Algorithm::HS256]).is_err());
    assert!(KeySet::from_secret(SECRET, &[Algorithm::RS256]).is_err());
    assert!(KeySet::from_secret(SECRET, &[]).is_err());
}

#[test]
fn a_pem_text_holds_one_public_key_of_the_algorithms_kind() {
    let der = public_der(Algorithm::RS256);
    let text = pem(&der);
    assert!(KeySet::from_pem(&text, &[Algorithm::RS256, Algorithm::PS512]).is_ok());
    let pkcs1 = block("RSA PUBLIC KEY", RSA.public_key().as_ref());
    assert!(KeySet::from_pem(&pkcs1, &[Algorithm::RS256]).is_ok());
    let private: aws_lc_rs::encoding::Pkcs8V1Der<'_> = RSA.as_der().unwrap();
    let k1 = EcdsaKeyPair::generate(&lc::ECDSA_P256K1_SHA256_ASN1_SIGNING).unwrap();
    let k1: PublicKeyX509Der<'_> = k1.public_key().as_der().unwrap();
    for (text, algorithm, expected) in [
        (String::new(), Algorithm::RS256, "no PEM block"),
        (format!("{text}{text}"), Algorithm::RS256, "several"),
        (block("PRIVATE KEY", private.as_ref()), Algorithm::RS256, "private key"),
        (block("RSA PRIVATE KEY", private.as_ref()), Algorithm::RS256, "private key"),
        (block("CERTIFICATE", &der), Algorithm::RS256, "certificate"),
        (block("PUBLIC KEY", &der[..100]), Algorithm::RS256, "not a usable"),
        (text.clone(), Algorithm::ES256, "ES256 needs a P-256 key, but this is an RSA key"),
        (text.clone(), Algorithm::HS256, "HS256 needs a shared secret"),
        (pem(&public_der(Algorithm::ES384)), Algorithm::ES256, "but this is a P-384 key"),
        (pem(&public_der(Algorithm::EdDSA)), Algorithm::RS256, "but this is an Ed25519 key"),
        (pem(k1.as_ref()), Algorithm::ES256, "does not lie on P-256"),
    ] {
        let flaws = KeySet::from_pem(&text, &[algorithm]).unwrap_err();
        assert_eq!(flaws.len(), 1);
        assert!(flaws[0].what.contains(expected), "{:?} does not say {expected:?}", flaws[0]);
    }
}

#[test]
fn a_key_for_another_purpose_is_refused() {
    let rsa = rsa_components();
    let refused = |members, why| {
        refuses(with(rsa_jwk(&rsa.n, &rsa.e), members), Algorithm::RS256, why);
    };
    refused(json!({"use": "enc"}), "`use`");
    refused(json!({"use": ["sig"]}), "`use`");
    refused(json!({"key_ops": ["sign"]}), "`key_ops`");
    refused(json!({"key_ops": []}), "`key_ops`");
    refused(json!({"key_ops": "verify"}), "`key_ops`");
    refused(json!({"alg": "RSA-OAEP"}), "`alg`");
    refused(json!({"alg": "none"}), "`alg`");
    refused(json!({"alg": "Ed25519"}), "EdDSA needs an Ed25519 key");
    refused(json!({"alg": "ESP256"}), "`alg`");
    refused(json!({"alg": "HS256"}), "HS256 needs a shared secret");
    refused(json!({"alg": "RS512"}), "which `algorithms` does not list");
    refused(json!({"kid": 1}), "`kid`");
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth"] {
        refused(json!({ member: "AQAB" }), "private half");
    }
    refused(json!({"kty": "oct"}), "`k` is missing");
    refused(json!({"kty": "XYZ"}), "not supported");
    refused(json!({"kty": 1}), "`kty`");
    for members in [
        json!({"use": "sig", "key_ops": ["verify"]}),
        json!({"use": null, "key_ops": null, "alg": null, "kid": null, "d": null, "oth": null}),
        json!({"x5c": [], "x5t": 5, "x5u": null, "ext": true, "key_ops": ["verify", 7], "": {}}),
    ] {
        let good = with(rsa_jwk(&rsa.n, &rsa.e), members);
        assert_eq!(flaws(json!([good]), &[Algorithm::RS256, Algorithm::PS256]), [""; 0], "{good}");
    }
}

#[test]
fn a_file_that_mixes_key_types_leaves_no_choice_to_the_token() {
    let rsa = rsa_components();
    let named = |kid: &str| with(rsa_jwk(&rsa.n, &rsa.e), json!({"kid": kid, "alg": "RS256"}));
    let ec = ec_jwk("P-256", &P256);
    let both = [Algorithm::RS256, Algorithm::ES256];
    let whole = with(ec.clone(), json!({"kid": "b", "alg": "ES256"}));
    assert_eq!(flaws(json!([named("a"), whole, named("a"), whole]), &both), [""; 0]);
    for (keys, expected) in [
        (json!([named("a"), with(whole.clone(), json!({"kid": "a"}))]), "`kid` is taken"),
        (json!([named("a"), ec]), "mixes key types"),
        (json!([named("a"), with(ec.clone(), json!({"kid": "b"}))]), "mixes key types"),
        (json!([named("a"), with(ec, json!({"alg": "ES256"}))]), "mixes key types"),
        (json!([named("a")]), "no key serves ES256"),
        (json!([]), "empty"),
        (json!({}), "no list"),
        (json!({"keys": []}), "no list"),
        (json!(null), "no list"),
        (json!([1]), "not a JSON object"),
    ] {
        let found = flaws(keys, &both).join("; ");
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
    }
    let nameless = json!([rsa_jwk(&rsa.n, &rsa.e), named("a")]);
    assert_eq!(flaws(nameless, &[Algorithm::RS256]), [""; 0]);
    for text in ["", "[]", "[[{}]]", "{\"keys\":[],\"keys\":[]}", "{}", "null", "{\"keys\":[}"] {
        assert!(KeySet::from_jwks(text, &both).is_err(), "{text}");
    }
    let crowd: Vec<Value> = (1..=17).map(|n| oct(json!({"k": b64([n; 32])}))).collect();
    let found = flaws(json!(crowd[..16]), &[Algorithm::HS256]);
    assert_eq!(found, [""; 0]);
    let found = flaws(json!(crowd), &[Algorithm::HS256]).join("; ");
    assert!(found.starts_with("keys[16]: 16 keys before it"), "{found}");
    let many: Vec<Value> = (0..257).map(|n| named(&n.to_string())).collect();
    assert!(flaws(json!(many), &[Algorithm::RS256]).join("").contains("257 keys"));
}

#[test]
fn all_flaws_are_told_at_once() {
    let weak = json!({"kty": "oct", "kid": "a", "alg": "HS256", "k": b64("short")});
    let wrong =
        json!({"kty": "RSA", "kid": "b", "use": "enc", "alg": "none", "n": "AQAB", "e": "Aw"});
    let found = flaws(json!([weak, wrong, {"kty": "?"}]), &[Algorithm::HS256]);
    assert_eq!(found.len(), 5, "{found:#?}");
    assert!(found[0].starts_with("keys[0] (kid \"a\"): "), "{found:#?}");
    assert!(found[4].starts_with("keys[2]: "), "{found:#?}");
}

#[test]
fn candidates_are_chosen_by_name_and_by_algorithm() {
    let rsa = rsa_components();
    let key = |kid: &str, alg: &str| with(rsa_jwk(&rsa.n, &rsa.e), json!({"kid": kid, "alg": alg}));
    let keys = [key("a", "RS256"), key("b", "RS256"), key("c", "PS256"), key("", "PS256")];
    let set = json!({ "keys": keys }).to_string();
    let set = KeySet::from_jwks(&set, &[Algorithm::RS256, Algorithm::PS256]).unwrap();
    let found = |kid, algorithm| -> Vec<_> {
        set.candidates(kid, algorithm).map(|key| key.kid().unwrap()).collect()
    };
    assert_eq!(found(Some("b"), Algorithm::RS256), ["b"]);
    assert_eq!(found(Some("b"), Algorithm::PS256), [""; 0]);
    assert_eq!(found(None, Algorithm::RS256), ["a", "b"]);
    assert_eq!(found(None, Algorithm::PS256), ["c", ""]);
    assert_eq!(found(Some(""), Algorithm::PS256), [""]);
    assert_eq!(found(Some("x"), Algorithm::PS256), [""; 0]);
}

#[test]
fn no_token_costs_more_than_a_few_verifications() {
    let keys: Vec<Value> =
        (1..=200).map(|n| oct(json!({"k": b64([n; 32]), "kid": n.to_string()}))).collect();
    let set = KeySet::from_jwks(&json!({ "keys": keys }).to_string(), &[Algorithm::HS256]).unwrap();
    assert_eq!(set.candidates(None, Algorithm::HS256).count(), 16);
    assert_eq!(set.candidates(Some("200"), Algorithm::HS256).count(), 1);
}

#[test]
fn compile_names_the_place_of_each_mistake() {
    let mut config = hs256_settings();
    config.keys = Some(KeySource::Secret(Secret::new("short")));
    for (header, claim) in
        [("host", "sub"), ("x id", "sub"), ("x-empty", ""), ("X-Twice", "a"), ("x-twice", "b")]
    {
        config.claims_to_headers.insert(header.to_owned(), claim.to_owned());
    }
    let keys = store::keys::Keys::new("app");
    let mistakes = Verifier::compile("users", &config, &keys, SharedWith::Nobody).unwrap_err();
    let places: Vec<&str> = mistakes.iter().map(|mistake| mistake.0.as_str()).collect();
    assert_eq!(
        places,
        [
            "claims_to_headers.host",
            "claims_to_headers.x id",
            "claims_to_headers.x-empty",
            "claims_to_headers.x-twice",
            "secret",
        ]
    );
    config = hs256_settings();
    config.keys = None;
    assert_eq!(Verifier::compile("users", &config, &keys, SharedWith::Nobody).unwrap_err(), []);
}

#[test]
fn no_claim_is_written_where_http_or_the_gateway_says_something() {
    let keys = store::keys::Keys::new("app");
    for (header, is_free) in [
        ("x-user-id", true),
        ("accept-language", true),
        ("transfer-encoding", false),
        ("proxy-authentication-info", false),
        ("content-type", false),
        ("range", false),
        ("traceparent", false),
        ("x-forwarded-user", false),
    ] {
        let mut config = hs256_settings();
        config.claims_to_headers.insert(header.to_owned(), "sub".to_owned());
        let compiled = Verifier::compile("users", &config, &keys, SharedWith::Nobody);
        assert_eq!(compiled.is_ok(), is_free, "{header}");
    }
}
