//! What nobody has looked at in a document: each such thing is on the list of what is left out,
//! unless it is known to need nothing here.

use super::effects::At;
use super::sheet::Sheet;
use super::tree::{Node, Unseen};

/// What to do in place of something that is not known.
pub(super) const INSTEAD: &str =
    "docs/reference.md has every key of gateway.toml: write one that does the same, if it matters";

/// What is known of keys that are not carried over. Each is named by the end of the names that lead
/// to it, or by all of them behind a `=`.
pub(super) struct Known {
    /// Those that need nothing: with this value, or with any where it is empty. Texts of a list are
    /// joined by commas, sorted.
    pub(super) needless: &'static [(&'static str, &'static str)],
    /// Why others are left out, and what to do in their place.
    pub(super) hints: &'static [(&'static str, &'static str, &'static str)],
}

impl Known {
    fn is_needless(&self, unseen: &Unseen<'_>) -> bool {
        let mut texts = unseen.node.texts();
        texts.sort_unstable();
        let value = texts.join(",");
        self.needless
            .iter()
            .any(|(end, only)| ends(&unseen.keys, end) && (only.is_empty() || *only == value))
    }

    fn hint(&self, keys: &str) -> (&'static str, &'static str) {
        let known = self.hints.iter().find(|(end, _, _)| ends(keys, end));
        known.map_or(("nothing of it is carried over", INSTEAD), |(_, why, instead)| (why, instead))
    }
}

/// Whether the last of these names are those, or all of them behind a `=`; capital letters are the
/// same as small ones.
fn ends(keys: &str, end: &str) -> bool {
    if let Some(whole) = end.strip_prefix('=') {
        return keys.eq_ignore_ascii_case(whole);
    }
    let start = keys.len().checked_sub(end.len());
    start.is_some_and(|start| {
        keys.get(start..).is_some_and(|it| it.eq_ignore_ascii_case(end))
            && (start == 0 || keys.as_bytes().get(start - 1) == Some(&b'.'))
    })
}

/// Puts on the list whatever nobody has looked at. Values are not shown: they may be secrets.
pub(super) fn list(name: &str, root: &Node, known: &Known, sheet: &mut Sheet) {
    for unseen in root.unseen() {
        if known.is_needless(&unseen) {
            continue;
        }
        let (why, instead) = known.hint(&unseen.keys);
        let at = At { name, what: &unseen.shown };
        at.leave_all(unseen.node, why, instead, sheet);
    }
}
