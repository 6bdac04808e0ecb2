//! One route as meant: what is done with its requests. It must not know how the file says it.

use std::sync::Arc;
use std::time::Duration;

use crate::{auth, config, limit, session};

/// What is done with the requests of one route.
#[derive(Debug)]
pub struct Route {
    /// Its name, also the metrics label.
    pub name: String,
    /// Its place among the meters.
    pub index: usize,
    /// Who may pass; `None`: everybody.
    pub auth: Option<auth::Policy>,
    /// How often.
    pub limits: limit::Policy,
    /// Whether a session is attached.
    pub session: Option<session::Policy>,
    /// Whether responses are kept.
    pub cache: Option<Arc<config::Cache>>,
    /// What bounds gRPC calls; `None`: what bounds every request.
    pub grpc: Option<Box<config::Grpc>>,
    /// Index of the upstream.
    pub upstream: usize,
    /// What a successful unsafe request makes stale, beside its own URI.
    pub invalidates: Vec<Scope>,
    /// Longest pause within a stream of events.
    pub stream_timeout: Duration,
    /// What bounds its tunnels; `None`: an upgrade is not passed on.
    pub tunnel: Option<Arc<config::Tunnel>>,
}

/// A literal path, and whether everything below it is meant too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The path.
    pub path: String,
    /// Whether it ended in `/*`.
    pub and_below: bool,
}
