//! A probe: whether a server on a connection would serve requests, asked as they ask.

use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::connect_error::ConnectError;
use super::node::Node;
use super::published::{Health, Published};
use crate::config::{self, StoreUse};

/// Asks for the role, for a script, and for a key. True when the answer came in time, and is that
/// of a server that serves.
///
/// The script names no key, so that no server of a Redis Cluster sends it on: that would be an
/// answer also of one whose scripts wait, or do not end. The key is one of the server's own: only
/// so it says whether its data can be read, and that its cluster is down.
///
/// # Errors
/// The connection cannot be used.
pub(super) async fn probe(
    node: &Node,
    settings: &config::Store,
    published: &Published,
) -> Result<bool, ConnectError> {
    let mut pipeline = Pipeline::with_capacity(3);
    pipeline.cmd("HELLO");
    pipeline.cmd("EVAL").arg("return 1").arg(0);
    // Each store has a user of its own, who may send what its use needs.
    let read = if settings.usage == StoreUse::Limits { "GET" } else { "EXISTS" };
    pipeline.cmd(read).arg(node.own_key(&settings.prefix, "selftest"));
    let begin = Instant::now();
    let sent = published.connection.send(&pipeline);
    let replies = tokio::time::timeout(settings.connect_timeout, sent).await;
    let replies = replies.map_err(|_| ConnectError::Timeout)??;
    let took = begin.elapsed();
    if !node.is_in_cluster() && replies.first().is_some_and(is_replica) {
        return Err(ConnectError::Replica);
    }
    match Health::of(&replies) {
        Health::Refused(_) | Health::LoggedOut => {
            let refusal = |reply: Value| reply.extract_error().err();
            let error = replies.into_iter().find_map(refusal);
            Err(error.map_or(ConnectError::Timeout, ConnectError::from))
        }
        Health::Down => Ok(false),
        Health::Good | Health::Silent | Health::Broken => {
            let is_busy = |reply: &Value| match reply {
                Value::ServerError(error) => error.code() == "BUSY",
                _ => false,
            };
            Ok(took <= node.answers_within(settings) && !replies.iter().any(is_busy))
        }
    }
}

/// Whether the server said of itself, in its answer to HELLO, that it follows another one.
pub(super) fn is_replica(hello: &Value) -> bool {
    let text = |value: &Value, expected: &[&[u8]]| match value {
        Value::BulkString(text) => expected.contains(&text.as_slice()),
        Value::SimpleString(text) => expected.contains(&text.as_bytes()),
        _ => false,
    };
    let Value::Map(fields) = hello else { return false };
    fields.iter().any(|(name, role)| text(name, &[b"role"]) && text(role, &[b"replica", b"slave"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_known_by_its_greeting() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let hello = |role: &str| {
            Value::Map(vec![(text("server"), text("redis")), (text("role"), text(role))])
        };
        assert!(is_replica(&hello("replica")) && is_replica(&hello("slave")));
        assert!(!is_replica(&hello("master")) && !is_replica(&Value::Map(vec![])));
        assert!(!is_replica(&Value::Okay));
    }
}
