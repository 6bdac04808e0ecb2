//! Whether a text is an object of JSON of the plainest kind, in a fraction of what it takes to read
//! any kind: sessions mostly are, and each request with one asks. What is not known to be one here
//! is read as JSON; so this may say no of what is an object, and never yes of what is none.

/// Bytes that stand in a plain string as they are: visible ASCII and blanks, without the quote and
/// the backslash.
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        table[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    table
};

/// Most digits of a number, which any reader can hold.
const DIGITS_MAX: usize = 15;

/// True of an object (RFC 8259 §4) whose names are plain strings, and whose values are such
/// strings, whole numbers, true, false or null.
pub(super) fn is_object(text: &[u8]) -> bool {
    match text.strip_prefix(b"{") {
        Some(members) => members_end(members).is_some_and(|rest| blank(rest).is_empty()),
        None => false,
    }
}

/// What follows the brace behind the members.
fn members_end(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = string(blank(text))?;
        text = blank(text).strip_prefix(b":")?;
        text = blank(value(blank(text))?);
        match text.split_first()? {
            (b',', rest) => text = rest,
            (b'}', rest) => return Some(rest),
            _ => return None,
        }
    }
}

fn value(text: &[u8]) -> Option<&[u8]> {
    let rest = |word: &[u8]| text.strip_prefix(word);
    match text.first()? {
        b'"' => string(text),
        b't' => rest(b"true"),
        b'f' => rest(b"false"),
        b'n' => rest(b"null"),
        _ => number(text),
    }
}

/// What is behind a string that begins here.
fn string(text: &[u8]) -> Option<&[u8]> {
    let text = text.strip_prefix(b"\"")?;
    let length = text.iter().position(|byte| !PLAIN[usize::from(*byte)])?;
    text.get(length..)?.strip_prefix(b"\"")
}

/// What is behind a whole number that begins here. A fraction or an exponent is left to others.
fn number(text: &[u8]) -> Option<&[u8]> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let has_zero_ahead = length > 1 && digits.first() == Some(&b'0');
    if length == 0 || length > DIGITS_MAX || has_zero_ahead { None } else { digits.get(length..) }
}

/// The text without the whitespace that it begins with (RFC 8259 §2).
fn blank(text: &[u8]) -> &[u8] {
    let length =
        text.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    text.get(length..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::is_object;

    /// What the check stands in for.
    fn is_json_object(text: &[u8]) -> bool {
        serde_json::from_slice::<&RawValue>(text).is_ok_and(|raw| raw.get().starts_with('{'))
    }

    #[test]
    fn sessions_as_applications_write_them_are_plain() {
        for text in [
            r#"{"userId": "42", "email": "a@example.com", "role": "user"}"#,
            r#"{"n":-7,"zero":0,"yes":true,"no":false,"none":null,"":""}"#,
            "{ \t\n\r\"a\" : 999999999999999 , \"b\" : \"\" } \n",
        ] {
            assert!(is_object(text.as_bytes()) && is_json_object(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_to_be_one_is_left_to_the_reader() {
        for text in [
            "",
            "{",
            "{}",
            "[]",
            "null",
            "\"a\"",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,\"a\":1}",
            "{\"a\":1}}",
            "{\"a\":1} x",
            " {\"a\":1}",
            "{\"a\":01}",
            "{\"a\":-}",
            "{\"a\":+1}",
            "{\"a\":1.5}",
            "{\"a\":1e3}",
            "{\"a\":.5}",
            "{\"a\":tru}",
            "{\"a\":truex}",
            "{\"a\":nul}",
            "{\"a\":[1]}",
            "{\"a\":{}}",
            "{'a':1}",
            "{a:1}",
            "{\"a\" 1}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":\"\\n\"}",
            "{\"a\":\"\u{7f}\"}",
            "{\"a\":\"é\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":1000000000000000}",
            "{\"a\":1\u{b}}",
            "{\"a\":\"b}",
            "{\"a\":1\u{feff}}",
        ] {
            assert!(!is_object(text.as_bytes()), "{text}");
        }
        assert!(!is_object(b"{\"a\":\"\xff\"}"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn nothing_passes_that_is_no_object(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "{", "}", "\"", "a", ":", ",", " ", "0", "1", "-", ".", "e", "true", "null",
                    "\\", "[", "]", "\t", "\n", "\u{b}", "\"a\":", "\"b\":1", "{\"a\":", "é",
                ]),
                0..12,
            ),
        ) {
            let text = parts.concat();
            prop_assert!(!is_object(text.as_bytes()) || is_json_object(text.as_bytes()), "{text}");
        }

        #[test]
        fn one_odd_byte_deceives_nobody(at in 0..58_usize, byte: u8) {
            let mut text =
                br#"{"userId": "42", "n": -17, "ok": true, "none": null, "z":0}"#.to_vec();
            text[at] = byte;
            prop_assert!(!is_object(&text) || is_json_object(&text), "{text:?}");
        }
    }
}
