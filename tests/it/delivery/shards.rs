//! Queues that lie in several shards: order, keys, what is told, and what a change of their number
//! does.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{QUICK, accepted, bearer, code, config, metric, post, start, told, until, upstream};
use crate::support::{
    Client, Gateway, Redis, RedisCluster, Reply, Upstream, eventually, eventually_within, kill,
    operate, response,
};

/// Four shards, and a lease that runs out within a test.
const FOUR: &str = "shards = 4\nlease = \"5s\"\nbackoff = \"20ms\"\n";

/// The shard of an id, of which there are few: 8 bits stand before the time.
pub(super) fn shard_of(id: &str) -> u8 {
    portcullis::store::queue::DeliveryId::parse(id).expect("an id").shard()
}

fn reload(gateway: &Gateway, config: &str) -> Reply {
    gateway.rewrite(config);
    operate(gateway, "POST", "/v1/config/reload", "{}")
}

/// The bodies that came, by their callers, without what came again at once.
fn by_caller(upstream: &Upstream) -> BTreeMap<String, Vec<u32>> {
    let mut all: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for sent in upstream.recorded() {
        let text = sent.text();
        let (caller, number) = text.split_once(' ').expect("a caller and a number");
        let of_caller = all.entry(caller.to_owned()).or_default();
        let number = number.parse().expect("a number");
        if of_caller.last() != Some(&number) {
            of_caller.push(number);
        }
    }
    all
}

/// Each caller's requests come one after the other, whichever shard they are in and whoever dies.
#[test]
fn order_is_kept_over_shards_while_gateways_die() {
    let (redis, upstream) = (Redis::start(), upstream());
    let ordered = format!("{FOUR}order_by = \"claim:sub\"\n");
    let mut first = start(&redis, &upstream, &ordered);
    let second = start(&redis, &upstream, &ordered);
    let callers: Vec<(String, String)> =
        (0..12).map(|at| (format!("u{at}"), bearer(&format!("u{at}")))).collect();
    let mut ids = Vec::new();
    for number in 0..10 {
        for (caller, token) in &callers {
            let body = format!("{caller} {number}");
            ids.push((token, accepted(&post(&second, "/mail", token, &body))));
        }
        if number == 5 {
            kill("KILL", first.pid());
            first.wait();
        }
    }
    let shards: BTreeSet<u8> = ids.iter().map(|(_, id)| shard_of(id)).collect();
    assert!(shards.len() > 1, "{shards:?}");
    for (token, _) in &ids[..callers.len()] {
        let of_caller = ids.iter().filter(|(of, _)| of == token).map(|(_, id)| shard_of(id));
        assert_eq!(of_caller.collect::<BTreeSet<_>>().len(), 1, "one line lies in one shard");
    }
    for (token, id) in &ids {
        let mut state = json!(null);
        // What the dead one had is taken over after its lease.
        eventually_within(std::time::Duration::from_secs(60), "it is done", || {
            let path = format!("/deliveries/{id}");
            state = Client::get(second.public, &path).bearer(token).send().json();
            state["state"] == "done"
        });
    }
    let sent = by_caller(&upstream);
    for (caller, _) in &callers {
        assert_eq!(sent[caller], (0..10).collect::<Vec<_>>(), "{caller}");
    }
}

