//! Sessions in Redis. A session and what is kept beside it lie in one slot of a Redis Cluster and
//! change in one script; the index of its user lies elsewhere, and is another step. Each step can
//! be repeated, and between any two of them the following holds.
//!
//! - **No session is outside of its user's index**: it is placed there before it is written, and
//!   taken out after it has ended. So a log-out everywhere finds it.
//! - **A user has at no moment more sessions than allowed.** Before a session is placed it is noted
//!   that it is being written, and from then on it counts. Once placed, the oldest beyond the bound
//!   are ended, and only then it is written. Of more than allowed, the one that was placed last saw
//!   all others, and wrote nothing before the oldest had ended.
//! - **What ended is not written.** Whoever ends a session also takes away the note that it is
//!   being written, and without one a session that is not there is not written. So of log-ins at
//!   once the last ones win, as if one had come after the other, and a log-out ends those that are
//!   under way.
//! - **Two log-ins never end each other**: new ones end the oldest in the order of the index, which
//!   is the same for all, be it themselves. An update ends none that is being written, itself among
//!   them.

use std::time::Duration;

use redis::{Cmd, Pipeline, Value};

use super::index::{From, Member, Page, bytes, eval, evalsha, integer, parts, size};
use super::{RedisStore, millis};
use crate::store::sessions::{ROUNDS_MAX, SESSIONS_MAX};
use crate::store::{
    Renewal, Reply, SessionKeys, SessionList, SessionListed, SessionWrite, SessionWritten,
    StoreError,
};

/// How long a session that is being written counts as there: longer than the steps of it take.
const WRITING: Duration = Duration::from_secs(60);
/// How many of the oldest are looked at when a session without a bound is written.
const TIDIED: usize = 100;

/// What an index is told of one session.
struct State {
    is_there: bool,
    is_being_written: bool,
    /// What is left of its life, if it ends.
    ttl: Option<Duration>,
    seen_ms: Option<u64>,
}

