//! The Redis store: one pipeline per question (`ask`), made of parts that each know their own keys,
//! commands and replies (`part`), sent to where its keys lie (`topology`) on a multiplexed
//! connection that a supervisor keeps (`link`).
//!
//! A request never waits for a connection to be made: without one it is told so at once. Everything
//! it does wait for is bounded by `store.timeout`.

mod api_keys;
mod ask;
mod breaker;
mod cache;
mod call;
mod certificates;
mod check;
mod claims;
mod cluster;
mod common;
mod confirm;
mod connect_error;
mod connection;
mod credentials;
mod cut;
mod dial;
mod doctor;
mod doctor_info;
mod doctor_operator;
mod doctor_row;
mod doctor_times;
mod ear;
mod ears;
mod encode;
mod errand;
mod events;
mod eviction;
mod expect;
mod families;
mod files;
mod finding;
mod findings;
mod follow;
mod hear;
mod history;
mod history_watch;
mod idempotent;
mod index;
mod journal;
mod lanes;
mod link;
mod logins;
mod looking;
mod map;
mod marks;
mod mismatch;
mod misses;
mod node;
mod operator;
mod part;
mod probe;
mod published;
mod pulse;
mod queue;
mod queue_commit;
mod queue_follow;
mod queue_groups;
mod queue_replies;
mod queue_shards;
mod queue_take;
mod renewal;
mod repair;
mod reply;
mod resp;
mod revocations;
mod revoke_more;
mod rights;
mod rung;
mod says;
mod scripts;
mod selftest;
mod selftest_cluster;
mod selftest_follow;
mod selftest_sentinels;
mod sentinel;
mod sentinels;
mod server;
mod sessions;
mod set_up;
mod signature;
mod slots;
mod slow_log;
mod spread;
mod state;
mod stream;
mod tally;
mod tellings;
mod topology;
mod torn;
mod track;
mod walk;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};

pub use self::check::selftest;
pub use self::doctor::doctor;
pub use self::doctor_row::{Checked, Verdict};
pub use self::events::Listening;
pub use self::finding::{Finding, Located};
pub use self::follow::Followed;
pub use self::operator::{Look, SHOWN};
pub use self::rights::{AclFor, acl, acl_for, events_acl, operator_acl, sentinel_acl};
pub use self::rung::Rung;
pub use self::slow_log::Slow;
pub use self::state::{NodeState, StoreState, WhyAway};
pub use self::tally::Asked;
pub use self::walk::{NotWalked, STEPS_MAX, Walk, Walked, WalkedEntry};

use self::cut::Cut;
use self::follow::Follower;
use self::journal::{Journal, Untold};
use self::operator::Operator;
use self::part::Part;
use self::queue_commit::Commits;
use self::queue_groups::Groups;
use self::repair::FOLLOWS;
use self::reply::server_error;
use self::revocations::Reading;
use self::stream::{Told, millis};
use self::topology::Topology;
use self::track::Tracker;
use super::keys::Keys;
use super::{
    ChargedAt, Charges, News, Questions, Release, Revocation, RevocationKeys, RevocationList,
    RevocationStatus, StoreError,
};
use crate::config;
use crate::observe::RedisNow;

/// What is asked of Redis, wherever its keys lie (`topology`), and what is known of it without
/// asking.
#[derive(Debug)]
pub struct RedisStore {
    topology: Arc<Topology>,
    /// Who knows of revocations while Redis is away.
    follower: OnceLock<Arc<Follower>>,
    /// Who hears of changed epochs.
    tracker: OnceLock<Tracker>,
    news: Arc<News>,
    /// What is still to be told, where the stream lies apart from what it tells of.
    journal: Option<Arc<Journal>>,
    /// How often replicas did not have all in time.
    unconfirmed: AtomicU64,
    /// Who may look at it.
    operator: Option<Arc<Operator>>,
    /// Whether a session was seen that is no string.
    hashes: AtomicBool,
    /// What was read of the stream of revocations for a list.
    reading: Reading,
    /// Which queues have been served.
    queue_groups: Groups,
    /// Who waits until items are durable.
    queue_commits: Commits,
}

