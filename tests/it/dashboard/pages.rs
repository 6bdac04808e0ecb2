//! The questions of each page, and the clicks that answer them.

use serde_json::{Value, json};

use super::stage::{Stage, failed, problem, refused, tick};
use crate::support::{Browser, eventually};

fn requests(rows: &[Value]) -> Value {
    json!({ "requests": rows, "bound": 1000, "sampled": true })
}

#[test]
fn the_overview_says_what_to_do_without_a_click() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.url("/overview"));
    browser.shows(".findings h2", "2 findings");
    let first = browser.text(".finding");
    let expected = "✖ POORRedis may evict limiter keys. maxmemory-policy is allkeys-lru.\
                    Do: Set it to noeviction.Store";
    assert_eq!(first, expected, "the worst stands first");
    browser.shows(".meters", "store p99 ▲ near38 ms of 50 ms");
    browser.shows("[aria-label=Upstreams] ul", "shop ▲ 1 of 2 in");
    browser.shows("[aria-label=Upstreams] ul", "search ✖ breaker open");
    browser.shows("[aria-label=Fleet] ul", "edge-2 0.2.0 ▲ older configuration");
    browser.shows("tbody", "✖ 2.4");
    assert_eq!(browser.run("return document.querySelector('.findings').ariaLive"), "polite");
    let muted = json!({ "id": "a", "level": "poor", "what": "Known.", "do": "No.", "muted": true });
    let well = json!({ "node": "edge-1", "version": "0.2.0", "up_s": 9, "findings": [muted] });
    stage.answer("GET /v1/overview", well);
    browser.open(&stage.url("/overview"));
    browser.shows(".findings h2", "● All is well: no findings, 1 muted.");
    assert_eq!(browser.text(".finding.muted"), "● MUTEDKnown. Do: No.");
}

#[test]
fn a_request_that_failed_is_two_clicks_away() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.url("/traffic"));
    browser.click("tbody .row", "checkout");
    browser.shows(".of-route h2", "Route checkout");
    let route_of = |line: &str| stage.asked(line).last().expect("one").target().to_owned();
    eventually("its series is asked for", || {
        route_of("GET /v1/series").ends_with("window=15m&route=checkout")
    });
    assert_eq!(route_of("GET /v1/requests"), "/v1/requests?route=checkout");
    browser.shows("figure.chart", "req/s");
    browser.click("tbody .row", "02:59");
    browser.shows("dialog h2", "GET /checkout/7");
    browser.shows("dialog dl", "errorconnection refused");
    browser.shows("dialog .legend", "upstream 11 ms");
    let bar = "return document.querySelector('.stages svg').getAttribute('aria-label')";
    assert_eq!(browser.run(bar), "Took: store 0.9 ms, upstream 11 ms");
}

#[test]
fn a_chart_can_be_read_as_a_table() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.url("/traffic"));
    browser.shows("figure.chart", "req/s");
    // What was drawn is what is told, also if nothing more comes.
    stage.answer_with("GET /v1/series", 503, problem("streams_full", "Later."));
    browser.click("figure.chart summary", "Show as table");
    eventually("its numbers are there", || browser.count(".numbers tbody tr") == 90);
    let words =
        browser.run("return document.querySelector('.timeline').getAttribute('aria-label')");
    let words = words.as_str().expect("words");
    assert!(words.starts_with("Requests per second. req/s: now 1,"), "{words}");
}

#[test]
fn a_refusal_is_explained_and_its_limit_reset() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.url("/refusals"));
    browser.shows(".chips", "rate_limited 1");
    browser.click("tbody .row", "03:00");
    browser.click("dialog button", "Explain");
    browser.shows("dialog .explained", "✖ would be refused: rate_limited");
    browser.shows("dialog .explained", "limit login · remaining 0 · window 15m");
    let asked: Value = serde_json::from_str(&stage.asked("POST /v1/explain")[0].text()).unwrap();
    let expected = json!({
        "path": "/login", "method": "POST", "host": "shop.example.com", "address": "203.0.113.9",
    });
    assert_eq!(asked, expected);
    browser.click("dialog button", "Reset the limit…");
    browser.shows("dialog:last-of-type", "All windows of login for claim:sub=42 begin anew");
    assert!(stage.asked("DELETE /v1/limits").is_empty(), "nothing happens before the verb");
    browser.click("dialog button.verb", "Reset");
    browser.shows("dialog .outcome", "2 counters were reset.");
    let reset = stage.asked("DELETE /v1/limits");
    assert_eq!(reset[0].target(), "/v1/limits?policy=login&key=claim%3Asub%3D42");
    assert_eq!(reset[0].header("content-type"), Some("application/json"));
}

#[test]
fn refusals_come_as_they_happen() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.url("/refusals"));
    browser.shows(".chips", "rate_limited 1");
    stage.send("refusal", &refused(30, "/login?again"));
    browser.shows("tbody", "/login?again");
    browser.shows(".chips", "rate_limited 2");
    browser.click(".chip", "upstream_unreachable");
    eventually("one is left", || browser.count("section:first-of-type tbody tr") == 1);
    browser.click(".chip", "upstream_unreachable");
    eventually("all are back", || browser.count("section:first-of-type tbody tr") >= 2);
}

