//! Responses that are compressed on their way, and those that must not be.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};

use crate::support::{
    AUTH, Client, Gateway, Recorded, Reply, Session, Upstream, claims, eventually, token,
};

/// What the upstream serves at most paths: text, long enough.
fn page() -> String {
    (0..200).map(|n| format!("line {n} of a page that says much the same on each\n")).collect()
}

fn reply(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// By path. It compares tags as text, as many do.
fn answer(request: &Recorded, connection: &mut TcpStream) {
    let text = "Content-Type: text/html; charset=utf-8\r\nETag: \"v1\"\r\nAccept-Ranges: bytes\r\n";
    let answer = match request.target().rsplit('/').next().unwrap_or_default() {
        _ if request.header("if-none-match") == Some("\"v1\"") => {
            "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n".to_owned()
        }
        "weak-aware" if request.header("if-none-match").is_some() => {
            "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n".to_owned()
        }
        "short" => reply("200 OK", text, "short"),
        "image" => reply("200 OK", "Content-Type: image/png\r\n", &page()),
        "sse" => reply("200 OK", "Content-Type: text/event-stream\r\n", &page()),
        "coded" => reply("200 OK", &format!("{text}Content-Encoding: br\r\n"), &page()),
        "as-it-is" => reply("200 OK", &format!("{text}Cache-Control: no-transform\r\n"), &page()),
        "error" => reply("500 Oh", text, &page()),
        "fresh" => reply("200 OK", &format!("{text}Cache-Control: max-age=60\r\n"), &page()),
        _ if request.header("range").is_some() => {
            let part = &page()[..2000];
            let range = format!("Content-Range: bytes 0-1999/{}\r\n", page().len());
            reply("206 Partial Content", &format!("{text}{range}"), part)
        }
        _ => reply("200 OK", text, &page()),
    };
    let to_head = request.request_line().starts_with("HEAD ");
    let end = answer.find("\r\n\r\n").map_or(answer.len(), |end| end + 4);
    let length = if to_head { end } else { answer.len() };
    let _ = connection.write_all(&answer.as_bytes()[..length]);
}

fn stage(more: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::with(answer);
    let gateway = Gateway::start(&format!(
        "{AUTH}{}
        [routes.open]
        path = \"/open/*\"
        upstream = \"shop\"
        compress = true
        [routes.kept]
        path = \"/kept/*\"
        upstream = \"shop\"
        compress = true
        cache = {{}}
        [routes.mine]
        path = \"/mine/*\"
        upstream = \"shop\"
        auth = \"users\"
        compress = true
        [routes.private]
        path = \"/private/*\"
        upstream = \"shop\"
        auth = \"users\"
        compress = \"private\"
        [routes.off]
        path = \"/off/*\"
        upstream = \"shop\"
        {more}",
        upstream.table("shop"),
    ));
    (gateway, upstream)
}

fn ask(gateway: &Gateway, path: &str, codings: &str) -> Reply {
    Client::get(gateway.public, path).header("Accept-Encoding", codings).send()
}

fn expanded(coding: &str, sent: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    // What is there so far may be less than all.
    let _ = match coding {
        "br" => brotli::Decompressor::new(sent, 4096).read_to_end(&mut content),
        "zstd" => zstd::stream::read::Decoder::new(sent).unwrap().read_to_end(&mut content),
        "gzip" => flate2::read::GzDecoder::new(sent).read_to_end(&mut content),
        _ => std::io::Cursor::new(sent).read_to_end(&mut content),
    };
    content
}

/// The page, in this coding, with all that belongs to it.
fn is_coded(reply: &Reply, coding: &str) {
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers_named("content-encoding"), [coding]);
    assert_eq!(reply.header("content-length"), None);
    assert_eq!(reply.header("accept-ranges"), None);
    assert_eq!(reply.headers_named("etag"), ["W/\"v1\""]);
    assert_eq!(reply.headers_named("vary"), ["accept-encoding"]);
    assert!(reply.body.len() < page().len() / 4, "{} bytes", reply.body.len());
    assert_eq!(String::from_utf8(expanded(coding, &reply.body)).unwrap(), page());
}

