//! The names among the servers of an upstream, and who is asked for them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::names::{Names, News};
use super::resolver::Resolver;
use crate::config;

/// See the module.
pub(super) struct Directory {
    upstream: String,
    settings: config::Upstream,
    resolver: Result<Resolver, String>,
    names: Mutex<Names>,
}

impl Directory {
    /// Of the upstream with these settings, of which this is known.
    pub(super) fn new(upstream: &str, settings: &config::Upstream, names: Names) -> Self {
        Self {
            upstream: upstream.to_owned(),
            settings: settings.clone(),
            resolver: Resolver::new(settings),
            names: Mutex::new(names),
        }
    }

    /// The name of the upstream.
    pub(super) fn upstream(&self) -> &str {
        &self.upstream
    }

    /// What was configured.
    pub(super) fn settings(&self) -> &config::Upstream {
        &self.settings
    }

    /// What is known of the names.
    pub(super) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks up what is new, for as long as a connection may take. Returns what is known then.
    pub(super) async fn look_ahead(self) -> Names {
        let directory = Arc::new(self);
        let due = directory.names().due(false).into_iter();
        let one = |(at, written)| {
            let directory = Arc::clone(&directory);
            async move { directory.look_up(at, written).await }
        };
        let mut lookups: JoinSet<bool> = due.map(one).collect();
        let all = async { while lookups.join_next().await.is_some() {} };
        let _ = timeout(directory.settings.connect_timeout, all).await;
        std::mem::take(&mut directory.names())
    }

    /// Looks up one name, and says what is new. True where that is anything.
    pub(super) async fn look_up(&self, at: usize, written: config::Endpoint) -> bool {
        let answer = match &self.resolver {
            Ok(resolver) => resolver.look_up(&written).await,
            Err(why) => Err(why.clone()),
        };
        let news = self.names().learn(at, answer, self.settings.dns_refresh);
        news.iter().for_each(|news| self.tell(&written.host, news));
        !news.is_empty()
    }

    /// Forgets what was answered too long ago.
    pub(super) fn forget(&self) {
        let gone = self.names().forget(self.settings.dns_stale);
        gone.iter().for_each(|name| self.tell(name, &News::Gone));
    }

    fn tell(&self, name: &str, news: &News) {
        let upstream = &self.upstream;
        match news {
            News::Servers(servers) => {
                tracing::info!("upstreams.{upstream}: {name} is at {}", servers.join(", "));
            }
            News::Fault(why) => tracing::warn!(
                "upstreams.{upstream}: {name} cannot be looked up: {why}\n    help: what was \
                 known of it is used for dns_stale"
            ),
            News::Gone => tracing::warn!(
                "upstreams.{upstream}: {name} has not been found for dns_stale, and has no server \
                 any more"
            ),
        }
    }
}
