//! What a log-in is begun with, and where it leads.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{provider, source};
use crate::base::http::form;
use crate::oidc::{
    Attempt, Fault, Metadata, Secrets, authorization_url, digest_of, return_to, strip_cookies,
};

fn metadata(text: &str) -> Result<Metadata, String> {
    let source = source();
    let discovery = source.discovery.expect("it is discovered");
    Metadata::parse(&source.url, &discovery, text.as_bytes())
}

const DOCUMENT: &str = r#"{"authorization_endpoint": "https://id.example/auth?tenant=7",
    "token_endpoint": "https://id.example/token"}"#;

#[test]
fn a_browser_returns_to_a_path_of_the_same_origin_and_nowhere_else() {
    for path in ["/", "/a", "/a?x=//b&y=https://c", "/%2F%2Fevil.test", "/.well-known/x", "/a..b"] {
        assert_eq!(return_to(Some(path)), path);
    }
    let long = format!("/{}", "x".repeat(3000));
    for path in [
        "",
        "a",
        "//evil.test",
        "///evil.test",
        "/\\evil.test",
        "\\\\evil.test",
        "/a\\b",
        "/\t/evil.test",
        "/\r\nLocation: https://evil.test",
        "/%0d\n",
        "https://evil.test",
        "https:evil.test",
        "javascript:alert(1)",
        " /a",
        "/a b",
        "/é",
        "/a#b",
        "/.//evil.test",
        "/..//evil.test",
        "/%2e%2e//evil.test",
        "/a/%2E./b",
        "/\0",
        &long,
    ] {
        assert_eq!(return_to(Some(path)), "/", "{path:?}");
    }
    assert_eq!(return_to(None), "/");
}

