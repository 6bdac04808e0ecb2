//! Clients with certificates: who they are, when they are asked, and tokens that are bound to them.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::json;

use super::*;
use crate::auth::{
    CertificateFault, CertificateVerifier, Denied, Places, Policy, Requirement, ShownCertificate,
    TokenMemory, Unidentified, confirm, permit,
};
use crate::base::facts::{Caller, ClientCertificate};
use crate::config::BoundTo;
use crate::store::RevocationStatus;
use crate::store::keys::Keys;

/// What a client's certificate says, changed by `change`.
fn facts(change: impl FnOnce(&mut ClientCertificate)) -> ShownCertificate {
    let mut facts = ClientCertificate {
        subject: Some("ann".to_owned()),
        dn: "CN=ann,O=Shop".to_owned(),
        san: vec!["ann.test".to_owned(), "ann@shop.test".to_owned()],
        serial: "AB01".to_owned(),
        sha256: "00".repeat(32),
        thumbprint: b64([0; 32]),
        headers: Vec::new(),
        not_before: NOW - 1000,
        not_after: NOW + 1000,
    };
    change(&mut facts);
    ShownCertificate::new(&Arc::new(facts))
}

fn verifier(change: impl FnOnce(&mut config::Verifier)) -> Arc<CertificateVerifier> {
    let mut config = settings(&[], KeySource::Certificates);
    change(&mut config);
    Arc::new(CertificateVerifier::compile("devices", &config, &Keys::new("app"), false).unwrap())
}

/// A route for certificates, and for tokens too where `tokens`.
fn policy(tokens: bool) -> Policy {
    let verifiers = tokens.then(|| Arc::new(hs256())).into_iter().collect();
    Policy::new(verifiers, false, Vec::new()).with_certificates(Some(verifier(|_| {})))
}

fn identify(
    policy: &Policy,
    token: Option<&str>,
    certificate: Option<&ShownCertificate>,
    memory: &TokenMemory,
) -> Result<Caller, Denied> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        headers.insert(AUTHORIZATION, value);
    }
    let places = Places { headers: &headers, query: None, certificate };
    crate::auth::identify(policy, places, memory, now(), &mut crate::auth::AuthNotes::default())
        .map_err(|unidentified| match unidentified {
            Unidentified::Denied(denied) => denied,
            other => panic!("{other:?}"),
        })
}

#[test]
fn a_certificate_has_claims_and_headers() {
    let verifier = verifier(|config| {
        let headers = [("x-sub", "sub"), ("x-san", "san"), ("x-none", "jti"), ("x-sha", "sha256")];
        config.claims_to_headers =
            headers.map(|(name, claim)| (name.to_owned(), claim.to_owned())).into();
    });
    let identity = facts(|it| it.san.push("a,b".to_owned())).identify(&verifier, NOW).unwrap();
    let sha256 = "00".repeat(32);
    assert_eq!(
        Value::Object(identity.claims.clone()),
        json!({
            "sub": "ann",
            "dn": "CN=ann,O=Shop",
            "san": ["ann.test", "ann@shop.test", "a,b"],
            "serial": "AB01",
            "sha256": sha256,
        })
    );
    let headers = identity.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let headers: BTreeMap<&str, &[u8]> = headers.collect();
    let san = &b"ann.test,ann@shop.test,a%2Cb"[..];
    assert_eq!(
        headers,
        BTreeMap::from([("x-sub", &b"ann"[..]), ("x-san", san), ("x-sha", sha256.as_bytes())])
    );
    assert_eq!(
        identity.blacklist_keys,
        [format!("app:auth:blacklist:cert:{sha256}")],
        "a contract with applications"
    );
    assert_eq!(identity.not_before_key.as_deref(), Some("app:auth:not-before:ann"));
    let nobody = facts(|it| it.subject = None).identify(&verifier, NOW).unwrap();
    assert!(!nobody.claims.contains_key("sub") && nobody.not_before_key.is_none());
    let off = self::verifier(|config| config.revocation = false);
    assert!(!facts(|_| {}).identify(&off, NOW).unwrap().is_revocable());
}

