//! `portcullis schema`, judged by a validator that is not ours: it takes every configuration that
//! the reader takes, and refuses the mistakes that an editor should show.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use portcullis::config::{known_keys, parse};
use serde_json::Value;

use crate::support::{Folder, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Validates each file and prints what is wrong with it, a line for each fault.
const VALIDATOR: &str = r#"
import json, sys, tomllib
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
for name in sys.argv[2:]:
    document = tomllib.load(open(name, "rb"))
    for error in validator.iter_errors(document):
        leaf = error
        while leaf.context:
            deepest = lambda other: (len(other.absolute_path), other.validator != "type")
            leaf = max(leaf.context, key=deepest)
        path = ".".join(str(part) for part in leaf.absolute_path)
        print(name, leaf.validator, path)
"#;

fn schema() -> String {
    let said = run(&Folder::new(), &["schema"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    said.stdout
}

/// The faults of each text, as `keyword path`.
fn faults(texts: &[String]) -> Vec<Vec<String>> {
    let folder = Folder::new();
    folder.write("schema.json", schema());
    let names: Vec<String> = (0..texts.len()).map(|number| format!("{number}.toml")).collect();
    for (name, text) in names.iter().zip(texts) {
        folder.write(name, text);
    }
    let validated = Command::new("python3")
        .args(["-c", VALIDATOR, "schema.json"])
        .args(&names)
        .current_dir(folder.path())
        .output()
        .expect("python3, which scripts/setup installs");
    let (said, stderr) = (validated.stdout, String::from_utf8_lossy(&validated.stderr));
    assert!(validated.status.success(), "scripts/setup installs what this needs: {stderr}");
    let said = String::from_utf8(said).unwrap();
    let of = |name: &String| {
        let lines = said.lines().filter_map(|line| line.strip_prefix(&format!("{name} ")));
        lines.map(str::to_owned).collect()
    };
    names.iter().map(of).collect()
}

fn reference() -> String {
    std::fs::read_to_string(Path::new(ROOT).join("gateway.toml")).unwrap()
}

/// The reference configuration with all that it shows as a comment.
fn uncommented() -> String {
    let is_key = |line: &str| {
        let key = line.split_once(" = ").map_or("", |(key, _)| key);
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            || line.starts_with('[') && line.ends_with(']')
    };
    let text = reference();
    let lines = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(example) if is_key(example) => example,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The configurations of the documentation, whole or in part.
fn documented() -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(Path::new(ROOT).join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let text = std::fs::read_to_string(path).unwrap();
            let blocks = text.split("\n```toml\n").skip(1);
            found.extend(blocks.filter_map(|rest| Some(rest.split_once("\n```")?.0.to_owned())));
        }
    }
    assert!(found.len() > 20, "{}", found.len());
    found
}

#[test]
fn whatever_the_program_shows_is_valid() {
    let demo = run(&Folder::new(), &["demo", "--print-config"]).stdout;
    let mut texts = vec![reference(), uncommented(), demo];
    for name in ["open", "issuer", "secret"] {
        let path = Path::new(ROOT).join(format!("tests/it/init/{name}.toml"));
        texts.push(std::fs::read_to_string(path).unwrap());
    }
    let whole = texts.len();
    texts.extend(documented());
    for (number, (text, found)) in texts.iter().zip(faults(&texts)).enumerate() {
        // A part may leave out what the rest of its page has.
        let is_part = number >= whole;
        let found: Vec<&String> =
            found.iter().filter(|fault| !(is_part && fault.starts_with("required "))).collect();
        assert!(found.is_empty(), "{found:#?} in\n{text}");
    }
}

/// Mistakes, and what the validator says of them.
const MISTAKES: [(&str, &str); 22] = [
    ("[server]\ndrian = \"30s\"", "additionalProperties server"),
    ("[sever]\ndrain = \"30s\"", "additionalProperties "),
    ("include = \"routes.d\"", "pattern include"),
    ("[server]\ndrain = 30", "type server.drain"),
    ("[server]\ndrain = \"30\"", "pattern server.drain"),
    ("[server]\nlisten = \"0.0.0.0:80\"", "pattern server.listen"),
    ("[server]\nlisten = 80", "type server.listen"),
    ("[server.limits]\nheaders = \"100\"", "pattern server.limits.headers"),
    ("[server.limits]\nheaders = \"${}\"", "pattern server.limits.headers"),
    ("[server.limits]\nheaders = 0", "minimum server.limits.headers"),
    ("[server.limits]\nbody_bytes = \"10MB\"", "pattern server.limits.body_bytes"),
    ("[server]\nforwarded = \"x-forwarder\"", "enum server.forwarded"),
    ("[auth.a]\nalgorithms = [\"HS512\", \"none\"]", "enum auth.a.algorithms.1"),
    ("[upstreams.a.retry]\non = [\"conect\"]", "pattern upstreams.a.retry.on.0"),
    ("[log]\nlevel = \"verbose\"", "enum log.level"),
    ("[limits.a]\nkey = [\"address\"]\nallow = [\"5/15x\"]", "pattern limits.a.allow.0"),
    ("[limits.a]\nkey = []\nallow = [\"5/15m\"]", "minItems limits.a.key"),
    ("[upstreams.\"a b\"]\nservers = [\"http://a\"]", "pattern upstreams"),
    ("[upstreams.a]\nservers = [{ ulr = \"a\" }]", "additionalProperties upstreams.a.servers.0"),
    ("[routes.a]\nupstream = \"a\"", "required routes.a"),
    ("[routes.a]\npath = \"/\"\nsession = \"needed\"", "enum routes.a.session"),
    ("[routes.a]\npath = \"/\"\ncache = { ttl = true }", "type routes.a.cache.ttl"),
];

#[test]
fn known_mistakes_are_refused_as_the_reader_refuses_them() {
    let texts: Vec<String> = MISTAKES.iter().map(|(text, _)| (*text).to_owned()).collect();
    for ((text, expected), found) in MISTAKES.iter().zip(faults(&texts)) {
        assert!(found.iter().any(|fault| fault == expected), "{found:?} of {text}");
        let read = parse("gateway.toml", Path::new(""), text, &|_| None).unwrap();
        assert!(!read.problems.is_empty(), "the reader takes {text}");
    }
}

/// The paths of all properties below a schema, and the schema of each.
fn properties<'a>(path: &str, schema: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    for form in schema["anyOf"].as_array().into_iter().flatten() {
        properties(path, form, found);
    }
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        found.push((path.clone(), below));
        properties(&path, below, found);
    }
    if schema.get("propertyNames").is_some() {
        properties(&format!("{path}.NAME"), &schema["additionalProperties"], found);
    }
    if let Some(items) = schema.get("items") {
        properties(path, items, found);
    }
}

