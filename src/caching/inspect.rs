//! What is stored for a request, and whether it would still answer, for operators: by the same key
//! and the same epochs as a request's own lookup, and without a part in any.

use std::sync::Arc;

use bytes::Bytes;

use super::body;
use super::candidates::{EpochsNow, decoded};
use super::http_cache::HttpCache;
use super::lookup::{LookupRequest, find_near};
use super::route::{Origin, RouteCache};
use crate::cache::{CacheKey, Epochs, Stored, Withdrawn};
use crate::store::{Cached, CachedReply, Questions, StoreError};

/// Most variants that one look-up tells of, under however many keys it looks.
const VARIANTS_MAX: usize = 32;
/// What a look-up reads of variants before it stops, in bytes. A body of up to some 64 KiB lies
/// within its variant.
const READ_BYTES_MAX: usize = 1024 * 1024;
/// So many variants are read at a time.
const BATCH: usize = 8;

/// What one look-up may still read, under all the keys that it looks at.
#[derive(Debug)]
pub struct Allowance {
    variants: usize,
    bytes: usize,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { variants: VARIANTS_MAX, bytes: READ_BYTES_MAX }
    }
}

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
    /// The store does not say whether all of its body is there.
    BodyUnknown,
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
    left: &mut Allowance,
) -> Result<Inspection, StoreError> {
    let (near, key) = find_near(cache, route, request, true);
    let site = request.target.authority.site().into_owned();
    let origin = Origin { route: Arc::clone(route), scheme: request.client.scheme, site };
    let (values, mut has_more) = read(cache, &key.entry, left).await?;
    let cached = Some(Cached { epochs: &key.epochs, entry: None });
    let mut answers = cache.ask(&Questions { cached, ..Questions::default() }).await;
    let reply = answers.cached.take().unwrap_or(Err(StoreError::Unavailable))?;
    let copies = near.as_deref().map_or(&[][..], |entry| &entry.variants);
    // Of a copy whose like was not read nobody knows whether the store has it.
    let room = if has_more { 0 } else { left.variants };
    let (mut variants, are_left_out) = together(decoded(&key, &values).collect(), copies, room);
    let added = variants.iter().filter(|variant| !variant.is_in_store).count();
    left.variants = left.variants.saturating_sub(added);
    has_more |= are_left_out;
    for variant in &mut variants {
        variant.invalid = why(cache, (&key, &origin), &reply, &variant.response).await;
    }
    variants.sort_by_key(|variant| std::cmp::Reverse(variant.response.answered_ms));
    Ok(Inspection { variants, has_more, now_ms: cache.now_ms() })
}

/// What the store has under a key, as far as it may be read, and whether there is more.
async fn read(
    cache: &HttpCache,
    entry: &str,
    left: &mut Allowance,
) -> Result<(Vec<Option<Bytes>>, bool), StoreError> {
    let mut names = cache.store.variant_names(entry, left.variants + 1).await?;
    let mut has_more = names.len() > left.variants;
    names.truncate(left.variants);
    let mut values = Vec::with_capacity(names.len());
    for batch in names.chunks(BATCH) {
        if left.bytes == 0 {
            has_more = true;
            break;
        }
        let batch = cache.store.variants(entry, batch).await?;
        let bytes: usize = batch.iter().flatten().map(Bytes::len).sum();
        left.bytes = left.bytes.saturating_sub(bytes);
        values.extend(batch);
    }
    left.variants = left.variants.saturating_sub(values.len());
    Ok((values, has_more))
}

/// What the store has, and the copies that are here: `room` for so many that lie here alone. Also
/// says whether there are more of these.
fn together(
    stored: Vec<Arc<Stored>>,
    copies: &[Arc<Stored>],
    room: usize,
) -> (Vec<Inspected>, bool) {
    let of_store =
        |response| Inspected { response, is_near: false, is_in_store: true, invalid: None };
    let mut all: Vec<Inspected> = stored.into_iter().map(of_store).collect();
    let (mut room, mut are_left_out) = (room, false);
    for copy in copies {
        let is_same = |known: &&mut Inspected| {
            known.response.vary == copy.vary && known.response.answered_ms == copy.answered_ms
        };
        if let Some(known) = all.iter_mut().find(is_same) {
            known.is_near = true;
        } else if room == 0 {
            are_left_out = true;
        } else {
            room -= 1;
            let response = Arc::clone(copy);
            all.push(Inspected { response, is_near: true, is_in_store: false, invalid: None });
        }
    }
    (all, are_left_out)
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
    match body::seems_there(cache, response).await {
        Some(true) => None,
        Some(false) => Some(Invalid::BodyGone),
        None => Some(Invalid::BodyUnknown),
    }
}
