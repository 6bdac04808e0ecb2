//! What may be wrong with key material, and the remedy. It must not know any kind of key.

/// Something wrong with key material.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// What is wrong. Never contains key material.
    pub what: String,
    /// What a person can do about it.
    pub remedy: String,
}

impl Flaw {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }

    /// The same flaw, said of one key of several.
    pub(super) fn of(self, subject: &str) -> Self {
        Self { what: format!("{subject}: {}", self.what), remedy: self.remedy }
    }
}
