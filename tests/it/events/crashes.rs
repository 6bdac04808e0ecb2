//! The application writes while gateways and Redis die: what clients read then is what it has.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::channel::{CHANNEL, KEYS};
use super::revoke;
use super::webhook::{now, send_to};
use super::{Database, PRODUCTS, STREAM, all_done, config, count, gaps, read, reads, start, store};
use crate::support::{Client, Gateway, Redis, Upstream, eventually, kill};

/// Rows that are written, with an event each.
const ROWS: u32 = 300;
/// Products.
const PRODUCTS_MAX: u32 = 20;

fn path(row: u32) -> String {
    format!("/products/{}", row % PRODUCTS_MAX)
}

fn durable() -> Redis {
    durable_with(&[])
}

fn durable_with(more: &[&str]) -> Redis {
    let settings = ["--appendonly", "yes", "--appendfsync", "always"];
    let settings: Vec<String> =
        settings.iter().chain(more).map(|setting| (*setting).to_owned()).collect();
    Redis::start_with(&settings)
}

/// Kills a gateway and starts another one in its place.
fn replace(gateway: &mut Gateway, config: &str) {
    kill("KILL", gateway.pid());
    gateway.wait();
    *gateway = Gateway::start(config);
}

/// Which of them reads a source.
fn reader(gateways: &[Gateway], source: &str) -> usize {
    let mut found = None;
    eventually("one of them reads", || {
        found = gateways.iter().position(|it| super::told(it, source)["reads_here"] == true);
        found.is_some()
    });
    found.expect("a reader")
}

/// Clients read in between, so that much is stored that must not stay.
fn browse(gateways: &[Gateway], row: u32) {
    for gateway in gateways {
        let _ = Client::get(gateway.public, &path(row * 7)).try_send();
    }
}

fn all_equal(gateways: &[Gateway], database: &Database) {
    for gateway in gateways {
        for product in 0..PRODUCTS_MAX {
            let path = path(product);
            assert_eq!(read(gateway, &path), database.read(&path), "{path}");
        }
    }
}

#[test]
fn what_is_read_equals_the_database_whatever_dies_meanwhile() {
    let (mut redis, database) = (durable(), Database::new());
    let upstream = database.serve();
    let config = config(&redis, &upstream, PRODUCTS);
    let mut gateways = vec![Gateway::start(&config), Gateway::start(&config)];
    reads(&gateways, "products");
    for product in 0..PRODUCTS_MAX {
        store(&gateways[0], &path(product));
    }
    for row in 1..=ROWS {
        database.write(&path(row), row);
        let id = (row % PRODUCTS_MAX).to_string();
        let event = ["XADD", STREAM, "*", "table", "products", "id", &id];
        assert!(redis.cli(&event).contains('-'), "the application's own write is kept");
        browse(&gateways, row);
        match row {
            100 => {
                // The one that reads; the other one goes on.
                let reader = reader(&gateways, "products");
                replace(&mut gateways[reader], &config);
            }
            150 | 250 => redis.restart(),
            200 => gateways.iter_mut().for_each(|gateway| replace(gateway, &config)),
            _ => {}
        }
    }
    all_done(&redis, "products");
    // What is acknowledged is done, at every gateway, and nothing that is older comes back.
    all_equal(&gateways, &database);
    let missed = gateways.iter().map(|it| gaps(it, "products")).sum::<f64>();
    assert_eq!(missed, 0.0, "nobody has missed anything");
}

