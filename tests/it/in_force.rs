//! What runs and since when, and how busy it is beside what clients ask: the program, the
//! configuration, the serving threads, the way to Redis.

use std::path::Path;

use crate::support::{
    Client, Exposition, Folder, Gateway, Redis, Session, Upstream, eventually, operate, response,
    run,
};

#[path = "../../build.rs"]
#[expect(dead_code, reason = "cargo calls what the tests do not")]
mod build;

const ROUTE: &str = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n";
/// Has every request ask the store.
const LIMITED: &str = "[limits.many]\nkey = [\"address\"]\nallow = [\"1000/1h\"]\n\
                       [routes.all]\npath = \"/*\"\nupstream = \"shop\"\nlimits = [\"many\"]\n";

fn start(store: &str, routes: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let gateway = Gateway::start(&[store, &upstream.table("shop"), routes].concat());
    (upstream, gateway)
}

fn scrape(gateway: &Gateway) -> Exposition {
    Exposition::text(&Client::get(gateway.admin, "/metrics").send().text())
}

fn value(gateway: &Gateway, name: &str) -> f64 {
    scrape(gateway).value(name, &[]).unwrap_or_else(|| panic!("{name}"))
}

/// The upper bounds of a histogram without other labels.
fn bounds(gateway: &Gateway, name: &str) -> Vec<f64> {
    let text = Client::get(gateway.admin, "/metrics").send().text();
    let begin = format!("{name}_bucket{{le=\"");
    let bounds = text.lines().filter_map(|line| line.strip_prefix(&begin)?.split('"').next());
    bounds.map(|bound| bound.parse().expect("a number")).collect()
}

#[test]
fn the_program_says_of_which_commit_it_is() {
    let (_upstream, gateway) = start("", ROUTE);
    let status = operate(&gateway, "GET", "/v1/status", "").json();
    let text = |name: &str| status[name].as_str().expect("text").to_owned();
    let (version, commit) = (text("version"), text("commit"));
    let said = run(&Folder::new(), &["--version"]).stdout;
    assert_eq!(said.trim(), format!("portcullis {version} ({commit})"));
    let labels = [("version", &*version), ("commit", &*commit)];
    assert_eq!(scrape(&gateway).value("portcullis_build_info", &labels), Some(1.0));
    assert!(!commit.is_empty());
}

#[test]
fn a_build_is_told_its_commit_or_asks_git_or_does_without() {
    let told = |word: &str| Some(word.to_owned());
    let nowhere = Folder::new();
    assert_eq!(build::commit(told("0123abc"), nowhere.path()), "0123abc");
    for none in [None, told(""), told("a\ncargo:warning=b"), told(&"a".repeat(65))] {
        assert_eq!(build::commit(none, nowhere.path()), "unknown");
    }
    assert_eq!(build::commit(None, Path::new("/nowhere/at/all")), "unknown");
    let git = |words: &[&str]| {
        let names = ["-c", "user.name=a", "-c", "user.email=a@b.test"];
        let mut command = std::process::Command::new("git");
        let output = command.args(names).args(words).current_dir(nowhere.path()).output();
        String::from_utf8(output.expect("git runs").stdout).expect("text")
    };
    git(&["init"]);
    assert_eq!(build::commit(None, nowhere.path()), "unknown", "there is no commit yet");
    git(&["commit", "--allow-empty", "-m", "first"]);
    let commit = build::commit(None, nowhere.path());
    assert_eq!(commit.len(), 12);
    assert!(git(&["rev-parse", "HEAD"]).starts_with(&commit));
}

