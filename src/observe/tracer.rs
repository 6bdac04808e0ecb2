//! Where spans are left, and how many of the requests that nobody has sampled are told of.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::family::Family;
use super::span::Span;

/// Spans that wait to be exported. What comes to a full queue is dropped, and counted.
const QUEUE_SPANS: usize = 4096;

/// What became of spans.
#[derive(Debug, Clone)]
pub struct SpanMeter {
    family: Family<1, Counter>,
    /// Spans that were left and of which nothing has become yet.
    waiting: Arc<AtomicUsize>,
}

impl Default for SpanMeter {
    fn default() -> Self {
        Self { family: Family::new(["result"]), waiting: Arc::default() }
    }
}

impl SpanMeter {
    pub(super) fn family(&self) -> Family<1, Counter> {
        self.family.clone()
    }

    /// Spans are exported from now on.
    fn begin_at_zero(&self) {
        for result in ["dropped", "exported", "failed"] {
            self.family.of([result]).inc_by(0);
        }
    }

    /// So many that waited were taken by the collector.
    pub fn exported(&self, spans: usize) {
        self.end("exported", spans);
    }

    /// So many that waited were refused by the collector, or could not be sent.
    pub fn failed(&self, spans: usize) {
        self.end("failed", spans);
    }

    /// Nobody sends any more what waits. Returns how many that are.
    pub fn lost(&self) -> usize {
        let spans = self.waiting.load(Ordering::Relaxed);
        self.end("dropped", spans);
        spans
    }

    /// How many were lost so far: not taken by the collector, or never sent.
    pub fn lost_so_far(&self) -> u64 {
        ["dropped", "failed"]
            .iter()
            .filter_map(|it| self.family.known([it]))
            .map(|it| it.get())
            .sum()
    }

    fn end(&self, result: &'static str, spans: usize) {
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        self.add(result, spans);
    }

    fn add(&self, result: &'static str, spans: usize) {
        self.family.of([result]).inc_by(u64::try_from(spans).unwrap_or(u64::MAX));
    }
}

/// Takes the spans of one configuration. Nobody waits for anything here.
#[derive(Debug)]
pub struct Tracer {
    queue: mpsc::Sender<Span>,
    meter: SpanMeter,
    /// How many late traces may begin each second.
    late: Budget,
    /// What takes so long is slow.
    pub slow: Duration,
}

impl Tracer {
    /// One with room for spans, and where they come out. `late`: how many traces may begin each
    /// second of what was not sampled.
    pub fn new(late: u32, slow: Duration, meter: &SpanMeter) -> (Self, mpsc::Receiver<Span>) {
        let (queue, spans) = mpsc::channel(QUEUE_SPANS);
        meter.begin_at_zero();
        (Self { queue, meter: meter.clone(), late: Budget::new(late), slow }, spans)
    }

    /// Leaves a span, if there is room.
    pub fn offer(&self, span: Span) {
        self.meter.waiting.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(span).is_err() {
            self.meter.end("dropped", 1);
        }
    }

    /// Whether one more request is told of that was not sampled.
    pub fn takes_late(&self) -> bool {
        self.late.take(Instant::now())
    }
}

/// A token bucket that holds what one second may take.
#[derive(Debug)]
struct Budget {
    per_second: u32,
    /// What is left, and since when.
    left: Mutex<(f64, Option<Instant>)>,
}

impl Budget {
    fn new(per_second: u32) -> Self {
        Self { per_second, left: Mutex::new((per_second.into(), None)) }
    }

    fn take(&self, now: Instant) -> bool {
        let most = f64::from(self.per_second);
        let mut state = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *state;
        let passed = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let left = (left + passed.as_secs_f64() * most).min(most);
        let is_taken = left >= 1.0;
        *state = (if is_taken { left - 1.0 } else { left }, Some(now));
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::trace::Trace;
    use crate::observe::SpanKind;

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_whole_again_after_a_second() {
        let budget = Budget::new(10);
        let taken = |budget: &Budget| (0..100).filter(|_| budget.take(Instant::now())).count();
        assert_eq!(taken(&budget), 10);
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(taken(&budget), 3);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(taken(&budget), 10);
        assert_eq!(taken(&Budget::new(0)), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_room_is_dropped_and_counted() {
        let meter = SpanMeter::default();
        let (tracer, mut spans) = Tracer::new(0, Duration::ZERO, &meter);
        for _ in 0..QUEUE_SPANS + 3 {
            let trace = Trace::begin();
            tracer.offer(Span::ending(trace, SpanKind::Server, String::new(), Instant::now()));
        }
        assert_eq!(meter.family.of(["dropped"]).get(), 3);
        spans.try_recv().unwrap();
        let trace = Trace::begin();
        tracer.offer(Span::ending(trace, SpanKind::Server, String::new(), Instant::now()));
        assert_eq!(meter.family.of(["dropped"]).get(), 3);
    }
}
