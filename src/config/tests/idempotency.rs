//! What `idempotency` of a route may say.

use super::{read, report};
use crate::config::Idempotency;

#[test]
fn one_mistake_is_one_problem() {
    for (text, what, help) in [
        ("idempotency = { methods = ['GET'] }", "GET takes no Idempotency-Key", "\"PATCH\""),
        ("idempotency = { methods = [] }", "is an empty list", "at least one"),
        ("idempotency = { keep = '169h' }", "is too long", "168h"),
        ("idempotency = { keep_bytes = '1MiB' }", "out of range", "512"),
        ("idempotency = { unknown = 'allow' }", "is not a choice here", "\"forward\""),
        ("cache = { write_through = true }", "must be", "\"always\""),
    ] {
        let report = report(&format!(
            "[upstreams.u]\nservers = ['http://127.0.0.1:1']\n\
             [routes.r]\npath = '/'\nupstream = 'u'\n{text}\n"
        ));
        assert!(report.contains(what) && report.contains(help), "{text}: {report}");
        assert!(report.ends_with("1 problem in gateway.toml\n"), "{text}: {report}");
    }
}

#[test]
fn an_empty_table_has_the_defaults() {
    let loaded = read("[routes.r]\npath = '/'\nupstream = 'u'\nidempotency = {}\n");
    assert_eq!(loaded.config.routes["r"].idempotency, Some(Idempotency::default()));
}
