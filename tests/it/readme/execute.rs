//! Every block of the documentation, as a reader copies it: commands run in the order of their
//! page, with a demo or a Redis on free ports, and print what the page shows; configurations are
//! checked.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use super::pages::{self, ROOT};
use super::{BINARY, Demo};
use crate::support::{CertificateAuthority, Folder, Redis, run};

/// Stands between the outputs of two commands.
const MARK: &str = "=== the next block ===";
/// The line of a configuration that names the Redis of a page.
const STORE: &str = "url = \"redis://127.0.0.1:6379\"\n";
/// In an output that a page shows: whatever it may be.
const ANYTHING: char = '…';

/// Commands that are pasted together, and what they print.
struct Example {
    at: String,
    commands: String,
    shown: String,
}

/// The executed blocks of some pages, in their order.
fn examples(paths: &[&str]) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    for block in paths.iter().flat_map(|path| pages::page(path).blocks()) {
        match block.language.as_str() {
            "sh" if block.left_out.is_none() => {
                let (at, commands) = (block.at, block.text);
                examples.push(Example { at, commands, shown: String::new() });
            }
            "text" if block.follows => {
                let example = examples.last_mut().expect("output without commands");
                example.shown = block.text;
            }
            _ => {}
        }
    }
    examples
}

/// Whether an output is the one that a page shows.
fn is_shown(shown: &str, output: &str) -> bool {
    let (shown, output) = (shown.trim_end(), output.trim_end());
    let mut parts = shown.split(ANYTHING);
    let Some(rest) = output.strip_prefix(parts.next().unwrap()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    let mut rest = rest;
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[test]
fn outputs_are_compared() {
    for (shown, output, expected) in [
        ("a\n", "a", true),
        ("a", "ab", false),
        ("", "a", false),
        ("a…c…e", "abcde", true),
        ("a…c…e", "abde", false),
        ("…", "anything\nat all", true),
        ("a…", "b", false),
        ("a…a", "a", false),
    ] {
        assert_eq!(is_shown(shown, output), expected, "{shown:?} {output:?}");
    }
}

/// Replaces numbers that are not part of longer ones.
fn with_ports(text: &str, ports: &[(String, String)]) -> String {
    let mut replaced = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let digits = word.trim_end_matches(|c: char| !c.is_ascii_digit());
        let port = ports.iter().find(|(port, _)| port == digits);
        replaced += port.map_or(digits, |(_, other)| other);
        replaced += &word[digits.len()..];
    }
    replaced
}

/// A port that nothing listens on, outside of those that the system gives away by itself.
fn free_port(taken: &[(String, String)]) -> String {
    let start = 20_000 + (std::process::id() as u16 % 100) * 100;
    let free = (start..32_000).find(|port| {
        let is_taken = taken.iter().any(|(_, other)| *other == port.to_string());
        !is_taken && TcpListener::bind(("127.0.0.1", *port)).is_ok()
    });
    free.expect("a free port").to_string()
}

/// Files of the clone that pages use.
const CLONED: [&str; 2] = ["docs/example/shop.py", "gateway.toml"];

/// What a page's commands need and a reader has: a clone with the binary in the path.
fn clone(folder: &Folder, ports: &[(String, String)]) {
    let clone = folder.path().join("portcullis");
    std::fs::create_dir_all(clone.join("docs/example")).unwrap();
    for file in CLONED {
        let text = std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
        std::fs::write(clone.join(file), with_ports(&text, ports)).unwrap();
    }
}

/// Fails where the commands of pages have left something in the clone, or changed what is there:
/// `scripts/release` stops where it finds what no commit has.
fn is_as_it_was(clone: &Path, paths: &[&str], ports: &[(String, String)]) {
    let mut found = Vec::new();
    let mut folders = vec![clone.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path.strip_prefix(clone).unwrap().to_owned()),
            }
        }
    }
    found.sort();
    let found: Vec<&str> = found.iter().map(|path| path.to_str().unwrap()).collect();
    assert!(found == CLONED, "{paths:?} leave {found:?} in the clone");
    for file in CLONED {
        let text = std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
        let now = std::fs::read_to_string(clone.join(file)).unwrap();
        assert!(now == with_ports(&text, ports), "{paths:?} change {file}");
    }
}

