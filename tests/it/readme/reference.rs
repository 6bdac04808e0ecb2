//! docs/reference.md is generated: keys and defaults by asking the configuration's reader, error
//! codes from the source that names them, metrics from a running gateway. What a code means is
//! written by hand, in the page itself, and kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use portcullis::config::{known_keys, parse};

use super::pages::{self, ROOT};
use crate::support::{
    AUTH, CertificateAuthority, Client, Exposition, Folder, Gateway, Issuer, NameServer, Record,
    Redis, Signer, Upstream, claims, eventually, operate, response, token,
};

const PAGE: &str = "docs/reference.md";
/// Set to anything, it has the page written anew.
const UPDATE: &str = "UPDATE_REFERENCE";

#[test]
fn the_reference_is_what_the_program_says() {
    let old = std::fs::read_to_string(Path::new(ROOT).join(PAGE)).unwrap_or_default();
    let new = page(&old);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(Path::new(ROOT).join(PAGE), &new).unwrap();
    }
    let differs = || {
        let lines = new.lines().filter(|line| !old.lines().any(|known| known == *line));
        let gone = old.lines().filter(|line| !new.lines().any(|known| known == *line));
        let lines = lines.map(|line| format!("+ {line}"));
        lines.chain(gone.map(|line| format!("- {line}"))).collect::<Vec<_>>().join("\n")
    };
    assert!(
        new == old,
        "{PAGE} is behind. Write it anew with\n    {UPDATE}=1 cargo test --test it reference\n{}",
        differs()
    );
    let silent: Vec<&str> = new.lines().filter(|line| line.ends_with("| … |")).collect();
    assert!(silent.is_empty(), "say in {PAGE} when these happen: {silent:#?}");
}

fn page(old: &str) -> String {
    let mut page =
        "# Reference\n\nThis page is generated from the program. A test compares it, and \
                    says how to write it anew.\n\n## Keys\n\nEvery key of `gateway.toml`, with its \
                    default. `NAME` stands for a name of yours.\n[gateway.toml](../gateway.toml) \
                    says what each key means. A needed key must \
                    be written where its\ntable is; – is nothing, or off.\n"
            .to_owned();
    keys(&mut page);
    page += "\n## Error codes\n\nThe code is the end of `type` in the body, `reason` in the access \
             line, and a label of\n`portcullis_rejections_total`.\n\n";
    let told = told(old);
    codes(&mut page, "proxy", &told, &proxy_codes());
    page += "\n### Before there was a request\n\nThese stand in the access line and in \
             `portcullis_connection_errors_total` or\n`portcullis_connections_refused_total`.\n\n";
    codes(&mut page, "head", &told, &pairs(&source("src/proxy/unparsed.rs")));
    page += "\n### From the admin API\n\n";
    codes(&mut page, "admin", &told, &admin_codes());
    page += "\n## Metrics\n\nLabels stand in braces.\n\n";
    metrics(&mut page);
    page
}

// --- Keys ----------------------------------------------------------------------------------------

/// The values that the annotated gateway.toml shows for a key, by its path and by its name alone.
fn shown_values() -> BTreeMap<String, Vec<String>> {
    let text = source("gateway.toml");
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some((key, value)) = line.split_once(" = ") {
            values.entry(key.to_owned()).or_default().push(value.to_owned());
            for inner in value.trim_matches(['{', '}', ' ']).split(", ") {
                if let Some((key, value)) = inner.split_once(" = ") {
                    values.entry(key.to_owned()).or_default().push(value.to_owned());
                }
            }
        }
    }
    values
}

/// What a callback needs.
const CALLBACK: [&str; 2] =
    ["url = \"https://hooks.test/\"", "secret = \"32-random-bytes-32-random-bytes-!\""];

/// What a server that is asked about tokens needs.
const INTROSPECT: [&str; 3] = [
    "url = \"https://login.test/introspect\"",
    "client_id = \"gateway\"",
    "client_secret = \"secret\"",
];

