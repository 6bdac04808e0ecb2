//! Shared state outside the request: one question, one answer.
//!
//! A request collects what it must know in [`Questions`] and gets [`Answers`] in one round trip.
//! What no answer means is policy, decided by the rooms. Two stores are a closed set: [`redis`] for
//! fleets, [`memory`] for one node. Some uses may have their own: each method says which it is of.

pub mod api_keys;
pub mod budget;
mod cached;
mod certificates;
mod error;
mod event;
mod events;
mod families;
mod history;
mod idempotent;
mod key_records;
pub mod keys;
mod known;
mod lease;
mod lineage;
mod logins;
mod marks;
pub mod memory;
mod news;
mod purged;
mod question;
pub mod queue;
mod queue_shards;
mod queues;
pub mod redis;
pub mod revoked;
mod separate;
pub mod sessions;
mod stores;
mod tellings;
pub mod window;
mod written;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::separate::One;
use self::sessions::ROUNDS_MAX;
use crate::config::{Config, StoreUse};

pub use self::api_keys::{ApiKeyList, ApiKeyWrite};
pub use self::cached::{
    ENTRY_TTL_MAX, EPOCH_TTL, Entry, Epoch, EpochChange, HeldLock, Purge, Remembered, VARIANTS_MAX,
    VARY, VARY_SETS_MAX, WantedLock, hard_halves, soft_halves,
};
pub use self::certificates::FencedWrite;
pub use self::error::StoreError;
pub use self::event::{
    EVENTS_CONSUMER, EVENTS_PAGE, EVENTS_PAGE_BYTES, EventBody, EventEntry, EventPage, EventStream,
    EventTopic, Told, Unread, keyspace_channels,
};
pub use self::families::{Family, FamilyList, FamilyWrite, Rotated, Rotation};
pub use self::idempotent::Swap;
pub use self::keys::SessionKeys;
pub use self::lease::{ConcurrencyLimit, LeaseReply, Leases, Release};
pub use self::lineage::{Known, Lineage, LineageChange, LineageChanges, LineageSource, Loss};
pub use self::logins::Noted;
pub use self::marks::{Mark, MarkKeys, MarksReply, POSITION_BYTES_MAX};
pub use self::memory::{Evicted, MemoryBounds, MemoryStore};
pub use self::news::News;
pub use self::question::{
    Answers, Cached, CachedEntry, CachedReply, ChargeReply, ChargedAt, Charges, ClaimKey, ProofKey,
    Questions, Reply, RevocationKeys, RevocationStatus, SessionKey, SessionReply, SessionValue,
};
pub use self::redis::{
    AclFor, Asked, Checked, Finding, Followed, Listening, Located, Look, Looks, NodeState,
    NotWalked, RedisStore, Rung, SHOWN, STEPS_MAX, Slow, StoreState, Verdict, Walk, Walked,
    WalkedEntry, WhyAway, acl, acl_for, doctor, events_acl, operator_acl, selftest, sentinel_acl,
};
pub use self::revoked::{Revocation, RevocationList};
pub use self::separate::{Backend, Separate};
pub use self::sessions::{
    Ending, Renewal, SessionEnd, SessionList, SessionListed, SessionWrite, SessionWritten,
};
pub use self::tellings::{Heard, TELLERS_MAX, TELLING_BYTES_MAX, Telling};
pub use self::window::{Mode, Window, WindowSet, WindowState};

/// The store, of either kind, or several.
#[derive(Debug)]
pub enum Store {
    /// A Redis server.
    Redis(Box<RedisStore>),
    /// The embedded store.
    Memory(Box<MemoryStore>),
    /// One for each of some uses.
    Separate(Box<Separate>),
}

