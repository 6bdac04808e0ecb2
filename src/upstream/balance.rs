//! Balancing: which of several servers gets a request. Pure, but for the random choice of two and
//! the turns of servers. `hashing` has what goes by keys.

use std::sync::{Mutex, PoisonError};

/// How much a server has to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Requests in progress.
    pub(super) busy: usize,
    /// Its share relative to the others, at least 1.
    pub(super) weight: usize,
}

/// Power of two choices: the less busy, by weight, of two random ones among `count` servers.
pub(super) fn less_busy_of_two(count: usize, load: impl Fn(usize) -> Load) -> usize {
    match two_of(count) {
        None => 0,
        Some((one, other)) => {
            if is_as_free(load(one), load(other)) {
                one
            } else {
                other
            }
        }
    }
}

/// Whether the first server would be no busier than the second with one more request.
fn is_as_free(one: Load, other: Load) -> bool {
    // (one.busy + 1) / one.weight <= (other.busy + 1) / other.weight, without the division.
    (one.busy + 1) * other.weight <= (other.busy + 1) * one.weight
}

/// Smooth weighted round-robin, as nginx has it: each server as often as its weight says, and those
/// of a heavy one not in a row.
#[derive(Debug)]
pub(super) struct Turns(Mutex<Vec<i64>>);

impl Turns {
    /// Of so many servers, whose turns begin.
    pub(super) fn new(servers: usize) -> Self {
        Self(Mutex::new(vec![0; servers]))
    }

    /// Which of `count` servers has its turn. `server` tells the number and the weight of each.
    /// With `looks_only`, nobody's turn is over.
    pub(super) fn next(
        &self,
        count: usize,
        looks_only: bool,
        server: impl Fn(usize) -> (usize, usize),
    ) -> usize {
        let mut credits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut best = (0, i64::MIN);
        let mut total = 0;
        for at in 0..count {
            let (number, weight) = server(at);
            let weight = i64::try_from(weight).unwrap_or(i64::MAX);
            let Some(credit) = credits.get_mut(number) else { continue };
            total += weight;
            if *credit + weight > best.1 {
                best = (at, *credit + weight);
            }
            if !looks_only {
                *credit += weight;
            }
        }
        if !looks_only
            && count > 0
            && let Some(credit) = credits.get_mut(server(best.0).0)
        {
            *credit -= total;
        }
        best.0
    }
}

/// Of two random ones among `count` servers the one that would sooner be done with one more
/// request: its estimate, times what it has to do, by its weight.
pub(super) fn sooner_of_two(count: usize, cost: impl Fn(usize) -> f64) -> usize {
    match two_of(count) {
        None => 0,
        Some((one, other)) => {
            if cost(one) <= cost(other) {
                one
            } else {
                other
            }
        }
    }
}

/// Two random ones of `count`, of two at least.
fn two_of(count: usize) -> Option<(usize, usize)> {
    if count < 2 {
        return None;
    }
    let one = fastrand::usize(..count);
    Some((one, (one + fastrand::usize(1..count)) % count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(busy: usize, weight: usize) -> Load {
        Load { busy, weight }
    }

    #[test]
    fn turns_are_smooth_and_as_many_as_weights() {
        let weights = [5, 1, 1];
        let turns = Turns::new(3);
        let all = |at: usize| (at, weights[at]);
        for _ in 0..3 {
            let seven: Vec<usize> = (0..7).map(|_| turns.next(3, false, all)).collect();
            // nginx's own example.
            assert_eq!(seven, [0, 0, 1, 0, 2, 0, 0]);
        }
        // Who looks takes no turn.
        assert_eq!((turns.next(3, true, all), turns.next(3, true, all)), (0, 0));
        // One that is out misses its turns, and the others have theirs.
        let rest = |at: usize| ([0, 2][at], 1);
        let four: Vec<usize> = (0..4).map(|_| turns.next(2, false, rest)).collect();
        assert_eq!(four, [0, 1, 0, 1]);
        assert_eq!((turns.next(0, false, rest), Turns::new(0).next(0, false, all)), (0, 0));
    }

    #[test]
    fn the_one_that_is_sooner_done_is_chosen() {
        for _ in 0..100 {
            assert_eq!(sooner_of_two(2, |at| [3.0, 2.0][at]), 1);
            assert_ne!(sooner_of_two(3, |at| [3.0, 9.0, 2.0][at]), 1);
        }
        assert_eq!((sooner_of_two(1, |_| 1.0), sooner_of_two(0, |_| 1.0)), (0, 0));
    }

    #[test]
    fn the_less_busy_is_chosen_by_weight() {
        assert!(is_as_free(load(0, 1), load(0, 1)));
        assert!(is_as_free(load(4, 1), load(4, 1)));
        assert!(!is_as_free(load(1, 1), load(0, 1)));
        // Three times as strong: it may be three times as busy.
        assert!(is_as_free(load(2, 3), load(0, 1)));
        assert!(!is_as_free(load(3, 3), load(0, 1)));
    }

    #[test]
    fn the_busiest_of_all_is_never_chosen() {
        let busy = [7, 9, 8];
        for _ in 0..1_000 {
            assert_ne!(less_busy_of_two(3, |at| load(busy[at], 1)), 1);
        }
        assert_eq!(less_busy_of_two(2, |at| load(busy[at], 1)), 0);
        assert_eq!(less_busy_of_two(1, |at| load(busy[at], 1)), 0);
    }
}
