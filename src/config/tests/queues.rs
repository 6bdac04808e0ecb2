//! What queues may not be told.

use super::{read, report};
use crate::config::Statuses;

#[test]
fn a_queue_tries_again_after_failures_alone() {
    for (good, expected) in [
        ("404", Statuses::One(404)),
        ("4xx", Statuses::Class(4)),
        ("300", Statuses::One(300)),
        ("3xx", Statuses::Class(3)),
        ("599", Statuses::One(599)),
        ("5xx", Statuses::Class(5)),
    ] {
        let loaded = read(&format!("[queues.a]\nretry_on = [\"{good}\"]\n"));
        assert_eq!(loaded.config.queues["a"].retry_on, [expected]);
    }
    for bad in ["200", "2xx", "1xx", "299", "600", "6xx", "4x", "4xxx", "+4xx", "+40", "404 ", ""] {
        let report = report(&format!("[queues.a]\nretry_on = [\"{bad}\"]\n"));
        assert!(report.contains("is no status from 300 to 599"), "{bad}: {report}");
    }
    assert!(report("[queues.a]\nretry_on = [404]\n").contains("queues.a.retry_on[0]"));
}
