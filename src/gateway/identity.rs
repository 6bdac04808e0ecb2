//! Who calls, and the wait for keys that an issuer has published since they were fetched.

use std::sync::Arc;

use http::HeaderMap;

use super::{Gateway, Running};
use crate::auth::{Denied, Missing, Places, Unidentified, Verifier};
use crate::base::facts::{Caller, Target};
use crate::plan::{Plan, Route};

impl Gateway {
    /// Who calls, and whether the caller's claims suffice. It waits only for a token whose key is
    /// unknown, and then for one fetch at most.
    pub async fn identify(
        &self,
        running: &Running,
        route: &Route,
        target: &Target,
        headers: &HeaderMap,
    ) -> Result<Caller, Denied> {
        let places = Places { headers, query: target.query() };
        match route.identify(places, &self.tokens) {
            Ok(caller) => Ok(caller),
            Err(Unidentified::Denied(denied)) => Err(denied),
            // Rare, so its state is not carried along by every request.
            Err(Unidentified::KeyUnknown(missing)) => {
                Box::pin(self.identify_later(running, route, places, missing)).await
            }
        }
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
        })
    }

    /// Tells the metrics how old the issuers' keys are.
    pub fn observe_issuers(&self) {
        let states = self.running().issuers.states();
        let ages = states.into_iter().filter_map(|state| Some((state.url, state.age?)));
        self.metrics.set_key_ages(ages);
    }
}

/// The keys of a verifier that joins another one on a route carry its name from now on, and those
/// without it are asked no more: they may have been written for callers of any verifier.
pub(super) fn warn_of_qualified(old: &Plan, new: &Plan) {
    let is_new = |(name, verifier): &(&String, &Arc<Verifier>)| {
        let former = old.verifiers.get(*name);
        verifier.qualifier().is_some() && former.is_some_and(|it| it.qualifier().is_none())
    };
    for (name, _) in new.verifiers.iter().filter(is_new) {
        tracing::warn!(
            "auth.{name} shares a route with another verifier now: its callers are revoked under \
             keys with its name, such as …:auth:blacklist:{name}:JTI; revoke again what was \
             revoked by jti, sid or sub before"
        );
    }
}
