//! What the scripts of queues answer, and records of items as they are read. Pure.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::index::parts;
use super::reply::{unexpected, value, values};
use crate::store::queue::{
    Accepted, Again, Claim, DeliveryId, Hold, Item, ItemState, KeptAnswer, Pause, QueueLook,
};
use crate::store::{Reply, StoreError};

/// The fields of a record that are read, in this order.
pub(super) const ITEM_FIELDS: [&str; 15] =
    ["s", "o", "t", "d", "x", "u", "f", "z", "a", "n", "c", "e", "y", "h", "l"];

/// The fields of a record that whoever delivers needs, in this order.
pub(super) const CLAIM_FIELDS: [&str; 6] = ["t", "o", "u", "f", "h", "l"];

/// What the script that takes answers.
#[derive(Debug)]
pub(super) enum Took {
    /// The group is gone.
    NoGroup,
    /// Nothing is taken now.
    Paused(Pause),
    /// These, none too.
    Items {
        /// Claims.
        held: Vec<Held>,
        /// Unix ms.
        now_ms: u64,
        /// Unix ms.
        next_ms: Option<u64>,
    },
}

/// A claim that is not read yet.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) hold: Hold,
    /// How often it stalled.
    pub(super) stalls: u32,
    /// Of its head and its body.
    pub(super) bytes: u64,
}

/// Where a list goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The last item that was looked at.
    pub(super) id: DeliveryId,
    /// Its score, Unix ms of the store's clock; nothing where only the id is known.
    pub(super) score: Option<u64>,
}

fn wrong() -> StoreError {
    StoreError::Refused("a script of queues answered in another form".to_owned())
}

fn text(reply: &Value) -> Reply<&str> {
    match reply {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).map_err(|_| wrong()),
        other => Err(unexpected(other)),
    }
}

/// A number, written as one or as text.
pub(super) fn number(reply: &Value) -> Reply<u64> {
    match reply {
        Value::Int(number) => u64::try_from(*number).map_err(|_| wrong()),
        // Scores are fractions to Redis; these are Unix ms.
        Value::Double(number) => Ok(*number as u64),
        other => {
            let text = text(other)?;
            text.parse().or_else(|_| text.parse().map(|it: f64| it as u64)).map_err(|_| wrong())
        }
    }
}

/// An id, or nothing where the text is empty.
pub(super) fn id(reply: &Value) -> Reply<Option<DeliveryId>> {
    match text(reply)? {
        "" => Ok(None),
        text => DeliveryId::parse(text).map(Some).ok_or_else(wrong),
    }
}

/// The state of a letter, or nothing where the text is empty.
pub(super) fn state(reply: &Value) -> Reply<Option<ItemState>> {
    match text(reply)? {
        "" => Ok(None),
        letter => ItemState::of_letter(letter.as_bytes()).map(Some).ok_or_else(wrong),
    }
}

/// What became of the item with this id.
pub(super) fn accepted(reply: &Value, own: &DeliveryId) -> Reply<Accepted> {
    let Value::Array(all) = reply else { return Err(unexpected(reply)) };
    match all.as_slice() {
        [Value::Int(0), accepted, due] => {
            Ok(Accepted::New { accepted_ms: number(accepted)?, due_ms: number(due)? })
        }
        [Value::Int(1), items, bytes] => {
            Ok(Accepted::Full { items: number(items)?, bytes: number(bytes)? })
        }
        [Value::Int(2), of, same, letter, accepted, due] => {
            let of = id(of)?.ok_or_else(wrong)?;
            if *same != Value::Int(1) {
                return Ok(Accepted::Reused { id: of });
            }
            let (accepted_ms, due_ms) = (number(accepted)?, number(due)?);
            let now = state(letter)?.map(|state| Again { state, accepted_ms, due_ms });
            Ok(match now {
                // Its own answer was missed.
                Some(_) if of == *own => Accepted::New { accepted_ms, due_ms },
                now => Accepted::Again { id: of, now },
            })
        }
        _ => Err(wrong()),
    }
}

