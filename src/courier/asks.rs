//! What the shards of a queue are asked beside one another, so that one which does not answer holds
//! up none of the others: to hand out what is due, to keep what is under way, to pause.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::rate::Charged;
use crate::base::instance;
use crate::runtime::Gateway;
use crate::store::StoreError;
use crate::store::keys::QueueKeys;
use crate::store::queue::{Hold, Pause, Take, Taken};

/// Where a node of the fleet has looked through what waits in this time, another one need not, such
/// as one that starts. With how often it is done, that is less than the day that records live
/// longer than they must.
const REPAIRED_LATELY: Duration = Duration::from_secs(60 * 60);

/// A shard that is asked for what is due.
pub(super) struct Ask {
    pub(super) gateway: Arc<Gateway>,
    pub(super) keys: Arc<QueueKeys>,
    /// Most items; none only to see whether it answers.
    pub(super) most: usize,
    /// Most claims of the fleet in it.
    pub(super) in_flight: usize,
    pub(super) lease: Duration,
    /// Whether to look for claims of holders that have gone.
    pub(super) sweep: bool,
    /// Whether what a lost stream has taken along is put back first, so that what waits lives on:
    /// once a day in the fleet.
    pub(super) repair: bool,
    /// What these items are charged to.
    pub(super) charged: Option<Arc<Charged>>,
    /// The round of its worker that it is part of.
    pub(super) round: u64,
}

/// A shard that has answered, or has not in time.
pub(super) struct Asked {
    pub(super) keys: Arc<QueueKeys>,
    pub(super) most: usize,
    pub(super) sweep: bool,
    pub(super) charged: Option<Arc<Charged>>,
    pub(super) round: u64,
    /// What was put back of a lost stream, where that was looked for.
    pub(super) put_back: Option<u64>,
    pub(super) taken: Result<Taken, StoreError>,
    /// Whether somebody wanted it asked meanwhile: it may have got something since it was.
    pub(super) again: bool,
}

impl Ask {
    async fn ask(self) -> Asked {
        let Self { gateway, keys, most, in_flight, lease, sweep, repair, charged, round } = self;
        let (mut put_back, store) = (None, &gateway.store);
        let repaired = if repair {
            store.queue_repair(&keys, REPAIRED_LATELY).await.map(Some)
        } else {
            Ok(None)
        };
        let taken = match repaired {
            Ok(count) => {
                put_back = count;
                let take = Take { node: instance::unique(), most, in_flight, lease, sweep };
                store.queue_take(&keys, take).await
            }
            Err(error) => Err(error),
        };
        Asked { keys, most, sweep, charged, round, put_back, taken, again: false }
    }
}

/// The shards that are being asked for what is due. Each is asked once at a time.
#[derive(Default)]
pub(super) struct Asks {
    under_way: FuturesUnordered<BoxFuture<'static, Asked>>,
    known: BTreeMap<u8, Known>,
}

/// What is known of a question that is under way.
struct Known {
    most: usize,
    round: u64,
    again: bool,
}

impl Asks {
    /// Asks one that is not being asked.
    pub(super) fn begin(&mut self, ask: Ask) {
        let known = Known { most: ask.most, round: ask.round, again: false };
        self.known.insert(ask.keys.shard, known);
        self.under_way.push(ask.ask().boxed());
    }

    /// Whether this shard is being asked. Then what it has got since counts as not seen.
    pub(super) fn is_asked(&mut self, shard: u8) -> bool {
        let known = self.known.get_mut(&shard);
        known.map(|known| known.again = true).is_some()
    }

    /// There is more than those who are being asked may have seen.
    pub(super) fn note_more(&mut self) {
        self.known.values_mut().for_each(|known| known.again = true);
    }

    /// Whether all have answered.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Places that are kept for what they hand out.
    pub(super) fn places(&self) -> usize {
        self.known.values().map(|known| known.most).sum()
    }

    /// The same, of one round alone; nothing where all of that have answered.
    pub(super) fn places_of(&self, round: u64) -> Option<usize> {
        let mut of = self.known.values().filter(|known| known.round == round).peekable();
        of.peek()?;
        Some(of.map(|known| known.most).sum())
    }

    /// The next answer; nothing where nobody is asked. May be dropped without losing one.
    pub(super) async fn next(&mut self) -> Option<Asked> {
        let asked = self.under_way.next().await?;
        let known = self.known.remove(&asked.keys.shard);
        Some(Asked { again: known.is_some_and(|known| known.again), ..asked })
    }
}

/// What shards are told of, by the number of the shard where that is a renewal, and whether they
/// have answered.
type Told = (Option<u8>, Result<(), StoreError>);

