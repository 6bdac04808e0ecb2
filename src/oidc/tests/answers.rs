//! What comes back from a provider: by the browser, and by its token endpoint.

use http::StatusCode;

use super::provider;
use crate::oidc::{Callback, Fault, Grant, Outcome, client_credentials, form, tokens, userinfo};

#[test]
fn an_answer_has_a_state_and_one_code_or_one_error() {
    let read = Callback::parse("code=abc&state=s&iss=https%3A%2F%2Fid.example&x=1").expect("one");
    assert_eq!((&*read.state, &read.outcome), ("s", &Outcome::Code("abc".to_owned())));
    let read = Callback::parse("error=access_denied&error_description=%3Cb%3E&state=s").unwrap();
    assert_eq!(read.outcome, Outcome::Error("access_denied".to_owned()));
    let read = Callback::parse("error=%3Cscript%3E&state=s").unwrap();
    assert_eq!(read.outcome, Outcome::Error("an error without a name".to_owned()));
    let long = format!("state=s&code={}", "x".repeat(5000));
    for query in [
        "",
        "state=s",
        "code=abc",
        "state=s&code=",
        "state=s&code=abc&error=access_denied",
        "state=s&code=abc&code=abc",
        "state=s&state=s&code=abc",
        "state=s&code=abc&iss=a&iss=b",
        "state=s&code=a%0ab",
        "state=s&code=%ff",
        "state=s&code=%2",
        "state=s&code=abc&response=eyJ",
        &long,
    ] {
        assert!(matches!(Callback::parse(query), Err(Fault::Malformed(_))), "{query}");
    }
}

#[test]
fn an_answer_of_another_issuer_is_of_no_use() {
    let of = |query: &str, says_so| {
        Callback::parse(query).expect("an answer").is_of("https://id.example", says_so)
    };
    let iss = |issuer: &str| format!("state=s&code=c&iss={issuer}");
    for says_so in [false, true] {
        assert_eq!(of(&iss("https%3A%2F%2Fid.example"), says_so), Ok(()));
        for other in ["https://evil.example", "https://id.example/", "https://ID.example", ""] {
            assert_eq!(of(&iss(other), says_so), Err(Fault::OtherIssuer), "{other}");
        }
    }
    assert_eq!(of("state=s&code=c", false), Ok(()));
    assert_eq!(of("state=s&code=c", true), Err(Fault::OtherIssuer));
    assert_eq!(of("state=s&error=access_denied", true), Err(Fault::OtherIssuer));
}

#[test]
fn the_gateway_says_who_it_is_in_one_way() {
    let code = Grant::Code { code: "a b", verifier: "v" };
    let public = provider("");
    let tail = "redirect_uri=https%3A%2F%2Fshop.example%2Fcallback&code_verifier=v";
    let begin = format!("grant_type=authorization_code&code=a%20b&{tail}");
    assert_eq!(form(&public, code), format!("{begin}&client_id=shop"));
    assert!(client_credentials(&public).is_none());
    let basic = provider("client_secret = 'a:b%c d'\n");
    assert_eq!(form(&basic, code), begin);
    let credentials = client_credentials(&basic).expect("credentials");
    // shop:a%3Ab%25c%20d
    assert_eq!(credentials, "Basic c2hvcDphJTNBYiUyNWMlMjBk");
    assert!(credentials.is_sensitive());
    let post = provider("client_secret = 's'\nclient_auth = 'post'\n");
    assert_eq!(form(&post, code), format!("{begin}&client_id=shop&client_secret=s"));
    assert!(client_credentials(&post).is_none());
    assert_eq!(form(&basic, Grant::Refresh("r+")), "grant_type=refresh_token&refresh_token=r%2B");
}

#[test]
fn tokens_are_read_strictly_and_shown_to_nobody() {
    let good = r#"{"access_token":"a.b","token_type":"bearer","id_token":"x.y.z",
        "refresh_token":"r","expires_in":3600,"scope":"openid"}"#;
    let read = tokens(StatusCode::OK, good.as_bytes()).expect("tokens");
    assert_eq!((&*read.access, read.expires_in), ("a.b", Some(3600)));
    assert_eq!((read.id.as_deref(), read.refresh.as_deref()), (Some("x.y.z"), Some("r")));
    let shown = format!("{read:?}");
    assert!(!shown.contains("a.b") && !shown.contains("x.y.z"), "{shown}");
    let long = good.replace("a.b", &"a".repeat(20_000));
    for bad in [
        "",
        "<html>",
        "[]",
        r#"["a","Bearer",null,null,null]"#,
        "{}",
        &good.replace("bearer", "DPoP"),
        &good.replace("\"a.b\"", "\"\""),
        &good.replace("\"a.b\"", "\"a\\r\\nx: y\""),
        &good.replace("\"a.b\"", "7"),
        &good.replace("\"r\"", "\"r r\""),
        &good.replace("3600", "-1"),
        &good.replace("\"scope\":", "\"access_token\":"),
        &long,
    ] {
        let refused = tokens(StatusCode::OK, bad.as_bytes());
        assert!(matches!(refused, Err(Fault::Answer(_))), "{bad:.80}: {refused:?}");
    }
    let forever = good.replace("3600", "18446744073709551615");
    let read = tokens(StatusCode::OK, forever.as_bytes()).expect("tokens");
    assert!(read.expires_in.is_some_and(|life| life < 400 * 24 * 3600), "{read:?}");
}

#[test]
fn a_code_that_is_no_good_is_told_apart_from_a_provider_that_fails() {
    let bad = StatusCode::BAD_REQUEST;
    let code = tokens(bad, br#"{"error":"invalid_grant","error_description":"x"}"#);
    assert_eq!(code, Err(Fault::Code("invalid_grant".to_owned())));
    for (status, body) in [
        (bad, r#"{"error":"invalid_client"}"#),
        (StatusCode::UNAUTHORIZED, "no"),
        (StatusCode::BAD_GATEWAY, "<html>"),
        (StatusCode::FOUND, ""),
        (bad, r#"["invalid_grant"]"#),
    ] {
        let failed = tokens(status, body.as_bytes());
        assert!(matches!(failed, Err(Fault::Answer(_))), "{status} {body}: {failed:?}");
    }
}

#[test]
fn what_is_told_of_another_user_is_not_taken() {
    let read = |status, body: &str| userinfo(status, body.as_bytes(), "ada");
    let ok = StatusCode::OK;
    assert!(read(ok, r#"{"sub":"ada","email":"a@b"}"#).is_ok());
    for body in [
        r#"{"sub":"eve"}"#,
        "{}",
        "[]",
        r#"{"sub":7}"#,
        "eyJ.x.y",
        "",
        r#"{"sub":"ada","sub":"ada"}"#,
    ] {
        assert!(read(ok, body).is_err(), "{body}");
    }
    assert!(read(StatusCode::UNAUTHORIZED, r#"{"sub":"ada"}"#).is_err());
}
