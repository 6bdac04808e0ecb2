//! A Redis Cluster: which server has which slots, kept true, and commands sent to whose keys they
//! name.
//!
//! One task looks at the cluster each second, and when something shows that it has changed: a
//! server that sends a command on, is lost, or says that it cannot serve. What is learned is one
//! map, which requests read without a lock. A server that is lost or silent fails what is asked of
//! it, at once or in its time, and nothing else.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::{Cmd, Pipeline, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::credentials::Credentials;
use super::dial::{Call, Purpose};
use super::node::Node;
use super::reply::server_error;
use super::scripts::Scripts;
use super::server::Server;
use super::slots::{Address, Redirect, SERVERS_MAX, View, key_of};
use crate::base::shard::{self, SHARDS};
use crate::config::{self, StoreUrl};
use crate::store::keys::{SLOTS, slot};
use crate::store::{Reply, StoreError};

/// Most times that a command is sent on.
const REDIRECTS_MAX: usize = 3;
/// Pause before a command is sent once more to a slot that is moving.
const TRY_AGAIN_PAUSE: Duration = Duration::from_millis(2);
/// Pause between two looks at the cluster when nothing asks for one.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Least pause between two looks; it doubles while they find nothing new, up to the next one.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(20);
/// The same while a server is lost: its successor may be chosen any time.
const LOOK_PAUSE_LOST: Duration = Duration::from_millis(100);
/// How many servers are asked in one look.
const ASKED_MAX: usize = 3;

/// See the module.
#[derive(Debug)]
pub(super) struct Cluster {
    settings: config::Store,
    scripts: Arc<Scripts>,
    credentials: Arc<Credentials>,
    seeds: Vec<Address>,
    /// Where connections live that belong to no thread.
    home: tokio::runtime::Handle,
    map: ArcSwap<Map>,
    /// Held while the map is changed.
    changing: Mutex<()>,
    /// Wakes those who wait for the first map.
    found: Notify,
    /// Wakes whoever looks.
    look: Arc<Notify>,
    /// Threads that have connections of their own.
    joined: [AtomicBool; SHARDS],
}

/// Who has which slots.
#[derive(Debug, Clone)]
struct Map {
    epoch: u64,
    /// By slot: a place among the servers, or beyond them where nobody is known to have it.
    by_slot: Box<[u16]>,
    servers: Vec<(Address, Arc<Server>)>,
    /// Connected too, so that one of them can be asked the moment it is promoted.
    replicas: Vec<(Address, Arc<Server>)>,
}

impl Map {
    fn empty() -> Self {
        let by_slot = vec![u16::MAX; usize::from(SLOTS)].into_boxed_slice();
        Self { epoch: 0, by_slot, servers: Vec::new(), replicas: Vec::new() }
    }

    fn at(&self, slot: u16) -> usize {
        self.by_slot.get(usize::from(slot)).map_or(usize::MAX, |at| usize::from(*at))
    }

    fn owner(&self, slot: u16) -> Option<&Arc<Server>> {
        self.servers.get(self.at(slot)).map(|(_, server)| server)
    }

    fn known(&self, address: &Address) -> Option<&Arc<Server>> {
        let all = self.servers.iter().chain(&self.replicas);
        all.into_iter().find(|(known, _)| known == address).map(|(_, server)| server)
    }
}

impl Cluster {
    /// Begins to look for the cluster; returns before it is found. Must be called within a tokio
    /// runtime.
    pub(super) fn open(
        settings: &config::Store,
        scripts: &Arc<Scripts>,
        credentials: &Arc<Credentials>,
        seeds: Vec<Address>,
    ) -> Arc<Self> {
        let cluster = Arc::new(Self {
            settings: settings.clone(),
            scripts: Arc::clone(scripts),
            credentials: Arc::clone(credentials),
            seeds,
            home: tokio::runtime::Handle::current(),
            map: ArcSwap::from_pointee(Map::empty()),
            changing: Mutex::new(()),
            found: Notify::new(),
            look: Arc::default(),
            joined: Default::default(),
        });
        tokio::spawn(keep_map(Arc::downgrade(&cluster), Arc::clone(&cluster.look)));
        cluster
    }

