//! `portcullis status`: how a running gateway is, on one screen, and what must be done.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::json::json_text;
use super::operate::Target;
use super::plain::plain;
use super::remote::Failure;

/// Printed below the options.
const EXIT: &str = "\
Exit status: 0 all is well; 1 a finding is poor, or the gateway refused; 2 the command line or the \
configuration cannot be used; 3 no gateway answered. What admin.mute names does not count.";
/// Stands where there is no number.
const NONE: &str = "–";

/// Options of `status`.
#[derive(Debug, Args)]
#[command(after_help = EXIT)]
pub(super) struct Status {
    /// Print the gateway's answer, that of GET /v1/overview, as it came.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// What to print, and whether a finding is poor.
pub(super) fn show(options: &Status, path: &Path) -> Result<(String, bool), Failure> {
    let remote = options.target.find(path)?;
    let members = ["node", "version", "findings", "now"];
    let answer = remote.send((Method::GET, "/v1/overview"), &json!({}), &members)?;
    let is_poor = all(&answer, "findings")
        .iter()
        .any(|it| it["level"] == "poor" && it["muted"] != json!(true));
    let text = if options.json { json_text(&answer) } else { screen(&answer) };
    Ok((text, is_poor))
}

/// One screen of it.
fn screen(answer: &Value) -> String {
    let up = span(answer["up_s"].as_u64().unwrap_or_default());
    let (node, version) = (text(answer, "node"), text(answer, "version"));
    let mut lines = vec![format!("{node}  portcullis {version}  up {up}")];
    let config = &answer["config"];
    let since = text(config, "loaded_at");
    let sha256: String = text(config, "sha256").chars().take(12).collect();
    let file = match config["file_differs"] == json!(true) {
        _ if sha256.is_empty() => "without a file".to_owned(),
        true => format!("{sha256}  ▲ the file is another one now"),
        false => format!("{sha256}  as in the file"),
    };
    lines.push(format!("configuration since {since}  {file}"));
    lines.push(String::new());
    lines.extend(findings(all(answer, "findings")));
    lines.push(String::new());
    let now = &answer["now"];
    let figures = FIGURES.map(|(name, member, form)| format!("{name} {}", form(&now[member])));
    lines.push(figures.join("  "));
    let of = |name: &str| {
        let bound = &answer["bounds"][name];
        match (bound[0].as_u64(), bound[1].as_u64()) {
            (None, _) => NONE.to_owned(),
            (Some(used), None) => used.to_string(),
            (Some(used), Some(most)) => format!("{used} of {most}"),
        }
    };
    lines.push(format!("connections {}  in flight {}", of("connections"), of("in_flight")));
    lines.extend(routes(all(answer, "routes")));
    lines.extend(upstreams(&answer["upstreams"]));
    lines.join("\n")
}

/// Each finding with its mark and what to do, then how many are muted.
fn findings(found: &[Value]) -> Vec<String> {
    let (muted, counted): (Vec<&Value>, Vec<&Value>) =
        found.iter().partition(|it| it["muted"] == json!(true));
    let mut lines = Vec::new();
    if counted.is_empty() {
        lines.push("● good   no findings".to_owned());
    }
    for finding in counted {
        let level = text(finding, "level");
        let mark = match &*level {
            "poor" => "✖",
            "watch" => "▲",
            _ => "●",
        };
        let (what, id) = (text(finding, "what"), text(finding, "id"));
        lines.push(format!("{mark} {level:<6} {what} ({id})"));
        lines.push(format!("         do: {}", text(finding, "do")));
    }
    if !muted.is_empty() {
        let ids: Vec<String> = muted.iter().map(|it| text(it, "id")).collect();
        lines.push(format!("  muted: {}", ids.join(", ")));
    }
    lines
}

/// A number of now: its name, its member, and its form.
type Figure = (&'static str, &'static str, fn(&Value) -> String);
const FIGURES: [Figure; 6] = [
    ("req/s", "rps", rate),
    ("errors", "error_ratio", percent),
    ("p50", "p50_s", seconds),
    ("p99", "p99_s", seconds),
    ("hits", "hit_ratio", percent),
    ("refused/s", "refused_ps", rate),
];

fn routes(routes: &[Value]) -> Vec<String> {
    if routes.is_empty() {
        return Vec::new();
    }
    let heads = FIGURES.iter().map(|(name, ..)| (*name).to_owned());
    let mut rows = vec![std::iter::once("route".to_owned()).chain(heads).collect::<Vec<_>>()];
    rows.extend(routes.iter().map(|route| {
        let numbers = FIGURES.iter().map(|(_, member, form)| form(&route[*member]));
        std::iter::once(text(route, "route")).chain(numbers).collect()
    }));
    std::iter::once(String::new()).chain(table(&rows)).collect()
}

fn upstreams(upstreams: &Value) -> Vec<String> {
    let all = upstreams.as_object().into_iter().flatten();
    let rows = all.map(|(name, upstream)| {
        let (taking, all) = (&upstream["servers"][0], &upstream["servers"][1]);
        let state = match (taking.as_u64(), all.as_u64()) {
            (Some(0), Some(all)) => format!("✖ 0 of {all} in"),
            (Some(taking), Some(all)) if taking < all => format!("▲ {taking} of {all} in"),
            (Some(taking), Some(all)) => format!("● {taking} of {all} in"),
            _ => "○ unknown".to_owned(),
        };
        vec![plain(name), state]
    });
    let mut rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        return Vec::new();
    }
    rows.insert(0, vec!["upstream".to_owned(), "servers".to_owned()]);
    std::iter::once(String::new()).chain(table(&rows)).collect()
}

