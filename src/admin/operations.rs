//! The operations under `/v1/`. Bodies are JSON objects; unknown members are refused, because a
//! misspelt one would do less than its sender thinks.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::connection::Connection;
use super::guard::Caller;
use super::live::{self, Reader};
use super::logins::Logins;
use super::reply::{Body, Effect, Fault, Reply, json as reply_json, not_allowed, parse, problem};
use super::routes::{self, Operation, QueueOperation};
use super::{
    api_keys, audit, cache, cache_entry, cache_top, cache_walk, canaries, certificates, config,
    doctor, events, families, limits, log, login, masked, overview, purge, queues, requests,
    revocation_list, revocations, series, sessions, status, store, tunnels, upstreams,
};
use crate::runtime::Gateway;
use crate::warm::{self, Refused};

/// A request that was let in.
pub(super) struct Asked<'a> {
    pub(super) gateway: &'a Arc<Gateway>,
    pub(super) logins: &'a Arc<Logins>,
    pub(super) connection: &'a Arc<Connection>,
    pub(super) caller: &'a Caller,
    pub(super) head: &'a Parts,
}

/// One operation.
pub(super) async fn carry_out(asked: &Asked<'_>, body: &Bytes) -> Reply {
    let (head, uri) = (asked.head, &asked.head.uri);
    let Some(found) = routes::find(uri.path()) else {
        let detail = format!("Known: {}.", routes::known());
        return problem(StatusCode::NOT_FOUND, "not_found", &detail);
    };
    let Some(route) = found.on(&head.method) else { return not_allowed(&found.allow()) };
    if head.method == Method::POST && uri.query().is_some() {
        let detail = format!("The body says what is to be done, not the query: {}", route.example);
        return Fault::Invalid(detail).reply();
    }
    let result = operate(asked, route.operation, found.name, body).await;
    let reply = result.unwrap_or_else(Fault::reply);
    if asked.caller.is_masked() { masked(route.operation, reply) } else { reply }
}

/// The answer without callers of the gateway, and without what sessions hold.
fn masked(operation: Operation, mut reply: Reply) -> Reply {
    let Body::Whole(bytes) = reply.body() else { return reply };
    // `/v1/me` tells of whoever asks, and a configuration of no caller.
    if matches!(operation, Operation::Me | Operation::ShowConfig | Operation::CompareConfig) {
        return reply;
    }
    let Ok(mut answer) = serde_json::from_slice::<Value>(bytes) else { return reply };
    if operation == Operation::ShowSession {
        masked::mask_session(&mut answer);
    }
    masked::mask(&mut answer);
    *reply.body_mut() = Body::new(format!("{answer}\n"));
    reply
}

