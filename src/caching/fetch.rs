//! Fetching what the cache could not answer: once for all who want it, with what is stored as the
//! fallback and as the thing to be confirmed.

use std::sync::Arc;
use std::time::Duration;

use http::header::RANGE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::admission::Admission;
use super::answer::{self, Fetched, How, RequestView, Served};
use super::coalesce::{Follower, Joined, Leader, Outcome};
use super::lease::{self, Fetcher};
use super::leases::{Lease, LeaseOutcome};
use super::miss::{Miss, Refresh};
use super::receive::{Answered, Received, Times};
use crate::base::boxed;
use crate::cache::{self, Stored, Verdict};
use crate::upstream::{Download, Failure};

/// How often a follower waits for another leader after one was lost.
const JOINS_MAX: u32 = 3;

/// The way of a request to the upstream, which this room does not know.
pub trait Transport: Send {
    /// Sends a request and returns once the head of the response is there. It is called again where
    /// the first answer was not to the point.
    fn send(
        &mut self,
        request: Request<()>,
    ) -> impl Future<Output = Result<Response<Box<Download>>, Failure>> + Send;

    /// The key of a mark, where what was answered last may be older than a write: while that is
    /// set, or nobody knows whether it is, nothing of it is stored.
    fn stored_unless(&self) -> Option<Arc<str>>;
}

/// Why a miss has no answer.
#[derive(Debug)]
pub enum NotFetched {
    /// The upstream failed, and nothing stored may stand in for it.
    Upstream(Failure),
    /// The body of a stored response, which its origin had just confirmed, is gone.
    BodyLost {
        /// The word for the log and the metrics.
        verdict: Option<&'static str>,
    },
}

/// Fetches a response, or waits for whoever does. `request` is the one that the upstream would get
/// without a cache, `fields` are the client's own.
///
/// # Errors
/// The upstream's failure, where nothing stored may stand in for it.
pub async fn fetch(
    mut miss: Box<Miss>,
    request: Request<()>,
    fields: Arc<HeaderMap>,
    transport: impl Transport,
) -> Result<Served, NotFetched> {
    let (cache, mut notes) = (Arc::clone(&miss.cache), std::mem::take(&mut miss.notes));
    let method = request.method().clone();
    let view_fields = Arc::clone(&fields);
    let mut fetch = Fetch::new(miss, request, fields, transport);
    let fetched = fetch.run().await.map_err(NotFetched::Upstream)?;
    notes.collapsed = fetch.collapsed;
    // The request, and the way to the upstream, are of no use any more.
    drop(fetch);
    let view = RequestView { method: &method, fields: &view_fields };
    match answer::from_fetch(&cache, fetched, view, &mut notes).await {
        Some(response) => Ok(Served { response, notes }),
        None => Err(NotFetched::BodyLost { verdict: notes.verdict }),
    }
}

/// Fetches a stored response anew, behind the clients' backs, unless somebody in the fleet does
/// already.
pub async fn refresh(
    refresh: Box<Refresh>,
    request: Request<()>,
    fields: Arc<HeaderMap>,
    transport: impl Transport,
) {
    let Refresh { miss, leader } = *refresh;
    let mut fetch = Fetch::new(miss, request, fields, transport);
    let lease = match fetch.lease(Duration::ZERO).await {
        Fetcher::Us { lease: Some(lease), .. } => lease,
        Fetcher::Us { lease: None, .. } => return leader.left_to_others(),
        Fetcher::Other(stored) => {
            leader.succeeded();
            return leader.done(stored);
        }
    };
    // Whatever becomes of it, it has failed until something is stored.
    fetch.miss.cache.coalescer.refresh_failed(&fetch.miss.response());
    // Nobody waits for it; the coalescer tells those who came to.
    let _ = fetch.ask(Some(leader), Some(lease)).await;
}

