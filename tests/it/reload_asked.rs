//! Reloads that are asked for by the admin API, or that the file itself asks for by changing.

use serde_json::{Value, json};

use crate::support::{
    Client, Gateway, Reply, Session, Upstream, eventually, operate, response, run,
};

fn route(name: &str, more: &str) -> String {
    format!("[routes.{name}]\npath = \"/{name}\"\nupstream = \"shop\"\n{more}\n")
}

/// The names of one kind of table in an answer.
fn names(added: &[&str], removed: &[&str], changed: &[&str]) -> Value {
    json!({ "added": added, "removed": removed, "changed": changed })
}

fn reload(gateway: &Gateway, body: &str) -> Reply {
    operate(gateway, "POST", "/v1/config/reload", body)
}

fn sha256(gateway: &Gateway) -> String {
    let path = gateway.folder().join("gateway.toml");
    let output = std::process::Command::new("sha256sum").arg(path).output().expect("sha256sum");
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn an_operator_reloads_and_is_told_what_that_has_changed() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let table = upstream.table("shop");
    let gateway = Gateway::start(&[&table, &*route("a", ""), &*route("b", "")].concat());
    let mut session = Session::open(gateway.public);
    assert_eq!(session.get("/a").send().status, 200);
    assert_eq!(session.get("/c").send().status, 404);
    let limit = "[limits.many]\nkey = [\"address\"]\nallow = [\"100/1h\"]\n";
    let b = route("b", "limits = [\"many\"]");
    let slower = format!("{table}\nresponse_timeout = \"7s\"\n");
    gateway.rewrite(&[&slower, limit, &b, &route("c", "")].concat());
    let reply = reload(&gateway, "{}");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let told = reply.json();
    assert_eq!(told["sha256"], sha256(&gateway));
    assert_eq!(told["routes"], names(&["c"], &["a"], &["b"]));
    assert_eq!(told["upstreams"], names(&[], &[], &["shop"]));
    assert_eq!(told["limits"], names(&["many"], &[], &[]));
    assert_eq!(told["auth"], names(&[], &[], &[]));
    assert_eq!(told["sections"], json!([]));
    assert_eq!(session.get("/a").send().status, 404);
    assert_eq!(session.get("/c").send().status, 200);
    // How an upstream behaves is not what it is.
    assert_eq!(upstream.connections(), 1);
    let said = gateway.stderr();
    let audit = said.lines().find(|line| line.contains("audit ")).expect("a line");
    assert!(audit.contains("operation=\"POST /v1/config/reload\""), "{audit}");
    assert!(audit.contains("result=done"), "{audit}");
    assert!(said.contains("reloaded: routes +c -a ~b; upstreams ~shop; limits +many"), "{said}");
}

#[test]
fn a_bad_file_is_refused_with_what_check_prints() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let table = upstream.table("shop");
    let gateway = Gateway::start(&format!("{table}{}", route("a", "")));
    let two = route("b", "limits = [\"nobody\"]\nuspteam = \"shop\"");
    for wrong in [format!("{table}{two}"), "[routes.c\n".to_owned()] {
        gateway.rewrite(&wrong);
        let reply = reload(&gateway, "");
        assert_eq!(reply.status, 422, "{}", reply.text());
        let told = reply.json();
        assert_eq!(told["type"], "urn:portcullis:problem:config_invalid");
        let checked = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["check", "--config", "gateway.toml"])
            .current_dir(gateway.folder())
            .output()
            .expect("the binary runs");
        assert_eq!(told["detail"], String::from_utf8_lossy(&checked.stderr).as_ref());
        assert_eq!(Client::get(gateway.public, "/a").send().status, 200);
    }
    gateway.rewrite(&format!("[log]\nlevel = \"debug\"\n{table}{}", route("a", "")));
    let reply = reload(&gateway, "{}");
    assert_eq!(reply.status, 422, "{}", reply.text());
    let told = reply.json();
    assert_eq!(told["type"], "urn:portcullis:problem:config_needs_restart");
    assert_eq!(told["needs_restart"], json!(["log"]));
    assert!(told["detail"].as_str().unwrap().contains("help: restart"), "{told}");
    let metrics = Client::get(gateway.admin, "/metrics").send().text();
    assert!(metrics.contains("portcullis_reloads_total{result=\"refused\"} 3"), "{metrics}");
}

