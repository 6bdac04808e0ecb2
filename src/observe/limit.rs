//! What limits count.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::DescriptorEncoder;

use super::counter::Tally;
use super::series::{Described, family};

/// What one limit, or one of its windows, counts.
#[derive(Debug)]
pub struct LimitMeter {
    limit: String,
    action: &'static str,
    over: Tally,
}

impl LimitMeter {
    pub(super) fn new(limit: &str, action: &'static str) -> Self {
        Self { limit: limit.to_owned(), action, over: Tally::default() }
    }

    /// Whether it counts for the limit of this name, which does this to requests over it.
    pub(super) fn is_of(&self, limit: &str, action: &str) -> bool {
        self.limit == limit && self.action == action
    }

    /// A request was over it.
    pub fn over(&self) {
        self.over.inc();
    }
}

/// Writes the families of all limits.
pub(super) fn encode(
    limits: &[Arc<LimitMeter>],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let help = "Requests over a limit, by limit and what was done: refuse, shadow or mark.";
    let over =
        limits.iter().map(|it| ([("limit", &*it.limit), ("action", it.action)], it.over.clone()));
    family(encoder, &Described::new("over_limit", help), over)
}
