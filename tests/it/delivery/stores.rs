//! Queues on every kind of store, under load, while its servers change: what was acknowledged is
//! delivered, in its order, and again only where a lease was lost.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{metric, shards::shard_of};
use crate::support::{
    Client, Gateway, Redis, RedisCluster, RedisSentinels, Upstream, eventually, eventually_within,
    response,
};

/// Longest wait for servers that change, and then for leases of 5 s that nobody holds any more.
const CHANGE: Duration = Duration::from_secs(150);
/// Lines of requests, and how many there are in each.
const LINES: [usize; 2] = [6, 40];
/// What lies in the slot of the queue.
const OPEN: &str = "app:queue:{mail.0}:open";

/// Whoever has a line asks for one request after the other, each until it is acknowledged.
fn config(url: &str, upstream: &Upstream, (timeout, queue): (&str, &str)) -> String {
    let store = format!("[store]\nurl = \"{url}\"\ntimeout = \"{timeout}\"\n");
    let routes = "[routes.jobs]\npath = \"/jobs\"\nmethods = [\"POST\"]\nupstream = \"mailer\"\n\
                  deliver = { queue = \"mail\" }\n";
    format!(
        "{store}{}[queues.mail]\nbackoff = \"20ms\"\norder_by = \"header:x-line\"\n\
         {queue}{routes}",
        upstream.table("mailer")
    )
}

fn fleet(url: &str, upstream: &Upstream, queue: &str) -> [Gateway; 2] {
    // Deadlines are not the matter here, and the machine may be busy.
    let queue = format!("lease = \"5s\"\n{queue}");
    let config = config(url, upstream, ("500ms", &queue));
    [Gateway::start(&config), Gateway::start(&config)]
}

fn upstream() -> Upstream {
    Upstream::replying(response("200 OK", "sent"))
}

/// The id, once it is acknowledged; nothing where it cannot be now.
fn ask(gateway: &Gateway, (line, number): (&str, usize)) -> Option<String> {
    let key = format!("{line}-{number}");
    let request = Client::request(gateway.public, "POST", "/jobs");
    let request = request.header("X-Line", line).header("Idempotency-Key", key);
    let reply = request.body(format!("{line} {number}")).send();
    assert!([202, 503].contains(&reply.status), "{}", reply.text());
    (reply.status == 202).then(|| reply.json()["id"].as_str().expect("an id").to_owned())
}

/// What was acknowledged: the ids, by their keys.
type Acknowledged = BTreeMap<String, String>;

/// Asks for all requests of all lines while `story` goes on, which is told how to wait until so
/// many are acknowledged.
fn under_load(gateways: &[Gateway; 2], story: impl FnOnce(&dyn Fn(usize))) -> Acknowledged {
    let acknowledged = Mutex::new(Acknowledged::new());
    let count = || acknowledged.lock().unwrap().len();
    std::thread::scope(|scope| {
        for number in 0..LINES[0] {
            let acknowledged = &acknowledged;
            scope.spawn(move || {
                let line = format!("l{number}");
                for number in 0..LINES[1] {
                    let mut turn = number;
                    eventually_within(CHANGE, "it is acknowledged", || {
                        turn += 1;
                        let Some(id) = ask(&gateways[turn % 2], (&line, number)) else {
                            return false;
                        };
                        acknowledged.lock().unwrap().insert(format!("{line}-{number}"), id);
                        true
                    });
                }
            });
        }
        story(&|most| eventually_within(CHANGE, "the load goes on", || count() >= most));
    });
    acknowledged.into_inner().unwrap()
}

/// Deliveries of both gateways at a time.
const UNDER_WAY: usize = 2 * 16;

/// What became of attempts.
fn ended(gateways: &[Gateway; 2], outcome: &str) -> f64 {
    let name = "portcullis_queue_attempts_total";
    gateways.iter().map(|it| metric(it, name, Some(("outcome", outcome)))).sum()
}

