//! Asking the upstream for what the cache could not answer: once for all who want it, with what is
//! stored as the fallback and as the thing to be confirmed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, RANGE};
use http::response::Parts as Head;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use tokio::time::Instant;

use super::super::offering;
use super::Errand;
use super::fill::{self, Filling};
use super::keep::Keeper;
use super::lease::Lease;
use super::look::{self, Leased};
use crate::base::body::Upload;
use crate::base::interim::Interim;
use crate::cache::{
    self, Asked, Boarding, Chunked, Freshness, Lead, Passing, Phase, Reader, Stored, StoredBody,
    WhyNot,
};
use crate::gateway::Gateway;
use crate::headers;
use crate::upstream::{Download, Failure, Upstream};

/// How often a follower waits for another leader after one was lost.
const BOARDINGS_MAX: u32 = 3;

/// A request that goes to the upstream, whose answer may be kept.
pub(in crate::pipeline) struct Fetch {
    pub(in crate::pipeline) gateway: Arc<Gateway>,
    pub(in crate::pipeline) upstream: Arc<Upstream>,
    pub(in crate::pipeline) errand: Box<Errand>,
    /// The request as it is forwarded when the cache has no part in it.
    pub(in crate::pipeline) request: Request<()>,
    /// The way of interim responses to the client.
    pub(in crate::pipeline) interim: Option<Arc<Interim>>,
    /// The client's fields, which `Vary` selects from.
    pub(in crate::pipeline) fields: HeaderMap,
    /// A credential was verified, or forwarded.
    pub(in crate::pipeline) authenticated: bool,
    /// The entry is this caller's alone.
    pub(in crate::pipeline) per_user: bool,
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
    },
    /// The same, of somebody else's request.
    Followed { stored: Arc<Stored>, passing: Arc<Passing> },
    /// The response is the client's alone.
    Through(Response<Download>),
}

/// When a request was sent and its answer began, in Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    sent_ms: u64,
    pub(super) answered_ms: u64,
}

/// How a stored response came to answer after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The origin confirmed it.
    Confirmed,
    /// Another request fetched it.
    Collapsed,
    /// The origin failed, and it is still good enough.
    Instead,
}

impl Fetch {
    /// Fetches, or waits for who does.
    ///
    /// # Errors
    /// The upstream's failure, where nothing stored may stand in for it.
    pub(super) async fn run(self, took: &mut Option<Duration>) -> Result<Fetched, Failure> {
        let boardings = if self.errand.is_shareable() { BOARDINGS_MAX } else { 0 };
        for _ in 0..boardings {
            match self.errand.board(&self.gateway) {
                Boarding::Lead(lead) => return self.lead(lead, took).await,
                // What is stored may still be confirmed, or stand in for a failure.
                Boarding::Alone if self.errand.stale.is_some() => break,
                Boarding::Alone => return self.through(took).await,
                Boarding::Follow(follow) => match follow.landed().await {
                    Phase::Passing(stored, passing) if cache::selects(&stored, &self.fields) => {
                        return Ok(Fetched::Followed { stored, passing });
                    }
                    Phase::Stored(stored) if self.takes(&stored) => {
                        return Ok(Fetched::Stored(stored, How::Collapsed));
                    }
                    // Whose answer it is, or what it is chosen by, was not known before.
                    Phase::Passing(..) | Phase::Stored(_) | Phase::Alone => break,
                    Phase::Abandoned | Phase::Asked | Phase::Unmeasured => {}
                },
            }
        }
        self.ask(None, None, took).await
    }

    /// Fetches behind the clients' backs, unless somebody in the fleet does already.
    pub(in crate::pipeline) async fn refresh(self, lead: Lead) {
        let mut lease = None;
        if self.gateway.store.is_shared() {
            match self.lease(Duration::ZERO).await {
                Leased::Ours(Some(ours)) => lease = Some(ours),
                Leased::Ours(None) => return lead.alone_once(),
                Leased::Theirs(stored) => return lead.stored(stored),
            }
        }
        let (gateway, flight) = (Arc::clone(&self.gateway), self.errand.flight());
        match self.ask(Some(lead), lease, &mut None).await {
            // A body of unknown length is read only while somebody wants it.
            Ok(Fetched::Passing { mut reader, .. }) => {
                gateway.flights.succeeded(&flight);
                while let Some(Ok(_)) = std::future::poll_fn(|cx| reader.poll_next(cx)).await {}
            }
            Ok(Fetched::Stored(_, How::Confirmed)) => gateway.flights.succeeded(&flight),
            _ => gateway.flights.failed(&flight),
        }
    }

