//! Sessions that are over: each kind of end has an answer of its own. And ids in headers.

use serde_json::{Value, json};

use super::{attached, code};
use crate::support::{Client, Gateway, Redis, Reply, Upstream, claims, eventually};

/// All timeouts, on a route that attaches sessions and on one that requires them.
const CONFIG: &str = r#"
[session]
id_from = ["header:x-session-id", "cookie:sid"]
header = "x-session"
idle_timeout = "30m"
ended_for = "10m"
absolute_timeout = "12h"
rolling_timeout = "1h"
suspended_field = "suspended"
[routes.attached]
path = "/attached"
upstream = "shop"
session = true
[routes.required]
path = "/required"
upstream = "shop"
session = "required"
[routes.none]
path = "/none"
upstream = "shop"
"#;

struct House {
    redis: Redis,
    upstream: Upstream,
    gateway: Gateway,
}

impl House {
    fn start() -> Self {
        let redis = Redis::start();
        let upstream = Upstream::replying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        // Nothing here is about deadlines, and the machine may be busy.
        let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
        let gateway = Gateway::start(&(store + &upstream.table("shop") + CONFIG));
        Self { redis, upstream, gateway }
    }

    fn write(&self, id: &str, session: &Value, seconds: u64) {
        let (key, life) = (format!("app:session:{id}"), seconds.to_string());
        self.redis.cli(&["SET", &key, &session.to_string(), "EX", &life]);
    }

    fn get(&self, path: &str, id: &str) -> Reply {
        Client::get(self.gateway.public, path).header("Cookie", format!("sid={id}")).send()
    }

    /// Status and code of a refusal, which must not reach the upstream.
    fn refused(&self, path: &str, id: &str) -> (u16, String) {
        self.upstream.forget();
        let reply = self.get(path, id);
        assert_eq!(self.upstream.seen(), 0, "{}", reply.text());
        if reply.status == 401 {
            // A bearer would not help: the route knows its callers by cookies.
            let challenge = "Session realm=\"portcullis\"";
            assert_eq!(reply.header("www-authenticate"), Some(challenge));
        }
        (reply.status, code(&reply))
    }

    /// Both routes refuse it alike.
    fn refused_everywhere(&self, id: &str) -> (u16, String) {
        let refusals = ["/attached", "/required"].map(|path| self.refused(path, id));
        assert_eq!(refusals[0], refusals[1]);
        refusals.into_iter().next().unwrap()
    }

