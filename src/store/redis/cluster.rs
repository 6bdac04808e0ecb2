//! A Redis Cluster: which server has which slots, kept true, and commands sent to whose keys they
//! name.
//!
//! One task looks at the cluster each second, and when something shows that it has changed: a
//! server that sends a command on, is lost, or says that it cannot serve. What is learned is one
//! map, which requests read without a lock. A server that is lost or silent fails what is asked of
//! it, at once or in its time, and nothing else.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::{Pipeline, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::common::Common;
use super::common::SentOn;
use super::ear::Ear;
use super::errand::{Came, Errand, To, Unit};
use super::lanes::{self, Lanes, Ranks};
use super::map::{Known, Map};
use super::node::Node;
use super::scripts::Scripts;
use super::server::Server;
use super::slots::{Address, Member, Redirect, SERVERS_MAX, View};
use super::state::NodeState;
use super::torn;
use crate::base::shard::{self, SHARDS};
use crate::config::{self, CacheReads, StoreUrl};
use crate::store::budget::Waiting;
use crate::store::{Reply, StoreError};

/// Most times that a command is sent on.
const REDIRECTS_MAX: usize = 3;
/// How long all views must be older than the map until they are believed: no epoch falls, unless
/// all servers began anew from older files. Who is cut off knows it long before that.
const OLDER_FOR: Duration = Duration::from_secs(60);
/// Pause before a command is sent once more to a slot that is moving.
const TRY_AGAIN_PAUSE: Duration = Duration::from_millis(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) settings: config::Store,
    scripts: Arc<Scripts>,
    pub(super) common: Arc<Common>,
    pub(super) seeds: Vec<Address>,
    /// Where connections live that belong to no thread.
    home: tokio::runtime::Handle,
    pub(super) map: ArcSwap<Map>,
    /// Held while the map is changed. Since when all views were older than it.
    changing: Mutex<Option<Instant>>,
    /// Wakes those who wait for the first map.
    found: Notify,
    /// Wakes whoever looks.
    pub(super) look: Arc<Notify>,
    /// Threads that have connections of their own.
    has_joined: [AtomicBool; SHARDS],
    ranks: Arc<Ranks>,
    /// How many servers were ever connected to.
    started: AtomicUsize,
    /// Whether changes of epochs are heard of.
    hears: AtomicBool,
    /// Whether the log says that another cluster answers.
    pub(super) is_another_told: AtomicBool,
    /// Whether the log says why no server could be asked at first.
    pub(super) is_seed_told: AtomicBool,
}

