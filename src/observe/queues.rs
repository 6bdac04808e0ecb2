//! What deferred deliveries count, and what their queues hold.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::counter::{Tally, Words};
use super::histogram::Histogram;
use super::series::{Described, family};

/// How an attempt may end.
const OUTCOMES: [&str; 5] = ["done", "retry", "dead", "back", "lost"];
/// How a request may be accepted.
const ACCEPTED: [&str; 2] = ["new", "again"];
/// Why nothing may be accepted, whatever it is.
const REFUSED: [&str; 3] = ["queue_away", "queue_full", "queue_store_unsafe"];

/// Upper bounds in microseconds of the time from accepting to done.
const DELIVERY_US: &[u64] = &[
    5_000,
    25_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    15_000_000,
    60_000_000,
    300_000_000,
    900_000_000,
    3_600_000_000,
    21_600_000_000,
    86_400_000_000,
];

/// What one queue counts on this node.
#[derive(Debug)]
pub struct QueueMeter {
    name: String,
    accepted: Words,
    refused: Words,
    attempts: Words,
    /// Deliveries that were taken over from a node that had gone silent.
    pub stalled: Tally,
    /// Times that the store had lost the queue's stream, and it was made again.
    pub resets: Tally,
    delivery: Histogram,
    attempt: Histogram,
}

impl QueueMeter {
    /// Of a queue of this name.
    pub(super) fn new(name: &str) -> Self {
        let meter = Self {
            name: name.to_owned(),
            accepted: Words::default(),
            refused: Words::default(),
            attempts: Words::default(),
            stalled: Tally::default(),
            resets: Tally::default(),
            delivery: Histogram::of(DELIVERY_US),
            attempt: Histogram::default(),
        };
        ACCEPTED.iter().for_each(|word| meter.accepted.make(word));
        REFUSED.iter().for_each(|word| meter.refused.make(word));
        OUTCOMES.iter().for_each(|word| meter.attempts.make(word));
        meter
    }

    /// Its queue.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A request was accepted: `new`, or `again`.
    pub fn accepted(&self, word: &'static str) {
        self.accepted.count(word);
    }

    /// A request was not accepted.
    pub fn refused(&self, code: &'static str) {
        self.refused.count(code);
    }

    /// An attempt has ended after so long.
    pub fn attempted(&self, outcome: &'static str, took: Duration) {
        self.attempts.count(outcome);
        self.attempt.observe(took);
    }

    /// Something was delivered so long after it was accepted.
    pub fn delivered(&self, after: Duration) {
        self.delivery.observe(after);
    }

    /// How often attempts have ended so.
    pub fn attempts(&self, outcome: &'static str) -> u64 {
        self.attempts.get(outcome)
    }
}

/// What a queue held when it was looked at last.
#[derive(Debug, Clone, Default)]
pub struct QueueNow {
    /// Its name.
    pub name: String,
    /// How many are in each state.
    pub items: Vec<(&'static str, u64)>,
    /// The age of the oldest that is not settled.
    pub oldest: Option<Duration>,
    /// Bytes of bodies.
    pub bytes: u64,
    /// Whether nothing is taken.
    pub is_paused: bool,
    /// Whether it is above one of the bounds of `warn`.
    pub is_warned: bool,
}

pub(super) fn encode(
    meters: &[Arc<QueueMeter>],
    queues: &[QueueNow],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    encode_now(queues, encoder)?;
    let words = |of: fn(&QueueMeter) -> &Words, label: &'static str| {
        meters.iter().flat_map(move |meter| {
            let words = of(meter).all().into_iter();
            words.map(move |(word, count)| ([("queue", &*meter.name), (label, word)], count))
        })
    };
    let help = "Requests that were accepted for later: new ones, and repeats of one (again).";
    let accepted = words(|meter| &meter.accepted, "outcome");
    family(encoder, &Described::new("queue_accepted", help), accepted)?;
    let help = "Requests that were not accepted for later, by code.";
    let refused = words(|meter| &meter.refused, "reason");
    family(encoder, &Described::new("queue_refused", help), refused)?;
    let help = "Attempts to deliver, by outcome; back: given back, lost: somebody else had it.";
    let attempts = words(|meter| &meter.attempts, "outcome");
    family(encoder, &Described::new("queue_attempts", help), attempts)?;
    let label = |meter: &Arc<QueueMeter>| [("queue", meter.name.clone())];
    let stalled = meters.iter().map(|meter| (label(meter), meter.stalled.clone()));
    let help = "Deliveries that were taken over from a gateway that had gone silent.";
    family(encoder, &Described::new("queue_stalled", help), stalled)?;
    let resets = meters.iter().map(|meter| (label(meter), meter.resets.clone()));
    let help = "Times that the store had lost the stream of a queue, which was made again.";
    family(encoder, &Described::new("queue_resets", help), resets)?;
    let delivery = meters.iter().map(|meter| (label(meter), meter.delivery.clone()));
    let help = "From accepting a request to its delivery.";
    let described = Described::new("queue_delivery", help).in_unit(Unit::Seconds);
    family(encoder, &described, delivery)?;
    let attempt = meters.iter().map(|meter| (label(meter), meter.attempt.clone()));
    let described = Described::new("queue_attempt", "One attempt to deliver.");
    family(encoder, &described.in_unit(Unit::Seconds), attempt)
}

fn encode_now(queues: &[QueueNow], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let count = |count: u64| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
    let items = queues.iter().flat_map(|queue| {
        let states = queue.items.iter();
        states.map(|(state, number)| ([("queue", &*queue.name), ("state", *state)], count(*number)))
    });
    let help = "Requests in a queue, of the whole fleet, by state.";
    family(encoder, &Described::new("queue_items", help), items)?;
    let oldest = queues.iter().map(|queue| {
        let age = queue.oldest.unwrap_or_default().as_secs_f64();
        ([("queue", &*queue.name)], ConstGauge::new(age))
    });
    let help = "Age of the oldest request in a queue that is not settled.";
    family(encoder, &Described::new("queue_oldest", help).in_unit(Unit::Seconds), oldest)?;
    let bytes = queues.iter().map(|it| ([("queue", &*it.name)], count(it.bytes)));
    let help = "Heads and bodies of requests in a queue.";
    family(encoder, &Described::new("queue", help).in_unit(Unit::Bytes), bytes)?;
    let paused = queues.iter().map(|it| ([("queue", &*it.name)], count(it.is_paused.into())));
    let help = "Whether a queue is paused (1) or not (0).";
    family(encoder, &Described::new("queue_paused", help), paused)?;
    let warned = queues.iter().map(|it| ([("queue", &*it.name)], count(it.is_warned.into())));
    let help = "Whether a queue is above a bound of its warn (1) or not (0).";
    family(encoder, &Described::new("queue_warning", help), warned)
}