/// The least that each table needs, so that another key of it can be tried.
fn least(path: &str) -> Vec<(&'static str, Vec<&'static str>)> {
    let keys = match path {
        _ if path.starts_with("auth.NAME.jwks") => {
            vec!["algorithms = [\"RS256\"]", "jwks_url = \"https://login.test/jwks.json\""]
        }
        _ if path.starts_with("auth.NAME.introspect.") => vec![],
        _ => vec!["algorithms = [\"HS256\"]", "secret = \"32-random-bytes-32-random-bytes-!\""],
    };
    let limit = match path {
        "limits.NAME.lease" => vec!["key = [\"address\"]", "concurrent = 3"],
        _ => vec!["key = [\"address\"]", "allow = [\"5/15m\"]"],
    };
    let (servers, each) = (vec!["servers = [\"http://127.0.0.1:3000\"]"], "upstreams.NAME.servers");
    let servers = match path {
        _ if path.starts_with(&format!("{each}.")) => vec![],
        _ if path.starts_with("upstreams.NAME.tls.") => {
            vec!["servers = [\"https://127.0.0.1:3000\"]"]
        }
        "upstreams.NAME.stick" | "upstreams.NAME.position.from" | "upstreams.NAME.position.to" => {
            vec![servers[0], "readers = [\"http://127.0.0.1:3002\"]"]
        }
        _ => servers,
    };
    let warm = vec!["host = \"shop.test\"", "urls = [\"/\"]"];
    const SPLIT: &str =
        "split = [{ upstream = \"NAME\", weight = 1 }, { upstream = \"next\", weight = 1 }]";
    let mut route = match path {
        _ if path.starts_with("routes.NAME.split.") => vec!["path = \"/*\""],
        _ if path.starts_with("routes.NAME.rollback.") => vec!["path = \"/*\"", SPLIT],
        _ => vec!["path = \"/*\"", "upstream = \"NAME\""],
    };
    if path.starts_with("routes.NAME.tunnel.") {
        route.push("upgrade = [\"websocket\"]");
    }
    let mut tables = vec![
        ("auth.NAME", keys),
        ("limits.NAME", limit),
        ("upstreams.NAME", servers),
        ("routes.NAME", route),
    ];
    let optional = [
        ("auth.NAME.introspect", INTROSPECT.to_vec()),
        ("session", vec!["id_from = [\"cookie:sid\"]"]),
        ("queues.NAME.callback", CALLBACK.to_vec()),
        ("routes.NAME.auth", vec!["by = [\"NAME\"]"]),
        ("routes.NAME.cache.warm", warm),
        ("routes.NAME.split", vec!["upstream = \"NAME\"", "weight = 1"]),
        ("routes.NAME.mirror", vec!["upstream = \"next\""]),
        ("routes.NAME.assertion", vec!["signer = \"main\"", "audience = \"api\""]),
        ("routes.NAME.faults", vec!["allow_from = [\"::/0\"]"]),
        ("upstreams.NAME.health", vec!["path = \"/health\""]),
        (each, vec!["url = \"http://127.0.0.1:3000\""]),
        ("upstreams.NAME.readers", vec!["url = \"http://127.0.0.1:3002\""]),
    ];
    tables.extend(optional.into_iter().filter(|(table, _)| path.starts_with(&format!("{table}."))));
    let stores = ["store.cache", "store.limits", "store.queue", "store"];
    let store = stores.into_iter().find_map(|it| Some((it, path.strip_prefix(it)?)));
    tables.extend(store.and_then(|(table, key)| Some((table, vec![url_for(table, key)?]))));
    let operators =
        ["store.cache.operator", "store.limits.operator", "store.queue.operator", "store.operator"];
    let operator = operators.into_iter().find(|it| path.starts_with(&format!("{it}.")));
    let user = || vec!["username = \"operator\"", "password = \"secret\""];
    tables.extend(operator.map(|table| (table, user())));
    tables
}

/// The `url` without which a key of a store says nothing.
fn url_for(table: &str, key: &str) -> Option<&'static str> {
    let inner = key.strip_prefix('.')?;
    match inner.split_once('.').map(|(table, _)| table) {
        Some("operator") => Some("url = \"redis://127.0.0.1:6379\""),
        Some("sentinel") => Some("url = \"redis-sentinel://127.0.0.1:26379/main\""),
        Some("tls") => Some("url = \"rediss://127.0.0.1:6379\""),
        _ if table != "store" || matches!(inner, "username" | "password") => {
            Some("url = \"redis://127.0.0.1:6379\"")
        }
        _ => None,
    }
}

