//! Requests that a stream of JetStream stores: told so once it is true, and otherwise what is.

use serde_json::json;

use super::{code, upstream};
use crate::support::{
    AUTH, Client, Gateway, Nats, Reply, Service, claims, eventually, said, token,
};

/// A route whose requests are stored.
fn stored(name: &str, path: &str, subject: &str, more: &str) -> String {
    format!(
        "[routes.{name}]\npath = \"{path}\"\nmethods = [\"POST\"]\nupstream = \"orders\"\n\
         subject = \"{subject}\"\ndeliver = {{ jetstream = \"JOBS\"{more} }}\n"
    )
}

fn post(gateway: &Gateway, path: &str, key: Option<&str>) -> Reply {
    let request = Client::request(gateway.public, "POST", path).body("the job");
    match key {
        Some(key) => request.header("Idempotency-Key", key).send(),
        None => request.send(),
    }
}

#[test]
fn what_a_stream_has_stored_is_accepted_and_stored_once_for_each_key() {
    let nats = Nats::with_streams();
    nats.stream("JOBS", "jobs.>", &json!({}));
    let reader = Service::answering(&nats, "jobs.>", |_| Vec::new());
    let as_caller =
        stored("keyed", "/keyed/{id}", "jobs.{id}", ", key = \"required\"") + "auth = \"users\"\n";
    let config = AUTH.to_owned()
        + &upstream(&nats, "")
        + &as_caller
        + &stored("open", "/open", "jobs.open", "");
    let gateway = Gateway::start(&config);
    let keyed = |path: &str, sub: &str, key: &str| {
        Client::request(gateway.public, "POST", path)
            .bearer(token(claims(sub)))
            .header("Idempotency-Key", key)
            .header("Nats-Msg-Id", "of the client")
            .header("Content-Type", "text/plain")
            .body("the job")
            .send()
    };
    let first = keyed("/keyed/7", "ann", "k1");
    assert_eq!(first.status, 202, "{}", first.text());
    let id = first.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(first.json(), json!({ "id": id, "state": "queued", "stream": "JOBS", "seq": 1 }));
    assert_eq!((first.header("location"), first.header("idempotent-replayed")), (None, None));
    let again = keyed("/keyed/7", "ann", "k1");
    assert_eq!((again.status, again.json()), (202, first.json()));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    // Another caller's key, and another subject's.
    assert_eq!(keyed("/keyed/7", "ben", "k1").json()["seq"], 2);
    assert_eq!(keyed("/keyed/8", "ann", "k1").json()["seq"], 3);
    // Without a key, each is another one.
    assert_eq!(post(&gateway, "/open", None).json()["seq"], 4);
    assert_eq!(post(&gateway, "/open", None).json()["seq"], 5);
    eventually("all were published", || reader.count() == 6);
    let asked = reader.asked();
    let one = &asked[0];
    assert_eq!((&*one.subject, &*one.text()), ("jobs.7", "the job"));
    for (name, value) in [
        ("Nats-Msg-Id", &*id),
        ("Nats-Expected-Stream", "JOBS"),
        ("Idempotency-Key", "k1"),
        ("Content-Type", "text/plain"),
        ("X-User-Id", "ann"),
        ("X-Http-Method", "POST"),
        ("X-Http-Target", "/keyed/7"),
    ] {
        let all: Vec<_> = one.fields.iter().filter(|(known, _)| known == name).collect();
        assert_eq!(all.len(), 1, "{name}: {:?}", one.fields);
        assert_eq!(one.field(name), Some(value));
    }
    let is_credential = |name: &str| name.eq_ignore_ascii_case("authorization");
    assert!(!one.fields.iter().any(|(name, _)| is_credential(name)), "{:?}", one.fields);
    let lines = || gateway.access_lines();
    eventually("the line has its id", || lines().iter().any(|line| line["delivery"] == *id));
    let missing =
        Client::request(gateway.public, "POST", "/keyed/7").bearer(token(claims("ann"))).send();
    assert_eq!((missing.status, &*code(&missing)), (400, "idempotency_key_missing"));
    let odd = Client::request(gateway.public, "POST", "/open").header("Idempotency-Key", "").send();
    assert_eq!((odd.status, &*code(&odd)), (400, "idempotency_key_invalid"));
    assert_eq!(reader.count(), 6);
}

#[test]
fn what_is_for_nest_is_stored_in_its_packet() {
    let nats = Nats::with_streams();
    nats.stream("JOBS", "jobs.>", &json!({}));
    let reader = Service::answering(&nats, "jobs.>", |_| Vec::new());
    let config = upstream(&nats, "packet = \"nest\"") + &stored("jobs", "/jobs", "jobs.new", "");
    let gateway = Gateway::start(&config);
    let send = |body: &str| Client::request(gateway.public, "POST", "/jobs").body(body).send();
    assert_eq!(send("{\"a\": 1}").json()["seq"], 1);
    let bad = send("{");
    assert_eq!((bad.status, &*code(&bad)), (400, "body_not_json"));
    eventually("it was published", || reader.count() == 1);
    let packet = reader.asked()[0].json();
    assert_eq!((&packet["pattern"], &packet["data"]), (&json!("jobs.new"), &json!({ "a": 1 })));
}

