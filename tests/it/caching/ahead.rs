//! Refresh-ahead: what is asked for again near its end is fetched anew before it ends, once for all
//! gateways, and nobody waits for it.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::{Gate, House, is_hit, store};
use crate::support::{
    AUTH, Client, Gateway, Redis, Reply, Upstream, claims, eventually, response, token,
};

/// All but the first hundredth of a life is near its end: these tests wait for nothing else.
const ROUTES: &str = r#"
[routes.all]
path = "/*"
upstream = "shop"
cache = { ttl = "1h", refresh_ahead = "99%" }
"#;
/// Fresh for so long that no test sees the end of it.
const SOON: &str = "200 OK\r\nCache-Control: max-age=25";

/// Says how often each path was asked for, and lets each live as long as any test takes.
fn counting() -> Upstream {
    let asked = Mutex::new(HashMap::<String, u32>::new());
    Upstream::with(move |request, connection| {
        let mut asked = asked.lock().unwrap();
        let count = asked.entry(request.target().to_owned()).or_default();
        *count += 1;
        let text = format!("{} {count}", request.header("x-user-role").unwrap_or("nobody"));
        drop(asked);
        let _ = connection.write_all(response(SOON, &text).as_bytes());
    })
}

impl House {
    /// An answer that must come from the cache.
    fn hit(&self, gateway: usize, path: &str) -> Reply {
        let reply = Client::get(self.gateways[gateway].public, path).send();
        assert!(is_hit(&reply) && reply.status == 200, "{path}: {reply:?}");
        reply
    }

    /// How often the upstream was asked for a path.
    fn asked(&self, path: &str) -> usize {
        self.upstream.recorded().iter().filter(|request| request.target() == path).count()
    }
}

#[test]
fn what_is_asked_for_again_is_fetched_before_it_ends_and_nothing_else_is() {
    let house = House::with_routes(counting(), ROUTES);
    for path in ["/once", "/refused", "/hot"] {
        assert!(!is_hit(&Client::get(house.gateways[0].public, path).send()));
    }
    house.wait_for_entries(3);
    let fetched = |times: usize| {
        eventually("it is fetched anew", || {
            house.hit(0, "/hot");
            house.asked("/hot") == times
        });
    };
    fetched(2);
    // What was stored before it is near its end as well.
    for gateway in [0, 1] {
        house.hit(gateway, "/once");
        for (method, control) in
            [("GET", "no-store"), ("GET", "only-if-cached"), ("HEAD", "max-stale=1")]
        {
            for _ in 0..3 {
                let address = house.gateways[gateway].public;
                let request = Client::request(address, method, "/refused");
                assert!(is_hit(&request.header("Cache-Control", control).send()));
            }
        }
    }
    fetched(3);
    assert_eq!((house.asked("/once"), house.asked("/refused")), (1, 1));
}

#[test]
fn nobody_waits_for_it_and_it_is_fetched_once_for_the_fleet() {
    let (gate, asked) = (Gate::shut(), AtomicUsize::new(0));
    let shut = gate.clone();
    let upstream = Upstream::with(move |_, connection| {
        let text = if asked.fetch_add(1, Ordering::SeqCst) == 0 {
            response(&format!("{SOON}\r\nETag: \"1\""), "old")
        } else {
            shut.pass();
            response("200 OK\r\nCache-Control: max-age=3600", "new")
        };
        let _ = connection.write_all(text.as_bytes());
    });
    let house = House::with_routes(upstream, ROUTES);
    assert_eq!(Client::get(house.gateways[0].public, "/p").send().text(), "old");
    house.wait_for_entries(1);
    eventually("it is asked for", || {
        house.hit(0, "/p");
        house.hit(1, "/p");
        house.upstream.seen() == 2
    });
    for gateway in [0, 1].repeat(20) {
        assert_eq!(house.hit(gateway, "/p").text(), "old");
    }
    let request = house.upstream.recorded().pop().expect("a request");
    assert_eq!(request.header("if-none-match"), Some("\"1\""), "it may be the same");
    gate.open();
    for gateway in [0, 1] {
        eventually("the new one is there", || house.hit(gateway, "/p").text() == "new");
    }
    assert_eq!(house.upstream.seen(), 2);
}

