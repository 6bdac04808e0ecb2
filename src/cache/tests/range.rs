//! Ranges: the grammar, and the arithmetic against a model that looks at every byte.

use super::super::range::{Wanted, wanted};
use super::fields;
use proptest::prelude::*;

fn of(range: &str, length: u64) -> Wanted {
    wanted(&fields(&format!("range: {range}")), length)
}

#[test]
fn one_range_of_ten_bytes() {
    let part = |start, len| Wanted::Parts(vec![(start, len)]);
    let cases = [
        ("bytes=0-0", part(0, 1)),
        ("bytes=0-9", part(0, 10)),
        ("bytes=0-99", part(0, 10)),
        ("bytes=9-", part(9, 1)),
        ("bytes=3-5", part(3, 3)),
        ("bytes=-3", part(7, 3)),
        ("bytes=-99", part(0, 10)),
        ("Bytes=0-1", part(0, 2)),
        ("bytes= 0-1 ", part(0, 2)),
        ("bytes=,0-1,", part(0, 2)),
        ("bytes=0-1,99-", part(0, 2)),
        ("bytes=0-99999999999999999999999", part(0, 10)),
        ("bytes=-99999999999999999999999", part(0, 10)),
        ("bytes=10-", Wanted::Nothing),
        ("bytes=-0", Wanted::Nothing),
        ("bytes=99999999999999999999999-", Wanted::Nothing),
        ("bytes=10-,-0", Wanted::Nothing),
    ];
    for (range, expected) in cases {
        assert_eq!(of(range, 10), expected, "{range}");
    }
}

#[test]
fn what_cannot_be_read_is_no_range() {
    for range in [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=5-3",
        "bytes=0-1;",
        "bytes=0-1-2",
        "bytes=+0-1",
        "bytes=0 -1",
        "bytes=0x0-1",
        "items=0-1",
        "bytes =0-1",
        "bytes=0-1,x",
        "byt\u{e9}s=0-1",
    ] {
        assert_eq!(of(range, 10), Wanted::Whole, "{range:?}");
    }
    assert_eq!(wanted(&fields("range: bytes=0-1\nrange: bytes=2-3"), 10), Wanted::Whole);
    assert_eq!(wanted(&fields(""), 10), Wanted::Whole);
    for (range, expected) in
        [("bytes=0-", Wanted::Nothing), ("bytes=-5", Wanted::Whole), ("bytes=-0", Wanted::Nothing)]
    {
        assert_eq!(of(range, 0), expected, "{range} of nothing");
    }
}

#[test]
fn a_request_for_too_much_gets_the_whole() {
    let several = |count: usize| vec!["0-0"; count].join(",");
    assert_eq!(of(&format!("bytes={}", several(16)), 100), Wanted::Parts(vec![(0, 1); 16]));
    assert_eq!(of(&format!("bytes={}", several(17)), 100), Wanted::Whole);
    assert_eq!(of("bytes=0-,0-", 10), Wanted::Whole);
    assert_eq!(of("bytes=0-5,4-", 10), Wanted::Whole);
    assert_eq!(of("bytes=5-,0-4", 10), Wanted::Parts(vec![(5, 5), (0, 5)]));
    assert_eq!(of("bytes=0-18446744073709551615,1-", u64::MAX), Wanted::Whole);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn ranges_are_the_bytes_that_a_slow_reader_counts(
        length in 0_u64..40,
        specs in proptest::collection::vec((0_u8..3, 0_u64..50, 0_u64..50), 1..6),
    ) {
        let written: Vec<String> = specs.iter().map(|(kind, a, b)| match kind {
            0 => format!("{a}-{b}"),
            1 => format!("{a}-"),
            _ => format!("-{b}"),
        }).collect();
        let is_wrong = specs.iter().any(|(kind, a, b)| *kind == 0 && a > b);
        let in_nothing = length == 0 && specs.iter().any(|(kind, _, b)| *kind == 2 && *b > 0);
        let asked: Vec<Vec<u64>> = specs.iter().map(|(kind, a, b)| {
            (0..length).filter(|at| match kind {
                0 => at >= a && at <= b,
                1 => at >= a,
                _ => *at + *b >= length,
            }).collect()
        }).filter(|bytes: &Vec<u64>| !bytes.is_empty()).collect();
        let count: usize = asked.iter().map(Vec::len).sum();

        let found = of(&format!("bytes={}", written.join(",")), length);
        if is_wrong || in_nothing || asked.len() > 1 && count as u64 > length {
            prop_assert_eq!(found, Wanted::Whole);
        } else if asked.is_empty() {
            prop_assert_eq!(found, Wanted::Nothing);
        } else {
            let Wanted::Parts(parts) = found else { panic!("{found:?}") };
            let bytes = |(start, len): &(u64, u64)| (*start..start + len).collect::<Vec<_>>();
            prop_assert_eq!(parts.iter().map(bytes).collect::<Vec<_>>(), asked);
        }
    }
}
