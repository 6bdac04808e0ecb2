//! docs/recipes/cloud-balancer.md: whose a request is, behind both kinds of balancers. Here a
//! balancer is whoever connects, from 127.0.0.1.

use std::net::TcpStream;
use std::process::Command;

use crate::readme::pages::page;
use crate::recipes::{blocks, with};
use crate::support::{
    CertificateAuthority, Client, Folder, Gateway, Session, TlsClient, Upstream, raw, response, tls,
};

fn app() -> Upstream {
    Upstream::replying(response("200 OK", "ok"))
}

/// `X-Forwarded-For` of the last request, whole.
fn chain(app: &Upstream) -> String {
    app.recorded().pop().unwrap().header("x-forwarded-for").unwrap().to_owned()
}

/// What Express takes for the client by this list of networks, which here is 127.0.0.0/8: the last
/// address that is none of theirs, or the first one.
fn ip(chain: &str) -> &str {
    let strangers = |node: &&str| !node.starts_with("127.");
    chain.rsplit(", ").find(strangers).unwrap_or(chain.split(", ").next().unwrap())
}

#[test]
fn the_application_is_told_the_networks_of_the_configuration() {
    let (page, network) = (page("docs/recipes/cloud-balancer.md").text, "[\"10.0.0.0/16\"]");
    assert!(page.contains(&format!("app.set(\"trust proxy\", {network});")), "{page}");
    assert!(page.contains(&format!("\ntrusted_proxies = {network}\n")), "{page}");
    assert!(page.contains(&format!("\nproxy_protocol_from = {network}\n")), "{page}");
}

#[test]
fn a_balancer_that_reads_http_is_believed_and_its_clients_are_not() {
    let (app, blocks) = (app(), blocks("cloud-balancer.md"));
    let own = [
        ("http://10.0.8.1:3000", &*app.url()),
        ("\"10.0.0.0/16\"", "\"127.0.0.0/8\""),
        ("100/1m", "1/1m"),
    ];
    let gateway = Gateway::start(&with(&blocks[0], &own));
    let ask = |chain: &str| {
        let request = Client::get(gateway.public, "/ip").header("X-Forwarded-For", chain);
        request.header("X-Forwarded-Proto", "https").send().status
    };
    assert_eq!(ask("198.51.100.7"), 200);
    let seen = app.recorded().pop().unwrap();
    // The client, and the balancer that asked.
    assert_eq!(seen.header("x-forwarded-for"), Some("198.51.100.7, 127.0.0.1"));
    assert_eq!(ip(&chain(&app)), "198.51.100.7");
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    // A client that writes the field itself is who the balancer says it is.
    assert_eq!(ask("203.0.113.1, 198.51.100.7"), 429);
    assert_eq!(ask("198.51.100.8"), 200, "each client has a limit of its own");
    assert_eq!(ask("203.0.113.1, 198.51.100.9"), 200);
    assert_eq!(chain(&app), "203.0.113.1, 198.51.100.9, 127.0.0.1");
    assert_eq!(ip(&chain(&app)), "198.51.100.9");
}

#[test]
fn a_balancer_that_passes_connections_on_says_whose_they_are() {
    let (app, blocks) = (app(), blocks("cloud-balancer.md"));
    assert_eq!(blocks.len(), 2);
    let own = [
        ("http://10.0.8.1:3000", &*app.url()),
        ("\"10.0.0.0/16\"", "\"127.0.0.0/8\""),
        ("100/1m", "1/1m"),
        ("[\"0.0.0.0:8443\"]", "[\"127.0.0.1:0\"]"),
    ];
    let (authority, folder) = (CertificateAuthority::new(), Folder::new());
    let site = authority.issue(&["shop.example"]);
    folder.write("site.pem", &site.cert);
    folder.write("site.key", &site.key);
    let gateway = Gateway::start_in(folder, &with(&blocks[1], &own));
    let header = |client: &str| format!("PROXY TCP4 {client} 10.0.0.9 40000 8443\r\n");
    let request = "GET /ip HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n";
    let ask = |client: &str| {
        let mut session = Session::open(gateway.public);
        session.write(header(client));
        session.write(request);
        session.read().status
    };
    assert_eq!((ask("198.51.100.7"), chain(&app)), (200, "198.51.100.7".to_owned()));
    assert_eq!(ask("198.51.100.7"), 429);

    // Under TLS, which follows the header; version 2 as cloud balancers write it.
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    v2.extend([198, 51, 100, 9, 10, 0, 0, 9, 0x9c, 0x40, 0x20, 0xfb]);
    let tcp = TcpStream::connect(gateway.listening("tls")).unwrap();
    let mut stream = TlsClient::new(&authority).behind(&v2, tcp, "shop.example").unwrap();
    let answer = tls::answer(&mut stream, &tls::get("shop.example", "/ip", ""));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(chain(&app), "198.51.100.9");
    assert_eq!(app.recorded().pop().unwrap().header("x-forwarded-proto"), Some("https"));

    // The page's last command, from a machine of the balancer's network.
    let command = "curl -s --haproxy-protocol http://10.0.0.20:8080/ip";
    assert!(page("docs/recipes/cloud-balancer.md").text.contains(command), "the page's command");
    let command = command.replace("10.0.0.20:8080", &gateway.public.to_string());
    let ran = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert_eq!((&*ran.stdout, chain(&app)), (&b"ok"[..], "127.0.0.1".to_owned()), "{ran:?}");

    // Who comes past the balancer and says nothing is refused.
    let refused = raw(gateway.public, request);
    assert!(!refused.contains("200 OK"), "{refused}");
    assert_eq!(Client::get(gateway.admin, "/readyz").send().status, 200, "without a header");
}
