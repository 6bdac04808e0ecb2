//! A walk through the entries of the cache, by the user who may only look: in small steps, a few a
//! second, one walk at a time. It reads names, lives and sizes, and no value.

use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::operator::{Operator, name, text};
use super::reply::server_error;
use super::server::Server;
use super::topology::Topology;
use crate::store::keys::Keys;

/// About how many keys Redis looks at in one step.
const STEP_KEYS: u32 = 200;
/// Least time from one step to the next: five a second.
const STEP_PAUSE: Duration = Duration::from_millis(200);
/// Most steps for one answer.
pub const STEPS_MAX: u32 = 20;
/// Most entries of one answer; the step that comes to so many is its last.
const ENTRIES_MAX: usize = 1000;
/// Where a walk begins.
const BEGIN: &str = "0";
/// The rights that a walk needs.
const RIGHTS: [&str; 3] = ["scan", "pttl", "memory|usage"];

/// What is to be walked through.
#[derive(Debug, Clone)]
pub struct Walk {
    /// `0`, or where the last answer has ended.
    pub cursor: String,
    /// What host and path contain.
    pub matching: String,
    /// How many steps; at most [`STEPS_MAX`].
    pub steps: u32,
}

/// One entry.
#[derive(Debug, PartialEq, Eq)]
pub struct WalkedEntry {
    /// Its key.
    pub key: String,
    /// What is left of its life, which is longer than its freshness.
    pub left: Option<Duration>,
    /// The memory that it takes, in bytes, without the parts of long bodies.
    pub bytes: Option<u64>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Walked {
    /// Entries that came by, also those that do not match.
    pub seen: usize,
    /// Those that match.
    pub entries: Vec<WalkedEntry>,
    /// Where to go on; nothing at the end.
    pub cursor: Option<String>,
}

/// Why there was no walk.
#[derive(Debug)]
pub enum NotWalked {
    /// The store is of this process alone.
    Embedded,
    /// There is no user who may look.
    NoOperator,
    /// Somebody else walks.
    Busy,
    /// The cursor is none, or its server is gone.
    Cursor,
    /// The user lacks these rights.
    NotPermitted {
        /// The user.
        user: String,
        /// The rights.
        rights: Vec<&'static str>,
    },
    /// The server does not answer, and why.
    Away(String),
}

/// A place in the walk: a server, and its own cursor.
struct Place {
    server: Arc<Server>,
    /// The server behind this one.
    next: Option<String>,
    cursor: u64,
    /// Whether there are several servers.
    is_spread: bool,
}

impl Place {
    /// The place of a cursor, `512` or `512@host:port`; the servers come in the order of their
    /// names.
    fn of(topology: &Topology, cursor: &str) -> Result<Self, NotWalked> {
        let mut servers = topology.servers();
        servers.sort_by_key(|server| name(server));
        let (number, wanted) = match cursor.split_once('@') {
            Some((number, wanted)) => (number, Some(wanted)),
            None => (cursor, None),
        };
        let cursor: u64 = number.parse().map_err(|_| NotWalked::Cursor)?;
        let is_spread = servers.len() > 1;
        let at = match wanted {
            Some(wanted) => servers.iter().position(|it| name(it) == wanted),
            // A number of several servers would be one of any.
            None => Some(0).filter(|_| !is_spread || number == BEGIN),
        };
        let server = at.and_then(|at| servers.get(at)).ok_or(NotWalked::Cursor)?;
        let next = at.and_then(|at| servers.get(at + 1)).map(|server| name(server));
        Ok(Self { server: Arc::clone(server), next, cursor, is_spread })
    }

    /// The cursor of what comes behind a step that ended at `end`.
    fn behind(&self, end: u64) -> Option<String> {
        match (end, &self.next) {
            (0, None) => None,
            (0, Some(next)) => Some(format!("{BEGIN}@{next}")),
            (end, _) if self.is_spread => Some(format!("{end}@{}", name(&self.server))),
            (end, _) => Some(end.to_string()),
        }
    }
}

impl Operator {
    /// See [`crate::store::Store::walk`].
    pub(super) async fn walk(&self, topology: &Topology, walk: &Walk) -> Result<Walked, NotWalked> {
        let mut last = self.walking.try_lock().map_err(|_| NotWalked::Busy)?;
        let mut walked = Walked { cursor: Some(walk.cursor.clone()), ..Walked::default() };
        for _ in 0..walk.steps.clamp(1, STEPS_MAX) {
            let Some(cursor) = &walked.cursor else { break };
            let place = Place::of(topology, cursor)?;
            if let Some(last) = *last {
                tokio::time::sleep_until(last + STEP_PAUSE).await;
            }
            *last = Some(Instant::now());
            walked.cursor = self.step(topology, &place, (walk, &mut walked)).await?;
            if walked.entries.len() >= ENTRIES_MAX {
                break;
            }
        }
        Ok(walked)
    }

