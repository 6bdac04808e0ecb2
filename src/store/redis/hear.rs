//! One connection that tells of changed epochs, and what it tells.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use crate::store::known::KnownEpochs;

/// One connection.
pub(super) struct Heard {
    pub(super) number: u64,
    /// Set before the table is told.
    pub(super) closed: AtomicBool,
    /// Wakes the task.
    pub(super) lost: Notify,
}

/// Takes what the server pushed out of the table, before anything that it sent later is read.
pub(super) fn hear(known: &Weak<KnownEpochs>, ear: &Heard, push: &PushInfo) {
    let Some(known) = known.upgrade() else { return };
    match push.kind {
        PushKind::Disconnection => {
            ear.closed.store(true, Ordering::Release);
            known.end(ear.number);
            ear.lost.notify_one();
        }
        PushKind::Invalidate => match changed(push) {
            Some(keys) => known.forget(keys.into_iter()),
            // All was flushed, or it is said in a way that is not known here.
            None => known.forget_all(),
        },
        _ => {}
    }
}

/// The keys that changed; nothing when they are not named.
fn changed(push: &PushInfo) -> Option<Vec<&str>> {
    let [Value::Array(keys)] = push.data.as_slice() else { return None };
    keys.iter()
        .map(|key| match key {
            Value::BulkString(key) => std::str::from_utf8(key).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_everything() {
        let text = |key: &str| Value::BulkString(key.as_bytes().to_vec());
        let push = |data| PushInfo { kind: PushKind::Invalidate, data };
        let named = push(vec![Value::Array(vec![text("a"), text("b")])]);
        assert_eq!(changed(&named), Some(vec!["a", "b"]));
        for odd in [
            vec![],
            vec![Value::Nil],
            vec![Value::Array(vec![text("a"), Value::Int(1)])],
            vec![Value::Array(vec![Value::BulkString(vec![0xFF])])],
        ] {
            assert_eq!(changed(&push(odd.clone())), None, "{odd:?}");
        }
    }
}
