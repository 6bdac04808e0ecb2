//! What gateways that share a limit admit together while their store is away, and over its return.

use super::{ask, upstream};
use crate::support::{Client, Gateway, Redis, TcpProxy, Upstream, eventually};

const LIMIT: usize = 30;

/// Three gateways that share a limit of 30 an hour.
struct Fleet {
    proxy: TcpProxy,
    gateways: [Gateway; 3],
    _upstream: Upstream,
    _redis: Redis,
}

impl Fleet {
    fn start(on_outage: &str) -> Self {
        let (redis, upstream) = (Redis::start(), upstream());
        let proxy = TcpProxy::start(redis.address());
        let config = format!(
            "[store]\nurl = \"{}\"\n[store.on_outage]\n{on_outage}\n{}\
             [limits.api]\nkey = [\"header:x-who\"]\nallow = [\"{LIMIT}/1h\"]\n\
             [routes.limited]\npath = \"/*\"\nupstream = \"shop\"\nlimits = [\"api\"]\n",
            proxy.url(),
            upstream.table("shop")
        );
        let gateways = [(); 3].map(|()| Gateway::start(&config));
        let fleet = Self { proxy, gateways, _upstream: upstream, _redis: redis };
        for at in 0..3 {
            eventually("all gateways are seen", || fleet.metric(at, "gateways_seen") == 3);
        }
        fleet
    }

    /// How many of so many requests a gateway admits.
    fn admits(&self, at: usize, who: &str, times: usize) -> usize {
        let admitted = |_: &usize| match ask(&self.gateways[at], "/", &[("x-who", who)]).status {
            200 => true,
            429 => false,
            other => panic!("{other}"),
        };
        (0..times).filter(admitted).count()
    }

    fn metric(&self, at: usize, name: &str) -> usize {
        let text = Client::get(self.gateways[at].admin, "/metrics").send().text();
        let begin = format!("portcullis_{name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&*begin));
        line.expect(name).parse().expect("a number")
    }

    fn goes_away(&self) {
        self.proxy.refuse();
        for at in 0..3 {
            eventually("the store is away", || self.metric(at, "store_up") == 0);
        }
    }

    fn is_back(&self) {
        self.proxy.pass();
        for at in 0..3 {
            eventually("the store is back", || self.metric(at, "store_up") == 1);
        }
    }
}

#[test]
fn a_limit_is_shared_while_the_store_is_away_and_the_store_is_told_afterwards() {
    let fleet = Fleet::start("");
    // One has had more than his part, and keeps that; the others get theirs.
    assert_eq!(fleet.admits(0, "ann", 12), 12);
    fleet.goes_away();
    assert_eq!([0, 1, 2].map(|at| fleet.admits(at, "ann", 20)), [0, 10, 10]);
    // Nobody has asked for this one before: everybody has his part.
    assert_eq!([0, 1, 2].map(|at| fleet.admits(at, "bob", 20)), [10, 10, 10]);
    assert_eq!(fleet.metric(1, "limit_local_total"), 40);
    fleet.is_back();
    // Whoever asks first has told what he owes; what the others owe is told within a second.
    let owed = |at: usize| [10, 20, 20][at];
    for at in 0..3 {
        eventually("the store knows", || {
            fleet.metric(at, "limit_reconciled_units_total") == owed(at)
        });
    }
    for who in ["ann", "bob"] {
        assert_eq!([0, 1, 2].map(|at| fleet.admits(at, who, 3)), [0, 0, 0], "{who}");
    }
    assert_eq!(fleet.admits(2, "eve", LIMIT + 1), LIMIT);
}

#[test]
fn who_asks_first_after_an_outage_pays_first() {
    let fleet = Fleet::start("");
    fleet.goes_away();
    assert_eq!(fleet.admits(0, "ann", 20), 10);
    fleet.proxy.pass();
    // Whether or not the store answers by now: 10 are gone, and none is counted twice.
    let mut admitted = 0;
    eventually("the store answers", || {
        admitted += fleet.admits(0, "ann", 1);
        fleet.metric(0, "store_up") == 1
    });
    admitted += fleet.admits(0, "ann", LIMIT);
    assert_eq!(admitted, LIMIT - 10);
}

#[test]
fn without_reconciliation_the_store_is_not_told() {
    let fleet = Fleet::start("nodes = 5\nreconcile = false");
    fleet.goes_away();
    // More gateways are configured than were seen.
    assert_eq!([0, 1, 2].map(|at| fleet.admits(at, "ann", 20)), [6, 6, 6]);
    fleet.is_back();
    assert_eq!(fleet.admits(1, "ann", LIMIT + 1), LIMIT);
    assert_eq!(fleet.metric(1, "limit_reconciled_units_total"), 0);
}
