//! One shard of a queue in the embedded store: what the scripts do on Redis, in the same words.

mod follow;
mod look;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::store::queue::{
    Accept, Accepted, Again, Cancelled, Claim, DeliveryId, Hold, ItemState, KeptAnswer, NoteKey,
    Noted, Outcome, Pause, QUEUE_OPEN_TTL, QueueBounds, Requeued, Settle, Settled, Take, Taken,
};

/// Most items of which one call lets the time come.
const DUE_MAX: usize = 100;
/// Most records of what is done or cancelled, and most idempotency keys; the first to end give way.
const KEPT_MAX: usize = 100_000;
/// Most bytes of kept answers; one that does not fit is not kept.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Most bytes of bodies of dead items; the oldest give way.
const DEAD_BYTES_MAX: u64 = 64 << 20;

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[derive(Debug)]
struct Record {
    state: ItemState,
    token: u64,
    entry: Option<u64>,
    failures: u32,
    stalls: u32,
    head: Bytes,
    owner: String,
    give_up_ms: u64,
    due_ms: u64,
    accepted_ms: u64,
    /// When it was opened last: its place among those that are open.
    opened_ms: u64,
    settled_ms: Option<u64>,
    line: Option<String>,
    body: Bytes,
    /// Bytes of its body, also when that is gone.
    length: u64,
    node: String,
    status: u16,
    error: String,
    ends_ms: u64,
    answer: Option<KeptAnswer>,
    /// What followed from its ends, by what that is queued once for.
    followed: Vec<String>,
}

impl Record {
    /// Bytes that count: of its head and its body.
    fn bytes(&self) -> u64 {
        length(self.head.len()).saturating_add(self.length)
    }

    fn answer_bytes(&self) -> usize {
        self.answer.as_ref().map_or(0, |kept| kept.head.len() + kept.body.len())
    }
}