    /// Fetches for all on this node, and where another node is asking already, waits for what it
    /// gets.
    async fn lead(self, lead: Lead, took: &mut Option<Duration>) -> Result<Fetched, Failure> {
        // Also where nobody shares the store: the leader before may have stored the response since
        // this request looked.
        let lease = match self.lease(look::WAIT_MAX).await {
            Leased::Ours(ours) => ours,
            Leased::Theirs(stored) => {
                lead.stored(Arc::clone(&stored));
                return Ok(Fetched::Stored(stored, How::Collapsed));
            }
        };
        self.ask(Some(lead), lease, took).await
    }

    /// The fleet's lease on this fetch, or what another node has stored since this request looked.
    async fn lease(&self, wait_max: Duration) -> Leased {
        look::lease(&self.gateway, &self.errand, &self.fields, wait_max).await
    }

    /// Whether what another request got answers this one.
    fn takes(&self, stored: &Stored) -> bool {
        let (now_ms, Errand { intent, policy, .. }) = (self.gateway.now_ms(), &*self.errand);
        cache::selects(stored, &self.fields)
            && (stored.is_shareable(now_ms)
                || cache::usable_after(cache::Failure::NoAnswer, stored, intent, policy, now_ms))
    }

    /// Sends the request on as the client made it. Nobody may share the answer.
    async fn through(self, took: &mut Option<Duration>) -> Result<Fetched, Failure> {
        let sent_at = Instant::now();
        let on_interim = self.interim.map(offering);
        let response = self.upstream.send(self.request, Upload::none(), on_interim).await;
        *took = Some(sent_at.elapsed());
        response.map(Fetched::Through)
    }

    async fn ask(
        mut self,
        lead: Option<Lead>,
        lease: Option<Lease>,
        took: &mut Option<Duration>,
    ) -> Result<Fetched, Failure> {
        let mut stale = self.errand.stale.take();
        let mut conditions = match stale.as_deref() {
            Some(stale) if self.errand.intent.store => cache::conditions(stale),
            _ => Vec::new(),
        };
        let (response, times) = loop {
            let sent = self.send(&conditions, took).await;
            let (response, times) = match sent {
                Ok(answered) => answered,
                Err(failure) => {
                    let instead = self.stand_in(cache::Failure::NoAnswer, stale);
                    return instead.map(|stale| settled(stale, lead)).ok_or(failure);
                }
            };
            let is_news = response.status() != StatusCode::NOT_MODIFIED;
            if is_news || !self.errand.intent.store {
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
            lease,
        };
        let status = response.status();
        if let Some(stale) = stale.as_deref().filter(|_| self.request.method() == Method::HEAD) {
            self.learn(stale, &response, times).await;
        }
        match stale {
            Some(stale) if status == StatusCode::NOT_MODIFIED && self.errand.intent.store => {
                Ok(self.confirmed(&stale, response.headers(), (keeper, lead), times).await)
            }
            stale => match self.stand_in(cache::Failure::Status(status), stale) {
                Some(stale) => Ok(settled(stale, lead)),
                None => self.receive(response, (keeper, lead), times, took).await,
            },
        }
    }

    /// Sends the request once; with the response, when it was sent and answered.
    async fn send(
        &self,
        conditions: &[(HeaderName, HeaderValue)],
        took: &mut Option<Duration>,
    ) -> Result<(Response<Download>, Times), Failure> {
        let mut request = self.request.clone();
        if self.errand.intent.store {
            cache::for_fill(request.headers_mut());
        }
        request.headers_mut().extend(conditions.iter().cloned());
        let (sent_at, sent_ms) = (Instant::now(), self.gateway.now_ms());
        let on_interim = self.interim.clone().map(offering);
        let response = self.upstream.send(request, Upload::none(), on_interim).await;
        *took = Some(sent_at.elapsed());
        Ok((response?, Times { sent_ms, answered_ms: self.gateway.now_ms() }))
    }

    pub(super) fn asked(&self, times: Times) -> Asked<'_> {
        Asked {
            intent: &self.errand.intent,
            headers: &self.fields,
            authenticated: self.authenticated,
            per_user: self.per_user,
            cookie: self.fields.contains_key(COOKIE),
            sent_ms: times.sent_ms,
        }
    }

    /// What is stored, where it may stand in for a failure.
    fn stand_in(&self, failure: cache::Failure, stale: Option<Arc<Stored>>) -> Option<Arc<Stored>> {
        let Errand { intent, policy, .. } = &*self.errand;
        let now_ms = self.gateway.now_ms();
        stale.filter(|stale| cache::usable_after(failure, stale, intent, policy, now_ms))
    }

