//! What a server says of itself.

use super::{is_replica, offset_ms};
use redis::Value;

#[test]
fn a_replica_is_known_by_its_greeting() {
    let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
    let hello =
        |role: &str| Value::Map(vec![(text("server"), text("redis")), (text("role"), text(role))]);
    assert!(is_replica(&hello("replica")) && is_replica(&hello("slave")));
    assert!(!is_replica(&hello("master")) && !is_replica(&Value::Map(vec![])));
    assert!(!is_replica(&Value::Okay));
}

#[test]
fn the_servers_clock_is_read_in_the_middle_of_the_exchange() {
    assert_eq!(offset_ms(1_000_000, 1_000_010, 1000, 5999), 0);
    assert_eq!(offset_ms(1_000_000, 1_000_000, 997, 500_000), -2500);
    assert_eq!(offset_ms(0, 0, i64::MAX, i64::MAX), i64::MAX);
}
