//! What the store keeps of cached responses: variants of one entry, and epochs, the nonces under
//! which they are valid.
//!
//! Nothing here knows what a response is: a variant is a name and bytes. What both stores must do
//! alike is written here once.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::StoreError;

/// How long an epoch outlives its last change: longer than any entry ([`ENTRY_TTL_MAX`]), so that
/// an epoch that expired cannot revive an older response.
pub const EPOCH_TTL: Duration = Duration::from_secs(8 * 24 * 3600);

/// Longest life of a variant or of a part of a body, whatever was asked for.
pub const ENTRY_TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Most variants of one entry; one more takes the place of another one, chosen at random.
pub const VARIANTS_MAX: usize = 64;

/// Most sets of field names that one entry remembers.
pub const VARY_SETS_MAX: usize = 4;

/// Field of an entry that holds the sets of field names; no variant has this name.
pub const VARY: &str = "vary";

/// Bytes of an epoch's value: the hard half and the soft half.
const EPOCH_BYTES: usize = 16;

/// As many epochs as a response is usually subject to.
const EPOCHS_USUAL: usize = 8;

/// Bytes before a variant's value: when its own life ends, in Unix milliseconds of the store's
/// clock, little-endian.
const DEADLINE_BYTES: usize = 8;

/// The nonces of one scope. A scope that was never purged has zeros.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Changes when what is stored must not be used any more.
    pub hard: [u8; 8],
    /// Changes also when it is only to be confirmed with the origin first.
    pub soft: [u8; 8],
}

impl Epoch {
    /// The epoch that no other one equals, but for one chance in 2^128.
    pub(crate) fn fresh() -> Result<Self, StoreError> {
        Ok(Self { hard: nonce()?, soft: nonce()? })
    }

    /// The epoch as the store has it. A value that is none (an application's own) reads as one that
    /// equals no other, so that nothing is valid under it.
    pub(crate) fn read(value: Option<&[u8]>) -> Self {
        match value {
            None => Self::default(),
            Some(value) => Self::parse(value).or_else(|| Self::fresh().ok()).unwrap_or(Self {
                // Without a random source nothing better is at hand; no purge writes this.
                hard: [0xFF; 8],
                soft: [0xFF; 8],
            }),
        }
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (hard, soft) = value.split_first_chunk::<8>()?;
        Some(Self { hard: *hard, soft: soft.try_into().ok()? })
    }

    /// Whether a value is an epoch.
    pub(crate) fn is_one(value: &[u8]) -> bool {
        value.len() == EPOCH_BYTES
    }

    pub(crate) fn of_bits(bits: u128) -> Self {
        let bytes = bits.to_le_bytes();
        let (mut hard, mut soft) = ([0; 8], [0; 8]);
        hard.copy_from_slice(&bytes[..8]);
        soft.copy_from_slice(&bytes[8..]);
        Self { hard, soft }
    }

    pub(crate) fn to_bits(self) -> u128 {
        u128::from_le_bytes(self.to_bytes())
    }

    /// The value that the store keeps.
    pub(crate) fn to_bytes(self) -> [u8; EPOCH_BYTES] {
        let mut bytes = [0; EPOCH_BYTES];
        let (hard, soft) = bytes.split_at_mut(8);
        hard.copy_from_slice(&self.hard);
        soft.copy_from_slice(&self.soft);
        bytes
    }
}

/// The hard halves one after the other: equal bytes mean that nothing was purged.
pub fn hard_halves<'a>(epochs: impl IntoIterator<Item = &'a Epoch>) -> Bytes {
    halves(epochs, |epoch| epoch.hard)
}

/// The soft halves one after the other: equal bytes mean that nothing was purged, even softly.
pub fn soft_halves<'a>(epochs: impl IntoIterator<Item = &'a Epoch>) -> Bytes {
    halves(epochs, |epoch| epoch.soft)
}

fn halves<'a>(epochs: impl IntoIterator<Item = &'a Epoch>, half: fn(&Epoch) -> [u8; 8]) -> Bytes {
    let mut halves = Vec::with_capacity(8 * EPOCHS_USUAL);
    epochs.into_iter().for_each(|epoch| halves.extend_from_slice(&half(epoch)));
    halves.into()
}

/// An epoch to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// Its key.
    pub key: String,
    /// Whether what is stored under it may still be used once the origin confirmed it, or where a
    /// stale response may be served.
    pub soft: bool,
}

impl Purge {
    /// A purge after which nothing stored under `key` is used.
    pub fn hard(key: String) -> Self {
        Self { key, soft: false }
    }
}

/// An epoch that was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochChange {
    /// Its key.
    pub key: String,
    /// What it was before; of the clock of tags, nothing is said.
    pub before: Epoch,
    /// What it is now.
    pub now: Epoch,
}

/// The keys that are purged beside `key`.
pub(crate) fn others<'a>(purges: &'a [Purge], key: &'a str) -> impl Iterator<Item = &'a str> {
    purges.iter().map(|purge| &*purge.key).filter(move |other| *other != key)
}

