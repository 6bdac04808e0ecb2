//! What a look at Redis, or at its sentinels, finds.

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether nothing can be right as it is.
    pub is_fatal: bool,
    /// What was looked at, in one word.
    pub check: &'static str,
    /// What was seen.
    pub seen: String,
    /// What does not work because of it.
    pub suffers: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    pub(super) fn fatal(
        check: &'static str,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (seen, remedy) = (seen.into(), remedy.into());
        Self { is_fatal: true, check, seen, suffers: "everything".to_owned(), remedy }
    }

    pub(super) fn warning(
        check: &'static str,
        seen: impl Into<String>,
        suffers: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (seen, suffers, remedy) = (seen.into(), suffers.into(), remedy.into());
        Self { is_fatal: false, check, seen, suffers, remedy }
    }
}
