//! One question as one pipeline, and its replies as answers.
//!
//! The order of commands is fixed; a [`Batch`] remembers only where each part begins. An error of
//! one command is the answer to its own question and to no other.

use bytes::Bytes;
use redis::{Arg, Cmd, Pipeline, Value};

use super::call::{change, start, take_call, variants_call};
use super::link::{Script, Scripts};
use super::published::Health;
use super::reply::{cached, server_error, unexpected};
use crate::store::question::NOT_BEFORE_BYTES_MAX;
use crate::store::sessions::ENDS;
use crate::store::{
    Answers, CachedEntry, ChargeReply, LeaseReply, Purge, Questions, Reply, RevocationStatus,
    SessionEnd, SessionKey, SessionReply, SessionValue, StoreError, WindowState,
};

/// Most bytes of the field that says when and why a session ends: a word and a time.
const ENDS_BYTES_MAX: i64 = 64;

/// A pipeline and where each question's replies begin in it.
pub(super) struct Batch {
    pub(super) pipeline: Pipeline,
    revocation: usize,
    session: usize,
    charges: usize,
    leases: usize,
    cached: usize,
    /// Whether the session is read by the script, which knows hashes too.
    by_script: bool,
}

impl Batch {
    /// Encodes the questions, pending purges first, so that what is read is read after them.
    /// Sessions are read by plain commands, which cost the server a fraction of a script, unless
    /// `by_script` says that the application keeps hashes.
    pub(super) fn new(
        questions: &Questions<'_>,
        scripts: &Scripts,
        by_script: bool,
    ) -> Result<Self, StoreError> {
        let mut pipeline = Pipeline::with_capacity(8);
        if !questions.pending_purges.is_empty() {
            let purges: Vec<Purge> =
                questions.pending_purges.iter().cloned().map(Purge::hard).collect();
            change(&mut pipeline, &purges)?;
        }
        let revocation = pipeline.len();
        if let Some(asked) = questions.revocation {
            if !asked.blacklist.is_empty() {
                pipeline.add_command(start("EXISTS")).arg(asked.blacklist);
            }
            if let Some(key) = asked.not_before {
                // No more than shows that it is too long for a time.
                let call = pipeline.add_command(start("GETRANGE"));
                call.arg(key).arg(0).arg(NOT_BEFORE_BYTES_MAX);
            }
            if let Some(key) = asked.record {
                pipeline.add_command(start("EXISTS")).arg(key);
            }
        }
        let session = pipeline.len();
        if let Some(asked) = questions.session {
            if by_script {
                pipeline.add_command(session_call("EVALSHA", &scripts.session.sha, asked));
            } else {
                let call = pipeline.add_command(start("GETRANGE"));
                call.arg(asked.key).arg(0).arg(asked.bytes_max);
                if asked.ttl {
                    pipeline.add_command(start("PTTL")).arg(asked.key);
                }
            }
            if let Some(end) = asked.end {
                // Of a field no part can be read, so its length comes first.
                pipeline.add_command(start("HSTRLEN")).arg(end).arg(ENDS);
            }
        }
        let charges = pipeline.len();
        if let Some(asked) = questions.charges {
            let call = pipeline.add_command(start("EVALSHA"));
            call.arg(&scripts.take.sha).arg(asked.keys.len());
            call.arg(asked.keys).arg(asked.set.records.as_slice()).arg(&asked.set.ttls);
        }
        let leases = pipeline.len();
        if let Some(asked) = questions.leases {
            let call = pipeline.add_command(start("EVALSHA"));
            call.arg(&scripts.lease.sha).arg(asked.keys.len()).arg(asked.keys).arg(asked.holder);
            for limit in asked.limits {
                call.arg(limit.most).arg(limit.lease_ms()).arg(limit.mode as u8);
            }
        }
        let cached = pipeline.len();
        if let Some(asked) = questions.cached {
            pipeline.add_command(start("MGET")).arg(asked.epochs);
            if let Some(CachedEntry { key, variants, lock }) = asked.entry {
                // First the lock: whoever had it stored the response before it was given back.
                if let Some(wanted) = lock {
                    pipeline.add_command(take_call(wanted));
                }
                pipeline.add_command(variants_call(key, variants));
            }
        }
        Ok(Self { pipeline, revocation, session, charges, leases, cached, by_script })
    }

    /// The positions of scripts that the server did not know.
    pub(super) fn unknown_scripts(&self, replies: &[Value]) -> Vec<usize> {
        let unknown = |at: &usize| match replies.get(*at) {
            Some(Value::ServerError(error)) => error.code() == "NOSCRIPT",
            _ => false,
        };
        let mut positions = vec![self.session, self.charges, self.leases];
        positions.dedup();
        positions.into_iter().filter(unknown).collect()
    }

