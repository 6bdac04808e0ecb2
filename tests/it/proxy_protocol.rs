//! The PROXY protocol: balancers say whose a connection is, before its first byte. Here a balancer
//! is whoever connects, from 127.0.0.1.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use bytes::Bytes;

use crate::support::tls::{self, get};
use crate::support::{
    CertificateAuthority, Client, Exposition, Folder, Gateway, PATIENCE, Session, TlsClient,
    Upstream, eventually, raw, raw_until_close, response, status,
};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";
const ERRORS: &str = "portcullis_connection_errors_total";

/// A header of version 1 or 2 that names this client, which has connected to `port`.
fn header(version: u8, client: &str, port: u16) -> Vec<u8> {
    let client: IpAddr = client.parse().unwrap();
    let (name, family, octets) = match client {
        IpAddr::V4(v4) => ("TCP4", 0x11, v4.octets().to_vec()),
        IpAddr::V6(v6) => ("TCP6", 0x21, v6.octets().to_vec()),
    };
    if version == 1 {
        return format!("PROXY {name} {client} {client} 40000 {port}\r\n").into_bytes();
    }
    let ports = [40_000_u16.to_be_bytes(), port.to_be_bytes()].concat();
    // With the name that a client asked for (PP2_TYPE_AUTHORITY).
    let tlv = b"\x02\x00\x09shop.test";
    v2(0x21, family, &[&octets[..], &octets, &ports, tlv].concat())
}

/// A header of version 2.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, block].concat()
}

/// A header, and a request behind it.
fn with_request(header: &[u8]) -> Vec<u8> {
    [header, REQUEST.as_bytes()].concat()
}

/// A balancer's connection for this client.
fn connect(address: SocketAddr, header: &[u8]) -> Session {
    let mut session = Session::open(address);
    session.write(header);
    session
}

struct House {
    upstream: Upstream,
    gateway: Gateway,
}

impl House {
    /// A gateway behind balancers at 127.0.0.1, with more in `[server]`, and more tables.
    fn start(more: &str) -> Self {
        Self::with(Folder::new(), "proxy_protocol_from = ['127.0.0.1']", more)
    }

    fn with(folder: Folder, from: &str, more: &str) -> Self {
        let upstream = Upstream::replying(response("200 OK", "hello"));
        let config = format!(
            "[log]\nlevel = 'debug'\n[server]\n{from}\n{more}\n{}[routes.all]\npath = \"/*\"\n\
             upstream = \"shop\"\ncache = {{ ttl = \"1h\", shared = true }}\n",
            upstream.table("shop")
        );
        Self { gateway: Gateway::start_in(folder, &config), upstream }
    }

    /// Also over TLS; clients trust the authority.
    fn with_tls(more: &str) -> (Self, CertificateAuthority, SocketAddr) {
        let (authority, folder) = (CertificateAuthority::new(), Folder::new());
        let pair = authority.issue(&["shop.test"]);
        folder.write("site.pem", &pair.cert);
        folder.write("site.key", &pair.key);
        let tls = "[server.tls]\nlisten = ['127.0.0.1:0']\n\
                   certificates = [{ cert = 'site.pem', key = 'site.key' }]\n";
        let from = "proxy_protocol_from = ['127.0.0.1']";
        let house = Self::with(folder, from, &format!("{more}{tls}"));
        let listener = house.gateway.listening("tls");
        (house, authority, listener)
    }

    /// Whom the upstream was told of by the only request since the last call.
    fn told(&self) -> String {
        let told = self.upstream.only().headers_named("x-forwarded-for").join(" and ");
        self.upstream.forget();
        told
    }

    fn metric(&self, name: &str, reason: &str) -> f64 {
        let text = Client::get(self.gateway.admin, "/metrics").send().text();
        Exposition::text(&text).value(name, &[("reason", reason)]).unwrap()
    }

    /// Waits for the next access line behind `count` others.
    fn line(&self, count: usize) -> serde_json::Value {
        eventually("there is a line", || self.gateway.access_lines().len() > count);
        self.gateway.access_lines()[count].clone()
    }
}

/// The request that is not answered from the cache.
fn post(session: &mut Session) -> u16 {
    session.request("POST", "/").body("x").send().status
}

