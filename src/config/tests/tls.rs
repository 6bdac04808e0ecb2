//! `[server.tls]`: what is written, and what is wrong with it.

use super::*;

#[test]
fn each_mistake_has_its_place_and_a_remedy() {
    for (line, path, remedy) in [
        ("listen = ['0.0.0.0:443']", "server.tls.certificates: is missing", "site.pem"),
        ("certificates = []", "server.tls.certificates: is an empty list", "at least one"),
        (
            "certificates = [{ key = 'k' }]",
            "server.tls.certificates[0].cert: is missing",
            "site.pem",
        ),
        (
            "certificates = [{ cert = 'c' }]",
            "server.tls.certificates[0].key: is missing",
            "site.key",
        ),
        ("certificates = ['site.pem']", "server.tls.certificates[0]: ", "{"),
        ("client_auth = 'required'", "server.tls.client_auth: no authority says", "client_ca ="),
        ("client_auth = 'yes'", "server.tls.client_auth: ", "\"optional\""),
        ("tickets = 'all'", "server.tls.tickets: ", "\"fleet\""),
        ("handshakes = 0", "server.tls.handshakes: ", "1"),
        ("secret = 'short'", "server.tls.secret: has 5 bytes", "openssl rand"),
        ("acme = {}", "server.tls.acme.directory: is missing", "directory = \"https://"),
        ("acme = {}", "server.tls.acme.names: is missing", "shop.example.com"),
        ("acme = { directory = 'http://a' }", "server.tls.acme.directory: ", "https://"),
        ("acme = { directory = 'https://u@a' }", "server.tls.acme.directory: ", "https://"),
        (
            "acme = { names = [['*.a.b']] }",
            "server.tls.acme.names[0]: \"*.a.b\" is a wildcard",
            "server.tls.certificates",
        ),
        ("acme = { names = ['10.0.0.1'] }", "server.tls.acme.names[0]: ", "write a name"),
        ("acme = { names = ['a_b.c'] }", "server.tls.acme.names[0]: ", "xn--"),
        (
            "acme = { names = ['a.b', ['c.d', 'A.B']] }",
            "server.tls.acme.names: \"a.b\" stands",
            "once",
        ),
        ("acme = { names = [[]] }", "server.tls.acme.names[0]: has 0 names", "1 to 100"),
        ("acme = { contact = 'ops' }", "server.tls.acme.contact: ", "ops@example.com"),
        ("acme = { challenges = ['dns-01'] }", "server.tls.acme.challenges[0]: ", "http-01"),
        ("certificate = []", "server.tls.certificate: unknown key", "`certificates`"),
    ] {
        let loaded = read(&format!("[server.tls]\n{line}\n"));
        let report = loaded.source.render(&loaded.problems);
        let place = report.find(path).unwrap_or_else(|| panic!("{line}: {report}"));
        let help = report[place..].split_once("help: ").unwrap().1;
        let help = help.lines().next().unwrap();
        assert!(help.contains(remedy), "{line}: {report}");
    }
}

#[test]
fn a_certificate_may_ask_its_clients_for_more_or_less_than_the_others() {
    let text = b"[server.tls]
        client_ca = 'a.pem'
        certificates = [
            { cert = 'c', key = 'k' },
            { cert = 'c', key = 'k', client_auth = 'off' },
            { cert = 'c', key = 'k', client_auth = 'optional', client_ca = 'b.pem' },
        ]";
    let folder = Folder::with(&[
        ("c", b"x"),
        ("k", b"x"),
        ("a.pem", b"a"),
        ("b.pem", b"b"),
        ("gateway.toml", text),
    ]);
    let loaded = load(&folder.0.join("gateway.toml")).unwrap();
    assert_eq!(
        loaded.source.render(&loaded.problems),
        "0 problems in {}\n".replace("{}", &folder.0.join("gateway.toml").display().to_string())
    );
    let tls = loaded.config.server.tls.unwrap();
    let asked = tls.certificates.iter().map(|certificate| {
        let client = certificate.policy.client.as_ref()?;
        Some((client.is_required, client.ca.content.expose()))
    });
    let asked: Vec<_> = asked.collect();
    assert_eq!(asked, [Some((true, &b"a"[..])), None, Some((false, &b"b"[..]))]);
    assert!(!format!("{tls:?}").contains("\"x\""), "no key is printed");
}
