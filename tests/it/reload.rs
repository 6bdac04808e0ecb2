//! SIGHUP: a good file takes effect without anybody noticing, a bad one never does.

use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::support::{Client, Gateway, Session, Upstream, claims, eventually, response, token};

const LIMITS: &str = "[limits.two]\nkey = [\"address\"]\nallow = [\"2/1h\"]\n";

fn route(name: &str, more: &str) -> String {
    format!("[routes.{name}]\npath = \"/{name}\"\nupstream = \"shop\"\n{more}\n")
}

/// Says how often the gateway has reported the end of a reload.
fn reloads(gateway: &Gateway) -> usize {
    gateway.stderr().matches("configuration was").count()
}

/// Puts a configuration in force, or tries to.
fn reload(gateway: &Gateway, config: &str) -> String {
    let before = reloads(gateway);
    let said = gateway.stderr().len();
    gateway.rewrite(config);
    gateway.signal("HUP");
    eventually("the reload is over", || {
        let report = gateway.stderr();
        reloads(gateway) > before && !report[said..].trim_end().ends_with("keeps serving")
    });
    gateway.stderr()[said..].to_owned()
}

#[test]
fn a_good_file_takes_effect_and_drops_no_connection() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let table = upstream.table("shop");
    let gateway = Gateway::start(&format!("{table}{}", route("a", "")));
    let mut session = Session::open(gateway.public);
    assert_eq!(session.get("/a").send().status, 200);
    assert_eq!(session.get("/b").send().status, 404);
    let auth = crate::support::AUTH;
    let said = reload(&gateway, &format!("{auth}{table}{}", route("b", "auth = \"users\"")));
    assert!(said.contains("reloaded") && !said.contains("not reloaded"), "{said}");
    assert_eq!(session.get("/a").send().status, 404);
    assert_eq!(session.get("/b").send().status, 401);
    assert_eq!(session.get("/b").bearer(token(claims("42"))).send().status, 200);
    // An upstream that did not change keeps its connections.
    assert_eq!(upstream.connections(), 1);
}

/// Once a gateway had said where it listens and not yet taken charge of its signals, a SIGHUP ended
/// it.
#[test]
fn a_signal_may_come_as_soon_as_the_gateway_listens() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let config = format!("{}{}", upstream.table("shop"), route("a", ""));
    for _ in 0..10 {
        let gateway = Gateway::start(&config);
        gateway.signal("HUP");
        eventually("the reload is over", || reloads(&gateway) == 1);
        assert_eq!(Client::get(gateway.public, "/a").send().status, 200);
    }
}

#[test]
fn a_request_keeps_the_rules_it_began_with() {
    let (tell, told) = channel::<()>();
    let told = Mutex::new(told);
    let upstream = Upstream::with(move |_, connection| {
        let _ = told.lock().unwrap().recv();
        let _ = connection.write_all(response("200 OK", "fine").as_bytes());
    });
    let other = Upstream::replying(response("200 OK", "other"));
    let gateway = Gateway::start(&format!("{}{}", upstream.table("shop"), route("a", "")));
    let mut session = Session::open(gateway.public);
    session.write("GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("the request is at the upstream", || upstream.seen() == 1);
    reload(&gateway, &format!("{}{}", other.table("shop"), route("b", "")));
    tell.send(()).unwrap();
    assert_eq!(session.read().text(), "fine");
    assert_eq!(session.get("/b").send().text(), "other");
}

#[test]
fn what_was_counted_stays_counted() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let config = |more: &str| {
        format!("{LIMITS}{}{}{more}", upstream.table("shop"), route("a", "limits = [\"two\"]"))
    };
    let gateway = Gateway::start(&config(""));
    let asks = || Client::get(gateway.public, "/a").send().status;
    assert_eq!([asks(), asks()], [200, 200]);
    reload(&gateway, &config(&route("b", "")));
    assert_eq!(asks(), 429);
}

#[test]
fn a_bad_file_never_replaces_a_running_one() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let good = format!("{}{}", upstream.table("shop"), route("a", ""));
    let gateway = Gateway::start(&good);
    let mut session = Session::open(gateway.public);
    for (mistake, named) in [
        (route("b", "limits = [\"nobody\"]"), "limits = "),
        (route("b", "uspteam = \"shop\""), "uspteam"),
        ("[routes.c]\npath = \"/c\"\nupstream = \"nowhere\"\n".to_owned(), "nowhere"),
        ("[routes.c\n".to_owned(), "[routes.c"),
    ] {
        let said =
            reload(&gateway, &format!("{}{}{mistake}", upstream.table("shop"), route("new", "")));
        assert!(said.contains("not reloaded"), "{said}");
        // The line in the file that was written, with the listeners that the test added.
        let path = gateway.folder().join("gateway.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let line = 1 + text.lines().position(|line| line.contains(named)).unwrap();
        assert!(said.contains(&format!("gateway.toml:{line}:")), "{line}: {said}");
        assert!(said.contains("help: "), "{said}");
        assert_eq!(session.get("/a").send().status, 200);
        assert_eq!(session.get("/new").send().status, 404);
    }
    std::fs::remove_file(gateway.folder().join("gateway.toml")).unwrap();
    let before = reloads(&gateway);
    gateway.signal("HUP");
    eventually("the reload is over", || reloads(&gateway) > before);
    assert_eq!(session.get("/a").send().status, 200);
    // It recovers.
    let said = reload(&gateway, &format!("{good}{}", route("new", "")));
    assert!(!said.contains("not reloaded"), "{said}");
    assert_eq!(session.get("/new").send().status, 200);
}

