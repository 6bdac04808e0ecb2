//! Epochs that are pushed: hits ask Redis nothing, and still end when somebody elsewhere writes.

use super::races::versioned;
use super::{House, ROUTES, is_hit};
use crate::support::{Gateway, Redis, eventually};

fn house() -> House {
    let (redis, upstream) = (Redis::start(), versioned());
    let store = format!(
        "[store]\nurl = \"{}\"\ntimeout = \"5s\"\ncache_epochs = \"follow\"\n",
        redis.url()
    );
    let config = store + &upstream.table("shop") + ROUTES;
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    House { redis, upstream, gateways }
}

impl House {
    /// How often epochs were read from Redis.
    fn reads(&self) -> u64 {
        let stats = self.redis.cli(&["INFO", "commandstats"]);
        let line = stats.lines().find(|line| line.starts_with("cmdstat_mget:"));
        let calls = line.and_then(|line| line.split("calls=").nth(1)?.split(',').next());
        calls.map_or(0, |calls| calls.parse().expect("a number"))
    }

    /// Whether a hit at this gateway reads no epochs.
    fn asks_nothing(&self, gateway: usize) -> bool {
        let before = self.reads();
        is_hit(&self.get(gateway, "/p")) && self.reads() == before
    }
}

#[test]
fn a_hit_asks_nothing_and_ends_with_a_write_at_the_other_gateway() {
    let house = house();
    for writer in [0, 1] {
        for gateway in [0, 1] {
            house.get(gateway, "/p");
            eventually("hits ask nothing", || house.asks_nothing(gateway));
        }
        let written = house.request(writer, "POST", "/p").text();
        assert_eq!(house.get(writer, "/p").text(), written, "its own gateway knows at once");
        eventually("the other one hears of it", || house.get(1 - writer, "/p").text() == written);
    }
}

#[test]
fn without_the_push_hits_ask_again_and_nothing_is_stale() {
    let house = house();
    for gateway in [0, 1] {
        house.get(gateway, "/p");
        eventually("hits ask nothing", || house.asks_nothing(gateway));
    }
    // The table is empty once the connection is gone: what is asked then is true.
    house.redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    eventually("the connections are back", || house.request(0, "POST", "/p").status == 200);
    eventually("the other gateway asks", || house.get(1, "/p").status == 200);
    let written = house.request(0, "POST", "/p").text();
    eventually("the write is seen", || house.get(1, "/p").text() == written);
    eventually("it is trusted again", || house.asks_nothing(1));
}
