//! TLS towards upstreams: whom the gateway believes, who it says it is, and what becomes of
//! requests where there is no TLS with a server.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use crate::support::{
    Authority, Certificate, Client, Folder, Gateway, Handshake, Reply, Session, TlsFront, Upstream,
    eventually, response, run,
};

const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
const ROUTE: &str = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n";

fn fine() -> Upstream {
    Upstream::replying(response("200 OK", "fine"))
}

/// Offers what servers of HTTP/1.1 offer.
fn offering(mut server: ServerConfig) -> ServerConfig {
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    server
}

/// In front of `upstream`, for anybody.
fn front(certificate: &Certificate, upstream: &Upstream) -> TlsFront {
    TlsFront::new(offering(certificate.server(BOTH, None)), upstream.address())
}

/// A folder with the authority that the gateway believes.
fn believing(authority: &Authority) -> Folder {
    let folder = Folder::new();
    folder.write("ca.pem", authority.pem());
    folder
}

fn config(servers: &[String], tls: &str, more: &str) -> String {
    // Deadlines are another matter, and the machine may be busy.
    let patience = if more.contains("connect_timeout") { "" } else { "connect_timeout = \"10s\"" };
    format!(
        "[upstreams.shop]\nservers = {servers:?}\n{patience}\n{more}\n
        [upstreams.shop.tls]\nca_file = \"ca.pem\"\n{tls}\n{ROUTE}"
    )
}

fn code(reply: &Reply) -> String {
    let kind = reply.json()["type"].as_str().unwrap_or_default().to_owned();
    kind.trim_start_matches("urn:portcullis:problem:").to_owned()
}

/// Asks once, and is refused; returns why, as the log has it.
fn why(gateway: &Gateway) -> String {
    let reply = Client::request(gateway.public, "POST", "/").body("an order").send();
    assert_eq!((reply.status, code(&reply).as_str()), (502, "upstream_tls"), "{}", reply.text());
    let mut error = String::new();
    eventually("the request is logged", || {
        let lines = gateway.access_lines();
        let line = lines.iter().rev().find(|line| line["reason"] == "upstream_tls");
        line.map(|line| error = line["error"].as_str().unwrap_or_default().to_owned()).is_some()
    });
    error
}

#[test]
fn requests_and_answers_pass_through_both_versions() {
    let authority = Authority::new();
    let certificate = authority.certificate(&["localhost"]);
    for (version, name) in [(&TLS12, "TLSv1_2"), (&TLS13, "TLSv1_3")] {
        let body = "x".repeat(1 << 20);
        let upstream = Upstream::replying(response("200 OK", &body));
        let front =
            TlsFront::new(offering(certificate.server(&[version], None)), upstream.address());
        let gateway =
            Gateway::start_in(believing(&authority), &config(&[front.url("localhost")], "", ""));
        let mut session = Session::open(gateway.public);
        for _ in 0..3 {
            let reply = session.request("POST", "/order").body(&body).send();
            assert_eq!((reply.status, reply.body.len()), (200, body.len()));
        }
        assert!(upstream.recorded().iter().all(|order| order.text() == body));
        // One connection, which was kept.
        assert_eq!(
            front.handshakes(),
            [Handshake {
                version: name.to_owned(),
                protocol: Some("http/1.1".to_owned()),
                name: Some("localhost".to_owned()),
                has_certificate: false,
            }]
        );
    }
}

#[test]
fn a_server_must_prove_the_host_of_its_url_or_the_name_that_is_given() {
    let authority = Authority::new();
    let upstream = fine();
    let front = front(&authority.certificate(&["shop.internal"]), &upstream);
    let servers = [front.url("127.0.0.1")];
    let gateway = Gateway::start_in(believing(&authority), &config(&servers, "", ""));
    let why = why(&gateway);
    assert!(why.contains("not valid for name") && why.contains("tls.server_name"), "{why}");
    assert_eq!(upstream.seen(), 0);

    let named = "server_name = \"shop.internal\"";
    let gateway = Gateway::start_in(believing(&authority), &config(&servers, named, ""));
    assert_eq!(Client::get(gateway.public, "/").send().text(), "fine");
    let asked: Vec<_> = front.handshakes().into_iter().map(|it| it.name).collect();
    assert_eq!(asked, [Some("shop.internal".to_owned())]);
}

