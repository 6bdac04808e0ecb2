//! Sessions in the embedded store: each change happens under one lock, and leaves the same keys and
//! values as the scripts leave in Redis. An index is a map from ids to Unix seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::Instant;

use super::{MemoryStore, Values, lock};
use crate::store::sessions::{ENDS, SESSIONS_MAX};
use crate::store::{
    Ending, Renewal, SessionEnd, SessionKeys, SessionList, SessionListed, SessionValue,
    SessionWrite, SessionWritten, StoreError,
};

const SEEN: &str = "seen";
const INDEX: &str = "index";

type Fields = Vec<(Bytes, Bytes)>;

impl MemoryStore {
    /// See [`crate::store::Store::renew`].
    pub fn renew(&self, keys: &SessionKeys, renewal: Renewal) -> Result<(), StoreError> {
        let mut values = lock(&self.values);
        let Some(session) = values.live_mut(&keys.session) else { return Ok(()) };
        let (now, now_ms) = (Instant::now(), unix_ms());
        let latest = renewal.until_ms.map(|until| Duration::from_millis(until - until.min(now_ms)));
        let wanted = latest.map_or(renewal.ttl, |latest| latest.min(renewal.ttl));
        if wanted.is_zero() {
            return Ok(());
        }
        let at = session.expires.map_or(now + wanted, |at| at.max(now + wanted));
        session.expires = Some(at);
        let left = at - now;
        let why = if latest.is_some_and(|latest| left >= latest) {
            Ending::Expired
        } else {
            Ending::Idle
        };
        let mut beside = values.fields(&keys.end)?;
        note(&mut beside, now_ms, left, why);
        let index = field(&beside, INDEX);
        values.insert_fields(&keys.end, beside, Some(left + renewal.kept))?;
        if let Some(index) = index.and_then(|index| values.live_mut(&index))
            && let Some(expires) = &mut index.expires
        {
            *expires = (*expires).max(at + renewal.kept);
        }
        Ok(())
    }

    /// See [`crate::store::Store::write_session`].
    pub fn write_session(
        &self,
        write: &SessionWrite,
    ) -> Result<Option<SessionWritten>, StoreError> {
        let mut values = lock(&self.values);
        let SessionKeys { session, end } = &write.keys;
        let replaced = values.live(session).is_some();
        if write.only_over && !replaced {
            return Ok(None);
        }
        let mut beside = values.fields(end)?;
        let known = field(&beside, INDEX);
        let index = write.index.clone().or_else(|| known.clone());
        let mut members = match &index {
            Some(index) => values.members(index)?,
            None => Vec::new(),
        };
        let mut written = SessionWritten { replaced, ended: Vec::new() };
        let mut keys = vec![session.as_str(), end];
        keys.extend(index.as_deref());
        values.room_for(&keys)?;
        let value = SessionValue::Text(write.value.clone());
        values.insert(session, value, Some(write.ttl))?;
        note(&mut beside, unix_ms(), write.ttl, write.why);
        if let Some(index) = &index {
            set(&mut beside, INDEX, index.clone());
        }
        let kept = write.ttl + write.kept;
        values.insert_fields(end, beside, Some(kept))?;
        let Some(index) = index else { return Ok(Some(written)) };
        if let Some(known) = known.filter(|known| *known != index) {
            let mut others = values.members(&known)?;
            others.retain(|(part, _)| *part != write.part);
            values.keep_members(&known, others, None)?;
        }
        if !members.iter().any(|(part, _)| *part == write.part) {
            members.push((write.part.clone(), unix_ms() as f64 / 1000.0));
        }
        let family = &write.families[0];
        members.retain(|(part, _)| values.live(&format!("{family}{part}")).is_some());
        let most = write.most.map_or(usize::MAX, |most| most as usize);
        while members.len() > most
            && let Some(oldest) = members.iter().position(|(part, _)| *part != write.part)
        {
            let (part, _) = members.remove(oldest);
            values.end(&write.families, &part);
            written.ended.push(part);
        }
        values.keep_members(&index, members, Some(kept))?;
        Ok(Some(written))
    }

    /// See [`crate::store::Store::end_session`].
    pub fn end_session(&self, keys: &SessionKeys, part: &str) -> bool {
        let mut values = lock(&self.values);
        let index = values.fields(&keys.end).ok().and_then(|beside| field(&beside, INDEX));
        if let Some(index) = index
            && let Ok(mut members) = values.members(&index)
        {
            members.retain(|(other, _)| other != part);
            // Taking out needs no room.
            let _ = values.keep_members(&index, members, None);
        }
        values.remove(&keys.end);
        values.live(&keys.session).is_some() && values.remove(&keys.session)
    }

