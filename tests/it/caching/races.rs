//! Reads and writes at once, over two gateways: no read that begins after a write was answered may
//! see what was there before.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::{House, ROUTES, is_hit};
use crate::support::{Client, PATIENCE, Session, Upstream, eventually, response};

/// An upstream whose paths hold a number each: GET reads it, POST adds one. Both answer with it.
pub(super) fn versioned() -> Upstream {
    let versions = Mutex::new(HashMap::<String, u64>::new());
    Upstream::with(move |request, connection| {
        let mut versions = versions.lock().unwrap();
        let version = versions.entry(request.target().to_owned()).or_default();
        if request.request_line().starts_with("POST") {
            *version += 1;
        }
        let text = version.to_string();
        drop(versions);
        // Another thread may write between our reading and our answer: that is the race.
        std::thread::yield_now();
        let _ = connection.write_all(response("200 OK", &text).as_bytes());
    })
}

/// What a storm of reads and writes does: three things, each with a number.
struct Storm {
    read: fn(usize) -> String,
    write: fn(usize) -> String,
    /// Whether a write makes the hits of all three things end, not only of its own.
    wide: bool,
}

/// Eight clients read and write over both gateways. No read that begins after a write was answered
/// sees what was there before.
fn storm(house: &House, storm: &Storm) {
    const CLIENTS: usize = 8;
    const EACH: usize = 1500;
    const PATHS: usize = 3;
    // The newest version of each path whose write was answered.
    let written: [AtomicU64; PATHS] = Default::default();
    let (reads, writes, hits) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let client = |number: usize| {
        let mut random = fastrand::Rng::with_seed(number as u64);
        let mut sessions = [0, 1].map(|n| Session::open(house.gateways[n].public));
        for _ in 0..EACH {
            let session = &mut sessions[random.usize(0..2)];
            let path = random.usize(0..PATHS);
            if random.usize(0..8) == 0 {
                let reply = session.request("POST", &(storm.write)(path)).send();
                let version: u64 = reply.text().parse().expect("a version");
                written[path].fetch_max(version, Ordering::SeqCst);
                writes.fetch_add(1, Ordering::SeqCst);
            } else {
                let oldest = written[path].load(Ordering::SeqCst);
                let target = (storm.read)(path);
                let reply = session.get(&target).send();
                let version: u64 = reply.text().parse().expect("a version");
                assert!(
                    version >= oldest,
                    "{target}: {version} after {oldest} was answered: {:?}",
                    reply.header("cache-status")
                );
                reads.fetch_add(1, Ordering::SeqCst);
                hits.fetch_add(usize::from(is_hit(&reply)), Ordering::SeqCst);
            }
        }
    };
    let client = &client;
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            scope.spawn(move || client(number));
        }
    });
    let (reads, writes, hits) = (reads.into_inner(), writes.into_inner(), hits.into_inner());
    assert_eq!(reads + writes, CLIENTS * EACH);
    assert!(reads >= 10_000 && writes >= 1000, "{reads} reads, {writes} writes");
    let few = if storm.wide { 60 } else { 20 };
    assert!(hits > reads / few, "{hits} hits of {reads}: the cache was hardly used");
}

#[test]
fn ten_thousand_reads_and_writes_see_nothing_stale() {
    let (read, write) = (|path| format!("/{path}"), |path| format!("/{path}"));
    storm(&House::start(versioned()), &Storm { read, write, wide: false });
}

/// Things that are read at one path and written at another one: the number is the last segment.
fn apart(grouped: bool) -> Upstream {
    let versions = Mutex::new(HashMap::<String, u64>::new());
    Upstream::with(move |request, connection| {
        let (kind, name) = request.target()[1..].split_once('/').expect("two segments");
        let mut versions = versions.lock().unwrap();
        let version = versions.entry(name.to_owned()).or_default();
        *version += u64::from(kind == "write");
        let text = version.to_string();
        drop(versions);
        std::thread::yield_now();
        let is_write = grouped && kind == "write";
        let field = if is_write { "Cache-Group-Invalidation" } else { "Cache-Groups" };
        let group = if grouped { name } else { "another" };
        let head = format!("200 OK\r\n{field}: \"{group}\"");
        let _ = connection.write_all(response(&head, &text).as_bytes());
    })
}

