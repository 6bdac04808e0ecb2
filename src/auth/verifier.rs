//! One named verifier, compiled: what `[auth.NAME]` means. It must not know routes, nor what they
//! require.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, SHA256};
use config::{KeySource, RemoteKeys, TokenSource};
use http::HeaderName;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use tokio::time::Instant;

use super::carrier::{self, Form, Places, Raw};
use super::challenge::{Denied, Reason};
use super::flaw::Flaw;
use super::introspect::{self, Introspector, Judge};
use super::judged::AuthNotes;
use super::keys::KeySet;
use super::memory::{self, Fingerprint, RecordId, TokenMemory};
use super::proof_fault::ProofFault;
use super::rules::{Mistake, Rules, compile_headers};
use super::token;
use crate::base::facts::Identity;
use crate::config;
use crate::observe::TokenMeter;
use crate::store::keys::Keys;

/// Verifies the tokens of one issuer.
#[derive(Debug)]
pub struct Verifier {
    /// Stands for the whole configuration, keys included, so that a reload that changes any of it
    /// starts with an empty memory of its own, even while requests of the former plan are still
    /// being remembered.
    fingerprint: Fingerprint,
    /// The keys of now; they change only where an issuer publishes them.
    current: ArcSwap<Current>,
    remote: Option<RemoteKeys>,
    pub(super) from: Vec<TokenSource>,
    pub(super) forward_token: bool,
    pub(super) rules: Rules,
    /// Who says what its tokens are worth; nothing where their signatures do.
    judge: Option<Box<Judge>>,
    /// What counts its tokens, once the plan that it belongs to is in force.
    meter: OnceLock<Arc<TokenMeter>>,
}

/// With whom a verifier of tokens shares a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SharedWith {
    /// With nobody.
    Nobody,
    /// With verifiers of API keys or of certificates: their callers are told apart from its own,
    /// but what revokes its tokens revokes nothing of theirs.
    Others,
    /// With another verifier of tokens, whose `jti`, `sid` and `sub` may be the same.
    Tokens,
}

/// The keys of a verifier, and what its tokens are remembered under while it has these.
#[derive(Debug)]
struct Current {
    keys: KeySet,
    fingerprint: Fingerprint,
}

/// Why a token did not verify.
#[derive(Debug)]
pub(super) enum Unverified<'p> {
    /// It never will.
    Denied(Denied),
    /// It names a key that its issuer may have published since the keys were fetched.
    KeyUnknown(Missing<'p>),
    /// It is opaque, and a server has to say what it is worth.
    Unasked(Box<Unasked<'p>>),
}

/// Why a token that no request carries is not read.
#[derive(Debug)]
pub enum NotVerified<'v> {
    /// It never will be.
    Refused(Reason),
    /// It names a key that its issuer may have published since the keys were fetched.
    KeyUnknown(Missing<'v>),
}

/// An opaque token of which nothing is remembered.
#[derive(Debug)]
pub struct Unasked<'p> {
    judge: &'p Judge,
    id: RecordId,
    token: Raw<'static>,
}

impl Unasked<'_> {
    /// Who calls with it, as its server says.
    pub(super) async fn ask(&self, memory: &TokenMemory) -> Result<Arc<Identity>, Denied> {
        self.judge.ask(self.id, self.token.text()?, &memory.answers).await
    }

    /// The token as it stands in the request.
    pub(super) fn token(&self) -> &Raw<'static> {
        &self.token
    }
}

impl From<Denied> for Unverified<'_> {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

/// A key that was looked for and not found.
#[derive(Debug)]
pub struct Missing<'p> {
    pub(super) verifier: &'p Verifier,
    /// The keys among which it was looked for.
    seen: Fingerprint,
}

