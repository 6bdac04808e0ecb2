//! Who looks, and what they are told: rates once a second, and what happens. `ticks` sums up what
//! the rates are of.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};

use super::operated::Operations;
use super::reload::Change;
use crate::observe::{AUDIT, History, Last, Metrics, Rates, Series};

/// Most streams at a time.
pub const STREAMS_MAX: usize = 8;
/// Events that a slow stream may be behind.
const EVENTS_MAX: usize = 256;

/// Something that happened.
#[derive(Debug)]
pub struct Event {
    /// Its name in the stream.
    pub kind: &'static str,
    /// What it says; it may name callers.
    pub data: Value,
}

/// See the module.
#[derive(Debug)]
pub struct Looking {
    pub(super) ticks: watch::Sender<Arc<str>>,
    events: broadcast::Sender<Arc<Event>>,
    /// The last operations, which are kept whoever looks.
    pub operations: Operations,
    history: Mutex<History>,
    places: Arc<Semaphore>,
    watching: AtomicUsize,
    /// The bits of the last p99 of the store, in seconds; not a number where it was not asked.
    store_p99_s: AtomicU32,
    metrics: Arc<Metrics>,
}

/// Somebody who looks. Dropping it is looking away.
#[derive(Debug)]
pub struct Viewer {
    /// The rates of now, once a second: the newest wins.
    pub ticks: watch::Receiver<Arc<str>>,
    /// What happens.
    pub events: broadcast::Receiver<Arc<Event>>,
    looking: Arc<Looking>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.looking.watching.fetch_sub(1, Ordering::Relaxed);
        self.looking.metrics.live_streams.dec();
    }
}

impl Looking {
    /// Nobody looks yet.
    pub(super) fn new(metrics: &Arc<Metrics>) -> Arc<Self> {
        metrics.live_streams_max.set(i64::try_from(STREAMS_MAX).unwrap_or(i64::MAX));
        Arc::new(Self {
            ticks: watch::Sender::new(Arc::from("")),
            events: broadcast::Sender::new(EVENTS_MAX),
            operations: Operations::default(),
            history: Mutex::default(),
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
            watching: AtomicUsize::new(0),
            store_p99_s: AtomicU32::new(f32::NAN.to_bits()),
            metrics: Arc::clone(metrics),
        })
    }

    /// Looks from now on; nothing when too many do.
    pub fn look(self: &Arc<Self>) -> Option<Viewer> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        self.watching.fetch_add(1, Ordering::Relaxed);
        self.metrics.live_streams.inc();
        let mut ticks = self.ticks.subscribe();
        // That of whoever has looked before is an old one.
        ticks.mark_unchanged();
        let events = self.events.subscribe();
        Some(Viewer { ticks, events, looking: Arc::clone(self), _place: place })
    }

    /// Whether anybody looks: what is told to nobody need not be put into words.
    pub fn is_watched(&self) -> bool {
        self.watching.load(Ordering::Relaxed) > 0
    }

    /// Tells those who look that something has happened.
    pub fn tell(&self, kind: &'static str, data: impl FnOnce() -> Value) {
        if self.is_watched() {
            // Whoever looked may have left.
            let _ = self.events.send(Arc::new(Event { kind, data: data() }));
        }
    }

    /// Keeps an operation, and tells those who look of it.
    pub fn operated(&self, told: Map<String, Value>) {
        let operation = self.operations.keep(told);
        self.tell("operation", || Value::Object(operation.told.clone()));
    }

    /// Tells of what nobody has asked the admin API for, here and in the log.
    pub(super) fn operated_itself(&self, operation: &str, object: &[(&str, &str)]) {
        let named = object.iter().map(|(name, value)| format!(" {name}={value:?}"));
        let named: String = named.collect();
        tracing::info!(
            target: AUDIT,
            "audit by=gateway operation={operation:?}{named} result=done"
        );
        let object = object.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
        let now = format!("{:.3}", jiff::Timestamp::now());
        let members: [(&str, Value); 5] = [
            ("t", now.into()),
            ("by", "gateway".into()),
            ("operation", operation.into()),
            ("object", Value::Object(object.collect())),
            ("result", "done".into()),
        ];
        let members = members.into_iter().map(|(name, value)| (name.to_owned(), value));
        self.operated(members.collect());
    }

    /// Tells of a reload, which was refused where nothing has changed.
    pub(super) fn tell_reload(&self, change: Option<&Change>) {
        self.tell("reload", || {
            let t = time_of(jiff::Timestamp::now().as_millisecond());
            let result = if change.is_some() { "applied" } else { "refused" };
            json!({ "t": t, "result": result, "sha256": change.map(|change| &change.sha256) })
        });
    }

    pub(super) fn note_store(&self, p99_s: f32) {
        self.store_p99_s.store(p99_s.to_bits(), Ordering::Relaxed);
    }

    /// The slowest hundredth of the store's answers, in seconds, in the last period that was summed
    /// up; nothing where it was not asked in that.
    pub fn store_p99_s(&self) -> Option<f32> {
        let p99 = f32::from_bits(self.store_p99_s.load(Ordering::Relaxed));
        p99.is_finite().then_some(p99)
    }

    /// See [`History::series`].
    pub fn series(&self, since_ms: i64, route: Option<&str>) -> Option<Series> {
        self.history().series(since_ms, route)
    }

    /// See [`History::last`].
    pub fn last(&self, since_ms: i64) -> Option<Last> {
        self.history().last(since_ms)
    }

    /// See [`History::last_coarse`].
    pub fn last_coarse(&self, since_ms: i64) -> Option<Rates> {
        self.history().last_coarse(since_ms)
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `at_ms` is for people.
pub fn time_of(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map(|at| format!("{at:.3}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_has_a_place_until_it_looks_away() {
        let metrics = Arc::new(Metrics::default());
        let looking = Looking::new(&metrics);
        looking.tell("reload", || unreachable!("nobody looks"));
        let mut looks: Vec<Viewer> = (0..STREAMS_MAX).filter_map(|_| looking.look()).collect();
        assert_eq!((looks.len(), looking.look().is_none()), (STREAMS_MAX, true));
        assert_eq!(metrics.live_streams.get(), 8);
        looking.tell("reload", || Value::Null);
        assert_eq!(looks[0].events.try_recv().map(|event| event.kind), Ok("reload"));
        looks.pop();
        assert!(looking.is_watched() && looking.look().is_some());
        looks.clear();
        assert!(!looking.is_watched());
        assert_eq!(metrics.live_streams.get(), 0);
    }
}
