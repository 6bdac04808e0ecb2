//! How a session begins: the cookie, what the store knows, and that nobody is logged in by a cookie
//! that somebody else has seen.

use serde_json::json;

use super::{Browser, COOKIE, House, config, cookie, in_memory, log_in};
use crate::auth::code;
use crate::support::{Client, Gateway, eventually, operate};

#[test]
fn an_answer_that_says_who_it_is_begins_a_session() {
    let house = House::start();
    let answer = json!({ "user": { "id": "42", "role": "admin", "secret": "s" }, "x": [1.50] });
    let reply = log_in(&house.gateway, &answer).send();
    assert_eq!(reply.text(), answer.to_string(), "the upstream's body, as it is");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let browser = Browser::of(&reply);
    let lines = reply.headers_named("set-cookie");
    let attributes = "; Path=/; Secure; HttpOnly; SameSite=Lax";
    let expected = format!("{COOKIE}={}{attributes}", browser.value);
    assert_eq!(lines, ["theme=dark", &expected], "a cookie of the upstream's own stays");
    assert_eq!(browser.value.len(), 43);

    let stored = house.stored(&browser);
    let created = stored["created_at"].as_u64().expect("a time");
    let expected =
        json!({ "sub": "42", "role": "admin", "created_at": created, "renewed_at": created });
    assert_eq!(stored, expected);
    let ttl: u64 = house.redis.cli(&["TTL", &house.key(&browser)]).parse().expect("a number");
    assert!((1790..=1800).contains(&ttl), "{ttl}");
    assert_eq!(house.redis.cli(&["ZRANGE", "app:sessions-of:42", "0", "-1"]), browser.id());
    let all = house.redis.cli(&["KEYS", "*"]);
    assert!(!all.contains(&browser.value), "{all}");
    assert_eq!(house.count("logged_in"), 1.0);

    house.upstream.forget();
    let reply = browser
        .ask(&house.gateway, "GET", "/me")
        .header("X-Web-User", "1")
        .header("Cookie", "a=1")
        .send();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let seen = house.upstream.only();
    assert_eq!(seen.headers_named("x-web-user"), ["42"]);
    assert_eq!(seen.header("x-web-role"), Some("admin"));
    assert_eq!(seen.headers_named("cookie"), ["a=1"], "the session's own goes nowhere");
}

#[test]
fn the_cookie_goes_to_no_upstream_on_any_route() {
    let house = House::start();
    let browser = house.login("42", "user");
    for path in ["/open", "/maybe", "/attached", "/both"] {
        house.upstream.forget();
        let both = format!("x=1; {}; y=2", browser.cookie());
        let reply = Client::get(house.gateway.public, path).header("Cookie", both).send();
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(house.upstream.only().headers_named("cookie"), ["x=1; y=2"], "{path}");
    }
    // Of the log-in, and of each path.
    eventually("all lines are written", || house.gateway.access_lines().len() == 5);
    let lines = house.gateway.access_lines();
    let text = format!("{lines:?}{}", house.gateway.stderr());
    assert!(!text.contains(&browser.value));
}

#[test]
fn nobody_is_logged_in_by_a_cookie_of_before() {
    let house = House::start();
    let answer = json!({ "user": { "id": "42" } });
    // One that somebody has made up, for a victim who logs in with it.
    let planted = Browser { value: "A".repeat(43) };
    let reply = log_in(&house.gateway, &answer).header("Cookie", planted.cookie()).send();
    let first = Browser::of(&reply);
    assert_ne!(first, planted);
    assert_eq!(house.refused("/me", &planted), (401, "session_missing".to_owned()));

    // One that is somebody's session: its log-in again, or another one's, ends it.
    for sub in ["42", "7"] {
        let before = house.login("42", "user");
        assert_eq!(house.get("/me", &before).status, 200);
        let answer = json!({ "user": { "id": sub } });
        let reply = log_in(&house.gateway, &answer).header("Cookie", before.cookie()).send();
        let after = Browser::of(&reply);
        assert_ne!(after, before);
        assert_eq!(house.refused("/me", &before), (401, "session_missing".to_owned()));
        assert_eq!(house.get("/me", &after).status, 200);
        assert_eq!(house.redis.cli(&["EXISTS", &house.key(&before)]), "0");
    }
    assert_eq!(house.get("/me", &first).status, 200, "other browsers stay logged in");
}

#[test]
fn a_log_in_that_fails_leaves_the_session_of_before() {
    let house = House::start();
    let before = house.login("42", "user");
    let reply = before
        .ask(&house.gateway, "POST", "/login")
        .header("Sec-Fetch-Site", "same-origin")
        .body("{}")
        .send();
    assert_eq!((reply.status, &*code(&reply)), (502, "login_answer_invalid"));
    assert_eq!(cookie(&reply), None);
    assert_eq!(house.get("/me", &before).status, 200);
}

#[test]
fn two_cookies_that_differ_are_no_session() {
    let house = House::start();
    let (own, tossed) = (house.login("42", "user"), house.login("7", "user"));
    let ask = |path: &str, lines: &[&str]| {
        let request = Client::get(house.gateway.public, path);
        lines.iter().fold(request, |request, line| request.header("Cookie", line)).send()
    };
    let (mine, other) = (own.cookie(), tossed.cookie());
    for lines in [vec![&*mine, &*other], vec![&*other, &*mine], vec![&*mine, "__Host-session=x"]] {
        let reply = ask("/me", &lines);
        assert_eq!((reply.status, &*code(&reply)), (401, "session_missing"), "{lines:?}");
        assert_eq!(ask("/maybe", &lines).status, 200);
        assert_eq!(ask("/attached", &lines).status, 200);
    }
    assert_eq!(ask("/me", &[&mine, &mine]).status, 200);
    // A log-in ends what was shown, both of it.
    let answer = json!({ "user": { "id": "42" } });
    let reply = log_in(&house.gateway, &answer).header("Cookie", format!("{mine}; {other}")).send();
    let after = Browser::of(&reply);
    assert_eq!(house.refused("/me", &own).0, 401);
    assert_eq!(house.refused("/me", &tossed).0, 401);
    assert_eq!(house.get("/me", &after).status, 200);
}

