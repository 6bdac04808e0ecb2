//! The tunnels, streams and calls that are open on this node, and who may end them: a revocation,
//! the end of a session, a reload that takes their route away, the drain, an operator.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::base::facts::{Caller, ClientAddr, Identity};
use crate::config::{EndOn, OnOutage, Outage};
use crate::plan::{Plan, Route};
use crate::session::Said;
use crate::store::{Questions, RevocationKeys, SessionKey, SessionKeys, Store};
use crate::tunnel::{Control, End};
use crate::{auth, session};

/// How old what this node was told of revocations may be to be believed without asking.
const TOLD_AGE_MAX: Duration = Duration::from_secs(5);
/// How many questions in a row may stay without an answer before `on_outage` decides.
const UNANSWERED_MAX: u64 = 2;

/// See the module.
#[derive(Debug, Default)]
pub struct Tunnels {
    open: Mutex<Open>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    entries: BTreeMap<u64, Arc<Entry>>,
    is_draining: bool,
}

/// What goes on behind a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A tunnel.
    WebSocket,
    /// A stream of events.
    Events,
    /// A gRPC call. It ends by itself: only what let its caller in ends it before, or an operator.
    Call,
}

impl Kind {
    /// The word for operators.
    pub fn word(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Events => "events",
            Self::Call => "grpc",
        }
    }
}

/// What a request was let in by. What goes on behind its response ends when one of these does
/// ([`Entry::judge`]).
#[derive(Debug, Clone, Default)]
pub struct Grant {
    /// Who called.
    pub caller: Caller,
    /// The session that was attached.
    pub session: Option<Arc<SessionKeys>>,
}

impl Grant {
    /// Whether there is nothing in it that could end.
    pub fn is_empty(&self) -> bool {
        self.caller.is_none() && self.session.is_none()
    }
}

/// Whose tunnel it is, and what it goes on for.
#[derive(Debug)]
pub struct Terms {
    /// What it is.
    pub kind: Kind,
    /// Its route, as it was when it was opened.
    pub route: Arc<Route>,
    /// Who has opened it.
    pub client: ClientAddr,
    /// What let him in.
    pub grant: Grant,
}

/// One tunnel.
#[derive(Debug)]
pub struct Entry {
    /// Its number, for operators.
    pub id: u64,
    /// When it was opened.
    pub since: Instant,
    terms: Terms,
    /// What ends it.
    pub control: Control,
    /// Questions in a row without an answer.
    unanswered: AtomicU64,
}

/// A tunnel among those that are open, until it is dropped.
#[derive(Debug)]
pub struct OpenTunnel {
    all: Arc<Tunnels>,
    entry: Arc<Entry>,
}

impl std::ops::Deref for OpenTunnel {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.all.lock().entries.remove(&self.entry.id);
    }
}

impl Tunnels {
    /// Counts one in.
    pub fn open(self: &Arc<Self>, terms: Terms) -> OpenTunnel {
        let entry = Arc::new(Entry {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            since: Instant::now(),
            terms,
            control: Control::default(),
            unanswered: AtomicU64::new(0),
        });
        let mut open = self.lock();
        if open.is_draining && entry.kind() != Kind::Call {
            entry.control.end(End::Drain);
        }
        open.entries.insert(entry.id, Arc::clone(&entry));
        drop(open);
        OpenTunnel { all: Arc::clone(self), entry }
    }

