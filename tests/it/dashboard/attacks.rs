//! What others could do with an operator's browser, tried in one: pages on other ports and under
//! rebound names, frames, guesses, cookies, and markup in what strangers send. The gateway is real.

use std::io::Write as _;

use serde_json::{Value, json};

use super::stage::GATEWAY;
use crate::support::{Browser, Chunks, Client, ENTER, Gateway, Redis, Upstream, eventually, raw};

const TOKEN: &str = "operator-0123456789";
const READ_TOKEN: &str = "reader-0123456789";

/// A gateway where nobody logs in: a browser on this machine may do everything.
fn open() -> Gateway {
    Gateway::start(GATEWAY)
}

/// One where a token is wanted.
fn closed() -> Gateway {
    let admin = format!("[admin]\ntoken = \"{TOKEN}\"\nread_token = \"{READ_TOKEN}\"\n");
    Gateway::start(&(admin + GATEWAY))
}

/// A page that anybody may have on another port of this machine.
fn stranger() -> Upstream {
    Upstream::raw(|stream| {
        let mut chunks = Chunks::of(stream);
        let body = "<!doctype html><title>stranger</title><p>A page of somebody else.";
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length";
        while let Ok(Some(_)) = chunks.until(b"\r\n\r\n") {
            let answer = format!("{head}: {}\r\n\r\n{body}", body.len());
            let _ = chunks.stream().write_all(answer.as_bytes());
        }
    })
}

fn ui(gateway: &Gateway) -> String {
    format!("http://{}/ui/", gateway.admin)
}

/// What a fetch by the page comes to: its status, or -1 where the page is kept from it.
fn fetch(browser: &Browser, url: &str, options: &Value) -> i64 {
    let script =
        format!("return fetch({url:?}, {options}).then((it) => it.status).catch(() => -1)");
    browser.run(&script).as_i64().expect("a status")
}

/// The lines of the audit that say that something was done.
fn done(gateway: &Gateway) -> Vec<String> {
    let all = gateway.stderr();
    let lines = all.lines().filter(|line| line.contains(" audit from="));
    lines.filter(|line| line.contains("result=done")).map(str::to_owned).collect()
}

fn refused(gateway: &Gateway) -> usize {
    gateway.stderr().matches("result=refused").count()
}

#[test]
fn a_page_on_another_port_reads_nothing_and_does_nothing() {
    let (gateway, stranger, browser) = (open(), stranger(), Browser::start());
    browser.open(&stranger.url());
    browser.shows("p", "somebody else");
    let at = |path: &str| format!("http://{}{path}", gateway.admin);
    let purge = json!({ "all": true }).to_string();
    let typed = json!({ "Content-Type": "application/json" });
    for (path, options) in [
        ("/v1/overview", json!({})),
        ("/v1/overview", json!({ "mode": "no-cors", "credentials": "include" })),
        ("/v1/live", json!({ "mode": "no-cors" })),
        ("/v1/cache/purge", json!({ "method": "POST", "headers": typed, "body": purge })),
        ("/v1/cache/purge", json!({ "method": "POST", "mode": "no-cors", "body": purge })),
        ("/v1/login/code", json!({ "method": "POST", "mode": "no-cors", "body": "{}" })),
    ] {
        assert_eq!(fetch(&browser, &at(path), &options), -1, "{path} {options}");
    }
    // A form of its own, and things that are fetched because a page names them.
    browser.run(&format!(
        "const form = Object.assign(document.createElement('form'),
           {{ method: 'POST', action: {:?}, enctype: 'text/plain', target: 'out' }});
         const field = Object.assign(document.createElement('input'),
           {{ name: '{{\"all\":true,\"x\":\"', value: '\"}}' }});
         form.append(field);
         document.body.append(form, Object.assign(document.createElement('iframe'),
           {{ name: 'out' }}), Object.assign(new Image(), {{ src: {:?} }}));
         form.submit();",
        at("/v1/cache/purge"),
        at("/v1/status"),
    ));
    eventually("the form was refused, too", || refused(&gateway) >= 3);
    assert_eq!(done(&gateway), Vec::<String>::new());
    // The same from a page without an origin.
    let sandboxed = format!(
        "return new Promise((told) => {{
           addEventListener('message', (it) => told(it.data));
           const frame = document.createElement('iframe');
           frame.sandbox = 'allow-scripts';
           frame.srcdoc = `<script>fetch({:?}, {{ method: 'POST', mode: 'no-cors', body: '{{}}' }})
             .then((it) => parent.postMessage(it.type, '*'))
             .catch(() => parent.postMessage('failed', '*'))</` + `script>`;
           document.body.append(frame);
         }})",
        at("/v1/config/reload")
    );
    assert_eq!(browser.run(&sandboxed), "failed", "it is nobody's to read");
    eventually("it was refused", || refused(&gateway) >= 4);
    assert_eq!(done(&gateway), Vec::<String>::new());
}

#[test]
fn no_other_page_frames_it_or_keeps_hold_of_it() {
    let (gateway, stranger, browser) = (open(), stranger(), Browser::start());
    browser.open(&stranger.url());
    browser.run(&format!(
        "return new Promise((told) => {{
           const frame = document.createElement('iframe');
           frame.onload = told;
           frame.src = {:?};
           document.body.append(frame);
         }})",
        ui(&gateway)
    ));
    browser.enter_frame();
    assert_eq!(browser.count("#top, .brand"), 0, "nothing of it is in the frame");
    browser.open(&stranger.url());
    // A link on somebody's page opens it no more than a form does.
    browser.run(&format!("location.href = {:?}", ui(&gateway)));
    browser.shows("body", "cross_site_refused");
}

