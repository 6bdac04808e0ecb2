//! What pages of other sites can have a browser do: nothing that changes anything.

use serde_json::json;

use super::{Browser, House, log_in};
use crate::auth::code;
use crate::support::websocket::{WebSocket, echo, handshake, upstream};
use crate::support::{Client, Reply, claims, raw, token};

const SITE: &str = "Sec-Fetch-Site";

fn ask(house: &House, browser: &Browser, method: &str, fields: &[(&str, &str)]) -> Reply {
    let request = browser.ask(&house.gateway, method, "/me").header("Host", "shop.test");
    fields.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
}

#[test]
fn unsafe_requests_pass_only_from_pages_of_the_site() {
    let listed = "make = { csrf_origins = [\"https://app.shop.test\"] }\n";
    let house = House::with(listed, "");
    let (browser, other) = (house.login("42", "user"), house.login("42", "user"));
    let csrf = |browser: &Browser| {
        let told = house.get("/session", browser).json();
        told["csrf_token"].as_str().expect("a token").to_owned()
    };
    let (own, foreign) = (csrf(&browser), csrf(&other));
    let token = |value: &'static str| ("X-CSRF-Token", value);
    let (own, foreign) = (("X-CSRF-Token", &*own), ("X-CSRF-Token", &*foreign));
    // The gateway is asked in clear here.
    let here = ("Origin", "http://shop.test");
    let rows: [(&[(&str, &str)], bool); 19] = [
        (&[(SITE, "same-origin")], true),
        (&[(SITE, "none")], true),
        (&[(SITE, "same-site")], false),
        (&[(SITE, "cross-site")], false),
        (&[(SITE, "cross-site"), own], false),
        (&[(SITE, "cross-site"), here], false),
        (&[(SITE, "same-site"), ("Origin", "https://app.shop.test")], true),
        (&[(SITE, "same-site"), ("Origin", "https://www.shop.test")], false),
        (&[(SITE, "same-origin"), (SITE, "same-origin")], false),
        (&[here], true),
        (&[("Origin", "https://shop.test")], false),
        (&[("Origin", "http://evil.test"), own], false),
        (&[("Origin", "https://app.shop.test")], true),
        (&[], false),
        (&[own], true),
        (&[foreign], false),
        (&[token("")], false),
        (&[("Origin", "null")], false),
        (&[("Origin", "null"), own], true),
    ];
    for (fields, passes) in rows {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            house.upstream.forget();
            let reply = ask(&house, &browser, method, fields);
            if passes {
                assert_eq!(reply.status, 200, "{method} {fields:?}: {}", reply.text());
                continue;
            }
            let refused = (reply.status, &*code(&reply));
            assert_eq!(refused, (403, "cross_site_request"), "{method} {fields:?}");
            assert_eq!(house.upstream.seen(), 0, "{method} {fields:?}");
        }
        // What changes nothing may be asked by a link.
        assert_eq!(ask(&house, &browser, "GET", fields).status, 200, "{fields:?}");
    }
    assert!(house.count("cross_site") >= 40.0);
}

#[test]
fn a_proxy_that_is_trusted_says_what_the_site_is() {
    let house = House::with("", "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n");
    let browser = house.login("42", "user");
    let said = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "www.shop.test")];
    let with = |origin: &'static str| {
        ask(&house, &browser, "POST", &[said[0], said[1], ("Origin", origin)]).status
    };
    assert_eq!(with("https://www.shop.test"), 200);
    assert_eq!(with("http://www.shop.test"), 403);
    assert_eq!(with("https://shop.test"), 403);
    // One that nobody trusts says nothing.
    let house = House::start();
    let browser = house.login("42", "user");
    let fields = [said[0], said[1], ("Origin", "https://www.shop.test")];
    assert_eq!(ask(&house, &browser, "POST", &fields).status, 403);
}

#[test]
fn a_page_of_another_site_logs_nobody_in_or_out() {
    let house = House::start();
    let answer = json!({ "user": { "id": "mallory" } });
    for (name, value) in [
        (SITE, "cross-site"),
        (SITE, "same-site"),
        ("Origin", "https://evil.test"),
        ("Origin", "null"),
    ] {
        house.upstream.forget();
        let reply = log_in(&house.gateway, &answer).header(name, value).send();
        assert_eq!((reply.status, &*code(&reply)), (403, "cross_site_request"), "{value}");
        assert_eq!(house.upstream.seen(), 0, "{value}");
    }
    // No browser of now sends neither.
    let browser = house.login("42", "user");
    for (name, value) in [(SITE, "cross-site"), (SITE, "same-site"), ("Origin", "null")] {
        let reply = browser.ask(&house.gateway, "POST", "/logout").header(name, value).send();
        assert_eq!((reply.status, &*code(&reply)), (403, "cross_site_request"), "{value}");
    }
    assert_eq!(house.get("/me", &browser).status, 200);
}

#[test]
fn a_route_may_say_that_other_sites_are_welcome() {
    let more = "[routes.hook]\npath = \"/hook\"\nupstream = \"shop\"\nauth = \"web\"\n\
                csrf = false\n";
    let house = House::with("", more);
    let browser = house.login("42", "user");
    let reply = browser.ask(&house.gateway, "POST", "/hook").header(SITE, "cross-site").send();
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[test]
fn only_the_cookie_makes_a_request_suspect() {
    let house = House::start();
    let bearer = token(claims("7"));
    let ask = |path: &str, cookie: Option<&Browser>, bearer: Option<&str>| {
        let mut request =
            Client::request(house.gateway.public, "POST", path).header(SITE, "cross-site");
        if let Some(browser) = cookie {
            request = request.header("Cookie", browser.cookie());
        }
        if let Some(bearer) = bearer {
            request = request.bearer(bearer);
        }
        request.send().status
    };
    let browser = house.login("42", "user");
    assert_eq!(ask("/both", None, Some(&bearer)), 200);
    assert_eq!(ask("/both", Some(&browser), Some(&bearer)), 200);
    assert_eq!(ask("/both", Some(&browser), None), 403);
    assert_eq!(ask("/open", Some(&browser), None), 200, "nobody's session counts there");
    assert_eq!(ask("/attached", Some(&browser), None), 403, "the upstream is told of it");
    assert_eq!(ask("/attached", None, None), 200);
    assert_eq!(ask("/maybe", None, None), 200);
}

#[test]
fn a_page_of_another_site_opens_no_web_socket() {
    let (live, handshakes) = upstream(echo);
    let more = format!(
        "{}[routes.live]\npath = \"/live\"\nupstream = \"live\"\nauth = \"web\"\n\
         upgrade = [\"websocket\"]\n[routes.live.tunnel]\norigins = [\"https://*.test\", \
         \"http://*.test\"]\n",
        live.table("live")
    );
    let house = House::with("", &more);
    let browser = house.login("42", "user");
    let fields = |origin: &str| format!("Cookie: {}\r\nOrigin: {origin}\r\n", browser.cookie());
    for origin in ["https://evil.test", "http://evil.test", "https://shop.test"] {
        let answer = raw(house.gateway.public, handshake("/live", &fields(origin)));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{origin}: {answer}");
        assert!(answer.contains("cross_site_request"), "{origin}: {answer}");
    }
    assert_eq!(handshakes.lock().expect("handshakes").len(), 0);
    drop(WebSocket::open(house.gateway.public, "/live", &fields("http://shop.test")));
}
