//! A collector that is dead, silent or busy costs spans and nothing else.

use std::io::Read;
use std::net::TcpStream;

use crate::support::{
    Client, Collector, Exposition, Gateway, Session, Upstream, eventually, response,
};

fn before(traces: &str, more: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let route = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n[log]\naccess = \"off\"\n";
    let gateway = Gateway::start(&[more, &*upstream.table("shop"), traces, route].concat());
    (gateway, upstream)
}

fn table(url: &str) -> String {
    format!("[telemetry.traces]\nendpoint = \"{url}\"\nsample = \"100%\"\n")
}

/// How many spans have come to this.
fn spans(gateway: &Gateway, result: &str) -> f64 {
    let metrics = Exposition::text(&Client::get(gateway.admin, "/metrics").send().text());
    let name = "portcullis_trace_spans_total";
    metrics.value(name, &[("result", result)]).expect("a series of each result")
}

#[test]
fn a_dead_collector_is_told_of_once_and_each_span_counts_as_failed() {
    // Whoever connects is hung up on.
    let dead = Upstream::raw(drop);
    let (gateway, _upstream) = before(&table(&dead.url()), "");
    for batch in 1..=2 {
        assert_eq!(Client::get(gateway.public, "/").send().status, 200);
        let all = f64::from(2 * batch);
        eventually("the batch has failed", || spans(&gateway, "failed") == all);
    }
    assert_eq!((spans(&gateway, "exported"), spans(&gateway, "dropped")), (0.0, 0.0));
    assert_eq!(gateway.stderr().matches("spans cannot be exported").count(), 1);
}

#[test]
fn a_silent_collector_holds_up_nobody_and_what_has_no_room_is_dropped() {
    let silent = Upstream::raw(|mut stream: TcpStream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (mut gateway, _upstream) = before(&table(&silent.url()), "[server]\ndrain = \"10s\"\n");
    let mut session = Session::open(gateway.public);
    // Two spans each: more than a batch and the queue hold.
    for _ in 0..(512 + 4096) / 2 + 100 {
        assert_eq!(session.get("/").send().status, 200);
    }
    eventually("what finds no room is dropped", || spans(&gateway, "dropped") > 0.0);
    drop(session);
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    let log = gateway.stderr();
    assert!(log.contains("spans were lost"), "{log}");
}

#[test]
fn a_busy_collector_is_asked_again_when_it_says() {
    let busy = "503 Service Unavailable\r\nRetry-After: 0";
    let collector = Collector::refusing(2, busy);
    let (gateway, _upstream) = before(&collector.table("sample = \"100%\""), "");
    Client::get(gateway.public, "/").send();
    eventually("the spans are taken", || spans(&gateway, "exported") == 2.0);
    assert_eq!((collector.refuses(), collector.server().seen()), (0, 3));
    assert_eq!((spans(&gateway, "failed"), spans(&gateway, "dropped")), (0.0, 0.0));
    let bodies: Vec<_> = collector.server().recorded().into_iter().map(|it| it.body).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

#[test]
fn what_the_collector_will_never_take_is_not_sent_again() {
    let collector = Collector::refusing(1, "400 Bad Request");
    let (gateway, _upstream) = before(&collector.table("sample = \"100%\""), "");
    Client::get(gateway.public, "/").send();
    eventually("the spans have failed", || spans(&gateway, "failed") == 2.0);
    assert_eq!(collector.server().seen(), 1);
}

#[test]
fn the_end_sends_what_waits_and_says_who_sends() {
    let collector = Collector::start();
    let headers = "sample = \"100%\"\nheaders = { authorization = \"Bearer open\" }";
    let (mut gateway, _upstream) = before(&collector.table(headers), "");
    Client::get(gateway.public, "/").send();
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    collector.wait_for(2);
    let request = collector.server().only();
    assert_eq!(request.request_line(), "POST /v1/traces HTTP/1.1");
    assert_eq!(request.header("authorization"), Some("Bearer open"));
    assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(request.header("traceparent"), None, "exports are never traced");
    assert_eq!(request.header("host"), Some(&*collector.server().address().to_string()));
}

#[test]
fn a_reload_turns_traces_on_and_off_and_elsewhere() {
    let (former, next) = (Collector::start(), Collector::start());
    let (gateway, upstream) = before("", "");
    let metrics = || Client::get(gateway.admin, "/metrics").send().text();
    assert!(!metrics().contains("trace_spans"), "nothing is exported");
    let route = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n[log]\naccess = \"off\"\n";
    let mut asked = 0;
    for traces in
        [former.table("sample = \"100%\""), next.table("sample = \"100%\""), String::new()]
    {
        gateway.rewrite(&[&*upstream.table("shop"), &traces, route].concat());
        let reloads = gateway.stderr().matches("was reloaded: telemetry").count();
        gateway.signal("HUP");
        eventually("the reload is in force", || {
            gateway.stderr().matches("was reloaded: telemetry").count() > reloads
        });
        Client::get(gateway.public, "/").send();
        asked += 1;
        assert_eq!(upstream.seen(), asked);
    }
    assert_eq!((former.wait_for(2).len(), next.wait_for(2).len()), (2, 2));
    let sent = upstream.recorded();
    let flags = |it: &crate::support::Recorded| it.header("traceparent").unwrap()[53..].to_owned();
    assert_eq!(sent.iter().map(flags).collect::<Vec<_>>(), ["01", "01", "00"]);
}
