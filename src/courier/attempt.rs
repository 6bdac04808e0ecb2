//! One attempt to deliver one request: sent, judged, settled, told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{HOST, RETRY_AFTER};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::Instant;

use super::ends::{Ending, Following, Unmade};
use super::recheck::{self, Standing};
use super::signed::signed;
use crate::base::facts::ClientAddr;
use crate::base::http::credentials::without_credentials;
use crate::base::trace::Trace;
use crate::cache;
use crate::config::Queue;
use crate::deliver::{Answered, Bounds, Head, Kept, Pauses, Verdict, Why, judge, retry_after};
use crate::observe::access::Line;
use crate::plan::share;
use crate::proxy::{Attempted, Delivery, NoAnswer};
use crate::runtime::{Gateway, Loose, Opened, Packed, Parcels, QueueState, Running};
use crate::store::keys::QueueKeys;
use crate::store::queue::{After, Claim, DeliveryId, Hold, KeptAnswer, Outcome, Settle, Settled};

/// How long to wait before a store that has not answered is told again how a delivery ended.
const SETTLE_PAUSE: Duration = Duration::from_millis(500);
/// How long nothing is taken while nobody says whether its caller was revoked.
const RECHECK_PAUSE: Duration = Duration::from_secs(1);

/// What one attempt goes by.
pub(super) struct Attempt {
    pub(super) gateway: Arc<Gateway>,
    pub(super) running: Arc<Running>,
    pub(super) state: Arc<QueueState>,
    /// The queue's name.
    pub(super) name: String,
    pub(super) queue: Queue,
    /// Of the shard that it lies in.
    pub(super) keys: Arc<QueueKeys>,
    /// When it was taken, and what the store's clock said then, in Unix milliseconds.
    pub(super) began: Instant,
    pub(super) now_ms: u64,
    /// How many deliveries of this worker have their answer, and the store is being told.
    pub(super) settling: Arc<AtomicUsize>,
}

/// Counts for one of these while it lives.
struct Settling(Arc<AtomicUsize>);

impl Settling {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the queue learns of an attempt.
pub(super) struct Ended {
    /// How it ended; nothing where nothing was sent.
    pub(super) answered: Option<Answered>,
    /// How long the upstream wants to be left alone, or nothing is taken since the store has not
    /// said whether it may be sent.
    pub(super) asked: Option<Duration>,
    /// In one word.
    pub(super) why: &'static str,
}

/// What came of sending it.
struct Sent {
    answered: Answered,
    asked: Option<Duration>,
    /// Its status; 0 where there was no answer.
    status: u16,
    /// The code of why there was none, and more words for it.
    code: &'static str,
    error: Option<String>,
    kept: Option<KeptAnswer>,
    took: Duration,
    trace: Trace,
}

/// What is written of it.
struct Judged {
    outcome: Outcome,
    word: &'static str,
    error: &'static str,
}

impl Attempt {
    /// Delivers what was claimed, and settles it.
    pub(super) async fn deliver(self, claim: Claim) -> Ended {
        let (head, body) = match self.readable(&claim).await {
            Ok(readable) => readable,
            Err(mut judged) => {
                self.settle(&claim, &mut judged, (0, None)).await;
                self.state.meter.attempted(judged.word, self.began.elapsed());
                let unsent = self.head(&claim);
                self.tell(&claim, unsent.as_ref(), None, &judged);
                // What comes next would be given back as well.
                let asked = (judged.word == "back").then_some(RECHECK_PAUSE);
                return Ended { answered: None, asked, why: judged.error };
            }
        };
        let attempt = u64::from(claim.failures) + u64::from(claim.stalls) + 1;
        let id = claim.hold.id;
        let delivery =
            Delivery { running: &self.running, head: &head, id: id.as_str(), attempt, body };
        let Some(upstream) = delivery.upstream() else {
            let mut judged = self.unroutable(&claim, &head);
            self.settle(&claim, &mut judged, (0, None)).await;
            self.state.meter.attempted(judged.word, self.began.elapsed());
            self.tell(&claim, Some(&head), None, &judged);
            return Ended { answered: None, asked: None, why: Why::NoRoute.word() };
        };
        let attempted = delivery.send(upstream).await;
        if attempted.has_changed && !head.stale.is_empty() {
            // Before anybody is told that it is done; what the store misses is made up for.
            self.gateway.cache.invalidate(head.stale.clone()).await;
        }
        let sent = self.read(attempted, id).await;
        let mut judged = self.judge(&claim, &sent);
        let answer = sent.kept.as_ref().filter(|_| judged.word != "retry");
        if !self.settle(&claim, &mut judged, (sent.status, answer)).await {
            judged.word = "lost";
        }
        self.state.meter.attempted(judged.word, self.began.elapsed());
        if judged.word == "done" {
            let age = self.now_ms.saturating_sub(claim.accepted_ms);
            self.state.meter.delivered(Duration::from_millis(age) + self.began.elapsed());
        }
        self.tell(&claim, Some(&head), Some((&sent, upstream)), &judged);
        let why = if sent.code.is_empty() { "answered" } else { sent.code };
        Ended { answered: Some(sent.answered), asked: sent.asked, why }
    }