/// A fetch under way.
struct Fetch<T> {
    miss: Box<Miss>,
    /// The request as it is forwarded when the cache has no part in it; an empty one once it was
    /// sent and cannot be sent again.
    request: Request<()>,
    method: Method,
    /// The client's fields, which `Vary` selects from.
    fields: Arc<HeaderMap>,
    transport: T,
    /// Whether waiting for another request's answer helped; none where it was not tried.
    collapsed: Option<bool>,
}

/// What a follower does after its wait.
enum Next {
    /// It has an answer.
    Answer(Result<Fetched, Failure>),
    /// It joins again, maybe as the leader.
    JoinAgain,
    /// It fetches for itself.
    Alone,
}

/// What came of sending a request, with the conditions of what is stored.
enum Sent {
    Answered(Response<Box<Download>>, Times),
    Failed(Failure),
    /// A 304 to a request without conditions.
    Senseless,
}

impl<T: Transport> Fetch<T> {
    fn new(miss: Box<Miss>, request: Request<()>, fields: Arc<HeaderMap>, transport: T) -> Self {
        let method = request.method().clone();
        Self { miss, request, method, fields, transport, collapsed: None }
    }

    async fn run(&mut self) -> Result<Fetched, Failure> {
        let is_shareable = self.miss.is_shareable() && !self.forwards_conditions();
        let joins = if is_shareable { JOINS_MAX } else { 0 };
        for _ in 0..joins {
            let follower = match self.miss.join() {
                Joined::Leader(leader) => return self.lead(leader).await,
                // A part, or a 304, of what could not be stored a moment ago is the origin's to
                // give.
                Joined::HitForPass if self.miss.stale.is_none() && self.is_partial() => {
                    return Box::pin(self.through()).await;
                }
                Joined::HitForPass => break,
                // Of a write at another gateway nobody here knows: whoever comes when the upstream
                // has answered gets an answer from after that.
                Joined::Follower(follower)
                    if self.miss.epochs_unknown.is_some() && !follower.is_early() =>
                {
                    break;
                }
                Joined::Follower(follower) => follower,
            };
            match self.follow(follower).await {
                Next::Answer(answer) => return answer,
                Next::JoinAgain => {}
                Next::Alone => break,
            }
        }
        // Nobody waits for what is this client's alone.
        self.miss.lease = LeaseOutcome::Unknown;
        self.ask(None, None).await
    }

    /// Waits for what the leader gets.
    async fn follow(&mut self, follower: Follower) -> Next {
        // The one who leads needs the lease.
        self.miss.lease = LeaseOutcome::Unknown;
        self.collapsed = Some(true);
        let stored = match follower.wait().await {
            Outcome::Streaming(stored, body) if self.takes(&stored) => {
                return Next::Answer(Ok(Fetched::Followed(stored, body)));
            }
            Outcome::Done(stored) if self.takes(&stored) => {
                return Next::Answer(Ok(Fetched::Stored(stored, How::Collapsed)));
            }
            Outcome::Streaming(stored, _) | Outcome::Done(stored) => stored,
            Outcome::Failed(status) => {
                return Next::Answer(Box::pin(self.shared_failure(status)).await);
            }
            Outcome::GiveUp => return Next::Alone,
            // Whoever has used up his share of the upstream leads nobody else astray.
            Outcome::Crowded => {
                let stale = self.miss.stale.clone();
                let stale = self.miss.stand_in(cache::Failure::NoAnswer, stale);
                return stale.map_or(Next::JoinAgain, |stale| {
                    Next::Answer(Ok(Fetched::Stored(stale, How::Instead(None))))
                });
            }
            Outcome::Dangling => return Next::JoinAgain,
        };
        // What the answer depends on was not known before: those of one variant share it.
        let known = self.miss.variant.clone();
        self.miss.set_variant_of(&stored, &self.fields);
        if self.miss.variant == known { Next::Alone } else { Next::JoinAgain }
    }

