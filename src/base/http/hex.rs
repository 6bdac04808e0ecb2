//! Bytes in hexadecimal. What is written has lower-case digits; what is read may have either case,
//! and nothing beside digits.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Both digits of each byte: every request has ids to write, and one look is cheaper than two.
const PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

/// The digits of bytes.
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    push(&mut out, bytes);
    out
}

/// Appends the digits of bytes.
pub fn push(out: &mut String, bytes: &[u8]) {
    let mut digits = [0; 64];
    for bytes in bytes.chunks(digits.len() / 2) {
        write(&mut digits, bytes);
        // Digits are text.
        out.push_str(std::str::from_utf8(&digits[..2 * bytes.len()]).unwrap_or_default());
    }
}

/// Writes the digits of bytes over what is there, two for each byte, as far as both reach.
pub fn write(out: &mut [u8], bytes: &[u8]) {
    let (pairs, _) = out.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(bytes) {
        *pair = PAIRS[usize::from(*byte)];
    }
}

/// As many bytes as the digits spell exactly; nothing of another text.
pub fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = digits(*pair)?;
    }
    Some(bytes)
}

/// The byte that two digits spell.
pub fn digits([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        assert_eq!(encode(&[0, 0x1F, 0xAB, 0xFF]), "001fabff");
        let mut out = *b"------";
        write(&mut out, &[0xC0, 0x01]);
        assert_eq!(&out, b"c001--");
        assert_eq!(decode(b"001fABff"), Some([0, 0x1F, 0xAB, 0xFF]));
        for wrong in ["", "0", "001", "00000", "+f", " f", "0g", "0x"] {
            assert_eq!(decode::<1>(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