/// What the reader makes of the least configuration with a key, or without it: the configuration,
/// and the paths of its problems.
fn read(path: &str, value: Option<&str>) -> (String, String) {
    let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
    let tables = least(path);
    // What is of no table stands before all tables.
    let mut text = match value {
        Some(value) if table.is_empty() => format!("{key} = {value}\n"),
        _ => String::new(),
    };
    let mut is_written = table.is_empty();
    for (name, lines) in tables {
        match name {
            "upstreams.NAME.servers" | "upstreams.NAME.readers" | "routes.NAME.split" => {
                writeln!(text, "[[{name}]]").unwrap()
            }
            _ => writeln!(text, "[{name}]").unwrap(),
        }
        let is_own = name == table;
        is_written |= is_own;
        for line in lines {
            if !(is_own && line.starts_with(&format!("{key} = "))) {
                writeln!(text, "{line}").unwrap();
            }
        }
        if let (true, Some(value)) = (is_own, value) {
            writeln!(text, "{key} = {value}").unwrap();
        }
    }
    if !is_written {
        writeln!(text, "[{table}]").unwrap();
        if let Some(value) = value {
            writeln!(text, "{key} = {value}").unwrap();
        }
    }
    match parse("gateway.toml", Path::new(""), &text, &|_| None) {
        Ok(loaded) => (format!("{:?}", loaded.config), loaded.source.render(&loaded.problems)),
        Err(error) => (String::new(), error),
    }
}

/// The default of a key: of the values that gateway.toml shows, the one that makes no difference.
fn default(path: &str, shown: &BTreeMap<String, Vec<String>>) -> String {
    let key = path.rsplit('.').next().unwrap();
    let (without, problems) = read(path, None);
    if problems.contains(&format!(".{key}: is missing")) {
        return "needed".to_owned();
    }
    let plain = ["false", "true", "[]", "{}", "\"0s\"", "1"].map(str::to_owned);
    // Files that are not there would make no difference either.
    let shown = shown.get(key).filter(|_| path != "include");
    let candidates = shown.into_iter().flatten().chain(&plain);
    let clean = |text: &str| text.lines().filter(|line| !line.contains(" problem")).count();
    let makes_none = |value: &&String| {
        let (with, more) = read(path, Some(value));
        let is_refused = more.contains(&format!(".{key}: "));
        with == without && !is_refused && clean(&more) == clean(&problems)
    };
    let found = candidates.filter(|value| !value.is_empty()).find(makes_none);
    found.map_or("–".to_owned(), |value| format!("`{value}`"))
}

fn keys(page: &mut String) {
    let shown = shown_values();
    let mut table = String::new();
    for path in known_keys() {
        let section = path.split('.').next().unwrap();
        if section != table {
            table = section.to_owned();
            write!(page, "\n| `{table}` | default |\n|---|---|\n").unwrap();
        }
        writeln!(page, "| `{path}` | {} |", default(&path, &shown)).unwrap();
    }
}

// --- Error codes ---------------------------------------------------------------------------------

fn source(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The arms of the `match` in a function, those of inner ones included: the `Type::Variant`s of
/// each alternative, inner ones first, and the value.
fn arms(source: &str, function: &str) -> Vec<(Vec<String>, String)> {
    let (_, rest) = source.split_once(&format!("fn {function}(")).expect(function);
    let (body, _) = rest.split_once("\n    }\n").expect("its end");
    let code = body.lines().filter(|line| !line.trim_start().starts_with("//"));
    let flat = code.collect::<Vec<_>>().join(" ").replace("{ .. }", "");
    let mut arms = Vec::new();
    let pieces: Vec<&str> = flat.split("=>").collect();
    for two in pieces.windows(2) {
        // Behind the value of the arm before, or behind the brace that opens the match.
        let pattern = two[0].rsplit(['}', '"', ',', ';']).find(|part| part.contains("::"));
        let value = two[1].trim_start_matches([' ', '{']).split([',', '}']).next().unwrap().trim();
        for alternative in pattern.unwrap_or_default().split(" | ") {
            let is_path = |c: char| c.is_alphanumeric() || c == ':' || c == '_';
            let names = alternative.split(|c| !is_path(c)).filter(|name| name.contains("::"));
            let mut names: Vec<String> = names.map(str::to_owned).collect();
            names.reverse();
            arms.push((names, value.to_owned()));
        }
    }
    arms
}

/// The codes of a type and their statuses, as its functions `code` and `status` say.
fn pairs(source: &str) -> BTreeSet<(String, String)> {
    let statuses = arms(source, "status");
    let status = |names: &[String]| {
        let of = |name: &String| statuses.iter().find(|(known, _)| known.first() == Some(name));
        let (_, value) = names.iter().find_map(of).unwrap_or_else(|| panic!("{names:?}"));
        number(value)
    };
    let codes = arms(source, "code").into_iter().filter(|(_, value)| value.starts_with('"'));
    codes.map(|(names, code)| (code.trim_matches('"').to_owned(), status(&names))).collect()
}

/// `StatusCode::NOT_FOUND` as `404`.
fn number(value: &str) -> String {
    let Some(name) = value.strip_prefix("StatusCode::") else { return value.to_owned() };
    let words = name.replace('_', " ");
    let known = (400..600).filter_map(|code| http::StatusCode::from_u16(code).ok());
    let mut found = known.filter(|code| {
        let reason = code.canonical_reason().unwrap_or_default();
        reason.to_ascii_uppercase().replace('-', " ") == words
    });
    found.next().unwrap_or_else(|| panic!("{name} is no status")).as_str().to_owned()
}

fn proxy_codes() -> BTreeSet<(String, String)> {
    let rows = source("src/proxy/rejection/rows.rs");
    let mut all = beside_statuses(&rows);
    all.extend(beside_statuses(&source("src/proxy/rejection/delivery_rows.rs")));
    all.extend(beside_statuses(&source("src/proxy/rejection/event_rows.rs")));
    all.extend(beside_statuses(&source("src/proxy/rejection/login_rows.rs")));
    all.extend(beside_statuses(&source("src/proxy/rejection/signed_rows.rs")));
    // Some have the status that the configuration says.
    let configured = rows.split("Row::new(*status, \"").skip(1);
    let configured = configured.filter_map(|rest| rest.split_once('"'));
    all.extend(configured.map(|(code, _)| (code.to_owned(), "its own".to_owned())));
    all.extend(pairs(&source("src/auth/challenge.rs")));
    all
}

fn admin_codes() -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir(Path::new(ROOT).join("src/admin")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            all.extend(beside_statuses(&std::fs::read_to_string(path).unwrap()));
        }
    }
    all
}

