//! The pages as a real gateway fills them: nothing here is written by the test.

use super::stage::{GATEWAY, PAGES};
use crate::support::{Browser, Client, Gateway, eventually, operate};

fn url(gateway: &Gateway, page: &str) -> String {
    format!("http://{}/ui/#/{page}", gateway.admin)
}

#[test]
fn every_page_has_its_answers() {
    let gateway = Gateway::start(GATEWAY);
    let browser = Browser::start();
    for (page, _) in PAGES {
        browser.open(&url(&gateway, page));
        browser.shows(".brand", "Portcullis");
        // A page asks all it needs before the stream has told of a second.
        browser.shows("body", "● live");
        eventually("it is filled", || {
            browser.run("return document.querySelectorAll('h2').length") != 0
        });
        assert_eq!(browser.run("return document.querySelector('.notice')?.hidden"), true, "{page}");
        assert_eq!(browser.console(), Vec::<String>::new(), "{page}");
    }
}

#[test]
fn a_refusal_is_there_with_its_reason() {
    let gateway = Gateway::start(GATEWAY);
    let browser = Browser::start();
    assert_eq!(Client::get(gateway.public, "/open").send().status, 502);
    let kept = || operate(&gateway, "GET", "/v1/requests", "").json();
    eventually("it is kept", || kept()["requests"][0]["reason"] == "upstream_unreachable");
    for page in ["refusals", "traffic"] {
        browser.open(&url(&gateway, page));
        browser.shows("main", "GET /open");
    }
    // And as it happens.
    browser.open(&url(&gateway, "refusals"));
    browser.shows("body", "● live");
    assert_eq!(Client::get(gateway.public, "/new").send().status, 404);
    browser.shows("main", "GET /new");
}
