//! The issuers whose keys are fetched: one fetcher for each place, whoever uses its keys. A fetcher
//! fetches before the keys are old, and when a token names a key that is not known; what it fetched
//! last stays in force while the issuer is away. Where the keys are, the issuer may say itself
//! (`place`). It must not know requests, nor tokens.

mod calls;
mod fetch;
mod fetcher;
mod place;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::calls::Calls;
pub use self::fetcher::State;
pub use self::place::Discovered;

use self::fetcher::Fetcher;
use self::place::Place;
use jsonwebtoken::Algorithm;

use self::fetcher::told;
use crate::auth::{KeySet, Verifier};
use crate::config::RemoteKeys;
use crate::observe::Metrics;
use crate::oidc::Metadata;

/// The fetchers that the verifiers of one plan need.
#[derive(Debug, Default)]
pub struct Issuers {
    /// By the name of the verifier.
    fetchers: BTreeMap<String, Arc<Fetcher>>,
}

impl Issuers {
    /// Fetchers for the keys of `verifiers`. Those of the former plan go on where they fetch the
    /// same in the same way, and hand over what they have where only the way has changed. The rest
    /// end when nobody needs them any more.
    pub fn open<'v>(
        verifiers: impl Iterator<Item = &'v Arc<Verifier>>,
        former: Option<&Self>,
        metrics: &Metrics,
    ) -> Self {
        let mut fetchers: BTreeMap<String, Arc<Fetcher>> = BTreeMap::new();
        let mut new = Vec::new();
        for verifier in verifiers {
            let Some(source) = verifier.remote() else { continue };
            let known: Vec<&Arc<Fetcher>> = fetchers
                .values()
                .chain(former.iter().flat_map(|it| it.fetchers.values()))
                .collect();
            let same = known.iter().find(|fetcher| *fetcher.source() == *source);
            let fetcher = match same {
                Some(fetcher) => Arc::clone(fetcher),
                None => {
                    let document = known
                        .iter()
                        .find(|fetcher| fetcher.fetches_for(source))
                        .and_then(|fetcher| fetcher.document());
                    let fetcher = Fetcher::new(source, document, metrics);
                    new.push(Arc::clone(&fetcher));
                    fetcher
                }
            };
            fetcher.serve(verifier);
            fetchers.insert(verifier.name().to_owned(), fetcher);
        }
        new.iter().for_each(Fetcher::take_off);
        Self { fetchers }
    }

    /// Returns when every fetcher has ended its first fetch, well or not.
    pub async fn first_fetches(&self) {
        for fetcher in self.fetchers.values() {
            fetcher.first_flight().await;
        }
    }

    /// Has the keys of a verifier fetched because one is missing, unless that was done too often
    /// within the cool-down, and waits for the fetch in progress. Returns whether the issuer is
    /// failing.
    pub async fn ask(&self, verifier: &str) -> bool {
        match self.fetchers.get(verifier) {
            Some(fetcher) => fetcher.ask().await,
            None => false,
        }
    }

    /// What the issuer of a verifier says of itself, for those who log in there.
    ///
    /// # Errors
    /// Why nobody can.
    pub fn metadata(&self, verifier: &str) -> Result<Arc<Metadata>, String> {
        let fetcher = self.fetchers.get(verifier);
        fetcher.map_or_else(|| Err("it is not fetched".to_owned()), |it| it.metadata())
    }

    /// What is known of each place.
    pub fn states(&self) -> Vec<State> {
        let mut fetchers: Vec<&Arc<Fetcher>> = self.fetchers.values().collect();
        fetchers.sort_by_key(|fetcher| Arc::as_ptr(fetcher));
        fetchers.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let mut states: Vec<State> = fetchers.into_iter().map(|it| it.state()).collect();
        states.sort_by(|a, b| a.url.cmp(&b.url));
        states
    }

    /// The same by the verifiers that use them, each with its name.
    pub fn states_by_verifier(&self) -> impl Iterator<Item = (&str, State)> {
        self.fetchers.iter().map(|(name, fetcher)| (&**name, fetcher.state()))
    }
}

/// Fetches the keys of one place once, for whoever wants to know whether that works. Returns what
/// came.
///
/// # Errors
/// What happened, and what a person can do about it; the latter may be empty.
pub async fn look(
    source: &RemoteKeys,
    algorithms: &[Algorithm],
) -> Result<String, (String, String)> {
    let place = Place::default();
    let set = place.fetch(source, false, None).await;
    let set = set.map_err(|fault| (fault.what(), fault.remedy()))?;
    let unusable = |what: String| (what, String::new());
    let text =
        std::str::from_utf8(&set).map_err(|_| unusable("the set is not UTF-8".to_owned()))?;
    let (_, left_out) = KeySet::from_published(text, algorithms)
        .map_err(|flaws| unusable(format!("no key is of use: {}", told(&flaws))))?;
    let found = place.state(source).and_then(|it| it.jwks_uri);
    let from = found.unwrap_or_else(|| source.url.to_string());
    let less = if left_out.is_empty() {
        String::new()
    } else {
        format!("; left out: {}", told(&left_out))
    };
    Ok(format!("keys from {from}{less}"))
}
