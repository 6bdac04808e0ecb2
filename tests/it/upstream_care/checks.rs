//! Active checks of servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use super::{Server, before, get, is_out, told};
use crate::support::grpc_upstream::{GRPC, OK, Step, message};
use crate::support::{
    Act, Authority, Client, Folder, Gateway, Http2Upstream, Upstream, eventually, operate, response,
};

const FAST: &str = "health = { path = \"/health?a=b\", interval = \"300ms\", timeout = \"300ms\" }";

#[test]
fn the_first_answer_counts_before_the_first_request() {
    let (bad, good) = (Server::new(503), Server::new(204));
    let gateway = before(&[&bad, &good], "panic = \"0%\"\nhealth = { path = \"/health?a=b\" }");
    let asked = bad.upstream.recorded().remove(0);
    assert!(asked.head.starts_with("GET /health?a=b HTTP/1.1\r\n"), "{}", asked.head);
    let host = bad.url().trim_start_matches("http://").to_owned();
    assert!(asked.head.to_lowercase().contains(&format!("host: {host}")), "{}", asked.head);
    assert!(is_out(&gateway, &bad) && !is_out(&gateway, &good));
    assert_eq!(told(&gateway, &bad)["reasons"], json!(["down"]));
    assert_eq!(told(&gateway, &bad)["check"], "it answered with status 503");
    for _ in 0..10 {
        assert_eq!(get(&gateway), 204);
    }
    let asked = |server: &Server| {
        server.upstream.recorded().iter().filter(|it| it.head.starts_with("GET / ")).count()
    };
    assert_eq!((asked(&bad), asked(&good)), (0, 10));
    // Nobody's requests: they leave no line.
    eventually("all have lines", || gateway.access_lines().len() == 10);
}

#[test]
fn a_server_goes_down_and_comes_back_by_its_checks() {
    let (one, other) = (Server::new(200), Server::new(200));
    let gateway = before(&[&one, &other], FAST);
    one.now(404);
    eventually("it is down", || {
        get(&gateway);
        is_out(&gateway, &one)
    });
    eventually("it is logged", || {
        gateway.stderr().contains("is out: its checks fail: it answered with status 404")
    });
    for _ in 0..10 {
        assert_eq!(get(&gateway), 200);
    }
    one.now(200);
    eventually("it is back", || {
        get(&gateway);
        !is_out(&gateway, &one)
    });
    eventually("it is logged", || gateway.stderr().contains("is back: its checks go well"));
    // What hangs and what is gone is down, too.
    one.now(super::HANGS);
    eventually("it is down", || is_out(&gateway, &one));
}

#[test]
fn where_all_are_down_the_answer_says_so_or_all_are_used() {
    let (one, other) = (Server::new(503), Server::new(503));
    let gateway = before(&[&one, &other], &format!("panic = \"0%\"\n{FAST}"));
    let refused = Client::get(gateway.public, "/").send();
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["type"], "urn:portcullis:problem:upstream_unavailable");
    eventually("it is logged", || gateway.access_lines().len() == 1);
    assert_eq!(gateway.access_lines()[0]["reason"], "upstream_unavailable");
    let panicking = before(&[&one, &other], FAST);
    let reply = Client::get(panicking.public, "/").send();
    assert_eq!((reply.status, reply.text().as_str()), (503, "told"));
    let all = operate(&panicking, "GET", "/v1/upstreams", "").json();
    assert_eq!(all["upstreams"]["shop"]["panic"], true);
}

