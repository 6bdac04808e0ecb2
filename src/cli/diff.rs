//! `diff`: what the configuration file of a running gateway says otherwise than what it has in
//! force, and what that costs. The gateway reads the file, on its own disk. Of two files that are
//! named, what one says otherwise than the other; no gateway is asked.

use std::path::{Path, PathBuf};

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::json::json_text;
use super::operate::Target;
use super::remote::Failure;
use super::secrets::WithoutSecrets;
use crate::config::Secrets;
use crate::runtime::compare_files;

const EXIT: &str = "\
Without OLD and NEW, the file that is compared is the one that the gateway was started with, as it \
is now on the gateway's disk. --config and --admin say which gateway is asked, not which file is \
read. With them, the files lie here, and what they take from the environment is what this command \
has.

Exit status: 0 the same; 1 something differs; 2 the command line or the configuration cannot be \
used, or the file has mistakes; 3 no gateway answered.";

/// Options of `diff`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Diff {
    /// Print JSON: the gateway's answer as it came, or the same of two files.
    #[arg(long)]
    json: bool,
    /// Two files; which changes a gateway with the first one has to expect of the second one.
    #[arg(num_args = 2, value_names = ["OLD", "NEW"])]
    #[arg(conflicts_with_all = ["admin", "admin_token"])]
    files: Vec<PathBuf>,
    #[command(flatten)]
    secrets: WithoutSecrets,
    #[command(flatten)]
    target: Target,
}

/// What there is to print, and the exit status.
///
/// # Errors
/// When no gateway answers, or the old file has mistakes.
pub(super) fn diff(options: &Diff, path: &Path) -> Result<(String, u8), Failure> {
    let (answer, heads) = match options.files.as_slice() {
        [old, new] => of_files(old, new, options.secrets.word())?,
        _ if options.secrets.is_given() => {
            let told = "a running gateway reads its own file, with its secrets: name two files \
                        beside --without-secrets";
            return Err(Failure::unusable(told.to_owned()));
        }
        _ => {
            let remote = options.target.find(path)?;
            let what = (Method::GET, "/v1/config/diff");
            let answer = remote.send(what, &json!({}), &["differs", "changes"])?;
            let heads = of_gateway(&answer);
            (answer, heads)
        }
    };
    let differs = answer.get("differs").and_then(Value::as_bool).unwrap_or(true);
    let status = match () {
        () if list(&answer, "problems").next().is_some() => 2,
        () if differs => 1,
        () => 0,
    };
    let text = if options.json { json_text(&answer) } else { words(&answer, differs, heads) };
    Ok((text, status))
}

/// The first lines of an answer.
struct Heads {
    differs: String,
    is_same: String,
}

/// The same answer of two files; it differs where a key does.
fn of_files(old: &Path, new: &Path, secrets: Secrets) -> Result<(Value, Heads), Failure> {
    let compared = compare_files(old, new, secrets).map_err(Failure::unusable)?;
    let mut answer = json!(compared);
    if let Some(members) = answer.as_object_mut() {
        members.insert("differs".to_owned(), (!compared.changes.is_empty()).into());
    }
    let (old, new) = (old.display(), new.display());
    let differs = format!("{new}, beside {old}:");
    let is_same = match old.to_string() == new.to_string() {
        true => format!("both say the same: they are one file, {new}"),
        false => format!("{new} says what {old} says"),
    };
    Ok((answer, Heads { differs, is_same }))
}

fn of_gateway(answer: &Value) -> Heads {
    let file = file(answer);
    let (differs, is_same) = (format!("{file}, beside what runs:"), format!("{file} is what runs"));
    Heads { differs, is_same }
}

fn list<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    answer.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn words(answer: &Value, differs: bool, heads: Heads) -> String {
    let has_problems = list(answer, "problems").next().is_some();
    if !differs && !has_problems {
        return [vec![heads.is_same], not_looked_at(answer)].concat().join("\n");
    }
    let mut lines: Vec<String> = list(answer, "changes").flat_map(change).collect();
    let problems: Vec<String> =
        list(answer, "problems").filter_map(Value::as_str).map(|it| format!("✖ {it}")).collect();
    if lines.is_empty() && problems.is_empty() {
        lines.push("it differs, and says the same".to_owned());
    }
    lines.insert(0, heads.differs);
    lines.extend(problems);
    lines.extend(not_looked_at(answer));
    lines.join("\n")
}

/// A line for each secret that is elsewhere.
fn not_looked_at(answer: &Value) -> Vec<String> {
    let unseen = list(answer, "not_looked_at").filter_map(Value::as_str);
    unseen.map(|it| format!("not looked at: {it}")).collect()
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
        let said = |answer: &Value, differs| words(answer, differs, of_gateway(answer));
        assert_eq!(said(&answer, true), format!("{file}, beside what runs:\n{expected}"));
        assert!(said(&json!({}), true).ends_with("what runs:\nit differs, and says the same"));
        let same = json!({ "path": "/etc/gateway.toml", "file": "77aa" });
        assert_eq!(said(&same, false), format!("{file} is what runs"));
    }
}