#[test]
fn what_lies_in_shards_is_told_listed_and_done_as_one_queue() {
    let redis = Redis::start();
    let upstream = Upstream::with(|request, connection| {
        let status = if request.text() == "bad" { "400 Bad Request" } else { "200 OK" };
        let _ = std::io::Write::write_all(connection, response(status, "").as_bytes());
    });
    let gateway = start(&redis, &upstream, FOUR);
    let token = bearer("u1");
    assert_eq!(operate(&gateway, "POST", "/v1/queues/mail/pause", "").status, 200);
    let mut ids: Vec<String> =
        (0..40).map(|_| accepted(&post(&gateway, "/mail", &token, "bad"))).collect();
    let shards: BTreeSet<u8> = ids.iter().map(|id| shard_of(id)).collect();
    assert_eq!(shards, BTreeSet::from([0, 1, 2, 3]), "at random");
    let mail = operate(&gateway, "GET", "/v1/queues/mail", "").json();
    assert_eq!((&mail["open"], &mail["shards"]), (&json!(40), &json!(4)), "{mail}");
    eventually("metrics know the sum", || {
        metric(&gateway, "portcullis_queue_items", Some(("state", "waiting"))) == 40.0
    });
    let page = operate(&gateway, "GET", "/v1/queues/mail/items", "").json();
    let listed = page["items"].as_array().expect("items").iter();
    let listed: BTreeSet<_> = listed.map(|it| it["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(listed, ids.iter().cloned().collect());
    assert_eq!(upstream.seen(), 0, "the pause is one of all shards");
    // One of each shard is cancelled, half by its caller.
    ids.sort();
    ids.dedup_by_key(|id| shard_of(id));
    let [a, b, c, d] = &ids[..] else { panic!("{ids:?}") };
    for id in [a, b] {
        let path = format!("/deliveries/{id}");
        let reply = Client::request(gateway.public, "DELETE", &path).bearer(&token).send();
        assert_eq!(reply.status, 204, "{}", reply.text());
    }
    for id in [c, d] {
        let reply = operate(&gateway, "POST", &format!("/v1/deliveries/{id}/cancel"), "");
        assert_eq!(reply.json()["state"], "cancelled");
    }
    for id in &ids {
        assert_eq!(told(&gateway, &token, id)["state"], "cancelled");
    }
    assert_eq!(operate(&gateway, "POST", "/v1/queues/mail/resume", "").status, 200);
    eventually("all are dead", || {
        operate(&gateway, "GET", "/v1/queues/mail", "").json()["items"]["dead"] == 36
    });
    let limited = operate(&gateway, "POST", "/v1/queues/mail/requeue", "{\"limit\": 30}");
    assert_eq!(limited.json()["requeued"], 30, "{}", limited.text());
    eventually("these are dead again", || upstream.seen() == 66);
    eventually("all are dead again", || {
        operate(&gateway, "GET", "/v1/queues/mail", "").json()["items"]["dead"] == 36
    });
    let deleted = operate(&gateway, "DELETE", "/v1/queues/mail/dead", "");
    assert_eq!(deleted.json()["deleted"], 36);
    // No queue has so many shards.
    let far = format!("zz{}", "0".repeat(24));
    let reply = Client::get(gateway.public, &format!("/deliveries/{far}")).bearer(&token).send();
    assert_eq!(code(&reply), (404, "delivery_not_found".to_owned()));
}

/// Whatever shard its order key or the number of shards would send it to.
#[test]
fn the_same_key_is_one_delivery_however_the_queue_is_divided() {
    let (redis, upstream) = (Redis::start(), upstream());
    let queue = |shards: u8| format!("{QUICK}shards = {shards}\norder_by = \"header:x-line\"\n");
    let gateway = start(&redis, &upstream, &queue(4));
    let token = bearer("u1");
    let send = |key: &str, line: &str, body: &str| {
        let request = Client::request(gateway.public, "POST", "/keyed").bearer(&token);
        request.header("Idempotency-Key", key).header("X-Line", line).body(body).send()
    };
    let mut known = BTreeMap::new();
    let repeat = |known: &BTreeMap<String, String>| {
        for (key, id) in known {
            for line in ["a", "b", "c", "d", "e"] {
                let reply = send(key, line, key);
                assert_eq!(&accepted(&reply), id, "{key} in line {line}");
                assert_eq!(reply.header("idempotent-replayed"), Some("true"));
            }
            let other = send(key, "a", "another body");
            assert_eq!(code(&other), (422, "idempotency_key_reused".to_owned()));
        }
    };
    for shards in [4, 1, 16, 3, 1] {
        let reply = reload(&gateway, &config(&redis, &upstream.url(), &queue(shards)));
        assert_eq!(reply.status, 200, "{}", reply.text());
        repeat(&known);
        for line in ["a", "b", "c", "d"] {
            let key = format!("k-{shards}-{line}");
            let id = accepted(&send(&key, line, &key));
            assert!(shard_of(&id) < shards, "{id}");
            known.entry(key).or_insert(id);
        }
        repeat(&known);
        for id in known.values() {
            until(&gateway, &token, id, "done");
        }
    }
    let all: BTreeSet<u8> = known.values().map(|id| shard_of(id)).collect();
    assert!(all.len() > 2, "{known:?}");
    assert_eq!(upstream.seen(), known.len());
}

/// Who noted a key and died before the request was there has promised nothing: whoever comes next
/// with the same key puts it there.
#[test]
fn a_key_of_somebody_who_died_is_taken_over() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream, &format!("{QUICK}shards = 4\n"));
    let token = bearer("u1");
    let send = |key: &str| {
        let request = Client::request(gateway.public, "POST", "/keyed").bearer(&token);
        request.header("Idempotency-Key", key).body("a").send()
    };
    let mut taken_over = 0;
    for number in 0..20 {
        let key = format!("k-{number}");
        let id = accepted(&send(&key));
        until(&gateway, &token, &id, "done");
        let shard = shard_of(&id);
        if shard == 0 {
            continue;
        }
        // As if it had died between both: nothing of the shard itself is there.
        let own = redis.cli(&["KEYS", &format!("app:queue:{{mail.{shard}}}:i*")]);
        own.lines().for_each(|key| drop(redis.cli(&["DEL", key])));
        assert_eq!(accepted(&send(&key)), id);
        until(&gateway, &token, &id, "done");
        taken_over += 1;
    }
    assert!(taken_over > 0);
    assert_eq!(upstream.seen(), 20 + taken_over);
}

