//! The way of one request through the gateway: admitted, served, delivered. Read `answer` from top
//! to bottom; `admit` is shared with `explain`, which asks what would happen.

use std::sync::Arc;

use http::Response;
use http::request::Parts;

use super::body::{Body, Content};
use super::caching::{self, Errand, Fetch, Found, Wish};
use super::checks::{Admitted, Checks, Mode, refused, settle};
use super::connection::Connection;
use super::deliver::{self, Answer};
use super::dispatch::{self, Dispatch, Fields, Outbound};
use super::record::Record;
use super::rejection::Rejection;
use super::request::Request;
use super::transaction::Transaction;
use crate::base::body::Inbound;
use crate::base::facts::Caller;
use crate::limit::Outcome;
use crate::runtime::Held;

/// Answers one request. There is always a response: whatever goes wrong becomes one.
pub async fn handle(
    connection: &Arc<Connection>,
    request: http::Request<impl Into<Inbound>>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut transaction = Transaction::open(connection, &head);
    let response = answer(&mut transaction, head, body.into()).await;
    Body::attach(response, transaction)
}

async fn answer(transaction: &mut Transaction, head: Parts, body: Inbound) -> Response<Content> {
    let Transaction { received, resolved, caller, cache, record, slot } = transaction;
    let has_body = !http_body::Body::is_end_stream(&body);
    let request = match Request::resolve(received, resolved, &head, has_body) {
        Ok(Some(request)) => request,
        Ok(None) => return deliver::server_options(received),
        Err(rejection) => return deliver::refusal(&rejection, received, resolved, None, record),
    };

    // Admit: who calls, and may the request pass? One question to the store, whatever the route
    // asks for.
    let mut checks = Checks::new(request, &head, Mode::Charge);
    let admitted = admit(&mut checks, caller, record, slot).await;

    // Serve: what is stored answers it, or its upstream does.
    let (admitted, found) = match admitted {
        Ok(admitted) => (admitted, checks.look(cache).await),
        Err(rejection) => (Admitted::default(), Err(rejection)),
    };
    let (request, store_is_away) = (checks.request, checks.store_is_away());
    let Admitted { receipt, quota, added } = admitted;
    let outcome = match found {
        Err(rejection) => Err(rejection),
        Ok(Found::Answer(response)) => Ok(Answer::stored(response)),
        Ok(Found::Refresh(response, errand)) => {
            refresh(&request, head, added, errand);
            Ok(Answer::stored(response))
        }
        Ok(Found::Nothing(Some(errand))) => {
            dispatch::note_upgrade(&request, &head);
            let fetch = fetch(&request, Dispatch::new(&request), head, added, errand);
            let fields = Arc::clone(&fetch.fields);
            let wish = Wish { method: &request.received.method, fields: &fields };
            let (gateway, took) = (request.gateway(), record.upstream_time());
            // Large: boxed, it takes no room in the request of a route without a cache.
            let fetched = Box::pin(caching::fetch(gateway, fetch, wish, cache, took)).await;
            fetched.map(Answer::fetched)
        }
        Ok(Found::Nothing(None)) => {
            let outbound = Outbound::new(&request, head, body, added);
            let sent = dispatch::forward(&request, outbound, store_is_away, record).await;
            sent.map(Answer::fetched)
        }
    };

    // Deliver: the response, or why there is none.
    settle(&request, receipt, &ended(&outcome));
    match outcome {
        Ok(answer) => deliver::answer(&request, answer, cache, &quota),
        Err(rejection) => {
            let Request { received, resolved, route, .. } = request;
            deliver::refusal(&rejection, received, resolved, Some(route), record)
        }
    }
}

/// Says who calls, asks the store what all rooms want to know, and judges the answers.
///
/// # Errors
/// The request may not pass.
pub(super) async fn admit<'a>(
    checks: &mut Checks<'a, '_>,
    caller: &'a mut Caller,
    record: &mut Record,
    slot: &mut Option<Held>,
) -> Result<Admitted<'a>, Rejection> {
    checks.flood()?;
    // A bad token is refused only after its address was charged: guessing must cost something. Only
    // a token whose key is new here waits, for one fetch from its issuer, and an API key whose
    // record is, for the store.
    let Request { route, asked, .. } = checks.request;
    let (gateway, running) = (checks.request.gateway(), checks.request.running());
    let (identified, away) = gateway.identify(running, route, asked, checks.fields()).await;
    let denied = match identified {
        Ok(identified) => {
            *caller = identified;
            None
        }
        Err(denied) => {
            record.note_denied(&denied);
            Some(denied)
        }
    };
    checks.note_caller(caller, denied.is_none());
    checks.collect()?;
    checks.ask(away, record).await;
    checks.judge(denied, slot, record)
}

/// What is fetched for everybody who may share it.
fn fetch(
    request: &Request<'_>,
    dispatch: Dispatch,
    head: Parts,
    added: Fields,
    errand: Box<Errand>,
) -> Fetch {
    let Request { route, caller, .. } = *request;
    // The cache wants the client's own fields: what Vary selects from.
    let fields = Arc::new(head.headers.clone());
    Fetch {
        gateway: Arc::clone(request.gateway()),
        dispatch,
        authenticated: caller.is_some(),
        ends_identity: route.auth.is_some() || route.session.is_some(),
        per_user: errand.is_per_user(caller),
        request: dispatch::outbound_head(request, head, added),
        fields,
        errand,
    }
}

/// Fetches a stored response anew, behind the client's back, unless somebody does already.
fn refresh(request: &Request<'_>, head: Parts, added: Fields, errand: Box<Errand>) {
    if let Some(lead) = errand.refresh(request.gateway()) {
        let dispatch = Dispatch::in_background(request);
        tokio::spawn(fetch(request, dispatch, head, added, errand).refresh(lead));
    }
}

/// How a request ended, as far as limits look at that.
fn ended(outcome: &Result<Answer, Rejection>) -> Outcome<'_> {
    match outcome {
        Ok(Answer { response, is_stored }) => Outcome {
            status: response.status(),
            headers: Some(response.headers()),
            failed: response.status().is_server_error(),
            cached: *is_stored,
        },
        Err(rejection) => refused(rejection),
    }
}
