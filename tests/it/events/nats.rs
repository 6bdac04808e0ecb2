//! Events over NATS: of a stream none is lost, on a subject what was missed is a gap.

use serde_json::json;

use super::{Database, count, gaps, read, start, store, told};
use crate::support::{Client, Folder, Gateway, Nats, Redis, STREAMS, eventually, kill};

/// Rows that are written, with an event each.
const ROWS: u32 = 120;
/// Products.
const PRODUCTS_MAX: u32 = 12;

/// A source over NATS.
fn source(nats: &Nats, from: &str) -> String {
    format!(
        "[upstreams.bus]\nnats = [\"{}\"]\nconnect_timeout = \"10s\"\n[events.told]\n\
         from = \"{from}\"\nupstream = \"bus\"\npurge = [\"/products/{{id}}\"]\n",
        nats.url()
    )
}

fn streams() -> Nats {
    with_consumer(Nats::with_streams())
}

fn with_consumer(nats: Nats) -> Nats {
    nats.stream("SHOP", "shop.>", &json!({}));
    nats.consumer("SHOP", "gateway", &json!({ "ack_wait": 1_000_000_000_u64 }));
    nats
}

/// What the consumer still has.
fn left(nats: &Nats) -> u64 {
    let info = nats.api("CONSUMER.INFO.SHOP.gateway", &json!(null));
    let number = |name: &str| info[name].as_u64().expect("a number");
    number("num_pending") + number("num_ack_pending")
}

#[test]
fn a_stream_loses_no_event_whatever_dies_meanwhile() {
    loses_none(streams());
}

#[test]
fn a_stream_of_a_newer_server_loses_no_event_whatever_dies_meanwhile() {
    loses_none(with_consumer(Nats::newer_in(Folder::new(), STREAMS)));
}