/// What stands before a page's commands: an end for all that they start, and words for what is done
/// already where tests run.
const PRELUDE: &str = r#"
trap 'kill $(jobs -p) 2> /dev/null' EXIT
redis-cli() { command redis-cli -p 6379 "$@"; }
cargo() {
  case "$*" in
    "run --release -- demo" | "build --locked --release") ;;
    "build --locked --profile dist --bin portcullis") ;;
    *) echo "no test knows: cargo $*" ;;
  esac
}
"#;

/// Runs the commands of pages as one story.
fn run_pages(paths: &[&str]) {
    let examples = examples(paths);
    let text: String = paths.iter().map(|path| pages::page(path).text).collect();
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let redis = text.contains("beside `portcullis demo --store redis:").then(Redis::start);
    let store = redis.as_ref().map_or("memory:".to_owned(), Redis::url);
    let demo = text.contains("beside `portcullis demo").then(|| Demo::on(&store));

    let mut ports: Vec<(String, String)> = Vec::new();
    for port in ["8080", "9901", "6379", "3000", "8081", "9902", "8443"] {
        let port_of = |address: String| address.rsplit(':').next().unwrap().to_owned();
        let used = match (port, &demo, &redis) {
            ("8080", Some(demo), _) => port_of(demo.address("a gateway on http://")),
            ("9901", Some(demo), _) => port_of(demo.address("  curl http://")),
            ("6379", _, Some(redis)) => redis.address().port().to_string(),
            _ => free_port(&ports),
        };
        ports.push((port.to_owned(), used));
    }
    let folder = Folder::new();
    clone(&folder, &ports);
    let mut script = PRELUDE.to_owned();
    for name in ["setup", "test"] {
        script += &format!("scripts/{name}() {{ test -x {ROOT}/scripts/{name}; }}\n");
    }
    script += &demo.as_ref().map(Demo::tokens).unwrap_or_default();
    for example in &examples {
        // A machine that runs many tests is slower than a store may be.
        let patient = example.commands.replace(STORE, &format!("{STORE}timeout = \"10s\"\n"));
        script += &format!("{patient}printf '\\n%s\\n' '{MARK}'\n");
    }
    let binaries = Path::new(BINARY).parent().unwrap().display();
    let path = format!("{binaries}:{}", std::env::var("PATH").unwrap());
    let ran = Command::new("bash")
        .args(["-c", &with_ports(&script, &ports)])
        .current_dir(folder.path().join("portcullis"))
        .env("PATH", path)
        .output()
        .unwrap();
    is_as_it_was(&folder.path().join("portcullis"), paths, &ports);
    let back: Vec<(String, String)> = ports.into_iter().map(|(port, own)| (own, port)).collect();
    let text = |bytes: &[u8]| with_ports(&String::from_utf8_lossy(bytes).replace('\r', ""), &back);
    let (output, complaints) = (text(&ran.stdout), text(&ran.stderr));
    let outputs: Vec<&str> = output.split(&format!("\n{MARK}\n")).collect();
    assert_eq!(outputs.len(), examples.len() + 1, "{output}\n{complaints}");
    for (Example { at, commands, shown }, output) in examples.iter().zip(outputs) {
        assert!(
            is_shown(shown, output),
            "{at}:\n{commands}--- the page shows\n{shown}--- it prints\n{output}\n{complaints}"
        );
    }
}

#[test]
fn one_gets_from_the_readme_to_the_end_of_the_tutorial() {
    run_pages(&["README.md", "docs/tutorial.md"]);
}

#[test]
fn the_page_on_the_cache_is_true() {
    run_pages(&["docs/cache.md"]);
}

#[test]
fn the_page_on_configuration_is_true() {
    run_pages(&["docs/configuration.md"]);
}

#[test]
fn the_page_on_converting_is_true() {
    run_pages(&["docs/converting.md"]);
}

#[test]
fn the_page_on_delivery_is_true() {
    run_pages(&["docs/delivery.md"]);
}

#[test]
fn the_page_on_deployment_is_true() {
    run_pages(&["docs/deployment.md"]);
}

#[test]
fn the_page_on_the_edge_is_true() {
    run_pages(&["docs/edge.md"]);
}

#[test]
fn the_page_on_events_is_true() {
    run_pages(&["docs/events.md"]);
}

#[test]
fn the_page_on_identity_is_true() {
    run_pages(&["docs/identity.md"]);
}

#[test]
fn the_page_on_limits_is_true() {
    run_pages(&["docs/limits.md"]);
}

#[test]
fn the_page_on_logs_is_true() {
    run_pages(&["docs/logs.md"]);
}

#[test]
fn the_page_on_metrics_is_true() {
    run_pages(&["docs/metrics.md"]);
}