/// The codes that stand beside a status anywhere in a source, and these statuses.
fn beside_statuses(source: &str) -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    let flat = source.split_whitespace().collect::<Vec<_>>().join(" ");
    for rest in flat.split("StatusCode::").skip(1) {
        let Some((status, rest)) = rest.split_once(", ") else { continue };
        let rest = rest.strip_prefix("code: ").unwrap_or(rest);
        let code = rest.strip_prefix('"').and_then(|rest| rest.split('"').next());
        let is_code = |code: &&str| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let is_status = status.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        if let Some(code) = code.filter(|code| is_status && is_code(code)) {
            all.insert((code.to_owned(), number(&format!("StatusCode::{status}"))));
        }
    }
    all
}

/// What the page says of each code, by the heading above it, code and status.
fn told(old: &str) -> BTreeMap<(String, String, String), String> {
    let mut told = BTreeMap::new();
    let mut section = String::new();
    for line in old.lines() {
        if line.starts_with('#') {
            section = line.trim_start_matches(['#', ' ']).to_owned();
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if let [code, status, when] = cells[..] {
            let section = match &*section {
                "Error codes" => "proxy",
                "From the admin API" => "admin",
                _ => "head",
            };
            let code = code.trim_matches('`').to_owned();
            told.insert((section.to_owned(), code, status.to_owned()), when.to_owned());
        }
    }
    told
}

fn codes(
    page: &mut String,
    section: &str,
    told: &BTreeMap<(String, String, String), String>,
    codes: &BTreeSet<(String, String)>,
) {
    assert!(codes.len() > 5, "{section} has only {codes:?}");
    page.push_str("| code | status | when |\n|---|---|---|\n");
    for (code, status) in codes {
        let key = (section.to_owned(), code.clone(), status.clone());
        let when = told.get(&key).map_or("…", String::as_str);
        writeln!(page, "| `{code}` | {status} | {when} |").unwrap();
    }
}

// --- Metrics -------------------------------------------------------------------------------------

/// What the metrics of callers tell of.
const IDENTITY: &str = r#"
[session]
id_from = ["cookie:sid"]
make = {}
[routes.signin]
path = "/signin"
upstream = "shop"
issues = { session = true, sub = "/id" }
[auth.partners]
from = ["header:x-api-key"]
api_keys = true
[routes.keys]
path = "/keys"
upstream = "shop"
auth = "partners"
[routes.session]
path = "/session"
upstream = "shop"
session = true
[signers.main]
issuer = "https://gw.test"
keys = ["file:signing.pem"]
tokens = { audience = ["shop"] }
[routes.token]
path = "/token"
answers = "refresh"
"#;

/// A gateway that has something to count of every kind.
fn counting() -> (Redis, Upstream, Issuer, Gateway) {
    let redis = Redis::start();
    let upstream = Upstream::with(|request, connection| {
        let head = if request.target() == "/cached" { "" } else { "\r\nCache-Control: no-store" };
        let answer = response(&format!("200 OK{head}"), "hello");
        let _ = std::io::Write::write_all(connection, answer.as_bytes());
    });
    let issuer = Issuer::plain(&[&Signer::new("a")]);
    let dns = NameServer::start();
    dns.set("shop.test", 300, &[Record::Address(Ipv4Addr::LOCALHOST)]);
    let (authority, folder) = (CertificateAuthority::new(), Folder::new());
    let pair = authority.issue(&["shop.test"]);
    folder.write("site.pem", &pair.cert);
    folder.write("site.key", &pair.key);
    folder.write("signing.pem", portcullis::signing::new_key().expect("a key").0);
    let gateway = Gateway::start_in(
        folder,
        &format!(
            r#"{AUTH}{}eject = {{}}
breaker = {{}}
retry = {{}}
hedge = "p95"
[upstreams.named]
servers = ["http://shop.test:3000"]
dns_servers = ["{}"]
[store]
url = "{}"
[store.operator]
username = "default"
password = "any"
[server.tls]
listen = ["127.0.0.1:0"]
certificates = [{{ cert = "site.pem", key = "site.key" }}]
[auth.published]
algorithms = ["ES256"]
jwks_url = "{}"
[limits.tight]
key = ["address"]
allow = ["1000/1h"]
[routes.private]
path = "/private"
upstream = "shop"
auth = "published"
[routes.cached]
path = "/cached/*"
upstream = "shop"
limits = ["tight"]
cache = {{ ttl = "1h", shared = true }}
[routes.live]
path = "/live"
upstream = "shop"
upgrade = ["websocket"]
[upstreams.next]
servers = ["http://127.0.0.1:1"]
[routes.split]
path = "/split"
split = [{{ upstream = "shop", weight = 1 }}, {{ upstream = "next", weight = 0 }}]
[routes.mirrored]
path = "/mirrored"
upstream = "shop"
mirror = {{ upstream = "next" }}
[queues.mail]
[events.products]
from = "stream:shop:events"
purge = ["/products/{{id}}"]
[telemetry.traces]
endpoint = "http://127.0.0.1:1"
{IDENTITY}"#,
            upstream.table("shop"),
            dns.address(),
            redis.url(),
            issuer.url(),
        ),
    );
    let good = token(claims("42"));
    let get = |path: &str| Client::get(gateway.public, path);
    for path in ["/cached/not", "/private"] {
        get(path).bearer(&good).send();
    }
    eventually("it is stored", || {
        let reply = get("/cached").send();
        reply.header("cache-status").is_some_and(|status| status.contains("; hit"))
    });
    get("/keys").header("x-api-key", "nobody's").send();
    get("/session").send();
    // No answer that says who it is.
    get("/signin").send();
    for (path, body) in [
        ("/v1/revocations", r#"{"jti": "a"}"#),
        ("/v1/cache/purge", r#"{"tag": "a"}"#),
        ("/v1/families", r#"{"sub": "42"}"#),
    ] {
        assert!(operate(&gateway, "POST", path, body).status < 300, "{path}");
    }
    (redis, upstream, issuer, gateway)
}

fn metrics(page: &mut String) {
    let (_redis, _upstream, _issuer, gateway) = counting();
    let scrape = || Client::get(gateway.admin, "/metrics").send().text();
    let labels = |read: &Exposition, family: &str| {
        let names = [family.to_owned(), format!("{family}_count")];
        let series = read.series.keys().find(|(name, _)| names.contains(name));
        series.map(|(_, labels)| {
            labels.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",")
        })
    };
    let mut text = String::new();
    eventually("every family has a series", || {
        text = scrape();
        let read = Exposition::text(&text);
        read.families.keys().all(|family| labels(&read, family).is_some())
    });
    let read = Exposition::text(&text);
    page.push_str("| metric | type | what it is |\n|---|---|---|\n");
    for (family, kind) in &read.families {
        let help = text.lines().find_map(|line| {
            let (_, rest) = line.split_once("# HELP ")?;
            rest.strip_prefix(&format!("{family} ")).map(|help| help.trim_end_matches('.'))
        });
        let labels = labels(&read, family).unwrap_or_default();
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let help = help.unwrap_or_default();
        writeln!(page, "| `{family}{labels}` | {kind} | {help} |").unwrap();
    }
}

#[test]
fn every_metric_that_a_page_names_is_one() {
    let known = pages::page(PAGE).text;
    for page in pages::all().iter().filter(|page| page.path != PAGE) {
        for rest in page.text.split("portcullis_").skip(1) {
            let end =
                rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
            let name = rest[..end].trim_end_matches("_bucket");
            assert!(known.contains(&format!("`portcullis_{name}")), "{}: {name}", page.path);
        }
    }
}
