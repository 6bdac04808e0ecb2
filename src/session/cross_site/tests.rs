//! Each combination of what a request may say of the page that has sent it.

use std::path::Path;

use super::*;
use crate::config;
use crate::session::{CookieValue, Made};

/// What is listed as `csrf_origins`.
fn origins() -> Vec<Origin> {
    let text = "[session]\nmake = { csrf_origins = ['https://app.shop.test'] }\n";
    let loaded = config::parse("t.toml", Path::new("."), text, &|_| None).expect("TOML");
    loaded.config.session.and_then(|it| it.make).expect("make").csrf_origins
}

fn shown() -> (Shown, CookieValue) {
    let text = "[session]\nmake = {}\n";
    let loaded = config::parse("t.toml", Path::new("."), text, &|_| None).expect("TOML");
    let made = Made::of(&loaded.config.session.and_then(|it| it.make).expect("make"));
    let mut headers = HeaderMap::new();
    let line = format!("__Host-session={}", "a".repeat(43));
    headers.insert(http::header::COOKIE, line.parse().expect("a line"));
    let shown = made.take(&mut headers).expect("shown");
    let value = *shown.one().expect("one");
    (shown, value)
}

/// The fields of a request, which names each `;`-separated `name=value` in a row.
fn fields(text: &str) -> HeaderMap {
    let pairs = text.split(';').filter(|it| !it.is_empty()).map(|it| it.split_once('=').unwrap());
    let short = |name: &str| match name {
        "site" => SEC_FETCH_SITE,
        "origin" => ORIGIN,
        "token" => CSRF_TOKEN,
        other => panic!("{other}"),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(short(name), value.parse().unwrap());
    }
    headers
}

fn judged(
    (method, is_handshake): (&Method, bool),
    text: &str,
    authority: &str,
) -> Result<(), CrossSite> {
    let (shown, value) = shown();
    let text = text.replace("TOKEN", &value.csrf_token());
    let headers = fields(&text);
    let authority = Authority::parse(authority.as_bytes()).unwrap();
    let (headers, authority, scheme) = (&headers, &authority, "https");
    let sender = Sender { method, is_handshake, headers, scheme, authority };
    if !sender.may_change() { Ok(()) } else { sender.judge(Some(&shown), &origins()) }
}

#[test]
fn who_sends_it_is_said_by_the_first_that_says_it() {
    use CrossSite::{NoToken, Origin, Site, WrongToken};
    const OWN: &str = "origin=https://shop.test";
    const OTHER: &str = "origin=https://evil.test";
    for (text, expected) in [
        ("site=same-origin", Ok(())),
        ("site=none", Ok(())),
        ("site=same-site", Err(Site)),
        ("site=cross-site", Err(Site)),
        ("site=", Err(Site)),
        ("site=same-origin;site=cross-site", Err(Site)),
        // The page's word does not outweigh the browser's.
        (&format!("site=cross-site;{OWN}"), Err(Site)),
        ("site=cross-site;token=TOKEN", Err(Site)),
        ("site=same-site;origin=https://app.shop.test", Ok(())),
        ("site=cross-site;origin=https://app.shop.test", Ok(())),
        ("site=same-site;origin=https://other.shop.test", Err(Site)),
        ("site=same-site;origin=https://app.shop.test;origin=https://x.test", Err(Site)),
        (&format!("site=same-origin;{OTHER}"), Ok(())),
        (OWN, Ok(())),
        ("origin=https://shop.test:443", Ok(())),
        ("origin=HTTPS://Shop.Test", Ok(())),
        ("origin=http://shop.test", Err(Origin)),
        ("origin=https://shop.test:444", Err(Origin)),
        ("origin=https://shop.test.evil.test", Err(Origin)),
        ("origin=https://evil.test/https://shop.test", Err(Origin)),
        ("origin=https://user@shop.test", Err(Origin)),
        ("origin=", Err(Origin)),
        ("origin=https://app.shop.test", Ok(())),
        (OTHER, Err(Origin)),
        (&format!("{OTHER};token=TOKEN"), Err(Origin)),
        (&format!("{OWN};{OTHER}"), Err(Origin)),
        ("", Err(NoToken)),
        ("origin=null", Err(NoToken)),
        ("token=TOKEN", Ok(())),
        ("origin=null;token=TOKEN", Ok(())),
        ("token=x", Err(WrongToken)),
        ("token=TOKEN;token=TOKEN", Err(NoToken)),
        ("origin=null;origin=null;token=TOKEN", Err(Origin)),
    ] {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let judged = judged((&method, false), text, "shop.test");
            assert_eq!(judged, expected, "{method} {text}");
        }
        // A WebSocket is opened by a safe method.
        assert_eq!(judged((&Method::GET, true), text, "shop.test"), expected, "{text}");
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            let judged = judged((&method, false), text, "shop.test");
            assert_eq!(judged, Ok(()), "{method} {text}");
        }
    }
    let post = (&Method::POST, false);
    assert_eq!(judged(post, "origin=https://shop.test:8443", "shop.test:8443"), Ok(()));
    assert_eq!(judged(post, "origin=https://shop.test", "shop.test:443"), Ok(()));
}

#[test]
fn who_logs_in_can_know_no_token() {
    use CrossSite::{NoToken, Origin, Site};
    for (text, expected) in [
        ("", Ok(())),
        ("site=same-origin", Ok(())),
        ("site=cross-site", Err(Site)),
        ("site=same-site", Err(Site)),
        ("origin=https://shop.test", Ok(())),
        ("origin=https://app.shop.test", Ok(())),
        ("origin=https://evil.test", Err(Origin)),
        ("origin=null", Err(NoToken)),
    ] {
        let headers = fields(text);
        let authority = Authority::parse(b"shop.test").unwrap();
        let (method, scheme, is_handshake) = (&Method::POST, "https", false);
        let (headers, authority) = (&headers, &authority);
        let sender = Sender { method, is_handshake, headers, scheme, authority };
        assert_eq!(sender.judge_log_in(&origins()), expected, "{text}");
    }
}