#[test]
fn what_a_key_has_left_is_one_click_and_its_reset_three() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.url("/limits"));
    browser.shows("tbody", "✖ over");
    browser.shows("tbody tr:last-child", "▲ near");
    // A key that is shown by its digest cannot be named to the gateway.
    assert_eq!((browser.count("tbody tr"), browser.count("tbody button.small")), (3, 2));
    browser.click("tbody .row", "claim:sub=42");
    browser.shows(".answer", "limit 5 · remaining 0 · used 5");
    browser.click(".answer button", "Reset…");
    browser.click("dialog button.verb", "Reset");
    browser.shows("dialog .outcome", "2 counters were reset.");
    // A view can be sent on.
    let hash = browser.run("return location.hash");
    assert_eq!(hash, "#/limits?policy=login&key=claim%3Asub%3D42");
    browser.open(&stage.url("/limits?policy=login&key=claim%3Asub%3D42"));
    browser.shows(".answer", "limit 5 · remaining 0 · used 5");
    // Asked once more, the same is looked up anew.
    let before = stage.asked("GET /v1/limits").len();
    browser.click("form button", "Look up");
    eventually("it is asked again", || stage.asked("GET /v1/limits").len() > before);
}

#[test]
fn who_may_only_read_is_offered_nothing_else() {
    let (stage, browser) = (Stage::new(), Browser::start());
    stage.answer("GET /v1/me", json!({ "role": "read", "login": "token", "node": "edge-1" }));
    browser.open(&stage.url("/limits?policy=login&key=claim%3Asub%3D42"));
    browser.shows(".answer", "remaining 0");
    browser.shows("tbody", "✖ over");
    browser.shows("#top", "read only");
    let offered =
        "return [...document.querySelectorAll('main button')].map((it) => it.textContent)";
    assert!(!browser.run(offered).to_string().contains("Reset"), "{}", browser.run(offered));
    browser.open(&stage.url("/refusals"));
    browser.click("tbody .row", "03:00");
    browser.shows("dialog", "Explain");
    assert!(!browser.text("dialog").contains("Reset"));
}

#[test]
fn what_strangers_send_is_shown_as_text() {
    let (stage, browser) = (Stage::new(), Browser::start());
    let mut hostile = refused(7, "/<img src=x onerror=alert(1)>\u{202e}gnp.exe\u{7}");
    hostile["user_agent"] = "<script>alert(2)</script>\u{2066}".into();
    stage.answer("GET /v1/requests", requests(&[hostile, failed(8)]));
    browser.open(&stage.url("/refusals"));
    browser.shows("tbody", "POST /<img src=x onerror=alert(1)>\\u202egnp.exe\\u0007");
    browser.click("tbody .row", "03:00");
    browser.shows("dialog h2", "\\u202egnp.exe\\u0007");
    browser.shows("dialog dl", "<script>alert(2)</script>\\u2066");
    assert_eq!(browser.count("main img, dialog img, main script, dialog script"), 0);
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn ten_thousand_rows_are_sorted_filtered_and_bounded() {
    let (stage, browser) = (Stage::new(), Browser::start());
    let rows = (0..10_000).map(|id| refused(id, &format!("/login/{id}")));
    let rows: Vec<Value> = rows.collect();
    stage.answer("GET /v1/requests", requests(&rows));
    browser.open(&stage.url("/refusals"));
    browser.shows("section [role=status]", "first 500 of 10000");
    assert_eq!(browser.count("section:first-of-type tbody tr"), 500);
    browser.click("thead button", "request");
    let first = "section:first-of-type tbody tr";
    browser.shows(first, "POST /login/0");
    browser.click("thead button", "request");
    browser.shows(first, "POST /login/9999");
    let sort = "return document.querySelector('[aria-sort]').ariaSort";
    assert_eq!(browser.run(sort), "descending");
    browser.press("/");
    browser.press("login/4242");
    browser.shows(first, "POST /login/4242");
    browser.shows("section [role=status]", "1 of 10000");
}

#[test]
fn a_table_is_shown_as_json_where_there_is_no_clipboard() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.url("/refusals?q=sub%3A42"));
    browser.shows("tbody", "/login");
    browser.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })");
    browser.click("button", "Copy JSON");
    browser.shows("dialog pre", "\"path\": \"/login\"");
    assert!(!browser.text("dialog pre").contains("/checkout"), "what is filtered out is left out");
}

#[test]
fn rows_stay_where_they_are_while_their_numbers_change() {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.url("/traffic"));
    browser.shows("tbody", "1,284");
    browser.run("document.querySelector('tbody tr').marked = true");
    browser.press("j");
    stage.send("tick", &tick(30.5));
    browser.shows("tbody", "30.5");
    let kept = "return [...document.querySelectorAll('tbody tr')]\
                .find((it) => it.textContent.startsWith('products')).marked === true";
    assert_eq!(browser.run(kept), true);
    let focus = "return document.activeElement.textContent";
    assert_eq!(browser.run(focus), "products", "the focus stays");
}

#[test]
fn what_the_api_refuses_is_said() {
    let (stage, browser) = (Stage::new(), Browser::start());
    let away = problem("store_unreachable", "The store cannot be reached.");
    stage.answer_with("GET /v1/overview", 503, away.clone());
    stage.answer_with("GET /v1/limits", 503, away);
    browser.open(&stage.url("/limits?policy=login&key=claim%3Asub%3D42"));
    browser.shows(".notice:not([hidden])", "▲ The store cannot be reached.");
    browser.shows(".answer", "✖ The store cannot be reached.");
}
