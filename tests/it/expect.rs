//! `Expect: 100-continue` (RFC 9110 §10.1.1): the client is asked for its body when the upstream
//! has asked, and a refusal at the head costs no upload.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use crate::support::{AUTH, Gateway, Session, Upstream, eventually, response};

const HEAD: &str = "POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn gateway(upstream: &Upstream, keys: &str) -> Gateway {
    let table = upstream.table("shop");
    Gateway::start(&format!("{table}{keys}[routes.a]\npath = \"/a\"\nupstream = \"shop\"\n"))
}

fn head_of(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return None;
        }
        head.extend_from_slice(&byte);
    }
    Some(String::from_utf8_lossy(&head).to_lowercase())
}

/// An upstream that reads a head, lets `answer` go on, and keeps what it saw.
fn upstream(
    answer: impl Fn(&mut TcpStream) + Send + Sync + 'static,
) -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    let upstream = Upstream::raw(move |mut stream| {
        while let Some(head) = head_of(&mut stream) {
            seen.lock().unwrap().push(head);
            answer(&mut stream);
        }
    });
    (upstream, heads)
}

#[test]
fn an_upstream_that_refuses_at_the_head_costs_no_upload() {
    for code in [401, 413] {
        let refusal = response(&format!("{code} No"), "no");
        let (upstream, heads) = upstream(move |stream| {
            let _ = stream.write_all(refusal.as_bytes());
            // Whatever came of the body would be read as a head.
        });
        let gateway = gateway(&upstream, "continue_timeout = \"10m\"\nresponse_timeout = \"1h\"\n");
        let mut session = Session::open(gateway.public);
        session.write(format!("{HEAD}Expect: 100-continue\r\n\r\n"));
        let head = session.read_until("\r\n\r\n");
        assert!(head.starts_with(&format!("HTTP/1.1 {code} ")), "{head}");
        assert_eq!(session.read_exactly(2), "no");
        let heads = heads.lock().unwrap();
        assert_eq!(heads.len(), 1, "{heads:?}");
        assert!(heads[0].contains("\r\nexpect: 100-continue\r\n"), "{heads:?}");
    }
}

#[test]
fn the_client_is_asked_when_the_upstream_asks() {
    let (ask, asked) = channel::<()>();
    let asked = Mutex::new(asked);
    let (upstream, heads) = upstream(move |stream| {
        let _ = asked.lock().unwrap().recv();
        let _ = stream.write_all(CONTINUE.as_bytes());
        let mut body = [0; 5];
        let _ = stream.read_exact(&mut body);
        let _ = stream.write_all(response("200 OK", &String::from_utf8_lossy(&body)).as_bytes());
    });
    let gateway = gateway(&upstream, "continue_timeout = \"10m\"\nresponse_timeout = \"1h\"\n");
    for (count, expect) in ["100-continue", "100-CONTINUE"].into_iter().enumerate() {
        let mut session = Session::open(gateway.public);
        session.write(format!("{HEAD}Expect: {expect}\r\n\r\n"));
        eventually("the head is there", || heads.lock().unwrap().len() > count);
        ask.send(()).unwrap();
        assert_eq!(session.read_until("\r\n\r\n"), CONTINUE);
        session.write("hello");
        assert_eq!(session.read().text(), "hello");
    }
}

#[test]
fn an_upstream_that_does_not_know_expect_is_not_waited_for_without_end() {
    for keys in ["continue_timeout = \"10ms\"\n", "continue_timeout = \"0s\"\n"] {
        let (upstream, heads) = upstream(|stream| {
            let mut body = [0; 5];
            let _ = stream.read_exact(&mut body);
            let _ = stream.write_all(response("200 OK", "taken").as_bytes());
        });
        let gateway = gateway(&upstream, keys);
        let mut session = Session::open(gateway.public);
        session.write(format!("{HEAD}Expect: 100-continue\r\n\r\n"));
        assert_eq!(session.read_until("\r\n\r\n"), CONTINUE);
        session.write("hello");
        assert_eq!(session.read().text(), "taken");
        // A client that does not wait is served as well.
        session.write(format!("{HEAD}Expect: 100-continue\r\n\r\nhello"));
        assert_eq!(session.read().text(), "taken");
        let heads = heads.lock().unwrap();
        let told = heads.iter().filter(|head| head.contains("\r\nexpect:")).count();
        assert_eq!(told, if keys.contains("0s") { 0 } else { 2 }, "{heads:?}");
    }
}

/// The gateway's own refusals come without a 100, and nothing of the body is asked for.
#[test]
fn a_refusal_of_the_gateway_comes_without_a_100() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let gateway = Gateway::start(&format!(
        "[server.limits]\nbody_bytes = \"1KiB\"\n{AUTH}{}\
         [limits.none]\nkey = [\"address\"]\nallow = [\"1/1h\"]\n\
         [routes.a]\npath = \"/a\"\nupstream = \"shop\"\n\
         [routes.b]\npath = \"/b\"\nupstream = \"shop\"\nauth = \"users\"\n\
         [routes.c]\npath = \"/c\"\nupstream = \"shop\"\nlimits = [\"none\"]\n",
        upstream.table("shop")
    ));
    let post = |path: &str, length: u32, expect: &str| {
        let mut session = Session::open(gateway.public);
        session.write(format!(
            "POST {path} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n{expect}\r\n"
        ));
        session.read_until("\r\n\r\n").get(9..12).map(str::to_owned)
    };
    let expect = "Expect: 100-continue\r\n";
    assert_eq!(Session::open(gateway.public).get("/c").send().status, 200);
    for (path, length, expect, code) in [
        ("/a", 2000, expect, "413"),
        ("/b", 5, expect, "401"),
        ("/c", 5, expect, "429"),
        ("/nowhere", 5, expect, "404"),
        ("/a", 5, "Expect: 100-continue, x\r\n", "417"),
        ("/a", 5, "Expect: 100-continue\r\nExpect: 200-ok\r\n", "417"),
    ] {
        assert_eq!(post(path, length, expect).as_deref(), Some(code), "{path} {expect}");
    }
    assert_eq!(upstream.seen(), 1);
}

#[test]
fn other_spellings_and_versions() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let gateway = gateway(&upstream, "");
    for (request, told) in [
        // One expectation, said twice; hyper sends no 100 for a list, so the body comes along.
        (format!("{HEAD}Expect: 100-continue, 100-continue\r\n\r\nhello"), true),
        (format!("{HEAD}Expect: 100-continue\r\nExpect: 100-continue\r\n\r\nhello"), true),
        (format!("{HEAD}Expect: 100-continue,\r\n\r\nhello"), true),
        // Nothing to hold back, and a version without 100 (RFC 9110 §10.1.1).
        ("GET /a HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\n\r\n".to_owned(), false),
        (format!("{HEAD}Expect: 100-continue\r\n\r\nhello").replace("HTTP/1.1", "HTTP/1.0"), false),
    ] {
        let mut session = Session::open(gateway.public);
        session.write(&request);
        assert_eq!(session.read().status, 200, "{request}");
        let passed = upstream.only();
        assert_eq!(passed.header("expect").is_some(), told, "{request}: {}", passed.head);
        assert_eq!(passed.text(), if request.ends_with("hello") { "hello" } else { "" });
        upstream.forget();
    }
}
