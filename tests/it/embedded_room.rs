//! More than the embedded store has room for: no client is refused for it, what must not be lost is
//! not, and what is said to be stored is.

use crate::support::{AUTH, Client, Gateway, Upstream, claims, eventually, response, token};

const CONFIG: &str = r#"
[limits.tight]
key = ["header:x-user"]
allow = ["3/1h"]
[session]
id_from = ["cookie:sid"]
header = "x-session"
[routes.limited]
path = "/limited"
upstream = "shop"
limits = ["tight"]
[routes.auth]
path = "/auth"
upstream = "shop"
auth = "users"
session = "required"
[routes.cached]
path = "/cached/*"
upstream = "shop"
cache = { ttl = "1h", max_bytes = "1MiB" }
"#;

/// A gateway with room for little, and nothing kept in front of its store.
fn start(body: usize) -> (Upstream, Gateway) {
    let upstream = Upstream::replying(response("200 OK", &"x".repeat(body)));
    let store = "[store]\nmemory_limit_keys = 1000\nmemory_cache_bytes = \"4MiB\"\n\
                 memory_epochs = 100\nnear_cache_bytes = \"0B\"\n";
    let gateway = Gateway::start(&(store.to_owned() + AUTH + &upstream.table("shop") + CONFIG));
    (upstream, gateway)
}

fn limited(gateway: &Gateway, user: &str) -> u16 {
    Client::get(gateway.public, "/limited").header("X-User", user).send().status
}

/// Reads a path, and says whether it came from the cache and is there the next time.
fn is_hit(gateway: &Gateway, path: &str) -> bool {
    let reply = Client::get(gateway.public, path).send();
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.header("cache-status").is_some_and(|status| status.contains("hit"))
}

fn operate(gateway: &Gateway, method: &str, path: &str, body: &str) {
    let request = Client::request(gateway.admin, method, path);
    let request = request.header("Host", gateway.admin.to_string());
    let reply = request.header("Content-Type", "application/json").body(body).send();
    assert!(reply.status < 300, "{path}: {reply:?}");
}

fn evicted(gateway: &Gateway, kind: &str) -> f64 {
    let text = Client::get(gateway.admin, "/metrics").send().text();
    let name = format!("portcullis_store_evicted_total{{kind=\"{kind}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name));
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}

#[test]
fn a_flood_of_made_up_keys_refuses_no_new_client() {
    let (_upstream, gateway) = start(2);
    for _ in 0..3 {
        assert_eq!(limited(&gateway, "guilty"), 200);
    }
    assert_eq!(limited(&gateway, "guilty"), 429);
    for number in 0..1500 {
        assert_eq!(limited(&gateway, &format!("made-up-{number}")), 200, "{number}");
    }
    assert_eq!(limited(&gateway, "new"), 200);
    assert_eq!(limited(&gateway, "guilty"), 429, "who is over a limit is not freed by a flood");
    assert!(evicted(&gateway, "limits") >= 500.0);
    let said = gateway.stderr().matches("store.memory_limit_keys").count();
    assert_eq!(said, 1, "{}", gateway.stderr());
}

#[test]
fn responses_beyond_the_budget_are_stored_and_hit_after_a_purge_too() {
    let (_upstream, gateway) = start(700 * 1024);
    let fill = |round: usize| {
        for number in 0..8 {
            let path = format!("/cached/{round}/{number}");
            eventually("what was said to be stored is hit", || is_hit(&gateway, &path));
        }
    };
    fill(0);
    assert!(evicted(&gateway, "cache") > 0.0);
    operate(&gateway, "POST", "/v1/cache/purge", r#"{"all": true}"#);
    assert!(!is_hit(&gateway, "/cached/0/7"), "it was purged");
    fill(1);
}

#[test]
fn a_session_and_a_revocation_outlast_every_flood() {
    let (_upstream, gateway) = start(1024);
    operate(&gateway, "PUT", "/v1/sessions/s1?ttl=1h", r#"{"name": "ada"}"#);
    let earlier = |sub: &str| {
        let mut claims = claims(sub);
        claims["iat"] = (claims["iat"].as_u64().expect("a time") - 60).into();
        token(claims)
    };
    let (theirs, gone) = (earlier("42"), earlier("gone"));
    operate(&gateway, "POST", "/v1/revocations", r#"{"sub": "gone"}"#);
    for number in 0..1200 {
        limited(&gateway, &format!("made-up-{number}"));
        // Each write makes its path stale, and so needs an epoch.
        Client::request(gateway.public, "POST", &format!("/cached/{number}")).send();
    }
    assert!(evicted(&gateway, "limits") > 0.0 && evicted(&gateway, "epochs") > 0.0);
    let auth = |token: &str| {
        let request = Client::get(gateway.public, "/auth").header("Cookie", "sid=s1");
        request.bearer(token).send().status
    };
    assert_eq!((auth(&theirs), auth(&gone)), (200, 401));
    assert!(!is_hit(&gateway, "/cached/a"));
    eventually("the cache works on", || is_hit(&gateway, "/cached/a"));
}
