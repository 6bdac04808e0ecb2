//! Routes with a cache: what is stored may be older than what a caller wrote, and what a reader
//! says may be older than what was made stale.

use super::{Service, fleet, told};
use crate::support::{AUTH, Client, Gateway, Redis, Reply, claims, operate, token};

/// A service behind two gateways whose routes keep what it says.
struct House {
    service: Service,
    gateways: [Gateway; 2],
    _redis: Redis,
}

impl House {
    fn start() -> Self {
        let (redis, service) = (Redis::start(), Service::start());
        let config = format!(
            "{AUTH}{}{}
            [routes.other]
            path = \"/other/*\"
            upstream = \"other\"
            invalidates = [\"/*\"]
            [routes.all]
            path = \"/*\"
            upstream = \"shop\"
            auth = \"users\"
            cache = {{ ttl = \"1h\", shared = true }}",
            service.table("shop", "stick = \"1h\""),
            service.servers.table("other"),
        );
        let gateways = fleet(&redis.url(), &config);
        Self { service, gateways, _redis: redis }
    }

    fn ask(&self, gateway: usize, user: &str, method: &str, path: &str) -> Reply {
        let asked = Client::request(self.gateways[gateway].public, method, path);
        asked.bearer(token(claims(user))).send()
    }

    fn get(&self, gateway: usize, user: &str, path: &str) -> Reply {
        self.ask(gateway, user, "GET", path)
    }
}

fn is_hit(reply: &Reply) -> bool {
    reply.header("cache-status").is_some_and(|it| it.contains("; hit"))
}

#[test]
fn what_was_stored_before_his_write_does_not_answer_a_caller() {
    let house = House::start();
    assert_eq!(house.get(0, "bob", "/a").text(), "readers 0");
    assert!(is_hit(&house.get(0, "ada", "/a")));
    // It changes `/a` as well, and nobody has told the gateway so.
    assert_eq!(house.ask(0, "ada", "PUT", "/b").status, 200);
    for gateway in [0, 1] {
        let reply = house.get(gateway, "ada", "/a");
        assert_eq!(reply.text(), "servers 0", "at gateway {gateway}");
        let status = reply.header("cache-status").unwrap();
        assert!(status.contains("fwd=bypass"), "{status}");
    }
    // Others are answered as ever, and by nothing of his.
    let reply = house.get(0, "bob", "/a");
    assert!(is_hit(&reply), "{reply:?}");
    assert_eq!(reply.text(), "readers 0");
    let only_stored = Client::get(house.gateways[0].public, "/a")
        .bearer(token(claims("ada")))
        .header("Cache-Control", "only-if-cached");
    assert_eq!(only_stored.send().status, 504);
    assert_eq!(house.service.readers.seen(), 1);
}

#[test]
fn what_a_reader_says_behind_a_write_is_not_stored_for_all() {
    let house = House::start();
    assert_eq!(house.get(1, "bob", "/a").text(), "readers 0");
    assert_eq!(house.ask(0, "ada", "PUT", "/a").status, 200);
    // Bob wrote nothing. The reader would tell him of before, and all others for an hour.
    let reply = house.get(1, "bob", "/a");
    assert_eq!(reply.text(), "servers 1");
    let reply = house.get(1, "bob", "/a");
    assert!(is_hit(&reply), "{reply:?}");
    assert_eq!(reply.text(), "servers 1");
    assert_eq!(told(&house.gateways[1], 3), ["readers", "stored", "-"]);
}

#[test]
fn what_a_reader_says_behind_a_purge_is_not_stored_for_all() {
    let house = House::start();
    assert_eq!(house.get(1, "bob", "/a").text(), "readers 0");
    let purged = operate(&house.gateways[0], "POST", "/v1/cache/purge", r#"{"path": "/a"}"#);
    assert_eq!(purged.status, 200);
    assert_eq!(house.get(1, "bob", "/a").text(), "servers 0");
    assert!(is_hit(&house.get(1, "ada", "/a")));
}

#[test]
fn what_another_upstream_makes_stale_is_not_fetched_from_readers() {
    let house = House::start();
    assert_eq!(house.get(1, "bob", "/a").text(), "readers 0");
    assert_eq!(house.ask(0, "ada", "PUT", "/other/1").status, 200);
    assert_eq!(house.get(1, "bob", "/a").text(), "servers 0");
    assert!(is_hit(&house.get(1, "bob", "/a")));
}