/// What servers said when they were asked.
#[derive(Debug)]
pub struct Looks {
    /// Whether they are those of a Redis Cluster.
    pub is_cluster: bool,
    /// Those that are asked; nothing where nobody may look, for want of `[store.operator]`.
    pub servers: Option<Vec<Look>>,
}

impl RedisStore {
    /// Begins to connect; returns before there is a connection. Must be called within a tokio
    /// runtime.
    pub fn open(settings: &config::Store) -> Self {
        let topology = Topology::open(settings);
        let credentials = &topology.common.credentials;
        if credentials.have_files() {
            let look_now = Arc::clone(&credentials.look);
            tokio::spawn(renewal::follow(Arc::downgrade(&topology), look_now));
        }
        tokio::spawn(selftest_follow::follow(Arc::downgrade(&topology)));
        let journal = topology.is_spread().then(|| Journal::start(&topology));
        let operator = Operator::start(&topology);
        Self {
            topology,
            journal,
            operator,
            unconfirmed: AtomicU64::new(0),
            follower: OnceLock::new(),
            tracker: OnceLock::new(),
            news: Arc::default(),
            hashes: AtomicBool::new(false),
            reading: Reading::default(),
            queue_groups: Groups::default(),
            queue_commits: Commits::default(),
        }
    }

    /// Waits until the first connection stands, or until the attempt has had its time.
    pub async fn first_connection(&self, timeout: Duration) -> bool {
        self.topology.first_connection(timeout).await
    }

    /// Gives the current thread a connection of its own, driven by its own runtime.
    pub async fn join(&self) {
        self.topology.join().await;
    }

    /// See [`super::Store::look_at_files`].
    pub fn look_at_files(&self) {
        self.topology.look_at_files();
    }

    /// See [`super::Store::is_connected`].
    pub fn is_connected(&self) -> bool {
        self.topology.is_connected()
    }

    /// See [`super::Store::why_away`].
    pub fn why_away(&self) -> Option<WhyAway> {
        self.topology.why_away()
    }

    /// See [`super::Store::redis_now`].
    pub fn redis_now(&self) -> Vec<RedisNow> {
        self.operator.as_ref().map(|operator| operator.told()).unwrap_or_default()
    }

    /// See [`super::Store::look`].
    pub async fn look(&self) -> Looks {
        let is_cluster = self.topology.is_spread();
        let Some(operator) = &self.operator else { return Looks { is_cluster, servers: None } };
        Looks { is_cluster, servers: Some(operator.look(&self.topology).await) }
    }

    /// See [`super::Store::walk`].
    pub async fn walk(&self, walk: &Walk) -> Result<Walked, NotWalked> {
        let operator = self.operator.as_ref().ok_or(NotWalked::NoOperator)?;
        operator.walk(&self.topology, walk).await
    }

    /// See [`super::Store::state`].
    pub fn state(&self) -> StoreState {
        self.topology.state()
    }

    /// See [`super::Store::announce`].
    pub async fn announce(
        &self,
        gateways: &str,
        name: &str,
        remembered: Duration,
    ) -> Result<u32, StoreError> {
        let now_ms = self.now_ms();
        let since_ms = now_ms.saturating_sub(millis(remembered));
        let mut pipeline = Pipeline::with_capacity(6);
        let mut name = Cow::Borrowed(name);
        if let Some(follower) = self.follower.get() {
            // It may have been there under its plain name before.
            pipeline.cmd("ZREM").arg(gateways).arg(&*name);
            name = Cow::Owned([&*name, FOLLOWS].concat());
            let member = || (gateways.to_owned(), name.clone().into_owned());
            follower.member.get_or_init(member);
        }
        pipeline.cmd("ZREMRANGEBYSCORE").arg(gateways).arg("-inf").arg(since_ms);
        pipeline.cmd("ZADD").arg(gateways).arg(now_ms).arg(&*name);
        pipeline.cmd("PEXPIRE").arg(gateways).arg(3 * millis(remembered));
        pipeline.cmd("ZCARD").arg(gateways);
        match self.run_all(&mut pipeline).await?.pop() {
            Some(Value::Int(count)) => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
            _ => Err(StoreError::Unavailable),
        }
    }

