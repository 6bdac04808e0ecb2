//! Which functions a request was judged by without the store.

use http::HeaderValue;

/// The functions that ask the store, by the words of the access line and of the metrics.
pub(super) const FUNCTIONS: [&str; 4] = ["revocation", "limits", "session", "cache"];

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Degraded([bool; FUNCTIONS.len()]);

impl Degraded {
    /// Those of [`FUNCTIONS`] for which this says so.
    pub(super) fn of(is_without: impl Fn(&'static str) -> bool) -> Self {
        Self(FUNCTIONS.map(is_without))
    }

    /// Whether there is any.
    pub(super) fn any(self) -> bool {
        self.0.contains(&true)
    }

    /// Their names, as a field's value; nothing where there is none.
    pub(super) fn field(self) -> Option<HeaderValue> {
        let names = FUNCTIONS.iter().zip(self.0).filter(|(_, is_without)| *is_without);
        let names: Vec<&str> = names.map(|(name, _)| *name).collect();
        let field = names.join(", ");
        HeaderValue::try_from(field).ok().filter(|_| self.any())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_names_what_was_judged_without_the_store() {
        let of = |all: &[&str]| Degraded::of(|name| all.contains(&name));
        assert_eq!((of(&[]).any(), of(&[]).field()), (false, None));
        for (all, expected) in [
            (&["session"][..], "session"),
            (&["session", "limits"], "limits, session"),
            (&FUNCTIONS, "revocation, limits, session, cache"),
        ] {
            let field = of(all).field().expect("a field");
            assert!(of(all).any() && field == expected, "{field:?}");
        }
    }
}
