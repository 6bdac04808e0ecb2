//! Names, files that change, redirects and what is said of TLS.

use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{House, certificates, write};
use crate::support::tls::{self, TlsStream};
use crate::support::{
    CertificateAuthority, Client, Folder, Gateway, Pair, TlsClient, Upstream, eventually, response,
    run,
};

/// The certificate that the server showed.
fn shown(stream: &TlsStream) -> Vec<u8> {
    stream.conn.peer_certificates().expect("a certificate")[0].to_vec()
}

fn der(pair: &Pair) -> Vec<u8> {
    CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap().to_vec()
}

#[test]
fn a_request_over_tls_reaches_its_upstream_as_https() {
    let house = House::start("");
    let client = TlsClient::new(&house.authority);
    let answer = client.get(house.tls, "shop.test", "/a?b=c", "").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let seen = house.upstream.only();
    assert_eq!(seen.target(), "/a?b=c");
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert!(seen.header("forwarded").unwrap().contains("proto=https"), "{}", seen.text());
    house.counts("portcullis_tls_handshakes_total", ("result", "ok"), 1.0);
}

#[test]
fn http2_is_agreed_on_above_tls() {
    let house = House::start("");
    for (offered, agreed) in [
        (vec!["h2", "http/1.1"], Some(&b"h2"[..])),
        (vec!["http/1.1"], Some(&b"http/1.1"[..])),
        (vec![], None),
    ] {
        let client = TlsClient::with(&house.authority, None, &offered);
        let stream = client.connect(house.tls, "shop.test").unwrap();
        assert_eq!(stream.conn.alpn_protocol(), agreed, "{offered:?}");
    }
    let nothing = TlsClient::with(&house.authority, None, &["acme-tls/1"]);
    assert!(nothing.connect(house.tls, "shop.test").is_err(), "nobody speaks that");
    // What was agreed on is what is spoken: a preface is no request of HTTP/1.1.
    let client = TlsClient::with(&house.authority, None, &["http/1.1"]);
    let mut stream = client.connect(house.tls, "shop.test").unwrap();
    let answer = tls::exchange(&mut stream, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(!answer.unwrap_or_default().starts_with("HTTP/1.1 200"));
}

#[test]
fn each_name_has_its_own_certificate() {
    let mut pairs = Vec::new();
    let table = "[server.tls]\nlisten = ['127.0.0.1:0']\ncertificates = [\n\
         { cert = 'site.pem', key = 'site.key' },\n\
         { cert = 'wild.pem', key = 'wild.key' },\n\
         { cert = 'rest.pem', key = 'rest.key', default = true },\n]\n";
    let house = House::with(
        |folder, authority| {
            for (file, names) in [("wild", vec!["*.shop.test"]), ("rest", vec!["rest.test"])] {
                let pair = authority.issue(&names);
                write(folder, file, &pair);
                pairs.push(pair);
            }
        },
        table,
    );
    let client = TlsClient::new(&house.authority);
    for (name, expected) in [("a.shop.test", 0), ("A.Shop.Test", 0), ("rest.test", 1)] {
        let stream = client.connect(house.tls, name).unwrap();
        assert_eq!(shown(&stream), der(&pairs[expected]), "{name}");
    }
    for name in ["other.test", "a.b.shop.test", "127.0.0.1"] {
        let error = client.connect(house.tls, name).unwrap_err();
        assert!(error.contains("not valid for name"), "{name} gets the default: {error}");
    }
}

#[test]
fn a_name_that_nobody_has_is_refused_and_none_gets_the_only_certificate() {
    let house = House::start("");
    let client = TlsClient::new(&house.authority);
    let error = client.connect(house.tls, "other.test").unwrap_err();
    assert!(error.contains("UnrecognisedName") || error.contains("UnrecognizedName"), "{error}");
    house.counts("portcullis_tls_handshakes_total", ("result", "unknown_name"), 1.0);
    // An address is no name, so the client sends none.
    let error = client.connect(house.tls, "127.0.0.1").unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}

/// Connects until the certificate is this one.
fn eventually_shows(house: &House, expected: &Pair) {
    let client = TlsClient::new(&house.authority);
    eventually("the new certificate is shown", || {
        let stream = client.connect(house.tls, "shop.test").unwrap();
        shown(&stream) == der(expected)
    });
}

#[test]
fn files_that_change_are_read_anew_and_what_cannot_be_used_is_not() {
    let house = House::start("");
    let folder = house.gateway.folder();
    let (old, new) = (house.authority.issue(&["shop.test"]), house.authority.issue(&["shop.test"]));
    // Another key, and no certificate of it yet: the former stay.
    std::fs::write(folder.join("site.key"), &new.key).unwrap();
    house.counts("portcullis_tls_reloads_total", ("result", "refused"), 1.0);
    eventually("it is said why", || house.gateway.stderr().contains("not that of the certificate"));
    assert!(TlsClient::new(&house.authority).connect(house.tls, "shop.test").is_ok());
    std::fs::write(folder.join("site.pem"), &new.cert).unwrap();
    eventually_shows(&house, &new);
    // As certificate managers do it: a link to a folder is swapped for another one.
    for (name, pair) in [("one", &old), ("two", &new)] {
        std::fs::create_dir(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("site.pem"), &pair.cert).unwrap();
        std::fs::write(folder.join(name).join("site.key"), &pair.key).unwrap();
    }
    for file in ["site.pem", "site.key"] {
        std::fs::remove_file(folder.join(file)).unwrap();
        std::os::unix::fs::symlink(format!("current/{file}"), folder.join(file)).unwrap();
    }
    std::os::unix::fs::symlink("one", folder.join("next")).unwrap();
    std::fs::rename(folder.join("next"), folder.join("current")).unwrap();
    eventually_shows(&house, &old);
}

/// Says that it is done, also where a test fails: those who wait for it end then.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn reloads_while_clients_come_refuse_nobody() {
    let house = House::start("");
    let done = AtomicBool::new(false);
    let pairs: Vec<Pair> = (0..4).map(|_| house.authority.issue(&["shop.test"])).collect();
    std::thread::scope(|scope| {
        let ends = Ends(&done);
        let comes = || {
            let client = TlsClient::new(&house.authority);
            let mut served = 0;
            while !done.load(Ordering::Relaxed) || served == 0 {
                let answer = client.get(house.tls, "shop.test", "/", "").expect("a response");
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                served += 1;
            }
        };
        let clients = [scope.spawn(comes), scope.spawn(comes)];
        for pair in pairs.iter().cycle().take(40) {
            let folder = house.gateway.folder();
            std::fs::write(folder.join("site.pem"), &pair.cert).unwrap();
            std::fs::write(folder.join("site.key"), &pair.key).unwrap();
            house.gateway.signal("HUP");
        }
        eventually_shows(&house, pairs.last().unwrap());
        drop(ends);
        for client in clients {
            client.join().expect("every client was served");
        }
    });
}

