//! Two callers whose data differ in anything, a type, a digit, a byte, never share a stored answer,
//! a counter or a session; and one that nobody issued has none.

use std::collections::HashSet;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::{
    AUTH, Client, Gateway, Redis, Reply, SECRET, TcpProxy, Upstream, claims, eventually, operate,
    raw, response, token,
};

/// Values of a claim, no two of them the same, as JSON.
const VALUES: [&str; 26] = [
    "\"1\"",
    "1",
    "1.5",
    "\"1.5\"",
    "-1",
    "true",
    "\"true\"",
    "false",
    "null",
    "\"null\"",
    "\"\"",
    "[]",
    "[\"admin\"]",
    "[\"user\"]",
    "[\"admin\",\"user\"]",
    "\"[\\\"admin\\\"]\"",
    "{}",
    "{\"a\":1}",
    "{\"a\":\"1\"}",
    "[[\"admin\"]]",
    "9007199254740992",
    "9007199254740993",
    "123456789012345678901234567890",
    "123456789012345678901234567891",
    "1e400",
    "\"json=1\"",
];

/// A token of `sub` with one more claim, written as it is.
fn token_with(sub: &str, name: &str, json: &str) -> String {
    let mut text = claims(sub).to_string();
    text.truncate(text.len() - 1);
    let text = format!("{text},\"{name}\":{json}}}");
    let head = URL_SAFE_NO_PAD.encode("{\"alg\":\"HS256\"}");
    let input = format!("{head}.{}", URL_SAFE_NO_PAD.encode(text));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// What changes with every request, so that a stored answer is seen.
fn numbered() -> Upstream {
    let next = std::sync::atomic::AtomicUsize::new(0);
    Upstream::with(move |_, stream| {
        let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        let _ = std::io::Write::write_all(stream, response("200 OK", &number).as_bytes());
    })
}

fn store(redis: Option<&Redis>) -> String {
    let url = redis.map_or("memory:".to_owned(), Redis::url);
    format!("[store]\nurl = \"{url}\"\ntimeout = \"5s\"\n")
}

/// Requests with sessions, and limits by them.
const SESSIONS: &str = r#"
[server]
trusted_proxies = ["127.0.0.0/8"]
[session]
id_from = ["header:x-sid", "cookie:sid"]
header = "x-session"
[limits.twice]
key = ["session"]
allow = ["2/1h"]
[limits.here]
key = ["session"]
allow = ["2/1h"]
scope = "local"
[limits.user]
key = ["header:x-user"]
allow = ["1/1h"]
[limits.alone]
key = ["header:x-user"]
concurrent = 1
[routes.alone]
path = "/alone"
upstream = "shop"
session = true
limits = ["twice", "alone"]
[routes.shared]
path = "/shared"
upstream = "shop"
session = true
limits = ["twice"]
[routes.here]
path = "/here"
upstream = "shop"
session = true
limits = ["here"]
[routes.both]
path = "/both"
upstream = "shop"
session = true
limits = ["twice", "user"]
[routes.plain]
path = "/plain"
upstream = "shop"
session = true
"#;

struct House {
    gateway: Gateway,
    upstream: Upstream,
    redis: Option<Redis>,
}

impl House {
    fn start(redis: Option<Redis>) -> Self {
        let upstream = Upstream::replying(response("200 OK", "ok"));
        let gateway = Gateway::start(&(store(redis.as_ref()) + &upstream.table("shop") + SESSIONS));
        Self { gateway, upstream, redis }
    }

    fn log_in(&self, id: &str) {
        let path = format!("/v1/sessions/{id}?ttl=1h");
        assert!(operate(&self.gateway, "PUT", &path, "{}").status < 300);
    }

    fn get(&self, path: &str, from: &str, id: &str) -> u16 {
        let request = Client::get(self.gateway.public, path).header("X-Forwarded-For", from);
        request.header("Cookie", format!("sid={id}")).header("X-User", from).send().status
    }

    /// What a request with this cookie line has forwarded as its session.
    fn session_of(&self, cookies: &[u8]) -> Option<String> {
        self.upstream.forget();
        let mut request = b"GET /plain HTTP/1.1\r\nHost: shop.test\r\nCookie: ".to_vec();
        request.extend_from_slice(cookies);
        request.extend_from_slice(b"\r\n\r\n");
        let answer = raw(self.gateway.public, request);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        self.upstream.only().header("x-session").map(str::to_owned)
    }
}

#[test]
fn a_partition_keeps_every_value_apart() {
    let upstream = numbered();
    let config = format!(
        "{}{AUTH}{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\n\
         cache = {{ ttl = \"1h\", partition = [\"claim:roles\"] }}\n",
        store(None),
        upstream.table("shop")
    );
    let gateway = Gateway::start(&config);
    let get = |token: &str| Client::get(gateway.public, "/p").bearer(token).send();
    let mut seen = HashSet::new();
    for value in VALUES {
        let first = get(&token_with("42", "roles", value));
        assert_eq!(first.status, 200, "{value}: {}", first.text());
        assert!(seen.insert(first.text()), "{value} gets the answer to another value");
        let again = get(&token_with("43", "roles", value));
        assert_eq!(again.text(), first.text(), "{value} is the same value again");
    }
    // Nobody can say whose the answer to a caller without the claim is.
    let stranger = token(claims("42"));
    let (one, other) = (get(&stranger).text(), get(&stranger).text());
    assert!(one != other && seen.insert(one) && seen.insert(other), "it was kept");
}

#[test]
fn a_limit_counts_every_value_apart_and_operators_find_it() {
    for redis in [None, Some(Redis::start())] {
        let upstream = Upstream::replying(response("200 OK", "ok"));
        let config = format!(
            "{}{AUTH}{}[limits.once]\nkey = [\"claim:roles\"]\nallow = [\"1/1h\"]\n\
             [routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\n\
             limits = [\"once\"]\n",
            store(redis.as_ref()),
            upstream.table("shop")
        );
        let gateway = Gateway::start(&config);
        let mut keys = HashSet::new();
        for value in VALUES {
            let get = |sub| {
                let token = token_with(sub, "roles", value);
                Client::get(gateway.public, "/").bearer(token).send().status
            };
            assert_eq!((get("42"), get("43")), (200, 429), "{value}");
            let token = token_with("42", "roles", value);
            let asked =
                json!({"path": "/", "headers": {"authorization": format!("Bearer {token}")}});
            let told = operate(&gateway, "POST", "/v1/explain", &asked.to_string()).json();
            let key = told["limits"][0]["key"].as_str().unwrap().to_owned();
            let query = key.replace('#', "%23").replace('=', "%3D");
            let path = format!("/v1/limits?policy=once&key={query}");
            let left = operate(&gateway, "GET", &path, "").json();
            assert_eq!(left["windows"][0]["remaining"], 0, "{key}: {left}");
            let reset = operate(&gateway, "DELETE", &path, "").json();
            assert_eq!((&reset["key"], &reset["counters_reset"]), (&json!(key), &json!(1)));
            assert!(keys.insert(key), "{value} shares a key");
        }
        assert!(keys.contains("claim:roles=1") && keys.contains("claim:roles=json=1"), "{keys:?}");
    }
}

#[test]
fn a_tier_is_a_string_or_marked() {
    let upstream = Upstream::replying(response("200 OK", "ok"));
    let config = format!(
        "{AUTH}{}[limits.api]\nkey = [\"claim:sub\"]\nallow = [\"9/1h\"]\n\
         tiers = {{ by = \"claim:plan\", allow = {{ gold = [\"5/1h\"], 7 = [\"6/1h\"], \
         \"json=7\" = [\"7/1h\"], null = [\"8/1h\"] }} }}\n\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\nlimits = [\"api\"]\n",
        upstream.table("shop")
    );
    let gateway = Gateway::start(&config);
    for (number, (plan, limit)) in [
        ("\"gold\"", "5"),
        ("[\"gold\"]", "9"),
        ("\"7\"", "6"),
        ("7", "7"),
        ("7.0", "9"),
        ("\"json=7\"", "9"),
        ("null", "9"),
        ("\"null\"", "8"),
        ("{\"gold\":1}", "9"),
    ]
    .into_iter()
    .enumerate()
    {
        let token = token_with(&number.to_string(), "plan", plan);
        let reply = Client::get(gateway.public, "/").bearer(token).send();
        assert_eq!(reply.header("x-ratelimit-limit"), Some(limit), "{plan}");
    }
}

#[test]
fn a_number_reaches_the_upstream_as_it_was_written() {
    let upstream = Upstream::replying(response("200 OK", "ok"));
    let config = AUTH.to_owned()
        + &upstream.table("shop")
        + "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\n\
           require = { role = [\"9007199254740993.0\", \"2\"] }\n";
    let gateway = Gateway::start(&config);
    let get = |role: &str| {
        Client::get(gateway.public, "/").bearer(token_with("42", "role", role)).send().status
    };
    assert_eq!(get("9007199254740993.0"), 200);
    assert_eq!(upstream.only().header("x-user-role"), Some("9007199254740993.0"));
    assert_eq!((get("9007199254740992.0"), get("2.0"), get("[1.0, 2]")), (403, 403, 200));
    // Two members of one name have two readings.
    assert_eq!((get("2,\"role\":3.5"), get("2,\"role\":2")), (401, 401));
}

#[test]
fn ids_that_nobody_issued_share_the_addresss_counter() {
    for redis in [None, Some(Redis::start())] {
        let house = House::start(redis);
        ["s1", "s2"].iter().for_each(|id| house.log_in(id));
        for path in ["/shared", "/here"] {
            let get = |from: &str, id: &str| house.get(path, from, id);
            let made_up: Vec<u16> =
                (0..6).map(|number| get("192.0.2.1", &format!("r{number}"))).collect();
            assert_eq!(made_up, [200, 200, 429, 429, 429, 429], "{path}");
            // A session is counted by itself, at an exhausted address too, and from any other.
            assert_eq!((get("192.0.2.1", "s1"), get("192.0.2.2", "s1")), (200, 200), "{path}");
            assert_eq!((get("192.0.2.1", "s1"), get("192.0.2.3", "s1")), (429, 429), "{path}");
            // It took nothing from its address.
            eventually("what it was charged is given back", || get("192.0.2.2", "x") == 200);
            assert_eq!((get("192.0.2.4", "s2"), get("192.0.2.4", "s2")), (200, 200), "{path}");
            let others: Vec<u16> = (0..3).map(|n| get("192.0.2.4", &format!("q{n}"))).collect();
            assert_eq!(others, [200, 200, 429], "{path}");
        }
        // One that has ended counts for the address at once.
        assert_eq!(operate(&house.gateway, "DELETE", "/v1/sessions/s2", "").status, 200);
        let ended: Vec<u16> = (0..3).map(|_| house.get("/here", "192.0.2.9", "s2")).collect();
        assert_eq!(ended, [200, 200, 429]);
        if let Some(redis) = &house.redis {
            let keys = redis.cli(&["KEYS", "app:ratelimit:*"]);
            assert!(!keys.contains("session=r") && !keys.contains("session=q"), "{keys}");
        }
    }
}

#[test]
fn a_new_session_takes_from_no_other_limit_twice() {
    let house = House::start(Some(Redis::start()));
    house.log_in("s1");
    assert_eq!(house.get("/both", "192.0.2.1", "s1"), 200, "one unit of `user` is enough");
    assert_eq!(house.get("/both", "192.0.2.1", "s1"), 429);
    let asked = json!({"path": "/shared", "headers": {"cookie": "sid=s1"}});
    let told = operate(&house.gateway, "POST", "/v1/explain", &asked.to_string()).json();
    assert_eq!(told["limits"][0]["key"], "session=s1", "{told}");
    assert_eq!(told["limits"][0]["remaining"], 1, "{told}");
    let asked = json!({"path": "/shared", "headers": {"cookie": "sid=nobodys"}});
    let told = operate(&house.gateway, "POST", "/v1/explain", &asked.to_string()).json();
    assert_eq!(told["limits"][0]["key"], "address=127.0.0.1", "{told}");
}

#[test]
fn a_new_session_does_not_stand_in_its_own_way() {
    let house = House::start(Some(Redis::start()));
    for number in 0..20 {
        let (id, user) = (format!("n{number}"), format!("192.0.2.{number}"));
        house.log_in(&id);
        assert_eq!(house.get("/alone", &user, &id), 200, "{number}: the one place is its own");
    }
}

#[test]
fn a_known_session_and_a_made_up_one_cost_one_question() {
    let (redis, upstream) = (Redis::start(), Upstream::replying(response("200 OK", "ok")));
    let proxy = TcpProxy::start(redis.address());
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", proxy.url());
    let limit = SESSIONS.replace("\"2/1h\"", "\"1000/1h\"");
    let gateway = Gateway::start(&(store + &upstream.table("shop") + &limit));
    redis.cli(&["SET", "app:session:s1", "{}"]);
    let get = |id: &str| {
        let request = Client::get(gateway.public, "/shared");
        assert_eq!(request.header("Cookie", format!("sid={id}")).send().status, 200);
    };
    get("s1");
    get("r");
    proxy.reset_count();
    (0..10).for_each(|_| get("s1"));
    (0..10).for_each(|number| get(&format!("r{number}")));
    assert_eq!(proxy.batches(), 20);
}

#[test]
fn a_tokens_id_revokes_no_session_and_no_key() {
    for redis in [None, Some(Redis::start())] {
        let upstream = Upstream::replying(response("200 OK", "ok"));
        let config = store(redis.as_ref())
            + AUTH
            + &upstream.table("shop")
            + "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\n";
        let gateway = Gateway::start(&config);
        let get = |claims: &Value| {
            Client::get(gateway.public, "/").bearer(token(claims.clone())).send().status
        };
        let (mut of_session, mut odd) = (claims("42"), claims("42"));
        of_session["sid"] = json!("S9");
        odd["jti"] = json!("sid:S9");
        let revoke = |body: Value| operate(&gateway, "POST", "/v1/revocations", &body.to_string());
        let reply = revoke(json!({"jti": "sid:S9"}));
        assert_eq!(reply.status, 201);
        assert_eq!((get(&of_session), get(&odd)), (200, 401), "{}", reply.text());
        assert_eq!(revoke(json!({"sid": "S9"})).status, 201);
        assert_eq!(get(&of_session), 401);
        let key = |body: Value| revoke(body).json()["key"].as_str().unwrap().to_owned();
        let keys = [
            key(json!({"jti": "key:k1"})),
            key(json!({"jti": "sid:key:k1"})),
            key(json!({"sid": "key:k1"})),
            key(json!({"jti": &"sha256:".to_owned()})),
        ];
        assert_eq!(HashSet::from(keys.clone()).len(), 4, "{keys:?}");
    }
}

#[test]
fn a_digest_in_a_cookie_opens_no_long_id() {
    for redis in [None, Some(Redis::start())] {
        let house = House::start(redis);
        let long = "x".repeat(200);
        house.log_in(&long);
        assert!(house.session_of(format!("sid={long}").as_bytes()).is_some());
        let digest = "sha256:".to_owned()
            + &portcullis::base::http::hex::encode(
                aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, long.as_bytes()).as_ref(),
            );
        assert_eq!(house.session_of(format!("sid={digest}").as_bytes()), None);
        // Operators see the digest in lists, and name the session so.
        let path = format!("/v1/sessions/{digest}");
        assert_eq!(operate(&house.gateway, "GET", &path, "").status, 200);
        assert_eq!(operate(&house.gateway, "DELETE", &path, "").status, 200);
        assert_eq!(house.session_of(format!("sid={long}").as_bytes()), None);
    }
}

