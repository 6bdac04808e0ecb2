//! Asking the origin whether what is stored still holds, and what becomes of its word.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{House, ROUTES, is_hit};
use crate::support::{Client, Gateway, Recorded, Upstream, eventually, raw, response};

/// Whether the gateway asked under a condition.
fn is_conditional(request: &Recorded) -> bool {
    ["if-none-match", "if-modified-since"].iter().any(|name| request.header(name).is_some())
}

/// What is stale on arrival under this validator, and confirmed with new fields when asked.
fn confirming(validator: &'static str) -> Upstream {
    Upstream::with(move |request, connection| {
        let text = if is_conditional(request) {
            let fields = "Cache-Control: max-age=3600\r\nX-News: 1";
            format!("HTTP/1.1 304 Not Modified\r\n{validator}\r\n{fields}\r\n\r\n")
        } else {
            let head = format!("200 OK\r\n{validator}\r\nCache-Control: max-age=10\r\nAge: 20");
            response(&head, "hello")
        };
        let _ = connection.write_all(text.as_bytes());
    })
}

#[test]
fn a_confirmation_makes_an_answer_fresh_at_all_gateways() {
    for (validator, name) in [
        ("ETag: \"v1\"", "if-none-match"),
        ("ETag: W/\"v1\"", "if-none-match"),
        ("Last-Modified: Fri, 01 Jan 2021 00:00:00 GMT", "if-modified-since"),
    ] {
        let house = House::start(confirming(validator));
        let get = |gateway: usize| Client::get(house.gateways[gateway].public, "/p").send();
        assert_eq!((get(0).status, house.upstream.seen()), (200, 1));
        house.wait_for_entries(1);
        let reply = get(1);
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"), "{validator}");
        assert_eq!(reply.header("x-news"), Some("1"));
        let status = reply.header("cache-status").unwrap_or_default();
        assert!(status.contains("fwd=stale") && status.contains("fwd-status=304"), "{status}");
        let asked = house.upstream.recorded().pop().expect("a request");
        let (_, value) = validator.split_once(": ").expect("a field");
        assert_eq!(asked.header(name), Some(value));
        for gateway in [0, 1] {
            eventually("it is fresh again", || {
                let reply = get(gateway);
                assert_eq!(reply.text(), "hello");
                is_hit(&reply) && reply.header("x-news") == Some("1")
            });
        }
    }
}

#[test]
fn a_304_about_something_else_is_asked_again_without_conditions() {
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::with(move |request, connection| {
        let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        let text = match (first, is_conditional(request)) {
            (true, _) => {
                response("200 OK\r\nETag: \"v1\"\r\nCache-Control: max-age=1\r\nAge: 2", "1")
            }
            (_, true) => "HTTP/1.1 304 Not Modified\r\nETag: \"v9\"\r\n\r\n".to_owned(),
            _ => response("200 OK\r\nETag: \"v9\"\r\nCache-Control: max-age=600", "9"),
        };
        let _ = connection.write_all(text.as_bytes());
    });
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    let get = || Client::get(gateway.public, "/p").send();
    assert_eq!(get().text(), "1");
    let reply = get();
    assert_eq!((reply.status, reply.text().as_str()), (200, "9"));
    let conditional: Vec<bool> = upstream.recorded().iter().map(is_conditional).collect();
    assert_eq!(conditional, [false, true, false]);
    assert!(is_hit(&get()));
}

#[test]
fn a_304_that_nobody_asked_for_is_nobody_elses() {
    let upstream = Upstream::replying("HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n");
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    for _ in 0..2 {
        assert_eq!(Client::get(gateway.public, "/p").send().status, 502);
    }
}