impl Missing<'_> {
    /// The name of the verifier whose keys lack it.
    pub fn verifier(&self) -> &str {
        self.verifier.name()
    }

    /// Whether the verifier has other keys by now, so that it is worth looking again.
    pub fn may_have_come(&self) -> bool {
        self.verifier.has_changed_since(&self.seen)
    }

    /// The refusal of a token whose key stays unknown. While the issuer cannot be asked
    /// (`is_failing`), or has never answered, that is nobody's fault but the issuer's.
    pub fn denied(&self, is_failing: bool) -> Denied {
        if is_failing || !self.verifier.has_keys() {
            Denied::KeysUnavailable(self.verifier.name().into())
        } else {
            Reason::KeyUnknown.into()
        }
    }
}

impl Verifier {
    /// Compiles what was written, or says everything that is wrong with it. The list of mistakes is
    /// empty when the only one is that no key source is named, which the reader of the file has
    /// reported.
    pub fn compile(
        name: &str,
        config: &config::Verifier,
        store_keys: &Keys,
        shared_with: SharedWith,
    ) -> Result<Self, Vec<Mistake>> {
        super::init();
        let mut mistakes = Vec::new();
        let claim_headers = compile_headers(config, &mut mistakes);
        let keys = config.keys.as_ref().and_then(|source| {
            let (place, keys) = read_keys(source, &config.algorithms);
            let report = |Flaw { what, remedy }| mistakes.push((place.to_owned(), what, remedy));
            keys.map_err(|flaws| flaws.into_iter().for_each(report)).ok()
        });
        let (Some(keys), true) = (keys, mistakes.is_empty()) else { return Err(mistakes) };
        let remote = match &config.keys {
            Some(KeySource::Url(remote)) => Some(remote.clone()),
            _ => None,
        };
        let store_keys = match shared_with {
            SharedWith::Tokens => store_keys.qualified(name),
            SharedWith::Nobody | SharedWith::Others => store_keys.clone(),
        };
        let fingerprint = fingerprint(&format!("{name} {shared_with:?}"), config, &store_keys);
        let is_qualified = shared_with != SharedWith::Nobody;
        let rules = Rules::of(config, name, store_keys, claim_headers, is_qualified);
        let judge = match &config.keys {
            Some(KeySource::Introspection(settings)) => Some(Box::new(Judge {
                rules: Arc::new(rules.clone()),
                introspector: Arc::new(Introspector::new(settings)),
            })),
            _ => None,
        };
        Ok(Self {
            fingerprint,
            current: ArcSwap::from_pointee(Current { keys, fingerprint }),
            remote,
            from: config.from.clone(),
            forward_token: config.forward_token,
            rules,
            judge,
            meter: OnceLock::new(),
        })
    }

    /// Has its tokens counted here. Only the first meter counts.
    pub fn count_with(&self, meter: &Arc<TokenMeter>) {
        let _ = self.meter.set(Arc::clone(meter));
    }

    /// What counts its tokens.
    pub fn meter(&self) -> Option<&TokenMeter> {
        self.meter.get().map(|meter| &**meter)
    }

    /// The name after `auth.`.
    pub fn name(&self) -> &str {
        &self.rules.name
    }

