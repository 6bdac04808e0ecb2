//! Which of several servers gets a request: by how long each takes, and by what the request is
//! told by.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::support::{
    AUTH, Client, Gateway, Session, Upstream, claims, eventually, operate, response, token,
};

fn servers(count: usize) -> Vec<Upstream> {
    (0..count).map(|at| Upstream::replying(response("200 OK", &at.to_string()))).collect()
}

fn before(servers: &[Upstream], balance: &str, of_route: &str) -> Gateway {
    let urls: Vec<String> = servers.iter().map(Upstream::url).collect();
    Gateway::start(&format!(
        "{AUTH}[upstreams.shop]\nservers = {urls:?}\nbalance = \"{balance}\"\n\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n{of_route}\n"
    ))
}

/// What fails at once is the quickest of all, and gets next to nothing.
#[test]
fn a_server_that_fails_quickly_does_not_attract_requests() {
    let bad = Upstream::replying(response("500 Internal Server Error", "bad"));
    let mut all = servers(2);
    all.insert(0, bad);
    let gateway = before(&all, "ewma", "");
    let mut session = Session::open(gateway.public);
    for _ in 0..1_000 {
        session.get("/").send();
    }
    assert!(all[0].seen() < 20, "{} of 1000", all[0].seen());
    assert!(all[1].seen() > 200 && all[2].seen() > 200, "{} {}", all[1].seen(), all[2].seen());

    let told = operate(&gateway, "GET", "/v1/upstreams", "").json();
    let told = &told["upstreams"]["shop"]["servers"];
    let took = |at: usize| told[at]["ewma_ms"].as_f64().unwrap();
    assert!(took(0) > took(1) && took(1) > 0.0, "{told}");
    let why = explain(&gateway, &json!({}))["why"].as_str().unwrap().to_owned();
    assert!(why.contains("would be sooner done, in ") && why.contains(" ms with 0 "), "{why}");
}

/// Where a request with these fields, or of this path, would go.
fn explain(gateway: &Gateway, fields: &Value) -> Value {
    let asked = json!({ "path": "/", "headers": fields });
    operate(gateway, "POST", "/v1/explain", &asked.to_string()).json()["outcome"].clone()
}

#[test]
fn equal_requests_go_to_the_same_server() {
    let bearer = |key: &str| format!("Bearer {}", token(claims(key)));
    for (balance, of_route, name) in [
        ("hash:header:x-tenant", "", "x-tenant"),
        ("hash:cookie:sid", "", "cookie"),
        ("hash:claim:sub", "auth = \"users\"", "authorization"),
    ] {
        let servers = servers(3);
        let gateway = before(&servers, balance, of_route);
        let value = |key: &str| match name {
            "cookie" => format!("a=1; sid={key}; b=2"),
            "authorization" => bearer(key),
            _ => key.to_owned(),
        };
        let home = |key: &str| {
            let reply = Client::get(gateway.public, "/").header(name, value(key)).send();
            assert_eq!(reply.status, 200, "{balance}");
            reply.text()
        };
        let homes: HashMap<String, String> =
            (0..60).map(|key| key.to_string()).map(|key| (key.clone(), home(&key))).collect();
        for (key, server) in &homes {
            assert_eq!(home(key), *server, "{balance} {key}");
        }
        let used: HashSet<&String> = homes.values().collect();
        assert_eq!(used.len(), 3, "{balance}");
        let told = explain(&gateway, &json!({ name: value("7") }));
        let server: usize = homes["7"].parse().unwrap();
        assert_eq!(told["server"], servers[server].url(), "{told}");
        let by = format!("the one for this {}", balance.strip_prefix("hash:").unwrap());
        assert!(told["why"].as_str().unwrap().starts_with(&by), "{told}");
    }
}

#[test]
fn by_address_all_of_a_client_go_to_one_server_and_by_path_all_of_a_path() {
    let all = servers(3);
    let gateway = before(&all, "hash:address", "");
    for at in 0..30 {
        assert_eq!(Client::get(gateway.public, &format!("/{at}")).send().status, 200);
    }
    let mut seen: Vec<usize> = all.iter().map(Upstream::seen).collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 0, 30]);

    let gateway = before(&all, "hash:path", "");
    let home = |path: &str| Client::get(gateway.public, path).send().text();
    let homes: Vec<String> = (0..30).map(|at| home(&format!("/{at}?a"))).collect();
    assert_eq!(homes.iter().collect::<HashSet<_>>().len(), 3);
    for (at, server) in homes.iter().enumerate() {
        assert_eq!(home(&format!("/{at}?b")), *server);
    }
}

