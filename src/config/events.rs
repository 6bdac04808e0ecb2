//! `[events.NAME]`: what other systems tell of changes, where that is heard, and what it purges and
//! revokes; `events` of a route: which of them its requests bring.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;

use super::queue::is_name;
use super::reader::Section;
use super::value::{Mistake, Read, choice, duration_or_zero, echo, string, text};
use crate::base::units::Secret;

/// Longest wait for the second purge.
const AGAIN_MAX: Duration = Duration::from_secs(60 * 60);
/// Longest subject, in bytes.
const SUBJECT_BYTES_MAX: usize = 512;
/// What `from` may say.
const FROM: &str = "\"stream:KEY\", \"jetstream:STREAM/CONSUMER\", \"nats:SUBJECT\", \
                    \"channel:NAME\", \"keyspace:PATTERN\" or \"webhook\"";

/// `[events.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// Where they are heard.
    pub from: EventSource,
    /// The upstream over NATS whose servers tell of them, where these are of NATS.
    pub upstream: Option<String>,
    /// Fields and what they must hold for an event to count.
    pub when: BTreeMap<String, String>,
    /// What goes: paths, and tags behind `tag:`, with `{field}` in them.
    pub purge: Vec<String>,
    /// Whose tokens are revoked: `jti:{field}`, `sid:{field}` or `sub:{field}`.
    pub revoke: Option<String>,
    /// The field that says until when, in Unix seconds; `admin.revocation_ttl` without it.
    pub until: Option<String>,
    /// The verifier whose callers are meant, where several may give the same names.
    pub auth: Option<String>,
    /// When the same is purged once more; zero: never.
    pub again: Duration,
    /// What a gap in what was heard means.
    pub on_gap: OnGap,
    /// The host whose paths are meant; without it, all hosts.
    pub host: Option<String>,
    /// What webhooks are signed with; any one of them will do.
    pub secrets: Vec<Secret>,
    /// Whether the file names secrets, of which each may be one that was not to be had.
    pub names_secrets: bool,
}

/// Where events are heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum EventSource {
    /// A stream of the main store, by its whole key.
    Stream(String),
    /// A channel there.
    Channel(String),
    /// The keys there that match a pattern, when they change.
    Keyspace(String),
    /// A subject of NATS, which may have wildcards.
    Nats(String),
    /// A stream of JetStream, by a consumer that is there.
    Jetstream {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
    },
    /// Requests on a route with `answers = "events"`.
    #[default]
    Webhook,
}

/// What a gap means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnGap {
    /// Everything goes that an event could have named.
    #[default]
    Purge,
    /// Nothing.
    Ignore,
}

impl EventSource {
    /// Whether a gateway of the fleet has to read it; others come by themselves.
    pub fn is_read(&self) -> bool {
        *self != Self::Webhook
    }

    /// Whether it is heard over NATS.
    pub fn is_nats(&self) -> bool {
        matches!(self, Self::Nats(_) | Self::Jetstream { .. })
    }

    /// In one word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Stream(_) => "stream",
            Self::Channel(_) => "channel",
            Self::Keyspace(_) => "keyspace",
            Self::Nats(_) => "nats",
            Self::Jetstream { .. } => "jetstream",
            Self::Webhook => "webhook",
        }
    }
}

/// Reads `[events.NAME]`.
pub(super) fn read(events: &mut Section<'_>) -> Events {
    let read = Events {
        from: events.need("from", FROM, from).unwrap_or_default(),
        upstream: events.get("upstream", text),
        when: events.map("when", |name| Ok(name.to_owned()), |field| field.read(text)),
        purge: events.list_or_empty("purge", text),
        revoke: events.get("revoke", text),
        until: events.get("until", text),
        auth: events.get("auth", text),
        again: events.or("again", Duration::ZERO, again),
        on_gap: events.or(
            "on_gap",
            OnGap::Purge,
            choice(&[("purge", OnGap::Purge), ("ignore", OnGap::Ignore)]),
        ),
        host: events.get("host", text),
        secrets: events.secrets("secrets"),
        names_secrets: events.has("secrets"),
    };
    if read.purge.is_empty() && read.revoke.is_none() && !events.is_survey() {
        let what = "an event would change nothing";
        events.problem("", what, "add purge = [\"/products/{id}\"], or revoke = \"sub:{id}\"");
    }
    read
}

/// Reads `answers` of a route, where it is `"events"`, and the names of these.
pub(super) fn read_names(route: &mut Section<'_>) -> Vec<String> {
    route.list_or_empty("events", text)
}

fn from(value: &DeValue<'_>) -> Read<EventSource> {
    let text = string(value, FROM)?;
    if text == "webhook" {
        return Ok(EventSource::Webhook);
    }
    let wrong = |what: String| Mistake::new(what, format!("write {FROM}"));
    if text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Err(wrong(format!("{} holds a space or a control character", echo(text))));
    }
    match text.split_once(':') {
        Some((_, "")) => Err(wrong(format!("{} names nothing", echo(text)))),
        Some(("stream", key)) => Ok(EventSource::Stream(key.to_owned())),
        Some(("channel", name)) => Ok(EventSource::Channel(name.to_owned())),
        Some(("keyspace", pattern)) => Ok(EventSource::Keyspace(pattern.to_owned())),
        Some(("nats", subject)) if is_subject(subject) => Ok(EventSource::Nats(subject.to_owned())),
        Some(("nats", subject)) => Err(wrong(format!("{} is no subject", echo(subject)))),
        Some(("jetstream", names)) => match names.split_once('/') {
            Some((stream, consumer)) if is_name(stream) && is_name(consumer) => {
                let (stream, consumer) = (stream.to_owned(), consumer.to_owned());
                Ok(EventSource::Jetstream { stream, consumer })
            }
            _ => Err(wrong(format!("{} is no stream and its consumer", echo(names)))),
        },
        _ => Err(wrong(format!("{} is no source of events", echo(text)))),
    }
}

/// Whether it is a subject that somebody can listen to: tokens with dots between them, `*` for one
/// of them, `>` for all the rest.
fn is_subject(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"*>".contains(&byte);
    let count = text.split('.').count();
    text.len() <= SUBJECT_BYTES_MAX
        && text.split('.').enumerate().all(|(index, token)| match token {
            "*" => true,
            ">" => index + 1 == count,
            token => !token.is_empty() && token.bytes().all(is_plain),
        })
}

fn again(value: &DeValue<'_>) -> Read<Duration> {
    let again = duration_or_zero(value)?;
    if again <= AGAIN_MAX {
        return Ok(again);
    }
    Err(Mistake::new("is out of range", "write \"0s\" to \"1h\""))
}