#[test]
fn one_byte_of_another_cookie_loses_nothing() {
    let house = House::start(None);
    ["good", "g%C3%BC"].iter().for_each(|id| house.log_in(id));
    for line in [
        &b"sid=good"[..],
        b"a=\xFC; sid=good",
        b"a=\xC3\xBC;sid=good",
        b"\xFF; sid = good ;",
        b"sid=good; sid=good",
        b"=x; y; sid=good",
        b"a=\"q;\"; sid=good",
        b"sid=g\xC3\xBC",
    ] {
        assert!(house.session_of(line).is_some(), "{}", String::from_utf8_lossy(line));
    }
    for line in [
        &b"sid=good\xFC"[..],
        b"sid=g\xFC",
        b"sid=\"good\"",
        b"sid=good; sid=good\xFC",
        b"Sid=good",
        b"a=1, sid=good",
        b"sid=",
        b"sid",
    ] {
        assert_eq!(house.session_of(line), None, "{}", String::from_utf8_lossy(line));
    }
}

#[test]
fn headers_that_differ_in_one_odd_byte_are_counted_apart() {
    let upstream = Upstream::replying(response("200 OK", "ok"));
    let config = upstream.table("shop")
        + "[limits.once]\nkey = [\"header:x-tenant\"]\nallow = [\"1/1h\"]\n[routes.all]\n\
           path = \"/*\"\nupstream = \"shop\"\nlimits = [\"once\"]\n";
    let gateway = Gateway::start(&config);
    let get = |tenant: &[u8]| {
        let mut request = b"GET / HTTP/1.1\r\nHost: shop.test\r\nX-Tenant: ".to_vec();
        request.extend_from_slice(tenant);
        request.extend_from_slice(b"\r\n\r\n");
        raw(gateway.public, request)[9..12].to_owned()
    };
    for tenant in [&b"a\xFC"[..], b"a\xFD", b"a", b"a\r\nX-Tenant: b", b"a\r\nX-Tenant: c", b""] {
        assert_eq!(get(tenant), "200", "{tenant:?}");
        assert_eq!(get(tenant), "429", "{tenant:?}");
    }
}

/// Two callers of one route, of whom one may not see the other's session.
#[test]
fn a_claim_names_the_session_by_its_text() {
    let redis = Redis::start();
    let upstream = Upstream::replying(response("200 OK", "ok"));
    let config = store(Some(&redis))
        + AUTH
        + &upstream.table("shop")
        + "[session]\nid_from = [\"claim:account\"]\nheader = \"x-session\"\n[routes.all]\n\
           path = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\nsession = \"required\"\n";
    let gateway = Gateway::start(&config);
    let get = |value: &str| -> Reply {
        Client::get(gateway.public, "/").bearer(token_with("42", "account", value)).send()
    };
    for id in ["42", "[\"a\"]", "123456789012345678901234567890", "null"] {
        redis.cli(&["SET", &format!("app:session:{id}"), "{}"]);
    }
    for value in ["\"42\"", "42", "[\"a\"]", "[ \"a\" ]", "123456789012345678901234567890"] {
        assert_eq!(get(value).status, 200, "{value}");
    }
    for value in ["42.0", "[\"b\"]", "123456789012345678901234567891", "null", "[42]", "\"\""] {
        assert_eq!(get(value).status, 401, "{value}");
    }
}