#[test]
fn only_the_keys_of_a_server_that_is_out_move() {
    let all = servers(4);
    let gateway = before(&all, "hash:header:x-tenant", "");
    let home = |key: usize| {
        let reply = Client::get(gateway.public, "/").header("x-tenant", key.to_string()).send();
        reply.text()
    };
    let homes: Vec<String> = (0..60).map(home).collect();
    let out = json!({ "upstream": "shop", "server": all[2].url() }).to_string();
    assert_eq!(operate(&gateway, "POST", "/v1/upstreams/eject", &out).status, 200);
    let mut moved = HashSet::new();
    for (key, server) in homes.iter().enumerate() {
        let now = home(key);
        if server == "2" {
            // One of the others has it now, and keeps it.
            assert_ne!(now, "2", "{key}");
            assert_eq!(home(key), now, "{key}");
            moved.insert(now);
        } else {
            assert_eq!(now, *server, "{key}");
        }
    }
    assert!(moved.len() > 1, "{moved:?}");
    assert_eq!(operate(&gateway, "POST", "/v1/upstreams/restore", &out).status, 200);
    assert_eq!((0..60).map(home).collect::<Vec<_>>(), homes);
}

#[test]
fn requests_without_a_key_go_to_the_less_busy() {
    let all = servers(2);
    let gateway = before(&all, "hash:header:x-tenant", "");
    for _ in 0..60 {
        assert_eq!(Client::get(gateway.public, "/").send().status, 200);
    }
    assert!(all.iter().all(|server| server.seen() > 5));
    let why = explain(&gateway, &json!({}))["why"].as_str().unwrap().to_owned();
    assert!(why.contains("as the request has no header:x-tenant"), "{why}");
}

/// Each upstream of a route chooses by a key of its own: the base, the canary, and whoever gets
/// copies.
#[test]
fn the_arms_of_a_split_and_a_mirror_choose_by_keys_of_their_own() {
    let (base, next, copies) = (servers(3), servers(3), servers(3));
    let table = |name: &str, servers: &[Upstream], key: &str| {
        let urls: Vec<String> = servers.iter().map(Upstream::url).collect();
        format!("[upstreams.{name}]\nservers = {urls:?}\nbalance = \"hash:{key}\"\n")
    };
    let gateway = Gateway::start(&format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n{}{}{}\
         [routes.all]\npath = \"/*\"\nmirror = {{ upstream = \"copies\" }}\n\
         split = [{{ upstream = \"base\", weight = 1 }}, {{ upstream = \"next\", weight = 0 }}]\n",
        table("base", &base, "header:x-base"),
        table("next", &next, "cookie:next"),
        table("copies", &copies, "header:x-copy"),
    ));
    let is_idle = || {
        let told = operate(&gateway, "GET", "/v1/upstreams", "").json();
        let servers = told["upstreams"]["copies"]["servers"].as_array().unwrap().clone();
        servers.iter().all(|server| server["busy"] == 0)
    };
    let mut sent = 0;
    let mut home = |arm: &str, keys: [usize; 3]| {
        let [base, next, copy] = keys;
        let reply = Client::get(gateway.public, &format!("/{copy}"))
            .header("X-Canary", arm)
            .header("X-Base", base.to_string())
            .header("Cookie", format!("next={next}"))
            .header("X-Copy", copy.to_string())
            .send();
        sent += 1;
        // A copy that is on its way is a reason to send the next one elsewhere.
        let copied = || copies.iter().map(Upstream::seen).sum::<usize>() == sent && is_idle();
        eventually("it is copied", copied);
        reply.text()
    };
    for (arm, at) in [("base", 0), ("next", 1)] {
        let homes: Vec<String> = (0..20).map(|key| home(arm, [key, key, key % 5])).collect();
        assert!(homes.iter().collect::<HashSet<_>>().len() > 1, "{arm}");
        for (key, server) in homes.iter().enumerate() {
            // The keys of others say nothing.
            let mut keys = [99, 99, key % 5];
            keys[at] = key;
            assert_eq!(home(arm, keys), *server, "{arm} {key}");
        }
    }
    let mut homes: HashMap<String, HashSet<usize>> = HashMap::new();
    for (at, server) in copies.iter().enumerate() {
        for copy in server.recorded() {
            homes.entry(copy.target().to_owned()).or_default().insert(at);
        }
    }
    assert!(homes.len() == 5 && homes.values().all(|servers| servers.len() == 1), "{homes:?}");
}
