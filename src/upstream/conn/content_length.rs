//! `Content-Length` of a response: one number, or none.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderName, StatusCode};

/// The lengths are not one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotOne;

/// Leaves one canonical number of what may be a list of equal ones (RFC 9110 §8.6), also where no
/// body is read and nobody has looked at it: in answers to HEAD, and in a 304. A 204 has none.
///
/// # Errors
/// [`NotOne`] when a part of it is no number, or the numbers differ.
pub(super) fn settle(status: StatusCode, headers: &mut HeaderMap) -> Result<(), NotOne> {
    const NAME: HeaderName = CONTENT_LENGTH;
    if !headers.contains_key(&NAME) {
        return Ok(());
    }
    if status == StatusCode::NO_CONTENT || headers.contains_key(TRANSFER_ENCODING) {
        // RFC 9112 §6.3: Transfer-Encoding overrides it.
        headers.remove(NAME);
        return Ok(());
    }
    let mut length = None;
    for line in headers.get_all(&NAME) {
        for part in line.as_bytes().split(|b| *b == b',') {
            let part = number(part.trim_ascii()).ok_or(NotOne)?;
            if *length.get_or_insert(part) != part {
                return Err(NotOne);
            }
        }
    }
    headers.insert(NAME, HeaderValue::from(length.ok_or(NotOne)?));
    Ok(())
}

/// Whether there is nothing to settle in this value: digits without a leading zero, few enough to
/// be a number.
pub(super) fn is_canonical(text: &[u8]) -> bool {
    (1..=19).contains(&text.len())
        && text.iter().all(u8::is_ascii_digit)
        && (text.len() == 1 || text.first() != Some(&b'0'))
}

/// Nothing but digits: no sign, no space, no empty element.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(status: u16, lines: &[&str]) -> Result<Vec<String>, NotOne> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_LENGTH, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        settle(StatusCode::from_u16(status).unwrap(), &mut headers)?;
        let all = headers.get_all(CONTENT_LENGTH).iter();
        Ok(all.map(|value| value.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn equal_numbers_become_one() {
        for lines in
            [&["5"][..], &["5, 5"], &["5,5"], &["5 ,\t5"], &["5", "5"], &["5", "5,5"], &["05"]]
        {
            for status in [200, 206, 304, 404] {
                assert_eq!(settled(status, lines).unwrap(), ["5"], "{lines:?}");
            }
            assert_eq!(settled(204, lines).unwrap(), [""; 0], "{lines:?}");
        }
        assert_eq!(settled(200, &["0"]).unwrap(), ["0"]);
        assert_eq!(settled(200, &[]).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_not_one_number_is_refused() {
        for lines in [
            &[""][..],
            &["+5"],
            &["-5"],
            &["5;"],
            &["0x5"],
            &["5 5"],
            &["5,"],
            &[",5"],
            &["5,,5"],
            &["5, 6"],
            &["5", "6"],
            &["5", ""],
            &["\u{665}"],
            &["18446744073709551616"],
            &["99999999999999999999999999"],
        ] {
            assert_eq!(settled(200, lines), Err(NotOne), "{lines:?}");
        }
    }
}
