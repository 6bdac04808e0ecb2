//! When the files of passwords and certificates are looked at, and what is said of that.

use std::time::Duration;

use tokio::sync::Notify;

/// Pause between two looks at the files.
const LOOK_PAUSE: Duration = Duration::from_secs(30);

/// Looks at the files of one table of the configuration, one after the other.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// What was said last.
    said: String,
}

impl Looks {
    /// Returns when it is time for the next one. A reload has one taken at once.
    pub(super) async fn next(look_now: &Notify) {
        let _ = tokio::time::timeout(LOOK_PAUSE, look_now.notified()).await;
    }

    /// Says what came of one: whether what is new is used, or why not; that once.
    pub(super) fn tell(&mut self, table: &str, used: Result<bool, String>) {
        match used {
            Ok(true) => tracing::info!("the changed files of [{table}] are used for Redis"),
            Ok(false) => {}
            Err(why) => {
                if self.said != why {
                    tracing::warn!(
                        "the changed files of [{table}] are not used, and connections to Redis \
                         stay as they are: {why}\n    help: put in place what Redis accepts; it is \
                         looked at again every {LOOK_PAUSE:?}, and at a reload"
                    );
                }
                self.said = why;
                return;
            }
        }
        self.said.clear();
    }
}
