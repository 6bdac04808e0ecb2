//! What the cache asks of the store for one request, and what the answer is worth to it.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::answer::{self, CacheDebug, CacheNotes, RequestView, Served};
use super::body;
use super::candidates::{self, Candidate, EpochsNow, decoded, variant_names};
use super::entry_key::KeyWithEpochs;
use super::http_cache::HttpCache;
use super::lease::PLAIN;
use super::leases::{Lease, LeaseOutcome};
use super::miss::{Miss, Refresh, is_shareable, response_name};
use super::near::L1Entry;
use super::route::{Origin, RouteCache};
use super::write_through::{Write, Writer};
use crate::base::facts::{Caller, Client, Target};
use crate::cache::{self, CacheKey, Forward, Intent, Source, Stored, Verdict};
use crate::forwarding::fields;
use crate::store::{Cached, CachedEntry, CachedReply, Epoch, Known, Reply, StoreError};

/// A request on a route with a cache.
#[derive(Debug, Clone, Copy)]
pub struct LookupRequest<'a> {
    /// What an answer depends on.
    pub view: RequestView<'a>,
    /// Its target as it is forwarded.
    pub target: &'a Target,
    /// The client.
    pub client: &'a Client,
    /// Who calls.
    pub caller: &'a Caller,
    /// Whether it has a body, announced or not.
    pub has_body: bool,
    /// Whether the client may know the key.
    pub is_debugger: bool,
}

/// What the cache wants to know for one request.
#[derive(Debug)]
pub struct Lookup {
    key: Arc<CacheKey>,
    origin: Arc<Origin>,
    intent: Intent,
    /// This node's copies, which count only if the epochs agree.
    near: Option<Arc<L1Entry>>,
    /// The epochs that are asked, where the copies have tags: those of the tags stand before the
    /// last one of the key. Otherwise those of the key are asked alone.
    tagged: Vec<String>,
    /// The epochs, where this node knows them without asking and needs nothing else.
    known: Option<Vec<Known>>,
    /// The variants that are asked, where no copy here is fresh.
    variants: Vec<String>,
    /// The lease on the fetch, should one be needed.
    wanted: Option<WantedLease>,
    /// Who fetches this variant for the fleet.
    lease: (String, LeaseOutcome),
    authenticated: bool,
    per_user: bool,
    is_debugger: bool,
    /// Whether it is a write whose answer may be stored.
    writes: bool,
}

/// A lease that is asked for before it is known whether it is needed.
#[derive(Debug)]
struct WantedLease {
    lease: Lease,
    /// The variant and the epochs that it is named by, both a guess.
    variant: String,
    epochs: Vec<Epoch>,
}

/// What the cache has for a request.
#[derive(Debug)]
pub enum Found {
    /// This answers it; and it is to be fetched anew behind the client's back where it is stale, or
    /// will be soon, and nobody does that yet.
    Hit(Served, Option<Box<Refresh>>),
    /// Nothing: the response is to be fetched by the rules of the cache.
    Miss(Box<Miss>),
    /// The cache has no part in the request, which goes to the upstream as it is.
    Pass(CacheNotes),
    /// The same of a write, whose answer may be stored.
    Write(Box<Write>),
    /// Nothing, and the client wants it from the cache only (RFC 9111 §5.2.1.7).
    OnlyIfCached,
}

/// The answer of the store to one request.
struct Looked<'a> {
    cache: &'a Arc<HttpCache>,
    reply: CachedReply,
    view: RequestView<'a>,
}

