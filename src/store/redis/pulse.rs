//! Judges a server four times a second by what became of its questions, and asks one that is open
//! though its connections stand.

use std::sync::Weak;

use super::link::Link;
use super::rung::{COUNT_PAUSE, Counts, PROBE_PAUSE};
use crate::config;

/// See the module. Ends when the link is dropped.
pub(super) async fn watch(link: Weak<Link>, settings: config::Store) {
    let mut before = Counts::default();
    loop {
        let Some(strong) = link.upgrade() else { return };
        let node = std::sync::Arc::clone(strong.node());
        node.count(&mut before);
        let is_down = node.breaker.is_open() && strong.is_up();
        if is_down {
            strong.probe(&settings).await;
        }
        drop(strong);
        let pause = tokio::time::sleep(if is_down { PROBE_PAUSE } else { COUNT_PAUSE });
        tokio::select! {
            () = pause => {}
            () = node.is_down.notified(), if !is_down => {}
        }
    }
}
