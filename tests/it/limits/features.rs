//! Tiers, costs, corrections, shadows, marks and blocks, over a real Redis and two gateways.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::support::{operate, response};

/// A public route `/` with the limit `p`, on both gateways.
fn gateways(redis: &Redis, upstream: &Upstream, limit: &str, route: &str) -> [Gateway; 2] {
    let (store, upstream) = (store(&redis.url()), upstream.table("shop"));
    let config = format!(
        "{store}{AUTH}{upstream}\n[limits.p]\n{limit}\n[routes.all]\npath = \"/*\"\n\
         upstream = \"shop\"\nlimits = [\"p\"]\n{route}"
    );
    [Gateway::start(&config), Gateway::start(&config)]
}

/// An upstream whose answers have the status that the path names: `/401`.
fn by_path() -> Upstream {
    Upstream::with(|request, connection| {
        let status = request.target().trim_start_matches('/').to_owned();
        let _ =
            std::io::Write::write_all(connection, response(&format!("{status} X"), "").as_bytes());
    })
}

/// What `GET /metrics` says of a limit.
fn over_limit(gateway: &Gateway, limit: &str, outcome: &str) -> u64 {
    let text = Client::get(gateway.admin, "/metrics").send().text();
    let name = "portcullis_limit_checks_total";
    let line = format!("{name}{{limit=\"{limit}\",outcome=\"{outcome}\"}} ");
    let value = text.lines().find_map(|found| found.strip_prefix(&line));
    value.map_or(0, |value| value.parse().unwrap())
}

#[test]
fn brute_force_is_stopped_by_its_failures_and_nobody_pays_for_a_success() {
    const FAILURES: usize = 20;
    let (redis, upstream) = (Redis::start(), by_path());
    let limit = format!(
        "key = [\"address\"]\nallow = [\"{FAILURES}/1h\"]\ncount = {{ status = [\"401\"] }}"
    );
    let gateways = gateways(&redis, &upstream, &limit, "");
    let failed = AtomicUsize::new(0);
    let attack = |number: usize| {
        let mut session = Session::open(gateways[number % 2].public);
        for _ in 0..30 {
            let status = session.get("/401").send().status;
            assert!(matches!(status, 401 | 429), "{status}");
            failed.fetch_add(usize::from(status == 401), Ordering::SeqCst);
        }
    };
    let attack = &attack;
    std::thread::scope(|scope| (0..8).for_each(|n| drop(scope.spawn(move || attack(n)))));
    assert_eq!(failed.load(Ordering::SeqCst), FAILURES);

    assert_eq!(redis.cli(&["FLUSHALL"]), "OK");
    let mut session = Session::open(gateways[0].public);
    for _ in 0..4 * FAILURES {
        eventually("a success gave its unit back", || session.get("/200").send().status == 200);
    }
}

#[test]
fn a_refusal_by_the_gateway_is_corrected_like_an_answer_of_the_upstream() {
    let (redis, upstream) = (Redis::start(), upstream());
    let limit = "key = [\"address\"]\nallow = [\"2/1h\"]\ncount = { status = [\"403\"] }";
    let route = "auth = \"users\"\nrequire = { role = [\"admin\"] }\n";
    let [gateway, _] = gateways(&redis, &upstream, limit, route);
    for _ in 0..8 {
        eventually("a 401 is not counted", || {
            Client::get(gateway.public, "/").send().status == 401
        });
    }
    let bearer = token(claims("ada"));
    let send = || Client::get(gateway.public, "/").bearer(&bearer).send().status;
    eventually("two 403 are counted", || send() == 429);
    assert_eq!(upstream.seen(), 0);
}

#[test]
fn a_failure_of_the_upstream_is_given_back_also_when_nobody_answers() {
    let (redis, mut upstream) = (Redis::start(), Some(by_path()));
    let limit = "key = [\"address\"]\nallow = [\"2/1h\"]\nrefund = [\"failure\"]";
    let gateways = gateways(&redis, upstream.as_ref().unwrap(), limit, "");
    let mut session = Session::open(gateways[0].public);
    for _ in 0..10 {
        eventually("a failure is free", || session.get("/503").send().status == 503);
    }
    upstream.take();
    for _ in 0..10 {
        eventually("no answer is free", || session.get("/200").send().status == 502);
    }
}

