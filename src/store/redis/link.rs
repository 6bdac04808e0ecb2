//! A connection to Redis, and the supervisor that replaces it.
//!
//! The request path only ever loads a pointer: either there is a connection that answered a probe,
//! or there is none. A connection is given up when it breaks, when the server says that it cannot
//! serve writes, or after `SILENT_REPLIES_MAX` deadlines in a row, on it or on all connections of
//! the process (`node`). A probe brings the next one into service: it is a primary's, and the
//! scripts are loaded. Where the server was open, it takes some probes more (`rung`). One that is
//! lost soon after that is replaced after a pause, so that a server which only seems well is not
//! asked without end.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Pipeline, PushInfo, PushKind, RedisError, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connect_error::ConnectError;
use super::connection::Connection;
use super::dial::{Call, Purpose, user};
use super::expect::{self, Seal};
use super::history::{self, Shown};
use super::mismatch;
use super::misses::Misses;
use super::node::Node;
use super::probe::{is_replica, probe};
use super::published::{Health, Published, Slot};
use super::reply::server_error;
use super::rung::{Cause, PROBE_PAUSE};
use super::says::{Condition, ENDED_BY_A_CONNECTION};
use super::scripts::Scripts;
use super::signature;
use super::tally::Place;
use crate::config;
use crate::store::StoreError;
use crate::store::lineage::Lineage;

/// First pause between connection attempts; it doubles up to `store.reconnect_backoff`.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(25);
/// Pause before the next probe of a server that did not answer the last one in time.
const PROBE_PAUSE_MAX: Duration = Duration::from_millis(250);
/// Pause between two looks at the server's clock.
const CLOCK_PAUSE: Duration = Duration::from_secs(30);
/// Within this, at a moment of its own, each connection is replaced by one with new certificates.
const REPLACED_WITHIN: Duration = Duration::from_secs(2);
/// Least pause between two replacements of one connection for another history of its server: two
/// servers behind one name would have them without end.
const REPLACED_PAUSE: Duration = Duration::from_secs(1);
/// How long a connection must have served for the next one to be made without a pause.
const STEADY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Link {
    scripts: Arc<Scripts>,
    node: Arc<Node>,
    slot: Arc<Slot>,
    /// What takes longer than half of what a question may take is late.
    late: Duration,
    /// Who was given less time than half of that has not shown that it is silent.
    least: Duration,
    /// What to add to this node's wall clock to get the server's, in milliseconds.
    clock_offset_ms: AtomicI64,
    /// Wakes those who wait for the first connection.
    found: Notify,
}

impl Link {
    /// Begins to connect to a server. Must be called within a tokio runtime.
    pub(super) fn start(
        settings: &config::Store,
        node: &Arc<Node>,
        scripts: &Arc<Scripts>,
    ) -> Arc<Self> {
        let link = Arc::new(Self {
            scripts: Arc::clone(scripts),
            node: Arc::clone(node),
            slot: Arc::new(Slot::new(node.common.tallies.add())),
            late: node.answers_within(settings) / 2,
            least: node.answers_within(settings) / 2,
            clock_offset_ms: AtomicI64::new(0),
            found: Notify::new(),
        });
        node.add(&link.slot);
        let weak = Arc::downgrade(&link);
        tokio::spawn(supervise(weak, settings.clone()));
        link
    }

    /// The connection, if there is one.
    pub(super) fn get(&self) -> Option<Arc<Published>> {
        self.slot.get()
    }

    /// Of which history the answers are, as far as it is known.
    pub(super) fn lineage(&self) -> Option<Lineage> {
        self.get()?.shown.get(self.node.doubts())
    }

    /// Whether there is a connection.
    pub(super) fn is_up(&self) -> bool {
        self.slot.is_taken()
    }

    /// Whether what is asked now would be sent.
    pub(super) fn is_asked(&self) -> bool {
        self.is_up() && !self.node.breaker.is_open()
    }

    /// Returns once there is a connection.
    pub(super) async fn connected(&self) {
        let found = self.found.notified();
        tokio::pin!(found);
        found.as_mut().enable();
        if self.get().is_none() {
            found.await;
        }
    }

