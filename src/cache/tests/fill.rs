//! Bodies in the making: the bound, the announced length, giving up.

use super::super::Fill;
use bytes::Bytes;

fn filled(max_bytes: usize, pieces: &[&'static str]) -> (bool, Fill) {
    let mut fill = Fill::new(max_bytes);
    let took =
        pieces.iter().fold(true, |_, piece| fill.push(&Bytes::from_static(piece.as_bytes())));
    (took, fill)
}

#[test]
fn a_body_is_kept_up_to_its_bound_and_not_a_byte_more() {
    let (took, fill) = filled(5, &["ab", "", "cde"]);
    assert!(took);
    assert_eq!(fill.finish(Some(5)).as_deref(), Some(&b"abcde"[..]));

    let (took, mut fill) = filled(5, &["ab", "cdef"]);
    assert!(!took);
    assert!(!fill.push(&Bytes::new()), "what was given up stays given up");
    assert_eq!(fill.finish(None), None);
}

#[test]
fn a_body_that_ends_early_or_late_is_not_kept() {
    for (announced, kept) in [(None, true), (Some(3), true), (Some(2), false), (Some(4), false)] {
        assert_eq!(filled(9, &["abc"]).1.finish(announced).is_some(), kept, "{announced:?}");
    }
    assert_eq!(filled(9, &[]).1.finish(Some(0)), Some(Bytes::new()));
}

#[test]
fn trailers_and_failures_end_a_fill() {
    let (_, mut fill) = filled(9, &["abc"]);
    fill.give_up();
    assert_eq!(fill.finish(Some(3)), None);
}
