//! A configuration of several files, with values from the environment: as `check`, a gateway that
//! runs and its admin API have it.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{
    BINARY, Client, Folder, Gateway, Upstream, eventually, operate, response, run,
};

/// A main file that includes others, watched.
const MAIN: &str = "include = [\"routes.d/*.toml\"]\n[server]\nwatch = \"100ms\"\n[admin]\n";

fn route(name: &str) -> String {
    format!("[routes.{name}]\npath = \"/{name}\"\nupstream = \"shop\"\n")
}

fn folder() -> Folder {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("routes.d")).unwrap();
    folder
}

#[test]
fn included_files_are_served_watched_and_compared() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let folder = folder();
    folder.write("routes.d/10-shop.toml", upstream.table("shop"));
    folder.write("routes.d/20-a.toml", route("a"));
    let gateway = Gateway::start_in(folder, MAIN);
    let write = |name: &str, text: &str| fs::write(gateway.folder().join(name), text).unwrap();
    let status = |path: &str| Client::get(gateway.public, path).send().status;
    let asked = |path: &str| operate(&gateway, "GET", path, "").json();
    assert_eq!((status("/a"), status("/b")), (200, 404));
    let shown = asked("/v1/config");
    assert_eq!(shown["config"]["include"], json!(["routes.d/*.toml"]));
    assert_eq!(shown["config"]["routes"]["a"]["path"], "/a");
    assert_eq!(asked("/v1/config/diff")["differs"], false);
    // A file that is new, one that changes, and one that goes.
    write("routes.d/30-b.toml", &route("b"));
    eventually("a new file is in force", || status("/b") == 200);
    assert_ne!(asked("/v1/config")["sha256"], shown["sha256"]);
    write("routes.d/30-b.toml", &route("c"));
    eventually("another one is in force", || (status("/b"), status("/c")) == (404, 200));
    write("routes.d/40-bad.toml", &route("c"));
    eventually("a bad one is refused", || gateway.stderr().contains("not reloaded"));
    let last = asked("/v1/config")["last_reload"]["problems"].to_string();
    let expected = "routes.d/40-bad.toml:1:9: routes.c: is written in routes.d/30-b.toml:1, too";
    assert!(last.contains(expected), "{last}");
    let compared = asked("/v1/config/diff");
    assert_eq!(compared["differs"], true);
    assert!(compared["problems"].to_string().contains(expected), "{compared}");
    fs::remove_file(gateway.folder().join("routes.d/30-b.toml")).unwrap();
    write("routes.d/40-bad.toml", &route("d"));
    eventually("the good ones are in force", || (status("/c"), status("/d")) == (404, 200));
    assert_eq!(asked("/v1/config/diff")["differs"], false);
}

#[test]
fn the_sum_of_several_files_is_one_that_a_shell_finds() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let folder = folder();
    folder.write("routes.d/a.toml", route("a") + &upstream.table("shop"));
    folder.write("routes.d/B.toml", route("b"));
    let gateway = Gateway::start_in(folder, MAIN);
    let sum = Command::new("sh")
        .args(["-c", "LC_ALL=C; sha256sum gateway.toml routes.d/*.toml | sha256sum"])
        .current_dir(gateway.folder())
        .output()
        .unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let sum = sum.split_whitespace().next().unwrap();
    assert_eq!(operate(&gateway, "GET", "/v1/config", "").json()["sha256"], sum);
    let meant = format!("{{\"sha256\":\"{sum}\"}}");
    assert_eq!(operate(&gateway, "POST", "/v1/config/reload", &meant).status, 200);
}

#[test]
fn the_environment_differs_and_the_file_does_not() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let text = "[server]\nlimits.headers = \"${HEADERS:-64}\"\n[admin]\ntoken = \"${TOKEN}\"\n\
                [upstreams.shop]\nservers = \"${SHOP}\"\n\
                [routes.a]\npath = \"/a\"\nupstream = \"shop\"\n";
    const TOKEN: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";
    let folder = Folder::new();
    folder.write("other.toml", text);
    let url = format!("http://{}", upstream.address());
    let checked = Command::new(BINARY)
        .arg("check")
        .env("PORTCULLIS_CONFIG", "other.toml")
        .env("SHOP", &url)
        .env("TOKEN", TOKEN)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(
        said,
        format!(
            "ok: 1 route\nadmin.token = \"[secret]\" (TOKEN)\n\
             server.limits.headers = 64 (HEADERS is not set)\n\
             upstreams.shop.servers = [\"{url}\"] (SHOP)\n"
        ),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    // The command line comes first.
    let missing = Command::new(BINARY)
        .args(["check", "--config", "no.toml"])
        .env("PORTCULLIS_CONFIG", "other.toml")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(said.starts_with("no.toml: cannot read the configuration"), "{said}");
    let unset = run(&folder, &["check", "--config", "other.toml"]);
    assert_eq!(unset.code, Some(2));
    for (line, key, name) in [(4, "admin.token", "TOKEN"), (6, "upstreams.shop.servers", "SHOP")] {
        let expected =
            format!("other.toml:{line}:1: {key}: the environment variable \"{name}\" is not set\n");
        assert!(unset.stderr.contains(&expected), "{expected}: {}", unset.stderr);
    }
    let mut command = Command::new(BINARY);
    command.stdin(Stdio::null()).env("SHOP", &url).env("TOKEN", TOKEN).env("HEADERS", "32");
    let gateway = Gateway::start_by(&mut command, folder, text);
    assert_eq!(Client::get(gateway.public, "/a").send().status, 200);
    let reply = Client::get(gateway.admin, "/v1/config").bearer(TOKEN).send();
    let shown = reply.json();
    assert_eq!(shown["config"]["server"]["limits"]["headers"], 32);
    assert_eq!(shown["config"]["upstreams"]["shop"]["servers"], json!([url]));
    assert!(!reply.text().contains(TOKEN));
    let compared = Client::get(gateway.admin, "/v1/config/diff").bearer(TOKEN).send().json();
    assert_eq!((&compared["differs"], &compared["changes"]), (&json!(false), &json!([])));
}
