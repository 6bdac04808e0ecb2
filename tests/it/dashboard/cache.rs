//! The page of the cache: at a real gateway, and where its answers are hostile.

use std::io::Write as _;

use serde_json::json;

use super::stage::{Stage, entry, problem};
use crate::support::{Browser, Client, Gateway, Redis, Upstream, eventually, operate, response};

/// What a stranger sends, and an upstream may repeat.
const HOSTILE: &str = "<img/src=x/onerror=alert(1)>\u{202e}";
const SHOWN: &str = "<img/src=x/onerror=alert(1)>\\u202e";

#[test]
fn a_url_is_looked_up_and_purged() {
    let redis = Redis::start();
    let upstream = Upstream::with(|_, connection| {
        let head = "200 OK\r\nVary: Accept-Language\r\nSurrogate-Key: product-1";
        let _ = connection.write_all(response(head, "hello").as_bytes());
    });
    let gateway = Gateway::start(&format!(
        "[store]\nurl = \"{}\"\ntimeout = \"5s\"\n{}[routes.products]\npath = \"/products/*\"\n\
         upstream = \"shop\"\ncache = {{ ttl = \"1h\" }}\n",
        redis.url(),
        upstream.table("shop")
    ));
    let get = || {
        let request = Client::get(gateway.public, "/products/1").header("Host", "shop.test");
        assert_eq!(request.header("Accept-Language", HOSTILE).send().status, 200);
    };
    get();
    eventually("it is in the store", || {
        let found = operate(&gateway, "GET", "/v1/cache/entry?url=shop.test/products/1", "");
        found.json()["variants"][0]["where"] == json!(["near", "store"])
    });
    let browser = Browser::start();
    let url = format!("http://{}/ui/#/cache?url=shop.test/products/1", gateway.admin);
    for theme in ["light", "dark"] {
        browser.prefer(theme);
        browser.open(&url);
        browser.shows(".answer", "shop.test/products/1 on the route products");
        browser.shows(".answer tbody", "near + store");
        browser.shows(".answer tbody", &format!("accept-language: {SHOWN}"));
        browser.shows(".answer tbody", "● answers");
        browser.shows("[aria-label='Routes that cache'] tbody", "products");
        assert_eq!(browser.axe(), [""; 0], "{theme}");
    }
    assert_eq!(browser.count("main img"), 0);
    // The page has looked, so URLs are counted from now on.
    get();
    browser.shows("[aria-label='URLs that are asked for most'] tbody", "shop.test/products/1");
    browser.click("main button", "Walk Redis…");
    browser.click("form button", "Walk");
    browser.shows("[aria-label='Walk through Redis']", "✖ Nobody may look at Redis.");
    browser.click(".answer button", "Purge…");
    let words = "All that is stored for shop.test/products/1, with every query, over http and \
                 https, goes";
    browser.shows("dialog", words);
    browser.click("dialog button.verb", "Purge");
    browser.shows("dialog .outcome", "Purged: http://shop.test/products/1");
    browser.click("dialog button", "Close");
    browser.shows(".answer tbody", "✖ its path was purged, or written to");
    browser.click("main button", "Purge everything…");
    assert_eq!(browser.run("return document.querySelector('dialog .verb').disabled"), true);
    browser.run("document.querySelector('dialog input').focus()");
    browser.press("everything");
    browser.click("dialog button.verb", "Purge everything");
    browser.shows("dialog .outcome", "Purged: everything.");
    browser.click("dialog button", "Close");
    // The root by another name is everything, too.
    browser.click("[aria-label=\"This gateway's memory\"] button", "Purge…");
    browser.run(
        "const [kind, value] = document.querySelectorAll('dialog select, dialog [name=value]');
         kind.value = 'path'; value.value = '/./*';",
    );
    browser.click("dialog button", "Go on…");
    browser.shows("dialog", "Write everything to go on");
    assert_eq!(browser.run("return document.querySelector('dialog .verb').disabled"), true);
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn the_poor_route_says_why_and_who_only_reads_is_offered_no_purge() {
    let (stage, browser) = (Stage::new(), Browser::start());
    let hostile = format!("http://shop.test/{HOSTILE}");
    stage.answer("GET /v1/cache/entry", entry(&hostile));
    browser.open(&stage.url("/cache?url=shop.test/products/1"));
    browser.shows(".answer strong", &format!("http://shop.test/{SHOWN}"));
    let first = "[aria-label='Routes that cache'] tbody tr";
    browser.shows(first, "✖ 31 %");
    browser.shows(first, "no_store 2790");
    browser.shows("main", "▲ near cache: 31 MiB of 32 MiB");
    browser.click("[aria-label='Routes that cache'] tbody .row", "search");
    browser.shows("dialog", "▲ no_store 2790 were not stored (no_store)");
    browser.shows("dialog", "have it send Cache-Control: s-maxage");
    browser.shows("dialog", "Purge the route…");
    browser.click("dialog button", "Close");
    browser.click("main button", "Walk Redis…");
    let found = |cursor: serde_json::Value, number: u64| {
        let url = format!("http://shop.test/{number}/{HOSTILE}");
        json!({ "cursor": cursor, "seen": 40, "entries": [
            { "id": "#1", "url": url, "route": "products", "parted": false, "ttl_s": 3600,
              "bytes": 900 },
            { "id": "#2", "url": url, "route": "products", "parted": false, "ttl_s": 3600,
              "bytes": 900 },
        ] })
    };
    stage.answer("POST /v1/cache/walk", found(json!(null), 1));
    browser.click("form button", "Walk");
    browser.shows("[aria-label='Entries in Redis'] tbody", &format!("http://shop.test/1/{SHOWN}"));
    browser.shows("[aria-label='Walk through Redis']", "That is all: 40 entries have come by.");
    assert_eq!(browser.count("[aria-label='Entries in Redis'] tbody tr"), 2, "two that look alike");
    assert_eq!(browser.count("main img, main script"), 0);
    assert_eq!(browser.axe(), [""; 0]);
    stage.answer("GET /v1/me", json!({ "role": "read", "login": "token", "node": "edge-1" }));
    let away = problem("store_unreachable", "The store cannot be reached.");
    stage.answer_with("GET /v1/cache/entry", 503, away);
    browser.open(&stage.url("/cache?url=shop.test/products/2"));
    browser.shows("#top", "read only");
    browser.shows(".answer", "✖ The store cannot be reached.");
    browser.shows(first, "✖ 31 %");
    let offered =
        "return [...document.querySelectorAll('main button')].map((it) => it.textContent).join()";
    let offered = browser.run(offered).to_string();
    assert!(!offered.contains("Purge") && !offered.contains("Walk"), "{offered}");
    assert_eq!(stage.asked("POST /v1/cache/purge").len(), 0);
}