/// One variant of a response, to keep.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key that all variants share.
    pub key: String,
    /// The variant's name, opaque here; never [`VARY`].
    pub variant: String,
    /// The names of the request fields that chose it, lower-case, sorted, joined by commas.
    pub vary: String,
    /// The encoded response.
    pub value: Bytes,
    /// How long it is worth keeping; [`ENTRY_TTL_MAX`] at most.
    pub ttl: Duration,
    /// The epoch key of its path.
    pub path_epoch_key: String,
    /// That epoch as it was read before the fetch, byte for byte.
    pub path_epoch: Bytes,
    /// The lock under which it was fetched. Without one, nobody's lock is in the way.
    pub lock: Option<HeldLock>,
}

/// A lock that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLock {
    /// Its key.
    pub key: String,
    /// What tells its holder from others.
    pub token: String,
}

/// A lock to take before an entry is looked at.
#[derive(Debug, Clone, Copy)]
pub struct WantedLock<'a> {
    /// The lock.
    pub lock: &'a HeldLock,
    /// For how long.
    pub ttl: Duration,
}

/// What became of a response that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// It is there, and the caller's lock is released.
    Stored,
    /// Its path was purged since the fetch began.
    Outdated,
    /// Somebody else holds the lock: the caller's lease ended before its fetch did.
    Overtaken,
}

/// The life of a variant or a chunk as the store takes it.
pub(crate) fn life(ttl: Duration) -> Duration {
    ttl.min(ENTRY_TTL_MAX)
}

/// A variant's value behind the end of its life.
pub(crate) fn with_deadline(value: &[u8], deadline_ms: u64) -> Bytes {
    let mut framed = BytesMut::with_capacity(DEADLINE_BYTES + value.len());
    framed.extend_from_slice(&deadline_ms.to_le_bytes());
    framed.extend_from_slice(value);
    framed.freeze()
}

/// The value of a variant whose life is not over.
pub(crate) fn living(mut framed: Bytes, now_ms: u64) -> Option<Bytes> {
    let deadline_ms = u64::from_le_bytes(*framed.first_chunk()?);
    (now_ms < deadline_ms).then(|| framed.split_off(DEADLINE_BYTES))
}

/// The sets of field names with this one in front.
pub(crate) fn vary_sets(known: Option<&[u8]>, set: &str) -> Vec<u8> {
    let mut sets = set.as_bytes().to_vec();
    let others = known.into_iter().flat_map(|known| known.split(|byte| *byte == b'\n'));
    for other in others.filter(|other| *other != set.as_bytes()).take(VARY_SETS_MAX - 1) {
        sets.push(b'\n');
        sets.extend_from_slice(other);
    }
    sets
}

/// A nonce that no earlier epoch had.
pub(crate) fn nonce() -> Result<[u8; 8], StoreError> {
    let mut bytes = [0u8; 8];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| StoreError::Refused("the system's random source failed".to_owned()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_what_was_written_and_nothing_else_equals_one() {
        let epoch = Epoch::fresh().unwrap();
        assert_eq!(Epoch::read(Some(&epoch.to_bytes())), epoch);
        assert_eq!(Epoch::read(None), Epoch::default());
        for value in [&b""[..], b"short", &[0; 15], &[0; 17], &[0; 1000]] {
            let read = Epoch::read(Some(value));
            assert!(!Epoch::is_one(value) && read != Epoch::default(), "{value:?}");
            assert_ne!(read, Epoch::read(Some(value)), "it equals nothing, not even itself");
        }
    }

    #[test]
    fn halves_are_told_apart() {
        let mut epochs = [Epoch::default(); 3];
        let (hard, soft) = (hard_halves(&epochs), soft_halves(&epochs));
        assert_eq!((hard.len(), soft.len()), (24, 24));
        epochs[1].soft = [1; 8];
        assert_eq!(hard_halves(&epochs), hard);
        assert_ne!(soft_halves(&epochs), soft);
        epochs[1].hard = [1; 8];
        assert_ne!(hard_halves(&epochs), hard);
    }

    #[test]
    fn a_variant_ends_with_its_own_life_and_garbage_is_none() {
        let framed = with_deadline(b"value", 1000);
        assert_eq!(living(framed.clone(), 999).as_deref(), Some(&b"value"[..]));
        assert_eq!(living(framed, 1000), None);
        assert_eq!(living(Bytes::from_static(b"short"), 0), None);
        assert_eq!(living(with_deadline(b"", 1), 0).as_deref(), Some(&b""[..]));
    }

    #[test]
    fn the_newest_set_stands_first_and_four_are_kept() {
        let mut sets = vary_sets(None, "");
        assert_eq!(sets, b"", "the empty set is the empty line");
        for (set, expected) in [
            ("", ""),
            ("a", "a\n"),
            ("b,c", "b,c\na\n"),
            ("a", "a\nb,c\n"),
            ("", "\na\nb,c"),
            ("d", "d\n\na\nb,c"),
            ("e", "e\nd\n\na"),
        ] {
            sets = vary_sets(Some(&sets), set);
            assert_eq!(sets, expected.as_bytes(), "after {set:?}");
        }
    }
}
