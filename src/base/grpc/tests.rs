//! What passes, and what texts become.

use super::*;

fn fields(written: &[(&'static str, &'static str)]) -> HeaderMap {
    let parse = |(name, value): &(&'static str, &'static str)| {
        (http::HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    written.iter().map(parse).collect()
}

#[test]
fn a_call_says_what_it_is_by_its_type() {
    for (value, expected) in [
        ("application/grpc", true),
        ("Application/gRPC+proto", true),
        ("application/grpc;charset=utf-8", true),
        ("application/grpc-web", false),
        ("application/grpc-web-text+proto", false),
        ("application/grp", false),
        ("text/html", false),
    ] {
        assert_eq!(is_grpc(&fields(&[("content-type", value)])), expected, "{value}");
    }
    assert!(!is_grpc(&HeaderMap::new()));
}

#[test]
fn metadata_passes_and_what_frames_does_not() {
    let mut trailers = fields(&[
        ("grpc-status", "0"),
        ("x-cost", "7"),
        ("details-bin", "AAE="),
        ("transfer-encoding", "chunked"),
        ("content-length", "5"),
        ("set-cookie", "a=b"),
        ("connection", "x-cost"),
        ("host", "evil"),
    ]);
    keep_metadata(&mut trailers);
    assert_eq!(trailers, fields(&[("grpc-status", "0"), ("x-cost", "7"), ("details-bin", "AAE=")]));
}

#[test]
fn messages_are_percent_encoded() {
    for (text, encoded) in [
        ("plain text", "plain text"),
        ("50%", "50%25"),
        ("a\nb\u{7f}", "a%0Ab%7F"),
        ("é", "%C3%A9"),
    ] {
        assert_eq!(encode_message(text), encoded);
    }
}

#[test]
fn messages_are_bounded_however_they_come() {
    let frame = |length: usize| {
        let prefix = u32::try_from(length).unwrap().to_be_bytes();
        [&[0][..], &prefix, &vec![7; length]].concat()
    };
    let fine = [frame(3), frame(0), frame(300)].concat();
    let long = [fine.clone(), frame(301)].concat();
    for at in 0..fine.len() {
        let mut messages = Messages::new(300);
        assert_eq!(messages.read(&fine[..at]), Ok(()), "{at}");
        assert_eq!(messages.read(&fine[at..]), Ok(()), "{at}");
        let mut messages = Messages::new(300);
        let read = messages.read(&long[..at]).and_then(|()| messages.read(&long[at..]));
        assert_eq!(read, Err(MessageTooLarge), "{at}");
    }
    let mut messages = Messages::new(300);
    assert!(fine.iter().all(|byte| messages.read(&[*byte]).is_ok()));
    assert_eq!(Messages::new(300).read(&[0, 255, 255, 255, 255]), Err(MessageTooLarge));
}

#[test]
fn timeouts_are_read_and_written() {
    let read = |text| parse_timeout(&HeaderValue::from_static(text));
    for (text, expected) in [
        ("1H", Duration::from_secs(3600)),
        ("2M", Duration::from_secs(120)),
        ("3S", Duration::from_secs(3)),
        ("45m", Duration::from_millis(45)),
        ("99999999u", Duration::from_micros(99_999_999)),
        ("7n", Duration::from_nanos(7)),
        ("0S", Duration::ZERO),
        ("99999999H", LONGEST),
    ] {
        assert_eq!(read(text), Some(expected), "{text}");
    }
    for text in ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", "1 S", "+1S"] {
        assert_eq!(read(text), None, "{text}");
    }
    for (left, expected) in [
        (Duration::ZERO, "1m"),
        (Duration::from_micros(1999), "1m"),
        (Duration::from_millis(99_999_999), "99999999m"),
        (Duration::from_millis(100_000_999), "100000S"),
        (LONGEST, "31536000S"),
    ] {
        assert_eq!(write_timeout(left), expected);
    }
}
