//! Events of a stream: what they purge and revoke, what they must not, and what was missed.

use super::{
    Database, PRODUCTS, STREAM, all_done, bearer, count, gaps, read, reads, start, store, tell,
    told,
};
use crate::support::{Client, Redis, eventually};

#[test]
fn an_event_purges_a_path_at_every_gateway_and_revokes_a_subject() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let gateways = [0, 1].map(|_| start(&redis, &upstream, PRODUCTS));
    database.write("/products/1", 1);
    database.write("/products/2", 1);
    for source in ["products", "users"] {
        reads(&gateways, source);
    }
    for gateway in &gateways {
        store(gateway, "/products/1");
        store(gateway, "/products/2");
    }
    database.write("/products/1", 2);
    database.write("/products/2", 2);
    // Another table's event, and one of ours: whole rows, and as JSON.
    tell(&redis, &["table", "orders", "id", "2"]);
    tell(&redis, &["data", r#"{"table": "products", "id": 1}"#]);
    for gateway in &gateways {
        eventually("the purge is in force", || read(gateway, "/products/1") == 2);
        assert_eq!(read(gateway, "/products/2"), 1, "no event has named it");
    }
    let total = |outcome| gateways.iter().map(|it| count(it, "products", outcome)).sum::<f64>();
    eventually("they are counted", || total("taken") == 1.0 && total("ignored") == 1.0);
    all_done(&redis, "products");
    let token = bearer("u1");
    let account =
        |token: &str| Client::get(gateways[0].public, "/account").bearer(token).send().status;
    assert_eq!((account(&token), account(&bearer("u2"))), (200, 200));
    // Of the same stream: each source hears all of it.
    tell(&redis, &["table", "logouts", "user", "u1"]);
    eventually("the subject's tokens are revoked", || account(&token) == 401);
    assert_eq!(account(&bearer("u2")), 200);
    let gaps = |source| gateways.iter().map(|it| gaps(it, source)).sum::<f64>();
    assert_eq!((gaps("products"), gaps("users")), (0.0, 0.0), "nothing was missed");
}

/// Whatever a field holds, no more goes than what the pattern says of one product.
#[test]
fn hostile_values_never_widen_a_purge_and_are_poison() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let gateway = start(&redis, &upstream, PRODUCTS);
    for path in ["/products/1", "/products/2"] {
        database.write(path, 1);
        store(&gateway, path);
        database.write(path, 2);
    }
    let long = "1".repeat(129);
    for id in ["", ".", "..", &long] {
        tell(&redis, &["table", "products", "id", id]);
    }
    tell(&redis, &["table", "products"]);
    let last = tell(&redis, &["table", "products", "product", "1"]);
    eventually("all are counted", || count(&gateway, "products", "poison") == 6.0);
    for id in ["*", "/*", "2/..", "../products", "%2e%2e", "%2A", "1?x", "1#", "{id}", "1/*", "\n"]
    {
        tell(&redis, &["table", "products", "id", id]);
    }
    let end = tell(&redis, &["table", "orders", "id", "1"]);
    eventually("all are read", || count(&gateway, "products", "ignored") == 1.0);
    for path in ["/products/1", "/products/2"] {
        assert_eq!(read(&gateway, path), 1, "{path} was named by none of them");
    }
    let told = told(&gateway, "products");
    assert_eq!(told["reads_here"], true, "{told}");
    let poison = told["last_poison"]["id"].as_str().expect("the last one");
    assert!(poison >= &*last && poison < &*end, "{told}");
    // Poison is acknowledged, too.
    all_done(&redis, "products");
}

/// A replica that lags may be asked between an event and its own news of it.
#[test]
fn an_event_purges_once_more_after_a_time() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let again = PRODUCTS.replacen("purge = ", "again = \"4s\"\npurge = ", 1);
    let gateway = start(&redis, &upstream, &again);
    database.write("/products/1", 1);
    store(&gateway, "/products/1");
    // The primary has 3, the replica that is asked has 2.
    database.write("/products/1", 2);
    tell(&redis, &["table", "products", "id", "1"]);
    eventually("the purge is in force", || read(&gateway, "/products/1") == 2);
    store(&gateway, "/products/1");
    database.write("/products/1", 3);
    assert_eq!(read(&gateway, "/products/1"), 2, "nobody has told of that");
    eventually("it is purged once more", || read(&gateway, "/products/1") == 3);
    assert_eq!(count(&gateway, "products", "taken"), 1.0, "by one event");
}