#[test]
fn what_is_to_be_confirmed_each_time_is_kept_and_confirmed_each_time() {
    let upstream = Upstream::with(|request, connection| {
        let fields = "ETag: \"v1\"\r\nCache-Control: no-cache";
        let text = match request.header("if-none-match") {
            Some("\"v1\"") => format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n\r\n"),
            _ => response(&format!("200 OK\r\n{fields}"), "hello"),
        };
        let _ = connection.write_all(text.as_bytes());
    });
    let house = House::start(upstream);
    let get = |gateway: usize| Client::get(house.gateways[gateway].public, "/p").send();
    assert_eq!(get(0).text(), "hello");
    house.wait_for_entries(1);
    for (number, gateway) in [1, 0, 1, 0].into_iter().enumerate() {
        let reply = get(gateway);
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
        assert!(!is_hit(&reply));
        let seen = house.upstream.recorded();
        assert_eq!(seen.len(), number + 2);
        assert!(is_conditional(&seen[number + 1]));
    }
}

#[test]
fn a_ttl_of_zero_keeps_what_has_a_validator_and_confirms_it_at_each_use() {
    const ALWAYS: &str = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n\
                          cache = { ttl = \"0s\" }\n";
    let since = "Fri, 01 Jan 2021 00:00:00 GMT";
    let last_modified = format!("Last-Modified: {since}");
    for (field, condition) in [
        ("ETag: \"v1\"", Some(("if-none-match", "\"v1\""))),
        (&last_modified, Some(("if-modified-since", since))),
        ("Content-Type: text/plain", None),
    ] {
        let whole = format!("200 OK\r\n{field}");
        let same = format!("HTTP/1.1 304 Not Modified\r\n{field}\r\n\r\n");
        let upstream = Upstream::with(move |request, connection| {
            let text =
                if is_conditional(request) { same.clone() } else { response(&whole, "hello") };
            let _ = connection.write_all(text.as_bytes());
        });
        let gateway = Gateway::start(&(upstream.table("shop") + ALWAYS));
        for number in 1..=3 {
            let reply = Client::get(gateway.public, "/p").send();
            assert_eq!((reply.status, reply.text().as_str()), (200, "hello"), "{field}");
            assert!(!is_hit(&reply), "{field}");
            let status = reply.header("cache-status").unwrap_or_default();
            assert_eq!(status.contains("; stored"), condition.is_some(), "{field}: {status}");
            let asked = upstream.recorded();
            assert_eq!(asked.len(), number, "{field}");
            let expected = condition.filter(|_| number > 1);
            assert_eq!(is_conditional(&asked[number - 1]), expected.is_some(), "{field}");
            if let Some((name, value)) = expected {
                assert_eq!(asked[number - 1].header(name), Some(value));
            }
        }
    }
}

#[test]
fn conditions_of_a_client_are_answered_here_when_nothing_is_stored() {
    let head = "200 OK\r\nETag: \"v1\"\r\nCache-Control: max-age=600\r\n\
                Last-Modified: Fri, 01 Jan 2021 00:00:00 GMT";
    for (name, value, status) in [
        ("If-None-Match", "\"v1\"", 304),
        ("If-None-Match", "\"v2\"", 200),
        ("If-Modified-Since", "Fri, 01 Jan 2021 00:00:00 GMT", 304),
        ("If-Modified-Since", "Thu, 31 Dec 2020 00:00:00 GMT", 200),
        ("Range", "bytes=1-2", 206),
    ] {
        let upstream = Upstream::replying(response(head, "hello"));
        let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
        let reply = Client::get(gateway.public, "/p").header(name, value).send();
        assert_eq!((reply.status, is_hit(&reply)), (status, false), "{name}: {value}");
        let asked = upstream.only();
        assert!(!is_conditional(&asked) && asked.header("range").is_none(), "{asked:?}");
        eventually("the whole is kept", || {
            let reply = Client::get(gateway.public, "/p").send();
            assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
            is_hit(&reply)
        });
        assert_eq!(upstream.seen(), 1, "{name}: {value}");
    }
}

#[test]
fn what_must_be_confirmed_is_confirmed_for_a_client_with_conditions_too() {
    let upstream = Upstream::with(|request, connection| {
        let tag = request.header("if-none-match").unwrap_or_default();
        let fields = "ETag: \"v1\"\r\nCache-Control: max-age=0";
        let text = if tag == "\"v1\"" {
            format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n\r\n")
        } else {
            response(&format!("200 OK\r\n{fields}"), "hello")
        };
        let _ = connection.write_all(text.as_bytes());
    });
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    // Nobody may share it, which is remembered; it is kept all the same.
    assert_eq!(Client::get(gateway.public, "/p").send().text(), "hello");
    for (name, value, status, text) in [
        ("If-None-Match", "\"v0\"", 200, "hello"),
        ("If-None-Match", "\"v1\"", 304, ""),
        ("Range", "bytes=1-2", 206, "el"),
    ] {
        let reply = Client::get(gateway.public, "/p").header(name, value).send();
        assert_eq!((reply.status, reply.text().as_str()), (status, text), "{name}: {value}");
        let asked = upstream.recorded().pop().expect("a request");
        assert_eq!(asked.headers_named("if-none-match"), ["\"v1\""], "{name}: {value}");
        assert_eq!(asked.header("range"), None);
    }
}

#[test]
fn an_older_answer_does_not_outlive_a_newer_one_that_may_not_be_kept() {
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::with(move |_, connection| {
        let text = match asked.fetch_add(1, Ordering::SeqCst) {
            0 => response("200 OK\r\nCache-Control: max-age=600", "old"),
            1 => response("404 Not Found\r\nCache-Control: no-store", "gone"),
            _ => response("200 OK\r\nCache-Control: no-store", "new"),
        };
        let _ = connection.write_all(text.as_bytes());
    });
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    let get = || Client::get(gateway.public, "/p").send().text();
    let reload = || Client::get(gateway.public, "/p").header("Cache-Control", "no-cache").send();
    assert_eq!((get(), get()), ("old".to_owned(), "old".to_owned()));
    assert_eq!(reload().text(), "gone");
    assert_eq!(get(), "old", "an error says nothing about what is good");
    assert_eq!(reload().text(), "new");
    eventually("the old one is gone", || get() == "new");
}

#[test]
fn a_head_tells_what_has_become_of_the_answer_to_a_get() {
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::with(move |request, connection| {
        let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        let (tag, age) = if first { ("v1", 20) } else { ("v1", 0) };
        let head = format!("200 OK\r\nETag: \"{tag}\"\r\nCache-Control: max-age=10\r\nAge: {age}");
        let text = response(&head, "hello");
        let end = text.find("\r\n\r\n").expect("its end") + 4;
        let is_head = request.request_line().starts_with("HEAD");
        let _ = connection.write_all(&text.as_bytes()[..if is_head { end } else { text.len() }]);
    });
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    Client::get(gateway.public, "/p").send();
    let head = Client::request(gateway.public, "HEAD", "/p").send();
    assert_eq!((head.status, is_hit(&head)), (200, false));
    let reply = Client::get(gateway.public, "/p").send();
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    assert!(is_hit(&reply), "the HEAD made it fresh: {reply:?}");
    assert_eq!(upstream.seen(), 2);
}

#[test]
fn a_head_about_something_else_ends_the_answer_to_a_get() {
    let upstream = Upstream::with(move |request, connection| {
        let is_head = request.request_line().starts_with("HEAD");
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n";
        let text = if is_head {
            format!("{head}ETag: \"v2\"\r\nContent-Length: 5\r\n\r\n")
        } else {
            format!("{head}ETag: \"v1\"\r\nContent-Length: 5\r\n\r\nhello")
        };
        let _ = connection.write_all(text.as_bytes());
    });
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    let get = || is_hit(&Client::get(gateway.public, "/p").send());
    assert!(!get() && get());
    let head = Client::request(gateway.public, "HEAD", "/p").header("Cache-Control", "no-cache");
    assert!(!is_hit(&head.send()));
    assert!(!get(), "the origin has another one");
}

#[test]
fn an_interim_response_comes_with_a_miss_and_not_with_a_hit() {
    let upstream = Upstream::with(|_, connection| {
        let _ = connection.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
        let _ = connection.write_all(response("200 OK", "hello").as_bytes());
    });
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    let get = || raw(gateway.public, "GET /p HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    let (miss, hit) = (get(), get());
    assert!(miss.starts_with("HTTP/1.1 103 ") && miss.ends_with("\r\n\r\nhello"), "{miss}");
    assert!(hit.starts_with("HTTP/1.1 200 ") && hit.ends_with("\r\n\r\nhello"), "{hit}");
}
