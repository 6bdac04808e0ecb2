//! What would happen to a request, without it happening: the rooms of `answer` in the same order,
//! with a store that is only asked to look.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use http::request::Parts;
use http::{HeaderMap, Method, Request, Uri};
use serde_json::{Map, Value, json};

use super::asked::{recalled, standing};
use super::rejection::Rejection;
use crate::base::facts::{Caller, ClientAddr, Peer};
use crate::config::{LimitOutage, Outage};
use crate::guard::{self, Inspected};
use crate::limit::{self, Exceeded, Facts, Forecast};
use crate::plan::{Plan, Route};
use crate::runtime::{Gateway, Running};
use crate::session::{self, NoSession};
use crate::store::{Answers, Charges, Leases, Questions, Reply, SessionKey};
use crate::{auth, store};

/// A request as an operator describes it.
#[derive(Debug)]
pub struct Described {
    /// Its method.
    pub method: Method,
    /// Its target: a path with its query.
    pub target: Uri,
    /// Its fields, `Host` among them.
    pub headers: HeaderMap,
    /// The client's address.
    pub address: IpAddr,
}

/// Tells which route takes a request, who calls, what its limits have left, and how it would end.
pub async fn explain(gateway: &Gateway, described: Described) -> Value {
    let mut report = Map::new();
    let ending = match walk(gateway, described, &mut report).await {
        Ok(upstream) => json!({ "passes": true, "upstream": upstream }),
        Err(rejection) => json!({
            "passes": false,
            "status": rejection.status().as_u16(),
            "code": rejection.code(),
            "reason": rejection.to_string(),
        }),
    };
    report.insert("outcome".to_owned(), ending);
    Value::Object(report)
}

/// The way to the upstream, whose name it returns.
async fn walk(
    gateway: &Gateway,
    described: Described,
    report: &mut Map<String, Value>,
) -> Result<String, Rejection> {
    let running = gateway.running();
    let plan = &running.plan;
    let address = ClientAddr::new(described.address);
    let head = head_of(described);
    let local = plan.config.server.listen.first().copied();
    let peer = Peer::new(address, local.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 80))));
    let target = match guard::inspect(&plan.guard, peer.local, &head)? {
        Inspected::Route(target) => target,
        Inspected::ServerOptions => return Ok("-".to_owned()),
    };
    let route = plan.routes.find(target.authority.host(), target.path(), &head.method)?;
    report.insert("route".to_owned(), json!(route.name));
    report.insert("path".to_owned(), json!(target.path()));
    if route.limits.blocks(address) {
        return Err(Exceeded::Blocked.into());
    }
    let (identified, _) = gateway.identify(&running, route, &target, &head.headers).await;
    let caller = identified.as_ref().ok().cloned().flatten();
    report.insert("caller".to_owned(), describe_caller(route, &caller));
    let session_id = match &route.session {
        Some(policy) if identified.is_ok() => session::id(policy, &caller, &head.headers),
        _ => None,
    };
    let counted = counted(gateway, plan, route, session_id.as_deref()).await;
    let facts = Facts {
        address,
        caller: &caller,
        method: &head.method,
        headers: &head.headers,
        session: counted,
        route: &route.name,
    };
    let charges = limit::question(&route.limits, &plan.keys, &facts, identified.is_ok());
    let places = match identified {
        Ok(_) => limit::wanted(&route.limits, &gateway.limits, &plan.keys, &facts),
        Err(_) => None,
    };
    let session_keys = session_id.as_deref().map(|id| session_keys(plan, route, id));
    let session_key = session_keys.as_ref().map(|(key, bytes_max, end)| SessionKey {
        key,
        ttl: false,
        bytes_max: *bytes_max,
        end: end.as_deref(),
    });
    let asked = (charges.as_ref(), places.as_ref());
    let mut answers = look(gateway, &caller, asked, session_key).await;
    let limits = charges.as_ref().zip(answers.charges.take());
    let limits = limits.map(|(asked, reply)| reply.map(|reply| asked.forecast(&reply)));
    let mut shown = describe_limits(&running, &limits);
    let here = (&facts, identified.is_ok(), places.as_ref());
    let (has_room, has_place_here) = describe_local(gateway, &running, route, here, &mut shown);
    let leased = places.as_ref().zip(answers.leases.take());
    let has_place = describe_in_flight(&running, leased, &mut shown);
    report.insert("limits".to_owned(), Value::Array(shown));
    has_room?;
    if let Err(denied) = identified {
        admit(&running, limits)?;
        return Err(denied.into());
    }
    confirm(gateway, &running, &caller, answers.revocation.take())?;
    admit(&running, limits)?;
    has_place?;
    has_place_here?;
    let found = (answers.session.take(), answers.session_end.take());
    let session = session::attach(route.session.as_ref(), found, SystemTime::now());
    report.insert("session".to_owned(), describe_session(session_key.is_some(), &session));
    session?;
    Ok(plan.upstreams[route.upstream].0.clone())
}

/// The session by which limits count: one that the store has, or had while it does not answer.
async fn counted<'a>(
    gateway: &Gateway,
    plan: &Plan,
    route: &Route,
    id: Option<&'a str>,
) -> Option<&'a str> {
    let id = id.filter(|_| route.limits.uses_session())?;
    let (key, bytes_max, _) = session_keys(plan, route, id);
    let session = Some(SessionKey { key: &key, ttl: false, bytes_max, end: None });
    let answers = gateway.store.ask(&Questions { session, ..Questions::default() }).await;
    let is_there = match answers.session {
        Some(Ok(found)) => found.is_some(),
        Some(Err(_)) | None => gateway.limits.sessions.knows(id),
    };
    is_there.then_some(id)
}

