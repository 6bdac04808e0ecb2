//! A session that is read to learn who calls, judged by its times.

use std::borrow::Cow;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{NoSession, Policy, ended, object, open};
use crate::store::{Reply, SessionEnd, SessionReply, SessionValue};

/// A session that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// What it says: a JSON object.
    pub text: Bytes,
    /// When it was created, Unix seconds, where it says so.
    pub created_s: Option<i64>,
    /// When it must be judged anew at the latest, Unix seconds.
    pub until_s: i64,
}

impl InForce {
    /// What the store has said of the session under `key`, and of why it is gone.
    ///
    /// # Errors
    /// There is none that is in force.
    pub fn of(
        policy: &Policy,
        key: &str,
        (reply, end): (Reply<Option<SessionReply>>, Option<SessionEnd>),
        now: SystemTime,
    ) -> Result<Self, NoSession> {
        let found = reply.map_err(NoSession::Unknown)?.filter(|it| !it.value.is_empty_text());
        let found = found.ok_or_else(|| ended(end, now))?;
        let opened = open(&policy.seal, key, &found.value)?;
        let text: Cow<'_, Bytes> = match &*opened {
            SessionValue::Text(text) => Cow::Borrowed(text),
            SessionValue::Fields(fields) => {
                let text = serde_json::to_vec(&Value::Object(object(fields)));
                Cow::Owned(text.map_err(|_| NoSession::Unreadable)?.into())
            }
        };
        if text.len() > policy.bytes_max {
            return Err(NoSession::TooLarge);
        }
        let session: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|_| NoSession::Unreadable)?;
        policy.terms.judge(&session, now)?;
        let created_s = policy.terms.created_s(&session);
        let until_s = policy.terms.judged_until_s(&session);
        Ok(Self { text: text.into_owned(), created_s, until_s })
    }
}
