//! The pace of a body that is waited for.

use std::time::Duration;

use tokio::time::Instant;

/// Demands `bytes` for each `period` that is spent waiting. Time in which nobody waits, because the
/// other side takes no more, is nobody's fault and does not count.
#[derive(Debug)]
pub struct Pace {
    bytes: u64,
    period: Duration,
    /// What arrived since the last time that it was enough.
    arrived: u64,
    /// How long was waited for it.
    waited: Duration,
    since: Option<Instant>,
}

impl Pace {
    /// A pace that nobody has been waiting for yet.
    pub fn new(bytes: u64, period: Duration) -> Self {
        Self { bytes, period, arrived: 0, waited: Duration::ZERO, since: None }
    }

    /// So many bytes are here.
    pub fn arrived(&mut self, bytes: u64, now: impl FnOnce() -> Instant) {
        self.arrived = self.arrived.saturating_add(bytes);
        if let Some(since) = self.since.take() {
            self.waited += now() - since;
        }
        if self.arrived >= self.bytes {
            (self.arrived, self.waited) = (0, Duration::ZERO);
        }
    }

    /// Somebody waits. Returns how much longer he does; zero when it was too slow.
    pub fn left(&mut self, now: Instant) -> Duration {
        let since = *self.since.get_or_insert(now);
        self.period.saturating_sub(self.waited + (now - since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);

    /// Pieces of `bytes`, each after `wait`: after how long it was too slow, if ever.
    fn ends(bytes: u64, wait: Duration, pieces: u32) -> Option<Duration> {
        let mut pace = Pace::new(32 << 10, PERIOD);
        let start = Instant::now();
        let mut now = start;
        for _ in 0..pieces {
            let left = pace.left(now);
            if left <= wait {
                return Some(now - start + left);
            }
            now += wait;
            pace.arrived(bytes, || now);
        }
        None
    }

    #[test]
    fn a_phone_keeps_it_and_a_drip_does_not() {
        // 2 KiB a second, in whatever pieces.
        assert_eq!(ends(2 << 10, Duration::from_secs(1), 1000), None);
        assert_eq!(ends(40 << 10, Duration::from_secs(20), 100), None);
        assert_eq!(ends(200, Duration::from_millis(100), 10_000), None);
        assert_eq!(ends(1100, Duration::from_secs(20), 1000), Some(PERIOD));
        assert_eq!(ends(1, Duration::from_millis(100), 10_000), Some(PERIOD));
        assert_eq!(ends(1 << 20, Duration::from_secs(31), 10), Some(PERIOD));
    }

    #[test]
    fn a_burst_is_followed_by_a_whole_period() {
        let mut pace = Pace::new(1000, PERIOD);
        let start = Instant::now();
        assert_eq!(pace.left(start), PERIOD);
        let later = start + Duration::from_secs(29);
        assert_eq!(pace.left(later), Duration::from_secs(1));
        pace.arrived(1000, || later);
        assert_eq!(pace.left(later), PERIOD);
        assert_eq!(pace.left(later + PERIOD), Duration::ZERO);
    }

    #[test]
    fn what_the_other_side_does_not_take_is_not_waited_for() {
        let mut pace = Pace::new(1000, PERIOD);
        let start = Instant::now();
        assert_eq!(pace.left(start), PERIOD);
        pace.arrived(10, || start + Duration::from_secs(1));
        // Nobody asks for an hour.
        let hour = start + Duration::from_secs(3600);
        assert_eq!(pace.left(hour), PERIOD - Duration::from_secs(1));
        pace.arrived(10, || hour + Duration::from_secs(28));
        assert_eq!(pace.left(hour + Duration::from_secs(28)), Duration::from_secs(1));
    }
}