impl Lookup {
    /// What the cache of a route asks for a request.
    pub fn of(
        cache: &Arc<HttpCache>,
        route: &Arc<RouteCache>,
        request: &LookupRequest<'_>,
    ) -> Self {
        let LookupRequest { view, target, client, caller, .. } = *request;
        let policy = &route.policy;
        let odd = request.has_body
            || fields::nominates(view.fields)
            || !CacheKey::is_known(policy, caller);
        let intent = cache::lookup(policy, view.method, view.fields, odd);
        let is_plain = !fields::nominates(view.fields) && CacheKey::is_known(policy, caller);
        let writes = is_plain
            && !intent.no_store
            && cache::may_write_through(policy.write_through, (view.method, view.fields), target);
        let (near, key) = find_near(cache, route, request, intent.read);
        let site = target.authority.site().into_owned();
        let origin = Origin { route: Arc::clone(route), scheme: client.scheme, site };
        let copies = near.as_deref().map_or(&[][..], |entry| &entry.variants);
        let now_ms = cache.now_ms();
        let is_fresh =
            |copy: &Arc<Stored>| copy.remaining_ms(now_ms) > 0 && cache::selects(copy, view.fields);
        let has_fresh = copies.iter().any(is_fresh);
        let variants =
            if intent.read && !has_fresh { variants_of(copies, view.fields) } else { Vec::new() };
        let tagged = tagged(&key, &origin, copies);
        let known = (has_fresh && cache.is_settled())
            .then(|| cache.store.known_epochs(asked(&tagged, &key)))
            .flatten();
        // The lease on the fetch, should one be needed: of the variant that the newest copy tells.
        let is_private = policy.forward_conditions && cache::is_conditional(view.fields);
        let may_fetch = !intent.only_if_cached && !is_private;
        let fetches = may_fetch && !has_fresh && is_shareable(&intent);
        let variant = variants.get(1).map_or(PLAIN, String::as_str);
        let is_shared = fetches && !cache.coalescer.is_hit_for_pass(&response_name(&key, variant));
        let wanted = is_shared.then(|| {
            let epochs = cache.guess_epochs(&key.epochs);
            let lease = Lease::wanted(&cache.leases, key.lock(variant, &epochs));
            WantedLease { lease, variant: variant.to_owned(), epochs }
        });
        Self {
            key,
            origin: Arc::new(origin),
            intent,
            near,
            tagged,
            known,
            variants,
            wanted,
            lease: (String::new(), LeaseOutcome::Unknown),
            authenticated: caller.is_some(),
            per_user: policy.is_per_user(caller),
            is_debugger: request.is_debugger,
            writes,
        }
    }

