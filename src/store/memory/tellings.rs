//! What gateways tell each other, in the embedded store, where there is one of them.

use bytes::Bytes;

use super::sessions::unix_ms;
use super::{MemoryStore, lock};
use crate::store::Reply;
use crate::store::tellings::{Heard, TELLERS_MAX, TELLING_BYTES_MAX, Telling};

impl MemoryStore {
    /// See [`crate::store::Store::tell`].
    pub fn tell(&self, telling: Telling<'_>) -> Reply<Heard> {
        let mut values = lock(&self.values);
        let mut fields = values.fields(telling.key)?;
        let now = unix_ms();
        let kept = u64::try_from(telling.kept.as_millis()).unwrap_or(u64::MAX);
        let mut value = format!("{now} ").into_bytes();
        value.extend_from_slice(telling.value);
        fields.retain(|(from, _)| from != telling.from.as_bytes());
        fields.push((Bytes::copy_from_slice(telling.from.as_bytes()), value.into()));
        let bytes_max = telling.bytes_max.min(TELLING_BYTES_MAX);
        let holds = |value: &Bytes| {
            let (at, said) = stamped(value)?;
            (at.abs_diff(now) < kept && said.len() <= bytes_max).then_some(said)
        };
        fields.retain(|(_, value)| holds(value).is_some());
        let said: Vec<_> =
            fields.iter().filter_map(|(from, value)| Some((from.clone(), holds(value)?))).collect();
        values.insert_fields(telling.key, fields, Some(telling.kept))?;
        Ok(if said.len() > TELLERS_MAX { Vec::new() } else { said })
    }
}

/// When it was written, and what was said.
fn stamped(value: &Bytes) -> Option<(u64, Bytes)> {
    let blank = value.iter().position(|byte| *byte == b' ')?;
    let at = std::str::from_utf8(&value[..blank]).ok()?.parse().ok()?;
    Some((at, value.slice(blank + 1..)))
}
