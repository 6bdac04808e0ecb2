//! What an `id_token` and a `logout_token` must say, once each of their claims is wrong.

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value, json};

use super::provider;
use crate::oidc::{Expected, Fault, Header, LoggedIn, LoggedOut, logged_out, logout_token};

const NOW: i64 = 1_800_000_000;

fn header(kind: Option<&str>) -> Header {
    Header { kind: kind.map(str::to_owned), algorithm: Algorithm::ES256 }
}

fn with(mut claims: Value, changes: &Value) -> Map<String, Value> {
    for (name, value) in changes.as_object().expect("changes") {
        claims[name] = value.clone();
    }
    let claims = claims.as_object().expect("claims");
    claims.iter().filter(|(_, it)| !it.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn id_token(lines: &str, kind: Option<&str>, changes: &Value) -> Result<LoggedIn, Fault> {
    let provider = provider(lines);
    let claims = with(
        json!({"iss": "https://id.example", "aud": "shop", "sub": "ada", "iat": NOW, "nonce": "n",
               "exp": NOW + 60, "sid": "s-1"}),
        changes,
    );
    let nonce = Some("n");
    let expected = Expected { provider: &provider, nonce, access_token: "access", now: NOW };
    LoggedIn::of(&header(kind), &claims, &expected)
}

#[test]
fn an_id_token_is_of_this_log_in_and_for_this_client() {
    let good = id_token("", Some("jwt"), &json!({})).expect("logged in");
    assert_eq!((&*good.subject, good.sid.as_deref(), good.issued_at), ("ada", Some("s-1"), NOW));
    assert!(id_token("", None, &json!({"aud": ["shop"], "sid": null})).is_ok());
    assert!(id_token("", None, &json!({"aud": ["shop", "api"], "azp": "shop"})).is_ok());
    for changes in [
        json!({"nonce": null}),
        json!({"nonce": "other"}),
        json!({"nonce": 7}),
        json!({"aud": ["shop", "api"]}),
        json!({"aud": ["shop", "api"], "azp": "api"}),
        json!({"azp": "api"}),
        json!({"azp": 7}),
        json!({"iat": null}),
        json!({"iat": "now"}),
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": 7}),
        json!({"sub": "a\u{0}b"}),
        json!({"sub": "x".repeat(256)}),
        json!({"sid": ""}),
        json!({"sid": {}}),
        json!({"events": {}}),
    ] {
        let refused = id_token("", None, &changes);
        assert!(matches!(refused, Err(Fault::Answer(_))), "{changes}: {refused:?}");
    }
    for kind in ["at+jwt", "logout+jwt", "secevent+jwt"] {
        assert!(id_token("", Some(kind), &json!({})).is_err(), "{kind}");
    }
}

#[test]
fn the_access_token_is_the_one_that_the_id_token_speaks_of() {
    // The left half of SHA-256("access").
    let hash = "oFYf1knNtrqnhAVfBRuteQ";
    assert!(id_token("", None, &json!({ "at_hash": hash })).is_ok());
    for other in [json!("77QmUPtjPfzWtF2AnpK9RQ"), json!(""), json!(7)] {
        assert!(id_token("", None, &json!({ "at_hash": other })).is_err(), "{other}");
    }
}

#[test]
fn a_log_in_is_as_fresh_and_as_strong_as_was_asked_for() {
    let max_age = "max_age = '5m'\n";
    for (age, is_good) in [(0, true), (330, true), (331, false), (-30, true), (-31, false)] {
        let read = id_token(max_age, None, &json!({ "auth_time": NOW - age }));
        assert_eq!(read.is_ok(), is_good, "{age}: {read:?}");
    }
    assert!(id_token(max_age, None, &json!({})).is_err(), "without auth_time");
    assert!(id_token(max_age, None, &json!({ "auth_time": "now" })).is_err());
    let acr = "acr_values = ['mfa', 'hwk']\n";
    assert!(id_token(acr, None, &json!({ "acr": "hwk" })).is_ok());
    for changes in [json!({}), json!({ "acr": "pwd" }), json!({ "acr": ["mfa"] })] {
        assert!(id_token(acr, None, &changes).is_err(), "{changes}");
    }
}

#[test]
fn what_is_refreshed_has_no_nonce_and_no_new_log_in() {
    let provider = provider("max_age = '5m'\nacr_values = ['mfa']\n");
    let claims = with(json!({"sub": "ada", "iat": NOW}), &json!({}));
    let expected = Expected { provider: &provider, nonce: None, access_token: "a", now: NOW };
    assert!(LoggedIn::of(&header(None), &claims, &expected).is_ok());
}

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

fn log_out(kind: Option<&str>, changes: &Value) -> Result<LoggedOut, Fault> {
    let claims = with(
        json!({"sub": "ada", "sid": "s-1", "jti": "j-1", "iat": NOW, "exp": NOW + 120,
               "events": { EVENT: {} }}),
        changes,
    );
    logged_out(&header(kind), &claims)
}

#[test]
fn a_logout_token_tells_of_one_log_out_and_of_nothing_else() {
    for kind in [Some("logout+jwt"), Some("jwt"), None] {
        let read = log_out(kind, &json!({})).expect("a log-out");
        assert_eq!((read.subject.as_deref(), read.sid.as_deref()), (Some("ada"), Some("s-1")));
        assert_eq!((&*read.id, read.issued_at, read.expires_at), ("j-1", NOW, NOW + 120));
    }
    assert!(log_out(None, &json!({ "sid": null })).is_ok());
    assert!(log_out(None, &json!({ "sub": null })).is_ok());
    for changes in [
        json!({"sub": null, "sid": null}),
        json!({"sub": 7}),
        json!({"sid": ""}),
        json!({"nonce": "n"}),
        json!({"events": null}),
        json!({"events": {}}),
        json!({"events": { EVENT: true }}),
        json!({"events": EVENT}),
        json!({"events": [EVENT]}),
        json!({"jti": null}),
        json!({"jti": ""}),
        json!({"jti": "x".repeat(257)}),
        json!({"iat": null}),
        json!({"exp": null}),
    ] {
        let refused = log_out(None, &changes);
        assert!(matches!(refused, Err(Fault::LogoutToken(_))), "{changes}: {refused:?}");
    }
    for kind in ["at+jwt", "id+jwt"] {
        assert!(log_out(Some(kind), &json!({})).is_err(), "{kind}");
    }
}

#[test]
fn a_log_out_comes_as_a_form_with_one_token() {
    let form = Some("application/x-www-form-urlencoded; charset=utf-8");
    assert_eq!(logout_token(form, b"logout_token=a.b.c&x=1"), Ok("a.b.c".to_owned()));
    for (kind, body) in [
        (form, ""),
        (form, "logout_token="),
        (form, "logout_token=a&logout_token=b"),
        (form, "logout_token=%2"),
        (Some("application/json"), r#"{"logout_token":"a.b.c"}"#),
        (None, "logout_token=a.b.c"),
    ] {
        let refused = logout_token(kind, body.as_bytes());
        assert!(matches!(refused, Err(Fault::Malformed(_))), "{kind:?} {body}: {refused:?}");
    }
}
