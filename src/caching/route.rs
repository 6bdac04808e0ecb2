//! What the cache knows of one route: compiled with the plan, shared by all its requests.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::base::http::path::Reading;
use crate::cache::{Naming, Scope, Stored};
use crate::config;
use crate::forwarding::fields;
use crate::observe::RouteMeter;
use crate::plan::{Plan, Route};
use crate::store::keys::Keys;

/// The cache's part of a route.
#[derive(Debug)]
pub struct RouteCache {
    /// The route's rules.
    pub(super) policy: Arc<config::Cache>,
    /// The route's counters.
    pub(super) meter: Arc<RouteMeter>,
    /// How long a request waits for what another node fetches.
    pub(super) lease_wait: Duration,
    /// The name of its upstream.
    pub(super) upstream: String,
    /// How its upstream reads paths.
    reading: Reading,
    /// Whether events purge paths on every host.
    by_path_alone: bool,
    route: Arc<Route>,
    plan: Arc<Plan>,
}

impl RouteCache {
    /// The cache of a route, if it has one, for what its upstream of this index answers.
    pub fn of(
        plan: &Arc<Plan>,
        (route, upstream): (&Arc<Route>, usize),
        meter: &Arc<RouteMeter>,
    ) -> Option<Arc<Self>> {
        let policy = Arc::clone(route.cache.as_ref()?);
        let upstream = plan.upstreams.get(upstream);
        Some(Arc::new(Self {
            policy,
            meter: Arc::clone(meter),
            lease_wait: plan.config.store.cache_wait,
            upstream: upstream.map(|(name, _)| name.clone()).unwrap_or_default(),
            reading: upstream.map(|(_, upstream)| upstream.paths).unwrap_or_default(),
            by_path_alone: plan.purges_paths_alone(),
            route: Arc::clone(route),
            plan: Arc::clone(plan),
        }))
    }

    /// The name of the upstream whose responses these are.
    pub fn upstream(&self) -> &str {
        &self.upstream
    }

    /// The route's name.
    pub(super) fn name(&self) -> &str {
        &self.route.name
    }

    /// Under which epochs its responses are valid.
    pub(super) fn naming(&self) -> Naming<'_> {
        let Self { reading, by_path_alone, .. } = *self;
        Naming { route: self.name(), reading, by_path_alone }
    }

    /// Formats store keys.
    pub(super) fn keys(&self) -> &Keys {
        &self.plan.keys
    }

    /// Whether the gateway knows callers on this route, by tokens or sessions.
    pub(super) fn ends_identity(&self) -> bool {
        self.route.auth.is_some() || self.route.session.is_some()
    }

    /// Whether what selects a response is what clients send, and may be stored: what the gateway
    /// itself sets cannot be compared with that, and credentials are stored nowhere.
    pub(super) fn is_comparable<V>(&self, vary: &[(HeaderName, V)]) -> bool {
        let auth = self.route.auth.as_ref();
        !vary.iter().any(|(name, _)| {
            fields::is_set_by_gateway(&self.plan.headers, name)
                || auth.is_some_and(|auth| auth.reads(name))
        })
    }
}

/// Who may name tags and groups, so that nobody can purge another's.
#[derive(Debug)]
pub(super) struct Origin {
    /// Tags are those of its upstream.
    pub(super) route: Arc<RouteCache>,
    /// `http` or `https`, as the client sees it.
    pub(super) scheme: &'static str,
    /// Host and port as the client sees them: groups are the site's (RFC 9875 §2).
    pub(super) site: String,
}

impl Origin {
    /// A response of this origin was not stored.
    pub(super) fn not_stored(&self, reason: &'static str) {
        self.route.meter.cache_not_kept(reason);
    }

    /// The keys of the epochs of a response's tags and groups.
    pub(super) fn epochs(&self, stored: &Stored) -> Vec<String> {
        let (keys, site) = (self.route.keys(), &*self.route.upstream);
        let tag = |tag: &String| Scope::Tag { site, tag: tag.as_bytes() }.epoch(keys);
        let (scheme, site) = (self.scheme, &*self.site);
        let group =
            |group: &String| Scope::Group { scheme, site, group: group.as_bytes() }.epoch(keys);
        stored.tags.iter().map(tag).chain(stored.groups.iter().map(group)).collect()
    }
}
