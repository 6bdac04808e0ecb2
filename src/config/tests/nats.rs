//! One problem per mistake in what is said of upstreams over NATS, and of routes to them.

use super::read;
use crate::config::Packet;

/// A seed of a user.
const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";

/// What stands in an upstream, what is wrong with it, and what the remedy shows.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("nats = []", "is an empty list", "at least one"),
    ("nats = ['http://a:4222']", "is no server of NATS", "nats://127.0.0.1:4222"),
    ("nats = ['nats://a:b']", "is no server of NATS", "nats://127.0.0.1:4222"),
    ("nats = ['nats://ann:secret@a']", "a password inside the url", "username"),
    ("nats = ['nats://a', 'tls://b']", "in clear and under TLS", "before each"),
    ("nats = ['nats://a']\npacket = 'json'", "is not a choice", "plain"),
    ("nats = ['nats://a']\nusername = 'x'", "of no use without password", "add password"),
    ("nats = ['nats://a']\npassword = 'x'", "of no use without username", "add username"),
    (
        "nats = ['nats://a']\nusername = 'x'\npassword = 'y'\ntoken = 'z'",
        "beside username",
        "keep one",
    ),
    ("nats = ['nats://a']\n[upstreams.u.tls]", "no server of this upstream is tls://", "tls://"),
    (
        "nats = ['tls://a']\n[upstreams.u.tls]\nserver_name = 'b'",
        "no meaning beside nats",
        "the host of its url",
    ),
    ("servers = ['http://a']\npacket = 'nest'", "upstreams over NATS", "add nats"),
    ("servers = ['http://a']\ntoken = 'x'", "upstreams over NATS", "add nats"),
    ("servers = ['http://a']\nnkey = 'SEED'", "upstreams over NATS", "add nats"),
    ("nats = ['nats://a']\nnkey = 'SUsecret'", "is no seed of NATS", "nk -gen user"),
    ("nats = ['nats://a']\nnkey = 'Usecret'", "a public key in place", "nk -gen user"),
    ("nats = ['nats://a']\ncreds = 'secret'", "no credential file", "nsc generate creds"),
    ("nats = ['nats://a']\ntoken = 'x'\nnkey = 'SEED'", "is beside token", "keep one"),
];

#[test]
fn each_mistake_gives_one_problem_with_its_remedy() {
    for (lines, what, remedy) in MISTAKES.iter().copied() {
        let lines = lines.replace("SEED", SEED);
        let text = "[routes.r]\npath = '/'\nupstream = 'u'\nsubject = 's'\n[upstreams.u]\n";
        let loaded = read(&format!("{text}{lines}"));
        let report = loaded.source.render(&loaded.problems);
        assert_eq!(loaded.problems.len(), 1, "{lines}: {report}");
        let (head, help) = report.split_once("help: ").unwrap();
        assert!(head.contains(what), "{lines}: {report}");
        assert!(help.contains(remedy), "{lines}: {report}");
        assert!(!report.contains("secret"), "{report}");
    }
}

#[test]
fn what_is_about_http_or_about_several_servers_has_no_meaning_beside_nats() {
    for key in [
        "servers = ['http://a']",
        "readers = ['http://a']",
        "protocol = 'h2'",
        "balance = 'ewma'",
        "dns_refresh = '9s'",
        "dns_stale = '9s'",
        "dns_servers = ['192.0.2.1:53']",
        "continue_timeout = '9s'",
        "read_timeout = '9s'",
        "idle_timeout = '9s'",
        "max_requests = 9",
        "paths = ['any-case']",
        "fail_timeout = '9s'",
        "health = { path = '/' }",
        "eject = {}",
        "slow_start = '9s'",
        "panic = '9%'",
        "retry = {}\nhedge = 'p95'",
        "header_bytes = '9KiB'",
        "headers = 9",
    ] {
        let loaded = read(&format!("[upstreams.u]\nnats = ['nats://a']\n{key}"));
        let report = loaded.source.render(&loaded.problems);
        assert!(report.contains("has no meaning beside nats"), "{key}: {report}");
    }
}

#[test]
fn an_upstream_over_nats_has_what_is_written_and_defaults_of_its_own() {
    let loaded = read(
        "[upstreams.u]\nnats = ['nats://a', 'nats://[::1]:7']\npacket = 'nest'\n\
         username = 'x'\npassword = 'env:SET'\nretry = {}\nbreaker = {}\nclient_share = 9\n",
    );
    assert!(loaded.problems.is_empty(), "{}", loaded.source.render(&loaded.problems));
    let upstream = &loaded.config.upstreams["u"];
    let nats = upstream.nats.as_ref().unwrap();
    let urls: Vec<_> = nats.servers.iter().map(|server| server.url()).collect();
    assert_eq!(urls, ["nats://a:4222", "nats://[::1]:7"]);
    assert_eq!(nats.packet, Packet::Nest);
    assert_eq!(nats.password.as_ref().unwrap().expose(), b"correct horse");
    assert_eq!((upstream.max_connections, upstream.max_requests), (1024, 1024));
    assert!(upstream.continue_timeout.is_zero() && upstream.tls.is_none());
    let seed = read(&format!("[upstreams.u]\nnats = ['nats://a']\nnkey = '{SEED}'"));
    let key = seed.config.upstreams["u"].nats.as_ref().unwrap().key.as_ref().unwrap();
    assert!(key.key.public().starts_with("UDXU4RCS") && key.jwt.is_none());
    let loaded = read("[upstreams.u]\nnats = ['tls://a']");
    assert!(loaded.config.upstreams["u"].tls.is_some());
}
