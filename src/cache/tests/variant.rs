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
        ("accept", "accept: text/html, text/plain", "accept: text/plain, text/html"),
    ];
    for (field, a, b) in two {
        assert_ne!(name(&[field], a), name(&[field], b), "{a:?} {b:?}");
    }
}

const PREFERENCES: [&str; 4] = ["accept", "accept-charset", "accept-encoding", "accept-language"];

#[test]
fn weights_of_one_meaning_are_one_variant() {
    for field in PREFERENCES {
        for (a, b) in [
            ("x;q=1.0, y", "x, y"),
            ("X;Q=1, y", "x;q=1.000, y;q=1."),
            ("x ; q=0.5\t,,y", "x;q=0.500, y, "),
            ("x;q=0, y", "x;q=0.000, y;q=1.0"),
            ("x;q=0.75, y;q=0.8", "y;q=0.80, x;q=0.750"),
            ("x, y, X;q=1", "x, y"),
            ("*;q=0.1, x", "x, *; q=0.10"),
            ("", " , ,"),
        ] {
            let named = |value: &str| name(&[field], &format!("{field}: {value}"));
            assert_eq!(named(a), named(b), "{field}: {a:?} {b:?}");
            let lines = a.replace(',', &format!("\n{field}: "));
            assert_eq!(named(&lines), named(b), "{field}: {a:?} on lines of their own");
        }
    }
}

#[test]
fn weights_of_another_meaning_or_of_none_are_another_variant() {
    for field in PREFERENCES {
        for (a, b) in [
            ("x", "x;q=0"),
            ("x", "x;q=0.999"),
            ("x;q=0.5", "x;q=0.05"),
            ("x, y", "x"),
            ("x", "x, *"),
            ("x", "x, identity"),
            ("x;q=0.5, y;q=0.5", "x, y"),
            ("x", ""),
            // What breaks the grammar means what its reader makes of it.
            ("x", "x;q=2"),
            ("x", "x;q=1.001"),
            ("x;q=.5", "x;q=0.5"),
            ("x;q=0.5000", "x;q=0.5"),
            ("x", "x;q="),
            ("x", "x;q"),
            ("x;q=1;q=0", "x"),
            ("xy", "x y"),
            ("x;q=0, x", "x, x;q=0"),
            ("x, x;q=0, x", "x, x;q=0"),
            ("x;q=2, y;q=0.5", "y;q=0.5, x;q=2"),
            ("x;p=1", "x"),
            ("x;q=1;p=1", "x;p=1"),
            ("x;p=a", "x;p=A"),
            ("x;p=\"a;q=1\"", "x;p=\"a\""),
        ] {
            let named = |value: &str| name(&[field], &format!("{field}: {value}"));
            assert_ne!(named(a), named(b), "{field}: {a:?} {b:?}");
        }
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

/// A preference as a client may mean it: a name, and a weight in thousandths.
fn preferences() -> impl Strategy<Value = Vec<(String, u16)>> {
    let weight = prop_oneof![Just(0), Just(500), Just(1000), 0_u16..=1000];
    proptest::collection::btree_map("[a-d]{1,2}", weight, 1..5)
        .prop_map(|meant| meant.into_iter().collect::<Vec<_>>())
        .prop_shuffle()
}

/// One of the spellings of preferences.
fn spelled(meant: &[(String, u16)], choices: &[u8]) -> String {
    let mut choices = choices.iter().copied().cycle();
    let mut pick = |from: &[&str]| {
        let choice = usize::from(choices.next().unwrap_or_default());
        from[choice % from.len()].to_owned()
    };
    let mut members = Vec::new();
    for (name, weight) in meant {
        let name = pick(&[name, &name.to_ascii_uppercase()]);
        let long = format!("{}.{:03}", weight / 1000, weight % 1000);
        let short = long.trim_end_matches('0');
        let weight = match pick(&["long", "short", "left out"]).as_str() {
            "left out" if *weight == 1000 => String::new(),
            kind => {
                let number = if kind == "long" { &long } else { short };
                let q = pick(&[";q=", "; Q=", " ;\tq="]);
                format!("{q}{number}")
            }
        };
        members.push(format!("{name}{weight}"));
    }
    let parting = pick(&[",", ", ", " ,\t", ",,", "\naccept-encoding: "]);
    members.join(&parting)
}

proptest! {
    /// The law of variants: lists that mean the same are one, however they are spelled and, of
    /// codings, in whatever order; lists that do not are two.
    #[test]
    fn values_are_told_apart_by_what_they_mean(
        (one, reordered) in preferences().prop_flat_map(|meant| {
            (Just(meant.clone()), Just(meant).prop_shuffle())
        }),
        other in preferences(),
        choices in proptest::collection::vec(any::<u8>(), 16),
        more in proptest::collection::vec(any::<u8>(), 16),
    ) {
        let coded = |meant: &[(String, u16)], choices: &[u8]| {
            name(&["accept-encoding"], &format!("accept-encoding: {}", spelled(meant, choices)))
        };
        prop_assert_eq!(coded(&one, &choices), coded(&reordered, &more));
        let (mut sorted, mut sorted_other) = (one.clone(), other.clone());
        sorted.sort();
        sorted_other.sort();
        prop_assert_eq!(
            coded(&one, &choices) == coded(&other, &more),
            sorted == sorted_other
        );
    }
}