#[test]
fn the_upstream_says_what_a_request_did_cost_and_all_gateways_charge_it() {
    let redis = Redis::start();
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\nx-cost: 40\r\nContent-Length: 0\r\n\r\n");
    let limit =
        "key = [\"address\"]\nallow = [\"100/1h\"]\nresponse_cost = { header = \"x-cost\" }";
    let gateways = gateways(&redis, &upstream, limit, "");
    for (gateway, left, total) in [(0, "99", b'('), (1, "59", b'P'), (0, "19", b'x')] {
        let reply = Client::get(gateways[gateway].public, "/").send();
        assert_eq!(reply.header("x-ratelimit-remaining"), Some(left));
        eventually("the correction is written", || charged(&redis) == Some(total));
    }
    // 120 are charged of 100: what was spent is spent.
    assert_eq!(Client::get(gateways[1].public, "/").send().status, 429);
}

/// A field that `Connection` names is for the gateway and not part of the response (RFC 9110
/// §7.6.1).
#[test]
fn a_cost_that_belongs_to_the_connection_is_not_charged() {
    let redis = Redis::start();
    let upstream = Upstream::with(|request, connection| {
        let fields = match request.target() {
            "/hop" => "Connection: x-cost\r\nx-cost: 50",
            _ => "x-cost: 3",
        };
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: 0\r\n\r\n");
        let _ = std::io::Write::write_all(connection, answer.as_bytes());
    });
    let limit =
        "key = [\"address\"]\nallow = [\"100/1h\"]\nresponse_cost = { header = \"x-cost\" }";
    let [gateway, _] = gateways(&redis, &upstream, limit, "");
    for path in ["/hop", "/end"] {
        assert_eq!(Client::get(gateway.public, path).send().status, 200);
    }
    // The later correction comes after anything that the first answer could cost.
    eventually("one and three are charged", || {
        let path = "/v1/limits?policy=p&key=address=127.0.0.1";
        operate(&gateway, "GET", path, "").json()["windows"][0]["remaining"] == 96
    });
}

