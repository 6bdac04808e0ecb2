//! What limits would say to a request that does not happen, for operators.

use serde_json::{Value, json};

use super::request::Request;
use crate::config::LimitOutage;
use crate::limit::{self, Exceeded, Forecast};
use crate::store::{ChargeReply, LeaseReply, Reply};

/// What limits would say to a request that does not happen.
pub(super) struct Forecasts<'a> {
    /// The shared windows.
    windows: Option<Reply<Vec<Forecast<'a>>>>,
    /// Whether there is room in the windows that this gateway counts.
    pub(super) room: Result<(), Exceeded>,
    /// Whether there are slots, among those in the store and here.
    slots: Result<(), Exceeded>,
    /// All of them, as operators read them.
    pub(super) shown: Vec<Value>,
}

impl<'a> Forecasts<'a> {
    /// What the answers of a store that only looked mean to a request: `windows` and `slots` are
    /// what it asks for, each with its answer.
    pub(super) fn of(
        request: &Request<'a>,
        facts: &limit::Facts<'_>,
        is_identified: bool,
        windows: Option<(&limit::RateCheck<'a>, Reply<ChargeReply>)>,
        slots: Option<(&limit::SlotCheck<'a>, Option<Reply<LeaseReply>>)>,
    ) -> Self {
        let (plan, state) = (request.plan(), &request.gateway().limits.state);
        let outage = plan.on_outage.limits;
        let windows = windows.map(|(asked, reply)| reply.map(|reply| asked.forecast(&reply)));
        let mut shown = match &windows {
            None => Vec::new(),
            Some(Ok(windows)) => windows.iter().map(Forecast::to_json).collect(),
            Some(Err(error)) => vec![json!({
                "unknown": error.to_string(),
                "on_outage": format!("{outage:?}").to_lowercase(),
            })],
        };
        let limits = &request.route.limits;
        let (local, room) = limit::forecast_local(limits, state, &plan.keys, facts, is_identified);
        shown.extend(local);
        let mut verdict = Ok(());
        if let Some((asked, reply)) = slots {
            let (local, here) = asked.forecast_local(state);
            shown.extend(local);
            let (leased, there) = forecast_leases(asked, reply, outage);
            shown.extend(leased);
            verdict = there.and(here);
        }
        Self { windows, room, slots: verdict, shown }
    }

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
fn forecast_leases(
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