    /// Gives the current thread connections of its own, driven by its own runtime.
    pub(super) fn join(&self) {
        self.joined[shard::mine()].store(true, Ordering::Relaxed);
        for (_, server) in &self.map.load().servers {
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
                join_all(map.servers.iter().map(|(_, server)| server.connected())).await;
                return;
            }
            found.await;
        }
    }

    /// Whether any server can be asked.
    pub(super) fn is_connected(&self) -> bool {
        self.map.load().servers.iter().any(|(_, server)| server.home().is_up())
    }

    /// Of the server that has the first slot: their clocks are taken for one.
    pub(super) fn clock_offset_ms(&self) -> i64 {
        self.map.load().owner(0).map_or(0, |server| server.home().clock_offset_ms())
    }

    /// A server that can be asked, if there is one.
    pub(super) fn any(&self) -> Option<Arc<Server>> {
        let map = self.map.load();
        let mut servers = map.servers.iter().map(|(_, server)| server);
        let up = servers.clone().find(|server| server.home().is_up());
        up.or_else(|| servers.next()).map(Arc::clone)
    }

    /// All that have slots.
    pub(super) fn all(&self) -> Vec<Arc<Server>> {
        self.map.load().servers.iter().map(|(_, server)| Arc::clone(server)).collect()
    }

    /// Who has the slot.
    pub(super) fn owner(&self, slot: u16) -> Option<Arc<Server>> {
        self.map.load().owner(slot).map(Arc::clone)
    }

    /// A number that is the same for slots of one server.
    pub(super) fn server(&self, slot: u16) -> usize {
        self.map.load().at(slot)
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
            let sent = self.server_of(&errand).exchange(pipeline, &self.scripts, deadline);
            let result = sent.await;
            errands = self.settle(errand, result, &mut replies);
        }
        let pipeline = &*pipeline;
        let carry_out = |errand| self.carry_out(errand, pipeline, deadline);
        let mut under_way: FuturesUnordered<_> = errands.into_iter().map(carry_out).collect();
        // Each for itself: one that waits for a silent server must not hold up what another one
        // sent on.
        while let Some((errand, result)) = under_way.next().await {
            under_way.extend(self.settle(errand, result, &mut replies).into_iter().map(carry_out));
        }
        replies
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
                        None => map.servers.first().map(|(_, server)| server),
                    };
                    let Some(server) = server else {
                        self.look.notify_one();
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
        let server = self.server_of(&errand);
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

    fn server_of<'a>(&self, errand: &'a Errand) -> &'a Server {
        if self.joined[shard::mine()].load(Ordering::Relaxed) {
            // A server may have come later than the thread.
            errand.server.join(&self.settings, &self.scripts);
        }
        &errand.server
    }

    /// The units of an errand that must be sent once more, and where to.
    fn sent_on(&self, errand: Errand, replies: &[Reply<Value>]) -> Vec<(Unit, To)> {
        let host = errand.server.node.host();
        let mut again = Vec::new();
        for (unit, _) in errand.units {
            let own = replies.get(unit.commands.clone()).unwrap_or_default();
            let mut own = own.iter().filter_map(|reply| reply.as_ref().ok());
            match own.clone().find_map(|reply| Redirect::of(reply, host)) {
                Some(Redirect::Moved(slot, address)) => {
                    self.moved(slot, address);
                    again.push((unit, To::Owner));
                }
                Some(Redirect::Ask(address)) => {
                    let to = self.server_at(&address).map_or(To::OwnerLater, To::Asking);
                    again.push((unit, to));
                }
                Some(Redirect::TryAgain) => again.push((unit, To::OwnerLater)),
                None if own.any(is_down) => self.look.notify_one(),
                None => {}
            }
        }
        again
    }

    /// A server said that the slot is at `address` now.
    fn moved(&self, slot: u16, address: Address) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let map = self.map.load_full();
        let known = map.servers.iter().position(|(known, _)| *known == address);
        let at = known.unwrap_or(map.servers.len());
        if map.at(slot) != at || at == map.servers.len() {
            let mut map = Map::clone(&map);
            if at == map.servers.len() {
                if at >= SERVERS_MAX {
                    return;
                }
                let server = self.known_or_new(&map, &address);
                server.node.enters_service();
                map.servers.push((address, server));
            }
            if let (Some(place), Ok(at)) =
                (map.by_slot.get_mut(usize::from(slot)), u16::try_from(at))
            {
                *place = at;
            }
            self.map.store(Arc::new(map));
        }
        self.look.notify_one();
    }

    /// A known server, or a new one that has no slots yet; nothing where there are too many.
    fn server_at(&self, address: &Address) -> Option<Arc<Server>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let map = self.map.load_full();
        if let Some(server) = map.known(address) {
            return Some(Arc::clone(server));
        }
        if map.servers.len() >= SERVERS_MAX {
            return None;
        }
        let server = self.start(address);
        let mut map = Map::clone(&map);
        map.servers.push((address.clone(), Arc::clone(&server)));
        self.map.store(Arc::new(map));
        Some(server)
    }

    fn known_or_new(&self, map: &Map, address: &Address) -> Arc<Server> {
        map.known(address).map_or_else(|| self.start(address), Arc::clone)
    }

    fn start(&self, address: &Address) -> Arc<Server> {
        let _home = self.home.enter();
        Arc::new(Server::start(&self.settings, node(address, &self.credentials), &self.scripts))
    }

    /// Takes a view for true. False when it is what was known.
    fn adopt(&self, view: &View) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.map.load_full();
        let is_older = view.epoch < old.epoch && !view.is_ok;
        if view.ranges.is_empty() || is_older {
            return false;
        }
        let mut map = Map { epoch: view.epoch, ..Map::empty() };
        let with_server = |address: &Address| (address.clone(), self.known_or_new(&old, address));
        map.servers.extend(view.primaries.iter().map(with_server));
        map.replicas.extend(view.replicas.iter().map(with_server));
        for (first, last, at) in &view.ranges {
            if let Some(slots) = map.by_slot.get_mut(usize::from(*first)..=usize::from(*last)) {
                slots.fill(*at);
            }
        }
        let names =
            |map: &Map| map.servers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let is_new = names(&map) != names(&old) || map.by_slot != old.by_slot;
        let was_asked = |address: &Address| old.servers.iter().any(|(known, _)| known == address);
        for (_, server) in map.servers.iter().filter(|(address, _)| !was_asked(address)) {
            server.node.enters_service();
        }
        self.map.store(Arc::new(map));
        self.found.notify_waiters();
        is_new
    }

    /// Asks some servers how the cluster is. False when nothing was learned.
    async fn look(&self) -> bool {
        let map = self.map.load_full();
        let mut up: Vec<_> = map.servers.iter().filter(|(_, it)| it.home().is_up()).collect();
        fastrand::shuffle(&mut up);
        up.truncate(ASKED_MAX);
        let views = up.into_iter().map(|(address, server)| self.view_of(address, server));
        let mut best = best(join_all(views).await.into_iter().flatten());
        if best.is_none() {
            let replicas = map.replicas.iter().map(|(address, _)| address);
            for address in replicas.chain(&self.seeds) {
                best = self.view_from(address).await;
                if best.is_some() {
                    break;
                }
            }
        }
        best.is_some_and(|view| self.adopt(&view))
    }

    /// What a server that is connected says.
    async fn view_of(&self, address: &Address, server: &Server) -> Option<View> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        let replies = server.home().exchange(&mut questions(), deadline).await.ok()?;
        View::read(replies.first()?, replies.get(1)?, address)
    }

    /// What one says that is not.
    async fn view_from(&self, address: &Address) -> Option<View> {
        let (node, material) = (&node(address, &self.credentials), &self.credentials.now());
        let call = Call { settings: &self.settings, node, material, purpose: Purpose::Map };
        let asked = async {
            let connection = call.dial(|_| {}).await.ok()?;
            connection.send(&questions()).await.ok()
        };
        let replies = tokio::time::timeout(self.settings.connect_timeout, asked).await.ok()??;
        if let Some(error) = replies.iter().find_map(server_error) {
            tracing::warn!(%error, node = %format_args!("{}:{}", address.0, address.1),
                "a server does not say how its Redis Cluster is");
        }
        View::read(replies.first()?, replies.get(1)?, address)
    }

    fn is_whole(&self) -> bool {
        self.map.load().servers.iter().all(|(_, server)| server.home().is_up())
    }
}

