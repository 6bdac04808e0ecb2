//! Whom the limits refuse, and who comes near: the keys under most pressure, in bounded memory.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements
//! in Data Streams, 2005): a new key takes over the weight of the lightest one, so that a heavy key
//! is never lost. Every refusal weighs one. Of the requests that pass, one in [`SAMPLE`] is looked
//! at and stands for all of these. Weights and refusals are halved once a minute, so that the list
//! tells of now.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Most keys that are kept.
pub const KEYS_MAX: usize = 256;
/// From this part of a limit on a key is near it.
pub const NEAR: f64 = 0.8;
/// One in so many requests that pass is looked at.
const SAMPLE: u8 = 16;
/// After this long a refusal counts half, and a key that nobody uses is not told of.
const MINUTE: Duration = Duration::from_secs(60);

/// The keys under most pressure.
#[derive(Debug)]
pub struct Pressed(Mutex<Sketch>);

#[derive(Debug)]
struct Sketch {
    keys: HashMap<String, Pressure>,
    halved: Instant,
}

/// What one key bears.
#[derive(Debug)]
struct Pressure {
    /// Its weight in the sketch; a new key has that of the one that gave way, too.
    weight: u64,
    /// The name of its limit, or of one of its windows, that clients see.
    item: String,
    used: u32,
    allowed: u32,
    /// Refusals, of which those before the last minutes count less.
    refusals: u64,
    /// Those of this minute, and of the one before.
    minutes: [u64; 2],
    seen: Instant,
}

/// A key that is near its limit or over it, as this gateway saw it last.
#[derive(Debug, Clone, PartialEq)]
pub struct PressedKey {
    /// As the store names it.
    pub key: String,
    /// Units in use, after the request that was looked at.
    pub used: u32,
    /// The limit.
    pub allowed: u32,
    /// Refusals within about a minute.
    pub refused_per_minute: u64,
    /// How long ago it was seen.
    pub age: Duration,
}

impl Default for Pressed {
    fn default() -> Self {
        Self(Mutex::new(Sketch { keys: HashMap::new(), halved: Instant::now() }))
    }
}

impl Pressed {
    /// Counts one refusal of `key`, of the window or limit `item`, of which all is in use.
    pub(super) fn refuse(&self, key: &str, item: &str, allowed: u32) {
        let mut sketch = self.lock();
        let pressure = sketch.bear(key, item, 1);
        (pressure.used, pressure.allowed) = (allowed, allowed);
        pressure.refusals += 1;
        pressure.minutes[0] += 1;
    }

    /// Whether this request is one of those that are looked at.
    pub(super) fn is_sampled(&self) -> bool {
        fastrand::u8(..).is_multiple_of(SAMPLE)
    }

    /// A request that is looked at has passed, and left so much of `key` in use.
    pub(super) fn note(&self, key: &str, item: &str, (used, allowed): (u32, u32)) {
        let mut sketch = self.lock();
        if share(used, allowed) >= NEAR {
            sketch.bear(key, item, u64::from(SAMPLE));
        }
        if let Some(pressure) = sketch.keys.get_mut(key) {
            (pressure.used, pressure.allowed) = (used, allowed);
            pressure.seen = Instant::now();
        }
    }

    /// Nothing of this key is in use any more.
    pub(super) fn forget(&self, key: &str) {
        if let Some(pressure) = self.lock().keys.get_mut(key) {
            pressure.used = 0;
        }
    }

    /// The most refused keys and about how often of late, the most first.
    pub fn refused(&self, most: usize) -> Vec<(String, u64)> {
        let mut sketch = self.lock();
        sketch.fade();
        let refused = sketch.keys.iter().filter(|(_, it)| it.refusals > 0);
        let mut all: Vec<(String, u64)> =
            refused.map(|(key, it)| (key.clone(), it.refusals)).collect();
        drop(sketch);
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(most);
        all
    }

    /// The keys of which this part is in use, or more, by the last minute; the fullest first.
    pub fn list(&self, min: f64) -> Vec<PressedKey> {
        let mut sketch = self.lock();
        sketch.fade();
        let into_minute = sketch.halved.elapsed().as_secs_f64() / MINUTE.as_secs_f64();
        let mut all: Vec<PressedKey> = sketch
            .of_now(min)
            .map(|(key, it)| PressedKey {
                key: key.clone(),
                used: it.used,
                allowed: it.allowed,
                refused_per_minute: it.refused_per_minute(into_minute),
                age: it.seen.elapsed(),
            })
            .collect();
        drop(sketch);
        let fullness = |it: &PressedKey| share(it.used, it.allowed);
        all.sort_by(|a, b| {
            let by_refusals = b.refused_per_minute.cmp(&a.refused_per_minute);
            fullness(b).total_cmp(&fullness(a)).then(by_refusals).then_with(|| a.key.cmp(&b.key))
        });
        all
    }

    /// How many keys are near each limit or over it, by the name that clients see.
    pub fn near(&self) -> BTreeMap<String, usize> {
        let mut near = BTreeMap::new();
        let sketch = self.lock();
        for (_, pressure) in sketch.of_now(NEAR) {
            *near.entry(pressure.item.clone()).or_default() += 1;
        }
        near
    }