    /// What becomes of a request whose answer somebody else could not get a moment ago: what is
    /// stored, or the same failure. Asking again, one after the other, would be worse.
    async fn shared_failure(&mut self, status: Option<StatusCode>) -> Result<Fetched, Failure> {
        let stale = self.miss.stale.take();
        let failure = status.map_or(cache::Failure::NoAnswer, cache::Failure::Status);
        match (self.miss.stand_in(failure, stale), status) {
            (Some(stale), _) => Ok(Fetched::Stored(stale, How::Instead(status))),
            (None, Some(_)) => self.ask(None, None).await,
            (None, None) => Err(Failure::Shared),
        }
    }

    /// Fetches for all on this node, and where another node fetches already, waits for what it
    /// gets.
    async fn lead(&mut self, leader: Leader) -> Result<Fetched, Failure> {
        if self.miss.epochs_unknown.is_some() {
            // The store has just not answered, and no request waits for it twice.
            return self.ask(Some(leader), None).await;
        }
        match self.lease(self.miss.key.origin.route.lease_wait).await {
            Fetcher::Us { lease, has_waited } => {
                if has_waited {
                    self.collapsed = Some(true);
                }
                self.ask(Some(leader), lease).await
            }
            // Somebody has stored it since this request looked.
            Fetcher::Other(stored) => {
                self.collapsed = Some(true);
                leader.done(Arc::clone(&stored));
                Ok(Fetched::Stored(stored, How::Collapsed))
            }
        }
    }

    /// The fleet's lease on this fetch, or what another node has stored since this request looked.
    async fn lease(&mut self, wait_max: Duration) -> Fetcher {
        match std::mem::take(&mut self.miss.lease) {
            LeaseOutcome::Ours(lease) => Fetcher::Us { lease: Some(lease), has_waited: false },
            known => {
                let is_theirs = matches!(known, LeaseOutcome::Theirs);
                boxed::pin(|| lease::take(&self.miss, &self.fields, is_theirs, wait_max)).await
            }
        }
    }

    /// Whether what another request got answers this one, too (RFC 9111 §4).
    fn takes(&self, stored: &Stored) -> bool {
        let (now_ms, intent) = (self.miss.cache.now_ms(), &self.miss.intent);
        let verdict = cache::judge(stored, &self.fields, intent, false, now_ms);
        matches!(verdict, Verdict::Fresh { .. } | Verdict::StaleWhileRevalidate { .. })
    }

    /// Sends the request on as the client made it. Nobody may share the answer.
    async fn through(&mut self) -> Result<Fetched, Failure> {
        self.note_sent();
        let response = self.transport.send(self.request.clone()).await;
        response.map(|response| Fetched::Through(response, None))
    }

    /// Asks the upstream, and makes of its answer what the cache allows.
    async fn ask(
        &mut self,
        leader: Option<Leader>,
        lease: Option<Lease>,
    ) -> Result<Fetched, Failure> {
        let forwards = self.forwards_conditions();
        let mut stale = self.miss.stale.take();
        let (response, times) = match self.ask_for(&mut stale, forwards).await {
            Sent::Answered(response, times) => (response, times),
            Sent::Senseless => {
                return Err(Failure::Malformed("it answers 304 to a request without conditions"));
            }
            Sent::Failed(failure) => return self.failed(failure, leader, stale),
        };
        let unless = self.transport.stored_unless();
        let admission = Admission {
            cache: Arc::clone(&self.miss.cache),
            key: self.miss.key.clone(),
            replaces: stale.clone(),
            unless: unless.clone(),
            lease,
        };
        let status = response.status();
        let Self { miss, request, method, fields, .. } = &*self;
        let answered = Answered { miss, request, fields, times, unless };
        if let Some(stale) = stale.as_deref().filter(|_| *method == Method::HEAD) {
            // Rare, and large: what is boxed takes no room in each miss.
            Box::pin(answered.learn(stale, status, response.headers())).await;
        }
        if let Some(stale) = &stale
            && status == StatusCode::NOT_MODIFIED
            && miss.intent.store
        {
            let confirmed = answered.confirmed(stale, response.headers(), admission, leader);
            return Ok(Box::pin(confirmed).await);
        }
        if let Some(stale) = miss.stand_in(cache::Failure::Status(status), stale) {
            if let Some(leader) = leader {
                leader.failed(Some(status));
            }
            return Ok(Fetched::Stored(stale, How::Instead(Some(status))));
        }
        match answered.receive(response, admission, leader).await {
            Received::Fetched(fetched) => Ok(fetched),
            Received::WantsPart => Box::pin(self.through()).await,
        }
    }

