//! Refresh tokens: each is exchanged once, whoever asks where; one that is used twice ends all that
//! descends from its log-in; and nobody is locked out when something dies in between.

mod killed;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::auth::{code, upstream};
use crate::support::{
    Client, Exposition, Folder, Gateway, Redis, RedisCluster, Reply, TcpProxy, Upstream,
    eventually, operate, run,
};

/// Gateways with the same keys.
struct House {
    upstream: Upstream,
    key: String,
}

/// What an answer gives.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    access: String,
    refresh: String,
}

impl Pair {
    fn of(reply: &Reply) -> Self {
        let said = reply.json();
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(said["token_type"], "Bearer", "{said}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply:?}");
        let pair = Self { access: text("access_token"), refresh: text("refresh_token") };
        assert!(!pair.access.is_empty() && pair.refresh.starts_with("pcr_"), "{said}");
        pair
    }

    /// The part of the refresh token that nobody can know, behind the family and the number.
    fn secret_in_hex(&self) -> String {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let bytes = URL_SAFE_NO_PAD.decode(&self.refresh[4..]).expect("base64url");
        bytes[20..52].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What the access token says.
    fn says(&self) -> Value {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let claims = self.access.split('.').nth(1).expect("a JWT");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64url")).expect("JSON")
    }
}

impl House {
    fn open() -> Self {
        let folder = Folder::new();
        assert_eq!(run(&folder, &["signing-key", "a.pem"]).code, Some(0));
        let key = std::fs::read_to_string(folder.path().join("a.pem")).expect("a key");
        Self { upstream: upstream(), key }
    }

    /// One on this store, with more of what says how tokens are, and of the route.
    fn gateway(&self, store: &str, tokens: &str, route: &str) -> Gateway {
        let folder = Folder::new();
        folder.write("a.pem", &self.key);
        // Nothing here is about deadlines, and the machine may be busy.
        let store = match store.contains('\n') {
            true => store.to_owned(),
            false => format!("url = \"{store}\"\ntimeout = \"5s\"\nconnect_timeout = \"5s\""),
        };
        let config = format!(
            "[store]\n{store}\n[signers.main]\nissuer = \"https://gw.test\"\n\
             keys = [\"file:a.pem\"]\ntokens = {{ audience = [\"shop\"]{tokens} }}\n\
             [auth.own]\nsigner = \"main\"\naudience = [\"shop\"]\n{}\
             [routes.private]\npath = \"/private\"\nupstream = \"shop\"\nauth = \"own\"\n\
             [routes.token]\npath = \"/token\"\nanswers = \"refresh\"\n{route}",
            self.upstream.table("shop"),
        );
        Gateway::start_in(folder, &config)
    }

    /// Two on one store.
    fn two(&self, store: &str, tokens: &str) -> [Gateway; 2] {
        [self.gateway(store, tokens, ""), self.gateway(store, tokens, "")]
    }
}

fn begin(gateway: &Gateway, sub: &str) -> Pair {
    let body = json!({"sub": sub, "claims": {"role": "user"}}).to_string();
    let reply = operate(gateway, "POST", "/v1/families", &body);
    assert_eq!(reply.status, 201, "{}", reply.text());
    Pair::of(&reply)
}

fn ask(gateway: &Gateway, refresh: &str) -> Reply {
    Client::request(gateway.public, "POST", "/token")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(format!("grant_type=refresh_token&refresh_token={refresh}"))
        .send()
}

fn exchange(gateway: &Gateway, refresh: &str) -> Pair {
    let reply = ask(gateway, refresh);
    assert_eq!(reply.status, 200, "{}", reply.text());
    Pair::of(&reply)
}

/// Whether a token is refused, and why.
fn refused(gateway: &Gateway, refresh: &str, expected: &str) {
    let reply = ask(gateway, refresh);
    assert_eq!((reply.status, &*code(&reply)), (400, expected), "{}", reply.text());
    assert_eq!(reply.json()["error"], "invalid_grant");
    assert!(reply.json()["error_description"].is_string());
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

fn status(gateway: &Gateway, pair: &Pair) -> u16 {
    Client::get(gateway.public, "/private").bearer(&pair.access).send().status
}

fn revoked(gateway: &Gateway, pair: &Pair) {
    let reply = Client::get(gateway.public, "/private").bearer(&pair.access).send();
    assert_eq!((reply.status, &*code(&reply)), (401, "token_revoked"));
}

fn count(gateway: &Gateway, outcome: &str) -> f64 {
    let text = Client::get(gateway.admin, "/metrics").send().text();
    let labels = [("outcome", outcome)];
    Exposition::text(&text).value("portcullis_refreshes_total", &labels).unwrap_or_default()
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
            "stream" => redis.cli(&["XRANGE", key, "-", "+"]),
            _ => String::new(),
        };
    }
    all
}