/// More than one reply of Redis may hold, and an entry that nobody reads.
#[test]
fn long_entries_come_by_and_by_and_one_that_is_too_long_is_poison() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let gateway = start(&redis, &upstream, PRODUCTS);
    let script = "local function add(bytes) \
                    redis.call('XADD', KEYS[1], '*', 'table', 'products', 'id', '1', \
                               'image', string.rep('x', bytes)) \
                  end \
                  for _ = 1, 12 do add(900000) end \
                  add(1100000)";
    redis.cli(&["EVAL", script, "1", STREAM]);
    tell(&redis, &["table", "products", "id", "2"]);
    eventually("all are read", || {
        count(&gateway, "products", "taken") == 13.0 && count(&gateway, "products", "poison") == 1.0
    });
    all_done(&redis, "products");
    assert_eq!(gaps(&gateway, "products"), 0.0);
}

/// What was trimmed before anybody read it may have named any product.
#[test]
fn a_stream_that_was_trimmed_unread_purges_all_that_it_could_have_named() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let mut first = start(&redis, &upstream, PRODUCTS);
    tell(&redis, &["table", "products", "id", "9"]);
    eventually("it is read", || count(&first, "products", "taken") == 1.0);
    for path in ["/products/1", "/products/2"] {
        database.write(path, 1);
        store(&first, path);
        database.write(path, 2);
    }
    first.signal("TERM");
    assert!(first.wait().success());
    for id in ["1", "2", "3"] {
        tell(&redis, &["table", "products", "id", id]);
    }
    assert_eq!(redis.cli(&["XTRIM", STREAM, "MAXLEN", "1"]), "3");
    let second = start(&redis, &upstream, PRODUCTS);
    eventually("the gap is seen, and what is left is read", || {
        gaps(&second, "products") == 1.0 && count(&second, "products", "taken") == 1.0
    });
    assert_eq!([read(&second, "/products/1"), read(&second, "/products/2")], [2, 2]);
    // It is one gap, and no more.
    tell(&redis, &["table", "products", "id", "4"]);
    eventually("it is read", || count(&second, "products", "taken") == 2.0);
    assert_eq!(gaps(&second, "products"), 1.0);
}

/// Whoever starts anew goes on where the group was; a stream that nobody has read is read from its
/// beginning. Only what is lost is a gap.
#[test]
fn a_start_is_no_gap_and_a_stream_that_is_lost_is_one() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    for id in ["1", "2"] {
        tell(&redis, &["table", "products", "id", id]);
    }
    let mut first = start(&redis, &upstream, PRODUCTS);
    eventually("what was there is read", || count(&first, "products", "taken") == 2.0);
    assert_eq!(gaps(&first, "products"), 0.0, "nothing of it was gone");
    database.write("/products/1", 1);
    store(&first, "/products/1");
    first.signal("TERM");
    assert!(first.wait().success());
    tell(&redis, &["table", "products", "id", "2"]);
    let second = start(&redis, &upstream, PRODUCTS);
    eventually("the new one goes on", || count(&second, "products", "taken") == 1.0);
    assert_eq!(gaps(&second, "products"), 0.0, "a restart has missed nothing");
    database.write("/products/1", 2);
    assert_eq!(read(&second, "/products/1"), 1, "it is still stored");
    assert_eq!(redis.cli(&["DEL", STREAM]), "1");
    eventually("what was lost is purged", || read(&second, "/products/1") == 2);
    assert_eq!(gaps(&second, "products"), 1.0);
    tell(&redis, &["table", "products", "id", "3"]);
    eventually("the stream is read anew", || count(&second, "products", "taken") == 2.0);
    assert_eq!(gaps(&second, "products"), 1.0, "it was one gap");
}

/// What a dead reader had in hand is done by the next one: it was read, and not acknowledged.
#[test]
fn what_was_read_and_not_acknowledged_is_done_by_whoever_reads_next() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let gateway = start(&redis, &upstream, PRODUCTS);
    tell(&redis, &["table", "products", "id", "2"]);
    eventually("it is read", || count(&gateway, "products", "taken") == 1.0);
    database.write("/products/1", 1);
    store(&gateway, "/products/1");
    database.write("/products/1", 2);
    // In one step, so that nobody else reads it: as somebody who read it, and died.
    let script = "redis.call('XADD', KEYS[1], '*', 'table', 'products', 'id', '1') \
                  redis.call('XREADGROUP', 'GROUP', ARGV[1], 'gw', 'STREAMS', KEYS[1], '>')";
    redis.cli(&["EVAL", script, "1", STREAM, "app:events:products"]);
    eventually("it is done", || read(&gateway, "/products/1") == 2);
    all_done(&redis, "products");
    assert_eq!(gaps(&gateway, "products"), 0.0);
}