/// A sender repeats a webhook until it has its 204; each of them holds from then on.
#[test]
fn each_webhook_that_was_acknowledged_holds_whatever_dies_meanwhile() {
    let (mut redis, database) = (durable(), Database::new());
    let upstream = database.serve();
    let config = config(&redis, &upstream, "");
    let mut gateways = [Gateway::start(&config), Gateway::start(&config)];
    let addresses = Mutex::new([gateways[0].public, gateways[1].public]);
    let (rows, checked) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for row in 1..=ROWS {
                let at = || *addresses.lock().unwrap();
                database.write(&path(row), row);
                deliver(row, at);
                rows.store(row, Ordering::Release);
                for address in at() {
                    // Whoever is dead by now says nothing.
                    let reply = Client::get(address, &path(row)).try_send();
                    if let Some(reply) = reply.ok().filter(|reply| reply.status == 200) {
                        assert_eq!(reply.text(), row.to_string(), "its 204 was there before");
                        checked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        let reached = |row| {
            eventually("the sender goes on", || rows.load(Ordering::Acquire) >= row);
        };
        for (row, first) in [(60, 0), (180, 1)] {
            reached(row);
            replace(&mut gateways[first], &config);
            addresses.lock().unwrap()[first] = gateways[first].public;
            reached(row + 60);
            redis.restart();
        }
        reached(ROWS);
    });
    assert!(checked.load(Ordering::Relaxed) > ROWS, "most were looked at, at both");
    all_equal(&gateways, &database);
    assert!(gateways.iter().any(|it| count(it, "hooks", "taken") > 0.0));
}

/// Sends one event until it is acknowledged, to whoever is there.
fn deliver(row: u32, addresses: impl Fn() -> [SocketAddr; 2]) {
    let body = format!(r#"{{"id": {}}}"#, row % PRODUCTS_MAX);
    let (id, mut attempt) = (format!("row-{row}"), 0);
    eventually("the webhook is acknowledged", || {
        attempt += 1;
        let address = addresses()[attempt % 2];
        let reply = send_to(address, &id, now(), &body);
        reply.is_ok_and(|reply| {
            assert!([204, 503].contains(&reply.status), "{}", reply.text());
            reply.status == 204
        })
    });
}

/// Nobody knows what was told on a channel while nobody listened: all of it goes.
#[test]
fn what_a_channel_told_nobody_is_purged_whatever_died() {
    let mut unheard = 0;
    purged_whatever_died(durable(), CHANNEL, |redis, row| {
        let event = format!(r#"{{"id": "{}"}}"#, row % PRODUCTS_MAX);
        unheard += u32::from(redis.cli(&["PUBLISH", "shop:changes", &event]) == "0");
    });
    assert!(unheard > 0, "something was told to nobody");
}

/// Nor what keys were changed meanwhile.
#[test]
fn what_keys_told_nobody_is_purged_whatever_died() {
    let redis = durable_with(&["--notify-keyspace-events", "K$g"]);
    purged_whatever_died(redis, KEYS, |redis, row| {
        let key = format!("product:{}", row % PRODUCTS_MAX);
        assert_eq!(redis.cli(&["SET", &key, &row.to_string()]), "OK");
    });
}

/// The application writes and `tell`s through Redis, while those who listen die, and Redis, and
/// their connections.
fn purged_whatever_died(mut redis: Redis, events: &str, mut tell: impl FnMut(&Redis, u32)) {
    let database = Database::new();
    let upstream: Upstream = database.serve();
    let config = config(&redis, &upstream, events);
    let mut gateways = vec![start(&redis, &upstream, events), start(&redis, &upstream, events)];
    eventually("one of them listens", || {
        gateways.iter().map(|it| gaps(it, "told")).sum::<f64>() == 1.0
    });
    for product in 0..PRODUCTS_MAX {
        store(&gateways[0], &path(product));
    }
    for row in 1..=ROWS {
        database.write(&path(row), row);
        tell(&redis, row);
        browse(&gateways, row);
        match row {
            100 | 200 => {
                let reader = reader(&gateways, "told");
                replace(&mut gateways[reader], &config);
            }
            150 => redis.restart(),
            250 => {
                assert!(!redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).contains("error"));
            }
            _ => {}
        }
    }
    all_become_equal(&gateways, &database);
}

/// What was missed is only known to be when somebody listens again.
fn all_become_equal(gateways: &[Gateway], database: &Database) {
    for gateway in gateways {
        for product in 0..PRODUCTS_MAX {
            let path = path(product);
            eventually("clients read what the database has", || {
                read(gateway, &path) == database.read(&path)
            });
        }
    }
}

/// Each second token is revoked by an event, while gateways and Redis die: all of these are
/// refused from then on, at every gateway, and nobody else's.
#[test]
fn each_token_that_an_event_revoked_is_refused_whatever_dies_meanwhile() {
    const TOKENS: usize = 120;
    let (mut redis, database) = (durable(), Database::new());
    let upstream = database.serve();
    let config = config(&redis, &upstream, revoke::EVENTS);
    let mut gateways = vec![Gateway::start(&config), Gateway::start(&config)];
    reads(&gateways, "tokens");
    let id = |number: usize| format!("t{number}");
    let token = |number| revoke::with("u1", &serde_json::json!({ "jti": id(number) }));
    let tokens: Vec<String> = (0..TOKENS).map(token).collect();
    assert_eq!(revoke::taken(&gateways[0], &tokens), vec![true; TOKENS]);
    for number in (0..TOKENS).step_by(2) {
        let id = id(number);
        let event = ["XADD", STREAM, "*", "what", "token", "id", &id, "exp", "9999999999"];
        assert!(redis.cli(&event).contains('-'), "the application's own write is kept");
        match number {
            20 | 70 => {
                let reader = reader(&gateways, "tokens");
                replace(&mut gateways[reader], &config);
            }
            40 | 100 => redis.restart(),
            80 => gateways.iter_mut().for_each(|gateway| replace(gateway, &config)),
            _ => {}
        }
    }
    all_done(&redis, "tokens");
    let expected: Vec<bool> = (0..TOKENS).map(|number| number % 2 == 1).collect();
    for gateway in &gateways {
        assert_eq!(revoke::taken(gateway, &tokens), expected);
    }
    let missed = gateways.iter().map(|it| gaps(it, "tokens")).sum::<f64>();
    assert_eq!(missed, 0.0, "nobody has missed anything");
}
