//! `portcullis revoke` and `portcullis purge` against a running gateway: what they do, what they
//! print, and their exit status.

use std::net::TcpListener;
use std::process::Command;

use serde_json::json;

use super::{House, knows};
use crate::auth::with;
use crate::support::{
    AUTH, Client, Folder, Gateway, Refused, Upstream, eventually, operate, response, run, run_with,
    token,
};

const OPERATOR: &str = "operator-0123456789";

/// A gateway with a cached route and a protected one, on the embedded store.
fn start(more: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let routes = "[routes.private]\npath = \"/private\"\nupstream = \"shop\"\nauth = \"users\"\n\
                  [routes.products]\npath = \"/products/*\"\nupstream = \"shop\"\n\
                  cache = { ttl = \"1h\" }\n";
    let gateway = Gateway::start(&(more.to_owned() + AUTH + &upstream.table("shop") + routes));
    (upstream, gateway)
}

fn url(gateway: &Gateway) -> String {
    format!("http://{}", gateway.admin)
}

/// The command against this gateway, which must succeed; what it printed.
fn done(gateway: &Gateway, arguments: &[&str]) -> String {
    let url = url(gateway);
    let ran = run(&Folder::new(), &[arguments, &["--admin", &url]].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    ran.stdout
}

fn refused(ran: &Refused, status: i32, parts: &[&str]) {
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(status), ""), "{}", ran.stderr);
    for part in parts {
        assert!(ran.stderr.contains(part), "{part:?} is not in {}", ran.stderr);
    }
    assert!(!ran.stderr.contains(OPERATOR), "{}", ran.stderr);
}

#[test]
fn every_kind_is_revoked_and_taken_back() {
    let (_upstream, gateway) = start("");
    let nameless = token(with(json!({"jti": null})));
    for (option, value, token, key) in [
        ("--jti", "t-1", token(with(json!({"jti": "t-1"}))), "app:auth:blacklist:t-1"),
        ("--token", &nameless, nameless.clone(), "app:auth:blacklist:sha256:"),
        ("--sid", "s-1", token(with(json!({"sid": "s-1"}))), "app:auth:blacklist:sid:s-1"),
        // Issued this very second, or just before it.
        ("--sub", "u-1", token(with(json!({"sub": "u-1"}))), "app:auth:not-before:u-1"),
    ] {
        let status = || Client::get(gateway.public, "/private").bearer(&token).send().status;
        assert_eq!(status(), 200, "{option}");
        let said = done(&gateway, &["revoke", option, value]);
        assert!(said.starts_with(&format!("revoked: {key}")) && said.contains(", for "), "{said}");
        assert_eq!(status(), 401, "{option}");
        let said = done(&gateway, &["revoke", "--undo", option, value]);
        assert!(said.starts_with(&format!("taken back: {key}")), "{said}");
        assert_eq!(status(), 200, "{option}");
    }
    // A token on the command line would stand in every process list.
    let folder = Folder::new();
    folder.write("token", format!("{nameless}\n"));
    let status = || Client::get(gateway.public, "/private").bearer(&nameless).send().status;
    for (place, input) in [("env:LOST", ""), ("file:token", ""), ("-", &*nameless)] {
        for (undo, before, after) in [(None, 200, 401), (Some("--undo"), 401, 200)] {
            assert_eq!(status(), before, "{place}");
            let url = url(&gateway);
            let mut arguments = vec!["revoke", "--token", place, "--admin", &url];
            arguments.extend(undo);
            let ran = run_with(&folder, &arguments, &[("LOST", &nameless)], input);
            assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{place}");
            assert_eq!(status(), after, "{place}");
        }
    }
    let said = done(&gateway, &["revoke", "--jti", "t-1", "--expires-in", "24h"]);
    assert_eq!(said, "revoked: app:auth:blacklist:t-1, for 1d\n");
}

