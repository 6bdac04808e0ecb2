//! `[queues.NAME]`: requests that are delivered later; `deliver` and `answers` of a route: which
//! requests these are, and where their callers learn what became of them.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;
use toml::de::DeValue;

use super::limit::Statuses;
use super::queue_ends::{self, CALLBACKS, QueueEnds};
use super::reader::Section;
use super::seal::{self, SealKey};
use super::value::{
    Flaw, GIB, KIB, MIB, Mistake, Read, choice, count, duration, duration_or_zero, echo,
    field_name, flag, header_name, rate, size, string, text,
};
use crate::base::units::Rate;

/// Shortest and longest lease of a delivery.
const LEASE_MIN: Duration = Duration::from_secs(5);
const LEASE_MAX: Duration = Duration::from_secs(10 * 60);
/// Longest that a request may wait to be delivered.
const AGE_MAX: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Longest that a finished one is kept.
const KEEP_MAX: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Longest that the content of an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(60 * 60);
/// Longest that a caller may have the gateway wait for the real answer.
const WAIT_MAX: Duration = Duration::from_secs(5 * 60);
/// Longest body of one request, in bytes.
const BODY_BYTES_MAX: u64 = 8 * MIB;
/// Longest name of a stream of JetStream, in bytes.
const STREAM_BYTES_MAX: usize = 255;
/// What says how a request is delivered, and not that it is stored in a stream.
const OF_QUEUES: [&str; 3] = ["delay_from", "max_delay", "max_wait"];
/// Most shards of one queue.
pub const QUEUE_SHARDS_MAX: u8 = 16;
/// Most requests of one queue.
const ITEMS_MAX: u64 = 100_000_000;

/// `[queues.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Most requests that are not delivered yet.
    pub max_items: u64,
    /// Most bytes of their bodies together.
    pub max_bytes: u64,
    /// Longest body, in bytes.
    pub max_body: u64,
    /// Whether what is accepted must outlive the gateway.
    pub durable: bool,
    /// Who must have what is accepted.
    pub durability: QueueDurability,
    /// Deliveries at a time of one node; 0: this node only accepts.
    pub concurrency: usize,
    /// Deliveries at a time of the whole fleet.
    pub max_in_flight: u64,
    /// How long a delivery belongs to its node without a word of it.
    pub lease: Duration,
    /// How often a lease may run out before the request is given up.
    pub max_stalls: u32,
    /// How often it is sent, refused connections left out.
    pub attempts: u32,
    /// After which answers it is sent again, beside those after which it always is.
    pub retry_on: Vec<Statuses>,
    /// How long it may take from when it is due.
    pub max_age: Duration,
    /// The pause after the first failure; each next one is twice as long.
    pub backoff: Duration,
    /// The longest pause.
    pub max_backoff: Duration,
    /// The longest that an upstream may ask for by `Retry-After`.
    pub retry_after_max: Duration,
    /// How long the record and the answer of what is done are kept.
    pub keep: Duration,
    /// The longest body of an answer that is kept, in bytes.
    pub keep_response: u64,
    /// How long the content of an answer may take.
    pub answer_timeout: Duration,
    /// How long what could not be delivered is kept.
    pub keep_dead: Duration,
    /// Most of these; the oldest go.
    pub max_dead: u64,
    /// When operators are warned.
    pub warn: QueueWarn,
    /// By what requests are delivered one after the other; `None`: all at once.
    pub order_by: Option<OrderBy>,
    /// What follows when one ends.
    pub ends: QueueEnds,
    /// Whether nothing more is put into it, and it may be taken away as it is.
    pub drain_only: bool,
    /// Fields that are kept of each request beside those that are kept of all.
    pub keep_headers: Vec<HeaderName>,
    /// Whether revocations are asked for once more at each delivery.
    pub recheck: bool,
    /// How many are delivered in which time, by the whole fleet.
    pub rate: Option<Rate>,
    /// With what all that is kept is sealed: the first one seals, each opens.
    pub seal: Vec<SealKey>,
    /// In how many parts it lies, each of which may be on another server of a Redis Cluster.
    pub shards: u8,
}

/// `durability`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueDurability {
    /// `"memory"`: Redis.
    Memory,
    /// `"replicas:N"`: so many of its replicas, too.
    Replicas(u32),
    /// `"fsync"`: its disk.
    Fsync,
}

/// `warn = { … }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueWarn {
    /// From so many requests on that wait.
    pub items: u64,
    /// From when the oldest one waits for so long.
    pub age: Duration,
}

/// `order_by`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderBy {
    /// `claim:NAME`
    Claim(String),
    /// `header:NAME`
    Header(HeaderName),
}

