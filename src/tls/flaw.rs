//! What is wrong with a certificate, a key or an authority.

/// A mistake in `[server.tls]` that only the files show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The key in `gateway.toml`, below `server.tls`.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl Flaw {
    /// See the fields.
    pub(super) fn new(key: String, what: impl Into<String>, remedy: &'static str) -> Self {
        Self { key, what: what.into(), remedy }
    }
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "server.tls.{}: {}", self.key, self.what)
    }
}