#[test]
fn a_user_who_is_revoked_loses_the_sessions_too() {
    let (_upstream, gateway) =
        start("[session]\nid_from = [\"cookie:sid\"]\nidle_timeout = \"30m\"\n");
    let put = |id: &str, user: &str| {
        let path = format!("/v1/sessions/{id}?user={user}");
        assert_eq!(operate(&gateway, "PUT", &path, "{}").status, 201);
    };
    let is_there =
        |id: &str| operate(&gateway, "GET", &format!("/v1/sessions/{id}"), "").status == 200;
    put("s1", "u-1");
    put("s2", "u-1");
    put("s3", "u-2");
    let revoke = ["revoke", "--sub", "u-1", "--expires-in", "24h"];
    let said = done(&gateway, &revoke);
    assert_eq!(said, "revoked: app:auth:not-before:u-1, for 1d; 2 sessions ended\n");
    assert_eq!(["s1", "s2", "s3"].map(is_there), [false, false, true]);
    put("s4", "u-1");
    let said = done(&gateway, &revoke);
    assert_eq!(said, "revoked: app:auth:not-before:u-1, for 1d; 1 session ended\n");
    let said = done(&gateway, &["revoke", "--undo", "--sub", "u-1"]);
    assert!(said.starts_with("taken back: app:auth:not-before:u-1; sessions"), "{said}");
    assert!(!is_there("s4"));
    let (_upstream, without) = start("");
    let said = done(&without, &revoke);
    assert!(said.ends_with("; 0 sessions ended\n"), "{said}");
}

#[test]
fn a_revocation_by_command_reaches_the_other_gateways() {
    let mut house = House::open();
    let (a, b) = (house.gateway(), house.gateway());
    done(&a, &["revoke", "--jti", "t-1"]);
    knows(&b, 1);
    house.redis.kill();
    house.refuses(&b, &token(with(json!({"jti": "t-1"}))), "from memory");
}

#[test]
fn a_purge_makes_what_it_names_stale() {
    let (_upstream, gateway) = start("");
    let is_hit = |path: &str| {
        let reply = Client::get(gateway.public, path).send();
        reply.header("cache-status").expect("Cache-Status").contains("hit")
    };
    let paths = ["/products/1", "/products/1/more", "/products/2"];
    let host = format!("http://shop.test/{}", "products/1?q=1");
    for (arguments, said, stale) in [
        (vec!["--path", "/products/1"], "/products/1 and everything below it", [true, true, false]),
        (vec!["--path", "/products/1/*"], "/products/1 and everything below", [true, true, false]),
        (
            vec!["--url", &host],
            "http://shop.test/products/1?q=1, that is shop.test/products/1 with every query",
            [true, false, false],
        ),
        (vec!["--all"], "everything", [true, true, true]),
    ] {
        for path in paths {
            eventually("it is stored", || is_hit(path));
        }
        let printed = done(&gateway, &[&["purge"], arguments.as_slice()].concat());
        assert!(printed.starts_with(&format!("purged: {said}")), "{printed}");
        let misses = paths.map(|path| !is_hit(path));
        assert_eq!(misses, stale, "{arguments:?}");
    }
}

#[test]
fn the_configuration_says_where_the_gateway_is_and_what_it_wants() {
    let (_upstream, gateway) = start(&format!("[admin]\ntoken = \"{OPERATOR}\"\n"));
    let folder = Folder::new();
    let file = |token: &str| {
        let text = format!("[admin]\nlisten = \"{}\"\n{token}\n", gateway.admin);
        folder.write("gateway.toml", text + "[store]\npassword = \"env:NOT_SET_HERE\"\n");
    };
    file(&format!("token = \"{OPERATOR}\""));
    let ran = run(&folder, &["purge", "--all"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "purged: everything\n"), "{ran:?}");
    // Where the operator's shell lacks the token, the command says so instead of being refused.
    file("token = \"env:NOT_SET_HERE\"");
    refused(&run(&folder, &["purge", "--all"]), 2, &["admin.token", "NOT_SET_HERE", "set it"]);
    folder.write("token", format!("{OPERATOR}\n"));
    let ran = run(&folder, &["purge", "--all", "--admin-token", "file:token"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let with_variable = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["purge", "--all", "--admin", &url(&gateway), "--admin-token", "env:OPERATOR"])
        .env("OPERATOR", OPERATOR)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&with_variable.stdout), "purged: everything\n");
}

