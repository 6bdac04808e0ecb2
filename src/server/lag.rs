//! How late a serving thread is: what it was to do at a moment, and when it did it. Whatever holds
//! a thread up shows here before its clients tell.

use std::time::Duration;

use tokio::time::Instant;

use crate::net::supervisor::Heart;
use crate::observe::Histogram;

/// How often it is measured.
const TICK: Duration = Duration::from_millis(100);

/// Measures the current thread until its runtime ends; that it is measured shows that it lives.
pub(super) async fn measure(lag: Histogram) {
    let heart = Heart::begin();
    loop {
        lag.observe(tick().await);
        heart.beat();
    }
}

/// How late one timer is.
async fn tick() -> Duration {
    let due = Instant::now() + TICK;
    tokio::time::sleep_until(due).await;
    due.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_is_held_up_is_late_by_that() {
        assert_eq!(tick().await, Duration::ZERO);
        let ticking = tokio::spawn(tick());
        tokio::task::yield_now().await;
        tokio::time::advance(TICK + Duration::from_millis(250)).await;
        assert_eq!(ticking.await.expect("it ends"), Duration::from_millis(250));
    }
}
