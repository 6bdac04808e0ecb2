//! Log-ins at OpenID providers in the embedded store.

use bytes::Bytes;

use super::{MemoryStore, lock};
use crate::store::logins::Place;
use crate::store::{Noted, StoreError};

impl MemoryStore {
    /// See [`crate::store::Store::read_and_delete`].
    pub fn read_and_delete(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let mut values = lock(&self.values);
        let found = values.text(key);
        values.remove(key);
        Ok(found)
    }

    /// See [`crate::store::Store::note_session`].
    pub fn note_session(&self, noted: Noted<'_>) -> Result<(), StoreError> {
        let Noted { index, part, created_s, ttl, family } = noted;
        let mut values = lock(&self.values);
        let mut members = values.members(index)?;
        members.retain(|(other, _)| {
            other != part && values.live(&[family, &**other].concat()).is_some()
        });
        members.push((part.to_owned(), created_s as f64));
        values.keep_members(index, members, Some(ttl))
    }

    /// See [`crate::store::Store::noted`].
    pub fn noted(&self, index: &str, most: usize) -> Result<Vec<Place>, StoreError> {
        let members = lock(&self.values).members(index)?;
        let newest = members.into_iter().rev().take(most);
        Ok(newest.map(|(part, created)| Place { part, created_s: created as u64 }).collect())
    }

    /// See [`crate::store::Store::forget_noted`].
    pub fn forget_noted(&self, index: &str, places: &[Place]) -> Result<(), StoreError> {
        let mut values = lock(&self.values);
        let mut members = values.members(index)?;
        members.retain(|(part, created)| {
            !places.iter().any(|it| it.part == *part && it.created_s == *created as u64)
        });
        values.keep_members(index, members, None)
    }
}