    /// The script that reads a session which turned out to be no string.
    pub(super) fn session_again(
        &self,
        questions: &Questions<'_>,
        replies: &[Value],
        scripts: &Scripts,
    ) -> Option<Pipeline> {
        let asked = questions.session.filter(|_| !self.by_script)?;
        match replies.get(self.session) {
            Some(Value::ServerError(error)) if error.code() == "WRONGTYPE" => {
                let mut pipeline = Pipeline::with_capacity(1);
                pipeline.add_command(session_call("EVAL", scripts.session.code, asked));
                Some(pipeline)
            }
            _ => None,
        }
    }

    /// The command that reads when and why a session ended, where that is kept and can be read.
    pub(super) fn end(&self, questions: &Questions<'_>, replies: &[Value]) -> Option<Cmd> {
        let end = questions.session.and_then(|asked| asked.end)?;
        // The last command about the session.
        match replies.get(self.charges.checked_sub(1)?) {
            Some(Value::Int(bytes)) if (1..=ENDS_BYTES_MAX).contains(bytes) => {
                let mut command = redis::cmd("HGET");
                command.arg(end).arg(ENDS);
                Some(command)
            }
            _ => None,
        }
    }

    /// The commands at `positions` again, each behind the loading of its script and with its text:
    /// the server may forget it once more in between.
    pub(super) fn reload(&self, positions: &[usize], scripts: &Scripts) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(2 * positions.len());
        for &at in positions {
            let Some(command) = self.pipeline.cmd_iter().nth(at) else { continue };
            // A question that was not asked begins where the next one does, so the last one counts.
            let script: &Script = match at {
                at if at == self.leases => &scripts.lease,
                at if at == self.charges => &scripts.take,
                _ => &scripts.session,
            };
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script.code);
            let again = pipeline.add_command(start("EVAL")).arg(script.code);
            for argument in command.args_iter().skip(2) {
                if let Arg::Simple(bytes) = argument {
                    again.arg(bytes);
                }
            }
        }
        pipeline
    }

    /// Puts the second replies of [`Self::reload`] where the first ones failed.
    pub(super) fn merge(
        mut replies: Vec<Value>,
        positions: &[usize],
        again: Vec<Value>,
    ) -> Vec<Value> {
        let second = again.into_iter().skip(1).step_by(2);
        for (&at, value) in positions.iter().zip(second) {
            if let Some(reply) = replies.get_mut(at) {
                *reply = value;
            }
        }
        replies
    }

    /// Whether the scripts answered in the form of the answers to these questions.
    pub(super) fn is_possible(&self, questions: &Questions<'_>, replies: &[Value]) -> bool {
        let fits = |at: usize, form: &dyn Fn(&Value) -> bool| {
            replies.get(at).is_some_and(|reply| is_error(reply) || form(reply))
        };
        let is_list = |reply: &Value, expected: usize| match reply {
            Value::Array(parts) => parts.len() == expected,
            _ => false,
        };
        let session = questions.session.is_none()
            || !self.by_script
            || fits(self.session, &|reply| is_list(reply, 2));
        let charges = questions.charges.is_none_or(|asked| {
            let bytes = 7 + 28 * asked.keys.len();
            fits(self.charges, &|reply| match reply {
                Value::BulkString(packed) => packed.len() == bytes,
                _ => false,
            })
        });
        let leases = questions
            .leases
            .is_none_or(|asked| fits(self.leases, &|reply| is_list(reply, asked.keys.len() + 1)));
        session && charges && leases
    }

    /// Reads the replies. `now_ms` is the time of the store's clock.
    pub(super) fn answers(
        &self,
        questions: &Questions<'_>,
        mut replies: Vec<Value>,
        now_ms: u64,
    ) -> Answers {
        // What the transaction did, if there was one.
        let settled = match self.revocation.checked_sub(1).and_then(|exec| replies.get(exec)) {
            Some(Value::Array(done)) => done.iter().all(|reply| server_error(reply).is_none()),
            _ => false,
        };
        let mut take = |at: usize| replies.get_mut(at).map(std::mem::take).unwrap_or_default();
        Answers {
            revocation: questions.revocation.map(|asked| {
                let mut at = self.revocation;
                let mut next = |present: bool| {
                    at += usize::from(present);
                    if present { take(at - 1) } else { Value::Nil }
                };
                let listed = next(!asked.blacklist.is_empty());
                let not_before = next(asked.not_before.is_some());
                let record = asked.record.map(|_| next(true));
                revocation(&listed, not_before, record.as_ref())
            }),
            session: questions.session.map(|asked| match (take(self.session), self.by_script) {
                // A key that is not there, or holds nothing.
                (Value::BulkString(text), false) if text.is_empty() => Ok(None),
                (Value::BulkString(text), false) if asked.ttl => {
                    plain_session(text, &take(self.session + 1))
                }
                (Value::BulkString(text), false) => plain_session(text, &Value::Int(-1)),
                (reply, _) => session(reply),
            }),
            session_end: None,
            charges: questions.charges.map(|asked| charges(take(self.charges), asked.keys.len())),
            leases: questions.leases.map(|asked| leases(take(self.leases), asked.keys.len())),
            cached: questions.cached.map(|asked| {
                let epochs = take(self.cached);
                let entry = asked.entry.map(|wanted| {
                    let is_wanted = usize::from(wanted.lock.is_some());
                    let taken = if is_wanted == 1 { take(self.cached + 1) } else { Value::Okay };
                    (taken, take(self.cached + 1 + is_wanted), wanted)
                });
                cached(epochs, entry, now_ms)
            }),
            settled,
        }
    }
}

