//! The connection to Redis, and the supervisor that replaces it.
//!
//! The request path only ever loads a pointer: either there is a connection that answered a probe,
//! or there is none. A connection is given up when it breaks, when the server says that it cannot
//! serve writes, or after `SILENT_REPLIES_MAX` deadlines in a row; one good probe (loading the
//! scripts) brings the next one into service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo,
};
use tokio::sync::Notify;

use crate::config::{self, StoreUrl};

/// Missed deadlines in a row after which a connection is replaced.
const SILENT_REPLIES_MAX: u32 = 5;
/// First pause between connection attempts; it doubles up to `store.reconnect_backoff`.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(25);
/// Pause between two looks at the server's clock.
const CLOCK_PAUSE: Duration = Duration::from_secs(30);
/// How long the kernel keeps unacknowledged data before it gives the connection up.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);

/// A script and its name in the server's cache.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) code: &'static str,
    pub(super) sha: String,
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, sha: redis::Script::new(code).get_hash().to_owned() }
    }
}

/// The scripts of the request path.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) take: Script,
    pub(super) refund: Script,
    pub(super) lease: Script,
    pub(super) release: Script,
    pub(super) session: Script,
    pub(super) renew: Script,
    pub(super) remember: Script,
    pub(super) relock: Script,
}

/// A connection that answered its probe.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) connection: MultiplexedConnection,
    /// Missed deadlines in a row.
    silent: AtomicU32,
    /// Set by the library when the connection is closed, also while nobody asks.
    closed: Arc<AtomicBool>,
}

/// What one exchange said about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It answered.
    Good,
    /// It did not answer in time.
    Silent,
    /// It cannot be used any more.
    Broken,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) scripts: Scripts,
    current: ArcSwapOption<Published>,
    /// What to add to this node's wall clock to get the server's, in milliseconds.
    clock_offset_ms: AtomicI64,
    /// Wakes the supervisor: the current connection was given up.
    lost: Arc<Notify>,
    /// Wakes those who wait for the first connection.
    found: Notify,
}

impl Link {
    pub(super) fn start(settings: &config::Store) -> Arc<Self> {
        let link = Arc::new(Self {
            scripts: Scripts {
                take: Script::new(include_str!("../scripts/take.lua")),
                refund: Script::new(include_str!("../scripts/refund.lua")),
                lease: Script::new(include_str!("../scripts/lease.lua")),
                release: Script::new(include_str!("../scripts/release.lua")),
                session: Script::new(include_str!("../scripts/session.lua")),
                renew: Script::new(include_str!("../scripts/session_renew.lua")),
                remember: Script::new(include_str!("../scripts/remember.lua")),
                relock: Script::new(include_str!("../scripts/relock.lua")),
            },
            current: ArcSwapOption::empty(),
            clock_offset_ms: AtomicI64::new(0),
            lost: Arc::new(Notify::new()),
            found: Notify::new(),
        });
        let weak = Arc::downgrade(&link);
        tokio::spawn(supervise(weak, settings.clone()));
        link
    }

