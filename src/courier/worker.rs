//! The task of one queue on one node: it takes what is due as far as there are places, keeps the
//! leases of what is under way, and pauses the queue where its destination fails. It waits for no
//! shard that is silent while others answer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::asks::{Ask, Asked, Asks, Errands};
use super::attempt::{Attempt, Ended};
use super::back::Back;
use super::rate::{self, Charged, Granted, Owed};
use super::turn::Turns;
use crate::config::{QUEUE_SHARDS_MAX, Queue};
use crate::deliver::Streak;
use crate::plan::share;
use crate::runtime::{Gateway, QueueState, Running};
use crate::store::keys::QueueKeys;
use crate::store::queue::{Claim, Hold, Pause, Taken};

/// How often a queue is looked into that others may have filled, give or take a fifth.
const POLL: Duration = Duration::from_millis(250);
/// How long nothing is asked of a store that has not answered, or has lost the stream.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long all shards of a queue wait for the answer of one: most answer in a millisecond, and one
/// round trip is then for all places that have become free. Who answers later is heard then.
const ROUND: Duration = Duration::from_millis(20);
/// How often what waits is looked through: it lives 30 days from then on.
const REPAIR_INTERVAL: Duration = Duration::from_secs(20 * 60 * 60);

/// See the module.
pub(super) struct Worker {
    name: String,
    gateway: Weak<Gateway>,
    state: Arc<QueueState>,
    give_back: CancellationToken,
    flights: JoinSet<Ended>,
    /// What is known of each of them.
    holds: HashMap<Id, Held>,
    /// How many of them have their answer, and their shard is being told.
    settling: Arc<AtomicUsize>,
    /// Shards that are being asked.
    asks: Asks,
    errands: Errands,
    /// How often they were asked.
    rounds: u64,
    /// What the queue's rate is to get back.
    owed: Owed,
    /// Whether nothing was there when something was last to be taken.
    found_none: bool,
    streak: Streak,
    /// How often the queue was paused from here.
    pauses: u64,
    /// Nothing is taken before that.
    paused_until: Option<Instant>,
    take_at: Instant,
    renew_at: Instant,
    /// Whose turn it is among its shards.
    turns: Turns,
    /// Their keys, by the plan that they are of and the shards that it had beyond.
    known: Option<KnownShards>,
}

/// See [`Worker::known`].
type KnownShards = (Weak<Running>, u32, Arc<[Arc<QueueKeys>]>);

/// A delivery that is under way.
struct Held {
    hold: Hold,
    /// Of the shard that it lies in.
    keys: Arc<QueueKeys>,
    /// The pause of the queue that it began behind.
    pauses: u64,
    /// What it was charged to.
    charged: Option<Arc<Charged>>,
}

/// What one round goes by.
struct Round {
    gateway: Arc<Gateway>,
    running: Arc<Running>,
    queue: Queue,
    /// What is taken from: its shards, and those that it had once and that hold something yet.
    shards: Arc<[Arc<QueueKeys>]>,
    /// Leases since 1970: the same on all nodes.
    turn: u64,
}

impl Round {
    /// Most claims of the fleet in a shard.
    fn in_flight(&self, keys: &QueueKeys) -> usize {
        let at = self.shards.iter().position(|it| it.shard == keys.shard).unwrap_or_default();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let (shards, at) = (count(self.shards.len()), count(at));
        let most = in_flight(self.queue.max_in_flight, shards, (at, self.turn));
        usize::try_from(most).unwrap_or(usize::MAX)
    }
}

/// The part of a bound that the shard at this place has. Where there are more shards than that,
/// since the queue had more, they have one each in turn, so that all keep within it.
fn in_flight(most: u64, shards: u64, (at, turn): (u64, u64)) -> u64 {
    if most >= shards {
        return share(most, shards, at);
    }
    u64::from((at + turn % shards) % shards < most)
}

impl Worker {
    /// Of a queue of this name.
    pub(super) fn new(gateway: &Arc<Gateway>, name: &str) -> Self {
        let now = Instant::now();
        Self {
            name: name.to_owned(),
            gateway: Arc::downgrade(gateway),
            state: gateway.deliveries.queue(name),
            give_back: gateway.deliveries.give_back().clone(),
            flights: JoinSet::new(),
            holds: HashMap::new(),
            settling: Arc::default(),
            asks: Asks::default(),
            errands: Errands::default(),
            rounds: 0,
            owed: Owed::default(),
            found_none: false,
            streak: Streak::default(),
            pauses: 0,
            paused_until: None,
            take_at: now,
            renew_at: now,
            turns: Turns::default(),
            known: None,
        }
    }

