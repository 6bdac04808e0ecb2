//! The task of one queue on one node: it takes what is due as far as there are places, keeps the
//! leases of what is under way, and pauses the queue where its destination fails.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, Ended};
use super::rate::{self, Charged, Granted, Owed};
use super::turn::Turns;
use crate::base::instance;
use crate::config::{QUEUE_SHARDS_MAX, Queue};
use crate::deliver::Streak;
use crate::plan::share;
use crate::runtime::{Gateway, QueueState, Running};
use crate::store::StoreError;
use crate::store::keys::QueueKeys;
use crate::store::queue::{After, Claim, Hold, Outcome, Pause, Settle, Take, Taken};

/// How often a queue is looked into that others may have filled, give or take a fifth.
const POLL: Duration = Duration::from_millis(250);
/// How long nothing is asked of a store that has not answered, or has lost the stream.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How often what waits is looked through: it lives 30 days from then on.
const REPAIR_INTERVAL: Duration = Duration::from_secs(20 * 60 * 60);
/// Where a node of the fleet has done that in this time, another one need not, such as one that
/// starts. Both together are less than the day that records live longer than they must.
const REPAIRED_LATELY: Duration = Duration::from_secs(60 * 60);

/// See the module.
pub(super) struct Worker {
    name: String,
    gateway: Weak<Gateway>,
    state: Arc<QueueState>,
    give_back: CancellationToken,
    flights: JoinSet<Ended>,
    /// What is known of each of them.
    holds: HashMap<Id, Held>,
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
}