/// Columns of equal width; all but the first are at the right where they are numbers.
fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| {
        rows.iter().filter_map(|row| row.get(at)).map(|it| it.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match at {
                0 => write!(line, "{cell:<width$}"),
                _ if columns == 2 => write!(line, "  {cell}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        line
    };
    rows.iter().map(line).collect()
}

fn all<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
}

fn text(of: &Value, name: &str) -> String {
    plain(of.get(name).and_then(Value::as_str).unwrap_or_default())
}

fn rate(value: &Value) -> String {
    value.as_f64().map_or_else(|| NONE.to_owned(), |it| format!("{it:.1}"))
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| NONE.to_owned(), |it| format!("{:.1} %", it * 100.0))
}

fn seconds(value: &Value) -> String {
    value.as_f64().map_or_else(
        || NONE.to_owned(),
        |it| if it < 1.0 { format!("{:.1} ms", it * 1e3) } else { format!("{it:.1} s") },
    )
}

/// The two largest units of a time in seconds.
fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (size, unit) in UNITS {
        if left >= size || (size == 1 && parts.is_empty()) {
            parts.push(format!("{}{unit}", left / size));
            left %= size;
        } else if !parts.is_empty() {
            break;
        }
    }
    parts.truncate(2);
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_two_units_at_most() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_661, "1h 1m"),
            (86_400, "1d"),
            (86_460, "1d"),
            (273_600, "3d 4h"),
        ] {
            assert_eq!(span(seconds), expected);
        }
    }

    #[test]
    fn the_screen_has_what_matters_first() {
        let rates = |name: &str, rps: f64| {
            json!({
                "route": name, "rps": rps, "error_ratio": 0.002, "p50_s": 0.0011, "p99_s": 1.5,
                "hit_ratio": null, "refused_ps": 0.0,
            })
        };
        let answer = json!({
            "node": "edge-1\u{1b}[2J", "version": "0.2.0", "up_s": 60,
            "config": { "sha256": "9f31aa", "loaded_at": "now", "file_differs": true },
            "findings": [
                { "id": "a", "level": "poor", "what": "Bad.", "do": "Mend it." },
                { "id": "b", "level": "info", "what": "Hm.", "do": "Look." },
                { "id": "c", "level": "poor", "what": "Known.", "do": "No.", "muted": true },
            ],
            "now": rates("", 1284.0),
            "routes": [rates("products", 910.2), rates("b", 0.1)],
            "upstreams": { "search": { "servers": [0, 1] }, "shop": { "servers": [1, 2] } },
            "bounds": { "connections": [5, 10_000], "in_flight": [86, null] },
        });
        let expected = "\
edge-1\\u{1b}[2J  portcullis 0.2.0  up 1m
configuration since now  9f31aa  ▲ the file is another one now

✖ poor   Bad. (a)
         do: Mend it.
● info   Hm. (b)
         do: Look.
  muted: c

req/s 1284.0  errors 0.2 %  p50 1.1 ms  p99 1.5 s  hits –  refused/s 0.0
connections 5 of 10000  in flight 86

route     req/s  errors     p50    p99  hits  refused/s
products  910.2   0.2 %  1.1 ms  1.5 s     –        0.0
b           0.1   0.2 %  1.1 ms  1.5 s     –        0.0

upstream  servers
search    ✖ 0 of 1 in
shop      ▲ 1 of 2 in";
        assert_eq!(screen(&answer), expected);
    }

    #[test]
    fn a_number_that_is_missing_is_unknown() {
        let answer = json!({ "upstreams": { "shop": { "servers": [null, 2] }, "away": {} } });
        let told = screen(&answer);
        assert!(told.contains("connections –  in flight –"), "{told}");
        assert!(told.contains("shop      ○ unknown") && told.contains("away      ○ unknown"));
        assert!(!told.contains("null"), "{told}");
    }
}
