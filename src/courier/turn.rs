//! Whose turn it is among the shards of a queue: each is asked in turn, so that none starves behind
//! one that always has something, and one that is away holds up none of the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::store::keys::QueueKeys;

/// What a worker knows of one shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// When to look for claims of holders that have gone.
    pub(super) sweep_at: Instant,
    /// When to look through what waits.
    pub(super) repair_at: Instant,
    /// Nothing is asked of it before that, as long as others can be asked.
    pub(super) away_until: Instant,
    /// The same while it is paused.
    pub(super) paused_until: Instant,
    /// It has not answered when it was asked last.
    pub(super) is_silent: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The number of the shard that is asked first.
    next: u8,
    known: BTreeMap<u8, Known>,
}

impl Turns {
    /// What is known of a shard.
    pub(super) fn of(&mut self, shard: u8, now: Instant) -> &mut Known {
        self.known.entry(shard).or_insert(Known {
            sweep_at: now,
            repair_at: now,
            away_until: now,
            paused_until: now,
            is_silent: false,
        })
    }

    /// Whether a shard does not answer, or is paused.
    pub(super) fn is_idle(&self, shard: u8, now: Instant) -> bool {
        let is_idle = |known: &Known| now < known.away_until || now < known.paused_until;
        self.known.get(&shard).is_some_and(is_idle)
    }

    /// When the first pause of these shards ends; nothing where none is paused.
    pub(super) fn paused_until(&self, all: &[Arc<QueueKeys>], now: Instant) -> Option<Instant> {
        let known = all.iter().filter_map(|keys| self.known.get(&keys.shard));
        known.map(|known| known.paused_until).filter(|until| now < *until).min()
    }

    /// The shards in the order in which they are asked now. Those that are away or paused are left
    /// out, unless all are.
    pub(super) fn order(&self, all: &[Arc<QueueKeys>], now: Instant) -> Vec<Arc<QueueKeys>> {
        let at = all.iter().position(|keys| keys.shard >= self.next).unwrap_or_default();
        let (behind, first) = all.split_at(at);
        let rotated = || first.iter().chain(behind).cloned();
        let there: Vec<_> = rotated().filter(|keys| !self.is_idle(keys.shard, now)).collect();
        if there.is_empty() { rotated().collect() } else { there }
    }

    /// This one was asked: the next time it is the turn of those behind it.
    pub(super) fn asked(&mut self, shard: u8) {
        self.next = shard.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::keys::Keys;

    fn all(shards: &[u8]) -> Vec<Arc<QueueKeys>> {
        shards.iter().map(|shard| Arc::new(Keys::new("app").queue("mail", *shard))).collect()
    }

    fn order(turns: &Turns, shards: &[u8], now: Instant) -> Vec<u8> {
        turns.order(&all(shards), now).iter().map(|keys| keys.shard).collect()
    }

    #[test]
    fn each_shard_is_first_once_before_any_is_again() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let mut first = Vec::new();
        for _ in 0..6 {
            let order = order(&turns, &[0, 1, 2], now);
            assert_eq!(order.len(), 3);
            first.push(order[0]);
            // It had enough for all places.
            turns.asked(order[0]);
        }
        assert_eq!(first, [0, 1, 2, 0, 1, 2]);
        // The others have gone, or come.
        assert_eq!(order(&turns, &[0], now), [0]);
        turns.asked(1);
        assert_eq!(order(&turns, &[0, 1, 5], now), [5, 0, 1]);
        assert_eq!(order(&turns, &[], now), [0; 0]);
    }

    #[test]
    fn one_that_is_away_is_asked_only_where_nobody_else_is_there() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        turns.of(1, now).away_until = later;
        assert_eq!(order(&turns, &[0, 1, 2], now), [0, 2]);
        assert_eq!(order(&turns, &[0, 1, 2], later), [0, 1, 2]);
        turns.of(0, now).paused_until = later;
        assert_eq!(order(&turns, &[0, 1, 2], now), [2]);
        assert_eq!(turns.paused_until(&all(&[1, 2]), now), None);
        assert_eq!(turns.paused_until(&all(&[0, 1]), now), Some(later));
        assert_eq!(order(&turns, &[0, 1], now), [0, 1]);
    }
}
