//! Sessions that a gateway has read, for a while without Redis (`on_outage.session_max_stale`).

use serde_json::json;

use crate::auth::code;
use crate::support::{Client, Gateway, Redis, Reply, Upstream, eventually, operate};

const CONFIG: &str = r#"
[session]
id_from = ["cookie:sid"]
header = "x-session"
[routes.required]
path = "/required"
upstream = "shop"
session = "required"
"#;

struct House {
    redis: Redis,
    upstream: Upstream,
}

impl House {
    fn start() -> Self {
        let upstream = Upstream::replying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Self { redis: Redis::start(), upstream }
    }

    fn gateway(&self, on_outage: &str) -> Gateway {
        let store = format!(
            "[store]\nurl = \"{}\"\ntimeout = \"5s\"\n[store.on_outage]\n{on_outage}\n",
            self.redis.url()
        );
        Gateway::start(&(store + &self.upstream.table("shop") + CONFIG))
    }

    fn write(&self, id: &str) {
        assert_eq!(self.redis.cli(&["SET", &format!("app:session:{id}"), "{\"n\":1}"]), "OK");
    }

    /// The header that the upstream gets of a request that passes.
    fn attached(&self, gateway: &Gateway, id: &str) -> String {
        self.upstream.forget();
        let reply = get(gateway, id);
        assert_eq!(reply.status, 200, "{}", reply.text());
        self.upstream.only().header("x-session").expect("a session").to_owned()
    }
}

fn get(gateway: &Gateway, id: &str) -> Reply {
    Client::get(gateway.public, "/required").header("Cookie", format!("sid={id}")).send()
}

fn refuses(reply: &Reply, status: u16, expected: &str) {
    assert_eq!((reply.status, &*code(reply)), (status, expected), "{}", reply.text());
}

fn is_away(gateway: &Gateway) -> bool {
    operate(gateway, "GET", "/v1/status", "").json()["store"]["connected"] == false
}

#[test]
fn what_was_read_goes_on_and_nothing_else() {
    let mut house = House::start();
    let keeping = house.gateway("session_max_stale = \"1h\"");
    let brief = house.gateway("session_max_stale = \"1ms\"");
    let off = house.gateway("");
    for id in ["kept", "ended", "deleted", "never-read"] {
        house.write(id);
    }
    let before = house.attached(&keeping, "kept");
    for gateway in [&brief, &off] {
        house.attached(gateway, "kept");
    }
    for id in ["ended", "deleted"] {
        house.attached(&keeping, id);
    }
    // By the application, and seen here; by an operator, and not read since.
    assert_eq!(house.redis.cli(&["DEL", "app:session:ended"]), "1");
    refuses(&get(&keeping, "ended"), 401, "session_missing");
    assert_eq!(operate(&keeping, "DELETE", "/v1/sessions/deleted", "").status, 200);
    house.redis.kill();
    for gateway in [&keeping, &brief, &off] {
        eventually("it is known", || is_away(gateway));
    }
    // The only route needs a session.
    let ready = |gateway: &Gateway| Client::get(gateway.admin, "/readyz").send().status;
    assert_eq!([&keeping, &brief, &off].map(ready), [200, 503, 503]);
    for _ in 0..3 {
        assert_eq!(house.attached(&keeping, "kept"), before);
        for id in ["ended", "deleted", "never-read"] {
            refuses(&get(&keeping, id), 503, "session_unknown");
        }
        refuses(&get(&off, "kept"), 503, "session_unknown");
        refuses(&get(&brief, "kept"), 503, "session_unknown");
    }
    eventually("the access line says so", || {
        let lines = keeping.access_lines();
        let is_told = |line: &&serde_json::Value| line["degraded"] == json!(["session"]);
        let passed = |line: &&serde_json::Value| line["status"] == 200;
        lines.iter().filter(is_told).filter(passed).count() == 3
    });
    // Redis comes back without it: its end is known from then on.
    house.redis.restart();
    eventually("Redis is asked again", || get(&keeping, "kept").status == 401);
    house.redis.kill();
    eventually("it is known", || is_away(&keeping));
    refuses(&get(&keeping, "kept"), 503, "session_unknown");
}

#[test]
fn a_log_out_everywhere_forgets_all_of_them() {
    let mut house = House::start();
    let keeping = house.gateway("session_max_stale = \"1h\"");
    house.write("mine");
    assert_eq!(house.redis.cli(&["ZADD", "app:sessions-of:42", "1", "mine"]), "1");
    house.attached(&keeping, "mine");
    let logged_out = operate(&keeping, "POST", "/v1/revocations", r#"{"sub": "42"}"#);
    assert_eq!(logged_out.status, 201, "{}", logged_out.text());
    house.redis.kill();
    eventually("it is known", || is_away(&keeping));
    refuses(&get(&keeping, "mine"), 503, "session_unknown");
}

#[test]
fn a_session_whose_life_is_over_does_not_go_on() {
    let mut house = House::start();
    let keeping = house.gateway("session_max_stale = \"1h\"\nsession = \"without\"");
    house.write("short");
    assert_eq!(house.redis.cli(&["PEXPIRE", "app:session:short", "3000"]), "1");
    house.attached(&keeping, "short");
    house.redis.kill();
    eventually("it is over", || {
        house.upstream.forget();
        get(&keeping, "short").status == 200 && house.upstream.only().header("x-session").is_none()
    });
}
