//! Which tags were purged lately, so that a purge ends no fetch but those of its own tag.
//!
//! The tags of a response are known only when it is there. Whoever fetches it notes the clock of
//! tags first; when the response is to be kept, what was noted beside the clock tells which tags
//! were purged since. Each note holds the clock's value before its purge: a nonce, so that what was
//! lost or rolled back is not found, and nothing is kept then.
//!
//! The notes are one string, the newest at its end. Pure: both stores read and write it alike.

use aws_lc_rs::digest;

use super::Epoch;

/// Bytes of an epoch, and of the clock among them.
const CLOCK_BYTES: usize = 16;
/// Bytes that stand for a key: of its SHA-256, so that nobody can make one look like another.
const NAME_BYTES: usize = 8;
/// Bytes of one note: the clock before the purge, and the name of what was purged.
const NOTE_BYTES: usize = CLOCK_BYTES + NAME_BYTES;

/// Most bytes of notes that are looked at: 2,048 of them, more than a minute of 30 purges a second.
/// Twice as many may lie there, so that a purge seldom writes more than its own.
pub(crate) const NOTES_BYTES_MAX: usize = 2048 * NOTE_BYTES;

/// As many of them as are read at first: of as many purges as one fetch usually sees.
pub(crate) const NOTES_BYTES_USUAL: usize = 24 * NOTE_BYTES;

/// The names of these keys, one after the other.
pub(crate) fn names<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let sum = |key: &str| digest::digest(&digest::SHA256, key.as_bytes());
    let mut names = Vec::new();
    for key in keys {
        names.extend(sum(key).as_ref().iter().take(NAME_BYTES));
    }
    names
}

/// The notes of one purge: of the keys with these names, when the clock stood at `before`.
pub(crate) fn noted(before: Epoch, names: &[u8]) -> Vec<u8> {
    let mut notes = Vec::with_capacity(names.len() / NAME_BYTES * NOTE_BYTES);
    for name in names.chunks(NAME_BYTES) {
        notes.extend_from_slice(&before.to_bytes());
        notes.extend_from_slice(name);
    }
    notes
}

/// The notes with some more behind them, without the oldest where there are too many.
pub(crate) fn joined(notes: &[u8], more: &[u8]) -> Vec<u8> {
    let mut all = [notes, more].concat();
    if all.len() > 2 * NOTES_BYTES_MAX {
        all.drain(..all.len() - NOTES_BYTES_MAX);
    }
    all
}

/// Whether one of the keys with these names was purged since the clock stood at `since`. Nothing
/// where these notes, the newest ones of at most `asked` bytes, do not go back that far.
pub(crate) fn changed(notes: &[u8], asked: usize, since: Epoch, names: &[u8]) -> Option<bool> {
    // A clock that was not there may have been lost, more than once.
    if since == Epoch::default() {
        return None;
    }
    let is_all = notes.len() < asked;
    let (_, notes) = notes.as_rchunks::<NOTE_BYTES>();
    let mut is_found = false;
    for note in notes.iter().rev() {
        let (before, name) = note.split_at(CLOCK_BYTES);
        let is_first = before == since.to_bytes();
        if is_found && !is_first {
            return Some(false);
        }
        if names.chunks(NAME_BYTES).any(|own| own == name) {
            return Some(true);
        }
        is_found |= is_first;
    }
    // The oldest purge that is seen here may have been of more.
    (is_found && is_all).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(number: u8) -> Epoch {
        Epoch { hard: [number; 8], soft: [number; 8] }
    }

    /// The notes of purges, each of some keys, from the oldest to the newest: the clock stands at
    /// 1, 2, 3… before them.
    fn notes(purges: &[&[&str]]) -> Vec<u8> {
        let mut all = Vec::new();
        for (at, keys) in purges.iter().enumerate() {
            let before = clock(u8::try_from(at + 1).unwrap());
            all = joined(&all, &noted(before, &names(keys.iter().copied())));
        }
        all
    }

    #[test]
    fn only_a_purge_since_then_and_of_that_key_counts() {
        let notes = notes(&[&["a"], &["b", "c"], &["d"]]);
        let changed = |since, key| changed(&notes, NOTES_BYTES_MAX, clock(since), &names([key]));
        for (since, key, expected) in [
            (1, "a", Some(true)),
            (2, "a", Some(false)),
            (2, "b", Some(true)),
            (2, "c", Some(true)),
            (3, "c", Some(false)),
            (3, "d", Some(true)),
            (1, "x", Some(false)),
            // It stood so after the last purge; or it was lost, or is of long ago.
            (4, "x", None),
            (9, "x", None),
        ] {
            assert_eq!(changed(since, key), expected, "{since} {key}");
        }
    }

    #[test]
    fn any_of_several_counts_and_what_is_not_there_is_not_guessed_at() {
        let some = notes(&[&["a"], &["b", "c"]]);
        let all = NOTES_BYTES_MAX;
        assert_eq!(changed(&some, all, clock(1), &names(["x", "c"])), Some(true));
        assert_eq!(changed(&some, all, Epoch::default(), &names(["x"])), None);
        assert_eq!(changed(b"", all, clock(1), &names(["x"])), None);
        assert_eq!(changed(b"garbage", all, clock(1), &names(["x"])), None);
        let behind_garbage = [b"garbage", &*some].concat();
        assert_eq!(changed(&behind_garbage, all, clock(2), &names(["x"])), Some(false));
        assert_eq!(changed(&behind_garbage, all, clock(1), &names(["a"])), Some(true));
    }

    #[test]
    fn the_notes_are_bounded_and_what_fell_off_is_not_guessed_at() {
        let mut all = Vec::new();
        let number = |at: usize| Epoch { hard: (at as u64).to_le_bytes(), soft: [1; 8] };
        for at in 0..5000 {
            all = joined(&all, &noted(number(at), &names([at.to_string().as_str()])));
            assert!(all.len() <= 2 * NOTES_BYTES_MAX);
        }
        let newest = &all[all.len() - NOTES_BYTES_MAX..];
        let known = |at: usize| changed(newest, NOTES_BYTES_MAX, number(at), &names(["x"]));
        assert_eq!((known(4999), known(5000 - 2047)), (Some(false), Some(false)));
        assert_eq!((known(5000 - 2048), known(0)), (None, None));
        let own = changed(newest, NOTES_BYTES_MAX, number(4990), &names(["4995"]));
        assert_eq!(own, Some(true));
    }

    #[test]
    fn a_part_of_the_notes_tells_as_much_as_it_holds() {
        let notes = notes(&[&["a"], &["b", "c"], &["d"]]);
        let newest = |count: usize, since, key| {
            let bytes = count * NOTE_BYTES;
            changed(&notes[notes.len() - bytes..], bytes, clock(since), &names([key]))
        };
        assert_eq!(newest(1, 2, "x"), None);
        assert_eq!(newest(1, 3, "x"), None, "that purge may have been of more");
        assert_eq!(newest(2, 2, "b"), None, "and so it was");
        assert_eq!(newest(2, 3, "x"), Some(false));
        assert_eq!(newest(4, 2, "x"), Some(false));
        assert_eq!(newest(1, 2, "d"), Some(true));
    }
}