impl Store {
    fn used_for(&self, usage: StoreUse) -> One<'_> {
        match self {
            Self::Redis(store) => One::Redis(store),
            Self::Memory(store) => One::Memory(store),
            Self::Separate(stores) => stores.used_for(usage),
        }
    }

    fn main(&self) -> One<'_> {
        self.used_for(StoreUse::Main)
    }

    fn cache(&self) -> One<'_> {
        self.used_for(StoreUse::Cache)
    }

    fn limits(&self) -> One<'_> {
        self.used_for(StoreUse::Limits)
    }

    /// Where a key lies. It is only looked at where there are several stores.
    fn home(&self, key: &str) -> One<'_> {
        match self {
            Self::Separate(stores) => stores.used_for(keys::usage(key)),
            Self::Redis(_) | Self::Memory(_) => self.main(),
        }
    }

    /// Answers everything one request needs to know, in one round trip and within `store.timeout`.
    /// Boxed, because the answers pass many hands.
    pub async fn ask(&self, questions: &Questions<'_>) -> Box<Answers> {
        match self {
            Self::Redis(store) => store.ask(questions).await,
            Self::Memory(store) => Box::new(store.ask(questions)),
            // Boxed, it takes no room in the requests of others.
            Self::Separate(stores) => Box::pin(stores.ask(questions)).await,
        }
    }

    /// Asks windows outside a request's own question: to look, to charge later, to give way.
    pub async fn take(&self, charges: Charges<'_>) -> Result<ChargeReply, StoreError> {
        let questions = Questions { charges: Some(charges), ..Questions::default() };
        self.ask(&questions).await.charges.unwrap_or(Err(StoreError::Unavailable))
    }

    /// Asks for slots outside a request's own question: to look, or to keep what one has.
    pub async fn lease(&self, leases: Leases<'_>) -> Result<LeaseReply, StoreError> {
        let questions = Questions { leases: Some(leases), ..Questions::default() };
        self.ask(&questions).await.leases.unwrap_or(Err(StoreError::Unavailable))
    }

    /// Gives slots back. Doing it again changes nothing.
    pub async fn release(&self, releases: &[Release]) -> Result<(), StoreError> {
        match self.limits() {
            One::Redis(store) => store.release(releases).await,
            One::Memory(store) => {
                releases.iter().for_each(|release| store.release(release));
                Ok(())
            }
        }
    }

    /// Gives back what a charge took: the cost of each window in `charges`.
    pub async fn refund(&self, charges: Charges<'_>, at: &ChargedAt) -> Result<(), StoreError> {
        match self.limits() {
            One::Redis(store) => store.refund(charges, at).await,
            One::Memory(store) => {
                store.refund(charges, at);
                Ok(())
            }
        }
    }

    /// Writes a revocation and tells every gateway of it, in one step.
    pub async fn revoke(&self, revocation: Revocation<'_>) -> Result<(), StoreError> {
        match self.main() {
            One::Redis(store) => store.revoke(revocation).await?,
            One::Memory(store) => {
                store.revoke(revocation)?;
            }
        }
        self.news().changed.notify_one();
        Ok(())
    }

    /// The same, where a newer revocation of the key may be there, or one that lasts longer: that
    /// one is neither lowered nor shortened.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn revoke_more(&self, revocation: Revocation<'_>) -> Result<(), StoreError> {
        match self.main() {
            One::Redis(store) => store.revoke_more(revocation).await?,
            One::Memory(store) => store.revoke_more(revocation)?,
        }
        self.news().changed.notify_one();
        Ok(())
    }

    /// What has changed.
    pub fn news(&self) -> Arc<News> {
        match self.main() {
            One::Redis(store) => store.news(),
            One::Memory(store) => store.news(),
        }
    }

    /// Takes a revocation back, here and with every gateway. True when there was one.
    pub async fn unrevoke(&self, key: &str, stream_ttl: Duration) -> Result<bool, StoreError> {
        match self.main() {
            One::Redis(store) => store.unrevoke(key, stream_ttl).await,
            One::Memory(store) => Ok(store.delete(key)),
        }
    }

    /// The revocations in force; those that do not say last for `lifetime`.
    ///
    /// # Errors
    /// The store had to be asked, and did not answer, or refused.
    pub async fn revocations(&self, lifetime: Duration) -> Result<RevocationList, StoreError> {
        match self.main() {
            One::Redis(store) => store.revocations(lifetime).await,
            One::Memory(store) => Ok(store.revocations()),
        }
    }

    /// Begins to follow the stream of revocations, if `config` wants to know them during an outage,
    /// or has tunnels or gRPC calls that they end; and tells each store what serves in its place.
    /// Once begun, it goes on. The embedded store cannot be away, so nobody needs to know.
    pub fn follow_revocations(&self, config: &Config) {
        for usage in self.uses() {
            if let One::Redis(store) = self.used_for(usage) {
                store.adopt(config.store.on_outage);
            }
        }
        match self.main() {
            One::Redis(store) => store.follow_revocations(config),
            One::Memory(_) => {}
        }
    }

    /// The revocation status of a token as this node last knew it: nothing unless what it knows is
    /// complete and less than `max_stale` old.
    pub fn recall(
        &self,
        revocation: RevocationKeys<'_>,
        max_stale: Duration,
    ) -> Option<RevocationStatus> {
        match self.main() {
            One::Redis(store) => store.recall(revocation, max_stale),
            One::Memory(_) => None,
        }
    }

    /// What the follower of revocations knows; nothing when there is none.
    pub fn followed(&self, max_stale: Duration) -> Option<Followed> {
        match self.main() {
            One::Redis(store) => store.followed(max_stale),
            One::Memory(_) => None,
        }
    }

    /// One string, or nothing when there is none, or an empty one; 8,193 bytes of it at most.
    ///
    /// # Errors
    /// The store did not answer, or the key holds something else.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self.main() {
            One::Redis(store) => store.get(key).await,
            One::Memory(store) => store.get(key),
        }
    }

    /// Writes one value with a life.
    pub async fn put(&self, key: &str, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        match self.home(key) {
            One::Redis(store) => store.put(key, value, ttl).await,
            One::Memory(store) => store.put(key, Bytes::copy_from_slice(value), Some(ttl)),
        }
    }

    /// Sets these marks, by their keys, for so long; a later one that is there stays.
    ///
    /// # Errors
    /// The store did not answer, or refused; some may be marked then.
    pub async fn mark(&self, marks: &[(String, Mark)], ttl: Duration) -> Result<(), StoreError> {
        match self.main() {
            One::Redis(store) => store.mark(marks, ttl).await,
            One::Memory(store) => store.mark(marks, ttl),
        }
    }

    /// Deletes one key. True when it existed.
    pub async fn delete(&self, key: &str) -> Result<bool, StoreError> {
        match self.home(key) {
            One::Redis(store) => store.delete(key).await,
            One::Memory(store) => Ok(store.delete(key)),
        }
    }
}