#[test]
fn a_pair_is_used_at_any_gateway_and_exchanged_for_the_next() {
    let house = House::open();
    let redis = Redis::start();
    let [a, b] = house.two(&redis.url(), "");
    let first = begin(&a, "42");
    assert_eq!((status(&a, &first), status(&b, &first)), (200, 200));
    let said = first.says();
    let (iat, exp) = (said["iat"].as_u64().unwrap(), said["exp"].as_u64().unwrap());
    assert_eq!(exp - iat, 900);
    for (name, expected) in
        [("iss", "https://gw.test"), ("sub", "42"), ("aud", "shop"), ("role", "user")]
    {
        assert_eq!(said[name], expected, "{said}");
    }
    let second = exchange(&b, &first.refresh);
    let by_json = Client::request(a.public, "POST", "/token")
        .header("Content-Type", "application/json")
        .body(json!({"refresh_token": second.refresh}).to_string())
        .send();
    assert_eq!(by_json.header("content-type"), Some("application/json"));
    let third = Pair::of(&by_json);
    assert_eq!(third.says()["sid"], said["sid"]);
    let ids: BTreeSet<String> =
        [&first, &second, &third].map(|pair| pair.says()["jti"].to_string()).into();
    assert_eq!(ids.len(), 3);
    assert_eq!((status(&a, &third), status(&b, &second)), (200, 200));
    // Whoever reads Redis has no token, and what he has opens none.
    let all = dump(&redis);
    assert!(all.contains("app:auth:refresh:{"), "{all}");
    for pair in [&first, &second, &third] {
        assert!(!all.contains(&pair.refresh[4..]) && !all.contains(&pair.access), "{all}");
        // Nor in the digits in which digests stand there.
        let secret = pair.secret_in_hex();
        assert!(!all.contains(&secret), "{secret} stands in {all}");
    }
    let lines = format!("{:?}{}{:?}{}", a.access_lines(), a.stderr(), b.access_lines(), b.stderr());
    assert!(!lines.contains("pcr_"), "{lines}");
    for (body, expected, error) in [
        ("grant_type=password&refresh_token=x", "grant_type_unsupported", "unsupported_grant_type"),
        ("refresh_token=x", "refresh_request_invalid", "invalid_request"),
        ("grant_type=refresh_token&refresh_token=x", "refresh_token_invalid", "invalid_grant"),
    ] {
        let reply = Client::request(a.public, "POST", "/token")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body)
            .send();
        assert_eq!((reply.status, &*code(&reply)), (400, expected), "{body}");
        assert_eq!(reply.json()["error"], error);
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
}

/// Fifty exchanges of one token at once, half of them at each gateway.
fn fifty(a: &Gateway, b: &Gateway, token: &str) -> BTreeSet<(String, String)> {
    let answers: Vec<Pair> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..50)
            .map(|at| scope.spawn(move || exchange(if at % 2 == 0 { a } else { b }, token)))
            .collect();
        asked.into_iter().map(|it| it.join().expect("an answer")).collect()
    });
    let pair = |pair: Pair| (pair.says()["jti"].to_string(), pair.refresh);
    answers.into_iter().map(pair).collect()
}

#[test]
fn fifty_at_once_get_the_same_successor() {
    let house = House::open();
    let (redis, cluster) = (Redis::start(), RedisCluster::start(3));
    for store in [redis.url(), cluster.url()] {
        let [a, b] = house.two(&store, ", grace = \"5m\"");
        let mut token = begin(&a, "42").refresh;
        for round in 0..3 {
            let pairs = fifty(&a, &b, &token);
            assert_eq!(pairs.len(), 1, "round {round}: {pairs:?}");
            token = pairs.into_iter().next().expect("a pair").1;
        }
        let begun = count(&a, "begun") + count(&b, "begun");
        let exchanged = count(&a, "exchanged") + count(&b, "exchanged");
        let repeated = count(&a, "repeated") + count(&b, "repeated");
        assert_eq!((begun, exchanged, repeated), (1.0, 3.0, 147.0), "{store}");
    }
}

