//! What holds for any upstream holds for one over NATS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{code, route, upstream};
use crate::support::{
    Client, Collector, Exposition, Gateway, Nats, Said, Service, eventually, operate, said,
};

fn status(code: &str) -> Vec<Said> {
    vec![(vec![("Nats-Service-Error-Code", code.to_owned())], b"no".to_vec())]
}

#[test]
fn what_is_cached_is_asked_for_once_and_what_is_over_a_limit_not_at_all() {
    let nats = Nats::start();
    let service = Service::answering(&nats, "orders.get", |_| vec![said("one")]);
    let config = "[limits.few]\nkey = [\"address\"]\nallow = [\"3/1h\"]\n".to_owned()
        + &upstream(&nats, "")
        + &route("/*", "orders.get")
        + "cache = { ttl = \"1h\" }\nlimits = [\"few\"]\n";
    let gateway = Gateway::start(&config);
    let get = || Client::get(gateway.public, "/a").send();
    for what in ["miss", "hit", "hit"] {
        let reply = get();
        assert_eq!((reply.status, &*reply.text()), (200, "one"));
        let cache = reply.header("cache-status").expect("Cache-Status").to_owned();
        assert_eq!(cache.contains("; hit"), what == "hit", "{cache}");
    }
    assert_eq!((get().status, service.count()), (429, 1));
}

#[test]
fn retries_and_the_breaker_know_it() {
    let nats = Nats::start();
    let count = Arc::<AtomicUsize>::default();
    let counting = Arc::clone(&count);
    let service = Service::answering(&nats, "orders.*", move |asked| {
        match (&*asked.subject, counting.fetch_add(1, Ordering::SeqCst)) {
            ("orders.twice", 0) => status("503"),
            ("orders.never", _) => status("500"),
            _ => vec![said("fine")],
        }
    });
    let again = "[upstreams.orders.retry]\non = [\"503\"]\nbackoff = \"1ms\"\n";
    let breaker = upstream(&nats, "breaker = { requests = 2, open = \"1h\" }")
        .replace("orders]", "broken]")
        + "[routes.broken]\npath = \"/never\"\nupstream = \"broken\"\nsubject = \"orders.never\"\n";
    let config = upstream(&nats, again) + &breaker + &route("/{what}", "orders.{what}");
    let gateway = Gateway::start(&config);
    let ask = |path: &str| Client::get(gateway.public, path).send();
    assert_eq!((ask("/twice").text().as_str(), service.count()), ("fine", 2));
    eventually("the breaker opens", || {
        let reply = ask("/never");
        reply.status == 503 && code(&reply) == "upstream_open"
    });
    let line = || gateway.access_lines().into_iter().find(|line| line["path"] == "/twice");
    eventually("the line is written", || line().is_some());
    let line = line().expect("a line");
    let told = serde_json::to_string(&line).expect("JSON");
    assert!(told.contains(&nats.url()) && line["upstream"] == "orders", "{told}");
}

#[test]
fn a_subject_that_nobody_listens_to_closes_no_other() {
    let nats = Nats::start();
    let _service = Service::answering(&nats, "orders.get", |_| vec![said("fine")]);
    let config = upstream(&nats, "breaker = { requests = 2, open = \"1h\" }")
        + &route("/{what}", "orders.{what}");
    let gateway = Gateway::start(&config);
    let ask = |path: &str| Client::get(gateway.public, path).send();
    for _ in 0..20 {
        assert_eq!(code(&ask("/nobody")), "upstream_no_responders");
    }
    assert_eq!(ask("/get").text(), "fine");
}

#[test]
fn a_request_that_nobody_has_read_is_sent_again_whatever_it_is() {
    let nats = Nats::start();
    let more = "[upstreams.orders.retry]\nattempts = 10\non = [\"connect\"]\nbackoff = \"100ms\"\n";
    let gateway = Gateway::start(&(upstream(&nats, more) + &route("/*", "orders.put")));
    let public = gateway.public;
    let left = || {
        let read = Exposition::text(&Client::get(gateway.admin, "/metrics").send().text());
        let labels = [("upstream", "orders")];
        read.value("portcullis_upstream_retry_budget_left", &labels).expect("a budget")
    };
    let whole = left();
    let waiting =
        std::thread::spawn(move || Client::request(public, "POST", "/").body("an order").send());
    eventually("nobody has listened", || left() < whole);
    let service = Service::answering(&nats, "orders.put", |asked| vec![said(&asked.payload)]);
    let reply = waiting.join().expect("a reply");
    assert_eq!((reply.status, &*reply.text(), service.count()), (200, "an order", 1));
}

#[test]
fn metrics_and_spans_tell_of_it() {
    let (nats, collector) = (Nats::start(), Collector::start());
    let service = Service::answering(&nats, "orders.*", |asked| match &*asked.subject {
        "orders.bad" => status("500"),
        _ => vec![said("fine")],
    });
    let config = upstream(&nats, "")
        + &collector.table("sample = \"100%\"")
        + &route("/{what}", "orders.{what}");
    let gateway = Gateway::start(&config);
    for (path, expected) in [("/good", 200), ("/bad", 500)] {
        assert_eq!(Client::get(gateway.public, path).send().status, expected);
    }
    let value = |name: &str, labels: &[(&str, &str)]| {
        Exposition::text(&Client::get(gateway.admin, "/metrics").send().text()).value(name, labels)
    };
    for outcome in ["ok", "status_5xx"] {
        let labels = [("upstream", "orders"), ("outcome", outcome)];
        eventually(outcome, || value("portcullis_upstream_requests_total", &labels) == Some(1.0));
    }
    let spans = collector.wait_for(4);
    let client = spans.iter().find(|span| span.kind == "client").expect("an attempt");
    let asked = service.asked();
    let parents: Vec<_> = asked.iter().filter_map(|it| it.field("traceparent")).collect();
    assert!(parents.iter().any(|parent| parent.contains(&*client.id)), "{parents:?}");
    let reply = operate(&gateway, "GET", "/v1/upstreams", "");
    assert!(reply.text().contains(&nats.url()), "{}", reply.text());
}
