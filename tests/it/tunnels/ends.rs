//! What ends a tunnel from outside: the token's end, its revocation at any gateway, the session's
//! end, a reload, the drain, an operator.

use serde_json::{Value, json};

use super::{Stage, config};
use crate::support::websocket::{CLOSE, Handshakes, TEXT, WebSocket, echo, reason, upstream};
use crate::support::{AUTH, Gateway, Redis, Upstream, claims, eventually, operate, token};

/// Two gateways on one Redis, before an upstream that echoes.
struct House {
    _redis: Redis,
    _upstream: Upstream,
    _handshakes: Handshakes,
    gateways: [Gateway; 2],
}

impl House {
    fn start(tunnel: &str) -> Self {
        let redis = Redis::start();
        let (upstream, handshakes) = upstream(echo);
        // Nothing here is about deadlines, and the machine may be busy.
        let store = format!(
            "[store]\nurl = \"{}\"\ntimeout = \"5s\"\nconnect_timeout = \"5s\"\n",
            redis.url()
        );
        let config = store + &config(&upstream, "", tunnel);
        let gateways = [Gateway::start(&config), Gateway::start(&config)];
        for gateway in &gateways {
            eventually("revocations are followed", || {
                gateway.stderr().contains("revocations are followed")
            });
        }
        Self { _redis: redis, _upstream: upstream, _handshakes: handshakes, gateways }
    }

