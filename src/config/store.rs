//! `[store]`: where shared state lives, and what each function does when it does not answer.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::address_map::AddressMap;
use super::reader::Section;
use super::sentinel::StoreSentinel;
use super::store_operator::{self, StoreOperator};
use super::store_reach::{self, CacheReads, Kind};
use super::store_tls::{self, StoreTls};
use super::store_url::{self, StoreUrl};
use super::store_use::StoreUse;
use super::value::{
    GIB, MIB, Mistake, Read, choice, count, duration, duration_or_zero, echo, flag, size, string,
    text,
};
use crate::base::units::Secret;

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Which store.
    pub url: StoreUrl,
    /// First part of every key.
    pub prefix: String,
    /// ACL user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The file that the password is read from anew when it changes.
    pub password_file: Option<PathBuf>,
    /// Where servers are reached that Redis names otherwise.
    pub address_map: AddressMap,
    /// `[store.tls]`, and there behind `rediss://`.
    pub tls: Option<StoreTls>,
    /// Whether nobody else is on the network to it, so that what goes there in clear is read by
    /// nobody.
    pub private_network: bool,
    /// `[store.sentinel]`, and there behind `redis-sentinel://`.
    pub sentinel: Option<Box<StoreSentinel>>,
    /// `[store.operator]`
    pub operator: Option<Box<StoreOperator>>,
    /// How many threads have a connection to each server of a Redis Cluster; by their number where
    /// it is not said.
    pub connections: Option<usize>,
    /// Longest wait for one question.
    pub timeout: Duration,
    /// Longest wait for one connection attempt.
    pub connect_timeout: Duration,
    /// Longest pause between two connection attempts.
    pub reconnect_backoff: Duration,
    /// Longest reply of Redis that is read, in bytes.
    pub reply_bytes: u64,
    /// Most questions in flight on one connection; one more is not asked.
    pub max_in_flight: usize,
    /// Longest wait for what another node fetches.
    pub cache_wait: Duration,
    /// Most counters of limits: of the embedded store, and of this node while Redis is away.
    pub memory_limit_keys: usize,
    /// Most keys of sessions in the embedded store.
    pub memory_session_keys: usize,
    /// Most revocations in the embedded store.
    pub memory_revocations: usize,
    /// Most keys of API keys in the embedded store.
    pub memory_api_key_keys: usize,
    /// Most epochs of the cache in the embedded store.
    pub memory_epochs: usize,
    /// Most marks of callers who have written lately in the embedded store.
    pub memory_marks: usize,
    /// Most bytes of what is kept under idempotency keys in the embedded store.
    pub memory_idempotency_bytes: u64,
    /// Most bytes of cached responses in the embedded store.
    pub memory_cache_bytes: u64,
    /// Most bytes of cached responses in this node's memory.
    pub near_cache_bytes: u64,
    /// Most bytes of sessions in this node's memory.
    pub near_session_bytes: u64,
    /// Most bytes of responses that are kept while they pass, all together.
    pub fill_bytes: u64,
    /// Most bytes of responses that wait to be written.
    pub backlog_bytes: u64,
    /// Whether bodies of cached responses are compressed in the store.
    pub cache_compression: CacheCompression,
    /// Where pieces of long cached bodies are read.
    pub cache_reads: CacheReads,
    /// How a node learns of the epochs of the cache.
    pub cache_epochs: CacheEpochs,
    /// Most epochs that this node knows without asking.
    pub known_epochs: usize,
    /// Most revocations that the stream and this node's memory hold.
    pub revocations: usize,
    /// Longest wait for replicas, where a person waits; zero: none.
    pub replica_timeout: Duration,
    /// Most revocations in force that gateways are still to be told of.
    pub revocation_journal: usize,
    /// Most revocations in a second that this node writes again after the store has lost some.
    pub republish_per_second: u32,
    /// `[store.on_outage]`
    pub on_outage: OnOutage,
    /// What these settings are for.
    pub usage: StoreUse,
    /// `[store.cache]`
    pub cache: Option<Box<Store>>,
    /// `[store.limits]`
    pub limits: Option<Box<Store>>,
    /// `store.queue_url`, or `[store.queue]`.
    pub queue: Option<Box<Store>>,
    /// Whether deferred deliveries are kept anywhere: there are `[queues]`.
    pub has_queues: bool,
    /// Whether a queue waits for the disk: `durability = "fsync"`.
    pub has_fsync: bool,
}

