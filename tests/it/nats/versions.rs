//! The same of two versions of the server: the one of the distribution, and a newer one. Keys and
//! events are tried at both where they are told of.

use serde_json::json;

use super::{code, kills, route, upstream};
use crate::support::{Client, Folder, Gateway, Nats, Reply, STREAMS, Service, eventually, said};

fn both(settings: &str) -> [Nats; 2] {
    [Nats::start_in(Folder::new(), settings), Nats::newer_in(Folder::new(), settings)]
}

fn outcome(reply: &Reply) -> (u16, String) {
    (reply.status, if reply.status < 400 { reply.text() } else { code(reply) })
}

#[test]
fn they_are_two_versions() {
    let [old, new] = both("").map(|nats| nats.version());
    assert!(old >= vec![2, 9] && new >= vec![2, 15], "{old:?} {new:?}");
}

#[test]
fn requests_are_answered_or_refused_alike() {
    for nats in both("max_payload: 4096\n") {
        let nest = upstream(&nats, "packet = \"nest\"").replace("orders]", "nest]");
        let nested = "[routes.nest]\npath = \"/nest\"\nupstream = \"nest\"\nsubject = \"nest\"\n";
        let config = upstream(&nats, "response_timeout = \"60s\"")
            + &nest
            + nested
            + &route("/{what}", "s.{what}");
        let gateway = Gateway::start(&config);
        let _plain = Service::answering(&nats, "s.plain", |asked| vec![said(&asked.payload)]);
        let _nest = Service::answering(&nats, "nest", |asked| {
            let packet = asked.json();
            let reply = json!({ "response": packet["data"], "isDisposed": true });
            vec![said(reply.to_string())]
        });
        let post = |path: &str, body: &str| {
            Client::request(gateway.public, "POST", path).body(body).send()
        };
        let long = "x".repeat(4097);
        for (path, body, status, text) in [
            ("/plain", "a body", 200, "a body"),
            ("/nest", "[1,2]", 200, "[1,2]"),
            ("/nobody", "x", 503, "upstream_no_responders"),
            ("/plain", &*long, 413, "body_too_large"),
        ] {
            let reply = post(path, body);
            let expected = (status, text.to_owned());
            assert_eq!(outcome(&reply), expected, "{path} of {:?}", nats.version());
        }
    }
}

#[test]
fn a_stream_stores_once_for_each_key_and_says_that_it_is_full() {
    for nats in both(STREAMS) {
        nats.stream("JOBS", "jobs.>", &json!({ "max_msgs": 2, "discard": "new" }));
        let config = upstream(&nats, "")
            + "[routes.jobs]\npath = \"/jobs\"\nmethods = [\"POST\"]\nupstream = \"orders\"\n\
               subject = \"jobs.new\"\ndeliver = { jetstream = \"JOBS\" }\n";
        let gateway = Gateway::start(&config);
        let post = |key: &str| {
            let request = Client::request(gateway.public, "POST", "/jobs").body("the job");
            request.header("Idempotency-Key", key).send()
        };
        for (key, seq) in [("a", 1), ("a", 1), ("b", 2)] {
            let reply = post(key);
            let said = (reply.status, &reply.json()["seq"]);
            assert_eq!(said, (202, &json!(seq)), "{key} of {:?}", nats.version());
        }
        assert_eq!(outcome(&post("c")), (503, "queue_full".to_owned()));
        let info = nats.api("STREAM.INFO.JOBS", &json!(null));
        assert_eq!(info["state"]["messages"], 2);
    }
}

#[test]
fn a_wrong_password_is_refused_and_the_right_one_is_not() {
    for nats in both("authorization { user: gateway, password: right }\n") {
        let keys = |password: &str| format!("username = \"gateway\"\npassword = \"{password}\"\n");
        let config = |password: &str| {
            let hasty = keys(password) + "connect_timeout = \"500ms\"";
            upstream(&nats, &hasty) + &route("/*", "orders.get")
        };
        let gateway = Gateway::start(&config("wrong"));
        let ask = || outcome(&Client::get(gateway.public, "/").send());
        assert_eq!(ask(), (503, "upstream_unreachable".to_owned()));
        gateway.rewrite(&config("right"));
        gateway.signal("HUP");
        let nobody = (503, "upstream_no_responders".to_owned());
        eventually("it is let in", || ask() == nobody);
    }
}

#[test]
fn nothing_comes_late_where_a_newer_server_dies() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    kills::dies(Nats::newer(), 8, seed);
}
