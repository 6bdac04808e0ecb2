//! `DELETE /v1/revocations`: a mistake undone, with every gateway.

use serde_json::{Value, json};

use super::{House, knows, operate, revoke};
use crate::auth::with;
use crate::support::{AUTH, Client, Gateway, Redis, Reply, TcpProxy, Upstream, eventually, token};

const PATH: &str = "/v1/revocations";

fn problem(reply: &Reply) -> (u16, String) {
    let kind = reply.json()["type"].as_str().expect("a type").to_owned();
    (reply.status, kind.replace("urn:portcullis:problem:", ""))
}

#[test]
fn every_kind_is_taken_back_here_and_everywhere() {
    let mut house = House::open();
    let (a, b) = (house.gateway(), house.gateway());
    let nameless = token(with(json!({"jti": null})));
    let old = with(json!({}))["iat"].as_u64().unwrap() - 60;
    let cases = [
        (json!({"jti": "a b&c"}), token(with(json!({"jti": "a b&c"}))), "jti=a%20b%26c".to_owned()),
        (json!({"token": nameless}), nameless.clone(), format!("token={nameless}")),
        (json!({"sid": "s-1"}), token(with(json!({"sid": "s-1"}))), "sid=s-1".to_owned()),
        (json!({"sub": "u-1"}), token(with(json!({"sub": "u-1", "iat": old}))), "sub=u-1".into()),
    ];
    for (what, token, query) in &cases {
        let undo: [&dyn Fn() -> Reply; 2] =
            [&|| operate(&a, "DELETE", PATH, &what.to_string()), &|| {
                operate(&a, "DELETE", &format!("{PATH}?{query}"), "")
            }];
        for undo in undo {
            revoke(&a, what);
            knows(&b, 1);
            house.refuses(&b, token, &what.to_string());
            let reply = undo();
            assert_eq!(reply.status, 200, "{}", reply.text());
            // Until it is told, it refuses what it knows.
            knows(&b, 0);
            house.passes(&b, token, &what.to_string());
            assert_eq!(problem(&undo()), (404, "revocation_not_found".to_owned()));
        }
    }
    house.redis.kill();
    for (what, token, _) in &cases {
        house.passes(&b, token, &what.to_string());
    }
}

/// A token says itself how long it lives: a revocation that ended before would let it in again.
#[test]
fn a_token_is_revoked_for_as_long_as_it_lives_or_longer() {
    let upstream = Upstream::replying(crate::support::response("200 OK", "ok"));
    let gateway = Gateway::start(&(AUTH.to_owned() + &upstream.table("shop") + ROUTE));
    let whole = token(with(json!({})));
    let ask = |expires_in: &str| {
        let body = json!({ "token": whole, "expires_in": expires_in });
        operate(&gateway, "POST", PATH, &body.to_string())
    };
    let short = ask("1s");
    assert_eq!(problem(&short), (400, "request_invalid".to_owned()));
    assert!(short.text().contains("the token itself lives for another "), "{}", short.text());
    let get = || Client::get(gateway.public, "/").bearer(&whole).send().status;
    assert_eq!(get(), 200, "nothing was revoked");
    let long = ask("2400h");
    assert_eq!((long.status, &long.json()["expires_in_seconds"]), (201, &json!(8_640_000)));
    assert_eq!(get(), 401);
}

#[test]
fn what_cannot_be_taken_back_is_said() {
    let upstream = Upstream::replying(crate::support::response("200 OK", "ok"));
    let gateway = Gateway::start(&(AUTH.to_owned() + &upstream.table("shop") + ROUTE));
    let delete = |path: &str, body: &str| operate(&gateway, "DELETE", path, body);
    for (path, body) in [
        (PATH, ""),
        (PATH, "{}"),
        (PATH, r#"{"jti": "a", "sub": "b"}"#),
        (PATH, r#"{"jit": "a"}"#),
        (PATH, r#"{"jti": "a", "expires_in": "1h"}"#),
        (PATH, r#"{"token": "abc"}"#),
        ("/v1/revocations?", ""),
        ("/v1/revocations?jti", ""),
        ("/v1/revocations?jit=a", ""),
        ("/v1/revocations?jti=a&sub=b", ""),
        ("/v1/revocations?jti=%zz", ""),
        ("/v1/revocations?jti=a", r#"{"jti": "a"}"#),
    ] {
        let reply = delete(path, body);
        assert_eq!(problem(&reply), (400, "request_invalid".to_owned()), "{path} {body}");
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(
            detail.contains("jti")
                || detail.contains("write %25")
                || detail.contains("Leave")
                || detail.contains("leave")
                || detail.contains("JWT"),
            "no remedy: {detail}"
        );
    }
    let reply = operate(&gateway, "PUT", PATH, "{}");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, DELETE, POST")));
    // The embedded store keeps the same promise.
    let token = token(with(json!({"jti": "t-1"})));
    let status = || Client::get(gateway.public, "/").bearer(&token).send().status;
    revoke(&gateway, &json!({"jti": "t-1"}));
    assert_eq!(status(), 401);
    assert_eq!(delete(PATH, r#"{"jti": "t-1"}"#).status, 200);
    assert_eq!(status(), 200);
}

const ROUTE: &str = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\n";

#[test]
fn who_may_not_revoke_may_not_take_back() {
    let upstream = Upstream::replying(crate::support::response("200 OK", "ok"));
    let config = AUTH.to_owned() + &upstream.table("shop") + ROUTE;
    let closed = Gateway::start(&format!("[admin]\ntoken = \"operator-0123456789\"\n{config}"));
    let open = Gateway::start(&config);
    let body = json!({"jti": "t-1"}).to_string();
    let reply = operate(&closed, "DELETE", PATH, &body);
    assert_eq!(problem(&reply), (401, "admin_token_invalid".to_owned()));
    let own = open.admin.to_string();
    for (name, value, code) in [
        ("Origin", "https://evil.test", "cross_site_refused"),
        ("Host", "evil.test", "admin_loopback_only"),
    ] {
        let host = if name == "Host" { value } else { &own };
        let mut request = Client::request(open.admin, "DELETE", PATH).header("Host", host);
        if name != "Host" {
            request = request.header(name, value);
        }
        assert_eq!(problem(&request.body(&body).send()), (403, code.to_owned()), "{name}");
    }
}

#[test]
fn what_redis_did_not_take_back_is_not_reported_as_done() {
    let (redis, upstream) = (Redis::start(), crate::auth::upstream());
    let proxy = TcpProxy::start(redis.address());
    let store = format!("[store]\nurl = \"{}\"\n", proxy.url());
    let gateway = Gateway::start(&(store + AUTH + &upstream.table("shop") + ROUTE));
    let body: Value = json!({"jti": "t-1"});
    eventually("it is revoked", || {
        operate(&gateway, "POST", PATH, &body.to_string()).status == 201
    });
    proxy.refuse();
    let reply = operate(&gateway, "DELETE", PATH, &body.to_string());
    assert_eq!(problem(&reply), (503, "store_unreachable".to_owned()));
    assert_eq!(redis.cli(&["EXISTS", "app:auth:blacklist:t-1"]), "1");
}
