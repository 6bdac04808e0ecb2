//! What gateways that share a Redis tell each other of servers that fail.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Server, config, get, is_out, told};
use crate::support::{Client, Exposition, Gateway, Redis, TcpProxy, eventually, operate};

const KEY: &str = "app:fleet:shop";
const EJECT: &str = "eject = { failures = 3, time = \"1h\" }";

fn sharing(redis: &Redis, servers: &[&Server], more: &str) -> Gateway {
    Gateway::start(&format!("[store]\nurl = \"{}\"\n{}", redis.url(), config(servers, more)))
}

/// Sends requests until this gateway has ejected the server by itself.
fn eject(gateway: &Gateway, bad: &Server) {
    eventually("it is ejected", || {
        get(gateway);
        told(gateway, bad)["reasons"] == json!(["ejected"])
    });
}

fn follows(gateway: &Gateway, bad: &Server) -> bool {
    told(gateway, bad)["reasons"] == json!(["fleet"])
}

fn unix_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// What lies in Redis: who said what, and when.
fn said(redis: &Redis) -> Vec<(String, u64, Value)> {
    let all = redis.cli(&["HGETALL", KEY]);
    let lines: Vec<&str> = all.lines().collect();
    let one = |pair: &[&str]| {
        let (at, value) = pair[1].split_once(' ').unwrap();
        (pair[0].to_owned(), at.parse().unwrap(), serde_json::from_str(value).unwrap_or_default())
    };
    lines.chunks_exact(2).map(one).collect()
}

/// Has somebody else say this.
fn say(redis: &Redis, from: &str, value: &str) {
    redis.cli(&["HSET", KEY, from, &format!("{} {value}", unix_ms())]);
}

fn report(server: &Server) -> String {
    let ejected = [server.url()];
    json!({ "v": 1, "requests": 9, "failures": 3, "retries": 0, "ejected": ejected }).to_string()
}

#[test]
fn what_two_gateways_have_ejected_the_third_leaves_alone() {
    let redis = Redis::start();
    let (bad, good) = (Server::new(500), Server::new(200));
    let [one, two, quiet] = [(); 3].map(|()| sharing(&redis, &[&bad, &good], EJECT));
    eject(&one, &bad);
    eject(&two, &bad);
    eventually("the third one follows", || follows(&quiet, &bad));
    let seen = bad.seen();
    for _ in 0..20 {
        assert_eq!(get(&quiet), 200);
    }
    assert_eq!(bad.seen(), seen);
    assert_eq!(told(&quiet, &bad)["state"], "out");
    let metrics = Client::get(quiet.admin, "/metrics").send().text();
    let ejections = |reason: &str| {
        let labels = [("upstream", "shop"), ("reason", reason)];
        Exposition::text(&metrics).value("portcullis_upstream_ejections_total", &labels)
    };
    assert_eq!((ejections("fleet"), ejections("failures")), (Some(1.0), Some(0.0)));
    let restore = |gateway: &Gateway| {
        operate(gateway, "POST", "/v1/upstreams/restore", "{\"upstream\": \"shop\"}")
    };
    restore(&one);
    eventually("it is back with the third one", || told(&quiet, &bad)["state"] == "in");
    eventually("it is logged", || {
        let log = quiet.stderr();
        log.matches("is out: other gateways have ejected it").count() == 1
            && log.matches("is back: other gateways have not").count() == 1
    });
    assert!(is_out(&two, &bad), "its own verdict stays");
}

#[test]
fn the_word_of_one_gateway_is_not_enough() {
    let redis = Redis::start();
    let (bad, good) = (Server::new(500), Server::new(200));
    let [one, quiet] = [(); 2].map(|()| sharing(&redis, &[&bad, &good], EJECT));
    eject(&one, &bad);
    let mut since = 0;
    eventually("it has told of that", || {
        let all = said(&redis);
        since = all.iter().map(|(_, at, _)| *at).max().unwrap_or_default();
        all.iter().any(|(.., said)| said["ejected"] == json!([bad.url()]))
    });
    eventually("the other one has heard it", || {
        let all = said(&redis);
        all.len() == 2 && all.iter().all(|(_, at, _)| *at > since)
    });
    assert!(!is_out(&quiet, &bad));
    eventually("two are enough", || {
        say(&redis, "another", &report(&bad));
        follows(&quiet, &bad)
    });
}

#[test]
fn without_redis_each_gateway_decides_alone() {
    let mut redis = Redis::start();
    let (bad, good) = (Server::new(500), Server::new(200));
    let [one, two, quiet] = [(); 3].map(|()| sharing(&redis, &[&bad, &good], EJECT));
    eject(&one, &bad);
    eject(&two, &bad);
    eventually("the third one follows", || follows(&quiet, &bad));
    redis.kill();
    eventually("it hears nobody any more", || told(&quiet, &bad)["state"] == "in");
    assert!(is_out(&one, &bad) && is_out(&two, &bad));
    eject(&quiet, &bad);
    assert_eq!(get(&quiet), 200);
    redis.restart();
    eventually("they tell each other again", || said(&redis).len() == 3);
}

