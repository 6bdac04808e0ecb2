//! The limiter of one gateway: its counters, and what it tells the store beside a request's own
//! question. That is never waited for by a request: corrections of charges, renewals of the leases
//! of long requests, and slots that are given back.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::counters::{Counters, Usage};
use super::exceeded::Exceeded;
use super::notes::LimitNotes;
use super::receipt::Correction;
use super::releases::{self, Releases};
use super::slot_check::SlotCheck;
use super::slots::{HeldSlots, LeaseRenewal};
use super::stand_in::{Debt, StandIn};
use super::state::State;
use crate::background::Background;
use crate::base::instance;
use crate::config::{self, LimitOutage, StoreUse};
use crate::observe::Metrics;
use crate::store::keys::Keys;
use crate::store::{
    LeaseReply, Leases, LineageChange, LineageChanges, Loss, Release, Reply, Store, StoreError,
};

/// How often leases are looked at; the shortest lease is five times as long.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
/// Most renewals that wait for the store at a time.
const RENEWALS_MAX: usize = 64;
/// How often a gateway says that it is there.
const ANNOUNCED_EVERY: Duration = Duration::from_secs(2);
/// How long it counts after that.
const ANNOUNCED_FOR: Duration = Duration::from_secs(10);
/// How many keys the store is told of at once after an outage.
const SETTLED_AT_ONCE: usize = 32;
/// How many keys are looked at while no request counts.
const OWED_AT_ONCE: usize = 1000;
/// How many until the next look, for the store's sake.
const SETTLED_PER_LOOK: usize = 5000;

/// See the module.
#[derive(Debug)]
pub struct Limiter {
    /// What this node alone knows.
    pub state: State,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    background: Background,
    releases: Arc<Releases>,
}

impl Limiter {
    /// Nothing counted yet; at most `store.memory_limit_keys` while the store is away. Leases are
    /// renewed, slots given back, the store told of what it missed and that this gateway is there,
    /// until the limiter is dropped.
    pub fn open(
        settings: &config::Store,
        store: &Arc<Store>,
        metrics: &Arc<Metrics>,
        background: &Background,
    ) -> Arc<Self> {
        let limiter = Arc::new(Self {
            state: State::new(settings.memory_limit_keys, store.is_shared(StoreUse::Limits)),
            store: Arc::clone(store),
            metrics: Arc::clone(metrics),
            background: background.clone(),
            releases: Arc::default(),
        });
        tokio::spawn(renew_leases(Arc::downgrade(&limiter)));
        tokio::spawn(send_releases(Arc::downgrade(&limiter), Arc::clone(&limiter.releases)));
        // Those that share the main store also repair together what it loses.
        if store.is_shared(StoreUse::Main) || store.is_shared(StoreUse::Limits) {
            let gateways = Keys::new(&settings.prefix).gateways();
            tokio::spawn(announce(Arc::downgrade(&limiter), gateways));
        }
        if store.is_shared(StoreUse::Limits) {
            tokio::spawn(reconcile(Arc::downgrade(&limiter)));
        }
        if let Some(changes) = store.lineage_changes() {
            tokio::spawn(owe_what_is_lost(Arc::downgrade(&limiter), changes));
        }
        limiter
    }

    /// Gives back the slots of `check` if its request ends before it is admitted, and what it was
    /// admitted to when it ends.
    pub fn guard(self: &Arc<Self>, check: &SlotCheck<'_>) -> SlotGuard {
        SlotGuard { limiter: Arc::clone(self), held: check.held() }
    }

    /// Gives back or charges what a request turned out to cost, in the background.
    pub fn correct(self: &Arc<Self>, correction: Option<Correction>) {
        let Some(correction) = correction else { return };
        let limiter = Arc::clone(self);
        self.background.spawn("limits", async move {
            correction.carry_out(&limiter.store, &limiter.state).await
        });
    }

    /// The same at once; in the background where the request has no time left for it. What the
    /// store does not take is counted and not tried again.
    pub async fn correct_now(self: &Arc<Self>, correction: Correction) {
        match correction.carry_out(&self.store, &self.state).await {
            Ok(()) => {}
            Err(StoreError::NotAsked) => {
                let limiter = Arc::clone(self);
                self.background
                    .spawn("limits", async move { correction.give_back(&limiter.store).await });
            }
            Err(_) => self.metrics.store_failed("limits"),
        }
    }

