//! The parts of a question. Each knows its own keys, writes its own commands, and reads exactly the
//! replies to those; none knows of another. So parts can be asked apart, and one of them again.
//!
//! In a Redis Cluster all keys of a part must lie in one slot. Those that name several keys
//! ([`Part::Blacklist`], [`Part::Charges`], [`Part::Leases`], [`Part::Epochs`]) are cut by slots
//! into parts of the same kind (`cut`): what they read adds up.

use bytes::Bytes;
use redis::{Pipeline, Value};

use super::call::{changes, claim_call, start, start_script, take_call, variants_call};
use super::reply::{entry, exists, text, unexpected, value};
use super::scripts::Scripts;
use super::signature::unsigned;
use super::topology::put_transaction;
use crate::store::marks::{Mark, POSITION_BYTES_MAX};
use crate::store::question::NOT_BEFORE_BYTES_MAX;
use crate::store::sessions::ENDS;
use crate::store::{
    Answers, CachedEntry, CachedReply, ChargeReply, ChargedAt, Charges, ClaimKey, LeaseReply,
    Leases, MarksReply, ProofKey, Purge, Questions, Reply, RevocationStatus, SessionEnd,
    SessionKey, SessionReply, SessionValue, StoreError, Window, WindowState,
};

/// Most bytes of the field that says when and why a session ends: a word and a time.
const ENDS_BYTES_MAX: i64 = 64;

/// What `scripts/take.lua` packs: whether it is allowed and when that was, and each window.
const CHARGES_HEAD_BYTES: usize = 7;
const CHARGES_STATE_BYTES: usize = 28;

/// Where replies come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    /// The time of the store's clock.
    pub(super) now_ms: u64,
    /// The place of the part's keys, where there are several places.
    pub(super) place: Option<u16>,
}

