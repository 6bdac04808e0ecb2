//! `[session]`: where the application's sessions are found and how they reach the upstream.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;

use super::reader::Section;
use super::value::{
    KIB, MIB, Mistake, Read, cookie_name, duration, echo, field_name, header_name, size, string,
    text,
};

/// `[session]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Where the id stands, in order.
    pub id_from: Vec<SessionId>,
    /// The header that carries the whole session.
    pub header: Option<String>,
    /// Header name to session field.
    pub fields_to_headers: BTreeMap<String, String>,
    /// Sliding expiry.
    pub idle_timeout: Option<Duration>,
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
}

/// Reads `[session]`.
pub(super) fn read(session: &mut Section<'_>) -> Session {
    let header = |name: &str| Ok(header_name(name)?.as_str().to_owned());
    Session {
        id_from: session.need_list("id_from", "[\"cookie:sid\"]", session_id),
        header: session.get("header", |value| header(string(value, "it in quotes")?)),
        fields_to_headers: session.map("fields_to_headers", header, |field| field.read(text)),
        idle_timeout: session.get("idle_timeout", duration),
        max_bytes: session.or("max_bytes", 8 * KIB, size(1..=MIB)),
    }
}

fn session_id(value: &DeValue<'_>) -> Read<SessionId> {
    const EXAMPLE: &str = "\"claim:sid\" or \"cookie:sid\"";
    let text = string(value, EXAMPLE)?;
    match text.split_once(':') {
        Some(("claim", name)) => field_name(name).map(SessionId::Claim),
        Some(("cookie", name)) => cookie_name(name).map(SessionId::Cookie),
        _ => {
            let what = format!("{} is not a place for session ids", echo(text));
            Err(Mistake::new(what, format!("write {EXAMPLE}")))
        }
    }
}
