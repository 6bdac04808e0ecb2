//! docs/recipes/nextjs.md: pages that Next.js says are good for a while, and their purge by tag.

use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::readme::pages::page;
use crate::recipes::configuration;
use crate::support::{Client, Gateway, Recorded, Reply, Upstream, operate, response};

/// How a page is answered that is made anew after 60 seconds.
const PAGE: &str = "200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\
    Cache-Control: s-maxage=60, stale-while-revalidate=31535940\r\n\
    Vary: rsc, next-router-state-tree, next-router-prefetch, next-router-segment-prefetch";
/// How one is answered that reads cookies.
const DYNAMIC: &str =
    "200 OK\r\nCache-Control: private, no-cache, no-store, max-age=0, must-revalidate";

/// What the application's `/api/changed` sends to the admin API, as its code on the page says it.
fn purge(gateway: &Gateway, id: &str) -> Reply {
    let page = page("docs/recipes/nextjs.md").text;
    let body = "JSON.stringify({ tag: `product-${id}` })";
    let url = "const purge = \"http://127.0.0.1:9901/v1/cache/purge\";";
    let headers = "const headers = { \"content-type\": \"application/json\" };";
    for line in [body, url, headers, "fetch(purge, { method: \"POST\", headers, body })"] {
        assert!(page.contains(line), "{line} is not on the page");
    }
    let body = json!({ "tag": format!("product-{id}") }).to_string();
    let request = Client::request(gateway.admin, "POST", "/v1/cache/purge");
    let host = gateway.admin.to_string();
    request.header("Host", host).header("content-type", "application/json").body(body).send()
}

/// Answers as Next.js does, with the tags of the page's `next.config.mjs`.
fn next(version: Arc<AtomicUsize>) -> Upstream {
    Upstream::with(move |request: &Recorded, connection| {
        let version = version.load(Ordering::SeqCst);
        let path = request.target().split('?').next().unwrap();
        let answer = match path.strip_prefix("/products/") {
            Some(id) => {
                let kind = if request.header("rsc").is_some() { "data" } else { "page" };
                let head = format!("{PAGE}\r\nCache-Tag: products, product-{id}");
                response(&head, &format!("{kind} {id} {version}"))
            }
            None if path == "/account" => response(DYNAMIC, "yours"),
            None => response("200 OK", "{\"ok\":true}"),
        };
        let _ = connection.write_all(answer.as_bytes());
    })
}

fn get(gateway: &Gateway, path: &str, rsc: bool) -> Reply {
    let request = Client::get(gateway.public, path);
    if rsc { request.header("RSC", "1").send() } else { request.send() }
}

fn cache_status(reply: &Reply) -> String {
    reply.header("cache-status").unwrap_or_default().to_owned()
}

#[test]
fn pages_are_kept_until_their_product_changes() {
    let version = Arc::new(AtomicUsize::new(1));
    let next = next(Arc::clone(&version));
    let own = [("http://127.0.0.1:3000", &*next.url())];
    let gateway = Gateway::start(&configuration("nextjs.md", &own));
    let shows = |path: &str, rsc: bool, body: &str, status: &str| {
        let reply = get(&gateway, path, rsc);
        assert_eq!((reply.status, &*reply.text()), (200, body), "{path}");
        assert!(cache_status(&reply).contains(status), "{path}: {}", cache_status(&reply));
        assert_eq!(reply.header("cache-tag"), None, "tags are for the gateway");
    };
    shows("/products/1", false, "page 1 1", "fwd=uri-miss; stored");
    shows("/products/1", false, "page 1 1", "hit");
    shows("/products/1?utm_source=x", false, "page 1 1", "hit");
    for status in ["fwd=uri-miss; stored", "hit"] {
        shows("/products/1?_rsc=x", true, "data 1 1", status);
    }
    shows("/products/1", true, "data 1 1", "fwd=vary-miss; stored");
    shows("/products/2", false, "page 2 1", "fwd=uri-miss; stored");

    version.store(2, Ordering::SeqCst);
    let purged = purge(&gateway, "1");
    assert_eq!(purged.status, 200, "{}", purged.text());
    shows("/products/1", false, "page 1 2", "stored");
    shows("/products/1?_rsc=x", true, "data 1 2", "stored");
    shows("/products/2", false, "page 2 1", "hit");
    // All products have one tag in common.
    operate(&gateway, "POST", "/v1/cache/purge", r#"{"tag": "products"}"#);
    shows("/products/2", false, "page 2 2", "stored");

    for _ in 0..2 {
        let reply = get(&gateway, "/account", false);
        assert_eq!(reply.text(), "yours");
        assert!(!cache_status(&reply).contains("stored"), "{}", cache_status(&reply));
    }
    // The page's own way of looking: what is asked by HEAD alone is not kept.
    version.store(3, Ordering::SeqCst);
    let head = || Client::request(gateway.public, "HEAD", "/products/3").send();
    for _ in 0..2 {
        assert!(!cache_status(&head()).contains("stored"), "{}", cache_status(&head()));
    }
    let look = "curl -s -o /dev/null -D - http://127.0.0.1:8080/products/1 | grep -i cache-status";
    let page = page("docs/recipes/nextjs.md").text;
    assert!(page.contains(look) && !page.contains("curl -sI"), "{page}");
    let look = look.replace("127.0.0.1:8080", &gateway.public.to_string());
    let look = look.replace("products/1", "products/3");
    for said in ["fwd=uri-miss; stored", "hit"] {
        let ran = Command::new("sh").args(["-c", &look]).output().unwrap();
        let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(printed.contains(said), "{said}: {printed}");
    }

    let posted = Client::request(gateway.public, "POST", "/api/changed").body("{}").send();
    assert_eq!((posted.status, cache_status(&posted)), (200, String::new()));
}
