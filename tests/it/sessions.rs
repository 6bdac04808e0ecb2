//! The application's session, written into Redis by the application, on its way to the upstream.

mod copies;
mod operated;
mod timeouts;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::auth::code;
use crate::support::{AUTH, Client, Gateway, Recorded, Redis, Upstream, claims, eventually, token};

struct House {
    redis: Redis,
    upstream: Upstream,
    gateway: Gateway,
}

/// Sessions by claim or cookie, sliding for half an hour, on routes with and without them.
const CONFIG: &str = r#"
[session]
id_from = ["claim:sid", "cookie:sid"]
header = "x-session"
fields_to_headers = { x-user-email = "email", x-user-level = "level" }
idle_timeout = "30m"
max_bytes = "1KiB"
[limits.twice]
key = ["session"]
allow = ["2/1h"]
[routes.attached]
path = "/attached"
upstream = "shop"
session = true
[routes.claimed]
path = "/claimed"
upstream = "shop"
auth = "users"
session = true
[routes.required]
path = "/required"
upstream = "shop"
session = "required"
[routes.limited]
path = "/limited"
upstream = "shop"
session = true
limits = ["twice"]
[routes.none]
path = "/none"
upstream = "shop"
"#;

impl House {
    fn start() -> Self {
        let redis = Redis::start();
        let upstream = Upstream::replying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        // Nothing here is about deadlines, and the machine may be busy.
        let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
        let gateway = Gateway::start(&(store + AUTH + &upstream.table("shop") + CONFIG));
        Self { redis, upstream, gateway }
    }

    /// What reaches the upstream of a request with this cookie.
    fn forwarded(&self, path: &str, cookie: &str) -> Recorded {
        let reply = Client::get(self.gateway.public, path).header("Cookie", cookie).send();
        assert_eq!(reply.status, 200, "{}", reply.text());
        let seen = self.upstream.only();
        self.upstream.forget();
        seen
    }

    /// Status and code of a refusal, which must not reach the upstream.
    fn refused(&self, path: &str, cookie: &str) -> (u16, String) {
        let reply = Client::get(self.gateway.public, path).header("Cookie", cookie).send();
        assert_eq!(self.upstream.seen(), 0);
        (reply.status, code(&reply))
    }

    /// Renewals happen behind the request: once that of a later request is done, those of earlier
    /// ones are.
    fn settle(&self) {
        self.redis.cli(&["SET", "app:session:last", "{}"]);
        self.forwarded("/attached", "sid=last");
        eventually("a session is renewed", || self.ttl("last") > 0);
    }

    /// Seconds that a session has left; -1 without an expiry.
    fn ttl(&self, id: &str) -> i64 {
        self.redis.cli(&["TTL", &format!("app:session:{id}")]).parse().expect("a number")
    }
}

/// The whole session as the upstream reads it.
pub(crate) fn attached(seen: &Recorded) -> Option<Value> {
    let encoded = seen.header("x-session")?;
    let bytes = URL_SAFE_NO_PAD.decode(encoded).expect("base64url without padding");
    Some(serde_json::from_slice(&bytes).expect("JSON"))
}

#[test]
fn a_session_that_the_application_wrote_arrives_whole_and_by_field() {
    let house = House::start();
    let session = json!({"email": "a@shop.test", "level": 7, "cart": [1, {"n": "é"}]});
    house.redis.cli(&["SET", "app:session:s1", &session.to_string()]);
    let seen = house.forwarded("/attached", "theme=dark; sid=s1");
    assert_eq!(attached(&seen), Some(session));
    assert_eq!(seen.header("x-user-email"), Some("a@shop.test"));
    assert_eq!(seen.header("x-user-level"), Some("7"));
    assert_eq!(seen.header("cookie"), Some("theme=dark; sid=s1"));
    let elsewhere = house.forwarded("/none", "sid=s1");
    assert_eq!(elsewhere.header("x-session"), None, "this route does not look");
}

