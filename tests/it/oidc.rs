//! Logging in at an OpenID provider: at one that others have written, which runs on Node, and at
//! hostile ones of our own.

mod attacks;
mod backchannel;
mod browser;
mod flow;
mod hostile;
mod renewal;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{
    Client, Folder, Gateway, Jar, OidcProvider, Redis, Reply, Upstream, response,
};

/// What the gateway shows its provider.
const SECRET: &str = "a-secret-of-the-shop-0123456789abcdef";
/// Seals tokens in the store.
const SEAL: &str = "3v1PjY8ySe+rfHc2fYXmZ1i8PcEjfIYt1cmV9l0nqPQ=";

/// What the gateways of these tests have in common: one provider, a page that needs a session, and
/// one that does not.
fn configuration(store: &str, issuer: &str, upstream: &Upstream, more: &str) -> String {
    format!(
        "[store]\n{store}\n\
         [log]\nquery = \"all\"\n\
         [session]\nmake = {{ seal = [\"file:session.key\"] }}\n\
         [providers.id]\nissuer = \"{issuer}\"\nclient_id = \"shop\"\n\
         client_secret = \"{SECRET}\"\nredirect_uri = \"https://shop.test/callback\"\n\
         scopes = [\"openid\", \"email\", \"profile\"]\nclaims = [\"email\", \"roles\"]\n\
         userinfo = true\n{more}\n\
         [auth.web]\nsession = true\n\
         claims_to_headers = {{ x-user = \"sub\", x-email = \"email\" }}\n\
         {}\
         [routes.login]\npath = \"/login\"\nanswers = \"login\"\n\
         [routes.callback]\npath = \"/callback\"\nanswers = \"callback\"\n\
         [routes.ended]\npath = \"/ended\"\nanswers = \"backchannel_logout\"\n\
         [routes.logout]\npath = \"/logout\"\nanswers = \"logout\"\n\
         [routes.me]\npath = \"/me\"\nanswers = \"session\"\n\
         fields = [\"email\", \"roles\", \"provider\"]\n\
         [routes.private]\npath = \"/private/*\"\nupstream = \"shop\"\n\
         auth = \"web\"\nlogin = \"/login\"\n\
         [routes.admin]\npath = \"/admin\"\nupstream = \"shop\"\nauth = \"web\"\n\
         require = {{ roles = [\"admin\"] }}\n",
        upstream.table("shop"),
    )
}

fn store_of(redis: &Redis) -> String {
    format!("url = \"{}\"\ntimeout = \"5s\"\nconnect_timeout = \"5s\"", redis.url())
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("session.key", SEAL);
    folder
}

/// A provider, a gateway that knows it, and what stands behind that.
struct House {
    redis: Redis,
    provider: OidcProvider,
    gateway: Gateway,
    upstream: Upstream,
}

impl House {
    fn open() -> Self {
        Self::with(&json!({}), "")
    }

    /// `settings` are the provider's, `more` stands in `[providers.id]`.
    fn with(settings: &Value, more: &str) -> Self {
        let (redis, provider) = (Redis::start(), OidcProvider::start(settings));
        let upstream = Upstream::replying(response("200 OK", "private"));
        let config = configuration(&store_of(&redis), &provider.issuer(), &upstream, more);
        let gateway = Gateway::start_in(folder(), &config);
        let house = Self { redis, provider, gateway, upstream };
        house.register(&json!({}));
        house
    }

    /// Makes the gateway known to the provider, with these members beside the usual ones.
    fn register(&self, more: &Value) {
        let mut client = json!({
            "client_id": "shop",
            "client_secret": SECRET,
            "redirect_uris": ["https://shop.test/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "backchannel_logout_uri": format!("http://{}/ended", self.gateway.public),
            "backchannel_logout_session_required": true,
            "post_logout_redirect_uris": ["https://shop.test/"],
        });
        for (name, value) in more.as_object().expect("members") {
            client[name] = value.clone();
        }
        self.provider.register(&client);
    }

    fn browser(&self) -> Browser {
        Browser { gateway: self.gateway.public, shop: Jar::default(), provider: Jar::default() }
    }
}

/// A browser: the cookies that it has of the shop, and of the provider.
#[derive(Clone)]
struct Browser {
    gateway: SocketAddr,
    shop: Jar,
    provider: Jar,
}

impl Browser {
    fn get(&mut self, path: &str) -> Reply {
        self.shop.get(self.gateway, path)
    }

    /// Begins a log-in: the URL of the provider.
    fn begin(&mut self, path: &str) -> String {
        let reply = self.get(path);
        assert_eq!(reply.status, 302, "{}", reply.text());
        reply.header("location").expect("a location").to_owned()
    }

    /// Goes to the provider and is sent back: the path at the gateway.
    fn come_back(&mut self, house: &House, location: &str) -> String {
        let back = house.provider.follow(&mut self.provider, location);
        back.strip_prefix("https://shop.test").expect("the redirect_uri").to_owned()
    }

    /// Logs in, beginning at this path, and returns what the callback answers.
    fn log_in(&mut self, house: &House, path: &str) -> Reply {
        let location = self.begin(path);
        let back = self.come_back(house, &location);
        self.get(&back)
    }
}

/// The code of a refusal.
fn code(reply: &Reply) -> String {
    let said: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let name = said["type"].as_str().unwrap_or_default();
    name.rsplit(':').next().unwrap_or_default().to_owned()
}

fn refused(reply: &Reply, status: u16, expected: &str) {
    assert_eq!((reply.status, &*code(reply)), (status, expected), "{}", reply.text());
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply:?}");
    let sets = reply.headers_named("set-cookie");
    assert!(!sets.iter().any(|it| it.starts_with("__Host-session=")), "no session: {sets:?}");
}

/// All that a Redis holds, as text.
fn dump(redis: &Redis) -> String {
    let keys = redis.cli(&["KEYS", "*"]);
    let mut all = keys.clone();
    for key in keys.lines() {
        all += &match &*redis.cli(&["TYPE", key]) {
            "hash" => redis.cli(&["HGETALL", key]),
            "string" => redis.cli(&["GET", key]),
            "zset" => redis.cli(&["ZRANGE", key, "0", "-1", "WITHSCORES"]),
            _ => String::new(),
        };
    }
    all
}

fn api(gateway: &Gateway, path: &str, jar: &Jar) -> Reply {
    Client::get(gateway.public, path)
        .header("Cookie", jar.field())
        .header("Accept", "application/json")
        .send()
}