// Sessions beyond being read.
impl Store {
    /// Moves a session's expiry out, never in, and notes beside it when it will end and why. Does
    /// nothing when it is gone.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn renew(&self, keys: &SessionKeys, renewal: Renewal) -> Result<(), StoreError> {
        match self.main() {
            One::Redis(store) => store.renew(keys, renewal).await,
            One::Memory(store) => store.renew(keys, renewal),
        }
    }

    /// Writes a session and its place in the index of its user, and ends the user's oldest others
    /// beyond `most`, of which there are at no moment more. Nothing when there was none and
    /// `only_over` forbids that.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn write_session(
        &self,
        write: &SessionWrite,
    ) -> Result<Option<SessionWritten>, StoreError> {
        match self.main() {
            One::Redis(store) => store.write_session(write).await,
            One::Memory(store) => store.write_session(write),
        }
    }

    /// Ends one session and takes it out of its user's index. True when there was one.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn end_session(&self, keys: &SessionKeys, part: &str) -> Result<bool, StoreError> {
        let was_there = match self.main() {
            One::Redis(store) => store.end_session(keys, part).await?,
            One::Memory(store) => store.end_session(keys, part),
        };
        self.news().changed.notify_one();
        Ok(was_there)
    }

    /// The sessions in an index. What is gone is taken out of it.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn list_sessions(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<SessionList, StoreError> {
        match self.main() {
            One::Redis(store) => store.list_sessions(index, families).await,
            One::Memory(store) => store.list_sessions(index, families),
        }
    }

    /// Ends all sessions in an index; how many there were.
    ///
    /// # Errors
    /// The store did not answer, or refused; some may have ended then.
    pub async fn end_sessions(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<usize, StoreError> {
        let mut ended = 0;
        for _ in 0..ROUNDS_MAX {
            let (now, left) = match self.main() {
                One::Redis(store) => store.end_sessions(index, families).await?,
                One::Memory(store) => store.end_sessions(index, families)?,
            };
            ended += now;
            if left == 0 {
                self.news().changed.notify_one();
                return Ok(ended);
            }
        }
        Err(StoreError::Refused("sessions of this user are written faster than ended".to_owned()))
    }
}

