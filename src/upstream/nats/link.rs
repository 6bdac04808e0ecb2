//! The connection with NATS. One task makes it, reads what comes by it, and makes another one when
//! it is lost.
//!
//! The client of a lost connection would connect anew by itself, and then send what it was handed
//! meanwhile: requests whose clients have long been told that they failed. So each connection has a
//! client of its own, which is kept from connecting twice, and goes with all that it still holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_nats::connection::State;
use async_nats::{Auth, AuthError, Client, ConnectErrorKind, ConnectOptions, Event, Subscriber};
use futures_util::StreamExt as _;
use rustls::ClientConfig;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::replies::Replies;
use super::users::{User, Users};
use super::{HEARD_MAX, MESSAGE_BYTES_MAX};
use crate::config::{self, NatsKey};

/// How often a server is asked whether it lives. One that does not answer twice is lost.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long the first wait is between two tries to connect; each is twice as long as the last.
const WAIT_FIRST: Duration = Duration::from_millis(50);
/// How long the longest is.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Most messages that wait to be brought to their requests.
const UNREAD_MAX: usize = 65_536;
/// Most messages that wait to be written.
const UNSENT_MAX: usize = 2_048;
/// How often somebody who leaves looks whether anybody still waits.
const LEAVING_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
pub(in crate::upstream) struct Link {
    /// What it is for, as the log names it.
    label: String,
    purpose: Purpose,
    nats: Arc<config::Nats>,
    tls: Option<Arc<ClientConfig>>,
    /// Longest wait for a connection.
    patience: Duration,
    live: ArcSwapOption<Live>,
    /// What the server has denied by the last connection.
    denied: ArcSwapOption<OnceLock<String>>,
    has_begun: AtomicBool,
    /// Told when there is a connection.
    came: Notify,
    left: CancellationToken,
    users: Users,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Requests, and their answers.
    Requests,
    /// Messages that somebody listens to, none of which may be lost without a word.
    Listening,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) client: Client,
    /// What the subjects of replies begin with.
    pub(super) inbox: String,
    pub(super) replies: Arc<Replies>,
    /// Cancelled when the connection is lost.
    pub(super) lost: CancellationToken,
    /// What the server has denied to who listens, for which the connection is given up.
    pub(super) denied: Arc<OnceLock<String>>,
}

