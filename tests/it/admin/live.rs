//! What operators see while they look: the stream of events, its places and its end, and the rates
//! that it and the history tell.

use serde_json::{Value, json};

use super::{metric, problem, start};
use crate::support::{Client, Gateway, Session, eventually, operate};

const TOKENS: &str =
    "[admin]\ntoken = \"operator-0123456789\"\nread_token = \"reader-0123456789\"\n";
const OPERATOR: &str = "operator-0123456789";
const READER: &str = "reader-0123456789";

/// Most events that a test reads in vain.
const EVENTS_MAX: usize = 15;

/// A stream that is being read.
struct Stream(Session);

impl Stream {
    /// Opens one, with this bearer or none, and reads its `hello`.
    fn open(gateway: &Gateway, bearer: &str) -> (Self, Value) {
        let mut session = Session::open(gateway.admin);
        let host = gateway.admin;
        let bearer = match bearer {
            "" => String::new(),
            bearer => format!("Authorization: Bearer {bearer}\r\n"),
        };
        session.write(format!("GET /v1/live HTTP/1.1\r\nHost: {host}\r\n{bearer}\r\n"));
        let head = session.read_until("\r\n\r\n").to_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        for field in
            ["content-type: text/event-stream", "cache-control: no-store", "connection: close"]
        {
            assert!(head.contains(&format!("\r\n{field}\r\n")), "{field} in {head}");
        }
        let mut stream = Self(session);
        let hello = stream.next("hello");
        (stream, hello)
    }

    /// The data of the next event of this kind.
    fn next(&mut self, kind: &str) -> Value {
        for _ in 0..EVENTS_MAX {
            let text = self.0.read_until("\n\n");
            let named = text.split_once(&format!("event: {kind}\ndata: "));
            if let Some((_, data)) = named {
                return serde_json::from_str(data.trim_end()).expect("JSON");
            }
        }
        panic!("no {kind} among {EVENTS_MAX} events");
    }

    /// Reads to the last chunk, which says that nothing was cut off.
    fn read_to_end(&mut self) {
        // Each event is the line of its length, and that of its bytes.
        let mut lines = (0..2 * EVENTS_MAX).map(|_| self.0.read_until("\r\n"));
        assert!(lines.any(|line| line == "0\r\n"), "it goes on");
    }
}

#[test]
fn a_tick_tells_the_rates_of_all_and_of_each_route() {
    let (_upstream, gateway) = start("");
    let (mut stream, hello) = Stream::open(&gateway, "");
    assert_eq!((&hello["role"], hello["node"].is_string()), (&json!("operate"), true));
    assert_eq!(hello["version"], env!("CARGO_PKG_VERSION"));
    stream.next("tick");
    let send = |path: &str| Client::get(gateway.public, path).send().status;
    for (path, status) in
        [("/cached", 200), ("/cached", 200), ("/private", 401), ("/open/1", 200), ("/nowhere", 404)]
    {
        assert_eq!(send(path), status, "{path}");
    }
    // They may be told of by two ticks.
    let (mut told, mut ticks) = (0.0, Vec::new());
    while told < 3.9 && ticks.len() < EVENTS_MAX {
        let tick = stream.next("tick");
        told += tick["all"]["rps"].as_f64().expect("a rate");
        ticks.push(tick);
    }
    let most = |path: &[&str]| {
        let values = ticks
            .iter()
            .filter_map(|tick| path.iter().fold(tick, |value, member| &value[*member]).as_f64());
        values.fold(0.0, f64::max)
    };
    for path in [
        ["routes", "cached", "s2xx_ps"],
        ["routes", "cached", "hit_ratio"],
        ["routes", "cached", "p99_s"],
        ["routes", "private", "refused_ps"],
        ["routes", "private", "s4xx_ps"],
        ["routes", "open", "rps"],
        ["routes", "unmatched", "refused_ps"],
        ["all", "refused_ps", ""],
        ["all", "p50_s", ""],
    ] {
        let path: Vec<&str> = path.into_iter().filter(|member| !member.is_empty()).collect();
        assert!(most(&path) > 0.0, "{path:?}: {ticks:#?}");
    }
    let tick = &ticks[0];
    assert!(tick["t"].as_str().is_some_and(|t| t.starts_with("20") && t.ends_with('Z')), "{tick}");
    for (member, length) in [("connections", 2), ("backlog_bytes", 2)] {
        assert_eq!(tick[member].as_array().map(Vec::len), Some(length), "{tick}");
    }
    assert_eq!(tick["connections"][1], 10_000);
    assert_eq!(tick["routes"]["limited"]["p99_s"], Value::Null);
    assert_eq!((&tick["routes"]["limited"]["rps"], &tick["in_flight"]), (&json!(0.0), &json!(0)));
    assert_eq!(
        (&tick["store_timeout_s"], &tick["all"]["error_ratio"]),
        (&json!(0.05), &json!(0.0))
    );
    the_history_has_its_seconds(&gateway, tick);
}