    /// Delivers until the queue is configured no more, or the gateway drains, and all that was
    /// taken has ended.
    pub(super) async fn work(mut self) {
        while let Some(round) = self.round() {
            let takes = round.queue.concurrency > 0 && !round.gateway.is_draining();
            if !takes && self.is_over() {
                self.owed.pay(&round.gateway).await;
                return;
            }
            // First: what is under way must not be lost while a shard does not answer.
            if Instant::now() >= self.renew_at {
                self.renew(&round);
            }
            if takes && Instant::now() >= self.take_at {
                self.take(&round).await;
            }
            let next = if takes { self.take_at.min(self.renew_at) } else { self.renew_at };
            // Nobody keeps the gateway alive while he waits.
            drop(round);
            if !self.wait(next, takes).await {
                return;
            }
        }
    }

    /// Whether nothing is under way, and nobody is asked or told anything.
    fn is_over(&self) -> bool {
        self.flights.is_empty() && self.asks.is_empty() && self.errands.is_empty()
    }

    /// What holds now; nothing where the gateway is gone, or the queue is configured no more and
    /// nothing of it is under way.
    fn round(&mut self) -> Option<Round> {
        let gateway = self.gateway.upgrade()?;
        let running = gateway.running();
        let configured = running.plan.config.queues.get(&self.name).cloned();
        // Without its section, what is under way ends by the defaults.
        let gone = || Queue { concurrency: 0, ..Queue::default() };
        let queue = configured.unwrap_or_else(gone);
        let shards = self.shards(&running, queue.shards);
        let lease = queue.lease.as_secs().max(1);
        let turn = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let turn = turn.as_secs() / lease;
        Some(Round { gateway, running, queue, shards, turn })
    }

    /// The keys of the shards that are taken from.
    fn shards(&mut self, running: &Arc<Running>, shards: u8) -> Arc<[Arc<QueueKeys>]> {
        let beyond = self.state.beyond();
        if let Some((of, bits, known)) = &self.known
            && *bits == beyond
            && std::ptr::eq(of.as_ptr(), Arc::as_ptr(running))
        {
            return Arc::clone(known);
        }
        let is_meant = |shard: &u8| *shard < shards || beyond & (1 << *shard) != 0;
        let all = (0..QUEUE_SHARDS_MAX).filter(is_meant);
        let keys = all.map(|shard| Arc::new(running.plan.keys.queue(&self.name, shard)));
        let keys: Arc<[_]> = keys.collect();
        self.known = Some((Arc::downgrade(running), beyond, Arc::clone(&keys)));
        keys
    }

    /// Waits until there is something to do. False where all is given back.
    async fn wait(&mut self, next: Instant, takes: bool) -> bool {
        tokio::select! {
            () = self.give_back.cancelled() => {
                self.give_all_back().await;
                return false;
            }
            first = self.flights.join_next_with_id(), if !self.flights.is_empty() => {
                // All that have ended by now have their places filled by one take.
                let mut next = first;
                while let Some(ended) = next {
                    match ended {
                        Ok((id, ended)) => self.ended(id, &ended),
                        // It panicked, which nothing in it may do: its lease runs out.
                        Err(error) => drop(self.holds.remove(&error.id())),
                    }
                    next = self.flights.try_join_next_with_id();
                }
            }
            asked = self.asks.next(), if !self.asks.is_empty() => {
                if let Some(asked) = asked {
                    self.late_answer(asked);
                }
            }
            told = self.errands.next(), if !self.errands.is_empty() => {
                if let Some(Some(error)) = told
                    && let Some(round) = self.round()
                {
                    tracing::debug!(queue = self.name, %error, "leases could not be renewed");
                    let soon = Instant::now() + round.queue.lease / 10;
                    self.renew_at = self.renew_at.min(soon);
                }
            }
            () = self.state.wake.notified(), if takes => {
                self.take_at = self.paused_until.unwrap_or_else(Instant::now);
            }
            () = tokio::time::sleep_until(next) => {}
        }
        true
    }

