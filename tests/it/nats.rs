//! Upstreams over NATS: a real nats-server, services that speak its protocol, and the gateway.

/// What a request ends as that gets no answer.
mod ends;
/// Requests that a stream of JetStream stores.
mod jetstream;
/// Keys in place of passwords.
mod keys;
/// A server that dies over and over, or says nothing, under many callers.
mod kills;
/// What else holds for any upstream: cache, limits, retries, breaker, metrics, spans.
mod like_others;
/// Who listens to a subject, or to a stream by a consumer.
mod listening;
/// Packets of NestJS, and the statuses that they become.
mod nest;
/// Messages whose payload is the body.
mod plain;
/// Reloads.
mod reload;
/// What a client may not write into a subject.
mod subjects;
/// TLS and credentials.
mod tls;
/// The oldest version of the server that is supported, and the newest.
mod versions;

use crate::support::{Nats, Reply, eventually};

/// The upstream `orders` on this server. Deadlines are another matter, and the machine may be busy.
fn upstream(nats: &Nats, more: &str) -> String {
    let url = nats.url();
    let patience =
        if more.contains("connect_timeout") { "" } else { "connect_timeout = \"10s\"\n" };
    format!("[upstreams.orders]\nnats = [\"{url}\"]\n{patience}{more}\n")
}

/// A route to it.
fn route(path: &str, subject: &str) -> String {
    format!("[routes.orders]\npath = \"{path}\"\nupstream = \"orders\"\nsubject = '{subject}'\n")
}

/// The code of a refusal.
fn code(reply: &Reply) -> String {
    let kind = reply.json()["type"].as_str().unwrap_or_default().to_owned();
    kind.trim_start_matches("urn:portcullis:problem:").to_owned()
}

/// Waits for a count that is bound to come.
fn reach(what: &str, count: impl Fn() -> usize, wanted: usize) {
    eventually(what, || count() >= wanted);
}
