//! The revocations in force as operators see them: from wherever they are known, page by page, by
//! the command, and taken back by what the list says of them.

use serde_json::{Value, json};

use super::problem;
use crate::auth::with;
use crate::support::{
    AUTH, Client, Folder, Gateway, Redis, Reply, TcpProxy, Upstream, eventually, operate, response,
    run, token,
};

const TOKENS: &str =
    "[admin]\ntoken = \"operator-0123456789\"\nread_token = \"reader-0123456789\"\n";
const PATH: &str = "/v1/revocations";

/// Where a gateway knows revocations from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Embedded,
    /// In Redis, whose stream is followed.
    Followed,
    /// In Redis, whose stream is read when somebody asks.
    Read,
}

fn start(kept: Kept, url: &str, more: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let store = format!("[store]\nurl = \"{url}\"\ntimeout = \"5s\"\n");
    let store = match kept {
        Kept::Embedded => String::new(),
        Kept::Read => store,
        Kept::Followed => store + "[store.on_outage]\nrevocation_max_stale = \"1h\"\n",
    };
    let route = "[routes.private]\npath = \"/private\"\nupstream = \"shop\"\nauth = \"users\"\n";
    let table = upstream.table("shop");
    let gateway = Gateway::start(&format!("{more}{store}{AUTH}{table}{route}"));
    (upstream, gateway)
}

fn revoke(gateway: &Gateway, what: &Value) {
    let reply = operate(gateway, "POST", PATH, &what.to_string());
    assert_eq!(reply.status, 201, "{}", reply.text());
}

