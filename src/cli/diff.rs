//! `diff`: what the configuration file of a running gateway says otherwise than what it has in
//! force, and what that costs. The gateway reads the file, on its own disk.

use std::path::Path;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::json::json_text;
use super::operate::Target;
use super::remote::Failure;

const EXIT: &str = "\
The file that is compared is the one that the gateway was started with, as it is now on the \
gateway's disk. --config and --admin say which gateway is asked, not which file is read.

Exit status: 0 the same; 1 something differs; 2 the command line or the configuration cannot be \
used, or the file has mistakes; 3 no gateway answered.";

/// Options of `diff`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Diff {
    /// Print the gateway's answer as it came.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// What there is to print, and the exit status.
pub(super) struct Told {
    pub(super) text: String,
    pub(super) status: u8,
}

/// Carries out `diff`.
pub(super) fn diff(options: &Diff, path: &Path) -> Result<Told, Failure> {
    let remote = options.target.find(path)?;
    let answer = remote.send(Method::GET, "/v1/config/diff", &json!({}))?;
    let has = |name: &str| list(&answer, name).next().is_some();
    let differs = answer.get("differs").and_then(Value::as_bool).unwrap_or(true);
    let status = match () {
        () if has("problems") => 2,
        () if differs => 1,
        () => 0,
    };
    let text = if options.json { json_text(&answer) } else { words(&answer, differs) };
    Ok(Told { text, status })
}

fn list<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    answer.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn words(answer: &Value, differs: bool) -> String {
    let file = file(answer);
    if !differs {
        return format!("{file} is what runs");
    }
    let mut lines: Vec<String> = list(answer, "changes").flat_map(change).collect();
    let problems: Vec<String> =
        list(answer, "problems").filter_map(Value::as_str).map(|it| format!("✖ {it}")).collect();
    if lines.is_empty() && problems.is_empty() {
        lines.push("it differs, and says the same".to_owned());
    }
    lines.insert(0, format!("{file}, beside what runs:"));
    lines.extend(problems);
    lines.join("\n")
}

/// Which file the gateway has read.
fn file(answer: &Value) -> String {
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    let path = text("path").unwrap_or("the file");
    let sha256 = text("file").map_or_else(String::new, |it| format!(" (SHA-256 {it})"));
    format!("{path}{sha256} on the gateway's disk")
}

/// The lines of one key.
fn change(change: &Value) -> Vec<String> {
    let text = |name: &str| change.get(name).and_then(Value::as_str).unwrap_or_default();
    let value = |name: &str| change.get(name).map(Value::to_string).unwrap_or_default();
    let (key, old, new) = (text("key"), value("old"), value("new"));
    let line = match text("change") {
        "added" => format!("+ {key} = {new}"),
        "removed" => format!("- {key} = {old}"),
        _ => format!("~ {key}: {old} -> {new}"),
    };
    let cost = change.get("cost").and_then(Value::as_str).map(|cost| format!("    {cost}"));
    [line].into_iter().chain(cost).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_line_and_what_it_costs() {
        let answer = json!({
            "path": "/etc/gateway.toml", "file": "77aa",
            "changes": [
                { "key": "routes.b", "change": "added", "old": null, "new": { "path": "/b" } },
                { "key": "session", "change": "removed", "old": {}, "new": null },
                { "key": "log.level", "change": "changed", "old": "info", "new": "debug",
                  "cost": "restart" },
            ],
            "problems": ["gateway.toml:1:1: x: unknown key; help: remove it"],
        });
        let file = "/etc/gateway.toml (SHA-256 77aa) on the gateway's disk";
        let expected = "+ routes.b = {\"path\":\"/b\"}\n- session = {}\n\
            ~ log.level: \"info\" -> \"debug\"\n    restart\n\
            ✖ gateway.toml:1:1: x: unknown key; help: remove it";
        assert_eq!(words(&answer, true), format!("{file}, beside what runs:\n{expected}"));
        assert!(words(&json!({}), true).ends_with("what runs:\nit differs, and says the same"));
        assert_eq!(words(&answer, false), format!("{file} is what runs"));
    }
}
