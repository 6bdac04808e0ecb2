//! What clients show of themselves, who believes it, and what upstreams are told.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::DnType;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{House, certificates, write};
use crate::support::tls::{self, get, is_resumed};
use crate::support::{CertificateAuthority, Client, Pair, TlsClient, eventually};

/// A house whose clients are asked for certificates of this authority.
fn house(clients: &CertificateAuthority, more: &str) -> House {
    let table = certificates(&["site"], &format!("client_ca = 'clients.pem'\n{more}"));
    House::with(|folder, _| drop(folder.write("clients.pem", &clients.pem)), &table)
}

fn ask(house: &House, own: Option<&Pair>, lines: &str) -> Result<String, String> {
    TlsClient::with(&house.authority, own, &[]).get(house.tls, "shop.test", "/", lines)
}

fn is_served(answer: &Result<String, String>) -> bool {
    answer.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

#[test]
fn a_certificate_that_is_required_must_be_shown_and_be_good() {
    let clients = CertificateAuthority::new();
    let house = house(&clients, "");
    let strangers = CertificateAuthority::new();
    let over = clients.issue_with(&["ann"], |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    assert!(is_served(&ask(&house, Some(&clients.client("ann")), "")));
    for (own, who) in [
        (None, "nobody"),
        (Some(&strangers.client("ann")), "a stranger"),
        (Some(&over), "one whose time is over"),
    ] {
        let answer = ask(&house, own, "");
        assert!(answer.is_err(), "{who}: {answer:?}");
    }
    house.counts("portcullis_tls_handshakes_total", ("result", "client_certificate"), 3.0);
    assert_eq!(house.upstream.seen(), 1);
}

#[test]
fn upstreams_are_told_of_a_certificate_by_nobody_but_the_gateway() {
    let clients = CertificateAuthority::new();
    let house = house(&clients, "client_auth = 'optional'");
    let own = clients.issue_with(&["ann.test", "ann@shop.test"], |params| {
        params.distinguished_name.push(DnType::CountryName, "DE");
        params.distinguished_name.push(DnType::OrganizationName, "Shop, Inc.");
        params.distinguished_name.push(DnType::CommonName, "ann");
        params.serial_number = Some(rcgen::SerialNumber::from(0xAB_CDEF_u64));
    });
    let forged = "Client-Cert: :Zm9yZ2Vk:\r\nClient_Cert: :Zm9yZ2Vk:\r\n\
                  Client-Cert-Chain: :eA==:\r\nX-Client-Cert-Subject: CN=root\r\n\
                  X_Client_Cert_San: root\r\nX.Client.Cert.Sha256: 00\r\n\
                  X-Client-Cert-Serial: 1\r\n";
    assert!(is_served(&ask(&house, Some(&own), forged)));
    let seen = house.upstream.only();
    let der = CertificateDer::from_pem_slice(own.cert.as_bytes()).unwrap();
    let expected = format!(":{}:", STANDARD.encode(&der));
    assert_eq!(seen.headers_named("client-cert"), [&*expected], "RFC 9440 §2.1");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    for (name, value) in [
        ("x-client-cert-subject", "CN=ann,O=Shop\\, Inc.,C=DE"),
        ("x-client-cert-san", "ann.test,ann@shop.test"),
        ("x-client-cert-serial", "ABCDEF"),
        ("x-client-cert-sha256", &*digest),
    ] {
        assert_eq!(seen.headers_named(name), [value], "{name}");
    }
    assert!(!seen.text().contains("forged") && !seen.text().contains("root"), "{}", seen.text());
    assert!(
        seen.names().iter().all(|name| !name.contains('_') && !name.starts_with("client-cert-"))
    );
    house.upstream.forget();
    assert!(is_served(&ask(&house, None, forged)), "it may do without");
    let names = house.upstream.only().names();
    assert!(names.iter().all(|name| !name.contains("cert")), "{names:?}");
}

#[test]
fn what_its_authority_has_revoked_is_no_good() {
    let clients = CertificateAuthority::new();
    let table = certificates(&["site"], "client_ca = 'clients.pem'\nclient_crl = 'clients.crl'");
    let house = House::with(
        |folder, _| {
            folder.write("clients.pem", &clients.pem);
            folder.write("clients.crl", clients.revoke(&[7]));
        },
        &table,
    );
    let (good, revoked) =
        (clients.client_with_serial("ann", 6), clients.client_with_serial("bob", 7));
    assert!(is_served(&ask(&house, Some(&good), "")));
    assert!(ask(&house, Some(&revoked), "").is_err());
    std::fs::write(house.gateway.folder().join("clients.crl"), clients.revoke(&[6, 7])).unwrap();
    house.counts("portcullis_tls_reloads_total", ("result", "applied"), 1.0);
    assert!(ask(&house, Some(&good), "").is_err(), "its list was read anew");
}

#[test]
fn sessions_are_resumed_but_not_those_of_clients_with_certificates() {
    let clients = CertificateAuthority::new();
    let plain = House::start("");
    let required = house(&clients, "");
    let written = house(&clients, "tickets = 'node'");
    let own = clients.client("ann");
    for (house, own, resumes) in
        [(&plain, None, true), (&required, Some(&own), false), (&written, Some(&own), true)]
    {
        let client = TlsClient::with(&house.authority, own, &[]);
        let twice = [(); 2].map(|()| {
            let mut stream = client.connect(house.tls, "shop.test").unwrap();
            let request = get("shop.test", "/", "Connection: close\r\n");
            let answer = tls::exchange(&mut stream, &request).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            is_resumed(&stream)
        });
        assert_eq!(twice, [false, resumes]);
    }
    // What was known of a client is known again.
    let seen = written.upstream.recorded();
    assert_eq!(seen[0].header("client-cert"), seen[1].header("client-cert"));
    assert!(seen[1].header("client-cert").is_some());
}

/// A house with a host whose clients show nothing, and one whose clients must.
fn two_hosts(clients: &CertificateAuthority) -> House {
    let table = "[server.tls]\nlisten = ['127.0.0.1:0']\ntickets = 'node'\ncertificates = [\n\
         { cert = 'site.pem', key = 'site.key' },\n\
         { cert = 'also.pem', key = 'also.key' },\n\
         { cert = 'inner.pem', key = 'inner.key', client_ca = 'clients.pem' },\n]\n";
    House::with(
        |folder, authority| {
            write(folder, "also", &authority.issue(&["also.test"]));
            write(folder, "inner", &authority.issue(&["inner.test"]));
            folder.write("clients.pem", &clients.pem);
        },
        table,
    )
}

#[test]
fn a_host_whose_clients_must_show_more_is_not_reached_by_another_hosts_connection() {
    let clients = CertificateAuthority::new();
    let house = two_hosts(&clients);
    let client = TlsClient::new(&house.authority);
    let asks = |host: &str| {
        let mut stream = client.connect(house.tls, "shop.test").unwrap();
        tls::exchange(&mut stream, &get(host, "/", "Connection: close\r\n")).unwrap()
    };
    for (host, status) in [
        ("shop.test", "200"),
        ("also.test", "200"),
        ("inner.test", "421"),
        ("INNER.test.:443", "421"),
    ] {
        let answer = asks(host);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
    assert!(asks("inner.test").contains("urn:portcullis:problem:misdirected"));
    let own = TlsClient::with(&house.authority, Some(&clients.client("ann")), &[]);
    assert!(is_served(&own.get(house.tls, "inner.test", "/", "")));
    let mut stream = own.connect(house.tls, "inner.test").unwrap();
    let request = get("shop.test", "/", "Connection: close\r\n");
    assert!(tls::exchange(&mut stream, &request).unwrap().starts_with("HTTP/1.1 421"));
}

#[test]
fn a_ticket_opens_no_other_hosts_door_and_none_after_the_authorities_have_changed() {
    let clients = CertificateAuthority::new();
    let house = two_hosts(&clients);
    let own = TlsClient::with(&house.authority, Some(&clients.client("ann")), &[]);
    let visit = |name: &str| {
        let mut stream = own.connect(house.tls, name)?;
        let request = get(name, "/", "Connection: close\r\n");
        tls::exchange(&mut stream, &request).map(|_| is_resumed(&stream))
    };
    assert_eq!(visit("inner.test"), Ok(false));
    assert_eq!(visit("inner.test"), Ok(true));
    let others = CertificateAuthority::new();
    std::fs::write(house.gateway.folder().join("clients.pem"), &others.pem).unwrap();
    house.counts("portcullis_tls_reloads_total", ("result", "applied"), 1.0);
    assert!(visit("inner.test").is_err(), "its authority is trusted no more");
}

#[test]
fn in_clear_the_fields_of_certificates_are_a_clients_own_where_no_tls_ends_here() {
    let upstream = crate::support::Upstream::replying(crate::support::response("200 OK", "hello"));
    let gateway = crate::support::Gateway::start(&format!(
        "{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.table("shop")
    ));
    // A terminator in front may set them; that is its operator's affair.
    Client::get(gateway.public, "/").header("Client-Cert", ":eA==:").send();
    assert_eq!(upstream.only().header("client-cert"), Some(":eA==:"));
}

/// Whether a visit was served, and resumed a session.
fn visit(client: &TlsClient, house: &House, name: &str) -> Result<bool, String> {
    let mut stream = client.connect(house.tls, name)?;
    let answer = tls::exchange(&mut stream, &get(name, "/", "Connection: close\r\n"))?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(is_resumed(&stream))
}

/// Clients keep tickets by name. One that does not must not enter with another host's.
#[test]
fn a_ticket_of_one_host_is_nothing_to_another_whose_clients_must_show_more() {
    let clients = CertificateAuthority::new();
    let house = two_hosts(&clients);
    let nobody = TlsClient::new(&house.authority).mixing_names();
    assert_eq!(visit(&nobody, &house, "shop.test"), Ok(false));
    assert_eq!(visit(&nobody, &house, "shop.test"), Ok(true));
    assert_eq!(visit(&nobody, &house, "also.test"), Ok(false), "though both ask for the same");
    assert!(visit(&nobody, &house, "inner.test").is_err());
    house.counts("portcullis_tls_handshakes_total", ("result", "client_certificate"), 1.0);
    let ann = TlsClient::with(&house.authority, Some(&clients.client("ann")), &[]).mixing_names();
    assert_eq!(visit(&ann, &house, "shop.test"), Ok(false));
    assert_eq!(visit(&ann, &house, "inner.test"), Ok(false), "its certificate is verified");
    assert_eq!(visit(&ann, &house, "inner.test"), Ok(true));
    assert_eq!(visit(&ann, &house, "shop.test"), Ok(false), "nor the other way round");
}

/// The date of a certificate counts on each connection, also where a ticket brings it back.
#[test]
fn a_resumed_certificate_whose_time_is_over_is_no_good() {
    let clients = CertificateAuthority::new();
    let house = house(&clients, "tickets = 'node'");
    // A busy machine may take longer than the shortest of these lives to shake hands twice.
    let client = [2, 4, 8].into_iter().find_map(|life| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let end = rcgen::date_time_ymd(1970, 1, 1) + now + Duration::from_secs(life);
        let own = clients.issue_with(&["ann.test"], |params| params.not_after = end);
        let client = TlsClient::with(&house.authority, Some(&own), &[]);
        let is_good = |resumes| visit(&client, &house, "shop.test") == Ok(resumes);
        (is_good(false) && is_good(true)).then_some(client)
    });
    let client = client.expect("a session that is resumed within the certificate's life");
    eventually("its time is over", || match visit(&client, &house, "shop.test") {
        Ok(resumed) => {
            assert!(resumed, "it comes with a ticket until then");
            false
        }
        Err(_) => true,
    });
    house.counts("portcullis_tls_handshakes_total", ("result", "client_certificate"), 1.0);
}

#[test]
fn a_new_list_and_new_authorities_count_for_those_with_tickets() {
    let (clients, others) = (CertificateAuthority::new(), CertificateAuthority::new());
    let more = "client_ca = 'clients.pem'\nclient_crl = 'clients.crl'\ntickets = 'node'";
    let house = House::with(
        |folder, _| {
            folder.write("clients.pem", &clients.pem);
            folder.write("clients.crl", clients.revoke(&[7]));
        },
        &certificates(&["site"], more),
    );
    let client = |own: &Pair| TlsClient::with(&house.authority, Some(own), &[]);
    let ann = client(&clients.client_with_serial("ann", 5));
    let bob = client(&clients.client_with_serial("bob", 6));
    for client in [&ann, &bob] {
        assert_eq!([false, true].map(Ok), [(); 2].map(|()| visit(client, &house, "shop.test")));
    }
    let write = |name: &str, text: String| {
        std::fs::write(house.gateway.folder().join(name), text).unwrap();
    };
    write("clients.crl", clients.revoke(&[6, 7]));
    house.counts("portcullis_tls_reloads_total", ("result", "applied"), 1.0);
    assert!(visit(&bob, &house, "shop.test").is_err(), "it was revoked");
    assert_eq!(visit(&ann, &house, "shop.test"), Ok(false), "it is verified anew");
    write("clients.pem", others.pem.clone());
    house.counts("portcullis_tls_reloads_total", ("result", "applied"), 2.0);
    assert!(visit(&ann, &house, "shop.test").is_err(), "its authority is trusted no more");
    let eve = client(&others.client("eve"));
    assert_eq!([false, true].map(Ok), [(); 2].map(|()| visit(&eve, &house, "shop.test")));
}

/// Without authorities, nobody could be asked for a certificate: then the former ones stay.
#[test]
fn authorities_that_are_gone_or_empty_are_not_read() {
    let clients = CertificateAuthority::new();
    let house = house(&clients, "");
    let ann = clients.client("ann");
    let is_unchanged = |what: &str| {
        assert!(is_served(&ask(&house, Some(&ann), "")), "{what}");
        let eve = CertificateAuthority::new().client("eve");
        for own in [None, Some(&eve)] {
            let answer = ask(&house, own, "");
            assert!(answer.is_err(), "{what}: {answer:?}");
        }
    };
    let file = house.gateway.folder().join("clients.pem");
    let reloads = "portcullis_reloads_total";
    for (at, what) in (1..).zip(["empty", "gone"]) {
        match what {
            "empty" => std::fs::write(&file, "").unwrap(),
            _ => std::fs::remove_file(&file).unwrap(),
        }
        house.counts("portcullis_tls_reloads_total", ("result", "refused"), f64::from(at));
        is_unchanged(what);
        house.gateway.signal("HUP");
        house.counts(reloads, ("result", "refused"), f64::from(at));
        is_unchanged(what);
    }
    assert_eq!(house.upstream.seen(), 4);
    let others = CertificateAuthority::new();
    std::fs::write(&file, &others.pem).unwrap();
    eventually("others are read", || is_served(&ask(&house, Some(&others.client("bob")), "")));
    assert!(ask(&house, Some(&ann), "").is_err());
}
