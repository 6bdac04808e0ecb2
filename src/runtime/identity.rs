//! Who calls, and the waits that this may need: for keys that an issuer has published since they
//! were fetched, and for the record of an API key.

use std::sync::Arc;

use http::HeaderMap;
use tokio::time::Instant;

use super::{Gateway, Running};
use crate::auth::{self, Denied, Missing, Places, Unidentified, Unread, Verifier};
use crate::base::facts::{Caller, Target};
use crate::plan::{Plan, Route};
use crate::store::StoreError;

impl Gateway {
    /// Who calls, and whether the caller's claims suffice. It waits only for a token whose key is
    /// unknown, and then for one fetch at most, or for the record of an API key that was not read
    /// of late. Why the store did not answer then, if it did not: it is not asked again in vain.
    pub async fn identify(
        &self,
        running: &Running,
        route: &Route,
        target: &Target,
        headers: &HeaderMap,
    ) -> (Result<Caller, Denied>, Option<StoreError>) {
        let places = Places { headers, query: target.query() };
        match route.identify(places, &self.tokens) {
            Ok(caller) => (Ok(caller), None),
            Err(Unidentified::Denied(denied)) => (Err(denied), None),
            // Rare, so its state is not carried along by every request.
            Err(Unidentified::KeyUnknown(missing)) => {
                (Box::pin(self.identify_later(running, route, places, missing)).await, None)
            }
            Err(Unidentified::KeyUnread(unread)) => {
                Box::pin(self.identify_by_record(route, unread)).await
            }
        }
    }

    async fn identify_by_record(
        &self,
        route: &Route,
        unread: Unread<'_>,
    ) -> (Result<Caller, Denied>, Option<StoreError>) {
        let asked_at = Instant::now();
        let reply = self.store.get(unread.record_key()).await;
        self.metrics.store_duration.observe(asked_at.elapsed());
        let away = match &reply {
            Err(error @ (StoreError::Unavailable | StoreError::Timeout)) => Some(error.clone()),
            _ => None,
        };
        let caller = auth::judge_key(unread, reply, &self.tokens);
        let permitted = caller.and_then(|caller| route.permit(&caller).map(|()| caller));
        (permitted, away)
    }

    async fn identify_later(
        &self,
        running: &Running,
        route: &Route,
        places: Places<'_>,
        missing: Missing<'_>,
    ) -> Result<Caller, Denied> {
        let is_failing = running.issuers.ask(missing.verifier()).await;
        if !missing.may_have_come() {
            return Err(missing.denied(is_failing));
        }
        route.identify(places, &self.tokens).map_err(|unidentified| match unidentified {
            Unidentified::Denied(denied) => denied,
            Unidentified::KeyUnknown(missing) => missing.denied(is_failing),
            // A request with a token has no API key.
            Unidentified::KeyUnread(_) => Denied::Several,
        })
    }
}

/// The keys of a verifier that joins another one on a route carry its name from now on, and those
/// without it are asked no more: they may have been written for callers of any verifier.
pub(super) fn warn_of_qualified(old: &Plan, new: &Plan) {
    let is_new = |(name, verifier): &(&String, &Arc<Verifier>)| {
        let former = old.verifiers.get(*name);
        let is_plain = former.is_some_and(|former| *former.store_keys() == old.keys);
        is_plain && *verifier.store_keys() != new.keys
    };
    for (name, _) in new.verifiers.iter().filter(is_new) {
        tracing::warn!(
            "auth.{name} shares a route with another verifier of tokens now: its callers are \
             revoked under keys with its name, such as …:auth:blacklist:{name}:JTI; revoke again \
             what was revoked by jti, sid or sub before"
        );
    }
}
