//! `portcullis doctor` and `POST /v1/doctor` with real servers: what is told, and the exit status.

use std::sync::mpsc;
use std::thread;

use serde_json::Value;

use super::{problem, start};
use crate::support::{Client, Folder, Gateway, Redis, Refused, TcpProxy, eventually, operate, run};

const OPERATOR: &str =
    "[store.operator]\nusername = \"operator\"\npassword = \"look-but-do-not-touch\"\n";

/// Makes a user by the command that `portcullis acl` prints, with more of its rules.
fn make_user(redis: &Redis, command: &str, password: &str, more: &str) {
    let line = format!("{} {more}", command.replace("PASSWORD", password));
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(redis.cli(&words), "OK", "{line}");
}

fn make_operator(redis: &Redis) {
    let line = portcullis::store::operator_acl("operator", "app");
    make_user(redis, &line, "look-but-do-not-touch", "");
}

/// The command where no gateway runs, with this `[store]`.
fn alone(store: &str, more: &[&str]) -> Refused {
    let folder = Folder::new();
    folder.write(
        "gateway.toml",
        format!(
            "[admin]\nlisten = \"127.0.0.1:1\"\n[store]\n{store}\n[upstreams.shop]\n\
             servers = [\"http://127.0.0.1:3000\"]\n[routes.all]\npath = \"/*\"\n\
             upstream = \"shop\"\n"
        ),
    );
    run(&folder, &[&["doctor"], more].concat())
}

fn url(redis: &Redis) -> String {
    format!("url = \"{}\"\nconnect_timeout = \"5s\"\ntimeout = \"10s\"\n", redis.url())
}

/// The row of this check.
fn row<'a>(told: &'a Value, check: &str) -> &'a Value {
    let checks = told["checks"].as_array().expect("checks");
    checks.iter().find(|it| it["check"] == check).unwrap_or_else(|| panic!("{check} in {told:#}"))
}

fn levels(told: &Value, level: &str) -> Vec<String> {
    let checks = told["checks"].as_array().expect("checks").iter();
    let of_level = checks.filter(|it| it["level"] == level);
    of_level.map(|it| it["check"].as_str().expect("a word").to_owned()).collect()
}

fn json(ran: &Refused) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}{}", ran.stdout, ran.stderr))
}

#[test]
fn a_gateway_looks_at_its_redis_and_names_what_deserves_a_look() {
    let redis = Redis::start();
    make_operator(&redis);
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory", "256mb"]), "OK");
    redis.cli(&["SET", "app:session:endless", "1"]);
    let (_upstream, gateway) = start(&format!("[store]\n{}{OPERATOR}", url(&redis)));
    for _ in 0..4 {
        Client::get(gateway.public, "/limited").send();
        Client::get(gateway.public, "/cached").send();
    }
    eventually("a response is stored", || !redis.cli(&["KEYS", "app:cache:*"]).is_empty());
    let told = operate(&gateway, "POST", "/v1/doctor", "{}").json();
    assert!(told["by"].as_str().is_some_and(|by| by.starts_with("the gateway ")), "{told:#}");
    assert_eq!(told["level"], "watch");
    assert_eq!(levels(&told, "unknown"), [""; 0], "{told:#}");
    for check in
        ["server", "role", "rights", "scripts", "clock", "memory", "policy", "evictions", "clients"]
    {
        assert_eq!(row(&told, check)["level"], "good", "{check}: {told:#}");
        assert_eq!(row(&told, check)["do"], "", "{check}");
    }
    let version = row(&told, "server")["value"].as_str().expect("text").to_owned();
    assert!(version.starts_with("Redis ") && version.ends_with(", standalone"), "{version}");
    let latency = row(&told, "latency")["value"].as_str().expect("text").to_owned();
    assert!(latency.contains("200 pings") && latency.contains("200 questions"), "{latency}");
    let keys = row(&told, "keys");
    let shares = keys["value"].as_str().expect("text");
    assert!(shares.contains("without an end: 1 of sessions"), "only that one: {keys}");
    assert!(shares.contains("limits ") && shares.contains("cache "), "{keys}");
    assert_eq!(row(&told, "surplus")["value"], "the user default may also FLUSHALL");
    // What it has written ends by itself, and tells nobody's name.
    assert!(!told.to_string().contains("endless\""), "{told:#}");
    for key in redis.cli(&["KEYS", "app:selftest:*"]).lines().filter(|it| !it.is_empty()) {
        let left: i64 = redis.cli(&["PTTL", key]).parse().expect("a number");
        assert!((-2..=20_000).contains(&left) && left != -1, "{key} stays for {left} ms");
    }
    let address = format!("http://{}", gateway.admin);
    let ran = run(&Folder::new(), &["doctor", "--admin", &address]);
    assert_eq!((ran.code, &*ran.stderr), (Some(0), ""), "{}", ran.stdout);
    assert!(ran.stdout.starts_with("looked at by the gateway "), "{}", ran.stdout);
    assert!(ran.stdout.contains("▲ watch    keys "), "{}", ran.stdout);
}

