//! Several gateways and one Redis: one account, one order, one certificate, whoever dies.

use std::time::Duration;

use tokio::time::Instant;

use super::{LONG, Node, SECRET, ask_all, key, record};
use crate::support::{Pebble, Redis, TcpProxy, eventually};

const NAMES: &str = "['a.test']";
/// Short leases: who takes over waits for their end.
const QUICK: &str = "challenges = ['http-01']\nlease = '2s'\nfollow = '100ms'\nretry = '1s'";
const LEASE: Duration = Duration::from_secs(2);
const FOLLOW: Duration = Duration::from_millis(100);

#[test]
fn three_gateways_get_one_certificate_each_by_one_order() {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    let names = "[['a.test', 'b.test'], ['c.test']]";
    let acme = "contact = 'ops@example.com'\nlease = '5s'";
    // The first orders at once, and the authority may ask any of them.
    pebble.hold("dir");
    let nodes = [(); 3].map(|()| Node::of_fleet(&pebble, &redis.url(), names, acme));
    ask_all(&pebble, &nodes.each_ref());
    pebble.release();
    let client = pebble.client();
    for name in ["a.test", "b.test", "c.test"] {
        let shown = nodes.each_ref().map(|node| node.shows(&client, name));
        assert_eq!((&shown[0], &shown[0]), (&shown[1], &shown[2]), "{name}");
    }
    assert_eq!((pebble.orders(), pebble.accounts()), (2, 1));
    // All are in one slot, and none stays for ever.
    let keys = redis.cli(&["KEYS", "app:{tls}:*"]);
    for key in keys.lines() {
        assert!(redis.cli(&["PTTL", key]).parse::<i64>().unwrap() > 0, "{key} has no end");
    }
    // No private key lies bare.
    for name in ["cert:a.test", "cert:c.test", "account"] {
        let key = record(&redis, name)["key"].clone();
        assert!(key.as_str().unwrap().starts_with("aes-256-gcm:"), "{name}: {key}");
    }
}

#[test]
fn a_gateway_that_begins_later_orders_nothing() {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    let first = Node::of_fleet(&pebble, &redis.url(), NAMES, QUICK);
    ask_all(&pebble, &[&first]);
    let client = pebble.client();
    let certificate = first.shows(&client, "a.test");
    let later = Node::of_fleet(&pebble, &redis.url(), NAMES, QUICK);
    // From the first handshake on.
    let stream = client.connect(later.tls, "a.test").unwrap();
    assert_eq!(stream.conn.peer_certificates().unwrap()[0].to_vec(), certificate);
    assert_eq!((pebble.orders(), pebble.accounts()), (1, 1));
}

/// Kills the gateway that orders while this answer is on its way to it; another one finishes, and
/// is the one that the authority asks.
fn dies_before(what: &'static str, orders: usize) {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    pebble.hold("dir");
    let mut leader = Node::of_fleet(&pebble, &redis.url(), NAMES, QUICK);
    pebble.is_holding("dir");
    let heir = Node::of_fleet(&pebble, &redis.url(), NAMES, QUICK);
    heir.says("another gateway orders it");
    pebble.http.to(&[heir.clear]);
    pebble.hold(what);
    pebble.is_holding(what);
    leader.gateway.signal("KILL");
    leader.gateway.wait();
    pebble.release();
    heir.connects(&pebble.client(), "a.test");
    assert_eq!((pebble.orders(), pebble.accounts()), (orders, 1), "{:?}", pebble.asked());
    heir.counts("portcullis_acme_orders_total", "issued", 1.0);
}

#[test]
fn a_gateway_that_dies_when_it_has_the_lease_is_followed() {
    dies_before("dir", 1);
}

#[test]
fn a_gateway_that_dies_when_it_has_asked_for_the_account_leaves_one_account() {
    dies_before("sign-me-up", 1);
}

/// The one moment in which nobody can know of the order.
#[test]
fn a_gateway_that_dies_when_it_has_asked_for_the_order_leaves_an_order_behind() {
    dies_before("order-plz", 2);
}

