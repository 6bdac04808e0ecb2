//! The way of one request to a server: pick one, get a connection, exchange; and what follows from
//! how that ended.
//!
//! Every attempt ends in one place, where [`classify`] says what its end means. What follows is the
//! upstream's `retry` where it has one ([`Tries::again`]). Otherwise only what nobody has read is
//! sent elsewhere, and what an old connection may have lost once more.

use http::{Request, Response};
use tokio::time::Instant;

use super::capacity::Permit;
use super::conn::{self, Body, Carrier, Unanswered};
use super::download::Download;
use super::endpoint::Endpoint;
use super::endpoints::{Choice, Endpoints, Wanted};
use super::ends::{self, Meaning, NoAnswer, Report};
use super::failure::Failure;
use super::outgoing::{OnInterim, Outgoing};
use super::tries::{Answered, Tries, end_at};
use super::visit::Charge;

/// What the end of an attempt means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    /// What it says of the server.
    report: Report,
    next: Next,
    /// Whether the upstream has failed, where this is the request's end.
    is_upstreams: bool,
}

/// What follows an attempt, where the upstream's `retry` says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing: this end is the request's.
    Done,
    /// The request, which nobody has read, on another connection to the same server.
    SameServer,
    /// The request once more, which the server may have read, on a new connection to it.
    Repeat,
    /// The request, which nobody has read, on a connection to another server.
    OtherServer,
    /// The request, which nobody has read, to another server or else to the same.
    Anywhere,
}

/// What the end of an attempt means. A request that a server may have acted on, and that has no
/// answer, goes to no other one; to the same one only if it `may_repeat`, and only where it
/// probably met a connection that was being closed (RFC 9112 §9.3.1).
fn classify<B>(end: &Result<Response<B>, NoAnswer>, may_repeat: bool) -> Class {
    let end = match end {
        Ok(_) => return Class { report: Report::Answered, next: Next::Done, is_upstreams: false },
        Err(end) => end,
    };
    let Meaning { report, is_upstreams, .. } = ends::meaning(end);
    let next = match end {
        NoAnswer::Unconnected(Failure::TurnedAway(_)) => Next::Anywhere,
        NoAnswer::Unconnected(_) | NoAnswer::OutOfTime => Next::OtherServer,
        NoAnswer::Exchanged { reused, why } => match why {
            Unanswered::Unsent if *reused => Next::SameServer,
            Unanswered::Unsent => Next::OtherServer,
            Unanswered::Lost(_) if *reused && may_repeat => {
                return Class { report: Report::Nothing, next: Next::Repeat, is_upstreams };
            }
            Unanswered::TurnedAway(_) => Next::Anywhere,
            _ => Next::Done,
        },
    };
    Class { report, next, is_upstreams }
}

/// Sends a request until there is a response, or a failure that is final. What it comes to is told
/// by `charge`, where somebody wants to know.
///
/// # Errors
/// The failure of the last attempt that a server may have read, or else of the last one.
pub(super) async fn send(
    endpoints: &Endpoints,
    (permit, mut charge): (Permit, Option<Box<Charge<'_>>>),
    outgoing: &mut Outgoing<'_, impl Fn() -> Request<()>, impl OnInterim>,
) -> Result<Response<Box<Download>>, Failure> {
    let mut tries = Tries::default();
    let mut choice = endpoints.first()?;
    let mut visit = endpoints.enter(choice, outgoing.sender()).ok_or(Failure::Busy)?;
    if let Some(longer) = outgoing.patience() {
        visit.may_take(longer);
    }
    let mut is_upstreams;
    let last = loop {
        // Each attempt begins and ends here, whatever it was: what is to be told of attempts (a
        // span, a count) is told here, to whom `outgoing.sender()` names.
        outgoing.sender().note_attempt(|| visit.transport().url());
        let end = attempt(endpoints, &visit, outgoing, &mut tries).await;
        let class = classify(&end, tries.may_repeat(outgoing));
        endpoints.note(&mut visit, class.report);
        is_upstreams = class.is_upstreams;
        if let Ok(response) = &end {
            let trailers = response.body().first_trailers();
            visit.answered(response.status(), response.headers(), trailers);
        }
        let at = choice.at;
        let next = match class.next {
            Next::SameServer => {
                tries.note_stale();
                continue;
            }
            Next::Repeat => Some(tries.once_more(at)),
            next => match endpoints.retry() {
                None if next == Next::OtherServer => tries.next_server(endpoints, at, &end),
                None if next == Next::Anywhere && outgoing.is_whole() => {
                    tries.elsewhere(endpoints, at)
                }
                None => None,
                Some(retry) => match tries.again((endpoints, retry), outgoing, at, &end) {
                    None => None,
                    Some(again) => {
                        if let Some(until) = again.until {
                            // Boxed, so that the future of every request has no room for it.
                            Box::pin(tokio::time::sleep_until(until)).await;
                        }
                        again.choice.or_else(|| tries.anybody(endpoints))
                    }
                },
            },
        };
        let mut enter = |mut choice: Choice| {
            // Whoever tries a server goes on trying it.
            if choice.at == at {
                choice.token = visit.take_token();
            }
            Some((choice, endpoints.enter(choice, outgoing.sender())?))
        };
        let Some((next, entered)) = next.and_then(&mut enter) else {
            break end_at(visit, end);
        };
        if !outgoing.is_whole() {
            tries.repeat(end_at(visit, end), outgoing);
        }
        (choice, visit) = (next, entered);
    };
    let Answered { response, mut visit } = tries.close(last).inspect_err(|_| {
        if let Some(charge) = &mut charge {
            charge.fail(is_upstreams);
        }
    })?;
    if let Some(charge) = &mut charge {
        visit.charge(charge);
    }
    let read_timeout = endpoints.settings().read_timeout;
    let read_timeout = outgoing.sender().idle_timeout.unwrap_or(read_timeout);
    Ok(response.map(|body| Download::new(body, permit, visit, read_timeout)))
}

/// One attempt at one server.
async fn attempt(
    endpoints: &Endpoints,
    endpoint: &Endpoint,
    outgoing: &mut Outgoing<'_, impl Fn() -> Request<()>, impl OnInterim>,
    tries: &mut Tries,
) -> Result<Response<Body>, NoAnswer> {
    let upgrades = outgoing.upgrades();
    let wanted = if upgrades {
        Wanted::Tunnel
    } else if tries.may_reuse() {
        Wanted::Any
    } else {
        Wanted::New
    };
    let unused = if tries.may_reuse() { endpoints.unused(endpoint, wanted) } else { None };
    let carrier = match unused {
        Some(carrier) => carrier,
        // Rare, and large: boxed, it takes no room in the future of every request.
        None => Box::pin(dial(endpoints, endpoint, tries, wanted)).await?,
    };
    let reused = carrier.is_reused();
    let timeout = endpoints.settings().response_timeout;
    let timeout = outgoing.sender().idle_timeout.unwrap_or(timeout);
    // All attempts are one piece of the trace: there is no span of each.
    outgoing.stamp(outgoing.sender().trace);
    let (request, on_interim) = outgoing.parts();
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

/// A server that had less than all of `connect_timeout` is not to blame for that.
fn unconnected(failure: Failure, has_all_its_time: bool) -> NoAnswer {
    match failure {
        failure if failure.has_waited_to_connect() && !has_all_its_time => NoAnswer::OutOfTime,
        failure => NoAnswer::Unconnected(failure),
    }
}

#[cfg(test)]
mod tests;
