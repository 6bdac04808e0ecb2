//! The names under which what an operator or an event means is stored.

use std::borrow::Cow;
use std::collections::HashSet;

use super::Plan;
use crate::base::http::authority::Authority;
use crate::cache::spellings;

impl Plan {
    /// Every path under which copies of what is meant by `path` may lie.
    pub fn names_to_purge(&self, path: &str) -> Vec<String> {
        let spellings = spellings(path);
        let names = spellings.iter().flat_map(|spelling| self.names_of(spelling));
        distinct(names.map(Cow::into_owned))
    }
}

/// With its port, and as the site whose port is a listener's own, on whichever node.
pub fn sites(authority: &Authority) -> Vec<Cow<'_, str>> {
    let mut sites = vec![authority.site(), authority.host().into()];
    sites.dedup();
    sites
}

/// Each once, in their order.
pub fn distinct(epochs: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut known = HashSet::new();
    epochs.into_iter().filter(|epoch| known.insert(epoch.clone())).collect()
}
