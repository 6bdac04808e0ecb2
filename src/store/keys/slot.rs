//! The slot of a key in a Redis Cluster, and tags that lie in a wanted one.
//!
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>.

use std::sync::LazyLock;

/// How many slots there are.
pub(crate) const SLOTS: u16 = 16_384;

/// The slot of a key: CRC16 (XMODEM) of its hash tag, if it has one, or else of all of it. Each key
/// of each question to a Redis Cluster passes here, so a byte costs one look into a table.
pub(crate) fn slot(key: &[u8]) -> u16 {
    let crc = tag(key).unwrap_or(key).iter().fold(0u16, |crc, byte| {
        let [high, low] = crc.to_be_bytes();
        CRC16[usize::from(high ^ byte)] ^ (u16::from(low) << 8)
    });
    crc % SLOTS
}

/// What a byte adds to the checksum.
static CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The hash tag of a key: what stands between its first brace and the next closing one, unless that
/// is nothing.
pub(super) fn tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|byte| *byte == b'{')? + 1;
    let length = key.get(open..)?.iter().position(|byte| *byte == b'}')?;
    key.get(open..open + length).filter(|tag| !tag.is_empty())
}

/// A number for each slot that lies in it.
static NUMBERS: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let mut numbers = vec![None; usize::from(SLOTS)];
    let mut missing = numbers.len();
    for number in 0..u32::MAX {
        let place = &mut numbers[usize::from(slot(number.to_string().as_bytes()))];
        if place.is_none() {
            *place = Some(number);
            missing -= 1;
            if missing == 0 {
                break;
            }
        }
    }
    numbers.into_iter().flatten().collect()
});

/// A key that lies in this slot, and begins with `begin`, which holds no brace.
pub(crate) fn key_in(slot: u16, begin: &str) -> String {
    let number = NUMBERS.get(usize::from(slot)).copied().unwrap_or_default();
    format!("{begin}{{{number}}}")
}

/// A tag that lies where `key` does: the key itself, unless it holds what would end the tag before.
pub(super) fn tag_beside(key: &str) -> String {
    if key.contains('}') {
        let number = NUMBERS.get(usize::from(slot(key.as_bytes()))).copied().unwrap_or_default();
        format!("{{{number}}}{key}")
    } else {
        ["{", key, "}"].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        for (key, expected) in [
            ("123456789", 12_739),
            ("foo", 12_182),
            ("app:session:s1", 14_753),
            ("app:session-end:{app:session:s1}", 14_753),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
        assert_eq!(slot(b"a{foo}b{bar}"), slot(b"foo"));
        // An empty tag is none, and neither is one that does not end.
        for whole in [b"a{}b{foo}".as_slice(), b"a{foo", b"}a{", b""] {
            assert_eq!(tag(whole), None);
        }
    }

    #[test]
    fn every_slot_has_a_number() {
        assert_eq!(NUMBERS.len(), usize::from(SLOTS));
        for (expected, number) in NUMBERS.iter().enumerate() {
            assert_eq!(usize::from(slot(number.to_string().as_bytes())), expected);
            let expected = u16::try_from(expected).unwrap();
            assert_eq!(slot(key_in(expected, "app:a:").as_bytes()), expected);
        }
    }
}
