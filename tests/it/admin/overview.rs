//! Is it well, and which request went wrong: `GET /v1/overview` and `GET /v1/requests`.

use serde_json::{Value, json};

use super::{problem, start};
use crate::support::{
    AUTH, Client, Gateway, Redis, Session, Upstream, claims, eventually, operate, response, token,
};

const READER: &str = "reader-0123456789";
const TOKENS: &str =
    "[admin]\ntoken = \"operator-0123456789\"\nread_token = \"reader-0123456789\"\n";

fn overview(gateway: &Gateway) -> Value {
    operate(gateway, "GET", "/v1/overview", "").json()
}

fn found(gateway: &Gateway) -> Vec<String> {
    let all = overview(gateway)["findings"].as_array().expect("a list").clone();
    all.iter().map(|it| it["id"].as_str().expect("an id").to_owned()).collect()
}

fn requests(gateway: &Gateway, query: &str) -> Vec<Value> {
    let answer = operate(gateway, "GET", &format!("/v1/requests{query}"), "").json();
    assert_eq!((&answer["bound"], &answer["sampled"]), (&json!(1000), &json!(true)));
    answer["requests"].as_array().expect("a list").clone()
}

#[test]
fn a_gateway_that_is_well_says_what_it_is() {
    let (_upstream, gateway) = start("");
    let told = overview(&gateway);
    assert_eq!(told["findings"], json!([]), "{told}");
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert!(told["node"].is_string() && told["up_s"].is_u64(), "{told}");
    assert_eq!(told["bounds"]["connections"], json!([0, 10_000]));
    assert_eq!(told["bounds"]["in_flight"], json!([0, null]));
    let config = &told["config"];
    assert_eq!(config["sha256"].as_str().map(str::len), Some(64), "{config}");
    assert_eq!(config["file_differs"], false);
    assert!(config["loaded_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{config}");
    for member in ["rps", "error_ratio", "p50_s", "p99_s", "hit_ratio", "refused_ps"] {
        assert!(told["now"].get(member).is_some(), "{member} in {told}");
    }
}

#[test]
fn a_file_that_is_not_in_force_is_told_of() {
    let redis = Redis::start();
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let text = format!(
        "[store]\nurl = \"{}\"\n{AUTH}{}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        redis.url(),
        upstream.table("shop")
    );
    let gateway = Gateway::start(&text);
    eventually("all is well", || found(&gateway).is_empty());
    gateway.rewrite(&format!("{text}\n"));
    eventually("the file is another one", || found(&gateway) == ["config_differs"]);
    gateway.rewrite("[odd]\n");
    let refused = operate(&gateway, "POST", "/v1/config/reload", "{}");
    assert!(refused.status >= 400, "{}", refused.text());
    eventually("it was refused", || found(&gateway) == ["reload_refused"]);
    gateway.rewrite(&text);
    assert_eq!(operate(&gateway, "POST", "/v1/config/reload", "{}").status, 200);
    eventually("all is well again", || found(&gateway).is_empty());
}

#[test]
fn an_issuer_whose_keys_never_came_is_poor_and_says_what_to_do() {
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let gateway = Gateway::start(&format!(
        "[auth.users]\nissuer = \"https://login.test\"\naudience = [\"shop\"]\n\
         algorithms = [\"ES256\"]\njwks_url = \"http://127.0.0.1:1/keys\"\n{}\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\n",
        upstream.table("shop")
    ));
    eventually("it is found", || found(&gateway) == ["issuer_keys_missing_users"]);
    let finding = &overview(&gateway)["findings"][0];
    assert_eq!((&finding["level"], &finding["page"]), (&json!("poor"), &json!("identity")));
    let (what, remedy) = (finding["what"].to_string(), finding["do"].to_string());
    assert!(what.contains("keys of auth.users were never fetched: no connection: "), "{what}");
    assert!(!what.contains("jwks_url"), "{what}");
    assert!(remedy.contains("is the host of jwks_url right, and reachable from here?"), "{remedy}");
}

#[test]
fn a_policy_that_evicts_is_poor_and_says_what_to_do() {
    let redis = Redis::start();
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]), "OK");
    let store = format!("[store]\nurl = \"{}\"\n", redis.url());
    let (_upstream, gateway) = start(&store);
    eventually("it is found", || found(&gateway) == ["redis_evicts_main"]);
    let finding = &overview(&gateway)["findings"][0];
    assert_eq!((&finding["level"], &finding["page"]), (&json!("poor"), &json!("store")));
    assert_eq!(finding["do"], "CONFIG SET maxmemory-policy noeviction");
    let what = finding["what"].as_str().expect("text");
    assert!(what.contains("maxmemory-policy is allkeys-lru"), "{finding}");
}

