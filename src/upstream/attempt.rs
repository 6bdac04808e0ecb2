//! The way of one request to a server: pick one, get a connection, exchange; and what follows from
//! how that ended.
//!
//! Every attempt ends in one place, where [`classify`] says what its end means. What follows is the
//! upstream's `retry` where it has one ([`Tries::again`]). Otherwise only what nobody has read is
//! sent elsewhere, and what an old connection may have lost once more.

use std::time::Duration;

use http::{Request, Response};

use super::asking;
use super::capacity::Permit;
use super::conn::Unanswered;
use super::download::Download;
use super::endpoints::{Choice, Endpoints};
use super::ends::{self, Meaning, NoAnswer, Report};
use super::failure::Failure;
use super::hedge;
use super::outgoing::{OnInterim, Outgoing, Sender};
use super::retry::Retry;
use super::tries::{Again, Answered, Tries, end_at};
use super::visit::{Charge, Visit};

/// What the end of an attempt means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    /// What it says of the server.
    report: Report,
    next: Next,
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
        Ok(_) => return Class { report: Report::Answered, next: Next::Done },
        Err(end) => end,
    };
    let Meaning { report, .. } = ends::meaning(end);
    let next = match end {
        NoAnswer::Unconnected(Failure::TurnedAway(_)) => Next::Anywhere,
        NoAnswer::Unconnected(_) | NoAnswer::OutOfTime => Next::OtherServer,
        NoAnswer::Exchanged { reused, why } => match why {
            Unanswered::Unsent if *reused => Next::SameServer,
            Unanswered::Unsent => Next::OtherServer,
            Unanswered::Lost(_) if *reused && may_repeat => {
                return Class { report: Report::Nothing, next: Next::Repeat };
            }
            Unanswered::TurnedAway(_) => Next::Anywhere,
            _ => Next::Done,
        },
    };
    Class { report, next }
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
    let mut tries = Tries::new(outgoing.sender().key);
    let mut choice = endpoints.first(outgoing.sender().key)?;
    let mut visit = endpoints.enter(choice, outgoing.sender()).ok_or(Failure::Busy)?;
    if let Some(longer) = outgoing.patience() {
        visit.may_take(longer);
    }
    let last = loop {
        // Each attempt begins and ends here, whatever it was: what is to be told of attempts (a
        // span, a count) is told here, to whom `outgoing.sender()` names.
        outgoing.sender().note_attempt(|| visit.transport().url());
        if let Some(asked) = outgoing.asks() {
            visit.is_traced(outgoing.sender(), asked);
        }
        let hedging = hedging(endpoints, &tries, outgoing, &visit);
        let end = match hedging {
            None => asking::ask(endpoints, &visit, outgoing.sending(), &mut tries).await,
            // Boxed, so that the future of every request has no room for two.
            Some(retry) => {
                let (whom, outgoing) = ((choice, visit), (&mut *outgoing, &mut tries));
                let hedged = Box::pin(hedge::ask((endpoints, retry, &permit), whom, outgoing));
                let hedged = hedged.await;
                (choice, visit) = hedged.whom;
                hedged.end
            }
        };
        let class = classify(&end, end.is_err() && tries.may_repeat(endpoints, outgoing));
        endpoints.note(&mut visit, class.report);
        asking::note_head(&mut visit, &end);
        if class.next == Next::SameServer {
            tries.note_stale();
            continue;
        }
        let (sender, at) = (outgoing.sender(), (choice.at, class.next));
        let again = following((endpoints, &permit), &mut tries, outgoing, at, &end);
        if again.is_none() && class.next == Next::Repeat {
            endpoints.note(&mut visit, Report::Silent);
        }
        let next = match again {
            None => None,
            // Boxed, so that the future of every request has no room for it.
            Some(again) => {
                Box::pin(go_on(endpoints, sender, &tries, (choice.at, &mut visit), again)).await
            }
        };
        let Some((next, entered)) = next else {
            break end_at(visit, end);
        };
        if !outgoing.is_whole() {
            tries.repeat(end_at(visit, end), outgoing);
        }
        (choice, visit) = (next, entered);
    };
    let is_in_doubt = tries.is_in_doubt();
    let answered = tries.close(last).inspect_err(|failure| {
        if let Some(charge) = &mut charge {
            charge.fail(failure.is_upstreams());
        }
    })?;
    let rest = outgoing.sender().idle_timeout.unwrap_or(endpoints.settings().read_timeout);
    Ok(download(answered, permit, charge, rest, is_in_doubt))
}

/// The answer as it is passed on; `is_in_doubt`: see [`Download::is_in_doubt`].
fn download(
    Answered { response, mut visit }: Answered,
    permit: Permit,
    charge: Option<Box<Charge<'_>>>,
    rest: Duration,
    is_in_doubt: bool,
) -> Response<Box<Download>> {
    if let Some(mut charge) = charge {
        visit.charge(&mut charge);
    }
    response.map(|body| {
        let mut download = Download::new(body, permit, visit, rest);
        if is_in_doubt {
            download.set_in_doubt();
        }
        download
    })
}

/// Waits as long as the request is to, and counts it in at the server that it goes to then.
async fn go_on(
    endpoints: &Endpoints,
    sender: &Sender,
    tries: &Tries,
    (at, visit): (usize, &mut Visit),
    again: Again,
) -> Option<(Choice, Visit)> {
    if let Some(until) = again.until {
        visit.is_over();
        tokio::time::sleep_until(until).await;
    }
    let next = again.choice.or_else(|| tries.anybody(endpoints))?;
    enter(endpoints, sender, (at, visit), next)
}

/// Counts the request in at the server that it goes to next, after this visit to the one `at`.
fn enter(
    endpoints: &Endpoints,
    sender: &Sender,
    (at, visit): (usize, &mut Visit),
    mut next: Choice,
) -> Option<(Choice, Visit)> {
    // Whoever tries a server goes on trying it.
    if next.at == at {
        next.token = visit.take_token();
    }
    let mut entered = endpoints.enter(next, sender)?;
    entered.shares_its_time();
    Some((next, entered))
}

/// What has two servers asked at a time, where that may be. Not where this one is ejected: what
/// tries it must be its own.
fn hedging<'e>(
    endpoints: &'e Endpoints,
    tries: &Tries,
    outgoing: &Outgoing<'_, impl Fn() -> Request<()>, impl OnInterim>,
    visit: &Visit,
) -> Option<&'e Retry> {
    let retry = endpoints.retry()?;
    let may_be = tries.is_first() && outgoing.may_be_doubled() && !visit.is_probe();
    (may_be && retry.percentile().is_some()).then_some(retry)
}

/// What follows this end at this server; nothing where it is the request's.
fn following<B>(
    (endpoints, permit): (&Endpoints, &Permit),
    tries: &mut Tries,
    outgoing: &Outgoing<'_, impl Fn() -> Request<()>, impl OnInterim>,
    (at, next): (usize, Next),
    end: &Result<Response<B>, NoAnswer>,
) -> Option<Again> {
    let choice = match (next, endpoints.retry()) {
        // Where a reset is a reason, another server comes first.
        (Next::Repeat, retry) if !retry.is_some_and(Retry::repeats_resets) => {
            tries.once_more(endpoints, outgoing.sender(), at)
        }
        (_, Some(retry)) => return tries.again((endpoints, retry, permit), outgoing, at, end),
        (Next::OtherServer, None) => tries.next_server(endpoints, at, end),
        (Next::Anywhere, None) if outgoing.is_whole() => tries.elsewhere(endpoints, at),
        _ => None,
    };
    choice.map(Again::at_once)
}

#[cfg(test)]
mod tests;
