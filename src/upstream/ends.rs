//! Whose fault it is how an attempt ended, and what may follow: the one table of it.
//!
//! An attempt ends without an answer ([`meaning`]) or with one ([`judge`]). Each end says something
//! of its server, whether the upstream as a whole has failed its client, and for which reason the
//! request may be sent once more. Whether it may at all is another question: see `Outgoing`.

use http::{HeaderMap, StatusCode};

use super::conn::Unanswered;
use super::connection_error::ConnectionError;
use super::failure::{DownloadFault, Failure};
use super::tally::{Kind, Outcome};
use crate::base::grpc;
use crate::observe::Attempted;

/// DEADLINE_EXCEEDED of gRPC.
const CALL_IS_LATE: u16 = 4;

/// Why an attempt brought no response.
#[derive(Debug)]
pub(super) enum NoAnswer {
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
                Unanswered::TimedOut => Self::Timeout,
                Unanswered::Starved => Self::Starved,
                Unanswered::Failed(what) => Self::Failed(what),
                Unanswered::Malformed(what) => Self::Malformed(what),
                Unanswered::CutOff(error) => Self::CutOff(DownloadFault::Broken(error)),
            },
        }
    }
}

/// What there was instead of an answer, as far as that may be a reason to send a request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// No connection, or none that took anything.
    Connect,
    /// The server said that it has not looked at the request.
    Refused,
    /// The exchange ended.
    Reset,
    /// Time passed.
    Timeout,
}

impl NoAnswer {
    /// What there was instead; nothing where another attempt would end alike.
    pub(super) fn cause(&self) -> Option<Cause> {
        meaning(self).cause
    }

    /// Whether a server may have acted on the request.
    pub(super) fn may_have_acted(&self) -> bool {
        match self {
            Self::Unconnected(_) | Self::OutOfTime => false,
            Self::Exchanged { why, .. } => {
                !matches!(why, Unanswered::Unsent | Unanswered::TurnedAway(_))
            }
        }
    }

    /// Whether a server has taken up all the time that there was for a connection.
    pub(super) fn has_waited_to_connect(&self) -> bool {
        match self {
            Self::Unconnected(failure) => failure.has_waited_to_connect(),
            Self::OutOfTime => true,
            Self::Exchanged { .. } => false,
        }
    }
}

/// What an attempt says of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// It lives, whatever it answered.
    Answered,
    /// It lives, and its answer cannot be passed on.
    Unusable,
    /// It took no connection, or nothing on one.
    Refused,
    /// A new connection ended without an answer. One may be the fault of what was asked.
    Lost,
    /// There was no answer, which may be the fault of what was asked.
    Silent,
    /// Nothing: somebody else may be the cause.
    Nothing,
}

impl Report {
    /// How the request failed there; nothing where it is not said to have.
    pub(super) fn kind(self) -> Option<Kind> {
        match self {
            Self::Answered | Self::Nothing => None,
            Self::Unusable => Some(Kind::Unusable),
            Self::Refused => Some(Kind::Refused),
            Self::Lost => Some(Kind::Lost),
            Self::Silent => Some(Kind::Silent),
        }
    }
}

/// What an end without an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning {
    /// What it says of its server.
    pub(super) report: Report,
    /// What there was instead of an answer; nothing where another attempt would end alike.
    pub(super) cause: Option<Cause>,
}

