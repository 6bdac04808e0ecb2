//! What operators see of limits: what became of each request that one looked at, and whose keys are
//! near.

use super::*;
use crate::support::{Exposition, operate};

const CHECKS: &str = "portcullis_limit_checks_total";

/// A route for each of some limits, written as `NAME = LINES`.
fn routes(limits: &[(&str, &str)]) -> String {
    let route = |(name, lines): &(&str, &str)| {
        format!(
            "[limits.{name}]\n{lines}\n[routes.{name}]\npath = \"/{name}\"\nupstream = \"shop\"\n\
             limits = [\"{name}\"]\n"
        )
    };
    limits.iter().map(route).collect()
}

fn scrape(gateway: &Gateway) -> Exposition {
    Exposition::text(&Client::get(gateway.admin, "/metrics").send().text())
}

/// The outcomes of a limit that have a series, in order.
fn outcomes(gateway: &Gateway, limit: &str) -> Vec<(String, f64)> {
    let series = scrape(gateway).series;
    let of_limit = series.into_iter().filter(|((name, labels), _)| {
        name == CHECKS && labels.contains(&("limit".to_owned(), limit.to_owned()))
    });
    let outcome = |labels: &[(String, String)]| {
        labels.iter().find(|(name, _)| name == "outcome").unwrap().1.clone()
    };
    of_limit.map(|((_, labels), value)| (outcome(&labels), value)).collect()
}

fn assert_outcomes(gateway: &Gateway, limit: &str, expected: &[(&str, f64)]) {
    let expected: Vec<_> = expected.iter().map(|(it, sum)| ((*it).to_owned(), *sum)).collect();
    assert_eq!(outcomes(gateway, limit), expected, "{limit}");
}

#[test]
fn each_request_that_a_limit_looks_at_has_one_outcome() {
    let (redis, upstream) = (Redis::start(), upstream());
    let proxy = TcpProxy::start(redis.address());
    let by_address = "key = [\"address\"]\n";
    let of = |more: &str| format!("{by_address}{more}");
    let mark = of("allow = [\"1/1h\"]\nmark = \"x-over\"");
    let exempt = of("allow = [\"1/1h\"]\nexempt = { addresses = [\"127.0.0.0/8\"] }");
    let limits = [
        ("plain", &*of("allow = [\"3/1h\"]")),
        ("shadow", &of("allow = [\"1/1h\"]\nshadow = true")),
        ("mark", &mark),
        ("exempt", &exempt),
        ("here", &of("allow = [\"2/1h\"]\nscope = \"local\"")),
        ("several", &of("allow = [\"9/1m\", \"2/1h\"]")),
        ("flying", &of("concurrent = 3")),
        ("away", &of("allow = [\"4/1h\"]")),
        ("free", &of("concurrent = 3\nexempt = { addresses = [\"127.0.0.0/8\"] }")),
    ];
    let outage = "[store.on_outage]\nlimits = \"local\"\n";
    let config = format!("{}{outage}{}", store(&proxy.url()), upstream.table("shop"));
    let gateway = Gateway::start(&(config + &routes(&limits)));
    let mut client = Session::open(gateway.public);
    let mut send = |path: &str| client.get(path).send().status;
    for (limit, requests) in
        [("shadow", 4), ("mark", 3), ("exempt", 3), ("here", 5), ("flying", 2), ("free", 2)]
    {
        for _ in 0..requests {
            send(&format!("/{limit}"));
        }
    }
    assert_outcomes(&gateway, "shadow", &[("pass", 1.0), ("shadow", 3.0)]);
    assert_outcomes(&gateway, "mark", &[("mark", 2.0), ("pass", 1.0)]);
    assert_outcomes(&gateway, "exempt", &[("exempt", 3.0), ("pass", 0.0), ("refuse", 0.0)]);
    assert_outcomes(&gateway, "here", &[("pass", 2.0), ("refuse", 3.0)]);
    assert_outcomes(&gateway, "flying", &[("pass", 2.0), ("refuse", 0.0)]);
    assert_outcomes(&gateway, "free", &[("exempt", 2.0), ("pass", 0.0), ("refuse", 0.0)]);
    // A window each; the one that has room says so, although the other one refuses.
    assert_eq!([send("/several"), send("/several"), send("/several")], [200, 200, 429]);
    assert_outcomes(&gateway, "several-1m", &[("pass", 3.0), ("refuse", 0.0)]);
    assert_outcomes(&gateway, "several-1h", &[("pass", 2.0), ("refuse", 1.0)]);
    // What the store has refused is refused here for up to a second, without asking again.
    let mut sent = 0.0;
    eventually("one is refused without the store", || {
        sent += 1.0;
        send("/plain");
        outcomes(&gateway, "plain").iter().any(|(it, _)| it == "denied_locally")
    });
    let plain = outcomes(&gateway, "plain");
    assert_eq!(plain.iter().map(|(_, sum)| sum).sum::<f64>(), sent, "{plain:?}");
    assert!(plain.contains(&("pass".to_owned(), 3.0)), "{plain:?}");
    assert_eq!(plain[2].0, "refuse");
    assert!(plain[2].1 >= 1.0, "{plain:?}");
    // While the store is away this node counts in its place, and refuses, too.
    assert_eq!([send("/away"), send("/away")], [200, 200]);
    proxy.refuse();
    let degraded = || scrape(&gateway).value("portcullis_store_up", &[]) == Some(0.0);
    eventually("the store is away", degraded);
    assert_eq!([send("/away"), send("/away"), send("/away")], [200, 200, 429]);
    assert_outcomes(&gateway, "away", &[("local", 2.0), ("pass", 2.0), ("refuse", 1.0)]);
    assert_eq!(send("/flying"), 200);
    assert_outcomes(&gateway, "flying", &[("local", 1.0), ("pass", 2.0), ("refuse", 0.0)]);
}

