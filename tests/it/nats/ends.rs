//! What a request ends as that gets no answer, and that none arrives after its end was told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::{code, reach, route, upstream};
use crate::support::{Client, Folder, Gateway, Nats, Service, eventually, said};

#[test]
fn where_nobody_listens_the_answer_comes_at_once() {
    let nats = Nats::start();
    // Longer than any client of this test waits.
    let config = upstream(&nats, "response_timeout = \"60s\"") + &route("/*", "orders.get");
    let gateway = Gateway::start(&config);
    for method in ["GET", "POST"] {
        let reply = Client::request(gateway.public, method, "/").body("x").send();
        assert_eq!((reply.status, &*code(&reply)), (503, "upstream_no_responders"));
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    let service = Service::answering(&nats, "orders.get", |_| vec![said("here")]);
    assert_eq!(Client::get(gateway.public, "/").send().text(), "here");
    assert_eq!(service.count(), 1);
}

#[test]
fn without_a_connection_the_answer_comes_at_once_and_with_one_again_all_is_well() {
    let mut nats = Nats::start();
    let config = upstream(&nats, "response_timeout = \"60s\"") + &route("/*", "orders.get");
    let gateway = Gateway::start(&config);
    nats.kill();
    let ask = || Client::request(gateway.public, "POST", "/").body("x").send();
    eventually("the loss is known", || gateway.stderr().contains("is lost"));
    let reply = ask();
    assert_eq!((reply.status, &*code(&reply)), (503, "upstream_unreachable"));
    assert_eq!(reply.header("retry-after"), Some("1"));
    nats.restart();
    let service = Service::answering(&nats, "orders.get", |_| vec![said("here")]);
    eventually("it is connected again", || ask().text() == "here");
    assert_eq!(service.asked().iter().filter(|asked| asked.text() == "x").count(), service.count());
}

#[test]
fn a_gateway_starts_without_nats() {
    let mut nats = Nats::start();
    nats.kill();
    let settings = "connect_timeout = \"100ms\"\nresponse_timeout = \"60s\"";
    let gateway = Gateway::start(&(upstream(&nats, settings) + &route("/*", "orders.get")));
    let reply = Client::get(gateway.public, "/").send();
    assert_eq!((reply.status, &*code(&reply)), (503, "upstream_unreachable"));
    assert!(gateway.stderr().contains("no connection with NATS"), "{}", gateway.stderr());
}

/// A service that says nothing, and one that answers when its client has gone.
#[test]
fn a_silent_service_is_a_timeout_and_what_it_says_late_reaches_nobody() {
    let nats = Nats::start();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let mut is_first = true;
    let service = Service::with(&nats, "orders.*", move |asked, publish| {
        if std::mem::take(&mut is_first) {
            let _ = released.recv();
            publish.send(&said("late"));
        }
        publish.send(&said(&asked.payload));
    });
    let more = "response_timeout = \"300ms\"";
    let slow = "[routes.slow]\npath = \"/patient\"\nupstream = \"patient\"\n\
                subject = \"orders.two\"\n";
    let patient = upstream(&nats, "").replace("orders]", "patient]");
    let config = upstream(&nats, more) + &patient + slow + &route("/*", "orders.one");
    let gateway = Gateway::start(&config);
    let reply = Client::request(gateway.public, "POST", "/").body("one").send();
    assert_eq!((reply.status, &*code(&reply)), (504, "upstream_timeout"));
    drop(release);
    let reply = Client::request(gateway.public, "POST", "/patient").body("two").send();
    assert_eq!((reply.status, &*reply.text()), (200, "two"));
    assert_eq!(service.count(), 2);
}

/// The server itself is silent: requests wait, and when that is known they are refused.
#[test]
fn a_silent_server_is_lost_after_some_pings() {
    let nats = Nats::start();
    let _service = Service::answering(&nats, "orders.get", |_| vec![said("here")]);
    let config = upstream(&nats, "response_timeout = \"60s\"") + &route("/*", "orders.get");
    let gateway = Gateway::start(&config);
    nats.stop_signal();
    let reply = Client::request(gateway.public, "POST", "/")
        .patience(std::time::Duration::from_secs(60))
        .body("x")
        .send();
    // It may have been read.
    assert_eq!((reply.status, &*code(&reply)), (502, "upstream_broken"));
    let reply = Client::get(gateway.public, "/").send();
    assert_eq!((reply.status, &*code(&reply)), (503, "upstream_unreachable"));
    nats.cont_signal();
    eventually("it is connected again", || Client::get(gateway.public, "/").send().status == 200);
}

#[test]
fn what_is_longer_than_nats_takes_is_refused_and_not_sent() {
    let folder = Folder::new();
    let nats = Nats::start_in(folder, "max_payload: 4096\n");
    let service =
        Service::answering(&nats, ">", |asked| vec![said(asked.payload.len().to_string())]);
    let nest = upstream(&nats, "packet = \"nest\"").replace("orders]", "nest]");
    let wrapped = "[routes.nest]\npath = \"/nest\"\nupstream = \"nest\"\nsubject = \"nest\"\n";
    let config = upstream(&nats, "") + &nest + wrapped + &route("/*", "orders.put");
    let gateway = Gateway::start(&config);
    let put =
        |path: &str, body: String| Client::request(gateway.public, "PUT", path).body(body).send();
    assert_eq!(put("/", "x".repeat(3000)).text(), "3000");
    let json = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    for (path, body) in [
        ("/", "x".repeat(4097)),
        // With its fields it is longer than that.
        ("/", "x".repeat(4090)),
        // And this in its packet.
        ("/nest", json(4096)),
        ("/nest", json(4090)),
    ] {
        let reply = put(path, body);
        assert_eq!((reply.status, &*code(&reply)), (413, "body_too_large"), "{path}");
    }
    assert_eq!(service.count(), 1);
    // Nothing of this is the upstream's fault, and the next one passes.
    assert_eq!(put("/", "x".repeat(100)).text(), "100");
}

/// When each caller was told how his request ended.
type Ends = Arc<Mutex<HashMap<String, Instant>>>;

/// Asks with an id of its own each time until it is told to stop.
fn call(gateway: &Gateway, caller: usize, stop: &Arc<AtomicBool>, ends: &Ends) -> Caller {
    let (public, stop, ends) = (gateway.public, Arc::clone(stop), Arc::clone(ends));
    std::thread::spawn(move || {
        let mut statuses = HashMap::<u16, usize>::new();
        for number in 0.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            let id = format!("{caller}-{number}");
            let reply = Client::request(public, "POST", "/").body(&id).send();
            ends.lock().unwrap().insert(id, Instant::now());
            *statuses.entry(reply.status).or_default() += 1;
        }
        statuses
    })
}

