//! Redis under Sentinel: one server at a time, the one that the sentinels say is the primary.
//!
//! One task hears what they say (`sentinel`) and believes some of it (`claims`). A successor is
//! connected to before requests go to it, so that a planned fail-over costs none of them. What was
//! asked of the former one is answered there, and then its connections end. Without any sentinel
//! the primary stays the one that was known.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{Pipeline, Value};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::claims::{Claim, View, choose};
use super::common::Common;
use super::node::Node;
use super::probe::is_replica;
use super::rung::Cause;
use super::scripts::Scripts;
use super::sentinel::{Said, Sentinel, Speech, follow_files};
use super::server::Server;
use super::slots::Address;
use crate::base::shard::{self, SHARDS};
use crate::config::{self, SENTINELS_MAX, StoreUrl};
use crate::store::StoreError;

/// Pause between two looks whether the primary is still one.
const ROLE_PAUSE: Duration = Duration::from_secs(1);
/// How long a server that said it is a replica is not asked again.
const REFUTED_FOR: Duration = Duration::from_millis(500);
/// How long it is remembered that a replica was promoted.
const PROMOTED_FOR: Duration = Duration::from_secs(10);
/// How long one sentinel does not answer before the log says so.
const AWAY_TOLD_AFTER: Duration = Duration::from_secs(2);
/// What sentinels said and nobody has heard yet.
const SAID_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Sentinels {
    settings: config::Store,
    scripts: Arc<Scripts>,
    common: Arc<Common>,
    current: ArcSwapOption<Primary>,
    /// Counts primaries.
    moves: watch::Sender<u64>,
    /// Wakes when a connection to a primary is given up.
    lost: Arc<Notify>,
    /// Threads that have connections of their own.
    joined: [AtomicBool; SHARDS],
    /// Asks for a look at the files of what sentinels are asked with.
    pub(super) look_at_files: Arc<Notify>,
}

#[derive(Debug)]
struct Primary {
    address: Address,
    server: Arc<Server>,
}

impl Sentinels {
    /// Begins to ask the sentinels; returns before one has answered. Must be called within a tokio
    /// runtime.
    pub(super) fn open(
        settings: &config::Store,
        scripts: &Arc<Scripts>,
        common: &Arc<Common>,
        named: &[Address],
        watched: &str,
    ) -> Arc<Self> {
        let speech = Arc::new(Speech::of(settings, watched));
        let credentials = &speech.common.credentials;
        let look_at_files = Arc::clone(&credentials.look);
        if credentials.have_files() {
            tokio::spawn(follow_files(Arc::downgrade(&speech), named.to_vec()));
        }
        let sentinels = Arc::new(Self {
            settings: settings.clone(),
            scripts: Arc::clone(scripts),
            common: Arc::clone(common),
            current: ArcSwapOption::empty(),
            moves: watch::Sender::new(0),
            lost: Arc::default(),
            joined: Default::default(),
            look_at_files,
        });
        let (tell, said) = mpsc::channel(SAID_MAX);
        let mut watcher = Watcher {
            speech,
            known: Vec::new(),
            is_lost: watch::Sender::new(true),
            tell,
            floor: 0,
            refuted: Vec::new(),
            promoted: None,
            left: None,
            is_in_doubt: false,
        };
        named.iter().for_each(|address| watcher.add(address, true));
        tokio::spawn(watcher.watch(Arc::downgrade(&sentinels), said, Arc::clone(&sentinels.lost)));
        sentinels
    }

    /// Gives the current thread connections of its own, driven by its own runtime.
    pub(super) fn join(&self) {
        self.joined[shard::mine()].store(true, Ordering::Relaxed);
        if let Some(server) = self.current() {
            server.join(&self.settings, &self.scripts);
        }
    }

    /// What the current thread asks; nothing while no primary is known.
    pub(super) fn current(&self) -> Option<Arc<Server>> {
        self.current.load().as_ref().map(|primary| Arc::clone(&primary.server))
    }

