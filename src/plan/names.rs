//! The names of tables, as remedies tell them.

/// The names that exist, for a remedy.
pub(super) fn names<'a>(names: impl Iterator<Item = &'a String>, section: &str) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() {
        format!("the {section} tables (there is none yet: add it)")
    } else {
        format!("the {section} tables: {}", names.join(", "))
    }
}
