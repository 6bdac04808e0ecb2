//! Combinations of sections that are refused, each at its key and with its remedy.

use std::path::Path;

use super::*;

const BASE: &str = r#"
[auth.users]
secret = "0123456789abcdef0123456789abcdef"
algorithms = ["HS256"]
claims_to_headers = { x-user-id = "sub" }
[session]
id_from = ["claim:sid"]
header = "x-session"
[limits.api]
key = ["address"]
allow = ["5/1s"]
[upstreams.shop]
servers = ["http://127.0.0.1:1"]
"#;

fn problems(routes: &str) -> Vec<String> {
    let text = format!("{BASE}{routes}");
    let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
    assert!(loaded.problems.is_empty(), "{}", loaded.source.render(&loaded.problems));
    match Plan::compile(loaded.config) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(|problem| problem.path.clone()).collect(),
    }
}

fn check(route: &str, expected: &[&str]) {
    assert_eq!(
        problems(&format!("[routes.r]\nupstream = \"shop\"\npath = \"/r/*\"\n{route}")),
        expected,
        "{route}"
    );
}

#[test]
fn names_must_exist() {
    check("", &[]);
    check("limits = [\"api\", \"apj\"]", &["routes.r.limits"]);
    check("limits = [\"api\", \"api\"]", &["routes.r.limits"]);
    check("auth = \"user\"", &["routes.r.auth"]);
    assert_eq!(problems("[routes.r]\npath = \"/\"\nupstream = \"shp\""), ["routes.r.upstream"]);
    assert_eq!(problems(""), ["routes"]);
}

#[test]
fn identity_and_cache_need_a_word() {
    check("auth = \"users\"\ncache = { ttl = \"1m\" }", &["routes.r.cache"]);
    check("session = true\ncache = { ttl = \"1m\" }", &["routes.r.cache"]);
    check("auth = \"users\"\ncache = { ttl = \"1m\", shared = true }", &[]);
    check("auth = \"users\"\ncache = { partition = [\"claim:plan\"] }", &[]);
    check("cache = { partition = [\"claim:plan\"] }", &["routes.r.cache.partition"]);
    check("cache = { ttl = \"1m\" }", &[]);
    check("require = { role = [\"a\"] }", &["routes.r.require"]);
}

#[test]
fn patterns_and_ambiguity() {
    check("host = \"http://a\"", &["routes.r.host"]);
    check("invalidates = [\"/a/{id}\"]", &["routes.r.invalidates"]);
    check("methods = [\"TRACE\"]", &["routes.r.methods"]);
    let a = "[routes.a]\nupstream = \"shop\"\npath = \"/x/{a}\"";
    let b = "[routes.b]\nupstream = \"shop\"\npath = \"/x/{b}\"";
    assert_eq!(problems(&format!("{a}\n{b}")), ["routes.b.path"]);
}

#[test]
fn headers_have_one_writer() {
    let text =
        BASE.replace("x-user-id", "X_Session") + "[routes.r]\nupstream = \"shop\"\npath = \"/\"";
    let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
    let problems = Plan::compile(loaded.config).unwrap_err();
    assert_eq!(problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), ["session.header"]);
    for header in ["X-Session", "x_user_id", "authorization", "cookie", "host"] {
        let text = BASE.replace("claim:sid", &format!("header:{header}"))
            + "[routes.r]\nupstream = \"shop\"\npath = \"/\"";
        let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
        let problems = Plan::compile(loaded.config).unwrap_err();
        let paths: Vec<_> = problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["session.id_from"], "{header}");
    }
    let text = BASE.replace("x-user-id", "x-forwarded-for")
        + "[routes.r]\nupstream = \"shop\"\npath = \"/\"";
    let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
    assert!(Plan::compile(loaded.config).is_err());
}

#[test]
fn short_secrets_are_found_before_they_serve() {
    let text = BASE.replace("0123456789abcdef0123456789abcdef", "short")
        + "[routes.r]\nupstream = \"shop\"\npath = \"/\"";
    let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
    let problems = Plan::compile(loaded.config).unwrap_err();
    assert!(problems.iter().any(|p| p.path == "auth.users.secret"), "{problems:?}");
}