// What the cache does beside the request's own question.
impl Store {
    /// More variants of one entry.
    pub async fn variants(
        &self,
        key: &str,
        variants: &[String],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        match self.cache() {
            One::Redis(store) => store.variants(key, variants).await,
            One::Memory(store) => Ok(store.variants(key, variants).1),
        }
    }

    /// The names of variants of an entry: `most` of them, or all where there are fewer.
    pub async fn variant_names(&self, key: &str, most: usize) -> Result<Vec<String>, StoreError> {
        match self.cache() {
            One::Redis(store) => store.variant_names(key, most).await,
            One::Memory(store) => Ok(store.variant_names(key, most)),
        }
    }

    /// Epochs of now: those of a stored response's tags and groups.
    pub async fn epochs(&self, keys: &[String]) -> Result<Vec<Epoch>, StoreError> {
        match self.cache() {
            One::Redis(store) => store.epochs(keys).await,
            One::Memory(store) => Ok(store.epochs(keys).epochs),
        }
    }

    /// What keys of epochs hold, of whatever history: to see that a change was made.
    pub async fn stored_epochs(&self, keys: &[String]) -> Result<Vec<Epoch>, StoreError> {
        match self.cache() {
            One::Redis(store) => store.stored_epochs(keys).await,
            One::Memory(store) => Ok(store.epochs(keys).epochs),
        }
    }

    /// The epochs of tags and groups; nothing where one of them was purged since the clock of tags
    /// stood at `since`, or nobody can tell.
    pub async fn tags(
        &self,
        keys: &[String],
        clock: &str,
        since: Epoch,
    ) -> Result<Option<Vec<Epoch>>, StoreError> {
        match self.cache() {
            One::Redis(store) => store.tags(keys, clock, since).await,
            One::Memory(store) => Ok(store.tags(keys, clock, since)),
        }
    }

    /// The epochs as this node knows them without asking: only if it knows every one of them, and
    /// hears of each change (`store.cache_epochs = "follow"`).
    pub fn known_epochs(&self, keys: &[String]) -> Option<Vec<Known>> {
        match self.cache() {
            One::Redis(store) => store.known_epochs(keys),
            One::Memory(_) => None,
        }
    }

    /// How many epochs this node knows, and whether it hears of their changes; nothing where it
    /// asks.
    pub fn followed_epochs(&self) -> Option<(usize, bool)> {
        match self.cache() {
            One::Redis(store) => store.followed_epochs(),
            One::Memory(_) => None,
        }
    }

    /// Begins to follow the changes of epochs for good, if `store.cache_epochs` says so.
    pub fn follow_epochs(&self) {
        match self.cache() {
            One::Redis(store) => store.follow_epochs(),
            One::Memory(_) => {}
        }
    }