    /// Returns once the current thread can ask.
    pub(super) async fn connected(&self) {
        let mut moves = self.moves();
        loop {
            moves.mark_unchanged();
            let connected = async {
                match self.current() {
                    Some(server) => server.connected().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = connected => return,
                _ = moves.changed() => {}
            }
        }
    }

    /// Whether the primary can be asked.
    pub(super) fn is_connected(&self) -> bool {
        self.current.load().as_ref().is_some_and(|primary| primary.is_up())
    }

    pub(super) fn clock_offset_ms(&self) -> i64 {
        self.current().map_or(0, |server| server.home().clock_offset_ms())
    }

    /// Tells when another server is the primary.
    pub(super) fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// See [`super::topology::Topology::run`].
    pub(super) async fn run(
        &self,
        pipeline: &mut Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        let Some(server) = self.current() else {
            self.common.note_unowned();
            return Err(StoreError::Unavailable);
        };
        if self.joined[shard::mine()].load(Ordering::Relaxed) {
            // The server may have come later than the thread.
            server.join(&self.settings, &self.scripts);
        }
        server.exchange(pipeline, &self.scripts, deadline).await
    }

    /// Connects to what is said to be the primary, and has it asked from then on; without a
    /// connection too, where `is_known` and it does not say anything else of itself. False when it
    /// is not asked.
    async fn move_to(&self, address: &Address, is_known: bool) -> bool {
        let (host, port) = address.clone();
        let url = StoreUrl::Redis { host, port, db: 0 };
        let node = Node::of_sentinels(&url, &self.common, &self.lost);
        let server = Arc::new(Server::start(&self.settings, node, &self.scripts));
        let is_asked = tokio::select! {
            () = server.home().connected() => true,
            () = server.node.refused_to_lead() => false,
            () = tokio::time::sleep(self.settings.connect_timeout) => is_known,
        };
        if is_asked {
            let (host, port) = address;
            tracing::info!(server = %format_args!("{host}:{port}"), "sentinels know the primary");
            self.current.store(Some(Arc::new(Primary { address: address.clone(), server })));
            self.moves.send_modify(|moves| *moves += 1);
        }
        is_asked
    }

    /// Whether the primary still says that it is one; if not, nothing is asked of it any more.
    async fn check_role(&self) {
        let Some(server) = self.current() else { return };
        let mut question = redis::pipe();
        question.cmd("HELLO");
        let deadline = Instant::now() + self.settings.connect_timeout;
        let replies = server.home().exchange(&mut question, deadline).await;
        if replies.is_ok_and(|replies| replies.first().is_some_and(is_replica)) {
            server.node.give_all_up(Cause::Refused("READONLY"));
        }
    }
}

impl Primary {
    fn is_up(&self) -> bool {
        self.server.home().is_up()
    }
}

/// A sentinel, and what it said last.
#[derive(Debug)]
struct Known {
    address: Address,
    /// Whether `store.url` names it.
    is_named: bool,
    /// That it has not answered, or answers no more.
    away: Option<Away>,
    view: Option<View>,
    task: AbortHandle,
}

impl Known {
    /// Whether it has said nothing yet, and may still.
    fn is_awaited(&self) -> bool {
        self.view.is_none() && self.away.is_none()
    }
}

/// A sentinel does not answer.
#[derive(Debug)]
struct Away {
    since: Instant,
    why: String,
    /// Whether the log says so.
    is_told: bool,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who hears them all.
struct Watcher {
    speech: Arc<Speech>,
    known: Vec<Known>,
    is_lost: watch::Sender<bool>,
    tell: mpsc::Sender<(Address, Said)>,
    /// Of which fail-over the primary is.
    floor: u64,
    /// Who said that it is a replica, and when.
    refuted: Vec<(Address, Instant)>,
    /// Who was promoted last.
    promoted: Option<(Address, Instant)>,
    /// Whom a promoted replica was followed away from, before most sentinels said so.
    left: Option<Address>,
    /// Whether the log says that most sentinels do not answer.
    is_in_doubt: bool,
}

impl Watcher {
    /// Ends when the store is dropped.
    async fn watch(
        mut self,
        sentinels: Weak<Sentinels>,
        mut said: mpsc::Receiver<(Address, Said)>,
        lost: Arc<Notify>,
    ) {
        let mut roles = tokio::time::interval(ROLE_PAUSE);
        roles.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut is_due = false;
            tokio::select! {
                Some((address, said)) = said.recv() => self.hear(&address, said),
                () = lost.notified() => {}
                _ = roles.tick() => is_due = true,
            }
            let Some(sentinels) = sentinels.upgrade() else { return };
            if is_due {
                self.tell_who_is_away();
                sentinels.check_role().await;
            }
            self.follow_promotion(&sentinels).await;
            self.follow_claims(&sentinels).await;
            let is_lost = !sentinels.is_connected();
            self.is_lost.send_if_modified(|known| std::mem::replace(known, is_lost) != is_lost);
        }
    }

    fn add(&mut self, address: &Address, is_named: bool) {
        let sentinel = Sentinel {
            speech: Arc::clone(&self.speech),
            address: address.clone(),
            is_lost: self.is_lost.subscribe(),
            tell: self.tell.clone(),
        };
        let task = tokio::spawn(sentinel.follow()).abort_handle();
        let address = address.clone();
        self.known.push(Known { address, is_named, away: None, view: None, task });
    }

    fn hear(&mut self, address: &Address, said: Said) {
        let Some(known) = self.known.iter_mut().find(|known| known.address == *address) else {
            return;
        };
        match said {
            Said::View(view) => {
                let is_new = known
                    .view
                    .as_ref()
                    .is_none_or(|old| (&old.others, &old.id) != (&view.others, &view.id));
                known.away = None;
                known.view = Some(view);
                if is_new {
                    self.find_others();
                }
            }
            Said::Promoted(promoted) => self.promoted = Some((promoted, Instant::now())),
            Said::Nothing(why) => {
                let former = known.away.take().map(|away| (away.since, away.is_told));
                let (since, is_told) = former.unwrap_or_else(|| (Instant::now(), false));
                known.away = Some(Away { since, why, is_told });
                known.view = None;
            }
        }
        self.tell_doubt();
    }

