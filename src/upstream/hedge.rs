//! A second server is asked while the first one is waited for longer than most answers take ("The
//! Tail at Scale", Dean and Barroso, CACM 56, 2013). Whoever answers first has answered.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio::time::{Instant, timeout};

use super::asking;
use super::conn::{Body, Unanswered};
use super::endpoints::{Choice, Endpoints};
use super::ends::{self, NoAnswer, Report};
use super::outgoing::{OnInterim, Outgoing, Sender, Sending};
use super::retry::{Retry, Spent};
use super::tries::Tries;
use super::visit::Visit;

type End = Result<Response<Body>, NoAnswer>;

/// How one or two attempts have ended.
pub(super) struct Hedged {
    /// Who was faster.
    pub(super) whom: (Choice, Visit),
    pub(super) end: End,
}

/// How a race ended: for each server that has said something, what that was. Of the other one
/// nobody can say anything.
#[derive(Default)]
struct Race {
    first: Option<End>,
    second: Option<End>,
    is_won: bool,
}

/// Asks this server, and after some time another one, too.
pub(super) async fn ask<H: Fn() -> Request<()>>(
    (endpoints, retry): (&Endpoints, &Retry),
    (choice, mut visit): (Choice, Visit),
    (outgoing, tries): (&mut Outgoing<'_, H, impl OnInterim>, &mut Tries),
) -> Hedged {
    let sender = outgoing.sender();
    let mut began = Instant::now();
    let Some((sending, again)) = outgoing.doubled() else {
        let end = asking::ask(endpoints, &visit, outgoing.sending(), tries).await;
        return Hedged { whom: (choice, visit), end };
    };
    let on_interim = sending.on_interim;
    let (mut race, mut other) = {
        let mut first = pin!(asking::ask(endpoints, &visit, sending, tries));
        let early = match retry.hedges_after() {
            Some(time) => timeout(time, first.as_mut()).await.ok(),
            None => Some(first.as_mut().await),
        };
        let other = if early.is_none() { second(endpoints, retry, choice, sender) } else { None };
        match (early, other) {
            (Some(end), _) => (Race { first: Some(end), ..Race::default() }, None),
            (None, None) => (Race { first: Some(first.await), ..Race::default() }, None),
            (None, Some((other, entered, spent))) => {
                let mut request = Some(again());
                let sending =
                    Sending { request: &mut request, on_interim, upgrades: false, sender };
                let second_began = Instant::now();
                let raced = race_of((endpoints, retry), first, &entered, sending).await;
                retry.note_hedge(raced.is_won);
                if raced.is_won {
                    // Its own time: what was waited before would have the next one wait longer.
                    began = second_began;
                }
                drop(spent);
                (raced, Some((other, entered)))
            }
        }
    };
    if race.is_won
        && let (Some(whom), Some(end)) = (other.take(), race.second.take())
    {
        if let Some(lost) = &race.first {
            endpoints.note(&mut visit, report(lost));
        }
        note(retry, began, &end);
        return Hedged { whom, end };
    }
    if let Some((_, mut entered)) = other {
        sender.note_server(|| visit.transport().url());
        if let Some(lost) = &race.second {
            endpoints.note(&mut entered, report(lost));
        }
        if let Some(Ok(response)) = &race.second {
            let trailers = response.body().first_trailers();
            entered.answered(response.status(), response.headers(), trailers);
        }
    }
    // A race that nobody has won ends with the first one's end.
    let end = race.first.unwrap_or(Err(NoAnswer::OutOfTime));
    note(retry, began, &end);
    Hedged { whom: (choice, visit), end }
}

/// Another server to ask, where there is one, and room and budget for that.
fn second(
    endpoints: &Endpoints,
    retry: &Retry,
    first: Choice,
    sender: &Sender,
) -> Option<(Choice, Visit, Spent)> {
    if endpoints.connections().is_full() {
        return None;
    }
    // One that is slow is no reason to ask a server in reserve.
    let other = endpoints.next(&[first.at], sender.key)?;
    if endpoints.is_backup(other.at) && !endpoints.is_backup(first.at) {
        return None;
    }
    let spent = retry.spend(endpoints.busy())?;
    let visit = endpoints.enter(other, sender)?;
    sender.note_attempt(|| visit.transport().url());
    sender.note_retry("hedge");
    Some((other, visit, spent))
}

/// Asks the second server, and waits for the first answer: of the second one only for one that is
/// no reason to ask again.
async fn race_of(
    (endpoints, retry): (&Endpoints, &Retry),
    mut first: Pin<&mut impl Future<Output = End>>,
    visit: &Visit,
    sending: Sending<'_, impl OnInterim>,
) -> Race {
    let mut tries = Tries::default();
    let mut second = pin!(asking::ask(endpoints, visit, sending, &mut tries));
    let mut race = Race::default();
    std::future::poll_fn(|cx: &mut Context<'_>| {
        if race.first.is_none()
            && let Poll::Ready(end) = first.as_mut().poll(cx)
        {
            let is_answered = end.is_ok();
            race.first = Some(end);
            if is_answered || race.second.is_some() {
                return Poll::Ready(());
            }
        }
        if race.second.is_none()
            && let Poll::Ready(end) = second.as_mut().poll(cx)
        {
            race.is_won = is_good(retry, &end);
            race.second = Some(end);
            if race.is_won || race.first.is_some() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
    race
}

fn is_good(retry: &Retry, end: &End) -> bool {
    let status = match end {
        Ok(response) => response.status(),
        Err(_) => return false,
    };
    !status.is_server_error() && retry.reason(Ok(status)).is_none()
}

/// An answer took so long.
fn note(retry: &Retry, began: Instant, end: &End) {
    if let (Ok(_), Some(percentile)) = (end, retry.percentile()) {
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
