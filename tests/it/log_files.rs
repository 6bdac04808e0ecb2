//! Access lines in files that others move away, on disks that are full, in every format; which
//! requests have one, and what it shows of callers. Diagnostics as JSON.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    AUTH, Client, Exposition, Gateway, Session, Upstream, claims, eventually, kill, raw, response,
    token,
};

const ROUTE: &str = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n";

fn upstream() -> Upstream {
    Upstream::replying(response("200 OK", "hello"))
}

fn start(log: &str, upstream: &Upstream) -> Gateway {
    Gateway::start(&format!("[log]\n{log}\n{}{ROUTE}", upstream.table("shop")))
}

/// How many lines had this result.
fn counted(gateway: &Gateway, result: &str) -> f64 {
    let text = Client::get(gateway.admin, "/metrics").send().text();
    let labels = [("result", result)];
    Exposition::text(&text).value("portcullis_access_lines_total", &labels).expect("a series")
}

/// The files in the gateway's folder whose name begins with this.
fn files(gateway: &Gateway, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(gateway.folder()).expect("its folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_one = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(name);
    paths.filter(is_one).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The ids of the requests in these files; each line must be whole.
fn ids(files: &[PathBuf]) -> Vec<String> {
    let texts: Vec<String> = files.iter().map(read).collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    let id = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|it| panic!("{it}: {line:?}"));
        line["request_id"].as_str().expect("an id").to_owned()
    };
    lines.map(id).collect()
}

/// Sends requests without a pause, on several connections, until it ends.
struct Load {
    threads: Vec<std::thread::JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
}

impl Load {
    fn begin(gateway: &Gateway) -> Self {
        let (is_over, sent) = (Arc::new(AtomicBool::new(false)), Arc::<AtomicUsize>::default());
        let address = gateway.public;
        let threads = (0..2).map(|_| {
            let (is_over, sent) = (Arc::clone(&is_over), Arc::clone(&sent));
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(Client::get(address, "/").send().status, 200);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Self { threads: threads.collect(), is_over, sent }
    }

    /// Waits for so many requests more.
    fn goes_on(&self, more: usize) {
        let before = self.sent.load(Ordering::Relaxed);
        eventually("requests go on", || self.sent.load(Ordering::Relaxed) >= before + more);
    }

    /// How many there were in all.
    fn end(self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("every request was answered");
        }
        self.sent.load(Ordering::Relaxed)
    }
}

#[test]
fn a_file_that_is_moved_away_under_load_loses_no_line() {
    let upstream = upstream();
    let gateway = start("access_to = \"access.log\"", &upstream);
    let path = |name: &str| gateway.folder().join(name);
    eventually("the file is made at the start", || path("access.log").is_file());
    let load = Load::begin(&gateway);
    load.goes_on(20);
    std::fs::rename(path("access.log"), path("access.log.signal")).expect("it is moved");
    gateway.signal("USR1");
    eventually("a signal opens another one", || !read(path("access.log")).is_empty());
    load.goes_on(20);
    std::fs::rename(path("access.log"), path("access.log.look")).expect("it is moved");
    eventually("so does a look", || !read(path("access.log")).is_empty());
    load.goes_on(20);
    let sent = load.end();
    eventually("all lines are there", || ids(&files(&gateway, "access.log")).len() >= sent);
    let mut all = ids(&files(&gateway, "access.log"));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), sent, "each request has one line");
    assert_eq!(files(&gateway, "access.log").len(), 3);
    assert_eq!(counted(&gateway, "written"), sent as f64);
    assert!(gateway.stderr().contains("SIGUSR1: the access log is opened anew"));
    assert!(gateway.access_lines().is_empty(), "stdout has none of them");
}

