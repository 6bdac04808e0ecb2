//! Asking the upstream for what the cache could not answer: once for all who want it, with what is
//! stored as the fallback and as the thing to be confirmed.

use std::sync::Arc;
use std::time::Duration;

use http::response::Parts as Head;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::super::dispatch::Dispatch;
use super::errand::Errand;
use super::keep::Keeper;
use super::lease::{Lease, Turn};
use super::look::{self, Leased};
use crate::base::body::Upload;
use crate::cache::{self, Asked, Boarding, Lead, Passing, Phase, Reader, Stored, Verdict, WhyNot};
use crate::runtime::Gateway;
use crate::upstream::{Download, Failure};

/// How often a follower waits for another leader after one was lost.
const BOARDINGS_MAX: u32 = 3;

/// A request that goes to the upstream, whose answer may be kept.
pub(in crate::proxy) struct Fetch {
    pub(in crate::proxy) gateway: Arc<Gateway>,
    /// The way to the upstream. It takes the share of the client who asked first, also for what is
    /// shared.
    pub(in crate::proxy) dispatch: Dispatch,
    pub(in crate::proxy) errand: Box<Errand>,
    /// The request as it is forwarded when the cache has no part in it.
    pub(in crate::proxy) request: Request<()>,
    /// The client's fields, which `Vary` selects from.
    pub(in crate::proxy) fields: Arc<HeaderMap>,
    /// A credential was verified.
    pub(in crate::proxy) authenticated: bool,
    /// The entry is this caller's alone.
    pub(in crate::proxy) per_user: bool,
    /// The gateway knows callers on this route.
    pub(in crate::proxy) ends_identity: bool,
}

/// What came of it.
pub(super) enum Fetched {
    /// A stored response answers.
    Stored(Arc<Stored>, How),
    /// The response is kept while it passes.
    Passing {
        head: Box<Head>,
        stored: Arc<Stored>,
        reader: Reader,
        passing: Arc<Passing>,
        /// Whether its length is known.
        measured: bool,
        /// Whether it is kept; where that is decided by its end, whether nothing speaks against it.
        kept: bool,
    },
    /// The same, of somebody else's request.
    Followed { stored: Arc<Stored>, passing: Arc<Passing> },
    /// The response is the client's alone; with why it was not kept, where that was asked.
    Through(Response<Download>, Option<WhyNot>),
}

/// What is noted of a fetch for the record of its request.
#[derive(Debug)]
pub(super) struct Trip<'a> {
    /// How long the upstream took to answer.
    pub(super) took: &'a mut Option<Duration>,
    /// Whether waiting for another request's answer helped; none where it was not tried.
    pub(super) collapsed: Option<bool>,
}

impl Trip<'_> {
    /// The request goes to the upstream itself: if it waited for another one, then in vain.
    fn goes(&mut self) {
        if self.collapsed.is_some() {
            self.collapsed = Some(false);
        }
    }
}

/// When a request was sent and its answer began, in Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) sent_ms: u64,
    pub(super) answered_ms: u64,
}

/// How a stored response came to answer after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The origin confirmed it; with whether it is kept.
    Confirmed(bool),
    /// Another request fetched it.
    Collapsed,
    /// The origin failed, with this status or without an answer, and it is still good enough.
    Instead(Option<StatusCode>),
}

impl Fetch {
    /// Fetches, or waits for who does.
    ///
    /// # Errors
    /// The upstream's failure, where nothing stored may stand in for it.
    pub(super) async fn run(mut self, trip: &mut Trip<'_>) -> Result<Fetched, Failure> {
        let is_shareable = self.errand.is_shareable() && !self.forwards_conditions();
        let boardings = if is_shareable { BOARDINGS_MAX } else { 0 };
        for _ in 0..boardings {
            let follow = match self.errand.board(&self.gateway) {
                Boarding::Lead(lead) => return self.lead(lead, trip).await,
                // A part, or news, of what could not be kept a moment ago is the origin's to give.
                Boarding::Alone if self.errand.stale.is_none() && self.is_partial() => {
                    return Box::pin(self.through(trip)).await;
                }
                Boarding::Alone => break,
                // Of a write at another gateway nobody here knows: whoever comes when the upstream
                // has answered gets an answer from after that.
                Boarding::Follow(follow) if self.errand.unkept.is_some() && !follow.is_early() => {
                    break;
                }
                Boarding::Follow(follow) => {
                    // The one who leads needs the lease.
                    self.errand.turn = Turn::Unknown;
                    follow
                }
            };
            trip.collapsed = Some(true);
            let stored = match follow.landed().await {
                Phase::Passing(stored, passing) if self.takes(&stored) => {
                    return Ok(Fetched::Followed { stored, passing });
                }
                Phase::Stored(stored) if self.takes(&stored) => {
                    return Ok(Fetched::Stored(stored, How::Collapsed));
                }
                Phase::Passing(stored, _) | Phase::Stored(stored) => stored,
                Phase::Failed(status) => return Box::pin(self.failed(status, trip)).await,
                Phase::Alone => break,
                // Whoever has used up his share of the upstream leads nobody else astray.
                Phase::Crowded => {
                    let stale = self.errand.stale.clone();
                    if let Some(stale) = self.stand_in(cache::Failure::NoAnswer, stale) {
                        return Ok(Fetched::Stored(stale, How::Instead(None)));
                    }
                    continue;
                }
                Phase::Abandoned | Phase::Asked | Phase::Unmeasured => continue,
            };
            // What the answer depends on was not known before: those of one variant share it.
            let known = self.errand.variant.clone();
            self.errand.set_variant_of(&stored, &self.fields);
            if self.errand.variant == known {
                break;
            }
        }
        // Nobody waits for what is this client's alone.
        self.errand.turn = Turn::Unknown;
        self.ask(None, None, trip).await
    }

