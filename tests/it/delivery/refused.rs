//! What is not accepted, and configurations that promise what they cannot keep.

use super::{QUICK, accepted, bearer, code, config, metric, post, start, upstream};
use crate::support::{Client, Folder, Gateway, Redis, eventually, operate, run};

fn refused(code: &str) -> (u16, String) {
    (503, code.to_owned())
}

#[test]
fn a_full_queue_takes_nothing_more() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream, "max_items = 2\nmax_body = \"16B\"\n");
    let token = bearer("u1");
    assert_eq!(operate(&gateway, "POST", "/v1/queues/mail/pause", "").status, 200);
    let ids: Vec<String> =
        (0..2).map(|_| accepted(&post(&gateway, "/mail", &token, "a"))).collect();
    let full = post(&gateway, "/mail", &token, "a");
    assert_eq!(code(&full), refused("queue_full"));
    let after: u64 = full.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=60).contains(&after), "{after}");
    let long = post(&gateway, "/mail", &token, "seventeen letters");
    assert_eq!(code(&long), (413, "body_too_large".to_owned()));
    let counted =
        metric(&gateway, "portcullis_queue_refused_total", Some(("reason", "queue_full")));
    assert_eq!(counted, 1.0);
    assert_eq!(operate(&gateway, "POST", "/v1/queues/mail/resume", "").status, 200);
    for id in &ids {
        super::until(&gateway, &token, id, "done");
    }
    accepted(&post(&gateway, "/mail", &token, "a"));
}

/// A 202 stands for something: without the store there is none. The gateway itself starts all the
/// same, and goes on.
#[test]
fn without_its_store_nothing_is_accepted() {
    let (mut redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream, QUICK);
    let open =
        |gateway: &Gateway| Client::request(gateway.public, "POST", "/open").body("a").send();
    accepted(&open(&gateway));
    eventually("it is delivered", || upstream.seen() == 1);
    redis.kill();
    assert_eq!(code(&open(&gateway)), refused("queue_away"));
    let late = start(&redis, &upstream, QUICK);
    assert_eq!(code(&open(&late)), refused("queue_away"));
    redis.restart();
    for gateway in [&gateway, &late] {
        eventually("the store is back", || open(gateway).status == 202);
    }
}

#[test]
fn a_redis_that_may_evict_is_not_trusted_with_work() {
    let settings = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
    let redis = Redis::start_with(&settings.map(str::to_owned));
    let upstream = upstream();
    let gateway = start(&redis, &upstream, QUICK);
    let refusal = Client::request(gateway.public, "POST", "/open").body("a").send();
    assert_eq!(code(&refusal), refused("queue_store_unsafe"));
    assert_eq!(operate(&gateway, "GET", "/v1/queues", "").json()["store"], "evicting");
    assert_eq!(redis.cli(&["KEYS", "app:queue:*:item:*"]), "");
}

/// What is longer than is kept is not handed out in part.
#[test]
fn an_answer_that_is_too_long_to_keep_is_told_of_and_not_handed_out() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream, "keep_response = \"3B\"\n");
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    assert_eq!(super::until(&gateway, &token, &id, "done")["status"], 201);
    let path = format!("/deliveries/{id}/response");
    let answer = Client::get(gateway.public, &path).bearer(&token).send();
    assert_eq!(code(&answer), (404, "delivery_response_not_kept".to_owned()));
}

/// It is queued, and fewer have it than the operator wants: that is no 202.
#[test]
fn what_no_replica_has_is_in_doubt() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream, "durability = \"replicas:1\"\n");
    let send = || {
        let request = Client::request(gateway.public, "POST", "/open");
        request.header("Idempotency-Key", "k").body("a").send()
    };
    for _ in 0..2 {
        assert_eq!(code(&send()), refused("delivery_in_doubt"));
    }
    eventually("it is delivered all the same", || upstream.seen() == 1);
}

/// Each is found before anything is served.
#[test]
fn what_a_queue_could_not_keep_is_refused_by_check() {
    let (redis, folder) = (Redis::start(), Folder::new());
    let whole = config(&redis, "http://127.0.0.1:1", "");
    let deliver = "deliver = { queue = \"mail\" }\n";
    for (from, to, key) in [
        (&*redis.url(), "memory:", "queues.mail.durable"),
        ("[queues.mail]\n", "[queues.mail]\nlease = \"4s\"\n", "queues.mail.lease"),
        ("[queues.mail]\n", "[queues.mail]\nbackoff = \"2h\"\n", "queues.mail.backoff"),
        ("[queues.mail]\n", "[queues.mail]\nmax_age = \"15d\"\n", "queues.mail.max_age"),
        ("[queues.mail]\n", "[queues.mail]\ndurability = \"disk\"\n", "queues.mail.durability"),
        ("[queues.mail]\n", "[queues.mail]\norder_by = \"sub\"\n", "queues.mail.order_by"),
        (deliver, "deliver = { queue = \"male\" }\n", "routes.open.deliver.queue"),
        (deliver, "deliver = \"now\"\n", "routes.open.deliver"),
        (deliver, &format!("{deliver}cache = {{ ttl = \"1s\" }}\n"), "routes.open.cache"),
        (deliver, &format!("{deliver}grpc = {{}}\n"), "routes.open.grpc"),
        (deliver, &format!("{deliver}deadline = \"1s\"\n"), "routes.open.deadline"),
        ("path = \"/open\"\nmethods = [\"POST\"]\n", "path = \"/open\"\n", "routes.open.methods"),
        (
            "path = \"/open\"\nmethods = [\"POST\"]\n",
            "path = \"/open\"\nmethods = [\"POST\", \"GET\"]\n",
            "routes.open.methods",
        ),
        ("[auth.users]\n", "[auth.users]\nforward_token = true\n", "routes.mail.deliver"),
        ("/deliveries/{id}", "/deliveries/*", "routes.deliveries.path"),
        ("/deliveries/{id}", "/{a}/{id}", "routes.deliveries.path"),
        ("answers = ", "upstream = \"mailer\"\nanswers = ", "routes.deliveries.upstream"),
        ("answers = \"deliveries\"", "answers = \"all\"", "routes.deliveries.answers"),
    ] {
        assert!(whole.contains(from), "{from}");
        folder.write("gateway.toml", whole.replacen(from, to, 1));
        let said = run(&folder, &["check"]);
        assert_eq!(said.code, Some(2), "{to}");
        let found = format!("{}{}", said.stdout, said.stderr);
        assert!(found.contains(&format!(": {key}: ")), "{to}: {found}");
    }
    folder.write("gateway.toml", &whole);
    assert_eq!(run(&folder, &["check"]).code, Some(0));
}
