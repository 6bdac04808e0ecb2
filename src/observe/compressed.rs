//! What compression takes in and gives out, by coding.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;

use super::series::{Described, family};
use crate::base::shard::Counters;

/// The codings that are counted.
const CODINGS: [&str; 3] = ["br", "zstd", "gzip"];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Compressed(Counters<{ 2 * CODINGS.len() }>);

impl Compressed {
    /// So many bytes of content became so many.
    pub(super) fn add(&self, coding: &str, (content, sent): (u64, u64)) {
        let Some(index) = CODINGS.iter().position(|known| *known == coding) else { return };
        for (side, bytes) in [content, sent].into_iter().enumerate() {
            if bytes > 0 {
                self.0.add(2 * index + side, bytes);
            }
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let series = CODINGS.into_iter().enumerate().flat_map(|(index, coding)| {
            ["in", "out"].into_iter().enumerate().map(move |(side, name)| {
                let bytes = ConstCounter::new(self.0.sum(2 * index + side));
                ([("coding", coding), ("side", name)], bytes)
            })
        });
        let help = "Bytes of responses before (in) and after (out) their compression.";
        family(encoder, &Described::new("compressed", help).in_unit(Unit::Bytes), series)
    }
}
