//! What a look at Redis, or at its sentinels, finds. In its words `{store}` stands for the table of
//! the store until it is known which one it is.

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

/// The same with where it was found.
#[derive(Debug, Clone)]
pub struct Located {
    /// Host and port of each server; none where the store has one server, or it is about all.
    pub servers: Vec<String>,
    /// What was found.
    pub finding: Finding,
}

impl Finding {
    /// The same of the store with this table.
    pub(super) fn of(self, table: &str) -> Self {
        let named = |text: String| text.replace("{store}", table);
        Self { seen: named(self.seen), remedy: named(self.remedy), ..self }
    }

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
