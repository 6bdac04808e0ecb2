//! A second server is asked while the first one is waited for longer than most answers take ("The
//! Tail at Scale", Dean and Barroso, CACM 56, 2013). Whoever answers first has answered.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio::time::{Instant, timeout};

use super::asking;
use super::capacity::Permit;
use super::conn::{Body, Unanswered};
use super::endpoints::{Choice, Endpoints};
use super::ends::{self, NoAnswer, Report};
use super::outgoing::{OnInterim, Outgoing, Sender, Sending};
use super::retry::{Outcome, Retry, Spent};
use super::tries::{self, Tries};
use super::visit::Visit;

type End = Result<Response<Body>, NoAnswer>;

/// How one or two attempts have ended.
pub(super) struct Hedged {
    /// Whose end it is.
    pub(super) whom: (Choice, Visit),
    pub(super) end: End,
}

/// One of two attempts.
struct Runner {
    whom: (Choice, Visit),
    began: Instant,
    /// None where the other one was faster, and this one was cancelled.
    end: Option<End>,
    /// Whether its server may have read the request.
    was_read: bool,
}

/// What the second attempt takes: a place, a part of the budget, and its server.
struct Second {
    whom: (Choice, Visit),
    spent: Spent,
    _place: Permit,
}

/// What the upstream takes.
type Ground<'a> = (&'a Endpoints, &'a Retry, &'a Permit);