type Caller = std::thread::JoinHandle<HashMap<u16, usize>>;

#[test]
fn nothing_arrives_after_its_caller_was_told_that_it_failed() {
    let mut nats = Nats::start();
    let config = upstream(&nats, "response_timeout = \"60s\"") + &route("/*", "orders.put");
    let gateway = Gateway::start(&config);
    let answered = Arc::<AtomicUsize>::default();
    let counting = Arc::clone(&answered);
    let first = Service::answering(&nats, "orders.put", move |_| {
        counting.fetch_add(1, Ordering::SeqCst);
        vec![said("done")]
    });
    let (stop, ends) = (Arc::<AtomicBool>::default(), Ends::default());
    let callers: Vec<_> = (0..32).map(|caller| call(&gateway, caller, &stop, &ends)).collect();
    reach("all are busy", || answered.load(Ordering::SeqCst), 500);
    nats.kill();
    let before = ends.lock().unwrap().len();
    reach("many were refused", || ends.lock().unwrap().len(), before + 200);
    drop(first);
    nats.restart();
    let second = Service::answering(&nats, "orders.put", |_| vec![said("done")]);
    reach("all are busy again", || second.count(), 500);
    stop.store(true, Ordering::SeqCst);
    let mut statuses = HashMap::<u16, usize>::new();
    for caller in callers {
        for (status, count) in caller.join().expect("a caller") {
            *statuses.entry(status).or_default() += count;
        }
    }
    let ends = ends.lock().unwrap();
    let is_late = |id: &str, at: Instant| ends.get(id).is_none_or(|end| *end < at);
    let asked = second.asked();
    let late: Vec<_> = asked.iter().filter(|it| is_late(&it.text(), it.at)).collect();
    assert!(late.is_empty(), "{} of {} came late: {statuses:?}", late.len(), asked.len());
    assert!(statuses.keys().all(|status| [200, 502, 503].contains(status)), "{statuses:?}");
    // Whose answer died with the server was told so: a 502.
    let asked = statuses[&200] + statuses.get(&502).unwrap_or(&0);
    assert!(asked >= 1000 && statuses[&503] >= 100, "{statuses:?}");
}
