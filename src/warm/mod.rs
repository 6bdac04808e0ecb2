//! Warming: responses are fetched before anybody asks for them, when the gateway starts, from time
//! to time, and on demand.
//!
//! It is a client like any other, but for a socket: its requests go the way of all requests, so
//! what it leaves behind is what a client's request would. What is fresh already costs the upstream
//! nothing. One node of a fleet does it.

mod client;
mod sitemap;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::client::{Client, Outcome};
use crate::base::http::authority::Authority;
use crate::config::Warm;
use crate::runtime::{Gateway, Running};
use crate::store::{HeldLock, StoreError};

/// How long the lock outlives its last renewal: so long another node waits for one that died.
const LOCK: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(5);
/// How often the routes are looked at.
const TICK: Duration = Duration::from_secs(1);
/// When it is tried again after the upstream answered nothing that could be kept.
const RETRY: Duration = Duration::from_secs(30);
/// Most pages of one sitemap; the rest are left out, and said to be.
const PAGES_MAX: usize = 50_000;

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Responses that were fetched and stored.
    pub stored: usize,
    /// Those that were stored already.
    pub fresh: usize,
    /// Those that were answered and not stored.
    pub not_stored: usize,
    /// Those that were refused, or not answered.
    pub failed: usize,
    /// Paths that another route answers, or none.
    pub elsewhere: usize,
}

impl Report {
    /// Whether nothing came of it: the upstream is away, or not there yet.
    fn is_in_vain(self) -> bool {
        self.failed > 0 && self.stored + self.fresh + self.not_stored == 0
    }
}

/// Why a run did not take place.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The route has no `cache.warm`.
    #[error("the route has no cache.warm")]
    NotConfigured,
    /// Another run is at it, here or on another node.
    #[error("the route is being warmed already")]
    Busy,
    /// The sitemap could not be read.
    #[error("the sitemap cannot be read: {0}")]
    Sitemap(String),
    /// The lock could not be taken.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Warms what is configured, when this node starts and when it is due again. Ends with the gateway.
pub async fn keep(gateway: Weak<Gateway>) {
    let mut due: BTreeMap<String, Option<Instant>> = BTreeMap::new();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        let running = gateway.running();
        let warms = running
            .plan
            .config
            .routes
            .iter()
            .filter_map(|(name, route)| Some((name, route.cache.as_ref()?.warm.as_ref()?)));
        for (name, warm) in warms {
            let at = due.entry(name.clone()).or_insert_with(|| Some(Instant::now()));
            if gateway.is_draining() || at.is_none_or(|at| at > Instant::now()) {
                continue;
            }
            let again = match route(&gateway, name).await {
                Ok(report) => {
                    tracing::info!(route = name, ?report, "warmed");
                    if report.is_in_vain() { Some(RETRY) } else { warm.every }
                }
                // The one who does it does it for all.
                Err(Refused::Busy) => warm.every,
                // The store may be on its way: soon again.
                Err(Refused::Store(_)) => Some(TICK),
                Err(error) => {
                    tracing::warn!(route = name, %error, "not warmed");
                    Some(RETRY)
                }
            };
            *at = again.map(|pause| Instant::now() + pause);
        }
    }
}

/// Warms one route, unless somebody does.
///
/// # Errors
/// See [`Refused`].
pub async fn route(gateway: &Arc<Gateway>, name: &str) -> Result<Report, Refused> {
    let running = gateway.running();
    let configured = running.plan.config.routes.get(name);
    let warm = configured.and_then(|route| route.cache.as_ref()?.warm.as_ref());
    let (Some(configured), Some(warm)) = (configured, warm) else {
        return Err(Refused::NotConfigured);
    };
    let host = warm.host.as_ref().or(configured.host.as_ref());
    let authority = host.and_then(|host| Authority::parse(host.as_bytes()));
    let authority = authority.ok_or(Refused::NotConfigured)?;
    let key = running.plan.keys.cache_warming(name);
    let lock = HeldLock { key, token: format!("{:032x}", fastrand::u128(..)) };
    if !gateway.store.lock(&lock, LOCK).await? {
        return Err(Refused::Busy);
    }
    let report = tokio::select! {
        report = run(gateway, &running, name, warm, &authority) => report,
        () = renew(gateway, &lock) => Err(Refused::Busy),
    };
    // Where it cannot be given back it ends by itself.
    let _ = gateway.store.unlock(&lock).await;
    report
}

