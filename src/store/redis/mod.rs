//! The Redis store: one pipeline per question on a multiplexed connection that a supervisor keeps
//! (`link`).
//!
//! A request never waits for a connection to be made: without one it is told so at once. Everything
//! it does wait for is bounded by `store.timeout`.

mod api_keys;
mod batch;
mod cache;
mod call;
mod certificates;
mod connect_error;
mod connection;
mod dial;
mod encode;
mod eviction;
mod expect;
mod follow;
mod link;
mod misses;
mod node;
mod published;
mod reply;
mod resp;
mod says;
mod sessions;
mod stream;
mod track;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;

pub use self::follow::Followed;

use self::batch::Batch;
use self::expect::Seal;
use self::follow::Follower;
use self::link::Link;
use self::node::Node;
use self::published::Health;
use self::reply::server_error;
use self::says::Condition;
use self::stream::{Told, executed, millis};
use self::track::Tracker;
use super::keys::Keys;
use super::{
    Answers, Charges, News, Questions, Release, Revocation, RevocationKeys, RevocationStatus,
    StoreError,
};
use crate::base::shard::{self, SHARDS};
use crate::config;

/// A Redis server behind supervised connections: one for whoever asks, and one for each thread that
/// joined, so that a request and its answer stay on that thread.
#[derive(Debug)]
pub struct RedisStore {
    node: Arc<Node>,
    home: Arc<Link>,
    joined: Box<[OnceLock<Arc<Link>>]>,
    /// Who knows of revocations while Redis is away.
    follower: OnceLock<Arc<Follower>>,
    /// Who hears of changed epochs.
    tracker: OnceLock<Tracker>,
    news: Arc<News>,
    settings: config::Store,
    /// Whether a session was seen that is no string.
    hashes: AtomicBool,
}

impl RedisStore {
    /// Starts the supervisor; returns before there is a connection. Must be called within a tokio
    /// runtime.
    pub fn open(settings: &config::Store) -> Self {
        let node = Arc::new(Node::default());
        let home = Link::start(settings, &node);
        tokio::spawn(link::keep_time(Arc::downgrade(&home)));
        tokio::spawn(eviction::watch(Arc::downgrade(&home), Arc::clone(&node.says)));
        Self {
            node,
            home,
            joined: (0..SHARDS).map(|_| OnceLock::new()).collect(),
            follower: OnceLock::new(),
            tracker: OnceLock::new(),
            news: Arc::default(),
            settings: settings.clone(),
            hashes: AtomicBool::new(false),
        }
    }

    /// Waits until the first connection stands, or until the attempt has had its time.
    pub async fn first_connection(&self, timeout: Duration) -> bool {
        tokio::time::timeout(timeout, self.link().connected()).await.is_ok()
    }

    /// Gives the current thread a connection of its own, driven by its own runtime.
    pub async fn join(&self) {
        self.joined[shard::mine()].get_or_init(|| Link::start(&self.settings, &self.node));
        self.first_connection(self.settings.connect_timeout).await;
    }

    /// See [`super::Store::is_connected`].
    pub fn is_connected(&self) -> bool {
        self.home.get().is_some()
    }

    fn link(&self) -> &Arc<Link> {
        self.joined[shard::mine()].get().unwrap_or(&self.home)
    }

    /// See [`super::Store::ask`].
    pub async fn ask(&self, questions: &Questions<'_>) -> Answers {
        // Before anything is read, so that a change on its way is not overwritten with what was.
        let mark = questions.cached.and_then(|_| self.tracker.get()?.mark());
        let answers = self.exchange(questions).await;
        if !questions.pending_purges.is_empty() {
            self.forget(questions.pending_purges.iter().map(String::as_str));
        }
        self.learn(mark, questions, &answers);
        answers
    }

