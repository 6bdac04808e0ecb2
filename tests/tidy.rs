//! The house rules that no compiler checks: who may import whom, what every file begins with, how
//! long things get, what must not be left behind, and that the reference configuration is complete.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Most columns of a line, in characters.
const COLUMNS_MAX: usize = 100;
/// Most lines of a file under `src`.
const LINES_MAX: usize = 600;

/// Modules by rank: imports go strictly downwards, so modules of one rank never import each other.
const RANKS: [(&str, u8); 26] = [
    ("base", 0),
    ("config", 1),
    ("observe", 1),
    ("store", 2),
    ("forwarding", 3),
    ("guard", 3),
    ("route", 3),
    ("auth", 3),
    ("background", 2),
    ("session", 3),
    ("limit", 3),
    ("cache", 3),
    ("upstream", 3),
    ("plan", 4),
    ("issuer", 4),
    ("caching", 5),
    ("runtime", 6),
    ("proxy", 7),
    ("warm", 7),
    ("server", 8),
    ("admin", 8),
    ("startup", 9),
    ("demo", 10),
    ("cli", 11),
    ("main", 12),
    ("lib", 10),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under these folders, by its path from the root, and its text.
fn sources(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            waiting.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
        }
    }
    found.sort();
    assert!(found.len() > 10, "{folders:?} has only {} files", found.len());
    found
}

/// The module under `src` that a file belongs to: `src/auth/keys.rs` is of `auth`.
fn module(path: &Path) -> String {
    let first = path.iter().nth(1).unwrap().to_str().unwrap();
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

/// Whether a file, or the rest of it, is only there for its module's own tests.
fn without_tests<'a>(path: &Path, text: &'a str) -> &'a str {
    let is_test = path.iter().any(|part| part == "tests" || part == "tests.rs");
    let end = if is_test { Some(0) } else { text.find("#[cfg(test)]\nmod tests {") };
    &text[..end.unwrap_or(text.len())]
}

/// The first names after `crate::` in `text`, those in braces and over several lines included.
fn imports(text: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let word = |text: &str| text.split(|c: char| !is_word(c)).next().unwrap().to_owned();
    let mut names = BTreeSet::new();
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let before = code[..at].chars().next_back();
        if before.is_some_and(is_word) || before == Some('$') {
            continue;
        }
        let Some(inner) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let mut depth = 1;
        let mut item = String::new();
        for c in inner.chars() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if depth == 0 || (depth == 1 && c == ',') {
                names.insert(word(item.trim()));
                item.clear();
            } else {
                item.push(c);
            }
            if depth == 0 {
                break;
            }
        }
    }
    names.remove("");
    names
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::a::B;\n// use crate::no;\nuse crate::{c, d::{E, F},\n    g as h};\n\
                fn f(x: &crate::i::J) -> mycrate::K { crate::l() }\n";
    let expected = ["a", "c", "d", "g", "i", "l"].map(str::to_owned);
    assert_eq!(imports(text), BTreeSet::from(expected));
}