#[test]
fn the_client_is_the_one_that_the_balancer_names() {
    let house = House::start("park_after = '100ms'");
    let mut seen = 0;
    for version in [1, 2] {
        for client in ["192.0.2.7", "2001:db8::7"] {
            let mut session = Session::open(house.gateway.public);
            // All at once: nothing behind the header is lost.
            let body = "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1\r\n\r\nx";
            session.write([&header(version, client, 80)[..], body.as_bytes()].concat());
            assert_eq!(session.read().status, 200, "v{version} {client}");
            assert_eq!(house.told(), client);
            assert_eq!(house.line(seen)["client"], client);
            // It stays so, also when the connection was parked.
            eventually("it is parked", || {
                let text = Client::get(house.gateway.admin, "/metrics").send().text();
                Exposition::text(&text).value("portcullis_connections_parked", &[]) == Some(1.0)
            });
            assert_eq!((post(&mut session), house.told().as_str()), (200, client));
            assert_eq!(house.line(seen + 1)["client"], client);
            // In pieces.
            let mut session = Session::open(house.gateway.public);
            for byte in header(version, client, 80) {
                session.write([byte]);
            }
            assert_eq!((post(&mut session), house.told().as_str()), (200, client));
            house.line(seen + 2);
            seen += 3;
        }
    }
    // An IPv4 address in the form of IPv6 is the same client.
    let mut session = connect(house.gateway.public, &header(2, "::ffff:192.0.2.7", 80));
    assert_eq!((post(&mut session), house.told().as_str()), (200, "192.0.2.7"));
}

#[test]
fn the_port_that_the_client_connected_to_needs_no_mention() {
    let house = House::start("");
    for version in [1, 2] {
        let ask = |port: u16, host: &str| {
            let mut session = connect(house.gateway.public, &header(version, "192.0.2.7", port));
            let path = format!("/v{version}");
            assert_eq!(session.get(&path).header("Host", host).send().status, 200);
            let seen = house.upstream.seen();
            house.upstream.forget();
            seen
        };
        assert_eq!(ask(9443, "shop.test"), 1);
        assert_eq!(ask(9443, "shop.test:9443"), 0, "the same site, from the cache");
        assert_eq!(ask(9444, "shop.test:9443"), 1, "another one");
    }
}