impl Default for Queue {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            max_items: 100_000,
            max_bytes: 256 * MIB,
            max_body: 256 * KIB,
            durable: true,
            durability: QueueDurability::Memory,
            concurrency: 16,
            max_in_flight: 64,
            lease: Duration::from_secs(30),
            max_stalls: 3,
            attempts: 25,
            retry_on: Vec::new(),
            max_age: DAY,
            backoff: Duration::from_secs(1),
            max_backoff: HOUR,
            retry_after_max: HOUR,
            keep: HOUR,
            keep_response: 64 * KIB,
            answer_timeout: Duration::from_secs(5 * 60),
            keep_dead: 7 * DAY,
            max_dead: 10_000,
            warn: QueueWarn::default(),
            order_by: None,
            ends: QueueEnds::default(),
            drain_only: false,
            keep_headers: Vec::new(),
            recheck: false,
            rate: None,
            seal: Vec::new(),
            shards: 1,
        }
    }
}

impl Default for QueueWarn {
    fn default() -> Self {
        Self { items: 1000, age: Duration::from_secs(5 * 60) }
    }
}

/// `deliver = { … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deliver {
    /// Name of the queue; the route's own where none is written, and empty beside a stream.
    pub queue: String,
    /// The stream of JetStream that stores them in place of a queue.
    pub jetstream: Option<String>,
    /// Longest body of what it stores, in bytes.
    pub max_body: u64,
    /// Whether requests must have an `Idempotency-Key`.
    pub is_key_required: bool,
    /// The field that says when a request is due.
    pub delay_from: Option<HeaderName>,
    /// The longest that this may be ahead.
    pub max_delay: Duration,
    /// How long a client may wait for the real answer (`Prefer: wait`).
    pub max_wait: Duration,
}

impl Default for Deliver {
    fn default() -> Self {
        Self {
            queue: String::new(),
            jetstream: None,
            max_body: 256 * KIB,
            is_key_required: false,
            delay_from: None,
            max_delay: Duration::from_secs(7 * 24 * 60 * 60),
            max_wait: Duration::ZERO,
        }
    }
}

/// Reads `[queues.NAME]`.
pub(super) fn read(queue: &mut Section<'_>) -> Queue {
    let default = Queue::default();
    let lease = within(LEASE_MIN, LEASE_MAX, "\"5s\" to \"10m\"");
    let age = within(Duration::from_secs(1), AGE_MAX, "\"1s\" to \"14d\"");
    let answer = within(Duration::from_secs(1), ANSWER_MAX, "\"1s\" to \"1h\"");
    let keep = within(Duration::from_secs(1), KEEP_MAX, "\"1s\" to \"90d\"");
    let read = Queue {
        max_items: queue.or("max_items", default.max_items, count(1..=ITEMS_MAX)),
        max_bytes: queue.or("max_bytes", default.max_bytes, size(KIB..=1024 * GIB)),
        max_body: queue.or("max_body", default.max_body, size(1..=BODY_BYTES_MAX)),
        durable: queue.or("durable", default.durable, flag),
        durability: queue.or("durability", default.durability, durability),
        concurrency: queue.or("concurrency", default.concurrency, count(0..=4096)),
        max_in_flight: queue.or("max_in_flight", default.max_in_flight, count(1..=1_000_000)),
        lease: queue.or("lease", default.lease, &lease),
        max_stalls: queue.or("max_stalls", default.max_stalls, count(1..=1000)),
        attempts: queue.or("attempts", default.attempts, count(1..=1000)),
        retry_on: queue.list_or_empty("retry_on", retried),
        max_age: queue.or("max_age", default.max_age, &age),
        backoff: queue.or("backoff", default.backoff, duration),
        max_backoff: queue.or("max_backoff", default.max_backoff, &age),
        retry_after_max: queue.or("retry_after_max", default.retry_after_max, &age),
        keep: queue.or("keep", default.keep, &keep),
        keep_response: queue.or("keep_response", default.keep_response, size(0..=8 * MIB)),
        answer_timeout: queue.or("answer_timeout", default.answer_timeout, &answer),
        keep_dead: queue.or("keep_dead", default.keep_dead, &keep),
        max_dead: queue.or("max_dead", default.max_dead, count(1..=ITEMS_MAX)),
        warn: queue.section("warn", read_warn),
        order_by: queue.get("order_by", order_by),
        ends: queue_ends::read(queue),
        drain_only: queue.or("drain_only", default.drain_only, flag),
        keep_headers: queue.list_or_empty("keep_headers", |value| {
            header_name(string(value, "the name of a header in quotes")?)
        }),
        recheck: queue.or("recheck", default.recheck, flag),
        rate: queue.get("rate", rate),
        seal: seal::read(queue),
        shards: queue.or("shards", default.shards, count(1..=QUEUE_SHARDS_MAX.into())),
    };
    if read.backoff > read.max_backoff {
        let what = "is longer than max_backoff";
        queue.problem("backoff", what, "write a shorter one, or a longer max_backoff");
    }
    divided(queue, &read);
    read
}

