//! What tunnels count, all routes together.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::counter::{Tally, Words};
use super::series::{Described, family};

/// See the module.
#[derive(Debug, Default)]
pub struct TunnelMeter {
    /// From clients.
    up: Tally,
    /// To clients.
    down: Tally,
    messages: Tally,
    ends: Words,
}

impl TunnelMeter {
    /// The reasons why tunnels end; each has a series from the start.
    pub fn begin_at_zero(&self, ends: &[&'static str]) {
        for end in ends {
            self.ends.make(end);
        }
    }

    /// So much has passed from a client, to it, and in messages.
    pub fn passed(&self, up: u64, down: u64, messages: u64) {
        for (tally, more) in [(&self.up, up), (&self.down, down), (&self.messages, messages)] {
            if more > 0 {
                tally.inc_by(more);
            }
        }
    }

    /// One has ended.
    pub fn ended(&self, reason: &'static str) {
        self.ends.count(reason);
    }

    pub(super) fn encode(
        &self,
        open: &[(String, usize)],
        encoder: &mut DescriptorEncoder<'_>,
    ) -> fmt::Result {
        let count = |count: usize| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        let help = "WebSockets that are open, by route.";
        let open = open.iter().map(|(route, number)| ([("route", &**route)], count(*number)));
        family(encoder, &Described::new("tunnels_open", help), open)?;
        let directions = [("up", &self.up), ("down", &self.down)];
        let bytes = directions.into_iter().map(|(way, it)| ([("direction", way)], it.clone()));
        let help = "Bytes through WebSockets, from clients (up) and to them (down).";
        family(encoder, &Described::new("tunnel", help).in_unit(Unit::Bytes), bytes)?;
        let none: [(&str, &str); 0] = [];
        let messages = std::iter::once((none, self.messages.clone()));
        let help = "Messages through WebSockets, in both directions.";
        family(encoder, &Described::new("tunnel_messages", help), messages)?;
        let ends = self.ends.all().into_iter().map(|(word, it)| ([("reason", word)], it));
        family(encoder, &Described::new("tunnel_ends", "WebSockets that ended, by reason."), ends)
    }
}
