//! `portcullis doctor`: whether Redis is right for the gateway. A running gateway looks, from where
//! it stands; without one this command looks itself.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::json::json_text;
use super::operate::Target;
use super::plain::plain;
use super::remote::Failure;
use crate::base::terminal::out_line;

/// Printed below the options.
const EXIT: &str = "\
Exit status: 0 well, though something may deserve a look; 1 something is poor, or the gateway \
refused; 2 Redis cannot be used as it is, or the command line or the configuration cannot; 3 Redis \
does not answer.";
/// Exit statuses, by the worst that was found.
const POOR: u8 = 1;
const UNUSABLE: u8 = 2;
const UNREACHABLE: u8 = 3;

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Doctor {
    /// Print what was found as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Who has answered.
#[derive(Debug)]
pub(super) enum Asked {
    /// A gateway, with this.
    Gateway(Value),
    /// No gateway, so that this command looks itself; why.
    Nobody(String),
}

/// Asks the gateway that is meant.
///
/// # Errors
/// It refuses; or the command line names it, and it does not answer.
pub(super) fn ask(options: &Doctor, path: &Path) -> Result<Asked, Failure> {
    let remote = options.target.find(path)?;
    match remote.send_long((Method::POST, "/v1/doctor"), &json!({}), &["level", "checks"]) {
        Ok(answer) => Ok(Asked::Gateway(answer)),
        Err(failure) if failure.is_unreachable() && !options.target.names_admin() => {
            let authority = remote.authority();
            Ok(Asked::Nobody(format!("this command: no gateway answers on {authority}")))
        }
        Err(failure) => Err(failure),
    }
}

/// Prints what was found; its exit status.
pub(super) fn print(options: &Doctor, answer: &Value) -> ExitCode {
    if options.json {
        out_line(&json_text(answer));
    } else {
        out_line(&screen(answer));
    }
    ExitCode::from(match text(answer, "level").as_str() {
        "poor" => POOR,
        "unusable" => UNUSABLE,
        "unreachable" => UNREACHABLE,
        _ => 0,
    })
}

/// One line for each check; what is not well has its bound and what to do.
fn screen(answer: &Value) -> String {
    let checks = answer.get("checks").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut lines = vec![format!("looked at by {}", text(answer, "by"))];
    let is_one = checks.iter().all(|it| matches!(&*text(it, "table"), "store" | "server"));
    for check in checks {
        let level = text(check, "level");
        let mark = match &*level {
            "good" => "●",
            "unknown" => "○",
            "watch" => "▲",
            _ => "✖",
        };
        let mut name = text(check, "check");
        if !is_one {
            name = format!("{}: {name}", text(check, "table"));
        }
        let servers = check.get("servers").and_then(Value::as_array).into_iter().flatten();
        let servers: Vec<&str> = servers.filter_map(Value::as_str).collect();
        let at =
            if servers.is_empty() { String::new() } else { format!(" ({})", servers.join(", ")) };
        lines.push(format!("{mark} {level:<8} {name:<13} {}{}", text(check, "value"), plain(&at)));
        if level != "good" {
            for (label, member) in [("bound", "bound"), ("do", "do")] {
                let said = text(check, member);
                if !said.is_empty() {
                    lines.push(format!("{:25}{label}: {said}", ""));
                }
            }
        }
    }
    lines.join("\n")
}

fn text(of: &Value, name: &str) -> String {
    plain(of.get(name).and_then(Value::as_str).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_has_its_bound_and_what_to_do() {
        let check = |table: &str, name: &str, level: &str| {
            json!({
                "table": table, "check": name, "level": level, "servers": ["a:1"],
                "value": "9\u{7}", "bound": "8", "do": if level == "good" { "" } else { "less" },
            })
        };
        let both = [check("store", "clock", "good"), check("store", "memory", "poor")];
        let expected = "\
looked at by me
● good     clock         9\\u{7} (a:1)
✖ poor     memory        9\\u{7} (a:1)
                         bound: 8
                         do: less";
        assert_eq!(screen(&json!({ "by": "me", "checks": both })), expected);
        let several = json!({ "by": "me", "checks": [check("store.cache", "role", "good")] });
        assert!(screen(&several).contains("● good     store.cache: role 9\\u{7} (a:1)"));
    }
}