/// As certificate managers do it, a hundred times, and one of them writes half a file: whatever a
/// look meets, all are served with the old one or the new one.
#[test]
fn folders_that_are_swapped_while_clients_come_refuse_nobody() {
    let house = House::start("");
    let folder = house.gateway.folder();
    let pairs = [(); 2].map(|()| house.authority.issue(&["shop.test"]));
    let half = Pair { cert: pairs[0].cert[..200].to_owned(), key: pairs[0].key.clone() };
    for (name, pair) in [("one", &pairs[0]), ("two", &pairs[1]), ("half", &half)] {
        std::fs::create_dir(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("site.pem"), &pair.cert).unwrap();
        std::fs::write(folder.join(name).join("site.key"), &pair.key).unwrap();
    }
    let swap = |to: &str| {
        std::os::unix::fs::symlink(to, folder.join("next")).unwrap();
        std::fs::rename(folder.join("next"), folder.join("current")).unwrap();
    };
    swap("one");
    for file in ["site.pem", "site.key"] {
        std::os::unix::fs::symlink(format!("current/{file}"), folder.join("link")).unwrap();
        std::fs::rename(folder.join("link"), folder.join(file)).unwrap();
    }
    let client = TlsClient::new(&house.authority);
    let comes = || {
        let answer = client.get(house.tls, "shop.test", "/", "").expect("a response");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = Ends(&done);
        let other = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                comes();
            }
        });
        for to in ["one", "two", "half", "two"].iter().cycle().take(100) {
            swap(to);
            comes();
        }
        swap("half");
        house.counts("portcullis_tls_reloads_total", ("result", "refused"), 1.0);
        comes();
        swap("two");
        eventually_shows(&house, &pairs[1]);
        swap("one");
        eventually_shows(&house, &pairs[0]);
        drop(ends);
        other.join().expect("every client was served");
    });
}

