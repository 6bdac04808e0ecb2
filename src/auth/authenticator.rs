//! Who calls, and the waits that this may need: for keys that an issuer has published since they
//! were fetched, and for the record of an API key.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::carrier::Places;
use super::challenge::Denied;
use super::identify::{Unidentified, check_sender, identify};
use super::judged::{AuthNotes, Judged};
use super::key_verifier::{KeyVerifier, Unread};
use super::memory::TokenMemory;
use super::rules::unix_seconds;
use super::session_verifier::{ReadClaims, SessionVerifier};
use super::verifier::{Missing, Unasked};
use super::{Policy, permit};
use crate::base::facts::{Caller, Identity};
use crate::observe::Metrics;
use crate::store::{SessionValue, Store, StoreError};

/// Finds out who calls, and remembers it.
#[derive(Debug)]
pub struct Authenticator {
    memory: TokenMemory,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
}

/// Who calls, as far as it could be found out.
#[derive(Debug)]
pub struct Identified<'p> {
    /// The caller whose claims suffice for the route.
    pub caller: Result<Caller, Denied>,
    /// Why the store did not answer, if it was asked and did not: the same request need not ask it
    /// again.
    pub outage: Option<StoreError>,
    /// How long the store was waited for.
    pub waited: Duration,
    /// What is counted of it.
    pub judged: Judged<'p>,
}

impl<'p> Identified<'p> {
    /// Nobody waited for the store.
    fn at_once(caller: Result<Caller, Denied>, notes: AuthNotes<'p>) -> Self {
        let judged = notes.judged(&caller);
        Self { caller, outage: None, waited: Duration::ZERO, judged }
    }
}

impl Authenticator {
    /// Remembers nobody yet.
    pub fn new(store: &Arc<Store>, metrics: &Arc<Metrics>) -> Self {
        let (store, metrics) = (Arc::clone(store), Arc::clone(metrics));
        Self { memory: TokenMemory::new(), store, metrics }
    }