#[test]
fn metrics_tell_the_last_reload_and_which_file_is_in_force() {
    let (upstream, gateway) = start("", ROUTE);
    let at = "portcullis_config_last_reload_success_timestamp_seconds";
    let look = |gateway: &Gateway| {
        let read = scrape(gateway);
        let successful = read.value("portcullis_config_last_reload_successful", &[]);
        (successful, read.value(at, &[]).expect("a time"))
    };
    let hash = |gateway: &Gateway| value(gateway, "portcullis_config_hash");
    let (successful, started) = look(&gateway);
    assert_eq!(successful, Some(1.0), "what it starts with is in force");
    let age = jiff::Timestamp::now().as_second() as f64 - started;
    assert!((-5.0..600.0).contains(&age), "{age}");
    let first = hash(&gateway);
    gateway.rewrite("nonsense");
    assert_eq!(operate(&gateway, "POST", "/v1/config/reload", "{}").status, 422);
    assert_eq!(look(&gateway), (Some(0.0), started));
    assert_eq!(hash(&gateway), first, "the former file is in force");
    let config = [
        &upstream.table("shop"),
        ROUTE,
        "[limits.a]\nkey = [\"address\"]\n\
                  allow = [\"5/1h\"]\n",
    ]
    .concat();
    gateway.rewrite(&config);
    let told = operate(&gateway, "POST", "/v1/config/reload", "{}").json();
    let (successful, applied) = look(&gateway);
    assert_eq!(successful, Some(1.0));
    assert!(applied > started, "{applied} is not behind {started}");
    let sha256 = told["sha256"].as_str().expect("text");
    let number = u64::from_str_radix(&sha256[..12], 16).expect("digits") as f64;
    assert_eq!(hash(&gateway), number);
    assert_ne!(number, first);
    assert_eq!(hash(&Gateway::start(&config)), number, "the same file elsewhere");
}

#[test]
fn the_timeout_of_the_store_is_a_bound_of_its_time() {
    let redis = Redis::start();
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"37ms\"\n", redis.url());
    let (_upstream, gateway) = start(&store, LIMITED);
    assert_eq!(Client::get(gateway.public, "/").send().status, 200);
    let expected = [
        0.0001,
        0.00025,
        0.0005,
        0.001,
        0.0025,
        0.005,
        0.01,
        0.025,
        0.037,
        0.05,
        0.1,
        0.25,
        0.5,
        1.0,
        f64::INFINITY,
    ];
    assert_eq!(bounds(&gateway, "portcullis_store_duration_seconds"), expected);
    assert_eq!(value(&gateway, "portcullis_store_duration_seconds_count"), 1.0);
}

#[test]
fn questions_in_flight_stand_beside_their_bound() {
    let redis = Redis::start();
    let store = format!(
        "[store]\nurl = \"{}\"\ntimeout = \"10s\"\nmax_in_flight = 7\nconnections = 1\n",
        redis.url()
    );
    let (_upstream, gateway) = start(&store, LIMITED);
    assert_eq!(Client::get(gateway.public, "/").send().status, 200);
    let main = [("store", "main")];
    let in_flight = || scrape(&gateway).value("portcullis_store_questions_in_flight", &main);
    eventually("nothing is asked", || in_flight() == Some(0.0));
    redis.stop_signal();
    let mut waiting = Session::open(gateway.public);
    waiting.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("it is asked", || in_flight() == Some(1.0));
    let most = scrape(&gateway).value("portcullis_store_questions_max", &main).expect("a bound");
    assert!(most >= 7.0 && most % 7.0 == 0.0, "{most}");
    redis.cont_signal();
    assert_eq!(waiting.read().status, 200);
    eventually("it is answered", || in_flight() == Some(0.0));
}

#[test]
fn connections_that_were_lost_and_made_again_are_counted() {
    let mut redis = Redis::start();
    let (_upstream, gateway) = start(&format!("[store]\nurl = \"{}\"\n", redis.url()), LIMITED);
    assert_eq!(Client::get(gateway.public, "/").send().status, 200);
    let again =
        || scrape(&gateway).value("portcullis_store_reconnects_total", &[("store", "main")]);
    assert_eq!(again(), Some(0.0), "the first ones are not");
    redis.restart();
    eventually("they are made again", || again() >= Some(1.0));
}

#[test]
fn every_serving_thread_says_how_late_it_is() {
    let (_upstream, gateway) = start("", ROUTE);
    let count = || value(&gateway, "portcullis_worker_lag_seconds_count");
    eventually("it is measured again and again", || count() >= 3.0);
    let expected = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, f64::INFINITY];
    assert_eq!(bounds(&gateway, "portcullis_worker_lag_seconds"), expected);
}