#[test]
fn a_client_that_leaves_before_the_answer_pays_what_it_was_charged() {
    let redis = Redis::start();
    // At /slow nobody is answered; it ends when the gateway hangs up.
    let upstream = Upstream::with(|request, connection| {
        if request.target() == "/slow" {
            let _ = std::io::Read::read(connection, &mut [0]);
        } else {
            let answer = "HTTP/1.1 200 OK\r\nx-cost: 3\r\nContent-Length: 0\r\n\r\n";
            let _ = std::io::Write::write_all(connection, answer.as_bytes());
        }
    });
    let (store, table) = (store(&redis.url()), upstream.table("shop"));
    let limit = |name: &str, rule: &str| {
        format!("[limits.{name}]\nkey = [\"address\"]\nallow = [\"20/1h\"]\n{rule}\n")
    };
    let limits = limit("counted", "count = { status = [\"401\"] }")
        + &limit("excused", "refund = [\"failure\", \"cache\"]")
        + &limit("priced", "cost = 2\nresponse_cost = { header = \"x-cost\" }");
    let gateway = Gateway::start(&format!(
        "{store}{table}{limits}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n\
         limits = [\"counted\", \"excused\", \"priced\"]\n"
    ));
    let left = || {
        ["counted", "excused", "priced"].map(|policy| {
            let path = format!("/v1/limits?policy={policy}&key=address=127.0.0.1");
            operate(&gateway, "GET", &path, "").json()["windows"][0]["remaining"].clone()
        })
    };
    let mut client = Session::open(gateway.public);
    client.write("GET /slow HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("it is forwarded", || upstream.seen() == 1);
    drop(client);
    eventually("it is over", || gateway.access_lines().iter().any(|line| line["status"] == 499));
    assert_eq!(left(), [19, 19, 18]);
    // What a later request gets back comes after anything that the first one could get back.
    assert_eq!(Client::get(gateway.public, "/fast").send().status, 200);
    eventually("the later one is settled", || left() == [19, 18, 15]);
}

/// What is charged to the only key, when that is an ASCII character: the last four bytes of a
/// limiter's state are the running total, little endian.
fn charged(redis: &Redis) -> Option<u8> {
    let key = redis.cli(&["KEYS", "app:ratelimit:*"]);
    redis.cli(&["GETRANGE", key.trim(), "-4", "-4"]).bytes().next()
}

#[test]
fn a_tier_by_claim_and_a_cost_by_method() {
    let (redis, upstream) = (Redis::start(), upstream());
    let limit = "key = [\"claim:sub\"]\nallow = [\"6/1h\"]\ncost = { methods = { POST = 3 } }\n\
                 tiers = { by = \"claim:plan\", allow = { gold = [\"12/1h\"] } }";
    let gateways = gateways(&redis, &upstream, limit, "auth = \"users\"\n");
    for (sub, plan, method, passing) in [
        ("ada", "gold", "POST", 4),
        ("bob", "tin", "POST", 2),
        ("eve", "gold", "GET", 12),
        ("joe", "tin", "GET", 6),
    ] {
        let mut all = claims(sub);
        all["plan"] = json!(plan);
        let bearer = token(all);
        let send = |number: usize| {
            let request = Client::request(gateways[number % 2].public, method, "/");
            request.bearer(&bearer).send()
        };
        let replies: Vec<Reply> = (0..15).map(send).collect();
        let passed = replies.iter().filter(|reply| reply.status == 200).count();
        assert_eq!(passed, passing, "{sub}");
        let policy = if plan == "gold" { "\"p\";q=12;w=3600" } else { "\"p\";q=6;w=3600" };
        assert_eq!(replies[0].header("ratelimit-policy"), Some(policy));
        assert_eq!(replies[14].header("ratelimit-policy"), Some(policy));
    }
}

#[test]
fn a_mark_reaches_the_upstream_and_a_client_cannot_make_one() {
    let (redis, upstream) = (Redis::start(), upstream());
    let limit = "key = [\"address\"]\nallow = [\"1/1h\"]\nmark = \"x-over-limit\"";
    let [gateway, _] = gateways(&redis, &upstream, limit, "");
    for expected in [None, Some("p"), Some("p")] {
        let forged = Client::get(gateway.public, "/").header("X_Over_Limit", "forged");
        assert_eq!(forged.header("x-over-limit", "forged").send().status, 200);
        let seen = upstream.only();
        assert_eq!(seen.headers_named("x-over-limit"), expected.into_iter().collect::<Vec<_>>());
        assert!(!seen.names().contains(&"x_over_limit".to_owned()), "{seen:?}");
        upstream.forget();
    }
    assert_eq!(over_limit(&gateway, "p", "mark"), 2);
    eventually("the line is there", || gateway.access_lines().len() == 3);
    assert_eq!(gateway.access_lines().last().unwrap()["limits"], "mark");
}

#[test]
fn a_shadow_refuses_nobody_tells_nobody_and_is_counted() {
    let (redis, upstream) = (Redis::start(), upstream());
    let limit = "key = [\"address\"]\nallow = [\"1/1h\"]\nshadow = true";
    let [gateway, _] = gateways(&redis, &upstream, limit, "");
    for _ in 0..4 {
        let reply = Client::get(gateway.public, "/").send();
        assert_eq!((reply.status, reply.header("ratelimit")), (200, None));
    }
    assert_eq!(over_limit(&gateway, "p", "shadow"), 3);
    assert_eq!(over_limit(&gateway, "p", "refuse"), 0);
    eventually("the line is there", || gateway.access_lines().len() == 4);
    assert_eq!(gateway.access_lines().last().unwrap()["limits"], "shadow");
}

#[test]
fn the_blocked_are_refused_before_anything_is_asked() {
    let (redis, upstream) = (Redis::start(), upstream());
    let limit = "key = [\"address\"]\nallow = [\"9/1h\"]\nblock = [\"127.0.0.0/8\"]";
    let [gateway, _] = gateways(&redis, &upstream, limit, "");
    let reply = Client::get(gateway.public, "/").send();
    assert_eq!((reply.status, &*code(&reply)), (403, "address_blocked"));
    assert_eq!((upstream.seen(), redis.cli(&["KEYS", "*ratelimit*"]).as_str()), (0, ""));
}

#[test]
fn clients_are_told_in_the_fields_that_the_file_names() {
    for (fields, ietf, legacy) in
        [("[\"ratelimit\"]", true, false), ("[\"x-ratelimit\"]", false, true), ("[]", false, false)]
    {
        let upstream = upstream();
        let config = format!(
            "[server]\nratelimit_fields = {fields}\n{}",
            by_address(&upstream, "\"1/1h\"").trim_start()
        );
        let gateway = Gateway::start(&config);
        for status in [200, 429] {
            let reply = Client::get(gateway.public, "/").send();
            assert_eq!(reply.status, status);
            assert_eq!(reply.header("ratelimit").is_some(), ietf, "{fields}");
            assert_eq!(reply.header("ratelimit-policy").is_some(), ietf, "{fields}");
            assert_eq!(reply.header("x-ratelimit-limit").is_some(), legacy, "{fields}");
            assert_eq!(reply.header("retry-after").is_some(), status == 429);
        }
    }
}
