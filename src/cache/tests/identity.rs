//! Whose an answer is: identified callers, private answers, and the fields that select.

use super::super::WhyNot::{Authenticated, NoFreshness, Private};
use super::policy::{Case, PLAIN};
use crate::base::facts::{Credential, Identity};
use crate::config;
use std::sync::Arc;

#[test]
fn what_is_private_is_kept_for_its_user_alone() {
    let response = "cache-control: private, max-age=60";
    let own = Case { response, authenticated: true, partition: true, per_user: true, ..PLAIN };
    assert_eq!(own.lifetime(), Ok(60));
    assert_eq!(Case { per_user: false, ..own }.lifetime(), Err(Private));
    let policy = |names: &[&str]| config::Cache {
        partition: names.iter().map(|name| (*name).to_owned()).collect(),
        ..config::Cache::default()
    };
    let caller = |claim: &str, value: &str| {
        Some(Arc::new(Identity {
            claims: serde_json::Map::from_iter([(claim.to_owned(), value.into())]),
            exact: Default::default(),
            subject: None,
            issued_at: None,
            expires_at: 0,
            blacklist_keys: Vec::new(),
            not_before_key: None,
            credential: Credential::Token { bound_to: None, proven_by: None },
            verifier: "users".into(),
            qualifier: None,
            headers: Vec::new(),
        }))
    };
    assert!(policy(&["plan", "sub"]).is_per_user(&caller("sub", "42")));
    assert!(!policy(&["plan"]).is_per_user(&caller("sub", "42")));
    assert!(!policy(&["sub"]).is_per_user(&caller("plan", "42")), "nobody in particular");
    assert!(!policy(&["sub"]).is_per_user(&caller("sub", "")));
    assert!(!policy(&["sub"]).is_per_user(&None));
}

#[test]
fn an_identified_caller_needs_a_permission() {
    let permissions = ["max-age=60, public", "s-maxage=60", "max-age=60, must-revalidate"];
    let refusals = ["max-age=60", "max-age=60, proxy-revalidate", "max-age=60, immutable"];
    let cases = permissions.map(|p| (p, true)).into_iter().chain(refusals.map(|r| (r, false)));
    for (directives, may) in cases {
        let response = format!("cache-control: {directives}");
        let response = response.as_str();
        let by_gateway = Case { response, authenticated: true, ..PLAIN };
        let by_request = Case { response, request: "authorization: Basic eA==", ..PLAIN };
        let expected = if may { Ok(60) } else { Err(Authenticated) };
        for (case, is_ended) in [(by_gateway, true), (by_request, false)] {
            assert_eq!(case.lifetime(), expected, "{directives}");
            // Nobody can speak for a credential that goes to the upstream as it came.
            let settled = if is_ended { Ok(60) } else { expected };
            assert_eq!(Case { shared: true, ..case }.lifetime(), settled, "{directives}, shared");
            assert_eq!(Case { partition: true, ..case }.lifetime(), settled, "{directives}, split");
        }
    }
}

#[test]
fn the_ttl_of_a_route_is_for_anonymous_callers() {
    let bare = Case { response: "", ttl: Some(9), ..PLAIN };
    assert_eq!(bare.lifetime(), Ok(9));
    let opened = Case { response: "cache-control: public", authenticated: true, ..bare };
    let known = Case { request: "cookie: a=1", ends_identity: true, ..bare };
    let identified = [
        (known, NoFreshness),
        (Case { authenticated: true, ..bare }, Authenticated),
        (opened, NoFreshness),
    ];
    for (case, why) in identified {
        assert_eq!(case.lifetime(), Err(why));
        assert_eq!(Case { shared: true, ..case }.lifetime(), Ok(9));
        assert_eq!(Case { partition: true, ..case }.lifetime(), Ok(9));
    }
    let own = Case { request: "cookie: a=1", ..bare };
    for case in [own, Case { shared: true, ..own }, Case { partition: true, ..own }] {
        assert_eq!(case.lifetime(), Err(NoFreshness), "the upstream's own cookie");
    }
    let explicit = Case { response: "cache-control: max-age=60", ..own };
    assert_eq!(explicit.lifetime(), Ok(60), "what the origin says itself is not the route's ttl");
}

#[test]
fn selecting_values_are_kept_and_a_reflected_origin_selects() {
    let request = "accept: a\naccept:  b\norigin: https://x.example\nx-secret: s";
    let cases = [
        ("vary: Accept, X-None", vec![("accept", Some("a,b")), ("x-none", None)]),
        (
            "access-control-allow-origin: https://x.example",
            vec![("origin", Some("https://x.example"))],
        ),
        (
            "vary: origin\naccess-control-allow-origin: null",
            vec![("origin", Some("https://x.example"))],
        ),
        ("access-control-allow-origin: *", vec![]),
        ("", vec![]),
    ];
    for (extra, expected) in cases {
        let response = format!("cache-control: max-age=60\n{extra}");
        let vary = Case { request, response: &response, ..PLAIN }.outcome().unwrap().vary;
        let vary: Vec<_> = vary
            .iter()
            .map(|(name, value)| {
                (name.as_str(), value.as_deref().map(|v| str::from_utf8(v).unwrap()))
            })
            .collect();
        assert_eq!(vary, expected, "{extra:?}");
    }
    let fixed = "cache-control: max-age=60\naccess-control-allow-origin: https://x.example";
    assert!(Case { response: fixed, ..PLAIN }.outcome().unwrap().vary.is_empty());
}
