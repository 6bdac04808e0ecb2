//! The URLs that cached routes are asked for most, in bounded memory, counted only while somebody
//! wants to know.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements
//! in Data Streams, 2005): a new URL takes over the weight of the lightest one, so that one that is
//! asked for often is never lost. What else is counted of a URL begins when it gets its place. The
//! first requests are all counted; of those that follow one in [`SAMPLE`] is, and stands for all of
//! these.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

use tokio::time::Instant;

/// Most URLs that are kept.
pub const URLS_MAX: usize = 256;
/// For how long a look has URLs counted, in milliseconds.
const LOOK_MS: u64 = 60_000;
/// So many requests are all counted.
const ALL_COUNTED: u64 = 4096;
/// After these one in so many is counted.
const SAMPLE: u8 = 16;
/// Longest URL that is kept, in bytes; what is longer is cut, and ends in [`CUT`].
const URL_BYTES_MAX: usize = 512;
/// Marks what was cut.
const CUT: &str = "…";

/// What became of one request, as far as it is counted here.
#[derive(Debug, Clone, Copy)]
pub struct AskedUrl<'a> {
    /// Its route.
    pub route: &'a str,
    /// Whether it was answered without waiting for an answer of its own.
    pub is_hit: bool,
    /// Bytes of the body that it was sent.
    pub bytes: u64,
}

/// What was counted of one URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UrlCounts {
    /// Its route.
    pub route: String,
    /// Requests that were hits.
    pub hits: u64,
    /// Requests that were none.
    pub misses: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// Its weight in the sketch.
    weight: u64,
    /// When it got its place, in milliseconds since the first look.
    since_ms: u64,
}

impl UrlCounts {
    /// For how long it has been counted, of a list that has been for `whole`.
    pub fn counted_for(&self, whole: Duration) -> Duration {
        whole.saturating_sub(Duration::from_millis(self.since_ms))
    }
}

/// For how many requests one that is counted stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandsFor(u64);

/// What is known now.
#[derive(Debug)]
pub struct TopNow {
    /// Since when it has been counted.
    pub since: Duration,
    /// About how many requests were not counted: another one was at that moment.
    pub skipped: u64,
    /// The URLs, in no order.
    pub urls: Vec<(String, UrlCounts)>,
}

#[derive(Debug, Default)]
struct Sketch {
    since: Option<Instant>,
    urls: HashMap<String, UrlCounts>,
}

/// See the module.
#[derive(Debug)]
pub struct TopUrls {
    begun: Instant,
    /// Until when URLs are counted, in milliseconds since then; zero while nobody looks.
    until_ms: AtomicU64,
    /// Requests that were all counted since the first look.
    counted: AtomicU64,
    skipped: AtomicU64,
    sketch: Mutex<Sketch>,
}

impl Default for TopUrls {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            until_ms: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            sketch: Mutex::default(),
        }
    }
}

impl TopUrls {
    fn ms(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.begun).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// Whether a request that ends `now` is to be counted, and for how many it stands. While nobody
    /// has looked, this is one load.
    pub fn takes(&self, now: Instant) -> Option<StandsFor> {
        if !self.is_wanted(now) {
            return None;
        }
        if self.counted.load(Ordering::Relaxed) < ALL_COUNTED {
            self.counted.fetch_add(1, Ordering::Relaxed);
            return Some(StandsFor(1));
        }
        fastrand::u8(..).is_multiple_of(SAMPLE).then_some(StandsFor(SAMPLE.into()))
    }

    fn is_wanted(&self, now: Instant) -> bool {
        let until = self.until_ms.load(Ordering::Relaxed);
        until > 0 && self.ms(now) < until
    }

    /// Counts a request for a URL that ends `now`, and those that it stands for. The URL is cut
    /// where it is too long.
    pub fn note(&self, url: &str, asked: AskedUrl<'_>, stands_for: StandsFor, now: Instant) {
        let StandsFor(times) = stands_for;
        let mut sketch = match self.sketch.try_lock() {
            Ok(sketch) => sketch,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Nobody waits for what only somebody who looks wants to know.
            Err(TryLockError::WouldBlock) => {
                self.skipped.fetch_add(times, Ordering::Relaxed);
                return;
            }
        };
        let counts = sketch.place(&cut(url), asked.route, now);
        counts.weight += times;
        *(if asked.is_hit { &mut counts.hits } else { &mut counts.misses }) += times;
        counts.bytes = counts.bytes.saturating_add(asked.bytes.saturating_mul(times));
    }