/// What a connection is read by.
struct Reading {
    live: Arc<Live>,
    subscriber: Subscriber,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Link").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Link {
    /// The connection of an upstream, which is not made yet; nothing of one over HTTP.
    pub(in crate::upstream) fn new(
        upstream: &str,
        settings: &config::Upstream,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            label: format!("upstreams.{upstream}"),
            purpose: Purpose::Requests,
            nats: Arc::clone(settings.nats.as_ref()?),
            tls: tls.cloned(),
            patience: settings.connect_timeout,
            live: ArcSwapOption::empty(),
            denied: ArcSwapOption::empty(),
            has_begun: AtomicBool::new(false),
            came: Notify::new(),
            left: CancellationToken::new(),
            users: Users::default(),
        }))
    }

    /// Another connection with the same servers, for who listens; it is not made yet.
    pub(super) fn for_listening(&self, label: &str) -> Arc<Self> {
        Arc::new(Self {
            label: label.to_owned(),
            purpose: Purpose::Listening,
            nats: Arc::clone(&self.nats),
            tls: self.tls.clone(),
            patience: self.patience,
            live: ArcSwapOption::empty(),
            denied: ArcSwapOption::empty(),
            has_begun: AtomicBool::new(false),
            came: Notify::new(),
            left: CancellationToken::new(),
            users: Users::default(),
        })
    }

    /// Longest wait for a connection.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Begins to connect, unless that has begun. To be called outside the serving threads.
    pub(in crate::upstream) fn start(self: &Arc<Self>) {
        if !self.has_begun.swap(true, Ordering::Relaxed) {
            tokio::spawn(run(Arc::downgrade(self)));
        }
    }

    /// Waits until it is connected, but no longer than that.
    pub(in crate::upstream) async fn connected(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut came = std::pin::pin!(self.came.notified());
        came.as_mut().enable();
        if !self.is_connected() {
            let _ = timeout_at(deadline, came).await;
        }
    }

    /// Whether it is connected, as far as anybody knows.
    pub(in crate::upstream) fn is_connected(&self) -> bool {
        self.live().is_some()
    }

    /// It is out of force: once nobody uses it, it ends.
    pub(in crate::upstream) fn leave(&self) {
        self.left.cancel();
    }

    /// Counts a request in; nothing where the connection has been given up, since nobody was left.
    pub(super) fn enter(&self) -> Option<User<'_>> {
        self.users.enter()
    }

    /// What messages look like.
    pub(super) fn packet(&self) -> config::Packet {
        self.nats.packet
    }

    /// The connection, where there is one that is not known to be lost.
    pub(super) fn live(&self) -> Option<Arc<Live>> {
        let live = self.live.load_full()?;
        let is_lost = live.lost.is_cancelled();
        (!is_lost && live.client.connection_state() == State::Connected).then_some(live)
    }

    /// What the server has denied by the last connection.
    pub(super) fn denied(&self) -> Option<String> {
        self.denied.load().as_ref()?.get().cloned()
    }

    /// Longest message that is sent, in bytes.
    pub(super) fn message_bytes(live: &Live) -> usize {
        live.client.max_payload().min(MESSAGE_BYTES_MAX)
    }

    /// A connection with any of the servers.
    async fn connect(&self) -> Result<(Reading, String), String> {
        let mut servers: Vec<_> = self.nats.servers.iter().collect();
        fastrand::shuffle(&mut servers);
        let mut last = "there is no server".to_owned();
        for server in servers {
            let url = server.url();
            match timeout(self.patience, self.connect_to(&url)).await {
                Ok(Ok(reading)) => return Ok((reading, url)),
                Ok(Err(why)) => last = format!("{url}: {why}"),
                Err(_) => last = format!("{url}: no answer within connect_timeout"),
            }
        }
        Err(last)
    }

    async fn connect_to(&self, url: &str) -> Result<Reading, String> {
        let server: async_nats::ServerAddr = url.parse().map_err(|_| "is no url".to_owned())?;
        let (lost, is_made) = (CancellationToken::new(), Arc::<AtomicBool>::default());
        let denied = Arc::<OnceLock<String>>::default();
        self.denied.store(Some(Arc::clone(&denied)));
        let options = self.options(&lost, &denied, &is_made);
        let client = options.connect(server).await.map_err(|error| explain(&error))?;
        is_made.store(true, Ordering::Relaxed);
        let inbox = client.new_inbox();
        let subscriber = client.subscribe(format!("{inbox}.*")).await;
        let subscriber = subscriber.map_err(|error| error.to_string())?;
        let live = Live { client, inbox, replies: Arc::default(), lost, denied };
        Ok(Reading { live: Arc::new(live), subscriber })
    }

    /// How a connection is made once, and never again by the same client.
    fn options(
        &self,
        lost: &CancellationToken,
        denied: &Arc<OnceLock<String>>,
        is_made: &Arc<AtomicBool>,
    ) -> ConnectOptions {
        let (nats, is_made) = (Arc::clone(&self.nats), Arc::clone(is_made));
        let options = ConnectOptions::with_auth_callback(move |nonce| {
            let auth = auth(&nats, &nonce, is_made.load(Ordering::Relaxed));
            async move { auth }
        });
        let (lost, label, purpose) = (lost.clone(), self.label.clone(), self.purpose);
        let (denied, has_complained) = (Arc::clone(denied), AtomicBool::new(false));
        let options = options.event_callback(move |event| {
            match event {
                Event::Disconnected | Event::Closed => lost.cancel(),
                // What it has dropped is missed, as if it had come while there was no connection.
                Event::SlowConsumer(_) if purpose == Purpose::Listening => lost.cancel(),
                // What it has not subscribed to is never heard, and nobody would know.
                Event::ServerError(error) if purpose == Purpose::Listening => {
                    let _ = denied.set(error.to_string());
                    lost.cancel();
                }
                Event::ServerError(_) | Event::SlowConsumer(_)
                    if !has_complained.swap(true, Ordering::Relaxed) =>
                {
                    tracing::warn!("{label}: NATS says: {event}");
                }
                _ => {}
            }
            async {}
        });
        let options = options
            .name("portcullis")
            .max_reconnects(1)
            .ignore_discovered_servers()
            .connection_timeout(self.patience)
            .request_timeout(None)
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(self.purpose.unread_max())
            .client_capacity(UNSENT_MAX);
        match &self.tls {
            Some(tls) => options.require_tls(true).tls_client_config(ClientConfig::clone(tls)),
            None => options,
        }
    }
}