/// What was taken.
pub(super) fn taken(reply: &Value) -> Reply<Took> {
    let Value::Array(all) = reply else { return Err(unexpected(reply)) };
    let [kind, rest @ ..] = all.as_slice() else { return Err(wrong()) };
    match (text(kind)?, rest) {
        ("g", []) => Ok(Took::NoGroup),
        ("p", [why, left]) => Ok(Took::Paused(pause(why, left)?)),
        ("i", [now, next, claims @ ..]) => {
            let next_ms = if text(next)?.is_empty() { None } else { Some(number(next)?) };
            let held = claims.iter().map(claim).collect::<Reply<_>>()?;
            Ok(Took::Items { held, now_ms: number(now)?, next_ms })
        }
        _ => Err(wrong()),
    }
}

fn claim(reply: &Value) -> Reply<Held> {
    let Value::Array(all) = reply else { return Err(unexpected(reply)) };
    let [entry, of, token, stalls, bytes] = all.as_slice() else { return Err(wrong()) };
    let hold = Hold {
        entry: text(entry)?.to_owned(),
        id: id(of)?.ok_or_else(wrong)?,
        token: number(token)?,
    };
    let stalls = u32::try_from(number(stalls)?).unwrap_or(u32::MAX);
    Ok(Held { hold, stalls, bytes: number(bytes)? })
}

/// A pause, by what it says and how many ms are left of it: less than none, where it has no end.
fn pause(why: &Value, left: &Value) -> Reply<Pause> {
    let Value::BulkString(why) = why else { return Err(unexpected(why)) };
    let Value::Int(left) = left else { return Err(unexpected(left)) };
    let left = u64::try_from(*left).ok().map(Duration::from_millis);
    Ok(Pause { why: String::from_utf8_lossy(why).into_owned(), left })
}

fn lossy(field: Option<Bytes>) -> String {
    String::from_utf8_lossy(field.unwrap_or_default().as_ref()).into_owned()
}

fn decimal(field: Option<Bytes>) -> Option<u64> {
    lossy(field).parse().ok()
}

fn small(field: Option<Bytes>) -> u32 {
    u32::try_from(decimal(field).unwrap_or_default()).unwrap_or(u32::MAX)
}

/// The digest of an order key: the last part of the key of its line.
fn order(line: Option<Bytes>) -> Option<String> {
    lossy(line).rsplit(':').next().filter(|it| !it.is_empty()).map(str::to_owned)
}

/// A record, as its [`ITEM_FIELDS`] were read; nothing where there is none.
pub(super) fn item(reply: Value, id: DeliveryId) -> Reply<Option<Item>> {
    let fields: [Option<Bytes>; ITEM_FIELDS.len()] =
        values(reply, ITEM_FIELDS.len())?.try_into().map_err(|_| wrong())?;
    let [state, owner, accepted, due, settled, give_up, failures, stalls, claims, rest @ ..] =
        fields;
    let [node, status, error, bytes, head, line] = rest;
    let Some(state) = state else { return Ok(None) };
    let head = head.unwrap_or_default();
    // Both count; only the body is told.
    let head_bytes = u64::try_from(head.len()).unwrap_or(u64::MAX);
    Ok(Some(Item {
        id,
        state: ItemState::of_letter(&state).ok_or_else(wrong)?,
        owner: lossy(owner),
        accepted_ms: decimal(accepted).unwrap_or_default(),
        due_ms: decimal(due).unwrap_or_default(),
        settled_ms: decimal(settled),
        give_up_ms: decimal(give_up).unwrap_or_default(),
        failures: small(failures),
        stalls: small(stalls),
        claims: decimal(claims).unwrap_or_default(),
        node: lossy(node),
        status: u16::try_from(small(status)).unwrap_or_default(),
        error: lossy(error),
        bytes: decimal(bytes).unwrap_or_default().saturating_sub(head_bytes),
        head,
        order: order(line),
    }))
}

/// A claim, by the record as its [`CLAIM_FIELDS`] were read, and by the body where there is one;
/// nothing where there is no record.
pub(super) fn claimed(record: Value, body: Option<Bytes>, held: &Held) -> Reply<Option<Claim>> {
    let fields: [Option<Bytes>; CLAIM_FIELDS.len()] =
        values(record, CLAIM_FIELDS.len())?.try_into().map_err(|_| wrong())?;
    let [Some(accepted), owner, give_up, failures, head, line] = fields else { return Ok(None) };
    let head = head.unwrap_or_default();
    let is_empty = u64::try_from(head.len()).is_ok_and(|bytes| held.bytes <= bytes);
    Ok(Some(Claim {
        hold: held.hold.clone(),
        stalls: held.stalls,
        failures: small(failures),
        head,
        body: if is_empty { Some(Bytes::new()) } else { body },
        owner: lossy(owner),
        accepted_ms: decimal(Some(accepted)).unwrap_or_default(),
        give_up_ms: decimal(give_up).unwrap_or_default(),
        order: order(line),
    }))
}

