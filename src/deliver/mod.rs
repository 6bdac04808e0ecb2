//! Requests that are accepted now and delivered later, as far as that is pure: what is kept of a
//! request ([`Head`]), when it is due, what an upstream's answer means for it, how long to wait
//! before the next attempt, when the whole queue pauses, and what is told of it.

mod answer;
mod backoff;
mod due;
mod envelope;
mod fields;
mod head;
mod outcome;
mod owner;
mod pause;
mod prefer;
mod recheck;
mod refused;
mod signature;

#[cfg(test)]
mod tests;

pub use self::answer::Kept;
pub use self::backoff::{Pauses, retry_after};
pub use self::due::{DueFault, due_in};
pub use self::envelope::{Envelope, Form};
pub use self::fields::{NeverKept, dashed, kept_fields, never_kept};
pub use self::head::{Head, X_DELIVERY_ATTEMPT, X_DELIVERY_ID};
pub use self::outcome::{Answered, Bounds, Verdict, Why, judge};
pub use self::owner::{line_of, owner_of};
pub use self::pause::Streak;
pub use self::prefer::{PREFER, wait_of};
pub use self::recheck::Recheck;
pub use self::refused::Refused;
pub use self::signature::signature;
