//! What an unsafe request makes stale in the cache, RFC 9111 §4.4.

use http::{HeaderMap, StatusCode};

use super::request::Request;
use crate::cache::{self, Scope};
use crate::store::budget;

/// The duty to make stale what an unsafe request changes, from before it is sent until its outcome
/// is dealt with.
pub(super) struct Invalidation<'a> {
    request: &'a Request<'a>,
    armed: bool,
    /// This request has waited for the store in vain already, and waits no second time.
    store_is_away: bool,
}

impl<'a> Invalidation<'a> {
    /// Armed, if the request's method is unsafe and anything is cached. `store_is_away`: this
    /// request has waited for the store in vain already, and waits no second time.
    pub(super) fn arm(request: &'a Request<'a>, store_is_away: bool) -> Self {
        let armed =
            cache::invalidates(&request.received.method, None) && request.running().caches();
        Self { request, armed, store_is_away }
    }

    /// The epochs that an outcome changes (RFC 9111 §4.4, RFC 9875 §3), and those that the route
    /// says it changes.
    fn epochs(&self, answer: Option<(StatusCode, &HeaderMap)>) -> Vec<String> {
        let Request { received, route, target, .. } = *self.request;
        let (plan, scheme) = (self.request.plan(), self.request.client().scheme);
        let keys = &plan.keys;
        let encoded_slash = plan.config.server.limits.encoded_slash;
        let own = cache::Own { scheme, target, encoded_slash };
        let targets = cache::targets(&received.method, answer, &own);
        if targets.paths.is_empty() {
            return Vec::new();
        }
        let site = target.authority.site();
        let mut epochs = Vec::new();
        if !targets.groups.is_empty() {
            epochs.push(keys.cache_tags_clock());
        }
        epochs.extend(targets.groups.iter().map(|group| {
            let group = group.as_bytes();
            Scope::Group { scheme, site: &site, group }.epoch(keys)
        }));
        let also = route.invalidates.iter().map(|scope| (&scope.path, scope.and_below));
        for (path, and_below) in targets.paths.iter().map(|path| (path, false)).chain(also) {
            let names = plan.names_of(path);
            epochs.extend(names.iter().map(|name| cache::scope(keys, &site, name, and_below)));
        }
        epochs
    }

    /// Makes copies stale when the outcome calls for it, before the answer is passed on.
    pub(super) async fn carry_out(&mut self, answer: Option<(StatusCode, &HeaderMap)>) {
        if !std::mem::take(&mut self.armed) {
            return;
        }
        let (cache, epochs) = (&self.request.gateway().cache, self.epochs(answer));
        if epochs.is_empty() {
            // It failed, and changed nothing.
        } else if self.store_is_away {
            cache.invalidate_later(epochs);
        } else {
            // Also where the client leaves meanwhile.
            let invalidation = cache.invalidate(epochs);
            Box::pin(budget::scope_from(self.request.waited, invalidation)).await;
        }
    }

    /// The request was never sent, so it changed nothing.
    pub(super) fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Invalidation<'_> {
    /// The client left while the upstream was at work: the outcome is unknown, so the copies go.
    fn drop(&mut self) {
        if self.armed {
            self.request.gateway().cache.invalidate_later(self.epochs(None));
        }
    }
}
