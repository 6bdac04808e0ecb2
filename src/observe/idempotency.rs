//! What became of idempotency keys.

/// What became of one key, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOutcome {
    /// A request has it.
    Claimed,
    /// It holds its answer.
    Answered,
    /// It is free again.
    Freed,
    /// Nobody knows how its request ended.
    Unknown,
    /// A repeated request got its answer.
    Replayed,
}

impl KeyOutcome {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Claimed, Self::Answered, Self::Freed, Self::Unknown, Self::Replayed];

    /// Its label.
    pub fn word(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Answered => "answered",
            Self::Freed => "freed",
            Self::Unknown => "unknown",
            Self::Replayed => "replayed",
        }
    }
}
