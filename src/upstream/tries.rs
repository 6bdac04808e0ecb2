//! What one request has tried so far, and whom it tries next.

use http::{Request, Response, StatusCode};
use tokio::time::Instant;

use super::capacity::Permit;
use super::conn::Body;
use super::endpoints::{Choice, Endpoints, Wanted};
use super::ends::{Cause, NoAnswer};
use super::failure::Failure;
use super::outgoing::{OnInterim, Outgoing, Sender};
use super::retry::{self, Retry, Spent};
use super::visit::Visit;

/// How many stale pooled connections one request tries before it dials.
const STALE_MAX: usize = 4;
/// How often one request may be turned away before that is its end.
const TURNED_AWAY_MAX: usize = 4;
/// How often a request that got no answer on an old connection is sent on a new one.
const REPEATS_MAX: usize = 1;

/// What a server answered. The body holds a connection of that server, which returns to its pool.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) response: Response<Body>,
    pub(super) visit: Visit,
}

/// How an attempt ended.
pub(super) type End = Result<Answered, NoAnswer>;

/// Whether no server has seen anything of the request.
fn is_unseen(end: &NoAnswer) -> bool {
    end.cause() == Some(Cause::Connect)
}

/// Whether a server may have done what was asked for though this was the end there. One that is too
/// busy says that it has not; what else failed may have failed late.
pub(super) fn may_have_acted(end: Result<StatusCode, &NoAnswer>) -> bool {
    match end {
        Ok(StatusCode::SERVICE_UNAVAILABLE) => false,
        Ok(status) => status.is_server_error(),
        Err(no_answer) => no_answer.may_have_acted(),
    }
}

/// The end of an attempt at this server.
pub(super) fn end_at(visit: Visit, end: Result<Response<Body>, NoAnswer>) -> End {
    end.map(|response| Answered { response, visit })
}

/// The request is to be sent once more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Again {
    /// Not before then.
    pub(super) until: Option<Instant>,
    /// To this server; to [`Tries::anybody`] where that is not known yet.
    pub(super) choice: Option<Choice>,
}

impl Again {
    /// To this server, now.
    pub(super) fn at_once(choice: Choice) -> Self {
        Self { until: None, choice: Some(choice) }
    }
}

/// What one request has tried so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// What the request is told by, where servers are chosen by that.
    key: Option<u64>,
    /// How many unused connections turned out to be closed.
    stale: usize,
    /// How often a server has said that it has not read the request.
    turned_away: usize,
    /// How often the request was sent on a new connection after an old one has lost it.
    repeats: usize,
    /// The end of the attempt after which it was sent once more: a server may have read it, and
    /// acted on it. Where it brought no answer only a new connection will do, as pooled ones are as
    /// old as that one.
    read: Option<Box<End>>,
    /// Whether a server may have acted on it that has not given the request's answer.
    is_in_doubt: bool,
    /// The servers that were of no use, by their index.
    tried: Vec<usize>,
    /// When all dials until the next connection have taken too long together.
    pub(super) deadline: Option<Instant>,
    /// Whether one of them has used all the time up, and there was more for another.
    has_waited: bool,
    /// How often it was sent again as the upstream's `retry` says.
    retries: u32,
    /// The last of these, while it is in flight.
    spent: Option<Spent>,
    /// The place of an answer that is kept while the request is sent again.
    place: Option<Permit>,
}

impl Tries {
    /// Of a request with this key, before its first attempt.
    pub(super) fn new(key: Option<u64>) -> Self {
        Self { key, ..Self::default() }
    }

    /// What connection will do; no pooled one where one as old may have lost the request.
    pub(super) fn wanted(&self) -> Wanted {
        match self.read.as_deref() {
            _ if self.stale >= STALE_MAX => Wanted::New,
            Some(Err(_)) => Wanted::Repeat,
            _ => Wanted::Any,
        }
    }

    /// Whether nothing was tried yet.
    pub(super) fn is_first(&self) -> bool {
        self.read.is_none() && self.tried.is_empty() && self.stale == 0
    }

    /// A pooled connection turned out to be closed.
    pub(super) fn note_stale(&mut self) {
        self.stale += 1;
    }

    /// Whether the request may be sent once more on a new connection though an old one may have
    /// brought it to the server.
    pub(super) fn may_repeat(
        &self,
        endpoints: &Endpoints,
        outgoing: &Outgoing<'_, impl Fn() -> Request<()>, impl OnInterim>,
    ) -> bool {
        let is_left = |retry: &Retry| self.retries + 1 < retry.attempts();
        outgoing.is_repeatable()
            && self.repeats < REPEATS_MAX
            && endpoints.retry().is_none_or(is_left)
            && endpoints.takes_repeats()
    }

    /// The same server, for a request that an old connection has lost. It may have been read, so it
    /// is a repeat like others where these are counted.
    pub(super) fn once_more(
        &mut self,
        endpoints: &Endpoints,
        sender: &Sender,
        at: usize,
    ) -> Option<Choice> {
        if let Some(retry) = endpoints.retry() {
            self.settle(false);
            self.spent = Some(retry.spend(endpoints.busy())?);
            self.retries += 1;
            sender.note_retry("reset");
        }
        self.repeats += 1;
        Some(Choice::again(at))
    }

    /// A second server was asked while the first one was. Of the one at this index nothing more is
    /// wanted; `may_have_acted`: for all that is known, it has done what was asked for.
    pub(super) fn note_hedge(&mut self, lost_at: usize, may_have_acted: bool) {
        self.retries += 1;
        self.tried.push(lost_at);
        self.is_in_doubt |= may_have_acted;
    }

