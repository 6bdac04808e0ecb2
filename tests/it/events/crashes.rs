//! The application writes while gateways and Redis die: what clients read then is what it has.

use std::time::Duration;

use super::{Database, PRODUCTS, STREAM, config, read, start, store};
use crate::support::{Client, Gateway, Redis, eventually_within, kill};

/// How long after the last event a client may read what was before.
const BEHIND: Duration = Duration::from_secs(2);
/// The same where the machine is busy, and processes must be found dead.
const PATIENCE: Duration = Duration::from_secs(15);
/// Rows that are written, with an event each.
const ROWS: u32 = 300;
/// Products.
const PRODUCTS_MAX: u32 = 20;

fn path(row: u32) -> String {
    format!("/products/{}", row % PRODUCTS_MAX)
}

#[test]
fn what_is_read_equals_the_database_whatever_dies_meanwhile() {
    let settings = ["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned);
    let (mut redis, database) = (Redis::start_with(&settings), Database::new());
    let upstream = database.serve();
    let mut gateways = vec![start(&redis, &upstream, PRODUCTS), start(&redis, &upstream, PRODUCTS)];
    for product in 0..PRODUCTS_MAX {
        store(&gateways[0], &path(product));
    }
    for row in 1..=ROWS {
        database.write(&path(row), row);
        let id = (row % PRODUCTS_MAX).to_string();
        let event = ["XADD", STREAM, "*", "table", "products", "id", &id];
        assert!(redis.cli(&event).contains('-'), "the application's own write is kept");
        // Clients read in between, so that much is stored that must not stay.
        for gateway in &gateways {
            let _ = Client::get(gateway.public, &path(row * 7)).try_send();
        }
        match row {
            100 => {
                // Whichever reads; the other one goes on.
                kill("KILL", gateways[0].pid());
                gateways[0].wait();
                gateways[0] = Gateway::start(&config(&redis, &upstream, PRODUCTS));
            }
            150 => redis.restart(),
            200 => {
                for gateway in &mut gateways {
                    kill("KILL", gateway.pid());
                    gateway.wait();
                    *gateway = Gateway::start(&config(&redis, &upstream, PRODUCTS));
                }
            }
            250 => redis.restart(),
            _ => {}
        }
    }
    assert!(BEHIND < PATIENCE);
    for gateway in &gateways {
        for product in 0..PRODUCTS_MAX {
            let path = path(product);
            eventually_within(PATIENCE, "clients read what the database has", || {
                read(gateway, &path) == database.read(&path)
            });
        }
    }
    // It stays so: nothing that is older comes back.
    for gateway in &gateways {
        for product in 0..PRODUCTS_MAX {
            assert_eq!(read(gateway, &path(product)), database.read(&path(product)));
        }
    }
}