#[test]
fn a_gateway_that_dies_when_the_order_is_taken_is_followed_without_another() {
    dies_before("authZ", 1);
}

#[test]
fn a_gateway_that_dies_when_it_has_answered_is_followed_without_another() {
    dies_before("chalZ", 1);
}

#[test]
fn a_gateway_that_dies_while_the_authority_looks_is_followed_without_another() {
    dies_before("my-order", 1);
}

#[test]
fn a_gateway_that_dies_when_it_has_sent_its_request_is_followed_without_another() {
    dies_before("finalize-order", 1);
}

#[test]
fn a_gateway_that_dies_before_it_has_the_certificate_is_followed_without_another() {
    dies_before("certZ", 1);
}

#[test]
fn a_gateway_frozen_past_its_lease_writes_nothing_over_its_successors() {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    pebble.hold("certZ");
    let frozen = Node::of_fleet(&pebble, &redis.url(), NAMES, QUICK);
    pebble.http.to(&[frozen.clear]);
    pebble.is_holding("certZ");
    frozen.gateway.signal("STOP");
    let heir = Node::of_fleet(&pebble, &redis.url(), NAMES, QUICK);
    pebble.http.to(&[heir.clear]);
    pebble.release();
    heir.connects(&pebble.client(), "a.test");
    let written = record(&redis, "cert:a.test");
    frozen.gateway.signal("CONT");
    frozen.counts("portcullis_acme_orders_total", "lease_lost", 1.0);
    // It takes what its successor got, and writes nothing.
    let client = pebble.client();
    assert_eq!(frozen.shows(&client, "a.test"), heir.shows(&client, "a.test"));
    assert_eq!(record(&redis, "cert:a.test"), written);
    assert_eq!(pebble.orders(), 1);
}

/// An order takes longer than a lease lasts, which is renewed for as long as somebody works.
#[test]
fn an_order_longer_than_its_lease_stays_with_who_began_it() {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    pebble.hold("finalize-order");
    let leader = Node::of_fleet(&pebble, &redis.url(), NAMES, QUICK);
    pebble.http.to(&[leader.clear]);
    pebble.is_holding("finalize-order");
    let heir = Node::of_fleet(&pebble, &redis.url(), NAMES, QUICK);
    heir.says("another gateway orders it");
    let holder = redis.cli(&["GET", &key("lease:a.test")]);
    assert_ne!(holder, "");
    let began = Instant::now();
    eventually("three leases could have ended", || {
        assert_eq!(redis.cli(&["GET", &key("lease:a.test")]), holder);
        began.elapsed() > 3 * LEASE
    });
    pebble.release();
    let client = pebble.client();
    assert_eq!(leader.shows(&client, "a.test"), heir.shows(&client, "a.test"));
    assert_eq!((pebble.orders(), pebble.count("finalize-order")), (1, 1), "{:?}", pebble.asked());
    leader.counts("portcullis_acme_orders_total", "issued", 1.0);
    for node in [&leader, &heir] {
        assert!(!node.gateway.stderr().contains("an order by ACME was given up"));
    }
}

/// Two gateways with nothing else in common want the account at the same time.
#[test]
fn who_needs_an_account_that_is_being_made_waits_for_it() {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    pebble.hold("sign-me-up");
    let quick = QUICK.replace("'2s'", "'5s'");
    let first = Node::of_fleet(&pebble, &redis.url(), "['a.test']", &quick);
    pebble.is_holding("sign-me-up");
    let second = Node::of_fleet(&pebble, &redis.url(), "['b.test']", &quick);
    ask_all(&pebble, &[&first, &second]);
    second.says("state=\"leased\"");
    let began = Instant::now();
    eventually("it has looked for the account many times", || {
        assert_eq!(pebble.count("sign-me-up"), 1, "{:?}", pebble.asked());
        began.elapsed() > 10 * FOLLOW
    });
    pebble.release();
    first.connects(&pebble.client(), "a.test");
    second.connects(&pebble.client(), "b.test");
    assert_eq!((pebble.count("sign-me-up"), pebble.accounts()), (1, 1), "{:?}", pebble.asked());
    assert_eq!(pebble.orders(), 2);
}

