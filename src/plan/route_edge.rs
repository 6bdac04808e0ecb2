//! What a route does to messages on their way: what most routes do not, in one place, so that they
//! pay one look for all of it.

use crate::config;

/// What is done to requests and responses of one route.
#[derive(Debug, Default)]
pub struct RouteEdge {
    /// Which responses are compressed.
    pub compress: Option<config::Compress>,
}

impl RouteEdge {
    /// What the route says; nothing where it says nothing of this.
    pub(super) fn compile(written: &config::Route) -> Option<Box<Self>> {
        let edge = Self { compress: written.compress.clone() };
        let is_some = edge.compress.is_some();
        is_some.then(|| Box::new(edge))
    }
}