/// Where to go on; nothing at the end.
pub(super) fn place(last: &Value, score: &Value) -> Reply<Option<Place>> {
    let Some(id) = id(last)? else { return Ok(None) };
    Ok(Some(Place { id, score: Some(number(score)?) }))
}

/// What is to be asked for next, and the ids of a page.
pub(super) fn ids(reply: &Value) -> Reply<(Option<Place>, Vec<DeliveryId>)> {
    let Value::Array(all) = reply else { return Err(unexpected(reply)) };
    let [last, score, rest @ ..] = all.as_slice() else { return Err(wrong()) };
    let ids = rest.iter().map(|of| id(of)?.ok_or_else(wrong)).collect::<Reply<_>>()?;
    Ok((place(last, score)?, ids))
}

/// What a queue holds, by the answers to the look at it.
pub(super) fn look(answers: Vec<Value>) -> Reply<QueueLook> {
    let [entries, pending, later, dead, open, oldest, bytes, why, left, time] =
        parts(Value::Array(answers))?;
    let delivering = match &pending {
        Value::Array(summary) => summary.first().map_or(Ok(0), number)?,
        _ => 0,
    };
    let [seconds, micros] = parts(time)?;
    let now_ms = number(&seconds)?.saturating_mul(1000) + number(&micros)? / 1000;
    let (entries, later, open) = (number(&entries)?, number(&later)?, number(&open)?);
    let oldest = match oldest {
        Value::Array(oldest) => oldest.into_iter().next_back(),
        _ => None,
    };
    // A pair of its own in RESP3.
    let score = match oldest {
        Some(Value::Array(pair)) => pair.into_iter().next_back(),
        score => score,
    };
    let oldest = score.as_ref().map(number).transpose()?;
    let pause = if why == Value::Nil { None } else { Some(pause(&why, &left)?) };
    Ok(QueueLook {
        waiting: entries.saturating_sub(delivering),
        later,
        behind: open.saturating_sub(entries).saturating_sub(later),
        delivering,
        dead: number(&dead)?,
        open,
        // What ended by itself leaves its bytes behind until the next one is accepted.
        bytes: match value(bytes) {
            Some(counted) if open > 0 => number(&Value::BulkString(counted.to_vec()))?,
            _ => 0,
        },
        oldest: oldest.map(|at| Duration::from_millis(now_ms.saturating_sub(at))),
        pause,
    })
}

/// An answer as it is kept: the length of its head, that, and its body.
pub(super) fn framed(answer: &KeptAnswer) -> Vec<u8> {
    let KeptAnswer { head, body } = answer;
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length, head.as_ref(), body.as_ref()].concat()
}

/// The same as it was.
pub(super) fn unframed(framed: &Bytes) -> Option<KeptAnswer> {
    let (length, _) = framed.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let mut head = framed.slice(4..);
    if length > head.len() {
        return None;
    }
    let body = head.split_off(length);
    Some(KeptAnswer { head, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn an_answer_is_read_as_it_was_framed() {
        for (head, body) in [("", ""), ("200", ""), ("", "x"), ("head", "body")] {
            let answer = KeptAnswer { head: head.into(), body: body.into() };
            assert_eq!(unframed(&framed(&answer).into()), Some(answer));
        }
        for broken in [&b""[..], b"abc", b"\0\0\0\x02a"] {
            assert_eq!(unframed(&Bytes::from_static(broken)), None);
        }
    }

    #[test]
    fn what_is_no_answer_of_a_script_is_an_error() {
        let own = DeliveryId::parse(&"0".repeat(26)).expect("an id");
        for reply in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(0), bulk("x"), bulk("1")]),
            Value::Array(vec![Value::Int(2), bulk("short"), Value::Int(1)]),
        ] {
            assert!(accepted(&reply, &own).is_err(), "{reply:?}");
            assert!(taken(&reply).is_err(), "{reply:?}");
        }
        let claims = Value::Array(vec![bulk("i"), bulk("5"), bulk(""), Value::Array(vec![])]);
        assert!(taken(&claims).is_err());
        assert!(ids(&Value::Array(vec![bulk(""), bulk(""), bulk("short")])).is_err());
    }
}
