//! API keys in Redis. Record, id and index lie in different slots of a Redis Cluster, so that each
//! change is made of steps. A key is in force while its record is there: when it is made, that
//! comes last, and when it ends, it goes first, behind the revocation. What a failure leaves in
//! between is an id that leads nowhere, or a place in the index that the next reader takes out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use super::index::{From, Member, Page, bytes, eval};
use super::stream::Told;
use super::{RedisStore, millis};
use crate::store::api_keys::{API_KEYS_LISTED_MAX, ApiKeyKeys, GET_BYTES_MAX};
use crate::store::{ApiKeyList, ApiKeyWrite, Reply, Revocation, StoreError};

/// How many of the oldest in an index are looked at when a key is made.
const TIDIED: usize = 10;
/// How old a place in an index must be before it may lead nowhere: longer than the steps take that
/// make a key.
const BEING_WRITTEN: Duration = Duration::from_secs(60);
/// Most bytes of what an id leads to: a digest in hex, and more than that shows that it is none.
const DIGEST_BYTES_MAX: usize = 128;

impl RedisStore {
    /// See [`crate::store::Store::get`].
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        string(self.run_one(beginning(key, GET_BYTES_MAX)).await?)
    }

    /// See [`crate::store::Store::write_api_key`].
    pub async fn write_api_key(&self, write: &ApiKeyWrite) -> Result<(), StoreError> {
        let ApiKeyKeys { record, id, index, part } = &write.keys;
        let mut place = eval(include_str!("../scripts/api_key_place.lua"), &[index]);
        place.arg(part).arg(write.created_s).arg(write.ttl.map_or(0, millis)).arg(TIDIED);
        let oldest = Page::read(self.run_one(place).await?)?.members;
        // The index is kept tidy: what has expired goes, the oldest first.
        let mut pipeline = Pipeline::with_capacity(1 + TIDIED);
        pipeline.add_command(set(id, write.digest.as_bytes(), write.ttl));
        for member in &oldest {
            pipeline.cmd("EXISTS").arg([&*write.families[0], &*member.part()].concat());
        }
        let is_there = self.run_all(&mut pipeline).await?.into_iter().skip(1);
        let is_there = is_there.map(|reply| reply == Value::Int(1));
        self.tidy(index, oldest.into_iter().zip(is_there)).await?;
        self.run_one(set(record, &write.record, write.ttl)).await.map(|_| ())
    }

    /// See [`crate::store::Store::find_api_key`].
    pub async fn find_api_key(
        &self,
        id_key: &str,
        families: &[String; 2],
    ) -> Result<Option<(String, Bytes)>, StoreError> {
        let digest = self.run_one(beginning(id_key, DIGEST_BYTES_MAX)).await?;
        let Some(digest) = string(digest)? else { return Ok(None) };
        let digest = String::from_utf8_lossy(&digest).into_owned();
        let record = self.get(&[&*families[1], &*digest].concat()).await?;
        Ok(record.map(|record| (digest, record)))
    }

    /// See [`crate::store::Store::list_api_keys`].
    pub async fn list_api_keys(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<ApiKeyList, StoreError> {
        let page = self.page(index, From::Newest, API_KEYS_LISTED_MAX).await?;
        let digests = self.digests(&page.members, &families[0]).await?;
        let record = |digest: &Bytes| {
            let digest = String::from_utf8_lossy(digest);
            beginning(&[&*families[1], &*digest].concat(), GET_BYTES_MAX)
        };
        let calls = digests.iter().flatten().map(record);
        let mut records = self.run_each(calls).await?.into_iter();
        let mut found = Vec::with_capacity(digests.len());
        for digest in digests {
            found.push(match digest {
                Some(_) => string(records.next().unwrap_or_default())?,
                None => None,
            });
        }
        let records = found.iter().flatten().cloned().collect();
        let is_there = found.iter().map(Option::is_some);
        let gone = self.tidy(index, page.members.into_iter().zip(is_there)).await?;
        Ok(ApiKeyList { records, count: page.count.saturating_sub(gone) })
    }

    /// What the ids in an index lead to.
    async fn digests(&self, members: &[Member], family: &str) -> Reply<Vec<Option<Bytes>>> {
        let key = |member: &Member| [family, &*member.part()].concat();
        let calls = members.iter().map(|member| beginning(&key(member), DIGEST_BYTES_MAX));
        self.run_each(calls).await?.into_iter().map(string).collect()
    }

    /// Takes out of an index what leads nowhere and is not just being written; how many lead
    /// nowhere.
    pub(super) async fn tidy(
        &self,
        index: &str,
        found: impl Iterator<Item = (Member, bool)>,
    ) -> Reply<usize> {
        let gone = found.filter(|(_, is_there)| !is_there).map(|(member, _)| member);
        let mut gone: Vec<Member> = gone.collect();
        let count = gone.len();
        let written_s = self.now_ms() / 1000;
        gone.retain(|it| it.created_s().saturating_add(BEING_WRITTEN.as_secs()) < written_s);
        if !gone.is_empty() {
            self.drop_members(index, &gone).await?;
        }
        Ok(count)
    }

    /// See [`crate::store::Store::end_api_key`].
    pub async fn end_api_key(
        &self,
        keys: &ApiKeyKeys,
        revocation: Revocation<'_>,
    ) -> Result<bool, StoreError> {
        let mut delete = redis::cmd("DEL");
        delete.arg(&keys.record);
        let mut forget = redis::cmd("DEL");
        forget.arg(&keys.id);
        let mut take_out = redis::cmd("ZREM");
        take_out.arg(&keys.index).arg(&keys.part);
        let mut revoke = redis::cmd("SET");
        revoke.arg(revocation.key).arg(revocation.value()).arg("PX").arg(millis(revocation.ttl));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let told = Told::of(&revocation, now.as_secs());
        let stream_ttl = revocation.stream_ttl.max(revocation.ttl);
        let replies = self.tell(vec![revoke, delete, forget, take_out], told, stream_ttl).await?;
        Ok(matches!(replies.get(1), Some(Value::Int(1))))
    }
}

/// The call that writes a string with a life, if it has one.
fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Cmd {
    let mut call = redis::cmd("SET");
    call.arg(key).arg(value);
    if let Some(ttl) = ttl {
        call.arg("PX").arg(millis(ttl));
    }
    call
}

/// The call that reads a string; of a longer one than is of use, one byte more.
fn beginning(key: &str, bytes_max: usize) -> Cmd {
    let mut call = redis::cmd("GETRANGE");
    call.arg(key).arg(0).arg(bytes_max);
    call
}

/// An empty one is none.
fn string(value: Value) -> Reply<Option<Bytes>> {
    bytes(value).map(|text| Some(text.into()).filter(|it: &Bytes| !it.is_empty()))
}
