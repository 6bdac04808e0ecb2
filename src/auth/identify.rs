//! Who calls: finds the token, key or certificate, chooses who verifies it, and remembers. Local:
//! it waits for nobody. Where a key is missing that its issuer may have published since, it says
//! so, and the caller may come again once the keys were fetched.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use tokio::time::Instant;

use super::carrier::{self, Form, Places, Raw};
use super::challenge::{Denied, Reason};
use super::judged::{AuthNotes, Kind};
use super::key_verifier::{KeyVerifier, Unread, Unrecalled};
use super::memory::TokenMemory;
use super::proof_fault::ProofFault;
use super::rules::unix_seconds;
use super::verifier::{Missing, Unasked, Unverified, Verifier};
use super::{Policy, token};
use crate::base::facts::{Caller, Credential, Identity};

/// Why it is not known who calls.
#[derive(Debug)]
pub enum Unidentified<'p> {
    /// It never will be: the request is refused.
    Denied(Denied),
    /// The token names a key that its issuer may have published since the keys were fetched.
    KeyUnknown(Missing<'p>),
    /// The API key's record has to be read from the store.
    KeyUnread(Unread<'p>),
    /// The token is opaque, and its server has to be asked.
    TokenUnasked(Box<Unasked<'p>>),
}

impl From<Denied> for Unidentified<'_> {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl<'p> From<Unverified<'p>> for Unidentified<'p> {
    fn from(why: Unverified<'p>) -> Self {
        match why {
            Unverified::Denied(denied) => Self::Denied(denied),
            Unverified::KeyUnknown(missing) => Self::KeyUnknown(missing),
            Unverified::Unasked(unasked) => Self::TokenUnasked(unasked),
        }
    }
}

impl<'p> From<Unrecalled<'p>> for Unidentified<'p> {
    fn from(why: Unrecalled<'p>) -> Self {
        match why {
            Unrecalled::Denied(denied) => Self::Denied(denied),
            Unrecalled::Unread(unread) => Self::KeyUnread(unread),
        }
    }
}

/// Who calls. A token that was verified before is remembered, and nothing is asked of the store.
/// `notes` is told what was found, for metrics.
pub fn identify<'p>(
    policy: &'p Policy,
    places: Places<'_>,
    memory: &TokenMemory,
    now: SystemTime,
    notes: &mut AuthNotes<'p>,
) -> Result<Caller, Unidentified<'p>> {
    // Of several verifiers the token says which one is meant.
    *notes = AuthNotes::default();
    if let [verifier] = policy.verifiers.as_slice() {
        notes.meter = verifier.meter();
    }
    let token = carrier::find(&policy.from, Form::Token, places)?;
    let key = find_key(policy, places)?;
    let now = unix_seconds(now);
    let token = match (token, key) {
        (None, None) => return Ok(by_certificate(policy, places, now)?),
        // Which of them another program would believe is unknown.
        (Some(_), Some(_)) => return Err(Denied::Several.into()),
        (None, Some((verifier, key))) => {
            notes.kind = Kind::ApiKey;
            let identity = verifier.recall(&key, &memory.api_keys, now, Instant::now())?;
            notes.is_remembered = true;
            return Ok(Some(identity));
        }
        (Some(token), None) => token,
    };
    notes.kind = Kind::Token;
    let identity = match policy.verifiers.as_slice() {
        [verifier] => verifier.recall_or_verify(&token, memory, now, notes)?,
        several => by_issuer(several, &token, places, (memory, now), notes)?,
    };
    // After the signature, and each time: what is remembered is the token, not who sends it.
    check_sender(policy, &identity, &token, places)?;
    Ok(Some(identity))
}

/// What the request's token says of itself in this claim, which nothing vouches for. Nothing where
/// there is no token, or it is opaque.
pub fn claimed(policy: &Policy, places: Places<'_>, name: &str) -> Option<Value> {
    let token = carrier::find(&policy.from, Form::Token, places).ok()??;
    token::claimed(token.text().ok()?, name)
}

