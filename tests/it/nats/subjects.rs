//! What a client writes never chooses another subject, and never many.

use super::{code, route, upstream};
use crate::support::{Client, Gateway, Nats, Service, raw, said};

#[test]
fn a_parameter_that_is_no_token_is_not_found_and_nobody_hears_of_it() {
    let nats = Nats::start();
    let service = Service::answering(&nats, ">", |_| vec![said("heard")]);
    let config = upstream(&nats, "") + &route("/orders/{id}/{more}", "orders.{id}");
    let gateway = Gateway::start(&config);
    let long = "x".repeat(129);
    for hostile in [
        "a.b", "*", "%2A", "%3E", "%20", "a%20b", "a%09b", "a%0Bb", "%7F", "%C3%A9", "a~b", "a:b",
        "a,b", "$SYS", "%24SYS", "a@b", "a=b", "a;b", "_INBOX.a", "%7Bid%7D", &long,
    ] {
        let reply = Client::get(gateway.public, &format!("/orders/{hostile}/x")).send();
        assert_eq!((reply.status, &*code(&reply)), (404, "route_not_found"), "{hostile}");
    }
    // What no path holds, or ends a line of the protocol, is refused before.
    for hostile in [">", "%0D%0APUB%20x%200", "a%0Ab", "a%00b"] {
        let reply = Client::get(gateway.public, &format!("/orders/{hostile}/x")).send();
        assert_eq!(reply.status, 400, "{hostile}");
    }
    let bytes = b"GET /orders/\xff/x HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    assert!(!raw(gateway.public, bytes).contains(" 200 "));
    assert_eq!(service.count(), 0);
    // What is no part of the subject may be anything.
    let longest = "x".repeat(128);
    for id in ["7", "a-B_7", &longest] {
        let reply = Client::get(gateway.public, &format!("/orders/{id}/a.b%20*")).send();
        assert_eq!((reply.status, &*reply.text()), (200, "heard"), "{id}");
    }
    let subjects: Vec<_> = service.asked().into_iter().map(|asked| asked.subject).collect();
    assert_eq!(
        subjects,
        ["orders.7".to_owned(), "orders.a-B_7".into(), format!("orders.{longest}")]
    );
}
