//! What could not be delivered is undone: once, whoever dies in between.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::{QUICK, accepted, bearer, config, post, told, until};
use crate::support::{
    Client, Folder, Gateway, Redis, Upstream, eventually, eventually_within, kill, operate,
    response,
};

/// Longest wait for a lease of 5 s to run out, and for somebody to look for such.
const LEASE: Duration = Duration::from_secs(30);

/// Where refunds go.
fn undoing(redis: &Redis, mailer: &Upstream, ledger: &Upstream, mail: &str, more: &str) -> String {
    let mail = format!("{QUICK}on_dead = \"refunds\"\norder_by = \"claim:sub\"\n{mail}");
    format!(
        "{}[queues.refunds]\n{QUICK}{more}{}[routes.refund]\npath = \"/refunds\"\n\
         methods = [\"PUT\"]\nupstream = \"ledger\"\nauth = \"users\"\n\
         deliver = {{ queue = \"refunds\" }}\n\
         request_headers = {{ set = {{ x-desk = \"refunds\" }} }}\n",
        config(redis, &mailer.url(), &mail),
        ledger.table("ledger"),
    )
}

fn refusing() -> Upstream {
    Upstream::replying(response("422 Unprocessable Content", "no"))
}

#[test]
fn what_is_dead_is_undone_once_by_who_learns_what_it_was() {
    let (redis, mailer) = (Redis::start(), refusing());
    let ledger = Upstream::replying(response("200 OK", ""));
    let gateway = Gateway::start(&undoing(&redis, &mailer, &ledger, "", ""));
    let token = bearer("u1");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let reply = Client::request(gateway.public, "POST", "/mail?now=1")
        .bearer(&token)
        .header("Idempotency-Key", "order-7")
        .header("Content-Type", "text/plain")
        .header("X-Request-Id", "r-1")
        .header("X-Other", "stays")
        .header("traceparent", trace)
        .body("ten")
        .send();
    let id = accepted(&reply);
    let dead = until(&gateway, &token, &id, "dead");
    eventually("it is undone", || ledger.seen() == 1);
    let sent = ledger.only();
    assert_eq!(sent.request_line(), "PUT /refunds HTTP/1.1");
    for (name, value) in [
        ("content-type", Some("application/json")),
        ("idempotency-key", Some(&*format!("{id}:undo"))),
        ("x-user-id", Some("u1")),
        ("x-request-id", Some("r-1")),
        ("x-delivery-attempt", Some("1")),
        ("x-desk", Some("refunds")),
        ("x-other", None),
        ("authorization", None),
    ] {
        assert_eq!(sent.header(name), value, "{name}");
    }
    let [of_mail, of_ledger] = [mailer.only(), sent.clone()]
        .map(|it| it.header("traceparent").expect("a trace")[3..35].to_owned());
    assert_eq!(of_mail, of_ledger);
    assert_eq!(mailer.only().header("host"), sent.header("host"));
    let mut said: Value = serde_json::from_slice(&sent.body).expect("JSON");
    let at = said["dead_at"].take();
    let accepted_at = dead["accepted_at"].as_str().expect("a time");
    assert!(at.as_str().is_some_and(|at| at >= accepted_at && at.len() == 24), "{at}");
    let expected = json!({
        "id": id, "queue": "mail", "route": "mail", "method": "POST", "target": "/mail?now=1",
        "key": "order-7", "status": 422, "error": "refused", "attempts": 1,
        "accepted_at": accepted_at, "dead_at": null,
    });
    assert_eq!(said, expected);
    // It is its caller's, too.
    let undo = sent.header("x-delivery-id").expect("an id").to_owned();
    until(&gateway, &token, &undo, "done");

    // Tried again, it dies once more, and is undone already.
    let again = format!("/v1/deliveries/{id}/requeue");
    assert_eq!(operate(&gateway, "POST", &again, "{}").status, 200);
    eventually("it was sent again", || mailer.seen() == 2);
    until(&gateway, &token, &id, "dead");
    let other = accepted(&post(&gateway, "/mail", &token, "eleven"));
    eventually("the next one is undone", || ledger.seen() >= 2);
    let keys: Vec<_> = ledger.recorded().iter().map(key).collect();
    assert_eq!(keys, [format!("{id}:undo"), format!("{other}:undo")]);
    assert_eq!(told(&gateway, &token, &other)["state"], "dead");
}

fn key(request: &crate::support::Recorded) -> String {
    request.header("idempotency-key").expect("a key").to_owned()
}