    /// What becomes of a request whose answer somebody else could not get a moment ago: what is
    /// stored, or the same failure. Asking again, one after the other, would be worse.
    async fn failed(
        mut self,
        status: Option<StatusCode>,
        trip: &mut Trip<'_>,
    ) -> Result<Fetched, Failure> {
        let stale = self.errand.stale.take();
        let failure = status.map_or(cache::Failure::NoAnswer, cache::Failure::Status);
        match (self.stand_in(failure, stale), status) {
            (Some(stale), _) => Ok(Fetched::Stored(stale, How::Instead(status))),
            (None, Some(_)) => self.ask(None, None, trip).await,
            (None, None) => Err(Failure::Shared),
        }
    }

    /// Fetches behind the clients' backs, unless somebody in the fleet does already.
    pub(in crate::proxy) async fn refresh(mut self, lead: Lead) {
        let lease = match self.lease(Duration::ZERO).await {
            Leased::Ours(Some(lease), _) => lease,
            Leased::Ours(None, _) => return lead.left_to_others(),
            Leased::Theirs(stored) => {
                lead.succeeded();
                return lead.stored(stored);
            }
        };
        // Whatever becomes of it, it has failed until something is kept.
        self.gateway.flights.failed(&self.errand.flight().answer);
        let mut trip = Trip { took: &mut None, collapsed: None };
        // Nobody waits for it; the flight tells those who came to.
        let _ = self.ask(Some(lead), Some(lease), &mut trip).await;
    }

    /// Fetches for all on this node, and where another node is asking already, waits for what it
    /// gets.
    async fn lead(mut self, lead: Lead, trip: &mut Trip<'_>) -> Result<Fetched, Failure> {
        if self.errand.unkept.is_some() {
            // The store has just not answered, and no request waits for it twice.
            return self.ask(Some(lead), None, trip).await;
        }
        let wait_max = self.errand.site.origin.running.plan.config.store.cache_wait;
        match self.lease(wait_max).await {
            Leased::Ours(lease, is_late) => {
                if is_late {
                    trip.collapsed = Some(true);
                }
                self.ask(Some(lead), lease, trip).await
            }
            // Somebody has stored it since this request looked.
            Leased::Theirs(stored) => {
                trip.collapsed = Some(true);
                lead.stored(Arc::clone(&stored));
                Ok(Fetched::Stored(stored, How::Collapsed))
            }
        }
    }

    /// The fleet's lease on this fetch, or what another node has stored since this request looked.
    async fn lease(&mut self, wait_max: Duration) -> Leased {
        match std::mem::take(&mut self.errand.turn) {
            Turn::Ours(lease) => Leased::Ours(Some(lease), false),
            turn => Box::pin(look::lease(self, turn, wait_max)).await,
        }
    }

    /// Whether what another request got answers this one, too (RFC 9111 §4).
    fn takes(&self, stored: &Stored) -> bool {
        let (now_ms, intent) = (self.gateway.now_ms(), &self.errand.intent);
        let verdict = cache::judge(stored, &self.fields, intent, false, now_ms);
        matches!(verdict, Verdict::Fresh { .. } | Verdict::StaleWhileRevalidate { .. })
    }

    /// Sends the request on as the client made it. Nobody may share the answer.
    pub(super) async fn through(mut self, trip: &mut Trip<'_>) -> Result<Fetched, Failure> {
        trip.goes();
        let request = self.request.clone();
        let response = self.dispatch.send(request, Upload::none(), trip.took).await;
        let failure = match &response {
            Ok(response) => cache::Failure::Status(response.status()),
            Err(_) => cache::Failure::NoAnswer,
        };
        let stale = self.errand.stale.take();
        match (self.stand_in(failure, stale), response) {
            (Some(stale), response) => {
                let status = response.ok().map(|response| response.status());
                Ok(Fetched::Stored(stale, How::Instead(status)))
            }
            (None, response) => response.map(|response| Fetched::Through(response, None)),
        }
    }

