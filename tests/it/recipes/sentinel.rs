//! docs/recipes/sentinel.md: two gateways with one file, a fail-over, and an outage.

use serde_json::{Value, json};

use crate::recipes::{answers, configuration, issuer, outcome, token};
use crate::support::{
    Client, Gateway, Issuer, RedisSentinels, Reply, Signer, Upstream, WATCHED, eventually, operate,
    response,
};

fn get(gateway: &Gateway, token: &str) -> Reply {
    Client::get(gateway.public, "/").bearer(token).send()
}

/// Two gateways with the page's file, once they know Redis and follow its revocations.
fn gateways(redis: &RedisSentinels, issuer: &Issuer, app: &Upstream) -> [Gateway; 2] {
    let store = "url = \"redis-sentinel://10.0.0.1:26379,10.0.0.2:26379,10.0.0.3:26379/main\"";
    assert_eq!(WATCHED, "main", "the page's name");
    // Deadlines are not the matter here, and the machine may be busy.
    let ours = format!("url = \"{}\"\ntimeout = \"5s\"\nconnect_timeout = \"5s\"", redis.url());
    let own = [
        (store, &*ours),
        ("https://login.shop.example", &issuer.origin()),
        ("\"http://10.0.1.1:3000\", \"http://10.0.1.2:3000\"", &format!("\"{}\"", app.url())),
        ("100/15m", "3/15m"),
    ];
    let text = configuration("sentinel.md", &own);
    let gateways = [Gateway::start(&text), Gateway::start(&text)];
    for gateway in &gateways {
        eventually("Redis is known", || {
            let status = status(gateway);
            status["store"]["connected"] == true && status["revocations"]["connected"] == true
        });
    }
    gateways
}

fn status(gateway: &Gateway) -> Value {
    let host = gateway.admin.to_string();
    Client::get(gateway.admin, "/v1/status").header("Host", host).send().json()
}

fn revoke(gateway: &Gateway, sub: &str) -> u16 {
    operate(gateway, "POST", "/v1/revocations", &json!({ "sub": sub }).to_string()).status
}

#[test]
fn gateways_share_what_they_know_and_follow_a_fail_over() {
    let (redis, key) = (RedisSentinels::start(), Signer::new("a"));
    let (issuer, app) = (issuer(&key), Upstream::replying(response("200 OK", "ok")));
    let gateways = gateways(&redis, &issuer, &app);
    let token = |sub: &str| token(&key, &issuer.origin(), "shop", sub, json!({}));
    let (ada, bob, eve) = (token("ada"), token("bob"), token("eve"));
    // One counter for both.
    for (at, status) in [(0, 200), (1, 200), (0, 200), (1, 429), (0, 429)] {
        assert_eq!(get(&gateways[at], &ada).status, status);
    }
    assert_eq!(get(&gateways[1], &bob).status, 200);
    assert_eq!(revoke(&gateways[0], "bob"), 201);
    assert_eq!(get(&gateways[1], &bob).status, 401);

    let former = redis.primary().expect("all sentinels name one");
    assert_eq!(redis.sentinels[0].cli(&["SENTINEL", "FAILOVER", "main"]), "OK");
    redis.successor(former);
    for gateway in &gateways {
        answers(200, || get(gateway, &token("new")));
        assert_eq!(get(gateway, &bob).status, 401, "what was revoked stays so");
    }
    assert_eq!(get(&gateways[0], &eve).status, 200);
    eventually("the new primary takes revocations", || revoke(&gateways[1], "eve") == 201);
    answers(401, || get(&gateways[0], &eve));
}

/// With no Redis at all, what was told before is refused, and the rest passes.
#[test]
fn what_was_revoked_stays_so_while_redis_is_away() {
    let (mut redis, key) = (RedisSentinels::start_small(), Signer::new("a"));
    let (issuer, app) = (issuer(&key), Upstream::replying(response("200 OK", "ok")));
    let gateways = gateways(&redis, &issuer, &app);
    let token = |sub: &str| token(&key, &issuer.origin(), "shop", sub, json!({}));
    let (ada, bob) = (token("ada"), token("bob"));
    assert_eq!(revoke(&gateways[0], "bob"), 201);
    eventually("both were told", || {
        gateways.iter().all(|gateway| status(gateway)["revocations"]["known"] == 1)
    });
    redis.servers[0].kill();
    for gateway in &gateways {
        eventually("it is away", || status(gateway)["store"]["connected"] == false);
        let refused = get(gateway, &bob);
        assert_eq!(outcome(&refused), (401, "token_revoked".to_owned()), "{}", refused.text());
        assert_eq!(get(gateway, &ada).status, 200);
    }
}