#[test]
fn a_session_may_be_a_hash() {
    let house = House::start();
    house.redis.cli(&["HSET", "app:session:s1", "email", "a@shop.test", "level", "7"]);
    let seen = house.forwarded("/attached", "sid=s1");
    assert_eq!(attached(&seen), Some(json!({"email": "a@shop.test", "level": "7"})));
    assert_eq!(seen.header("x-user-email"), Some("a@shop.test"));
}

#[test]
fn a_session_is_read_at_every_request() {
    let house = House::start();
    for number in 0..3 {
        let session = json!({"level": number});
        house.redis.cli(&["SET", "app:session:s1", &session.to_string()]);
        assert_eq!(attached(&house.forwarded("/attached", "sid=s1")), Some(session));
    }
    house.redis.cli(&["DEL", "app:session:s1"]);
    assert_eq!(attached(&house.forwarded("/attached", "sid=s1")), None);
}

#[test]
fn the_id_comes_from_the_first_place_that_has_one() {
    let house = House::start();
    for id in ["of-claim", "of-cookie"] {
        house.redis.cli(&["SET", &format!("app:session:{id}"), &json!({"email": id}).to_string()]);
    }
    let email = |claims: Value, cookie: &str| {
        let request = Client::get(house.gateway.public, "/claimed").bearer(token(claims));
        assert_eq!(request.header("Cookie", cookie).send().status, 200);
        let seen = house.upstream.only();
        house.upstream.forget();
        seen.header("x-user-email").map(str::to_owned)
    };
    let mut with_sid = claims("42");
    with_sid["sid"] = json!("of-claim");
    assert_eq!(email(with_sid.clone(), "sid=of-cookie").as_deref(), Some("of-claim"));
    assert_eq!(email(claims("42"), "sid=of-cookie").as_deref(), Some("of-cookie"));
    // Two cookies of one name: one of them was tossed in, and nobody can say which.
    assert_eq!(email(claims("42"), "sid=of-cookie; sid=of-claim"), None);
    // An id that no key can hold is hashed; the application does the same.
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"two words");
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    house.redis.cli(&["SET", &format!("app:session:sha256:{hex}"), r#"{"email":"hashed"}"#]);
    with_sid["sid"] = json!("two words");
    assert_eq!(email(with_sid, "").as_deref(), Some("hashed"));
}

#[test]
fn a_client_cannot_send_a_session_of_its_own() {
    let house = House::start();
    for path in ["/attached", "/none"] {
        let mut request = Client::get(house.gateway.public, path);
        for name in ["X-Session", "x_session", "X.Session", "X_User-Email", "x-user-level"] {
            request = request.header(name, "forged");
        }
        assert_eq!(request.send().status, 200);
        assert!(!house.upstream.only().head.contains("forged"), "{path}");
        house.upstream.forget();
    }
}

#[test]
fn a_required_session_that_is_not_there_is_a_401() {
    let house = House::start();
    house.redis.cli(&["SET", "app:session:s1", "{}"]);
    assert_eq!(attached(&house.forwarded("/required", "sid=s1")), Some(json!({})));
    let missing = (401, "session_missing".to_owned());
    for cookie in ["theme=dark", "sid=s2", "sid="] {
        assert_eq!(house.refused("/required", cookie), missing, "{cookie}");
    }
    house.redis.cli(&["PEXPIRE", "app:session:s1", "1"]);
    eventually("the session expires", || house.ttl("s1") == -2);
    assert_eq!(house.refused("/required", "sid=s1"), missing);
}

#[test]
fn what_is_no_session_is_refused_with_a_stable_code() {
    let house = House::start();
    let unreadable = (502, "session_unreadable".to_owned());
    // An empty value is as good as none.
    house.redis.cli(&["SET", "app:session:s1", ""]);
    assert!(attached(&house.forwarded("/attached", "sid=s1")).is_none());
    assert_eq!(house.refused("/required", "sid=s1"), (401, "session_missing".to_owned()));
    for value in ["user=42", "[1]", "\"text\"", "{\"a\":1", "null", "{} {}"] {
        house.redis.cli(&["SET", "app:session:s1", value]);
        assert_eq!(house.refused("/attached", "sid=s1"), unreadable, "{value:?}");
    }
    let fits = json!({"a": "x".repeat(1024 - r#"{"a":""}"#.len())}).to_string();
    house.redis.cli(&["SET", "app:session:s1", &fits]);
    assert!(attached(&house.forwarded("/attached", "sid=s1")).is_some());
    house.redis.cli(&["SET", "app:session:s1", &fits.replace('}', " }")]);
    let too_large = (502, "session_too_large".to_owned());
    assert_eq!(house.refused("/attached", "sid=s1"), too_large);
    house.redis.cli(&["DEL", "app:session:s1"]);
    house.redis.cli(&["HSET", "app:session:s1", "a", &"x".repeat(1024)]);
    assert_eq!(house.refused("/attached", "sid=s1"), too_large);
}

#[test]
fn no_control_character_reaches_a_header() {
    let house = House::start();
    let evil = "a@shop.test\r\nX-User-Level: 9\r\n\r\nGET /admin HTTP/1.1\r\n\u{0}\u{7f}é";
    house.redis.cli(&["SET", "app:session:s1", &json!({"email": evil, "level": 1}).to_string()]);
    house.redis.cli(&["HSET", "app:session:s2", "email", evil, "level", "1"]);
    for cookie in ["sid=s1", "sid=s2"] {
        // The recording upstream refuses bare control characters and a second request by itself.
        let seen = house.forwarded("/attached", cookie);
        assert_eq!(seen.headers_named("x-user-level"), ["1"], "{}", seen.head);
        let email = seen.header("x-user-email").expect("the field, encoded");
        assert!(email.bytes().all(|byte| (0x21..=0x7E).contains(&byte)), "{email}");
        assert!(email.contains("%0D%0A"), "{email}");
        assert_eq!(attached(&seen).unwrap()["email"], evil);
    }
}

#[test]
fn use_renews_a_session_and_never_shortens_it() {
    let house = House::start();
    house.redis.cli(&["SET", "app:session:short", "{}", "EX", "60"]);
    house.redis.cli(&["SET", "app:session:long", "{}", "EX", "7200"]);
    house.redis.cli(&["SET", "app:session:endless", "{}"]);
    house.redis.cli(&["HSET", "app:session:hash", "email", "a"]);
    for id in ["short", "long", "endless", "hash"] {
        house.forwarded("/attached", &format!("sid={id}"));
    }
    for id in ["short", "endless", "hash"] {
        eventually("the session lives for half an hour", || (1700..=1800).contains(&house.ttl(id)));
    }
    house.settle();
    assert!(house.ttl("long") > 7000, "{} s", house.ttl("long"));
}

#[test]
fn only_admitted_use_renews() {
    let house = House::start();
    house.redis.cli(&["SET", "app:session:s1", "{}"]);
    for _ in 0..2 {
        house.forwarded("/limited", "sid=s1");
    }
    eventually("use renews", || house.ttl("s1") > 1700);
    house.redis.cli(&["EXPIRE", "app:session:s1", "60"]);
    for _ in 0..3 {
        assert_eq!(house.refused("/limited", "sid=s1"), (429, "limit_exceeded".to_owned()));
    }
    house.settle();
    assert!(house.ttl("s1") <= 60, "a refused request renewed it");
    // Nor does a request whose token was revoked.
    let mut claims = claims("42");
    (claims["sid"], claims["jti"]) = (json!("s1"), json!("t1"));
    house.redis.cli(&["SET", "app:auth:blacklist:t1", "1"]);
    let reply = Client::get(house.gateway.public, "/claimed").bearer(token(claims)).send();
    assert_eq!((reply.status, &*code(&reply)), (401, "token_revoked"));
    house.settle();
    assert!(house.ttl("s1") <= 60, "a revoked caller renewed it");
}
