//! Indexes in Redis: the sessions of a user, the API keys of an owner. What an index names lies
//! elsewhere, in a Redis Cluster on other servers, so that it is a hint: whoever meets what is gone
//! takes it out, and by the score that was read, so that what was written anew meanwhile stays.

use redis::{Cmd, Value};

use super::RedisStore;
use super::reply::unexpected;
use crate::store::{Reply, StoreError};

/// One id in an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// As it stands there, which an application may have written.
    id: Vec<u8>,
    score: Vec<u8>,
}

impl Member {
    /// One that the gateway has written.
    pub(super) fn new(part: &str, created_s: u64) -> Self {
        Self { id: part.as_bytes().to_vec(), score: created_s.to_string().into_bytes() }
    }

    /// The id as it stands in keys.
    pub(super) fn part(&self) -> String {
        String::from_utf8_lossy(&self.id).into_owned()
    }

    /// Unix seconds.
    pub(super) fn created_s(&self) -> u64 {
        let score = std::str::from_utf8(&self.score).ok().and_then(|it| it.parse::<f64>().ok());
        score.unwrap_or_default() as u64
    }
}

/// A part of an index.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// How many ids the whole of it holds.
    pub(super) count: usize,
    pub(super) members: Vec<Member>,
}

impl Page {
    /// Of the reply `{count, id, score, …}`.
    pub(super) fn read(reply: Value) -> Reply<Self> {
        let Value::Array(parts) = reply else { return Err(unexpected(&reply)) };
        let mut parts = parts.into_iter();
        let mut page = Self { count: parts.next().map_or(Ok(0), size)?, members: Vec::new() };
        while let (Some(id), Some(score)) = (parts.next(), parts.next()) {
            page.members.push(Member { id: bytes(id)?, score: bytes(score)? });
        }
        Ok(page)
    }
}

impl RedisStore {
    /// The oldest ids of an index, or the newest.
    pub(super) async fn page(&self, index: &str, from: From, most: usize) -> Reply<Page> {
        let mut call = eval(include_str!("../scripts/index_page.lua"), &[index]);
        call.arg(most).arg(match from {
            From::Oldest => "oldest",
            From::Newest => "newest",
        });
        Page::read(self.run_one(call).await?)
    }

    /// Takes ids out of an index; how many it holds then.
    pub(super) async fn drop_members(&self, index: &str, gone: &[Member]) -> Reply<usize> {
        let mut call = eval(include_str!("../scripts/index_drop.lua"), &[index]);
        for Member { id, score } in gone {
            call.arg(&id[..]).arg(&score[..]);
        }
        size(self.run_one(call).await?)
    }
}

/// Where a page of an index begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum From {
    Oldest,
    Newest,
}

/// A script that travels with its call: what operators do is rare, and must not fail because the
/// server forgot it. All keys lie in one slot.
pub(super) fn eval(script: &str, keys: &[&str]) -> Cmd {
    call("EVAL", script, keys)
}

/// A call of a script that the server knows.
pub(super) fn evalsha(sha: &str, keys: &[&str]) -> Cmd {
    call("EVALSHA", sha, keys)
}

fn call(verb: &str, script: &str, keys: &[&str]) -> Cmd {
    let mut call = redis::cmd(verb);
    call.arg(script).arg(keys.len()).arg(keys);
    call
}

pub(super) fn bytes(value: Value) -> Reply<Vec<u8>> {
    match value {
        Value::BulkString(text) => Ok(text),
        other => Err(unexpected(&other)),
    }
}

/// A number that counts something.
pub(super) fn size(value: Value) -> Reply<usize> {
    integer(value).map(|number| usize::try_from(number).unwrap_or_default())
}

pub(super) fn integer(value: Value) -> Reply<i64> {
    match value {
        Value::Int(number) => Ok(number),
        other => Err(unexpected(&other)),
    }
}

/// The parts of a reply that has as many.
///
/// # Errors
/// It has another form.
pub(super) fn parts<const N: usize>(reply: Value) -> Reply<[Value; N]> {
    match reply {
        Value::Array(parts) => <[Value; N]>::try_from(parts)
            .map_err(|_| StoreError::Refused("a script answered in another form".to_owned())),
        other => Err(unexpected(&other)),
    }
}