    async fn exchange(&self, questions: &Questions<'_>) -> Answers {
        let deadline = Instant::now() + self.settings.timeout;
        let link = self.link();
        let by_script = self.hashes.load(Ordering::Relaxed);
        let mut batch = match Batch::new(questions, &link.scripts, by_script) {
            Ok(batch) => batch,
            Err(error) => return Answers::failed(questions, &error),
        };
        let mut replies = match self.run_until(&mut batch.pipeline, deadline).await {
            Ok(replies) => replies,
            Err(error) => return Answers::failed(questions, &error),
        };
        let missing = batch.unknown_scripts(&replies);
        if !missing.is_empty() {
            // SCRIPT FLUSH, or a promoted replica: only the scripts that did not run are sent
            // again, so nothing is charged twice.
            let mut reload = batch.reload(&missing, &link.scripts);
            replies = match Box::pin(self.run_until(&mut reload, deadline)).await {
                Ok(again) => Batch::merge(replies, &missing, again),
                Err(error) => return Answers::failed(questions, &error),
            };
        }
        let again = batch.session_again(questions, &replies, &link.scripts);
        if !batch.is_possible(questions, &replies) {
            return Answers::failed(questions, &self.foreign());
        }
        let end = batch.end(questions, &replies);
        let mut answers = batch.answers(questions, replies, self.now_ms());
        if let Some(mut again) = again {
            // The first hash: read it by the script, and the next session at once by it.
            self.hashes.store(true, Ordering::Relaxed);
            answers.session = Some(match Box::pin(self.run_until(&mut again, deadline)).await {
                Ok(mut replies) => batch::session(replies.pop().unwrap_or_default()),
                Err(error) => Err(error),
            });
        }
        if let (Some(end), Some(Ok(None))) = (end, &answers.session) {
            // It has ended, and whoever names it is told why: seldom, so that it may cost its own
            // exchange.
            let mut pipeline = Pipeline::with_capacity(1);
            pipeline.add_command(end);
            let replies = Box::pin(self.run_until(&mut pipeline, deadline)).await;
            answers.session_end = replies.ok().and_then(|it| batch::ended(it.first()?));
        }
        answers
    }