impl RedisStore {
    /// See [`crate::store::Store::renew`].
    pub async fn renew(&self, keys: &SessionKeys, renewal: Renewal) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::with_capacity(3);
        pipeline.add_command(self.renewed(keys, renewal, ""));
        pipeline.add_command(index_at(&keys.former_end()));
        let [renewed, former] = parts(Value::Array(self.run_all(&mut pipeline).await?))?;
        // Gone, or its time is up.
        let Value::Array(_) = renewed else { return Ok(()) };
        let [kept, known] = parts(renewed)?;
        let index = match (text_of(known), text_of(former)) {
            (None, Some(former)) => {
                self.run_one(self.renewed(keys, renewal, &former)).await?;
                former
            }
            (Some(index), _) => index,
            (None, None) => return Ok(()),
        };
        // The index must outlive each of its sessions. One without an expiry is the application's,
        // and GT leaves it so.
        let mut extend = redis::cmd("PEXPIREAT");
        extend.arg(index).arg(bytes(kept)?).arg("GT");
        self.run_one(extend).await.map(|_| ())
    }

    /// The call that renews a session, and notes whose it is where that is said.
    fn renewed(&self, keys: &SessionKeys, renewal: Renewal, index: &str) -> Cmd {
        let mut call = evalsha(&self.topology.scripts.renew.sha, &[&keys.session, &keys.end]);
        call.arg(millis(renewal.ttl));
        match renewal.until_ms {
            Some(until) => call.arg(until),
            None => call.arg(""),
        };
        call.arg(millis(renewal.kept)).arg(index);
        call
    }

    /// See [`crate::store::Store::write_session`].
    pub async fn write_session(
        &self,
        write: &SessionWrite,
    ) -> Result<Option<SessionWritten>, StoreError> {
        let Some((is_there, known)) = self.begin(write).await? else { return Ok(None) };
        let index = write.index.as_ref().or(known.as_ref());
        let mut ended = match index {
            Some(index) => self.make_room(write, index, is_there).await?,
            None => Vec::new(),
        };
        let replaced = integer(self.run_one(written(write, index)).await?)?;
        if replaced == -1 {
            if !ended.contains(&write.part) {
                ended.push(write.part.clone());
            }
            let written = SessionWritten { replaced: is_there, ended };
            return Ok(Some(written).filter(|_| !write.only_over));
        }
        if let Some(other) = known.as_ref().filter(|known| Some(*known) != index) {
            self.run_one(out_of(other, &write.part)).await?;
        }
        Ok(Some(SessionWritten { replaced: replaced == 1, ended }))
    }

    /// Notes that a session is being written: whether there is one, and its user's index. Nothing
    /// where it must not be written.
    async fn begin(&self, write: &SessionWrite) -> Reply<Option<(bool, Option<String>)>> {
        let SessionKeys { session, end } = &write.keys;
        let mut begin = eval(include_str!("../scripts/session_begin.lua"), &[session, end]);
        begin.arg(millis(WRITING)).arg(u8::from(write.only_over));
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(begin).add_command(index_at(&write.keys.former_end()));
        let mut replies = self.run_all(&mut pipeline).await?.into_iter();
        match replies.next().unwrap_or_default() {
            Value::Nil => Ok(None),
            reply => {
                let [there, index] = parts(reply)?;
                let is_there = integer(there)? == 1;
                let former = || replies.next().and_then(text_of).filter(|_| is_there);
                Ok(Some((is_there, text_of(index).or_else(former))))
            }
        }
    }

    /// Gives a session its place in an index, and ends what is too many with it: the ids of those,
    /// the oldest first.
    async fn make_room(
        &self,
        write: &SessionWrite,
        index: &str,
        is_there: bool,
    ) -> Reply<Vec<String>> {
        let looked_at = write.most.map_or(TIDIED, |_| SESSIONS_MAX);
        let mut ended = Vec::new();
        let mut is_new = !is_there;
        for _ in 0..ROUNDS_MAX {
            let mut place = eval(include_str!("../scripts/session_place.lua"), &[index]);
            place.arg(&write.part).arg(u8::from(is_new));
            place.arg(millis(write.ttl + write.kept)).arg(looked_at);
            is_new = false;
            let page = Page::read(self.run_one(place).await?)?;
            let states = self.states(&page.members, &write.families).await?;
            let (mut out, mut oldest) = (Vec::new(), Vec::new());
            for (member, state) in page.members.into_iter().zip(states) {
                if !state.is_there && !state.is_being_written {
                    out.push(member);
                } else if !is_there || !state.is_being_written {
                    oldest.push(member);
                }
            }
            let count = page.count - out.len().min(page.count);
            let over = write.most.map_or(0, |most| count.saturating_sub(most as usize));
            oldest.truncate(over);
            self.end_each(&oldest, index, &write.families).await?;
            ended.extend(oldest.iter().map(Member::part));
            let is_done = oldest.len() == over || (out.is_empty() && oldest.is_empty());
            out.extend(oldest);
            if !out.is_empty() {
                self.drop_members(index, &out).await?;
            }
            if is_done {
                return Ok(ended);
            }
        }
        Ok(ended)
    }

    /// See [`crate::store::Store::end_session`].
    pub async fn end_session(&self, keys: &SessionKeys, part: &str) -> Result<bool, StoreError> {
        let [was_there, index] = parts(self.run_one(end_call(keys, "")).await?)?;
        // Whatever score it has there: ids are random, and nobody writes one anew that just ended.
        if let Some(index) = text_of(index) {
            // The session has ended. Who reads the index drops what stays in it.
            let _ = self.run_one(out_of(&index, part)).await;
        }
        Ok(integer(was_there)? == 1)
    }

    /// See [`crate::store::Store::list_sessions`].
    pub async fn list_sessions(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<SessionList, StoreError> {
        let page = self.page(index, From::Newest, SESSIONS_MAX).await?;
        let states = self.states(&page.members, families).await?;
        let mut list = SessionList { sessions: Vec::new(), count: page.count };
        let mut gone = Vec::new();
        for (member, state) in page.members.into_iter().zip(states) {
            let State { is_there, is_being_written, ttl, seen_ms } = state;
            if is_there {
                let (part, created_s) = (member.part(), member.created_s());
                list.sessions.push(SessionListed { part, created_s, seen_ms, ttl });
                continue;
            }
            list.count = list.count.saturating_sub(1);
            if !is_being_written {
                gone.push(member);
            }
        }
        if !gone.is_empty() {
            self.drop_members(index, &gone).await?;
        }
        Ok(list)
    }

    /// Ends the oldest [`SESSIONS_MAX`] sessions of an index: how many there were, and how many ids
    /// it still holds.
    pub async fn end_sessions(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<(usize, usize), StoreError> {
        let page = self.page(index, From::Oldest, SESSIONS_MAX).await?;
        if page.members.is_empty() {
            return Ok((0, page.count));
        }
        let ended = self.end_each(&page.members, index, families).await?;
        Ok((ended, self.drop_members(index, &page.members).await?))
    }

    /// Ends sessions that are the user's whose index this is; how many there were.
    async fn end_each(
        &self,
        members: &[Member],
        index: &str,
        families: &[String; 2],
    ) -> Reply<usize> {
        let calls =
            members.iter().map(|it| end_call(&SessionKeys::of_part(families, &it.part()), index));
        let mut ended = 0;
        for reply in self.run_each(calls).await? {
            let [was_there, _] = parts(reply)?;
            ended += size(was_there)?;
        }
        Ok(ended)
    }

    /// What is beside a session is read first: between the two reads it may be written, and must
    /// not look like one that is gone.
    async fn states(&self, members: &[Member], families: &[String; 2]) -> Reply<Vec<State>> {
        let call = |member: &Member| {
            let SessionKeys { session, end } = SessionKeys::of_part(families, &member.part());
            let (mut beside, mut left) = (redis::cmd("HMGET"), redis::cmd("PTTL"));
            beside.arg(end).arg("seen").arg("writing");
            left.arg(session);
            [beside, left]
        };
        let replies = self.run_each(members.iter().flat_map(call)).await?;
        let mut replies = replies.into_iter();
        let mut states = Vec::with_capacity(members.len());
        while let (Some(beside), Some(left)) = (replies.next(), replies.next()) {
            let ([seen, writing], left) = (parts(beside)?.map(number_of), integer(left)?);
            states.push(State {
                is_there: left != -2,
                is_being_written: writing.is_some_and(|until| until > self.now_ms()),
                ttl: u64::try_from(left).ok().map(Duration::from_millis),
                seen_ms: seen,
            });
        }
        Ok(states)
    }
}

/// The call that ends a session. It is made of many at once, but rarely.
fn end_call(keys: &SessionKeys, index: &str) -> Cmd {
    let mut call = eval(include_str!("../scripts/session_end.lua"), &[&keys.session, &keys.end]);
    call.arg(index);
    call
}

/// The call that writes a session.
fn written(write: &SessionWrite, index: Option<&String>) -> Cmd {
    let SessionKeys { session, end } = &write.keys;
    let mut call = eval(include_str!("../scripts/session_write.lua"), &[session, end]);
    call.arg(write.value.as_ref()).arg(millis(write.ttl)).arg(millis(write.kept));
    call.arg(write.why.word()).arg(index.map_or("", String::as_str));
    call.arg(u8::from(write.only_over));
    call
}

/// The call that takes a session out of an index, whatever its score.
fn out_of(index: &str, part: &str) -> Cmd {
    let mut call = redis::cmd("ZREM");
    call.arg(index).arg(part);
    call
}

/// The call that reads whose a session is.
fn index_at(end: &str) -> Cmd {
    let mut call = redis::cmd("HGET");
    call.arg(end).arg("index");
    call
}

fn number_of(value: Value) -> Option<u64> {
    text_of(value)?.parse().ok()
}

fn text_of(value: Value) -> Option<String> {
    match value {
        Value::BulkString(text) => Some(String::from_utf8_lossy(&text).into_owned()),
        _ => None,
    }
}
