//! gRPC as its clients and servers see it through the gateway.

mod both_ways;
mod bounds;
mod deadline;
mod metadata;
mod status;
mod web;

use bytes::Bytes;
use serde_json::Value;

use crate::support::grpc_upstream::{Step, message};
use crate::support::{Act, Gateway, Http2Upstream, eventually};

/// An upstream that does these steps with each call, and a gateway whose route has these keys.
fn before(steps: Vec<Step>, keys: &str) -> (Http2Upstream, Gateway) {
    before_with(steps, keys, "")
}

/// The same, and the upstream's table has some more.
fn before_with(steps: Vec<Step>, keys: &str, more: &str) -> (Http2Upstream, Gateway) {
    let upstream = Http2Upstream::new(move |_| Act::Play(steps.clone()));
    let gateway = start(&upstream, keys, more);
    (upstream, gateway)
}

fn in_front_of(upstream: &Http2Upstream, keys: &str) -> Gateway {
    start(upstream, keys, "")
}

fn start(upstream: &Http2Upstream, keys: &str, more: &str) -> Gateway {
    Gateway::start(&format!(
        "[upstreams.shop]\nservers = [\"{}\"]\nprotocol = \"h2\"\n{more}\n\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n{keys}\n",
        upstream.url()
    ))
}

/// A message of so many bytes.
fn message_of(bytes: usize) -> Bytes {
    message(&vec![7; bytes])
}

/// The line of a call, by its number.
fn line(gateway: &Gateway, number: usize) -> Value {
    let mut lines = Vec::new();
    eventually("it is logged", || {
        lines = gateway.access_lines();
        lines.len() > number
    });
    lines.swap_remove(number)
}