    /// See [`super::Store::release`].
    pub async fn release(&self, releases: &[Release]) -> Result<(), StoreError> {
        let script = &self.link().scripts.release;
        let mut pipeline = Pipeline::with_capacity(releases.len());
        for Release { keys, limits, holder, in_doubt } in releases {
            if *in_doubt {
                // Rare, so the script travels with the call.
                let call = pipeline.cmd("EVAL").arg(script.code).arg(keys.len()).arg(keys);
                call.arg(holder);
                for limit in limits {
                    call.arg(limit.lease_ms());
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
            Some(_) if batch::refuses_writes(&replies) => Err(StoreError::Unavailable),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// See [`super::Store::refund`].
    pub async fn refund(&self, charges: Charges<'_>, at_us: u64) -> Result<(), StoreError> {
        let Charges { set, keys } = charges;
        let at = &at_us.to_le_bytes()[..6];
        let script = &self.link().scripts.refund;
        let mut pipeline = Pipeline::with_capacity(1);
        // The script travels with the call: a refund is rare, and must not fail because the server
        // forgot it.
        let mut call = redis::cmd("EVAL");
        call.arg(script.code).arg(keys.len()).arg(keys).arg(at).arg(set.records.as_slice());
        pipeline.add_command(call);
        self.run_all(&mut pipeline).await.map(|_| ())
    }

    /// See [`super::Store::revoke`].
    pub async fn revoke(&self, revocation: Revocation<'_>) -> Result<(), StoreError> {
        let mut key = redis::cmd("SET");
        key.arg(revocation.key).arg(revocation.value()).arg("PX").arg(millis(revocation.ttl));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let told = Told::of(&revocation, now.as_secs());
        self.tell(&[key], told, revocation.stream_ttl.max(revocation.ttl)).await.map(|_| ())
    }

    /// See [`super::Store::unrevoke`].
    pub async fn unrevoke(&self, key: &str, stream_ttl: Duration) -> Result<bool, StoreError> {
        let mut delete = redis::cmd("DEL");
        delete.arg(key);
        let replies = self.tell(&[delete], Told::undone(key), stream_ttl).await?;
        Ok(matches!(replies.first(), Some(Value::Int(1))))
    }

    /// Changes a revocation's key, and what ends with it, and adds to the stream; what the commands
    /// answered.
    async fn tell(
        &self,
        changes: &[Cmd],
        told: Told<'_>,
        stream_ttl: Duration,
    ) -> Result<Vec<Value>, StoreError> {
        let stream = Keys::new(&self.settings.prefix).revocations();
        let mut pipeline =
            stream::write(&stream, self.settings.revocations, changes, told, stream_ttl);
        self.transact(&mut pipeline).await
    }

    /// Carries out a transaction, of which each command must succeed.
    async fn transact(&self, pipeline: &mut Pipeline) -> Result<Vec<Value>, StoreError> {
        let replies = executed(self.run(pipeline).await?).map_err(|reply| {
            let unexpected = || StoreError::Refused("a transaction was not carried out".to_owned());
            server_error(&reply).unwrap_or_else(unexpected)
        })?;
        match replies.iter().find_map(server_error) {
            Some(error) => Err(error),
            None => Ok(replies),
        }
    }

    /// See [`super::Store::follow_revocations`]. Must be called within a tokio runtime.
    pub fn follow_revocations(&self, config: &config::Config) {
        let has_tunnels =
            config.routes.values().any(|route| route.tunnel.is_some() && route.auth.is_some());
        if has_tunnels || !config.store.on_outage.revocation_max_stale.is_zero() {
            let lifetime = config.admin.revocation_ttl;
            let (says, news) = (&self.node.says, &self.news);
            self.follower.get_or_init(|| Follower::start(&self.settings, lifetime, says, news));
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
        let replies = self.run(pipeline).await?;
        match replies.iter().find_map(server_error) {
            Some(error) => Err(error),
            None => Ok(replies),
        }
    }

    async fn run(&self, pipeline: &mut Pipeline) -> Result<Vec<Value>, StoreError> {
        self.run_until(pipeline, Instant::now() + self.settings.timeout).await
    }

    /// One round trip before `deadline`. Errors of single commands stand in the replies. The
    /// pipeline is sealed, so that no other one's replies are taken for its own.
    async fn run_until(
        &self,
        pipeline: &mut Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        let link = self.link();
        let Some(published) = link.get() else { return Err(StoreError::Unavailable) };
        let seal = Seal::put(pipeline);
        let count = pipeline.len();
        let sent = published.connection.send(pipeline);
        match tokio::time::timeout_at(deadline, sent).await {
            Ok(Ok(mut replies)) => {
                self.node.says.note_replies(&replies);
                let last = replies.pop().unwrap_or_default();
                let is_whole = seal.is_whole(&last) && replies.len() + 1 == count;
                if is_whole && expect::possible(pipeline, &replies) {
                    link.report(&published, batch::health(&replies));
                    return Ok(replies);
                }
                match server_error(&last) {
                    // A server that now answers nothing but errors refuses the seal too.
                    Some(error) => {
                        replies.push(last);
                        link.report(&published, batch::health(&replies));
                        replies.pop();
                        let refused = replies.iter().all(|it| server_error(it).is_some());
                        if refused { Ok(replies) } else { Err(error) }
                    }
                    None => {
                        link.report(&published, Health::Broken);
                        self.node.says.note(Condition::ForeignReply);
                        Err(StoreError::Unavailable)
                    }
                }
            }
            Ok(Err(error)) => {
                link.report(&published, Health::Broken);
                tracing::debug!(%error, "the store connection failed");
                Err(StoreError::Unavailable)
            }
            Err(_) => {
                link.report(&published, Health::Silent);
                Err(StoreError::Timeout)
            }
        }
    }

    /// A reply of an impossible form: what comes next may be somebody else's.
    fn foreign(&self) -> StoreError {
        self.link().lose();
        self.node.says.note(Condition::ForeignReply);
        StoreError::Unavailable
    }
}
