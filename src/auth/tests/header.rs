//! The header of a token, and its outer form.

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::*;

fn hs_token(header: &str) -> String {
    compact(Algorithm::HS256, header, &claims(json!({})).to_string())
}

#[test]
fn every_algorithm_verifies_a_good_token() {
    for algorithm in
        [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA]
    {
        assert!(verify(&with_pem(algorithm), &good_token(algorithm)).is_ok(), "{algorithm:?}");
    }
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let verifier = compile(&settings(&[algorithm], KeySource::Secret(Secret::new(SECRET))));
        assert!(verify(&verifier, &good_token(algorithm)).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn no_spelling_of_none_or_of_nothing_is_an_algorithm() {
    let verifier = hs256();
    for alg in [
        "\"none\"",
        "\"None\"",
        "\"NONE\"",
        "\"nOnE\"",
        "\"none \"",
        "\" none\"",
        "\"\"",
        "\"no\\u006ee\"",
        "null",
        "[\"HS256\"]",
        "{}",
        "0",
        "true",
        "\"hs256\"",
        "\"HS256 \"",
        "\"HS256\\u0000\"",
        "\"RS256\"",
        "\"HS384\"",
        "\"ES512\"",
        "\"ES256K\"",
    ] {
        let header = format!("{{\"alg\":{alg}}}");
        assert_eq!(refusal(&verifier, &hs_token(&header)), Reason::Algorithm, "{alg}");
        let unsigned = format!("{}.{}.", b64(&header), b64(claims(json!({})).to_string()));
        assert_eq!(refusal(&verifier, &unsigned), Reason::Algorithm, "{alg}");
    }
    assert_eq!(refusal(&verifier, &hs_token("{\"typ\":\"JWT\"}")), Reason::Algorithm);
}

#[test]
fn a_public_key_is_never_an_hmac_secret() {
    let payload = claims(json!({})).to_string();
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let verifier = with_pem(algorithm);
        let der = public_der(algorithm);
        let text = pem(&der);
        let (raw, n) = (&der[der.len().saturating_sub(65)..], rsa_components().n);
        let renderings: [&[u8]; 9] = [
            text.as_bytes(),
            text.trim_end().as_bytes(),
            &text.replace('\n', "\r\n").into_bytes(),
            &text.replace('\n', "").into_bytes(),
            &der,
            &STANDARD.encode(&der).into_bytes(),
            &b64(&der).into_bytes(),
            raw,
            &n,
        ];
        for (index, secret) in renderings.iter().enumerate() {
            for alg in ["HS256", "HS384", "HS512"] {
                let header = format!("{{\"alg\":\"{alg}\"}}");
                let input = format!("{}.{}", b64(header), b64(&payload));
                let mac = match alg {
                    "HS256" => hmac::HMAC_SHA256,
                    "HS384" => hmac::HMAC_SHA384,
                    _ => hmac::HMAC_SHA512,
                };
                let signature = hmac::sign(&hmac::Key::new(mac, secret), input.as_bytes());
                let token = format!("{input}.{}", b64(signature));
                assert_eq!(refusal(&verifier, &token), Reason::Algorithm, "{index} {alg}");
            }
        }
    }
}

#[test]
fn a_kid_is_a_short_string_and_only_names() {
    let verifier = hs256();
    for kid in ["1", "null", "[\"k\"]", "{}", "true"] {
        let header = format!("{{\"alg\":\"HS256\",\"kid\":{kid}}}");
        assert_eq!(refusal(&verifier, &hs_token(&header)), Reason::Header, "{kid}");
    }
    let long = json!({"alg": "HS256", "kid": "k".repeat(257)}).to_string();
    assert_eq!(refusal(&verifier, &hs_token(&long)), Reason::Header);

    // With a lone secret a kid means nothing; in a set it names a key exactly.
    let set = json!({"keys": [{"kty": "oct", "kid": "k1", "alg": "HS256", "k": b64(SECRET)}]});
    let jwks = KeySource::Jwks(Secret::new(set.to_string()));
    let named = compile(&settings(&[Algorithm::HS256], jwks));
    for kid in [
        "../../../../dev/null",
        "' OR 1=1 --",
        "k1\u{0}",
        "k1\r\nx: y",
        "http://127.0.0.1/k",
        "K1",
        "k1 ",
        "",
    ] {
        let token = hs_token(&json!({"alg": "HS256", "kid": kid}).to_string());
        assert!(verify(&verifier, &token).is_ok(), "{kid:?}");
        assert_eq!(refusal(&named, &token), Reason::Key, "{kid:?}");
    }
    assert!(verify(&named, &hs_token("{\"alg\":\"HS256\",\"kid\":\"k1\"}")).is_ok());
    assert!(verify(&named, &hs_token("{\"alg\":\"HS256\"}")).is_ok());
}

#[test]
fn a_token_does_not_bring_its_own_key() {
    let own = b64(b"another-secret-of-thirty-two-byte");
    let header = json!({
        "alg": "HS256", "iss": "https://evil.example", "x5c": ["MIIB"], "x5u": "http://127.0.0.1/",
        "jku": "http://127.0.0.1/jwks.json", "jwk": {"kty": "oct", "k": own},
    });
    // They are ignored: the configured key decides.
    assert!(verify(&hs256(), &hs_token(&header.to_string())).is_ok());
    let input = format!("{}.{}", b64(header.to_string()), b64(claims(json!({})).to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"another-secret-of-thirty-two-byte");
    let forged = format!("{input}.{}", b64(hmac::sign(&key, input.as_bytes())));
    assert_eq!(refusal(&hs256(), &forged), Reason::Signature);
}

#[test]
fn extensions_are_refused_whatever_they_say() {
    for member in [
        "\"crit\":[\"exp\"]",
        "\"crit\":[]",
        "\"crit\":null",
        "\"crit\":\"b64\"",
        "\"crit\":{}",
        "\"crit\":[\"b64\"],\"b64\":false",
        "\"crit\":[\"b64\"],\"b64\":true",
        "\"crit\":[1]",
        "\"crit\":[\"http://example.com/x\"]",
        "\"b64\":false",
        "\"b64\":true",
        "\"zip\":\"DEF\"",
        "\"zip\":null",
        "\"cty\":\"JWT\"",
        "\"cty\":\"jwt\"",
        "\"cty\":\"application/jwt\"",
    ] {
        let header = format!("{{\"alg\":\"HS256\",{member}}}");
        assert_eq!(refusal(&hs256(), &hs_token(&header)), Reason::Extension, "{member}");
    }
}

#[test]
fn typ_is_that_of_a_jwt_where_it_is_given() {
    for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/JWT"] {
        let header = json!({"alg": "HS256", "typ": typ}).to_string();
        assert!(verify(&hs256(), &hs_token(&header)).is_ok(), "{typ}");
    }
    for (typ, reason) in [
        (json!("JOSE"), Reason::Type),
        (json!("JWE"), Reason::Type),
        (json!("+jwt"), Reason::Type),
        (json!(""), Reason::Type),
        (json!("jwt "), Reason::Type),
        (json!(1), Reason::Header),
        (json!(null), Reason::Header),
    ] {
        let header = json!({"alg": "HS256", "typ": typ}).to_string();
        assert_eq!(refusal(&hs256(), &hs_token(&header)), reason, "{header}");
    }
}

#[test]
fn the_header_is_one_json_object_without_repetition() {
    for header in [
        "",
        "null",
        "[]",
        "\"HS256\"",
        "{\"alg\":\"HS256\"",
        "{\"alg\":\"HS256\"}{}",
        "{\"alg\":\"HS256\"} x",
        "\u{feff}{\"alg\":\"HS256\"}",
        "{\"alg\":\"none\",\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\",\"\\u0061lg\":\"HS256\"}",
        "{\"alg\":\"HS256\",\"x\":{\"y\":1,\"y\":2}}",
        "{\"alg\":\"HS256\",\"x\":\"\\ud800\"}",
        "{'alg':'HS256'}",
        "{\"alg\":\"HS256\",}",
    ] {
        assert_eq!(refusal(&hs256(), &hs_token(header)), Reason::Header, "{header}");
    }
    let deep = format!("{{\"alg\":\"HS256\",\"x\":{}{}}}", "[".repeat(500), "]".repeat(500));
    assert_eq!(refusal(&hs256(), &hs_token(&deep)), Reason::Header);
    let input = [b64(b"{\"alg\":\"HS256\",\"x\":\"\xff\"}"), b64("{}")].join(".");
    assert_eq!(refusal(&hs256(), &format!("{input}.AA")), Reason::Header);
}

#[test]
fn a_token_has_three_parts_and_each_one_spelling() {
    let verifier = hs256();
    let good = good_token(Algorithm::HS256);
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("three parts") };
    let with_json_spaces = "e yJhbGciOiJIUzI1NiJ9";
    for (token, reason) in [
        (String::new(), Reason::Parts),
        (header.to_owned(), Reason::Parts),
        (format!("{header}.{payload}"), Reason::Parts),
        (format!("{good}.{signature}"), Reason::Parts),
        (format!("{good}."), Reason::Parts),
        (format!("{good}.a.b"), Reason::Parts),
        (".".repeat(8000), Reason::Parts),
        ("..".to_owned(), Reason::Header),
        (format!("{header}=.{payload}.{signature}"), Reason::Encoding),
        (format!("{header}==.{payload}.{signature}"), Reason::Encoding),
        (format!("{header}.{payload}.{signature}="), Reason::Encoding),
        (format!("{header}.{payload}.{signature} "), Reason::Encoding),
        (format!("{header}.{payload}.{signature}\n"), Reason::Encoding),
        (format!("{header}.{payload}.+/{}", &signature[2..]), Reason::Encoding),
        (format!("{with_json_spaces}.{payload}.{signature}"), Reason::Encoding),
        (format!("é.{payload}.{signature}"), Reason::Encoding),
    ] {
        assert_eq!(refusal(&verifier, &token), reason, "{}", &token[..token.len().min(80)]);
    }
}

#[test]
fn unused_bits_of_the_last_character_are_zero() {
    // 32 bytes leave two unused bits, so that four spellings decode alike in a lax decoder.
    let good = good_token(Algorithm::HS256);
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = *good.as_bytes().last().unwrap();
    let place = alphabet.iter().position(|letter| *letter == last).unwrap();
    for other in &alphabet[place + 1..place + 4] {
        let twin = format!("{}{}", &good[..good.len() - 1], char::from(*other));
        assert_eq!(refusal(&hs256(), &twin), Reason::Encoding);
    }
}

#[test]
fn a_token_has_a_largest_size() {
    let bound = hs256_settings().token_bytes;
    for size in [8 << 10, 64 << 10, 1 << 20] {
        let token = token_with(json!({"pad": "x".repeat(size)}));
        assert_eq!(refusal(&hs256(), &token), Reason::TooLarge);
    }
    let token = token_with(json!({"pad": "x".repeat(5800)}));
    assert!(token.len() < bound && verify(&hs256(), &token).is_ok(), "{}", token.len());
}
