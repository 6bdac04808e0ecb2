//! Follows the stream of revocations on a connection of its own, so that this node knows them when
//! Redis is away. No request ever waits for it.
//!
//! One look is a transaction: what the stream is, and what is new in it. Redis counts the entries
//! that were ever added, so that a look which counted others knows that something was missed. Then
//! a blocking read waits for the next entry, for `BLOCK_TIME` at most, and wakes the next look.
//! Whatever happens to the stream or to Redis, what is in the set stays until it ends.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, RwLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::Pipeline;
use tokio::time::Instant;

use super::connect_error::ConnectError;
use super::connection::Connection;
use super::dial::Purpose;
use super::link::BACKOFF_MIN;
use super::stream::{End, Look, Place, Told};
use super::topology::Topology;
use super::torn;
use crate::store::keys::Keys;
use crate::store::revoked::{Known, RevocationList, Revoked};
use crate::store::{News, RevocationKeys, RevocationStatus};

/// Longest wait for a new entry; Redis is heard at least that often.
const BLOCK_TIME: Duration = Duration::from_secs(1);

/// How long the stream's slot may be moving before that is said: nothing is missed meanwhile. No
/// setting: it decides about one line of the log, and a slot moves in less.
const MOVE_MAX: Duration = Duration::from_secs(2);

/// What the follower knows, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// Whether the stream is being read.
    pub connected: bool,
    /// Revocations in memory.
    pub known: usize,
    /// Whether no revocation of the stream is missing.
    pub complete: bool,
    /// Whether requests would be judged by them now.
    pub trusted: bool,
}

/// The set, and the task that keeps it.
#[derive(Debug)]
pub(super) struct Follower {
    revoked: RwLock<Revoked>,
    connected: AtomicBool,
    /// Whether it was said that the set is incomplete.
    complained: AtomicBool,
    /// How many there are: most requests meet none.
    count: AtomicUsize,
    keys: Keys,
    /// How long anything may be revoked: `admin.revocation_ttl`, longer than any token lives.
    pub(super) lifetime: Duration,
    /// The set of gateways, and this one's name in it.
    pub(super) member: OnceLock<(String, String)>,
    /// How many revocations were written again.
    pub(super) republished: AtomicU64,
    /// Who is told of entries.
    news: Arc<News>,
}

impl Follower {
    /// Starts the task; it ends when the follower is dropped. Must be called within a tokio
    /// runtime.
    pub(super) fn start(
        topology: &Arc<Topology>,
        lifetime: Duration,
        news: &Arc<News>,
    ) -> Arc<Self> {
        let settings = &topology.settings;
        let follower = Arc::new(Self {
            revoked: RwLock::new(Revoked::new(settings.revocations)),
            connected: AtomicBool::new(false),
            complained: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            keys: Keys::new(&settings.prefix),
            lifetime,
            member: OnceLock::new(),
            republished: AtomicU64::new(0),
            news: Arc::clone(news),
        });
        tokio::spawn(supervise(Arc::downgrade(&follower), Arc::clone(topology)));
        follower
    }

    /// See [`crate::store::Store::recall`].
    pub(super) fn recall(
        &self,
        revocation: RevocationKeys<'_>,
        max_stale: Duration,
    ) -> Option<RevocationStatus> {
        self.read().recall(revocation, now_s(), Instant::now(), max_stale)
    }

    /// Adds what this node knows to what Redis says, which may have lost it: whoever is revoked by
    /// one of the two is revoked.
    pub(super) fn add_to(&self, status: &mut RevocationStatus, revocation: RevocationKeys<'_>) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let known = self.read().known(revocation, now_s());
        status.listed |= known.listed;
        status.not_before = status.not_before.max(known.not_before);
    }

    /// This node itself has told the others of this.
    pub(super) fn note(&self, told: Told<'_>) {
        let mut revoked = self.write();
        revoked.apply(told.notice(), now_s());
        self.count.store(revoked.len(), Ordering::Relaxed);
    }

    /// All that holds now.
    pub(super) fn known(&self) -> Vec<Known> {
        self.read().all(now_s())
    }

    /// The same for people.
    pub(super) fn list(&self) -> RevocationList {
        self.read().list(now_s(), self.connected.load(Ordering::Acquire))
    }

    /// Those of them that hold as they did.
    pub(super) fn still_known(&self, some: &[Known]) -> Vec<Known> {
        let revoked = self.read();
        some.iter().filter(|known| revoked.holds(known)).cloned().collect()
    }

    /// Those of them that were taken back.
    pub(super) fn taken_back(&self, some: &[Known]) -> Vec<Known> {
        let revoked = self.read();
        some.iter().filter(|known| !revoked.has(&known.key)).cloned().collect()
    }

    /// Waits until all is known that the stream told before now, for a few looks at most. False
    /// where it is not.
    pub(super) async fn has_heard(&self) -> bool {
        let at = Instant::now();
        let longest = at + 3 * BLOCK_TIME;
        while Instant::now() < longest {
            if self.read().was_heard_after(at) {
                return true;
            }
            tokio::time::sleep(BLOCK_TIME / 20).await;
        }
        false
    }

    /// See [`crate::store::Store::followed`].
    pub(super) fn status(&self, max_stale: Duration) -> Followed {
        let now = now_s();
        self.write().sweep(now);
        let revoked = self.read();
        Followed {
            connected: self.connected.load(Ordering::Acquire),
            known: revoked.len(),
            complete: revoked.is_complete(now),
            trusted: revoked.is_trusted(now, Instant::now(), max_stale),
        }
    }

