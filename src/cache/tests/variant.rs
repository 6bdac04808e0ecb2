//! Variants: the set of fields, the name, and what is the same value.

use super::super::{selects, variant_name, vary_line, vary_lines, vary_set};
use super::{entry, fields};
use http::header::HeaderName;
use proptest::prelude::*;

fn set(names: &[&str]) -> Vec<HeaderName> {
    names.iter().map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap()).collect()
}

fn name(names: &[&str], request: &str) -> String {
    variant_name(&set(names), &fields(request))
}

#[test]
fn the_set_is_canonical() {
    let cases = [
        ("", "", Some(vec![])),
        ("", "vary: X-B, accept\nvary: ACCEPT", Some(vec!["accept", "x-b"])),
        ("", "vary: user-agent", Some(vec!["user-agent"])),
        ("origin: a", "access-control-allow-origin: a", Some(vec!["origin"])),
        ("origin: a", "access-control-allow-origin: *", Some(vec![])),
        ("", "access-control-allow-origin: a", Some(vec![])),
        ("", "vary: accept, *", None),
        ("", "vary: cookie", None),
        ("", "vary: x, Authorization", None),
        ("", "vary: a b", None),
    ];
    for (request, response, expected) in cases {
        let found = vary_set(&fields(request), &fields(response));
        assert_eq!(found, expected.map(|names| set(&names)), "{request:?} {response:?}");
    }
}

#[test]
fn sets_are_lines() {
    assert_eq!(vary_line(&set(&[])), "");
    assert_eq!(vary_line(&set(&["accept", "x"])), "accept,x");
    let lines: Vec<_> = vary_lines(b"accept,x\n\nx").collect();
    assert_eq!(lines, [set(&["accept", "x"]), set(&[]), set(&["x"])]);
    let damaged: Vec<_> = vary_lines(b"a b\n\xff\n,\nx").collect();
    assert_eq!(damaged, [set(&["x"])], "what is none of ours is left out");
}

#[test]
fn the_same_in_other_words_is_one_variant() {
    let one = [
        ("x-a", "x-a: 1, 2", "x-a: 1,2"),
        ("x-a", "x-a: 1\nx-a: 2", "x-a: 1 ,  2"),
        ("x-a", "x-a: 1,,2,", "x-a: 1, 2"),
        ("accept-encoding", "accept-encoding: GZIP, br", "accept-encoding: br,gzip"),
        ("accept-encoding", "accept-encoding: br; q=0.5", "accept-encoding: br;q=0.5"),
        ("accept-language", "accept-language: EN, de", "accept-language: en,DE"),
        ("accept-language", "accept-language: de;q=0.5, en", "accept-language: en, de; q=0.5"),
        (
            "accept-language",
            "accept-language: de;q=0.5, en;q=0.75",
            "accept-language: en;q=0.75,de;q=0.5",
        ),
    ];
    for (field, a, b) in one {
        assert_eq!(name(&[field], a), name(&[field], b), "{a:?} {b:?}");
    }
    let two = [
        ("x-a", "x-a: 1, 2", "x-a: 2, 1"),
        ("x-a", "x-a: a", "x-a: A"),
        ("x-a", "x-a: 1 2", "x-a: 12"),
        ("x-a", "x-a: \"1, 2\"", "x-a: \"1,2\""),
        ("x-a", "x-a: \"1\\\", 2\"", "x-a: \"1\\\",2\""),
        ("x-a", "x-a:", ""),
        ("accept-language", "accept-language: en, de", "accept-language: de, en"),
        ("accept-language", "accept-language: de;q=0.5", "accept-language: de"),
    ];
    for (field, a, b) in two {
        assert_ne!(name(&[field], a), name(&[field], b), "{a:?} {b:?}");
    }
}

#[test]
fn a_name_is_a_digest_of_everything() {
    assert_eq!(name(&[], "x: 1"), "-");
    let some = name(&["x"], "x: 1");
    assert!(some.len() == 32 && some.bytes().all(|b| b.is_ascii_hexdigit()), "{some}");
    assert_eq!(some, name(&["x"], "x: 1\ny: 2"), "other fields do not count");
    let names = [
        name(&["a", "b"], "a: 1\nb: 2"),
        name(&["a", "b"], "a: 12"),
        name(&["a", "b"], "b: 12"),
        name(&["a"], "a: 1"),
        name(&["ab"], "ab: 1"),
        name(&["a", "b"], "a: 1b\nb: 2"),
    ];
    for (at, one) in names.iter().enumerate() {
        assert!(!names[..at].contains(one), "{at}");
    }
}

proptest! {
    /// Whatever is stored for a request answers that request and those of the same name alone.
    #[test]
    fn the_name_and_the_comparison_agree(
        a in proptest::collection::vec("[a-c\", =\\\\]{0,6}", 0..3),
        b in proptest::collection::vec("[a-c\", =\\\\]{0,6}", 0..3),
    ) {
        let request = |values: &[String]| {
            fields(&values.iter().map(|value| format!("accept: {value}\n")).collect::<String>())
        };
        let (a, b) = (request(&a), request(&b));
        let names = set(&["accept"]);
        let mut stored = entry(200, "");
        stored.vary = super::super::variant::values(names.clone(), &a);
        prop_assert!(selects(&stored, &a));
        let is_same = variant_name(&names, &a) == variant_name(&names, &b);
        prop_assert_eq!(selects(&stored, &b), is_same);
    }
}
