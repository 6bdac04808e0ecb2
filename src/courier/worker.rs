//! The task of one queue on one node: it takes what is due as far as there are places, keeps the
//! leases of what is under way, and pauses the queue where its destination fails.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, Ended};
use super::rate::{self, Charged, Granted, Owed};
use crate::base::instance;
use crate::config::Queue;
use crate::deliver::Streak;
use crate::runtime::{Gateway, QueueState, Running};
use crate::store::StoreError;
use crate::store::keys::QueueKeys;
use crate::store::queue::{After, Claim, Hold, Outcome, Pause, Settle, Take, Taken};

/// How often a queue is looked into that others may have filled, give or take a fifth.
const POLL: Duration = Duration::from_millis(250);
/// How long nothing is asked of a store that has not answered, or has lost the stream.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// The shard of a queue that has one.
const SHARD: u8 = 0;
/// How often what waits is looked through: it lives 30 days from then on.
const REPAIR_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

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
    sweep_at: Instant,
    repair_at: Instant,
}

/// A delivery that is under way.
struct Held {
    hold: Hold,
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
    keys: QueueKeys,
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
            sweep_at: now,
            repair_at: now,
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
    fn round(&self) -> Option<Round> {
        let gateway = self.gateway.upgrade()?;
        let running = gateway.running();
        let configured = running.plan.config.queues.get(&self.name).cloned();
        // Without its section, what is under way ends by the defaults.
        let gone = || Queue { concurrency: 0, ..Queue::default() };
        let queue = configured.unwrap_or_else(gone);
        let keys = running.plan.keys.queue(&self.name, SHARD);
        Some(Round { gateway, running, queue, keys })
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
        let Round { gateway, queue, keys, .. } = round;
        let now = Instant::now();
        self.take_at = now + POLL.mul_f64(0.8 + 0.4 * fastrand::f64());
        self.paused_until = None;
        if Instant::now() >= self.repair_at && !self.repair(round).await {
            self.take_at = now + STORE_PAUSE;
            return;
        }
        let free = queue.concurrency.saturating_sub(self.flights.len());
        let most = self.streak.grant(free, self.flights.len());
        if most == 0 {
            return;
        }
        let Some(Granted { most, charged }) = self.granted(round, most).await else { return };
        let sweep = now >= self.sweep_at;
        if sweep {
            self.sweep_at = now + queue.lease / 4;
        }
        let in_flight = usize::try_from(queue.max_in_flight).unwrap_or(usize::MAX);
        let node = instance::unique();
        let take = Take { node, most, in_flight, lease: queue.lease, sweep };
        let taken = gateway.store.queue_take(keys, take).await;
        let count = if let Ok(Taken::Items { claims, .. }) = &taken { claims.len() } else { 0 };
        self.owed.add(charged.as_ref(), most.saturating_sub(count));
        self.owed.pay(gateway).await;
        self.taken(round, taken, (most, sweep, now), charged.as_ref());
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

    /// Begins what was taken; where nothing could be, waits.
    fn taken(
        &mut self,
        round: &Round,
        taken: Result<Taken, StoreError>,
        (most, sweep, now): (usize, bool, Instant),
        charged: Option<&Arc<Charged>>,
    ) {
        match taken {
            Err(error) => {
                tracing::debug!(queue = self.name, %error, "nothing could be taken");
                self.take_at = now + STORE_PAUSE;
            }
            Ok(Taken::Paused(pause)) => {
                self.streak.paused();
                let left = pause.left.map_or(STORE_PAUSE, |left| left.min(STORE_PAUSE));
                self.take_at = Instant::now() + left;
                self.paused_until = Some(self.take_at);
            }
            Ok(Taken::Reset { put_back }) => {
                self.state.meter.resets.inc();
                tracing::warn!(
                    queue = self.name,
                    put_back,
                    "the store had lost the queue's stream"
                );
                self.take_at = now + STORE_PAUSE;
            }
            Ok(Taken::Items { claims, now_ms, next_ms }) => {
                self.found_none = claims.is_empty();
                if claims.len() == most {
                    self.take_at = Instant::now();
                } else if let Some(due_ms) = next_ms {
                    let due = Duration::from_millis(due_ms.saturating_sub(now_ms));
                    self.take_at = self.take_at.min(Instant::now() + due);
                }
                for claim in claims {
                    self.begin(round, claim, (now_ms, sweep), charged.cloned());
                }
            }
        }
    }

    /// Puts back what a lost stream has taken along, once a day in the fleet, and has what waits
    /// live on. False where the store did not answer.
    async fn repair(&mut self, round: &Round) -> bool {
        let Ok(put_back) = round.gateway.store.queue_repair(&round.keys, REPAIR_INTERVAL).await
        else {
            return false;
        };
        self.repair_at = Instant::now() + REPAIR_INTERVAL;
        if put_back > 0 {
            self.state.meter.resets.inc();
            let name = &self.name;
            tracing::warn!(queue = name, put_back, "what a lost stream had taken along is back");
        }
        true
    }

    fn begin(
        &mut self,
        round: &Round,
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
            keys: round.keys.clone(),
            began: Instant::now(),
            now_ms,
        };
        let id = self.flights.spawn(attempt.deliver(claim)).id();
        self.holds.insert(id, Held { hold, pauses: self.pauses, charged });
    }

    /// Keeps what is under way for another lease. Whatever was lost goes on, and is not settled:
    /// somebody else has it.
    async fn renew(&mut self, round: &Round) {
        self.renew_at = Instant::now() + round.queue.lease / 3;
        let holds: Vec<&Hold> = self.holds.values().map(|held| &held.hold).collect();
        if holds.is_empty() {
            return;
        }
        if let Err(error) = round.gateway.store.queue_renew(&round.keys, &holds).await {
            tracing::debug!(queue = self.name, %error, "leases could not be renewed");
            self.renew_at = Instant::now() + round.queue.lease / 10;
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
        let _ = round.gateway.store.queue_pause(&round.keys, &pause).await;
    }

    /// Ends what is under way, and leaves it to others at once.
    async fn give_all_back(&mut self) {
        self.flights.abort_all();
        let Some(round) = self.round() else { return };
        for Held { hold, .. } in std::mem::take(&mut self.holds).into_values() {
            let settle = Settle {
                hold: &hold,
                outcome: Outcome::Back { delay: Duration::ZERO },
                status: 0,
                error: "",
                answer: None,
                keep: round.queue.keep,
                dead_most: round.queue.max_dead,
                after: After::default(),
            };
            let _ = round.gateway.store.queue_settle(&round.keys, settle).await;
            self.state.meter.attempted("back", Duration::ZERO);
        }
    }
}