/// The name belongs to somebody else, who has it lead to this machine.
#[test]
fn a_rebound_name_opens_nothing_where_nobody_logs_in() {
    let (gateway, browser) = (open(), Browser::start());
    let port = gateway.admin.port();
    browser.open(&format!("http://gw.test:{port}/ui/"));
    browser.shows("body", "admin_loopback_only");
    // The page is of that origin by now, so nothing that it asks is cross-site.
    let purge = json!({
        "method": "POST",
        "headers": { "Content-Type": "application/json" },
        "body": "{\"all\": true}",
    });
    assert_eq!(fetch(&browser, "/v1/overview", &json!({})), 403);
    assert_eq!(fetch(&browser, "/v1/cache/purge", &purge), 403);
    assert_eq!(done(&gateway), Vec::<String>::new());
}

/// With a token nothing is ambient: any name does, and the page says that nobody encrypts.
#[test]
fn a_name_of_the_network_wants_the_token_and_warns() {
    let (gateway, browser) = (closed(), Browser::start());
    browser.open(&format!("http://gw.test:{}/ui/", gateway.admin.port()));
    browser.shows("main label", "Token");
    assert_eq!(browser.count(".warning"), 1);
    assert_eq!(fetch(&browser, "/v1/overview", &json!({})), 401);
    browser.press(&format!("{TOKEN}{ENTER}"));
    browser.shows("body", "● live");
}

#[test]
fn no_cookie_lets_anybody_in_and_guesses_end() {
    let (gateway, browser) = (closed(), Browser::start());
    browser.open(&ui(&gateway));
    browser.shows("main label", "Token");
    browser.run(&format!("document.cookie = 'session={TOKEN}; path=/'"));
    assert_eq!(fetch(&browser, "/v1/overview", &json!({ "credentials": "include" })), 401);
    for _ in 0..5 {
        browser.shows("main label", "Token");
        browser.press(&format!("wrong{ENTER}"));
        browser.shows("[role=alert]", "neither admin.token");
        browser.run("document.querySelector('[role=alert]').textContent = ''");
        browser.run("document.querySelector('input[type=password]').select()");
    }
    browser.press(&format!("{TOKEN}{ENTER}"));
    browser.shows("[role=alert]", "Too many log-ins");
    assert_eq!(browser.run("return Object.keys(sessionStorage).length"), 0);
}

#[test]
fn who_only_reads_is_refused_by_the_gateway_itself() {
    let (gateway, browser) = (closed(), Browser::start());
    browser.open(&ui(&gateway));
    browser.shows("main label", "Token");
    browser.press(&format!("{READ_TOKEN}{ENTER}"));
    browser.shows("body", "● live");
    // As a page would that hides nothing.
    let status = browser.run(
        "const session = Object.values(sessionStorage)[0];
         return fetch('/v1/cache/purge', { method: 'POST', body: '{\"all\": true}',
           headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${session}` } })
           .then((it) => it.json()).then((it) => it.type)",
    );
    assert_eq!(status, "urn:portcullis:problem:admin_read_only");
    let purged = done(&gateway).into_iter().filter(|line| line.contains("purge")).count();
    assert_eq!(purged, 0);
}

#[test]
fn a_page_runs_nothing_that_strangers_send() {
    let (gateway, browser) = (open(), Browser::start());
    browser.open(&format!("{}#/refusals", ui(&gateway)));
    browser.shows("body", "● live");
    let path = "/%3Cimg%20src=x%20onerror=alert(1)%3E/\u{202e}gpj";
    raw(
        gateway.public,
        format!(
            "GET {path} HTTP/1.1\r\nHost: <script>alert(1)</script>\r\n\
             User-Agent: <img src=x onerror=alert(1)>\r\nConnection: close\r\n\r\n"
        ),
    );
    Client::get(gateway.public, "/%3Cimg%20src=x%20onerror=alert(1)%3E").send();
    browser.shows("main", "onerror");
    assert_eq!(browser.count("main img, main script"), 0);
    assert_eq!(browser.run("return document.body.textContent.includes('\\u202e')"), false);
    // What got into the page all the same would not run either.
    for script in [
        "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.setAttribute('onclick', 'alert(1)')",
        "document.body.append(Object.assign(document.createElement('script'), { text: '1' }))",
    ] {
        let tried =
            browser.run(&format!("try {{ {script}; return 'ran' }} catch {{ return 'no' }}"));
        assert_eq!(tried, "no", "{script}");
    }
}

/// The page is of the gateway before, and the operator need not load it anew.
#[test]
fn a_gateway_that_comes_back_is_followed_again() {
    let mut redis = Redis::start();
    let config = format!("[store]\nurl = \"{}\"\n{GATEWAY}", redis.url());
    let browser = Browser::start();
    let gateway = Gateway::start(&config);
    let admin = gateway.admin;
    browser.open(&ui(&gateway));
    browser.shows("body", "● live");
    drop(gateway);
    browser.shows("#banner:not([hidden])", "Not live");
    let gateway = Gateway::start(&format!("[admin]\nlisten = \"{admin}\"\n{config}"));
    browser.shows(".live-state", "● live");
    eventually("the banner goes", || browser.count("#banner:not([hidden])") == 0);
    browser.shows("main", "All is well");
    // And Redis goes and comes.
    redis.kill();
    browser.shows("main", "does not answer");
    redis.restart();
    browser.shows("main", "All is well");
    assert_eq!(browser.console(), Vec::<String>::new());
    drop(gateway);
}
