//! What bounds a tunnel: time, the length and number of messages, the protocol, and peers that take
//! nothing.

use super::{Stage, config};
use crate::support::websocket::{
    BINARY, CLOSE, MORE, PING, TEXT, TEXT_BEGUN, WebSocket, frame, reason, upstream,
};
use crate::support::{Gateway, eventually};

/// Sends these bytes: the Close that they are answered with, and the reason in the log. The
/// upstream has got nothing of the last frame but a Close.
fn refused(stage: &Stage, bytes: &[u8]) -> (u16, String) {
    let mut socket = stage.open();
    let _ = socket.try_write(bytes);
    let mut frame = socket.next();
    while frame.first != CLOSE {
        frame = socket.next();
    }
    socket.send(CLOSE, &frame.payload);
    socket.ended();
    let line = stage.line();
    let (code, _) = frame.close();
    (code, format!("{} {}", line["tunnel_end"], line["reason"]).replace('"', ""))
}

#[test]
fn a_message_too_large_gets_a_close() {
    let bound = "message_bytes = \"1KiB\"";
    let too_large = (1009, "limit message_too_large".to_owned());
    let whole = frame(BINARY, true, vec![0; 1025]);
    let in_pieces =
        [frame(TEXT_BEGUN, true, vec![0; 1000]), frame(MORE, true, vec![0; 25])].concat();
    let endless: Vec<u8> = std::iter::once(frame(TEXT_BEGUN, true, ""))
        .chain((0..1000).map(|_| frame(MORE, true, "")))
        .flatten()
        .collect();
    let header_alone = b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec();
    for bytes in [whole, in_pieces, endless, header_alone] {
        assert_eq!(refused(&Stage::echoing(bound), &bytes), too_large);
    }
    let stage = Stage::echoing(bound);
    let mut socket = stage.open();
    socket.send(BINARY, vec![0; 1024]);
    socket.expect(BINARY, vec![0; 1024]);
}

#[test]
fn what_no_client_may_send_gets_a_close() {
    let malformed = (1002, "client frame_malformed".to_owned());
    for bytes in [
        frame(TEXT, false, "unmasked"),
        frame(0x09, true, "a Ping in pieces"),
        frame(PING, true, vec![b'x'; 126]),
        b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        assert_eq!(refused(&Stage::echoing(""), &bytes), malformed, "{bytes:?}");
    }
}

#[test]
fn messages_too_fast_wait_and_are_refused_in_the_end() {
    let stage = Stage::echoing("messages = \"5/1s\"");
    let many: Vec<u8> = (0..1000).flat_map(|_| frame(TEXT, true, "x")).collect();
    assert_eq!(refused(&stage, &many), (1008, "limit messages_too_many".to_owned()));
    // Ten of the client's pass within the second; each is answered, and counted too.
    let messages = stage.line()["messages"].as_u64().unwrap();
    assert!((5..=24).contains(&messages), "{messages}");
}

#[test]
fn a_silent_tunnel_ends() {
    let stage = Stage::echoing("idle_timeout = \"200ms\"");
    let mut socket = stage.open();
    let (code, reason) = socket.next().close();
    assert_eq!((code, reason.as_str()), (1001, "idle for too long"));
    // Nobody answers: the connection ends all the same.
    socket.ended();
    assert_eq!(stage.line()["tunnel_end"], "idle");
    eventually("the upstream is left alone", || stage.upstream.open() == 0);
}

#[test]
fn an_old_tunnel_ends_between_two_frames() {
    let stage = Stage::serving(
        |mut socket| {
            // Half a frame, and the rest when the gateway has asked for the end.
            let bytes = frame(TEXT, false, "a whole message");
            socket.write(&bytes[..5]);
            let close = socket.next();
            assert!(close.is_masked);
            assert_eq!(close.close(), (1001, String::new()));
            socket.write(&bytes[5..]);
            socket.write(frame(TEXT, false, "too late"));
            socket.send(CLOSE, reason(1001, ""));
        },
        "max_age = \"300ms\"",
    );
    let mut socket = stage.open();
    socket.expect(TEXT, "a whole message");
    assert_eq!(socket.next().close(), (1001, "open for too long".to_owned()));
    socket.send(CLOSE, reason(1001, ""));
    socket.ended();
    assert_eq!(stage.line()["tunnel_end"], "age");
}

#[test]
fn who_takes_nothing_is_cut_off() {
    let (upstream, _) = upstream(|mut socket| {
        let block = frame(BINARY, false, vec![0; 1 << 20]);
        while socket.try_write(&block).is_ok() {}
    });
    let gateway = Gateway::start(&config(&upstream, "progress_timeout = \"1s\"", ""));
    let socket = WebSocket::open(gateway.public, "/live/1", "");
    eventually("the tunnel is cut", || {
        gateway.access_lines().iter().any(|line| line["tunnel_end"] == "cut")
    });
    eventually("the upstream is left alone", || upstream.open() == 0);
    drop(socket);
}

#[test]
fn the_end_of_the_drain_cuts_what_does_not_answer() {
    let (upstream, _) = upstream(|mut socket| {
        // A frame without an end: there is no place for a Close behind it.
        socket.write([TEXT, 126]);
        socket.rest();
    });
    let config = config(&upstream, "", "");
    let config = config.replace("[server.limits]", "[server]\ndrain = \"200ms\"\n[server.limits]");
    let mut gateway = Gateway::start(&config);
    let mut socket = WebSocket::open(gateway.public, "/live/1", "");
    socket.send(TEXT, "x");
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    socket.rest();
    eventually("there is a line", || gateway.access_lines().len() == 1);
    assert_eq!(gateway.access_lines()[0]["tunnel_end"], "drain");
}
