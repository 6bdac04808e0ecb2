//! What runs, and what the file says otherwise: `GET /v1/config`, `GET /v1/config/diff` and
//! `portcullis diff`.

use serde_json::{Value, json};

use super::problem;
use crate::support::{
    AUTH, Client, Folder, Gateway, Redis, Refused, Upstream, operate, response, run,
};

const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";

fn ask(gateway: &Gateway, path: &str) -> Value {
    let reply = operate(gateway, "GET", path, "");
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// `portcullis diff`: what it printed, and its exit status.
fn diff(gateway: &Gateway, more: &[&str]) -> Refused {
    let url = format!("http://{}", gateway.admin);
    run(&Folder::new(), &[&["diff", "--admin", &url], more].concat())
}

#[test]
fn what_runs_is_shown_with_its_defaults_and_without_its_secrets() {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let text = format!(
        "[admin]\ntoken = \"{SECRET}\"\nread_token = \"reader-0123456789\"\n\
         [server.request_headers]\nset = {{ authorization = \"Bearer {SECRET}\" }}\n{AUTH}{}\
         [limits.api]\nkey = [\"claim:sub\"]\nallow = [\"3/1h\"]\n\
         [routes.open]\npath = \"/open\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    );
    let gateway = Gateway::start(&text);
    let get = |path: &str, bearer: &str| Client::get(gateway.admin, path).bearer(bearer).send();
    for bearer in [SECRET, "reader-0123456789"] {
        let reply = get("/v1/config", bearer);
        assert_eq!(reply.status, 200);
        let all = reply.text();
        for secret in [SECRET, "reader-0123456789", "Bearer"] {
            assert!(!all.contains(secret), "{secret} in {all}");
        }
        let told = reply.json();
        let config = &told["config"];
        assert_eq!(
            (&config["admin"]["token"], &told["path"]),
            (&json!("[secret]"), &json!("gateway.toml"))
        );
        assert_eq!(config["limits"]["api"]["key"], json!(["claim:sub"]), "it names no caller");
        assert_eq!(config["server"]["drain"], "30s");
        assert_eq!(config["upstreams"]["shop"]["connect_timeout"], "1s");
        assert_eq!(told["sha256"].as_str().map(str::len), Some(64));
        assert_eq!(told["last_reload"], Value::Null);
        assert_eq!(told["log"]["configured"], "info");
        assert!(told["loaded_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{told}");
    }
    let routes = get("/v1/config?section=routes", SECRET).json();
    let routes = routes["config"].as_object().expect("a table").clone();
    assert_eq!(routes.keys().collect::<Vec<_>>(), ["routes"]);
    for query in ["?section=nothing", "?x=1"] {
        let reply = get(&format!("/v1/config{query}"), SECRET);
        assert_eq!(problem(&reply), (400, "request_invalid".to_owned()), "{query}");
    }
}

#[test]
fn what_the_file_says_otherwise_is_told_with_what_it_costs() {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let begin =
        format!("{}[routes.open]\npath = \"/open\"\nupstream = \"shop\"\n", upstream.table("shop"));
    let gateway = Gateway::start(&begin);
    let same = ask(&gateway, "/v1/config/diff");
    assert_eq!((&same["differs"], &same["changes"]), (&json!(false), &json!([])));
    let ran = diff(&gateway, &[]);
    let sha256 = same["file"].as_str().expect("a SHA-256");
    let is_same = format!("gateway.toml (SHA-256 {sha256}) on the gateway's disk is what runs\n");
    assert_eq!((ran.code, ran.stdout), (Some(0), is_same), "{}", ran.stderr);

    let route = "[routes.new]\npath = \"/new\"\nupstream = \"shop\"\n";
    gateway.rewrite(&format!("[log]\nlevel = \"debug\"\n{begin}body_bytes = \"1KiB\"\n{route}"));
    let told = ask(&gateway, "/v1/config/diff");
    assert_eq!((&told["differs"], &told["needs_restart"]), (&json!(true), &json!(["log"])));
    assert_ne!(told["running"], told["file"]);
    let of = |key: &str| {
        let all = told["changes"].as_array().expect("a list");
        all.iter().find(|it| it["key"] == key).unwrap_or_else(|| panic!("{key} in {told}")).clone()
    };
    assert_eq!(
        (&of("log.level")["old"], &of("log.level")["new"]),
        (&json!("info"), &json!("debug"))
    );
    assert!(of("log.level")["cost"].as_str().is_some_and(|it| it.contains("restart")), "{told}");
    assert_eq!(of("routes.new")["new"], json!({ "path": "/new", "upstream": "shop" }));
    assert_eq!(of("routes.open.body_bytes")["change"], "added");
    assert_eq!(told["changes"].as_array().map(Vec::len), Some(3), "{told}");
    let ran = diff(&gateway, &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    for line in ["~ log.level: \"info\" -> \"debug\"", "+ routes.open.body_bytes = \"1KiB\""] {
        assert!(ran.stdout.lines().any(|it| it == line), "{line} in {}", ran.stdout);
    }
    let json: Value = serde_json::from_str(&diff(&gateway, &["--json"]).stdout).expect("JSON");
    assert_eq!(json["changes"], told["changes"]);

    gateway.rewrite(&format!("{begin}uspteam = \"{SECRET}\"\n"));
    let told = ask(&gateway, "/v1/config/diff");
    let problems = told["problems"].to_string();
    assert!(problems.contains("routes.open.uspteam: unknown key"), "{told}");
    assert!(!told.to_string().contains(SECRET), "{told}");
    assert_eq!(diff(&gateway, &[]).code, Some(2));
    gateway.rewrite("[routes\n");
    let told = ask(&gateway, "/v1/config/diff");
    assert_eq!(told["problems"].as_array().map(Vec::len), Some(1), "{told}");
    let away = run(&Folder::new(), &["diff", "--admin", "http://127.0.0.1:1"]);
    assert_eq!(away.code, Some(3), "{}", away.stderr);
}

#[test]
fn why_the_last_reload_was_refused_is_kept() {
    let redis = Redis::start();
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let route = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n";
    let text = format!("[store]\nurl = \"{}\"\n{route}{}", redis.url(), upstream.table("shop"));
    let gateway = Gateway::start(&text);
    let last = || ask(&gateway, "/v1/config")["last_reload"].clone();
    gateway.rewrite(&format!("{text}[routes.a]\nuspteam = \"shop\"\n"));
    assert_eq!(operate(&gateway, "POST", "/v1/config/reload", "{}").status, 422);
    let refused = last();
    assert_eq!(refused["result"], "refused");
    assert!(refused["problems"].to_string().contains("unknown key"), "{refused}");
    gateway.rewrite(&format!("{text}[log]\nlevel = \"warn\"\n"));
    assert_eq!(operate(&gateway, "POST", "/v1/config/reload", "{}").status, 422);
    assert_eq!(last()["needs_restart"], json!(["log"]));
    let slower = format!("{text}response_timeout = \"7s\"\n");
    gateway.rewrite(&slower);
    assert_eq!(operate(&gateway, "POST", "/v1/config/reload", "{}").status, 200);
    assert_eq!((&last()["result"], &last()["problems"]), (&json!("applied"), &json!([])));
    let config = ask(&gateway, "/v1/config?section=upstreams");
    assert_eq!(config["config"]["upstreams"]["shop"]["response_timeout"], "7s");
    assert_eq!(ask(&gateway, "/v1/config/diff")["differs"], false);
}