    /// What this node counted for these keys in the store's place, where the store can be told. It
    /// is taken for told, so it must be given to [`Self::pay`].
    pub fn debt(&self, keys: &[String]) -> Option<Debt> {
        let stand_in = &self.state.stand_in;
        let can_pay = stand_in.owes() && self.store.is_connected(StoreUse::Limits);
        if can_pay { stand_in.debt(keys) } else { None }
    }

    /// Tells the store what was counted in its place. What does not reach it is owed on; what it
    /// does not answer is not, because it may be carried out yet.
    pub async fn pay(&self, debt: Debt) {
        let mut owing = Owing { stand_in: &self.state.stand_in, debt: Some(debt) };
        let Some(debt) = &owing.debt else { return };
        match self.store.take(debt.charges()).await {
            Ok(_) => {
                self.metrics.limit_reconciled_units.inc_by(debt.units());
                owing.debt = None;
            }
            Err(error) if error.is_undone() => {}
            Err(_) => {
                self.metrics.store_failed("limits");
                owing.debt = None;
            }
        }
    }

    /// The same of keys that nobody asks for.
    async fn pay_all(&self) {
        let debtors = self.state.stand_in.debtors(SETTLED_PER_LOOK);
        for some in debtors.chunks(SETTLED_AT_ONCE) {
            if !self.store.is_connected(StoreUse::Limits) {
                return;
            }
            // Each for itself: they may lie on different servers, of which one is away.
            let debts = some.iter().filter_map(|key| self.debt(std::slice::from_ref(key)));
            join_all(debts.map(|debt| self.pay(debt))).await;
        }
    }

    /// Sends what is still to be given back, for `limit` at most: for the end of the process.
    pub async fn finish(&self, limit: Duration) {
        let sent = self.releases.send(&self.store, &self.metrics);
        let told = async { tokio::join!(sent, self.pay_all()) };
        let _ = tokio::time::timeout(limit, told).await;
    }

    /// What some counters have left, for operators.
    ///
    /// # Errors
    /// The store's own.
    pub async fn usage(&self, counters: &Counters) -> Result<Usage, StoreError> {
        counters.usage(&self.store).await
    }

    /// Forgets what some counters have counted. Returns how many there were.
    ///
    /// # Errors
    /// The store's own.
    pub async fn reset(&self, counters: &Counters) -> Result<u32, StoreError> {
        let keys = counters.distinct_keys();
        let mut forgotten = 0;
        for key in &keys {
            forgotten += u32::from(self.store.delete(key).await?);
        }
        self.state.reset(&keys);
        Ok(forgotten)
    }

    fn leave(&self, held: HeldSlots) {
        if let Some(release) = self.state.slots.leave(held) {
            self.release(release);
        }
    }

    fn release(&self, release: Release) {
        if !self.releases.add(release) {
            self.metrics.store_failed("limits");
        }
    }

    async fn renew(&self, holder: String, renewal: LeaseRenewal) {
        let (slots, LeaseRenewal { keys, limits, .. }) = (&self.state.slots, renewal);
        if !slots.lasts(&holder) {
            return;
        }
        let leases = Leases { limits: &limits, keys: &keys, holder: &holder };
        let renewed = self.store.lease(leases).await;
        if renewed.is_err() {
            // It stays due, so the next look tries again.
            slots.doubt(&holder);
            self.metrics.store_failed("limits");
        }
        let lasts = if renewed.is_ok() { slots.renewed(&holder) } else { slots.lasts(&holder) };
        if !lasts {
            self.release(Release { keys, limits, holder, in_doubt: true });
        }
    }
}

/// The slots of a request among those in flight; dropping it gives them back.
#[derive(Debug)]
pub struct SlotGuard {
    limiter: Arc<Limiter>,
    held: HeldSlots,
}

impl SlotGuard {
    /// The store has answered, so that nothing of the question is still on its way.
    pub fn on_reply(&mut self) {
        if let Some(release) = &mut self.held.leased {
            release.in_doubt = false;
        }
    }

