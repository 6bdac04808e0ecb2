//! Events of a stream: what they purge and revoke, what they must not, and what was missed.

use super::{Database, PRODUCTS, STREAM, bearer, count, gaps, read, start, store, tell, told};
use crate::support::{Client, Redis, eventually};

#[test]
fn an_event_purges_a_path_at_every_gateway_and_revokes_a_subject() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let gateways = [0, 1].map(|_| start(&redis, &upstream, PRODUCTS));
    database.write("/products/1", 1);
    database.write("/products/2", 1);
    eventually("one of them reads, and the first gap is over", || {
        gateways.iter().any(|it| gaps(it, "products") == 1.0 && gaps(it, "users") == 1.0)
            || gateways.iter().map(|it| gaps(it, "products") + gaps(it, "users")).sum::<f64>()
                == 2.0
    });
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
    let pending = redis.cli(&["XPENDING", STREAM, "gateway"]);
    assert!(pending.starts_with('0'), "all are acknowledged: {pending}");

    let token = bearer("u1");
    let account =
        |token: &str| Client::get(gateways[0].public, "/account").bearer(token).send().status;
    assert_eq!((account(&token), account(&bearer("u2"))), (200, 200));
    redis.cli(&["XADD", "shop:logouts", "*", "user", "u1"]);
    eventually("the subject's tokens are revoked", || account(&token) == 401);
    assert_eq!(account(&bearer("u2")), 200);
}

/// Whatever a field holds, no more goes than what the pattern says of one product.
#[test]
fn hostile_values_never_widen_a_purge_and_are_poison() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let gateway = start(&redis, &upstream, PRODUCTS);
    eventually("the first gap is over", || gaps(&gateway, "products") == 1.0);
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
    let pending = redis.cli(&["XPENDING", STREAM, "gateway"]);
    assert!(pending.starts_with('0'), "poison is acknowledged: {pending}");
}

/// What was trimmed before anybody read it may have named any product.
#[test]
fn a_stream_that_was_trimmed_unread_purges_all_that_it_could_have_named() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let mut first = start(&redis, &upstream, PRODUCTS);
    eventually("the first gap is over", || gaps(&first, "products") == 1.0);
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