/// The budget is that of the account, not of a name nor of a gateway.
#[test]
fn what_a_fleet_may_order_is_one_number() {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    let acme = format!("{QUICK}\norders = '2/1h'");
    let sets = [["a.test", "b.test"], ["c.test", "d.test"]];
    let nodes = sets.map(|[one, other]| {
        Node::of_fleet(&pebble, &redis.url(), &format!("[['{one}'], ['{other}']]"), &acme)
    });
    ask_all(&pebble, &nodes.each_ref());
    let client = pebble.client();
    let served = || {
        let all = nodes.iter().zip(&sets);
        all.flat_map(|(node, names)| names.map(|name| client.connect(node.tls, name).is_ok()))
            .filter(|is_ok| *is_ok)
            .count()
    };
    eventually("two have come", || served() == 2);
    eventually("the others were refused here", || {
        let refused = |node: &Node| {
            let said = node.gateway.stderr();
            said.matches("server.tls.acme.orders is used up").count()
        };
        nodes.iter().map(refused).sum::<usize>() >= 4
    });
    assert_eq!((pebble.orders(), served()), (2, 2), "{:?}", pebble.asked());
}

/// The authority is told to look once all gateways can answer it, and not before.
#[test]
fn an_answer_that_could_not_be_stored_is_not_announced() {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    let proxy = TcpProxy::start(redis.address());
    pebble.hold("authZ");
    let node = Node::of_fleet(&pebble, &proxy.url(), NAMES, &QUICK.replace("'2s'", "'30s'"));
    ask_all(&pebble, &[&node]);
    pebble.is_holding("authZ");
    proxy.refuse();
    pebble.release();
    node.counts("portcullis_acme_orders_total", "store", 1.0);
    assert_eq!(pebble.count("chalZ"), 0, "{:?}", pebble.asked());
    // The lease of the one who could not go on ends by itself, or is ended here.
    redis.cli(&["DEL", &key("lease:a.test")]);
    proxy.pass();
    node.connects(&pebble.client(), "a.test");
    assert_eq!(pebble.orders(), 1);
}

#[test]
fn without_redis_what_is_there_is_shown_and_nothing_is_ordered() {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    let proxy = TcpProxy::start(redis.address());
    let acme = format!("{QUICK}\ncheck = '100ms'");
    let node = Node::of_fleet(&pebble, &proxy.url(), NAMES, &acme);
    ask_all(&pebble, &[&node]);
    let client = pebble.client();
    let certificate = node.shows(&client, "a.test");
    proxy.refuse();
    node.counts("portcullis_acme_orders_total", "store", 1.0);
    assert_eq!(node.shows(&client, "a.test"), certificate);
    let cold = Node::of_fleet(&pebble, &proxy.url(), NAMES, &acme);
    cold.says("state=\"store\"");
    assert!(client.connect(cold.tls, "a.test").is_err(), "it has none, and orders none");
    // A reload takes nothing away either.
    node.reload("names = ['a.test', 'b.test']", "names = ['a.test']");
    assert_eq!(node.shows(&client, "a.test"), certificate);
    proxy.pass();
    node.connects(&client, "b.test");
    assert_eq!(cold.shows(&client, "a.test"), certificate);
    assert_eq!(pebble.orders(), 2);
}

