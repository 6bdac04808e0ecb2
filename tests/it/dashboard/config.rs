//! Config and Audit on a real gateway: what runs, that the file takes effect, and who did that.

use crate::support::{Browser, Client, Gateway, eventually, operate};

use super::stage::GATEWAY;

fn url(gateway: &Gateway, page: &str) -> String {
    format!("http://{}/ui/#/{page}", gateway.admin)
}

/// In both themes.
fn is_clean(browser: &Browser, what: &str) {
    for theme in ["dark", "light"] {
        browser.prefer(theme);
        assert_eq!(browser.axe(), [""; 0], "axe on {what}, {theme}");
    }
    let wider = "return document.documentElement.scrollWidth - innerWidth";
    assert!(browser.run(wider).as_i64() <= Some(0), "{what} is {} too wide", browser.run(wider));
}

#[test]
fn a_file_takes_effect_by_three_clicks_and_that_is_kept() {
    let gateway = Gateway::start(GATEWAY);
    let browser = Browser::start();
    browser.open(&url(&gateway, "config"));
    browser.shows("main", "The file: ● it is what runs");
    browser.shows("[aria-label='What runs'] dl", "gateway.toml");
    // Defaults are among what runs, and the filter finds them.
    browser.press("/");
    browser.press("shop.connect_timeout");
    browser.shows("[aria-label='Configuration that runs'] tbody", "upstreams.shop.connect_timeout");
    browser.shows("[aria-label='Configuration that runs'] tbody tr", "1s");
    is_clean(&browser, "what runs");

    gateway.rewrite(&format!("{GATEWAY}body_bytes = \"1KiB\"\n"));
    browser.open(&url(&gateway, "config"));
    browser.shows("main", "The file: ▲ it differs from what runs");
    browser.shows("[aria-label='What the file says otherwise'] tbody", "routes.open.body_bytes");
    browser.click("main button", "Reload…");
    browser.shows("dialog", "1 key takes effect at once");
    is_clean(&browser, "a question");
    browser.click("dialog button.verb", "Reload");
    browser.shows("dialog .outcome", "is in force.");
    browser.press(crate::support::ESCAPE);
    browser.shows("main", "The file: ● it is what runs");
    browser.shows("[aria-label='What runs'] dl", "● applied");

    gateway.rewrite(&format!("{GATEWAY}uspteam = \"shop\"\n"));
    assert_eq!(operate(&gateway, "POST", "/v1/config/reload", "{}").status, 422);
    browser.shows("[aria-label='What runs']", "✖ refused");
    browser.shows("[aria-label='What runs'] ul", "routes.open.uspteam: unknown key");
    browser.shows("main", "The file: ✖ it has mistakes and cannot take effect");
    browser.click("main button", "Reload…");
    browser.shows("dialog", "✖ The file has mistakes.Nothing takes effect");
    browser.press(crate::support::ESCAPE);

    browser.run("document.querySelector('input[name=path]').value = '/open?a=1'");
    browser.click("form button", "Explain");
    browser.shows(".answer", "● would pass to shop");
    browser.resize(320, 640);
    is_clean(&browser, "the narrowest page");
    browser.resize(1280, 800);

    browser.open(&url(&gateway, "audit"));
    browser.shows("tbody", "POST /v1/config/reload");
    browser.shows("tbody", "▲ refused");
    browser.shows("body", "● live");
    let purge = Client::request(gateway.admin, "POST", "/v1/cache/purge")
        .header("Content-Type", "application/json")
        .header("Host", gateway.admin.to_string())
        .body(r#"{"tag": "<img src=x>"}"#);
    assert_eq!(purge.send().status, 200);
    // As it happens.
    browser.shows("tbody tr", "tag <img src=x>");
    is_clean(&browser, "the audit");
    browser.click("tbody .row", "2");
    browser.shows("dialog dl", "POST /v1/cache/purge");
    eventually("nothing is amiss", || browser.console() == [""; 0]);
}

#[test]
fn what_the_gateway_itself_answers_is_explained_as_that() {
    let closed = "[routes.closed]\npath = \"/closed\"\nrespond = { status = 403 }\n";
    let gateway = Gateway::start(&format!("{GATEWAY}{closed}"));
    let browser = Browser::start();
    browser.open(&url(&gateway, "config"));
    browser.shows("main", "The file: ● it is what runs");
    browser.run("document.querySelector('input[name=path]').value = '/closed'");
    browser.click("form button", "Explain");
    browser.shows(".answer", "✖ would be answered 403, by respond of the route");
    browser.shows(".answer dl", "closed");
}
