//! The configuration as operators are shown it: every key, and no secret.

use serde_json::{Value, json};

use super::*;
use crate::base::units::{parse_duration, parse_size};
use crate::config::Shown;

fn shown(text: &str) -> Shown {
    Shown::of(&read(text).source)
}

/// What is shown at a path of a survey, in all tables of the user's naming and all items of lists.
fn at<'v>(value: &'v Value, path: &[&str]) -> Vec<&'v Value> {
    let Some((step, rest)) = path.split_first() else { return vec![value] };
    match value {
        Value::Object(members) if *step == "NAME" => {
            members.values().flat_map(|it| at(it, rest)).collect()
        }
        Value::Object(members) => members.get(*step).map(|it| at(it, rest)).unwrap_or_default(),
        Value::Array(items) => items.iter().flat_map(|it| at(it, path)).collect(),
        _ => Vec::new(),
    }
}

/// The reference file with every key that it shows as a comment.
fn all_examples() -> String {
    let is_key = |key: &str| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let example = |line: &'static str| match line.strip_prefix("# ") {
        Some(it) if it.starts_with('[') && it.ends_with(']') => it,
        Some(it) if it.split_once(" = ").is_some_and(|(key, _)| is_key(key)) => it,
        _ => line,
    };
    REFERENCE.lines().map(example).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_key_is_shown() {
    let told = shown(&all_examples()).into_value();
    for key in known_keys() {
        let path: Vec<&str> = key.split('.').collect();
        // One of several forms may be written; the others are keys of none that is.
        let is_of_another_form = (1..path.len()).any(|end| {
            let around = at(&told, &path[..end]);
            !around.is_empty() && !around.iter().any(|it| it.is_object() || it.is_array())
        });
        assert!(is_of_another_form || !at(&told, &path).is_empty(), "{key} is not shown");
    }
}

/// Whether one value is the other, which may be written in another unit.
fn means(one: &Value, other: &Value, path: &str) -> bool {
    match (one, other) {
        (Value::Object(ones), Value::Object(others)) => {
            let names = |it: &serde_json::Map<String, Value>| it.keys().cloned().collect();
            let [one, other]: [Vec<String>; 2] = [names(ones), names(others)];
            assert_eq!(one, other, "{path}");
            ones.iter().all(|(key, it)| means(it, &others[key], &format!("{path}.{key}")))
        }
        (Value::String(one), Value::String(other)) => {
            let is_same = one == other
                || parse_duration(one).is_ok_and(|it| parse_duration(other) == Ok(it))
                || parse_size(one).is_ok_and(|it| parse_size(other) == Ok(it));
            assert!(is_same, "{path}: {one} and {other}");
            is_same
        }
        _ => {
            assert_eq!(one, other, "{path}");
            true
        }
    }
}

#[test]
fn what_is_not_written_is_shown_as_it_holds() {
    let (reference, empty) = (shown(REFERENCE).into_value(), shown("").into_value());
    // What the reference shows of these is the default.
    for table in ["server", "log", "admin", "store"] {
        assert!(means(&empty[table], &reference[table], table), "{table}");
    }
    assert_eq!(empty["server"]["limits"]["body_bytes"], "10MiB");
    assert_eq!((&empty["server"]["tls"], &empty["session"]), (&Value::Null, &Value::Null));
    assert_eq!((&empty["routes"], &empty["admin"]["origins"]), (&json!({}), &json!([])));
    let told = shown(
        "[limits.api]\nkey = [\"address\"]\nallow = [\"3/1h\"]\n[upstreams.shop]\n\
         servers = [\"http://10.0.0.1:80\", { url = \"http://10.0.0.2:80\", backup = true }]\n\
         [upstreams.shop.retry]\n[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
    )
    .into_value();
    assert_eq!(told["limits"]["api"]["cost"], 1);
    let upstream = &told["upstreams"]["shop"];
    assert_eq!(upstream["balance"], "p2c");
    assert_eq!(upstream["client_share"], "25%");
    assert_eq!(upstream["servers"][0], "http://10.0.0.1:80");
    let second = json!({ "url": "http://10.0.0.2:80", "weight": 1, "backup": true });
    assert_eq!(upstream["servers"][1], second);
    assert_eq!(upstream["retry"]["on"], json!(["connect", "refused", "reset", "503"]));
    assert_eq!(told["routes"]["all"]["session"], false);
}

