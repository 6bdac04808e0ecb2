//! Log-ins at OpenID providers in Redis.

use bytes::Bytes;
use redis::{Pipeline, Value};

use super::index::{From, Member, Page, eval};
use super::reply::unexpected;
use super::{RedisStore, millis};
use crate::store::logins::Place;
use crate::store::{Noted, StoreError};

/// How many of the oldest in an index are looked at when a session is noted.
const TIDIED: usize = 10;

impl RedisStore {
    /// See [`crate::store::Store::read_and_delete`].
    pub async fn read_and_delete(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self.run_one(eval(include_str!("../scripts/read_and_delete.lua"), &[key])).await? {
            Value::Nil => Ok(None),
            Value::BulkString(text) => Ok(Some(text.into())),
            other => Err(unexpected(&other)),
        }
    }

    /// See [`crate::store::Store::note_session`].
    pub async fn note_session(&self, noted: Noted<'_>) -> Result<(), StoreError> {
        let Noted { index, part, created_s, ttl, family } = noted;
        let mut place = eval(include_str!("../scripts/api_key_place.lua"), &[index]);
        place.arg(part).arg(created_s).arg(millis(ttl)).arg(TIDIED);
        let oldest = Page::read(self.run_one(place).await?)?.members;
        let mut pipeline = Pipeline::with_capacity(TIDIED);
        for member in &oldest {
            pipeline.cmd("EXISTS").arg([family, &member.part()].concat());
        }
        let is_there = self.run_all(&mut pipeline).await?.into_iter();
        let is_there = is_there.map(|reply| reply == Value::Int(1));
        self.tidy(index, oldest.into_iter().zip(is_there)).await.map(|_| ())
    }

    /// See [`crate::store::Store::noted`].
    pub async fn noted(&self, index: &str, most: usize) -> Result<Vec<Place>, StoreError> {
        let page = self.page(index, From::Newest, most).await?;
        let place = |it: &Member| Place { part: it.part(), created_s: it.created_s() };
        Ok(page.members.iter().map(place).collect())
    }

    /// See [`crate::store::Store::forget_noted`].
    pub async fn forget_noted(&self, index: &str, places: &[Place]) -> Result<(), StoreError> {
        if places.is_empty() {
            return Ok(());
        }
        let gone = places.iter().map(|it| Member::new(&it.part, it.created_s));
        self.drop_members(index, &gone.collect::<Vec<_>>()).await.map(|_| ())
    }
}
