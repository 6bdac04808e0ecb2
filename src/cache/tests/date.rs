//! Dates: the three forms, and nothing that only looks like them.

use super::super::date::{header, parse};
use proptest::prelude::*;

/// 1994-11-06T08:49:37Z.
const THEN: u64 = 784_111_777;
/// 2026-01-01T00:00:00Z.
const NOW: u64 = 1_767_225_600;

fn at(text: &str) -> Option<u64> {
    parse(text.as_bytes(), NOW)
}

#[test]
fn three_forms_are_read_in_any_case() {
    let cases = [
        ("Sun, 06 Nov 1994 08:49:37 GMT", THEN),
        ("sUN, 06 nOV 1994 08:49:37 gmt", THEN),
        ("Sunday, 06-Nov-94 08:49:37 GMT", THEN),
        ("SUNDAY, 06-NOV-94 08:49:37 gmt", THEN),
        ("Sun Nov  6 08:49:37 1994", THEN),
        ("Sun Nov 06 08:49:37 1994", THEN),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Mon, 01 Jan 1900 00:00:00 GMT", 0),
        ("Thu, 29 Feb 2024 23:59:60 GMT", 1_709_251_200),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        ("Sat, 01 Mar 2000 00:00:00 GMT", 951_868_800),
    ];
    for (text, expected) in cases {
        assert_eq!(at(text), Some(expected), "{text}");
    }
}

#[test]
fn the_century_that_is_not_written_is_at_most_fifty_years_ahead() {
    let year = |text: &str, now| {
        let seconds = parse(format!("Monday, 01-Jan-{text} 00:00:00 GMT").as_bytes(), now)?;
        Some(1970 + seconds / 31_556_952 + u64::from(seconds % 31_556_952 > 31_000_000))
    };
    for (text, now, expected) in [
        ("26", NOW, 2026),
        ("75", NOW, 2075),
        ("77", NOW, 1977),
        ("99", NOW, 1999),
        ("00", NOW, 2000),
        ("94", 0, 1994),
        ("70", 0, 1970),
    ] {
        assert_eq!(year(text, now), Some(expected), "{text} at {now}");
    }
    assert!(year("50", u64::MAX).is_some());
}

#[test]
fn what_is_nearly_a_date_is_none() {
    for text in [
        "",
        "0",
        "-1",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 AEST",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06  Nov 1994 08:49:37 GMT",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 08.49.37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Wed, 29 Feb 2023 00:00:00 GMT",
        "Wed, 29 Feb 1900 00:00:00 GMT",
        "Son, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nvo 1994 08:49:37 GMT",
        "Sun, +6 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sunday, 06 Nov 94 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 1994 GMT",
        "Sun Nov  6 08:49:37 94",
        "1994-11-06T08:49:37Z",
    ] {
        assert_eq!(at(text), None, "{text:?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(seconds in 0_u64..253_402_300_800) {
        let text = header(seconds * 1000).unwrap();
        prop_assert_eq!(parse(text.as_bytes(), NOW), Some(seconds));
    }

    #[test]
    fn no_text_makes_it_panic(
        text in "(Sun(day)?,? )?[0-9 ]{0,3}[ -]?(Nov)?[ -]?.{0,20}", now in any::<u64>(),
    ) {
        let _ = parse(text.as_bytes(), now);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = parse(&bytes, 0);
    }
}
