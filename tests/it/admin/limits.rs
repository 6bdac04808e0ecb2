//! Limits for operators: explain, inspect, reset, and whom the limits refuse.

use serde_json::json;

use super::*;
use crate::auth::code;

const CONFIG: &str = r#"
[limits.api]
key = ["claim:sub"]
allow = ["3/1h", "2/1m"]
cost = { methods = { POST = 2 } }
tiers = { by = "claim:plan", allow = { gold = ["9/1h"] } }
[limits.guess]
key = ["address"]
allow = ["4/1h"]
[limits.seen]
key = ["address"]
allow = ["1/1h"]
shadow = true
# A unit comes back after 86 s, so that nothing changes between two explanations.
[limits.flood]
key = ["address"]
allow = ["1000/1d"]
scope = "local"
[limits.here]
key = ["address", "header:x-user"]
allow = ["2/1h"]
cost = { methods = { POST = 2 } }
scope = "local"
[limits.one]
key = ["claim:sub"]
concurrent = 1
[session]
id_from = ["claim:sid"]
header = "x-session"
[routes.open]
path = "/open/*"
upstream = "shop"
limits = ["seen", "flood", "here"]
[routes.api]
path = "/api/*"
methods = ["GET", "POST"]
upstream = "shop"
auth = "users"
require = { role = ["admin"] }
limits = ["api", "guess", "one"]
[routes.session]
path = "/session"
upstream = "shop"
auth = "users"
session = "required"
"#;

fn started() -> (Redis, Upstream, Gateway) {
    let (redis, upstream) = (Redis::start(), Upstream::replying(response("200 OK", "hello")));
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
    let config = store + AUTH + &upstream.table("shop") + CONFIG;
    let gateway = Gateway::start(&config);
    (redis, upstream, gateway)
}

fn operate(gateway: &Gateway, method: &str, path: &str, body: Option<&Value>) -> Reply {
    let request = Client::request(gateway.admin, method, path)
        .header("Host", gateway.admin.to_string())
        .header("Content-Type", "application/json");
    match body {
        Some(body) => request.body(body.to_string()).send(),
        None => request.send(),
    }
}

