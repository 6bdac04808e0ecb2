//! Which functions a request was judged by without the store.

use http::HeaderValue;

use crate::config::StoreUse;
use crate::store::{Answers, Reply, StoreError};

/// The functions that ask the store, by the words of the access line and of the metrics.
pub(super) const FUNCTIONS: [&str; 6] =
    ["revocation", "limits", "session", "cache", "pools", "idempotency"];

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Degraded {
    /// By [`FUNCTIONS`].
    without: [bool; FUNCTIONS.len()],
    /// Whether the store that the cache is in did not answer a question of this request.
    pub(super) cache_is_away: bool,
}

/// Of each of [`FUNCTIONS`], the store that it asks, and why that has not answered.
pub(super) type Failures<'a> = [(&'static str, StoreUse, Option<&'a StoreError>); FUNCTIONS.len()];

/// Which functions must do without the store, and which store that is.
pub(super) fn failures(answers: &Answers) -> Failures<'_> {
    let Answers { revocation, unproven, charges, leases, session, .. } = answers;
    let Answers { cached, marks, claim, .. } = answers;
    [
        ("revocation", StoreUse::Main, error(revocation).or(unproven.as_ref())),
        ("limits", StoreUse::Limits, error(charges).or(error(leases))),
        ("session", StoreUse::Main, error(session)),
        ("cache", StoreUse::Cache, error(cached)),
        ("pools", StoreUse::Main, error(marks)),
        ("idempotency", StoreUse::Main, error(claim)),
    ]
}

/// Why a question has no answer that can be used.
pub(super) fn error<T>(reply: &Option<Reply<T>>) -> Option<&StoreError> {
    reply.as_ref().and_then(|reply| reply.as_ref().err())
}

impl Degraded {
    /// Those of [`FUNCTIONS`] for which this says so.
    pub(super) fn of(is_without: impl Fn(&'static str) -> bool, cache_is_away: bool) -> Self {
        Self { without: FUNCTIONS.map(is_without), cache_is_away }
    }

    /// Their names, as a field's value; nothing where there is none.
    pub(super) fn field(self) -> Option<HeaderValue> {
        let names = FUNCTIONS.iter().zip(self.without).filter(|(_, is_without)| *is_without);
        let names: Vec<&str> = names.map(|(name, _)| *name).collect();
        HeaderValue::try_from(names.join(", ")).ok().filter(|_| !names.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_names_what_was_judged_without_the_store() {
        let of = |all: &[&str]| Degraded::of(|name| all.contains(&name), false);
        assert_eq!(of(&[]).field(), None);
        for (all, expected) in [
            (&["session"][..], "session"),
            (&["session", "limits"], "limits, session"),
            (&FUNCTIONS, "revocation, limits, session, cache, pools, idempotency"),
        ] {
            let field = of(all).field().expect("a field");
            assert!(field == expected, "{field:?}");
        }
    }
}
