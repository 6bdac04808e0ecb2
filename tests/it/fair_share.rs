//! What one client may take of an upstream's connections.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use std::io::{Read, Write};

use crate::support::{Client, Gateway, Session, Upstream, eventually, response};

/// A gateway that believes whom 127.0.0.1 names as the client, before this upstream.
fn before(upstream: &Upstream, settings: &str) -> Gateway {
    Gateway::start(&format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n{}{settings}
        [routes.all]\npath = \"/*\"\nupstream = \"shop\"
        [routes.cached]\npath = \"/cached/*\"\nupstream = \"shop\"\ncache = {{ ttl = \"60s\" }}",
        upstream.table("shop")
    ))
}

/// Answers GETs, and reads what else there is for as long as it comes.
fn upstream() -> Upstream {
    Upstream::replying(response("200 OK", "fine"))
}

/// Begins an upload, and sends no more of it.
fn upload(address: SocketAddr, client: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1000000";
    let head = format!("{head}\r\nX-Forwarded-For: {client}\r\n\r\nhello");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn get(gateway: &Gateway, path: &str, client: &str) -> u16 {
    Client::get(gateway.public, path).header("X-Forwarded-For", client).send().status
}

#[test]
fn slow_uploads_of_one_client_leave_room_for_others() {
    let upstream = upstream();
    let gateway = before(&upstream, "max_connections = 16\nconnect_timeout = \"200ms\"\n");
    // It comes first and alone, with more than there is room for.
    let _slow: Vec<TcpStream> =
        (0..40).map(|at| upload(gateway.public, &format!("2001:db8::{at:x}"))).collect();
    eventually("they have what one client gets", || upstream.open() == 12);
    eventually("the others are refused", || {
        gateway.access_lines().iter().filter(|line| line["reason"] == "upstream_busy").count() == 28
    });
    for number in 0..20 {
        let client: IpAddr = [198, 51, 100, number].into();
        assert_eq!(get(&gateway, "/", &client.to_string()), 200);
        assert_eq!(get(&gateway, &format!("/cached/{number}"), &client.to_string()), 200);
    }
    // The subscriber himself has had his share, whatever address he comes from.
    assert_eq!(get(&gateway, "/", "2001:db8::ffff"), 503);
    assert_eq!(get(&gateway, "/cached/mine", "2001:db8::ffff"), 503);
    assert_eq!(get(&gateway, "/", "2001:db8:0:1::1"), 200);
}

#[test]
fn who_has_had_his_share_leads_nobody_else_astray() {
    let upstream = upstream();
    let gateway = before(&upstream, "max_connections = 4\nconnect_timeout = \"1s\"\n");
    let _slow: Vec<TcpStream> = (0..3).map(|_| upload(gateway.public, "192.0.2.1")).collect();
    eventually("he has his share", || upstream.open() == 3);
    for number in 0..3 {
        // He asks first for what others want, and waits.
        let path = format!("/cached/{number}");
        let mut greedy = Session::open(gateway.public);
        let from = "X-Forwarded-For: 192.0.2.1";
        greedy.write(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{from}\r\n\r\n"));
        eventually("he waits", || {
            let waiting = Client::get(gateway.admin, "/metrics").send().text();
            waiting.contains("upstream_requests_waiting{upstream=\"shop\"} 1")
        });
        let mut reply = Client::get(gateway.public, &path);
        reply = reply.header("Host", "a").header("X-Forwarded-For", "198.51.100.1");
        assert_eq!(reply.send().status, 200);
        assert_eq!(greedy.read().status, 503);
    }
}

#[test]
fn a_share_is_configured() {
    for (share, most) in [("\"50%\"", 4), ("1", 7), ("\"100%\"", 8), ("\"1%\"", 8), ("1000", 8)] {
        let upstream = upstream();
        let settings =
            format!("max_connections = 8\nclient_share = {share}\nconnect_timeout = \"200ms\"\n");
        let gateway = before(&upstream, &settings);
        let _slow: Vec<TcpStream> = (0..9).map(|_| upload(gateway.public, "192.0.2.1")).collect();
        eventually("the client has its share", || upstream.open() == most);
        eventually("the others are refused", || gateway.access_lines().len() == 9 - most);
        let expected = if most == 8 { 503 } else { 200 };
        assert_eq!(get(&gateway, "/", "198.51.100.1"), expected, "{share}");
    }
}

#[test]
fn few_connections_are_all_for_a_client_that_is_alone() {
    for most in 1..=3 {
        let waiting: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let kept = Arc::clone(&waiting);
        let upstream = Upstream::with(move |_, connection| {
            kept.lock().unwrap().extend(connection.try_clone());
            let _ = connection.read(&mut [0; 16]);
        });
        let gateway = before(&upstream, &format!("max_connections = {most}\n"));
        let mut sessions: Vec<Session> = (0..most).map(|_| Session::open(gateway.public)).collect();
        for session in &mut sessions {
            session.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        }
        eventually("all are at the upstream", || waiting.lock().unwrap().len() == most);
        for stream in waiting.lock().unwrap().iter_mut() {
            stream.write_all(response("200 OK", "fine").as_bytes()).unwrap();
        }
        assert!(sessions.iter_mut().all(|session| session.read().text() == "fine"));
    }
}

#[test]
fn a_drip_ends_at_the_default_pace_of_a_phone() {
    let upstream = upstream();
    let gateway = Gateway::start(&format!(
        "[server.limits]\nprogress_timeout = \"2s\"\n{}
        [routes.all]\npath = \"/*\"\nupstream = \"shop\"",
        upstream.table("shop")
    ));
    // What kept a body alive before: more than 1 KiB in each period, and nothing near a phone's.
    let mut stream = upload(gateway.public, "192.0.2.1");
    stream.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let mut said = [0; 4096];
    let count = loop {
        match stream.read(&mut said) {
            Ok(count) => break count,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break 0,
            Err(_) => drop(stream.write_all(&[b'x'; 1100])),
        }
    };
    let said = String::from_utf8_lossy(&said[..count]);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    eventually("the upstream is free again", || upstream.open() == 0);
}
