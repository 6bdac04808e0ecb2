//! Sets as issuers publish them: keys that share a name, keys that are written oddly, and keys
//! without a name.

use serde_json::{Value, json};

use super::{config, get, start, upstream};
use crate::support::{Issuer, Signer, claims, jwk_set};

fn set(member: &str, value: Value, key: &Signer) -> Value {
    let mut jwk = key.jwk.clone();
    jwk[member] = value;
    jwk
}

#[test]
fn keys_of_one_name_all_serve() {
    let (upstream, issuer) = (upstream(), Issuer::plain(&[]));
    let (first, second) = (Signer::new("a"), Signer::new("a"));
    let rsa = Signer::rsa("a");
    issuer.answer(jwk_set(&[&rsa.jwk, &first.jwk, &second.jwk, &first.jwk]));
    let config = config(&issuer, &upstream, "").replace("\"ES256\"", "\"RS256\", \"ES256\"");
    let gateway = start(&issuer, &config);
    let claims = claims("42");
    for (token, expected) in [
        (first.token(&claims), 200),
        (second.token(&claims), 200),
        (rsa.token(&claims), 200),
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
