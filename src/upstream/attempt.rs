//! The way of one request to a server: pick one, get a connection, exchange; and what follows from
//! how that ended.
//!
//! Every attempt ends in one place, where [`classify`] says what its end means. What follows is the
//! upstream's `retry` where it has one ([`Tries::again`]). Otherwise only what nobody has read is
//! sent elsewhere, and what an old connection may have lost once more.

use http::{Request, Response};

use super::asking;
use super::capacity::Permit;
use super::conn::Unanswered;
use super::download::Download;
use super::endpoints::{Choice, Endpoints};
use super::ends::{self, Meaning, NoAnswer, Report};
use super::failure::Failure;
use super::hedge;
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
        let hedging = endpoints.retry().filter(|retry| {
            retry.latency().is_some() && tries.is_first() && outgoing.may_be_doubled()
        });
        let end = match hedging {
            None => asking::ask(endpoints, &visit, outgoing.sending(), &mut tries).await,
            // Boxed, so that the future of every request has no room for two.
            Some(retry) => {
                let (whom, outgoing) = ((choice, visit), (&mut *outgoing, &mut tries));
                let hedged = Box::pin(hedge::ask((endpoints, retry), whom, outgoing)).await;
                (choice, visit) = hedged.whom;
                hedged.end
            }
        };
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

#[cfg(test)]
mod tests;