    /// See [`crate::store::Store::list_sessions`].
    pub fn list_sessions(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<SessionList, StoreError> {
        let mut values = lock(&self.values);
        let mut members = values.members(index)?;
        members.retain(|(part, _)| values.live(&format!("{}{part}", families[0])).is_some());
        values.keep_members(index, members.clone(), None)?;
        let now = Instant::now();
        let mut list = SessionList { count: members.len(), ..SessionList::default() };
        for (part, created) in members.into_iter().rev().take(SESSIONS_MAX) {
            let keys = SessionKeys::of_part(families, &part);
            let beside = values.fields(&keys.end)?;
            let expires = values.live(&keys.session).and_then(|it| it.expires);
            list.sessions.push(SessionListed {
                part,
                created_s: created as u64,
                seen_ms: field(&beside, SEEN).and_then(|seen| seen.parse().ok()),
                ttl: expires.map(|at| at.saturating_duration_since(now)),
            });
        }
        Ok(list)
    }

    /// Ends all sessions of an index: how many there were, and that none is left in it.
    pub fn end_sessions(
        &self,
        index: &str,
        families: &[String; 2],
    ) -> Result<(usize, usize), StoreError> {
        let mut values = lock(&self.values);
        let mut ended = 0;
        for (part, _) in values.members(index)? {
            let beside = values.fields(&SessionKeys::of_part(families, &part).end)?;
            // An id that belongs to somebody else by now is only taken out.
            if field(&beside, INDEX).is_none_or(|owner| owner == index) {
                ended += usize::from(values.end(families, &part));
            }
        }
        values.remove(index);
        Ok((ended, 0))
    }
}

impl Values {
    /// A hash; an empty one when there is none.
    pub(super) fn fields(&mut self, key: &str) -> Result<Fields, StoreError> {
        match self.live(key).map(|found| &found.value) {
            None => Ok(Vec::new()),
            Some(SessionValue::Fields(fields)) => Ok(fields.clone()),
            Some(SessionValue::Text(_)) => {
                Err(StoreError::Refused("WRONGTYPE: this key holds a string".to_owned()))
            }
        }
    }

    pub(super) fn insert_fields(
        &mut self,
        key: &str,
        fields: Fields,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.insert(key, SessionValue::Fields(fields), ttl)
    }

    /// The ids of an index with their times, the oldest first.
    pub(super) fn members(&mut self, index: &str) -> Result<Vec<(String, f64)>, StoreError> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let member = |(part, created): &(Bytes, Bytes)| {
            (text(part), text(created).parse().unwrap_or_default())
        };
        let mut members: Vec<(String, f64)> = self.fields(index)?.iter().map(member).collect();
        members.sort_by(|a, b| a.1.total_cmp(&b.1));
        Ok(members)
    }

    /// Writes an index back. Its life is never shortened; `kept` is what it needs from now, and a
    /// first one when it is new.
    pub(super) fn keep_members(
        &mut self,
        index: &str,
        members: Vec<(String, f64)>,
        kept: Option<Duration>,
    ) -> Result<(), StoreError> {
        if members.is_empty() {
            self.remove(index);
            return Ok(());
        }
        let now = Instant::now();
        let ttl = match self.live(index).map(|found| found.expires) {
            None => kept,
            Some(None) => None,
            Some(Some(at)) => Some(kept.unwrap_or_default().max(at - now)),
        };
        let fields = members.into_iter().map(|(part, at)| (part.into(), at.to_string().into()));
        self.insert_fields(index, fields.collect(), ttl)
    }

    /// Removes a session and what is kept beside it. True when it was alive.
    fn end(&mut self, families: &[String; 2], part: &str) -> bool {
        let SessionKeys { session, end } = SessionKeys::of_part(families, part);
        let was = self.live(&session).is_some();
        self.remove(&session);
        self.remove(&end);
        was
    }
}

fn note(beside: &mut Fields, now_ms: u64, left: Duration, why: Ending) {
    let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    set(beside, ENDS, SessionEnd { at_ms: now_ms.saturating_add(left_ms), why }.text());
    set(beside, SEEN, now_ms.to_string());
}

fn field(fields: &Fields, name: &str) -> Option<String> {
    let found = fields.iter().find(|(known, _)| *known == *name.as_bytes());
    found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
}

fn set(fields: &mut Fields, name: &'static str, value: String) {
    fields.retain(|(known, _)| *known != *name.as_bytes());
    fields.push((Bytes::from_static(name.as_bytes()), value.into()));
}

pub(super) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