    /// What is known, and has requests counted for the next minute. Who looks after nobody has for
    /// a minute begins anew.
    pub fn look(&self, now: Instant) -> TopNow {
        let was_wanted = self.is_wanted(now);
        let mut sketch = self.sketch.lock().unwrap_or_else(PoisonError::into_inner);
        if !was_wanted {
            *sketch = Sketch::default();
            self.counted.store(0, Ordering::Relaxed);
            self.skipped.store(0, Ordering::Relaxed);
        }
        let since = *sketch.since.get_or_insert(now);
        self.until_ms.store(self.ms(now).saturating_add(LOOK_MS), Ordering::Relaxed);
        TopNow {
            since: now.saturating_duration_since(since),
            skipped: self.skipped.load(Ordering::Relaxed),
            urls: sketch.urls.iter().map(|(url, counts)| (url.clone(), counts.clone())).collect(),
        }
    }
}

fn cut(url: &str) -> Cow<'_, str> {
    if url.len() <= URL_BYTES_MAX {
        return url.into();
    }
    let mut end = URL_BYTES_MAX - CUT.len();
    while !url.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{CUT}", url.get(..end).unwrap_or_default()).into()
}

impl Sketch {
    /// The place of a URL: its own, a free one, or that of the one that is asked for least.
    fn place(&mut self, url: &str, route: &str, now: Instant) -> &mut UrlCounts {
        let mut weight = 0;
        let since = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if !self.urls.contains_key(url) && self.urls.len() >= URLS_MAX {
            let lightest = self.urls.iter().min_by_key(|(_, counts)| counts.weight);
            if let Some(lightest) = lightest.map(|(url, _)| url.clone()) {
                weight = self.urls.remove(&lightest).map_or(0, |counts| counts.weight);
            }
        }
        self.urls.entry(url.to_owned()).or_insert_with(|| UrlCounts {
            route: route.to_owned(),
            weight,
            since_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            ..UrlCounts::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIT: AskedUrl<'_> = AskedUrl { route: "r", is_hit: true, bytes: 10 };

    #[test]
    fn nothing_is_counted_unless_somebody_has_looked_of_late() {
        let (top, begun) = (TopUrls::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(!top.is_wanted(at(1)));
        assert_eq!(top.look(at(1)).urls, []);
        assert!(top.is_wanted(at(60)) && !top.is_wanted(at(62)));
        top.note("http://h/a", HIT, StandsFor(1), at(11));
        top.note("http://h/a", AskedUrl { is_hit: false, ..HIT }, StandsFor(16), at(21));
        let now = top.look(at(31));
        let a = UrlCounts {
            route: "r".to_owned(),
            hits: 1,
            misses: 16,
            bytes: 170,
            weight: 17,
            since_ms: 10_000,
        };
        assert_eq!(a.counted_for(now.since), Duration::from_secs(20));
        assert_eq!((now.since.as_secs(), now.urls), (30, vec![("http://h/a".to_owned(), a)]));
        assert!(top.is_wanted(at(90)));
        let anew = top.look(at(200));
        assert_eq!((anew.since, anew.urls), (Duration::ZERO, vec![]));
    }

    #[test]
    fn the_first_are_all_counted_and_then_one_in_sixteen() {
        let (top, now) = (TopUrls::default(), Instant::now());
        assert_eq!(top.takes(now), None, "nobody looks");
        top.look(now);
        assert!((0..ALL_COUNTED).all(|_| top.takes(now) == Some(StandsFor(1))));
        let taken: Vec<StandsFor> = (0..160_000).filter_map(|_| top.takes(now)).collect();
        assert!((9_000..11_000).contains(&taken.len()), "{}", taken.len());
        assert!(taken.iter().all(|it| *it == StandsFor(16)));
        let later = now + Duration::from_secs(61);
        top.look(later);
        assert_eq!(top.takes(later), Some(StandsFor(1)), "who looks anew begins anew");
    }

    #[test]
    fn what_is_asked_for_often_keeps_its_place() {
        let top = TopUrls::default();
        let note = |url: &str| top.note(url, HIT, StandsFor(1), Instant::now());
        for number in 0..1_000 {
            note(&format!("http://h/{number}"));
            if number % 10 == 0 {
                note("http://h/often");
            }
        }
        let sketch = top.sketch.lock().unwrap();
        assert_eq!(sketch.urls.len(), URLS_MAX);
        assert_eq!(sketch.urls["http://h/often"].hits, 100);
        drop(sketch);
        let long = "é".repeat(URL_BYTES_MAX);
        note(&format!("h{long}"));
        let sketch = top.sketch.lock().unwrap();
        assert!(sketch.urls.keys().all(|url| url.len() <= URL_BYTES_MAX));
        assert_eq!(sketch.urls.keys().filter(|url| url.ends_with("é…")).count(), 1);
    }
}