#[test]
fn a_muted_finding_is_told_and_counts_nowhere() {
    let redis = Redis::start();
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]), "OK");
    let mute = "[admin]\nmute = [\"redis_evicts_main\", \"cache_poor_unheard_of\"]\n";
    let (_upstream, gateway) = start(&format!("{mute}[store]\nurl = \"{}\"\n", redis.url()));
    eventually("it is found", || found(&gateway) == ["redis_evicts_main"]);
    let finding = &overview(&gateway)["findings"][0];
    assert_eq!((&finding["level"], &finding["muted"]), (&json!("poor"), &json!(true)));
}

#[test]
fn a_cache_that_answers_little_is_told_of_by_what_is_not_stored() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: no-store\r\n\r\nhi";
    let upstream = Upstream::replying(reply);
    let gateway = Gateway::start(&super::config_of(&upstream));
    let mut client = Session::open(gateway.public);
    for _ in 0..100 {
        assert_eq!(client.get("/cached").send().status, 200);
    }
    eventually("it is found", || found(&gateway) == ["cache_poor_cached"]);
    let finding = &overview(&gateway)["findings"][0];
    assert_eq!((&finding["level"], &finding["page"]), (&json!("poor"), &json!("cache")));
    assert_eq!(finding["what"], "routes.cached: 0 % hits of 100 requests in 15 minutes.");
    let remedy = finding["do"].as_str().expect("text");
    assert!(remedy.contains("(no_store)") && remedy.contains("s-maxage"), "{finding}");
}

#[test]
fn an_upstream_without_a_server_and_a_limit_that_is_met_are_told_of() {
    let (_upstream, gateway) = start(
        "[upstreams.away]\nservers = [\"http://127.0.0.1:1\"]\n\
         health = { path = \"/healthz\", interval = \"1s\", down = 1 }\n\
         [routes.away]\npath = \"/away\"\nupstream = \"away\"\n",
    );
    for _ in 0..4 {
        Client::get(gateway.public, "/limited").send();
    }
    eventually("both are found", || found(&gateway) == ["upstream_down_away", "limit_near_api"]);
    let told = overview(&gateway);
    assert_eq!(
        told["upstreams"],
        json!({
            "away": { "servers": [0, 1] }, "shop": { "servers": [1, 1] },
        })
    );
    let [down, near] = [0, 1].map(|at| &told["findings"][at]);
    assert_eq!((&down["level"], &near["level"]), (&json!("poor"), &json!("watch")));
    assert_eq!(near["what"], "limits.api: 1 key over the limit.");
    assert!(!near.to_string().contains("127.0.0.1"), "nobody is named: {near}");
}

#[test]
fn a_refused_request_is_found_by_whose_it_was_and_says_why() {
    let (_upstream, gateway) = start("");
    for _ in 0..4 {
        Client::get(gateway.public, "/limited").send();
    }
    Client::get(gateway.public, "/open/1").send();
    Client::get(gateway.public, "/nowhere").send();
    eventually("both are kept", || requests(&gateway, "").len() == 2);
    let all = requests(&gateway, "");
    let ids: Vec<u64> = all.iter().map(|it| it["id"].as_u64().expect("a number")).collect();
    assert!(ids[0] > ids[1], "the newest first: {ids:?}");
    let refused = &requests(&gateway, "?route=limited&status=4xx&refused=true")[0];
    assert_eq!((&refused["status"], &refused["limit"]), (&json!(429), &json!("api")), "{refused}");
    assert_eq!(refused["limit_key"], "address=127.0.0.1", "{refused}");
    assert!(refused["retry_after_s"].is_u64() && refused["reason"].is_string(), "{refused}");
    assert!(refused.get("stages").is_none() && refused["stages_us"].is_object(), "{refused}");
    let older = requests(&gateway, &format!("?before={}", ids[0]));
    assert_eq!(older.len(), 1);
    assert_eq!(older[0]["id"], ids[1]);
    let reply = operate(&gateway, "GET", "/v1/requests?path=x", "");
    assert_eq!(problem(&reply), (400, "request_invalid".to_owned()));
}

#[test]
fn who_only_reads_does_not_learn_whose_a_request_was() {
    let upstream = Upstream::replying(response("500 Internal Server Error", "hello"));
    let route = "[routes.me]\npath = \"/me\"\nupstream = \"shop\"\nauth = \"users\"\n";
    let config = format!("{TOKENS}{AUTH}{}{route}", upstream.table("shop"));
    let gateway = Gateway::start(&config);
    let bearer = token(claims("zorro"));
    assert_eq!(Client::get(gateway.public, "/me").bearer(&bearer).send().status, 500);
    let get = |bearer: &str| {
        let reply = Client::get(gateway.admin, "/v1/requests?status=5xx").bearer(bearer).send();
        reply.json()["requests"].as_array().expect("a list").clone()
    };
    eventually("it is kept", || !get("operator-0123456789").is_empty());
    assert_eq!(get("operator-0123456789")[0]["subject"], "zorro");
    let masked = &get(READER)[0];
    assert!(masked["subject"].as_str().is_some_and(|it| !it.contains("zorro")), "{masked}");
}
