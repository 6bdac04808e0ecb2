//! How a session ends: unused, by age, by its own browser, everywhere at once.

use serde_json::json;

use super::{Browser, COOKIE, House, cookie, log_in};
use crate::auth::code;
use crate::support::websocket::{TEXT, WebSocket, echo, upstream};
use crate::support::{Client, Folder, Gateway, Redis, Reply, eventually, operate, run};

fn log_out(house: &House, browser: &Browser) -> Reply {
    let request = browser.ask(&house.gateway, "POST", "/logout");
    request.header("Sec-Fetch-Site", "same-origin").send()
}

/// What clears the cookie.
fn clearing() -> String {
    format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
}

#[test]
fn one_that_nobody_uses_is_idle() {
    let house = House::start();
    let (used, unused) = (house.login("42", "user"), house.login("42", "user"));
    // As if half an hour had passed for one, and nearly that for the other.
    house.redis.cli(&["PEXPIRE", &house.key(&used), "60000"]);
    assert_eq!(house.get("/me", &used).status, 200);
    let ttl = || house.redis.cli(&["TTL", &house.key(&used)]).parse::<i64>().expect("a number");
    eventually("use prolongs it", || ttl() > 1700);
    house.redis.cli(&["PEXPIRE", &house.key(&unused), "1"]);
    eventually("it is gone", || house.redis.cli(&["EXISTS", &house.key(&unused)]) == "0");
    let end = format!("app:session-end:{{app:session:{}}}", unused.id());
    let now = house.redis.cli(&["TIME"]);
    let now: u64 = now.lines().next().and_then(|it| it.parse().ok()).expect("a time");
    house.redis.cli(&["HSET", &end, "ends", &format!("idle {}", now * 1000 - 1)]);
    assert_eq!(house.refused("/me", &unused), (401, "session_idle".to_owned()));
    assert_eq!(house.get("/me", &used).status, 200);
}

#[test]
fn one_that_is_too_old_is_expired_however_much_it_is_used() {
    let house = House::start();
    let browser = house.login("42", "user");
    assert_eq!(house.get("/me", &browser).status, 200);
    let mut session = house.stored(&browser);
    let created = session["created_at"].as_u64().expect("a time");
    let write = |session: &serde_json::Value| {
        house.redis.cli(&["SET", &house.key(&browser), &session.to_string(), "EX", "1800"]);
    };
    session["created_at"] = (created - 12 * 3600 + 60).into();
    write(&session);
    assert_eq!(house.get("/me", &browser).status, 200);
    session["created_at"] = (created - 12 * 3600).into();
    write(&session);
    assert_eq!(house.refused("/me", &browser), (401, "session_expired".to_owned()));
    assert_eq!(house.get("/maybe", &browser).status, 200, "nobody, where none is needed");
}

#[test]
fn its_own_browser_ends_it() {
    let house = House::start();
    let (browser, other) = (house.login("42", "user"), house.login("42", "user"));
    assert_eq!(house.get("/me", &browser).status, 200);
    let reply = log_out(&house, &browser);
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(reply.headers_named("set-cookie"), [clearing()]);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("clear-site-data"), None);
    assert_eq!(house.refused("/me", &browser), (401, "session_missing".to_owned()));
    assert_eq!(house.redis.cli(&["EXISTS", &house.key(&browser)]), "0");
    assert_eq!(house.redis.cli(&["ZCARD", "app:sessions-of:42"]), "1");
    assert_eq!(house.get("/me", &other).status, 200);
    assert_eq!(house.count("logged_out"), 1.0);
    // Once more, and without any, it is the same.
    assert_eq!(log_out(&house, &browser).status, 204);
    let reply = Client::request(house.gateway.public, "POST", "/logout").send();
    assert_eq!((reply.status, reply.headers_named("set-cookie").len()), (204, 1));
    assert_eq!(house.count("logged_out"), 1.0);
}

#[test]
fn a_log_out_may_lead_elsewhere_on_the_same_site() {
    let house = House::start();
    let browser = house.login("42", "user");
    let ask = |method: &str, site: Option<&str>| {
        let request = browser.ask(&house.gateway, method, "/goodbye");
        match site {
            Some(site) => request.header("Sec-Fetch-Site", site).send(),
            None => request.send(),
        }
    };
    for site in [Some("cross-site"), Some("same-site"), None] {
        let reply = ask("GET", site);
        assert_eq!((reply.status, &*code(&reply)), (403, "cross_site_request"), "{site:?}");
        assert_eq!(reply.headers_named("set-cookie").len(), 0);
    }
    assert_eq!(house.get("/me", &browser).status, 200);
    let reply = ask("GET", Some("same-origin"));
    assert_eq!((reply.status, reply.header("location")), (303, Some("/bye?now=1")));
    assert_eq!(reply.header("clear-site-data"), Some("\"cookies\""));
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(reply.headers_named("set-cookie"), [clearing()]);
    assert_eq!(house.refused("/me", &browser).0, 401);
    for then in ["//evil.test", "https://evil.test/", "/\\\\evil.test", "/a b", "evil", "", "/\\tx"]
    {
        let more = format!("[routes.x]\npath = \"/x\"\nanswers = \"logout\"\nthen = \"{then}\"\n");
        let config = super::in_memory(&house.upstream, "", &more);
        let refused = Gateway::try_start(&config);
        assert!(refused.stderr.contains("routes.x.then"), "{then}: {}", refused.stderr);
    }
}

