//! One route as meant: what is done with its requests. It must not know how the file says it.

use std::sync::Arc;
use std::time::Duration;

use super::clauses::Clauses;
use super::route_edge::RouteEdge;
use crate::{auth, config, limit, session};

/// The index of no upstream: nothing is ever sent there.
pub(super) const NO_UPSTREAM: usize = usize::MAX;

/// What is done with the requests of one route.
#[derive(Debug)]
pub struct Route {
    /// Its name, also the metrics label.
    pub name: String,
    /// Its place among the meters.
    pub index: usize,
    /// Who may pass; `None`: everybody.
    pub auth: Option<auth::Policy>,
    /// What must hold of them beside that; nothing on most routes.
    pub clauses: Option<Box<Clauses>>,
    /// How often.
    pub limits: limit::Policy,
    /// Whether a session is attached.
    pub session: Option<session::Policy>,
    /// Whether responses are kept.
    pub cache: Option<Arc<config::Cache>>,
    /// What is done to its messages on their way beyond that; nothing on most routes.
    pub edge: Option<Box<RouteEdge>>,
    /// Index of the upstream; [`NO_UPSTREAM`] where the route answers by itself.
    pub upstream: usize,
    /// What a successful unsafe request makes stale, beside its own URI.
    pub invalidates: Vec<Scope>,
    /// The route as the file says it: what is meant as it is written is read from here, such as
    /// `grpc`, `tunnel` and `stream_timeout`. What has a field of its own above is read from that.
    pub written: config::Route,
}

impl Route {
    /// Whether everybody may pass, as often as he likes, and nothing is attached or kept: there is
    /// nothing to check.
    pub fn is_open(&self) -> bool {
        let is_public = self.auth.is_none() && self.session.is_none();
        let asks = self.cache.is_some() || self.written.idempotency.is_some();
        is_public && !asks && self.limits.is_empty() && self.stick().is_zero()
    }

    /// For how long its callers' reads follow their writes; zero where no upstream has readers.
    pub fn stick(&self) -> Duration {
        let pools = self.edge.as_ref().and_then(|edge| edge.pools.as_ref());
        pools.map_or(Duration::ZERO, |pools| pools.stick)
    }
}

/// A literal path, and whether everything below it is meant too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The path.
    pub path: String,
    /// Whether it ended in `/*`.
    pub and_below: bool,
}
