//! The log-in as it is meant: what the browser sees, what the session has, and what nobody sees.

use serde_json::json;

use super::{House, api, code, dump};
use crate::support::{Client, Gateway, eventually};

#[test]
fn a_browser_logs_in_at_a_provider_and_comes_back_to_its_page() {
    let house = House::open();
    let mut browser = house.browser();
    // A page that needs a session leads to the log-in, and says where from.
    let led = browser.get("/private/cart?x=1&y=a%2Fb");
    assert_eq!(led.status, 302);
    let login = led.header("location").expect("a location").to_owned();
    assert_eq!(login, "/login?return_to=%2Fprivate%2Fcart%3Fx%3D1%26y%3Da%252Fb");
    assert_eq!(led.header("cache-control"), Some("no-store"));

    let begun = browser.get(&login);
    assert_eq!(begun.status, 302);
    let location = begun.header("location").expect("a location").to_owned();
    assert!(location.starts_with(&house.provider.issuer()), "{location}");
    assert!(location.contains("code_challenge_method=S256"), "{location}");
    assert_eq!(begun.header("cache-control"), Some("no-store"));
    assert_eq!(begun.header("referrer-policy"), Some("no-referrer"));
    let set = begun.header("set-cookie").expect("a cookie");
    assert!(set.starts_with("__Host-login-"), "{set}");
    assert!(set.ends_with("; Max-Age=600; Path=/; Secure; HttpOnly; SameSite=Lax"), "{set}");

    let back = browser.come_back(&house, &location);
    let done = browser.get(&back);
    assert_eq!((done.status, done.header("location")), (303, Some("/private/cart?x=1&y=a%2Fb")));
    assert_eq!(done.header("cache-control"), Some("no-store"));
    assert_eq!(done.header("referrer-policy"), Some("no-referrer"));
    let sets = done.headers_named("set-cookie");
    let session = sets.iter().find(|it| it.starts_with("__Host-session=")).expect("a session");
    assert!(session.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"), "{session}");
    assert!(browser.shop.starting("__Host-login-").is_none(), "{sets:?}");

    // It is who the provider says, with what userinfo has told of him.
    assert_eq!(browser.get("/private/cart").status, 200);
    let seen = house.upstream.only();
    assert_eq!(
        (seen.header("x-user"), seen.header("x-email")),
        (Some("ada"), Some("ada@shop.test"))
    );
    assert_eq!(seen.header("cookie"), None, "the session stays here");
    assert_eq!(browser.get("/admin").status, 200);
    let me = api(&house.gateway, "/me", &browser.shop).json();
    assert_eq!(me["sub"], "ada");
    let fields = json!({"email": "ada@shop.test", "roles": ["admin", "user"], "provider": "id"});
    assert_eq!(me["fields"], fields);
}

#[test]
fn another_user_has_another_session_and_other_rights() {
    let house = House::open();
    house.provider.expect("bob");
    let mut browser = house.browser();
    assert_eq!(browser.log_in(&house, "/login").header("location"), Some("/"));
    assert_eq!(browser.get("/private/x").status, 200);
    let refused = browser.get("/admin");
    assert_eq!(refused.status, 403, "{}", refused.text());
}

#[test]
fn only_a_person_who_opens_a_page_is_led_to_the_log_in() {
    let house = House::open();
    let ask = |method: &str, fields: &[(&str, &str)]| {
        let mut request = Client::request(house.gateway.public, method, "/private/x");
        for (name, value) in fields {
            request = request.header(name, value);
        }
        request.send().status
    };
    let html = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    assert_eq!(ask("GET", &[html]), 302);
    assert_eq!(ask("GET", &[("Sec-Fetch-Mode", "navigate")]), 302);
    for (method, fields) in [
        ("GET", &[][..]),
        ("GET", &[("Accept", "*/*")]),
        ("GET", &[("Accept", "application/json")]),
        ("GET", &[html, ("Sec-Fetch-Mode", "cors")]),
        ("GET", &[html, ("Sec-Fetch-Mode", "no-cors")]),
        ("GET", &[("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Mode", "navigate")]),
        ("POST", &[html]),
        ("DELETE", &[("Sec-Fetch-Mode", "navigate")]),
    ] {
        assert_eq!(ask(method, fields), 401, "{method} {fields:?}");
    }
    // A route that says nothing of a log-in refuses everybody.
    let admin = Client::get(house.gateway.public, "/admin").header("Accept", "text/html").send();
    assert_eq!(admin.status, 401);
    house.upstream.forget();
}

#[test]
fn a_session_ends_by_the_log_out_and_a_new_log_in_has_another_cookie() {
    let house = House::open();
    let mut browser = house.browser();
    browser.log_in(&house, "/login");
    let before = browser.shop.clone();
    // The browser logs in once more: the session of before ends (fixation).
    browser.log_in(&house, "/login");
    let now = browser.shop.starting("__Host-session").map(str::to_owned);
    assert_ne!(now.as_deref(), before.starting("__Host-session"));
    assert_eq!(api(&house.gateway, "/private/x", &before).status, 401);
    assert_eq!(api(&house.gateway, "/private/x", &browser.shop).status, 200);
    let out = Client::request(house.gateway.public, "POST", "/logout")
        .header("Cookie", browser.shop.field())
        .header("Sec-Fetch-Site", "same-origin")
        .send();
    assert_eq!(out.status, 204, "{}", out.text());
    assert_eq!(api(&house.gateway, "/private/x", &browser.shop).status, 401);
}

#[test]
fn tokens_reach_neither_the_browser_nor_the_store_nor_the_log() {
    let house = House::open();
    let mut browser = house.browser();
    let location = browser.begin("/login?return_to=%2Fprivate%2F");
    let back = browser.come_back(&house, &location);
    let during = dump(&house.redis);
    let done = browser.get(&back);
    assert_eq!(done.status, 303);
    let value = |query: &str, name: &str| {
        let pair = query.split(['?', '&']).find_map(|it| it.strip_prefix(&format!("{name}=")));
        pair.expect("a parameter").to_owned()
    };
    let (state, code) = (value(&location, "state"), value(&back, "code"));
    let cookie = browser.shop.starting("__Host-session").expect("a session").to_owned();
    let said = || house.gateway.access_lines().iter().map(ToString::to_string).collect::<String>();
    eventually("the log tells of both requests", || {
        let log = said();
        log.contains("state=[redacted]") && log.contains("code=[redacted]")
    });
    let log = said();
    let all = format!("{log}{}{during}{}", house.gateway.stderr(), dump(&house.redis));
    for secret in [&state, &code, &cookie, "eyJ", "ada@shop.test"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    let answer = format!("{:?}{}", done.headers, done.text());
    assert!(!answer.contains("eyJ") && !answer.contains("access_token"), "{answer}");
}

#[test]
fn while_redis_or_the_provider_is_away_nobody_logs_in_and_nobody_is_logged_in() {
    let mut house = House::open();
    let mut browser = house.browser();
    let location = browser.begin("/login");
    let back = browser.come_back(&house, &location);
    house.redis.kill();
    for path in ["/login", &*back] {
        let reply = browser.clone().get(path);
        super::refused(&reply, 503, "login_away");
    }
    // A provider that has never answered.
    let upstream = crate::support::Upstream::replying(crate::support::response("200 OK", ""));
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let issuer = format!("http://{}", nowhere.local_addr().expect("an address"));
    drop(nowhere);
    let config = super::configuration("", &issuer, &upstream, "");
    let gateway = Gateway::start_in(super::folder(), &config);
    let reply = Client::get(gateway.public, "/login").send();
    super::refused(&reply, 503, "provider_away");
    assert_eq!(code(&reply), "provider_away");
}
