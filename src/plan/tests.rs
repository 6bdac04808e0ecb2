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
    problems_of(&format!("{BASE}{routes}"))
}

/// The keys of what is refused of a whole configuration that can be read. The environment has a
/// SEAL_KEY.
pub(super) fn problems_of(text: &str) -> Vec<String> {
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let variable = |name: &str| (name == "SEAL_KEY").then(|| key.to_owned());
    let loaded = config::parse("t.toml", Path::new("."), text, &variable).unwrap();
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

/// The problems of a route by these verifiers, each a table of more than the name.
fn shared_route(verifiers: &[(&str, &str)]) -> Vec<String> {
    let mut text = "[upstreams.shop]\nservers = [\"http://127.0.0.1:1\"]\n".to_owned();
    let mut names = Vec::new();
    for (name, more) in verifiers {
        text += &format!(
            "[auth.{name}]\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
             algorithms = [\"HS256\"]\n{more}\n"
        );
        names.push(format!("{name:?}"));
    }
    let names = names.join(", ");
    text += &format!("[routes.r]\npath = \"/\"\nupstream = \"shop\"\nauth = [{names}]\n");
    let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
    assert!(loaded.problems.is_empty(), "{}", loaded.source.render(&loaded.problems));
    match Plan::compile(loaded.config) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(|it| format!("{}: {}", it.path, it.what)).collect(),
    }
}

#[test]
fn a_session_named_by_a_claim_is_not_shared_among_issuers() {
    let problems = |id_from: &str| {
        let verifier = |name: &str| {
            format!(
                "[auth.{name}]\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
                 algorithms = [\"HS256\"]\nissuer = \"https://{name}\"\n"
            )
        };
        let text = format!(
            "{}{}[session]\nid_from = [{id_from}]\n[upstreams.shop]\n\
             servers = [\"http://127.0.0.1:1\"]\n[routes.r]\npath = \"/\"\n\
             upstream = \"shop\"\nauth = [\"a\", \"b\"]\nsession = true\n",
            verifier("a"),
            verifier("b"),
        );
        let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
        let compiled = Plan::compile(loaded.config).map(|_| ());
        compiled.err().map(|problems| problems.iter().map(|it| it.path.clone()).collect::<Vec<_>>())
    };
    assert_eq!(problems("\"cookie:sid\""), None);
    assert_eq!(
        problems("\"cookie:sid\", \"claim:sid\""),
        Some(vec!["routes.r.session".to_owned()])
    );
}

#[test]
fn a_token_must_be_able_to_choose_among_the_verifiers_of_a_route() {
    let (a, b) = ("issuer = \"https://a\"", "issuer = \"https://b\"");
    let forwarding = format!("{b}\nforward_token = true");
    assert_eq!(shared_route(&[("a", a), ("b", b)]), [""; 0]);
    assert_eq!(shared_route(&[("sid", "")]), [""; 0]);
    for (verifiers, expected) in [
        ([("a", a), ("b", a)], "have the same issuer"),
        ([("a", a), ("b", "")], "auth.b has no issuer"),
        ([("a", a), ("b", &*forwarding)], "disagree about forward_token"),
        ([("a", a), ("sid", b)], "\"sid\" already means something"),
        ([("a", a), ("sha256", b)], "\"sha256\" already means something"),
    ] {
        let problems = shared_route(&verifiers);
        assert!(matches!(&*problems, [one] if one.contains(expected)), "{problems:?}");
    }
    // Named twice, and without an issuer by which to choose it.
    check("auth = [\"users\", \"users\"]", &["routes.r.auth"; 2]);
    // Not there, and the same.
    check("auth = [\"users\", \"user\"]", &["routes.r.auth"; 2]);
}

#[test]
fn api_keys_beside_tokens_have_places_of_their_own() {
    let problems = |keys: &str, more: &str, auth: &str| {
        let text = format!(
            "[upstreams.u]\nservers = [\"http://127.0.0.1:1\"]\n[auth.users]\n\
             secret = \"0123456789abcdef0123456789abcdef\"\nalgorithms = [\"HS256\"]\n\
             [auth.partners]\napi_keys = true\n{keys}\n[auth.key]\napi_keys = true\n{more}\n\
             [routes.r]\npath = \"/\"\nupstream = \"u\"\nauth = {auth}\n"
        );
        let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
        assert!(loaded.problems.is_empty(), "{}", loaded.source.render(&loaded.problems));
        match Plan::compile(loaded.config) {
            Ok(plan) => {
                assert_eq!(plan.key_verifiers.len(), 2);
                String::new()
            }
            Err(problems) => problems.iter().map(|it| format!("{}\n", it.what)).collect(),
        }
    };
    // The tokens need no issuer: their place tells them apart.
    assert_eq!(problems("", "", "[\"users\", \"partners\"]"), "");
    let at_bearer = "from = [\"cookie:k\", \"header:authorization\"]";
    assert_eq!(problems(at_bearer, "", "\"partners\""), "");
    for (keys, more, auth, expected) in [
        (at_bearer, "", "[\"users\", \"partners\"]", "look in the same place"),
        ("", "", "[\"partners\", \"key\"]", "look in the same place"),
        ("", "from = [\"query:k\"]", "[\"partners\", \"key\"]", "\"key\" already means"),
        ("forward_token = true", "", "[\"users\", \"partners\"]", "disagree about forward"),
    ] {
        let problems = problems(keys, more, auth);
        assert!(problems.contains(expected), "{keys} {more}: {problems:?}");
    }
}

#[test]
fn only_verifiers_that_share_a_route_are_told_apart() {
    let text = r#"
        [upstreams.u]
        servers = ["http://127.0.0.1:1"]
        [auth.a]
        issuer = "https://a"
        secret = "0123456789abcdef0123456789abcdef"
        algorithms = ["HS256"]
        [auth.b]
        issuer = "https://b"
        secret = "0123456789abcdef0123456789abcdef"
        algorithms = ["HS256"]
        [auth.c]
        secret = "0123456789abcdef0123456789abcdef"
        algorithms = ["HS256"]
        [routes.one]
        path = "/one"
        upstream = "u"
        auth = { by = ["a", "b"], optional = true }
        [routes.two]
        path = "/two"
        upstream = "u"
        auth = "a"
        [routes.three]
        path = "/three"
        upstream = "u"
        auth = "c"
    "#;
    let loaded = config::parse("t.toml", Path::new("."), text, &|_| None).unwrap();
    let plan = Plan::compile(loaded.config).unwrap();
    let key = |name: &str| plan.verifiers[name].store_keys().blacklist("t");
    assert_eq!(key("a"), "app:auth:blacklist:a:t");
    assert_eq!(key("b"), "app:auth:blacklist:b:t");
    assert_eq!(key("c"), "app:auth:blacklist:t");
    assert_eq!(plan.verifiers["a"].qualifier().as_deref(), Some("a"));
    assert_eq!(plan.verifiers["c"].qualifier(), None);
}

/// One certificate, and two; their clients show those of an authority of their own.
const PLAIN: &str = "{ cert = 'site.pem', key = 'site.key' }";
const ASKED: &str = "{ cert = 'site.pem', key = 'site.key', client_ca = 'site.pem' }";
const ALSO: &str = ", { cert = 'inner.pem', key = 'inner.key', client_ca = 'inner.pem' }";

/// A plan with these certificates, verifiers, and a route by `auth`; or what is wrong.
fn with_certificates(tls: &str, more: &str, auth: &str) -> Result<Plan, Vec<String>> {
    let folder = std::env::temp_dir().join(format!("portcullis-plan-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["site", "inner"] {
        let made = rcgen::generate_simple_self_signed([format!("{name}.test")]).unwrap();
        std::fs::write(folder.join(name).with_extension("pem"), made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_pem();
        std::fs::write(folder.join(name).with_extension("key"), key).unwrap();
    }
    let text = format!(
        "[server.tls]\ncertificates = [{tls}]\n[auth.users]\n\
         secret = '0123456789abcdef0123456789abcdef'\nalgorithms = ['HS256']\n\
         [auth.devices]\ncertificate = true\n{more}\n[upstreams.u]\n\
         servers = ['http://127.0.0.1:1']\n[routes.r]\npath = '/'\nupstream = 'u'\nauth = {auth}\n"
    );
    let loaded = config::parse("t.toml", &folder, &text, &|_| None).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(loaded.problems.is_empty(), "{}", loaded.source.render(&loaded.problems));
    Plan::compile(loaded.config)
        .map_err(|problems| problems.iter().map(|it| format!("{}: {}", it.path, it.what)).collect())
}

#[test]
fn a_verifier_of_certificates_needs_clients_that_are_asked_and_stands_beside_others() {
    let key = |plan: &Plan, name: &str| plan.store_keys(name).unwrap().not_before("ann");
    let plan = with_certificates(ASKED, "", "'devices'").unwrap();
    assert_eq!(key(&plan, "devices"), "app:auth:not-before:ann");
    let plan = with_certificates(ASKED, "", "['users', 'devices']").unwrap();
    assert_eq!(key(&plan, "devices"), "app:auth:not-before:devices:ann");
    assert_eq!(key(&plan, "users"), "app:auth:not-before:ann", "their keys stay");
    // No `sub` of theirs imitates one of a device.
    assert!(plan.store_keys("users").unwrap().not_before("devices:ann").contains("sha256:"));
    let also = "[auth.cert]\ncertificate = true";
    for (tls, more, auth, expected) in [
        (PLAIN, "", "'devices'", "auth.devices.certificate: no client is asked"),
        (ASKED, also, "['devices', 'cert']", "auth.devices and auth.cert both take certificates"),
        (ASKED, also, "['users', 'cert']", "\"cert\" already means something"),
    ] {
        let problems = with_certificates(tls, more, auth).err().unwrap_or_default();
        assert!(problems.iter().any(|it| it.contains(expected)), "{auth}: {problems:?}");
    }
    let cached = "'devices'\ncache = { ttl = '1m' }";
    let problems = with_certificates(ASKED, "", cached).err().unwrap_or_default();
    assert_eq!(problems.len(), 1, "the upstream is told of each certificate: {problems:?}");
    let parted = "'devices'\ncache = { ttl = '1m', partition = ['claim:sha256'] }";
    assert!(with_certificates(ASKED, "", parted).is_ok());
}

#[test]
fn a_cache_for_everybody_behind_an_upstream_that_is_told_of_certificates_deserves_a_look() {
    for (tls, more, warned) in [
        (ASKED, "cache = { ttl = '1m' }", 1),
        (ASKED, "cache = { ttl = '1m', shared = true }", 0),
        (ASKED, "", 0),
    ] {
        let plan = with_certificates(tls, "", &format!("'users'\n{more}")).unwrap();
        let of_route = plan.warnings.iter().filter(|it| it.path == "routes.r.cache");
        assert_eq!(of_route.count(), warned, "{tls} {more}");
    }
}

#[test]
fn two_authorities_that_vouch_for_one_routes_callers_deserve_a_second_look() {
    let two = format!("{ASKED}{ALSO}");
    for (tls, auth, warned) in [
        (ASKED, "'devices'", 0),
        (&*two, "'devices'", 1),
        (&*two, "'users'", 0),
        (&*two, "'devices'\nhost = 'site.test'", 0),
    ] {
        let plan = with_certificates(tls, "", auth).unwrap();
        let of_route = plan.warnings.iter().filter(|it| it.path == "routes.r.auth");
        assert_eq!(of_route.count(), warned, "{tls} {auth}");
    }
}

#[test]
fn a_single_server_that_would_be_ejected_or_helped_deserves_a_second_look() {
    const HEDGE: &str = "hedge = 'p95'\nretry = {}";
    for (servers, care, warned) in [
        ("'http://10.0.0.1'", "eject = {}", Some("upstreams.shop.eject")),
        ("'http://10.0.0.1'", HEDGE, Some("upstreams.shop.hedge")),
        // A name may have several addresses.
        ("'http://a'", "eject = {}", None),
        ("'http://a'", HEDGE, None),
        ("'http://10.0.0.1', 'http://10.0.0.2'", "eject = {}", None),
        ("'http://10.0.0.1', 'http://10.0.0.2'", HEDGE, None),
        ("'http://10.0.0.1'", "breaker = {}\nretry = {}", None),
    ] {
        let routes = "[routes.r]\npath = \"/\"\nupstream = \"shop\"\n";
        let text = format!("[upstreams.shop]\nservers = [{servers}]\n{care}\n{routes}");
        let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
        let plan = Plan::compile(loaded.config).unwrap();
        let of_it = plan.warnings.iter().map(|it| &*it.path);
        assert_eq!(of_it.collect::<Vec<_>>(), Vec::from_iter(warned), "{text}");
    }
}

#[test]
fn a_panic_without_anybody_who_could_be_out_deserves_a_second_look() {
    for (care, warned) in [
        ("panic = '30%'", 1),
        ("panic = '30%'\neject = {}", 0),
        ("panic = '30%'\nhealth = { path = '/' }", 0),
        ("", 0),
    ] {
        let routes = "[routes.r]\npath = \"/\"\nupstream = \"shop\"\n";
        let text =
            format!("[upstreams.shop]\nservers = ['http://a', 'http://b']\n{care}\n{routes}");
        let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
        let plan = Plan::compile(loaded.config).unwrap();
        let of_it = plan.warnings.iter().filter(|it| it.path == "upstreams.shop.panic");
        assert_eq!(of_it.count(), warned, "{text}");
    }
}

#[test]
fn keys_of_names_where_there_is_none_deserve_a_second_look() {
    for (servers, keys, warned) in [
        ("'http://10.0.0.1'", "dns_refresh = '1s'", &["dns_refresh"][..]),
        ("'http://localhost'", "dns_stale = '0s'", &["dns_stale"]),
        ("'http://[::1]'", "dns_servers = ['10.0.0.2:53']", &["dns_servers"]),
        ("'http://10.0.0.1'", "dns_refresh = '5s'\ndns_stale = '1h'\ndns_servers = []", &[]),
        ("'http://10.0.0.1', 'http://a'", "dns_refresh = '1s'\ndns_stale = '0s'", &[]),
    ] {
        let routes = "[routes.r]\npath = \"/\"\nupstream = \"shop\"\n";
        let text = format!("[upstreams.shop]\nservers = [{servers}]\n{keys}\n{routes}");
        let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
        let plan = Plan::compile(loaded.config).unwrap();
        let keys = plan.warnings.iter().filter_map(|it| it.path.strip_prefix("upstreams.shop."));
        assert_eq!(keys.collect::<Vec<_>>(), warned, "{text}");
    }
}

#[test]
fn one_place_is_fetched_in_one_way() {
    let verifier = |name: &str, more: &str| {
        format!("[auth.{name}]\nalgorithms = [\"ES256\"]\njwks_url = \"https://a/\"\n{more}\n")
    };
    for (more, expected) in [("", &[][..]), ("jwks.refresh = \"1h\"", &["auth.b.jwks"])] {
        let text = verifier("a", "") + &verifier("b", more);
        let routes = "[routes.r]\npath = \"/\"\nupstream = \"shop\"\n";
        let text = BASE.replace("[auth.users]", "[auth.z]") + &text + routes;
        let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
        assert!(loaded.problems.is_empty());
        let problems = Plan::compile(loaded.config).err().unwrap_or_default();
        assert_eq!(problems.iter().map(|p| &*p.path).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn identity_and_cache_need_a_word() {
    check("auth = \"users\"\ncache = { ttl = \"1m\" }", &["routes.r.cache"]);
    check("session = true\ncache = { ttl = \"1m\" }", &["routes.r.cache"]);
    check("auth = \"users\"\ncache = { ttl = \"1m\", shared = true }", &[]);
    check("auth = \"users\"\ncache = { partition = [\"claim:plan\"] }", &[]);
    check("cache = { partition = [\"claim:plan\"] }", &["routes.r.cache.partition"]);
    check("cache = { ttl = \"1m\" }", &[]);
    let keeps = "shared = true, set_cookie = \"store\"";
    check(&format!("auth = \"users\"\ncache = {{ {keeps} }}"), &["routes.r.cache.set_cookie"]);
    check(&format!("session = true\ncache = {{ {keeps} }}"), &["routes.r.cache.set_cookie"]);
    check(&format!("cache = {{ {keeps} }}"), &[]);
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

#[test]
fn a_tunnel_needs_an_upstream_of_http1() {
    for (protocol, expected) in [("h2", &["routes.r.upgrade"][..]), ("auto", &[]), ("http1", &[])] {
        let text = format!(
            "[upstreams.other]\nservers = [\"http://127.0.0.1:1\"]\nprotocol = \"{protocol}\"\n\
             [routes.r]\npath = \"/r\"\nupstream = \"other\"\nupgrade = [\"websocket\"]\n"
        );
        assert_eq!(problems(&text), expected, "{protocol}");
    }
}

#[test]
fn rules_for_fields_touch_nothing_of_the_gateways_own() {
    for (rule, key) in [
        ("request_headers = { set = { X-Forwarded-For = '1' } }", "request_headers.set"),
        ("request_headers = { remove = ['host'] }", "request_headers.remove"),
        // Claims and the session, as some upstreams read them.
        ("request_headers = { add = { X_User_Id = '1' } }", "request_headers.add"),
        ("request_headers.remove = ['X-Session']", "request_headers.remove"),
        ("response_headers = { set = { Content-Length = '1' } }", "response_headers.set"),
        ("response_headers = { remove = ['X-Request-Id'] }", "response_headers.remove"),
        ("response_headers = { add = { Content-Encoding = 'x' } }", "response_headers.add"),
        (
            "cors = { origins = ['*'] }\n\
             response_headers = { set = { Access-Control-Allow-Origin = '*' } }",
            "response_headers.set",
        ),
    ] {
        check(rule, &[&format!("routes.r.{key}")]);
    }
    check(
        "request_headers = { set = { Authorization = 'x' }, remove = ['cookie'] }\n\
         response_headers = { set = { Access-Control-Allow-Origin = '*', X-User-Id = 'x' } }",
        &[],
    );
    let route = "[routes.r]\nupstream = 'shop'\npath = '/'\n";
    let server = "[server.request_headers]\nset = { Via = '1.1 x' }\n\
                  [server.response_headers]\nremove = ['connection']\n";
    let expected = ["server.request_headers.set", "server.response_headers.remove"];
    assert_eq!(problems(&format!("{server}{route}")), expected);
}

#[test]
fn no_line_shows_a_field_in_which_credentials_are_expected() {
    let text = |headers: &str| {
        format!(
            "[auth.a]\nalgorithms = ['HS256']\nissuer = 'i'\nsecret = '{}'\n\
             from = ['header:x-caller', 'header:x-guest']\n[log]\nheaders = [{headers}]\n\
             [routes.r]\nupstream = 'shop'\npath = '/'\n",
            "x".repeat(32)
        )
    };
    assert_eq!(problems(&text("'referer', 'x-other'")), [""; 0]);
    assert_eq!(problems(&text("'x-other', 'x-guest'")), ["log.headers"]);
    assert_eq!(problems(&text("'x-guest', 'x-caller'")), ["log.headers", "log.headers"]);
}

#[test]
fn a_split_and_a_mirror_name_upstreams_that_are_there() {
    let problems_of = |route: &str, paths: &str| {
        problems(&format!(
            "[upstreams.a]\nservers = ['http://a']\n[upstreams.b]\nservers = ['http://b']\n{paths}
            [routes.r]\npath = '/'\n{route}"
        ))
    };
    let split = |a: &str, b: &str| {
        format!("split = [{{ upstream = '{a}', weight = 1 }}, {{ upstream = '{b}', weight = 1 }}]")
    };
    assert_eq!(problems_of(&split("a", "b"), ""), [""; 0]);
    assert_eq!(problems_of(&split("a", "c"), ""), ["routes.r.split"]);
    assert_eq!(problems_of(&split("c", "a"), ""), ["routes.r.split"]);
    let readings = "paths = ['any-case']";
    assert_eq!(problems_of(&split("a", "b"), readings), ["routes.r.split"]);
    assert_eq!(problems_of("upstream = 'a'\nmirror = { upstream = 'b' }", ""), [""; 0]);
    for route in [
        "upstream = 'a'\nmirror = { upstream = 'c' }".to_owned(),
        "upstream = 'a'\nmirror = { upstream = 'a' }".to_owned(),
        split("a", "b") + "\nmirror = { upstream = 'b' }",
    ] {
        assert_eq!(problems_of(&route, ""), ["routes.r.mirror.upstream"], "{route}");
    }
}

#[test]
fn readers_are_upstreams_behind_those_of_the_file() {
    let text = |position: &str| {
        format!(
            "[upstreams.a]\nservers = ['http://a']\nreaders = ['http://r']\n{position}
             [upstreams.b]\nservers = ['http://b']
             [routes.r]\npath = '/'\nupstream = 'a'
             [routes.s]\npath = '/s'\nsplit = [{{ upstream = 'b' }}, {{ upstream = 'a' }}]
             ramp = ['100%']\nsticky = 'address'
             [routes.t]\npath = '/t'\nupstream = 'b'"
        )
    };
    let with_position = text("position = { from = 'x-at', to = 'X_Min' }");
    let loaded = config::parse("t.toml", Path::new("."), &with_position, &|_| None).unwrap();
    let plan = Plan::compile(loaded.config).unwrap();
    let names: Vec<_> = plan.upstreams.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "b", "a:readers"]);
    assert_eq!(plan.upstream_tls.len(), 3);
    let readers = plan.pools.iter().map(|pool| pool.as_ref().map(|pool| pool.readers));
    assert_eq!(readers.collect::<Vec<_>>(), [Some(2), None]);
    let stick = |index: usize| plan.route(index).unwrap().stick().as_secs();
    assert_eq!([stick(0), stick(1), stick(2)], [3, 3, 0]);
    assert!(!plan.route(0).unwrap().is_open() && plan.route(2).unwrap().is_open());
    assert_eq!(plan.headers.owned, ["x-min"]);
    for to in ["Host", "Content-Length", "X_Forwarded_For", "X-Request-Id"] {
        let position = format!("position = {{ from = 'x-at', to = '{to}' }}");
        assert_eq!(problems(&text(&position)), ["upstreams.a.position.to"], "{to}");
    }
}

#[test]
fn rewrites_and_answers_must_fit_their_route() {
    check("rewrite = { strip_prefix = '/r' }", &[]);
    check("rewrite = { strip_prefix = '/x' }", &["routes.r.rewrite.strip_prefix"]);
    check("rewrite = { replace = '/v2/{rest}', host = 'a:80' }", &[]);
    check("rewrite = { replace = '/v2/{id}' }", &["routes.r.rewrite.replace"]);
    check("rewrite = { host = 'a b' }", &["routes.r.rewrite.host"]);
    check("respond = { status = 308, location = 'https://a/{rest}' }", &[]);
    let location = ["routes.r.respond.location"];
    check("respond = { status = 308, location = 'https://a{rest}' }", &location);
    check("deadline_header = 'x-left'", &["routes.r.deadline_header"]);
    check("deadline = '1s'\ndeadline_header = 'x-left'", &[]);
    check("deadline = '1s'\ndeadline_header = 'X_User_Id'", &["routes.r.deadline_header"]);
    assert_eq!(problems("[routes.r]\npath = '/'\nrespond = { status = 204 }"), [""; 0]);
    let named = "[routes.r]\npath = '/'\nupstream = 'shp'\nrespond = { status = 204 }";
    assert_eq!(problems(named), ["routes.r.upstream"]);
}

#[test]
fn idempotency_keys_need_requests_that_somebody_looks_at() {
    let on = |more: &str| {
        problems(&format!("[routes.r]\npath = '/r'\nupstream = 'shop'\nidempotency = {{}}\n{more}"))
    };
    assert_eq!(on(""), Vec::<String>::new());
    assert_eq!(on("methods = ['GET', 'POST']"), Vec::<String>::new());
    for (more, key) in [
        ("grpc = {}", "routes.r.idempotency"),
        ("respond = { status = 204 }", "routes.r.idempotency"),
        ("methods = ['GET', 'PUT']", "routes.r.idempotency.methods"),
    ] {
        assert_eq!(on(more), [key], "{more}");
    }
}
