//! API keys: made at one gateway, used at another, limited by their tier, ended everywhere.

mod outage;

use portcullis::auth::key_digest;
use serde_json::{Value, json};

use crate::auth::{code, upstream};
use crate::support::{
    AUTH, Client, Folder, Gateway, Redis, Reply, Upstream, claims, eventually, operate, run, token,
};

const TABLES: &str = r#"
[auth.partners]
api_keys = true
claims_to_headers = { x-user-id = "sub", x-key-id = "key_id", x-tier = "tier", x-region = "region" }
[auth.scripts]
api_keys = true
from = ["query:key", "cookie:key", "header:authorization"]
[limits.plan]
key = ["claim:key_id"]
allow = ["2/1h"]
tiers = { by = "claim:tier", allow = { gold = ["4/1h"] } }
[limits.guess]
key = ["address"]
allow = ["3/1h"]
[session]
id_from = ["claim:key_id"]
header = "x-session"
[routes.keys]
path = "/keys"
upstream = "shop"
auth = "partners"
[routes.orders]
path = "/orders"
upstream = "shop"
auth = "partners"
require = { scope = ["orders:read"], tier = ["gold", "silver"] }
[routes.limited]
path = "/limited"
upstream = "shop"
auth = "partners"
limits = ["plan"]
[routes.guarded]
path = "/guarded"
upstream = "shop"
auth = "partners"
limits = ["guess"]
[routes.both]
path = "/both"
upstream = "shop"
auth = ["users", "partners"]
[routes.optional]
path = "/optional"
upstream = "shop"
auth = { by = "partners", optional = true }
[routes.scripts]
path = "/scripts"
upstream = "shop"
auth = "scripts"
[routes.session]
path = "/session"
upstream = "shop"
auth = "partners"
session = "required"
[routes.cached]
path = "/cached"
upstream = "shop"
auth = "partners"
cache = { ttl = "1h", partition = ["claim:sub"] }
"#;

/// A gateway with all these routes on the store at `url`; the embedded one without a URL.
fn start(url: &str, on_outage: &str, upstream: &Upstream) -> Gateway {
    Gateway::start(&config(url, on_outage, upstream))
}

fn config(url: &str, on_outage: &str, upstream: &Upstream) -> String {
    // Nothing here is about deadlines, and the machine may be busy.
    let store = if url.is_empty() {
        String::new()
    } else {
        format!(
            "[store]\nurl = \"{url}\"\ntimeout = \"5s\"\nconnect_timeout = \"5s\"\n\
             [store.on_outage]\n{on_outage}\n"
        )
    };
    store + AUTH + &upstream.table("shop") + TABLES
}

/// Two gateways on one Redis.
struct House {
    redis: Redis,
    upstream: Upstream,
    a: Gateway,
    b: Gateway,
}

impl House {
    fn open() -> Self {
        let (redis, upstream) = (Redis::start(), upstream());
        let start = || start(&redis.url(), "", &upstream);
        let (a, b) = (start(), start());
        Self { redis, upstream, a, b }
    }
}

/// Makes a key; its text and its id.
fn create(gateway: &Gateway, what: &Value) -> (String, String) {
    let reply = operate(gateway, "POST", "/v1/keys", &what.to_string());
    assert_eq!(reply.status, 201, "{}", reply.text());
    let made = reply.json();
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    (text("key"), text("id"))
}

fn get(gateway: &Gateway, path: &str, key: &str) -> Reply {
    Client::get(gateway.public, path).header("X-API-Key", key).send()
}

fn is_refused(reply: &Reply, expected: &str) {
    assert_eq!((reply.status, &*code(reply)), (401, expected), "{}", reply.text());
    assert_eq!(reply.header("www-authenticate"), Some("ApiKey realm=\"portcullis\""));
}

/// What an application writes that imports a key of its own.
fn import(redis: &Redis, key: &str, record: &Value) {
    let at = format!("app:auth:key:{}", key_digest(key.as_bytes()));
    assert_eq!(redis.cli(&["SET", &at, &record.to_string()]), "OK");
}