#[test]
fn a_gateway_that_refuses_is_status_1() {
    let (_upstream, gateway) = start(&format!("[admin]\ntoken = \"{OPERATOR}\"\n"));
    let folder = Folder::new();
    folder.write("wrong", "operator-987654321");
    let url = url(&gateway);
    let purge = ["purge", "--all", "--admin", &url];
    let wrong = run(&folder, &[purge.as_slice(), &["--admin-token", "file:wrong"]].concat());
    refused(&wrong, 1, &["does not accept this admin token", "--admin-token env:NAME"]);
    refused(&run(&folder, &purge), 1, &["wants its admin token", "--admin-token env:NAME"]);

    let (_upstream, open) = start("");
    let ask = |arguments: &[&str], admin: &str| {
        run(&folder, &[arguments, &["--admin", &format!("http://{admin}")]].concat())
    };
    let admin = open.admin.to_string();
    let nothing = ask(&["revoke", "--undo", "--jti", "t-1"], &admin);
    refused(&nothing, 1, &["Nothing is revoked under app:auth:blacklist:t-1"]);
    refused(&ask(&["revoke", "--token", "abc"], &admin), 1, &["no JWT"]);
    refused(
        &ask(&["revoke", "--jti", "a", "--expires-in", "soon"], &admin),
        1,
        &["expires_in", "15m"],
    );
    refused(&ask(&["purge", "--path", "products"], &admin), 1, &["no path", "/a/*"]);
    let public = ask(&["purge", "--all"], &open.public.to_string());
    refused(&public, 1, &["no admin listener", "--admin http://HOST:PORT"]);
}

#[test]
fn no_gateway_is_status_3() {
    let folder = Folder::new();
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap();
    let help = ["no gateway answers on", "admin.listen", "--config", "--admin http://HOST:PORT"];
    let url = format!("http://{free}");
    refused(&run(&folder, &["purge", "--all", "--admin", &url]), 3, &help);
    folder.write("gateway.toml", format!("[admin]\nlisten = \"{free}\"\n"));
    refused(&run(&folder, &["revoke", "--jti", "a"]), 3, &help);
    // Somebody who hangs up at once.
    let rude = Upstream::with(|_, connection| {
        let _ = connection.shutdown(std::net::Shutdown::Both);
    });
    refused(&run(&folder, &["purge", "--all", "--admin", &rude.url()]), 3, &help);
}

#[test]
fn a_command_line_that_cannot_be_used_is_status_2() {
    let folder = Folder::new();
    for (arguments, part) in [
        (["revoke"].as_slice(), "--jti"),
        (&["revoke", "--jti", "a", "--sub", "b"], "cannot be used with"),
        (&["revoke", "--jti", "a", "--undo", "--expires-in", "1h"], "cannot be used with"),
        (&["purge"], "--path"),
        (&["purge", "--all", "--url", "http://a/"], "cannot be used with"),
        (&["purge", "--all"], "--admin http://HOST:PORT"),
        (&["purge", "--all", "--admin", "https://h:1"], "plain HTTP"),
        (&["purge", "--all", "--admin-token", OPERATOR], "env:NAME or file:PATH"),
        (&["purge", "--all", "--admin-token", "env:NOT_SET_HERE"], "NOT_SET_HERE is not set"),
    ] {
        refused(&run(&folder, arguments), 2, &[part]);
    }
    for command in ["revoke", "purge"] {
        let help = run(&folder, &[command, "--help"]);
        assert_eq!(help.code, Some(0));
        for part in ["--admin <http://HOST:PORT>", "--admin-token", "Exit status: 0 done"] {
            assert!(help.stdout.contains(part), "{command}: {}", help.stdout);
        }
    }
}
