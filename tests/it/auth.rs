//! Who may pass: tokens, what they must say, what they turn into, and how they are revoked.

mod dpop;
mod introspection;
mod policies;
mod revocation;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::support::{
    AUTH, Client, Gateway, Recorded, Reply, SECRET, Upstream, claims, eventually, token,
};

/// The code of a problem, after checking that the problem is whole.
pub(crate) fn code(reply: &Reply) -> String {
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?}");
    let problem = reply.json();
    assert_eq!(problem["status"], reply.status, "{problem}");
    for member in ["title", "detail"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    }
    let id = reply.header("x-request-id").expect("a request id");
    assert_eq!(problem["request_id"], id, "{problem}");
    let kind = problem["type"].as_str().expect("a type");
    kind.strip_prefix("urn:portcullis:problem:").expect("a stable type").to_owned()
}

/// Routes with every kind of protection.
pub(crate) fn routes(upstream: &Upstream) -> String {
    let (auth, upstream) = (AUTH, upstream.table("shop"));
    format!(
        r#"{auth}{upstream}
        [routes.public]
        path = "/public"
        upstream = "shop"
        [routes.private]
        path = "/private"
        upstream = "shop"
        auth = "users"
        [routes.optional]
        path = "/optional"
        upstream = "shop"
        auth = {{ by = "users", optional = true }}
        [routes.staff]
        path = "/staff"
        upstream = "shop"
        auth = "users"
        require = {{ role = ["admin", "clerk"] }}
        [routes.scoped]
        path = "/scoped"
        upstream = "shop"
        auth = "users"
        require = {{ scope = ["products:read", "products:all"] }}
        "#
    )
}

pub(crate) fn upstream() -> Upstream {
    Upstream::replying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

/// The claims of `sub` with some of them replaced; null removes one.
pub(crate) fn with(changes: Value) -> Value {
    let mut all = claims("42");
    let (Value::Object(changes), Value::Object(claims)) = (changes, &mut all) else {
        panic!("claims are an object");
    };
    for (name, value) in changes {
        match value {
            Value::Null => claims.remove(&name),
            value => claims.insert(name, value),
        };
    }
    all
}

fn signed_with(secret: &str, algorithm: Algorithm) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    let claims = claims("42").as_object().unwrap().clone();
    portcullis::auth::sign(algorithm, &key, None, &claims).expect("a token")
}

#[test]
fn a_good_token_passes_and_becomes_headers() {
    let upstream = upstream();
    let gateway = Gateway::start(&routes(&upstream));
    let token = token(with(json!({"role": "admin"})));
    let reply = Client::get(gateway.public, "/private").bearer(&token).send();
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    let seen = upstream.only();
    assert_eq!(seen.header("x-user-id"), Some("42"));
    assert_eq!(seen.header("x-user-role"), Some("admin"));
    assert_eq!(seen.header("authorization"), None, "the token stays here");
    assert!(!seen.head.contains(&token), "the token stays here: {}", seen.head);
}

#[test]
fn a_token_is_forwarded_only_where_the_verifier_says_so() {
    let upstream = upstream();
    let config = routes(&upstream).replacen("audience", "forward_token = true\naudience", 1);
    let gateway = Gateway::start(&config);
    let token = token(claims("42"));
    assert_eq!(Client::get(gateway.public, "/private").bearer(&token).send().status, 200);
    assert_eq!(upstream.only().header("authorization"), Some(&*format!("Bearer {token}")));
}