/// What an end without an answer means.
pub(super) fn meaning(end: &NoAnswer) -> Meaning {
    const CONNECT: Option<Cause> = Some(Cause::Connect);
    const REFUSED: Option<Cause> = Some(Cause::Refused);
    const RESET: Option<Cause> = Some(Cause::Reset);
    let (report, cause) = match end {
        NoAnswer::Unconnected(failure) if failure.is_our_own() => (Report::Nothing, CONNECT),
        NoAnswer::Unconnected(failure) if failure.is_clients() => (Report::Nothing, None),
        // It may be about to restart, or have no room on that connection alone.
        NoAnswer::Unconnected(Failure::TurnedAway(_)) => (Report::Lost, REFUSED),
        // Nobody listens to one subject: that says nothing of the server, or of other subjects.
        NoAnswer::Unconnected(Failure::NoResponders) => (Report::Nothing, CONNECT),
        NoAnswer::Unconnected(_) => (Report::Refused, CONNECT),
        // The servers before it have taken the time.
        NoAnswer::OutOfTime => (Report::Nothing, CONNECT),
        NoAnswer::Exchanged { reused, why } => match why {
            Unanswered::Unsent if *reused => (Report::Nothing, CONNECT),
            Unanswered::Unsent => (Report::Refused, CONNECT),
            // Whoever says so lives, and is about to restart or has too much to do.
            Unanswered::TurnedAway(_) => (Report::Answered, REFUSED),
            Unanswered::Lost(error) if is_too_large(error.as_ref()) => (Report::Unusable, None),
            // It may have been about to be closed.
            Unanswered::Lost(_) if *reused => (Report::Silent, RESET),
            Unanswered::Lost(_) => (Report::Lost, RESET),
            Unanswered::TimedOut => (Report::Silent, Some(Cause::Timeout)),
            // The client owes more of its body, or has broken it off.
            Unanswered::Starved | Unanswered::Withdrawn => (Report::Nothing, None),
            // Whatever it was, it came from a server that lives.
            Unanswered::CutOff(_) | Unanswered::Reset(_) => (Report::Unusable, RESET),
            Unanswered::Malformed(_) | Unanswered::TooLarge | Unanswered::Failed(_) => {
                (Report::Unusable, None)
            }
        },
    };
    Meaning { report, cause }
}

fn is_too_large(error: Option<&ConnectionError>) -> bool {
    matches!(error, Some(ConnectionError::Http1(error)) if error.is_parse_too_large())
}

/// What an answer of this status and these fields says of its server; nothing where that is told by
/// its trailers. `is_clients_time`: see [`judge_call`].
pub(super) fn judge(
    status: StatusCode,
    fields: &HeaderMap,
    is_clients_time: bool,
) -> Option<Outcome> {
    if let Some(status) = grpc::status(fields) {
        return Some(judge_call(status, is_clients_time));
    }
    match judge_status(status) {
        Outcome::Good if grpc::is_grpc(fields) => None,
        outcome => Some(outcome),
    }
}

/// What an answer of this status says of its server, if it is none to a call.
pub(super) fn judge_status(status: StatusCode) -> Outcome {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Outcome::Throttled,
        status if status.is_server_error() => Outcome::Failed(Kind::Status),
        _ => Outcome::Good,
    }
}

/// The word of metrics for what an attempt came to; nothing where nobody can say.
pub(super) fn attempted(outcome: Outcome) -> Option<Attempted> {
    match outcome {
        Outcome::Good | Outcome::Throttled => Some(Attempted::Ok),
        Outcome::Failed(Kind::Refused) => Some(Attempted::Connect),
        Outcome::Failed(Kind::Silent) => Some(Attempted::Timeout),
        Outcome::Failed(Kind::Lost | Kind::Unusable) => Some(Attempted::Reset),
        Outcome::Failed(Kind::Status | Kind::Grpc) => Some(Attempted::Status5xx),
        Outcome::Failed(Kind::CutOff) => Some(Attempted::CutOff),
        Outcome::Nothing => None,
    }
}

/// Whether a server has failed that answers with this status and these fields, as far as its head
/// tells that; nothing where it says nothing of the server. `is_clients_time`: see [`judge_call`].
pub fn has_failed(status: StatusCode, fields: &HeaderMap, is_clients_time: bool) -> Option<bool> {
    match judge(status, fields, is_clients_time) {
        Some(Outcome::Failed(_)) => Some(true),
        Some(Outcome::Nothing) => None,
        Some(Outcome::Good | Outcome::Throttled) | None => Some(false),
    }
}

/// UNKNOWN, DEADLINE_EXCEEDED, INTERNAL and UNAVAILABLE are a server's failures. `is_clients_time`:
/// the client itself has said how long the call may take, and may have asked for what no server can
/// do.
pub(super) fn judge_call(status: u16, is_clients_time: bool) -> Outcome {
    match status {
        CALL_IS_LATE if is_clients_time => Outcome::Nothing,
        2 | CALL_IS_LATE | 13 | 14 => Outcome::Failed(Kind::Grpc),
        _ => Outcome::Good,
    }
}

#[cfg(test)]
mod tests;
