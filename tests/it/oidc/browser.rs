//! The whole walk in a real browser: Chromium, over TLS, at a real provider.

use serde_json::{Value, json};

use super::SECRET;
use crate::support::{
    Browser, CertificateAuthority, Folder, Gateway, OidcProvider, Redis, Upstream, eventually,
    operate, response,
};

/// The shop at `gw.test`, and a page of a sister domain beside it.
fn configuration(redis: &Redis, issuer: &str, upstream: &Upstream, port: u16) -> String {
    format!(
        "[store]\nurl = \"{}\"\ntimeout = \"5s\"\nconnect_timeout = \"5s\"\n\
         [server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
         certificates = [{{ cert = \"site.pem\", key = \"site.key\" }}]\n\
         [session]\nmake = {{}}\n\
         [providers.id]\nissuer = \"{issuer}\"\nclient_id = \"shop\"\n\
         client_secret = \"{SECRET}\"\n\
         redirect_uri = \"https://gw.test:{port}/callback\"\nclaims = [\"email\"]\n\
         scopes = [\"openid\", \"email\"]\nuserinfo = true\n\
         [auth.web]\nsession = true\n\
         {}\
         [routes.login]\nhost = \"gw.test\"\npath = \"/login\"\nanswers = \"login\"\n\
         [routes.callback]\nhost = \"gw.test\"\npath = \"/callback\"\nanswers = \"callback\"\n\
         [routes.me]\nhost = \"gw.test\"\npath = \"/me\"\nanswers = \"session\"\n\
         [routes.private]\nhost = \"gw.test\"\npath = \"/private/*\"\nupstream = \"shop\"\n\
         auth = \"web\"\nlogin = \"/login\"\n\
         [routes.sister]\nhost = \"evil.gw.test\"\npath = \"/*\"\n\
         respond = {{ status = 200, body = \"sister\", content_type = \"text/html\" }}\n",
        redis.url(),
        upstream.table("shop"),
    )
}

struct Walk {
    redis: Redis,
    _provider: OidcProvider,
    gateway: Gateway,
    upstream: Upstream,
    browser: Browser,
    origin: String,
    sister: String,
}

impl Walk {
    fn begin() -> Self {
        let (redis, provider) =
            (Redis::start(), OidcProvider::start(&json!({"formsToClick": true})));
        let page = "<!doctype html><title>Shop</title><h1>private</h1>";
        let upstream = Upstream::replying(response("200 OK\r\nContent-Type: text/html", page));
        let pair = CertificateAuthority::new().issue(&["gw.test", "evil.gw.test"]);
        let folder = Folder::new();
        folder.write("site.pem", &pair.cert);
        folder.write("site.key", &pair.key);
        let config = |port: u16| configuration(&redis, &provider.issuer(), &upstream, port);
        let gateway = Gateway::start_in(folder, &config(1));
        // Its own address is known by now.
        let port = gateway.listening("tls").port();
        gateway.rewrite(&config(port));
        gateway.signal("HUP");
        eventually("it is reloaded", || gateway.stderr().contains("configuration was reloaded"));
        let origin = format!("https://gw.test:{port}");
        provider.register(&json!({
            "client_id": "shop",
            "client_secret": SECRET,
            "redirect_uris": [format!("{origin}/callback")],
            "grant_types": ["authorization_code"],
            "response_types": ["code"],
        }));
        let sister = format!("https://evil.gw.test:{port}");
        let browser = Browser::start_without_authorities();
        Self { redis, _provider: provider, gateway, upstream, browser, origin, sister }
    }

    fn cookie(&self) -> Option<Value> {
        self.browser.cookies().into_iter().find(|it| it["name"] == "__Host-session")
    }

    /// The value of the session's cookie.
    fn session(&self) -> String {
        let cookie = self.cookie().expect("a session");
        cookie["value"].as_str().expect("a value").to_owned()
    }

    /// What a script of the page gets from this path.
    fn fetch(&self, path: &str) -> Value {
        let script = format!(
            "return fetch({path:?}, {{ cache: 'no-store' }}).then((it) => it.json().then((body) => \
             ({{ status: it.status, body }})))"
        );
        self.browser.run(&script)
    }

    /// Opens the page, which the provider lets in without a question.
    fn open_again(&self) {
        self.browser.open(&format!("{}/private/page", self.origin));
        self.browser.shows("h1", "private");
    }

    /// The key of the one session that there is.
    fn key(&self) -> String {
        let keys = self.redis.cli(&["KEYS", "app:session:*"]);
        let mut keys = keys.lines();
        let key = keys.next().expect("a session").to_owned();
        assert_eq!(keys.next(), None);
        key
    }
}

#[test]
fn a_person_logs_in_is_kept_safe_and_is_logged_out() {
    let walk = Walk::begin();
    let browser = &walk.browser;

    // Log in: the page, the provider's form, and the page again.
    browser.open(&format!("{}/private/page?x=1", walk.origin));
    browser.shows("h1", "Provider");
    browser.click("button", "Log in as ada");
    browser.shows("h1", "private");
    let place = browser.run("return location.href");
    assert_eq!(place, format!("{}/private/page?x=1", walk.origin));

    // The cookie is as stated, and no script reads it.
    let cookie = walk.cookie().expect("a session");
    assert_eq!((&cookie["httpOnly"], &cookie["secure"]), (&json!(true), &json!(true)), "{cookie}");
    assert_eq!((&cookie["sameSite"], &cookie["path"]), (&json!("Lax"), &json!("/")), "{cookie}");
    assert_eq!(cookie["domain"], "gw.test", "{cookie}");
    assert!(cookie.get("expiry").is_none(), "{cookie}");
    let names: Vec<Value> = browser.cookies().into_iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["__Host-session"], "the log-in has left nothing");
    assert_eq!(browser.run("return document.cookie"), "");
    let me = walk.fetch("/me");
    assert_eq!((&me["status"], &me["body"]["sub"]), (&json!(200), &json!("ada")), "{me}");
    assert_eq!(browser.run("return document.referrer"), "", "no page learns of the callback");

    // A page of a sister domain has the browser send it, cookie and all, and is refused.
    walk.upstream.forget();
    browser.open(&format!("{}/", walk.sister));
    let target = format!("{}/private/order", walk.origin);
    let script = format!(
        "return fetch({target:?}, {{ method: 'POST', mode: 'no-cors', credentials: 'include' }})\
         .then((it) => it.type)"
    );
    assert_eq!(browser.run(&script), "opaque");
    let order =
        || walk.gateway.access_lines().into_iter().find(|it| it["path"] == "/private/order");
    eventually("its line is written", || order().is_some());
    let line = order().expect("a line");
    assert_eq!((&line["status"], &line["reason"]), (&json!(403), &json!("cross_site_request")));
    assert!(walk.upstream.recorded().is_empty(), "it has reached the upstream");

    // Nobody has used it for half an hour. The provider still knows who it is.
    let before = cookie["value"].as_str().expect("a value").to_owned();
    let life: u64 = walk.redis.cli(&["PTTL", &walk.key()]).trim().parse().expect("a life");
    assert!((1..=30 * 60 * 1000).contains(&life), "{life}");
    walk.redis.cli(&["PEXPIRE", &walk.key(), "1"]);
    eventually("it is idle", || walk.redis.cli(&["KEYS", "app:session:*"]).trim().is_empty());
    walk.open_again();
    assert_ne!(walk.session(), before);

    // It was used all the time, and is older than twelve hours.
    let before = walk.session();
    assert_eq!(walk.fetch("/me")["status"], 200);
    let key = walk.key();
    let mut said: Value = serde_json::from_str(&walk.redis.cli(&["GET", &key])).expect("JSON");
    said["created_at"] = json!(said["created_at"].as_u64().expect("a time") - 13 * 60 * 60);
    walk.redis.cli(&["SET", &key, &said.to_string(), "KEEPTTL"]);
    assert_eq!(walk.fetch("/me")["status"], 401);
    walk.open_again();
    assert_ne!(walk.session(), before);

    // Log out everywhere.
    let reply = operate(&walk.gateway, "DELETE", "/v1/users/ada/sessions", "");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(walk.fetch("/me")["status"], 401);
    // And in again, in a session that the log-out does not meet.
    walk.open_again();
    assert_eq!(walk.fetch("/me")["status"], 200);
}
