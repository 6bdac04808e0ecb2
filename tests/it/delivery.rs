//! Deferred deliveries, end to end: accepted with a 202, sent by whichever gateway takes them,
//! repeated, given up, looked at, cancelled; and while something dies in between.

mod accepted;
mod bounds;
mod called_back;
mod crashes;
mod durable;
mod held;
mod kept;
mod numbers;
mod operated;
mod rates;
mod refused;
mod repeated;
mod shards;
mod stores;
mod undone;

use serde_json::Value;

use crate::support::{
    AUTH, Client, Exposition, Gateway, Redis, Reply, Upstream, claims, eventually, response, token,
};

/// Two routes that deliver later, one for callers and one for everybody, and where they are told.
const ROUTES: &str = r#"
[routes.mail]
path = "/mail"
methods = ["POST"]
upstream = "mailer"
auth = "users"
[routes.mail.deliver]
queue = "mail"
delay_from = "header:x-deliver-after"
max_delay = "1h"
max_wait = "1m"
[routes.keyed]
path = "/keyed"
methods = ["POST"]
upstream = "mailer"
auth = "users"
deliver = { queue = "mail", key = "required" }
[routes.open]
path = "/open"
methods = ["POST"]
upstream = "mailer"
deliver = { queue = "mail" }
[routes.deliveries]
path = "/deliveries/{id}"
auth = "users"
answers = "deliveries"
"#;

/// Pauses that tests can wait for.
const QUICK: &str = "backoff = \"20ms\"\n";

/// A configuration with this store and upstream, and these lines in the queue's table.
fn config(redis: &Redis, upstream: &str, queue: &str) -> String {
    format!(
        "[store]\nurl = \"{}\"\n{AUTH}[upstreams.mailer]\nservers = [\"{upstream}\"]\n\
         response_timeout = \"2m\"\n\
         [queues.mail]\n{queue}{ROUTES}",
        redis.url()
    )
}

fn start(redis: &Redis, upstream: &Upstream, queue: &str) -> Gateway {
    Gateway::start(&config(redis, &upstream.url(), queue))
}

fn upstream() -> Upstream {
    Upstream::replying(response("201 Created", "sent"))
}

/// A caller, by his token.
fn bearer(sub: &str) -> String {
    token(claims(sub))
}

fn post(gateway: &Gateway, path: &str, bearer: &str, body: &str) -> Reply {
    Client::request(gateway.public, "POST", path).bearer(bearer).body(body).send()
}

/// The id of what was accepted.
fn accepted(reply: &Reply) -> String {
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.json()["id"].as_str().expect("an id").to_owned()
}

/// What its caller is told of a delivery.
fn told(gateway: &Gateway, bearer: &str, id: &str) -> Value {
    let reply = Client::get(gateway.public, &format!("/deliveries/{id}")).bearer(bearer).send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// Waits until a delivery is in this state; what is told of it then.
fn until(gateway: &Gateway, bearer: &str, id: &str, state: &str) -> Value {
    let mut last = Value::Null;
    eventually(&format!("the delivery is {state}"), || {
        let path = format!("/deliveries/{id}");
        let reply = Client::get(gateway.public, &path).bearer(bearer).send();
        // On a busy machine the store may be late for once.
        assert!([200, 503].contains(&reply.status), "{}", reply.text());
        last = reply.json();
        last["state"] == state
    });
    last
}

/// The code of a refusal.
fn code(reply: &Reply) -> (u16, String) {
    let json = reply.json();
    let kind = json["type"].as_str().unwrap_or_default();
    (reply.status, kind.trim_start_matches("urn:portcullis:problem:").to_owned())
}

/// A metric of the queue.
fn metric(gateway: &Gateway, name: &str, label: Option<(&str, &str)>) -> f64 {
    let text = Client::get(gateway.admin, "/metrics").send().text();
    let labels: Vec<_> = [Some(("queue", "mail")), label].into_iter().flatten().collect();
    Exposition::text(&text).value(name, &labels).unwrap_or(0.0)
}