fn list(gateway: &Gateway, query: &str) -> Value {
    let reply = operate(gateway, "GET", &format!("{PATH}{query}"), "");
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn rows(answer: &Value) -> Vec<Value> {
    answer["revocations"].as_array().expect("a list").clone()
}

/// Kind and what, of each.
fn shown(answer: &Value) -> Vec<(String, String)> {
    let one = |row: &Value| {
        let kind = row["kind"].as_str().expect("a kind").to_owned();
        let member = if kind == "key" { "key_id" } else { &kind };
        (kind.clone(), row[member].as_str().expect("what it is").to_owned())
    };
    rows(answer).iter().map(one).collect()
}

/// The cursor, for a query.
fn before(answer: &Value) -> String {
    format!("&before={}", answer["next"].as_str().expect("more").replace('#', "%23"))
}

#[test]
fn what_is_revoked_is_listed_wherever_it_is_known() {
    let redis = Redis::start();
    for (kept, from) in
        [(Kept::Embedded, "memory"), (Kept::Followed, "memory"), (Kept::Read, "stream")]
    {
        redis.cli(&["FLUSHALL"]);
        let (_upstream, gateway) = start(kept, &redis.url(), "");
        let empty = list(&gateway, "");
        assert_eq!((&empty["total"], &empty["next"]), (&json!(0), &Value::Null), "{kept:?}");
        let nameless = token(with(json!({"jti": null})));
        let cert = "0f".repeat(32);
        let named = ["jti", "sid", "sub", "key_id", "cert", "token"];
        for (name, value) in named.iter().zip(["t-1", "s-1", "u-1", "k-1", &cert, &nameless]) {
            revoke(&gateway, &json!({ *name: value }));
        }
        let all = list(&gateway, "");
        assert_eq!((&all["from"], &all["total"]), (&json!(from), &json!(6)), "{kept:?}");
        assert_eq!((&all["current"], &all["complete"]), (&json!(true), &json!(true)), "{kept:?}");
        assert_eq!(all["bound"], 100_000);
        let text = all.to_string();
        assert!(!text.contains("s-1") && !text.contains(&nameless), "no credential: {text}");
        let found = shown(&all);
        for (kind, what) in [("jti", "t-1"), ("sub", "u-1"), ("key", "k-1"), ("cert", &*cert)] {
            assert!(found.contains(&(kind.to_owned(), what.to_owned())), "{kind}: {found:?}");
        }
        for kind in ["sid", "jti"] {
            assert!(found.iter().any(|(it, what)| it == kind && what.starts_with("sha256:")));
        }
        for row in rows(&all) {
            let [made, ends] = ["revoked_at", "expires_at"].map(|it| row[it].as_str());
            assert!(made.is_some_and(|it| it.starts_with("20") && it.ends_with('Z')), "{row}");
            assert!(ends > made, "{row}");
            assert_eq!(row["not_before"].is_i64(), row["kind"] == "sub", "{row}");
        }
        for (query, total) in
            [("?kind=jti", 2), ("?kind=cert", 1), ("?sub=u-1", 1), ("?sub=u", 0), ("?sub=t-1", 0)]
        {
            let some = list(&gateway, query);
            assert_eq!((&some["total"], rows(&some).len()), (&json!(total), total), "{query}");
        }
        // Page by page it is the same.
        let (mut pages, mut query) = (Vec::new(), String::new());
        for _ in 0..2 {
            let page = list(&gateway, &format!("?limit=4{query}"));
            pages.extend(rows(&page));
            assert_eq!(page["total"], 6);
            query = if page["next"].is_null() { query } else { before(&page) };
        }
        assert_eq!(pages, rows(&all), "{kept:?}");
    }
}

#[test]
fn the_newest_stands_first_and_a_name_takes_it_back() {
    let redis = Redis::start();
    for kept in [Kept::Followed, Kept::Read] {
        redis.cli(&["FLUSHALL"]);
        let (_upstream, gateway) = start(kept, &redis.url(), "");
        let sid = token(with(json!({"sid": "s-1"})));
        let status = || Client::get(gateway.public, "/private").bearer(&sid).send().status;
        assert_eq!(status(), 200);
        revoke(&gateway, &json!({ "sid": "s-1" }));
        assert_eq!(status(), 401);
        // Another gateway's, or an application's, an hour ago; and one that is over.
        let key = |id: &str| format!("app:auth:blacklist:{id}");
        let tell = |id: &str, until: &str, fields: &[&str]| {
            let key = key(id);
            let entry = ["XADD", "app:auth:revocations", "*", "key", &key, "until", until];
            redis.cli(&[entry.as_slice(), fields].concat());
        };
        tell("told", "9999999999", &[]);
        tell("over", "1000", &[]);
        tell("back", "9999999999", &[]);
        tell("back", "0", &[]);
        // Neither of them is a revocation.
        redis.cli(&["XADD", "app:auth:revocations", "*", "key", "app:session:s", "until", "9"]);
        redis.cli(&["XADD", "app:auth:revocations", "*", "nothing", "1"]);
        eventually("all of it is known", || {
            let told = shown(&list(&gateway, ""));
            told.len() == 2 && told[0].1 == "told" && told[1].0 == "sid"
        });
        let row = rows(&list(&gateway, "?kind=sid"))[0].clone();
        let name = row["id"].as_str().expect("a name");
        let named = |name: &str| {
            operate(&gateway, "DELETE", &format!("{PATH}?id={}", name.replace('#', "%23")), "")
        };
        let done = named(name);
        assert_eq!(done.status, 200, "{}", done.text());
        let what = format!("sid {}", row["sid"].as_str().expect("a digest"));
        assert_eq!(done.json(), json!({ "id": name, "what": what }));
        assert_eq!(status(), 200, "{kept:?}");
        eventually("it is listed no more", || list(&gateway, "?kind=sid")["total"] == 0);
        for gone in [name, "#0123456789abcdef", "[redacted]"] {
            assert_eq!(problem(&named(gone)), (404, "revocation_not_found".to_owned()), "{gone}");
        }
        let audited = format!(" sid={} ", row["sid"]);
        let line = gateway.stderr();
        let line =
            line.lines().find(|line| line.contains("result=done") && line.contains("DELETE"));
        assert!(line.is_some_and(|line| line.contains(&audited)), "the audit says what: {line:?}");
        for (method, body) in [
            ("POST", json!({ "id": name })),
            ("DELETE", json!({ "id": name, "sub": "u-1" })),
            ("DELETE", json!({ "id": name, "auth": "users" })),
        ] {
            let reply = operate(&gateway, method, PATH, &body.to_string());
            assert_eq!(problem(&reply), (400, "request_invalid".to_owned()), "{method} {body}");
        }
    }
}

#[test]
fn without_redis_there_is_what_was_followed_or_nothing() {
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let (_one, following) = start(Kept::Followed, &proxy.url(), "");
    let (_two, reading) = start(Kept::Read, &proxy.url(), "");
    revoke(&reading, &json!({ "sub": "u-1" }));
    let total = |gateway: &Gateway| list(gateway, "")["total"].clone();
    eventually("it is known", || total(&following) == 1);
    proxy.refuse();
    eventually("it is said that they are old", || list(&following, "")["current"] == false);
    let kept = list(&following, "");
    assert_eq!((&kept["total"], &kept["complete"]), (&json!(1), &json!(true)));
    let gone = operate(&reading, "GET", PATH, "");
    assert_eq!(problem(&gone), (503, "store_unreachable".to_owned()));
    proxy.pass();
    eventually("both know again", || {
        let reads = operate(&reading, "GET", PATH, "");
        list(&following, "")["current"] == true && reads.status == 200
    });
    assert_eq!(total(&reading), 1);
}

#[test]
fn a_stream_that_was_cut_is_said_to_be_incomplete() {
    let redis = Redis::start();
    let (_upstream, gateway) = start(Kept::Read, &redis.url(), "");
    for id in ["t-1", "t-2", "t-3"] {
        revoke(&gateway, &json!({ "jti": id }));
    }
    assert_eq!(list(&gateway, "")["complete"], true);
    redis.cli(&["XTRIM", "app:auth:revocations", "MAXLEN", "2"]);
    // What was read is known.
    let all = list(&gateway, "");
    assert_eq!((&all["total"], &all["complete"]), (&json!(3), &json!(true)));
    let (_another, gateway) = start(Kept::Read, &redis.url(), "");
    let rest = list(&gateway, "");
    assert_eq!((&rest["total"], &rest["complete"]), (&json!(2), &json!(false)));
    // With the stream the keys are gone: nobody is refused by them.
    redis.cli(&["FLUSHALL"]);
    let none = list(&gateway, "");
    assert_eq!((&none["total"], &none["complete"]), (&json!(0), &json!(true)));
    revoke(&gateway, &json!({ "jti": "t-4" }));
    assert_eq!(list(&gateway, "")["total"], 1);
}

#[test]
fn who_only_looks_sees_that_and_not_whom() {
    let (_upstream, gateway) = start(Kept::Embedded, "", TOKENS);
    let ask = |method: &str, path: &str, token: &str, body: &str| -> Reply {
        Client::request(gateway.admin, method, path)
            .header("Content-Type", "application/json")
            .bearer(token)
            .body(body)
            .send()
    };
    let made = ask("POST", PATH, "operator-0123456789", r#"{"sub": "ursula"}"#);
    assert_eq!(made.status, 201);
    let [seen, whole] = ["reader-0123456789", "operator-0123456789"]
        .map(|token| rows(&ask("GET", PATH, token, "").json())[0].clone());
    assert_eq!(whole["sub"], "ursula");
    assert!(!seen.to_string().contains("ursula"), "{seen}");
    assert!(seen["sub"].as_str().is_some_and(|it| it.starts_with('#')), "{seen}");
    assert_eq!((&seen["kind"], &seen["id"]), (&whole["kind"], &whole["id"]));
    let refused = ask("DELETE", &format!("{PATH}?sub=ada"), "reader-0123456789", "");
    assert_eq!(problem(&refused), (403, "admin_read_only".to_owned()));
}

#[test]
fn a_subject_is_found_under_each_verifier_that_tells_its_callers_apart() {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let staff = AUTH.replace("auth.users", "auth.staff").replace("login.test", "staff.test");
    let route = "[routes.private]\npath = \"/private\"\nupstream = \"shop\"\n\
                 auth = [\"users\", \"staff\"]\n";
    let staff = staff.replace("claims_to_headers", "# claims_to_headers");
    let gateway = Gateway::start(&format!("{AUTH}{staff}{}{route}", upstream.table("shop")));
    revoke(&gateway, &json!({ "sub": "ada", "auth": "staff" }));
    revoke(&gateway, &json!({ "jti": "t-1", "auth": "users" }));
    let told = |query: &str| {
        let all = list(&gateway, query);
        rows(&all).iter().map(|row| row["auth"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(told("?sub=ada"), [json!("staff")]);
    assert_eq!(told("?kind=jti"), [json!("users")]);
}

#[test]
fn the_command_lists_them_line_by_line() {
    let (_upstream, gateway) = start(Kept::Embedded, "", "");
    let url = format!("http://{}", gateway.admin);
    let ran = |arguments: &[&str]| {
        run(&Folder::new(), &[&["revoke"], arguments, &["--admin", &url]].concat())
    };
    let said = |arguments: &[&str]| {
        let ran = ran(arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        ran.stdout
    };
    assert_eq!(said(&["--list"]), "0 more\n");
    said(&["--sub", "u-1"]);
    said(&["--key-id", "k-1"]);
    let all = said(&["--list"]);
    for line in ["sub \"u-1\" revoked=20", "key \"k-1\" revoked=20"] {
        assert!(all.contains(line), "{line} is not in {all}");
    }
    assert!(all.contains(" until=20") && all.ends_with("\n0 more\n"), "{all}");
    let one = said(&["--list", "--sub", "u-1"]);
    assert!(one.starts_with("sub \"u-1\"") && one.lines().count() == 2, "{one}");
    for arguments in [["--list", "--undo"].as_slice(), &["--list", "--jti", "a"], &[]] {
        let ran = ran(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{arguments:?}");
    }
}
