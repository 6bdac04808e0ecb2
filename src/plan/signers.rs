//! Signers, and what routes do with them: publish their keys, and tell upstreams who calls.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jsonwebtoken::Algorithm;

use super::names::names;
use super::own_answer;
use crate::base::units::Secret;
use crate::config::{self, Answers, Config, KeySource, Problems, SessionUse};
use crate::signing::{Assertion, Signer};

/// All signers, by their names.
pub(super) type Signers = BTreeMap<String, Arc<Signer>>;

/// What a token says itself, so that no claim of a caller may take its place.
const OWN_CLAIMS: [&str; 9] =
    ["iss", "sub", "aud", "iat", "exp", "nbf", "jti", "verifier", "session"];

/// What a route does with signers.
#[derive(Debug)]
pub struct Signed {
    /// What its upstream is told of callers.
    pub assertion: Option<Assertion>,
    /// The JWK set that it answers with.
    pub key_set: Option<Bytes>,
    /// Whose refresh tokens it exchanges.
    pub refresh: Option<Arc<Signer>>,
}

impl Signed {
    /// Whether the gateway itself answers by a signer.
    pub(super) fn answers(&self) -> bool {
        self.key_set.is_some() || self.refresh.is_some()
    }
}

/// Compiles every signer, and reports keys that cannot sign.
pub(super) fn compile(config: &Config, problems: &mut Problems) -> Signers {
    let mut signers = Signers::new();
    for (name, written) in &config.signers {
        let kept = config.admin.revocation_ttl;
        if written.tokens.as_ref().is_some_and(|tokens| tokens.refresh > kept) {
            let what = "a refresh token would outlive the revocation of its user".to_owned();
            let remedy = "write less than admin.revocation_ttl, or raise that".to_owned();
            problems.push(format!("signers.{name}.tokens.refresh"), what, remedy);
        }
        match Signer::compile(name, written) {
            Ok(signer) => {
                signers.insert(name.clone(), Arc::new(signer));
            }
            Err(flaws) => {
                for (at, (what, remedy)) in flaws {
                    problems.push(format!("signers.{name}.keys[{at}]"), what, remedy.to_owned());
                }
            }
        }
    }
    signers
}

/// A verifier of this gateway's own tokens has the signer's keys and issuer.
pub(super) fn verifier<'w>(
    (config, signers): (&Config, &Signers),
    written: &'w config::Verifier,
    path: &str,
    problems: &mut Problems,
) -> Cow<'w, config::Verifier> {
    let Some(KeySource::Signer(name)) = &written.keys else { return Cow::Borrowed(written) };
    let Some(signer) = signers.get(name) else {
        unknown(config, name, format!("{path}.signer"), problems);
        return Cow::Borrowed(written);
    };
    if written.issuer.as_ref().is_some_and(|issuer| *issuer != signer.issuer) {
        let what = format!("is not the issuer of signers.{name}");
        problems.push(format!("{path}.issuer"), what, "remove it: the signer says it".to_owned());
    }
    let set = Signer::key_set(std::iter::once(&**signer));
    Cow::Owned(config::Verifier {
        issuer: Some(signer.issuer.clone()),
        keys: Some(KeySource::Jwks(Secret::new(set.into_bytes()))),
        ..written.clone()
    })
}

/// Reports a signer that nobody describes; one that cannot be compiled was reported.
fn unknown(config: &Config, name: &str, at: String, problems: &mut Problems) {
    if config.signers.contains_key(name) {
        return;
    }
    let known = names(config.signers.keys(), "[signers.NAME]");
    problems.push(at, format!("no signer is named {name:?}"), format!("name one of {known}"));
}

