//! Follows the configuration file: who swaps it need not tell the gateway (`server.watch`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::sha256_of;
use crate::runtime::Gateway;

/// How often it is looked whether `server.watch` was turned on.
const OFF_PAUSE: Duration = Duration::from_secs(1);

/// Runs `reload` whenever the file has become another one, for as long as the gateway serves.
pub async fn follow<F: Future<Output = ()>>(gateway: &Arc<Gateway>, reload: impl Fn() -> F) {
    let mut watched = Watched::default();
    loop {
        let period = gateway.running().plan.config.server.watch;
        tokio::time::sleep(if period.is_zero() { OFF_PAUSE } else { period }).await;
        let Some((path, applied)) = gateway.config_file() else { continue };
        if !period.is_zero() && watched.is_due(content(path).await, &applied) {
            reload().await;
        }
    }
}

/// The SHA-256 of a file; nothing while it cannot be read.
async fn content(path: &Path) -> Option<String> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || sha256_of(&path)).await.ok().flatten()
}

/// What was found before.
#[derive(Debug, Default)]
struct Watched {
    seen: Option<String>,
    /// What a reload was asked for, which may have refused it.
    tried: Option<String>,
}

impl Watched {
    /// Whether what was found is to be reloaded: not what is in force or was tried, and not what
    /// may be half written, as which it has been found once.
    fn is_due(&mut self, found: Option<String>, applied: &str) -> bool {
        let is_settled = found.is_some() && found == self.seen;
        self.seen = found;
        let found = self.seen.as_deref();
        if found == Some(applied) {
            self.tried = None;
            return false;
        }
        let is_due = is_settled && found != self.tried.as_deref();
        if is_due {
            self.tried.clone_from(&self.seen);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_due_once_when_it_has_settled() {
        let mut watched = Watched::default();
        let mut applied = "a";
        for (found, is_due) in [
            (Some("a"), false),
            (Some("b"), false),
            // Half of it was there.
            (Some("c"), false),
            (Some("c"), true),
            // It was refused, and is not tried again.
            (Some("c"), false),
            (Some("c"), false),
            (None, false),
            (None, false),
            (Some("c"), false),
            (Some("d"), false),
            (Some("d"), true),
        ] {
            let found = found.map(str::to_owned);
            assert_eq!(watched.is_due(found.clone(), applied), is_due, "{found:?}");
        }
        applied = "d";
        // Back to what was refused before something good: it may be good by now.
        for (found, is_due) in [("d", false), ("c", false), ("c", true), ("a", false)] {
            assert_eq!(watched.is_due(Some(found.to_owned()), applied), is_due, "{found}");
        }
    }
}
