//! What applications tell, end to end: events that purge and revoke, and what is missed while
//! something is away.

mod channel;
mod crashes;
mod nats;
mod reach;
mod revoke;
mod stream;
mod webhook;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use crate::support::{
    AUTH, Client, Exposition, Gateway, Redis, Upstream, claims, eventually, response, token,
};

/// The stream that the application writes.
const STREAM: &str = "shop:events";
/// Products are cached for an hour; those of callers are told apart.
const ROUTES: &str = r#"
[routes.products]
path = "/products/*"
upstream = "shop"
cache = { ttl = "1h" }
[routes.account]
path = "/account"
upstream = "shop"
auth = "users"
[routes.hooks]
path = "/hooks/products"
answers = "events"
events = ["hooks"]
"#;
/// Whoever sends webhooks.
const HOOKS: &str = r#"
[events.hooks]
from = "webhook"
secrets = ["whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz", "another-secret-of-the-sender"]
purge = ["/products/{id}"]
"#;
/// What a stream is read for.
const PRODUCTS: &str = r#"
[events.products]
from = "stream:shop:events"
when = { table = "products" }
purge = ["/products/{id}", "tag:product-{id}"]
[events.users]
from = "stream:shop:events"
when = { table = "logouts" }
revoke = "sub:{user}"
"#;

/// An application: what it answers by path, and how often it was asked.
#[derive(Clone)]
struct Database(Arc<Mutex<BTreeMap<String, u32>>>);

impl Database {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn write(&self, path: &str, value: u32) {
        self.0.lock().unwrap().insert(path.to_owned(), value);
    }

    fn read(&self, path: &str) -> u32 {
        self.0.lock().unwrap().get(path).copied().unwrap_or_default()
    }

    fn serve(&self) -> Upstream {
        let database = self.clone();
        Upstream::with(move |request, connection| {
            let text = database.read(request.target()).to_string();
            let _ = connection.write_all(response("200 OK", &text).as_bytes());
        })
    }
}

fn config(redis: &Redis, upstream: &Upstream, events: &str) -> String {
    format!(
        "[store]\nurl = \"{}\"\ntimeout = \"2s\"\n{AUTH}[upstreams.shop]\nservers = [\"{}\"]\n\
         {HOOKS}{events}{ROUTES}",
        redis.url(),
        upstream.url()
    )
}

fn start(redis: &Redis, upstream: &Upstream, events: &str) -> Gateway {
    Gateway::start(&config(redis, upstream, events))
}

/// What a client reads.
fn read(gateway: &Gateway, path: &str) -> u32 {
    let reply = Client::get(gateway.public, path).send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.text().parse().expect("a number")
}

/// Waits until a path is answered from the cache.
fn store(gateway: &Gateway, path: &str) {
    eventually("it is stored", || {
        let reply = Client::get(gateway.public, path).send();
        reply.header("cache-status").unwrap_or_default().contains("portcullis; hit")
    });
}

/// Waits until one of these gateways reads a source, and can.
fn reads(gateways: &[Gateway], source: &str) {
    eventually("one of them reads", || {
        gateways.iter().any(|gateway| {
            let told = told(gateway, source);
            told["reads_here"] == true && told["fault"].is_null()
        })
    });
}

/// What the group of a source has read and not acknowledged, and how far it is behind; nothing
/// before there is one.
fn behind(redis: &Redis, source: &str) -> Option<(String, String)> {
    let told = redis.cli(&["XINFO", "GROUPS", STREAM]);
    let words: Vec<&str> = told.lines().collect();
    let name = format!("app:events:{source}");
    let group = words.iter().skip_while(|word| **word != name);
    let of = |field: &str| group.clone().skip_while(|word| **word != field).nth(1);
    Some(((*of("pending")?).to_owned(), (*of("lag")?).to_owned()))
}

/// Waits until all that was written is done and acknowledged.
fn all_done(redis: &Redis, source: &str) {
    eventually("all is read and acknowledged", || {
        behind(redis, source) == Some(("0".to_owned(), "0".to_owned()))
    });
}

/// Writes an event, as a hook of a database does.
fn tell(redis: &Redis, fields: &[&str]) -> String {
    let add = [&["XADD", STREAM, "MAXLEN", "~", "100000", "*"], fields].concat();
    let id = redis.cli(&add);
    assert!(id.contains('-'), "{id}");
    id
}

fn metric(gateway: &Gateway, name: &str, labels: &[(&str, &str)]) -> f64 {
    let text = Client::get(gateway.admin, "/metrics").send().text();
    Exposition::text(&text).value(name, labels).unwrap_or(0.0)
}

fn count(gateway: &Gateway, source: &str, outcome: &str) -> f64 {
    let labels = [("source", source), ("outcome", outcome)];
    metric(gateway, "portcullis_events_total", &labels)
}

fn gaps(gateway: &Gateway, source: &str) -> f64 {
    metric(gateway, "portcullis_event_gaps_total", &[("source", source)])
}

/// What the admin API says of a source.
fn told(gateway: &Gateway, source: &str) -> serde_json::Value {
    let admin = gateway.admin;
    let reply = Client::get(admin, "/v1/events").header("Host", admin.to_string()).send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["events"][source].clone()
}

/// A caller, by his token.
fn bearer(sub: &str) -> String {
    token(claims(sub))
}
