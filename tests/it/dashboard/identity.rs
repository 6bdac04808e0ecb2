//! The page Identity of a real gateway with a real Redis: sessions, revocations and API keys as
//! they are, and what ends them.

use std::time::Duration;

use serde_json::{Value, json};

use super::look::clean;
use super::stage::{Stage, problem};
use crate::support::{
    AUTH, Browser, ENTER, ESCAPE, Gateway, Redis, TAB, TcpProxy, eventually, eventually_within,
    operate,
};

const CONFIG: &str = r#"
[auth.partners]
from = ["header:x-api-key"]
api_keys = true
[session]
id_from = ["cookie:sid"]
idle_timeout = "30m"
[upstreams.shop]
servers = ["http://127.0.0.1:9"]
[routes.private]
path = "/private"
upstream = "shop"
auth = "users"
session = true
"#;

/// What a stranger may call himself.
const HOSTILE: &str = "<img src=x onerror=alert(1)>\u{202e}gnp";
/// The same, as it may stand in a key.
const IN_KEY: &str = "<img/src=x/onerror=alert(2)>";

fn start(url: &str) -> Gateway {
    Gateway::start(&format!("[store]\nurl = \"{url}\"\ntimeout = \"5s\"\n{AUTH}{CONFIG}"))
}

fn address(gateway: &Gateway, fragment: &str) -> String {
    format!("http://{}/ui/#/{fragment}", gateway.admin)
}

/// Every byte as a path or a query takes it.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn log_in(gateway: &Gateway, id: &str, user: &str) {
    let path = format!("/v1/sessions/{id}?user={}&ttl=20m", escaped(user));
    let reply = operate(gateway, "PUT", &path, "{}");
    assert_eq!(reply.status, 201, "{}", reply.text());
}

fn revoke(gateway: &Gateway, what: &Value) {
    assert_eq!(operate(gateway, "POST", "/v1/revocations", &what.to_string()).status, 201);
}

/// Goes on by the tabulator until this has the focus.
fn tab_to(browser: &Browser, selector: &str, text: &str) {
    let script = format!(
        "const it = document.activeElement;
         return it.matches({selector:?}) && it.textContent.includes({text:?})"
    );
    for _ in 0..60 {
        browser.press(TAB);
        if browser.run(&script) == true {
            return;
        }
    }
    panic!("the tabulator does not come to {selector} {text:?}");
}

#[test]
fn a_users_sessions_are_ended_by_the_keyboard_alone() {
    let redis = Redis::start();
    let (gateway, browser) = (start(&redis.url()), Browser::start());
    log_in(&gateway, "phone", HOSTILE);
    log_in(&gateway, "desk", HOSTILE);
    revoke(&gateway, &serde_json::json!({ "sub": IN_KEY }));
    browser.prefer("dark");
    browser.open(&address(&gateway, "overview"));
    browser.shows("body", "● live");
    browser.press("gi");
    browser.shows("h1", "Identity");
    browser.shows("[aria-label='Revoked now'] tbody", IN_KEY);
    tab_to(&browser, "input[name=user]", "");
    // No keyboard has the mark that turns text around.
    browser.run(&format!("document.activeElement.value = {HOSTILE:?}"));
    browser.press(ENTER);
    browser.shows("[aria-label=Sessions] tbody", "phone");
    assert_eq!(browser.count("[aria-label=Sessions] tbody tr"), 2);
    tab_to(&browser, "[aria-label='End phone']", "");
    browser.press(ENTER);
    browser.shows("dialog", "The session phone of ");
    clean(&browser, &address(&gateway, ""), "a question in the dark");
    tab_to(&browser, "dialog button.verb", "End");
    browser.press(ENTER);
    browser.shows("dialog .outcome", "● It has ended.");
    browser.press(ESCAPE);
    eventually("one is left", || browser.count("[aria-label=Sessions] tbody tr") == 1);
    assert_eq!(operate(&gateway, "GET", "/v1/sessions/phone", "").status, 404);
    browser.click("main button", "Log out everywhere…");
    let name = "<img src=x onerror=alert(1)>\\u202egnp";
    browser.shows("dialog", &format!("All sessions of {name} end"));
    assert_eq!(browser.count("dialog button.verb[disabled]"), 1, "the name is to be written");
    let write = format!(
        "const it = document.querySelector('dialog input'); it.value = {HOSTILE:?};
         it.dispatchEvent(new Event('input'))"
    );
    browser.run(&write);
    browser.click("dialog button.verb", "Log out everywhere");
    browser.shows("dialog .outcome", "1 sessions ended, and the tokens are revoked.");
    browser.press(ESCAPE);
    browser.shows(".answer", "▲ tokens revoked that were issued before");
    browser.shows("[aria-label=Sessions]", "There is no session.");
    assert_eq!(operate(&gateway, "GET", "/v1/sessions/desk", "").status, 404);
    browser.prefer("light");
    browser.resize(320, 640);
    clean(&browser, &address(&gateway, ""), "the page in the light, narrow");
    assert_eq!(browser.count("main img, dialog img"), 0);
}