/// A token is used twice: everything of its family has ended at both gateways with that answer, and
/// of another family nothing.
fn reused(a: &Gateway, b: &Gateway) {
    let (first, other) = (begin(a, "42"), begin(a, "42"));
    let second = exchange(a, &first.refresh);
    assert_eq!((status(a, &second), status(b, &first)), (200, 200));
    refused(b, &first.refresh, "refresh_token_reused");
    for gateway in [a, b] {
        revoked(gateway, &first);
        revoked(gateway, &second);
        for token in [&second.refresh, &first.refresh] {
            refused(gateway, token, "refresh_token_invalid");
        }
    }
    assert_eq!(count(b, "reused"), 1.0);
    eventually("the audit tells of it", || b.stderr().contains("refresh token reused"));
    let said = b.stderr();
    let line = said.lines().find(|line| line.contains("refresh token reused"));
    let line = line.unwrap_or_else(|| panic!("no audit in {said}"));
    let sid = first.says()["sid"].as_str().unwrap().to_owned();
    assert!(line.contains("sub=\"42\"") && line.contains("sid=\"sha256:"), "{line}");
    assert!(!said.contains(&sid), "{said}");
    let operations = operate(b, "GET", "/v1/operations", "").text();
    assert!(operations.contains("refresh token reused"), "{operations}");
    let next = exchange(b, &other.refresh);
    assert_eq!((status(a, &other), status(a, &next)), (200, 200));
}

#[test]
fn a_token_that_is_used_twice_ends_its_family_everywhere() {
    let house = House::open();
    let redis = Redis::start();
    let [a, b] = house.two(&redis.url(), ", grace = \"0s\"");
    reused(&a, &b);
}

#[test]
fn the_same_holds_in_a_cluster() {
    let house = House::open();
    let cluster = RedisCluster::start(3);
    let [a, b] = house.two(&cluster.url(), ", grace = \"0s\"");
    reused(&a, &b);
}

#[test]
fn the_same_holds_in_the_embedded_store() {
    let house = House::open();
    let gateway = house.gateway("memory:", ", grace = \"0s\"", "");
    reused(&gateway, &gateway);
    let patient = house.gateway("memory:", "", "");
    let first = begin(&patient, "42");
    let (one, same) = (exchange(&patient, &first.refresh), exchange(&patient, &first.refresh));
    assert_eq!((one.refresh, one.access.is_empty()), (same.refresh, false));
}

#[test]
fn an_older_token_than_the_last_ends_the_family_within_the_grace_too() {
    let house = House::open();
    let redis = Redis::start();
    let [a, b] = house.two(&redis.url(), ", grace = \"5m\"");
    let first = begin(&a, "42");
    let second = exchange(&a, &first.refresh);
    let third = exchange(&b, &second.refresh);
    assert_eq!(exchange(&a, &second.refresh).refresh, third.refresh, "the grace");
    refused(&b, &first.refresh, "refresh_token_reused");
    revoked(&a, &third);
    refused(&a, &third.refresh, "refresh_token_invalid");
}

#[test]
fn who_knows_a_family_and_no_token_of_it_can_do_nothing() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let house = House::open();
    let redis = Redis::start();
    let gateway = house.gateway(&redis.url(), ", grace = \"0s\"", "");
    let pair = begin(&gateway, "42");
    let bytes = URL_SAFE_NO_PAD.decode(&pair.refresh[4..]).expect("base64url");
    // In the name, the number, the secret and the tag.
    for at in [0, 15, 19, 20, 51, 52, bytes.len() - 1] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        let made_up = format!("pcr_{}", URL_SAFE_NO_PAD.encode(bytes));
        refused(&gateway, &made_up, "refresh_token_invalid");
    }
    assert_eq!(status(&gateway, &pair), 200);
    exchange(&gateway, &pair.refresh);
}

