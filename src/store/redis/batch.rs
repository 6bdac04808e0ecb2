//! One question as one pipeline, and its replies as answers.
//!
//! The order of commands is fixed; a [`Batch`] remembers only where each part begins. An error of
//! one command is the answer to its own question and to no other.

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use super::link::{Health, Script, Scripts};
use super::set_epoch;
use crate::store::{
    Answers, CachedReply, ChargeReply, Questions, Reply, SessionReply, SessionValue, StandingReply,
    StoreError, WindowState, epoch_vector, nonce,
};

/// A pipeline and where each question's replies begin in it.
pub(super) struct Batch {
    pub(super) pipeline: Pipeline,
    standing: usize,
    session: usize,
    charges: usize,
    cached: usize,
    /// Whether the session is read by the script, which knows hashes too.
    by_script: bool,
}

impl Batch {
    /// Encodes the questions, overdue invalidations first, so that what is read is read after them.
    /// Sessions are read by plain commands, which cost the server a fraction of a script, unless
    /// `by_script` says that the application keeps hashes.
    pub(super) fn new(
        questions: &Questions<'_>,
        scripts: &Scripts,
        by_script: bool,
    ) -> Result<Self, StoreError> {
        let mut pipeline = Pipeline::with_capacity(8);
        for epoch in questions.overdue {
            pipeline.add_command(set_epoch(epoch, &nonce()?));
        }
        let standing = pipeline.len();
        if let Some(asked) = questions.standing {
            if !asked.blacklist.is_empty() {
                pipeline.cmd("EXISTS").arg(asked.blacklist);
            }
            if let Some(key) = asked.not_before {
                pipeline.cmd("GET").arg(key);
            }
        }
        let session = pipeline.len();
        if let Some(key) = questions.session {
            if by_script {
                pipeline.add_command(session_call("EVALSHA", &scripts.session.sha, key));
            } else {
                pipeline.cmd("GET").arg(key);
                pipeline.cmd("PTTL").arg(key);
            }
        }
        let charges = pipeline.len();
        if let Some(asked) = questions.charges {
            let call = pipeline.cmd("EVALSHA").arg(&scripts.take.sha).arg(asked.keys.len());
            call.arg(asked.keys).arg(asked.set.records.as_slice()).arg(&asked.set.ttls);
        }
        let cached = pipeline.len();
        if let Some(asked) = questions.cached {
            pipeline.cmd("MGET").arg(asked.epochs);
            if let Some(entry) = asked.entry {
                pipeline.cmd("GET").arg(entry);
            }
        }
        Ok(Self { pipeline, standing, session, charges, cached, by_script })
    }

    /// The positions of scripts that the server did not know.
    pub(super) fn unknown_scripts(&self, replies: &[Value]) -> Vec<usize> {
        let unknown = |at: &usize| match replies.get(*at) {
            Some(Value::ServerError(error)) => error.code() == "NOSCRIPT",
            _ => false,
        };
        let mut positions = vec![self.session, self.charges];
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
        let key = questions.session.filter(|_| !self.by_script)?;
        match replies.get(self.session) {
            Some(Value::ServerError(error)) if error.code() == "WRONGTYPE" => {
                let mut pipeline = Pipeline::with_capacity(1);
                pipeline.add_command(session_call("EVAL", scripts.session.code, key));
                Some(pipeline)
            }
            _ => None,
        }
    }

    /// The commands at `positions` again, each behind the loading of its script.
    pub(super) fn reload(&self, positions: &[usize], scripts: &Scripts) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(2 * positions.len());
        for &at in positions {
            let Some(command) = self.pipeline.cmd_iter().nth(at) else { continue };
            let script: &Script = if at == self.charges { &scripts.take } else { &scripts.session };
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script.code);
            pipeline.add_command(command.clone());
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

