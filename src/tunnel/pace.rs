//! How fast a client may send messages: GCRA, as the limits of one node. Who is too fast waits; who
//! is too fast all the time is refused.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::units::Rate;

/// The pace of one tunnel.
#[derive(Debug)]
pub(super) struct MessagePace {
    window: Duration,
    /// One message takes so much of the window.
    interval: Duration,
    /// When the whole rate is there again, as far as messages have used it.
    full_at: Option<Instant>,
    /// Since when one message after the other had to wait.
    slow_since: Option<Instant>,
    /// Whether the next message has been told to wait.
    is_waiting: bool,
}

/// A message is too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooEarly {
    /// It may pass then.
    Until(Instant),
    /// All of them were, for a whole window.
    TooOften,
}

impl MessagePace {
    /// A pace that allows the whole rate at once.
    pub(super) fn new(rate: &Rate) -> Self {
        let interval = (rate.window / rate.limit.max(1)).max(Duration::from_nanos(1));
        let window = rate.window;
        Self { window, interval, full_at: None, slow_since: None, is_waiting: false }
    }

    /// May one more message pass?
    ///
    /// # Errors
    /// It is too early; nothing is counted then.
    pub(super) fn pass(&mut self, now: Instant) -> Result<(), TooEarly> {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        let earliest = (full_at + self.interval).checked_sub(self.window).unwrap_or(now);
        if now < earliest {
            self.is_waiting = true;
            let since = *self.slow_since.get_or_insert(now);
            let is_over = now.saturating_duration_since(since) >= self.window;
            return Err(if is_over { TooEarly::TooOften } else { TooEarly::Until(earliest) });
        }
        if !std::mem::take(&mut self.is_waiting) {
            self.slow_since = None;
        }
        self.full_at = Some(full_at + self.interval);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> MessagePace {
        MessagePace::new(&Rate { limit: 10, window: Duration::from_secs(10) })
    }

    /// Sends as fast as it may: how many passed, and after how long it was refused.
    #[test]
    fn who_is_always_too_fast_is_refused_after_a_window() {
        let (mut pace, start) = (pace(), Instant::now());
        let (mut now, mut passed) = (start, 0);
        let refused = loop {
            match pace.pass(now) {
                Ok(()) => passed += 1,
                Err(TooEarly::Until(until)) => {
                    assert!(until > now);
                    now = until;
                }
                Err(TooEarly::TooOften) => break now - start,
            }
        };
        assert_eq!((passed, refused), (20, Duration::from_secs(10)));
    }

    #[test]
    fn who_keeps_it_is_never_refused() {
        let (mut pace, start) = (pace(), Instant::now());
        for second in 0..1000 {
            assert_eq!(pace.pass(start + Duration::from_secs(second)), Ok(()), "{second}");
        }
        // Once in a while a burst.
        for round in 0..100 {
            let at = start + Duration::from_secs(2000 + round * 20);
            assert!((0..10).all(|_| pace.pass(at).is_ok()), "{round}");
            assert_eq!(pace.pass(at), Err(TooEarly::Until(at + Duration::from_secs(1))));
            assert_eq!(pace.pass(at + Duration::from_secs(1)), Ok(()));
        }
    }
}
