//! Claims: times, issuer, audience, names, and the headers they become.

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::*;

/// Tokens whose payload is this text.
fn with_payload(payload: &str) -> String {
    compact(Algorithm::HS256, &plain_header(Algorithm::HS256), payload)
}

/// A token whose claim is spelled as JSON text, which may be what a serializer would not write.
fn with_claim(name: &str, text: &str) -> String {
    let others = if name == "exp" { String::new() } else { format!("\"exp\":{},", NOW + 600) };
    with_payload(&format!("{{{others}\"{name}\":{text}}}"))
}

/// The claim that a token is refused for, because of its type or its value.
fn claim_of(verifier: &Verifier, token: &str) -> Option<&'static str> {
    match refusal(verifier, token) {
        Reason::Claim(name) | Reason::ClaimType(name, ..) => Some(name),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_claim_of_a_wrong_type_is_told_of_with_what_it_must_be() {
    let verifier = hs256();
    for (name, text, told) in [
        ("sub", "42", "the claim sub must be a text, and is a number"),
        ("sub", "\"\"", "the claim sub must be a text, and is empty"),
        ("jti", "null", "the claim jti must be a text, and is null"),
        ("sid", "[]", "the claim sid must be a text, and is a list"),
        ("aud", "true", "the claim aud must be a text or a list of texts, and is true or false"),
        ("exp", "\"1\"", "the claim exp must be a number of seconds, and is a text"),
        ("iss", "{}", "the claim iss must be a text, and is an object"),
    ] {
        assert_eq!(refusal(&verifier, &with_claim(name, text)).to_string(), told);
    }
}

#[test]
fn exp_is_a_number_and_required() {
    let verifier = hs256();
    for text in [
        "null",
        "\"\"",
        "\"never\"",
        "\"1900000000\"",
        "[]",
        "[1900000000]",
        "{}",
        "true",
        "-1",
        "-0.5",
        "9007199254740992",
        "9007199254740993",
        "1e17",
        "18446744073709551615",
        "1e300",
        "-1e300",
        "\"1e300\"",
        "1e999",
    ] {
        let token = with_claim("exp", text);
        assert_eq!(claim_of(&verifier, &token), Some("exp"), "{text}");
    }
    assert_eq!(refusal(&verifier, &token_with(json!({"exp": null}))), Reason::NoExpiry);
    for text in ["NaN", "Infinity", "0x7fffffff", "01900000000", "+1900000000", "1900000000."] {
        let token = with_claim("exp", text);
        assert_eq!(refusal(&verifier, &token), Reason::Claims, "{text}");
    }
    for text in ["0", "1.5", "1e3", "-0", "1799999970", "1799999970.9"] {
        let token = with_claim("exp", text);
        assert_eq!(refusal(&verifier, &token), Reason::Expired, "{text}");
    }
    for (text, expected) in [
        ("1799999971", NOW - 29),
        ("1800000600.9", NOW + 600),
        ("1.9e9", 1_900_000_000),
        ("9007199254740991", (1 << 53) - 1),
    ] {
        let identity = verify(&verifier, &with_claim("exp", text)).unwrap();
        assert_eq!(identity.expires_at, expected, "{text}");
    }
}

#[test]
fn nbf_and_iat_are_not_in_the_future() {
    let verifier = hs256();
    for (name, reason) in [("nbf", Reason::NotYet), ("iat", Reason::IssuedInFuture)] {
        for text in ["null", "\"1700000000\"", "[]", "{}", "true", "1e17", "-1e17"] {
            let token = with_claim(name, text);
            assert_eq!(claim_of(&verifier, &token), Some(name), "{name} {text}");
        }
        for text in ["1800000031", "9007199254740991", "1.9e9"] {
            let token = with_claim(name, text);
            assert_eq!(refusal(&verifier, &token), reason, "{name} {text}");
        }
        for text in ["1800000030", "1.7e9", "0", "-5", "1700000000.25"] {
            assert!(verify(&verifier, &with_claim(name, text)).is_ok(), "{name} {text}");
        }
    }
    assert_eq!(refusal(&verifier, &with_claim("nbf", "1800000030.1")), Reason::NotYet);
}

#[test]
fn a_token_may_not_live_longer_than_max_age() {
    let mut config = hs256_settings();
    config.max_age = Some(Duration::from_secs(660));
    let verifier = compile(&config);
    assert!(verify(&verifier, &token_with(json!({}))).is_ok());
    for changes in [json!({"iat": null}), json!({"iat": NOW - 61}), json!({"exp": NOW + 601})] {
        assert_eq!(refusal(&verifier, &token_with(changes)), Reason::MaxAge);
    }
}

#[test]
fn iss_is_compared_exactly() {
    let mut config = hs256_settings();
    config.issuer = Some("https://login.example.com".to_owned());
    let (strict, lax) = (compile(&config), hs256());
    assert!(verify(&strict, &token_with(json!({"iss": "https://login.example.com"}))).is_ok());
    for iss in [
        "https://login.example.com/",
        "https://LOGIN.example.com",
        "https://login.example.com ",
        "",
        "https://login.example.com.evil.example",
        "https://login.example.co",
        "https://login.example.com\u{0}",
    ] {
        let token = token_with(json!({"iss": iss}));
        assert_eq!(refusal(&strict, &token), Reason::Issuer, "{iss:?}");
        assert!(verify(&lax, &token).is_ok(), "{iss:?}");
    }
    assert_eq!(refusal(&strict, &token_with(json!({}))), Reason::Issuer);
    for text in ["null", "1", "{}", "[\"https://login.example.com\"]", "true"] {
        let token = with_claim("iss", text);
        assert_eq!(claim_of(&strict, &token), Some("iss"), "{text}");
        assert_eq!(claim_of(&lax, &token), Some("iss"), "{text}");
    }
}

#[test]
fn aud_names_one_of_ours() {
    let mut config = hs256_settings();
    config.audience = vec!["api".to_owned(), "shop".to_owned()];
    let (strict, lax) = (compile(&config), hs256());
    for aud in [json!("api"), json!("shop"), json!(["other", "api"]), json!(["api", "api"])] {
        assert!(verify(&strict, &token_with(json!({"aud": aud}))).is_ok(), "{aud}");
    }
    for aud in [
        json!("API"),
        json!("api "),
        json!(""),
        json!("api,shop"),
        json!("api shop"),
        json!("ap"),
        json!([]),
        json!(["other"]),
        json!([""]),
    ] {
        let token = token_with(json!({"aud": aud}));
        assert_eq!(refusal(&strict, &token), Reason::Audience, "{aud}");
        assert!(verify(&lax, &token).is_ok(), "{aud}");
    }
    assert_eq!(refusal(&strict, &token_with(json!({}))), Reason::Audience);
    for text in
        ["null", "1", "{}", "{\"api\":1}", "true", "[[\"api\"]]", "[\"api\",1]", "[\"api\",null]"]
    {
        let token = with_claim("aud", text);
        assert_eq!(claim_of(&strict, &token), Some("aud"), "{text}");
        assert_eq!(claim_of(&lax, &token), Some("aud"), "{text}");
    }
}

#[test]
fn names_are_strings_that_name_something() {
    let verifier = hs256();
    for name in ["sub", "jti", "sid"] {
        for text in [
            "null",
            "1",
            "1.5",
            "true",
            "[]",
            "[\"a\"]",
            "{}",
            "\"\"",
            "\"a\\r\\nb\"",
            "\"\\u0000\"",
            "\"a\\tb\"",
            "\"\\u007f\"",
            "\"\\u0085\"",
        ] {
            let token = with_claim(name, text);
            assert_eq!(claim_of(&verifier, &token), Some(name), "{name} {text}");
        }
        for text in ["\"42\"", "\"a b\"", "\"é\"", "\"{x}*?[a]:\"", "\"../..\"", "\"\\\"\""] {
            assert!(verify(&verifier, &with_claim(name, text)).is_ok(), "{name} {text}");
        }
    }
}

#[test]
fn the_payload_is_one_json_object_without_repetition() {
    let verifier = hs256();
    let exp = NOW + 600;
    for payload in [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        "\"x\"".to_owned(),
        format!("{exp}"),
        format!("{{\"exp\":{exp}}}{{}}"),
        format!("\u{feff}{{\"exp\":{exp}}}"),
        format!("{{\"exp\":{exp}"),
        format!("{{\"exp\":1,\"exp\":{exp}}}"),
        format!("{{\"exp\":{exp},\"exp\":{exp}}}"),
        format!("{{\"exp\":{exp},\"sub\":\"a\",\"s\\u0075b\":\"b\"}}"),
        format!("{{\"exp\":{exp},\"x\":[{{\"y\":1,\"y\":1}}]}}"),
        format!("{{\"exp\":{exp},\"x\":{}{}}}", "[".repeat(1000), "]".repeat(1000)),
        format!("{{\"exp\":{exp},\"x\":{}1{}}}", "{\"a\":".repeat(400), "}".repeat(400)),
    ] {
        let shown = &payload[..payload.len().min(80)];
        assert_eq!(refusal(&verifier, &with_payload(&payload)), Reason::Claims, "{shown}");
    }
}

#[test]
fn revocation_keys_follow_the_contract() {
    let keys = |changes| {
        let identity = verify(&hs256(), &token_with(changes)).unwrap();
        (identity.blacklist_keys, identity.not_before_key)
    };
    let (blacklist, not_before) = keys(json!({"sid": "s1"}));
    assert_eq!(blacklist, ["app:auth:blacklist:t1", "app:auth:blacklist:sid:s1"]);
    assert_eq!(not_before.as_deref(), Some("app:auth:not-before:42"));

    let (blacklist, not_before) = keys(json!({"jti": null, "sub": null}));
    let token = token_with(json!({"jti": null, "sub": null}));
    let input = token.rsplit_once('.').unwrap().0;
    let expected = store::keys::Keys::new("app").blacklist_digest(input.as_bytes());
    assert_eq!((blacklist, not_before), (vec![expected], None));

    let mut config = hs256_settings();
    config.revocation = false;
    let identity = verify(&compile(&config), &token_with(json!({"sid": "s1"}))).unwrap();
    assert!(identity.blacklist_keys.is_empty() && identity.not_before_key.is_none());
}

#[test]
fn claims_become_headers_without_two_meaning_the_same() {
    let mut config = hs256_settings();
    config.claims_to_headers.insert("X-Claim".to_owned(), "a.b".to_owned());
    let verifier = compile(&config);
    let header = |value: Value| {
        let identity = verify(&verifier, &token_with(json!({"a": {"b": value}}))).unwrap();
        identity.headers.first().map(|(name, value)| {
            assert_eq!(name, "x-claim");
            value.to_str().unwrap().to_owned()
        })
    };
    for (value, expected) in [
        (json!("plain text"), Some("plain text")),
        (json!("a,b"), Some("a,b")),
        (json!(42), Some("42")),
        (json!(true), Some("true")),
        (json!(["admin", "user"]), Some("admin,user")),
        (json!(["admin,user"]), Some("admin%2Cuser")),
        (json!(["a", 1, false]), Some("a,1,false")),
        (json!("é"), Some("%C3%A9")),
        (json!("%C3%A9"), Some("%25C3%25A9")),
        (json!("a\r\nx-admin: 1"), Some("a%0D%0Ax-admin: 1")),
        (json!(" admin "), Some("%20admin%20")),
        (json!(" "), Some("%20")),
        (json!("\u{0}\u{7f}"), Some("%00%7F")),
        (json!(""), Some("")),
        (json!([]), None),
        (json!(null), None),
        (json!({"c": 1}), None),
        (json!([["a"]]), None),
        (json!(["a", null]), None),
    ] {
        assert_eq!(header(value.clone()).as_deref(), expected, "{value}");
    }
    assert_eq!(header(json!("x".repeat(4096))).map(|text| text.len()), Some(4096));
    for large in ["x".repeat(4097), "é".repeat(700)] {
        let token = token_with(json!({"a": {"b": large}}));
        assert_eq!(refusal(&verifier, &token), Reason::HeaderTooLarge);
    }
}