/// A key that a gateway lacks says nothing of what it cannot read.
#[test]
fn what_no_key_opens_is_undone_once_it_was_read_and_refused() {
    let (redis, mailer) = (Redis::start(), refusing());
    let ledger = Upstream::replying(response("200 OK", ""));
    let folder = Folder::new();
    folder.write("a.key", "a1".repeat(32));
    folder.write("b.key", "b2".repeat(32));
    let with = |key: &str| {
        let seal = format!("seal = [\"file:{key}.key\"]\n");
        undoing(&redis, &mailer, &ledger, &seal, &seal)
    };
    let gateway = Gateway::start_in(folder, &with("a"));
    let ask = |method: &str, path: &str| {
        let reply = operate(&gateway, method, path, if method == "POST" { "{}" } else { "" });
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    ask("POST", "/v1/queues/mail/pause");
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "ten"));
    gateway.rewrite(&with("b"));
    ask("POST", "/v1/config/reload");
    ask("POST", "/v1/queues/mail/resume");
    assert_eq!(until(&gateway, &token, &id, "dead")["error"], "unsealable");
    // What undoes it would have come in the same step.
    assert_eq!((ask("GET", "/v1/queues/refunds")["open"].as_u64(), ledger.seen()), (Some(0), 0));
    gateway.rewrite(&with("a"));
    ask("POST", "/v1/config/reload");
    ask("POST", &format!("/v1/deliveries/{id}/requeue"));
    eventually("it is undone", || ledger.seen() == 1);
    assert_eq!(told(&gateway, &token, &id)["error"], "refused");
}

/// The gateway is killed over and over while it learns that what it delivers is refused, so before,
/// between and after the two queues change.
#[test]
fn a_gateway_that_dies_around_the_end_leaves_one_that_undoes_it() {
    const ITEMS: usize = 40;
    let (redis, mailer) = (Redis::start(), refusing());
    let ledger = Upstream::replying(response("200 OK", ""));
    // The ones that die deliver nothing of the refunds: those would repeat at their ends, too.
    let short = "lease = \"5s\"\nconcurrency = 4\n";
    let dying = undoing(&redis, &mailer, &ledger, short, "concurrency = 0\n");
    let accepting = undoing(&redis, &mailer, &ledger, "concurrency = 0\n", "concurrency = 0\n");
    let accepting = Gateway::start(&accepting);
    let tokens: Vec<String> = (0..ITEMS).map(|at| bearer(&format!("u{at}"))).collect();
    let ids: Vec<String> =
        tokens.iter().map(|token| accepted(&post(&accepting, "/mail", token, "ten"))).collect();
    for round in 1..=3 {
        let mut gateway = Gateway::start(&dying);
        eventually("it is at work", || mailer.seen() >= round * 8);
        kill("KILL", gateway.pid());
        gateway.wait();
    }
    assert_eq!(ledger.seen(), 0);
    let last = Gateway::start(&undoing(&redis, &mailer, &ledger, short, ""));
    for (id, token) in ids.iter().zip(&tokens) {
        eventually_within(LEASE, "it is dead", || told(&last, token, id)["state"] == "dead");
    }
    let expected: BTreeSet<String> = ids.iter().map(|id| format!("{id}:undo")).collect();
    eventually("all are undone", || ledger.seen() >= expected.len());
    let mut undone: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for sent in ledger.recorded() {
        let id = sent.header("x-delivery-id").expect("an id").to_owned();
        undone.entry(key(&sent)).or_default().insert(id);
    }
    assert_eq!(undone.keys().cloned().collect::<BTreeSet<_>>(), expected);
    assert!(undone.values().all(|ids| ids.len() == 1), "{undone:?}");
    assert_eq!(ledger.seen(), ITEMS);
    // The claims are those of who sent it.
    let users: BTreeSet<_> = ledger
        .recorded()
        .iter()
        .filter_map(|it| it.header("x-user-id").map(str::to_owned))
        .collect();
    assert_eq!(users.len(), ITEMS);
}

/// What undoes a request lies where its caller's own requests of that queue do: in one shard, so
/// that their order holds.
#[test]
fn what_undoes_a_request_lies_in_the_shard_of_its_order_key() {
    let (redis, mailer) = (Redis::start(), refusing());
    let ledger = Upstream::replying(response("200 OK", ""));
    let more = "shards = 3\norder_by = \"claim:sub\"\n";
    let gateway = Gateway::start(&undoing(&redis, &mailer, &ledger, "shards = 4\n", more));
    let shard = |id: &str| portcullis::store::queue::DeliveryId::parse(id).expect("an id").shard();
    let mut shards = BTreeSet::new();
    for number in 0..6 {
        let token = bearer(&format!("u{number}"));
        let dead = accepted(&post(&gateway, "/mail", &token, "ten"));
        until(&gateway, &token, &dead, "dead");
        let key = format!("{dead}:undo");
        let mut undo = None;
        eventually("it is undone", || {
            let sent = ledger.recorded();
            let sent = sent.iter().find(|it| it.header("idempotency-key") == Some(&*key));
            undo = sent.map(|it| it.header("x-delivery-id").expect("an id").to_owned());
            undo.is_some()
        });
        let own = Client::request(gateway.public, "PUT", "/refunds").bearer(&token).body("x");
        let own = accepted(&own.send());
        assert_eq!(undo.as_deref().map(shard), Some(shard(&own)), "{number}");
        shards.insert(shard(&own));
    }
    assert!(shards.len() > 1 && shards.iter().all(|it| *it < 3), "{shards:?}");
}
