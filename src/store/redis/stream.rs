//! The stream of revocations as Redis shows it: what to ask, what the answers say, and whether
//! anything was missed. Pure: the connection is somebody else's.

use std::time::Duration;

use redis::{Cmd, Pipeline, Value};

use crate::store::Revocation;
use crate::store::keys::{Keys, REVOKED_KEY, REVOKED_LATE, REVOKED_NOT_BEFORE, REVOKED_UNTIL};
use crate::store::revoked::Notice;

/// Most entries of one look.
pub(super) const PAGE_MAX: usize = 1000;

/// Name and value pairs of one entry.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// One entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// When it was added, in Unix milliseconds on Redis's clock.
    told_ms: u64,
    /// Nothing where it is not understood.
    pub(super) fields: Fields,
}

impl Entry {
    /// What it says, as of [`Notice::read`].
    pub(super) fn notice(&self, keys: &Keys, now: u64, lifetime: Duration) -> Option<Notice> {
        let notice = Notice::read(&self.fields, keys, now, lifetime)?;
        Some(notice.told_at(self.told_ms))
    }
}

/// An entry's id: milliseconds on Redis's clock, and a number among those of the same millisecond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    ms: u64,
    number: u64,
}

impl Id {
    fn parse(value: &Value) -> Option<Self> {
        let (ms, number) = text(value)?.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, number: number.parse().ok()? })
    }
}

/// The commands that tell every gateway of a change, behind those that make it: whoever reads of it
/// in the stream must find it in force.
///
/// They are for one transaction, because all of them must happen or none, and because the stream
/// must never be without a TTL. Where the keys lie on different servers, their order is what is
/// left.
pub(super) fn write(
    stream: &str,
    entries_max: usize,
    mut changes: Vec<Cmd>,
    told: Told<'_>,
    stream_ttl: Duration,
) -> Vec<Cmd> {
    let mut add = redis::cmd("XADD");
    add.arg(stream).arg("MAXLEN").arg("~").arg(entries_max).arg("*");
    add.arg(REVOKED_KEY).arg(told.key).arg(REVOKED_UNTIL).arg(told.until);
    if let Some(not_before) = told.not_before {
        add.arg(REVOKED_NOT_BEFORE).arg(not_before);
    }
    if told.is_late {
        add.arg(REVOKED_LATE).arg(1);
    }
    changes.push(add);
    // GT takes a key without an expiry for one that never ends, so NX gives such a key its first.
    for condition in ["NX", "GT"] {
        let mut extend = redis::cmd("PEXPIRE");
        extend.arg(stream).arg(millis(stream_ttl)).arg(condition);
        changes.push(extend);
    }
    changes
}

/// Has commands that tell of a change say that it is told late.
pub(super) fn be_late(commands: &mut [Cmd]) {
    for command in commands {
        if matches!(command.args_iter().next(), Some(redis::Arg::Simple(b"XADD"))) {
            // What stands at its end are names and values.
            command.arg(REVOKED_LATE).arg(1);
        }
    }
}

/// What an entry says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    key: &'a str,
    not_before: Option<i64>,
    /// Unix seconds; 0 takes the revocation back.
    until: u64,
    /// Whether what is known of the key may be newer, or last longer.
    is_late: bool,
}

impl<'a> Told<'a> {
    /// A revocation of `now` (Unix seconds). Its end is rounded up: it must not end before the key.
    pub(super) fn of(revocation: &Revocation<'a>, now: u64) -> Self {
        let until = now.saturating_add(revocation.ttl.as_secs()).saturating_add(1);
        Self { key: revocation.key, not_before: revocation.not_before, until, is_late: false }
    }

    /// The same, which lowers and shortens nothing.
    pub(super) fn more(self) -> Self {
        Self { is_late: true, ..self }
    }

    /// One that was told before, and holds until then (Unix seconds).
    pub(super) fn again(key: &'a str, not_before: Option<i64>, until: u64) -> Self {
        Self { key, not_before, until, is_late: false }
    }

    /// The same for this node's own set.
    pub(super) fn notice(&self) -> Notice {
        Notice::of(self.key, self.not_before, self.until).told_late(self.is_late)
    }

    /// What it is about.
    pub(super) fn key(&self) -> &'a str {
        self.key
    }

    /// Whether it is the end of one.
    pub(super) fn is_undone(&self) -> bool {
        self.until == 0
    }

    /// The end of one.
    pub(super) fn undone(key: &'a str) -> Self {
        Self { key, not_before: None, until: 0, is_late: false }
    }
}

/// Milliseconds, at least one, as Redis takes a TTL.
pub(super) fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// What the commands of a transaction answered, or the first error among them.
pub(super) fn executed(mut replies: Vec<Value>) -> Result<Vec<Value>, Value> {
    if let Some(at) = replies.iter().position(|reply| matches!(reply, Value::ServerError(_))) {
        return Err(replies.swap_remove(at));
    }
    match replies.pop() {
        Some(Value::Array(replies)) => Ok(replies),
        other => Err(other.unwrap_or_default()),
    }
}

