//! What queues keep must come back in one reply of their store.

use crate::config::{Config, Problems, Queue, StoreUrl, StoreUse};

/// What lies around a body in a reply, and in what is kept of it, at most, in bytes.
const AROUND_BYTES: u64 = 64 * 1024;

/// Bodies and answers that could be written and never be read again.
pub(super) fn check(config: &Config, (name, queue): (&str, &Queue), problems: &mut Problems) {
    let store = config.store.used_for(StoreUse::Queue);
    if store.url == StoreUrl::Memory {
        return;
    }
    let table = store.usage.table();
    for (key, bytes) in [("max_body", queue.max_body), ("keep_response", queue.keep_response)] {
        if bytes.saturating_add(AROUND_BYTES) > store.reply_bytes {
            let what = format!(
                "could not be read again: with its head it is longer than {table}.reply_bytes"
            );
            let remedy = format!(
                "write a {key} that is at least 64KiB below {table}.reply_bytes, or a larger \
                 {table}.reply_bytes"
            );
            problems.push(format!("queues.{name}.{key}"), what, remedy);
        }
    }
}