fn session_call(verb: &str, script: &str, asked: SessionKey<'_>) -> Cmd {
    let mut call = redis::cmd(verb);
    call.arg(script).arg(1).arg(asked.key).arg(asked.bytes_max);
    call
}

/// When and why a session ended, as [`Batch::end`] asked.
pub(super) fn ended(reply: &Value) -> Option<SessionEnd> {
    match reply {
        Value::BulkString(text) => SessionEnd::parse(text),
        _ => None,
    }
}

fn revocation(
    listed: &Value,
    not_before: Value,
    record: Option<&Value>,
) -> Reply<RevocationStatus> {
    let exists = |reply: &Value| match reply {
        Value::Nil | Value::Int(0) => Ok(false),
        Value::Int(_) => Ok(true),
        other => Err(unexpected(other)),
    };
    let listed = exists(listed)?;
    let gone = !record.map_or(Ok(true), exists)?;
    let not_before = match not_before {
        Value::Nil => None,
        // A key that is not there, or holds nothing.
        Value::BulkString(text) if text.is_empty() => None,
        Value::BulkString(text) => {
            let text = if text.len() > NOT_BEFORE_BYTES_MAX { Vec::new() } else { text };
            let seconds = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
            let refused =
                || StoreError::Refused("a not-before key holds no Unix time in seconds".to_owned());
            Some(seconds.ok_or_else(refused)?)
        }
        other => return Err(unexpected(&other)),
    };
    Ok(RevocationStatus { listed, not_before, gone })
}

fn plain_session(text: Vec<u8>, ttl_ms: &Value) -> Reply<Option<SessionReply>> {
    let ttl = match ttl_ms {
        Value::Int(ms) => u64::try_from(*ms).ok().map(std::time::Duration::from_millis),
        other => return Err(unexpected(other)),
    };
    Ok(Some(SessionReply { value: SessionValue::Text(text.into()), ttl }))
}

pub(super) fn session(reply: Value) -> Reply<Option<SessionReply>> {
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

fn charges(reply: Value, expected: usize) -> Reply<ChargeReply> {
    let Value::BulkString(packed) = reply else { return Err(unexpected(&reply)) };
    decode_charges(&packed, expected).ok_or_else(|| {
        StoreError::Refused("the limiter script answered in another form".to_owned())
    })
}

/// Reads what `scripts/take.lua` packed.
fn decode_charges(packed: &[u8], expected: usize) -> Option<ChargeReply> {
    let (head, states) = packed.split_at_checked(7)?;
    let (states, rest) = states.as_chunks::<28>();
    if states.len() != expected || !rest.is_empty() {
        return None;
    }
    let number = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        i64::from_le_bytes(wide)
    };
    let state = |state: &[u8; 28]| WindowState {
        free: number(&state[..8]),
        retry_ms: number(&state[8..16]),
        next_ms: number(&state[16..22]),
        full_ms: number(&state[22..]),
    };
    Some(ChargeReply {
        allowed: head[0] == 1,
        at_us: number(&head[1..]).unsigned_abs(),
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

fn is_error(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(_))
}

/// Whether the server takes no writes now, and may take them later.
pub(super) fn refuses_writes(replies: &[Value]) -> bool {
    let refuses = |reply: &Value| {
        matches!(reply, Value::ServerError(error)
            if matches!(error.code(), "OOM" | "NOREPLICAS" | "MISCONF" | "CLUSTERDOWN" | "BUSY"))
    };
    health(replies) == Health::Broken || replies.iter().any(refuses)
}

/// What the replies say about the server: some errors mean that this connection will not do any
/// more. Those that any connection would get, and those that hold for writes alone, do not: another
/// connection would fare no better, and what can be read is read.
pub(super) fn health(replies: &[Value]) -> Health {
    let unusable = |reply: &Value| {
        matches!(reply, Value::ServerError(error)
            if matches!(error.code(), "READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH"))
    };
    if replies.iter().any(unusable) { Health::Broken } else { Health::Good }
}
