//! `require` as a list of clauses: what a whole gateway makes of claims, paths and times, and what
//! clients and operators are told.

use serde_json::{Value, json};

use super::{check_challenge, code, line_with_cause, upstream, with};
use crate::support::{AUTH, Client, Gateway, Upstream, operate, raw, token};

/// One route for each way of combining clauses.
fn config(upstream: &Upstream) -> String {
    let upstream = upstream.table("shop");
    format!(
        r#"
        [server.limits]
        encoded_slash = true
        {AUTH}{upstream}
        [routes.own]
        path = "/users/{{user}}/*"
        upstream = "shop"
        auth = "users"
        require = [{{ any = [
            {{ claim = "sub", is_path = "user" }},
            {{ claim = "https://x.test/roles", has = ["support"] }},
        ] }}]
        [routes.tenant]
        path = "/tenants/{{tenant}}"
        upstream = "shop"
        auth = "users"
        require = [{{ claim = "/app/tenants", has_path = "tenant" }}]
        [routes.never]
        path = "/never"
        upstream = "shop"
        auth = "users"
        require = [{{ claim = "sub", exists = true }}, {{ none = [
            {{ hours = "00:00-24:00", utc_offset = "+00:00" }},
        ] }}]
        [routes.always]
        path = "/always"
        upstream = "shop"
        auth = {{ by = "users", optional = true }}
        require = [{{ utc_offset = "-05:30", days = [
            "mon", "tue", "wed", "thu", "fri", "sat", "sun",
        ] }}]
        [routes.trusted]
        path = "/trusted"
        upstream = "shop"
        auth = "users"
        require = [
            {{ claim = "scope", has = ["orders:read"] }},
            {{ none = [{{ claim = "suspended", is = [true] }}] }},
        ]
        "#
    )
}

#[test]
fn a_path_is_its_callers_own() {
    let upstream = upstream();
    let gateway = Gateway::start(&config(&upstream));
    let status = |path: &str, changes: Value| {
        Client::get(gateway.public, path).bearer(token(with(changes))).send().status
    };
    for (path, sub, expected) in [
        ("/users/42/orders", "42", 200),
        ("/users/42", "42", 200),
        ("/users/%34%32/orders", "42", 200),
        ("/users/1/../42/orders", "42", 200),
        ("//users//42//orders", "42", 200),
        ("/users/a%20b/orders", "a b", 200),
        ("/users/%C3%A9/orders", "\u{e9}", 200),
        ("/users/43/orders", "42", 403),
        ("/users/42/../43/orders", "42", 403),
        ("/users/ANN/orders", "ann", 403),
        ("/users/42%2F/orders", "42/", 403),
        ("/users/42%2F43/orders", "42/43", 403),
        ("/users/42%252F43/orders", "42%2F43", 403),
        ("/users/42%09/orders", "42", 403),
        ("/users/42;x/orders", "42", 403),
        ("/users/42?user=43", "43", 403),
        ("/users//orders", "", 401),
    ] {
        let before = upstream.seen();
        assert_eq!(status(path, json!({ "sub": sub })), expected, "{path} {sub}");
        assert_eq!(upstream.seen() - before, usize::from(expected == 200), "{path}");
    }
    let support = json!({"sub": "7", "https://x.test/roles": ["support"]});
    assert_eq!(status("/users/42/orders", support), 200);
    let nested = json!({"sub": "7", "https://x": {"test/roles": ["support"]}});
    assert_eq!(status("/users/42/orders", nested), 403);
    for (tenants, expected) in [
        (json!(["a", "b"]), 200),
        (json!("a b"), 200),
        (json!(["a"]), 403),
        (json!({"b": true}), 403),
        (json!([["b"]]), 403),
        (json!(null), 403),
    ] {
        let changes = json!({ "app": { "tenants": tenants } });
        assert_eq!(status("/tenants/b", changes.clone()), expected, "{changes}");
    }
    let anonymous = Client::get(gateway.public, "/users/42").send();
    assert_eq!((anonymous.status, &*code(&anonymous)), (401, "token_missing"));
    // HTTP/1.0 and odd heads have no other path than the one that is forwarded.
    let line = format!("Authorization: Bearer {}\r\n", token(with(json!({"sub": "42"}))));
    let odd =
        raw(gateway.public, format!("GET /users/43 HTTP/1.0\r\nHost: shop.test\r\n{line}\r\n"));
    assert!(odd.contains(" 403 "), "{odd}");
}

#[test]
fn clauses_of_time_and_of_what_must_not_be_hold_at_every_request() {
    let upstream = upstream();
    let gateway = Gateway::start(&config(&upstream));
    let ask = |path: &str, changes: Value| {
        Client::get(gateway.public, path).bearer(token(with(changes))).send()
    };
    assert_eq!(ask("/always", json!({})).status, 200);
    let anonymous = Client::get(gateway.public, "/always").send();
    assert_eq!(code(&anonymous), "token_missing", "whoever is nobody meets no clause");
    assert_eq!(code(&ask("/never", json!({}))), "claims_insufficient");
    for (changes, expected) in [
        (json!({"scope": "mail orders:read"}), 200),
        (json!({"scope": ["orders:read"]}), 200),
        (json!({"scope": "orders:reader"}), 403),
        (json!({"scp": "orders:read"}), 403),
        (json!({"scope": "orders:read", "suspended": false}), 200),
        (json!({"scope": "orders:read", "suspended": true}), 403),
        (json!({"scope": "orders:read", "suspended": "true"}), 403),
        (json!({"scope": "orders:read", "suspended": {"since": 1}}), 403),
    ] {
        assert_eq!(ask("/trusted", changes.clone()).status, expected, "{changes}");
    }
}

