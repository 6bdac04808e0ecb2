//! Who may have an answer below `/v1/` and `/ui/`: pages of other sites and other ports, names that
//! were rebound, tokens that only read, and a dashboard that only reads.

use portcullis::admin::{Access, ROUTES};

use super::{problem, start};
use crate::support::{Client, Gateway, Reply, claims, eventually, token};

const TOKENS: &str = "token = \"operator-0123456789\"\nread_token = \"reader-0123456789\"\n";
const OPERATOR: &str = "operator-0123456789";
const READER: &str = "reader-0123456789";

/// A request with these fields and JSON; the bearer "" is none.
fn send(gateway: &Gateway, target: (&str, &str), bearer: &str, fields: &[(&str, &str)]) -> Reply {
    let (method, path) = target;
    let mut request = Client::request(gateway.admin, method, path);
    let own = gateway.admin.to_string();
    for (name, value) in [("Host", own.as_str()), ("Content-Type", "application/json")] {
        if !fields.iter().any(|(known, _)| *known == name) {
            request = request.header(name, value);
        }
    }
    for (name, value) in fields {
        request = request.header(name, value);
    }
    if bearer.is_empty() { request.send() } else { request.bearer(bearer).send() }
}

fn refusal(reply: &Reply) -> Option<String> {
    (reply.status >= 400).then(|| problem(reply).1)
}

const STATUS: (&str, &str) = ("GET", "/v1/status");
const PAGE: (&str, &str) = ("GET", "/ui/");

/// Header fields.
type Fields<'a> = &'a [(&'a str, &'a str)];

