//! Sessions that lie sealed: nobody who reads Redis learns what they say, and operators still do.

use serde_json::json;

use super::{House, config, log_in, shop};
use crate::support::{Folder, Gateway, Redis, operate};

/// With these keys, by their first digits.
fn sealing(redis: &Redis, upstream: &crate::support::Upstream, keys: &[&str]) -> (String, Folder) {
    let folder = Folder::new();
    let mut names = Vec::new();
    for key in keys {
        folder.write(&format!("{key}.key"), key.repeat(32));
        names.push(format!("\"file:{key}.key\""));
    }
    let session = format!("make = {{ seal = [{}] }}\nheader = \"x-session\"\n", names.join(", "));
    (config(&redis.url(), upstream, &session, ""), folder)
}

fn house(keys: &[&str]) -> House {
    let (redis, upstream) = (Redis::start(), shop());
    let (text, folder) = sealing(&redis, &upstream, keys);
    let gateway = Gateway::start_in(folder, &text);
    House { redis, upstream, gateway }
}

#[test]
fn nothing_of_a_sealed_session_lies_in_clear() {
    let house = house(&["01"]);
    let answer = json!({ "user": { "id": "42", "role": "the-very-secret-role" } });
    let browser = super::Browser::of(&log_in(&house.gateway, &answer).send());
    let stored = house.redis.cli(&["GET", &house.key(&browser)]);
    for clear in ["the-very", "role", "created_at", "sub"] {
        assert!(!stored.contains(clear), "{stored}");
    }
    for path in ["/me", "/attached"] {
        house.upstream.forget();
        assert_eq!(house.get(path, &browser).status, 200);
        let seen = house.upstream.only();
        if path == "/me" {
            assert_eq!(seen.header("x-web-role"), Some("the-very-secret-role"));
        } else {
            let whole = crate::sessions::attached(&seen).expect("a session");
            assert_eq!(whole["role"], "the-very-secret-role");
        }
    }
    let path = format!("/v1/sessions/{}", browser.id());
    let shown = operate(&house.gateway, "GET", &path, "").json();
    assert_eq!(shown["session"]["role"], "the-very-secret-role", "{shown}");
    // What an operator writes is sealed, too.
    let mut session = shown["session"].clone();
    session["role"] = "another-secret".into();
    let path = format!("{path}?user=42");
    assert_eq!(operate(&house.gateway, "PUT", &path, &session.to_string()).status, 200);
    assert!(!house.redis.cli(&["GET", &house.key(&browser)]).contains("another"));
    house.upstream.forget();
    assert_eq!(house.get("/me", &browser).status, 200);
    assert_eq!(house.upstream.only().header("x-web-role"), Some("another-secret"));
}

#[test]
fn the_key_of_before_opens_until_it_is_taken_away() {
    let before = house(&["01"]);
    let browser = before.login("42", "user");
    let (text, folder) = sealing(&before.redis, &before.upstream, &["02", "01"]);
    let both = Gateway::start_in(folder, &text);
    assert_eq!(browser.ask(&both, "GET", "/me").send().status, 200);
    let (text, folder) = sealing(&before.redis, &before.upstream, &["02"]);
    let after = Gateway::start_in(folder, &text);
    let reply = browser.ask(&after, "GET", "/me").send();
    assert_eq!((reply.status, &*crate::auth::code(&reply)), (502, "session_unreadable"));
    let path = format!("/v1/sessions/{}", browser.id());
    assert_eq!(operate(&after, "GET", &path, "").status, 502);
    // It can be ended all the same, and replaced by a log-in.
    let answer = json!({ "user": { "id": "42" } });
    let reply = log_in(&after, &answer).header("Cookie", browser.cookie()).send();
    let again = super::Browser::of(&reply);
    assert_eq!(again.ask(&after, "GET", "/me").send().status, 200);
}

#[test]
fn a_sealed_session_is_good_in_its_own_place_alone() {
    let house = house(&["01"]);
    let (admin, user) = (house.login("7", "admin"), house.login("42", "user"));
    house.redis.cli(&["COPY", &house.key(&admin), &house.key(&user), "REPLACE"]);
    assert_eq!(house.refused("/admin", &user), (502, "session_unreadable".to_owned()));
}
