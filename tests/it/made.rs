//! Sessions that the gateway makes: begun by an upstream's answer, used as the credential, guarded
//! against other sites, ended by a log-out.

mod answers;
mod away;
mod cross_site;
mod ends;
mod login;
mod sealed;
mod used;

use serde_json::{Value, json};

use crate::auth::code;
use crate::support::{
    AUTH, Client, Exposition, Gateway, Redis, Reply, Request, Upstream, response,
};

/// The name of the cookie, as it is unless the file says otherwise.
const COOKIE: &str = "__Host-session";

/// Sessions by log-in, and routes that take them.
const ROUTES: &str = r#"
[auth.web]
session = true
claims_to_headers = { x-web-user = "sub", x-web-role = "role" }
[routes.login]
path = "/login"
methods = ["POST"]
upstream = "shop"
issues = { session = true, sub = "/user/id", claims = { role = "/user/role", sid = "/sid" } }
[routes.me]
path = "/me"
upstream = "shop"
auth = "web"
[routes.admin]
path = "/admin"
upstream = "shop"
auth = "web"
require = { role = ["admin"] }
[routes.maybe]
path = "/maybe"
upstream = "shop"
auth = { by = "web", optional = true }
[routes.both]
path = "/both"
upstream = "shop"
auth = ["users", "web"]
[routes.open]
path = "/open"
upstream = "shop"
[routes.attached]
path = "/attached"
upstream = "shop"
session = true
[routes.session]
path = "/session"
answers = "session"
fields = ["role", "none"]
[routes.logout]
path = "/logout"
answers = "logout"
[routes.goodbye]
path = "/goodbye"
answers = "logout"
then = "/bye?now=1"
clear_site_data = true
"#;

struct House {
    redis: Redis,
    upstream: Upstream,
    gateway: Gateway,
}

/// An upstream that logs in whoever it is asked to: the body of a request to `/login` is the answer
/// to it. Elsewhere it says ok.
fn shop() -> Upstream {
    Upstream::with(|request, connection| {
        use std::io::Write;
        let answer = if request.target() == "/login" {
            let head = "200 OK\r\nContent-Type: application/json\r\nSet-Cookie: theme=dark";
            response(head, &request.text())
        } else {
            response("200 OK", "ok")
        };
        let _ = connection.write_all(answer.as_bytes());
    })
}

impl House {
    fn start() -> Self {
        Self::with("", "")
    }

    /// With more of `[session]` and its `make`, and more routes.
    fn with(session: &str, more: &str) -> Self {
        let (redis, upstream) = (Redis::start(), shop());
        let config = config(&redis.url(), &upstream, session, more);
        let gateway = Gateway::start(&config);
        Self { redis, upstream, gateway }
    }

    fn login(&self, sub: &str, role: &str) -> Browser {
        let body = json!({ "user": { "id": sub, "role": role } });
        Browser::of(&log_in(&self.gateway, &body).send())
    }

    /// A request with the cookie.
    fn get(&self, path: &str, browser: &Browser) -> Reply {
        browser.ask(&self.gateway, "GET", path).send()
    }

    /// Status and code of a refusal, which must not reach the upstream.
    fn refused(&self, path: &str, browser: &Browser) -> (u16, String) {
        self.upstream.forget();
        let reply = self.get(path, browser);
        assert_eq!(self.upstream.seen(), 0, "{}", reply.text());
        (reply.status, code(&reply))
    }

    fn key(&self, browser: &Browser) -> String {
        let _ = self;
        format!("app:session:{}", browser.id())
    }

    /// What the store has of a session.
    fn stored(&self, browser: &Browser) -> Value {
        let text = self.redis.cli(&["GET", &self.key(browser)]);
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"))
    }

    fn count(&self, outcome: &str) -> f64 {
        let text = Client::get(self.gateway.admin, "/metrics").send().text();
        let labels = [("outcome", outcome)];
        Exposition::text(&text).value("portcullis_logins_total", &labels).unwrap_or_default()
    }
}

fn config(store: &str, upstream: &Upstream, session: &str, more: &str) -> String {
    // Nothing here is about deadlines, and the machine may be busy.
    let store = format!("url = \"{store}\"\ntimeout = \"5s\"\nconnect_timeout = \"5s\"\n");
    format!("[store]\n{store}{}", in_memory(upstream, session, more))
}

/// The same with the embedded store.
fn in_memory(upstream: &Upstream, session: &str, more: &str) -> String {
    let make = if session.contains("make") { "" } else { "make = {}\n" };
    let shop = upstream.table("shop");
    format!("{AUTH}{shop}[session]\n{make}{session}{ROUTES}{more}")
}

/// A request that logs in, to which the upstream answers this.
fn log_in(gateway: &Gateway, answer: &Value) -> Request<'static> {
    Client::request(gateway.public, "POST", "/login").body(answer.to_string())
}

/// Who has a session.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Browser {
    value: String,
}

impl Browser {
    /// Takes the cookie that an answer sets.
    fn of(reply: &Reply) -> Self {
        assert_eq!(reply.status, 200, "{}", reply.text());
        let value = cookie(reply).unwrap_or_else(|| panic!("no cookie: {reply:?}"));
        Self { value }
    }

    fn ask(&self, gateway: &Gateway, method: &str, path: &str) -> Request<'static> {
        Client::request(gateway.public, method, path).header("Cookie", self.cookie())
    }

    fn cookie(&self) -> String {
        format!("{COOKIE}={}", self.value)
    }

    /// What the store calls its session.
    fn id(&self) -> String {
        use aws_lc_rs::digest::{SHA256, digest};
        use base64::Engine as _;
        let digest = digest(&SHA256, self.value.as_bytes());
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest)
    }
}

/// The value of the session's cookie that an answer sets; nothing where it sets none.
fn cookie(reply: &Reply) -> Option<String> {
    let lines = reply.headers_named("set-cookie");
    let mut set = lines.iter().filter_map(|line| line.strip_prefix(&format!("{COOKIE}=")));
    let value = set.next()?.split(';').next()?.to_owned();
    assert_eq!(set.next(), None, "{lines:?}");
    (!value.is_empty()).then_some(value)
}