/// `[store.on_outage]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnOutage {
    /// Revocation unknown.
    pub revocation: Outage,
    /// How old the last known set of revocations may be to judge by it; zero: it is not kept.
    pub revocation_max_stale: Duration,
    /// Limits unknown.
    pub limits: LimitOutage,
    /// Session unknown; `Allow` is written `without`.
    pub session: Outage,
    /// How old a session may be, as this node read it last, to be used; zero: none is kept.
    pub session_max_stale: Duration,
    /// Whether a key was used before is unknown; `Allow` is written `forward`.
    pub idempotency: Outage,
    /// How many gateways share the limits at least, for `LimitOutage::Local`.
    pub nodes: u32,
    /// Whether the store is told afterwards what was counted in its place.
    pub reconcile: bool,
}

/// How bodies of cached responses lie in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheCompression {
    /// As they are sent.
    Off,
    /// Text is compressed (RFC 8878).
    Zstd,
}

/// How a node learns that cached responses were made stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheEpochs {
    /// Each request asks for the epochs it needs.
    Ask,
    /// The store tells of changes; what is known is not asked for.
    Follow,
}

/// Refuse with 503, or go on without the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// 503.
    Refuse,
    /// As if the store had said nothing.
    Allow,
}

/// What limits do without the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitOutage {
    /// This node's own limiter at limit / nodes.
    Local,
    /// No limit.
    Allow,
    /// 503.
    Refuse,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: StoreUrl::Memory,
            prefix: "app".to_owned(),
            username: None,
            password: None,
            password_file: None,
            address_map: AddressMap::default(),
            tls: None,
            private_network: false,
            sentinel: None,
            operator: None,
            connections: None,
            timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_millis(500),
            reconnect_backoff: Duration::from_millis(250),
            memory_limit_keys: 1_000_000,
            memory_session_keys: 300_000,
            memory_revocations: 1_000_000,
            memory_api_key_keys: 100_000,
            memory_epochs: 1_000_000,
            memory_marks: 300_000,
            memory_idempotency_bytes: 64 * MIB,
            memory_cache_bytes: 256 * MIB,
            near_cache_bytes: 32 * MIB,
            near_session_bytes: 32 * MIB,
            fill_bytes: 256 * MIB,
            backlog_bytes: 64 * MIB,
            cache_wait: Duration::from_secs(2),
            reply_bytes: 8 * MIB,
            max_in_flight: 4096,
            cache_compression: CacheCompression::Off,
            cache_reads: CacheReads::Primary,
            cache_epochs: CacheEpochs::Ask,
            known_epochs: 100_000,
            revocations: 100_000,
            republish_per_second: 5000,
            replica_timeout: Duration::from_millis(100),
            revocation_journal: 10_000,
            on_outage: OnOutage::default(),
            usage: StoreUse::Main,
            cache: None,
            limits: None,
            queue: None,
            has_queues: false,
            has_fsync: false,
        }
    }
}

impl Store {
    /// The longest body that the store has room for, in bytes: half of what the embedded store
    /// keeps of cached responses, so that no response pushes its own parts out.
    pub fn body_bytes_max(&self) -> u64 {
        let is_embedded = self.used_for(StoreUse::Cache).url == StoreUrl::Memory;
        if is_embedded { self.memory_cache_bytes / 2 } else { u64::MAX }
    }
}

