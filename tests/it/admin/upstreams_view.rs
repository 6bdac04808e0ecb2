//! What operators are told of upstreams: who takes how much, how full it is, and how long it takes.

use std::io::Write as _;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Client, Gateway, Session, Upstream, eventually, eventually_within, operate, response,
};

fn shop(gateway: &Gateway) -> Value {
    operate(gateway, "GET", "/v1/upstreams", "").json()["upstreams"]["shop"].clone()
}

#[test]
fn each_server_says_how_much_it_took_and_what_failed() {
    let good = Upstream::replying(response("200 OK", "hello"));
    let bad = Upstream::replying(response("500 Internal Server Error", "no"));
    let servers = format!("servers = [\"{}\", \"{}\"]", good.url(), bad.url());
    let gateway = Gateway::start(&format!(
        "[upstreams.shop]\n{servers}\n[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n"
    ));
    let none = shop(&gateway);
    assert_eq!((&none["p99_s"], &none["waiting"]), (&Value::Null, &json!(0)));
    assert_eq!((&none["can_change"], &none["in_flight"][0]), (&json!(true), &json!(0)));
    assert_eq!([0, 1].map(|at| none["servers"][at]["requests"].clone()), [json!(0), json!(0)]);
    // A POST is sent once.
    let statuses = (0..8).map(|_| Client::request(gateway.public, "POST", "/").send().status);
    let failed = statuses.filter(|status| *status == 500).count();
    assert!((1..8).contains(&failed), "both take some: {failed}");
    let requests = |at: usize| shop(&gateway)["servers"][at]["requests"].clone();
    eventually("all are counted", || {
        (requests(0), requests(1)) == (json!(8 - failed), json!(failed))
    });
    let told = shop(&gateway);
    assert_eq!(told["servers"][0]["errors"]["status_5xx"], 0);
    assert_eq!(told["servers"][1]["errors"]["status_5xx"], failed);
    // It is summed up each ten seconds.
    eventually_within(Duration::from_secs(60), "the slowest hundredth is known", || {
        Client::get(gateway.public, "/").send();
        shop(&gateway)["p99_s"].as_f64().is_some_and(|p99| p99 > 0.0)
    });
}

#[test]
fn a_full_upstream_says_who_waits_and_for_what() {
    let gate = Arc::new(Barrier::new(2));
    let inside = Arc::clone(&gate);
    let upstream = Upstream::with(move |_, connection| {
        inside.wait();
        let _ = connection.write_all(response("200 OK", "ok").as_bytes());
    });
    let gateway = Gateway::start(&format!(
        "{}max_connections = 1\nconnect_timeout = \"60s\"\n[routes.all]\npath = \"/*\"\n\
         upstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let ask = || {
        let mut session = Session::open(gateway.public);
        session.write("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        session
    };
    let mut first = ask();
    eventually("it is forwarded", || upstream.seen() == 1);
    let mut second = ask();
    eventually("it waits", || shop(&gateway)["waiting"] == 1);
    let told = shop(&gateway);
    assert_eq!((&told["in_flight"], &told["connections"]), (&json!([1, 1]), &json!([1, 1])));
    assert_eq!(told["connections_used"], 1);
    // There is no other server that could take its share.
    assert_eq!(told["can_change"], false);
    gate.wait();
    assert_eq!(first.read().status, 200);
    gate.wait();
    assert_eq!(second.read().status, 200);
    eventually("nobody waits", || shop(&gateway)["waiting"] == 0);
    eventually("what is open is at rest", || {
        let told = shop(&gateway);
        (&told["connections"][0], &told["connections_used"]) == (&json!(1), &json!(0))
    });
}
