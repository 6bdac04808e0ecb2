//! The application's session: found by a claim, a cookie or a header, read with the other
//! questions, attached for the upstream.

mod asserted;
mod copies;
mod cross_site;
mod in_force;
mod made;
mod no_session;
mod plain;
mod sealed;
mod terms;

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::encoded_len;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

pub use self::copies::Copies;
pub use self::cross_site::{CrossSite, Sender};
pub use self::in_force::InForce;
pub use self::made::{Made, Shown, Value as CookieValue, id_of};
pub use self::no_session::NoSession;
pub use self::sealed::{open, seal};
pub use self::terms::Terms;

use crate::base::facts::{Caller, Credential, scalar};
use crate::base::http::{cookie, percent};
use crate::config::{Outage, SealKey, Session, SessionId, SessionUse};
use crate::store::{Ending, Renewal, Reply, SessionEnd, SessionReply, SessionValue};

/// Longest session id that is looked up, in bytes.
pub const ID_BYTES_MAX: usize = 512;
/// Longest value of one field's header, in bytes.
const FIELD_BYTES_MAX: usize = 4096;
/// A renewal that would move the expiry by less than this is left out.
const RENEWAL_STEP: Duration = Duration::from_secs(1);
/// How far the store's clock, which said when a session ends, may be ahead of this node's.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(1);

/// What a route does with sessions.
#[derive(Debug)]
pub struct Policy {
    id_from: Vec<SessionId>,
    header: Option<HeaderName>,
    fields: Vec<(HeaderName, String)>,
    idle_timeout: Option<Duration>,
    ended_for: Duration,
    terms: Terms,
    bytes_max: usize,
    required: bool,
    outage: Outage,
    /// The fields that the upstream is told of by a token.
    asserted: Vec<String>,
    /// With what sessions are sealed in the store.
    seal: Vec<SealKey>,
    /// Whether the session that says who calls is all that is looked at.
    for_caller: bool,
}

/// What the store has said of a session.
#[derive(Debug, Default)]
pub struct Said<'k> {
    /// The session, where one was asked for.
    pub reply: Option<Reply<Option<SessionReply>>>,
    /// When it ended and why, where that was asked and it is gone.
    pub end: Option<SessionEnd>,
    /// Whether that is kept beside it.
    pub keeps_end: bool,
    /// Under which key it stands.
    pub key: &'k str,
    /// Until when it was judged to be in force (Unix seconds), where it says who calls.
    pub callers_until_s: Option<i64>,
}

/// A session ready for the upstream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Headers to set.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How to prolong it, when that is due.
    pub renew: Option<Renewal>,
    /// What a token says of it: the text of a JSON object, where one is to.
    pub asserted: Option<String>,
}

impl Policy {
    /// Compiles `[session]` for one route; nothing when the route does not use sessions. Header
    /// names were checked when the file was read.
    pub fn compile(session: &Session, usage: SessionUse, outage: Outage) -> Option<Self> {
        if usage == SessionUse::Off {
            return None;
        }
        let name = |text: &str| HeaderName::try_from(text).ok();
        Some(Self {
            id_from: session.id_from.clone(),
            header: session.header.as_deref().and_then(name),
            fields: session
                .fields_to_headers
                .iter()
                .filter_map(|(header, field)| Some((name(header)?, field.clone())))
                .collect(),
            idle_timeout: session.idle_timeout,
            ended_for: session.ended_for,
            terms: Terms::of(session),
            bytes_max: usize::try_from(session.max_bytes).unwrap_or(usize::MAX),
            required: usage == SessionUse::Required,
            outage,
            asserted: Vec::new(),
            seal: session.make.iter().flat_map(|make| make.seal.iter().cloned()).collect(),
            for_caller: false,
        })
    }

    /// What holds of the sessions by which callers are known, on a route that attaches none: they
    /// are prolonged by use, and end what goes on behind a response. `required`: also of a caller
    /// who is known by nothing else.
    pub fn of_callers(session: &Session, required: bool) -> Option<Self> {
        let (usage, outage) = match required {
            true => (SessionUse::Required, Outage::Refuse),
            false => (SessionUse::Attach, Outage::Allow),
        };
        let policy = Self::compile(session, usage, outage)?;
        let (id_from, header, fields) = (Vec::new(), None, Vec::new());
        Some(Self { id_from, header, fields, for_caller: true, ..policy })
    }

    /// The same, of which a token tells the upstream these fields.
    #[must_use]
    pub fn asserting(self, fields: Vec<String>) -> Self {
        Self { asserted: fields, ..self }
    }

    /// Whether using a session prolongs it.
    pub fn renews(&self) -> bool {
        self.idle_timeout.is_some()
    }

