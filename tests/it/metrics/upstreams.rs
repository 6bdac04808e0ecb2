//! What is counted of each upstream: what attempts at its servers come to, and how long requests
//! wait for it, whatever else is learned of it.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Barrier};

use super::scrape;
use crate::support::{
    Client, Exposition, Gateway, Recorded, Session, Upstream, eventually, operate, response,
};

/// All outcomes of attempts.
const OUTCOMES: [&str; 6] = ["connect", "cut_off", "ok", "reset", "status_5xx", "timeout"];

fn attempts(read: &Exposition, upstream: &str) -> [Option<f64>; 6] {
    OUTCOMES.map(|outcome| {
        let labels = [("upstream", upstream), ("outcome", outcome)];
        read.value("portcullis_upstream_requests_total", &labels)
    })
}

/// Ends as its path says.
fn ending(request: &Recorded, connection: &mut TcpStream) {
    let path = request.target();
    if path.ends_with("/ok") {
        let _ = connection.write_all(response("200 OK", "hello").as_bytes());
    } else if path.ends_with("/status_5xx") {
        let _ = connection.write_all(response("503 Away", "hello").as_bytes());
    } else if path.ends_with("/cut_off") {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello");
        let _ = connection.shutdown(Shutdown::Both);
    } else if path.ends_with("/reset") {
        let _ = connection.shutdown(Shutdown::Both);
    }
}

#[test]
fn attempts_are_counted_by_what_they_came_to() {
    let servers = Upstream::with(ending);
    let mut config = String::new();
    for (care, more) in [("none", ""), ("breaker", "breaker = {}\n"), ("eject", "eject = {}\n")] {
        for outcome in OUTCOMES {
            let url = if outcome == "connect" { "http://127.0.0.1:1" } else { &servers.url() };
            let name = format!("{care}-{outcome}");
            config.push_str(&format!(
                "[upstreams.{name}]\nservers = [\"{url}\"]\nresponse_timeout = \"300ms\"\n{more}\
                 [routes.{name}]\npath = \"/{care}/{outcome}\"\nupstream = \"{name}\"\n"
            ));
        }
    }
    let gateway = Gateway::start(&config);
    let read = scrape(&gateway);
    for name in ["upstream_requests_total", "upstream_duration_seconds_count", "route_info"] {
        let is_there = |(known, _): &(String, _)| *known == format!("portcullis_{name}");
        assert!(!read.series.keys().any(is_there), "{name} before a request");
    }
    for care in ["none", "breaker", "eject"] {
        for (index, outcome) in OUTCOMES.into_iter().enumerate() {
            // A POST is sent once.
            let request = Client::request(gateway.public, "POST", &format!("/{care}/{outcome}"));
            let _ = request.try_send();
            let name = format!("{care}-{outcome}");
            let mut expected = [Some(0.0); 6];
            expected[index] = Some(1.0);
            eventually(&name, || attempts(&scrape(&gateway), &name) == expected);
            let read = scrape(&gateway);
            let labels = [("upstream", &*name)];
            let count = read.value("portcullis_upstream_duration_seconds_count", &labels);
            assert_eq!(count, Some(1.0), "{name}");
            let labels = [("upstream", &*name), ("route", &*name)];
            assert_eq!(read.value("portcullis_route_info", &labels), Some(1.0));
            let all = operate(&gateway, "GET", "/v1/upstreams", "").json();
            let server = &all["upstreams"][&name]["servers"][0];
            assert_eq!(server["url"], server["server"]);
            let errors = server["errors"].as_object().unwrap();
            assert_eq!(errors.len(), OUTCOMES.len() - 1, "{server}");
            for (word, count) in errors {
                assert_eq!(*count, u64::from(word == outcome), "{name}: {server}");
            }
        }
    }
}

#[test]
fn who_leaves_in_the_middle_of_an_answer_was_answered() {
    let upstream = Upstream::with(|_, connection| {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello");
    });
    let config = upstream.table("shop") + "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n";
    let gateway = Gateway::start(&config);
    let mut client = Session::open(gateway.public);
    client.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    client.read_until("hello");
    drop(client);
    let expected = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0].map(Some);
    eventually("it is counted", || attempts(&scrape(&gateway), "shop") == expected);
}

#[test]
fn waits_for_a_place_are_counted_where_there_were_some() {
    let gate = Arc::new(Barrier::new(2));
    let inside = Arc::clone(&gate);
    let upstream = Upstream::with(move |_, connection| {
        inside.wait();
        let _ = connection.write_all(response("200 OK", "ok").as_bytes());
    });
    let gateway = Gateway::start(&format!(
        "{}max_connections = 1\nconnect_timeout = \"10s\"\n[routes.all]\npath = \"/*\"\n\
         upstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let ask = || {
        let mut session = Session::open(gateway.public);
        session.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        session
    };
    let shop = [("upstream", "shop")];
    let value = |name: &str| scrape(&gateway).value(&format!("portcullis_{name}"), &shop);
    let mut first = ask();
    eventually("it is forwarded", || upstream.seen() == 1);
    let listed =
        || operate(&gateway, "GET", "/v1/upstreams", "").json()["upstreams"]["shop"].clone();
    let (busy, of) = (listed()["servers"][0]["busy"].clone(), listed()["connections"].clone());
    assert_eq!((busy, of), (1.into(), serde_json::json!([1, 1])));
    let mut second = ask();
    eventually("it waits", || value("upstream_requests_waiting") == Some(1.0));
    gate.wait();
    assert_eq!(first.read().status, 200);
    gate.wait();
    assert_eq!(second.read().status, 200);
    eventually("both are counted", || value("upstream_duration_seconds_count") == Some(2.0));
    assert_eq!(value("upstream_queue_wait_seconds_count"), Some(1.0));
    let waited = value("upstream_queue_wait_seconds_sum").unwrap();
    assert!(waited > 0.0 && waited <= value("upstream_duration_seconds_sum").unwrap());
    eventually("its connection rests", || {
        let server = listed()["servers"][0].clone();
        (&server["busy"], &server["idle"]) == (&0.into(), &1.into())
    });
}
