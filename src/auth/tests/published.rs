//! Sets that an issuer publishes: what of them is used, what their change does, and how a token
//! chooses among several verifiers.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};
use serde_json::json;

use super::*;
use crate::auth::{Denied, Flaw, KeySet, Places, Policy, TokenMemory, Unidentified, identify};
use crate::config::{KeysUrl, RemoteKeys};

fn remote() -> KeySource {
    KeySource::Url(RemoteKeys {
        discovery: None,
        url: KeysUrl { tls: true, host: "a".to_owned(), port: 443, target: "/".to_owned() },
        refresh: Duration::from_secs(600),
        cooldown: Duration::from_secs(30),
        timeout: Duration::from_secs(5),
        max_bytes: 1024,
        authorities: Vec::new(),
    })
}

fn es256(kid: &str) -> Value {
    let (x, y) = P256.public_key().as_ref()[1..].split_at(32);
    json!({"kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y), "kid": kid, "alg": "ES256"})
}

fn with(mut jwk: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => jwk.as_object_mut().unwrap().remove(name),
            value => jwk.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    jwk
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn signed(kid: &str, changes: Value) -> String {
    let header = json!({"alg": "ES256", "kid": kid}).to_string();
    compact(Algorithm::ES256, &header, &claims(changes).to_string())
}

fn told(flaws: &[Flaw]) -> String {
    flaws.iter().map(|flaw| flaw.what.as_str()).collect::<Vec<_>>().join("; ")
}

#[test]
fn a_bad_key_does_not_spoil_the_good_ones() {
    let rsa = rsa_components();
    let rs256 = json!({"kty": "RSA", "n": b64(&rsa.n), "e": b64(&rsa.e), "kid": "r"});
    let oct = json!({"kty": "oct", "k": b64(SECRET), "kid": "o", "alg": "HS256"});
    for (bad, why) in [
        (json!(3), "not a JSON object"),
        (oct.clone(), "a shared secret that is published is none"),
        (with(oct.clone(), json!({"alg": null})), "a shared secret"),
        (with(es256("e"), json!({"use": "enc"})), "`use` is not"),
        (with(es256("e"), json!({"key_ops": ["sign"]})), "`key_ops`"),
        (with(es256("e"), json!({"alg": "ES384"})), "ES384 needs a P-384 key"),
        (with(es256("e"), json!({"d": "AA"})), "private half"),
        (with(es256("e"), json!({"x": b64([1; 32])})), "does not lie on"),
        (with(es256("e"), json!({"kid": 7})), "`kid` is not a name"),
        (with(rs256.clone(), json!({"n": b64([0xFF; 128])})), "1024 bits"),
        (with(rs256.clone(), json!({"alg": "RSA-OAEP"})), "`alg`"),
        (with(rs256, json!({"alg": "ES256"})), "ES256 needs a P-256 key"),
        (json!({"kty": "XYZ", "kid": "x"}), "not supported"),
    ] {
        let algorithms = [Algorithm::ES256, Algorithm::RS256, Algorithm::HS256];
        let document = set(&[es256("good"), bad.clone()]);
        let (keys, ignored) = KeySet::from_published(&document, &algorithms).unwrap();
        assert!(told(&ignored).contains(why), "{bad}: {}", told(&ignored));
        assert!(keys.candidates(Some("good"), Algorithm::ES256).count() == 1, "{bad}");
        for kid in ["o", "e", "r", "x"] {
            for algorithm in algorithms {
                let found = keys.candidates(Some(kid), algorithm).count();
                assert_eq!(found, 0, "{bad} serves {algorithm:?}");
            }
        }
    }
}

#[test]
fn a_number_beyond_all_bounds_in_an_unknown_member_costs_no_key() {
    let key = with(es256("a"), json!({"x-issued": 0})).to_string();
    let key = key.replace("\"x-issued\":0", "\"x-issued\":1e400");
    assert!(passes(&[key], Algorithm::ES256, &json!({"alg": "ES256", "kid": "a"})));
}

/// A set's keys, as texts, and a token that one of them signed: whether it passes.
fn passes(keys: &[String], algorithm: Algorithm, header: &Value) -> bool {
    let algorithms = [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA];
    let verifier = compile(&settings(&algorithms, remote()));
    let document = format!("{{\"keys\": [{}]}}", keys.join(","));
    verifier.renew_keys(&document).unwrap();
    let token = compact(algorithm, &header.to_string(), &claims(json!({})).to_string());
    verifier.verify(&token, NOW).is_ok()
}

/// A P-256 key that signed nothing here.
fn stranger(kid: &str) -> Value {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    with(es256(kid), json!({"x": b64(x), "y": b64(y)}))
}

#[test]
fn keys_of_one_name_are_told_apart_by_type_and_algorithm_and_else_tried() {
    let rsa = rsa_components();
    let rs256 = json!({"kty": "RSA", "n": b64(&rsa.n), "e": b64(&rsa.e), "kid": "a"}).to_string();
    let bare = |key: Value| with(key, json!({"kid": null, "alg": null})).to_string();
    let (own, other) = (es256("a").to_string(), stranger("a").to_string());
    let sets = [
        vec![rs256.clone(), own.clone()],
        vec![own.clone(), rs256.clone()],
        vec![other.clone(), own.clone(), own.clone(), rs256.clone()],
        vec![with(es256("a"), json!({"alg": null})).to_string(), rs256.clone()],
        vec![bare(stranger("a")), bare(es256("a")), rs256.replace("\"a\"", "null")],
    ];
    for (number, keys) in sets.iter().enumerate() {
        for kid in [json!({"kid": "a"}), json!({})] {
            for algorithm in [Algorithm::ES256, Algorithm::RS256] {
                let header = with(kid.clone(), json!({"alg": format!("{algorithm:?}")}));
                assert!(passes(keys, algorithm, &header), "set {number}: {header}");
                let wrong = with(kid.clone(), json!({"alg": "EdDSA"}));
                assert!(!passes(keys, algorithm, &wrong), "set {number}: {wrong}");
            }
        }
    }
    let es256 = json!({"alg": "ES256", "kid": "a"});
    assert!(!passes(std::slice::from_ref(&other), Algorithm::ES256, &es256));
    let named_otherwise = [with(self::es256("b"), json!({})).to_string(), other];
    assert!(!passes(&named_otherwise, Algorithm::ES256, &es256), "the name is heeded");
}

#[test]
fn what_is_null_or_unknown_costs_no_key_and_a_broken_key_only_itself() {
    let good = es256("a").to_string();
    let more = |members: &str| good.replacen('{', &format!("{{{members},"), 1);
    let header = json!({"alg": "ES256", "kid": "a"});
    for members in [
        r#""x5c": null, "use": null, "key_ops": null, "d": null"#,
        r#""x5c": ["AA"], "x5t": 7, "ext": true, "exp": 1, "deep": {"a": [null]}"#,
    ] {
        let key = more(members).replace(r#","use":"sig""#, "");
        assert!(passes(std::slice::from_ref(&key), Algorithm::ES256, &header), "{key}");
    }
    let null = with(es256("a"), json!({"kid": null, "alg": null})).to_string();
    let null = null.replacen('{', r#"{"kid": null, "alg": null,"#, 1);
    assert!(passes(&[null], Algorithm::ES256, &header));
    for broken in [r#"{"kty": "EC", "kty": "EC"}"#, r#"{"n": 1e999}"#, "[]", "null", "7", "\"\""] {
        let keys = [broken.to_owned(), good.clone(), broken.to_owned()];
        assert!(passes(&keys, Algorithm::ES256, &header), "{broken}");
    }
}

#[test]
fn ed25519_has_two_names() {
    let key = |alg: Value| {
        json!({"kty": "OKP", "crv": "Ed25519", "x": b64(ED25519.public_key()), "kid": "e",
               "alg": alg})
        .to_string()
    };
    for of_key in ["EdDSA", "Ed25519"] {
        for of_token in ["EdDSA", "Ed25519"] {
            let header = json!({"alg": of_token, "kid": "e"});
            assert!(
                passes(&[key(json!(of_key))], Algorithm::EdDSA, &header),
                "{of_key} {of_token}"
            );
        }
        let good = es256("a").to_string();
        let header = json!({"alg": "Ed448", "kid": "e"});
        assert!(!passes(&[good, key(json!(of_key))], Algorithm::EdDSA, &header));
    }
    let keys = [es256("a").to_string(), key(json!("Ed448"))];
    assert!(!passes(&keys, Algorithm::EdDSA, &json!({"alg": "Ed25519", "kid": "e"})));
}

#[test]
fn a_set_without_a_key_of_use_is_refused_as_a_whole() {
    for document in [
        "",
        "{}",
        "[]",
        "{\"keys\": []}",
        "{\"keys\": [], \"keys\": []}",
        &set(&[json!({"kty": "oct", "k": b64(SECRET), "kid": "o"})]),
        &set(&vec![es256("a"); 257]),
    ] {
        let algorithms = [Algorithm::ES256, Algorithm::HS256];
        assert!(KeySet::from_published(document, &algorithms).is_err(), "{document}");
    }
}

#[test]
fn a_shared_secret_cannot_come_from_a_url() {
    let config = settings(&[Algorithm::ES256, Algorithm::HS256], remote());
    let keys = store::keys::Keys::new("app");
    let mistakes = Verifier::compile("users", &config, &keys, SharedWith::Nobody).unwrap_err();
    assert_eq!(mistakes.len(), 1);
    assert_eq!(mistakes[0].0, "algorithms");
}

/// What becomes of a token.
#[derive(Debug, PartialEq)]
enum Outcome {
    Passes,
    Denied(Denied),
    KeyUnknown,
}

fn outcome(policy: &Policy, headers: &HeaderMap, memory: &TokenMemory) -> Outcome {
    match identify(
        policy,
        Places { headers, query: None, certificate: None },
        memory,
        now(),
        &mut crate::auth::AuthNotes::default(),
    ) {
        Ok(_) => Outcome::Passes,
        Err(Unidentified::Denied(denied)) => Outcome::Denied(denied),
        Err(Unidentified::KeyUnknown(_)) => Outcome::KeyUnknown,
        Err(Unidentified::KeyUnread(unread)) => panic!("{unread:?}"),
        Err(Unidentified::TokenUnasked(unasked)) => panic!("{unasked:?}"),
    }
}

fn bearing(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    headers
}

#[test]
fn only_a_key_that_may_have_come_since_is_worth_a_fetch() {
    let verifier = Arc::new(compile(&settings(&[Algorithm::ES256], remote())));
    let policy = Policy::new(vec![Arc::clone(&verifier)], false, Vec::new());
    let memory = TokenMemory::new();
    let invalid = |reason| Outcome::Denied(Denied::Invalid(reason));
    let try_it = |token: &str| outcome(&policy, &bearing(token), &memory);
    let no_kid = compact(Algorithm::ES256, r#"{"alg":"ES256"}"#, &claims(json!({})).to_string());
    // Nothing was fetched yet: only what no key could save is refused.
    assert!(!verifier.has_keys());
    assert_eq!(try_it(&signed("a", json!({}))), Outcome::KeyUnknown);
    assert_eq!(try_it(&no_kid), Outcome::KeyUnknown);
    assert_eq!(try_it("a.b.c"), invalid(Reason::Encoding));
    assert_eq!(try_it(&signed("a", json!({"exp": NOW - 100}))), invalid(Reason::Key));
    assert_eq!(try_it(&token_with(json!({}))), invalid(Reason::Algorithm));

    assert!(verifier.renew_keys(&set(&[es256("a")])).unwrap().is_empty());
    assert_eq!(try_it(&signed("a", json!({}))), Outcome::Passes);
    assert_eq!(try_it(&no_kid), Outcome::Passes);
    assert_eq!(try_it(&signed("b", json!({}))), Outcome::KeyUnknown);
    assert_eq!(try_it(&signed("b", json!({"exp": NOW - 100}))), invalid(Reason::Key));
    let (input, other) = (signed("a", json!({"sub": "x"})), signed("a", json!({})));
    let forged = [input.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1].join(".");
    assert_eq!(try_it(&forged), invalid(Reason::Signature));
}

#[test]
fn a_remembered_token_is_forgotten_with_its_key() {
    let verifier = Arc::new(compile(&settings(&[Algorithm::ES256], remote())));
    let policy = Policy::new(vec![Arc::clone(&verifier)], false, Vec::new());
    let memory = TokenMemory::new();
    let headers = bearing(&signed("a", json!({})));
    let both = set(&[es256("a"), es256("b")]);
    verifier.renew_keys(&both).unwrap();
    assert_eq!(outcome(&policy, &headers, &memory), Outcome::Passes);
    // A set of no use changes nothing, the same set neither.
    assert!(verifier.renew_keys("{}").is_err());
    verifier.renew_keys(&both).unwrap();
    assert_eq!(outcome(&policy, &headers, &memory), Outcome::Passes);
    verifier.renew_keys(&set(&[es256("b")])).unwrap();
    assert_eq!(outcome(&policy, &headers, &memory), Outcome::KeyUnknown);
    verifier.renew_keys(&both).unwrap();
    assert_eq!(outcome(&policy, &headers, &memory), Outcome::Passes);
}

fn two_issuers() -> Policy {
    let names = ["users", "partners"];
    let verifiers = names.map(|name| {
        let mut config = hs256_settings();
        config.issuer = Some(format!("https://{name}.test"));
        if name == "partners" {
            config.keys = Some(KeySource::Secret(Secret::new([b'p'; 32])));
            config.from = vec![TokenSource::Cookie("t".to_owned())];
            config.token_bytes = 300;
        }
        let keys = store::keys::Keys::new("app");
        Arc::new(Verifier::compile(name, &config, &keys, SharedWith::Tokens).unwrap())
    });
    Policy::new(verifiers.to_vec(), false, Vec::new())
}

#[test]
fn the_issuer_chooses_the_verifier_and_nothing_else() {
    let (policy, memory) = (two_issuers(), TokenMemory::new());
    let by_partner = |changes| {
        let key = jsonwebtoken::EncodingKey::from_secret(&[b'p'; 32]);
        let claims = claims(changes);
        crate::auth::sign(Algorithm::HS256, &key, None, claims.as_object().unwrap()).unwrap()
    };
    let cookie = |token: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, format!("t={token}").parse().unwrap());
        headers
    };
    let invalid = |reason| Outcome::Denied(Denied::Invalid(reason));
    let users = json!({"iss": "https://users.test"});
    let partners = json!({"iss": "https://partners.test"});
    let large = json!({"iss": "https://partners.test", "x": "x".repeat(300)});
    for _ in 0..2 {
        for (what, headers, expected) in [
            ("users", bearing(&token_with(users.clone())), Outcome::Passes),
            ("partners", cookie(&by_partner(partners.clone())), Outcome::Passes),
            ("forged", bearing(&by_partner(users.clone())), invalid(Reason::Signature)),
            ("forged too", cookie(&token_with(partners.clone())), invalid(Reason::Signature)),
            ("nobody", bearing(&token_with(json!({"iss": "x"}))), invalid(Reason::Issuer)),
            ("unsaid", bearing(&token_with(json!({}))), invalid(Reason::Issuer)),
            (
                "number",
                bearing(&token_with(json!({"iss": 1}))),
                invalid(Reason::ClaimType("iss", "a text", "a number")),
            ),
            ("bound", cookie(&by_partner(large.clone())), invalid(Reason::TooLarge)),
            ("place", cookie(&token_with(users.clone())), invalid(Reason::Place)),
            ("place too", bearing(&by_partner(partners.clone())), invalid(Reason::Place)),
        ] {
            assert_eq!(outcome(&policy, &headers, &memory), expected, "{what}");
        }
    }
    let mut both = bearing(&token_with(users));
    both.extend(cookie(&by_partner(partners)));
    assert_eq!(outcome(&policy, &both, &memory), Outcome::Denied(Denied::Several));
}

#[test]
fn a_qualified_verifier_names_itself_in_the_keys_of_its_identities() {
    let token = token_with(json!({"iss": "https://users.test", "sid": "s1"}));
    let identity = two_issuers().verifiers[0].verify(&token, NOW).unwrap();
    assert_eq!(
        identity.blacklist_keys,
        ["app:auth:blacklist:users:t1", "app:auth:blacklist:users:sid:s1"]
    );
    assert_eq!(identity.not_before_key.as_deref(), Some("app:auth:not-before:users:42"));
    assert_eq!(identity.qualifier.as_deref(), Some("users"));
}

#[test]
fn all_audiences_where_that_is_asked() {
    let mut config = hs256_settings();
    config.audience = vec!["shop".to_owned(), "mail".to_owned()];
    for (matching, aud, accepted) in [
        (config::AudienceMatch::Any, json!("shop"), true),
        (config::AudienceMatch::Any, json!(["x", "mail"]), true),
        (config::AudienceMatch::Any, json!(["x"]), false),
        (config::AudienceMatch::All, json!("shop"), false),
        (config::AudienceMatch::All, json!(["mail", "x"]), false),
        (config::AudienceMatch::All, json!(["mail", "x", "shop"]), true),
        (config::AudienceMatch::All, json!([]), false),
        (config::AudienceMatch::All, Value::Null, false),
    ] {
        config.audience_match = matching;
        let verdict = verify(&compile(&config), &token_with(json!({"aud": aud})));
        assert_eq!(verdict.is_ok(), accepted, "{matching:?} {aud}");
    }
}
