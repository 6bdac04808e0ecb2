//! Each page in both themes, on a wide screen and on the narrowest: nothing that axe finds, nothing
//! in the console, nothing that sticks out, nothing from another host.

use super::stage::{PAGES, Stage};
use crate::support::{Browser, eventually};

/// Looks at what is shown now.
fn look(browser: &Browser, stage: &Stage, what: &str) {
    clean(browser, &stage.url(""), what);
}

/// The same of any gateway, by the address of its pages.
pub(super) fn clean(browser: &Browser, url: &str, what: &str) {
    assert_eq!(browser.axe(), [""; 0], "axe on {what}");
    let wider = "return document.documentElement.scrollWidth - innerWidth";
    assert!(browser.run(wider).as_i64() <= Some(0), "{what} is {} too wide", browser.run(wider));
    assert_eq!(browser.console(), [""; 0], "the console of {what}");
    let hosts = browser
        .run("return [...new Set(performance.getEntriesByType('resource').map((it) => it.name))]");
    let own = url.split("/ui/#").next().unwrap_or_default();
    for host in hosts.as_array().expect("addresses") {
        assert!(host.as_str().unwrap_or_default().starts_with(own), "{what} asks {host}");
    }
}

#[test]
fn every_page_is_clean_in_both_themes_and_at_any_width() {
    let (stage, browser) = (Stage::new(), Browser::start());
    let shots = std::env::var_os("PORTCULLIS_SCREENSHOTS").map(std::path::PathBuf::from);
    for theme in ["light", "dark"] {
        browser.prefer(theme);
        for (width, height) in [(1280, 800), (320, 640)] {
            browser.resize(width, height);
            for (page, _) in PAGES {
                let what = format!("{page}-{theme}-{width}");
                browser.open(&stage.url(&format!("/{page}")));
                browser.shows(".live-state", "● live");
                browser.shows(".facts", "up 3d 4h");
                eventually("it has its rows", || browser.count("main tbody tr") > 0);
                look(&browser, &stage, &what);
                if let Some(folder) = &shots {
                    std::fs::write(folder.join(what + ".png"), browser.screenshot()).unwrap();
                }
            }
        }
    }
}

#[test]
fn what_opens_is_clean_too() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.resize(320, 640);
    for theme in ["light", "dark"] {
        browser.prefer(theme);
        browser.open(&stage.url("/refusals"));
        browser.click("tbody .row", "03:00");
        browser.click("dialog button", "Explain");
        browser.shows("dialog .explained", "rate_limited");
        look(&browser, &stage, "a request");
        browser.click("dialog button", "Reset the limit…");
        browser.shows("dialog:last-of-type", "begin anew");
        look(&browser, &stage, "a question");
    }
    stage.close(true);
    browser.open(&stage.url("/overview"));
    browser.shows("main label", "Token");
    look(&browser, &stage, "the log-in");
    let role = browser.run("return document.querySelector('[role=alert]') !== null");
    assert_eq!(role, true);
}

#[test]
fn twice_the_size_is_half_the_width() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.resize(640, 400);
    for (page, _) in PAGES {
        browser.open(&stage.url(&format!("/{page}")));
        browser.shows(".live-state", "● live");
        look(&browser, &stage, page);
    }
}
