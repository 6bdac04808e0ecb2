//! What a route may say about its callers, and what is remembered of them.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::json;

use super::*;
use crate::auth::Unmet;
use crate::auth::{
    Denied, Places, Policy, Requirement, TokenMemory, Unidentified, confirm, permit, strip,
};
use crate::base::facts::Caller;
use crate::store::RevocationStatus;

fn policy(config: &config::Verifier) -> Policy {
    Policy::new(vec![Arc::new(compile(config))], false, Vec::new())
}

/// Who calls, where no key can be missing.
fn identify(
    policy: &Policy,
    headers: &HeaderMap,
    memory: &TokenMemory,
    now: SystemTime,
) -> Result<Caller, Denied> {
    let places = Places { headers, query: None, certificate: None };
    crate::auth::identify(policy, places, memory, now, &mut crate::auth::AuthNotes::default())
        .map_err(|unidentified| match unidentified {
            Unidentified::Denied(denied) => denied,
            Unidentified::KeyUnknown(missing) => panic!("{missing:?}"),
            Unidentified::KeyUnread(unread) => panic!("{unread:?}"),
            Unidentified::TokenUnasked(unasked) => panic!("{unasked:?}"),
        })
}

fn bearing(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    headers.insert(AUTHORIZATION, value);
    headers
}

#[test]
fn a_missing_token_passes_where_it_is_optional_and_a_bad_one_never() {
    let memory = TokenMemory::new();
    let mut policy = policy(&hs256_settings());
    let bad = bearing("a.b.c");
    assert_eq!(identify(&policy, &HeaderMap::new(), &memory, now()).unwrap_err(), Denied::NoToken);
    policy.optional = true;
    assert!(identify(&policy, &HeaderMap::new(), &memory, now()).unwrap().is_none());
    assert!(matches!(identify(&policy, &bad, &memory, now()), Err(Denied::Invalid(_))));
    let caller = identify(&policy, &bearing(&token_with(json!({}))), &memory, now()).unwrap();
    assert_eq!(caller.unwrap().subject.as_deref(), Some("42"));
}

#[test]
fn a_verified_token_is_remembered_until_it_expires_or_the_configuration_changes() {
    let memory = TokenMemory::new();
    let (config, headers) = (hs256_settings(), bearing(&token_with(json!({}))));
    let at = |policy: &Policy, later: u64| {
        identify(policy, &headers, &memory, now() + Duration::from_secs(later))
    };
    let first_policy = policy(&config);
    let first = at(&first_policy, 0).unwrap().unwrap();
    let same = |policy: &Policy| Arc::ptr_eq(&first, &at(policy, 1).unwrap().unwrap());
    assert!(same(&first_policy));
    assert!(same(&policy(&config)), "an unchanged verifier keeps its memory over a reload");
    assert!(at(&first_policy, 629).is_ok());
    let expired = Denied::Invalid(Reason::Expired);
    assert_eq!(at(&first_policy, 630).unwrap_err(), expired);
    assert!(!same(&first_policy), "what expired is forgotten");

    let mut changed = config.clone();
    changed.issuer = Some("https://login.example.com".to_owned());
    assert_eq!(at(&policy(&changed), 0).unwrap_err(), Denied::Invalid(Reason::Issuer));
    let mut rekeyed = config;
    rekeyed.keys = Some(KeySource::Secret(Secret::new([7; 32])));
    assert_eq!(at(&policy(&rekeyed), 0).unwrap_err(), Denied::Invalid(Reason::Signature));
}

#[test]
fn a_refused_token_is_not_remembered() {
    let memory = TokenMemory::new();
    let policy = policy(&hs256_settings());
    let headers = bearing(&token_with(json!({"nbf": NOW + 100})));
    let not_yet = identify(&policy, &headers, &memory, now()).unwrap_err();
    assert_eq!(not_yet, Denied::Invalid(Reason::NotYet));
    assert!(identify(&policy, &headers, &memory, now() + Duration::from_secs(100)).is_ok());
}

#[test]
fn a_clock_before_1970_trusts_no_token_of_today() {
    let policy = policy(&hs256_settings());
    let early = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
    let headers = bearing(&token_with(json!({})));
    let denied = identify(&policy, &headers, &TokenMemory::new(), early).unwrap_err();
    assert_eq!(denied, Denied::Invalid(Reason::IssuedInFuture));
}