async fn operate(
    asked: &Asked<'_>,
    operation: Operation,
    name: &str,
    body: &Bytes,
) -> Result<Reply, Fault> {
    let Asked { gateway, logins, connection, caller, head } = *asked;
    let uri = &head.uri;
    match operation {
        Operation::Status => Ok(status::show(gateway)),
        Operation::ListRevocations => revocation_list::list(gateway, uri).await,
        Operation::Revoke => revocations::revoke(gateway, body).await,
        Operation::TakeBack => revocations::take_back(gateway, uri.query(), body).await,
        Operation::ShowCache => cache::show(gateway, uri),
        Operation::ShowEntry => cache_entry::show(gateway, uri).await,
        Operation::TopUrls => cache_top::show(gateway, uri),
        Operation::Walk => cache_walk::walk(gateway, body).await,
        Operation::Purge => purge::carry_out(gateway, body).await,
        Operation::Warm => warm(gateway, body).await,
        Operation::ShowSession => sessions::show(gateway, uri, name).await,
        Operation::WriteSession => sessions::write(gateway, name, head, body).await,
        Operation::EndSession => sessions::end(gateway, uri, name).await,
        Operation::ListSessions => sessions::list(gateway, uri, name).await,
        Operation::EndSessions => sessions::log_out_everywhere(gateway, uri, name).await,
        Operation::ListKeys => api_keys::list(gateway, uri).await,
        Operation::CreateKey => api_keys::create(gateway, body).await,
        Operation::ShowKey => api_keys::show(gateway, uri, name).await,
        Operation::EndKey => api_keys::end(gateway, uri, name).await,
        Operation::ListFamilies => families::list(gateway, uri).await,
        Operation::BeginFamily => families::begin(gateway, body).await,
        Operation::EndFamily => families::end(gateway, uri, name).await,
        Operation::ShowLimit => limits::show(gateway, uri).await,
        Operation::ResetLimit => limits::reset(gateway, uri).await,
        Operation::ListPressed => limits::pressed(gateway, uri),
        Operation::ListRefused => Ok(limits::refused(gateway)),
        Operation::Explain => limits::explain(gateway, body).await,
        Operation::ListTunnels => tunnels::list(gateway, uri),
        Operation::CloseTunnels => tunnels::close(gateway, uri),
        Operation::ListUpstreams => Ok(upstreams::list(gateway)),
        Operation::EjectServer => upstreams::eject(gateway, body),
        Operation::RestoreServers => upstreams::restore(gateway, body),
        Operation::ListCanaries => Ok(canaries::list(gateway)),
        Operation::StopCanary => canaries::stop(gateway, body).await,
        Operation::ResetCanary => canaries::reset(gateway, body).await,
        Operation::ListEvents => Ok(events::list(gateway)),
        Operation::Queues(operation) => of_queues(gateway, operation, (uri, name), body).await,
        Operation::ListCertificates => Ok(certificates::list(gateway)),
        Operation::ShowStore => Ok(store::show(gateway).await),
        Operation::Doctor => doctor::carry_out(gateway, body).await,
        Operation::ShowConfig => config::show(gateway, uri).await,
        Operation::CompareConfig => config::compare(gateway).await,
        Operation::Reload => config::reload(gateway, body).await,
        Operation::LogIn => login::log_in(gateway, logins, connection.peer, body),
        Operation::LogOut => Ok(login::log_out(logins, caller)),
        Operation::MakeCode => login::code(logins, caller),
        Operation::Me => Ok(login::me(gateway, caller)),
        Operation::Series => series::show(gateway, uri),
        Operation::Overview => Ok(overview::show(gateway).await),
        Operation::ListRequests => requests::list(gateway, uri),
        Operation::ListOperations => audit::list(gateway, uri),
        Operation::SetLevel => log::set(gateway, body),
        Operation::Live => live::begin(reader(asked)),
    }
}

/// Who reads a stream of what happens.
fn reader(asked: &Asked<'_>) -> Reader {
    let Asked { gateway, logins, connection, caller, .. } = *asked;
    Reader {
        gateway: Arc::clone(gateway),
        logins: Arc::clone(logins),
        caller: caller.clone(),
        connection: Arc::clone(connection),
    }
}

/// The operations of queues and deliveries.
async fn of_queues(
    gateway: &Gateway,
    operation: QueueOperation,
    (uri, name): (&http::Uri, &str),
    body: &Bytes,
) -> Result<Reply, Fault> {
    match operation {
        QueueOperation::List => queues::list(gateway).await,
        QueueOperation::Show => queues::show(gateway, name).await,
        QueueOperation::Items => queues::items(gateway, uri, name).await,
        QueueOperation::Pause => queues::pause(gateway, name, body).await,
        QueueOperation::Resume => queues::resume(gateway, name, body).await,
        QueueOperation::RequeueDead => queues::requeue_dead(gateway, name, body).await,
        QueueOperation::DropDead => queues::drop_dead(gateway, name).await,
        QueueOperation::Delivery => queues::delivery(gateway, name).await,
        QueueOperation::Body => queues::body(gateway, name, body).await,
        QueueOperation::Requeue => queues::requeue(gateway, name, body).await,
        QueueOperation::Cancel => queues::cancel(gateway, name, body).await,
    }
}

/// The route whose responses are to be fetched ahead of need.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Warmed {
    route: String,
}

async fn warm(gateway: &Arc<Gateway>, body: &[u8]) -> Result<Reply, Fault> {
    let Warmed { route } = parse(body, "{\"route\": \"products\"}")?;
    let report = warm::route(gateway, &route).await.map_err(|refused| match refused {
        Refused::Store(error) => Fault::Store(error),
        Refused::NotConfigured => Fault::Invalid(format!(
            "No route is named {route:?} and says in cache.warm what to fetch."
        )),
        Refused::Busy => Fault::Problem {
            status: StatusCode::CONFLICT,
            code: "warming_busy",
            detail: format!("{refused}; it ends by itself."),
        },
        Refused::Sitemap(_) => Fault::Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "warming_failed",
            detail: format!("{refused}."),
        },
    })?;
    let did = Effect("responses", format!("{report:?}"));
    let mut reply = reply_json(StatusCode::OK, &json!({ "route": route, "responses": report }));
    reply.extensions_mut().insert(did);
    Ok(reply)
}
