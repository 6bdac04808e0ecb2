//! Copies of requests for another upstream, and requests that fail or wait on purpose.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::{
    AUTH, Client, Exposition, Gateway, Recorded, SECRET, Session, Upstream, claims, eventually,
    raw, response, status, token,
};

fn stage(mirror: &Upstream, route: &str) -> (Gateway, Upstream) {
    let primary = Upstream::replying(response("200 OK", "primary"));
    let gateway = Gateway::start(&format!(
        "{AUTH}{}{}
        [routes.all]
        path = \"/*\"
        upstream = \"shop\"
        auth = {{ by = \"users\", optional = true }}
        {route}",
        primary.table("shop"),
        mirror.table("copies"),
    ));
    (gateway, primary)
}

fn copies(gateway: &Gateway, result: &str) -> f64 {
    let metrics = Client::get(gateway.admin, "/metrics").send().text();
    let labels = [("route", "all"), ("result", result)];
    Exposition::text(&metrics).value("portcullis_mirrors_total", &labels).unwrap()
}

fn until(gateway: &Gateway, result: &str, count: f64) {
    eventually(&format!("{count} copies are {result}"), || copies(gateway, result) == count);
}

#[test]
fn a_copy_is_the_request_without_what_says_who_calls() {
    let mirror = Upstream::replying(response("500 Internal Server Error", "copied"));
    let (gateway, primary) = stage(&mirror, "mirror = { upstream = \"copies\" }");
    let get = Client::get(gateway.public, "/a/b?c=d")
        .bearer(token(claims("ada")))
        .header("Cookie", "sid=1")
        .header("Proxy-Authorization", "Basic x")
        .header("X-Other", "stays");
    assert_eq!(get.send().text(), "primary");
    until(&gateway, "sent", 1.0);
    let (copy, request) = (mirror.only(), primary.only());
    assert_eq!(copy.request_line(), "GET /a/b?c=d HTTP/1.1");
    assert_eq!((copy.header("x-mirrored"), copy.header("x-other")), (Some("1"), Some("stays")));
    for name in ["authorization", "proxy-authorization", "cookie", "x-user-id"] {
        assert_eq!(copy.header(name), None, "{name}");
    }
    assert_eq!((request.header("x-user-id"), request.header("x-mirrored")), (Some("ada"), None));
    // What changes something is not done twice.
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let answer = Client::request(gateway.public, method, "/").body("x").send();
        assert_eq!(answer.status, 200);
    }
    assert_eq!(Client::request(gateway.public, "HEAD", "/").send().status, 200);
    until(&gateway, "sent", 2.0);
    assert_eq!(mirror.recorded().len(), 2);
}

/// The upstream gets the token, and whoever gets copies gets none, of whichever route.
#[test]
fn a_copy_has_nothing_from_where_any_verifier_or_session_reads() {
    let mirror = Upstream::replying(response("200 OK", "copied"));
    let primary = Upstream::replying(response("200 OK", "primary"));
    let gateway = Gateway::start(&format!(
        "[auth.users]
        algorithms = [\"HS256\"]
        secret = \"{SECRET}\"
        from = [\"header:x-token\", \"query:access_token\"]
        forward_token = true
        [auth.machines]
        api_keys = true
        from = [\"header:x-api-key\"]
        [session]
        id_from = [\"header:x-session-id\", \"cookie:sid\"]
        header = \"x-session\"
        {}{}
        [routes.all]
        path = \"/*\"
        upstream = \"shop\"
        auth = \"users\"
        mirror = {{ upstream = \"copies\" }}
        [routes.machines]
        path = \"/machines\"
        upstream = \"shop\"
        auth = \"machines\"
        session = true",
        primary.table("shop"),
        mirror.table("copies"),
    ));
    let token = token(claims("ada"));
    let get = |path: &str| {
        Client::get(gateway.public, path)
            .header("X-Api-Key", "key")
            .header("X-Session-Id", "id")
            .header("Cookie", "sid=1")
    };
    let path = format!("/a?b=c&access%5Ftoken={token}&d");
    assert_eq!(get(&path).send().text(), "primary");
    assert_eq!(get("/a").header("X-Token", token.clone()).send().text(), "primary");
    until(&gateway, "sent", 2.0);
    let mut targets: Vec<String> = Vec::new();
    for copy in mirror.recorded() {
        targets.push(copy.target().to_owned());
        for name in ["x-token", "x-api-key", "x-session-id", "cookie"] {
            assert_eq!(copy.header(name), None, "{name}");
        }
    }
    targets.sort();
    assert_eq!(targets, ["/a", "/a?b=c&d"]);
    let requests = primary.recorded();
    assert_eq!(requests[0].target(), path);
    assert_eq!(requests[1].header("x-token"), Some(&*token));
    assert_eq!(requests[0].header("x-api-key"), Some("key"));
}

#[test]
fn a_copy_says_who_calls_and_changes_things_where_its_route_wants_that() {
    let mirror = Upstream::replying(response("200 OK", "copied"));
    let all = "mirror = { upstream = \"copies\", identity = true, unsafe_methods = true, \
               body = \"10B\" }";
    let (gateway, primary) = stage(&mirror, all);
    let post = |body: &str| {
        let post = Client::request(gateway.public, "POST", "/").bearer(token(claims("ada")));
        assert_eq!(post.body(body).send().text(), "primary");
    };
    post("0123456789");
    until(&gateway, "sent", 1.0);
    let copy = mirror.only();
    assert_eq!((copy.header("x-user-id"), copy.text()), (Some("ada"), "0123456789".to_owned()));
    let chunked = |body: &str| {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = raw(gateway.public, format!("{head}5\r\n01234\r\n{body}0\r\n\r\n"));
        assert_eq!(status(&answer), 200);
    };
    chunked("5\r\n56789\r\n");
    until(&gateway, "sent", 2.0);
    // The primary gets what is longer, and the mirror nothing of it.
    post("0123456789x");
    chunked("6\r\n56789x\r\n");
    until(&gateway, "too_large", 2.0);
    let bodies = |upstream: &Upstream| -> Vec<String> {
        upstream.recorded().iter().map(Recorded::text).collect()
    };
    assert_eq!(bodies(&mirror), ["0123456789"; 2]);
    assert_eq!(bodies(&primary), ["0123456789", "0123456789", "0123456789x", "0123456789x"]);
}

/// The mirror may take longer than this test: whoever waited for it would never be answered.
#[test]
fn a_mirror_that_hangs_holds_up_nobody() {
    let open = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&open);
    let mirror = Upstream::raw(move |mut stream| {
        shared.fetch_add(1, Ordering::SeqCst);
        // It reads and never answers.
        let mut bytes = [0; 1024];
        while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
    });
    let primary = Upstream::replying(response("200 OK", "primary"));
    let gateway = Gateway::start(&format!(
        "{}{}response_timeout = \"1h\"
        [routes.all]
        path = \"/*\"
        upstream = \"shop\"
        mirror = {{ upstream = \"copies\", places = 12, unsafe_methods = true }}",
        primary.table("shop"),
        mirror.table("copies"),
    ));
    let mut session = Session::open(gateway.public);
    for _ in 0..10 {
        assert_eq!(session.get("/").send().text(), "primary");
        let post = Client::request(gateway.public, "POST", "/").body("x");
        assert_eq!(post.send().text(), "primary");
    }
    assert_eq!(primary.seen(), 20);
    until(&gateway, "full", 8.0);
    eventually("twelve copies hang", || open.load(Ordering::SeqCst) == 12);
    assert_eq!(["sent", "failed"].map(|result| copies(&gateway, result)), [0.0, 0.0]);
}

#[test]
fn long_answers_to_copies_are_not_read_to_their_end() {
    let ended = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&ended);
    let mirror = Upstream::with(move |_, connection| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
        let _ = connection.write_all(head.as_bytes());
        while connection.write_all(&[b'x'; 64 * 1024]).is_ok() {}
        shared.fetch_add(1, Ordering::SeqCst);
    });
    let (gateway, _primary) = stage(&mirror, "mirror = { upstream = \"copies\" }");
    assert_eq!(Client::get(gateway.public, "/").send().text(), "primary");
    until(&gateway, "sent", 1.0);
    eventually("the answer is given up", || ended.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_stream_of_events_gives_its_place_back() {
    let mirror = Upstream::with(|_, connection| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
        let _ = connection.write_all(head.as_bytes());
        // It says nothing more, and goes on for as long as somebody listens.
        let _ = connection.read(&mut [0]);
    });
    let (gateway, _primary) = stage(&mirror, "mirror = { upstream = \"copies\", places = 1 }");
    eventually("three copies had the one place", || {
        assert_eq!(Client::get(gateway.public, "/").send().text(), "primary");
        copies(&gateway, "sent") >= 3.0
    });
}

#[test]
fn what_the_cache_answers_is_not_copied() {
    let mirror = Upstream::replying(response("200 OK", "copied"));
    let route = "cache = { ttl = \"1h\", shared = true }\nmirror = { upstream = \"copies\" }";
    let (gateway, primary) = stage(&mirror, route);
    for _ in 0..3 {
        assert_eq!(Client::get(gateway.public, "/").send().text(), "primary");
    }
    until(&gateway, "sent", 1.0);
    assert_eq!((primary.recorded().len(), mirror.recorded().len()), (1, 1));
}

/// Of many who want the same at once, one asks.
#[test]
fn who_waits_for_the_answer_to_another_is_not_copied() {
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let primary = Upstream::with(move |_, stream| {
        let _ = gate.lock().unwrap().recv();
        let _ = stream.write_all(response("200 OK", "primary").as_bytes());
    });
    let mirror = Upstream::replying(response("200 OK", "copied"));
    let gateway = Gateway::start(&format!(
        "{}{}
        [routes.all]
        path = \"/*\"
        upstream = \"shop\"
        cache = {{ ttl = \"1h\" }}
        mirror = {{ upstream = \"copies\" }}",
        primary.table("shop"),
        mirror.table("copies"),
    ));
    let in_flight = || {
        let metrics = Client::get(gateway.admin, "/metrics").send().text();
        Exposition::text(&metrics).value("portcullis_requests_in_flight", &[]).unwrap()
    };
    std::thread::scope(|scope| {
        let get = || Client::get(gateway.public, "/").send().text();
        let clients: Vec<_> = (0..5).map(|_| scope.spawn(get)).collect();
        eventually("all are here, and one asks", || in_flight() >= 5.0 && primary.seen() == 1);
        go.send(()).unwrap();
        for client in clients {
            assert_eq!(client.join().unwrap(), "primary");
        }
    });
    until(&gateway, "sent", 1.0);
    assert_eq!((primary.seen(), mirror.seen()), (1, 1));
    drop(go);
}

/// Whoever waits on purpose has asked nothing yet: what is known of its caller is never old.
#[test]
fn who_waits_on_purpose_is_charged_afterwards() {
    let upstream = Upstream::replying(response("200 OK", "ok"));
    let gateway = Gateway::start(&format!(
        "{}
        [limits.one]
        key = [\"address\"]
        allow = [\"1/1h\"]
        [routes.late]
        path = \"/late\"
        upstream = \"shop\"
        limits = [\"one\"]
        faults = {{ allow_from = [\"127.0.0.1/32\"], delay = \"100%\", delay_time = \"1m\" }}
        [routes.soon]
        path = \"/soon\"
        upstream = \"shop\"
        limits = [\"one\"]",
        upstream.table("shop"),
    ));
    let in_flight = || {
        let metrics = Client::get(gateway.admin, "/metrics").send().text();
        Exposition::text(&metrics).value("portcullis_requests_in_flight", &[]).unwrap()
    };
    let before = in_flight();
    let mut late = TcpStream::connect(gateway.public).unwrap();
    late.write_all(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    eventually("it waits", || in_flight() > before);
    let soon = || Client::get(gateway.public, "/soon").send().status;
    assert_eq!([soon(), soon()], [200, 429]);
}

#[test]
fn faults_are_for_those_who_ask_for_them() {
    let upstream = Upstream::replying(response("200 OK", "ok"));
    let gateway = Gateway::start(&format!(
        "{}
        [routes.here]
        path = \"/here\"
        upstream = \"shop\"
        faults = {{ allow_from = [\"127.0.0.0/8\"], abort = \"100%\", status = 418 }}
        [routes.elsewhere]
        path = \"/elsewhere\"
        upstream = \"shop\"
        faults = {{ allow_from = [\"10.0.0.0/8\"], abort = \"100%\" }}
        [routes.late]
        path = \"/late\"
        upstream = \"shop\"
        cache = {{ ttl = \"1h\" }}
        faults = {{ allow_from = [\"127.0.0.1/32\"], delay = \"100%\", delay_time = \"200ms\" }}",
        upstream.table("shop"),
    ));
    let answer = Client::get(gateway.public, "/here").send();
    assert_eq!(answer.status, 418);
    assert!(answer.text().contains("fault_injected"), "{}", answer.text());
    let call = Client::request(gateway.public, "POST", "/here");
    let call = call.header("Content-Type", "application/grpc").send();
    assert_eq!((call.status, call.header("grpc-status").is_some_and(|it| it != "0")), (200, true));
    assert_eq!(Client::get(gateway.public, "/elsewhere").send().text(), "ok");
    for _ in 0..2 {
        assert_eq!(Client::get(gateway.public, "/late").send().text(), "ok");
    }
    eventually("lines that tell of it", || {
        let lines = gateway.access_lines();
        let is_late = |line: &&Value| line["duration_ms"].as_f64().is_some_and(|it| it >= 200.0);
        let late = lines.iter().filter(|line| line["route"] == "late").filter(is_late).count();
        let told = lines.iter().filter(|line| line["reason"] == "fault_injected").count();
        (late, told, lines.len()) == (2, 2, 5)
    });
}
