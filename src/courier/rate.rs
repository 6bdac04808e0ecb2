//! How fast a queue is delivered by the whole fleet: what is to be taken is charged to one window
//! in the store of limits before it is taken, and what was not there to take is given back.

use std::time::Duration;

use crate::base::units::Rate;
use crate::runtime::Gateway;
use crate::store::keys::Keys;
use crate::store::{ChargedAt, Charges, Window, WindowSet};

/// Longest pause before the window is asked again: others may have given back what they charged.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Least: a window that is a moment from having room is not asked over and over.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// How often a smaller number is tried, where others are faster.
const TRIES: usize = 3;

/// What may be taken.
#[derive(Debug)]
pub(super) struct Granted {
    /// At most so many.
    pub(super) most: usize,
    charged: Option<Charged>,
}

#[derive(Debug)]
struct Charged {
    key: String,
    window: Window,
    at: ChargedAt,
}

impl Granted {
    /// Where nothing is counted.
    pub(super) fn all(most: usize) -> Self {
        Self { most, charged: None }
    }

    /// Gives back what was not taken. What the store does not hear of is spent.
    pub(super) async fn give_back(self, gateway: &Gateway, taken: usize) {
        let Some(Charged { key, window, at }) = self.charged else { return };
        let unused = u32::try_from(self.most.saturating_sub(taken)).unwrap_or(0);
        if unused == 0 {
            return;
        }
        let set = WindowSet::new(vec![Window { cost: unused, ..window }]);
        let charges = Charges { set: &set, keys: &[key] };
        if let Err(error) = gateway.store.refund(charges, &at).await {
            tracing::debug!(%error, "what a queue's rate has granted could not be given back");
        }
    }
}

/// Charges for as many as there is room for, `most` at most.
///
/// # Errors
/// Nothing may be taken for so long: there is no room, or the store of limits does not answer.
pub(super) async fn charge(
    gateway: &Gateway,
    keys: &Keys,
    (queue, rate): (&str, Rate),
    most: usize,
) -> Result<Granted, Duration> {
    let key = keys.queue_rate(queue, &rate.label());
    let own = [key];
    let mut cost = u32::try_from(most).unwrap_or(u32::MAX).min(rate.limit);
    let mut pause = PAUSE_MAX;
    for _ in 0..TRIES {
        let window = Window { cost, ..Window::new(rate.limit, rate.window) };
        let set = WindowSet::new(vec![window]);
        let charged = gateway.store.take(Charges { set: &set, keys: &own }).await;
        let reply = charged.map_err(|_| PAUSE_MAX)?;
        if reply.allowed {
            let most = usize::try_from(cost).unwrap_or(usize::MAX);
            let [key] = own;
            return Ok(Granted { most, charged: Some(Charged { key, window, at: reply.at }) });
        }
        let Some(state) = reply.windows.first() else { return Err(PAUSE_MAX) };
        let next = Duration::from_millis(u64::try_from(state.next_ms).unwrap_or(0));
        pause = next.clamp(PAUSE_MIN, PAUSE_MAX);
        match u32::try_from(state.free) {
            Ok(free) if free > 0 => cost = cost.min(free),
            _ => break,
        }
    }
    Err(pause)
}