/// An answer after which it is sent again. After a 2xx it is done, whatever anybody wants.
fn retried(value: &DeValue<'_>) -> Read<Statuses> {
    const EXAMPLE: &str = "\"404\" or \"4xx\"";
    let text = string(value, EXAMPLE)?;
    let is_failure = |it: &Statuses| matches!(it, Statuses::One(300..) | Statuses::Class(3..));
    Statuses::parse(text).filter(is_failure).ok_or_else(|| {
        let what = format!("{} is no status from 300 to 599", echo(text));
        Mistake::new(what, format!("write {EXAMPLE}")).of(Flaw::Form("^[345]([0-9]{2}|xx)$"))
    })
}

/// Bounds of which each shard has a part that must let something in.
fn divided(queue: &Section<'_>, read: &Queue) {
    let shards = u64::from(read.shards);
    let least = [
        ("max_items", read.max_items, 1),
        ("max_in_flight", read.max_in_flight, 1),
        ("max_dead", read.max_dead, 1),
        ("max_bytes", read.max_bytes, read.max_body),
    ];
    for (key, all, one) in least.into_iter().filter(|_| shards > 1) {
        if all / shards < one {
            let of = if key == "max_bytes" { "one max_body" } else { "1" };
            let what = format!("{key} is divided over them: each would have less than {of}");
            queue.problem("shards", what, format!("write fewer, or a larger {key}"));
        }
    }
}

fn read_warn(warn: &mut Section<'_>) -> QueueWarn {
    let default = QueueWarn::default();
    QueueWarn {
        items: warn.or("items", default.items, count(1..=ITEMS_MAX)),
        age: warn.or("age", default.age, duration),
    }
}

/// Reads `deliver` of a route.
pub(super) fn read_deliver(route: &mut Section<'_>) -> Option<Deliver> {
    let later = choice(&[("later", ())]);
    let short = move |value: &DeValue<'_>| later(value).map(|()| Deliver::default());
    route.either("deliver", short, |deliver| Some(read_table(deliver)))
}

fn read_table(deliver: &mut Section<'_>) -> Deliver {
    let default = Deliver::default();
    let keys = [("optional", false), ("required", true)];
    let delay = within(Duration::from_secs(1), AGE_MAX, "\"1s\" to \"14d\"");
    if deliver.has("jetstream") && !deliver.is_survey() {
        beside_jetstream(deliver);
    } else if deliver.has("max_body") && !deliver.is_survey() {
        let remedy = "write it in the table [queues.NAME] of the queue";
        deliver.problem("max_body", "is for what JetStream stores", remedy);
    }
    Deliver {
        queue: deliver.get("queue", text).unwrap_or_default(),
        jetstream: deliver.get("jetstream", stream_name),
        max_body: deliver.or("max_body", default.max_body, size(1..=BODY_BYTES_MAX)),
        is_key_required: deliver.or("key", default.is_key_required, choice(&keys)),
        delay_from: deliver.get("delay_from", |value| {
            const EXAMPLE: &str = "\"header:x-deliver-after\"";
            match string(value, EXAMPLE)?.split_once(':') {
                Some(("header", name)) => header_name(name),
                _ => Err(Mistake::new("does not name a header", format!("write {EXAMPLE}"))),
            }
        }),
        max_delay: deliver.or("max_delay", default.max_delay, delay),
        max_wait: deliver.or("max_wait", default.max_wait, |value| {
            let wait = duration_or_zero(value)?;
            if wait <= WAIT_MAX {
                return Ok(wait);
            }
            Err(Mistake::new("is out of range", "write \"0s\" to \"5m\""))
        }),
    }
}

/// What makes no sense where a stream stores a request: delivery is its own matter.
fn beside_jetstream(deliver: &mut Section<'_>) {
    if deliver.has("queue") {
        let remedy = "keep one of them: a queue delivers, and a stream is read";
        deliver.problem("jetstream", "is beside queue", remedy);
    }
    for key in OF_QUEUES.into_iter().filter(|key| deliver.has(key)) {
        let remedy = "remove it, or name a queue in place of jetstream";
        deliver.problem(key, "has no meaning beside jetstream", remedy);
    }
}