    /// The server's clock as it was seen last; see [`crate::store::Store::clock_offset_ms`].
    pub(super) fn clock_offset_ms(&self) -> i64 {
        self.clock_offset_ms.load(Ordering::Relaxed)
    }

    async fn set_clock(&self, connection: &Connection) -> Result<(), RedisError> {
        let before = now_ms();
        let time = connection.run(&redis::cmd("TIME")).await?;
        let (seconds, micros): (i64, i64) = redis::from_redis_value(time)?;
        let offset = offset_ms(before, now_ms(), seconds, micros);
        self.clock_offset_ms.store(offset, Ordering::Relaxed);
        Ok(())
    }

    /// One round trip before `deadline`. Errors of single commands stand in the replies. The
    /// pipeline is sealed, so that no other one's replies are taken for its own.
    ///
    /// # Errors
    /// There is no connection, or no answer in time, or none that can be one to these commands.
    pub(super) async fn exchange(
        &self,
        pipeline: &mut Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        self.exchange_with(self.node.breaker.most(), pipeline, deadline).await
    }

    /// The same with a server that is open, if there is a connection: to learn how it is, not to be
    /// served.
    ///
    /// # Errors
    /// As [`Self::exchange`].
    pub(super) async fn examine(
        &self,
        pipeline: &mut Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        self.exchange_with(u64::MAX, pipeline, deadline).await
    }

    async fn exchange_with(
        &self,
        most: u64,
        pipeline: &mut Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        let tally = &self.slot.tally;
        let Some(published) = self.get() else {
            tally.note_open();
            return Err(StoreError::Unavailable);
        };
        let place: Place<'_> = tally.enter(most).ok_or(StoreError::Unavailable)?;
        let seal = Seal::put(pipeline);
        let begin = Instant::now();
        let sent = published.connection.send(pipeline);
        match tokio::time::timeout_at(deadline, sent).await {
            Ok(Ok(replies)) => {
                place.answered(begin.elapsed() > self.late);
                let mut replies = self.unseal(&published, seal, pipeline, replies)?;
                match published.shown.get(self.node.doubts()) {
                    Some(lineage) => signature::sign(lineage, pipeline, &mut replies),
                    None if self.node.is_reader() => {}
                    None => self.node.doubt.notify_one(),
                }
                Ok(replies)
            }
            Ok(Err(error)) => {
                place.failed();
                self.report(&published, Health::Broken);
                tracing::debug!(%error, "the store connection failed");
                Err(StoreError::Unavailable)
            }
            // What others took of the time says nothing of this server.
            Err(_) if deadline.saturating_duration_since(begin) < self.least => {
                Err(StoreError::Timeout)
            }
            Err(_) => {
                place.missed(!self.slot.holds(&published));
                self.report(&published, Health::Silent);
                Err(StoreError::Timeout)
            }
        }
    }

    /// The replies to a pipeline without its seal, where they are that.
    fn unseal(
        &self,
        published: &Arc<Published>,
        seal: Seal,
        pipeline: &Pipeline,
        mut replies: Vec<Value>,
    ) -> Result<Vec<Value>, StoreError> {
        self.node.says.note_replies(&replies);
        let last = replies.pop().unwrap_or_default();
        let is_whole = seal.is_whole(&last) && replies.len() + 1 == pipeline.len();
        if is_whole && expect::possible(pipeline, &replies) {
            self.report(published, Health::of(&replies));
            return Ok(replies);
        }
        match server_error(&last) {
            // A server that now answers nothing but errors refuses the seal too.
            Some(error) => {
                replies.push(last);
                self.report(published, Health::of(&replies));
                replies.pop();
                let refused = replies.iter().all(|it| server_error(it).is_some());
                if refused { Ok(replies) } else { Err(error) }
            }
            None => {
                self.give_up(published, Cause::Foreign);
                self.node.says.note(Condition::ForeignReply);
                Err(StoreError::Unavailable)
            }
        }
    }

