//! The page Queues of a real gateway with a real Redis: what waits, what is dead, and what an
//! operator does about it.

use serde_json::{Value, json};

use super::look::clean;
use super::stage::Stage;
use crate::support::{
    Browser, Client, ESCAPE, Gateway, Redis, Upstream, eventually, operate, response,
};

/// A queue that is paused, in which so many wait.
fn start(redis: &Redis, upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "[store]\nurl = \"{}\"\n[upstreams.mailer]\nservers = [\"{}\"]\n\
         [queues.mail]\nbackoff = \"20ms\"\nwarn = {{ items = 1 }}\n\
         [routes.mail]\npath = \"/mail/*\"\nmethods = [\"POST\"]\nupstream = \"mailer\"\n\
         deliver = {{ queue = \"mail\" }}\n",
        redis.url(),
        upstream.url(),
    ))
}

fn post(gateway: &Gateway, path: &str) {
    let reply = Client::request(gateway.public, "POST", path).body("hello").send();
    assert_eq!(reply.status, 202, "{}", reply.text());
}

fn items(gateway: &Gateway) -> Value {
    operate(gateway, "GET", "/v1/queues/mail", "").json()["items"].clone()
}

/// Answers the dialog that asks, and waits for what it says.
fn confirm(browser: &Browser, verb: &str, outcome: &str) {
    browser.click("dialog button.verb", verb);
    browser.shows("dialog .outcome", outcome);
    browser.press(ESCAPE);
    eventually("the dialog is closed", || browser.count("dialog") == 0);
}

fn choose(browser: &Browser, state: &str) {
    browser.run(&format!(
        "const it = document.querySelector('main select[name=state]');
         it.value = {state:?}; it.dispatchEvent(new Event('change'));"
    ));
}

/// Looks at the page in all ways, and cancels the first delivery of the list.
fn cancel_one(browser: &Browser, url: &str, rows: &str) {
    for theme in ["light", "dark"] {
        browser.prefer(theme);
        for width in [1280, 320] {
            browser.resize(width, 700);
            clean(browser, url, &format!("the page in {theme}, {width} wide"));
        }
    }
    browser.resize(1280, 700);
    browser.click(&format!("{rows} .row"), "");
    browser.shows("dialog dl", "POST /mail/c");
    clean(browser, url, "one delivery");
    browser.click("dialog .buttons button", "Cancel…");
    browser.shows("dialog", "is not delivered any more");
    confirm(browser, "Cancel", "● It is cancelled.");
}

