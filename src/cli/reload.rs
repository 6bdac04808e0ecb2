//! When to reload: at each SIGHUP, one reload at a time, and never so that another signal must
//! wait for one.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

/// Runs `reload` whenever `asked` says so. Those that are asked for while one runs are one more
/// afterwards, so the last state of the files counts. Never ends; dropping it gives up the waiting
/// for the reload that runs.
pub(super) async fn at_each<F: Future<Output = ()>>(
    mut asked: impl FnMut(&mut Context<'_>) -> Poll<Option<()>>,
    reload: impl Fn() -> F,
) {
    while poll_fn(&mut asked).await.is_some() {
        let mut again = true;
        while again {
            again = false;
            let mut running = pin!(reload());
            poll_fn(|cx| {
                while let Poll::Ready(Some(())) = asked(cx) {
                    again = true;
                }
                running.as_mut().poll(cx)
            })
            .await;
        }
    }
    // Nobody can ask any more.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::sync::{Notify, mpsc};

    use super::*;

    #[tokio::test]
    async fn those_that_come_meanwhile_are_one_more() {
        let (ask, mut asked) = mpsc::channel(10);
        let (begun, go_on) = (Cell::new(0), Notify::new());
        let reloads = at_each(
            |cx| asked.poll_recv(cx),
            || async {
                begun.set(begun.get() + 1);
                go_on.notified().await;
            },
        );
        let script = async {
            ask.send(()).await.unwrap();
            tokio::task::yield_now().await;
            assert_eq!(begun.get(), 1);
            for _ in 0..3 {
                ask.send(()).await.unwrap();
            }
            tokio::task::yield_now().await;
            assert_eq!(begun.get(), 1, "one at a time");
            for expected in [2, 2] {
                go_on.notify_one();
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                assert_eq!(begun.get(), expected);
            }
            ask.send(()).await.unwrap();
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            assert_eq!(begun.get(), 3);
        };
        tokio::select! {
            biased;
            () = reloads => unreachable!(),
            () = script => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_that_hangs_can_be_left() {
        let (ask, mut asked) = mpsc::channel(10);
        ask.send(()).await.unwrap();
        let reloads = at_each(|cx| asked.poll_recv(cx), std::future::pending);
        assert!(tokio::time::timeout(Duration::from_secs(1), reloads).await.is_err());
    }
}
