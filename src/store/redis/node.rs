//! What this process knows of its Redis beside any one connection: what is the matter with it, and
//! its rung (`breaker`). Each thread has a connection of its own; whether Redis answers is one
//! question. While a server is open, no connection to it is in service, except where it said itself
//! that it will serve on them again.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::breaker::Breaker;
use super::common::Common;
use super::connect_error::ConnectError;
use super::history::{Otherwise, Shown, Told};
use super::misses::Misses;
use super::published::{Published, Slot};
use super::rung::{Cause, Change, Counts, Rung};
use super::says::{Condition, Says};
use super::state::{NodeState, WhyAway};
use crate::config::{self, StoreUrl};
use crate::store::keys::{SLOTS, key_in};
use crate::store::lineage::Lineage;

/// See the module.
#[derive(Debug)]
pub(super) struct Node {
    address: StoreUrl,
    pub(super) common: Arc<Common>,
    /// Host and port, or the path of its socket.
    name: Option<String>,
    /// Whether it is one of a Redis Cluster's.
    is_in_cluster: bool,
    /// Whether it is asked as a replica.
    is_reader: bool,
    /// Its id among them, where that is known.
    id: OnceLock<String>,
    /// A slot that it has, or its primary; none of them where none is known.
    slot: AtomicU16,
    /// Whether it said of itself, when it was called last, that it is a replica.
    is_replica: watch::Sender<bool>,
    /// Who is told that a connection was given up.
    lost: Option<Arc<Notify>>,
    pub(super) says: Arc<Says>,
    misses: Misses,
    slots: Mutex<Vec<Weak<Slot>>>,
    pub(super) breaker: Breaker,
    /// Asks for a look at a server that is open and has connections all the same.
    pub(super) is_down: Notify,
    /// Whether it was said that Redis cannot be reached, since it answered last.
    is_unreachable: AtomicBool,
    /// Whether it is said that something answers which cannot be used.
    is_answer_told: AtomicBool,
    /// Whether it was said that a connection of its former history could not be replaced.
    pub(super) is_former_told: AtomicBool,
    /// Whether its cluster names it no more: what becomes of it concerns nobody.
    is_former: AtomicBool,
    /// Whether it is settled that Redis speaks as it is spoken to.
    is_understood: AtomicBool,
    /// How many replicas it said that it has.
    replicas: AtomicU32,
    /// Wakes who asks it for its history.
    pub(super) doubt: Arc<Notify>,
    /// How often it may have got another history without a word: what it said of that before the
    /// last time says nothing of what it answers.
    doubts: AtomicU64,
    /// The one that it showed last.
    lineage: watch::Sender<Option<Lineage>>,
    /// Tells that connections are to be replaced because it has another one.
    pub(super) renewals: watch::Sender<u64>,
}

impl Node {
    /// A server of which nothing is known yet but where it is.
    pub(super) fn new(address: &StoreUrl, common: &Arc<Common>) -> Self {
        let says = Says::of(name(address), common.table);
        Self {
            address: address.clone(),
            common: Arc::clone(common),
            name: name(address),
            is_in_cluster: false,
            is_reader: false,
            id: OnceLock::new(),
            slot: AtomicU16::new(SLOTS),
            is_replica: watch::Sender::new(false),
            lost: None,
            says: Arc::new(says),
            misses: Misses::default(),
            slots: Mutex::default(),
            breaker: Breaker::new(common.credentials.max_in_flight()),
            is_down: Notify::new(),
            is_unreachable: AtomicBool::new(false),
            is_answer_told: AtomicBool::new(false),
            is_former_told: AtomicBool::new(false),
            is_former: AtomicBool::new(false),
            is_understood: AtomicBool::new(false),
            replicas: AtomicU32::new(0),
            doubt: Arc::default(),
            doubts: AtomicU64::new(0),
            lineage: watch::Sender::new(None),
            renewals: watch::Sender::new(0),
        }
    }

    /// The same of a server of a Redis Cluster.
    pub(super) fn of_cluster(address: &StoreUrl, common: &Arc<Common>) -> Self {
        let says = Says::of(name(address), common.table).expecting(Condition::IsCluster);
        Self { is_in_cluster: true, says: Arc::new(says), ..Self::new(address, common) }
    }

