//! Asks a server for its history again and again, so that another one is seen that it got while all
//! connections stood.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::history;
use super::link::Link;
use crate::config;

/// Pause between two questions, as long as nothing shows that it may be another one.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Least pause: each request may show that it is another one.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(10);

/// Asks again and again on the connection that nobody waits for. Ends when the link is dropped.
pub(super) async fn watch(link: Weak<Link>, settings: config::Store, doubt: Arc<Notify>) {
    loop {
        tokio::select! {
            () = doubt.notified() => {}
            () = tokio::time::sleep(LOOK_PAUSE) => {}
        }
        let Some(link) = link.upgrade() else { return };
        let Some(published) = link.get() else {
            drop(link);
            tokio::time::sleep(LOOK_PAUSE_MIN).await;
            continue;
        };
        let doubts = link.node().doubts();
        let asked = history::ask(&published.connection, &settings, link.node().otherwise());
        // What fails or is late is seen by those who look after the connection.
        if let Ok(Ok(told)) = tokio::time::timeout(settings.connect_timeout, asked).await {
            link.node().hear(&told, doubts);
        }
        drop((published, link));
        tokio::time::sleep(LOOK_PAUSE_MIN).await;
    }
}
