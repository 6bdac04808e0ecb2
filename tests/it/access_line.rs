//! What the access line says of a refusal: the limit and whose it is, the cause of a 401, what a
//! 403 was missing, the key that bounds the rest. The client is told none of it.

use std::net::Shutdown;

use serde_json::{Value, json};

use crate::support::{
    AUTH, Client, Gateway, Redis, Reply, Session, Upstream, claims, eventually, raw,
    raw_until_close, response, token,
};

fn upstream() -> Upstream {
    Upstream::replying(response("200 OK", "hello"))
}

/// The last line, once there are `count`.
fn line(gateway: &Gateway, count: usize) -> Value {
    eventually("every request has its line", || gateway.access_lines().len() >= count);
    let mut lines = gateway.access_lines();
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines.pop().expect("a line")
}

const LIMITS: &str = r#"
[limits.shared]
key = ["claim:sub"]
allow = ["1/1h"]
[limits.local]
key = ["claim:sub"]
allow = ["1/1h"]
scope = "local"
[limits.several]
key = ["claim:sub", "route"]
allow = ["50/1s", "1/1h"]
[limits.address]
key = ["address"]
allow = ["1/1h"]
[limits.key]
key = ["header:x-api-key"]
allow = ["1/1h"]
"#;

/// A route at `/NAME` for each of these limits.
fn routes(names: &[&str]) -> String {
    let route = |name: &&str| {
        format!(
            "[routes.{name}]\npath = \"/{name}\"\nupstream = \"shop\"\nauth = \"users\"\n\
             limits = [\"{name}\"]\n"
        )
    };
    names.iter().map(route).collect()
}

#[test]
fn a_429_names_the_limit_its_window_and_whose_it_is_wherever_it_was_refused() {
    let (redis, upstream) = (Redis::start(), upstream());
    let stores = [String::new(), format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url())];
    for store in stores {
        let names = ["shared", "local", "several", "address", "key"];
        let gateway =
            Gateway::start(&(store + AUTH + &upstream.table("shop") + LIMITS + &routes(&names)));
        let good = token(claims("42"));
        let mut count = 0;
        for (name, window, key) in [
            ("shared", "1h", "claim:sub=42"),
            ("local", "1h", "claim:sub=42"),
            ("several", "1h", "claim:sub=42|route=several"),
            ("address", "1h", "address=127.0.0.1"),
            ("key", "1h", "header:x-api-key=#"),
        ] {
            let send = || {
                let request = Client::get(gateway.public, &format!("/{name}"));
                request.bearer(&good).header("X-Api-Key", "s3cret").send()
            };
            assert_eq!(send().status, 200, "{name}");
            // The first refusal is the store's; the others are known here.
            for _ in 0..3 {
                let reply = send();
                assert_eq!(reply.status, 429, "{name}");
                count += 1;
                let line =
                    line(&gateway, count + names.iter().position(|it| *it == name).unwrap() + 1);
                assert_eq!(line["reason"], "limit_exceeded");
                assert_eq!((&line["limit"], &line["limit_window"]), (&json!(name), &json!(window)));
                assert!(line["limit_key"].as_str().is_some_and(|it| it.starts_with(key)), "{line}");
                assert!(!line.to_string().contains("s3cret"), "{line}");
                let told = reply.header("retry-after").and_then(|it| it.parse::<u64>().ok());
                assert_eq!(line["retry_after_s"].as_u64(), told, "{line}");
                // An address that is known to be over its limit is refused before its token is
                // looked at; everybody else was identified.
                let early = name == "address" && line["limits"] == "denied-locally";
                let subject = if early { Value::Null } else { json!("42") };
                assert_eq!(line["subject"], subject, "{line}");
                assert!(!reply.text().contains("claim:") && !reply.text().contains("\"42\""));
            }
        }
    }
}

