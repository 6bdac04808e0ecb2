//! Sessions in Redis. A session and what is kept beside it lie in one slot and change in one
//! script. The index of its user lies elsewhere: it is a hint, written before the session and read
//! by those who drop what is gone. So most changes are a few steps, each of which may be repeated.

use std::time::Duration;

use redis::{Cmd, Pipeline, Value};

use super::reply::unexpected;
use super::{RedisStore, millis};
use crate::store::sessions::SESSIONS_MAX;
use crate::store::{
    Renewal, Reply, SessionKeys, SessionList, SessionListed, SessionWrite, SessionWritten,
    StoreError,
};

/// How many of the oldest ids of an index are looked at in passing, so that what is gone does not
/// stay.
const TIDIED: usize = 100;

impl RedisStore {
    /// See [`crate::store::Store::renew`].
    pub async fn renew(&self, keys: &SessionKeys, renewal: Renewal) -> Result<(), StoreError> {
        let mut call =
            eval("EVALSHA", &self.topology.scripts.renew.sha, &[&keys.session, &keys.end]);
        call.arg(millis(renewal.ttl));
        match renewal.until_ms {
            Some(until) => call.arg(until),
            None => call.arg(""),
        };
        call.arg(millis(renewal.kept));
        let parts = match self.run_one(call).await? {
            // Gone, or its time is up.
            Value::Int(_) => return Ok(()),
            reply => array(reply)?,
        };
        let Ok([index, kept]) = <[Value; 2]>::try_from(parts) else { return Err(other_form()) };
        let (index, kept) = (text(index)?, text(kept)?);
        if !index.is_empty() {
            // The index must outlive each of its sessions. One without an expiry is the
            // application's, and GT leaves it so.
            let mut extend = redis::cmd("PEXPIRE");
            extend.arg(index).arg(kept).arg("GT");
            self.run_one(extend).await?;
        }
        Ok(())
    }

    // What operators do is rare, and must not fail because the server forgot a script: the script
    // travels with the call.

    /// See [`crate::store::Store::write_session`].
    pub async fn write_session(
        &self,
        write: &SessionWrite,
    ) -> Result<Option<SessionWritten>, StoreError> {
        if self.topology.is_spread() {
            self.write_in_steps(write).await
        } else {
            self.write_at_once(write).await
        }
    }

    /// On one server, so that a user has at no moment more sessions than allowed.
    async fn write_at_once(
        &self,
        write: &SessionWrite,
    ) -> Result<Option<SessionWritten>, StoreError> {
        let mut keys = vec![&*write.keys.session, &*write.keys.end];
        keys.extend(write.index.as_deref());
        let mut call = eval("EVAL", include_str!("../scripts/session_write.lua"), &keys);
        call.arg(write.value.as_ref()).arg(millis(write.ttl)).arg(millis(write.kept));
        call.arg(write.why.word()).arg(&write.part).arg(write.most.unwrap_or(0));
        call.arg(&write.families[0]).arg(u8::from(write.only_over));
        let reply = match self.run_one(call).await? {
            Value::Nil => return Ok(None),
            reply => array(reply)?,
        };
        let mut reply = reply.into_iter();
        let replaced = reply.next().map(integer).transpose()? == Some(1);
        let ended = reply.map(text).collect::<Reply<Vec<String>>>()?;
        let mut pipeline = Pipeline::with_capacity(ended.len() + 1);
        for part in &ended {
            pipeline.cmd("DEL").arg(SessionKeys::of_part(&write.families, part).end);
        }
        if !ended.is_empty() {
            self.run_all(&mut pipeline).await?;
        }
        Ok(Some(SessionWritten { replaced, ended }))
    }