/// Ends when the lock has passed to somebody else.
async fn renew(gateway: &Gateway, lock: &HeldLock) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        if matches!(gateway.store.extend_lock(lock, LOCK).await, Ok(false)) {
            return;
        }
    }
}

async fn run(
    gateway: &Arc<Gateway>,
    running: &Running,
    name: &str,
    warm: &Warm,
    authority: &Authority,
) -> Result<Report, Refused> {
    let client = Client::new(gateway, running, authority);
    let mut paths = warm.urls.clone();
    if let Some(sitemap) = &warm.sitemap {
        let text = client.text(sitemap).await;
        let text = text.map_err(Refused::Sitemap)?;
        paths.extend(sitemap::paths(&text, authority.host()).take(PAGES_MAX));
    }
    let all = paths.len();
    paths.retain(|path| is_of(running, name, authority.host(), path));
    let elsewhere = all - paths.len();
    let none = vec![Vec::new()];
    let variants = if warm.vary.is_empty() { &none } else { &warm.vary };
    let jobs: Vec<Job> = paths
        .iter()
        .flat_map(|path| variants.iter().map(|fields| (path.clone(), fields.clone())))
        .collect();
    let work = Arc::new(Work { jobs, next: AtomicUsize::new(0) });
    // Each of the workers takes its part of the rate.
    let workers = u32::try_from(warm.concurrency).unwrap_or(u32::MAX);
    let pause = Duration::from_secs(1) * workers / warm.per_second.max(1);
    let mut set = JoinSet::new();
    for _ in 0..warm.concurrency {
        let (gateway, work) = (Arc::clone(gateway), Arc::clone(&work));
        set.spawn(work_off(gateway, work, client.clone(), pause));
    }
    let mut report = Report { elsewhere, ..Report::default() };
    while let Some(part) = set.join_next().await {
        let part = part.unwrap_or_default();
        report.stored += part.stored;
        report.fresh += part.fresh;
        report.not_stored += part.not_stored;
        report.failed += part.failed;
    }
    Ok(report)
}

/// A path, and the fields of the variant.
type Job = (String, Vec<(HeaderName, HeaderValue)>);

struct Work {
    jobs: Vec<Job>,
    next: AtomicUsize,
}

async fn work_off(
    gateway: Arc<Gateway>,
    work: Arc<Work>,
    client: Client,
    pause: Duration,
) -> Report {
    let mut report = Report::default();
    let mut ticks = tokio::time::interval(pause.max(Duration::from_millis(1)));
    while let Some((path, fields)) = work.jobs.get(work.next.fetch_add(1, Ordering::Relaxed)) {
        ticks.tick().await;
        if gateway.is_draining() {
            break;
        }
        match client.fetch(path, fields).await {
            Outcome::Fresh => report.fresh += 1,
            Outcome::Stored => report.stored += 1,
            Outcome::NotStored => report.not_stored += 1,
            Outcome::Failed => report.failed += 1,
        }
    }
    report
}

/// Whether the route answers this path.
fn is_of(running: &Running, name: &str, host: &str, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    running.plan.routes.find(host, path, &Method::GET).is_ok_and(|route| route.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_that_got_nothing_at_all_is_in_vain() {
        let none = Report::default();
        for (report, expected) in [
            (none, false),
            (Report { failed: 1, elsewhere: 1, ..none }, true),
            (Report { failed: 1, stored: 1, ..none }, false),
            (Report { failed: 1, fresh: 1, ..none }, false),
            (Report { failed: 1, not_stored: 1, ..none }, false),
        ] {
            assert_eq!(report.is_in_vain(), expected, "{report:?}");
        }
    }
}
