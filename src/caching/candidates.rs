//! What is stored under a key, whether it is still valid, and which of it serves a request best.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::entry_key::joined;
use super::http_cache::HttpCache;
use super::route::Origin;
use crate::cache::{self, CacheKey, Epochs, Intent, Stored, Verdict};
use crate::store::Epoch;

/// A stored response that is valid by the epochs of now.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) response: Arc<Stored>,
    /// A soft purge made it stale.
    pub(super) purged: bool,
}

/// The one of several stored responses that serves a request best, and what it is worth.
pub(super) fn best(
    candidates: Vec<Candidate>,
    fields: &HeaderMap,
    intent: &Intent,
    now_ms: u64,
) -> Option<(Candidate, Verdict)> {
    let judged = candidates.into_iter().map(|candidate| {
        let Candidate { response, purged } = &candidate;
        let verdict = cache::judge(response, fields, intent, *purged, now_ms);
        (candidate, verdict)
    });
    // Of several that fit, the newest (RFC 9111 §4.1).
    judged.max_by_key(|(candidate, verdict)| (rank(*verdict), candidate.response.answered_ms))
}

fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Fresh { .. } => 4,
        Verdict::StaleWhileRevalidate { .. } => 3,
        Verdict::RequestForbids => 2,
        Verdict::Revalidate => 1,
        Verdict::VaryMiss => 0,
    }
}

/// The names of the variants that a request may be of, by the sets of fields that are known.
pub(super) fn variant_names(vary: Option<&[u8]>, fields: &HeaderMap) -> Vec<String> {
    let mut names = Vec::with_capacity(1);
    for set in cache::vary_lines(vary.unwrap_or_default()) {
        let name = cache::variant_name(&set, fields);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The stored responses among these bytes: those that are whole, and of this key.
pub(super) fn decoded<'a>(
    key: &'a CacheKey,
    values: &'a [Option<Bytes>],
) -> impl Iterator<Item = Arc<Stored>> + 'a {
    let stored = values.iter().flatten().filter_map(Stored::decode);
    stored.filter(|stored| stored.key == key.entry).map(Arc::new)
}

/// The epochs of now, by which stored responses of one key are judged.
pub(super) struct EpochsNow<'a> {
    pub(super) key: &'a CacheKey,
    pub(super) origin: &'a Origin,
    /// Those of the key.
    pub(super) epochs: &'a [Epoch],
    /// Those of tags, as far as they were asked for. Others are asked for where they are needed.
    pub(super) tags: &'a [(String, Epoch)],
}

impl EpochsNow<'_> {
    /// Those of several stored responses that are valid.
    pub(super) async fn valid(
        &self,
        cache: &HttpCache,
        responses: Vec<Arc<Stored>>,
    ) -> Vec<Candidate> {
        let mut valid = Vec::with_capacity(responses.len());
        for response in responses {
            let Some(Epochs { hard, soft }) = self.of(cache, &response).await else { continue };
            if response.epochs.hard == hard {
                let purged = response.epochs.soft != soft;
                valid.push(Candidate { response, purged });
            }
        }
        valid
    }

    /// Those of all that a stored response is subject to; nothing where the store does not say.
    pub(super) async fn of(&self, cache: &HttpCache, response: &Stored) -> Option<Epochs> {
        let keys = self.origin.epochs(response);
        let tags = match keys.is_empty() {
            true => Some(Vec::new()),
            // Boxed, as what is rare and large is: it takes no room in each hit.
            false => Box::pin(self.tags(cache, &keys)).await,
        };
        Some(joined(self.key, self.epochs, &tags?))
    }

    async fn tags(&self, cache: &HttpCache, keys: &[String]) -> Option<Vec<Epoch>> {
        let find =
            |key: &String| self.tags.iter().find(|(name, _)| name == key).map(|(_, epoch)| *epoch);
        let found: Option<Vec<Epoch>> = keys.iter().map(find).collect();
        match found {
            Some(found) => Some(found),
            None => cache.store.epochs(keys).await.ok(),
        }
    }
}
