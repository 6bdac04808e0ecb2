//! The URLs that cached routes are asked for most, in bounded memory, counted only while somebody
//! wants to know.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements
//! in Data Streams, 2005): a new URL takes over the weight of the lightest one, so that one that is
//! asked for often is never lost. What else is counted of a URL begins when it gets its place.

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
}

/// What is known now.
#[derive(Debug)]
pub struct TopNow {
    /// Since when it has been counted.
    pub since: Duration,
    /// Requests that were not counted: another one was at that moment.
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
    skipped: AtomicU64,
    sketch: Mutex<Sketch>,
}

impl Default for TopUrls {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            until_ms: AtomicU64::new(0),
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

    /// Whether anybody wants to know of a request that ends `now`. While nobody has looked, this is
    /// one load.
    pub fn is_wanted(&self, now: Instant) -> bool {
        let until = self.until_ms.load(Ordering::Relaxed);
        until > 0 && self.ms(now) < until
    }

    /// Counts a request for a URL, which is cut where it is too long.
    pub fn note(&self, url: &str, asked: AskedUrl<'_>) {
        let mut sketch = match self.sketch.try_lock() {
            Ok(sketch) => sketch,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Nobody waits for what only somebody who looks wants to know.
            Err(TryLockError::WouldBlock) => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        let counts = sketch.place(&cut(url), asked.route);
        counts.weight += 1;
        *(if asked.is_hit { &mut counts.hits } else { &mut counts.misses }) += 1;
        counts.bytes = counts.bytes.saturating_add(asked.bytes);
    }

    /// What is known, and has requests counted for the next minute. Who looks after nobody has for
    /// a minute begins anew.
    pub fn look(&self, now: Instant) -> TopNow {
        let was_wanted = self.is_wanted(now);
        let mut sketch = self.sketch.lock().unwrap_or_else(PoisonError::into_inner);
        if !was_wanted {
            *sketch = Sketch::default();
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
    fn place(&mut self, url: &str, route: &str) -> &mut UrlCounts {
        let mut weight = 0;
        if !self.urls.contains_key(url) && self.urls.len() >= URLS_MAX {
            let lightest = self.urls.iter().min_by_key(|(_, counts)| counts.weight);
            if let Some(lightest) = lightest.map(|(url, _)| url.clone()) {
                weight = self.urls.remove(&lightest).map_or(0, |counts| counts.weight);
            }
        }
        self.urls.entry(url.to_owned()).or_insert_with(|| UrlCounts {
            route: route.to_owned(),
            weight,
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
        top.note("http://h/a", HIT);
        top.note("http://h/a", AskedUrl { is_hit: false, ..HIT });
        let now = top.look(at(31));
        let a = UrlCounts { route: "r".to_owned(), hits: 1, misses: 1, bytes: 20, weight: 2 };
        assert_eq!((now.since.as_secs(), now.urls), (30, vec![("http://h/a".to_owned(), a)]));
        assert!(top.is_wanted(at(90)));
        let anew = top.look(at(200));
        assert_eq!((anew.since, anew.urls), (Duration::ZERO, vec![]));
    }

    #[test]
    fn what_is_asked_for_often_keeps_its_place() {
        let top = TopUrls::default();
        for number in 0..1_000 {
            top.note(&format!("http://h/{number}"), HIT);
            if number % 10 == 0 {
                top.note("http://h/often", HIT);
            }
        }
        let sketch = top.sketch.lock().unwrap();
        assert_eq!(sketch.urls.len(), URLS_MAX);
        assert_eq!(sketch.urls["http://h/often"].hits, 100);
        drop(sketch);
        let long = "é".repeat(URL_BYTES_MAX);
        top.note(&format!("h{long}"), HIT);
        let sketch = top.sketch.lock().unwrap();
        assert!(sketch.urls.keys().all(|url| url.len() <= URL_BYTES_MAX));
        assert_eq!(sketch.urls.keys().filter(|url| url.ends_with("é…")).count(), 1);
    }
}
