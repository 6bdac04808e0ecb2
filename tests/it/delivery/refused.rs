//! What is not accepted, and configurations that promise what they cannot keep.

use super::{QUICK, accepted, bearer, code, config, metric, post, start, until, upstream};
use crate::support::{Client, Folder, Gateway, Redis, Upstream, eventually, operate, run};

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
        until(&gateway, &token, id, "done");
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
    let ready = Client::get(gateway.admin, "/readyz").send();
    assert_eq!(ready.status, 200);
    let said = "queue_store_unsafe: maxmemory-policy is allkeys-lru";
    assert!(ready.text().lines().any(|line| line == said), "{}", ready.text());
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
    assert_eq!(until(&gateway, &token, &id, "done")["status"], 201);
    let path = format!("/deliveries/{id}/response");
    let answer = Client::get(gateway.public, &path).bearer(&token).send();
    assert_eq!(code(&answer), (404, "delivery_response_not_kept".to_owned()));
}

/// Its status says what became of it; what does not come is not waited for.
#[test]
fn an_answer_that_does_not_end_is_done_and_not_handed_out() {
    let redis = Redis::start();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = std::sync::Mutex::new(ended);
    let upstream = Upstream::with(move |_, connection| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
        let _ = std::io::Write::write_all(connection, head);
        let _ = ended.lock().unwrap().recv();
    });
    let gateway = start(&redis, &upstream, "answer_timeout = \"1s\"\n");
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    assert_eq!(until(&gateway, &token, &id, "done")["status"], 200);
    let path = format!("/deliveries/{id}/response");
    let answer = Client::get(gateway.public, &path).bearer(&token).send();
    assert_eq!(code(&answer), (404, "delivery_response_not_kept".to_owned()));
    drop(end);
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
        (
            "[queues.mail]\n",
            "[queues.mail]\nkeep_headers = [\"Cookie\"]\n",
            "queues.mail.keep_headers",
        ),
        ("[queues.mail]\n", "[queues.mail]\nmax_body = \"8MiB\"\n", "queues.mail.max_body"),
        ("[queues.mail]\n", "[queues.mail]\nrate = \"50\"\n", "queues.mail.rate"),
        ("[queues.mail]\n", "[queues.mail]\nrecheck = true\n", "routes.open.deliver"),
        ("[queues.mail]\n", "[queues.mail]\nseal = [\"short\"]\n", "queues.mail.seal[0]"),
        (deliver, "deliver = { queue = \"male\" }\n", "routes.open.deliver.queue"),
        (deliver, "deliver = \"now\"\n", "routes.open.deliver"),
        (deliver, &format!("{deliver}cache = {{ ttl = \"1s\" }}\n"), "routes.open.cache"),
        (deliver, &format!("{deliver}grpc = {{}}\n"), "routes.open.grpc"),
        (deliver, &format!("{deliver}idempotency = {{}}\n"), "routes.open.idempotency"),
        (deliver, &format!("{deliver}subject = \"mail.send\"\n"), "routes.open.subject"),
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

#[test]
fn a_body_that_is_too_long_is_counted_as_refused() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream, "max_body = \"3B\"\n");
    let long = Client::request(gateway.public, "POST", "/open").body("long").send();
    assert_eq!(code(&long), (413, "body_too_large".to_owned()));
    let reason = Some(("reason", "body_too_large"));
    assert_eq!(metric(&gateway, "portcullis_queue_refused_total", reason), 1.0);
}

/// Nobody would deliver what is in it any more.
#[test]
fn a_queue_that_holds_requests_is_not_left_behind_by_a_reload() {
    let (mut redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream, QUICK);
    operate(&gateway, "POST", "/v1/queues/mail/pause", "");
    let token = bearer("u1");
    let id = accepted(&post(&gateway, "/mail", &token, "a"));
    let renamed = config(&redis, &upstream.url(), QUICK).replace("queues.mail", "queues.post");
    gateway.rewrite(&renamed.replace("queue = \"mail\"", "queue = \"post\""));
    let reload = || operate(&gateway, "POST", "/v1/config/reload", "{}");
    let refusal = reload();
    assert_eq!(code(&refusal), (422, "queue_not_empty".to_owned()));
    assert_eq!(refusal.json()["queues"], serde_json::json!(["queues.mail"]));
    assert_eq!(operate(&gateway, "POST", "/v1/queues/mail/resume", "").status, 200);
    until(&gateway, &token, &id, "done");
    let reply = reload();
    assert_eq!(reply.status, 200, "{}", reply.text());
    // Nobody knows what the other one holds.
    redis.kill();
    gateway.rewrite(&config(&redis, &upstream.url(), QUICK));
    let refusal = reload();
    assert_eq!(code(&refusal), (422, "queue_not_empty".to_owned()));
    assert_eq!(refusal.json()["queues"], serde_json::json!(["queues.post"]));
}
