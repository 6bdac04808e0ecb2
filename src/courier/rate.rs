//! How fast a queue is delivered by the whole fleet: what is to be taken is charged to one window
//! in the store of limits before it is taken, and what was not sent is given back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::units::Rate;
use crate::runtime::Gateway;
use crate::store::keys::Keys;
use crate::store::{ChargedAt, Charges, StoreError, Window, WindowSet};

/// Longest pause before the window is asked again: others may have given back what they charged.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Least: a window that is a moment from having room is not asked over and over.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// How often a smaller number is tried, where others are faster.
const TRIES: usize = 3;
/// Most charges of which something is to be given back; of the oldest, nothing is.
const OWED_MAX: usize = 256;

/// What may be taken.
#[derive(Debug)]
pub(super) struct Granted {
    /// At most so many.
    pub(super) most: usize,
    /// What it was charged to; nothing where nothing is counted.
    pub(super) charged: Option<Arc<Charged>>,
}

impl Granted {
    /// Where nothing is counted.
    pub(super) fn all(most: usize) -> Self {
        Self { most, charged: None }
    }
}

/// Units of a window, as the store has them.
#[derive(Debug)]
pub(super) struct Charged {
    key: String,
    window: Window,
    at: ChargedAt,
    /// When they have left the window by themselves.
    until: Instant,
}

impl Charged {
    async fn give_back(&self, gateway: &Gateway, units: u32) -> Result<(), StoreError> {
        let set = WindowSet::new(vec![Window { cost: units, ..self.window }]);
        let charges = Charges { set: &set, keys: std::slice::from_ref(&self.key) };
        gateway.store.refund(charges, &self.at).await
    }
}

/// What was charged and not sent: it is given back, when the store hears of it, while it counts.
#[derive(Debug, Default)]
pub(super) struct Owed(Vec<(Arc<Charged>, u32)>);

impl Owed {
    /// So many more of these.
    pub(super) fn add(&mut self, charged: Option<&Arc<Charged>>, units: usize) {
        let Some(charged) = charged.filter(|_| units > 0) else { return };
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        if let Some((_, owed)) = self.0.iter_mut().find(|(it, _)| Arc::ptr_eq(it, charged)) {
            *owed = owed.saturating_add(units);
            return;
        }
        if self.0.len() >= OWED_MAX {
            self.0.remove(0);
        }
        self.0.push((Arc::clone(charged), units));
    }

    /// Gives it back. What the store has surely not heard of stays for the next time. What it may
    /// have heard of is spent: given back twice, it would let through more than the rate.
    pub(super) async fn pay(&mut self, gateway: &Gateway) {
        let now = Instant::now();
        self.0.retain(|(charged, _)| now < charged.until);
        while let Some((charged, units)) = self.0.pop() {
            let Err(error) = charged.give_back(gateway, units).await else { continue };
            tracing::debug!(%error, "what a queue's rate has granted could not be given back");
            if error.is_undone() {
                self.0.push((charged, units));
                return;
            }
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
            let until = Instant::now() + rate.window;
            let charged = Charged { key, window, at: reply.at, until };
            return Ok(Granted { most, charged: Some(Arc::new(charged)) });
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