/// Wherever a default is known to the reader, it is told.
#[test]
fn no_default_is_shown_as_nothing() {
    for key in ["store.url", "store.connections", "session", "telemetry"] {
        let told = shown("[session]\n[telemetry.traces]\n[routes.a]\n[routes.a.cache]\n");
        let told = told.into_value();
        let path: Vec<&str> = key.split('.').collect();
        assert!(at(&told, &path).iter().all(|it| !it.is_null()), "{key}: {told}");
    }
    let told = shown("[telemetry.traces]\n[routes.a]\nfaults = {}\nmirror = {}\n").into_value();
    let traces = &told["telemetry"]["traces"];
    assert_eq!((&traces["sample"], &traces["errors"]), (&json!("5%"), &json!("10/s")));
    assert_eq!(told["routes"]["a"]["faults"]["status"], 503);
    assert_eq!(told["routes"]["a"]["mirror"]["share"], "100%");
}

#[test]
fn no_secret_is_shown() {
    const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";
    let text = format!(
        "[server.tls]\nsecret = \"{SECRET}\"\n\
         [server.request_headers]\nset = {{ authorization = \"Bearer {SECRET}\", \
         Accept-Language = \"de\", ocp-apim-subscription-key = \"{SECRET}\", \
         x-functions-key = \"{SECRET}\", x-auth-key = \"{SECRET}\", x-env = \"prod\", \
         x-origin-verify = \"env:SET\" }}\n\
         [server.response_headers]\nadd = {{ x-api-key = \"{SECRET}\" }}\nset = \"{SECRET}\"\n\
         [log]\nsubject = \"hash\"\nsubject_secret = \"{SECRET}\"\n\
         [admin]\ntoken = \"{SECRET}\"\nread_token = \"env:SET\"\n\
         [store]\nurl = \"redis://u:{SECRET}@h:1\"\npassword = \"file:pass\"\n\
         passwort = \"{SECRET}\"\n\
         [store.operator]\nusername = \"o\"\npassword = \"{SECRET}\"\n\
         [telemetry.traces]\nendpoint = \"http://h:1?k={SECRET}\"\n\
         headers = {{ a = \"{SECRET}\" }}\n\
         [auth.tokens]\nsecret = \"{SECRET}\"\nalgorithms = [\"HS256\"]\n\
         [auth.b]\njwks_url = \"https://h/j?k={SECRET}\"\n\
         public_key_file = \"-----BEGIN {SECRET}\"\n\
         [queues.mail]\nseal = [\"{SECRET}\", \"file:old.key\"]\n\
         [queues.post]\nseal = \"{SECRET}\"\n\
         callback = {{ url = \"https://h.test/{SECRET}?a\", secret = \"env:SET\" }}\n\
         [upstreams.shop]\nservers = [\"http://u:{SECRET}@h:1\"]\nnew = {{ a = \"{SECRET}\" }}\n\
         [routes.set]\npath = \"/\"\n\
         idempotency.seal = [\"{SECRET}\", \"env:SET\"]\n\
         cache.warm.vary = [{{ x-api-key = \"{SECRET}\", \
         accept = \"text/html\", x-tenant = \"{SECRET}\" }}, \"{SECRET}\"]\n\
         [routes]\nbad = \"{SECRET}\"\n[{SECRET}]\nx = \"{SECRET}\"\n[queues]\na = \"{SECRET}\"\n"
    );
    // A name is no value.
    let text = text.replace(&format!("[{SECRET}]"), "[unheard]");
    let one = shown(&text);
    let other = shown(&text.replace(SECRET, &format!("{SECRET}!")));
    let differing = one.differences(&other);
    assert!(differing.len() > 10, "{differing:?}");
    assert!(!format!("{differing:?} {one:?}").contains("hunter2"), "{differing:?}");
    let told = one.into_value();
    assert!(!told.to_string().contains("hunter2"), "{told:#}");
    assert_eq!(told["admin"]["token"], "[secret]");
    assert_eq!(told["admin"]["read_token"], json!({ "secret": "env:SET" }));
    assert_eq!(told["store"]["password"], json!({ "secret": "file:pass" }));
    let seal = &told["queues"]["mail"]["seal"];
    assert_eq!(*seal, json!(["[secret]", { "secret": "file:old.key" }]));
    let seal = &told["routes"]["set"]["idempotency"]["seal"];
    assert_eq!(*seal, json!(["[secret]", { "secret": "env:SET" }]));
    assert_eq!(told["queues"]["post"]["callback"]["url"], "https://h.test[secret]");
    let fields = &told["server"]["request_headers"]["set"];
    assert_eq!((&fields["Accept-Language"], &fields["x-env"]), (&json!("de"), &json!("[secret]")));
    assert_eq!(fields["x-origin-verify"], json!({ "secret": "env:SET" }));
    assert_eq!(told["routes"]["set"]["path"], "/", "a name is no table of fields");
    assert_eq!(told["routes"]["set"]["cache"]["warm"]["vary"][0]["accept"], "text/html");
    assert_eq!(told["auth"]["b"]["jwks_url"], "https://h/j?[secret]");
    assert_eq!(told["auth"]["tokens"]["algorithms"], json!(["HS256"]), "a name hides nothing");
}

