//! Percent-encoding (RFC 3986 §2.1). What is written has upper-case digits; what is read may have
//! either case.

use std::borrow::Cow;

use super::hex;

/// Appends the escape of one byte.
pub fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Everything but unreserved characters (RFC 3986 §2.3) escaped.
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 8);
    for &byte in bytes {
        if is_unreserved(byte) { out.push(char::from(byte)) } else { push_escape(&mut out, byte) }
    }
    out
}

/// Whether a byte stands for itself wherever it is (RFC 3986 §2.3).
pub fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The byte of the escape that a text begins with.
pub fn escape(text: &[u8]) -> Option<u8> {
    match text {
        [b'%', high, low, ..] => hex::digits([*high, *low]),
        _ => None,
    }
}

/// The bytes that a text stands for; a percent sign that begins no escape stands for itself.
pub fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = match escape(rest) {
            Some(escaped) => (escaped, rest.get(3..).unwrap_or_default()),
            None => (byte, after),
        };
        out.push(byte);
        rest = after;
    }
    Cow::Owned(out)
}

/// The same of a text in which every percent sign must begin an escape; nothing of another one.
pub fn decode_strictly(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let signs = text.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    let is_whole = |(at, _): (usize, &u8)| text.get(at..).is_some_and(|it| escape(it).is_some());
    signs.into_iter().all(is_whole).then(|| decode(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_in_either_case_and_written_in_upper_case() {
        assert_eq!(encode("a-._~ /é%".as_bytes()), "a-._~%20%2F%C3%A9%25");
        for (text, lax, is_strict) in [
            ("", "", true),
            ("a+b", "a+b", true),
            ("%2f%2F%41", "//A", true),
            ("%2541", "%41", true),
            ("%", "%", false),
            ("%4", "%4", false),
            ("%4g%41", "%4gA", false),
            ("%+1", "%+1", false),
        ] {
            assert_eq!(*decode(text.as_bytes()), *lax.as_bytes(), "{text}");
            let strict = decode_strictly(text.as_bytes());
            assert_eq!(strict.as_deref(), is_strict.then_some(lax.as_bytes()), "{text}");
        }
    }
}
