//! How long a session is valid, whatever its key's TTL: times that the application wrote into the
//! session itself. Pure: the clock is passed in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::no_session::NoSession;
use crate::config::Session;

/// How far ahead of this node's clock a session's time may lie. Further ahead it is no time in
/// seconds (milliseconds are the usual slip), and would make the session last for ever.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// What `[session]` says about validity, and where a session says its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    absolute: Option<Duration>,
    rolling: Option<Duration>,
    created_field: String,
    renewed_field: String,
    suspended_field: Option<String>,
}

impl Terms {
    /// The terms of `[session]`.
    pub fn of(session: &Session) -> Self {
        Self {
            absolute: session.absolute_timeout,
            rolling: session.rolling_timeout,
            created_field: session.created_field.clone(),
            renewed_field: session.renewed_field.clone(),
            suspended_field: session.suspended_field.clone(),
        }
    }

    /// Whether a session must be looked into at all.
    pub(super) fn are_any(&self) -> bool {
        self.absolute.is_some() || self.rolling.is_some() || self.suspended_field.is_some()
    }

    /// Whether the session is in force at `now`; when it ends at the latest, Unix milliseconds.
    ///
    /// # Errors
    /// Suspended, over one of the timeouts, or without a readable time while one is configured.
    pub(super) fn judge(
        &self,
        session: &Map<String, Value>,
        now: SystemTime,
    ) -> Result<Option<u64>, NoSession> {
        let flag = self.suspended_field.as_ref().and_then(|field| session.get(field));
        if flag.is_some_and(suspends) {
            return Err(NoSession::Suspended);
        }
        self.latest_end(session, now)
    }

    /// Like the judgement of a request, but a suspended session is in order: operators write such.
    ///
    /// # Errors
    /// Over one of the timeouts, or without a readable time while one is configured.
    pub fn latest_end(
        &self,
        session: &Map<String, Value>,
        now: SystemTime,
    ) -> Result<Option<u64>, NoSession> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let created = || time(session, &self.created_field, now);
        let mut latest = None;
        if let Some(absolute) = self.absolute {
            let end = created()? + absolute;
            if end <= now {
                return Err(NoSession::Expired);
            }
            latest = Some(u64::try_from(end.as_millis()).unwrap_or(u64::MAX));
        }
        if let Some(rolling) = self.rolling {
            let renewed = match session.get(&self.renewed_field) {
                Some(_) => time(session, &self.renewed_field, now),
                None => created(),
            };
            if renewed? + rolling <= now {
                return Err(NoSession::NotRenewed);
            }
        }
        Ok(latest)
    }
}

impl Terms {
    /// When a session was created, Unix seconds, where it says so.
    pub(super) fn created_s(&self, session: &Map<String, Value>) -> Option<i64> {
        seconds(session.get(&self.created_field)?).and_then(|it| i64::try_from(it).ok())
    }

    /// When the first timeout ends a session that is in force, Unix seconds; `i64::MAX` where none
    /// does.
    pub(super) fn judged_until_s(&self, session: &Map<String, Value>) -> i64 {
        let of = |field: &str| session.get(field).and_then(seconds);
        let created = of(&self.created_field);
        let absolute = self.absolute.zip(created);
        let rolling = self.rolling.zip(of(&self.renewed_field).or(created));
        let ends = [absolute, rolling].into_iter().flatten();
        let first = ends.map(|(timeout, since)| since.saturating_add(timeout.as_secs())).min();
        first.map_or(i64::MAX, |end| i64::try_from(end).unwrap_or(i64::MAX))
    }
}

/// A field with Unix seconds, as an integer or a string of digits. Applications that keep hashes
/// have only strings.
fn time(session: &Map<String, Value>, field: &str, now: Duration) -> Result<Duration, NoSession> {
    let time = session
        .get(field)
        .and_then(seconds)
        .map(Duration::from_secs)
        .filter(|time| *time <= now + AHEAD_MAX);
    time.ok_or_else(|| NoSession::Undated { field: field.to_owned() })
}

fn seconds(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Whether a field that is there suspends the session. Whoever wrote something else than a plain
/// no (the time of the suspension, its reason) meant to suspend.
fn suspends(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => {
            !(text.is_empty() || text == "0" || text.eq_ignore_ascii_case("false"))
        }
        Value::Bool(true) | Value::Array(_) | Value::Object(_) => true,
    }
}
