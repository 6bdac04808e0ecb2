//! The recipes of docs/recipes: each page's own configuration, with the test's servers in place of
//! the page's, and what the page says of it.

mod cloud_balancer;
mod express;
mod express_tokens;
mod grpc;
mod keycloak;
mod migrate;
mod nestjs;
mod nextjs;
mod sentinel;
mod websocket_chat;

use serde_json::{Value, json};

use crate::readme::pages;
use crate::support::{Issuer, Reply, Signer, claims, eventually};

/// What stands in pages for the machine of the reader.
const LISTENERS: [(&str, &str); 2] = [
    ("listen = [\"0.0.0.0:8080\"]", "listen = [\"127.0.0.1:0\"]"),
    ("listen = \"127.0.0.1:9901\"", "listen = \"127.0.0.1:0\""),
];

/// The blocks of TOML of a page.
fn blocks(page: &str) -> Vec<String> {
    let page = pages::page(&format!("docs/recipes/{page}"));
    let blocks = page.blocks().into_iter().filter(|block| block.language == "toml");
    blocks.map(|block| block.text).collect()
}

/// A configuration with the test's own servers; what is replaced must be there.
fn with(configuration: &str, own: &[(&str, &str)]) -> String {
    let mut text = configuration.to_owned();
    for (theirs, ours) in LISTENERS.iter().chain(own) {
        assert!(text.contains(theirs), "{theirs:?} is not in\n{text}");
        text = text.replace(theirs, ours);
    }
    text
}

/// The only configuration of a page, in the same way.
fn configuration(page: &str, own: &[(&str, &str)]) -> String {
    let blocks = blocks(page);
    assert_eq!(blocks.len(), 1, "{page}");
    with(&blocks[0], own)
}

/// An issuer that says where its keys are; its name stands in place of the page's.
fn issuer(key: &Signer) -> Issuer {
    let issuer = Issuer::plain(&[key]);
    issuer.tell("", &issuer.origin(), &issuer.url());
    issuer
}

/// A token of this issuer with more claims.
fn token(key: &Signer, issuer: &str, audience: &str, sub: &str, more: Value) -> String {
    let mut claims = claims(sub);
    (claims["iss"], claims["aud"]) = (json!(issuer), json!(audience));
    if let Value::Object(more) = more {
        more.into_iter().for_each(|(name, value)| claims[name] = value);
    }
    key.token(&claims)
}

/// What an answer is known by: its status, and the code of a refusal.
fn outcome(reply: &Reply) -> (u16, String) {
    let code = match reply.status {
        400.. => crate::auth::code(reply),
        _ => String::new(),
    };
    (reply.status, code)
}

/// Waits until what is asked has this status.
fn answers(status: u16, ask: impl Fn() -> Reply) {
    eventually(&format!("the answer is a {status}"), || ask().status == status);
}

#[test]
fn pages_are_short_and_whole() {
    for page in pages::all() {
        if !page.path.starts_with("docs/recipes/") || page.path.ends_with("README.md") {
            continue;
        }
        assert!(page.text.lines().count() <= 120, "{}", page.path);
        let blocks = page.blocks();
        for languages in [&["toml"][..], &["js", "ts"], &["sh"]] {
            let has = blocks.iter().any(|block| languages.contains(&&*block.language));
            let is_needed = !page.path.ends_with("sentinel.md") || languages[0] != "js";
            assert!(has || !is_needed, "{}: no {languages:?}", page.path);
        }
    }
}
