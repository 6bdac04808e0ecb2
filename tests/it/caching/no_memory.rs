//! A Redis that answers reads and has no memory for writes: what a write or a purge makes stale is
//! served by no gateway all the same.

use super::races::versioned;
use super::{House, ROUTES, is_hit};
use crate::support::{Client, Folder, Gateway, Redis, Upstream, eventually, response, run};

fn house(epochs: &str, upstream: Upstream) -> House {
    let redis = Redis::start();
    let store = format!(
        "[store]\nurl = \"{}\"\ntimeout = \"5s\"\ncache_epochs = \"{epochs}\"\n",
        redis.url()
    );
    let config = store + &upstream.table("shop") + ROUTES;
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    House { redis, upstream, gateways }
}

impl House {
    fn cached_at_both(&self, path: &str) {
        for gateway in [0, 1] {
            eventually("it is cached", || is_hit(&self.get(gateway, path)));
        }
    }

    fn take_memory(&self) {
        assert_eq!(self.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
        let refused = self.redis.cli(&["SET", "app:x", "1"]);
        assert!(refused.starts_with("(error) OOM"), "{refused}");
    }

    fn give_memory(&self) {
        assert_eq!(self.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    }
}

#[test]
fn a_write_ends_the_copies_of_every_gateway() {
    for epochs in ["ask", "follow"] {
        let house = house(epochs, versioned());
        for round in 1..=2 {
            house.cached_at_both("/p");
            house.cached_at_both("/other");
            house.take_memory();
            assert!(is_hit(&house.get(1, "/p")), "reads are answered");
            assert_eq!(house.request(0, "POST", "/p").text(), round.to_string());
            assert_eq!(house.get(0, "/p").text(), round.to_string(), "{epochs}");
            if epochs == "follow" {
                // It hears of it a moment later.
                eventually("the other one hears of it", || !is_hit(&house.get(1, "/p")));
            }
            for _ in 0..3 {
                for path in ["/p", "/other"] {
                    let reply = house.get(1, path);
                    assert!(!is_hit(&reply), "{epochs}: {reply:?}");
                    let status = reply.header("cache-status").unwrap();
                    assert!(!status.contains("stored"), "nothing is kept: {status}");
                }
                assert_eq!(house.get(1, "/p").text(), round.to_string(), "{epochs}");
            }
            // A second write finds no base to take away, and changes nothing.
            assert_eq!(house.request(1, "POST", "/other").status, 200);
            let metrics = Client::get(house.gateways[0].admin, "/metrics").send().text();
            assert!(metrics.contains("function=\"invalidation\""), "{metrics}");
            house.give_memory();
            house.cached_at_both("/p");
            for gateway in [0, 1] {
                assert_eq!(house.get(gateway, "/p").text(), round.to_string(), "{epochs}");
            }
        }
        let log = house.gateways[0].stderr();
        assert!(log.contains("no memory for an invalidation"), "{log}");
    }
}

/// An unsafe answer that names a group is an invalidation like any other.
#[test]
fn a_write_that_withdraws_a_group_does_so_too() {
    let upstream = Upstream::with(|request, connection| {
        let is_write = request.request_line().starts_with("POST");
        let field = if is_write { "Cache-Group-Invalidation" } else { "Cache-Groups" };
        let answer = response(&format!("200 OK\r\n{field}: \"g\""), "hello");
        let _ = std::io::Write::write_all(connection, answer.as_bytes());
    });
    let house = House::start(upstream);
    house.cached_at_both("/p");
    house.take_memory();
    assert_eq!(house.request(0, "POST", "/elsewhere").status, 200);
    for gateway in [1, 0] {
        assert!(!is_hit(&house.get(gateway, "/p")));
    }
}

#[test]
fn a_purge_empties_everything_and_says_so() {
    let house = house("ask", versioned());
    let admin = format!("http://{}", house.gateways[0].admin);
    for arguments in [
        ["--path", "/p"].as_slice(),
        &["--tag", "t", "--soft"],
        &["--url", "http://h/p"],
        &["--all"],
    ] {
        house.cached_at_both("/p");
        house.cached_at_both("/other");
        house.take_memory();
        let ran = run(&Folder::new(), &[&["purge"], arguments, &["--admin", &admin]].concat());
        let said = "purged: everything, as the store has no memory for a smaller purge\n";
        assert_eq!((ran.code, &*ran.stdout), (Some(0), said), "{arguments:?}: {}", ran.stderr);
        for path in ["/p", "/other"] {
            assert!(!is_hit(&house.get(1, path)), "{arguments:?}");
        }
        house.give_memory();
    }
}