/// How far the stream was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    last: Id,
    /// Entries that were read, or known to be missed, since this stream began.
    counted: u64,
    /// Whether the stream is still being read from its start.
    from_start: bool,
}

impl Default for Place {
    /// Before the first entry of a stream.
    fn default() -> Self {
        Self { last: Id::default(), counted: 0, from_start: true }
    }
}

/// What one look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// New entries, oldest first.
    pub(super) entries: Vec<Entry>,
    newest: Option<Id>,
    stream: Option<Stream>,
}

/// What Redis tells of a stream that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stream {
    /// How many entries were ever added.
    added: u64,
    /// Of the oldest entry that is still there.
    oldest: Option<Id>,
    /// Of the newest entry that ever was.
    newest: Id,
}

/// Where a look left the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// At the end of the stream, with nothing missed.
    Reached,
    /// At the end, but entries older than this (Unix seconds) were gone before they were read.
    Missed { older_than: u64 },
    /// There is more.
    More,
    /// It is another stream, or something was missed: it is read from its start now.
    Again,
}

impl Place {
    /// The question for what the stream is and what is new in it.
    pub(super) fn look(&self, stream: &str) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(4);
        pipeline.cmd("MULTI");
        pipeline.cmd("XINFO").arg("STREAM").arg(stream);
        let read = pipeline.cmd("XREAD").arg("COUNT").arg(PAGE_MAX);
        read.arg("STREAMS").arg(stream).arg(self.id());
        pipeline.cmd("EXEC");
        pipeline
    }

    /// The wait for something new.
    pub(super) fn wait(&self, stream: &str, longest: Duration) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(1);
        let read = pipeline.cmd("XREAD").arg("COUNT").arg(1).arg("BLOCK").arg(millis(longest));
        read.arg("STREAMS").arg(stream).arg(self.id());
        pipeline
    }

    fn id(&self) -> String {
        format!("{}-{}", self.last.ms, self.last.number)
    }

    /// Moves behind what was found.
    pub(super) fn advance(&mut self, look: &Look) -> End {
        let Some(stream) = look.stream else {
            // It expired with all it told, or was flushed with the keys themselves.
            *self = Self::default();
            return End::Reached;
        };
        self.last = look.newest.unwrap_or(self.last);
        self.counted = self.counted.saturating_add(look.entries.len() as u64);
        if look.entries.len() >= PAGE_MAX {
            return End::More;
        }
        if self.counted == stream.added && self.last <= stream.newest {
            self.from_start = false;
            return End::Reached;
        }
        if !self.from_start {
            *self = Self::default();
            return End::Again;
        }
        (self.counted, self.from_start) = (stream.added, false);
        End::Missed { older_than: stream.oldest.unwrap_or(stream.newest).ms / 1000 + 1 }
    }
}

impl Look {
    /// Reads the replies to [`Place::look`].
    ///
    /// # Errors
    /// Redis's own words, when it refused.
    pub(super) fn read(replies: Vec<Value>) -> Result<Self, String> {
        let replies = executed(replies).map_err(|reply| described(&reply))?;
        let Ok([about, read]) = <[Value; 2]>::try_from(replies) else {
            return Err("a look at the stream came back with missing replies".to_owned());
        };
        let stream = match &about {
            Value::ServerError(error) if error.to_string().contains("no such key") => {
                return Ok(Self::default());
            }
            Value::Map(about) => Some(Stream::read(about).ok_or_else(|| described(&read))?),
            other => return Err(described(other)),
        };
        let entries = match read {
            Value::Nil => Vec::new(),
            Value::Map(mut streams) => match streams.pop() {
                Some((_, Value::Array(entries))) => entries,
                _ => return Err(described(&Value::Nil)),
            },
            other => return Err(described(&other)),
        };
        let newest = entries.last().and_then(id_of);
        Ok(Self { entries: entries.into_iter().map(entry).collect(), newest, stream })
    }
}

impl Stream {
    fn read(about: &[(Value, Value)]) -> Option<Self> {
        let find = |name: &str| {
            about.iter().find(|(key, _)| text(key) == Some(name)).map(|(_, value)| value)
        };
        let added = match find("entries-added")? {
            Value::Int(added) => u64::try_from(*added).ok()?,
            _ => return None,
        };
        let oldest = match find("first-entry")? {
            Value::Array(entry) => entry.first().and_then(Id::parse),
            _ => None,
        };
        Some(Self { added, oldest, newest: Id::parse(find("last-generated-id")?)? })
    }
}

fn id_of(entry: &Value) -> Option<Id> {
    match entry {
        Value::Array(parts) => parts.first().and_then(Id::parse),
        _ => None,
    }
}

fn entry(entry: Value) -> Entry {
    let told_ms = id_of(&entry).unwrap_or_default().ms;
    Entry { told_ms, fields: fields(entry) }
}

