//! What is stored for a request, and whether it would still answer, for operators: by the same key
//! and the same epochs as a request's own lookup, and without a part in any.

use std::sync::Arc;

use super::body;
use super::candidates::{EpochsNow, decoded};
use super::http_cache::HttpCache;
use super::lookup::{LookupRequest, find_near};
use super::route::{Origin, RouteCache};
use crate::cache::{CacheKey, Epochs, Stored, Withdrawn};
use crate::store::{Cached, CachedReply, Questions, StoreError};

/// Most variants of one entry that are read. The longest has a body of some 64 KiB beside it.
const VARIANTS_MAX: usize = 16;

/// One variant.
#[derive(Debug)]
pub struct Inspected {
    /// The response.
    pub response: Arc<Stored>,
    /// Whether this gateway has a copy.
    pub is_near: bool,
    /// Whether the store has it.
    pub is_in_store: bool,
    /// Why no request is answered by it as it is, whatever its lifetime.
    pub invalid: Option<Invalid>,
}

/// Why a stored response answers nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// A purge has withdrawn it.
    Withdrawn(Withdrawn),
    /// A soft purge has made it stale: it is to be confirmed first.
    Softened(Withdrawn),
    /// The store does not say whether its tags were purged.
    TagsUnknown,
    /// A part of its body is gone.
    BodyGone,
}

/// All that was found under one key.
#[derive(Debug)]
pub struct Inspection {
    /// The variants, the newest first.
    pub variants: Vec<Inspected>,
    /// Whether there are more than are told of.
    pub has_more: bool,
    /// Now, in Unix milliseconds of the clock that responses are dated by.
    pub now_ms: u64,
}

/// Looks at what is stored on a route for a request, here and in the store.
///
/// # Errors
/// The store did not answer, or a purge waits for it: nothing that is stored is used then.
pub async fn inspect(
    cache: &Arc<HttpCache>,
    route: &Arc<RouteCache>,
    request: &LookupRequest<'_>,
) -> Result<Inspection, StoreError> {
    let (near, key) = find_near(cache, route, request, true);
    let site = request.target.authority.site().into_owned();
    let origin = Origin { route: Arc::clone(route), scheme: request.client.scheme, site };
    let mut names = cache.store.variant_names(&key.entry, VARIANTS_MAX + 1).await?;
    let has_more = names.len() > VARIANTS_MAX;
    names.truncate(VARIANTS_MAX);
    let values = match names.is_empty() {
        true => Vec::new(),
        false => cache.store.variants(&key.entry, &names).await?,
    };
    let cached = Some(Cached { epochs: &key.epochs, entry: None });
    let mut answers = cache.ask(&Questions { cached, ..Questions::default() }).await;
    let reply = answers.cached.take().unwrap_or(Err(StoreError::Unavailable))?;
    let copies = near.as_deref().map_or(&[][..], |entry| &entry.variants);
    let mut variants = together(decoded(&key, &values).collect(), copies);
    for variant in &mut variants {
        variant.invalid = why(cache, (&key, &origin), &reply, &variant.response).await;
    }
    variants.sort_by_key(|variant| std::cmp::Reverse(variant.response.answered_ms));
    Ok(Inspection { variants, has_more, now_ms: cache.now_ms() })
}

/// What the store has, and the copies that are here.
fn together(stored: Vec<Arc<Stored>>, copies: &[Arc<Stored>]) -> Vec<Inspected> {
    let of_store =
        |response| Inspected { response, is_near: false, is_in_store: true, invalid: None };
    let mut all: Vec<Inspected> = stored.into_iter().map(of_store).collect();
    for copy in copies {
        let is_same = |known: &&mut Inspected| {
            known.response.vary == copy.vary && known.response.answered_ms == copy.answered_ms
        };
        match all.iter_mut().find(is_same) {
            Some(known) => known.is_near = true,
            None => all.push(Inspected {
                response: Arc::clone(copy),
                is_near: true,
                is_in_store: false,
                invalid: None,
            }),
        }
    }
    all
}

async fn why(
    cache: &Arc<HttpCache>,
    (key, origin): (&CacheKey, &Origin),
    reply: &CachedReply,
    response: &Stored,
) -> Option<Invalid> {
    if !reply.based {
        return Some(Invalid::Withdrawn(Withdrawn::All));
    }
    let now = EpochsNow { key, origin, epochs: &reply.epochs, tags: &[] };
    let Some(Epochs { hard, soft }) = now.of(cache, response).await else {
        return Some(Invalid::TagsUnknown);
    };
    if let Some(by) = key.withdrawn_by(&response.epochs.hard, &hard) {
        return Some(Invalid::Withdrawn(by));
    }
    if let Some(by) = key.withdrawn_by(&response.epochs.soft, &soft) {
        return Some(Invalid::Softened(by));
    }
    (!body::is_there(cache, response).await).then_some(Invalid::BodyGone)
}