/// What the shards of a queue are told meanwhile.
#[derive(Default)]
pub(super) struct Errands {
    under_way: FuturesUnordered<BoxFuture<'static, Told>>,
    renewing: BTreeSet<u8>,
}

impl Errands {
    /// Keeps what is under way in a shard for another lease, unless that is being done.
    pub(super) fn renew(
        &mut self,
        gateway: &Arc<Gateway>,
        keys: &Arc<QueueKeys>,
        holds: Vec<Hold>,
    ) {
        let shard = keys.shard;
        if !self.renewing.insert(shard) {
            return;
        }
        let (gateway, keys) = (Arc::clone(gateway), Arc::clone(keys));
        let renew = async move {
            let holds: Vec<&Hold> = holds.iter().collect();
            let renewed = gateway.store.queue_renew(&keys, &holds).await;
            (Some(shard), renewed.map(drop))
        };
        self.under_way.push(renew.boxed());
    }

    /// Pauses a shard.
    pub(super) fn pause(&mut self, gateway: &Arc<Gateway>, keys: &Arc<QueueKeys>, pause: Pause) {
        let (gateway, keys) = (Arc::clone(gateway), Arc::clone(keys));
        let paused =
            async move { (None, gateway.store.queue_pause(&keys, &pause).await.map(drop)) };
        self.under_way.push(paused.boxed());
    }

    /// Leaves a delivery to others.
    pub(super) fn give_back(&mut self, back: impl Future<Output = ()> + Send + 'static) {
        self.under_way.push(back.map(|()| (None, Ok(()))).boxed());
    }

    /// Whether all have answered.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The next answer: whether it is about a renewal that has failed. Nothing where nobody is
    /// told anything. May be dropped without losing one.
    pub(super) async fn next(&mut self) -> Option<Option<StoreError>> {
        let (shard, told) = self.under_way.next().await?;
        let is_renewal = shard.is_some_and(|shard| self.renewing.remove(&shard));
        Some(told.err().filter(|_| is_renewal))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::pending;

    use super::*;
    use crate::store::keys::Keys;

    /// A shard that is asked in a round for so many: it answers at once, or never.
    fn asked(asks: &mut Asks, (shard, round, most): (u8, u64, usize), answers: bool) {
        let keys = Arc::new(Keys::new("app").queue("mail", shard));
        asks.known.insert(shard, Known { most, round, again: false });
        let answer = async move {
            if !answers {
                pending::<()>().await;
            }
            let taken = Err(StoreError::Timeout);
            let (sweep, charged, put_back, again) = (false, None, None, false);
            Asked { keys, most, sweep, charged, round, put_back, taken, again }
        };
        asks.under_way.push(answer.boxed());
    }

    #[tokio::test]
    async fn a_silent_shard_keeps_its_own_places_alone() {
        let mut asks = Asks::default();
        asked(&mut asks, (0, 1, 5), false);
        asked(&mut asks, (1, 1, 3), true);
        asked(&mut asks, (2, 2, 2), true);
        assert_eq!((asks.places(), asks.places_of(1), asks.places_of(2)), (10, Some(8), Some(2)));
        let mut answered = [asks.next().await, asks.next().await];
        answered.sort_by_key(|asked| asked.as_ref().map(|asked| asked.keys.shard));
        let shards = answered.map(|asked| asked.map(|asked| (asked.keys.shard, asked.most)));
        assert_eq!(shards, [Some((1, 3)), Some((2, 2))]);
        assert_eq!((asks.places(), asks.places_of(1), asks.places_of(2)), (5, Some(5), None));
        assert!(asks.next().now_or_never().is_none(), "the silent one still is asked");
        assert!(!asks.is_empty());
    }

    #[tokio::test]
    async fn who_got_something_while_he_was_asked_is_asked_again() {
        let mut asks = Asks::default();
        assert!(!asks.is_asked(0));
        asked(&mut asks, (0, 1, 1), true);
        asked(&mut asks, (1, 1, 1), true);
        assert!(asks.is_asked(1));
        let mut again = [asks.next().await, asks.next().await]
            .map(|asked| asked.map(|asked| (asked.keys.shard, asked.again)));
        again.sort();
        assert_eq!(again, [Some((0, false)), Some((1, true))]);
        assert!(!asks.is_asked(1) && asks.is_empty());
        asked(&mut asks, (0, 2, 1), true);
        asks.note_more();
        assert!(asks.next().await.is_some_and(|asked| asked.again));
        assert!(asks.next().await.is_none());
    }
}