    async fn ask(
        mut self,
        lead: Option<Lead>,
        lease: Option<Lease>,
        trip: &mut Trip<'_>,
    ) -> Result<Fetched, Failure> {
        let forwards = self.forwards_conditions();
        let mut stale = self.errand.stale.take();
        let mut conditions = match stale.as_deref() {
            Some(stale) if self.errand.intent.store => cache::conditions(stale),
            _ => Vec::new(),
        };
        let (response, times) = loop {
            let sent = self.send(&conditions, forwards, trip).await;
            let (response, times) = match sent {
                Ok(answered) => answered,
                Err(failure) => {
                    match (lead, &failure) {
                        (Some(lead), Failure::Busy) => lead.crowded(),
                        (Some(lead), _) => lead.failed(None),
                        (None, _) => {}
                    }
                    let instead = self.stand_in(cache::Failure::NoAnswer, stale);
                    return instead
                        .map(|stale| Fetched::Stored(stale, How::Instead(None)))
                        .ok_or(failure);
                }
            };
            let is_news = response.status() != StatusCode::NOT_MODIFIED;
            if is_news || !self.errand.intent.store || forwards {
                break (response, times);
            }
            let headers = response.headers();
            if stale.as_deref().is_some_and(|stale| cache::confirms(stale, headers)) {
                break (response, times);
            }
            if conditions.is_empty() {
                return Err(Failure::Malformed("it answers 304 to a request without conditions"));
            }
            // It speaks of something else than what is stored: ask for all of it.
            conditions.clear();
            stale = None;
        };
        let keeper = Keeper {
            gateway: Arc::clone(&self.gateway),
            policy: Arc::clone(&self.errand.policy),
            site: self.errand.site.clone(),
            replaces: stale.clone(),
            lease,
        };
        let status = response.status();
        if let Some(stale) = stale.as_deref().filter(|_| self.request.method() == Method::HEAD) {
            // Rare, and large: what is boxed takes no room in each miss.
            Box::pin(self.learn(stale, &response, times)).await;
        }
        match stale {
            Some(stale) if status == StatusCode::NOT_MODIFIED && self.errand.intent.store => {
                let confirmed = self.confirmed(&stale, response.headers(), (keeper, lead), times);
                Ok(Box::pin(confirmed).await)
            }
            stale => match self.stand_in(cache::Failure::Status(status), stale) {
                Some(stale) => {
                    if let Some(lead) = lead {
                        lead.failed(Some(status));
                    }
                    Ok(Fetched::Stored(stale, How::Instead(Some(status))))
                }
                None => self.receive(response, (keeper, lead), times, trip).await,
            },
        }
    }

    /// Sends the request once; with the response, when it was sent and answered.
    async fn send(
        &self,
        conditions: &[(HeaderName, HeaderValue)],
        forwards: bool,
        trip: &mut Trip<'_>,
    ) -> Result<(Response<Download>, Times), Failure> {
        trip.goes();
        let mut request = self.request.clone();
        if forwards {
            cache::for_whole(request.headers_mut());
        } else if self.errand.intent.store {
            cache::for_fill(request.headers_mut());
        }
        request.headers_mut().extend(conditions.iter().cloned());
        let sent_ms = self.gateway.now_ms();
        let response = self.dispatch.send(request, Upload::none(), trip.took).await;
        Ok((response?, Times { sent_ms, answered_ms: self.gateway.now_ms() }))
    }

    fn is_partial(&self) -> bool {
        cache::is_partial(self.request.headers())
    }

    /// Whether the client's own conditions are for the upstream to judge, as nothing is stored.
    fn forwards_conditions(&self) -> bool {
        let Errand { policy, intent, stale, .. } = &*self.errand;
        let is_wanted = policy.forward_conditions && intent.store && stale.is_none();
        is_wanted && cache::is_conditional(self.request.headers())
    }

    pub(super) fn asked(&self, times: Times) -> Asked<'_> {
        Asked {
            intent: &self.errand.intent,
            headers: &self.fields,
            authenticated: self.authenticated,
            per_user: self.per_user,
            ends_identity: self.ends_identity,
            sent_ms: times.sent_ms,
        }
    }

    /// What is stored, where it may stand in for a failure.
    fn stand_in(&self, failure: cache::Failure, stale: Option<Arc<Stored>>) -> Option<Arc<Stored>> {
        let Errand { intent, policy, purged, .. } = &*self.errand;
        let now_ms = self.gateway.now_ms();
        stale.filter(|stale| cache::usable_after(failure, (stale, *purged), intent, policy, now_ms))
    }
}
