//! Sessions that the gateway makes: written at a log-in, ended at a log-out. Where a request that
//! logs in shows a session, that one ends first: nobody who had its cookie before is logged in by
//! it.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use serde_json::Value;
use serde_json::value::to_raw_value;
use tokio::time::Instant;

use super::Gateway;
use crate::base::claim::{Exact, Object, Texts};
use crate::base::json::read_object;
use crate::config;
use crate::plan::Plan;
use crate::session::{self, CookieValue, ID_BYTES_MAX, Made, Shown, seal};
use crate::signing::Refused;
use crate::store::keys::Keys;
use crate::store::{
    Ending, Questions, SessionKey, SessionKeys, SessionValue, SessionWrite, StoreError,
};

/// The member of a session that says whose it is.
const SUB: &str = "sub";

/// Somebody who has just logged in.
#[derive(Debug)]
pub struct LogIn<'a> {
    /// Who it is.
    pub subject: &'a str,
    /// What else is known: the members of the session. The gateway says `sub` and the times itself,
    /// whatever stands here.
    pub fields: Texts,
    /// The cookies that the request showed, whose sessions end.
    pub shown: Option<&'a Shown>,
}

/// A session that was made.
#[derive(Debug)]
pub struct MadeSession {
    /// What it is called in the store.
    pub id: String,
    /// When it ends at the latest, Unix seconds.
    pub ends_s: u64,
    /// The field that gives the browser its cookie.
    pub set_cookie: HeaderValue,
}

/// Why no session is made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotMade {
    /// What it would say cannot be a session.
    #[error("no session can be made of the log-in: {0}")]
    Unusable(&'static str),
    /// The store did not take it, or did not end the one of before.
    #[error("no session could be made: {0}")]
    Away(String),
}

impl From<StoreError> for NotMade {
    fn from(error: StoreError) -> Self {
        Self::Away(error.to_string())
    }
}

impl Gateway {
    /// Makes a session for somebody who has just logged in, and ends those that the request showed.
    ///
    /// # Errors
    /// There is none, and the browser must get no cookie. Those that the request showed may have
    /// ended.
    pub async fn make_session(
        &self,
        plan: &Plan,
        login: LogIn<'_>,
    ) -> Result<MadeSession, NotMade> {
        let (Some(made), Some(settings)) = (&plan.made, &plan.config.session) else {
            return Err(NotMade::Unusable("session.make is not configured"));
        };
        let LogIn { subject, fields, shown } = login;
        let is_subject =
            (1..=ID_BYTES_MAX).contains(&subject.len()) && !subject.contains(char::is_control);
        if !is_subject {
            return Err(NotMade::Unusable("the sub is empty, too long, or has control characters"));
        }
        let revoking = std::slice::from_ref(&plan.keys);
        let now = match self.after_log_out(revoking, subject).await {
            Ok(now) => now,
            Err(Refused::Away(why)) => return Err(NotMade::Away(why)),
            Err(other) => return Err(NotMade::Away(other.to_string())),
        };
        let value = CookieValue::random()
            .ok_or_else(|| NotMade::Away("the system's random source failed".to_owned()))?;
        let text = text(settings, subject, fields, now)?;
        for shown in shown.iter().flat_map(|shown| shown.all()) {
            self.end_shown(plan, shown).await?;
        }
        let write = written(plan, (made, settings), (&value.id(), subject), text)?;
        self.write_made(&write).await?;
        let left = settings.absolute_timeout.unwrap_or_default();
        Ok(MadeSession {
            id: write.part,
            ends_s: now.saturating_add(left).as_secs(),
            set_cookie: made.set_cookie(&value, left.as_secs()),
        })
    }

    async fn write_made(&self, write: &SessionWrite) -> Result<(), NotMade> {
        let done = self.store.write_session(write).await;
        // Also where the store may have done it and could not say so.
        self.sessions.end(&write.keys.session, Instant::now());
        let done = done?.unwrap_or_default();
        for part in &done.ended {
            let ended = SessionKeys::of_part(&write.families, part);
            self.sessions.end(&ended.session, Instant::now());
        }
        if done.ended.contains(&write.part) {
            return Err(NotMade::Away("a log-out came in between".to_owned()));
        }
        Ok(())
    }

