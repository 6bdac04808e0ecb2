//! Verifiers, and what routes say about their callers.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::AUTHORIZATION;

use super::names::names;
use super::providers::Providers;
use super::signers::{self, Signers};
use crate::auth::{
    self, CertificateVerifier, KeyVerifier, Requirement, SessionVerifier, SharedWith, Verifier,
};
use crate::config::{self, BoundTo, Config, KeySource, Problems, TokenSource};
use crate::store::keys::Keys;

/// Names that mean something else in the place where a verifier's name qualifies a key.
const RESERVED_QUALIFIERS: [&str; 4] = ["sid", "sha256", "key", "cert"];

/// All verifiers, by their names.
#[derive(Debug, Default)]
pub(super) struct Verifiers {
    pub(super) tokens: BTreeMap<String, Arc<Verifier>>,
    pub(super) api_keys: BTreeMap<String, Arc<KeyVerifier>>,
    pub(super) certificates: BTreeMap<String, Arc<CertificateVerifier>>,
    pub(super) sessions: BTreeMap<String, Arc<SessionVerifier>>,
    pub(super) providers: Providers,
}

/// The keys of the store, beside which those of some verifiers are qualified by their names.
pub(super) fn keys(config: &Config) -> Keys {
    let shared_with = shared_with(config);
    let qualified = config.auth.iter().filter(|(name, written)| {
        let shared_with = shared_with.get(name.as_str());
        match written.keys {
            Some(KeySource::ApiKeys | KeySource::Sessions) => false,
            Some(KeySource::Certificates) => shared_with.is_some(),
            _ => shared_with == Some(&SharedWith::Tokens),
        }
    });
    Keys::new(&config.store.prefix).beside(qualified.map(|(name, _)| name.as_str()))
}

/// Compiles every verifier, and reports those that cannot stand beside each other.
pub(super) fn verifiers(
    (config, signers): (&Config, &Signers),
    keys: &Keys,
    problems: &mut Problems,
) -> Verifiers {
    let shared_with = shared_with(config);
    let mut verifiers = Verifiers::default();
    for (name, written) in &config.auth {
        let shared_with = shared_with.get(name.as_str()).copied().unwrap_or(SharedWith::Nobody);
        let is_qualified = shared_with != SharedWith::Nobody;
        if is_qualified && RESERVED_QUALIFIERS.contains(&name.as_str()) {
            let what = format!("{name:?} already means something in the keys of revocation");
            let remedy = "give it another name: it is on a route with several verifiers";
            problems.push(format!("auth.{name}"), what, remedy);
        }
        let compiled = match written.keys {
            Some(KeySource::ApiKeys) => KeyVerifier::compile(name, written, keys, is_qualified)
                .map(|verifier| {
                    verifiers.api_keys.insert(name.clone(), Arc::new(verifier));
                }),
            Some(KeySource::Certificates) => {
                certificates_are_asked_for(config, (name, "certificate"), problems);
                CertificateVerifier::compile(name, written, keys, is_qualified).map(|verifier| {
                    verifiers.certificates.insert(name.clone(), Arc::new(verifier));
                })
            }
            Some(KeySource::Sessions) => {
                let made = sessions_are_made(config, name, problems);
                let Some(made) = made else { continue };
                SessionVerifier::compile(name, written, made, keys, is_qualified).map(|verifier| {
                    verifiers.sessions.insert(name.clone(), Arc::new(verifier));
                })
            }
            _ => {
                senders_can_show(config, (name, written), problems);
                let path = format!("auth.{name}");
                let own = (config, signers);
                let written = signers::verifier(own, written, &path, problems);
                Verifier::compile(name, &written, keys, shared_with).map(|verifier| {
                    verifiers.tokens.insert(name.clone(), Arc::new(verifier));
                })
            }
        };
        // Where it names a signer, what is wrong was said of that.
        let is_signers = matches!(written.keys, Some(KeySource::Signer(_)));
        let mistakes = compiled.err().into_iter().flatten();
        for (key, what, remedy) in mistakes.filter(|(key, ..)| !is_signers || key != "signer") {
            problems.push(format!("auth.{name}.{key}"), what, remedy);
        }
    }
    one_fetch_for_all(config, problems);
    verifiers
}

