//! Keys in place of passwords: a server lets in whoever signs what it has chosen.

use serde_json::json;

use super::{code, route, upstream};
use crate::support::nkeys::{Key, creds};
use crate::support::{Client, Folder, Gateway, Nats, eventually};

/// The configuration with these keys of the upstream.
fn config(nats: &Nats, keys: &str) -> String {
    upstream(nats, keys) + &route("/*", "orders.get")
}

/// It is not let in, says what helps, and nothing of its seed.
fn is_refused(gateway: &Gateway, seed: &str) {
    let reply = Client::get(gateway.public, "/").send();
    assert_eq!((reply.status, &*code(&reply)), (503, "upstream_unreachable"));
    let said = gateway.stderr();
    assert!(said.contains("see username, password, token, nkey and creds"), "{said}");
    assert!(!said.contains(seed), "{said}");
}

/// It is let in: the server says that nobody listens.
fn is_let_in(gateway: &Gateway) {
    eventually("it is let in", || {
        let reply = Client::get(gateway.public, "/").send();
        reply.status == 503 && code(&reply) == "upstream_no_responders"
    });
}

#[test]
fn a_seed_lets_the_gateway_in_where_the_server_has_its_public_key() {
    lets_in(Nats::start_in);
}

#[test]
fn a_seed_lets_the_gateway_in_at_a_newer_server() {
    lets_in(Nats::newer_in);
}

fn lets_in(start: fn(Folder, &str) -> Nats) {
    let (own, other) = (Key::user(1), Key::user(2));
    let public = &own.public;
    let nats =
        start(Folder::new(), &format!("authorization {{ users: [{{ nkey: {public} }}] }}\n"));
    let folder = Folder::new();
    folder.write("gateway.nk", format!("{}\n", other.seed));
    let keys = "nkey = \"file:gateway.nk\"\nconnect_timeout = \"500ms\"";
    let gateway = Gateway::start_in(folder, &config(&nats, keys));
    is_refused(&gateway, &other.seed);
    // The file alone has changed.
    std::fs::write(gateway.folder().join("gateway.nk"), &own.seed).expect("a file");
    gateway.signal("HUP");
    is_let_in(&gateway);
}

#[test]
fn a_credential_file_lets_the_gateway_in_where_accounts_sign_their_users() {
    let (operator, account) = (Key::operator(3), Key::account(4));
    let (own, stranger) = (Key::user(5), Key::account(6));
    let of_operator = operator.says(&operator, &json!({ "type": "operator", "version": 2 }));
    let unlimited = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1,
    });
    let of_account = json!({ "type": "account", "version": 2, "limits": unlimited });
    let of_account = operator.says(&account, &of_account);
    let nats = Nats::start_in(
        Folder::new(),
        &format!(
            "operator: {of_operator}\nresolver: MEMORY\n\
             resolver_preload: {{ {}: {of_account} }}\n",
            account.public
        ),
    );
    let of_user = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
    let folder = Folder::new();
    // The same user, of an account that the operator has not signed.
    let jwt = stranger.says(&own, &of_user);
    folder.write("gateway.creds", creds(&jwt, &own.seed));
    let keys = "creds = \"file:gateway.creds\"\nconnect_timeout = \"500ms\"";
    let gateway = Gateway::start_in(folder, &config(&nats, keys));
    is_refused(&gateway, &own.seed);
    let jwt = account.says(&own, &of_user);
    std::fs::write(gateway.folder().join("gateway.creds"), creds(&jwt, &own.seed)).expect("a file");
    gateway.signal("HUP");
    is_let_in(&gateway);
    assert!(!gateway.stderr().contains(&own.seed));
}

#[test]
fn a_key_that_cannot_be_used_is_found_when_the_file_is_read() {
    let nats = Nats::start();
    let (own, other) = (Key::user(7), Key::user(8));
    let account = Key::account(9);
    let jwt = account.says(&other, &json!({ "type": "user", "version": 2 }));
    let gateway = Gateway::start(&config(&nats, ""));
    for (key, content, expected) in [
        ("nkey", own.public.clone(), "has a public key in place of the seed"),
        ("nkey", account.seed.clone(), "the seed of an account, an operator or a server"),
        ("creds", creds(&jwt, &own.seed), "a JWT and a seed that do not belong together"),
        ("creds", own.seed.clone(), "is no credential file"),
    ] {
        std::fs::write(gateway.folder().join("it"), &content).expect("a file");
        gateway.rewrite(&config(&nats, &format!("{key} = \"file:it\"")));
        gateway.signal("HUP");
        eventually(expected, || gateway.stderr().contains(expected));
        assert!(!gateway.stderr().contains(&own.seed), "{}", gateway.stderr());
    }
    is_let_in(&gateway);
}
