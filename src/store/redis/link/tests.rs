//! What a server says of itself.

use super::offset_ms;

#[test]
fn the_servers_clock_is_read_in_the_middle_of_the_exchange() {
    assert_eq!(offset_ms(1_000_000, 1_000_010, 1000, 5999), 0);
    assert_eq!(offset_ms(1_000_000, 1_000_000, 997, 500_000), -2500);
    assert_eq!(offset_ms(0, 0, i64::MAX, i64::MAX), i64::MAX);
}
