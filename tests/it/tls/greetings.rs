//! Greetings (`ClientHello`, RFC 8446 §4.1.2) as no library would write them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustls::StreamOwned;
use rustls::version::{TLS12, TLS13};

use super::House;
use crate::support::tls::{self, answer, get};
use crate::support::{PATIENCE, TlsClient, eventually};

/// First bytes of records.
const ALERT: u8 = 0x15;
const HANDSHAKE: u8 = 0x16;
const DATA: u8 = 0x17;
/// Bytes in one record, at most.
const RECORD_BYTES: usize = 16 * 1024;
/// Kinds of extensions.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const PADDING: u16 = 21;
const EXTENDED_MASTER_SECRET: u16 = 23;
const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;

/// A greeting that can be changed.
#[derive(Clone)]
struct Greeting {
    /// What comes before the extensions: version, random bytes, session, suites, compression.
    head: Vec<u8>,
    extensions: Vec<(u16, Vec<u8>)>,
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// These bytes behind their length, which takes so many bytes.
fn counted(bytes: &[u8], width: usize) -> Vec<u8> {
    [&bytes.len().to_be_bytes()[8 - width..], bytes].concat()
}

impl Greeting {
    /// The one that a library writes.
    fn of(client: &TlsClient) -> Self {
        let (_, record) = client.greeting("shop.test");
        // Behind the heads of the record and of the message.
        let bytes = &record[9..];
        let mut at = 2 + 32;
        for width in [1, 2, 1] {
            at += width + number(&bytes[at..at + width]);
        }
        let (head, mut rest) = (bytes[..at].to_vec(), &bytes[at + 2..]);
        let mut extensions = Vec::new();
        while rest.len() >= 4 {
            let length = number(&rest[2..4]);
            let kind = u16::try_from(number(&rest[..2])).unwrap();
            extensions.push((kind, rest[4..4 + length].to_vec()));
            rest = &rest[4 + length..];
        }
        Self { head, extensions }
    }

    fn without(mut self, kind: u16) -> Self {
        self.extensions.retain(|(other, _)| *other != kind);
        self
    }

    fn and(mut self, kind: u16, bytes: impl Into<Vec<u8>>) -> Self {
        self.extensions.push((kind, bytes.into()));
        self
    }

    fn with(self, kind: u16, bytes: impl Into<Vec<u8>>) -> Self {
        self.without(kind).and(kind, bytes)
    }

    /// The message.
    fn message(&self) -> Vec<u8> {
        let each =
            |(kind, bytes): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &counted(bytes, 2)].concat();
        let extensions: Vec<u8> = self.extensions.iter().flat_map(each).collect();
        let message = [&self.head[..], &counted(&extensions, 2)].concat();
        [&[1][..], &counted(&message, 3)].concat()
    }

    fn records(&self) -> Vec<u8> {
        records(&self.message(), RECORD_BYTES)
    }
}

/// A message in records of so many bytes.
fn records(message: &[u8], each: usize) -> Vec<u8> {
    let record = |bytes: &[u8]| [&[HANDSHAKE, 3, 1][..], &counted(bytes, 2)].concat();
    message.chunks(each).flat_map(record).collect()
}

/// Sends these bytes on a connection of their own, and no more; what comes until its end.
fn told(house: &House, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(house.tls).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    let mut heard = Vec::new();
    if let Err(error) = stream.read_to_end(&mut heard) {
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "the connection stands");
    }
    heard
}

/// How many lines there are about handshakes that failed.
fn lines(house: &House) -> usize {
    house.gateway.stderr().matches("a TLS handshake failed").count()
}

fn house(more: &str) -> House {
    House::start(&format!("{more}\n[log]\nlevel = 'debug'"))
}

/// The first byte of what comes on a connection that begins with these bytes.
fn answered(house: &House, bytes: &[u8]) -> u8 {
    let mut stream = TcpStream::connect(house.tls).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut first = [0];
    stream.read_exact(&mut first).unwrap();
    first[0]
}

/// An alert or a reset, one line in the log, and the metric that says what it was.
#[test]
fn what_is_no_greeting_ends_its_connection_and_is_counted() {
    let house = house("handshake_timeout = '1m'");
    let good = Greeting::of(&TlsClient::new(&house.authority));
    let mut oversized = good.message();
    oversized[1..4].copy_from_slice(&[1, 0, 0]);
    oversized.resize(0x1_0004, 0);
    let name = |name: &[u8]| [&[0][..], &counted(name, 2)].concat();
    let names = |names: &[u8]| good.clone().with(SERVER_NAME, counted(names, 2)).records();
    let wrong = [
        ("more than 64 KiB", records(&oversized, RECORD_BYTES)),
        ("16 MiB are announced", records(&[1, 0xff, 0xff, 0xff], 4)),
        ("records of nothing", [&[HANDSHAKE, 3, 1, 0, 0][..]; 1000].concat()),
        ("another message", records(&[2, 0, 0, 4, 3, 3, 0, 0], RECORD_BYTES)),
        ("another record before", [&[DATA, 3, 3, 0, 1, 0][..], &good.records()].concat()),
        ("an extension twice", good.clone().and(0x1234, "").and(0x1234, "").records()),
        ("a name of nothing", names(&name(b""))),
        ("two names", names(&[name(b"a.test"), name(b"b.test")].concat())),
        ("a name of 60,000 bytes", names(&name(&[b'a'; 60_000]))),
        ("a protocol of nothing", good.clone().with(ALPN, counted(b"\0", 2)).records()),
        ("protocols that are cut off", good.clone().with(ALPN, [0, 9, 2, b'h']).records()),
        ("bytes behind its end", records(&[&good.message()[..], &[0; 9]].concat(), RECORD_BYTES)),
    ];
    for (at, (what, bytes)) in wrong.iter().enumerate() {
        let heard = told(&house, bytes);
        // An alert does not reach a client that is reset for what was not read of it.
        assert!(heard.is_empty() || heard[0] == ALERT, "{what}: {heard:?}");
        eventually(&format!("{what}: it is said"), || lines(&house) > at);
    }
    assert_eq!(lines(&house), wrong.len(), "each is said once");
    let count = wrong.len() as f64;
    house.counts("portcullis_tls_handshakes_total", ("result", "malformed"), count);
}