    /// Takes note of how an exchange on `published` went.
    fn report(&self, published: &Arc<Published>, health: Health) {
        match health {
            Health::Good => {
                published.misses.forget();
                self.node.answered();
            }
            // What was sent before the last loss says nothing of what is now.
            Health::Silent if self.slot.holds(published) => {
                if published.misses.is_last_straw() {
                    self.give_up(published, Cause::Silent);
                }
                self.node.missed();
            }
            Health::Silent => {}
            Health::Broken => self.give_up(published, Cause::Lost),
            Health::LoggedOut => self.give_up(published, Cause::Refused("NOAUTH")),
            Health::Refused(code) if self.slot.holds(published) => {
                self.node.give_all_up(Cause::Refused(code));
            }
            Health::Refused(code) => self.give_up(published, Cause::Refused(code)),
            Health::Down => self.node.shut(Cause::Refused("CLUSTERDOWN")),
        }
    }

    /// Asks a server that is open whether it serves, on the connection that stands all the same.
    pub(super) async fn probe(&self, settings: &config::Store) {
        let Some(published) = self.get() else { return };
        match probe(&self.node, settings, &published).await {
            Ok(true) => self.node.note_probe(),
            Ok(false) => self.node.breaker.fail_probe(),
            Err(error) => {
                tracing::debug!(%error, "a probe of the store failed");
                self.node.breaker.fail_probe();
                self.give_up(&published, Cause::Lost);
            }
        }
    }

    /// The server at its other end.
    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Gives up whatever connection there is.
    pub(super) fn lose(&self) {
        if let Some(published) = self.get() {
            self.give_up(&published, Cause::Foreign);
        }
    }

    fn give_up(&self, published: &Arc<Published>, cause: Cause) {
        self.node.give_up(&self.slot, published, cause);
    }
}

impl Drop for Link {
    /// Ends the connection, and the supervisor that waits for its loss.
    fn drop(&mut self) {
        self.slot.clear();
        self.slot.lost.notify_one();
    }
}

/// Looks at the server's clock from time to time. Ends when the link is dropped.
pub(super) async fn keep_time(link: Weak<Link>) {
    loop {
        tokio::time::sleep(CLOCK_PAUSE).await;
        let Some(link) = link.upgrade() else { return };
        if let Some(published) = link.get() {
            // A clock that cannot be read now is as it was; others look after the connection.
            let _ = tokio::time::timeout(CLOCK_PAUSE, link.set_clock(&published.connection)).await;
        }
    }
}

/// The wall clock in Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// How far the server's clock is ahead, when it said this in the middle between two of our times.
fn offset_ms(before: i64, after: i64, seconds: i64, micros: i64) -> i64 {
    let server = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    server.saturating_sub(before.midpoint(after))
}

impl Link {
    /// It is connected: again, where it was before.
    fn note_connected(&self, was_connected: &mut bool) {
        if std::mem::replace(was_connected, true) {
            self.node.common.note_reconnect();
        }
    }
}