#[test]
fn a_key_made_at_one_gateway_is_good_at_the_other_until_it_is_ended() {
    let house = House::open();
    let made = json!({
        "owner": "acme", "scopes": ["orders:read", "orders:write"], "tier": "gold",
        "claims": {"region": "eu"}, "expires_in": "1h",
    });
    let (key, id) = create(&house.a, &made);
    assert!(key.starts_with("pck_") && key.len() == 51, "{key}");
    assert_eq!(id.len(), 16, "{id}");
    assert_eq!(get(&house.b, "/orders", &key).status, 200);
    let seen = house.upstream.only();
    assert_eq!(seen.header("x-api-key"), None, "the key is not passed on");
    let reply = get(&house.b, "/keys", &key);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let seen = house.upstream.recorded().pop().expect("a request");
    for (name, value) in
        [("x-user-id", "acme"), ("x-key-id", &id), ("x-tier", "gold"), ("x-region", "eu")]
    {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    // It is shown without the key; and listed.
    let shown = operate(&house.b, "GET", &format!("/v1/keys/{id}"), "").json();
    assert_eq!((&shown["owner"], &shown["tier"]), (&json!("acme"), &json!("gold")));
    assert!(shown.get("key").is_none(), "{shown}");
    let listed = operate(&house.b, "GET", "/v1/keys?owner=acme", "").json();
    assert_eq!(listed["keys"], json!([shown]), "{listed}");
    // What Redis has is no key, and ends by itself.
    let all = house.redis.cli(&["KEYS", "app:auth:key*"]);
    assert_eq!(all.lines().count(), 3, "{all}");
    for at in all.lines() {
        assert!(house.redis.cli(&["PTTL", at]).parse::<i64>().unwrap() > 0, "{at}");
        let kind = house.redis.cli(&["TYPE", at]);
        assert!(kind == "zset" || !house.redis.cli(&["GET", at]).contains(&key), "{at}");
    }
    // Both gateways have remembered it by now; the end counts at once.
    assert_eq!(get(&house.a, "/keys", &key).status, 200);
    let ended = operate(&house.a, "DELETE", &format!("/v1/keys/{id}"), "");
    assert_eq!(ended.status, 200, "{}", ended.text());
    for gateway in [&house.b, &house.a] {
        is_refused(&get(gateway, "/keys", &key), "api_key_revoked");
    }
    for method in ["GET", "DELETE"] {
        assert_eq!(operate(&house.b, method, &format!("/v1/keys/{id}"), "").status, 404);
    }
    let listed = operate(&house.b, "GET", "/v1/keys?owner=acme", "").json();
    assert_eq!(listed["keys"], json!([]));
    eventually("every request has its line", || house.b.access_lines().len() >= 3);
    for gateway in [&house.a, &house.b] {
        let lines = gateway.access_lines().iter().map(Value::to_string).collect::<String>();
        for secret in [&key, &key_digest(key.as_bytes())] {
            assert!(!lines.contains(secret) && !gateway.stderr().contains(secret));
        }
    }
}

#[test]
fn scopes_tier_session_and_cache_go_by_the_record() {
    let house = House::open();
    let (gold, id) =
        create(&house.a, &json!({"owner": "acme", "tier": "gold", "scopes": ["orders:read"]}));
    let (plain, _) = create(&house.a, &json!({"owner": "acme", "scopes": ["orders:write"]}));
    let (other, _) = create(&house.a, &json!({"owner": "zeta", "tier": "gold"}));
    assert_eq!(get(&house.b, "/orders", &gold).status, 200);
    for (key, expected) in [(&plain, "scope_insufficient"), (&other, "scope_insufficient")] {
        // At the first use, and from memory.
        for _ in 0..2 {
            let reply = get(&house.b, "/orders", key);
            assert_eq!((reply.status, &*code(&reply)), (403, expected));
        }
    }
    for (key, allowed) in [(&gold, 4), (&plain, 2)] {
        for _ in 0..allowed {
            assert_eq!(get(&house.b, "/limited", key).status, 200);
        }
        assert_eq!(get(&house.a, "/limited", key).status, 429, "{allowed}");
    }
    let reply = get(&house.b, "/session", &gold);
    assert_eq!(&*code(&reply), "session_missing");
    house.redis.cli(&["SET", &format!("app:session:{id}"), "{}"]);
    assert_eq!(get(&house.b, "/session", &gold).status, 200);
    let cached = |key: &str| {
        let reply = get(&house.b, "/cached", key);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.header("cache-status").expect("Cache-Status").contains("hit")
    };
    eventually("it is kept", || cached(&gold));
    assert!(cached(&plain), "the same owner");
    assert!(!cached(&other), "another owner");
}

#[test]
fn a_revoked_key_comes_back_when_the_revocation_is_taken_back() {
    let house = House::open();
    let (key, id) = create(&house.a, &json!({"owner": "acme"}));
    let body = json!({"key_id": id}).to_string();
    for _ in 0..2 {
        assert_eq!(get(&house.b, "/keys", &key).status, 200);
        let reply = operate(&house.a, "POST", "/v1/revocations", &body);
        assert_eq!(reply.json()["key"], format!("app:auth:blacklist:key:{id}"));
        let seconds = reply.json()["expires_in_seconds"].as_u64().unwrap();
        assert!(seconds > 300 * 24 * 3600, "it must not end before the key: {seconds}");
        is_refused(&get(&house.b, "/keys", &key), "api_key_revoked");
        assert_eq!(operate(&house.a, "DELETE", "/v1/revocations", &body).status, 200);
    }
    let wrong = json!({"key_id": id, "jti": "t"}).to_string();
    assert_eq!(operate(&house.a, "POST", "/v1/revocations", &wrong).status, 400);
    // Who logs out everywhere does not lose his keys.
    operate(&house.a, "POST", "/v1/revocations", r#"{"sub": "acme", "auth": "users"}"#);
    assert_eq!(get(&house.b, "/keys", &key).status, 200);
}

#[test]
fn an_application_imports_and_deletes_keys_of_its_own() {
    let house = House::open();
    let get = |key: &str| get(&house.b, "/keys", key);
    import(&house.redis, "legacy-1", &json!({"id": "l1", "owner": "old", "extra": 1}));
    assert_eq!(get("legacy-1").status, 200);
    let digest = key_digest(b"legacy-1");
    house.redis.cli(&["DEL", &format!("app:auth:key:{digest}")]);
    is_refused(&get("legacy-1"), "api_key_revoked");
    // Expired: by its own time, also when it was remembered.
    import(&house.redis, "old", &json!({"id": "l2", "owner": "old", "expires": 1_000_000_000}));
    is_refused(&get("old"), "api_key_expired");
    is_refused(&get("old"), "api_key_expired");
    // For another verifier.
    import(&house.redis, "else", &json!({"id": "l3", "owner": "old", "auth": "scripts"}));
    is_refused(&get("else"), "api_key_invalid");
    // What cannot be read is nobody's fault but the writer's.
    for (key, record) in [("a", "no json"), ("b", "{}"), ("c", r#"{"id": "", "owner": "x"}"#)] {
        let at = format!("app:auth:key:{}", key_digest(key.as_bytes()));
        house.redis.cli(&["SET", &at, record]);
        let reply = get(key);
        assert_eq!((reply.status, &*code(&reply)), (503, "keys_unavailable"), "{record}");
    }
    let at = format!("app:auth:key:{}", key_digest(b"d"));
    house.redis.cli(&["HSET", &at, "id", "x"]);
    assert_eq!(get("d").status, 503);
}

#[test]
fn keys_that_are_none_cost_their_address_and_tell_nothing() {
    let house = House::open();
    let gateway = &house.b;
    let (key, _) = create(&house.a, &json!({"owner": "acme"}));
    let mistyped = format!("{}A", &key[..key.len() - 1]);
    let mistyped = if mistyped == key { format!("{}B", &key[..key.len() - 1]) } else { mistyped };
    for bad in [&*mistyped, "pck_", "nobody's", "\u{e9}", &"x".repeat(8193), &"x".repeat(8192)] {
        is_refused(&get(gateway, "/keys", bad), "api_key_invalid");
    }
    is_refused(&Client::get(gateway.public, "/keys").send(), "api_key_missing");
    // A token in its place is no key, and a key is no token.
    is_refused(&Client::get(gateway.public, "/keys").bearer(&key).send(), "api_key_missing");
    let twice = Client::get(gateway.public, "/keys").header("X-API-Key", &key);
    assert_eq!(&*code(&twice.header("X-API-Key", "other").send()), "token_malformed");
    for (key, status) in [("", 200), (&*key, 200), ("bad", 401)] {
        assert_eq!(get(gateway, "/optional", key).status, status, "{key}");
    }
    for _ in 0..3 {
        is_refused(&get(gateway, "/guarded", "guess"), "api_key_invalid");
    }
    assert_eq!(get(gateway, "/guarded", "guess").status, 429);
    assert_eq!(get(gateway, "/guarded", &key).status, 429, "the same address");
}

#[test]
fn where_both_may_stand_the_carrier_decides() {
    let house = House::open();
    let (key, _) = create(&house.a, &json!({"owner": "acme"}));
    let bearer = token(claims("42"));
    let both = || Client::get(house.b.public, "/both");
    for (request, user) in
        [(both().bearer(&bearer), "42"), (both().header("x-api-key", &key), "acme")]
    {
        house.upstream.forget();
        assert_eq!(request.send().status, 200, "{user}");
        let seen = house.upstream.only();
        assert_eq!(seen.header("x-user-id"), Some(user));
        assert_eq!((seen.header("x-api-key"), seen.header("authorization")), (None, None));
    }
    let reply = both().bearer(&bearer).header("x-api-key", &key).send();
    assert_eq!((reply.status, &*code(&reply)), (400, "token_malformed"));
    let reply = both().send();
    assert_eq!((reply.status, &*code(&reply)), (401, "token_missing"));
    is_refused(&both().header("x-api-key", &bearer).send(), "api_key_invalid");
}

#[test]
fn a_key_may_stand_in_a_query_a_cookie_or_authorization() {
    let house = House::open();
    let (key, _) = create(&house.a, &json!({"owner": "acme", "auth": "scripts"}));
    let path = format!("/scripts?a=1&key={key}&b=2");
    let at = |path: &str| Client::get(house.b.public, path);
    for request in [
        at(&path),
        at("/scripts?a=1&b=2").header("Cookie", format!("x=1; key={key}")),
        at("/scripts?a=1&b=2").header("Authorization", format!("Bearer {key}")),
        at("/scripts?a=1&b=2").header("Authorization", format!("ApiKey {key}")),
    ] {
        house.upstream.forget();
        let reply = request.send();
        assert_eq!(reply.status, 200, "{}", reply.text());
        let seen = house.upstream.only();
        assert_eq!(seen.target(), "/scripts?a=1&b=2");
        assert_eq!(seen.header("authorization"), None);
        assert!(seen.header("cookie").is_none_or(|cookie| cookie == "x=1"));
    }
    let basic = at("/scripts").header("Authorization", format!("Basic {key}")).send();
    is_refused(&basic, "api_key_missing");
    is_refused(&get(&house.b, "/keys", &key), "api_key_invalid");
    eventually("the log has them all", || house.b.access_lines().len() >= 6);
    assert!(house.b.access_lines().iter().all(|line| !line.to_string().contains(&key)));
}

#[test]
fn a_number_in_a_claim_stays_as_the_operator_wrote_it() {
    let upstream = upstream();
    let gateway = start("", "", &upstream);
    for number in ["1", "-0", "1.50", "123456789012345678901234567891", "1e400"] {
        let body = format!("{{\"owner\": \"acme\", \"claims\": {{\"region\": {number}}}}}");
        let made = operate(&gateway, "POST", "/v1/keys", &body);
        assert_eq!(made.status, 201, "{number}: {}", made.text());
        let made = made.json();
        upstream.forget();
        assert_eq!(get(&gateway, "/keys", made["key"].as_str().unwrap()).status, 200);
        assert_eq!(upstream.only().header("x-region"), Some(number));
    }
    for wrong in ["[1e400]", "{\"a\": 1.5, \"a\": 1.5}", "3", "{\"sub\": 1e400}"] {
        let body = format!("{{\"owner\": \"acme\", \"claims\": {wrong}}}");
        assert_eq!(operate(&gateway, "POST", "/v1/keys", &body).status, 400, "{wrong}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_when_a_key_is_made() {
    let upstream = upstream();
    let gateway = start("", "", &upstream);
    for wrong in [
        json!({}),
        json!({"owner": ""}),
        json!({"owner": "a\nb"}),
        json!({"owner": "a", "scopes": ["two words"]}),
        json!({"owner": "a", "scopes": [""]}),
        json!({"owner": "a", "tier": ""}),
        json!({"owner": "a", "claims": {"sub": "b"}}),
        json!({"owner": "a", "claims": {"x": "y".repeat(9000)}}),
        json!({"owner": "a", "expires_in": "0s"}),
        json!({"owner": "a", "auth": "users"}),
        json!({"owner": "a", "key": "own"}),
    ] {
        let reply = operate(&gateway, "POST", "/v1/keys", &wrong.to_string());
        assert_eq!(reply.status, 400, "{wrong}: {}", reply.text());
    }
    for (method, path, status) in [
        ("PUT", "/v1/keys", 405),
        ("PUT", "/v1/keys/ab", 405),
        ("GET", "/v1/keys", 400),
        ("GET", "/v1/keys?owner=a&x=1", 400),
        ("GET", "/v1/keys/ab?x=1", 400),
        ("GET", "/v1/keys/", 404),
        ("GET", "/v1/keysx", 404),
    ] {
        assert_eq!(operate(&gateway, method, path, "").status, status, "{method} {path}");
    }
}

#[test]
fn the_commands_work_on_the_embedded_store() {
    let upstream = upstream();
    let gateway = start("", "", &upstream);
    let url = format!("http://{}", gateway.admin);
    let ran = |arguments: &[&str]| {
        let ran = run(&Folder::new(), &[&["keys"], arguments, &["--admin", &url]].concat());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        ran.stdout
    };
    let made = ran(&[
        "create",
        "--owner",
        "ac me",
        "--scope",
        "orders:read",
        "--scope",
        "b",
        "--tier",
        "gold",
        "--claim",
        "region=eu",
        "--expires-in",
        "90d",
        "--auth",
        "partners",
    ]);
    let (key, id) = made.trim_end().split_once('\n').expect("two lines");
    let key = key.strip_prefix("key: ").expect("a key");
    let id = id.strip_prefix("id: ").expect("an id");
    assert_eq!(get(&gateway, "/orders", key).status, 200);
    let described = json!({"path": "/orders", "headers": {"x-api-key": key}}).to_string();
    let explained = operate(&gateway, "POST", "/v1/explain", &described);
    assert_eq!(explained.json()["caller"]["verifier"], "partners", "{}", explained.text());
    assert!(!explained.text().contains(key), "{}", explained.text());
    let listed = ran(&["list", "--owner", "ac me"]);
    assert!(listed.starts_with(id) && listed.contains("tier=gold"), "{listed}");
    assert!(!listed.contains("pck_") && listed.ends_with("0 more\n"), "{listed}");
    assert_eq!(ran(&["revoke", id]), format!("ended: {id}\n"));
    is_refused(&get(&gateway, "/orders", key), "api_key_revoked");
    let again = run(&Folder::new(), &["keys", "revoke", id, "--admin", &url]);
    assert_eq!(again.code, Some(1), "{}", again.stderr);
    // By its id alone, until it is taken back.
    let (key, id) = create(&gateway, &json!({"owner": "acme"}));
    for (undo, status) in [(&[][..], 401), (&["--undo"], 200)] {
        let arguments = [&["revoke", "--key-id", &id, "--admin", &url], undo].concat();
        assert_eq!(run(&Folder::new(), &arguments).code, Some(0));
        assert_eq!(get(&gateway, "/keys", &key).status, status);
    }
}
