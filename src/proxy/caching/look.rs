//! What the store has of a response, and whether it is still what it was.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

use super::fetch::Fetch;
use super::keep::{Origin, Site, join};
use super::lease::{Lease, Turn};
use super::{Errand, PLAIN, respond};
use crate::cache::{self, Epochs, Intent, Place, Stored, Verdict};
use crate::runtime::Gateway;
use crate::store::{Cached, CachedEntry, CachedReply, Epoch, Questions};

/// The first pause between two looks at what the other one has stored; it doubles.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// A stored response that is valid by the epochs of now.
#[derive(Debug, Clone)]
pub(super) struct Valid {
    pub(super) stored: Arc<Stored>,
    /// A soft purge made it stale.
    pub(super) purged: bool,
}

/// The one of several stored responses that serves a request best, and what it is worth.
pub(super) fn best(
    valid: Vec<Valid>,
    fields: &HeaderMap,
    intent: &Intent,
    now_ms: u64,
) -> Option<(Valid, Verdict)> {
    let judged = valid.into_iter().map(|valid| {
        let verdict = cache::judge(&valid.stored, fields, intent, valid.purged, now_ms);
        (valid, verdict)
    });
    // Of several that fit, the newest (RFC 9111 §4.1).
    judged.max_by_key(|(valid, verdict)| (rank(*verdict), valid.stored.answered_ms))
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
pub(super) fn names(vary: Option<&[u8]>, fields: &HeaderMap) -> Vec<String> {
    let mut names = Vec::with_capacity(1);
    for set in cache::vary_lines(vary.unwrap_or_default()) {
        let name = cache::variant_name(&set, fields);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The stored responses among these bytes: those that are whole, and of this place.
pub(super) fn decoded<'a>(
    place: &'a Place,
    values: &'a [Option<Bytes>],
) -> impl Iterator<Item = Arc<Stored>> + 'a {
    let stored = values.iter().flatten().filter_map(Stored::decode);
    stored.filter(|stored| stored.key == place.entry).map(Arc::new)
}

/// Those whose epochs are those of now. The epochs of tags are asked for where they are not among
/// `known`, the answers to this request's own question.
pub(super) async fn valid(
    gateway: &Gateway,
    (place, origin): (&Place, &Origin),
    epochs: &[Epoch],
    known: &[(String, Epoch)],
    candidates: Vec<Arc<Stored>>,
) -> Vec<Valid> {
    let mut valid = Vec::with_capacity(candidates.len());
    for stored in candidates {
        let keys = origin.epochs(&stored);
        let tags =
            if keys.is_empty() { Some(Vec::new()) } else { tags(gateway, &keys, known).await };
        let Some(tags) = tags else { continue };
        let Epochs { hard, soft } = join(place, epochs, &tags);
        if stored.epochs.hard == hard {
            let purged = stored.epochs.soft != soft;
            valid.push(Valid { stored, purged });
        }
    }
    valid
}

async fn tags(gateway: &Gateway, keys: &[String], known: &[(String, Epoch)]) -> Option<Vec<Epoch>> {
    let find = |key: &String| known.iter().find(|(name, _)| name == key).map(|(_, epoch)| *epoch);
    let found: Option<Vec<Epoch>> = keys.iter().map(find).collect();
    match found {
        Some(found) => Some(found),
        None => gateway.store.epochs(keys).await.ok(),
    }
}

/// Who fetches for the fleet.
pub(super) enum Leased {
    /// This node; without a lease where the store is away, or another node took too long. With
    /// whether it waited for another one, in vain.
    Ours(Option<Lease>, bool),
    /// Another node did.
    Theirs(Arc<Stored>),
}

/// Takes the lease on a fetch, or waits for what the node that has it stores. Each variant has a
/// lease of its own, and so has what is read after a write: neither must wait for what it cannot
/// use.
pub(super) async fn lease(fetch: &Fetch, turn: Turn, wait_max: Duration) -> Leased {
    let Fetch { gateway, fields, .. } = fetch;
    let Errand { site, intent, variant, .. } = &*fetch.errand;
    let begun = Instant::now();
    // Who has just heard that another node fetches need not ask at once.
    let mut pause = matches!(turn, Turn::Theirs).then_some(PAUSE);
    let mut variants = vec![PLAIN.to_owned()];
    if variant != PLAIN {
        variants.push(variant.clone());
    }
    let key = site.place.lock(variant, &site.epochs);
    loop {
        if let Some(pause) = &mut pause {
            let jitter = pause.mul_f64(0.5 + fastrand::f64());
            tokio::time::sleep(jitter).await;
            *pause = (*pause * 2).min(PAUSE_MAX);
        }
        let lease = Lease::wanted(gateway, key.clone());
        let entry =
            CachedEntry { key: &site.place.entry, variants: &variants, lock: lease.question() };
        let cached = Some(Cached { epochs: &site.place.epochs, entry: Some(entry) });
        let answers = gateway.store.ask(&Questions { cached, ..Questions::default() }).await;
        let Some(Ok(reply)) = answers.cached else { return Leased::Ours(None, pause.is_some()) };
        let turn = lease.heard(reply.holder.as_deref());
        // Also with the lease in hand: the one who had it may have stored the response since this
        // request looked.
        let found = if gateway.is_settled() {
            let found = fresh(gateway, site, reply, (fields, intent, &variants)).await;
            found.filter(|stored| fetch.errand.is_news(stored))
        } else {
            // What is stored may be what should have been made stale.
            None
        };
        let waits = found.is_none() && matches!(turn, Turn::Theirs) && begun.elapsed() < wait_max;
        if !waits {
            gateway.observer.metrics.cache_lease_wait.observe(begun.elapsed());
            let lease = match turn {
                Turn::Ours(lease) => Some(lease),
                // Nobody has it, where the store takes no writes.
                Turn::Theirs | Turn::Unknown => None,
            };
            return found.map_or(Leased::Ours(lease, pause.is_some()), Leased::Theirs);
        }
        pause.get_or_insert(PAUSE);
    }
}

/// What the store has now, if it answers the request as it is.
async fn fresh(
    gateway: &Arc<Gateway>,
    site: &Site,
    reply: CachedReply,
    (fields, intent, asked): (&HeaderMap, &Intent, &[String]),
) -> Option<Arc<Stored>> {
    let place = &site.place;
    let mut candidates: Vec<_> = decoded(place, &reply.variants).collect();
    let mut others = names(reply.vary.as_deref(), fields);
    others.retain(|name| !asked.contains(name));
    if !others.is_empty() {
        let values = gateway.store.variants(&place.entry, &others).await.ok()?;
        candidates.extend(decoded(place, &values));
    }
    let at = (&**place, &*site.origin);
    let valid = valid(gateway, at, &reply.epochs, &[], candidates).await;
    match best(valid, fields, intent, gateway.now_ms())? {
        // What has lost its body answers nobody, and is to be fetched in spite of its entry.
        (valid, Verdict::Fresh { .. })
            if reply.based && respond::is_there(gateway, &valid.stored).await =>
        {
            gateway.near.offer(place, &valid.stored, gateway.now_ms());
            Some(valid.stored)
        }
        _ => None,
    }
}
