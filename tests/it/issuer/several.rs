//! Several issuers on one route: the token's `iss` chooses who verifies it, and what is counted and
//! revoked is told apart by the verifier's name.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::auth::code;
use crate::support::{Client, Gateway, Issuer, Redis, Reply, Signer, Upstream, claims, response};

const SECRET: &str = "the-users-have-a-secret-of-32-bytes";

struct House {
    redis: Redis,
    gateway: Gateway,
    partner: Signer,
    _issuer: Issuer,
    _upstream: Upstream,
}

impl House {
    fn start() -> Self {
        let (redis, partner) = (Redis::start(), Signer::new("p"));
        let issuer = Issuer::plain(&[&partner]);
        let upstream = Upstream::replying(response("200 OK", "ok"));
        let gateway = Gateway::start(&format!(
            r#"
            [store]
            url = "{}"
            timeout = "5s"
            [auth.users]
            issuer = "https://users.test"
            algorithms = ["HS256"]
            secret = "{SECRET}"
            [auth.partners]
            issuer = "https://partners.test"
            algorithms = ["ES256"]
            jwks_url = "{}"
            [limits.api]
            key = ["claim:sub"]
            allow = ["3/1h"]
            {}
            [routes.both]
            path = "/both"
            upstream = "shop"
            auth = ["users", "partners"]
            [routes.counted]
            path = "/counted"
            upstream = "shop"
            auth = {{ by = ["users", "partners"], optional = true }}
            limits = ["api"]
            [routes.users]
            path = "/users"
            upstream = "shop"
            auth = "users"
            "#,
            redis.url(),
            issuer.url(),
            upstream.table("shop")
        ));
        Self { redis, gateway, partner, _issuer: issuer, _upstream: upstream }
    }

    fn get(&self, path: &str, token: &str) -> Reply {
        Client::get(self.gateway.public, path).bearer(token).send()
    }

    fn revoke(&self, what: &Value) -> Reply {
        Client::request(self.gateway.admin, "POST", "/v1/revocations")
            .header("Host", self.gateway.admin.to_string())
            .header("Content-Type", "application/json")
            .body(what.to_string())
            .send()
    }
}

fn of(issuer: &str, sub: &str) -> Value {
    let mut claims = claims(sub);
    claims["iss"] = json!(format!("https://{issuer}.test"));
    claims
}

fn by_users(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    portcullis::auth::sign(Algorithm::HS256, &key, None, claims.as_object().unwrap()).unwrap()
}

#[test]
fn each_token_is_verified_by_its_own_issuer_alone() {
    let house = House::start();
    assert_eq!(house.get("/both", &by_users(&of("users", "1"))).status, 200);
    assert_eq!(house.get("/both", &house.partner.token(&of("partners", "1"))).status, 200);
    assert_eq!(house.get("/users", &by_users(&of("users", "1"))).status, 200);
    for (path, token) in [
        ("/both", house.partner.token(&of("users", "1"))),
        ("/both", by_users(&of("partners", "1"))),
        ("/both", by_users(&of("nobody", "1"))),
        ("/both", house.partner.token(&json!({"exp": of("users", "1")["exp"]}))),
        ("/users", house.partner.token(&of("partners", "1"))),
        ("/counted", by_users(&of("nobody", "1"))),
    ] {
        let reply = house.get(path, &token);
        assert_eq!((reply.status, &*code(&reply)), (401, "token_invalid"), "{path}");
    }
    assert_eq!(Client::get(house.gateway.public, "/counted").send().status, 200, "optional");
}

#[test]
fn limits_and_revocations_are_told_apart_by_the_verifier() {
    let house = House::start();
    let user = |sub: &str| by_users(&of("users", sub));
    let partner = |sub: &str| house.partner.token(&of("partners", sub));
    // The same subject of two issuers is two callers.
    for status in [200, 200, 200, 429] {
        assert_eq!(house.get("/counted", &user("42")).status, status);
    }
    assert_eq!(house.get("/counted", &partner("42")).status, 200);
    let keys = house.redis.cli(&["KEYS", "app:ratelimit:*"]);
    assert!(keys.contains("{users/claim:sub=42}") && keys.contains("{partners/claim:sub=42}"));

    let token = user("7");
    let revoke = |what: Value| {
        let reply = house.revoke(&what);
        assert_eq!(reply.status, 201, "{what}: {}", reply.text());
        reply.json()["key"].as_str().unwrap().to_owned()
    };
    assert_eq!(revoke(json!({"jti": "j1", "auth": "users"})), "app:auth:blacklist:users:j1");
    assert_eq!(
        revoke(json!({"sid": "s1", "auth": "partners"})),
        "app:auth:blacklist:partners:sid:s1"
    );
    // A token says itself whose it is.
    assert!(revoke(json!({"token": token})).starts_with("app:auth:blacklist:users:jti-"));
    for path in ["/both", "/users"] {
        let reply = house.get(path, &token);
        assert_eq!((reply.status, &*code(&reply)), (401, "token_revoked"), "{path}");
    }
    let mut old = of("partners", "7");
    old["iat"] = json!(old["iat"].as_u64().unwrap() - 60);
    let mut same = of("users", "7");
    same["iat"] = old["iat"].clone();
    let key = revoke(json!({"sub": "7", "auth": "partners"}));
    assert_eq!(key, "app:auth:not-before:partners:7");
    assert_eq!(house.get("/both", &house.partner.token(&old)).status, 401);
    assert_eq!(house.get("/both", &by_users(&same)).status, 200, "another issuer's caller");
}

#[test]
fn a_revocation_says_whose_caller_is_meant() {
    let house = House::start();
    for (what, told) in [
        (json!({"jti": "a"}), "auth"),
        (json!({"sid": "a"}), "users"),
        (json!({"sub": "a"}), "partners"),
        (json!({"sub": "a", "auth": "user"}), "No verifier is named"),
        (json!({"token": by_users(&of("nobody", "1"))}), "No verifier accepts"),
    ] {
        let reply = house.revoke(&what);
        assert_eq!(reply.status, 400, "{what}: {}", reply.text());
        assert!(reply.text().contains(told), "{what}: {}", reply.text());
    }
    assert_eq!(house.redis.cli(&["KEYS", "app:auth:*"]), "");
}
