//! Replies as they come: those of the cache, and errors. A value may be a user's data, so no error
//! shows it.

use bytes::Bytes;
use redis::Value;

use super::published::Health;
use crate::store::cached::living;
use crate::store::{Reply, StoreError};

/// A command's own error. A Redis Cluster that is down, or whose servers send on to each other
/// without end, is away: nobody has said anything of the keys.
pub(super) fn server_error(reply: &Value) -> Option<StoreError> {
    let Value::ServerError(error) = reply else { return None };
    let is_away = matches!(
        error.code(),
        "BUSY"
            | "LOADING"
            | "READONLY"
            | "MASTERDOWN"
            | "CLUSTERDOWN"
            | "MOVED"
            | "ASK"
            | "TRYAGAIN"
    );
    let kind = if is_away { StoreError::NotServing } else { StoreError::Refused };
    Some(kind(error.to_string()))
}

/// Whether the server takes no writes now, and may take them later.
pub(super) fn refuses_writes(replies: &[Value]) -> bool {
    let refuses = |reply: &Value| {
        matches!(reply, Value::ServerError(error)
            if matches!(error.code(), "OOM" | "NOREPLICAS" | "MISCONF" | "CLUSTERDOWN" | "BUSY"))
    };
    Health::of(replies) != Health::Good || replies.iter().any(refuses)
}

/// How many of its keys exist: none, or some.
pub(super) fn exists(reply: &Value) -> Reply<bool> {
    match reply {
        Value::Int(number) => Ok(*number != 0),
        other => Err(unexpected(other)),
    }
}

/// A reply of another type than the command gives. The value itself may be a user's data, so only
/// its kind is told.
pub(super) fn unexpected(reply: &Value) -> StoreError {
    server_error(reply).unwrap_or_else(|| {
        let kind = match reply {
            Value::Nil => "nothing",
            Value::Int(_) => "a number",
            Value::BulkString(_) => "a string",
            Value::Array(_) => "an array",
            _ => "another type",
        };
        StoreError::Refused(format!("unexpected reply: {kind}"))
    })
}

/// The sets of field names, and as many variants as were asked for.
pub(super) fn entry(
    reply: Value,
    variants: usize,
    now_ms: u64,
) -> Reply<(Option<Bytes>, Vec<Option<Bytes>>)> {
    // What an application wrote under our key is no entry.
    if matches!(&reply, Value::ServerError(error) if error.code() == "WRONGTYPE") {
        return Ok((None, vec![None; variants]));
    }
    let mut fields = values(reply, variants + 1)?.into_iter();
    let vary = fields.next().flatten();
    Ok((vary, fields.map(|framed| living(framed?, now_ms)).collect()))
}

pub(super) fn values(reply: Value, expected: usize) -> Reply<Vec<Option<Bytes>>> {
    match reply {
        Value::Array(parts) if parts.len() == expected => {
            Ok(parts.into_iter().map(value).collect())
        }
        Value::Array(_) => Err(StoreError::Refused("a list of another length".to_owned())),
        other => Err(server_error(&other).unwrap_or_else(|| unexpected(&other))),
    }
}

/// A string, or nothing where there is none.
pub(super) fn text(reply: Value) -> Reply<Option<Bytes>> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(text) => Ok(Some(text.into())),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn value(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::says::Condition::{
        self, Busy, CannotSave, ClusterDown, IsCluster, Loading, NoPermission, NoReplicas,
        NotLoggedIn, OutOfMemory, PrimaryDown, ReadOnly, WrongPassword,
    };
    use super::*;

    /// Every code of an error that Redis 7 and 8 have: what it means for the connection, whether
    /// writes are refused for now, and what is said of it.
    #[test]
    fn every_code_has_its_meaning() {
        use Health::{Good, LoggedOut, Refused};
        for (code, health, no_writes, said) in [
            ("READONLY", Refused("READONLY"), true, Some(ReadOnly)),
            ("LOADING", Refused("LOADING"), true, Some(Loading)),
            ("MASTERDOWN", Refused("MASTERDOWN"), true, Some(PrimaryDown)),
            ("NOAUTH", LoggedOut, true, Some(NotLoggedIn)),
            // Another connection would fare no better, and what can be read is read.
            ("OOM", Good, true, Some(OutOfMemory)),
            ("NOREPLICAS", Good, true, Some(NoReplicas)),
            ("MISCONF", Good, true, Some(CannotSave)),
            ("CLUSTERDOWN", Good, true, Some(ClusterDown)),
            ("BUSY", Good, true, Some(Busy)),
            // One command is refused; the connection that stands stays logged in.
            ("NOPERM", Good, false, Some(NoPermission)),
            ("WRONGPASS", Good, false, Some(WrongPassword)),
            ("MOVED", Good, false, Some(IsCluster)),
            ("ASK", Good, false, Some(IsCluster)),
            ("TRYAGAIN", Good, false, Some(IsCluster)),
            ("CROSSSLOT", Good, false, Some(IsCluster)),
            // About the command alone.
            ("ERR", Good, false, None),
            ("WRONGTYPE", Good, false, None),
            ("NOSCRIPT", Good, false, None),
            ("EXECABORT", Good, false, None),
            ("BUSYKEY", Good, false, None),
            ("BUSYGROUP", Good, false, None),
            ("NOGROUP", Good, false, None),
            ("NOPROTO", Good, false, None),
            ("NOTBUSY", Good, false, None),
            ("UNKILLABLE", Good, false, None),
            ("UNBLOCKED", Good, false, None),
            ("INPROG", Good, false, None),
            ("IOERR", Good, false, None),
            ("NOMASTERLINK", Good, false, None),
            ("NOGOODSLAVE", Good, false, None),
            ("DENIED", Good, false, None),
        ] {
            let text = format!("-{code} some words\r\n");
            let error = redis::parse_redis_value(text.as_bytes()).expect("an error in RESP");
            let replies = [Value::Okay, error];
            assert_eq!(Health::of(&replies), health, "{code}");
            assert_eq!(refuses_writes(&replies), no_writes, "{code}");
            assert_eq!(Condition::of_code(code), said, "{code}");
            let is_away = matches!(server_error(&replies[1]), Some(StoreError::NotServing(_)));
            let serves_nobody = ["BUSY", "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN"];
            let is_sent_on = matches!(code, "MOVED" | "ASK" | "TRYAGAIN");
            assert_eq!(is_away, serves_nobody.contains(&code) || is_sent_on, "{code}");
        }
    }
}