#[test]
fn a_file_gives_way_at_its_size_and_the_oldest_go() {
    let upstream = upstream();
    let gateway =
        start("access_to = \"access.log\"\nrotate = { size = \"2KiB\", keep = 2 }", &upstream);
    let mut session = Session::open(gateway.public);
    for number in 0..40 {
        assert_eq!(session.get(&format!("/{number}")).send().status, 200);
        eventually("it is written", || counted(&gateway, "written") >= f64::from(number + 1));
    }
    let mut kept = files(&gateway, "access.log");
    kept.sort();
    let names = kept.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
    assert_eq!(names.collect::<Vec<_>>(), ["access.log", "access.log.1", "access.log.2"]);
    assert!(kept.iter().all(|path| read(path).len() <= 2048));
    // The newest lines, without a gap.
    let texts: Vec<String> = kept.iter().rev().map(read).collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    let path = |line: &str| serde_json::from_str::<Value>(line).expect("whole")["path"].clone();
    let paths: Vec<Value> = lines.map(path).collect();
    let expected: Vec<Value> = (40 - paths.len()..40).map(|it| json!(format!("/{it}"))).collect();
    assert_eq!(paths, expected);
}

#[test]
fn a_file_that_cannot_be_moved_grows_and_is_told_of_once() {
    let upstream = upstream();
    let gateway =
        start("access_to = \"access.log\"\nrotate = { size = \"1KiB\", keep = 1 }", &upstream);
    let (log, former) =
        (gateway.folder().join("access.log"), gateway.folder().join("access.log.1"));
    // A file cannot take the place of a folder.
    std::fs::create_dir(&former).expect("a folder");
    let mut session = Session::open(gateway.public);
    let mut sent = 0;
    let mut ask = || {
        assert_eq!(session.get("/").send().status, 200);
        sent += 1;
        eventually("it is written", || counted(&gateway, "written") >= f64::from(sent));
    };
    // It is tried once a second.
    let began = Instant::now();
    while read(&log).len() < 8 * 1024 || began.elapsed() < Duration::from_millis(2200) {
        ask();
    }
    assert_eq!(gateway.stderr().matches("cannot be rotated, and grows").count(), 1);
    std::fs::remove_dir(&former).expect("an empty folder");
    eventually("it gives way", || {
        ask();
        former.is_file()
    });
    assert!(read(&former).len() > 8 * 1024 && read(&log).len() <= 1024);
}

#[test]
fn two_processes_of_a_hand_over_share_a_file_that_rotates() {
    let upstream = upstream();
    let gateway =
        start("access_to = \"access.log\"\nrotate = { size = \"2KiB\", keep = 1000 }", &upstream);
    let load = Load::begin(&gateway);
    load.goes_on(20);
    gateway.signal("USR2");
    eventually("another process takes over", || gateway.heirs().len() == 1);
    load.goes_on(40);
    kill("USR1", gateway.heirs()[0]);
    load.goes_on(20);
    let sent = load.end();
    eventually("all lines are there", || ids(&files(&gateway, "access.log")).len() >= sent);
    let mut all = ids(&files(&gateway, "access.log"));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), sent, "none is lost, none is torn, none is there twice");
}

#[test]
fn a_full_disk_costs_lines_and_no_request() {
    let upstream = upstream();
    let gateway = start("access_to = \"/dev/full\"", &upstream);
    for _ in 0..5 {
        assert_eq!(Client::get(gateway.public, "/").send().status, 200);
    }
    eventually("they are counted", || counted(&gateway, "failed") >= 5.0);
    assert_eq!((counted(&gateway, "failed"), counted(&gateway, "written")), (5.0, 0.0));
    let said = gateway.stderr();
    assert_eq!(said.matches("access lines cannot be written").count(), 1, "{said}");
}

#[test]
fn a_file_that_cannot_be_opened_is_told_and_tried_again() {
    let upstream = upstream();
    let gateway = start("access_to = \"logs/access.log\"", &upstream);
    assert_eq!(Client::get(gateway.public, "/").send().status, 200);
    eventually("its line is lost", || counted(&gateway, "failed") >= 1.0);
    let said = gateway.stderr();
    assert!(said.contains("logs/access.log cannot be opened") && said.contains("help: "), "{said}");
    std::fs::create_dir(gateway.folder().join("logs")).expect("a folder");
    eventually("it is opened", || gateway.folder().join("logs/access.log").is_file());
    assert_eq!(Client::get(gateway.public, "/").send().status, 200);
    eventually("a line is there", || counted(&gateway, "written") >= 1.0);
}