#[test]
fn clients_learn_nothing_of_a_clause_and_operators_which_one_it_was() {
    let upstream = upstream();
    let gateway = Gateway::start(&config(&upstream));
    let ann = token(with(json!({"scope": "orders:read", "suspended": "yes"})));
    let reply = Client::get(gateway.public, "/trusted").bearer(&ann).send();
    assert_eq!((reply.status, &*code(&reply)), (403, "claims_insufficient"));
    check_challenge(&reply, Some("insufficient_scope"), "a clause");
    let told = format!("{reply:?}{}", reply.text());
    for secret in ["suspended", "orders:read", "none", "clause", "require"] {
        assert!(!told.contains(secret), "{secret}: {told}");
    }
    let line = line_with_cause(&gateway, "claim");
    assert_eq!(line["bound"], "routes.trusted.require[1].none[0]", "{line}");
    assert_eq!(line["claim"], "suspended", "{line}");

    let explain = |path: &str, token: &str| {
        let question = json!({
            "path": path, "host": "shop.test",
            "headers": { "authorization": format!("Bearer {token}") },
        });
        let reply = operate(&gateway, "POST", "/v1/explain", &question.to_string());
        reply.json()["outcome"]["reason"].as_str().unwrap_or_default().to_owned()
    };
    let reason = explain("/trusted", &ann);
    assert!(
        reason.ends_with(
            "require[1].none[0], about the claim \"suspended\", cannot be told: it \
                              is of another type"
        ),
        "{reason}"
    );
    let bob = token(with(json!({"sub": "bob"})));
    let reason = explain("/users/42/x", &bob);
    assert!(reason.ends_with("require[0].any does not hold"), "{reason}");
    assert_eq!(explain("/users/bob/x", &bob), "");
    assert_eq!(upstream.seen(), 0);
}

#[test]
fn mistakes_in_clauses_are_told_with_their_place() {
    let clauses = |require: &str| {
        let refused = Gateway::try_start(&format!(
            "{AUTH}[upstreams.shop]\nservers = ['http://127.0.0.1:1']\n[routes.r]\n\
             path = '/{{user}}/{{x}}/{{x}}'\nupstream = 'shop'\nauth = 'users'\n\
             require = {require}\n"
        ));
        refused.stderr
    };
    let deep = "{ all = [".repeat(4) + "{ claim = 'a', exists = true }" + &"] }".repeat(4);
    let many = vec!["{ claim = 'a', exists = true }"; 65].join(", ");
    for (require, place, what) in [
        ("[]", "routes.r.require", "empty list"),
        ("['a']", "routes.r.require[0]", "must be a table"),
        ("[{}]", "routes.r.require[0]", "says nothing"),
        ("[{ any = [] }]", "routes.r.require[0].any", "empty list"),
        ("[{ any = [{ claim = 'a' }] }]", "routes.r.require[0].any[0].claim", "nothing is asked"),
        ("[{ claim = 'a', is = ['b'], has = ['c'] }]", "routes.r.require[0].has", "one of several"),
        (
            "[{ claim = 'a', is = ['b'], any = [{ claim = 'a', is = ['b'] }] }]",
            "routes.r.require[0]",
            "says several",
        ),
        ("[{ is = ['b'] }]", "routes.r.require[0].is", "none is named"),
        ("[{ claim = 'a', is = [1.5] }]", "routes.r.require[0].is[0]", "must be a string"),
        ("[{ claim = '/a~2', is = ['b'] }]", "routes.r.require[0].claim", "JSON Pointer"),
        ("[{ claim = 'a', exists = false }]", "routes.r.require[0].exists", "is false"),
        ("[{ claim = 'a', is_path = 'id' }]", "routes.r.require", "no placeholder {id}"),
        ("[{ claim = 'a', is_path = 'x' }]", "routes.r.require", "or several"),
        ("[{ hours = '08:00-18:00' }]", "routes.r.require[0].utc_offset", "is missing"),
        ("[{ hours = '8-18', utc_offset = '+00:00' }]", "routes.r.require[0].hours", "no hours"),
        (
            "[{ hours = '08:00-08:00', utc_offset = '+00:00' }]",
            "routes.r.require[0].hours",
            "no begin before",
        ),
        ("[{ days = ['monday'], utc_offset = '+00:00' }]", "routes.r.require[0].days[0]", "no day"),
        (
            "[{ days = ['mon'], utc_offset = '15:00' }]",
            "routes.r.require[0].utc_offset",
            "no distance",
        ),
        ("[{ claim = 'a', exist = true }]", "routes.r.require[0].exist", "unknown key"),
        (&*format!("[{deep}]"), "routes.r.require[0].all[0].all[0].all[0].all", "deeper than 4"),
        (&*format!("[{many}]"), "routes.r.require", "more than 64"),
    ] {
        let told = clauses(require);
        assert!(told.contains(place) && told.contains(what), "{require}: {told}");
    }
    let refused = Gateway::try_start(
        "[upstreams.shop]\nservers = ['http://127.0.0.1:1']\n[routes.r]\npath = '/'\n\
         upstream = 'shop'\nrequire = [{ claim = 'a', exists = true }]\n",
    );
    assert!(refused.stderr.contains("a public route cannot require claims"), "{}", refused.stderr);
}
