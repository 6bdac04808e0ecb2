//! The cache for operators: what it saves on each route, what would help, and whether one URL is
//! stored. `redis_operator` walks through it.

use std::io::Write as _;

use serde_json::{Value, json};

use super::{metric, problem};
use crate::support::{
    AUTH, Client, Folder, Gateway, Redis, Reply, Upstream, claims, eventually, operate, response,
    run, token,
};

const OPERATOR: &str = "operator-0123456789";
const READER: &str = "reader-0123456789";
/// Length of a body that lies in three pieces, in bytes.
const LARGE: usize = 600 * 1024;
const ROUTES: &str = r#"
[routes.products]
path = "/products/*"
upstream = "shop"
cache = { ttl = "1h" }
[routes.search]
path = "/search"
upstream = "shop"
cache = { ttl = "1h", query = { ignore = ["utm_*"] } }
[routes.mine]
path = "/mine"
upstream = "shop"
auth = "users"
cache = { ttl = "1h", partition = ["claim:plan"] }
[routes.open]
path = "/open"
upstream = "shop"
[routes.written]
path = "/written"
methods = ["POST"]
upstream = "shop"
"#;

/// Tells languages apart, and forbids `/products/never` to be stored.
fn shop() -> Upstream {
    Upstream::with(|request, connection| {
        let head = match request.target() {
            "/products/never" => "200 OK\r\nCache-Control: no-store",
            _ => "200 OK\r\nVary: Accept-Language\r\nSurrogate-Key: product-1",
        };
        let body = match request.target() {
            "/products/large" => "x".repeat(LARGE),
            _ => "hello".to_owned(),
        };
        let _ = connection.write_all(response(head, &body).as_bytes());
    })
}

struct House {
    redis: Redis,
    _upstream: Upstream,
    gateway: Gateway,
}

impl House {
    fn start() -> Self {
        let (redis, upstream) = (Redis::start(), shop());
        let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
        let gateway = Gateway::start(&(store + AUTH + &upstream.table("shop") + ROUTES));
        Self { redis, _upstream: upstream, gateway }
    }

    fn get(&self, path: &str, language: &str) {
        let request = Client::get(self.gateway.public, path).header("Host", "shop.test");
        assert_eq!(request.header("Accept-Language", language).send().status, 200);
    }

    fn show(&self, target: &str) -> Reply {
        operate(&self.gateway, "GET", target, "")
    }

    fn entry(&self, url: &str) -> Reply {
        self.show(&format!("/v1/cache/entry?url={url}"))
    }

    /// The variants of a URL, once the store has so many.
    fn variants(&self, url: &str, count: usize) -> Vec<Value> {
        let stored = || {
            let json = self.entry(url).json();
            let all = json["variants"].as_array().cloned().unwrap_or_default();
            let has =
                |it: &&Value| it["where"].as_array().is_some_and(|it| it.contains(&json!("store")));
            (all.iter().filter(has).count() == count).then_some(all)
        };
        eventually("they are in the store", || stored().is_some());
        stored().expect("they stay")
    }

    fn purge(&self, body: &str) {
        assert_eq!(operate(&self.gateway, "POST", "/v1/cache/purge", body).status, 200);
    }
}

#[test]
fn a_url_is_shown_where_it_lies_and_whether_it_answers() {
    let house = House::start();
    let url = "http://shop.test/products/1";
    let missing = house.entry(url);
    assert_eq!(problem(&missing), (404, "entry_not_stored".to_owned()));
    let detail = "Nothing is stored for shop.test/products/1 on the route products.";
    assert_eq!(missing.json()["detail"], detail);
    house.get("/products/1", "de");
    house.get("/products/1", "en");
    let variants = house.variants(url, 2);
    let mut languages: Vec<&Value> =
        variants.iter().map(|it| &it["vary"]["accept-language"]).collect();
    languages.sort_by_key(|it| it.to_string());
    assert_eq!(languages, [&json!("de"), &json!("en")]);
    for variant in &variants {
        let told = |name: &str| variant[name].clone();
        assert_eq!(told("where"), json!(["near", "store"]), "{variant}");
        assert_eq!(told("url"), url);
        assert_eq!(
            (told("status"), told("bytes"), told("lifetime_s")),
            (200.into(), 5.into(), 3600.into())
        );
        assert!(
            told("ttl_s").as_i64().is_some_and(|ttl| (3000..=3600).contains(&ttl)),
            "{variant}"
        );
        assert!(told("age_s").as_u64().is_some_and(|age| age < 600), "{variant}");
        assert_eq!((told("tags"), told("upstream")), (json!(["product-1"]), "shop".into()));
        assert_eq!(
            (told("valid"), told("why"), told("scheme")),
            (true.into(), Value::Null, "http".into())
        );
    }
    // As a person writes it, and over the other scheme.
    let found = house.entry("shop.test/products/x/../1").json();
    assert_eq!(
        (&found["url"], &found["route"]),
        (&json!("shop.test/products/1"), &json!("products"))
    );
    assert_eq!(problem(&house.entry("https://shop.test/products/1")).0, 404);
    let request = Client::get(house.gateway.public, "/products/1").header("Host", "shop.test");
    let status = request.header("Accept-Language", "de").send();
    let status = status.headers_named("cache-status").join(" ");
    assert!(status.contains("; hit"), "nothing was changed by looking: {status}");
}