    /// The question, unless the request passes the cache by or this node knows all there is to ask.
    pub fn question(&self) -> Option<Cached<'_>> {
        let takes_part = self.intent.read || self.intent.store || self.writes;
        let asks = takes_part && self.known.is_none();
        let lock = self.wanted.as_ref().and_then(|wanted| wanted.lease.question());
        let entry = CachedEntry { key: &self.key.entry, variants: &self.variants, lock };
        let entry = (!self.variants.is_empty()).then_some(entry);
        asks.then(|| Cached { epochs: asked(&self.tagged, &self.key), entry })
    }

    /// The store has answered: the lease is this request's, or it is not.
    pub fn on_reply(&mut self, cache: &HttpCache, reply: &Reply<CachedReply>) {
        let Some(WantedLease { lease, variant, epochs: guess }) = self.wanted.take() else {
            return;
        };
        let reply = match reply {
            Ok(reply) => reply,
            // It may have been taken: dropping it gives it back. Should that overtake the taking,
            // on another connection, the lease lapses.
            Err(StoreError::Timeout) => return,
            Err(_) => return drop(lease.on_reply(None)),
        };
        let outcome = lease.on_reply(reply.holder.as_deref());
        let (epochs, _) = self.split(&reply.epochs);
        if self.key.is_same(&guess, &epochs) {
            self.lease = (variant, outcome);
        } else {
            // It is the lease of another moment: theirs is not to be waited for.
            cache.note_epochs(&self.key.epochs, epochs.into_owned());
        }
    }

    /// What is stored that answers the request? `reply` is the store's answer to the question; none
    /// where there was no question.
    pub async fn judge(
        mut self: Box<Self>,
        cache: &Arc<HttpCache>,
        reply: Option<Reply<CachedReply>>,
        view: RequestView<'_>,
    ) -> Found {
        let only_if_cached = self.intent.only_if_cached;
        let known = self.known.take().map(|known| Ok(CachedReply::known(&known)));
        let found = match reply.or(known) {
            Some(Ok(reply)) if self.writes => self.write(cache, reply, view),
            Some(Err(_)) if self.writes => Found::Pass(self.notes(self.intent.forward)),
            Some(Ok(reply)) => self.look(Looked { cache, reply, view }).await,
            Some(Err(_)) => {
                let mut notes = self.notes(Forward::Bypass);
                notes.detail("no answer from the store");
                self.without_epochs(cache, view, notes)
            }
            None => Found::Pass(CacheNotes::forwarded(self.intent.forward)),
        };
        match found {
            Found::Miss(_) | Found::Pass(_) if only_if_cached => Found::OnlyIfCached,
            found => found,
        }
    }

    /// Of a write. Without the base nothing may be stored.
    fn write(
        self: Box<Self>,
        cache: &Arc<HttpCache>,
        reply: CachedReply,
        view: RequestView<'_>,
    ) -> Found {
        let notes = self.notes(self.intent.forward);
        if !reply.based {
            cache.found_later();
            return Found::Pass(notes);
        }
        let writer = Writer {
            key: self.key,
            origin: self.origin,
            intent: Intent { store: true, ..self.intent },
            authenticated: self.authenticated,
            per_user: self.per_user,
            notes,
        };
        Found::Write(Write::new(cache, writer, reply, view.fields))
    }

    /// Of a request that nothing stored may answer, and whose own answer is stored nowhere.
    pub fn pass_by(self: Box<Self>) -> Found {
        if self.intent.only_if_cached {
            return Found::OnlyIfCached;
        }
        let mut notes = self.notes(Forward::Bypass);
        notes.detail("its caller has written");
        Found::Pass(notes)
    }

    async fn look(self: Box<Self>, at: Looked<'_>) -> Found {
        let Looked { cache, ref reply, view } = at;
        if !reply.based {
            // Without the base nothing stored is valid, and nothing may be stored.
            cache.found_later();
            let notes = self.notes(self.intent.forward);
            return self.without_epochs(cache, view, notes);
        }
        let candidates = self.candidates(&at).await;
        let now_ms = cache.now_ms();
        let best = candidates::best(candidates, view.fields, &self.intent, now_ms);
        let Some((best, verdict)) = best else {
            // Variants may be stored that this request does not select.
            let varies = reply.vary.as_ref().is_some_and(|sets| !sets.trim_ascii().is_empty());
            let mut notes = self.notes(if varies { Forward::Miss } else { self.intent.forward });
            if notes.debug.is_some() && self.has_copies(reply) {
                notes.detail("purged");
            }
            return Found::Miss(self.miss(&at, notes));
        };
        self.use_best(&at, best, verdict).await
    }

    /// Answers with the best of what is stored, or takes it along where it does not answer as it
    /// is.
    async fn use_best(
        self: Box<Self>,
        at: &Looked<'_>,
        best: Candidate,
        verdict: Verdict,
    ) -> Found {
        let cache = at.cache;
        let is_near = self.copies().iter().any(|copy| Arc::ptr_eq(copy, &best.response));
        let mut notes = self.notes(verdict.forward().unwrap_or(Forward::Miss));
        notes.detail(match is_near {
            _ if best.purged => "purged",
            true => "near",
            false => "store",
        });
        let (age, is_fresh) = match verdict {
            Verdict::Fresh { age } => (age, true),
            Verdict::StaleWhileRevalidate { age } => (age, false),
            Verdict::VaryMiss => return Found::Miss(self.miss(at, notes)),
            Verdict::Revalidate | Verdict::RequestForbids => {
                // A body that is gone cannot be confirmed, and stands in for nothing.
                let stale = body::is_there(cache, &best.response).await.then_some(best);
                return Found::Miss(self.miss(at, notes).with_stale(stale));
            }
        };
        if is_fresh && !is_near {
            cache.near.offer(&self.key, &best.response, cache.now_ms());
        }
        let response = answer::from_store(cache, &best.response, at.view, age).await;
        if !is_fresh {
            notes.forward = Some(Forward::Stale);
        }
        let Some(response) = response else {
            // Its body is gone.
            return Found::Miss(self.miss(at, notes));
        };
        self.origin.route.meter.cache_answered(is_near);
        let ttl = best.response.ttl_s(cache.now_ms());
        let served = Served { response, notes: notes.clone().hit(ttl) };
        let miss = if is_fresh {
            self.ahead(at, best, notes)
        } else {
            Some(self.miss(at, notes).with_stale(Some(best)))
        };
        Found::Hit(served, miss.and_then(Miss::into_refresh))
    }

    /// The miss by which a fresh response is fetched anew, where the route wants that for what is
    /// asked for again near its end. A request that says `no-store` or `only-if-cached` brings
    /// nothing about.
    fn ahead(
        self: Box<Self>,
        at: &Looked<'_>,
        best: Candidate,
        notes: CacheNotes,
    ) -> Option<Box<Miss>> {
        let (cache, stored) = (at.cache, Arc::clone(&best.response));
        let share = self.origin.route.policy.refresh_ahead?;
        let may_fetch = self.intent.store && !self.intent.only_if_cached;
        if !may_fetch || !stored.ends_soon(share, cache.now_ms()) {
            return None;
        }
        let mut miss = self.miss(at, notes).with_stale(Some(best));
        // The entry may not have been asked for, and with it what its variants depend on.
        miss.set_variant_of(&stored, at.view.fields);
        cache.coalescer.is_asked_again(&miss.response(), stored.answered_ms).then_some(miss)
    }

    /// Whether anything is stored, valid or not.
    fn has_copies(&self, reply: &CachedReply) -> bool {
        let near = self.copies().first();
        near.is_some() || decoded(&self.key, &reply.variants).next().is_some()
    }

    /// Everything stored that is valid by the epochs of now: what is here, what came with the
    /// answer, and what only the answer told how to ask for.
    async fn candidates(&self, at: &Looked<'_>) -> Vec<Candidate> {
        let Looked { cache, reply, view } = at;
        if !self.intent.read {
            return Vec::new();
        }
        let (epochs, tags) = self.split(&reply.epochs);
        let (key, origin) = (&*self.key, &*self.origin);
        let now = EpochsNow { key, origin, epochs: &epochs, tags: &tags };
        let mut responses = self.copies().to_vec();
        responses.extend(decoded(key, &reply.variants));
        let valid = now.valid(cache, responses).await;
        let is_answer = |candidate: &Candidate| cache::selects(&candidate.response, view.fields);
        if valid.iter().any(is_answer) {
            return valid;
        }
        // Other variants than those that were asked for; or all, when a copy here was trusted.
        let asked = &self.variants;
        let mut others = variant_names(reply.vary.as_deref(), view.fields);
        if asked.is_empty() {
            others.extend(variants_of(self.copies(), view.fields));
        }
        others.retain(|name| !asked.contains(name));
        if others.is_empty() || reply.vary.is_none() && !asked.is_empty() {
            return valid;
        }
        // Boxed, as what is rare and large is: it takes no room in each hit.
        let Ok(values) = Box::pin(cache.store.variants(&key.entry, &others)).await else {
            return valid;
        };
        let found = now.valid(cache, decoded(key, &values).collect()).await;
        valid.into_iter().chain(found).collect()
    }

    /// The miss of a request for which nothing is taken along.
    fn miss(self: Box<Self>, at: &Looked<'_>, notes: CacheNotes) -> Box<Miss> {
        let (epochs, _) = self.split(&at.reply.epochs);
        let names = variant_names(at.reply.vary.as_deref(), at.view.fields);
        let variant = names.into_iter().next().unwrap_or_default();
        let (leased, outcome) = self.lease;
        // The lease of another variant is given back.
        let lease = if leased == variant { outcome } else { LeaseOutcome::Unknown };
        let key = KeyWithEpochs {
            key: self.key,
            epochs: epochs.into(),
            path_epoch: at.reply.path_epoch.clone(),
            origin: self.origin,
        };
        Box::new(Miss {
            cache: Arc::clone(at.cache),
            key,
            intent: self.intent,
            stale: None,
            purged: false,
            variant,
            epochs_unknown: None,
            lease,
            authenticated: self.authenticated,
            per_user: self.per_user,
            notes,
        })
    }

    /// The miss of a request while the epochs are not known: nothing is read, nothing can be
    /// stored, and only those who ask at the same time may share the answer. A pass where it cannot
    /// be shared, or is the upstream's to make for this one request: a part, or a 304.
    fn without_epochs(
        self: Box<Self>,
        cache: &Arc<HttpCache>,
        view: RequestView<'_>,
        notes: CacheNotes,
    ) -> Found {
        if !is_shareable(&self.intent) || cache::is_partial(view.fields) {
            return Found::Pass(notes);
        }
        let (epochs, path_epoch) = (Arc::default(), Bytes::new());
        Found::Miss(Box::new(Miss {
            cache: Arc::clone(cache),
            key: KeyWithEpochs { key: self.key, epochs, path_epoch, origin: self.origin },
            intent: self.intent,
            stale: None,
            purged: false,
            variant: String::new(),
            epochs_unknown: Some(cache.coalescer.epochs_unknown()),
            lease: LeaseOutcome::Unknown,
            authenticated: self.authenticated,
            per_user: self.per_user,
            notes,
        }))
    }

    /// What is told of a request that goes to the upstream.
    fn notes(&self, why: Forward) -> CacheNotes {
        let debug = self.is_debugger.then(|| {
            let key = self.key.entry.clone();
            Box::new(CacheDebug { key, detail: None })
        });
        CacheNotes { debug, ..CacheNotes::forwarded(why) }
    }

    /// This node's copies.
    fn copies(&self) -> &[Arc<Stored>] {
        self.near.as_deref().map_or(&[][..], |entry| &entry.variants)
    }

    /// The epochs of the key, and those of the copies' tags.
    fn split<'e>(&self, epochs: &'e [Epoch]) -> (Cow<'e, [Epoch]>, Vec<(String, Epoch)>) {
        if self.tagged.is_empty() {
            return (epochs.into(), Vec::new());
        }
        let known = self.key.epochs.len().saturating_sub(1);
        let last = epochs.len().saturating_sub(1);
        let key = epochs.iter().take(known).chain(epochs.last()).copied().collect();
        let tags = self.tagged.iter().cloned().zip(epochs.iter().copied());
        (Cow::Owned(key), tags.take(last).skip(known).collect())
    }
}

