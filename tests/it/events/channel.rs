//! Events that are told once: on a channel, and by keys that change.

use super::{Database, count, gaps, read, start, store};
use crate::support::{Redis, eventually};

pub(super) const CHANNEL: &str = r#"
[events.told]
from = "channel:shop:changes"
purge = ["/products/{id}"]
"#;
pub(super) const KEYS: &str = r#"
[events.told]
from = "keyspace:product:*"
when = { event = "set" }
purge = ["/products/{star}"]
"#;

#[test]
fn a_channel_purges_and_each_new_connection_is_a_gap() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let gateway = start(&redis, &upstream, CHANNEL);
    eventually("the gateway listens", || gaps(&gateway, "told") == 1.0);
    for path in ["/products/1", "/products/2"] {
        database.write(path, 1);
        store(&gateway, path);
        database.write(path, 2);
    }
    assert_eq!(redis.cli(&["PUBLISH", "shop:changes", r#"{"id": "1"}"#]), "1");
    eventually("it is gone", || read(&gateway, "/products/1") == 2);
    assert_eq!(read(&gateway, "/products/2"), 1);
    assert_eq!(redis.cli(&["PUBLISH", "shop:changes", "1"]), "1");
    eventually("what is no JSON is poison", || count(&gateway, "told", "poison") == 1.0);
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    eventually("the new connection is a gap", || gaps(&gateway, "told") == 2.0);
    assert_eq!(read(&gateway, "/products/2"), 2, "what was missed may have named it");
}

/// Who would rather serve what may be old for a while is only told of it.
#[test]
fn a_gap_may_be_ignored_and_is_counted() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let gateway = start(&redis, &upstream, &format!("{CHANNEL}on_gap = \"ignore\"\n"));
    eventually("the gateway listens", || gaps(&gateway, "told") == 1.0);
    database.write("/products/1", 1);
    store(&gateway, "/products/1");
    database.write("/products/1", 2);
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    eventually("the new connection is a gap", || gaps(&gateway, "told") == 2.0);
    assert_eq!(read(&gateway, "/products/1"), 1, "a gap is counted behind its purge");
    // Events purge as before.
    eventually("it listens anew", || {
        redis.cli(&["PUBLISH", "shop:changes", r#"{"id": "1"}"#]) == "1"
    });
    eventually("it is gone", || read(&gateway, "/products/1") == 2);
    assert_eq!(gaps(&gateway, "told"), 2.0);
}

#[test]
fn a_key_that_changes_purges_what_its_star_stands_for() {
    let settings = ["--notify-keyspace-events", "K$g"].map(str::to_owned);
    let (redis, database) = (Redis::start_with(&settings), Database::new());
    let upstream = database.serve();
    let gateway = start(&redis, &upstream, KEYS);
    eventually("the gateway listens", || gaps(&gateway, "told") == 1.0);
    for path in ["/products/1", "/products/2"] {
        database.write(path, 1);
        store(&gateway, path);
        database.write(path, 2);
    }
    assert_eq!(redis.cli(&["SET", "product:1", "x"]), "OK");
    eventually("it is gone", || read(&gateway, "/products/1") == 2);
    assert_eq!(redis.cli(&["DEL", "product:1"]), "1");
    eventually("another change does not count", || count(&gateway, "told", "ignored") == 1.0);
    assert_eq!(read(&gateway, "/products/2"), 1);
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    eventually("the new connection is a gap", || gaps(&gateway, "told") == 2.0);
    assert_eq!(read(&gateway, "/products/2"), 2, "what was missed may have named it");
}