#[test]
fn whatever_a_client_sends_a_line_stays_one_line() {
    let upstream = upstream();
    for (format, is_json) in [("json", true), ("ecs", true), ("combined", false), ("common", false)]
    {
        let log = format!(
            "access = \"{format}\"\naccess_to = \"access.log\"\nquery = \"all\"\n\
             headers = [\"x-tenant\"]"
        );
        let gateway = start(&log, &upstream);
        let hostile = "\" - [x] \"GET / HTTP/1.1\" 200 1\\\t\u{202e}\u{7f}";
        let request = format!(
            "GET /a%22%1B?q=%22%0A' HTTP/1.1\r\nHost: shop.test\r\n\
             User-Agent: {hostile}\r\nReferer: {hostile}\r\nX-Tenant: {hostile}\r\n\
             Connection: close\r\n\r\n"
        );
        raw(gateway.public, request.replace('\u{7f}', ""));
        raw(gateway.public, "GET /plain HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n");
        let path = gateway.folder().join("access.log");
        eventually("both are written", || counted(&gateway, "written") >= 2.0);
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{format}: {text:?}");
        assert!(format == "common" || lines[0].contains("- [x]"), "it is told: {text}");
        if is_json {
            assert!(lines.iter().all(|it| serde_json::from_str::<Value>(it).is_ok()), "{text}");
        } else {
            assert!(text.bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)));
            let quotes = if format == "combined" { 6 } else { 2 };
            let counts = lines.iter().map(|line| line.matches('"').count());
            assert!(counts.eq([quotes, quotes]), "{text}");
        }
    }
}

#[test]
fn what_succeeds_is_sampled_and_nothing_else() {
    let upstream = Upstream::with(|request, connection| {
        let status =
            if request.target() == "/bad" { "500 Internal Server Error" } else { "200 OK" };
        let _ = connection.write_all(response(status, "hello").as_bytes());
    });
    let gateway = start("sample = \"0%\"", &upstream);
    for (path, status) in [("/good", 200), ("/bad", 500), ("/a%2fb", 400), ("/good", 200)] {
        assert_eq!(Client::get(gateway.public, path).send().status, status);
    }
    eventually("two have none", || counted(&gateway, "sampled") >= 2.0);
    eventually("two have one", || gateway.access_lines().len() >= 2);
    let told: Vec<Value> =
        gateway.access_lines().iter().map(|line| line["status"].clone()).collect();
    assert_eq!(told, [500, 400]);
    assert_eq!(counted(&gateway, "sampled"), 2.0);

    let half = start("sample = \"50%\"", &upstream);
    let trace = |byte: &str| format!("00-ffffffffffffffffff{byte}ffffffffffff-00f067aa0ba902b7-00");
    for byte in ["7f", "80"] {
        Client::get(half.public, "/good").header("traceparent", trace(byte)).send();
    }
    eventually("it is decided by the trace", || counted(&half, "sampled") >= 1.0);
    eventually("one has a line", || !half.access_lines().is_empty());
    let told = half.access_lines();
    assert_eq!(told.len(), 1);
    assert!(told[0]["trace_id"].as_str().unwrap().starts_with("ffffffffffffffffff80"));
}