/// Whether what a token is bound to is there, as far as that is known here: a proof of a key is
/// looked at once the claims were.
pub(super) fn check_sender(
    policy: &Policy,
    identity: &Identity,
    token: &Raw<'_>,
    places: Places<'_>,
) -> Result<(), Denied> {
    let Credential::Token { bound_to, proven_by } = &identity.credential else { return Ok(()) };
    if let Some(thumbprint) = bound_to
        && !places.certificate.is_some_and(|shown| shown.confirms(thumbprint))
    {
        return Err(Denied::Unbound);
    }
    let fault = match (proven_by, token.is_dpop) {
        (None, false) | (Some(_), true) => return Ok(()),
        (Some(_), false) => ProofFault::Bearer,
        (None, true) => ProofFault::NotBound,
    };
    let verifier = policy.verifiers.iter().find(|it| *it.name() == *identity.verifier);
    Err(verifier.map_or(Denied::Unbound, |verifier| verifier.rules.unproven(fault)))
}

/// Who sends a request without a token or key: the client of its connection, where the route takes
/// certificates and one was shown.
fn by_certificate(policy: &Policy, places: Places<'_>, now: i64) -> Result<Caller, Denied> {
    match (&policy.certificate_verifier, places.certificate) {
        (Some(verifier), Some(shown)) => Ok(Some(shown.identify(verifier, now)?)),
        _ if policy.optional => Ok(None),
        _ => Err(policy.missing()),
    }
}

/// The one API key of the request, and who verifies it: each has places of its own.
fn find_key<'p, 'h>(
    policy: &'p Policy,
    places: Places<'h>,
) -> Result<Option<(&'p KeyVerifier, Raw<'h>)>, Denied> {
    let mut found = None;
    for verifier in &policy.key_verifiers {
        if let Some(key) = carrier::find(&verifier.from, Form::ApiKey, places)?
            && found.replace((&**verifier, key)).is_some()
        {
            return Err(Denied::Several);
        }
    }
    Ok(found)
}

/// The same where several verifiers may have issued the token. Its `iss`, which nothing vouches for
/// yet, chooses one, and that one alone verifies the whole token, its `iss` included. A token
/// counts only where its own issuer's tokens may stand.
fn by_issuer<'p>(
    verifiers: &'p [Arc<Verifier>],
    token: &Raw<'_>,
    places: Places<'_>,
    (memory, now): (&TokenMemory, i64),
    notes: &mut AuthNotes<'p>,
) -> Result<Arc<Identity>, Unidentified<'p>> {
    let known = verifiers
        .iter()
        .find_map(|verifier| Some((verifier, verifier.recall(token, memory, now)?)));
    let (verifier, known) = match known {
        Some((verifier, identity)) => (verifier, Some(identity)),
        None => (choose(verifiers, token)?, None),
    };
    notes.meter = verifier.meter();
    if !verifier.reads(token, places) {
        return Err(Denied::from(Reason::Place).into());
    }
    match known {
        Some(identity) => {
            notes.is_remembered = true;
            Ok(identity)
        }
        None => Ok(verifier.recall_or_verify(token, memory, now, notes)?),
    }
}

fn choose<'p>(
    verifiers: &'p [Arc<Verifier>],
    token: &Raw<'_>,
) -> Result<&'p Arc<Verifier>, Denied> {
    // The largest of their bounds comes before any work on the token; the chosen one has its own.
    let bound =
        verifiers.iter().map(|verifier| verifier.rules.token_bytes).max().unwrap_or_default();
    if token.bytes.len() > bound {
        return Err(Reason::TooLarge.into());
    }
    let issuer = token::claimed_issuer(token.text()?)?;
    let issued = |verifier: &&Arc<Verifier>| verifier.issuer() == Some(&*issuer);
    Ok(verifiers.iter().find(issued).ok_or(Reason::Issuer)?)
}