#[test]
fn what_waits_and_what_is_dead_is_seen_and_dealt_with() {
    let (redis, refuses) = (Redis::start(), response("400 Bad Request", "no"));
    let upstream = Upstream::replying(refuses);
    let gateway = start(&redis, &upstream);
    let browser = Browser::start();
    let url = format!("http://{}/ui/#/", gateway.admin);
    browser.open(&(url.clone() + "overview"));
    browser.shows("body", "● live");
    browser.press("gd");
    browser.shows("h1", "Queues");
    let queues = "section[aria-label=Queues]";
    browser.shows(&format!("{queues} tbody"), "● well");
    browser.shows(queues, "▲ Redis keeps no append-only file");
    for path in ["/mail/a", "/mail/b"] {
        post(&gateway, path);
    }
    eventually("both are dead", || items(&gateway)["dead"] == 2);

    browser.click("[aria-label='Pause mail']", "Pause…");
    browser.shows("dialog", "Nothing is taken from mail, at any gateway");
    browser.run("document.querySelector('dialog [name=why]').value = 'moving'");
    confirm(&browser, "Pause", "● It is paused.");
    browser.shows(&format!("{queues} tbody"), "▲ paused: moving");
    for path in ["/mail/c", "/mail/d"] {
        post(&gateway, path);
    }
    browser.shows(&format!("{queues} tbody"), "above its warn");
    browser.open(&(url.clone() + "overview"));
    browser.shows(".findings", "queues.mail: 2 to be delivered");
    browser.click(".finding a", "Queues");

    // A row of the table opens what is in it.
    browser.click(&format!("{queues} tbody .row"), "mail");
    let rows = "section[aria-label=Items] tbody";
    browser.shows(rows, "POST /mail/c");
    assert_eq!(browser.count(&format!("{rows} tr")), 2);
    cancel_one(&browser, &url, rows);
    eventually("it is not in the list", || browser.count(&format!("{rows} tr")) == 1);
    assert_eq!(items(&gateway)["waiting"], 1);

    choose(&browser, "dead");
    browser.shows(rows, "✖ dead");
    browser.shows(rows, "refused");
    browser.click(&format!("{rows} .row"), "");
    browser.shows("dialog dl", "last status400");
    browser.click("dialog .buttons button", "Requeue…");
    confirm(&browser, "Requeue", "● It waits to be delivered.");
    eventually("one is dead", || browser.count(&format!("{rows} tr")) == 1);
    assert_eq!(items(&gateway)["waiting"], 2);
    let again = |error: &str, outcome: &str| {
        browser.run(&format!("document.querySelector('main [name=error]').value = {error:?}"));
        browser.click("main form button", "Requeue dead…");
        confirm(&browser, "Requeue", outcome);
    };
    again("exhausted", "● 0 wait to be delivered.");
    again("refused", "● 1 wait to be delivered.");
    assert_eq!((&items(&gateway)["dead"], &items(&gateway)["waiting"]), (&json!(0), &json!(3)));
    browser.shows("section[aria-label=Items]", "Nothing is there.");

    browser.click("[aria-label='Resume mail']", "Resume…");
    confirm(&browser, "Resume", "● It is resumed.");
    eventually("all are dead again", || items(&gateway)["dead"] == 3);
    assert_eq!(upstream.seen(), 5);
}

#[test]
fn pages_of_items_follow_each_other() {
    let (stage, browser) = (Stage::new(), Browser::start());
    let item = |id: &str| {
        json!({
            "id": id, "state": "waiting", "owner": "u1", "route": "mail", "method": "POST",
            "path": format!("/mail/{id}"), "accepted_at": "2026-11-30T03:00:00.000Z",
            "due_at": "2026-11-30T03:00:00.000Z", "settled_at": null, "give_up_at": null,
            "failures": 0, "stalls": 0, "claims": 0, "node": null, "status": null, "error": null,
            "bytes": 5,
        })
    };
    let page = |id: &str, next: Value| json!({ "items": [item(id)], "next": next });
    stage.answer("GET /v1/queues/mail/items", page("one", json!("one")));
    browser.open(&stage.url("/queues?queue=mail&state=waiting"));
    let rows = "section[aria-label=Items]";
    browser.shows(rows, "/mail/one");
    let targets = || {
        let asked = stage.asked("GET /v1/queues/mail/items");
        asked.iter().map(|it| it.target().to_owned()).collect::<Vec<_>>()
    };
    stage.answer("GET /v1/queues/mail/items", page("two", Value::Null));
    browser.click("main button", "Next page");
    browser.shows(rows, "/mail/two");
    browser.shows(rows, "page 2");
    assert_eq!(browser.run("return document.querySelectorAll('main button:disabled').length"), 1);
    stage.answer("GET /v1/queues/mail/items", page("one", json!("one")));
    browser.click("main button", "Oldest");
    browser.shows(rows, "page 1");
    let first = "/v1/queues/mail/items?state=waiting";
    assert_eq!(targets(), [first, &format!("{first}&after=one"), first]);
    browser.click("section[aria-label=Queues] tbody .row", "events");
    browser.shows("main .outcome", "✖ No GET /v1/queues/events/items is played.");
    assert_eq!(browser.count("section[aria-label=Items] tbody tr"), 0);
}
