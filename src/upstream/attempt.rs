//! The way of one request to a server: pick one, get a connection, exchange; and what follows from
//! how that ended.
//!
//! Every attempt ends in one place, where [`classify`] says what its end means. A retry of what a
//! server answered, a budget for retries, and a hedge belong here: a state in [`Tries`], a rule in
//! `classify`.

use http::Response;
use tokio::time::Instant;

use super::capacity::Permit;
use super::conn::{self, Body, Connection, Unanswered};
use super::download::Download;
use super::endpoint::Endpoint;
use super::endpoints::Endpoints;
use super::failure::{DownloadFault, Failure};
use super::health::Report;
use super::outgoing::{OnInterim, Outgoing};

/// How many stale pooled connections one request tries before it dials.
const STALE_MAX: usize = 4;

/// Why an attempt brought no response.
#[derive(Debug)]
enum NoAnswer {
    /// There was no connection.
    Unconnected(Failure),
    /// On a connection that had served others before, and may have been closed since.
    OnUsed(Unanswered),
    /// On a connection that was made for this request.
    OnNew(Unanswered),
}

impl From<NoAnswer> for Failure {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Unconnected(failure) => failure,
            NoAnswer::OnUsed(why) | NoAnswer::OnNew(why) => match why {
                Unanswered::Unsent => Self::Broken(None),
                Unanswered::Lost(error) => Self::lost(error),
                Unanswered::TimedOut => Self::Timeout,
                Unanswered::Malformed(what) => Self::Malformed(what),
                Unanswered::CutOff(error) => Self::CutOff(DownloadFault::Broken(error)),
            },
        }
    }
}

/// What the end of an attempt means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    /// What it says of the server.
    report: Report,
    next: Next,
}

/// What follows an attempt.
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
}

/// What the end of an attempt means. A request that a server may have acted on goes to no other
/// one; to the same one only if `is_repeatable`, and only where it probably met a connection that
/// was being closed (RFC 9112 §9.3.1).
fn classify<T>(end: &Result<T, NoAnswer>, is_repeatable: bool) -> Class {
    let (report, next) = match end {
        Ok(_) => (Report::Answered, Next::Done),
        Err(NoAnswer::Unconnected(failure)) if failure.is_our_own() => {
            (Report::Nothing, Next::OtherServer)
        }
        Err(NoAnswer::Unconnected(_) | NoAnswer::OnNew(Unanswered::Unsent)) => {
            (Report::Refused, Next::OtherServer)
        }
        Err(NoAnswer::OnUsed(Unanswered::Unsent)) => (Report::Nothing, Next::SameServer),
        Err(NoAnswer::OnUsed(Unanswered::Lost(_))) if is_repeatable => {
            (Report::Nothing, Next::Repeat)
        }
        Err(NoAnswer::OnUsed(Unanswered::Lost(_))) => (Report::Nothing, Next::Done),
        Err(NoAnswer::OnNew(Unanswered::Lost(error))) => {
            let is_too_large = error.as_ref().is_some_and(hyper::Error::is_parse_too_large);
            let report = if is_too_large { Report::Nothing } else { Report::Lost };
            (report, Next::Done)
        }
        Err(NoAnswer::OnUsed(why) | NoAnswer::OnNew(why)) => match why {
            // A slow answer may be the fault of what was asked.
            Unanswered::TimedOut => (Report::Nothing, Next::Done),
            // Whatever it was, it came from a server that lives.
            _ => (Report::Answered, Next::Done),
        },
    };
    Class { report, next }
}

/// What one request has tried so far.
#[derive(Debug, Default)]
struct Tries {
    /// How many unused connections turned out to be closed.
    stale: usize,
    /// Whether only a new connection will do: the pooled ones are as old as one that failed.
    wants_new: bool,
    /// The servers that took nothing of it, by their index.
    refused: Vec<usize>,
    /// When all dials together have taken too long.
    deadline: Option<Instant>,
    /// Whether one of them has used all the time up, and there was more for another.
    has_waited: bool,
}

impl Tries {
    fn may_reuse(&self) -> bool {
        !self.wants_new && self.stale < STALE_MAX
    }

    /// The next server, where this one took nothing: each is tried once. None where there is no
    /// other one, or no more time.
    fn next_server(
        &mut self,
        endpoints: &Endpoints,
        at: usize,
        failure: &Failure,
    ) -> Option<usize> {
        self.refused.push(at);
        if matches!(failure, Failure::ConnectTimeout) {
            // One that does not even refuse has used the time up; there is as much for one more.
            if std::mem::replace(&mut self.has_waited, true) {
                return None;
            }
            self.deadline = None;
        }
        endpoints.pick(&self.refused)
    }
}

