//! `[session]`: where the application's sessions are found and how they reach the upstream.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;

use super::made::{self, Make};
use super::reader::Section;
use super::value::{
    KIB, MIB, Mistake, Read, cookie_name, count, duration, echo, field_name, header_name, size,
    string, text,
};

/// Most sessions that `max_per_user` can allow.
const PER_USER_MAX: u64 = 1000;
/// How long it is remembered that a session ended, and why, when `ended_for` does not say.
const ENDED_FOR: Duration = Duration::from_secs(60 * 60);

/// `[session]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// How the gateway makes sessions itself; `None`: the application does.
    pub make: Option<Make>,
    /// Where the id stands, in order.
    pub id_from: Vec<SessionId>,
    /// The header that carries the whole session.
    pub header: Option<String>,
    /// Header name to session field.
    pub fields_to_headers: BTreeMap<String, String>,
    /// Sliding expiry.
    pub idle_timeout: Option<Duration>,
    /// How long it is remembered that a session ended, and why.
    pub ended_for: Duration,
    /// Longest life since `created_field`.
    pub absolute_timeout: Option<Duration>,
    /// Longest life since `renewed_field`.
    pub rolling_timeout: Option<Duration>,
    /// The session's field with the time of its creation, Unix seconds.
    pub created_field: String,
    /// The session's field with the time of its last renewal by the application, Unix seconds.
    pub renewed_field: String,
    /// The session's field that suspends it.
    pub suspended_field: Option<String>,
    /// Most sessions of one user that a write through the admin API leaves.
    pub max_per_user: Option<u32>,
    /// Largest accepted session, in bytes.
    pub max_bytes: u64,
}

/// One place where a session id may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionId {
    /// `claim:NAME`
    Claim(String),
    /// `cookie:NAME`
    Cookie(String),
    /// `header:NAME`
    Header(http::HeaderName),
}

/// Reads `[session]`.
pub(super) fn read(session: &mut Section<'_>) -> Session {
    let header = |name: &str| Ok(header_name(name)?.as_str().to_owned());
    let field = |value: &DeValue<'_>| field_name(string(value, "it in quotes")?);
    let make = session.optional("make", made::read);
    let is_made = make.is_some();
    session.holds("idle_timeout", || is_made.then(|| "30m".into()));
    session.holds("absolute_timeout", || is_made.then(|| "12h".into()));
    let read = Session {
        // The cookie of those that it makes is always looked at.
        id_from: if is_made {
            session.list("id_from", session_id).unwrap_or_default()
        } else {
            session.need_list("id_from", "[\"cookie:sid\"]", session_id)
        },
        make,
        header: session.get("header", |value| header(string(value, "it in quotes")?)),
        fields_to_headers: session.map("fields_to_headers", header, |field| field.read(text)),
        idle_timeout: session.get("idle_timeout", duration).or(is_made.then_some(made::IDLE)),
        ended_for: session.or("ended_for", ENDED_FOR, duration),
        absolute_timeout: session
            .get("absolute_timeout", duration)
            .or(is_made.then_some(made::ABSOLUTE)),
        rolling_timeout: session.get("rolling_timeout", duration),
        created_field: session.or("created_field", "created_at".to_owned(), field),
        renewed_field: session.or("renewed_field", "renewed_at".to_owned(), field),
        suspended_field: session.get("suspended_field", field),
        max_per_user: session.get("max_per_user", count(1..=PER_USER_MAX)),
        max_bytes: session.or("max_bytes", 8 * KIB, size(1..=MIB)),
    };
    report_forestalled(session, &read);
    read
}

/// A timeout that another one always forestalls was meant to do something that it does not.
fn report_forestalled(session: &Section<'_>, read: &Session) {
    for (key, timeout) in
        [("idle_timeout", read.idle_timeout), ("rolling_timeout", read.rolling_timeout)]
    {
        if let (Some(timeout), Some(absolute)) = (timeout, read.absolute_timeout)
            && timeout > absolute
        {
            let what = "is longer than absolute_timeout, which ends every session before";
            session.problem(key, what, "write a shorter one, or a longer absolute_timeout");
        }
    }
}

fn session_id(value: &DeValue<'_>) -> Read<SessionId> {
    const EXAMPLE: &str = "\"claim:sid\", \"cookie:sid\" or \"header:x-session-id\"";
    let text = string(value, EXAMPLE)?;
    match text.split_once(':') {
        Some(("claim", name)) => field_name(name).map(SessionId::Claim),
        Some(("cookie", name)) => cookie_name(name).map(SessionId::Cookie),
        Some(("header", name)) => header_name(name).map(SessionId::Header),
        _ => {
            let what = format!("{} is not a place for session ids", echo(text));
            Err(Mistake::new(what, format!("write {EXAMPLE}")))
        }
    }
}