#[test]
fn nothing_of_one_name_stands_under_another() {
    let (stage, browser) = (Stage::new(), Browser::start());
    let session = json!({ "id": "phone", "created_at": 1, "seen_at": 2, "expires_in_seconds": 9 });
    stage.answer("GET /v1/users/ada/sessions", json!({ "sessions": [session], "not_listed": 0 }));
    stage.answer("GET /v1/keys", json!({ "keys": [{ "id": "k-1", "owner": "acme" }] }));
    browser.open(&stage.url("/identity?user=ada&owner=acme"));
    browser.shows("[aria-label=Sessions]", "of ada");
    browser.shows("[aria-label='API keys'] tbody", "k-1");
    browser.click("[aria-label='End phone']", "End…");
    browser.shows("dialog", "The session phone of ada is refused");
    browser.press(ESCAPE);
    let away = problem("store_unreachable", "Redis is away.");
    stage.answer_with("GET /v1/users/bob/sessions", 503, away.clone());
    stage.answer_with("GET /v1/keys", 503, away);
    // The page stays, and with it what it shows.
    let go = |fragment: &str| browser.run(&format!("location.hash = '{fragment}'"));
    go("/identity?user=bob&owner=other");
    eventually("both failures are said", || browser.count(".answer .outcome") == 2);
    assert_eq!(browser.count("[aria-label=Sessions] tbody tr"), 0);
    assert_eq!(browser.count("[aria-label=Sessions][hidden], [aria-label='API keys'][hidden]"), 2);
    assert_eq!(browser.count("[aria-label='API keys'] tbody tr, .answer button"), 0);
    go("/identity?user=ada");
    browser.shows("[aria-label=Sessions] tbody", "phone");
    go("/identity");
    eventually("nobody is named", || browser.count("[aria-label=Sessions][hidden]") == 1);
}

#[test]
fn what_is_revoked_is_taken_back_and_a_lost_redis_is_said() {
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let (gateway, browser) = (start(&proxy.url()), Browser::start());
    let made = operate(&gateway, "POST", "/v1/keys", r#"{"owner": "acme", "tier": "gold"}"#);
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    browser.open(&address(&gateway, "identity?owner=acme"));
    browser.shows("[aria-label='API keys'] tbody", "gold");
    browser.click("[aria-label='API keys'] tbody button", "End…");
    browser.shows("dialog", "of acme is refused from the next request on, for good");
    browser.click("dialog button.verb", "End for good");
    browser.shows("dialog .outcome", "It has ended.");
    browser.press(ESCAPE);
    browser.shows("[aria-label='API keys']", "The owner has no key.");
    let key = operate(&gateway, "GET", &format!("/v1/keys/{id}"), "");
    assert_eq!(key.status, 404);
    // Revoked here, and taken back here.
    browser.run("document.querySelector('select').value = 'jti'");
    browser.click("input[name=value]", "");
    browser.press("t-1");
    browser.click("main button", "Revoke…");
    browser.click("dialog button.verb", "Revoke");
    browser.shows("dialog .outcome", "It is revoked, for 30d");
    browser.press(ESCAPE);
    let list = "[aria-label='Revoked now']";
    browser.shows(&format!("{list} tbody"), "t-1");
    browser.shows(list, "As the stream in Redis has them.");
    browser.click(&format!("{list} [aria-label='Undo t-1']"), "Undo…");
    browser.click("dialog button.verb", "Take back");
    browser.shows("dialog .outcome", "It is taken back.");
    browser.press(ESCAPE);
    let told = || operate(&gateway, "GET", "/v1/revocations?kind=jti", "").json();
    assert_eq!(told()["total"], 0);
    eventually("it is listed no more", || !browser.text(list).contains("t-1"));
    proxy.refuse();
    eventually_within(Duration::from_secs(60), "that it is away is said", || {
        browser.text(".notice:not([hidden])").contains("no connection to the store")
    });
    browser.click("[aria-label='Whose API keys?'] button", "Look up");
    browser.shows(".answer .outcome", "✖ Nothing is promised to have changed");
    proxy.pass();
    eventually_within(Duration::from_secs(60), "the notice goes", || {
        browser.count(".notice:not([hidden])") == 0
    });
    assert_eq!(browser.console(), [""; 0]);
}
