//! gRPC as its clients and servers see it through the gateway.

mod metadata;

use crate::support::grpc_upstream::Step;
use crate::support::{Act, Gateway, Http2Upstream};

/// An upstream that does these steps with each call, and a gateway whose route has these keys.
fn before(steps: Vec<Step>, keys: &str) -> (Http2Upstream, Gateway) {
    let upstream = Http2Upstream::new(move |_| Act::Play(steps.clone()));
    let gateway = in_front_of(&upstream, keys);
    (upstream, gateway)
}

fn in_front_of(upstream: &Http2Upstream, keys: &str) -> Gateway {
    Gateway::start(&format!(
        "[upstreams.shop]\nservers = [\"{}\"]\nprotocol = \"h2\"\n\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n{keys}\n",
        upstream.url()
    ))
}
