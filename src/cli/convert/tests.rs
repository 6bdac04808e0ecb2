//! Hostile sources: whatever stands there, nothing panics, and what comes out is TOML. And nothing
//! is left out without a word: a key that is not carried over is on the list.

use std::path::Path;

use proptest::prelude::*;
use toml::de::DeTable;

use super::sheet::Sheet;
use super::tree::{Node, Value};
use super::{From, convert, document, finished, kong, traefik};

const NGINX: [&str; 6] = [
    include_str!("../../../tests/it/convert/nginx/spa.conf"),
    include_str!("../../../tests/it/convert/nginx/tls.conf"),
    include_str!("../../../tests/it/convert/nginx/balanced.conf"),
    include_str!("../../../tests/it/convert/nginx/limits.conf"),
    include_str!("../../../tests/it/convert/nginx/legacy.conf"),
    include_str!("../../../tests/it/convert/nginx/certbot.conf"),
];
const KONG: [&str; 6] = [
    include_str!("../../../tests/it/convert/kong/shop.yml"),
    include_str!("../../../tests/it/convert/kong/limited.yml"),
    include_str!("../../../tests/it/convert/kong/keys.yml"),
    include_str!("../../../tests/it/convert/kong/balanced.json"),
    include_str!("../../../tests/it/convert/kong/transformed.yml"),
    include_str!("../../../tests/it/convert/kong/dumped.yml"),
];
const TRAEFIK: [&str; 6] = [
    include_str!("../../../tests/it/convert/traefik/app.yml"),
    include_str!("../../../tests/it/convert/traefik/canary.toml"),
    include_str!("../../../tests/it/convert/traefik/guarded.yml"),
    include_str!("../../../tests/it/convert/traefik/hardened.yml"),
    include_str!("../../../tests/it/convert/traefik/paths.yml"),
    include_str!("../../../tests/it/convert/traefik/production.yml"),
];

/// What may come in the place of something else.
const PIECES: [&str; 32] = [
    "",
    " ",
    "\n",
    "{",
    "}",
    ";",
    "\"",
    "'",
    "#",
    "$1",
    "${",
    "\\",
    "/",
    "//",
    "..",
    "*",
    "&a",
    "*a",
    "<<: *a",
    "[",
    "]",
    ": ",
    "- ",
    "~",
    "null",
    "0",
    "-1",
    "99999999999999999999",
    "é",
    "\u{7f}",
    "\u{0}",
    "/*",
];

/// A text with some of its parts cut, doubled or replaced.
fn mutated(text: &str, cuts: &[(usize, usize, usize, bool)]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (at, length, piece, doubles) in cuts {
        let at = at % (chars.len() + 1);
        let end = (at + length).min(chars.len());
        let piece = PIECES[piece % PIECES.len()];
        let old: Vec<char> = chars[at..end].to_vec();
        let kept: &[char] = if *doubles { &old } else { &[] };
        let new: Vec<char> =
            kept.iter().copied().chain(piece.chars()).chain(kept.iter().copied()).collect();
        chars.splice(at..end, new);
    }
    chars.into_iter().collect()
}

/// Converts it; what comes out is TOML, and says what it leaves out.
fn survives(from: From, name: &str, text: &str) {
    let folder = Path::new("nowhere");
    let Ok(sheet) = convert(from, (name, text), folder) else { return };
    let made = finished(sheet, name, folder);
    let written = made.text.unwrap_or_default();
    if let Err(error) = DeTable::parse(&written) {
        panic!("{error}\n{written}");
    }
    assert_eq!(made.status == 0, made.said.is_empty(), "{}", made.said);
}

