//! What all pages share: who is here, the stream, the keys, the theme, the filter.

use super::stage::{PAGES, Stage, problem, session, tick};
use crate::support::{Browser, ENTER, ESCAPE, TAB, eventually};

fn storage(browser: &Browser, kind: &str) -> serde_json::Value {
    browser.run(&format!("return Object.keys({kind}).length"))
}

#[test]
fn a_token_begins_a_session_that_is_in_this_tab_alone() {
    let (stage, browser) = (Stage::new(), Browser::start());
    stage.close(true);
    browser.open(&stage.url("/traffic"));
    browser.shows("main label", "Token");
    let wrong = problem("login_invalid", "This is no token of this gateway.");
    stage.answer_with("POST /v1/login", 401, wrong);
    browser.press(&format!("wrong{ENTER}"));
    browser.shows("[role=alert]", "This is no token of this gateway.");
    stage.answer("POST /v1/login", session());
    browser.press(&format!("operator{ENTER}"));
    browser.shows("h1", "Traffic");
    let sent = stage.asked("POST /v1/login").iter().map(|it| it.text()).collect::<Vec<_>>();
    assert_eq!(sent, ["{\"token\":\"wrong\"}", "{\"token\":\"operator\"}"]);
    assert_eq!(browser.run("return document.cookie"), "");
    assert_eq!(storage(&browser, "sessionStorage"), 1);
    assert_eq!(browser.run("return JSON.stringify(localStorage).includes('0123')"), false);
    browser.click("#top button", "Log out");
    browser.shows("main label", "Token");
    assert_eq!(stage.asked("DELETE /v1/login").len(), 1);
    assert_eq!(storage(&browser, "sessionStorage"), 0);
}

#[test]
fn a_session_that_ends_asks_for_another() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.url("/overview"));
    browser.shows("h1", "Overview");
    stage.close(true);
    browser.press("gl");
    browser.shows("[role=alert]", "Your session has ended");
    assert_eq!(browser.count("#top:not([hidden])"), 0, "nothing of the gateway is left to see");
}

#[test]
fn a_one_time_code_is_taken_out_of_the_address() {
    let (stage, browser) = (Stage::new(), Browser::start());
    stage.close(true);
    browser.open(&stage.url("code=one-time"));
    browser.shows("h1", "Overview");
    assert_eq!(stage.asked("POST /v1/login")[0].text(), "{\"code\":\"one-time\"}");
    assert_eq!(browser.run("return location.hash"), "#/overview");
    let kept = browser.run("return navigation.entries().map((it) => it.url).join()").to_string();
    assert!(kept.contains("#/overview") && !kept.contains("one-time"), "{kept}");
}

#[test]
fn numbers_follow_the_stream_and_say_when_it_is_lost() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.url("/overview"));
    browser.shows(".figure .value", "1,324");
    browser.shows(".live-state", "live");
    stage.send("tick", &tick(2000.0));
    browser.shows(".figure .value", "2,040");
    stage.silence(true);
    browser.shows("#banner:not([hidden])", "Not live");
    assert_eq!(browser.text(".figure .value"), "2,040", "the last ones stay");
    stage.silence(false);
    browser.shows(".live-state", "● live");
    eventually("the banner goes", || browser.count("#banner:not([hidden])") == 0);
    browser.shows(".figure .value", "1,324");
}

#[test]
fn a_pause_closes_the_stream() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.url("/overview"));
    browser.shows(".figure .value", "1,324");
    let opened = stage.asked("GET /v1/live").len();
    browser.press("p");
    browser.shows(".live-state", "paused");
    browser.click(".live-state", "paused");
    eventually("the stream is opened again", || stage.asked("GET /v1/live").len() > opened);
    browser.shows(".live-state", "● live");
}

#[test]
fn the_keyboard_alone_reaches_everything() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.url("/overview"));
    browser.shows(".figure .value", "1,324");
    browser.press(TAB);
    assert_eq!(browser.run("return document.activeElement.id"), "skip", "the way past the head");
    browser.press(ENTER);
    assert_eq!(browser.run("return document.activeElement.id + location.hash"), "main#/overview");
    for (page, letter) in PAGES.into_iter().rev() {
        browser.press(&format!("g{letter}"));
        eventually("the page is open", || {
            browser.run("return location.hash") == format!("#/{page}").as_str()
        });
        eventually("its heading has the focus", || {
            browser.run("return document.activeElement.tagName") == "H1"
        });
    }
    browser.press("gr");
    browser.shows("tbody", "/login");
    browser.press("jj");
    let row = "return document.activeElement.closest('tr')?.textContent ?? ''";
    assert!(browser.run(row).to_string().contains("/checkout/7"));
    browser.press("k");
    browser.press(ENTER);
    browser.shows("dialog h2", "POST /login");
    browser.press("gl");
    assert_eq!(browser.count("dialog[open]"), 1, "letters mean nothing in a dialog");
    browser.press(ESCAPE);
    eventually("the dialog is closed", || browser.count("dialog") == 0);
    assert!(browser.run(row).to_string().contains("/login"), "the focus is where it was");
    browser.press("?");
    browser.shows("dialog h2", "Keys");
    browser.click("dialog label", "Single keys");
    browser.press(ESCAPE);
    browser.press("gl?");
    assert_eq!(browser.run("return location.hash"), "#/refusals", "single keys are off");
    assert_eq!(browser.count("dialog"), 0);
}

#[test]
fn the_filter_is_a_part_of_the_address() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.url("/refusals"));
    browser.shows("tbody", "/login");
    browser.press("/");
    browser.press("status:5xx pt");
    eventually("one row is left", || browser.count("section:first-of-type tbody tr") == 0);
    browser.press("\u{e003}\u{e003}\u{e003}");
    eventually("one row is left", || browser.count("section:first-of-type tbody tr") == 1);
    browser.shows("section:first-of-type tbody", "/checkout/7");
    assert_eq!(browser.run("return location.hash"), "#/refusals?q=status%3A5xx");
    browser.open(&stage.url("/refusals?q=sub%3A42"));
    browser.shows("section:first-of-type tbody", "/login");
    assert_eq!(browser.count("section:first-of-type tbody tr"), 1);
    assert_eq!(browser.run("return document.querySelector('#search').value"), "sub:42");
    let asked = stage.asked("GET /v1/requests");
    let last = asked.last().expect("a request").target();
    assert_eq!(last, "/v1/requests?subject=42&refused=true");
}

#[test]
fn a_theme_is_chosen_and_kept() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.prefer("light");
    browser.open(&stage.url("/overview"));
    browser.shows(".figure .value", "1,324");
    let page = "return getComputedStyle(document.body).backgroundColor";
    let light = browser.run(page);
    browser.prefer("dark");
    let dark = browser.run(page);
    assert_ne!(light, dark, "auto is the system's");
    browser.click(".switch label", "light");
    assert_eq!(browser.run(page), light);
    browser.run("document.activeElement.blur()");
    browser.press("t");
    assert_eq!(browser.run(page), dark);
    browser.prefer("light");
    browser.open(&stage.url("/overview"));
    browser.shows(".figure .value", "1,324");
    assert_eq!(browser.run(page), dark, "the choice stays");
}
