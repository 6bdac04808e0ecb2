//! Which server of a Redis Cluster has which slots, as this process knows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::server::Server;
use super::slots::{Address, Member, SERVERS_MAX, View};
use crate::store::keys::SLOTS;

/// How long a server is kept that no view names any more. A primary that has just become a replica
/// is named by nobody until its word of that has gone round, which takes a second or so, and may be
/// the primary again by then.
const FORMER_FOR: Duration = Duration::from_secs(3);

/// Who has which slots.
#[derive(Debug)]
pub(super) struct Map {
    /// How new it is.
    pub(super) epoch: u64,
    /// By slot: a place among the servers, or beyond them where nobody is known to have it. One
    /// that has moved to a known server is changed in place: a map is 32 KiB, and a stale one is
    /// told of slot by slot.
    by_slot: Box<[AtomicU16]>,
    /// The primaries, and whoever else was told to be asked.
    pub(super) servers: Vec<Known>,
    /// Connected too, so that one of them can be asked the moment it is promoted.
    pub(super) replicas: Vec<Known>,
    /// Those that were among them, and since when they are not.
    former: Vec<(Known, Instant)>,
    /// Since when views name nobody for some slots.
    lacking: Option<Instant>,
}

/// A server, and how it is called.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) member: Member,
    pub(super) server: Arc<Server>,
    /// The same replica, for reading alone: connections that ask a replica never lead to a primary.
    pub(super) reader: Option<Arc<Server>>,
}

impl Known {
    /// One that nothing is read from as from a replica.
    pub(super) fn new(member: Member, server: Arc<Server>) -> Self {
        Self { member, server, reader: None }
    }
}

impl Map {
    /// Nobody has anything.
    pub(super) fn empty() -> Self {
        Self::of(0, (0..SLOTS).map(|_| AtomicU16::new(u16::MAX)).collect(), Vec::new(), Vec::new())
    }

    fn of(
        epoch: u64,
        by_slot: Box<[AtomicU16]>,
        servers: Vec<Known>,
        replicas: Vec<Known>,
    ) -> Self {
        Self { epoch, by_slot, servers, replicas, former: Vec::new(), lacking: None }
    }

    /// What a view says; `server` finds who is called so, or makes it.
    pub(super) fn of_view(view: &View, mut server: impl FnMut(&Member) -> Arc<Server>) -> Self {
        let mut known = |member: &Member| Known::new(member.clone(), server(member));
        let servers = view.primaries.iter().map(&mut known).collect();
        let replicas = view.replicas.iter().map(&mut known).collect();
        let map = Self { epoch: view.epoch, servers, replicas, ..Self::empty() };
        for (first, last, at) in &view.ranges {
            (*first..=*last).for_each(|slot| map.give(slot, usize::from(*at)));
        }
        map
    }

    /// The same with one more server, which has no slots yet, and its place.
    pub(super) fn with(&self, more: Known) -> (Self, usize) {
        let by_slot = self.by_slot.iter().map(|at| AtomicU16::new(at.load(Ordering::Relaxed)));
        let mut servers = self.servers.clone();
        more.server.node.is_named(true);
        servers.push(more);
        let at = servers.len() - 1;
        let more = Self::of(self.epoch, by_slot.collect(), servers, self.replicas.clone());
        (Self { former: self.former.clone(), lacking: self.lacking, ..more }, at)
    }

    /// The place of who has the slot.
    pub(super) fn at(&self, slot: u16) -> usize {
        let at = self.by_slot.get(usize::from(slot));
        at.map_or(usize::MAX, |at| usize::from(at.load(Ordering::Relaxed)))
    }

    /// The server at that place has the slot from now on.
    pub(super) fn give(&self, slot: u16, at: usize) {
        if let (Some(place), Ok(at)) = (self.by_slot.get(usize::from(slot)), u16::try_from(at)) {
            place.store(at, Ordering::Relaxed);
        }
    }

