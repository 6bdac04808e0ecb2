//! HTTP/2 over TLS from clients that mean no good: what they may send without an end.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use super::House;
use crate::support::TlsClient;
use crate::support::tls::TlsStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Frames of a flood, at most.
const FRAMES: u32 = 100_000;
/// Frames that are written in one piece.
const PIECE: u32 = 1000;
/// What floods may cost the gateway, in bytes: connections and allocators have room of their own.
const GROWTH_MAX: u64 = 16 << 20;

struct Flood {
    what: &'static str,
    /// Comes before the first frame.
    begins: Vec<u8>,
    /// The frame of this number.
    frame: fn(u32) -> Vec<u8>,
    /// Whether the connection ends by it.
    ends: bool,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A head of literal fields (RFC 7541 §6.2.2).
fn head(method: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [(":method", method), (":scheme", "https"), (":authority", "shop.test"), (":path", "/")]
        .iter()
        .flat_map(|(name, value)| [vec![0], text(name), text(value)].concat())
        .collect()
}

fn floods() -> Vec<Flood> {
    let headers = |flags| frame(HEADERS, flags, 1, &head("POST"));
    vec![
        Flood {
            what: "streams that are reset at once",
            begins: Vec::new(),
            frame: |at| {
                let stream = 2 * at + 1;
                let begun = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET"));
                [begun, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
            },
            ends: true,
        },
        Flood {
            what: "a head that never ends",
            begins: headers(0),
            frame: |_| frame(CONTINUATION, 0, 1, b"\0\x01x\x01y"),
            ends: true,
        },
        Flood {
            what: "a head of nothing that never ends",
            begins: headers(0),
            frame: |_| frame(CONTINUATION, 0, 1, b""),
            ends: true,
        },
        Flood {
            what: "a body of nothing",
            begins: headers(END_HEADERS),
            frame: |_| frame(DATA, 0, 1, b""),
            ends: true,
        },
        Flood {
            what: "settings",
            begins: Vec::new(),
            frame: |at| frame(SETTINGS, 0, 0, &[&[0, 4][..], &at.to_be_bytes()].concat()),
            ends: false,
        },
        Flood {
            what: "pings",
            begins: Vec::new(),
            frame: |at| frame(PING, 0, 0, &u64::from(at).to_be_bytes()),
            ends: false,
        },
    ]
}

/// Sends a flood without reading; until its end, or until nobody takes more of it.
fn pour(stream: &mut TlsStream, flood: &Flood) {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.sock.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.write_all(&[&preface[..], &flood.begins].concat()).unwrap();
    for piece in 0..FRAMES / PIECE {
        let frames = (piece * PIECE..(piece + 1) * PIECE).flat_map(flood.frame);
        if stream.write_all(&frames.collect::<Vec<u8>>()).is_err() {
            return;
        }
    }
}

/// Bytes that the gateway has in memory.
fn resident(house: &House) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", house.gateway.pid()));
    let status = status.expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn floods_of_http2_end_or_wait_and_cost_little() {
    let house = House::start("");
    let client = TlsClient::new(&house.authority);
    let is_served = |what: &str| {
        let answer = client.get(house.tls, "shop.test", "/", "").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{what}: {answer}");
    };
    is_served("before");
    let floods = floods();
    let ending = floods.iter().filter(|flood| flood.ends).count();
    for flood in floods {
        let what = flood.what;
        let hostile = TlsClient::with(&house.authority, None, &["h2"]);
        let mut stream = hostile.connect(house.tls, "shop.test").unwrap();
        let before = resident(&house);
        pour(&mut stream, &flood);
        let growth = resident(&house).saturating_sub(before);
        assert!(growth < GROWTH_MAX, "{what}: {growth} bytes");
        is_served(what);
        if flood.ends {
            // With or without a word: what was not read resets the connection.
            let end = stream.read_to_end(&mut Vec::new());
            let waits = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
            assert!(!end.is_err_and(waits), "{what}: the connection stands");
        }
    }
    let seen = house.upstream.seen();
    assert!(seen < PIECE as usize, "{seen} requests of streams that were reset");
    house.counts("portcullis_connection_errors_total", ("reason", "broken"), ending as f64);
}