#[test]
fn a_key_of_what_a_full_queue_refused_is_free() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream, &format!("{QUICK}shards = 4\nmax_items = 4\n"));
    let token = bearer("u1");
    let send = |key: &str, body: &str| {
        let request = Client::request(gateway.public, "POST", "/keyed").bearer(&token);
        request.header("Idempotency-Key", key).body(body).send()
    };
    assert_eq!(operate(&gateway, "POST", "/v1/queues/mail/pause", "").status, 200);
    let keys: Vec<String> = (0..20).map(|number| format!("k-{number}")).collect();
    let refused: Vec<_> = keys.iter().filter(|key| send(key, "a").status == 503).collect();
    assert!(refused.len() >= 16, "{refused:?}");
    assert_eq!(operate(&gateway, "POST", "/v1/queues/mail/resume", "").status, 200);
    for key in refused {
        eventually("there is room", || {
            operate(&gateway, "GET", "/v1/queues/mail", "").json()["open"] == 0
        });
        accepted(&send(key, "another body"));
    }
}

/// What lies in shards that the queue has no more is delivered all the same.
#[test]
fn fewer_shards_lose_nothing() {
    let (redis, upstream) = (Redis::start(), upstream());
    let accepting = start(&redis, &upstream, &format!("{FOUR}concurrency = 0\n"));
    let token = bearer("u1");
    let ids: Vec<String> =
        (0..40).map(|_| accepted(&post(&accepting, "/mail", &token, "a"))).collect();
    assert_eq!(ids.iter().map(|id| shard_of(id)).max(), Some(3));
    let reply = reload(&accepting, &config(&redis, &upstream.url(), "concurrency = 0\n"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let mail = operate(&accepting, "GET", "/v1/queues/mail", "").json();
    assert_eq!((&mail["open"], &mail["shards"]), (&json!(40), &json!(1)), "{mail}");
    // One that never knew that there were more.
    let delivering = start(&redis, &upstream, QUICK);
    for id in &ids {
        until(&delivering, &token, id, "done");
    }
    assert_eq!(upstream.seen(), 40);
}

/// What comes next would overtake what waits.
#[test]
fn a_queue_with_an_order_is_divided_anew_when_it_is_empty() {
    let (redis, upstream) = (Redis::start(), upstream());
    let queue = |shards: u8| format!("{QUICK}shards = {shards}\norder_by = \"claim:sub\"\n");
    let gateway = start(&redis, &upstream, &queue(2));
    assert_eq!(operate(&gateway, "POST", "/v1/queues/mail/pause", "").status, 200);
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    for shards in [1, 3] {
        let refusal = reload(&gateway, &config(&redis, &upstream.url(), &queue(shards)));
        assert_eq!(code(&refusal), (422, "queue_not_empty".to_owned()));
        assert_eq!(refusal.json()["queues"], json!(["queues.mail.shards"]));
    }
    assert_eq!(operate(&gateway, "POST", "/v1/queues/mail/resume", "").status, 200);
    until(&gateway, &token, &id, "done");
    let reply = reload(&gateway, &config(&redis, &upstream.url(), &queue(3)));
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[test]
fn shards_lie_on_several_servers_of_a_cluster() {
    let (cluster, upstream) = (RedisCluster::start(3), upstream());
    let owners: BTreeSet<usize> =
        (0..4).map(|shard| cluster.owner(&format!("{{mail.{shard}}}"))).collect();
    assert!(owners.len() > 1, "{owners:?}");
    let whole = config(&cluster.servers[0], &upstream.url(), FOUR);
    let own = format!("redis://{}", cluster.servers[0].address());
    assert!(whole.contains(&own));
    let gateway = Gateway::start(&whole.replace(&own, &cluster.url()));
    let token = bearer("u1");
    let mut ids = Vec::new();
    for number in 0..40 {
        let request = Client::request(gateway.public, "POST", "/mail").bearer(&token);
        let key = format!("k-{}", number % 30);
        ids.push(accepted(&request.header("Idempotency-Key", key).body("a").send()));
    }
    assert_eq!(ids[..10], ids[30..], "the same keys");
    ids.truncate(30);
    assert_eq!(ids.iter().map(|id| shard_of(id)).collect::<BTreeSet<_>>().len(), 4);
    for id in &ids {
        until(&gateway, &token, id, "done");
    }
    assert_eq!(upstream.seen(), 30);
    assert_eq!(operate(&gateway, "POST", "/v1/queues/mail/pause", "").status, 200);
    let paused = operate(&gateway, "GET", "/v1/queues/mail", "").json();
    assert_eq!((&paused["open"], &paused["paused"]["why"]), (&json!(0), &json!("an operator")));
}