#[test]
fn what_no_stream_has_stored_is_refused_and_says_why() {
    let mut nats = Nats::with_streams();
    let full = json!({ "max_msgs": 1, "discard": "new" });
    nats.stream("JOBS", "jobs.>", &full);
    nats.stream("OTHER", "other.>", &json!({}));
    let config = upstream(&nats, "response_timeout = \"60s\"")
        + &stored("jobs", "/jobs", "jobs.new", ", max_body = \"1KiB\"")
        + &stored("none", "/none", "none.new", "")
        + &stored("other", "/other", "other.new", "")
        + &stored("taken", "/taken", "taken.new", "");
    let gateway = Gateway::start(&config);
    let _service = Service::answering(&nats, "taken.new", |_| vec![said("{\"done\":true}")]);
    assert_eq!(post(&gateway, "/jobs", None).status, 202);
    for (path, status, kind) in [
        ("/jobs", 503, "queue_full"),
        ("/none", 503, "queue_away"),
        ("/other", 503, "queue_away"),
        ("/taken", 502, "upstream_malformed"),
    ] {
        let reply = post(&gateway, path, None);
        assert_eq!((reply.status, &*code(&reply)), (status, kind), "{path}");
        let has_time = reply.header("retry-after").is_some();
        assert_eq!(has_time, status == 503, "{path}");
    }
    let long = Client::request(gateway.public, "POST", "/jobs").body("x".repeat(1025)).send();
    assert_eq!((long.status, &*code(&long)), (413, "body_too_large"));
    nats.kill();
    eventually("the loss is known", || gateway.stderr().contains("is lost"));
    let away = post(&gateway, "/jobs", None);
    assert_eq!((away.status, &*code(&away)), (503, "queue_away"));
    // What operators read of it.
    let told = |path: &str, text: &str| {
        eventually(text, || {
            let lines = gateway.access_lines();
            let mut of_path = lines.iter().filter(|line| line["path"] == path);
            of_path.any(|line| line["error"].as_str().is_some_and(|error| error.contains(text)))
        });
    };
    told("/none", "no stream stores the subject none.new");
    told("/none", "nats stream info JOBS");
    told("/other", "error 10060 of JetStream");
    told("/taken", "a service that listens to the subject");
    told("/jobs", "the stream JOBS is full");
}

#[test]
fn who_gets_no_answer_is_told_that_it_is_in_doubt() {
    let nats = Nats::start();
    let silent = Service::answering(&nats, "jobs.new", |_| Vec::new());
    let config =
        upstream(&nats, "response_timeout = \"300ms\"") + &stored("jobs", "/jobs", "jobs.new", "");
    let gateway = Gateway::start(&config);
    let reply = post(&gateway, "/jobs", Some("k1"));
    assert_eq!((reply.status, &*code(&reply)), (503, "delivery_in_doubt"));
    // Whoever sends it again is known by the same id.
    let reply = post(&gateway, "/jobs", Some("k1"));
    assert_eq!((reply.status, &*code(&reply)), (503, "delivery_in_doubt"));
    let ids: Vec<_> =
        silent.asked().iter().map(|it| it.field("Nats-Msg-Id").map(str::to_owned)).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids[0].is_some() && ids[0] == ids[1], "{ids:?}");
}

#[test]
fn nothing_that_was_accepted_is_lost_when_the_server_dies() {
    let mut nats = Nats::with_streams();
    nats.stream("JOBS", "jobs.>", &json!({}));
    let config = upstream(&nats, "") + &stored("jobs", "/jobs", "jobs.new", "");
    let gateway = Gateway::start(&config);
    let mut accepted = Vec::new();
    let mut send = |from: usize, count: usize| {
        for number in from..from + count {
            let reply = post(&gateway, "/jobs", Some(&format!("k{number}")));
            let known = [202, 503].contains(&reply.status);
            assert!(known, "{}: {}", reply.status, reply.text());
            if reply.status == 202 {
                accepted.push(reply.json()["id"].as_str().expect("an id").to_owned());
            }
        }
    };
    send(0, 50);
    nats.kill();
    send(50, 10);
    nats.restart();
    eventually("it is connected again", || post(&gateway, "/jobs", Some("probe")).status == 202);
    send(60, 50);
    assert!(accepted.len() >= 100, "{}", accepted.len());
    let info = nats.api("STREAM.INFO.JOBS", &json!(null));
    let stored = info["state"]["messages"].as_u64().expect("a number");
    // Each once, and the probe.
    assert_eq!(stored, accepted.len() as u64 + 1);
}