    /// There is no answer: what is stored, where that may stand in for it. Those who wait for the
    /// same fail alike, unless the failure is this request's own.
    fn failed(
        &self,
        failure: Failure,
        leader: Option<Leader>,
        stale: Option<Arc<Stored>>,
    ) -> Result<Fetched, Failure> {
        match leader {
            Some(leader) if failure.is_shared() => leader.failed(None),
            Some(leader) => leader.crowded(),
            None => {}
        }
        let instead = self.miss.stand_in(cache::Failure::NoAnswer, stale);
        instead.map(|stale| Fetched::Stored(stale, How::Instead(None))).ok_or(failure)
    }

    /// Sends the request with the validators of what is stored, and without them once more where
    /// the 304 speaks of something else: then nothing is stale any more.
    async fn ask_for(&mut self, stale: &mut Option<Arc<Stored>>, forwards: bool) -> Sent {
        let mut conditions = match stale.as_deref() {
            Some(stale) if self.miss.intent.store => cache::conditions(stale),
            _ => Vec::new(),
        };
        loop {
            let (response, times) = match self.send(&conditions, forwards).await {
                Ok(answered) => answered,
                Err(failure) => return Sent::Failed(failure),
            };
            let is_other = response.status() != StatusCode::NOT_MODIFIED;
            if is_other || !self.miss.intent.store || forwards {
                return Sent::Answered(response, times);
            }
            let headers = response.headers();
            if stale.as_deref().is_some_and(|stale| cache::confirms(stale, headers)) {
                return Sent::Answered(response, times);
            }
            if conditions.is_empty() {
                return Sent::Senseless;
            }
            conditions.clear();
            *stale = None;
        }
    }

    /// Sends the request once; with the response, when it was sent and answered.
    async fn send(
        &mut self,
        conditions: &[(HeaderName, HeaderValue)],
        forwards: bool,
    ) -> Result<(Response<Box<Download>>, Times), Failure> {
        self.note_sent();
        // It is sent again where a 304 speaks of something else, and where the client wants a part
        // of what cannot be stored.
        let is_last = conditions.is_empty() && !self.request.headers().contains_key(RANGE);
        let mut request = if is_last {
            std::mem::replace(&mut self.request, Request::new(()))
        } else {
            self.request.clone()
        };
        if forwards {
            cache::for_whole(request.headers_mut());
        } else if self.miss.intent.store {
            cache::for_fill(request.headers_mut());
        }
        request.headers_mut().extend(conditions.iter().cloned());
        let sent_ms = self.miss.cache.now_ms();
        let response = self.transport.send(request).await?;
        Ok((response, Times { sent_ms, answered_ms: self.miss.cache.now_ms() }))
    }

    /// The request goes to the upstream itself: if it waited for another one, then in vain.
    fn note_sent(&mut self) {
        if self.collapsed.is_some() {
            self.collapsed = Some(false);
        }
    }

    fn is_partial(&self) -> bool {
        cache::is_partial(self.request.headers())
    }

    /// Whether the client's own conditions are for the upstream to judge, as nothing is stored.
    fn forwards_conditions(&self) -> bool {
        let Miss { intent, stale, .. } = &*self.miss;
        let is_wanted = self.miss.policy().forward_conditions && intent.store && stale.is_none();
        is_wanted && cache::is_conditional(self.request.headers())
    }
}