#[test]
fn names_of_other_hosts_cookies_are_refused_unless_it_is_in_clear() {
    for (make, problem) in [
        ("cookie = \"sid\"", Some("could be set by any other host")),
        ("cookie = \"__Secure-sid\"", Some("could be set by any other host")),
        ("cookie = \"__Host-sid\"", None),
        ("allow_http = true, cookie = \"__Host-sid\"", Some("is kept by browsers over TLS alone")),
        ("allow_http = true", None),
        ("allow_http = true, cookie = \"sid\"", None),
    ] {
        let upstream = super::shop();
        let session = format!("make = {{ {make} }}\n");
        let config = in_memory(&upstream, &session, "");
        match problem {
            Some(problem) => {
                let refused = Gateway::try_start(&config);
                assert!(refused.stderr.contains(problem), "{make}: {}", refused.stderr);
            }
            None => drop(Gateway::start(&config)),
        }
    }
}

#[test]
fn in_clear_the_cookie_has_another_name_and_may_last() {
    let house = House::with(
        "make = { allow_http = true, same_site = \"strict\", persistent = true }\n\
         absolute_timeout = \"2h\"\n",
        "",
    );
    let reply = log_in(&house.gateway, &json!({ "user": { "id": "42" } })).send();
    let lines = reply.headers_named("set-cookie");
    let line = lines.iter().find(|line| line.starts_with("session=")).expect("a cookie");
    let expected = "; Path=/; HttpOnly; SameSite=Strict; Max-Age=7200";
    assert!(line.ends_with(expected) && !line.contains("Secure"), "{line}");
    let pair = line.split(';').next().expect("a pair");
    let reply = Client::get(house.gateway.public, "/me").header("Cookie", pair).send();
    assert_eq!(reply.status, 200);
}

#[test]
fn an_upstream_cannot_set_the_cookie() {
    use crate::support::{Upstream, response};
    let head = "200 OK\r\nContent-Type: application/json\r\nSet-Cookie: a=1\r\n\
                Set-Cookie: __Host-session=evil; Path=/; Secure\r\nSet-Cookie:  __Host-session=";
    let upstream = Upstream::replying(response(head, r#"{"user":{"id":"42"}}"#));
    let redis = crate::support::Redis::start();
    let gateway = Gateway::start(&config(&redis.url(), &upstream, "", ""));
    let reply = Client::get(gateway.public, "/open").send();
    assert_eq!(reply.headers_named("set-cookie"), ["a=1"]);
    let reply = log_in(&gateway, &json!({})).send();
    let browser = Browser::of(&reply);
    assert_eq!(reply.headers_named("set-cookie").len(), 2);
    assert_eq!(browser.ask(&gateway, "GET", "/me").send().status, 200);
}

#[test]
fn a_key_makes_no_log_in_the_same_as_another() {
    let house = House::start();
    let answer = json!({ "user": { "id": "42" } });
    let ask = || log_in(&house.gateway, &answer).header("Idempotency-Key", "\"k1\"").send();
    let (one, other) = (Browser::of(&ask()), Browser::of(&ask()));
    assert_ne!(one, other);
    assert!(!house.redis.cli(&["KEYS", "*"]).contains("idempotency"));
    // Nor can a route say so.
    let more = "[routes.twice]\npath = \"/twice\"\nupstream = \"shop\"\nidempotency = {}\n\
                cache = { ttl = \"1h\" }\nissues = { session = true, sub = \"/id\" }\n";
    let config = config(&house.redis.url(), &house.upstream, "", more);
    let refused = Gateway::try_start(&config);
    for key in ["routes.twice.idempotency", "routes.twice.cache"] {
        assert!(refused.stderr.contains(key), "{}", refused.stderr);
    }
}

#[test]
fn a_user_has_no_more_sessions_than_allowed() {
    let house = House::with("max_per_user = 2\n", "");
    let all: Vec<Browser> = (0..4).map(|_| house.login("42", "user")).collect();
    let statuses: Vec<u16> = all.iter().map(|it| house.get("/me", it).status).collect();
    assert_eq!(statuses, [401, 401, 200, 200]);
    let listed = operate(&house.gateway, "GET", "/v1/users/42/sessions", "").json();
    let ids: Vec<&str> = listed["sessions"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|it| it["id"].as_str())
        .collect();
    assert_eq!(ids.len(), 2, "{listed}");
    assert!(ids.contains(&&*all[3].id()), "{listed}");
}

#[test]
fn two_gateways_have_the_same_sessions() {
    let house = House::start();
    let other = Gateway::start(&config(&house.redis.url(), &house.upstream, "", ""));
    let browser = house.login("42", "user");
    assert_eq!(browser.ask(&other, "GET", "/me").send().status, 200);
    let reply =
        browser.ask(&other, "POST", "/logout").header("Sec-Fetch-Site", "same-origin").send();
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(house.refused("/me", &browser), (401, "session_missing".to_owned()));
}