#[test]
fn without_a_gateway_the_command_looks_itself() {
    let redis = Redis::start();
    let ran = alone(&url(&redis), &[]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.starts_with("looked at by this command: no gateway answers on 127.0.0.1:1"));
    assert!(ran.stdout.contains("○ unknown  keys"), "{}", ran.stdout);
    assert!(ran.stdout.contains("do: `portcullis acl --operator` prints"), "{}", ran.stdout);
    let memory = alone("url = \"memory:\"\n", &["--json"]);
    assert_eq!((memory.code, &row(&json(&memory), "store")["value"]), (Some(0), &"memory".into()));
}

#[test]
fn what_works_and_will_not_for_long_is_poor() {
    let redis = Redis::start();
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]), "OK");
    let ran = alone(&url(&redis), &["--json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    let told = json(&ran);
    assert_eq!((&told["level"], levels(&told, "poor")), (&"poor".into(), vec!["policy".into()]));
    assert!(row(&told, "policy")["do"].as_str().is_some_and(|it| it.contains("noeviction")));
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]), "OK");
    // A missing right, of one of its users and of the other.
    let user = "username = \"gateway\"\npassword = \"correct-horse\"\n";
    let line = portcullis::store::acl("gateway", "app", false, false);
    make_user(&redis, &line, "correct-horse", "-hrandfield");
    let line = portcullis::store::operator_acl("operator", "app");
    make_user(&redis, &line, "look-but-do-not-touch", "-memory|usage");
    let ran = alone(&format!("{}{user}{OPERATOR}", url(&redis)), &["--json"]);
    let told = json(&ran);
    assert_eq!((ran.code, levels(&told, "poor")), (Some(1), vec!["rights".into()]), "{told:#}");
    let rights = row(&told, "rights");
    assert!(rights["value"].as_str().is_some_and(|it| it.contains("`hrandfield`")), "{rights}");
    assert!(rights["do"].as_str().is_some_and(|it| it.contains("+hrandfield")), "{rights}");
    assert_eq!(row(&told, "keys")["level"], "unknown");
    assert_eq!(row(&told, "surplus")["value"], "the user gateway may not FLUSHALL");
    assert!(!ran.stdout.contains("correct-horse"), "no password is told");
}

