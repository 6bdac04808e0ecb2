//! Taking the lease on a fetch, or waiting for what the node stores that has it.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use super::body;
use super::candidates::{self, EpochsNow, decoded, variant_names};
use super::leases::{Lease, LeaseOutcome};
use super::miss::Miss;
use crate::cache::{Stored, Verdict};
use crate::store::{Cached, CachedEntry, CachedReply, Questions, budget};

/// The variant of what depends on no field, and of what nobody knows yet.
pub(super) const PLAIN: &str = "-";

/// The first pause between two looks at what the other one has stored; it doubles.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Who fetches for the fleet.
pub(super) enum Fetcher {
    /// This node.
    Us {
        /// None where the store is away, or another node took too long.
        lease: Option<Lease>,
        /// Whether it waited for another node, in vain.
        has_waited: bool,
    },
    /// Another node did, and this is what it stored.
    Other(Arc<Stored>),
}

/// Takes the lease on a fetch, or waits for what the node that has it stores, for `wait_max` at
/// most, and not at all soon after an outage of the store. `is_theirs`: another node had it a
/// moment ago, so there is no use in asking at once. Each variant has a lease of its own, and so
/// has what is read after a write: neither must wait for what it cannot use.
pub(super) async fn take(
    miss: &Miss,
    fields: &HeaderMap,
    is_theirs: bool,
    wait_max: Duration,
) -> Fetcher {
    let Miss { cache, key, variant, .. } = miss;
    let begun = Instant::now();
    let mut looks = Looks::begin(is_theirs);
    let mut variants = vec![PLAIN.to_owned()];
    if variant != PLAIN {
        variants.push(variant.clone());
    }
    let lock = key.key.lock(variant, &key.epochs);
    loop {
        looks.next(cache.timeout()).await;
        let lease = Lease::wanted(&cache.leases, lock.clone());
        let entry =
            CachedEntry { key: &key.key.entry, variants: &variants, lock: lease.question() };
        let cached = Some(Cached { epochs: &key.key.epochs, entry: Some(entry) });
        // Pending purges do not go first: what is found is not used while there are any.
        let answers = cache.store.ask(&Questions { cached, ..Questions::default() }).await;
        cache.note_outage(&answers);
        let Some(Ok(reply)) = answers.cached else {
            return Fetcher::Us { lease: None, has_waited: looks.have_waited() };
        };
        let outcome = lease.on_reply(reply.holder.as_deref());
        // Also with the lease in hand: the one who had it may have stored the response since this
        // request looked.
        let found = if cache.is_settled() {
            let found = fresh(miss, fields, reply, &variants).await;
            found.filter(|stored| miss.is_other(stored))
        } else {
            // What is stored may be what should have been purged.
            None
        };
        let is_theirs = matches!(outcome, LeaseOutcome::Theirs);
        let is_vain = begun.elapsed() >= wait_max || !cache.aftermath.trusts_leases();
        if found.is_some() || !is_theirs || is_vain {
            cache.metrics.cache_lease_wait.observe(begun.elapsed());
            let lease = match outcome {
                LeaseOutcome::Ours(lease) => Some(lease),
                // Nobody has it, where the store takes no writes.
                LeaseOutcome::Theirs | LeaseOutcome::Unknown => None,
            };
            let has_waited = looks.have_waited();
            return found.map_or(Fetcher::Us { lease, has_waited }, Fetcher::Other);
        }
        looks.are_vain_so_far();
    }
}

/// Looks at what another node has stored, one after the other.
#[derive(Debug)]
struct Looks {
    /// The one before the next look; none before the first where nobody is known to have the lease.
    pause: Option<Duration>,
    /// What the request had waited for the store before.
    spent: Duration,
}

impl Looks {
    fn begin(is_theirs: bool) -> Self {
        Self { pause: is_theirs.then_some(PAUSE), spent: budget::spent() }
    }

    /// Returns when it is time for the next look. Pause and look have one `store.timeout` together,
    /// so that a store that falls silent in a pause is not waited for on top of it.
    async fn next(&mut self, timeout: Duration) {
        let Some(pause) = &mut self.pause else { return };
        let jitter = pause.mul_f64(0.5 + fastrand::f64());
        tokio::time::sleep(jitter).await;
        *pause = (*pause * 2).min(PAUSE_MAX);
        budget::spend(jitter);
        budget::keep(timeout);
    }

    /// The store has answered, and the other node still fetches: this wait was for its upstream.
    fn are_vain_so_far(&mut self) {
        self.pause.get_or_insert(PAUSE);
        budget::cap(self.spent);
    }

    const fn have_waited(&self) -> bool {
        self.pause.is_some()
    }
}

/// What the store has now, if it answers the request as it is.
async fn fresh(
    miss: &Miss,
    fields: &HeaderMap,
    reply: CachedReply,
    asked: &[String],
) -> Option<Arc<Stored>> {
    let (cache, key) = (&miss.cache, &miss.key.key);
    let mut responses: Vec<_> = decoded(key, &reply.variants).collect();
    let mut others = variant_names(reply.vary.as_deref(), fields);
    others.retain(|name| !asked.contains(name));
    if !others.is_empty() {
        let values = cache.store.variants(&key.entry, &others).await.ok()?;
        responses.extend(decoded(key, &values));
    }
    let now = EpochsNow { key, origin: &miss.key.origin, epochs: &reply.epochs, tags: &[] };
    let valid = now.valid(cache, responses).await;
    match candidates::best(valid, fields, &miss.intent, cache.now_ms())? {
        // What has lost its body answers nobody, and is to be fetched in spite of its entry.
        (found, Verdict::Fresh { .. })
            if reply.based && body::is_there(cache, &found.response).await =>
        {
            cache.near.offer(key, &found.response, cache.now_ms());
            Some(found.response)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_and_its_look_take_one_timeout() {
        const TIMEOUT: Duration = Duration::from_millis(200);
        budget::scope(async {
            budget::spend(Duration::from_millis(20));
            let left = || budget::left(TIMEOUT);
            let mut looks = Looks::begin(false);
            let begun = Instant::now();
            looks.next(TIMEOUT).await;
            assert_eq!((begun.elapsed(), looks.have_waited()), (Duration::ZERO, false));
            for round in 0..12 {
                looks.are_vain_so_far();
                assert_eq!(left(), Duration::from_millis(180), "the store answers");
                let begun = Instant::now();
                looks.next(TIMEOUT).await;
                let whole = begun.elapsed() + left();
                let is_one = whole <= Duration::from_millis(181) && left() > Duration::ZERO;
                assert!(is_one, "{round}: {whole:?}, of which {:?} are left", left());
                assert!(looks.have_waited());
            }
            assert_eq!(looks.pause, Some(PAUSE_MAX));
            // A pause that is longer leaves time to ask.
            looks.next(Duration::from_millis(40)).await;
            assert_eq!(budget::left(Duration::from_millis(40)), Duration::from_millis(20));
        })
        .await;
    }
}