#[test]
fn what_cannot_be_used_is_refused() {
    let in_header = verifier(|config| {
        config.claims_to_headers = [("x-dn".to_owned(), "dn".to_owned())].into();
    });
    for (shown, expected) in [
        (facts(|it| it.subject = Some(String::new())), CertificateFault::Subject),
        (facts(|it| it.subject = Some("ann\n".to_owned())), CertificateFault::Subject),
        (facts(|it| it.subject = Some("ann\0".to_owned())), CertificateFault::Subject),
        (facts(|it| it.dn = "x".repeat(5000)), CertificateFault::ClaimTooLarge),
        (facts(|it| it.not_after = NOW - 1), CertificateFault::Expired),
    ] {
        assert_eq!(shown.identify(&in_header, NOW).unwrap_err(), expected);
    }
    // Both of its dates are good (RFC 5280 §4.1.2.5).
    assert!(facts(|it| it.not_after = NOW).identify(&in_header, NOW).is_ok());
}

#[test]
fn who_it_is_is_found_out_once_for_a_connection_and_again_for_another_plan() {
    let (shown, one, other) = (facts(|_| {}), verifier(|_| {}), verifier(|_| {}));
    let first = shown.identify(&one, NOW).unwrap();
    assert!(Arc::ptr_eq(&first, &shown.identify(&one, NOW + 9).unwrap()));
    assert!(!Arc::ptr_eq(&first, &shown.identify(&other, NOW).unwrap()));
    assert!(Arc::ptr_eq(&first, &shown.identify(&one, NOW).unwrap()), "both are remembered");
    // However many reloads a connection lives through, it remembers a bounded number.
    for _ in 0..20 {
        assert!(shown.identify(&verifier(|_| {}), NOW).is_ok());
    }
    assert!(!Arc::ptr_eq(&first, &shown.identify(&one, NOW).unwrap()));
    let late = shown.identify(&one, NOW + 1001).unwrap_err();
    assert_eq!(late, CertificateFault::Expired, "though it is remembered");
}

#[test]
fn a_certificate_speaks_where_no_token_does() {
    let (memory, shown) = (TokenMemory::new(), facts(|_| {}));
    let who = |policy: &Policy, token: Option<&str>, shown: Option<&ShownCertificate>| {
        identify(policy, token, shown, &memory)
            .map(|caller| caller.map(|it| it.subject.clone().unwrap()))
    };
    let (alone, both, good) = (policy(false), policy(true), token_with(json!({})));
    let (ann, user) = (Ok(Some("ann".to_owned())), Ok(Some("42".to_owned())));
    assert_eq!(who(&alone, None, Some(&shown)), ann);
    assert_eq!(who(&alone, Some("a.b.c"), Some(&shown)), ann, "a token is nobody's affair here");
    assert_eq!(who(&alone, None, None), Err(Denied::NoCertificate));
    assert_eq!(who(&both, None, Some(&shown)), ann);
    assert_eq!(who(&both, Some(&good), Some(&shown)), user);
    assert_eq!(who(&both, Some(&good), None), user);
    assert_eq!(who(&both, None, None), Err(Denied::NoToken));
    let bad = who(&both, Some("a.b.c"), Some(&shown));
    assert!(matches!(bad, Err(Denied::Invalid(_))), "a bad token is not made good: {bad:?}");
    let optional = Policy { optional: true, ..alone };
    assert_eq!(who(&optional, None, None), Ok(None));
    let over = facts(|it| it.not_after = NOW - 1);
    let refused = Err(Denied::Certificate(CertificateFault::Expired));
    assert_eq!(who(&optional, None, Some(&over)), refused);
    let require = vec![Requirement { claim: "san".into(), any_of: vec!["ann@shop.test".into()] }];
    let demanding = Policy { require, ..optional };
    let caller = identify(&demanding, None, Some(&shown), &memory).unwrap();
    assert_eq!(permit(&demanding, &caller), Ok(()));
    let other = facts(|it| it.san = vec!["ann@shop.test ".to_owned()]);
    let caller = identify(&demanding, None, Some(&other), &memory).unwrap();
    assert_eq!(permit(&demanding, &caller).unwrap_err().code(), "claims_insufficient");
    assert_eq!(permit(&demanding, &None), Err(Denied::NoCertificate));
}