    /// See [`super::Store::release`].
    pub async fn release(&self, releases: &[Release]) -> Result<(), StoreError> {
        let script = &self.topology.scripts.release;
        let mut pipeline = Pipeline::with_capacity(releases.len());
        for Release { keys, limits, holder, in_doubt } in releases {
            // Each key for itself: they may lie on different servers.
            if *in_doubt {
                for (key, limit) in keys.iter().zip(limits) {
                    // Rare, so the script travels with the call.
                    let call = pipeline.cmd("EVAL").arg(script.code).arg(1).arg(key);
                    call.arg(holder).arg(limit.lease_ms());
                }
            } else {
                for key in keys {
                    pipeline.cmd("ZREM").arg(key).arg(holder);
                }
            }
        }
        let replies = self.run(&mut pipeline).await?;
        match replies.iter().find_map(server_error) {
            // A server that cannot write now is as good as away.
            Some(_) if reply::refuses_writes(&replies) => Err(StoreError::Unavailable),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// See [`super::Store::refund`].
    pub async fn refund(&self, charges: Charges<'_>, at: &ChargedAt) -> Result<(), StoreError> {
        let asked = Questions { charges: Some(charges), ..Questions::default() };
        let cut = Cut::of(&asked, &|key: &str| self.topology.place(key));
        let mut pipeline = Pipeline::with_capacity(2);
        cut.charges(charges).for_each(|group| self.put_refund(&mut pipeline, group, at));
        let replies = self.run(&mut pipeline).await?;
        let mut apart = Pipeline::new();
        let torn = cut.charges(charges).zip(&replies).filter(|(_, reply)| torn::is_torn(reply));
        for (group, _) in torn {
            if let Some(keys) = Cut::by_key(&Part::Charges(group)) {
                keys.charges(group).for_each(|one| self.put_refund(&mut apart, one, at));
            }
        }
        let rest = replies.into_iter().filter(|reply| apart.is_empty() || !torn::is_torn(reply));
        if let Some(error) = rest.into_iter().find_map(|reply| server_error(&reply)) {
            return Err(error);
        }
        if apart.is_empty() {
            return Ok(());
        }
        match self.run_all(&mut apart).await {
            // Others were given back before: nobody may take all of it for not asked.
            Err(StoreError::NotAsked) => Err(StoreError::Timeout),
            given => given.map(drop),
        }
    }

    /// The script travels with the call: a refund is rare, and must not fail because the server
    /// forgot it.
    fn put_refund(&self, pipeline: &mut Pipeline, of: Charges<'_>, at: &ChargedAt) {
        let script = &self.topology.scripts.refund;
        let place = self.topology.place(of.keys.first().map_or("", String::as_str));
        let at = &at.micros_in(place).to_le_bytes()[..6];
        let mut call = redis::cmd("EVAL");
        call.arg(script.code).arg(of.keys.len()).arg(of.keys).arg(at);
        call.arg(of.set.records.as_slice());
        pipeline.add_command(call);
    }

    /// See [`super::Store::revoke`].
    pub async fn revoke(&self, revocation: Revocation<'_>) -> Result<(), StoreError> {
        let mut key = redis::cmd("SET");
        key.arg(revocation.key).arg(revocation.value()).arg("PX").arg(millis(revocation.ttl));
        let told = Told::of(&revocation, follow::now_s());
        self.tell(vec![key], told, revocation.stream_ttl.max(revocation.ttl)).await.map(|_| ())
    }

    /// See [`super::Store::unrevoke`].
    pub async fn unrevoke(&self, key: &str, stream_ttl: Duration) -> Result<bool, StoreError> {
        let mut delete = redis::cmd("DEL");
        delete.arg(key);
        let replies = self.tell(vec![delete], Told::undone(key), stream_ttl).await?;
        Ok(matches!(replies.first(), Some(Value::Int(1))))
    }

    /// See [`super::Store::revocations`].
    pub async fn revocations(&self, lifetime: Duration) -> Result<RevocationList, StoreError> {
        match self.follower.get() {
            Some(follower) => Ok(follower.list()),
            None => self.reading.list(&self.topology, lifetime).await,
        }
    }

    /// Changes a revocation's key, and what ends with it, and adds to the stream; what the commands
    /// answered.
    async fn tell(
        &self,
        changes: Vec<Cmd>,
        told: Told<'_>,
        stream_ttl: Duration,
    ) -> Result<Vec<Value>, StoreError> {
        let config::Store { prefix, revocations, .. } = &self.topology.settings;
        let stream = Keys::new(prefix).revocations();
        let write = |changes| stream::write(&stream, *revocations, changes, told, stream_ttl);
        let replies = match &self.journal {
            None => self.topology.transact(write(changes)).await?,
            Some(journal) => {
                let _turn = journal.turn(told.key()).await;
                let tell = write(Vec::new());
                // Also where the caller leaves meanwhile, what is in force is told.
                let mut untold = Untold::new(journal, told, tell.clone());
                // The key is in force before anybody is told of it.
                let changed = self.topology.transact(changes).await;
                untold.note(&changed);
                let replies = changed?;
                self.topology.transact(tell).await?;
                untold.was_told();
                replies
            }
        };
        if let Some(follower) = self.follower.get() {
            follower.note(told);
        }
        Ok(replies)
    }

    /// What serves in the store's place from now on, for the log.
    pub fn adopt(&self, on_outage: config::OnOutage) {
        self.topology.common.adopt(on_outage);
    }

    /// See [`super::Store::follow_revocations`]. Must be called within a tokio runtime.
    pub fn follow_revocations(&self, config: &config::Config) {
        let lasts = |route: &config::Route| route.tunnel.is_some() || route.grpc.is_some();
        let is_followed = config.routes.values().any(|route| lasts(route) && route.auth.is_some());
        if is_followed || !config.store.on_outage.revocation_max_stale.is_zero() {
            let lifetime = config.admin.revocation_ttl;
            self.follower.get_or_init(|| {
                let changes = self.topology.common.histories.changes();
                let follower = Follower::start(&self.topology, lifetime, &self.news);
                let topology = Arc::downgrade(&self.topology);
                tokio::spawn(repair::keep(Arc::downgrade(&follower), topology, changes));
                follower
            });
        }
    }

    /// See [`super::Store::news`].
    pub fn news(&self) -> Arc<News> {
        Arc::clone(&self.news)
    }

    /// See [`super::Store::recall`].
    pub fn recall(
        &self,
        revocation: RevocationKeys<'_>,
        max_stale: Duration,
    ) -> Option<RevocationStatus> {
        self.follower.get()?.recall(revocation, max_stale)
    }

    /// See [`super::Store::followed`].
    pub fn followed(&self, max_stale: Duration) -> Option<Followed> {
        Some(self.follower.get()?.status(max_stale))
    }

    /// See [`super::Store::put`].
    pub async fn put(&self, key: &str, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value).arg("PX").arg(millis(ttl));
        self.run_one(command).await.map(|_| ())
    }

    /// See [`super::Store::delete`].
    pub async fn delete(&self, key: &str) -> Result<bool, StoreError> {
        let mut command = redis::cmd("DEL");
        command.arg(key);
        Ok(matches!(self.run_one(command).await?, Value::Int(1)))
    }

    async fn run_one(&self, command: Cmd) -> Result<Value, StoreError> {
        // With room for the seal.
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(command);
        Ok(self.run_all(&mut pipeline).await?.pop().unwrap_or_default())
    }

    /// Runs commands of which each must succeed.
    async fn run_all(&self, pipeline: &mut Pipeline) -> Result<Vec<Value>, StoreError> {
        each_good(self.run(pipeline).await?)
    }

    /// Runs commands that do not depend on each other, of which each must succeed.
    async fn run_each(&self, calls: impl Iterator<Item = Cmd>) -> Result<Vec<Value>, StoreError> {
        let mut pipeline = Pipeline::new();
        calls.for_each(|call| {
            pipeline.add_command(call);
        });
        if pipeline.is_empty() { Ok(Vec::new()) } else { self.run_all(&mut pipeline).await }
    }

    async fn run(&self, pipeline: &mut Pipeline) -> Result<Vec<Value>, StoreError> {
        self.topology.run(pipeline, self.topology.deadline()).await
    }
}

/// Replies of which none is an error, or the first one that is.
fn each_good(replies: Vec<Value>) -> Result<Vec<Value>, StoreError> {
    match replies.iter().find_map(server_error) {
        Some(error) => Err(error),
        None => Ok(replies),
    }
}