/// By the end of each.
fn the_history_has_its_seconds(gateway: &Gateway, tick: &Value) {
    let series = |query: &str| operate(gateway, "GET", &format!("/v1/series{query}"), "").json();
    let since = tick["t"].as_str().expect("a time").to_owned();
    let all = series(&format!("?since={since}"));
    assert_eq!(all["step_s"], 1, "{all}");
    let private = series("?window=1h&route=private");
    assert_eq!(private["step_s"], 10, "{private}");
    for member in ["rps", "error_ratio", "p50_s", "p99_s", "hit_ratio", "refused_ps", "s4xx_ps"] {
        let points = all["rps"].as_array().expect("points").len();
        assert_eq!(all[member].as_array().map(Vec::len), Some(points), "{member}");
    }
    for query in ["?route=nothing", "?window=x", "?since=yesterday"] {
        let reply = operate(gateway, "GET", &format!("/v1/series{query}"), "");
        assert_eq!(problem(&reply), (400, "request_invalid".to_owned()), "{query}");
    }
}

#[test]
fn what_operators_do_is_told_without_callers_to_who_only_reads() {
    let (_upstream, gateway) = start(TOKENS);
    let (mut operator, _) = Stream::open(&gateway, OPERATOR);
    let (mut reader, hello) = Stream::open(&gateway, READER);
    assert_eq!(hello["role"], "read");
    let request = Client::request(gateway.admin, "POST", "/v1/revocations").bearer(OPERATOR);
    let request = request.header("Content-Type", "application/json").body(r#"{"sub": "zorro"}"#);
    assert_eq!(request.send().status, 201);
    let told = operator.next("operation");
    assert_eq!(told["operation"], "POST /v1/revocations");
    assert_eq!((&told["by"], &told["object"]), (&json!("admin.token"), &json!({"sub": "zorro"})));
    assert_eq!((&told["status"], &told["result"]), (&json!(201), &json!("done")));
    let told = reader.next("operation");
    assert!(told["operation"] == "POST /v1/revocations" && !told.to_string().contains("zorro"));
    gateway.rewrite("no configuration");
    gateway.signal("HUP");
    assert_eq!(operator.next("reload")["result"], "refused");
}

#[test]
fn streams_have_places_of_their_own() {
    let (_upstream, gateway) = start("");
    let mut streams: Vec<Stream> = (0..8).map(|_| Stream::open(&gateway, "").0).collect();
    let full = operate(&gateway, "GET", "/v1/live", "");
    assert_eq!(problem(&full), (503, "streams_full".to_owned()));
    assert_eq!(metric(&gateway, "portcullis_live_streams"), Some(8.0));
    assert_eq!(metric(&gateway, "portcullis_live_streams_max"), Some(8.0));
    // Those of the listener are 64, and would not do for both.
    let mut held: Vec<Session> = Vec::new();
    for _ in 0..60 {
        let mut session = Session::open(gateway.admin);
        assert_eq!(session.get("/healthz").send().status, 200);
        held.push(session);
    }
    drop(held);
    streams.pop();
    eventually("the place is free", || metric(&gateway, "portcullis_live_streams") == Some(7.0));
    streams.push(Stream::open(&gateway, "").0);
    for stream in &mut streams {
        stream.next("tick");
    }
}

#[test]
fn a_stream_ends_with_its_session_and_with_the_drain() {
    let (_upstream, gateway) = start(TOKENS);
    let send = |method: &str, bearer: Option<&str>, body: &str| {
        let request = Client::request(gateway.admin, method, "/v1/login");
        let request = request.header("Content-Type", "application/json").body(body);
        match bearer {
            Some(bearer) => request.bearer(bearer).send(),
            None => request.send(),
        }
    };
    let answer = send("POST", None, &json!({ "token": OPERATOR }).to_string()).json();
    let session = answer["session"].as_str().expect("a session").to_owned();
    let (mut of_session, _) = Stream::open(&gateway, &session);
    let (mut of_token, _) = Stream::open(&gateway, OPERATOR);
    of_session.next("tick");
    assert_eq!(send("DELETE", Some(&session), "").status, 204);
    of_session.read_to_end();
    of_token.next("tick");
    // A request in progress holds up the end of the process.
    let mut waiting = Session::open(gateway.public);
    waiting.write("POST /open/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
    eventually("it is in progress", || {
        metric(&gateway, "portcullis_requests_in_flight") == Some(1.0)
    });
    gateway.signal("TERM");
    of_token.read_to_end();
}