/// Each one came under its own id, none of a line before an earlier one, and none again but where a
/// settle was refused: no gateway has died. Where a server has, between so many sends, what was
/// taken then may come again as well, since no replica had heard of it; and what nobody had
/// acknowledged may have come under another id. `server` is one that knows where the queue is.
fn holds(
    gateways: &[Gateway; 2],
    (server, died): (&Redis, Option<(usize, usize)>),
    upstream: &Upstream,
    all: &Acknowledged,
) {
    assert_eq!(all.len(), LINES[0] * LINES[1]);
    eventually_within(CHANGE, "all are delivered", || server.cli(&["ZCARD", OPEN]) == "0");
    eventually_within(CHANGE, "all attempts have ended", || {
        let outcomes = ["done", "retry", "dead", "back", "lost"];
        let count: f64 = outcomes.iter().map(|outcome| ended(gateways, outcome)).sum();
        count >= upstream.seen() as f64
    });
    let (mut came, mut last, mut unheard) = (BTreeMap::new(), BTreeMap::new(), 0);
    for (at, sent) in upstream.recorded().into_iter().enumerate() {
        let [key, id] = ["idempotency-key", "x-delivery-id"].map(|name| sent.header(name));
        let (key, id) = (key.expect("a key").to_owned(), id.expect("an id"));
        assert!(all[&key] == id || died.is_some(), "{key} came under another id: {id}");
        let text = sent.text();
        let (line, number) = text.split_once(' ').expect("a line and a number");
        let number: usize = number.parse().expect("a number");
        let before = last.insert(line.to_owned(), number);
        assert!(before.is_none_or(|before| before <= number), "{line}: {number} after {before:?}");
        let (count, first) = came.entry(id.to_owned()).or_insert((0_usize, at));
        *count += 1;
        let is_near = died.is_some_and(|(from, to)| {
            (from.saturating_sub(UNDER_WAY)..=to + UNDER_WAY).contains(&*first)
        });
        unheard += usize::from(*count == 2 && is_near);
    }
    let lost: Vec<_> = all.iter().filter(|(_, id)| !came.contains_key(*id)).collect();
    assert!(lost.is_empty(), "acknowledged and never sent: {lost:?}");
    let repeats = came.values().map(|(count, _)| count - 1).sum::<usize>();
    let refused = ended(gateways, "lost");
    assert!(
        repeats as f64 <= refused + unheard as f64,
        "{repeats} repeats, {refused} settles refused, {unheard} that no replica had heard of"
    );
}

/// What a primary has acknowledged to a client is on a replica, one of which is promoted.
const REPLICA: &str = "durability = \"replicas:1\"\n";

#[test]
fn a_fail_over_by_sentinels_loses_nothing_that_a_replica_has() {
    let (mut redis, upstream) = (RedisSentinels::start(), upstream());
    let gateways = fleet(&redis.url(), &upstream, REPLICA);
    let mut died = None;
    let all = under_load(&gateways, |acknowledged| {
        acknowledged(80);
        redis.servers[0].kill();
        let from = upstream.seen();
        // Sentinels may promote one after the other, until all of them agree.
        redis.successor(0);
        died = Some((from, upstream.seen()));
    });
    let primary = redis.successor(0);
    holds(&gateways, (&redis.servers[primary], died), &upstream, &all);
}

/// The server of the queue's slot dies, which has two replicas: whoever is promoted has one left.
#[test]
fn a_fail_over_in_a_cluster_loses_nothing_that_a_replica_has() {
    let (mut cluster, upstream) = (RedisCluster::start_with_replicas(3), upstream());
    let owner = cluster.owner(OPEN);
    let id = cluster.servers[owner].cli(&["CLUSTER", "MYID"]);
    let replicas = [3 + owner, 3 + (owner + 1) % 3];
    assert_eq!(cluster.servers[replicas[1]].cli(&["CLUSTER", "REPLICATE", &id]), "OK");
    eventually("it has two replicas", || {
        let said = cluster.servers[owner].cli(&["INFO", "replication"]);
        said.matches("state=online").count() == 2
    });
    let promoted = |cluster: &RedisCluster| {
        let role = |at: &usize| cluster.servers[*at].cli(&["ROLE"]);
        replicas.into_iter().find(|at| role(at).starts_with("master"))
    };
    let gateways = fleet(&cluster.url(), &upstream, REPLICA);
    let mut died = None;
    let all = under_load(&gateways, |acknowledged| {
        acknowledged(80);
        cluster.servers[owner].kill();
        let from = upstream.seen();
        eventually_within(CHANGE, "a replica is promoted", || promoted(&cluster).is_some());
        died = Some((from, upstream.seen()));
    });
    let primary = promoted(&cluster).expect("one of them");
    holds(&gateways, (&cluster.servers[primary], died), &upstream, &all);
}

