//! The same server for the same key: weighted rendezvous hashing (Thaler and Ravishankar 1998; the
//! weights after Mosberg and Schindelhauer), with bounded load (Mirrokni, Thorup and Zadimoghaddam
//! 2018). Of a server that goes, only its own keys move; all gateways choose the same one.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::balance::Load;

/// A server takes so many percent of its share of what is in progress; what is beyond goes to the
/// next one.
const LOAD_PERCENT_MAX: usize = 125;

/// What a server is to hashes: the hash of its url.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point(u64);

impl Point {
    /// The point of the server with this url.
    pub(super) fn of(url: &str) -> Self {
        Self(xxh3_64(url.as_bytes()))
    }

    /// How near a key is: the largest of all servers' wins, each as often as its weight says.
    fn score(self, key: u64, weight: usize) -> f64 {
        let hash = xxh3_64_with_seed(&self.0.to_le_bytes(), key);
        // 53 bits, in the middle of their steps: neither 0 nor 1.
        let unit = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -(weight as f64) / unit.ln()
    }
}

/// Which of `count` servers has the key: the nearest one that is not overloaded.
pub(super) fn nearest(count: usize, key: u64, server: impl Fn(usize) -> (Point, Load)) -> usize {
    let sums = (0..count).map(|at| server(at).1);
    let (busy, weights) =
        sums.fold((0, 0), |(busy, weights), load| (busy + load.busy, weights + load.weight));
    // One of them has room: all that they may have together is more than all that there is.
    let most =
        |weight: usize| ((busy + 1) * weight * LOAD_PERCENT_MAX).div_ceil(weights.max(1) * 100);
    let mut best = (0, f64::NEG_INFINITY);
    for at in 0..count {
        let (point, load) = server(at);
        let score = point.score(key, load.weight);
        if score > best.1 && load.busy < most(load.weight) {
            best = (at, score);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(count: usize) -> Vec<Point> {
        (0..count).map(|at| Point::of(&format!("http://10.0.0.{at}:3000"))).collect()
    }

    /// Where each of these keys goes among idle servers of these weights.
    fn all(points: &[Point], weights: &[usize]) -> Vec<usize> {
        let server = |at: usize| (points[at], Load { busy: 0, weight: weights[at] });
        (0..20_000)
            .map(|key| nearest(points.len(), xxh3_64(&u64::to_le_bytes(key)), server))
            .collect()
    }

    #[test]
    fn each_server_has_its_share_of_the_keys() {
        let weights = [1, 1, 2, 4];
        let homes = all(&points(4), &weights);
        for (at, weight) in weights.into_iter().enumerate() {
            let share = homes.iter().filter(|home| **home == at).count();
            let fair = 20_000 * weight / 8;
            assert!(share.abs_diff(fair) < fair / 10, "{at}: {share} of {fair}");
        }
    }

    #[test]
    fn of_a_server_that_goes_only_its_own_keys_move() {
        let five = points(5);
        let before = all(&five, &[1; 5]);
        let mut four = five.clone();
        four.remove(2);
        let after = all(&four, &[1; 4]);
        let mut moved = [0; 4];
        for (before, after) in before.iter().zip(after) {
            match before {
                2 => moved[after] += 1,
                _ => assert_eq!(five[*before], four[after]),
            }
        }
        // To all others alike.
        assert!(moved.iter().all(|count| (800..1_200).contains(count)), "{moved:?}");
        // And a larger weight takes from others, and gives nothing away.
        let heavier = all(&five, &[1, 1, 3, 1, 1]);
        assert!(before.iter().zip(heavier).all(|(before, after)| after == 2 || after == *before));
    }

    #[test]
    fn what_is_beyond_a_servers_share_goes_to_the_next_one() {
        let points = points(4);
        let home = nearest(4, 42, |at| (points[at], Load { busy: 0, weight: 1 }));
        let mut busy = [0_usize; 4];
        let pick = |busy: &[usize; 4]| {
            nearest(4, 42, |at| (points[at], Load { busy: busy[at], weight: 1 }))
        };
        for in_all in 1..=400 {
            busy[pick(&busy)] += 1;
            let most = (in_all * LOAD_PERCENT_MAX).div_ceil(400);
            assert!(busy.iter().all(|busy| *busy <= most), "{busy:?} of {in_all}");
        }
        assert_eq!(busy[home], 125);
        // The next one is always the same.
        let mut sorted = busy;
        sorted.sort_unstable();
        assert_eq!(sorted, [25, 125, 125, 125]);
        busy[home] = 0;
        assert_eq!(pick(&busy), home);
    }

    #[test]
    fn a_single_server_takes_whatever_it_has() {
        let point = Point::of("http://a");
        assert_eq!(nearest(1, 7, |_| (point, Load { busy: 1_000, weight: 3 })), 0);
    }
}