fn takes_api_keys(written: &config::Verifier) -> bool {
    matches!(written.keys, Some(KeySource::ApiKeys))
}

fn takes_certificates(written: &config::Verifier) -> bool {
    matches!(written.keys, Some(KeySource::Certificates))
}

fn takes_sessions(written: &config::Verifier) -> bool {
    matches!(written.keys, Some(KeySource::Sessions))
}

/// The settings of sessions, where the gateway makes some.
fn sessions_are_made<'c>(
    config: &'c Config,
    name: &str,
    problems: &mut Problems,
) -> Option<&'c config::Session> {
    let made = config.session.as_ref().filter(|session| session.make.is_some());
    if made.is_none() {
        let what = "the gateway makes no sessions, so nobody could ever pass";
        let remedy = "add make = {} to [session], or remove session here";
        problems.push(format!("auth.{name}.session"), what, remedy);
    }
    made
}

fn takes_tokens(written: &config::Verifier) -> bool {
    !takes_api_keys(written) && !takes_certificates(written) && !takes_sessions(written)
}

/// Without a question for certificates nobody could ever show one.
fn certificates_are_asked_for(config: &Config, (name, key): (&str, &str), problems: &mut Problems) {
    if config.server.tls.iter().all(|tls| tls.clients().next().is_none()) {
        let what = "no client is asked for a certificate, so nobody could ever pass";
        let remedy = "add client_auth = \"optional\" and client_ca = \"clients.pem\" to \
                      [server.tls], or to one of its certificates";
        problems.push(format!("auth.{name}.{key}"), what, remedy);
    }
}

/// Whether anybody could ever show what tokens must be bound to.
fn senders_can_show(
    config: &Config,
    (name, written): (&str, &config::Verifier),
    problems: &mut Problems,
) {
    let is_header =
        |place: &TokenSource| matches!(place, TokenSource::Header(it) if *it == AUTHORIZATION);
    match written.sender.bound {
        Some(BoundTo::Certificate) => {
            certificates_are_asked_for(config, (name, "bound"), problems);
        }
        Some(BoundTo::Dpop) if !written.from.iter().any(is_header) => {
            let what = "such tokens stand in Authorization alone, which `from` does not name";
            let remedy = "add \"header:authorization\" to from, or remove bound";
            problems.push(format!("auth.{name}.bound"), what, remedy);
        }
        Some(BoundTo::Dpop) | None => {}
    }
}

/// The verifiers that share a route with others, and with whom. Their identities are told apart on
/// every route, so that one revocation works on all of them.
fn shared_with(config: &Config) -> BTreeMap<&str, SharedWith> {
    let mut all = BTreeMap::new();
    for auth in config.routes.values().filter_map(|route| route.auth.as_ref()) {
        let is_of_tokens = |name: &&String| config.auth.get(*name).is_some_and(takes_tokens);
        let found = match (auth.by.len(), auth.by.iter().filter(is_of_tokens).count()) {
            (0 | 1, _) => continue,
            (_, 0 | 1) => SharedWith::Others,
            _ => SharedWith::Tokens,
        };
        for name in &auth.by {
            let known = all.entry(name.as_str()).or_insert(found);
            *known = found.max(*known);
        }
    }
    all
}

