//! The access log: one line for each request, that says what was decided and keeps every secret.

use serde_json::Value;

use crate::support::{
    AUTH, Client, Gateway, Redis, Session, Upstream, claims, eventually, response, token,
};

const ROUTES: &str = r#"
[session]
id_from = ["cookie:sid"]
[limits.api]
key = ["address"]
allow = ["2/1h"]
[routes.all]
path = "/*"
upstream = "shop"
auth = "users"
session = true
cache = { ttl = "1h", shared = true }
[routes.limited]
path = "/limited"
upstream = "shop"
limits = ["api"]
"#;

fn start(redis: &Redis, upstream: &Upstream) -> Gateway {
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
    Gateway::start(&(store + AUTH + &upstream.table("shop") + ROUTES))
}

fn upstream() -> Upstream {
    Upstream::replying(response("200 OK", "hello"))
}

/// The log, once it has this many lines.
fn lines(gateway: &Gateway, count: usize) -> Vec<Value> {
    eventually("every request has its line", || gateway.access_lines().len() >= count);
    let lines = gateway.access_lines();
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

#[test]
fn a_line_says_what_was_asked_and_what_was_decided() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream);
    let reply = Client::request(gateway.public, "GET", "/a/../p%7E?q=1")
        .header("Host", "Shop.test:80")
        .header("X-Request-Id", "request-1")
        .header("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .bearer(token(claims("42")))
        .send();
    assert_eq!((reply.status, reply.header("x-request-id")), (200, Some("request-1")));
    let line = lines(&gateway, 1).remove(0);
    for (field, value) in [
        ("request_id", "request-1"),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("client", "127.0.0.1"),
        ("method", "GET"),
        ("host", "shop.test"),
        ("path", "/p~"),
        ("route", "all"),
        ("subject", "42"),
        ("limits", "off"),
        ("cache", "miss"),
    ] {
        assert_eq!(line[field], value, "{field} of {line}");
    }
    assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &5.into()));
    for field in ["duration_ms", "store_ms", "upstream_ms"] {
        assert!(line[field].as_f64().is_some_and(|ms| ms > 0.0), "{field} of {line}");
    }
    assert!(line["duration_ms"].as_f64() >= line["upstream_ms"].as_f64(), "{line}");
    let time: jiff::Timestamp = line["time"].as_str().expect("a time").parse().expect("RFC 3339");
    let age = jiff::Timestamp::now().as_second() - time.as_second();
    assert!((0..600).contains(&age), "{line}");
    assert!(line.get("reason").is_none() && line.get("degraded").is_none(), "{line}");
}

#[test]
fn a_refusal_has_its_reason_and_a_hit_no_upstream() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream);
    let good = token(claims("42"));
    let mut session = Session::open(gateway.public);
    for (path, token, status) in [
        ("/p", Some(&*good), 200),
        ("/p", Some(&*good), 200),
        ("/p", None, 401),
        ("/p", Some("bad"), 401),
        ("/limited", None, 200),
        ("/limited", None, 200),
        ("/limited", None, 429),
        ("/limited", None, 429),
    ] {
        let mut request = session.get(path);
        if let Some(token) = token {
            request = request.bearer(token);
        }
        assert_eq!(request.send().status, status, "{path}");
    }
    let all = lines(&gateway, 8);
    let told: Vec<_> = all
        .iter()
        .map(|line| {
            let text = |field: &str| line[field].as_str().unwrap_or("").to_owned();
            let times = (line["store_ms"].is_f64(), line["upstream_ms"].is_f64());
            (line["status"].as_u64().unwrap(), text("reason"), text("limits"), text("cache"), times)
        })
        .collect();
    let expect = |status, reason: &str, limits: &str, cache: &str, times| {
        (status, reason.to_owned(), limits.to_owned(), cache.to_owned(), times)
    };
    assert_eq!(told[0], expect(200, "", "off", "miss", (true, true)));
    assert_eq!(told[1], expect(200, "", "off", "hit", (true, false)));
    assert_eq!(told[2], expect(401, "token_missing", "off", "", (false, false)));
    assert_eq!(told[3], expect(401, "token_invalid", "off", "", (false, false)));
    assert_eq!(told[4], expect(200, "", "pass", "", (true, true)));
    assert_eq!(told[5], expect(200, "", "pass", "", (true, true)));
    assert_eq!(told[6], expect(429, "limit_exceeded", "refused", "", (true, false)));
    assert_eq!(told[7].1, "limit_exceeded");
    assert_eq!(told[7].4, (false, false), "it was known without asking: {}", all[7]);
    assert_eq!(told[7].2, "denied-locally", "{}", all[7]);
    let ids: std::collections::BTreeSet<_> =
        all.iter().map(|line| line["request_id"].to_string()).collect();
    assert_eq!(ids.len(), 8, "each has an id of its own");
}