#[test]
fn a_follower_that_could_not_read_a_certificate_tries_again() {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    let node = Node::of_fleet(&pebble, &redis.url(), NAMES, QUICK);
    ask_all(&pebble, &[&node]);
    let client = pebble.client();
    let certificate = node.shows(&client, "a.test");
    drop(node);
    let place = key("cert:a.test");
    let record = redis.cli(&["GET", &place]);
    redis.cli(&["DEL", &place]);
    redis.cli(&["RPUSH", &place, "no text"]);
    redis.cli(&["CONFIG", "RESETSTAT"]);
    // Only who follows looks again within the test.
    let follower = Node::of_fleet(&pebble, &redis.url(), NAMES, &QUICK.replace("'1s'", "'1h'"));
    // It is read at the start, by who looks after it, and by who follows.
    eventually("it is read in vain", || {
        let errors = redis.cli(&["INFO", "errorstats"]);
        let count = errors.split("errorstat_WRONGTYPE:count=").nth(1);
        count.is_some_and(|it| it.trim_end().lines().next().unwrap().parse::<u32>().unwrap() > 2)
    });
    redis.cli(&["SET", &place, &record, "EX", "600"]);
    assert_eq!(follower.shows(&client, "a.test"), certificate);
    assert_eq!(pebble.orders(), 1);
}

#[test]
fn a_redis_that_lost_everything_gets_the_certificate_back() {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    let acme = format!("{QUICK}\ncheck = '100ms'");
    let node = Node::of_fleet(&pebble, &redis.url(), NAMES, &acme);
    ask_all(&pebble, &[&node]);
    node.connects(&pebble.client(), "a.test");
    let was = record(&redis, "cert:a.test");
    redis.cli(&["FLUSHALL"]);
    eventually("the certificate is back", || record(&redis, "cert:a.test") == was);
    node.counts("portcullis_acme_orders_total", "put_back", 1.0);
    assert_eq!(pebble.orders(), 1);
}

#[test]
fn each_certificate_begins_the_life_of_the_account_anew() {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    let node = Node::of_fleet(&pebble, &redis.url(), NAMES, QUICK);
    ask_all(&pebble, &[&node]);
    node.connects(&pebble.client(), "a.test");
    let was = record(&redis, "account");
    redis.cli(&["PEXPIRE", &key("account"), "600000"]);
    node.reload("names = ['a.test', 'b.test']", "names = ['a.test']");
    node.connects(&pebble.client(), "b.test");
    let year = 365 * 24 * 3_600_000;
    eventually("it lives another year", || {
        redis.cli(&["PTTL", &key("account")]).parse::<i64>().unwrap() > year - 600_000
    });
    assert_eq!(record(&redis, "account"), was);
}

#[test]
fn another_secret_reads_nothing_and_orders_anew() {
    let (pebble, redis) = (Pebble::start(LONG), Redis::start());
    let old = Node::of_fleet(&pebble, &redis.url(), NAMES, &format!("{QUICK}\ncheck = '100ms'"));
    ask_all(&pebble, &[&old]);
    let client = pebble.client();
    let certificate = old.shows(&client, "a.test");
    let secret = SECRET.replace("an example", "another secret");
    let started = |secret: &str| {
        let tables = format!("[store]\nurl = \"{}\"", redis.url());
        Node::start_with(&pebble, NAMES, secret, ["", QUICK, &tables])
    };
    let new = started(&secret);
    ask_all(&pebble, &[&new]);
    let renewed = new.shows(&client, "a.test");
    assert_ne!(renewed, certificate);
    for what in ["a stored certificate is not used", "the account is not used"] {
        new.says(what);
    }
    let said = new.gateway.stderr();
    for key in ["cert:a.test", "account"] {
        assert!(said.contains(&format!("the secret key in {} cannot be read", self::key(key))));
    }
    assert!(said.contains("server.tls.secret, which must be the same"), "{said}");
    assert_eq!((pebble.orders(), pebble.accounts()), (2, 2));
    // Who still has the old secret goes on with what it has, and says so once.
    old.says("a stored certificate is not used");
    assert_eq!(old.shows(&client, "a.test"), certificate);
    // The rest of the fleet follows, and orders nothing.
    assert_eq!(started(&secret).shows(&client, "a.test"), renewed);
    assert_eq!(old.gateway.stderr().matches("a stored certificate is not used").count(), 1);
    assert_eq!(pebble.orders(), 2);
}
