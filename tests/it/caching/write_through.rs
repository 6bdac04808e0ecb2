//! Answers to writes that are stored as what a read would get, and all that keeps them from it.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use super::{House, is_hit};
use crate::support::{Client, PATIENCE, Reply, Session, Upstream, response};

fn routes(mode: &str, more: &str) -> String {
    format!(
        "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n{more}\n\
         cache = {{ ttl = \"1h\", write_through = \"{mode}\" }}\n"
    )
}

/// Answers with the head that `x-head` asks for, and how many writes there have been.
fn obedient() -> Upstream {
    let writes = AtomicUsize::new(0);
    Upstream::with(move |request, connection| {
        let is_write = !request.request_line().starts_with("GET");
        let now = writes.fetch_add(usize::from(is_write), Ordering::SeqCst) + usize::from(is_write);
        let head = request.header("x-head").unwrap_or("200 OK").replace('|', "\r\n");
        let text = if head.starts_with("204") { String::new() } else { format!("v{now}") };
        let _ = connection.write_all(response(&head, &text).as_bytes());
    })
}

fn write(house: &House, method: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
    let address = house.gateways[0].public;
    let mut request = Client::request(address, method, path).header("Host", address.to_string());
    for (name, value) in fields {
        request = request.header(name, value);
    }
    request.body("new").send()
}

fn is_stored(reply: &Reply) -> bool {
    let status = reply.headers_named("cache-status").join(", ");
    assert!(status.contains("fwd=method"), "{status}");
    status.contains("; stored")
}

#[test]
fn the_next_read_of_what_was_written_is_a_hit_everywhere() {
    let house = House::with_routes(obedient(), &routes("always", ""));
    assert_eq!(house.get(0, "/p").text(), "v0");
    for (method, text) in [("PUT", "v1"), ("POST", "v2"), ("PATCH", "v3")] {
        let written = write(&house, method, "/p", &[]);
        assert_eq!((&*written.text(), is_stored(&written)), (text, true), "{method}");
        house.upstream.forget();
        let read = house.get(0, "/p");
        assert_eq!((&*read.text(), is_hit(&read)), (text, true), "{method}");
        crate::support::eventually("the other gateway has it", || {
            let read = house.get(1, "/p");
            assert_eq!(read.text(), text);
            is_hit(&read)
        });
    }
    // A query is another representation, which nobody has told.
    assert!(!is_hit(&house.get(0, "/p?a=1")));
}

#[test]
fn only_what_a_read_would_be_answered_with_is_stored() {
    let said = |head: &'static str| vec![("x-head", head)];
    let located = "200 OK|Content-Location: /p";
    let cases = [
        ("always", "DELETE", "/p", said("200 OK"), false),
        ("always", "PUT", "/p", said("204 No"), false),
        ("always", "PUT", "/p", said("202 Later"), false),
        ("always", "PUT", "/p", said("201 Made"), false),
        ("always", "PUT", "/p", said("201 Made|Location: /q"), false),
        ("always", "PUT", "/p", said("201 Made|Location: /p"), true),
        ("always", "PUT", "/p?a=1", said("200 OK"), false),
        ("always", "PUT", "/p", said("200 OK|Cache-Control: no-store"), false),
        ("always", "PUT", "/p", said("200 OK|Cache-Control: private"), false),
        ("always", "PUT", "/p", said("200 OK|Set-Cookie: a=b"), false),
        ("always", "PUT", "/p", said("200 OK|Vary: *"), false),
        ("always", "PUT", "/p", vec![("Range", "bytes=0-1")], false),
        ("always", "PUT", "/p", vec![("Prefer", "return=minimal")], false),
        ("always", "PUT", "/p", vec![("X-HTTP-Method-Override", "PATCH")], false),
        ("always", "PUT", "/p", vec![("Authorization", "Basic eA==")], false),
        ("always", "PUT", "/p", vec![("Cache-Control", "no-store")], false),
        ("always", "PUT", "/p", vec![("If-Match", "\"a\"")], true),
        ("content-location", "PUT", "/p", said("200 OK"), false),
        ("content-location", "PUT", "/p", said("200 OK|Content-Location: /q"), false),
        ("content-location", "PUT", "/p", said("200 OK|Content-Location: /p?a"), false),
        ("content-location", "PUT", "/p", said(located), true),
        ("content-location", "POST", "/p", said(located), false),
        (
            "content-location",
            "POST",
            "/p",
            said("200 OK|Content-Location: /p|Cache-Control: max-age=60"),
            true,
        ),
        ("off", "PUT", "/p", said(located), false),
    ];
    for mode in ["always", "content-location", "off"] {
        let house = House::with_routes(obedient(), &routes(mode, ""));
        for (_, method, path, fields, expected) in cases.iter().filter(|it| it.0 == mode) {
            let what = format!("{mode} {method} {path} {fields:?}");
            house.get(0, "/p");
            let written = write(&house, method, path, fields);
            assert_eq!(is_stored(&written), *expected, "{what}: {written:?}");
            let read = house.get(0, "/p");
            assert_eq!(is_hit(&read), *expected, "{what}");
            if *expected {
                assert_eq!(read.text(), written.text(), "{what}");
            }
        }
    }
}

