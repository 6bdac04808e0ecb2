//! The recipe of docs/cache.md for RFC 9111 to the letter: loaded as it stands there, and obeyed.

use std::io::Write as _;

use super::is_hit;
use crate::support::{Client, Gateway, Recorded, Reply, Upstream, response};

/// The example of that section.
fn recipe() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cache.md");
    let page = std::fs::read_to_string(page).expect("docs/cache.md");
    let (_, section) = page.split_once("## RFC 9111 to the letter\n").expect("the section");
    let (_, example) = section.split_once("```toml\n").expect("an example");
    example.split("```").next().expect("its end").to_owned()
}

/// A gateway with the recipe, before an upstream that answers as `answer` says.
fn start(answer: impl Fn(&Recorded) -> String + Send + Sync + 'static) -> (Gateway, Upstream) {
    let upstream = Upstream::with(move |request, connection| {
        let _ = connection.write_all(answer(request).as_bytes());
    });
    (Gateway::start(&(upstream.table("shop") + &recipe())), upstream)
}

fn get(gateway: &Gateway, path: &str, fields: &[(&str, &str)]) -> Reply {
    let request = Client::get(gateway.public, path);
    fields.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
}

#[test]
fn it_keeps_what_the_rfc_has_kept() {
    const HEADS: [(&str, bool); 7] = [
        ("200 OK\r\nCache-Control: max-age=60\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2", true),
        ("200 OK\r\nLast-Modified: Fri, 01 Jan 2021 00:00:00 GMT", true),
        ("503 Busy\r\nCache-Control: max-age=3600\r\nAge: 60", true),
        ("499 Odd\r\nExpires: Fri, 31 Dec 2100 23:59:59 GMT", true),
        ("200 OK\r\nCache-Control: max-age=60\r\nContent-Range: bytes 0-4/5", true),
        ("200 OK", false),
        ("404 Not Found", false),
    ];
    let (gateway, _upstream) = start(|request| {
        let number: usize = request.target()[1..].parse().expect("a number");
        response(HEADS[number].0, "hello")
    });
    for (number, (head, is_kept)) in HEADS.iter().enumerate() {
        let path = format!("/{number}");
        let (first, second) = (get(&gateway, &path, &[]), get(&gateway, &path, &[]));
        assert_eq!((is_hit(&first), is_hit(&second)), (false, *is_kept), "{head}");
        for name in ["set-cookie", "content-range"] {
            assert_eq!(first.headers_named(name), second.headers_named(name), "{head}");
        }
    }
}

#[test]
fn conditions_about_what_is_not_stored_are_the_upstreams_to_judge() {
    let (gateway, upstream) = start(|request| {
        let fields = "ETag: \"v1\"\r\nCache-Control: max-age=600";
        match request.header("if-none-match") {
            Some("\"v1\"") => format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n\r\n"),
            _ => response(&format!("200 OK\r\n{fields}"), "hello"),
        }
    });
    let since = ("If-Modified-Since", "Fri, 01 Jan 2021 00:00:00 GMT");
    let range = ("Range", "bytes=1-2");
    // A 304 is for who asked, whatever part of it was wanted, and fills nothing.
    for fields in [&[("If-None-Match", "\"v1\"")][..], &[("If-None-Match", "\"v1\""), range]] {
        let reply = get(&gateway, "/p", fields);
        assert_eq!((reply.status, is_hit(&reply)), (304, false), "{fields:?}");
        let asked = upstream.recorded().pop().expect("a request");
        assert_eq!(asked.header("if-none-match"), Some("\"v1\""));
    }
    assert_eq!(upstream.seen(), 2);
    // What is whole fills.
    let reply = get(&gateway, "/p", &[("If-None-Match", "\"v0\""), since]);
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    let asked = upstream.recorded().pop().expect("a request");
    assert_eq!(asked.header("if-modified-since"), Some(since.1));
    for (fields, status) in [(&[][..], 200), (&[("If-None-Match", "\"v1\"")], 304), (&[range], 206)]
    {
        let reply = get(&gateway, "/p", fields);
        assert_eq!((reply.status, is_hit(&reply)), (status, true), "{fields:?}");
    }
    assert_eq!(upstream.seen(), 3);
}