#[test]
fn a_balancer_that_names_nobody_is_the_client_itself() {
    let house = House::start("[server.limits]\nconnections_per_address = 1\n");
    let unix = v2(0x21, 0x31, &[b'/'; 216]);
    let names_somebody = [192, 0, 2, 7, 192, 0, 2, 8, 0, 1, 0, 80];
    let mut open = Vec::new();
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.7 192.0.2.8 1 80\r\n".to_vec(),
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, &names_somebody),
        v2(0x21, 0x00, b""),
        unix,
    ] {
        let mut session = connect(house.gateway.public, &header);
        assert_eq!((post(&mut session), house.told().as_str()), (200, "127.0.0.1"));
        open.push(session);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_may_follow() {
    use tokio::io::AsyncWriteExt as _;
    let house = House::start("");
    for version in [1, 2] {
        let mut stream = tokio::net::TcpStream::connect(house.gateway.public).await.unwrap();
        stream.write_all(&header(version, "192.0.2.7", 80)).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let request = http::Request::post("http://shop.test/").body(()).unwrap();
        let (answer, mut upload) = client.send_request(request, false).unwrap();
        upload.send_data(Bytes::from_static(b"x"), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        assert_eq!(house.told(), "192.0.2.7");
    }
}

#[test]
fn tls_may_follow() {
    let (house, authority, listener) = House::with_tls("");
    let client = TlsClient::new(&authority);
    for version in [1, 2] {
        let tcp = TcpStream::connect(listener).unwrap();
        let header = header(version, "192.0.2.7", 443);
        // The greeting comes in the same packet.
        let mut stream = client.behind(&header, tcp, "shop.test").unwrap();
        let request =
            "POST / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(status(&tls::exchange(&mut stream, request).unwrap()), 200);
        let seen = house.upstream.only();
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
        assert_eq!(house.told(), "192.0.2.7");
    }
    // Without a header there is no handshake, and nothing is said in clear.
    let tcp = TcpStream::connect(listener).unwrap();
    assert!(client.over(tcp, "shop.test").is_err());
    assert_eq!(raw_until_close(listener, REQUEST), "");
    assert_eq!(house.metric(ERRORS, "proxy_header_missing"), 2.0);
    // A header within TLS is none.
    let tcp = TcpStream::connect(listener).unwrap();
    let mut stream = client.behind(&header(1, "192.0.2.7", 443), tcp, "shop.test").unwrap();
    let twice = format!("PROXY TCP4 192.0.2.9 192.0.2.9 1 2\r\n{}", get("shop.test", "/", ""));
    assert_eq!(status(&tls::exchange(&mut stream, &twice).unwrap()), 400);
    // Who speaks HTTP in clear behind the header is told so.
    let answer = raw_until_close(listener, with_request(&header(2, "192.0.2.7", 443)));
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
}

#[test]
fn a_balancer_must_send_a_whole_header() {
    let house = House::start("");
    let mut malformed = 0.0;
    for bytes in [
        b"PROXY TCP4 192.0.2.7 192.0.2.8 1 65536\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 ::1 1 80\r\n".to_vec(),
        b"PROXY TCP6 192.0.2.7 192.0.2.8 1 80\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.07 192.0.2.8 1 80\r\n".to_vec(),
        b"PROXY TCP4  192.0.2.7 192.0.2.8 1 80\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 192.0.2.8 1 80\n".repeat(4),
        [b"PROXY UNKNOWN ", "x".repeat(100).as_bytes()].concat(),
        v2(0x21, 0x11, b""),
        v2(0x21, 0x11, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 80, 1, 0, 9]),
        v2(0x21, 0x11, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 80, 3, 0, 4, 1, 2, 3, 4]),
        v2(0x21, 0x41, &[0; 12]),
        v2(0x2f, 0x11, &[0; 12]),
        // By its length alone: nothing more needs to come.
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec(),
    ] {
        let whole = if malformed == 12.0 { bytes } else { with_request(&bytes) };
        let answer = raw_until_close(house.gateway.public, &whole);
        assert_eq!(answer, "", "{:?}", String::from_utf8_lossy(&whole));
        malformed += 1.0;
        assert_eq!(house.metric(ERRORS, "proxy_header_malformed"), malformed);
    }
    for bytes in [REQUEST, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01", "\r\n\r\nGET"] {
        assert_eq!(raw_until_close(house.gateway.public, bytes), "");
    }
    assert_eq!(house.metric(ERRORS, "proxy_header_missing"), 4.0);
    for version in [1, 2] {
        let header = header(version, "192.0.2.7", 80);
        for end in [1, 6, 13, header.len() - 1] {
            let mut stream = TcpStream::connect(house.gateway.public).unwrap();
            stream.write_all(&header[..end]).unwrap();
        }
    }
    eventually("all are counted", || house.metric(ERRORS, "proxy_header_cut_off") == 8.0);
    // A balancer looks whether somebody listens.
    drop(TcpStream::connect(house.gateway.public).unwrap());
    let tried = "closed before its first byte";
    eventually("that is noted", || house.gateway.stderr().contains(tried));
    let log = house.gateway.stderr();
    assert_eq!(log.matches("which is in server.proxy_protocol_from").count(), 1, "{log}");
    assert!(log.contains("the PROXY header is malformed: what is no port"), "{log}");
    assert_eq!(house.upstream.seen(), 0);
    assert!(house.gateway.access_lines().is_empty(), "nobody knows whose these were");
    assert_eq!(house.metric(ERRORS, "proxy_header_cut_off"), 8.0);
}

#[test]
fn a_slow_header_ends_the_connection() {
    let house = House::start("[server.limits]\nheader_timeout = '300ms'\n");
    for begun in [&b""[..], b"P", b"PROXY TCP4 1", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xf0abc"] {
        assert_eq!(raw_until_close(house.gateway.public, begun), "");
    }
    assert_eq!(house.metric(ERRORS, "proxy_header_timeout"), 4.0);
    // What follows has the deadlines of every connection.
    let header = header(2, "192.0.2.7", 80);
    assert_eq!(raw_until_close(house.gateway.public, &header), "");
    let half = [&header[..], b"GET / HT"].concat();
    assert_eq!(status(&raw_until_close(house.gateway.public, half)), 408);
    assert_eq!(house.line(0)["client"], "192.0.2.7");
}

#[test]
fn nobody_else_can_name_a_client() {
    let house = House::with(Folder::new(), "proxy_protocol_from = ['192.0.2.0/24']", "");
    for (count, version) in [1, 2].into_iter().enumerate() {
        let bytes = with_request(&header(version, "192.0.2.7", 80));
        assert_eq!(status(&raw_until_close(house.gateway.public, bytes)), 400, "v{version}");
        let line = house.line(count);
        assert_eq!(
            (&line["client"], &line["reason"]),
            (&"127.0.0.1".into(), &"head_malformed".into())
        );
    }
    assert_eq!(status(&raw(house.gateway.public, REQUEST)), 200);
    assert_eq!(house.told(), "127.0.0.1");
}

