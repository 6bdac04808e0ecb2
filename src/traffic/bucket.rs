//! The numbers by which callers are spread. They depend on the route and the caller alone, so that
//! every gateway counts alike, and a share that grows moves callers one way only.

use xxhash_rust::xxh3::xxh3_64;

use crate::config::{Arm, WHOLE};

/// The number of a caller on a route, below [`WHOLE`]: `xxh3(route ‖ key) % 10,000`.
pub fn bucket(route: &str, key: &[u8]) -> u16 {
    let hash = xxh3_64(&[route.as_bytes(), key].concat()) % u64::from(WHOLE);
    u16::try_from(hash).unwrap_or_default()
}

/// Whether one of `share` ten-thousandths of all draws is this one.
pub fn is_drawn(share: u16) -> bool {
    share > 0 && fastrand::u16(0..WHOLE) < share
}

/// The index of the arm that takes a number. Those after the base have the lowest ones, in their
/// order, and the base has the rest.
pub(super) fn arm_of(arms: &[Arm], bucket: u16) -> usize {
    let mut end = 0_u16;
    for (index, arm) in arms.iter().enumerate().skip(1) {
        end = end.saturating_add(arm.share);
        if bucket < end {
            return index;
        }
    }
    0
}
