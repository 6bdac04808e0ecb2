//! The handshake: who may open a WebSocket, what the upstream is asked, and what it may answer.

use std::io::Write;
use std::sync::{Arc, Mutex};

use super::{Stage, config};
use crate::support::websocket::{
    CLOSE, KEY, TEXT, WebSocket, accept, echo, handshake, reason, upstream,
};
use crate::support::{
    Chunks, Gateway, Session, Upstream, claims, eventually, raw, raw_until_close, response, status,
    token,
};

/// The code in the body of an answer as it came.
fn code(answer: &str) -> &str {
    let (_, rest) = answer.split_once("urn:portcullis:problem:").unwrap_or_default();
    rest.split('"').next().unwrap_or_default()
}

#[test]
fn a_websocket_is_opened_and_its_line_says_what_passed() {
    let stage = Stage::echoing("");
    let mut socket = stage.open();
    assert_eq!(socket.header("x-served-by"), Some("upstream"));
    assert!(socket.header("x-request-id").is_some(), "{:?}", socket.fields());
    socket.send(TEXT, "hello");
    socket.expect(TEXT, "hello");
    assert_eq!(stage.gateway.access_lines().len(), 0, "its line is written at its end");
    socket.send(CLOSE, reason(1000, "bye"));
    assert_eq!(socket.closed(), (1000, "bye".to_owned()));
    let line = stage.line();
    let told: [(&str, serde_json::Value); 7] = [
        ("status", 101.into()),
        ("route", "live".into()),
        ("upstream", "shop".into()),
        ("tunnel_end", "client".into()),
        ("messages", 2.into()),
        ("received", (6 + 5 + 6 + 5).into()),
        ("bytes", (2 + 5 + 2 + 5).into()),
    ];
    for (field, value) in told {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert!(line["reason"].is_null(), "{line}");
}

#[test]
fn the_upstream_gets_a_handshake_of_the_gateways_own() {
    let stage = Stage::echoing("");
    let fields = "Sec-WebSocket-Protocol: chat, chat2\r\nSec-WebSocket-Extensions: x-ext\r\n\
                  X-User-Id: forged\r\nKeep-Alive: 5\r\nConnection: x-hop\r\nX-Hop: 1\r\n";
    drop(WebSocket::open(stage.gateway.public, "/live/1?a=b", fields));
    let head = stage.handshakes.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.starts_with("get /live/1?a=b http/1.1\r\n"), "{head}");
    for line in [
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-version: 13",
        "sec-websocket-protocol: chat, chat2",
        "sec-websocket-extensions: x-ext",
        "x-forwarded-for: 127.0.0.1",
    ] {
        assert_eq!(head.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line}: {head}");
    }
    for name in ["x-user-id:", "keep-alive:", "x-hop:", &KEY.to_ascii_lowercase()] {
        assert!(!head.contains(name), "{name}: {head}");
    }
    assert_eq!(head.matches("sec-websocket-key:").count(), 1, "{head}");
}

#[test]
fn a_handshake_that_is_none_is_refused() {
    let stage = Stage::echoing("");
    let good = handshake("/live/1", "");
    let version = "Sec-WebSocket-Version: 13\r\n";
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    let malformed = (400, "upgrade_malformed");
    for (request, expected) in [
        (good.replace("GET", "POST"), malformed),
        (good.replace("Connection: Upgrade", "Connection: close"), malformed),
        (good.replace(&key, ""), malformed),
        (good.replace(&key, &key.repeat(2)), malformed),
        (good.replace(KEY, "dGhlIHNhbXBsZSBub25jZQ"), malformed),
        (good.replace(KEY, "dGhlIHNhbXBsZQ=="), malformed),
        (good.replace(KEY, "dGhlIHNhbXBsZSBub25jZR=="), malformed),
        (good.replace(version, ""), malformed),
        (good.replace(version, &version.repeat(2)), malformed),
        (good.replace("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello"), malformed),
        (good.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), malformed),
        (good.replace("Version: 13", "Version: 8"), (426, "upgrade_version")),
    ] {
        let answer = raw_until_close(stage.gateway.public, &request);
        assert_eq!((status(&answer), code(&answer)), expected, "{request}: {answer}");
        let told = answer.contains("sec-websocket-version: 13");
        assert_eq!(told, expected.0 == 426, "{answer}");
    }
    assert_eq!(stage.upstream.connections(), 0);
    let lines = stage.gateway.access_lines();
    assert!(lines.iter().all(|line| line["tunnel_end"].is_null()), "{lines:?}");
}

#[test]
fn what_is_no_handshake_passes_without_its_upgrade() {
    let upstream = Upstream::replying(response("200 OK", "plain"));
    let gateway = Gateway::start(&config(&upstream, "", ""));
    let good = handshake("/live/1", "");
    for request in [
        good.replace("HTTP/1.1", "HTTP/1.0"),
        good.replace("Upgrade: websocket", "Upgrade: h2c"),
        handshake("/other", ""),
    ] {
        let answer = raw(gateway.public, &request);
        assert_eq!(status(&answer), 200, "{request}: {answer}");
    }
    // That no such field arrived is what the upstream insists on.
    assert_eq!(upstream.seen(), 3);
}