#[test]
fn what_clients_prove_themselves_by_is_shown_to_nobody() {
    let (redis, upstream) = (
        Redis::start(),
        Upstream::with(|_, connection| {
            let head = "200 OK\r\nVary: X-Api-Key, X-Plan";
            let _ = connection.write_all(response(head, "hello").as_bytes());
        }),
    );
    let config = format!(
        "[admin]\ntoken = \"{OPERATOR}\"\nread_token = \"{READER}\"\n\
         [store]\nurl = \"{}\"\ntimeout = \"5s\"\n{}{ROUTES}",
        redis.url(),
        AUTH.to_owned() + &upstream.table("shop")
    );
    let gateway = Gateway::start(&config);
    let request = Client::get(gateway.public, "/products/1").header("Host", "shop.test");
    let sent = request.header("X-Api-Key", "s3cret").header("X-Plan", "gold").send();
    assert_eq!(sent.status, 200);
    let entry = |bearer: &str| {
        let target = "/v1/cache/entry?url=http://shop.test/products/1";
        Client::get(gateway.admin, target).bearer(bearer).send()
    };
    eventually("it is in the store", || {
        entry(OPERATOR).json()["variants"][0]["where"] == json!(["near", "store"])
    });
    let vary = |bearer: &str| entry(bearer).json()["variants"][0]["vary"].clone();
    assert_eq!(vary(OPERATOR), json!({ "x-api-key": "[redacted]", "x-plan": "gold" }));
    let read = vary(READER);
    assert_eq!(read["x-api-key"], "[redacted]");
    assert!(read["x-plan"].as_str().is_some_and(|plan| plan.starts_with('#')), "{read}");
}

#[test]
fn of_many_variants_a_few_are_told_whatever_they_lie_under() {
    let house = House::start();
    // Two sites. A look-up of the second is one of the first, too: the port may be a listener's.
    let other = format!("shop.test:{}", house.gateway.public.port() ^ 1);
    let get = |host: &str, number: usize| {
        let request = Client::get(house.gateway.public, "/products/1").header("Host", host);
        let language = format!("x-{number}");
        assert_eq!(request.header("Accept-Language", language).send().status, 200);
    };
    for number in 0..20 {
        get("shop.test", number);
        get(&other, number);
    }
    house.variants("http://shop.test/products/1", 20);
    let variants = house.variants(&format!("http://{other}/products/1"), 32);
    assert_eq!(variants.len(), 32);
    assert_eq!(house.entry(&format!("http://{other}/products/1")).json()["more"], true);
    assert_eq!(house.entry("http://shop.test/products/1").json()["more"], false);
}

#[test]
fn a_look_at_a_body_in_pieces_changes_nothing() {
    let house = House::start();
    house.get("/products/large", "de");
    let url = "http://shop.test/products/large";
    house.variants(url, 1);
    let pieces = || -> Vec<String> {
        let keys = house.redis.cli(&["KEYS", "app:cache:*:body:*"]);
        keys.lines().map(str::to_owned).collect()
    };
    let (all, why) = (pieces(), || house.entry(url).json()["variants"][0]["why"].clone());
    assert_eq!((all.len(), why()), (3, Value::Null));
    for piece in &all {
        house.redis.cli(&["SET", piece, "damaged", "KEEPTTL"]);
    }
    assert_eq!((why(), pieces().len()), (Value::Null, 3), "what is damaged stays until it is read");
    house.redis.cli(&["ACL", "SETUSER", "default", "-exists"]);
    assert_eq!(why(), "the store does not say whether its body is whole");
    house.redis.cli(&["ACL", "SETUSER", "default", "+exists"]);
    house.redis.cli(&["DEL", &all[0]]);
    assert_eq!((why(), pieces().len()), ("a part of its body is gone".into(), 2));
    let lost = metric(&house.gateway, "portcullis_cache_chunks_lost_total");
    assert_eq!(lost, Some(0.0), "nobody has missed it");
}