#[test]
fn a_log_out_everywhere_ends_all_of_a_user() {
    let house = House::start();
    let all: Vec<Browser> = (0..3).map(|_| house.login("42", "user")).collect();
    let other = house.login("7", "user");
    for browser in &all {
        assert_eq!(house.get("/me", browser).status, 200);
    }
    let answer = operate(&house.gateway, "DELETE", "/v1/users/42/sessions", "").json();
    assert_eq!(answer["ended"], 3, "{answer}");
    for browser in &all {
        assert_eq!(house.refused("/me", browser).0, 401);
    }
    assert_eq!(house.get("/me", &other).status, 200);
    // A log-in within the second of that waits for the next one, so it is good.
    let again = house.login("42", "user");
    assert_eq!(house.get("/me", &again).status, 200);
}

#[test]
fn a_revoked_sub_and_a_revoked_sid_are_refused_while_the_session_is_there() {
    let house = House::start();
    let by_sub = house.login("42", "user");
    let answer = json!({ "user": { "id": "7" }, "sid": "of-seven" });
    let by_sid = Browser::of(&log_in(&house.gateway, &answer).send());
    let by_id = house.login("8", "user");
    for browser in [&by_sub, &by_sid, &by_id] {
        assert_eq!(house.get("/me", browser).status, 200);
    }
    // As one who has only the keys writes them.
    let created = house.stored(&by_sub)["created_at"].as_u64().expect("a time");
    house.redis.cli(&["SET", "app:auth:not-before:42", &(created + 1).to_string()]);
    let revoke = |sid: &str| {
        let body = json!({ "sid": sid }).to_string();
        assert!(operate(&house.gateway, "POST", "/v1/revocations", &body).status < 300);
    };
    revoke("of-seven");
    revoke(&by_id.id());
    for browser in [&by_sub, &by_sid, &by_id] {
        assert_eq!(house.redis.cli(&["EXISTS", &house.key(browser)]), "1");
        let reply = house.get("/me", browser);
        assert_eq!((reply.status, &*code(&reply)), (401, "session_revoked"));
    }
}

#[test]
fn a_log_out_ends_the_refresh_tokens_of_its_sid() {
    let folder = Folder::new();
    assert_eq!(run(&folder, &["signing-key", "a.pem"]).code, Some(0));
    let (redis, upstream) = (Redis::start(), super::shop());
    let more = "[signers.main]\nissuer = \"https://gw.test\"\nkeys = [\"file:a.pem\"]\n\
                tokens = { audience = [\"shop\"] }\n\
                [routes.token]\npath = \"/token\"\nanswers = \"refresh\"\n";
    let gateway = Gateway::start_in(folder, &super::config(&redis.url(), &upstream, "", more));
    let begun = operate(&gateway, "POST", "/v1/families", r#"{"sub":"42"}"#).json();
    let refresh = begun["refresh_token"].as_str().expect("a token").to_owned();
    let answer = json!({ "user": { "id": "42" }, "sid": begun["sid"] });
    let browser = Browser::of(&log_in(&gateway, &answer).send());
    let house = House { redis, upstream, gateway };
    assert_eq!(log_out(&house, &browser).status, 204);
    let body = format!("grant_type=refresh_token&refresh_token={refresh}");
    let reply = Client::request(house.gateway.public, "POST", "/token")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(body)
        .send();
    assert_eq!(reply.status, 400, "{}", reply.text());
}

#[test]
fn a_page_is_told_of_its_session() {
    let house = House::start();
    let browser = house.login("42", "user");
    let reply = house.get("/session", &browser);
    let created = house.stored(&browser)["created_at"].as_u64().expect("a time");
    let told = reply.json();
    let csrf = told["csrf_token"].as_str().expect("a token");
    let expected = json!({
        "sub": "42", "created_at": created, "ends_at": created + 12 * 3600,
        "csrf_token": csrf, "fields": { "role": "user" },
    });
    assert_eq!(told, expected);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(csrf.len() == 43 && csrf != browser.value && csrf != browser.id());
    assert_eq!(cookie(&reply), None);
    let reply = Client::get(house.gateway.public, "/session").send();
    assert_eq!((reply.status, &*code(&reply)), (401, "session_missing"));
    assert_eq!(log_out(&house, &browser).status, 204);
    assert_eq!(house.refused("/session", &browser), (401, "session_missing".to_owned()));
    let reply = browser.ask(&house.gateway, "POST", "/session").send();
    assert_eq!(reply.status, 405);
}

#[test]
fn a_web_socket_ends_with_its_session() {
    let (live, _) = upstream(echo);
    let more = format!(
        "{}[routes.live]\npath = \"/live\"\nupstream = \"live\"\nauth = \"web\"\n\
         upgrade = [\"websocket\"]\n",
        live.table("live")
    );
    let house = House::with("", &more);
    let browser = house.login("42", "user");
    let fields = format!("Cookie: {}\r\nSec-Fetch-Site: same-origin\r\n", browser.cookie());
    let mut socket = WebSocket::open(house.gateway.public, "/live", &fields);
    socket.send(TEXT, "hello");
    assert_eq!(socket.next().payload, b"hello");
    assert_eq!(log_out(&house, &browser).status, 204);
    socket.closed();
}