/// Asks this server, and after some time another one, too.
pub(super) async fn ask<H: Fn() -> Request<()>>(
    (endpoints, retry, permit): Ground<'_>,
    (choice, visit): (Choice, Visit),
    (outgoing, tries): (&mut Outgoing<'_, H, impl OnInterim>, &mut Tries),
) -> Hedged {
    let (sender, began) = (outgoing.sender(), Instant::now());
    let ran = run((endpoints, retry, permit), (choice, &visit), (outgoing, tries));
    let (end, second) = ran.await;
    let first = Runner { whom: (choice, visit), began, end, was_read: !outgoing.is_whole() };
    let Some((second, spent)) = second else { return finish(retry, first) };
    let (winner, mut loser) = decide(retry, (first, second), spent);
    sender.note_server(|| winner.whom.1.transport().url());
    let may_have_acted = settle(endpoints, retry, &mut loser);
    tries.note_hedge(loser.whom.0.at, may_have_acted);
    if winner.was_read || loser.was_read {
        outgoing.was_read();
    }
    finish(retry, winner)
}

/// How the first attempt has ended, and the second one, where there was one: both, or the one that
/// has won.
async fn run<H: Fn() -> Request<()>>(
    (endpoints, retry, permit): Ground<'_>,
    (choice, visit): (Choice, &Visit),
    (outgoing, tries): (&mut Outgoing<'_, H, impl OnInterim>, &mut Tries),
) -> (Option<End>, Option<(Runner, Spent)>) {
    let sender = outgoing.sender();
    let Some((sending, again)) = outgoing.doubled() else {
        return (Some(asking::ask(endpoints, visit, outgoing.sending(), tries).await), None);
    };
    let on_interim = sending.on_interim;
    let mut first = pin!(asking::ask(endpoints, visit, sending, tries));
    let early = match retry.hedges_after() {
        Some(time) => timeout(time, first.as_mut()).await.ok(),
        None => Some(first.as_mut().await),
    };
    if early.is_some() {
        return (early, None);
    }
    let Some(mut second) = second((endpoints, retry, permit), choice, sender) else {
        return (Some(first.await), None);
    };
    if let Some(span) = visit.span() {
        second.whom.1.is_traced(sender, span.asked.again());
    }
    let Second { whom, spent, _place } = second;
    let (mut request, began) = (Some(again()), Instant::now());
    let sending = Sending { request: &mut request, on_interim, upgrades: false, sender };
    let (end, other) = race((endpoints, retry), first, &whom.1, sending).await;
    let was_read = request.is_none();
    (end, Some((Runner { whom, began, end: other, was_read }, spent)))
}

/// Another server to ask, where there is one, and room and budget for that.
fn second(
    (endpoints, retry, permit): Ground<'_>,
    first: Choice,
    sender: &Sender,
) -> Option<Second> {
    if !endpoints.takes_repeats() {
        return None;
    }
    // One that is slow is no reason to ask a server in reserve.
    let other = endpoints.next(&[first.at], sender.key)?;
    if endpoints.is_backup(other.at) && !endpoints.is_backup(first.at) {
        return None;
    }
    let place = permit.another(sender.client)?;
    let spent = retry.spend(endpoints.busy())?;
    let mut visit = endpoints.enter(other, sender)?;
    visit.shares_its_time();
    sender.note_attempt(|| visit.transport().url());
    sender.note_retry("hedge");
    Some(Second { whom: (other, visit), spent, _place: place })
}

/// Asks the second server, and waits for the first answer that is no reason to ask again, or for
/// both ends.
async fn race(
    (endpoints, retry): (&Endpoints, &Retry),
    mut first: Pin<&mut impl Future<Output = End>>,
    visit: &Visit,
    sending: Sending<'_, impl OnInterim>,
) -> (Option<End>, Option<End>) {
    let mut tries = Tries::default();
    let mut second = pin!(asking::ask(endpoints, visit, sending, &mut tries));
    let (mut one, mut other) = (None, None);
    std::future::poll_fn(|cx: &mut Context<'_>| {
        let is_over = poll(first.as_mut(), cx, &mut one, retry)
            || poll(second.as_mut(), cx, &mut other, retry)
            || one.is_some() && other.is_some();
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (one, other)
}

/// Looks for the end of one attempt that goes on. True where it has won.
fn poll(
    attempt: Pin<&mut impl Future<Output = End>>,
    cx: &mut Context<'_>,
    end: &mut Option<End>,
    retry: &Retry,
) -> bool {
    if end.is_none()
        && let Poll::Ready(ended) = attempt.poll(cx)
    {
        let has_won = is_good(retry, &ended);
        *end = Some(ended);
        return has_won;
    }
    false
}

fn is_good(retry: &Retry, end: &End) -> bool {
    let status = match end {
        Ok(response) => response.status(),
        Err(_) => return false,
    };
    !status.is_server_error() && retry.reason(Ok(status)).is_none()
}

/// What an end is worth beside another one: an answer, and what may have had consequences.
fn worth(retry: &Retry, end: Option<&End>) -> u8 {
    match end {
        None => 0,
        Some(Err(no_answer)) => 1 + u8::from(no_answer.may_have_acted()),
        Some(end) => 3 + u8::from(is_good(retry, end)),
    }
}

/// Who has won, and who has not. Where both are worth the same, the first one has.
fn decide(retry: &Retry, (first, second): (Runner, Runner), spent: Spent) -> (Runner, Runner) {
    let is_won = worth(retry, second.end.as_ref()) > worth(retry, first.end.as_ref());
    retry.note_hedge(is_won);
    let is_of_use = is_won && second.end.as_ref().is_some_and(|end| is_good(retry, end));
    spent.ends(if is_of_use { Outcome::Good } else { Outcome::Failed });
    if is_won { (second, first) } else { (first, second) }
}

/// Tells what became of the one that has not won. True where its server may have acted.
fn settle(endpoints: &Endpoints, retry: &Retry, loser: &mut Runner) -> bool {
    let visit = &mut loser.whom.1;
    match &loser.end {
        Some(end) => {
            endpoints.note(visit, report(end));
            asking::note_head(visit, end);
            tries::may_have_acted(end.as_ref().map(Response::status))
        }
        None => {
            // Nobody knows how long it takes but that it is longer than most: left out, slow
            // servers would make the percentile less and less.
            if retry.hedges_after().is_some_and(|after| loser.began.elapsed() >= after) {
                note(retry, loser.began);
            }
            visit.lost_race();
            loser.was_read
        }
    }
}

fn finish(retry: &Retry, winner: Runner) -> Hedged {
    let Runner { whom, began, end, .. } = winner;
    let end = end.unwrap_or(Err(NoAnswer::OutOfTime));
    if end.is_ok() {
        note(retry, began);
    }
    Hedged { whom, end }
}

/// An answer took so long.
fn note(retry: &Retry, began: Instant) {
    if let Some(percentile) = retry.percentile() {
        percentile.note(began.elapsed());
    }
}

/// What the end of a race says of a server that has not won it.
fn report(end: &End) -> Report {
    match end {
        Ok(_) => Report::Answered,
        // Its connection may have been about to be closed, and it is not asked once more.
        Err(NoAnswer::Exchanged { reused: true, why: Unanswered::Lost(_) }) => Report::Nothing,
        Err(end) => ends::meaning(end).report,
    }
}
