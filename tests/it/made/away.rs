//! Redis away at each step: nobody is logged in by half, and nobody is who he may no longer be.

use serde_json::json;

use super::{Browser, House, config, cookie, log_in, shop};
use crate::auth::code;
use crate::support::{Gateway, Redis, TcpProxy, eventually};

/// A gateway whose Redis can be taken away.
fn house(more: &str) -> (House, TcpProxy) {
    let (redis, upstream) = (Redis::start(), shop());
    let proxy = TcpProxy::start(redis.address());
    let text = config(&proxy.url(), &upstream, "", "");
    let text = text.replace("timeout = \"5s\"\nconnect", "timeout = \"300ms\"\nconnect");
    let gateway = Gateway::start(&text.replace("[auth.web]", &format!("{more}[auth.web]")));
    (House { redis, upstream, gateway }, proxy)
}

fn is_away(house: &House, browser: &Browser) -> (u16, String) {
    let reply = house.get("/me", browser);
    (reply.status, code(&reply))
}

#[test]
fn without_redis_nobody_is_logged_in() {
    let (house, proxy) = house("");
    let answer = json!({ "user": { "id": "42" } });
    for step in 0..8 {
        proxy.pass();
        eventually("it serves", || log_in(&house.gateway, &answer).send().status == 200);
        proxy.swallow_after(step);
        let reply = log_in(&house.gateway, &answer).send();
        // Behind the last step, all was done.
        if reply.status != 200 {
            assert_eq!((reply.status, &*code(&reply)), (503, "login_away"), "{step}");
            assert_eq!(cookie(&reply), None, "{step}");
        }
        proxy.hang_up();
    }
    proxy.refuse();
    let reply = log_in(&house.gateway, &answer).send();
    assert_eq!((reply.status, &*code(&reply)), (503, "login_away"));
    assert!(house.count("away") >= 1.0);
}

#[test]
fn without_redis_a_session_is_unknown_and_stays() {
    let (house, proxy) = house("");
    let (known, new) = (house.login("42", "user"), house.login("7", "user"));
    assert_eq!(house.get("/me", &known).status, 200);
    proxy.refuse();
    proxy.hang_up();
    let unknown = |(status, code): (u16, String)| {
        assert_eq!(status, 503);
        assert!(matches!(&*code, "session_unknown" | "revocation_unknown"), "{code}");
    };
    unknown(is_away(&house, &known));
    unknown(is_away(&house, &new));
    let reply = house.get("/maybe", &new);
    assert_eq!((reply.status, &*code(&reply)), (503, "session_unknown"));
    let reply =
        known.ask(&house.gateway, "POST", "/logout").header("Sec-Fetch-Site", "none").send();
    assert_eq!((reply.status, &*code(&reply)), (503, "login_away"));
    assert_eq!(reply.headers_named("set-cookie").len(), 0, "it is not over");
    let reply = house.get("/session", &known);
    assert_eq!(reply.status, 503);
    proxy.pass();
    eventually("it serves again", || house.get("/me", &known).status == 200);
    assert_eq!(house.get("/me", &new).status, 200);
}

#[test]
fn what_an_outage_means_to_sessions_lets_no_caller_in() {
    let (house, proxy) =
        house("[store.on_outage]\nsession = \"without\"\nrevocation = \"allow\"\n");
    let (known, new) = (house.login("42", "user"), house.login("7", "user"));
    assert_eq!(house.get("/me", &known).status, 200);
    proxy.refuse();
    proxy.hang_up();
    for browser in [&known, &new] {
        assert_eq!(is_away(&house, browser), (503, "session_unknown".to_owned()));
    }
}

#[test]
fn a_session_of_late_goes_on_where_the_file_says_so() {
    let outage = "[store.on_outage]\nsession_max_stale = \"10m\"\nrevocation = \"allow\"\n";
    let (house, proxy) = house(outage);
    let (known, new) = (house.login("42", "user"), house.login("7", "user"));
    assert_eq!(house.get("/me", &known).status, 200);
    proxy.refuse();
    proxy.hang_up();
    assert_eq!(house.get("/me", &known).status, 200);
    assert_eq!(is_away(&house, &new), (503, "session_unknown".to_owned()));
}