#[test]
fn what_cannot_serve_is_unusable_and_what_is_silent_unreachable() {
    let (mut redis, primary) = (Redis::start(), Redis::start());
    let port = primary.address().port().to_string();
    assert_eq!(redis.cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    let ran = alone(&url(&redis), &["--json"]);
    let told = json(&ran);
    assert_eq!((ran.code, levels(&told, "unusable")), (Some(2), vec!["role".into()]), "{told:#}");
    assert_eq!(levels(&told, "unknown")[..2], ["rights", "scripts"], "they were not looked at");
    assert_eq!(redis.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    let stranger = "username = \"nobody\"\npassword = \"correct-horse\"\n";
    let ran = alone(&format!("{}{stranger}", url(&redis)), &["--json"]);
    let told = json(&ran);
    assert_eq!((ran.code, levels(&told, "unusable")), (Some(2), vec!["connection".into()]));
    redis.kill();
    let ran = alone(&url(&redis), &[]);
    assert_eq!(ran.code, Some(3), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("✖ unreachable connection"), "{}", ran.stdout);
    assert!(ran.stdout.contains("see to it that Redis runs"), "{}", ran.stdout);
    assert_eq!(alone("url = \"odd\"\n", &[]).code, Some(2), "the file cannot be used");
}

#[test]
fn a_redis_that_is_slow_keeps_all_rows_that_it_has_answered() {
    let redis = Redis::start();
    let store = format!("url = \"{}\"\nconnect_timeout = \"2s\"\n", redis.url());
    // Writes wait, so that each limit that is asked for waits too; all else is answered.
    assert_eq!(redis.cli(&["CLIENT", "PAUSE", "600000", "WRITE"]), "OK");
    let ran = alone(&store, &["--json"]);
    let told = json(&ran);
    assert_eq!(ran.code, Some(2), "{told:#}");
    let latency = row(&told, "latency");
    assert_eq!(latency["level"], "poor", "{latency}");
    let value = latency["value"].as_str().expect("text");
    assert!(value.contains("pings: p50 ") && value.contains("then no answer"), "{latency}");
    for check in ["clock", "policy", "evictions", "clients"] {
        assert_eq!(row(&told, check)["level"], "good", "{check}: {told:#}");
    }
    assert_eq!(redis.cli(&["CLIENT", "UNPAUSE"]), "OK");
    assert_eq!(alone(&store, &[]).code, Some(0), "it is over");
}

#[test]
fn what_answers_is_not_unreachable_whatever_it_was_taken_for() {
    let mut redis = Redis::start();
    let address = redis.address();
    let cluster = format!("url = \"redis-cluster://{address}\"\nconnect_timeout = \"2s\"\n");
    let ran = alone(&cluster, &["--json"]);
    let told = json(&ran);
    assert_eq!((ran.code, levels(&told, "unusable")), (Some(2), vec!["server".into()]), "{told:#}");
    let stranger = "username = \"nobody\"\npassword = \"correct-horse\"\n";
    let ran = alone(&format!("{cluster}{stranger}"), &["--json"]);
    let told = json(&ran);
    let expected = (Some(2), vec!["connection".to_owned()]);
    assert_eq!((ran.code, levels(&told, "unusable")), expected, "{told:#}");
    let sentinel = format!("url = \"redis-sentinel://{address}/shop\"\nconnect_timeout = \"2s\"\n");
    let ran = alone(&sentinel, &["--json"]);
    let told = json(&ran);
    let expected = (Some(2), vec!["sentinel".to_owned()]);
    assert_eq!((ran.code, levels(&told, "unusable")), expected, "{told:#}");
    redis.kill();
    for silent in [cluster, sentinel] {
        assert_eq!(alone(&silent, &[]).code, Some(3), "{silent}");
    }
}

#[test]
fn one_look_at_a_time_and_only_for_who_operates() {
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let tokens = "[admin]\ntoken = \"operator-0123456789\"\nread_token = \"reader-0123456789\"\n";
    let store = format!("[store]\nurl = \"{}\"\nconnect_timeout = \"10s\"\n", proxy.url());
    let (_upstream, gateway) = start(&format!("{tokens}{store}"));
    let ask = |gateway: &Gateway, token: &str| {
        let request = Client::request(gateway.admin, "POST", "/v1/doctor");
        request.header("Content-Type", "application/json").bearer(token).body("{}").send()
    };
    assert_eq!(ask(&gateway, "reader-0123456789").status, 403);
    // Whoever of both has the place hangs until Redis answers; the other one does not wait.
    proxy.swallow();
    let (tell, told) = mpsc::channel();
    let asking = [tell.clone(), tell].map(|tell| {
        let admin = gateway.admin;
        thread::spawn(move || {
            let request = Client::request(admin, "POST", "/v1/doctor");
            let request = request.header("Content-Type", "application/json");
            let reply = request.bearer("operator-0123456789").body("{}").send();
            tell.send(reply).expect("it is awaited");
        })
    });
    let refused = told.recv().expect("the one without a place");
    assert_eq!(problem(&refused), (409, "doctor_running".to_owned()));
    proxy.pass();
    assert_eq!(told.recv().expect("the other one").status, 200);
    asking.into_iter().for_each(|it| it.join().expect("an answer"));
    assert_eq!(ask(&gateway, "operator-0123456789").status, 200, "the place is free again");
}