/// Moves the slot of a key with all that lies in it.
fn move_slot(cluster: &RedisCluster, key: &str, (from, to): (usize, usize)) {
    let (from, to) = (&cluster.servers[from], &cluster.servers[to]);
    let slot = from.cli(&["CLUSTER", "KEYSLOT", key]);
    let (from_id, to_id) = (from.cli(&["CLUSTER", "MYID"]), to.cli(&["CLUSTER", "MYID"]));
    assert_eq!(to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]), "OK");
    assert_eq!(from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]), "OK");
    let port = to.address().port().to_string();
    loop {
        let keys = from.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "20"]);
        assert!(!keys.starts_with("(error)"), "{keys}");
        let keys: Vec<&str> = keys.lines().collect();
        if keys.is_empty() {
            break;
        }
        let begin = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        let moved = from.cli(&[&begin[..], &keys].concat());
        // Some may have ended meanwhile.
        assert!(["OK", "NOKEY"].contains(&&*moved), "{moved}");
    }
    for server in [to, from] {
        assert_eq!(server.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]), "OK");
    }
}

#[test]
fn a_queue_whose_slot_moves_there_and_back_loses_nothing() {
    let (cluster, upstream) = (RedisCluster::start(3), upstream());
    let (owner, other) = (cluster.owner(OPEN), (cluster.owner(OPEN) + 1) % 3);
    let gateways = fleet(&cluster.url(), &upstream, "");
    let all = under_load(&gateways, |acknowledged| {
        acknowledged(60);
        move_slot(&cluster, OPEN, (owner, other));
        acknowledged(140);
        move_slot(&cluster, OPEN, (other, owner));
    });
    holds(&gateways, (&cluster.servers[owner], None), &upstream, &all);
}

/// An upstream that answers what says so only when it is told to.
fn holding(told: Receiver<()>) -> Upstream {
    let told = Arc::new(Mutex::new(told));
    Upstream::with(move |request, connection| {
        if !request.text().starts_with("held") || told.lock().unwrap().recv().is_ok() {
            let _ = connection.write_all(response("200 OK", "").as_bytes());
        }
    })
}

/// One of the servers stands still, with a delivery of it under way. Whoever waited for its answer
/// would wait for half a minute here.
#[test]
fn a_shard_that_is_silent_holds_up_none_of_the_others() {
    let cluster = RedisCluster::start(3);
    let (answer, told) = channel();
    let upstream = holding(told);
    let queue = "shards = 4\nconcurrency = 8\nlease = \"10m\"\n";
    let gateway = Gateway::start(&config(&cluster.url(), &upstream, ("30s", queue)));
    let server = |shard: u8| cluster.owner(&format!("{{mail.{shard}}}"));
    // Which line lies in which shard is the gateway's affair.
    let mut lines: BTreeMap<u8, String> = BTreeMap::new();
    for line in (0..100).map(|number| format!("l{number}")) {
        if let Some(id) = ask(&gateway, (&line, 0)) {
            lines.entry(shard_of(&id)).or_insert(line);
        }
        if lines.len() == 4 {
            break;
        }
    }
    // Shard 0 knows all keys.
    let still = (1..4).find(|shard| server(*shard) != server(0)).expect("another server");
    let is_there = |shard: u8| server(shard) != server(still);
    let others: Vec<u8> = (0..4).filter(|shard| is_there(*shard)).collect();
    let open = |shard: u8| {
        cluster.servers[server(shard)].cli(&["ZCARD", &format!("app:queue:{{mail.{shard}}}:open")])
    };
    eventually("all are delivered", || (0..4).all(|shard| open(shard) == "0"));
    upstream.forget();
    let held = Client::request(gateway.public, "POST", "/jobs").header("X-Line", &lines[&still]);
    assert_eq!(held.body("held").send().status, 202);
    eventually("it is sent", || upstream.seen() == 1);
    cluster.servers[server(still)].stop_signal();
    answer.send(()).expect("somebody waits for it");
    for number in 1..21 {
        for shard in &others {
            assert!(ask(&gateway, (&lines[shard], number)).is_some(), "{shard} {number}");
        }
    }
    eventually("all others are delivered", || upstream.seen() == 1 + 20 * others.len());
    eventually("and it is noted", || others.iter().all(|shard| open(*shard) == "0"));
    cluster.servers[server(still)].cont_signal();
    eventually_within(CHANGE, "what was held is noted too", || open(still) == "0");
    let again = (&*lines[&still], 1);
    eventually_within(CHANGE, "it takes more", || ask(&gateway, again).is_some());
    eventually_within(CHANGE, "it goes on there", || open(still) == "0");
    assert_eq!(upstream.seen(), 2 + 20 * others.len(), "none was sent again");
}