#[test]
fn whoever_may_not_pass_opens_nothing() {
    let stage = Stage::echoing("");
    let answer = raw_until_close(stage.gateway.public, handshake("/mine/1", ""));
    assert_eq!((status(&answer), code(&answer)), (401, "token_missing"), "{answer}");
    assert_eq!(stage.upstream.connections(), 0);
    let bearer = format!("Authorization: Bearer {}\r\n", token(claims("ada")));
    let mut socket = WebSocket::open(stage.gateway.public, "/mine/1", &bearer);
    socket.send(TEXT, "hello");
    socket.expect(TEXT, "hello");
    let head = stage.handshakes.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.contains("\r\nx-user-id: ada\r\n") && !head.contains("bearer"), "{head}");
}

#[test]
fn a_page_that_may_not_opens_nothing() {
    let origins = "origins = [\"https://shop.test\", \"https://*.shop.test\"]";
    let stage = Stage::echoing(origins);
    for origin in ["https://evil.test", "http://shop.test", "https://shop.test:444", "null"] {
        let fields = format!("Origin: {origin}\r\n");
        let answer = raw_until_close(stage.gateway.public, handshake("/live/1", &fields));
        assert_eq!((status(&answer), code(&answer)), (403, "origin_refused"), "{answer}");
    }
    let twice = "Origin: https://shop.test\r\nOrigin: https://evil.test\r\n";
    let answer = raw_until_close(stage.gateway.public, handshake("/live/1", twice));
    assert_eq!(status(&answer), 403, "{answer}");
    assert_eq!(stage.upstream.connections(), 0);
    for origin in ["Origin: https://shop.test\r\n", "Origin: https://a.SHOP.test\r\n", ""] {
        WebSocket::open(stage.gateway.public, "/live/1", origin);
    }
}

#[test]
fn another_answer_of_the_upstream_is_passed_on_and_ends_the_connection() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let upstream = Upstream::raw(move |mut stream| {
        let mut chunks = Chunks::of(stream.try_clone().unwrap());
        while let Ok(Some(head)) = chunks.until(b"\r\n\r\n") {
            let said = if head.starts_with(b"GET /live/403") { "403 Forbidden" } else { "200 OK" };
            seen.lock().unwrap().push(String::from_utf8_lossy(&head[..13]).into_owned());
            let _ = stream.write_all(response(said, "no tunnel").as_bytes());
        }
    });
    let gateway = Gateway::start(&config(&upstream, "", ""));
    for wanted in [200, 403] {
        let path = format!("/live/{wanted}");
        // Nothing of what the client has sent too early may come, neither as frames nor as a
        // request.
        let request = handshake(&path, "") + "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n";
        let answer = raw_until_close(gateway.public, request);
        assert_eq!((status(&answer), answer.matches("HTTP/1.1").count()), (wanted, 1), "{answer}");
        assert!(answer.ends_with("no tunnel"), "{answer}");
    }
    assert_eq!(*heads.lock().unwrap(), ["GET /live/200", "GET /live/403"]);
}

#[test]
fn a_101_that_is_none_is_a_502() {
    let good = format!("Sec-WebSocket-Accept: {}\r\n", accept(KEY));
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    for (fields, expected) in [
        // The answer to the client's key, which the upstream was never told.
        (format!("{upgrade}{good}"), "upgrade_refused"),
        (upgrade.to_owned(), "upgrade_refused"),
        (format!("Upgrade: h2c\r\nConnection: Upgrade\r\n{good}"), "upgrade_refused"),
        (format!("Upgrade: websocket\r\n{good}"), "upgrade_refused"),
    ] {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
        let upstream = Upstream::raw(move |mut stream| {
            let mut chunks = Chunks::of(stream.try_clone().unwrap());
            let _ = chunks.until(b"\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes());
            let _ = chunks.rest();
        });
        let gateway = Gateway::start(&config(&upstream, "", ""));
        let answer = raw_until_close(gateway.public, handshake("/live/1", ""));
        assert_eq!((status(&answer), code(&answer)), (502, expected), "{fields}: {answer}");
        assert!(!answer.contains("Accept"), "{answer}");
        eventually("the upstream's connection is closed", || upstream.open() == 0);
    }
}

#[test]
fn a_tunnel_holds_its_place_among_those_in_flight() {
    let (upstream, _) = upstream(echo);
    let gateway = Gateway::start(&format!(
        "[limits.open]\nkey = [\"address\"]\nconcurrent = 1\n{}
        [routes.live]\npath = \"/live/*\"\nupstream = \"shop\"\nlimits = [\"open\"]
        upgrade = [\"websocket\"]\n",
        upstream.table("shop")
    ));
    let socket = WebSocket::open(gateway.public, "/live/1", "");
    let answer = raw_until_close(gateway.public, handshake("/live/1", ""));
    assert_eq!(status(&answer), 429, "{answer}");
    drop(socket);
    eventually("the place is free", || {
        let mut session = Session::open(gateway.public);
        session.write(handshake("/live/1", ""));
        session.read_until("\r\n").starts_with("HTTP/1.1 101")
    });
}

/// An upstream that takes the handshake and says nothing is given up as one of any request.
#[test]
fn an_upstream_that_never_answers_the_handshake_is_a_504() {
    let upstream = Upstream::raw(|stream| drop(Chunks::of(stream).rest()));
    let table = upstream.table("shop") + "response_timeout = \"200ms\"\n";
    let gateway = Gateway::start(&format!(
        "{table}[routes.live]\npath = \"/live/*\"\nupstream = \"shop\"\n\
         upgrade = [\"websocket\"]\n"
    ));
    let answer = raw_until_close(gateway.public, handshake("/live/1", ""));
    assert_eq!((status(&answer), code(&answer)), (504, "upstream_timeout"), "{answer}");
    eventually("its connection is closed", || upstream.open() == 0);
}