impl Store {
    /// Whether a running gateway can go on with its store under `other`: what may differ is what an
    /// outage means, and what is in the files of secrets.
    pub fn is_served_by(&self, other: &Self) -> bool {
        let same_tls = store_tls::name_the_same(self.tls.as_ref(), other.tls.as_ref());
        let same_sentinel = match (&self.sentinel, &other.sentinel) {
            (Some(one), Some(another)) => one.names_the_same(another),
            (one, another) => one.is_none() && another.is_none(),
        };
        let fixed = |store: &Self| Self {
            on_outage: OnOutage::default(),
            tls: None,
            private_network: false,
            sentinel: None,
            operator: store.operator.as_ref().map(|operator| Box::new(operator.fixed())),
            password: store.password.clone().filter(|_| store.password_file.is_none()),
            cache: None,
            limits: None,
            queue: None,
            has_queues: false,
            has_fsync: false,
            ..store.clone()
        };
        let same_use = |one: &Option<Box<Self>>, another: &Option<Box<Self>>| match (one, another) {
            (Some(one), Some(another)) => one.is_served_by(another),
            (one, another) => one.is_none() && another.is_none(),
        };
        same_tls
            && same_sentinel
            && fixed(self) == fixed(other)
            && same_use(&self.cache, &other.cache)
            && same_use(&self.limits, &other.limits)
            && same_use(&self.queue, &other.queue)
    }
}

impl Store {
    /// The settings of the store that is used for this: those of its own table, or these.
    pub fn used_for(&self, usage: StoreUse) -> &Self {
        let own = match usage {
            StoreUse::Main => None,
            StoreUse::Cache => self.cache.as_deref(),
            StoreUse::Limits => self.limits.as_deref(),
            StoreUse::Queue => self.queue.as_deref(),
        };
        own.unwrap_or(self)
    }

    /// What the store of these settings is used for: what has no store of its own.
    pub fn uses(&self) -> impl Iterator<Item = StoreUse> {
        let is_own = |usage: &StoreUse| match self.usage {
            StoreUse::Main => self.used_for(*usage).usage == StoreUse::Main,
            own => own == *usage,
        };
        StoreUse::ALL.into_iter().filter(is_own)
    }

    /// Whether there is anything to use it for: deferred deliveries only where there are queues.
    pub fn has(&self, usage: StoreUse) -> bool {
        usage != StoreUse::Queue || self.has_queues
    }

    /// Whether what is written here must be known to be on the disk.
    pub fn waits_for_disk(&self) -> bool {
        self.has_fsync && self.uses().any(|usage| usage == StoreUse::Queue)
    }

    /// The settings of all stores, each once, the main one first.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        let own = [&self.cache, &self.limits, &self.queue].map(Option::as_deref);
        std::iter::once(self).chain(own.into_iter().flatten())
    }

    /// Whether it is one of several stores.
    pub fn is_one_of_several(&self) -> bool {
        self.usage != StoreUse::Main || self.all().nth(1).is_some()
    }
}

impl Default for OnOutage {
    fn default() -> Self {
        Self {
            revocation: Outage::Refuse,
            revocation_max_stale: Duration::ZERO,
            limits: LimitOutage::Local,
            session: Outage::Refuse,
            session_max_stale: Duration::ZERO,
            idempotency: Outage::Refuse,
            nodes: 1,
            reconcile: true,
        }
    }
}

const TIB: u64 = 1024 * GIB;