    /// Where it stands in the configuration: below `auth`, or where its name says.
    pub fn path(&self) -> Cow<'_, str> {
        let name = self.name();
        if name.contains('.') { name.into() } else { format!("auth.{name}").into() }
    }

    /// The headers that claims are written to; the gateway takes them out of what a client sends.
    pub fn owned_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.rules.claim_headers.iter().map(|(header, _)| header)
    }

    /// The refusal of a token whose proof has come before.
    pub fn replayed(&self) -> Denied {
        self.rules.unproven(ProofFault::Replayed)
    }

    /// The `iss` that its tokens have, where the configuration says so.
    pub fn issuer(&self) -> Option<&str> {
        self.rules.issuer.as_deref()
    }

    /// The keys of the store that revoke its tokens.
    pub fn store_keys(&self) -> &Keys {
        &self.rules.store_keys
    }

    /// Its name, where identities must be told apart by it.
    pub fn qualifier(&self) -> Option<Arc<str>> {
        self.rules.qualifier.clone()
    }

    /// Where its keys are published, when they are.
    pub fn remote(&self) -> Option<&RemoteKeys> {
        self.remote.as_ref()
    }

    /// Whether there is any key yet.
    pub fn has_keys(&self) -> bool {
        !self.current.load().keys.is_empty()
    }

    /// Puts a set in force that the issuer published, for the requests to come; tokens that were
    /// verified by the former one are verified again. Returns what was left out of the set, if it
    /// is another one than before.
    ///
    /// # Errors
    /// When no key of it is of use, all that is wrong with it; the former keys stay.
    pub fn renew_keys(&self, document: &str) -> Result<Vec<Flaw>, Vec<Flaw>> {
        let mut context = Context::new(&SHA256);
        context.update(&self.fingerprint);
        context.update(document.as_bytes());
        let fingerprint = memory::bytes(&context.finish());
        if self.current.load().fingerprint == fingerprint {
            return Ok(Vec::new());
        }
        let (keys, ignored) = KeySet::from_published(document, &self.rules.algorithms)?;
        self.current.store(Arc::new(Current { keys, fingerprint }));
        Ok(ignored)
    }

    /// Whether the keys are others than when a token was found to lack its own.
    fn has_changed_since(&self, seen: &Fingerprint) -> bool {
        self.current.load().fingerprint != *seen
    }

    /// What the token says, if it was verified before and its key still counts.
    pub(super) fn recall(
        &self,
        token: &Raw<'_>,
        memory: &TokenMemory,
        now: i64,
    ) -> Option<Arc<Identity>> {
        memory.get(&self.current.load().fingerprint, &token.bytes, self.is_over(now))
    }

    /// Who the token says is calling.
    pub(super) fn recall_or_verify<'p>(
        &'p self,
        token: &Raw<'_>,
        memory: &TokenMemory,
        now: i64,
        notes: &mut AuthNotes<'p>,
    ) -> Result<Arc<Identity>, Unverified<'p>> {
        notes.meter = self.meter();
        // The bound comes before any work on the token.
        if token.bytes.len() > self.rules.token_bytes {
            return Err(Denied::from(Reason::TooLarge).into());
        }
        if let Some(judge) = &self.judge {
            return self.recall_answer(judge, token, memory, notes);
        }
        let current = self.current.load();
        if let Some(identity) = memory.get(&current.fingerprint, &token.bytes, self.is_over(now)) {
            notes.is_remembered = true;
            return Ok(identity);
        }
        let identity = match token::verify(&self.rules, &current.keys, token.text()?, now) {
            Ok(identity) => Arc::new(identity),
            Err(Reason::KeyUnknown) => {
                let seen = current.fingerprint;
                return Err(Unverified::KeyUnknown(Missing { verifier: self, seen }));
            }
            Err(reason) => return Err(Denied::from(reason).into()),
        };
        memory.insert(&current.fingerprint, &token.bytes, Arc::clone(&identity));
        Ok(identity)
    }

    /// Who the server of an opaque token said is calling, where that still counts.
    fn recall_answer<'p>(
        &'p self,
        judge: &'p Judge,
        token: &Raw<'_>,
        memory: &TokenMemory,
        notes: &mut AuthNotes<'p>,
    ) -> Result<Arc<Identity>, Unverified<'p>> {
        token.text()?;
        let id = introspect::id_of(self.fingerprint, &token.bytes);
        if let Some(verdict) = memory.answers.get(&id, Instant::now()) {
            notes.is_remembered = true;
            return Ok(verdict.map_err(Denied::from)?);
        }
        let token = Raw { bytes: Vec::from(&*token.bytes).into(), is_dpop: token.is_dpop };
        Err(Unverified::Unasked(Box::new(Unasked { judge, id, token })))
    }

    /// Whether its tokens are opaque, and a server says what they are worth.
    pub fn asks(&self) -> bool {
        self.judge.is_some()
    }

    /// Whether a token that was good is so no longer at `now` (Unix seconds).
    fn is_over(&self, now: i64) -> impl FnOnce(&Identity) -> bool {
        let leeway = self.rules.leeway;
        move |identity| now >= identity.expires_at.saturating_add(leeway)
    }

    /// Whether the token stands in one of this verifier's own places.
    pub(super) fn reads(&self, token: &Raw<'_>, places: Places<'_>) -> bool {
        matches!(carrier::find(&self.from, Form::Token, places), Ok(Some(found)) if found == *token)
    }

    /// What a token says whose signature, issuer, audience and times are good: one that no request
    /// carries, so that it is not remembered.
    ///
    /// # Errors
    /// It is not, or its key is not known here.
    pub fn read(&self, token: &str, now: i64) -> Result<Identity, NotVerified<'_>> {
        let current = self.current.load();
        token::verify(&self.rules, &current.keys, token, now).map_err(|reason| match reason {
            Reason::KeyUnknown => {
                NotVerified::KeyUnknown(Missing { verifier: self, seen: current.fingerprint })
            }
            reason => NotVerified::Refused(reason),
        })
    }

    #[cfg(test)]
    pub(super) fn verify(&self, token: &str, now: i64) -> Result<Identity, Reason> {
        token::verify(&self.rules, &self.current.load().keys, token, now)
    }
}