    /// Takes what is due, as far as there are places for it.
    async fn take(&mut self, round: &Round) {
        let Round { gateway, queue, .. } = round;
        let now = Instant::now();
        self.take_at = now + POLL.mul_f64(0.8 + 0.4 * fastrand::f64());
        self.paused_until = None;
        // What waits for nothing but its shard has no place at its destination; as many at most.
        let settling = self.settling.load(Ordering::Relaxed).min(queue.concurrency);
        let in_progress = self.flights.len() + self.asks.places();
        let free = queue.concurrency.saturating_sub(in_progress.saturating_sub(settling));
        let most = self.streak.grant(free, in_progress);
        if most == 0 {
            // What came may be what one has looked for in vain.
            self.asks.note_more();
            return;
        }
        let mut shards = self.turns.order(&round.shards, now);
        shards.retain(|keys| round.in_flight(keys) > 0 && !self.asks.is_asked(keys.shard));
        // No place is kept for one that may be silent: whether it answers is seen without.
        let (silent, shards): (Vec<_>, Vec<_>) =
            shards.into_iter().partition(|keys| self.turns.of(keys.shard, now).is_silent);
        self.rounds += 1;
        silent.iter().for_each(|keys| self.ask(round, keys, (0, None)));
        if shards.is_empty() {
            self.take_at = if silent.is_empty() { self.take_at } else { now + STORE_PAUSE };
            return;
        }
        let Some(Granted { most, charged }) = self.granted(round, most).await else { return };
        let (taken, awaited) = self.take_from(round, &shards, most, charged.as_ref()).await;
        if taken >= most {
            self.take_at = Instant::now();
        }
        self.owed.add(charged.as_ref(), most.saturating_sub(taken + awaited));
        self.owed.pay(gateway).await;
        if taken > 0 {
            self.found_none = false;
            return;
        }
        if !self.rests(&shards) {
            self.found_none = true;
        }
    }

    /// Whether none of these shards can be asked now: then they are asked when one can be again.
    fn rests(&mut self, shards: &[Arc<QueueKeys>]) -> bool {
        let now = Instant::now();
        if !shards.iter().all(|keys| self.turns.is_idle(keys.shard, now)) {
            return false;
        }
        if let Some(until) = self.turns.paused_until(shards, now) {
            self.streak.paused();
            self.take_at = until;
            self.paused_until = Some(until);
        } else {
            self.take_at = now + STORE_PAUSE;
        }
        true
    }

    /// Takes from these shards, which are asked at once, each for its part: how many, and how many
    /// more those may hand out who have not answered yet. What one does not have is left to others.
    async fn take_from(
        &mut self,
        round: &Round,
        shards: &[Arc<QueueKeys>],
        most: usize,
        charged: Option<&Arc<Charged>>,
    ) -> (usize, usize) {
        let mut unasked: VecDeque<_> = shards.iter().cloned().collect();
        let (number, until) = (self.rounds, Instant::now() + ROUND);
        let (mut left, mut taken) = (most, 0);
        loop {
            while left > 0
                && let Some(keys) = unasked.pop_front()
            {
                let part = left.div_ceil(unasked.len() + 1);
                left -= part;
                self.turns.asked(keys.shard);
                self.ask(round, &keys, (part, charged));
            }
            let Some(awaited) = self.asks.places_of(number) else { return (taken, 0) };
            let Ok(Some(asked)) = timeout_at(until, self.asks.next()).await else {
                return (taken, awaited);
            };
            if asked.round != number {
                self.late_answer(asked);
                continue;
            }
            let (keys, most) = (Arc::clone(&asked.keys), asked.most);
            let more = self.answered(round, asked);
            taken += more;
            left += most.saturating_sub(more);
            if more > 0 && more >= most {
                // It may have more than its part.
                unasked.push_back(keys);
            }
        }
    }

    /// Asks a shard for so many, which are charged to this.
    fn ask(
        &mut self,
        round: &Round,
        keys: &Arc<QueueKeys>,
        (most, charged): (usize, Option<&Arc<Charged>>),
    ) {
        let now = Instant::now();
        let known = self.turns.of(keys.shard, now);
        let sweep = most > 0 && now >= known.sweep_at;
        if sweep {
            known.sweep_at = now + round.queue.lease / 4;
        }
        self.asks.begin(Ask {
            gateway: Arc::clone(&round.gateway),
            keys: Arc::clone(keys),
            most,
            in_flight: round.in_flight(keys),
            lease: round.queue.lease,
            sweep,
            repair: most > 0 && now >= known.repair_at,
            charged: charged.cloned(),
            // Nobody waits for one that is asked for nothing.
            round: if most > 0 { self.rounds } else { 0 },
        });
    }