#[test]
fn a_response_that_was_purged_says_by_what() {
    let house = House::start();
    let url = "http://shop.test/products/1";
    house.get("/products/1", "de");
    house.variants(url, 1);
    for (purge, why) in [
        (
            r#"{"tag": "product-1", "soft": true}"#,
            "one of its tags or groups was purged, softly: it is confirmed first",
        ),
        (r#"{"tag": "product-1"}"#, "one of its tags or groups was purged"),
        (r#"{"url": "http://shop.test/products/1"}"#, "its path was purged, or written to"),
        (r#"{"path": "/products/*"}"#, "its path or one above it was purged"),
        (r#"{"host": "shop.test"}"#, "its host was purged"),
        (r#"{"route": "products"}"#, "its route was purged"),
        (r#"{"all": true}"#, "everything was purged, or the store has begun anew"),
    ] {
        house.purge(purge);
        for variant in house.variants(url, 1) {
            assert_eq!(
                (&variant["valid"], &variant["why"]),
                (&json!(false), &json!(why)),
                "{purge}"
            );
        }
    }
}

#[test]
fn a_url_is_read_as_a_request_is() {
    let house = House::start();
    house.get("/search?q=tea&utm_source=x", "de");
    let found = house.entry("shop.test/search?q=tea%26utm_medium=y").json();
    assert_eq!(found["url"], "shop.test/search?q=tea");
    let mine = |plan: &str| {
        let mut claims = claims("ada");
        claims["plan"] = json!(plan);
        let request = Client::get(house.gateway.public, "/mine").header("Host", "shop.test");
        assert_eq!(request.bearer(token(claims)).send().status, 200);
    };
    mine("free");
    let entry = |claim: &str| house.entry(&format!("shop.test/mine&claim={claim}"));
    eventually("it is stored", || entry("plan=free").status == 200);
    assert_eq!(problem(&entry("plan=gold")), (404, "entry_not_stored".to_owned()));
    for (url, part) in [
        ("shop.test/mine", "say whose response is meant, by claim=plan=VALUE"),
        ("shop.test/mine&claim=tier=1", "claim=plan=VALUE"),
        ("shop.test/nowhere", "No route takes this host and path"),
        ("shop.test/written", " and no GET, so nothing is ever stored"),
        ("shop.test/open", "The route open has no cache"),
        ("shop.test/a%2500", "The URL is refused"),
        ("ftp://shop.test/", "is no http URL"),
        ("/products/1", "it wants a host and a path"),
        ("", "it wants a host and a path"),
    ] {
        let refused = house.entry(url);
        assert_eq!(problem(&refused), (400, "request_invalid".to_owned()), "{url}");
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains(part), "{url}: {detail}");
        assert!(detail.contains("Example: /v1/cache/entry?url=http://"), "{url}: {detail}");
    }
}

#[test]
fn routes_say_what_their_cache_saves_and_what_would_help() {
    let house = House::start();
    let before = house.show("/v1/cache").json();
    let start = &before["routes"]["products"]["windows"]["start"];
    let none = json!({ "requests": 0, "hits": 0, "ratio": null, "level": null, "not_kept": {} });
    assert_eq!(*start, none);
    assert_eq!(before["routes"]["open"], Value::Null, "it has no cache");
    for _ in 0..3 {
        house.get("/products/1", "de");
    }
    for _ in 0..97 {
        house.get("/products/never", "de");
    }
    let now = || house.show("/v1/cache?route=products").json()["routes"]["products"].clone();
    eventually("all are counted", || now()["windows"]["start"]["requests"] == 100);
    let told = now();
    let window = json!({
        "requests": 100, "hits": 2, "ratio": 0.02, "level": "poor", "not_kept": { "no_store": 97 },
    });
    let windows = json!({ "1m": window, "15m": window, "start": window });
    assert_eq!(told["windows"], windows, "all within the last minute");
    assert_eq!(told["not_kept"], json!({ "no_store": 97 }));
    assert_eq!(told["verdicts"], json!({ "hit": 2, "miss": 98 }));
    eventually("it is stored", || now()["stored"] == 1);
    assert!(now()["mean_ttl_s"].as_u64().is_some_and(|ttl| ttl > 3000), "{told}");
    let hint = &told["hints"][0];
    assert_eq!((&hint["reason"], &hint["setting"]), (&json!("no_store"), &Value::Null));
    assert_eq!(hint["what"], "97 were not stored (no_store)");
    let all = house.show("/v1/cache").json();
    assert!(all["near"]["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{all}");
    assert_eq!((&all["near"]["level"], &all["near"]["evictions"]), (&json!("good"), &json!(0)));
    for target in ["/v1/cache?route=open", "/v1/cache?rout=products"] {
        assert_eq!(problem(&house.show(target)), (400, "request_invalid".to_owned()), "{target}");
    }
}

#[test]
fn urls_are_counted_while_somebody_looks_and_without_values() {
    let house = House::start();
    house.get("/products/before", "de");
    let top = |by: &str| house.show(&format!("/v1/cache/top?by={by}")).json();
    let first = top("hits");
    assert_eq!((&first["urls"], &first["bound"]), (&json!([]), &json!(256)), "nobody has looked");
    for path in ["/products/1", "/products/1", "/products/1", "/search?q=s3cret&utm_source=s3cret"]
    {
        house.get(path, "de");
    }
    let one = json!({
        "url": "http://shop.test/products/1", "route": "products", "hits": 2, "misses": 1,
        "bytes": 15,
    });
    let search = json!({
        "url": "http://shop.test/search?q=…", "route": "search", "hits": 0, "misses": 1, "bytes": 5,
    });
    let urls = |by: &str| {
        let mut urls = top(by)["urls"].take();
        for url in urls.as_array_mut().into_iter().flatten() {
            let since = url.as_object_mut().and_then(|url| url.remove("since"));
            assert!(since.is_some_and(|since| since.is_string()), "{url}");
        }
        urls
    };
    eventually("they are counted", || urls("hits") == json!([one, search]));
    assert_eq!(urls("bytes"), json!([one, search]));
    assert!(top("misses")["since"].is_string());
    let refused = house.show("/v1/cache/top?by=name");
    assert_eq!(problem(&refused), (400, "request_invalid".to_owned()));
}

#[test]
fn one_command_says_whether_the_cache_is_worth_it() {
    let house = House::start();
    for _ in 0..3 {
        house.get("/products/1", "de");
    }
    house.variants("shop.test/products/1", 1);
    let admin = format!("http://{}", house.gateway.admin);
    let ran = |arguments: &[&str]| {
        run(&Folder::new(), &[&["cache", "--admin", &admin], arguments].concat())
    };
    let said = |arguments: &[&str]| {
        let ran = ran(arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        ran.stdout
    };
    let one = said(&["--route", "products"]);
    assert!(one.starts_with("route    products\n"), "{one}");
    assert!(one.contains("hits     67 % of 3 requests in the last 15m\n"), "{one}");
    assert!(one.contains("hits     67 % of 3 requests since the start\n"), "{one}");
    assert!(one.contains("stored   1, fresh for 3"), "{one}");
    assert!(one.contains("\nnear     ") && one.contains(" bytes, 0 evictions\n"), "{one}");
    let all = said(&[]);
    assert!(all.contains("route    mine\n") && all.contains("route    search\n"), "{all}");
    let entry = said(&["--url", "http://shop.test/products/1"]);
    assert!(entry.starts_with("shop.test/products/1 on the route products\n"), "{entry}");
    assert!(entry.contains("  near+store: 200, 5 bytes, fresh for 3"), "{entry}");
    assert!(
        entry.ends_with(" of 3600 s, http, of shop, tags product-1, accept-language de\n"),
        "{entry}"
    );
    house.purge(r#"{"route": "products"}"#);
    let entry = said(&["--url", "shop.test/products/1"]);
    assert!(entry.ends_with(", not used: its route was purged\n"), "{entry}");
    let json: Value = serde_json::from_str(&said(&["--json"])).expect("JSON");
    assert_eq!(json["routes"]["products"]["stored"], 1);
    for (arguments, status, part) in [
        (&["--route", "nothing"][..], 1, "No route with a cache is named"),
        (&["--url", "shop.test/products/2"], 1, "Nothing is stored for shop.test/products/2"),
        (&["--url", "shop.test/mine", "--claim", "plan=gold"], 1, "Nothing is stored"),
        (&["--url", "shop.test/mine"], 1, "parted by claims"),
        (&["--claim", "plan=gold"], 2, "--url"),
        (&["--url", "a/", "--route", "b"], 2, "cannot be used with"),
    ] {
        let ran = ran(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(status), ""), "{arguments:?}");
        assert!(ran.stderr.contains(part), "{arguments:?}: {}", ran.stderr);
    }
}