#[test]
fn only_the_gateways_own_page_may_ask() {
    let (_one, open) = start("");
    let (_two, closed) = start(&format!("[admin]\n{TOKENS}"));
    for (gateway, bearer) in [(&open, ""), (&closed, OPERATOR)] {
        let own = format!("http://{}", gateway.admin);
        let in_capitals = own.to_uppercase().replace("HTTP:", "http:");
        let other_port = format!("http://127.0.0.1:{}", gateway.admin.port() ^ 1);
        let secure = own.replace("http:", "https:");
        let cases: [(Fields<'_>, bool, bool); 15] = [
            (&[], true, true),
            (&[("Sec-Fetch-Site", "same-origin")], true, true),
            (&[("Sec-Fetch-Site", "same-origin"), ("Origin", &own)], true, true),
            (&[("Origin", &own)], true, true),
            (&[("Origin", &in_capitals)], true, true),
            // Somebody who opens the page by its address; nobody opens an answer of the API so.
            (&[("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate")], false, true),
            (&[("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "cors")], false, false),
            // Another port of this host.
            (&[("Sec-Fetch-Site", "same-site")], false, false),
            (&[("Sec-Fetch-Site", "cross-site")], false, false),
            (&[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")], false, false),
            (&[("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "same-site")], false, false),
            (&[("Origin", "null")], false, false),
            (&[("Origin", &other_port)], false, false),
            (&[("Origin", &secure)], false, false),
            (&[("Origin", &own), ("Origin", "http://evil.test")], false, false),
        ];
        for (fields, of_api, of_page) in cases {
            for (target, is_let_in) in [(STATUS, of_api), (PAGE, of_page)] {
                let reply = send(gateway, target, bearer, fields);
                let is_refused = refusal(&reply).as_deref() == Some("cross_site_refused");
                assert_eq!(!is_refused, is_let_in, "{target:?} {fields:?}: {}", reply.text());
            }
        }
    }
}

#[test]
fn a_page_behind_a_proxy_is_named_in_the_configuration() {
    let origins = "origins = [\"https://ops.test\", \"http://gw.test\"]\n";
    let (_upstream, gateway) = start(&format!("[admin]\n{TOKENS}{origins}"));
    let ask = |host: &str, origin: &str| {
        let fields = [("Host", host), ("Origin", origin), ("Sec-Fetch-Site", "same-origin")];
        send(&gateway, STATUS, OPERATOR, &fields)
    };
    for (host, origin) in
        [("inner.test:9901", "https://ops.test"), ("a", "http://gw.test"), ("gw:80", "http://gw")]
    {
        assert_eq!(ask(host, origin).status, 200, "{host} {origin}");
    }
    for origin in ["https://ops.test:444", "https://a.ops.test", "http://ops.test", "https://gw"] {
        let reply = ask("inner.test:9901", origin);
        assert_eq!(refusal(&reply).as_deref(), Some("cross_site_refused"), "{origin}");
        assert!(reply.text().contains("admin.origins"), "{}", reply.text());
    }
}

#[test]
fn whatever_changes_something_is_json() {
    let (_upstream, gateway) = start(&format!("[admin]\n{TOKENS}"));
    for target in [
        ("POST", "/v1/cache/purge"),
        ("PUT", "/v1/sessions/a"),
        ("DELETE", "/v1/tunnels?sub=42"),
        ("POST", "/v1/login"),
        ("DELETE", "/v1/login"),
        ("POST", "/v1/explain"),
    ] {
        let code = |kind: &str| {
            refusal(&send(&gateway, target, OPERATOR, &[("Content-Type", kind)]))
                .unwrap_or_default()
        };
        for kind in ["", "text/plain", "application/jsonp", "text/plain; application/json"] {
            assert_eq!(code(kind), "cross_site_refused", "{target:?} {kind}");
        }
        for kind in ["application/json", "Application/JSON ; charset=utf-8"] {
            assert_ne!(code(kind), "cross_site_refused", "{target:?} {kind}");
        }
    }
}

#[test]
fn without_a_token_the_page_too_is_for_this_machine_alone() {
    let (_one, open) = start("");
    let (_two, closed) = start(&format!("[admin]\n{TOKENS}"));
    let rebound = [("Host", "evil.test"), ("Origin", "http://evil.test")];
    let local = [("Host", "localhost")];
    for target in [PAGE, STATUS, ("GET", "/ui"), ("GET", "/ui/app.css"), ("POST", "/v1/login")] {
        let code = |gateway: &Gateway, fields: &[(&str, &str)]| {
            refusal(&send(gateway, target, OPERATOR, fields)).unwrap_or_default()
        };
        assert_eq!(code(&open, &rebound), "admin_loopback_only", "{target:?}");
        assert_ne!(code(&open, &local), "admin_loopback_only", "{target:?}");
        // Nothing is ambient there.
        assert_ne!(code(&closed, &rebound), "admin_loopback_only", "{target:?}");
    }
    assert_eq!(send(&open, ("GET", "/healthz"), "", &rebound).status, 200);
}

/// As a proxy of this machine would, or the gateway itself by an upstream whose name leads here.
#[test]
fn without_a_token_nobody_operates_through_a_proxy() {
    let (_one, open) = start("");
    let (_two, closed) = start(&format!("[admin]\n{TOKENS}"));
    for field in [
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
        ("Via", "1.1 edge"),
        ("x-forwarded-for", ""),
    ] {
        for target in [STATUS, PAGE, ("POST", "/v1/cache/purge")] {
            let reply = send(&open, target, "", &[field]);
            assert_eq!(problem(&reply), (403, "admin_loopback_only".to_owned()), "{field:?}");
            let told = reply.text().to_lowercase();
            assert!(told.contains(&field.0.to_lowercase()), "{field:?}: {told}");
            assert!(told.contains("set admin.token"), "{told}");
        }
        assert_eq!(send(&closed, STATUS, OPERATOR, &[field]).status, 200, "{field:?}");
        assert_eq!(send(&open, ("GET", "/healthz"), "", &[field]).status, 200, "{field:?}");
    }
}

#[test]
fn no_client_operates_the_gateway_by_an_upstream_whose_name_leads_to_it() {
    let (_upstream, gateway) = start("");
    // Whatever stands between them, the gateway says in its own fields that it passes a request on.
    let front = Gateway::start(&format!(
        "[upstreams.inner]\nservers = [\"http://{}\"]\n\
         [routes.all]\npath = \"/*\"\nupstream = \"inner\"\n",
        gateway.admin
    ));
    let reply = Client::get(front.public, "/v1/status").header("Host", "localhost").send();
    assert_eq!(problem(&reply), (403, "admin_loopback_only".to_owned()));
}

#[test]
fn every_answer_tells_browsers_what_they_must_not_do() {
    let (_upstream, gateway) = start("");
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                  connect-src 'self'; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'; require-trusted-types-for 'script'; \
                  trusted-types 'none'";
    for target in [STATUS, PAGE, ("GET", "/v1/nothing"), ("POST", "/v1/login")] {
        let reply = send(&gateway, target, "", &[]);
        for (name, value) in [
            ("content-security-policy", policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(reply.headers_named(name), [value], "{target:?} {name}");
        }
        assert_eq!(reply.header("access-control-allow-origin"), None, "{target:?}");
    }
    assert_eq!(send(&gateway, STATUS, "", &[]).header("cache-control"), Some("no-store"));
}

#[test]
fn whoever_reads_changes_nothing() {
    let (_upstream, gateway) = start(&format!("[admin]\n{TOKENS}"));
    for route in ROUTES.iter().filter(|route| route.path != "/v1/live") {
        let target = route.example.split(' ').next().unwrap_or_default();
        let reply = send(&gateway, (route.method.as_str(), target), READER, &[]);
        let is_refused = refusal(&reply).as_deref() == Some("admin_read_only");
        let told = format!("{} {target}: {}", route.method, reply.text());
        assert_eq!(is_refused, route.access == Access::Operate, "{told}");
        let reply = send(&gateway, (route.method.as_str(), target), "", &[]);
        let is_open = target == "/v1/login" && route.method == "POST";
        assert_eq!(reply.status != 401, is_open, "{} {target}", route.method);
    }
    let me = send(&gateway, ("GET", "/v1/me"), READER, &[]).json();
    assert_eq!((&me["role"], &me["login"]), (&"read".into(), &"token".into()));
}

#[test]
fn whoever_reads_learns_neither_callers_nor_what_sessions_hold() {
    let config = format!(
        "[admin]\n{TOKENS}[session]\nid_from = [\"cookie:sid\"]\nidle_timeout = \"30m\"\n\
         [auth.partners]\nfrom = [\"header:x-api-key\"]\napi_keys = true\n\
         [limits.mine]\nkey = [\"claim:sub\"]\nallow = [\"1/1h\"]\n\
         [routes.mine]\npath = \"/mine\"\nupstream = \"shop\"\nauth = \"users\"\n\
         limits = [\"mine\"]\n\
         [routes.partner]\npath = \"/partner\"\nupstream = \"shop\"\nauth = \"partners\"\n"
    );
    let (_upstream, gateway) = start(&config);
    let write = |target: (&str, &str), body: &str| {
        let request = Client::request(gateway.admin, target.0, target.1).bearer(OPERATOR);
        let reply = request.header("Content-Type", "application/json").body(body).send();
        assert_eq!(reply.status, 201, "{}", reply.text());
        reply.json()
    };
    write(("PUT", "/v1/sessions/s1?user=zorro"), "{\"mail\": \"zorro@example.com\"}");
    let key = write(("POST", "/v1/keys"), r#"{"owner": "zorro", "claims": {"mail": "zorro"}}"#);
    let bearer = token(claims("zorro"));
    let ask = || Client::get(gateway.public, "/mine").bearer(&bearer).send().status;
    assert_eq!([ask(), ask()], [200, 429]);
    let key = format!("/v1/keys/{}", key["id"].as_str().expect("an id"));
    let limit = "/v1/limits?policy=mine&key=claim:sub=zorro";
    for path in [&key, "/v1/sessions/s1", "/v1/users/zorro/sessions", "/v1/limits/refused", limit] {
        let asked = |bearer: &str| send(&gateway, ("GET", path), bearer, &[]);
        eventually("the operator sees it", || asked(OPERATOR).text().contains("zorro"));
        let told = asked(READER);
        assert_eq!(told.status, 200, "{path}: {}", told.text());
        assert!(!told.text().contains("zorro"), "{path}: {}", told.text());
        assert!(told.text().contains('#') || told.text().contains("[redacted]"), "{path}");
    }
    // Nor what a browser could show in their place.
    for path in ["/v1/sessions/s1", "/v1/users/zorro/sessions"] {
        let asked = |bearer: &str| send(&gateway, ("GET", path), bearer, &[]).text();
        assert!(asked(OPERATOR).contains("\"s1\""), "{path}: {}", asked(OPERATOR));
        let told = asked(READER);
        assert!(!told.contains("\"s1\"") && told.contains("\"sha256:"), "{path}: {told}");
    }
    let question =
        format!("{{\"path\": \"/mine\", \"headers\": {{\"authorization\": \"Bearer {bearer}\"}}}}");
    let request = Client::request(gateway.admin, "POST", "/v1/explain").bearer(READER);
    let told = request.header("Content-Type", "application/json").body(question).send().text();
    assert!(told.contains("mine") && !told.contains("zorro"), "{told}");
}

#[test]
fn a_dashboard_that_only_reads_is_refused_by_the_gateway() {
    let (_one, closed) = start(&format!("[admin]\n{TOKENS}dashboard = \"read\"\n"));
    let (_two, open) = start("[admin]\ndashboard = \"read\"\n");
    for (gateway, bearer) in [(&closed, OPERATOR), (&open, "")] {
        let own = format!("http://{}", gateway.admin);
        let purge = ("POST", "/v1/cache/purge");
        for field in [("Origin", own.as_str()), ("Sec-Fetch-Site", "same-origin")] {
            let reply = send(gateway, purge, bearer, &[field]);
            assert_eq!(refusal(&reply).as_deref(), Some("admin_read_only"), "{field:?}");
            let me = send(gateway, ("GET", "/v1/me"), bearer, &[field]).json();
            assert_eq!((&me["role"], &me["dashboard"]), (&"read".into(), &"read".into()));
        }
        // A command operates as before.
        let reply = send(gateway, purge, bearer, &[]);
        assert_eq!(refusal(&reply).as_deref(), Some("request_invalid"), "{}", reply.text());
    }
}

#[test]
fn where_there_is_no_dashboard_nobody_logs_in() {
    let (_upstream, gateway) = start(&format!("[admin]\n{TOKENS}dashboard = \"off\"\n"));
    for target in [
        PAGE,
        ("GET", "/ui/app.css"),
        ("POST", "/v1/login"),
        ("DELETE", "/v1/login"),
        ("POST", "/v1/login/code"),
    ] {
        let reply = send(&gateway, target, OPERATOR, &[]);
        assert_eq!(problem(&reply), (404, "dashboard_off".to_owned()), "{target:?}");
    }
    assert_eq!(send(&gateway, STATUS, OPERATOR, &[]).status, 200);
    let me = send(&gateway, ("GET", "/v1/me"), OPERATOR, &[]).json();
    assert_eq!((&me["role"], &me["dashboard"]), (&"operate".into(), &"off".into()));
}