#[test]
fn the_page_on_operations_is_true() {
    run_pages(&["docs/operations.md"]);
}

#[test]
fn the_page_on_redis_is_true() {
    run_pages(&["docs/redis.md"]);
}

#[test]
fn the_page_on_sessions_is_true() {
    run_pages(&["docs/sessions.md"]);
}

#[test]
fn the_page_on_log_ins_is_true() {
    run_pages(&["docs/login.md"]);
}

#[test]
fn the_page_on_tokens_is_true() {
    run_pages(&["docs/tokens.md"]);
}

#[test]
fn the_page_on_upstreams_is_true() {
    run_pages(&["docs/upstreams.md"]);
}

#[test]
fn no_page_with_commands_is_forgotten() {
    let this = include_str!("execute.rs");
    for page in pages::all() {
        let has_commands = !examples(&[&page.path]).is_empty();
        let is_run = this.contains(&format!("run_pages(&[\"{}\"", page.path))
            || this.contains(&format!(", \"{}\"]);", page.path));
        assert!(is_run || !has_commands, "write a test that runs {}", page.path);
    }
}

#[test]
fn blocks_are_of_a_known_kind_and_left_out_for_a_reason() {
    for block in pages::all().iter().flat_map(pages::Page::blocks) {
        let (at, language) = (&block.at, block.language.as_str());
        let known = ["sh", "text", "toml", "js", "ts", "nginx", "proto", "conf"];
        assert!(known.contains(&language), "{at}: what is {language:?}?");
        if let Some(reason) = &block.left_out {
            assert!(language == "sh" && reason.len() > 10, "{at}: {reason:?}");
        }
    }
}

/// What configurations in pages may refer to without showing it; a table is added where the block
/// has none of its kind or name.
const REST: [(&str, &str); 6] = [
    ("[upstreams.shop]", "servers = [\"http://127.0.0.1:3000\"]"),
    (
        "[auth.users]",
        "issuer = \"https://login.test\"\nalgorithms = [\"HS256\"]\n\
         secret = \"32-random-bytes-32-random-bytes-!\"",
    ),
    ("[limits.api]", "key = [\"address\"]\nallow = [\"100/15m\"]"),
    ("[limits.login]", "key = [\"address\"]\nallow = [\"5/15m\"]"),
    ("[session]", "id_from = [\"cookie:sid\"]"),
    ("[routes.", "all]\npath = \"/all/*\"\nupstream = \"shop\""),
];

#[test]
fn every_configuration_is_one() {
    let mut checked = 0;
    let authority = CertificateAuthority::new();
    let site = authority.issue(&["shop.test"]);
    let (signing, _) = portcullis::signing::new_key().expect("a key");
    for block in pages::all().iter().flat_map(pages::Page::blocks) {
        if block.language != "toml" {
            continue;
        }
        let config = block.text.replace("env:REDIS_PASSWORD", "secret");
        let config = config.replace("env:REDIS_OPERATOR_PASSWORD", "secret");
        let config = config.replace("env:NATS_PASSWORD", "secret");
        let config = config.replace("env:WEBHOOK_SECRET", "0123456789abcdef");
        let config = config.replace("env:JWT_SECRET", "32-random-bytes-32-random-bytes-!");
        let config = config.replace("env:OIDC_SECRET", "secret");
        let mut config = config.replace("env:SENTINEL_PASSWORD", "secret");
        for (table, lines) in REST {
            if !config.contains(table) {
                let between = if table.ends_with(']') { "\n" } else { "" };
                config += &format!("\n{table}{between}{lines}\n");
            }
        }
        let folder = Folder::new();
        folder.write("gateway.toml", &config);
        folder.write("site.pem", &site.cert);
        folder.write("site.key", &site.key);
        folder.write("clients.pem", &authority.pem);
        folder.write("redis-ca.pem", &authority.pem);
        folder.write("gateway.pem", &site.cert);
        folder.write("gateway.key", &site.key);
        folder.write("signing.pem", &signing);
        folder.write("session.key", "ab".repeat(32));
        folder.write("tls.key", "0123456789abcdef".repeat(4));
        folder.write("admin.token", "0123456789abcdef".repeat(4));
        let ran = run(&folder, &["check"]);
        assert_eq!(ran.code, Some(0), "{}:\n{}\n{config}", block.at, ran.stderr);
        checked += 1;
    }
    assert!(checked > 20, "only {checked} configurations");
}
