//! Whom the limits refuse most, in bounded memory.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements
//! in Data Streams, 2005): a new key takes over the counter of the rarest one, so that a frequent
//! key is never lost and is overrated by at most that counter. Every counter is halved once a
//! minute, so that the list tells of now.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Most keys that are counted.
const KEYS_MAX: usize = 256;
/// After this long a refusal counts half.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// The keys that are refused most.
#[derive(Debug)]
pub struct Refused(Mutex<Counters>);

#[derive(Debug)]
struct Counters {
    counts: HashMap<String, u64>,
    halved: Instant,
}

impl Default for Refused {
    fn default() -> Self {
        Self(Mutex::new(Counters { counts: HashMap::new(), halved: Instant::now() }))
    }
}

impl Refused {
    /// Counts one refusal of `key`.
    pub(super) fn count(&self, key: &str) {
        let mut counters = self.lock();
        counters.fade();
        if let Some(count) = counters.counts.get_mut(key) {
            *count += 1;
            return;
        }
        let mut inherited = 0;
        if counters.counts.len() >= KEYS_MAX {
            let rarest = counters.counts.iter().min_by_key(|(_, count)| **count);
            if let Some((rarest, count)) = rarest.map(|(key, count)| (key.clone(), *count)) {
                counters.counts.remove(&rarest);
                inherited = count;
            }
        }
        counters.counts.insert(key.to_owned(), inherited + 1);
    }

    /// The most refused keys and about how often of late, the most first.
    pub fn top(&self, most: usize) -> Vec<(String, u64)> {
        let mut counters = self.lock();
        counters.fade();
        let mut all: Vec<(String, u64)> =
            counters.counts.iter().map(|(key, count)| (key.clone(), *count)).collect();
        drop(counters);
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(most);
        all
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters {
    fn fade(&mut self) {
        let halvings = self.halved.elapsed().as_secs() / HALF_LIFE.as_secs();
        if halvings > 0 {
            self.halved = Instant::now();
            self.counts.retain(|_, count| {
                *count >>= halvings.min(63);
                *count > 0
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_frequent_key_survives_a_flood_of_others_and_fades() {
        let refused = Refused::default();
        for number in 0..10_000 {
            refused.count(&format!("once-{number}"));
            if number % 10 == 0 {
                refused.count("often");
            }
        }
        let top = refused.top(3);
        assert_eq!(top[0].0, "often");
        assert!((1000..1100).contains(&top[0].1), "{top:?}");
        assert_eq!((top.len(), refused.top(usize::MAX).len()), (3, KEYS_MAX));
        tokio::time::advance(2 * HALF_LIFE).await;
        assert!((250..275).contains(&refused.top(1)[0].1), "{:?}", refused.top(1));
        tokio::time::advance(70 * HALF_LIFE).await;
        assert_eq!(refused.top(1), []);
    }
}