#[test]
fn imports_go_downwards() {
    let ranks: BTreeMap<&str, u8> = RANKS.into_iter().collect();
    let rank = |module: &str, path: &Path| {
        *ranks.get(module).unwrap_or_else(|| panic!("{}: `{module}` has no rank", path.display()))
    };
    let mut wrong = Vec::new();
    for (path, text) in sources(&["src"]) {
        let own = module(&path);
        let from = rank(&own, &path);
        for other in imports(without_tests(&path, &text)) {
            if other != own && rank(&other, &path) >= from {
                wrong.push(format!("{} (rank {from}) imports {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports go strictly downwards:\n{}", wrong.join("\n"));
}

#[test]
fn there_are_no_circles() {
    let mut below: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in sources(&["src"]) {
        let own = module(&path);
        let mut others = imports(without_tests(&path, &text));
        others.remove(&own);
        below.entry(own).or_default().extend(others);
    }
    // Takes away what imports nothing that is left, until nothing can be taken.
    while let Some(leaf) = below
        .iter()
        .find(|(_, others)| !others.iter().any(|other| below.contains_key(other)))
        .map(|(module, _)| module.clone())
    {
        below.remove(&leaf);
    }
    assert!(below.is_empty(), "these import each other in a circle: {below:?}");
}

/// What only the cache's room may call of the store: whoever else did would read past purges that
/// the store has not taken yet.
const OF_THE_CACHE: [&str; 13] = [
    "variants",
    "epochs",
    "tags",
    "known_epochs",
    "remember",
    "write_chunks",
    "extend_chunks",
    "chunks",
    "has_chunks",
    "drop_chunks",
    "purge",
    "withdraw_all",
    "found",
];

#[test]
fn only_the_cache_asks_the_store_about_the_cache() {
    let mut wrong = Vec::new();
    for (path, text) in sources(&["src"]) {
        if matches!(&*module(&path), "caching" | "store") {
            continue;
        }
        // A call may stand on a line of its own.
        let code: String = text.split_whitespace().collect();
        for name in OF_THE_CACHE {
            if code.contains(&format!("store.{name}(")) {
                wrong.push(format!("{} calls store.{name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "by way of caching::HttpCache, please:\n{}", wrong.join("\n"));
}

#[test]
fn every_rank_is_of_a_module() {
    let modules: BTreeSet<String> = sources(&["src"]).iter().map(|(p, _)| module(p)).collect();
    for (name, _) in RANKS {
        assert!(modules.contains(name), "there is no module {name}");
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for (path, text) in sources(&["src", "tests"]) {
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! "), "{} has no `//!` header", path.display());
        assert!(first.len() > 20, "the header of {} says nothing", path.display());
    }
}

#[test]
fn lines_and_files_are_short() {
    let mut long = Vec::new();
    for (path, text) in sources(&["src", "tests", "benches"]) {
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX {
                long.push(format!("{}:{}", path.display(), number + 1));
            }
        }
        let lines = text.lines().count();
        if path.starts_with("src") && lines > LINES_MAX {
            long.push(format!("{} has {lines} lines", path.display()));
        }
    }
    assert!(long.is_empty(), "too long:\n{}", long.join("\n"));
}

#[test]
fn nothing_is_left_behind() {
    // In pieces, so that this file does not find itself.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["HA", "CK"]].map(|two| two.concat());
    let machines = ["/home/", "/root/", "/Users/"].map(|path| path.to_owned());
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut left = Vec::new();
    for (path, text) in sources(&["src", "tests", "benches"]) {
        if path.ends_with("tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split(|c| !is_word(c)).collect();
            let marked = marks.iter().any(|mark| words.contains(&mark.as_str()));
            let placed = machines.iter().any(|machine| line.contains(machine.as_str()));
            if marked || placed || line.contains(root().to_str().unwrap()) {
                left.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
}

/// The keys that `gateway.toml` shows, commented examples included, with `NAME` for names.
fn shown_keys() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("gateway.toml")).unwrap();
    let mut shown = BTreeSet::new();
    let mut table = String::new();
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let mut parts: Vec<&str> = header.split('.').collect();
            if matches!(parts[0], "auth" | "limits" | "upstreams" | "routes") && parts.len() > 1 {
                parts[1] = "NAME";
            }
            table = parts.join(".");
        } else if let Some((key, value)) = line.split_once(" = ") {
            shown.insert(format!("{table}.{key}"));
            for part in value.split(['{', ',']).filter_map(|part| part.split_once(" = ")) {
                shown.insert(format!("{table}.{key}.{}", part.0.trim()));
            }
        }
    }
    shown
}

#[test]
fn the_reference_configuration_shows_every_key() {
    let shown = shown_keys();
    let known = portcullis::config::known_keys();
    assert!(known.len() > 50, "{known:?}");
    let missing: Vec<_> = known.iter().filter(|key| !shown.contains(*key)).collect();
    assert!(missing.is_empty(), "gateway.toml does not show {missing:?}");
}