    /// One step, and where the next one begins.
    async fn step(
        &self,
        topology: &Topology,
        place: &Place,
        (walk, walked): (&Walk, &mut Walked),
    ) -> Result<Option<String>, NotWalked> {
        let mut scan = Pipeline::new();
        let pattern = Keys::cache_entries(&self.settings.prefix);
        scan.cmd("SCAN").arg(place.cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP_KEYS);
        let reply = self.good(topology, place, &scan).await?.pop().unwrap_or_default();
        let Some((end, keys)) = read(reply) else {
            return Err(NotWalked::Away("its answer to SCAN is none".to_owned()));
        };
        walked.seen += keys.len();
        let matches = |key: &String| {
            Keys::cache_entry_parts(key).is_some_and(|(target, _)| target.contains(&walk.matching))
        };
        let keys: Vec<String> = keys.into_iter().filter(matches).collect();
        if !keys.is_empty() {
            let mut sizes = Pipeline::with_capacity(keys.len() * 2);
            for key in &keys {
                sizes.cmd("PTTL").arg(key);
                sizes.cmd("MEMORY").arg("USAGE").arg(key);
            }
            let replies = self.good(topology, place, &sizes).await?;
            let told = keys.into_iter().zip(replies.chunks(2));
            walked.entries.extend(told.filter_map(|(key, replies)| entry(key, replies)));
        }
        Ok(place.behind(end))
    }

    /// Replies, none of which is an error.
    async fn good(
        &self,
        topology: &Topology,
        place: &Place,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, NotWalked> {
        let replies = self.ask(topology, &place.server, pipeline).await;
        let replies = replies.map_err(|error| NotWalked::Away(text(&error)))?;
        let is_refused =
            |reply: &Value| matches!(reply, Value::ServerError(error) if error.code() == "NOPERM");
        if replies.iter().any(is_refused) {
            let user = self.settings.username.clone().unwrap_or_default();
            return Err(NotWalked::NotPermitted { user, rights: RIGHTS.to_vec() });
        }
        match replies.iter().find_map(server_error) {
            Some(error) => Err(NotWalked::Away(error.to_string())),
            None => Ok(replies),
        }
    }
}

/// What SCAN says: where to go on, and keys.
fn read(reply: Value) -> Option<(u64, Vec<String>)> {
    let (end, keys): (u64, Vec<Vec<u8>>) = redis::from_redis_value(reply).ok()?;
    // Our own keys are text; what is none is an application's.
    Some((end, keys.into_iter().filter_map(|key| String::from_utf8(key).ok()).collect()))
}

/// One entry, unless it has gone meanwhile.
fn entry(key: String, replies: &[Value]) -> Option<WalkedEntry> {
    let number = |at: usize| match replies.get(at) {
        Some(Value::Int(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    let is_gone = matches!(replies.first(), Some(Value::Int(-2)));
    let left = number(0).map(Duration::from_millis);
    (!is_gone).then(|| WalkedEntry { key, left, bytes: number(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_left_out_and_what_is_no_answer_is_none() {
        let of = |left, bytes| entry("k".to_owned(), &[Value::Int(left), bytes]);
        let known = WalkedEntry {
            key: "k".to_owned(),
            left: Some(Duration::from_millis(1500)),
            bytes: Some(7),
        };
        assert_eq!(of(1500, Value::Int(7)), Some(known));
        assert_eq!(of(-2, Value::Nil), None);
        assert!(of(-1, Value::Nil).is_some_and(|it| it.left.is_none() && it.bytes.is_none()));
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let keys = Value::Array(vec![text("a"), Value::BulkString(vec![0xFF])]);
        let read_of = read(Value::Array(vec![text("512"), keys]));
        assert_eq!(read_of, Some((512, vec!["a".to_owned()])));
        assert_eq!(read(Value::Nil), None);
    }
}