    /// The same of a replica that is read from, and never becomes anything else: what it has may be
    /// older than what its primary has.
    pub(super) fn reading(self) -> Self {
        Self { is_reader: true, ..self }
    }

    /// The same of what sentinels said to be the primary, which may become a replica. `lost` wakes
    /// when a connection to it is given up.
    pub(super) fn of_sentinels(
        address: &StoreUrl,
        common: &Arc<Common>,
        lost: &Arc<Notify>,
    ) -> Self {
        let says = Says::of(name(address), common.table).expecting(Condition::ReadOnly);
        Self { says: Arc::new(says), lost: Some(Arc::clone(lost)), ..Self::new(address, common) }
    }

    /// Whether it is one of a Redis Cluster's servers.
    pub(super) fn is_in_cluster(&self) -> bool {
        self.is_in_cluster
    }

    /// Whether it is asked as a replica.
    pub(super) fn is_reader(&self) -> bool {
        self.is_reader
    }

    /// Its id in the Redis Cluster, where that is known.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.get().map(String::as_str)
    }

    /// Whether it may be the server with this id. What was not known before is, from now on.
    pub(super) fn may_be(&self, id: Option<&str>) -> bool {
        id.is_none_or(|id| self.id.get_or_init(|| id.to_owned()) == id)
    }

    /// It has this slot of a Redis Cluster, or its primary has.
    pub(super) fn has_slot(&self, slot: u16) {
        self.slot.store(slot, Ordering::Relaxed);
    }

    /// Its Redis Cluster names it, or does so no more.
    pub(super) fn is_named(&self, is_named: bool) {
        self.is_former.store(!is_named, Ordering::Relaxed);
    }

    /// A key of this kind that lies there, and is of no use beside. Where no slot of it is known,
    /// any key will do: of one that lies elsewhere a server says where, and before that whether its
    /// cluster is down.
    pub(super) fn own_key(&self, prefix: &str, kind: &str) -> String {
        key_in(self.slot.load(Ordering::Relaxed), &format!("{prefix}:{kind}:"))
    }

    /// How long a question may take here. Where a replica does not answer there is time left to
    /// ask its primary.
    pub(super) fn answers_within(&self, settings: &config::Store) -> Duration {
        if self.is_reader { settings.timeout / 2 } else { settings.timeout }
    }

    /// The host that it was found at.
    pub(super) fn host(&self) -> &str {
        match &self.address {
            StoreUrl::Redis { host, .. } => host,
            _ => "",
        }
    }

    /// Host and port, or the path of its socket.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where the next connection is made to.
    pub(super) fn address(&self) -> &StoreUrl {
        &self.address
    }

    /// Adds a connection to those that the breaker opens.
    pub(super) fn add(&self, slot: &Arc<Slot>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|known| known.strong_count() > 0);
        slots.push(Arc::downgrade(slot));
    }

    /// Redis answered, on some connection.
    pub(super) fn answered(&self) {
        self.misses.forget();
    }

    /// Redis did not answer in time. With the last miss of a row all connections are given up.
    pub(super) fn missed(&self) {
        if self.misses.is_last_straw() {
            self.give_all_up(Cause::Silent);
        }
    }

    /// Gives all connections up.
    pub(super) fn give_all_up(&self, cause: Cause) {
        self.tell(self.breaker.fail(cause, || true));
        for slot in self.slots() {
            if let Some(published) = slot.get() {
                self.give_up(&slot, &published, cause);
            }
        }
    }

    /// The server cannot serve now, and will on the connections that stand.
    pub(super) fn shut(&self, cause: Cause) {
        self.tell(self.breaker.fail(cause, || true));
        self.is_down.notify_one();
    }

    /// A probe on a connection was good. False when it is not in service yet, because too few were.
    pub(super) fn publish(&self, slot: &Slot, published: &Arc<Published>) -> bool {
        let (is_asked, news) = self.breaker.probe(|| slot.put(published));
        self.tell(news);
        is_asked
    }

    /// The same of a connection that is in service already.
    pub(super) fn note_probe(&self) {
        self.tell(self.breaker.probe(|| {}).1);
    }

    /// Takes what was counted since the last time; `before` is what was known then.
    pub(super) fn count(&self, before: &mut Counts) {
        let zero = Counts::default();
        let now = self.slots().iter().map(|slot| slot.tally.counts()).fold(zero, Counts::and);
        let last = std::mem::replace(before, now);
        let (has_opened, news) = self.breaker.count(now.since(last));
        self.tell(news);
        if has_opened {
            let cause = self.breaker.standing().2;
            self.give_all_up(cause);
        }
    }

    /// How it is, for operators.
    pub(super) fn state(&self, is_primary: bool) -> NodeState {
        let (rung, since, cause) = self.breaker.standing();
        let name = self.name.clone().unwrap_or_default();
        NodeState { name, is_primary, rung, since, cause: cause.to_string() }
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().filter_map(Weak::upgrade).collect()
    }

    /// Says that the rung is another one.
    fn tell(&self, news: Option<Change>) {
        let Some(change) = news.filter(|_| !self.is_former.load(Ordering::Relaxed)) else { return };
        let (server, table) = (self.name.as_deref(), self.common.among_others);
        match change.to {
            Rung::Open => {
                let in_its_place = self.common.in_its_place();
                tracing::warn!(server, table, "the store: {change}; {in_its_place}");
            }
            Rung::Slow => {
                let half = "half as many questions at a time";
                tracing::warn!(server, table, "the store: {change}; {half}");
            }
            Rung::Healthy | Rung::Recovering => {
                tracing::info!(server, table, "the store: {change}");
            }
        }
    }

    /// Which of its connections stand.
    fn published(&self) -> Vec<Arc<Published>> {
        self.slots().iter().filter_map(|slot| slot.get()).collect()
    }

    /// By what name its history is known: that of one of several servers, each of which has a part
    /// of the data; of others one at a time has everything.
    pub(super) fn share_name(&self) -> &str {
        self.name.as_deref().filter(|_| self.is_in_cluster).unwrap_or_default()
    }

    /// What stands in for the id of its history.
    pub(super) fn otherwise(&self) -> Otherwise {
        if self.is_in_cluster {
            return Otherwise::Nothing;
        }
        // It was lost, and nobody has reached it since.
        let was_seen = self.common.histories.source().is_some();
        Otherwise::Key { is_new: was_seen && self.slots().iter().all(|slot| !slot.is_taken()) }
    }

    /// How often it was in doubt which history it has.
    pub(super) fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Acquire)
    }

    /// A connection has shown the history that it has now, or had after so many doubts.
    pub(super) fn hear(&self, told: &Told, asked: u64) {
        self.replicas.store(told.replicas, Ordering::Relaxed);
        match told.lineage() {
            Some(lineage) => {
                self.common.histories.hear(self.share_name(), self.name(), told);
                self.lineage.send_if_modified(|known| known.replace(lineage) != Some(lineage));
                // All of them: the same server answers on each.
                self.replace_all_over(|shown| !shown.is_now(lineage, asked));
            }
            // Whoever may write is somebody else.
            None if !self.is_in_cluster => self.give_all_up(Cause::Refused("READONLY")),
            // Now, as nobody waits for it: it may take over again.
            None => self.replace_all_over(Shown::end),
        }
    }

    /// Has connections replaced, where there are some whose history is over.
    fn replace_all_over(&self, is_over: impl Fn(&Shown) -> bool) {
        let over = self.published().iter().filter(|it| is_over(&it.shown)).count();
        if over > 0 {
            self.renewals.send_modify(|renewals| *renewals += 1);
        }
    }

    /// Tells which histories it shows from now on. It is begun before a connection is made, so that
    /// nothing is missed.
    pub(super) fn lineages(&self) -> Lineages {
        Lineages(self.lineage.subscribe())
    }

    /// It is asked from now on, and may have become a primary just now: what it said of its history
    /// before says nothing of what it answers.
    pub(super) fn enters_service(&self) {
        self.doubts.fetch_add(1, Ordering::AcqRel);
        self.doubt.notify_one();
    }

    /// How many replicas it has.
    pub(super) fn replicas(&self) -> u32 {
        self.replicas.load(Ordering::Relaxed)
    }

    /// Returns once the server has said that it is a replica.
    pub(super) async fn refused_to_lead(&self) {
        // It fails when nobody is left who could say so, and this is one.
        let _ = self.is_replica.subscribe().wait_for(|is_replica| *is_replica).await;
    }

    /// A connection stands.
    pub(super) fn is_found(&self) {
        self.misses.forget();
        self.is_unreachable.store(false, Ordering::Relaxed);
        self.is_answer_told.store(false, Ordering::Relaxed);
        self.is_understood.store(true, Ordering::Relaxed);
        self.is_replica.send_replace(false);
        self.common.note_away(None);
    }

    /// Takes a connection out of service, and has it replaced. With the last one the server is
    /// open.
    pub(super) fn give_up(&self, slot: &Slot, published: &Arc<Published>, cause: Cause) {
        if !slot.take(published) {
            return;
        }
        let is_last = || !self.slots().iter().any(|slot| slot.is_taken());
        self.tell(self.breaker.fail(cause, is_last));
        slot.lost.notify_one();
        if let Some(lost) = &self.lost {
            lost.notify_one();
        }
    }

    /// Whether it is to be found out now whether Redis speaks TLS or not: once, at the first
    /// failure.
    pub(super) fn is_puzzling(&self) -> bool {
        !self.is_understood.swap(true, Ordering::Relaxed)
    }

    /// Whether it is known that there is no connection, nor will be one at once.
    pub(super) fn is_away(&self) -> bool {
        self.is_unreachable.load(Ordering::Relaxed)
    }

    /// An attempt to connect failed.
    pub(super) fn is_out_of_reach(&self, error: &ConnectError) {
        self.is_replica.send_replace(matches!(error, ConnectError::Replica));
        if let ConnectError::Redis(error) = error
            && let Some(code) = error.code()
        {
            self.says.note_error(code, error.detail());
        } else if let Some(condition) = error.condition() {
            self.says.note_with(condition, &error.to_string());
        }
        self.common.note_away(Some(self.why_away(error)));
        let was_away = self.is_unreachable.swap(true, Ordering::Relaxed);
        // What answers and cannot be used wants another remedy than what is away.
        let is_news = error.is_answer() && !self.is_answer_told.swap(true, Ordering::Relaxed);
        if (!was_away || is_news) && !self.is_former.load(Ordering::Relaxed) {
            let (server, table) = (self.name.as_deref(), self.common.among_others);
            tracing::warn!(%error, server, table, "the store cannot be reached; trying on");
        }
    }
}