    /// Says once that most sentinels do not answer, and once that they do again.
    fn tell_doubt(&mut self) {
        let (known, away) = (self.known.len(), self.known.iter().filter_map(|it| it.away.as_ref()));
        let is_in_doubt = known - away.clone().count() <= known / 2;
        if std::mem::replace(&mut self.is_in_doubt, is_in_doubt) == is_in_doubt {
            return;
        }
        if is_in_doubt {
            let error = away.max_by_key(|away| away.since).map(|away| &away.why);
            tracing::warn!(
                error,
                sentinels = known,
                "most sentinels do not say where the primary is; following what is known of the \
                 latest fail-over"
            );
        } else {
            // Those that were away with them have their time to come back.
            let away = self.known.iter_mut().filter_map(|known| known.away.as_mut());
            away.for_each(|away| away.since = Instant::now());
            tracing::info!("most sentinels say where the primary is");
        }
    }

    /// Says of each sentinel once that it does not answer, unless most do not.
    fn tell_who_is_away(&mut self) {
        if self.is_in_doubt {
            return;
        }
        for Known { address: (host, port), away, .. } in &mut self.known {
            if let Some(away) = away.as_mut().filter(|away| !away.is_told)
                && away.since.elapsed() >= AWAY_TOLD_AFTER
            {
                away.is_told = true;
                tracing::warn!(
                    error = away.why,
                    sentinel = %format_args!("{host}:{port}"),
                    "a sentinel does not say where the primary is; trying on"
                );
            }
        }
    }

    /// Follows the sentinels that others know, and no more those that none does. One that is named
    /// under another address counts once.
    fn find_others(&mut self) {
        let views = || self.known.iter().filter_map(|known| known.view.as_ref());
        let named = self.known.iter().filter(|known| known.is_named);
        let named: Vec<_> = named.filter_map(|known| known.view.as_ref()?.id.clone()).collect();
        let mut wanted: Vec<Address> = Vec::new();
        for (address, id) in views().flat_map(|view| &view.others) {
            let is_named = id.as_ref().is_some_and(|id| named.contains(id));
            if !is_named && !wanted.contains(address) {
                wanted.push(address.clone());
            }
        }
        self.known.retain(|known| known.is_named || wanted.contains(&known.address));
        for address in wanted {
            let is_known = self.known.iter().any(|known| known.address == address);
            if !is_known && self.known.len() < SENTINELS_MAX {
                self.add(&address, false);
            }
        }
    }

    /// What is to be believed now.
    fn claim(&mut self) -> Option<Claim> {
        self.refuted.retain(|(_, at)| at.elapsed() < REFUTED_FOR);
        let refuted: Vec<Address> = self.refuted.iter().map(|(it, _)| it.clone()).collect();
        let mut views: Vec<&View> = Vec::new();
        let mut known = self.known.len();
        for view in self.known.iter().filter_map(|known| known.view.as_ref()) {
            if view.id.is_some() && views.iter().any(|other| other.id == view.id) {
                known -= 1;
            } else {
                views.push(view);
            }
        }
        choose(&views, known, self.floor, &refuted)
    }

    async fn follow_claims(&mut self, sentinels: &Sentinels) {
        while let Some(Claim { primary, epoch, is_of_most }) = self.claim() {
            let current = sentinels.current.load_full();
            let is_up = current.as_ref().is_some_and(|current| current.is_up());
            if current.is_none() && !is_of_most && self.known.iter().any(Known::is_awaited) {
                // At the start who answers first may be who was away for long.
                return;
            }
            if current.is_some_and(|current| current.address == primary) {
                self.left = None;
            } else if is_up && self.left.as_ref() == Some(&primary) {
                // Most sentinels do not know of the promotion yet.
                return;
            } else if sentinels.move_to(&primary, true).await {
                self.left = None;
            } else {
                self.refuted.push((primary, Instant::now()));
                continue;
            }
            self.floor = epoch;
            return;
        }
    }

    /// The primary is lost, and a sentinel has promoted another one: it takes writes some time
    /// before sentinels say that it is the primary.
    async fn follow_promotion(&mut self, sentinels: &Sentinels) {
        if sentinels.is_connected() {
            return;
        }
        let Some((promoted, at)) = self.promoted.take() else { return };
        let former = sentinels.current.load().as_ref().map(|current| current.address.clone());
        let is_news = at.elapsed() < PROMOTED_FOR && former.as_ref() != Some(&promoted);
        if is_news && sentinels.move_to(&promoted, false).await {
            self.left = former;
        }
    }
}