    /// Revokes at the first gateway.
    fn revoke(&self, what: &Value) {
        let reply = operate(&self.gateways[0], "POST", "/v1/revocations", &what.to_string());
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
}

/// Opens a tunnel of this caller.
fn open(gateway: &Gateway, claims: &Value) -> WebSocket {
    let bearer = format!("Authorization: Bearer {}\r\n", token(claims.clone()));
    let mut socket = WebSocket::open(gateway.public, "/mine/1", &bearer);
    assert_open(&mut socket);
    socket
}

fn assert_open(socket: &mut WebSocket) {
    socket.send(TEXT, "still there?");
    socket.expect(TEXT, "still there?");
}

/// The Close that comes, which is answered, and then the end.
fn closed(socket: &mut WebSocket) -> (u16, String) {
    let close = socket.next().close();
    socket.send(CLOSE, reason(close.0, ""));
    socket.ended();
    close
}

/// The `tunnel_end` of each access line, once there are so many.
fn ends(gateway: &Gateway, count: usize) -> Vec<Value> {
    let mut ends = Vec::new();
    eventually("there are lines", || {
        ends = gateway.access_lines().iter().map(|line| line["tunnel_end"].clone()).collect();
        ends.len() == count
    });
    ends
}

fn with(mut claims: Value, name: &str, value: &str) -> Value {
    claims[name] = value.into();
    claims
}

/// A token of a minute ago: one of the second of a log-out is one of after it.
fn aged(mut claims: Value) -> Value {
    claims["iat"] = (claims["iat"].as_u64().unwrap() - 60).into();
    claims
}

#[test]
fn what_one_gateway_revokes_ends_at_another() {
    let house = House::start("");
    let [here, there] = &house.gateways;
    for (what, revoked) in [
        (json!({ "jti": "x1" }), with(claims("ada"), "jti", "x1")),
        (json!({ "sid": "s1" }), with(claims("ada"), "sid", "s1")),
        (json!({ "sub": "ada" }), aged(claims("ada"))),
    ] {
        let mut one = open(here, &revoked);
        let mut other = open(there, &revoked);
        let mut stays = open(there, &claims("bob"));
        house.revoke(&what);
        assert_eq!(closed(&mut other), (1008, "token revoked".to_owned()), "{what}");
        assert_eq!(closed(&mut one), (1008, "token revoked".to_owned()), "{what}");
        assert_open(&mut stays);
    }
    let mut ends = ends(there, 6);
    ends.sort_by_key(Value::to_string);
    assert_eq!(ends[3..], ["revoked", "revoked", "revoked"]);
}

#[test]
fn a_tunnel_ends_on_what_it_was_told_to_alone() {
    let house = House::start("end_on = [\"sub\"]");
    let there = &house.gateways[1];
    let old = aged(with(claims("ada"), "jti", "old"));
    let mut socket = open(there, &old);
    // As a refresh does, which makes a new token and blacklists the old one.
    house.revoke(&json!({ "jti": "old" }));
    let mut second = open(there, &with(old, "jti", "new"));
    house.revoke(&json!({ "sub": "nobody" }));
    assert_open(&mut socket);
    assert_open(&mut second);
    house.revoke(&json!({ "sub": "ada" }));
    assert_eq!(closed(&mut socket).0, 1008);
    assert_eq!(closed(&mut second).0, 1008);
}

#[test]
fn a_token_that_expires_ends_it() {
    let (upstream, _) = upstream(echo);
    let config = config(&upstream, "", "").replace("[auth.users]", "[auth.users]\nleeway = \"0s\"");
    let gateway = Gateway::start(&config);
    let mut brief = claims("ada");
    brief["exp"] = (brief["iat"].as_u64().unwrap() + 3).into();
    let mut socket = open(&gateway, &brief);
    let mut stays = open(&gateway, &claims("ada"));
    assert_eq!(closed(&mut socket), (1008, "token expired".to_owned()));
    assert_open(&mut stays);
    assert_eq!(ends(&gateway, 1), ["expired"]);
}

#[test]
fn a_revocation_on_the_embedded_store_and_an_end_of_a_session() {
    let (upstream, _) = upstream(echo);
    let gateway = Gateway::start(&format!(
        "{AUTH}[session]\nid_from = [\"cookie:sid\"]\nheader = \"x-session\"\n{}
        [routes.mine]\npath = \"/mine/*\"\nupstream = \"shop\"\nauth = \"users\"\nsession = true
        upgrade = [\"websocket\"]\n",
        upstream.table("shop")
    ));
    let bob = claims("bob");
    let mut revoked = open(&gateway, &bob);
    let write = operate(&gateway, "PUT", "/v1/sessions/s1?ttl=1h", "{\"n\": 1}");
    assert_eq!(write.status, 201, "{}", write.text());
    let fields = format!("Authorization: Bearer {}\r\nCookie: sid=s1\r\n", token(claims("ada")));
    let mut ended = WebSocket::open(gateway.public, "/mine/1", &fields);
    let fields = fields.replace("sid=s1", "sid=unknown");
    let mut without = WebSocket::open(gateway.public, "/mine/1", &fields);

    let body = json!({ "jti": bob["jti"] }).to_string();
    assert_eq!(operate(&gateway, "POST", "/v1/revocations", &body).status, 201);
    assert_eq!(closed(&mut revoked), (1008, "token revoked".to_owned()));
    assert_open(&mut ended);
    assert_eq!(operate(&gateway, "DELETE", "/v1/sessions/s1", "").status, 200);
    assert_eq!(closed(&mut ended), (1008, "session ended".to_owned()));
    assert_open(&mut without);
    assert_eq!(ends(&gateway, 2), ["revoked", "session"]);
}

#[test]
fn a_reload_ends_those_of_a_route_that_is_gone_and_no_others() {
    let stage = Stage::echoing("");
    let mut gone = open(&stage.gateway, &claims("ada"));
    let mut stays = stage.open();
    let whole = config(&stage.upstream, "", "idle_timeout = \"1m\"");
    let without = whole.replace("[routes.mine]", "[routes.other]").replace("/mine/", "/other/");
    let without = without.replace("routes.mine.tunnel", "routes.other.tunnel");
    stage.gateway.rewrite(&without);
    stage.gateway.signal("HUP");
    assert_eq!(closed(&mut gone), (1001, "route removed".to_owned()));
    for _ in 0..20 {
        let before = stage.gateway.stderr().matches("reloaded").count();
        stage.gateway.signal("HUP");
        eventually("it is reloaded", || {
            stage.gateway.stderr().matches("reloaded").count() > before
        });
    }
    assert_open(&mut stays);
    assert_eq!(ends(&stage.gateway, 1), ["route_gone"]);
}

#[test]
fn the_drain_says_good_bye_to_all() {
    let (upstream, _) = upstream(echo);
    let config = config(&upstream, "", "");
    let config = config.replace("[server.limits]", "[server]\ndrain = \"2s\"\n[server.limits]");
    let mut gateway = Gateway::start(&config);
    let open = |_| WebSocket::open(gateway.public, "/live/1", "");
    let mut sockets: Vec<WebSocket> = (0..5).map(open).collect();
    sockets.iter_mut().for_each(assert_open);
    gateway.signal("TERM");
    for socket in &mut sockets {
        assert_eq!(closed(socket), (1001, "going away".to_owned()));
    }
    assert!(gateway.wait().success());
    assert_eq!(ends(&gateway, 5), ["drain"; 5]);
    eventually("the upstream is left alone", || upstream.open() == 0);
}

#[test]
fn operators_list_and_close_them() {
    let stage = Stage::echoing("");
    let gateway = &stage.gateway;
    let mut ada = open(gateway, &claims("ada"));
    let mut bob = open(gateway, &claims("bob"));
    let mut nobody = stage.open();
    assert_open(&mut nobody);
    let list = |query: &str| operate(gateway, "GET", &format!("/v1/tunnels{query}"), "").json();
    let all = list("");
    assert_eq!((&all["open"], all["tunnels"].as_array().unwrap().len()), (&json!(3), 3), "{all}");
    assert_eq!(all["tunnels"][0]["subject"], "ada", "{all}");
    assert_eq!(all["tunnels"][0]["route"], "mine", "{all}");
    assert_eq!(all["tunnels"][0]["client"], "127.0.0.1", "{all}");
    assert_eq!(list("?sub=bob")["open"], 1);
    assert_eq!(list("?route=live")["open"], 1);
    assert_eq!(operate(gateway, "DELETE", "/v1/tunnels", "").status, 400);
    assert_eq!(operate(gateway, "GET", "/v1/tunnels?user=ada", "").status, 400);
    assert_eq!(operate(gateway, "PUT", "/v1/tunnels", "{}").status, 405);

    let closing = operate(gateway, "DELETE", "/v1/tunnels?sub=ada", "");
    assert_eq!((closing.status, &closing.json()["closed"]), (200, &json!(1)));
    assert_eq!(closed(&mut ada), (1008, "closed by an operator".to_owned()));
    assert_open(&mut bob);
    assert_eq!(ends(gateway, 1), ["cut"]);
    assert_eq!(gateway.access_lines()[0]["reason"], "closed_by_operator");
    assert_eq!(list("")["open"], 2);
    let id = list("?sub=bob")["tunnels"][0]["id"].clone();
    operate(gateway, "DELETE", &format!("/v1/tunnels?id={id}"), "");
    assert_eq!(closed(&mut bob).0, 1008);
}

#[test]
fn the_metrics_count_them() {
    let stage = Stage::echoing("");
    let mut socket = stage.open();
    assert_open(&mut socket);
    let read = || {
        let text = operate(&stage.gateway, "GET", "/metrics", "").text();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.unwrap_or_else(|| panic!("{name} is not in {text}"))
                .rsplit(' ')
                .next()
                .map(str::to_owned)
        };
        [
            "portcullis_tunnels_open{route=\"live\"}",
            "portcullis_tunnels_open{route=\"mine\"}",
            "portcullis_tunnel_bytes_total{direction=\"up\"}",
            "portcullis_tunnel_bytes_total{direction=\"down\"}",
            "portcullis_tunnel_messages_total",
            "portcullis_tunnel_ends_total{reason=\"client\"}",
            "portcullis_tunnel_ends_total{reason=\"expired\"}",
        ]
        .map(|name| value(name).unwrap())
    };
    // While it is open.
    eventually("what has passed is counted", || read() == ["1", "0", "18", "14", "2", "0", "0"]);
    socket.send(CLOSE, reason(1000, ""));
    socket.expect(CLOSE, reason(1000, ""));
    eventually("its end is counted", || read() == ["0", "0", "26", "18", "2", "1", "0"]);
}