    /// What is to be sent.
    ///
    /// # Errors
    /// It is not to be sent at all.
    async fn readable(&self, claim: &Claim) -> Result<(Head, Bytes), Judged> {
        if claim.stalls > self.queue.max_stalls {
            return Err(dead(Why::Stalled));
        }
        if self.now_ms >= claim.give_up_ms {
            return Err(dead(Why::Expired));
        }
        let unreadable = || dead(Why::Unreadable);
        let body = claim.body.clone().ok_or_else(unreadable)?;
        let parcels = Parcels::of_request(&self.name, &self.queue, claim.hold.id);
        let Opened { head, body, recheck } = parcels.open(&claim.head, body).await.map_err(dead)?;
        let head = Head::unpack(&head).ok_or_else(unreadable)?;
        let recheck = recheck.filter(|_| self.queue.recheck);
        let standing = match &recheck {
            Some(recheck) => recheck::ask(&self.gateway, recheck).await,
            None => Standing::Good,
        };
        match standing {
            Standing::Good => Ok((signed(&self.running.plan.config, head, &body), body)),
            Standing::Revoked => Err(dead(Why::Revoked)),
            Standing::Unknown => {
                let outcome = Outcome::Back { delay: self.queue.backoff };
                Err(Judged { outcome, word: "back", error: "revocation_unknown" })
            }
        }
    }

    /// The head of what is not sent, as far as it can be read.
    fn head(&self, claim: &Claim) -> Option<Head> {
        let parcels = Parcels::of_request(&self.name, &self.queue, claim.hold.id);
        Head::unpack(&parcels.open_head(&claim.head).ok()?.head)
    }

    /// Reads the answer, as much of it as is kept.
    async fn read(&self, attempted: Attempted, id: DeliveryId) -> Sent {
        let Attempted { answer, took, trace, .. } = attempted;
        let response = match answer {
            Ok(response) => response,
            Err(NoAnswer { code, may_have_acted, is_busy, error, retry_after }) => {
                let answered = match (may_have_acted, is_busy) {
                    (true, _) => Answered::InDoubt,
                    (false, true) => Answered::NoPlace,
                    (false, false) => Answered::NotSent,
                };
                let (status, kept) = (0, None);
                let (asked, error) = (retry_after, Some(error));
                return Sent { answered, asked, status, code, error, kept, took, trace };
            }
        };
        let (head, body) = response.into_parts();
        let asked = head.headers.get(RETRY_AFTER);
        let asked = asked.and_then(|value| retry_after(value, SystemTime::now()));
        let most = usize::try_from(self.queue.keep_response).unwrap_or(usize::MAX);
        let read = Limited::new(*body, most).collect();
        let read = tokio::time::timeout(self.queue.answer_timeout, read).await;
        let body = read.ok().and_then(Result::ok).map(|body| body.to_bytes());
        let kept = Kept::new(head.status, &head.headers, body);
        let loose = Loose {
            head: kept.pack(),
            is_text: cache::is_compressible(&kept.fields),
            body: kept.body.unwrap_or_default(),
            recheck: None,
        };
        let packed = Parcels::of_answer(&self.name, &self.queue, id).pack(loose).await;
        let kept = packed.map(|Packed { head, body }| KeptAnswer { head, body });
        let status = head.status.as_u16();
        let answered = Answered::Status(status);
        Sent { answered, asked, status, code: "", error: None, kept, took, trace }
    }

    /// What the store's clock says by now, in Unix milliseconds.
    fn clock_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.now_ms.saturating_add(elapsed)
    }

    /// What is left of its time.
    fn left(&self, claim: &Claim) -> Duration {
        Duration::from_millis(claim.give_up_ms.saturating_sub(self.clock_ms()))
    }