    fn passes(&self, path: &str, id: &str) {
        let reply = self.get(path, id);
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// Seconds that a key has left; -1 without an expiry, -2 when there is none.
    fn ttl(&self, key: &str) -> i64 {
        self.redis.cli(&["TTL", key]).parse().expect("a number")
    }

    /// A session that was used, with its end beside it.
    fn use_one(&self, id: &str) {
        self.write(id, &json!({"created_at": now()}), 60);
        self.passes("/required", id);
        let end = format!("app:session-end:{{app:session:{id}}}");
        eventually("its end is noted", || self.redis.cli(&["EXISTS", &end]) == "1");
    }
}

/// This moment by the clock that the gateway has too.
fn now() -> u64 {
    claims("42")["iat"].as_u64().expect("iat")
}

#[test]
fn every_timeout_has_a_code_of_its_own_wherever_sessions_are_used() {
    let house = House::start();
    let cases = [
        (json!({"created_at": now() - 12 * 3600, "renewed_at": now()}), 401, "session_expired"),
        (json!({"created_at": now() - 7200}), 401, "session_not_renewed"),
        (
            json!({"created_at": now() - 7200, "renewed_at": (now() - 3600).to_string()}),
            401,
            "session_not_renewed",
        ),
        (json!({}), 401, "session_undated"),
        (json!({"created_at": now() * 1000}), 401, "session_undated"),
        (json!({"created_at": now(), "renewed_at": "soon"}), 401, "session_undated"),
        (json!({"created_at": now(), "suspended": true}), 403, "session_suspended"),
        (json!({"created_at": now(), "suspended": "1"}), 403, "session_suspended"),
    ];
    for (session, status, code) in cases {
        house.write("s1", &session, 60);
        assert_eq!(house.refused_everywhere("s1"), (status, code.to_owned()), "{session}");
        assert!(house.ttl("app:session:s1") <= 60, "a refused request renewed it");
    }
    house.redis.cli(&["DEL", "app:session:s1"]);
    let old = (now() - 13 * 3600).to_string();
    house.redis.cli(&["HSET", "app:session:s1", "created_at", &old]);
    assert_eq!(house.refused_everywhere("s1"), (401, "session_expired".to_owned()), "a hash");
    // An operator sees why a session that the application wrote cannot be used.
    eventually("the log says which field", || {
        let lines = house.gateway.access_lines();
        lines.iter().any(|line| {
            line["reason"] == "session_undated"
                && line["error"].as_str().is_some_and(|error| error.contains("created_at"))
        })
    });
    house.write("s1", &json!({"created_at": now() - 7200, "renewed_at": now() - 60}), 60);
    for path in ["/attached", "/required"] {
        house.passes(path, "s1");
    }
}

#[test]
fn nobody_asks_for_an_end_that_decides_nothing() {
    let calls = |redis: &Redis, command: &str| {
        let statistics = redis.cli(&["INFO", "commandstats"]);
        let line = statistics.lines().find(|it| it.starts_with(&format!("cmdstat_{command}:")));
        line.map(str::to_owned)
    };
    let house = House::start();
    house.write("s1", &json!({"created_at": now()}), 7200);
    house.passes("/attached", "s1");
    assert_eq!(calls(&house.redis, "hget"), None, "where none is required");
    house.passes("/required", "s1");
    assert!(calls(&house.redis, "hget").is_some());

    let redis = Redis::start();
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
    let without_idle = CONFIG.replace("idle_timeout = \"30m\"", "");
    let gateway = Gateway::start(&(store + &house.upstream.table("shop") + &without_idle));
    redis.cli(&["SET", "app:session:s1", &json!({"created_at": now()}).to_string()]);
    for path in ["/attached", "/required"] {
        assert_eq!(Client::get(gateway.public, path).header("Cookie", "sid=s1").send().status, 200);
        let gone = Client::get(gateway.public, path).header("Cookie", "sid=s2").send().status;
        assert_eq!(gone, if path == "/required" { 401 } else { 200 });
    }
    for command in ["hget", "pttl", "evalsha"] {
        assert_eq!(calls(&redis, command), None, "{command}");
    }
}

#[test]
fn a_session_that_is_not_due_is_renewed_once_and_its_end_is_kept() {
    let house = House::start();
    // It lives for longer than use would have it live.
    house.write("s1", &json!({"created_at": now()}), 7200);
    house.passes("/required", "s1");
    let end = "app:session-end:{app:session:s1}";
    eventually("its end is kept", || house.redis.cli(&["HEXISTS", end, "ends"]).trim() == "1");
    let seen = house.redis.cli(&["HGET", end, "seen"]);
    for _ in 0..5 {
        house.passes("/required", "s1");
    }
    // What was asked of Redis behind these requests has been done once this one is renewed.
    house.use_one("last");
    assert_eq!(house.redis.cli(&["HGET", end, "seen"]), seen, "a request more has renewed it");
}

#[test]
fn an_idle_end_is_told_apart_from_a_log_out_and_from_no_session() {
    let house = House::start();
    let missing = (401, "session_missing".to_owned());
    assert_eq!(house.refused("/required", "never"), missing);
    house.use_one("s1");
    let end = "app:session-end:{app:session:s1}";
    let kept = house.ttl(end);
    assert!((2300..=2400).contains(&kept), "idle_timeout and ended_for: {kept}");
    // Half an hour later: what was noted for then lies in the past, and the session is gone.
    house.redis.cli(&["HSET", end, "ends", &format!("idle {}", (now() - 1) * 1000)]);
    house.redis.cli(&["PEXPIRE", "app:session:s1", "1"]);
    eventually("the session expires", || house.ttl("app:session:s1") == -2);
    assert_eq!(house.refused("/required", "s1"), (401, "session_idle".to_owned()));
    house.passes("/attached", "s1");
    house.redis.cli(&["HSET", end, "ends", &format!("expired {}", (now() - 1) * 1000)]);
    assert_eq!(house.refused("/required", "s1"), (401, "session_expired".to_owned()));
    house.redis.cli(&["DEL", end]);
    assert_eq!(house.refused("/required", "s1"), missing, "forgotten");
    // The application's own log-out takes the session before its time.
    house.use_one("s2");
    house.redis.cli(&["DEL", "app:session:s2"]);
    assert_eq!(house.refused("/required", "s2"), missing);
}

#[test]
fn no_renewal_goes_beyond_the_absolute_timeout() {
    let house = House::start();
    let ending = |left: u64| json!({"created_at": now() - 12 * 3600 + left, "renewed_at": now()});
    house.write("near", &ending(600), 60);
    house.write("far", &ending(6000), 60);
    for id in ["near", "far"] {
        house.passes("/attached", id);
        let key = format!("app:session:{id}");
        eventually("it is renewed", || house.ttl(&key) > 60);
    }
    let near = house.ttl("app:session:near");
    assert!((500..=600).contains(&near), "{near} s");
    let far = house.ttl("app:session:far");
    assert!((1700..=1800).contains(&far), "{far} s");
    let noted = house.redis.cli(&["HGET", "app:session-end:{app:session:near}", "ends"]);
    assert!(noted.starts_with("expired "), "{noted}");
}

#[test]
fn an_id_in_a_header_is_used_and_not_forwarded() {
    let house = House::start();
    house.write("s1", &json!({"created_at": now(), "by": "header"}), 7200);
    let forwarded = |path: &str, lines: &[&str]| {
        let mut request = Client::get(house.gateway.public, path);
        for line in lines {
            request = request.header("X-Session-Id", *line);
        }
        assert_eq!(request.send().status, 200, "{path}");
        let seen = house.upstream.only();
        house.upstream.forget();
        seen
    };
    let seen = forwarded("/attached", &["s1"]);
    assert_eq!(attached(&seen).expect("a session")["by"], "header");
    assert_eq!(seen.header("x-session-id"), None);
    let seen = forwarded("/attached", &["s1", "s2"]);
    assert_eq!((attached(&seen), seen.header("x-session-id")), (None, None), "two are none");
    // Elsewhere it is the application's own business: a log-out needs it.
    assert_eq!(forwarded("/none", &["s1"]).header("x-session-id"), Some("s1"));
}
