//! Requests with an `Idempotency-Key`: they take effect once, however often they are sent, through
//! whichever gateway, and whoever leaves or dies meanwhile.

mod answers;
mod away;
mod kept;
mod leaving;
mod sealed;
mod storm;
mod unheard;

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::support::{
    AUTH, Client, Gateway, PATIENCE, Redis, Reply, Session, Upstream, claims, eventually, response,
    token,
};

/// An upstream that numbers the orders that it is given.
fn shop() -> Upstream {
    let orders = Mutex::new(0);
    Upstream::with(move |request, connection| {
        let mut orders = orders.lock().unwrap();
        *orders += 1;
        let head = format!(
            "201 Created\r\nLocation: /orders/{orders}\r\nSet-Cookie: visit={orders}\r\n\
             Content-Type: text/plain"
        );
        let text = format!("order {orders} of {}", request.text());
        let _ = connection.write_all(response(&head, &text).as_bytes());
    })
}

/// Holds every request back: each is announced when it has arrived, and answered when told.
struct Held {
    arrived: Receiver<()>,
    go_on: Sender<()>,
}

impl Held {
    fn wait(&self) {
        self.arrived.recv_timeout(PATIENCE).expect("the request arrives");
    }

    fn let_go(&self) {
        self.go_on.send(()).unwrap();
    }
}

fn holding() -> (Upstream, Held) {
    let (announce, arrived) = channel();
    let (go_on, told) = channel::<()>();
    let (announce, told) = (Mutex::new(announce), Mutex::new(told));
    let upstream = Upstream::with(move |_, connection| {
        let _ = announce.lock().unwrap().send(());
        let _ = told.lock().unwrap().recv_timeout(PATIENCE);
        let _ = connection.write_all(response("200 OK", "done").as_bytes());
    });
    (upstream, Held { arrived, go_on })
}

/// A gateway with two routes to this upstream; `policy` and `route` are more of what is said of
/// keys and of the first one.
fn gateway(upstream: &Upstream, store: &str, policy: &str, route: &str) -> Gateway {
    Gateway::start(&config(upstream, store, policy, route))
}

fn config(upstream: &Upstream, store: &str, policy: &str, route: &str) -> String {
    format!(
        "[store]\nurl = \"{store}\"\ntimeout = \"5s\"\n{AUTH}
        {}
        response_timeout = \"1s\"
        [routes.orders]
        path = \"/orders\"
        upstream = \"shop\"
        auth = {{ by = \"users\", optional = true }}
        idempotency = {{ {policy} }}
        {route}
        [routes.refunds]
        path = \"/refunds\"
        upstream = \"shop\"
        auth = {{ by = \"users\", optional = true }}
        idempotency = {{}}
        ",
        upstream.table("shop")
    )
}

fn post(gateway: &Gateway, key: &str, body: &str) -> Reply {
    send(gateway, "POST", key, body)
}

fn send(gateway: &Gateway, method: &str, key: &str, body: &str) -> Reply {
    let request = Client::request(gateway.public, method, "/orders").body(body);
    request.header("Idempotency-Key", key).send()
}

/// The code of a refusal.
fn code(reply: &Reply) -> String {
    let kind = reply.json()["type"].as_str().unwrap_or_default().to_owned();
    kind.trim_start_matches("urn:portcullis:problem:").to_owned()
}

fn with_code(reply: &Reply) -> (u16, String) {
    (reply.status, code(reply))
}

fn expect(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// How many keys the store has.
fn keys(redis: &Redis) -> usize {
    redis.cli(&["KEYS", "app:idempotency:*"]).lines().filter(|line| !line.is_empty()).count()
}

/// What the access lines say of keys, once there are so many lines.
fn told(gateway: &Gateway, lines: usize) -> Vec<String> {
    eventually("the lines are written", || gateway.access_lines().len() >= lines);
    let lines = gateway.access_lines();
    lines.iter().map(|line| line["idempotency"].as_str().unwrap_or("-").to_owned()).collect()
}

/// Sends a request by itself, and leaves it to its upstream.
fn begin(gateway: &Gateway, key: &str, body: &str) -> Session {
    let mut session = Session::open(gateway.public);
    session.write(format!(
        "POST /orders HTTP/1.1\r\nHost: shop.test\r\nIdempotency-Key: {key}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    session
}

fn bearer(sub: &str) -> String {
    token(claims(sub))
}
