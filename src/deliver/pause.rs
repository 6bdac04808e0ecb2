//! When deliveries of a queue pause: after failures in a row that are those of its destination. The
//! pause is the fleet's; this is what one node knows of it.

use std::time::Duration;

use super::outcome::Answered;

/// So many failures in a row pause the queue.
const FAILURES: u32 = 5;
/// The first pause, and the longest one.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Doublings from the first to the longest one.
const DOUBLINGS_MAX: u32 = 6;

/// What a node has seen of a queue's destination lately.
#[derive(Debug, Default)]
pub struct Streak {
    failures: u32,
    pauses: u32,
    /// How many may be taken at a time; 0: as many as there are places.
    window: usize,
}

impl Streak {
    /// An attempt has ended. How long to pause, if now; `asked`: what the upstream has asked for,
    /// `chance` is 0 to 1.
    pub fn note(
        &mut self,
        answered: Answered,
        asked: Option<Duration>,
        chance: f64,
    ) -> Option<Duration> {
        match answered {
            Answered::NotSent | Answered::Status(429 | 503) => {
                self.failures = self.failures.saturating_add(1);
                // A probe that fails needs no row of them.
                if self.failures < FAILURES && self.window == 0 {
                    return None;
                }
                self.failures = 0;
                let doublings = self.pauses.min(DOUBLINGS_MAX);
                let whole = FIRST.saturating_mul(1 << doublings).min(LONGEST);
                self.pauses = self.pauses.saturating_add(1);
                self.window = 1;
                let own = whole / 2 + (whole / 2).mul_f64(chance.clamp(0.0, 1.0));
                Some(asked.map_or(own, |asked| asked.clamp(own, LONGEST.max(own))))
            }
            // It may be what was asked, or the places here: says nothing of the rest.
            Answered::InDoubt | Answered::NoPlace => None,
            Answered::Status(_) => {
                self.failures = 0;
                self.pauses = 0;
                // Slowly back to all places.
                self.window = if self.window >= 64 { 0 } else { self.window * 2 };
                None
            }
        }
    }

    /// The queue pauses, as another node has said: behind that it is asked with care.
    pub fn paused(&mut self) {
        if self.window == 0 {
            self.window = 1;
        }
    }

    /// How many of `free` places may be filled, where so many are in progress.
    pub fn grant(&self, free: usize, in_progress: usize) -> usize {
        match self.window {
            0 => free,
            window => free.min(window.saturating_sub(in_progress)),
        }
    }
}
