//! Rate limits: which counters a request charges, and whether it may pass.
//!
//! Shared limits are charged in the store, all windows of all policies at once or none. Limits of
//! this node alone are charged before the store is asked (`local`), and a key that the store
//! refused is refused here until its time is up (`denied`), so that an attack costs next to no
//! store trips. What the answer decides is corrected afterwards (`receipt`).

mod counters;
mod denied;
mod exceeded;
mod facts;
mod fleet;
mod forecast;
mod headers;
mod key;
mod limiter;
mod local;
mod local_check;
mod named;
mod notes;
mod policy;
mod pressed;
mod rate_check;
mod receipt;
mod releases;
mod sessions;
mod slot_check;
mod slots;
mod stand_in;
mod state;
mod timing;

pub use counters::{Counters, Usage};
pub use exceeded::Exceeded;
pub use facts::Facts;
pub use forecast::{Forecast, forecast_local};
pub use headers::{Quota, QuotaItem};
pub use limiter::{Limiter, SlotGuard};
pub use local_check::{charge, charge_by_session, count_exempt, flood};
pub use named::Countable;
pub use notes::LimitNotes;
pub use policy::Policy;
pub use pressed::{KEYS_MAX, NEAR, Pressed, PressedKey};
pub use rate_check::{RateCheck, Taken};
pub use receipt::{Correction, Outcome, Receipt};
pub use sessions::KnownSessions;
pub use slot_check::SlotCheck;
pub use stand_in::Debt;
pub use state::State;

#[cfg(test)]
mod tests;
