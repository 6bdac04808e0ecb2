//! What operators could not see: each is said once, by name, with what to do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use crate::support::{
    Client, Folder, Gateway, PATIENCE, Upstream, eventually, raw, response, status,
};

fn gateway(upstream: &Upstream) -> Gateway {
    let route = |name: &str| format!("[routes.{name}]\npath = \"/{name}\"\nupstream = \"shop\"\n");
    let cached = format!("{}cache = {{ ttl = \"1m\" }}\n", route("kept"));
    Gateway::start(&format!("{}{}{}{cached}", upstream.table("shop"), route("a"), route("b")))
}

/// What a client sends first, and how the gateway ends it.
fn says(gateway: &Gateway, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway.public).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        stream.write_all(piece).unwrap();
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn tls_on_the_clear_port() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let gateway = gateway(&upstream);
    // The begin of a ClientHello, longer than what is read to tell the protocol, and in pieces.
    let hello = [&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01][..], &[0; 600]].concat();
    for pieces in [vec![&hello[..]], vec![&hello[..1], &hello[1..]], vec![&hello[..2]]] {
        let answer = says(&gateway, &pieces);
        assert_eq!(answer, [0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28], "no HTTP for TLS");
    }
    eventually("three lines", || gateway.access_lines().len() == 3);
    let lines = gateway.access_lines();
    assert!(lines.iter().all(|line| line["reason"] == "tls_on_clear_port"), "{lines:?}");
    let said = gateway.stderr();
    assert_eq!(said.matches("speaks TLS").count(), 1, "{said}");
    assert!(said.contains("server.listen") && said.contains("help: "), "{said}");
    // Neither is TLS: a lone byte of its kind, and another record.
    for odd in [&[0x16][..], b"\x16\x02GET / HTTP/1.1\r\n\r\n"] {
        assert!(!says(&gateway, &[odd]).starts_with(&[0x15]));
    }
    assert_eq!(Client::get(gateway.public, "/a").send().status, 200);
}

#[test]
fn a_websocket_handshake_on_a_route_without_tunnels() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let gateway = gateway(&upstream);
    let ask = |path: &str, upgrade: &str| {
        let fields = format!("Connection: Upgrade\r\nUpgrade: {upgrade}\r\n");
        let answer =
            raw(gateway.public, format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n"));
        assert_eq!(status(&answer), 200, "{answer}");
    };
    for path in ["/a", "/a", "/kept"] {
        ask(path, "websocket");
    }
    ask("/a", "WebSocket");
    // What a client only offers is nothing to be told of.
    ask("/b", "h2c");
    assert!(upstream.recorded().iter().all(|request| request.header("upgrade").is_none()));
    let said = || gateway.stderr();
    eventually("both are said", || said().matches("asked for a WebSocket").count() == 2);
    assert!(said().contains("routes.a: ") && said().contains("routes.kept: "), "{}", said());
    assert!(
        !said().contains("routes.b: ") && said().contains("upgrade = [\"websocket\"]"),
        "{}",
        said()
    );
}

#[test]
fn too_few_open_files_for_what_is_configured() {
    // A gateway that cannot listen has said what it has to say, and ends.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = Folder::new();
    for (connections, warned) in [(10_000, true), (20, false)] {
        folder.write(
            "gateway.toml",
            format!(
                "[server]\nlisten = [\"{address}\"]\n[server.limits]\nconnections = {connections}\n\
                 [admin]\nlisten = \"127.0.0.1:0\"\n\
                 [upstreams.shop]\nservers = [\"http://127.0.0.1:9\"]\nmax_connections = 1\n\
                 [routes.a]\npath = \"/a\"\nupstream = \"shop\"\n"
            ),
        );
        let output = Command::new("sh")
            .args(["-c", "ulimit -n 1000 && exec \"$0\" run", env!("CARGO_BIN_EXE_portcullis")])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("cannot listen"), "{said}");
        let told = said.contains("ulimit -n allows 1000 open files") && said.contains("10000 for");
        assert_eq!(told, warned, "{said}");
        assert_eq!(said.contains("LimitNOFILE="), warned, "{said}");
    }
}
