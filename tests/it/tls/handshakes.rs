//! Handshakes that are slow, broken or none, and what becomes of connections under TLS.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{House, certificates, write};
use crate::support::tls::{self, answer, get};
use crate::support::{
    CertificateAuthority, Client, Folder, PATIENCE, TlsClient, Upstream, eventually,
    raw_until_close, response,
};

#[test]
fn a_handshake_that_never_ends_does() {
    let house = House::start("handshake_timeout = '300ms'");
    // Nothing, a part of a record, a record of a greeting that goes on for ever.
    for begun in [&b""[..], b"\x16\x03", b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03"] {
        let mut stream = TcpStream::connect(house.tls).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(begun).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP"), "no clear answer in TLS");
    }
    house.counts("portcullis_tls_handshakes_total", ("result", "timeout"), 3.0);
    // A busy machine may be slower than that, too.
    let client = TlsClient::new(&house.authority);
    eventually("others are served", || client.get(house.tls, "shop.test", "/", "").is_ok());
}

#[test]
fn a_greeting_in_pieces_is_read() {
    let house = House::start("");
    let client = TlsClient::new(&house.authority);
    let mut stream = client.connect_in_pieces(house.tls, "shop.test").unwrap();
    let request = get("shop.test", "/", "Connection: close\r\n");
    assert!(tls::exchange(&mut stream, &request).unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn clients_that_say_no_more_keep_nobody_from_shaking_hands() {
    let house = House::start("handshakes = 1\nhandshake_timeout = '10m'");
    let client = TlsClient::new(&house.authority);
    let mut silent = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(house.tls).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&client.greeting("shop.test").1).unwrap();
        // The gateway has had its turn, and waits.
        stream.read_exact(&mut [0]).unwrap();
        silent.push(stream);
    }
    let answer = client.get(house.tls, "shop.test", "/", "").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn what_is_no_tls_is_answered_once_and_clearly() {
    let house = House::start("");
    let answer = raw_until_close(house.tls, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
    house.counts("portcullis_connection_errors_total", ("reason", "clear_on_tls_port"), 1.0);
    eventually("it is said once", || {
        house.gateway.stderr().contains("speaks HTTP in clear to a listener with TLS")
    });
    for junk in
        [&[0xff_u8; 64][..], &[0x16, 0x03, 0x01, 0xff, 0xff], &[0x80, 0x2e, 0x01, 0x00, 0x02]]
    {
        let mut stream = TcpStream::connect(house.tls).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(junk).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty() || rest[0] == 0x15, "an alert or nothing: {rest:?}");
    }
    // TLS to a listener in clear is told in its own words, as before.
    let client = TlsClient::new(&house.authority);
    assert!(client.connect(house.gateway.public, "shop.test").is_err());
    assert_eq!(Client::get(house.gateway.public, "/").send().status, 200);
    assert_eq!(house.upstream.seen(), 1);
}

#[test]
fn an_idle_connection_is_parked_under_tls_and_ends_with_a_word() {
    let house = House::start("[server]\npark_after = '100ms'\nlimits.idle_timeout = '4s'");
    let client = TlsClient::new(&house.authority);
    let mut stream = client.connect(house.tls, "shop.test").unwrap();
    for path in ["/a", "/b"] {
        let reply = answer(&mut stream, &get("shop.test", path, ""));
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        eventually("it is parked", || {
            let text = Client::get(house.gateway.admin, "/metrics").send().text();
            crate::support::Exposition::text(&text).value("portcullis_connections_parked", &[])
                == Some(1.0)
        });
    }
    let seen = house.upstream.recorded();
    assert!(seen.iter().all(|seen| seen.header("x-forwarded-proto") == Some("https")));
    let mut rest = Vec::new();
    // Without the alert `close_notify` this is an error.
    stream.read_to_end(&mut rest).expect("a clean end");
    assert!(rest.is_empty());
}

#[test]
fn a_slow_head_is_told_so_under_tls() {
    let house = House::start("[server]\nlimits.header_timeout = '300ms'");
    let client = TlsClient::new(&house.authority);
    let mut stream = client.connect(house.tls, "shop.test").unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap();
    let mut told = [0; 12];
    stream.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 408");
}

#[test]
fn a_reader_that_does_not_read_is_cut_off_under_tls() {
    const LENGTH: usize = 64 << 20;
    let (authority, folder) = (CertificateAuthority::new(), Folder::new());
    write(&folder, "site", &authority.issue(&["shop.test"]));
    let upstream = Upstream::replying(response("200 OK", &"x".repeat(LENGTH)));
    let table = certificates(&["site"], "[server]\nlimits.progress_timeout = '1s'");
    let house = House::before(upstream, authority, folder, &table);
    let mut stream = TlsClient::new(&house.authority).connect(house.tls, "shop.test").unwrap();
    stream.write_all(get("shop.test", "/", "").as_bytes()).unwrap();
    eventually("the upstream sends", || house.upstream.seen() == 1);
    eventually("the upstream is free again", || house.upstream.open() == 0);
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).is_err(), "it is cut off, and not ended");
    assert!(rest.len() < LENGTH, "the whole response was sent to nobody");
}

#[test]
fn a_connection_that_asked_for_another_protocol_ends_with_a_word() {
    let house = House::start("");
    let mut stream = TlsClient::new(&house.authority).connect(house.tls, "shop.test").unwrap();
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n";
    let first = answer(&mut stream, &get("shop.test", "/a", upgrade));
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    // Without the alert `close_notify` this is an error.
    let last = tls::exchange(&mut stream, &get("shop.test", "/b", "Connection: close\r\n"));
    assert!(last.expect("a clean end").starts_with("HTTP/1.1 200"));
    assert_eq!(house.upstream.seen(), 2);
}

#[test]
fn a_client_that_there_is_no_place_for_hears_nothing_in_clear() {
    let house = House::start("[server]\nlimits.connections = 1");
    let client = TlsClient::new(&house.authority);
    let mut first = client.connect(house.tls, "shop.test").unwrap();
    assert!(answer(&mut first, &get("shop.test", "/", "")).starts_with("HTTP/1.1 200"));
    let mut second = TcpStream::connect(house.tls).unwrap();
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = second.write_all(&client.greeting("shop.test").1);
    let mut heard = Vec::new();
    // A reset is an end, too.
    let _ = second.read_to_end(&mut heard);
    assert!(heard.is_empty(), "{:?}", String::from_utf8_lossy(&heard));
    assert!(answer(&mut first, &get("shop.test", "/", "")).starts_with("HTTP/1.1 200"));
    // The metrics have a listener of their own.
    house.counts("portcullis_connections_refused_total", ("reason", "connections"), 1.0);
}

/// Above TLS, HTTP/2 is what was agreed upon, or nothing (RFC 9113 §3.2).
#[test]
fn a_preface_that_was_not_agreed_upon_begins_no_http2() {
    let house = House::start("");
    for offered in [vec![], vec!["http/1.1"]] {
        let client = TlsClient::with(&house.authority, None, &offered);
        let mut stream = client.connect(house.tls, "shop.test").unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        let text = String::from_utf8_lossy(&heard);
        assert!(heard.is_empty() || text.starts_with("HTTP/1.1 4"), "{offered:?}: {text:?}");
    }
    assert_eq!(house.upstream.seen(), 0);
}
