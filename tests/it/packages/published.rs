//! `scripts/release`: what it makes is the same each time, says what is in it, and runs.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::{ROOT, file, release, said, tool, version};
use crate::support::{BINARY, Folder};

/// Validates a file by the schema of CycloneDX, and prints what is wrong with it.
const VALIDATOR: &str = r#"
import json, sys, warnings
warnings.simplefilter("ignore")
import jsonschema
folder, name = sys.argv[1:]
load = lambda name: json.load(open(f"{folder}/{name}.SNAPSHOT.schema.json"))
schema = load("bom-1.6")
beside = {f"http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json": load(name)
          for name in ("spdx", "jsf-0.82")}
resolver = jsonschema.RefResolver.from_schema(schema, store=beside)
validator = jsonschema.Draft7Validator(schema, resolver=resolver)
for error in validator.iter_errors(json.load(open(name))):
    print("/".join(str(part) for part in error.absolute_path), error.message[:200])
"#;

fn faults(name: &str, folder: &Path) -> String {
    let schemas = format!("{ROOT}/target/cyclonedx");
    said("python3", &["-c", VALIDATOR, &schemas, name], folder)
}

/// `name version` of each component.
fn components(sbom: &Value) -> BTreeSet<String> {
    let each = sbom["components"].as_array().unwrap().iter();
    let named = each
        .map(|it| format!("{} {}", it["name"].as_str().unwrap(), it["version"].as_str().unwrap()));
    named.collect()
}

/// Crates whose sources the program itself names, in the messages of its panics.
fn named_by_the_program() -> BTreeSet<String> {
    const SOURCE: &str = "registry/src/[^/]+/[A-Za-z0-9_.+-]+/";
    let found = said("grep", &["-aohE", SOURCE, BINARY], Path::new("/"));
    let folders = found.lines().filter_map(|line| line.trim_end_matches('/').rsplit('/').next());
    let named = folders.filter_map(|folder| {
        // A version begins behind the first hyphen before a digit.
        let (at, _) = folder.match_indices('-').find(|(at, _)| {
            folder[at + 1..].starts_with(|c: char| c.is_ascii_digit())
                && folder[*at..].contains('.')
        })?;
        Some(format!("{} {}", &folder[..at], &folder[at + 1..]))
    });
    named.collect()
}

/// `name version` and the checksum of each crate of the lock file.
fn locked() -> Vec<(String, Option<String>)> {
    let lock = std::fs::read_to_string(format!("{ROOT}/Cargo.lock")).unwrap();
    let field = |block: &str, key: &str| {
        let begin = format!("{key} = \"");
        let value = block.lines().find_map(|line| line.strip_prefix(begin.as_str()));
        value.map(|value| value.trim_end_matches('"').to_owned())
    };
    let blocks = lock.split("\n[[package]]\n").skip(1);
    let name = |block: &str| {
        format!("{} {}", field(block, "name").unwrap(), field(block, "version").unwrap())
    };
    blocks.map(|block| (name(block), field(block, "checksum"))).collect()
}

#[test]
fn a_release_is_made_twice_alike_and_says_all_that_is_in_it() {
    let folder = Folder::new();
    let parts = "tarball,sbom,licenses";
    let told = release(folder.path(), &["--only", parts, "--check-reproducible"]);
    assert!(told.contains("every byte is the same"), "{told}");
    let sums = said("sha256sum", &["--check", "SHA256SUMS"], folder.path());
    assert_eq!(sums.lines().filter(|line| line.ends_with(": OK")).count(), 3, "{sums}");

    let name = file(folder.path(), ".cdx.json");
    let text = std::fs::read_to_string(&name).unwrap();
    assert_eq!(faults(&name, folder.path()), "");
    folder.write("wrong.json", text.replace("\"library\"", "\"libary\""));
    assert_ne!(faults("wrong.json", folder.path()), "", "the validator takes anything");
    let sbom: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(sbom["metadata"]["component"]["version"], version());
    let listed = components(&sbom);
    let named = named_by_the_program();
    assert!(named.len() > 50, "{named:?}");
    let missing: Vec<_> = named.difference(&listed).collect();
    assert!(missing.is_empty(), "linked, and not listed: {missing:?}");
    let locked = locked();
    for component in sbom["components"].as_array().unwrap() {
        let (name, own) = (&component["name"], component["version"].as_str().unwrap());
        let name = name.as_str().unwrap();
        let of = locked.iter().find(|(it, _)| *it == format!("{name} {own}"));
        assert!(of.is_some() || name == "rust-std", "{name} {own} is not in the lock file");
        let sum = component["hashes"][0]["content"].as_str().map(str::to_owned);
        assert_eq!(of.and_then(|(_, sum)| sum.clone()), sum, "{name} {own}");
    }
    assert!(!listed.iter().any(|it| it.starts_with("proptest ")), "what only tests use is listed");

    let licences = std::fs::read_to_string(folder.path().join("THIRD-PARTY-LICENSES")).unwrap();
    let (list, texts) = licences.split_once("\n====").unwrap();
    for name in listed.iter().filter(|name| !name.starts_with("rust-std ")) {
        assert!(list.contains(&format!("\n  {name}: ")), "{name} has no licence");
        assert!(texts.contains(&format!("\n{name} (")), "{name} has no text of a licence");
    }
    archive(folder.path());
}

/// The archive has one folder with everything, of root, and what is in it runs.
fn archive(folder: &Path) {
    let name = file(folder, ".tar.gz");
    let list = said("tar", &["--numeric-owner", "-tvzf", &name], folder);
    assert!(list.lines().all(|line| line.contains(" 0/0 ")), "{list}");
    assert!(list.lines().all(|line| line.contains(" 2023-11-14 ")), "{list}");
    said("tar", &["-xzf", &name], folder);
    let top = name.rsplit('/').next().unwrap().trim_end_matches(".tar.gz");
    let tree = folder.join(top);
    for path in [
        "LICENSE",
        "SECURITY.md",
        "THIRD-PARTY-LICENSES",
        "completions/_portcullis",
        "completions/portcullis.bash",
        "completions/portcullis.fish",
        "man/man1/portcullis-run.1",
        "portcullis.cdx.json",
        "systemd/portcullis.service",
        "systemd/portcullis.socket",
    ] {
        assert!(tree.join(path).is_file(), "{path} is missing:\n{list}");
    }
    let program = tree.join("portcullis");
    let told = said(program.to_str().unwrap(), &["--version"], folder);
    assert!(told.starts_with(&format!("portcullis {}", version())), "{told}");
    let checked = tool(program.to_str().unwrap(), &["check"], &tree);
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn what_cannot_be_packed_is_told_in_one_line() {
    let folder = Folder::new();
    let script = format!("{ROOT}/scripts/release");
    for (arguments, expected) in [
        (
            ["--only", "rpm", "--fast"],
            "release: --only knows tarball, deb, sbom, licenses, and not rpm\n",
        ),
        (["--binary", "gone", "--fast"], "release: there is no file gone\n"),
    ] {
        let refused = tool(&script, &arguments, folder.path());
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert_eq!(String::from_utf8_lossy(&refused.stderr), expected);
    }
}
