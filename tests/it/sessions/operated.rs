//! Sessions through the admin API: written, read, listed and ended, by two gateways on one store.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::attached;
use crate::support::{
    AUTH, Client, Gateway, Redis, Reply, Session, TcpProxy, Upstream, claims, eventually, operate,
    token,
};

const CONFIG: &str = r#"
[session]
id_from = ["claim:sid", "cookie:sid"]
header = "x-session"
fields_to_headers = { x-user-email = "email" }
idle_timeout = "30m"
max_per_user = 5
max_bytes = "1KiB"
[routes.required]
path = "/required"
upstream = "shop"
session = "required"
[routes.claimed]
path = "/claimed"
upstream = "shop"
auth = "users"
session = "required"
[routes.private]
path = "/private"
upstream = "shop"
auth = "users"
"#;

fn upstream() -> Upstream {
    Upstream::replying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

/// Two gateways on one Redis.
struct House {
    redis: Redis,
    upstream: Upstream,
    gateways: [Gateway; 2],
}

impl House {
    fn start() -> Self {
        let (redis, upstream) = (Redis::start(), upstream());
        // Nothing here is about deadlines, and the machine may be busy.
        let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
        let config = store + AUTH + &upstream.table("shop") + CONFIG;
        let gateways = [Gateway::start(&config), Gateway::start(&config)];
        Self { redis, upstream, gateways }
    }

    /// Sessions of this user by the index, newest first.
    fn ids(&self, user: &str) -> Vec<String> {
        let list = operate(&self.gateways[0], "GET", &format!("/v1/users/{user}/sessions"), "");
        assert_eq!(list.status, 200, "{}", list.text());
        let list = list.json();
        assert_eq!(list["not_listed"], 0);
        let sessions = list["sessions"].as_array().expect("a list");
        sessions.iter().map(|it| it["id"].as_str().expect("an id").to_owned()).collect()
    }
}

fn put(gateway: &Gateway, id_and_query: &str, session: &Value) -> Reply {
    operate(gateway, "PUT", &format!("/v1/sessions/{id_and_query}"), &session.to_string())
}

/// Status and code of a refused operation.
fn refusal(reply: &Reply) -> (u16, String) {
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?}");
    let kind = reply.json()["type"].as_str().expect("a type").to_owned();
    (reply.status, kind.replace("urn:portcullis:problem:", ""))
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn with_session(gateway: &Gateway, id: &str) -> u16 {
    let request = Client::get(gateway.public, "/required");
    request.header("Cookie", format!("sid={id}")).send().status
}

#[test]
fn a_session_that_is_put_is_seen_by_the_next_request_to_any_gateway() {
    let house = House::start();
    let [one, two] = &house.gateways;
    let session = json!({"email": "a@shop.test", "note": "two\r\nlines\u{0}"});
    let reply = put(one, "s1?user=42&ttl=10m", &session);
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!(reply.json(), json!({"id": "s1", "expires_in_seconds": 600, "ended": []}));
    assert_eq!(with_session(two, "s1"), 200);
    let seen = house.upstream.only();
    assert_eq!(attached(&seen), Some(session.clone()));
    assert_eq!(seen.header("x-user-email"), Some("a@shop.test"));
    let read = operate(two, "GET", "/v1/sessions/s1", "").json();
    assert_eq!(read["session"], session);
    assert!(read["expires_in_seconds"].as_u64().is_some_and(|left| left > 500), "{read}");
    let again = put(two, "s1", &json!({"email": "b@shop.test"}));
    assert_eq!((again.status, again.json()["expires_in_seconds"].as_u64()), (200, Some(1800)));
    let read = operate(one, "GET", "/v1/sessions/s1", "").json();
    assert_eq!(read["session"], json!({"email": "b@shop.test"}));
    assert_eq!(house.ids("42"), ["s1"], "it stays whose it was");
    assert_eq!(operate(one, "DELETE", "/v1/sessions/s1", "").status, 200);
    assert_eq!(with_session(two, "s1"), 401);
    let missing = refused(404, "session_missing");
    for method in ["GET", "DELETE"] {
        assert_eq!(refusal(&operate(two, method, "/v1/sessions/s1", "")), missing, "{method}");
    }
    assert_eq!(house.ids("42"), [""; 0]);
    assert_eq!(house.redis.cli(&["KEYS", "*session*"]), "", "nothing is left");
}

#[test]
fn ids_are_decoded_and_found_as_requests_name_them() {
    let house = House::start();
    let [one, two] = &house.gateways;
    assert_eq!(put(one, "a%2Fb%C3%A9%20%2B+?user=u%2F1%26", &json!({"n": 1})).status, 201);
    let of_claim = {
        let mut claims = claims("42");
        claims["sid"] = json!("a/bé ++");
        token(claims)
    };
    // By the claim, because no cookie can say that.
    assert_eq!(Client::get(one.public, "/claimed").bearer(of_claim).send().status, 200);
    assert_eq!(attached(&house.upstream.only()), Some(json!({"n": 1})));
    let found = operate(two, "GET", "/v1/sessions/a%2Fb%c3%a9%20++", "");
    assert_eq!(found.json()["id"], "a/bé ++");
    let listed = house.ids("u%2F1%26");
    let [part] = &listed[..] else { panic!("not one session: {listed:?}") };
    assert!(part.starts_with("sha256:"), "{part}");
    // Under the name that the list gives it is the same session.
    let found = operate(two, "GET", &format!("/v1/sessions/{part}"), "");
    assert_eq!(found.json()["session"], json!({"n": 1}));
    assert_eq!(operate(two, "DELETE", &format!("/v1/sessions/{part}"), "").status, 200);
    assert_eq!(house.ids("u%2F1%26"), [""; 0]);
    for path in ["/v1/sessions/%", "/v1/sessions/%zz", "/v1/sessions/%ff", "/v1/sessions/a%4"] {
        let refusal = refusal(&operate(one, "GET", path, ""));
        assert_eq!(refusal, refused(400, "request_invalid"), "{path}");
    }
    for path in ["/v1/sessions/", "/v1/sessions/a/b", "/v1/users//sessions", "/v1/users/42"] {
        assert_eq!(refusal(&operate(one, "GET", path, "")), refused(404, "not_found"), "{path}");
    }
}

#[test]
fn a_session_that_the_application_keeps_as_a_hash_is_shown_and_replaced() {
    let house = House::start();
    let gateway = &house.gateways[0];
    house.redis.cli(&["HSET", "app:session:h", "email", "a@shop.test", "level", "7"]);
    let read = operate(gateway, "GET", "/v1/sessions/h", "").json();
    assert_eq!(read["session"], json!({"email": "a@shop.test", "level": "7"}));
    assert_eq!(read["expires_in_seconds"], json!(null));
    assert_eq!(put(gateway, "h", &json!({"level": 8})).status, 200);
    assert_eq!(house.redis.cli(&["GET", "app:session:h"]), r#"{"level":8}"#);
    house.redis.cli(&["DEL", "app:session:h"]);
    house.redis.cli(&["HSET", "app:session:h", "level", "9"]);
    assert_eq!(operate(gateway, "DELETE", "/v1/sessions/h", "").status, 200);
    assert_eq!(house.redis.cli(&["EXISTS", "app:session:h"]), "0");
    house.redis.cli(&["SET", "app:session:x", "no JSON"]);
    let unreadable = refused(502, "session_unreadable");
    assert_eq!(refusal(&operate(gateway, "GET", "/v1/sessions/x", "")), unreadable);
}

#[test]
fn an_update_does_not_bring_back_what_a_log_out_has_ended() {
    let house = House::start();
    let gateway = &house.gateways[0];
    let update = |tag: &str| {
        Client::request(gateway.admin, "PUT", "/v1/sessions/s1?user=42")
            .header("Host", gateway.admin.to_string())
            .header("Content-Type", "application/json")
            .header("If-Match", tag)
            .body("{\"n\":2}")
            .send()
    };
    assert_eq!(put(gateway, "s1?user=42", &json!({"n": 1})).status, 201);
    assert_eq!(update("*").status, 200);
    assert_eq!(refusal(&update("\"a\"")), refused(400, "request_invalid"));
    assert_eq!(operate(gateway, "DELETE", "/v1/users/42/sessions", "").status, 200);
    assert_eq!(refusal(&update("*")), refused(412, "session_missing"));
    assert_eq!((with_session(gateway, "s1"), house.ids("42").len()), (401, 0));
}

#[test]
fn what_no_request_could_use_is_not_written() {
    let redis = Redis::start();
    let upstream = upstream();
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
    let without_idle = CONFIG.replace("idle_timeout = \"30m\"", "");
    let strict = CONFIG.replace("idle_timeout", "absolute_timeout = \"2h\"\nidle_timeout");
    let start = |sessions: &str| {
        Gateway::start(&(store.clone() + AUTH + &upstream.table("shop") + sessions))
    };
    let (plain, strict) = (start(&without_idle), start(&strict));
    let invalid = refused(400, "request_invalid");
    for body in ["", "[1]", "null", "{", "{} x", "\"text\""] {
        let reply = operate(&plain, "PUT", "/v1/sessions/s1?ttl=1m", body);
        assert_eq!(refusal(&reply), invalid, "{body}");
    }
    for query in ["", "?ttl=0s", "?ttl=soon", "?ttl=1m&tll=2m", "?ttl=1m&ttl=2m", "?ttl=1m&user="] {
        let reply = put(&plain, &format!("s1{query}"), &json!({}));
        assert_eq!(refusal(&reply), invalid, "{query}");
    }
    let long = json!({"a": "x".repeat(1024)});
    assert_eq!(refusal(&put(&plain, "s1?ttl=1m", &long)), refused(413, "session_too_large"));
    assert_eq!(refusal(&put(&plain, &"x".repeat(513), &json!({}))), invalid);
    assert_eq!(refusal(&operate(&plain, "DELETE", "/v1/sessions/s1?force=1", "")), invalid);
    for (path, allow) in
        [("/v1/sessions/s1", "GET, PUT, DELETE"), ("/v1/users/42/sessions", "GET, DELETE")]
    {
        let reply = operate(&plain, "POST", path, "{}");
        assert_eq!((reply.status, reply.header("allow")), (405, Some(allow)));
    }
    let now = claims("42")["iat"].as_u64().expect("iat");
    for odd in [json!({}), json!({"created_at": now - 7200}), json!({"created_at": now * 1000})] {
        assert_eq!(refusal(&put(&strict, "s1", &odd)), invalid, "{odd}");
    }
    assert_eq!(redis.cli(&["KEYS", "*session*"]), "", "nothing was written");
    // Its life ends with the absolute timeout.
    let reply = put(&strict, "s1?ttl=1d", &json!({"created_at": now - 3600}));
    let life = reply.json()["expires_in_seconds"].as_u64().expect("a life");
    assert!((3500..=3600).contains(&life), "{life}");
    // Without sessions in the configuration there are no bounds to write by.
    let none = start("[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n");
    assert_eq!(refusal(&put(&none, "s1?ttl=1m", &json!({}))), invalid);
}

#[test]
fn a_write_that_the_store_did_not_take_is_not_reported_as_done() {
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let upstream = upstream();
    let store = format!("[store]\nurl = \"{}\"\n", proxy.url());
    let gateway = Gateway::start(&(store + AUTH + &upstream.table("shop") + CONFIG));
    proxy.refuse();
    let status = || operate(&gateway, "GET", "/v1/status", "").json();
    eventually("the outage is noticed", || status()["store"]["connected"] == false);
    let unreachable = refused(503, "store_unreachable");
    assert_eq!(refusal(&put(&gateway, "s1?user=42", &json!({}))), unreachable);
    for (method, path) in [
        ("GET", "/v1/sessions/s1"),
        ("DELETE", "/v1/sessions/s1"),
        ("GET", "/v1/users/42/sessions"),
        ("DELETE", "/v1/users/42/sessions"),
    ] {
        assert_eq!(refusal(&operate(&gateway, method, path, "")), unreachable, "{method} {path}");
    }
}

#[test]
fn the_embedded_store_keeps_sessions_too() {
    let upstream = upstream();
    let gateway = Gateway::start(&(AUTH.to_owned() + &upstream.table("shop") + CONFIG));
    for number in 0..7 {
        let reply = put(&gateway, &format!("s{number}?user=42"), &json!({"n": number}));
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    let list = operate(&gateway, "GET", "/v1/users/42/sessions", "").json();
    assert_eq!(list["sessions"].as_array().map(Vec::len), Some(5));
    assert_eq!((with_session(&gateway, "s0"), with_session(&gateway, "s6")), (401, 200));
    let ended = operate(&gateway, "DELETE", "/v1/users/42/sessions", "");
    assert_eq!((ended.status, &ended.json()["ended"]), (200, &json!(5)));
    assert_eq!(with_session(&gateway, "s6"), 401);
}

#[test]
fn the_list_says_when_a_session_began_and_was_seen() {
    let house = House::start();
    let before = claims("42")["iat"].as_u64().expect("iat");
    assert_eq!(put(&house.gateways[0], "s1?user=42&ttl=1m", &json!({})).status, 201);
    let list = || operate(&house.gateways[1], "GET", "/v1/users/42/sessions", "").json();
    let first = list();
    assert_eq!((&first["user"], &first["sessions"][0]["id"]), (&json!("42"), &json!("s1")));
    for member in ["created_at", "seen_at"] {
        let at = first["sessions"][0][member].as_u64().expect("Unix seconds");
        assert!((before..before + 60).contains(&at), "{first}");
    }
    // Use prolongs it, and the list and the index know.
    assert_eq!(with_session(&house.gateways[0], "s1"), 200);
    eventually("it is renewed", || list()["sessions"][0]["expires_in_seconds"].as_u64() > Some(60));
    let life = |key: &str| house.redis.cli(&["TTL", key]).parse::<i64>().expect("a number");
    assert!(life("app:sessions-of:42") > life("app:session:s1"), "the index ends first");
    // An application that ends it itself leaves an entry that is taken out when it is met.
    house.redis.cli(&["DEL", "app:session:s1"]);
    assert_eq!(house.ids("42"), [""; 0]);
    assert_eq!(house.redis.cli(&["EXISTS", "app:sessions-of:42"]), "0");
    // One that keeps the index itself is listed and logged out like all others.
    house.redis.cli(&["SET", "app:session:own", "{}"]);
    house.redis.cli(&["ZADD", "app:sessions-of:42", "1700000000", "own"]);
    let own = list();
    assert_eq!(own["sessions"][0]["created_at"], 1_700_000_000);
    assert_eq!(own["sessions"][0]["seen_at"], json!(null));
    assert_eq!(operate(&house.gateways[0], "DELETE", "/v1/users/42/sessions", "").status, 200);
    assert_eq!(house.redis.cli(&["EXISTS", "app:session:own"]), "0");
}

#[test]
fn fifty_log_ins_at_once_never_leave_more_sessions_than_allowed() {
    let house = House::start();
    std::thread::scope(|scope| {
        for number in 0..50 {
            let gateway = &house.gateways[number % 2];
            scope.spawn(move || {
                let reply = put(gateway, &format!("s{number}?user=42"), &json!({"n": number}));
                assert_eq!(reply.status, 201, "{}", reply.text());
            });
        }
        // At no moment, not only at the end.
        scope.spawn(|| {
            for _ in 0..20 {
                let keys = house.redis.cli(&["KEYS", "app:session:*"]);
                assert!(keys.lines().count() <= 5, "{keys}");
            }
        });
    });
    let ids = house.ids("42");
    assert_eq!(ids.len(), 5, "{ids:?}");
    let keys = house.redis.cli(&["KEYS", "app:session:*"]);
    let mut alive: Vec<&str> = keys.lines().map(|key| &key["app:session:".len()..]).collect();
    let mut ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    alive.sort_unstable();
    ids.sort_unstable();
    assert_eq!(alive, ids, "what is alive is what is listed");
    assert_eq!(house.redis.cli(&["KEYS", "app:session-end:*"]).lines().count(), 5);
}

/// Sends one old credential to both gateways, over and over; a request that began after the log-out
/// was answered must not pass. Ends when enough of those were refused.
fn knock(house: &House, answered: &AtomicBool, path: &str, credential: (&str, &str)) {
    const REFUSED_ENOUGH: usize = 20;
    let mut lines: Vec<Session> =
        house.gateways.iter().map(|gateway| Session::open(gateway.public)).collect();
    let mut refused = 0;
    while refused < REFUSED_ENOUGH {
        for line in &mut lines {
            let began_after = answered.load(Ordering::SeqCst);
            let reply = line.get(path).header(credential.0, credential.1).send();
            assert!(matches!(reply.status, 200 | 401), "{}", reply.text());
            if began_after {
                assert_eq!(reply.status, 401, "{path}: an old credential passed");
                refused += 1;
            }
        }
    }
}

#[test]
fn logging_out_everywhere_ends_all_old_tokens_and_sessions_at_once_and_no_new_ones() {
    let house = House::start();
    let [one, two] = &house.gateways;
    let now = claims("42")["iat"].as_u64().expect("iat");
    let token_of = |iat: u64| {
        let mut claims = claims("42");
        claims["iat"] = json!(iat);
        token(claims)
    };
    for id in ["s1", "s2", "s3"] {
        assert_eq!(put(one, &format!("{id}?user=42"), &json!({})).status, 201);
    }
    assert_eq!(put(one, "other?user=43", &json!({})).status, 201);
    let bearer = format!("Bearer {}", token_of(now - 60));
    let answered = AtomicBool::new(false);
    let passed = || house.upstream.seen();
    std::thread::scope(|scope| {
        let (house, answered) = (&house, &answered);
        for cookie in ["sid=s1", "sid=s2", "sid=s3"] {
            scope.spawn(move || knock(house, answered, "/required", ("Cookie", cookie)));
        }
        scope.spawn(|| knock(house, answered, "/private", ("Authorization", &bearer)));
        eventually("the old credentials are in use", || passed() > 50);
        let reply = operate(two, "DELETE", "/v1/users/42/sessions", "");
        answered.store(true, Ordering::SeqCst);
        assert_eq!((reply.status, &reply.json()["ended"]), (200, &json!(3)), "{}", reply.text());
        // A new log-in, while the old credentials still knock.
        assert_eq!(put(two, "new?user=42", &json!({})).status, 201);
        let fresh = token_of(reply.json()["not_before"].as_u64().expect("Unix seconds"));
        for gateway in &house.gateways {
            assert_eq!(with_session(gateway, "new"), 200);
            let private = Client::get(gateway.public, "/private").bearer(&fresh);
            assert_eq!(private.send().status, 200, "a new log-in");
            assert_eq!(with_session(gateway, "other"), 200, "somebody else");
        }
    });
    assert_eq!(house.ids("42"), ["new"]);
    let not_before: u64 =
        house.redis.cli(&["GET", "app:auth:not-before:42"]).parse().expect("Unix seconds");
    assert!(not_before > now);
    let of_the_second = Client::get(one.public, "/private").bearer(token_of(not_before - 1));
    assert_eq!(of_the_second.send().status, 401, "a token of the very second");
    let life: i64 = house.redis.cli(&["TTL", "app:auth:not-before:42"]).parse().expect("a number");
    assert!(life > 2_500_000, "admin.revocation_ttl, as a revocation has it: {life}");
}

#[test]
fn a_revocation_by_user_is_a_log_out_everywhere() {
    let house = House::start();
    let [one, two] = &house.gateways;
    let before = claims("42")["iat"].as_u64().expect("iat");
    let revoke = |what: &str| operate(one, "POST", "/v1/revocations", what);
    assert_eq!(put(one, "s1?user=42", &json!({})).status, 201);
    assert_eq!(put(one, "other?user=43", &json!({})).status, 201);
    let token = token(claims("42"));
    let private = || Client::get(two.public, "/private").bearer(&token).send().status;
    assert_eq!((private(), with_session(two, "s1")), (200, 200));
    let reply = revoke(r#"{"sub": "42", "expires_in": "1h", "auth": "users"}"#);
    let told = reply.json();
    assert_eq!((reply.status, &told["sessions_ended"]), (201, &json!(1)), "{told}");
    assert_eq!(
        (&told["key"], &told["expires_in_seconds"]),
        (&json!("app:auth:not-before:42"), &json!(3600))
    );
    assert!(told["not_before"].as_u64().is_some_and(|at| at > before), "{told}");
    assert_eq!((private(), with_session(two, "s1"), with_session(two, "other")), (401, 401, 200));
    // Only a user has sessions.
    let told = revoke(r#"{"jti": "t-1"}"#).json();
    assert_eq!((told.get("sessions_ended"), told.get("not_before")), (None, None));
    // What is taken back is the revocation.
    assert_eq!(operate(one, "DELETE", "/v1/revocations?sub=42", "").status, 200);
    assert_eq!((private(), with_session(two, "s1")), (200, 401));
}

#[test]
fn a_log_out_that_was_half_done_says_so_and_can_be_repeated() {
    let house = House::start();
    let [one, two] = &house.gateways;
    let old = token(claims("42"));
    house.redis.cli(&["SET", "app:sessions-of:42", "no index"]);
    let incomplete = refused(503, "log_out_incomplete");
    for (method, path, body) in
        [("POST", "/v1/revocations", r#"{"sub": "42"}"#), ("DELETE", "/v1/users/42/sessions", "")]
    {
        let reply = operate(one, method, path, body);
        assert_eq!(refusal(&reply), incomplete, "{path}");
        let told = reply.text();
        assert!(told.contains("tokens are revoked") && told.contains("Repeat"), "{told}");
        assert_eq!(Client::get(two.public, "/private").bearer(&old).send().status, 401);
    }
    house.redis.cli(&["DEL", "app:sessions-of:42"]);
    assert_eq!(put(one, "s1?user=42", &json!({})).status, 201);
    let reply = operate(one, "POST", "/v1/revocations", r#"{"sub": "42"}"#);
    assert_eq!((reply.status, &reply.json()["sessions_ended"]), (201, &json!(1)));
    assert_eq!(with_session(two, "s1"), 401);
}
