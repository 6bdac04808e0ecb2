//! Families of refresh tokens in Redis. A family lies under one key, and changes in one script. The
//! index of its user lies elsewhere: a family is placed there before it is written, and a place
//! that leads nowhere is taken out by whoever meets it.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use super::index::{From, Member, Page, eval};
use super::reply::unexpected;
use super::{RedisStore, millis};
use crate::store::families::{
    FAMILIES_LISTED_MAX, Family, FamilyList, FamilyWrite, KEPT, Rotated, Rotation,
};
use crate::store::keys::FamilyKeys;
use crate::store::{Reply, StoreError};

/// How many of the oldest in an index are looked at when a family is written.
const TIDIED: usize = 10;

impl RedisStore {
    /// See [`crate::store::Store::write_family`].
    pub async fn write_family(&self, write: &FamilyWrite) -> Result<(), StoreError> {
        let index = &write.keys.index;
        let left = write.family.until_ms.saturating_sub(write.family.created_s * 1000);
        let mut place = eval(include_str!("../scripts/api_key_place.lua"), &[index]);
        place.arg(&write.keys.id).arg(write.family.created_s).arg(left.max(1)).arg(TIDIED);
        let oldest = Page::read(self.run_one(place).await?)?.members;
        let mut pipeline = Pipeline::with_capacity(TIDIED + 1);
        for member in &oldest {
            pipeline.cmd("EXISTS").arg(around(&write.around, &member.part()));
        }
        if !oldest.is_empty() {
            let is_there = self.run_all(&mut pipeline).await?.into_iter();
            let is_there = is_there.map(|reply| reply == Value::Int(1));
            self.tidy(index, oldest.into_iter().zip(is_there)).await?;
        }
        let script = include_str!("../scripts/refresh_begin.lua");
        let mut begin = eval(script, &[&write.keys.family]);
        begin.arg(millis(write.ttl.min(Duration::from_millis(left))));
        for (name, value) in write.fields() {
            begin.arg(name).arg(value);
        }
        self.run_one(begin).await.map(|_| ())
    }

    /// See [`crate::store::Store::find_family`].
    pub async fn find_family(&self, key: &str) -> Result<Option<Family>, StoreError> {
        family(self.run_one(kept(key)).await?)
    }

    /// See [`crate::store::Store::rotate_family`].
    pub async fn rotate_family(
        &self,
        key: &str,
        rotation: &Rotation,
    ) -> Result<Rotated, StoreError> {
        let mut call = eval(include_str!("../scripts/refresh.lua"), &[key]);
        call.arg(&rotation.digest).arg(rotation.number).arg(&rotation.successor);
        call.arg(&rotation.sealed).arg(rotation.issued_s);
        call.arg(u64::try_from(rotation.grace.as_millis()).unwrap_or(u64::MAX));
        call.arg(millis(rotation.ttl));
        rotated(self.run_one(call).await?)
    }

    /// See [`crate::store::Store::end_family`].
    pub async fn end_family(&self, keys: &FamilyKeys) -> Result<bool, StoreError> {
        let mut delete = redis::cmd("DEL");
        delete.arg(&keys.family);
        let was_there = self.run_one(delete).await? == Value::Int(1);
        let mut take_out = redis::cmd("ZREM");
        take_out.arg(&keys.index).arg(&keys.id);
        // The family has ended. Who reads the index drops what stays in it.
        let _ = self.run_one(take_out).await;
        Ok(was_there)
    }

    /// See [`crate::store::Store::list_families`].
    pub async fn list_families(
        &self,
        index: &str,
        beside: &[String; 2],
    ) -> Result<FamilyList, StoreError> {
        let page = self.page(index, From::Newest, FAMILIES_LISTED_MAX).await?;
        let calls = page.members.iter().map(|member| kept(&around(beside, &member.part())));
        let replies = self.run_each(calls).await?;
        let found = replies.into_iter().map(family).collect::<Reply<Vec<_>>>()?;
        let is_there: Vec<bool> = found.iter().map(Option::is_some).collect();
        let names = page.members.iter().map(Member::part);
        let families = names.zip(found).filter_map(|(id, family)| Some((id, family?))).collect();
        let gone = self.tidy(index, page.members.into_iter().zip(is_there)).await?;
        Ok(FamilyList { families, count: page.count.saturating_sub(gone) })
    }
}

fn around(around: &[String; 2], id: &str) -> String {
    [&*around[0], id, &*around[1]].concat()
}

/// The call that reads what of a family stays the same.
fn kept(key: &str) -> Cmd {
    let mut call = redis::cmd("HMGET");
    call.arg(key).arg(&KEPT[..]);
    call
}

fn text(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(text) => Some(text.into()),
        _ => None,
    }
}

fn family(reply: Value) -> Reply<Option<Family>> {
    let Value::Array(values) = reply else { return Err(unexpected(&reply)) };
    let values: Vec<Option<Bytes>> = values.into_iter().map(text).collect();
    Ok(values.try_into().ok().and_then(Family::of))
}

fn rotated(reply: Value) -> Reply<Rotated> {
    let Value::Array(parts) = reply else { return Err(unexpected(&reply)) };
    let mut parts = parts.into_iter().map(|part| {
        text(part).and_then(|text| String::from_utf8(text.to_vec()).ok()).unwrap_or_default()
    });
    let what = parts.next().unwrap_or_default();
    Ok(match &*what {
        "rotated" | "again" => Rotated::For {
            sealed: parts.next().unwrap_or_default(),
            issued_s: parts.next().and_then(|text| text.parse().ok()).unwrap_or_default(),
            again: what == "again",
        },
        "reused" => Rotated::Reused,
        "ended" => Rotated::Ended,
        _ => Rotated::Unknown,
    })
}
