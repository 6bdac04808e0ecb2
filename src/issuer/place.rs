//! Where the keys of an issuer are: where the configuration says, or where the issuer's discovery
//! document does (OpenID Connect Discovery 1.0 §4). What a document named last counts while no
//! better one can be read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;

use super::fetch::{Fault, Sought, Why, fetch};
use crate::config::{Discovery, KeysUrl, RemoteKeys};
use crate::observe::IssuerMeter;
use crate::oidc::Metadata;

/// Most characters of a wrong issuer that are told.
const ISSUER_CHARS_MAX: usize = 200;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Place {
    known: Mutex<Known>,
}

#[derive(Debug, Default, Clone)]
struct Known {
    /// What a document named last.
    keys: Option<KeysUrl>,
    /// When one was last asked for.
    asked: Option<Instant>,
    /// When one was last read well.
    read: Option<Instant>,
    /// Why the last one was not.
    failure: Option<String>,
    /// What the last one that was read well says beside that, or why nobody logs in by it.
    metadata: Option<Result<Arc<Metadata>, String>>,
}

/// What is known of the place that an issuer names.
#[derive(Debug)]
pub struct Discovered {
    /// Where its keys are, without a query; nothing before its document was first read.
    pub jwks_uri: Option<String>,
    /// Since when.
    pub age: Option<Duration>,
    /// Why the last reading of its document failed; nothing when it did not.
    pub failure: Option<String>,
}

/// What is read of a document. Neither member may stand twice.
#[derive(Deserialize)]
struct Document {
    issuer: Option<String>,
    jwks_uri: Option<String>,
}

impl Place {
    /// Fetches the set from where it is, within `jwks.timeout` in all. A document is read when none
    /// is known, when it is older than half of `jwks.refresh`, or when `is_failing`: keys that
    /// cannot be fetched may have moved.
    pub(super) async fn fetch(
        &self,
        source: &RemoteKeys,
        is_failing: bool,
        meter: Option<&IssuerMeter>,
    ) -> Result<Bytes, Fault> {
        let Some(discovery) = &source.discovery else {
            return fetch(source, Sought::Keys, &source.url, source.timeout).await;
        };
        let begun = Instant::now();
        let (known, asked) = self.with(|it| (it.keys.clone(), it.asked));
        let is_old = asked.is_none_or(|at| at.elapsed() >= source.refresh / 2);
        let keys = match known {
            Some(known) if !is_failing && !is_old => known,
            known => self.read(source, discovery, known, meter).await?,
        };
        let left = source.timeout.saturating_sub(begun.elapsed());
        fetch(source, Sought::NamedKeys, &keys, left).await
    }

    /// Reads the document; where that fails, what it named before.
    async fn read(
        &self,
        source: &RemoteKeys,
        discovery: &Discovery,
        known: Option<KeysUrl>,
        meter: Option<&IssuerMeter>,
    ) -> Result<KeysUrl, Fault> {
        // Where the place is known, its keys must not wait for a document that does not come.
        let within = if known.is_some() { source.timeout / 2 } else { source.timeout };
        let document = fetch(source, Sought::Document, &source.url, within).await;
        let named = document.and_then(|bytes| Ok((named(source, discovery, &bytes)?, bytes)));
        let failed_before = self.with(|it| it.failure.is_some());
        let fault = match named {
            Ok((keys, bytes)) => {
                if known.as_ref() != Some(&keys) {
                    tracing::info!(issuer = %source.url, %keys, "the issuer names its keys");
                }
                let metadata = Metadata::parse(&source.url, discovery, &bytes).map(Arc::new);
                self.with(|it| {
                    let (asked, read) = (Some(Instant::now()), Some(Instant::now()));
                    let (keys, metadata) = (Some(keys.clone()), Some(metadata));
                    *it = Known { keys, asked, read, failure: None, metadata };
                });
                return Ok(keys);
            }
            Err(fault) => fault,
        };
        self.with(|it| {
            (it.asked, it.failure) = (Some(Instant::now()), Some(fault.to_string()));
        });
        let Some(known) = known else { return Err(fault) };
        if let Some(meter) = meter {
            meter.fetched(fault.code());
        }
        if !failed_before {
            let url = &source.url;
            tracing::warn!(%url, "{fault}; the keys are fetched from where it said last: {known}");
        }
        Ok(known)
    }

