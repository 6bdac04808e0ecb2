//! The rules of logging in, each with what breaks it.

mod answers;
mod begun;
mod tokens;

use std::path::Path;

use crate::config::{self, KeySource, Provider};

/// A provider with these lines beside what it needs.
fn provider(lines: &str) -> Provider {
    let text = format!(
        "[providers.id]\nissuer = 'https://id.example'\nclient_id = 'shop'\n\
         redirect_uri = 'https://shop.example/callback'\n{lines}"
    );
    let loaded = config::parse("g.toml", Path::new(""), &text, &|_| None).expect("TOML");
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    loaded.config.providers["id"].clone()
}

/// The document of an issuer, as it is fetched.
fn source() -> config::RemoteKeys {
    let text = "[auth.v]\nalgorithms = ['ES256']\nissuer = 'https://id.example'\n";
    let loaded = config::parse("g.toml", Path::new(""), text, &|_| None).expect("TOML");
    match &loaded.config.auth["v"].keys {
        Some(KeySource::Url(source)) => source.clone(),
        other => panic!("{other:?}"),
    }
}