#[test]
fn a_requirement_is_met_by_any_of_its_values() {
    let caller = |changes| Some(Arc::new(verify(&hs256(), &token_with(changes)).unwrap()));
    for (claim, claims, met) in [
        ("role", json!({"role": "admin"}), true),
        ("role", json!({"role": ["guest", "user"]}), true),
        ("role", json!({"role": "admin user"}), false),
        ("role", json!({"role": "Admin"}), false),
        ("role", json!({"role": []}), false),
        ("role", json!({"role": [["admin"]]}), false),
        ("role", json!({"role": {"admin": true}}), false),
        ("role", json!({}), false),
        ("realm.roles", json!({"realm": {"roles": ["admin"]}}), true),
        ("realm.roles", json!({"realm": {"roles": ["other"]}}), false),
        ("scope", json!({"scope": "x admin y"}), true),
        ("scope", json!({"scope": "administrator"}), false),
        ("scope", json!({"scope": ["x", "user"]}), true),
        ("scope", json!({"scp": ["user"]}), true),
        ("scope", json!({"scp": "a user"}), true),
        ("scope", json!({"scope": 1, "scp": ["b"]}), false),
        ("scope", json!({}), false),
    ] {
        let mut policy = policy(&hs256_settings());
        let any_of = vec!["admin".to_owned(), "user".to_owned()];
        policy.require = vec![Requirement { claim: claim.to_owned(), any_of }];
        let scope = (claim == "scope").then(|| "admin user".to_owned());
        let (caller, wanted) = (caller(claims.clone()), policy.require[0].any_of.clone());
        let subject = caller.as_ref().and_then(|identity| identity.subject.clone());
        let unmet =
            Box::new(Unmet { subject, claim: claim.to_owned(), wanted, ..Unmet::default() });
        let refused = Err(Denied::Insufficient { scope, unmet });
        let expected = if met { Ok(()) } else { refused };
        assert_eq!(permit(&policy, &caller), expected, "{claim} {claims}");
        assert_eq!(permit(&policy, &None), Err(Denied::NoToken));
    }
    assert_eq!(permit(&policy(&hs256_settings()), &None), Ok(()));
}

#[test]
fn every_requirement_must_be_met() {
    let mut policy = policy(&hs256_settings());
    let need = |claim: &str, value: &str| Requirement {
        claim: claim.to_owned(),
        any_of: vec![value.to_owned()],
    };
    policy.require = vec![need("role", "admin"), need("level", "3")];
    for (claims, met) in [
        (json!({"role": "admin", "level": 3}), true),
        (json!({"role": "admin"}), false),
        (json!({"level": 3}), false),
    ] {
        let caller = Some(Arc::new(verify(&hs256(), &token_with(claims)).unwrap()));
        assert_eq!(permit(&policy, &caller).is_ok(), met);
    }
}

#[test]
fn revocation_is_judged_without_leeway() {
    let identity = |changes| verify(&hs256(), &token_with(changes)).unwrap();
    let (issued, undated) = (identity(json!({"iat": NOW})), identity(json!({"iat": null})));
    for (identity, listed, not_before, revoked) in [
        (&issued, false, None, false),
        (&issued, true, None, true),
        (&issued, false, Some(NOW), false),
        (&issued, false, Some(NOW + 1), true),
        (&undated, false, None, false),
        (&undated, false, Some(0), true),
    ] {
        let by = if listed { "jti" } else { "sub" };
        let expected = if revoked { Err(Denied::Revoked(by)) } else { Ok(()) };
        let revocation = RevocationStatus { listed, not_before, ..RevocationStatus::default() };
        assert_eq!(confirm(identity, revocation), expected, "{listed} {not_before:?}");
    }
}

#[test]
fn the_token_is_forwarded_only_where_that_is_wanted() {
    let mut config = hs256_settings();
    for forward in [false, true] {
        config.forward_token = forward;
        let mut headers = bearing("a.b.c");
        strip(&policy(&config), &mut headers);
        assert_eq!(headers.contains_key(AUTHORIZATION), forward);
    }
}

#[test]
fn what_sign_writes_is_verified() {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    let claims = claims(json!({}));
    let claims = claims.as_object().unwrap();
    let token = crate::auth::sign(Algorithm::HS256, &key, Some("k1"), claims).unwrap();
    assert_eq!(verify(&hs256(), &token).unwrap().claims, *claims);
    assert!(crate::auth::sign(Algorithm::ES256, &key, None, claims).is_err());
}

#[test]
fn no_secret_is_printed() {
    let verifier = hs256();
    let shown = format!("{verifier:?}");
    assert!(!shown.contains("sixty-four") && !shown.contains("115, 105, 120"), "{shown}");
}