/// Keys of one place are fetched once, whoever uses them, so there is one answer to how.
fn one_fetch_for_all(config: &Config, problems: &mut Problems) {
    let mut known: Vec<(&String, &config::RemoteKeys)> = Vec::new();
    for (name, written) in &config.auth {
        let Some(KeySource::Url(keys)) = &written.keys else { continue };
        let same = |(_, other): &&(&String, &config::RemoteKeys)| other.are_those_of(keys);
        match known.iter().find(same) {
            Some((other, settings)) if *settings != keys => {
                let what = format!("auth.{other} fetches the same keys within other bounds");
                let remedy = format!(
                    "write the same refresh, cooldown, timeout, max_bytes and allow_http in \
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
    verifiers: &Verifiers,
    at: impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<auth::Policy> {
    let Some(auth) = &written.auth else {
        if !written.require.is_empty() || !written.clauses.is_empty() {
            let remedy = "add auth = \"NAME\", or remove require".to_owned();
            problems.push(at("require"), "a public route cannot require claims".to_owned(), remedy);
        }
        return None;
    };
    for name in auth.by.iter().filter(|name| !config.auth.contains_key(*name)) {
        let known = names(config.auth.keys(), "[auth.NAME]");
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
    let named = |name: &String| {
        verifiers.tokens.contains_key(name)
            || verifiers.api_keys.contains_key(name)
            || verifiers.certificates.contains_key(name)
            || verifiers.sessions.contains_key(name)
    };
    if !auth.by.iter().all(named) {
        return None;
    }
    let tokens = auth.by.iter().filter_map(|name| verifiers.tokens.get(name).map(Arc::clone));
    let api_keys = auth.by.iter().filter_map(|name| verifiers.api_keys.get(name).map(Arc::clone));
    let policy = auth::Policy::new(tokens.collect(), auth.optional, require.collect());
    let certificates = auth.by.iter().find_map(|name| verifiers.certificates.get(name));
    let sessions = auth.by.iter().find_map(|name| verifiers.sessions.get(name));
    let policy = policy.with_api_keys(api_keys.collect()).with_certificates(certificates.cloned());
    Some(policy.with_sessions(sessions.cloned()))
}

/// A token's issuer must choose one verifier of tokens, a credential's place one of API keys, and
/// where it goes must not depend on which. Who carries neither has one certificate.
fn several(
    config: &Config,
    names: &[String],
    at: impl Fn(&str) -> String,
    problems: &mut Problems,
) {
    let is_token = |name: &&String| config.auth.get(*name).is_none_or(takes_tokens);
    let tokens = names.iter().filter(is_token).count();
    let mut seen: Vec<(&String, &config::Verifier)> = Vec::new();
    for (name, verifier) in names.iter().filter_map(|name| config.auth.get_key_value(name)) {
        if seen.iter().any(|(other, _)| *other == name) {
            let what = format!("{name:?} is named twice");
            problems.push(at("auth"), what, "name each verifier once");
            continue;
        }
        let asks = matches!(verifier.keys, Some(KeySource::Introspection(_)));
        if asks && tokens > 1 {
            let what = format!("auth.{name} takes opaque tokens, which name no issuer");
            let remedy = "name it without other verifiers of tokens, or split the route";
            problems.push(at("auth"), what, remedy);
        }
        let is_chosen_by_issuer = tokens > 1 && takes_tokens(verifier);
        if is_chosen_by_issuer && verifier.issuer.is_none() {
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
            let by_place = takes_api_keys(verifier) || takes_api_keys(known);
            if by_place && verifier.from.iter().any(|place| known.from.contains(place)) {
                let what = format!("auth.{other} and auth.{name} look in the same place");
                let remedy = "give the API keys a place of their own with `from`: it decides who \
                              verifies what stands there";
                problems.push(at("auth"), what, remedy);
            }
            let of_certificates = [verifier, known].map(takes_certificates);
            if of_certificates == [true, true] {
                let what = format!("auth.{other} and auth.{name} both take certificates");
                let remedy = "name one of them: nothing in a request could choose between them";
                problems.push(at("auth"), what, remedy);
            }
            let of_sessions = [verifier, known].map(takes_sessions);
            if of_sessions == [true, true] {
                let what = format!("auth.{other} and auth.{name} both take sessions");
                let remedy = "name one of them: a session is one caller";
                problems.push(at("auth"), what, remedy);
            }
            let of_messages =
                [verifier, known].map(|it| !takes_certificates(it) && !takes_sessions(it));
            if of_messages == [true, true] && verifier.forward_token != known.forward_token {
                let what = format!("auth.{other} and auth.{name} disagree about forward_token");
                let remedy = "write the same forward_token in both, or split the route";
                problems.push(at("auth"), what, remedy);
            }
        }
        seen.push((name, verifier));
    }
}
