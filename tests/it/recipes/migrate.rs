//! docs/recipes/migrate.md: our lines do what theirs did, and what the page says besides.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::readme::pages;
use crate::recipes::{blocks, outcome, token, with};
use crate::support::{
    Client, Folder, Gateway, Issuer, Reply, Signer, Upstream, operate, response, run,
};

struct House {
    gateway: Gateway,
    issuer: Issuer,
    key: Signer,
    app: Upstream,
}

impl House {
    /// All blocks of the page as one file, as it says.
    fn start() -> Self {
        let key = Signer::rsa("a");
        let issuer = Issuer::plain(&[&key]);
        let realm = format!("{}/realms/shop", issuer.origin());
        issuer.tell("/realms/shop", &realm, &issuer.url());
        let count = Arc::new(AtomicUsize::new(0));
        let app = Upstream::with(move |_, connection| {
            let body = count.fetch_add(1, Ordering::SeqCst).to_string();
            let _ = connection.write_all(response("200 OK", &body).as_bytes());
        });
        let own = [
            ("https://id.shop.example/realms/shop", &*realm),
            ("http://127.0.0.1:3000", &app.url()),
            // However slow the machine is.
            ("21/2100ms", "21/1h"),
        ];
        let gateway = Gateway::start(&with(&blocks("migrate.md").join("\n"), &own));
        Self { gateway, issuer, key, app }
    }

    fn get(&self, path: &str) -> Reply {
        Client::get(self.gateway.public, path).send()
    }
}

#[test]
fn a_hundred_requests_pass_and_the_next_is_told_when() {
    let house = House::start();
    for left in (0..100).rev() {
        let reply = house.get("/api/products");
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("x-ratelimit-remaining"), Some(&*left.to_string()));
    }
    let refused = house.get("/api/products");
    assert_eq!(outcome(&refused), (429, "limit_exceeded".to_owned()));
    let fields = ["retry-after", "x-ratelimit-limit", "x-ratelimit-reset", "ratelimit"];
    assert!(fields.iter().all(|name| refused.header(name).is_some()), "{refused:?}");
    assert_eq!(house.get("/account/1").status, 401, "another route has another limit, or none");
}

#[test]
fn callers_with_tokens_pass_and_are_named() {
    let house = House::start();
    let realm = format!("{}/realms/shop", house.issuer.origin());
    let ask = |audience: &str| {
        let more = json!({ "email": "ada@shop.example" });
        let token = token(&house.key, &realm, audience, "42", more);
        let request = Client::get(house.gateway.public, "/account/1").bearer(token);
        request.header("X-User-Id", "root").send().status
    };
    assert_eq!((ask("shop"), ask("other")), (200, 401));
    let seen = house.app.only();
    assert_eq!(seen.headers_named("x-user-id"), ["42"]);
    assert_eq!(seen.header("x-user-email"), Some("ada@shop.example"));
    let revoked = operate(&house.gateway, "POST", "/v1/revocations", r#"{"sub": "42"}"#);
    assert_eq!((revoked.status, ask("shop")), (201, 401));
}

#[test]
fn a_burst_passes_and_what_is_beyond_is_refused_at_once() {
    let house = House::start();
    let policy = house.get("/search").header("ratelimit-policy").unwrap().to_owned();
    assert!(policy.contains("q=21;w=3600"), "{policy}");
    let (mut passed, mut refused) = (1, None);
    while refused.is_none() {
        match house.get("/search") {
            reply if reply.status == 200 => passed += 1,
            reply => refused = Some(reply),
        }
    }
    assert_eq!(passed, 21, "1 + burst");
    let refused = refused.unwrap();
    assert_eq!(outcome(&refused), (429, "limit_exceeded".to_owned()));
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
}

/// The page's number is the one that `portcullis convert` makes of the page's own lines, with
/// `nodelay` and without it.
#[test]
fn the_rule_for_limit_req_is_the_converters() {
    let page = pages::page("docs/recipes/migrate.md");
    let mut theirs = page.blocks().into_iter().filter(|block| block.language == "nginx");
    let lines = theirs.find(|block| block.text.contains("limit_req_zone")).unwrap().text;
    let (zone, location) = lines.split_once('\n').unwrap();
    let location =
        location.replace("limit_req_status", "proxy_pass http://127.0.0.1:3000; limit_req_status");
    let ours = "allow = [\"21/2100ms\"]\n";
    assert!(page.text.contains(ours), "the page has another number");
    for location in [location.clone(), location.replace(" nodelay", "")] {
        let folder = Folder::new();
        folder
            .write("nginx.conf", format!("http {{ {zone}\nserver {{ listen 80;\n{location}}} }}"));
        let ran = run(&folder, &["convert", "nginx", "nginx.conf"]);
        assert!(ran.stdout.contains(ours), "{}\n{}", ran.stdout, ran.stderr);
    }
}

#[test]
fn what_says_nothing_is_kept_and_purged() {
    let house = House::start();
    let first = house.get("/pages/1");
    assert!(first.header("cache-status").unwrap().contains("fwd=uri-miss; stored"), "{first:?}");
    let second = house.get("/pages/1");
    assert!(second.header("cache-status").unwrap().contains("hit"), "{second:?}");
    assert_eq!((second.text(), house.app.seen()), (first.text(), 1));
    let purged = operate(&house.gateway, "POST", "/v1/cache/purge", r#"{"path": "/pages"}"#);
    assert_eq!(purged.status, 200, "{}", purged.text());
    assert_ne!(house.get("/pages/1").text(), first.text());
}