fn explain(gateway: &Gateway, question: &Value) -> Value {
    let reply = operate(gateway, "POST", "/v1/explain", Some(question));
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn bearer(changes: &[(&str, Value)]) -> String {
    let mut all = claims("ada");
    all["role"] = json!("admin");
    for (name, value) in changes {
        all[name] = value.clone();
    }
    format!("Bearer {}", token(all))
}

/// What each window has left.
fn left(explanation: &Value) -> Vec<Value> {
    let limits = explanation["limits"].as_array().into_iter().flatten();
    limits.map(|limit| limit["remaining"].clone()).collect()
}

#[test]
fn an_explanation_foretells_the_answer_and_charges_nothing() {
    let (redis, upstream, gateway) = started();
    redis.cli(&["SET", "app:auth:blacklist:gone", "1"]);
    redis.cli(&["SET", "app:session:s1", "{}"]);
    let requests = [
        ("GET", "/open/a", None),
        ("GET", "/nowhere", None),
        ("DELETE", "/api/x", None),
        ("GET", "/open/%2f", None),
        // The gateway's own limit has room for two.
        ("POST", "/open/b", None),
        ("GET", "/open/c", None),
        ("GET", "/api/x", None),
        ("GET", "/api/x", Some("Bearer x.y.z".to_owned())),
        ("GET", "/api/x", Some(bearer(&[("role", json!("user"))]))),
        ("GET", "/session", Some(bearer(&[("jti", json!("gone"))]))),
        ("POST", "/api/x", Some(bearer(&[]))),
        ("GET", "/session", Some(bearer(&[("sid", json!("s1"))]))),
        ("GET", "/session", Some(bearer(&[("sid", json!("s2"))]))),
        // What the requests above have used up.
        ("POST", "/api/x", Some(bearer(&[("jti", json!("another"))]))),
        ("GET", "/api/x", Some("Bearer x.y.z".to_owned())),
    ];
    for (method, path, authorization) in requests {
        // The gateway gives the place of a request that is over back when it can.
        let in_flight = "app:ratelimit:{claim:sub=ada}:one:in-flight";
        eventually("nothing is in flight", || redis.cli(&["ZCARD", in_flight]) == "0");
        let mut question = json!({ "method": method, "path": path, "host": "shop.test" });
        if let Some(authorization) = &authorization {
            question["headers"] = json!({ "authorization": authorization });
        }
        let before = upstream.seen();
        let foretold = explain(&gateway, &question);
        let again = explain(&gateway, &question);
        assert_eq!(left(&foretold), left(&again), "an explanation changes nothing");
        assert_eq!(upstream.seen(), before);
        let mut request = Client::request(gateway.public, method, path);
        if let Some(authorization) = &authorization {
            request = request.header("Authorization", authorization);
        }
        let reply = request.send();
        let outcome = &foretold["outcome"];
        if reply.status == 200 {
            let told = (&outcome["passes"], &outcome["upstream"], &outcome["server"]);
            let expected = (&json!(true), &json!("shop"), &json!(upstream.url()));
            assert_eq!(told, expected, "{method} {path}");
        } else {
            let expected = (json!(reply.status), json!(code(&reply)));
            let said = (outcome["status"].clone(), outcome["code"].clone());
            assert_eq!(said, expected, "{method} {path}: {foretold}");
        }
    }
}

/// As it is of a request: the forwarding fields of a trusted proxy count, and no one else's.
#[test]
fn an_explanation_believes_the_forwarding_fields_of_a_trusted_proxy() {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let config = AUTH.to_owned() + &upstream.table("shop") + CONFIG;
    let server = "[server]\ntrusted_proxies = [\"192.0.2.1\"]\n";
    let gateway = Gateway::start(&(server.to_owned() + &config));
    for (address, key) in
        [("192.0.2.1", "address=198.51.100.7"), ("192.0.2.9", "address=192.0.2.9")]
    {
        let fields = json!({ "x-forwarded-for": "198.51.100.7", "x-forwarded-proto": "https" });
        let question = json!({
            "path": "/open/x", "host": "shop.test", "address": address, "headers": fields,
        });
        let explained = explain(&gateway, &question);
        assert_eq!(explained["limits"][0]["key"], key, "{explained}");
    }
}

#[test]
fn an_explanation_shows_what_is_left_of_each_limit() {
    let (redis, _upstream, gateway) = started();
    let gold = bearer(&[("plan", json!("gold"))]);
    let question = |authorization: &str| {
        json!({ "method": "POST", "path": "/api/x?q=1", "host": "shop.test",
                "address": "2001:db8::7", "headers": { "Authorization": authorization } })
    };
    let shown = explain(&gateway, &question(&gold));
    assert_eq!((&shown["route"], &shown["path"]), (&json!("api"), &json!("/api/x")));
    assert_eq!(shown["caller"]["subject"], "ada");
    let limits = shown["limits"].as_array().unwrap();
    let of = |name: &str| limits.iter().find(|limit| limit["limit"] == name).unwrap();
    let (api, guess) = (of("api"), of("guess"));
    assert_eq!(
        (&api["window"], &api["allowed"], &api["cost"]),
        (&json!("1h"), &json!(9), &json!(2))
    );
    assert_eq!((&api["key"], &api["remaining"]), (&json!("claim:sub=ada"), &json!(9)));
    assert_eq!(guess["key"], "address=2001:db8::");
    let one = of("one");
    assert_eq!((&one["concurrent"], &one["in_flight"]), (&json!(1), &json!(0)));
    redis.cli(&["ZADD", "app:ratelimit:{claim:sub=ada}:one:in-flight", "9e14", "somebody"]);
    let crowded = explain(&gateway, &question(&gold));
    assert_eq!(crowded["outcome"]["code"], "limit_exceeded", "{crowded}");
    redis.cli(&["DEL", "app:ratelimit:{claim:sub=ada}:one:in-flight"]);
    let plain = explain(&gateway, &question(&bearer(&[])));
    assert_eq!(plain["limits"].as_array().unwrap().len(), 4, "{plain}");
    let open = explain(&gateway, &json!({ "path": "/open/x", "host": "shop.test" }));
    let here = &open["limits"][2];
    let (scope, key, window) = (&here["scope"], &here["key"], &here["window"]);
    assert_eq!((scope, window), (&json!("local"), &json!("1h")), "{open}");
    assert!(key.as_str().unwrap().starts_with("address="), "{open}");
    assert_eq!((&here["allowed"], &here["remaining"]), (&json!(2), &json!(2)));
    assert_eq!(Client::get(gateway.public, "/open/x").send().status, 200);
    let open = explain(&gateway, &json!({ "path": "/open/x", "host": "shop.test" }));
    assert_eq!(open["limits"][2]["remaining"], 1, "{open}");
    let post = json!({ "path": "/open/x", "host": "shop.test", "method": "POST" });
    let post = explain(&gateway, &post);
    let verdict = (&post["limits"][2]["verdict"], &post["outcome"]["status"]);
    assert_eq!(verdict, (&json!("refuses"), &json!(429)));
    assert!(post["limits"][2]["retry_after_seconds"].as_f64().unwrap() > 1700.0, "{post}");
}

#[test]
fn a_question_that_is_not_understood_says_why() {
    let (_redis, _upstream, gateway) = started();
    for (body, says) in [
        (json!({}), "missing field `path`"),
        (json!({ "path": "/", "colour": "red" }), "unknown field `colour`"),
        (json!({ "path": "/", "method": "G T" }), "is no method"),
        (json!({ "path": "/", "headers": { "a b": "c" } }), "is no header"),
        (json!({ "path": "/ x" }), "is no path"),
        (json!({ "path": "/", "address": "here" }), "invalid IP address"),
    ] {
        let reply = operate(&gateway, "POST", "/v1/explain", Some(&body));
        assert_eq!(problem(&reply), (400, "request_invalid".to_owned()));
        assert!(reply.text().contains(says), "{body}: {}", reply.text());
    }
}

#[test]
fn a_key_is_inspected_and_reset() {
    let (redis, _upstream, gateway) = started();
    let path = "/v1/limits?policy=api&key=claim:sub%3Dada";
    let left = || {
        let reply = operate(&gateway, "GET", path, None);
        assert_eq!(reply.status, 200, "{reply:?}");
        let shown = reply.json();
        let windows = shown["windows"].as_array().unwrap().iter();
        windows
            .filter(|w| w["tier"].is_null())
            .map(|w| w["remaining"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    let ask = || Client::get(gateway.public, "/api/x").header("Authorization", bearer(&[])).send();
    assert_eq!(left(), [3, 2]);
    assert_eq!([ask().status, ask().status, ask().status], [200, 200, 429]);
    assert_eq!(left(), [1, 0]);
    // A tier's window of the same length has the same counter and a limit of its own.
    let shown = operate(&gateway, "GET", path, None).json();
    let gold = &shown["windows"][2];
    let (tier, allowed, left_of_it) = (&gold["tier"], &gold["allowed"], &gold["remaining"]);
    assert_eq!((tier, allowed, left_of_it), (&json!("gold"), &json!(9), &json!(7)), "{shown}");
    let reset = operate(&gateway, "DELETE", path, None).json();
    assert_eq!(reset["counters_reset"], 2);
    assert_eq!(left(), [3, 2]);
    // At once, also where the refusal was remembered; the address's own limit is another key.
    let freed = operate(&gateway, "DELETE", "/v1/limits?policy=guess&key=address=127.0.0.1", None);
    assert_eq!(freed.json()["counters_reset"], 1);
    assert_eq!(ask().status, 200);
    let path = "/v1/limits?policy=one&key=claim:sub=eve";
    redis.cli(&["ZADD", "app:ratelimit:{claim:sub=eve}:one:in-flight", "9e14", "somebody"]);
    assert_eq!(operate(&gateway, "GET", path, None).json()["in_flight"], 1);
    assert_eq!(operate(&gateway, "DELETE", path, None).json()["counters_reset"], 1);
    assert_eq!(operate(&gateway, "GET", path, None).json()["in_flight"], 0);
    for (path, says) in [
        ("/v1/limits", "Name the policy and the key"),
        ("/v1/limits?policy=apo&key=address=::1", "No limit is named \\\"apo\\\""),
        ("/v1/limits?policy=api&key=42", "is no key"),
        ("/v1/limits?policy=flood&key=address=::1", "for itself"),
        ("/v1/limits?policy=guess&key=ip=127.0.0.1", "Write address=127.0.0.1."),
        ("/v1/limits?policy=guess&key=address=localhost", "counts by address. Write address="),
        ("/v1/limits?policy=guess&key=claim:sub=ada", "counts by address. Write address="),
    ] {
        let reply = operate(&gateway, "GET", path, None);
        assert_eq!(problem(&reply), (400, "request_invalid".to_owned()));
        assert!(reply.text().contains(says), "{path}: {}", reply.text());
    }
}

#[test]
fn the_most_refused_are_listed() {
    let (_redis, _upstream, gateway) = started();
    for (sub, requests) in [("ada", 7), ("bob", 4)] {
        for _ in 0..requests {
            let bearer = bearer(&[("sub", json!(sub))]);
            let path = "/v1/limits?policy=guess&key=address=127.0.0.1";
            assert_eq!(operate(&gateway, "DELETE", path, None).status, 200);
            Client::get(gateway.public, "/api/x").header("Authorization", bearer).send();
        }
    }
    let shown = operate(&gateway, "GET", "/v1/limits/refused", None).json();
    assert_eq!(
        shown,
        json!({ "refused": [
            { "policy": "api", "window": "1m", "key": "claim:sub=ada", "refusals": 5 },
            { "policy": "api", "window": "1m", "key": "claim:sub=bob", "refusals": 2 },
        ] })
    );
}