/// This node's copies of a response where `reads`, and its key.
pub(super) fn find_near(
    cache: &HttpCache,
    route: &RouteCache,
    request: &LookupRequest<'_>,
    reads: bool,
) -> (Option<Arc<L1Entry>>, Arc<CacheKey>) {
    let LookupRequest { target, client, caller, .. } = *request;
    // An upstream may write the host that it is told of into what it answers.
    let authority = client.authority(target);
    let upstream = if *authority == target.authority {
        Cow::Borrowed(&*route.upstream)
    } else {
        Cow::Owned(format!("{};@{}", route.upstream, authority.as_str()))
    };
    let source = Source { route: route.name(), upstream: &upstream, scheme: client.scheme };
    let entry = CacheKey::entry(route.keys(), &route.policy, source, target, caller);
    let near = if reads { cache.near.get(&entry) } else { None };
    // What was kept before a reload may not know of what events purge now.
    let near = near.filter(|near| near.key.by_path_alone() == route.naming().by_path_alone);
    let key = match &near {
        Some(near) => Arc::clone(&near.key),
        None => Arc::new(CacheKey::of(route.keys(), entry, route.naming(), target)),
    };
    (near, key)
}

/// The epochs of a key, with those of the copies' tags before the last one; none where there are no
/// tags.
fn tagged(key: &CacheKey, origin: &Origin, copies: &[Arc<Stored>]) -> Vec<String> {
    let mut tagged = Vec::new();
    for epoch in copies.iter().flat_map(|copy| origin.epochs(copy)) {
        if tagged.is_empty() {
            tagged.clone_from(&key.epochs);
        }
        if !tagged.contains(&epoch) {
            tagged.insert(tagged.len() - 1, epoch);
        }
    }
    tagged
}

/// The epochs that are asked.
fn asked<'a>(tagged: &'a [String], key: &'a CacheKey) -> &'a [String] {
    if tagged.is_empty() { &key.epochs } else { tagged }
}

/// The variants that a request may be of, as far as the copies here tell; the only one of a
/// response that depends on nothing, where there are none.
fn variants_of(copies: &[Arc<Stored>], fields: &HeaderMap) -> Vec<String> {
    let mut names = vec![PLAIN.to_owned()];
    for copy in copies {
        let set: Vec<_> = copy.vary.iter().map(|(name, _)| name.clone()).collect();
        let name = cache::variant_name(&set, fields);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
