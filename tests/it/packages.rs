//! What is published: the archive, the package of Debian, the units of systemd, and the inventory
//! of what is linked. The gateway under test is what is packed.

mod debian;
mod published;
mod units;

use std::path::Path;
use std::process::{Command, Output};

use crate::support::BINARY;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs a program that is there wherever packages are made, or that scripts/setup installs.
fn tool(name: &str, arguments: &[&str], folder: &Path) -> Output {
    let output = Command::new(name).args(arguments).current_dir(folder).output();
    output.unwrap_or_else(|error| panic!("{name}: {error}; scripts/setup installs it"))
}

/// What it prints; it must succeed.
fn said(name: &str, arguments: &[&str], folder: &Path) -> String {
    let output = tool(name, arguments, folder);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{name} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Has scripts/release pack the gateway under test into a folder; what it prints.
fn release(folder: &Path, more: &[&str]) -> String {
    let script = format!("{ROOT}/scripts/release");
    let out = folder.to_str().unwrap();
    let arguments = [&["--binary", BINARY, "--fast", "--out", out], more].concat();
    // Everything is of this time, also where there is no git that knows the commit's.
    const TIME: &str = "1700000000";
    let made = Command::new(script).args(arguments).env("SOURCE_DATE_EPOCH", TIME).output();
    let made = made.expect("python3, which scripts/setup installs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8_lossy(&made.stdout).into_owned()
}

/// The one file of a folder whose name ends so.
fn file(folder: &Path, end: &str) -> String {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let paths: Vec<String> = entries.map(|path| path.to_str().unwrap().to_owned()).collect();
    let mut fitting = paths.iter().filter(|path| path.ends_with(end));
    let one = fitting.next().unwrap_or_else(|| panic!("nothing ends with {end}: {paths:?}"));
    assert!(fitting.next().is_none(), "{paths:?}");
    one.clone()
}

/// The version in Cargo.toml.
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