impl Node {
    /// Why an attempt to connect failed, in the words of the log.
    fn why_away(&self, error: &ConnectError) -> WhyAway {
        let at = self.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
        // Whether it speaks TLS was found out once, and no attempt shows it again.
        let mismatch = [Condition::WantsTls, Condition::NoTls];
        let mismatch = mismatch.into_iter().find(|condition| self.says.holds(*condition));
        match error.condition().or(mismatch) {
            Some(condition) => {
                let (seen, remedy) = condition.text(self.common.table);
                WhyAway { seen: format!("{seen}{at}"), remedy: Some(remedy) }
            }
            None => WhyAway { seen: format!("{error}{at}"), remedy: None },
        }
    }
}

/// See [`Node::lineages`].
pub(super) struct Lineages(watch::Receiver<Option<Lineage>>);

impl Lineages {
    /// Returns when the server shows another one than this, which a connection shows.
    pub(super) async fn left(&mut self, own: Lineage) {
        while self.0.changed().await.is_ok() {
            if self.0.borrow_and_update().is_some_and(|now| now != own) {
                return;
            }
        }
        // Nobody is left who could say so, and whoever listens ends too.
        std::future::pending().await
    }
}

fn name(address: &StoreUrl) -> Option<String> {
    match address {
        StoreUrl::Redis { host, port, .. } => Some(format!("{host}:{port}")),
        StoreUrl::Unix { path } => Some(path.display().to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn only_a_history_of_others_has_left() {
        let [old, new, newest] = ["1", "2", "3"].map(Lineage::of);
        let node = watch::Sender::new(Some(old));
        let mut before = Lineages(node.subscribe());
        // It is connected to when the server has the new one already, and the node hears it later.
        node.send_replace(Some(new));
        assert!(before.left(new).now_or_never().is_none(), "it is its own");
        node.send_replace(Some(newest));
        assert!(before.left(new).now_or_never().is_some());
        assert!(Lineages(node.subscribe()).left(new).now_or_never().is_none(), "nothing is new");
        let mut unaware = Lineages(node.subscribe());
        node.send_replace(Some(new));
        assert!(unaware.left(old).now_or_never().is_some());
    }
}
