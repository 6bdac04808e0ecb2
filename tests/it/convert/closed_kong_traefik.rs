//! What was closed in Kong or Traefik stays closed: no request that a guard kept from an upstream
//! reaches it through the converted configuration.

use std::io::Write as _;

use super::convert;
use crate::support::{Client, Folder, Gateway, Upstream};

const CLEAR: &str = "entryPoints: { web: { address: ':80' } }";

/// Requests as `host path`.
struct Case {
    kind: &'static str,
    source: String,
    /// What must not reach the upstream.
    closed: &'static str,
    /// What must still reach it, where there is such a thing.
    open: &'static str,
}

fn traefik(points: &str, routers: &str, middlewares: &str) -> String {
    format!(
        "{points}\nhttp:\n  services:\n    app: {{ loadBalancer: {{ servers: [ {{ url: \
         'http://UP' }} ] }} }}\n  routers:\n{routers}\n  middlewares:\n    basic: {{ basicAuth: \
         {{ users: [a] }} }}\n{middlewares}"
    )
}

fn of_traefik() -> Vec<Case> {
    let case = |source, closed, open| Case { kind: "traefik", source, closed, open };
    let all = "    all: { rule: 'Host(`a.test`)', service: app }";
    vec![
        case(
            traefik(
                "entryPoints: { web: { address: ':80', http: { middlewares: [basic@file] } } }",
                all,
                "",
            ),
            "a.test /",
            "",
        ),
        case(
            traefik(
                "entryPoints: { web: { address: ':80' }, internal: { address: ':9000' } }",
                &format!(
                    "{all}\n    in: {{ rule: 'Host(`a.test`) && PathPrefix(`/in`)', service: app, \
                     entryPoints: [internal] }}"
                ),
                "",
            ),
            "a.test /in/x",
            "a.test /x",
        ),
        case(
            traefik(
                CLEAR,
                "    all: { rule: 'Host(`a.test`)', service: app, middlewares: [odd] }",
                "    odd: { oddAuth: { a: b } }",
            ),
            "a.test /",
            "",
        ),
        case(
            traefik(
                CLEAR,
                &format!(
                    "{all}\n    in: {{ rule: 'PathPrefix(`/administration`)', service: app, \
                     middlewares: [basic] }}\n    first: {{ rule: 'Path(`/first`)', service: app, \
                     priority: 99, middlewares: [basic] }}"
                ),
                "",
            ),
            "a.test /administration/x, b.test /administration/x, a.test /first",
            "a.test /x",
        ),
    ]
}

fn of_traefik_by_address_and_host() -> Vec<Case> {
    let case = |source, closed| Case { kind: "traefik", source, closed, open: "" };
    vec![
        case(
            traefik(
                CLEAR,
                "    all: { rule: 'Host(`a.test`)', service: app, middlewares: [near] }",
                "    near: { ipAllowList: { sourceRange: [127.0.0.1], ipStrategy: { depth: 1 } } }",
            ),
            "a.test /",
        ),
        case(
            traefik(
                CLEAR,
                "    all: { rule: 'HostRegexp(`{sub:(x|y)}.a.test`)', service: app }",
                "",
            ),
            "z.a.test /",
        ),
    ]
}

fn of_kong() -> Vec<Case> {
    let case = |source: &str, closed, open| Case {
        kind: "kong",
        source: format!(
            "services:\n- name: app\n  id: s-1\n  url: http://UP\n  routes:\n  - {{ name: all, id: \
             r-1, paths: [/] }}\n  - {{ name: in, id: r-2, paths: [/in] }}\n{source}"
        ),
        closed,
        open,
    };
    let secret = "consumers:\n- username: u\n  jwt_secrets:\n  - { key: 'https://a.test', secret: \
                  an-example-secret-of-more-than-32-bytes }\n";
    let both = format!("{secret}plugins:\n- name: jwt\n- name: key-auth\n");
    let one = format!(
        "{secret}  plugins:\n  - name: request-termination\nplugins:\n- name: jwt\n  route: in\n"
    );
    vec![
        case("plugins:\n- { name: key-auth, route: r-2 }\n", "a.test /in", "a.test /x"),
        case("plugins:\n- { name: key-auth, service: { id: s-1 } }\n", "a.test /in, a.test /", ""),
        case("plugins:\n- { name: odd-auth, route: { name: in } }\n", "a.test /in", "a.test /x"),
        case(
            "plugins:\n- { name: key-auth }\n- { name: key-auth, route: in, enabled: false }\n",
            "a.test /in, a.test /x",
            "",
        ),
        case(
            "  - { name: off, hosts: [off.test], paths: [/off] }\n- { name: old, enabled: false, \
             url: 'http://UP/old', routes: [ { name: old, hosts: [old.test] } ] }\nplugins:\n- { \
             name: key-auth, service: app }\n",
            "old.test /, a.test /x",
            "",
        ),
        case(
            "  - { name: by, paths: ['~/by/x/\\d+$'], plugins: [ { name: key-auth } ] }\n",
            "a.test /by/x/1",
            "a.test /x",
        ),
        case(
            "  - { name: kinds, methods: [GET], paths: [/], plugins: [ { name: key-auth } ] }\n",
            "a.test /in, a.test /x",
            "",
        ),
        case(&both, "a.test /", ""),
        case(&one, "a.test /in", "a.test /x"),
    ]
}