#[test]
fn what_a_refused_request_is_told() {
    let upstream = upstream();
    let gateway = Gateway::start(&routes(&upstream));
    let now = claims("42")["iat"].as_u64().unwrap();
    let bearer = |changes: Value| format!("Bearer {}", token(with(changes)));
    let none = |header: &str| {
        let claims = URL_SAFE_NO_PAD.encode(claims("42").to_string());
        format!("Bearer {}.{claims}.", URL_SAFE_NO_PAD.encode(header))
    };
    let good = token(claims("42"));
    let invalid = (401, "token_invalid", Some("invalid_token"));
    let malformed = (400, "token_malformed", Some("invalid_request"));
    let expired = (401, "token_expired", Some("invalid_token"));
    let cases: Vec<(&str, String, _)> = vec![
        ("another scheme", "Basic dTpw".to_owned(), (401, "token_missing", None)),
        ("two words", format!("Bearer {good} x"), malformed),
        ("no token after the scheme", "Bearer".to_owned(), malformed),
        ("a list", format!("Bearer {good},{good}"), malformed),
        ("no JWT", "Bearer abc".to_owned(), invalid),
        ("alg none", none(r#"{"alg":"none"}"#), invalid),
        ("alg None", none(r#"{"alg":"None","typ":"JWT"}"#), invalid),
        ("no signature", format!("Bearer {}.", good.rsplit_once('.').unwrap().0), invalid),
        (
            "another key",
            format!("Bearer {}", signed_with(&SECRET.replace('0', "1"), Algorithm::HS256)),
            invalid,
        ),
        (
            "another algorithm",
            format!("Bearer {}", signed_with(&SECRET.repeat(2), Algorithm::HS512)),
            invalid,
        ),
        ("expired", bearer(json!({"exp": now - 3600, "iat": now - 7200})), expired),
        ("no expiry", bearer(json!({"exp": null})), invalid),
        ("an expiry that is text", bearer(json!({"exp": "never"})), invalid),
        ("not yet", bearer(json!({"nbf": now + 3600})), invalid),
        ("from the future", bearer(json!({"iat": now + 3600})), invalid),
        ("another issuer", bearer(json!({"iss": "https://evil.test"})), invalid),
        ("no issuer", bearer(json!({"iss": null})), invalid),
        ("another audience", bearer(json!({"aud": ["mail"]})), invalid),
        ("no audience", bearer(json!({"aud": null})), invalid),
        ("a subject that is a number", bearer(json!({"sub": 42})), invalid),
        ("too large", bearer(json!({"blob": "x".repeat(9000)})), invalid),
    ];
    for (what, authorization, (status, expected, error)) in cases {
        let reply =
            Client::get(gateway.public, "/private").header("Authorization", authorization).send();
        assert_eq!((reply.status, &*code(&reply)), (status, expected), "{what}");
        check_challenge(&reply, error, what);
    }
    let reply = Client::get(gateway.public, "/private").send();
    assert_eq!((reply.status, &*code(&reply)), (401, "token_missing"));
    check_challenge(&reply, None, "no token");
    let twice = Client::get(gateway.public, "/private").bearer(&good).bearer(&good).send();
    assert_eq!((twice.status, &*code(&twice)), (400, "token_malformed"));
    assert_eq!(upstream.seen(), 0, "none of them may get through");
}

/// The access line with this cause; it is written behind the answer.
fn line_with_cause(gateway: &Gateway, cause: &str) -> Value {
    let find = || gateway.access_lines().into_iter().find(|line| line["cause"] == cause);
    eventually("the request has its line", || find().is_some());
    find().expect("a line")
}

/// RFC 6750 §3: a challenge with the error, or without one for those who showed no token.
pub(crate) fn check_challenge(reply: &Reply, error: Option<&str>, what: &str) {
    let challenge = reply.header("www-authenticate").unwrap_or_else(|| panic!("{what}: {reply:?}"));
    assert!(challenge.starts_with("Bearer realm=\""), "{what}: {challenge}");
    match error {
        None => assert!(!challenge.contains("error"), "{what}: {challenge}"),
        Some(error) => {
            assert!(challenge.contains(&format!("error=\"{error}\"")), "{what}: {challenge}");
            assert!(challenge.contains("error_description=\""), "{what}: {challenge}");
        }
    }
}

#[test]
fn a_claim_that_is_required_decides_between_403_and_200() {
    let upstream = upstream();
    let gateway = Gateway::start(&routes(&upstream));
    let get = |path: &str, changes: Value| {
        Client::get(gateway.public, path).bearer(token(with(changes))).send()
    };
    for (path, changes, status, expected) in [
        ("/staff", json!({"role": "clerk"}), 200, ""),
        ("/staff", json!({"role": ["guest", "admin"]}), 200, ""),
        ("/staff", json!({"role": "guest"}), 403, "claims_insufficient"),
        ("/staff", json!({}), 403, "claims_insufficient"),
        ("/scoped", json!({"scope": "mail products:read"}), 200, ""),
        ("/scoped", json!({"scp": ["products:all"]}), 200, ""),
        ("/scoped", json!({"scope": "products:reader"}), 403, "scope_insufficient"),
        ("/scoped", json!({}), 403, "scope_insufficient"),
    ] {
        let reply = get(path, changes.clone());
        assert_eq!(reply.status, status, "{path} {changes}");
        if status == 403 {
            assert_eq!(code(&reply), expected, "{path} {changes}");
            check_challenge(&reply, Some("insufficient_scope"), path);
        }
    }
    let reply = get("/scoped", json!({}));
    let challenge = reply.header("www-authenticate").unwrap();
    assert!(challenge.contains("scope=\"products:read products:all\""), "{challenge}");
    assert_eq!(upstream.seen(), 4);
    let anonymous = Client::get(gateway.public, "/staff").send();
    assert_eq!((anonymous.status, &*code(&anonymous)), (401, "token_missing"));
}

#[test]
fn an_optional_token_may_be_absent_but_not_bad() {
    let upstream = upstream();
    let gateway = Gateway::start(&routes(&upstream));
    let get = |path: &str| Client::get(gateway.public, path);
    assert_eq!(get("/optional").send().status, 200);
    assert_eq!(upstream.only().header("x-user-id"), None);
    upstream.forget();
    assert_eq!(get("/optional").bearer(token(claims("42"))).send().status, 200);
    assert_eq!(upstream.only().header("x-user-id"), Some("42"));
    upstream.forget();
    let bad = get("/optional").bearer(token(with(json!({"aud": "mail"})))).send();
    assert_eq!((bad.status, &*code(&bad)), (401, "token_invalid"));
    assert_eq!(upstream.seen(), 0);
    assert_eq!(get("/public").bearer("anything").send().status, 200, "nobody looks here");
}

#[test]
fn a_client_cannot_set_the_headers_that_carry_claims() {
    let upstream = upstream();
    let gateway = Gateway::start(&routes(&upstream));
    let spellings =
        ["X-User-Id", "x-user-id", "X_User_Id", "x.user.id", "X-User_Id", "X_USER.ROLE"];
    let send = |path: &str, token: Option<&str>| {
        let mut request = Client::get(gateway.public, path).header("X-Kept", "yes");
        for name in spellings {
            request = request.header(name, "admin");
        }
        if let Some(token) = token {
            request = request.bearer(token);
        }
        assert_eq!(request.send().status, 200, "{path}");
        let seen = upstream.only();
        upstream.forget();
        assert_eq!(seen.header("x-kept"), Some("yes"));
        seen
    };
    let identity = |seen: &Recorded| {
        let plain = |name: &String| name.replace(['_', '.'], "-");
        let names = seen.names().into_iter().filter(|name| plain(name).starts_with("x-user-"));
        names.collect::<Vec<_>>()
    };
    for path in ["/public", "/optional"] {
        assert!(identity(&send(path, None)).is_empty(), "{path}");
    }
    let seen = send("/private", Some(&token(claims("42"))));
    assert_eq!(identity(&seen), ["x-user-id"]);
    assert_eq!(seen.headers_named("x-user-id"), ["42"]);
}

#[test]
fn a_token_in_a_cookie_is_found_taken_out_and_must_agree() {
    let upstream = upstream();
    let from = "from = [\"header:authorization\", \"cookie:access\"]\naudience";
    let gateway = Gateway::start(&routes(&upstream).replacen("audience", from, 1));
    let (one, other) = (token(claims("42")), token(claims("43")));
    let get = || Client::get(gateway.public, "/private");
    let reply = get().header("Cookie", format!("theme=dark; access={one}; lang=en")).send();
    assert_eq!(reply.status, 200);
    let seen = upstream.only();
    assert_eq!(seen.header("x-user-id"), Some("42"));
    assert!(!seen.head.contains(&one), "{}", seen.head);
    let cookie = seen.header("cookie").expect("the other cookies");
    assert!(cookie.contains("theme=dark") && cookie.contains("lang=en"), "{cookie}");
    assert_eq!(get().bearer(&one).header("Cookie", format!("access={one}")).send().status, 200);
    let two = get().bearer(&one).header("Cookie", format!("access={other}")).send();
    assert_eq!((two.status, &*code(&two)), (400, "token_malformed"));
}
