//! Queues of deferred deliveries on Redis: see [`crate::store::queue`].
//!
//! What happens to an item happens in one script, so that no crash comes in between; bodies pass
//! beside it, in the same exchange. Accepting is part of a request and has its time; everything
//! else is asked by whoever delivers, who may wait longer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::call::{start_script, start_with};
use super::index::{eval, integer, parts};
use super::queue_follow::{self, FollowUpKeys};
use super::queue_replies::{self as replies, ITEM_FIELDS, Place, number};
use super::reply::{server_error, value};
use super::scripts::Script;
use super::stream::millis;
use super::{RedisStore, each_good};
use crate::store::keys::QueueKeys;
use crate::store::queue::{
    Accept, Accepted, Cancelled, DeliveryId, Durability, Hold, Item, ItemPage, ItemState,
    KeptAnswer, Outcome, Pause, QUEUE_DEAD_ROUND, QUEUE_OPEN_TTL, QUEUE_PAGE, QueueBounds,
    QueueLook, QueueSafety, Requeued, Settle, Settled,
};
use crate::store::{Reply, StoreError};

/// How long whoever delivers waits for an answer: nobody waits for him, and bodies may be long.
const PATIENCE: Duration = Duration::from_millis(500);
/// Items that one step of a list or a repair looks at.
const LOOKED_AT: [usize; 2] = [1000, 100];
/// Most steps of one repair, and of one page.
const STEPS_MAX: [usize; 2] = [1_000_000, 10];