impl Purpose {
    /// Most messages of a subscription that nobody has read yet.
    fn unread_max(self) -> usize {
        match self {
            Self::Requests => UNREAD_MAX,
            Self::Listening => HEARD_MAX,
        }
    }
}

/// Who the gateway is, and the signature of what the server has chosen, where it proves that by a
/// key. A second connection of the same client gets no further than this.
fn auth(nats: &config::Nats, nonce: &[u8], is_made: bool) -> Result<Auth, AuthError> {
    if is_made {
        return Err(AuthError::new("each connection has a client of its own"));
    }
    let text = |secret: &Option<crate::base::units::Secret>| {
        let secret = secret.as_ref().map(|it| String::from_utf8_lossy(it.expose()).into_owned());
        secret.filter(|text| !text.is_empty())
    };
    let mut auth = Auth::new();
    auth.username.clone_from(&nats.username);
    auth.password = text(&nats.password);
    auth.token = text(&nats.token);
    // A server that chooses nothing asks for no key.
    if let Some(NatsKey { key, jwt }) = nats.key.as_ref().filter(|_| !nonce.is_empty()) {
        let signature = key.sign(nonce).ok_or_else(|| AuthError::new("nothing could be signed"))?;
        auth.signature = Some(signature);
        auth.jwt = text(jwt);
        // With a JWT it is the key that the JWT names.
        auth.nkey = jwt.is_none().then(|| key.public().to_owned());
    }
    Ok(auth)
}

/// Why there is no connection, and what helps.
fn explain(error: &async_nats::ConnectError) -> String {
    let help = match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            "; see username, password, token, nkey and creds"
        }
        ConnectErrorKind::Tls => "; see tls.ca_file, and tls.client_cert",
        _ => "",
    };
    format!("{error}{help}")
}

/// Connects until the upstream is gone.
async fn run(link: Weak<Link>) {
    let mut wait = WAIT_FIRST;
    loop {
        let Some(link) = link.upgrade().filter(|link| !link.left.is_cancelled()) else { return };
        match link.connect().await {
            Ok((reading, url)) => {
                wait = WAIT_FIRST;
                tracing::info!("{}: connected with {url}", link.label);
                let live = Arc::clone(&reading.live);
                link.live.store(Some(Arc::clone(&live)));
                link.came.notify_waiters();
                let is_over = read(&link, reading).await;
                link.live.store(None);
                live.replies.close();
                if is_over {
                    return;
                }
                match live.denied.get() {
                    None => tracing::warn!("{}: the connection with {url} is lost", link.label),
                    // It will not say something else at once.
                    Some(why) => {
                        tracing::warn!("{}: {url} denies something: {why}", link.label);
                        drop(live);
                        pause(link, WAIT_MAX).await;
                    }
                }
            }
            Err(why) => {
                if wait == WAIT_FIRST {
                    tracing::warn!("{}: no connection with NATS: {why}", link.label);
                }
                pause(link, wait).await;
                wait = (wait * 2).min(WAIT_MAX);
            }
        }
    }
}

/// Waits about so long, or until it is not needed any more.
async fn pause(link: Arc<Link>, wait: Duration) {
    // Not all gateways at once.
    let part = 0.8 + 0.4 * fastrand::f64();
    let left = link.left.clone();
    drop(link);
    let _ = timeout(wait.mul_f64(part), left.cancelled()).await;
}

/// Reads what comes until the connection is lost. True where it is not needed any more.
async fn read(link: &Link, reading: Reading) -> bool {
    let Reading { live, mut subscriber } = reading;
    let mut looks = tokio::time::interval(LEAVING_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_idle = false;
    loop {
        tokio::select! {
            message = subscriber.next() => {
                let Some(message) = message else { return false };
                let token = message.subject.strip_prefix(&*live.inbox);
                let token = token.and_then(|token| token.strip_prefix('.')).map(str::to_owned);
                if let Some(token) = token {
                    live.replies.tell(&token, message);
                }
            }
            () = live.lost.cancelled() => return false,
            _ = looks.tick(), if link.left.is_cancelled() => {
                // Who was let in a moment ago may not have come here yet.
                if was_idle && link.users.close() {
                    return true;
                }
                was_idle = link.users.is_none();
            }
            () = link.left.cancelled(), if !link.left.is_cancelled() => looks.reset(),
        }
    }
}