fn cuts() -> impl Strategy<Value = Vec<(usize, usize, usize, bool)>> {
    prop::collection::vec((0_usize..5_000, 0_usize..40, 0_usize..PIECES.len(), any::<bool>()), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_source_of_nginx_breaks_it(which in 0_usize..6, cuts in cuts()) {
        survives(From::Nginx, "nginx.conf", &mutated(NGINX[which], &cuts));
    }

    #[test]
    fn no_source_of_kong_breaks_it(which in 0_usize..6, cuts in cuts()) {
        survives(From::Kong, "kong.yml", &mutated(KONG[which], &cuts));
    }

    #[test]
    fn no_source_of_traefik_breaks_it(which in 0_usize..6, cuts in cuts()) {
        let name = if which == 1 { "traefik.toml" } else { "traefik.yml" };
        survives(From::Traefik, name, &mutated(TRAEFIK[which], &cuts));
    }

    #[test]
    fn no_text_breaks_it(text in "\\PC{0,200}") {
        for (from, name) in [
            (From::Nginx, "nginx.conf"),
            (From::Kong, "kong.yml"),
            (From::Traefik, "traefik.yml"),
            (From::Traefik, "traefik.toml"),
        ] {
            survives(from, name, &text);
        }
    }
}

/// What stands for a key that nobody knows.
const ODD: &str = "odd-key";

/// Puts a key into each map of a document, one at a time.
fn with_odd_key(root: &Node) -> Vec<Node> {
    let odd = || (ODD.to_owned(), Node::new(1, Value::Text(ODD.to_owned())));
    let mut all = Vec::new();
    match &root.value {
        Value::Map(entries) => {
            let mut with = entries.clone();
            with.push(odd());
            all.push(Node::new(root.line, Value::Map(with)));
            for (at, (name, inner)) in entries.iter().enumerate() {
                for made in with_odd_key(inner) {
                    let mut with = entries.clone();
                    with[at] = (name.clone(), made);
                    all.push(Node::new(root.line, Value::Map(with)));
                }
            }
        }
        Value::List(items) => {
            for (at, inner) in items.iter().enumerate() {
                for made in with_odd_key(inner) {
                    let mut with = items.clone();
                    with[at] = made;
                    all.push(Node::new(root.line, Value::List(with)));
                }
            }
        }
        Value::Null | Value::Text(_) => {}
    }
    all
}

/// The names that lead to what nobody knows, and whether all of something around it is left out.
fn path_of_odd(node: &Node) -> Option<(String, bool)> {
    let below = |name: &str, inner: &Node| {
        let (path, is_settled) = path_of_odd(inner)?;
        Some((format!("{name}.{path}"), is_settled || inner.is_settled()))
    };
    match &node.value {
        Value::Map(entries) => entries.iter().find_map(|(name, inner)| match name.as_str() {
            ODD => Some((ODD.to_owned(), inner.is_settled())),
            name => below(name, inner),
        }),
        Value::List(items) => items.iter().find_map(|inner| below("-", inner)),
        Value::Null | Value::Text(_) => None,
    }
}

/// Whatever stands in these, nothing here needs it.
const OF_NO_MATTER: [&str; 3] = [".config.redis.", ".responseForwarding.", ".observability."];

#[test]
fn a_key_that_nobody_knows_is_carried_over_or_listed_wherever_it_stands() {
    type Read = fn(&str, &Node, &mut Sheet) -> Result<(), String>;
    let of_kong = KONG.map(|text| ("kong.yml", text, kong::convert as Read));
    let of_traefik = TRAEFIK.map(|text| {
        let name = if text.trim_start().starts_with('[') { "traefik.toml" } else { "traefik.yml" };
        (name, text, traefik::convert as Read)
    });
    let (mut count, mut silent) = (0, Vec::new());
    for (name, text, read) in of_kong.into_iter().chain(of_traefik) {
        let root = document(name, &text.replace('\t', " ")).unwrap();
        for made in with_odd_key(&root) {
            let mut sheet = Sheet::default();
            read(name, &made, &mut sheet).unwrap();
            let (path, is_settled) = path_of_odd(&made).unwrap();
            let is_said = sheet.render(name).contains(ODD);
            let is_settled = is_settled || OF_NO_MATTER.iter().any(|it| path.contains(it));
            count += 1;
            if !is_said && !is_settled {
                silent.push(format!("{name}: {path}"));
            }
        }
    }
    assert!(count > 200 && silent.is_empty(), "of {count}: {silent:#?}");
}

#[test]
fn a_directive_that_nobody_knows_is_listed_wherever_it_stands() {
    // What is in these is no directive, or is left out as a whole.
    const OTHERS: [&str; 5] = ["events", "map", "types", "if", "geo"];
    let mut count = 0;
    for text in NGINX {
        for (at, _) in text.match_indices('{') {
            let (before, rest) = text.split_at(at + 1);
            let line = before.rsplit(['\n', ';', '}']).next().unwrap_or_default();
            let block = line.split_whitespace().next().unwrap_or_default();
            if before.ends_with("${") || OTHERS.contains(&block) || line.contains('#') {
                continue;
            }
            let made = format!("{before} {ODD} on;{rest}");
            let sheet = convert(From::Nginx, ("nginx.conf", &made), Path::new("nowhere")).unwrap();
            assert!(sheet.render("nginx.conf").contains(ODD), "{line}");
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

/// Fields of plugins and middlewares that their makers document, each with a value that says
/// something. One that has no effect on what comes out would be left out without a word.
const FIELDS: &[(From, &str, &str)] = &[
    (From::Kong, "cors", "methods: [GET]"),
    (From::Kong, "cors", "headers: [x-a]"),
    (From::Kong, "cors", "exposed_headers: [x-a]"),
    (From::Kong, "cors", "credentials: true"),
    (From::Kong, "cors", "max_age: 60"),
    (From::Kong, "cors", "preflight_continue: true"),
    (From::Kong, "cors", "private_network: true"),
    (From::Kong, "rate-limiting", "minute: 5"),
    (From::Kong, "rate-limiting", "hour: 0.5"),
    (From::Kong, "rate-limiting", "limit_by: path"),
    (From::Kong, "rate-limiting", "policy: redis"),
    (From::Kong, "rate-limiting", "fault_tolerant: false"),
    (From::Kong, "rate-limiting", "hide_client_headers: true"),
    (From::Kong, "rate-limiting", "error_code: 420"),
    (From::Kong, "rate-limiting", "error_message: slow"),
    (From::Kong, "key-auth", "key_names: [k]"),
    (From::Kong, "key-auth", "key_in_query: true"),
    (From::Kong, "key-auth", "key_in_body: true"),
    (From::Kong, "key-auth", "key_in_header: false"),
    (From::Kong, "key-auth", "hide_credentials: true"),
    (From::Kong, "key-auth", "anonymous: nobody"),
    (From::Kong, "key-auth", "run_on_preflight: false"),
    (From::Kong, "jwt", "anonymous: nobody"),
    (From::Kong, "jwt", "cookie_names: [c]"),
    (From::Kong, "jwt", "uri_param_names: [p]"),
    (From::Kong, "jwt", "header_names: [h]"),
    (From::Kong, "jwt", "key_claim_name: kid"),
    (From::Kong, "jwt", "claims_to_verify: [exp]"),
    (From::Kong, "jwt", "secret_is_base64: true"),
    (From::Kong, "jwt", "maximum_expiration: 60"),
    (From::Kong, "proxy-cache", "cache_ttl: 60"),
    (From::Kong, "proxy-cache", "content_type: [text/html]"),
    (From::Kong, "proxy-cache", "request_method: [POST]"),
    (From::Kong, "proxy-cache", "response_code: [404]"),
    (From::Kong, "proxy-cache", "vary_headers: [x-a]"),
    (From::Kong, "proxy-cache", "vary_query_params: [q]"),
    (From::Kong, "proxy-cache", "strategy: redis"),
    (From::Kong, "proxy-cache", "storage_ttl: 60"),
    (From::Kong, "proxy-cache", "ignore_uri_case: true"),
    (From::Kong, "ip-restriction", "allow: [10.0.0.1]"),
    (From::Kong, "ip-restriction", "status: 404"),
    (From::Kong, "ip-restriction", "message: no"),
    (From::Kong, "request-size-limiting", "allowed_payload_size: 1"),
    (From::Kong, "request-size-limiting", "size_unit: bytes"),
    (From::Kong, "request-size-limiting", "require_content_length: true"),
    (From::Kong, "request-termination", "status_code: 404"),
    (From::Kong, "request-termination", "trigger: x-a"),
    (From::Kong, "request-termination", "echo: true"),
    (From::Kong, "request-transformer", "http_method: POST"),
    (From::Kong, "request-transformer", "rename: { headers: ['a:b'] }"),
    (From::Kong, "request-transformer", "add: { querystring: ['a:b'] }"),
    (From::Kong, "request-transformer", "replace: { uri: /x }"),
    (From::Kong, "request-transformer", "add: { headers: ['x-a:b'] }"),
    (From::Kong, "response-transformer", "remove: { json: [a] }"),
    (From::Kong, "correlation-id", "header_name: x-request-id"),
    (From::Traefik, "rateLimit", "average: 5"),
    (From::Traefik, "rateLimit", "average: 0.5"),
    (From::Traefik, "inFlightReq", "amount: 5"),
    (From::Traefik, "ipAllowList", "sourceRange: [10.0.0.1]"),
    (From::Traefik, "ipAllowList", "ipStrategy: { depth: 1 }"),
    (From::Traefik, "ipAllowList", "rejectStatusCode: 404"),
    (From::Traefik, "compress", "includedContentTypes: [text/html]"),
    (From::Traefik, "compress", "excludedContentTypes: [text/html]"),
    (From::Traefik, "compress", "minResponseBodyBytes: 5"),
    (From::Traefik, "compress", "encodings: [gzip]"),
    (From::Traefik, "retry", "attempts: 5"),
    (From::Traefik, "retry", "initialInterval: 1s"),
    (From::Traefik, "buffering", "maxRequestBodyBytes: 5"),
    (From::Traefik, "buffering", "memRequestBodyBytes: 5"),
    (From::Traefik, "buffering", "retryExpression: x"),
    (From::Traefik, "circuitBreaker", "expression: x"),
    (From::Traefik, "circuitBreaker", "checkPeriod: 1s"),
    (From::Traefik, "stripPrefix", "prefixes: [/a]"),
    (From::Traefik, "stripPrefix", "forceSlash: true"),
    (From::Traefik, "redirectScheme", "port: '8443'"),
    (From::Traefik, "headers", "sslProxyHeaders: { a: b }"),
    (From::Traefik, "headers", "allowedHosts: [a]"),
    (From::Traefik, "headers", "stsSeconds: 5"),
    (From::Traefik, "headers", "stsPreload: true"),
    (From::Traefik, "headers", "frameDeny: true"),
    (From::Traefik, "headers", "accessControlAllowMethods: [GET]"),
    (From::Traefik, "headers", "accessControlAllowHeaders: ['*']"),
    (From::Traefik, "headers", "accessControlAllowOriginListRegex: [a]"),
    (From::Traefik, "headers", "publicKey: a"),
    (From::Traefik, "headers", "isDevelopment: true"),
];

/// A document with one plugin or middleware that has these fields.
fn with_fields(from: From, kind: &str, fields: &str) -> String {
    let text = match from {
        From::Kong => [
            "consumers: [ { username: u, jwt_secrets: [ { key: k, secret: s } ] } ]",
            "services:",
            "- name: a",
            "  url: http://10.0.0.1",
            "  routes:",
            "  - { name: a, paths: [/a], plugins: [ { name: KIND, config: { FIELDS } } ] }",
        ]
        .join("\n"),
        _ => [
            "entryPoints: { web: { address: ':80' } }",
            "http:",
            "  routers: { a: { rule: 'PathPrefix(`/a`)', service: a, middlewares: [m] } }",
            "  services: { a: { loadBalancer: { servers: [ { url: 'http://10.0.0.1' } ] } } }",
            "  middlewares: { m: { KIND: { FIELDS } } }",
        ]
        .join("\n"),
    };
    text.replace("KIND", kind).replace("FIELDS", fields)
}

#[test]
fn every_documented_field_is_carried_over_or_listed() {
    let made = |from, text: &str| {
        let sheet = convert(from, ("source.yml", text), Path::new("nowhere"));
        sheet.unwrap_or_else(|why| panic!("{why}: {text}")).render("source.yml")
    };
    for (from, kind, field) in FIELDS {
        // Some say nothing without another one.
        let base = match *kind {
            "rate-limiting" => "minute: 7",
            "ip-restriction" => "deny: [10.0.0.9]",
            "cors" => "origins: ['https://a.test']",
            "rateLimit" => "average: 7",
            "circuitBreaker" => "expression: 'NetworkErrorRatio() > 0.5'",
            "headers" => "stsSeconds: 7",
            _ => "",
        };
        let both = if base.is_empty() { (*field).to_owned() } else { format!("{base}, {field}") };
        let with = made(*from, &with_fields(*from, kind, &both));
        let without = made(*from, &with_fields(*from, kind, base));
        assert_ne!(with, without, "{from:?}: {kind}: {field}");
    }
}

/// Directives that people have, with arguments that say something. Those that need nothing here
/// are not among them: docs/converting.md has these.
const DIRECTIVES: &[&str] = &[
    "expires 30d",
    "charset utf-8",
    "autoindex on",
    "client_body_timeout 5s",
    "client_header_timeout 5s",
    "large_client_header_buffers 4 16k",
    "keepalive_timeout 5",
    "keepalive_requests 5",
    "send_timeout 5s",
    "limit_conn_status 503",
    "limit_req_status 503",
    "limit_rate 5k",
    "merge_slashes off",
    "ssl_ciphers HIGH",
    "ssl_protocols TLSv1.3",
    "ssl_dhparam a.pem",
    "ssl_client_certificate a.pem",
    "add_header x-a b",
    "add_trailer x-a b",
    "auth_basic a",
    "auth_request /a",
    "auth_jwt a",
    "deny 10.0.0.1",
    "client_max_body_size 5m",
    "error_page 404 /a",
    "etag off",
    "gunzip on",
    "gzip on",
    "gzip_static on",
    "if_modified_since off",
    "ignore_invalid_headers off",
    "limit_conn z 5",
    "limit_req zone=z",
    "mirror /a",
    "msie_refresh on",
    "post_action /a",
    "proxy_bind 10.0.0.1",
    "proxy_cache z",
    "proxy_cache_methods POST",
    "proxy_cache_min_uses 5",
    "proxy_cache_path c keys_zone=c:1m inactive=1h",
    "proxy_cookie_domain a b",
    "proxy_cookie_flags a secure",
    "proxy_cookie_path a b",
    "proxy_connect_timeout 5s",
    "proxy_force_ranges on",
    "proxy_hide_header x-a",
    "proxy_ignore_client_abort on",
    "proxy_ignore_headers Vary",
    "proxy_intercept_errors on",
    "proxy_limit_rate 5k",
    "proxy_max_temp_file_size 0",
    "proxy_method POST",
    "proxy_next_upstream_timeout 5s",
    "proxy_pass_request_body off",
    "proxy_pass_request_headers off",
    "proxy_read_timeout 5s",
    "proxy_redirect a b",
    "proxy_send_timeout 5s",
    "proxy_set_body a",
    "proxy_set_header x-a b",
    "proxy_set_header x-a $b",
    "proxy_ssl_verify off",
    "proxy_store on",
    "satisfy any",
    "set $a b",
    "set_real_ip_from 10.0.0.1",
    "slice 1m",
    "ssi on",
    "sub_filter a b",
    "underscores_in_headers on",
    "userid on",
    "valid_referers none",
];

#[test]
fn every_documented_directive_is_carried_over_or_listed() {
    let made = |text: &str| {
        let sheet = convert(From::Nginx, ("nginx.conf", text), Path::new("nowhere"));
        sheet.unwrap_or_else(|why| panic!("{why}: {text}")).render("nginx.conf")
    };
    for directive in DIRECTIVES {
        let source = |of_server: &str, of_location: &str| {
            let location = format!("location / {{ {of_location} proxy_pass http://10.0.0.1; }}");
            format!("server {{ {of_server} {location} }}")
        };
        let without = made(&source("", ""));
        let with = format!("{directive};");
        assert_ne!(made(&source(&with, "")), without, "in a server: {directive}");
        assert_ne!(made(&source("", &with)), without, "in a location: {directive}");
    }
}

/// What an entry tells to do is there to be read.
#[test]
fn help_names_what_is_there() {
    let sources = NGINX.map(|text| (From::Nginx, "nginx.conf", text)).into_iter();
    let sources = sources.chain(KONG.map(|text| (From::Kong, "kong.yml", text)));
    let texts = sources.chain(TRAEFIK.map(|text| {
        let name = if text.trim_start().starts_with('[') { "traefik.toml" } else { "traefik.yml" };
        (From::Traefik, name, text)
    }));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (from, name, text) in texts {
        let Ok(sheet) = convert(from, (name, text), Path::new("nowhere")) else { continue };
        for left in sheet.all_left() {
            assert!(
                !left.instead.is_empty() && !left.instead.contains("converting.md"),
                "{left:?}"
            );
            for word in left.instead.split([' ', ':', ';', ',']).filter(|it| it.contains("docs/")) {
                assert!(root.join(word).is_file(), "{left:?}");
            }
        }
    }
}