#[test]
fn requests_in_clear_are_sent_to_https_but_for_those_that_came_so() {
    let more = "redirect = true\nhsts = '1h'";
    let table =
        format!("[server]\ntrusted_proxies = ['127.0.0.1']\n{}", certificates(&["site"], more));
    let house = House::with(|_, _| {}, &table);
    let get = |host: &str| Client::get(house.gateway.public, "/a%20b?c=d&e").header("Host", host);
    let reply = get("shop.test").send();
    let location = "https://shop.test/a%20b?c=d&e";
    assert_eq!((reply.status, reply.header("location")), (308, Some(location)));
    assert_eq!(reply.header("strict-transport-security"), None, "in clear it means nothing");
    assert_eq!(house.upstream.seen(), 0);
    assert_eq!(get("shop.test").header("X-Forwarded-Proto", "https").send().status, 200);
    let admin = format!("http://{}", house.gateway.admin);
    for (url, outcome) in [
        ("http://shop.test/a", "\noutcome  308 to https (server.tls.redirect)\n"),
        ("https://shop.test/a", "\noutcome  passes, to the upstream "),
        ("/a", "\noutcome  passes, to the upstream "),
    ] {
        let said = run(&Folder::new(), &["explain", "GET", url, "--admin", &admin]).stdout;
        assert!(said.contains(outcome), "{url}: {said}");
    }
    let answer = TlsClient::new(&house.authority).get(house.tls, "shop.test", "/", "").unwrap();
    assert!(answer.contains("strict-transport-security: max-age=3600\r\n"), "{answer}");
}

#[test]
fn one_listener_alone_may_speak_tls() {
    let table = "[server.tls]\ncertificates = [{ cert = 'site.pem', key = 'site.key' }]\n";
    let house = House::with(|_, _| {}, table);
    let client = TlsClient::new(&house.authority);
    let answer = client.get(house.tls, "shop.test", "/", "").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(house.tls, house.gateway.public, "there is no other one");
}

#[test]
fn what_is_wrong_with_certificates_is_told_before_they_are_served() {
    let house = House::with(
        |folder, authority| {
            write(folder, "other", &authority.issue(&["shop.test"]));
            let over = authority.issue_with(&["shop.test"], |params| {
                params.not_after = rcgen::date_time_ymd(2020, 1, 1);
            });
            write(folder, "over", &over);
            folder.write("junk.pem", "hello");
        },
        &certificates(&["site"], ""),
    );
    let folder = house.gateway.folder();
    for (certificate, key, more, expected) in [
        ("site.pem", "other.key", "", "the key is not that of the certificate"),
        ("junk.pem", "site.key", "", "holds no certificate"),
        ("site.pem", "site.pem", "", "holds no private key"),
        ("site.pem", "site.key", "client_ca = 'junk.pem'", "holds no certificate"),
        ("site.pem", "site.key", "redirect = true", "no listener in clear"),
        ("over.pem", "over.key", "", "has expired"),
    ] {
        let text = format!(
            "[server.tls]\ncertificates = [{{ cert = '{certificate}', key = '{key}' }}]\n{more}\n\
             [upstreams.u]\nservers = ['http://127.0.0.1:1']\n[routes.r]\nhost = 'shop.test'\n\
             path = '/*'\nupstream = 'u'\n"
        );
        std::fs::write(folder.join("check.toml"), text).unwrap();
        let told = check(&house.gateway);
        assert!(told.contains(expected), "{certificate} {key} {more}: {told}");
    }
}

fn check(gateway: &Gateway) -> String {
    let folder = Folder::new();
    for entry in std::fs::read_dir(gateway.folder()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            folder
                .write(&entry.file_name().to_string_lossy(), std::fs::read(entry.path()).unwrap());
        }
    }
    let told = run(&folder, &["check", "--config", "check.toml"]);
    told.stdout + &told.stderr
}

