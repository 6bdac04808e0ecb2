//! The page Upstreams of a real gateway with a real Redis: which server fails or is out, and what
//! an operator does about it.

use super::look::clean;
use super::stage::Stage;
use crate::support::{
    Browser, Client, ENTER, ESCAPE, Gateway, Redis, TcpProxy, Upstream, eventually, operate,
    response,
};

/// Two servers, of which the second fails, and a canary.
struct House {
    _servers: [Upstream; 3],
    bad: String,
    gateway: Gateway,
}

fn start(url: &str) -> House {
    let good = Upstream::replying(response("200 OK", "hello"));
    let bad = Upstream::replying(response("500 Internal Server Error", "no"));
    let next = Upstream::replying(response("200 OK", "next"));
    let gateway = Gateway::start(&format!(
        "[store]\nurl = \"{url}\"\ntimeout = \"5s\"\n[upstreams.shop]\nservers = [\"{}\", \"{}\"]\n\
         {}[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n[routes.canary]\npath = \"/canary\"\n\
         split = [{{ upstream = \"shop\", weight = 9 }}, {{ upstream = \"next\", weight = 1 }}]\n",
        good.url(),
        bad.url(),
        next.table("next")
    ));
    House { bad: bad.url(), _servers: [good, bad, next], gateway }
}

#[test]
fn a_server_that_fails_is_seen_at_once_and_taken_out() {
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let House { _servers, bad, gateway } = start(&proxy.url());
    let browser = Browser::start();
    let url = format!("http://{}/ui/#/", gateway.admin);
    browser.open(&(url.clone() + "overview"));
    browser.shows("body", "● live");
    browser.press("gu");
    browser.shows("h1", "Upstreams");
    let servers = "section[aria-label=Servers]";
    browser.shows(&format!("{servers} tbody"), &bad);
    // Whatever time it takes to look twice, requests come between.
    eventually("it is seen that all of its answers fail", || {
        for _ in 0..4 {
            Client::request(gateway.public, "POST", "/").send();
        }
        browser.text(servers).contains("✖ 100 %")
    });
    browser.shows(servers, "status_5xx");
    assert_eq!(browser.count(&format!("{servers} tbody button")), 2, "one of three stays");
    browser.click(&format!("[aria-label='Eject {bad}']"), "Eject…");
    browser.shows("dialog", "of shop gets no more requests from this gateway");
    browser.press(ESCAPE);
    eventually("nothing has happened", || browser.count("dialog") == 0);
    let state = || {
        let all = operate(&gateway, "GET", "/v1/upstreams", "").json();
        all["upstreams"]["shop"]["servers"][1]["state"].clone()
    };
    assert_eq!(state(), "in");
    // The focus is back on the button.
    browser.press(ENTER);
    browser.click("dialog button.verb", "Eject");
    browser.shows("dialog .outcome", "● It is out.");
    browser.press(ESCAPE);
    assert_eq!(state(), "out");
    // What is out stands first.
    browser.shows(&format!("{servers} tbody tr"), "✖ outby hand");
    browser.shows("section[aria-label=Upstreams] tbody", "1 of 2");
    for theme in ["light", "dark"] {
        browser.prefer(theme);
        for width in [1280, 320] {
            browser.resize(width, 700);
            clean(&browser, &url, &format!("the page in {theme}, {width} wide"));
        }
    }
    browser.resize(1280, 700);
    browser.click(&format!("[aria-label='Restore {bad}']"), "Restore…");
    browser.click("dialog button.verb", "Restore");
    browser.shows("dialog .outcome", "It is in.");
    browser.press(ESCAPE);
    assert_eq!(state(), "in");
    a_canary_is_stopped(&browser, &proxy);
}

#[test]
fn connections_at_rest_fill_nothing_and_requests_do() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.url("/upstreams"));
    let row = "section[aria-label=Upstreams] tbody";
    browser.shows(row, "96 of 256");
    browser.shows(&format!("{row} .num[data-level=poor]"), "✖ 480 of 512");
    assert_eq!(browser.count(&format!("{row} .meter[data-level]")), 0, "all are open");
}

/// A canary is steered by the fleet's record, which is in Redis.
fn a_canary_is_stopped(browser: &Browser, proxy: &TcpProxy) {
    let canary = "section[aria-label=Canaries]";
    browser.shows(canary, "shop 90 %");
    proxy.refuse();
    browser.click("[aria-label='Stop canary']", "Stop…");
    browser.shows("dialog", "All requests of canary go to the first upstream");
    browser.click("dialog button.verb", "Stop");
    browser.shows("dialog .outcome", "✖ Nothing is promised to have changed");
    proxy.pass();
    eventually("it is stopped", || {
        if browser.count("dialog button.verb:not([disabled])") > 0 {
            browser.click("dialog button.verb", "Stop");
        }
        browser.text("dialog .outcome").contains("It is stopped.")
    });
    browser.press(ESCAPE);
    browser.shows(canary, "✖ stopped: an operator stopped it");
    browser.click("[aria-label='Reset canary']", "Reset…");
    browser.click("dialog button.verb", "Reset");
    browser.shows("dialog .outcome", "It begins anew.");
    browser.press(ESCAPE);
    browser.shows(canary, "● split");
}