fn read_keys(
    source: &KeySource,
    algorithms: &[Algorithm],
) -> (&'static str, Result<KeySet, Vec<Flaw>>) {
    match source {
        KeySource::Secret(secret) => ("secret", KeySet::from_secret(secret.expose(), algorithms)),
        KeySource::PublicKey(pem) => ("public_key_file", KeySet::from_pem(pem, algorithms)),
        KeySource::Jwks(json) => {
            let text = std::str::from_utf8(json.expose())
                .map_err(|_| vec![Flaw::new("the JWK set is not UTF-8", "save the file as UTF-8")]);
            ("jwks_file", text.and_then(|text| KeySet::from_jwks(text, algorithms)))
        }
        KeySource::Url(_) => {
            let secret = algorithms.iter().find(|it| it.family() == AlgorithmFamily::Hmac);
            let keys = match secret {
                None => Ok(KeySet::unfetched()),
                Some(algorithm) => Err(vec![Flaw::new(
                    format!("{algorithm:?} needs a shared secret, and what is published is none"),
                    "name what the issuer signs with, such as \"ES256\", or use `secret`",
                )]),
            };
            ("algorithms", keys)
        }
        KeySource::Introspection(_) => ("introspect", Ok(KeySet::unfetched())),
        KeySource::ApiKeys | KeySource::Certificates | KeySource::Sessions => {
            let flaw = Flaw::new("no tokens are verified here", "name the keys of an issuer");
            ("algorithms", Err(vec![flaw]))
        }
        // The plan puts the keys of the signer in its place.
        KeySource::Signer(_) => {
            let flaw = Flaw::new("the signer has no keys", "see what is wrong with the signer");
            ("signer", Err(vec![flaw]))
        }
    }
}

/// A digest of everything that decides what a token is worth here. `Debug` hides secrets, so they
/// are added as they are.
fn fingerprint(name: &str, config: &config::Verifier, store_keys: &Keys) -> Fingerprint {
    let material: &[u8] = match &config.keys {
        Some(KeySource::Secret(secret) | KeySource::Jwks(secret)) => secret.expose(),
        Some(KeySource::Introspection(settings)) => settings.client_secret.expose(),
        Some(
            KeySource::PublicKey(_)
            | KeySource::Url(_)
            | KeySource::ApiKeys
            | KeySource::Certificates
            | KeySource::Sessions
            | KeySource::Signer(_),
        )
        | None => &[],
    };
    let mut context = Context::new(&SHA256);
    context.update(format!("{name:?} {store_keys:?} {config:?} ").as_bytes());
    context.update(material);
    memory::bytes(&context.finish())
}