/// Reads `[store]`.
pub(super) fn read(store: &mut Section<'_>) -> Store {
    let default = Store::default();
    let compression = choice(&[("off", CacheCompression::Off), ("zstd", CacheCompression::Zstd)]);
    let cache_epochs = [("ask", CacheEpochs::Ask), ("follow", CacheEpochs::Follow)];
    let address = store.or_env("url", (default.url.clone(), false), url);
    let default = read_reach(store, address, default);
    let default = against_losses(store, default);
    let main = Store {
        prefix: store.or("prefix", default.prefix, prefix),
        cache_wait: store.or("cache_wait", default.cache_wait, duration),
        memory_limit_keys: store.or("memory_limit_keys", default.memory_limit_keys, keys()),
        memory_session_keys: store.or("memory_session_keys", default.memory_session_keys, keys()),
        memory_revocations: store.or("memory_revocations", default.memory_revocations, keys()),
        memory_api_key_keys: store.or("memory_api_key_keys", default.memory_api_key_keys, keys()),
        memory_epochs: store.or("memory_epochs", default.memory_epochs, keys()),
        memory_marks: store.or("memory_marks", default.memory_marks, keys()),
        memory_idempotency_bytes: store.or(
            "memory_idempotency_bytes",
            default.memory_idempotency_bytes,
            size(MIB..=TIB),
        ),
        memory_cache_bytes: store.or(
            "memory_cache_bytes",
            default.memory_cache_bytes,
            size(MIB..=1024 * GIB),
        ),
        near_cache_bytes: store.or("near_cache_bytes", default.near_cache_bytes, size(0..=TIB)),
        near_session_bytes: store.or(
            "near_session_bytes",
            default.near_session_bytes,
            size(0..=TIB),
        ),
        fill_bytes: store.or("fill_bytes", default.fill_bytes, size(MIB..=1024 * GIB)),
        backlog_bytes: store.or("backlog_bytes", default.backlog_bytes, size(MIB..=1024 * GIB)),
        cache_compression: store.or("cache_compression", default.cache_compression, compression),
        cache_epochs: store.or("cache_epochs", default.cache_epochs, choice(&cache_epochs)),
        known_epochs: store.or("known_epochs", default.known_epochs, count(1..=100_000_000)),
        on_outage: store.section("on_outage", read_on_outage),
        ..default
    };
    let mut separate =
        |key, usage| store.optional(key, |table| read_separate(table, &main, usage)).map(Box::new);
    let (cache, limits) =
        (separate("cache", StoreUse::Cache), separate("limits", StoreUse::Limits));
    let queue = read_queue(store, &main).map(Box::new);
    Store { cache, limits, queue, ..main }
}

/// Reads where deferred deliveries are kept: the table, or the address alone, which is short for a
/// table with nothing else.
fn read_queue(store: &mut Section<'_>, main: &Store) -> Option<Store> {
    let table = store.optional("queue", |table| read_separate(table, main, StoreUse::Queue));
    let address = store.get("queue_url", url);
    if table.is_some() && address.is_some() && !store.is_survey() {
        let remedy = "write the address as url in the table, and remove queue_url";
        store.problem("queue_url", "is of no use beside [store.queue]", remedy);
    }
    table.or_else(|| address.map(|(url, is_tls)| at(url, is_tls, main)))
}

/// The store of deferred deliveries at an address, of which nothing else is said.
fn at(url: StoreUrl, is_tls: bool, main: &Store) -> Store {
    Store {
        tls: is_tls.then(StoreTls::default),
        sentinel: matches!(url, StoreUrl::Sentinel { .. }).then(Box::default),
        private_network: false,
        address_map: AddressMap::default(),
        operator: None,
        connections: None,
        url,
        ..of_its_own(main, StoreUse::Queue)
    }
}

/// What a store of its own has of the main one: all but who it is there and how it is reached.
fn of_its_own(main: &Store, usage: StoreUse) -> Store {
    let has_queues = usage == StoreUse::Queue;
    let main = main.clone();
    Store { usage, username: None, password: None, password_file: None, has_queues, ..main }
}

/// What there is against losses of replication, beside what `default` says.
fn against_losses(store: &mut Section<'_>, default: Store) -> Store {
    let rate = count(1..=1_000_000);
    let journal = count(1..=1_000_000);
    Store {
        revocations: store.or("revocations", default.revocations, count(1..=10_000_000)),
        replica_timeout: store.or("replica_timeout", default.replica_timeout, duration_or_zero),
        revocation_journal: store.or("revocation_journal", default.revocation_journal, journal),
        republish_per_second: store.or("republish_per_second", default.republish_per_second, rate),
        ..default
    }
}

/// Reads the table of a use. Who its Redis is, who the gateway is there and how it is reached is
/// said in the table itself: a password is never sent to another server than the one beside which
/// it is written. Everything else is as in `main` where it is left out.
fn read_separate(table: &mut Section<'_>, main: &Store, usage: StoreUse) -> Store {
    let address = table.need_env("url", "\"redis://127.0.0.1:6379\"", url);
    let address = address.unwrap_or((StoreUrl::Memory, false));
    read_reach(table, address, of_its_own(main, usage))
}