#[test]
fn a_host_without_a_certificate_is_worth_a_warning() {
    let house = House::start("");
    let folder = house.gateway.folder();
    std::fs::write(
        folder.join("check.toml"),
        "[server.tls]\ncertificates = [{ cert = 'site.pem', key = 'site.key' }]\n[upstreams.u]\n\
         servers = ['http://127.0.0.1:1']\n[routes.r]\nhost = 'other.test'\npath = '/*'\n\
         upstream = 'u'\n",
    )
    .unwrap();
    let told = check(&house.gateway);
    assert!(told.contains("no certificate is for other.test"), "{told}");
}

#[test]
fn the_end_of_a_certificate_is_in_the_metrics() {
    let house = House::start("");
    house.counts("portcullis_tls_certificate_expiry_seconds", ("name", "shop.test"), 1e9);
}

/// A browser asks for one host on another's connection where one certificate is for both (RFC 9113
/// §9.1.1).
#[tokio::test(flavor = "multi_thread")]
async fn hosts_of_one_certificate_share_a_connection() {
    // One whose clients must show more, so that each request is looked at.
    let table = "[server.tls]\nlisten = ['127.0.0.1:0']\ncertificates = [\n\
         { cert = 'wild.pem', key = 'wild.key' },\n\
         { cert = 'inner.pem', key = 'inner.key', client_ca = 'clients.pem' },\n]\n";
    let house = House::with(
        |folder, authority| {
            write(folder, "wild", &authority.issue(&["*.shop.test"]));
            write(folder, "inner", &authority.issue(&["inner.test"]));
            folder.write("clients.pem", &authority.pem);
        },
        table,
    );
    let client = TlsClient::with(&house.authority, None, &["h2"]);
    let tcp = tokio::net::TcpStream::connect(house.tls).await.unwrap();
    let name = "a.shop.test".try_into().unwrap();
    let stream = client.connector().connect(name, tcp).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let hosts = [("a.shop.test", 200), ("b.shop.test", 200), ("inner.test", 421)];
    for (host, expected) in hosts {
        let request = http::Request::get(format!("https://{host}/{host}")).body(()).unwrap();
        let mut client = client.clone().ready().await.unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), expected, "{host}");
    }
    let asked: Vec<String> =
        house.upstream.recorded().iter().map(|it| it.target().to_owned()).collect();
    assert_eq!(asked, ["/a.shop.test", "/b.shop.test"]);
}

#[test]
fn who_names_no_host_is_served_with_the_default_certificate() {
    let table = "[server.tls]\nlisten = ['127.0.0.1:0']\ncertificates = [\n\
         { cert = 'site.pem', key = 'site.key' },\n\
         { cert = 'rest.pem', key = 'rest.key', default = true },\n]\n";
    let house = House::with(
        |folder, authority| write(folder, "rest", &authority.issue(&["127.0.0.1"])),
        table,
    );
    // An address is no name, so the client sends none.
    let client = TlsClient::new(&house.authority);
    for host in ["127.0.0.1", "shop.test"] {
        let mut stream = client.connect(house.tls, "127.0.0.1").unwrap();
        let request = tls::get(host, "/", "Connection: close\r\n");
        let answer = tls::exchange(&mut stream, &request).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
    }
}

/// Warming asks as clients do, and there is no listener in clear that it could ask.
#[test]
fn a_cache_is_warmed_where_all_listeners_speak_tls() {
    let (authority, folder) = (CertificateAuthority::new(), Folder::new());
    write(&folder, "site", &authority.issue(&["shop.test"]));
    let upstream = Upstream::replying(response("200 OK\r\nCache-Control: max-age=600", "warm"));
    let gateway = Gateway::start_in(
        folder,
        &format!(
            "[server.tls]\ncertificates = [{{ cert = 'site.pem', key = 'site.key' }}]\n{}
            [routes.all]\npath = \"/*\"\nhost = \"shop.test\"\nupstream = \"shop\"\n\
            cache = {{ ttl = \"1h\", warm = {{ urls = [\"/a\"] }} }}\n",
            upstream.table("shop")
        ),
    );
    let client = TlsClient::new(&authority);
    let lines = "Cache-Control: only-if-cached\r\n";
    eventually("it is a hit", || {
        let answer = client.get(gateway.public, "shop.test", "/a", lines).unwrap();
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("warm")
    });
    assert_eq!(upstream.seen(), 1);
}