#[test]
fn who_does_not_prove_his_name_gets_nothing() {
    let authority = Authority::new();
    let upstream = fine();
    for (certificate, cause) in [
        (authority.expired(&["localhost"]), "certificate expired"),
        (authority.certificate(&["other.test"]), "not valid for name"),
        (Authority::new().certificate(&["localhost"]), "tls.ca_file"),
    ] {
        let front = front(&certificate, &upstream);
        let gateway =
            Gateway::start_in(believing(&authority), &config(&[front.url("localhost")], "", ""));
        let why = why(&gateway);
        assert!(why.contains(cause), "{cause}: {why}");
    }
    assert_eq!((upstream.seen(), upstream.connections()), (0, 0));
}

/// A server that speaks in clear, whether it answers or waits, sees a ClientHello and no request.
#[test]
fn who_speaks_in_clear_is_not_asked_in_clear() {
    // Only who says nothing is to use the time up.
    for (says, timeout, cause) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "10s", "does not speak TLS"),
        ("", "300ms", "does the server speak TLS?"),
    ] {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let clear = Upstream::raw(move |mut stream| {
            let mut some = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut some) {
                hears.lock().unwrap().extend_from_slice(&some[..count]);
                let _ = stream.write_all(says.as_bytes());
            }
        });
        let servers = [clear.url().replace("http://", "https://")];
        let folder = believing(&Authority::new());
        let timeout = format!("connect_timeout = \"{timeout}\"");
        let gateway = Gateway::start_in(folder, &config(&servers, "", &timeout));
        let why = why(&gateway);
        assert!(why.contains(cause), "{cause}: {why}");
        let heard = heard.lock().unwrap();
        assert!(heard.starts_with(&[0x16, 3]), "no ClientHello: {heard:?}");
        assert!(!heard.windows(4).any(|four| four == b"POST"), "{heard:?}");
    }
}

#[test]
fn the_gateway_says_who_it_is_where_it_is_asked() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let certificate = authority.certificate(&["localhost"]);
    let upstream = fine();
    let known = clients.certificate(&["gateway.internal"]);
    let unknown = authority.certificate(&["gateway.internal"]);
    let shown = "client_cert = \"own.pem\"\nclient_key = \"own.key\"";
    for version in [&TLS12, &TLS13] {
        let server = certificate.server(&[version], Some(&clients));
        let front = TlsFront::new(offering(server), upstream.address());
        let start = |own: Option<&Certificate>| {
            let folder = believing(&authority);
            if let Some(own) = own {
                folder.write("own.pem", own.pem());
                folder.write("own.key", own.key_pem());
            }
            let tls = if own.is_some() { shown } else { "" };
            Gateway::start_in(folder, &config(&[front.url("localhost")], tls, ""))
        };
        for refused in [None, Some(&unknown)] {
            let why = why(&start(refused));
            assert!(why.contains("refuses the gateway") && why.contains("client_cert"), "{why}");
        }
        let gateway = start(Some(&known));
        assert_eq!(Client::get(gateway.public, "/").send().text(), "fine");
        let handshakes = front.handshakes();
        assert!(handshakes.iter().all(|it| it.has_certificate), "{handshakes:?}");
    }
    assert_eq!(upstream.seen(), 2);
}