    /// The origin says that what is stored still holds.
    async fn confirmed(
        self,
        stale: &Stored,
        headers: &HeaderMap,
        (keeper, lead): (Keeper, Option<Lead>),
        times: Times,
    ) -> Fetched {
        let policy = &self.errand.policy;
        let fresh = cache::freshened(stale, headers, policy, &self.asked(times), times.answered_ms);
        let stored = match fresh.keep {
            Ok(()) => keeper.keep(fresh.stored, &self.fields).await,
            Err(_) => {
                self.gateway.near.forget(&stale.key);
                Arc::new(fresh.stored)
            }
        };
        let is_shareable = fresh.keep.is_ok() && stored.is_shareable(times.answered_ms);
        match lead {
            Some(lead) if is_shareable => lead.stored(Arc::clone(&stored)),
            Some(lead) => lead.alone(),
            None => {}
        }
        Fetched::Stored(stored, How::Confirmed)
    }

    /// A whole response: kept while it passes, if it may be.
    async fn receive(
        self,
        response: Response<Download>,
        (keeper, lead): (Keeper, Option<Lead>),
        times: Times,
        took: &mut Option<Duration>,
    ) -> Result<Fetched, Failure> {
        let (mut head, download) = response.into_parts();
        let freshness = match self.storable(&head, times) {
            Ok(freshness) => freshness,
            Err(why) => {
                self.errand.site.origin.not_kept(why.code());
                match lead {
                    // The next answer may be another one.
                    Some(lead) if head.status.is_server_error() => lead.alone_once(),
                    Some(lead) => lead.alone(),
                    None => {}
                }
                if self.errand.intent.store && self.request.headers().contains_key(RANGE) {
                    // The client wants a part of what cannot be kept: it gets the part.
                    drop(download);
                    return self.through(took).await;
                }
                return Ok(Fetched::Through(Response::from_parts(head, download)));
            }
        };
        let announced = length(&head);
        let kept = Stored::new(
            self.errand.site.place.entry.clone(),
            cache::Epochs::default(),
            head.status,
            cache::stored_headers(&head.headers),
            freshness,
            StoredBody::Inline(Bytes::new()),
        );
        headers::returning(&mut head.headers);
        let (passing, writer) = Passing::begin();
        let reader = passing.read(Reader::ALL);
        let promised = Arc::new(promise(&kept, announced));
        let lead = match lead {
            Some(lead) if !kept.is_shareable(times.answered_ms) => {
                lead.alone();
                None
            }
            Some(lead) if announced.is_some() => {
                lead.passing(Arc::clone(&promised), Arc::clone(&passing));
                Some(lead)
            }
            lead => lead.inspect(Lead::unmeasured),
        };
        let fields = self.fields;
        let filling = Filling { download, writer, announced, head: kept, fields, keeper, lead };
        let (stored, whole) = match fill::begin(filling).await {
            Ok(Some(stored)) => (stored, true),
            Ok(None) => (promised, announced.is_some()),
            Err(rest) => {
                tokio::spawn(rest);
                (promised, announced.is_some())
            }
        };
        Ok(Fetched::Passing { head: Box::new(head), stored, reader, passing, measured: whole })
    }

    fn storable(&self, head: &Head, times: Times) -> Result<Freshness, WhyNot> {
        let policy = &self.errand.policy;
        let asked = self.asked(times);
        let freshness =
            cache::storable(policy, &asked, head.status, &head.headers, times.answered_ms)?;
        let plan = &self.errand.site.origin.running.plan;
        // What varies on a field that the gateway itself sets cannot be compared with what a client
        // sends.
        let is_ours = |(name, _): &(HeaderName, _)| headers::is_set_by_gateway(&plan.headers, name);
        if freshness.vary.iter().any(is_ours) { Err(WhyNot::Vary) } else { Ok(freshness) }
    }
}

/// An entry whose body is still to come: what can be said of it before.
fn promise(kept: &Stored, announced: Option<u64>) -> Stored {
    let body = Chunked { object: [0; 16], len: announced.unwrap_or(0), chunk_bytes: 1 };
    Stored { body: StoredBody::Chunked(body), ..kept.clone() }
}

/// What is stored answers, for all who wait.
fn settled(stale: Arc<Stored>, lead: Option<Lead>) -> Fetched {
    if let Some(lead) = lead {
        lead.stored(Arc::clone(&stale));
    }
    Fetched::Stored(stale, How::Instead)
}

fn length(head: &Head) -> Option<u64> {
    head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