/// Whoever writes into Redis what no gateway would.
#[test]
fn lies_are_ignored() {
    let redis = Redis::start();
    let servers = [(); 4].map(|()| Server::new(200));
    let [slandered, out, ..] = &servers;
    let quiet = sharing(&redis, &servers.each_ref(), EJECT);
    let report_of = |from: &str, to: &str| {
        let told = report(slandered);
        assert!(told.contains(from), "{told}");
        told.replacen(from, to, 1)
    };
    let lies = [
        report_of("\"v\":1", "\"v\":2"),
        report_of("\"requests\":9", "\"requests\":18446744073709551615"),
        report_of("\"requests\":9", "\"requests\":1e300"),
        report_of("\"failures\":3", "\"failures\":-1"),
        report_of("}", ""),
        report_of("http://", "http://nobody.test/"),
        "\u{0}\u{ffff}".to_owned(),
        String::new(),
    ];
    eventually("it goes by the others", || {
        // Each by two, who would be enough.
        for (lie, number) in lies.iter().chain(&lies).zip(0..) {
            say(&redis, &format!("liar-{number}"), lie);
        }
        for liar in ["timeless-1", "timeless-2"] {
            redis.cli(&["HSET", KEY, liar, &report(slandered)]);
        }
        say(&redis, "edge-1", &report(out));
        say(&redis, "edge-2", &report(out));
        follows(&quiet, out)
    });
    assert_eq!(told(&quiet, slandered)["reasons"], json!([]));
    assert_eq!(get(&quiet), 200);
}

/// What it says of its own requests lends the others no more than they get requests themselves.
#[test]
fn a_gateway_that_says_too_much_of_itself_lends_nothing_to_a_quiet_one() {
    let redis = Redis::start();
    let (bad, good) = (Server::new(500), Server::new(200));
    let quiet = sharing(&redis, &[&bad, &good], &format!("{EJECT}\nretry = {{}}"));
    let left = || {
        let metrics = Client::get(quiet.admin, "/metrics").send().text();
        let labels = [("upstream", "shop")];
        Exposition::text(&metrics).value("portcullis_upstream_retry_budget_left", &labels)
    };
    assert_eq!(left(), Some(10.0), "what a second has");
    let boast = report(&bad).replacen("\"requests\":9", "\"requests\":1000000000", 1);
    eventually("it has heard them", || {
        say(&redis, "liar-1", &boast);
        say(&redis, "liar-2", &boast);
        follows(&quiet, &bad)
    });
    // What they lend was heard with the same words.
    assert_eq!(left(), Some(10.0));
}

/// How many upstreams anybody has said something of.
const SAID: &str = "return #redis.call('KEYS', 'app:fleet:shop-*')";
/// As many upstreams as one gateway may have in front of a busy system.
const MANY: usize = 300;
/// Questions of one round about all of them.
const QUESTIONS: usize = 10;

/// Two gateways have ejected the server of each upstream.
fn eject_everywhere(redis: &Redis, report: &str) {
    let script = "for at = 1, tonumber(ARGV[1]) do for from = 1, 2 do \
                  redis.call('HSET', 'app:fleet:shop-' .. at, 'edge-' .. from, \
                  ARGV[2] .. ' ' .. ARGV[3]) end end";
    let (many, now) = (MANY.to_string(), unix_ms().to_string());
    redis.cli(&["EVAL", script, "0", &many, &now, report]);
}

#[test]
fn a_few_questions_tell_of_hundreds_of_upstreams() {
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let (bad, good) = (Server::new(500), Server::new(200));
    let servers = [bad.url(), good.url()];
    let one = |at| format!("[upstreams.shop-{at}]\nservers = {servers:?}\neject = {{}}\n");
    let upstreams: String = (1..=MANY).map(one).collect();
    let quiet = Gateway::start(&format!(
        "[store]\nurl = \"{}\"\ntimeout = \"5s\"\n{upstreams}{}",
        proxy.url(),
        config(&[&good], "fleet = false")
    ));
    eventually("what others say of each is heard", || {
        eject_everywhere(&redis, &report(&bad));
        let all = operate(&quiet, "GET", "/v1/upstreams", "").json();
        let upstreams = all["upstreams"].as_object().unwrap().values();
        let servers = upstreams.flat_map(|it| it["servers"].as_array().unwrap());
        servers.filter(|it| it["reasons"] == json!(["fleet"])).count() == MANY
    });
    let said = || redis.cli(&["EVAL", SAID, "0"]);
    // Whichever of them come next, a round's questions are about all.
    redis.cli(&["FLUSHALL"]);
    proxy.swallow_after(QUESTIONS);
    eventually("all is said once", || said() == MANY.to_string());
}

#[test]
fn a_gateway_that_is_not_to_tell_says_nothing_and_hears_nothing() {
    let redis = Redis::start();
    let (bad, good) = (Server::new(500), Server::new(200));
    let apart = sharing(&redis, &[&bad, &good], &format!("{EJECT}\nfleet = false"));
    let quiet = sharing(&redis, &[&bad, &good], EJECT);
    eventually("the other one goes by these", || {
        say(&redis, "edge-1", &report(&bad));
        say(&redis, "edge-2", &report(&bad));
        follows(&quiet, &bad)
    });
    assert_eq!(said(&redis).len(), 3);
    assert_eq!(told(&apart, &bad)["state"], "in");
}