#[test]
fn a_server_without_tls_is_avoided_and_the_others_serve() {
    let authority = Authority::new();
    let (clear, behind) = (fine(), fine());
    let good = front(&authority.certificate(&["localhost"]), &behind);
    let foreign = front(&Authority::new().certificate(&["localhost"]), &behind);
    let servers = [clear.url(), good.url("localhost"), foreign.url("localhost")];
    let more = "balance = \"round-robin\"\nfail_timeout = \"1h\"";
    let gateway = Gateway::start_in(believing(&authority), &config(&servers, "", more));
    for _ in 0..12 {
        let reply = Client::request(gateway.public, "POST", "/").body("an order").send();
        assert_eq!((reply.status, reply.text().as_str()), (200, "fine"));
    }
    let seen = (clear.seen(), behind.seen());
    assert!(seen.0 >= 4 && seen.1 >= 4 && seen.0 + seen.1 == 12, "{seen:?}");
    // It failed once, and was avoided from then on.
    assert_eq!((foreign.connections(), foreign.handshakes().len()), (1, 0));
}

#[test]
fn a_reload_reads_the_files_anew() {
    let (old, new) = (Authority::new(), Authority::new());
    let upstream = fine();
    let front = front(&old.certificate(&["localhost"]), &upstream);
    let text = config(&[front.url("localhost")], "", "");
    let gateway = Gateway::start_in(believing(&old), &text);
    let mut reloads = 0;
    let mut reload = |authority: Option<&Authority>| {
        if let Some(authority) = authority {
            std::fs::write(gateway.folder().join("ca.pem"), authority.pem()).unwrap();
        }
        reloads += 1;
        gateway.signal("HUP");
        eventually("the reload is over", || {
            gateway.stderr().matches("configuration was reloaded").count() == reloads
        });
    };
    let get = || Client::get(gateway.public, "/").send().status;
    assert_eq!(get(), 200);
    // Nothing has changed, and the connections are kept.
    reload(None);
    assert_eq!((get(), front.handshakes().len()), (200, 1));
    reload(Some(&new));
    assert_eq!(get(), 502);
    reload(Some(&old));
    assert_eq!((get(), front.handshakes().len()), (200, 2));
}

#[test]
fn check_reads_the_files_and_their_dates() {
    let authority = Authority::new();
    let (one, other) = (authority.certificate(&["a"]), authority.certificate(&["b"]));
    let expired = authority.expired(&["a"]);
    let folder = Folder::new();
    for (name, content) in [
        ("ca.pem", authority.pem()),
        ("one.pem", one.pem()),
        ("one.key", one.key_pem()),
        ("other.key", other.key_pem()),
        ("expired.pem", expired.pem()),
        ("expired.key", expired.key_pem()),
        ("torn.pem", one.pem().replace("-----END", "----")),
        ("empty.pem", String::new()),
    ] {
        folder.write(name, content);
    }
    let check = |tls: &str| {
        folder.write("gateway.toml", config(&["https://localhost".to_owned()], tls, ""));
        let checked = run(&folder, &["check", "--config", "gateway.toml"]);
        (checked.code, checked.stderr)
    };
    let pair = |cert: &str, key: &str| format!("client_cert = \"{cert}\"\nclient_key = \"{key}\"");
    assert_eq!(check(&pair("one.pem", "one.key")), (Some(0), String::new()));
    for (tls, problem) in [
        (pair("one.pem", "other.key"), "client_key: is the key of another certificate"),
        (pair("torn.pem", "one.key"), "client_cert: is not PEM"),
        (pair("empty.pem", "one.key"), "client_cert: holds no certificate"),
        (pair("one.pem", "empty.pem"), "client_key: holds no private key"),
        (pair("one.pem", "missing.key"), "client_key: cannot read"),
        ("client_cert = \"one.pem\"".to_owned(), "client_cert: is of no use without client_key"),
        ("client_key = \"one.key\"".to_owned(), "client_key: is of no use without client_cert"),
        ("server_name = \"a b\"".to_owned(), "server_name: \"a b\" cannot be the name"),
    ] {
        let (code, report) = check(&tls);
        assert_eq!(code, Some(2), "{tls}: {report}");
        assert!(report.contains(problem) && report.contains("1 problem "), "{tls}: {report}");
    }
    let (code, report) = check(&pair("expired.pem", "expired.key"));
    assert_eq!(code, Some(0), "{report}");
    let warning = "warning: upstreams.shop.tls.client_cert: has expired";
    assert!(report.contains(warning) && report.contains("2001"), "{report}");
}