/// What a server says of itself ends an ejection only where it is believed.
#[test]
fn a_good_check_ends_an_ejection_where_it_is_trusted() {
    for trusted in [true, false] {
        let checks = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&checks);
        let erring = Upstream::with(move |request, connection| {
            let is_check = request.target() == "/health";
            counted.fetch_add(usize::from(is_check), Ordering::SeqCst);
            super::answer(if is_check { 200 } else { 500 }, connection);
        });
        let good = Upstream::replying(response("200 OK", "fine"));
        let gateway = Gateway::start(&format!(
            "[upstreams.shop]\nservers = [{:?}, {:?}]\nbalance = \"round-robin\"\n\
             health = {{ path = \"/health\", interval = \"300ms\", timeout = \"300ms\", \
             trusted = {trusted} }}\neject = {{ failures = 1, time = \"1h\" }}\n\
             [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
            erring.url(),
            good.url()
        ));
        let state = || {
            let all = operate(&gateway, "GET", "/v1/upstreams", "").json();
            all["upstreams"]["shop"]["servers"][0]["state"].clone()
        };
        let statuses = [get(&gateway), get(&gateway)];
        assert!(statuses.contains(&500), "{statuses:?}");
        if trusted {
            eventually("it is back", || state() == "in");
        } else {
            let before = checks.load(Ordering::SeqCst);
            eventually("it is asked", || checks.load(Ordering::SeqCst) > before + 2);
            assert_eq!(state(), "out");
        }
    }
}

#[test]
fn the_health_check_of_grpc_is_asked() {
    let is_serving = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&is_serving);
    let upstream = Http2Upstream::new(move |head| {
        if head.uri().path() != "/grpc.health.v1.Health/Check" {
            return Act::Answer(Bytes::from_static(b"fine"));
        }
        let said: &[u8] = if shared.load(Ordering::SeqCst) { &[8, 1] } else { &[8, 2] };
        Act::Play(vec![Step::Read, GRPC, Step::Data(message(said)), OK])
    });
    let gateway = Gateway::start(&format!(
        "[upstreams.shop]\nservers = [{:?}]\nprotocol = \"h2\"\npanic = \"0%\"\n\
         health = {{ grpc = \"shop.Orders\", interval = \"300ms\", timeout = \"300ms\" }}\n\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        upstream.url()
    ));
    assert_eq!(get(&gateway), 503);
    let asked = upstream.asked().remove(0);
    assert_eq!(
        (asked.method.as_str(), &asked.headers["te"]),
        ("POST", &"trailers".parse().unwrap())
    );
    assert_eq!(asked.body, b"\0\0\0\0\x0D\x0A\x0Bshop.Orders");
    eventually("it is logged", || {
        gateway.stderr().contains("its checks fail: it says that it does not serve")
    });
    is_serving.store(true, Ordering::SeqCst);
    eventually("it serves", || get(&gateway) == 200);
}

/// In the upstream's protocol, and with its authorities: another one is not believed.
#[test]
fn checks_are_made_under_the_upstreams_tls() {
    let (authority, other) = (Authority::new(), Authority::new());
    let certificate = authority.certificate(&["localhost"]);
    let server = certificate.server(&[&TLS13, &TLS12], None);
    let upstream =
        Http2Upstream::with(Some(server), 100, |_| Act::Answer(Bytes::from_static(b"fine")));
    for (believed, protocol, expected) in
        [(&authority, "h2", 200), (&authority, "auto", 200), (&other, "h2", 503)]
    {
        let folder = Folder::new();
        folder.write("ca.pem", believed.pem());
        let gateway = Gateway::start_in(
            folder,
            &format!(
                "[upstreams.shop]\nservers = [{:?}]\nprotocol = \"{protocol}\"\npanic = \"0%\"\n\
                 tls = {{ ca_file = \"ca.pem\" }}\nhealth = {{ path = \"/health\" }}\n\
                 [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
                upstream.url()
            ),
        );
        assert_eq!(get(&gateway), expected, "{protocol}");
        let is_unknown = gateway.stderr().contains("invalid peer certificate: UnknownIssuer");
        assert_eq!(is_unknown, expected == 503, "{}", gateway.stderr());
    }
    let paths: Vec<String> = upstream.asked().into_iter().map(|asked| asked.uri).collect();
    assert_eq!(paths.iter().filter(|uri| uri.ends_with("/health")).count(), 2, "{paths:?}");
}