/// The name of a stream. It becomes a token of subjects.
fn stream_name(value: &DeValue<'_>) -> Read<String> {
    const EXAMPLE: &str = "the name of a stream, such as \"JOBS\"";
    let name = string(value, EXAMPLE)?;
    if is_name(name) {
        return Ok(name.to_owned());
    }
    let what = format!("{} is no name of a stream", echo(name));
    Err(Mistake::new(what, format!("write {EXAMPLE}, without . * > and blanks")))
}

/// Whether it may be the name of a stream, or of a consumer.
pub(super) fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b".*>/\\".contains(&byte);
    (1..=STREAM_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
}

/// What the gateway itself answers on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// What became of deliveries.
    Deliveries,
    /// That it has taken an event.
    Events,
    /// The public keys of signers.
    Jwks,
    /// A new pair of tokens for a refresh token.
    Refresh,
    /// The way to a provider's log-in.
    Login,
    /// What comes of a log-in at a provider.
    Callback,
    /// That sessions have ended of which a provider tells.
    BackchannelLogout,
    /// What a session says, to its own browser.
    Session,
    /// The end of a session.
    Logout,
}

/// Reads `answers` of a route.
pub(super) fn read_answers(route: &mut Section<'_>) -> Option<Answers> {
    let words = [
        ("deliveries", Answers::Deliveries),
        ("events", Answers::Events),
        ("jwks", Answers::Jwks),
        ("refresh", Answers::Refresh),
        ("login", Answers::Login),
        ("callback", Answers::Callback),
        ("backchannel_logout", Answers::BackchannelLogout),
        ("session", Answers::Session),
        ("logout", Answers::Logout),
    ];
    route.get("answers", choice(&words))
}

/// Of routes and how they deliver: one that names no queue means one of its own name, which has the
/// defaults where nobody describes it.
pub(super) fn imply<'r>(
    queues: &mut BTreeMap<String, Queue>,
    routes: impl Iterator<Item = (&'r String, &'r mut Deliver)>,
) {
    for (name, deliver) in routes {
        if deliver.queue.is_empty() && deliver.jetstream.is_none() {
            deliver.queue.clone_from(name);
            queues.entry(name.clone()).or_default();
        }
    }
}

/// The queue of callbacks is there where one is called back, also if nobody describes it. What it
/// holds is as durable as what it tells of, and sealed where that is.
pub(super) fn imply_callbacks(queues: &mut BTreeMap<String, Queue>) {
    let mut calling = queues.values().filter(|queue| queue.ends.callback.is_some()).peekable();
    if calling.peek().is_none() || queues.contains_key(CALLBACKS) {
        return;
    }
    let (mut durable, mut seal) = (false, Vec::<SealKey>::new());
    for queue in calling {
        durable |= queue.durable;
        for key in &queue.seal {
            if seal.iter().all(|it| it.id() != key.id()) {
                seal.push(key.clone());
            }
        }
    }
    queues.insert(CALLBACKS.to_owned(), Queue { durable, seal, ..Queue::default() });
}

/// A duration from `min` to `max`, which are `shown` so.
fn within(
    min: Duration,
    max: Duration,
    shown: &'static str,
) -> impl Fn(&DeValue<'_>) -> Read<Duration> {
    move |value| {
        let read = duration(value)?;
        if (min..=max).contains(&read) {
            return Ok(read);
        }
        Err(Mistake::new("is out of range", format!("write {shown}")))
    }
}

fn durability(value: &DeValue<'_>) -> Read<QueueDurability> {
    const EXAMPLE: &str = "\"memory\", \"replicas:1\" or \"fsync\"";
    let text = string(value, EXAMPLE)?;
    let replicas = |count: &str| count.parse().ok().filter(|count| (1..=16).contains(count));
    let read = match text.split_once(':') {
        None if text == "memory" => Some(QueueDurability::Memory),
        None if text == "fsync" => Some(QueueDurability::Fsync),
        Some(("replicas", count)) => replicas(count).map(QueueDurability::Replicas),
        _ => None,
    };
    read.ok_or_else(|| {
        let what = format!("{} is not a choice here", echo(text));
        let words = ["memory", "fsync"].map(str::to_owned).to_vec();
        Mistake::new(what, format!("write {EXAMPLE}")).of(Flaw::Choice(words))
    })
}

fn order_by(value: &DeValue<'_>) -> Read<OrderBy> {
    const EXAMPLE: &str = "\"claim:sub\" or \"header:x-order-id\"";
    let text = string(value, EXAMPLE)?;
    match text.split_once(':') {
        Some(("claim", name)) => field_name(name).map(OrderBy::Claim),
        Some(("header", name)) => header_name(name).map(OrderBy::Header),
        _ => {
            let what = format!("{} is no key of an order", echo(text));
            Err(Mistake::new(what, format!("write {EXAMPLE}")))
        }
    }
}