/// As the upstream sent it; `vary`: whether another request would get it otherwise.
fn is_plain(reply: &Reply, vary: bool) {
    assert_eq!(reply.header("content-encoding"), None);
    assert_eq!(reply.headers_named("vary"), if vary { &["accept-encoding"][..] } else { &[] });
    assert!(reply.header("content-length").is_some());
    assert!(!reply.headers_named("etag").contains(&"W/\"v1\""));
}

#[test]
fn text_goes_out_in_the_coding_that_its_client_wants_most() {
    let (gateway, upstream) = stage("");
    for (codings, coding) in [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, zstd;q=0.9, br;q=0.5", "gzip"),
        ("zstd, gzip", "zstd"),
        ("gzip;q=0.1", "gzip"),
        ("*;q=0.5, br;q=0", "zstd"),
    ] {
        is_coded(&ask(&gateway, "/open/page", codings), coding);
    }
    for codings in ["identity", "gzip;q=0", "deflate", "identity;q=0.5, gzip;q=0.4"] {
        let answer = ask(&gateway, "/open/page", codings);
        is_plain(&answer, true);
        assert_eq!((answer.text(), answer.header("etag")), (page(), Some("\"v1\"")), "{codings}");
    }
    is_plain(&Client::get(gateway.public, "/open/page").send(), true);
    let answer = ask(&gateway, "/off/page", "gzip");
    is_plain(&answer, false);
    // An error of the upstream is text as well.
    let answer = ask(&gateway, "/open/error", "gzip");
    assert_eq!((answer.status, answer.header("content-encoding")), (500, Some("gzip")));
    // The upstream is told what the client wants, and may do it itself.
    assert_eq!(upstream.recorded()[0].header("accept-encoding"), Some("gzip, deflate, br, zstd"));

    eventually("the lines name the codings", || {
        let lines = gateway.access_lines();
        let coded = lines.iter().filter(|line| line["encoding"] == "gzip").count();
        coded == 3 && lines.iter().filter(|line| line["encoding"].is_null()).count() == 6
    });
    let metrics = Client::get(gateway.admin, "/metrics").send().text();
    let count = |coding: &str, side: &str| {
        let name = "portcullis_compressed_bytes_total";
        let start = format!("{name}{{coding=\"{coding}\",side=\"{side}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("{metrics}")).parse::<usize>().unwrap()
    };
    assert_eq!(count("gzip", "in"), 3 * page().len());
    assert!((1..page().len()).contains(&count("gzip", "out")));
    assert_eq!(count("zstd", "in"), 2 * page().len());
}

#[test]
fn what_is_a_part_or_settled_or_short_passes_as_it_is() {
    let (gateway, _upstream) = stage("");
    for path in ["/open/short", "/open/image", "/open/sse", "/open/as-it-is"] {
        is_plain(&ask(&gateway, path, "gzip"), false);
    }
    let answer = ask(&gateway, "/open/coded", "gzip, br");
    assert_eq!((answer.header("content-encoding"), answer.header("vary")), (Some("br"), None));
    assert_eq!(answer.text(), page());

    let get = |path: &str| Client::get(gateway.public, path).header("Accept-Encoding", "gzip");
    let answer = get("/open/part").header("Range", "bytes=0-1999").send();
    assert_eq!((answer.status, answer.body.len()), (206, 2000));
    is_plain(&answer, false);
    let answer = get("/open/short").header("Range", "bytes=0-1").send();
    is_plain(&answer, false);
    let answer = get("/open/page").header("Cache-Control", "no-transform").send();
    is_plain(&answer, true);
    let answer = get("/open/page").method("HEAD").send();
    is_plain(&answer, true);
    assert_eq!(answer.header("content-length"), Some(&*page().len().to_string()));
    // Who reads to the end of the connection must be able to tell it from a broken one.
    let mut old = Session::open(gateway.public);
    old.write("GET /open/page HTTP/1.0\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let answer = old.rest().to_ascii_lowercase();
    assert!(answer.contains("\r\nvary: accept-encoding\r\n"), "{answer}");
    assert!(!answer.contains("content-encoding"), "{answer}");
    // The gateway's own answers are short.
    let answer = ask(&gateway, "/mine/page", "gzip");
    assert_eq!((answer.status, answer.header("content-encoding")), (401, None));
}

#[test]
fn what_is_for_one_caller_alone_is_compressed_only_by_choice() {
    let (gateway, _upstream) = stage("");
    let token = token(claims("alice"));
    let get = |path: &str| Client::get(gateway.public, path).header("Accept-Encoding", "gzip");
    is_plain(&get("/open/page").header("Cookie", "sid=1").send(), true);
    is_plain(&get("/open/page").header("Authorization", "Basic eDp5").send(), true);
    is_plain(&get("/mine/page").bearer(&token).send(), true);
    is_coded(&get("/private/page").bearer(&token).send(), "gzip");
}

#[test]
fn a_client_is_told_what_it_holds_already() {
    let (gateway, upstream) = stage("");
    let get = |path: &str, tag: &str| {
        let get = Client::get(gateway.public, path).header("Accept-Encoding", "gzip");
        get.header("If-None-Match", tag).send()
    };
    // The upstream does not know the weak tag for its own, and the gateway does.
    for path in ["/open/page", "/open/weak-aware"] {
        for held in ["W/\"v1\"", "\"v0\", W/\"v1\""] {
            let answer = get(path, held);
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{path} {held}");
            assert_eq!(answer.headers_named("etag"), ["W/\"v1\""], "{path} {held}");
            assert_eq!(answer.headers_named("vary"), ["accept-encoding"], "{path} {held}");
            assert_eq!(answer.header("content-encoding"), None, "{path} {held}");
            assert_eq!(answer.header("content-length"), None, "{path} {held}");
        }
    }
    // Who holds the very bytes keeps their tag.
    let answer = get("/open/page", "\"v1\"");
    assert_eq!((answer.status, answer.header("etag")), (304, Some("\"v1\"")));
    assert_eq!(answer.header("vary"), Some("accept-encoding"));
    is_coded(&get("/open/page", "W/\"v0\""), "gzip");
    assert_eq!(upstream.seen(), 6);
    assert_eq!(upstream.recorded()[0].header("if-none-match"), Some("W/\"v1\""));
}

#[test]
fn what_is_stored_is_compressed_for_each_client_anew() {
    let (gateway, upstream) = stage("");
    is_coded(&ask(&gateway, "/kept/fresh", "gzip"), "gzip");
    for codings in ["br", "zstd", "gzip"] {
        let answer = ask(&gateway, "/kept/fresh", codings);
        assert!(answer.header("cache-status").unwrap().contains("hit"), "{codings}");
        is_coded(&answer, codings);
    }
    let answer = Client::get(gateway.public, "/kept/fresh").send();
    is_plain(&answer, true);
    assert_eq!(answer.text(), page());
    let held = Client::get(gateway.public, "/kept/fresh").header("If-None-Match", "W/\"v1\"");
    let answer = held.header("Accept-Encoding", "br").send();
    assert_eq!((answer.status, answer.header("etag")), (304, Some("W/\"v1\"")));
    assert_eq!(answer.header("vary"), Some("accept-encoding"));
    // A range is one of the bytes that are stored.
    let part = Client::get(gateway.public, "/kept/fresh").header("Range", "bytes=5-8");
    let answer = part.header("Accept-Encoding", "br").send();
    assert_eq!((answer.status, answer.text()), (206, page()[5..9].to_owned()));
    assert_eq!(answer.header("content-encoding"), None);
    assert_eq!(upstream.seen(), 1, "one copy for all codings");
}

/// An upstream that sends the first half of a page, and the rest when it is told to.
fn halting() -> (Upstream, mpsc::Sender<()>) {
    let (go_on, told) = mpsc::channel();
    let told = Mutex::new(told);
    let upstream = Upstream::with(move |_, connection| {
        let page = page();
        let (first, rest) = page.split_at(page.len() / 2);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"v1\"\r\n";
        let length = format!("Content-Length: {}\r\n\r\n", page.len());
        let _ = connection.write_all(format!("{head}{length}{first}").as_bytes());
        if told.lock().unwrap_or_else(PoisonError::into_inner).recv().is_ok() {
            let _ = connection.write_all(rest.as_bytes());
        } else {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    });
    (upstream, go_on)
}

fn halting_stage(upstream: &Upstream, most: usize) -> Gateway {
    Gateway::start(&format!(
        "[server.limits]\ncompressions = {most}\n{}[routes.all]\npath = \"/*\"\n\
         upstream = \"shop\"\ncompress = true\n",
        upstream.table("shop"),
    ))
}

/// Reads chunks until they hold this content, and returns what was sent.
fn read_half(session: &mut Session, coding: &str) -> Vec<u8> {
    let mut sent = Vec::new();
    let half = page().len() / 2;
    while expanded(coding, &sent).len() < half {
        let size = session.read_until("\r\n");
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        sent.extend_from_slice(&session.read_bytes(size));
        session.read_until("\r\n");
    }
    assert_eq!(expanded(coding, &sent), page().as_bytes()[..half]);
    sent
}

fn begin(gateway: &Gateway, coding: &str) -> (Session, String) {
    let mut session = Session::open(gateway.public);
    session.write(format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n"));
    let head = session.read_until("\r\n\r\n").to_ascii_lowercase();
    (session, head)
}

#[test]
fn what_has_come_goes_out_while_the_upstream_rests() {
    for coding in ["br", "zstd", "gzip"] {
        let (upstream, go_on) = halting();
        let gateway = halting_stage(&upstream, 1);
        let (mut session, head) = begin(&gateway, coding);
        assert!(head.contains(&format!("\r\ncontent-encoding: {coding}\r\n")), "{head}");
        let mut sent = read_half(&mut session, coding);
        go_on.send(()).unwrap();
        loop {
            let size = session.read_until("\r\n");
            let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
            sent.extend_from_slice(&session.read_bytes(size));
            session.read_until("\r\n");
            if size == 0 {
                break;
            }
        }
        assert_eq!(expanded(coding, &sent), page().as_bytes());
    }
}

#[test]
fn what_breaks_off_has_no_end() {
    let (upstream, go_on) = halting();
    let gateway = halting_stage(&upstream, 1);
    let (mut session, _head) = begin(&gateway, "gzip");
    read_half(&mut session, "gzip");
    drop(go_on);
    let rest = session.rest();
    assert!(!rest.ends_with("0\r\n\r\n"), "{rest}");
    eventually("a line that says so", || {
        gateway.access_lines().iter().any(|line| line["reason"] == "upstream_cut_off")
    });
}

#[test]
fn more_at_a_time_than_there_are_places_pass_as_they_come() {
    let (upstream, go_on) = halting();
    let gateway = halting_stage(&upstream, 1);
    let (first, head) = begin(&gateway, "gzip");
    assert!(head.contains("\r\ncontent-encoding: gzip\r\n"), "{head}");
    let (second, head) = begin(&gateway, "gzip");
    assert!(!head.contains("content-encoding"), "{head}");
    assert!(head.contains("\r\nvary: accept-encoding\r\n"), "{head}");
    assert!(head.contains("\r\netag: \"v1\"\r\n"), "{head}");
    // A client that leaves gives its place back.
    drop((first, second));
    eventually("the place is free again", || {
        let (_session, head) = begin(&gateway, "gzip");
        head.contains("\r\ncontent-encoding: gzip\r\n")
    });
    drop(go_on);
}
