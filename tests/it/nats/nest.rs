//! The packets of `@nestjs/microservices` 12.1, as a service of it writes and reads them.

use serde_json::json;

use super::{code, route, upstream};
use crate::support::{Client, Gateway, Nats, Service, eventually, said};

/// What a service answers, by the last token of the subject: its messages.
fn replies(name: &str) -> Vec<String> {
    let of = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    match name {
        "one" => of(&[r#"{"response":{"id":7},"isDisposed":true,"id":"0"}"#]),
        "null" => of(&[r#"{"response":null,"isDisposed":true,"id":"0"}"#]),
        "nothing" => of(&[r#"{"isDisposed":true,"id":"0"}"#]),
        "several" => of(&[
            r#"{"response":"a","id":"0"}"#,
            r#"{"response":["b"],"id":"0"}"#,
            r#"{"response":3,"isDisposed":true,"id":"0"}"#,
        ]),
        "missing" => of(&[r#"{"err":{"status":404,"message":"no such order"},"isDisposed":true}"#]),
        "clash" => of(&[r#"{"err":{"statusCode":409,"message":"taken"},"isDisposed":true}"#]),
        "broken" => of(&[
            r#"{"err":{"status":"error","message":"Internal server error"},"isDisposed":true}"#,
        ]),
        "foreign" => of(&["hello"]),
        _ => (0..=1000).map(|at| format!("{{\"response\":{at},\"id\":\"0\"}}")).collect(),
    }
}

#[test]
fn each_reply_of_nest_is_its_status() {
    let nats = Nats::start();
    let service = Service::answering(&nats, "orders.*", |asked| {
        let name = asked.subject.rsplit('.').next().unwrap_or_default();
        replies(name).iter().map(said).collect()
    });
    let config = upstream(&nats, "packet = \"nest\"") + &route("/orders/{what}", "orders.{what}");
    let gateway = Gateway::start(&config);
    let ask = |what: &str| Client::get(gateway.public, &format!("/orders/{what}")).send();
    for (what, status, body) in [
        ("one", 200, json!({ "id": 7 })),
        ("null", 200, json!(null)),
        ("several", 200, json!(["a", ["b"], 3])),
        ("missing", 404, json!({ "message": "no such order" })),
        ("clash", 409, json!({ "message": "taken" })),
    ] {
        let reply = ask(what);
        assert_eq!((reply.status, reply.json()), (status, body), "{what}");
        assert_eq!(reply.header("content-type"), Some("application/json"), "{what}");
    }
    let reply = ask("nothing");
    assert_eq!((reply.status, &*reply.text()), (204, ""));
    for (what, name) in [
        ("broken", "upstream_failed"),
        ("foreign", "upstream_malformed"),
        ("endless", "upstream_malformed"),
    ] {
        let reply = ask(what);
        assert_eq!((reply.status, &*code(&reply)), (502, name), "{what}");
        assert!(!reply.text().contains("Internal server error"), "{}", reply.text());
    }
    // Nobody but the operator reads what a service says of itself.
    eventually("the log has it", || {
        let lines = gateway.access_lines();
        let mut errors = lines.iter().filter_map(|line| line["error"].as_str());
        errors.any(|error| error.contains("Internal server error"))
    });
    assert_eq!(service.count(), 9);
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
