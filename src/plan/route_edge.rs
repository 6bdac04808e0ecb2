//! What a route does to messages on their way: what most routes do not, in one place, so that they
//! pay one look for all of it.

use crate::config;
use crate::forwarding::rules::Rules;

/// What is done to requests and responses of one route.
#[derive(Debug, Default)]
pub struct RouteEdge {
    /// Fields of requests to the upstream.
    pub requests: Rules,
    /// Fields of responses to the client.
    pub responses: Rules,
    /// Which responses are compressed.
    pub compress: Option<config::Compress>,
}

impl RouteEdge {
    /// What the route says, and all routes; nothing where nobody says anything of this.
    pub(super) fn compile(server: &config::Server, written: &config::Route) -> Option<Box<Self>> {
        let edge = Self {
            requests: Rules::new(&server.request_headers, &written.request_headers),
            responses: Rules::new(&server.response_headers, &written.response_headers),
            compress: written.compress.clone(),
        };
        let is_some =
            edge.compress.is_some() || !edge.requests.is_empty() || !edge.responses.is_empty();
        is_some.then(|| Box::new(edge))
    }
}