    /// The connection, if there is one.
    pub(super) fn get(&self) -> Option<Arc<Published>> {
        self.current.load_full()
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

    async fn set_clock(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), redis::RedisError> {
        let before = now_ms();
        let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(connection).await?;
        let offset = offset_ms(before, now_ms(), (seconds, micros));
        self.clock_offset_ms.store(offset, Ordering::Relaxed);
        Ok(())
    }

    /// Takes note of how an exchange on `published` went.
    pub(super) fn report(&self, published: &Arc<Published>, health: Health) {
        let give_up = match health {
            Health::Good => {
                // A store only when there is something to forget: the line stays shared between
                // cores.
                if published.silent.load(Ordering::Relaxed) != 0 {
                    published.silent.store(0, Ordering::Relaxed);
                }
                false
            }
            Health::Silent => {
                published.silent.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT_REPLIES_MAX
            }
            Health::Broken => true,
        };
        if give_up {
            self.give_up(published);
        }
    }

    fn give_up(&self, published: &Arc<Published>) {
        let previous = self.current.compare_and_swap(published, None);
        if previous.as_ref().is_some_and(|previous| Arc::ptr_eq(previous, published)) {
            tracing::warn!(
                "the store is lost; serving as store.on_outage says until it answers again"
            );
            self.lost.notify_one();
        }
    }
}

/// Looks at the server's clock from time to time. Ends when the link is dropped.
pub(super) async fn keep_time(link: std::sync::Weak<Link>) {
    loop {
        tokio::time::sleep(CLOCK_PAUSE).await;
        let Some(link) = link.upgrade() else { return };
        if let Some(published) = link.get() {
            let mut connection = published.connection.clone();
            // A clock that cannot be read now is as it was; others look after the connection.
            let _ = tokio::time::timeout(CLOCK_PAUSE, link.set_clock(&mut connection)).await;
        }
    }
}

/// The wall clock in Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// How far the server's clock is ahead, when it said this in the middle between two of our times.
fn offset_ms(before: i64, after: i64, (seconds, micros): (i64, i64)) -> i64 {
    let server = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    server.saturating_sub(before.midpoint(after))
}

/// Connects, publishes, waits for the loss, and again. Ends when the link is dropped.
async fn supervise(link: std::sync::Weak<Link>, settings: config::Store) {
    let mut backoff = BACKOFF_MIN;
    let mut outage_reported = false;
    loop {
        let Some(strong) = link.upgrade() else { return };
        let lost = Arc::clone(&strong.lost);
        match connect(&strong, &settings).await {
            Ok(published) => {
                let closed = Arc::clone(&published.closed);
                strong.current.store(Some(Arc::clone(&published)));
                if closed.load(Ordering::Acquire) {
                    // It closed before it was published, so nobody gave it up.
                    strong.give_up(&published);
                }
                strong.found.notify_waiters();
                tracing::info!("the store answers");
                outage_reported = false;
                backoff = BACKOFF_MIN;
                drop(strong);
                lost.notified().await;
            }
            Err(error) => {
                drop(strong);
                if !outage_reported {
                    tracing::warn!(%error, "the store cannot be reached; trying on");
                    outage_reported = true;
                }
                // Jitter keeps a fleet from knocking in step.
                tokio::time::sleep(backoff.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                backoff = (backoff * 2).min(settings.reconnect_backoff);
            }
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
    // The library tells of a closed connection through the push channel, also when no request is
    // waiting.
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
                link.give_up(&published);
            }
        }
        Ok::<(), ()>(())
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.connect_timeout))
        // Our own deadline is around every exchange; the library's would be a second timer.
        .set_response_timeout(None)
        .set_push_sender(on_push);
    let client = Client::open(connection_info(settings)?)?;
    let attempt = async {
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut probe = redis::pipe();
        let scripts = &link.scripts;
        let Scripts { take, lease, session, renew, remember, relock, .. } = scripts;
        for script in [take, lease, session, renew, remember, relock] {
            probe.cmd("SCRIPT").arg("LOAD").arg(script.code).ignore();
        }
        probe.exec_async(&mut connection).await?;
        // It may be another server than before, with another clock.
        link.set_clock(&mut connection).await?;
        Ok(Arc::new(Published {
            connection,
            silent: AtomicU32::new(0),
            closed: Arc::clone(&closed),
        }))
    };
    match tokio::time::timeout(settings.connect_timeout, attempt).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout),
    }
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no answer within store.connect_timeout")]
    Timeout,
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
}

pub(super) fn connection_info(
    settings: &config::Store,
) -> Result<ConnectionInfo, redis::RedisError> {
    let (address, db) = match &settings.url {
        StoreUrl::Redis { host, port, db } => (ConnectionAddr::Tcp(host.clone(), *port), *db),
        StoreUrl::Unix { path } => (ConnectionAddr::Unix(path.clone()), 0),
        StoreUrl::Memory => (ConnectionAddr::Tcp(String::new(), 0), 0),
    };
    // RESP3, because only it reports a closed connection to an idle client.
    let mut redis = RedisConnectionInfo::default()
        .set_db(db)
        .set_protocol(ProtocolVersion::RESP3)
        // Telling the server our library's name needs a right of its own since Redis 7.2.
        .set_skip_set_lib_name();
    if let Some(username) = &settings.username {
        redis = redis.set_username(username);
    }
    if let Some(password) = &settings.password {
        redis = redis.set_password(String::from_utf8_lossy(password.expose()));
    }
    let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(TCP_USER_TIMEOUT);
    Ok(address.into_connection_info()?.set_redis_settings(redis).set_tcp_settings(tcp))
}

#[cfg(test)]
mod tests {
    use super::offset_ms;

    #[test]
    fn the_servers_clock_is_read_in_the_middle_of_the_exchange() {
        assert_eq!(offset_ms(1_000_000, 1_000_010, (1000, 5999)), 0);
        assert_eq!(offset_ms(1_000_000, 1_000_000, (997, 500_000)), -2500);
        assert_eq!(offset_ms(0, 0, (i64::MAX, i64::MAX)), i64::MAX);
    }
}
