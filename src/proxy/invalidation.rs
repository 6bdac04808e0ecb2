//! What an unsafe request changes for others: its caller is marked as one who has written, and what
//! it makes stale in the cache goes (RFC 9111 §4.4).

use http::{HeaderMap, StatusCode};

use super::pools;
use super::request::Request;
use crate::cache::{self, Scope};
use crate::config::StoreUse;
use crate::runtime::Wrote;
use crate::store::{EpochChange, budget};

/// The duty to make stale what an unsafe request changes, from before it is sent until its outcome
/// is dealt with.
pub(super) struct Invalidation<'a> {
    request: &'a Request<'a>,
    /// Whether its caller is to be marked yet, where its upstream has readers.
    marks: bool,
    armed: bool,
    /// Whether the store has its marks, as far as there are any.
    is_marked: bool,
    /// The epochs that are known to change.
    due: Vec<String>,
    /// This request has waited for the store in vain already, and waits no second time.
    store_is_away: bool,
}

impl<'a> Invalidation<'a> {
    /// Armed, if the request's method is unsafe and anything is cached; nothing where the request
    /// changes nothing for others. `store_is_away`: this request has waited for the store in vain
    /// already, and waits no second time.
    pub(super) fn arm(request: &'a Request<'a>, store_is_away: bool) -> Option<Self> {
        let armed =
            cache::invalidates(&request.received.method, None) && request.running().caches();
        let (marks, is_marked, due) = (true, true, Vec::new());
        let is_needed = armed || pools::is_writer(request);
        is_needed.then(|| Self { request, marks, armed, is_marked, due, store_is_away })
    }

    /// Marks the caller and makes copies stale when the outcome calls for it, before the answer is
    /// passed on.
    pub(super) async fn carry_out(&mut self, answer: Option<(StatusCode, &HeaderMap)>) {
        drop(self.carry_out_for(answer, false).await);
    }

    /// The same, and what was there before, if that is wanted (`tells`) and known.
    pub(super) async fn carry_out_for(
        &mut self,
        answer: Option<(StatusCode, &HeaderMap)>,
        tells: bool,
    ) -> Option<Vec<EpochChange>> {
        if std::mem::take(&mut self.armed) {
            self.due = epochs(self.request, answer);
        }
        // First: whoever fetches what is stale from then on must know that readers are behind.
        if let Some(wrote) = self.wrote(answer) {
            // Rare: boxed, it takes no room in the other requests.
            Box::pin(self.mark(wrote)).await;
        }
        self.marks = false;
        let (gateway, epochs) = (self.request.gateway(), std::mem::take(&mut self.due));
        if epochs.is_empty() {
            // It failed, and changed nothing.
            return None;
        }
        if self.store_is_away {
            gateway.pools.invalidate_later(epochs);
            return None;
        }
        if !self.is_marked {
            gateway.pools.invalidate_again(&epochs);
        }
        // Also where the client leaves meanwhile.
        if tells && self.is_marked {
            let invalidation = gateway.cache.invalidate_and_tell(epochs);
            return Box::pin(budget::scope_from(self.request.waited, invalidation)).await;
        }
        let invalidation = gateway.cache.invalidate(epochs);
        Box::pin(budget::scope_from(self.request.waited, invalidation)).await;
        None
    }

    /// The target of the request, as answers name it.
    pub(super) fn own(&self) -> cache::Own<'a> {
        let encoded_slash = self.request.plan().config.server.limits.encoded_slash;
        let Request { target, .. } = *self.request;
        cache::Own { scheme: self.request.client().scheme, target, encoded_slash }
    }

    /// What is to be marked yet: that the caller has written, and that what is stored is stale,
    /// whoever's it was.
    fn wrote(&self, answer: Option<(StatusCode, &HeaderMap)>) -> Option<Wrote> {
        let caller = if self.marks { pools::wrote(self.request, answer) } else { None };
        let is_stale = self.marks && !self.due.is_empty();
        let anybody = if is_stale { Wrote::by_anybody(self.request.plan()) } else { None };
        match (caller, anybody) {
            (Some(caller), Some(anybody)) => Some(caller.and(anybody)),
            (caller, anybody) => caller.or(anybody),
        }
    }

    /// Sets marks; later, where this request has waited for the store in vain already.
    async fn mark(&mut self, wrote: Wrote) {
        let gateway = self.request.gateway();
        let is_one = gateway.store.is_one_for(StoreUse::Main, StoreUse::Cache);
        if self.store_is_away && is_one {
            gateway.pools.mark_later(&wrote);
            return;
        }
        let marked = gateway.pools.mark(&wrote);
        let marked = budget::scope_from(self.request.waited, marked).await;
        self.is_marked = marked.is_ok();
        // What it refuses is an answer.
        self.store_is_away |= is_one && marked.is_err_and(|error| error.is_outage());
    }

    /// The request was never sent, so it changed nothing.
    pub(super) fn disarm(&mut self) {
        self.marks = false;
        self.armed = false;
    }
}

/// The epochs that an outcome changes (RFC 9111 §4.4, RFC 9875 §3), and those that the route says
/// it changes.
fn epochs(request: &Request<'_>, answer: Option<(StatusCode, &HeaderMap)>) -> Vec<String> {
    let Request { received, route, target, .. } = *request;
    let (plan, scheme) = (request.plan(), request.client().scheme);
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

/// The epochs that a request changes which is delivered later, whatever is answered then; none
/// where nothing is cached.
pub(super) fn later(request: &Request<'_>) -> Vec<String> {
    if request.running().caches() { epochs(request, None) } else { Vec::new() }
}

impl Drop for Invalidation<'_> {
    /// The client left while the upstream was at work: the outcome is unknown, so the copies go.
    fn drop(&mut self) {
        let gateway = self.request.gateway();
        if self.armed {
            self.due = epochs(self.request, None);
        }
        if let Some(wrote) = self.wrote(None) {
            gateway.pools.mark_later(&wrote);
        }
        if !self.due.is_empty() {
            // Behind the marks: whoever fetches anew must find them.
            gateway.pools.invalidate_later(std::mem::take(&mut self.due));
        }
    }
}