#[test]
fn a_slow_request_is_marked_warned_of_and_never_sampled_out() {
    let gate = Arc::new(Barrier::new(2));
    let held = Arc::clone(&gate);
    let upstream = Upstream::with(move |_, connection| {
        held.wait();
        let _ = connection.write_all(response("200 OK", "hello").as_bytes());
    });
    let gateway = start("sample = \"0%\"\nslow = \"20ms\"", &upstream);
    let mut session = Session::open(gateway.public);
    session.write("GET /late?token=s3cret HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("it is forwarded", || upstream.seen() > 0);
    let since = Instant::now();
    eventually("it takes its time", || since.elapsed() >= Duration::from_millis(20));
    gate.wait();
    assert_eq!(session.read().status, 200);
    eventually("it has a line", || !gateway.access_lines().is_empty());
    let line = gateway.access_lines().remove(0);
    assert_eq!((&line["slow"], &line["status"]), (&json!(true), &json!(200)), "{line}");
    eventually("it is warned of", || gateway.stderr().contains("slow request: GET /late"));
    let said = gateway.stderr();
    assert!(said.contains("WARN") && said.contains("route=\"all\""), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
}

#[test]
fn lines_show_no_more_of_callers_than_they_are_to() {
    let upstream = upstream();
    let gateway = Gateway::start(&format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[log]\nclient = \"prefix\"\n\
         subject = \"hash\"\nsubject_secret = \"0123456789abcdef\"\nquery = \"all\"\n\
         headers = [\"x-tenant\", \"x-other\", \"x-none\"]\n{}{}\
         [limits.one]\nkey = [\"claim:sub\", \"address\"]\nallow = [\"1/1h\"]\n\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\nlimits = [\"one\"]\n",
        AUTH.replace("audience", "from = [\"header:authorization\", \"query:t\"]\naudience"),
        upstream.table("shop")
    ));
    let good = token(claims("42"));
    for status in [200, 429] {
        let reply = Client::get(gateway.public, &format!("/p?page=2&password=s3cret&t={good}"))
            .header("X-Forwarded-For", "192.0.2.77")
            .header("X-Tenant", "a")
            .header("X-Other", "Basic s3cret")
            .header("User-Agent", "curl/8")
            .send();
        assert_eq!(reply.status, status);
    }
    eventually("both have lines", || gateway.access_lines().len() >= 2);
    let lines = gateway.access_lines();
    let subject = lines[0]["subject"].as_str().expect("a subject").to_owned();
    assert!(subject.starts_with('#') && subject.len() == 33, "{subject}");
    for line in &lines {
        let text = line.to_string();
        assert!(
            !text.contains("s3cret") && !text.contains(&good) && !text.contains("192.0.2.77"),
            "{text}"
        );
        assert_eq!((&line["client"], &line["subject"]), (&json!("192.0.2.0"), &json!(subject)));
        assert_eq!(line["query"], "page=2&password=[redacted]&t=[redacted]");
        assert_eq!(line["headers"], json!({ "x-tenant": "a", "x-other": "[redacted]" }));
        assert_eq!(
            (&line["user_agent"], &line["protocol"]),
            (&json!("curl/8"), &json!("http/1.1"))
        );
    }
    let key = format!("claim:sub={subject}|address=192.0.2.0");
    assert_eq!(lines[1]["limit_key"], key.as_str(), "{}", lines[1]);
}

#[test]
fn diagnostics_are_json_where_that_is_wanted_and_each_problem_is_one() {
    let upstream = upstream();
    let config = format!("[log]\nformat = \"json\"\n{}{ROUTE}", upstream.table("shop"));
    let gateway = Gateway::start(&config);
    gateway.rewrite(&format!("{config}limits = [\"nobody\"]\ncolour = \"red\"\n"));
    gateway.signal("HUP");
    eventually("it is refused", || gateway.stderr().contains("was not reloaded"));
    let said = gateway.stderr();
    let told: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|it| panic!("{it}: {line}")))
        .collect();
    let is_whole = |line: &Value| {
        let time = line["time"].as_str().and_then(|it| it.parse::<jiff::Timestamp>().ok());
        time.is_some() && line["level"].is_string() && line["message"].is_string()
    };
    assert!(told.iter().all(is_whole), "{said}");
    for problem in ["routes.all.limits", "routes.all.colour: unknown key; help: "] {
        let of = told.iter().filter(|it| it["message"].as_str().unwrap().contains(problem));
        let levels: Vec<&Value> = of.map(|it| &it["level"]).collect();
        assert_eq!(levels, ["ERROR"], "{problem}: {said}");
    }
}