/// Milliseconds, also none.
pub(super) fn delay_ms(delay: Duration) -> u64 {
    u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn named(script: &Script, keys: &[&str]) -> Cmd {
    let mut call = start_script(&script.sha);
    call.arg(keys.len()).arg(keys);
    call
}

impl RedisStore {
    /// See [`crate::store::Store::queue_safety`].
    pub fn queue_safety(&self) -> QueueSafety {
        let servers = self.topology.servers();
        let (mut appends, mut fsyncs) = (Some(true), Some(true));
        for server in &servers {
            let name = server.node.name().unwrap_or_default();
            let Some(memory) = self.topology.common.memory(name) else {
                return QueueSafety::Unknown;
            };
            if memory.evicts {
                return QueueSafety::Evicting { policy: memory.policy };
            }
            appends = appends.and_then(|all| Some(all && memory.appends?));
            fsyncs = fsyncs.and_then(|all| Some(all && memory.fsyncs?));
        }
        if servers.is_empty() {
            QueueSafety::Unknown
        } else {
            QueueSafety::Safe { appends, fsyncs }
        }
    }

    /// See [`crate::store::Store::queue_looked`].
    pub fn queue_looked(&self) -> Arc<Notify> {
        Arc::clone(&self.topology.common.looked)
    }

    /// See [`crate::store::Store::queue_accept`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_accept(
        &self,
        keys: &QueueKeys,
        accept: &Accept<'_>,
    ) -> Result<Accepted, StoreError> {
        let (deadline, was_connected) = (self.topology.deadline(), self.is_connected());
        let accepted = match self.accept_once(keys, accept, deadline).await {
            // It may have been sent, and even carried out: the same id tells.
            Err(StoreError::Unavailable) if was_connected => {
                let left = deadline.saturating_duration_since(Instant::now());
                if !self.topology.first_connection(left).await {
                    return Err(StoreError::Timeout);
                }
                let again = self.accept_once(keys, accept, deadline).await;
                again.map_err(|error| match error {
                    StoreError::Unavailable | StoreError::NotAsked => StoreError::Timeout,
                    error => error,
                })?
            }
            accepted => accepted?,
        };
        Ok(accepted)
    }

    /// See [`crate::store::Store::queue_accept_durably`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_accept_durably(
        &self,
        keys: &QueueKeys,
        accept: &Accept<'_>,
        durability: Durability,
    ) -> Result<Accepted, StoreError> {
        let accepted = self.queue_accept(keys, accept).await?;
        Ok(self.made_durable(keys, (accepted, &accept.id), durability).await)
    }

    /// Waits until what was accepted is as durable as it is to be.
    pub(super) async fn made_durable(
        &self,
        keys: &QueueKeys,
        (accepted, id): (Accepted, &DeliveryId),
        durability: Durability,
    ) -> Accepted {
        let item = match &accepted {
            _ if durability == Durability::Memory => return accepted,
            Accepted::New { .. } => keys.item(id),
            // What was accepted before may be what was in doubt then.
            Accepted::Again { id, now: Some(_) } => keys.item(id),
            _ => return accepted,
        };
        let commits = &self.queue_commits;
        let is_durable = commits.wait(&self.topology, (&keys.waited, item), durability).await;
        if is_durable { accepted } else { Accepted::InDoubt }
    }

    async fn accept_once(
        &self,
        keys: &QueueKeys,
        accept: &Accept<'_>,
        deadline: Instant,
    ) -> Reply<Accepted> {
        let Accept { id, body, .. } = accept;
        let life = millis(accept.bounds.ttl.saturating_add(accept.delay));
        let body_key = keys.body(id);
        let mut pipeline = Pipeline::with_capacity(3);
        if !body.is_empty() {
            let mut set = start_with("SET", body.len());
            set.arg(&body_key).arg(body.as_ref()).arg("PX").arg(life);
            pipeline.add_command(set);
        }
        pipeline.add_command(self.accepting(keys, accept, (&body_key, life)));
        let answers = each_good(self.topology.run(&mut pipeline, deadline).await?)?;
        replies::accepted(answers.last().unwrap_or(&Value::Nil), id)
    }

    /// The call that accepts, behind the body under its key; what is written lives so long, in ms.
    fn accepting(&self, keys: &QueueKeys, accept: &Accept<'_>, (body, life): (&str, u64)) -> Cmd {
        let Accept { id, head, .. } = accept;
        let QueueKeys { ready, later, open, bytes, items, .. } = keys;
        let item = keys.item(id);
        let mut touched = vec![&**ready, later, open, bytes, &*item, body, items];
        // Where the client names none, the item itself tells that it was accepted before.
        let idem = keys.idem(accept.key.unwrap_or(id.as_str()));
        let line = accept.order.map(|order| keys.line(order));
        if accept.key.is_some() || line.is_some() {
            touched.push(&idem);
        }
        touched.extend(line.as_deref());
        let mut call = named(&self.topology.scripts.queues.accept, &touched);
        call.arg(id.as_str()).arg(delay_ms(accept.delay)).arg(accept.bounds.items);
        call.arg(accept.bounds.bytes).arg(life).arg(head).arg(accept.owner);
        call.arg(delay_ms(accept.max_age)).arg(head.len() + accept.body.len());
        if accept.key.is_some() {
            call.arg(accept.fingerprint).arg(delay_ms(accept.key_ttl));
        }
        call
    }

    /// See [`crate::store::Store::queue_settle`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_settle(
        &self,
        keys: &QueueKeys,
        settle: Settle<'_>,
    ) -> Result<Settled, StoreError> {
        let Settle { hold, keep, .. } = settle;
        let answer = keys.answer(&hold.id, hold.token);
        let mut pipeline = Pipeline::with_capacity(3);
        if let Some(kept) = settle.answer {
            let framed = replies::framed(kept);
            let mut set = start_with("SET", framed.len());
            set.arg(&answer).arg(framed).arg("PX").arg(millis(keep));
            pipeline.add_command(set);
        }
        pipeline.add_command(self.settling(keys, &settle, &answer));
        let answers = self.run_patiently(&mut pipeline).await?;
        let [written, dropped, followed] =
            parts(answers.into_iter().next_back().unwrap_or_default())?;
        if integer(written)? == 0 {
            return Ok(Settled::Lost);
        }
        Ok(Settled::Written { dropped: number(&dropped)?, followed: number(&followed)? })
    }

    /// The call that settles; `answer` is the key of the answer to this claim.
    pub(super) fn settling(&self, keys: &QueueKeys, settle: &Settle<'_>, answer: &str) -> Cmd {
        let Settle { hold, keep, .. } = settle;
        let own = OwnKeys::of(keys, &hold.id);
        let follow_ups = settle.after.follow_ups;
        let followed: Vec<_> = follow_ups.iter().map(FollowUpKeys::of).collect();
        let is_short = settle.outcome == Outcome::Done && follow_ups.is_empty();
        let mut more = Vec::new();
        if !is_short {
            more.extend([answer, &*keys.dead, &keys.bodies]);
            more.extend(followed.iter().flat_map(FollowUpKeys::all));
        } else if settle.answer.is_some() {
            more.push(answer);
        }
        let mut call = named(&self.topology.scripts.queues.settle, &own.with(keys, &more));
        let (state, delay) = match settle.outcome {
            Outcome::Done => (ItemState::Done, Duration::ZERO),
            Outcome::Dead | Outcome::DeadInDoubt => (ItemState::Dead, Duration::ZERO),
            Outcome::Retry { delay } => (ItemState::Retrying, delay),
            Outcome::Back { delay } => (ItemState::Waiting, delay),
        };
        call.arg(&hold.entry).arg(hold.id.as_str()).arg(hold.token).arg(state.letter());
        call.arg(settle.status).arg(millis(*keep)).arg(settle.error);
        if is_short {
            return call;
        }
        call.arg(delay_ms(delay)).arg(u8::from(settle.is_failure())).arg(settle.dead_most);
        call.arg(u8::from(settle.after.holds_line)).arg(follow_ups.len());
        follow_ups.iter().for_each(|follow_up| queue_follow::put(&mut call, follow_up));
        call
    }

    /// See [`crate::store::Store::queue_renew`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_renew(
        &self,
        keys: &QueueKeys,
        holds: &[&Hold],
    ) -> Result<Vec<bool>, StoreError> {
        if holds.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(holds.len() + 1);
        for hold in holds {
            let item = keys.item(&hold.id);
            let mut call = named(&self.topology.scripts.queues.renew, &[&keys.ready, &item]);
            call.arg(&hold.entry).arg(hold.token);
            pipeline.add_command(call);
        }
        let answers = self.run_patiently(&mut pipeline).await?;
        answers.into_iter().map(|answer| Ok(integer(answer)? == 1)).collect()
    }

    /// See [`crate::store::Store::queue_cancel`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_cancel(
        &self,
        keys: &QueueKeys,
        id: &DeliveryId,
        keep: Duration,
    ) -> Result<Cancelled, StoreError> {
        let own = OwnKeys::of(keys, id);
        let mut call = eval(self.topology.scripts.queues.cancel, &own.with(keys, &[]));
        call.arg(id.as_str()).arg(millis(keep));
        let state = replies::state(&self.ask_patiently(call).await?)?;
        Ok(match state {
            None => Cancelled::Unknown,
            Some(ItemState::Delivering) => Cancelled::InProgress,
            Some(state) if state.is_settled() => Cancelled::Settled(state),
            Some(_) => Cancelled::Cancelled,
        })
    }

    /// See [`crate::store::Store::queue_requeue`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_requeue(
        &self,
        keys: &QueueKeys,
        id: &DeliveryId,
        max_age: Duration,
        bounds: QueueBounds,
    ) -> Result<Requeued, StoreError> {
        let own = OwnKeys::of(keys, id);
        let script = self.topology.scripts.queues.requeue;
        let mut call = eval(script, &own.with(keys, &[&keys.dead, &keys.answers]));
        call.arg(id.as_str()).arg(delay_ms(max_age)).arg(bounds.items).arg(bounds.bytes);
        call.arg(millis(bounds.ttl));
        let [state, is_done] = parts(self.ask_patiently(call).await?)?;
        Ok(match (replies::state(&state)?, integer(is_done)?) {
            (None, _) => Requeued::Unknown,
            (Some(ItemState::Dead), 0) => Requeued::Full,
            (Some(ItemState::Dead), _) => Requeued::Requeued,
            (Some(state), _) => Requeued::NotDead(state),
        })
    }

    /// See [`crate::store::Store::queue_pause`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_pause(&self, keys: &QueueKeys, pause: &Pause) -> Result<bool, StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(&keys.pause).arg(&pause.why);
        if let Some(left) = pause.left {
            set.arg("NX").arg("PX").arg(millis(left));
        }
        Ok(self.ask_patiently(set).await? == Value::Okay)
    }

    /// See [`crate::store::Store::queue_resume`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_resume(&self, keys: &QueueKeys) -> Result<bool, StoreError> {
        let mut delete = redis::cmd("DEL");
        delete.arg(&keys.pause);
        Ok(integer(self.ask_patiently(delete).await?)? == 1)
    }

    /// See [`crate::store::Store::queue_look`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_look(&self, keys: &QueueKeys) -> Result<QueueLook, StoreError> {
        let mut pipeline = Pipeline::with_capacity(11);
        pipeline.cmd("XLEN").arg(&keys.ready);
        pipeline.cmd("XPENDING").arg(&keys.ready).arg("g");
        for set in [&keys.later, &keys.dead, &keys.open] {
            pipeline.cmd("ZCARD").arg(set);
        }
        pipeline.cmd("ZRANGE").arg(&keys.open).arg(0).arg(0).arg("WITHSCORES");
        pipeline.cmd("GET").arg(&keys.bytes);
        pipeline.cmd("GET").arg(&keys.pause);
        pipeline.cmd("PTTL").arg(&keys.pause);
        pipeline.cmd("TIME");
        let deadline = self.patient_deadline();
        let answers = self.topology.run(&mut pipeline, deadline).await?;
        // Before anything was taken there is no group.
        let is_no_group =
            |reply: &Value| matches!(reply, Value::ServerError(it) if it.code() == "NOGROUP");
        match answers.iter().filter(|it| !is_no_group(it)).find_map(server_error) {
            Some(error) => Err(error),
            None => replies::look(answers),
        }
    }

    /// See [`crate::store::Store::queue_list`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_list(
        &self,
        keys: &QueueKeys,
        state: Option<ItemState>,
        after: Option<&DeliveryId>,
    ) -> Result<ItemPage, StoreError> {
        if matches!(state, Some(ItemState::Done | ItemState::Cancelled)) {
            return Ok(ItemPage::default());
        }
        let (mut ids, mut next) = (Vec::new(), after.map(|id| Place { id: *id, score: None }));
        for _ in 0..STEPS_MAX[1] {
            let most = (QUEUE_PAGE - ids.len(), LOOKED_AT[0]);
            let (last, more) = self.list_step(keys, state, next, most).await?;
            ids.extend(more);
            next = last;
            if next.is_none() || ids.len() >= QUEUE_PAGE {
                break;
            }
        }
        let found = self.read_items(keys, &ids).await?;
        let items = ids.into_iter().zip(found).filter_map(|(_, item)| item).collect();
        Ok(ItemPage { items, next: next.map(|place| place.id) })
    }

    /// The ids of some items in this state, or of the open ones, behind a place: most ids, and most
    /// that are looked at.
    async fn list_step(
        &self,
        keys: &QueueKeys,
        state: Option<ItemState>,
        after: Option<Place>,
        most: (usize, usize),
    ) -> Reply<(Option<Place>, Vec<DeliveryId>)> {
        let (set, letter, field) = match state {
            None => (&keys.open, "", "t"),
            Some(ItemState::Dead) => (&keys.dead, "", "x"),
            Some(state) => (&keys.open, state.letter(), "t"),
        };
        let mut call = eval(self.topology.scripts.queues.list, &[set, &keys.items]);
        put_after(&mut call, after.as_ref());
        call.arg(letter).arg(most.0).arg(most.1);
        call.arg(after.map_or(0, |place| place.id.unix_ms())).arg(field);
        replies::ids(&self.ask_patiently(call).await?)
    }

    async fn read_items(&self, keys: &QueueKeys, ids: &[DeliveryId]) -> Reply<Vec<Option<Item>>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(ids.len() + 1);
        for id in ids {
            pipeline.cmd("HMGET").arg(keys.item(id)).arg(&ITEM_FIELDS);
        }
        let answers = self.run_patiently(&mut pipeline).await?;
        answers.into_iter().zip(ids).map(|(answer, id)| replies::item(answer, *id)).collect()
    }

    /// See [`crate::store::Store::queue_find`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_find(
        &self,
        keys: &QueueKeys,
        id: &DeliveryId,
    ) -> Result<Option<Item>, StoreError> {
        Ok(self.read_items(keys, &[*id]).await?.pop().flatten())
    }

    /// See [`crate::store::Store::queue_body`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_body(
        &self,
        keys: &QueueKeys,
        id: &DeliveryId,
    ) -> Result<Option<Bytes>, StoreError> {
        let mut get = redis::cmd("GET");
        get.arg(keys.body(id));
        Ok(value(self.ask_patiently(get).await?))
    }

    /// See [`crate::store::Store::queue_answer`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_answer(
        &self,
        keys: &QueueKeys,
        item: &Item,
    ) -> Result<Option<KeptAnswer>, StoreError> {
        let mut get = redis::cmd("GET");
        get.arg(keys.answer(&item.id, item.claims));
        Ok(value(self.ask_patiently(get).await?).and_then(|framed| replies::unframed(&framed)))
    }

    /// See [`crate::store::Store::queue_drop_dead`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_drop_dead(&self, keys: &QueueKeys) -> Result<u64, StoreError> {
        let QueueKeys { ready, later, open, bytes, dead, items, bodies, .. } = keys;
        let touched = [&**ready, later, open, bytes, items, bodies, items, dead, bodies];
        let mut call = eval(self.topology.scripts.queues.drop_dead, &touched);
        call.arg(QUEUE_DEAD_ROUND);
        integer(self.ask_patiently(call).await?).map(|count| u64::try_from(count).unwrap_or(0))
    }

    /// See [`crate::store::Store::queue_dead`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_dead(
        &self,
        keys: &QueueKeys,
        error: Option<&str>,
        most: usize,
    ) -> Result<Vec<DeliveryId>, StoreError> {
        let looked_at = if error.is_some() { QUEUE_DEAD_ROUND } else { most.min(QUEUE_DEAD_ROUND) };
        let looked_at = (looked_at, looked_at);
        let (_, mut ids) = self.list_step(keys, Some(ItemState::Dead), None, looked_at).await?;
        if let Some(error) = error {
            let mut pipeline = Pipeline::with_capacity(ids.len() + 1);
            for id in &ids {
                pipeline.cmd("HGET").arg(keys.item(id)).arg("e");
            }
            let errors =
                if ids.is_empty() { Vec::new() } else { self.run_patiently(&mut pipeline).await? };
            let mut errors = errors.into_iter();
            ids.retain(|_| {
                errors.next().and_then(value).is_some_and(|it| it.as_ref() == error.as_bytes())
            });
        }
        ids.truncate(most);
        Ok(ids)
    }

    /// See [`crate::store::Store::queue_repair`].
    ///
    /// # Errors
    /// See there.
    pub async fn queue_repair_due(
        &self,
        keys: &QueueKeys,
        lately: Duration,
    ) -> Result<u64, StoreError> {
        if lately.is_zero() {
            return self.queue_repair(keys).await;
        }
        let mut exists = redis::cmd("EXISTS");
        exists.arg(&keys.repaired);
        if integer(self.ask_patiently(exists).await?)? == 1 {
            return Ok(0);
        }
        let put_back = self.queue_repair(keys).await?;
        let mut set = redis::cmd("SET");
        set.arg(&keys.repaired).arg(1).arg("PX").arg(millis(lately));
        self.ask_patiently(set).await?;
        Ok(put_back)
    }

    /// Puts back what the stream has lost.
    ///
    /// # Errors
    /// As for [`Self::queue_repair_due`].
    pub(super) async fn queue_repair(&self, keys: &QueueKeys) -> Result<u64, StoreError> {
        let QueueKeys { ready, later, open, items, bytes, bodies, .. } = keys;
        let touched = [&**ready, later, open, items, bytes, bodies];
        let (mut put_back, mut after) = (0, None);
        for _ in 0..STEPS_MAX[0] {
            let mut call = eval(self.topology.scripts.queues.repair, &touched);
            put_after(&mut call, after.as_ref());
            call.arg(LOOKED_AT[1]).arg(millis(QUEUE_OPEN_TTL));
            let [back, last, score] = parts(self.ask_patiently(call).await?)?;
            put_back += number(&back)?;
            after = replies::place(&last, &score)?;
            if after.is_none() {
                break;
            }
        }
        Ok(put_back)
    }

    pub(super) fn patience(&self) -> Duration {
        PATIENCE.max(self.topology.settings.timeout)
    }

    fn patient_deadline(&self) -> Instant {
        Instant::now() + self.patience()
    }

    pub(super) async fn ask_patiently(&self, command: Cmd) -> Reply<Value> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(command);
        Ok(self.run_patiently(&mut pipeline).await?.pop().unwrap_or_default())
    }

    pub(super) async fn run_patiently(&self, pipeline: &mut Pipeline) -> Reply<Vec<Value>> {
        each_good(self.topology.run(pipeline, self.patient_deadline()).await?)
    }
}

/// Behind which id a script goes on, and its score, for where it is gone.
fn put_after(call: &mut Cmd, after: Option<&Place>) {
    let score = after.and_then(|place| place.score);
    call.arg(after.map_or("", |place| place.id.as_str()));
    call.arg(score.map(|score| score.to_string()).unwrap_or_default());
}

/// The keys of one item.
struct OwnKeys {
    item: String,
    body: String,
}

impl OwnKeys {
    fn of(keys: &QueueKeys, id: &DeliveryId) -> Self {
        Self { item: keys.item(id), body: keys.body(id) }
    }

    /// The keys of the scripts that `q_common.lua` stands before, in their order.
    fn with<'a>(&'a self, keys: &'a QueueKeys, more: &[&'a str]) -> Vec<&'a str> {
        let QueueKeys { ready, later, open, bytes, items, .. } = keys;
        let common = [ready, later, open, bytes, &*self.item, &self.body, items];
        common.into_iter().chain(more.iter().copied()).collect()
    }
}