#[test]
fn ten_thousand_reads_and_writes_of_groups_see_nothing_stale() {
    let (read, write) = (|path| format!("/read/{path}"), |path| format!("/write/{path}"));
    storm(&House::start(apart(true)), &Storm { read, write, wide: true });
}

#[test]
fn ten_thousand_reads_and_writes_of_a_prefix_see_nothing_stale() {
    let routes = ROUTES.to_owned()
        + r#"
        [routes.write]
        path = "/write/*"
        methods = ["POST"]
        upstream = "shop"
        invalidates = ["/read/*"]
        "#;
    let (read, write) = (|path| format!("/read/{path}"), |path| format!("/write/{path}"));
    storm(&House::with_routes(apart(false), &routes), &Storm { read, write, wide: true });
}

/// Holds GETs back: each is announced when it arrives, with the version it read, and answered when
/// told.
struct Held {
    arrived: Receiver<()>,
    go_on: Sender<()>,
}

fn holding() -> (Upstream, Held) {
    let (announce, arrived) = channel();
    let (go_on, told) = channel();
    let (announce, told) = (Mutex::new(announce), Mutex::new(told));
    let version = Arc::new(AtomicU64::new(1));
    let upstream = Upstream::with(move |request, connection| {
        let is_write = request.request_line().starts_with("POST");
        let text = if is_write {
            (version.fetch_add(1, Ordering::SeqCst) + 1).to_string()
        } else {
            let read = version.load(Ordering::SeqCst).to_string();
            let _ = announce.lock().unwrap().send(());
            let _ = told.lock().unwrap().recv_timeout(PATIENCE);
            read
        };
        let _ = connection.write_all(response("200 OK", &text).as_bytes());
    });
    (upstream, Held { arrived, go_on })
}

/// A read that began before a write and ends after it brings the old answer to its own client, and
/// to nobody else: neither node may keep it.
#[test]
fn what_was_read_before_a_write_is_not_kept_after_it() {
    for writer in [0, 1] {
        let (upstream, held) = holding();
        let house = House::with_routes(upstream, ROUTES);
        let address = house.gateways[0].public;
        let reader = std::thread::spawn(move || {
            Client::get(address, "/p").header("Host", address.to_string()).send()
        });
        held.arrived.recv_timeout(PATIENCE).expect("the read arrives");
        assert_eq!(house.request(writer, "POST", "/p").text(), "2");
        held.go_on.send(()).unwrap();
        assert_eq!(reader.join().unwrap().text(), "1", "it began before the write");
        for gateway in [0, 1] {
            held.go_on.send(()).unwrap();
            let reply = house.get(gateway, "/p");
            assert_eq!(reply.text(), "2", "gateway {gateway}, written through {writer}");
        }
    }
}

/// A client that leaves while its write is at work: the outcome is unknown, so the copies go.
#[test]
fn a_write_whose_client_left_empties_the_path_too() {
    let (started, has_started) = channel();
    let started = Mutex::new(started);
    let version = AtomicU64::new(1);
    let upstream = Upstream::with(move |request, connection| {
        if request.request_line().starts_with("POST") {
            version.store(2, Ordering::SeqCst);
            let _ = started.lock().unwrap().send(());
            // No answer: the client leaves first.
            let _ = std::io::Read::read(connection, &mut [0; 1]);
            return;
        }
        let text = version.load(Ordering::SeqCst).to_string();
        let _ = connection.write_all(response("200 OK", &text).as_bytes());
    });
    let house = House::start(upstream);
    assert_eq!(house.get(0, "/p").text(), "1");
    house.wait_for_entries(1);
    assert!(is_hit(&house.get(1, "/p")));
    let mut client = Session::open(house.gateways[0].public);
    client.write("POST /p HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n");
    has_started.recv_timeout(PATIENCE).expect("the write arrives");
    drop(client);
    for gateway in [0, 1] {
        eventually("the old answer is gone", || house.get(gateway, "/p").text() == "2");
    }
}
