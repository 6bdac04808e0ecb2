//! Balancing: which of several servers gets a request. Pure, but for the random choice of two.

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
    if count < 2 {
        return 0;
    }
    let one = fastrand::usize(..count);
    let other = (one + fastrand::usize(1..count)) % count;
    if is_as_free(load(one), load(other)) { one } else { other }
}

/// Whether the first server would be no busier than the second with one more request.
fn is_as_free(one: Load, other: Load) -> bool {
    // (one.busy + 1) / one.weight <= (other.busy + 1) / other.weight, without the division.
    (one.busy + 1) * other.weight <= (other.busy + 1) * one.weight
}

/// Weighted round-robin: of `count` servers, each as often as its weight says.
pub(super) fn by_turn(count: usize, turn: usize, weight: impl Fn(usize) -> usize) -> usize {
    let total: usize = (0..count).map(&weight).sum();
    let mut rest = turn % total.max(1);
    for server in 0..count {
        let weight = weight(server);
        if rest < weight {
            return server;
        }
        rest -= weight;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(busy: usize, weight: usize) -> Load {
        Load { busy, weight }
    }

    #[test]
    fn each_has_as_many_turns_as_its_weight() {
        let weights = [3, 1, 2];
        let turns: Vec<usize> = (0..12).map(|turn| by_turn(3, turn, |at| weights[at])).collect();
        assert_eq!(turns, [0, 0, 0, 1, 2, 2, 0, 0, 0, 1, 2, 2]);
        // The number of turns may overflow, and begins anew.
        assert!(by_turn(3, usize::MAX, |at| weights[at]) < 3);
        assert_eq!(by_turn(1, 7, |_| 5), 0);
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
