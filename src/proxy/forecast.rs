//! What limits would say to a request that does not happen, for operators.

use serde_json::Value;

use crate::config::LimitOutage;
use crate::limit::{self, Exceeded, Forecast};
use crate::store::{LeaseReply, Reply};

/// What limits would say to a request that does not happen.
pub(super) struct Forecasts<'a> {
    /// The shared windows.
    pub(super) windows: Option<Reply<Vec<Forecast<'a>>>>,
    /// Whether there is room in the windows that this gateway counts.
    pub(super) room: Result<(), Exceeded>,
    /// Whether there are slots, among those in the store and here.
    pub(super) slots: Result<(), Exceeded>,
    /// All of them, as operators read them.
    pub(super) shown: Vec<Value>,
}

impl Forecasts<'_> {
    /// Would the limits let the request pass?
    pub(super) fn admit(&self, outage: LimitOutage) -> Result<(), Exceeded> {
        match &self.windows {
            Some(Ok(windows)) => {
                let refusing = windows.iter().filter(|it| it.refuses);
                if let Some(worst) = refusing.max_by_key(|it| it.retry_after) {
                    return Err(worst.exceeded());
                }
            }
            Some(Err(error)) if outage == LimitOutage::Refuse => {
                return Err(Exceeded::Unknown(error.clone()));
            }
            Some(Err(_)) | None => {}
        }
        self.slots.clone()
    }
}

/// The slots that the store leases, and whether the request finds them.
pub(super) fn forecast_leases(
    wanted: &limit::SlotCheck<'_>,
    reply: Option<Reply<LeaseReply>>,
    outage: LimitOutage,
) -> (Vec<Value>, Result<(), Exceeded>) {
    match reply {
        Some(Ok(reply)) => wanted.forecast(&reply),
        Some(Err(error)) if outage == LimitOutage::Refuse => {
            (Vec::new(), Err(Exceeded::Unknown(error)))
        }
        Some(Err(_)) | None => (Vec::new(), Ok(())),
    }
}