/// Connects, publishes, waits for the loss, and again. Ends when the link is dropped.
async fn supervise(link: Weak<Link>, settings: config::Store) {
    let mut backoff = BACKOFF_MIN;
    let mut was_connected = false;
    loop {
        let Some(strong) = link.upgrade() else { return };
        let slot = Arc::clone(&strong.slot);
        let connected = connect(&strong, &settings).await;
        drop(strong);
        let connected = match connected {
            Ok(published) => enter(&link, &settings, &published).await,
            Err(error) => Err(error),
        };
        let Some(strong) = link.upgrade() else { return };
        match connected {
            Ok(()) => {
                strong.note_connected(&mut was_connected);
                strong.found.notify_waiters();
                strong.node.is_found();
                let mut changes = strong.node.common.credentials.changes();
                let mut renewals = strong.node.renewals.subscribe();
                drop(strong);
                let since = Instant::now();
                // The first one is replaced at once.
                let mut replaced = since.checked_sub(REPLACED_PAUSE).unwrap_or(since);
                loop {
                    tokio::select! {
                        () = slot.lost.notified() => break,
                        changed = changes.changed() => match (changed, link.upgrade()) {
                            (Ok(()), Some(link)) => renew(&link, &settings).await,
                            _ => return,
                        },
                        Ok(()) = renewals.changed() => if let Some(link) = link.upgrade() {
                            tokio::time::sleep_until(replaced + REPLACED_PAUSE).await;
                            replace_old(&link, &settings).await;
                            replaced = Instant::now();
                        },
                    }
                }
                if since.elapsed() >= STEADY {
                    backoff = BACKOFF_MIN;
                    continue;
                }
            }
            Err(error) => {
                strong.node.is_out_of_reach(&error);
                // Refused or not, the pause is the same: what is stored is used again once every
                // gateway had the time to come back.
                if error.is_refusal() {
                    if strong.node.common.credentials.give_way().await {
                        continue;
                    }
                } else if strong.node.is_puzzling()
                    && let Some(condition) = mismatch::find(&settings, strong.node.address()).await
                {
                    strong.node.says.note(condition);
                }
                drop(strong);
            }
        }
        // Jitter keeps a fleet from knocking in step.
        tokio::time::sleep(backoff.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        backoff = (backoff * 2).min(settings.reconnect_backoff);
    }
}

/// Puts a connection into service, if the server's rung lets it: false when it takes more probes.
fn publish(link: &Link, published: &Arc<Published>) -> bool {
    let is_asked = link.node.publish(&link.slot, published);
    if is_asked && published.closed.load(Ordering::Acquire) {
        // It closed before it was published, so nobody gave it up.
        link.give_up(published, Cause::Lost);
    }
    is_asked
}

/// Puts a connection in the place of one that is in service. That it could be made is no probe: a
/// server that is open stays so. Where the old one was lost meanwhile, the next is made anyway.
fn replace(link: &Link, old: &Arc<Published>, new: &Arc<Published>) {
    if link.slot.replace(old, new) && new.closed.load(Ordering::Acquire) {
        // As above.
        link.give_up(new, Cause::Lost);
    }
}

/// Puts a connection into service: at once, or where the server was open, when it was asked often
/// enough. That it lets itself be connected to does not count then.
async fn enter(
    link: &Weak<Link>,
    settings: &config::Store,
    published: &Arc<Published>,
) -> Result<(), ConnectError> {
    let strong = || link.upgrade().ok_or(ConnectError::Timeout);
    let first = strong()?;
    if !first.node.breaker.wants_probes() && publish(&first, published) {
        return Ok(());
    }
    drop(first);
    loop {
        let link = strong()?;
        let answer = probe(&link.node, settings, published).await;
        let is_good = matches!(answer, Ok(true));
        if !is_good {
            link.node.breaker.fail_probe();
        }
        answer?;
        if is_good && publish(&link, published) {
            return Ok(());
        }
        // Whoever ends the link does not wait for a server that is slow for long.
        drop(link);
        tokio::time::sleep(if is_good { PROBE_PAUSE } else { PROBE_PAUSE_MAX }).await;
    }
}

/// What connections are made with has changed, and Redis accepts it. A new password is used on the
/// connection that stands; for new certificates, another connection takes its place, and whoever
/// waits for an answer on the old one gets it.
async fn renew(link: &Arc<Link>, settings: &config::Store) {
    let (Some(published), material) = (link.get(), link.node.common.credentials.now()) else {
        return;
    };
    if published.material.has_tls_of(&material) {
        let Some(password) = &material.password else { return };
        let mut login = redis::cmd("AUTH");
        login.arg(user(settings)).arg(password.expose());
        let login = published.connection.run(&login);
        if let Ok(Err(error)) = tokio::time::timeout(settings.connect_timeout, login).await {
            let server = link.node.name();
            tracing::warn!(%error, server, "a connection to Redis stays with the former password");
        }
        return;
    }
    tokio::time::sleep(REPLACED_WITHIN.mul_f64(fastrand::f64())).await;
    let Some(_turn) = link.node.common.credentials.turn().await else { return };
    match connect(link, settings).await {
        Ok(new) => replace(link, &published, &new),
        Err(error) => {
            let (server, former) = (link.node.name(), "the former certificates");
            tracing::warn!(%error, server, "a connection to Redis stays with {former}");
        }
    }
}

/// The server has another history than when the connection was made, which is replaced therefore.
/// Where that fails the next look at the history asks for it again.
async fn replace_old(link: &Arc<Link>, settings: &config::Store) {
    let Some(old) = link.get().filter(|published| published.shown.is_over()) else { return };
    let is_told = &link.node.is_former_told;
    match connect(link, settings).await {
        Ok(new) => {
            is_told.store(false, Ordering::Relaxed);
            replace(link, &old, &new);
        }
        // Each look at the history asks for it again, and so does each thread's connection.
        Err(_) if is_told.swap(true, Ordering::Relaxed) => {}
        Err(error) => {
            let server = link.node.name();
            tracing::warn!(
                %error,
                server,
                "Redis has another history, and no connection to it can be made: the cache is not \
                 used until there is one"
            );
        }
    }
}

/// One attempt, within `store.connect_timeout`, that ends with a probe: the scripts are loaded
/// before the first request can ask for them.
async fn connect(
    link: &Arc<Link>,
    settings: &config::Store,
) -> Result<Arc<Published>, ConnectError> {
    let weak = Arc::downgrade(link);
    // A closed connection is told of also when no request is waiting.
    let closed = Arc::new(AtomicBool::new(false));
    let is_closed = Arc::clone(&closed);
    let on_push = move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            is_closed.store(true, Ordering::Release);
            // Only this connection: an older one may end long after it was replaced.
            if let Some(link) = weak.upgrade()
                && let Some(published) = link.get()
                && Arc::ptr_eq(&published.closed, &is_closed)
            {
                link.give_up(&published, Cause::Lost);
            }
        }
    };
    let says = &link.node.says;
    let attempt = async {
        let material = link.node.common.credentials.now();
        let node = &*link.node;
        let purpose = if node.is_reader() { Purpose::Reads } else { Purpose::Requests };
        let call = Call { settings, node, material: &material, purpose };
        let connection = call.dial(on_push).await?;
        // A replica loads scripts and reads sessions, and refuses only what writes. One in a
        // cluster sends on whatever it is asked.
        if !node.is_in_cluster() && is_replica(&connection.run(&redis::cmd("HELLO")).await?) {
            says.note(Condition::ReadOnly);
            return Err(ConnectError::Replica);
        }
        if is_stranger(node, &connection).await {
            return Err(ConnectError::Stranger);
        }
        if node.is_reader() {
            connection.run(&redis::cmd("READONLY")).await?;
        }
        let asked = node.doubts();
        let told = history::ask(&connection, settings, node.otherwise()).await?;
        node.hear(&told, asked);
        let shown = Shown::of(told.lineage(), asked);
        let mut probe = redis::pipe();
        for script in link.scripts.named() {
            probe.cmd("SCRIPT").arg("LOAD").arg(script.code);
        }
        for reply in connection.send(&probe).await? {
            reply.extract_error()?;
        }
        // It may be another server than before, with another clock.
        link.set_clock(&connection).await?;
        for condition in ENDED_BY_A_CONNECTION {
            says.is_over(condition);
        }
        let (misses, closed) = (Misses::default(), Arc::clone(&closed));
        Ok(Arc::new(Published { connection, material, misses, shown, closed }))
    };
    match tokio::time::timeout(settings.connect_timeout, attempt).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout),
    }
}

/// Whether it is another server of a Redis Cluster, or of another one, than was found at this
/// address. One that does not say who it is passes: it may be an older one's user who asks.
async fn is_stranger(node: &Node, connection: &Connection) -> bool {
    let Some(expected) = node.id() else { return false };
    let mut question = redis::cmd("CLUSTER");
    question.arg("MYID");
    let said = connection.run(&question).await.ok();
    said.and_then(|said| redis::from_redis_value::<String>(said).ok())
        .is_some_and(|id| id != expected)
}

#[cfg(test)]
mod tests;