/// Looks at the cluster again and again. Ends when it is dropped.
async fn keep_map(cluster: Weak<Cluster>, look: Arc<Notify>) {
    let mut pause = LOOK_PAUSE_MIN;
    loop {
        let Some(strong) = cluster.upgrade() else { return };
        let is_new = strong.look().await;
        let longest = if strong.is_whole() { LOOK_PAUSE } else { LOOK_PAUSE_LOST };
        drop(strong);
        pause = if is_new { LOOK_PAUSE_MIN } else { (pause * 2).min(longest) };
        tokio::time::sleep(pause).await;
        tokio::select! {
            () = look.notified() => {}
            () = tokio::time::sleep(longest.saturating_sub(pause)) => {}
        }
    }
}

fn node(address: &Address, credentials: &Arc<Credentials>) -> Node {
    let (host, port) = address.clone();
    Node::of_cluster(&StoreUrl::Redis { host, port, db: 0 }, credentials)
}

fn questions() -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(3);
    pipeline.cmd("CLUSTER").arg("INFO");
    pipeline.cmd("CLUSTER").arg("SLOTS");
    pipeline
}

fn best(views: impl Iterator<Item = View>) -> Option<View> {
    views.reduce(|best, view| if view.beats(&best) { view } else { best })
}

/// Whether a server says that it cannot serve what it is asked.
fn is_down(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error)
        if matches!(error.code(), "CLUSTERDOWN" | "READONLY" | "MASTERDOWN"))
}

