//! What a window would say to a request, for operators.

use std::time::Duration;

use serde_json::{Value, json};

use super::exceeded::Exceeded;
use super::facts::Facts;
use super::headers::Quota;
use super::key::principal;
use super::policy::{Limit, Policy, Rule};
use super::state::State;
use super::timing::duration;
use crate::base::units::duration_text;
use crate::config::Over;
use crate::store::keys::{self, Keys};
use crate::store::{Window, WindowState};

/// One window of one limit, and how a request would fare with it.
#[derive(Debug)]
pub struct Forecast<'p> {
    limit: &'p Limit,
    rule: &'p Rule,
    key: String,
    window: Window,
    state: WindowState,
    /// Whether it stands in the request's way.
    pub refuses: bool,
    /// How long the request would have to wait, when it does not fit.
    pub retry_after: Option<Duration>,
}

impl<'p> Forecast<'p> {
    pub(super) fn new(
        limit: &'p Limit,
        rule: &'p Rule,
        key: &str,
        window: &Window,
        state: &WindowState,
    ) -> Self {
        Self {
            limit,
            rule,
            key: keys::limit_parts(key).map_or(key, |parts| parts.0).to_owned(),
            window: *window,
            state: *state,
            refuses: state.retry_ms != 0 && limit.over == Over::Refuse,
            retry_after: (state.retry_ms != 0).then(|| duration(state.retry_ms)),
        }
    }

    /// The refusal.
    pub fn exceeded(&self) -> Exceeded {
        let wait = self.retry_after.unwrap_or_default();
        Exceeded::over(&self.rule.item.name, Duration::ZERO, wait, &Quota::default())
    }

    /// As operators read it.
    pub fn to_json(&self) -> Value {
        let mut shown = describe(&self.window, &self.state);
        shown["limit"] = json!(self.limit.name);
        shown["key"] = json!(self.key);
        shown["cost"] = json!(self.window.cost);
        shown["verdict"] = json!(self.limit.verdict(self.state.retry_ms == 0));
        shown
    }
}

/// What this node's own limits would say, for operators; an error when one stands in the way.
/// Without a good token only those by address alone are asked.
pub fn forecast_local(
    policy: &Policy,
    state: &State,
    keys: &Keys,
    facts: &Facts<'_>,
    identified: bool,
) -> (Vec<Value>, Result<(), Exceeded>) {
    let (mut shown, mut verdict) = (Vec::new(), Ok(()));
    let met = policy.local.iter().filter(|limit| identified || limit.is_early());
    for (limit, rule) in met.flat_map(|limit| limit.rules(facts).iter().map(move |r| (limit, r))) {
        let (principal, cost) = (principal(&limit.key, facts), limit.cost(facts));
        let mut key = String::with_capacity(64);
        keys.limit_into(&mut key, &limit.name, &rule.label, &principal);
        let (left, wait) = state.local.peek(&key, rule.quota, cost);
        if let (Some(wait), Over::Refuse, Ok(())) = (wait, &limit.over, &verdict) {
            let name = &rule.item.name;
            verdict = Err(Exceeded::over(name, Duration::ZERO, wait, &Quota::default()));
        }
        shown.push(json!({
            "limit": limit.name,
            "scope": "local",
            "key": principal,
            "window": rule.label,
            "allowed": rule.item.limit,
            "remaining": left,
            "retry_after_seconds": wait.map(|wait| wait.as_secs_f64()),
            "cost": cost,
            "verdict": limit.verdict(wait.is_none()),
        }));
    }
    (shown, verdict)
}

/// One window of one key, as operators read it.
pub(super) fn describe(window: &Window, state: &WindowState) -> Value {
    let seconds = |ms: i64| u64::try_from(ms).unwrap_or_default() as f64 / 1000.0;
    json!({
        "window": duration_text(Duration::from_micros(window.span_us)),
        "allowed": window.limit,
        "remaining": state.free.max(0),
        "retry_after_seconds": (state.retry_ms > 0).then(|| seconds(state.retry_ms)),
        "full_after_seconds": seconds(state.full_ms),
    })
}