/// The fields of an entry; none when it is not understood.
fn fields(entry: Value) -> Fields {
    let Value::Array(parts) = entry else { return Vec::new() };
    let Some(Value::Array(flat)) = parts.into_iter().nth(1) else { return Vec::new() };
    let bytes = flat.into_iter().map(|value| match value {
        Value::BulkString(bytes) => bytes,
        _ => Vec::new(),
    });
    let bytes: Vec<Vec<u8>> = bytes.collect();
    bytes.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// A reply that is no use: an error in Redis's words, and nothing of any value.
fn described(reply: &Value) -> String {
    match reply {
        Value::ServerError(error) => error.to_string(),
        _ => {
            "Redis shows the stream of revocations in another form; is it 7.0 or newer?".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> Id {
        Id { ms, number: 0 }
    }

    /// A look that finds `entries`, the newest with this id, in a stream of this kind.
    fn look(entries: usize, newest: u64, (added, oldest, last): (u64, u64, u64)) -> Look {
        Look {
            entries: vec![Entry::default(); entries],
            newest: (entries > 0).then(|| id(newest)),
            stream: Some(Stream { added, oldest: Some(id(oldest)), newest: id(last) }),
        }
    }

    #[test]
    fn a_stream_that_was_never_trimmed_is_read_without_a_gap() {
        let mut place = Place::default();
        assert_eq!(place.advance(&look(PAGE_MAX, 2000, (1500, 1, 3000))), End::More);
        assert_eq!(place.advance(&look(500, 3000, (1500, 1, 3000))), End::Reached);
        assert_eq!(place.advance(&look(0, 0, (1500, 1, 3000))), End::Reached);
        assert_eq!(place.id(), "3000-0");
    }

    #[test]
    fn what_was_trimmed_after_it_was_read_is_no_gap() {
        let mut place = Place::default();
        assert_eq!(place.advance(&look(9, 9000, (9, 1000, 9000))), End::Reached);
        assert_eq!(place.advance(&look(1, 9500, (10, 9000, 9500))), End::Reached);
    }

    #[test]
    fn what_was_trimmed_before_it_was_read_is_a_gap_once() {
        let mut place = Place::default();
        let missed = End::Missed { older_than: 6 };
        assert_eq!(place.advance(&look(5, 9000, (9, 5000, 9000))), missed);
        assert_eq!(place.advance(&look(1, 9500, (10, 5000, 9500))), End::Reached);
        // Now more is added than is kept, while nobody reads: the rest is read again from its
        // start, which shows how far back the gap reaches.
        assert_eq!(place.advance(&look(5, 30_000, (30, 26_000, 30_000))), End::Again);
        assert_eq!(place.id(), "0-0");
        let missed = End::Missed { older_than: 27 };
        assert_eq!(place.advance(&look(5, 30_000, (30, 26_000, 30_000))), missed);
    }

    #[test]
    fn another_stream_is_read_from_its_start() {
        // After a flush, with a clock that went on and with one that went back.
        for (newest, found) in [(9500, 1), (500, 0)] {
            let mut place = Place::default();
            assert_eq!(place.advance(&look(9, 9000, (9, 1000, 9000))), End::Reached);
            let other = (1, newest, newest);
            assert_eq!(place.advance(&look(found, newest, other)), End::Again);
            assert_eq!(place.advance(&look(1, newest, other)), End::Reached);
        }
        // As many entries as the old one had, all with lower ids.
        let mut place = Place::default();
        assert_eq!(place.advance(&look(1, 9000, (1, 9000, 9000))), End::Reached);
        assert_eq!(place.advance(&look(0, 0, (1, 500, 500))), End::Again);
    }

    #[test]
    fn a_stream_that_is_gone_is_waited_for_from_its_start() {
        let mut place = Place::default();
        assert_eq!(place.advance(&look(9, 9000, (9, 1000, 9000))), End::Reached);
        assert_eq!(place.advance(&Look::default()), End::Reached);
        assert_eq!(place, Place::default());
    }

    #[test]
    fn a_stream_that_was_emptied_unread_is_a_gap() {
        let mut place = Place::default();
        let mut emptied = look(0, 0, (9, 0, 9000));
        emptied.stream = emptied.stream.map(|stream| Stream { oldest: None, ..stream });
        assert_eq!(place.advance(&emptied), End::Missed { older_than: 10 });
        assert_eq!(place.advance(&emptied), End::Reached);
    }

    #[test]
    fn replies_that_make_no_sense_are_errors_and_no_panic() {
        for replies in [
            vec![],
            vec![Value::Nil],
            vec![Value::Okay, Value::Array(vec![])],
            vec![Value::Array(vec![Value::Nil, Value::Nil])],
            vec![Value::Array(vec![Value::Map(vec![]), Value::Nil])],
        ] {
            assert!(Look::read(replies.clone()).is_err(), "{replies:?}");
        }
    }
}
