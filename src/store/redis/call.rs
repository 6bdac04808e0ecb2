//! Commands as they are sent: those of the cache, which a question and the cache's own exchanges
//! share. It must not know connections.

use std::time::Duration;

use redis::Cmd;

use super::millis;
use crate::store::cached::{nonce, others};
use crate::store::keys::Keys;
use crate::store::purged::{self, NOTES_BYTES_MAX as MOST};
use crate::store::{ClaimKey, EPOCH_TTL, Epoch, HeldLock, Purge, StoreError, VARY, WantedLock};

/// How long what is written for a wait lives, in milliseconds.
const WRITTEN_TTL_MS: u32 = 5000;

/// A command with room for a few keys and numbers, so that its arguments are written without
/// growing it step by step. A request has several at a time: each kilobyte of theirs costs the
/// allocator.
pub(super) fn start(verb: &str) -> Cmd {
    with_room(verb, 8, 256)
}

/// The call of a script, which is told more. It is found by its digest.
pub(super) fn start_script(sha: &str) -> Cmd {
    let mut command = with_room("EVALSHA", 16, 512);
    command.arg(sha);
    command
}

/// A command with room for so many bytes more.
pub(super) fn start_with(verb: &str, more: usize) -> Cmd {
    with_room(verb, 16, 512 + more)
}

fn with_room(verb: &str, arguments: usize, bytes: usize) -> Cmd {
    let mut command = Cmd::with_capacity(arguments, bytes);
    command.arg(verb);
    command
}

/// The write that a wait for replicas or the disk is about (see `confirm`), of a key that lies
/// where the wait is.
pub(super) fn written(key: &str) -> Cmd {
    let mut write = start("SET");
    write.arg(key).arg(1).arg("PX").arg(WRITTEN_TTL_MS);
    write
}

/// The commands that change epochs for good and say what was there before, but for the clock of
/// tags; with what each writes.
pub(super) fn exchanges(keys: &[String]) -> Result<Vec<(Cmd, Epoch)>, StoreError> {
    let purges: Vec<Purge> = keys.iter().cloned().map(Purge::hard).collect();
    let change = |key: &String| {
        let epoch = Epoch::fresh()?;
        let command = if let Some(notes) = Keys::tags_purged(key) {
            move_clock(key, &notes, &purged::names(others(&purges, key)), epoch)
        } else {
            let mut command = set_epoch(key, epoch);
            command.arg("GET");
            command
        };
        Ok((command, epoch))
    };
    keys.iter().map(change).collect()
}

/// The commands that change epochs.
pub(super) fn changes(purges: &[Purge]) -> Result<Vec<Cmd>, StoreError> {
    let change = |Purge { key, soft }: &Purge| {
        Ok(if let Some(notes) = Keys::tags_purged(key) {
            let names = purged::names(others(purges, key));
            move_clock(key, &notes, &names, Epoch::fresh()?)
        } else if *soft {
            soften(key, nonce()?, Epoch::fresh()?)
        } else {
            set_epoch(key, Epoch::fresh()?)
        })
    };
    purges.iter().map(change).collect()
}

/// The command that moves the clock of tags and notes what for. The script travels with the call,
/// as that of [`soften`] does.
fn move_clock(clock: &str, notes: &str, names: &[u8], epoch: Epoch) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(include_str!("../scripts/tagged.lua")).arg(2).arg(clock).arg(notes);
    command.arg(&epoch.to_bytes()[..]).arg(millis(EPOCH_TTL)).arg(names);
    command.arg(MOST);
    command
}

/// The command that reads so many bytes of notes of purges, the newest ones.
pub(super) fn notes_call(notes: &str, bytes: usize) -> Cmd {
    let mut command = start("GETRANGE");
    command.arg(notes).arg(-i64::try_from(bytes).unwrap_or(i64::MAX)).arg(-1);
    command
}

/// The command that writes an epoch.
pub(super) fn set_epoch(key: &str, epoch: Epoch) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(&epoch.to_bytes()[..]).arg("PX").arg(millis(EPOCH_TTL));
    command
}

/// The command that changes the soft half of an epoch; `whole` stands in for what is none. The
/// script travels with the call: it is rare, and a transaction cannot repeat it.
fn soften(key: &str, soft: [u8; 8], whole: Epoch) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(include_str!("../scripts/soften.lua")).arg(1).arg(key);
    command.arg(&soft[..]).arg(millis(EPOCH_TTL)).arg(&whole.to_bytes()[..]);
    command
}

pub(super) fn lock_call(lock: &HeldLock, ttl: Duration) -> Cmd {
    let mut command = start("SET");
    command.arg(&lock.key).arg(&lock.token).arg("NX").arg("PX").arg(millis(ttl));
    command
}

/// The command that takes a lock, and says who has it if somebody does.
pub(super) fn take_call(WantedLock { lock, ttl }: WantedLock<'_>) -> Cmd {
    let mut command = lock_call(lock, ttl);
    command.arg("GET");
    command
}

/// The command that claims an idempotency key, and says what it holds if it holds something.
pub(super) fn claim_call(ClaimKey { key, value, ttl }: ClaimKey<'_>) -> Cmd {
    let mut command = start_with("SET", value.len());
    command.arg(key).arg(value).arg("NX").arg("PX").arg(millis(ttl)).arg("GET");
    command
}

/// The command that reads variants of an entry.
pub(super) fn variants_call(key: &str, variants: &[String]) -> Cmd {
    let mut command = start("HMGET");
    command.arg(key).arg(VARY).arg(variants);
    command
}
