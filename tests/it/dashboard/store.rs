//! The page Store of a real gateway with a real Redis: how full it is, who may ask it what, and
//! that it is away.

use std::time::Duration;

use super::look::clean;
use super::stage::GATEWAY;
use crate::support::{Browser, Gateway, Redis, TcpProxy, eventually, eventually_within};

const PASSWORD: &str = "look-but-do-not-touch";
/// A limit is why the store is asked.
const LIMITED: &str = "[limits.many]\nkey = [\"address\"]\nallow = [\"1000/1h\"]\n\
                       [routes.limited]\npath = \"/limited\"\nupstream = \"shop\"\n\
                       limits = [\"many\"]\n";

fn address(gateway: &Gateway) -> String {
    format!("http://{}/ui/#/store", gateway.admin)
}

#[test]
fn redis_is_seen_as_it_is_and_as_it_is_away() {
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let password = format!(">{PASSWORD}");
    let operator = |rules: &[&str]| {
        let words = [&["ACL", "SETUSER", "operator"], rules].concat();
        assert_eq!(redis.cli(&words), "OK");
    };
    operator(&["on", &password, "~app:*", "+@all"]);
    redis.cli(&["CONFIG", "SET", "maxmemory", "64mb"]);
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    redis.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    let gateway = Gateway::start(&format!(
        "[store]\nurl = \"{}\"\n[store.operator]\nusername = \"operator\"\n\
         password = \"{PASSWORD}\"\n{GATEWAY}{LIMITED}",
        proxy.url()
    ));
    let browser = Browser::start();
    browser.open(&address(&gateway));
    let (servers, said) = ("section[aria-label=Servers] tbody", "[aria-label='Redis says'] tbody");
    browser.shows(servers, "primary● healthy");
    browser.shows(said, "of 64 MiB");
    browser.shows(said, "✖ allkeys-lru");
    browser.shows("[aria-label='Slow log'] tbody", "INFO");
    browser.shows("[aria-label='What to do']", "maxmemory-policy");
    browser.shows("figure.chart", "store.timeout50 ms");
    browser.click("main button", "Run doctor");
    let doctor = "section[aria-label=Doctor] tbody";
    // What is worst stands first, with what to do.
    browser.shows(&format!("{doctor} tr"), "policy");
    browser.shows(&format!("{doctor} tr"), "✖ poor");
    browser.shows(&format!("{doctor} tr"), "noeviction");
    browser.shows(doctor, "● good");
    browser.shows("[aria-label='Run doctor']", "Looked at by the gateway");
    operator(&["-slowlog|get"]);
    browser.shows("[aria-label='What to do']", "Not permitted: slowlog|get.");
    browser.shows("[aria-label='What to do']", "ACL SETUSER operator +slowlog|get");
    for theme in ["light", "dark"] {
        browser.prefer(theme);
        for width in [1280, 320] {
            browser.resize(width, 700);
            clean(&browser, &address(&gateway), &format!("the page in {theme}, {width} wide"));
        }
    }
    proxy.refuse();
    browser.shows(servers, "✖ open");
    browser.shows("[aria-label='What to do']", "The main store does not answer.");
    proxy.pass();
    eventually_within(Duration::from_secs(60), "it answers again", || {
        browser.text(servers).contains("● healthy")
            && !browser.text("[aria-label='What to do']").contains("does not answer")
    });
    browser.shows(said, "✖ allkeys-lru");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn who_may_not_look_is_told_what_is_missing() {
    let redis = Redis::start();
    let blind = Gateway::start(&format!("[store]\nurl = \"{}\"\n{GATEWAY}", redis.url()));
    let embedded = Gateway::start(GATEWAY);
    let browser = Browser::start();
    browser.open(&address(&blind));
    browser.shows("main", "main: redis");
    browser.shows("[aria-label='What to do']", "Not permitted: info, dbsize, slowlog|get.");
    browser.shows("[aria-label='What to do']", "portcullis acl --operator");
    browser.open(&address(&embedded));
    browser.shows("main", "main: memory");
    browser.shows("section[aria-label=Servers]", "The embedded store has no server.");
    eventually("nothing is to be done", || browser.count("[aria-label='What to do'][hidden]") == 1);
}
