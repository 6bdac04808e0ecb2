//! Sessions in Redis: each change is one script, so that a session, what is kept beside it and the
//! index of its user never disagree.

use redis::{Cmd, Value};

use super::reply::unexpected;
use super::{RedisStore, millis};
use crate::store::sessions::SESSIONS_MAX;
use crate::store::{
    Renewal, Reply, SessionKeys, SessionList, SessionListed, SessionWrite, SessionWritten,
    StoreError,
};

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
        self.run_one(call).await.map(|_| ())
    }

    // What operators do is rare, and must not fail because the server forgot a script: the script
    // travels with the call.

    /// See [`crate::store::Store::write_session`].
    pub async fn write_session(
        &self,
        write: &SessionWrite,
    ) -> Result<Option<SessionWritten>, StoreError> {
        let mut keys = vec![&*write.keys.session, &*write.keys.end];
        keys.extend(write.index.as_deref());
        let mut call = eval("EVAL", include_str!("../scripts/session_write.lua"), &keys);
        call.arg(write.value.as_ref()).arg(millis(write.ttl)).arg(millis(write.kept));
        call.arg(write.why.word()).arg(&write.part).arg(write.most.unwrap_or(0));
        call.arg(&write.families).arg(u8::from(write.only_over));
        let reply = match self.run_one(call).await? {
            Value::Nil => return Ok(None),
            reply => array(reply)?,
        };
        let mut reply = reply.into_iter();
        let replaced = reply.next().map(integer).transpose()? == Some(1);
        Ok(Some(SessionWritten { replaced, ended: reply.map(text).collect::<Reply<_>>()? }))
    }

    /// See [`crate::store::Store::end_session`].
    pub async fn end_session(&self, keys: &SessionKeys, part: &str) -> Result<bool, StoreError> {
        let script = include_str!("../scripts/session_end.lua");
        let mut call = eval("EVAL", script, &[&keys.session, &keys.end]);
        call.arg(part);
        Ok(integer(self.run_one(call).await?)? == 1)
    }

    /// See [`crate::store::Store::list_sessions`].
    pub async fn list_sessions(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<SessionList, StoreError> {
        let mut call = eval("EVAL", include_str!("../scripts/session_list.lua"), &[index]);
        call.arg(SESSIONS_MAX).arg(families);
        let mut reply = array(self.run_one(call).await?)?.into_iter();
        let count = reply.next().map(integer).transpose()?.unwrap_or_default();
        Ok(SessionList { sessions: reply.map(listed).collect::<Reply<_>>()?, count: size(count) })
    }

    /// Ends the oldest [`SESSIONS_MAX`] sessions of an index: how many there were, and how many ids
    /// it still holds.
    pub async fn end_sessions(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<(usize, usize), StoreError> {
        let mut call = eval("EVAL", include_str!("../scripts/sessions_end.lua"), &[index]);
        call.arg(SESSIONS_MAX).arg(families);
        let reply = array(self.run_one(call).await?)?;
        match reply.as_slice() {
            [Value::Int(ended), Value::Int(left)] => Ok((size(*ended), size(*left))),
            _ => Err(other_form()),
        }
    }
}

fn eval(verb: &str, script: &str, keys: &[&str]) -> Cmd {
    let mut call = redis::cmd(verb);
    call.arg(script).arg(keys.len()).arg(keys);
    call
}

fn listed(reply: Value) -> Reply<SessionListed> {
    let Ok([part, Value::Int(created), Value::Int(left), seen]) =
        <[Value; 4]>::try_from(array(reply)?)
    else {
        return Err(other_form());
    };
    let seen_ms = match seen {
        Value::Nil => None,
        seen => text(seen)?.parse().ok(),
    };
    Ok(SessionListed {
        part: text(part)?,
        created_s: u64::try_from(created).unwrap_or_default(),
        seen_ms,
        ttl: u64::try_from(left).ok().map(std::time::Duration::from_millis),
    })
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
