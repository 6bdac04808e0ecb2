//! What a store is used for: some of it may have a store of its own.

/// What a store is used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StoreUse {
    /// Revocations, sessions, API keys, certificates, and which gateways there are: `[store]`.
    #[default]
    Main,
    /// Cached responses, and what makes them stale: `[store.cache]`.
    Cache,
    /// Counters and slots of limits: `[store.limits]`.
    Limits,
    /// Deferred deliveries: `store.queue_url`, or `[store.queue]`.
    Queue,
}

impl StoreUse {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Main, Self::Cache, Self::Limits, Self::Queue];

    /// Its table in the configuration.
    pub fn table(self) -> &'static str {
        match self {
            Self::Main => "store",
            Self::Cache => "store.cache",
            Self::Limits => "store.limits",
            Self::Queue => "store.queue",
        }
    }

    /// The word for metrics and commands.
    pub fn word(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Cache => "cache",
            Self::Limits => "limits",
            Self::Queue => "queue",
        }
    }
}