fn loses_none(mut nats: Nats) {
    let settings = ["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned);
    let mut redis = Redis::start_with(&settings);
    let database = Database::new();
    let upstream = database.serve();
    let source = source(&nats, "jetstream:SHOP/gateway");
    let mut gateway = start(&redis, &upstream, &source);
    let path = |row: u32| format!("/products/{}", row % PRODUCTS_MAX);
    (0..PRODUCTS_MAX).for_each(|product| store(&gateway, &path(product)));
    for row in 1..=ROWS {
        database.write(&path(row), row);
        let event = json!({ "id": row % PRODUCTS_MAX }).to_string();
        eventually("the stream has it", || {
            nats.ask("shop.products", &event).is_some_and(|said| said.contains("\"seq\":"))
        });
        let _ = Client::get(gateway.public, &path(row * 7)).try_send();
        match row {
            30 | 105 => nats.restart(),
            60 | 110 => redis.restart(),
            _ => {}
        }
        // In between, and right behind each of those.
        if row % 15 == 0 {
            kill("KILL", gateway.pid());
            gateway.wait();
            gateway = start(&redis, &upstream, &source);
        }
    }
    for product in 0..PRODUCTS_MAX {
        let path = path(product);
        eventually("clients read what the database has", || {
            read(&gateway, &path) == database.read(&path)
        });
    }
    eventually("all is acknowledged", || left(&nats) == 0);
    assert_eq!(gaps(&gateway, "told"), 0.0, "{}", gateway.stderr());
}

#[test]
fn a_stream_is_acknowledged_behind_the_purge_and_says_what_it_dropped() {
    let (redis, nats, database) = (Redis::start(), Nats::with_streams(), Database::new());
    let upstream = database.serve();
    let gateway = start(&redis, &upstream, &source(&nats, "jetstream:SHOP/gateway"));
    let fault = || told(&gateway, "told")["fault"].as_str().unwrap_or_default().to_owned();
    eventually("it says what is missing", || fault().contains("nats consumer add SHOP gateway"));
    nats.stream("SHOP", "shop.>", &json!({ "max_msgs": 3 }));
    // More than it keeps, before anybody reads.
    (1..=5).for_each(|id| nats.store("shop.products", json!({ "id": id }).to_string()));
    for path in ["/products/1", "/products/9"] {
        database.write(path, 1);
        store(&gateway, path);
        database.write(path, 2);
    }
    nats.consumer("SHOP", "gateway", &json!({}));
    eventually("what is there is done", || count(&gateway, "told", "taken") == 3.0);
    assert_eq!(gaps(&gateway, "told"), 0.0, "a new consumer begins with what is there");
    assert_eq!(read(&gateway, "/products/1"), 1, "its event is gone, and was before it");
    nats.store("shop.products", "no JSON");
    eventually("it is poison", || count(&gateway, "told", "poison") == 1.0);
    eventually("and acknowledged", || left(&nats) == 0);
    assert!(fault().is_empty(), "{}", fault());
    nats.store("shop.products", json!({ "id": 9 }).to_string());
    eventually("it is purged", || read(&gateway, "/products/9") == 2);
    assert_eq!(told(&gateway, "told")["from"], "jetstream");
}

#[test]
fn a_subject_purges_and_each_new_connection_is_a_gap() {
    let (redis, mut nats, database) = (Redis::start(), Nats::start(), Database::new());
    let upstream = database.serve();
    let gateway = start(&redis, &upstream, &source(&nats, "nats:shop.*.changed"));
    eventually("the gateway listens", || gaps(&gateway, "told") == 1.0);
    let fill = || {
        for path in ["/products/1", "/products/2"] {
            database.write(path, 1);
            eventually("it is stored as it was", || read(&gateway, path) == 1);
            store(&gateway, path);
            database.write(path, 2);
        }
    };
    fill();
    nats.publish("shop.product.changed", "{\"id\": \"1\"}");
    eventually("it is gone", || read(&gateway, "/products/1") == 2);
    assert_eq!(read(&gateway, "/products/2"), 1);
    nats.publish("shop.product.changed", "[]");
    eventually("what is no object is poison", || count(&gateway, "told", "poison") == 1.0);
    nats.kill();
    eventually("the loss is known", || !told(&gateway, "told")["fault"].is_null());
    nats.restart();
    eventually("the new connection is a gap", || gaps(&gateway, "told") == 2.0);
    assert_eq!(read(&gateway, "/products/2"), 2, "what was missed may have named it");
    assert!(told(&gateway, "told")["fault"].is_null());
}

/// Nobody knows what was told on a subject while nobody listened: all of it goes.
#[test]
fn what_a_subject_told_nobody_is_purged_whatever_died() {
    let settings = ["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned);
    let (mut redis, mut nats) = (Redis::start_with(&settings), Nats::start());
    let database = Database::new();
    let upstream = database.serve();
    let source = source(&nats, "nats:shop.*.changed");
    let mut gateways = [start(&redis, &upstream, &source), start(&redis, &upstream, &source)];
    let listens = |gateways: &[Gateway]| {
        eventually("one of them listens", || {
            gateways.iter().any(|it| {
                let told = told(it, "told");
                told["reads_here"] == true && told["fault"].is_null()
            })
        });
    };
    listens(&gateways);
    let path = |row: u32| format!("/products/{}", row % PRODUCTS_MAX);
    (0..PRODUCTS_MAX).for_each(|product| store(&gateways[0], &path(product)));
    for row in 1..=ROWS {
        database.write(&path(row), row);
        let event = json!({ "id": row % PRODUCTS_MAX }).to_string();
        nats.publish("shop.product.changed", &event);
        for gateway in &gateways {
            let _ = Client::get(gateway.public, &path(row * 7)).try_send();
        }
        match row {
            30 | 90 => {
                // Whoever listens dies, and what is told until the other one does is told nobody.
                listens(&gateways);
                let reads = |it: &Gateway| told(it, "told")["reads_here"] == true;
                let reader = gateways.iter().position(reads).unwrap_or_default();
                kill("KILL", gateways[reader].pid());
                gateways[reader].wait();
                gateways[reader] = start(&redis, &upstream, &source);
            }
            60 => redis.restart(),
            110 => nats.restart(),
            _ => {}
        }
    }
    for gateway in &gateways {
        for product in 0..PRODUCTS_MAX {
            let path = path(product);
            eventually("clients read what the database has", || {
                read(gateway, &path) == database.read(&path)
            });
        }
    }
}

#[test]
fn a_reload_that_names_other_servers_listens_there() {
    let (redis, former, next) = (Redis::start(), Nats::start(), Nats::start());
    let database = Database::new();
    let upstream = database.serve();
    let config = |nats: &Nats| super::config(&redis, &upstream, &source(nats, "nats:shop.changed"));
    let gateway = Gateway::start(&config(&former));
    eventually("the gateway listens", || gaps(&gateway, "told") == 1.0);
    database.write("/products/1", 1);
    store(&gateway, "/products/1");
    database.write("/products/1", 2);
    gateway.rewrite(&config(&next));
    gateway.signal("HUP");
    eventually("it listens at the next", || gaps(&gateway, "told") == 2.0);
    eventually("a gap purges", || read(&gateway, "/products/1") == 2);
    database.write("/products/1", 3);
    next.publish("shop.changed", "{\"id\": 1}");
    eventually("an event purges", || read(&gateway, "/products/1") == 3);
    eventually("the former one is left", || former.clients() == 0);
}
