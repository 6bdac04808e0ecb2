//! Verifiers, and what routes say about their callers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::check;
use crate::auth::{self, Requirement, Verifier};
use crate::config::{self, Config, KeySource, Problems};
use crate::store::keys::Keys;

/// Names that mean something else in the place where a verifier's name qualifies a key.
const RESERVED_QUALIFIERS: [&str; 2] = ["sid", "sha256"];

/// Compiles every verifier, and reports those that cannot stand beside each other.
pub(super) fn verifiers(
    config: &Config,
    keys: &Keys,
    problems: &mut Problems,
) -> BTreeMap<String, Arc<Verifier>> {
    let qualified = qualified(config);
    let mut verifiers = BTreeMap::new();
    for (name, written) in &config.auth {
        let is_qualified = qualified.contains(name.as_str());
        if is_qualified && RESERVED_QUALIFIERS.contains(&name.as_str()) {
            let what = format!("{name:?} already means something in the keys of revocation");
            let remedy = "give it another name: it is on a route with several verifiers";
            problems.push(format!("auth.{name}"), what, remedy);
        }
        match Verifier::compile(name, written, keys, is_qualified) {
            Ok(verifier) => {
                verifiers.insert(name.clone(), Arc::new(verifier));
            }
            Err(mistakes) => {
                for (key, what, remedy) in mistakes {
                    problems.push(format!("auth.{name}.{key}"), what, remedy);
                }
            }
        }
    }
    one_fetch_for_all(config, problems);
    verifiers
}

/// The verifiers that share a route with others. Their identities are told apart on every route, so
/// that one revocation works on all of them.
fn qualified(config: &Config) -> BTreeSet<&str> {
    let auths = config.routes.values().filter_map(|route| route.auth.as_ref());
    let shared = auths.filter(|auth| auth.by.len() > 1);
    shared.flat_map(|auth| auth.by.iter().map(String::as_str)).collect()
}

/// Keys of one place are fetched once, whoever uses them, so there is one answer to how.
fn one_fetch_for_all(config: &Config, problems: &mut Problems) {
    let mut known: Vec<(&String, &config::RemoteKeys)> = Vec::new();
    for (name, written) in &config.auth {
        let Some(KeySource::Url(keys)) = &written.keys else { continue };
        let same = |(_, other): &&(&String, &config::RemoteKeys)| {
            other.url == keys.url && other.authorities == keys.authorities
        };
        match known.iter().find(same) {
            Some((other, settings)) if *settings != keys => {
                let what = format!("auth.{other} fetches the same keys within other bounds");
                let remedy = format!(
                    "write the same refresh, cooldown, timeout and max_bytes in \
                                      [auth.{other}.jwks] and [auth.{name}.jwks]"
                );
                problems.push(format!("auth.{name}.jwks"), what, remedy);
            }
            _ => known.push((name, keys)),
        }
    }
}

/// What a route says about its callers; nothing when it is public or cannot be compiled.
pub(super) fn policy(
    config: &Config,
    written: &config::Route,
    verifiers: &BTreeMap<String, Arc<Verifier>>,
    at: impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<auth::Policy> {
    let Some(auth) = &written.auth else {
        if !written.require.is_empty() {
            let remedy = "add auth = \"NAME\", or remove require".to_owned();
            problems.push(at("require"), "a public route cannot require claims".to_owned(), remedy);
        }
        return None;
    };
    for name in auth.by.iter().filter(|name| !config.auth.contains_key(*name)) {
        let known = check::names(config.auth.keys(), "[auth.NAME]");
        let what = format!("no verifier is named {name:?}");
        problems.push(at("auth"), what, format!("name one of {known}"));
    }
    if auth.by.len() > 1 {
        several(config, &auth.by, at, problems);
    }
    let require = written
        .require
        .iter()
        .map(|(claim, any_of)| Requirement { claim: claim.clone(), any_of: any_of.clone() });
    let named = auth.by.iter().map(|name| verifiers.get(name).map(Arc::clone));
    Some(auth::Policy::new(named.collect::<Option<_>>()?, auth.optional, require.collect()))
}

/// A token's issuer must choose one verifier, and where its token goes must not depend on which.
fn several(
    config: &Config,
    names: &[String],
    at: impl Fn(&str) -> String,
    problems: &mut Problems,
) {
    let mut seen: Vec<(&String, &config::Verifier)> = Vec::new();
    for (name, verifier) in names.iter().filter_map(|name| config.auth.get_key_value(name)) {
        if seen.iter().any(|(other, _)| *other == name) {
            let what = format!("{name:?} is named twice");
            problems.push(at("auth"), what, "name each verifier once");
            continue;
        }
        if verifier.issuer.is_none() {
            let what = format!("auth.{name} has no issuer, by which a token could choose it");
            let remedy = format!("add issuer to [auth.{name}], or name it alone");
            problems.push(at("auth"), what, remedy);
        }
        for (other, known) in &seen {
            if verifier.issuer.is_some() && verifier.issuer == known.issuer {
                let what = format!("auth.{other} and auth.{name} have the same issuer");
                let remedy = "name verifiers of different issuers on one route";
                problems.push(at("auth"), what, remedy);
            }
            if verifier.forward_token != known.forward_token {
                let what = format!("auth.{other} and auth.{name} disagree about forward_token");
                let remedy = "write the same forward_token in both, or split the route";
                problems.push(at("auth"), what, remedy);
            }
        }
        seen.push((name, verifier));
    }
}
