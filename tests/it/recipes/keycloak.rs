//! docs/recipes/keycloak.md: the issuer alone, with a document and a set in the form of Keycloak's.

use serde_json::{Value, json};

use crate::recipes::{answers, configuration, outcome, token};
use crate::support::{
    Client, Gateway, Issuer, Reply, Signer, Upstream, jwk_set, operate, response,
};

/// What a realm says of itself; `ISSUER` stands for its name.
const DOCUMENT: &str = include_str!("keycloak.json");

/// A key of a realm, as it is published: with its use, its algorithm and a certificate.
fn published(key: &Signer, purpose: &str, algorithm: &str) -> Value {
    let mut jwk = key.jwk.clone();
    jwk["use"] = json!(purpose);
    jwk["alg"] = json!(algorithm);
    (jwk["x5c"], jwk["x5t"]) = (json!(["MIICmzCCAYMCBgF"]), json!("nNXv4Ng"));
    jwk
}

fn get(gateway: &Gateway, path: &str, token: &str) -> Reply {
    Client::get(gateway.public, path).bearer(token).send()
}

#[test]
fn the_issuer_alone_is_enough() {
    let (signing, encrypting) = (Signer::rsa("sig-1"), Signer::rsa("enc-1"));
    let keycloak = Issuer::plain(&[]);
    let realm = format!("{}/realms/shop", keycloak.origin());
    let document = response("200 OK", &DOCUMENT.replace("ISSUER", &realm));
    keycloak.tell_raw("/realms/shop", document);
    let of = |key: &Signer| published(key, "sig", "RS256");
    keycloak.answer(jwk_set(&[&published(&encrypting, "enc", "RSA-OAEP"), &of(&signing)]));
    let app = Upstream::replying(response("200 OK", "ok"));
    let own =
        [("https://id.shop.example/realms/shop", &*realm), ("http://127.0.0.1:3000", &app.url())];
    let gateway = Gateway::start(&configuration("keycloak.md", &own));

    let roles = |roles: &[&str]| json!({ "realm_access": { "roles": roles } });
    let user = token(&signing, &realm, "shop-api", "7", roles(&["user", "buyer"]));
    assert_eq!(get(&gateway, "/orders", &user).status, 200);
    let seen = app.only();
    assert_eq!(seen.header("x-user-id"), Some("7"));
    let roles_seen: Vec<&str> = seen.header("x-user-roles").unwrap().split(',').collect();
    assert_eq!(roles_seen.iter().map(|it| it.trim()).collect::<Vec<_>>(), ["user", "buyer"]);
    assert_eq!(get(&gateway, "/admin/users", &user).status, 403);
    let admin = token(&signing, &realm, "shop-api", "1", roles(&["admin"]));
    assert_eq!(get(&gateway, "/admin/users", &admin).status, 200);
    assert_eq!(Client::get(gateway.public, "/orders").send().status, 401);
    // Another audience, another realm, a slash more, and the key for encryption.
    for token in [
        token(&signing, &realm, "account", "7", json!({})),
        token(&signing, &format!("{}/realms/other", keycloak.origin()), "shop-api", "7", json!({})),
        token(&signing, &format!("{realm}/"), "shop-api", "7", json!({})),
        token(&encrypting, &realm, "shop-api", "7", json!({})),
    ] {
        assert_eq!(get(&gateway, "/orders", &token).status, 401);
    }
    assert!(gateway.stderr().contains("leaves keys of the set out"), "{}", gateway.stderr());
    let host = gateway.admin.to_string();
    let told = Client::get(gateway.admin, "/v1/status").header("Host", host).send().json();
    let jwks_uri = format!("{realm}/protocol/openid-connect/certs");
    assert_eq!(told["issuers"][0]["discovery"]["jwks_uri"], json!(jwks_uri));

    // Log-out at the gateway needs no Redis: the page's configuration has none.
    let session = |sid: &str| token(&signing, &realm, "shop-api", "7", json!({ "sid": sid }));
    let (ended, going) = (session("s-1"), session("s-2"));
    assert_eq!(get(&gateway, "/orders", &ended).status, 200);
    assert_eq!(operate(&gateway, "POST", "/v1/revocations", r#"{"sid": "s-1"}"#).status, 201);
    assert_eq!(outcome(&get(&gateway, "/orders", &ended)), (401, "token_revoked".to_owned()));
    assert_eq!(get(&gateway, "/orders", &going).status, 200);

    // The realm changes its keys; then it is away.
    let next = Signer::rsa("sig-2");
    keycloak.answer(jwk_set(&[&of(&next), &of(&signing)]));
    let by_next = token(&next, &realm, "shop-api", "7", json!({}));
    answers(200, || get(&gateway, "/orders", &by_next));
    keycloak.set_down(true);
    assert_eq!(get(&gateway, "/orders", &user).status, 200);
}

#[test]
fn without_keycloak_the_gateway_runs_and_tokens_are_a_503() {
    let keycloak = Issuer::plain(&[]);
    keycloak.set_down(true);
    let realm = format!("{}/realms/shop", keycloak.origin());
    let app = Upstream::replying(response("200 OK", "ok"));
    let own =
        [("https://id.shop.example/realms/shop", &*realm), ("http://127.0.0.1:3000", &app.url())];
    let gateway = Gateway::start(&configuration("keycloak.md", &own));
    let token = token(&Signer::rsa("sig-1"), &realm, "shop-api", "7", json!({}));
    let reply = get(&gateway, "/orders", &token);
    assert_eq!(outcome(&reply), (503, "keys_unavailable".to_owned()));
}
