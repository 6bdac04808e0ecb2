//! Tokens in a query parameter: they get in, and no further.

use crate::auth::code;
use crate::support::{AUTH, Client, Gateway, Upstream, claims, response, token};

fn config(upstream: &Upstream, more: &str) -> String {
    let auth = AUTH.replace(
        "claims_to_headers",
        &format!("from = [\"header:authorization\", \"query:access_token\"]\n{more}\n#"),
    );
    format!(
        r#"{auth}{}
        [routes.all]
        path = "/*"
        upstream = "shop"
        auth = "users"
        cache = {{ ttl = "1h", shared = true }}
        "#,
        upstream.table("shop")
    )
}

fn upstream() -> Upstream {
    Upstream::replying(response("200 OK\r\nCache-Control: public, max-age=600", "ok"))
}

#[test]
fn a_token_in_the_query_passes_and_leaves_no_trace() {
    let upstream = upstream();
    let gateway = Gateway::start(&config(&upstream, ""));
    let tokens = [token(claims("1")), token(claims("2"))];
    let escaped = tokens[1].replace('.', "%2E");
    // The same resource, whoever asks: the second answer is the first one's copy.
    for target in [
        format!("/a?x=%20+&&access_token={}&y=;=", tokens[0]),
        format!("/a?access%5Ftoken={escaped}&x=%20+&&y=;="),
    ] {
        assert_eq!(Client::get(gateway.public, &target).send().status, 200, "{target}");
    }
    assert_eq!(upstream.only().target(), "/a?x=%20+&&y=;=");
    upstream.forget();
    let alone = format!("/b?access_token={}", tokens[0]);
    assert_eq!(Client::get(gateway.public, &alone).send().status, 200);
    assert_eq!(upstream.only().target(), "/b");
    assert!(!upstream.only().head.contains(&tokens[0]));
    drop(gateway_lines(&gateway, &tokens));
}

/// What the gateway said, which must not hold a token.
fn gateway_lines(gateway: &Gateway, tokens: &[String]) -> String {
    let mut lines = Vec::new();
    crate::support::eventually("every request is told", || {
        lines = gateway.access_lines();
        lines.len() == 3
    });
    let said = format!("{lines:?}{}", gateway.stderr());
    for token in tokens {
        let signature = token.rsplit('.').next().unwrap();
        assert!(!said.contains(signature), "{said}");
    }
    said
}

#[test]
fn two_tokens_are_refused_and_the_same_one_twice_is_one() {
    let upstream = upstream();
    let gateway = Gateway::start(&config(&upstream, ""));
    let (a, b) = (token(claims("1")), token(claims("2")));
    let get = |target: &str| Client::get(gateway.public, target);
    let both = get(&format!("/a?access_token={a}&access_token={b}")).send();
    assert_eq!((both.status, &*code(&both)), (400, "token_malformed"));
    let both = get(&format!("/a?access_token={a}")).bearer(&b).send();
    assert_eq!((both.status, &*code(&both)), (400, "token_malformed"));
    assert_eq!(get(&format!("/a?access_token={a}")).bearer(&a).send().status, 200);
    assert_eq!(get("/a?access_token=").send().status, 401);
    assert_eq!(get("/a?access_token=x").send().status, 401);
    assert_eq!(upstream.only().target(), "/a");
}

#[test]
fn a_token_is_passed_on_where_the_verifier_says_so() {
    let upstream = upstream();
    let gateway = Gateway::start(&config(&upstream, "forward_token = true"));
    let target = format!("/a?access_token={}&x=1", token(claims("1")));
    assert_eq!(Client::get(gateway.public, &target).send().status, 200);
    assert_eq!(upstream.only().target(), target);
}