/// What an idempotency key stands for: which item, and which request.
#[derive(Debug)]
struct Known {
    id: DeliveryId,
    fingerprint: String,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shard {
    records: HashMap<DeliveryId, Record>,
    /// Ids by their entries, whose numbers grow; those up to `read` have been taken.
    ready: BTreeMap<u64, DeliveryId>,
    read: u64,
    entries: u64,
    /// When the claim of an entry was made or renewed.
    pending: BTreeMap<u64, u64>,
    later: BTreeSet<(u64, DeliveryId)>,
    open: BTreeSet<(u64, DeliveryId)>,
    dead: BTreeSet<(u64, DeliveryId)>,
    /// Those that are done or cancelled.
    kept: BTreeSet<(u64, DeliveryId)>,
    /// When each record ends.
    ends: BTreeSet<(u64, DeliveryId)>,
    lines: HashMap<String, VecDeque<DeliveryId>>,
    known: HashMap<String, Known>,
    known_ends: BTreeSet<(u64, String)>,
    pause: Option<(String, Option<u64>)>,
    bytes: u64,
    dead_bytes: u64,
    answer_bytes: usize,
}

impl Shard {
    /// Removes what has ended.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some((ends, id)) = self.ends.first().copied().filter(|(ends, _)| *ends <= now) {
            self.ends.remove(&(ends, id));
            self.remove(&id, now);
        }
        while let Some((ends, key)) = self.known_ends.first().filter(|(ends, _)| *ends <= now) {
            let ended = (*ends, key.clone());
            self.known.remove(&ended.1);
            self.known_ends.remove(&ended);
        }
        if self.pause.as_ref().is_some_and(|(_, until)| until.is_some_and(|until| until <= now)) {
            self.pause = None;
        }
    }

    /// Removes a record and all that names it.
    fn remove(&mut self, id: &DeliveryId, now: u64) {
        let Some(record) = self.records.remove(id) else { return };
        self.ends.remove(&(record.ends_ms, *id));
        self.later.remove(&(record.due_ms, *id));
        self.unready(record.entry);
        self.answer_bytes -= record.answer_bytes();
        let settled = record.settled_ms.unwrap_or_default();
        if self.dead.remove(&(settled, *id)) {
            self.dead_bytes -= record.bytes();
        }
        self.kept.remove(&(settled, *id));
        let is_open = self.open.remove(&(record.opened_ms, *id));
        if is_open {
            self.bytes -= record.bytes();
        }
        if is_open || self.is_first(record.line.as_deref(), id) {
            self.leave(record.line.as_deref(), id, now);
        }
    }

    fn unready(&mut self, entry: Option<u64>) {
        if let Some(entry) = entry {
            self.ready.remove(&entry);
            self.pending.remove(&entry);
        }
    }

    fn keep_until(&mut self, id: &DeliveryId, ends_ms: u64) {
        if let Some(record) = self.records.get_mut(id) {
            self.ends.remove(&(record.ends_ms, *id));
            record.ends_ms = ends_ms;
            self.ends.insert((ends_ms, *id));
        }
    }

    /// Its turn has come, or comes when it is due.
    fn make_ready(&mut self, id: &DeliveryId, now: u64) {
        let Some(record) = self.records.get_mut(id) else { return };
        record.state = ItemState::Waiting;
        if record.due_ms > now {
            record.entry = None;
            self.later.insert((record.due_ms, *id));
        } else {
            self.entries += 1;
            record.entry = Some(self.entries);
            self.ready.insert(self.entries, *id);
        }
    }

    /// True where it is the first.
    fn join(&mut self, line: Option<&str>, id: &DeliveryId) -> bool {
        let Some(line) = line else { return true };
        let line = self.lines.entry(line.to_owned()).or_default();
        line.push_back(*id);
        line.len() == 1
    }

    /// Whether it is the first of this line.
    fn is_first(&self, line: Option<&str>, id: &DeliveryId) -> bool {
        let line = line.and_then(|line| self.lines.get(line));
        line.is_some_and(|line| line.front() == Some(id))
    }

    fn leave(&mut self, name: Option<&str>, id: &DeliveryId, now: u64) {
        let Some(name) = name else { return };
        let Some(line) = self.lines.get_mut(name) else { return };
        let was_first = line.front() == Some(id);
        if let Some(at) = line.iter().position(|it| it == id) {
            line.remove(at);
        }
        let next = line.front().copied();
        if line.is_empty() {
            self.lines.remove(name);
        }
        if let Some(next) = next.filter(|_| was_first) {
            self.make_ready(&next, now);
        }
    }

    /// See [`crate::store::Store::queue_accept`].
    pub(super) fn accept(&mut self, accept: &Accept<'_>, now: u64) -> Accepted {
        if let Some(known) = self.look_up(accept) {
            return known;
        }
        let QueueBounds { items, bytes, ttl } = accept.bounds;
        let body_length = length(accept.body.len());
        let counted = length(accept.head.len()).saturating_add(body_length);
        let open = u64::try_from(self.open.len()).unwrap_or(u64::MAX);
        if open >= items || self.bytes.saturating_add(counted) > bytes {
            return Accepted::Full { items: open, bytes: self.bytes };
        }
        let id = accept.id;
        let due_ms = now.saturating_add(millis(accept.delay));
        if let Some(key) = accept.key {
            let Accept { fingerprint, key_ttl: ttl, .. } = *accept;
            self.note_key(NoteKey { key, id, fingerprint, ttl }, now);
        }
        let record = Record {
            state: ItemState::Waiting,
            token: 0,
            entry: None,
            failures: 0,
            stalls: 0,
            head: Bytes::copy_from_slice(accept.head),
            owner: accept.owner.to_owned(),
            give_up_ms: due_ms.saturating_add(millis(accept.max_age)),
            due_ms,
            accepted_ms: now,
            opened_ms: now,
            settled_ms: None,
            line: accept.order.map(str::to_owned),
            body: accept.body.clone(),
            length: body_length,
            node: String::new(),
            status: 0,
            error: String::new(),
            ends_ms: 0,
            answer: None,
            followed: Vec::new(),
        };
        self.records.insert(id, record);
        self.keep_until(&id, due_ms.saturating_add(millis(ttl)));
        self.open.insert((now, id));
        self.bytes += counted;
        self.queue_up(accept.order, &id, now);
        Accepted::New { accepted_ms: now, due_ms }
    }

    fn look_up(&self, accept: &Accept<'_>) -> Option<Accepted> {
        let again = |id: &DeliveryId| {
            let record = self.records.get(id)?;
            let Record { state, accepted_ms, due_ms, .. } = *record;
            Some(Again { state, accepted_ms, due_ms })
        };
        let own = |Again { accepted_ms, due_ms, .. }| Accepted::New { accepted_ms, due_ms };
        let Some(known) = accept.key.and_then(|key| self.known.get(key)) else {
            return again(&accept.id).map(own);
        };
        if known.fingerprint != accept.fingerprint {
            return Some(Accepted::Reused { id: known.id });
        }
        Some(match again(&known.id) {
            Some(now) if known.id == accept.id => own(now),
            now => Accepted::Again { id: known.id, now },
        })
    }

    /// See [`crate::store::Store::queue_note_key`].
    pub(super) fn note(&mut self, note: NoteKey<'_>, now: u64) -> Noted {
        match self.known.get(note.key) {
            Some(known) if known.id == note.id => Noted::Own,
            Some(known) if known.fingerprint == note.fingerprint => Noted::Same(known.id),
            Some(known) => Noted::Reused(known.id),
            None => {
                self.note_key(note, now);
                Noted::Own
            }
        }
    }

    /// Whether an idempotency key stands for this item.
    pub(super) fn knows(&self, key: &str, id: &DeliveryId) -> bool {
        self.known.get(key).is_some_and(|known| known.id == *id)
    }

    /// See [`crate::store::Store::queue_forget_key`].
    pub(super) fn forget(&mut self, key: &str, id: &DeliveryId) {
        if self.knows(key, id) {
            self.known.remove(key);
            self.known_ends.retain(|(_, of)| of != key);
        }
    }

    fn note_key(&mut self, note: NoteKey<'_>, now: u64) {
        let NoteKey { key, id, fingerprint, ttl } = note;
        if self.known.len() >= KEPT_MAX
            && let Some((_, first)) = self.known_ends.pop_first()
        {
            self.known.remove(&first);
        }
        let ends_ms = now.saturating_add(millis(ttl));
        let fingerprint = fingerprint.to_owned();
        self.known.insert(key.to_owned(), Known { id, fingerprint });
        self.known_ends.insert((ends_ms, key.to_owned()));
    }

    /// Its turn comes, or it waits behind others.
    fn queue_up(&mut self, line: Option<&str>, id: &DeliveryId, now: u64) {
        if self.join(line, id) {
            self.make_ready(id, now);
        } else if let Some(record) = self.records.get_mut(id) {
            (record.state, record.entry) = (ItemState::Behind, None);
        }
    }

    /// See [`crate::store::Store::queue_take`].
    pub(super) fn take(&mut self, take: Take<'_>, now: u64) -> Taken {
        if let Some(pause) = self.pause(now) {
            return Taken::Paused(pause);
        }
        let in_flight = self.pending.len();
        for _ in 0..DUE_MAX {
            let Some((due, id)) = self.later.first().copied().filter(|(due, _)| *due <= now) else {
                break;
            };
            self.later.remove(&(due, id));
            self.make_ready(&id, now);
        }
        let next_ms = self.later.first().map(|(due, _)| *due);
        let mut claims = Vec::new();
        if take.sweep {
            let lease = millis(take.lease);
            let is_old = |(_, at): &(&u64, &u64)| **at + lease <= now;
            let stalled = self.pending.iter().filter(is_old).map(|(entry, _)| *entry);
            for entry in stalled.take(take.most).collect::<Vec<_>>() {
                claims.extend(self.claim(entry, (take.node, 1), now));
            }
        }
        let free = take.in_flight.saturating_sub(in_flight).min(take.most - claims.len());
        let entries = self.ready.range(self.read + 1..).map(|(entry, _)| *entry).take(free);
        for entry in entries.collect::<Vec<_>>() {
            self.read = entry;
            claims.extend(self.claim(entry, (take.node, 0), now));
        }
        Taken::Items { claims, now_ms: now, next_ms }
    }

    fn claim(&mut self, entry: u64, by: (&str, u32), now: u64) -> Option<Claim> {
        let id = *self.ready.get(&entry)?;
        let record = self.records.get_mut(&id)?;
        record.token += 1;
        record.stalls += by.1;
        by.0.clone_into(&mut record.node);
        record.state = ItemState::Delivering;
        self.pending.insert(entry, now);
        Some(Claim {
            hold: Hold { entry: entry.to_string(), id, token: record.token },
            stalls: record.stalls,
            failures: record.failures,
            head: record.head.clone(),
            body: Some(record.body.clone()),
            owner: record.owner.clone(),
            accepted_ms: record.accepted_ms,
            give_up_ms: record.give_up_ms,
            order: record.line.clone(),
        })
    }

    /// See [`crate::store::Store::queue_settle`].
    pub(super) fn settle(&mut self, settle: Settle<'_>, now: u64) -> Settled {
        let id = settle.hold.id;
        let Some(record) = self.records.get_mut(&id) else { return Settled::Lost };
        if record.token != settle.hold.token {
            return Settled::Lost;
        }
        if record.state != ItemState::Delivering {
            return Settled::Written { dropped: 0, followed: 0 };
        }
        record.status = settle.status;
        settle.error.clone_into(&mut record.error);
        let entry = record.entry.take();
        let counts = settle.is_failure();
        let (is_dead, delay) = match settle.outcome {
            Outcome::Done => (Some(false), Duration::ZERO),
            Outcome::Dead | Outcome::DeadInDoubt => (Some(true), Duration::ZERO),
            Outcome::Retry { delay } | Outcome::Back { delay } => (None, delay),
        };
        record.failures += u32::from(counts);
        if is_dead.is_none() {
            record.due_ms = now.saturating_add(millis(delay));
        }
        self.unready(entry);
        match is_dead {
            None => {
                self.make_ready(&id, now);
                if let Some(record) = self.records.get_mut(&id).filter(|it| it.due_ms > now)
                    && counts
                {
                    record.state = ItemState::Retrying;
                }
                Settled::Written { dropped: 0, followed: 0 }
            }
            Some(is_dead) => {
                Settled::Written { dropped: self.close(&id, settle, is_dead, now), followed: 0 }
            }
        }
    }

    /// It is open no more; how many dead ones give way.
    fn close(&mut self, id: &DeliveryId, settle: Settle<'_>, is_dead: bool, now: u64) -> u64 {
        let Some(record) = self.records.get_mut(id) else { return 0 };
        let kept = settle.answer.filter(|kept| {
            self.answer_bytes + kept.head.len() + kept.body.len() <= ANSWER_BYTES_MAX
        });
        record.answer = kept.cloned();
        self.answer_bytes += record.answer_bytes();
        let bytes = record.bytes();
        if is_dead {
            self.dead.insert((now, *id));
            self.dead_bytes += bytes;
        }
        let line = record.line.clone();
        self.end(id, if is_dead { ItemState::Dead } else { ItemState::Done }, settle.keep, now);
        if !(is_dead && settle.after.holds_line) {
            self.leave(line.as_deref(), id, now);
        }
        let mut dropped = 0;
        while dropped < 100
            && (u64::try_from(self.dead.len()).unwrap_or(u64::MAX) > settle.dead_most
                || self.dead_bytes > DEAD_BYTES_MAX)
        {
            dropped += self.drop_dead(1, now);
        }
        dropped
    }

    /// It is settled, and its record is kept for so long. It stands in its line yet.
    fn end(&mut self, id: &DeliveryId, state: ItemState, keep: Duration, now: u64) {
        let Some(record) = self.records.get_mut(id) else { return };
        let bytes = record.bytes();
        (record.state, record.settled_ms) = (state, Some(now));
        self.open.remove(&(record.opened_ms, *id));
        self.bytes -= bytes;
        if state != ItemState::Dead {
            (record.head, record.body) = (Bytes::new(), Bytes::new());
            self.kept.insert((now, *id));
        }
        self.keep_until(id, now.saturating_add(millis(keep)));
        if self.kept.len() > KEPT_MAX
            && let Some((_, oldest)) = self.kept.first().copied()
        {
            self.remove(&oldest, now);
        }
    }

    /// See [`crate::store::Store::queue_renew`].
    pub(super) fn renew(&mut self, hold: &Hold, now: u64) -> bool {
        let Some(record) = self.records.get(&hold.id) else { return false };
        let is_own = record.token == hold.token && record.state == ItemState::Delivering;
        if let Some(entry) = record.entry.filter(|_| is_own) {
            self.pending.insert(entry, now);
        }
        is_own
    }

    /// What is open lives on.
    pub(super) fn renew_open(&mut self, now: u64) {
        let ends_ms = now.saturating_add(millis(QUEUE_OPEN_TTL));
        let ends = |id: &DeliveryId| self.records.get(id).map_or(ends_ms, |it| it.ends_ms);
        let open = self.open.iter().map(|(_, id)| *id).filter(|id| ends(id) < ends_ms);
        for id in open.collect::<Vec<_>>() {
            self.keep_until(&id, ends_ms);
        }
    }

    /// See [`crate::store::Store::queue_cancel`].
    pub(super) fn cancel(&mut self, id: &DeliveryId, keep: Duration, now: u64) -> Cancelled {
        let Some(record) = self.records.get_mut(id) else { return Cancelled::Unknown };
        match record.state {
            ItemState::Delivering => return Cancelled::InProgress,
            state if state.is_settled() => return Cancelled::Settled(state),
            _ => {}
        }
        let entry = record.entry.take();
        let (due, line) = (record.due_ms, record.line.clone());
        self.unready(entry);
        self.later.remove(&(due, *id));
        self.end(id, ItemState::Cancelled, keep, now);
        self.leave(line.as_deref(), id, now);
        Cancelled::Cancelled
    }

    /// See [`crate::store::Store::queue_requeue`].
    pub(super) fn requeue(
        &mut self,
        id: &DeliveryId,
        max_age: Duration,
        bounds: QueueBounds,
        now: u64,
    ) -> Requeued {
        let Some(record) = self.records.get_mut(id) else { return Requeued::Unknown };
        if record.state != ItemState::Dead {
            return Requeued::NotDead(record.state);
        }
        let bytes = record.bytes();
        let open = u64::try_from(self.open.len()).unwrap_or(u64::MAX);
        if open >= bounds.items || self.bytes.saturating_add(bytes) > bounds.bytes {
            return Requeued::Full;
        }
        self.dead.remove(&(record.settled_ms.take().unwrap_or_default(), *id));
        self.dead_bytes -= bytes;
        self.open.insert((now, *id));
        self.bytes += bytes;
        self.answer_bytes -= record.answer_bytes();
        (record.answer, record.failures, record.stalls) = (None, 0, 0);
        (record.due_ms, record.opened_ms) = (now, now);
        record.give_up_ms = now.saturating_add(millis(max_age));
        let line = record.line.clone();
        self.keep_until(id, now.saturating_add(millis(bounds.ttl)));
        if self.is_first(line.as_deref(), id) {
            // It has held its line.
            self.make_ready(id, now);
        } else {
            self.queue_up(line.as_deref(), id, now);
        }
        Requeued::Requeued
    }

    /// See [`crate::store::Store::queue_pause`].
    pub(super) fn set_pause(&mut self, pause: &Pause, now: u64) -> bool {
        if pause.left.is_some() && self.pause.is_some() {
            return false;
        }
        let until = pause.left.map(|left| now.saturating_add(millis(left)));
        self.pause = Some((pause.why.clone(), until));
        true
    }

    /// See [`crate::store::Store::queue_resume`].
    pub(super) fn end_pause(&mut self) -> bool {
        self.pause.take().is_some()
    }

    fn pause(&self, now: u64) -> Option<Pause> {
        let (why, until) = self.pause.as_ref()?;
        let left = until.map(|until| Duration::from_millis(until.saturating_sub(now)));
        Some(Pause { why: why.clone(), left })
    }

    /// See [`crate::store::Store::queue_drop_dead`].
    pub(super) fn drop_dead(&mut self, most: usize, now: u64) -> u64 {
        let mut dropped = 0;
        while dropped < most
            && let Some((_, id)) = self.dead.first().copied()
        {
            self.remove(&id, now);
            dropped += 1;
        }
        u64::try_from(dropped).unwrap_or_default()
    }
}