    /// Reads the replies.
    pub(super) fn answers(&self, questions: &Questions<'_>, mut replies: Vec<Value>) -> Answers {
        let settled =
            self.standing > 0 && replies[..self.standing].iter().all(|r| server_error(r).is_none());
        let mut take = |at: usize| replies.get_mut(at).map(std::mem::take).unwrap_or_default();
        Answers {
            standing: questions.standing.map(|asked| {
                let mut at = self.standing;
                let mut next = |present: bool| {
                    at += usize::from(present);
                    if present { take(at - 1) } else { Value::Nil }
                };
                let listed = next(!asked.blacklist.is_empty());
                standing(&listed, next(asked.not_before.is_some()))
            }),
            session: questions.session.map(|_| match (take(self.session), self.by_script) {
                (Value::BulkString(text), false) => plain_session(text, &take(self.session + 1)),
                (Value::Nil, false) => Ok(None),
                (reply, _) => session(reply),
            }),
            charges: questions.charges.map(|asked| charges(take(self.charges), asked.keys.len())),
            cached: questions.cached.map(|asked| {
                let epochs = take(self.cached);
                let entry = if asked.entry.is_some() { take(self.cached + 1) } else { Value::Nil };
                cached(epochs, entry)
            }),
            settled,
        }
    }
}

fn session_call(verb: &str, script: &str, key: &str) -> Cmd {
    let mut call = redis::cmd(verb);
    call.arg(script).arg(1).arg(key);
    call
}

fn standing(listed: &Value, not_before: Value) -> Reply<StandingReply> {
    let listed = match listed {
        Value::Nil | Value::Int(0) => false,
        Value::Int(_) => true,
        other => return Err(unexpected(other)),
    };
    let not_before = match not_before {
        Value::Nil => None,
        Value::BulkString(text) => {
            let seconds = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
            let refused =
                || StoreError::Refused("a not-before key holds no Unix time in seconds".to_owned());
            Some(seconds.ok_or_else(refused)?)
        }
        other => return Err(unexpected(&other)),
    };
    Ok(StandingReply { listed, not_before })
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
    let Value::Array(parts) = reply else { return Err(unexpected(&reply)) };
    let mut numbers = parts.iter().map(|part| match part {
        Value::Int(number) => *number,
        _ => i64::MIN,
    });
    let allowed = numbers.next() == Some(1);
    let at_us = numbers.next().and_then(|at| u64::try_from(at).ok()).unwrap_or_default();
    let mut windows = Vec::with_capacity(expected);
    while let (Some(free), Some(retry_ms), Some(next_ms), Some(full_ms)) =
        (numbers.next(), numbers.next(), numbers.next(), numbers.next())
    {
        windows.push(WindowState { free, retry_ms, next_ms, full_ms });
    }
    if windows.len() != expected {
        return Err(StoreError::Refused("the limiter script answered in another form".to_owned()));
    }
    Ok(ChargeReply { allowed, at_us, windows })
}

fn cached(epochs: Value, entry: Value) -> Reply<CachedReply> {
    let Value::Array(epochs) = epochs else { return Err(unexpected(&epochs)) };
    let text = |value: &Value| match value {
        Value::BulkString(text) => Some(Bytes::copy_from_slice(text)),
        _ => None,
    };
    let entry = match entry {
        Value::Nil => None,
        Value::BulkString(bytes) => Some(Bytes::from(bytes)),
        other => return Err(unexpected(&other)),
    };
    let epochs: Vec<Option<Bytes>> = epochs.iter().map(text).collect();
    Ok(CachedReply {
        epochs: epoch_vector(epochs.iter().map(Option::as_deref)),
        path_epoch: epochs.last().cloned().flatten().unwrap_or_default(),
        based: epochs.first().is_some_and(Option::is_some),
        entry,
    })
}

/// What the replies say about the server: some errors mean that this connection will not do any
/// more.
pub(super) fn health(replies: &[Value]) -> Health {
    let unusable = |reply: &Value| {
        matches!(reply, Value::ServerError(error)
            if matches!(error.code(), "READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH"))
    };
    if replies.iter().any(unusable) { Health::Broken } else { Health::Good }
}

/// A command's own error.
pub(super) fn server_error(reply: &Value) -> Option<StoreError> {
    match reply {
        Value::ServerError(error) if error.code() == "NOSCRIPT" => {
            Some(StoreError::Refused("NoScript".to_owned()))
        }
        Value::ServerError(error) => Some(StoreError::Refused(error.to_string())),
        _ => None,
    }
}

/// A reply of another type than the command gives. The value itself may be a user's data, so only
/// its kind is told.
fn unexpected(reply: &Value) -> StoreError {
    server_error(reply).unwrap_or_else(|| {
        let kind = match reply {
            Value::Nil => "nothing",
            Value::Int(_) => "a number",
            Value::BulkString(_) => "a string",
            Value::Array(_) => "an array",
            _ => "another type",
        };
        StoreError::Refused(format!("unexpected reply: {kind}"))
    })
}