#[test]
fn a_limit_has_series_once_it_is_used_and_keeps_its_counts_when_it_is_reloaded() {
    let upstream = upstream();
    let config = |limits: &[(&str, &str)]| upstream.table("shop") + &routes(limits);
    let used = "key = [\"address\"]\nallow = [\"1/1h\"]";
    let gateway = Gateway::start(&config(&[("used", used), ("idle", used)]));
    assert!(!scrape(&gateway).mentions("limit", "used"), "nobody has used it");
    assert_eq!(Client::get(gateway.public, "/used").send().status, 200);
    // Looking is no request.
    let look = r#"{"path": "/idle"}"#;
    assert_eq!(operate(&gateway, "POST", "/v1/explain", look).status, 200);
    let read = scrape(&gateway);
    assert!(!read.mentions("limit", "idle"), "nobody has used it");
    // Its one key is near if its request was the one in sixteen that is looked at.
    let near = read.value("portcullis_limit_keys_near", &[("limit", "used")]);
    assert!(near.is_some_and(|near| near <= 1.0), "{near:?}");
    assert_outcomes(&gateway, "used", &[("pass", 1.0), ("refuse", 0.0)]);
    let reload = |limits: &[(&str, &str)]| {
        gateway.rewrite(&config(limits));
        assert_eq!(operate(&gateway, "POST", "/v1/config/reload", "{}").status, 200);
    };
    reload(&[("used", &format!("{used}\nshadow = true"))]);
    assert_outcomes(&gateway, "used", &[("pass", 1.0), ("shadow", 0.0)]);
    assert_eq!(Client::get(gateway.public, "/used").send().status, 200);
    assert_outcomes(&gateway, "used", &[("pass", 1.0), ("shadow", 1.0)]);
    reload(&[("new", used)]);
    assert!(!scrape(&gateway).mentions("limit", "used"), "it is gone");
}