/// A session's key, the longest value that is of use, and the key of its end where that matters.
fn session_keys(plan: &Plan, route: &Route, id: &str) -> (String, u64, Option<String>) {
    let policy = route.session.as_ref();
    let asks_end = policy.is_some_and(session::Policy::asks_end);
    let bytes_max = policy.map_or(0, session::Policy::bytes_max);
    (plan.keys.session(id), bytes_max, asks_end.then(|| plan.keys.session_end(id)))
}

fn head_of(described: Described) -> Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = described.method;
    head.uri = described.target;
    head.headers = described.headers;
    head
}

/// The request's questions, none of which changes anything.
async fn look(
    gateway: &Gateway,
    caller: &Caller,
    (charges, places): (Option<&limit::Asked<'_>>, Option<&limit::Wanted<'_>>),
    session: Option<SessionKey<'_>>,
) -> Answers {
    let peek = charges.map(limit::Asked::peek);
    let crowds = places.map(limit::Wanted::peek).unwrap_or_default();
    let leases = places.and_then(limit::Wanted::leases);
    let identity = caller.as_deref().filter(|identity| identity.is_revocable());
    let questions = Questions {
        revocation: identity.map(standing),
        charges: peek.as_ref().zip(charges).map(|(set, asked)| {
            let keys = asked.charges().keys;
            Charges { set, keys }
        }),
        leases: leases.map(|leases| Leases { crowds: &crowds, ..leases }),
        session,
        ..Questions::default()
    };
    if questions.is_empty() { Answers::default() } else { gateway.store.ask(&questions).await }
}

fn confirm(
    gateway: &Gateway,
    running: &Running,
    caller: &Caller,
    reply: Option<Reply<store::RevocationStatus>>,
) -> Result<(), Rejection> {
    let on_outage = running.plan.on_outage;
    let reply = match (caller, reply) {
        (Some(identity), Some(reply)) => {
            Some(recalled(gateway, identity, reply, on_outage.revocation_max_stale))
        }
        (_, reply) => reply,
    };
    match (caller, reply) {
        (Some(identity), Some(Ok(standing))) => Ok(auth::confirm(identity, standing)?),
        (_, Some(Err(error))) if on_outage.revocation == Outage::Refuse => {
            Err(Rejection::RevocationUnknown(error))
        }
        _ => Ok(()),
    }
}

/// What the limits would say.
fn admit(running: &Running, forecasts: Option<Reply<Vec<Forecast<'_>>>>) -> Result<(), Rejection> {
    match forecasts {
        Some(Ok(forecasts)) => {
            let refusing = forecasts.into_iter().filter(|it| it.refuses);
            match refusing.max_by_key(|it| it.retry_after) {
                Some(worst) => Err(worst.exceeded().into()),
                None => Ok(()),
            }
        }
        Some(Err(error)) if running.plan.on_outage.limits == LimitOutage::Refuse => {
            Err(Exceeded::Unknown(error).into())
        }
        Some(Err(_)) | None => Ok(()),
    }
}

fn describe_caller(route: &Route, caller: &Caller) -> Value {
    match (&route.auth, caller) {
        (None, _) => json!("the route is public"),
        (Some(_), None) => json!(null),
        (Some(_), Some(identity)) => json!({
            "subject": identity.subject,
            "issued_at": identity.issued_at,
            "expires_at": Some(identity.expires_at).filter(|at| *at != i64::MAX),
            "verifier": &*identity.verifier,
        }),
    }
}

fn describe_limits(running: &Running, forecasts: &Option<Reply<Vec<Forecast<'_>>>>) -> Vec<Value> {
    match forecasts {
        None => Vec::new(),
        Some(Ok(forecasts)) => forecasts.iter().map(Forecast::to_json).collect(),
        Some(Err(error)) => vec![json!({
            "unknown": error.to_string(),
            "on_outage": format!("{:?}", running.plan.on_outage.limits).to_lowercase(),
        })],
    }
}

/// Adds the limits that this gateway counts for itself, and says whether the request finds room in
/// their windows, and a place among the requests in flight.
fn describe_local(
    gateway: &Gateway,
    running: &Running,
    route: &Route,
    (facts, identified, places): (&Facts<'_>, bool, Option<&limit::Wanted<'_>>),
    shown: &mut Vec<Value>,
) -> (Result<(), Exceeded>, Result<(), Exceeded>) {
    let (state, keys) = (&gateway.limits, &running.plan.keys);
    let (windows, has_room) = limit::forecast_local(&route.limits, state, keys, facts, identified);
    shown.extend(windows);
    let in_flight = places.map(|places| places.forecast_local(state));
    let (in_flight, has_place) = in_flight.unwrap_or_else(|| (Vec::new(), Ok(())));
    shown.extend(in_flight);
    (has_room, has_place)
}

/// Adds the limits on requests in flight, and says whether the request finds its places.
fn describe_in_flight(
    running: &Running,
    leased: Option<(&limit::Wanted<'_>, Reply<store::LeaseReply>)>,
    shown: &mut Vec<Value>,
) -> Result<(), Exceeded> {
    match leased {
        Some((places, Ok(reply))) => {
            let (in_flight, verdict) = places.forecast(&reply);
            shown.extend(in_flight);
            verdict
        }
        Some((_, Err(error))) if running.plan.on_outage.limits == LimitOutage::Refuse => {
            Err(Exceeded::Unknown(error))
        }
        Some((_, Err(_))) | None => Ok(()),
    }
}

fn describe_session(named: bool, session: &Result<session::Attached, NoSession>) -> Value {
    match session {
        _ if !named => json!(null),
        Ok(attached) => json!({
            "headers": attached.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        }),
        Err(error) => json!({ "unusable": error.to_string() }),
    }
}
