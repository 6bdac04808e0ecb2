//! The gateways that share a store, and which of them still runs an older file.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Gateway, Redis, Upstream, eventually_within, operate, response};

/// Longest time until one is heard.
const PATIENCE: Duration = Duration::from_secs(60);

const ROUTE: &str = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n";

fn fleet(gateway: &Gateway) -> Vec<Value> {
    let told = operate(gateway, "GET", "/v1/overview", "").json();
    told["fleet"].as_array().expect("a list").clone()
}

/// The state of the configuration of the one other gateway, once it is this.
fn other_is(gateway: &Gateway, state: &str) {
    let is_so = || {
        let all = fleet(gateway);
        all.len() == 2 && all[1]["config"] == state
    };
    // Each tells of itself every five seconds.
    eventually_within(PATIENCE, "the other one is heard", is_so);
}

#[test]
fn a_gateway_that_runs_an_older_file_is_told_of() {
    let redis = Redis::start();
    let upstream = Upstream::replying(response("200 OK", "hello"));
    let text = format!("[store]\nurl = \"{}\"\n{ROUTE}{}", redis.url(), upstream.table("shop"));
    let one = Gateway::start(&text);
    let own = fleet(&one);
    assert_eq!((own.len(), &own[0]["config"]), (1, &json!("same")), "{own:?}");
    assert_eq!(own[0]["version"], env!("CARGO_PKG_VERSION"));
    assert!(own[0]["seen"].as_str().is_some_and(|at| at.ends_with('Z')), "{own:?}");
    let two = Gateway::start(&text);
    other_is(&two, "same");
    other_is(&one, "same");
    assert_ne!(fleet(&one)[0]["node"], fleet(&one)[1]["node"]);
    one.rewrite(&format!("{text}response_timeout = \"7s\"\n"));
    assert_eq!(operate(&one, "POST", "/v1/config/reload", "{}").status, 200);
    other_is(&one, "older");
    other_is(&two, "other");
    let alone = Gateway::start(&format!("{ROUTE}{}", upstream.table("shop")));
    assert_eq!(fleet(&alone).len(), 1, "a store of its own has no others");
}