    /// Who calls, and whether the caller's claims suffice; a public route (no `policy`) does not
    /// look. It waits only for a token whose key is unknown, and then for one fetch at most, or for
    /// the record of an API key that was not read of late. `fetch_keys` is given the name of a
    /// verifier, returns when its keys were fetched, and says whether their issuer is failing.
    pub async fn identify<'p>(
        &self,
        policy: Option<&'p Policy>,
        places: Places<'_>,
        fetch_keys: impl AsyncFnOnce(&str) -> bool,
    ) -> Identified<'p> {
        let mut notes = AuthNotes::default();
        let Some(policy) = policy else { return Identified::at_once(Ok(None), notes) };
        match self.identify_now(policy, places, &mut notes) {
            Ok(caller) => Identified::at_once(Ok(caller), notes),
            Err(Unidentified::Denied(denied)) => Identified::at_once(Err(denied), notes),
            // Rare, so its state is not carried along by every request.
            Err(Unidentified::KeyUnknown(missing)) => {
                let fetched = self.identify_after_fetch(policy, places, missing, fetch_keys);
                Box::pin(fetched).await
            }
            Err(Unidentified::KeyUnread(unread)) => {
                Box::pin(self.identify_by_record(policy, unread, notes)).await
            }
            Err(Unidentified::TokenUnasked(unasked)) => {
                Box::pin(self.identify_by_question(policy, places, unasked, notes)).await
            }
        }
    }

    /// Forgets the record of an API key: it was deleted or revoked, and must not serve again when
    /// the store is away.
    pub fn forget_record(&self, verifier: &KeyVerifier, record_key: &str) {
        verifier.forget(record_key, &self.memory);
    }

    /// Who has the session whose cookie has this SHA-256, as it was read before. It counts while
    /// the store has the same value ([`Self::knows_session_by`]).
    pub fn recall_session(
        &self,
        verifier: &SessionVerifier,
        digest: [u8; 32],
    ) -> Option<Arc<Identity>> {
        verifier.recall(digest, &self.memory, unix_seconds(SystemTime::now()))
    }

    /// Whether a session that is remembered has this value in the store.
    pub fn knows_session_by(
        &self,
        verifier: &SessionVerifier,
        digest: [u8; 32],
        value: &SessionValue,
    ) -> bool {
        verifier.is_known_by(digest, &self.memory, value)
    }

    /// Forgets a session: it has ended, or changed.
    pub fn forget_session(&self, verifier: &SessionVerifier, digest: [u8; 32]) {
        verifier.forget(digest, &self.memory);
    }

    /// Who has a session that is in force, as it was just read.
    ///
    /// # Errors
    /// What it says cannot be used.
    pub fn identify_session(
        &self,
        verifier: &SessionVerifier,
        read: ReadClaims,
    ) -> Result<Arc<Identity>, &'static str> {
        verifier.identify(read, &self.memory)
    }

    fn identify_now<'p>(
        &self,
        policy: &'p Policy,
        places: Places<'_>,
        notes: &mut AuthNotes<'p>,
    ) -> Result<Caller, Unidentified<'p>> {
        let caller = identify(policy, places, &self.memory, SystemTime::now(), notes)?;
        permit(policy, &caller)?;
        Ok(caller)
    }

    async fn identify_by_record<'p>(
        &self,
        policy: &Policy,
        unread: Unread<'_>,
        mut notes: AuthNotes<'p>,
    ) -> Identified<'p> {
        let asked_at = Instant::now();
        let reply = self.store.get(unread.record_key()).await;
        let waited = asked_at.elapsed();
        self.metrics.store_duration.observe(waited);
        let outage = match &reply {
            Err(error) if error.is_outage() => Some(error.clone()),
            _ => None,
        };
        let memory = &self.memory.api_keys;
        let caller = unread.judge(reply, memory, SystemTime::now(), Instant::now()).map(Some);
        let caller = caller.and_then(|caller| permit(policy, &caller).map(|()| caller));
        notes.is_remembered = outage.is_some();
        let judged = notes.judged(&caller);
        Identified { caller, outage, waited, judged }
    }

    async fn identify_by_question<'p>(
        &self,
        policy: &Policy,
        places: Places<'_>,
        unasked: Box<Unasked<'_>>,
        notes: AuthNotes<'p>,
    ) -> Identified<'p> {
        let caller = unasked.ask(&self.memory).await.and_then(|identity| {
            check_sender(policy, &identity, unasked.token(), places)?;
            Ok(Some(identity))
        });
        let caller = caller.and_then(|caller| permit(policy, &caller).map(|()| caller));
        Identified::at_once(caller, notes)
    }

    async fn identify_after_fetch<'p>(
        &self,
        policy: &'p Policy,
        places: Places<'_>,
        mut missing: Missing<'p>,
        fetch_keys: impl AsyncFnOnce(&str) -> bool,
    ) -> Identified<'p> {
        // A fetch may have ended since the key was looked for: what it brought needs no other one.
        if missing.may_have_come() {
            missing = match self.identify_again(policy, places) {
                Ok(identified) => return identified,
                Err(missing) => missing,
            };
        }
        let is_failing = fetch_keys(missing.verifier()).await;
        if !missing.may_have_come() {
            return missing.refused(is_failing);
        }
        self.identify_again(policy, places).unwrap_or_else(|missing| missing.refused(is_failing))
    }

    /// Who calls, by keys that came meanwhile; what is missing still, where they are not enough.
    fn identify_again<'p>(
        &self,
        policy: &'p Policy,
        places: Places<'_>,
    ) -> Result<Identified<'p>, Missing<'p>> {
        let mut notes = AuthNotes::default();
        let caller = match self.identify_now(policy, places, &mut notes) {
            Ok(caller) => Ok(caller),
            Err(Unidentified::Denied(denied)) => Err(denied),
            Err(Unidentified::KeyUnknown(missing)) => return Err(missing),
            // A request with a token has no API key, and one whose key is unknown is not opaque.
            Err(Unidentified::KeyUnread(_) | Unidentified::TokenUnasked(_)) => Err(Denied::Several),
        };
        Ok(Identified::at_once(caller, notes))
    }
}

impl<'p> Missing<'p> {
    /// The refusal of a token whose key stays unknown.
    fn refused(&self, is_failing: bool) -> Identified<'p> {
        let notes = AuthNotes { meter: self.verifier.meter(), ..AuthNotes::default() };
        Identified::at_once(Err(self.denied(is_failing)), notes)
    }
}
