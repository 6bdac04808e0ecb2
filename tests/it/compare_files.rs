//! `portcullis diff OLD NEW`: what a reload would change and what it costs, without a gateway.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::{BINARY, Folder, run};

const OLD: &str = "[limits.api]\nkey = [\"address\"]\nallow = [\"5/1h\"]\n\
    [queues.mail]\ndurable = false\n\
    [upstreams.shop]\nservers = [\"http://127.0.0.1:3000\"]\n\
    [routes.a]\npath = \"/a\"\nupstream = \"shop\"\nlimits = [\"api\"]\n";

/// What the new file has in place of a part of the old one, and what is said of it.
const CHANGES: [(&str, &str, &[&str]); 13] = [
    ("", "", &[]),
    ("[limits", "# only words\n\n[limits", &[]),
    (
        "\"5/1h\"",
        "\"6/1h\"",
        &["~ limits.api.allow: [\"5/1h\"] -> [\"6/1h\"]", "    callers keep what they have used"],
    ),
    (
        "\"5/1h\"",
        "\"5/60m\", \"3/1m\"",
        &[
            "~ limits.api.allow: [\"5/1h\"] -> [\"5/60m\",\"3/1m\"]",
            "    in windows of a new length callers start at zero; the others count on",
        ],
    ),
    (
        "\"5/1h\"",
        "\"5/2h\"",
        &[
            "~ limits.api.allow: [\"5/1h\"] -> [\"5/2h\"]",
            "    callers start at zero: no window is as long as one before",
        ],
    ),
    (
        "[\"address\"]",
        "[\"header:x-user\"]",
        &[
            "~ limits.api.key: [\"address\"] -> [\"header:x-user\"]",
            "    every caller starts at zero: it counts by another key",
        ],
    ),
    (
        "[queues.mail]\ndurable = false\n",
        "",
        &["- queues.mail = {\"durable\":false}", "    a reload is refused while it holds requests"],
    ),
    (
        "[limits",
        "[log]\nlevel = \"debug\"\n[limits",
        &[
            "~ log.level: \"info\" -> \"debug\"",
            "    takes effect with a restart alone; a reload is refused",
        ],
    ),
    (
        "[routes.a]",
        "[routes.b]\npath = \"/b\"\nupstream = \"shop\"\n[routes.a]",
        &["+ routes.b = {\"path\":\"/b\",\"upstream\":\"shop\"}"],
    ),
    (
        ":3000\"]",
        ":3000\", \"http://127.0.0.1:3001\"]",
        &[
            "~ upstreams.shop.servers: [\"http://127.0.0.1:3000\"] -> \
         [\"http://127.0.0.1:3000\",\"http://127.0.0.1:3001\"]",
            "    servers that stay keep their connections",
        ],
    ),
    ("\"/a\"", "\"/c\"", &["~ routes.a.path: \"/a\" -> \"/c\""]),
    (
        "[limits",
        "[session]\nid_from = [\"cookie:sid\"]\n[limits",
        &["+ session = {\"id_from\":[\"cookie:sid\"]}"],
    ),
    (
        "[limits",
        "[admin]\ntoken = \"hunter2-hunter2-hunter2\"\n[limits",
        &[
            "~ admin.token: null -> \"[secret]\"",
            "    takes effect with a restart alone; a reload is refused",
        ],
    ),
];

#[test]
fn what_differs_is_said_with_what_it_costs() {
    let folder = Folder::new();
    folder.write("old.toml", OLD);
    for (part, other, expected) in CHANGES {
        folder.write("new.toml", OLD.replacen(part, other, 1));
        let said = run(&folder, &["diff", "old.toml", "new.toml"]);
        let lines: Vec<&str> = said.stdout.lines().collect();
        if expected.is_empty() {
            assert_eq!((said.code, lines), (Some(0), vec!["new.toml says what old.toml says"]));
            continue;
        }
        assert_eq!((said.code, lines[0]), (Some(1), "new.toml, beside old.toml:"), "{said:?}");
        // Of a value that was not there, it may be said that it is new.
        let added = expected[0].replace("~ admin.token: null ->", "+ admin.token =");
        assert!(lines[1] == expected[0] || lines[1] == added, "{part}: {said:?}");
        assert_eq!(lines[2..], expected[1..], "{part}");
    }
}

#[test]
fn files_are_compared_with_what_they_include() {
    let folder = Folder::new();
    for name in ["old", "new"] {
        fs::create_dir_all(folder.path().join(name).join("routes.d")).unwrap();
    }
    let text = format!("include = [\"routes.d/*.toml\"]\n{OLD}");
    folder.write("old/gateway.toml", &text);
    folder.write("new/gateway.toml", &text);
    let route = |path: &str| format!("[routes.more]\npath = \"{path}\"\nupstream = \"shop\"\n");
    folder.write("old/routes.d/a.toml", route("/more"));
    folder.write("new/routes.d/b.toml", route("/${MORE:-more}"));
    let arguments = ["diff", "old/gateway.toml", "new/gateway.toml"];
    let same = run(&folder, &arguments);
    assert_eq!((same.code, same.stderr.as_str()), (Some(0), ""), "{same:?}");
    let said = Command::new(BINARY)
        .args(arguments)
        .arg("--json")
        .env("MORE", "less")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!((said.status.code(), &answer["differs"]), (Some(1), &Value::Bool(true)));
    let change = &answer["changes"][0];
    assert_eq!((&change["key"], &change["new"]), (&"routes.more.path".into(), &"/less".into()));
    folder.write("new/routes.d/b.toml", "[routes.more]\npaht = \"/\"\n");
    let said = run(&folder, &arguments);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stdout.contains("✖ new/routes.d/b.toml:2:1: routes.more.paht"), "{said:?}");
    folder.write("old/routes.d/a.toml", "[routes.more]\npaht = \"/\"\n");
    let said = run(&folder, &arguments);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:?}");
    assert!(said.stderr.contains("old/routes.d/a.toml:2:1: routes.more.paht"), "{said:?}");
    assert_eq!(run(&folder, &["diff", "old/gateway.toml"]).code, Some(2));
}

#[test]
fn a_file_beside_itself_and_an_unknown_key_are_said_as_what_they_are() {
    let folder = Folder::new();
    folder.write("old.toml", OLD);
    let said = run(&folder, &["diff", "old.toml", "old.toml"]);
    assert_eq!(
        (said.code, &*said.stdout),
        (Some(0), "both say the same: they are one file, old.toml\n")
    );
    folder.write("new.toml", format!("[log]\nlevl = \"debug\"\n{OLD}"));
    let said = run(&folder, &["diff", "old.toml", "new.toml"]).stdout;
    assert!(!said.contains("[secret]") && !said.contains("debug"), "{said}");
    assert!(said.contains("did you mean `level`?"), "{said}");
}