    /// A shard has answered that nobody waits for any more.
    fn late_answer(&mut self, asked: Asked) {
        let Some(round) = self.round() else { return };
        if round.queue.concurrency == 0 || round.gateway.is_draining() {
            self.leave(&round, asked);
            return;
        }
        let paused_until = self.paused_until;
        let (most, shard, again) = (asked.most, asked.keys.shard, asked.again);
        let charged = asked.charged.clone();
        let more = self.answered(&round, asked);
        self.owed.add(charged.as_ref(), most.saturating_sub(more));
        if more > 0 {
            self.found_none = false;
        }
        // It may have more, or something that came since.
        let has_more = more > 0 || again || most == 0;
        let rests = self.rests(&round.shards);
        if !rests && has_more && !self.turns.is_idle(shard, Instant::now()) {
            self.take_at = self.take_at.min(Instant::now());
        }
        // A pause that this node has seen to holds, whatever a shard knows of it.
        if let Some(until) = paused_until {
            self.take_at = self.take_at.max(until);
            self.paused_until = Some(self.take_at);
        }
    }

    /// Leaves to others what was handed out for a queue that is delivered here no more.
    fn leave(&mut self, round: &Round, asked: Asked) {
        let Asked { keys, most, charged, taken, .. } = asked;
        self.owed.add(charged.as_ref(), most);
        if let Ok(Taken::Items { claims, .. }) = taken {
            for claim in claims {
                let back = Back::of((&round.gateway, &round.queue), &self.state, &keys);
                self.errands.give_back(back.settle(claim.hold));
            }
        }
    }

    /// How many of these may be taken now, where the queue has a rate.
    async fn granted(&mut self, round: &Round, most: usize) -> Option<Granted> {
        let Some(rate) = round.queue.rate else { return Some(Granted::all(most)) };
        self.owed.pay(&round.gateway).await;
        // Whoever finds nothing has all that he was granted for nothing, until he gives it back.
        let most = if self.found_none { 1 } else { most };
        let keys = &round.running.plan.keys;
        match rate::charge(&round.gateway, keys, (&self.name, rate), most).await {
            Ok(granted) => Some(granted),
            Err(pause) => {
                self.take_at = Instant::now() + pause;
                self.paused_until = Some(self.take_at);
                None
            }
        }
    }

    /// Begins what a shard has handed out: how many. Where nothing could be, it is left alone for a
    /// while.
    fn answered(&mut self, round: &Round, asked: Asked) -> usize {
        let Asked { keys, sweep, charged, put_back, taken, .. } = asked;
        if let Some(put_back) = put_back {
            self.repaired(keys.shard, put_back);
        }
        let now = Instant::now();
        self.turns.of(keys.shard, now).is_silent = taken.is_err();
        match taken {
            Err(error) => {
                let shard = keys.shard;
                tracing::debug!(queue = self.name, shard, %error, "nothing could be taken");
                self.turns.of(keys.shard, now).away_until = now + STORE_PAUSE;
                0
            }
            Ok(Taken::Paused(pause)) => {
                let left = pause.left.map_or(STORE_PAUSE, |left| left.min(STORE_PAUSE));
                self.turns.of(keys.shard, now).paused_until = now + left;
                0
            }
            Ok(Taken::Reset { put_back }) => {
                self.state.meter.resets.inc();
                tracing::warn!(
                    queue = self.name,
                    put_back,
                    "the store had lost the queue's stream"
                );
                self.turns.of(keys.shard, now).away_until = now + STORE_PAUSE;
                0
            }
            Ok(Taken::Items { claims, now_ms, next_ms }) => {
                if let Some(due_ms) = next_ms {
                    let due = Duration::from_millis(due_ms.saturating_sub(now_ms));
                    self.take_at = self.take_at.min(now + due);
                }
                let count = claims.len();
                for claim in claims {
                    self.begin((round, &keys), claim, (now_ms, sweep), charged.clone());
                }
                count
            }
        }
    }

    /// What a lost stream of a shard had taken along was put back.
    fn repaired(&mut self, shard: u8, put_back: u64) {
        let now = Instant::now();
        self.turns.of(shard, now).repair_at = now + REPAIR_INTERVAL;
        if put_back > 0 {
            self.state.meter.resets.inc();
            let name = &self.name;
            tracing::warn!(queue = name, put_back, "what a lost stream had taken along is back");
        }
    }

