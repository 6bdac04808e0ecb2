//! The cookies of a request, read in one way by all who look at them (RFC 6265 §4.2.1), as bytes:
//! what one cookie holds never hides another one.
//!
//! A pair is what stands between semicolons, in any number of lines (HTTP/2 sends one line for
//! each, RFC 9113 §8.2.3). Its name ends at the first `=`; white space around name and value is no
//! part of them, quotes are part of the value. What has no `=` is no cookie. Names are compared
//! byte for byte.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// The values of all cookies called `name`, in order.
pub fn values<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| segments(line.as_bytes())).filter_map(pair);
    pairs.filter(move |(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
}

/// The names of all cookies, in order, as often as they stand there.
pub fn names(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| segments(line.as_bytes())).filter_map(pair);
    pairs.filter_map(|(name, _)| std::str::from_utf8(name).ok())
}

/// A cookie line without the pairs called `name`, the others byte for byte; nothing when none is
/// left.
pub fn without(line: &HeaderValue, name: &str) -> Option<HeaderValue> {
    let named = |segment: &&[u8]| pair(segment).is_some_and(|(key, _)| key == name.as_bytes());
    let segments = segments(line.as_bytes());
    if !segments.clone().any(|segment| named(&segment)) {
        return Some(line.clone());
    }
    let kept: Vec<&[u8]> = segments.filter(|segment| !named(segment)).collect();
    let kept = kept.join(&b';');
    let kept = kept.trim_ascii();
    if kept.is_empty() { None } else { HeaderValue::from_bytes(kept).ok() }
}

fn segments(line: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    line.split(|byte| *byte == b';')
}

/// Name and value of one `cookie-pair`.
fn pair(segment: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = segment.iter().position(|byte| *byte == b'=')?;
    let (name, value) = segment.split_at(equals);
    Some((name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: &[u8]) -> HeaderValue {
        HeaderValue::from_bytes(bytes).unwrap()
    }

    #[test]
    fn one_reading_of_odd_lines() {
        let cases: [(&[u8], &[&[u8]]); 12] = [
            (b"sid=s1", &[b"s1"]),
            (b"a=\xFC; sid=s1", &[b"s1"]),
            (b"a=\xC3\xBC; sid=s\xFC", &[b"s\xFC"]),
            (b" sid \t=\t s1 ;b", &[b"s1"]),
            (b"sid=\"s1\"", &[b"\"s1\""]),
            (b"sid=a=b", &[b"a=b"]),
            (b"sid=; sid=s1", &[b"", b"s1"]),
            (b"sid", &[]),
            (b"=sid; =", &[]),
            (b"Sid=s1; asid=s1", &[]),
            (b";;sid=s1;;", &[b"s1"]),
            (b"a=1, sid=s1", &[]),
        ];
        for (text, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.append(COOKIE, line(text));
            let found: Vec<&[u8]> = values(&headers, "sid").collect();
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(text));
            headers.append(COOKIE, line(b"sid=2"));
            assert_eq!(values(&headers, "sid").count(), expected.len() + 1);
        }
    }

    #[test]
    fn what_is_read_is_what_is_removed() {
        for (text, expected) in [
            (&b"a=\xFC; sid=s1; b=2"[..], Some(&b"a=\xFC; b=2"[..])),
            (b" sid =s1;sid=2", None),
            (b"sid; a=sid=1", Some(b"sid; a=sid=1")),
        ] {
            let left = without(&line(text), "sid");
            assert_eq!(left.as_ref().map(HeaderValue::as_bytes), expected);
            let mut headers = HeaderMap::new();
            headers.extend(left.map(|line| (COOKIE, line)));
            assert_eq!(values(&headers, "sid").count(), 0);
        }
    }
}