/// It may have been done all the same, and another write that it overlaps must not hide that.
#[test]
fn a_write_that_fails_withdraws_what_is_stored() {
    for (mode, status, is_kept) in [
        ("always", "500 Oh", false),
        ("content-location", "503 Away", false),
        ("always", "400 What", true),
        ("off", "500 Oh", true),
    ] {
        let house = House::with_routes(obedient(), &routes(mode, ""));
        house.get(0, "/p");
        assert!(is_hit(&house.get(0, "/p")));
        let failed = write(&house, "PUT", "/p", &[("x-head", status)]);
        assert!(status.starts_with(&failed.status.to_string()), "{failed:?}");
        assert_eq!(is_hit(&house.get(0, "/p")), is_kept, "{mode} {status}");
    }
}

/// Of two writes that overlap, the one that is answered last may be the older one.
#[test]
fn a_write_stores_nothing_over_another_one() {
    let (announce, arrived) = channel();
    let (go_on, told) = channel::<()>();
    let (announce, told) = (Mutex::new(announce), Mutex::new(told));
    let versions = AtomicU64::new(0);
    let upstream = Upstream::with(move |request, connection| {
        let is_write = request.request_line().starts_with("PUT");
        let version = versions.fetch_add(u64::from(is_write), Ordering::SeqCst);
        let version = version + u64::from(is_write);
        if request.header("x-wait").is_some() {
            announce.lock().unwrap().send(()).unwrap();
            let _ = told.lock().unwrap().recv_timeout(PATIENCE);
        }
        let _ = connection.write_all(response("200 OK", &version.to_string()).as_bytes());
    });
    let more = "invalidates = [\"/shelf/*\"]";
    let house = House::with_routes(upstream, &routes("always", more));
    house.get(0, "/shelf/a");
    // Another write of the same thing, and one of another thing that makes this one stale, too.
    for (number, other) in [(1, "/shelf/a"), (3, "/elsewhere")] {
        let address = house.gateways[0].public;
        let mut first = Session::open(address);
        first.write(format!(
            "PUT /shelf/a HTTP/1.1\r\nHost: {address}\r\nX-Wait: 1\r\nContent-Length: 0\r\n\r\n"
        ));
        arrived.recv_timeout(PATIENCE).expect("the write arrives");
        let second = house.request(1, "PUT", other);
        assert_eq!(second.text(), (number + 1).to_string());
        go_on.send(()).unwrap();
        let first = first.read();
        assert_eq!((first.text(), is_stored(&first)), (number.to_string(), false), "{other}");
        for gateway in [0, 1] {
            let read = house.get(gateway, "/shelf/a");
            assert_eq!(read.text(), (number + 1).to_string(), "{other} at {gateway}");
        }
    }
}

/// No read that begins after a write was answered sees an older version, however late requests
/// arrive and answers come.
#[test]
fn three_thousand_races_of_reads_and_writes_see_nothing_stale() {
    const CLIENTS: usize = 6;
    const EACH: usize = 1000;
    const PATHS: usize = 3;
    let pause = || (0..fastrand::usize(0..20)).for_each(|_| std::thread::yield_now());
    let versions = Mutex::new(HashMap::<String, u64>::new());
    let upstream = Upstream::with(move |request, connection| {
        pause();
        let mut versions = versions.lock().unwrap();
        let version = versions.entry(request.target().to_owned()).or_default();
        *version += u64::from(request.request_line().starts_with("PUT"));
        let text = version.to_string();
        drop(versions);
        pause();
        let _ = connection.write_all(response("200 OK", &text).as_bytes());
    });
    let house = House::with_routes(upstream, &routes("always", ""));
    let written: [AtomicU64; PATHS] = Default::default();
    let [reads, hits, writes, stored] = [(); 4].map(|()| AtomicUsize::new(0));
    let count = |counter: &AtomicUsize, is: bool| {
        counter.fetch_add(usize::from(is), Ordering::SeqCst);
    };
    let client = |number: usize| {
        let mut random = fastrand::Rng::with_seed(number as u64);
        let mut sessions = [0, 1].map(|at| Session::open(house.gateways[at].public));
        for _ in 0..EACH {
            let (path, session) = (random.usize(0..PATHS), &mut sessions[random.usize(0..2)]);
            let target = format!("/{path}");
            let (oldest, is_write) = (written[path].load(Ordering::SeqCst), random.u8(0..4) == 0);
            let reply = session.request(if is_write { "PUT" } else { "GET" }, &target).send();
            let version: u64 = reply.text().parse().expect("a version");
            if is_write {
                written[path].fetch_max(version, Ordering::SeqCst);
                count(&writes, true);
                count(&stored, is_stored(&reply));
            } else {
                let status = reply.header("cache-status");
                assert!(version >= oldest, "{target}: {version} after {oldest}: {status:?}");
                count(&reads, true);
                count(&hits, is_hit(&reply));
            }
        }
    };
    let client = &client;
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            scope.spawn(move || client(number));
        }
    });
    let [reads, hits, writes, stored] = [reads, hits, writes, stored].map(AtomicUsize::into_inner);
    assert!(reads >= 3000 && writes >= 1000, "{reads} reads, {writes} writes");
    assert!(stored > writes / 20 && hits > reads / 20, "{stored} of {writes}, {hits} of {reads}");
}