/// `GET /v1/limits/pressed`.
fn pressed(gateway: &Gateway, query: &str) -> serde_json::Value {
    let reply = operate(gateway, "GET", &format!("/v1/limits/pressed{query}"), "");
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

#[test]
fn who_comes_near_a_limit_is_listed_before_he_is_refused() {
    let upstream = upstream();
    let limit = "key = [\"header:x-user\"]\nallow = [\"10000/1h\"]\n\
                 cost = { header = \"x-cost\", max = 9500 }";
    let gateway = Gateway::start(&(upstream.table("shop") + &routes(&[("api", limit)])));
    let mut client = Session::open(gateway.public);
    let mut send = |cost: &str| {
        let request = client.get("/api").header("x-user", "s3cret").header("x-cost", cost);
        assert_eq!(request.send().status, 200);
        pressed(&gateway, "")
    };
    // One request in sixteen is looked at.
    assert_eq!(send("7000")["keys"], json!([]), "seven tenths are not near");
    let mut told = send("1000");
    let mut used = 8000;
    while told["keys"] == json!([]) && used < 9000 {
        told = send("1");
        used += 1;
    }
    let now = jiff::Timestamp::now();
    let key = &told["keys"][0];
    let seen: jiff::Timestamp = key["seen"].as_str().unwrap().parse().unwrap();
    assert!((now - seen).get_seconds().abs() < 60, "{told}");
    let digest = key["key"].as_str().unwrap();
    assert!(digest.starts_with("header:x-user=#") && !told.to_string().contains("s3cret"));
    let expected = json!({
        "policy": "api", "window": "1h", "key": digest, "used": used, "allowed": 10000,
        "refused_per_minute": 0, "seen": key["seen"],
    });
    assert_eq!(told, json!({ "keys": [expected], "bound": 256 }));
    assert_eq!(pressed(&gateway, "?min=0.95")["keys"], json!([]));
    let near = || scrape(&gateway).value("portcullis_limit_keys_near", &[("limit", "api")]);
    assert_eq!(near(), Some(1.0));
    assert_eq!(operate(&gateway, "GET", "/v1/limits/refused", "").json()["refused"], json!([]));
    // Whoever is reset is not near any more.
    let reset = "/v1/limits?policy=api&key=header:x-user=s3cret";
    assert_eq!(operate(&gateway, "DELETE", reset, "").json()["counters_reset"], 1);
    assert_eq!((near(), &pressed(&gateway, "")["keys"]), (Some(0.0), &json!([])));
    for wrong in ["?min=1.5", "?min=-1", "?min=NaN", "?min=", "?max=1"] {
        let reply = operate(&gateway, "GET", &format!("/v1/limits/pressed{wrong}"), "");
        let kind = json!("urn:portcullis:problem:request_invalid");
        assert_eq!((reply.status, &reply.json()["type"]), (400, &kind), "{wrong}");
    }
}

#[test]
fn a_flood_of_keys_takes_no_more_room_than_there_is() {
    const KEYS: usize = 300;
    let upstream = upstream();
    let limit = "key = [\"header:x-user\"]\nallow = [\"1/1h\"]";
    let gateway = Gateway::start(&(upstream.table("shop") + &routes(&[("api", limit)])));
    let mut client = Session::open(gateway.public);
    let mut send =
        |user: usize| client.get("/api").header("x-user", user.to_string()).send().status;
    for user in 0..KEYS {
        assert_eq!((send(user), send(user)), (200, 429));
    }
    let told = pressed(&gateway, "");
    assert_eq!((told["keys"].as_array().unwrap().len(), &told["bound"]), (256, &json!(256)));
    let last = &told["keys"][0];
    assert_eq!((&last["used"], &last["allowed"]), (&json!(1), &json!(1)));
    let near = scrape(&gateway).value("portcullis_limit_keys_near", &[("limit", "api")]);
    assert_eq!(near, Some(256.0));
}