    /// What the session of a cookie says; nothing where there is none.
    ///
    /// # Errors
    /// The store does not answer, or what it has cannot be read.
    pub async fn read_made(
        &self,
        plan: &Plan,
        value: &CookieValue,
    ) -> Result<Option<Object>, StoreError> {
        let Some(settings) = &plan.config.session else { return Ok(None) };
        let key = plan.keys.session(&value.id());
        let session = Some(SessionKey {
            key: &key,
            ttl: false,
            bytes_max: settings.max_bytes + 64,
            end: None,
        });
        let answers = self.store.ask(&Questions { session, ..Questions::default() }).await;
        let Some(found) = answers.session.transpose()?.flatten() else { return Ok(None) };
        let seal = plan.made.as_ref().map_or(&[][..], |made| &made.seal);
        let unreadable = || StoreError::Refused("the session is no JSON object".to_owned());
        let opened = session::open(seal, &key, &found.value).map_err(|_| unreadable())?;
        match &*opened {
            SessionValue::Text(text) if text.is_empty() => Ok(None),
            SessionValue::Text(text) => read_object(text).map(Some).ok_or_else(unreadable),
            SessionValue::Fields(fields) => {
                let (members, exact) = (session::object(fields), Exact::default());
                Ok(Some(Object { members, exact }))
            }
        }
    }

    /// Ends the session of a cookie; false where there was none.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn end_shown(&self, plan: &Plan, value: &CookieValue) -> Result<bool, StoreError> {
        self.end_made(plan, &value.id()).await
    }

    /// Ends a session by what it is called in the store; false where there was none.
    ///
    /// # Errors
    /// The store did not answer, or refused.
    pub async fn end_made(&self, plan: &Plan, id: &str) -> Result<bool, StoreError> {
        let keys = plan.keys.session_keys(id);
        let ended = self.store.end_session(&keys, &Keys::session_part(id)).await;
        self.sessions.end(&keys.session, Instant::now());
        ended
    }
}

/// What the session says.
fn text(
    settings: &config::Session,
    subject: &str,
    mut fields: Texts,
    now: Duration,
) -> Result<Bytes, NotMade> {
    let no_json = |_| NotMade::Unusable("what it says is no JSON object");
    for field in [&settings.created_field, &settings.renewed_field] {
        fields.insert(field.clone(), to_raw_value(&now.as_secs()).map_err(no_json)?);
    }
    fields.insert(SUB.to_owned(), to_raw_value(subject).map_err(no_json)?);
    let text = serde_json::to_vec(&fields).map_err(no_json)?;
    if serde_json::from_slice::<Value>(&text).is_err() {
        return Err(NotMade::Unusable("a number in it is beyond those that JSON readers have"));
    }
    if text.len() as u64 > settings.max_bytes {
        return Err(NotMade::Unusable("it would be longer than session.max_bytes"));
    }
    Ok(text.into())
}

fn written(
    plan: &Plan,
    (made, settings): (&Made, &config::Session),
    (id, subject): (&str, &str),
    text: Bytes,
) -> Result<SessionWrite, NotMade> {
    let keys = plan.keys.session_keys(id);
    let value =
        seal(&made.seal, &keys.session, text).map_err(|error| NotMade::Away(error.to_string()))?;
    let absolute = settings.absolute_timeout.unwrap_or(Duration::MAX);
    let idle = settings.idle_timeout.unwrap_or(absolute);
    Ok(SessionWrite {
        part: Keys::session_part(id),
        families: plan.keys.session_families(),
        index: Some(plan.keys.sessions_of(subject)),
        keys,
        value,
        ttl: idle.min(absolute),
        why: if idle < absolute { Ending::Idle } else { Ending::Expired },
        kept: settings.ended_for,
        most: settings.max_per_user,
        only_over: false,
    })
}