#[test]
fn a_limit_on_requests_in_flight_is_named_too() {
    let (redis, held) = (Redis::start(), std::sync::Arc::new(std::sync::Barrier::new(2)));
    let gate = std::sync::Arc::clone(&held);
    let upstream = Upstream::with(move |_, connection| {
        use std::io::Write as _;
        gate.wait();
        let _ = connection.write_all(response("200 OK", "ok").as_bytes());
    });
    for scope in ["shared", "local"] {
        let config = format!(
            "[store]\nurl = \"{}\"\ntimeout = \"5s\"\n{AUTH}{}[limits.slow]\n\
             key = [\"claim:sub\"]\nconcurrent = 1\nscope = \"{scope}\"\n{}",
            redis.url(),
            upstream.table("shop"),
            routes(&["slow"])
        );
        let gateway = Gateway::start(&config);
        let good = token(claims("42"));
        let before = upstream.seen();
        let mut first = Session::open(gateway.public);
        first.write(format!(
            "GET /slow HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer {good}\r\n\r\n"
        ));
        eventually("it is forwarded", || upstream.seen() > before);
        assert_eq!(Client::get(gateway.public, "/slow").bearer(&good).send().status, 429);
        let line = line(&gateway, 1);
        let told = ["limit", "limit_window", "limit_key", "subject"].map(|name| line[name].clone());
        assert_eq!(told, ["slow", "in-flight", "claim:sub=42", "42"].map(Value::from), "{scope}");
        held.wait();
        assert_eq!(first.read().status, 200);
    }
}

#[test]
fn a_429_of_this_nodes_own_window_in_an_outage_is_named_too() {
    let (mut redis, upstream) = (Redis::start(), upstream());
    let config = format!(
        "[store]\nurl = \"{}\"\n[store.on_outage]\nrevocation = \"allow\"\n{AUTH}{}{LIMITS}{}",
        redis.url(),
        upstream.table("shop"),
        routes(&["shared"])
    );
    let gateway = Gateway::start(&config);
    redis.kill();
    let good = token(claims("42"));
    let statuses: Vec<u16> = (0..3)
        .map(|_| Client::get(gateway.public, "/shared").bearer(&good).send().status)
        .collect();
    assert_eq!(statuses, [200, 429, 429]);
    eventually("all have lines", || gateway.access_lines().len() == 3);
    for line in gateway.access_lines().iter().filter(|line| line["status"] == 429) {
        let told = ["limit", "limit_window", "limit_key", "subject"].map(|name| line[name].clone());
        assert_eq!(told, ["shared", "1h", "claim:sub=42", "42"].map(Value::from), "{line}");
        assert_eq!(line["degraded"][0], "revocation", "{line}");
    }
}

/// What a client learns of a refusal, without what differs in every answer.
fn told(reply: &Reply) -> (u16, Option<String>, Value) {
    let mut body = reply.json();
    body["request_id"] = Value::Null;
    (reply.status, reply.header("www-authenticate").map(str::to_owned), body)
}

fn changed(name: &str, value: Value) -> String {
    let mut changed = claims("42");
    changed[name] = value;
    token(changed)
}