#[test]
fn what_a_provider_says_of_itself_is_held_to_the_rules_of_its_keys() {
    let read = metadata(DOCUMENT).expect("metadata");
    assert_eq!(read.token_endpoint.to_string(), "https://id.example/token");
    assert!(!read.sends_issuer && read.userinfo_endpoint.is_none());
    for (from, to, told) in [
        ("https://id.example/token", "http://id.example/token", "in clear"),
        ("https://id.example/token", "https://169.254.169.254/token", "private network"),
        ("https://id.example/token", "https://127.1/token", "no URL"),
        ("https://id.example/auth?tenant=7", "javascript:alert(1)", "no URL"),
        ("https://id.example/auth?tenant=7", "https://id.example/auth#x", "no URL"),
        ("authorization_endpoint", "other", "no authorization_endpoint"),
        ("token_endpoint", "other", "no token_endpoint"),
        ("{", r#"{"code_challenge_methods_supported": ["plain"],"#, "S256"),
        ("{", r#"{"token_endpoint": "https://id.example/2","#, "duplicate"),
        ("{", r#"{"userinfo_endpoint": "http://10.0.0.1/","#, "private network"),
    ] {
        let refused = metadata(&DOCUMENT.replacen(from, to, 1)).expect_err(to);
        assert!(refused.contains(told), "{to}: {refused}");
    }
}

#[test]
fn a_log_in_asks_for_a_code_by_a_challenge_and_has_secrets_of_its_own() {
    let provider = provider(
        "scopes = ['openid', 'email']\nmax_age = '5m'\nprompt = 'login'\nacr_values = ['a', 'b']\n",
    );
    let metadata = metadata(DOCUMENT).expect("metadata");
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let (attempt, secrets) = Attempt::begin("id", "/a").expect("randomness");
        let url = authorization_url(&provider, &metadata, &attempt, &secrets);
        let query = url.strip_prefix("https://id.example/auth?").expect("the endpoint");
        let names = ["tenant", "response_type", "state", "nonce", "code_challenge", "scope"];
        let [tenant, kind, state, nonce, challenge, scope] =
            form::read(query.as_bytes(), names).expect("a form").map(Option::unwrap_or_default);
        assert_eq!((&*tenant, &*kind, &*scope), ("7", "code", "openid email"));
        let more = ["code_challenge_method", "max_age", "prompt", "acr_values", "redirect_uri"];
        let read = form::read(query.as_bytes(), more).expect("a form");
        let expected = ["S256", "300", "login", "a b", "https://shop.example/callback"];
        assert_eq!(read.map(Option::unwrap_or_default), expected);
        // Nothing that must stay here is in the URL.
        assert!(!url.contains(&attempt.verifier) && !url.contains(&secrets.cookie), "{url}");
        assert_eq!((&state, &nonce), (&secrets.state, &attempt.nonce));
        assert_eq!((&challenge, challenge.len()), (&attempt.challenge(), 43));
        for secret in [state, nonce, challenge, attempt.verifier.clone(), secrets.cookie.clone()] {
            assert!(secret.len() == 43 && seen.insert(secret), "each secret is new");
        }
        // Nor can who reads the store finish it in the browser's place.
        let stored = attempt.text();
        assert!(!stored.contains(&secrets.state) && !stored.contains(&secrets.cookie));
        assert_eq!(Attempt::parse(stored.as_bytes()), Ok(attempt));
    }
}

#[test]
fn the_challenge_is_that_of_the_standard() {
    // RFC 7636, appendix B.
    let (mut attempt, _) = Attempt::begin("id", "/").expect("randomness");
    attempt.verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
    assert_eq!(attempt.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
}

#[test]
fn a_log_in_is_ended_by_the_browser_that_began_it_at_the_provider_where_it_did() {
    let (attempt, secrets) = Attempt::begin("id", "/").expect("randomness");
    assert_eq!(attempt.belongs_to("id", &secrets.cookie), Ok(()));
    assert_eq!(attempt.belongs_to("other", &secrets.cookie), Err(Fault::OtherProvider));
    for cookie in ["", &secrets.state, &attempt.binding] {
        assert_eq!(attempt.belongs_to("id", cookie), Err(Fault::StateUnknown), "{cookie}");
    }
    for text in ["", "{}", "[]", "\"x\"", &attempt.text().replace("nonce", "once")] {
        assert_eq!(Attempt::parse(text.as_bytes()), Err(Fault::StateUnknown), "{text}");
    }
}

#[test]
fn no_upstream_sees_the_cookies_of_log_ins() {
    use std::borrow::Cow;

    use http::HeaderMap;
    use http::header::COOKIE;

    let mut fields = HeaderMap::new();
    let name = "__Host-login-0123456789abcdef";
    fields.append(COOKIE, format!("a=1; {name}=x; b=2").parse().expect("a value"));
    fields.append(COOKIE, format!("{name}=y; login-fedcba9876543210=z").parse().expect("a value"));
    let mut stripped = Cow::Borrowed(&fields);
    strip_cookies(&mut stripped);
    let left: Vec<_> = stripped.get_all(COOKIE).iter().collect();
    assert_eq!(left, ["a=1; b=2"]);
    let plain = HeaderMap::from_iter([(COOKIE, "login=1; __Host-login-=2".parse().expect("one"))]);
    let mut same = Cow::Borrowed(&plain);
    strip_cookies(&mut same);
    assert!(matches!(same, Cow::Borrowed(_)));
}

#[test]
fn its_cookie_is_of_this_host_alone_and_of_no_script() {
    let (_, secrets) = Attempt::begin("id", "/").expect("randomness");
    let name = Secrets::name_of(&secrets.state, false).expect("a name");
    let digits = &digest_of(&secrets.state)[..16];
    assert_eq!(name, format!("__Host-login-{digits}"));
    let (value, ten) = (&secrets.cookie, Duration::from_secs(600));
    assert_eq!(
        secrets.set_cookie(ten, false),
        format!("{name}={value}; Max-Age=600; Path=/; Secure; HttpOnly; SameSite=Lax"),
    );
    assert_eq!(
        Secrets::unset_cookie(&name, false),
        format!("{name}=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"),
    );
    let clear = secrets.set_cookie(ten, true);
    assert!(clear.starts_with("login-") && !clear.contains("Secure"), "{clear}");
    assert!(Secrets::is_name(&name) && Secrets::is_name("login-0123456789abcdef"));
    for other in ["__Host-login-", "__Host-session", "login", "login-0123456789abcdeg"] {
        assert!(!Secrets::is_name(other), "{other}");
    }
    for state in ["", "x", &secrets.state[1..], &format!("{}=", &secrets.state[1..])] {
        assert_eq!(Secrets::name_of(state, false), None, "{state}");
    }
}