    /// What becomes of what goes nowhere now. Who is told may be away from the file for a while
    /// only: that may be taken out of it at any time.
    fn unroutable(&self, claim: &Claim, head: &Head) -> Judged {
        if !head.is_callback() {
            return dead(Why::NoRoute);
        }
        let delay = self.queue.max_backoff.min(self.left(claim));
        Judged { outcome: Outcome::Back { delay }, word: "back", error: Why::NoRoute.word() }
    }

    fn judge(&self, claim: &Claim, sent: &Sent) -> Judged {
        let left = self.left(claim);
        let Queue { attempts, ref retry_on, .. } = self.queue;
        let bounds = Bounds { failures: claim.failures, attempts, left, retry_on };
        let error = if sent.code.is_empty() { "answered" } else { sent.code };
        match judge(sent.answered, bounds) {
            Verdict::Done => Judged { outcome: Outcome::Done, word: "done", error: "" },
            Verdict::Dead(why) if matches!(sent.answered, Answered::InDoubt) => {
                Judged { outcome: Outcome::DeadInDoubt, ..dead(why) }
            }
            Verdict::Dead(why) => dead(why),
            Verdict::Retry { is_counted } => {
                let failures = claim.failures.saturating_add(u32::from(is_counted)).max(1);
                let delay = Pauses::of(&self.queue).after(failures, sent.asked, fastrand::f64());
                // Whoever takes it then finds that its time is over, and gives it up.
                let delay = delay.min(left);
                let outcome =
                    if is_counted { Outcome::Retry { delay } } else { Outcome::Back { delay } };
                Judged { outcome, word: "retry", error }
            }
        }
    }

    /// Tells the store, and whoever waits. True where it was this one's to tell. What cannot die
    /// yet, since nothing would undo it, is given back.
    async fn settle(
        &self,
        claim: &Claim,
        judged: &mut Judged,
        (status, answer): (u16, Option<&KeptAnswer>),
    ) -> bool {
        let mut settle = self.settling(&claim.hold, judged, (status, answer));
        let following = match self.following(claim, &settle).await {
            Ok(following) => following,
            Err(Unmade) => {
                let outcome = Outcome::Back { delay: self.queue.backoff };
                *judged = Judged { outcome, word: "back", error: "follow_up_failed" };
                settle = self.settling(&claim.hold, judged, (status, None));
                Vec::new()
            }
        };
        let follow_ups: Vec<_> = following.iter().map(Following::follow_up).collect();
        let holds_line = self.queue.ends.holds_line && !is_unsent(claim, &settle);
        settle.after = After { follow_ups: &follow_ups, holds_line };
        let Settled::Written { dropped, followed } = self.settled(settle).await else {
            return false;
        };
        if dropped > 0 {
            let name = &self.name;
            tracing::warn!(queue = name, dropped, "max_dead: the oldest dead ones are gone");
        }
        if judged.outcome.is_dead() || matches!(judged.outcome, Outcome::Done) {
            self.state.moved();
            self.gateway.deliveries.ended(&claim.hold.id);
        }
        self.followed(&following, followed);
        true
    }

    /// Most dead ones of the shard that it lies in.
    fn dead_most(&self) -> u64 {
        share(self.queue.max_dead, self.queue.shards.into(), self.keys.shard.into())
    }