#[test]
fn a_revoked_certificate_or_subject_is_refused() {
    let identity = facts(|_| {}).identify(&verifier(|_| {}), NOW).unwrap();
    let status =
        |listed, not_before| RevocationStatus { listed, not_before, ..RevocationStatus::default() };
    let revoked = Err(Denied::Certificate(CertificateFault::Revoked));
    assert_eq!(confirm(&identity, status(false, None)), Ok(()));
    assert_eq!(confirm(&identity, status(true, None)), revoked);
    // It is as old as its begin.
    assert_eq!(confirm(&identity, status(false, Some(NOW - 1000))), Ok(()));
    assert_eq!(confirm(&identity, status(false, Some(NOW - 999))), revoked);
}

#[test]
fn a_bound_token_is_good_on_its_own_clients_connections_alone() {
    let (memory, policy) = (TokenMemory::new(), policy(true));
    let (own, other) = (facts(|_| {}), facts(|it| it.thumbprint = b64([1; 32])));
    let token = token_with(json!({"cnf": {"x5t#S256": b64([0; 32]), "jku": "x"}}));
    // Also when the token is remembered: whose it is is not.
    for _ in 0..2 {
        let good = identify(&policy, Some(&token), Some(&own), &memory).unwrap().unwrap();
        assert_eq!(good.subject.as_deref(), Some("42"));
        let key = format!("app:auth:blacklist:cert:{}", "00".repeat(32));
        assert_eq!(good.blacklist_keys, ["app:auth:blacklist:t1".to_owned(), key]);
        let listed = RevocationStatus { listed: true, ..RevocationStatus::default() };
        assert_eq!(confirm(&good, listed), Err(Denied::Revoked("token_or_certificate")));
        for shown in [Some(&other), None] {
            let refused = identify(&policy, Some(&token), shown, &memory).unwrap_err();
            assert_eq!(refused, Denied::Unbound);
        }
    }
    // The signature comes first.
    let forged = format!("{}x", &token[..token.len() - 1]);
    let refused = identify(&policy, Some(&forged), None, &memory).unwrap_err();
    assert!(matches!(refused, Denied::Invalid(_)), "{refused:?}");
}

#[test]
fn a_verifier_may_demand_that_tokens_are_bound() {
    let digest = b64([7; 32]);
    for (bound, cnf, is_good) in [
        (None, json!({}), true),
        (Some(BoundTo::Certificate), json!({"x5t#S256": digest}), true),
        (Some(BoundTo::Certificate), json!({"x5t#S256": digest, "jkt": digest}), true),
        (Some(BoundTo::Certificate), json!({"jkt": digest}), false),
        (Some(BoundTo::Certificate), json!({}), false),
        (Some(BoundTo::Dpop), json!({"jkt": digest}), true),
        (Some(BoundTo::Dpop), json!({"x5t#S256": digest}), false),
        (Some(BoundTo::Dpop), json!({}), false),
    ] {
        let mut config = hs256_settings();
        config.sender.bound = bound;
        let token = token_with(json!({ "cnf": cnf }));
        let verified = verify(&compile(&config), &token);
        let expected = if is_good { None } else { Some(Reason::NotBound) };
        assert_eq!(verified.err(), expected, "{bound:?} {cnf}");
    }
}

#[test]
fn a_binding_that_cannot_be_read_is_refused_and_others_are_not_looked_at() {
    let verifier = hs256();
    let good = b64([7; 32]);
    let mut odd = good.clone();
    // The last character has two unused bits.
    odd.replace_range(42.., "d");
    for cnf in [
        json!("x"),
        json!([]),
        json!(7),
        json!({"x5t#S256": 7}),
        json!({"x5t#S256": ""}),
        json!({"x5t#S256": b64([7; 31])}),
        json!({"x5t#S256": b64([7; 33])}),
        json!({"x5t#S256": format!("{good}=")}),
        json!({"x5t#S256": odd}),
        json!({"x5t#S256": [good]}),
        json!({"x5t#S256": null}),
        json!({"jkt": 7}),
        json!({"jkt": b64([7; 31])}),
        json!({"jkt": null, "x5t#S256": good}),
    ] {
        let token = token_with(json!({ "cnf": cnf }));
        assert_eq!(refusal(&verifier, &token), Reason::Claim("cnf"), "{cnf}");
    }
    for cnf in [json!({}), json!({"jku": 7}), json!({"x5t#s256": 7})] {
        let token = token_with(json!({ "cnf": cnf }));
        assert!(verify(&verifier, &token).is_ok(), "{cnf}");
    }
}