    fn begin(
        &mut self,
        (round, keys): (&Round, &Arc<QueueKeys>),
        claim: Claim,
        (now_ms, sweep): (u64, bool),
        charged: Option<Arc<Charged>>,
    ) {
        if sweep && claim.stalls > 0 {
            self.state.meter.stalled.inc();
        }
        if self.flights.is_empty() {
            self.renew_at = Instant::now() + round.queue.lease / 3;
        }
        let hold = claim.hold.clone();
        let attempt = Attempt {
            gateway: Arc::clone(&round.gateway),
            running: Arc::clone(&round.running),
            state: Arc::clone(&self.state),
            name: self.name.clone(),
            queue: round.queue.clone(),
            keys: Arc::clone(keys),
            began: Instant::now(),
            now_ms,
            settling: Arc::clone(&self.settling),
        };
        let id = self.flights.spawn(attempt.deliver(claim)).id();
        let (keys, pauses) = (Arc::clone(keys), self.pauses);
        self.holds.insert(id, Held { hold, keys, pauses, charged });
    }

    /// Keeps what is under way for another lease. Whatever was lost goes on, and is not settled:
    /// somebody else has it.
    fn renew(&mut self, round: &Round) {
        self.renew_at = Instant::now() + round.queue.lease / 3;
        let mut shards: BTreeMap<u8, (Arc<QueueKeys>, Vec<Hold>)> = BTreeMap::new();
        for Held { hold, keys, .. } in self.holds.values() {
            let of = shards.entry(keys.shard).or_insert_with(|| (Arc::clone(keys), Vec::new()));
            of.1.push(hold.clone());
        }
        for (keys, holds) in shards.into_values() {
            self.errands.renew(&round.gateway, &keys, holds);
        }
    }

    /// A delivery has ended: there is a place for the next one, unless its destination fails.
    fn ended(&mut self, id: Id, ended: &Ended) {
        let held = self.holds.remove(&id);
        self.take_at = self.paused_until.unwrap_or_else(Instant::now);
        let Some(answered) = ended.answered else {
            // Nothing was sent.
            self.owed.add(held.as_ref().and_then(|held| held.charged.as_ref()), 1);
            if let Some(pause) = ended.asked {
                self.take_at = Instant::now() + pause;
                self.paused_until = Some(self.take_at);
            }
            return;
        };
        // What began before the queue paused says nothing of its destination after that.
        if held.map(|held| held.pauses) != Some(self.pauses) {
            return;
        }
        let Some(pause) = self.streak.note(answered, ended.asked, fastrand::f64()) else { return };
        self.pauses += 1;
        self.take_at = Instant::now() + pause;
        self.paused_until = Some(self.take_at);
        let Some(round) = self.round() else { return };
        let pause = Pause { why: ended.why.to_owned(), left: Some(pause) };
        tracing::info!(queue = self.name, why = ended.why, pause = ?pause.left, "the queue pauses");
        for keys in round.shards.iter() {
            self.errands.pause(&round.gateway, keys, pause.clone());
        }
    }

    /// Ends what is under way, and leaves it to others at once: also what is handed out yet. A
    /// silent shard holds up none of the others.
    async fn give_all_back(&mut self) {
        self.flights.abort_all();
        let Some(round) = self.round() else { return };
        let held = std::mem::take(&mut self.holds).into_values();
        let back = |keys: &Arc<QueueKeys>, hold| {
            Back::of((&round.gateway, &round.queue), &self.state, keys).settle(hold)
        };
        let under_way = join_all(held.map(|Held { hold, keys, .. }| back(&keys, hold)));
        let (asks, owed) = (&mut self.asks, &mut self.owed);
        let handed_out = async {
            while let Some(Asked { keys, most, charged, taken, .. }) = asks.next().await {
                owed.add(charged.as_ref(), most);
                let Ok(Taken::Items { claims, .. }) = taken else { continue };
                join_all(claims.into_iter().map(|claim| back(&keys, claim.hold))).await;
            }
        };
        tokio::join!(under_way, handed_out);
        self.owed.pay(&round.gateway).await;
    }
}

#[cfg(test)]
mod tests {
    use super::in_flight;

    #[test]
    fn shards_keep_within_the_bound_together_and_each_has_its_turn() {
        for (most, shards) in [(1, 4), (3, 4), (4, 4), (9, 4), (1, 1), (5, 16)] {
            let mut had = vec![0; 16];
            for turn in 0..shards {
                let all: Vec<u64> =
                    (0..shards).map(|at| in_flight(most, shards, (at, turn))).collect();
                assert_eq!(all.iter().sum::<u64>(), most, "{most} of {shards}: {all:?}");
                all.iter().zip(&mut had).for_each(|(it, had)| *had += it);
            }
            assert!(had.iter().take(shards as usize).all(|had| *had > 0), "{had:?}");
        }
    }
}
