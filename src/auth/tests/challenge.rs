//! What a caller who is turned away is told.

use crate::auth::{CertificateFault, Denied, KeyFault, REALM, Reason, Unmet};
use crate::store::StoreError;

fn insufficient(scope: Option<String>) -> Denied {
    let (claim, wanted) = ("secret-claim".to_owned(), vec!["secret-value".to_owned()]);
    Denied::Insufficient { scope, unmet: Box::new(Unmet { claim, wanted, ..Unmet::default() }) }
}

#[test]
fn status_code_and_challenge_are_a_contract() {
    let realm = "Bearer realm=\"portcullis\"";
    let scope = Some("a b".to_owned());
    for (denied, status, code, error) in [
        (Denied::NoToken, 401, "token_missing", None),
        (Denied::Malformed, 400, "token_malformed", Some("invalid_request")),
        (Denied::Several, 400, "token_malformed", Some("invalid_request")),
        (Denied::Invalid(Reason::Signature), 401, "token_invalid", Some("invalid_token")),
        (Denied::Invalid(Reason::Expired), 401, "token_expired", Some("invalid_token")),
        (Denied::Revoked("jti"), 401, "token_revoked", Some("invalid_token")),
        (Denied::Unbound, 401, "token_binding", Some("invalid_token")),
        (insufficient(scope), 403, "scope_insufficient", Some("insufficient_scope")),
        (insufficient(None), 403, "claims_insufficient", Some("insufficient_scope")),
    ] {
        assert_eq!((denied.status().as_u16(), denied.code()), (status, code));
        let mut expected = realm.to_owned();
        if let Some(error) = error {
            let text = denied.public();
            expected += &format!(", error=\"{error}\", error_description=\"{text}\"");
        }
        if matches!(&denied, Denied::Insufficient { scope: Some(_), .. }) {
            expected += ", scope=\"a b\"";
        }
        assert_eq!(denied.challenge(REALM), expected);
    }
}

#[test]
fn a_refusal_of_an_api_key_names_its_own_scheme() {
    let away = StoreError::Unavailable;
    for (denied, status, code) in [
        (Denied::NoApiKey, 401, "api_key_missing"),
        (Denied::ApiKey(KeyFault::Unknown), 401, "api_key_invalid"),
        (Denied::ApiKey(KeyFault::TooLarge), 401, "api_key_invalid"),
        (Denied::ApiKey(KeyFault::Mistyped), 401, "api_key_invalid"),
        (Denied::ApiKey(KeyFault::Expired), 401, "api_key_expired"),
        (Denied::ApiKey(KeyFault::Revoked), 401, "api_key_revoked"),
        (Denied::KeyUnread(away), 503, "keys_unavailable"),
    ] {
        assert_eq!((denied.status().as_u16(), denied.code()), (status, code));
        assert!(denied.public().contains("API key"), "{denied:?}");
        if status == 401 {
            assert_eq!(denied.challenge(REALM), "ApiKey realm=\"portcullis\"");
        }
    }
}

#[test]
fn a_refusal_of_a_certificate_names_its_own_scheme() {
    for (denied, code) in [
        (Denied::NoCertificate, "certificate_missing"),
        (Denied::Certificate(CertificateFault::Expired), "certificate_expired"),
        (Denied::Certificate(CertificateFault::Revoked), "certificate_revoked"),
        (Denied::Certificate(CertificateFault::Subject), "certificate_invalid"),
        (Denied::Certificate(CertificateFault::ClaimTooLarge), "certificate_invalid"),
    ] {
        assert_eq!((denied.status().as_u16(), denied.code()), (401, code));
        assert!(denied.public().contains("client certificate"), "{denied:?}");
        assert_eq!(denied.challenge(REALM), "Certificate realm=\"portcullis\"");
    }
}

#[test]
fn nothing_breaks_out_of_the_quotes() {
    let denied = insufficient(Some("a\", error=\"none".to_owned()));
    let text = denied.challenge("x\"y");
    let text = text.to_str().unwrap();
    assert!(
        text.starts_with("Bearer realm=\"portcullis\", error=\"insufficient_scope\""),
        "{text}"
    );
    assert!(!text.contains("scope=\"a"), "{text}");
    for denied in [Denied::Malformed, Denied::Revoked("jti"), Denied::NoToken, denied] {
        assert!(!denied.public().contains(['"', '\\']));
    }
}

#[test]
fn the_public_text_does_not_tell_why_a_token_is_invalid() {
    let texts = [Reason::Signature, Reason::Key, Reason::Issuer, Reason::Claims, Reason::NotYet]
        .map(|reason| Denied::Invalid(reason).challenge(REALM));
    assert!(texts.iter().all(|text| *text == texts[0]));
}

#[test]
fn the_log_learns_the_cause_and_the_client_does_not() {
    for (denied, cause, claim) in [
        (Denied::Invalid(Reason::Signature), "signature", None),
        (Denied::Invalid(Reason::Algorithm), "algorithm", None),
        (Denied::Invalid(Reason::Key), "key_unknown", None),
        (Denied::Invalid(Reason::Parts), "malformed", None),
        (Denied::Invalid(Reason::Audience), "audience", Some("aud")),
        (Denied::Invalid(Reason::Issuer), "issuer", Some("iss")),
        (Denied::Invalid(Reason::NotYet), "not_yet_valid", Some("nbf")),
        (Denied::Invalid(Reason::Claim("sub")), "claim", Some("sub")),
        (Denied::Revoked("sid"), "sid", None),
        (Denied::Several, "several", None),
        (Denied::ApiKey(KeyFault::Mistyped), "mistyped", None),
        (Denied::Certificate(CertificateFault::Subject), "claim", Some("sub")),
        (Denied::Unbound, "certificate", Some("cnf")),
        (insufficient(None), "claim", Some("secret-claim")),
    ] {
        assert_eq!((denied.cause(), denied.claim()), (Some(cause), claim), "{denied:?}");
        let told = format!("{} {:?}", denied.public(), denied.challenge(REALM));
        assert!(!told.contains("secret"), "{told}");
    }
}