/// Where a store is, and whether TLS is spoken there.
fn url(value: &DeValue<'_>) -> Read<(StoreUrl, bool)> {
    let is_tls = value.as_str().is_some_and(|text| text.starts_with("rediss:"));
    store_url::read(value).map(|url| (url, is_tls))
}

/// Reads how a store at an address is reached, beside what `default` says.
fn read_reach(store: &mut Section<'_>, (url, is_tls): (StoreUrl, bool), default: Store) -> Store {
    let kind = match url {
        StoreUrl::Sentinel { .. } => Kind::Sentinel,
        StoreUrl::Cluster { .. } => Kind::Cluster,
        _ => Kind::One { is_tls },
    };
    let reach = store_reach::read(store, kind, default.usage);
    let operator = store.optional("operator", store_operator::read);
    if operator.is_some() && url == StoreUrl::Memory && !store.is_survey() {
        let what = "is of no use where url is memory:";
        store.problem("operator", what, "write in url where Redis is, or remove the table");
    }
    let (password, password_file) = store.secret_of_file("password").unzip();
    Store {
        url,
        username: store.get("username", text),
        password,
        password_file: password_file.flatten(),
        address_map: reach.address_map,
        tls: reach.tls,
        private_network: store.or("private_network", false, flag),
        connections: reach.connections,
        sentinel: reach.sentinel,
        operator: operator.map(Box::new),
        timeout: store.or("timeout", default.timeout, duration),
        connect_timeout: store.or("connect_timeout", default.connect_timeout, duration),
        reconnect_backoff: store.or("reconnect_backoff", default.reconnect_backoff, duration),
        reply_bytes: store.or("reply_bytes", default.reply_bytes, size(2 * MIB..=GIB)),
        max_in_flight: store.or("max_in_flight", default.max_in_flight, count(1..=1_000_000)),
        cache_reads: reach.cache_reads,
        ..default
    }
}

/// How many keys of one kind the embedded store holds.
fn keys() -> impl Fn(&DeValue<'_>) -> Read<usize> {
    count(1..=1_000_000_000)
}

fn read_on_outage(outage: &mut Section<'_>) -> OnOutage {
    let default = OnOutage::default();
    let revocation = [("refuse", Outage::Refuse), ("allow", Outage::Allow)];
    let limits = [
        ("local", LimitOutage::Local),
        ("allow", LimitOutage::Allow),
        ("refuse", LimitOutage::Refuse),
    ];
    let session = [("refuse", Outage::Refuse), ("without", Outage::Allow)];
    let idempotency = [("refuse", Outage::Refuse), ("forward", Outage::Allow)];
    // The only behaviour there is: the key exists so that the file can say it.
    outage.or("cache", (), choice(&[("bypass", ())]));
    OnOutage {
        revocation: outage.or("revocation", default.revocation, choice(&revocation)),
        revocation_max_stale: outage.or(
            "revocation_max_stale",
            default.revocation_max_stale,
            duration_or_zero,
        ),
        limits: outage.or("limits", default.limits, choice(&limits)),
        session: outage.or("session", default.session, choice(&session)),
        session_max_stale: outage.or(
            "session_max_stale",
            default.session_max_stale,
            duration_or_zero,
        ),
        idempotency: outage.or("idempotency", default.idempotency, choice(&idempotency)),
        nodes: outage.or("nodes", default.nodes, count(1..=65_535)),
        reconcile: outage.or("reconcile", default.reconcile, flag),
    }
}

/// The first part of every key: it must not hide a separator or a hash tag.
fn prefix(value: &DeValue<'_>) -> Read<String> {
    let text = string(value, "it in quotes, such as \"app\"")?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) {
        let what = format!("{} cannot be a key prefix", echo(text));
        return Err(Mistake::new(what, "use 1 to 64 letters, digits, `_`, `.` and `-`"));
    }
    Ok(text.to_owned())
}