    /// The next server, where this one took nothing: each is tried once. None where there is no
    /// other one, or no more time.
    pub(super) fn next_server<B>(
        &mut self,
        endpoints: &Endpoints,
        at: usize,
        end: &Result<B, NoAnswer>,
    ) -> Option<Choice> {
        // Nor where one may have read it and did not say so.
        if matches!(self.read.as_deref(), Some(Err(_))) {
            return None;
        }
        self.tried.push(at);
        if self.has_time_to_connect(end) { endpoints.next(&self.tried, self.key) } else { None }
    }

    /// Whether there is time for another connection. One that does not even refuse has used the
    /// time up; there is as much for one more.
    fn has_time_to_connect<B>(&mut self, end: &Result<B, NoAnswer>) -> bool {
        if !matches!(end, Err(no_answer) if no_answer.has_waited_to_connect()) {
            return true;
        }
        self.deadline = None;
        !std::mem::replace(&mut self.has_waited, true)
    }

    /// Another server for a request that this one has not read, or else the same. None where that
    /// has happened too often.
    pub(super) fn elsewhere(&mut self, endpoints: &Endpoints, at: usize) -> Option<Choice> {
        self.turned_away += 1;
        if self.turned_away > TURNED_AWAY_MAX {
            return None;
        }
        // Where one may have read it before, it goes to no other one.
        if self.read.is_some() {
            return Some(Choice::again(at));
        }
        let other = endpoints.next(&[&*self.tried, &[at]].concat(), self.key);
        other.or(Some(Choice::again(at)))
    }

    /// Whether the upstream's `retry` has the request sent once more after this end. Nothing where
    /// this end is the request's.
    ///
    /// What nobody has read may go anywhere. Anything else only where it is repeatable: whoever may
    /// have acted on it, may have to do so twice.
    pub(super) fn again<B>(
        &mut self,
        (endpoints, retry, permit): (&Endpoints, &Retry, &Permit),
        outgoing: &Outgoing<'_, impl Fn() -> Request<()>, impl OnInterim>,
        at: usize,
        end: &Result<Response<B>, NoAnswer>,
    ) -> Option<Again> {
        let Some(reason) = retry.reason(end.as_ref().map(Response::status)) else {
            self.settle(matches!(end, Ok(response) if !response.status().is_server_error()));
            return None;
        };
        self.tried.push(at);
        let has_time = self.has_time_to_connect(end);
        // Nobody has read it, and somebody else may: there is nothing to wait for.
        let is_whole = outgoing.is_whole();
        let choice =
            if is_whole && has_time { endpoints.next(&self.tried, self.key) } else { None };
        // Nor to count, where there was no connection: no server has seen anything of it.
        if let (Some(choice), true) = (choice, end.as_ref().is_err_and(is_unseen)) {
            // Of many servers that are down, not each request may dial all.
            if self.tried.len() >= retry.attempts() as usize {
                self.settle(false);
                self.spent = Some(retry.spend(endpoints.busy())?);
            }
            outgoing.sender().note_retry(reason);
            return Some(Again::at_once(choice));
        }
        self.settle(false);
        let is_safe = is_whole || outgoing.is_repeatable();
        if !is_safe || self.retries + 1 >= retry.attempts() || !endpoints.takes_repeats() {
            return None;
        }
        let sender = outgoing.sender();
        let until = if choice.is_none() {
            let Some(until) = self.until(retry, sender, end).filter(|_| has_time) else {
                retry.note_no_time();
                return None;
            };
            // What is waited now is no time of a dial.
            self.deadline = None;
            Some(until)
        } else {
            None
        };
        if end.is_ok() && !self.keeps_place(permit, sender) {
            retry.note_over_budget();
            return None;
        }
        self.spent = Some(retry.spend(endpoints.busy())?);
        self.retries += 1;
        sender.note_retry(reason);
        Some(Again { until, choice })
    }

    /// Until when the next repeat waits; nothing where that is too long.
    fn until<B>(
        &self,
        retry: &Retry,
        sender: &Sender,
        end: &Result<Response<B>, NoAnswer>,
    ) -> Option<Instant> {
        let fields = end.as_ref().ok().map(Response::headers);
        let until = Instant::now() + retry.wait(self.retries + 1, fields)?;
        sender.deadline.as_ref().is_none_or(|limit| until < limit.at()).then_some(until)
    }

    /// Whether there is a place for an answer that is kept until there is another one, with its
    /// connection.
    fn keeps_place(&mut self, permit: &Permit, sender: &Sender) -> bool {
        if self.place.is_none() {
            self.place = permit.another(sender.client);
        }
        self.place.is_some()
    }

    /// Whom a repeat asks that has waited: a server that was not tried before one that was.
    pub(super) fn anybody(&self, endpoints: &Endpoints) -> Option<Choice> {
        endpoints.next(&self.tried, self.key).or_else(|| endpoints.next(&[], self.key))
    }

    /// A repeat has ended, if this attempt was one.
    fn settle(&mut self, is_good: bool) {
        if let Some(spent) = self.spent.take() {
            spent.ends(if is_good { retry::Outcome::Good } else { retry::Outcome::Failed });
        }
    }

    /// The request is sent once more though a server may have read it, after this end.
    pub(super) fn repeat(
        &mut self,
        end: End,
        outgoing: &mut Outgoing<'_, impl Fn() -> Request<()>, impl OnInterim>,
    ) {
        outgoing.repeat();
        let answered = end.as_ref().map(|answered| answered.response.status());
        self.is_in_doubt |= may_have_acted(answered);
        self.read = Some(Box::new(end));
    }

    /// Whether a server may have acted on it that has not given the request's answer.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.is_in_doubt
    }

    /// How the request ends: as its last attempt did, or as the one before, where a server may have
    /// read that one and none this.
    pub(super) fn close(self, last: End) -> Result<Answered, Failure> {
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
