//! The way of one request to a server: pick one, get a connection, exchange; and what follows from
//! how that ended.
//!
//! Every attempt ends in one place, where [`classify`] says what its end means. What a server may
//! have read is sent again as the [`RetryPolicy`] says, and counted in [`Tries`]. A hedge belongs
//! here, too.

use http::{Request, Response};
use tokio::time::Instant;

use super::capacity::Permit;
use super::conn::{self, Body, Carrier, Unanswered};
use super::connection_error::ConnectionError;
use super::download::Download;
use super::endpoint::Endpoint;
use super::endpoints::{Choice, Endpoints, Wanted};
use super::failure::{DownloadFault, Failure};
use super::outgoing::{OnInterim, Outgoing};
use super::retry_policy::RetryPolicy;
use super::visit::{Charge, Report, Visit};

/// How many stale pooled connections one request tries before it dials.
const STALE_MAX: usize = 4;
/// How often one request may be turned away before that is its end.
const TURNED_AWAY_MAX: usize = 4;

/// Why an attempt brought no response.
#[derive(Debug)]
enum NoAnswer {
    /// There was no connection.
    Unconnected(Failure),
    /// There was none in what earlier dials had left of the time for all of them.
    OutOfTime,
    /// There was a connection, and no response on it.
    Exchanged {
        /// Whether it had served others before, and may have been closed since.
        reused: bool,
        why: Unanswered,
    },
}

impl From<NoAnswer> for Failure {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Unconnected(failure) => failure,
            NoAnswer::OutOfTime => Self::ConnectTimeout,
            NoAnswer::Exchanged { why, .. } => match why {
                Unanswered::Unsent => Self::Broken(None),
                Unanswered::Withdrawn => Self::Withdrawn,
                Unanswered::TurnedAway(error) => Self::TurnedAway(error),
                Unanswered::Lost(error) => Self::lost(error),
                Unanswered::Reset(error) => Self::Broken(Some(error)),
                Unanswered::TooLarge => Self::HeadTooLarge,
                Unanswered::TimedOut | Unanswered::Starved => Self::Timeout,
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
    /// The request, which nobody has read or of which another answer is wanted, on a connection to
    /// another server.
    OtherServer,
    /// The request, which nobody has read, to another server or else to the same.
    Anywhere,
}

/// What the end of an attempt means. A request that a server may have acted on, and that has no
/// answer, goes to no other one; to the same one only if it `may_repeat`, and only where it
/// probably met a connection that was being closed (RFC 9112 §9.3.1). After which answers another
/// server is asked is the policy's.
fn classify<B>(
    end: &Result<Response<B>, NoAnswer>,
    policy: &RetryPolicy,
    may_repeat: bool,
) -> Class {
    let (report, next) = match end {
        Ok(response) if may_repeat && policy.retries(response.status()) => {
            (Report::Answered, Next::OtherServer)
        }
        Ok(_) => (Report::Answered, Next::Done),
        Err(NoAnswer::Unconnected(failure)) if failure.is_our_own() => {
            (Report::Nothing, Next::OtherServer)
        }
        // It may be about to restart, or have no room on that connection alone.
        Err(NoAnswer::Unconnected(Failure::TurnedAway(_))) => (Report::Lost, Next::Anywhere),
        Err(NoAnswer::Unconnected(_)) => (Report::Refused, Next::OtherServer),
        Err(NoAnswer::OutOfTime) => (Report::Nothing, Next::OtherServer),
        Err(NoAnswer::Exchanged { reused, why }) => match why {
            Unanswered::Unsent if *reused => (Report::Nothing, Next::SameServer),
            Unanswered::Unsent => (Report::Refused, Next::OtherServer),
            Unanswered::Lost(_) if *reused && may_repeat => (Report::Nothing, Next::Repeat),
            Unanswered::Lost(_) if *reused => (Report::Silent, Next::Done),
            Unanswered::Lost(Some(ConnectionError::Http1(error))) if error.is_parse_too_large() => {
                (Report::Unusable, Next::Done)
            }
            Unanswered::Lost(_) => (Report::Lost, Next::Done),
            // Whoever says so lives, and is about to restart or has too much to do.
            Unanswered::TurnedAway(_) => (Report::Answered, Next::Anywhere),
            Unanswered::TimedOut => (Report::Silent, Next::Done),
            // The server cannot answer before its client has said all.
            Unanswered::Starved => (Report::Nothing, Next::Done),
            Unanswered::Withdrawn => (Report::Nothing, Next::Done),
            // Whatever it was, it came from a server that lives.
            Unanswered::Malformed(_)
            | Unanswered::CutOff(_)
            | Unanswered::Reset(_)
            | Unanswered::TooLarge => (Report::Unusable, Next::Done),
        },
    };
    Class { report, next }
}

/// What a server answered. The body holds a connection of that server, which returns to its pool.
#[derive(Debug)]
struct Answered {
    response: Response<Body>,
    visit: Visit,
}

/// How an attempt ended.
type End = Result<Answered, NoAnswer>;

/// The end of an attempt at this server.
fn end_at(visit: Visit, end: Result<Response<Body>, NoAnswer>) -> End {
    end.map(|response| Answered { response, visit })
}

/// What one request has tried so far.
#[derive(Debug, Default)]
struct Tries {
    /// What the request is told by, where servers are chosen by that.
    key: Option<u64>,
    /// How many unused connections turned out to be closed.
    stale: usize,
    /// How often a server has said that it has not read the request.
    turned_away: usize,
    /// How often the request was sent again though a server may have read it.
    repeats: usize,
    /// The end of the attempt after which it was sent once more: a server may have read it, and
    /// acted on it. Where it brought no answer only a new connection will do, as pooled ones are as
    /// old as that one.
    read: Option<Box<End>>,
    /// The servers that took nothing of it, by their index.
    refused: Vec<usize>,
    /// When all dials together have taken too long.
    deadline: Option<Instant>,
    /// Whether one of them has used all the time up, and there was more for another.
    has_waited: bool,
}

impl Tries {
    /// Whether a pooled connection will do; not where one as old may have lost the request.
    fn may_reuse(&self) -> bool {
        let was_lost = matches!(self.read.as_deref(), Some(Err(_)));
        !was_lost && self.stale < STALE_MAX
    }