/// Problems are shown to the same people.
#[test]
fn no_problem_tells_what_is_not_shown() {
    const SECRET: &str = "hunter2-é";
    let text = format!(
        "[server.tls.acme]\ndirectory = \"http://h/{SECRET}\"\nnames = [[\"a.test\"]]\n\
         [server.request_headers]\nset = {{ x-origin-verify = \"{SECRET}\" }}\n\
         [telemetry.traces]\nendpoint = \"{SECRET}\"\nheaders = {{ a = \"{SECRET}\\n\" }}\n\
         [auth.a]\njwks_url = \"{SECRET}\"\n\
         [routes.all]\npath = \"/*\"\ncache.warm.vary = [{{ x-a = \"{SECRET}\\n\" }}]\n"
    );
    let problems = read(&text).problems;
    for path in ["directory", "request_headers.set.x-origin-verify", "endpoint", "jwks_url", "vary"]
    {
        assert!(problems.iter().any(|it| it.path.contains(path)), "{path}: {problems:?}");
    }
    assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
}

#[test]
fn what_differs_is_told_by_key_and_a_new_table_as_it_is_written() {
    const ROUTE: &str = "[routes.a]\npath = \"/a\"\nupstream = \"s\"\n";
    let old = shown(&format!("[server]\ndrain = \"10s\"\n{ROUTE}body_bytes = \"1KiB\"\n"));
    let new = format!("{ROUTE}body_bytes = \"1KiB\"\n[routes.b]\npath = \"/b\"\n[session]\n");
    let mut found: Vec<(String, Value, Value)> =
        old.differences(&shown(&new)).into_iter().map(|it| (it.key, it.old, it.new)).collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("routes.b", Value::Null, json!({ "path": "/b" })),
        ("server.drain", json!("10s"), json!("30s")),
        ("session", Value::Null, json!({})),
    ];
    assert_eq!(found, expected.map(|(key, old, new)| (key.to_owned(), old, new)));
    assert!(shown(ROUTE).differences(&shown(ROUTE)).is_empty());
    assert!(shown("[server]\ndrain = \"30s\"").differences(&shown("")).is_empty(), "no change");
}