#[test]
fn what_begins_a_greeting_and_does_not_end_it_is_given_up() {
    let house = house("handshake_timeout = '300ms'");
    let good = Greeting::of(&TlsClient::new(&house.authority));
    let long = good.clone().and(PADDING, vec![0; 60_000]).records();
    for bytes in [&long[..50_000], &good.records()] {
        // One that is whole is answered, and then nobody goes on.
        told(&house, bytes);
    }
    let mut stream = TcpStream::connect(house.tls).unwrap();
    // A byte from time to time, for as long as it is taken.
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut is_open = |byte: &u8| {
        let heard = stream.write_all(&[*byte]).and_then(|()| stream.read(&mut [0]));
        heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    assert!(!long.iter().take(1000).all(&mut is_open), "20 s for a greeting");
    house.counts("portcullis_tls_handshakes_total", ("result", "timeout"), 3.0);
    assert_eq!(lines(&house), 3);
}

/// Large, odd and allowed.
#[test]
fn greetings_of_many_extensions_and_protocols_are_read() {
    let house = house("");
    let good = Greeting::of(&TlsClient::new(&house.authority));
    // None of them has a meaning (RFC 8701 and IANA's list).
    let many = (0..1000).fold(good.clone(), |greeting, at| greeting.and(0x4000 + at, "x"));
    let offers = |name: &[u8]| counted(name, 1);
    let unknown: Vec<u8> = (0..5000_u16).flat_map(|at| offers(&at.to_be_bytes())).collect();
    let known = [&unknown[..], &offers(b"http/1.1")].concat();
    for (what, greeting) in [
        ("as it is", good.clone()),
        ("a thousand extensions", many),
        ("60,000 bytes", good.clone().and(PADDING, vec![0; 60_000])),
        ("5,001 protocols", good.clone().with(ALPN, counted(&known, 2))),
        // Protocols are chosen behind the first word of the answer.
        ("5,000 that nobody speaks", good.with(ALPN, counted(&unknown, 2))),
    ] {
        // In records as large as may be, and in many small ones.
        for each in [RECORD_BYTES, 600] {
            let bytes = records(&greeting.message(), each);
            assert_eq!(answered(&house, &bytes), HANDSHAKE, "{what} by {each}");
        }
    }
    house.counts("portcullis_tls_handshakes_total", ("result", "incompatible"), 2.0);
}

/// Without it two connections may end in one secret (RFC 7627).
#[test]
fn tls_1_2_takes_an_extended_master_secret() {
    let house = house("");
    let client = TlsClient::speaking(&TLS12, &house.authority, None);
    let good = Greeting::of(&client);
    assert_eq!(answered(&house, &good.records()), HANDSHAKE);
    let without = good.without(EXTENDED_MASTER_SECRET).records();
    assert_eq!(answered(&house, &without), ALERT);
    house.counts("portcullis_tls_handshakes_total", ("result", "incompatible"), 1.0);
    eventually("it is said", || house.gateway.stderr().contains("ExtendedMasterSecret"));
}

/// A request in early data could be sent again by anybody who has heard it (RFC 8446 §8).
#[test]
fn no_request_comes_in_early_data() {
    let house = house("");
    let client = TlsClient::speaking(&TLS13, &house.authority, None).with_early_data();
    assert!(client.get(house.tls, "shop.test", "/", "").is_ok());
    let (mut connection, greeting) = client.greeting("shop.test");
    assert!(connection.early_data().is_none(), "a ticket allows it");
    let mut tcp = TcpStream::connect(house.tls).unwrap();
    tcp.write_all(&greeting).unwrap();
    let mut stream = client.finish(StreamOwned::new(connection, tcp)).unwrap();
    assert!(tls::is_resumed(&stream));
    assert!(answer(&mut stream, &get("shop.test", "/", "")).starts_with("HTTP/1.1 200"));
    assert!(!stream.conn.is_early_data_accepted());
    assert_eq!(house.upstream.seen(), 2);
    // Who sends it all the same is not heard.
    let data = [&[DATA, 3, 3][..], &counted(get("shop.test", "/early", "").as_bytes(), 2)].concat();
    let greeting = Greeting::of(&client).without(PRE_SHARED_KEY).with(EARLY_DATA, "");
    let heard = told(&house, &[greeting.records(), data].concat());
    assert!(!String::from_utf8_lossy(&heard).contains("HTTP"), "{heard:?}");
    eventually("its handshake fails", || lines(&house) == 1);
    assert_eq!(house.upstream.seen(), 2);
}