    /// The next server, where this one took nothing or has answered something that is a reason to
    /// ask another one: each is tried once. None where there is no other one, or no more time.
    fn next_server<B>(
        &mut self,
        endpoints: &Endpoints,
        at: usize,
        end: &Result<B, NoAnswer>,
    ) -> Option<Choice> {
        // Nor where one may have read it and did not say so.
        if matches!(self.read.as_deref(), Some(Err(_))) {
            return None;
        }
        self.refused.push(at);
        let has_waited = match end {
            Err(NoAnswer::Unconnected(failure)) => failure.has_waited_to_connect(),
            Err(NoAnswer::OutOfTime) => true,
            _ => false,
        };
        if has_waited {
            // One that does not even refuse has used the time up; there is as much for one more.
            if std::mem::replace(&mut self.has_waited, true) {
                return None;
            }
            self.deadline = None;
        }
        endpoints.next(&self.refused, self.key)
    }

    /// Another server for a request that this one has not read, or else the same. None where that
    /// has happened too often.
    fn elsewhere(&mut self, endpoints: &Endpoints, at: usize) -> Option<Choice> {
        self.turned_away += 1;
        if self.turned_away > TURNED_AWAY_MAX {
            return None;
        }
        // Where one may have read it before, it goes to no other one.
        if self.read.is_some() {
            return Some(Choice::again(at));
        }
        let other = endpoints.next(&[&*self.refused, &[at]].concat(), self.key);
        other.or(Some(Choice::again(at)))
    }

    /// Whether the request may be sent once more though a server may have read it. A budget is
    /// asked here.
    fn may_repeat(
        &self,
        policy: &RetryPolicy,
        outgoing: &Outgoing<'_, impl Fn() -> Request<()>, impl OnInterim>,
    ) -> bool {
        outgoing.is_repeatable() && self.repeats < policy.repeats_max()
    }

    /// The request is sent once more, after this end.
    fn repeat(
        &mut self,
        end: End,
        outgoing: &mut Outgoing<'_, impl Fn() -> Request<()>, impl OnInterim>,
    ) {
        outgoing.repeat();
        self.repeats += 1;
        self.read = Some(Box::new(end));
    }

    /// How the request ends: as its last attempt did, or as the one before, where a server may have
    /// read that one and none this.
    fn close(self, last: End) -> Result<Answered, Failure> {
        let failure = match last {
            Ok(answered) => return Ok(answered),
            Err(no_answer) => Failure::from(no_answer),
        };
        match self.read {
            Some(read) if !failure.may_have_acted() => read.map_err(Failure::from),
            _ => Err(failure),
        }
    }
}

/// Sends a request until there is a response, or a failure that is final. What it comes to is told
/// by `charge`, where somebody wants to know.
///
/// # Errors
/// The failure of the last attempt that a server may have read, or else of the last one.
pub(super) async fn send(
    endpoints: &Endpoints,
    (permit, mut charge): (Permit, Option<Box<Charge>>),
    outgoing: &mut Outgoing<'_, impl Fn() -> Request<()>, impl OnInterim>,
) -> Result<Response<Box<Download>>, Failure> {
    let key = outgoing.sender().key;
    let mut tries = Tries { key, ..Tries::default() };
    let mut choice = endpoints.first(key)?;
    let mut visit = endpoints.enter(choice, outgoing.sender()).ok_or(Failure::Busy)?;
    let policy = endpoints.retry_policy();
    let mut is_starved;
    let last = loop {
        // Each attempt begins and ends here, whatever it was: what is to be told of attempts (a
        // span, a count) is told here, to whom `outgoing.sender()` names.
        let end = attempt(endpoints, &visit, outgoing, &mut tries).await;
        let class = classify(&end, policy, tries.may_repeat(policy, outgoing));
        endpoints.note(&mut visit, class.report);
        is_starved = matches!(&end, Err(NoAnswer::Exchanged { why: Unanswered::Starved, .. }));
        if let Ok(response) = &end {
            visit.answered(response.status(), response.headers());
        }
        let next = match class.next {
            Next::Done => None,
            Next::SameServer => {
                tries.stale += 1;
                continue;
            }
            Next::Repeat => Some(Choice::again(choice.at)),
            Next::Anywhere => tries.elsewhere(endpoints, choice.at).filter(|_| outgoing.is_whole()),
            Next::OtherServer => tries.next_server(endpoints, choice.at, &end),
        };
        let enter = |choice| Some((choice, endpoints.enter(choice, outgoing.sender())?));
        let Some((next, entered)) = next.and_then(enter) else {
            break end_at(visit, end);
        };
        if class.next == Next::Repeat || end.is_ok() {
            tries.repeat(end_at(visit, end), outgoing);
        }
        (choice, visit) = (next, entered);
    };
    let Answered { response, mut visit } = tries.close(last).inspect_err(|failure| {
        // Where its client owed more of the body, nobody can say how the upstream is.
        if let Some(charge) = charge.as_mut().filter(|_| !is_starved) {
            charge.fail(failure);
        }
    })?;
    if let Some(charge) = charge {
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
