//! The packets of `@nestjs/microservices` 12.1, as a service of it writes and reads them.

use serde_json::{Value, json};

use super::{code, route, upstream};
use crate::support::{Client, Gateway, Nats, Service, eventually, said};

/// Requests, their packets and their replies, as a service of NestJS has written them, and what
/// becomes of those. `scripts/nest` looks whether a real service still writes the same.
const PINNED: &str = include_str!("nest.json");

/// What was pinned of one kind of reply.
#[derive(serde::Deserialize)]
struct Pinned {
    reply: String,
    /// Method, path and body of the request.
    request: (String, String, Option<String>),
    /// The packet, without its id.
    asked: Value,
    /// The messages of the service.
    replies: Vec<String>,
    status: u16,
    #[serde(default)]
    body: Value,
    code: Option<String>,
}

fn pinned() -> Vec<Pinned> {
    serde_json::from_str(PINNED).expect("fixtures")
}

#[test]
fn each_reply_of_nest_is_its_status() {
    let nats = Nats::start();
    let service = Service::answering(&nats, ">", |asked| {
        let pattern = asked.json()["pattern"].clone();
        let row = pinned().into_iter().find(|row| row.asked["pattern"] == pattern);
        row.map_or_else(Vec::new, |row| row.replies.iter().map(said).collect())
    });
    let sum = "[routes.sum]\npath = \"/sum\"\nupstream = \"orders\"\n\
               subject = '{\"cmd\":\"sum\",\"v\":1}'\n";
    let config =
        upstream(&nats, "packet = \"nest\"") + &route("/orders/{what}/{id}", "orders.{what}") + sum;
    let gateway = Gateway::start(&config);
    for row in pinned() {
        let (method, path, body) = &row.request;
        let mut request = Client::request(gateway.public, method, path);
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        let reply = request.send();
        let what = &row.reply;
        assert_eq!(reply.status, row.status, "{what}: {}", reply.text());
        match (&row.code, row.status) {
            (Some(expected), _) => {
                assert_eq!(code(&reply), *expected, "{what}");
                assert!(!reply.text().contains("Internal server error"), "{}", reply.text());
            }
            (None, 204) => assert_eq!(reply.text(), "", "{what}"),
            (None, _) => {
                assert_eq!(reply.json(), row.body, "{what}");
                assert_eq!(reply.header("content-type"), Some("application/json"), "{what}");
            }
        }
        let mut packet = service.asked().last().expect("a packet").json();
        assert!(packet["id"].is_string(), "{what}: without an id it is an event: {packet}");
        packet.as_object_mut().expect("an object").remove("id");
        assert_eq!(packet, row.asked, "{what}");
    }
    assert_eq!(service.count(), pinned().len());
    // Nobody but the operator reads what a service says of itself.
    eventually("the log has it", || {
        let lines = gateway.access_lines();
        let mut errors = lines.iter().filter_map(|line| line["error"].as_str());
        errors.any(|error| error.contains("Internal server error"))
    });
}

/// Several values are one answer up to their bounds, however the service says that there are no
/// more; beyond them they are none.
#[test]
fn several_values_have_bounds() {
    let nats = Nats::start();
    let _service = Service::answering(&nats, "orders.*", |asked| {
        if asked.subject == "orders.foreign" {
            return vec![said("hello")];
        }
        let packet = asked.json();
        let parameters = &packet["data"]["params"];
        let count: usize = parameters["count"].as_str().unwrap().parse().expect("a number");
        let last = count.saturating_sub(1);
        let value = |at: usize| match asked.subject.as_str() {
            "orders.whole" if at == last => {
                format!("{{\"response\":{at},\"isDisposed\":true,\"id\":\"0\"}}")
            }
            "orders.large" => format!("{{\"response\":\"{}\"}}", "x".repeat(1_000_000)),
            _ => format!("{{\"response\":{at},\"id\":\"0\"}}"),
        };
        let mut all: Vec<_> = (0..count).map(|at| said(value(at))).collect();
        if asked.subject != "orders.whole" && asked.subject != "orders.endless" {
            all.push(said("{\"isDisposed\":true,\"id\":\"0\"}"));
        }
        all
    });
    let config = upstream(&nats, "packet = \"nest\"") + &route("/{what}/{count}", "orders.{what}");
    let gateway = Gateway::start(&config);
    for (path, status) in [
        ("/whole/1000", 200),
        ("/apart/1000", 200),
        ("/whole/1001", 502),
        ("/apart/1001", 502),
        ("/endless/1001", 502),
        ("/endless/1002", 502),
        // 8 MiB are 8,388,608.
        ("/large/8", 200),
        ("/large/9", 502),
    ] {
        let reply = Client::get(gateway.public, path).send();
        assert_eq!(reply.status, status, "{path}");
        if status == 502 {
            assert_eq!(code(&reply), "upstream_malformed", "{path}");
        } else if !path.starts_with("/large") {
            assert_eq!(reply.json(), json!((0..1000).collect::<Vec<_>>()), "{path}");
        } else {
            assert_eq!(reply.json().as_array().map(Vec::len), Some(8));
        }
    }
    // What a service says that knows nothing of packets is none.
    let reply = Client::get(gateway.public, "/foreign/0").send();
    assert_eq!((reply.status, &*code(&reply)), (502, "upstream_malformed"));
}

#[test]
fn a_request_is_a_packet_with_a_pattern_its_data_and_an_id() {
    let nats = Nats::start();
    let answer = r#"{"response":1,"isDisposed":true}"#;
    let service = Service::answering(&nats, ">", move |_| vec![said(answer)]);
    let sum = "[routes.sum]\npath = \"/sum\"\nupstream = \"orders\"\n\
               subject = '{\"cmd\":\"sum\",\"v\":1}'\n";
    let config = upstream(&nats, "packet = \"nest\"") + &route("/o/{id}", "orders.get") + sum;
    let gateway = Gateway::start(&config);
    let post = |body: &str| Client::request(gateway.public, "POST", "/sum").body(body).send();
    assert_eq!(Client::get(gateway.public, "/o/a%20b?x=1&x=2&y=z").send().status, 200);
    assert_eq!(Client::request(gateway.public, "DELETE", "/o/7").send().status, 200);
    assert_eq!(post("{\"a\": 1.50}").status, 200);
    let refused = post("{\"a\":");
    assert_eq!((refused.status, &*code(&refused)), (400, "body_not_json"));
    let asked = service.asked();
    let expected = [
        (
            "orders.get",
            json!({ "params": { "id": "a b" }, "query": { "x": ["1", "2"], "y": "z" } }),
        ),
        ("orders.get", json!({ "params": { "id": "7" }, "query": {} })),
        ("{\"cmd\":\"sum\",\"v\":1}", json!({ "a": 1.5 })),
    ];
    assert_eq!(asked.len(), expected.len(), "{asked:?}");
    for (asked, (subject, data)) in asked.iter().zip(expected) {
        let packet = asked.json();
        assert_eq!((&*asked.subject, &packet["pattern"]), (subject, &json!(subject)));
        assert_eq!(packet["data"], data);
        assert!(packet["id"].is_string(), "{packet}");
    }
    // A body is passed on as it was written.
    assert!(asked[2].text().contains("{\"a\": 1.50}"), "{}", asked[2].text());
}