/// One part of a question.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    /// Epochs that are changed, all at once, before anything is read.
    Purges(&'a [String]),
    /// Keys of which any one revokes.
    Blacklist(&'a [String]),
    /// A subject's not-before time.
    NotBefore(&'a str),
    /// The record of an API key.
    Record(&'a str),
    /// A session that is a string, by plain commands: they cost the server a fraction of a script.
    Session(SessionKey<'a>),
    /// A session of either shape, by the script.
    AnySession(SessionKey<'a>),
    /// How long what is said of a session's end is: of a field no part can be read.
    EndLength(&'a str),
    /// When and why a session ended.
    End(&'a str),
    /// Windows of limits.
    Charges(Charges<'a>),
    /// Slots in flight.
    Leases(Leases<'a>),
    /// The mark of a caller.
    Mark(&'a str),
    /// The mark of all callers together.
    Anybody(&'a str),
    /// Epochs of the cache, in order.
    Epochs(&'a [String]),
    /// An entry of the cache, and its lock.
    Entry(CachedEntry<'a>),
    /// An idempotency key.
    Claim(ClaimKey<'a>),
    /// A proof that must not have come before.
    Proof(&'a ProofKey),
}

impl<'a> Part<'a> {
    /// The parts of a question, in the order in which one server must carry them out: what is
    /// read is read after the purges. `by_script` says that the application keeps hashes.
    pub(super) fn of(questions: &Questions<'a>, by_script: bool) -> Vec<Self> {
        // What a request with a token, a session, limits and a cache asks. More room would be more
        // than the allocator has at hand.
        let mut parts = Vec::with_capacity(6);
        if !questions.pending_purges.is_empty() {
            parts.push(Self::Purges(questions.pending_purges));
        }
        if let Some(asked) = questions.revocation {
            if !asked.blacklist.is_empty() {
                parts.push(Self::Blacklist(asked.blacklist));
            }
            parts.extend(asked.not_before.map(Self::NotBefore));
            parts.extend(asked.record.map(Self::Record));
            parts.extend(asked.proof.map(Self::Proof));
        }
        if let Some(asked) = questions.session {
            parts.push(if by_script { Self::AnySession(asked) } else { Self::Session(asked) });
            parts.extend(asked.end.map(Self::EndLength));
        }
        parts.extend(questions.claim.map(Self::Claim));
        parts.extend(questions.charges.map(Self::Charges));
        parts.extend(questions.leases.map(Self::Leases));
        if let Some(asked) = questions.marks {
            parts.extend(asked.caller.iter().map(|key| Self::Mark(key)));
            parts.extend(asked.anybody.map(Self::Anybody));
        }
        if let Some(asked) = questions.cached {
            parts.push(Self::Epochs(asked.epochs));
            parts.extend(asked.entry.map(Self::Entry));
        }
        parts
    }

    /// A key by whose slot the part finds its server.
    pub(super) fn key(&self) -> &'a str {
        let first = |keys: &'a [String]| keys.first().map_or("", String::as_str);
        match *self {
            Self::Purges(keys) | Self::Blacklist(keys) | Self::Epochs(keys) => first(keys),
            Self::NotBefore(key) | Self::Record(key) => key,
            Self::EndLength(key) | Self::End(key) | Self::Mark(key) | Self::Anybody(key) => key,
            Self::Session(asked) | Self::AnySession(asked) => asked.key,
            Self::Charges(asked) => first(asked.keys),
            Self::Leases(asked) => first(asked.keys),
            Self::Entry(asked) => asked.key,
            Self::Claim(asked) => asked.key,
            Self::Proof(asked) => &asked.key,
        }
    }

    /// Adds its commands.
    ///
    /// # Errors
    /// There is no randomness for new epochs.
    pub(super) fn write(
        &self,
        pipeline: &mut Pipeline,
        scripts: &Scripts,
    ) -> Result<(), StoreError> {
        match *self {
            Self::Purges(keys) => {
                let purges: Vec<Purge> = keys.iter().cloned().map(Purge::hard).collect();
                put_transaction(pipeline, changes(&purges)?);
            }
            Self::Blacklist(keys) => {
                pipeline.add_command(start("EXISTS")).arg(keys);
            }
            Self::NotBefore(key) => {
                // No more than shows that it is too long for a time.
                let call = pipeline.add_command(start("GETRANGE"));
                call.arg(key).arg(0).arg(NOT_BEFORE_BYTES_MAX);
            }
            Self::Record(key) => {
                pipeline.add_command(start("EXISTS")).arg(key);
            }
            Self::Session(SessionKey { key, ttl, bytes_max, .. }) => {
                pipeline.add_command(start("GETRANGE")).arg(key).arg(0).arg(bytes_max);
                if ttl {
                    pipeline.add_command(start("PTTL")).arg(key);
                }
            }
            Self::AnySession(SessionKey { key, bytes_max, .. }) => {
                let call = pipeline.add_command(start_script(&scripts.session.sha));
                call.arg(1).arg(key).arg(bytes_max);
            }
            Self::EndLength(key) => {
                pipeline.add_command(start("HSTRLEN")).arg(key).arg(ENDS);
            }
            Self::End(key) => {
                pipeline.add_command(start("HGET")).arg(key).arg(ENDS);
            }
            Self::Charges(Charges { set, keys }) => {
                let call = pipeline.add_command(start_script(&scripts.take.sha));
                call.arg(keys.len()).arg(keys).arg(set.records.as_slice()).arg(&set.ttls);
            }
            Self::Leases(Leases { limits, keys, holder }) => {
                let call = pipeline.add_command(start_script(&scripts.lease.sha));
                call.arg(keys.len()).arg(keys).arg(holder);
                for limit in limits {
                    call.arg(limit.most).arg(limit.lease_ms()).arg(limit.mode as u8);
                }
            }
            Self::Mark(key) | Self::Anybody(key) => {
                let call = pipeline.add_command(start("GETRANGE"));
                call.arg(key).arg(0).arg(POSITION_BYTES_MAX);
            }
            Self::Epochs(keys) => {
                pipeline.add_command(start("MGET")).arg(keys);
            }
            Self::Entry(CachedEntry { key, variants, lock }) => {
                // First the lock: whoever had it stored the response before it was given back.
                if let Some(wanted) = lock {
                    pipeline.add_command(take_call(wanted));
                }
                pipeline.add_command(variants_call(key, variants));
            }
            Self::Claim(asked) => drop(pipeline.add_command(claim_call(asked))),
            Self::Proof(asked) => drop(pipeline.add_command(claim_call(asked.claim()))),
        }
        Ok(())
    }

    /// How many commands it has, and so replies.
    pub(super) fn commands(&self) -> usize {
        match self {
            // Within a transaction.
            Self::Purges(keys) => keys.len() + 2,
            Self::Session(asked) => 1 + usize::from(asked.ttl),
            Self::Entry(asked) => 1 + usize::from(asked.lock.is_some()),
            _ => 1,
        }
    }

    /// Whether its replies have a form that its scripts can answer in. Any command may answer with
    /// an error.
    pub(super) fn fits(&self, replies: &[Value]) -> bool {
        let is_list = |reply: &Value, expected: usize| match reply {
            Value::Array(parts) => parts.len() == expected,
            _ => false,
        };
        match (self, replies) {
            (_, [Value::ServerError(_)]) => true,
            (Self::AnySession(_), [reply]) => is_list(reply, 2),
            (Self::Charges(asked), [Value::BulkString(packed)]) => {
                packed.len() == CHARGES_HEAD_BYTES + CHARGES_STATE_BYTES * asked.keys.len()
            }
            (Self::Leases(asked), [reply]) => is_list(reply, asked.keys.len() + 1),
            (Self::AnySession(_) | Self::Charges(_) | Self::Leases(_), _) => false,
            _ => true,
        }
    }

    /// What is to be asked behind this part, where its replies leave something open.
    pub(super) fn next(&self, replies: &[Value]) -> Option<Self> {
        match (*self, replies.first()?) {
            // The first hash.
            (Self::Session(asked), Value::ServerError(error)) if error.code() == "WRONGTYPE" => {
                Some(Self::AnySession(asked))
            }
            (Self::EndLength(key), Value::Int(bytes)) if (1..=ENDS_BYTES_MAX).contains(bytes) => {
                Some(Self::End(key))
            }
            _ => None,
        }
    }

    /// Whether what is known leaves anything to ask: nobody is told why a session ended that lives.
    pub(super) fn is_open(&self, answers: &Answers) -> bool {
        !matches!(self, Self::End(_)) || matches!(answers.session, Some(Ok(None)))
    }

    /// Whether it asks for what revokes a token.
    pub(super) fn is_of_revocation(&self) -> bool {
        matches!(self, Self::Blacklist(_) | Self::NotBefore(_) | Self::Record(_) | Self::Proof(_))
    }

    /// Whether it asks what is cached.
    pub(super) fn is_of_cache(&self) -> bool {
        matches!(self, Self::Epochs(_) | Self::Entry(_))
    }

    /// When units, slots or a lock were taken, by its replies.
    pub(super) fn taken_at(&self, replies: &[Value], place: u16) -> Option<ChargedAt> {
        match (self, replies) {
            (Self::Charges(asked), [Value::BulkString(packed)]) => {
                let reply = decode_charges(packed, asked.keys.len())?;
                reply.allowed.then(|| reply.at.in_place(place))
            }
            (Self::Leases(_), [Value::Array(parts)]) if parts.first() == Some(&Value::Int(1)) => {
                Some(ChargedAt::default())
            }
            // Nobody had it.
            (Self::Entry(asked), [Value::Nil, ..]) if asked.lock.is_some() => {
                Some(ChargedAt::default())
            }
            _ => None,
        }
    }

    /// Whether a limit refused, by its replies.
    pub(super) fn has_refused(&self, replies: &[Value]) -> bool {
        match (self, replies) {
            (Self::Charges(_), [Value::BulkString(packed)]) => packed.first() == Some(&0),
            (Self::Leases(_), [Value::Array(parts)]) => parts.first() == Some(&Value::Int(0)),
            _ => false,
        }
    }

    /// Whether another part of its kind has refused, so that this one decides nothing.
    pub(super) fn is_judged_by(&self, refused: &[Part<'_>]) -> bool {
        refused.iter().any(|other| {
            matches!(
                (self, other),
                (Self::Charges(_), Part::Charges(_)) | (Self::Leases(_), Part::Leases(_))
            )
        })
    }

    /// Takes nothing and refuses nothing: another part of its kind has decided.
    pub(super) fn pass(&self, answers: &mut Answers) {
        match *self {
            Self::Charges(asked) => {
                let free = |window: &Window| WindowState {
                    free: i64::from(window.limit),
                    retry_ms: 0,
                    next_ms: 0,
                    full_ms: 0,
                };
                let windows = asked.set.windows.iter().map(free).collect();
                let at = ChargedAt::default();
                join_charges(answers, Ok(ChargeReply { allowed: true, at, windows }));
            }
            Self::Leases(asked) => {
                let held = vec![0; asked.keys.len()];
                join_leases(answers, Ok(LeaseReply { allowed: true, held }));
            }
            _ => {}
        }
    }

    /// Takes its replies into the answers.
    pub(super) fn read(&self, replies: &mut [Value], from: Origin, answers: &mut Answers) {
        let mut replies = replies.iter_mut().map(std::mem::take);
        let mut next = || replies.next().unwrap_or_default();
        match *self {
            Self::Purges(_) => answers.settled = is_settled(replies.next_back().as_ref()),
            Self::Blacklist(_) => {
                with_status(answers, exists(&next()), |status, listed| status.listed |= listed);
            }
            Self::NotBefore(_) => {
                let time = not_before(next());
                with_status(answers, time, |status, time| status.not_before = time);
            }
            Self::Record(_) => {
                let there = exists(&next());
                with_status(answers, there, |status, there| status.gone = !there);
            }
            Self::Session(asked) => {
                let text = next();
                let ttl = if asked.ttl { next() } else { Value::Int(-1) };
                answers.session = Some(plain_session(text, &ttl));
            }
            Self::AnySession(_) => answers.session = Some(session(next())),
            Self::EndLength(_) => answers.keeps_end = matches!(next(), Value::Int(1..)),
            Self::End(_) => {
                answers.session_end = match next() {
                    Value::BulkString(text) => SessionEnd::parse(&text),
                    _ => None,
                };
            }
            Self::Charges(asked) => {
                join_charges(answers, charges(next(), asked.keys.len(), from));
            }
            Self::Leases(asked) => {
                join_leases(answers, leases(next(), asked.keys.len()));
            }
            Self::Mark(_) => {
                let found = mark(&next()).map(|caller| MarksReply { caller, anybody: false });
                join_marks(answers, found);
            }
            Self::Anybody(_) => {
                let found = mark(&next()).map(|mark| mark != Mark::None);
                let caller = Mark::None;
                join_marks(answers, found.map(|anybody| MarksReply { caller, anybody }));
            }
            Self::Epochs(keys) => {
                join(&mut answers.cached, epochs(next(), keys.len()), CachedReply::join);
            }
            Self::Entry(asked) => {
                let holder = asked.lock.map(|wanted| match next() {
                    // Nobody had it.
                    Value::Nil => Some(wanted.lock.token.clone().into()),
                    // A server that takes no writes now has no lock to give; what was read is good.
                    taken => value(taken),
                });
                let found = entry(next(), asked.variants.len(), from.now_ms);
                with(&mut answers.cached, found, |reply, (vary, variants)| {
                    reply.holder = holder.flatten();
                    (reply.vary, reply.variants) = (vary, variants);
                });
            }
            Self::Claim(_) => answers.claim = Some(text(next())),
            Self::Proof(asked) => with_proof(answers, text(next()), asked),
        }
    }

    /// There are no replies to it, and this is why.
    pub(super) fn fail(&self, error: &StoreError, answers: &mut Answers) {
        let error = error.clone();
        match self {
            Self::Purges(_) | Self::EndLength(_) | Self::End(_) => {}
            Self::Blacklist(_) | Self::NotBefore(_) | Self::Record(_) => {
                answers.revocation = Some(Err(error));
            }
            Self::Proof(asked) => with_proof(answers, Err(error), asked),
            Self::Session(_) | Self::AnySession(_) => answers.session = Some(Err(error)),
            Self::Charges(_) => answers.charges = Some(Err(error)),
            Self::Leases(_) => answers.leases = Some(Err(error)),
            Self::Mark(_) | Self::Anybody(_) => answers.marks = Some(Err(error)),
            Self::Epochs(_) | Self::Entry(_) => answers.cached = Some(Err(error)),
            Self::Claim(_) => answers.claim = Some(Err(error)),
        }
    }
}

/// Adds what one part found to what others did: it is an answer only if all of them are.
fn with<T, R>(answer: &mut Option<Reply<T>>, found: Reply<R>, add: impl FnOnce(&mut T, R)) {
    match (answer, found) {
        (Some(Ok(known)), Ok(found)) => add(known, found),
        (answer @ Some(Ok(_)), Err(error)) => *answer = Some(Err(error)),
        (Some(Err(_)) | None, _) => {}
    }
}

/// The same of parts of one kind, of which the first makes the answer.
fn join<T>(answer: &mut Option<Reply<T>>, found: Reply<T>, add: impl FnOnce(&mut T, T)) {
    match answer {
        None => *answer = Some(found),
        Some(_) => with(answer, found, add),
    }
}

fn join_charges(answers: &mut Answers, found: Reply<ChargeReply>) {
    join(&mut answers.charges, found, |known, more| {
        known.allowed &= more.allowed;
        known.at.also(more.at);
        known.windows.extend(more.windows);
    });
}

fn join_leases(answers: &mut Answers, found: Reply<LeaseReply>) {
    join(&mut answers.leases, found, |known, more| {
        known.allowed &= more.allowed;
        known.held.extend(more.held);
    });
}

fn join_marks(answers: &mut Answers, found: Reply<MarksReply>) {
    join(&mut answers.marks, found, |known, more| {
        known.caller = std::mem::take(&mut known.caller).and(more.caller);
        known.anybody |= more.anybody;
    });
}

fn with_status<R>(
    answers: &mut Answers,
    found: Reply<R>,
    add: impl FnOnce(&mut RevocationStatus, R),
) {
    answers.revocation.get_or_insert(Ok(RevocationStatus::default()));
    with(&mut answers.revocation, found, add);
}

fn with_proof(answers: &mut Answers, found: Reply<Option<Bytes>>, asked: &ProofKey) {
    let is_others = |found: Option<Bytes>| found.is_some_and(|it| *it != asked.mark);
    let replayed = match found {
        Ok(found) => is_others(found),
        Err(error) => {
            answers.unproven = Some(error);
            false
        }
    };
    with_status(answers, Ok(replayed), |status, replayed| status.replayed |= replayed);
}

/// Whether a transaction was carried out, by its last reply.
fn is_settled(exec: Option<&Value>) -> bool {
    match exec {
        Some(Value::Array(done)) => !done.iter().any(|it| matches!(it, Value::ServerError(_))),
        _ => false,
    }
}

fn mark(reply: &Value) -> Reply<Mark> {
    match reply {
        Value::BulkString(text) => Ok(Mark::read(text)),
        other => Err(unexpected(other)),
    }
}

fn not_before(reply: Value) -> Reply<Option<i64>> {
    match reply {
        // A key that is not there, or holds nothing.
        Value::BulkString(text) if text.is_empty() => Ok(None),
        Value::BulkString(text) => {
            let text = if text.len() > NOT_BEFORE_BYTES_MAX { Vec::new() } else { text };
            let seconds = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
            let refused =
                || StoreError::Refused("a not-before key holds no Unix time in seconds".to_owned());
            Ok(Some(seconds.ok_or_else(refused)?))
        }
        other => Err(unexpected(&other)),
    }
}

fn plain_session(text: Value, ttl_ms: &Value) -> Reply<Option<SessionReply>> {
    let text = match text {
        // A key that is not there, or holds nothing.
        Value::BulkString(text) if text.is_empty() => return Ok(None),
        Value::BulkString(text) => text,
        other => return Err(unexpected(&other)),
    };
    let ttl = match ttl_ms {
        // It ended between the two commands.
        Value::Int(-2) => return Ok(None),
        Value::Int(ms) => u64::try_from(*ms).ok().map(std::time::Duration::from_millis),
        other => return Err(unexpected(other)),
    };
    Ok(Some(SessionReply { value: SessionValue::Text(text.into()), ttl }))
}

/// Epochs without a lineage are as good as an answer that came too late: what else was asked was
/// done, and a lock that was taken is given back.
pub(super) fn epochs(reply: Value, expected: usize) -> Reply<CachedReply> {
    let (epochs, lineage) = unsigned(reply, expected)?;
    let lineage = lineage.ok_or(StoreError::Timeout)?;
    Ok(CachedReply::of_epochs(&epochs).mixed(lineage))
}

fn session(reply: Value) -> Reply<Option<SessionReply>> {
    let Value::Array(parts) = reply else { return Err(unexpected(&reply)) };
    let Ok([value, Value::Int(ttl_ms)]) = <[Value; 2]>::try_from(parts) else {
        return Err(StoreError::Refused("the session script answered in another form".to_owned()));
    };
    let value = match value {
        Value::Nil => return Ok(None),
        Value::BulkString(text) if text.is_empty() => return Ok(None),
        Value::BulkString(text) => SessionValue::Text(text.into()),
        Value::Array(flat) => SessionValue::Fields(pairs(flat)?),
        other => return Err(unexpected(&other)),
    };
    let ttl = u64::try_from(ttl_ms).ok().map(std::time::Duration::from_millis);
    Ok(Some(SessionReply { value, ttl }))
}

fn pairs(flat: Vec<Value>) -> Reply<Vec<(Bytes, Bytes)>> {
    let mut fields = Vec::with_capacity(flat.len() / 2);
    let mut flat = flat.into_iter();
    while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
        match (name, value) {
            (Value::BulkString(name), Value::BulkString(value)) => {
                fields.push((name.into(), value.into()))
            }
            (other, _) => return Err(unexpected(&other)),
        }
    }
    Ok(fields)
}

fn charges(reply: Value, expected: usize, from: Origin) -> Reply<ChargeReply> {
    let Value::BulkString(packed) = reply else { return Err(unexpected(&reply)) };
    let mut reply = decode_charges(&packed, expected).ok_or_else(|| {
        StoreError::Refused("the limiter script answered in another form".to_owned())
    })?;
    if let Some(place) = from.place {
        reply.at = reply.at.in_place(place);
    }
    Ok(reply)
}

/// Reads what `scripts/take.lua` packed.
fn decode_charges(packed: &[u8], expected: usize) -> Option<ChargeReply> {
    let (head, states) = packed.split_at_checked(CHARGES_HEAD_BYTES)?;
    let (states, rest) = states.as_chunks::<CHARGES_STATE_BYTES>();
    if states.len() != expected || !rest.is_empty() {
        return None;
    }
    let number = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        i64::from_le_bytes(wide)
    };
    let state = |state: &[u8; CHARGES_STATE_BYTES]| WindowState {
        free: number(&state[..8]),
        retry_ms: number(&state[8..16]),
        next_ms: number(&state[16..22]),
        full_ms: number(&state[22..]),
    };
    Some(ChargeReply {
        allowed: head[0] == 1,
        at: ChargedAt::of(number(&head[1..]).unsigned_abs()),
        windows: states.iter().map(state).collect(),
    })
}

fn leases(reply: Value, expected: usize) -> Reply<LeaseReply> {
    let Value::Array(parts) = reply else { return Err(unexpected(&reply)) };
    let number = |part: &Value| match part {
        Value::Int(number) => u32::try_from(*number).ok(),
        _ => None,
    };
    match parts.iter().map(number).collect::<Option<Vec<u32>>>() {
        Some(numbers) if numbers.len() == expected + 1 => {
            Ok(LeaseReply { allowed: numbers[0] == 1, held: numbers[1..].to_vec() })
        }
        _ => Err(StoreError::Refused("the lease script answered in another form".to_owned())),
    }
}

#[cfg(test)]
mod tests;