    /// Longest session as it lies in the store, in bytes.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max as u64 + if self.seal.is_empty() { 0 } else { sealed::SEAL_BYTES }
    }

    /// Whether the session that says who calls is all that is looked at.
    pub fn is_for_caller(&self) -> bool {
        self.for_caller
    }

    /// Whether the session of a request is looked at whose caller is known so.
    pub fn looks(&self, caller: &Caller) -> bool {
        let is_by_session = || {
            let credential = caller.as_deref().map(|identity| &identity.credential);
            matches!(credential, Some(Credential::Session { .. }))
        };
        !self.for_caller || self.required || is_by_session()
    }

    /// Whether an answer depends on why a session ended that is not there any more. Only where
    /// one is required: elsewhere the request goes on without.
    pub fn asks_end(&self) -> bool {
        self.renews() && self.required && !self.for_caller
    }
}

/// The id of the caller's session: of the one whose cookie the request has shown, else from the
/// first place that has one. A claim that is a string stands as it is, another one by its JSON
/// text, as the application writes it into its key; null says that there is none.
pub fn id<'a>(
    policy: &Policy,
    caller: &'a Caller,
    headers: &'a HeaderMap,
    shown: Option<&Shown>,
) -> Option<Cow<'a, str>> {
    if let Some(shown) = shown.and_then(Shown::one) {
        return Some(Cow::Owned(shown.id()));
    }
    let found = policy.id_from.iter().find_map(|place| match place {
        SessionId::Claim(name) => {
            let claim = caller.as_ref()?.find(name)?;
            Some(if claim.value.is_null() { "".into() } else { claim.text() })
        }
        SessionId::Cookie(name) => agreed(cookie::values(headers, name)),
        SessionId::Header(name) => agreed(headers.get_all(name).iter().map(HeaderValue::as_bytes)),
    })?;
    (1..=ID_BYTES_MAX).contains(&found.len()).then_some(found)
}

/// The one value of several. Two that differ are no session: of cookies, one was tossed in from
/// another site (RFC 6265 §8.6), and nobody can say which.
fn agreed<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<Cow<'a, str>> {
    let first = values.next()?;
    let text = std::str::from_utf8(first).ok()?;
    values.all(|other| other == first).then_some(text.into())
}

/// Takes ids in headers out of what is forwarded: the upstream gets the session itself. Cookies
/// stay, as they hold the application's other business too, and so do the headers of routes that
/// do not use sessions (a log-out needs the id).
pub fn strip(policy: &Policy, headers: &mut HeaderMap) {
    strip_ids(&policy.id_from, headers);
}

/// The same, of these places.
pub fn strip_ids(places: &[SessionId], headers: &mut HeaderMap) {
    for place in places {
        if let SessionId::Header(name) = place {
            headers.remove(name);
        }
    }
}

/// Judges what the store has said (`reply` is `None`: the request named no session) at `now`, and
/// prepares the headers. A route without a policy attaches nothing.
///
/// # Errors
/// Why the request may not pass. A session that is there and not in force is refused on every
/// route: an application that suspends one means it.
pub fn attach(
    policy: Option<&Policy>,
    said: Said<'_>,
    now: impl Fn() -> SystemTime,
) -> Result<Attached, NoSession> {
    let Some(policy) = policy else { return Ok(Attached::default()) };
    let Said { reply, end, keeps_end, key, callers_until_s } = said;
    let is_callers = callers_until_s.is_some();
    let found = match reply {
        None => None,
        Some(Ok(found)) => found,
        Some(Err(error)) if policy.outage == Outage::Refuse || is_callers => {
            return Err(NoSession::Unknown(error));
        }
        Some(Err(_)) => return Ok(Attached::default()),
    };
    let Some(found) = found else {
        let is_needed = policy.required || is_callers;
        return if is_needed { Err(ended(end, now())) } else { Ok(Attached::default()) };
    };
    let mut headers = Vec::with_capacity(1 + policy.fields.len());
    let (until_ms, asserted) = match callers_until_s.filter(|_| policy.for_caller) {
        // It was judged when it was read, and is the same still.
        Some(until_s) => (u64::try_from(until_s).ok().and_then(|it| it.checked_mul(1000)), None),
        None => {
            let opened = open(&policy.seal, key, &found.value)?;
            let until_ms = attach_value(policy, &opened, &now, &mut headers)?;
            let is_told = !policy.asserted.is_empty();
            let told = is_told.then(|| asserted::object(&policy.asserted, &opened)).transpose()?;
            (until_ms, told)
        }
    };
    let renew = policy.idle_timeout.and_then(|idle| {
        let kept = policy.ended_for;
        let renewal = Renewal { ttl: idle, until_ms, kept };
        let wanted = until_ms.map_or(idle, |until| idle.min(left(until, now())));
        let step = RENEWAL_STEP.min(idle / 10);
        let is_due = found.ttl.is_none_or(|ttl| ttl + step < wanted);
        // Without its end beside it, nobody could tell later why it is gone.
        (is_due || policy.asks_end() && !keeps_end).then_some(renewal)
    });
    Ok(Attached { headers, renew, asserted })
}