#[test]
fn a_401_has_its_cause_in_the_log_and_nowhere_else() {
    let upstream = upstream();
    let gateway = Gateway::start(&format!(
        "{}max_age = \"2h\"\ntoken_bytes = 1024\n{}[routes.private]\npath = \"/*\"\n\
         upstream = \"shop\"\nauth = \"users\"\n",
        AUTH,
        upstream.table("shop")
    ));
    let good = token(claims("42"));
    let now = jiff::Timestamp::now().as_second();
    let unsigned = good.rsplit_once('.').map(|(input, _)| format!("{input}.{}", "A".repeat(43)));
    let with_header = |header: &str| {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(header);
        good.split_once('.').map(|(_, rest)| format!("{encoded}.{rest}")).unwrap()
    };
    let cases = [
        (unsigned.unwrap(), "signature", None),
        (with_header(r#"{"alg":"none"}"#), "algorithm", None),
        (with_header(r#"{"alg":"RS256"}"#), "algorithm", None),
        (with_header(r#"{"alg":"HS256","crit":["x"]}"#), "extension", None),
        (with_header(r#"{"alg":"HS256","typ":"dpop\u0000\"\n"}"#), "type", None),
        ("no.token".to_owned(), "malformed", None),
        ("A".repeat(2000), "too_large", None),
        (changed("aud", json!("evil\"\n\u{1b}[31m")), "audience", Some("aud")),
        (changed("iss", json!("https://evil.test")), "issuer", Some("iss")),
        (changed("nbf", json!(now + 3600)), "not_yet_valid", Some("nbf")),
        (changed("iat", json!(now + 3600)), "issued_in_future", Some("iat")),
        (changed("exp", json!(now + 3600 * 24)), "max_age", Some("iat")),
        (changed("exp", Value::Null), "claim", Some("exp")),
        (changed("sub", json!(42)), "claim", Some("sub")),
        (changed("jti", json!(["a"])), "claim", Some("jti")),
        (changed("sid", json!("")), "claim", Some("sid")),
    ];
    let mut answers = Vec::new();
    for (number, (token, cause, claim)) in cases.into_iter().enumerate() {
        let reply = Client::get(gateway.public, "/").bearer(&token).send();
        let line = line(&gateway, number + 1);
        assert_eq!(line["reason"], "token_invalid", "{line}");
        assert_eq!((&line["cause"], &line["claim"]), (&json!(cause), &json!(claim)), "{line}");
        assert!(line["error"].is_string(), "{line}");
        let text = line.to_string();
        assert!(!text.contains("evil") && !text.contains("dpop"));
        assert!(token.len() < 40 || !text.contains(&token[..40]), "{text}");
        answers.push(told(&reply));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    let lines = gateway.access_lines();
    let of = |cause: &str| lines.iter().find(|line| line["cause"] == cause).unwrap().clone();
    assert_eq!(of("audience")["wanted"], json!(["shop"]));
    assert_eq!(of("issuer")["wanted"], json!(["https://login.test"]));
    assert_eq!(of("algorithm")["wanted"], json!(["HS256"]));
    assert_eq!(of("too_large")["bound"], "auth.users.token_bytes");
    assert_eq!(of("max_age")["bound"], "auth.users.max_age");
    let expired = Client::get(gateway.public, "/").bearer(changed("exp", json!(now - 3600))).send();
    assert_eq!(expired.status, 401);
    let line = line(&gateway, lines.len() + 1);
    assert_eq!((&line["reason"], &line["cause"]), (&json!("token_expired"), &json!("expired")));
}

#[test]
fn a_revoked_token_says_by_what_and_two_tokens_are_told_apart_from_a_bad_one() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = Gateway::start(&format!(
        "[store]\nurl = \"{}\"\ntimeout = \"5s\"\n{}{}[routes.private]\npath = \"/*\"\n\
         upstream = \"shop\"\nauth = \"users\"\n",
        redis.url(),
        AUTH.replace("audience", "from = [\"header:authorization\", \"cookie:t\"]\naudience"),
        upstream.table("shop")
    ));
    redis.cli(&["SET", "app:auth:blacklist:t1", "1"]);
    redis.cli(&["SET", "app:auth:not-before:43", "9999999999"]);
    let mut listed = claims("42");
    listed["jti"] = json!("t1");
    for (number, (token, cause, subject)) in
        [(token(listed), "jti", "42"), (token(claims("43")), "sub", "43")].into_iter().enumerate()
    {
        assert_eq!(Client::get(gateway.public, "/").bearer(token).send().status, 401);
        let line = line(&gateway, number + 1);
        let told = ["reason", "cause", "subject"].map(|name| line[name].clone());
        assert_eq!(told, ["token_revoked", cause, subject].map(Value::from), "{line}");
    }
    let (one, other) = (token(claims("1")), token(claims("2")));
    let cookie = format!("t={other}");
    let several = Client::get(gateway.public, "/").bearer(one).header("Cookie", cookie).send();
    let first = line(&gateway, 3);
    let form = Client::get(gateway.public, "/").header("Authorization", "Bearer a b").send();
    let second = line(&gateway, 4);
    assert_eq!((&first["cause"], &second["cause"]), (&json!("several"), &json!("form")));
    assert_eq!(told(&several), told(&form));
}

#[test]
fn a_403_says_who_it_was_and_what_was_missing() {
    let upstream = upstream();
    let gateway = Gateway::start(&format!(
        "{AUTH}{}[limits.edge]\nkey = [\"address\"]\nallow = [\"100/1s\"]\n\
         block = [\"127.0.0.0/8\"]\n[routes.admin]\npath = \"/admin\"\nupstream = \"shop\"\n\
         auth = \"users\"\nrequire = {{ roles = [\"admin\", \"owner\"] }}\n[routes.read]\n\
         path = \"/read\"\nupstream = \"shop\"\nauth = \"users\"\n\
         require = {{ scope = [\"orders:read\"] }}\n[routes.blocked]\npath = \"/blocked\"\n\
         upstream = \"shop\"\nlimits = [\"edge\"]\n",
        upstream.table("shop")
    ));
    let bearer = changed("roles", json!(["guest\"\n", "s3cret-role"]));
    for (number, (path, reason, claim, wanted)) in [
        ("/admin", "claims_insufficient", "roles", json!(["admin", "owner"])),
        ("/read", "scope_insufficient", "scope", json!(["orders:read"])),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = Client::get(gateway.public, path).bearer(&bearer).send();
        assert_eq!(reply.status, 403);
        let line = line(&gateway, number + 1);
        let told = ["reason", "subject", "claim", "cause"].map(|name| line[name].clone());
        assert_eq!(told, [reason, "42", claim, "claim"].map(Value::from), "{line}");
        assert_eq!(line["wanted"], wanted, "{line}");
        assert!(!line.to_string().contains("s3cret"), "{line}");
        assert!(!reply.text().contains("owner") && !reply.text().contains("roles"));
    }
    assert_eq!(Client::get(gateway.public, "/blocked").send().status, 403);
    let line = line(&gateway, 3);
    let told = ["reason", "bound", "client"].map(|name| line[name].clone());
    assert_eq!(told, ["address_blocked", "limits.edge.block", "127.0.0.1"].map(Value::from));
}

#[test]
fn what_met_a_bound_names_its_key() {
    let upstream = upstream();
    let gateway = Gateway::start(&format!(
        "[server.limits]\nbody_bytes = \"1KiB\"\nheaders = 20\nheader_bytes = \"8KiB\"\n\
         header_timeout = \"1s\"\nprogress_timeout = \"1s\"\n{}[routes.all]\npath = \"/*\"\n\
         upstream = \"shop\"\n",
        upstream.table("shop")
    ));
    let head = "POST / HTTP/1.1\r\nHost: shop.test\r\n";
    let fields = |count: usize, size: usize| -> String {
        (0..count).map(|n| format!("X-{n}: {}\r\n", "a".repeat(size))).collect()
    };
    let chunk = format!("800\r\n{}\r\n0\r\n\r\n", "b".repeat(0x800));
    for (number, (request, status, bound)) in [
        (format!("{head}Content-Length: 2000\r\n\r\n"), 413, "server.limits.body_bytes"),
        (
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}"),
            413,
            "server.limits.body_bytes",
        ),
        (format!("{head}{}\r\n", fields(20, 1)), 431, "server.limits.headers"),
        (format!("{head}{}\r\n", fields(200, 1)), 431, "server.limits.headers"),
        (format!("{head}{}\r\n", fields(5, 4000)), 431, "server.limits.header_bytes"),
        (format!("{head}X"), 408, "server.limits.header_timeout"),
        (format!("{head}Content-Length: 9\r\n\r\nabc"), 408, "server.limits.progress_timeout"),
        ("GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "server.limits.encoded_slash"),
    ]
    .into_iter()
    .enumerate()
    {
        raw_until_close(gateway.public, &request);
        let line = line(&gateway, number + 1);
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["bound"], bound, "{line}");
    }
}

#[test]
fn a_connection_that_is_turned_away_has_a_line() {
    let upstream = upstream();
    for (limits, bound) in [
        ("connections = 1", "server.limits.connections"),
        ("connections_per_address = 1", "server.limits.connections_per_address"),
    ] {
        let gateway = Gateway::start(&format!(
            "[server.limits]\n{limits}\n{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
            upstream.table("shop")
        ));
        let mut first = Session::open(gateway.public);
        assert_eq!(first.get("/").send().status, 200);
        line(&gateway, 1);
        assert!(raw(gateway.public, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").contains(" 503 "));
        let line = line(&gateway, 2);
        let told = ["bound", "client", "method", "path"].map(|name| line[name].clone());
        assert_eq!(told, [bound, "127.0.0.1", "-", "-"].map(Value::from), "{line}");
        assert_eq!(line["status"], 503);
    }
}

#[test]
fn an_upstream_is_named_with_the_key_that_bounds_it() {
    let silent = Upstream::with(|request, connection| {
        if request.target() == "/never" {
            let _ = connection.shutdown(Shutdown::Write);
        }
        // Nothing is answered; whoever waits, waits for the timeout.
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(connection, &mut rest);
    });
    let start = |timeouts: &str| {
        let route = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n";
        let table = silent.table("shop");
        Gateway::start(&format!("{table}max_connections = 1\n{timeouts}{route}"))
    };
    // Two gateways: however late the second request is, the first has its connection still.
    let gateway = start("response_timeout = \"1h\"\nconnect_timeout = \"1s\"\n");
    let mut first = Session::open(gateway.public);
    first.write("GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    eventually("it is forwarded", || silent.seen() == 1);
    assert_eq!(Client::get(gateway.public, "/b").send().status, 503);
    let busy = line(&gateway, 1);
    assert_eq!((&busy["reason"], &busy["upstream"]), (&json!("upstream_busy"), &json!("shop")));
    assert_eq!(busy["bound"], "upstreams.shop.max_connections");
    let gateway = start("response_timeout = \"100ms\"\n");
    assert_eq!(Client::get(gateway.public, "/a").send().status, 504);
    let slow = line(&gateway, 1);
    assert_eq!((&slow["reason"], &slow["upstream"]), (&json!("upstream_timeout"), &json!("shop")));
    assert_eq!(slow["bound"], "upstreams.shop.response_timeout");
}

#[test]
fn a_503_of_an_absent_store_names_the_setting_that_refuses() {
    let (mut redis, upstream) = (Redis::start(), upstream());
    let gateway = Gateway::start(&format!(
        "[store]\nurl = \"{}\"\n[store.on_outage]\nlimits = \"refuse\"\n[session]\n\
         id_from = [\"cookie:sid\"]\n{AUTH}{}{LIMITS}[routes.limited]\npath = \"/limited\"\n\
         upstream = \"shop\"\nlimits = [\"address\"]\n[routes.session]\npath = \"/session\"\n\
         upstream = \"shop\"\nsession = true\n[routes.private]\npath = \"/private\"\n\
         upstream = \"shop\"\nauth = \"users\"\n",
        redis.url(),
        upstream.table("shop")
    ));
    redis.kill();
    let good = token(claims("42"));
    for (number, (path, bound, subject)) in [
        ("/limited", "store.on_outage.limits", Value::Null),
        ("/session", "store.on_outage.session", Value::Null),
        ("/private", "store.on_outage.revocation", json!("42")),
    ]
    .into_iter()
    .enumerate()
    {
        let mut request = Client::get(gateway.public, path).header("Cookie", "sid=s1");
        if path == "/private" {
            request = request.bearer(&good);
        }
        assert_eq!(request.send().status, 503, "{path}");
        let line = line(&gateway, number + 1);
        assert_eq!((&line["bound"], &line["subject"]), (&json!(bound), &subject), "{line}");
    }
}

#[test]
fn a_line_says_who_was_asked_how_often_and_how_long_each_stage_took() {
    let (redis, upstream) = (Redis::start(), upstream());
    let gateway = Gateway::start(&format!(
        "[store]\nurl = \"{}\"\ntimeout = \"5s\"\n{AUTH}{}{LIMITS}{}\
         [routes.open]\npath = \"/open\"\nupstream = \"shop\"\n\
         [routes.cached]\npath = \"/cached\"\nupstream = \"shop\"\ncache = {{ ttl = \"1h\" }}\n",
        redis.url(),
        upstream.table("shop"),
        routes(&["shared"])
    ));
    let names = |line: &Value| -> Vec<String> {
        line["stages"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let asked = ["server", "attempts", "bytes_in"];
    let told = |line: &Value| asked.map(|name| line[name].clone());
    Client::request(gateway.public, "POST", "/open").body("five5").send();
    let first = line(&gateway, 1);
    assert_eq!(told(&first), [json!(upstream.url()), json!(1), json!(5)], "{first}");
    assert_eq!(names(&first), ["send", "upstream"], "{first}");
    let upstream_us = first["stages"]["upstream"].as_f64().expect("microseconds");
    let upstream_ms = first["upstream_ms"].as_f64().expect("milliseconds");
    assert!((upstream_us / 1000.0 - upstream_ms).abs() < 0.01, "{first}");
    let whole = first["duration_ms"].as_f64().expect("milliseconds");
    let sum: f64 = ["send", "upstream"].iter().filter_map(|it| first["stages"][it].as_f64()).sum();
    assert!(sum / 1000.0 <= whole + 0.01, "{first}");

    let good = token(claims("42"));
    Client::get(gateway.public, "/shared").bearer(&good).send();
    let limited = line(&gateway, 2);
    assert_eq!(told(&limited), [json!(upstream.url()), json!(1), Value::Null], "{limited}");
    assert_eq!(names(&limited), ["send", "store", "upstream"], "{limited}");
    assert_eq!(Client::get(gateway.public, "/shared").bearer(&good).send().status, 429);
    let refused = line(&gateway, 3);
    assert_eq!(told(&refused), [Value::Null, Value::Null, Value::Null], "{refused}");
    assert!(!names(&refused).contains(&"upstream".to_owned()), "{refused}");

    for (number, verdict) in [(4, json!(upstream.url())), (5, Value::Null)] {
        Client::get(gateway.public, "/cached").send();
        assert_eq!(line(&gateway, number)["server"], verdict);
    }
}

#[test]
fn what_looks_like_a_credential_is_told_in_no_path() {
    let upstream = upstream();
    let gateway = Gateway::start(&format!(
        "[log]\nslow = \"1ms\"\nquery = \"all\"\nheaders = [\"x-note\"]\n{}\
         [routes.pub]\npath = \"/pub/*\"\nupstream = \"shop\"\ncache = {{ ttl = \"1h\" }}\n",
        upstream.table("shop")
    ));
    let look = |path: &str| {
        let request = Client::get(gateway.admin, path);
        request.header("Host", gateway.admin.to_string()).send().text()
    };
    let top = || look("/v1/cache/top");
    // From now on URLs are counted.
    top();
    let key = format!("pck_{}", "s3cret".repeat(8));
    let jwt = token(claims("42"));
    let secrets = [&*jwt, &key, &key.replace("pck_", "pcr_"), &key.replace("pck_", "whsec_")];
    for (number, secret) in secrets.into_iter().enumerate() {
        let path = format!("/pub/{secret}/{number}");
        upstream.forget();
        let request = Client::get(gateway.public, &format!("{path}?a={secret}"));
        assert_eq!(request.header("X-Note", secret).send().status, 200);
        assert_eq!(upstream.only().target(), format!("{path}?a={secret}"), "it is sent as it is");
        let line = line(&gateway, 2 * number + 1);
        assert_eq!(line["path"], format!("/pub/[redacted]/{number}"), "{line}");
        let told = (&line["query"], &line["headers"]["x-note"]);
        assert_eq!(told, (&"a=[redacted]".into(), &"[redacted]".into()), "{line}");
        let path = format!("/nowhere/{secret}");
        assert_eq!(Client::get(gateway.public, &path).send().status, 404);
        self::line(&gateway, 2 * number + 2);
    }
    let requests = look("/v1/requests");
    assert!(requests.contains("/nowhere/[redacted]"), "{requests}");
    eventually("it is counted", || top().contains("/pub/[redacted]/3"));
    let top = top();
    for secret in secrets {
        for told in [&requests, &top, &gateway.stderr()] {
            assert!(!told.contains(secret), "{secret} in {told}");
        }
    }
}
