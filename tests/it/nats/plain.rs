//! Messages whose payload is the body, and which of a request's fields go along.

use super::{code, route, upstream};
use crate::support::{AUTH, Client, Gateway, Nats, Said, Service, claims, said, token};

#[test]
fn a_request_is_a_message_and_its_reply_the_answer() {
    let nats = Nats::start();
    let service = Service::answering(&nats, "orders.*.put", |_| {
        vec![(vec![("Content-Type", "application/xml".to_owned())], b"<done/>".to_vec())]
    });
    let auth = "auth = \"users\"\nrequest_headers = { set = { x-shop = \"main\" } }\n";
    let config = AUTH.to_owned()
        + &upstream(&nats, "packet = \"plain\"")
        + &route("/orders/{id}", "orders.{id}.put")
        + auth;
    let gateway = Gateway::start(&config);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let reply = Client::request(gateway.public, "PUT", "/orders/a-7?x=1&y=%20")
        .bearer(token(claims("ann")))
        .header("Content-Type", "text/plain")
        .header("Idempotency-Key", "k1")
        .header("X-Request-Id", "r1")
        .header("traceparent", trace)
        .header("X-User-Id", "mallory")
        .header("X-Http-Method", "DELETE")
        .header("Cookie", "a=b")
        .header("X-Own", "of the client")
        .body([0, 255, 10, 13])
        .send();
    assert_eq!((reply.status, &*reply.body), (200, &b"<done/>"[..]));
    assert_eq!(reply.header("content-type"), Some("application/xml"));
    let [asked] = &service.asked()[..] else { panic!("one message: {:?}", service.asked()) };
    assert_eq!((&*asked.subject, &*asked.payload), ("orders.a-7.put", &[0, 255, 10, 13][..]));
    let parent = asked.field("traceparent").expect("a traceparent");
    assert_eq!(parent[..36], trace[..36]);
    let mut fields: Vec<_> =
        asked.fields.iter().filter(|(name, _)| name != "traceparent").cloned().collect();
    fields.sort();
    let expected = [
        ("Content-Type", "text/plain"),
        ("Idempotency-Key", "k1"),
        ("X-Http-Method", "PUT"),
        ("X-Http-Target", "/orders/a-7?x=1&y=%20"),
        ("X-Request-Id", "r1"),
        ("X-Shop", "main"),
        ("X-User-Id", "ann"),
    ];
    assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn a_service_says_its_status_in_a_field() {
    let nats = Nats::start();
    let _service = Service::answering(&nats, "s.*", |asked| {
        let field = |name, value: &str| -> Vec<Said> {
            vec![(vec![(name, value.to_owned())], b"a body".to_vec())]
        };
        match asked.subject.trim_start_matches("s.") {
            "none" => vec![said("a body")],
            "created" => field("status", "201"),
            "gone" => field("Nats-Service-Error-Code", "410"),
            "odd" => field("Nats-Service-Error-Code", "42"),
            "early" => field("status", "100"),
            _ => field("status", "204"),
        }
    });
    let config = upstream(&nats, "") + &route("/{what}", "s.{what}");
    let gateway = Gateway::start(&config);
    for (what, status, text) in [
        ("none", 200, "a body"),
        ("created", 201, "a body"),
        ("gone", 410, "a body"),
        ("empty", 204, ""),
    ] {
        let reply = Client::get(gateway.public, &format!("/{what}")).send();
        assert_eq!((reply.status, &*reply.text()), (status, text), "{what}");
        assert_eq!(reply.header("content-type"), None, "{what}");
    }
    for (what, name) in [("odd", "upstream_failed"), ("early", "upstream_malformed")] {
        let reply = Client::get(gateway.public, &format!("/{what}")).send();
        assert_eq!((reply.status, &*code(&reply)), (502, name), "{what}");
    }
    let reply = Client::request(gateway.public, "HEAD", "/none").send();
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("6")));
}