    /// All that are open, the oldest first.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.lock().entries.values().map(Arc::clone).collect()
    }

    /// How many are open on each route of a plan that has any at all.
    pub(super) fn by_route(&self, plan: &Plan) -> Vec<(String, usize)> {
        let routes = plan.routes.policies().filter(|route| route.written.tunnel.is_some());
        let mut counts: BTreeMap<String, usize> =
            routes.map(|route| (route.name.clone(), 0)).collect();
        for entry in self.all().iter().filter(|entry| entry.kind() == Kind::WebSocket) {
            *counts.entry(entry.route_name().to_owned()).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    /// Ends those whose route another plan does not have, or not for tunnels.
    pub(super) fn adopt(&self, plan: &Plan) {
        for entry in self.all().iter().filter(|entry| entry.kind() != Kind::Call) {
            let name = entry.route_name();
            let is_events = entry.kind() == Kind::Events;
            let is_left = |route: &Arc<Route>| {
                route.name == name && (is_events || route.written.tunnel.is_some())
            };
            if !plan.routes.policies().any(is_left) {
                entry.control.end(End::RouteGone);
            }
        }
    }

    /// Ends all, evenly spread over this time, and those that are opened from now on at once.
    pub async fn drain(&self, over: Duration) {
        self.lock().is_draining = true;
        let mut all = self.all();
        all.retain(|entry| entry.kind() != Kind::Call);
        let step = over / u32::try_from(all.len()).unwrap_or(u32::MAX).max(1);
        for entry in all {
            entry.control.end(End::Drain);
            tokio::time::sleep(step).await;
        }
    }

    /// Ends those that may not go on.
    pub(super) async fn look(&self, store: &Store, outage: OnOutage, look: Look) {
        for entry in self.all() {
            if let Err(end) = entry.judge(store, outage, look).await {
                entry.control.end(end);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a tunnel is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// There are revocations that this node was told of.
    Told,
    /// The store is asked.
    Ask,
}

impl Entry {
    /// What it is.
    pub fn kind(&self) -> Kind {
        self.terms.kind
    }

    /// The name of its route.
    pub fn route_name(&self) -> &str {
        &self.terms.route.name
    }

    /// Who has opened it.
    pub fn client(&self) -> ClientAddr {
        self.terms.client
    }

    /// The caller's subject.
    pub fn subject(&self) -> Option<&str> {
        self.terms.grant.caller.as_ref()?.subject.as_deref()
    }

    /// The caller, and those of his revocation keys that end the tunnel.
    fn revocable(&self) -> Option<(&Identity, RevocationKeys<'_>)> {
        let identity = self.terms.grant.caller.as_deref()?;
        let tunnel = self.terms.route.written.tunnel.as_ref();
        let end_on = tunnel.map(|tunnel| tunnel.end_on).unwrap_or_default();
        Some((identity, revocation_keys(identity, end_on)))
    }

    /// Whether it may go on.
    async fn judge(&self, store: &Store, outage: OnOutage, look: Look) -> Result<(), End> {
        let revocable = self.revocable();
        if look == Look::Told {
            let Some((identity, keys)) = revocable else { return Ok(()) };
            if let Some(status) = store.recall(keys, TOLD_AGE_MAX) {
                return auth::confirm(identity, status).map_err(|_| End::Revoked);
            }
        }
        let policy = self.terms.route.session.as_ref();
        let session = self.terms.grant.session.as_ref().zip(policy).map(|(keys, policy)| {
            SessionKey { key: &keys.session, ttl: false, bytes_max: policy.bytes_max(), end: None }
        });
        let revocation = revocable.map(|(_, keys)| keys);
        let questions = Questions { revocation, session, ..Questions::default() };
        if questions.is_empty() {
            return Ok(());
        }
        let answers = store.ask(&questions).await;
        if let (Some((identity, keys)), Some(reply)) = (revocable, answers.revocation) {
            let known = || store.recall(keys, outage.revocation_max_stale);
            match reply.ok().or_else(known) {
                Some(status) => {
                    self.unanswered.store(0, Ordering::Relaxed);
                    auth::confirm(identity, status).map_err(|_| End::Revoked)?;
                }
                None => {
                    let unanswered = self.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
                    if unanswered >= UNANSWERED_MAX && outage.revocation == Outage::Refuse {
                        return Err(End::Revoked);
                    }
                }
            }
        }
        match answers.session {
            Some(Ok(None)) => Err(End::Session),
            // A store that does not answer ends no session.
            Some(Err(_)) => Ok(()),
            found => {
                let key = self.terms.grant.session.as_ref().map_or("", |keys| &keys.session);
                let said = Said { reply: found, key, ..Said::default() };
                session::attach(policy, said, SystemTime::now).map_err(|_| End::Session)?;
                Ok(())
            }
        }
    }
}

/// Of an identity's revocation keys those that `end_on` names.
fn revocation_keys(identity: &Identity, end_on: EndOn) -> RevocationKeys<'_> {
    let all = identity.blacklist_keys.as_slice();
    let (own, sid) = all.split_at(identity.own_keys());
    let blacklist = match (end_on.jti, end_on.sid) {
        (true, true) => all,
        (true, false) => own,
        (false, true) => sid,
        (false, false) => &[],
    };
    RevocationKeys {
        blacklist,
        not_before: identity.not_before_key.as_deref().filter(|_| end_on.sub),
        record: identity.record_key().filter(|_| end_on.jti),
        proof: None,
    }
}
