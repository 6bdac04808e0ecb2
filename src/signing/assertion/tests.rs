//! What assertions say, and that no two callers share one.

use serde_json::json;

use super::*;
use crate::base::claim::Exact;
use crate::base::facts::Credential;
use crate::base::units::Secret;
use crate::signing::new_key;

fn signer() -> Arc<Signer> {
    let keys = vec![Secret::new(new_key().unwrap().0.into_bytes())];
    let written = config::Signer { issuer: "https://gw.test".to_owned(), keys, tokens: None };
    Arc::new(Signer::compile("main", &written).unwrap())
}

fn assertion(reuse: u64) -> Assertion {
    let written = config::Assertion {
        signer: "main".to_owned(),
        header: HeaderName::from_static("x-identity-assertion"),
        audience: "shop".to_owned(),
        ttl: Duration::from_secs(60),
        reuse: Duration::from_secs(reuse),
        claims: vec!["email".to_owned(), "realm.roles".to_owned(), "big".to_owned()],
        session: Vec::new(),
    };
    Assertion::new(&written, signer())
}

fn identity(sub: Option<&str>, verifier: &str, email: &str) -> Identity {
    let claims = json!({"email": email, "realm": {"roles": ["a"]}, "secret": "s", "big": 12});
    Identity {
        claims: claims.as_object().unwrap().clone(),
        exact: Exact::default(),
        subject: sub.map(str::to_owned),
        issued_at: None,
        expires_at: 0,
        credential: Credential::Token { bound_to: None, proven_by: None },
        blacklist_keys: Vec::new(),
        not_before_key: None,
        verifier: verifier.into(),
        qualifier: None,
        headers: Vec::new(),
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn read(value: &HeaderValue) -> Value {
    let text = value.to_str().unwrap();
    let claims = text.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

#[test]
fn it_says_what_was_verified_and_nothing_else() {
    let said =
        assertion(30).of(&identity(Some("42"), "users", "a@b"), Some(r#"{"cart":1}"#), at(9));
    let expected = json!({
        "iss": "https://gw.test", "aud": "shop", "sub": "42", "verifier": "users",
        "email": "a@b", "realm.roles": ["a"], "big": 12, "session": {"cart": 1},
        "iat": 9, "exp": 69,
    });
    assert_eq!(read(&said.unwrap()), expected);
    let anonymous = assertion(30).of(&identity(None, "users", "a@b"), None, at(9)).unwrap();
    assert_eq!((read(&anonymous).get("sub"), read(&anonymous).get("session")), (None, None));
}

#[test]
fn only_the_very_same_is_sent_again_and_only_for_a_while() {
    let assertion = assertion(30);
    let ada = identity(Some("42"), "users", "a@b");
    let first = assertion.of(&ada, None, at(100)).unwrap();
    assert!(first.is_sensitive());
    assert_eq!(assertion.of(&ada, None, at(129)).unwrap(), first);
    for (what, other, session, now) in [
        ("another sub", identity(Some("43"), "users", "a@b"), None, 101),
        ("no sub", identity(None, "users", "a@b"), None, 101),
        ("another verifier", identity(Some("42"), "staff", "a@b"), None, 101),
        ("another claim", identity(Some("42"), "users", "a@c"), None, 101),
        ("a session", identity(Some("42"), "users", "a@b"), Some("{}"), 101),
        ("its time is over", identity(Some("42"), "users", "a@b"), None, 130),
    ] {
        assert_ne!(assertion.of(&other, session, at(now)).unwrap(), first, "{what}");
    }
    // Signed at 130; a clock that was set back does not prolong it.
    let later = assertion.of(&ada, None, at(131)).unwrap();
    assert_ne!(assertion.of(&ada, None, at(50)).unwrap(), later);
}

#[test]
fn a_name_cannot_imitate_another_member() {
    let assertion = assertion(30);
    let quoted = identity(Some("42\",\"verifier\":\"staff"), "users", "x\",\"sub\":\"1");
    let said = read(&assertion.of(&quoted, None, at(1)).unwrap());
    assert_eq!(said["verifier"], "users");
    assert_eq!(said["sub"], "42\",\"verifier\":\"staff");
}

#[test]
fn each_request_has_its_own_where_none_is_sent_again() {
    let assertion = assertion(0);
    let ada = identity(Some("42"), "users", "a@b");
    let ids: Vec<Value> =
        (0..2).map(|_| read(&assertion.of(&ada, None, at(1)).unwrap())["jti"].clone()).collect();
    assert!(ids[0].is_string() && ids[0] != ids[1], "{ids:?}");
}

#[test]
fn what_no_upstream_would_take_is_not_sent() {
    let long = identity(Some("42"), "users", &"x".repeat(TOKEN_BYTES_MAX));
    assert!(assertion(30).of(&long, None, at(1)).is_err());
}