#[test]
fn only_the_file_that_is_meant_takes_effect() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let table = upstream.table("shop");
    let gateway = Gateway::start(&format!("{table}{}", route("a", "")));
    let meant = sha256(&gateway);
    gateway.rewrite(&format!("{table}{}", route("b", "")));
    let reply = reload(&gateway, &format!("{{\"sha256\":\"{meant}\"}}"));
    assert_eq!(reply.status, 409, "{}", reply.text());
    assert_eq!(reply.json()["type"], "urn:portcullis:problem:config_changed");
    assert_eq!(reply.json()["sha256"], sha256(&gateway));
    assert_eq!(Client::get(gateway.public, "/b").send().status, 404);
    // Nobody has found the file bad.
    let shown = operate(&gateway, "GET", "/v1/config", "").json();
    assert_eq!(shown["last_reload"], Value::Null);
    let metrics = Client::get(gateway.admin, "/metrics").send().text();
    assert!(metrics.contains("portcullis_config_last_reload_successful 1"), "{metrics}");
    let now = sha256(&gateway).to_uppercase();
    assert_eq!(reload(&gateway, &format!("{{\"sha256\":\"{now}\"}}")).status, 200);
    assert_eq!(Client::get(gateway.public, "/b").send().status, 200);
    assert_eq!(reload(&gateway, "{\"sha\":1}").status, 400);
    assert_eq!(operate(&gateway, "GET", "/v1/config/reload", "").status, 405);
}

#[test]
fn a_file_that_changes_takes_effect_by_itself() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let begin = format!("[server]\nwatch = \"100ms\"\n{}", upstream.table("shop"));
    let gateway = Gateway::start(&format!("{begin}{}", route("a", "")));
    let status = |path: &str| Client::get(gateway.public, path).send().status;
    assert_eq!((status("/a"), status("/b")), (200, 404));
    gateway.rewrite(&format!("{begin}{}", route("b", "")));
    eventually("the new file is in force", || status("/b") == 200);
    gateway.rewrite(&format!("{begin}{}", route("c", "limits = [\"nobody\"]")));
    eventually("the bad file is refused", || gateway.stderr().contains("not reloaded"));
    assert_eq!((status("/b"), status("/c")), (200, 404));
    gateway.rewrite(&format!("{begin}{}", route("d", "")));
    eventually("the good file is in force", || status("/d") == 200);
    let said = gateway.stderr();
    assert!(said.contains("audit by=server.watch operation=\"reload\" result=done"), "{said}");
    assert_eq!(said.matches("not reloaded").count(), 1, "a bad file is refused once: {said}");
    // Without the key, the file is only looked at when that is asked for.
    let quiet = format!("{}{}", upstream.table("shop"), route("e", ""));
    gateway.rewrite(&quiet);
    eventually("watching is turned off", || status("/e") == 200);
    gateway.rewrite(&format!("{}{}", upstream.table("shop"), route("f", "")));
    assert_eq!(reload(&gateway, "{}").status, 200);
    assert_eq!(status("/f"), 200);
    assert_eq!(gateway.stderr().matches("by=server.watch").count(), 4);
}

#[test]
fn the_period_of_watching_is_bounded() {
    let folder = crate::support::Folder::new();
    for (period, is_good) in [("99ms", false), ("2h", false), ("0s", true), ("5s", true)] {
        let text = format!("[server]\nwatch = \"{period}\"\n");
        folder.write("gateway.toml", &text);
        let checked = run(&folder, &["check"]);
        let told = checked.stderr.contains("server.watch: the duration is out of range");
        assert_eq!(told, !is_good, "{period}: {}", checked.stderr);
    }
}