    /// Judges the store's answer, and takes the slots that this node counts; without an answer,
    /// does what `outage` says. The guard gives back what was taken, also after an error.
    ///
    /// # Errors
    /// A slot is missing, or the store did not answer and the request is refused then.
    pub fn admit<'p>(
        &mut self,
        check: &SlotCheck<'p>,
        reply: Option<&Reply<LeaseReply>>,
        outage: LimitOutage,
        notes: &mut LimitNotes<'p>,
    ) -> Result<(), Exceeded> {
        check.admit(reply, outage, &self.limiter.state, notes, &mut self.held)
    }

    /// Gives back and waits until the store took it; in the background if that fails.
    pub async fn give_back(mut self) {
        if let Some(release) = &self.held.leased
            && self.limiter.store.release(std::slice::from_ref(release)).await.is_ok()
        {
            self.limiter.state.slots.leave(std::mem::take(&mut self.held));
        }
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        self.limiter.leave(std::mem::take(&mut self.held));
    }
}

/// A debt on its way. Whoever stops waiting has not paid.
struct Owing<'a> {
    stand_in: &'a StandIn,
    debt: Option<Debt>,
}

impl Drop for Owing<'_> {
    fn drop(&mut self) {
        if let Some(debt) = self.debt.take() {
            self.stand_in.owe(debt.charges());
        }
    }
}

/// Renews the leases of requests that take long, until the limiter is gone.
async fn renew_leases(limiter: Weak<Limiter>) {
    let mut ticks = tokio::time::interval(RENEWAL_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(limiter) = limiter.upgrade() else { return };
        let mut renewals = JoinSet::new();
        for (holder, renewal) in limiter.state.slots.due() {
            if renewals.len() >= RENEWALS_MAX {
                renewals.join_next().await;
            }
            let limiter = Arc::clone(&limiter);
            renewals.spawn(async move { limiter.renew(holder, renewal).await });
        }
        renewals.join_all().await;
    }
}

/// Says that this gateway is there, and learns how many are, until the limiter is gone.
async fn announce(limiter: Weak<Limiter>, gateways: String) {
    // Hosts and process ids may be the same in two containers.
    let name = format!("{}-{:08x}", instance::name(), fastrand::u32(..));
    let mut has_warned = false;
    let mut ticks = tokio::time::interval(ANNOUNCED_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(limiter) = limiter.upgrade() else { return };
        let State { fleet, stand_in, .. } = &limiter.state;
        let announced = limiter.store.announce(&gateways, &name, ANNOUNCED_FOR).await;
        // Where limits have a store of their own, it may be away while this one answers.
        let is_heard = announced.is_ok() || limiter.store.has(StoreUse::Limits);
        if is_heard && limiter.store.is_connected(StoreUse::Limits) {
            stand_in.hear();
        }
        match announced {
            Ok(count) => {
                fleet.note(count);
                limiter.metrics.gateways_seen.set(fleet.seen().into());
            }
            Err(StoreError::Refused(why)) if !has_warned => {
                has_warned = true;
                tracing::warn!(
                    "Redis does not let gateways count each other, so store.on_outage.nodes alone \
                     says how many share a limit while it is away: {why}\n    help: give its user \
                     the rights that `portcullis acl` prints"
                );
            }
            Err(_) => {}
        }
    }
}

/// Tells the store what it missed of keys that nobody asks for, until the limiter is gone.
async fn reconcile(limiter: Weak<Limiter>) {
    let mut ticks = tokio::time::interval(RENEWAL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(limiter) = limiter.upgrade() else { return };
        limiter.pay_all().await;
    }
}

/// When the store has lost its data, it is owed what it had granted, until the limiter is gone.
async fn owe_what_is_lost(limiter: Weak<Limiter>, mut changes: LineageChanges) {
    while let Some(changes) = changes.next().await {
        for LineageChange { server, .. } in changes.iter().filter(|it| it.loss == Loss::Data) {
            let Some(limiter) = limiter.upgrade() else { return };
            for some in limiter.state.stand_in.counted().chunks(OWED_AT_ONCE) {
                let lost = some.iter().filter(|key| limiter.store.lies_on(key, server));
                limiter.state.stand_in.owe_again(lost.map(|key| &**key));
                // Requests count meanwhile.
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Sends releases as they come, until the limiter is gone.
async fn send_releases(limiter: Weak<Limiter>, releases: Arc<Releases>) {
    loop {
        releases.wait().await;
        let Some(limiter) = limiter.upgrade() else { return };
        let sent = releases.send(&limiter.store, &limiter.metrics).await;
        drop(limiter);
        if sent.is_err() {
            tokio::time::sleep(releases::RETRY_PAUSE).await;
            releases.ring();
        }
    }
}