#[test]
fn a_confirmation_is_enough() {
    let upstream = Upstream::with(|request, connection| {
        let text = match request.header("if-none-match") {
            Some(_) => "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\
                        Cache-Control: max-age=3600\r\nX-News: 1\r\n\r\n"
                .to_owned(),
            None => response(&format!("{SOON}\r\nETag: \"1\""), "hello"),
        };
        let _ = connection.write_all(text.as_bytes());
    });
    // Where the epochs are known without asking, Redis is not asked for anything else either.
    let redis = Redis::start();
    let store = store(&redis) + "cache_epochs = \"follow\"\n";
    let config = store + &upstream.table("shop") + ROUTES;
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    let house = House { redis, upstream, gateways };
    Client::get(house.gateways[0].public, "/p").send();
    house.wait_for_entries(1);
    for gateway in [0, 1] {
        eventually("it is confirmed", || {
            let reply = house.hit(gateway, "/p");
            assert_eq!(reply.text(), "hello");
            reply.header("x-news") == Some("1")
        });
    }
    assert_eq!(house.upstream.seen(), 2);
}

/// A failure costs the upstream little and the clients nothing, also one that could be kept.
#[test]
fn what_fails_is_tried_less_often_and_what_is_stored_stays() {
    let good = Mutex::new(HashMap::<String, ()>::new());
    let upstream = Upstream::with(move |request, connection| {
        let how = &request.target()[1..];
        if good.lock().unwrap().insert(how.to_owned(), ()).is_none() {
            let _ = connection.write_all(response(SOON, "good").as_bytes());
        } else if how == "close" {
            let _ = connection.shutdown(Shutdown::Both);
        } else {
            let head = format!("{how} Because\r\nCache-Control: max-age=600");
            let _ = connection.write_all(response(&head, "bad").as_bytes());
        }
    });
    let house = House::with_routes(upstream, ROUTES);
    for path in ["/500", "/404", "/close"] {
        Client::get(house.gateways[0].public, path).send();
        let hit = || assert_eq!(house.hit(0, path).text(), "good", "{path}");
        eventually("it is tried", || {
            hit();
            house.asked(path) > 1
        });
        (0..200).for_each(|_| hit());
        let tries = house.asked(path);
        assert!(tries < 20, "{path}: {tries} tries");
    }
}

#[test]
fn what_is_fetched_anew_is_of_the_partition_that_asked() {
    let routes = AUTH.to_owned()
        + r#"
        [routes.all]
        path = "/*"
        upstream = "shop"
        auth = "users"
        cache = { refresh_ahead = "99%", partition = ["claim:role"] }
        "#;
    let house = House::with_routes(counting(), &routes);
    let get = |gateway: usize, role: &str| {
        let mut claims = claims(role);
        claims["role"] = json!(role);
        let address = house.gateways[gateway].public;
        Client::get(address, "/p").bearer(token(claims)).send()
    };
    assert_eq!(get(0, "guest").text(), "guest 1");
    assert_eq!(get(0, "admin").text(), "admin 2");
    house.wait_for_entries(2);
    eventually("it is fetched anew", || {
        let reply = get(0, "admin");
        assert!(is_hit(&reply) && reply.text().starts_with("admin "), "{reply:?}");
        reply.text() != "admin 2"
    });
    let roles: Vec<_> = house.upstream.recorded();
    let roles: Vec<_> = roles.iter().skip(2).map(|r| r.header("x-user-role")).collect();
    assert!(roles.iter().all(|role| *role == Some("admin")), "{roles:?}");
    let guest = get(0, "guest");
    assert_eq!((guest.text().as_str(), is_hit(&guest)), ("guest 1", true));
}

#[test]
fn each_variant_is_fetched_anew_for_itself() {
    let (gate, known) = (Gate::shut(), Mutex::new(HashSet::new()));
    let (shut, refreshed) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&refreshed);
    let upstream = Upstream::with(move |request, connection| {
        let language = request.header("accept-language").unwrap_or("none").to_owned();
        let head = format!("{SOON}\r\nVary: Accept-Language");
        let text = response(&head, &language);
        if !known.lock().unwrap().insert(language) {
            shut.pass();
            count.fetch_add(1, Ordering::SeqCst);
        }
        let _ = connection.write_all(text.as_bytes());
    });
    let gateway = Gateway::start(&(upstream.table("shop") + ROUTES));
    let get = |language: &str| {
        let request = Client::get(gateway.public, "/p").header("Accept-Language", language);
        let reply = request.send();
        assert_eq!(reply.text(), language);
        reply
    };
    for language in ["de", "fr"] {
        assert!(!is_hit(&get(language)));
    }
    eventually("both are asked for", || {
        ["de", "fr"].into_iter().for_each(|language| assert!(is_hit(&get(language))));
        upstream.seen() == 4
    });
    assert_eq!(refreshed.load(Ordering::SeqCst), 0, "one waited for the other");
    gate.open();
}
