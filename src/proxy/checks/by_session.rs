//! Who calls, where a session that the gateway has made says so: as it was read before while the
//! store has the same, else as it is read anew. And whether another site may have had the browser
//! send the request.
//!
//! A session that has changed since it was read is met by the one question of the request. Then all
//! is given back and asked once more, so that nobody passes as who he was.

use std::time::SystemTime;

use tokio::time::Instant;

use super::Checks;
use super::known::{By, Known, digest_of};
use crate::auth::{self, Places, Policy, ReadClaims, SessionVerifier};
use crate::base::facts::Caller;
use crate::observe::LoginOutcome;
use crate::proxy::clauses;
use crate::proxy::record::Record;
use crate::proxy::rejection::Rejection;
use crate::proxy::request::OwnCookies;
use crate::proxy::without_store;
use crate::session::{CookieValue, InForce, NoSession, Shown, id_of};
use crate::store::{Answers, Questions, SessionKey, StoreError};

/// A verifier of sessions, and the cookies that a request shows it.
type ShownTo<'a> = (&'a SessionVerifier, &'a OwnCookies);

/// Whether a session is as good as one that never was: a new log-in is all that is needed.
fn is_over(why: &NoSession) -> bool {
    matches!(
        why,
        NoSession::Required | NoSession::Idle | NoSession::Expired | NoSession::NotRenewed
    )
}