    /// Keeps a variant of a response, unless its path was purged since the fetch began or somebody
    /// else holds its lock.
    pub async fn remember(&self, entry: &Entry) -> Result<Remembered, StoreError> {
        match self.cache() {
            One::Redis(store) => store.remember(entry).await,
            One::Memory(store) => store.remember(entry),
        }
    }

    /// Writes parts of a body, before the entry that names them.
    pub async fn write_chunks(
        &self,
        chunks: &[(String, Bytes)],
        ttl: Duration,
    ) -> Result<(), StoreError> {
        match self.cache() {
            One::Redis(store) => store.write_chunks(chunks, ttl).await,
            One::Memory(store) => store.write_chunks(chunks, ttl),
        }
    }

    /// Lets parts of a body live for at least `ttl` from now. False when one of them is gone.
    pub async fn extend_chunks(&self, keys: &[String], ttl: Duration) -> Result<bool, StoreError> {
        match self.cache() {
            One::Redis(store) => store.extend_chunks(keys, ttl).await,
            One::Memory(store) => Ok(store.extend_chunks(keys, ttl)),
        }
    }

    /// Parts of a body, in order.
    pub async fn chunks(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, StoreError> {
        match self.cache() {
            One::Redis(store) => store.chunks(keys).await,
            One::Memory(store) => Ok(store.chunks(keys)),
        }
    }

    /// Whether all these parts of a body are there.
    pub async fn has_chunks(&self, keys: &[String]) -> Result<bool, StoreError> {
        match self.cache() {
            One::Redis(store) => store.has_chunks(keys).await,
            One::Memory(store) => Ok(store.chunks(keys).iter().all(Option::is_some)),
        }
    }

    /// Removes parts of a body.
    pub async fn drop_chunks(&self, keys: &[String]) -> Result<(), StoreError> {
        match self.cache() {
            One::Redis(store) => store.drop_chunks(keys).await,
            One::Memory(store) => {
                store.drop_chunks(keys);
                Ok(())
            }
        }
    }

    /// Takes a lock that nobody holds, for `ttl`. True when it is the caller's now.
    pub async fn lock(&self, lock: &HeldLock, ttl: Duration) -> Result<bool, StoreError> {
        match self.home(&lock.key) {
            One::Redis(store) => store.lock(lock, ttl).await,
            One::Memory(store) => store.lock(lock, ttl),
        }
    }

    /// Keeps a lock for another `ttl`. False when it is not the caller's any more.
    pub async fn extend_lock(&self, lock: &HeldLock, ttl: Duration) -> Result<bool, StoreError> {
        match self.home(&lock.key) {
            One::Redis(store) => store.extend_lock(lock, ttl).await,
            One::Memory(store) => store.extend_lock(lock, ttl),
        }
    }

    /// Releases a lock. False when it was not the caller's.
    pub async fn unlock(&self, lock: &HeldLock) -> Result<bool, StoreError> {
        match self.home(&lock.key) {
            One::Redis(store) => store.unlock(lock).await,
            One::Memory(store) => Ok(store.unlock(lock)),
        }
    }

    /// Changes epochs, all at once: nobody reads some of them changed and others not.
    pub async fn purge(&self, purges: &[Purge]) -> Result<(), StoreError> {
        match self.cache() {
            One::Redis(store) => store.purge(purges).await,
            One::Memory(store) => store.purge(purges),
        }
    }

    /// Takes the base epoch away: nothing stored is valid any more. True when there was one.
    pub async fn withdraw_all(&self, base: &str) -> Result<bool, StoreError> {
        match self.cache() {
            One::Redis(store) => store.withdraw_all(base).await,
            One::Memory(store) => Ok(store.delete(base)),
        }
    }

    /// Makes the base epoch, or the clock of tags, if there is none.
    pub async fn found(&self, base: &str) -> Result<(), StoreError> {
        match self.cache() {
            One::Redis(store) => store.found(base).await,
            One::Memory(store) => store.found(base),
        }
    }
}

#[cfg(test)]
mod tests;