impl Round {
    /// Most claims of the fleet in the shard at this place.
    fn in_flight(&self, keys: &QueueKeys) -> usize {
        let at = self.shards.iter().position(|it| it.shard == keys.shard).unwrap_or_default();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let most = share(self.queue.max_in_flight, count(self.shards.len()), count(at));
        usize::try_from(most).unwrap_or(usize::MAX)
    }
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
            if !takes && self.flights.is_empty() {
                self.owed.pay(&round.gateway).await;
                return;
            }
            if takes && Instant::now() >= self.take_at {
                self.take(&round).await;
            }
            if Instant::now() >= self.renew_at {
                self.renew(&round).await;
            }
            let next = if takes { self.take_at.min(self.renew_at) } else { self.renew_at };
            // Nobody keeps the gateway alive while he waits.
            drop(round);
            if !self.wait(next, takes).await {
                return;
            }
        }
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
        Some(Round { gateway, running, queue, shards })
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
                        Ok((id, ended)) => self.ended(id, &ended).await,
                        // It panicked, which nothing in it may do: its lease runs out.
                        Err(error) => drop(self.holds.remove(&error.id())),
                    }
                    next = self.flights.try_join_next_with_id();
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
        let shards = self.repaired(round, now).await;
        if shards.is_empty() {
            self.take_at = now + STORE_PAUSE;
            return;
        }
        let free = queue.concurrency.saturating_sub(self.flights.len());
        let most = self.streak.grant(free, self.flights.len());
        if most == 0 {
            return;
        }
        let Some(Granted { most, charged }) = self.granted(round, most).await else { return };
        let (mut taken, mut is_paused) = (0, false);
        for keys in &shards {
            self.turns.asked(keys.shard);
            let left = most - taken;
            let Some(more) = self.take_from(round, keys, left, charged.as_ref()).await else {
                is_paused = true;
                break;
            };
            taken += more;
            if taken >= most {
                self.take_at = Instant::now();
                break;
            }
        }
        self.owed.add(charged.as_ref(), most.saturating_sub(taken));
        self.owed.pay(gateway).await;
        if taken > 0 {
            self.found_none = false;
        } else if self.are_away(round, now) {
            self.take_at = now + STORE_PAUSE;
        } else if !is_paused {
            self.found_none = true;
        }
    }

    /// Whether none of the shards answers.
    fn are_away(&self, round: &Round, now: Instant) -> bool {
        round.shards.iter().all(|keys| self.turns.is_away(keys.shard, now))
    }

    /// Takes from one shard: how many. Nothing where the queue is paused.
    async fn take_from(
        &mut self,
        round: &Round,
        keys: &Arc<QueueKeys>,
        most: usize,
        charged: Option<&Arc<Charged>>,
    ) -> Option<usize> {
        let now = Instant::now();
        let known = self.turns.of(keys.shard, now);
        let sweep = now >= known.sweep_at;
        if sweep {
            known.sweep_at = now + round.queue.lease / 4;
        }
        let (node, in_flight) = (instance::unique(), round.in_flight(keys));
        let take = Take { node, most, in_flight, lease: round.queue.lease, sweep };
        let taken = round.gateway.store.queue_take(keys, take).await;
        self.taken(round, keys, taken, (sweep, charged))
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

    /// Begins what was taken of a shard: how many. Where nothing could be, waits; nothing where all
    /// are to wait.
    fn taken(
        &mut self,
        round: &Round,
        keys: &Arc<QueueKeys>,
        taken: Result<Taken, StoreError>,
        (sweep, charged): (bool, Option<&Arc<Charged>>),
    ) -> Option<usize> {
        let now = Instant::now();
        match taken {
            Err(error) => {
                let shard = keys.shard;
                tracing::debug!(queue = self.name, shard, %error, "nothing could be taken");
                self.turns.of(keys.shard, now).away_until = now + STORE_PAUSE;
                Some(0)
            }
            Ok(Taken::Paused(pause)) => {
                self.streak.paused();
                let left = pause.left.map_or(STORE_PAUSE, |left| left.min(STORE_PAUSE));
                self.take_at = now + left;
                self.paused_until = Some(self.take_at);
                None
            }
            Ok(Taken::Reset { put_back }) => {
                self.state.meter.resets.inc();
                tracing::warn!(
                    queue = self.name,
                    put_back,
                    "the store had lost the queue's stream"
                );
                self.turns.of(keys.shard, now).away_until = now + STORE_PAUSE;
                Some(0)
            }
            Ok(Taken::Items { claims, now_ms, next_ms }) => {
                if let Some(due_ms) = next_ms {
                    let due = Duration::from_millis(due_ms.saturating_sub(now_ms));
                    self.take_at = self.take_at.min(now + due);
                }
                let count = claims.len();
                for claim in claims {
                    self.begin((round, keys), claim, (now_ms, sweep), charged.cloned());
                }
                Some(count)
            }
        }
    }

    /// The shards whose turn it is. Of each, what a lost stream has taken along is put back at
    /// the start and once a day, so that what waits lives on. One that does not answer is left out.
    async fn repaired(&mut self, round: &Round, now: Instant) -> Vec<Arc<QueueKeys>> {
        let mut shards = Vec::with_capacity(round.shards.len());
        for keys in self.turns.order(&round.shards, now) {
            if now < self.turns.of(keys.shard, now).repair_at {
                shards.push(keys);
                continue;
            }
            let repair = round.gateway.store.queue_repair(&keys, REPAIRED_LATELY);
            let Ok(put_back) = repair.await else {
                self.turns.of(keys.shard, now).away_until = now + STORE_PAUSE;
                continue;
            };
            self.turns.of(keys.shard, now).repair_at = Instant::now() + REPAIR_INTERVAL;
            if put_back > 0 {
                self.state.meter.resets.inc();
                let name = &self.name;
                tracing::warn!(
                    queue = name,
                    put_back,
                    "what a lost stream had taken along is back"
                );
            }
            shards.push(keys);
        }
        shards
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
        };
        let id = self.flights.spawn(attempt.deliver(claim)).id();
        let (keys, pauses) = (Arc::clone(keys), self.pauses);
        self.holds.insert(id, Held { hold, keys, pauses, charged });
    }

    /// Keeps what is under way for another lease. Whatever was lost goes on, and is not settled:
    /// somebody else has it.
    async fn renew(&mut self, round: &Round) {
        self.renew_at = Instant::now() + round.queue.lease / 3;
        let mut shards: BTreeMap<u8, (&QueueKeys, Vec<&Hold>)> = BTreeMap::new();
        for Held { hold, keys, .. } in self.holds.values() {
            shards.entry(keys.shard).or_insert_with(|| (keys, Vec::new())).1.push(hold);
        }
        for (keys, holds) in shards.into_values() {
            if let Err(error) = round.gateway.store.queue_renew(keys, &holds).await {
                tracing::debug!(queue = self.name, %error, "leases could not be renewed");
                self.renew_at = Instant::now() + round.queue.lease / 10;
            }
        }
    }

    /// A delivery has ended: there is a place for the next one, unless its destination fails.
    async fn ended(&mut self, id: Id, ended: &Ended) {
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
            let _ = round.gateway.store.queue_pause(keys, &pause).await;
        }
    }

    /// Ends what is under way, and leaves it to others at once.
    async fn give_all_back(&mut self) {
        self.flights.abort_all();
        let Some(round) = self.round() else { return };
        for Held { hold, keys, .. } in std::mem::take(&mut self.holds).into_values() {
            let settle = Settle {
                hold: &hold,
                outcome: Outcome::Back { delay: Duration::ZERO },
                status: 0,
                error: "",
                answer: None,
                keep: round.queue.keep,
                // Nothing dies by this.
                dead_most: round.queue.max_dead,
                after: After::default(),
            };
            let _ = round.gateway.store.queue_settle(&keys, settle).await;
            self.state.meter.attempted("back", Duration::ZERO);
        }
    }
}