/// Why a session is not there. One that is gone before its time was ended on purpose, by a log-out,
/// and is as good as one that never was.
fn ended(end: Option<SessionEnd>, now: SystemTime) -> NoSession {
    match end.filter(|end| left(end.at_ms, now) <= CLOCKS_APART_MAX) {
        Some(SessionEnd { why: Ending::Idle, .. }) => NoSession::Idle,
        Some(SessionEnd { why: Ending::Expired, .. }) => NoSession::Expired,
        None => NoSession::Required,
    }
}

/// The time from `now` to a moment in Unix milliseconds.
fn left(at_ms: u64, now: SystemTime) -> Duration {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(at_ms).saturating_sub(now)
}

/// Prepares the headers of a session that is in force; when that ends at the latest, Unix ms.
fn attach_value(
    policy: &Policy,
    value: &SessionValue,
    now: impl Fn() -> SystemTime,
    headers: &mut Vec<(HeaderName, HeaderValue)>,
) -> Result<Option<u64>, NoSession> {
    let whole: Cow<'_, [u8]> = match value {
        SessionValue::Text(text) => text.as_ref().into(),
        SessionValue::Fields(fields) => serde_json::to_vec(&Value::Object(object(fields)))
            .map_err(|_| NoSession::Unreadable)?
            .into(),
    };
    if whole.len() > policy.bytes_max {
        return Err(NoSession::TooLarge);
    }
    // A whole session is checked to be an object even where no field is taken out: the upstream may
    // rely on it.
    let is_only_passed_on = policy.fields.is_empty() && !policy.terms.are_any();
    let parsed: Option<Map<String, Value>> = match (value, is_only_passed_on) {
        (SessionValue::Text(text), true) if plain::is_object(text) => None,
        (SessionValue::Text(text), true) => {
            let checked: Result<&serde_json::value::RawValue, _> = serde_json::from_slice(text);
            checked.ok().filter(|raw| raw.get().starts_with('{')).ok_or(NoSession::Unreadable)?;
            None
        }
        (SessionValue::Text(text), false) => {
            Some(serde_json::from_slice(text).map_err(|_| NoSession::Unreadable)?)
        }
        (SessionValue::Fields(fields), _) => Some(object(fields)),
    };
    let until_ms = match &parsed {
        Some(session) => policy.terms.judge(session, now())?,
        None => None,
    };
    if let Some(name) = &policy.header {
        // Its bytes are looked at once, as the value of a field.
        let mut encoded = vec![0; encoded_len(whole.len(), false).unwrap_or_default()];
        let length = URL_SAFE_NO_PAD.encode_slice(whole, &mut encoded);
        length.map_err(|_| NoSession::TooLarge)?;
        let value = HeaderValue::from_maybe_shared(bytes::Bytes::from(encoded));
        headers.push((name.clone(), value.map_err(|_| NoSession::Unreadable)?));
    }
    for (name, field) in &policy.fields {
        let Some(found) = parsed.as_ref().and_then(|map| map.get(field)) else { continue };
        let Some(rounded) = scalar(found) else { continue };
        let exact = as_stored(value, field, found).unwrap_or(rounded.as_bytes().into());
        headers.push((name.clone(), header_value(&exact)?));
    }
    Ok(until_ms)
}

/// A field as the application wrote it, where what was read of it may be another one's too: the
/// bytes of a hash that are no UTF-8, and the digits of a number that a double rounds.
fn as_stored<'v>(value: &'v SessionValue, field: &str, found: &Value) -> Option<Cow<'v, [u8]>> {
    match (value, found) {
        (SessionValue::Fields(fields), _) => {
            let named = |(name, _): &&(bytes::Bytes, bytes::Bytes)| *name == field.as_bytes();
            fields.iter().find(named).map(|(_, value)| value.as_ref().into())
        }
        (SessionValue::Text(text), Value::Number(number)) if number.is_f64() => {
            let members: HashMap<String, &serde_json::value::RawValue> =
                serde_json::from_slice(text).ok()?;
            members.get(field).map(|raw| raw.get().as_bytes().into())
        }
        (SessionValue::Text(_), _) => None,
    }
}

/// A hash as the JSON object that it stands for.
pub fn object(fields: &[(bytes::Bytes, bytes::Bytes)]) -> Map<String, Value> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|(name, value)| (text(name), Value::String(text(value)))).collect()
}

/// A value that is plain visible ASCII stands as it is; any other is percent-encoded whole, and so
/// is one that holds such an escape itself: no control character can reach a header, and no two
/// values look the same.
fn header_value(text: &[u8]) -> Result<HeaderValue, NoSession> {
    if text.len() > FIELD_BYTES_MAX {
        return Err(NoSession::TooLarge);
    }
    let visible = text.iter().all(|b| (0x20..=0x7E).contains(b)) && text.trim_ascii() == text;
    let plain = visible && !text.windows(3).any(|three| percent::escape(three).is_some());
    if plain {
        return HeaderValue::from_bytes(text).map_err(|_| NoSession::Unreadable);
    }
    HeaderValue::try_from(percent::encode(text)).map_err(|_| NoSession::Unreadable)
}

#[cfg(test)]
mod tests;
