//! `gateway.toml` in the root: it loads, its examples are keys, and it shows every key.

use super::*;

#[test]
fn the_reference_file_loads_without_a_problem() {
    let env = |_: &str| None;
    let loaded = parse("gateway.toml", Path::new("/nonexistent"), REFERENCE, &env).unwrap();
    assert_eq!(loaded.source.render(&loaded.problems), "0 problems in gateway.toml\n");
    let secret = match &loaded.config.auth["users"].keys {
        Some(KeySource::Secret(secret)) => secret.expose().len(),
        other => panic!("{other:?}"),
    };
    assert!(secret >= 32);
    // What the file shows for tables with defaults is the default.
    let default = read("").config;
    let shown = loaded.config;
    assert_eq!((shown.server, shown.log), (default.server, default.log));
    assert_eq!((shown.admin, shown.store), (default.admin, default.store));
}

#[test]
fn the_commented_examples_are_keys_of_their_tables() {
    fn example(line: &str) -> Option<&str> {
        let line = line.strip_prefix("# ")?;
        if line.starts_with('[') && line.ends_with(']') {
            return Some(line);
        }
        let (key, _) = line.split_once(" = ")?;
        key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_').then_some(line)
    }
    let lines: Vec<&str> = REFERENCE.lines().map(|l| example(l).unwrap_or(l)).collect();
    let loaded = read(&lines.join("\n"));
    let report = loaded.source.render(&loaded.problems);
    assert!(!report.contains("unknown key"), "{report}");
    // Four sources of keys too many, algorithms of tokens that are asked about, forty-nine files
    // and twenty-two variables that are not there, a token, an nkey and credentials beside a
    // password, a user who may look into memory, a query's parameters named both ways, a path
    // rewritten both ways, TLS for servers and for four stores in clear, a split beside an
    // upstream, sentinels and other addresses of four stores that have none, the store of queues
    // named both ways, a health check by path and by gRPC, which HTTP/1.1 does not carry, lines on
    // stdout that a file of them rotates, a log-in that gives two things, and a provider's token
    // that is passed on and not renewed.
    assert_eq!(loaded.problems.len(), 99, "{report}");
}

/// The keys that stand in the reference file, as `table.key` with `NAME` for names.
fn shown_keys() -> Vec<String> {
    let mut shown = Vec::new();
    let mut table = String::new();
    for line in REFERENCE.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if line.starts_with('[') && line.ends_with(']') {
            let mut parts: Vec<&str> = line.trim_matches(['[', ']']).split('.').collect();
            const NAMED: [&str; 8] = [
                "auth",
                "providers",
                "signers",
                "limits",
                "queues",
                "events",
                "upstreams",
                "routes",
            ];
            if NAMED.contains(&parts[0]) {
                parts[1] = "NAME";
            }
            table = parts.join(".");
            // A list of tables is itself a key.
            shown.push(table.clone());
        } else if let Some((key, value)) = line.split_once(" = ") {
            let dot = if table.is_empty() { "" } else { "." };
            shown.push(format!("{table}{dot}{key}"));
            let inner = value.split(['{', ',']).filter_map(|part| part.split_once(" = "));
            shown.extend(inner.map(|(inner, _)| format!("{table}.{key}.{}", inner.trim())));
        }
    }
    shown
}

#[test]
fn the_reference_file_shows_every_key() {
    let (known, shown) = (known_keys(), shown_keys());
    assert!(known.len() > 70, "{known:?}");
    for sample in ["server.listen", "session.header", "routes.NAME.cache.ttl"] {
        assert!(known.iter().any(|key| key == sample), "{sample}");
    }
    let missing: Vec<_> = known.iter().filter(|key| !shown.contains(key)).collect();
    assert!(missing.is_empty(), "gateway.toml does not show {missing:?}");
}
