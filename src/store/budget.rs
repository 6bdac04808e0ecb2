//! How long one request waits for the store in all: its timeout budget.
//!
//! A request may ask several times, one after the other: for the record of an API key, for all that
//! its route asks, for another variant, the lease on a fetch, an invalidation. All of it together
//! may take what one question may, `store.timeout`: what one has taken, the next one lacks. The
//! time in which its upstream is asked does not count.
//!
//! Most requests ask once, and need no budget for that. So whoever asks first says how long it
//! took, and what comes behind runs in a scope that begins with that ([`scope_from`]). A scope
//! belongs to the task, so that no question in it is forgotten.
//!
//! What goes on behind a response is a task of its own and has none: each of its questions has its
//! whole time, and so has each of operators. What begins in a request and may end in another task,
//! while the client waits, takes along what is left.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use super::StoreError;

/// With less than this left, nothing is asked.
const LEAST: Duration = Duration::from_millis(1);

/// What is kept, of `store.timeout` up to half, for a question whose answer nothing can stand in
/// for.
const KEPT: Duration = Duration::from_millis(25);

tokio::task_local! {
    static BUDGET: Budget;
}

/// What one request has taken of its time for the store.
#[derive(Debug, Default)]
struct Budget {
    spent: Cell<Duration>,
    /// So much may be spent in any case, however little a store's own timeout is.
    kept: Cell<Duration>,
    /// Questions that are under way: what is asked at once takes its time once.
    asked: Cell<u32>,
    since: Cell<Option<Instant>>,
}

impl Budget {
    fn left(&self, timeout: Duration) -> Duration {
        timeout.max(self.kept.get()).saturating_sub(self.spent.get())
    }
}

/// Gives what asks several times one budget for all that it waits for.
pub fn scope<F: Future>(request: F) -> impl Future<Output = F::Output> {
    scope_from(Duration::ZERO, request)
}

/// The same where so much of it was taken before.
pub fn scope_from<F: Future>(spent: Duration, request: F) -> impl Future<Output = F::Output> {
    BUDGET.scope(Budget { spent: Cell::new(spent), ..Budget::default() }, request)
}

/// The same; returns also what was taken in the end.
pub fn spending<F: Future>(
    spent: Duration,
    request: F,
) -> impl Future<Output = (F::Output, Duration)> {
    scope_from(spent, async { (request.await, self::spent()) })
}

/// What has been taken of the budget; nothing where there is none.
pub fn spent() -> Duration {
    BUDGET.try_with(|budget| budget.spent.get()).unwrap_or_default()
}

/// What is left of `timeout` for one more question.
pub fn left(timeout: Duration) -> Duration {
    BUDGET.try_with(|budget| budget.left(timeout)).unwrap_or(timeout)
}

/// Sees to it that 25 ms of `timeout` are left, or half of it if that is less: for what must be
/// asked however long its request has waited. What was taken stays taken: it may be the time of
/// another store, with a longer timeout.
pub fn keep(timeout: Duration) {
    let _ = BUDGET.try_with(|budget| {
        let least = budget.spent.get().saturating_add(KEPT.min(timeout / 2));
        if least > timeout {
            budget.kept.set(budget.kept.get().max(least));
        }
    });
}

/// Takes so much of the budget, for a pause between two questions.
pub fn spend(time: Duration) {
    let _ = BUDGET.try_with(|budget| budget.spent.set(budget.spent.get().saturating_add(time)));
}

/// Takes back what has been taken beyond `most`, and what was kept since.
pub fn cap(most: Duration) {
    let _ = BUDGET.try_with(|budget| {
        budget.spent.set(budget.spent.get().min(most));
        budget.kept.set(Duration::ZERO);
    });
}

/// A question under way, which takes of the budget until it is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct Waiting {
    is_counted: bool,
}

