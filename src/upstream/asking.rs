//! One attempt at one server: a connection, and an exchange on it.

use http::Response;
use tokio::time::Instant;

use super::conn::{self, Body, Carrier};
use super::endpoint::Endpoint;
use super::endpoints::{Endpoints, Wanted};
use super::ends::NoAnswer;
use super::failure::Failure;
use super::nats;
use super::outgoing::{OnInterim, Sending};
use super::tries::Tries;
use super::visit::Visit;

/// One attempt at the server that is visited.
pub(super) async fn ask(
    endpoints: &Endpoints,
    visit: &Visit,
    mut sending: Sending<'_, impl OnInterim>,
    tries: &mut Tries,
) -> Result<Response<Body>, NoAnswer> {
    if let Some(link) = visit.link() {
        // Boxed, so that the future of a request over HTTP is no larger for it.
        return Box::pin(nats::ask(link, endpoints.settings(), visit, sending)).await;
    }
    let (wanted, unused) = if sending.upgrades {
        let may_reuse = tries.wanted() == Wanted::Any;
        let unused = may_reuse.then(|| endpoints.unused(visit, Wanted::Tunnel)).flatten();
        (Wanted::Tunnel, unused)
    } else {
        let wanted = tries.wanted();
        (wanted, endpoints.unused(visit, wanted))
    };
    let carrier = match unused {
        Some(carrier) => carrier,
        // Rare, and large: boxed, it takes no room in the future of every request.
        None => Box::pin(dial(endpoints, visit, tries, wanted)).await?,
    };
    // It bounds the dials until there is a connection; those after this one have their own.
    tries.deadline = None;
    let reused = carrier.is_reused();
    let timeout = endpoints.settings().response_timeout;
    let timeout = sending.sender.idle_timeout.unwrap_or(timeout);
    // Where nothing is recorded, there is no piece of the trace of each attempt.
    let piece = visit.span().map_or(sending.sender.trace, |span| span.trace);
    sending.stamp(piece);
    let Sending { request, on_interim, upgrades, .. } = sending;
    let exchanged = conn::exchange(carrier, request, on_interim, timeout, upgrades).await;
    exchanged.map_err(|why| NoAnswer::Exchanged { reused, why })
}

async fn dial(
    endpoints: &Endpoints,
    endpoint: &Endpoint,
    tries: &mut Tries,
    wanted: Wanted,
) -> Result<Carrier, NoAnswer> {
    let patience = endpoints.settings().connect_timeout;
    let has_all_its_time = tries.deadline.is_none();
    let deadline = *tries.deadline.get_or_insert_with(|| Instant::now() + patience);
    let dialled = endpoints.dial(endpoint, deadline, wanted).await;
    dialled.map_err(|failure| unconnected(failure, has_all_its_time))
}

/// Tells of the head of an answer, or that there is none.
pub(super) fn note_head(visit: &mut Visit, end: &Result<Response<Body>, NoAnswer>) {
    match end {
        Ok(response) => {
            let trailers = response.body().first_trailers();
            visit.answered(response.status(), response.headers(), trailers);
        }
        Err(end) => visit.unanswered(end),
    }
}

/// A server that had less than all of `connect_timeout` is not to blame for that.
pub(super) fn unconnected(failure: Failure, has_all_its_time: bool) -> NoAnswer {
    match failure {
        failure if failure.has_waited_to_connect() && !has_all_its_time => NoAnswer::OutOfTime,
        failure => NoAnswer::Unconnected(failure),
    }
}