    /// What the store is told, but for what follows.
    fn settling<'a>(
        &self,
        hold: &'a Hold,
        judged: &Judged,
        (status, answer): (u16, Option<&'a KeptAnswer>),
    ) -> Settle<'a> {
        let keep = if judged.outcome.is_dead() { self.queue.keep_dead } else { self.queue.keep };
        Settle {
            hold,
            outcome: judged.outcome,
            status,
            error: judged.error,
            answer,
            keep,
            dead_most: self.dead_most(),
            after: After::default(),
        }
    }

    /// Tells the store, until it has answered, or for a lease.
    async fn settled(&self, settle: Settle<'_>) -> Settled {
        let until = Instant::now() + self.queue.lease;
        // Its place is another's: a shard that is silent takes none from the others.
        let _settling = Settling::new(&self.settling);
        loop {
            match self.gateway.store.queue_settle(&self.keys, settle).await {
                Ok(settled) => return settled,
                Err(_) if Instant::now() < until => tokio::time::sleep(SETTLE_PAUSE).await,
                Err(error) => {
                    tracing::warn!(queue = self.name, %error, "a delivery could not be settled");
                    return Settled::Lost;
                }
            }
        }
    }

    /// What follows when it ends so, as it lies in the store: by the configuration of now, since a
    /// queue of then may be nobody's by now.
    ///
    /// # Errors
    /// Some of it could not be made, and it must not die without.
    async fn following(
        &self,
        claim: &Claim,
        settle: &Settle<'_>,
    ) -> Result<Vec<Following>, Unmade> {
        let (name, is_dead) = (&*self.name, settle.outcome.is_dead());
        let (running, now_ms) = (self.gateway.running(), self.clock_ms());
        let undoes = |running: &Running| running.plan.undos.contains_key(name);
        if is_dead && undoes(&self.running) && !undoes(&running) {
            tracing::warn!(queue = name, "on_dead was taken away meanwhile: nothing undoes it");
        }
        let Some(queue) = running.plan.config.queues.get(name) else { return Ok(Vec::new()) };
        let ending = Ending { running: &running, name, queue, now_ms };
        let following = async {
            let mut packed = Vec::new();
            for one in ending.following(claim, settle, || self.head(claim))? {
                packed.push(one.packed(&running.plan.config).await?);
            }
            Ok(packed)
        };
        match following.await {
            // What is done must not be done once more, for want of somebody being told.
            Err(Unmade) if !is_dead => {
                tracing::error!(queue = name, id = claim.hold.id.as_str(), "nobody is told of it");
                Ok(Vec::new())
            }
            following => following,
        }
    }

    /// Wakes the queues that got something, so many of them.
    fn followed(&self, following: &[Following], count: u64) {
        let mut count = count;
        for Following { queue, .. } in following {
            let state = self.gateway.deliveries.queue(queue);
            if count > 0 {
                state.meter.accepted("new");
                count -= 1;
            }
            // Who looks in vain loses nothing.
            state.wake.notify_one();
        }
    }

    /// Writes its access line.
    fn tell(
        &self,
        claim: &Claim,
        head: Option<&Head>,
        sent: Option<(&Sent, usize)>,
        judged: &Judged,
    ) {
        let access = &self.gateway.observer.access;
        let Some(head) = head.filter(|_| access.is_on()) else { return };
        let took = self.began.elapsed();
        let now = jiff::Timestamp::now();
        let time = jiff::SignedDuration::try_from(took).ok();
        let time = time.and_then(|took| now.checked_sub(took).ok()).unwrap_or(now);
        let sent_trace = sent.map(|(sent, _)| sent.trace);
        let trace = sent_trace.or_else(|| Trace::parse(head.trace.as_bytes()));
        let digits = trace.unwrap_or_else(Trace::begin).id_digits();
        let field = |name: &str| head.fields.get(name).and_then(|value| value.to_str().ok());
        let upstream = sent.and_then(|(_, index)| self.running.plan.upstreams.get(index));
        let ms = |duration: Duration| duration.as_micros() as f64 / 1000.0;
        let path = if head.is_callback() { "-" } else { head.target.path() };
        let path = without_credentials(path);
        let line = Line {
            time,
            request_id: field("x-request-id").unwrap_or_default(),
            trace_id: std::str::from_utf8(&digits).unwrap_or_default(),
            client: access.shown.client(ClientAddr::new(head.client)),
            method: head.method.as_str(),
            host: field(HOST.as_str()).unwrap_or("-"),
            path: &path,
            route: &head.route,
            status: sent.map_or(0, |(sent, _)| sent.status),
            reason: Some(judged.error).filter(|error| !error.is_empty()),
            error: sent.and_then(|(sent, _)| sent.error.as_deref()),
            limits: "off",
            upstream: upstream.map(|(name, _)| &**name),
            duration_ms: ms(took),
            upstream_ms: sent.map(|(sent, _)| ms(sent.took)),
            kind: Some("delivery"),
            delivery: Some(claim.hold.id.as_str()),
            queue: Some(&self.name),
            attempt: Some(u64::from(claim.failures) + u64::from(claim.stalls) + 1),
            outcome: Some(judged.word),
            ..Line::default()
        };
        access.write(&line);
    }
}

/// Whether it is too old, and was never sent. Such a one holds up no line: those that waited behind
/// one that was dead would hold it one after the other, and it would never go on.
fn is_unsent(claim: &Claim, settle: &Settle<'_>) -> bool {
    let is_new = claim.failures == 0 && claim.stalls == 0 && settle.status == 0;
    is_new && settle.outcome == Outcome::Dead && settle.error == Why::Expired.word()
}

fn dead(why: Why) -> Judged {
    Judged { outcome: Outcome::Dead, word: "dead", error: why.word() }
}