    /// In a cluster. Log-ins of one user at a time may each be there for a moment; once they are
    /// answered, no more are left than allowed.
    async fn write_in_steps(
        &self,
        write: &SessionWrite,
    ) -> Result<Option<SessionWritten>, StoreError> {
        // In the index first: a session that stands in none would outlive a log-out everywhere. An
        // update that finds nothing must leave nothing.
        if let Some(index) = write.index.as_deref().filter(|_| !write.only_over) {
            self.put_into_index(index, write).await?;
        }
        let script = include_str!("../scripts/session_put.lua");
        let mut call = eval("EVAL", script, &[&write.keys.session, &write.keys.end]);
        call.arg(write.value.as_ref()).arg(millis(write.ttl)).arg(millis(write.kept));
        call.arg(write.why.word()).arg(write.index.as_deref().unwrap_or_default());
        call.arg(u8::from(write.only_over));
        let parts = match self.run_one(call).await? {
            Value::Nil => return Ok(None),
            reply => array(reply)?,
        };
        let Ok([was, known]) = <[Value; 2]>::try_from(parts) else { return Err(other_form()) };
        let (replaced, known) = (integer(was)? == 1, text(known)?);
        let mut written = SessionWritten { replaced, ended: Vec::new() };
        let index = write.index.as_deref().unwrap_or(&known);
        if index.is_empty() {
            return Ok(Some(written));
        }
        // Once more: who read the index meanwhile took out what was not there yet.
        let oldest = self.put_into_index(index, write).await?;
        if !known.is_empty() && known != index {
            self.take_from_index(&known, &[&write.part]).await?;
        }
        written.ended = self.trim(index, write, replaced, oldest).await?;
        Ok(Some(written))
    }

    /// Puts a session into an index: the ids in it that are looked at.
    async fn put_into_index(
        &self,
        index: &str,
        write: &SessionWrite,
    ) -> Result<Vec<String>, StoreError> {
        let mut call = eval("EVAL", include_str!("../scripts/session_index.lua"), &[index]);
        call.arg(&write.part).arg(millis(write.ttl + write.kept));
        // Without a bound the index is only kept tidy. With one, all of it counts.
        call.arg(if write.most.is_some() { u32::MAX as usize } else { TIDIED });
        array(self.run_one(call).await?)?.into_iter().map(text).collect()
    }

    /// Ends the oldest beyond the bound: those that ended. All who write at a time agree on which
    /// these are, so no two end each other, and the last to look sees all. A log-in that was
    /// overtaken ends itself; a session that was there before is never ended by its own update. An
    /// id whose session is not there may be one that is being written: it stays in the index.
    async fn trim(
        &self,
        index: &str,
        write: &SessionWrite,
        replaced: bool,
        oldest: Vec<String>,
    ) -> Result<Vec<String>, StoreError> {
        let alive = self.alive(write, oldest).await?;
        let most = write.most.map_or(usize::MAX, |most| most as usize);
        let over = alive.len().saturating_sub(most);
        let may_end = |part: &&String| !(replaced && **part == write.part);
        let mut ended = Vec::with_capacity(over);
        for part in alive.iter().filter(may_end).take(over) {
            let keys = SessionKeys::of_part(&write.families, part);
            if self.end(&keys, index).await?.0 {
                ended.push(part.clone());
            }
        }
        let out: Vec<&str> = ended.iter().map(String::as_str).collect();
        self.take_from_index(index, &out).await?;
        Ok(ended)
    }