    /// What the issuer says of itself beside where its keys are.
    ///
    /// # Errors
    /// Why nothing is known, or why nobody logs in by it.
    pub(super) fn metadata(&self) -> Result<Arc<Metadata>, String> {
        let unread = |it: &Known| it.failure.clone().unwrap_or("it was not read yet".to_owned());
        self.with(|it| it.metadata.clone().unwrap_or_else(|| Err(unread(it))))
    }

    /// What is known; nothing where the configuration names the place.
    pub(super) fn state(&self, source: &RemoteKeys) -> Option<Discovered> {
        source.discovery.as_ref()?;
        let known = self.with(|it| it.clone());
        Some(Discovered {
            jwks_uri: known.keys.map(|keys| keys.to_string()),
            age: known.read.map(|at| at.elapsed()),
            failure: known.failure,
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The place that a document names, if it is the issuer's own and the place may be asked.
fn named(source: &RemoteKeys, discovery: &Discovery, bytes: &[u8]) -> Result<KeysUrl, Fault> {
    const NONE: &str = "is issuer right? Where the issuer publishes no document, name its keys as \
                        jwks_url";
    let fault = |why| Fault::new(Sought::Document, why);
    let unusable = |what: String, remedy: &str| fault(Why::Unusable(what, remedy.to_owned()));
    let unreadable = |why: String| unusable(format!("it cannot be read as JSON: {why}"), NONE);
    // A struct can be read from a JSON array, too.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(unreadable("it is no object".to_owned()));
    }
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    let Some(issuer) = document.issuer else {
        return Err(unusable("it names no issuer".to_owned(), NONE));
    };
    if issuer != discovery.issuer {
        let found: String = issuer.chars().take(ISSUER_CHARS_MAX).collect();
        let (found, written) = (format!("{found:?}"), format!("{:?}", discovery.issuer));
        return Err(fault(Why::OtherIssuer { found, written }));
    }
    let Some(jwks_uri) = document.jwks_uri else {
        return Err(unusable("it names no jwks_uri".to_owned(), "name the keys as jwks_url"));
    };
    discovery.keys_at(&source.url, &jwks_uri).map_err(|(what, remedy)| unusable(what, &remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let toml = "[auth.v]\nalgorithms = ['ES256']\nissuer = 'https://a.example/'\n";
        let folder = std::path::Path::new("");
        let loaded = crate::config::parse("g.toml", folder, toml, &|_| None).unwrap();
        let Some(crate::config::KeySource::Url(source)) = &loaded.config.auth["v"].keys else {
            panic!("keys are discovered");
        };
        let discovery = source.discovery.as_ref().unwrap();
        let named = named(source, discovery, text.as_bytes());
        named.map(|it| it.to_string()).map_err(|fault| format!("{} {fault}", fault.code()))
    }

    #[test]
    fn a_document_is_the_issuers_own_to_the_last_byte() {
        let good = r#"{"issuer": "https://a.example/", "jwks_uri": "https://b.example/j"}"#;
        assert_eq!(read(good), Ok("https://b.example/j".to_owned()));
        for (text, code, told) in [
            (good.replace(".example/\"", ".example\""), "other_issuer", "last slash"),
            (good.replace("https://a", "https://A"), "other_issuer", "\"https://A.example/\""),
            (good.replace("issuer", "Issuer"), "unusable", "names no issuer"),
            (good.replace("jwks_uri", "jwks"), "unusable", "names no jwks_uri"),
            (good.replace("https://b", "http://b"), "unusable", "http://"),
            (good.replace("\"https://b.example/j\"", "3"), "unusable", "cannot be read as JSON"),
            (good.replace('}', ", \"jwks_uri\": \"https://c.example\"}"), "unusable", "duplicate"),
            ("<html>".to_owned(), "unusable", "cannot be read as JSON"),
            ("[".repeat(100_000), "unusable", "cannot be read as JSON"),
            ("{\"issuer\":".repeat(100_000), "unusable", "cannot be read as JSON"),
            (
                r#"["https://a.example/", "https://b.example/j"]"#.to_owned(),
                "unusable",
                "cannot be read as JSON",
            ),
            (String::new(), "unusable", "cannot be read as JSON"),
        ] {
            let fault = read(&text).unwrap_err();
            assert!(fault.starts_with(code) && fault.contains(told), "{fault}");
        }
        let long = good.replace("//a", &format!("//{}", "x".repeat(100_000)));
        assert!(read(&long).unwrap_err().len() < 1000);
    }
}