impl<'a> Checks<'a, '_> {
    /// Who verifies the session that says who calls: where the route takes one, the request shows
    /// one, and has no credential that its sender had to add himself.
    pub(in crate::proxy) fn decided_by_session(&self, places: Places<'_>) -> Option<ShownTo<'a>> {
        let shown = self.request.received.own_cookies.as_deref()?;
        let policy = self.request.route.auth.as_ref()?;
        let verifier = policy.session_verifier.as_deref()?;
        (!policy.finds_credential(places)).then_some((verifier, shown))
    }

    /// Who has the session of the cookie.
    pub(in crate::proxy) async fn identify_by_session(
        &self,
        (verifier, shown): ShownTo<'a>,
        by: By,
    ) -> Known {
        let Some(policy) = &self.request.route.auth else { return Known::at_once(Ok(None)) };
        let Some(value) = shown.shown.one() else {
            let missing = || Err(policy.missing().into());
            return Known::at_once(if policy.optional { Ok(None) } else { missing() });
        };
        if by == By::Memory {
            let known = self.request.gateway().auth.recall_session(verifier, value.digest());
            let permitted = known.map(|identity| self.permit(policy, Some(identity)));
            // What is remembered lets in, and keeps nobody out: he may be somebody else by now.
            if let Some(Ok(caller)) = permitted {
                return Known::at_once(Ok(caller));
            }
        }
        let mut known = self.read_session(verifier, value).await;
        known.caller = known.caller.and_then(|caller| self.permit(policy, caller));
        known
    }

    /// The caller, where what his session says suffices for the route.
    fn permit(&self, policy: &Policy, caller: Caller) -> Result<Caller, Box<Rejection>> {
        let permitted = auth::permit(policy, &caller).map(|()| caller);
        let permitted = permitted.and_then(|caller| clauses::judge(&self.request, caller));
        permitted.map_err(|denied| Box::new(denied.into()))
    }

    /// Reads a session from the store, and judges it.
    async fn read_session(&self, verifier: &SessionVerifier, value: &CookieValue) -> Known {
        let (gateway, plan) = (self.request.gateway(), self.request.plan());
        let (digest, route) = (value.digest(), self.request.route);
        let Some(policy) = &route.session else { return Known::at_once(Ok(None)) };
        let id = id_of(&digest);
        let keys = plan.keys.session_keys(&id);
        let session = Some(SessionKey {
            key: &keys.session,
            ttl: true,
            bytes_max: policy.bytes_max(),
            end: Some(&keys.end),
        });
        let asked_at = Instant::now();
        let answers = gateway.store.ask(&Questions { session, ..Questions::default() }).await;
        let Answers { session: mut reply, session_end: end, .. } = *answers;
        let waited = asked_at.elapsed();
        gateway.observer.metrics.store_duration.observe(waited);
        let outage = match &reply {
            Some(Err(error)) if error.is_outage() => Some(error.clone()),
            _ => None,
        };
        let max_stale = plan.on_outage.session_max_stale;
        without_store::recall_session(gateway, Some(&keys), &mut reply, max_stale);
        let reply = reply.unwrap_or(Ok(None));
        let stored = reply.as_ref().ok().and_then(|it| it.as_ref()).map(|it| it.value.clone());
        let judged = InForce::of(policy, &keys.session, (reply, end), SystemTime::now());
        let judged = judged.and_then(|in_force| {
            let InForce { text, created_s, until_s } = in_force;
            let value = stored.ok_or(NoSession::Required)?;
            let read = ReadClaims { digest, id, text, value, created_s, until_s };
            let identity = gateway.auth.identify_session(verifier, read);
            identity.map_err(|_| NoSession::Unreadable)
        });
        let is_optional = route.auth.as_ref().is_some_and(|auth| auth.optional);
        let caller = match judged {
            Ok(identity) => Ok(Some(identity)),
            // As good as one that never was, to whom none is needed.
            Err(why) if is_optional && is_over(&why) => Ok(None),
            Err(why) => {
                self.count_session(Some(outage.is_none()), Some(&why));
                Err(Box::new(Rejection::NoSession { why, takes_credentials: false }))
            }
        };
        Known { caller, waited, outage }
    }

    /// The session that says who calls, where the store has said another thing of it than was
    /// remembered.
    pub(in crate::proxy) fn changed_session(&self) -> Option<ShownTo<'a>> {
        let digest = digest_of(self.request.caller)?;
        let Some(Ok(found)) = &self.answers.session else { return None };
        let policy = self.request.route.auth.as_ref()?;
        let verifier = policy.session_verifier.as_deref()?;
        let auth = &self.request.gateway().auth;
        let found = found.as_ref().filter(|it| !it.value.is_empty_text());
        let is_known = found.is_some_and(|it| auth.knows_session_by(verifier, digest, &it.value));
        if is_known {
            return None;
        }
        auth.forget_session(verifier, digest);
        let shown = self.request.received.own_cookies.as_deref()?;
        // One that is gone is refused as such, where no more than that can be told.
        let is_refused = found.is_none() && self.claim.is_some();
        (!is_refused).then_some((verifier, shown))
    }

    /// Finds out anew who calls, gives back what was taken for who it was, and asks again.
    pub(in crate::proxy) async fn identify_again(
        &mut self,
        shown: ShownTo<'a>,
        record: &mut Record,
    ) -> Option<Box<Rejection>> {
        if self.claim.is_some() {
            // Its key is taken already, for who he was.
            let why = StoreError::Refused("the session changed meanwhile".to_owned());
            let why = NoSession::Unknown(why);
            return Some(Box::new(Rejection::NoSession { why, takes_credentials: false }));
        }
        let known = self.identify_by_session(shown, By::Store).await;
        let caller = match known.caller {
            Ok(caller) => caller,
            Err(denied) => return Some(denied),
        };
        self.undo(self.taken());
        if let Some(guard) = self.guard.take() {
            guard.give_back().await;
        }
        self.answers = Answers::default();
        let caller = shown.1.caller_of_now.get_or_init(|| caller);
        self.note_caller(caller, true, self.waited + known.waited);
        if let Err(exceeded) = self.collect() {
            return Some(Box::new(exceeded.into()));
        }
        self.ask(known.outage, record).await;
        None
    }

    /// Refuses what a page of another site may have a browser send: it adds the cookie by itself.
    ///
    /// # Errors
    /// Another site may have done so.
    pub(in crate::proxy) fn refuse_other_sites(
        &self,
        caller: Caller,
    ) -> Result<Caller, Box<Rejection>> {
        match self.request.received.shown() {
            None => Ok(caller),
            Some(shown) => self.judge_sender(shown, &caller).map(|()| caller),
        }
    }

    #[cold]
    fn judge_sender(&self, shown: &Shown, caller: &Caller) -> Result<(), Box<Rejection>> {
        let route = self.request.route;
        // Who calls by something else had to add that himself.
        let is_by_cookie = caller.is_none() || digest_of(caller).is_some();
        let counts = is_by_cookie && route.session.is_some() && shown.one().is_some();
        if !counts || !route.written.login.refuses_others() {
            return Ok(());
        }
        let sender = self.request.sender(self.head);
        if !sender.may_change() {
            return Ok(());
        }
        let origins = self.request.csrf_origins();
        let judged = sender.judge(Some(shown), origins);
        judged.map_err(|why| {
            if let Some(meter) = self.meter() {
                meter.login(LoginOutcome::CrossSite);
            }
            Box::new(why.into())
        })
    }
}