/// What a route does with signers; nothing on most routes.
pub(super) fn of_route(
    (config, signers): (&Config, &Signers),
    written: &config::Route,
    at: impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<Box<Signed>> {
    let answers = matches!(written.answers, Some(Answers::Jwks | Answers::Refresh));
    if written.signer.is_some() && !answers {
        let what = "the route answers nothing by a signer".to_owned();
        let remedy = "add answers = \"jwks\" or \"refresh\", or remove it; assertion names its own";
        problems.push(at("signer"), what, remedy.to_owned());
    }
    let signed = Signed {
        assertion: assertion((config, signers), written, &at, problems),
        key_set: key_set((config, signers), written, &at, problems),
        refresh: refresh((config, signers), written, &at, problems),
    };
    (signed.assertion.is_some() || signed.answers()).then(|| Box::new(signed))
}

/// The keys that a route publishes.
fn key_set(
    (config, signers): (&Config, &Signers),
    written: &config::Route,
    at: &impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<Bytes> {
    if written.answers != Some(Answers::Jwks) {
        return None;
    }
    own_answer::alone(written, at, problems);
    if config.signers.is_empty() {
        let what = "there is no signer whose keys could be published".to_owned();
        problems.push(at("answers"), what, "add [signers.NAME] with issuer and keys".to_owned());
    }
    let set = match &written.signer {
        None => Signer::key_set(signers.values().map(|signer| &**signer)),
        Some(name) => match signers.get(name) {
            Some(signer) => Signer::key_set(std::iter::once(&**signer)),
            None => {
                unknown(config, name, at("signer"), problems);
                return None;
            }
        },
    };
    Some(set.into())
}

/// Whose refresh tokens a route exchanges: those of the signer that it names, or of the only one
/// that issues some.
fn refresh(
    (config, signers): (&Config, &Signers),
    written: &config::Route,
    at: &impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<Arc<Signer>> {
    if written.answers != Some(Answers::Refresh) {
        return None;
    }
    own_answer::alone(written, at, problems);
    if written.methods.iter().any(|method| *method != http::Method::POST) {
        let what = "refresh tokens come by POST".to_owned();
        problems.push(at("methods"), what, "leave it out".to_owned());
    }
    let issues_tokens = |(_, signer): &(&String, &config::Signer)| signer.tokens.is_some();
    let mut all = config.signers.iter().filter(issues_tokens).map(|(name, _)| name);
    let name = match (&written.signer, all.next(), all.next()) {
        (Some(name), ..) => name,
        (None, Some(only), None) => only,
        (None, _, Some(_)) => {
            let what = "several signers issue tokens".to_owned();
            problems.push(at("signer"), what, "add signer = \"NAME\", one of them".to_owned());
            return None;
        }
        (None, None, _) => {
            let what = "no signer issues tokens".to_owned();
            let remedy = "add tokens = { audience = [\"shop\"] } to one of [signers]";
            problems.push(at("answers"), what, remedy.to_owned());
            return None;
        }
    };
    issuing((config, signers), name, &at("signer"), problems)
}

/// The signer of this name, which issues tokens; `at` is where it is named.
pub(super) fn issuing(
    (config, signers): (&Config, &Signers),
    name: &str,
    at: &str,
    problems: &mut Problems,
) -> Option<Arc<Signer>> {
    let Some(signer) = signers.get(name) else {
        unknown(config, name, at.to_owned(), problems);
        return None;
    };
    if signer.tokens.is_none() {
        let what = format!("signers.{name} issues no tokens");
        let remedy = "add tokens = { audience = [\"shop\"] } to it".to_owned();
        problems.push(at.to_owned(), what, remedy);
    }
    Some(Arc::clone(signer))
}

/// What the upstream of a route is told of callers.
fn assertion(
    (config, signers): (&Config, &Signers),
    written: &config::Route,
    at: &impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<Assertion> {
    let assertion = written.assertion.as_ref()?;
    let mut problem = |key: &str, what: &str, remedy: &str| {
        let key = if key.is_empty() { "assertion".to_owned() } else { format!("assertion.{key}") };
        problems.push(at(&key), what.to_owned(), remedy.to_owned());
    };
    if written.auth.is_none() {
        problem("", "nobody is known of whom it could tell", "add auth = \"NAME\", or remove it");
    }
    if written.deliver.is_some() {
        let what = "it would be over when the request is delivered";
        problem("", what, "remove it, or deliver; claims_to_headers tells who called");
    }
    if !assertion.session.is_empty() && written.session == SessionUse::Off {
        problem("session", "the route attaches no session", "add session = true, or remove it");
    }
    for name in assertion.claims.iter().filter(|name| OWN_CLAIMS.contains(&name.as_str())) {
        let what = format!("{name:?} is said by the gateway itself");
        problem("claims", &what, "remove it: `sub` and the name of the verifier are always there");
    }
    for (key, names) in [("claims", &assertion.claims), ("session", &assertion.session)] {
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair.first() == pair.last()) {
            problem(key, "names the same twice", "remove one of them");
        }
    }
    would_be_accepted(config, assertion, &mut problem);
    match signers.get(&assertion.signer) {
        Some(signer) => Some(Assertion::new(assertion, Arc::clone(signer))),
        None => {
            unknown(config, &assertion.signer, at("assertion.signer"), problems);
            None
        }
    }
}

/// An upstream that is told of callers must not be able to call in their place.
fn would_be_accepted(
    config: &Config,
    assertion: &config::Assertion,
    problem: &mut dyn FnMut(&str, &str, &str),
) {
    let Some(signer) = config.signers.get(&assertion.signer) else { return };
    for (name, verifier) in &config.auth {
        let issuer = match &verifier.keys {
            Some(KeySource::Signer(own)) => config.signers.get(own).map(|it| &it.issuer),
            _ => verifier.issuer.as_ref(),
        };
        // One without an issuer takes what its keys have signed, and may have these keys.
        let is_of_it = match issuer {
            Some(issuer) => *issuer == signer.issuer,
            None => verifier.algorithms.contains(&Algorithm::ES256),
        };
        let accepts =
            verifier.audience.is_empty() || verifier.audience.contains(&assertion.audience);
        if is_of_it && accepts && issuer.is_none() {
            let what = format!("auth.{name} names no issuer, and may accept it as the caller's");
            problem("audience", &what, &format!("write the issuer of auth.{name}'s tokens there"));
        } else if is_of_it && accepts {
            let what = format!("auth.{name} accepts it as a token of the caller");
            let remedy = "name an audience that no verifier of the signer's tokens accepts, and in \
                          each of these the audience of its own";
            problem("audience", &what, remedy);
        }
    }
}