    /// Which of these sessions are there.
    async fn alive(
        &self,
        write: &SessionWrite,
        parts: Vec<String>,
    ) -> Result<Vec<String>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(parts.len() + 1);
        for part in &parts {
            pipeline.cmd("EXISTS").arg(SessionKeys::of_part(&write.families, part).session);
        }
        let mut found = self.run_all(&mut pipeline).await?.into_iter();
        Ok(parts.into_iter().filter(|_| found.next() == Some(Value::Int(1))).collect())
    }

    async fn take_from_index(&self, index: &str, parts: &[&str]) -> Result<(), StoreError> {
        if parts.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("ZREM");
        command.arg(index).arg(parts);
        self.run_one(command).await.map(|_| ())
    }

    /// Ends a session, if it stands in this index or in none, or whichever it stands in where none
    /// is named: whether one ended, and the index that it stood in.
    async fn end(&self, keys: &SessionKeys, index: &str) -> Result<(bool, String), StoreError> {
        let script = include_str!("../scripts/session_end.lua");
        let mut call = eval("EVAL", script, &[&keys.session, &keys.end]);
        call.arg(index);
        let parts = array(self.run_one(call).await?)?;
        let Ok([ended, known]) = <[Value; 2]>::try_from(parts) else { return Err(other_form()) };
        Ok((integer(ended)? == 1, text(known)?))
    }

    /// See [`crate::store::Store::end_session`].
    pub async fn end_session(&self, keys: &SessionKeys, part: &str) -> Result<bool, StoreError> {
        let (ended, index) = self.end(keys, "").await?;
        if !index.is_empty() {
            // The session has ended. Who reads the index drops what stays in it.
            let _ = self.take_from_index(&index, &[part]).await;
        }
        Ok(ended)
    }

    /// See [`crate::store::Store::list_sessions`].
    pub async fn list_sessions(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<SessionList, StoreError> {
        let mut newest = redis::cmd("ZRANGE");
        newest.arg(index).arg(0).arg(SESSIONS_MAX - 1).arg("REV").arg("WITHSCORES");
        let members = members(self.run_one(newest).await?)?;
        let mut pipeline = Pipeline::with_capacity(2 * members.len() + 1);
        for (part, _) in &members {
            let SessionKeys { session, end } = SessionKeys::of_part(families, part);
            pipeline.cmd("PTTL").arg(session).cmd("HGET").arg(end).arg("seen");
        }
        let replies = self.run_all(&mut pipeline).await?;
        let (mut sessions, mut gone) = (Vec::new(), Vec::new());
        for ((part, created_s), told) in members.into_iter().zip(replies.chunks_exact(2)) {
            match told {
                [Value::Int(-2), _] => gone.push(part),
                [Value::Int(left), seen] => sessions.push(SessionListed {
                    part,
                    created_s,
                    seen_ms: match seen {
                        Value::Nil => None,
                        seen => text(seen.clone())?.parse().ok(),
                    },
                    ttl: u64::try_from(*left).ok().map(Duration::from_millis),
                }),
                _ => return Err(other_form()),
            }
        }
        let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
        self.take_from_index(index, &gone).await?;
        Ok(SessionList { sessions, count: self.count(index).await? })
    }

    /// Ends the oldest [`SESSIONS_MAX`] sessions of an index: how many there were, and how many ids
    /// it still holds.
    pub async fn end_sessions(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<(usize, usize), StoreError> {
        let mut oldest = redis::cmd("ZRANGE");
        oldest.arg(index).arg(0).arg(SESSIONS_MAX - 1);
        let parts: Vec<String> =
            array(self.run_one(oldest).await?)?.into_iter().map(text).collect::<Reply<_>>()?;
        let mut pipeline = Pipeline::with_capacity(parts.len() + 1);
        for part in &parts {
            let SessionKeys { session, end } = SessionKeys::of_part(families, part);
            let script = include_str!("../scripts/session_end.lua");
            // An id that belongs to somebody else by now is only taken out.
            let mut call = eval("EVAL", script, &[&session, &end]);
            call.arg(index);
            pipeline.add_command(call);
        }
        let mut ended = 0;
        for reply in self.run_all(&mut pipeline).await? {
            ended += usize::from(array(reply)?.first() == Some(&Value::Int(1)));
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.take_from_index(index, &parts).await?;
        Ok((ended, self.count(index).await?))
    }

    async fn count(&self, index: &str) -> Result<usize, StoreError> {
        let mut count = redis::cmd("ZCARD");
        count.arg(index);
        Ok(size(integer(self.run_one(count).await?)?))
    }
}

/// Members with their scores in whole Unix seconds. RESP3 pairs them; a score is a number.
fn members(reply: Value) -> Reply<Vec<(String, u64)>> {
    let pair = |pair: Value| {
        let Ok([part, score]) = <[Value; 2]>::try_from(array(pair)?) else {
            return Err(other_form());
        };
        let seconds = match score {
            Value::Double(seconds) => seconds as u64,
            Value::Int(seconds) => u64::try_from(seconds).unwrap_or_default(),
            _ => return Err(other_form()),
        };
        Ok((text(part)?, seconds))
    };
    array(reply)?.into_iter().map(pair).collect()
}

fn eval(verb: &str, script: &str, keys: &[&str]) -> Cmd {
    let mut call = redis::cmd(verb);
    call.arg(script).arg(keys.len()).arg(keys);
    call
}

fn array(reply: Value) -> Reply<Vec<Value>> {
    match reply {
        Value::Array(parts) => Ok(parts),
        other => Err(unexpected(&other)),
    }
}

fn integer(reply: Value) -> Reply<i64> {
    match reply {
        Value::Int(number) => Ok(number),
        other => Err(unexpected(&other)),
    }
}

fn text(reply: Value) -> Reply<String> {
    match reply {
        Value::BulkString(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        other => Err(unexpected(&other)),
    }
}

fn size(number: i64) -> usize {
    usize::try_from(number).unwrap_or_default()
}

fn other_form() -> StoreError {
    StoreError::Refused("a session script answered in another form".to_owned())
}
