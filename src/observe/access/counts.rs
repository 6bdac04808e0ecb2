//! How many access lines there were, by what became of them.

use crate::observe::counter::Tally;

/// What became of lines.
#[derive(Debug, Clone, Default)]
pub struct LineCounts {
    /// They are where they should be.
    pub written: Tally,
    /// The writer was behind.
    pub dropped: Tally,
    /// Nobody asked for them: `log.sample`.
    pub sampled: Tally,
    /// The system did not take them.
    pub failed: Tally,
}
