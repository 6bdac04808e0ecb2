//! What passes through a tunnel: every byte, in both directions, as it came.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::Stage;
use crate::support::eventually;
use crate::support::websocket::{
    BINARY, CLOSE, LAST, MORE, PING, PONG, TEXT, TEXT_BEGUN, WebSocket, frame, reason,
};

#[test]
fn messages_of_every_length_and_in_pieces() {
    let stage = Stage::echoing("");
    let mut socket = stage.open();
    for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        socket.send(BINARY, &payload);
        socket.expect(BINARY, &payload);
    }
    // A compressed message (RSV1), whose pieces have a Ping between them.
    for (first, payload) in [(TEXT_BEGUN | 0x40, "he"), (PING, "?"), (MORE, "l"), (LAST, "lo")] {
        socket.send(first, payload);
        socket.expect(if first == PING { PONG } else { first }, payload);
    }
    socket.send(CLOSE, "");
    socket.expect(CLOSE, "");
    socket.ended();
    assert_eq!(stage.line()["messages"], 2 * 8);
}

#[test]
fn a_byte_at_a_time_and_many_frames_at_once() {
    let stage = Stage::echoing("");
    let mut socket = stage.open();
    for byte in frame(TEXT, true, "x".repeat(300)) {
        socket.write([byte]);
    }
    socket.expect(TEXT, "x".repeat(300));
    let pings: Vec<u8> = (0..2000).flat_map(|n| frame(PING, true, format!("{n}"))).collect();
    socket.write(pings);
    for n in 0..2000 {
        socket.expect(PONG, format!("{n}"));
    }
}

#[test]
fn what_each_side_sends_before_it_is_asked() {
    let stage = Stage::serving(
        |mut socket| {
            socket.send(TEXT, "from the upstream");
            crate::support::websocket::echo(socket);
        },
        "",
    );
    // Frames that come together with the handshake: nothing of them may come before the 101.
    let early = frame(TEXT, true, "from the client");
    let stream = std::net::TcpStream::connect(stage.gateway.public).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let mut socket = WebSocket::opened(stream, "/live/1", "", &early);
    socket.expect(TEXT, "from the upstream");
    socket.expect(TEXT, "from the client");
}

#[test]
fn either_side_may_end_its_own_direction_first() {
    let received = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&received);
    let stage = Stage::serving(
        move |mut socket| {
            let first = socket.next();
            // The end of what the client sends; it still listens.
            socket.ended();
            all.lock().unwrap().push(first.payload);
            socket.send(TEXT, "after your end");
        },
        "",
    );
    let mut socket = stage.open();
    socket.send(TEXT, "before my end");
    socket.shut_down();
    socket.expect(TEXT, "after your end");
    socket.ended();
    assert_eq!(*received.lock().unwrap(), [b"before my end".to_vec()]);
    assert_eq!(stage.line()["tunnel_end"], "client");
}

#[test]
fn the_upstream_may_end_its_own_direction_first() {
    let received = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&received);
    let stage = Stage::serving(
        move |mut socket| {
            socket.send(TEXT, "before my end");
            socket.shut_down();
            // It still listens.
            let frame = socket.next();
            socket.ended();
            all.lock().unwrap().push(frame.payload);
        },
        "",
    );
    let mut socket = stage.open();
    socket.expect(TEXT, "before my end");
    socket.ended();
    socket.send(TEXT, "after your end");
    socket.shut_down();
    assert_eq!(stage.line()["tunnel_end"], "upstream");
    eventually("it has come", || *received.lock().unwrap() == [b"after your end".to_vec()]);
}

#[test]
fn the_upstream_may_end_it() {
    let stage = Stage::serving(
        |mut socket| {
            socket.send(CLOSE, reason(1012, "restarting"));
            assert_eq!(socket.next().close(), (1012, "restarting".to_owned()));
        },
        "",
    );
    let mut socket = stage.open();
    assert_eq!(socket.next().close(), (1012, "restarting".to_owned()));
    socket.send(CLOSE, reason(1012, "restarting"));
    socket.ended();
    assert_eq!(stage.line()["tunnel_end"], "upstream");
}

#[test]
fn who_does_not_read_holds_the_other_up() {
    let may_read = Arc::new(AtomicBool::new(false));
    let wait = Arc::clone(&may_read);
    let stage = Stage::serving(
        move |mut socket| {
            eventually("the client is held up", || wait.load(Ordering::SeqCst));
            let mut all = Vec::new();
            let _ = socket.stream().read_to_end(&mut all);
        },
        "",
    );
    let mut socket = stage.open();
    // More than all sockets and buffers between the two take.
    let stream = socket.stream();
    stream.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let block = frame(BINARY, true, vec![0; 1 << 20]);
    let held_up = (0..64).any(|_| socket.try_write(&block).is_err());
    assert!(held_up, "64 MiB went nowhere");
    may_read.store(true, Ordering::SeqCst);
}
