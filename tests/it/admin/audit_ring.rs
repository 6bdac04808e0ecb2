//! Who did what here, and why a request was refused: `GET /v1/operations`, `portcullis requests`.

use serde_json::{Value, json};

use super::{problem, start};
use crate::support::{AUTH, Client, Folder, Gateway, Upstream, eventually, operate, response, run};

const TOKENS: &str =
    "[admin]\ntoken = \"operator-0123456789\"\nread_token = \"reader-0123456789\"\n";

fn operations(gateway: &Gateway, query: &str) -> Vec<Value> {
    let answer = operate(gateway, "GET", &format!("/v1/operations{query}"), "").json();
    assert_eq!(answer["bound"], 512);
    answer["operations"].as_array().expect("a list").clone()
}

#[test]
fn the_last_operations_are_kept_and_reloads_among_them() {
    let (_upstream, gateway) = start("");
    assert_eq!(operations(&gateway, ""), [""; 0], "nothing was done");
    operate(&gateway, "POST", "/v1/cache/purge", r#"{"path": "/a/*"}"#);
    operate(&gateway, "POST", "/v1/revocations", "{");
    gateway.signal("HUP");
    eventually("all three are kept", || operations(&gateway, "").len() == 3);
    let all = operations(&gateway, "");
    let newest = &all[0];
    assert_eq!((&newest["by"], &newest["operation"]), (&json!("SIGHUP"), &json!("reload")));
    assert_eq!((&newest["result"], &newest["id"]), (&json!("done"), &json!(3)));
    assert_eq!((&all[1]["result"], &all[1]["status"]), (&json!("refused"), &json!(400)));
    let purge = &all[2];
    assert_eq!(purge["operation"], "POST /v1/cache/purge");
    assert_eq!((&purge["by"], &purge["from"]), (&json!("loopback"), &json!("127.0.0.1")));
    assert_eq!((&purge["object"]["path"], &purge["status"]), (&json!("/a/*"), &json!(200)));
    assert!(purge["t"].as_str().is_some_and(|t| t.ends_with('Z')), "{purge}");
    let before = operations(&gateway, "?before=3");
    assert_eq!(before, all[1..]);
    for query in ["?before=x", "?after=3"] {
        let reply = operate(&gateway, "GET", &format!("/v1/operations{query}"), "");
        assert_eq!(problem(&reply), (400, "request_invalid".to_owned()), "{query}");
    }
}

#[test]
fn who_only_reads_does_not_learn_whom_an_operation_named() {
    let (_upstream, gateway) = start(TOKENS);
    let send = |method: &str, path: &str, bearer: &str, body: &str| {
        let request = Client::request(gateway.admin, method, path).bearer(bearer);
        request.header("Content-Type", "application/json").body(body).send()
    };
    let revoked = send("POST", "/v1/revocations", "operator-0123456789", r#"{"sub": "zorro"}"#);
    assert_eq!(revoked.status, 201);
    let told = |bearer: &str| send("GET", "/v1/operations", bearer, "").text();
    eventually("it is kept", || told("operator-0123456789").contains("\"sub\":\"zorro\""));
    let masked = told("reader-0123456789");
    assert!(masked.contains("POST /v1/revocations") && !masked.contains("zorro"), "{masked}");
}

#[test]
fn whoever_has_no_token_makes_nobody_forget_what_was_done() {
    let (_upstream, gateway) = start(TOKENS);
    let post = |path: &str| {
        Client::request(gateway.admin, "POST", path)
            .header("Content-Type", "application/json")
            .body(r#"{"path": "/a/*"}"#)
    };
    assert_eq!(post("/v1/cache/purge").bearer("operator-0123456789").send().status, 200);
    for _ in 0..600 {
        assert_eq!(post("/v1/cache/purge").send().status, 401);
    }
    let all = || {
        let list = Client::get(gateway.admin, "/v1/operations").bearer("operator-0123456789");
        list.send().json()["operations"].as_array().expect("a list").clone()
    };
    eventually("the last one is kept", || all()[0]["id"] == 601);
    let all = all();
    assert_eq!((all.len(), &all[0]["by"]), (65, &json!("nobody")));
    assert_eq!((&all[64]["by"], &all[64]["result"]), (&json!("admin.token"), &json!("done")));
}

#[test]
fn why_a_request_was_refused_is_one_command() {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let routes = "[limits.api]\nkey = [\"address\"]\nallow = [\"1/1h\"]\n[routes.limited]\n\
                  path = \"/limited\"\nupstream = \"shop\"\nlimits = [\"api\"]\n";
    let gateway = Gateway::start(&format!("{AUTH}{}{routes}", upstream.table("shop")));
    let ran = |arguments: &[&str]| {
        let url = format!("http://{}", gateway.admin);
        run(&Folder::new(), &[&["requests"], arguments, &["--admin", &url]].concat())
    };
    let nothing = ran(&["--refused"]);
    assert_eq!(nothing.code, Some(0), "{}", nothing.stderr);
    assert!(nothing.stdout.starts_with("no such request is kept"), "{}", nothing.stdout);
    for status in [200, 429] {
        assert_eq!(Client::get(gateway.public, "/limited").send().status, status);
    }
    assert_eq!(Client::get(gateway.public, "/nowhere").send().status, 404);
    eventually("both are kept", || ran(&[]).stdout.lines().count() == 2);
    let limited = ran(&["--status", "4xx", "--route", "limited", "--refused"]).stdout;
    for part in [
        " 429 limit_exceeded  GET ",
        "/limited  in ",
        "  from 127.0.0.1  limit api in 1h",
        "limit api in 1h for address=127.0.0.1 is exhausted; retry in ",
    ] {
        assert!(limited.contains(part), "{part} in {limited}");
    }
    assert_eq!(limited.lines().count(), 1);
    assert!(ran(&["--reason", "route_not_found"]).stdout.contains("/nowhere"));
    assert!(ran(&["--subject", "4 2"]).stdout.starts_with("no such request"));
    let json: Value = serde_json::from_str(&ran(&["--json"]).stdout).expect("JSON");
    assert_eq!(json["requests"].as_array().map(Vec::len), Some(2));
    let wrong = ran(&["--status", "9xx"]);
    assert_eq!(wrong.code, Some(1), "{}", wrong.stderr);
}