#[test]
fn every_key_is_there_once_and_explained() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    let mut found = Vec::new();
    properties("", &schema, &mut found);
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for (path, _) in &found {
        *times.entry(path).or_default() += 1;
    }
    let repeated: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
    let keys = known_keys();
    let missing: Vec<_> = keys.iter().filter(|key| !times.contains_key(key.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let is_table = |path: &str| keys.iter().any(|key| key.starts_with(&format!("{path}.")));
    let unknown: Vec<_> = times
        .keys()
        .filter(|path| !keys.iter().any(|key| key == *path) && !is_table(path))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // Of the tables at the top, their keys say everything.
    let silent: Vec<_> = found
        .iter()
        .filter(|(path, shape)| path.contains('.') && shape.get("description").is_none())
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
    let shapeless: Vec<_> = found
        .iter()
        .filter(|(_, shape)| ["type", "enum", "anyOf"].iter().all(|it| shape.get(it).is_none()))
        .map(|(path, _)| path)
        .collect();
    assert!(shapeless.is_empty(), "{shapeless:?}");
}

#[test]
fn keys_say_what_they_are_for_and_what_they_are_without_being_written() {
    let text = schema();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let drain = &schema["properties"]["server"]["properties"]["drain"];
    assert_eq!(drain["default"], "30s");
    let words = drain["description"].as_str().unwrap();
    assert!(words.starts_with("How long requests in flight may take to finish"), "{words}");
    let users = &schema["properties"]["auth"]["additionalProperties"]["properties"];
    assert_eq!(users["token_bytes"]["anyOf"][0]["minimum"], 256);
    let token = &schema["properties"]["admin"]["properties"]["token"];
    assert_eq!(token["examples"], serde_json::json!(["env:PORTCULLIS_ADMIN_TOKEN"]));
    assert!(!text.contains("example-only"), "the file's own secret is taken for an example");
}