    /// Takes what a look at `asked_at` found into the set. True when the stream was read to its
    /// end.
    fn take(&self, look: &Look, place: &mut Place, asked_at: Instant) -> bool {
        let now = now_s();
        let mut revoked = self.write();
        for entry in &look.entries {
            match entry.notice(&self.keys, now, self.lifetime) {
                Some(notice) => revoked.apply(notice, now),
                None => tracing::debug!("an entry of the stream of revocations names no key"),
            }
        }
        self.count.store(revoked.len(), Ordering::Relaxed);
        let end = place.advance(look);
        if let End::Missed { older_than } = end {
            revoked.lacks_until(older_than.saturating_add(self.lifetime.as_secs()));
        }
        if !matches!(end, End::Reached | End::Missed { .. }) {
            return false;
        }
        // Not when the answer came: it may have been on its way for long.
        revoked.heard(asked_at);
        let incomplete = !revoked.is_complete(now);
        drop(revoked);
        if !look.entries.is_empty() {
            self.news.revoked.notify_one();
        }
        if self.complained.swap(incomplete, Ordering::AcqRel) != incomplete {
            if incomplete {
                tracing::warn!(
                    "not all revocations in force are known here, so none of them is used during \
                     an outage: more than store.revocations were made; raise it for all gateways"
                );
            } else {
                tracing::info!("all revocations in force are known here again");
            }
        }
        true
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Revoked> {
        self.revoked.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Revoked> {
        self.revoked.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What was said last of whether the stream is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    Followed,
    Away,
}

/// Connects, follows until something fails, and again. Ends when the follower is dropped.
async fn supervise(follower: Weak<Follower>, topology: Arc<Topology>) {
    let mut place = Place::default();
    let mut backoff = BACKOFF_MIN;
    let mut said = Said::Nothing;
    let mut away_since = Instant::now();
    loop {
        let mut moves = topology.moves();
        let ended = tokio::select! {
            ended = follow(&follower, &topology, &mut place, &mut said) => ended,
            () = moves.next() => Ok(()),
        };
        let Some(strong) = follower.upgrade() else { return };
        if strong.connected.swap(false, Ordering::AcqRel) {
            backoff = BACKOFF_MIN;
            away_since = Instant::now();
        }
        drop(strong);
        if let Err(fault) = ended
            && said != Said::Away
            && (!matches!(fault, Fault::Moving) || away_since.elapsed() >= MOVE_MAX)
        {
            tracing::warn!(
                %fault,
                "revocations are not followed, only known as they were; trying on \
                 (docs/redis.md names the rights that the Redis user needs)"
            );
            said = Said::Away;
        }
        // Jitter keeps a fleet from knocking in step.
        tokio::time::sleep(backoff.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        backoff = (backoff * 2).min(topology.settings.reconnect_backoff);
    }
}

/// Connects, looks and waits in turn. Ends without a fault when the follower was dropped, or the
/// stream is on another server.
async fn follow(
    follower: &Weak<Follower>,
    topology: &Topology,
    place: &mut Place,
    said: &mut Said,
) -> Result<(), Fault> {
    let Some(stream) = follower.upgrade().map(|strong| strong.keys.revocations()) else {
        return Ok(());
    };
    let connection = &topology.dial(&stream, Purpose::Revocations, |_| {}).await?;
    let patience = topology.settings.connect_timeout;
    loop {
        let asked_at = Instant::now();
        let replies = exchange(connection, &place.look(&stream), patience).await?;
        if has_left(topology, &stream, &replies)? {
            return Ok(());
        }
        let look = Look::read(replies).map_err(Fault::Refused)?;
        let Some(strong) = follower.upgrade() else { return Ok(()) };
        let caught_up = strong.take(&look, place, asked_at);
        strong.connected.store(true, Ordering::Release);
        drop(strong);
        // Once: that it is followed elsewhere by now changes nothing for anybody.
        if std::mem::replace(said, Said::Followed) != Said::Followed {
            tracing::info!("revocations are followed");
        }
        if caught_up {
            let wait = place.wait(&stream, BLOCK_TIME);
            let replies = exchange(connection, &wait, patience + BLOCK_TIME).await?;
            if has_left(topology, &stream, &replies)? {
                return Ok(());
            }
            if let Some(error) = replies.iter().find_map(super::reply::server_error) {
                return Err(Fault::Refused(error.to_string()));
            }
        }
    }
}

/// Whether the stream is on another server by now.
///
/// # Errors
/// It is on its way there.
fn has_left(topology: &Topology, stream: &str, replies: &[redis::Value]) -> Result<bool, Fault> {
    if topology.is_spread() && replies.iter().any(torn::is_torn) {
        return Err(Fault::Moving);
    }
    Ok(topology.has_moved(stream, replies))
}

async fn exchange(
    connection: &Connection,
    pipeline: &Pipeline,
    patience: Duration,
) -> Result<Vec<redis::Value>, Fault> {
    match tokio::time::timeout(patience, connection.send(pipeline)).await {
        Ok(replies) => Ok(replies?),
        Err(_) => Err(Fault::Silent),
    }
}

/// Why the stream is not followed any more.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("Redis does not answer in time")]
    Silent,
    #[error("the slot of their stream is moving, and neither server has it")]
    Moving,
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    #[error("{0}")]
    Refused(String),
}

/// The wall clock in Unix seconds.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