#[test]
fn what_never_became_a_request_of_a_route_has_a_line_too() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = start(&redis, &upstream);
    assert_eq!(Client::get(gateway.public, "/p%2fq").send().status, 400);
    assert_eq!(Client::request(gateway.public, "TRACE", "/p").send().status, 405);
    let all = lines(&gateway, 2);
    assert_eq!((&all[0]["reason"], &all[0]["route"]), (&"path_invalid".into(), &"-".into()));
    assert_eq!((&all[1]["reason"], &all[1]["route"]), (&"method_refused".into(), &"-".into()));
}

#[test]
fn an_upstream_that_fails_is_named_as_the_cause() {
    let redis = Redis::start();
    let upstream = Upstream::with(|_, connection| {
        let _ = connection.shutdown(std::net::Shutdown::Both);
    });
    let gateway = start(&redis, &upstream);
    let reply = Client::get(gateway.public, "/limited").send();
    assert_eq!(reply.status, 502);
    let line = lines(&gateway, 1).remove(0);
    assert_eq!(line["reason"], "upstream_broken");
    let detail = line["error"].as_str().expect("the operator learns more");
    assert!(!reply.text().contains(detail), "the client does not");
}

#[test]
fn no_secret_is_ever_written() {
    let (redis, upstream) = (Redis::start(), upstream());
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
    let noisy = "[log]\nlevel = \"debug\"\n[admin]\ntoken = \"secret-operator-token\"\n";
    let auth =
        AUTH.replace("audience", "from = [\"header:authorization\", \"cookie:access\"]\naudience");
    let config = noisy.to_owned() + &store + &auth + &upstream.table("shop") + ROUTES;
    let gateway = Gateway::start(&config);
    redis.cli(&["SET", "app:session:secret-sid", r#"{"card": "secret-session-value"}"#]);
    let good = token(claims("42"));
    let mut revoked = claims("42");
    revoked["jti"] = "t1".into();
    let revoked = token(revoked);
    redis.cli(&["SET", "app:auth:blacklist:t1", "1"]);
    let cookie = |token: &str| format!("sid=secret-sid; access={token}; other=secret-cookie");
    for authorization in [
        format!("Bearer {good}"),
        format!("Bearer {revoked}"),
        "Basic secret-basic".to_owned(),
        "Bearer secret.bad.token".to_owned(),
    ] {
        for method in ["GET", "POST"] {
            Client::request(gateway.public, method, "/p?password=secret-query&x=%00")
                .header("Authorization", &authorization)
                .header("Cookie", cookie(authorization.trim_start_matches("Bearer ")))
                .header("Referer", "http://a.test/?secret-referer")
                .header("X-Api-Key", "secret-key")
                .body("secret-body")
                .send();
        }
    }
    let operate = Client::request(gateway.admin, "POST", "/v1/revocations");
    let operate = operate.header("Authorization", "Bearer secret-operator-token");
    let told =
        operate.header("Content-Type", "application/json").body(r#"{"sid": "secret-sid"}"#).send();
    assert_eq!(told.status, 201);
    let log = lines(&gateway, 8).iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let diagnostics = gateway.stderr();
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let mut secrets = vec!["secret".to_owned(), crate::support::SECRET.to_owned()];
    for token in [&good, &revoked] {
        // The header is the same for all tokens; claims and signature are not.
        secrets.extend(parts(token).into_iter().skip(1));
    }
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} in {log}");
        assert!(!diagnostics.contains(&secret), "{secret} in {diagnostics}");
    }
}

#[test]
fn the_log_can_be_off() {
    let (redis, upstream) = (Redis::start(), upstream());
    let store = format!("[log]\naccess = \"off\"\n[store]\nurl = \"{}\"\n", redis.url());
    let gateway = Gateway::start(&(store + AUTH + &upstream.table("shop") + ROUTES));
    assert_eq!(Client::get(gateway.public, "/limited").send().status, 200);
    // What is counted after a line would have been written.
    eventually("it is counted", || {
        let metrics = Client::get(gateway.admin, "/metrics").send().text();
        metrics.contains("portcullis_requests_total{route=\"limited\",status=\"200\"} 1")
    });
    assert!(gateway.access_lines().is_empty());
}