/// Sends a request until there is a response, or a failure that is final.
///
/// # Errors
/// The failure of the last attempt.
pub(super) async fn send(
    endpoints: &Endpoints,
    permit: Permit,
    outgoing: &mut Outgoing<impl OnInterim>,
) -> Result<Response<Download>, Failure> {
    let mut tries = Tries::default();
    let mut at = endpoints.pick(&tries.refused).unwrap_or_default();
    let mut endpoint = endpoints.enter(at).ok_or(Failure::Busy)?;
    loop {
        let end = attempt(endpoints, &endpoint, outgoing, &mut tries).await;
        let class = classify(&end, outgoing.is_repeatable());
        endpoint.health().note(class.report);
        match (class.next, end) {
            (_, Ok(response)) => {
                let read_timeout = endpoints.settings().read_timeout;
                let held = |body| Download::new(body, permit, endpoint, read_timeout);
                return Ok(response.map(held));
            }
            (Next::Done, Err(no_answer)) => return Err(no_answer.into()),
            (Next::SameServer, Err(_)) => tries.stale += 1,
            (Next::Repeat, Err(_)) => {
                outgoing.repeat();
                tries.wants_new = true;
            }
            (Next::OtherServer, Err(no_answer)) => {
                let failure = Failure::from(no_answer);
                let next = tries.next_server(endpoints, at, &failure);
                let Some(next) = next else { return Err(failure) };
                let Some(entered) = endpoints.enter(next) else { return Err(failure) };
                (at, endpoint) = (next, entered);
            }
        }
    }
}

/// One attempt at one server.
async fn attempt(
    endpoints: &Endpoints,
    endpoint: &Endpoint,
    outgoing: &mut Outgoing<impl OnInterim>,
    tries: &mut Tries,
) -> Result<Response<Body>, NoAnswer> {
    let unused = if tries.may_reuse() { endpoints.unused(endpoint) } else { None };
    let connection = match unused {
        Some(connection) => connection,
        // Rare, and large: boxed, it takes no room in the future of every request.
        None => Box::pin(dial(endpoints, endpoint, tries)).await.map_err(NoAnswer::Unconnected)?,
    };
    let of = if connection.is_reused() { NoAnswer::OnUsed } else { NoAnswer::OnNew };
    let timeout = endpoints.settings().response_timeout;
    let upgrades = outgoing.upgrades();
    conn::exchange(connection, outgoing.request(), timeout, upgrades).await.map_err(of)
}

async fn dial(
    endpoints: &Endpoints,
    endpoint: &Endpoint,
    tries: &mut Tries,
) -> Result<Box<Connection>, Failure> {
    let patience = endpoints.settings().connect_timeout;
    let deadline = *tries.deadline.get_or_insert_with(|| Instant::now() + patience);
    endpoints.dial(endpoint, deadline).await
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    fn no(no_answer: NoAnswer) -> Result<(), NoAnswer> {
        Err(no_answer)
    }

    fn refused(kind: ErrorKind) -> Result<(), NoAnswer> {
        no(NoAnswer::Unconnected(Failure::Connect(Error::from(kind))))
    }

    #[test]
    fn every_end_means_something() {
        use NoAnswer::{OnNew, OnUsed, Unconnected};
        use Unanswered::{Lost, Malformed, TimedOut, Unsent};
        for (end, report, next, if_repeatable) in [
            (Ok(()), Report::Answered, Next::Done, Next::Done),
            (
                refused(ErrorKind::ConnectionRefused),
                Report::Refused,
                Next::OtherServer,
                Next::OtherServer,
            ),
            // This process has no more ports: no server is to blame.
            (
                refused(ErrorKind::AddrNotAvailable),
                Report::Nothing,
                Next::OtherServer,
                Next::OtherServer,
            ),
            (
                no(Unconnected(Failure::ConnectTimeout)),
                Report::Refused,
                Next::OtherServer,
                Next::OtherServer,
            ),
            (no(OnNew(Unsent)), Report::Refused, Next::OtherServer, Next::OtherServer),
            (no(OnUsed(Unsent)), Report::Nothing, Next::SameServer, Next::SameServer),
            (no(OnNew(Lost(None))), Report::Lost, Next::Done, Next::Done),
            (no(OnUsed(Lost(None))), Report::Nothing, Next::Done, Next::Repeat),
            (no(OnNew(TimedOut)), Report::Nothing, Next::Done, Next::Done),
            (no(OnUsed(TimedOut)), Report::Nothing, Next::Done, Next::Done),
            (no(OnNew(Malformed(""))), Report::Answered, Next::Done, Next::Done),
            (no(OnUsed(Malformed(""))), Report::Answered, Next::Done, Next::Done),
        ] {
            assert_eq!(classify(&end, false), Class { report, next }, "{end:?}");
            let class = Class { report, next: if_repeatable };
            assert_eq!(classify(&end, true), class, "{end:?}, repeatable");
        }
    }
}
