//! One gateway: how a certificate comes, and what clients see until then.

use super::{LONG, Node, SECRET, key};
use crate::support::tls::exchange;
use crate::support::{Client, Folder, Gateway, Pebble, Redis, operate, run};

#[test]
fn a_certificate_comes_by_http() {
    let pebble = Pebble::start(LONG);
    let node = Node::alone(&pebble, "[['a.test', 'b.test']]", "challenges = ['http-01']");
    let client = pebble.client();
    let certificate = node.shows(&client, "a.test");
    assert_eq!(node.shows(&client, "b.test"), certificate, "one for both names");
    let answer = client.get(node.tls, "A.TEST", "/", "").unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    assert_eq!((pebble.orders(), pebble.accounts()), (1, 1));
    node.counts("portcullis_acme_orders_total", "issued", 1.0);
    let listed = operate(&node.gateway, "GET", "/v1/certificates", "").json();
    let listed = &listed["certificates"];
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed[0]["names"], serde_json::json!(["a.test", "b.test"]));
    assert_eq!((&listed[0]["source"], listed[0]["not_after"].is_string()), (&"acme".into(), true));
    for state in ["due", "leased", "ordered", "answered", "issued", "fresh"] {
        node.says(&format!("state=\"{state}\""));
    }
}

#[test]
fn a_certificate_comes_by_a_handshake() {
    let pebble = Pebble::start(LONG);
    let node = Node::alone(&pebble, "['a.test']", "challenges = ['tls-alpn-01']");
    node.connects(&pebble.client(), "a.test");
    node.counts("portcullis_tls_handshakes_total", "acme_challenge", 1.0);
    // Whoever else offers that protocol alone, and nothing is to be proved, gets no certificate.
    for name in ["a.test", "other.test"] {
        let prober = pebble.client_offering(&["acme-tls/1"]);
        assert!(prober.connect(node.tls, name).is_err(), "{name}");
    }
    // Beside others it means nothing.
    let both = pebble.client_offering(&["acme-tls/1", "http/1.1"]);
    assert!(both.connect(node.tls, "a.test").is_ok());
}

#[test]
fn what_did_not_succeed_in_one_way_does_in_the_other() {
    let pebble = Pebble::start(LONG);
    let node = Node::start(
        &pebble,
        "['a.test']",
        // What failed does not count.
        ["", "challenges = ['tls-alpn-01', 'http-01']\nretry = '1s'\nsame_orders = '1/1h'", ""],
    );
    // A firewall lets only port 80 through.
    pebble.tls.to(&[]);
    pebble.http.to(&[node.clear]);
    node.connects(&pebble.client(), "a.test");
    node.counts("portcullis_acme_orders_total", "unproved", 1.0);
    node.says("could not see that a.test is ours");
}

#[test]
fn until_the_certificate_comes_handshakes_fail_and_clear_http_works() {
    let pebble = Pebble::start(LONG);
    pebble.be_away(true);
    let acme = "challenges = ['http-01']\nretry = '1s'\ncheck = '1s'";
    let node = Node::alone(&pebble, "['a.test']", acme);
    let client = pebble.client();
    for name in ["a.test", "A.test"] {
        let failed = client.connect(node.tls, name).unwrap_err();
        assert!(failed.contains("UnrecognisedName"), "{failed}");
    }
    node.counts("portcullis_tls_handshakes_total", "no_certificate_yet", 2.0);
    assert_eq!(node.gateway.stderr().matches("has not come yet").count(), 1, "said once");
    assert_eq!(Client::get(node.clear, "/").send().status, 200);
    node.says("a certificate by ACME was not issued: the authority: ");
    pebble.be_away(false);
    node.connects(&client, "a.test");
}

#[test]
fn a_token_of_nobody_here_is_a_request_like_any_other() {
    let pebble = Pebble::start(LONG);
    let node = Node::alone(&pebble, "['a.test']", "challenges = ['http-01']");
    node.connects(&pebble.client(), "a.test");
    let path = format!("/.well-known/acme-challenge/{}", "x".repeat(43));
    for path in [&*path, "/.well-known/acme-challenge/short", "/.well-known/acme-challenge/"] {
        let reply = Client::get(node.clear, path).send();
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"), "{path}");
    }
}

#[test]
fn tokens_are_looked_for_only_where_they_are_used() {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    pebble.be_away(true);
    let token = "x".repeat(43);
    for (challenges, answer) in
        [("http-01", format!("{token}.print")), ("tls-alpn-01", "hello".into())]
    {
        let acme = format!("challenges = ['{challenges}']");
        let node = Node::of_fleet(&pebble, &redis.url(), "['a.test']", &acme);
        let place = key(&format!("answer:{token}"));
        redis.cli(&["SET", &place, &format!("{token}.print"), "EX", "600"]);
        let path = format!("/.well-known/acme-challenge/{token}");
        assert_eq!(Client::get(node.clear, &path).send().text(), answer, "{challenges}");
    }
}

#[test]
fn the_authority_is_answered_before_redirects_and_limits() {
    let pebble = Pebble::start(LONG);
    let more = "[limits.none]\nkey = [\"address\"]\nallow = [\"1/1h\"]\n\
                [routes.guarded]\npath = \"/.well-known/*\"\nupstream = \"shop\"\n\
                limits = [\"none\"]";
    let acme = "challenges = ['http-01']";
    let node = Node::start(&pebble, "['a.test']", ["redirect = true", acme, more]);
    let reply = Client::get(node.clear, "/").header("Host", "a.test").send();
    assert_eq!(reply.status, 308);
    pebble.http.to(&[node.clear]);
    node.connects(&pebble.client(), "a.test");
}