#[test]
fn what_cannot_change_is_a_problem() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let good = format!("{}{}", upstream.table("shop"), route("a", ""));
    let gateway = Gateway::start(&good);
    let mut session = Session::open(gateway.public);
    for (change, key) in [
        ("[server]\nlisten = [\"127.0.0.1:1\"]\n", "server.listen"),
        ("[admin]\nlisten = \"127.0.0.1:1\"\n", "admin"),
        ("[store]\nurl = \"redis://127.0.0.1:1\"\n", "store"),
    ] {
        let said = reload(&gateway, &format!("{change}{good}{}", route("new", "")));
        assert!(said.contains("not reloaded"), "{key}: {said}");
        assert!(said.contains(&format!(": {key}")), "{key}: {said}");
        assert!(said.contains("restart"), "{key}: {said}");
        assert_eq!(session.get("/a").send().status, 200, "{key}");
        assert_eq!(session.get("/new").send().status, 404, "{key}");
    }
    // What the store's absence means may change.
    let said = reload(&gateway, &format!("[store.on_outage]\nlimits = \"allow\"\n{good}"));
    assert!(!said.contains("not reloaded"), "{said}");
}

#[test]
fn a_verifier_that_joins_another_one_is_told_to_have_keys_of_its_own() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let table = upstream.table("shop");
    let auth = crate::support::AUTH;
    let partners = "[auth.partners]\nissuer = \"https://partners.test\"\n\
                    audience = [\"shop\"]\nalgorithms = [\"HS256\"]\n\
                    secret = \"another-secret-of-thirty-two-bytes!\"\n";
    let alone = format!("{auth}{partners}{table}{}", route("a", "auth = \"users\""));
    let joined =
        format!("{auth}{partners}{table}{}", route("a", "auth = [\"users\", \"partners\"]"));
    let gateway = Gateway::start(&alone);
    let told = "auth.users shares a route with another verifier now";
    let said = reload(&gateway, &joined);
    assert!(said.contains(told) && said.contains("blacklist:users:JTI"), "{said}");
    let said = reload(&gateway, &joined);
    assert!(!said.contains("shares a route"), "it was told before: {said}");
    assert!(!reload(&gateway, &alone).contains("shares a route"));
}

/// Puts something at this path that is no regular file.
fn replace_by(path: &std::path::Path, kind: &str) {
    let _ = std::fs::remove_file(path);
    match kind {
        "a FIFO" => {
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.expect("mkfifo runs").success());
        }
        "a directory" => std::fs::create_dir(path).unwrap(),
        "a device" => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        "larger" => std::fs::write(path, vec![b'#'; (4 << 20) + 1]).unwrap(),
        _ => unreachable!("{kind}"),
    }
}

/// A FIFO was waited for without end, and SIGTERM with it; `/dev/zero` filled the memory.
#[test]
fn what_is_no_regular_file_is_refused_by_name_and_holds_up_no_signal() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let config = format!(
        "[auth.users]\nalgorithms = [\"HS256\"]\nsecret = \"file:secret\"\n{}{}",
        upstream.table("shop"),
        route("a", "")
    );
    for name in ["gateway.toml", "secret"] {
        for kind in ["a FIFO", "a device", "a directory", "larger"] {
            let folder = crate::support::Folder::new();
            folder.write("secret", crate::support::SECRET);
            let mut gateway = Gateway::start_in(folder, &config);
            replace_by(&gateway.folder().join(name), kind);
            gateway.signal("HUP");
            eventually("the reload is over", || {
                gateway.stderr().contains("help: ") && reloads(&gateway) == 1
            });
            let said = gateway.stderr();
            assert!(said.contains("not reloaded") && said.contains(name), "{kind}: {said}");
            assert!(said.contains(kind), "{kind}: {said}");
            assert_eq!(Client::get(gateway.public, "/a").send().status, 200, "{name} {kind}");
            gateway.signal("TERM");
            assert_eq!(gateway.wait().code(), Some(0), "{name} {kind}");
        }
    }
}