#[test]
fn what_was_closed_stays_closed() {
    let mut wrong = Vec::new();
    for case in of_traefik().into_iter().chain(of_traefik_by_address_and_host()).chain(of_kong()) {
        let upstream = Upstream::lenient(|_, stream| {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        });
        let source = case.source.replace("UP", &upstream.address().to_string());
        let folder = Folder::new();
        folder.write("source.yml", &source);
        let converted = convert(&folder, case.kind, "source.yml").stdout;
        let mut text = converted.replace("127.0.0.1:9901", "127.0.0.1:0");
        for port in ["80", "8000", "9000"] {
            text = text.replace(&format!("\"0.0.0.0:{port}\""), "\"127.0.0.1:0\"");
        }
        text = text.replace("\"127.0.0.1:0\", \"127.0.0.1:0\"", "\"127.0.0.1:0\"");
        // Where nothing is left that is open, there may be no route at all.
        if !text.lines().any(|line| line.starts_with("[routes.")) {
            assert_eq!(case.open, "", "{source}\n{converted}");
            continue;
        }
        let gateway = Gateway::start_in(folder, &text);
        for (requests, passes) in [(case.closed, 0), (case.open, 1)] {
            for (host, path) in requests.split(", ").filter_map(|it| it.split_once(' ')) {
                upstream.forget();
                let reply = Client::get(gateway.public, path).header("Host", host).send();
                if upstream.seen() != passes {
                    wrong.push(format!("{host}{path}: {}\n{source}\n{converted}", reply.status));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n---\n"));
}

/// With TLS, and what cannot be closed: by what is written and what is said first.
#[test]
fn what_cannot_be_kept_closed_is_said_first() {
    let points = "entryPoints: { web: { address: ':80' }, websecure: { address: ':443' } }";
    let away = "    away: { redirectScheme: { scheme: https } }";
    let of_tls = "    all: { rule: 'Host(`a.test`)', service: app, tls: {}, middlewares: [away, \
                  basic], entryPoints: [websecure] }";
    let of_certificate = format!(
        "{points}\ntls: {{ options: {{ own: {{ clientAuth: {{ clientAuthType: \
         RequireAndVerifyClientCert }} }} }} }}"
    );
    let certificate = "    all: { rule: 'Host(`a.test`)', service: app, tls: { options: own } }";
    let lost = "    all: { rule: 'Host(`a.test`)', service: app }\n    in: { rule: \
                'Headers(`x`, `y`) && Host(`a.test`)', service: app, middlewares: [basic] }";
    let unattached = "services:\n- { name: app, url: 'http://UP', routes: [ { name: all, paths: \
                      [/] } ] }\nplugins:\n- { name: key-auth, route: gone }\n";
    let guarded = |route: &str| {
        format!(
            "services:\n- name: app\n  url: 'http://UP'\n  routes:\n  - {{ name: all, paths: \
             [/] }}\n  - {{ {route}, plugins: [ {{ name: key-auth }} ] }}\n"
        )
    };
    let expression = guarded("name: by, expression: 'http.path ^= \"/in\"'");
    let begins = guarded("name: in, paths: [/in]");
    let begins_alike = "    all: { rule: 'PathPrefix(`/`)', service: app }\n    in: { rule: \
                        'PathPrefix(`/in`)', service: app, middlewares: [basic] }";
    for (kind, source, written, first) in [
        ("traefik", traefik(points, of_tls, away), "respond = { status = 403 }", ""),
        ("traefik", traefik(&of_certificate, certificate, ""), "respond = { status = 403 }", ""),
        ("traefik", traefik(CLEAR, lost, ""), "[routes.all]", "open now: in"),
        ("kong", unattached.to_owned(), "[routes.all]", "open now: key-auth"),
        ("kong", expression, "[routes.all]", "open now: by"),
        ("kong", begins, "[routes.all]", "open now: /in.php and the like"),
        ("traefik", traefik(CLEAR, begins_alike, ""), "[routes.all]", "open now: /in.php"),
    ] {
        let folder = Folder::new();
        folder.write("source.yml", source.replace("UP", "127.0.0.1:3000"));
        let converted = convert(&folder, kind, "source.yml");
        assert_eq!(converted.code, Some(1), "{source}");
        assert!(converted.stdout.contains(written), "{source}\n{}", converted.stdout);
        let said = converted.stderr.lines().nth(1).unwrap_or_default();
        assert!(said.contains(first), "{source}\n{}", converted.stderr);
    }
}