#[test]
fn what_the_fleet_may_order_is_counted_before_the_authority_is_asked() {
    let pebble = Pebble::start(1);
    // It is due again at once, and again.
    let acme = "same_orders = '2/1h'\nretry = '1s'\nchallenges = ['http-01']";
    let node = Node::alone(&pebble, "['a.test']", acme);
    node.says("server.tls.acme.same_orders is used up");
    node.counts("portcullis_acme_orders_total", "over_budget", 2.0);
    assert_eq!(pebble.orders(), 2);
}

#[test]
fn an_order_that_may_stand_with_the_authority_counts() {
    let pebble = Pebble::start(LONG);
    pebble.hold("order-plz");
    let acme = "same_orders = '1/1h'\nretry = '1s'\ntimeout = '2s'\nchallenges = ['http-01']";
    let node = Node::alone(&pebble, "['a.test']", acme);
    pebble.is_holding("order-plz");
    node.says("no whole answer within server.tls.acme.timeout");
    node.says("server.tls.acme.same_orders is used up");
    assert_eq!(pebble.orders(), 1);
}

#[test]
fn a_gateway_alone_keeps_its_certificates_in_a_folder() {
    let pebble = Pebble::start(LONG);
    let kept = Folder::new();
    let place = kept.path().join("acme");
    let acme = format!("folder = \"{}\"", place.display());
    let client = pebble.client();
    let certificate = Node::alone(&pebble, "['a.test']", &acme).shows(&client, "a.test");
    let again = Node::alone(&pebble, "['a.test']", &acme);
    assert_eq!(again.shows(&client, "a.test"), certificate);
    assert_eq!((pebble.orders(), pebble.accounts()), (1, 1));
    use std::os::unix::fs::PermissionsExt as _;
    for name in ["cert-a.test.json", "account.json"] {
        let file = place.join(name);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("\"key\":\"aes-256-gcm:"), "{text}");
    }
}

#[test]
fn a_file_goes_before_an_ordered_certificate() {
    let pebble = Pebble::start(LONG);
    let folder = Folder::new();
    let own = pebble.authority.issue(&["b.test"]);
    folder.write("b.pem", &own.cert);
    folder.write("b.key", &own.key);
    let place = |name: &str| folder.path().join(name).display().to_string();
    let tls =
        format!("certificates = [{{ cert = '{}', key = '{}' }}]", place("b.pem"), place("b.key"));
    let node = Node::start(&pebble, "[['a.test', 'b.test']]", [&tls, "", ""]);
    pebble.tls.to(&[node.tls]);
    node.connects(&pebble.client(), "a.test");
    let own = crate::support::TlsClient::new(&pebble.authority);
    let mut stream = own.connect(node.tls, "b.test").unwrap();
    let get = crate::support::tls::get("b.test", "/", "Connection: close\r\n");
    assert!(exchange(&mut stream, &get).unwrap().ends_with("hello"));
}

#[test]
fn check_says_what_cannot_be_ordered() {
    let tls = |more: &str, acme: &str, store: &str| {
        let folder = Folder::new();
        folder.write(
            "gateway.toml",
            format!(
                "[server]\nlisten = [\"127.0.0.1:0\"]\n[server.tls]\n{more}\n\
                 [server.tls.acme]\ndirectory = \"https://ca.test/dir\"\nnames = [\"a.test\"]\n\
                 {acme}\n[store]\nurl = \"{store}\"\n[upstreams.u]\n\
                 servers = [\"http://127.0.0.1:1\"]\n[routes.r]\nhost = \"a.test\"\n\
                 path = \"/*\"\nupstream = \"u\"\n"
            ),
        );
        run(&folder, &["check", "--config", "gateway.toml"])
    };
    let refused = tls("", "challenges = [\"http-01\"]", "redis://127.0.0.1:1");
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("server.tls.acme.challenges: http-01"), "{}", refused.stderr);
    assert!(refused.stderr.contains("server.tls.secret: private keys"), "{}", refused.stderr);
    let good = tls(SECRET, "", "memory:");
    assert_eq!(good.code, Some(0), "{}", good.stderr);
    assert!(good.stderr.contains("add folder = \"acme\""), "{}", good.stderr);
    assert!(good.stdout.contains("a.test: ordered from https://ca.test/dir"), "{}", good.stdout);
    assert!(!good.stderr.contains("no certificate is for a.test"), "{}", good.stderr);
    let refused = Gateway::try_start("[server.tls.acme]\nnames = ['*.a.test']\n");
    assert!(refused.stderr.contains("is a wildcard, which takes DNS-01"), "{}", refused.stderr);
}

#[test]
fn clients_of_an_ordered_name_may_have_to_show_certificates() {
    let pebble = Pebble::start(LONG);
    let tls = "client_ca = 'ca.pem'\nclient_auth = 'required'";
    let node = Node::start(&pebble, "['a.test']", [tls, "challenges = ['tls-alpn-01']", ""]);
    // The authority shows none, and is answered.
    pebble.tls.to(&[node.tls]);
    let own = pebble.authority.client("ann");
    let ann = pebble.client_showing(&own);
    let mut stream = node.connects(&ann, "a.test");
    let get = crate::support::tls::get("a.test", "/", "Connection: close\r\n");
    assert!(exchange(&mut stream, &get).unwrap().ends_with("hello"));
    let refused = pebble.client().get(node.tls, "a.test", "/", "").unwrap_err();
    assert!(refused.contains("CertificateRequired"), "{refused}");
}