    /// Who has the slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&Arc<Server>> {
        self.servers.get(self.at(slot)).map(|known| &known.server)
    }

    /// The place of the server that is called so.
    pub(super) fn position(&self, address: &Address) -> Option<usize> {
        self.servers.iter().position(|known| known.member.is_at(address))
    }

    /// Who is called so.
    pub(super) fn at_address(&self, address: &Address) -> Option<&Arc<Server>> {
        self.all().find(|known| known.member.is_at(address)).map(|known| &known.server)
    }

    /// All servers, those that are not named any more last.
    fn all(&self) -> impl Iterator<Item = &Known> {
        self.servers.iter().chain(self.others())
    }

    /// Those that are no primaries, or not named any more.
    pub(super) fn others(&self) -> impl Iterator<Item = &Known> {
        self.replicas.iter().chain(self.former.iter().map(|(known, _)| known))
    }

    /// Whether a server was known, and as no primary.
    pub(super) fn is_other(&self, server: &Arc<Server>) -> bool {
        let is_it = |known: &Known| Arc::ptr_eq(&known.server, server);
        !self.servers.iter().any(is_it) && self.others().any(is_it)
    }

    /// Leaves slots for a while with who had them before, where nobody is named for them. A server
    /// that hears of a new replica before it hears of the new primary takes the slots of both for
    /// nobody's, and whoever had them last says where they are, or that the cluster is down.
    pub(super) fn keep_slots(&mut self, old: &Self) {
        let lacking: Vec<u16> = (0..SLOTS).filter(|slot| self.owner(*slot).is_none()).collect();
        if lacking.is_empty() {
            return;
        }
        let since = old.lacking.unwrap_or_else(Instant::now);
        self.lacking = Some(since);
        if since.elapsed() >= FORMER_FOR {
            return;
        }
        for slot in lacking {
            let Some(known) = old.servers.get(old.at(slot)) else { continue };
            let is_it = |it: &Known| Arc::ptr_eq(&it.server, &known.server);
            let at = self.servers.iter().position(is_it).unwrap_or_else(|| {
                self.servers.push(known.clone());
                self.servers.len() - 1
            });
            self.give(slot, at);
        }
    }

    /// Keeps for a while who was known before, and is not named now.
    pub(super) fn keep_former(&mut self, old: &Self) {
        let (now, before) = (Instant::now(), old.former.iter().cloned());
        let named = old.servers.iter().chain(&old.replicas).map(|known| (known.clone(), now));
        let former = before.chain(named).filter(|(known, since)| {
            let is_it = |it: &Known| Arc::ptr_eq(&it.server, &known.server);
            let is_named = self.servers.iter().chain(&self.replicas).any(is_it);
            known.server.node.is_named(is_named);
            !is_named && now.saturating_duration_since(*since) < FORMER_FOR
        });
        self.former = former.take(SERVERS_MAX).collect();
        // Threads have connections to primaries.
        let others = self.replicas.iter_mut().chain(self.former.iter_mut().map(|(it, _)| it));
        for known in others {
            if old.servers.iter().any(|it| Arc::ptr_eq(&it.server, &known.server)) {
                known.server = Arc::new(known.server.unjoined());
            }
        }
    }

    /// The server that a view calls so. Another one at the same address is none.
    pub(super) fn member(&self, member: &Member) -> Option<&Arc<Server>> {
        let is_it = |known: &&Known| {
            known.member.address == member.address && known.server.node.may_be(member.id.as_deref())
        };
        self.all().find(is_it).map(|known| &known.server)
    }

    /// Whether a view is of the cluster that is known: they have a server in common.
    pub(super) fn is_of(&self, view: &View) -> bool {
        let all = || self.servers.iter().chain(&self.replicas);
        let known = || all().filter_map(|known| known.member.id.as_deref());
        let mut named =
            view.primaries.iter().chain(&view.replicas).filter_map(|it| it.id.as_deref());
        known().next().is_none() || named.any(|id| known().any(|known| known == id))
    }

    /// Whether a view is of this cluster, as it was before. Another one, that the operator calls
    /// this one, counts its own epochs.
    pub(super) fn is_newer_than(&self, view: &View) -> bool {
        view.epoch < self.epoch && self.is_of(view)
    }

    /// Who reads as a replica of the primary with this slot, and can be asked.
    pub(super) fn readers(&self, slot: u16) -> impl Iterator<Item = &Arc<Server>> {
        let at = u16::try_from(self.at(slot)).ok();
        let of = self.replicas.iter().filter(move |known| at.is_some() && known.member.of == at);
        of.filter_map(|known| known.reader.as_ref()).filter(|reader| reader.home().is_up())
    }

    /// Gives each replica one who reads there: who did before, or a new one.
    pub(super) fn read_by(&mut self, old: &Self, start: impl Fn(&Member) -> Arc<Server>) {
        for known in &mut self.replicas {
            let same = |it: &&Known| Arc::ptr_eq(&it.server, &known.server);
            let former = old.replicas.iter().find(same).and_then(|it| it.reader.clone());
            known.reader = Some(former.unwrap_or_else(|| start(&known.member)));
        }
    }

    /// Tells each server of one slot that is its own, or its primary's.
    pub(super) fn tell_slots(&self, view: &View) {
        let mut slots = vec![SLOTS; self.servers.len()];
        for (slot, _, at) in &view.ranges {
            if let Some(own) = slots.get_mut(usize::from(*at)) {
                *own = *slot;
            }
        }
        let at = |at: Option<u16>| slots.get(usize::from(at?)).copied();
        for (known, slot) in self.servers.iter().zip(&slots) {
            known.server.node.has_slot(*slot);
        }
        for Known { member, server, reader } in &self.replicas {
            let slot = at(member.of).unwrap_or(SLOTS);
            [Some(server), reader.as_ref()].into_iter().flatten().for_each(|it| {
                it.node.has_slot(slot);
            });
        }
    }

    /// Whether a server has the same slots in both.
    pub(super) fn gives_the_same(&self, other: &Self, known: &Known) -> bool {
        let has = |map: &Self, slot| {
            map.owner(slot).is_some_and(|server| Arc::ptr_eq(server, &known.server))
        };
        (0..SLOTS).all(|slot| has(self, slot) == has(other, slot))
    }

    /// Whether it says the same as another one.
    pub(super) fn says_what(&self, other: &Self) -> bool {
        let places = |map: &Self| map.by_slot.iter().map(|at| at.load(Ordering::Relaxed)).collect();
        let (own, others): (Vec<u16>, Vec<u16>) = (places(self), places(other));
        let is_same = |(one, other): (&Known, &Known)| {
            one.member.address == other.member.address && Arc::ptr_eq(&one.server, &other.server)
        };
        own == others
            && self.servers.len() == other.servers.len()
            && self.servers.iter().zip(&other.servers).all(is_same)
    }
}