#[test]
fn each_client_of_a_balancer_has_its_own_places() {
    let (house, authority, listener) = House::with_tls(
        "trusted_proxies = ['198.51.100.1']\n[server.limits]\nconnections_per_address = 2\n",
    );
    let public = house.gateway.public;
    let open = |client: &str| {
        let mut session = connect(public, &header(2, client, 80));
        assert_eq!(post(&mut session), 200, "{client}");
        session
    };
    let mut others: Vec<Session> = Vec::new();
    let refused = |client: &str, before: f64| {
        for version in [1, 2] {
            let answer = raw_until_close(public, with_request(&header(version, client, 80)));
            assert_eq!(status(&answer), 503, "{answer}");
        }
        let reason = "connections_per_address";
        let refused = house.metric("portcullis_connections_refused_total", reason);
        assert_eq!(refused, before + 2.0);
    };
    let (first, mut second) = (open("192.0.2.1"), open("192.0.2.1"));
    refused("192.0.2.1", 0.0);
    let is_last =
        |lines: Vec<serde_json::Value>| lines.last().is_some_and(|line| line["status"] == 503);
    eventually("its line is written", || is_last(house.gateway.access_lines()));
    let line = house.gateway.access_lines().pop().unwrap();
    assert_eq!((&line["client"], &line["status"]), (&"192.0.2.1".into(), &503.into()));
    assert_eq!(line["bound"], "server.limits.connections_per_address");
    for last in 2..20 {
        let client = Ipv4Addr::new(192, 0, 2, last).to_string();
        others.extend([open(&client), open(&client)]);
    }
    // One network of IPv6 is one client.
    others.extend([open("2001:db8::1"), open("2001:db8::2")]);
    refused("2001:db8::3", 2.0);
    others.push(open("2001:db8:0:1::1"));
    // A trusted proxy is not one client either.
    others.extend((0..4).map(|_| open("198.51.100.1")));
    // Under TLS nothing is said; the place is the same client's.
    let mut stream = TcpStream::connect(listener).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&header(2, "192.0.2.1", 443)).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    let client = TlsClient::new(&authority);
    let tcp = TcpStream::connect(listener).unwrap();
    let over_tls = client.behind(&header(2, "203.0.113.1", 443), tcp, "shop.test").unwrap();
    let beside = open("203.0.113.1");
    refused("203.0.113.1", 5.0);
    // Who leaves makes room for the same client.
    drop((first, over_tls, beside));
    for client in ["192.0.2.1", "203.0.113.1"] {
        eventually("there is room again", || {
            status(&raw(public, with_request(&header(1, client, 80)))) == 200
        });
    }
    assert_eq!(post(&mut second), 200);
    assert!(others.iter_mut().all(|session| post(session) == 200));
}

#[test]
fn the_client_that_is_named_may_be_a_trusted_proxy() {
    let forwarded = [("127.0.0.1", "192.0.2.7"), ("192.0.2.0/24", "203.0.113.9")];
    for (trusted, client) in forwarded {
        let house = House::start(&format!("trusted_proxies = ['{trusted}']\n"));
        let mut session = connect(house.gateway.public, &header(2, "192.0.2.7", 80));
        let request = session.request("POST", "/").header("X-Forwarded-For", "203.0.113.9");
        assert_eq!(request.send().status, 200);
        assert_eq!(house.line(0)["client"], client, "{trusted}");
    }
}

#[test]
fn a_reload_names_other_balancers() {
    let house = House::with(Folder::new(), "", "");
    assert_eq!(status(&raw(house.gateway.public, REQUEST)), 200);
    let config = std::fs::read_to_string(house.gateway.folder().join("gateway.toml")).unwrap();
    let from = "[server]\nproxy_protocol_from = ['127.0.0.0/8']\n";
    house.gateway.rewrite(&config.replace("[server]\n", from));
    house.gateway.signal("HUP");
    eventually("connections without a header are closed", || {
        raw_until_close(house.gateway.public, "GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n")
            .is_empty()
    });
    let mut session = connect(house.gateway.public, &header(1, "192.0.2.7", 80));
    house.upstream.forget();
    assert_eq!((post(&mut session), house.told().as_str()), (200, "192.0.2.7"));
}
