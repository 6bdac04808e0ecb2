//! Four questions of operators, answered as docs/operations.md says: in the browser by so many
//! clicks, and by one command. The gateway, its Redis, its traffic and the browser are real.

use std::io::Write as _;

use crate::support::{
    AUTH, Browser, Client, ENTER, Gateway, Redis, Upstream, claims, eventually, operate, response,
    token,
};

const ROUTES: &str = r#"
[session]
id_from = ["claim:sid"]
idle_timeout = "30m"
[limits.api]
key = ["claim:sub"]
allow = ["2/1h"]
[routes.orders]
path = "/orders/*"
upstream = "shop"
auth = "users"
limits = ["api"]
[routes.me]
path = "/me"
upstream = "shop"
auth = "users"
session = true
[routes.products]
path = "/products/*"
upstream = "shop"
cache = { ttl = "1h" }
"#;

struct Shop {
    gateway: Gateway,
    browser: Browser,
    _redis: Redis,
    _upstream: Upstream,
}

impl Shop {
    fn open() -> Self {
        let (redis, browser) = (Redis::start(), Browser::start());
        let upstream = Upstream::with(|_, connection| {
            let _ = connection.write_all(response("200 OK", "hello").as_bytes());
        });
        let gateway = Gateway::start(&format!(
            "[store]\nurl = \"{}\"\ntimeout = \"5s\"\n{AUTH}{}{ROUTES}",
            redis.url(),
            upstream.table("shop")
        ));
        browser.open(&format!("http://{}/ui/", gateway.admin));
        browser.shows("body", "● live");
        Self { gateway, browser, _redis: redis, _upstream: upstream }
    }

    fn get(&self, path: &str, user: &str) -> u16 {
        let mut claims = claims(user);
        claims["sid"] = format!("{user}-phone").into();
        let token = token(claims);
        let request = Client::get(self.gateway.public, path);
        request.header("Authorization", format!("Bearer {token}")).send().status
    }

    /// What a command prints.
    fn command(&self, arguments: &[&str]) -> String {
        let admin = format!("http://{}", self.gateway.admin);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(arguments)
            .args(["--admin", &admin])
            .output()
            .expect("the command runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Two keys, a word, one click.
#[test]
fn why_was_user_42_refused() {
    let shop = Shop::open();
    let statuses: Vec<u16> = (0..3).map(|n| shop.get(&format!("/orders/{n}"), "42")).collect();
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(shop.get("/orders/1", "7"), 200);
    shop.browser.press("gr");
    shop.browser.shows("h1", "Refusals");
    shop.browser.press("/");
    shop.browser.press(&format!("sub:42{ENTER}"));
    shop.browser.click("tbody .row", ":");
    for told in ["limit_exceeded", "api", "claim:sub=42", "/orders/2"] {
        shop.browser.shows("dialog", told);
    }
    let told = shop.command(&["requests", "--subject", "42", "--refused"]);
    for part in ["429", "limit_exceeded", "api", "claim:sub=42", "/orders/2"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// One click for the route, one for its request: the bar says who was slow.
#[test]
fn which_route_is_slow_and_who_makes_it_so() {
    let shop = Shop::open();
    eventually("one is kept", || {
        assert_eq!(shop.get("/me", "42"), 200);
        let kept = operate(&shop.gateway, "GET", "/v1/requests?route=me", "").json();
        kept["requests"][0]["stages_us"].is_object()
    });
    shop.browser.click("main tbody .row", "me");
    shop.browser.shows("h1", "Traffic");
    shop.browser.click("tbody .row", ":");
    shop.browser.shows("dialog h2", "GET /me");
    for stage in ["store", "upstream"] {
        shop.browser.shows("dialog", stage);
    }
    let told = shop.command(&["requests", "--route", "me"]);
    for part in ["store", "upstream"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// No click: the page says it of each route.
#[test]
fn is_the_cache_worth_it_on_this_route() {
    let shop = Shop::open();
    for _ in 0..4 {
        assert_eq!(Client::get(shop.gateway.public, "/products/1").send().status, 200);
    }
    shop.browser.press("gc");
    shop.browser.shows("h1", "Cache");
    shop.browser.shows("main tbody", "products");
    let told = shop.command(&["cache", "--route", "products"]);
    assert!(told.contains("products") && told.contains('%'), "{told}");
}

/// Two keys, the name, a click, and the name once more.
#[test]
fn log_one_user_out_everywhere() {
    let shop = Shop::open();
    let reply = operate(&shop.gateway, "PUT", "/v1/sessions/42-phone?user=42&ttl=20m", "{}");
    assert_eq!(reply.status, 201);
    assert_eq!((shop.get("/me", "42"), shop.get("/me", "7")), (200, 200));
    shop.browser.press("gi");
    shop.browser.shows("h1", "Identity");
    shop.browser.run("document.querySelector('input[name=user]').focus()");
    shop.browser.press(&format!("42{ENTER}"));
    shop.browser.shows("[aria-label=Sessions] tbody", "42-phone");
    shop.browser.click("main button", "Log out everywhere…");
    shop.browser.run("document.querySelector('dialog input').focus()");
    shop.browser.press("42");
    shop.browser.click("dialog button.verb", "Log out everywhere");
    shop.browser.shows("dialog .outcome", "1 sessions ended, and the tokens are revoked.");
    assert_eq!((shop.get("/me", "42"), shop.get("/me", "7")), (401, 200));
    shop.command(&["revoke", "--sub", "7"]);
    assert_eq!(shop.get("/me", "7"), 401);
}
