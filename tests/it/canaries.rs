//! Routes that are split among upstreams: who takes a request, and what becomes of a bad canary.

use std::io::Read as _;

use portcullis::traffic::bucket;
use serde_json::{Value, json};

use crate::support::{
    AUTH, Client, Exposition, Gateway, Redis, Session, Upstream, claims, eventually, operate, raw,
    response, status, token,
};

/// The base and the canary; each answers its name.
fn upstreams() -> [Upstream; 2] {
    ["base", "next"].map(|name| Upstream::replying(response("200 OK", name)))
}

fn tables(upstreams: &[Upstream; 2]) -> String {
    let [base, next] = upstreams;
    base.table("base") + &next.table("next")
}

/// Whom the canary takes at this share.
fn arm_of(route: &str, caller: &str, share: u16) -> &'static str {
    if bucket(route, caller.as_bytes()) < share { "next" } else { "base" }
}

fn canary(gateway: &Gateway, route: &str) -> Value {
    operate(gateway, "GET", "/v1/canary", "").json()["routes"][route].clone()
}

#[test]
fn a_caller_stays_with_the_arm_of_its_number() {
    let upstreams = upstreams();
    let gateway = Gateway::start(&format!(
        "{}
        [routes.all]
        path = \"/*\"
        split = [{{ upstream = \"base\", weight = 80 }}, {{ upstream = \"next\", weight = 20 }}]
        sticky = \"header:x-user\"
        [routes.drawn]
        path = \"/drawn\"
        split = [{{ upstream = \"base\", weight = 0 }}, {{ upstream = \"next\", weight = 1 }}]",
        tables(&upstreams)
    ));
    let mut session = Session::open(gateway.public);
    let mut seen = [0, 0];
    for number in 0..60 {
        let user = format!("user-{number}");
        let expected = arm_of("all", &user, 2_000);
        for _ in 0..2 {
            // Nobody believes a stranger.
            let get = session.get("/").header("X-User", &user).header("X-Canary", "always");
            assert_eq!(get.send().text(), expected, "{user}");
        }
        seen[usize::from(expected == "next")] += 1;
    }
    assert!(seen.iter().all(|count| *count > 3), "{seen:?}");
    assert_eq!(session.get("/drawn").send().text(), "next");
    eventually("lines that name the arm", || {
        let lines = gateway.access_lines();
        let is_told = |line: &Value| line["arm"].is_string() && line["arm"] == line["upstream"];
        lines.len() == 121 && lines.iter().all(is_told)
    });
    let told = canary(&gateway, "all");
    assert_eq!(told["arms"][0]["percent"], 80.0, "{told}");
    assert_eq!(told["arms"][1]["answers"], seen[1] * 2, "{told}");
    let metrics = Client::get(gateway.admin, "/metrics").send().text();
    let metrics = Exposition::text(&metrics);
    let next = [("route", "all"), ("arm", "next")];
    assert_eq!(metrics.value("portcullis_canary_weight", &next), Some(0.2));
    assert_eq!(metrics.value("portcullis_canary_failures_total", &next), Some(0.0));
    let described = json!({ "path": "/", "headers": { "x-user": "user-1" } });
    let told = operate(&gateway, "POST", "/v1/explain", &described.to_string()).json();
    assert_eq!(told["arm"]["upstream"], arm_of("all", "user-1", 2_000), "{told}");
    assert!(told["arm"]["why"].as_str().is_some_and(|why| why.contains("20%")), "{told}");
}

#[test]
fn a_trusted_proxy_says_which_arm_it_wants() {
    let upstreams = upstreams();
    let gateway = Gateway::start(&format!(
        "[server]
        trusted_proxies = [\"127.0.0.1/32\"]
        {}
        [routes.all]
        path = \"/*\"
        split = [{{ upstream = \"base\", weight = 1 }}, {{ upstream = \"next\", weight = 0 }}]
        rollback = {{}}",
        tables(&upstreams)
    ));
    for (wanted, expected) in [
        ("always", "next"),
        ("next", "next"),
        ("never", "base"),
        ("base", "base"),
        ("other", "base"),
    ] {
        let get = Client::get(gateway.public, "/").header("X-Canary", wanted);
        assert_eq!(get.send().text(), expected, "{wanted}");
    }
    // Whoever tries a canary by hand says nothing of how it does.
    let told = canary(&gateway, "all");
    assert_eq!((&told["arms"][1]["answers"], &told["arms"][0]["answers"]), (&json!(0), &json!(1)));
}

#[test]
fn what_one_arm_answered_is_not_served_for_the_other() {
    let upstreams = upstreams();
    let gateway = Gateway::start(&format!(
        "{AUTH}{}
        [routes.kept]
        path = \"/*\"
        auth = \"users\"
        split = [{{ upstream = \"base\", weight = 1 }}, {{ upstream = \"next\", weight = 1 }}]
        sticky = \"claim:sub\"
        cache = {{ ttl = \"1h\", shared = true }}",
        tables(&upstreams)
    ));
    let user_of = |arm: &str| {
        let mut users = (0..).map(|number| format!("user-{number}"));
        users.find(|user| arm_of("kept", user, 5_000) == arm).unwrap()
    };
    for _ in 0..3 {
        for arm in ["base", "next"] {
            let get = Client::get(gateway.public, "/").bearer(token(claims(&user_of(arm))));
            assert_eq!(get.send().text(), arm);
        }
    }
    assert_eq!(upstreams.each_ref().map(|upstream| upstream.recorded().len()), [1, 1]);
}

/// A canary that takes one half of the callers, of a fleet that judges it.
fn halves(redis: &Redis, base: &Upstream, next: &Upstream) -> String {
    format!(
        "[store]
        url = \"{}\"
        {}{}
        [routes.all]
        path = \"/*\"
        split = [{{ upstream = \"base\", weight = 1 }}, {{ upstream = \"next\", weight = 1 }}]
        sticky = \"header:x-user\"
        rollback = {{ window = \"1h\" }}",
        redis.url(),
        base.table("base"),
        next.table("next"),
    )
}

#[test]
fn the_whole_fleet_takes_a_bad_canary_back_until_it_is_reset() {
    let redis = Redis::start();
    let base = Upstream::replying(response("200 OK", "base"));
    let next = Upstream::replying(response("500 Internal Server Error", "next"));
    let config = halves(&redis, &base, &next);
    let gateways = [Gateway::start(&config), Gateway::start(&config)];
    let share = |gateway: &Gateway| canary(gateway, "all")["arms"][1]["percent"].clone();
    assert_eq!(gateways.each_ref().map(share), [json!(50.0), json!(50.0)]);
    let mut session = Session::open(gateways[0].public);
    for number in 0..300 {
        session.get("/").header("X-User", format!("user-{number}")).send();
    }
    eventually("the fleet has taken it back", || {
        gateways.each_ref().map(share) == [json!(0.0), json!(0.0)]
    });
    for (gateway, number) in gateways.iter().zip(0..) {
        let told = canary(gateway, "all");
        assert!(told["stopped"].as_str().is_some_and(|why| why.contains("100.0%")), "{told}");
        let metrics = Client::get(gateway.admin, "/metrics").send().text();
        let rollbacks =
            Exposition::text(&metrics).value("portcullis_rollbacks_total", &[("route", "all")]);
        assert_eq!(rollbacks, Some(f64::from(1 - number)));
        for number in 0..20 {
            let get = Client::get(gateway.public, "/").header("X-User", format!("user-{number}"));
            assert_eq!(get.send().text(), "base");
        }
    }
    // A gateway that comes later knows it with its first request.
    let later = Gateway::start(&config);
    assert_eq!(share(&later), json!(0.0));
    let unknown = operate(&later, "POST", "/v1/canary/reset", "{\"route\": \"other\"}");
    assert_eq!(unknown.status, 400);
    let reset = operate(&later, "POST", "/v1/canary/reset", "{\"route\": \"all\"}");
    assert_eq!((reset.status, &reset.json()["canary"]["stopped"]), (200, &json!(null)));
    eventually("all go on", || gateways.each_ref().map(share) == [json!(50.0), json!(50.0)]);
    let stop = operate(&later, "POST", "/v1/canary/stop", "{\"route\": \"all\"}");
    assert_eq!(stop.status, 200);
    eventually("all stop", || gateways.each_ref().map(share) == [json!(0.0), json!(0.0)]);
}

#[test]
fn a_canary_with_few_requests_at_each_gateway_is_judged_by_the_fleet() {
    let redis = Redis::start();
    let base = Upstream::replying(response("200 OK", "base"));
    let next = Upstream::replying(response("500 Internal Server Error", "next"));
    let config = halves(&redis, &base, &next);
    let gateways = [(); 3].map(|()| Gateway::start(&config));
    for gateway in &gateways {
        let mut session = Session::open(gateway.public);
        // Of each arm: fewer than are judged.
        for arm in ["base", "next"] {
            let users = (0..).map(|number| format!("user-{number}"));
            let users = users.filter(|user| arm_of("all", user, 5_000) == arm);
            for user in users.take(40) {
                assert_eq!(session.get("/").header("X-User", user).send().text(), arm);
            }
        }
    }
    let stopped = |gateway: &Gateway| canary(gateway, "all")["stopped"].clone();
    eventually("the fleet has taken it back", || {
        gateways.iter().all(|gateway| stopped(gateway).as_str().is_some())
    });
    let why = stopped(&gateways[0]);
    assert!(why.as_str().is_some_and(|why| why.starts_with("100.0% of its answers")), "{why}");
}

/// What waits here before its upstream is asked leaves that too little of the route's deadline.
#[test]
fn an_arm_is_blamed_for_a_deadline_only_where_it_had_the_time() {
    let base = Upstream::replying(response("200 OK", "base"));
    let next = Upstream::with(|_, connection| {
        // Until the gateway gives it up.
        let _ = connection.read(&mut [0; 16]);
    });
    let split =
        "split = [{ upstream = \"base\", weight = 0 }, { upstream = \"next\", weight = 1 }]";
    let gateway = Gateway::start(&format!(
        "{}{}
        [routes.all]
        path = \"/*\"
        {split}
        deadline = \"1s\"
        [routes.late]
        path = \"/late\"
        {split}
        deadline = \"1s\"
        faults = {{ allow_from = [\"127.0.0.1/32\"], delay = \"100%\", delay_time = \"600ms\" }}",
        base.table("base"),
        next.table("next"),
    ));
    let counted = |route: &str| {
        let arm = canary(&gateway, route)["arms"][1].clone();
        [&arm["answers"], &arm["failures"]].map(|count| count.as_u64().unwrap())
    };
    // Nor where its client owes a part of the body.
    let owes = "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10\r\n\r\nabc";
    assert_eq!((status(&raw(gateway.public, owes)), counted("all")), (504, [0, 0]));
    for (method, path, route, expected) in [
        ("GET", "/late", "late", [0, 0]),
        ("GET", "/", "all", [1, 1]),
        // All of its body was there in time.
        ("POST", "/", "all", [2, 2]),
    ] {
        next.forget();
        // A machine that is busy may take the time before it is asked.
        let is_told = (0..5).any(|_| {
            let body = if method == "POST" { "abc" } else { "" };
            let asked = Client::request(gateway.public, method, path).body(body).send();
            assert_eq!(asked.status, 504, "{method} {path}");
            next.seen() > 0 && counted(route) == expected
        });
        assert!(is_told, "{method} {path}: {:?}", counted(route));
    }
}

/// The canary is judged by what its callers got, however often that was asked for.
#[test]
fn an_arm_sends_again_what_its_own_upstream_says() {
    let [base, next] = upstreams();
    let busy = Upstream::replying(response("503 Busy", "busy"));
    let gateway = Gateway::start(&format!(
        "{}
        [upstreams.next]
        servers = [\"{}\", \"{}\"]
        balance = \"round-robin\"
        retry = {{ backoff = \"1ms\" }}
        [routes.all]
        path = \"/*\"
        split = [{{ upstream = \"base\", weight = 0 }}, {{ upstream = \"next\", weight = 1 }}]",
        base.table("base"),
        busy.url(),
        next.url()
    ));
    let mut session = Session::open(gateway.public);
    for _ in 0..4 {
        assert_eq!(session.get("/").send().text(), "next");
    }
    assert_eq!((busy.seen(), next.seen()), (2, 4));
    let told = canary(&gateway, "all");
    assert_eq!(told["arms"][1]["answers"], 4, "{told}");
    assert_eq!(told["arms"][1]["failures"], 0, "{told}");
    eventually("all are logged", || gateway.access_lines().len() == 4);
    let lines = gateway.access_lines();
    assert!(lines.iter().all(|line| line["arm"] == "next" && line["server"] == next.url()));
    let again: Vec<_> = lines.iter().filter(|line| line["attempts"] == 2).collect();
    assert!(again.len() == 2 && again.iter().all(|line| line["retry"] == "status"), "{again:?}");
}
