//! What is known of the connections to upstreams, as it is told to operators.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::histogram::{Histogram, REQUEST_US};
use super::rates::Distribution;
use super::series::{Described, family};
use crate::base::shard::Counters;

/// What one attempt at a server came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempted {
    /// There was no connection, or nothing was taken on one.
    Connect,
    /// The answer broke off.
    CutOff,
    /// It was answered.
    Ok,
    /// A connection ended without an answer, or what came cannot be passed on.
    Reset,
    /// The answer had a status from 500 on, or was the same of gRPC.
    Status5xx,
    /// No answer came in time.
    Timeout,
}

impl Attempted {
    /// All, with the words for them, by their index.
    const WORDS: [&'static str; 6] = ["connect", "cut_off", "ok", "reset", "status_5xx", "timeout"];
}

/// Counts of attempts by what they came to, made when there is something to count.
#[derive(Debug, Default)]
pub struct AttemptCounts(OnceLock<Counters<{ Attempted::WORDS.len() }>>);

impl AttemptCounts {
    /// Counts one.
    pub fn add(&self, attempted: Attempted) {
        self.0.get_or_init(Counters::default).add(attempted as usize, 1);
    }

    /// All words, with how often each was counted.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let sum = |index| self.0.get().map_or(0, |counts| counts.sum(index));
        Attempted::WORDS.into_iter().enumerate().map(move |(index, word)| (word, sum(index)))
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.all().map(|(_, count)| count).sum()
    }

    /// The same of those that failed.
    pub fn failed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.all().filter(|(word, _)| *word != Attempted::WORDS[Attempted::Ok as usize])
    }
}

/// What the requests of one upstream count. It has series once there was one.
#[derive(Debug, Default)]
pub struct UpstreamMeter {
    attempts: AttemptCounts,
    used: OnceLock<Durations>,
}

#[derive(Debug)]
struct Durations {
    answers: Histogram,
    queue: Histogram,
    recent: Mutex<Recent>,
}

/// What was summed up last.
#[derive(Debug, Default)]
struct Recent {
    answers: Distribution,
    p99_s: Option<f32>,
}

impl UpstreamMeter {
    /// One attempt has ended.
    pub fn attempted(&self, attempted: Attempted) {
        self.attempts.add(attempted);
    }

    /// A request took so long until the head of its response.
    pub fn took(&self, duration: Duration) {
        self.durations().answers.observe(duration);
    }

    /// A request has waited so long for its turn.
    pub fn waited(&self, duration: Duration) {
        self.durations().queue.observe(duration);
    }

    fn durations(&self) -> &Durations {
        self.used.get_or_init(|| Durations {
            answers: Histogram::of(REQUEST_US),
            queue: Histogram::of(REQUEST_US),
            recent: Mutex::default(),
        })
    }

    /// Sums up what its requests took since this was done before. To be called regularly, outside
    /// the serving threads.
    pub fn sum_up(&self) {
        let Some(used) = self.used.get() else { return };
        let answers = used.answers.distribution();
        let mut recent = used.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let p99_s = answers.since(&recent.answers).quantile(0.99);
        *recent = Recent { answers, p99_s: p99_s.is_finite().then_some(p99_s) };
    }

    /// What 99 of 100 requests took at most, in seconds, in the period that was summed up last;
    /// nothing where none was answered in that.
    pub fn p99_s(&self) -> Option<f32> {
        self.used.get()?.recent.lock().unwrap_or_else(PoisonError::into_inner).p99_s
    }
}

/// Writes the families of what the requests of each upstream count.
pub(super) fn encode_meters(
    meters: &[(String, Arc<UpstreamMeter>)],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let attempts = meters.iter().filter(|(_, meter)| meter.attempts.0.get().is_some());
    let attempts = attempts.flat_map(|(name, meter)| {
        meter.attempts.all().map(move |(outcome, count)| {
            ([("upstream", name.as_str()), ("outcome", outcome)], ConstCounter::new(count))
        })
    });
    let help = "Attempts at servers of an upstream, by what they came to: ok, status_5xx, connect, \
                timeout, reset or cut_off.";
    family(encoder, &Described::new("upstream_requests", help), attempts)?;
    let each = |of: fn(&Durations) -> &Histogram| {
        meters.iter().filter_map(move |(name, meter)| {
            Some(([("upstream", name.as_str())], of(meter.used.get()?).clone()))
        })
    };
    let help = "From the forwarded head to the upstream's response head, with waits and repeats.";
    let named = Described::new("upstream_duration", help).in_unit(Unit::Seconds);
    family(encoder, &named, each(|used| &used.answers))?;
    let help = "Waited for a place at an upstream, by those who had to.";
    let named = Described::new("upstream_queue_wait", help).in_unit(Unit::Seconds);
    family(encoder, &named, each(|used| &used.queue))
}

