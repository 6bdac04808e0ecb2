//! Ids of deliveries.

use std::fmt;

/// Characters of an id: Crockford's base 32 in lower case.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Length of an id in characters of 5 bits.
const ID_CHARACTERS: usize = 26;

/// The id of a delivery: 8 bits of its shard, 48 of the Unix ms when it was made, and 74 random
/// ones, so that nobody guesses it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId([u8; ID_CHARACTERS]);

impl DeliveryId {
    /// A new id; nothing where the system has no random bytes.
    pub fn new(shard: u8, unix_ms: u64) -> Option<Self> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).ok()?;
        let random = u128::from_be_bytes(random) >> (128 - 74);
        // 130 bits do not fit into one number: the last 25 characters hold 125 of them.
        let ms = u128::from(unix_ms & 0xFFFF_FFFF_FFFF);
        let low = (u128::from(shard & 0b111) << 122) | (ms << 74) | random;
        let mut text = [0; ID_CHARACTERS];
        for (place, byte) in text.iter_mut().rev().enumerate() {
            let five = match place {
                25 => usize::from(shard >> 3),
                _ => usize::try_from((low >> (5 * place)) & 31).unwrap_or_default(),
            };
            *byte = ALPHABET.get(five).copied().unwrap_or(b'0');
        }
        Some(Self(text))
    }

    /// An id as it was written; nothing for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; ID_CHARACTERS] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|byte| ALPHABET.contains(byte)).then_some(Self(bytes))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Unix ms when it was made, on the clock of whoever made it.
    pub fn unix_ms(&self) -> u64 {
        // The first 12 characters: 8 bits of the shard, 48 of the time, 4 random ones.
        let bits = self.0.iter().take(12).fold(0u64, |bits, byte| {
            let five = ALPHABET.iter().position(|it| it == byte).unwrap_or_default();
            (bits << 5) | u64::try_from(five).unwrap_or_default()
        });
        (bits >> 4) & 0xFFFF_FFFF_FFFF
    }

    /// The shard it lies in.
    pub fn shard(&self) -> u8 {
        let five = |at: usize| {
            let byte = self.0.get(at).copied().unwrap_or_default();
            ALPHABET.iter().position(|it| *it == byte).and_then(|it| u8::try_from(it).ok())
        };
        (five(0).unwrap_or_default() << 3) | (five(1).unwrap_or_default() >> 2)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_shard_and_grows_with_time() {
        for shard in [0, 1, 7, 8, 31, 32, 200, 255] {
            let early = DeliveryId::new(shard, 1).expect("random bytes");
            let late = DeliveryId::new(shard, 1 << 47).expect("random bytes");
            assert_eq!((early.shard(), late.shard()), (shard, shard));
            assert!(early < late);
            assert_eq!((early.unix_ms(), late.unix_ms()), (1, 1 << 47));
            assert_eq!(DeliveryId::parse(early.as_str()), Some(early));
        }
        assert_ne!(DeliveryId::new(0, 5), DeliveryId::new(0, 5));
    }

    #[test]
    fn an_id_is_26_characters_of_its_alphabet() {
        let good = "0".repeat(26);
        assert!(DeliveryId::parse(&good).is_some());
        for bad in ["", &good[1..], &format!("{good}0"), &format!("{}u", &good[1..])] {
            assert_eq!(DeliveryId::parse(bad), None, "{bad}");
        }
        assert_eq!(DeliveryId::parse(&"Z".repeat(26)), None);
    }
}