    fn lock(&self) -> MutexGuard<'_, Sketch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sketch {
    /// Adds to what a key bears, for which another one may have to give way.
    fn bear(&mut self, key: &str, item: &str, weight: u64) -> &mut Pressure {
        self.fade();
        let inherited = if self.keys.contains_key(key) { 0 } else { self.make_room() };
        let pressure = self.keys.entry(key.to_owned()).or_insert_with(|| Pressure {
            weight: inherited,
            item: item.to_owned(),
            used: 0,
            allowed: 0,
            refusals: 0,
            minutes: [0; 2],
            seen: self.halved,
        });
        pressure.weight += weight;
        pressure.seen = Instant::now();
        pressure
    }

    /// Has the lightest key give way where there is no room, and says what it bore.
    fn make_room(&mut self) -> u64 {
        if self.keys.len() < KEYS_MAX {
            return 0;
        }
        let lightest = self.keys.iter().min_by_key(|(_, pressure)| pressure.weight);
        let Some(lightest) = lightest.map(|(key, _)| key.clone()) else { return 0 };
        self.keys.remove(&lightest).map_or(0, |gone| gone.weight)
    }

    fn fade(&mut self) {
        let halvings = self.halved.elapsed().as_secs() / MINUTE.as_secs();
        if halvings == 0 {
            return;
        }
        self.halved = Instant::now();
        let shift = halvings.min(63);
        self.keys.retain(|_, pressure| {
            pressure.weight >>= shift;
            pressure.refusals >>= shift;
            let [this, _] = pressure.minutes;
            pressure.minutes = [0, if halvings == 1 { this } else { 0 }];
            pressure.weight > 0
        });
    }

    /// The keys that were seen within the last minute, and of which this part was in use.
    fn of_now(&self, min: f64) -> impl Iterator<Item = (&String, &Pressure)> {
        let is_now = |it: &Pressure| it.seen.elapsed() <= MINUTE;
        self.keys.iter().filter(move |(_, it)| is_now(it) && share(it.used, it.allowed) >= min)
    }
}

impl Pressure {
    /// Refusals within about a minute: those of this one so far, and the rest of the one before.
    fn refused_per_minute(&self, into_minute: f64) -> u64 {
        let [this, before] = self.minutes;
        this + (before as f64 * (1.0 - into_minute).max(0.0)) as u64
    }
}

fn share(used: u32, allowed: u32) -> f64 {
    f64::from(used) / f64::from(allowed.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_frequent_key_survives_a_flood_of_others_and_fades() {
        let pressed = Pressed::default();
        for number in 0..10_000 {
            pressed.refuse(&format!("once-{number}"), "api", 1);
            if number % 10 == 0 {
                pressed.refuse("often", "api", 1);
            }
        }
        let top = pressed.refused(3);
        assert_eq!(top[0].0, "often");
        assert!((1000..1100).contains(&top[0].1), "{top:?}");
        assert_eq!((top.len(), pressed.refused(usize::MAX).len()), (3, KEYS_MAX));
        tokio::time::advance(2 * MINUTE).await;
        assert!((250..275).contains(&pressed.refused(1)[0].1), "{:?}", pressed.refused(1));
        tokio::time::advance(70 * MINUTE).await;
        assert_eq!(pressed.refused(1), []);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_near_is_listed_until_he_goes_or_a_minute_has_passed() {
        let pressed = Pressed::default();
        pressed.note("calm", "api-1s", (79, 100));
        pressed.note("near", "api-1s", (80, 100));
        pressed.note("nearer", "api-1m", (18, 20));
        pressed.refuse("over", "api-1s", 100);
        let listed =
            |min: f64| -> Vec<String> { pressed.list(min).into_iter().map(|it| it.key).collect() };
        assert_eq!(listed(NEAR), ["over", "nearer", "near"]);
        assert_eq!(listed(0.9), ["over", "nearer"]);
        let near = |counts: &[(&str, usize)]| {
            let counts = counts.iter().map(|(item, count)| ((*item).to_owned(), *count));
            assert_eq!(pressed.near(), counts.collect());
        };
        near(&[("api-1m", 1), ("api-1s", 2)]);
        let passes = pressed.refused(9);
        assert_eq!(passes, [("over".to_owned(), 1)], "who only comes near is not refused");
        tokio::time::advance(MINUTE / 2).await;
        pressed.note("near", "api-1s", (10, 100));
        pressed.note("nearer", "api-1m", (20, 20));
        pressed.forget("over");
        assert_eq!(listed(NEAR), ["nearer"]);
        assert_eq!(listed(0.1), ["nearer", "near"]);
        tokio::time::advance(MINUTE + Duration::from_secs(1)).await;
        assert_eq!(listed(0.0), Vec::<String>::new());
        near(&[]);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_told_by_the_minute() {
        let pressed = Pressed::default();
        let per_minute = || pressed.list(0.0).first().map(|it| it.refused_per_minute);
        for _ in 0..8 {
            pressed.refuse("a", "api", 1);
        }
        assert_eq!(per_minute(), Some(8));
        tokio::time::advance(MINUTE).await;
        assert_eq!(per_minute(), Some(8));
        tokio::time::advance(MINUTE / 2).await;
        pressed.refuse("a", "api", 1);
        assert_eq!(per_minute(), Some(1 + 4));
        tokio::time::advance(2 * MINUTE).await;
        pressed.refuse("a", "api", 1);
        assert_eq!(per_minute(), Some(1), "of two minutes ago there is nothing left");
    }

    #[test]
    fn one_request_in_sixteen_is_looked_at() {
        let pressed = Pressed::default();
        let looked = (0..160_000).filter(|_| pressed.is_sampled()).count();
        assert!((9_000..11_000).contains(&looked), "{looked}");
    }
}
