//! How far a purge goes: exactly the path that its pattern says, on each host or on one.

use super::{Database, STREAM, all_done, reads, start};
use crate::support::{Client, Gateway, Redis, run};

/// By path on every host; by path on one; and what is below.
const EVENTS: &str = r#"
[events.products]
from = "stream:shop:events"
when = { table = "products" }
purge = ["/products/{id}"]
[events.one]
from = "stream:shop:events"
when = { table = "one" }
host = "a.test"
purge = ["/products/{id}"]
[events.trees]
from = "stream:shop:events"
when = { table = "trees" }
purge = ["/products/{id}/*"]
"#;
/// What is stored: a host and a path.
const STORED: [(&str, &str); 6] = [
    ("a.test", "/products/1"),
    ("a.test", "/products/1?q=1"),
    ("b.test:8080", "/products/1"),
    ("a.test", "/products/1/reviews"),
    ("a.test", "/products/12"),
    ("a.test", "/products"),
];

fn cached(gateway: &Gateway, (host, path): (&str, &str)) -> bool {
    let reply = Client::get(gateway.public, path).header("Host", host).send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.header("cache-status").unwrap_or_default().contains("portcullis; hit")
}

/// Stores everything, tells of product 1 and says which of [`STORED`] are fetched anew.
fn gone(redis: &Redis, gateway: &Gateway, table: &str) -> Vec<usize> {
    for stored in STORED {
        crate::support::eventually("it is stored", || cached(gateway, stored));
    }
    assert!(redis.cli(&["XADD", STREAM, "*", "table", table, "id", "1"]).contains('-'));
    for source in ["products", "one", "trees"] {
        all_done(redis, source);
    }
    (0..STORED.len()).filter(|at| !cached(gateway, STORED[*at])).collect()
}

#[test]
fn a_path_goes_by_itself_on_every_host_and_with_what_is_below_where_the_pattern_says_so() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let gateway = [start(&redis, &upstream, EVENTS)];
    for source in ["products", "one", "trees"] {
        reads(&gateway, source);
    }
    let gateway = &gateway[0];
    assert!(redis.cli(&["XADD", STREAM, "*", "table", "none"]).contains('-'));
    assert_eq!(gone(&redis, gateway, "products"), [0, 1, 2], "with every query, on each host");
    assert_eq!(gone(&redis, gateway, "one"), [0, 1], "on this host alone");
    assert_eq!(gone(&redis, gateway, "trees"), [0, 1, 2, 3]);
    let named = "/v1/cache/entry?url=http://a.test/products/1";
    let admin = gateway.admin;
    let shown = Client::get(admin, named).header("Host", admin.to_string()).send();
    assert_eq!(shown.status, 200, "{}", shown.text());
}

/// What a node has kept before it knew of events is not kept from them.
#[test]
fn a_reload_that_adds_events_keeps_no_copy_that_they_cannot_reach() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let gateway = start(&redis, &upstream, "");
    for path in ["/products/1", "/products/2"] {
        database.write(path, 1);
        super::store(&gateway, path);
    }
    gateway.rewrite(&super::config(&redis, &upstream, EVENTS));
    gateway.signal("HUP");
    let gateway = [gateway];
    for source in ["products", "one", "trees"] {
        reads(&gateway, source);
    }
    for path in ["/products/1", "/products/2"] {
        super::store(&gateway[0], path);
        database.write(path, 2);
    }
    assert!(redis.cli(&["XADD", STREAM, "*", "table", "products", "id", "1"]).contains('-'));
    all_done(&redis, "products");
    assert_eq!(super::read(&gateway[0], "/products/1"), 2);
    assert_eq!(super::read(&gateway[0], "/products/2"), 1);
}

/// The user of Redis that is printed may read what events name.
#[test]
fn the_printed_user_may_read_the_streams_and_channels_of_events() {
    let (redis, database) = (Redis::start(), Database::new());
    let upstream = database.serve();
    let more = "[events.told]\nfrom = \"channel:shop:changes\"\npurge = [\"/products/{id}\"]\n\
                [events.keys]\nfrom = \"keyspace:product:*\"\npurge = [\"/products/{star}\"]\n";
    let events = format!("{EVENTS}{more}");
    let text = super::config(&redis, &upstream, &events);
    let text = text.replace("[store]", "[store]\nusername = \"gateway\"\npassword = \"p\"");
    let folder = crate::support::Folder::new();
    folder.write("gateway.toml", &text);
    let printed = run(&folder, &["acl"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let line = printed.stdout.replace("PASSWORD", "p");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(redis.cli(&words), "OK", "{line}");
    let gateway = [Gateway::start(&text)];
    for source in ["products", "told", "keys"] {
        reads(&gateway, source);
    }
    database.write("/products/1", 1);
    super::store(&gateway[0], "/products/1");
    database.write("/products/1", 2);
    super::tell(&redis, &["table", "products", "id", "1"]);
    all_done(&redis, "products");
    assert_eq!(super::read(&gateway[0], "/products/1"), 2);
    assert_eq!(redis.cli(&["PUBLISH", "shop:changes", "{}"]), "1", "the gateway listens");
}