impl Cluster {
    /// A cluster of which nothing is known yet. Must be called within a tokio runtime.
    pub(super) fn open(
        settings: &config::Store,
        scripts: &Arc<Scripts>,
        common: &Arc<Common>,
        seeds: Vec<Address>,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings: settings.clone(),
            scripts: Arc::clone(scripts),
            common: Arc::clone(common),
            seeds,
            home: tokio::runtime::Handle::current(),
            map: ArcSwap::from_pointee(Map::empty()),
            changing: Mutex::default(),
            found: Notify::new(),
            look: Arc::default(),
            has_joined: Default::default(),
            ranks: Arc::new(Ranks::of(
                std::thread::available_parallelism().map_or(1, NonZero::get),
            )),
            started: AtomicUsize::new(0),
            hears: AtomicBool::new(false),
            is_another_told: AtomicBool::new(false),
            is_seed_told: AtomicBool::new(false),
        })
    }

    /// Gives the current thread connections of its own, driven by its own runtime.
    pub(super) fn join(&self) {
        self.ranks.join(shard::mine());
        self.has_joined[shard::mine()].store(true, Ordering::Relaxed);
        for Known { server, .. } in &self.map.load().servers {
            server.join(&self.settings, &self.scripts);
        }
    }

    /// Returns once the current thread can ask every server.
    pub(super) async fn connected(&self) {
        loop {
            let found = self.found.notified();
            tokio::pin!(found);
            found.as_mut().enable();
            let map = self.map.load_full();
            if !map.servers.is_empty() {
                join_all(map.servers.iter().map(|known| known.server.connected())).await;
                return;
            }
            found.await;
        }
    }

    /// Whether any server can be asked.
    pub(super) fn is_connected(&self) -> bool {
        self.map.load().servers.iter().any(|known| known.server.home().is_asked())
    }

    /// How its servers are: those that have slots, then their replicas.
    pub(super) fn states(&self) -> Vec<NodeState> {
        let map = self.map.load();
        let primaries = map.servers.iter().map(|known| known.server.node.state(true));
        primaries.chain(map.replicas.iter().map(|it| it.server.node.state(false))).collect()
    }

    /// Those that have slots.
    pub(super) fn primaries(&self) -> Vec<Arc<Server>> {
        self.map.load().servers.iter().map(|known| Arc::clone(&known.server)).collect()
    }

    /// Replicas that are read from.
    pub(super) fn readers(&self) -> Vec<Arc<Server>> {
        self.map.load().replicas.iter().filter_map(|known| known.reader.clone()).collect()
    }

    /// The epoch of the map.
    pub(super) fn epoch(&self) -> u64 {
        self.map.load().epoch
    }

    /// Of the server that has the first slot: their clocks are taken for one.
    pub(super) fn clock_offset_ms(&self) -> i64 {
        self.map.load().owner(0).map_or(0, |server| server.home().clock_offset_ms())
    }

    /// Begins to hear of changed epochs of each primary, now and later.
    pub(super) fn follow_epochs(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.hears.store(true, Ordering::Relaxed);
        self.listen(&self.map.load());
    }

    /// Hears of changed epochs of the primaries, and of no replica: what it has comes later, and
    /// may have to go. Called while the map is changed.
    fn listen(&self, map: &Map) {
        if !self.hears.load(Ordering::Relaxed) {
            return;
        }
        let _home = self.home.enter();
        let most = self.settings.known_epochs / map.servers.len().max(1);
        let start = |node: &_| Ear::start(&self.settings, node, most);
        map.others().for_each(|known| known.server.listen(None::<fn(&_) -> _>));
        map.servers.iter().for_each(|known| known.server.listen(Some(start)));
    }

    /// A server that can be asked, if there is one.
    pub(super) fn any(&self) -> Option<Arc<Server>> {
        let map = self.map.load();
        let mut servers = map.servers.iter().map(|known| &known.server);
        let up = servers.clone().find(|server| server.home().is_up());
        up.or_else(|| servers.next()).map(Arc::clone)
    }

    /// Who has the slot.
    pub(super) fn owner(&self, slot: u16) -> Option<Arc<Server>> {
        self.map.load().owner(slot).map(Arc::clone)
    }

    /// A number that is the same for slots of one server.
    pub(super) fn server(&self, slot: u16) -> usize {
        self.map.load().at(slot)
    }

    /// See [`super::topology::Topology::run_at`].
    pub(super) async fn run_at(
        &self,
        slot: u16,
        pipeline: &mut Pipeline,
        deadline: Instant,
    ) -> Reply<Came> {
        let Some(server) = self.owner(slot) else {
            return Ok(Came::Apart(Box::pin(self.run_apart(pipeline, deadline)).await));
        };
        let own = self.joined(&server);
        let values = own.exchange(pipeline, &self.scripts, deadline).await.inspect_err(|_| {
            self.look.notify_one();
        })?;
        let host = server.node.host();
        if !values.iter().any(|reply| is_down(reply) || Redirect::of(reply, host).is_some()) {
            return Ok(Came::Whole(values));
        }
        Ok(Came::Apart(Box::pin(self.send_on(server, values, pipeline, deadline)).await))
    }

    /// Sends on what a server sent on: what came of each command.
    async fn send_on(
        &self,
        server: Arc<Server>,
        values: Vec<Value>,
        pipeline: &Pipeline,
        deadline: Instant,
    ) -> Vec<Reply<Value>> {
        let mut replies = vec![Ok(Value::Nil); values.len()];
        // Without the seal, which was put behind them.
        let units = Unit::of(pipeline).into_iter().filter(|unit| unit.commands.end <= values.len());
        let units = units.map(|unit| (unit, false)).collect();
        let errand = Errand { server, units, round: 0, is_late: false };
        let errands = self.settle(errand, Ok(values), &mut replies);
        self.carry_out_all(errands, pipeline, &mut replies, deadline).await;
        replies
    }

    /// See [`super::topology::Topology::run_apart`].
    pub(super) async fn run_apart(
        &self,
        pipeline: &mut Pipeline,
        deadline: Instant,
    ) -> Vec<Reply<Value>> {
        let mut replies = vec![Ok(Value::Nil); pipeline.len()];
        let open = Unit::of(pipeline).into_iter().map(|unit| (unit, To::Owner)).collect();
        let mut errands = self.errands(open, 0, &mut replies);
        // As a rule all of it goes to one server, as it stands.
        if let Some(errand) = errands.pop_if(|errand| errand.is_all_of(pipeline)) {
            let sent = self.joined(&errand.server).exchange(pipeline, &self.scripts, deadline);
            let result = sent.await;
            errands = self.settle(errand, result, &mut replies);
        }
        self.carry_out_all(errands, pipeline, &mut replies, deadline).await;
        replies
    }

    /// Carries out errands, and those that they lead to.
    async fn carry_out_all(
        &self,
        errands: Vec<Errand>,
        pipeline: &Pipeline,
        replies: &mut [Reply<Value>],
        deadline: Instant,
    ) {
        let carry_out = |errand| self.carry_out(errand, pipeline, deadline);
        let mut under_way: FuturesUnordered<_> = errands.into_iter().map(carry_out).collect();
        // Each for itself: one that waits for a silent server must not hold up what another one
        // sent on.
        while let Some((errand, result)) = under_way.next().await {
            under_way.extend(self.settle(errand, result, replies).into_iter().map(carry_out));
        }
        self.run_by_key(pipeline, replies, deadline).await;
    }

    /// Sends key by key what no server carried out, because its slot is moving.
    async fn run_by_key(
        &self,
        pipeline: &Pipeline,
        replies: &mut [Reply<Value>],
        deadline: Instant,
    ) {
        let is_torn = |reply: &Reply<Value>| reply.as_ref().is_ok_and(torn::is_torn);
        if !replies.iter().any(is_torn) {
            return;
        }
        // Those of a transaction happen all at once or not at all.
        let alone = Unit::of(pipeline).into_iter().filter(|unit| unit.commands.len() == 1);
        for at in alone.map(|unit| unit.commands.start) {
            let (command, reply) = (pipeline.cmd_iter().nth(at), replies.get_mut(at));
            if let (Some(command), Some(reply)) = (command, reply)
                && is_torn(reply)
                && torn::is_sum(command)
            {
                let mut apart = Pipeline::new();
                torn::by_key(command).for_each(|one| {
                    apart.add_command(one);
                });
                let all = Box::pin(self.run_apart(&mut apart, deadline)).await;
                *reply = all.into_iter().collect::<Reply<Vec<Value>>>().map(torn::sum);
            }
        }
    }

    /// What goes to which server. Nobody may have the slot of a unit; that is its reply then.
    fn errands(
        &self,
        open: Vec<(Unit, To)>,
        round: usize,
        replies: &mut [Reply<Value>],
    ) -> Vec<Errand> {
        let map = self.map.load();
        let mut errands: Vec<Errand> = Vec::new();
        for (unit, to) in open {
            let is_late = matches!(to, To::OwnerLater);
            let (server, is_asking) = match to {
                To::Owner | To::OwnerLater => {
                    let server = match unit.slot {
                        Some(slot) => map.owner(slot),
                        None => map.servers.first().map(|known| &known.server),
                    };
                    let Some(server) = server else {
                        self.look.notify_one();
                        self.common.note_unowned();
                        unit.fail(&StoreError::Unavailable, replies);
                        continue;
                    };
                    (Arc::clone(server), false)
                }
                To::Asking(server) => (server, true),
            };
            let known = errands.iter_mut().find(|errand| Arc::ptr_eq(&errand.server, &server));
            match known {
                Some(errand) => {
                    errand.units.push((unit, is_asking));
                    errand.is_late |= is_late;
                }
                None => {
                    errands.push(Errand { server, units: vec![(unit, is_asking)], round, is_late });
                }
            }
        }
        errands
    }

    async fn carry_out(
        &self,
        errand: Errand,
        pipeline: &Pipeline,
        deadline: Instant,
    ) -> (Errand, Reply<Vec<Value>>) {
        if errand.is_late {
            tokio::time::sleep_until(deadline.min(Instant::now() + TRY_AGAIN_PAUSE)).await;
        }
        let server = self.joined(&errand.server);
        if errand.round > 0 && !server.node.is_away() {
            // What was sent on may be the first to be asked there.
            let _ = tokio::time::timeout_at(deadline, server.link().connected()).await;
        }
        let mut own = errand.commands(pipeline);
        let result = server.exchange(&mut own, &self.scripts, deadline).await;
        (errand, result)
    }

    /// Takes what came of an errand: what must be sent once more.
    fn settle(
        &self,
        errand: Errand,
        result: Reply<Vec<Value>>,
        replies: &mut [Reply<Value>],
    ) -> Vec<Errand> {
        match result {
            Ok(values) => errand.take(values, replies),
            Err(error) => {
                self.look.notify_one();
                errand.units.iter().for_each(|(unit, _)| unit.fail(&error, replies));
                return Vec::new();
            }
        }
        let round = errand.round + 1;
        let again = self.sent_on(errand, replies);
        if round > REDIRECTS_MAX { Vec::new() } else { self.errands(again, round, replies) }
    }

    /// The server, with a connection of the current thread.
    fn joined<'a>(&self, server: &'a Server) -> &'a Server {
        if self.has_joined[shard::mine()].load(Ordering::Relaxed) {
            // A server may have come later than the thread.
            server.join(&self.settings, &self.scripts);
        }
        server
    }

    /// The units of an errand that must be sent once more, and where to.
    fn sent_on(&self, errand: Errand, replies: &[Reply<Value>]) -> Vec<(Unit, To)> {
        let (host, common) = (errand.server.node.host(), &self.common);
        let mut again = Vec::new();
        for (unit, _) in errand.units {
            let own = replies.get(unit.commands.clone()).unwrap_or_default();
            let mut own = own.iter().filter_map(|reply| reply.as_ref().ok());
            match own.clone().find_map(|reply| Redirect::of(reply, host)) {
                Some(Redirect::Moved(slot, address)) => {
                    common.sent_on(SentOn::Moved);
                    self.moved(slot, self.settings.address_map.of(address));
                    again.push((unit, To::Owner));
                }
                Some(Redirect::Ask(address)) => {
                    common.sent_on(SentOn::Ask);
                    if let Some(ear) = errand.server.ear() {
                        ear.doubt();
                    }
                    let address = self.settings.address_map.of(address);
                    let to = self.server_at(&address).map_or(To::OwnerLater, To::Asking);
                    again.push((unit, to));
                }
                Some(Redirect::TryAgain) => {
                    common.sent_on(SentOn::TryAgain);
                    again.push((unit, To::OwnerLater));
                }
                None if own.any(is_down) => self.look.notify_one(),
                None => {}
            }
        }
        again
    }

    /// Whether replies of who had the slot say that it has moved. What they say is learned.
    pub(super) fn has_moved(&self, slot: u16, replies: &[Value]) -> bool {
        let Some(owner) = self.owner(slot) else { return false };
        let redirect = replies.iter().find_map(|reply| Redirect::of(reply, owner.node.host()));
        let Some(Redirect::Moved(slot, address)) = redirect else { return false };
        self.moved(slot, self.settings.address_map.of(address));
        true
    }

    /// A server said that the slot is at `address` now.
    fn moved(&self, slot: u16, address: Address) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let map = self.map.load_full();
        let forget = |map: &Map| {
            if let Some(ear) = map.owner(slot).and_then(|server| server.ear()) {
                ear.forget_all();
            }
        };
        match map.position(&address) {
            Some(at) if at == map.at(slot) => {}
            Some(at) => {
                forget(&map);
                map.give(slot, at);
                forget(&map);
            }
            None if map.servers.len() >= SERVERS_MAX => return,
            None => {
                let member = Member::at(address);
                let server = map.at_address(&member.address).map(Arc::clone);
                if let Some(replica) = &server {
                    replica.node.enters_service();
                }
                let server = server.unwrap_or_else(|| self.start(&member, map.servers.len() + 1));
                server.node.has_slot(slot);
                let (map, at) = map.with(Known::new(member, server));
                forget(&map);
                map.give(slot, at);
                self.listen(&map);
                self.map.store(Arc::new(map));
            }
        }
        self.look.notify_one();
    }

    /// A known server, or a new one that has no slots yet; nothing where there are too many.
    fn server_at(&self, address: &Address) -> Option<Arc<Server>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let map = self.map.load_full();
        if let Some(server) = map.at_address(address) {
            return Some(Arc::clone(server));
        }
        if map.servers.len() >= SERVERS_MAX {
            return None;
        }
        let member = Member::at(address.clone());
        let server = self.start(&member, map.servers.len() + 1);
        let known = Known::new(member, Arc::clone(&server));
        self.map.store(Arc::new(map.with(known).0));
        Some(server)
    }

    /// Begins to connect to one of so many primaries, or to a replica of one.
    fn start(&self, member: &Member, primaries: usize) -> Arc<Server> {
        self.start_as(member, primaries, |node| node)
    }

    fn start_as(
        &self,
        member: &Member,
        primaries: usize,
        kind: impl FnOnce(Node) -> Node,
    ) -> Arc<Server> {
        let _home = self.home.enter();
        let node = kind(node(&member.address, &self.common));
        node.may_be(member.id.as_deref());
        let (ranks, server) =
            (Arc::clone(&self.ranks), self.started.fetch_add(1, Ordering::Relaxed));
        let threads = ranks.threads();
        let count = self.settings.connections.unwrap_or_else(|| lanes::auto(threads, primaries));
        let lanes = (count < threads).then_some(Lanes { ranks, count: count.max(1), server });
        Arc::new(Server::start_with(&self.settings, node, &self.scripts, lanes))
    }

    /// What a replica says of keys with this slot; nothing where none can be asked, or answers in
    /// time for its primary to be asked too, before `deadline`.
    pub(super) async fn read(
        &self,
        slot: u16,
        mut pipeline: Pipeline,
        deadline: Instant,
    ) -> Option<Vec<Value>> {
        let reader = {
            let map = self.map.load();
            let readers: Vec<_> = map.readers(slot).collect();
            Arc::clone(readers.get(fastrand::usize(..readers.len().max(1)))?)
        };
        if self.has_joined[shard::mine()].load(Ordering::Relaxed) {
            reader.join(&self.settings, &self.scripts);
        }
        let _waiting = Waiting::begin(deadline, self.settings.timeout).ok()?;
        let now = Instant::now();
        let deadline = now + deadline.saturating_duration_since(now) / 2;
        reader.exchange(&mut pipeline, &self.scripts, deadline).await.ok()
    }

    /// Takes a view for true. False when it is what was known, or older.
    pub(super) fn adopt(&self, view: &View) -> bool {
        let mut older = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.map.load_full();
        if view.ranges.is_empty() {
            return false;
        }
        // Also one that says that the cluster serves: who was cut off just now does not know it.
        if old.is_newer_than(view) {
            if !view.is_ok {
                *older = None;
                return false;
            }
            if older.get_or_insert_with(Instant::now).elapsed() < OLDER_FOR {
                return false;
            }
        }
        *older = None;
        let mut map = Map::of_view(view, |member| match old.member(member) {
            Some(server) => Arc::clone(server),
            None => self.start(member, view.primaries.len()),
        });
        if self.settings.cache_reads == CacheReads::Replica {
            map.read_by(&old, |member| self.start_as(member, view.primaries.len(), Node::reading));
        }
        map.keep_slots(&old);
        map.keep_former(&old);
        let is_new = !map.says_what(&old);
        if is_new {
            // What lies on a server whose slots are others now is not what lay there.
            let changed = map.servers.iter().filter(|known| !map.gives_the_same(&old, known));
            changed.filter_map(|known| known.server.ear()).for_each(|ear| ear.forget_all());
        }
        map.tell_slots(view);
        self.listen(&map);
        // Of one that was not known at all, nothing was believed.
        for known in map.servers.iter().filter(|known| old.is_other(&known.server)) {
            known.server.node.enters_service();
        }
        self.map.store(Arc::new(map));
        self.found.notify_waiters();
        is_new
    }
}

/// A server of which nothing is known but where it is.
pub(super) fn node(address: &Address, common: &Arc<Common>) -> Node {
    let (host, port) = address.clone();
    Node::of_cluster(&StoreUrl::Redis { host, port, db: 0 }, common)
}

/// Whether a server says that it cannot serve what it is asked.
fn is_down(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error)
        if matches!(error.code(), "CLUSTERDOWN" | "READONLY" | "MASTERDOWN"))
}

#[cfg(test)]
mod tests;
