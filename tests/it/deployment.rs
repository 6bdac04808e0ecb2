//! What the image, `compose.yaml` and `deploy` promise, held without an engine and without a
//! cluster: the parts agree with each other, and what they start is started.

mod compose;
mod image;
mod kubernetes;
mod page;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Reads a file of TOML, or all documents of one of YAML, and prints them as JSON.
const AS_JSON: &str = "
import json, pathlib, sys, tomllib, yaml
path = pathlib.Path(sys.argv[1])
text = path.read_text()
is_toml = path.suffix == '.toml'
print(json.dumps(tomllib.loads(text) if is_toml else list(yaml.safe_load_all(text))))
";

/// A path from the root of the repository.
fn from_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of the repository.
fn text(path: &str) -> String {
    let text = std::fs::read_to_string(from_root(path));
    text.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a command to its end, which must be a good one, and gives what it prints.
fn output(command: &mut Command) -> String {
    let ran = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(ran.status.success(), "{command:?}:\n{}", said.concat());
    said[0].clone()
}

/// A file of TOML, or the documents of one of YAML.
fn read(path: &str) -> Value {
    let json = output(Command::new("python3").args(["-c", AS_JSON]).arg(from_root(path)));
    serde_json::from_str(&json).unwrap()
}

/// What lies at a JSON pointer.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in {value:#}"))
}

/// A text at a JSON pointer.
fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).as_str().unwrap_or_else(|| panic!("{pointer} is no text in {value:#}"))
}

/// The elements of a list at a JSON pointer.
fn list_at<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    at(value, pointer).as_array().unwrap_or_else(|| panic!("{pointer} is no list in {value:#}"))
}

/// A port of this machine's loopback that nothing listens on.
fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.expect("a free port").port()
}