#[test]
fn whatever_revokes_a_user_or_a_session_ends_families() {
    let house = House::open();
    let redis = Redis::start();
    let [a, b] = house.two(&redis.url(), "");
    let (one, other) = (begin(&a, "42"), begin(&a, "42"));
    let sid = |pair: &Pair| pair.says()["sid"].as_str().expect("sid").to_owned();
    let listed = |sub: &str| -> BTreeSet<String> {
        let reply = operate(&b, "GET", &format!("/v1/families?sub={sub}"), "").json();
        let all = reply["families"].as_array().expect("families").clone();
        all.iter().map(|it| it["sid"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(listed("42"), BTreeSet::from([sid(&one), sid(&other)]));
    let body = json!({"sid": sid(&one)}).to_string();
    assert_eq!(operate(&a, "POST", "/v1/revocations", &body).status, 201);
    refused(&b, &one.refresh, "refresh_token_revoked");
    revoked(&b, &one);
    assert_eq!(listed("42"), BTreeSet::from([sid(&other)]));
    let body = json!({"sub": "42"}).to_string();
    assert_eq!(operate(&a, "POST", "/v1/revocations", &body).status, 201);
    refused(&b, &other.refresh, "refresh_token_revoked");
    revoked(&a, &other);
    // Within the same second or after it.
    let new = exchange(&b, &begin(&a, "42").refresh);
    assert_eq!(status(&b, &new), 200);
    let at = format!("/v1/families/{}", sid(&new));
    assert_eq!(operate(&b, "DELETE", &at, "").status, 200);
    refused(&a, &new.refresh, "refresh_token_invalid");
    revoked(&a, &new);
    let again = operate(&b, "DELETE", &at, "");
    assert_eq!((again.status, listed("42").len()), (404, 0));
}

/// What is issued within the second of a log-out everywhere falls under it, so the gateway waits
/// for the next one.
#[test]
fn who_logs_in_right_after_a_log_out_everywhere_is_logged_in() {
    let house = House::open();
    let redis = Redis::start();
    let [a, b] = house.two(&redis.url(), "");
    let memory = house.gateway("memory:", "", "");
    for (out, at) in [(&a, &a), (&a, &b), (&memory, &memory)] {
        for _ in 0..2 {
            let former = begin(at, "42");
            let body = json!({"sub": "42"}).to_string();
            let told = operate(out, "POST", "/v1/revocations", &body);
            assert_eq!(told.status, 201, "{}", told.text());
            let new = begin(at, "42");
            assert_eq!(status(at, &new), 200, "{}", told.text());
            assert_eq!(status(at, &exchange(at, &new.refresh)), 200);
            revoked(at, &former);
            let not_before = told.json()["not_before"].as_i64().expect("not_before");
            assert!(new.says()["iat"].as_i64() >= Some(not_before), "{}", new.says());
        }
    }
    // Whom an application shuts out for longer is not waited for.
    redis.cli(&["SET", "app:auth:not-before:7", "9999999999"]);
    revoked(&a, &begin(&a, "7"));
}

#[test]
fn who_never_got_the_answer_tries_the_same_token_again() {
    let house = House::open();
    let settings = ["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned);
    let mut redis = Redis::start_with(&settings);
    let [a, b] = house.two(&redis.url(), ", grace = \"5m\"");
    let first = begin(&a, "42");
    // The gateway dies with the answer.
    let lost = exchange(&a, &first.refresh);
    drop(a);
    let second = exchange(&b, &first.refresh);
    assert_eq!(second.refresh, lost.refresh);
    assert_eq!(second.says(), lost.says());
    // Redis dies after an exchange, and before one.
    let lost = exchange(&b, &second.refresh);
    redis.kill();
    let away = ask(&b, &second.refresh);
    assert_eq!((away.status, &*code(&away)), (503, "refresh_away"));
    assert!(away.header("retry-after").is_some());
    redis.restart();
    let mut third = None;
    eventually("Redis is back", || {
        let reply = ask(&b, &second.refresh);
        third = (reply.status == 200).then(|| Pair::of(&reply));
        third.is_some()
    });
    let third = third.expect("a pair");
    assert_eq!(third.refresh, lost.refresh);
    exchange(&b, &third.refresh);
    // By now it was used, and so its predecessor is a thief's.
    refused(&b, &second.refresh, "refresh_token_reused");
}

#[test]
fn at_whatever_step_redis_is_away_the_token_can_be_tried_again() {
    let house = House::open();
    let redis = Redis::start();
    let proxy = TcpProxy::start(redis.address());
    let store = format!("url = \"{}\"\ntimeout = \"300ms\"\n", proxy.url());
    let gateway = house.gateway(&store, ", grace = \"5m\"", "");
    let near = house.gateway(&redis.url(), ", grace = \"5m\"", "");
    let mut token = begin(&near, "42").refresh;
    let (mut away, mut answered) = (0, 0);
    for step in 0..5 {
        eventually("the gateway has its store", || {
            operate(&gateway, "GET", "/v1/families?sub=42", "").status == 200
        });
        proxy.swallow_after(step);
        let reply = ask(&gateway, &token);
        let got = (reply.status == 200).then(|| Pair::of(&reply));
        answered += usize::from(got.is_some());
        away += usize::from(reply.status == 503);
        // What is held back is lost with its connection.
        proxy.hang_up();
        proxy.pass();
        let retried = exchange(&near, &token);
        if let Some(got) = got {
            assert_eq!(got.refresh, retried.refresh, "step {step}");
        }
        assert_eq!(exchange(&near, &token).refresh, retried.refresh, "one successor");
        token = retried.refresh;
    }
    assert!(away > 0 && answered + away == 5, "{answered} {away}");
}

#[test]
fn the_policies_of_the_route_hold() {
    let house = House::open();
    let limited = "limits = [\"few\"]\n[limits.few]\nkey = [\"address\"]\nallow = [\"2/1h\"]\n";
    let gateway = house.gateway("memory:", "", limited);
    for _ in 0..2 {
        refused(&gateway, "pcr_x", "refresh_token_invalid");
    }
    let reply = ask(&gateway, "pcr_x");
    assert_eq!((reply.status, &*code(&reply)), (429, "limit_exceeded"));
}

#[test]
fn families_are_begun_listed_and_ended_by_commands() {
    let house = House::open();
    let gateway = house.gateway("memory:", "", "");
    let admin = format!("http://{}", gateway.admin);
    let folder = Folder::new();
    let command = |words: &[&str]| {
        let ran = run(&folder, &[&["families"][..], words, &["--admin", &admin]].concat());
        assert_eq!(ran.code, Some(0), "{words:?}: {}", ran.stderr);
        ran.stdout
    };
    let begun = command(&["begin", "--sub", "42", "--claim", "role=user"]);
    let line = |name: &str| {
        let line = begun.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("{begun}")).to_owned()
    };
    let pair = Pair { access: line("access_token"), refresh: line("refresh_token") };
    assert_eq!((status(&gateway, &pair), pair.says()["role"].as_str()), (200, Some("user")));
    let sid = line("sid");
    assert!(command(&["list", "--sub", "42"]).starts_with(&format!("{sid} created=")));
    assert_eq!(command(&["end", &sid]), format!("ended: {sid}\n"));
    assert_eq!(command(&["list", "--sub", "42"]), "0 more\n");
    refused(&gateway, &pair.refresh, "refresh_token_invalid");
}

/// The answer to a request at the admin listener, by this token.
fn looked(gateway: &Gateway, bearer: &str, method: &str, path: &str, body: &str) -> Value {
    let request = Client::request(gateway.admin, method, path).bearer(bearer);
    let reply = request.header("Content-Type", "application/json").body(body).send();
    assert!(reply.status < 300, "{path}: {}", reply.text());
    reply.json()
}

#[test]
fn who_only_looks_is_told_of_families_by_their_digests() {
    let (operator, reader) = ("operator-0123456789", "reader-0123456789");
    let admin = format!("[admin]\ntoken = \"{operator}\"\nread_token = \"{reader}\"\n");
    let gateway = House::open().gateway("memory:", "", &admin);
    let begun = looked(&gateway, operator, "POST", "/v1/families", r#"{"sub": "42"}"#);
    let sid = begun["sid"].as_str().expect("a family");
    let listed =
        |bearer| looked(&gateway, bearer, "GET", "/v1/families?sub=42", "")["families"].clone();
    assert_eq!(listed(operator)[0]["sid"], sid);
    let told = listed(reader);
    assert!(!told.to_string().contains(sid), "{told}");
    assert!(told[0]["sid"].as_str().is_some_and(|it| it.starts_with("sha256:")), "{told}");
    assert_eq!(told[0]["signer"], "main");
}

#[test]
fn without_its_store_a_gateway_that_refreshes_is_not_ready() {
    let limited = "limits = [\"few\"]\n[limits.few]\nkey = [\"address\"]\nallow = [\"9/1h\"]\n";
    for route in ["", limited] {
        let mut redis = Redis::start();
        let gateway = House::open().gateway(&redis.url(), "", route);
        let ready = || Client::get(gateway.admin, "/readyz").send().status;
        eventually("it is ready", || ready() == 200);
        redis.kill();
        eventually("it is not", || ready() == 503);
    }
}