/// Commands that go to one server together: one, or a transaction.
#[derive(Debug, Clone)]
struct Unit {
    commands: Range<usize>,
    slot: Option<u16>,
}

impl Unit {
    fn fail(&self, error: &StoreError, replies: &mut [Reply<Value>]) {
        replies.get_mut(self.commands.clone()).unwrap_or_default().fill(Err(error.clone()));
    }

    fn of(pipeline: &Pipeline) -> Vec<Self> {
        let mut units: Vec<Self> = Vec::with_capacity(pipeline.len());
        let mut is_open = false;
        for (at, command) in pipeline.cmd_iter().enumerate() {
            let slot = key_of(command).map(slot);
            match units.last_mut().filter(|_| is_open) {
                Some(unit) => {
                    unit.commands.end = at + 1;
                    unit.slot = unit.slot.or(slot);
                }
                None => units.push(Self { commands: at..at + 1, slot }),
            }
            match verb(command) {
                b"MULTI" => is_open = true,
                b"EXEC" => is_open = false,
                _ => {}
            }
        }
        units
    }
}

fn verb(command: &Cmd) -> &[u8] {
    match command.args_iter().next() {
        Some(redis::Arg::Simple(verb)) => verb,
        _ => b"",
    }
}

/// Where a unit goes.
#[derive(Debug)]
enum To {
    /// To who has its slot.
    Owner,
    /// The same, after a pause.
    OwnerLater,
    /// To who is about to get its slot.
    Asking(Arc<Server>),
}

/// What goes to one server, and whether each unit is asked for there before its time.
#[derive(Debug)]
struct Errand {
    server: Arc<Server>,
    units: Vec<(Unit, bool)>,
    /// How many times its units were sent on.
    round: usize,
    /// Whether there is a pause before it.
    is_late: bool,
}

impl Errand {
    /// Whether it is the pipeline as it stands.
    fn is_all_of(&self, pipeline: &Pipeline) -> bool {
        let commands: usize = self.units.iter().map(|(unit, _)| unit.commands.len()).sum();
        commands == pipeline.len() && self.units.iter().all(|(_, is_asking)| !is_asking)
    }

    fn commands(&self, pipeline: &Pipeline) -> Pipeline {
        let all: usize = self.units.iter().map(|(unit, _)| unit.commands.len() + 1).sum();
        let mut own = Pipeline::with_capacity(all + 1);
        for (unit, is_asking) in &self.units {
            if *is_asking {
                // It holds for the next command, or all of a transaction.
                own.cmd("ASKING");
            }
            for command in pipeline.cmd_iter().skip(unit.commands.start).take(unit.commands.len()) {
                own.add_command(command.clone());
            }
        }
        own
    }

    /// Puts the replies where their commands stand.
    fn take(&self, values: Vec<Value>, replies: &mut [Reply<Value>]) {
        let mut values = values.into_iter();
        for (unit, is_asking) in &self.units {
            if *is_asking {
                values.next();
            }
            for reply in replies.get_mut(unit.commands.clone()).unwrap_or_default() {
                *reply = Ok(values.next().unwrap_or_default());
            }
        }
    }
}

#[cfg(test)]
mod tests;