/// The connections of one upstream, and the requests on them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Requests in progress; over HTTP/1.1 each has a connection, or is about to.
    pub busy: usize,
    /// Connections, in use and unused.
    pub open: usize,
    /// Requests that wait for one.
    pub waiting: usize,
    /// `max_connections`
    pub max: usize,
    /// `max_requests`
    pub requests_max: usize,
    /// Of the connections, those over HTTP/2, and of them those in use.
    pub trunks: (usize, usize),
    /// Requests in progress on them.
    pub streams: usize,
    /// How often a server has said that it takes no more on one (GOAWAY).
    pub goaways: u64,
}

impl Occupancy {
    /// Connections in use: over HTTP/1.1 each request has one; over HTTP/2 many have one.
    pub fn used(&self) -> usize {
        let (_, trunks) = self.trunks;
        self.busy.saturating_sub(self.streams).saturating_add(trunks)
    }
}

/// Writes the families of all upstreams.
pub(super) fn encode(
    upstreams: &[(String, Occupancy)],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let value = |count: usize| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
    let states = upstreams.iter().flat_map(|(name, it)| {
        let state = |protocol, state, count| {
            ([("upstream", &**name), ("state", state), ("protocol", protocol)], value(count))
        };
        let (trunks, busy_trunks) = it.trunks;
        let links = it.open.saturating_sub(trunks);
        let busy = it.busy.saturating_sub(it.streams);
        [
            state("http1", "busy", busy),
            state("http1", "idle", links.saturating_sub(busy)),
            state("h2", "busy", busy_trunks),
            state("h2", "idle", trunks.saturating_sub(busy_trunks)),
        ]
    });
    let help = "Connections to an upstream, in use (busy) or kept for the next request (idle).";
    family(encoder, &Described::new("upstream_connections", help), states)?;
    let most = upstreams.iter().map(|(name, it)| ([("upstream", &**name)], value(it.max)));
    let help = "Most connections to an upstream, its max_connections.";
    family(encoder, &Described::new("upstream_connections_max", help), most)?;
    let most = upstreams.iter().map(|(name, it)| ([("upstream", &**name)], value(it.requests_max)));
    let help = "Most requests in progress at an upstream, its max_requests.";
    family(encoder, &Described::new("upstream_requests_max", help), most)?;
    let streams = upstreams.iter().map(|(name, it)| ([("upstream", &**name)], value(it.streams)));
    let help = "Requests in progress on HTTP/2 connections to an upstream.";
    family(encoder, &Described::new("upstream_streams_open", help), streams)?;
    let goaways = upstreams.iter();
    let goaways =
        goaways.map(|(name, it)| ([("upstream", &**name)], ConstCounter::new(it.goaways)));
    let help = "Times that a server of an upstream took no more on an HTTP/2 connection (GOAWAY).";
    family(encoder, &Described::new("upstream_goaways", help), goaways)?;
    let waiting = upstreams.iter().map(|(name, it)| ([("upstream", &**name)], value(it.waiting)));
    let help = "Requests that wait for a connection to an upstream.";
    family(encoder, &Described::new("upstream_requests_waiting", help), waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_summed_up_is_of_the_last_period_alone() {
        let meter = UpstreamMeter::default();
        meter.sum_up();
        assert_eq!(meter.p99_s(), None);
        for _ in 0..100 {
            meter.took(Duration::from_millis(900));
        }
        assert_eq!(meter.p99_s(), None, "it is not summed up yet");
        meter.sum_up();
        assert!(meter.p99_s().is_some_and(|p99| p99 > 0.5), "{:?}", meter.p99_s());
        meter.took(Duration::from_micros(100));
        meter.sum_up();
        assert!(meter.p99_s().is_some_and(|p99| p99 < 0.001), "{:?}", meter.p99_s());
        meter.sum_up();
        assert_eq!(meter.p99_s(), None, "there was none");
    }
}
