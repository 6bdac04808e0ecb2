//! Families of refresh tokens in the embedded store: each change happens under one lock, and leaves
//! the same keys and values as the scripts leave in Redis.

use std::time::Duration;

use bytes::Bytes;

use super::sessions::unix_ms;
use super::{MemoryStore, Values, lock};
use crate::store::families::{
    FAMILIES_LISTED_MAX, Family, FamilyList, FamilyWrite, KEPT, Rotated, Rotation, field,
};
use crate::store::keys::FamilyKeys;
use crate::store::{SessionValue, StoreError};

type Fields = Vec<(Bytes, Bytes)>;

impl MemoryStore {
    /// See [`crate::store::Store::write_family`].
    pub fn write_family(&self, write: &FamilyWrite) -> Result<(), StoreError> {
        let FamilyKeys { family, index, id } = &write.keys;
        let left = write.family.until_ms.saturating_sub(unix_ms());
        let left = Duration::from_millis(left);
        let mut values = lock(&self.values);
        let mut members = values.members(index)?;
        let key = |id: &str| [&*write.around[0], id, &*write.around[1]].concat();
        members.retain(|(other, _)| values.live(&key(other)).is_some());
        members.push((id.clone(), write.family.created_s as f64));
        values.room_for(&[family, index])?;
        let own = write.fields().into_iter();
        let fields = own.map(|(name, value)| (Bytes::from_static(name.as_bytes()), value.into()));
        let fields: Fields = fields.collect();
        values.insert(family, SessionValue::Fields(fields), Some(write.ttl.min(left)))?;
        values.keep_members(index, members, Some(left))
    }

    /// See [`crate::store::Store::find_family`].
    pub fn find_family(&self, key: &str) -> Result<Option<Family>, StoreError> {
        lock(&self.values).family(key)
    }

    /// See [`crate::store::Store::rotate_family`].
    pub fn rotate_family(&self, key: &str, rotation: &Rotation) -> Result<Rotated, StoreError> {
        let mut values = lock(&self.values);
        let mut fields = values.fields(key)?;
        let text = |name: &str| get(&fields, name);
        let number = |name: &str| text(name).and_then(|it| it.parse::<u64>().ok());
        let (Some(current), Some(until)) = (text(field::CURRENT), number(field::UNTIL)) else {
            return Ok(Rotated::Unknown);
        };
        if text(field::ENDED).is_some() {
            return Ok(Rotated::Ended);
        }
        let now = unix_ms();
        let left = Duration::from_millis(until.saturating_sub(now));
        if left.is_zero() {
            return Ok(Rotated::Unknown);
        }
        if current == rotation.digest {
            let issued = rotation.issued_s.to_string();
            for (name, value) in [
                (field::CURRENT, rotation.successor.clone()),
                (field::NUMBER, u64::from(rotation.number).saturating_add(1).to_string()),
                (field::PREVIOUS, rotation.digest.clone()),
                (field::AT, now.to_string()),
                (field::SEALED, rotation.sealed.clone()),
                (field::ISSUED, issued),
            ] {
                set(&mut fields, name, value);
            }
            values.insert(key, SessionValue::Fields(fields), Some(rotation.ttl.min(left)))?;
            let (sealed, issued_s) = (rotation.sealed.clone(), rotation.issued_s);
            return Ok(Rotated::For { sealed, issued_s, again: false });
        }
        let since = number(field::AT).map(|at| Duration::from_millis(now.saturating_sub(at)));
        if text(field::PREVIOUS).as_ref() == Some(&rotation.digest)
            && since.is_some_and(|since| since < rotation.grace)
        {
            let (sealed, issued) = (text(field::SEALED), number(field::ISSUED));
            let (sealed, issued_s) = (sealed.unwrap_or_default(), issued.unwrap_or_default());
            return Ok(Rotated::For { sealed, issued_s, again: true });
        }
        if number(field::NUMBER).is_none_or(|newest| u64::from(rotation.number) >= newest) {
            return Ok(Rotated::Unknown);
        }
        set(&mut fields, field::ENDED, "reuse".to_owned());
        if let Some(held) = values.live_mut(key) {
            held.value = SessionValue::Fields(fields);
        }
        Ok(Rotated::Reused)
    }

    /// See [`crate::store::Store::end_family`].
    pub fn end_family(&self, keys: &FamilyKeys) -> Result<bool, StoreError> {
        let mut values = lock(&self.values);
        let was_there = values.live(&keys.family).is_some();
        values.remove(&keys.family);
        let mut members = values.members(&keys.index)?;
        members.retain(|(id, _)| *id != keys.id);
        values.keep_members(&keys.index, members, None)?;
        Ok(was_there)
    }

    /// See [`crate::store::Store::list_families`].
    pub fn list_families(
        &self,
        index: &str,
        around: &[String; 2],
    ) -> Result<FamilyList, StoreError> {
        let mut values = lock(&self.values);
        let (mut kept, mut families) = (Vec::new(), Vec::new());
        for (id, created) in values.members(index)?.into_iter().rev() {
            if families.len() < FAMILIES_LISTED_MAX {
                let found = values.family(&[&*around[0], &*id, &*around[1]].concat())?;
                let Some(family) = found else { continue };
                families.push((id.clone(), family));
            }
            kept.push((id, created));
        }
        let count = kept.len();
        values.keep_members(index, kept, None)?;
        Ok(FamilyList { families, count })
    }
}

impl Values {
    fn family(&mut self, key: &str) -> Result<Option<Family>, StoreError> {
        let fields = self.fields(key)?;
        let value = |name: &str| get(&fields, name).map(Bytes::from);
        Ok(Family::of(KEPT.map(value)))
    }
}

fn get(fields: &Fields, name: &str) -> Option<String> {
    let found = fields.iter().find(|(known, _)| *known == name.as_bytes());
    found.and_then(|(_, value)| String::from_utf8(value.to_vec()).ok())
}

fn set(fields: &mut Fields, name: &'static str, value: String) {
    fields.retain(|(known, _)| *known != name.as_bytes());
    fields.push((Bytes::from_static(name.as_bytes()), value.into()));
}