impl Waiting {
    /// For a question that must be answered by `deadline`, which was made of what is left of
    /// `timeout`.
    ///
    /// # Errors
    /// It is not asked: too little is left.
    pub(super) fn begin(deadline: Instant, timeout: Duration) -> Result<Self, StoreError> {
        let begun = BUDGET.try_with(|budget| {
            let left = budget.left(timeout);
            if !budget.spent.get().is_zero() && left < LEAST {
                return Err(StoreError::NotAsked);
            }
            if budget.asked.replace(budget.asked.get() + 1) == 0 {
                budget.since.set(Some(deadline.checked_sub(left).unwrap_or(deadline)));
            }
            Ok(Self { is_counted: true })
        });
        begun.unwrap_or(Ok(Self { is_counted: false }))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.is_counted {
            return;
        }
        let _ = BUDGET.try_with(|budget| {
            let others = budget.asked.get().saturating_sub(1);
            budget.asked.set(others);
            if others == 0
                && let Some(since) = budget.since.take()
            {
                budget.spent.set(budget.spent.get() + since.elapsed());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(50);

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A question that takes so long, or until its time is over.
    async fn ask(takes: Duration) -> Result<(), StoreError> {
        let left = left(TIMEOUT);
        let _waiting = Waiting::begin(Instant::now() + left, TIMEOUT)?;
        sleep(takes.min(left)).await;
        if takes > left { Err(StoreError::Timeout) } else { Ok(()) }
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_a_request_waits_for_takes_what_one_question_may() {
        let begun = Instant::now();
        scope(async {
            assert_eq!(ask(ms(30)).await, Ok(()));
            // The upstream's time is its own.
            advance(ms(500)).await;
            assert_eq!(left(TIMEOUT), ms(20));
            assert_eq!(ask(ms(40)).await, Err(StoreError::Timeout));
            assert_eq!(ask(ms(1)).await, Err(StoreError::NotAsked));
        })
        .await;
        assert_eq!(begun.elapsed(), ms(550));
        // Another store may have more time.
        scope(async {
            assert_eq!(ask(ms(60)).await, Err(StoreError::Timeout));
            assert_eq!(left(2 * TIMEOUT), TIMEOUT);
            cap(ms(20));
            assert_eq!(ask(ms(20)).await, Ok(()), "what is granted on top");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn too_little_is_not_asked_with_and_the_first_question_always_is() {
        scope(async {
            assert_eq!(ask(TIMEOUT - ms(1)).await, Ok(()));
            assert_eq!(ask(ms(1)).await, Ok(()));
        })
        .await;
        scope(async {
            assert_eq!(ask(TIMEOUT - LEAST / 2).await, Ok(()));
            assert_eq!(ask(Duration::ZERO).await, Err(StoreError::NotAsked));
        })
        .await;
        scope(async {
            assert!(Waiting::begin(Instant::now() + LEAST / 4, LEAST / 4).is_ok());
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_at_once_takes_its_time_once() {
        scope(async {
            let (short, long) = tokio::join!(ask(ms(10)), ask(ms(30)));
            assert_eq!((short, long, spent()), (Ok(()), Ok(()), ms(30)));
            // Nobody waits for a question any more that was given up.
            let _ = tokio::time::timeout(ms(5), ask(ms(20))).await;
            assert_eq!(spent(), ms(35));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn some_is_kept_for_what_must_be_asked() {
        scope(async {
            keep(TIMEOUT);
            assert_eq!(left(TIMEOUT), TIMEOUT, "nothing is taken by that");
            assert_eq!(ask(ms(60)).await, Err(StoreError::Timeout));
            keep(TIMEOUT);
            assert_eq!(left(TIMEOUT), KEPT);
            assert_eq!(ask(ms(20)).await, Ok(()));
        })
        .await;
        scope(async {
            let _ = Waiting::begin(Instant::now(), ms(10));
            keep(ms(10));
            assert_eq!(left(ms(10)), ms(5), "half of a short one");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_for_one_store_gives_no_other_its_time_back() {
        let (main, cache) = (ms(200), ms(50));
        scope_from(ms(120), async {
            keep(cache);
            assert_eq!((left(main), left(cache)), (ms(80), KEPT));
            spend(ms(15));
            assert_eq!((left(main), left(cache), spent()), (ms(65), ms(10), ms(135)));
            // Nothing is added where enough is left.
            keep(main);
            assert_eq!(left(main), ms(65));
            cap(ms(120));
            assert_eq!((left(main), left(cache)), (ms(80), ms(0)), "kept for what is over");
        })
        .await;
        let ((), all) = spending(ms(5), async { spend(ms(10)) }).await;
        assert_eq!(all, ms(15));
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_in_another_task_takes_along_what_is_left() {
        scope(async {
            assert_eq!(ask(ms(30)).await, Ok(()));
            let mut rest = Box::pin(scope_from(spent(), async {
                (ask(ms(15)).await, ask(ms(15)).await, ask(ms(1)).await)
            }));
            // It is begun here.
            std::future::poll_fn(|cx| std::task::Poll::Ready(rest.as_mut().poll(cx).is_ready()))
                .await;
            let rest = tokio::spawn(rest).await.expect("it ends");
            let expected = (Ok(()), Err(StoreError::Timeout), Err(StoreError::NotAsked));
            assert_eq!(rest, expected);
            assert_eq!(ask(ms(20)).await, Ok(()), "the request's own goes on");
            assert_eq!(spent(), ms(50));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_request_waits_for_has_no_budget() {
        scope(async {
            assert_eq!(ask(ms(49)).await, Ok(()));
            let behind = tokio::spawn(async {
                for _ in 0..3 {
                    assert_eq!(ask(TIMEOUT).await, Ok(()));
                }
            });
            behind.await.expect("each has its whole time");
        })
        .await;
        assert_eq!((ask(TIMEOUT).await, ask(TIMEOUT).await), (Ok(()), Ok(())));
    }
}
