//! Everything of one gateway that is seen from outside.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::access::AccessLog;
use super::logged_once::LoggedOnce;
use super::metrics::Metrics;
use super::recent::Recent;
use super::top_urls::TopUrls;
use crate::config::Config;

/// The metrics and logs of one gateway.
#[derive(Debug)]
pub struct Observer {
    /// Counters, also of requests outside routes.
    pub metrics: Arc<Metrics>,
    /// Access lines.
    pub access: AccessLog,
    /// Requests that somebody may want to look into.
    pub recent: Recent,
    /// What cached routes are asked for most, while somebody looks.
    pub top_urls: TopUrls,
    /// What the log has said once.
    pub logged: LoggedOnce,
    started: Instant,
}

impl Observer {
    /// Nothing counted yet. Access lines go where the configuration says.
    pub fn new(config: &Config) -> Self {
        let timeouts: Vec<Duration> = config.store.all().map(|store| store.timeout).collect();
        let metrics = Arc::new(Metrics::new(&timeouts));
        let access = AccessLog::open(&config.log, metrics.access_lines());
        let (recent, logged) = (Recent::default(), LoggedOnce::default());
        let top_urls = TopUrls::default();
        Self { metrics, access, recent, top_urls, logged, started: Instant::now() }
    }

    /// How long the gateway has been running.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}
